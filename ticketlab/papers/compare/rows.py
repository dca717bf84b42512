"""The comparison's rows, one per trained ticket, and paired differences of their accuracies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from ticketlab.papers.compare.params import Bed, CompareParams
from ticketlab.study import tables
from ticketlab.study.cost import Cost
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Measured,
    across,
    as_metric,
    by_seed,
    minus,
    over_levels,
)
from ticketlab.study.tables import Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""The accuracy used in this study's tables, differences and claims."""

# ---------------------------------------------------------------- tables


def board(results: Results) -> pd.DataFrame:
    """Return one row per trained ticket: net, arm, seed, level, accuracies in percent, costs.

    Columns `search_...` are the cost of finding it; those without the prefix include its final
    training.
    """
    return whole(results).drop(columns=["layers", "collapsed", "weights"])


def whole(results: Results) -> pd.DataFrame:
    """Return one row per trained ticket, the dense nets first."""
    dense = [
        _dense_row(name.partition("/")[0], result.record)
        for name, result in results.items()
        if "/dense/" in name
    ]
    return pd.concat([pd.DataFrame(dense), rows_of(results, "rows")], ignore_index=True)


def _dense_row(net: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dense net's record as the row of a ticket with no search cost."""
    facts = {"arm": "dense", "level": 0.0, "weights": "init", "rounds": 0, "collapsed": []}
    mask = {"sparsity": 0.0, "alive": record["alive"], "layers": record["layers"]}
    paid = Cost().row("search_") | dict(record["cost"])
    return {"net": net, "seed": record["seed"], **facts, **mask, **record["scores"], **paid}


def layers_table(results: Results) -> pd.DataFrame:
    """Return one row per layer of a ticket: net, arm, seed, level, layer, density."""
    return tables.layers_table(whole(results), ["net", "arm", "seed", "level"])


# ---------------------------------------------------------------- numbers by seed


def accuracy(rows: pd.DataFrame, net: str, arm: str, level: float) -> BySeed:
    """Return test accuracy of an arm at a level, by seed."""
    chosen = rows[(rows.net == net) & (rows.arm == arm) & (rows.level == level)]
    return by_seed(chosen, ACCURACY)


def best_of(rows: pd.DataFrame, net: str, arms: Sequence[str], level: float) -> BySeed:
    """Return test accuracy of the best of several arms, chosen on validation for each seed."""
    chosen = rows[(rows.net == net) & (rows.level == level) & rows.arm.isin(arms)]
    best = chosen.loc[chosen.groupby("seed").validation_accuracy.idxmax()]
    return by_seed(best, ACCURACY)


def summary(params: CompareParams, each: Callable[[Bed, float], BySeed]) -> dict[str, Any]:
    """Return intervals of a number by net and level, of each net's mean and of the overall mean."""
    found: dict[str, Any] = {}
    means = []
    for bed in params.beds:
        by_level = {level: each(bed, level) for level in bed.levels}
        means.append(across(by_level.values()))
        found[bed.name] = over_levels(by_level)
    return found | {"mean": as_metric(across(means))}


def by_net(
    parts: Mapping[str, BySeed], how: Callable[[BySeed], Measured | None] = as_metric
) -> dict[str, Any]:
    """Return intervals of a number by net (or `how` it is summarised), and of its overall mean."""
    mean = across(parts.values())
    return {net: how(by) for net, by in parts.items()} | {"mean": how(mean)}


def difference(rows: pd.DataFrame, params: CompareParams, arm: str, other: str) -> dict[str, Any]:
    """Return test accuracy of `arm` minus `other` at equal sparsity, in points, paired by seed."""

    def each(bed: Bed, level: float) -> BySeed:
        own = accuracy(rows, bed.name, arm, level)
        at = 0.0 if other == "dense" else level
        theirs = accuracy(rows, bed.name, other, at)
        return minus(own, theirs)

    return summary(params, each)
