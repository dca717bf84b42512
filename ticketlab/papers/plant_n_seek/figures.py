"""The figures of the Plant 'n' Seek notebook: each takes tables or nets and draws one question."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ticketlab import plugins
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm.tasks import helix_curve
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import (
    FOUND_DECADES,
    FOUND_POINTS,
    METHODS,
    SEARCHES,
    of_main,
    shown_methods,
)
from ticketlab.study.plots import PALETTE, Look, curves, error_bars, look

UNITS = {"circle": "test accuracy (%)", "relu": "log10 test MSE", "helix": "log10 test MSE"}
SIGNS = np.array([PALETTE[3], PALETTE[0]])
"""Colours of negative and positive weights."""


def looks(params: PlantParams) -> dict[str, Look]:
    """Colour and marker of each method, the same in every figure."""
    return look(shown_methods(params))


def shown(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame with `y`: the column in percent for Circle, its log10 for the regression tasks."""
    values = frame[column].astype(float)
    logs = np.log10(values.clip(lower=1e-12))
    return frame.assign(y=values.where(frame.task == "circle", logs), arm=frame.method)


# ---------------------------------------------------------------- the ticket itself


def ticket(planted: algorithm.Planted, neurons: int = 40) -> Figure:
    """The planted ticket inside its mother: edge width |w|, colour the sign; dots are neurons.

    Up to `neurons` are drawn in each layer, those outside the ticket evenly spread.
    """
    figure, ax = plt.subplots(figsize=(10, 4.5))
    heights = [_heights(places, width, neurons) for places, width in _shape(planted)]
    for layer, (own, others) in enumerate(heights):
        ax.plot([layer] * len(others), others, "o", color="0.85", ms=3)
        ax.plot([layer] * len(own), list(own.values()), "o", color="0.25", ms=5, zorder=3)
    for layer, (weight, _) in enumerate(stacks.layers(planted.ticket())):
        _edges(ax, layer, weight.numpy(), heights[layer][0], heights[layer + 1][0])
    names = ["inputs", *[f"hidden {n}" for n in range(1, len(heights) - 1)], "outputs"]
    ax.set_xticks(range(len(heights)), names)
    ax.set(yticks=[], title="The planted ticket (dark) among its mother's neurons (light)")
    ax.grid(visible=False)
    for sign, color in zip(("negative", "positive"), SIGNS, strict=True):
        ax.plot([], [], color=color, label=f"{sign} weight")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def _shape(planted: algorithm.Planted) -> list[tuple[list[int], int]]:
    widths = stacks.widths(planted.mother)
    return [(p.tolist(), n) for p, n in zip(planted.places, widths, strict=True)]


def _heights(places: list[int], width: int, neurons: int) -> tuple[dict[int, float], list[float]]:
    """Where the ticket's neurons (by place) and others stand, in the mother's order."""
    free = [n for n in range(width) if n not in places]
    spread = np.linspace(0, len(free) - 1, max(0, min(len(free), neurons - len(places))))
    others = [free[int(place)] for place in spread]
    order = sorted([*places, *others])
    at = dict(zip(order, np.linspace(1, 0, len(order) + 2)[1:-1], strict=True))
    return {n: at[n] for n in sorted(places)}, [at[n] for n in others]


def _edges(
    ax: Axes, layer: int, weight: np.ndarray, left: dict[int, float], right: dict[int, float]
) -> None:
    rows, columns = weight.nonzero()
    values = weight[rows, columns]
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    ends = [[(layer, left[r]), (layer + 1, right[c])] for r, c in pairs]
    width = 0.3 + 2.7 * np.abs(values) / np.abs(values).max()
    ax.add_collection(LineCollection(ends, colors=SIGNS[(values > 0).astype(int)], lw=width))


def computed(circle: algorithm.Planted, helix: algorithm.Planted) -> Figure:
    """What two planted tickets compute: Circle's decision map and the Helix curve."""
    figure = plt.figure(figsize=(10, 4.5))
    _decision_map(figure.add_subplot(1, 2, 1), circle)
    ax: Any = figure.add_subplot(1, 2, 2, projection="3d")
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    ax.plot(*helix_curve(x).numpy().T, color="0.6", lw=4, label="wanted")
    ax.plot(*helix.outputs(x).numpy().T, color=PALETTE[3], lw=1.2, label="planted ticket")
    ax.set_title("Helix")
    ax.legend(fontsize=8)
    return figure


def _decision_map(ax: Axes, planted: algorithm.Planted) -> None:
    line = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    classes = planted.outputs(grid).argmax(1).reshape(201, 201).T.numpy()
    image = plt.cm.colors.ListedColormap(PALETTE[:4])  # type: ignore[attr-defined]
    ax.imshow(classes, extent=(-1, 1, -1, 1), origin="lower", cmap=image, alpha=0.75)
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in algorithm.ring_radii():
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), "k--", lw=0.8)
    ax.set(title="Circle: classes of the planted ticket", xlabel="x1", ylabel="x2")
    ax.grid(visible=False)


def one_neuron(
    biases: np.ndarray, weights: np.ndarray, wanted: np.ndarray, place: int, factor: float
) -> Figure:
    """All neurons of a layer with one input as points, the wanted direction, and the winner."""
    figure, ax = plt.subplots(figsize=(6, 4.6))
    ax.plot(biases, weights, "o", color="0.7", ms=4, label="random neurons of the mother")
    reach = 1.1 * max(np.abs(biases).max(), np.abs(weights).max())
    line = np.array([-reach, reach]) / np.abs(wanted).max()
    ax.plot(line * wanted[0], line * wanted[1], "--", color="0.4", lw=1, label="target's direction")
    ax.plot(biases[place], weights[place], "o", color=PALETTE[1], ms=9, label="best aligned")
    planted = factor * wanted
    ax.plot(*planted, "*", color=PALETTE[3], ms=13, label="what is planted there")
    ax.set(xlabel="bias", ylabel="weight", title="Which neuron can play the target's?")
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    ax.legend(fontsize=8)
    return figure


def hidden(planted: dict[str, algorithm.Planted]) -> Figure:
    """|w| in standard deviations of the initialisation: planted entries and all others, by mode."""
    figure, axes = plt.subplots(1, len(planted), figsize=(11, 3.4), sharex=True, sharey=True)
    bins = np.logspace(-4, 3, 43)
    for ax, (mode, one) in zip(np.atleast_1d(axes), planted.items(), strict=True):
        scaled = torch.cat([v.flatten() for v in algorithm.in_deviations(one.weights).values()])
        inside = one.mask.flat()
        for chosen, color, name in ((~inside, "0.7", "others"), (inside, PALETTE[3], "planted")):
            values = scaled[chosen].numpy()
            weights = np.full(len(values), 100 / len(values))
            ax.hist(values, bins=bins, weights=weights, color=color, alpha=0.65, label=name)
        ax.axvline(algorithm.LOUD, color="0.3", ls="--", lw=1)
        ax.set(xscale="log", title=f"planted as in: {mode}", xlabel="|w| / sigma")
    np.atleast_1d(axes)[0].set_ylabel("% of entries")
    np.atleast_1d(axes)[0].legend(fontsize=8)
    return figure


# ---------------------------------------------------------------- who finds it

COLUMNS = {
    "one shot, untrained": ("singleshot", "per_output"),
    "one shot, trained (last epoch)": ("singleshot", "weak"),
    "many rounds, trained (last epoch)": ("multishot", "weak"),
}


def found(scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Score against density by task (rows) and regime (columns), with the ticket's line, the
    trained oracle's, and dotted the same search in mothers without a ticket."""
    rows = of_main(scores, params)
    tasks = [task for task in ("circle", "relu", "helix") if task in set(rows.task)]
    figure, grid = plt.subplots(
        len(tasks), 3, figsize=(12, 3.1 * len(tasks)), sharex="row", sharey="row", squeeze=False
    )
    for line, task in zip(grid, tasks, strict=True):
        for ax, (title, (regime, column)) in zip(line, COLUMNS.items(), strict=True):
            _panel(ax, rows[rows.task == task], regime, column, looks(params))
            ax.set(title=f"{task}: {title}", xlabel="density (share kept)")
        line[0].set_ylabel(UNITS[task])
    handles = {text: line for ax in grid.flat for line, text in zip(*_legend(ax), strict=True)}
    figure.legend(handles.values(), handles, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.07 if len(tasks) > 1 else 0.16, 1, 1))
    return figure


def nearness(task: str) -> str:
    """How near a net must come to the planted ticket to count as a ticket, in words."""
    return f"{FOUND_POINTS:g} points" if task == "circle" else f"{10**FOUND_DECADES:g} x the error"


def success(shares: pd.DataFrame, params: PlantParams) -> Figure:
    """In how many seeds a weak ticket is found, with exact intervals: tasks in columns, one shot
    above many rounds; methods stand side by side at each density."""
    tasks = [task for task in ("circle", "relu", "helix") if task in set(shares.task)]
    regimes = [name for name in SEARCHES if name in set(shares.regime)]
    size = (4 * len(tasks), 2.6 * len(regimes) + 0.6)
    figure, grid = plt.subplots(len(regimes), len(tasks), figsize=size, sharey=True, squeeze=False)
    for line, regime in zip(grid, regimes, strict=True):
        for ax, task in zip(line, tasks, strict=True):
            rows = shares[(shares.regime == regime) & (shares.task == task)]
            _success_panel(ax, rows, looks(params))
            ax.set(title=f"{task}, {regime}: within {nearness(task)}", ylim=(-4, 104))
    for ax in grid[-1]:
        ax.set_xlabel("density (share kept)")
    for ax in grid[:, 0]:
        ax.set_ylabel("% of seeds")
    handles = {text: line for ax in grid.flat for line, text in zip(*_legend(ax), strict=True)}
    figure.legend(handles.values(), handles, loc="lower center", ncols=7, fontsize=8)
    figure.tight_layout(rect=(0, 0.09 if len(regimes) > 1 else 0.16, 1, 1))
    return figure


def _success_panel(ax: Axes, rows: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    names = [name for name in styles if name in set(rows.method)]
    densities = sorted(set(rows.density))
    places = {density: place for place, density in enumerate(densities)}
    for name, aside in zip(names, np.linspace(-0.3, 0.3, len(names)), strict=True):
        one = rows[rows.method == name]
        error_bars(ax, one.density.map(places) + aside, one, styles[name], label=name)
    ax.axhline(50, color="0.4", ls="--", lw=1)
    own = dict(zip(rows.density, rows.label == "gt", strict=True))
    ax.set_xticks(range(len(densities)), [f"{d:.2g}{' (gt)' * own[d]}" for d in densities])
    ax.set_xlim(-0.6, len(densities) - 0.4)


def _legend(ax: Axes) -> tuple[list[Any], list[str]]:
    return ax.get_legend_handles_labels()


def _panel(
    ax: Axes, rows: pd.DataFrame, regime: str, column: str, styles: Mapping[str, Look]
) -> None:
    own = shown(rows[(rows.regime == regime) & (rows.mother == "planted")], column)
    curves(ax, own, "density", "y", styles, "density")
    bare = shown(rows[(rows.regime == regime) & (rows.mother == "unplanted")], column)
    for name, style in styles.items():
        means = bare[bare.arm == name].groupby("density").y.mean()
        if len(means):
            ax.plot(means.index, means, ":", color=style["color"], lw=1.4)
    if bare.size:
        ax.plot([], [], ":", color="0.4", label="nothing planted")
    _lines(ax, rows, column)
    worst = 0.0 if (rows.task == "circle").all() else own.y.quantile(0.95) + 0.4
    best = 103.0 if worst == 0 else shown(own, "ticket").y.min() - 0.4
    ax.set(xscale="log", ylim=sorted((worst, best)))


def _lines(ax: Axes, rows: pd.DataFrame, column: str) -> None:
    """The ticket itself, the dense net, and the ticket's mask trained from its planted weights."""
    ax.axhline(shown(rows, "ticket").y.mean(), color="k", ls="--", lw=1, label="planted ticket")
    if column != "weak":
        return
    for name, style in (("oracle", "-."), ("dense", (0, (1, 3)))):
        known = shown(rows[rows.method == name], "weak").y
        if len(known):
            words = {"oracle": "planted ticket, trained", "dense": "dense net"}[name]
            ax.axhline(known.mean(), color="0.45", ls=style, lw=1.2, label=words)


def collapse(layers: pd.DataFrame, scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Layer densities of Circle's masks at the ticket's density, and whether any path is left."""
    regimes = ("singleshot", "multishot")
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.6))
    rows = layers[(layers.task == "circle") & (layers.label == "gt")]
    rows = rows[(rows.mother == "planted") & rows.method.isin(shown_methods(params))]
    alive = of_main(scores, params)
    alive = alive[(alive.task == "circle") & (alive.label == "gt") & (alive.mother == "planted")]
    for ax, regime in zip(axes, regimes, strict=True):
        part = rows[rows.regime == regime]
        heat = part.pivot_table(index="method", columns="tensor", values="kept")
        order: list[str] = sorted((str(name) for name in heat.columns), key=_layer)
        heat = heat[order]
        share = alive[alive.regime == regime].groupby("method").alive.mean()
        heat.index = [f"{name} ({100 * share[name]:.0f} % alive)" for name in heat.index]
        sns.heatmap(
            100 * heat,
            ax=ax,
            cmap="viridis",
            annot=True,
            fmt=".1f",
            annot_kws={"size": 7},
            cbar=False,
            vmin=0,
            vmax=10,
        )
        ax.set(title=f"{regime}: % kept of each tensor", xlabel="", ylabel="")
    figure.tight_layout()
    return figure


def _layer(tensor: str) -> tuple[str, str]:
    """Sorts tensors by their layer's number, biases before weights."""
    return tensor[-1], tensor


def overlap(scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Share of the planted ticket found by multishot masks; dotted: same places, not planted."""
    rows = of_main(scores, params)
    rows = rows[(rows.regime == "multishot") & (rows.task != "relu")]
    tasks = sorted(set(rows.task))
    figure, axes = plt.subplots(1, max(1, len(tasks)), figsize=(10, 3.8), squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=False):
        part = rows[rows.task == task].assign(recall=lambda f: 100 * f.recall)
        own = part[part.mother == "planted"].assign(arm=lambda f: f.method)
        curves(ax, own, "density", "recall", looks(params), "density")
        bare = part[part.mother == "unplanted"]
        for name, style in looks(params).items():
            means = bare[bare.method == name].groupby("density").recall.mean()
            ax.plot(means.index, means, ":", color=style["color"])
        density = np.sort(part.density.unique())
        ax.plot(density, 100 * density, color="0.6", lw=1, label="random mask")
        ax.set(xscale="log", title=task, xlabel="density", ylabel="planted entries kept (%)")
    if tasks:
        axes[0][0].legend(fontsize=8)
    return figure


# ---------------------------------------------------------------- edge-popup, audit, cost


def popup(table: pd.DataFrame, params: PlantParams) -> Figure:
    """Edge-popup's strong score after each epoch: heads in rows, tasks in columns."""
    rows = of_main(table[table.mother == "planted"], params)
    rows = rows.assign(arm=rows.method + ", density " + rows.label.astype(str))
    tasks = [task for task in ("circle", "relu", "helix") if task in set(rows.task)]
    heads, styles = sorted(set(rows.regime)), look(sorted(set(rows.arm)))
    figure, grid = plt.subplots(
        len(heads),
        len(tasks),
        figsize=(4 * len(tasks), 3.1 * len(heads)),
        sharex=True,
        sharey="col",
        squeeze=False,
    )
    for line, head in zip(grid, heads, strict=True):
        for ax, task in zip(line, tasks, strict=True):
            part = rows[(rows.task == task) & (rows.regime == head)]
            if part.empty:
                ax.set_axis_off()
                continue
            _learning(ax, shown(part.assign(method=part.arm), "score"), styles)
            ax.set(title=f"{task}, {head.removeprefix('popup_')} head", ylabel=UNITS[task])
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    figure.tight_layout()
    return figure


def _learning(ax: Axes, rows: pd.DataFrame, styles: dict[str, Look]) -> None:
    curves(ax, rows, "epoch", "y", styles, "epoch")
    if len(rows):
        ax.axhline(shown(rows, "ticket").y.mean(), color="k", ls="--", lw=1, label="planted ticket")
        ax.legend(fontsize=6.5)


def cost(board: pd.DataFrame) -> Figure:
    """Leaderboard: how many times the ticket's density each method needs, by task and cost."""
    tasks, names = sorted(set(board.task)), [m for m in METHODS if m in set(board.method)]
    names += sorted(filter(plugins.is_plugin, set(board.method)))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4 * len(tasks), 0.4 * len(names) + 1.9), sharey=True, squeeze=False
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        for regime, marker in (("singleshot", "o"), ("multishot", "D")):
            rows = board[(board.task == task) & (board.regime == regime)]
            near = rows[rows.method.isin(names)].dropna(subset=["density"])
            places = [names.index(method) for method in near.method]
            label = f"{regime}, {rows.steps.max():,} steps" if len(rows) else None
            ax.plot(near["times the ticket's"], places, marker, ms=8, alpha=0.8, label=label)
        ax.set(title=task, xlabel=f"smallest density within {nearness(task)} / ticket's")
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xscale("log" if board[board.task == task].density.notna().any() else "linear")
        ax.set_xlim(0.7, 2 * max(2, board["times the ticket's"].max()))
    axes[0][0].set_yticks(range(len(names)), names)
    handles, labels = _legend(axes[0][0])
    figure.legend(handles, labels, loc="lower center", ncols=2, fontsize=8)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    return figure


def visible(audits: pd.DataFrame) -> Figure:
    """How well a classifier that knows other seeds tells planted entries, by task and mode."""
    figure, ax = plt.subplots(figsize=(7, 3.4))
    tasks, modes = sorted(set(audits.task)), sorted(set(audits["mode"]))
    for shift, (mode, style) in zip(
        np.linspace(-0.2, 0.2, len(modes)), look(modes).items(), strict=True
    ):
        rows = audits[audits["mode"] == mode]
        places = [tasks.index(task) + shift for task in rows.task]
        ax.plot(places, rows.auroc, style["marker"], color=style["color"], ms=4, alpha=0.4)
        means = rows.groupby("task").auroc.mean().reindex(tasks)
        ax.plot(
            np.arange(len(tasks)) + shift,
            means,
            "_",
            color=style["color"],
            ms=26,
            mew=2.5,
            label=f"{mode} (n = {rows.seed.nunique()})",
        )
    ax.axhline(0.5, color="0.4", ls="--", lw=1, label="blind")
    ax.set_xticks(range(len(tasks)), tasks)
    ax.set(
        ylabel="AUROC",
        ylim=(0.3, 1.05),
        title="Can planted entries be distinguished from the others?",
    )
    ax.legend(fontsize=8, ncols=2)
    return figure
