"""What a comparison trains, before it has: image passes, and the nets."""

from functools import partial

from ticketlab.papers.compare.params import CompareParams, ticket_name
from ticketlab.papers.compare.study import one_training, phases, searched
from ticketlab.papers.compare.units import train_method
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: CompareParams) -> list[Job]:
    """One job per bed."""
    found = []
    for bed in params.beds:
        passes = expected_passes(params.model_copy(update={"beds": (bed,)}))
        found.append(image_job(params.runtime, bed.model, params.data, bed.recipe, passes))
    return found


def planned(params: CompareParams) -> list[list[Unit]]:
    """The units of the study by phase, as they are expected."""
    return planned_units(phases(params), partial(predicted, params))


def expected_passes(params: CompareParams) -> float:
    """Image passes that the study will take, with the length of searches predicted."""
    return total_passes(planned(params))


def predicted(params: CompareParams, unit: Unit) -> Result:
    """A method's tickets and what they cost, about; nothing follows from the other units."""
    if unit.work is not train_method:
        return Result({})
    setting, method = unit.arguments["setting"], unit.arguments["method"]
    (bed,) = (bed for bed in params.beds if bed.name == setting.name)
    trainings = 1 + searched(params, bed, method)
    images = round(trainings * one_training(params, bed))
    rows = [{"level": level, "images": images} for level in bed.levels]
    tickets = {ticket_name(level): predicted_ticket(level) for level in bed.levels}
    return Result({"rows": rows, "left": [0] * round(trainings - 1)}, tickets)
