"""`ticketlab compare A B`: the comparison of two revisions as one self-contained HTML page."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ticketlab import labels
from ticketlab.files import write_atomically
from ticketlab.reader import charts, diff, diff_curves, diff_words, snapshots
from ticketlab.reader.diff import Change, ClaimChange, FigurePair, Overlap
from ticketlab.reader.diff_curves import Difference
from ticketlab.reader.html import templates
from ticketlab.reader.snapshots import Curve, Figure, Snapshot
from ticketlab.spec import ROOT
from ticketlab.study.stats import Interval, Share


@dataclass(frozen=True)
class CurveSection:
    """A table that both revisions have: how far its arms moved, and its charts by element id."""

    name: str
    says: str
    differences: list[Difference]
    arms: list[charts.Arm]
    charts: dict[str, dict[str, Any]]

    @property
    def changed(self) -> bool:
        """Whether any arm moved, or none can be paired."""
        return not self.differences or not all(one.identical for one in self.differences)


@dataclass(frozen=True)
class Paper:
    """All that differs in one paper of a study."""

    place: str
    title: str
    params: list[Change] = field(default_factory=list)
    claims: list[ClaimChange] = field(default_factory=list)
    metrics: list[Change] = field(default_factory=list)
    curves: list[CurveSection] = field(default_factory=list)
    figures: list[FigurePair] = field(default_factory=list)
    masks: list[Overlap] = field(default_factory=list)

    @property
    def moved(self) -> list[Change]:
        """Metrics with another value."""
        return [one for one in self.metrics if one.a != one.b]

    @property
    def flips(self) -> list[ClaimChange]:
        """Claims with another verdict."""
        return [one for one in self.claims if one.flipped]

    @property
    def one_sided(self) -> list[ClaimChange]:
        """Claims that one revision alone judged."""
        return [one for one in self.claims if one.one_sided]

    @property
    def other_masks(self) -> list[Overlap]:
        """Tickets that keep other weights."""
        return [one for one in self.masks if one.iou < 1]

    @property
    def changed(self) -> bool:
        """Whether a parameter, a number, a verdict, a figure, a curve or a mask is another one."""
        claims = [one for one in self.claims if one.changed]
        curves = [one for one in self.curves if one.changed]
        found = self.params, self.moved, claims, self.figures, curves, self.other_masks
        return any(found)

    @property
    def headlines(self) -> list[str]:
        """Sentences on the numbers of the abstract that moved."""
        return diff_words.headlines(self.claims)


def write(a: str, b: str, target: Path, root: Path = ROOT) -> str:
    """Compare two revisions and write the page; returns what it says in one line."""
    with snapshots.opened(a, root) as one, snapshots.opened(b, root) as two:
        facts = gather(one, two)
    write_atomically(target, render(facts).encode())
    changed = len(facts["changed"])
    flips = sum(len(paper.flips) for paper in facts["changed"])
    params = len(facts["params"]) + sum(len(paper.params) for paper in facts["changed"])
    return f"{params} parameters differ, {flips} verdicts flipped, {changed} papers changed"


# ---------------------------------------------------------------- what the page shows


def gather(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """Return everything that the page shows: papers that changed, and those that did not."""
    masks, refused = diff.overlaps(a.tickets, b.tickets)
    params = diff.changed_params(a, b)
    papers = [_paper(place, a, b, params, masks) for place in _places(a, b)]
    placed = {f"{prefix(paper.place)}{one.key}" for paper in papers for one in paper.params}
    return {
        "a": a,
        "b": b,
        "changed": [paper for paper in papers if paper.changed],
        "unchanged": [paper for paper in papers if not paper.changed],
        "params": [one for one in params if one.key not in placed],
        "origins": diff.origins(a, b),
        "refused": refused,
    }


def _places(a: Snapshot, b: Snapshot) -> list[str]:
    """Return 'desk/colt' of all papers that either revision has results of."""
    return diff.union({**a.metrics, **a.claims}, {**b.metrics, **b.claims})


def prefix(place: str) -> str:
    """Return 'desk.colt.' of 'desk/colt': how the keys of its parameters begin."""
    return place.replace("/", ".") + "."


def _paper(
    place: str, a: Snapshot, b: Snapshot, params: Sequence[Change], masks: Sequence[Overlap]
) -> Paper:
    start = prefix(place)
    own = [one for one in params if one.key.startswith(start)]
    return Paper(
        place,
        title(place),
        params=[Change(one.key.removeprefix(start), one.a, one.b) for one in own],
        claims=[one for one in diff.claims(a, b) if one.place == place],
        metrics=diff.metrics(a, b).get(place, []),
        curves=_curves(place, a, b),
        figures=diff.figures(a, b).get(place, []),
        masks=[one for one in masks if one.ticket.startswith(f"{place}/")],
    )


def title(place: str) -> str:
    """Return 'PrAC (desk)' of 'desk/prac'."""
    study, _, paper = place.rpartition("/")
    return f"{labels.label(paper)} ({study})"


def _curves(place: str, a: Snapshot, b: Snapshot) -> list[CurveSection]:
    """Return the tables of a paper that both revisions have; those that moved come first."""
    shared = [name for name in a.curves if name.startswith(f"{place}/") and name in b.curves]
    found = []
    for name in shared:
        one, two = a.curves[name], b.curves[name]
        if (one.x, one.y) == (two.x, two.y) and (
            arms := {**diff_curves.arms(one), **diff_curves.arms(two)}
        ):
            found.append(_section(name, one, two, list(arms), (a.name, b.name)))
    return sorted(found, key=lambda section: not section.changed)


def _section(
    name: str, one: Curve, two: Curve, arms: list[str], revisions: tuple[str, str]
) -> CurveSection:
    differences = diff_curves.paired_curves(one, two)
    says = diff_words.moved(differences)
    chosen = charts.arms(arms, differences)
    names = charts.Names(one.x, one.y, one.is_log, revisions)
    frames = diff_curves.arms(one), diff_curves.arms(two)
    key = name.replace("/", "-")
    drawn = {f"{key}-curves": charts.curves(*frames, chosen, names, says)}
    if differences:
        drawn = {f"{key}-moved": charts.differences(differences, says)} | drawn
    x = "sparsity" if one.is_log else labels.label(one.x)
    return CurveSection(f"{labels.label(one.y)} against {x}", says, differences, chosen, drawn)


# ---------------------------------------------------------------- HTML


def render(facts: Mapping[str, Any]) -> str:
    """Return the page; its style, figures and script are inside, and it loads nothing."""
    drawn: dict[str, Any] = {}
    for paper in facts["changed"]:
        for section in paper.curves:
            drawn |= section.charts if section.changed else {}
    page = templates(
        moved=moved, picture=picture, sentence=diff_words.sentence,
        counted=diff_words.counted, label=charts.label,
    ).get_template("compare.html.j2")  # fmt: skip
    parts = {"charts": charts.embedded(drawn), "bundle": charts.bundle() if drawn else ""}
    return page.render(facts | parts)  # type: ignore[operator]


def moved(change: Change) -> str:
    """Return b - a of a metric, where both are numbers."""
    a, b = (x.mean if isinstance(x, Interval | Share) else x for x in (change.a, change.b))
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)):
        return "–"
    return f"{b - a:+.4g}"


def picture(figure: Figure) -> Markup:
    """Return the source of an `img` element."""
    return Markup(f"data:image/png;base64,{b64encode(figure.png).decode()}")
