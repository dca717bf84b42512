"""Progress for the person who waits: workers append events to a file, the terminal shows them.

Nothing of it reaches an executed notebook, which must not depend on the wall clock.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

_VARIABLE = "TICKETLAB_PROGRESS"
_label: dict[str, object] = {}


def listen_to(path: Path | None) -> None:
    """Send this process's events to `path` (None: nowhere)."""
    os.environ.pop(_VARIABLE, None)
    if path is not None:
        os.environ[_VARIABLE] = str(path)


def listener() -> Path | None:
    """Where this process's events go."""
    path = os.environ.get(_VARIABLE)
    return Path(path) if path else None


def label(**fields: object) -> None:
    """Name what this process works on (arm, seed, round); replaces the last label."""
    _label.clear()
    _label.update(fields)


def labelled() -> dict[str, object]:
    """What this process works on, as `label` has named it."""
    return dict(_label)


def tell(**event: object) -> None:
    """Append one event, with the label, as a JSON line; does nothing if nobody listens."""
    if path := os.environ.get(_VARIABLE):
        # One short write in append mode: lines of several workers do not mix.
        with open(path, "a") as file:
            file.write(json.dumps(_label | event) + "\n")


class Watch:
    """Shows events on a terminal while its block runs: `with Watch(path, "colt@desk", total): ...`.

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
        """Seconds of each unit that has ended, also before a kill."""
        self.reused = 0
        """Units that were taken as they are stored."""
        self._rest = ""  # the start of a line that is being written
        self.interval = 0.3 if stream.isatty() else 15.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> "Watch":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ended = self._left_by_a_kill()
        self.path.write_text("".join(f"{json.dumps(event)}\n" for event in ended))
        listen_to(self.path)
        self._file = self.path.open()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        listen_to(None)
        self._file.close()
        if kind is None or not self.seconds:  # else the next run still needs them
            self.path.unlink(missing_ok=True)
        minutes = (time.monotonic() - self.started) / 60
        ending = "done" if kind is None else "stopped"
        self._show(f"{self.title}: {ending} after {minutes:.1f} min", end="\n")

    def _loop(self) -> None:
        while not self._stop.wait(self.interval):
            self._read()
            if self.latest:
                self._show(self.line(), end="" if self.stream.isatty() else "\n")

    def _read(self) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for event in _events(lines):
            if "unit" in event:
                self.seconds[event["unit"]] = event["seconds"]
            elif "reused" in event:
                self.reused += 1
                self.expected -= event["passes"]
            else:
                self.latest = event
                self.passes += event.get("passes", 0)

    def _left_by_a_kill(self) -> list[dict[str, Any]]:
        """The ends of units that a run which did not end well has recorded."""
        text = self.path.read_text() if self.path.exists() else ""
        return [event for event in _events(text.splitlines()) if "unit" in event]

    def line(self) -> str:
        """One line: share done, what the latest worker does, and the time left."""
        share = min(0.99, self.passes / self.expected) if self.expected else 0.0
        spent = time.monotonic() - self.started
        left = f"about {_clock(spent * (1 - share) / share)} left" if share > 0.01 else "..."
        words = [f"{k} {v}" for k, v in self.latest.items() if k not in ("passes", "accuracy")]
        accuracy = f"accuracy {100 * self.latest.get('accuracy', 0):.1f} %"
        return f"{self.title}: {share:4.0%} · {' · '.join([*words, accuracy, left])}"

    def _show(self, text: str, end: str) -> None:
        clear = "\r\x1b[2K" if self.stream.isatty() else ""
        print(f"{clear}{text}", end=end, file=self.stream, flush=True)


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):  # what a killed worker left is no event
            yield json.loads(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
