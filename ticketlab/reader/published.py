"""Published numbers beside ours (published.yaml): how far each study is from them, and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from ticketlab.files import read_json
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study.claims import read_entries
from ticketlab.study.stats import Evidence, measured
from ticketlab.study.verdicts import markdown

PAGE = ROOT / "PUBLISHED.md"
MARKS = ("<!-- published -->", "<!-- /published -->")


class Published(Spec):
    """One number of a paper and where ours is found."""

    id: str
    paper: str
    quantity: str
    low: float
    high: float
    """The number, or the ends of what is known about it."""
    kind: Literal["printed", "digitised", "logged", "derived", "measured"]
    """Printed in a paper, read from its figure, logged by its code, derived by us from what is
    known of it, or measured by others with the authors' recipe."""
    source: str
    metric: str
    """Path of an interval in results/STUDY/PAPER/metrics.json, a/b/c."""
    reason: str
    """Why ours may differ at the scale of our studies."""

    @model_validator(mode="after")
    def _ordered(self) -> "Published":
        if self.low > self.high:
            raise ValueError(f"low: {self.low:g} is above high, {self.high:g}")
        return self

    @property
    def known(self) -> str:
        """'66 to 66.8', or one number."""
        ends = dict.fromkeys((f"{self.low:g}", f"{self.high:g}"))
        return " to ".join(ends)

    def gap(self, ours: float) -> float:
        """How far ours is above (or below, negative) what is known; 0 inside."""
        return max(0.0, ours - self.high) + min(0.0, ours - self.low)


def load_published(path: Path = ROOT / "published.yaml") -> list[Published]:
    """The entries of published.yaml; InputError names a bad one."""
    return read_entries(path, Published)


def ours(entry: Published, metrics: Mapping[str, Any]) -> Evidence | None:
    """Our number in a study's metrics, by paper; None where the study does not measure it.

    Raises InputError for a path that the paper's metrics do not have.
    """
    if entry.paper not in metrics:
        return None
    name = f"published {entry.id}: metric {entry.metric!r}"
    return measured(metrics[entry.paper], entry.metric.split("/"), name)


def metrics_of(study: str, results: Path = ROOT / "results") -> dict[str, Any]:
    """The metrics of a study by paper."""
    return {path.parent.name: read_json(path) for path in results.glob(f"{study}/*/metrics.json")}


def rows(studies: Sequence[str], results: Path = ROOT / "results") -> list[list[str]]:
    """A heading, then a row per number: paper, quantity, it, its kind, each study's, the reason."""
    found = [["paper", "quantity", "number", "kind", *studies, "source", "likely reason"]]
    metrics = {study: metrics_of(study, results) for study in studies}
    for entry in load_published():
        cells = [_cell(entry, ours(entry, metrics[study])) for study in studies]
        known = [entry.paper, entry.quantity, entry.known, entry.kind]
        found.append([*known, *cells, entry.source, " ".join(entry.reason.split())])
    return found


def _cell(entry: Published, found: Evidence | None) -> str:
    if found is None:
        return "-"
    gap = entry.gap(found.mean)
    return f"{found} (**{f'{gap:+.2g}' if gap else 'inside'}**)"


def with_rows(page: str, found: Sequence[Sequence[str]]) -> str:
    """The page with the table between its marks."""
    if not all(mark in page for mark in MARKS):
        raise InputError(f"{PAGE.name}: no {' ... '.join(MARKS)}, the table needs its marks")
    head, _, rest = page.partition(MARKS[0])
    return f"{head}{MARKS[0]}\n{markdown(found)}{MARKS[1]}{rest.partition(MARKS[1])[2]}"
