"""Differences over test images, beside those over seeds: the outcomes that tickets keep, compared.

An interval over seeds is about this pool of images and all orders, initial weights and splits. One
over images is about these trained nets and all test images that could have been drawn.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap

from ticketlab.study.results import Result
from ticketlab.study.stats import Interval

Hits = NDArray[np.bool_]
"""(n,): whether a net is right on each test image."""
Key = tuple[str, str]
"""A unit without its seed, as `search/imp`, and one of its tickets, as `round-05`."""

RESAMPLES = 2000


def hits(results: Mapping[str, Result], labels: ArrayLike) -> dict[Key, dict[int, Hits]]:
    """For all tickets that keep an outcome, by seed: on which test images it is right.

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
    """Points of accuracy, paired by seed and image: the mean and its 95 % bootstrap interval.

    Images are drawn anew, the nets of all seeds stay. The `n` is that of the images.
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
    """Exact two-sided p that two nets are right equally often, from the images they differ on."""
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


COLUMNS = ("ours", "theirs", "ticket", "over images", "McNemar p <= .05")


def table(
    results: Mapping[str, Result], labels: ArrayLike, pairs: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """For pairs of units, at every ticket that both keep: points over images, and in how many seeds
    McNemar's test tells the two nets apart."""
    known, rows = hits(results, labels), []
    for ours, theirs in pairs:
        for unit, name in sorted(known):
            if unit != ours or (theirs, name) not in known:
                continue
            a, b = known[ours, name], known[theirs, name]
            seeds = [seed for seed in sorted(a) if seed in b]
            apart = sum(mcnemar(a[seed], b[seed]) <= 0.05 for seed in seeds)
            rows.append(
                (ours, theirs, name, over_images(a, b).text(2), f"{apart} of {len(seeds)} seeds")
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))
