"""Numbers of the geometry study for metrics.json: references, controls, and all differences."""

from functools import partial
from typing import Any

import pandas as pd

from ticketlab.data.sets import load
from ticketlab.papers.compare.params import Bed
from ticketlab.papers.geometry import own_lines
from ticketlab.papers.geometry.params import ARMS, LADDERS, OWN, STORED, GeometryParams, OwnBed
from ticketlab.papers.geometry.report import (
    MATCHING,
    Results,
    Tables,
    accuracy,
    extreme,
    judged_rounds,
    line_metrics,
    moved,
    over_levels,
    reliability,
    rewinding,
    round_metrics,
    share_of_rounds,
    tables,
    transplants,
)
from ticketlab.study.controls import control, trained
from ticketlab.study.stats import BySeed, above_chance, by_seed, minus

UNMATCHED = 10.0
"""Least percent of rounds, or of tickets, that must not match, so that "only if" can be judged."""

CONTROLS: dict[str, tuple[str, dict[str, float]]] = {
    "trained": trained(),
    "imp_beats_random": (
        "IMP's tickets beat random masks on the same weights (mean over compared levels).",
        {"above": 0.0},
    ),
    "some_rounds_do_not_match": (
        f"At least {UNMATCHED:g} % of the searches' rounds are more than {MATCHING:g} point below "
        "the dense net.",
        {"at_least": UNMATCHED},
    ),
    "mask_fails_on_fresh_weights": (
        "IMP's ticket beats its mask on fresh weights.",
        {"above": 0.0},
    ),
}
"""The controls in words, with their bounds."""
SOME_TICKETS = (
    f"At least {UNMATCHED:g} % of the paper's own tickets are more than {MATCHING:g} point below "
    "the dense net."
)
"""The control of lines between the papers' own tickets, in words."""


def metrics(results: Results, params: GeometryParams) -> dict[str, Any]:
    """Return all numbers of the study for metrics.json: intervals by net and overall."""
    every = tables(results)
    judged = judged_rounds(every["rounds"], params)
    return {
        "references": references(every, params),
        "controls": controls(every, judged, params),
        "rounds": round_metrics(judged, params),
        "lines": line_metrics(every["lines"], params),
        "rewinding": rewinding(every["tickets"], params.beds),
        "own": own_numbers(every, params) if params.own_beds else None,
        "transplants": {arm: transplants(every, params, arm) for arm in ARMS},
        "extreme": extreme(every["tickets"], params),
        "reliability": reliability(every["reliability"], params),
    }


def own_numbers(every: Tables, params: GeometryParams) -> dict[str, Any]:
    """Return the numbers of the papers' own beds: rewindings, and lines if the study has them."""
    drawn = own_lines.beds_of(params)
    return {
        "rewinding": rewinding(every["own"], params.own_beds),
        "lines": own_lines.metrics(every["own_lines"], params) if drawn else None,
    }


def references(every: Tables, params: GeometryParams) -> dict[str, Any]:
    """Return the dense nets, which must all have learned, with chance on the test images."""
    tickets, labels = every["tickets"], load(params.data).test.y
    own = {
        f"the dense net on {bed.title}": above_chance(
            accuracy(every["own"], bed.name, "dense", 0.0), load(bed.data).test.y
        )
        for bed in params.own_beds
    }
    return {
        "dense": {
            f"the dense {bed.name}": above_chance(accuracy(tickets, bed.name, "dense", 0.0), labels)
            for bed in params.beds
        },
        "own": own or None,
    }


def own_controls(tickets: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return the positive controls of the papers' own beds."""

    def ahead(bed: OwnBed, level: float) -> BySeed:
        return minus(*(accuracy(tickets, bed.name, arm, level) for arm in ("imp", "random")))

    found: dict[str, Any] = {}
    for bed in params.own_beds:
        dense = tickets[(tickets.net == bed.name) & (tickets.arm == "dense")]
        values = {
            "trained": by_seed(dense, "train_accuracy"),
            "imp_beats_random": over_levels(bed.levels, partial(ahead, bed)),
        }
        found[f"{OWN}{bed.name}"] = {
            name: control(says, values[name], **bound)
            for name, (says, bound) in CONTROLS.items()
            if name in values
        }
    return found


def stored_controls(lines: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return the positive control of the papers' own tickets, by bed."""
    beds = own_lines.beds_of(params)
    judged = own_lines.judged_tickets(lines, params) if beds else lines
    values = {bed.name: own_lines.percent(judged, bed, "unmatched") for bed in beds}
    return {
        f"{STORED}{bed}": {
            "some_tickets_do_not_match": control(SOME_TICKETS, value, at_least=UNMATCHED)
        }
        for bed, value in values.items()
    }


def controls(every: Tables, judged: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return the positive controls of each net, then those of the papers' own beds and tickets."""
    return (
        {
            bed.name: {
                name: control(says, value, **bound)
                for (name, (says, bound)), value in zip(
                    CONTROLS.items(), _controls(every, judged, params, bed), strict=True
                )
            }
            for bed in params.beds
        }
        | own_controls(every["own"], params)
        | stored_controls(every["own_lines"], params)
    )


def _controls(
    every: Tables, judged: pd.DataFrame, params: GeometryParams, bed: Bed
) -> list[BySeed]:
    """Return the value of each control by seed, in the order of CONTROLS."""
    tickets, top = every["tickets"], params.judged(bed)[-1]
    dense = tickets[(tickets.net == bed.name) & (tickets.arm == "dense")]

    def at(arm: str, level: float) -> BySeed:
        return accuracy(tickets, bed.name, arm, level)

    return [
        by_seed(dense, "train_accuracy"),
        over_levels(params.judged(bed), lambda level: minus(at("imp", level), at("random", level))),
        share_of_rounds(judged.assign(no=~judged.matches), bed, LADDERS, "no"),
        minus(at("imp", top), moved(every["transplanted"], bed, "imp", "mask")),
    ]
