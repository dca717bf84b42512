"""Plant 'n' Seek (Fischer & Burkholz 2022): known sparse tickets hidden in random networks.

`tasks` generates data, `targets` builds the tickets by hand, `planting` plants them in a mother
network, and `audit` measures how visible they are and how much of them was found.
"""

from ticketlab.papers.plant_n_seek.algorithm.audit import (
    LOUD,
    audit,
    auroc,
    connected,
    detectability,
    found,
    in_deviations,
    paths_alive,
)
from ticketlab.papers.plant_n_seek.algorithm.planting import (
    Mode,
    Planted,
    deviations,
    match_cosine,
    mother,
    plant,
    without_factor,
)
from ticketlab.papers.plant_n_seek.algorithm.targets import (
    ground_truth_density,
    nonzeros,
    piecewise,
    target,
)
from ticketlab.papers.plant_n_seek.algorithm.tasks import (
    TASKS,
    Task,
    ring_radii,
    sample,
    task_named,
)

__all__ = [
    "LOUD",
    "TASKS",
    "Mode",
    "Planted",
    "Task",
    "audit",
    "auroc",
    "connected",
    "detectability",
    "deviations",
    "found",
    "ground_truth_density",
    "in_deviations",
    "match_cosine",
    "mother",
    "nonzeros",
    "paths_alive",
    "piecewise",
    "plant",
    "ring_radii",
    "sample",
    "target",
    "task_named",
    "without_factor",
]
