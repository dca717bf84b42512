"""Progress display: workers append events to a file, and the terminal shows them.

Workers append to the file of their stage (TICKETLAB_PROGRESS). A `Watch` reads it and shows one
line, or forwards the events to the file of a whole `ticketlab repro` (TICKETLAB_REPRO), which shows
all stages. Executed notebooks contain none of this, since they must not depend on the wall clock.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ticketlab.spec import InputError

_VARIABLE = "TICKETLAB_PROGRESS"
REPRO = "TICKETLAB_REPRO"
"""Environment variable with the file to which the stages of a `ticketlab repro` report."""
REPRO_PROCESS = "TICKETLAB_REPRO_PROCESS"
"""Environment variable with the process number of that `ticketlab repro`."""
_unit: dict[str, object] = {}
_label: dict[str, object] = {}


def listen_to(path: Path | None) -> None:
    """Send this process's events to `path` (None: discard them)."""
    os.environ.pop(_VARIABLE, None)
    if path is not None:
        os.environ[_VARIABLE] = str(path)


def listener() -> Path | None:
    """Return the file to which this process's events go."""
    path = os.environ.get(_VARIABLE)
    return Path(path) if path else None


def begin(unit: str | None = None) -> None:
    """Name the unit that this process runs from now on (None: no unit) and clear the label."""
    _unit.clear()
    _label.clear()
    if unit is not None:
        _unit["unit"] = unit


def label(**fields: object) -> None:
    """Name the current work (arm, seed, round); replaces the previous label."""
    _label.clear()
    _label.update(fields)


def labelled() -> dict[str, object]:
    """Return the current label, as set by `label`."""
    return dict(_label)


def tell(**event: object) -> None:
    """Append one event, with unit and label, as a JSON line; does nothing without a listener.

    InputError if the file cannot be written.
    """
    _append(_VARIABLE, _unit | _label | event)


def report(stage: str, **event: object) -> None:
    """Append one event of a stage to the file of a whole `ticketlab repro`, if one is running."""
    _append(REPRO, {"stage": stage} | event)


def _append(variable: str, event: Mapping[str, object]) -> None:
    if path := os.environ.get(variable):
        # One short write in append mode, so that lines of different workers do not mix.
        try:
            with open(path, "a") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:  # the error of a full disk does not name the file
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def warn(text: str) -> None:
    """Print a warning in one line, on stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def end_with_repro() -> None:
    """End this process soon after its `ticketlab repro` ends, even if that was killed.

    Otherwise an orphaned process would go on training without a display.
    """
    if process := os.environ.get(REPRO_PROCESS):
        threading.Thread(target=_end_with, args=(int(process),), daemon=True).start()


def _end_with(process: int) -> None:
    while is_alive(process):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alive(process: int) -> bool:
    """Return whether a process of this number is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class Tail:
    """Reads events from a file that other processes append to; incomplete lines wait."""

    def __init__(self, path: Path) -> None:
        self._file = path.open()
        self._rest = ""  # the start of an incomplete line

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return _events(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Watch:
    """Shows a stage's events while its block runs: `with Watch(path, "train@desk-colt", total):`.

    `expected` is the planned work in image passes; events count theirs in `passes`.
    """

    def __init__(
        self, path: Path, title: str, expected: float, stream: TextIO = sys.stderr
    ) -> None:
        self.path, self.title, self.expected, self.stream = path, title, expected, stream
        self.started = time.monotonic()
        self.passes = 0.0
        self.latest: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        """Seconds of each unit that has finished, including those before a kill."""
        self.planned: dict[str, float] = {}
        """Image passes that each finished unit was expected to take."""
        self.running: set[str] = set()
        """Units on which a worker has reported work that has not ended."""
        self.reused = 0
        """Units that were reused from the store."""
        self.is_part = REPRO in os.environ
        """Whether a `ticketlab repro` shows this stage; then nothing is shown here."""
        self.interval = 0.3 if stream.isatty() or self.is_part else 15.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Watch":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ended = self._left_by_a_kill()
        self.path.write_text("".join(f"{json.dumps(event)}\n" for event in ended))
        listen_to(self.path)
        self._tail = Tail(self.path)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        listen_to(None)
        self._tail.close()
        if kind is None or not self.seconds:  # otherwise the next run still needs them
            self.path.unlink(missing_ok=True)
        minutes = (time.monotonic() - self.started) / 60
        ending = "done" if kind is None else "stopped"
        if kind is None or not issubclass(kind, InputError):  # InputError prints its own line
            self._show(f"{self.title}: {ending} after {minutes:.1f} min", end="\n")

    def _loop(self) -> None:
        while not self._stop.wait(self.interval):
            self._read()
            if self.latest:
                self._show(self.line(), end="" if self.stream.isatty() else "\n")

    def _read(self) -> None:
        for event in self._tail.read():
            self._take(event)
            report(self.title, **event)

    def _take(self, event: Mapping[str, Any]) -> None:
        if "seconds" in event:  # a unit has ended
            self.seconds[event["unit"]] = event["seconds"]
            self.planned[event["unit"]] = event.get("planned", 0.0)
            self.running.discard(event["unit"])
        elif "stored" in event:
            self.reused += event["copied"]
            self.expected -= event["passes"]
        else:
            self.latest = dict(event)
            self.running |= {event["unit"]} if "unit" in event else set()
            self.passes += event.get("passes", 0)

    def _left_by_a_kill(self) -> list[dict[str, Any]]:
        """Return the ends of units recorded by an earlier run that did not finish."""
        text = self.path.read_text() if self.path.exists() else ""
        return [event for event in _events(text.splitlines()) if "seconds" in event]

    def line(self) -> str:
        """Return one line: share done, units at once, what the latest worker does, time left."""
        share = min(0.99, self.passes / self.expected) if self.expected else 0.0
        spent = time.monotonic() - self.started
        left = f"about {clock(spent * (1 - share) / share)} left" if share > 0.01 else "..."
        accuracy = f"accuracy {100 * self.latest.get('accuracy', 0):.1f} %"
        many = [f"{len(self.running)} units at once"] if len(self.running) > 1 else []
        facts = [*many, *doing(self.latest), accuracy, left]
        return f"{self.title}: {share:4.0%} · {' · '.join(facts)}"

    def _show(self, text: str, end: str) -> None:
        if not self.is_part:
            clear = "\r\x1b[2K" if self.stream.isatty() else ""
            print(f"{clear}{text}", end=end, file=self.stream, flush=True)


def doing(event: Mapping[str, Any]) -> list[str]:
    """Describe a worker's work: `["arm imp", "seed 0", "sparsity 36%", "epoch 3"]`."""
    numbers = ("passes", "accuracy", "unit", "stage")
    return [f"{name} {value}" for name, value in event.items() if name not in numbers]


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # a line that a killed worker left incomplete
            yield json.loads(line)
