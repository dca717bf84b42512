"""Stored units by key, so that later runs reuse what was trained once."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ticketlab import progress
from ticketlab.files import write_json
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


# ---------------------------------------------------------------- damaged units
# A damaged unit is never reused: another copy of it is, or it is trained again. A ticket has a hash
# of its content, and a file in DVC's cache is named by its MD5 sum. A record outside the cache has
# neither: damage that leaves a valid record of the same key is not noticed there.


@dataclass(frozen=True)
class IntactStore(Store):
    """A store that passes over damaged copies of units, with a warning."""

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
        for paths in (*(_listings(self.cache) if self.cache else ()), *map(_files, self.folders)):
            for key, copy in _units(paths):
                found.setdefault(key, []).append(copy)
        return found


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


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their path in it."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _listings(cache: Path) -> Iterator[dict[str, Path]]:
    """Yield the files of each folder in DVC's cache (see `store.in_cache`), newest folder first."""
    files = cache / "files" / "md5"
    for listing in sorted(files.glob("*/*.dir"), key=lambda path: -path.stat().st_mtime):
        try:
            entries = json.loads(listing.read_text())
            paths = {one["relpath"]: files / one["md5"][:2] / one["md5"][2:] for one in entries}
        except (ValueError, TypeError, KeyError) as error:
            progress.warn(f"{listing}: damaged ({error!r}); its copies of units are not used")
            continue
        yield {name: path for name, path in paths.items() if path.is_file()}


def _units(paths: Mapping[str, Path]) -> Iterable[tuple[str, Stored]]:
    """Return key and files of each unit that has all of its tickets and a readable record."""
    readable = {n: path for n, path in paths.items() if not n.endswith(".json") or _is_json(path)}
    return _units_among(readable)


def _is_json(path: Path) -> bool:
    """Return whether a file has a JSON object; warn if it does not."""
    try:
        read_record(path)
    except InputError as error:
        progress.warn(f"{error}; this copy of the unit is not used")
        return False
    return True
