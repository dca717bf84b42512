"""What a COLT study trains, before it has: image passes, and the nets."""

from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.study import phases, predicted_rate, predicted_rounds
from ticketlab.papers.colt.units import search_colt, search_imp
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_search, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: ColtParams) -> list[Job]:
    """One job: the net, on all the study's image passes."""
    passes = expected_passes(params)
    return [image_job(params.runtime, params.model, params.data, params.recipe, passes)]


def planned(params: ColtParams) -> list[list[Unit]]:
    """The units of the study by phase, as they are expected."""
    return planned_units(phases(params), predicted)


def expected_passes(params: ColtParams) -> float:
    """Image passes the study will take, with the rounds of the searches predicted."""
    return total_passes(planned(params))


def predicted(unit: Unit) -> Result:
    """What a search finds, about; nothing follows from the other units."""
    setting = unit.arguments["setting"]
    if unit.work is search_imp:
        if schedule := unit.arguments.get("schedule"):
            rate = 1 - schedule[1] / schedule[0] if len(schedule) > 1 else setting.rate
            return predicted_search(rate, len(schedule))
        return predicted_search(setting.imp_rate, predicted_rounds(setting, setting.imp_rate))
    if unit.work is search_colt:
        rate = predicted_rate(setting, unit.arguments["variant"])
        return predicted_search(rate, predicted_rounds(setting, rate))
    return Result({})
