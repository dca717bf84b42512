"""PrAC (Zhang et al., ICML 2021): tickets from a small, pruning-aware critical subset of data."""

from ticketlab.papers.prac.forecast import jobs, planned
from ticketlab.papers.prac.params import PracParams
from ticketlab.papers.prac.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(PracParams, phases, planned, jobs, beside=1.45)  # it also evaluates all its images
