"""Stored units by key, so that later runs reuse what was trained once."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ticketlab import progress
from ticketlab.files import read_json, write_json
from ticketlab.spec import InputError
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
    """Units by key, in result folders (`results/STUDY/runs/PAPER`) and in DVC's cache.

    Damaged copies are passed over, with a warning.
    """

    folders: tuple[Path, ...] = ()
    cache: Path | None = None
    """DVC's cache, `.dvc/cache`, with the units of earlier runs and other branches."""
    _known: dict[Path, bool] = field(default_factory=dict, compare=False, repr=False)
    """Whether a copy is intact, by its record; filled as units are asked for."""

    def get(self, key: str) -> Stored | None:
        """Return an intact copy of the unit that was made with this key, or None."""
        return next((one for one in self._copies.get(key, ()) if self._is_intact(one)), None)

    def _is_intact(self, copy: Stored) -> bool:
        if copy.record not in self._known:
            in_cache = self.cache is not None and copy.record.is_relative_to(self.cache)
            problem = _changed_in_cache(copy) if in_cache else _unreadable(copy)
            if problem:
                progress.warn(f"{problem}; this copy of the unit is not used")
            self._known[copy.record] = not problem
        return self._known[copy.record]

    @cached_property
    def _copies(self) -> dict[str, list[Stored]]:
        """All copies of each unit, first those in DVC's cache, where every change is seen."""
        found: dict[str, list[Stored]] = {}
        cached = _listed_folders(self.cache) if self.cache else ()
        for paths in (*cached, *map(files_in, self.folders)):
            for key, copy in _units(paths):
                found.setdefault(key, []).append(copy)
        return found


EMPTY = Store()
"""A store without units: nothing is reused."""


# ---------------------------------------------------------------- files of units


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their path in it."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def files_listed(listing: Path, cache: Path) -> dict[str, Path]:
    """Return those files of a folder that DVC's cache holds, by their path in the folder.

    `listing` is the cached folder: a list of paths and MD5 sums. InputError if it is damaged.
    """
    files = cache / "files" / "md5"
    entries = read_json(listing)
    try:
        paths = {one["relpath"]: files / one["md5"][:2] / one["md5"][2:] for one in entries}
    except (TypeError, KeyError) as error:
        raise InputError(f"{listing}: damaged, it is no list of paths and MD5 sums") from error
    return {name: path for name, path in paths.items() if path.is_file()}


def _listed_folders(cache: Path) -> Iterator[dict[str, Path]]:
    """Yield the files of each folder in DVC's cache, newest folder first."""
    listings = (cache / "files" / "md5").glob("*/*.dir")
    for listing in sorted(listings, key=lambda path: -path.stat().st_mtime):
        try:
            yield files_listed(listing, cache)
        except InputError as error:
            progress.warn(f"{error}; its copies of units are not used")


def _units(paths: Mapping[str, Path]) -> Iterator[tuple[str, Stored]]:
    """Yield key and files of each unit with all of its tickets; warn of unreadable records."""
    for name in (name for name in paths if name.endswith(".json")):
        try:
            content = read_record(paths[name])
        except InputError as error:
            progress.warn(f"{error}; this copy of the unit is not used")
            continue
        unit = name.removesuffix(".json")
        tickets = {one: f"{unit}/{one}.safetensors" for one in content.get("tickets", ())}
        if "key" in content and set(tickets.values()) <= set(paths):
            found = {one: paths[place] for one, place in tickets.items()}
            yield content["key"], Stored(paths[name], found)


# ---------------------------------------------------------------- damaged units
# A damaged unit is never reused: another copy of it is, or it is trained again. A ticket has a hash
# of its content, and a file in DVC's cache is named by its MD5 sum. A record outside the cache has
# neither: damage that leaves a valid record of the same key is not noticed there.


def remove_damaged(folder: Path) -> None:
    """Remove the record of each damaged unit of a folder, with a warning: it is trained again."""
    for path in _records(folder):
        try:
            _, copy = _unit(path, folder)
            problem = _unreadable(copy)
        except InputError as error:
            problem = str(error)
        if problem:
            name = path.relative_to(folder).as_posix().removesuffix(".json")
            progress.warn(f"{problem}; unit {name} is not reused")
            path.unlink()


def check_records(folder: Path) -> None:
    """Raise InputError for the first record of a folder that is damaged; tickets are not read."""
    for path in _records(folder):
        _unit(path, folder)


def _records(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def _unit(path: Path, folder: Path) -> tuple[str, Stored]:
    """Return the key of a record, and the files of its unit; InputError for a damaged record."""
    content = read_record(path)
    kinds = {"key": str, "record": dict, "tickets": list}
    if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        raise InputError(f"{path}: damaged, it has no valid {wrong[0]!r}")
    tickets = {str(one): path.with_suffix("") / f"{one}.safetensors" for one in content["tickets"]}
    return content["key"], Stored(path, tickets)


def _unreadable(copy: Stored) -> str:
    """Return what is wrong with the files of a unit, or ''."""
    try:
        copy.result()
    except InputError as error:
        return str(error)
    return ""


def _changed_in_cache(copy: Stored) -> str:
    """Return which of a unit's files in DVC's cache was changed, or ''."""
    for path in (copy.record, *copy.tickets.values()):
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name:
            return f"{path}: damaged, its content does not match its name"
    return ""
