"""The figures of the DLTH notebook's one net by hand: each draws one question and says it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.papers.dlth import algorithm
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.plots import GREY, PALETTE, legend, panels, says

KEPT, REMOVED = labels.colour("rst"), "#b4553a"
"""Colours of the weights inside the mask, and of those outside."""

Looks = Sequence[Mapping[str, float]]


def timeline(
    pressing: Looks, finetuning: Looks, penalty: algorithm.Penalty, window: float
) -> Figure:
    """lambda, accuracy with and without the removed weights, and ``|w|`` ratio on one time axis.

    Left of the line is the transformation, right of it finetuning; the band is the decay
    time of the removed weights.
    """
    figure, axes = plt.subplots(3, 1, figsize=(8.5, 8), sharex=True, layout="constrained")
    end = pressing[-1]["iteration"]
    left = pd.DataFrame(pressing)
    right = pd.DataFrame(finetuning).assign(iteration=lambda f: f.iteration + end)
    trace = [algorithm.strength(penalty, step) for step in range(int(end))]
    axes[0].plot(range(len(trace)), trace, color=GREY)
    axes[0].set(ylabel="lambda", title="Transformation, removal, finetuning")
    axes[1].plot(
        left.iteration, left.dense_mode, color=REMOVED, label="all weights", marker="o", ms=3
    )
    for part, label in ((left, "without the removed weights"), (right, None)):
        axes[1].plot(part.iteration, part.masked_mode, color=KEPT, label=label, marker="o", ms=3)
    axes[1].set(ylabel="validation accuracy (%)")
    axes[2].semilogy(left.iteration, left.ratio, color=GREY, marker="o", ms=3)
    axes[2].axhline(1 / 50, ls=":", color=GREY, lw=1, label="one fiftieth")
    axes[2].set(ylabel="mean |w|, removed / kept", xlabel="iteration")
    for ax in axes:
        ax.axvline(end, ls="--", color=GREY, lw=1, label="removal")
        ax.axvspan(0, window, color=KEPT, alpha=0.12, lw=0, label="decay time")
    legend(figure, "below")
    gap = left.masked_mode.iloc[-1] - left.dense_mode.iloc[-1]
    return says(
        figure,
        f"During the transformation the kept weights alone go from {left.masked_mode.iloc[0]:.1f} "
        f"to {left.masked_mode.iloc[-1]:.1f} % accuracy. The removal changes accuracy by "
        f"{gap:+.1f} points; finetuning ends at {right.masked_mode.iloc[-1]:.1f} % (one network).",
    )


def histograms(states: Mapping[str, State], mask: Mask) -> Figure:
    """``|w|`` of kept and removed weights at several times of the transformation, on a log axis."""
    figure, axes = panels(len(states), 2.6, 2.8, sharey=True)
    keep, bins = mask.flat().cpu().numpy(), np.logspace(-7, 0.5, 45).tolist()
    ratios = []
    for ax, (title, state) in zip(axes, states.items(), strict=True):
        size = np.concatenate([state[n].abs().flatten().cpu().numpy() for n in mask])
        for chosen, label, color in ((keep, "kept", KEPT), (~keep, "removed", REMOVED)):
            share = np.full(chosen.sum(), 1 / chosen.sum())
            values = size[chosen].clip(bins[0], bins[-1])
            ax.hist(values, bins, weights=share, color=color, alpha=0.55, label=label)
        ax.set(xscale="log", title=title, xlabel="|w|")
        ratios.append(size[keep].mean() / size[~keep].mean())
    axes[0].set(ylabel="share of the group")
    legend(figure, "below")
    return says(
        figure,
        f"Kept weights are {ratios[0]:.1f} times as large as removed ones at the start of the "
        f"transformation and {ratios[-1]:.0f} times at its end (mean |w|, one network).",
    )


def jump(runs: Mapping[str, Looks], milestones: Sequence[int] = ()) -> Figure:
    """Accuracy through finetuning, a line per run; dotted where the learning rate falls."""
    figure, (ax,) = panels(1, 8, 4)
    for (label, looks), color in zip(runs.items(), [KEPT, REMOVED, GREY, *PALETTE], strict=False):
        frame = pd.DataFrame(looks)
        ax.plot(frame.iteration, frame.masked_mode, "-o", ms=3, color=color, label=label)
    for step in milestones:
        ax.axvline(step, ls=":", color=GREY, lw=1, label="learning rate falls")
    ax.set(xlabel="iteration of finetuning", ylabel="validation accuracy (%)")
    ax.set_title("Accuracy after the jump of the learning rate")
    legend(figure)
    ends = ", ".join(f"{name} {looks[-1]['masked_mode']:.1f} %" for name, looks in runs.items())
    label, looks = next(iter(runs.items()))
    start = looks[0]["masked_mode"]
    low = min(look["masked_mode"] for look in looks[1:])
    way = f"starts at {start:.1f} %, and its lowest accuracy after that is {low:.1f} %"
    return says(figure, f"At the full learning rate {label} {way}. At the end: {ends}.")
