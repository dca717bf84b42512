"""The figures of Plant 'n' Seek's convolutional part; empty ones say that it was not run."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab import plugins
from ticketlab.papers.plant_n_seek.conv.report import MISSING, STRONG
from ticketlab.study.plots import curves, look


def found(table: pd.DataFrame) -> Figure:
    """Accuracy against density in the convolutional mother: without training, and trained.

    Dotted: the same search where nothing is planted. Without this part, a page that says so.
    """
    if table.empty:
        figure = plt.figure(figsize=(12, 1.2))
        figure.suptitle(f"convolutional ticket: {MISSING}")
        return figure
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.8), sharey=True)
    rows = table.assign(arm=table.regime + " " + table.method)
    rows = rows[rows.regime != "controls"]
    popped = rows.regime.isin(STRONG)
    for ax, part, column in (
        (axes[0], rows[popped], "per_output"),
        (axes[1], rows[~popped], "weak"),
    ):
        _panel(ax, part.assign(y=part[column].astype(float)))
        ax.axhline(table.ticket.mean(), color="k", ls="--", lw=1, label="planted ticket")
    known = table[(table.method == "oracle") & table.weak.notna()]
    if len(known):
        words = {"label": "planted ticket, trained", "color": "0.45", "ls": "-.", "lw": 1.2}
        axes[1].axhline(known.weak.astype(float).mean(), **words)
    axes[0].set(title="edge-popup (last epoch), no weight trained", ylabel="test accuracy (%)")
    axes[1].set(title="pruned and trained (last epoch)")
    for ax in axes:
        ax.set(xscale="log", xlabel="density (share kept)", ylim=(0, 100))
        ax.legend(fontsize=7)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    arms = sorted(set(rows.arm), key=lambda arm: (plugins.is_plugin(arm.split()[-1]), arm))
    styles = look(arms)
    rows = rows.assign(step=rows.groupby("label").density.transform("mean"))
    curves(ax, rows[rows.mother == "planted"], "density", "y", styles, "step")
    bare = rows[rows.mother == "unplanted"]
    for arm, style in styles.items():
        means = bare[bare.arm == arm].groupby("label")[["density", "y"]].mean()
        means = means.sort_values("density")
        ax.plot(means.density, means.y, ":", color=style["color"], lw=1.4)


def popup(learning: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Edge-popup's accuracy after each epoch in the planted convolutional mother, by density."""
    rows = learning if learning.empty else learning[learning.mother == "planted"]
    if rows.empty:
        figure = plt.figure(figsize=(12, 1.2))
        figure.suptitle(f"edge-popup on convolutions: {MISSING}")
        return figure
    regimes = [regime for regime in STRONG if regime in set(rows.regime)]
    figure, grid = plt.subplots(
        1, len(regimes), figsize=(6 * len(regimes), 3.8), sharey=True, squeeze=False
    )
    rows = rows.assign(arm=rows.method + ", density " + rows.label.astype(str))
    for ax, regime in zip(grid[0], regimes, strict=True):
        curves(
            ax, rows[rows.regime == regime], "epoch", "score", look(sorted(set(rows.arm))), "epoch"
        )
        ax.axhline(table.ticket.mean(), color="k", ls="--", lw=1, label="planted ticket")
        words = {"popup": "weights as they are", "popup_even": "signals kept even"}[regime]
        ax.set(title=f"edge-popup, {words}", xlabel="epoch", ylim=(0, 100))
        ax.legend(fontsize=7)
    grid[0][0].set_ylabel("test accuracy (%)")
    return figure
