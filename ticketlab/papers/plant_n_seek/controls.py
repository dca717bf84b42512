"""Positive controls: what must hold on Plant 'n' Seek's beds before they can judge a claim.

The beds are the tasks in the study's main cell, `shallow` (Circle in a mother of depth 3) and
`conv`, the convolutional part. All bounds were fixed before the deciding seeds ran.
"""

from collections.abc import Iterable, Mapping
from math import log10
from typing import Any

import pandas as pd

from ticketlab.papers.plant_n_seek.conv.report import conv_controls, conv_references
from ticketlab.papers.plant_n_seek.params import Case, PlantParams
from ticketlab.papers.plant_n_seek.report import (
    SPARSE,
    Results,
    arms,
    is_accuracy,
    is_found,
    main_case,
)
from ticketlab.papers.plant_n_seek.units import PlantBench
from ticketlab.study.controls import Entry, control
from ticketlab.study.stats import BySeed, as_reference, chance_accuracy, each_seed

SCORED = {"circle": "per_output", "relu": "scalar", "helix": "per_output"}
"""Score by which an untrained mask of a task is a strong ticket, named by its fitted scales."""
POPPED = {"circle": "raw", "relu": "scalar", "helix": "per_output"}
"""Score of edge-popup in the claims on a task."""

TRAINED_ACCURACY, TRAINED_SHARE = 85.0, 0.1
"""When the unpruned net counts as trained: percent of correct test samples (the ticket has 98), or
error relative to that of the best constant."""

Numbers = dict[str, Any]

# ---------------------------------------------------------------- positive controls


def controls(
    every: pd.DataFrame, main: pd.DataFrame, results: Results, params: PlantParams
) -> Numbers:
    """Return the positive controls by bed; None for those that did not run."""
    planted = main[main.mother == "planted"]
    found = {task: bed_controls(arms(planted, task=task), task, params) for task in SCORED}
    shallow = arms(every, task="circle", depth=3, mother="planted")
    found["shallow"] = bed_controls(shallow, "circle", params)
    return found | {"conv": conv_controls(results)}


def bed_controls(rows: pd.DataFrame, task: str, params: PlantParams) -> Numbers:
    """Return the controls of one bed, from the rows of its planted mothers."""
    once, many = arms(rows, regime="singleshot"), arms(rows, regime="multishot")
    oracle = arms(once, method="oracle")
    enough = once[once.density == once.density[once.density < 1].max()]
    sparse = many[many.density <= SPARSE]
    return {
        "trained": _trained(arms(once, method="dense"), task, params),
        "ample_density": _most(
            "at the largest density magnitude and SNIP find a weak ticket in one shot",
            arms(enough, method=("magnitude", "snip")),
        ),
        "random_fails": _most(
            "at the ticket's density random pruning finds none",
            arms(once, method="random", label="gt"),
            found=False,
        ),
        "ticket_is_strong": _most(
            "the planted ticket passes as a strong one", oracle, f"{SCORED[task]}_margin"
        ),
        "ticket_trains": _most("the planted ticket stays one when trained as planted", oracle),
        "ticket_trains_at_its_scale": _most(
            "the planted ticket stays one when trained with its output factors divided out",
            arms(once, method="oracle_unit"),
        ),
        "sparse_net_trains": _most(
            "at density 0.01 and the ticket's many rounds of SynFlow find a weak ticket",
            arms(sparse, method="synflow"),
        ),
    }


def _most(
    says: str, rows: pd.DataFrame, column: str = "weak_margin", found: bool = True
) -> Entry | None:
    """Return whether in more than half of the seeds all rows found a ticket (or none did)."""
    flags = (is_found(rows, column) == found).groupby(rows.seed).all()
    by_seed = {int(str(seed)): bool(flag) for seed, flag in flags.items()}
    return control(f"in most seeds {says}", by_seed, above=50.0)


def _trained(dense: pd.DataFrame, task: str, params: PlantParams) -> Entry | None:
    """Return whether the unpruned net learned, by its test score, since all samples are drawn."""
    scores = each_seed(dense, "weak")
    if is_accuracy(task):
        return control("the unpruned net is trained (% right)", scores, at_least=TRAINED_ACCURACY)
    says = "the unpruned net is trained (decades below the error of the best constant)"
    below = decades_below(scores, constant_scores(params, task, scores))
    return control(says, below, at_least=-log10(TRAINED_SHARE))


# ---------------------------------------------------------------- references


def references(main: pd.DataFrame, results: Results, params: PlantParams) -> Numbers:
    """Return the references, arms that must have learned, by task: the main cell's dense net.

    For claims on edge-popup also its masks of density 0.5 on the planted mother (linear head), if
    they ran. Chance is a constant prediction. For the convolutional part, the ticket.
    """
    found: Numbers = {}
    dense = arms(main, method="dense", mother="planted", regime="singleshot")
    popped = arms(main, regime="popup_linear", mother="planted", method="plain", label="0.5")
    for task, score in POPPED.items():
        trained = {f"the dense net on {task}": over_constant(dense, task, "weak", params)}
        mask = {f"edge-popup on {task}": over_constant(popped, task, score, params)}
        found |= {task: trained, f"popup_{task}": trained | mask}
    return found | conv_references(results, params)


def over_constant(rows: pd.DataFrame, task: str, column: str, params: PlantParams) -> Entry | None:
    """Return a score on a task as a reference, with that of the best constant prediction.

    Circle: accuracy, with the share of the most frequent class (the highest over seeds). Others:
    the decades by which the error is below that of predicting the mean, where 0 is chance.
    """
    scores = each_seed(arms(rows, task=task), column)
    if not scores:
        return None
    chance = constant_scores(params, task, scores)
    if is_accuracy(task):
        return as_reference(scores, max(chance.values()), params.test)
    return as_reference(decades_below(scores, chance), 0.0)


def decades_below(errors: Mapping[int, float], others: Mapping[int, float]) -> BySeed:
    """Return by how many decades each seed's error is below another one."""
    return {seed: log10(others[seed] / max(error, 1e-12)) for seed, error in errors.items()}


def constant_scores(params: PlantParams, task: str, seeds: Iterable[int]) -> BySeed:
    """Return the best constant prediction's score on each seed's test set of the main cell."""
    case = main_case(params).model_copy(update={"task": task})
    return {seed: constant_score(params, case, seed) for seed in seeds}


def constant_score(params: PlantParams, case: Case, seed: int) -> float:
    """Return the best constant prediction's score on a seed's test set: accuracy (%) or error."""
    outputs = PlantBench(params, case, seed).test[1]
    if is_accuracy(case.task):
        return chance_accuracy(outputs)
    return float(outputs.var(dim=0, correction=0).mean())
