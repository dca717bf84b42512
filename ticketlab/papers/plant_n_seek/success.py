"""Success rates of the searches: how many seeds find a ticket, at which density, at what cost."""

import pandas as pd

from ticketlab import labels
from ticketlab.papers.plant_n_seek.controls import SCORED
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import (
    CONTROLS,
    SEARCHES,
    column,
    is_found,
    of_main,
    steps,
)
from ticketlab.study.stats import share

STRONG = "untrained"
"""The regime of masks that are judged without any training, by the fitted score of each task."""
REGIMES = (*SEARCHES, STRONG)
KEYS = ["task", "regime", "method", "label", "density"]


def success_shares(scores: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return in how many seeds each search of the main cell finds a ticket in planted mothers.

    One row per task, regime, method and density: k of n seeds, the share `mean`, and the exact 95 %
    interval from `low` to `high`, in percent. Regime `STRONG` counts strong tickets (masks made in
    one shot, and edge-popup's with a linear head), the others weak ones.
    """
    rows = of_main(scores, params)
    rows = rows[(rows.mother == "planted") & ~rows.method.isin(CONTROLS)]
    weak = rows[rows.regime.isin(SEARCHES)]
    strong = rows[rows.regime.isin([SEARCHES[0], "popup_linear"])].assign(regime=STRONG)
    margins = [row[f"{SCORED[row['task']]}_margin"] for row in strong.to_dict("records")]
    both = pd.concat([weak.assign(margin=weak.weak_margin), strong.assign(margin=margins)])
    found = []
    for key, group in both[both.margin.notna()].groupby(KEYS, sort=True):
        one = share([bool(flag) for flag in is_found(group, "margin")])
        found.append((*key, one.k, one.n, one.share, one.low, one.high))
    return pd.DataFrame(found, columns=[*KEYS, "k", "n", "mean", "low", "high"])


def bounds(row: "pd.Series[float]") -> str:
    """Format the exact interval of a share of `success_shares`, '[75, 100]' in percent."""
    return f"[{row.low:.0f}, {row.high:.0f}]"


def success_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Format the shares, '19 of 20 [75, 100] %', one column per density, the ticket's own first."""
    text = [f"{row.k} of {row.n} {bounds(row)} %" for _, row in shares.iterrows()]
    names = {key: shares[key].map(labels.label) for key in ("task", "regime", "method")}
    columns = shares.label.map(column)
    table = shares.assign(text=text, label=columns, **names).pivot(
        index=["task", "regime", "method"], columns="label", values="text"
    )
    table = table[sorted(table, key=lambda name: (name != column("gt"), name))].fillna("")
    return table.rename_axis(index=["target", "search", "method"], columns=None)


def at_the_tickets_density(shares: pd.DataFrame) -> str:
    """Say which weak tickets most seeds find at the density of the planted one, and by what."""
    rows = shares[(shares.label == "gt") & shares.regime.isin(SEARCHES)]
    found, missed = [], []
    for task, own in rows.groupby("task"):
        best = own.iloc[int(own["mean"].argmax())]
        whose = f"{labels.label(str(task))}'s"
        by = f"{labels.label(best.method)} ({labels.label(best.regime)})"
        if best["mean"] > 50:
            found.append(f"{by} finds {whose} in {best.k} of {best.n} seeds {bounds(best)} %")
        else:
            missed.append(whose)
    none = f"none that was run finds {' or '.join(missed)} in most seeds" if missed else ""
    said = "; ".join(filter(None, [*found, none])) or "nothing was searched"
    return f"Of the searches for weak tickets at the density of the planted one, {said}."


# ---------------------------------------------------------------- density and cost


def leaderboard(scores: pd.DataFrame, params: PlantParams) -> pd.DataFrame:
    """Return the lowest density at which a method finds a weak ticket in most seeds, and its ratio.

    The ratio is to the ticket's own density. `steps` counts optimiser steps of one net.
    """
    shares = success_shares(scores, params)
    shares = shares[shares.regime.isin(SEARCHES)]
    best = shares[shares["mean"] > 50].groupby(KEYS[:3]).density.min()
    truth = shares[shares.label == "gt"].groupby("task").density.first()
    found = shares.groupby(KEYS[:3]).n.max().to_frame().join(best).reset_index()
    found["times the ticket's"] = found.density / found.task.map(truth)
    found["steps"] = [steps(params, regime) for regime in found.regime]
    return found.sort_values(["task", "density", "steps"])


def leaderboard_table(board: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard with names for the page."""
    names = {key: board[key].map(labels.label) for key in ("task", "regime", "method")}
    heads = {
        "task": "target",
        "regime": "search",
        "n": "seeds",
        "density": "smallest density",
        "steps": "optimiser steps",
    }
    return board.assign(**names).rename(columns=heads)


def least(board: pd.DataFrame) -> str:
    """Say which search needs the lowest density on each target, in how many seeds."""
    said = []
    for task, rows in board.dropna(subset=["times the ticket's"]).groupby("task"):
        best = rows.sort_values(["density", "steps"]).iloc[0]
        times = best["times the ticket's"]
        by = f"{labels.label(best.method)} ({labels.label(best.regime)}, n = {best.n})"
        ties = int((rows.density == best.density).sum()) - 1
        and_others = f" and {ties} other{'s' * (ties > 1)}" if ties else ""
        said.append(f"{labels.label(str(task))} {times:.3g} x, {by}{and_others}")
    lowest = "; ".join(said) or "none"
    return f"The lowest density that finds a ticket in most seeds, over the ticket's own: {lowest}."
