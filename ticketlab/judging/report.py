"""Tables and metrics of a judgement from its stored results; trains nothing."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ticketlab import plugins
from ticketlab.data.sets import DataSet, load
from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams
from ticketlab.labels import label
from ticketlab.study import regime, tables
from ticketlab.study.controls import control, trained
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    as_count,
    as_metric,
    by_seed,
    chance_accuracy,
    minus,
)
from ticketlab.study.tables import Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
ARMS = ("dense", "given", "imp", "random", "shuffled", "reinit", "random-long")
HEAD_START = 20.0
"""Points before the first step, beyond which weights are neither initial nor rewound ones."""
OTHERS = tuple(arm for arm in ARMS if arm != "given")

COLUMNS = {
    ACCURACY: "test accuracy (%)",
    "start_accuracy": "before the first step (%)",
    "alive": "weights kept",
    "search_images": "images to find it",
    "images": "images in all",
}
"""Columns of the table of arms."""


def rows(results: Results) -> pd.DataFrame:
    """Return one row per arm and seed: accuracies in percent, weights kept, costs."""
    return rows_of(results, "rows")


def column(frame: pd.DataFrame, arm: str, name: str = ACCURACY) -> BySeed:
    """Return a column of an arm by seed; empty for an arm that was not run."""
    return by_seed(frame[frame.arm == arm], name)


def metrics(results: Results, params: JudgeParams) -> dict[str, Any]:
    """Return all numbers for metrics.json: intervals of arms and of paired differences."""
    frame, data = rows(results), load(params.data)
    by_arm = {arm: column(frame, arm) for arm in ARMS}
    return {
        "references": {"dense": {"the dense net": above_chance(by_arm["dense"], data.test.y)}},
        "controls": {plugins.slug(params.model.name): controls(frame, params)},
        "chance": chance_accuracy(data.validation.y),
        "accuracy": {_key(arm): as_metric(values) for arm, values in by_arm.items()},
        "start": {_key(a): as_metric(column(frame, a, "start_accuracy")) for a in ARMS},
        "differences": {
            f"given_minus_{_key(arm)}": as_metric(minus(by_arm["given"], by_arm[arm]))
            for arm in OTHERS
        },
        "cost": {_key(arm): as_metric(column(frame, arm, "images")) for arm in ARMS},
    }


def controls(frame: pd.DataFrame, params: JudgeParams) -> dict[str, Any]:
    """Return the positive controls: what must hold before a mask can be judged here."""
    learned, least = trained(params.trained)
    start = {arm: column(frame, arm, "start_accuracy") for arm in ("imp", "given")}
    return {
        "trained": control(learned, column(frame, "dense", "train_accuracy"), **least),
        "imp_beats_random": control(
            "IMP's mask beats a random mask of this sparsity.",
            minus(column(frame, "imp"), column(frame, "random")),
            above=0.0,
        ),
        "no_head_start": control(
            f"Before the first step no seed of the given mask is more than {HEAD_START:g} points "
            "ahead of IMP's ticket.",
            as_count(minus(start["imp"], start["given"])) or {},
            at_least=-HEAD_START,
        ),
    }


def _key(arm: str) -> str:
    return arm.replace("-", "_")


# ---------------------------------------------------------------- tables of the page


def shown(arm: str) -> str:
    """Return the name of an arm in tables and figures, which `labels` knows or shows as it is."""
    return "given mask" if arm == "given" else arm


def arms_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm: accuracies with intervals, weights kept, mean images."""
    found = {}
    for arm in ARMS:
        own = frame[frame.arm == arm]
        if own.empty:
            continue
        texts = [tables.text(as_metric(own[name])) for name in (ACCURACY, "start_accuracy")]
        counts = [f"{own[name].mean():,.0f}" for name in list(COLUMNS)[2:]]
        found[label(shown(arm))] = [*texts, *counts]
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(COLUMNS.values()))
    return table.rename_axis("arm").reset_index()


def layers(given: Given) -> pd.DataFrame:
    """Return one row per layer of the given mask: weights, kept, density."""
    return given.mask.table().round({"density": 4})


def facts(given: Given, params: JudgeParams, data: DataSet) -> dict[str, str]:
    """Return what was judged, and how, in words."""
    rule = f"{given.mask.total:,} weights in {len(given.mask)} layers may be pruned"
    return {
        "mask": f"{given.name}: {given.form}",
        "network": f"{params.model.name}; {rule}",
        "sparsity": f"{given.mask.sparsity:.2%}, {given.mask.alive:,} weights kept",
        "images": regime.images(params.data, data),
        "one training": regime.schedule(params.recipe, len(data.train)),
        "pruned per round by IMP": f"{params.rate:.3g}",
        "rewinding to": regime.rewinding(params.rewind),
        "seeds": regime.seeds(params.seeds),
    } | {f"SHA-256 of {name}": digest for name, digest in given.sha256.items()}
