"""COLT (Hossain et al., 2022): masks of copies trained on different data segments, intersected."""

from ticketlab.papers.colt.forecast import jobs, planned
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(ColtParams, phases, planned, jobs)
