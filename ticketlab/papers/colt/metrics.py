"""Numbers of the COLT study for metrics.json: controls, intervals, differences, rounds."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ticketlab.data.sets import load
from ticketlab.papers.colt.params import MATCHED, SEARCHED, ColtParams, arm_name
from ticketlab.papers.colt.report import (
    ACCURACY,
    Levels,
    Results,
    at_point,
    dense,
    difference,
    difference_metrics,
    moved_differences,
    nearest,
    rounds_of,
    rounds_table,
    rounds_to_target,
    scores_table,
    transfer_table,
)
from ticketlab.study.controls import TRAINED, control
from ticketlab.study.stats import (
    above_chance,
    across,
    as_count,
    as_metric,
    by_seed,
    each_seed,
    minus,
    over_levels,
)

EXTREME = 0.99
"""The sparsity beyond which the paper's searches end (H7)."""
LIGHTLY = 1
"""A round of matched IMP that has pruned only a little."""


def metrics(results: Results, params: ColtParams) -> dict[str, Any]:
    """Return all numbers of the study for metrics.json: controls, intervals, differences, rounds.

    Those of the late rewinding point are under `late`, which is null if the study has none.
    """
    own, late = at_point(results), at_point(results, late=True)
    moved = {what: transfer_table(own, what) for what in ("transfer", "resized")}
    return {
        "references": references(own, late, moved, params),
        "controls": controls(own, late, moved, params),
        **point_metrics(own, params),
        "late": point_metrics(late, params, late=True) if late else None,
        **{what: transfer_metrics(frame, params, what) for what, frame in moved.items()},
        "elsewhere": {"imagenet_and_detection": None},
    }


def point_metrics(results: Results, params: ColtParams, late: bool = False) -> dict[str, Any]:
    """Return the numbers of one rewinding point."""
    rounds, scores = rounds_table(results), scores_table(results)
    return {
        "accuracy": accuracies(scores, params),
        "differences": difference_metrics(scores, params, late),
        "rounds": round_metrics(rounds, params),
        "collapsed_layers": collapsed(results),
    }


def references(
    own: Results, late: Results, moved: Mapping[str, pd.DataFrame], params: ColtParams
) -> dict[str, Any]:
    """Return the dense nets that must have learned, with chance on their test images."""
    found: dict[str, Any] = {"dense": None, "late": None, "transfer": None, "resized": None}
    labels = load(params.data).test.y
    for name, results in (("dense", own), ("late", late)):
        if results:
            accuracy = by_seed(dense(scores_table(results)), ACCURACY)
            found[name] = {"the dense net": above_chance(accuracy, labels)}
    for name, frame in moved.items():
        target = getattr(params, name)
        if len(frame):
            accuracy = by_seed(frame[frame.arm == "dense"], ACCURACY)
            beside = above_chance(accuracy, load(target.data).test.y)
            found[name] = {"the dense net, moved": beside}
    return found


def controls(
    own: Results, late: Results, moved: Mapping[str, pd.DataFrame], params: ColtParams
) -> dict[str, Any]:
    """Return by bed and name what must hold on a bed before claims can be judged on it."""
    return {
        "main": bed_controls(scores_table(own), params),
        "late": bed_controls(scores_table(late), params) if late else None,
        **{what: moved_controls(f, levels_of(params, what)) for what, f in moved.items()},
    }


def bed_controls(scores: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Return the positive controls of a rewinding point; IMP here means matched IMP."""
    whole, matched = dense(scores), scores[scores.arm == MATCHED]
    light = by_seed(matched[matched["round"] == LIGHTLY], ACCURACY)
    beats = {
        how: across(difference(scores, MATCHED, arm, level) for level in params.levels)
        for how, arm in (("random", "random"), *((h, arm_name(MATCHED, h)) for h in SEARCHED))
    }
    return {
        "trained": control(
            "the dense net has learned its training images (accuracy on them, percent)",
            by_seed(whole, "train_accuracy"),
            at_least=TRAINED,
        ),
        "pruning_does_not_help": control(
            "IMP's first round does not improve on the dense net (dense minus ticket, points)",
            minus(by_seed(whole, ACCURACY), light),
            at_least=-1.0,
        ),
        "imp_beats_random": control(
            "IMP at COLT's pace beats random masks of its sparsity", beats["random"], above=0.0
        ),
        "imp_beats_shuffled": control(
            "IMP at COLT's pace beats its masks shuffled within layers",
            beats["shuffled"],
            above=0.0,
        ),
        "imp_beats_reinit": control(
            "IMP at COLT's pace beats its masks on fresh initial weights",
            beats["reinit"],
            above=0.0,
        ),
    }


def moved_controls(frame: pd.DataFrame, levels: Levels) -> dict[str, Any] | None:
    """Return the positive controls of tickets on other data; null if none were transferred."""
    if frame.empty:
        return None
    whole = frame[frame.arm == "dense"]
    return {
        "trained": control(
            "the dense net has learned the other training images (accuracy on them, percent)",
            by_seed(whole, "train_accuracy"),
            at_least=TRAINED,
        ),
        "imp_beats_shuffled": control(
            "moved IMP tickets beat their masks shuffled within layers",
            across(moved_differences(frame, "imp", "imp-shuffled", levels).values()),
            above=0.0,
        ),
    }


def accuracies(scores: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Return the interval of each arm's test accuracy at each level (its nearest ticket)."""
    found: dict[str, Any] = {"dense": as_metric(by_seed(dense(scores), ACCURACY))}
    for arm in sorted(set(scores.arm)):
        rows = {f"at_{100 * level:g}": nearest(scores, arm, level) for level in params.levels}
        found[arm] = {key: as_metric(by_seed(own, ACCURACY)) for key, own in rows.items()}
    return found


def round_metrics(rounds: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Return rounds to the target by arm, rounds saved, and COLT's pruning rate against chance."""
    main, random = (variant.name for variant in params.main)
    counts = {arm: rounds_to_target(rounds, arm, params.target) for arm in sorted(set(rounds.arm))}
    found: dict[str, Any] = {arm: as_count(by) for arm, by in counts.items()}
    for short, arm in (("imp", "imp"), ("random", random)):
        found[f"{short}_minus_colt"] = as_count(minus(counts.get(arm, {}), counts[main]))
    mine = rounds[rounds.arm == main]
    reached = 100 * mine.groupby("seed").sparsity.max()
    found["sparsity_reached"] = as_metric(reached.to_dict()) if params.target >= EXTREME else None
    over = mine.assign(over_chance=100 * (mine.rate / mine.chance_rate - 1))
    found["percent_over_chance"] = as_metric(each_seed(over, "over_chance"))
    return found | {name: as_metric(each_seed(mine, name)) for name in ("rate", "agreement")}


def transfer_metrics(frame: pd.DataFrame, params: ColtParams, what: str) -> dict[str, Any] | None:
    """Return differences of tickets on other data, by level and their mean; null if there are none.

    Mask and weights are transferred; `weights_minus_mask` subtracts COLT's masks alone.
    """
    if frame.empty:
        return None
    main, levels = params.main[0].name, levels_of(params, what)
    others = {"imp": "imp", "dense": "dense", "shuffled": arm_name(main, "shuffled")}
    found = {
        f"colt_minus_{short}": over_levels(moved_differences(frame, main, other, levels))
        for short, other in others.items()
    }
    alone = moved_differences(frame, main, main, levels, without="mask only")
    return found | {"weights_minus_mask": over_levels(alone)}


def levels_of(params: ColtParams, what: str) -> Levels:
    """Return the sparsities at which tickets are transferred; empty if the study does not."""
    moving = getattr(params, what)
    return moving.levels if moving else ()


def collapsed(results: Results) -> dict[str, int]:
    """Return, by arm, the search rounds in which some layer had no weight left."""
    frame = rounds_of(results, "search/")
    hits = frame.collapsed.map(bool).groupby(frame.arm).sum()
    return {str(arm): int(count) for arm, count in hits.items()}
