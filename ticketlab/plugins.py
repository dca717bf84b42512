"""Plug-ins: your own function, named in the parameters as `my_module:function`.

The module is searched for on the import path, to which the project's root is appended. The caller
of `choose` decides what kind of plug-in it needs (a criterion, a model) and with which arguments.
A unit's key includes the plug-in's code (`study.fingerprint`), so an edit re-trains exactly the
units that use it.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ticketlab.spec import ROOT, InputError

FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""`module:function`; the module may be inside packages."""

T = TypeVar("T")


def is_plugin(name: str) -> bool:
    """Return whether a name has the form of a plug-in; no built-in name has."""
    return FORM.fullmatch(name) is not None


def slug(name: str) -> str:
    """Return a name usable in file names and metric keys: 'my_module:f' becomes 'my_module_f'."""
    return FORM.sub(lambda found: re.sub("[.:]", "_", found[0]), name)


def allowed(builtin: Collection[str], takes: Sequence[str]) -> str:
    """List the allowed values for a message."""
    own = f"a function ({', '.join(takes)}) of your own as my_module:function"
    return f"allowed: {', '.join([*builtin, f'or {own}'])}" if builtin else f"allowed: {own}"


def choose(name: str, builtin: Mapping[str, T], takes: Sequence[str]) -> T | Callable[..., Any]:
    """Return the built-in or the plug-in of this name.

    A plug-in must be callable with the positional arguments `takes`. InputError states the problem
    and what is allowed in one line that continues `KEY: VALUE is not valid,`.
    """
    if name in builtin:
        return builtin[name]
    wrong = _what_is_wrong(name, takes) if is_plugin(name) else ""
    if wrong or not is_plugin(name):
        raise InputError(f"{wrong}{allowed(builtin, takes)}")
    return _function(name)


def see_project() -> None:
    """Append the project's root to the import path, where it hides no other module."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(sys.modules[module], function)
    return found


def _what_is_wrong(name: str, takes: Sequence[str]) -> str:
    """Return the problem as a clause that ends in '; ', or '' for a plug-in that can be called."""
    module, _, function = name.partition(":")
    see_project()
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return f"there is no module {error.name} on the import path or in {ROOT}; "
        return f"importing {module} fails: {_one_line(error)}; "
    except Exception as error:
        return f"importing {module} fails: {type(error).__name__}: {_one_line(error)}; "
    if not callable(found):
        return f"{module} has no function {function}; "
    try:
        inspect.signature(found).bind(*takes)
    except (TypeError, ValueError) as error:
        return f"{function} cannot be called so ({_one_line(error)}); "
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
