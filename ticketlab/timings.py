"""Seconds of each unit of work: measured while it runs, kept beside the results, outside the lock.

No result depends on them: they differ on every run. Those of a published study are in
results/STUDY/timings.csv, written by `ticketlab timings STUDY --write`; the comparison's page shows
that file, which a re-run leaves alone.
"""

import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
import torch

from ticketlab import gpu
from ticketlab.files import read_json, write_json
from ticketlab.results import write_table
from ticketlab.spec import InputError

COLUMNS = ("paper", "arm", "workers", "device", "count", "mean", "sum")


def note(
    path: Path, measured: Mapping[str, float], units: Collection[str], runtime: gpu.Runtime
) -> None:
    """Write the seconds of `units`; those that did not run now keep what `path` has for them."""
    earlier = read_json(path)["seconds"] if path.exists() else {}
    known = {**earlier, **measured}
    device = gpu.choose_device(runtime.device)
    seconds = {name: known[name] for name in sorted(units) if name in known}
    content = {"device": described(device), "workers": gpu.worker_count(runtime)}
    write_json(path, content | {"seconds": seconds})


def begin(published: Path) -> None:
    """A table without rows, if there is none yet: the comparison's page depends on the file."""
    if not published.exists():
        write_table(pd.DataFrame(columns=list(COLUMNS)), published)


def described(device: torch.device) -> str:
    """The device by its product name; of a CPU the model, as far as the system tells it."""
    if device.type != "cpu":
        return gpu.describe(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or 'cpu'])[0]}, {os.cpu_count()} cores"


def table(study: Path) -> pd.DataFrame:
    """One row a paper and arm: units, mean and total seconds, workers at once, device."""
    rows = []
    for path in sorted((study / "runs").glob("*.timings.json")):
        content, paper = read_json(path), path.name.removesuffix(".timings.json")
        rows += [
            (paper, _arm(name), seconds, content["workers"], content["device"])
            for name, seconds in content["seconds"].items()
        ]
    if not rows:
        raise InputError(f"study: no timings in {study / 'runs'}, run `dvc repro` first")
    units = pd.DataFrame(rows, columns=["paper", "arm", "seconds", "workers", "device"])
    groups = units.groupby(["paper", "arm", "workers", "device"]).seconds
    return groups.agg(["count", "mean", "sum"]).round(2).reset_index()


def _arm(unit: str) -> str:
    """'search/imp/seed-3' -> 'search/imp': the unit's name without its seed."""
    return "/".join(part for part in unit.split("/") if not part.startswith("seed-"))
