"""Writes the measurements: a folder per machine with JSON, CSV, a page and two figures, and a page
of all machines side by side; ratios first."""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.measure import PINNED
from ticketlab.files import read_json, write_atomically, write_json
from ticketlab.study.plots import PALETTE, use_style

Record = dict[str, Any]


def write(record: Record, folder: Path) -> None:
    """`MACHINE/NAME.json`, `.csv`, `.md` and figures in `folder`, and `NAME.md` of all machines."""
    name, own = record["name"], folder / machine_name(record["machine"])
    write_json(own / f"{name}.json", rounded(record))
    write_atomically(own / f"{name}.csv", table(record["rows"]).encode())
    figures = {"goals": goals_figure(record["goals"])} if record["goals"] else {}
    if record["scaling"]:
        figures["scaling"] = scaling_figure(record["scaling"])
    for kind, figure in figures.items():
        figure.savefig(own / f"{name}-{kind}.png", metadata={"Software": None})
        plt.close(figure)
    write_atomically(own / f"{name}.md", page(record, list(figures)).encode())
    records = {path.parent.name: read_json(path) for path in sorted(folder.glob(f"*/{name}.json"))}
    write_atomically(folder / f"{name}.md", overview(record, records).encode())


def stored(record: Record, folder: Path) -> Record:
    """The stored rows, goals, cases and scaling of a record's machine; InputError without any."""
    found = read_json(folder / machine_name(record["machine"]) / f"{record['name']}.json")
    return {key: found[key] for key in ("rows", "goals", "cases", "scaling")}


PLACES = {"rows": "case", "goals": "case", "cases": "name"}
"""The lists of a record that are about cases, and their key for a case's name."""


def without(record: Record, case: str) -> Record:
    """Return the record without a case."""
    return record | {
        key: [one for one in record[key] if one[name] != case] for key, name in PLACES.items()
    }


def ordered(record: Record, cases: Sequence[str]) -> Record:
    """The record with its rows, goals and cases in the order of the cases."""
    return record | {
        key: sorted(record[key], key=lambda one, name=name: cases.index(one[name]))  # type: ignore[misc]
        for key, name in PLACES.items()
    }


def machine_name(machine: Record) -> str:
    """Processor and instruction set, e.g. `amd-epyc-avx512-bf16`; the device on an accelerator."""
    words = [machine["processor"], machine["vector"], "bf16" if machine["bf16"] else ""]
    if machine["device"] != "cpu":
        words = [machine["device"]]
    return re.sub("[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


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


# ---------------------------------------------------------------- all machines


def overview(latest: Record, records: dict[str, Record]) -> str:
    """The goals on every machine, side by side, as Markdown; the note is the latest record's."""
    name = latest["name"]
    parts = [f"# Benchmark: {name}", latest["note"], "## Goals, machine by machine"]
    parts += [
        "x = times faster than the fastest peer of the goal; **bold** is below the goal. Each "
        "machine's page has every case, and for each goal that it misses what was measured of why."
    ]
    columns = [(own, kind) for own in records for kind in _instructions(records[own])]
    lines = [
        "| case | ours | over | goal | "
        + " | ".join(f"{own}, {kind}" for own, kind in columns)
        + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for case, variant, least, over in _named_goals(records):
        cells = [_cell(records[own], kind, case, variant, least, over) for own, kind in columns]
        lines.append(f"| {case} | {variant} | {over} | {least:g} | " + " | ".join(cells) + " |")
    parts += ["\n".join(lines), "\n".join(_machine_line(name, *own) for own in records.items())]
    return "\n\n".join(parts) + "\n"


def _instructions(record: Record) -> list[str]:
    return list(dict.fromkeys(goal["instructions"] for goal in record["goals"]))


Named = tuple[str, str, float, str]


def _named_goals(records: dict[str, Record]) -> list[Named]:
    """Case, variant, ratio wanted and peer; of several peers, the first machine's fastest."""
    found: dict[tuple[str, str, float], str] = {}
    for record in records.values():
        for goal in record["goals"]:
            found.setdefault((goal["case"], goal["variant"], goal["goal"]), goal["over"])
    return [(*key, over) for key, over in found.items()]


def _cell(record: Record, kind: str, case: str, variant: str, least: float, over: str) -> str:
    for goal in record["goals"]:
        own = goal["case"], goal["variant"], goal["goal"], goal["instructions"]
        if own == (case, variant, least, kind):
            text = f"{goal['ratio']:.2f}" if goal["met"] else f"**{goal['ratio']:.2f}**"
            return text if goal["over"] == over else f"{text} ({goal['over']})"
    return ""


def _machine_line(name: str, own: str, record: Record) -> str:
    goals = record["goals"]
    met = ", ".join(
        f"{sum(goal['met'] for goal in goals if goal['instructions'] == kind)} of "
        f"{sum(goal['instructions'] == kind for goal in goals)} {kind}"
        for kind in _instructions(record)
    )
    about = f" {record['about']}" if "about" in record else ""
    return f"- [{own}]({own}/{name}.md): goals met {met}; {_load(record)}.{about}"


def _load(record: Record) -> str:
    """Describe the machine's load: runnable processes, including this one."""
    loads = [case["load"] for case in record["cases"] if "load" in case]
    if not loads:
        return "load not recorded"
    return f"load average during the cases {min(loads):.1f} to {max(loads):.1f}"


# ---------------------------------------------------------------- one machine


def page(record: Record, figures: Sequence[str]) -> str:
    """A machine's page as Markdown."""
    parts = [f"# Benchmark: {record['name']}", record["note"], _machine(record["machine"])]
    parts += [record["about"]] if "about" in record else []
    parts += [f"{_load(record).capitalize()} (1 is this benchmark alone)."]
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
    return "; ".join(f"{key}: {value}" for key, value in rounded(machine).items())


def _goals(goals: Sequence[Record]) -> str:
    lines = ["| x | goal | | case | ours | over |", "|---|---|---|---|---|---|"]
    for goal in goals:
        met = "met" if goal["met"] else "missed"
        lines.append(
            f"| {goal['ratio']:.2f} | {goal['goal']:g} | {met} | {goal['case']} | "
            f"{goal['variant']}, {goal['instructions']} | {goal['over']} |"
        )
    return "\n".join(lines)


def _missed(goals: Sequence[Record]) -> str:
    """List missed goals: by how much, and the measured reason."""
    missed = [goal for goal in goals if not goal["met"]]
    if not missed:
        return "Every goal is met."
    lines = [
        f"- {goal['case']}, {goal['variant']}, {goal['instructions']}: {goal['ratio']:.2f}x of "
        f"{goal['goal']:g}x, short by {1 - goal['ratio'] / goal['goal']:.0%}.{_why(goal)}"
        for goal in missed
    ]
    return "\n".join([f"Missed are {len(missed)} of {len(goals)}:", "", *lines])


def _why(goal: Record) -> str:
    """Describe the measured reason; empty if nothing was measured."""
    found, text = goal.get("reason", {}), ""
    if "gflops" in found:
        text += f" Its products run at {found['gflops']:.3g} GFLOP/s, "
        text += f"a square {found['products']} product at {found['square']:.3g}."
    if "limit" in goal:
        text += f" {goal['limit']['variant']} alone is {goal['limit']['ratio']:.2f}x."
    if shares := found.get("shares"):
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        text += f" Time in torch's operations: {named}."
    return text


def _rates(rows: Sequence[Record]) -> str:
    unit = rows[0]["unit"]
    lines = [f"| x | | {unit} |", "|---|---|---|"]
    for row in rows:
        name = f"**{row['variant']}**" if row["ours"] else row["variant"]
        name += ", pinned" if row.get("instructions") == PINNED else ""
        spread = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}..{row['ratio_high']:.2f}]"
        lines.append(f"| {spread} | {name} | {row['rate']:,.4g} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- the figures


def goals_figure(goals: Sequence[Record]) -> Figure:
    """Each goal as a bar: measured over wanted, the line at 1; native and pinned."""
    use_style()
    figure, ax = plt.subplots(figsize=(8, 0.35 * len(goals) + 1), layout="constrained")
    shares = [goal["ratio"] / goal["goal"] for goal in goals]
    colours = [PALETTE[2] if goal["met"] else PALETTE[3] for goal in goals]
    names = [
        f"{goal['case']}: {goal['variant']} ({goal['goal']:g}x), {goal['instructions']}"
        for goal in goals
    ]
    ax.barh(names, shares, color=colours)
    ax.axvline(1, color="#444444")
    for place, goal in enumerate(goals):
        ax.text(shares[place], place, f" {goal['ratio']:.1f}x", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="measured speed-up over the goal", title="Goals")
    return figure


def scaling_figure(rows: Sequence[Record]) -> Figure:
    """Plot images per second above and peak memory below, one column per quantity."""
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
