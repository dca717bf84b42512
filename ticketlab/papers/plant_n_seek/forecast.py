"""Forecast of a Plant 'n' Seek study: its stacked nets on planted tasks, and its convnets."""

from collections import defaultdict
from functools import partial

from ticketlab import gpu
from ticketlab.data.sets import DataSet
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal
from ticketlab.papers.plant_n_seek.conv import edge_popup
from ticketlab.papers.plant_n_seek.conv.units import all_of
from ticketlab.papers.plant_n_seek.params import Case, Grid, PlantParams, cases
from ticketlab.papers.plant_n_seek.study import conv_passes, units
from ticketlab.papers.plant_n_seek.units import PlantBench
from ticketlab.study.forecast import Job, image_job, measured_speed
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step


def jobs(params: PlantParams) -> list[Job]:
    """Return one job per depth and width of the stacked nets, and those of the conv part."""
    return [*stack_jobs(params), *conv_jobs(params)]


def popup_speed(net: Net, data: DataSet, recipe: Recipe, seconds: float) -> float:
    """Measure image passes per second of edge-popup in a net."""

    def chunk(steps: int) -> int:
        short = recipe.model_copy(update={"length": Step(steps, "it")})
        everything = all_of(net)
        edge_popup.pop(net, everything, Goal(0.5, False), data.train, data, short, ("plan",))
        return steps * min(recipe.batch, len(data.train))

    return measured_speed(chunk, net.device, seconds, gpu.probe_steps(net.device))


def conv_jobs(params: PlantParams) -> list[Job]:
    """Return the conv part's jobs: the ticket's own net, the mother, and edge-popup in it."""
    conv, passes = params.conv, conv_passes(params)
    if conv is None:
        return []
    job = partial(image_job, params.runtime)
    found = [
        job(conv.ticket_model, conv.data, conv.recipe, passes["ticket"]),
        job(conv.model, conv.data, conv.recipe, passes["mother"]),
        job(conv.model, conv.data, conv.popup_recipe, passes["popup"], popup_speed),
    ]
    return [job for job in found if job.passes]


def stack_jobs(params: PlantParams) -> list[Job]:
    """Return one job per depth and width of the stacked nets."""
    passes: dict[tuple[int, int], float] = defaultdict(float)
    for unit in units(params):
        case = unit.arguments["case"]
        passes[case.depth, case.width] += unit.passes
    first: dict[tuple[int, int], tuple[Grid, Case]] = {}
    for grid in params.grids:
        for case in cases(grid):
            first.setdefault((case.depth, case.width), (grid, case))
    jobs = []
    for shape, share in passes.items():
        grid, case = first[shape]
        nets = max(1, len(grid.singleshot)) * len(grid.densities)
        jobs.append(stack_job(params, case, nets, share))
    return jobs


def stack_job(params: PlantParams, case: Case, nets: int, passes: float) -> Job:
    """Return the job of a stack of `nets` nets, as one cell of a grid trains them at once."""
    bench = PlantBench(params, case, params.seeds[0])
    start, mask = bench.start("planted"), bench.dense()
    (x, y), fit = bench.train, params.fit.model_copy(update={"epochs": 1})

    def chunk(steps: int) -> int:
        few = params.fit.batch * steps
        stack = [start] * nets, [mask] * nets
        stacks.train(*stack, x[:few], y[:few], bench.task.kind, fit, ("plan",))
        return nets * len(x[:few])

    def speed(seconds: float) -> float:
        return measured_speed(chunk, bench.device, seconds, gpu.probe_steps(bench.device))

    one = float(params.train * params.fit.epochs)
    name = f"planted net, {case.depth} layers of {case.width}"
    return Job(name, passes, speed, one, mask.total // 8 + 2000)
