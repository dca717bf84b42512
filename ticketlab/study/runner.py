"""Independent units of work (seed x arm) in parallel processes, stored as they finish."""

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

    The result may depend on nothing else, so that it is the same in any process, in any order.
    `passes` is the expected number of image passes, for the time left.
    """

    name: str
    work: Callable[..., Result]
    arguments: Mapping[str, Any]
    passes: float = 0.0

    @property
    def key(self) -> str:
        """What decides the unit's result; units of equal keys are trained once."""
        return self.key_of(None)

    def key_of(self, made: Made | None) -> str:
        """Its key where it is `made` with something else than this machine has."""
        return unit_key(self.work, self.arguments, made)


Phases = Generator[list[Unit], dict[str, Result], dict[str, Result]]
"""A study: yields lists of independent units, is sent their results by name, returns all."""


class UnitFailed(RuntimeError):
    """A unit raised an error; the message names the unit, finished units are kept."""


class StaleUnits(InputError):
    """A folder has units of the same names that were made with other code or parameters."""


def run_study(
    phases: Phases,
    folder: Path,
    workers: int | str = 1,
    store: Store = EMPTY,
    renew: bool = True,
) -> dict[str, Result]:
    """Results of all units of a study by name, run phase by phase as `run` does."""
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
    """Results of all units by name, in the given order, whatever the number of workers.

    Each result is stored in `folder` by the worker that made it. A unit is not run again whose key
    is there already or in `store`, and of units with equal keys one is run. `workers` is a number
    of processes here, or the address of a Dask scheduler ("dask:tcp://HOST:PORT") whose workers
    share `folder`. Without `renew`, StaleUnits if a unit in `folder` would have to be replaced.

    In a folder of units that were made elsewhere none is run; InputError if one is missing.
    """
    made = made_elsewhere(folder)
    # Now: the source may be edited meanwhile.
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
    """StaleUnits if `folder` has something under the name of one of the units."""
    if stale := [unit.name for unit in units if (folder / f"{unit.name}.json").exists()]:
        raise StaleUnits(
            f"{len(stale)} units ({stale[0]!r}, ...) were trained with other code or parameters "
            "than now"
        )


def _tell_stored(unit: Unit, copied: bool) -> None:
    """Report a unit that need not run: it is in its folder, or was copied there."""
    progress.tell(stored=unit.name, copied=copied, passes=unit.passes)


def _copied(unit: Unit, key: str, folder: Path, store: Store) -> bool:
    """Copy the unit from the store into `folder` if it is there."""
    stored = store.get(key)
    if stored is None:
        return False
    stored.copy_to(folder, unit.name, unit.arguments)
    _tell_stored(unit, copied=True)
    return True


def _train(
    units: Sequence[Unit], keys: Mapping[str, str], folder: Path, workers: int | str
) -> None:
    """Run units here or elsewhere, until all are stored in `folder`."""
    if not units:
        return
    instruction_set.warn_if_native()
    if workers == 1 or (len(units) == 1 and isinstance(workers, int)):
        for unit in units:
            _perform(unit, keys[unit.name], folder, progress.listener())
        return
    # Long units first, so that no worker is left with one at the end.
    longest_first = sorted(units, key=lambda unit: -unit.passes)
    if isinstance(workers, int):
        _in_processes(longest_first, keys, folder, workers)
    else:
        _on_cluster(longest_first, keys, folder, workers)


@dataclass(frozen=True)
class Survey:
    """What a run of a study would do, as far as it can be seen from what is stored."""

    reused: tuple[Unit, ...]
    missing: tuple[Unit, ...]
    """Units to train, each once; further ones may follow from their results."""


def survey(phases: Phases, store: Store, made: Made | None = None) -> Survey:
    """Go through the phases of a study as long as every unit of one is stored.

    Their keys are those of this machine, or of what they were `made` with on another.
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


# ---------------------------------------------------------------- processes of this machine


def _in_processes(
    units: Sequence[Unit], keys: Mapping[str, str], folder: Path, workers: int
) -> None:
    """Units in processes of this machine.

    If one dies (killed, out of memory) its pool is lost. The units that were running then get a
    pool each to themselves; one that dies there too is reported when all others are stored.
    """
    work, listener = delayed(_work), progress.listener()
    tasks = {unit.name: work(unit, keys[unit.name], folder, listener) for unit in units}
    marks = {unit.name: _mark(folder, unit) for unit in units}
    for mark in marks.values():  # of a run that was killed
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
    """Run one task in a pool of its own; whether its process lived."""
    try:
        pool(n_jobs=2)([task])  # with 1, joblib would run it in this process
    except TerminatedWorkerError:
        return False
    return True


def _mark(folder: Path, unit: Unit) -> Path:
    """A file that is there while a process works on the unit."""
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
    """The unit, its seed, and where in it the work stands."""
    seed = {"seed": unit.arguments["seed"]} if "seed" in unit.arguments else {}
    facts = [f"{name} {value}" for name, value in (seed | progress.labelled()).items()]
    return ", ".join([f"unit {unit.name}", *facts])


def _work(unit: Unit, key: str, folder: Path, listener: Path | None) -> None:
    """`_perform` in a worker process, with a mark for its parent while it runs."""
    mark = _mark(folder, unit)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    _perform(unit, key, folder, listener)
    mark.unlink()


def _end_with_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end soon after it, even if it was killed outright.

    Otherwise an orphan would go on training, and write beside the run that takes up the work. The
    parent says who it is: it may be gone before its worker has started.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


# ---------------------------------------------------------------- a cluster


def _on_cluster(units: Sequence[Unit], keys: Mapping[str, str], folder: Path, address: str) -> None:
    """Units on the workers of a Dask scheduler; what a lost worker had begun, another takes up."""
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
            client.cancel(list(tasks))  # what is left of a run that failed or was interrupted


def _check(task: Any, name: str) -> None:
    """Raise what a task on a cluster has raised, or what kept its worker from running it."""
    try:
        task.result()
    except (InputError, UnitFailed):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UnitFailed(f"unit {name} failed: {reason}") from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`, InputError if there is none, or if its workers would
    run two units in one process (a unit chooses threads and determinism for the whole of it)."""
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
    """InputError if a worker computes with another instruction set than this process."""
    here = instruction_set.current()
    if other := sorted(worker for worker, there in workers.items() if there != here):
        raise InputError(
            f"workers: {address!r} has workers that are {workers[other[0]]} where this "
            f"process is {here}, so results would differ ({', '.join(other)}); start them with "
            "`ticketlab pinned dask worker ...`"
        )


def at_once(workers: int | str) -> int:
    """Units that run at the same time: processes here, or the workers of a scheduler."""
    if isinstance(workers, int):
        return workers
    with _connected(workers) as client:
        return len(client.nthreads())


def expected_passes(units: Sequence[Unit]) -> float:
    """Planned work of the units, in image passes."""
    return sum(unit.passes for unit in units)
