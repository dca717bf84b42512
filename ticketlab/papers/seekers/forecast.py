"""Forecast of the study before it runs: the stacked nets that its units train."""

from ticketlab import gpu
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek.units import PlantBench
from ticketlab.papers.seekers.params import SeekersParams
from ticketlab.papers.seekers.study import planned
from ticketlab.study.forecast import Job, measured_speed, total_passes


def jobs(params: SeekersParams) -> list[Job]:
    """Return one job: all nets have one size, and searches without training count as trainings."""
    bench = PlantBench(params.planting(), params.case(params.tasks[0]), params.seeds[0])
    nets = 2 * len(params.densities)
    start, mask = bench.start("planted"), bench.dense()
    (x, y), fit = bench.train, params.fit.model_copy(update={"epochs": 1})

    def chunk(steps: int) -> int:
        few = params.fit.batch * steps
        stack = [start] * nets, [mask] * nets
        stacks.train(*stack, x[:few], y[:few], bench.task.kind, fit, ("plan",))
        return nets * len(x[:few])

    def speed(seconds: float) -> float:
        return measured_speed(chunk, bench.device, seconds, gpu.probe_steps(bench.device))

    name = f"planted net, {params.depth} layers of {params.width}"
    one = float(params.train * params.fit.epochs)
    return [Job(name, total_passes(planned(params)), speed, one, mask.total // 8 + 2000)]
