"""Bernoulli gates on stacks of small nets: weights stay frozen, their chances to be kept learn.

A gate is hard concrete (Louizos, Welling & Kingma 2018, arXiv 1712.01312, section 2.2): a relaxed
Bernoulli variable, stretched beyond 0 and 1 and clipped, so that it is often exactly 0 or 1 and yet
has a gradient. As in the paper, one noise is drawn per gate and batch, gates at test are
deterministic, and what is held down is the expected number of gates that are not 0.

Three rules are ours. The weights under the gates are the mother's and are never trained. To reach a
density that is given in advance, the expected density is not penalised but held at the wanted one:
after each step the log alphas of a net are moved by one common number (`shift_to`). And the mask at
the end keeps as many entries as edge-popup would at that density, those most likely open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from pydantic import Field
from torch import Tensor

from ticketlab import gpu, progress
from ticketlab.many.stacks import Kind, Stack, batches, targets, widths
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State, keep_top
from ticketlab.pruning.saliency import popup_kept
from ticketlab.spec import Spec
from ticketlab.training.loop import check_finite, no_denormals
from ticketlab.training.optimizers import Adam

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""The paper's temperature (beta) and the ends of the stretch (gamma, zeta)."""
SHIFT = TEMPERATURE * log(-LOW / HIGH)
"""A gate is not 0 with probability sigmoid(log alpha - SHIFT) (equation 12)."""
EDGE = 1e-6
"""Noise is uniform between this and 1 minus this, so that its logit is finite."""


class GateFit(Spec):
    """Training of the gates: Adam on log alpha, and how fast the density falls."""

    lr: float = Field(default=0.1, gt=0)
    first: float = 0.0
    """Mean of the first log alpha; their standard deviation is 0.01, as in the paper's code."""
    annealed: float = Field(default=0.9, gt=0, le=1)
    """Share of the epochs over which the wanted density falls to its goal, geometrically."""
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class Gated:
    """The masks of all nets after the last epoch, and what the gates were before they were cut.

    `soft` are the nets under their deterministic gates (equation 13), `open` the share of these
    that is not 0, and `expected` the expected density after each epoch.
    """

    masks: list[Mask]
    soft: list[State]
    open: list[float]
    expected: list[list[float]]


# ---------------------------------------------------------------- hard concrete


def stretched(logits: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the relaxed variable s in (0, 1), and s stretched to (LOW, HIGH), not yet clipped.

    `noise` is uniform in (0, 1); without it the gate is deterministic (equations 10, 11 and 13).
    """
    s = torch.sigmoid(logits if noise is None else (noise.logit() + logits) / TEMPERATURE)
    return s, s * (HIGH - LOW) + LOW


def gate_gradient(s: Tensor, wide: Tensor) -> Tensor:
    """Return d(gate)/d(log alpha) at a sampled gate: 0 where it is clipped."""
    inside = (wide > 0) & (wide < 1)
    return inside * s * (1 - s) * ((HIGH - LOW) / TEMPERATURE)


def open_chance(logits: Tensor) -> Tensor:
    """Return the probability that a gate is not 0 (equation 12)."""
    return torch.sigmoid(logits - SHIFT)


def shift_to(chance: Tensor, wanted: Tensor) -> Tensor:
    """Return by how much to raise each net's log alphas, (K,), so that its mean chance is wanted.

    One step of Newton's method from the chances (K, P), at most 1 either way: log alphas move
    little between two batches, so a step a batch keeps the mean at what is wanted.
    """
    slope = (chance * (1 - chance)).mean(1).clamp(min=1e-12)
    return ((wanted - chance.mean(1)) / slope).clamp(-1, 1)


# ---------------------------------------------------------------- the search


def bernoulli_gates(
    nets: Sequence[State],
    goals: Sequence[Goal],
    x: Tensor,
    y: Tensor,
    kind: Kind,
    fit: GateFit,
    seed: tuple[object, ...],
) -> Gated:
    """Train gates on frozen `nets`, one goal per net, on the batches that edge-popup sees.

    Outputs are as they are (a linear head). The arguments are those of `edge_popup`.
    """
    whole = [
        Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()}) for net in nets
    ]
    stack = Stack(nets, whole)
    device, frozen = stack.weights.device, stack.weights.clone()
    random = gpu.generator(device, "gates", *seed)
    logits = fit.first + 0.01 * torch.randn(frozen.shape, generator=random, device=device)
    noise, grads = torch.empty_like(logits), torch.zeros_like(logits)
    optimizer, history = Adam(logits, grads, fit.lr), []
    seen = targets(y, kind, widths(nets[0])[-1])
    with no_denormals():
        for epoch in range(1, fit.epochs + 1):
            wanted = torch.tensor([wanted_density(g.density, epoch, fit) for g in goals]).to(device)
            for xs, ys in batches(x, seen, fit.batch, (*seed, epoch)):
                noise.uniform_(EDGE, 1 - EDGE, generator=random)
                s, wide = stretched(logits, noise)
                torch.mul(frozen, wide.clamp(0, 1), out=stack.weights)
                stack.backward(xs, ys, kind)
                torch.mul(stack.grads * frozen, gate_gradient(s, wide), out=grads)
                optimizer.step()
                logits.add_(spread(stack, shift_to(by_net(stack, open_chance(logits)), wanted)))
            check_finite(fit.lr, epoch, [logits])
            history.append(densities(stack, open_chance(logits)).tolist())
            progress.tell(epoch=epoch, passes=len(x) * stack.count)
    gates = stretched(logits)[1].clamp(0, 1)
    torch.mul(frozen, gates, out=stack.weights)
    soft, is_open = stack.states(), densities(stack, (gates > 0).float()).tolist()
    masks = [
        highest(one, goal.density)
        for one, goal in zip(unstacked(stack, logits), goals, strict=True)
    ]
    for net, mask in zip(nets, masks, strict=True):
        patterns.confirm({n: w * mask[n].to(w.device) for n, w in net.items()}, mask, net)
    return Gated(masks, soft, is_open, history)


def wanted_density(goal: float, epoch: int, fit: GateFit) -> float:
    """Return the density of an epoch, counted from 1: goal^(e / (annealed * epochs)), then goal."""
    return float(goal ** min(1.0, epoch / (fit.annealed * fit.epochs)))


def by_net(stack: Stack, values: Tensor) -> Tensor:
    """Return a flat buffer as a row per net, (K, P)."""
    return torch.cat(stack.blocks(values), 1)


def densities(stack: Stack, values: Tensor) -> Tensor:
    """Return the mean over each net's entries of a flat buffer, (K,)."""
    return by_net(stack, values).mean(1)


def spread(stack: Stack, each: Tensor) -> Tensor:
    """Return a flat buffer in which every entry has the number of its net, from (K,)."""
    return torch.cat([each.repeat_interleave(shape.numel()) for shape in stack.shapes])


def unstacked(stack: Stack, values: Tensor) -> list[State]:
    """Return a flat buffer as one state per net, on the CPU."""
    named = list(zip(stack.names, stack.blocks(values), stack.shapes, strict=True))
    return [
        {name: block[k].view(shape).cpu() for name, block, shape in named}
        for k in range(stack.count)
    ]


def highest(logits: State, density: float) -> Mask:
    """Return the mask of the gates most likely open: as many entries as edge-popup would keep.

    Edge-popup keeps its share of every tensor; these may be anywhere in the net.
    """
    keep = sum(popup_kept(one.numel(), density) for one in logits.values())
    return keep_top(logits, keep)
