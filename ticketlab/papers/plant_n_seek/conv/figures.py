"""The figures of Plant 'n' Seek's convolutional part: each draws one question and says it."""

import pandas as pd
from matplotlib.figure import Figure

from ticketlab import labels, plugins
from ticketlab.papers.plant_n_seek.conv.report import STRONG
from ticketlab.papers.plant_n_seek.figures import by_density, density_named
from ticketlab.study.plots import (
    GREY,
    PALETTE,
    curves,
    legend,
    message,
    number,
    panels,
    says,
    within,
)
from ticketlab.study.stats import each_seed, minus, over_seeds

ORDER = ("popup annealed", "popup_even annealed", "popup plain", "popup_even plain")
"""Arms of edge-popup, which come first."""


def found(table: pd.DataFrame) -> Figure:
    """Draw accuracy by density in the convolutional mother: untrained (edge-popup), and trained.

    Arms are rows. Lines are the planted ticket, and the same ticket trained on.
    """
    rows = table[table.regime != "controls"]
    score = rows.weak.where(~rows.regime.isin(STRONG), rows.per_output).astype(float)
    rows = rows.assign(arm=rows.regime + " " + rows.method, y=score)
    rows = rows[rows.y.notna()]
    figure, grid = by_density(rows, {"": rows}, arms_of(rows))
    trained = table[table.method == "oracle"].weak.dropna()
    for ax in grid.flat:
        ax.axvline(table.ticket.mean(), color="k", ls="--", lw=1, label="planted ticket")
        if len(trained):
            ax.axvline(trained.mean(), color=GREY, ls="-.", lw=1.2, label="planted ticket, trained")
        within(ax, side="x")
    figure.supxlabel("test accuracy (%), after the last epoch", fontsize=10)
    legend(figure, "below")
    return says(figure, _recovered(table))


def arms_of(rows: pd.DataFrame) -> list[str]:
    """Return 'regime method' of all arms, edge-popup first and plug-in criteria last."""
    key = {arm: place for place, arm in enumerate(ORDER)}
    mine = {arm: plugins.is_plugin(arm.split()[-1]) for arm in set(rows.arm)}
    return sorted(mine, key=lambda arm: (key.get(arm, len(key)), mine[arm], arm))


def _recovered(table: pd.DataFrame) -> str:
    """Say how near edge-popup comes to the ticket at its density, and the best trained mask."""
    own = table[(table.label == "gt") & (table.mother == "planted")]
    popped = each_seed(own[own.regime == "popup"], "per_output_margin")
    trained = own[own.regime.isin(["singleshot", "multishot"]) & own.weak.notna()]
    best = trained.groupby("method").weak.mean()
    also = ""
    if len(best):
        values = each_seed(trained[trained.method == best.idxmax()], "weak_margin")
        reached = number(over_seeds(values))
        also = f" {labels.label(str(best.idxmax()))}, trained, is at {reached}."
    return (
        message(
            over_seeds(popped) if popped else None,
            "Edge-popup beats the convolutional ticket at its density",
            "Edge-popup is on a par with the convolutional ticket at its density",
            "Edge-popup does not recover the convolutional ticket at its density",
        )
        + also
    )


def popup(learning: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw edge-popup's accuracy after each epoch in the planted convolutional mother, by density.

    Panels are the frozen weights as they are, and multiplied so that signals stay even.
    """
    rows = learning[learning.mother == "planted"]
    regimes = [regime for regime in STRONG if regime in set(rows.regime)]
    figure, axes = panels(len(regimes), 5.2, 3.8, sharey=True)
    densities = table[table.regime.isin(STRONG)].groupby("label").density.mean().sort_values()
    names = {
        str(label): f"density {density_named(d, str(label))}" for label, d in densities.items()
    }
    rows = rows.assign(arm=rows.label.map(names) + rows.method.map(_variant))
    arms = sorted(
        set(rows.arm), key=lambda arm: (list(names.values()).index(arm.split(",")[0]), arm)
    )
    looks = {
        arm: {"color": PALETTE[place % len(PALETTE)], "marker": "oDs^vP"[place % 6]}
        for place, arm in enumerate(arms)
    }
    for ax, regime in zip(axes, regimes, strict=True):
        curves(ax, rows[rows.regime == regime], "epoch", "score", looks, "epoch")
        ax.axhline(table.ticket.mean(), color="k", ls="--", lw=1, label="planted ticket")
        words = {"popup": "weights as they are", "popup_even": "signals kept even"}[regime]
        ax.set(title=f"edge-popup, {words}", xlabel="epoch", ylim=(0, 100))
    axes[0].set_ylabel("test accuracy (%), untrained weights")
    legend(figure)
    return says(figure, _peak(rows[rows.regime == regimes[0]], densities))


def _variant(method: str) -> str:
    return "" if method == "annealed" else f", {labels.label(method)}"


def _peak(rows: pd.DataFrame, densities: "pd.Series[float]") -> str:
    """Say what edge-popup loses from its largest density to the ticket's."""
    last = rows[rows.epoch == rows.epoch.max()]
    most = str(densities.index[-1])
    ends = {label: each_seed(last[last.label == label], "score") for label in (most, "gt")}
    lost = minus(ends[most], ends["gt"])
    return message(
        over_seeds(lost) if lost else None,
        f"Annealed down to the ticket's density, edge-popup loses what it has at {most}",
        f"Annealed down to the ticket's density, edge-popup is about as good as at {most}",
        f"Annealed down to the ticket's density, edge-popup is better than at {most}",
    )
