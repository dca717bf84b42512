"""What differs between two snapshots: parameters, claims, metrics, figures, masks. Pure functions.

A claim's number is compared seed by seed where both revisions have numbers of the same seed (arms
of one seed share initial weights and data order), else as the difference of two independent means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean
from typing import Any

from scipy.special import stdtrit

from ticketlab.pruning.masks import chance_jaccard, jaccard
from ticketlab.reader.snapshots import Figure, Snapshot, Tickets
from ticketlab.spec import InputError
from ticketlab.study.claims import Verdict
from ticketlab.study.rules import CONFIDENCE, standard_error
from ticketlab.study.stats import (
    ROUNDING,
    Count,
    Evidence,
    Interval,
    Share,
    as_evidence,
    count,
    interval,
    is_evidence,
    minus,
)

_NOT_THERE = object()


@dataclass(frozen=True)
class Change:
    """A value that differs; None where one side does not have it."""

    key: str
    a: Any
    b: Any


def changed_params(a: Snapshot, b: Snapshot) -> list[Change]:
    """Return parameters with another value, or that only one of the revisions has."""
    keys = sorted({**a.params, **b.params})
    pairs = ((key, a.params.get(key, _NOT_THERE), b.params.get(key, _NOT_THERE)) for key in keys)
    return [Change(k, _shown(x), _shown(y)) for k, x, y in pairs if _differ(x, y)]


def _differ(a: Any, b: Any) -> bool:
    return type(a) is not type(b) or bool(a != b)


def _shown(value: Any) -> str | None:
    return None if value is _NOT_THERE else str(value)


def union(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the keys of both, in the order of the first."""
    return list(dict.fromkeys([*a, *b]))


# ---------------------------------------------------------------- claims


@dataclass(frozen=True)
class Shift:
    """How far a claim's number moved, b - a."""

    difference: Interval | Count
    paired: bool
    """Whether over the seeds that both revisions have; else their means are compared."""
    sides: tuple[int, int] = (0, 0)
    """How many seeds each revision has."""

    @property
    def exact(self) -> bool:
        """Whether every seed moved by the same amount."""
        low, high = self.difference.low, self.difference.high
        is_one = low is not None and high is not None and high - low <= ROUNDING
        return self.paired and self.difference.n > 1 and is_one

    @property
    def is_clear(self) -> bool:
        """Whether the whole interval, or every seed of a count, is on one side of 0."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class ClaimChange:
    """A claim's verdict in both revisions; None where it was not judged."""

    place: str
    claim: str
    a: Verdict | None
    b: Verdict | None
    shift: Shift | None = None
    """None for shares of seeds, and where one side has no number."""

    @property
    def flipped(self) -> bool:
        """Whether both revisions judged it and the verdict is another one."""
        return bool(self.a and self.b and self.a.word != self.b.word)

    @property
    def one_sided(self) -> bool:
        """Whether one revision alone judged it."""
        return (self.a is None) != (self.b is None)

    @property
    def changed(self) -> bool:
        """Whether the verdict or its evidence is another one."""
        same = (self.a and self.a.evidence) == (self.b and self.b.evidence)
        return self.flipped or self.one_sided or not same


def claims(a: Snapshot, b: Snapshot) -> list[ClaimChange]:
    """Return every claim of either revision, in the order of the papers."""
    rows = []
    for place in union(a.claims, b.claims):
        one, two = (s.claims.get(place, {}) for s in (a, b))
        seeds = [s.seeds.get(place, {}) for s in (a, b)]
        for claim in union(one, two):
            x, y = one.get(claim), two.get(claim)
            shift = _shift(x, y, *seeds) if x and y else None
            rows.append(ClaimChange(place, claim, x, y, shift))
    return rows


BySeedOf = Mapping[str, Mapping[int, float]]
"""Numbers by seed of each metric."""


def _shift(a: Verdict, b: Verdict, seeds_a: BySeedOf, seeds_b: BySeedOf) -> Shift | None:
    one, two = a.evidence, b.evidence
    if one is None or type(one) is not type(two) or isinstance(one, Share):
        return None
    assert two is not None
    by_seed = minus(seeds_b.get(b.claim.metric, {}), seeds_a.get(a.claim.metric, {}))
    if by_seed:
        over_seeds = count if isinstance(one, Count) else interval
        return Shift(over_seeds(list(by_seed.values())), True, (one.n, two.n))
    return Shift(independent(one, two), False, (one.n, two.n))


def independent(a: Evidence, b: Evidence) -> Interval:
    """Return b - a of two means over other seeds, with Welch's 95 % interval.

    n is the smaller number of seeds. Single seeds and counts get no interval.
    """
    difference, n = b.mean - a.mean, min(a.n, b.n)
    if n < 2 or isinstance(a, Count):
        return Interval(difference, None, None, n)
    one, two = (standard_error(side) ** 2 for side in (a, b))
    if one + two == 0:
        return Interval(difference, difference, difference, n)
    freedom = (one + two) ** 2 / (one**2 / (a.n - 1) + two**2 / (b.n - 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * sqrt(one + two)
    return Interval(difference, difference - half, difference + half, n)


# ---------------------------------------------------------------- metrics, origins, figures


def metrics(a: Snapshot, b: Snapshot) -> dict[str, list[Change]]:
    """Return each number or plain value in both revisions by paper, origins left out."""
    found = {}
    for place in union(a.metrics, b.metrics):
        one, two = (_values(s.metrics.get(place, {})) for s in (a, b))
        found[place] = [Change(key, one.get(key), two.get(key)) for key in union(one, two)]
    return found


def _values(tree: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_leaves({key: inner for key, inner in tree.items() if key != "provenance"}, ""))


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if is_evidence(tree):
        yield prefix, as_evidence(tree)
    elif isinstance(tree, Mapping):
        for key, inner in tree.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    elif tree is not None:
        yield prefix, tree


def origins(a: Snapshot, b: Snapshot) -> list[Change]:
    """Return versions, device, data and code behind the numbers, where they differ."""
    found = []
    for place in union(a.metrics, b.metrics):
        one, two = (s.metrics.get(place, {}).get("provenance", {}) for s in (a, b))
        pairs = ((key, one.get(key), two.get(key)) for key in union(one, two))
        found += [Change(f"{place}: {key}", x, y) for key, x, y in pairs if x != y]
    return found


@dataclass(frozen=True)
class FigurePair:
    """A figure of both revisions; None where one does not have it."""

    name: str
    a: Figure | None
    b: Figure | None


def figures(a: Snapshot, b: Snapshot) -> dict[str, list[FigurePair]]:
    """Return by paper, the figures whose pictures differ, or that one revision has alone."""
    found: dict[str, list[FigurePair]] = {}
    for name in union(a.figures, b.figures):
        one, two = a.figures.get(name), b.figures.get(name)
        if (one and one.png) != (two and two.png):
            place, _, short = name.rpartition("/")
            found.setdefault(place, []).append(FigurePair(short, one, two))
    return found


# ---------------------------------------------------------------- masks


@dataclass(frozen=True)
class Overlap:
    """Corresponding tickets of both revisions: the same unit and round, averaged over seeds."""

    ticket: str
    n: int
    density_a: float
    density_b: float
    iou: float
    chance: float
    """The IoU of random masks of these densities."""


def overlaps(a: Tickets, b: Tickets) -> tuple[list[Overlap], list[str]]:
    """Return one row per ticket of both revisions, seeds averaged; and what could not be compared.

    Where DVC knows that the files of all seeds are equal, none is read: the row has IoU 1, no more.
    """
    shared: dict[str, list[str]] = {}
    for name in a.digests:
        if name in b.digests:
            shared.setdefault(_without_seed(name), []).append(name)
    found, refused = [], []
    for ticket, names in shared.items():
        if all(a.digests[name] == b.digests[name] is not None for name in names):
            found.append(Overlap(ticket, len(names), nan, nan, 1.0, nan))
            continue
        rows = []
        for name in names:
            try:
                rows.append(_overlap(name, a, b))
            except InputError as error:
                refused.append(f"{name}: {error}")
        if rows:
            found.append(Overlap(ticket, len(rows), *map(fmean, zip(*rows, strict=True))))
    return found, refused


def _overlap(name: str, a: Tickets, b: Tickets) -> tuple[float, float, float, float]:
    """Return both densities, IoU and its chance of one ticket."""
    one, two = a.read(name).mask, b.read(name).mask
    return one.density, two.density, jaccard(one, two), chance_jaccard(one.density, two.density)


def _without_seed(name: str) -> str:
    return "/".join(part for part in name.split("/") if not part.startswith("seed-"))
