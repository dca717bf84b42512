"""DLTH / RST (Bai et al., ICLR 2022): random tickets made winning by a growing penalty."""

from ticketlab.papers.dlth.forecast import jobs, planned
from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.dlth.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(RstParams, phases, planned, jobs)
