"""Pruning criteria: each gives every prunable weight a score; high scores are kept."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ticketlab.pruning.masks import Mask

Scores = dict[str, Tensor]
"""One score per prunable weight, by parameter name, in the shape of the parameter."""


def magnitude(weights: Mapping[str, Tensor], mask: Mask) -> Scores:
    """Return ``|w|`` of each prunable weight (Han et al. 2015), in the shape of the parameter."""
    return {name: weights[name].detach().abs() for name in mask}


def uniform(mask: Mask, generator: torch.Generator) -> Scores:
    """Return a uniform random score in [0, 1) per prunable weight: random pruning."""
    return {
        name: torch.rand(keep.shape, generator=generator, device=generator.device)
        for name, keep in mask.items()
    }
