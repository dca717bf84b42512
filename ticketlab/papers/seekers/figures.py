"""The figures of the study of newer seekers: each draws one question and says it."""

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
    crowd_metrics,
    crowd_rows,
    gate_metrics,
    key_of,
    percent_found,
    single,
)
from ticketlab.study.plots import GREY, error_bars, legend, message, panels, says
from ticketlab.study.stats import as_interval, each_seed, over_seeds

# ---------------------------------------------------------------- gates and edge-popup


def gates(scores: pd.DataFrame, params: SeekersParams) -> Figure:
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
    return says(figure, _gates_say(scores, params))


def _found_span(ax: Axes, task: str) -> None:
    """Shade what counts as found, and draw the ticket."""
    allowed = FOUND_POINTS if is_accuracy(task) else FOUND_DECADES
    ax.axvspan(-allowed, allowed, color="0.92", lw=0, label="counts as found", zorder=0)
    ax.axvline(0, color="k", ls="--", lw=1, label="planted ticket")


def _gates_say(scores: pd.DataFrame, params: SeekersParams) -> str:
    """Say how gates compare with edge-popup on the first target, at the middle density."""
    task, density = params.tasks[0], str(params.densities[len(params.densities) // 2])
    found = gate_metrics(scores, params, task)["minus_popup"][key_of(density)]
    where = f"on {labels.label(task)}, {column(density)}"
    return message(
        as_interval(found),
        f"Bernoulli gates come closer to the ticket than edge-popup ({where})",
        f"Bernoulli gates and edge-popup do not differ clearly ({where})",
        f"Bernoulli gates end further from the ticket than edge-popup ({where})",
        "points" if is_accuracy(task) else "decades",
    )


def soft(scores: pd.DataFrame, params: SeekersParams) -> Figure:
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
        unit = "points" if is_accuracy(task) else "decades"
        ax.set(title=labels.label(task), xlabel=f"gates as they are ({unit})")
    axes[0].set_ylabel("gates cut to a mask")
    legend(figure, "below")
    task, density = params.tasks[0], str(params.densities[len(params.densities) // 2])
    found = gate_metrics(scores, params, task)["mask_minus_soft"][key_of(density)]
    where = f"{labels.label(task)}, {column(density)}"
    return says(
        figure,
        message(
            as_interval(found),
            f"Cut to a mask, gates do better than as they are ({where})",
            f"Cutting gates to a mask changes little ({where})",
            f"Cutting gates to a mask loses something ({where})",
            "points" if is_accuracy(task) else "decades",
        ),
    )


# ---------------------------------------------------------------- crowds


def crowd(scores: pd.DataFrame, params: SeekersParams) -> Figure:
    """Draw the percent of searches that find a ticket against the number of planted tickets.

    A panel per target and regime, a line per method; means over seeds of both densities.
    """
    cells = [
        (crowds, regime)
        for crowds in params.crowds
        for regime in REGIMES
        if len(arms(scores, part="crowd", task=crowds.task, regime=regime))
    ]
    figure, axes = panels(len(cells), 2.8, 3.2, sharey=True)
    for ax, (crowds, regime) in zip(axes, cells, strict=True):
        rows = arms(scores, part="crowd", task=crowds.task, regime=regime)
        for shift, method in enumerate(dict.fromkeys(rows.method)):
            _line(ax, rows[rows.method == method], method, 0.04 * shift, crowds)
        ax.set_ylim(-5, 105)
        ax.set_xticks(range(len(crowds.copies)), list(map(str, crowds.copies)))
        ax.set(title=f"{labels.label(crowds.task)}, {labels.label(regime)}")
        ax.set_xlabel("planted tickets")
    axes[0].set_ylabel("% of searches that find a ticket")
    legend(figure, "below")
    return says(figure, _crowd_says(scores, params.crowds[0]))


def _line(ax: Axes, rows: pd.DataFrame, method: str, shift: float, crowds: Crowds) -> None:
    """Draw one method's percent of searches with a ticket by the number of tickets."""
    style, places, means = labels.look(method), [], []
    for place, copies in enumerate(crowds.copies):
        values = percent_found(rows[rows.copies == copies])
        if values:
            places.append(place + shift)
            means.append(over_seeds(values).mean)
    ax.plot(places, means, style["marker"] + "-", color=style["color"], ms=5, lw=1.2,
            label=labels.label(method))  # fmt: skip


def _crowd_says(scores: pd.DataFrame, crowds: Crowds) -> str:
    """Say whether more tickets are found more often in many rounds, on the first target."""
    found = crowd_metrics(scores, crowds)["multishot"]["found_gain"]
    where = f"{labels.label(crowds.task)}, many rounds, {crowds.most} tickets against one"
    return message(
        as_interval(found),
        f"More tickets are found more often ({where})",
        f"Whether more tickets are found more often is open ({where})",
        f"More tickets are found less often ({where})",
        "% of searches",
        1,
    )


def gains(scores: pd.DataFrame, params: SeekersParams) -> Figure:
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
        unit = "points" if is_accuracy(crowds.task) else "decades"
        title = f"{labels.label(crowds.task)}: {crowds.most} tickets minus one"
        ax.set(title=title, xlabel=f"{unit} nearer to the ticket")
    first = params.crowds[0]
    found = crowd_metrics(scores, first)["untrained"]["gain"]
    where = f"{labels.label(first.task)}, {first.most} tickets against one"
    return says(
        figure,
        message(
            as_interval(found),
            f"More tickets help searches without training ({where})",
            f"Whether more tickets help searches without training is open ({where})",
            f"More tickets harm searches without training ({where})",
            "points" if is_accuracy(first.task) else "decades",
        ),
    )
