"""The figures of the Plant 'n' Seek notebook's searches: each draws one question and says it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from ticketlab import labels, plugins
from ticketlab.papers.plant_n_seek import success as rates
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import (
    FOUND_DECADES,
    FOUND_POINTS,
    METHODS,
    SEARCHES,
    is_accuracy,
    of_main,
    shown_methods,
)
from ticketlab.study.plots import (
    GREY,
    by_arm,
    legend,
    number,
    panels,
    says,
    within,
)
from ticketlab.study.stats import BySeed, Interval, each_seed, over_seeds

TASKS = ("circle", "relu", "helix")
POPPED = ("plain", "annealed")
"""Edge-popup's variants, beside the methods that prune by a score."""
SHARES = LinearSegmentedColormap.from_list("shares", ["#f0b060", "#f6f3ee", "#4266ba"])
"""From orange (no seed finds a ticket) to blue (all do)."""


def tasks_of(frame: pd.DataFrame) -> list[str]:
    """Return the frame's tasks in the order of the paper."""
    return [task for task in TASKS if task in set(frame.task)]


def nearness(task: str) -> str:
    """Return in words how near the planted ticket's score counts as found."""
    return f"{FOUND_POINTS:g} points" if task == "circle" else f"{10**FOUND_DECADES:g} x the error"


def density_named(density: float, label: str) -> str:
    """Name a density on an axis or panel: '0.1', or '0.0052 (ticket's)'."""
    return f"{density:.2g} (ticket's)" if label == "gt" else f"{density:g}"


# ---------------------------------------------------------------- success rates


def success(shares: pd.DataFrame, params: PlantParams) -> Figure:
    """Draw in how many seeds a ticket is found: targets in columns, kinds of search below another.

    Each cell is a method at a density, coloured by the share of seeds, with its exact interval.
    Cells that were not run stay empty.
    """
    tasks = tasks_of(shares)
    regimes = [name for name in rates.REGIMES if name in set(shares.regime)]
    methods = {name: methods_of(shares[shares.regime == name], params) for name in regimes}
    densities = {task: sorted(set(shares[shares.task == task].density)) for task in tasks}
    sizes = {
        "height_ratios": [len(methods[name]) for name in regimes],
        "width_ratios": [len(densities[task]) for task in tasks],
    }
    figure, grid = plt.subplots(
        len(regimes),
        len(tasks),
        figsize=(2 + 0.68 * sum(sizes["width_ratios"]), 1.2 + 0.36 * sum(sizes["height_ratios"])),
        sharex="col",
        sharey="row",
        squeeze=False,
        gridspec_kw=sizes,
        layout="constrained",
    )
    for line, regime in zip(grid, regimes, strict=True):
        line[0].set_ylabel(labels.label(regime))
        for ax, task in zip(line, tasks, strict=True):
            rows = shares[(shares.regime == regime) & (shares.task == task)]
            _cells(ax, rows, methods[regime], densities[task])
    for ax, task in zip(grid[0], tasks, strict=True):
        ax.set_title(f"{labels.label(task)} (within {nearness(task)})", fontsize=10)
        _density_ticks(grid[-1][tasks.index(task)], shares[shares.task == task])
    figure.align_ylabels(grid[:, 0])
    figure.supxlabel(
        "density: share of the weights kept. Cells: seeds that find a ticket of all seeds, "
        "[exact 95 % interval in %]",
        fontsize=8.5,
    )
    return says(figure, rates.at_the_tickets_density(shares))


def methods_of(rows: pd.DataFrame, params: PlantParams) -> list[str]:
    """Return the methods that these rows have, in the order of all figures."""
    return [name for name in (*shown_methods(params), *POPPED) if name in set(rows.method)]


def _cells(ax: Axes, rows: pd.DataFrame, methods: Sequence[str], densities: list[float]) -> None:
    """Draw one cell per method and density."""
    heat = np.full((len(methods), len(densities)), np.nan)
    for _, row in rows[rows.method.isin(methods)].iterrows():
        y, x = methods.index(row.method), densities.index(row.density)
        heat[y, x] = row["mean"]
        ink = "white" if row["mean"] > 75 else "black"
        found = f"{row.k}/{row.n}"
        ax.text(x, y - 0.04, found, ha="center", va="bottom", fontsize=8.5, color=ink)
        ax.text(x, y + 0.06, rates.bounds(row), ha="center", va="top", fontsize=6, color=ink)
    ax.pcolormesh(
        np.arange(len(densities) + 1) - 0.5,
        np.arange(len(methods) + 1) - 0.5,
        np.ma.masked_invalid(heat),
        cmap=SHARES,
        vmin=0,
        vmax=100,
        edgecolors="white",
        lw=1,
    )
    ax.set_yticks(range(len(methods)), [labels.label(name) for name in methods])
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.grid(visible=False)


def _density_ticks(ax: Axes, rows: pd.DataFrame) -> None:
    """Name the columns of a target by their densities."""
    named = dict(zip(rows.density, rows.label, strict=True))
    texts = [density_named(d, named[d]).replace(" ", "\n") for d in sorted(named)]
    ax.set_xticks(range(len(texts)), texts, fontsize=8.5)


# ---------------------------------------------------------------- arms as rows, by density


def by_density(
    frame: pd.DataFrame, lines: Mapping[str, pd.DataFrame], arms: Sequence[str]
) -> tuple[Figure, np.ndarray]:
    """Draw arms as rows, densities in columns, and one line of panels for each of `lines`.

    Frames have columns arm, label, density, seed, mother and y. Every seed is a dot, with the mean
    and its 95 % interval; crosses are the same search where nothing is planted. Returns the figure
    and its panels (lines, densities).
    """
    if not lines:
        return plt.figure(), np.empty((0, 0))
    steps = frame.groupby("label").density.mean().sort_values()
    heights = [0.5 + len(set(rows.arm)) for rows in lines.values()]
    size = (1.6 + 2.5 * len(steps), 0.8 + 0.36 * sum(heights))
    figure, grid = plt.subplots(
        len(lines),
        len(steps),
        figsize=size,
        sharey="row",
        sharex="row",
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for line, (name, rows) in zip(grid, lines.items(), strict=True):
        own = [arm for arm in arms if arm in set(rows.arm)]
        for ax, (label, density) in zip(line, steps.items(), strict=True):
            part = rows[rows.label == label]
            bare = part[part.mother == "unplanted"]
            by_arm(ax, {f"{a}, not planted": _seeds(bare, a) for a in own}, line=None, shift=0.3)
            by_arm(ax, {a: _seeds(part[part.mother == "planted"], a) for a in own}, line=None)
            title = f"density {density_named(density, str(label))}"
            ax.set_title(": ".join(filter(None, (name, title))), fontsize=9)
            ax.set_visible(not part.empty)
        first = next((ax for ax in line if ax.get_visible()), line[0])
        first.tick_params(labelleft=True)  # the shared labels are on the first panel, seen or not
    if (frame.mother == "unplanted").any():
        grid[0][0].plot([], [], "x", color=GREY, label="nothing planted")
    return figure, grid


def _seeds(rows: pd.DataFrame, arm: str) -> BySeed:
    return each_seed(rows[rows.arm == arm], "y")


def found(scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Draw the score of trained masks by density on the first target: one shot above many rounds.

    Lines are the planted ticket, the same ticket trained, and the dense net.
    """
    rows = of_main(scores, params)
    task = tasks_of(rows)[0]
    rows = rows[(rows.task == task) & rows.weak.notna()]
    known = rows.assign(arm=rows.method, y=_on_axis(rows.weak, task))
    shown = known[known.regime.isin(SEARCHES) & known.method.isin(shown_methods(params))]
    lines = {
        labels.label(regime): shown[shown.regime == regime]
        for regime in SEARCHES
        if regime in set(shown.regime)
    }
    ticket = _on_axis(rows.ticket, task).mean()
    figure, grid = by_density(shown, lines, shown_methods(params))
    for ax in grid.flat:
        ax.axvline(ticket, color="k", ls="--", lw=1, label="planted ticket, untrained")
        for name, style in (("oracle", "-."), ("dense", ":")):
            if len(own := known[known.method == name]):
                ax.axvline(own.y.mean(), color=GREY, ls=style, lw=1.2, label=_trained(name))
        if is_accuracy(task):
            within(ax, side="x")
    unit = "test accuracy (%)" if is_accuracy(task) else "log10 of the test error"
    figure.supxlabel(f"{unit}, after the last epoch", fontsize=10)
    legend(figure, "below")
    return says(figure, _nearest(shown, ticket, task))


def _on_axis(scores: pd.Series, task: str) -> pd.Series:
    """Return accuracies in percent as they are, and the logarithm of errors."""
    values = scores.astype(float)
    return values if is_accuracy(task) else values.clip(lower=1e-12).map(np.log10)


def _trained(name: str) -> str:
    return {"oracle": "planted ticket, trained", "dense": "dense net"}[name]


def _nearest(rows: pd.DataFrame, ticket: float, task: str) -> str:
    """Say what the best search of each kind reaches at the ticket's density."""
    own = rows[(rows.label == "gt") & (rows.mother == "planted")]
    unit, sign = ("%", 1) if is_accuracy(task) else ("log10 MSE", -1)
    best = []
    for regime in SEARCHES:
        means = sign * own[own.regime == regime].groupby("arm").y.mean()
        if len(means):
            arm = str(means.idxmax())
            reached = _over_seeds(own[(own.regime == regime) & (own.arm == arm)])
            best.append(f"{number(reached, unit)} in {labels.label(regime)} ({labels.label(arm)})")
    whose = f"{labels.label(task)}'s planted ticket, which scores {ticket:.1f} {unit},"
    return f"At the density of {whose} the best search reaches {' and '.join(best) or 'nothing'}."


def _over_seeds(rows: pd.DataFrame) -> Interval:
    return over_seeds(each_seed(rows, "y"))


def overlap(scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Draw the share of the planted ticket that masks of many rounds keep, by density.

    The grey line is a random mask.
    """
    rows = of_main(scores, params)
    rows = rows[(rows.regime == "multishot") & rows.method.isin(shown_methods(params))]
    rows = rows[rows.task != "relu"].assign(arm=rows.method, y=100 * rows.recall)
    lines = {labels.label(task): rows[rows.task == task] for task in tasks_of(rows)}
    figure, grid = by_density(rows, lines, shown_methods(params))
    for line, part in zip(grid, lines.values(), strict=True):
        for ax, label in zip(line, _labels(rows), strict=True):
            density = part[part.label == label].density.mean()
            ax.axvline(100 * density, color=GREY, ls="--", lw=1, label="random mask")
            within(ax, side="x")
    figure.supxlabel("planted entries kept (%)", fontsize=10)
    legend(figure, "below")
    return says(figure, _kept(rows))


def _labels(rows: pd.DataFrame) -> list[str]:
    """Return the labels of the densities, lowest first, as `by_density` orders its columns."""
    return [str(label) for label in rows.groupby("label").density.mean().sort_values().index]


def _kept(rows: pd.DataFrame) -> str:
    """Say how much of the planted ticket the best method keeps at the ticket's density."""
    own = rows[(rows.label == "gt") & (rows.mother == "planted")]
    if own.empty:
        return "No search at the density of the planted ticket."
    means = own.groupby(["task", "arm"], as_index=False).y.mean()
    task, arm = means.loc[means.y.idxmax(), ["task", "arm"]]
    kept = _over_seeds(own[(own.task == task) & (own.arm == arm)])
    much = "Most" if kept.mean > 50 else "Little"
    return (
        f"{much} of the planted ticket is in the masks at its density: at best "
        f"{number(kept, '%')} of the entries, by {labels.label(arm)} on {labels.label(task)}."
    )


# ---------------------------------------------------------------- cost


def cost(board: pd.DataFrame) -> Figure:
    """Draw the leaderboard: how many times the ticket's density each search needs, by target.

    Full markers are one shot, hollow ones many rounds; a search without marker never finds a ticket
    in most seeds.
    """
    tasks, names = tasks_of(board), [m for m in METHODS if m in set(board.method)]
    names += sorted(filter(plugins.is_plugin, set(board.method)))
    figure, axes = panels(len(tasks), 3.9, 0.42 * len(names) + 1.6, sharey=True)
    for ax, task in zip(axes, tasks, strict=True):
        _needs(ax, board[(board.task == task) & board.method.isin(names)], names)
        ax.set(title=labels.label(task), xlabel="smallest density / ticket's density")
    for regime, fill in (("singleshot", "full"), ("multishot", "none")):
        if len(rows := board[board.regime == regime]):
            name = f"{labels.label(regime)}, {rows.steps.max():,} optimiser steps"
            axes[0].plot([], [], "o", color=GREY, fillstyle=fill, label=name)
    axes[0].set_yticks(range(len(names)), [labels.label(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    legend(figure, "below")
    return says(figure, rates.least(board))


def _needs(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    """Draw one target: a marker per search that finds a ticket, 'never' for one that does not."""
    times = rows["times the ticket's"]
    far = 2.0 * max(2.0, times.max() if times.notna().any() else 2.0)
    for _, row in rows.iterrows():
        many = row.regime == "multishot"
        place, style = names.index(row.method) + (0.16 if many else -0.16), labels.look(row.method)
        if row["times the ticket's"] == row["times the ticket's"]:
            ax.plot(
                row["times the ticket's"],
                place,
                style["marker"],
                color=style["color"],
                fillstyle="none" if many else "full",
                ms=7.5,
            )
        else:
            text = f"{labels.label(row.regime)}: never"
            ax.text(far, place, text, ha="right", va="center", fontsize=7, color=GREY)
    ax.set(xscale="log", xlim=(0.7, 1.2 * far))
    ax.xaxis.set_major_locator(FixedLocator([t for t in (1, 2, 5, 20, 100, 500) if t < far]))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t:g} x"))
