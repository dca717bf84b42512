"""What the study trains, before it has: its units, and the net."""

from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.pipeline.scaffold.paper_name.study import phases
from ticketlab.pipeline.scaffold.paper_name.units import search
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: Params) -> list[Job]:
    """One net does all."""
    passes = total_passes(planned(params))
    return [image_job(params.runtime, params.model, params.data, params.recipe, passes)]


def planned(params: Params) -> list[list[Unit]]:
    """The units of the study by phase, as they are expected."""
    return planned_units(phases(params), predicted)


def predicted(unit: Unit) -> Result:
    """What a search finds, about; nothing follows from the other units."""
    if unit.work is not search:
        return Result({})
    return Result({}, {"ticket": predicted_ticket(unit.arguments["sparsity"])})
