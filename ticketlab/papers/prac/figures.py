"""The figures of the PrAC notebook: each takes tables, draws one question, returns the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from ticketlab.data.sets import Images
from ticketlab.papers.prac.params import (
    AGAIN,
    BY,
    CONTROLS,
    FOLLOWERS,
    LADDERS,
    PARTS,
    PracParams,
    pruned_by,
    with_epsilon,
    with_threshold,
)
from ticketlab.papers.prac.report import ACCURACY, at, round_said, sparsity_of
from ticketlab.papers.prac.subsets import NEVER
from ticketlab.study.plots import PALETTE, Look, curves, density_axis, error_bars, look, summarise
from ticketlab.study.stats import as_interval, paired
from ticketlab.study.tables import LABELS

ARMS = ("imp", *LADDERS, *FOLLOWERS, *CONTROLS, *PARTS[:2])


def looks(arms: Sequence[str] = ARMS) -> dict[str, Look]:
    """Colour and marker of each arm, the same in every figure."""
    every = look([*ARMS, *(arm for arm in arms if arm not in ARMS)])
    return {arm: every[arm] for arm in arms}


# ---------------------------------------------------------------- one round by hand


def forgetting(events: Tensor) -> Figure:
    """Samples by number of forgetting events (N,), the never-learned ones last; CET coloured."""
    counts = torch.bincount(events[(events >= 0) & (events < NEVER)].clamp(max=6)).tolist()
    names = [*(str(i) for i in range(len(counts))), "never\nlearned"]
    heights = [*counts, int((events == NEVER).sum())]
    figure, ax = plt.subplots(figsize=(6.5, 3.4))
    colours = ["0.75" if name == "0" else PALETTE[3] for name in names]
    bars = ax.bar(names, heights, color=colours)
    ax.bar_label(bars, fmt="{:.0f}", fontsize=8)
    ax.set(title="How often was each sample forgotten?", xlabel="forgetting events")
    ax.set_ylabel("samples (coloured: CET at E_F = 0)")
    ax.grid(False, axis="x")
    return figure


def in_and_out(images: Images, inside: Tensor, shown: int = 12) -> Figure:
    """Two rows of training images: in the set and left out, evenly spread, labels above."""
    everything = torch.arange(len(images), device=inside.device)
    outside = everything[~torch.isin(everything, inside)]
    rows = {"in the set": inside, "left out": outside}
    figure, axes = plt.subplots(2, shown, figsize=(shown * 0.8, 2.3))
    for line, (title, index) in zip(axes, rows.items(), strict=True):
        picked = spread(index, shown)
        titles = [str(int(y)) for y in images.y[picked]]
        _pictures(line, images, picked, titles)
        line[0].set_ylabel(title, fontsize=9)
    figure.suptitle("Training images in the critical set and out of it (title: class)", fontsize=10)
    return figure


def forgotten_by_pruning(
    images: Images, index: Tensor, dense: Tensor, sparse: Tensor, shown: int = 12
) -> Figure:
    """Images on which two nets differ, with label and both predictions (N,) each."""
    picked = spread(index, shown)
    rows = zip(
        images.y[picked].tolist(), dense[picked].tolist(), sparse[picked].tolist(), strict=True
    )
    figure, axes = plt.subplots(1, shown, figsize=(shown * 0.85, 1.5), squeeze=False)
    _pictures(axes[0], images, picked, [f"is {y}\n{a} → {b}" for y, a, b in rows])
    figure.suptitle("Class, and predictions dense → sparse", fontsize=10, y=1.02)
    return figure


def spread(index: Tensor, count: int) -> Tensor:
    """Up to `count` of the indices, evenly spread."""
    places = torch.linspace(0, len(index) - 1, min(count, len(index))).long()
    return index[places.to(index.device)]


def _pictures(axes: Sequence[Axes], images: Images, index: Tensor, titles: Sequence[str]) -> None:
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for ax, picture, title in zip(axes, images.x[index].cpu(), titles, strict=False):
        ax.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r")
        ax.set_title(title, fontsize=8, fontweight="normal")


def one_distance(distances: Sequence[float], epsilon: float, drops: Sequence[float]) -> Figure:
    """Mask distance of one round's epochs, with epsilon and where the learning rate falls."""
    figure, ax = plt.subplots(figsize=(7, 3.4))
    epochs = range(2, len(distances) + 2)
    ax.plot(epochs, distances, marker="o", label="distance to the mask of the epoch before")
    ax.axhline(epsilon, color=PALETTE[3], ls="--", label=f"epsilon = {epsilon:g}")
    for drop in drops:
        ax.axvline(
            drop + 0.5, color="0.6", ls=":", label="learning rate falls" * (drop == drops[0])
        )
    ax.set(xlabel="epoch", ylabel="mask distance", title="When does the mask settle?")
    ax.set_ylim(0, None)
    ax.legend(fontsize=8)
    return figure


# ---------------------------------------------------------------- all rounds and seeds


def accuracy(scores: pd.DataFrame) -> Figure:
    """Test accuracy of the main net's tickets against sparsity: searches, and masks without one.

    Arms that other criteria prune stand in the second panel.
    """
    own = sorted(arm for arm in scores.arm.unique() if arm.startswith(BY))
    panels = {
        "Searches": ("imp", *LADDERS, *FOLLOWERS, *PARTS[:2]),
        "Other masks, criteria and weights": ("imp", "prac", *CONTROLS, *own),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    frame = scores[scores.place == "main"].assign(density=1 - scores.sparsity)
    frame = frame[frame.arm.isin([*ARMS, *own])]
    dense = frame[(frame.arm == "imp") & (frame["round"] == 0)][ACCURACY].mean()
    for ax, (title, arms) in zip(axes, panels.items(), strict=True):
        curves(ax, frame, "density", ACCURACY, looks(arms), "round")
        ax.axhline(dense, color="0.5", lw=1, ls="--", label="dense")
        density_axis(ax, frame.density.min())
        ax.set(xlabel="sparsity of the prunable weights", title=title)
        ax.legend(fontsize=8, loc="lower left")
    margin = 0.15 * np.ptp(frame[ACCURACY]) + 0.2
    axes[0].set_ylim(frame[ACCURACY].min() - margin, frame[ACCURACY].max() + margin)
    axes[0].set_ylabel(LABELS[ACCURACY])
    return figure


def against_imp(scores: pd.DataFrame, levels: Sequence[int]) -> Figure:
    """Accuracy against IMP's ticket of the same seed at each level, in points, with intervals.

    Random pruning and shuffled masks, which lose most, are left to `accuracy`.
    """
    arms = ("prac", "random", "cet-only", "short-imp", "reinit")
    chosen, every = sorted(set(levels)), looks()
    figure, ax = plt.subplots(figsize=(9, 4.2))
    for number, arm in enumerate(arms):
        values = [paired(at(scores, arm, level), at(scores, "imp", level)) for level in chosen]
        shift = 0.12 * (number - (len(arms) - 1) / 2)
        for place, found in enumerate(values):
            label = f"{arm} (n = {found.n})" if place == 0 else None
            error_bars(ax, place + shift, found, every[arm], label=label)
    ax.axhline(0, color="0.4", lw=1)
    ax.set_xticks(range(len(chosen)), [f"{sparsity_of(scores, level):.1f} %" for level in chosen])
    ax.set(xlabel="sparsity of the prunable weights", ylabel="points against IMP (last epoch)")
    ax.set_title("How much better than IMP's tickets? (95 % intervals)")
    ax.legend(fontsize=8, loc="lower left")
    return figure


def cost(rounds: pd.DataFrame) -> Figure:
    """Cumulative iterations of the main searches against the ticket's sparsity, log scale."""
    figure, ax = plt.subplots(figsize=(8, 4.8))
    frame = rounds[rounds.place == "main"].assign(density=1 - rounds.sparsity)
    arms = ("imp", "imp-early-stop", "cep-only", "prac", "cet-only")
    curves(ax, frame, "density", "total_iterations", looks(arms), "round")
    last = frame[(frame["round"] == frame["round"].max()) & frame.arm.isin(arms[1:])]
    means = last.groupby("arm")[["density", "total_iterations", "saving"]].mean()
    for x, y, saving in means.itertuples(index=False):
        ax.annotate(f"-{saving:.0f} %", (x, y), (6, -3), textcoords="offset points", fontsize=8)
    density_axis(ax, frame.density.min())
    ax.set(yscale="log", xlabel="sparsity of the ticket", ylabel="iterations of the search so far")
    ax.set_title("What a ticket costs to find (random, short-imp: as prac)")
    ax.legend(fontsize=8)
    return figure


def composition(sets: pd.DataFrame) -> Figure:
    """Size of PrAC's sets by round, stacked by kind, and the share of CEP that is CET, too."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4))
    own = sets[sets.place == "main"]
    kinds = {"only_cet": "CET only", "both": "both", "only_cep": "CEP only"}
    bars = own.groupby("round")[list(kinds)].mean().rename(columns=kinds)
    bars.plot.bar(stacked=True, ax=axes[0], width=0.8, color=[PALETTE[0], "0.55", PALETTE[1]])
    points = own.groupby("round").share.agg(["mean", "min", "max"])
    reach = points.rename(columns={"min": "low", "max": "high"})
    error_bars(axes[0], range(len(points)), reach, {"color": "0.2", "marker": " "})
    axes[0].set(title="The set after each round (lines: range of seeds)", xlabel="round")
    axes[0].set_ylabel("% of the training split")
    axes[0].tick_params(axis="x", rotation=0)
    for value, name in (("overlap", "CEP that is CET, too"), ("share", "set of all data")):
        values = summarise(own.dropna(subset=value), ["round"], value)
        axes[1].plot(values["round"], values["mean"], marker="o", label=name)
        axes[1].fill_between(values["round"], values.low, values.high, alpha=0.15, lw=0)
    axes[1].set(title="Overlap and size", xlabel="round", ylabel="%", ylim=(0, 105))
    axes[1].legend(fontsize=8)
    return figure


def class_balance(classes: pd.DataFrame) -> Figure:
    """Share of each class in PrAC's sets by round, mean over seeds."""
    heat = classes.pivot_table(index="class", columns="round", values="share", aggfunc="mean")
    few = len(heat) <= 20
    figure, ax = plt.subplots(figsize=(7, 0.3 * min(len(heat), 20) + 1.6))
    even = 100 / len(heat)
    sns.heatmap(
        heat,
        annot=few,
        fmt=".0f",
        cmap="vlag",
        center=even,
        ax=ax,
        cbar_kws={"label": "% of the set"},
    )
    ax.set_title(f"Classes in the set (balanced would be {even:g} % each)")
    return figure


def distances(table: pd.DataFrame, params: PracParams) -> Figure:
    """Mask distance by epoch, one line per round and seed: IMP to the end, PrAC as stopped."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True)
    colours = sns.color_palette("viridis", params.rounds)
    for ax, arm in zip(axes, ("imp", "prac"), strict=True):
        for _, rows in table[table.arm == arm].groupby(["seed", "round"]):
            colour = colours[int(rows["round"].iloc[0]) - 1]
            ax.plot(rows.epoch, rows.distance, color=colour, lw=0.9, alpha=0.8)
        ax.axhline(params.stop.epsilon, color=PALETTE[3], ls="--", lw=1)
        drops = table[(table.arm == arm) & (table["round"] == 1)]["drop"]
        ax.axvline(drops.mean() + 0.5, color="0.6", ls=":")
        ax.set(title=arm, xlabel="epoch (of the set)", ylabel="mask distance")
    bar = plt.cm.ScalarMappable(Normalize(1, params.rounds), plt.get_cmap("viridis"))
    figure.colorbar(bar, ax=axes, label="round")
    return figure


def overlap(table: pd.DataFrame) -> Figure:
    """IoU of masks with IMP's of the same seed, a dot per seed, with intervals; line: by chance."""
    arms = (AGAIN, "imp-early-stop", "short-imp", "prac", "random", "cet-only")
    table = table[table.arm.isin(arms)]
    means = summarise(table, ["arm"], "iou").sort_values("mean", ascending=False)
    places = {arm: place for place, arm in enumerate(means.arm)}
    figure, ax = plt.subplots(figsize=(8, 3.8))
    ax.plot(table.arm.map(places), table.iou, "o", color=PALETTE[0], alpha=0.6, ms=4)
    error_bars(ax, range(len(means)), means, {"color": "0.2", "marker": "_"}, size=14)
    ax.axhline(table.chance.mean(), color="0.5", ls="--", lw=1, label="by chance")
    ax.set_xticks(range(len(means)), list(means.arm), rotation=30, ha="right")
    ax.set(ylabel="intersection over union", title="How near is each mask to IMP's?")
    ax.legend(fontsize=8)
    return figure


def decomposition(found: Mapping[str, Any]) -> Figure:
    """What each step saves of IMP's iterations, and what it does to accuracy, with intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), sharey=True)
    titles = {"saving": "iterations saved (% of IMP's)", "accuracy": "accuracy (points)"}
    for ax, (key, title) in zip(axes, titles.items(), strict=True):
        for place, name in enumerate(found):
            value = as_interval(found[name][key])
            colour = PALETTE[1] if name.endswith("alone") else PALETTE[0]
            if value is not None:
                style = {"color": colour, "marker": "o"}
                error_bars(ax, place, value, style, upright=False, size=6)
        ax.axvline(0, color="0.4", lw=1)
        ax.set_title(title)
    axes[0].set_yticks(range(len(found)), list(found))
    axes[0].invert_yaxis()
    return figure


def forgetting_by_round(table: pd.DataFrame) -> Figure:
    """Samples of each round's set by forgetting events, mean over seeds, in percent of the set."""
    wide = table.pivot_table(index="round", columns="events", values="share", sort=False)
    used = wide.loc[:, wide.max() > 0.5]
    figure, ax = plt.subplots(figsize=(7.5, 3.8))
    colours = sns.color_palette("rocket_r", len(used.columns)).as_hex()
    used.plot.bar(stacked=True, ax=ax, width=0.8, color=list(colours))
    ax.set(title="Forgetting events by round", ylabel="% of the round's samples")
    ax.tick_params(axis="x", rotation=0)
    ax.legend(fontsize=8, title="events", bbox_to_anchor=(1, 1))
    return figure


def transfer(found: Mapping[str, Any], params: PracParams) -> Figure:
    """Accuracy on the other nets by where the set comes from, in points against native sets."""
    rows = {
        "sequence_minus_native": f"sequence of {params.model.name}",
        "final_minus_native": f"last set of {params.model.name}",
        "random_minus_native": "random, same sizes",
    }
    every = look([other.name for other in params.others])
    figure, ax = plt.subplots(figsize=(7, 2.6))
    for number, (name, style) in enumerate(every.items()):
        for place, row in enumerate(rows):
            value, shift = as_interval(found[name][row]), 0.15 * number
            if value is not None:
                label = name if place == 0 else None
                error_bars(ax, place + shift, value, style, label=label, upright=False)
    ax.axvline(0, color="0.4", lw=1)
    ax.set_yticks(range(len(rows)), list(rows.values()))
    ax.invert_yaxis()
    ax.set(title="Sets from elsewhere, against the net's own", xlabel="points (last epoch)")
    ax.legend(fontsize=8, title="tickets of")
    return figure


def ablations(scores: pd.DataFrame, params: PracParams) -> Figure:
    """Test accuracy at the last ablation level by how the set was chosen, one dot per seed."""
    level = max(params.ablation_levels)
    own = [*map(with_threshold, params.thresholds), *map(with_epsilon, params.epsilons)]
    others = [*params.scores, "random", *map(pruned_by, params.criteria)]
    arms = ["imp", "prac", *own, "cet-only", "cep-only", *others, "short-imp"]
    rows = scores[(scores.place == "main") & (scores["round"] == level) & scores.arm.isin(arms)]
    means = summarise(rows, ["arm"], ACCURACY).set_index("arm").reindex(arms).dropna(subset="mean")
    figure, ax = plt.subplots(figsize=(8, 4))
    places = {arm: place for place, arm in enumerate(means.index)}
    ax.plot(rows.arm.map(places), rows[ACCURACY], "o", color=PALETTE[0], alpha=0.6, ms=5)
    error_bars(ax, range(len(means)), means, {"color": "0.2", "marker": "_"}, size=14)
    ax.set_xticks(range(len(means)), list(means.index), rotation=30, ha="right")
    ax.set(ylabel=LABELS[ACCURACY], title=f"Which samples? Tickets of {round_said(scores, level)}")
    return figure
