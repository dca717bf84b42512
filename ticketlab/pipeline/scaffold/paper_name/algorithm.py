"""One-shot magnitude pruning, and random pruning that keeps as many weights.

To be replaced by the paper's method as plain functions; section numbers then refer to the paper.
"""

import torch

from ticketlab.pruning.criteria import magnitude, uniform
from ticketlab.pruning.masks import Mask, State, keep_top, prune


def one_shot(trained: State, dense: Mask, sparsity: float) -> Mask:
    """Keep the largest trained weights of all layers together (Frankle and Carbin 2019).

    `sparsity` is the fraction of the weights in `dense` that is removed.
    """
    return prune(magnitude(trained, dense), dense, sparsity)


def at_random(mask: Mask, generator: torch.Generator) -> Mask:
    """As many weights as `mask` keeps, at random places of all layers together."""
    return keep_top(uniform(mask, generator), mask.alive)
