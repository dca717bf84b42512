"""Figures of what masks and plantings look like inside: densities of layers, visible entries."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.papers.plant_n_seek.figures import methods_of, tasks_of
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import SEARCHES, of_main, shown_methods
from ticketlab.study.plots import GREY, PALETTE, error_bars, legend, number, panels, says, within
from ticketlab.study.stats import each_seed, interval, over_seeds


def collapse(layers: pd.DataFrame, scores: pd.DataFrame, params: PlantParams) -> Figure:
    """Draw layer densities of Circle's masks at the ticket's density, and if any path is left."""
    rows = layers[(layers.task == "circle") & (layers.label == "gt")]
    rows = rows[(rows.mother == "planted") & rows.method.isin(shown_methods(params))]
    alive = of_main(scores, params)
    alive = alive[(alive.task == "circle") & (alive.label == "gt") & (alive.mother == "planted")]
    regimes = [regime for regime in SEARCHES if regime in set(rows.regime)]
    figure, axes = panels(max(1, len(regimes)), 6.2, 3.6)
    dead = []
    for ax, regime in zip(axes, regimes, strict=False):
        paths = alive[alive.regime == regime].groupby("method").alive.agg(["sum", "count"])
        _layers_of(ax, rows[rows.regime == regime], paths, params)
        ax.set(title=f"{labels.label(regime)}: % kept of each tensor", xlabel="", ylabel="")
        cut = [labels.label(str(m)) for m, row in paths.iterrows() if 2 * row["sum"] < row["count"]]
        names = [name for name in cut if name in _named(rows[rows.regime == regime].method)]
        dead.append(f"{labels.label(regime)} {', '.join(names) or 'none'}")
    counts = alive.groupby(["regime", "method"]).seed.nunique()
    seeds = " to ".join(map(str, sorted({counts.min(), counts.max()})))
    return says(
        figure,
        "Methods whose masks at the ticket's density leave no path from input to output in most "
        f"seeds: {'; '.join(dead)} (n = {seeds}).",
    )


def _named(names: Iterable[str]) -> set[str]:
    return {labels.label(name) for name in names}


def _layers_of(ax: Axes, rows: pd.DataFrame, paths: pd.DataFrame, params: PlantParams) -> None:
    """Draw one heat map: methods in rows, tensors in columns."""
    heat = rows.pivot_table(index="method", columns="tensor", values="kept")
    heat = heat.loc[methods_of(rows, params), sorted(map(str, heat.columns), key=_layer)]
    heat.index = pd.Index(
        f"{labels.label(m)} (path in {paths['sum'][m]:.0f} of {paths['count'][m]})"
        for m in heat.index
    )
    heat.columns = pd.Index(
        f"{name[:-1].rstrip('0123456789')}\n{name[-1]}" for name in map(str, heat)
    )
    sns.heatmap(
        100 * heat,
        ax=ax,
        cmap="Blues",
        annot=True,
        fmt=".1f",
        annot_kws={"size": 7.5},
        cbar=False,
        vmin=0,
        vmax=15,
        linewidths=1,
    )


def _layer(tensor: str) -> tuple[str, str]:
    """Return a key that sorts tensors by their layer's number, biases before weights."""
    return tensor[-1], tensor


def visible(audits: pd.DataFrame) -> Figure:
    """Draw how well a classifier that knows other seeds tells planted entries, by mode."""
    tasks, modes = tasks_of(audits), sorted(set(audits["mode"]))
    figure, (ax,) = panels(1, 9, 0.8 + 0.75 * len(tasks))
    colors = dict(zip(modes, (PALETTE[0], PALETTE[1], PALETTE[2]), strict=False))
    for mode, shift, marker in zip(modes, np.linspace(-0.22, 0.22, len(modes)), "oDs", strict=True):
        look: dict[str, Any] = {"color": colors[mode], "marker": marker}
        for place, task in enumerate(tasks):
            rows = audits[(audits["mode"] == mode) & (audits.task == task)]
            seeds = rows.auroc.tolist()
            ax.plot(seeds, [place + shift] * len(seeds), ".", color=look["color"], alpha=0.4, ms=4)
            name = None if place else f"planted {labels.label(mode)}"
            error_bars(ax, place + shift, interval(seeds), look, upright=False, size=6, label=name)
    ax.axvline(0.5, color=GREY, ls="--", lw=1, label="chance")
    ax.set_yticks(range(len(tasks)), [labels.label(task) for task in tasks])
    ax.set(
        xlabel="area under the ROC curve",
        title="Can planted entries be distinguished from the others?",
    )
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.grid(False, axis="y")
    within(ax, 0.0, 1.01, "x")
    legend(figure)
    return says(figure, _hides_best(audits))


def _hides_best(audits: pd.DataFrame) -> str:
    """Say which planting is hardest to see, over all targets."""
    found = {
        mode: over_seeds(each_seed(audits[audits["mode"] == mode], "auroc"))
        for mode in sorted(set(audits["mode"]))
    }
    ranked = sorted(found, key=lambda mode: found[mode].mean)
    hardest, easiest = ranked[0], ranked[-1]
    areas = [number(found[mode], "") for mode in (hardest, easiest)]
    return (
        f"Tickets planted {labels.label(hardest)} are the hardest to see (area {areas[0]}, "
        f"0.5 is chance), those planted {labels.label(easiest)} the easiest ({areas[1]})."
    )
