"""Positive controls of the PrAC study: what must hold on a bed before it can judge a claim."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ticketlab.papers.prac.params import PracParams
from ticketlab.papers.prac.report import ACCURACY, at
from ticketlab.study.controls import control, trained
from ticketlab.study.stats import BySeed, across, by_seed, minus

BEDS: dict[str, tuple[str, dict[str, float]]] = {
    "trained": trained(),
    "pruning_does_not_help": (
        "The first round of pruning gains less than a point over the dense net (IMP).",
        {"at_least": -1.0},
    ),
    "imp_beats_random": (
        "IMP's tickets beat random pruning (mean over levels).",
        {"above": 0.0},
    ),
    "imp_beats_shuffled": (
        "IMP's tickets beat their masks shuffled within each layer (mean over levels).",
        {"above": 0.0},
    ),
    "early_stop_fires": (
        "The mask ends half of PrAC's rounds or more (percent of the rounds).",
        {"at_least": 50.0},
    ),
}
"""The controls in words, with their bounds."""


def controls(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return the positive controls of the main net's bed, and those of the other nets together."""
    main = _controls(rounds, scores, "main", params.levels)
    others = [_controls(rounds, scores, other.name, other.levels) for other in params.others]
    beds = {"main": main, "others": {name: across(f[name] for f in others) for name in BEDS}}
    return {
        bed: {name: control(says, found[name], **bound) for name, (says, bound) in BEDS.items()}
        for bed, found in beds.items()
    }


def _controls(
    rounds: pd.DataFrame, scores: pd.DataFrame, place: str, levels: Sequence[int]
) -> dict[str, BySeed]:
    """Return the value of each control by seed."""

    def ahead(other: str) -> BySeed:
        pairs = ((at(scores, arm, level, place) for arm in ("imp", other)) for level in levels)
        return across(minus(imp, own) for imp, own in pairs)

    dense = scores[(scores.place == place) & (scores.arm == "imp") & (scores["round"] == 0)]
    own = rounds[(rounds.place == place) & (rounds.arm == "prac")]
    return {
        "trained": by_seed(dense, "train_accuracy"),
        "pruning_does_not_help": minus(by_seed(dense, ACCURACY), at(scores, "imp", 1, place)),
        "imp_beats_random": ahead("random-pruning"),
        "imp_beats_shuffled": ahead("imp-shuffled"),
        "early_stop_fires": _percent(own.stopped, own.seed),
    }


def _percent(holds: pd.Series, seed: pd.Series) -> BySeed:
    """Return the percent of rows in which something holds, by seed."""
    return {int(str(key)): 100.0 * value for key, value in holds.groupby(seed).mean().items()}
