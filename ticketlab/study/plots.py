"""The study's one plotting style, and the figures that several notebooks share."""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from ticketlab.files import write_atomically
from ticketlab.study.stats import Interval, interval

PALETTE = sns.color_palette("colorblind", 10).as_hex()
MARKERS = "osDv^<>PX*"


def use_style() -> None:
    """Apply the study's style: colour-blind palette, light grid, sizes that fit a page."""
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


def save(figure: Figure, folder: Path, name: str) -> Image:
    """Write the figure as figures/NAME.png in `folder`, the same bytes for the same drawing.

    Returns the same picture for the notebook's page (drawn once), in CSS pixels, with its alt text.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    png = buffer.getvalue()
    write_atomically(folder / "figures" / f"{name}.png", png)
    plt.close(figure)
    sides = struct.unpack(">II", png[16:24])
    width, height = (round(side * 96 / plt.rcParams["savefig.dpi"]) for side in sides)
    return Image(png, format="png", width=width, height=height, alt=alt_text(figure))


def alt_text(figure: Figure) -> str:
    """The figure in words: title, and of each panel its title, axes and the names in its legend."""
    title = figure.get_suptitle()
    panels = list(dict.fromkeys(filter(None, map(_panel_in_words, figure.axes))))
    count = f"{len(figure.axes)} panels" if len(figure.axes) > 1 else ""
    return "; ".join(filter(None, [title, count, *panels])) or "Figure without labels"


def _panel_in_words(ax: Axes) -> str:
    """'Title: y against x, with this and that' of what the panel has."""
    sides = filter(None, (ax.get_ylabel(), ax.get_xlabel()))
    named = [name for name in ax.get_legend_handles_labels()[1] if not name.startswith("_")]
    text = " against ".join(" ".join(side.split()) for side in sides)
    text += f", with {', '.join(dict.fromkeys(named))}" if named else ""
    return ": ".join(filter(None, (" ".join(ax.get_title().split()), text)))


Look = Mapping[str, str]


def look(arms: Sequence[str]) -> dict[str, Look]:
    """A colour and a marker for each arm, the same in every figure of a notebook.

    No two of the first hundred share both: each further ten have the markers shifted.
    """
    turns = (divmod(i, len(PALETTE)) for i in range(len(arms)))
    return {
        arm: {"color": PALETTE[i], "marker": MARKERS[(i + turn) % len(MARKERS)]}
        for arm, (turn, i) in zip(arms, turns, strict=True)
    }


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
        capsize=2,
        markersize=size,
        elinewidth=1,
        label=label,
    )


def curves(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, looks: Mapping[str, Look], steps: str
) -> None:
    """One line an arm: the mean over seeds at each of `steps`, its 95 % band, every seed a dot.

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
        ax.plot(
            places,
            values["mean"],
            label=f"{arm} (n = {n})",
            markersize=5,
            color=style["color"],
            marker=style["marker"],
        )
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
