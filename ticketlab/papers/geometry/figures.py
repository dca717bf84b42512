"""The figures of the geometry study: each draws one question from tables and returns the figure.

`numbers` are those of `metrics.metrics`, or the part of them that the message needs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab.labels import label, look
from ticketlab.papers.compare.params import Bed
from ticketlab.papers.geometry import own_lines, report
from ticketlab.papers.geometry.params import (
    ARM,
    ARMS,
    BEFORE,
    LADDERS,
    OTHERS,
    TWICE,
    GeometryParams,
    OwnBed,
)
from ticketlab.papers.geometry.report import MATCHING, Tables
from ticketlab.study import plots
from ticketlab.study.plots import message, number, says
from ticketlab.study.stats import as_interval, interval, minus, over_seeds
from ticketlab.study.tables import LABELS

Numbers = Mapping[str, Any]


def _title(bed: Bed, level: float) -> str:
    return f"{label(bed.name)}, {100 * level:g} % sparsity"


# ---------------------------------------------------------------- successive rounds


def rounds(rounds: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw each round's barrier to the round before against its accuracy minus the dense net's.

    One dot per round and seed, a panel per net; a dashed line at each threshold.
    """
    judged = report.judged_rounds(rounds, params)
    figure, axes = plots.panels(len(params.beds), 4.6, 4.2)
    for ax, bed in zip(axes, params.beds, strict=True):
        for arm in LADDERS:
            own, style = judged[(judged.net == bed.name) & (judged.arm == arm)], look(arm)
            ax.plot(
                own.gain, own.barrier, style["marker"], color=style["color"], alpha=0.5, ms=4,
                label=label(arm),
            )  # fmt: skip
        ax.axvline(-MATCHING, color=plots.GREY, lw=1, ls="--")
        ax.axhline(params.lines.connected, color=plots.GREY, lw=1, ls="--")
        ax.set(title=label(bed.name), xlabel="accuracy minus the dense net's (points)")
    axes[0].set_ylabel("barrier to the round before (points)")
    plots.legend(figure, "below")
    found = as_interval(numbers["rounds"]["all"]["agreement"]["mean"])
    text = "Rounds are connected to the one before exactly where they match the dense net"
    return says(figure, f"{text} in {number(found, '% of rounds')}." if found else f"{text}.")


# ---------------------------------------------------------------- lines between arms


def lines(lines: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw test error along the line from each arm's ticket (left) to the dense net (right).

    At the highest compared level; means over seeds with their 95 % bands.
    """
    figure, axes = plots.panels(len(params.beds), 4.6, 3.8)
    for ax, bed in zip(axes, params.beds, strict=True):
        level = params.judged(bed)[-1]
        for arm in ARMS:
            own = lines[
                (lines.net == bed.name) & (lines.arm == arm) & (lines.other == "dense")
                & (lines.level == level)
            ]  # fmt: skip
            _along(ax, arm, own.errors)
        plots.within(ax)
        ax.set(title=_title(bed, level), xlabel="share of the way to the dense net")
    axes[0].set_ylabel("test error (%)")
    plots.legend(figure)
    return says(figure, _dense_basin(params, numbers["lines"]["to_dense"]))


def _along(ax: Axes, arm: str, errors: "pd.Series[Any]") -> None:
    """Draw the mean error along a line, and its 95 % band over seeds."""
    if errors.empty:
        return
    values = np.array(errors.tolist())
    found = [interval(column.tolist()) for column in values.T]
    shares, style = np.linspace(0, 1, len(found)), look(arm)
    ax.plot(shares, [one.mean for one in found], color=style["color"], ls=style["linestyle"],
            marker=style["marker"], ms=4, label=label(arm))  # fmt: skip
    if len(values) > 1:
        low, high = ([getattr(one, side) for one in found] for side in ("low", "high"))
        ax.fill_between(shares, low, high, color=style["color"], alpha=0.13, lw=0)


def _dense_basin(params: GeometryParams, found: Numbers) -> str:
    """Say how high the barrier between each arm's tickets and the dense net is."""
    spare = {arm: as_interval(found[arm]["mean"]) for arm in ARMS}
    bound = params.lines.connected
    barriers = ", ".join(
        f"{label(arm)} {bound - one.mean:.1f}" for arm, one in spare.items() if one
    )
    return f"Mean barrier between the dense net and each arm's tickets, in points: {barriers}."


def barriers(lines: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw each arm's barrier to the dense net, to IMP's ticket and to its own second training.

    Arms as rows, mean over the compared levels; a panel per net and kind of line.
    """
    kinds = {"dense": "to the dense net", "imp": "to IMP's ticket", TWICE: "to itself, other order"}
    cells = [(bed, kind) for bed in params.beds for kind in kinds]
    figure, axes = plots.panels(len(cells), 2.9, 3.0, sharey=True)
    for ax, (bed, kind) in zip(axes, cells, strict=True):
        found = {arm: report.mean_barrier(bed, lines, params, arm, kind) for arm in ARMS}
        plots.by_arm(ax, found, line=params.lines.connected)
        ax.set(title=f"{label(bed.name)}\n{kinds[kind]}", xlabel="barrier (points)")
    spare = as_interval(numbers["lines"]["twice"]["imp"]["mean"])
    most = f"{params.lines.connected:g} points minus the barrier"
    return says(
        figure,
        message(
            spare,
            f"Trained on two orders of the images, IMP's tickets reach connected nets ({most})",
            f"Whether IMP's tickets are stable to the order of the images is open ({most})",
            f"Trained on two orders of the images, IMP's tickets reach unconnected nets ({most})",
        ),
    )


# ---------------------------------------------------------------- the papers' own tickets


def own_barriers(rows: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw the barriers of lines between the papers' own tickets, mean over the bed's levels.

    A row of panels per bed and a panel per kind of line, with arms as rows; a dashed line at the
    threshold. A kind of line that a bed does not have leaves its place empty.
    """
    beds = own_lines.beds_of(params)
    kinds = {"dense": "to the dense net", "the bases": "", TWICE: "to itself, other order",
             BEFORE: "to the stored round before"}  # fmt: skip
    figure, grid = plt.subplots(
        len(beds), len(kinds), figsize=(2.9 * len(kinds), 2.3 * len(beds)), sharey="row",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, bed in zip(grid, beds, strict=True):
        arms, base = own_lines.arms_on(rows, bed), own_lines.nearest_base(rows, bed)
        for ax, (other, title) in zip(line, kinds.items(), strict=True):
            end = base if other == "the bases" else other
            found = {arm: own_lines.mean_barrier(rows, bed, arm, end) for arm in arms}
            if not any(found.values()):
                ax.set_axis_off()
                continue
            plots.by_arm(ax, found, line=params.lines.connected)
            ax.set_title(f"{bed.title}\n{title or f'to {label(base)}'}", fontsize=9)
            ax.set_xlabel("barrier (points)")
    lines = numbers["own"]["lines"]
    arm = "imp" if lines["imp"] else "lth"
    spare = as_interval(lines[arm]["twice"]["mean"])
    where = " and ".join(bed.title for bed in beds if lines[arm]["twice"][bed.name])
    tickets = f"the tickets of {label(arm)}"
    most = f"{params.lines.connected:g} points minus the barrier"
    return says(
        figure,
        message(
            spare,
            f"On {where}, {tickets} are stable to the order of images ({most})",
            f"On {where}, whether {tickets} are stable is open ({most})",
            f"On {where}, {tickets} depend on the order of images ({most})",
        ),
    )


def own_stability(rows: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw each own ticket's barrier to its second training against its accuracy minus the dense's.

    One dot per ticket and seed, a panel per bed; a dashed line at each threshold.
    """
    judged, beds = own_lines.judged_tickets(rows, params), own_lines.beds_of(params)
    figure, axes = plots.panels(len(beds), 4.0, 3.6)
    for ax, bed in zip(axes, beds, strict=True):
        for arm in own_lines.arms_on(rows, bed):
            own, style = judged[(judged.net == bed.name) & (judged.arm == arm)], look(arm)
            ax.plot(
                own.gain, own.barrier, style["marker"], color=style["color"], alpha=0.6, ms=4,
                fillstyle=style["fillstyle"], label=label(arm),
            )  # fmt: skip
        ax.axvline(-MATCHING, color=plots.GREY, lw=1, ls="--")
        ax.axhline(params.lines.connected, color=plots.GREY, lw=1, ls="--")
        ax.set(title=bed.title, xlabel="accuracy minus the dense net's (points)")
    axes[0].set_ylabel("barrier to itself, other order (points)")
    plots.legend(figure, "below")
    found = as_interval(numbers["own"]["lines"]["every"]["stable"]["mean"])
    text = "The papers' own tickets are stable to the order of images exactly where they match"
    return says(figure, f"{text} in {number(found, '% of tickets')}." if found else f"{text}.")


# ---------------------------------------------------------------- rewinding and extremes


def rewinding(
    tickets: pd.DataFrame,
    beds: Sequence[Bed | OwnBed],
    numbers: Numbers,
    where: str = "",
) -> Figure:
    """Draw the other rewindings minus IMP's own at each level, paired by seed and at equal cost.

    A panel per bed; `numbers` are those of `report.rewinding` on these beds, `where` ends the
    message.
    """
    figure, axes = plots.panels(len(beds), 4.6, 3.4, sharex=True)
    for ax, bed in zip(axes, beds, strict=True):
        for shift, kind in zip((-0.12, 0.12), OTHERS, strict=True):
            arm, style = ARM[kind], look(ARM[kind])
            for place, level in enumerate(bed.levels):
                own, imp = (report.accuracy(tickets, bed.name, one, level) for one in (arm, "imp"))
                found = over_seeds(minus(own, imp))
                named = label(arm) if place == 0 else None
                plots.error_bars(ax, place + shift, found, style, label=named, upright=False)
        ax.axvline(0, color=plots.GREY, lw=1)
        ax.set_yticks(range(len(bed.levels)), [f"{100 * level:g} %" for level in bed.levels])
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.set(title=_named(bed), xlabel="points against weight rewinding (IMP)")
    axes[0].set_ylabel("sparsity")
    plots.legend(figure, "below")
    each = numbers["rates_minus_weights"]
    means = ", ".join(f"{_named(bed)} {each[bed.name]['mean']:.2f}" for bed in beds)
    return says(
        figure,
        message(
            as_interval(each["mean"]),
            f"Learning-rate rewinding beats weight rewinding at equal cost{where}",
            f"Learning-rate and weight rewinding do not differ clearly at equal cost{where}",
            f"Learning-rate rewinding is worse than weight rewinding at equal cost{where}",
        )
        + f" By bed: {means}.",
    )


def _named(bed: Bed | OwnBed) -> str:
    return bed.title if isinstance(bed, OwnBed) else label(bed.name)


def extreme(tickets: pd.DataFrame, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw test accuracy at each bed's extreme levels against the images of search and training.

    Means over seeds with their 95 % intervals; a panel per net and level.
    """
    cells = [(bed, level) for bed in params.beds for level in bed.levels[params.compared :]]
    figure, axes = plots.panels(len(cells), 3.6, 3.8)
    arms = ("imp", ARM["rates"], ARM["finetune"], "colt", "prac", "rst", "random")
    for ax, (bed, level) in zip(axes, cells, strict=True):
        own = tickets[(tickets.net == bed.name) & (tickets.level == level)]
        for arm in arms:
            chosen = own[own.arm == arm]
            if not chosen.empty:
                found = interval(chosen[report.ACCURACY].tolist())
                place = float(chosen.images.mean()) / 1000
                plots.error_bars(ax, place, found, look(arm), label=label(arm), size=7)
        plots.within(ax)
        ax.set_xlim(left=0)
        ax.set(title=_title(bed, level), xlabel="images, thousands")
    axes[0].set_ylabel(LABELS[report.ACCURACY])
    plots.legend(figure)
    gained = as_interval(numbers["extreme"]["prac"]["minus_imp"]["mean"])
    return says(
        figure,
        message(
            gained,
            "At the highest sparsity PrAC's tickets beat IMP's",
            "At the highest sparsity PrAC's and IMP's tickets do not differ clearly",
            "At the highest sparsity PrAC's tickets lose to IMP's",
        ),
    )


# ---------------------------------------------------------------- transplants


def transplants(every: Tables, params: GeometryParams, numbers: Numbers) -> Figure:
    """Draw the accuracy of each ticket's parts on other weights: a panel per net and arm."""
    cells = [(bed, arm) for bed in params.beds for arm in ARMS]
    lines, columns = len(params.beds), len(ARMS)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.9 * columns, 2.6 * lines), sharey=True, sharex="row",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, (bed, arm) in zip(grid.flat, cells, strict=True):
        top = params.judged(bed)[-1]
        whole = report.accuracy(every["tickets"], bed.name, arm, top)
        parts = {what: report.moved(every["transplanted"], bed, arm, what) for what in report.MOVED}
        whole_mean = float(np.mean(list(whole.values())))
        plots.by_arm(ax, {"ticket": whole} | parts, of=arm, line=whole_mean)
        ax.set_title(f"{label(arm)}\n{_title(bed, top)}", fontsize=9)
        ax.set_xlabel("test accuracy (%)")
    gained = as_interval(numbers["transplants"]["imp"]["permuted_minus_fresh"]["mean"])
    return says(
        figure,
        message(
            gained,
            "IMP's mask does better on other weights once it is permuted to them",
            "Permuting IMP's mask to other weights makes no clear difference",
            "IMP's mask does worse on other weights once it is permuted to them",
        ),
    )


# ---------------------------------------------------------------- reliability


def reliability(numbers: Numbers) -> Figure:
    """Draw each arm against the dense net beyond accuracy: mean over nets and compared levels."""
    found = numbers["reliability"]
    difference = "calibration error, the dense net's minus theirs"
    shown = {
        "calibration": "calibration error\n(points better)",
        "nll": "negative log likelihood\n(nats better)",
        "worst_class": "worst class\n(points of accuracy)",
        "corrupted": "corrupted images\n(points of accuracy)",
    }
    figure, axes = plots.panels(len(shown), 3.0, 3.0, sharey=True)
    for ax, (name, title) in zip(axes, shown.items(), strict=True):
        means = {arm: as_interval(found[arm][name]["mean"]) for arm in ARMS}
        plots.by_arm(ax, {arm: one for arm, one in means.items() if one})
        ax.set(title=title, xlabel="against the dense net")
    return says(
        figure,
        message(
            as_interval(found["imp"]["calibration"]["mean"]),
            f"IMP's tickets are better calibrated than the dense net ({difference})",
            f"IMP's tickets and the dense net do not differ clearly in calibration ({difference})",
            f"IMP's tickets are worse calibrated than the dense net ({difference})",
        ),
    )
