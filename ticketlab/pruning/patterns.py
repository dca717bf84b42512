"""Zero patterns of trained nets: checks that they match the masks, and a record per unit.

Every training ends with `confirm`, which fails if a mask was applied to other weights than
intended. Before a unit stores a ticket, the ticket's mask is checked against the `collected` record
of the masks under which nets were trained.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ticketlab.pruning.masks import Mask, check_shapes

Patterns = dict[str, Mask]
"""Masks by digest."""

DENSE = Mask({})
"""The pattern of a training without a mask. Parameters that a mask does not name are kept."""

_collected: ContextVar[Patterns | None] = ContextVar("patterns", default=None)


class WrongMask(RuntimeError):
    """A trained net has other zeros than its mask, or a ticket another mask than its net."""


@contextmanager
def collected() -> Iterator[Patterns]:
    """Collect the patterns of all trainings inside the block, in the order in which they end."""
    found: Patterns = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def confirm(weights: Mapping[str, Tensor], mask: Mask | None, moving: Mapping[str, Tensor]) -> None:
    """Raise WrongMask unless what `mask` removes, and nothing else, is 0 in a trained net.

    All three use the model's own names and shapes. A kept weight may be 0 if its entry in `moving`
    (its initial value, or its last gradient) is 0 too. One kept weight per net may be 0 by chance:
    a step that lands exactly on 0 must match all 24 bits of a float, which did not happen in 10^8
    observed steps. The pattern is recorded for `collected`.
    """
    mask = DENSE if mask is None else mask
    check_shapes(mask, weights)
    here = mask.to(weights[next(iter(mask))].device) if mask else mask
    counts = [_strays(weights[name].detach(), keep, moving[name]) for name, keep in here.items()]
    found = torch.stack(counts).tolist() if counts else []
    by_chance = sum(lost for _, lost in found) <= 1
    for name, (left, lost) in zip(mask, found, strict=True):
        if left or (lost and not by_chance):
            raise WrongMask(
                f"the trained net has other zeros than its mask: in {name} {left} removed weights "
                f"are not 0, and {lost} kept ones are"
            )
    known = _collected.get()
    if known is not None:
        host = mask.to("cpu")
        known[host.digest()] = host


def _strays(weight: Tensor, keep: Tensor, moving: Tensor) -> Tensor:
    """Count the removed weights that are not 0 and the kept weights that are: int64 (2,)."""
    zero, moving = weight == 0, moving.to(weight.device)
    return torch.stack([(~keep & ~zero).sum(), (keep & zero & (moving != 0)).sum()])


def check_trained(mask: Mask, pattern: str, trained: Patterns) -> None:
    """Raise WrongMask unless a net was trained under `pattern`, which must keep all of `mask`.

    `pattern` is the digest of `mask` itself, or of the mask that it was pruned from.
    """
    if pattern not in trained:
        raise WrongMask(
            f"its mask, or the one it was pruned from, has the digest {pattern[:12]}; nets were "
            f"trained under {', '.join(digest[:12] for digest in trained) or 'none'}"
        )
    whole = trained[pattern]
    if pattern != mask.digest() and any(
        name in whole and bool((keep & ~whole[name]).any()) for name, keep in mask.items()
    ):
        raise WrongMask(f"it keeps weights that the mask {pattern[:12]} it was pruned from removes")
