"""Edge-popup on stacks of small nets: weights stay frozen, scores learn which ones to keep.

Ramanujan et al. 2020, extended to biases as in Plant 'n' Seek. As in the released code for these
nets, each weight and bias tensor keeps its own share of the highest ``|score|``, so that at least
one entry of each tensor always stays. `joint` ranks a layer's weights and biases together (as in
the released code for VGG-16), so that a layer may lose all biases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sqrt

import torch
from pydantic import Field
from torch import Tensor

from ticketlab import gpu, progress
from ticketlab.many.stacks import Head, Kind, Stack, batches, targets, widths
from ticketlab.papers.plant_n_seek.algorithm.choice import Choice
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.saliency import popup_gradient
from ticketlab.spec import Spec
from ticketlab.training.loop import check_finite, no_denormals
from ticketlab.training.optimizers import Sgd


class PopupFit(Spec):
    """Training of the scores: SGD with momentum, cosine from `lr` to 0 over the epochs."""

    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Goal:
    """The target density of one net of the stack, reached at once or annealed.

    Annealed, the density of epoch e of E is density^(e/E) (section 4.2).
    """

    density: float
    annealed: bool = False

    def at(self, epoch: int, epochs: int) -> float:
        """Return the density of an epoch, counted from 1."""
        return self.density ** (epoch / epochs) if self.annealed else self.density


@dataclass(frozen=True)
class Popped:
    """The masks of all nets after the last epoch, and after every epoch."""

    masks: list[Mask]
    epochs: list[list[Mask]]


def first_bounds(fan_in: int, joint: bool) -> tuple[float, float]:
    """Return the bounds +-b of uniform initial scores of weights, and of biases (0 if separate)."""
    return 1 / sqrt(fan_in), sqrt(6 / fan_in) if joint else 0.0


def first_scores(stack: Stack, random: torch.Generator, joint: bool = False) -> Tensor:
    """Return flat scores, uniform within `first_bounds`, the same for every net of the stack."""
    blocks = []
    for place, shape in enumerate(stack.shapes):
        bound = first_bounds(stack.shapes[place - place % 2][0], joint)[place % 2]
        one = bound * (2 * torch.rand(shape.numel(), generator=random) - 1)
        blocks.append(one.repeat(stack.count))
    return torch.cat(blocks).to(stack.weights.device)


def choice(stack: Stack, joint: bool = False) -> Choice:
    """Return the selection for a stack: each tensor's own share, or with `joint` each layer's."""
    ranks = [torch.arange(n.numel(), device=stack.weights.device) for n in stack.shapes]
    step = 2 if joint else 1
    groups = [range(place, place + step) for place in range(0, len(ranks), step)]
    return Choice(ranks, groups, stack.count)


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
    """Train scores on frozen `nets`, one goal per net; the weights are not trained.

    `head` "softmax" puts a softmax before the loss for every task, as the released code does;
    `joint` ranks a layer's weights and biases together.
    """
    whole = [
        Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()}) for net in nets
    ]
    stack = Stack(nets, whole)
    frozen = stack.weights.clone()
    scores = first_scores(stack, gpu.generator("cpu", "popup", *seed), joint)
    optimizer = Sgd(scores, scores, fit.lr, fit.momentum, weight_decay=fit.weight_decay)
    choose, wanted, history = choice(stack, joint), targets(y, kind, widths(nets[0])[-1]), []
    with no_denormals():
        for epoch in range(1, fit.epochs + 1):
            shares = choose.thresholds([goal.at(epoch, fit.epochs) for goal in goals])
            optimizer.lr = fit.lr * (1 + cos(pi * (epoch - 1) / fit.epochs)) / 2
            for xs, ys in batches(x, wanted, fit.batch, (*seed, epoch)):
                torch.mul(frozen, choose(scores, shares), out=stack.weights)
                stack.backward(xs, ys, kind, head)
                optimizer.grads = popup_gradient(stack.grads, frozen, scores)
                optimizer.step()
            check_finite(fit.lr, epoch, [scores])
            history.append(_masks(stack, choose(scores, shares).bool()))
            progress.tell(epoch=epoch, passes=len(x) * stack.count)
    torch.mul(frozen, choose.chosen, out=stack.weights)
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
