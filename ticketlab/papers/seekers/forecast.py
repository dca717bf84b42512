"""Forecast of the study before it runs: the stacked nets that its units train."""

from ticketlab.papers.plant_n_seek.forecast import stack_job
from ticketlab.papers.seekers.params import SeekersParams
from ticketlab.papers.seekers.study import planned
from ticketlab.study.forecast import Job, total_passes


def jobs(params: SeekersParams) -> list[Job]:
    """Return one job: all nets have one size, and searches without training count as trainings."""
    case, nets = params.case(params.tasks[0]), 2 * len(params.densities)
    return [stack_job(params.planting(), case, nets, total_passes(planned(params)))]
