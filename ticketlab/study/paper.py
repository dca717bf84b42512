"""`Paper`: the pipeline's view of a paper; each `ticketlab.papers.NAME` defines a `PAPER`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ticketlab.spec import Spec
from ticketlab.study.forecast import Job, total_passes
from ticketlab.study.runner import Phases, Unit


@dataclass(frozen=True)
class Paper:
    """A paper's parameters, units and forecast."""

    params: type[Spec]
    phases: Callable[[Any], Phases]
    """Yields the units of a study with these parameters (see `runner.run_study`)."""
    planned: Callable[[Any], list[list[Unit]]]
    """Returns all units by phase, as far as later phases can be predicted."""
    jobs: Callable[[Any], list[Job]]
    """Returns the nets that the study trains, with their shares of the given passes."""
    beside: float = 1.0
    """Ratio of a study's measured seconds to those of its training passes."""

    def expected_passes(self, params: Any) -> float:
        """Return the approximate number of image passes that the study will take."""
        return total_passes(self.planned(params))
