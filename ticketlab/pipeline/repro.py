"""Runs `dvc repro` as a child process: passes on its output and exit code, follows its stages."""

import math
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

from ticketlab import storage
from ticketlab.pipeline import outlook, params, repository
from ticketlab.pipeline.display import Display, summary
from ticketlab.pipeline.eta import Course
from ticketlab.pipeline.machine import LOCKS
from ticketlab.progress import REPRO, REPRO_PROCESS, Tail, is_alive
from ticketlab.spec import ROOT, InputError
from ticketlab.study.store import Store

INTERVAL = 0.25
"""Seconds between two checks for new events."""
GRACE = 10.0
"""Seconds for processes to end by themselves before they are killed."""

OWN = f"repro-{socket.gethostname()}-"
"""Start of the names of event files; other machines may share their folder."""

Lines = queue.Queue[tuple[str, TextIO]]


class Stopped(BaseException):
    """A signal requests the end of this process."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def repro(targets: Sequence[str], force: bool, store: Store) -> int:
    """Run `dvc repro TARGETS` (none: all) with one display, and return its exit code.

    `store` has the units that training can reuse. InputError if DVC is not installed, or if its
    cache is read-only and something would be trained.
    """
    if shutil.which("dvc") is None:
        raise InputError("command: 'dvc' is not on PATH, activate the environment")
    with repository.opened(ROOT) as repo:
        stages = outlook.stages(repo, params.load_runs(), targets, force, store)
        if any(stage.name.startswith("train@") and stage.expected for stage in stages):
            storage.check_writable(repository.cache_of(repo))
    forget_killed()
    course = Course(stages, time.monotonic())
    display = Display(course)
    display.print(outlook.words(stages), sys.stderr)
    events = LOCKS / f"{OWN}{os.getpid()}.events"
    faults = storage.Faults()
    code = run(["dvc", "repro", *["--force"] * force, *targets], events, course, display, faults)
    display.print(summary(course, time.monotonic(), code), sys.stderr)
    if faults.causes:
        faults.remove_copies()
        display.print(f"error: {faults.line()}", sys.stderr)
    return code


def forget_killed() -> None:
    """Remove the event files of runs that were killed on this machine."""
    for path in LOCKS.glob(f"{OWN}*.events"):
        number = path.stem.removeprefix(OWN)
        if number.isdigit() and not is_alive(int(number)):
            path.unlink(missing_ok=True)


def run(
    command: Sequence[str], events: Path, course: Course, display: Display,
    faults: storage.Faults | None = None,
) -> int:  # fmt: skip
    """Run `dvc repro`, show its course, and return its exit code; 128 + N after signal N.

    Its processes form a group of their own, which ends with this process. `events` is the file to
    which stages report. Faults of the disk that it prints go to `faults`, and make its exit code 2
    if it is 0.
    """
    faults = faults or storage.Faults()
    events.parent.mkdir(parents=True, exist_ok=True)
    events.touch()
    env = os.environ | {REPRO: str(events), REPRO_PROCESS: str(os.getpid())}
    tail = Tail(events)
    try:
        with stopping(), display:
            child = subprocess.Popen(
                command, env=env, text=True, errors="replace", process_group=0,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                return follow(child, tail, course, display, faults)
            finally:
                send(child, signal.SIGKILL)
    finally:
        tail.close()
        events.unlink(missing_ok=True)


def follow(
    child: "subprocess.Popen[str]", tail: Tail, course: Course, display: Display,
    faults: storage.Faults,
) -> int:  # fmt: skip
    """Pass on the child's output and follow its stages until it ends; return its exit code."""
    lines: Lines = queue.Queue()
    assert child.stdout is not None and child.stderr is not None
    relays = [relay(child.stdout, sys.stdout, lines), relay(child.stderr, sys.stderr, lines)]
    number = 0
    try:
        watch(child, lines, tail, course, display, faults)
    except Stopped as stop:
        number = stop.number
        send(child, number)
        watch(child, lines, tail, course, display, faults, GRACE)
    for thread in relays:  # a process that outlives the child may keep the pipes open
        thread.join(timeout=1)
    step(lines, tail, course, display, faults)
    for line in faults.rest():
        display.print(line, sys.stderr)
    code = 128 + number if number else exit_code(child) or 2 * bool(faults.causes)
    course.end(time.monotonic(), "stopped" if code else "done")
    return code


def watch(
    child: "subprocess.Popen[str]", lines: Lines, tail: Tail, course: Course, display: Display,
    faults: storage.Faults, seconds: float = math.inf,
) -> None:  # fmt: skip
    """Repeat `step` until the child ends, for at most this many seconds."""
    until = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < until:
        step(lines, tail, course, display, faults)


def relay(source: IO[str], target: TextIO, lines: Lines) -> threading.Thread:
    """Put the lines of a pipe into a queue, each with its target stream."""

    def read() -> None:
        with source:
            for line in source:
                lines.put((line.rstrip("\n"), target))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def step(
    lines: Lines, tail: Tail, course: Course, display: Display, faults: storage.Faults
) -> None:
    """Process what has happened since the last step."""
    for line, stream in arrived(lines):
        course.read(line, time.monotonic())
        for shown in faults.read(line) if stream is sys.stderr else [line]:
            display.print(shown, stream)
    for event in tail.read():
        course.take(event, time.monotonic())
    display.update(time.monotonic())


def arrived(lines: Lines) -> Iterator[tuple[str, TextIO]]:
    """Yield the lines in the queue; waits briefly for the first one."""
    timeout = INTERVAL
    while True:
        try:
            yield lines.get(timeout=timeout)
        except queue.Empty:
            return
        timeout = 0.0


@contextmanager
def stopping() -> Iterator[None]:
    """Within the block, termination signals raise Stopped, but only the first one."""

    def stop(number: int, frame: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(child: "subprocess.Popen[str]", number: int) -> None:
    """Send a signal to the child and to all processes that it started."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(child.pid, number)


def exit_code(child: "subprocess.Popen[str]") -> int:
    """Return the exit code of an ended child as a shell would: 128 + N if killed by signal N."""
    code = child.wait()
    return code if code >= 0 else 128 - code
