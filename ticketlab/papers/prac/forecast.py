"""Forecast of a PrAC study before it runs: image passes, and nets."""

from ticketlab.papers.prac.params import SELECTIONS, PracParams
from ticketlab.papers.prac.retraining import score_tickets
from ticketlab.papers.prac.study import phases
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_search, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: PracParams) -> list[Job]:
    """Return a job for the main net, and one per other net."""
    main = expected_passes(params.model_copy(update={"others": ()}))
    found = [image_job(params.runtime, params.model, params.data, params.recipe, main)]
    for other in params.others:
        share = expected_passes(params.model_copy(update={"others": (other,)})) - main
        found.append(image_job(params.runtime, other.model, params.data, other.recipe, share))
    return found


def planned(params: PracParams) -> list[list[Unit]]:
    """Return the expected units of the study, by phase."""
    return planned_units(phases(params), predicted)


def expected_passes(params: PracParams) -> float:
    """Return the image passes of the study, with the lengths of searches as units predict them."""
    return total_passes(planned(params))


def predicted(unit: Unit) -> Result:
    """Return a search's result without its sets, since no unit is planned from their contents."""
    if unit.work is score_tickets:
        return Result({})
    setting = unit.arguments["setting"]
    found = predicted_search(setting.rate, setting.rounds)
    for turn in found.record["rounds"]:
        turn |= {"set": "", "iterations": 1}
    return Result(found.record | {"selections": {name: [] for name in SELECTIONS}}, found.tickets)
