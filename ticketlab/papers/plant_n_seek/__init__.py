"""Plant 'n' Seek (Fischer & Burkholz, ICLR 2022): known sparse tickets hidden in big nets."""

from ticketlab.papers.plant_n_seek.forecast import jobs
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.study import phases, planned
from ticketlab.study.paper import Paper

PAPER = Paper(PlantParams, phases, planned, jobs)
