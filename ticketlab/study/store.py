"""Stored units by key, so that later runs reuse what was trained once."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ticketlab.files import write_json
from ticketlab.study.results import Result, placed, read_record, with_origin
from ticketlab.tickets.ticket import load_ticket, save_ticket


@dataclass(frozen=True)
class Stored:
    """The files of a finished unit, in a folder or in DVC's cache."""

    record: Path
    tickets: Mapping[str, Path]

    def result(self) -> Result:
        """Return its record and tickets."""
        tickets = {name: load_ticket(path) for name, path in self.tickets.items()}
        return Result(read_record(self.record)["record"], tickets)

    def copy_to(self, folder: Path, name: str, arguments: Mapping[str, Any]) -> None:
        """Store the unit in `folder` under `name`, with its origin there."""
        content = read_record(self.record)
        result = with_origin(self.result(), name, folder, arguments)
        for ticket_name, ticket in result.tickets.items():
            save_ticket(ticket, folder / name / f"{ticket_name}.safetensors")
        write_json(folder / f"{name}.json", content)

    def bring_to(self, folder: Path, name: str) -> None:
        """Store the unit in `folder`, on a machine other than the one that made it."""
        content = read_record(self.record)
        for ticket_name, ticket in placed(self.result(), folder).tickets.items():
            save_ticket(ticket, folder / name / f"{ticket_name}.safetensors")
        write_json(folder / f"{name}.json", content)


@dataclass(frozen=True)
class Store:
    """Units by key, in result folders (`results/STUDY/runs/PAPER`) and in DVC's cache."""

    folders: tuple[Path, ...] = ()
    cache: Path | None = None
    """DVC's cache, `.dvc/cache`, with the units of earlier runs and other branches."""

    def get(self, key: str) -> Stored | None:
        """Return the unit that was made with this key, or None."""
        return self._units.get(key)

    @cached_property
    def _units(self) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for units in (*map(in_folder, self.folders), *(in_cache(self.cache) if self.cache else ())):
            found = dict(units) | found
        return found


EMPTY = Store()
"""A store without units: nothing is reused."""


def in_folder(folder: Path) -> dict[str, Stored]:
    """Return the units of one folder by key."""
    paths = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return dict(_units_among(paths))


def in_cache(cache: Path) -> Iterator[dict[str, Stored]]:
    """Yield the units of each folder in DVC's cache, newest folder first.

    A cached folder is a list of paths and MD5 sums in a file that ends in .dir.
    """
    files = cache / "files" / "md5"
    listings = sorted(files.glob("*/*.dir"), key=lambda path: -path.stat().st_mtime)
    for listing in listings:
        entries = json.loads(listing.read_text())
        paths = {one["relpath"]: files / one["md5"][:2] / one["md5"][2:] for one in entries}
        yield dict(_units_among({name: path for name, path in paths.items() if path.exists()}))


def _units_among(paths: Mapping[str, Path]) -> Iterable[tuple[str, Stored]]:
    for name, path in paths.items():
        if name.endswith(".json"):
            content = read_record(path)
            unit = name.removesuffix(".json")
            tickets = {one: f"{unit}/{one}.safetensors" for one in content.get("tickets", ())}
            if "key" in content and set(tickets.values()) <= set(paths):
                yield content["key"], Stored(path, {one: paths[at] for one, at in tickets.items()})
