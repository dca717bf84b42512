"""The figures of the COLT notebook: each takes tables, draws one question, returns the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import (
    HALF,
    MATCHED,
    SEARCHED,
    ColtParams,
    Transfer,
    arm_name,
)
from ticketlab.papers.colt.report import ACCURACY, WHOLE, dense, nearest, span, sparsities
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask
from ticketlab.study.plots import Look, curves, density_axis, error_bars, look
from ticketlab.study.stats import as_interval
from ticketlab.study.tables import LABELS

CLASS, RANDOM = "class", "random images"
"""COLT's two splits in the lists of arms below; the parameters say how the arms are called."""
SEARCHES = ("imp", MATCHED, HALF, CLASS, RANDOM)
"""Arms with a search of their own."""
SHOWN = (*SEARCHES, "random", "magnitude")


def named(params: ColtParams, arm: str) -> str:
    """The name of an arm in tables."""
    return {CLASS: params.main[0].name, RANDOM: params.main[1].name}.get(arm, arm)


def looks(params: ColtParams, arms: Sequence[str] = SHOWN) -> dict[str, Look]:
    """Colour and marker of each arm, the same in all figures."""
    every = look([named(params, arm) for arm in SHOWN])
    return {name: every[name] for name in (named(params, arm) for arm in arms)}


def one_round(scores: Sequence[Scores], own: Sequence[Mask], shown: int = 4000) -> Figure:
    """Final magnitudes of the same weights in the first two copies, coloured by their fate.

    Dashed lines are each copy's own threshold. `shown` weights are drawn, evenly spread.
    """
    values = [np.concatenate([s[n].flatten().cpu().numpy() for n in own[0]]) for s in scores[:2]]
    kept = [mask.flat().cpu().numpy() for mask in own[:2]]
    words = np.array(["pruned by both", "kept by copy 0 only", "kept by copy 1 only", "kept"])
    fate = words[kept[0] + 2 * kept[1]]
    some = np.linspace(0, len(fate) - 1, min(shown, len(fate))).astype(int)
    figure, ax = plt.subplots(figsize=(6.5, 5))
    x, y = (value[some] for value in values)
    sns.scatterplot(x=x, y=y, hue=fate[some], hue_order=words, s=8, linewidth=0, ax=ax)
    ax.axvline(values[0][~kept[0]].max(), ls="--", color="0.35", lw=1)
    ax.axhline(values[1][~kept[1]].max(), ls="--", color="0.35", lw=1)
    ax.set(xscale="log", yscale="log", xlim=(1e-4, None), ylim=(1e-4, None))
    ax.set(title="The same weights after round 1", xlabel="|w| in copy 0", ylabel="|w| in copy 1")
    return figure


def accuracy(points: Mapping[str, pd.DataFrame], params: ColtParams) -> Figure:
    """Test accuracy of retrained tickets against sparsity, a panel for each rewinding point.

    `points` maps what it is rewound to, in words, to the point's table of scores.
    """
    figure, axes = _panels(len(points), (6.5, 5))
    for ax, (rewound, scores) in zip(axes, points.items(), strict=True):
        frame = scores.assign(density=1 - scores.sparsity)
        curves(ax, frame, "density", ACCURACY, looks(params), "round")
        ax.axhline(dense(scores)[ACCURACY].mean(), color="0.5", lw=1, ls="--", label="dense")
        density_axis(ax, frame.density.min())
        ax.set(xlabel="sparsity of the convolution weights", ylabel=LABELS[ACCURACY])
        ax.set_title(f"Retrained tickets, rewound to\n{rewound}")
        ax.legend(fontsize=8)
    return figure


def _panels(
    count: int, each: tuple[float, float], sharey: bool = True
) -> tuple[Figure, Sequence[Axes]]:
    """A row of panels of a size each."""
    size = (count * each[0], each[1])
    figure, axes = plt.subplots(
        1, count, figsize=size, sharey=sharey, squeeze=False, layout="constrained"
    )
    return figure, axes[0]


def points(numbers: Mapping[str, Mapping[str, Any]], level: float, params: ColtParams) -> Figure:
    """Accuracy near one sparsity: a row for each arm, its mean over seeds and 95 % interval.

    A panel for each rewinding point; `numbers` maps what it is rewound to, in words, to the
    accuracies of `metrics`. Below an arm stand its controls, in its colour.
    """
    figure, axes = _panels(len(numbers), (6, 5.5))
    rows = _rows(params)
    for ax, (rewound, found) in zip(axes, numbers.items(), strict=True):
        whole = as_interval(found["dense"])
        if whole is not None:
            ax.axvline(whole.mean, color="0.5", lw=1, ls="--", label="dense")
        for place, (arm, style) in enumerate(rows.items()):
            one = as_interval(found.get(arm, {}).get(f"at_{100 * level:g}"))
            if one is not None:
                error_bars(ax, place, one, style, upright=False)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set(xlabel=f"{LABELS[ACCURACY]}, mean and 95 % interval")
        ax.set_title(f"Near {100 * level:g} % sparsity, rewound to\n{rewound}")
        ax.legend(fontsize=8)
    axes[0].invert_yaxis()
    return figure


def _rows(params: ColtParams) -> dict[str, Look]:
    """The arms of `points` in their order, controls after what they control, in its colour."""
    rows: dict[str, Look] = {}
    for arm, style in looks(params).items():
        rows[arm] = style
        if arm in (MATCHED, *(variant.name for variant in params.main)):
            for how, marker in zip(SEARCHED, ("x", "+"), strict=True):
                rows[arm_name(arm, how)] = {**style, "marker": marker}
    return rows


def pace(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Remaining weights against round, with the band from identical to chance-level masks."""
    figure, ax = plt.subplots()
    arms = looks(params, ("imp", HALF, CLASS, RANDOM))
    turns = np.arange(rounds["round"].max() + 1)
    fastest = algorithm.chance_rate(params.rate, params.partitions)
    slow, fast = (1 - params.rate) ** turns, (1 - fastest) ** turns
    ax.fill_between(turns, slow, fast, color="0.9", label="COLT: identical masks to chance")
    begin = dense(rounds)
    frame = pd.concat([rounds[rounds["round"] > 0], *(begin.assign(arm=arm) for arm in arms)])
    curves(ax, frame.assign(density=1 - frame.sparsity), "round", "density", arms, "round")
    ax.axhline(1 - params.target, color="0.5", lw=1, ls="--", label="target")
    ax.set(yscale="log", ylim=(0.6 * (1 - params.target), 1.1), xlabel="round")
    ax.set(ylabel="density (remaining weights)", title="Pruning pace")
    ax.legend(fontsize=8)
    return figure


def cost(scores: pd.DataFrame, params: ColtParams) -> Figure:
    """Test accuracy against the images seen by the search (in thousands)."""
    figure, ax = plt.subplots()
    frame = scores[scores["round"] > 0].assign(thousands=scores.search_images / 1e3)
    arms = looks(params, SEARCHES)
    curves(ax, frame, "thousands", ACCURACY, arms, "round")
    ax.set(xlabel="images seen by the search (thousands)", ylabel=LABELS[ACCURACY])
    ax.set_title("Accuracy against the cost of finding the ticket")
    ax.legend(fontsize=8)
    return figure


def agreement(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Effective rate u and agreement J of each round, against chance."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    arms = looks(params, (CLASS, RANDOM))
    titles = {"rate": "u: removed per round", "agreement": "J: agreement on what to prune"}
    for ax, (value, title) in zip(axes, titles.items(), strict=True):
        curves(ax, rounds, "round", value, arms, "round")
        chance = rounds[rounds.arm.isin(list(arms))][f"chance_{value}"].dropna()
        if len(chance):
            ax.axhline(chance.iloc[0], color="0.4", ls="--", lw=1, label="chance")
        ax.set(xlabel="round", title=title, ylim=(0, None))
        ax.legend(fontsize=8)
    return figure


def layers(table: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Density of each layer by arm at the ticket nearest to the highest level, mean over seeds."""
    level = max(params.levels)
    arms = looks(params, (CLASS, RANDOM, "imp", MATCHED))
    wanted = pd.concat([nearest(rounds, arm, level)[["arm", "seed", "round"]] for arm in arms])
    picked = table.merge(wanted)
    heat = picked.groupby(["layer", "arm"], sort=False).density.mean().unstack()[list(arms)]
    heat.columns = [f"{arm}\n{sparsities(rounds, arm, level)}" for arm in arms]
    figure, ax = plt.subplots(figsize=(8.5, 0.4 * len(heat) + 1.8))
    few = len(heat) <= 25
    sns.heatmap(heat, annot=few, fmt=".3f", cmap="viridis", ax=ax, cbar_kws={"label": "density"})
    title = f"Layer densities of the tickets nearest to {100 * level:g} % sparsity (theirs below)"
    ax.set(title=title, xlabel="", ylabel="")
    return figure


def transfer(table: pd.DataFrame, moving: Transfer) -> Figure:
    """Accuracy of moved tickets on their new data, one dot a ticket, a panel for each sparsity.

    The line is the dense net there.
    """
    figure, axes = _panels(len(moving.levels), (5, 4), sharey=False)
    whole = table[table.arm == "dense"][ACCURACY].mean()
    moved = table[table.arm != "dense"]
    arms = list(dict.fromkeys(moved.arm))
    for ax, level in zip(axes, moving.levels, strict=True):
        parts = [part for _, part in moved.groupby("carried")]
        near = [nearest(part, arm, level) for part in parts for arm in dict.fromkeys(part.arm)]
        own = pd.concat(near)
        named = {arm: f"{arm}\n{span(own[own.arm == arm].sparsity)}" for arm in arms}
        sns.stripplot(
            own.assign(arm=own.arm.map(named)), y="arm", x=ACCURACY, hue="carried", size=5,
            order=list(named.values()), hue_order=[WHOLE, "mask only"], dodge=True, jitter=False,
            ax=ax,
        )  # fmt: skip
        ax.axvline(whole, color="0.5", lw=1, ls="--", label="dense, there")
        ax.set(ylabel="", xlabel=LABELS[ACCURACY])
        ax.set_title(f"Tickets near {100 * level:g} %, moved to {moving.data.name}")
        ax.legend(fontsize=8)
    return figure
