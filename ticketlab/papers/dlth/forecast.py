"""What a DLTH study trains, before it has: image passes, and the nets."""

from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.dlth.study import phases
from ticketlab.papers.dlth.units import train_pretrained
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


def jobs(params: RstParams) -> list[Job]:
    """One job per case."""
    main = params.model_copy(update={"others": ()})
    found, before = [], 0.0
    for number, case in enumerate(params.cases):
        upto = expected_passes(main.model_copy(update={"others": params.others[:number]}))
        passes, before = upto - before, upto
        found.append(image_job(params.runtime, case.model, case.data, case.finetune, passes))
    return found


def planned(params: RstParams) -> list[list[Unit]]:
    """The units of the study by phase, as they are expected."""
    return planned_units(phases(params), predicted)


def expected_passes(params: RstParams) -> float:
    """Image passes the study will take; early-bird counts in full, for its draw is not known."""
    return total_passes(planned(params))


def predicted(unit: Unit) -> Result:
    """The masks of the dense net; nothing follows from the other units."""
    if unit.work is not train_pretrained:
        return Result({})
    levels = [level for level, _ in unit.arguments["arms"]]
    return Result({}, {f"lth-{100 * level:g}": predicted_ticket(level) for level in levels})
