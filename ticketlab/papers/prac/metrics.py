"""Numbers of the PrAC study: accuracies, differences paired by seed, costs, sets, controls."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pandas as pd

from ticketlab.data.sets import load
from ticketlab.papers.prac.controls import controls
from ticketlab.papers.prac.params import (
    AGAIN,
    CONTROLS,
    FOLLOWERS,
    LADDERS,
    PARTS,
    PracParams,
    Score,
    VariantName,
    pruned_by,
    with_epsilon,
    with_threshold,
)
from ticketlab.papers.prac.report import (
    ACCURACY,
    Results,
    at,
    classes_table,
    distances_table,
    matches,
    overlaps_table,
    rounds_table,
    scores_table,
    searches,
    sets_table,
)
from ticketlab.study.cost import in_steps
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    across,
    as_count,
    as_metric,
    as_percent,
    by_seed,
    minus,
    percent_saved,
)
from ticketlab.tickets.ticket import round_name

PAIRS = ("dense", "imp", *LADDERS[1:], *FOLLOWERS, *CONTROLS)
"""The arms that PrAC is compared with at every level."""
PUBLISHED_ROUNDS = 16
"""Rounds of the paper's searches: up to 96.48 % sparsity."""
PUBLISHED_CRITERIA = ("snip", "grasp", "synflow")
"""The criteria to which the paper gives PrAC's iterations and numbers of samples."""
EASY_SAVING = 80.0
"""Least percent of IMP's iterations that PrAC saves on CIFAR-10 (prac-S1)."""


def metrics(results: Results, params: PracParams) -> dict[str, Any]:
    """Return all numbers of the study as metrics.json has them."""
    rounds, scores, sets = rounds_table(results), scores_table(results), sets_table(results)
    return {
        "references": references(scores, params),
        "controls": controls(rounds, scores, params),
        "accuracy": accuracies(scores),
        "differences": differences(scores, params),
        "saving": savings(rounds, scores, params),
        "decomposition": decomposition(rounds, scores, params),
        "cost": costs(rounds),
        "sets": set_metrics(sets, classes_table(results), params),
        "mask_distance": distance_metrics(results),
        "ablations": ablations(scores, params),
        "thresholds": thresholds(rounds, scores, params),
        "overlap": overlaps(results, params),
        "transfer": transfers(scores, params),
        "amortised": amortised(rounds, params),
        "noise": noise_metrics(results, scores, params),
    }


# ---------------------------------------------------------------- references


def references(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return the dense nets that must have learned, with chance on the test images."""
    labels = load(params.data).test.y
    names = {"main": "the dense net"}
    names |= {other.name: f"the dense net {other.name}" for other in params.others}
    dense = {
        place: {name: above_chance(at(scores, "dense", 0, place), labels)}
        for place, name in names.items()
    }
    others = {name: found for arms in dense.values() for name, found in arms.items()}
    return {"dense": dense["main"], "others": others if params.others else None}


# ---------------------------------------------------------------- accuracies


def accuracies(scores: pd.DataFrame) -> dict[str, Any]:
    """Return the interval of the test accuracy by place, arm and round."""
    found: dict[str, Any] = {}
    for key, rows in scores.groupby(["place", "arm", "round"]):
        place, arm, level = key
        value = as_metric(by_seed(rows, ACCURACY))
        found.setdefault(str(place), {}).setdefault(str(arm), {})[f"round-{level:02d}"] = value
    return found


def differences(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return PrAC minus each other arm at the first and last level, and on average over levels."""
    return {f"prac_minus_{_key(arm)}": gain(scores, "prac", arm, params.levels) for arm in PAIRS}


def gain(scores: pd.DataFrame, arm: str, base: str, levels: Sequence[int]) -> dict[str, Any]:
    """Return an arm's gain over another at the first level, the last one, those between, and on
    average.
    """
    chosen = sorted(set(levels))
    by_level = {k: minus(at(scores, arm, k), at(scores, base, k)) for k in chosen}
    ends = {"first_level": by_level[chosen[0]], "last_level": by_level[chosen[-1]]}
    between = {round_name(k): by_level[k] for k in chosen[1:-1]}
    cases = ends | between | {"mean": across(by_level.values())}
    return {name: as_metric(by) for name, by in cases.items()}


def ablations(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return PrAC minus sets chosen by other scores, other criteria, and PrAC's parts.

    Null for whatever a study omits.
    """
    arms = {*PARTS[:1], *get_args(Score), *map(pruned_by, (*PUBLISHED_CRITERIA, *params.criteria))}
    levels = params.ablation_levels
    found = {f"prac_minus_{_key(arm)}": gain(scores, "prac", arm, levels) for arm in sorted(arms)}
    return found | {f"{_key(AGAIN)}_minus_imp": _again(scores, params)}


def _again(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Compare IMP with IMP in another data order: an arm with itself."""
    levels = [level for level in params.levels if level <= params.again_rounds]
    return gain(scores, AGAIN, "imp", levels or params.levels)


def thresholds(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return PrAC minus PrAC with the highest E_F: first sets in percent of the data, accuracy."""
    highest = with_threshold(max(params.thresholds, default=0))
    first = rounds[(rounds.place == "main") & (rounds["round"] == 1)]
    share = 100 / float(first[first.arm == "imp"].samples.iloc[0])
    own, fewer = (by_seed(first[first.arm == arm], "set_samples") for arm in ("prac", highest))
    return {
        "set_share": as_metric({seed: share * n for seed, n in minus(own, fewer).items()}),
        "accuracy": gain(scores, "prac", highest, params.ablation_levels)["mean"],
    }


# ---------------------------------------------------------------- costs


def savings(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return iterations saved against IMP in percent after the last round, by arm, and differences.

    `matched_level` is the last of the levels at which PrAC matches IMP by the paper's rule.
    """
    last = rounds[(rounds.place == "main") & (rounds["round"] == params.rounds)]
    own = {str(arm): by_seed(rows, "saving") for arm, rows in last.groupby("arm")}
    named = {_key(arm): None for arm in (*PARTS, *(f"prac-{v}" for v in get_args(VariantName)))}
    found: dict[str, Any] = named | {_key(a): as_metric(by) for a, by in own.items() if a != "imp"}
    less = {seed: EASY_SAVING - value for seed, value in own["prac"].items()}
    lower = with_epsilon(min(params.epsilons, default=0.0))
    level = max((k for k in params.levels if matches(scores, k)), default=None)
    at_level = rounds[(rounds.place == "main") & (rounds.arm == "prac")]
    where = by_seed(at_level[at_level["round"] == level], "saving")
    return found | {
        "prac_minus_imp_early_stop": as_metric(minus(own["prac"], own.get("imp-early-stop", {}))),
        "prac_minus_lowest_epsilon": as_metric(minus(own["prac"], own.get(lower, {}))),
        "short_of_80_on_a_hard_task": as_metric(less) if _is_hard(params) else None,
        "matched_level": level,
        "where_matched": as_metric(where),
    }


def decomposition(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return what each step from IMP to PrAC saves of IMP's iterations, and its accuracy in points.

    data: fewer samples, same number of epochs. schedule: fewer epochs too (the code's quadratic
    rule). early_stop: rounds end when the mask has settled. Then the last two without PrAC's data:
    early stopping on all samples, and the whole schedule compressed into PrAC's iterations.
    """
    before = "prac-linear" if params.shorten == "iterations" else "prac-quadratic"
    steps = {
        "data": ("prac-linear", "imp"),
        "schedule": ("prac-quadratic", "prac-linear"),
        "early_stop": ("prac", before),
        "early_stop_alone": ("imp-early-stop", "imp"),
        "schedule_alone": ("short-imp", "imp"),
    }
    last = rounds[(rounds.place == "main") & (rounds["round"] == params.rounds)]
    saved = {a: by_seed(last[last.arm == a], "saving") for pair in steps.values() for a in pair}
    return {
        name: {
            "saving": as_metric(minus(saved[arm], saved[base])),
            "accuracy": gain(scores, arm, base, params.ablation_levels)["mean"],
        }
        for name, (arm, base) in steps.items()
    }


def costs(rounds: pd.DataFrame) -> dict[str, Any]:
    """Return the full cost of a search in trainings of IMP, counting a forward pass as a third.

    A forward pass of a pruning criterion counts as a training pass, since it may take gradients.

    `saving_in_all` is the saving against as many rounds of IMP that remains after adding the one
    training that the ticket needs afterwards. The random-subset and short-IMP controls take their
    sizes from PrAC's own search, so its cost is added to theirs.
    """
    main = rounds[rounds.place == "main"]
    one = main[(main.arm == "imp") & (main["round"] == 1)]
    training = float(one.images.iloc[0])
    total = main.groupby(["arm", "seed"])[["images", "forward_images"]].sum() / training
    total["all"] = in_steps(total["images"], total["forward_images"]) + 1
    arms = {str(arm): rows for arm, rows in total.reset_index().groupby("arm")}
    imp = by_seed(arms["imp"], "all")
    return {
        _key(arm): {
            "training": as_metric(by_seed(own, "images")),
            "forward": as_metric(by_seed(own, "forward_images")),
            "saving_in_all": as_metric(percent_saved(by_seed(own, "all"), imp)),
        }
        for arm, own in arms.items()
        if arm != AGAIN
    }


# ---------------------------------------------------------------- sets and masks


def set_metrics(sets: pd.DataFrame, classes: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return sizes of PrAC's sets in percent of the data, their rebound, and CEP's share in CET.

    `rarest_class` is the number of its samples in percent of the most frequent class, last set.
    `left_out` is None for studies of fewer rounds than were published.
    """
    own = sets[sets.place == "main"]
    share = own.pivot(index="seed", columns="round", values="share")
    late = own[own["round"] > 1].groupby("seed").overlap.mean()
    second = own[own["round"] == 2]
    last = share[share.columns[-1]]
    published = share.get(PUBLISHED_ROUNDS)
    return {
        "first_share": as_percent(share[1].to_dict()),
        "smallest_share": as_percent(share.min(axis=1).to_dict()),
        "last_share": as_percent(last.to_dict()),
        "left_out": None if published is None else as_percent((100 - published).to_dict()),
        "shrinkage": as_metric((share[1] - share.min(axis=1)).to_dict()),
        "rebound": as_metric((last - share.min(axis=1)).to_dict()),
        "overlap": as_percent(late.dropna().to_dict()),
        "overlap_in_round_2": as_percent(by_seed(second.dropna(subset="overlap"), "overlap")),
        "rarest_class": as_percent(_balance(classes)),
        "last_share_of_a_hard_task": as_percent(last.to_dict()) if _is_hard(params) else None,
    }


def _balance(classes: pd.DataFrame) -> BySeed:
    """Return the rarest class of the last set in percent of the most frequent one, by seed."""
    last = classes[classes["round"] == classes["round"].max()]
    share = last.groupby("seed").share
    balance = 100 * share.min() / share.max()
    return {int(str(seed)): float(value) for seed, value in balance.items()}


def _is_hard(params: PracParams) -> bool:
    return params.data.name == "cifar100"


def distance_metrics(results: Results) -> dict[str, Any]:
    """Return dense rounds: IMP's mask distance around the first rate decay, PrAC's early stop."""
    table = distances_table(results, ("imp", "prac"))
    dense = table[(table.arm == "imp") & (table["round"] == 1)]
    before = (
        dense[dense.epoch <= dense["drop"]].groupby("seed").distance.apply(lambda d: d[-3:].mean())
    )
    after = dense[dense.epoch >= dense["drop"] + 1].groupby("seed").distance.first()
    ratio = (before / after.clip(lower=1e-6)).dropna()
    own = table[(table.arm == "prac") & (table["round"] == 1)]
    past = own.groupby("seed").epoch.max() - own.groupby("seed")["drop"].first()
    cases = {"before_drop": before, "after_drop": after, "fall": ratio}
    found = {name: as_metric(values.to_dict()) for name, values in cases.items()}
    return found | {"stop_after_drop": as_count(past.to_dict())}


def overlaps(results: Results, params: PracParams) -> dict[str, Any]:
    """Return the IoU with IMP's mask of the same seed after `again_rounds`, in percent, by arm.

    `imp_again` is IMP with another data order: the similarity of two masks of the same method.
    """
    arms = ("prac", "random", "short-imp", AGAIN)
    table = overlaps_table(results, params.again_rounds) if params.again_rounds else None
    if table is None:
        return {**{_key(arm): None for arm in arms}, "chance": None, "prac_minus_imp_again": None}
    iou = {arm: _in_percent(by_seed(table[table.arm == arm], "iou")) for arm in arms}
    chance = _in_percent(by_seed(table[table.arm == "prac"], "chance"))
    return {
        **{_key(arm): as_percent(by) for arm, by in iou.items()},
        "chance": as_percent(chance),
        "prac_minus_imp_again": as_metric(minus(iou["prac"], iou[AGAIN])),
    }


def _in_percent(by: BySeed) -> BySeed:
    return {seed: 100 * value for seed, value in by.items()}


# ---------------------------------------------------------------- other nets, flipped labels


def transfers(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return carried or random sets minus native ones on the other nets, at their last level."""
    found: dict[str, Any] = {}
    pooled: dict[str, list[BySeed]] = {}
    for other in params.others:
        level = max(other.levels)
        native = at(scores, "prac", level, other.name)
        pairs = {
            "sequence_minus_native": ("transfer-sequence", native),
            "final_minus_native": ("transfer-final", native),
            "random_minus_native": ("random", native),
            "native_minus_imp": ("prac", at(scores, "imp", level, other.name)),
        }
        each = {n: minus(at(scores, arm, level, other.name), b) for n, (arm, b) in pairs.items()}
        found[other.name] = {name: as_metric(by) for name, by in each.items()}
        for name, by in each.items():
            pooled.setdefault(name, []).append(by)
    names = ("sequence_minus_native", "final_minus_native", "native_minus_imp")
    return found | {name: as_metric(across(pooled.get(name, []))) for name in names}


def amortised(rounds: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Return iterations saved against IMP on the other nets in percent, with the main net's sets.

    "native" searches on each net. Carried sets cost their training there ("final" also the rewind
    point, through which its rounds do not pass), and the search that made them is paid once:
    `over_1`, `over_10` divide it among this many nets.
    """
    top = rounds.groupby(["place", "arm", "seed"])["round"].transform("max")
    last = rounds[rounds["round"] == top]
    total = last.set_index(["place", "arm", "seed"]).total_iterations.to_dict()
    found: dict[str, dict[str, Any]] = {}
    for arm in ("prac", "transfer-sequence", "transfer-final"):
        cases = {"own": 0.0} if arm == "prac" else {"own": 0.0, "over_1": 1.0, "over_10": 0.1}
        own = {name: _amortised(total, params, arm, paid) for name, paid in cases.items()}
        label = "native" if arm == "prac" else arm.removeprefix("transfer-")
        found[label] = {name: as_metric(by) for name, by in own.items()}
    return found


def _amortised(total: Mapping[Any, float], params: PracParams, arm: str, paid: float) -> BySeed:
    """Return percent saved by seed if each net pays the share `paid` of the main net's search."""
    names, found = [other.name for other in params.others], {}
    for seed in params.seeds:
        if names and all((name, arm, seed) in total for name in names):
            source = paid * len(names) * total["main", "prac", seed]
            spent = source + sum(total[name, arm, seed] for name in names)
            found[seed] = 100 * (1 - spent / sum(total[name, "imp", seed] for name in names))
    return found


def noise_metrics(
    results: Results, scores: pd.DataFrame, params: PracParams
) -> dict[str, Any] | None:
    """Return how many flipped labels are in PrAC's last set, and their effect on the ticket."""
    if not params.label_noise:
        return None
    kept, enriched, never = {}, {}, {}
    for (place, arm, seed), result in searches(results):
        if (place, arm) != ("noise", "prac"):
            continue
        rounds = result.record["rounds"]
        images, turn = rounds[0]["samples"], rounds[-1]
        flipped = round(params.label_noise * images)
        kept[seed] = 100 * turn["flipped"] / flipped
        enriched[seed] = turn["flipped"] / turn["union"] / params.label_noise
        never[seed] = 100 * turn["flipped_never"] / max(1, turn["never"])
    level = params.noise_rounds
    own = at(scores, "prac", level, "noise")
    clean = at(scores, "imp", level), at(scores, "imp", level, "noise")
    return {
        "flipped_in_set": as_percent(kept),
        "enrichment": as_metric(enriched),
        "flipped_of_never_learned": as_percent(never),
        "prac_minus_imp": as_metric(minus(own, at(scores, "imp", level, "noise"))),
        "prac_minus_random": as_metric(minus(own, at(scores, "random", level, "noise"))),
        "imp_noisy_minus_clean": as_metric(minus(clean[1], clean[0])),
    }


def _key(arm: str) -> str:
    return arm.replace("-", "_")
