"""Edge-popup on stacks of small nets: weights stay frozen, scores learn which of them to keep.

Ramanujan et al. 2020, extended to biases as in Plant 'n' Seek: each tensor keeps its own share of
highest |score|, weights and biases apart, so at least one entry of each tensor always stays (the
released code for these nets). `joint` ranks a layer's weights and biases together (its code for
VGG-16), so that a layer may go without any bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sqrt

import torch
from pydantic import Field
from torch import Tensor

from ticketlab import gpu, progress
from ticketlab.many.stacks import Head, Kind, Stack, batches
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.saliency import popup_gradient, popup_kept, popup_mask
from ticketlab.spec import Spec
from ticketlab.training.loop import check_finite, no_denormals
from ticketlab.training.optimizers import Sgd


class PopupFit(Spec):
    """How scores learn: SGD with momentum, cosine from `lr` to 0 over the epochs."""

    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Goal:
    """What one net of the stack is pruned to: a density, reached at once or annealed.

    Annealed, the density of epoch e of E is density^(e/E) (section 4.2).
    """

    density: float
    annealed: bool = False

    def at(self, epoch: int, epochs: int) -> float:
        """The density of an epoch, counted from 1."""
        return self.density ** (epoch / epochs) if self.annealed else self.density


@dataclass(frozen=True)
class Popped:
    """The masks of all nets after the last epoch, and their masks after every epoch."""

    masks: list[Mask]
    epochs: list[list[Mask]]


def first_bounds(fan_in: int, joint: bool) -> tuple[float, float]:
    """First scores are uniform within +- these: of weights, and of biases (0 if ranked apart)."""
    return 1 / sqrt(fan_in), sqrt(6 / fan_in) if joint else 0.0


def first_scores(stack: Stack, random: torch.Generator, joint: bool = False) -> Tensor:
    """Flat scores, uniform within `first_bounds`; every net of the stack the same."""
    blocks = []
    for place, shape in enumerate(stack.shapes):
        bound = first_bounds(stack.shapes[place - place % 2][0], joint)[place % 2]
        one = bound * (2 * torch.rand(shape.numel(), generator=random) - 1)
        blocks.append(one.repeat(stack.count))
    return torch.cat(blocks).to(stack.weights.device)


def select(stack: Stack, scores: Tensor, densities: Sequence[float], joint: bool = False) -> Tensor:
    """Bool, flat as the scores: each net's share of each tensor (or layer) at its own density."""
    blocks = stack.blocks(scores)
    if not joint:
        return torch.cat([popup_masks(block, densities).flatten() for block in blocks])
    chosen: list[Tensor] = []
    for weight, bias in zip(blocks[::2], blocks[1::2], strict=True):
        kept = popup_masks(torch.cat([weight, bias], 1), densities)
        chosen += [part.flatten() for part in kept.split([weight.shape[1], bias.shape[1]], 1)]
    return torch.cat(chosen)


SHORT = 1000
"""Rows up to this length are sorted: biases start at equal scores, so that ties are the rule."""


def popup_masks(rows: Tensor, densities: Sequence[float]) -> Tensor:
    """`popup_mask` of each row (K, n) at its own density; runs for every tensor at every step."""
    size, count = rows.abs(), rows.shape[1]
    keep = [popup_kept(count, density) for density in densities]
    kept = torch.tensor(keep, device=rows.device)[:, None]
    if count <= SHORT:
        order = size.argsort(dim=1, descending=True, stable=True)
        ranked = (torch.arange(count, device=rows.device) < kept).expand(rows.shape)
        return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order, ranked)
    lowest = [row.kthvalue(count - k + 1).values for row, k in zip(size, keep, strict=True)]
    chosen = size >= torch.stack(lowest)[:, None]
    for place in (chosen.sum(1) != kept[:, 0]).nonzero().flatten().tolist():
        chosen[place] = popup_mask(rows[place], keep[place])
    return chosen


def edge_popup(
    nets: Sequence[State],
    goals: Sequence[Goal],
    x: Tensor,
    y: Tensor,
    kind: Kind,
    fit: PopupFit,
    seed: tuple[object, ...],
    head: Head = "linear",
    joint: bool = False,
) -> Popped:
    """Learn scores on frozen `nets`, one goal a net; nothing is trained but the scores.

    `head` "softmax" puts a softmax before the loss for every task, as the released code does;
    `joint` ranks a layer's weights and biases together.
    """
    whole = [
        Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()}) for net in nets
    ]
    stack = Stack(nets, whole)
    frozen = stack.weights.clone()
    scores = first_scores(stack, gpu.generator("cpu", "popup", *seed), joint)
    slopes = torch.zeros_like(scores)
    optimizer = Sgd(
        scores, slopes, fit.lr, fit.momentum, weight_decay=fit.weight_decay, fused=False
    )
    history = []
    with no_denormals():
        for epoch in range(1, fit.epochs + 1):
            densities = [goal.at(epoch, fit.epochs) for goal in goals]
            optimizer.lr = fit.lr * (1 + cos(pi * (epoch - 1) / fit.epochs)) / 2
            for xs, ys in batches(x, y, fit.batch, (*seed, epoch)):
                torch.mul(frozen, select(stack, scores, densities, joint), out=stack.weights)
                stack.backward(xs, ys, kind, head)
                slopes.copy_(popup_gradient(stack.grads, frozen, scores))
                optimizer.step()
            check_finite(fit.lr, epoch, [scores])
            history.append(_masks(stack, select(stack, scores, densities, joint)))
            progress.tell(epoch=epoch, passes=len(x) * stack.count)
    torch.mul(frozen, select(stack, scores, densities, joint), out=stack.weights)
    for chosen, mask, net in zip(stack.states(), history[-1], nets, strict=True):
        patterns.confirm(chosen, mask, net)
    return Popped(history[-1], history)


def _masks(stack: Stack, keep: Tensor) -> list[Mask]:
    blocks = stack.blocks(keep)
    named = list(zip(stack.names, blocks, stack.shapes, strict=True))
    return [
        Mask({name: block[k].view(shape) for name, block, shape in named})
        for k in range(stack.count)
    ]
