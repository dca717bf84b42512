"""The study's one plotting style, and the figures that several notebooks share."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from ticketlab import labels
from ticketlab.files import write_atomically
from ticketlab.labels import Look as Look
from ticketlab.spec import InputError
from ticketlab.study.stats import BySeed, Interval, interval, over_seeds

PALETTE = labels.palette()
"""Colours for what is no arm."""
ALT = 250
"""The most characters of a figure's message, which is also its alt text."""
GREY = "#666666"
"""Reference lines: zero, the dense net, chance."""


def use_style() -> None:
    """Apply the study's style: the palette of labels.yaml, light grid, sizes that fit a page."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=PALETTE,
        font_scale=0.9,
        rc={
            "figure.figsize": (8, 4.5),
            "figure.dpi": 96,
            "savefig.dpi": 120,
            "savefig.bbox": "tight",
            "grid.color": "#e4e4e4",
            "axes.edgecolor": "#888888",
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
        },
    )


# ---------------------------------------------------------------- files and messages


def says(figure: Figure, message: str) -> Figure:
    """Give a figure its message: one computed sentence, the finding before the number.

    It is shown above the figure and is its alt text. InputError for one beyond `ALT` characters.
    """
    if not 0 < len(message) <= ALT:
        raise InputError(f"message of {len(message)} characters, allowed: 1 to {ALT}: {message}")
    figure.set_label(message)
    return figure


def message(
    found: Interval | None,
    above: str,
    within: str,
    below: str,
    unit: str = "points",
    digits: int = 2,
) -> str:
    """The sentence that fits an interval: above 0, below 0, or with 0 within; number and n follow.

    One seed has no interval: it is `within`.
    """
    if found is None:
        return "This study does not measure the difference."
    low, high = (found.mean if b is None else b for b in (found.low, found.high))
    clear = found.low is not None
    text = above if clear and low > 0 else below if clear and high < 0 else within
    return f"{text}: {number(found, unit, digits)}."


def number(found: Interval, unit: str = "points", digits: int = 2) -> str:
    """'-3.91 points [-4.62, -3.28] (n = 10)'; the unit may be empty or '%'."""
    mean, rest = (found.text(digits) + " ").split(" ", 1)
    return " ".join(filter(None, (mean, unit, rest.strip())))


def save(figure: Figure, folder: Path, name: str) -> Image:
    """Write the figure as figures/NAME.png in `folder`, the same bytes for the same drawing.

    Shows the figure's message, and returns the picture for the notebook's page (drawn once), in CSS
    pixels, with the message as its alt text.
    """
    alt = alt_text(figure)
    if figure.get_label():
        display(Markdown(f"*What you see:* {alt}"))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    png = buffer.getvalue()
    write_atomically(folder / "figures" / f"{name}.png", png)
    plt.close(figure)
    sides = struct.unpack(">II", png[16:24])
    width, height = (round(side * 96 / plt.rcParams["savefig.dpi"]) for side in sides)
    return Image(png, format="png", width=width, height=height, alt=alt)


def alt_text(figure: Figure) -> str:
    """The figure's message (`says`); without one its title, panels and axes."""
    if own := str(figure.get_label()):
        return own
    title = figure.get_suptitle()
    panels = list(dict.fromkeys(filter(None, map(_panel_in_words, figure.axes))))
    count = f"{len(figure.axes)} panels" if len(figure.axes) > 1 else ""
    return "; ".join(filter(None, [title, count, *panels])) or "Figure without labels"


def _panel_in_words(ax: Axes) -> str:
    """'Title: y against x' of what the panel has."""
    sides = filter(None, (ax.get_ylabel(), ax.get_xlabel()))
    text = " against ".join(" ".join(side.split()) for side in sides)
    return ": ".join(filter(None, (" ".join(ax.get_title().split()), text)))


def look(arms: Iterable[str]) -> dict[str, Look]:
    """Colour and marker of each arm, the same in all notebooks (see labels.yaml)."""
    return {arm: labels.look(arm) for arm in arms}


# ---------------------------------------------------------------- panels, legends and axes


def panels(count: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A row of `count` panels of this size each, in inches."""
    figure, axes = plt.subplots(
        1, count, figsize=(count * width, height), squeeze=False, layout="constrained", **shared
    )
    return figure, list(axes[0])


def legend(figure: Figure, where: Literal["right", "below"] = "right") -> None:
    """One legend for all panels, outside of them; each label once.

    Below, the label of the shared x axis becomes the legend's title: both have the same place.
    """
    named: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    place: Any = {"right": "outside right center", "below": "outside lower center"}[where]
    columns = 1 if where == "right" else min(4, len(named))
    if not named:
        return
    title = figure.get_supxlabel() if where == "below" else ""
    if title:
        figure.supxlabel("")
    style = {"title": title or None, "fontsize": 8.5, "title_fontsize": 10}
    figure.legend(list(named.values()), list(named), loc=place, ncols=columns, **style)


def within(ax: Axes, low: float = 0.0, high: float = 100.0, side: Literal["x", "y"] = "y") -> None:
    """End an axis where its quantity does, such as a percentage at 0 and 100."""
    start, end = ax.get_xlim() if side == "x" else ax.get_ylim()
    bounds = (max(low, start), min(high, end))
    ax.set_xlim(bounds) if side == "x" else ax.set_ylim(bounds)


# ---------------------------------------------------------------- arms as rows


def by_arm(
    ax: Axes,
    found: Mapping[str, BySeed | Interval],
    *,
    line: float | None = 0.0,
    shift: float = 0.0,
    faint: bool = True,
    of: str | None = None,
) -> None:
    """Arms as rows: every seed a dot, the mean with its 95 % interval, a line to compare with.

    `found` has an arm's numbers by seed, or their interval where the seeds are not at hand. Rows
    stand in its order, from the top; `shift` moves them down, for a second set in the same rows.
    Each row looks like its arm, or all like the arm `of` whose parts they are.
    """
    for place, (arm, values) in enumerate(found.items()):
        style, at = labels.look(of or arm), place + shift
        if not isinstance(values, Interval):
            if not values:
                continue
            if faint:
                seeds = list(values.values())
                ax.plot(seeds, [at] * len(seeds), ".", color=style["color"], alpha=0.35, ms=4)
            values = over_seeds(values)
        error_bars(ax, at, values, style, upright=False, size=6.5)
    if line is not None:
        ax.axvline(line, color=GREY, lw=1, ls="-" if line == 0 else "--", zorder=1)
    ax.set_yticks(range(len(found)), [labels.label(arm) for arm in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.grid(False, axis="y")


def trade(
    ax: Axes,
    found: Mapping[str, tuple[BySeed, BySeed]],
    reference: str,
    *,
    cost: str = "iterations",
    names: Mapping[str, str] | None = None,
) -> None:
    """Accuracy lost against cost saved, both against a reference arm at the origin, by seed.

    `found` has, for each arm, the percent of the reference's cost that it saves and its accuracy
    minus the reference's, in points. Means with their 95 % intervals on both axes; right and up is
    better. `cost` says what is saved: iterations, images or minutes. Arms of equal cost stand side
    by side.
    """
    base = labels.label(reference)
    ax.axhline(0, color=GREY, lw=1, zorder=1)
    ax.axvline(0, color=GREY, lw=1, zorder=1)
    style = labels.look(reference)
    ax.plot([0], [0], style["marker"], color=style["color"], ms=8, label=f"{base} (reference)")
    means = {
        arm: (over_seeds(saved), over_seeds(gained))
        for arm, (saved, gained) in found.items()
        if saved and gained
    }
    moved = _side_by_side({reference: 0.0} | {arm: x.mean for arm, (x, _) in means.items()})
    for arm, (x, y) in means.items():
        style, named = labels.look(arm), (names or {}).get(arm) or labels.label(arm)
        error_bars(ax, x.mean + moved[arm], y, style, label=named, size=8)
        if x.low is not None and x.high is not None:
            reach = [x.low + moved[arm], x.high + moved[arm]]
            ax.plot(reach, [y.mean] * 2, "-", color=style["color"], lw=1)
    ax.set_xlabel(f"{cost} saved (% of {base})")
    ax.set_ylabel(f"accuracy against {base} (points)")
    within(ax, low=-np.inf, high=104, side="x")  # a marker at 100 % is whole


def _side_by_side(places: Mapping[str, float], near: float = 0.015) -> dict[str, float]:
    """By how much arms at nearly the same place are moved apart, to the left of the first."""
    step = near * ((max(places.values()) - min(places.values())) or 1)
    taken: list[float] = []
    moved = {}
    for arm, place in places.items():
        there = place
        while any(abs(there - other) < 0.9 * step for other in taken):
            there -= step
        taken.append(there)
        moved[arm] = there - place
    return moved


# ---------------------------------------------------------------- means and intervals


def summarise(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean, 95 % Student t bounds (NaN when n is 1) and n of `value` for each group of `by`."""
    rows = []
    for key, group in frame.groupby(list(by), sort=True):
        found = interval(group[value].tolist())
        low, high = (np.nan if b is None else b for b in (found.low, found.high))
        rows.append((*key, found.mean, low, high, found.n))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


def error_bars(
    ax: Axes,
    places: Any,
    found: pd.DataFrame | Interval,
    style: Look,
    *,
    label: str | None = None,
    upright: bool = True,
    size: float = 5,
) -> None:
    """Means with their 95 % intervals, upright or lying; a mean without an interval stands alone.

    `found` has the columns mean, low and high (see `summarise`), a row for each of `places`, or is
    one interval at one place.
    """
    if isinstance(found, Interval):
        row = {"mean": found.mean, "low": found.low, "high": found.high}
        places, found = [places], pd.DataFrame([row], dtype=float)
    reach = [found["mean"] - found.low, found.high - found["mean"]]
    ax.errorbar(
        places if upright else found["mean"],
        found["mean"] if upright else places,
        xerr=None if upright else reach,
        yerr=reach if upright else None,
        fmt=style["marker"],
        color=style["color"],
        markerfacecolor="white" if style.get("fillstyle") == "none" else style["color"],
        capsize=2,
        markersize=size,
        elinewidth=1,
        label=label,
    )


def curves(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, looks: Mapping[str, Look], steps: str
) -> None:
    """One line per arm: the mean over seeds at each of `steps`, its 95 % band, every seed a dot.

    `frame` has columns arm, seed, `steps`, x, y; seeds of one arm and step share a place on x (the
    mean of theirs).
    """
    for arm, style in looks.items():
        rows = frame[frame.arm == arm]
        if rows.empty:
            continue
        values = summarise(rows, ["arm", steps], y)
        places = rows.groupby(steps)[x].mean().reindex(values[steps]).to_numpy()
        n = int(values.n.max())
        drawn: dict[str, Any] = {"label": labels.label(arm), "markersize": 6, **style}
        ax.plot(places, values["mean"], **drawn)
        if n > 1:
            ax.fill_between(places, values.low, values.high, color=style["color"], alpha=0.13, lw=0)
            ax.plot(rows[x], rows[y], ".", color=style["color"], alpha=0.45, markersize=3)


def density_axis(ax: Axes, lowest: float) -> None:
    """Sparsity on a log axis of remaining weights (x data: density in 0..1), dense at the left."""
    ticks = [d for d in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005) if d >= lowest * 0.7]
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{100 * (1 - density):.3g} %"))
