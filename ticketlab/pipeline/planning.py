"""Before a run: which stages will run, how much training that is, and about how long it takes here.

The minutes are an estimate: each paper's own nets are trained for a moment on this device, and the
image passes its study is expected to take are divided by that speed and by the parallel workers.
"""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch

from ticketlab import gpu, models
from ticketlab.data.prepared import prepared_path
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.data.sources import EMBEDDED, data_root
from ticketlab.gpu import Runtime
from ticketlab.many import stacks
from ticketlab.models import ModelSpec
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.compare.params import Bed, CompareParams
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek import units as plant_units
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal
from ticketlab.papers.plant_n_seek.conv import edge_popup as conv_popup
from ticketlab.papers.plant_n_seek.conv import units as conv_units
from ticketlab.papers.plant_n_seek.params import Case, Grid, PlantParams, cases
from ticketlab.papers.prac import study as prac_study
from ticketlab.papers.prac.params import PracParams
from ticketlab.pipeline import params
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pipeline.repository import out_of_date, readers, stages_of
from ticketlab.spec import InputError, Spec
from ticketlab.study import runner
from ticketlab.training.loop import Net, Recipe, Step, train

if TYPE_CHECKING:
    from dvc.repo import Repo

PROBE_SECONDS = 3.0
"""For all papers of a plan together."""
BESIDE = {"prac": 1.45}
"""Seconds of a study over those of its training passes, where that is not about 1: PrAC looks at
its whole training split again and again (measured on the desk study)."""
CHUNK = 20
"""Optimiser steps between two looks at the clock."""

# ---------------------------------------------------------------- which stages run

State = Literal["runs", "may follow", "up to date", "not in studies"]


def states(repo: "Repo", study: str) -> pd.DataFrame:
    """One row a stage of the study: its state, and why. Readers of what runs may follow."""
    stale, listed = out_of_date(repo), stages_of(repo, study)
    following = readers(repo, stale.keys())
    rows: list[tuple[str, State, str]] = []
    for name in listed:
        if name in stale:
            rows.append((name, "runs", ", ".join(stale[name][:3])))
        elif name in following:
            rows.append((name, "may follow", "reads what runs"))
        else:
            rows.append((name, "up to date", ""))
    if not listed:
        rows.append((f"*@{study}", "not in studies", f"`make study STUDY={study}` runs it"))
    return pd.DataFrame(rows, columns=["stage", "state", "why"])


def to_train(found: pd.DataFrame, study: str, papers: Iterable[str]) -> list[str]:
    """The papers whose training runs or may follow."""
    idle = set(found.stage[found.state == "up to date"])
    return [paper for paper in papers if f"{paper}_train@{study}" not in idle]


def check_data(values: Spec) -> None:
    """InputError for a data set that would first have to be fetched."""
    for name in params.data_names(values):
        near = prepared_path(name).exists() or (data_root() / f"{name}.npz").exists()
        if name not in EMBEDDED and not near:
            raise InputError(f"data: {name} is not here, run `ticketlab prepare STUDY` first")


# ---------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class Job:
    """A part of a paper's study that one net does: its image passes, and how fast it trains."""

    net: str
    passes: float
    speed: Callable[[float], float]
    """Image passes a second of one process, measured for so many seconds."""
    training: float
    """Image passes of one training."""
    ticket: int
    """Bytes of one ticket."""


@dataclass(frozen=True)
class Plan:
    """One paper of a study, planned."""

    paper: str
    study: str
    units: int
    """Units that are known before anything has run; others follow from their results."""
    follow: bool
    """Whether further units follow."""
    trainings: float
    passes: float
    seconds: float
    workers: int
    bytes: float
    device: str


def plan(study: str, paper: str, values: Spec, seconds: float) -> Plan:
    """How much work a paper's study is, its speed measured for about `seconds`."""
    check_data(values)
    found = jobs(values)
    runtime: gpu.Runtime = values.runtime  # type: ignore[attr-defined]
    workers = runner.at_once(gpu.worker_count(runtime))
    spent = sum(job.passes / job.speed(seconds / len(found)) for job in found)
    spent *= BESIDE.get(paper, 1.0)
    trainings = sum(job.passes / job.training for job in found)
    units, follow = known_units(values)
    tickets = sum(job.passes / job.training * job.ticket for job in found)
    passes = PAPERS[paper].expected_passes(values)
    device = gpu.describe(gpu.choose_device(runtime.device))
    return Plan(
        paper, study, units, follow, trainings, passes, spent / workers, workers, tickets, device
    )


def known_units(values: Spec) -> tuple[int, bool]:
    """Units that a study starts with, and whether others follow from what they find."""
    if isinstance(values, ColtParams):
        return len(colt_study.search_units(values)), True
    if isinstance(values, PracParams):
        return len(prac_study.first_searches(values)), True
    if isinstance(values, RstParams):
        swapped = any(
            "rst-lth-mask" in case.arms_at(level) for case in values.cases for level in case.levels
        )
        return len(dlth_study.first_units(values)), swapped
    if isinstance(values, CompareParams):
        return len(compare_study.method_units(values)), True
    assert isinstance(values, PlantParams)
    return len(plant_study.units(values)), False


def jobs(values: Spec) -> list[Job]:
    """The nets that a study trains, with their shares of its image passes."""
    if isinstance(values, ColtParams):
        passes = colt_study.expected_passes(values)
        return [image_job(values.runtime, values.model, values.data, values.recipe, passes)]
    if isinstance(values, PracParams):
        main = prac_study.expected_passes(values.model_copy(update={"others": ()}))
        found = [image_job(values.runtime, values.model, values.data, values.recipe, main)]
        for other in values.others:
            alone = values.model_copy(update={"others": (other,)})
            share = prac_study.expected_passes(alone) - main
            found.append(image_job(values.runtime, other.model, values.data, other.recipe, share))
        return found
    if isinstance(values, RstParams):
        return [_rst_job(values, place) for place in range(len(values.cases))]
    if isinstance(values, CompareParams):
        return [_bed_job(values, bed) for bed in values.beds]
    assert isinstance(values, PlantParams)
    return [*stack_jobs(values), *conv_jobs(values)]


def _bed_job(values: CompareParams, bed: Bed) -> Job:
    alone = values.model_copy(update={"beds": (bed,)})
    passes = compare_study.expected_passes(alone)
    return image_job(values.runtime, bed.model, values.data, bed.recipe, passes)


def _rst_job(values: RstParams, place: int) -> Job:
    case = values.cases[place]
    units = dlth_study.first_units(values)
    passes = sum(unit.passes for unit in units if unit.name.startswith(f"{case.name}/"))
    if not place:  # the swap test, which has no units yet
        passes += dlth_study.expected_passes(values) - sum(unit.passes for unit in units)
    return image_job(values.runtime, case.model, case.data, case.finetune, passes)


# ---------------------------------------------------------------- how fast it is here


def image_job(
    runtime: Runtime,
    model: ModelSpec,
    images: DataSpec,
    recipe: Recipe,
    passes: float,
    speed: Callable[[Net, DataSet, Recipe, float], float] | None = None,
) -> Job:
    """A net on images; `speed` measures it for so many seconds, as `image_speed` does."""
    data = load(images, gpu.start(runtime))
    net = models.build(model, data.shape, data.classes, 0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())

    def measure(seconds: float) -> float:
        return (speed or image_speed)(Net(net, runtime), data, recipe, seconds)

    return Job(model.name, passes, measure, recipe.passes(len(data.train)), size)


def image_speed(net: Net, data: DataSet, recipe: Recipe, seconds: float) -> float:
    """Image passes a second while training a net for about `seconds`, after a short warm-up."""

    def chunk(steps: int) -> int:
        train(net, data.train, data, recipe, seed=("plan",), until=Step(steps, "it"))
        return steps * min(recipe.batch, len(data.train))

    most = min(CHUNK, recipe.iterations(len(data.train))[1])
    return _speed(chunk, net.device, seconds, most)


def popup_speed(net: Net, data: DataSet, recipe: Recipe, seconds: float) -> float:
    """Image passes a second of edge-popup in a net."""

    def chunk(steps: int) -> int:
        short = recipe.model_copy(update={"length": Step(steps, "it")})
        everything = conv_units.all_of(net)
        conv_popup.pop(net, everything, Goal(0.5, False), data.train, data, short, ("plan",))
        return steps * min(recipe.batch, len(data.train))

    return _speed(chunk, net.device, seconds, CHUNK)


def conv_jobs(values: PlantParams) -> list[Job]:
    """Plant 'n' Seek's convolutional part: the ticket's own net, the mother, edge-popup in it."""
    conv, passes = values.conv, plant_study.conv_passes(values)
    if conv is None:
        return []
    job = partial(image_job, values.runtime)
    found = [
        job(conv.ticket_model, conv.data, conv.recipe, passes["ticket"]),
        job(conv.model, conv.data, conv.recipe, passes["mother"]),
        job(conv.model, conv.data, conv.popup_recipe, passes["popup"], popup_speed),
    ]
    return [job for job in found if job.passes]


def stack_jobs(values: PlantParams) -> list[Job]:
    """Plant 'n' Seek's stacked nets, a job for each depth and width."""
    passes: dict[tuple[int, int], float] = defaultdict(float)
    for unit in plant_study.units(values):
        case = unit.arguments["case"]
        passes[case.depth, case.width] += unit.passes
    first: dict[tuple[int, int], tuple[Grid, Case]] = {}
    for grid in values.grids:
        for case in cases(grid):
            first.setdefault((case.depth, case.width), (grid, case))
    return [stack_job(values, *first[shape], share) for shape, share in passes.items()]


def stack_job(values: PlantParams, grid: Grid, case: Case, passes: float) -> Job:
    """A stack of nets as large as one cell of a grid trains at once."""
    bench = plant_units.Bench(values, case, values.seeds[0])
    nets = max(1, len(grid.singleshot)) * len(grid.densities)
    start, mask = bench.start("planted"), bench.dense()
    (x, y), fit = bench.train, values.fit.model_copy(update={"epochs": 1})

    def chunk(steps: int) -> int:
        few = values.fit.batch * steps
        stack = [start] * nets, [mask] * nets
        stacks.train(*stack, x[:few], y[:few], bench.task.kind, fit, ("plan",))
        return nets * len(x[:few])

    def speed(seconds: float) -> float:
        return _speed(chunk, bench.device, seconds, CHUNK)

    one = float(values.train * values.fit.epochs)
    name = f"planted net, {case.depth} layers of {case.width}"
    return Job(name, passes, speed, one, mask.total // 8 + 2000)


def _speed(chunk: Callable[[int], int], device: torch.device, seconds: float, most: int) -> float:
    """Passes a second of repeated chunks of up to `most` steps; the first one only warms up.

    Chunks grow from one step, so that a net of seconds a step is not probed for minutes.
    """
    chunk(1)
    done, spent, steps = 0, 0.0, 1
    while spent < seconds or not done:
        with gpu.Stopwatch(device) as watch:
            count = chunk(steps)
        if steps < most and watch.seconds < seconds / 4:
            steps = min(most, 4 * steps)  # a short chunk is mostly its own start: not counted
        else:
            done, spent = done + count, spent + watch.seconds
    return done / spent


# ---------------------------------------------------------------- to print


def table(plans: Sequence[Plan]) -> pd.DataFrame:
    """One row a paper: units, trainings, passes in millions, minutes, most megabytes of tickets."""
    rows = [
        (
            one.paper,
            f"{one.units}{' and more' if one.follow else ''}",
            round(one.trainings),
            f"{one.passes / 1e6:.1f} M",
            f"{one.seconds / 60:.1f}",
            f"{one.bytes / 1e6:.0f} MB",
        )
        for one in plans
    ]
    columns = ["paper", "units", "trainings", "image passes", "minutes", "tickets at most"]
    return pd.DataFrame(rows, columns=columns)


def summary(plans: Sequence[Plan], root: Path) -> str:
    """The whole in one paragraph, with what the estimate stands on."""
    minutes, size = sum(one.seconds for one in plans) / 60, sum(one.bytes for one in plans)
    workers = " or ".join(sorted({str(one.workers) for one in plans}))
    devices = " or ".join(sorted({one.device for one in plans}))
    return (
        f"training: about {minutes:.0f} minutes on {devices} with {workers} at once (image passes "
        f"over the speed of a {PROBE_SECONDS:g}-second probe; notebooks not counted)\n"
        f"disk: at most {size / 1e6:.0f} MB of tickets here and as much in DVC's cache, "
        f"{shutil.disk_usage(root).free / 1e9:.0f} GB are free"
    )
