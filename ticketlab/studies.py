"""The papers by name: how each runs all its units."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketlab import (
    colt_params,
    colt_study,
    compare_params,
    compare_study,
    planting_params,
    planting_study,
    prac_params,
    prac_study,
    rst_arms,
    rst_study,
)
from ticketlab.results import Result


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
        planting_params.PlantParams, planting_study.study, planting_study.expected_passes
    ),
    "dlth": Study(rst_arms.RstParams, rst_study.study, rst_study.expected_passes),
    "compare": Study(
        compare_params.CompareParams, compare_study.study, compare_study.expected_passes
    ),
}
