"""Fingerprints of code: a hash that changes when a function's behaviour may have changed.

The fingerprint of a function covers the syntax trees of everything it reaches by name: functions,
classes and constants of this package, and of your plug-ins. Docstrings, comments, import
statements, paths and module names do not count, so documenting or moving code changes nothing.
Other packages are not followed; units record their versions instead.

Of a dict annotated `Registry[...]`, only those entries count whose key occurs as a string in the
arguments or in the code reached. A string "module:function" in the arguments is a plug-in: its
function is followed, or its version counts if it belongs to an installed package.
"""

import ast
import hashlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple

from ticketlab.plugins import is_plugin, see_project
from ticketlab.spec import InputError

PACKAGE = Path(__file__).parents[1]
WITHOUT_EFFECT = frozenset({"ticketlab.progress"})
"""Modules left out of the code hash because they cannot affect a unit's output."""


class Symbol(NamedTuple):
    """A name at the top level of a module."""

    module: str
    name: str


EFFECTS = "*"
"""Pseudo-name for a module's top-level statements that define no name."""


@dataclass(frozen=True)
class Module:
    """A module's statements by the name they define, without docstrings, and its imports."""

    statements: Mapping[str, list[ast.stmt]]
    imports: Mapping[str, str]
    """Dotted name by local name, including imports inside functions."""


@dataclass(frozen=True)
class Piece:
    """Code as text, with a placeholder for each symbol that it refers to."""

    text: str
    targets: tuple[Symbol, ...]
    strings: frozenset[str]

    def filled(self, label: Callable[[Symbol], str]) -> str:
        """Return the text with each placeholder replaced by its label."""
        return _PLACE.sub(lambda match: label(self.targets[int(match[1])]), self.text)


_PLACE = re.compile(r"\x1a(\d+)\x1a")


# ---------------------------------------------------------------- fingerprints


def fingerprint(*functions: Callable[..., Any] | type, strings: Iterable[str] = ()) -> str:
    """Return the SHA-256 of all code that the functions reach, given the `strings` in arguments."""
    start = (Symbol(one.__module__, one.__qualname__.partition(".")[0]) for one in functions)
    return _fingerprint(tuple(start), _choosing(strings))


def source_fingerprint(code: str, strings: Iterable[str] = ()) -> str:
    """Return the fingerprint of all that a program's text uses, such as a notebook's code cells.

    Functions passed to `show_source` count with docstrings and comments.
    """
    tree = ast.parse(code)
    module = _split(tree, "__main__")
    piece = _piece(tree, "__main__", module)
    shown = [
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("show_source")
        for argument in node.args
    ]
    sources = [
        _source(target) for node in shown for target in _piece(node, "__main__", module).targets
    ]
    text = "\n".join([_fingerprint(piece.targets, _choosing(strings)), *sources])
    return hashlib.sha256(text.encode()).hexdigest()


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string at any depth of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings_in(key)
            yield from strings_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings_in(inner)


def _choosing(strings: Iterable[str]) -> frozenset[str]:
    """Return the strings that can select code: keys of registries, and plug-ins."""
    return frozenset(text for text in strings if text in registered() or is_plugin(text))


@cache
def _fingerprint(start: tuple[Symbol, ...], strings: frozenset[str]) -> str:
    reached = reach(start, strings)
    own = {
        symbol: _hash("\n".join(piece.filled(lambda target: target.name) for piece in pieces))
        for symbol, pieces in reached.items()
    }

    # A reference counts as the code it refers to, not as its path: calling another function of
    # the same name is a change, and moving the same function is not.
    def label(target: Symbol) -> str:
        found = defined(target)
        return own.get(found, target.name) if found else target.name

    whole = [_hash("\n".join(p.filled(label) for p in pieces)) for pieces in reached.values()]
    return _hash("\n".join(sorted([*whole, *_versions(strings)])))


def _versions(strings: Iterable[str]) -> Iterator[str]:
    """Yield name and version of each installed package that has one of the plug-ins."""
    for text in strings:
        package = text.partition(":")[0].partition(".")[0]
        if is_plugin(text) and not is_followed(text.partition(":")[0]):
            for found in metadata.packages_distributions().get(package, ()):
                yield f"{found} {metadata.version(found)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- what is reached


def reach(start: Iterable[Symbol], strings: Iterable[str] = ()) -> dict[Symbol, list[Piece]]:
    """Return the pieces of code that are reached from `start`, by the symbol they belong to."""
    known = set(strings)
    plugins = [_plugin(text) for text in known if is_plugin(text)]
    symbols = {found for one in (*start, *plugins) if (found := defined(one))}
    used: set[tuple[Symbol, str | None]] = set()
    while True:
        fresh = [
            (symbol, key, piece)
            for symbol in symbols
            for key, piece in pieces(symbol).items()
            if (symbol, key) not in used and (key is None or key in known)
        ]
        if not fresh:
            break
        for symbol, key, piece in fresh:
            used.add((symbol, key))
            known |= piece.strings
            symbols |= {found for one in piece.targets if (found := defined(one))}
            symbols |= {found for found in [defined(Symbol(symbol.module, EFFECTS))] if found}
    return {
        symbol: [piece for key, piece in pieces(symbol).items() if (symbol, key) in used]
        for symbol in symbols
    }


def _plugin(text: str) -> Symbol:
    """Return the function that a plug-in names; InputError if its followed module lacks it."""
    symbol = Symbol(*text.split(":"))
    if is_followed(symbol.module) and defined(symbol) is None:
        allowed = "allowed is one that its module defines, or imports by name from such a module"
        raise InputError(f"{text}: its code cannot be followed, so no key covers it; {allowed}")
    return symbol


@cache
def defined(symbol: Symbol) -> Symbol | None:
    """Find where a symbol is defined, through re-exports; None if its code is not followed."""
    if not is_followed(symbol.module):
        return None
    module = parsed(symbol.module)
    if symbol.name in module.statements:
        return symbol
    dotted = module.imports.get(symbol.name)
    target = target_of(dotted) if dotted else None
    return defined(target) if isinstance(target, Symbol) else None


@cache
def target_of(dotted: str) -> Symbol | str | None:
    """Resolve a dotted name to a followed module, a symbol in one, or None."""
    if is_followed(dotted):
        return dotted
    module, _, name = dotted.rpartition(".")
    return Symbol(module, name) if module and is_followed(module) else None


@cache
def pieces(symbol: Symbol) -> Mapping[str | None, Piece]:
    """Return the code of a symbol: one piece, or one per key for a registry."""
    module = parsed(symbol.module)
    nodes = module.statements[symbol.name]
    if len(nodes) == 1 and (entries := registry_entries(nodes[0])) is not None:
        return {key: _piece(value, symbol.module, module) for key, value in entries.items()}
    return {None: _piece(nodes, symbol.module, module)}


def registry_entries(node: ast.AST) -> dict[str, ast.expr] | None:
    """Return the values by key of a dict annotated `Registry[...]`; None for any other code."""
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)):
        return None
    if not ast.unparse(node.annotation).startswith("Registry["):
        return None
    pairs = zip(node.value.keys, node.value.values, strict=True)
    return {str(ast.literal_eval(key)): value for key, value in pairs if key is not None}


@cache
def registered() -> frozenset[str]:
    """Return every key of every registry of the package."""
    texts = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    trees = (ast.parse(text) for text in texts if ": Registry[" in text)
    found = (registry_entries(node) or {} for tree in trees for node in tree.body)
    return frozenset(key for entries in found for key in entries)


# ---------------------------------------------------------------- code as text


def _piece(nodes: ast.AST | list[ast.stmt], name: str, module: Module) -> Piece:
    """Return the code of nodes from the module `name`."""
    writer = _Writer(name, module)
    return Piece(writer.text(nodes), tuple(writer.targets), frozenset(writer.strings))


class _Writer:
    """Writes a syntax tree as text that is the same on every Python version.

    References to followed code become placeholders; other imported names become dotted names.
    """

    def __init__(self, name: str, module: Module) -> None:
        self.name, self.module = name, module
        self.targets: list[Symbol] = []
        self.strings: set[str] = set()

    def text(self, node: Any) -> str:
        """Return the text of a node, a list of nodes, or a plain value."""
        if isinstance(node, list):
            return f"[{' '.join(self.text(one) for one in node)}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Name) and (named := self._name(node.id)):
            return named
        if isinstance(node, ast.Attribute) and (dotted := self._dotted(node)):
            target = target_of(dotted)
            if isinstance(target, Symbol):
                return self._place(target)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.strings.add(node.value)
        fields = (
            f"{field}={self.text(value)}"
            for field, value in ast.iter_fields(node)
            if field not in ("ctx", "kind", "type_comment") and value not in (None, [])
        )
        return f"{type(node).__name__}({' '.join(fields)})"

    def _name(self, name: str) -> str | None:
        """Resolve a name that the module defines or imports; None for any other."""
        if name in self.module.statements:
            return self._place(Symbol(self.name, name))
        if name not in self.module.imports:
            return None
        dotted = self.module.imports[name]
        target = target_of(dotted)
        if isinstance(target, Symbol):
            return self._place(target)
        if target is not None:  # a module used as a value: any of its names may be used
            self.targets += [Symbol(target, inner) for inner in sorted(parsed(target).statements)]
            return name
        return dotted

    def _dotted(self, node: ast.expr) -> str | None:
        """Resolve an expression such as `masks.ones` through the module's imports."""
        if isinstance(node, ast.Name):
            return self.module.imports.get(node.id)
        if isinstance(node, ast.Attribute):
            outer = self._dotted(node.value)
            return f"{outer}.{node.attr}" if outer and is_followed(outer) else None
        return None

    def _place(self, target: Symbol) -> str:
        self.targets.append(target)
        return f"\x1a{len(self.targets) - 1}\x1a"


class _Bare(ast.NodeTransformer):
    """Removes import statements and free-standing strings (docstrings)."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node

    def visit_Import(self, node: ast.Import) -> None: ...

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...


# ---------------------------------------------------------------- modules


@cache
def source_of(module: str) -> Path | None:
    """Return the file of a module whose code is followed, without importing it; else None.

    Followed are this package, and modules on the import path that are not installed (plug-ins).
    """
    if module.partition(".")[0] == PACKAGE.name:
        path = PACKAGE.joinpath(*module.split(".")[1:])
        files = [path / "__init__.py", path.with_suffix(".py")]
        return next((file for file in files if file.is_file()), None)
    if not _is_own(module.partition(".")[0]):
        return None
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # the parent is a module, not a package
        return None
    origin = "" if found is None else found.origin or ""
    return Path(origin) if origin.endswith(".py") else None


@cache
def _is_own(package: str) -> bool:
    """Return whether a top-level module or package exists and is not installed."""
    if package in sys.stdlib_module_names or package == "__main__":
        return False
    see_project()  # before the first look-up, because results are cached
    found = find_spec(package)
    if found is None:
        return False
    files = [found.origin] if found.origin else found.submodule_search_locations or []
    places = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    if any(Path(file).is_relative_to(place) for file in files for place in places):
        return False
    beside = [Path(str(found.locate_file(""))) for found in _distributions(package)]
    return not any(Path(file).is_relative_to(place) for file in files for place in beside)


def _distributions(package: str) -> list[metadata.Distribution]:
    """Return the distributions that installed a package, anywhere (`pip install --target`)."""
    names = metadata.packages_distributions().get(package, ())
    return [metadata.distribution(name) for name in names]


def is_followed(module: str) -> bool:
    """Return whether the code of a module counts."""
    return module not in WITHOUT_EFFECT and source_of(module) is not None


@cache
def parsed(module: str) -> Module:
    """Return a followed module, as its file was when this process first read it."""
    path = source_of(module)
    assert path is not None, module
    return _split(ast.parse(path.read_text(encoding="utf-8")), module)


def _split(tree: ast.Module, name: str) -> Module:
    """Group a module's statements by the names they define, without imports and docstrings."""
    imports: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                imports[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = resolve_name("." * node.level + base, name.rpartition(".")[0])
            imports |= {one.asname or one.name: f"{base}.{one.name}" for one in node.names}
    statements: dict[str, list[ast.stmt]] = {}
    for node in _Bare().visit(tree).body:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            for bound in _bound(node) or [EFFECTS]:
                statements.setdefault(bound, []).append(node)
    return Module(statements, imports)


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return []
    names = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return [part.id for part in names if isinstance(part.ctx, ast.Store)]


def _source(symbol: Symbol) -> str:
    """Return the text of a symbol with its docstring and comments."""
    found = defined(symbol)
    path = source_of(found.module) if found else None
    if found is None or path is None:
        return ""
    text = path.read_text(encoding="utf-8")
    nodes = (node for node in ast.parse(text).body if found.name in _bound(node))
    return "\n".join(ast.get_source_segment(text, node) or "" for node in nodes)
