"""Tables and metrics of the comparison: differences, costs, controls, the fidelity card."""

from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from ticketlab import plugins
from ticketlab.data.sets import DataSet, load
from ticketlab.papers.compare import same_arm
from ticketlab.papers.compare.overlap import overlap_metrics, overlap_table
from ticketlab.papers.compare.params import ITERATIVE, METHODS, Bed, CompareParams
from ticketlab.papers.compare.rows import (
    ACCURACY,
    Results,
    accuracy,
    best_of,
    board,
    by_net,
    difference,
    summary,
    whole,
)
from ticketlab.papers.compare.swap import swap_metrics, swap_table
from ticketlab.study import claims, regime, tables, verdicts
from ticketlab.study.claims import verdict_table
from ticketlab.study.controls import control, trained
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    across,
    as_count,
    as_metric,
    by_seed,
    minus,
    percent_saved,
)
from ticketlab.study.tables import LABELS

AT_INIT = ("snip", "grasp", "synflow")
"""Criteria that use the loss or the wiring of the initial net."""

# ---------------------------------------------------------------- paired differences


def over_best_at_init(rows: pd.DataFrame, params: CompareParams, arm: str) -> dict[str, Any]:
    """Return an arm minus the best of SNIP, GraSP and SynFlow (chosen on validation)."""

    def each(bed: Bed, level: float) -> BySeed:
        own, best = accuracy(rows, bed.name, arm, level), best_of(rows, bed.name, AT_INIT, level)
        return minus(own, best)

    return summary(params, each)


def at_equal_cost(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return each method minus the mask that was trained on as many images, at the highest level.

    By control and net; "mean" is over the nets, null if the study has no such control.
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
    """Return the percent of IMP's search cost that a method saves, at the highest level."""
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        top = rows[(rows.net == bed.name) & (rows.level == bed.levels[-1])]
        own, imp = (by_seed(top[top.arm == name], column) for name in (arm, "imp"))
        parts[bed.name] = percent_saved(own, imp)
    return by_net(parts)


def fewer_rounds(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return rounds of IMP minus rounds of COLT to the highest level."""
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
    """Return all arms of a net at one level, best first: accuracy with interval, and mean costs.

    Includes the dense net. FLOPs count a training step as three forward passes.
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


# ---------------------------------------------------------------- metrics


PAIRS = (
    *((arm, "random") for arm in METHODS if arm != "random"),
    *((arm, "imp") for arm in ("imp-matched", "colt", "prac", "rst", "synflow")),
    ("colt", "imp-matched"),
    ("imp", "imp-again"),
    *((arm, "dense") for arm in ("imp", "colt", "prac", "rst", "synflow")),
)
"""The reported differences: arm minus other."""


def metrics(results: Results, params: CompareParams) -> dict[str, Any]:
    """Return all numbers of the comparison for metrics.json: intervals by net and overall."""
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
        "controls": controls(rows, swaps, params),
        "accuracy": accuracies(rows, params),
        "differences": differences,
        "equal_cost": at_equal_cost(rows, params),
        "rounds": {"imp_minus_colt": fewer_rounds(rows, params)},
        "saved": saved,
        "overlap": overlap_metrics(overlap_table(results, params), params),
        "relabelled": relabelled(rows, params),
        "swap": swap_metrics(swaps, params),
        "collapsed_layers": _collapsed(results),
    }


def _name(*arms: str) -> str:
    return "_minus_".join(arms).translate(str.maketrans("- .:", "____", ","))


def references(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return the dense nets, which must all have learned, with chance on the test images."""
    labels = load(params.data).test.y
    dense = {
        f"the dense {bed.name}": above_chance(accuracy(rows, bed.name, "dense", 0.0), labels)
        for bed in params.beds
    }
    return {"dense": dense}


CONTROLS: dict[str, tuple[str, dict[str, float]]] = {
    "trained": trained(),
    "pruning_does_not_help": (
        "The first round of pruning gains less than a point over the dense net (IMP).",
        {"at_least": -same_arm.MARGIN},
    ),
    "imp_beats_random": (
        "IMP's tickets beat random masks on the same weights (mean over levels).",
        {"above": 0.0},
    ),
    "imp_beats_shuffled": (
        "IMP's ticket beats its mask shuffled within each layer (highest level).",
        {"above": 0.0},
    ),
}
"""The controls in words, with their bounds."""


def controls(rows: pd.DataFrame, swaps: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return the positive controls of each net."""
    numbers = {bed.name: _controls(rows, swaps, params, bed) for bed in params.beds}
    return {
        net: {name: control(says, own[name], **bound) for name, (says, bound) in CONTROLS.items()}
        for net, own in numbers.items()
    }


def _controls(
    rows: pd.DataFrame, swaps: pd.DataFrame, params: CompareParams, bed: Bed
) -> dict[str, BySeed]:
    """Return the value of each control by seed."""

    def at(arm: str, level: float) -> BySeed:
        return accuracy(rows, bed.name, arm, level)

    dense = rows[(rows.net == bed.name) & (rows.arm == "dense")]
    init = swaps[(swaps.net == bed.name) & (swaps.weights == "init")]
    own, shuffled = (
        by_seed(init[init["mask"] == mask], ACCURACY) for mask in ("imp", "imp-shuffled")
    )
    return {
        "trained": by_seed(dense, "train_accuracy"),
        "pruning_does_not_help": minus(at("dense", 0.0), at("imp", params.light)),
        "imp_beats_random": across(
            minus(at("imp", level), at("random", level)) for level in bed.levels
        ),
        "imp_beats_shuffled": minus(own, shuffled),
    }


def relabelled(rows: pd.DataFrame, params: CompareParams) -> dict[str, dict[str, float]]:
    """Return the percent of relabellings in which IMP "beats" IMP on another order."""
    resolution = 100 / len(load(params.data).test)
    return {
        net: {
            f"at_{100 * level:g}": same_arm.wins(list(by_seed.values()), resolution)
            for level, by_seed in levels.items()
        }
        for net, levels in same_arm.differences(rows, params).items()
    }


def accuracies(rows: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return the interval of each arm's test accuracy by net and level."""
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


def _collapsed(results: Results) -> dict[str, int]:
    """Return, by arm, the tickets in which some layer had no weight left."""
    frame = whole(results)
    hits = frame.collapsed.map(bool).groupby(frame.arm).sum()
    return {plugins.slug(str(arm)): int(count) for arm, count in hits.items()}


# ---------------------------------------------------------------- the papers' own claims


def paper_verdicts(study: Path) -> pd.DataFrame:
    """Return the verdicts of the four papers' own notebooks in this study; empty if none."""
    papers = [path.parent.name for path in sorted(study.glob("*/metrics.json"))]
    if others := [paper for paper in papers if paper != "compare"]:
        return verdicts.table(study, others).drop(columns=["shown", "q"])
    return verdict_table([]).drop(columns="q").rename_axis("paper")


def coloured(found: pd.DataFrame) -> Styler:
    """Return a table of verdicts for a page, verdicts in colour; the same bytes on each run."""
    return claims.coloured(found.reset_index(), "papers")


def this_study(params: CompareParams, data: DataSet) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
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
