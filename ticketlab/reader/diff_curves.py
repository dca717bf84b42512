"""How far curves moved between two revisions: arm by arm, paired by seed. Pure functions.

Arms of one seed share initial weights and data order, so each seed's curves of both revisions are
laid over each other on the range of x that they share, and their mean distance there is one number
per seed. The mean of those gets a 95 % Student t interval, which decides whether the arm moved, and
a p-value, which Holm's method corrects for the number of arms. Sparsities are averaged and drawn on
a log axis of density, as in the notebooks' figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from ticketlab.reader.snapshots import Curve
from ticketlab.study.stats import Interval, interval, over_seeds

SPLITS = ("place", "case")
"""Columns beside `arm` that tell the curves of a table apart."""

GRID = 50  # places on the shared range of x

Word = Literal["identical", "one seed", "higher", "lower", "no clear difference"]


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
    def word(self) -> Word:
        """What the interval says: whether the whole of it is on one side of 0."""
        if self.identical:
            return "identical"
        if self.difference.low is None or self.difference.high is None:
            return "one seed"
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else "no clear difference"


def arms(curve: Curve) -> dict[str, pd.DataFrame]:
    """Return the rows (seed, x, y) of each arm that has any; repeats of a seed are averaged.

    x of sparsities is the density, 1 - x; nothing is left of a net without weights, which has none.
    """
    table, keys = curve.table, ["arm", *(s for s in SPLITS if s in curve.table)]
    if not {"arm", "seed", curve.x, curve.y} <= set(table):
        return {}
    names = [" · ".join(map(str, row)) for row in table[keys].fillna("-").to_numpy()]
    places = 1 - table[curve.x] if curve.is_sparsity else table[curve.x]
    rows = pd.DataFrame({"arm": names, "seed": table.seed, "x": places, "y": table[curve.y]})
    rows = rows.dropna()
    rows = rows[rows.x > 0] if curve.is_log else rows
    means = rows.groupby(["arm", "seed", "x"], sort=False).y.mean().reset_index()
    return {str(arm): group for arm, group in means.groupby("arm", sort=False)}


def paired_curves(a: Curve, b: Curve) -> list[Difference]:
    """Return the difference of each arm that both have, over the seeds that both have."""
    one, two = arms(a), arms(b)
    moved = {arm: _distances(one[arm], two[arm], a.is_log) for arm in one if arm in two}
    moved = {arm: by_seed for arm, by_seed in moved.items() if by_seed}
    corrected = holm([_p_value(list(by_seed.values())) for by_seed in moved.values()])
    return [
        Difference(arm, by_seed, over_seeds(by_seed), p)
        for (arm, by_seed), p in zip(moved.items(), corrected, strict=True)
    ]


def _distances(a: pd.DataFrame, b: pd.DataFrame, log: bool) -> dict[int, float]:
    """Return b - a by seed: the mean over the shared range of x, or at the one place they share."""
    found = {}
    for seed in a.seed.unique().tolist():
        one, two = a[a.seed == seed], b[b.seed == seed]
        if not two.empty and (distance := _distance(one, two, log)) is not None:
            found[seed] = distance
    return found


def _distance(a: pd.DataFrame, b: pd.DataFrame, log: bool) -> float | None:
    low, high = max(a.x.min(), b.x.min()), min(a.x.max(), b.x.max())
    if low > high:
        return None
    places = spread(low, high, log)
    return float(np.mean(value_at(b, places, log) - value_at(a, places, log)))


def spread(low: float, high: float, log: bool) -> np.ndarray:
    """Return GRID places from low to high, even on a linear or log axis; one if they are equal."""
    if low == high:
        return np.array([low])
    return np.geomspace(low, high, GRID) if log else np.linspace(low, high, GRID)


def value_at(rows: pd.DataFrame, places: np.ndarray, log: bool) -> np.ndarray:
    """Return y at `places` (n,), along straight lines between recorded ones on the drawn axis."""
    rows = rows.sort_values("x")
    axis = np.log if log else np.asarray
    drawn: np.ndarray = np.interp(
        axis(places), axis(rows.x.to_numpy(float)), rows.y.to_numpy(float)
    )
    return drawn


def mean_curve(rows: pd.DataFrame, log: bool) -> pd.DataFrame:
    """Return mean over seeds with its 95 % interval on the range of x that all seeds share.

    Columns x, mean, low, high (NaN for a single seed) and n; the places are those of the first seed
    there. Empty if the seeds share no range.
    """
    seeds = [rows[rows.seed == seed] for seed in rows.seed.unique()]
    low, high = max(s.x.min() for s in seeds), min(s.x.max() for s in seeds)
    places = np.unique([low, high, *(x for x in seeds[0].x if low < x < high)])
    if low > high:
        places = places[:0]
    values = [value_at(one, places, log) for one in seeds]
    found = [interval([one[i] for one in values]) for i in range(len(places))]
    columns = {
        "x": places,
        "mean": [one.mean for one in found],
        "low": [one.low for one in found],
        "high": [one.high for one in found],
        "n": len(seeds),
    }
    return pd.DataFrame(columns).astype(float)


def _p_value(values: Sequence[float]) -> float | None:
    """Return two-sided p of a t test that the mean is 0; None where it has none."""
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    return float(ttest_1samp(values, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return corrected for the number of tests by Holm's step-down method; None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected, largest = list(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected
