"""The papers by name: how each runs all its units."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketlab.papers.colt import params as colt_params
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.compare import params as compare_params
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.dlth import params as dlth_params
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.plant_n_seek import params as planting_params
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.prac import params as prac_params
from ticketlab.papers.prac import study as prac_study
from ticketlab.study.results import Result


@dataclass(frozen=True)
class Study:
    """A paper's parameters, its units, and the image passes they are expected to take."""

    params: type[Any]
    run: Callable[[Any, Path], Mapping[str, Result]]
    expected_passes: Callable[[Any], float]


STUDIES = {
    "prac": Study(prac_params.PracParams, prac_study.study, prac_study.expected_passes),
    "colt": Study(colt_params.ColtParams, colt_study.study, colt_study.expected_passes),
    "plant_n_seek": Study(
        planting_params.PlantParams, plant_study.study, plant_study.expected_passes
    ),
    "dlth": Study(dlth_params.RstParams, dlth_study.study, dlth_study.expected_passes),
    "compare": Study(
        compare_params.CompareParams, compare_study.study, compare_study.expected_passes
    ),
}
