"""Parts of a ticket moved to another initialisation: its mask, its mask permuted, its signs."""

import torch

from ticketlab.pruning.masks import Mask, State


def with_signs(fresh: State, trained: State, mask: Mask) -> State:
    """Return `fresh` with the signs that the masked weights have in `trained`; 0 counts as plus.

    Magnitudes, and all weights that are in no layer of the mask, stay those of `fresh`
    (Oh et al. 2025, "Find a winning sign", arXiv 2504.05357).
    """
    signed = {
        name: torch.where(trained[name].to(fresh[name].device) < 0, -1.0, 1.0) for name in mask
    }
    return {
        name: weight.abs() * signed[name] if name in signed else weight
        for name, weight in fresh.items()
    }
