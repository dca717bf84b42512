"""Numbers over seeds: intervals, shares, counts and differences, and their form in metrics.json."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from scipy.stats import binomtest

from ticketlab.spec import InputError

ROUNDING = 1e-6
"""Largest rounding error of sums; a number this close to a bound is at the bound."""

# ---------------------------------------------------------------- numbers over seeds


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds with its 95 % Student t interval; no bounds when n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 2) -> str:
        """Format the interval with this many decimals."""
        mean = decimals(self.mean, digits)
        if self.low is None or self.high is None:
            return f"{mean} (n = {self.n})"
        return (
            f"{mean} [{decimals(self.low, digits)}, {decimals(self.high, digits)}] (n = {self.n})"
        )


@dataclass(frozen=True)
class Share:
    """How many of `n` seeds have a property: the share and its exact 95 % interval, in percent."""

    share: float
    low: float
    high: float
    k: int
    n: int

    def __str__(self) -> str:
        return self.text()

    @property
    def mean(self) -> float:
        """The share, under the name that intervals use."""
        return self.share

    def text(self, digits: int = 0) -> str:
        """Format as '2 of 3, 67 % [9, 99]' with this many decimals."""
        bounds = f"[{decimals(self.low, digits)}, {decimals(self.high, digits)}]"
        return f"{self.k} of {self.n}, {decimals(self.share, digits)} % {bounds}"


@dataclass(frozen=True)
class Count:
    """Rounds or epochs of `n` seeds: their mean, and the range that contains all of them.

    Counts have few values and often no spread, so there is no t interval: seeds are compared
    exactly.
    """

    mean: float
    least: float
    most: float
    n: int

    def __str__(self) -> str:
        return self.text()

    @property
    def low(self) -> float:
        """The minimum, under the name that intervals use."""
        return self.least

    @property
    def high(self) -> float:
        """The maximum, under the name that intervals use."""
        return self.most

    def text(self, digits: int = 2) -> str:
        """Format as '4.33, all from 4 to 5 (n = 3)' with this many decimals of the mean."""
        mean = decimals(self.mean, digits)
        return f"{mean}, all from {self.least:g} to {self.most:g} (n = {self.n})"


Evidence = Interval | Share | Count
"""The numbers that can decide a claim."""


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return Student's t interval of the mean of measured `values` (n,), one per seed.

    InputError for no values, for infinite or NaN values, and for flags (use `share`).
    """
    if any(isinstance(value, bool | np.bool_) for value in values):
        raise InputError(f"interval: {list(values)} given, a share of seeds has its own interval")
    data = np.asarray(values, dtype=float)
    if not len(data) or not np.isfinite(data).all():
        raise InputError(f"interval: {list(values)} given, allowed are 1 or more finite numbers")
    mean, n = float(data.mean()), len(data)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * data.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def share(flags: Sequence[bool], confidence: float = 0.95) -> Share:
    """Return the share of seeds with a true flag and its Clopper-Pearson interval, in percent.

    InputError for no flags, and for anything but true and false.
    """
    if not flags or not all(isinstance(flag, bool | np.bool_) for flag in flags):
        raise InputError(f"share: {list(flags)} given, allowed are 1 or more of true and false")
    k, n = int(np.sum(flags)), len(flags)
    found = binomtest(k, n).proportion_ci(confidence, method="exact")
    return Share(100 * k / n, 100 * float(found.low), 100 * float(found.high), k, n)


def count(values: Sequence[float]) -> Count:
    """Return mean and range of counted `values` (n,), one per seed; errors as `interval`."""
    one = interval(values)
    return Count(one.mean, float(min(values)), float(max(values)), one.n)


# ---------------------------------------------------------------- as text


def decimals(value: float, digits: int) -> str:
    """Format with this many decimals, halves away from zero, from the 6 digits of metrics.json.

    So a mean of -0.9349999, which metrics.json has as -0.935, is '-0.94' on all pages.
    """
    near = Decimal(f"{value:.6g}" if abs(value) < 1e5 else repr(float(value)))
    text = f"{near.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
    return text.removeprefix("-") if not float(text) else text


DIGITS = 6
"""Maximum number of decimals of a verdict's number."""


def beside(evidence: Evidence, bound: float) -> str:
    """Format the evidence with enough digits to show on which side of the bound it lies."""
    return evidence.text(digits(evidence, bound))


def digits(evidence: Evidence, bound: float) -> int:
    """Return the decimals needed so that no number of the evidence seems to equal the bound.

    0.98 against 1 is '0.98', and 0.996 does not become '1.00'.
    """
    numbers = [x for x in (evidence.mean, evidence.low, evidence.high) if x is not None]
    sides = [np.sign(x - bound) * (abs(x - bound) > ROUNDING) for x in numbers]
    for few in range(0 if isinstance(evidence, Share) else 2, DIGITS):
        if [np.sign(float(decimals(x, few)) - bound) for x in numbers] == sides:
            return few
    return DIGITS


# ---------------------------------------------------------------- numbers by seed

BySeed = dict[int, float]
"""One number per seed. Arms of a seed share initial weights and data: differences are paired."""


def by_seed(frame: pd.DataFrame, column: str) -> BySeed:
    """Return the column of a table that has one row per seed, as {seed: value}."""
    if frame.seed.duplicated().any():
        raise InputError(f"{column}: several rows for one seed, allowed is one")
    return dict(zip(frame.seed.tolist(), frame[column].tolist(), strict=True))


def each_seed(frame: pd.DataFrame, column: str, how: str = "mean") -> BySeed:
    """Return min, max or mean of the column over each seed's rows, ignoring missing values."""
    if not {"seed", column} <= set(frame) or frame[column].isna().all():
        return {}
    values = frame.dropna(subset=column).groupby("seed")[column].agg(how)
    return {int(str(seed)): float(value) for seed, value in values.items()}


def minus(a: Mapping[int, float], b: Mapping[int, float]) -> BySeed:
    """Return a - b by seed, for the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in sorted(a) if seed in b}


def over_seeds(values: Mapping[int, float]) -> Interval:
    """Return `interval` of numbers by seed."""
    return interval(list(values.values()))


def percent_saved(own: Mapping[int, float], other: Mapping[int, float]) -> BySeed:
    """Return by how many percent `own` is less than `other`, for the seeds that both have."""
    return {seed: 100 * (1 - own[seed] / other[seed]) for seed in sorted(own) if seed in other}


def across(
    parts: Iterable[Mapping[int, float]], how: Callable[[Sequence[float]], Any] = np.mean
) -> BySeed:
    """Combine several numbers of each seed by `how`, for the seeds that all of them have."""
    listed = list(parts)
    seeds = sorted(set.intersection(*map(set, listed))) if listed else []
    return {seed: float(how([part[seed] for part in listed])) for seed in seeds}


# ---------------------------------------------------------------- the form in metrics.json


class Measured(dict[str, Any]):
    """An interval, share or count in the form of metrics.json, with the numbers `by_seed`.

    `results.write_metrics` writes these numbers to seeds.csv. Values not given by seed have none.
    """

    def __init__(self, found: Evidence, values: Mapping[Any, float] | Iterable[float]) -> None:
        super().__init__(asdict(found))
        self.by_seed: BySeed = dict(values) if isinstance(values, Mapping) else {}


def as_metric(values: Mapping[Any, float] | Iterable[float]) -> Measured | None:
    """Return the interval of some values, or of those by seed, for metrics.json; null for none."""
    listed = list(values.values() if isinstance(values, Mapping) else values)
    return Measured(interval(listed), values) if listed else None


def as_percent(values: Mapping[Any, float]) -> Measured | None:
    """Return `as_metric` for percentages within each seed: the bounds are cut at 0 and 100."""
    if not values:
        return None
    found = interval(list(values.values()))
    if found.low is not None and found.high is not None:
        found = Interval(found.mean, max(0.0, found.low), min(100.0, found.high), found.n)
    return Measured(found, values)


def as_share(flags: Mapping[Any, bool]) -> Measured | None:
    """Return the share of seeds whose flag is true, for metrics.json; null for none."""
    return Measured(share(list(flags.values())), flags) if flags else None


def as_count(values: Mapping[Any, float]) -> Measured | None:
    """Return rounds or epochs by seed, for metrics.json; null for none."""
    return Measured(count(list(values.values())), values) if values else None


KINDS: tuple[type[Evidence], ...] = (Interval, Share, Count)


def is_evidence(found: object) -> bool:
    """Return whether this part of a metrics.json is an interval, a share of seeds or a count."""
    return isinstance(found, Mapping) and any(set(found) == _names(kind) for kind in KINDS)


def as_evidence(found: Mapping[str, Any] | None) -> Evidence | None:
    """Return an interval, a share or a count of metrics.json as an object."""
    if found is None:
        return None
    kind = next(kind for kind in KINDS if set(found) == _names(kind))
    return kind(**found)


def _names(kind: type[Evidence]) -> set[str]:
    return {field.name for field in fields(kind)}


def as_interval(found: Mapping[str, Any] | None) -> Interval | None:
    """Return an interval of metrics.json as an object."""
    return None if found is None else Interval(**found)


def over_levels(by_level: Mapping[float, Mapping[int, float]]) -> dict[str, Any]:
    """Return metrics at each sparsity, `at_90`, and of each seed's mean over them; null if none."""
    found = {f"at_{100 * level:g}": as_metric(values) for level, values in by_level.items()}
    return found | {"mean": as_metric(across(values for values in by_level.values() if values))}


def means(found: Mapping[str, Any]) -> list[float]:
    """Return the means of all intervals of metrics.json in `found`, except of means over them."""
    if is_evidence(found):
        return [float(found["mean"])] if "mean" in found else []
    parts = [part for key, part in found.items() if isinstance(part, Mapping) and key != "mean"]
    return [mean for part in parts for mean in means(part)]


# ---------------------------------------------------------------- checks that a bed has learned


@dataclass(frozen=True)
class Reference:
    """Scores of an arm that must have learned something, and the score expected by chance."""

    score: Interval
    chance: float
    images: int | None = None
    """Number of test images of an accuracy; None for other scores."""

    @property
    def learned(self) -> bool:
        """Whether the whole interval is above chance; false for a single seed, which has none."""
        return self.score.low is not None and self.score.low > self.chance + ROUNDING

    @property
    def resolution(self) -> float:
        """Points of accuracy per test image; 0 for scores without images."""
        return 100 / self.images if self.images else 0.0


def as_reference(
    scores: Mapping[int, float], chance: float, images: int | None = None
) -> dict[str, Any] | None:
    """Return a reference arm's scores by seed and chance, for metrics.json; null for none.

    `images` is the number of test images of an accuracy, None for other scores.
    """
    score = as_metric(scores)
    return score and {"score": score, "chance": chance, "images": images}


def above_chance(scores: Mapping[int, float], labels: ArrayLike) -> dict[str, Any] | None:
    """Return `as_reference` for accuracies (percent) over test images with these `labels` (n,)."""
    return as_reference(scores, chance_accuracy(labels), len(np.asarray(labels)))


def chance_accuracy(labels: ArrayLike) -> float:
    """Return the accuracy in percent of the best constant answer to the integer `labels` (n,).

    It is 100 / classes if all classes are equally frequent.
    """
    return 100 * float(np.bincount(np.asarray(labels)).max()) / len(np.asarray(labels))


# ---------------------------------------------------------------- look-up in metrics.json

MISSING = "is not in the metrics; if an older version wrote them, run its notebook again"


def measured(metrics: Mapping[str, Any], keys: Sequence[str], name: str) -> Evidence | None:
    """Return the number at a path in the metrics; None if it, or a part of the path, is null."""
    found: Any = metrics
    for key in keys:
        if found is None:
            return None
        if not isinstance(found, Mapping) or key not in found:
            raise InputError(f"{name} {MISSING}")
        found = found[key]
    if not (found is None or is_evidence(found)):
        raise InputError(f"{name} is neither an interval nor a share of seeds nor a count")
    return as_evidence(found)
