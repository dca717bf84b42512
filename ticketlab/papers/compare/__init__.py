"""Comparison of all four papers' methods: same data, nets, budget and seeds."""

from ticketlab.papers.compare.forecast import jobs, planned
from ticketlab.papers.compare.params import CompareParams
from ticketlab.papers.compare.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(CompareParams, phases, planned, jobs)
