"""What differs between two snapshots: parameters, claims, metrics, curves, masks. Pure functions.

Curves are compared arm by arm and seed by seed (arms of one seed share initial weights and data
order): each seed's curves of both revisions are laid over each other on the range of x that they
share, and their mean distance there is one number per seed. Their mean gets a 95 % Student t
interval, which decides whether the arm differs, and a p-value, which Holm's method corrects for the
number of rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from ticketlab.pruning.masks import chance_jaccard, jaccard
from ticketlab.reader.snapshots import Curve, Snapshot, Tickets
from ticketlab.spec import InputError
from ticketlab.study.claims import Verdict
from ticketlab.study.stats import Interval, as_evidence, interval, is_evidence

SPLITS = ("place", "case")
"""Columns beside `arm` that tell the curves of a table apart."""

GRID = 50  # places on the shared range of x

_NOT_THERE = object()


@dataclass(frozen=True)
class Change:
    """A value that differs; None where one side does not have it."""

    key: str
    a: Any
    b: Any


def changed_params(a: Snapshot, b: Snapshot) -> list[Change]:
    """Parameters with another value, or that only one of the revisions has."""
    keys = sorted({**a.params, **b.params})
    pairs = ((key, a.params.get(key, _NOT_THERE), b.params.get(key, _NOT_THERE)) for key in keys)
    return [Change(k, _shown(x), _shown(y)) for k, x, y in pairs if _differ(x, y)]


def _differ(a: Any, b: Any) -> bool:
    return type(a) is not type(b) or bool(a != b)


def _shown(value: Any) -> str | None:
    return None if value is _NOT_THERE else str(value)


# ---------------------------------------------------------------- claims


@dataclass(frozen=True)
class ClaimChange:
    """A claim's verdict in both revisions; None where it was not judged."""

    place: str
    claim: str
    a: Verdict | None
    b: Verdict | None

    @property
    def flipped(self) -> bool:
        """Whether the verdict is another one."""
        return (self.a and self.a.word) != (self.b and self.b.word)


def claims(a: Snapshot, b: Snapshot) -> list[ClaimChange]:
    """Every claim of both, in the order of the papers, those of one revision only included."""
    rows = []
    for place in _union(a.claims, b.claims):
        one, two = (s.claims.get(place, {}) for s in (a, b))
        rows += [ClaimChange(place, c, one.get(c), two.get(c)) for c in _union(one, two)]
    return rows


def _union(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The keys of both, in the order of the first."""
    return list(dict.fromkeys([*a, *b]))


# ---------------------------------------------------------------- metrics


def metrics(a: Snapshot, b: Snapshot) -> dict[str, list[Change]]:
    """By paper, each interval, share, count or plain value in both revisions; origins left out."""
    found = {}
    for place in _union(a.metrics, b.metrics):
        one, two = (_values(s.metrics.get(place, {})) for s in (a, b))
        found[place] = [Change(key, one.get(key), two.get(key)) for key in _union(one, two)]
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
    """Versions, device, data and code behind the numbers, where they differ."""
    found = []
    for place in _union(a.metrics, b.metrics):
        one, two = (s.metrics.get(place, {}).get("provenance", {}) for s in (a, b))
        pairs = ((key, one.get(key), two.get(key)) for key in _union(one, two))
        found += [Change(f"{place}: {key}", x, y) for key, x, y in pairs if x != y]
    return found


# ---------------------------------------------------------------- curves


@dataclass(frozen=True)
class Difference:
    """How far an arm's curve moved, b - a, on the range of x that both have."""

    arm: str
    by_seed: Mapping[int, float]
    difference: Interval
    p: float | None
    """Of a paired t test, corrected by Holm's method; None for one seed, and where all seeds moved
    by the same amount, which has no t."""

    @property
    def identical(self) -> bool:
        """Whether no seed moved."""
        return not any(self.by_seed.values())

    @property
    def word(self) -> str:
        """What the interval says: whether the whole of it is on one side of 0."""
        if self.identical:
            return "identical"
        if self.difference.low is None or self.difference.high is None:
            return "one seed"
        apart = self.difference.low > 0 or self.difference.high < 0
        return "differs" if apart else "within noise"


def arms(curve: Curve) -> dict[str, pd.DataFrame]:
    """The rows (seed, x, y) of each arm that has any; x and y averaged over repeats of a seed."""
    table, keys = curve.table, ["arm", *(s for s in SPLITS if s in curve.table)]
    if not {"arm", "seed", curve.x, curve.y} <= set(table):
        return {}
    names = [" · ".join(map(str, row)) for row in table[keys].fillna("-").to_numpy()]
    columns = {"arm": names, "seed": table.seed, "x": table[curve.x], "y": table[curve.y]}
    rows = pd.DataFrame(columns).dropna()
    means = rows.groupby(["arm", "seed", "x"], sort=False).y.mean().reset_index()
    return {str(arm): group for arm, group in means.groupby("arm", sort=False)}


def paired_curves(a: Curve, b: Curve) -> list[Difference]:
    """The difference of each arm that both have, over the seeds that both have."""
    one, two = arms(a), arms(b)
    moved = {arm: _distances(one[arm], two[arm]) for arm in one if arm in two}
    moved = {arm: by_seed for arm, by_seed in moved.items() if by_seed}
    corrected = holm([_p_value(list(by_seed.values())) for by_seed in moved.values()])
    return [
        Difference(arm, by_seed, interval(list(by_seed.values())), p)
        for (arm, by_seed), p in zip(moved.items(), corrected, strict=True)
    ]


def _distances(a: pd.DataFrame, b: pd.DataFrame) -> dict[int, float]:
    """b - a by seed: the mean over the shared range of x, or at the one place they share."""
    found = {}
    for seed in a.seed.unique().tolist():
        one, two = a[a.seed == seed], b[b.seed == seed]
        if not two.empty and (distance := _distance(one, two)) is not None:
            found[seed] = distance
    return found


def _distance(a: pd.DataFrame, b: pd.DataFrame) -> float | None:
    low, high = max(a.x.min(), b.x.min()), min(a.x.max(), b.x.max())
    if low > high:
        return None
    places = spread(low, high)
    return float(np.mean(value_at(b, places) - value_at(a, places)))


def spread(low: float, high: float) -> np.ndarray:
    """GRID places from low to high (one if they are equal), on a log scale if `is_log` says so."""
    if low == high:
        return np.array([low])
    return np.geomspace(low, high, GRID) if is_log(low, high) else np.linspace(low, high, GRID)


def is_log(low: float, high: float) -> bool:
    """Whether an axis spans so much that it is drawn and averaged on a log scale (densities)."""
    return low > 0 and high / low > 50


def value_at(rows: pd.DataFrame, places: np.ndarray) -> np.ndarray:
    """y at `places` (n,), linear between the recorded ones."""
    rows = rows.sort_values("x")
    drawn: np.ndarray = np.interp(places, rows.x.to_numpy(float), rows.y.to_numpy(float))
    return drawn


def _p_value(values: Sequence[float]) -> float | None:
    """Two-sided p of a t test that the mean is 0; None where it has none."""
    n = len(values)
    if n < 2 or np.ptp(values) == 0:
        return None
    t = np.mean(values) / (np.std(values, ddof=1) / np.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrected for the number of tests by Holm's step-down method; None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected, largest = list(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected


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
    """One row per ticket of both revisions, seeds averaged; and what could not be compared."""
    rows: list[tuple[str, float, float, float, float]] = []
    refused = []
    for name in [name for name in a.digests if name in b.digests]:
        try:
            rows.append((_without_seed(name), *_overlap(name, a, b)))
        except InputError as error:
            refused.append(f"{name}: {error}")
    frame = pd.DataFrame(rows, columns=["ticket", "density_a", "density_b", "iou", "chance"])
    found = [
        Overlap(str(name), len(group), *group.drop(columns="ticket").mean().tolist())
        for name, group in frame.groupby("ticket", sort=False)
    ]
    return found, refused


def _overlap(name: str, a: Tickets, b: Tickets) -> tuple[float, float, float, float]:
    one = a.read(name).mask
    same = a.digests[name] is not None and a.digests[name] == b.digests[name]
    two = one if same else b.read(name).mask
    chance = chance_jaccard(one.density, two.density)
    return one.density, two.density, jaccard(one, two), chance


def _without_seed(name: str) -> str:
    return "/".join(part for part in name.split("/") if not part.startswith("seed-"))
