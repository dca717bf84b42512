"""Forecast of a comparison before it runs: image passes, and nets."""

from functools import partial

from ticketlab.papers.compare.params import CompareParams, ticket_name
from ticketlab.papers.compare.study import one_training, phases, searched
from ticketlab.papers.compare.units import train_method
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: CompareParams) -> list[Job]:
    """Return one job per bed."""
    found = []
    for bed in params.beds:
        passes = expected_passes(params.model_copy(update={"beds": (bed,)}))
        found.append(image_job(params.runtime, bed.model, params.data, bed.recipe, passes))
    return found


def planned(params: CompareParams) -> list[list[Unit]]:
    """Return the expected units of the study, by phase."""
    return planned_units(phases(params), partial(predicted, params))


def expected_passes(params: CompareParams) -> float:
    """Return the image passes that the study will take, with predicted lengths of searches."""
    return total_passes(planned(params))


def predicted(params: CompareParams, unit: Unit) -> Result:
    """Return a method's approximate tickets and cost; no unit is planned from other details."""
    if unit.work is not train_method:
        return Result({})
    setting, method = unit.arguments["setting"], unit.arguments["method"]
    (bed,) = (bed for bed in params.beds if bed.name == setting.name)
    trainings = 1 + searched(params, bed, method)
    images = round(trainings * one_training(params, bed))
    rows = [{"level": level, "images": images} for level in bed.levels]
    tickets = {ticket_name(level): predicted_ticket(level) for level in bed.levels}
    return Result({"rows": rows, "left": [0] * round(trainings - 1)}, tickets)
