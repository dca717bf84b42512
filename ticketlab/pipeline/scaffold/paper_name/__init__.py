"""paper_name: one-shot magnitude pruning against random pruning."""

from ticketlab.pipeline.scaffold.paper_name.forecast import jobs
from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.pipeline.scaffold.paper_name.study import expected_passes, phases
from ticketlab.study.paper import Paper

PAPER = Paper(Params, phases, expected_passes, jobs)
