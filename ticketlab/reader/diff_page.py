"""`ticketlab compare A B`: the comparison of two revisions as one self-contained HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ticketlab.files import write_atomically
from ticketlab.reader import diff, snapshots
from ticketlab.reader.diff import Change, Difference
from ticketlab.reader.html import templates
from ticketlab.reader.panels import panels
from ticketlab.reader.snapshots import Curve, Snapshot
from ticketlab.spec import ROOT
from ticketlab.study.stats import Interval, Share


@dataclass(frozen=True)
class CurveSection:
    """One table of both revisions: drawings by arm, and paired differences."""

    place: str
    x: str
    y: str
    drawings: dict[str, Markup]
    differences: list[Difference]


def write(a: str, b: str, target: Path, root: Path = ROOT) -> str:
    """Compare two revisions and write the page; returns what it says in one line."""
    with snapshots.opened(a, root) as one, snapshots.opened(b, root) as two:
        facts = gather(one, two)
    write_atomically(target, render(facts).encode())
    flips = sum(claim.flipped for claim in facts["claims"])
    return f"{len(facts['params'])} parameters differ, {flips} verdicts flipped"


def gather(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """Everything that the page shows."""
    masks, refused = diff.overlaps(a.tickets, b.tickets)
    metrics = diff.metrics(a, b)
    return {
        "a": a,
        "b": b,
        "params": diff.changed_params(a, b),
        "origins": diff.origins(a, b),
        "claims": diff.claims(a, b),
        "metrics": metrics,
        "curves": [section for place in a.curves if (section := _section(place, a, b))],
        "masks": masks,
        "refused": refused,
    }


def _section(place: str, a: Snapshot, b: Snapshot) -> CurveSection | None:
    """The curves of a table that both revisions have, with the same axes."""
    one, two = a.curves[place], b.curves.get(place)
    if two is None or (one.x, one.y) != (two.x, two.y):
        return None
    differences = diff.paired_curves(one, two)
    return CurveSection(place, one.x, one.y, _drawings(one, two), differences)


def _drawings(one: Curve, two: Curve) -> dict[str, Markup]:
    return panels(diff.arms(one), diff.arms(two), one.x, one.y)


def render(facts: dict[str, Any]) -> str:
    """The page; its style is inside, and it loads nothing."""
    return templates(moved=moved).get_template("compare.html.j2").render(facts)


def moved(change: Change) -> str:
    """b - a of a metric, where both are numbers."""
    a, b = (x.mean if isinstance(x, Interval | Share) else x for x in (change.a, change.b))
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)):
        return "–"
    return f"{b - a:+.4g}"
