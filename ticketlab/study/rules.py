"""Rules for verdicts: words, margins, planned seeds, tests and power.

All of them were fixed before the deciding seeds ran. Nothing here depends on a paper or a file.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit
from scipy.stats import binom, binomtest, false_discovery_control, nct

from ticketlab.study.stats import ROUNDING, Count, Evidence, Interval, Share, share

Word = Literal[
    "reproduced", "not reproduced", "no difference", "undecided", "not testable here", "not run"
]

COLOURS: dict[str, str] = {
    "reproduced": "#1a7f37",
    "not reproduced": "#c4320a",
    "no difference": "#0f6e84",
    "undecided": "#8a6d00",
    "not testable here": "#6639a6",
    "not run": "#767676",
}

DECIDED: tuple[Word, ...] = ("reproduced", "not reproduced", "no difference")

# ---------------------------------------------------------------- fixed in advance

Tier = Literal["headline", "paper", "control", "finding"]
"""headline: promised in the abstract; paper: other statements of the paper; control: our own checks
of it; finding: what we found out about released code or our own beds."""

Unit = Literal["points", "rounds", "epochs", "cost", "seeds", "other"]
"""Unit of a claim's number: points of accuracy, rounds, epochs, percent of a cost, percent of the
seeds, or another that the statement names."""

COSTS: tuple[Unit, ...] = ("rounds", "epochs", "cost")

MARGINS: dict[Unit, float] = {"points": 1.0, "rounds": 1.0, "cost": 5.0}
"""Largest value that counts as no difference, unless the paper states its own margin."""

PLANNED: dict[Tier, int] = {"headline": 10, "paper": 10, "control": 10, "finding": 5}
"""Number of seeds that decide a claim."""
PLANNED_SHARE = 20
"""Number of seeds that decide a share of seeds; with 10 of 10 it may still be 69 %."""

CONFIDENCE = 0.95
POWER = 0.8
MOST = 100
"""Largest number of seeds worth planning."""
FALSE_SHARE = 0.05
"""Accepted share of false verdicts among a study's decided ones (q)."""


def planned(tier: Tier, unit: Unit) -> int:
    """Return the planned number of seeds for a claim's verdict."""
    return PLANNED_SHARE if unit == "seeds" else PLANNED[tier]


def most_planned(unit: Unit) -> int:
    """Return a study's largest planned number of seeds; more were added after seeing results."""
    return PLANNED_SHARE if unit == "seeds" else max(PLANNED.values())


# ---------------------------------------------------------------- the word


def decide(
    evidence: Evidence, bound: float, strictly: bool = False, margin: float | None = None
) -> Word:
    """Return the verdict on 'at least the bound', or `strictly` above it; one seed decides nothing.

    With a `margin`, an interval within it around zero is no difference, unless it is all positive.
    """
    low, high = evidence.low, evidence.high
    if evidence.n < 2 or low is None or high is None:
        return "undecided"
    least = bound + ROUNDING if strictly else bound - ROUNDING
    if low > least:
        return "reproduced"
    if margin is not None and max(-low, high) <= margin + ROUNDING:
        return "no difference"
    return "undecided" if high > least else "not reproduced"


def is_decidable(n: int, bound: float, strictly: bool) -> bool:
    """Return whether a share of `n` seeds can reach both verdicts, at all seeds and at none."""
    words = {decide(share([flag] * n), bound, strictly) for flag in (True, False)}
    return words == {"reproduced", "not reproduced"}


def widened(evidence: Evidence, resolution: float) -> Evidence:
    """Give an interval without width the measurement's resolution as its half-width."""
    if not isinstance(evidence, Interval) or evidence.low is None or evidence.high is None:
        return evidence
    if evidence.high - evidence.low > ROUNDING:
        return evidence
    low, high = evidence.mean - resolution, evidence.mean + resolution
    return Interval(evidence.mean, low, high, evidence.n)


# ---------------------------------------------------------------- how many seeds


def power(n: int, effect: float) -> float:
    """Return the probability that the t interval of `n` seeds lies on the right side of a bound.

    The bound is `effect` standard deviations (of the paired differences) away.
    """
    edge = stdtrit(n - 1, (1 + CONFIDENCE) / 2)
    return float(nct.sf(edge, n - 1, effect * sqrt(n)))


def effect_seen(n: int) -> float:
    """Return the effect in paired standard deviations that `n` >= 2 seeds decide in 80 %."""
    return float(brentq(lambda effect: power(n, effect) - POWER, 0.0, 30.0))


def share_power(n: int, true: float, bound: float) -> float:
    """Return the probability that `n` seeds' exact interval excludes `bound`; shares in 0..1."""
    k = np.arange(n + 1)
    tails = binom.sf(k - 1, n, bound) if true > bound else binom.cdf(k, n, bound)
    return float(binom.pmf(k, n, true)[tails < (1 - CONFIDENCE) / 2].sum())


def seeds_needed(evidence: Evidence, bound: float, margin: float | None = None) -> int | None:
    """Return how many seeds decide such a number in 80 % of studies; None if more than MOST.

    Assumes that mean and spread are the true ones. With a `margin`, either verdict will do, the one
    that takes fewer seeds.
    """
    if isinstance(evidence, Share):
        powers = (share_power(n, evidence.share / 100, bound / 100) for n in range(2, MOST + 1))
    else:
        away = abs(evidence.mean - bound)
        if margin is not None:
            away = max(away, margin - abs(evidence.mean))
        deviation = standard_error(evidence) * sqrt(evidence.n)
        powers = (power(n, away / deviation) for n in range(2, MOST + 1))
    return next((n for n, one in enumerate(powers, start=2) if one >= POWER), None)


def why_undecided(evidence: Evidence, bound: float, margin: float | None = None) -> str:
    """Describe how many seeds would decide it."""
    if evidence.n < 2:
        return "a single seed decides nothing"
    if isinstance(evidence, Count):
        return "seeds on both sides of the bound"
    needed = seeds_needed(evidence, bound, margin)
    return f"more than {MOST} seeds needed" if needed is None else f"about {needed} seeds needed"


# ---------------------------------------------------------------- tests


def standard_error(evidence: Evidence) -> float:
    """Return the standard error of a mean over 2 or more seeds, from its interval.

    A bound that was cut off at 0 or 100 is ignored if the other was not.
    """
    if evidence.low is None or evidence.high is None:
        raise ValueError("a single seed has no standard error")
    half = max(evidence.high - evidence.mean, evidence.mean - evidence.low)
    return half / float(stdtrit(evidence.n - 1, (1 + CONFIDENCE) / 2))


def p_value(evidence: Evidence, bound: float) -> float | None:
    """Return the two-sided p of the number against the bound.

    Student's t for a mean, exact binomial for a share. None for counts, which are compared exactly,
    and for a single seed.
    """
    if isinstance(evidence, Count) or evidence.n < 2:
        return None
    if isinstance(evidence, Share):
        return float(binomtest(evidence.k, evidence.n, bound / 100).pvalue)
    error, away = standard_error(evidence), abs(evidence.mean - bound)
    if away <= ROUNDING or error == 0:
        return float(away <= ROUNDING)
    return float(2 * stdtr(evidence.n - 1, -away / error))


def q_values(p: Sequence[float | None]) -> list[float | None]:
    """Return Benjamini and Hochberg's q of each p; None stays None.

    q is the expected share of false verdicts among all those with a q as small.
    """
    tested = [one for one in p if one is not None]
    found = iter(false_discovery_control(tested) if tested else ())
    return [None if one is None else float(next(found)) for one in p]
