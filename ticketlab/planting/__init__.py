"""Plant 'n' Seek (Fischer & Burkholz 2022): known sparse tickets hidden in random networks.

`tasks` generates data, `targets` builds the tickets by hand, `hide` plants them in a mother
network, `audit` asks how visible they are and how much of them was found.
"""

from ticketlab.planting.audit import (
    LOUD,
    audit,
    auroc,
    connected,
    detectability,
    found,
    in_deviations,
    paths_alive,
)
from ticketlab.planting.hide import (
    Mode,
    Planted,
    deviations,
    match_cosine,
    mother,
    plant,
    without_factor,
)
from ticketlab.planting.targets import ground_truth_density, nonzeros, piecewise, target
from ticketlab.planting.tasks import TASKS, Task, ring_radii, sample, task_named

__all__ = [
    "LOUD", "TASKS", "Mode", "Planted", "Task", "audit", "auroc", "connected", "detectability",
    "deviations", "found", "ground_truth_density", "in_deviations", "match_cosine", "mother",
    "nonzeros", "paths_alive", "piecewise", "plant", "ring_radii", "sample", "target", "task_named",
    "without_factor",
]  # fmt: skip
