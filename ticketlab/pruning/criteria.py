"""Pruning scores: a criterion gives each prunable weight a score, high means keep."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ticketlab.pruning.masks import Mask

Scores = dict[str, Tensor]
"""A score for each prunable weight, by parameter name; shapes as the weights."""


def magnitude(weights: Mapping[str, Tensor], mask: Mask) -> Scores:
    """|w| of each prunable weight (Han et al. 2015); shapes as the weights."""
    return {name: weights[name].detach().abs() for name in mask}


def uniform(mask: Mask, generator: torch.Generator) -> Scores:
    """A uniform random score in [0, 1) for each prunable weight: random pruning."""
    return {
        name: torch.rand(keep.shape, generator=generator, device=generator.device)
        for name, keep in mask.items()
    }
