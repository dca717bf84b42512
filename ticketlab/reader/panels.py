"""Small line charts as inline SVG, coloured by the page's style: they follow light and dark.

One panel per arm, both revisions in it: `a` solid with round seeds, `b` dashed with square ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.ticker import LogLocator, MaxNLocator

from ticketlab.reader.diff import is_log, spread, value_at
from ticketlab.study.stats import interval

ROUND = MaxNLocator(5, steps=[1, 2, 5, 10])
WIDTH, HEIGHT = 320, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 38  # margins around the axes


@dataclass(frozen=True)
class Axis:
    """A range of values along `start`..`end` of the drawing, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies in the drawing."""
        low, high, at = self.low, self.high, value
        if is_log(low, high):
            low, high, at = log10(low), log10(high), log10(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """At most 6 round values within the range."""
        locator = LogLocator(numticks=5) if is_log(self.low, self.high) else ROUND
        found = locator.tick_values(self.low, self.high)
        return [float(t) for t in found if self.low <= t <= self.high]


def axis(values: Iterable[float], start: float, end: float) -> Axis:
    """The axis that holds all `values`."""
    listed = list(values)
    return Axis(min(listed), max(listed), start, end)


def panels(
    one: Mapping[str, pd.DataFrame], two: Mapping[str, pd.DataFrame], x: str, y: str
) -> dict[str, Markup]:
    """One drawing per arm of either side, all on the same axes; frames have columns seed, x, y."""
    frames = [*one.values(), *two.values()]
    if not frames:
        return {}
    both = pd.concat(frames)
    across = axis(both.x, LEFT, WIDTH - RIGHT)
    up = axis(both.y, HEIGHT - BOTTOM, TOP)
    return {
        arm: _panel({"a": one.get(arm), "b": two.get(arm)}, across, up, (arm, x, y))
        for arm in dict.fromkeys([*one, *two])
    }


def _panel(
    sides: Mapping[str, pd.DataFrame | None], across: Axis, up: Axis, names: Sequence[str]
) -> Markup:
    arm, x, y = names
    parts = _frame(across, up, x, y)
    for side, rows in sides.items():
        if rows is not None:
            parts += _curve(side, rows, across, up)
    label = escape(f"{arm}: {y} against {x} in both revisions")
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _frame(across: Axis, up: Axis, x: str, y: str) -> list[str]:
    """Grid, tick labels and names of the axes."""
    parts = []
    for tick in up.ticks():
        at = up.place(tick)
        parts.append(f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="var(--line)"/>')
        parts.append(_text(LEFT - 5, at + 4, f"{tick:.4g}", "end"))
    for tick in across.ticks():
        at = across.place(tick)
        parts.append(f'<path d="M{at} {TOP}V{HEIGHT - BOTTOM}" stroke="var(--line)"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 14, f"{tick:.3g}", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, _text(middle, HEIGHT - 6, f"{y} against {x}", "middle")]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {place} font-size="11" fill="var(--soft)">{escape(words)}</text>'


def _curve(side: str, rows: pd.DataFrame, across: Axis, up: Axis) -> list[str]:
    """The mean over seeds with its 95 % band, and every seed's values as marks."""
    line, lower, upper = mean_curve(rows)
    colour, dashes = f"var(--{side})", ' stroke-dasharray="6 3"' * (side == "b")
    points = [
        [(across.place(x), up.place(_clip(y, up))) for x, y in part]
        for part in (line, lower, upper)
    ]
    marks = "".join(
        _mark(side, across.place(x), up.place(y)) for x, y in zip(rows.x, rows.y, strict=True)
    )
    band = _path([*points[1], *points[2][::-1]])
    return [
        f'<path d="{band}Z" fill="{colour}" opacity=".16"/>' if lower else "",
        f'<g fill="{colour}" opacity=".7">{marks}</g>',
        f'<path d="{_path(points[0])}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>',
    ]


def _clip(value: float, within: Axis) -> float:
    """A band may reach out of the drawing: three seeds make wide intervals."""
    return min(max(value, within.low), within.high)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _mark(side: str, x: float, y: float) -> str:
    if side == "a":
        return f'<circle cx="{x:g}" cy="{y:g}" r="2"/>'
    return f'<rect x="{x - 2:g}" y="{y - 2:g}" width="4" height="4"/>'


Points = list[tuple[float, float]]


def mean_curve(rows: pd.DataFrame) -> tuple[Points, Points, Points]:
    """Mean, lower and upper 95 % bound over seeds on the range of x that all seeds share.

    Without bounds for a single seed; without anything if the seeds share no range.
    """
    seeds = [rows[rows.seed == seed] for seed in rows.seed.unique()]
    low, high = max(s.x.min() for s in seeds), min(s.x.max() for s in seeds)
    if low > high:
        return [], [], []
    places = spread(low, high)
    at_places = np.array([value_at(s, places) for s in seeds]).T
    found = [interval(values.tolist()) for values in at_places]
    mean = [(float(x), i.mean) for x, i in zip(places, found, strict=True)]
    lower = [(float(x), i.low) for x, i in zip(places, found, strict=True) if i.low is not None]
    upper = [(float(x), i.high) for x, i in zip(places, found, strict=True) if i.high is not None]
    return mean, lower, upper
