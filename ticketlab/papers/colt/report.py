"""Tables and metrics of the COLT study."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ticketlab.data.sets import DataSet
from ticketlab.labels import label
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import (
    HALF,
    LATE,
    MATCHED,
    SEARCHED,
    ColtParams,
    Control,
    arm_name,
)
from ticketlab.pruning.masks import after_pruning
from ticketlab.study import images, regime, tables
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Interval,
    by_seed,
    interval,
    minus,
    over_levels,
)
from ticketlab.study.tables import LABELS, Accuracy
from ticketlab.tickets.ticket import round_name

Results = Mapping[str, Result]
Levels = Sequence[float]

ACCURACY: Accuracy = "last_accuracy"
"""The accuracy used in this study's tables, differences and claims."""
WHOLE = "mask and weights"
"""What a transferred ticket carries, unless it is only its mask."""
RELEASED_RATE, RELEASED_IMP_RATE = 0.15, 0.2
"""What a copy of COLT and IMP prune per round in the authors' code."""

# ---------------------------------------------------------------- tables of a rewinding point


def at_point(results: Results, late: bool = False) -> dict[str, Result]:
    """Return the units of the paper's rewinding point, or of the late one under the same names."""
    return {
        name.removeprefix(LATE): result
        for name, result in results.items()
        if name.startswith(LATE) == late
    }


def over_points(
    results: Results, params: ColtParams, table: Callable[[Results], pd.DataFrame]
) -> pd.DataFrame:
    """Return a table for all rewinding points of the study, with the point in column `rewind`."""
    parts = [(str(p.rewind), table(at_point(results, p.late))) for p in params.points]
    return pd.concat([part.assign(rewind=at) for at, part in parts], ignore_index=True)


def rounds_table(results: Results) -> pd.DataFrame:
    """Return one row per search round: arm, seed, round, sparsity, rate, agreement, costs, etc."""
    return rounds_of(results, "search/").drop(columns=["layers", "collapsed"])


def scores_table(results: Results) -> pd.DataFrame:
    """Return one row per retrained ticket: arm, seed, round, sparsity, accuracies in %, cost.

    `search_images` are the images seen to find the ticket. For newly drawn weights, and for masks
    made of rewound weights, these are the images up to the rewinding point. Training the ticket
    takes one more training.
    """
    frame = rounds_of(results, "search/imp", "score/")
    frame = frame.drop(columns=["layers", "collapsed"])
    cost = rounds_table(results).set_index(["arm", "seed", "round"]).search_images
    source = frame.pop("source").fillna(frame.arm)
    how, own = frame.pop("control"), frame.pop("rewind_images")
    found = pd.Series([cost[k] for k in zip(source, frame.seed, frame["round"], strict=True)])
    searched = found.where(how.isna() | how.isin(SEARCHED), 0)
    anew = own.where(how.notna() & (how != "shuffled"), 0)
    frame["search_images"] = (searched + anew).astype(int)
    other = [c for c in map(str, frame) if c.startswith("search_") and c != "search_images"]
    return frame.drop(columns=[*other, "rate", "agreement"], errors="ignore")


def transfer_table(results: Results, what: str = "transfer") -> pd.DataFrame:
    """Return one row per transferred ticket: arm, carried, seed, round, sparsity, accuracies."""
    frame = rounds_of(results, f"{what}/")
    return frame.drop(columns=["layers", "collapsed"], errors="ignore")


def layers_table(results: Results) -> pd.DataFrame:
    """Return one row per layer and search round: arm, seed, round, sparsity, layer, density."""
    columns = ["arm", "seed", "round", "sparsity"]
    return tables.layers_table(rounds_of(results, "search/"), columns)


def rounds_of(results: Results, *prefixes: str) -> pd.DataFrame:
    """Return one row per round of the units whose name starts with one of the prefixes."""
    head = ("arm", "carried", "source", "control", "rewind_images", "seed")
    return tables.rows_of(results, "rounds", *prefixes, head=head)


# ---------------------------------------------------------------- rounds


def rounds_to_target(rounds: pd.DataFrame, arm: str, target: float) -> dict[int, float]:
    """Return each seed's first round at `target` sparsity, without seeds that did not reach it."""
    reached = rounds[(rounds.arm == arm) & (rounds.sparsity >= target)]
    first = reached.groupby("seed")["round"].min().reset_index()
    return by_seed(first, "round")


def prediction_table(rounds: pd.DataFrame, params: ColtParams) -> pd.DataFrame:
    """Compare rounds predicted from the first round's u = 2r / (1 + J) with the rounds taken."""
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
    """Return each seed's row of `arm` nearest to the level in remaining weights, by ratio."""
    rows = frame[frame.arm == arm]
    distance = np.abs(np.log((1 - rows.sparsity) / (1 - level)))
    chosen: pd.DataFrame = rows.loc[distance.groupby(rows.seed).idxmin()]
    return chosen


def dense(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the row of each seed's dense net, from which every search starts."""
    return scores[scores["round"] == 0].drop_duplicates("seed")


def interpolated(
    frame: pd.DataFrame, arm: str, at: Mapping[int, float], value: str
) -> dict[int, float]:
    """Return the arm's `value` at a sparsity for each seed that has the arm.

    Linear in log density between the dense net and the arm's tickets; constant beyond the last.
    """
    found, begin = {}, dense(frame)
    for seed, sparsity in at.items():
        rows = frame[(frame.arm == arm) & (frame.seed == seed)]
        if rows.empty:
            continue
        rows = pd.concat([begin[begin.seed == seed], rows[rows["round"] > 0]])
        rows = rows.sort_values("sparsity")
        places = -np.log(1 - rows.sparsity.to_numpy())
        found[seed] = float(np.interp(-np.log(1 - sparsity), places, rows[value].to_numpy()))
    return found


def difference(scores: pd.DataFrame, arm: str, other: str, level: float) -> dict[int, float]:
    """Return test accuracy of `arm` minus `other` at the arm's ticket nearest to `level`, by seed.

    `other` is evaluated at the same sparsity: at its own ticket if it has one there, otherwise
    interpolated. "dense" is the unpruned net.
    """
    rows = nearest(scores, arm, level)
    own, at = by_seed(rows, ACCURACY), by_seed(rows, "sparsity")
    if other == "dense":
        return minus(own, by_seed(dense(scores), ACCURACY))
    return minus(own, interpolated(scores, other, at, ACCURACY))


def pairs(params: ColtParams, late: bool = False) -> dict[str, tuple[str, str]]:
    """Return the differences of a rewinding point by name, each as a pair of arms."""
    main, random = (variant.name for variant in params.main)
    arms = {"colt": main, "colt_random": random, "imp_matched": MATCHED}
    found = {"colt_minus_dense": (main, "dense"), "colt_minus_imp": (main, "imp")}
    found |= {f"{a}_minus_imp_matched": (arms[a], MATCHED) for a in ("colt", "colt_random")}
    found |= {
        f"{short}_minus_{how}": (arm, arm_name(arm, how))
        for short, arm in arms.items()
        for how in SEARCHED
    }
    found |= {"imp_matched_minus_random": (MATCHED, "random")}
    found |= {"colt_random_minus_colt": (random, main)}
    if late:
        return found | {"magnitude_minus_colt": ("magnitude", main)}
    found |= {"colt_minus_imp_half": (main, HALF)}
    found |= {"more_partitions_minus_colt": (more_partitions(params), main)}
    return found | {"layerwise_minus_colt": (f"{main}-layerwise", main)}


def difference_metrics(
    scores: pd.DataFrame, params: ColtParams, late: bool = False
) -> dict[str, Any]:
    """Return every difference of a rewinding point at each level, and its mean over levels."""
    return {
        name: over_levels({level: difference(scores, *pair, level) for level in params.levels})
        for name, pair in pairs(params, late).items()
    }


def moved_differences(
    frame: pd.DataFrame, arm: str, other: str, levels: Levels, without: str = WHOLE
) -> dict[float, BySeed]:
    """Return an arm's minus another's accuracy on other data, each at its nearest to a level.

    The first arm transfers mask and weights; so does the other, unless `without` says otherwise.
    "dense" is the unpruned net.
    """
    own, theirs = frame[frame.carried == WHOLE], frame[frame.carried == without]
    whole = by_seed(frame[frame.arm == "dense"], ACCURACY)
    return {
        level: minus(
            by_seed(nearest(own, arm, level), ACCURACY),
            whole if other == "dense" else by_seed(nearest(theirs, other, level), ACCURACY),
        )
        for level in levels
    }


def more_partitions(params: ColtParams) -> str:
    """Return the first ablation with more segments than COLT, '' if there is none."""
    more = [v for v in params.ablations if v.partitions > params.partitions]
    return next((v.name for v in more if not v.votes and not v.layerwise), "")


# ---------------------------------------------------------------- the page


def differences_table(
    numbers: Mapping[str, Any], scores: pd.DataFrame, params: ColtParams, late: bool = False
) -> pd.DataFrame:
    """Return every paired difference in points at every level: mean, 95 % interval, n, sparsity.

    The sparsity is that of the first arm's tickets nearest to the level, where both are compared.
    """
    arms = {name: arm for name, (arm, _) in pairs(params, late).items()}
    table = tables.differences_table(numbers["differences"])
    for level in params.levels:
        column = tables.heading(f"at_{100 * level:g}")
        own = [arms[name] for name in table.index]
        table[column] += [f" at {sparsities(scores, arm, level)}" for arm in own]
    columns = {tables.heading(f"at_{100 * level:g}"): near(level) for level in params.levels}
    columns |= {"mean": "mean over levels"}
    table = table.rename(columns=columns)
    return table.rename_axis("points, paired by seed, and the tickets' sparsity")


def near(level: float) -> str:
    """Return a level as columns and panels name it: tickets are near it, not at it."""
    return f"nearest to {100 * level:g} %"


def tickets_table(scores: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> pd.DataFrame:
    """Return the real sparsity of each search's tickets, by level, and where the search ends."""
    rows = {}
    for arm in [a for a in ("imp", MATCHED, HALF) if (rounds.arm == a).any()] + [
        variant.name for variant in params.variants if (scores.arm == variant.name).any()
    ]:
        own = rounds[rounds.arm == arm]
        last = own.loc[own.groupby("seed")["round"].idxmax()]
        rows[arm] = {near(level): sparsities(scores, arm, level) for level in params.levels}
        rows[arm] |= {"the search ends at": span(last.sparsity)}
    return pd.DataFrame(rows).T.rename_axis("sparsity of the tickets, over seeds")


PACE = {
    "imp_minus_colt": "rounds of IMP minus rounds of COLT",
    "random_minus_colt": "rounds of COLT on random images minus rounds of COLT",
    "rate": "COLT: fraction removed per round (u), mean over rounds",
    "percent_over_chance": "COLT: u relative to chance (%; below it if negative), mean over rounds",
    "agreement": "COLT: agreement of the copies (J), mean over rounds",
}
"""Row names in the table of COLT's pruning speed, by key in metrics.json."""


def pace_table(rounds: Mapping[str, Mapping[str, Any]], params: ColtParams) -> pd.DataFrame:
    """Return rounds to the target by arm, and COLT's pruning speed, one column per rewinding point.

    `rounds` maps each rewinding point, in words, to its numbers of rounds.
    """
    arms = ("imp", *(variant.name for variant in params.variants))
    said = {arm: f"rounds, {label(arm)}" for arm in arms} | PACE
    columns = {
        words: {text: tables.text(found.get(key)) for key, text in said.items()}
        for words, found in rounds.items()
    }
    return pd.DataFrame(columns).rename_axis(f"to {100 * params.target:g} % sparsity")


def sparsities(frame: pd.DataFrame, arm: str, level: float) -> str:
    """Format the real sparsity of an arm's tickets nearest to a level: one number, or a range."""
    return span(nearest(frame, arm, level).sparsity)


def span(sparsity: pd.Series) -> str:
    """Format sparsities in percent, as one number or from the lowest to the highest."""
    low, high = (f"{100 * value:.1f}" for value in (sparsity.min(), sparsity.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def follow_formula(rounds: pd.DataFrame, params: ColtParams) -> pd.Series:
    """Return whether removed x (1 + J) = 2 x pruned per copy, in weights, by round of two copies.

    This is u = 2r / (1 + J) in whole weights, with r rounded as in pruning.
    """
    two = rounds[rounds.arm.str.endswith("-2of2")]
    before = (two.alive / (1 - two.rate)).round().astype(int)
    pruned = before - before.map(lambda alive: after_pruning(alive, params.rate))
    return ((before - two.alive) * (1 + two.agreement)).round() == 2 * pruned


def of_control(tickets: pd.DataFrame, how: Control) -> pd.DataFrame:
    """Return the rows of a table of tickets that belong to this control, under their source arm."""
    end = f"-{how}"
    own = tickets[tickets.arm.str.endswith(end)]
    return own.assign(arm=own.arm.str.removesuffix(end))


def moved_summary(frame: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """Return accuracy of transferred tickets near each level, by arm and what they carry."""
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for key, own in frame.groupby(["arm", "carried"], sort=False):
        found = {level: nearest(own, own.arm.iloc[0], level) for level in levels}
        rows[key] = {
            near(level): f"{mean_of(at)} at {span(at.sparsity)}" for level, at in found.items()
        }
    return pd.DataFrame(rows).T.rename_axis(["arm", LABELS[ACCURACY]])


def mean_of(rows: pd.DataFrame) -> Interval:
    """Return the interval of the accuracy over the seeds of the rows."""
    return interval(rows[ACCURACY].tolist())


def moved_over_images(results: Results, labels: ArrayLike, params: ColtParams) -> pd.DataFrame:
    """Return COLT's minus IMP's transferred tickets over test images (n,) with these `labels`.

    Near each level: points with their interval over images, and the number of seeds in which
    McNemar's exact test finds a difference between the two nets.
    """
    moved = {name: r for name, r in results.items() if name.startswith("transfer/")}
    frame, right = transfer_table(moved), images.hits(moved, labels)
    frame = frame[frame.carried == WHOLE]
    rows = {}
    for level in params.transfer.levels:
        ours, theirs = (
            {
                seed: right[f"transfer/{arm}-weights", round_name(int(turn))][seed]
                for seed, turn in by_seed(nearest(frame, arm, level), "round").items()
            }
            for arm in (params.main[0].name, "imp")
        )
        apart = sum(images.mcnemar(ours[seed], theirs[seed]) <= 0.05 for seed in ours)
        rows[near(level)] = {
            "points over images": images.over_images(ours, theirs).text(2),
            "McNemar p <= .05": f"{apart} of {len(ours)} seeds",
        }
    return pd.DataFrame(rows).T.rename_axis("COLT minus IMP, moved")


def moved_with_source(moved: pd.DataFrame, rounds: pd.DataFrame) -> pd.Series:
    """Return whether each transferred ticket has as many weights left as its source."""
    source = moved.arm.str.removesuffix("-shuffled").replace("dense", "imp")
    left = rounds.set_index(["arm", "seed", "round"]).alive
    keys = zip(source, moved.seed, moved["round"], strict=True)
    return moved.alive == [left[key] for key in keys]


def this_study(params: ColtParams, data: DataSet) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
    arms = ", ".join(label(variant.name) for variant in params.variants)
    points = " and ".join(regime.rewinding(point.rewind) for point in params.points)
    return {
        "net": regime.net(params.model, "conv", data),
        "images": regime.images(params.data, data),
        "one training": regime.schedule(params.recipe, len(data.train)),
        "copies": f"{params.partitions}, each with {data.classes // params.partitions} classes",
        "pruned per round": f"{100 * params.rate:.3g} % by each copy "
        f"(authors' code: {100 * RELEASED_RATE:g} %), "
        f"{100 * params.imp_rate:.3g} % by IMP (there: {100 * RELEASED_IMP_RATE:g} %)",
        "a search ends": f"at {100 * params.target:g} % sparsity or more, "
        f"or after {params.max_rounds} rounds",
        "rewinding to": points,
        "pruned by the weights of": "the last epoch"
        if params.prune_from == "last"
        else "the epoch that is best on validation",
        "searches": arms,
        "seeds": regime.seeds(params.seeds),
    }


def family_table(scores: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> pd.DataFrame:
    """Return the `k of P` family: rounds, mean rate, where it ends; and its last retrained ticket.

    That is the one nearest to the highest level, which the search may go beyond.
    """
    names = [variant.name for variant in params.variants]
    last = scores.sort_values("round").groupby(["arm", "seed"]).tail(1)
    rows = {}
    for name in names:
        own, mine = last[last.arm == name], rounds[rounds.arm == name]
        rows[name] = {
            "rounds": mine.groupby("seed")["round"].max().mean(),
            "mean u": mine.rate.mean(),
            "the search ends at (sparsity)": mine.groupby("seed").sparsity.max().mean(),
            "last ticket retrained, sparsity": own.sparsity.mean(),
            f"last ticket retrained, {LABELS[ACCURACY]}": own[ACCURACY].mean(),
            "n": len(own),
        }
    return pd.DataFrame(rows).T
