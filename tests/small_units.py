"""Units of work that train nothing, for the tests of what runs them: workers import this module."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import tiny
import torch

from ticketlab import progress
from ticketlab.data import sets
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask
from ticketlab.spec import InputError
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit
from ticketlab.tickets.ticket import Ticket


def ticket(seed: int) -> Ticket:
    keep = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed)) > 0.5
    return Ticket(Mask({"w": keep}), metadata={"seed": seed})


def trained(mask: Mask) -> None:
    """What every training does at its end: a net whose zeros are those of the mask."""
    ones = {name: torch.ones(keep.shape) for name, keep in mask.items()}
    patterns.confirm({name: one * mask[name] for name, one in ones.items()}, mask, ones)


def counted(log: str, seed: int) -> Result:
    """Leaves a line in `log` each time it is run."""
    with open(log, "a") as file:
        file.write(f"{seed}\n")
    trained(ticket(seed).mask)
    return Result({"seed": seed, "process": 0}, {"round-01": ticket(seed)})


def reading(seed: int) -> Result:
    """Says how many data sets it had to read, in which process."""
    before = sets._loaded.cache_info().misses
    sets.load(tiny.DIGITS)
    return Result({"read": sets._loaded.cache_info().misses - before, "process": os.getpid()})


def swapping(log: str, seed: int) -> Result:
    """Stores a ticket that keeps another weight than its net did, as many in all."""
    counted(log, seed)
    keep = ticket(seed).mask["w"]
    moved = keep.flatten().roll(1).view_as(keep)
    assert moved.sum() == keep.sum() and not torch.equal(moved, keep)
    return Result({}, {"round-01": ticket(seed), "round-02": Ticket(Mask({"w": moved}))})


def failing(log: str, seed: int) -> Result:
    """Fails once the units 0 and 1 are stored."""
    folder = Path(log).parent / "runs"
    while not all((folder / f"unit-{i}.json").exists() for i in (0, 1)):
        time.sleep(0.01)
    raise ZeroDivisionError("seed\nwith two lines")


def refusing(log: str, seed: int) -> Result:
    raise InputError(f"rate: {seed} is wrong, allowed: 0.5")


def stopped(log: str, seed: int) -> Result:
    counted(log, seed)
    raise KeyboardInterrupt


def dying(log: str, seed: int) -> Result:
    """Its process is gone, as when the system has run out of memory; each time, or only once."""
    again = Path(f"{log}.{seed}")
    if seed >= 9 or not again.exists():
        again.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return counted(log, seed)


def telling(log: str, seed: int) -> Result:
    progress.label(arm=f"arm {seed}")
    progress.tell(passes=100, accuracy=0.5)
    return counted(log, seed)


def together(log: str, seed: int) -> Result:
    """Waits until the units 0 and 1 are at work, and so on two workers."""
    telling(log, seed)
    Path(f"{log}.at-{seed}").touch()
    until = time.monotonic() + 60
    while not all(Path(f"{log}.at-{one}").exists() for one in (0, 1)):
        assert time.monotonic() < until, "no other worker has begun"
        time.sleep(0.01)
    time.sleep(1)
    return Result({"seed": seed}, {"round-01": ticket(seed)})


def units(
    folder: Path, work: Callable[..., Result] = counted, seeds: tuple[int, ...] = (0, 1, 2)
) -> list[Unit]:
    log = str(folder / "log")
    return [Unit(f"unit-{s}", work, {"log": log, "seed": s}, passes=float(s)) for s in seeds]


def runs(folder: Path) -> list[int]:
    """The seeds that were run, in order."""
    path = folder / "log"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def cache_of(folder: Path, cache: Path) -> None:
    """What `dvc commit` does with a folder: files by MD5, and the list of them."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            md5 = hashlib.md5(path.read_bytes()).hexdigest()
            entries.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
            target = cache / "files" / "md5" / md5[:2] / md5[2:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    listing = cache / "files" / "md5" / "00" / "11.dir"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps(entries))
