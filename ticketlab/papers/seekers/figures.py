"""The figures of the study of newer seekers: each draws one question and says it.

`numbers` are those of metrics.json: what a figure says is what the page's tables and verdicts have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.papers.plant_n_seek.report import (
    FOUND_DECADES,
    FOUND_POINTS,
    arms,
    column,
    is_accuracy,
)
from ticketlab.papers.seekers.params import Crowds, SeekersParams
from ticketlab.papers.seekers.report import (
    GATES,
    POPUP,
    REGIMES,
    Numbers,
    crowd_rows,
    key_of,
    percent_found,
    single,
)
from ticketlab.study.plots import GREY, error_bars, legend, message, panels, says
from ticketlab.study.stats import Interval, as_interval, as_percent, each_seed, over_seeds

# ---------------------------------------------------------------- messages


def _at_middle(
    params: SeekersParams, numbers: Numbers, name: str, above: str, within: str, below: str
) -> str:
    """Say a number of gates on the first target at the middle density; see `message`."""
    task, density = params.tasks[0], str(params.densities[len(params.densities) // 2])
    found = numbers["gates"][task][name][key_of(density)]
    where = f"{labels.label(task)}, {column(density)}"
    return _placed(found, where, (above, within, below), _unit(task))


def _placed(
    found: Mapping[str, Any] | None,
    where: str,
    sentences: Sequence[str],
    unit: str,
    digits: int = 2,
) -> str:
    """Say the sentence (above, within or below 0) that fits a number, and where it was measured."""
    above, within, below = (f"{text} ({where})" for text in sentences)
    return message(as_interval(found), above, within, below, unit, digits)


def _unit(task: str) -> str:
    """Return the unit of a target's margins."""
    return "points" if is_accuracy(task) else "decades"


# ---------------------------------------------------------------- gates and edge-popup


def gates(scores: pd.DataFrame, params: SeekersParams, numbers: Numbers) -> Figure:
    """Draw how far gates and edge-popup end from the ticket, by density: one panel per target.

    Filled: with the ticket planted; hollow: nothing planted. Every seed is a dot; what counts as
    found is shaded.
    """
    figure, axes = panels(len(params.tasks), 4.0, 0.8 + 0.95 * len(params.densities), sharey=True)
    names = [str(density) for density in reversed(params.densities)]
    for ax, task in zip(axes, params.tasks, strict=True):
        _found_span(ax, task)
        for place, label in enumerate(names):
            for step, (method, copies) in enumerate(
                (method, copies) for method in (GATES, POPUP) for copies in (1, 0)
            ):
                values = single(scores, task, method, label, copies)
                if not values:
                    continue
                at, style = place + 0.18 * step - 0.27, dict(labels.look(method))
                style["fillstyle"] = "full" if copies else "none"
                ax.plot(list(values.values()), [at] * len(values), ".", color=style["color"],
                        alpha=0.3, ms=3)  # fmt: skip
                named = labels.label(method) + ("" if copies else ", nothing planted")
                error_bars(ax, at, over_seeds(values), style, label=named, upright=False, size=5.5)
        ax.set_yticks(range(len(names)), [column(label) for label in names])
        ax.set_xlim(right=0.5 * (FOUND_POINTS if is_accuracy(task) else FOUND_DECADES))
        ax.grid(False, axis="y")
        unit = "points of accuracy" if is_accuracy(task) else "decades of error"
        ax.set(title=labels.label(task), xlabel=f"{unit} against the ticket")
    axes[0].invert_yaxis()
    legend(figure, "below")
    return says(
        figure,
        _at_middle(
            params,
            numbers,
            "minus_popup",
            "Bernoulli gates come closer to the ticket than edge-popup",
            "Bernoulli gates and edge-popup do not differ clearly",
            "Bernoulli gates end further from the ticket than edge-popup",
        ),
    )


def _found_span(ax: Axes, task: str) -> None:
    """Shade what counts as found, and draw the ticket."""
    allowed = FOUND_POINTS if is_accuracy(task) else FOUND_DECADES
    ax.axvspan(-allowed, allowed, color="0.92", lw=0, label="counts as found", zorder=0)
    ax.axvline(0, color="k", ls="--", lw=1, label="planted ticket")


def soft(scores: pd.DataFrame, params: SeekersParams, numbers: Numbers) -> Figure:
    """Draw the margin of each mask against that of its gates before they are cut to 0 and 1.

    One dot per seed and density in mothers with a ticket; on the diagonal nothing is lost.
    """
    figure, axes = panels(len(params.tasks), 3.6, 3.6)
    for ax, task in zip(axes, params.tasks, strict=True):
        own = arms(scores, part="single", task=task, method=GATES, copies=1)
        for label, marker in zip(map(str, params.densities), "o^sDv<>", strict=False):
            rows = own[own.label == label]
            ax.plot(rows.soft_margin, rows.margin, marker, color=labels.colour(GATES), alpha=0.5,
                    ms=4, label=column(label))  # fmt: skip
        ax.axline((0, 0), slope=1, color=GREY, lw=1)
        ax.set(title=labels.label(task), xlabel=f"gates as they are ({_unit(task)})")
    axes[0].set_ylabel("gates cut to a mask")
    legend(figure, "below")
    return says(
        figure,
        _at_middle(
            params,
            numbers,
            "mask_minus_soft",
            "Cut to a mask, gates do better than as they are",
            "Cutting gates to a mask changes little",
            "Cutting gates to a mask loses something",
        ),
    )


# ---------------------------------------------------------------- crowds


def crowd(scores: pd.DataFrame, params: SeekersParams, numbers: Numbers) -> Figure:
    """Draw the percent of searches that find a ticket against the number of planted tickets.

    A row per target, a column per regime, a line per method: means over seeds, of both densities
    together, with their intervals.
    """
    own = scores[scores.part == "crowd"]
    regimes = [name for name in REGIMES if (own.regime == name).any()]
    size = (3.6 * len(regimes), 0.7 + 2.6 * len(params.crowds))
    figure, grid = plt.subplots(
        len(params.crowds), len(regimes), figsize=size, squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    counts: set[int] = set()
    for axes, crowds in zip(grid, params.crowds, strict=True):
        for ax, regime in zip(axes, regimes, strict=True):
            rows = arms(own, task=crowds.task, regime=regime)
            ax.set_visible(len(rows) > 0)
            names = list(dict.fromkeys(rows.method))
            for number, method in enumerate(names):
                shift = 0.12 * (number - (len(names) - 1) / 2)
                counts |= _line(ax, rows[rows.method == method], method, shift, crowds)
            ax.set(xlim=(-0.4, len(crowds.copies) - 0.6), ylim=(-5, 105))
            ax.set_xticks(range(len(crowds.copies)), list(map(str, crowds.copies)))
            ax.set_title(f"{labels.label(crowds.task)}, {labels.label(regime)}")
            ax.set_xlabel("planted tickets")
        axes[0].set_ylabel("% that find a ticket")
    n = " to ".join(map(str, sorted({min(counts), max(counts)})))
    figure.supxlabel(f"means over seeds with 95 % intervals (n = {n})")
    legend(figure, "below")
    first = params.crowds[0]
    sentences = (
        "More tickets are found more often",
        "Whether more tickets are found more often is open",
        "More tickets are found less often",
    )
    where = f"{labels.label(first.task)}, many rounds, {first.most} tickets against one"
    found = numbers["crowd"][first.task]["multishot"]["found_gain"]
    return says(figure, _placed(found, where, sentences, "% of searches", 1))


def _line(ax: Axes, rows: pd.DataFrame, method: str, shift: float, crowds: Crowds) -> set[int]:
    """Draw one method's percent of searches with a ticket by the number of tickets.

    Returns over how many seeds.
    """
    style = labels.look(method)
    drawn: dict[float, Interval] = {}
    for place, copies in enumerate(crowds.copies):
        found = as_interval(as_percent(percent_found(rows[rows.copies == copies])))
        if found:
            drawn[place + shift] = found
    ax.plot(list(drawn), [one.mean for one in drawn.values()], color=style["color"], lw=1.2)
    for number, (at, one) in enumerate(drawn.items()):
        error_bars(ax, at, one, style, label=None if number else labels.label(method))
    return {one.n for one in drawn.values()}


def gains(scores: pd.DataFrame, params: SeekersParams, numbers: Numbers) -> Figure:
    """Draw the margin with the most tickets minus that with one, by method: every seed a dot."""
    figure, axes = panels(len(params.crowds), 5.2, 3.4)
    for ax, crowds in zip(axes, params.crowds, strict=True):
        names: list[str] = []
        for regime in REGIMES:
            most, one = (crowd_rows(scores, crowds.task, regime, k) for k in (crowds.most, 1))
            for method in dict.fromkeys(most.method):
                by = [each_seed(rows[rows.method == method], "margin") for rows in (most, one)]
                values = {seed: by[0][seed] - by[1][seed] for seed in by[0] if seed in by[1]}
                style, at = labels.look(method), len(names)
                ax.plot(list(values.values()), [at] * len(values), ".", color=style["color"],
                        alpha=0.35, ms=4)  # fmt: skip
                error_bars(ax, at, over_seeds(values), style, upright=False, size=6)
                where = "" if regime == "untrained" else f", {labels.label(regime)}"
                names.append(f"{labels.label(method)}{where}")
        ax.axvline(0, color=GREY, lw=1)
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        title = f"{labels.label(crowds.task)}: {crowds.most} tickets minus one"
        ax.set(title=title, xlabel=f"{_unit(crowds.task)} nearer to the ticket")
    first = params.crowds[0]
    sentences = (
        "More tickets help searches without training",
        "Whether more tickets help searches without training is open",
        "More tickets harm searches without training",
    )
    where = f"{labels.label(first.task)}, {first.most} tickets against one"
    found = numbers["crowd"][first.task]["untrained"]["gain"]
    return says(figure, _placed(found, where, sentences, _unit(first.task)))
