"""What the PrAC study says: tables, costs, differences paired by seed, metrics."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.prac.params import FOLLOWERS, LADDERS, PracParams, Score, pruned_by
from ticketlab.papers.prac.subsets import IndexFile, save_index, unpack_index
from ticketlab.pruning.masks import chance_jaccard, jaccard
from ticketlab.study import regime
from ticketlab.study.cost import in_steps
from ticketlab.study.results import Result
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
from ticketlab.study.tables import Accuracy
from ticketlab.training.recipe import epoch_steps

Results = Mapping[str, Result]

ACCURACY: Accuracy = "selected_accuracy"
"""What tables, differences and claims of this study are about."""
Row = dict[str, Any]

LONG = ("set", "distances", "train_accuracy", "classes", "forgetting")
"""What a round's record holds beyond single numbers."""
PAIRS = (*LADDERS[1:], *FOLLOWERS, "random-pruning", "reinit")
"""The arms, besides IMP and the dense net, that PrAC is compared with at every level."""
ABOVE_RANDOM = ("imp", "prac", "cet-only", "random")
"""The arms whose masks the paper ranks above random pruning."""
EASY_SAVING = 80.0
"""Percent of IMP's iterations that PrAC saves at least on CIFAR-10 (prac-S1)."""


# ---------------------------------------------------------------- rounds of searches


def rounds_table(results: Results) -> pd.DataFrame:
    """One row a search round: place, arm, seed, what it trained on and what it cost.

    Round r makes the ticket of r prunings: `sparsity` is that ticket's. `total_iterations` are
    spent up to there, training to a rewind point that no round passes through included
    (`rewind_iterations`); `saving` is by how many percent that is less than IMP's (section 4.1).
    """
    rows = []
    for (place, arm, seed), result in searches(results):
        full = results[f"search/{place}/imp/seed-{seed}"].record["rounds"][0]["iterations"]
        spent = 0
        for turn in search_rounds(results, place, arm, seed, result):
            spent += turn["iterations"]
            short = {key: value for key, value in turn.items() if key not in LONG}
            saved = 100 * (1 - spent / (full * turn["round"]))
            head = {"place": place, "arm": arm, "seed": seed, "round": turn["round"]}
            rows.append(head | short | {"total_iterations": spent, "saving": saved})
    return pd.DataFrame(rows)


def searches(results: Results) -> Iterator[tuple[tuple[str, str, int], Result]]:
    """Every search with its place (the net, or "noise"), arm and seed."""
    for name, result in results.items():
        kind, place, arm, _ = name.split("/")
        if kind == "search":
            yield (place, arm, result.record["seed"]), result


def search_rounds(results: Results, place: str, arm: str, seed: int, result: Result) -> list[Row]:
    """The records of a search's rounds, counted alike for all arms.

    Arms that share PrAC's dense round get its record.
    """
    rounds = result.record["rounds"]
    if rounds[0]["round"] == 1:
        return list(rounds)
    first = results[f"search/{place}/prac/seed-{seed}"].record["rounds"][0]
    return [first, *rounds]


def sets_table(results: Results) -> pd.DataFrame:
    """One row a set that PrAC found: its samples by kind, in percent of the training split."""
    rows = []
    for (place, arm, seed), result in searches(results):
        for turn in result.record["rounds"]:
            if arm != "prac":
                continue
            scale, both = 100 / result.record["rounds"][0]["samples"], (turn["overlap"] or 0)
            both *= turn["cep"]
            rows.append(
                {
                    "place": place,
                    "arm": arm,
                    "seed": seed,
                    "round": turn["round"],
                    "trained_sparsity": turn["trained_sparsity"],
                    "samples": turn["set_samples"],
                    "share": scale * turn["set_samples"],
                    "only_cet": scale * (turn["cet"] - both),
                    "both": scale * both,
                    "only_cep": scale * (turn["cep"] - both),
                    "never": scale * turn["never"],
                    "returned": scale * turn["returned"],
                    "overlap": None if turn["overlap"] is None else 100 * turn["overlap"],
                    "cet_outside": turn["cet_outside"],
                }
            )
    return pd.DataFrame(rows)


def classes_table(results: Results) -> pd.DataFrame:
    """One row a class and set of PrAC's main search: its samples, in percent of the set."""
    rows = []
    for (place, arm, seed), result in searches(results):
        for turn in result.record["rounds"] if (place, arm) == ("main", "prac") else ():
            total = sum(turn["classes"])
            rows += [
                {
                    "seed": seed,
                    "round": turn["round"],
                    "class": number,
                    "share": 100 * count / total,
                }
                for number, count in enumerate(turn["classes"])
            ]
    return pd.DataFrame(rows)


def distances_table(results: Results, arms: Sequence[str] = ("prac", "imp")) -> pd.DataFrame:
    """One row an epoch of a main search: its mask distance, and the run's share that was over.

    `drop` is the epoch of the first fall of the learning rate, as far as the round got to it.
    """
    rows = []
    for (place, arm, seed), result in searches(results):
        if place != "main" or arm not in arms:
            continue
        for turn in search_rounds(results, place, arm, seed, result):
            head = {"arm": arm, "seed": seed, "round": turn["round"], "drop": turn["first_drop"]}
            numbers = enumerate(turn["distances"], start=2)
            rows += [head | {"epoch": epoch, "distance": d} for epoch, d in numbers]
    columns = ["arm", "seed", "round", "drop", "epoch", "distance"]
    return pd.DataFrame(rows, columns=columns)  # none in rounds of a single epoch


def forgetting_table(results: Results) -> pd.DataFrame:
    """One row a round of PrAC's main search: its samples by forgetting events, in percent."""
    rows = []
    for (place, arm, seed), result in searches(results):
        for turn in result.record["rounds"] if (place, arm) == ("main", "prac") else ():
            counts = np.array(turn["forgetting"]) * 100 / turn["samples"]
            names = [*map(str, range(len(counts) - 2)), f"{len(counts) - 2}+", "never learned"]
            rows += [
                {"seed": seed, "round": turn["round"], "events": name, "share": share}
                for name, share in zip(names, counts, strict=True)
            ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- tickets


def scores_table(results: Results) -> pd.DataFrame:
    """One row a retrained ticket: place, arm, seed, round, sparsity, accuracies in percent."""
    kept = ("round", "sparsity", "selected_accuracy", "last_accuracy", "validation_accuracy")
    rows = []
    for name, result in results.items():
        _, place, arm, _ = name.split("/")
        head = {"place": place, "arm": arm, "seed": result.record["seed"]}
        scores = result.record.get("scores", ())
        rows += [head | {key: one[key] for key in kept} for one in scores]
    return pd.DataFrame(rows)


def overlaps_table(results: Results, level: int) -> pd.DataFrame:
    """IoU of each arm's mask with IMP's of the same seed after `level` rounds, and by chance."""
    rows, name = [], f"round-{level:02d}"
    for (place, arm, seed), result in searches(results):
        if place != "main" or arm == "imp" or name not in result.tickets:
            continue
        own, imp = result.tickets[name].mask, results[f"search/main/imp/seed-{seed}"].tickets[name]
        chance = chance_jaccard(own.density, imp.mask.density)
        rows.append({"arm": arm, "seed": seed, "iou": jaccard(own, imp.mask), "chance": chance})
    return pd.DataFrame(rows)


def at(scores: pd.DataFrame, arm: str, level: int, place: str = "main") -> BySeed:
    """Test accuracy of an arm's tickets after `level` rounds, by seed; "dense" is IMP's round 0."""
    if arm == "dense":
        arm, level = "imp", 0
    rows = scores[(scores.place == place) & (scores.arm == arm) & (scores["round"] == level)]
    return by_seed(rows, ACCURACY)


def matches(scores: pd.DataFrame, level: int) -> bool:
    """The paper's rule: PrAC's mean lies at most one standard deviation below IMP's."""
    own, imp = (list(at(scores, arm, level).values()) for arm in ("prac", "imp"))
    return bool(np.mean(own) >= np.mean(imp) - (np.std(imp, ddof=1) if len(imp) > 1 else 0.0))


# ---------------------------------------------------------------- metrics


def metrics(results: Results, params: PracParams) -> dict[str, Any]:
    """All numbers of the study for metrics.json: intervals by arm, paired differences, costs."""
    rounds, scores, sets = rounds_table(results), scores_table(results), sets_table(results)
    return {
        "references": references(scores, params),
        "accuracy": accuracies(scores),
        "differences": differences(scores, params),
        "saving": savings(rounds, scores, params),
        "decomposition": decomposition(rounds, scores, params),
        "cost": costs(rounds, params),
        "sets": set_metrics(sets, params),
        "mask_distance": distance_metrics(results, params),
        "ablations": ablations(rounds, scores, params),
        "transfer": transfers(scores, params),
        "amortised": amortised(rounds, params),
        "noise": noise_metrics(results, scores, params),
    }


def references(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """The dense nets that must have learned something, beside chance on the test images."""
    labels = load(params.data).test.y
    names = {"main": "the dense net"}
    names |= {other.name: f"the dense net {other.name}" for other in params.others}
    dense = {
        place: {name: above_chance(at(scores, "dense", 0, place), labels)}
        for place, name in names.items()
    }
    others = {name: found for arms in dense.values() for name, found in arms.items()}
    return {"dense": dense["main"], "others": others if params.others else None}


def accuracies(scores: pd.DataFrame) -> dict[str, Any]:
    """Interval of the test accuracy by place, arm and round."""
    found: dict[str, Any] = {}
    for key, rows in scores.groupby(["place", "arm", "round"]):
        place, arm, level = key
        value = as_metric(by_seed(rows, ACCURACY))
        found.setdefault(str(place), {}).setdefault(str(arm), {})[f"round-{level:02d}"] = value
    return found


def differences(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """PrAC minus each other arm at the first and last level, and its mean over the levels."""
    levels, found = sorted(set(params.levels)), {}
    for other in ("imp", "dense", *PAIRS):
        each = [minus(at(scores, "prac", k), at(scores, other, k)) for k in levels]
        found[f"prac_minus_{_key(other)}"] = _at_ends(each)
    least = [minus(least_of(scores, k), at(scores, "random-pruning", k)) for k in levels]
    return found | {"least_minus_random_pruning": _at_ends(least)}


def _at_ends(each: Sequence[BySeed]) -> dict[str, Any]:
    """A number at each level, as metrics of the first one, the last one, and the mean over all."""
    cases = {"first_level": each[0], "last_level": each[-1], "mean": across(each)}
    return {name: as_metric(by) for name, by in cases.items()}


def least_of(scores: pd.DataFrame, level: int) -> BySeed:
    """The lowest accuracy of ABOVE_RANDOM after `level` rounds, for the seeds that all have."""
    return across((at(scores, arm, level) for arm in ABOVE_RANDOM), min)


def savings(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Iterations saved against IMP in percent after the last round, by arm, and how they differ.

    `matched_level` is the last of the levels at which PrAC matches IMP by the paper's rule.
    """
    last = rounds[(rounds.place == "main") & (rounds["round"] == params.rounds)]
    own = {str(arm): by_seed(rows, "saving") for arm, rows in last.groupby("arm")}
    found: dict[str, Any] = {_key(arm): as_metric(by) for arm, by in own.items() if arm != "imp"}
    less = {seed: EASY_SAVING - value for seed, value in own["prac"].items()}
    found["short_of_80_on_a_hard_task"] = as_metric(less) if _is_hard(params) else None
    found["prac_minus_imp_early_stop"] = as_metric(minus(own["prac"], own["imp-early-stop"]))
    level = max((k for k in params.levels if matches(scores, k)), default=None)
    rows = rounds[(rounds.place == "main") & (rounds.arm == "prac") & (rounds["round"] == level)]
    return found | {
        "matched_level": level,
        "where_matched": None if level is None else as_metric(by_seed(rows, "saving")),
    }


def decomposition(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """What each step from IMP to PrAC saves of IMP's iterations, and does to accuracy (points).

    data: fewer samples, as many epochs. schedule: fewer epochs, too (the code's quadratic rule).
    early_stop: rounds end when the mask has settled. Beside them, the last two without PrAC's
    data: early stopping on all samples, and the whole schedule squeezed into PrAC's iterations.
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
    saved = {
        arm: by_seed(last[last.arm == arm], "saving") for pair in steps.values() for arm in pair
    }
    level = max(set(params.levels) & set(params.ablation_levels), default=None)
    found = {}
    for name, (arm, base) in steps.items():
        gained = None if level is None else minus(at(scores, arm, level), at(scores, base, level))
        found[name] = {
            "saving": as_metric(minus(saved[arm], saved[base])),
            "accuracy": as_metric(gained) if gained else None,
        }
    return found


def costs(rounds: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """All that a search costs, in trainings of IMP: training passes, and forward passes at a third.

    A forward pass of a criterion that prunes counts as one of training: it may take gradients.

    With the one training that the ticket needs afterwards, `saving_in_all` is what is left of the
    saving against IMP; random subsets and short IMP also need PrAC's search to know their sizes.
    """
    one = rounds[(rounds.place == "main") & (rounds.arm == "imp") & (rounds["round"] == 1)]
    training = float(one.images.iloc[0])
    main = rounds[rounds.place == "main"].groupby(["arm", "seed"])
    total = main[["images", "forward_images"]].sum() / training
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
    }


def set_metrics(sets: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Sizes of PrAC's sets in percent of the data, their rebound, and how CEP lies in CET."""
    own = sets[sets.place == "main"]
    share = own.pivot(index="seed", columns="round", values="share")
    late = own[own["round"] > 1].groupby("seed").overlap.mean()
    second = own[own["round"] == 2]
    last = share[share.columns[-1]]
    returns = own[own["round"] > 1].returned > 0
    return {
        "first_share": as_percent(share[1].to_dict()),
        "smallest_share": as_percent(share.min(axis=1).to_dict()),
        "last_share": as_percent(last.to_dict()),
        "shrinkage": as_metric((share[1] - share.min(axis=1)).to_dict()),
        "rebound": as_metric((last - share.min(axis=1)).to_dict()),
        "overlap": as_percent(late.dropna().to_dict()),
        "overlap_in_round_2": as_percent(by_seed(second.dropna(subset="overlap"), "overlap")),
        "cet_outside": int(own.cet_outside.sum()),
        "rounds_with_cet_inside": as_percent(_percent(own.cet_outside == 0, own.seed)),
        "rounds_with_returns": as_percent(_percent(returns, own.seed)),
        "always_left_out": as_percent((100 - share.max(axis=1)).to_dict()),
        "last_share_of_a_hard_task": as_percent(last.to_dict()) if _is_hard(params) else None,
    }


def _percent(holds: pd.Series, seed: pd.Series) -> BySeed:
    """In how many percent of its rows something holds, by seed."""
    return {int(str(key)): 100.0 * value for key, value in holds.groupby(seed).mean().items()}


def _is_hard(params: PracParams) -> bool:
    return params.data.name == "cifar100"


def distance_metrics(results: Results, params: PracParams) -> dict[str, Any]:
    """Dense rounds: IMP's mask distance around the rate's first fall, PrAC's early stop."""
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
    found["stop_after_drop"] = as_count(past.to_dict())
    return found | {"stop_off": as_count(stops_off(results, params))}


def stops_off(results: Results, params: PracParams) -> BySeed:
    """Minus the epochs by which PrAC's dense round misses its expected stop, by seed (section 3.3).

    Expected is the first fall of the learning rate plus the epochs for which the mask must not
    move: 91 + 5 in the paper. Empty where a recipe cannot show it: no fall, one within an epoch, or
    a stop there that the least length of a round forbids or the end of the schedule hides.
    """
    found = {}
    for seed in params.seeds if params.recipe.milestones else ():
        turn = results[f"search/main/prac/seed-{seed}"].record["rounds"][0]
        per_epoch = epoch_steps(turn["samples"], params.recipe.batch)
        expected = turn["first_drop"] + params.stop.window
        can_be_seen = params.least_iterations <= expected * per_epoch < turn["limit"]
        if can_be_seen and float(turn["first_drop"]).is_integer():
            found[seed] = -abs(turn["iterations"] / per_epoch - expected)
    return found


def ablations(rounds: pd.DataFrame, scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """PrAC minus each ablation at the last ablation level; set sizes by E_F, in percent of data."""
    level, main = max(params.ablation_levels), rounds[rounds.place == "main"]
    own = at(scores, "prac", level)
    arms = [*(f"prac-ef-{v}" for v in params.thresholds), *get_args(Score)]
    arms += [pruned_by(name) for name in params.criteria]
    found: dict[str, Any] = {
        f"prac_minus_{_key(arm)}": as_metric(minus(own, at(scores, arm, level))) for arm in arms
    }
    mean = main[main["round"] == 1].set_index(["arm", "seed"]).set_samples.dropna()
    highest = f"prac-ef-{max(params.thresholds, default=0)}"
    has = highest in mean.index.get_level_values("arm")
    images = float(main[(main.arm == "imp")].samples.iloc[0])
    scale = {arm: (100 * mean.loc[arm] / images).to_dict() for arm in ("prac", highest) if has}
    found["threshold_set_share"] = as_metric(minus(scale["prac"], scale[highest])) if has else None
    found["threshold_accuracy"] = found.get(f"prac_minus_{_key(highest)}")
    ladder = ["prac", *(f"prac-ef-{v}" for v in sorted(params.thresholds))]
    shares = [(100 * mean.loc[arm] / images).to_dict() for arm in ladder]
    found["threshold_least_step_share"] = least_step(shares)
    found["threshold_least_step_accuracy"] = least_step([at(scores, a, level) for a in ladder])
    return found


def least_step(ladder: Sequence[Mapping[int, float]]) -> dict[str, Any] | None:
    """The smallest fall from one value to the next, by seed; null with fewer than two steps."""
    if len(ladder) < 3:
        return None
    return as_metric(across((minus(high, low) for high, low in pairwise(ladder)), min))


def transfers(scores: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """On the other nets, at their last level: carried or random sets minus native ones."""
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
    names = ("sequence_minus_native", "final_minus_native")
    return found | {name: as_metric(across(pooled.get(name, []))) for name in names}


def amortised(rounds: pd.DataFrame, params: PracParams) -> dict[str, Any]:
    """Iterations saved against IMP on the other nets in percent, with the main net's sets.

    "native" searches on each net. Carried sets cost their training there ("final" also the rewind
    point, which its rounds do not pass through), and the search that made them has to be paid once:
    `over_1`, `over_10` share it among so many nets.
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
    """Percent saved by seed, when each net pays the share `paid` of the main net's search."""
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
    """With flipped labels: how many are in PrAC's last set, and what that does to the ticket."""
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


# ---------------------------------------------------------------- tables for the page


def levels_said(scores: pd.DataFrame, params: PracParams) -> str:
    """The rounds whose tickets are compared, with their sparsity: 'round 3 (83.4 % sparse)'."""
    named = dict.fromkeys(("first_level", "last_level"))
    rounds = zip(named, (min(params.levels), max(params.levels)), strict=True)
    return ", ".join(f"{name}: {round_said(scores, level)}" for name, level in rounds)


def round_said(scores: pd.DataFrame, level: int, place: str = "main") -> str:
    """A round with the sparsity of its tickets, which all arms share."""
    rows = scores[(scores.place == place) & (scores["round"] == level)]
    return f"round {level}, {100 * rows.sparsity.iloc[0]:.1f} % sparse"


def this_study(params: PracParams, scores: pd.DataFrame, data: DataSet) -> dict[str, str]:
    """What the fidelity card leaves to the study's parameters."""
    stop, images = params.stop, len(data.train)
    armed = "" if stop.arm_after is None else f", armed after {stop.arm_after} epochs at the latest"
    others = [f"{other.name} ({other.model.name})" for other in params.others]
    return {
        "net": regime.net(params.model, params.prunable, data),
        "images": regime.images(params.data, data),
        "one training on all images": regime.schedule(params.recipe, images),
        "pruned per round": f"{params.rate:.3g} of the rest, {params.rounds} rounds",
        "compared at": "; ".join(round_said(scores, level) for level in sorted(params.levels)),
        "rewinding to": regime.rewinding(params.rewind),
        "schedule of a smaller set": f"shortened in {params.shorten}, at least "
        f"{params.least_iterations} iterations",
        "early stop": f"epsilon {stop.epsilon:g}, {stop.window} quiet epochs{armed}",
        "nets that get the sets": ", ".join(others) or "none",
        "seeds": regime.seeds(params.seeds),
    }


# ---------------------------------------------------------------- index files


def export_sets(results: Results, params: PracParams, data: DataSet, folder: Path) -> list[Path]:
    """Write the sets of PrAC's main search as index files, one a seed; returns their paths.

    Set k of a file is the one found in round k + 1, for any net on the same data set.
    """
    paths = []
    for seed in params.seeds:
        rounds = results[f"search/main/prac/seed-{seed}"].record["rounds"]
        sets = [unpack_index(turn["set"], len(data.train)) for turn in rounds]
        facts = {
            "paper": "prac",
            "model": params.model.name,
            "seed": seed,
            "threshold": params.threshold,
            "rate": params.rate,
        }
        path = folder / "sets" / f"seed-{seed}.safetensors"
        save_index(path, IndexFile(sets, facts), data)
        paths.append(path)
    return paths
