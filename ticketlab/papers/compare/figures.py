"""The figures of the comparison: each takes tables, draws one question, returns the figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ticketlab.papers.compare.overlap import overlap_matrix
from ticketlab.papers.compare.params import CompareParams
from ticketlab.papers.compare.rows import ACCURACY
from ticketlab.papers.compare.swap import swap_matrix
from ticketlab.study.plots import PALETTE, Look, error_bars, look
from ticketlab.study.stats import by_seed, interval, minus
from ticketlab.study.tables import LABELS

ORDER = (
    "imp",
    "imp-again",
    "imp-matched",
    "colt",
    "prac",
    "rst",
    "random",
    "magnitude",
    "snip",
    "grasp",
    "synflow",
)
"""Searches first, then masks from the initial net."""
DENSE = "#444444"
CONTROLS = {"random": "#949494", "synflow": PALETTE[ORDER.index("synflow") % len(PALETTE)]}


def order(params: CompareParams) -> tuple[str, ...]:
    """All methods of the study as figures show them: criteria of one's own come last."""
    return (*ORDER, *params.criteria)


def _panels(params: CompareParams, height: float, width: float = 5.2) -> tuple[Figure, list[Axes]]:
    """One panel per net, side by side."""
    count = len(params.beds)
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False)
    for ax, bed in zip(axes[0], params.beds, strict=True):
        ax.set_title(f"{bed.name} ({bed.model.name})")
    return figure, list(axes[0])


def accuracy(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Test accuracy of every method: every seed a dot, the mean with its 95 % interval.

    One row of panels per net, one panel per level.
    """
    methods, looks = order(params), look(order(params))
    count, wide = len(params.beds), max(len(bed.levels) for bed in params.beds)
    size = (5.2 * wide, 0.28 * len(methods) * count + 1.2)
    figure, axes = plt.subplots(count, wide, figsize=size, squeeze=False, sharey=True)
    for line, bed in zip(axes, params.beds, strict=True):
        for ax in line[len(bed.levels) :]:
            ax.set_visible(False)
        for ax, level in zip(line, bed.levels, strict=False):
            scored = (rows.net == bed.name) & rows.level.isin([0.0, level])
            own = _without_collapsed(ax, rows[scored])
            _dense_line(ax, own, upright=False)
            for place, method in enumerate(methods):
                seeds = own[own.arm == method][ACCURACY]
                if len(seeds):
                    _dots(ax, place, seeds, looks[method])
            ax.set_yticks(range(len(methods)), methods)
            ax.set_ylim(len(methods) - 0.5, -0.5)
            ax.set_title(f"{bed.name} at {100 * level:g} % sparsity")
            ax.set_xlabel(LABELS[ACCURACY] if bed is params.beds[-1] else "")
    axes[0][0].legend(fontsize=8, loc="best")
    figure.tight_layout()
    return figure


def _dots(ax: Axes, place: float, values: "pd.Series[float]", style: Look) -> None:
    """A lying mean with its interval at a place of the y axis, every seed a dot."""
    ax.plot(values, [place] * len(values), ".", color=style["color"], alpha=0.45, markersize=4)
    error_bars(ax, place, interval(values.tolist()), style, upright=False)


def _without_collapsed(ax: Axes, own: pd.DataFrame) -> pd.DataFrame:
    """One net's rows without arms below half of the dense accuracy, which a note names instead.

    A layer without any weight leaves chance; on the same axis it would hide all other differences.
    """
    means = own.groupby(["arm", "level"])[ACCURACY].mean()
    lost = means[means < own[own.arm == "dense"][ACCURACY].mean() / 2]
    if len(lost):
        named = lost.reset_index().itertuples(index=False)
        texts = [f"{arm} at {100 * level:g} %: {mean:.0f} %" for arm, level, mean in named]
        more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
        note = "collapsed, not drawn: " + ", ".join(texts[:2]) + more
        ax.text(0, -0.16, note, transform=ax.transAxes, fontsize=8, color="#b00020", va="top")
    return own[[key not in lost.index for key in zip(own.arm, own.level, strict=True)]]


def _dense_line(ax: Axes, own: pd.DataFrame, upright: bool = True) -> None:
    """The dense net's mean, across the axis of accuracy: `upright` if that is the y axis."""
    dense = own[own.arm == "dense"][ACCURACY].mean()
    line = ax.axhline if upright else ax.axvline
    line(dense, color=DENSE, lw=1, ls="--", label="dense")


def cost(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Accuracy against all images seen, search and final training, at the highest level.

    A line joins a mask's single trainings of different length: who lies on it has gained from the
    images alone.
    """
    figure, axes = _panels(params, 5)
    for ax, bed in zip(axes, params.beds, strict=True):
        whole = rows[rows.net == bed.name]
        _dense_line(ax, whole)
        top = _without_collapsed(ax, whole[whole.level.isin([0, bed.levels[-1]])])
        top = top[top.level == bed.levels[-1]]
        looks = look(order(params))
        controls = CONTROLS | {mask: looks[mask]["color"] for mask in params.criteria}
        for mask, color in controls.items():
            _length_line(ax, top, mask, color)
        for method, style in looks.items():
            if method in set(top.arm):
                _point(ax, top[top.arm == method], method, style)
        ax.set(xscale="log", xlabel="images seen in all (thousands)", ylabel=LABELS[ACCURACY])
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda images, _: f"{images / 1000:g}"))
        ax.set_title(f"{bed.name} at {100 * bed.levels[-1]:g} % sparsity")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    figure.tight_layout()
    return figure


def _point(ax: Axes, rows: pd.DataFrame, method: str, style: Look) -> None:
    """The mean with its interval, and every seed as a dot."""
    found = interval(rows[ACCURACY].tolist())
    label = f"{method} (n = {found.n})"
    error_bars(ax, rows.images.mean(), found, style, label=label, size=6)
    ax.plot(rows.images, rows[ACCURACY], ".", color=style["color"], alpha=0.5, markersize=3)


def _length_line(ax: Axes, top: pd.DataFrame, mask: str, color: str) -> None:
    chosen = top[(top.arm == mask) | top.arm.str.startswith(f"{mask}, long")]
    means = chosen.groupby("arm")[["images", ACCURACY]].mean().sort_values("images")
    if len(means) > 1:
        label = f"{mask} mask, trained longer"
        ax.plot(means.images, means[ACCURACY], "-", color=color, lw=1.2, label=label)
        ax.plot(means.images.iloc[1:], means[ACCURACY].iloc[1:], "x", color=color, markersize=5)


def gains(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Each method minus the random mask at equal sparsity: paired differences with intervals."""
    figure, axes = _panels(params, 4.6)
    methods = [method for method in order(params) if method != "random"]
    shades = sns.color_palette("crest", max(len(bed.levels) for bed in params.beds)).as_hex()
    for ax, bed in zip(axes, params.beds, strict=True):
        whole = rows[rows.net == bed.name]
        known = _without_collapsed(ax, whole[whole.level.isin([0.0, *bed.levels])])
        for place, level in enumerate(bed.levels):
            own = known[known.level == level]
            random = whole[(whole.level == level) & (whole.arm == "random")]
            base = by_seed(random, ACCURACY)
            for i, method in enumerate(methods):
                if method not in set(own.arm):
                    continue
                own_by = by_seed(own[own.arm == method], ACCURACY)
                found = interval(list(minus(own_by, base).values()))
                style = {"color": shades[place], "marker": "o"}
                label = f"{100 * level:g} %" if i == 0 else None
                at = i + 0.2 * (place - (len(bed.levels) - 1) / 2)
                error_bars(ax, at, found, style, label=label, upright=False, size=4)
        ax.axvline(0, color="0.4", lw=1)
        ax.set_yticks(range(len(methods)), methods)
        ax.invert_yaxis()
        ax.set(xlabel="points over the random mask (paired)")
        ax.legend(title="sparsity", fontsize=8)
    figure.tight_layout()
    return figure


def overlap(overlaps: pd.DataFrame, params: CompareParams) -> Figure:
    """IoU of masks at the highest level, with its ratio to chance; diagonal: other seeds."""
    figure, axes = _panels(params, 5.6, width=6.6)
    for ax, bed in zip(axes, params.beds, strict=True):
        iou = overlap_matrix(overlaps, bed.name, "iou")
        chance = overlap_matrix(overlaps, bed.name, "chance")
        text = iou.map(lambda v: f"{v:.2f}") + "\n" + (iou / chance).map(lambda v: f"x{v:.1f}")
        sns.heatmap(
            iou,
            annot=text,
            fmt="",
            cmap="viridis",
            vmin=0,
            ax=ax,
            annot_kws={"fontsize": 7},
            cbar_kws={"label": "IoU"},
            square=True,
        )
        ax.set(xlabel="", ylabel="", title=f"{bed.name} at {100 * bed.levels[-1]:g} % sparsity")
        ax.tick_params(axis="x", rotation=60)
    figure.tight_layout()
    return figure


def layers(
    table: pd.DataFrame, params: CompareParams, methods: Sequence[str] | None = None
) -> Figure:
    """Density of each layer by method at the highest level, mean over seeds, on a log scale."""
    figure, axes = _panels(params, 4, width=6.2)
    for ax, bed in zip(axes, params.beds, strict=True):
        own = table[(table.net == bed.name) & (table.level == bed.levels[-1])]
        heat = own.groupby(["arm", "layer"], sort=False).density.mean().unstack()
        heat = heat.reindex([m for m in methods or order(params) if m != "rst"])
        heat.columns = [name.removeprefix("body.").removesuffix(".weight") for name in heat.columns]
        few = heat.shape[1] <= 8
        sns.heatmap(
            np.log10(heat.clip(lower=1e-4)),
            annot=heat if few else False,
            fmt=".3f",
            ax=ax,
            cmap="viridis",
            annot_kws={"fontsize": 7},
            cbar_kws={"label": "log10 density"},
        )
        ax.set(xlabel="", ylabel="", title=f"{bed.name} at {100 * bed.levels[-1]:g} % sparsity")
    figure.tight_layout()
    return figure


def swap(swaps: pd.DataFrame, params: CompareParams) -> Figure:
    """Accuracy of every mask on every start weights: mean and half of the 95 % interval."""
    figure, axes = _panels(params, 4, width=6.2)
    for ax, bed in zip(axes, params.beds, strict=True):
        mean, text = swap_matrix(swaps, bed.name)
        masks = [mask for mask in (*order(params), "imp-shuffled") if mask in mean.index]
        sns.heatmap(
            mean.loc[masks],
            annot=text.loc[masks],
            fmt="",
            cmap="viridis",
            ax=ax,
            annot_kws={"fontsize": 8},
            cbar_kws={"label": LABELS[ACCURACY]},
        )
        ax.set(xlabel="start weights", ylabel="mask")
        ax.set_title(f"{bed.name} at {100 * bed.levels[-1]:g} % sparsity")
    figure.tight_layout()
    return figure
