"""DLTH / RST (Bai et al., ICLR 2022): random tickets made winning by a growing penalty."""

from ticketlab.papers.dlth.forecast import expected_passes, jobs
from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.dlth.study import phases
from ticketlab.study.paper import Paper

PAPER = Paper(RstParams, phases, expected_passes, jobs)
