"""PUBLISHED.md: published numbers and others that can be established, with ours and reasons.

The numbers are in published.yaml; `released.py` lists failed reproductions and released code.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from ticketlab.files import read_json
from ticketlab.reader import released
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study.claims import read_entries
from ticketlab.study.stats import Evidence, measured
from ticketlab.study.verdicts import markdown

PAGE = ROOT / "PUBLISHED.md"

InPaper = Literal["printed", "digitised"]
"""Printed in a paper, or read from its figure."""
Derived = Literal["logged", "measured", "derived", "expected"]
"""Not published: logged by released code in a run of others, measured with the authors' recipe,
derived from known numbers, or expected from similar results."""


class Published(Spec):
    """One number of a paper and the place of ours."""

    id: str
    paper: str
    quantity: str
    low: float
    high: float
    """The number, or the ends of the known range."""
    kind: InPaper | Derived
    source: str
    metric: str
    """Path of an interval in results/STUDY/PAPER/metrics.json, a/b/c."""
    reason: str
    """Why ours may differ at the scale of `desk` and `desk_long`."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """The same for other studies, by name."""

    @model_validator(mode="after")
    def _ordered(self) -> "Published":
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high, {self.high:g}")
        return self

    @property
    def known(self) -> str:
        """The number as text: '66 to 66.8', or one number."""
        ends = dict.fromkeys((f"{self.low:g}", f"{self.high:g}"))
        return " to ".join(ends)

    def gap(self, ours: float) -> float:
        """Return how far ours is above (below: negative) the known range; 0 inside."""
        return max(0.0, ours - self.high) + min(0.0, ours - self.low)


def load_published(path: Path = ROOT / "published.yaml") -> list[Published]:
    """Return the entries of published.yaml; InputError names a bad one."""
    return read_entries(path, Published)


def ours(entry: Published, metrics: Mapping[str, Any]) -> Evidence | None:
    """Return our number in a study's metrics, by paper; None if the study does not measure it.

    Raises InputError for a path that the paper's metrics do not have.
    """
    if entry.paper not in metrics:
        return None
    name = f"published {entry.id}: metric {entry.metric!r}"
    return measured(metrics[entry.paper], entry.metric.split("/"), name)


def metrics_of(study: str, results: Path = ROOT / "results") -> dict[str, Any]:
    """Return the metrics of a study by paper."""
    return {path.parent.name: read_json(path) for path in results.glob(f"{study}/*/metrics.json")}


def known_rows(kinds: Sequence[str]) -> list[list[str]]:
    """Return a heading and a row per number of these kinds, with its source."""
    found = [["paper", "quantity", "number", "kind", "source"]]
    found += [
        [one.paper, one.quantity, one.known, one.kind, _line(one.source)]
        for one in load_published()
        if one.kind in kinds
    ]
    return found


def our_rows(studies: Sequence[str], results: Path = ROOT / "results") -> list[list[str]]:
    """Return a heading and a row per number: what is known, ours with its distance, the reason.

    A study without any of the numbers has no column.
    """
    metrics = {study: metrics_of(study, results) for study in studies}
    entries = load_published()
    shown = [study for study in studies if any(ours(one, metrics[study]) for one in entries)]
    found = [["paper", "quantity", "known", *shown, "likely reason for a distance"]]
    for entry in entries:
        cells = [_cell(entry, ours(entry, metrics[study])) for study in shown]
        known = [entry.paper, entry.quantity, f"{entry.known} ({entry.kind})"]
        others = [f"`{name}`: {entry.reasons[name]}" for name in shown if name in entry.reasons]
        found.append([*known, *cells, _line(" ".join([entry.reason, *others]))])
    return found


def _cell(entry: Published, found: Evidence | None) -> str:
    if found is None:
        return "-"
    gap = entry.gap(found.mean)
    return f"{found} (**{f'{gap:+.2g}' if gap else 'inside'}**)"


def _line(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------- the page


def parts(studies: Sequence[str], results: Path = ROOT / "results") -> dict[str, str]:
    """Return the computed parts of PUBLISHED.md, by the name of their marks."""
    code, verdicts = released.load_released(), released.verdicts_of(studies, results)
    return {
        "published": markdown(known_rows(get_args(InPaper))),
        "derived": markdown(known_rows(get_args(Derived))),
        "ours": markdown(our_rows(studies, results)),
        "not reproduced": released.not_reproduced(verdicts, code, results),
        "released code": markdown(released.code_rows(verdicts, code)),
    }


def with_parts(page: str, found: Mapping[str, str]) -> str:
    """Return the page with each part between its marks: <!-- NAME --> and <!-- /NAME -->."""
    for name, text in found.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if not re.search(f"{start}.*{end}", page, re.DOTALL):
            raise InputError(f"{PAGE.name}: no {start} ... {end}, the part needs its marks")
        head, _, rest = page.partition(start)
        page = f"{head}{start}\n{text}{end}{rest.partition(end)[2]}"
    return page
