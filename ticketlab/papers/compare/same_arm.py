"""One method as two arms: the verdicts when there is no true difference.

IMP and "imp-again" start from the same weights and the same split, and see the images in different
orders. A rule that calls one of them better is wrong.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd

from ticketlab.papers.compare.params import CompareParams
from ticketlab.papers.compare.rows import accuracy
from ticketlab.study import rules
from ticketlab.study.stats import BySeed, Interval, interval, minus
from ticketlab.study.tables import NONE

ALL = 10
"""Up to this many seeds every relabelling is tried, for more seeds 2 ** ALL random ones."""
MARGIN = rules.MARGINS["points"]


def differences(rows: pd.DataFrame, params: CompareParams) -> dict[str, dict[float, BySeed]]:
    """Return IMP minus IMP on another order, in points of accuracy, by net, level and seed."""
    return {
        bed.name: {
            level: minus(
                accuracy(rows, bed.name, "imp", level), accuracy(rows, bed.name, "imp-again", level)
            )
            for level in bed.levels
        }
        for bed in params.beds
    }


def word(values: Sequence[float], resolution: float) -> rules.Word:
    """Return the verdict on 'the first arm beats the second' from differences (n,) in points.

    `resolution` is one test image in points of accuracy.
    """
    found = rules.widened(interval(values), resolution)
    return rules.decide(found, 0.0, strictly=True, margin=MARGIN)


def wins(values: Sequence[float], resolution: float) -> float:
    """Return the percent of relabellings in which the first arm beats the second.

    A relabelling exchanges the names of the two arms in some of the seeds, which changes the sign
    of their differences (n,) there. With fewer than 5 seeds, the one relabelling that makes all
    differences positive is by itself more than 5 %.
    """
    signs = list(_signs(len(values)))
    won = [word([s * v for s, v in zip(row, values, strict=True)], resolution) for row in signs]
    return 100 * won.count("reproduced") / len(signs)


def _signs(n: int) -> Iterator[Sequence[float]]:
    """Yield rows of n signs."""
    if n <= ALL:
        return iter(product((1.0, -1.0), repeat=n))
    drawn = np.random.default_rng(0).choice((1.0, -1.0), (2**ALL, n))
    return iter(drawn.tolist())


def table(rows: pd.DataFrame, params: CompareParams, resolution: float) -> pd.DataFrame:
    """Return one row per net and level: the difference, its verdict, wins after relabelling."""
    found = []
    for net, levels in differences(rows, params).items():
        for level, by_seed in levels.items():
            values = list(by_seed.values())
            facts = (net, f"{100 * level:g} %", str(interval(values)), _spread(interval(values)))
            found.append((*facts, word(values, resolution), f"{wins(values, resolution):.1f} %"))
    columns = ["net", "sparsity", "IMP - IMP again", "paired sd", "IMP beats IMP again"]
    return pd.DataFrame(found, columns=[*columns, "beats, of all relabellings"])


def _spread(found: Interval) -> str:
    """Format the standard deviation of paired differences, from which seeds are planned."""
    if found.n < 2:
        return NONE
    return f"{rules.standard_error(found) * np.sqrt(found.n):.2f}"
