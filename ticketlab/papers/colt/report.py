"""What the COLT study says: tables, differences paired by seed, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import ColtParams
from ticketlab.pruning.masks import after_pruning
from ticketlab.study import regime, tables
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    as_count,
    as_metric,
    by_seed,
    each_seed,
    minus,
    over_levels,
    percent_saved,
)
from ticketlab.study.tables import LABELS, Accuracy

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""What tables, differences and claims of this study are about."""
EXTREME = 0.99
"""The sparsity that the paper's searches end beyond (H7)."""


# ---------------------------------------------------------------- tables


def rounds_table(results: Results) -> pd.DataFrame:
    """One row a search round: arm, seed, round, sparsity, rate, agreement, costs, and more."""
    return _rounds(results, "search/").drop(columns=["layers", "collapsed"])


def scores_table(results: Results, params: ColtParams) -> pd.DataFrame:
    """One row a retrained ticket: arm, seed, round, sparsity, accuracies in percent, cost.

    `search_images` are the images seen to find the ticket, and those to the rewinding point of
    re-drawn weights; training the ticket takes one training more.
    """
    frame = _rounds(results, "search/imp", "score/")
    frame = frame.drop(columns=["layers", "collapsed"])
    cost = rounds_table(results).set_index(["arm", "seed", "round"]).search_images
    source = frame.arm.replace(dict.fromkeys(("shuffled", "reinit"), params.main[0].name))
    found = [cost[key] for key in zip(source, frame.seed, frame["round"], strict=True)]
    own = frame.pop("rewind_images").fillna(0).astype(int)  # IMP's rounds have theirs in the search
    frame["search_images"] = found + own.where(frame.arm == "reinit", 0)
    other = [c for c in map(str, frame) if c.startswith("search_") and c != "search_images"]
    return frame.drop(columns=[*other, "rate", "agreement"], errors="ignore")


def transfer_table(results: Results) -> pd.DataFrame:
    """One row a transferred ticket: arm, carried, seed, round, sparsity, accuracies in percent."""
    frame = _rounds(results, "transfer/")
    return frame.drop(columns=["layers", "collapsed"], errors="ignore")


def layers_table(results: Results) -> pd.DataFrame:
    """One row a layer and search round: arm, seed, round, sparsity, layer, density."""
    columns = ["arm", "seed", "round", "sparsity"]
    return tables.layers_table(_rounds(results, "search/"), columns)


def _rounds(results: Results, *prefixes: str) -> pd.DataFrame:
    """One row a round of the units whose name starts with one of the prefixes."""
    head = ("arm", "carried", "rewind_images", "seed")
    return tables.rows_of(results, "rounds", *prefixes, head=head)


# ---------------------------------------------------------------- rounds


def rounds_to_target(rounds: pd.DataFrame, arm: str, target: float) -> dict[int, float]:
    """The first round at which each seed reached `target` sparsity; others are left out."""
    reached = rounds[(rounds.arm == arm) & (rounds.sparsity >= target)]
    first = reached.groupby("seed")["round"].min().reset_index()
    return by_seed(first, "round")


def prediction_table(rounds: pd.DataFrame, params: ColtParams) -> pd.DataFrame:
    """Rounds predicted from the first round's u = 2r / (1 + J), and the rounds it really took."""
    rows = []
    for arm in [variant.name for variant in params.main]:
        first = rounds[(rounds.arm == arm) & (rounds["round"] == 1)]
        actual = rounds_to_target(rounds, arm, params.target)
        for seed, agreement in by_seed(first, "agreement").items():
            rate = algorithm.predicted_rate(params.rate, agreement)
            predicted = algorithm.rounds_to(params.target, rate)
            rows.append((arm, seed, agreement, rate, predicted, actual.get(seed)))
    columns = ["arm", "seed", "J in round 1", "u predicted", "rounds predicted", "rounds taken"]
    return pd.DataFrame(rows, columns=columns)


# ---------------------------------------------------------------- paired differences


def nearest(frame: pd.DataFrame, arm: str, level: float) -> pd.DataFrame:
    """Each seed's row of `arm` whose remaining weights are nearest to the level's, as a ratio."""
    rows = frame[frame.arm == arm]
    distance = np.abs(np.log((1 - rows.sparsity) / (1 - level)))
    chosen: pd.DataFrame = rows.loc[distance.groupby(rows.seed).idxmin()]
    return chosen


def interpolated(
    frame: pd.DataFrame, arm: str, at: Mapping[int, float], value: str
) -> dict[int, float]:
    """The arm's `value` at a sparsity for each seed, linear in log density between its rounds."""
    found = {}
    for seed, sparsity in at.items():
        rows = frame[(frame.arm == arm) & (frame.seed == seed)].sort_values("sparsity")
        places = -np.log(1 - rows.sparsity.to_numpy())
        found[seed] = float(np.interp(-np.log(1 - sparsity), places, rows[value].to_numpy()))
    return found


def difference(scores: pd.DataFrame, arm: str, other: str, level: float) -> dict[int, float]:
    """Test accuracy of `arm` minus `other` at the arm's ticket nearest to `level`, by seed.

    `other` is read at the same sparsity: its own ticket where it has one there, else interpolated.
    "dense" is the unpruned net.
    """
    rows = nearest(scores, arm, level)
    own, at = by_seed(rows, ACCURACY), by_seed(rows, "sparsity")
    if other == "dense":
        at, other = dict.fromkeys(at, 0.0), "imp"
    theirs = interpolated(scores, other, at, ACCURACY)
    return minus(own, theirs)


def kept_up_to(
    scores: pd.DataFrame, main: str, levels: Sequence[float], loss: float = 1.0
) -> tuple[BySeed, BySeed]:
    """The highest sparsity (%) at which COLT, and IMP, are within `loss` points of dense, by seed.

    Looked up at COLT's tickets nearest to the levels, IMP at the same sparsity; 0 if at none.
    """
    own: BySeed = {}
    imp: BySeed = {}
    for level in sorted(levels):
        lost, behind = (difference(scores, main, other, level) for other in ("dense", "imp"))
        for seed, sparsity in by_seed(nearest(scores, main, level), "sparsity").items():
            for kept, value in ((own, lost[seed]), (imp, lost[seed] - behind[seed])):
                kept[seed] = 100 * sparsity if value >= -loss else kept.get(seed, 0.0)
    return own, imp


def kept_metrics(scores: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Up to which sparsity COLT and IMP keep the dense net's accuracy within a point (H1).

    A seed in which neither does, at any level, compares nothing and is left out of the difference.
    """
    own, imp = kept_up_to(scores, params.main[0].name, params.levels)
    apart = {seed: value for seed, value in minus(own, imp).items() if own[seed] or imp[seed]}
    return {"colt": as_count(own), "imp": as_count(imp), "colt_minus_imp": as_count(apart)}


def family_differences(scores: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """COLT minus COLT with more segments, each seed that has both, at equal sparsity (S7)."""
    main, more, found = params.main[0].name, more_partitions(params), {}
    for level in params.levels if more else ():
        apart = difference(scores, more[0], main, level)
        found[level] = {seed: -value for seed, value in apart.items()}
    return {"colt_minus_more_partitions": over_levels(found)}


def more_partitions(params: ColtParams) -> list[str]:
    """The ablations that differ from COLT by having more segments."""
    return [v.name for v in params.ablations if v.partitions > params.partitions and not v.votes]


def transfer_differences(frame: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """COLT's transferred tickets minus the others', mask and weights carried, mean over levels."""
    others = ("imp", "dense", "shuffled")
    if frame.empty:
        return {f"colt_minus_{other}": None for other in others}
    rows, main = frame[frame.carried == "mask and weights"], params.main[0].name
    by_arm = {arm: each_seed(group, ACCURACY) for arm, group in rows.groupby("arm")}
    return {f"colt_minus_{o}": as_metric(minus(by_arm[main], by_arm[o])) for o in others}


# ---------------------------------------------------------------- metrics


def metrics(results: Results, params: ColtParams) -> dict[str, Any]:
    """All numbers of the study for metrics.json: intervals by arm, differences, rounds."""
    rounds, scores = rounds_table(results), scores_table(results, params)
    main, random = (variant.name for variant in params.main)
    others = ("imp", "imp-matched", "shuffled", "reinit", "dense")
    pairs = [*((main, other) for other in others), (random, "imp"), (random, main)]
    differences = {
        f"{_short(a, params)}_minus_{_short(b, params)}": over_levels(
            {level: difference(scores, a, b, level) for level in params.levels}
        )
        for a, b in pairs
    }
    moved = transfer_table(results)
    return {
        "references": references(scores, moved, params),
        "accuracy": accuracies(scores, params),
        "differences": differences,
        "within_a_point": kept_metrics(scores, params),
        "family": family_differences(scores, params),
        "rounds": round_metrics(rounds, params),
        "transfer": transfer_differences(moved, params),
        "elsewhere": {"imagenet_and_detection": None},
        "collapsed_layers": _collapsed(results),
    }


def references(scores: pd.DataFrame, moved: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """The dense nets that must have learned something, beside chance on their test images."""
    dense = scores[(scores.arm == "imp") & (scores["round"] == 0)]
    labels = load(params.data).test.y
    found: dict[str, Any] = {
        "dense": {"the dense net": above_chance(by_seed(dense, ACCURACY), labels)},
        "transfer": None,
    }
    if params.transfer is not None and not moved.empty:
        whole = moved[(moved.arm == "dense") & (moved.carried == "mask and weights")]
        there = above_chance(each_seed(whole, ACCURACY), load(params.transfer.data).test.y)
        found["transfer"] = {"the dense net, moved": there}
    return found


def accuracies(scores: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Interval of each arm's test accuracy at each level (its nearest ticket)."""
    dense = scores[(scores.arm == "imp") & (scores["round"] == 0)]
    found: dict[str, Any] = {"dense": as_metric(by_seed(dense, ACCURACY))}
    for arm in sorted(set(scores.arm)):
        rows = {f"at_{100 * level:g}": nearest(scores, arm, level) for level in params.levels}
        found[arm] = {key: as_metric(by_seed(own, ACCURACY)) for key, own in rows.items()}
    return found


def round_metrics(rounds: pd.DataFrame, params: ColtParams) -> dict[str, Any]:
    """Rounds to the target by arm, how many COLT saves, and how its rate compares with chance."""
    main = params.main[0].name
    counts = {arm: rounds_to_target(rounds, arm, params.target) for arm in sorted(set(rounds.arm))}
    found: dict[str, Any] = {arm: as_count(by) for arm, by in counts.items()}
    fewer = {"imp_minus_colt": (counts["imp"], counts[main])}
    five = more_partitions(params)
    fewer["colt_minus_more_partitions"] = (counts[main], counts[five[0]] if five else {})
    for name, (a, b) in fewer.items():
        found[name] = as_count(minus(a, b))
    found["percent_saved"] = as_count(percent_saved(counts[main], counts["imp"]))
    mine = rounds[rounds.arm == main]
    reached = 100 * mine.groupby("seed").sparsity.max()
    found["sparsity_reached"] = as_metric(reached.to_dict()) if params.target >= EXTREME else None
    return found | {name: as_metric(each_seed(mine, name)) for name in ("rate", "agreement")}


def _short(arm: str, params: ColtParams) -> str:
    names = {params.main[0].name: "colt", params.main[1].name: "colt_random"}
    return names.get(arm, arm).replace("-", "_")


def _collapsed(results: Results) -> dict[str, int]:
    """Search rounds by arm in which some layer had no weight left."""
    frame = _rounds(results, "search/")
    hits = frame.collapsed.map(bool).groupby(frame.arm).sum()
    return {str(arm): int(count) for arm, count in hits.items()}


def differences_table(
    numbers: Mapping[str, Any], scores: pd.DataFrame, params: ColtParams
) -> pd.DataFrame:
    """Every paired difference in points at every level: mean, 95 % t interval, n, real sparsity.

    The sparsity is that of the arm's tickets nearest to the level, where both are compared.
    """
    arms = {_short(arm, params): arm for arm in [variant.name for variant in params.main]}
    table = tables.differences_table(numbers["differences"])
    for level in params.levels:
        column = tables.heading(f"at_{100 * level:g}")
        own = [arms[name.partition("_minus_")[0]] for name in table.index]
        table[column] += [f" at {sparsities(scores, arm, level)}" for arm in own]
    return table.rename_axis("points, paired by seed, and the tickets' sparsity")


def sparsities(frame: pd.DataFrame, arm: str, level: float) -> str:
    """The real sparsity of an arm's tickets nearest to a level: one number, or a range of seeds."""
    return span(nearest(frame, arm, level).sparsity)


def span(sparsity: pd.Series) -> str:
    """Sparsities in percent, as one number or from the lowest to the highest."""
    low, high = (f"{100 * value:.1f}" for value in (sparsity.min(), sparsity.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def follow_formula(rounds: pd.DataFrame, params: ColtParams) -> pd.Series:
    """Whether weights removed x (1 + J) = 2 x weights that a copy prunes, by round of two copies.

    This is u = 2r / (1 + J) in whole weights: r rounded as pruning rounds it.
    """
    two = rounds[rounds.arm.str.endswith("-2of2")]
    before = (two.alive / (1 - two.rate)).round().astype(int)
    pruned = before - before.map(lambda alive: after_pruning(alive, params.rate))
    return ((before - two.alive) * (1 + two.agreement)).round() == 2 * pruned


def moved_with_source(moved: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> pd.Series:
    """Whether each transferred ticket has as many weights left as the ticket that it comes from."""
    source = moved.arm.replace({"shuffled": params.main[0].name, "dense": "imp"})
    left = rounds.set_index(["arm", "seed", "round"]).alive
    keys = zip(source, moved.seed, moved["round"], strict=True)
    return moved.alive == [left[key] for key in keys]


def this_study(params: ColtParams, data: DataSet) -> dict[str, str]:
    """What the fidelity card leaves to the study's parameters."""
    arms = ", ".join(f"{variant.name}" for variant in params.variants)
    return {
        "net": regime.net(params.model, "conv", data),
        "images": regime.images(params.data, data),
        "one training": regime.schedule(params.recipe, len(data.train)),
        "copies": f"{params.partitions}, each with {data.classes // params.partitions} classes",
        "pruned per round": f"{params.rate:.3g} by each copy, {params.imp_rate:.3g} by IMP",
        "a search ends": f"at {params.target:.1%} sparsity or after {params.max_rounds} rounds",
        "rewinding to": regime.rewinding(params.rewind),
        "pruned by the weights of": "the last epoch"
        if params.prune_from == "last"
        else "the epoch that is best on validation",
        "searches": arms,
        "seeds": regime.seeds(params.seeds),
    }


def family_table(scores: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> pd.DataFrame:
    """The `k of P` family: rounds, mean rate, final sparsity and accuracy of the last ticket."""
    names = [variant.name for variant in (*params.main, *params.ablations)]
    last = scores.sort_values("round").groupby(["arm", "seed"]).tail(1)
    rows = {}
    for name in names:
        own, mine = last[last.arm == name], rounds[rounds.arm == name]
        rows[name] = {
            "rounds": mine.groupby("seed")["round"].max().mean(),
            "mean u": mine.rate.mean(),
            "final sparsity": own.sparsity.mean(),
            f"last ticket, {LABELS[ACCURACY]}": own[ACCURACY].mean(),
            "n": len(own),
        }
    return pd.DataFrame(rows).T
