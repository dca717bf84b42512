"""What the comparison says: one table of tickets, paired differences, costs, overlaps, the swap."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from ticketlab import plugins
from ticketlab.data.sets import DataSet, load
from ticketlab.papers.compare.params import (
    ITERATIVE,
    MASKS,
    METHODS,
    WEIGHTS,
    Bed,
    CompareParams,
    name_of,
    ticket_name,
)
from ticketlab.pruning.masks import Mask, jaccard
from ticketlab.study import claims, regime, tables, verdicts
from ticketlab.study.claims import verdict_table
from ticketlab.study.cost import Cost
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Interval,
    Measured,
    above_chance,
    across,
    as_count,
    as_metric,
    by_seed,
    interval,
    minus,
    over_levels,
    percent_saved,
)
from ticketlab.study.tables import LABELS, Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "selected_accuracy"
"""What tables, differences and claims of this study are about."""

AT_INIT = ("snip", "grasp", "synflow")
"""Criteria that look at the loss or the wiring of the initial net."""

# ---------------------------------------------------------------- tables


def board(results: Results) -> pd.DataFrame:
    """One row a trained ticket: net, arm, seed, level, accuracies in percent, costs.

    Columns `search_...` are what finding it took; those without the prefix add its final training.
    """
    return _rows(results).drop(columns=["layers", "collapsed", "weights"])


def _rows(results: Results) -> pd.DataFrame:
    """One row per trained ticket, the dense nets first."""
    dense = [
        _dense_row(name.partition("/")[0], result.record)
        for name, result in results.items()
        if "/dense/" in name
    ]
    return pd.concat([pd.DataFrame(dense), rows_of(results, "rows")], ignore_index=True)


def _dense_row(net: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A dense net's record as the row of a ticket: nothing had to be found."""
    facts = {"arm": "dense", "level": 0.0, "weights": "init", "rounds": 0, "collapsed": []}
    mask = {"sparsity": 0.0, "alive": record["alive"], "layers": record["layers"]}
    paid = Cost().row("search_") | dict(record["cost"])
    return {"net": net, "seed": record["seed"], **facts, **mask, **record["scores"], **paid}


def swap_table(results: Results, params: CompareParams) -> pd.DataFrame:
    """One row a mask, weights and seed at the highest level: net, mask, weights, accuracy.

    Cells that the searches have trained anyway are theirs.
    """
    columns = ["net", "mask", "weights", "seed", ACCURACY]
    if not params.swap_masks:
        return pd.DataFrame(columns=columns)
    swapped = rows_of(results, "swapped").rename(columns={"arm": "mask"})
    top = {bed.name: bed.levels[-1] for bed in params.beds}
    own = _rows(results).rename(columns={"arm": "mask"})
    own = own[(own.level == own.net.map(top)) & own["mask"].isin([*params.swap_masks, "rst"])]
    rst = own[own["mask"] == "rst"].assign(mask="random")
    parts = [swapped, own[own["mask"] != "rst"]]
    if "random" in params.swap_masks:
        parts += [rst, rst.assign(weights="rst-other")]
    return pd.concat(parts)[columns].reset_index(drop=True)


def layers_table(results: Results) -> pd.DataFrame:
    """One row a layer of a ticket: net, arm, seed, level, layer, density."""
    return tables.layers_table(_rows(results), ["net", "arm", "seed", "level"])


# ---------------------------------------------------------------- how much masks agree


def expected_jaccard(a: Mask, b: Mask) -> float:
    """IoU of two masks if each layer's kept weights lay at random: |a| |b| / n in each layer."""
    both = sum(int(a[n].sum()) * int(b[n].sum()) / a[n].numel() for n in a)
    return both / (a.alive + b.alive - both)


def overlap_table(results: Results, params: CompareParams) -> pd.DataFrame:
    """IoU of masks at the highest level: one row a pair, beside what layer densities alone give.

    Two methods are compared at the same seed (`between` "methods"), a method with itself at two
    seeds, so from two initialisations (`between` "seeds").
    """
    rows = []
    for bed in params.beds:
        masks = {
            (method, seed): results[name_of(bed, method, seed)]
            .tickets[ticket_name(bed.levels[-1])]
            .mask
            for method in (*MASKS, *params.criteria)
            for seed in params.seeds
        }
        for one, two in combinations(masks, 2):
            same_method, same_seed = one[0] == two[0], one[1] == two[1]
            if same_method or same_seed:
                a, b = masks[one], masks[two]
                rows.append(
                    (
                        bed.name,
                        "seeds" if same_method else "methods",
                        one[0],
                        two[0],
                        one[1],
                        jaccard(a, b),
                        expected_jaccard(a, b),
                    )
                )
    columns = ["net", "between", "arm", "other", "seed", "iou", "chance"]
    return pd.DataFrame(rows, columns=columns)


def overlap_matrix(overlaps: pd.DataFrame, net: str, value: str) -> pd.DataFrame:
    """Mean of `value` for each pair of methods; on the diagonal a method's own seeds."""
    means = overlaps[overlaps.net == net].groupby(["arm", "other"])[value].mean()
    own = [name for name in overlaps.other.unique() if name not in MASKS]
    names = [*MASKS, *own]
    whole = means.unstack().reindex(index=names, columns=names)
    return whole.combine_first(whole.T).loc[names, names]


# ---------------------------------------------------------------- paired differences


def accuracy(rows: pd.DataFrame, net: str, arm: str, level: float) -> BySeed:
    """Test accuracy of an arm at a level, by seed."""
    chosen = rows[(rows.net == net) & (rows.arm == arm) & (rows.level == level)]
    return by_seed(chosen, ACCURACY)


def best_of(rows: pd.DataFrame, net: str, arms: Sequence[str], level: float) -> BySeed:
    """The best of several arms, chosen on validation at each seed; test accuracy."""
    chosen = rows[(rows.net == net) & (rows.level == level) & rows.arm.isin(arms)]
    best = chosen.loc[chosen.groupby("seed").validation_accuracy.idxmax()]
    return by_seed(best, ACCURACY)


def summary(params: CompareParams, each: Callable[[Bed, float], BySeed]) -> dict[str, Any]:
    """Intervals of a number by net and level, of each net's mean, and of the mean over nets."""
    found: dict[str, Any] = {}
    means = []
    for bed in params.beds:
        by_level = {level: each(bed, level) for level in bed.levels}
        means.append(across(by_level.values()))
        found[bed.name] = over_levels(by_level)
    return found | {"mean": as_metric(across(means))}


def by_net(
    parts: Mapping[str, BySeed], how: Callable[[BySeed], Measured | None] = as_metric
) -> dict[str, Any]:
    """Intervals of a number by net (or `how` it is summed up), and of its mean over the nets."""
    mean = across(parts.values())
    return {net: how(by) for net, by in parts.items()} | {"mean": how(mean)}


def difference(rows: pd.DataFrame, params: CompareParams, arm: str, other: str) -> dict[str, Any]:
    """Test accuracy of `arm` minus `other` at equal sparsity, in points, paired by seed."""

    def each(bed: Bed, level: float) -> BySeed:
        own = accuracy(rows, bed.name, arm, level)
        at = 0.0 if other == "dense" else level
        theirs = accuracy(rows, bed.name, other, at)
        return minus(own, theirs)

    return summary(params, each)


def over_best_at_init(rows: pd.DataFrame, params: CompareParams, arm: str) -> dict[str, Any]:
    """An arm minus the best of SNIP, GraSP and SynFlow (chosen on validation)."""

    def each(bed: Bed, level: float) -> BySeed:
        own, best = accuracy(rows, bed.name, arm, level), best_of(rows, bed.name, AT_INIT, level)
        return minus(own, best)

    return summary(params, each)


def at_equal_cost(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Each method minus the mask that was trained for as many images, at the highest level.

    BySeed control and net; "mean" is over the nets, null where the study has no such control.
    """
    found: dict[str, Any] = {}
    for mask in ("random", "synflow"):
        for budget in (*ITERATIVE, "rst"):
            names = [c.name for c in params.long if (c.mask, c.budget) == (mask, budget)]
            found[f"{budget}_minus_{mask}_long"] = (
                _top_difference(rows, params, budget, names[0]) if names else {"mean": None}
            )
    return found


def _top_difference(
    rows: pd.DataFrame, params: CompareParams, arm: str, other: str
) -> dict[str, Any]:
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        own, theirs = (accuracy(rows, bed.name, name, bed.levels[-1]) for name in (arm, other))
        parts[bed.name] = minus(own, theirs)
    return by_net(parts)


# ---------------------------------------------------------------- costs


def saving(rows: pd.DataFrame, params: CompareParams, arm: str, column: str) -> dict[str, Any]:
    """Percent of IMP's search cost that a method saves, at the highest level."""
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        top = rows[(rows.net == bed.name) & (rows.level == bed.levels[-1])]
        own, imp = (by_seed(top[top.arm == name], column) for name in (arm, "imp"))
        parts[bed.name] = percent_saved(own, imp)
    return by_net(parts)


def fewer_rounds(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Rounds of IMP minus rounds of COLT to the highest level."""
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        top = rows[(rows.net == bed.name) & (rows.level == bed.levels[-1])]
        imp, colt = (by_seed(top[top.arm == name], "rounds") for name in ("imp", "colt"))
        parts[bed.name] = minus(imp, colt)
    return by_net(parts, as_count)


COSTS = {
    "rounds": ("rounds", 1.0),
    "search_iterations": ("steps to find", 1.0),
    "search_images": ("images to find", 1.0),
    "images": ("images in all", 1.0),
    "dense_flops": ("GFLOPs, dense", 1e-9),
    "sparse_flops": ("GFLOPs, sparse", 1e-9),
}
"""Titles and units of the leaderboard's columns."""


def leaderboard(rows: pd.DataFrame, net: str, level: float) -> pd.DataFrame:
    """All arms of a net at one level, best first: accuracy with interval, and mean costs, as text.

    The dense net stands among them. FLOPs count a training step as three forward passes.
    """
    chosen = rows[(rows.net == net) & rows.level.isin([0.0, level])]
    means = chosen.groupby("arm")[ACCURACY].mean().sort_values(ascending=False)
    table = {}
    for arm in means.index:
        own = chosen[chosen.arm == arm]
        costs = {
            title: f"{own[column].mean() * unit:,.0f}" for column, (title, unit) in COSTS.items()
        }
        table[arm] = {LABELS[ACCURACY]: tables.text(as_metric(own[ACCURACY])), **costs}
    return pd.DataFrame(table).T.rename_axis(f"{net} at {100 * level:g} %")


# ---------------------------------------------------------------- the swap


def swap_effect(
    swaps: pd.DataFrame, params: CompareParams, one: tuple[str, str], two: tuple[str, str]
) -> dict[str, Any]:
    """Accuracy of one (mask, weights) minus another, by net; the mean is null if not trained."""
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        found = [
            by_seed(
                swaps[
                    (swaps.net == bed.name) & (swaps["mask"] == mask) & (swaps.weights == weights)
                ],
                ACCURACY,
            )
            for mask, weights in (one, two)
        ]
        if not all(found):
            return {"mean": None}
        parts[bed.name] = minus(*found)
    return by_net(parts)


def swap_matrix(swaps: pd.DataFrame, net: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean accuracy by mask (rows) and weights (columns), and each as text with its interval."""
    own = swaps[swaps.net == net]
    cells = {
        key: interval(group[ACCURACY].tolist()) for key, group in own.groupby(["mask", "weights"])
    }
    masks = list(dict.fromkeys(own["mask"]))
    mean = pd.DataFrame({w: {m: cells[m, w].mean for m in masks} for w in WEIGHTS})
    text = pd.DataFrame({w: {m: _short(cells[m, w]) for m in masks} for w in WEIGHTS})
    return mean, text


def _short(found: Interval) -> str:
    half = "" if found.high is None else f"\n± {found.high - found.mean:.1f}"
    return f"{found.mean:.1f}{half}"


# ---------------------------------------------------------------- metrics


PAIRS = (
    *((arm, "random") for arm in METHODS if arm != "random"),
    *((arm, "imp") for arm in ("imp-matched", "colt", "prac", "rst", "synflow")),
    ("colt", "imp-matched"),
    *((arm, "dense") for arm in ("imp", "colt", "prac", "rst", "synflow")),
)
"""Which differences are reported: arm minus other."""


def metrics(results: Results, params: CompareParams) -> dict[str, Any]:
    """All numbers of the comparison for metrics.json: intervals over seeds, by net and overall."""
    rows, swaps = board(results), swap_table(results, params)
    pairs = (*PAIRS, *((arm, "random") for arm in params.criteria))
    differences = {_name(a, b): difference(rows, params, a, b) for a, b in pairs}
    for arm in ("imp", "colt", "prac", "magnitude"):
        differences[f"{arm}_minus_best_at_init"] = over_best_at_init(rows, params, arm)
    saved = {
        f"{arm}_{name}": saving(rows, params, arm, f"search_{name}")
        for arm in ("colt", "prac")
        for name in ("images", "iterations", "sparse_flops")
    }
    return {
        "references": references(rows, params),
        "accuracy": accuracies(rows, params),
        "differences": differences,
        "equal_cost": at_equal_cost(rows, params),
        "rounds": {"imp_minus_colt": fewer_rounds(rows, params)},
        "saved": saved,
        "overlap": overlap_metrics(overlap_table(results, params), params),
        "swap": swap_metrics(swaps, params),
        "collapsed_layers": _collapsed(results),
    }


def _name(*arms: str) -> str:
    return "_minus_".join(arms).translate(str.maketrans("- .:", "____", ","))


def references(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """The dense nets, which must all have learned something, beside chance on the test images."""
    labels = load(params.data).test.y
    dense = {
        f"the dense {bed.name}": above_chance(accuracy(rows, bed.name, "dense", 0.0), labels)
        for bed in params.beds
    }
    return {"dense": dense}


def accuracies(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Interval of each arm's test accuracy by net and level."""
    found: dict[str, Any] = {}
    for bed in params.beds:
        arms = found.setdefault(bed.name, {})
        for level in (0.0, *bed.levels):
            own = rows[(rows.net == bed.name) & (rows.level == level)]
            for arm in own.arm.unique():
                values = by_seed(own[own.arm == arm], ACCURACY)
                place = arms.setdefault(_name(arm), {})
                place[f"at_{100 * level:g}"] = as_metric(values)
    return found


def overlap_metrics(overlaps: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """IoU minus chance given the layer densities, in points, for the pairs of trained masks."""
    found: dict[str, Any] = {}
    for one, two in combinations(("imp", "imp-matched", "colt", "prac"), 2):
        pair = overlaps[(overlaps.arm == one) & (overlaps.other == two)]
        pair = pair.assign(beyond=100 * (pair.iou - pair.chance))
        parts = {bed.name: by_seed(pair[pair.net == bed.name], "beyond") for bed in params.beds}
        found[f"{one}_and_{two}".replace("-", "_")] = by_net(parts)
    return found


def swap_metrics(swaps: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """What other weights change for a mask, and what another mask changes for the weights."""
    effects: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}
    for mask in params.swap_masks:
        for weights in WEIGHTS:
            name = f"{plugins.slug(mask)}_on_{weights}_minus_init"
            effects[name] = (mask, weights), (mask, "init")
    effects["imp_on_rst_minus_init"] = ("imp", "rst"), ("imp", "init")
    effects["imp_weights_matter"] = ("imp", "init"), ("imp", "reinit")
    effects["imp_minus_random_on_reinit"] = ("imp", "reinit"), ("random", "reinit")
    effects["imp_minus_random_on_rst"] = ("imp", "rst"), ("random", "rst")
    return {
        name.replace("-", "_"): swap_effect(swaps, params, one, two)
        for name, (one, two) in effects.items()
        if one != two
    }


def _collapsed(results: Results) -> dict[str, int]:
    """Tickets by arm in which some layer had no weight left."""
    frame = _rows(results)
    hits = frame.collapsed.map(bool).groupby(frame.arm).sum()
    return {plugins.slug(str(arm)): int(count) for arm, count in hits.items()}


# ---------------------------------------------------------------- the papers' own claims


def paper_verdicts(study: Path) -> pd.DataFrame:
    """The verdicts of the four papers' own notebooks in this study; empty where there are none."""
    papers = [path.parent.name for path in sorted(study.glob("*/metrics.json"))]
    if others := [paper for paper in papers if paper != "compare"]:
        return verdicts.table(study, others).drop(columns=["shown", "q"])
    return verdict_table([]).drop(columns="q").rename_axis("paper")


def coloured(found: pd.DataFrame) -> Styler:
    """A table of verdicts for a page, verdicts in colour; the same bytes on each run."""
    return claims.coloured(found.reset_index(), "papers")


def this_study(params: CompareParams, data: DataSet) -> dict[str, str]:
    """What the fidelity card leaves to the study's parameters."""
    facts = {
        "images": regime.images(params.data, data),
        "pruned per round": f"{params.rate:.3g} by IMP, PrAC and each of COLT's "
        f"{params.partitions} copies",
        "rewinding to": regime.rewinding(params.rewind),
        "seeds": regime.seeds(params.seeds),
    }
    for bed in params.beds:
        levels = ", ".join(f"{100 * level:g} %" for level in bed.levels)
        facts[f"{bed.name}: net"] = regime.net(bed.model, bed.prunable, data)
        facts[f"{bed.name}: sparsity"] = levels
        facts[f"{bed.name}: every training"] = regime.schedule(bed.recipe, len(data.train))
        facts[f"{bed.name}: RST's own"] = regime.schedule(bed.transform, len(data.train))
    return facts
