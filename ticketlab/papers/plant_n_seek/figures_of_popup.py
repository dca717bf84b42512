"""The figure of edge-popup: how far its untrained masks end from the planted ticket."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.papers.plant_n_seek.figures import tasks_of
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import FOUND_DECADES, FOUND_POINTS, column, of_main
from ticketlab.study.plots import error_bars, legend, message, says
from ticketlab.study.stats import BySeed, each_seed, minus, over_seeds


def popup(table: pd.DataFrame, params: PlantParams) -> Figure:
    """Draw how far edge-popup's untrained masks end from the ticket: one panel per target.

    Arms are rows, best density first; zero is the planted ticket, and what counts as found is
    shaded.
    """
    rows = of_main(table, params)
    rows = rows[rows.epoch == rows.epoch.max()].assign(y=rows.score_margin)
    keys = ["regime", "mother", "method", "label"]
    arms = {task: _arms(rows[rows.task == task], keys) for task in tasks_of(rows)}
    counts = [len(own) for own in arms.values()]
    figure, grid = plt.subplots(
        len(arms),
        1,
        figsize=(9, 1 + 0.32 * (sum(counts) + 2 * len(counts))),
        squeeze=False,
        gridspec_kw={"height_ratios": [1 + count for count in counts]},
        layout="constrained",
    )
    for ax, (task, own) in zip(grid[:, 0], arms.items(), strict=True):
        allowed = FOUND_POINTS if task == "circle" else FOUND_DECADES
        ax.axvspan(-allowed, allowed, color="0.92", lw=0, label="counts as found", zorder=0)
        ax.axvline(0, color="k", ls="--", lw=1, label="planted ticket")
        for place, (name, (method, values)) in enumerate(own.items()):
            _row(ax, place, values, "o" if "softmax" in name else None, method)
        ax.set_yticks(range(len(own)), list(own))
        ax.set_ylim(len(own) - 0.4, -0.6)
        ax.set_xlim(right=allowed / 2)
        unit = "points of accuracy" if task == "circle" else "decades of error"
        ax.set(title=f"Edge-popup on {labels.label(task)}", xlabel=f"{unit} against the ticket")
    legend(figure, "below")
    return says(figure, _thins(rows, arms))


Arms = dict[str, tuple[str, BySeed]]


def _variant(method: str) -> str:
    """Name a variant of edge-popup without the method's own name."""
    own = labels.label("edge-popup")
    return labels.label(method).removeprefix(f"{own}, ").replace(own, "plain")


def _at(label: str) -> float:
    """Return a density's number; the ticket's own is below all others."""
    return 0.0 if label == "gt" else float(label)


def _arms(rows: pd.DataFrame, keys: list[str]) -> Arms:
    """Return by name each arm's method and numbers by seed: linear head and planted first."""
    groups = [
        (tuple(part[keys].iloc[0].astype(str)), each_seed(part, "y"))
        for _, part in rows.groupby(keys)
    ]
    order = {"planted": 0, "unbiased": 1, "unplanted": 2}
    groups.sort(key=lambda g: (g[0][0], order.get(g[0][1], 3), g[0][2] != "plain", -_at(g[0][3])))
    found: Arms = {}
    for (regime, mother, method, label), values in groups:
        name = f"{_variant(method)}, {column(label)}"
        name += "" if regime == "popup_linear" else ", softmax head"
        name += "" if mother == "planted" else f", {labels.label(mother)}"
        found[name] = (method, values)
    return found


def _row(ax: Axes, place: float, values: BySeed, marker: str | None, method: str) -> None:
    """Draw one arm of edge-popup: its seeds as dots, the mean with its interval."""
    look = dict(labels.look(method))
    look["marker"] = marker or look["marker"]
    ax.plot(list(values.values()), [place] * len(values), ".", color=look["color"], alpha=0.4, ms=4)
    error_bars(ax, place, over_seeds(values), look, upright=False, size=6.5)


def _thins(rows: pd.DataFrame, arms: Mapping[str, Arms]) -> str:
    """Say what sparser masks lose, on the first target with two densities."""
    for task in arms:
        own = rows[(rows.task == task) & (rows.regime == "popup_linear")]
        own = own[(own.method == "plain") & (own.mother == "planted") & (own.label != "gt")]
        if own.label.nunique() > 1:
            low, *_, high = sorted(set(own.label), key=_at)
            seeds = [each_seed(own[own.label == label], "y") for label in (high, low)]
            lost = over_seeds(minus(*seeds))
            where = f"on {labels.label(task)}, density {high} against {low}"
            unit = "points" if task == "circle" else "decades"
            return message(
                lost,
                f"Edge-popup gets worse as its masks get sparser ({where})",
                f"Edge-popup is about as good with sparser masks ({where})",
                f"Edge-popup gets better as its masks get sparser ({where})",
                unit,
            )
    return "Edge-popup was run at one density only."
