"""What a release has: the files of git, stored units and tickets, the site, and what is computed.

An unpacked release is a project: its files have the places of a checkout in which `dvc repro` has
run. FACTS, VERDICTS, the tickets' manifest, the RO-Crate metadata and SUMS are in releases only.
"""

import csv
import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from ticketlab.files import write_atomically
from ticketlab.spec import InputError, Spec
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict, as_q

FACTS = "release.json"
VERDICTS = "verdicts.csv"
SUMS = "SHA256SUMS"
"""The SHA-256 of every other file, as `sha256sum --check` reads them."""

COLUMNS = ("study", "paper", "claim", "verdict", "reason", "number", "q")
"""Of VERDICTS."""


class Release(Spec):
    """The content of FACTS."""

    format: Literal["ticketlab release 1"] = "ticketlab release 1"
    ticketlab: str
    """The version that wrote it."""
    commit: str
    date: str
    """Of the commit: '2026-11-27'."""
    studies: list[str]
    tickets: bool
    """Whether it has the units of the studies."""


class Digest(NamedTuple):
    """What is compared of a file."""

    sha256: str
    md5: str
    """As dvc.lock has it."""
    size: int


class Files(Protocol):
    """Files by name: 'results/desk/findings.md'."""

    @property
    def names(self) -> Collection[str]:
        """Those that there are."""

    def read(self, name: str) -> bytes:
        """The content of one; InputError if it is damaged."""


@dataclass(frozen=True)
class Loose:
    """Files that are still to be packed: on disk, or computed."""

    files: Mapping[str, Path | bytes]

    @property
    def names(self) -> Collection[str]:
        """See `Files`."""
        return self.files.keys()

    def read(self, name: str) -> bytes:
        """See `Files`."""
        found = self.files[name]
        return found if isinstance(found, bytes) else found.read_bytes()


@dataclass(frozen=True)
class Packed:
    """The files of an archive; folders are none."""

    archive: zipfile.ZipFile

    @cached_property
    def listed(self) -> Sequence[str]:
        """The names in the archive's order; a name that occurs twice is there twice."""
        return [name for name in self.archive.namelist() if not name.endswith("/")]

    @cached_property
    def names(self) -> Collection[str]:
        """See `Files`."""
        return set(self.listed)

    def read(self, name: str) -> bytes:
        """See `Files`."""
        try:
            return self.archive.read(name)
        except Exception as error:  # zlib, zipfile and lzma have errors of many types
            raise InputError(f"{name}: not readable ({str(error).splitlines()[0]})") from None


@contextmanager
def opened(path: Path) -> Iterator[Packed]:
    """The files of the release in an archive; InputError for a file that is no .zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Packed(archive)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a readable archive ({error})") from None


def digest(content: bytes) -> Digest:
    """Hash a file's content."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Digest(hashlib.sha256(content).hexdigest(), md5, len(content))


# ---------------------------------------------------------------- verdicts


def judged(files: Files, study: str) -> dict[str, list[Verdict]]:
    """The verdicts on a study by paper, from the metrics and the claims among the files alone."""
    with tempfile.TemporaryDirectory() as folder:
        for name in files.names:
            if re.fullmatch(rf"results/{study}/[^/]+/metrics\.json|claims/[^/]+\.yaml", name):
                write_atomically(Path(folder) / name, files.read(name))
        return verdicts.of_study(Path(folder) / "results" / study, claims=Path(folder) / "claims")


def rows(study: str, found: Mapping[str, Sequence[Verdict]]) -> list[tuple[str, ...]]:
    """The rows of VERDICTS on a study."""
    return [
        (study, paper, one.claim.id, one.word, one.reason or "", one.ours, as_q(one.q))
        for paper, some in sorted(found.items())
        for one in some
    ]


def table(lines: Sequence[Sequence[str]]) -> bytes:
    """The content of VERDICTS."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
    return text.getvalue().encode()
