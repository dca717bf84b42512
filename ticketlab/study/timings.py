"""Seconds of each unit of work: measured while it runs, kept beside the results, outside the lock.

No result depends on them: they differ on every run. Those of a published study are in
results/STUDY/timings.csv, written by `ticketlab timings STUDY --write`, which a re-run leaves
alone; the machine that they were measured on is in results/STUDY/machine.json.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from ticketlab.files import read_json, write_json
from ticketlab.spec import InputError


def note(
    path: Path,
    measured: Mapping[str, float],
    units: Collection[str],
    workers: int | str,
    reused: int = 0,
) -> None:
    """Write the seconds of `units`; those that did not run now keep what `path` has for them."""
    earlier = read_json(path)["seconds"] if path.exists() else {}
    known = {**earlier, **measured}
    seconds = {name: known[name] for name in sorted(units) if name in known}
    write_json(path, {"workers": workers, "reused": reused, "seconds": seconds})


def reused(study: Path) -> dict[str, int]:
    """By paper, how many units the last training took from what was stored, where any."""
    found = {
        path.name.removesuffix(".timings.json"): read_json(path).get("reused", 0)
        for path in sorted((study / "runs").glob("*.timings.json"))
    }
    return {paper: count for paper, count in found.items() if count}


def table(study: Path) -> pd.DataFrame:
    """One row per paper and arm: units, mean and total seconds, workers at once."""
    rows = []
    for path in sorted((study / "runs").glob("*.timings.json")):
        content, paper = read_json(path), path.name.removesuffix(".timings.json")
        rows += [
            (paper, _arm(name), seconds, content["workers"])
            for name, seconds in content["seconds"].items()
        ]
    if not rows:
        raise InputError(f"study: no timings in {study / 'runs'}, run `dvc repro` first")
    units = pd.DataFrame(rows, columns=["paper", "arm", "seconds", "workers"])
    groups = units.groupby(["paper", "arm", "workers"]).seconds
    return groups.agg(["count", "mean", "sum"]).round(2).reset_index()


def _arm(unit: str) -> str:
    """'search/imp/seed-3' -> 'search/imp': the unit's name without its seed."""
    return "/".join(part for part in unit.split("/") if not part.startswith("seed-"))
