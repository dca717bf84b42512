"""Forecast of a COLT study before it runs: image passes, and nets."""

from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.study import phases, predicted_rate, predicted_rounds
from ticketlab.papers.colt.units import search_colt, search_imp
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_search, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: ColtParams) -> list[Job]:
    """Return one job: the net, with all of the study's image passes."""
    passes = expected_passes(params)
    return [image_job(params.runtime, params.model, params.data, params.recipe, passes)]


def planned(params: ColtParams) -> list[list[Unit]]:
    """Return the expected units of the study, by phase."""
    return planned_units(phases(params), predicted)


def expected_passes(params: ColtParams) -> float:
    """Return the image passes that the study will take, with predicted numbers of rounds."""
    return total_passes(planned(params))


def predicted(unit: Unit) -> Result:
    """Return a search's approximate result; no unit is planned from those of other units."""
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
