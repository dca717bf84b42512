"""paper_name: one-shot magnitude pruning against random pruning."""

from ticketlab.pipeline.scaffold.paper_name.forecast import jobs, planned
from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.pipeline.scaffold.paper_name.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(Params, phases, planned, jobs)
