"""Damaged units are never reused: another copy of the unit is, or it is trained again.

A ticket has a hash of its content, and a file in DVC's cache is named by its MD5 sum. A record
outside the cache has neither: damage that leaves a valid record of the same key is not seen there.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ticketlab.spec import InputError
from ticketlab.study.results import read_record
from ticketlab.study.store import Store, Stored


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
                _warn(f"{problem}; this copy of the unit is not used")
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
            _warn(f"{problem}; unit {name} is not reused")
            path.unlink()


def check_records(folder: Path) -> None:
    """Raise InputError for the first record of a folder that is damaged; tickets are not read."""
    for path in _records(folder):
        _unit(path, folder)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


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


# ---------------------------------------------------------------- all copies of units


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
            _warn(f"{listing}: damaged ({error!r}); its copies of units are not used")
            continue
        yield {name: path for name, path in paths.items() if path.is_file()}


def _units(paths: Mapping[str, Path]) -> Iterator[tuple[str, Stored]]:
    """Yield key and files of each unit that has all of its tickets."""
    for name, path in paths.items():
        if not name.endswith(".json"):
            continue
        try:
            content = read_record(path)
        except InputError as error:
            _warn(f"{error}; this copy of the unit is not used")
            continue
        unit, tickets = name.removesuffix(".json"), content.get("tickets", ())
        at = {str(one): f"{unit}/{one}.safetensors" for one in tickets}
        if "key" in content and set(at.values()) <= set(paths):
            yield str(content["key"]), Stored(path, {one: paths[to] for one, to in at.items()})
