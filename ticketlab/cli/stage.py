"""Shared by `train` and `run`: a study's lock, its progress, and atomic replacement of pages."""

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ticketlab import gpu, progress
from ticketlab.cli.workers import watched
from ticketlab.files import replace_folder, write_atomically
from ticketlab.pipeline import machine, params, repository
from ticketlab.pipeline import timings as seconds
from ticketlab.pipeline.notebook import NotebookFailed, Started
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study import results, runner
from ticketlab.study.store import Store, check_records, remove_damaged


def stored_units() -> Store:
    """Return the units stored in results and in DVC's cache; damaged copies are passed over."""
    folders = (ROOT / "results").glob("*/runs/*/")
    return Store(tuple(sorted(folders)), repository.cache_folder(ROOT))


def cells_of(stage: str) -> Started:
    """Return a function that reports the cells of a stage's page to `ticketlab repro`."""
    return lambda cell, cells: progress.report(stage, cell=cell, cells=cells)


def watched_study(
    kind: Literal["train", "read"], study: str, paper: str, values: Spec, folder: Path, store: Store
) -> None:
    """Run a paper's units into `folder`, showing progress; stored units are not run again.

    Only training replaces units that are damaged or of other code or parameters. Reading raises
    InputError or StaleUnits.
    """
    chosen = PAPERS[paper]
    runtime: gpu.Runtime = values.runtime  # type: ignore[attr-defined]
    workers = gpu.worker_count(runtime, params.load_workers())
    events = folder.with_name(f".{paper}.events")
    stage, expected = f"{kind}@{study}-{paper}", chosen.expected_passes(values)
    if kind == "train" and not results.made_elsewhere(folder):
        remove_damaged(folder)
    else:
        check_records(folder)
    with progress.Watch(events, stage, expected) as watch, watched(workers):
        done = runner.run_study(chosen.phases(values), folder, workers, store, kind == "train")
    results.forget_others(folder, done)
    timed = folder.parent / f"{paper}.timings.json"
    if watch.seconds or watch.reused:
        seconds.note(timed, watch.seconds, done, workers, watch.reused, watch.planned)
        seconds.note_records(timed, folder)
    if watch.seconds:  # at least one unit was trained here
        machine.note(ROOT / "results" / study, paper, runtime)
    if watch.reused:
        print(f"train@{study}-{paper}: {watch.reused} of {len(done)} units are reused")


@contextmanager
def alone(study: str, paper: str) -> Iterator[None]:
    """Lock this paper of the study; InputError names another process that has the lock.

    The operating system releases the lock when its process ends, however it ends.
    """
    lock, holder = (machine.LOCKS / f"{study}.{paper}.{kind}" for kind in ("lock", "holder"))
    machine.LOCKS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock).acquire(timeout=0))
        except Timeout:
            by = holder.read_text() if holder.exists() else "another process"
            raise InputError(f"{study}/{paper} is being trained by {by}: wait for it") from None
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        held.callback(holder.unlink, missing_ok=True)
        yield


@contextmanager
def staged_pages(pages: Path) -> Iterator[Path]:
    """Yield a folder for new pages; they replace the last good ones only on success."""
    staging = pages.with_name(f".{pages.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    os.environ["TICKETLAB_PAGES"] = str(staging)
    try:
        yield staging
    except NotebookFailed as error:
        kept = pages.parent / error.partial.name
        error.partial.replace(kept)
        print(f"the partly executed notebook is {kept.relative_to(ROOT)}", file=sys.stderr)
        raise
    else:
        (pages.parent / f"{pages.name}.failed.ipynb").unlink(missing_ok=True)
        replace_folder(staging, pages)
    finally:
        os.environ.pop("TICKETLAB_PAGES", None)
        shutil.rmtree(staging, ignore_errors=True)
