"""Tables of the PrAC study, and the facts of its fidelity card."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ticketlab import labels
from ticketlab.data.sets import DataSet, load
from ticketlab.papers.prac.params import PracParams, PracSetting
from ticketlab.papers.prac.subsets import IndexFile, save_index, unpack_index
from ticketlab.pruning.masks import chance_jaccard, jaccard
from ticketlab.study import images, plots, regime, tables
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Interval,
    as_interval,
    by_seed,
)
from ticketlab.study.tables import Accuracy
from ticketlab.tickets.ticket import round_name

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""The accuracy used in this study's tables, differences and claims. The paper uses the best epoch
on validation; a change of rounding alone moves that one by up to 1.5 points, this one by 0.4."""
Row = dict[str, Any]
Levels = Sequence[int]
MINUS = labels.MINUS
STEPS = ("data", "schedule", "early_stop", "early_stop_alone", "schedule_alone")
"""The steps from IMP to PrAC, and two of them alone."""
IMAGE_PAIRS = (("prac", "imp"), ("prac", "random"))
"""The headline's differences, of arms that keep what became of their tickets."""

LONG = ("set", "distances", "train_accuracy", "classes", "forgetting")
"""Lists in a round's record, which tables omit."""


# ---------------------------------------------------------------- rounds of searches


def rounds_table(results: Results) -> pd.DataFrame:
    """Return one row per search round: place, arm, seed, training data and cost.

    Round r makes the ticket of r prunings: `sparsity` is that ticket's. `total_iterations` are all
    iterations so far, including training to a rewind point through which no round passes
    (`rewind_iterations`); `saving` is by how many percent they are fewer than IMP's (section 4.1).
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


def round_lengths(rounds: pd.DataFrame, params: PracParams) -> pd.DataFrame:
    """Return what decides the saving: PrAC's rounds, and their length in % of a full training."""
    main = rounds[rounds.place == "main"]
    full = float(main[(main.arm == "imp") & (main["round"] == 1)].iterations.iloc[0])
    length = main[main.arm == "prac"].groupby("round").iterations.mean() * 100 / full
    least = 100 * params.least_iterations / full
    facts = {
        "rounds": f"{params.rounds}, each prunes {100 * params.rate:.3g} % of the rest",
        "schedules shortened in": params.shorten,
        "least length of a round (% of a full training)": f"{least:.1f}",
        "PrAC's first round (% of a full training)": f"{length.iloc[0]:.1f}",
        "its other rounds": f"{length.iloc[1:].min():.1f} to {length.iloc[1:].max():.1f}",
    }
    return pd.Series(facts).to_frame("this study, means over seeds")


def searches(results: Results) -> Iterator[tuple[tuple[str, str, int], Result]]:
    """Yield every search with its place (the net, or "noise"), arm and seed."""
    for name, result in results.items():
        kind, place, arm, _ = name.split("/")
        if kind == "search":
            yield (place, arm, result.record["seed"]), result


def search_rounds(results: Results, place: str, arm: str, seed: int, result: Result) -> list[Row]:
    """Return the records of a search's rounds, counted in the same way for all arms.

    Arms that share PrAC's dense round get its record.
    """
    rounds = result.record["rounds"]
    if rounds[0]["round"] == 1:
        return list(rounds)
    first = results[f"search/{place}/prac/seed-{seed}"].record["rounds"][0]
    return [first, *rounds]


def sets_table(results: Results) -> pd.DataFrame:
    """Return one row per set that PrAC found: its samples by kind, in % of the training split."""
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
    """Return one row per class and set of PrAC's main search: its samples, in % of the set."""
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
    """Return one row per epoch of a main search: its mask distance, and the share of the run done.

    `drop` is the epoch of the first learning-rate decay, if the round reached it.
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
    return pd.DataFrame(rows, columns=columns)  # empty for rounds of a single epoch


def forgetting_table(results: Results) -> pd.DataFrame:
    """Return one row per round of PrAC's main search: its samples by forgetting events, in %."""
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
    """Return one row per retrained ticket: place, arm, seed, round, sparsity, accuracies in %."""
    measured = ("last_accuracy", "selected_accuracy", "validation_accuracy", "train_accuracy")
    kept = ("round", "sparsity", *measured)
    rows = []
    for name, result in results.items():
        _, place, arm, _ = name.split("/")
        head = {"place": place, "arm": arm, "seed": result.record["seed"]}
        scores = result.record.get("scores", ())
        rows += [head | {key: one[key] for key in kept} for one in scores]
    return pd.DataFrame(rows)


def overlaps_table(results: Results, level: int) -> pd.DataFrame:
    """Return the IoU of each arm's mask with IMP's of the same seed after `level` rounds."""
    rows, name = [], f"round-{level:02d}"
    for (place, arm, seed), result in searches(results):
        if place != "main" or arm == "imp" or name not in result.tickets:
            continue
        own, imp = result.tickets[name].mask, results[f"search/main/imp/seed-{seed}"].tickets[name]
        chance = chance_jaccard(own.density, imp.mask.density)
        rows.append({"arm": arm, "seed": seed, "iou": jaccard(own, imp.mask), "chance": chance})
    return pd.DataFrame(rows)


def at(scores: pd.DataFrame, arm: str, level: int, place: str = "main") -> BySeed:
    """Return an arm's test accuracy after `level` rounds, by seed; "dense" is IMP's round 0."""
    if arm == "dense":
        arm, level = "imp", 0
    rows = scores[(scores.place == place) & (scores.arm == arm) & (scores["round"] == level)]
    return by_seed(rows, ACCURACY)


def matches(scores: pd.DataFrame, level: int) -> bool:
    """The paper's rule: PrAC's mean is at most one standard deviation below IMP's."""
    own, imp = (list(at(scores, arm, level).values()) for arm in ("prac", "imp"))
    return bool(np.mean(own) >= np.mean(imp) - (np.std(imp, ddof=1) if len(imp) > 1 else 0.0))


# ---------------------------------------------------------------- the round by hand


def on_split_of(setting: PracSetting, seed: int) -> PracSetting:
    """Return the setting with the split of `seed` for all seeds.

    So two seeds differ in initial weights and data order alone, and sample k is the same image.
    """
    drawn = setting.data.split_seed
    fixed = {"split_seed": seed if drawn is None else drawn}
    return setting.model_copy(update={"data": setting.data.model_copy(update=fixed)})


# ---------------------------------------------------------------- numbers in figures


def brief(found: Interval) -> str:
    """Return mean and interval without unit and seeds: '-0.31 [-0.46, -0.15]'."""
    return plots.number(found, "").partition(" (")[0]


# ---------------------------------------------------------------- tables for the page


def shown(name: str) -> str:
    """Return the name in labels.yaml: its `random` is a random mask, PrAC's are random samples."""
    sides = name.split(MINUS)
    return MINUS.join("random-sets" if side == "random" else side for side in sides)


def named(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Rename numbers of metrics.json as labels.yaml has them; omit those not measured."""
    return {shown(key): value for key, value in numbers.items() if value is not None}


def column(found: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Return numbers of metrics.json as text, one labelled row each."""
    return tables.labelled(tables.intervals_column(named(found), title))


def distances_column(found: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Return `column` with four decimals for mask distances, which are small."""
    shown = column(found, title)
    for key in ("before_drop", "after_drop"):
        if (distance := as_interval(found[key])) is not None:
            shown.loc[labels.label(key), title] = distance.text(4)
    return shown


def table(found: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Return nested numbers of metrics.json as text, with labelled rows and columns."""
    return tables.labelled(tables.intervals_table(named(found), title))


def levels_table(found: Mapping[str, Any], scores: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """Return paired differences at each of the levels, the first to the last, and on average."""
    chosen = sorted(set(levels))
    names = {"first_level": chosen[0]} | {round_name(k): k for k in chosen[1:-1]}
    columns = {name: sparse(scores, k) for name, k in (names | {"last_level": chosen[-1]}).items()}
    columns["mean"] = f"mean of {len(chosen)} levels"
    rows = {row: {key: parts.get(key) for key in columns} for row, parts in named(found).items()}
    return tables.labelled(tables.differences_table(rows).rename(columns=columns))


def ablations_table(
    found: Mapping[str, Any], scores: pd.DataFrame, params: PracParams
) -> pd.DataFrame:
    """Return the ablations' differences; the row of IMP against itself names its own sparsity."""
    again = labels.label("imp_again_minus_imp")
    level = max((k for k in params.levels if k <= params.again_rounds), default=params.levels[-1])
    table = levels_table(found, scores, params.ablation_levels)
    return table.rename(index={again: f"{again} ({sparse(scores, level)})"})


def nets_table(found: Mapping[str, Any], params: PracParams) -> pd.DataFrame:
    """Return the differences on the other nets, one row per net."""
    nets = {other.name: named(found[other.name]) for other in params.others}
    return table(nets, "points, paired by seed")


def steps_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each step from IMP to PrAC saves and what it does to accuracy."""
    columns = {"saving": "iterations saved (% of IMP's)", "accuracy": "accuracy (points)"}
    steps = {step: {columns[key]: one for key, one in found[step].items()} for step in STEPS}
    return table(steps, "on top of the step before, or alone")


def thresholds_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return PrAC minus PrAC with the highest E_F: size of the first set, and accuracy."""
    rows = {"set_share": "first set (% of the data)", "accuracy": "accuracy (points)"}
    return tables.intervals_column(
        {rows[key]: one for key, one in found.items() if one}, "PrAC minus the highest E_F"
    )


def amortised_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return what carried sets save, by how many nets share the search that made them."""
    columns = {"own": "search not counted", "over_1": "paid by 1 net", "over_10": "by 10 nets"}
    sets = {name: {columns[key]: one for key, one in by.items()} for name, by in found.items()}
    return table(sets, "% of IMP's iterations saved")


def images_table(results: Results, params: PracParams) -> pd.DataFrame:
    """Return IMAGE_PAIRS over test images at each level; empty if seeds have different images."""
    if not images.shared_by_seeds(params.data):
        return pd.DataFrame()
    known = images.hits(results, load(params.data, seed=params.seeds[0]).test.y)
    return images.pairs_table(known, image_pairs(scores_table(results), params.levels))


def image_pairs(scores: pd.DataFrame, levels: Levels) -> dict[tuple[str, str], list[images.Key]]:
    """Return the two tickets of each of IMAGE_PAIRS at each level: IMP's are with its search."""
    return {
        (labels.label(MINUS.join(map(shown, pair))), sparse(scores, level)): [
            (f"{'search' if arm == 'imp' else 'score'}/main/{arm}", round_name(level))
            for arm in pair
        ]
        for pair in IMAGE_PAIRS
        for level in sorted(set(levels))
    }


def sparse(scores: pd.DataFrame, level: int, place: str = "main") -> str:
    """Name a round by the sparsity of its tickets: '79.0 % sparse'."""
    return f"{sparsity_of(scores, level, place):.1f} % sparse"


def at_level(scores: pd.DataFrame, level: int) -> str:
    """Begin a sentence about a round's tickets by their sparsity: 'At 79.0 % sparsity'."""
    return f"At {sparsity_of(scores, level):.1f} % sparsity"


def round_said(scores: pd.DataFrame, level: int, place: str = "main") -> str:
    """Name a round and the sparsity of its tickets."""
    return f"round {level}, {sparse(scores, level, place)}"


def sparsity_of(scores: pd.DataFrame, level: int, place: str = "main") -> float:
    """Return the sparsity of a round's tickets in percent, which all arms share."""
    rows = scores[(scores.place == place) & (scores["round"] == level)]
    return 100 * float(rows.sparsity.iloc[0])


def this_study(params: PracParams, scores: pd.DataFrame, data: DataSet) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
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


def export_sets(results: Results, params: PracParams, folder: Path) -> list[Path]:
    """Write the sets of PrAC's main search as index files, one per seed; return their paths.

    Set k of a file was found in round k + 1 and fits any net on the same split of the data set.
    """
    paths = []
    for seed in params.seeds:
        rounds = results[f"search/main/prac/seed-{seed}"].record["rounds"]
        own = load(params.data, seed=seed)
        sets = [unpack_index(turn["set"], len(own.train)) for turn in rounds]
        facts = {
            "paper": "prac",
            "model": params.model.name,
            "seed": seed,
            "threshold": params.threshold,
            "rate": params.rate,
        }
        path = folder / "sets" / f"seed-{seed}.safetensors"
        save_index(path, IndexFile(sets, facts), own)
        paths.append(path)
    return paths
