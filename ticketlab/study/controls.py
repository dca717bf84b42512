"""Positive controls: what must hold on a bed before a claim can be judged on it.

A bed is a net, its data and its recipe. A control is a number over seeds and a bound fixed in
advance; it passes if the whole 95 % interval is at the bound or beyond.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ticketlab.spec import InputError
from ticketlab.study import rules
from ticketlab.study.stats import (
    MISSING,
    Evidence,
    Measured,
    as_evidence,
    as_metric,
    as_share,
    beside,
)

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

Entry = dict[str, Any]

TRAINED = 80.0
"""Percent of training images that a trained dense net must classify correctly, fixed on pilots."""


def trained(at_least: float = TRAINED) -> tuple[str, dict[str, float]]:
    """Return the first control of every bed in words, with its bound: the dense net has learned."""
    says = f"At its end the dense net gets {at_least:g} % of its training images right."
    return says, {"at_least": at_least}


@dataclass(frozen=True)
class Control:
    """The result of one control of a bed."""

    bed: str
    name: str
    says: str
    evidence: Evidence
    bound: float
    strictly: bool

    @property
    def passed(self) -> bool:
        """Whether the whole interval is at the bound or beyond."""
        return rules.decide(self.evidence, self.bound, self.strictly) == "reproduced"

    @property
    def needed(self) -> str:
        """The condition: '>= 80' or '> 0'."""
        return f"{'>' if self.strictly else '>='} {self.bound:g}"

    @property
    def ours(self) -> str:
        """The number, with enough digits to show on which side of the bound it lies."""
        return beside(self.evidence, self.bound)


def control(
    says: str,
    values: Mapping[Any, float],
    *,
    at_least: float | None = None,
    above: float | None = None,
) -> Entry | None:
    """Make a control for metrics.json from numbers or flags by seed, or a count; null if none ran.

    `says` states what holds if it passes. Raises InputError unless exactly one bound is given.
    """
    if (at_least is None) == (above is None):
        raise InputError(f"control {says!r}: at_least and above: one of them is needed")
    if not values:
        return None
    strictly, bound = above is not None, at_least if above is None else above
    return {"says": says, "bound": bound, "strictly": strictly, "number": _number(values)}


def _number(values: Mapping[Any, float]) -> Measured | None:
    if isinstance(values, Measured):
        return values
    flags = all(isinstance(value, bool) for value in values.values())
    return as_share(values) if flags else as_metric(values)  # type: ignore[arg-type]


def all_of(metrics: Mapping[str, Any]) -> Iterator[Control]:
    """Yield every control that a study has measured, bed by bed."""
    for bed, entries in (metrics.get("controls") or {}).items():
        for name, entry in (entries or {}).items():
            if entry is not None:
                yield _read(bed, name, entry)


def _read(bed: str, name: str, entry: Mapping[str, Any]) -> Control:
    evidence = as_evidence(entry["number"])
    assert evidence is not None
    return Control(bed, name, entry["says"], evidence, entry["bound"], entry["strictly"])


def failed(metrics: Mapping[str, Any], needs: Sequence[str], claim: str) -> str | None:
    """Return why a claim cannot be judged: the first of its controls that did not pass, or None.

    Controls are given as BED.NAME; ``*.NAME`` means the control of every bed, and ``GROUP/*.NAME``
    that of every bed whose name begins with GROUP/, which ``*`` alone leaves out. InputError for
    one that the metrics do not have.
    """
    every = metrics.get("controls") or {}
    for need in needs:
        bed, _, name = need.partition(".")
        for one in matching(bed, every) or [bed]:
            if reason := _missed(one, name, every.get(one) or {}, claim):
                return reason
    return None


def matching(bed: str, beds: Iterable[str]) -> list[str]:
    """Return the beds that a name means, in their order: ``*`` stands for a name without a /."""
    pattern = re.compile(re.escape(bed).replace(r"\*", "[^/]+"))
    return [one for one in beds if pattern.fullmatch(one)]


def _missed(bed: str, name: str, entries: Mapping[str, Any], claim: str) -> str | None:
    need = f"{bed}.{name}" if name else bed
    if name not in entries:
        raise InputError(f"claim {claim}: control {need!r} {MISSING}")
    if entries[name] is None:
        return f"control {need} was not run"
    found = _read(bed, name, entries[name])
    if not found.passed:
        what = f'the positive control "{found.says.removesuffix(".")}" (bed {bed}) did not pass'
        return f"{what}: {found.ours}, needed {found.needed}"
    return None


COLUMNS = ("bed", "control", "needed", "ours", "passed")


def table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table with one row per control, in words."""
    rows = [
        (one.bed, one.says, one.needed, one.ours, "yes" if one.passed else "no")
        for one in all_of(metrics)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def styled(metrics: Mapping[str, Any]) -> "Styler":
    """Return the table for the top of a paper's page."""
    from pandas.io.formats.style import Styler  # needs jinja2

    shown = Styler(table(metrics), uuid="controls").hide(axis="index")
    return shown.set_table_styles([{"selector": "td, th", "props": "text-align: left"}])
