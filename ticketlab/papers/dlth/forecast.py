"""Forecast of a DLTH study before it runs: image passes, and nets."""

from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.dlth.study import phases
from ticketlab.papers.dlth.units import train_pretrained
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: RstParams) -> list[Job]:
    """Return one job per case."""
    main = params.model_copy(update={"others": ()})
    found, before = [], 0.0
    for number, case in enumerate(params.cases):
        upto = expected_passes(main.model_copy(update={"others": params.others[:number]}))
        passes, before = upto - before, upto
        found.append(image_job(params.runtime, case.model, case.data, case.finetune, passes))
    return found


def planned(params: RstParams) -> list[list[Unit]]:
    """Return the expected units of the study, by phase."""
    return planned_units(phases(params), predicted)


def expected_passes(params: RstParams) -> float:
    """Return the image passes of the study; counts early-bird in full, as its end is unknown."""
    return total_passes(planned(params))


def predicted(unit: Unit) -> Result:
    """Return the masks of the dense net; no unit is planned from those of other units."""
    if unit.work is not train_pretrained:
        return Result({})
    levels = [level for level, _ in unit.arguments["arms"]]
    return Result({}, {f"lth-{100 * level:g}": predicted_ticket(level) for level in levels})
