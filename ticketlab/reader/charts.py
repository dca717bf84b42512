"""Interactive charts of a comparison, drawn with Altair, and the script that they need, bundled.

A page has the script once and loads nothing: it works offline. Colours of text and lines are those
of the page, so that charts follow light and dark; arms have the colours of the notebooks' figures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup

from ticketlab import labels
from ticketlab.files import write_atomically
from ticketlab.reader.diff_curves import Difference, Word, mean_curve
from ticketlab.spec import ROOT

SHOWN = 4
"""Arms that a chart shows at first: those that moved farthest."""

HEIGHT, ROW = 320, 24
"""Pixels of a chart of curves, and of each arm in one of differences."""

DENSITIES = [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
"""Where the axis of sparsity has ticks, as in the notebooks' figures (`plots.density_axis`)."""

WORD_COLOURS: dict[Word, str] = {
    "higher": "#2b7bba", "lower": "#b3650a",
    "no clear difference": "#7a7f87", "one seed": "#7a7f87", "identical": "#7a7f87",
}  # fmt: skip
"""At least 3:1 on the light and the dark page."""

Frames = Mapping[str, pd.DataFrame]
"""Rows (seed, x, y) of each arm."""


@dataclass(frozen=True)
class Names:
    """What the axes of a table are called, and the two revisions."""

    x: str
    y: str
    log: bool
    """Whether x is a density, shown as sparsity on a log axis."""
    revisions: tuple[str, str]


@dataclass(frozen=True)
class Arm:
    """An arm of a chart with its label and colour, and whether it is shown at first."""

    name: str
    label: str
    colour: str
    shown: bool


def dvc_page() -> str:
    """Return the page of `dvc plots show`, .dvc/plots/page.html; DVC's own needs a network."""
    template = resources.files("ticketlab.reader") / "templates" / "plots.html"
    return template.read_text(encoding="utf-8").replace("{bundle}", _bundle())


def bundle() -> Markup:
    """Return Vega, Vega-Lite and Vega-Embed as one script, for a `script` element of a page."""
    return Markup(_bundle())


@cache
def _bundle() -> str:
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg] # it has a default
    return script.replace("</script", "<\\/script")


def embedded(charts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Return the charts by the id of their element as JSON that may stand in a `script` element."""
    return Markup(
        json.dumps(charts, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    )


# ---------------------------------------------------------------- arms


def arms(names: Sequence[str], differences: Sequence[Difference]) -> list[Arm]:
    """Return the arms of a chart; those that moved farthest are shown at first."""
    size = {one.arm: abs(one.difference.mean) for one in differences}
    first = sorted(names, key=lambda arm: -size.get(arm, 0.0))[:SHOWN]
    return [Arm(name, label(name), colour(name), name in first) for name in names]


def label(arm: str) -> str:
    """Return the label of an arm: 'main setting, RST' of the arm 'main, rst'."""
    if labels.known(arm):
        return labels.label(arm)
    comma = ", " in arm
    return (", " if comma else " ").join(map(labels.label, arm.split(", " if comma else " ")))


def colour(arm: str) -> str:
    """Return the colour of the method: of the arm itself, else of the last part that is an arm."""
    parts = [arm, *reversed(arm.replace(",", "").split())]
    return next((labels.colour(part) for part in parts if labels.known(part)), labels.colour(arm))


# ---------------------------------------------------------------- curves of both revisions


def curves(
    one: Frames, two: Frames, chosen: Sequence[Arm], names: Names, says: str
) -> dict[str, Any]:
    """Return means over seeds with 95 % bands of both revisions over each other, and every seed.

    The parameter `hidden` has the labels of the arms that are not shown: the page's toggles set it.
    """
    means, seeds = _tables(one, two, chosen, names)
    hidden = alt.param(name="hidden", value=[arm.label for arm in chosen if not arm.shown])
    near = alt.selection_point(name="near", fields=["arm"], on="pointerover", clear="pointerout")
    base = _base(means, chosen, names)
    dots = _base(seeds, chosen, names).mark_point(filled=True, size=14).encode(
        y=alt.Y("y:Q", title=labels.label(names.y)).scale(zero=False),
        opacity=alt.when(near).then(alt.value(0.5)).otherwise(alt.value(0.06)),
        tooltip=_tooltip(names, "y", seed="seed"),
    )  # fmt: skip
    lit = alt.when(near).then(alt.value(1)).otherwise(alt.value(0.12))
    line = base.mark_line(strokeWidth=2).encode(y="mean:Q", opacity=lit)
    marks = base.mark_point(filled=True, size=55).encode(
        y="mean:Q",
        opacity=lit,
        tooltip=_tooltip(names, "mean", low="95 % from", high="to", n="seeds"),
    )
    band = base.mark_area().encode(
        y="low:Q",
        y2="high:Q",
        opacity=alt.when(near).then(alt.value(0.15)).otherwise(alt.value(0.02)),
    )
    lone = base.mark_rule().encode(y="low:Q", y2="high:Q", opacity=lit)
    chart = alt.layer(band, lone, dots, line, marks.add_params(near)).add_params(hidden)
    return _finished(chart, says, HEIGHT)


def _tables(
    one: Frames, two: Frames, chosen: Sequence[Arm], names: Names
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return means and seeds in long form, with columns arm (its label) and revision."""
    means, seeds = [], []
    for revision, frames in zip(names.revisions, (one, two), strict=True):
        for arm in chosen:
            if arm.name in frames:
                about = {"arm": arm.label, "revision": revision}
                means.append(mean_curve(frames[arm.name], names.log).assign(**about))
                seeds.append(frames[arm.name].assign(**about))
    return _whole(means, names), _whole(seeds, names)


def _whole(parts: Sequence[pd.DataFrame], names: Names) -> pd.DataFrame:
    found = pd.concat(parts)
    found = found.assign(at=100 * (1 - found.x) if names.log else found.x)
    return found.map(lambda value: float(f"{value:.5g}") if isinstance(value, float) else value)


def _base(table: pd.DataFrame, chosen: Sequence[Arm], names: Names) -> alt.Chart:
    """Return what all layers share: places, colours of arms, dashes and shapes of revisions."""
    revisions = list(names.revisions)
    dashes = alt.Scale(domain=revisions, range=[[1, 0], [6, 4]])
    shapes = alt.Scale(domain=revisions, range=["circle", "square"])
    colours = alt.Scale(domain=[a.label for a in chosen], range=[a.colour for a in chosen])
    return (
        alt.Chart(table)
        .transform_filter("indexof(hidden, datum.arm) < 0")
        .encode(
            x=_x(names),
            color=alt.Color("arm:N", scale=colours, legend=None),
            strokeDash=alt.StrokeDash("revision:N", scale=dashes),
            shape=alt.Shape("revision:N", scale=shapes),
            detail="arm:N",
        )
    )


def _x(names: Names) -> alt.X:
    if not names.log:
        return alt.X("x:Q", title=labels.label(names.x)).scale(zero=False)
    axis = alt.Axis(values=DENSITIES, labelExpr="format(100 * (1 - datum.value), '.4~g') + ' %'")
    return alt.X("x:Q", title="sparsity", axis=axis).scale(type="log", reverse=True, nice=False)


def _tooltip(names: Names, y: str, **more: str) -> list[alt.Tooltip]:
    x = "sparsity (%)" if names.log else labels.label(names.x)
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("revision:N"),
        alt.Tooltip("at:Q", title=x, format=".4~g"),
        alt.Tooltip(f"{y}:Q", title=labels.label(names.y), format=".4~g"),
        *(alt.Tooltip(f"{key}:Q", title=title, format=".4~g") for key, title in more.items()),
    ]


# ---------------------------------------------------------------- differences by arm


def differences(found: Sequence[Difference], says: str) -> dict[str, Any]:
    """Draw how far each arm moved: a dot with its 95 % interval per arm, and a line at 0."""
    rows = [{"arm": label(one.arm), "says": one.word, **asdict(one.difference)} for one in found]
    order = [label(one.arm) for one in found]
    base = alt.Chart(pd.DataFrame(rows)).encode(y=alt.Y("arm:N", sort=order, title=None))
    colours = alt.Scale(domain=list(WORD_COLOURS), range=list(WORD_COLOURS.values()))
    tooltip = [
        alt.Tooltip("arm:N"),
        *(alt.Tooltip(f"{key}:Q", title=name, format="+.3~f")
          for key, name in (("mean", "difference"), ("low", "95 % from"), ("high", "to"))),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("says:N"),
    ]  # fmt: skip
    shown = base.encode(color=alt.Color("says:N", scale=colours, legend=None), tooltip=tooltip)
    rules = shown.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    dots = shown.mark_point(filled=True, size=70).encode(x=alt.X("mean:Q", title="difference"))
    zero = (
        alt.Chart(pd.DataFrame({"x": [0]}))
        .mark_rule(color="#8a8f96", strokeDash=[2, 2])
        .encode(x="x:Q")
    )
    return _finished(zero + rules + dots, says, ROW * len(rows))


def _finished(chart: alt.LayerChart | alt.FacetChart, says: str, height: int) -> dict[str, Any]:
    """Return the chart as plain data, as broad as its element, with its message as alt text."""
    chart = chart.properties(
        width="container", height=height, description=says, background="transparent"
    )
    found: dict[str, Any] = chart.properties(
        autosize={"type": "fit-x", "contains": "padding"}
    ).to_dict()
    return found


if __name__ == "__main__":
    write_atomically(ROOT / ".dvc" / "plots" / "page.html", dvc_page().encode())
