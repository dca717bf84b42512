"""The net that the study trains."""

from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.pipeline.scaffold.paper_name.study import expected_passes
from ticketlab.study.forecast import Job, image_job


def jobs(params: Params) -> list[Job]:
    """One net does all."""
    passes = expected_passes(params)
    return [image_job(params.runtime, params.model, params.data, params.recipe, passes)]
