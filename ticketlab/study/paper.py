"""`Paper`: what the pipeline knows of a paper; `ticketlab.papers.NAME` hands it on as `PAPER`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ticketlab.spec import Spec
from ticketlab.study.forecast import Job
from ticketlab.study.runner import Phases


@dataclass(frozen=True)
class Paper:
    """A paper's parameters, its units, and the image passes they are expected to take."""

    params: type[Spec]
    phases: Callable[[Any], Phases]
    """The units of a study with these parameters (see `runner.run_study`)."""
    expected_passes: Callable[[Any], float]
    jobs: Callable[[Any], list[Job]]
    """The nets that the study trains, with their shares of these passes."""
    beside: float = 1.0
    """Measured seconds of a study over those of its training passes."""
