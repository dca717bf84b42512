"""Bernoulli gates on a small net: its weights stay frozen, their chances to be kept learn.

A gate is hard concrete (Louizos, Welling & Kingma 2018, arXiv 1712.01312, section 2.2): a relaxed
Bernoulli variable, stretched beyond 0 and 1 and clipped, so that it is often exactly 0 or 1 and yet
has a gradient. As in the paper, one noise is drawn per gate and batch, gates at test are
deterministic, and what is held down is the expected number of gates that are not 0.

Three rules are ours. The weights under the gates are the mother's and are never trained. To reach a
density that is given in advance, the expected density is not penalised but held at the wanted one:
after each step all log alphas are moved by one common number (`shift_to`). And the mask at
the end keeps as many entries as edge-popup would at that density, those most likely open.
"""

from dataclasses import dataclass
from math import log

import torch
from pydantic import Field
from torch import Tensor

from ticketlab import gpu, progress
from ticketlab.many.stacks import Kind, Stack, batches, targets, widths
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
    """The mask of a net after the last epoch, and what its gates were before they were cut.

    `soft` is the net under its deterministic gates (equation 13), `open` the share of these that is
    not 0, and `expected` the expected density after each epoch.
    """

    mask: Mask
    soft: State
    open: float
    expected: list[float]


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


def shift_to(chance: Tensor, wanted: float) -> Tensor:
    """Return by how much to raise a net's log alphas, so that its mean chance is the wanted one.

    One step of Newton's method from the chances (P,), at most 1 either way: log alphas move
    little between two batches, so a step a batch keeps the mean at what is wanted.
    """
    slope = (chance * (1 - chance)).mean().clamp(min=1e-12)
    return ((wanted - chance.mean()) / slope).clamp(-1, 1)


# ---------------------------------------------------------------- the search


def bernoulli_gates(
    net: State,
    density: float,
    x: Tensor,
    y: Tensor,
    kind: Kind,
    fit: GateFit,
    seed: tuple[object, ...],
) -> Gated:
    """Train gates on a frozen `net`, on the batches that edge-popup sees.

    A net is alone in its stack: beside others, its sigmoids would be rounded according to their
    place in the common buffer. First log alphas and noise follow from `seed`, so that the searches
    of a seed share them at every density. Outputs are as they are (a linear head).
    """
    whole = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in net.items()})
    stack = Stack([net], [whole])
    device, frozen = stack.weights.device, stack.weights.clone()
    random = gpu.generator(device, "gates", *seed)
    logits = fit.first + 0.01 * torch.randn(frozen.shape, generator=random, device=device)
    noise, grads = torch.empty_like(logits), torch.zeros_like(logits)
    optimizer, history = Adam(logits, grads, fit.lr), []
    seen = targets(y, kind, widths(net)[-1])
    with no_denormals():
        for epoch in range(1, fit.epochs + 1):
            wanted = wanted_density(density, epoch, fit)
            for xs, ys in batches(x, seen, fit.batch, (*seed, epoch)):
                noise.uniform_(EDGE, 1 - EDGE, generator=random)
                s, wide = stretched(logits, noise)
                torch.mul(frozen, wide.clamp(0, 1), out=stack.weights)
                stack.backward(xs, ys, kind)
                torch.mul(stack.grads * frozen, gate_gradient(s, wide), out=grads)
                optimizer.step()
                logits.add_(shift_to(open_chance(logits), wanted))
            check_finite(fit.lr, epoch, [logits])
            history.append(float(open_chance(logits).mean()))
            progress.tell(epoch=epoch, passes=len(x))
    gates = stretched(logits)[1].clamp(0, 1)
    torch.mul(frozen, gates, out=stack.weights)
    (soft,) = stack.states()
    mask = highest(shaped(stack, logits), density)
    patterns.confirm({n: w * mask[n].to(w.device) for n, w in net.items()}, mask, net)
    return Gated(mask, soft, float((gates > 0).float().mean()), history)


def wanted_density(goal: float, epoch: int, fit: GateFit) -> float:
    """Return the density of an epoch, counted from 1: goal^(e / (annealed * epochs)), then goal."""
    return float(goal ** min(1.0, epoch / (fit.annealed * fit.epochs)))


def shaped(stack: Stack, values: Tensor) -> State:
    """Return a flat buffer of a stack of one net as its state, on the CPU."""
    blocks = zip(stack.names, stack.blocks(values), stack.shapes, strict=True)
    return {name: block.view(shape).cpu() for name, block, shape in blocks}


def highest(logits: State, density: float) -> Mask:
    """Return the mask of the gates most likely open: as many entries as edge-popup would keep.

    Edge-popup keeps its share of every tensor; these may be anywhere in the net.
    """
    keep = sum(popup_kept(one.numel(), density) for one in logits.values())
    return keep_top(logits, keep)
