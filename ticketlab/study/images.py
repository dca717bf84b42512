"""Differences over test images, in addition to those over seeds, from tickets' stored outcomes.

An interval over seeds treats the images as fixed and generalises over orders, initial weights and
splits. An interval over images treats the trained nets as fixed and generalises over test images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap

from ticketlab.data.sets import DataSpec
from ticketlab.study.results import Result
from ticketlab.study.stats import Interval

Hits = NDArray[np.bool_]
"""(n,): whether a net classifies each test image correctly."""
Key = tuple[str, str]
"""A unit without its seed, such as `search/imp`, and one of its tickets, such as `round-05`."""

RESAMPLES = 2000


def hits(results: Mapping[str, Result], labels: ArrayLike) -> dict[Key, dict[int, Hits]]:
    """Return, by seed, which test images each ticket with a stored outcome classifies correctly.

    `labels` (n,) are those of the test images, the same for all seeds.
    """
    found: dict[Key, dict[int, Hits]] = {}
    for unit, result in results.items():
        for name, ticket in result.tickets.items():
            if ticket.outcome is not None:
                right = ticket.outcome.logits.argmax(1).numpy() == np.asarray(labels)
                key = unit.rpartition("/")[0], name
                found.setdefault(key, {})[ticket.metadata["seed"]] = right
    return found


def over_images(ours: Mapping[int, Hits], theirs: Mapping[int, Hits]) -> Interval:
    """Return points of accuracy, paired by seed and image: mean and 95 % bootstrap interval.

    Resamples images and keeps the nets of all seeds. The `n` is the number of images.
    """
    apart = [ours[seed].astype(float) - theirs[seed] for seed in sorted(ours) if seed in theirs]
    image = 100 * np.mean(apart, axis=0)
    mean, n = float(image.mean()), len(image)
    if np.ptp(image) == 0:
        return Interval(mean, mean, mean, n)
    found = bootstrap(
        (image,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", rng=0
    )
    interval = found.confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), n)


def mcnemar(ours: Hits, theirs: Hits) -> float:
    """Return the exact two-sided p of McNemar's test that two nets are equally often correct."""
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


EXPLAINED = (
    "**Over test images.** The intervals above are over seeds: other weights, orders and splits. "
    "Here the networks stay and the test images are drawn anew (bootstrap); McNemar's exact test "
    "says in how many seeds two networks differ."
)
"""What stands above such a table in a notebook."""


def shared_by_seeds(spec: DataSpec) -> bool:
    """Return whether all seeds have the same test images, so that images can be paired."""
    return spec.test is None or spec.split_seed is not None


def compared(ours: Mapping[int, Hits], theirs: Mapping[int, Hits]) -> dict[str, str]:
    """Return points over images with their interval, and in how many seeds nets differ."""
    seeds = [seed for seed in sorted(ours) if seed in theirs]
    apart = sum(mcnemar(ours[seed], theirs[seed]) <= 0.05 for seed in seeds)
    points = over_images(ours, theirs).text(2)
    return {"points over test images": points, "McNemar p <= .05": f"{apart} of {len(seeds)} seeds"}


def pairs_table(
    known: Mapping[Key, Mapping[int, Hits]], pairs: Mapping[Any, Sequence[Key]]
) -> pd.DataFrame:
    """Compare named pairs of tickets, one row each; pairs without outcomes are omitted."""
    rows = {
        name: compared(known[ours], known[theirs])
        for name, (ours, theirs) in pairs.items()
        if ours in known and theirs in known
    }
    return pd.DataFrame.from_dict(rows, orient="index")


COLUMNS = ("ours", "theirs", "ticket", "over images", "McNemar p <= .05")


def table(
    results: Mapping[str, Result], labels: ArrayLike, pairs: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Compare pairs of units at every ticket that both store.

    Columns: points over images, and in how many seeds McNemar's test distinguishes the two nets.
    """
    known, rows = hits(results, labels), []
    for ours, theirs in pairs:
        for unit, name in sorted(known):
            if unit != ours or (theirs, name) not in known:
                continue
            found = compared(known[ours, name], known[theirs, name])
            rows.append((ours, theirs, name, *found.values()))
    return pd.DataFrame(rows, columns=list(COLUMNS))
