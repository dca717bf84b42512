"""The nets that a PrAC study trains."""

from ticketlab.papers.prac.params import PracParams
from ticketlab.papers.prac.study import expected_passes
from ticketlab.study.forecast import Job, image_job


def jobs(params: PracParams) -> list[Job]:
    """The main net, and one job per other net."""
    main = expected_passes(params.model_copy(update={"others": ()}))
    found = [image_job(params.runtime, params.model, params.data, params.recipe, main)]
    for other in params.others:
        share = expected_passes(params.model_copy(update={"others": (other,)})) - main
        found.append(image_job(params.runtime, other.model, params.data, other.recipe, share))
    return found
