"""The net that a COLT study trains."""

from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.study import expected_passes
from ticketlab.study.forecast import Job, image_job


def jobs(params: ColtParams) -> list[Job]:
    """One net does all."""
    passes = expected_passes(params)
    return [image_job(params.runtime, params.model, params.data, params.recipe, passes)]
