"""Where the CPU time of a study goes: `python -m benchmarks profile beds [PAPER ...]`.

With `--before FILE`, the profile of another commit on this machine, the page lists the changes.

Units run one after another in this process. The functions that do the work are wrapped, and each
is charged the CPU time that it spends itself, without calls of other wrapped functions.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from ticketlab import gpu, instruction_set
from ticketlab.data import sets
from ticketlab.files import read_json, write_atomically, write_json
from ticketlab.many import lanes, stacks, train_many
from ticketlab.papers.dlth import algorithm as dlth
from ticketlab.papers.plant_n_seek.algorithm import edge_popup
from ticketlab.papers.plant_n_seek.conv import edge_popup as conv_popup
from ticketlab.papers.prac import algorithm as prac
from ticketlab.papers.prac import subsets
from ticketlab.pipeline.params import load_study
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pruning import criteria, masks, patterns, saliency
from ticketlab.spec import ROOT, InputError
from ticketlab.study import results, runner
from ticketlab.study.runner import Unit
from ticketlab.training import evaluation, loop, observers, optimizers, passes

Clock = Callable[[], float]

FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "loading data": (sets.load,),
    "loop, meter, rate": (loop.train,),
    "evaluation": (evaluation.predict,),
    "masks and scores": (
        saliency.prune_to, saliency.prune_model, criteria.magnitude, masks.prune, masks.keep_top,
        masks.keep_top_layerwise, patterns.confirm,
    ),
    "MLPs in one call": (train_many.train_many, lanes.train),
    "planted MLPs": (stacks.train,),
    "edge-popup": (edge_popup.edge_popup, conv_popup.pop),
    "keys and storing": (results.unit_key, results.save_result),
}  # fmt: skip
METHODS: dict[str, tuple[tuple[type, tuple[str, ...]], ...]] = {
    "forward and backward": tuple(
        (kind, ("descend",))
        for kind in (
            passes.PlainPass, passes.WrittenPass, passes.SparsePass, passes.SparseConvPass,
        )
    ),
    "gather and augmentation": ((sets.Batches, ("__call__",)),),
    "optimiser": ((optimizers.Sgd, ("step",)), (optimizers.Adam, ("step",))),
    "observers": tuple(
        (kind, ("before_step", "after_step", "after_epoch"))
        for kind in (
            observers.Snapshot, observers.KeepBest, observers.Track, subsets.Correctness,
            subsets.Difficulty, prac.MaskWatch, dlth.GrowingPenalty, dlth.Watch,
        )
    ),
}  # fmt: skip
REST = "all else"


class Shares:
    """CPU seconds by kind of work."""

    def __init__(self, clock: Clock = time.process_time) -> None:
        self.clock, self.seconds = clock, defaultdict[str, float](float)
        self.stack, self.since = [REST], clock()

    @contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Charge the time of the block to `what`, except that of inner blocks."""
        self._charge()
        self.stack.append(what)
        try:
            yield
        finally:
            self._charge()
            self.stack.pop()

    def _charge(self) -> None:
        now = self.clock()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def wrapped(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with its own time charged to `what`."""

        @wraps(function)
        def run(*arguments: Any, **more: Any) -> Any:
            with self.spent_on(what):
                return function(*arguments, **more)

        return run


@contextmanager
def charged(shares: Shares) -> Iterator[None]:
    """Charge all functions named above while the block runs."""
    undo: list[tuple[Any, str, Any]] = []

    def put(holder: Any, name: str, new: Any) -> None:
        undo.append((holder, name, getattr(holder, name)))
        setattr(holder, name, new)

    try:
        for what, functions in FUNCTIONS.items():
            for function in functions:
                for holder, name in holders(function):
                    put(holder, name, shares.wrapped(what, function))
        for what, kinds in METHODS.items():
            for kind, names in kinds:
                for name in names:
                    put(kind, name, shares.wrapped(what, getattr(kind, name)))
        yield
    finally:
        for holder, name, old in reversed(undo):
            setattr(holder, name, old)


def holders(function: Callable[..., Any]) -> list[tuple[Any, str]]:
    """Every module of the package that has the function, with its name there."""
    ours = [module for name, module in sys.modules.items() if name.startswith("ticketlab")]
    return [(m, n) for m in ours for n, value in list(vars(m).items()) if value is function]


def profile(study: str, paper: str) -> dict[str, Any]:
    """CPU seconds of one paper's units in a study, by what they were spent on and by unit."""
    known, values = PAPERS[paper], load_study(study)[paper]
    shares, units = Shares(), dict[str, float]()

    def timed(unit: Unit, *more: Any) -> None:
        started = time.process_time()
        perform(unit, *more)
        units[unit.name] = time.process_time() - started

    perform = runner._perform
    setattr(runner, "_perform", timed)  # noqa: B010
    try:
        with tempfile.TemporaryDirectory() as folder, charged(shares), shares.spent_on(REST):
            runner.run_study(known.phases(values), Path(folder))
    finally:
        setattr(runner, "_perform", perform)  # noqa: B010
    seeds = len(values.seeds)  # type: ignore[attr-defined]
    return {"paper": paper, "seeds": seeds, "seconds": dict(shares.seconds), "units": units}


def idle_share(units: dict[str, float], workers: int) -> float:
    """Share of the workers' time that they wait at the end, units taken longest first."""
    free = [0.0] * workers
    for seconds in sorted(units.values(), reverse=True):
        free[free.index(min(free))] += seconds
    return 1 - sum(free) / (workers * max(free)) if max(free) else 0.0


# ---------------------------------------------------------------- the page


def page(study: str, found: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The shares as a Markdown page: a table of papers and kinds of work, and the longest units."""
    kinds = sorted({kind for one in found for kind in one["seconds"]})
    totals = {one["paper"]: sum(one["seconds"].values()) for one in found}
    kinds.sort(key=lambda kind: -sum(one["seconds"].get(kind, 0) for one in found))
    names = [one["paper"] for one in found]
    lines = [
        f"# Where the CPU time of the study `{study}` goes", "",
        f"Made by `ticketlab pinned python -m benchmarks profile {study}` on "
        f"{facts.get('processor', 'a CPU')}, one process, one thread, instruction set "
        f"{instruction_set.current()}. CPU-seconds per seed; in brackets the share of the paper.",
        "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}",
    ]  # fmt: skip
    for kind in kinds:
        cells = [_cell(one, kind, totals[one["paper"]]) for one in found]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    whole = [f"{totals[one['paper']] / one['seeds']:.1f}" for one in found]
    lines.append(f"| **all** | {' | '.join(whole)} |")
    idle = [f"{100 * idle_share(one['units'], 2):.0f} %" for one in found]
    lines += [f"| two workers wait at the end | {' | '.join(idle)} |", ""]
    lines += ["## The longest units", ""]
    lines += ["| paper | unit | CPU-seconds |", "|---|---|---|"]
    for one in found:
        longest = sorted(one["units"].items(), key=lambda pair: -pair[1])[:4]
        lines += [f"| {one['paper']} | {name} | {seconds:.1f} |" for name, seconds in longest]
    return "\n".join([*lines, ""])


def change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """CPU-seconds per seed of the papers in both profiles, as a Markdown section.

    InputError if they were not made on one machine.
    """
    here, there = now["machine"]["processor"], before["machine"]["processor"]
    if here != there:
        raise InputError(f"before: made on {there!r}, allowed is {here!r}, where this one is made")
    each = [{one["paper"]: _per_seed(one) for one in made["papers"]} for made in (before, now)]
    both = [name for name in each[1] if name in each[0]]
    rows = [(name, each[0][name], each[1][name]) for name in both]
    rows.append(("**all**", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = [
        "## Before and after", "",
        "CPU-seconds per seed, both with this command on this machine; load averages of a minute "
        f"at the ends of the papers: {_loads(before)} before, {_loads(now)} after.", "",
        f"| | before ({before['commit']}) | after ({now['commit']}) | times faster |",
        "|---|---|---|---|",
        *(f"| {name} | {old:.0f} | {new:.0f} | {old / new:.2f} |" for name, old, new in rows), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _per_seed(one: dict[str, Any]) -> float:
    return float(sum(one["seconds"].values()) / one["seeds"])


def _loads(made: dict[str, Any]) -> str:
    loads = [one["load"] for one in made["papers"] if "load" in one]
    return f"{min(loads):.1f} to {max(loads):.1f}" if loads else "not recorded"


def _cell(one: dict[str, Any], kind: str, total: float) -> str:
    seconds = one["seconds"].get(kind, 0.0)
    return f"{seconds / one['seeds']:.1f} ({100 * seconds / total:.0f} %)" if seconds else ""


def commit() -> str:
    """The commit that is checked out, shortened."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write(study: str, papers: list[str], folder: Path, before: Path | None = None) -> Path:
    """Profile papers of a study, all by default, and write the page and its numbers."""
    chosen = papers or [name for name in PAPERS if name in load_study(study)]
    if unknown := sorted(set(chosen) - set(PAPERS)):
        raise InputError(f"paper: {unknown[0]!r} is unknown, allowed: {', '.join(PAPERS)}")
    if before is not None and not before.exists():
        raise InputError(f"before: {before} does not exist, allowed is the JSON of a profile")
    now: dict[str, Any] = {"machine": machine(gpu.choose_device("cpu")), "commit": commit()}
    now["papers"] = []
    for paper in chosen:
        found = profile(study, paper) | {"load": os.getloadavg()[0]}
        now["papers"].append(found)
        print(f"{paper}: {_per_seed(found):.0f} CPU-seconds per seed", flush=True)
    text = page(study, now["papers"], now["machine"])
    if before is not None:
        text += "\n" + change(read_json(before), now)
    write_json(folder / f"profile-{study}.json", now)
    target = folder / f"profile-{study}.md"
    write_atomically(target, text.encode())
    return target
