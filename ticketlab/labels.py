"""Names and looks: what figures, tables and pages call an arm, metric, layer or unit.

All of it stands in labels.yaml. A name that is not there (an arm or a criterion of one's own) is
shown as it is, in a colour of its own.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

from pydantic import Field, ValidationError

from ticketlab.files import read_yaml
from ticketlab.plugins import is_plugin
from ticketlab.spec import InputError, Spec

FILE = Path(__file__).with_name("labels.yaml")
MINUS = "_minus_"
Colour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]

Look = Mapping[str, str]
"""How an arm is drawn, in matplotlib's words: color, marker, fillstyle and linestyle."""


class Method(Spec):
    """A method: its label, what it is, and its colour and marker in all notebooks."""

    label: str
    color: Colour
    marker: str
    means: str


class Arm(Spec):
    """A variant or control of a method: it has the method's colour and a hollow marker."""

    label: str
    of: str
    marker: str = ""
    full: bool = False
    """Whether it is the method itself under another name, so that its marker is filled."""
    means: str = ""


class Family(Spec):
    """Names with parts in braces, such as 'colt-class-{k}of{n}'; `{arm}` is itself a name."""

    name: str
    label: str
    of: str = ""
    marker: str = ""


class Labels(Spec):
    """The content of labels.yaml."""

    methods: dict[str, Method]
    spare: list[Colour]
    arms: dict[str, Arm]
    families: list[Family]
    short: dict[str, str]
    metrics: dict[str, str]
    layers: dict[str, str]
    units: dict[str, str]


@cache
def read() -> Labels:
    """All of labels.yaml; InputError names what is missing or wrong."""
    try:
        return Labels.model_validate(read_yaml(FILE))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{FILE.name}: {where}: {first['msg']}") from error


# ---------------------------------------------------------------- names


def label(name: str) -> str:
    """The label of a name, 'A minus B' of a difference; the name itself if it is unknown."""
    return _found(name) or str(name)


def known(name: str) -> bool:
    """Whether labels.yaml has this name, or a family that it belongs to."""
    return _found(name) is not None


def means(name: str) -> str:
    """What a method or an arm is, in words; '' where nothing is said."""
    every = read()
    found = every.methods.get(name) or every.arms.get(name)
    return found.means if found else ""


def labelled(names: Iterable[str]) -> dict[str, str]:
    """The labels of several names, as tables and axes rename them."""
    return {name: label(name) for name in names}


@cache
def _found(name: str) -> str | None:
    every = read()
    for plain in (every.short, every.metrics, every.layers, every.units):
        if name in plain:
            return plain[name]
    for entries in (every.methods, every.arms):
        if found := entries.get(name):
            return str(found.label)
    return _difference(name) or _of_family(name) or _dashed(name)


def _of_family(name: str) -> str | None:
    """The label by the first family that the name belongs to."""
    for family, parts in _families_of(name):
        shown = {key: _found(part) or part for key, part in parts.items()}
        if all(_named(parts[key]) for key in ("arm", "unit") if key in parts):
            return family.label.format(**shown)
    return None


def _named(part: str) -> bool:
    """Whether a part of a name is a name itself: a known one, or a criterion of one's own."""
    return known(part) or is_plugin(part)


def _families_of(name: str) -> Iterable[tuple[Family, dict[str, str]]]:
    for family in read().families:
        if match := re.fullmatch(_pattern(family.name), name):
            yield family, match.groupdict()


@cache
def _pattern(name: str) -> str:
    """'{n}of{n}' as a regular expression; numbers are n and k, a part that repeats is the same."""
    kinds = {"n": r"\d+", "k": r"\d+", "x": r"[\d._e-]+"}
    seen: set[str] = set()
    pattern = ""
    for text, part in re.findall(r"([^{]*)(?:\{(\w+)\})?", name):
        pattern += re.escape(text)
        if part:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>{kinds.get(part, '.+')})"
            seen.add(part)
    return pattern


def _difference(name: str) -> str | None:
    """'colt_minus_imp' is 'COLT minus IMP' if both sides are known."""
    own, minus, other = name.partition(MINUS)
    sides = [_found(side) for side in (own, other)] if minus else [None]
    return " minus ".join(map(str, sides)) if all(sides) else None


def _dashed(name: str) -> str | None:
    """Keys of metrics.json have '_' where arms have '-'."""
    dashed = name.replace("_", "-")
    return _found(dashed) if dashed != name and MINUS not in name else None


# ---------------------------------------------------------------- looks


def look(arm: str) -> Look:
    """Colour and marker of an arm: a method's own, or those of a variant of it (hollow)."""
    every = read()
    if method := every.methods.get(arm):
        return _drawn(method.color, method.marker)
    if own := every.arms.get(arm):
        base = every.methods[own.of]
        return _drawn(base.color, own.marker or base.marker, own.full)
    return _look_of_family(arm) or _drawn(_spare(arm), "o")


def _look_of_family(arm: str) -> Look | None:
    """As the arm that a member of a family is a variant of; those with a short name are filled."""
    every = read()
    for family, parts in _families_of(arm):
        if family.of:
            base = every.methods[family.of]
            return _drawn(base.color, family.marker or base.marker, arm == _main(family.of))
        if "arm" in parts and _named(parts["arm"]):
            base_look = look(parts["arm"])
            return _drawn(base_look["color"], family.marker or base_look["marker"], False)
    return None


def _main(method: str) -> str | None:
    """The arm that has the method's own label as its short name."""
    every = read()
    names = [arm for arm, text in every.short.items() if text == every.methods[method].label]
    return names[0] if names else None


def colour(arm: str) -> str:
    """The colour of an arm, '#rrggbb'."""
    return look(arm)["color"]


def marker(arm: str) -> str:
    """The marker of an arm, as matplotlib names it."""
    return look(arm)["marker"]


def palette() -> list[str]:
    """The colours of the methods, for what is no arm: the same contrast, in the file's order."""
    return [method.color for name, method in read().methods.items() if name != "dense"]


def _drawn(color: str, marker: str, full: bool = True) -> dict[str, Any]:
    """The look: filled and solid, or hollow and dashed."""
    fill, line = ("full", "-") if full else ("none", "--")
    return {"color": color, "marker": marker, "fillstyle": fill, "linestyle": line}


def _spare(arm: str) -> str:
    """A colour for an arm that the file does not have, the same on every run."""
    spare = read().spare
    return spare[crc32(arm.encode()) % len(spare)]
