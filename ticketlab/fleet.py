"""Independent units of work (seed x arm) in parallel processes, stored as they finish."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from ticketlab import progress
from ticketlab.results import Result, content_key, load_result, save_result, with_origin
from ticketlab.spec import InputError


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
        """Changes with the function, its arguments, and the code behind results."""
        module = self.work.__module__.removeprefix("ticketlab.")
        return content_key(module, self.work.__qualname__, dict(self.arguments))


class UnitFailed(RuntimeError):
    """A unit raised an error; the message names the unit, finished units are kept."""


def run(units: Sequence[Unit], folder: Path, workers: int = 1) -> dict[str, Result]:
    """Results of all units by name, in the given order, whatever the number of workers.

    Each result is stored in `folder` by the worker that made it; a unit that is stored there
    already (same code, same arguments) is not run again.
    """
    keys = {unit.name: unit.key for unit in units}  # now: the source may be edited meanwhile
    done = {name: load_result(folder, name, key) for name, key in keys.items()}
    missing = [unit for unit in units if done[unit.name] is None]
    if workers == 1 or len(missing) == 1:
        for unit in missing:
            _perform(unit, keys[unit.name], folder, progress.listener())
    elif missing:
        # Long units first, so that no worker is left with one at the end.
        longest_first = sorted(missing, key=lambda unit: -unit.passes)
        listener = progress.listener()
        parallel = Parallel(n_jobs=workers, backend="loky", batch_size=1)
        parallel(delayed(_work)(unit, keys[unit.name], folder, listener) for unit in longest_first)
    results = {name: done[name] or load_result(folder, name, key) for name, key in keys.items()}
    return {name: result for name, result in results.items() if result is not None}


def _perform(unit: Unit, key: str, folder: Path, listener: Path | None) -> None:
    progress.listen_to(listener)
    started = time.monotonic()
    try:
        result = unit.work(**unit.arguments)
    except InputError:
        raise
    except Exception as error:
        raise UnitFailed(f"unit {unit.name} failed: {type(error).__name__}: {error}") from error
    save_result(folder, unit.name, key, with_origin(result, unit.name, folder, unit.arguments))
    progress.label()
    progress.tell(unit=unit.name, seconds=round(time.monotonic() - started, 3))


def _work(unit: Unit, key: str, folder: Path, listener: Path | None) -> None:
    """`_perform` in a worker process, which leaves Ctrl-C to its parent and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(os.getppid())
    _perform(unit, key, folder, listener)


@cache
def _end_with_parent(parent: int) -> None:
    """End this worker soon after its parent is gone, even if that was killed outright.

    Otherwise an orphan would go on training, and write beside the run that takes up the work.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def expected_passes(units: Sequence[Unit]) -> float:
    """Planned work of the units, in image passes."""
    return sum(unit.passes for unit in units)
