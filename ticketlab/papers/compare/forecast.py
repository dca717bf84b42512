"""The nets that a comparison trains."""

from ticketlab.papers.compare.params import CompareParams
from ticketlab.papers.compare.study import expected_passes
from ticketlab.study.forecast import Job, image_job


def jobs(params: CompareParams) -> list[Job]:
    """One job per bed."""
    found = []
    for bed in params.beds:
        passes = expected_passes(params.model_copy(update={"beds": (bed,)}))
        found.append(image_job(params.runtime, bed.model, params.data, bed.recipe, passes))
    return found
