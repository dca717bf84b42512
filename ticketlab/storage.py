"""Faults of the disk, and other runs at work, in one line: the cause and what to do.

A full disk, a limit on the size of files or a read-only folder can stop any program of a run: a
stage, DVC that stores its outputs, or the database in which DVC keeps the hashes of files. DVC
reports the last two by a traceback, by one line per file, or even with exit code 0.
"""

import errno
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from ticketlab.spec import InputError

_SPACE = "free some space there"
_WRITABLE = "make it writable"
_LIMIT = "raise the limit on the size of files (`ulimit -f`)"
ADVICE = {
    os.strerror(errno.ENOSPC): _SPACE,
    os.strerror(errno.EDQUOT): _SPACE,
    os.strerror(errno.EFBIG): _LIMIT,
    os.strerror(errno.EROFS): _WRITABLE,
    os.strerror(errno.EACCES): _WRITABLE,
    "database or disk is full": _SPACE,
    "disk I/O error": f"{_SPACE}, or {_LIMIT}",
    "attempt to write a readonly database": _WRITABLE,
    "unable to open database file": _WRITABLE,
    "marshal data too short": "remove the folders __pycache__ in the package's folder",
}
"""What to do, by the words in which the operating system or SQLite reports the fault."""
AGAIN = "then run the same command again: what has been trained is kept"

_BEGINS = re.compile(r"Traceback \(most recent|Exception ignored in|Exception in thread")
_IS_BUSY, _BUSY_ENDS = " is busy, it is being blocked by:", "If there are no processes"
_BUSY = re.compile(rf"(\S+){_IS_BUSY} (.*?) {_BUSY_ENDS}.*")
_COPY = re.compile(r" -> '([^']+\.tmp)'$")
_INSIDE = re.compile(r"\s|$|Traceback \(most recent")


def explained(text: str) -> str:
    """Return a message with what to do if it reports a fault of the disk or another run at work.

    All other messages are returned unchanged.
    """
    if busy := _BUSY.search(text):
        return f"{text[: busy.start()]}{busy[1]} is in use by {busy[2]}: wait for it, {AGAIN}"
    advice = next((advice for words, advice in ADVICE.items() if words in text), None)
    return text if advice is None or AGAIN in text else f"{text}; {advice}, {AGAIN}"


def is_fault(text: str) -> bool:
    """Return whether a message reports a fault of the disk."""
    return any(words in text for words in ADVICE)


def check_writable(folder: Path) -> None:
    """Raise InputError if no file can be written in a folder, or in the nearest one above it."""
    place = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


class Faults:
    """Reads the error output of DVC and its stages, and holds back what `explained` can put better.

    All other lines are passed on, tracebacks as soon as their last line has been read.
    """

    def __init__(self) -> None:
        self.causes: list[str] = []
        """The lines that name a fault, without the traceback above them."""
        self._held: list[str] = []

    def read(self, line: str) -> list[str]:
        """Process a line; return the lines to show now."""
        if self._held and _IS_BUSY in self._held[0]:
            self._held.append(line)
            if line.startswith(_BUSY_ENDS):
                self.causes.append(" ".join(" ".join(self._held).split()).removeprefix("ERROR: "))
                self._held.clear()
            return []
        if self._held:
            self._held.append(line)
            return [] if _INSIDE.match(line) else self.rest()
        if _BEGINS.match(line) or _IS_BUSY in line:
            self._held.append(line)
            return []
        if line.startswith("ERROR: ") and is_fault(line):
            self.causes.append(line.removeprefix("ERROR: "))
            return []
        return [line]

    def rest(self) -> list[str]:
        """Return the lines of the traceback that was read last, unless it reports a fault."""
        held, self._held = self._held, []
        if held and len(held) > 1 and is_fault(held[-1]):
            self.causes.append(held[-1])
            return []
        return held

    def remove_copies(self) -> None:
        """Remove the half-written copies that DVC left in its cache; its messages name them."""
        for copy in filter(None, map(_COPY.search, self.causes)):
            with suppress(OSError):
                Path(copy[1]).unlink()

    def line(self) -> str:
        """Return the first cause with what to do, and how many more there were."""
        more = len(set(self.causes)) - 1
        first = self.causes[0]
        return explained(f"{first} (and {more} more like it)" if more else first)
