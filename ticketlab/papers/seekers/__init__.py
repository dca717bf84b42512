"""Newer seekers of planted tickets: Bernoulli gates, and several tickets planted at once."""

from ticketlab.papers.seekers.forecast import jobs
from ticketlab.papers.seekers.params import SeekersParams
from ticketlab.papers.seekers.study import phases, planned
from ticketlab.study.paper import Paper

PAPER = Paper(SeekersParams, phases, planned, jobs)
