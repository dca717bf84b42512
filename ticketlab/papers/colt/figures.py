"""The figures of the COLT notebook: each takes tables, draws one question, returns the figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.report import ACCURACY, nearest, span, sparsities
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask
from ticketlab.study.plots import Look, curves, density_axis, look
from ticketlab.study.tables import LABELS

ARMS = ("imp", "imp-matched", "main", "random", "shuffled", "reinit")


def looks(params: ColtParams, arms: Sequence[str] = ARMS) -> dict[str, Look]:
    """Colour and marker of each arm; "main" and "random" stand for COLT's two splits."""
    names = dict(zip(("main", "random"), (v.name for v in params.main), strict=True))
    every = look([names.get(arm, arm) for arm in ARMS])
    return {name: every[name] for name in (names.get(arm, arm) for arm in arms)}


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


def accuracy(scores: pd.DataFrame, params: ColtParams) -> Figure:
    """Test accuracy of retrained tickets against sparsity, all arms."""
    figure, ax = plt.subplots(figsize=(8.5, 5))
    frame = scores.assign(density=1 - scores.sparsity)
    curves(ax, frame, "density", ACCURACY, looks(params), "round")
    dense = scores[(scores.arm == "imp") & (scores["round"] == 0)][ACCURACY].mean()
    ax.axhline(dense, color="0.5", lw=1, ls="--", label="dense")
    density_axis(ax, frame.density.min())
    ax.set(xlabel="sparsity of the convolution weights", ylabel=LABELS[ACCURACY])
    ax.set_title("Accuracy of the retrained tickets")
    ax.legend(fontsize=8)
    return figure


def pace(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Remaining weights against round, with the band from identical to chance-level masks."""
    figure, ax = plt.subplots()
    arms = looks(params, ("imp", "main", "random"))
    turns = np.arange(rounds["round"].max() + 1)
    fastest = algorithm.chance_rate(params.rate, params.partitions)
    slow, fast = (1 - params.rate) ** turns, (1 - fastest) ** turns
    ax.fill_between(turns, slow, fast, color="0.9", label="COLT: identical masks to chance")
    dense = rounds[(rounds.arm == "imp") & (rounds["round"] == 0)]
    frame = pd.concat([rounds, *(dense.assign(arm=arm) for arm in arms if arm != "imp")])
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
    arms = looks(params, ("imp", "imp-matched", "main", "random"))
    curves(ax, frame, "thousands", ACCURACY, arms, "round")
    ax.set(xlabel="images seen by the search (thousands)", ylabel=LABELS[ACCURACY])
    ax.set_title("Accuracy against the cost of finding the ticket")
    ax.legend(fontsize=8)
    return figure


def agreement(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Effective rate u and agreement J of each round, against chance."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    arms = looks(params, ("main", "random"))
    titles = {"rate": "u: removed a round", "agreement": "J: agreement on what to prune"}
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
    arms = looks(params, ("main", "random", "imp", "imp-matched"))
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


def transfer(table: pd.DataFrame, params: ColtParams) -> Figure:
    """Accuracy of transferred tickets on the target, one dot a ticket; the line is dense."""
    figure, ax = plt.subplots()
    dense = table[table.arm == "dense"][ACCURACY].mean()
    rows = table[table.arm != "dense"]
    named = {arm: f"{arm}\n{span(own.sparsity)}" for arm, own in rows.groupby("arm")}
    rows = rows.assign(arm=rows.arm.map(named))
    sns.stripplot(rows, x="arm", y=ACCURACY, hue="carried", dodge=True, size=5, jitter=False, ax=ax)
    ax.axhline(dense, color="0.5", lw=1, ls="--", label="dense on the target")
    name = params.transfer.data.name
    levels = ", ".join(f"{100 * level:g}" for level in params.transfer.levels)
    ax.set(xlabel="where the ticket comes from, and its sparsity", ylabel=LABELS[ACCURACY])
    ax.set_title(f"Tickets nearest to {levels} % sparsity moved to {name}")
    ax.legend(fontsize=8)
    return figure
