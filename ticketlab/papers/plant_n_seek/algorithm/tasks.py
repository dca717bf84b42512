"""The three tasks with generated data: a ReLU, four rings (Circle) and a curve in space (Helix)."""

from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from ticketlab.many.stacks import Kind
from ticketlab.spec import InputError

BOUNDS = (0.2, 0.5, 0.7)
"""Squared radii at which Circle's class changes."""
GAINS = (5.0, 10.0, 20.0, 40.0)
"""Slope of each class's logit in the squared radius."""


@dataclass(frozen=True)
class Task:
    """A learning task: inputs uniform on [-1, 1]^inputs, and the meaning of the outputs."""

    name: str
    inputs: int
    outputs: int
    kind: Kind


TASKS = {
    task.name: task
    for task in (
        Task("relu", 1, 1, "regression"),
        Task("circle", 2, 4, "classification"),
        Task("helix", 1, 3, "regression"),
    )
}


def task_named(name: str) -> Task:
    """Return the task; InputError for an unknown name."""
    if name not in TASKS:
        raise InputError(f"task: {name!r} is unknown, allowed: {', '.join(TASKS)}")
    return TASKS[name]


def logit_offsets() -> Tensor:
    """Return beta (4,), which makes neighbouring logits of Circle equal at the class borders."""
    offsets = [0.0]
    for here, bound in enumerate(BOUNDS):
        offsets.append((GAINS[here] - GAINS[here + 1]) * bound + offsets[-1])
    return torch.tensor(offsets, dtype=torch.float64)


def ring_logits(x: Tensor) -> Tensor:
    """Return the ideal logits (N, 4) of Circle at points (N, 2): linear in the squared radius."""
    radius = x.double().square().sum(1, keepdim=True)
    return radius * torch.tensor(GAINS, dtype=torch.float64) + logit_offsets()


def helix_curve(x: Tensor) -> Tensor:
    """Return the helix (N, 3) at x (N, 1): (u cos u, u sin u, u) / 8 pi, u = pi (5 + 3x)."""
    u = pi * (5 + 3 * x.double())
    return torch.cat([u * u.cos(), u * u.sin(), u], 1) / (8 * pi)


def sample(name: str, count: int, noise: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw float64 inputs (count, inputs), and outputs (count, outputs) or classes (count,).

    Noise is the standard deviation added to each output, or Circle's share of labels replaced by
    the class with the second-largest logit.
    """
    task = task_named(name)
    x = 2 * torch.rand(count, task.inputs, generator=random, dtype=torch.float64) - 1
    if task.kind == "classification":
        first, second = ring_logits(x).topk(2).indices.T
        flipped = torch.rand(count, generator=random) < noise
        return x, torch.where(flipped, second, first)
    clean = x.relu() if name == "relu" else helix_curve(x)
    return x, clean + noise * torch.randn(clean.shape, generator=random, dtype=torch.float64)


def ring_radii() -> list[float]:
    """Return the radii of Circle's three class borders."""
    return [sqrt(bound) for bound in BOUNDS]
