"""Writes what was measured: JSON, CSV, a Markdown page and two figures, ratios first."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ticketlab.files import write_atomically, write_json
from ticketlab.study.plots import PALETTE, use_style

Record = dict[str, Any]


def write(record: Record, folder: Path) -> None:
    """`NAME.json`, `NAME.csv`, `NAME.md` and its figures in `folder`."""
    name = record["name"]
    write_json(folder / f"{name}.json", rounded(record))
    write_atomically(folder / f"{name}.csv", table(record["rows"]).encode())
    figures = {"goals": goals_figure(record["goals"])} if record["goals"] else {}
    if record["scaling"]:
        figures["scaling"] = scaling_figure(record["scaling"])
    for kind, figure in figures.items():
        figure.savefig(folder / f"{name}-{kind}.png", metadata={"Software": None})
        plt.close(figure)
    write_atomically(folder / f"{name}.md", page(record, list(figures)).encode())


def rounded(value: Any) -> Any:
    """Floats to four digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(rows: Sequence[Record]) -> str:
    """The rows as CSV."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rounded(list(rows)))
    return text.getvalue()


# ---------------------------------------------------------------- the page


def page(record: Record, figures: Sequence[str]) -> str:
    """The whole page as Markdown."""
    parts = [f"# Benchmark: {record['name']}", record["note"], _machine(record["machine"])]
    if record["goals"]:
        parts += ["## Goals", _goals(record["goals"]), _missed(record["goals"])]
    parts += [f"![{kind}]({record['name']}-{kind}.png)" for kind in figures]
    parts += [
        "## Every case",
        "x = times faster than the first row of each table (median over "
        "rounds, range in brackets); **bold** is ours.",
    ]
    for case in record["cases"]:
        rows = [row for row in record["rows"] if row["case"] == case["name"]]
        parts += [f"### {case['title']}", _rates(rows)]
        if case["facts"]:
            facts = rounded(case["facts"]).items()
            parts.append("; ".join(f"{key}: {value}" for key, value in facts))
    return "\n\n".join(parts) + "\n"


def _machine(machine: Record) -> str:
    return "; ".join(f"{key}: {value}" for key, value in machine.items())


def _goals(goals: Sequence[Record]) -> str:
    lines = ["| x | goal | | case | ours | over |", "|---|---|---|---|---|---|"]
    for goal in goals:
        met = "met" if goal["met"] else "missed"
        lines.append(
            f"| {goal['ratio']:.2f} | {goal['goal']:g} | {met} | {goal['case']} | "
            f"{goal['variant']} | {goal['over']} |"
        )
    return "\n".join(lines)


def _missed(goals: Sequence[Record]) -> str:
    """Where a goal is missed: by how much, and what binds."""
    missed = [goal for goal in goals if not goal["met"]]
    if not missed:
        return "Every goal is met."
    lines = [
        f"- {goal['case']}, {goal['variant']}: {goal['ratio']:.2f}x of {goal['goal']:g}x, short by "
        f"{1 - goal['ratio'] / goal['goal']:.0%}. What binds: {goal['why']}."
        for goal in missed
    ]
    return "\n".join([f"Missed are {len(missed)} of {len(goals)}:", "", *lines])


def _rates(rows: Sequence[Record]) -> str:
    unit = rows[0]["unit"]
    lines = [f"| x | | {unit} |", "|---|---|---|"]
    for row in rows:
        name = f"**{row['variant']}**" if row["ours"] else row["variant"]
        spread = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}..{row['ratio_high']:.2f}]"
        lines.append(f"| {spread} | {name} | {row['rate']:,.4g} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- the figures


def goals_figure(goals: Sequence[Record]) -> Figure:
    """Each goal as a bar: measured over wanted, the line at 1."""
    use_style()
    figure, ax = plt.subplots(figsize=(8, 0.35 * len(goals) + 1), layout="constrained")
    shares = [goal["ratio"] / goal["goal"] for goal in goals]
    colours = [PALETTE[2] if goal["met"] else PALETTE[3] for goal in goals]
    names = [f"{goal['case']}: {goal['variant']} ({goal['goal']:g}x)" for goal in goals]
    ax.barh(names, shares, color=colours)
    ax.axvline(1, color="#444444")
    for place, goal in enumerate(goals):
        ax.text(shares[place], place, f" {goal['ratio']:.1f}x", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="measured speed-up over the goal", title="Goals")
    return figure


def scaling_figure(rows: Sequence[Record]) -> Figure:
    """Images a second above, peak memory below, one column a quantity."""
    use_style()
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, axes = plt.subplots(
        2,
        len(axes_names),
        figsize=(3.2 * len(axes_names), 5.4),
        squeeze=False,
        layout="constrained",
    )
    paths = list(dict.fromkeys(row["path"] for row in rows))
    for column, axis in enumerate(axes_names):
        for path in paths:
            points = [row for row in rows if (row["axis"], row["path"]) == (axis, path)]
            colour = PALETTE[paths.index(path)]
            _line(axes[0, column], points, "rate", 1.0, path, colour)
            _line(axes[1, column], points, "peak_bytes", 2.0**20, path, colour)
        axes[0, column].set(title=axis, ylim=(0, None))
        axes[1, column].set(xlabel=axis)
    axes[0, 0].set_ylabel("images / s")
    axes[1, 0].set_ylabel("peak memory beyond the start, MiB")
    lines = [Line2D([], [], marker="o", color=PALETTE[n]) for n in range(len(paths))]
    axes[0, 0].legend(lines, paths)
    return figure


def _line(
    ax: Axes, points: Sequence[Record], key: str, per: float, label: str, colour: str
) -> None:
    known = [point for point in points if point[key] is not None]
    if not known and not points:
        return
    if not known:
        ax.text(0.5, 0.5, "not measured", ha="center", transform=ax.transAxes)
    if known:
        x = [point["at"] for point in known]
        ax.plot(x, [point[key] / per for point in known], marker="o", label=label, color=colour)
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{at:g}" for at in x], fontsize=8)
        ax.minorticks_off()
