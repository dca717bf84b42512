"""The figures of the DLTH notebook: each draws one question from tables and returns the figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.metrics import ACCURACY, at_own_rates, at_rates, difference
from ticketlab.papers.dlth.params import Case, RstParams
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.plots import PALETTE, error_bars, look, summarise
from ticketlab.study.stats import interval
from ticketlab.study.tables import LABELS

ARMS = (
    "scratch",
    "scratch-long",
    "warm-up",
    "abrupt",
    "rst",
    "rst-iter",
    "lth",
    "lth-iter",
    "l1",
    "early-bird",
)
LOOKS = look(ARMS)
SCHEDULES = {"rst-jump": 0, "rst": 1, "rst-square": 2, "rst-cube": 3}
KEPT, REMOVED = PALETTE[0], PALETTE[3]

Looks = Sequence[Mapping[str, float]]


# ---------------------------------------------------------------- one net by hand


def timeline(
    pressing: Looks, finetuning: Looks, penalty: algorithm.Penalty, window: float
) -> Figure:
    """lambda, accuracy with and without the removed weights, and |w| ratio on one time axis.

    Left of the line is the transformation, right of it finetuning; the band is the borrowing
    window.
    """
    figure, axes = plt.subplots(3, 1, figsize=(8.5, 8), sharex=True)
    end = pressing[-1]["iteration"]
    left = pd.DataFrame(pressing)
    right = pd.DataFrame(finetuning).assign(iteration=lambda f: f.iteration + end)
    trace = [algorithm.strength(penalty, step) for step in range(int(end))]
    axes[0].plot(range(len(trace)), trace, color="0.3")
    axes[0].set(ylabel="lambda", title="Transformation, removal, finetuning")
    axes[1].plot(left.iteration, left.dense_mode, "-o", ms=3, color=REMOVED, label="dense mode")
    for part, label in ((left, "masked mode"), (right, None)):
        axes[1].plot(part.iteration, part.masked_mode, "-o", ms=3, color=KEPT, label=label)
    axes[1].set(ylabel="validation accuracy (%)")
    axes[2].semilogy(left.iteration, left.ratio, "-o", ms=3, color="0.3")
    axes[2].axhline(1 / 50, ls=":", color="0.5", lw=1)
    axes[2].set(ylabel="mean |w| removed / kept", xlabel="iteration")
    for ax in axes:
        ax.axvline(end, ls="--", color="0.35", lw=1, label="removal" if ax is axes[1] else None)
        ax.axvspan(0, window, color=PALETTE[1], alpha=0.12, lw=0)
    axes[1].legend(fontsize=8)
    return figure


def histograms(states: Mapping[str, State], mask: Mask) -> Figure:
    """|w| of kept and removed weights at several times of the transformation, on a log axis."""
    figure, axes = plt.subplots(1, len(states), figsize=(3 * len(states), 3), sharey=True)
    keep, bins = mask.flat().cpu().numpy(), np.logspace(-7, 0.5, 45)
    for ax, (title, state) in zip(np.atleast_1d(axes), states.items(), strict=True):
        size = np.concatenate([state[n].abs().flatten().cpu().numpy() for n in mask])
        for chosen, label, color in ((keep, "kept", KEPT), (~keep, "removed", REMOVED)):
            share = np.full(chosen.sum(), 1 / chosen.sum())
            values = size[chosen].clip(bins[0], bins[-1])
            ax.hist(values, bins, weights=share, color=color, alpha=0.55, label=label)
        ax.set(xscale="log", title=title, xlabel="|w|")
    np.atleast_1d(axes)[0].set(ylabel="share of the group")
    np.atleast_1d(axes)[0].legend(fontsize=8)
    return figure


def jump(runs: Mapping[str, Looks], milestones: Sequence[int] = ()) -> Figure:
    """Accuracy through finetuning, a line a run; dotted where the learning rate falls."""
    figure, ax = plt.subplots()
    for label, looks in runs.items():
        frame = pd.DataFrame(looks)
        ax.plot(frame.iteration, frame.masked_mode, "-o", ms=3, label=label)
    for step in milestones:
        ax.axvline(step, ls=":", color="0.6", lw=1)
    ax.set(xlabel="iteration of finetuning", ylabel="validation accuracy (%)")
    ax.set_title("What the jump of the learning rate destroys")
    ax.legend(fontsize=8)
    return figure


# ---------------------------------------------------------------- the arms


def accuracy(rows: pd.DataFrame, case: Case) -> Figure:
    """Test accuracy of each arm at the highest sparsity: every seed, mean and 95 % interval.

    Filled: at the common learning rate; open: at each seed's own one. `rows` are those of all
    cases.
    """
    figure, ax = plt.subplots(figsize=(8, 5))
    here = rows[(rows.case == case.name) & (rows.level == case.judged)]
    own = at_own_rates(rows, case)
    shown = [arm for arm in LOOKS if (here.arm == arm).any()]
    for place, arm in enumerate(shown):
        for part, aside, fill in ((here, -0.13, "full"), (own, 0.17, "none")):
            values = part[part.arm == arm][ACCURACY].tolist()
            if values:
                _dots(ax, place + aside, values, LOOKS[arm]["color"], fill)
    dense = rows[(rows.case == case.name) & (rows.arm == "dense")][ACCURACY].mean()
    ax.axvline(dense, color="0.5", lw=1, ls="--", label="dense")
    for fill, label in (("full", "one common learning rate"), ("none", "own learning rates")):
        ax.plot([], [], "o", color="0.3", fillstyle=fill, label=label)
    ax.set_yticks(range(len(shown)), shown)
    ax.invert_yaxis()
    ax.set(xlabel=LABELS[ACCURACY], title=f"{case.name}: {100 * case.judged:g} % sparse")
    ax.legend(fontsize=8)
    return figure


def _dots(ax: Axes, place: float, values: list[float], color: str, fill: str = "full") -> None:
    """Seeds as dots beside their mean and 95 % interval, lying at a height."""
    ax.plot(values, [place] * len(values), ".", color=color, alpha=0.35, ms=4)
    found = interval(values)
    if found.low is not None and found.high is not None:
        ax.plot([found.low, found.high], [place] * 2, "-", color=color, lw=1.4)
    ax.plot([found.mean], [place], "o", color=color, fillstyle=fill, ms=6)


def rates(rows: pd.DataFrame, cases: Sequence[Case]) -> Figure:
    """Test accuracy against the learning rate of finetuning, a panel per case with several."""
    some = [case for case in cases if case.rates]
    figure, axes = plt.subplots(
        1, max(1, len(some)), figsize=(5 * max(1, len(some)), 4), squeeze=False
    )
    for ax, case in zip(axes[0], some, strict=False):
        every = at_rates(rows, case)
        for i, (arm, style) in enumerate(look(("dense", *case.rate_arms)).items()):
            values = summarise(every[every.arm == arm], ["lr"], ACCURACY)
            places = values.lr * 1.03 ** (i - len(case.rate_arms) / 2)  # side by side
            ax.plot(places, values["mean"], color=style["color"], lw=0.8, alpha=0.6)
            error_bars(ax, places, values, style, label=arm)
        ax.set(xscale="log", xlabel="learning rate of finetuning", title=case.name)
        ax.set_xticks(case.rates, [f"{lr:g}" for lr in case.rates])
        ax.minorticks_off()
    axes[0][0].set(ylabel=LABELS[ACCURACY])
    axes[0][-1].legend(fontsize=8)
    return figure


def fairness(rows: pd.DataFrame, case: Case) -> Figure:
    """Test accuracy against all images seen, a panel per level: what the budget alone buys.

    The grey line joins Scratch and Scratch-long, the same recipe given more images. Arms of one
    budget stand side by side.
    """
    levels = case.levels_of("scratch-long") or (case.judged,)
    figure, axes = plt.subplots(1, len(levels), figsize=(4.8 * len(levels), 4.6), squeeze=False)
    for ax, level in zip(axes[0], levels, strict=True):
        own = rows[rows.level == level]
        means = own.groupby("arm")[["images", ACCURACY]].mean()
        budget = means.reindex(["scratch", "scratch-long"]).dropna()
        places = _side_by_side({arm: float(means.images[arm]) / 1e3 for arm in means.index})
        ax.plot(budget.images / 1e3, budget[ACCURACY], color="0.7", lw=4, zorder=0)
        for arm in [arm for arm in LOOKS if arm in means.index]:
            found = interval(own[own.arm == arm][ACCURACY].tolist())
            style = LOOKS[arm]
            error_bars(ax, places[arm], found, style)
            ax.plot([], [], style["marker"], color=style["color"], label=f"{arm} (n = {found.n})")
        ax.set(xlabel="images seen in all (thousands)", title=f"{100 * level:g} % sparse")
    axes[0][0].set(ylabel=LABELS[ACCURACY])
    axes[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _side_by_side(places: Mapping[str, float], near: float = 0.02) -> dict[str, float]:
    """Places that are nearly equal moved apart, by a share `near` of the whole range."""
    step = near * ((max(places.values()) - min(places.values())) or 1)
    moved: dict[str, float] = {}
    for arm in [arm for arm in LOOKS if arm in places]:
        place = places[arm]
        while any(abs(place - other) < 0.9 * step for other in moved.values()):
            place += step
        moved[arm] = place
    return moved


def gains(rows: pd.DataFrame, cases: Sequence[Case]) -> Figure:
    """Difference of every arm to Scratch, paired by seed, a panel per case and level."""
    panels = [(case, level) for case in cases for level in case.levels]
    rows = rows[rows.case.isin([case.name for case in cases])]
    names = [arm for arm in rows.arm.unique() if arm not in ("scratch", "dense")]
    tall = 0.27 * len(names) + 1.2
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2 + 3 * len(panels), tall), sharey=True, squeeze=False
    )
    for ax, (case, level) in zip(axes[0], panels, strict=True):
        own = rows[rows.case == case.name]
        for place, arm in enumerate(names):
            by = difference(own, arm, "scratch", level)
            if by:
                color = KEPT if arm.startswith("rst") else "0.35"
                _dots(ax, place, list(by.values()), color)
        ax.axvline(0, color="0.4", lw=1)
        ax.set(title=f"{case.name}, {100 * level:g} %", xlabel="points over Scratch (last step)")
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    return figure


def extrusion(looks: pd.DataFrame, case: Case) -> Figure:
    """Accuracy with and without the removed weights during the transformation, mean and band."""
    levels = case.levels
    figure, axes = plt.subplots(
        1, len(levels), figsize=(4.8 * len(levels), 4), sharey=True, squeeze=False
    )
    own = looks[(looks.case == case.name) & (looks.arm == "rst")]
    for ax, level in zip(axes[0], levels, strict=True):
        for mode, color in (("dense_mode", REMOVED), ("masked_mode", KEPT)):
            values = summarise(own[own.level == level], ["iteration"], mode)
            label = f"{mode.replace('_', ' ')} (n = {int(values.n.max())})"
            ax.plot(values.iteration, values["mean"], color=color, label=label)
            ax.fill_between(values.iteration, values.low, values.high, color=color, alpha=0.13)
        ax.set(xlabel="iteration of the transformation", title=f"{100 * level:g} % sparse")
        ax.set_ylim(0, 100)
    axes[0][0].set(ylabel="validation accuracy (%)")
    axes[0][0].legend(fontsize=8)
    return figure


# ---------------------------------------------------------------- schedules, draws


def schedules(rows: pd.DataFrame, looks: pd.DataFrame, params: RstParams) -> Figure:
    """The schedules 1, x, x^2, x^3: lambda with the borrowing window, |w| ratio, accuracy."""
    level, case = params.extra_levels[0], params.cases[0]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    total = looks[looks.case == case.name].iteration.max()
    for i, (arm, power) in enumerate(SCHEDULES.items()):
        penalty, color = case.penalty.model_copy(update={"power": power}), PALETTE[i]
        name = "1 (no growth)" if power == 0 else "x" if power == 1 else f"x^{power}"
        trace = [algorithm.strength(penalty, step) for step in range(int(total))]
        axes[0].plot(trace, color=color, label=name)
        window = algorithm.borrowing_window(penalty, case.transform)
        axes[0].axvspan(0, window, color=color, alpha=0.1, lw=0)
        at = (looks.arm == arm) & (looks.case == case.name) & (looks.level == level)
        ratio = looks[at].groupby("iteration").ratio.mean()
        axes[1].semilogy(ratio.index, ratio.tolist(), "-o", ms=3, color=color, label=name)
        found = rows[(rows.arm == arm) & (rows.level == level)][ACCURACY].tolist()
        if found:
            error_bars(axes[2], window, interval(found), {"color": color, "marker": "o"})
    for arm, style in (("warm-up", ":"), ("abrupt", "--")):
        values = rows[(rows.arm == arm) & (rows.level == level)][ACCURACY]
        if len(values):
            axes[2].axhline(values.mean(), ls=style, color="0.4", lw=1, label=f"{arm} (mean)")
    axes[0].set(xlabel="iteration", ylabel="lambda", title="Schedules and their windows")
    axes[1].set(xlabel="iteration", title="mean |w| removed / kept")
    axes[2].set(xlabel="borrowing window (iterations)")
    axes[2].set_title(f"{LABELS[ACCURACY]},\nat {100 * level:g} % sparsity")
    axes[0].legend(fontsize=8)
    axes[2].legend(fontsize=8)
    return figure


def draws(table: pd.DataFrame) -> Figure:
    """RST's accuracy by seed over masks on its initialisation, and over initialisations under its
    mask; a line is their mean."""
    figure, ax = plt.subplots(figsize=(9, 3.6))
    seeds = sorted(table.seed.unique())
    for side, (varied, label) in enumerate((("mask", "masks"), ("init", "initialisations"))):
        for place, seed in enumerate(seeds):
            values = table[(table.varied == varied) & (table.seed == seed)][ACCURACY].tolist()
            at, named = place + 0.3 * side - 0.15, None if place else f"{len(values)} {label}"
            ax.plot([at] * len(values), values, "o", color=PALETTE[side], alpha=0.7, label=named)
            ax.plot([at], [np.mean(values)], "_", color="0.2", ms=14)
    ax.set_xticks(range(len(seeds)), [str(seed) for seed in seeds])
    ax.set(xlabel="seed", ylabel=LABELS[ACCURACY])
    ax.set_title("What varies more: the mask or the initialisation?")
    ax.legend(fontsize=8)
    return figure
