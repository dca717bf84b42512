"""The figures of the comparison: each takes tables, draws one question, returns the figure."""

import textwrap
from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab.labels import label, look
from ticketlab.papers.compare.overlap import overlap_matrix, overlap_metrics
from ticketlab.papers.compare.params import Bed, CompareParams
from ticketlab.papers.compare.rows import ACCURACY, difference
from ticketlab.papers.compare.swap import swap_effect, swap_matrix
from ticketlab.study import plots
from ticketlab.study.plots import message, number, says
from ticketlab.study.stats import (
    BySeed,
    Interval,
    across,
    as_interval,
    by_seed,
    minus,
    over_seeds,
    percent_saved,
)
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
PAPERS = ("colt", "prac", "rst")
LONG = ", long as "
"""Within the name of a mask that was trained for as many images as a method saw."""


def order(params: CompareParams) -> tuple[str, ...]:
    """Return all methods of the study as figures show them: criteria of one's own come last."""
    return (*ORDER, *params.criteria)


def _title(bed: Bed, level: float) -> str:
    return f"{label(bed.name)}, {100 * level:g} % sparsity"


# ---------------------------------------------------------------- accuracy at equal sparsity


def accuracy(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Draw test accuracy, one row per method, a panel per net and level; dashed: the dense net."""

    def each(bed: Bed, level: float, arm: str) -> BySeed:
        return by_seed(_at(rows, bed, level, arm), ACCURACY)

    figure = _by_method(rows, params, order(params), each, LABELS[ACCURACY])
    for ax, (bed, _) in zip(figure.axes, _cells(params), strict=True):
        dense = rows[(rows.net == bed.name) & (rows.arm == "dense")][ACCURACY].mean()
        ax.axvline(dense, color=plots.GREY, lw=1, ls="--", zorder=0)
        plots.within(ax, side="x")
    return says(figure, _against_imp(rows, params))


def gains(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Draw each method minus the random mask at equal sparsity, paired by seed."""

    def each(bed: Bed, level: float, arm: str) -> BySeed:
        own, random = (_at(rows, bed, level, name) for name in (arm, "random"))
        return minus(by_seed(own, ACCURACY), by_seed(random, ACCURACY))

    methods = [method for method in order(params) if method != "random"]
    figure = _by_method(rows, params, methods, each, "points against the random mask")
    for ax in figure.axes:
        ax.axvline(0, color=plots.GREY, lw=1, zorder=0)
    return says(figure, _against_random(rows, params, methods))


def _cells(params: CompareParams) -> list[tuple[Bed, float]]:
    """Return every net with each of its levels."""
    return [(bed, level) for bed in params.beds for level in bed.levels]


def _at(rows: pd.DataFrame, bed: Bed, level: float, arm: str) -> pd.DataFrame:
    return rows[(rows.net == bed.name) & (rows.level == level) & (rows.arm == arm)]


def _by_method(
    rows: pd.DataFrame,
    params: CompareParams,
    methods: Sequence[str],
    each: Callable[[Bed, float, str], BySeed],
    axis: str,
) -> Figure:
    """Draw methods as rows, one panel per net and level; a note names those that collapsed."""
    cells = _cells(params)
    shown = [arm for arm in methods if arm in set(rows.arm)]
    columns = min(2, len(cells))
    lines = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(5 * columns, (0.3 * len(shown) + 1.1) * lines),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (bed, level) in zip(axes.flat, cells, strict=False):
        lost = _collapsed(rows, bed, level)
        found = {arm: {} if arm in lost else each(bed, level, arm) for arm in shown}
        plots.by_arm(ax, found, line=None)
        _note(ax, lost)
        ax.set(title=_title(bed, level), xlabel=axis)
    for ax in list(axes.flat)[len(cells) :]:
        ax.remove()
    return figure


def _collapsed(rows: pd.DataFrame, bed: Bed, level: float) -> dict[str, float]:
    """Return the arms below half of the dense accuracy, and theirs.

    A layer without any weight leaves chance; on the same axis it would hide all other differences.
    """
    own = rows[(rows.net == bed.name) & (rows.level == level)].groupby("arm")[ACCURACY].mean()
    dense = rows[(rows.net == bed.name) & (rows.arm == "dense")][ACCURACY].mean()
    return dict(own[own < dense / 2])


def _note(ax: Axes, lost: dict[str, float]) -> None:
    """Name the arms that are not drawn, in their rows' colour, at the panel's lower edge."""
    if lost:
        text = ", ".join(f"{label(arm)} ({mean:.0f} %)" for arm, mean in lost.items())
        lines = textwrap.fill(f"collapsed: {text}", width=36)
        note = ax.text(0.02, 0.02, lines, transform=ax.transAxes, fontsize=8, color="#b00020")
        note.set_in_layout(False)  # it must not narrow the panel


# ---------------------------------------------------------------- the cost


def cost(rows: pd.DataFrame, params: CompareParams) -> Figure:
    """Draw accuracy lost against images saved, IMP at the origin, at the highest level of each net.

    Images are those of search and final training. A line joins one mask trained for different
    numbers of images: a method on it or below gains from its images alone.
    """
    figure, axes = plots.panels(len(params.beds), 5, 4.6)
    for ax, bed in zip(axes, params.beds, strict=True):
        level = bed.levels[-1]
        lost = _collapsed(rows, bed, level)
        long = [arm for arm in rows.arm.unique() if LONG in arm]
        arms = [arm for arm in (*order(params), *long) if arm not in ("imp", *lost)]
        found = {arm: _traded(rows, bed, arm) for arm in arms}
        plots.trade(ax, found, "imp", cost="images")
        for mask in dict.fromkeys(arm.partition(LONG)[0] for arm in long):
            own = [one for arm, one in found.items() if arm.partition(LONG)[0] == mask]
            _length_line(ax, mask, own)
        _note(ax, lost)
        ax.set_title(_title(bed, level))
    plots.legend(figure)
    return says(figure, _saved_and_lost(rows, params))


def _traded(rows: pd.DataFrame, bed: Bed, arm: str) -> tuple[BySeed, BySeed]:
    """Return percent of IMP's images saved and points against IMP, by seed, at the top level."""
    own, imp = (_at(rows, bed, bed.levels[-1], name) for name in (arm, "imp"))
    saved = percent_saved(by_seed(own, "images"), by_seed(imp, "images"))
    return saved, minus(by_seed(own, ACCURACY), by_seed(imp, ACCURACY))


def _length_line(ax: Axes, mask: str, found: Iterable[tuple[BySeed, BySeed]]) -> None:
    """Join the means of one mask's trainings of different length."""
    means = [[np.mean(list(by.values())) for by in one] for one in found if all(one)]
    if len(means) > 1:
        x, y = zip(*sorted(means), strict=True)
        ax.plot(x, y, ":", color=look(mask)["color"], lw=1.4, zorder=0)


# ---------------------------------------------------------------- masks


def overlap(overlaps: pd.DataFrame, params: CompareParams) -> Figure:
    """Draw the IoU of every two methods' masks beyond chance, in points, at the highest level."""
    figure, axes = plots.panels(len(params.beds), 6, 5.2)
    beyond = overlaps[overlaps.between == "methods"]
    beyond = beyond.assign(beyond=100 * (beyond.iou - beyond.chance))
    for ax, bed in zip(axes, params.beds, strict=True):
        whole = overlap_matrix(beyond, bed.name, "beyond")
        names = [name for name in order(params) if name in whole.index]
        shown = whole.loc[names[1:], names[:-1]]
        names_of = [label(name) for name in names]
        later = np.triu(np.ones(shown.shape, dtype=bool), 1)
        sns.heatmap(
            (shown.round() + 0.0).set_axis(names_of[1:]).set_axis(names_of[:-1], axis=1),
            mask=later,
            annot=True,
            fmt=".0f",
            cmap="viridis",
            vmin=0,
            ax=ax,
            annot_kws={"fontsize": 8},
            cbar_kws={"label": "IoU beyond chance (points)"},
        )
        ax.set(xlabel="", ylabel="", title=_title(bed, bed.levels[-1]))
        ax.grid(False)
        plt.setp(ax.get_xticklabels(), rotation=50, ha="right", rotation_mode="anchor")
    numbers = overlap_metrics(overlaps, params)
    again, colt, prac = (
        as_interval(numbers[f"imp_and_{name}"]["mean"]) for name in ("imp_again", "colt", "prac")
    )
    if again is None or colt is None or prac is None:
        return says(figure, "The agreement of masks was not measured for all methods.")
    text = f"IMP's mask agrees with its own second run by {number(again, 'points beyond chance')}"
    return says(figure, f"{text}; with COLT's by {colt.mean:.1f}, with PrAC's by {prac.mean:.1f}.")


def layers(
    table: pd.DataFrame, params: CompareParams, methods: Sequence[str] | None = None
) -> Figure:
    """Draw the density of each layer by method at the highest level, mean over seeds."""
    figure, axes = plots.panels(len(params.beds), 6, 4)
    spread: list[tuple[float, str]] = []
    for ax, bed in zip(axes, params.beds, strict=True):
        own = table[(table.net == bed.name) & (table.level == bed.levels[-1])]
        heat = 100 * own.groupby(["arm", "layer"], sort=False).density.mean().unstack()
        heat = heat.reindex([m for m in methods or order(params) if m != "rst"]).dropna(how="all")
        spread += [_spread(bed, str(layer), heat[layer]) for layer in heat]
        heat = heat.rename(index=label, columns=label)
        few = heat.shape[1] <= 8
        sns.heatmap(
            np.log10(heat.clip(lower=1e-2)),
            annot=heat if few else False,
            fmt=".1f",
            ax=ax,
            cmap="viridis",
            annot_kws={"fontsize": 8},
            cbar=False,
        )
        ax.set(xlabel="", ylabel="", title=f"Weights kept (%), {_title(bed, bed.levels[-1])}")
    return says(figure, max(spread)[1])


def _spread(bed: Bed, layer: str, kept: "pd.Series[float]") -> tuple[float, str]:
    """Return how far methods are apart in a layer (ratio), and this in words."""
    low, high = str(kept.idxmin()), str(kept.idxmax())
    text = (
        f"Methods differ most, as a ratio, in {label(layer)} of {label(bed.name)}: of its weights"
    )
    least, most = (f"{label(arm)} keeps {kept[arm]:.1f} %" for arm in (low, high))
    return kept[high] / max(kept[low], 1e-2), f"{text} {least}, {most}."


def swap(swaps: pd.DataFrame, params: CompareParams) -> Figure:
    """Draw accuracy of every mask on every start weights: mean and half of the 95 % interval."""
    figure, axes = plots.panels(len(params.beds), 5.6, 3.2)
    for ax, bed in zip(axes, params.beds, strict=True):
        mean, text = swap_matrix(swaps, bed.name)
        masks = [mask for mask in (*order(params), "imp-shuffled") if mask in mean.index]
        sns.heatmap(
            mean.loc[masks].rename(index=label, columns=lambda name: label(f"{name} weights")),
            annot=text.loc[masks],
            fmt="",
            cmap="viridis",
            ax=ax,
            annot_kws={"fontsize": 9},
            cbar_kws={"label": "test accuracy (%)"},
        )
        ax.set(xlabel="start weights", ylabel="mask", title=_title(bed, bed.levels[-1]))
        ax.tick_params(axis="y", rotation=0)
    effect = swap_effect(swaps, params, ("imp", "init"), ("imp", "reinit"))["mean"]
    return says(
        figure,
        message(
            as_interval(effect),
            "IMP's mask is better on its initial weights than on fresh ones",
            "IMP's mask does as well on fresh weights as on its initial ones, within the interval",
            "IMP's mask is worse on its initial weights than on fresh ones",
        ),
    )


# ---------------------------------------------------------------- messages


def _against_imp(rows: pd.DataFrame, params: CompareParams) -> str:
    """Say which papers' methods lose to IMP at equal sparsity, mean over nets and levels."""
    every = {arm: as_interval(difference(rows, params, arm, "imp")["mean"]) for arm in PAPERS}
    found = {arm: one for arm, one in every.items() if one}
    if not found:
        return "No paper's method was run beside IMP."
    losers = [label(arm) for arm, one in found.items() if one.high is not None and one.high < 0]
    first = "No paper's method clearly loses to IMP at equal sparsity"
    if losers:
        first = f"At equal sparsity {_listed(losers)} lose{'s' * (len(losers) == 1)} to IMP"
    parts = [f"{label(arm)} {one.text(1)}" for arm, one in found.items()]
    return f"{first} (points): {'; '.join(parts)}."


def _against_random(rows: pd.DataFrame, params: CompareParams, methods: Sequence[str]) -> str:
    """Say which methods do not clearly beat the random mask, and what IMP gains over it."""
    every = {arm: as_interval(difference(rows, params, arm, "random")["mean"]) for arm in methods}
    found = {arm: one for arm, one in every.items() if one}
    short = [label(arm) for arm, one in found.items() if one.low is None or one.low <= 0]
    beaten = f"all methods but {_listed(short)} beat" if short else "all methods beat"
    if len(short) == len(found):
        beaten = "no method clearly beats"
    imp = found.get("imp")
    gain = f", IMP by {number(imp)}" if imp else ""
    return f"On average over nets and levels, {beaten} the random mask of equal sparsity{gain}."


def _saved_and_lost(rows: pd.DataFrame, params: CompareParams) -> str:
    """Say what COLT and PrAC save of IMP's images and lose in accuracy, mean over nets."""
    parts = []
    for arm in ("colt", "prac"):
        traded = [_traded(rows, bed, arm) for bed in params.beds]
        saved, gained = (_mean([one[i] for one in traded]) for i in (0, 1))
        if saved and gained:
            text = f"{label(arm)} saves {saved.mean:.0f} % of IMP's images"
            parts.append(f"{text}, accuracy {number(gained)}")
    if not parts:
        return "Neither COLT nor PrAC was run beside IMP."
    return f"{'; '.join(parts)} (images of search and final training)."


def _mean(parts: Sequence[BySeed]) -> Interval | None:
    found = across(parts)
    return over_seeds(found) if found else None


def _listed(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
