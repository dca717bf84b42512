"""Progress and remaining time of a `dvc repro`: expected values, corrected while it runs.

The expected work of each stage comes from `outlook.py`. Progress comes from the lines that DVC
prints (a stage runs, or is skipped) and from the events of `progress.report`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

START = 6.0
"""Seconds of a stage besides its work: starting processes, and DVC's hashing of outputs."""

TRUST, TRUST_OTHERS = 0.03, 0.1
"""See `Part.pace`: for training, and for everything else."""

LEAST = 2.0
"""Minimum weight of the pace that is assumed before anything is measured, in seconds."""

_DVC = re.compile(r"^(?:Running stage|Stage) '(?P<stage>[^']+)'(?P<skips>.*(?:skipping))?")

State = Literal["waiting", "running", "done", "stopped", "up to date"]


class Part(NamedTuple):
    """Seconds of a part of the work: expected in all, expected for what is done, and spent."""

    expected: float = 0.0
    done: float = 0.0
    spent: float = 0.0

    def pace(self, before: float, trust: float) -> float:
        """Return the seconds spent per expected second, measured on what is done.

        Starts from a pace `before`, which has the same weight as the measurement when the share
        `trust` of the whole is done.
        """
        weight = max(trust * self.expected, LEAST)
        whole = self.done + weight
        return (self.spent + weight * before) / whole


def together(parts: Iterable[Part]) -> Part:
    """Return the sum of parts."""
    return Part(*map(sum, zip(Part(), *parts, strict=True)))


@dataclass
class Unit:
    """A unit to train: expected seconds in one process, image passes, and passes done."""

    seconds: float
    passes: float
    made: float = 0.0
    ended: bool = False

    @property
    def share(self) -> float:
        """The share that is done, at most 99 % until its end is reported."""
        return 1.0 if self.ended else min(0.99, self.made / self.passes) if self.passes else 0.0


@dataclass
class Stage:
    """A stage, its expected work, and its progress."""

    name: str
    work: float = 0.0
    """Expected wall-clock seconds, without START."""
    units: dict[str, Unit] = field(default_factory=dict)
    """The units to train."""
    stored: set[str] = field(default_factory=set)
    """Units that are stored and not trained again."""
    state: State = "waiting"
    started: float = math.inf
    begun: float = math.inf
    worked: float = -math.inf
    """Times of the first and the latest event of a unit."""
    ended: float = math.inf
    cells: tuple[int, int] = (0, 0)
    """Cells of a page that have been started, and all."""
    running: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The latest event of each unit on which a process works."""

    @property
    def expected(self) -> float:
        """Expected wall-clock seconds."""
        return 0.0 if self.state == "up to date" else START + self.work

    @property
    def trained(self) -> int:
        """Number of units that have been trained."""
        return sum(unit.ended for unit in self.units.values())

    def training(self, now: float) -> Part:
        """Return the part that trains units: between the first and the last event of one."""
        if self.state == "up to date" or not self.units:
            return Part()
        spent = max(0.0, (now if self.running else self.worked) - self.begun)
        return Part(self.work, self.work * self._share(), spent)

    def others(self, now: float, pace: float = 1.0) -> Part:
        """Return the rest: starts, data, pages; `pace` is that of training, for a running page."""
        if self.state == "up to date":
            return Part()
        training = self.training(now)
        spent = self.spent(now) - training.spent
        start = START if self.state == "done" else min(START, spent)
        made = 0.0 if self.units else self.work * self._page((spent - start) / pace)
        return Part(self.expected - training.expected, start + made, spent)

    def spent(self, now: float) -> float:
        """Return the seconds since it started, or until it ended."""
        return max(0.0, min(self.ended, now) - self.started)

    def end(self, now: float, state: State) -> None:
        """End in this state; units that it was wrongly expected to train are dropped."""
        self.state, self.ended = state, now
        self.running.clear()
        if state == "done":
            self.units = {name: unit for name, unit in self.units.items() if unit.ended}

    def _page(self, spent: float) -> float:
        """Return the share of a page that is done.

        Averages the share of its cells, of which a few take most of the time, with the share of
        expected seconds `spent` on it.
        """
        if self.state == "done" or not self.cells[1]:
            return float(self.state == "done")
        return (self.cells[0] / self.cells[1] + min(1.0, spent / (self.work or 1.0))) / 2

    def _share(self) -> float:
        if self.state == "done":
            return 1.0
        whole = sum(unit.seconds for unit in self.units.values())
        made = sum(unit.seconds * unit.share for unit in self.units.values())
        return made / whole if whole else 0.0

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Process an event of this stage."""
        if "cells" in event:
            self.cells = event["cell"], event["cells"]
        elif "stored" in event:
            self._reuse(event["stored"])
        elif "unit" in event:
            self.begun, self.worked = min(self.begun, now), now
            self._work_on(event["unit"], event)

    def _reuse(self, name: str) -> None:
        self.stored.add(name)
        before = sum(unit.seconds for unit in self.units.values())
        if gone := self.units.pop(name, None):
            self.work *= 1 - gone.seconds / before if before else 0.0

    def _work_on(self, name: str, event: Mapping[str, Any]) -> None:
        self.stored.discard(name)
        unit = self.units.setdefault(name, Unit(0.0, event.get("planned", 0.0)))
        unit.made += event.get("passes", 0)
        if "seconds" in event:
            unit.ended = True
            self.running.pop(name, None)
        else:
            self.running[name] = event


class Course:
    """All stages of a `dvc repro`, in their expected order."""

    def __init__(self, stages: Iterable[Stage], now: float) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.started = now
        self.current: Stage | None = None

    def read(self, line: str, now: float) -> bool:
        """Process a line that DVC prints; return whether it begins or skips a stage."""
        found = _DVC.match(line)
        if found is None:
            return False
        stage = self._stage(found["stage"])
        if found["skips"]:
            self.end(now)
            stage.state = "up to date"
        else:
            self._begin(stage, now)
        return True

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Process an event of a stage."""
        stage = self._stage(event["stage"])
        if stage.state in ("waiting", "up to date"):  # the event came before DVC's line
            self._begin(stage, now)
        stage.take(event, now)

    def end(self, now: float, state: State = "done") -> None:
        """End the running stage, as "done" or "stopped"."""
        if self.current is not None:
            self.current.end(now, state)
            self.current = None

    def _begin(self, stage: Stage, now: float) -> None:
        if stage is not self.current:
            self.end(now)
            stage.state, stage.started, self.current = "running", now, stage

    def _stage(self, name: str) -> Stage:
        return self.stages.setdefault(name, Stage(name))

    def _parts(self, now: float) -> tuple[Part, Part]:
        """Return training, and everything else."""
        stages = self.stages.values()
        training = together(stage.training(now) for stage in stages)
        pace = training.pace(1.0, TRUST)
        return training, together(stage.others(now, pace) for stage in stages)

    def share(self, now: float) -> float:
        """Return the share of the expected seconds that is done."""
        whole = together(self._parts(now))
        return whole.done / whole.expected if whole.expected else 1.0

    def left(self, now: float) -> float:
        """Return the estimated seconds until all is done."""
        training, others = self._parts(now)
        trains = training.pace(1.0, TRUST)
        goes = others.pace(trains, TRUST_OTHERS)  # both run on the same machine
        return trains * (training.expected - training.done) + goes * (others.expected - others.done)
