"""Where tickets are kept: a project's results or DVC cache, or a release archive with a manifest.

A release archive is a .zip or .tar file. Its manifest.json names the version of ticketlab that
wrote it and has, for each ticket's place ('desk/colt/search/imp/seed-100/round-13'), the SHA-256
of its file, its sparsity, what it holds, and its unit's record as `Facts` has it. The file is
PLACE.safetensors, or where a project has it in an archive of `ticketlab release` (see `Layout`).
"""

import hashlib
import io
import json
import math
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from ticketlab import __version__
from ticketlab.pipeline import params
from ticketlab.pipeline.repository import cache_folder, lock_stages
from ticketlab.reader.inventory import read_header
from ticketlab.spec import InputError, Spec
from ticketlab.study.results import read_record
from ticketlab.study.store import files_in, files_listed
from ticketlab.tickets.ticket import load_ticket

SUFFIX = ".safetensors"
MANIFEST = "manifest.json"


class Facts(Spec):
    """What is known of a ticket without reading its tensors."""

    sparsity: float
    holds: str
    """'mask', 'mask and weights', or 'mask, weights and outcome'."""
    instruction_set: str = ""
    """With which its unit was computed; empty if the unit's record is not there."""
    key: str = ""
    """The unit's key, see `study.results.unit_key`."""
    scores: dict[str, float] = Field(default_factory=dict)
    """The plain numbers of the ticket's row in its unit's record."""


class Entry(Facts):
    """A ticket in a manifest."""

    sha256: str


Layout = Literal["places", "project"]
"""Where the file of 'desk/colt/imp/seed-0/ticket' is: desk/colt/imp/seed-0/ticket.safetensors, or
results/desk/runs/colt/imp/seed-0/ticket.safetensors."""


def file_of(place: str, layout: Layout) -> str:
    """The name of a ticket's file in an archive."""
    study, paper, rest = place.split("/", 2)
    folder = f"results/{study}/runs/{paper}" if layout == "project" else f"{study}/{paper}"
    return f"{folder}/{rest}{SUFFIX}"


class Manifest(Spec):
    """The content of an archive's manifest.json."""

    format: Literal["ticketlab tickets 1"]
    ticketlab: str
    layout: Layout = "places"
    tickets: dict[str, Entry]


class Source(Protocol):
    """Tickets by place."""

    def papers(self) -> set[str]:
        """The papers of which there may be tickets: 'desk/colt'."""

    def places(self, paper: str) -> list[str]:
        """The places of a paper's tickets; InputError in words of how to get them."""

    def facts(self, place: str) -> Facts:
        """What is known of one of them."""

    def opened(self, place: str) -> Any:
        """A context with the path of a ticket's file, its bytes verified where they can be."""


def source_of(path: Path) -> Source:
    """The project in a folder, or the archive in a file."""
    return Project(path) if path.is_dir() else Archive(path)


# ---------------------------------------------------------------- a project


@dataclass(frozen=True)
class Project:
    """A checkout: results/STUDY/runs/PAPER, or what dvc.lock says of it in DVC's cache."""

    root: Path
    _known: dict[str, dict[str, Path]] = field(default_factory=dict)

    def papers(self) -> set[str]:
        """Every paper with results or units."""
        results = self.root / "results"
        pages = [path.parent for path in results.glob("*/*/metrics.json")]
        runs = [path for path in results.glob("*/runs/[!.]*/") if path.is_dir()]
        found = {f"{page.parent.name}/{page.name}" for page in pages}
        return found | {f"{run.parents[1].name}/{run.name}" for run in runs}

    def places(self, paper: str) -> list[str]:
        """See `Source`."""
        files = self.files(paper)
        if not files:
            study, name = paper.split("/")
            raise InputError(
                f"tickets: those of {paper} are not here; `dvc pull results/{study}/runs/{name}` "
                f"fetches them if the project has a DVC remote, `dvc repro train@{study}-{name}` "
                "trains them, and source=FILE reads a release archive"
            )
        found = [name for name in files if name.endswith(SUFFIX)]
        return sorted(f"{paper}/{name.removesuffix(SUFFIX)}" for name in found)

    def files(self, paper: str) -> dict[str, Path]:
        """The files of a paper's units by their path in its folder, listed once."""
        if paper not in self._known:
            folder = "results/{}/runs/{}".format(*paper.split("/"))
            self._known[paper] = files_in(self.root / folder) or _in_cache(self.root, folder)
        return self._known[paper]

    def _split(self, place: str) -> tuple[dict[str, Path], str, str]:
        study, paper, rest = place.split("/", 2)
        unit, _, name = rest.rpartition("/")
        return self.files(f"{study}/{paper}"), unit, name

    def facts(self, place: str) -> Facts:
        """See `Source`."""
        files, unit, name = self._split(place)
        header, holds = read_header(files[f"{unit}/{name}{SUFFIX}"])
        metadata = header["metadata"]
        made = read_record(files[f"{unit}.json"]) if f"{unit}.json" in files else {}
        return Facts(
            sparsity=metadata["sparsity"],
            holds=holds,
            instruction_set=made.get("instruction_set", ""),
            key=made.get("key", ""),
            scores=scores_of(made.get("record", {}), metadata, name),
        )

    @contextmanager
    def opened(self, place: str) -> Iterator[Path]:
        """See `Source`; a project's files have only the hash in themselves."""
        files, unit, name = self._split(place)
        yield files[f"{unit}/{name}{SUFFIX}"]


def _in_cache(root: Path, folder: str) -> dict[str, Path]:
    """The files of a folder that dvc.lock has and DVC's cache holds; none if it does not."""
    lock = root / "dvc.lock"
    stages = lock_stages(lock.read_text()) if lock.exists() else {}
    outs = [out for entry in stages.values() for out in entry.get("outs", ())]
    sums = [str(out["md5"]) for out in outs if out["path"] == folder and "md5" in out]
    if not sums or not (root / ".dvc").exists():
        return {}
    cache = cache_folder(root)
    listing = cache / "files" / "md5" / sums[0][:2] / sums[0][2:]
    return files_listed(listing, cache) if listing.exists() else {}


AGREEING = ("arm", "round", "level", "case", "mask_seed")
"""What a row of a record and a ticket's metadata may both have; the row is the ticket's if they
agree."""


def scores_of(
    record: Mapping[str, Any], metadata: Mapping[str, Any], name: str
) -> dict[str, float]:
    """The plain numbers of the one row of a unit's record that is the ticket's, else none.

    Plant 'n' Seek names rows by method and label, and its tickets METHOD-LABEL.
    """

    def agrees(row: Mapping[str, Any]) -> bool:
        own = f"{row['method']}-{row['label']}" if {"method", "label"} <= set(row) else name
        shared = (key for key in AGREEING if key in row and key in metadata)
        return own == name and all(row[key] == metadata[key] for key in shared)

    for table in (record.get("rounds"), record.get("scores"), record.get("rows")):
        rows = [row for row in table or () if isinstance(row, Mapping) and agrees(row)]
        if len(rows) == 1:
            return {
                key: float(value)
                for key, value in rows[0].items()
                if type(value) in (int, float) and math.isfinite(value)
            }
    return {}


# ---------------------------------------------------------------- an archive


@dataclass(frozen=True)
class Archive:
    """A release archive; every file is checked against the manifest's SHA-256."""

    path: Path

    @property
    def _tickets(self) -> Mapping[str, Entry]:
        return self._manifest.tickets

    @cached_property
    def _manifest(self) -> Manifest:
        place = f"{self.path}: {MANIFEST}"
        try:
            content = json.loads(self._read(MANIFEST))
        except ValueError as error:
            raise InputError(f"{place}: not readable JSON ({error})") from None
        return params.validate(Manifest, content, place)

    def _read(self, name: str) -> bytes:
        """A file of the archive; InputError if either is missing or damaged."""
        try:
            if zipfile.is_zipfile(self.path):
                with zipfile.ZipFile(self.path) as packed:
                    return packed.read(name)
            with tarfile.open(self.path) as packed_tar:
                file = packed_tar.extractfile(name)
                return file.read() if file else b""
        except KeyError:
            raise InputError(f"{self.path}: {name} is missing") from None
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path}: not a readable archive ({reason})") from None

    def papers(self) -> set[str]:
        """See `Source`."""
        return {"/".join(place.split("/")[:2]) for place in self._tickets}

    def places(self, paper: str) -> list[str]:
        """See `Source`."""
        return sorted(place for place in self._tickets if place.startswith(f"{paper}/"))

    def facts(self, place: str) -> Facts:
        """See `Source`."""
        return self._tickets[place]

    @contextmanager
    def opened(self, place: str) -> Iterator[Path]:
        """See `Source`; InputError for a file with another SHA-256 than the manifest has."""
        name = file_of(place, self._manifest.layout)
        content = self._read(name)
        if hashlib.sha256(content).hexdigest() != self._tickets[place].sha256:
            raise InputError(f"{self.path}: {name} does not match the SHA-256 of {MANIFEST}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"ticket{SUFFIX}"
            file.write_bytes(content)
            yield file


def export(source: Source, places: list[str], path: Path) -> None:
    """Write tickets into a release archive, each verified first; the same tickets, the same bytes.

    The file appears when it is whole. InputError for a name that ends in neither .zip nor .tar.
    """
    if path.suffix not in (".zip", ".tar"):
        raise InputError(f"export: {path.name!r}, allowed is a name that ends in .zip or .tar")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with _packing(partial, path.suffix) as add:
            entries = {}
            for place in places:
                content, entries[place] = verified(source, place)
                add(file_of(place, "places"), content)
            add(MANIFEST, manifest_of(entries, "places"))
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def verified(source: Source, place: str) -> tuple[bytes, Entry]:
    """A ticket's file, its hashes verified, and its entry in a manifest."""
    with source.opened(place) as file:
        load_ticket(file)
        content = file.read_bytes()
    facts = source.facts(place).model_dump(exclude={"sha256"})
    return content, Entry(sha256=hashlib.sha256(content).hexdigest(), **facts)


def manifest_of(entries: Mapping[str, Entry], layout: Layout) -> bytes:
    """The content of an archive's manifest.json."""
    made = Manifest(
        format="ticketlab tickets 1", ticketlab=__version__, layout=layout, tickets=dict(entries)
    )
    return made.model_dump_json(indent=1).encode()


@contextmanager
def _packing(path: Path, suffix: str) -> Iterator[Any]:
    """A function that adds a file, by name and content, to a new archive."""
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            yield lambda name, content: packed.writestr(zipfile.ZipInfo(name), content)
        return
    with tarfile.open(path, "w") as packed_tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed_tar.addfile(info, io.BytesIO(content))

        yield add
