"""The stages that a `dvc repro` is expected to run, and how long each takes on this machine.

A unit is expected to take as long as its arm did here or in the published results. Without such a
time, its image passes are divided by a speed that is measured briefly.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ticketlab import gpu
from ticketlab.data import sets
from ticketlab.pipeline import eta, params, planning, repository, timings
from ticketlab.pipeline.eta import Stage
from ticketlab.pipeline.params import Run
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT, Spec
from ticketlab.study import results, runner
from ticketlab.study.runner import Unit
from ticketlab.study.store import Store

if TYPE_CHECKING:
    from dvc.repo import Repo

KINDS = ("data", "train", "read")
"""The stages of a run, named as in dvc.yaml: `train@desk-colt`."""
PAGE = 30.0
"""Assumed seconds of a notebook that has never been timed."""
PROBE = 1.0
"""Seconds for which the nets of a paper are trained to measure their speed."""


def stages(
    repo: "Repo", runs: Sequence[Run], targets: Collection[str], force: bool, store: Store
) -> list[Stage]:
    """Return the stages that `dvc repro TARGETS` goes through, with the expected work of each."""
    asked = repository.needed(repo, targets)
    stale = repository.out_of_date(repo)
    due = asked if force else asked & (set(stale) | repository.readers(repo, stale.keys()))
    found = [Stage(repository.CODE)]
    for run in runs:
        for kind in KINDS:
            if (name := f"{kind}@{run.name}") in asked:
                found.append(expected(name, run, store) if name in due else up_to_date(name))
    return found


def up_to_date(name: str) -> Stage:
    """Return a stage that DVC is expected to skip."""
    return Stage(name, state="up to date")


def expected(name: str, run: Run, store: Store) -> Stage:
    """Return a stage that runs, with its units and expected seconds."""
    kind = name.partition("@")[0]
    if kind == "train":
        return training(name, run, params.load_paper(run.study, run.paper), store)
    return Stage(name, page_seconds(run) if kind == "read" else 0.0)


def page_seconds(run: Run) -> float:
    """Return the expected seconds of a run's notebook."""
    arms = timings.known(ROOT / "results" / run.study, run.paper)
    return arms[timings.PAGE].seconds if timings.PAGE in arms else PAGE


def training(name: str, run: Run, values: Spec, store: Store) -> Stage:
    """Return a training stage: its stored units, and the units to train."""
    for data in params.data_names(values):
        sets.prepare(data)
    paper = PAPERS[run.paper]
    made = results.made_elsewhere(results.runs_folder(run.study, run.paper))
    survey = runner.survey(paper.phases(values), store, made)
    stored = {unit.name for unit in survey.reused}
    planned = paper.planned(values) if survey.missing else []
    left = [[unit for unit in phase if unit.name not in stored] for phase in planned]
    seconds = unit_seconds(run, values, left)
    runtime: gpu.Runtime = values.runtime  # type: ignore[attr-defined]
    workers = runner.at_once(gpu.worker_count(runtime, params.load_workers()))
    return Stage(
        name,
        work=sum(makespan(phase, seconds, workers) for phase in left),
        units={
            unit.name: eta.Unit(seconds[unit.name], unit.passes) for phase in left for unit in phase
        },
        stored=stored,
    )


def unit_seconds(run: Run, values: Spec, phases: Iterable[Sequence[Unit]]) -> dict[str, float]:
    """Return the expected seconds of each unit in one process."""
    units = [unit for phase in phases for unit in phase]
    arms = timings.known(ROOT / "results" / run.study, run.paper)
    timed = timings.predicted(units, arms)
    rest = [unit for unit in units if unit.name not in timed]
    if not rest:
        return timed
    passes = sum(unit.passes for unit in units if unit.name in timed)
    pace = sum(timed.values()) / passes if passes else probed_pace(run.paper, values)
    return timed | {unit.name: pace * unit.passes for unit in rest}


def probed_pace(paper: str, values: Spec) -> float:
    """Measure the seconds per image pass of one process, on the nets of the study."""
    known = PAPERS[paper]
    jobs = known.jobs(values)
    passes = sum(job.passes for job in jobs)
    return planning.process_seconds(jobs, known.beside, PROBE) / passes if passes else 0.0


def makespan(units: Sequence[Unit], seconds: Mapping[str, float], workers: int) -> float:
    """Return wall-clock seconds until all units are done, the longest begun first (`runner`)."""
    busy = [0.0] * workers
    for unit in sorted(units, key=lambda unit: -unit.passes):
        heapq.heappush(busy, heapq.heappop(busy) + seconds[unit.name])
    return max(busy)


def words(found: Sequence[Stage]) -> str:
    """Summarise in one line: stages, units, minutes."""
    due = [stage for stage in found if stage.state != "up to date"]
    if [stage.name for stage in due] == [repository.CODE]:
        return "repro: all stages are up to date"
    units, stored = sum(len(one.units) for one in due), sum(len(one.stored) for one in due)
    minutes = max(1, round(sum(stage.expected for stage in due) / 60))
    return (
        f"repro: {len(due)} stages to run, {len(found) - len(due)} up to date; {units} units to "
        f"train, {stored} reused; about {minutes} minute{'s' * (minutes > 1)}"
    )
