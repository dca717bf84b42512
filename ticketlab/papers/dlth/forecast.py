"""The nets that a DLTH study trains."""

from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.dlth.study import expected_passes, first_units
from ticketlab.study.forecast import Job, image_job


def jobs(params: RstParams) -> list[Job]:
    """One job per case; the swap test, whose units follow later, counts with the first."""
    units, found = first_units(params), []
    later = expected_passes(params) - sum(unit.passes for unit in units)
    for case in params.cases:
        passes = sum(unit.passes for unit in units if unit.name.startswith(f"{case.name}/"))
        found.append(
            image_job(params.runtime, case.model, case.data, case.finetune, passes + later)
        )
        later = 0.0
    return found
