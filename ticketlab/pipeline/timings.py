"""Seconds of each unit of work: measured while it runs, stored next to results, not in dvc.lock.

No result depends on them, because they differ from run to run. Those of a published study are in
results/STUDY/timings.csv, written by `ticketlab timings STUDY --write`, and a re-run does not
change this file; results/STUDY/machine.json names the machine on which they were measured.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from ticketlab.files import read_json, write_json
from ticketlab.spec import InputError
from ticketlab.study.runner import Unit

FILE = "timings.csv"
RECORDS = "records_sha256"
"""The key of what `note_records` writes."""
PAGE = "page"
"""The arm name of a paper's notebook."""


class Arm(NamedTuple):
    """Average duration of an arm's units over seeds."""

    seconds: float
    passes: float
    """Image passes that it was expected to take."""

    def predict(self, passes: float) -> float:
        """Return the seconds of a unit with these passes; constant for units without training."""
        return self.seconds * (passes / self.passes if self.passes and passes else 1)


def note(
    path: Path,
    measured: Mapping[str, float],
    units: Collection[str],
    workers: int | str,
    reused: int = 0,
    passes: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Write the seconds of `units` and their expected image passes; units that did not run now
    keep their entries in `path`."""
    earlier = read_json(path) if path.exists() else {}
    kept = {
        what: {name: known[name] for name in sorted(units) if name in known}
        for what, now in {"seconds": measured, "passes": passes}.items()
        for known in [{**earlier.get(what, {}), **now}]
    }
    write_json(path, {**earlier, "workers": workers, "reused": reused, **kept})


def note_records(path: Path, folder: Path) -> None:
    """Write the digest of a paper's records as they were trained, beside their seconds."""
    write_json(path, {**read_json(path), RECORDS: digest(records(folder))})


def records(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each unit's record in a folder, by the unit's name."""
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.json")
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(paths.items())
        if not name.startswith(".")
    }


def digest(found: Mapping[str, str]) -> str:
    """Return one hash of all records."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def note_page(path: Path, seconds: float) -> None:
    """Write the seconds of a paper's notebook; all other entries in `path` stay."""
    earlier = read_json(path) if path.exists() else {"workers": 1, "seconds": {}}
    write_json(path, {**earlier, PAGE: round(seconds, 3)})


def reused(study: Path) -> dict[str, int]:
    """Return, by paper, how many units the last training reused, if any."""
    found = {
        path.name.removesuffix(".timings.json"): read_json(path).get("reused", 0)
        for path in sorted((study / "runs").glob("*.timings.json"))
    }
    return {paper: count for paper, count in found.items() if count}


def table(study: Path) -> pd.DataFrame:
    """Return one row per paper and arm, and one per page: units, mean and total seconds, passes of
    one unit, workers at once."""
    rows = []
    for path in sorted((study / "runs").glob("*.timings.json")):
        content, paper = read_json(path), path.name.removesuffix(".timings.json")
        passes = content.get("passes", {})
        rows += [(paper, PAGE, content[PAGE], 0.0, 1)] if PAGE in content else []
        rows += [
            (paper, arm_of(name), seconds, passes.get(name, 0.0), content["workers"])
            for name, seconds in content["seconds"].items()
        ]
    if not rows:
        raise InputError(f"study: no timings in {study / 'runs'}, run `dvc repro` first")
    units = pd.DataFrame(rows, columns=["paper", "arm", "seconds", "passes", "workers"])
    groups = units.groupby(["paper", "arm", "workers"])
    found = groups.seconds.agg(["count", "mean", "sum"]).round(2)
    return found.assign(passes=groups.passes.mean().round()).reset_index()


def known(study: Path, paper: str) -> dict[str, Arm]:
    """Return the durations of a paper's arms, as measured here or else as published."""
    local, published = study / "runs" / f"{paper}.timings.json", study / FILE
    if not local.exists() and not published.exists():
        return {}
    rows = table(study) if local.exists() else pd.read_csv(published)
    rows = rows[rows.paper == paper]
    return {arm: Arm(*both) for arm, *both in rows[["arm", "mean", "passes"]].values.tolist()}


def predicted(units: Iterable[Unit], arms: Mapping[str, Arm]) -> dict[str, float]:
    """Return the seconds of each unit whose arm is known, by name."""
    found = ((unit, arms.get(arm_of(unit.name))) for unit in units)
    return {unit.name: arm.predict(unit.passes) for unit, arm in found if arm is not None}


def arm_of(unit: str) -> str:
    """Return a unit's name without its seed: 'search/imp/seed-3' -> 'search/imp'."""
    return "/".join(part for part in unit.split("/") if not part.startswith("seed-"))
