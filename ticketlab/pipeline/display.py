"""One display of a whole `dvc repro`: live on a terminal, plain lines in a log."""

import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ticketlab.pipeline.eta import Course, Stage, State
from ticketlab.progress import clock, doing

EVERY = 30.0
"""Seconds between two lines in a log."""
ENDINGS: dict[State, str] = {
    "done": "ran", "stopped": "stopped", "up to date": "up to date", "waiting": "not run",
}  # fmt: skip
"""The final summary's word for each state."""
AT_ONCE = 2
"""Maximum number of running units that are named; the others are counted."""


class Display:
    """Shows a course while its block runs: `with Display(course): ...`.

    On a terminal, other programs' output appears above the display; in a log, lines alternate.
    """

    def __init__(self, course: Course, stream: TextIO | None = None) -> None:
        self.course, self.stream = course, stream or sys.stderr
        self.console = Console(file=self.stream)
        self.is_live = self.stream.isatty() and self.console.is_interactive
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._shown, self._stage = course.started, course.current

    def __enter__(self) -> "Display":
        if self.is_live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_live:
            self._live.stop()

    def print(self, line: str, stream: TextIO) -> None:
        """Print a line of another program on the stream for which it was meant."""
        if self._live.is_started and stream.isatty():
            self.console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            print(line, file=stream, flush=True)

    def update(self, now: float) -> None:
        """Show the progress of the course at `now`."""
        if self.is_live:
            self._live.update(picture(self.course, now), refresh=True)
        else:
            ended = self._stage if self._stage is not self.course.current else None
            if ended is not None or now - self._shown >= EVERY:
                print(line(self.course, now, ended), file=self.stream, flush=True)
                self._shown = now
            self._stage = self.course.current


# ---------------------------------------------------------------- as text


def runs(course: Course) -> dict[str, dict[str, Stage]]:
    """Return the stages by run and kind: `runs(course)["desk-colt"]["train"]`."""
    found: dict[str, dict[str, Stage]] = {}
    for name, stage in course.stages.items():
        kind, _, run = name.partition("@")
        if run:
            found.setdefault(run, {})[kind] = stage
    return found


def counted(count: int, what: str = "unit") -> str:
    """Format `1 unit`, `2 units`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def units(course: Course) -> str:
    """Summarise all units; empty if there are none."""
    trainings = [stages["train"] for stages in runs(course).values() if "train" in stages]
    stored = sum(len(stage.stored) for stage in trainings)
    done = stored + sum(stage.trained for stage in trainings)
    total = stored + sum(len(stage.units) for stage in trainings)
    reused = f" ({stored} reused)" if stored else ""
    return f"{done} of {counted(total)}{reused}" if total else ""


def times(course: Course, now: float) -> str:
    """Format the minutes spent and left."""
    return f"{clock(now - course.started)}, about {clock(course.left(now))} left"


def state(stages: dict[str, Stage]) -> str:
    """Summarise the state of a run in a word or two."""
    states = {stage.state for stage in stages.values()}
    if states == {"up to date"}:
        return "up to date"
    if "running" in states:
        return "running"
    return next((word for word in ("stopped", "waiting") if word in states), "done")


def facts(stages: dict[str, Stage], now: float) -> Iterator[str]:
    """Yield the facts about a run: units, what runs, its page, minutes."""
    train = stages.get("train", Stage(""))
    if train.units or train.stored:
        yield f"{train.trained} of {counted(len(train.units))} trained"
    if train.stored:
        yield f"{counted(len(train.stored))} reused"
    for kind, stage in stages.items():
        if stage.state == "running":
            yield from running(kind, stage)
    if spent := sum(stage.spent(now) for stage in stages.values()):
        yield clock(spent)


def running(kind: str, stage: Stage) -> Iterator[str]:
    """Yield what a stage does now."""
    if kind == "data":
        yield "preparing data"
    elif kind == "read":
        started, cells = stage.cells
        yield f"page: cell {started} of {cells}" if cells else "page: starting"
    for unit, event in list(stage.running.items())[-AT_ONCE:]:
        words = ", ".join(doing(event))
        yield f"{unit} ({words})" if words else unit
    if (more := len(stage.running) - AT_ONCE) > 0:
        yield f"{counted(more)} more"


def line(course: Course, now: float, ended: Stage | None = None) -> str:
    """Format the course in one plain line, with the stage that has just ended or what runs now."""
    if ended is not None:
        named = [f"{ended.name} {ended.state} after {clock(ended.spent(now))}"]
    else:
        named = [
            f"{run}: {', '.join(facts(stages, now))}"
            for run, stages in runs(course).items()
            if state(stages) == "running"
        ]
    whole = [f"repro: {course.share(now):.0%}", units(course), times(course, now)]
    return " · ".join(filter(None, [*whole, *named]))


def summary(course: Course, now: float, code: int) -> str:
    """Summarise what was trained, reused and skipped, one line per run."""
    ending = "done" if code == 0 else f"stopped (exit code {code})"
    found = [f"repro: {ending} after {clock(now - course.started)}"]
    width = max((len(run) for run in runs(course)), default=0)
    found += [f"  {run:{width}}  {outcome(stages, now)}" for run, stages in runs(course).items()]
    return "\n".join(found)


def outcome(stages: dict[str, Stage], now: float) -> str:
    """Describe the result of a run."""
    train = stages.get("train")
    words = []
    if train is not None and train.state in ("done", "stopped"):
        words.append(f"{counted(train.trained)} trained, {len(train.stored)} reused")
    for wanted, ending in ENDINGS.items():
        if names := [kind for kind, stage in stages.items() if stage.state == wanted]:
            words.append(f"{', '.join(names)} {ending}")
    if spent := sum(stage.spent(now) for stage in stages.values()):
        words.append(clock(spent))
    return "; ".join(words)


# ---------------------------------------------------------------- as a live display


STYLES = {"running": "bold", "waiting": "dim"}


def picture(course: Course, now: float) -> Group:
    """Draw one bar for everything and one line per run, cut at the terminal's height."""
    whole = Table.grid(padding=(0, 1))
    bar = ProgressBar(1.0, course.share(now), width=24)
    whole.add_row("repro", bar, f"{course.share(now):4.0%}", times(course, now))
    width = max(map(len, runs(course)), default=0)
    lines = [Text(units(course))]
    for run, stages in runs(course).items():
        text = f"{run:{width}}  {state(stages):10}  {' · '.join(facts(stages, now))}"
        style = STYLES.get(state(stages), "")
        lines.append(Text(text.rstrip(), style, no_wrap=True, overflow="ellipsis"))
    return Group(whole, *lines)
