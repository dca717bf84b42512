"""Tables of the Plant 'n' Seek study: scores, curves, layers, overlap, and cost.

A `margin` compares a score with the planted ticket's own on the same test set: in accuracy points
for Circle, in decades of mean squared error for ReLU and Helix. 0 equals the ticket, negative is
worse.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log10
from typing import Any

import pandas as pd
import torch

from ticketlab import labels, plugins
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm import gauge
from ticketlab.papers.plant_n_seek.params import Case, PlantParams, cases, way
from ticketlab.pruning.saliency import kept_at
from ticketlab.study import regime, tables
from ticketlab.study.plots import summarise
from ticketlab.study.results import Result
from ticketlab.study.stats import share
from ticketlab.training.recipe import epoch_steps

Results = Mapping[str, Result]

CELL = ["task", "depth", "width", "noise", "mother", "regime", "method", "label"]
"""Columns that identify an arm; with a seed they identify one net."""
METHODS = ("random", "magnitude", "snip", "grasp", "synflow", "synflow_rounds", "grasp_local")
"""The built-in methods that figures and the leaderboard show."""
CONTROLS = ("dense", "oracle", "oracle_unit", "oracle_shuffled", "oracle_reinit", "narrow_dense")
"""Controls shown with the searches, which did not search for anything."""
ONE_SHOT = ("random", "magnitude", "snip", "grasp", "synflow")
"""The paper's singleshot methods."""
TRAINED = ("magnitude", "snip", "synflow")
"""Multishot methods that the paper finds good."""
SPARSE = 0.011
"""Up to this density the paper calls a ticket sparse: 0.01 and, at depth 5, the ticket's own."""
FOUND_POINTS, FOUND_DECADES = 10.0, 1.0
"""A net has found a ticket if its score is this near to the planted one's, in accuracy points
(Circle) or decades of error. The paper has no such number."""
PRINTED = {"circle": 0.16, "relu": 0.01, "helix": 0.29}
"""Ground-truth densities that the paper prints, for depth 3 (appendix)."""


def shown_methods(params: PlantParams) -> tuple[str, ...]:
    """Return the methods that figures show: METHODS, and the study's plug-in criteria."""
    chosen = [name for grid in params.grids for name in (*grid.singleshot, *grid.multishot)]
    return (*METHODS, *dict.fromkeys(filter(plugins.is_plugin, chosen)))


def built_in(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without plug-in criteria: the paper's claims are about its methods."""
    return frame[~frame.method.map(plugins.is_plugin).astype(bool)]


def main_case(params: PlantParams) -> Case:
    """Return the main cell of the study: the first one of the first grid with controls."""
    grids = [grid for grid in params.grids if grid.controls] or list(params.grids)
    return cases(grids[0])[0]


def arms(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Return the rows whose columns have these values; a tuple allows any of its values."""
    for column, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        frame = frame[frame[column].isin(allowed)]
    return frame


def of_main(frame: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return the rows at the main cell's depth, width and noise, for every task."""
    case = main_case(params)
    same = (frame.depth == case.depth) & (frame.width == case.width) & (frame.noise == case.noise)
    return frame[same]


# ---------------------------------------------------------------- tables


def scores_table(results: Results) -> pd.DataFrame:
    """Return one row per pruned net: its keys, entries kept and connected, scores, margins.

    `weak` is after training; `raw`, `scalar` and `per_output` are strong scores (no training),
    unscaled and with one fitted scale in all or one per output. Accuracies in percent.
    """
    rows = []
    for result in _with_rows(results):
        head, ticket = result.record["head"], result.record["ticket"]
        for row in result.record["rows"]:
            strong = row.get("strong", {})
            plain = {k: v for k, v in row.items() if k not in ("strong", "layers", "curve")}
            scores = {"weak": row.get("weak")} | {
                key: strong.get(key) for key in ("raw", "scalar", "per_output")
            }
            rows.append(head | plain | _scored(scores, ticket["score"], head["task"]))
    return pd.DataFrame(rows)


def _with_rows(results: Results) -> list[Result]:
    apart = ("audit/", "conv/")
    return [result for name, result in results.items() if not name.startswith(apart)]


def _scored(
    scores: Mapping[str, float | None], ticket: float, task: str
) -> dict[str, float | None]:
    """Return scores in the table's units, the ticket's, and each score's margin."""
    unit = 100.0 if is_accuracy(task) else 1.0
    found: dict[str, float | None] = {"ticket": unit * ticket}
    for name, score in scores.items():
        found[name] = None if score is None else unit * score
        found[f"{name}_margin"] = None if score is None else margin(score, ticket, task)
    return found


def margin(score: float, ticket: float, task: str) -> float:
    """Return how much better than the ticket: accuracy points, or decades of mean squared error."""
    if is_accuracy(task):
        return 100 * (score - ticket)
    return -log10(max(score, 1e-12) / max(ticket, 1e-12))


def is_found(rows: pd.DataFrame, column: str = "weak_margin") -> pd.Series:
    """Return whether each row's score is near enough to the planted ticket's to count as found."""
    allowed = rows.task.map(lambda task: FOUND_POINTS if is_accuracy(task) else FOUND_DECADES)
    return rows[column] >= -allowed


def is_accuracy(task: str) -> bool:
    """Return whether a task's score is an accuracy, not an error."""
    return algorithm.task_named(task).kind == "classification"


def plot_table(scores: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return Circle's trained nets for `dvc plots show`: arm, seed, density, accuracy."""
    rows = of_main(scores, params)
    rows = rows[(rows.task == "circle") & rows.regime.isin(["singleshot", "multishot"])]
    rows = rows[rows.method.isin(shown_methods(params)) & rows.weak.notna()]
    arm = rows.regime + " " + rows.method + rows.mother.map({"planted": ""}).fillna(", not planted")
    return rows.assign(arm=arm)[["arm", "seed", "density", "weak"]]


def layers_table(results: Results, params: PlantParams) -> pd.DataFrame:
    """Return one row per tensor of a pruned net of the main cell: the density of its entries."""
    rows = []
    for result in _with_rows(results):
        head = result.record["head"]
        for row in result.record["rows"]:
            named = head | {key: row[key] for key in ("method", "label")}
            layers = row.get("layers", {})
            rows += [named | {"tensor": name, "kept": kept} for name, kept in layers.items()]
    return of_main(pd.DataFrame(rows), params)


def curves_table(results: Results) -> pd.DataFrame:
    """Return one row per epoch of edge-popup: its strong score, with one scale per output."""
    rows = []
    for name, result in results.items():
        if not name.startswith("popup/"):
            continue
        head, ticket = result.record["head"], result.record["ticket"]["score"]
        for row in result.record["rows"]:
            named = head | {key: row[key] for key in ("method", "label")}
            for epoch, score in enumerate(row["curve"], start=1):
                scored = _scored({"score": score}, ticket, head["task"])
                rows.append(named | {"epoch": epoch} | scored)
    return pd.DataFrame(rows)


def audit_table(results: Results, part: str = "rows") -> pd.DataFrame:
    """Return the planting audit, one row per mode and seed; "ranks": per criterion and tensor."""
    rows = []
    for name, result in results.items():
        if name.startswith("audit/"):
            rows += [result.record["head"] | row for row in result.record[part]]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- exact checks

SEARCHES = ("singleshot", "multishot")
"""Regimes that prune by a score."""


def tensor_sizes(task: str, depth: int, width: int) -> list[int]:
    """Return the entries of a mother's weights and biases, tensor by tensor."""
    chosen = algorithm.task_named(task)
    shape = [chosen.inputs, *[width] * (depth - 2), chosen.outputs]
    return [size for before, after in pairwise(shape) for size in (before * after, after)]


def asked(method: str, sizes: Sequence[int], density: float) -> int:
    """Return the entries to keep at a density: of the whole net, or per tensor if local."""
    groups = sizes if way(method).local else [sum(sizes)]
    return sum(kept_at(size, density) for size in groups)


def kept_as_asked(scores: pd.DataFrame) -> pd.Series:
    """Return whether each mask of a search keeps exactly the number of entries for its density."""
    rows = scores[scores.regime.isin(SEARCHES) & ~scores.method.isin(CONTROLS)]
    cells = zip(rows.method, rows.task, rows.depth, rows.width, rows.density, strict=True)
    return rows.kept == [
        asked(method, tensor_sizes(task, depth, width), density)
        for method, task, depth, width, density in cells
    ]


# ---------------------------------------------------------------- tables for the page


def targets_table(depths: tuple[int, ...], width: int, count: int = 100_000) -> pd.DataFrame:
    """Return the hand-built tickets: non-zeros, density in a mother of `width`, clean score."""
    rows = []
    for task, depth in [(task, depth) for task in algorithm.TASKS for depth in depths]:
        net, score = algorithm.target(task, depth), noise_free_score(task, depth, count)
        kept = algorithm.nonzeros(net)
        shape = [
            algorithm.TASKS[task].inputs,
            *[width] * (depth - 2),
            algorithm.TASKS[task].outputs,
        ]
        rows.append(
            {
                "task": task,
                "depth": depth,
                "weights": sum(int(kept[n].sum()) for n in kept if n.startswith("weight")),
                "biases": sum(int(kept[n].sum()) for n in kept if n.startswith("bias")),
                "density": algorithm.ground_truth_density(net, shape),
                "density printed": PRINTED[task] if depth == 3 else None,
                "accuracy %": 100 * score if is_accuracy(task) else None,
                "MSE": None if is_accuracy(task) else score,
            }
        )
    table = pd.DataFrame(rows).set_index(["task", "depth"])
    return table.rename(index=labels.label, level="task").rename_axis(index=["target", "depth"])


def noise_free_score(task: str, depth: int, count: int) -> float:
    """Return the hand-built net's accuracy or error on `count` samples without noise."""
    x, y = algorithm.sample(task, count, 0.0, torch.Generator().manual_seed(0))
    outputs = stacks.forward(algorithm.target(task, depth), x)
    return gauge.score(outputs, y, algorithm.TASKS[task].kind)


def controls_table(scores: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return trained controls of the main cell, and the untrained ticket: mean and interval."""
    rows = of_main(scores, params)
    names = list(CONTROLS)
    known = rows[rows.method.isin(names)]
    found = summarise(known, ["method", "task"], "weak")
    bounds = zip(found["mean"], found.low, found.high, strict=True)
    found["text"] = [f"{mean:.4g} [{low:.3g}, {high:.3g}]" for mean, low, high in bounds]
    table = found.pivot(index="method", columns="task", values="text").reindex(names)
    table.loc["ticket, untrained"] = known.groupby("task").ticket.mean().map("{:.4g}".format)
    return named(table).rename_axis(index="trained", columns=None)


def overlap_table(scores: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return the planted ticket's share in the masks (recall, %), with and without planting."""
    rows = of_main(scores, params)
    rows = rows[rows.regime.isin(["singleshot", "multishot"]) & ~rows.method.isin(CONTROLS)]
    both = set(rows[rows.mother == "unplanted"].method)
    found = rows[rows.method.isin(both)].assign(recall=100 * rows.recall)
    index = ["task", "regime", "method", "label"]
    return found.pivot_table(index=index, columns="mother", values="recall").reset_index()


def steps(params: PlantParams, regime: str) -> int:
    """Return the optimiser steps of one net until its weak score is known."""
    epochs = params.fit.epochs
    if regime == "multishot":
        epochs += params.rounds * params.round_epochs
    return epochs * epoch_steps(params.train, params.fit.batch)


def visibility_table(audits: pd.DataFrame) -> pd.DataFrame:
    """Return by task and planting mode how the ticket differs from the other weights."""
    columns = {
        "largest": "largest |w| / sigma",
        "zeros": "exact zeros",
        "auroc": "AUROC of a classifier",
        "factor_spread": "output factors, largest / smallest",
        "raw": "ticket's strong score, raw",
        "score": "factors divided out",
    }
    groups = audits.groupby(["task", "mode"])
    loud = groups.loud.agg(lambda loud: str(share((loud > 0).tolist())))
    found = groups[list(columns)].mean().rename(columns=columns).map("{:.3g}".format)
    found.insert(0, "seeds with a weight beyond 6 sigma", loud)
    return named(found).rename_axis(["target", "planted"])


def rank_table(ranks: pd.DataFrame) -> pd.DataFrame:
    """Return how often a planted weight outranks another of its layer, mean over seeds."""
    rows = ranks[ranks.tensor.str.startswith("weight") & (ranks.mother == "planted")]
    table = rows.pivot_table(index=["task", "mode"], columns="method", values="auroc").round(2)
    return named(table).rename_axis(index=["target", "planted"], columns=None)


def column(density: str) -> str:
    """Name the density of a search in a table: 'density 0.1', or the ticket's own."""
    return "the ticket's density" if density == "gt" else f"density {density}"


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with labels for the names in its index and columns."""
    return table.rename(index=labels.label, columns=labels.label)


def intervals_table(numbers: Mapping[str, Any], *groups: str) -> pd.DataFrame:
    """Format groups of metrics.json: the measure, and its mean or share of seeds, with 95 %."""
    rows = {
        (group, _measured(name)) if len(groups) > 1 else _measured(name): found
        for group in groups
        for name, found in numbers[group].items()
    }
    table = tables.intervals_column(rows, "mean [95 % interval]")
    if len(groups) > 1:
        table = table.rename(index=labels.labelled(groups), level=0)
    return table


def _measured(name: str) -> str:
    """Name a number of metrics.json; 'circle_paper' is a target and a planting mode."""
    if labels.known(name):
        return labels.label(name)
    task, _, mode = name.partition("_")
    return f"{labels.label(task)}, planted {labels.label(mode)}"


def this_study(params: PlantParams) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
    case, fit, popup = main_case(params), params.fit, params.popup
    data = f"{params.train:,} samples for train, {params.test:,} for test"
    return {
        "mothers": f"depth {case.depth}, width {case.width} in the main cells; planted by the "
        f"rule `{params.mode}`",
        "data of a task": f"{data}, {params.probe} to score on, noise {case.noise:g}",
        "training": f"{fit.epochs} epochs of {fit.batch} samples, learning rate {fit.lr:g}",
        "multishot": f"{params.rounds} x {params.round_epochs} epochs",
        "edge-popup": f"{popup.epochs} epochs of {popup.batch} samples",
        "audit": regime.seeds(params.audits),
        "convolutional ticket": _conv_said(params),
        "seeds": regime.seeds(params.seeds),
    }


def _conv_said(params: PlantParams) -> str:
    conv = params.conv
    if conv is None:
        return "none"
    ticket, mother = conv.ticket_model, conv.model
    nets = f"{ticket.name} of width {ticket.width}, in one of width {mother.width or 'published'}"
    ranked = "jointly" if conv.joint else "apart"
    gains = ", ".join(conv.gains)
    return (
        f"{nets}; {conv.data.name}; weights and biases ranked {ranked}, {conv.levels} runs of "
        f"edge-popup of {conv.popup_recipe.length}, gains: {gains}"
    )
