"""Architectures by name, each as in the paper that uses it, and which weights are prunable."""

from ticketlab.models.inits import INITS
from ticketlab.models.layers import RULES, flops, head, prunable
from ticketlab.models.plain import Shape
from ticketlab.models.registry import (
    MODELS,
    ModelSpec,
    Net,
    architecture,
    build,
    check,
    with_head,
)

__all__ = [
    "INITS",
    "MODELS",
    "RULES",
    "ModelSpec",
    "Net",
    "Shape",
    "architecture",
    "build",
    "check",
    "flops",
    "head",
    "prunable",
    "with_head",
]
