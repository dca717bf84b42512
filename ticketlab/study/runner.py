"""Runs independent units of work (seed x arm) in parallel, and stores each as it finishes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ticketlab import instruction_set, progress
from ticketlab.gpu import CLUSTER
from ticketlab.instruction_set import InstructionSet
from ticketlab.pruning import patterns
from ticketlab.spec import InputError
from ticketlab.study.results import (
    Made,
    Result,
    load_result,
    made_elsewhere,
    save_result,
    unit_key,
    with_origin,
)
from ticketlab.study.store import EMPTY, Store


@dataclass(frozen=True)
class Unit:
    """One piece of work: a module-level function and its arguments; `name` is a relative path.

    The result must depend on nothing else, so that it is the same in any process and in any order.
    `passes` is the expected number of image passes, for estimating the time left.
    """

    name: str
    work: Callable[..., Result]
    arguments: Mapping[str, Any]
    passes: float = 0.0

    @property
    def key(self) -> str:
        """Hash of what decides the unit's result; units of equal keys are trained once."""
        return self.key_of(None)

    def key_of(self, made: Made | None) -> str:
        """Return its key if it was `made` with other software or hardware than this machine's."""
        return unit_key(self.work, self.arguments, made)


Phases = Generator[list[Unit], dict[str, Result], dict[str, Result]]
"""A study as a generator: yields lists of independent units, receives their results by name, and
returns all results."""


class UnitFailed(RuntimeError):
    """A unit raised an error; the message names the unit. Finished units are kept."""


class StaleUnits(InputError):
    """A folder has units of the same names that were made with other code or parameters."""


def run_study(
    phases: Phases,
    folder: Path,
    workers: int | str = 1,
    store: Store = EMPTY,
    renew: bool = True,
) -> dict[str, Result]:
    """Return the results of all units of a study by name, run phase by phase with `run`."""
    results: dict[str, Result] | None = None
    while True:
        try:
            units = phases.send(results) if results is not None else next(phases)
        except StopIteration as end:
            return dict(end.value)
        results = run(units, folder, workers, store, renew)


def run(
    units: Sequence[Unit],
    folder: Path,
    workers: int | str = 1,
    store: Store = EMPTY,
    renew: bool = True,
) -> dict[str, Result]:
    """Return the results of all units by name, in the given order, for any number of workers.

    The worker that made a result stores it in `folder`. Units whose key is in `folder` or in
    `store` are not run, and of units with equal keys only one is. `workers` is a number of
    processes on this machine, or the address of a Dask scheduler ("dask:tcp://HOST:PORT") whose
    workers share `folder`. Without `renew`, raises StaleUnits if a unit in `folder` would have to
    be replaced.

    In a folder of units that were made on another machine nothing is run; InputError if one is
    missing.
    """
    made = made_elsewhere(folder)
    # Computed now, because the source may be edited meanwhile.
    keys = {unit.name: unit.key_of(made) for unit in units}
    done = {name: load_result(folder, name, key) for name, key in keys.items()}
    missing = [unit for unit in units if done[unit.name] is None]
    if made and missing:
        raise InputError(
            f"{folder}: its units were made on another machine, and {len(missing)} "
            f"({missing[0].name!r}, ...) are not among them, or had other code or parameters; "
            "`ticketlab piece` trains them there, `ticketlab train --fresh` all of them here"
        )
    if not renew:
        _refuse_to_replace(missing, folder)
    for unit in units:
        if done[unit.name] is not None:
            _tell_stored(unit, copied=False)
    left = [unit for unit in missing if not _copied(unit, keys[unit.name], folder, store)]
    once = {keys[unit.name]: unit for unit in reversed(left)}
    _train([unit for unit in left if once[keys[unit.name]] is unit], keys, folder, workers)
    now = Store((folder,))
    for unit in left:
        if once[keys[unit.name]] is not unit:
            _copied(unit, keys[unit.name], folder, now)
    results = {name: done[name] or load_result(folder, name, key) for name, key in keys.items()}
    found = {name: result for name, result in results.items() if result is not None}
    if lost := [name for name in results if name not in found]:
        where = f"nothing of them is in {folder}: workers must share that folder"
        raise InputError(f"workers: {workers!r} has run {', '.join(lost)}, but {where}")
    return found


def _refuse_to_replace(units: Sequence[Unit], folder: Path) -> None:
    """Raise StaleUnits if `folder` already has something under the name of a unit."""
    if stale := [unit.name for unit in units if (folder / f"{unit.name}.json").exists()]:
        raise StaleUnits(
            f"{len(stale)} units ({stale[0]!r}, ...) were trained with other code or parameters "
            "than now"
        )


def _tell_stored(unit: Unit, copied: bool) -> None:
    """Report a unit that need not run: it is in its folder, or was copied there."""
    progress.tell(stored=unit.name, copied=copied, passes=unit.passes)


def _copied(unit: Unit, key: str, folder: Path, store: Store) -> bool:
    """Copy the unit from the store into `folder`, and return whether it was there."""
    stored = store.get(key)
    if stored is None:
        return False
    stored.copy_to(folder, unit.name, unit.arguments)
    _tell_stored(unit, copied=True)
    return True


def _train(
    units: Sequence[Unit], keys: Mapping[str, str], folder: Path, workers: int | str
) -> None:
    """Run units, in processes or on a cluster, until all are stored in `folder`."""
    if not units:
        return
    instruction_set.warn_if_native()
    if workers == 1 or (len(units) == 1 and isinstance(workers, int)):
        for unit in units:
            _perform(unit, keys[unit.name], folder, progress.listener())
        return
        # Long units first, so that no worker starts one at the very end.
    longest_first = sorted(units, key=lambda unit: -unit.passes)
    if isinstance(workers, int):
        _in_processes(longest_first, keys, folder, workers)
    else:
        _on_cluster(longest_first, keys, folder, workers)


@dataclass(frozen=True)
class Survey:
    """What a run of a study would do, as far as stored results show."""

    reused: tuple[Unit, ...]
    missing: tuple[Unit, ...]
    """Units to train, each once; more may follow from their results."""


def survey(phases: Phases, store: Store, made: Made | None = None) -> Survey:
    """Go through the phases of a study for as long as every unit of a phase is stored.

    Keys are those of this machine, or those for what the units were `made` with on another.
    """
    reused: list[Unit] = []
    units = next(phases)
    while True:
        keys = {unit.name: unit.key_of(made) for unit in units}
        found = {unit.name: store.get(keys[unit.name]) for unit in units}
        missing = {keys[unit.name]: unit for unit in units if found[unit.name] is None}
        reused += [unit for unit in units if found[unit.name] is not None]
        if missing:
            return Survey(tuple(reused), tuple(missing.values()))
        results = {name: stored.result() for name, stored in found.items() if stored is not None}
        try:
            units = phases.send(results)
        except StopIteration:
            return Survey(tuple(reused), ())


# ---------------------------------------------------------------- processes on this machine


def _in_processes(
    units: Sequence[Unit], keys: Mapping[str, str], folder: Path, workers: int
) -> None:
    """Run units in processes on this machine.

    If a process dies (killed, out of memory), its pool is lost. Each unit that was running then
    gets a pool of its own; if it dies again, this is reported once all others are stored.
    """
    work, listener = delayed(_work), progress.listener()
    tasks = {unit.name: work(unit, keys[unit.name], folder, listener) for unit in units}
    marks = {unit.name: _mark(folder, unit) for unit in units}
    for mark in marks.values():  # left by a run that was killed
        mark.unlink(missing_ok=True)
    pool = partial(
        Parallel, backend="loky", batch_size=1,
        initializer=_end_with_parent, initargs=(os.getpid(),),
    )  # fmt: skip
    pending, dead = list(tasks), []
    while pending:
        try:
            pool(n_jobs=workers)(tasks[name] for name in pending)
            break
        except TerminatedWorkerError:
            suspects = [name for name in pending if marks[name].exists()]
            if not suspects:
                raise
            dead += [name for name in suspects if not _survives(pool, tasks[name])]
            done = {name for name in pending if load_result(folder, name, keys[name])}
            pending = [name for name in pending if name not in {*suspects, *done}]
    for mark in marks.values():
        mark.unlink(missing_ok=True)
    if dead:
        raise UnitFailed(
            f"unit {', '.join(dead)} failed: the process died twice, the second time with the "
            "machine to itself (killed, or out of memory); all other units are stored"
        )


def _survives(pool: Callable[..., Parallel], task: Any) -> bool:
    """Run one task in a pool of its own; return whether its process survived."""
    try:
        pool(n_jobs=2)([task])  # with n_jobs=1, joblib would run it in this process
    except TerminatedWorkerError:
        return False
    return True


def _mark(folder: Path, unit: Unit) -> Path:
    """Return a file that exists while a process works on the unit."""
    return folder / f".{unit.name.replace('/', '~')}.running"


def _perform(unit: Unit, key: str, folder: Path, listener: Path | None) -> None:
    progress.listen_to(listener)
    progress.begin(unit.name)
    started = time.monotonic()
    try:
        with patterns.collected() as trained:
            result = unit.work(**unit.arguments)
        result = with_origin(result, unit.name, folder, unit.arguments)
        save_result(folder, unit.name, key, result, trained)
    except InputError as error:
        raise type(error)(f"{_place_in(unit)}: {error}") from error
    except Exception as error:
        raise UnitFailed(f"unit {unit.name} failed: {type(error).__name__}: {error}") from error
    progress.label()
    progress.tell(seconds=round(time.monotonic() - started, 3), planned=unit.passes)
    progress.begin()


def _place_in(unit: Unit) -> str:
    """Describe the unit, its seed, and how far the work in it has come."""
    seed = {"seed": unit.arguments["seed"]} if "seed" in unit.arguments else {}
    facts = [f"{name} {value}" for name, value in (seed | progress.labelled()).items()]
    return ", ".join([f"unit {unit.name}", *facts])


def _work(unit: Unit, key: str, folder: Path, listener: Path | None) -> None:
    """Call `_perform` in a worker process, with a mark for its parent while it runs."""
    mark = _mark(folder, unit)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    _perform(unit, key, folder, listener)
    mark.unlink()


def _end_with_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it, even if it was killed.

    Otherwise an orphaned process would go on training, and write next to the run that resumes the
    work. The parent passes its own process number, since it may end before its worker has started.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


# ---------------------------------------------------------------- a cluster


def _on_cluster(units: Sequence[Unit], keys: Mapping[str, str], folder: Path, address: str) -> None:
    """Run units on the workers of a Dask scheduler; another worker redoes a lost worker's units."""
    listener = progress.listener()
    with _connected(address) as client:
        from distributed import as_completed

        tasks = {
            client.submit(_perform, unit, keys[unit.name], folder, listener, pure=False): unit.name
            for unit in units
        }
        try:
            for task in as_completed(tasks):
                _check(task, tasks[task])
        finally:
            client.cancel(list(tasks))  # the rest of a run that failed or was interrupted


def _check(task: Any, name: str) -> None:
    """Raise the error of a task on a cluster, or of the worker that could not run it."""
    try:
        task.result()
    except (InputError, UnitFailed):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UnitFailed(f"unit {name} failed: {reason}") from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Yield a client of the scheduler at `address`.

    InputError if there is no scheduler, or if its workers would run two units in one process (a
    unit sets threads and determinism for its whole process).
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            f"workers: {address!r} needs Dask: pip install 'ticketlab[dask]'"
        ) from None
    try:
        client = Client(address.removeprefix(CLUSTER), timeout="10s", set_as_default=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"workers: no scheduler at {address!r} ({reason})") from None
    with client:
        threads = set(client.nthreads().values())
        if threads != {1}:
            have = f"some with {max(threads)}" if threads else "none"
            raise InputError(
                f"workers: {address!r} has {have}, allowed are workers of one thread "
                "(dask worker --nthreads 1)"
            )
        check_instruction_sets(address, client.run(instruction_set.current))
        yield client


def check_instruction_sets(address: str, workers: Mapping[str, InstructionSet]) -> None:
    """Raise InputError if a worker uses another instruction set than this process."""
    here = instruction_set.current()
    if other := sorted(worker for worker, there in workers.items() if there != here):
        raise InputError(
            f"workers: {address!r} has workers that are {workers[other[0]]} where this "
            f"process is {here}, so results would differ ({', '.join(other)}); start them with "
            "`ticketlab pinned dask worker ...`"
        )


def at_once(workers: int | str) -> int:
    """Return how many units run at the same time: processes here, or workers of a scheduler."""
    if isinstance(workers, int):
        return workers
    with _connected(workers) as client:
        return len(client.nthreads())


def expected_passes(units: Sequence[Unit]) -> float:
    """Return the planned work of the units, in image passes."""
    return sum(unit.passes for unit in units)
