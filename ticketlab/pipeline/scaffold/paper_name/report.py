"""What the study says: a table, differences paired by seed, metrics."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ticketlab.data.sets import DataSet, load
from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.study import regime, tables
from ticketlab.study.results import Result
from ticketlab.study.stats import above_chance, as_metric, by_seed, minus
from ticketlab.study.tables import Accuracy

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""What the table, the differences and the claim are about."""
ARMS = ("dense", "magnitude", "random")


def scores_table(results: Results) -> pd.DataFrame:
    """One row per trained net: arm, seed, sparsity, alive, accuracies in percent, and its cost.

    The cost is that of its own training; to find a magnitude ticket takes the dense net's, too.
    """
    return tables.rows_of(results, "rows")


def accuracy_of(scores: pd.DataFrame, arm: str) -> dict[int, float]:
    """Test accuracy in percent of an arm, by seed."""
    return by_seed(scores[scores.arm == arm], ACCURACY)


def metrics(results: Results, params: Params) -> dict[str, Any]:
    """All numbers of the study for metrics.json: intervals of each arm, and of the differences."""
    scores = scores_table(results)
    by_arm = {arm: accuracy_of(scores, arm) for arm in ARMS}
    labels = load(params.data).test.y
    return {
        "references": {"dense": {"the dense net": above_chance(by_arm["dense"], labels)}},
        "accuracy": {arm: as_metric(values) for arm, values in by_arm.items()},
        "differences": {
            f"magnitude_minus_{other}": as_metric(minus(by_arm["magnitude"], by_arm[other]))
            for other in ("random", "dense")
        },
    }


def differences_table(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """The differences as text: mean, 95 % t interval, n."""
    return tables.intervals_column(numbers["differences"], "points, paired by seed")


def this_study(params: Params, data: DataSet) -> dict[str, str]:
    """What the fidelity card leaves to the study's parameters."""
    return {
        "net": regime.net(params.model, params.prunable, data),
        "images": regime.images(params.data, data),
        "one training": regime.schedule(params.recipe, len(data.train)),
        "sparsity": f"{params.sparsity:.1%}",
        "rewinding to": regime.rewinding(params.rewind),
        "seeds": regime.seeds(params.seeds),
    }
