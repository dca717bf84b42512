"""COLT: cyclic overlapping lottery tickets (Hossain et al., 2022, arXiv 2212.12770).

Copies of one net are trained on different segments of the data; a weight survives a round only if
it survives in every copy. Section numbers refer to the method as laid out in the authors' code.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Literal

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import Images
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State, at_least, prune
from ticketlab.spec import InputError

Split = Literal["class", "interleaved", "random", "same"]
BY_CLASS: tuple[Split, ...] = ("class", "interleaved")
"""Splits that give each copy some of the classes, and a head for these classes only."""


# ---------------------------------------------------------------- the algorithm


@dataclass(frozen=True)
class Round:
    """One round: the common mask `before`, the mask of each pruned copy, and their overlap."""

    index: int
    before: Mask
    own: tuple[Mask, ...]
    mask: Mask


def stage_of(copy: int) -> str:
    """Return the stage that names a copy's data order; the first is IMP's: one copy is IMP."""
    return f"copy-{copy}" if copy else "train"


def find_tickets(
    train_copy: Callable[[int, Mask], State],
    mask: Mask,
    *,
    copies: int,
    rate: float,
    votes: int,
    target: float,
    max_rounds: int,
    layerwise: bool = False,
) -> Iterator[Round]:
    """Train all copies from the same weights, prune each, keep what `votes` copies kept, rewind.

    `train_copy(i, mask)` rewinds copy i, trains it on its segment under the mask and returns its
    weights. `votes == copies` is COLT, 1 the union. Each copy prunes the fraction `rate` of all its
    weights together, or of each layer with `layerwise`. Ends at `target` sparsity, after
    `max_rounds` rounds, or when no weight is left (that round is not yielded).
    """
    for index in range(1, max_rounds + 1):
        weights = [train_copy(copy, mask) for copy in range(copies)]
        own = tuple(prune(magnitude(w, mask), mask, rate, layerwise) for w in weights)
        common = at_least(own, votes)
        if not common.alive or common.alive == mask.alive:
            return
        yield Round(index, mask, own, common)
        mask = common
        if mask.sparsity >= target:
            return


# ---------------------------------------------------------------- data segments


def class_blocks(classes: int, partitions: int, interleaved: bool = False) -> list[list[int]]:
    """Return the classes of each segment: contiguous blocks as in the paper, or every P-th class.

    Each segment gets classes / partitions of them. Raises InputError unless that is an integer of
    at least 2: the authors' code silently drops left-over classes, and a copy with one class has
    nothing to learn. A single partition is the whole data set.
    """
    allowed = [p for p in range(1, classes // 2 + 1) if classes % p == 0]
    if partitions not in allowed:
        numbers = ", ".join(map(str, allowed))
        raise InputError(
            f"partitions: {partitions} does not split {classes} classes, allowed: {numbers}"
        )
    width = classes // partitions
    if interleaved:
        return [list(range(start, classes, partitions)) for start in range(partitions)]
    return [list(range(start, start + width)) for start in range(0, classes, width)]


def segment_indices(
    labels: Tensor, classes: int, split: Split, partitions: int, seed: int
) -> list[Tensor]:
    """Return the indices (n_i,) of the images in each segment; `labels` is (N,).

    "class" and "interleaved" split by class; "random" distributes the images randomly; "same" gives
    every copy all images, so that copies differ only in data order and a round costs P times more.
    """
    if split == "same":
        return [torch.arange(len(labels), device=labels.device)] * partitions
    if split == "random":
        if not 1 <= partitions <= len(labels):
            raise InputError(f"partitions: {partitions}, allowed: 1 to {len(labels)} (images)")
        random = gpu.generator("cpu", "segments", seed)
        order = torch.randperm(len(labels), generator=random).to(labels.device)
        return [part.sort().values for part in order.tensor_split(partitions)]
    blocks = class_blocks(classes, partitions, split == "interleaved")
    return [
        torch.isin(labels, torch.tensor(block).to(labels)).nonzero().flatten() for block in blocks
    ]


def segments(
    images: Images, classes: int, split: Split, partitions: int, seed: int
) -> list[Images]:
    """Return each copy's images (`segment_indices`), relabelled from 0 if split by class."""
    indices = segment_indices(images.y, classes, split, partitions, seed)
    parts = [images.select(index) for index in indices]
    if split not in BY_CLASS:
        return parts
    blocks = class_blocks(classes, partitions, split == "interleaved")
    return [relabel(part, block) for part, block in zip(parts, blocks, strict=True)]


def relabel(images: Images, block: Sequence[int]) -> Images:
    """Return the images with the labels of `block` renumbered from 0, in the block's order."""
    lookup = torch.full((max(block) + 1,), -1, device=images.y.device)
    lookup[torch.tensor(block, device=images.y.device)] = torch.arange(
        len(block), device=images.y.device
    )
    return Images(images.x, lookup[images.y])


# ---------------------------------------------------------------- pruning speed


def effective_rate(before: Mask, after: Mask) -> float:
    """Return u, the fraction of the weights in `before` that a round removed."""
    return 1 - after.alive / before.alive


def pruned_agreement(turn: Round) -> float:
    """Return J: newly pruned weights, those pruned by all copies over those pruned by any."""
    inside = turn.before.flat()
    gone = torch.stack([inside & ~own.flat() for own in turn.own])
    return int(gone.all(0).sum()) / max(1, int(gone.any(0).sum()))


def predicted_rate(rate: float, agreement: float) -> float:
    """Return u = 2 r / (1 + J): what a round of two copies removes when they agree to J."""
    return 2 * rate / (1 + agreement)


def chance_rate(rate: float, partitions: int, votes: int | None = None) -> float:
    """Return u if copies prune independently: the chance that fewer than `votes` keep a weight."""
    votes = votes or partitions
    keep = torch.distributions.Binomial(partitions, torch.tensor(1 - rate, dtype=torch.float64))
    kept_by = torch.arange(votes, partitions + 1, dtype=torch.float64)
    return 1 - float(keep.log_prob(kept_by).exp().sum())


def rounds_to(target: float, rate: float) -> int:
    """Return the rounds needed to reach `target` sparsity, removing `rate` of the rest in each."""
    return ceil(log(1 - target) / log(1 - rate) - 1e-9)


def every_second(schedule: list[int]) -> list[int]:
    """Return the weights left in a search of half as many rounds with the same last round."""
    return schedule[::-2][::-1]
