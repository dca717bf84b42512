"""Geometry: lines between trained tickets, rewinding, transplanted masks and signs, reliability."""

from ticketlab.papers.geometry.forecast import jobs, planned
from ticketlab.papers.geometry.params import GeometryParams
from ticketlab.papers.geometry.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(GeometryParams, phases, planned, jobs)
