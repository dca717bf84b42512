"""`Paper`: what the pipeline knows of a paper; `ticketlab.papers.NAME` hands it on as `PAPER`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ticketlab.spec import Spec
from ticketlab.study.forecast import Job, total_passes
from ticketlab.study.runner import Phases, Unit


@dataclass(frozen=True)
class Paper:
    """A paper's parameters, its units, and those that a study is expected to have."""

    params: type[Spec]
    phases: Callable[[Any], Phases]
    """The units of a study with these parameters (see `runner.run_study`)."""
    planned: Callable[[Any], list[list[Unit]]]
    """All units by phase, later phases as far as they can be predicted."""
    jobs: Callable[[Any], list[Job]]
    """The nets that the study trains, with their shares of these passes."""
    beside: float = 1.0
    """Measured seconds of a study over those of its training passes."""

    def expected_passes(self, params: Any) -> float:
        """Image passes that the study will take, about."""
        return total_passes(self.planned(params))
