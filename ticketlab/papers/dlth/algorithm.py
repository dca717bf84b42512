"""RST: random sparse network transformation, the method of DLTH (Bai et al., ICLR 2022).

A random mask is fixed first. Then the dense net is trained under a growing L2 penalty that drives
the weights outside the mask to zero, and the remaining net is finetuned. arXiv 2203.04248, its
section 3; step numbers refer to the procedure as laid out in the authors' code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning.criteria import magnitude, uniform
from ticketlab.pruning.masks import Mask, State, keep_top_layerwise
from ticketlab.spec import InputError, Spec
from ticketlab.study.bench import Setting
from ticketlab.training.evaluation import evaluate
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run
from ticketlab.training.recipe import Recipe

Densities = Mapping[str, float]
Seed = tuple[object, ...]


# ---------------------------------------------------------------- masks (step 2)


def removed_count(weights: int, sparsity: float) -> int:
    """Return min(ceil(s n), n - 1), the weights that a layer loses; one always stays (step 2)."""
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity: {sparsity} is outside [0, 1)")
    return min(ceil(round(sparsity * weights, 9)), weights - 1)


def kept_counts(dense: Mask, sparsity: float) -> dict[str, int]:
    """Return the weights left per layer at the same sparsity in all layers."""
    return {n: keep.numel() - removed_count(keep.numel(), sparsity) for n, keep in dense.items()}


def erk_counts(dense: Mask, sparsity: float) -> dict[str, int]:
    """Return the weights left under Erdos-Renyi-kernel ratios (Evci et al. 2020) at this sparsity.

    A layer's density is proportional to the sum over the product of its dimensions; layers that
    would exceed 1 stay dense and the others share the rest. Each layer keeps at least one weight.
    """
    removed_count(dense.total, sparsity)
    raw = {name: sum(keep.shape) / keep.numel() for name, keep in dense.items()}
    full: set[str] = set()
    while True:
        free = [name for name in dense if name not in full]
        left = (1 - sparsity) * dense.total - sum(dense[name].numel() for name in full)
        scale = left / sum(raw[name] * dense[name].numel() for name in free)
        over = {name for name in free if scale * raw[name] > 1}
        if not over:
            break
        full |= over
    density = {name: 1.0 if name in full else scale * raw[name] for name in dense}
    return {name: max(1, round(density[name] * keep.numel())) for name, keep in dense.items()}


def random_mask(dense: Mask, keep: Mapping[str, int], generator: torch.Generator) -> Mask:
    """Return a uniform random mask with `keep` weights in each layer of `dense`, on its device."""
    within = dense.to(generator.device)
    return keep_top_layerwise(uniform(dense, generator), keep, within).to(dense.device)


def magnitude_mask(
    weights: Mapping[str, Tensor], dense: Mask, sparsity: float, largest: bool = True
) -> Mask:
    """Keep the largest ``|w|`` of each layer; the smallest ones with `largest=False`."""
    sizes = magnitude(weights, dense)
    scores = sizes if largest else {name: -size for name, size in sizes.items()}
    return keep_top_layerwise(scores, kept_counts(dense, sparsity), within=dense)


def cycle_sparsities(sparsity: float, cycles: int) -> list[float]:
    """Return the targets of RST-Iter's cycles, 1 - (1 - s)^(c / N) for c = 1..N."""
    return [1 - (1 - sparsity) ** (c / cycles) for c in range(1, cycles + 1)]


# ---------------------------------------------------------------- the growing penalty (steps 3-7)


class Penalty(Spec):
    """How the penalty on the removed weights grows: lambda = ceiling x u^power.

    u starts at 0 and gains 1 / updates every `every` iterations until it exceeds 1 (about the end
    of `ramp`); lambda is constant from then on. The authors use ceiling 1 and 10,000 updates, one
    every 5 iterations.
    """

    ceiling: float = Field(default=1.0, gt=0)
    ramp: int = Field(default=50_000, ge=1)
    """Approximate number of iterations from the first increment to the last."""
    every: int = Field(default=5, ge=1)
    power: int = Field(default=1, ge=0, le=3)
    """1, 2, 3: the schedules x, x^2, x^3; 0: no growth, the full penalty from the first step."""


class RstSetting(Setting):
    """A setting whose units may transform nets; units that do not leave `transform` out."""

    transform: Recipe | None = None
    penalty: Penalty = Penalty()

    @property
    def pressed(self) -> Recipe:
        """The recipe of the transformation; InputError for a unit that has none."""
        if self.transform is None:
            raise InputError("transform: none given, this unit needs one")
        return self.transform


def ramp_values(updates: int, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Return u after each increment of 1 / updates, up to the first value above 1 (step 5).

    In float32, as in the authors' code, 10,000 increments of 1e-4 suffice; float64 needs one more.
    """
    steps = np.full(updates + 2, dtype(1 / updates), dtype=dtype)
    values = np.cumsum(steps, dtype=dtype)  # sequential: no pairwise summation
    return values[: int(np.argmax(values > 1)) + 1]


def strengths(penalty: Penalty) -> np.ndarray:
    """Return lambda per iteration, from 0 until it is constant, float32 (n,).

    The first increment happens at iteration 0, before the first step (step 4).
    """
    u = ramp_values(max(1, penalty.ramp // penalty.every))
    each = penalty.ceiling * u.astype(np.float64) ** penalty.power
    return np.repeat(each, penalty.every)[: (len(u) - 1) * penalty.every + 1].astype(np.float32)


def strength(penalty: Penalty, iteration: int) -> float:
    """Return lambda at one iteration, counted from 0."""
    trace = strengths(penalty)
    return float(trace[min(iteration, len(trace) - 1)])


def decay_time(penalty: Penalty, recipe: Recipe, nats: float = 7.0) -> float:
    """Return the iterations until the penalty alone shrinks a removed weight by e^nats.

    The default, 7 nats, is a factor of a thousand. With momentum the effective rate is
    lr / (1 - momentum); by iteration t a ramp of power p removes
    rate x ceiling x t^(p+1) / ((p + 1) ramp^p) nats. For p = 1 and 7 nats the result is
    sqrt(14 ramp (1 - momentum) / (lr ceiling)). If it exceeds the ramp, it is only a bound.
    """
    rate, p = recipe.lr / (1 - recipe.momentum), penalty.power
    return float((nats * (p + 1) * penalty.ramp**p / (rate * penalty.ceiling)) ** (1 / (p + 1)))


def check_penalty(penalty: Penalty, recipe: Recipe, iterations: int) -> None:
    """Reject a ramp longer than the run, and a penalty for which the optimiser is unstable.

    SGD with momentum on a quadratic of curvature lambda is stable for lr x lambda < 2 (1 + mom).
    """
    if penalty.ramp > iterations:
        raise InputError(
            f"penalty.ramp: {penalty.ramp} iterations, allowed are at most the run's {iterations}"
        )
    top, bound = float(strengths(penalty)[-1]), 2 * (1 + recipe.momentum)
    if recipe.lr * top >= bound:
        raise InputError(
            f"penalty.ceiling: lr x lambda = {recipe.lr * top:.3g} is unstable, allowed is less "
            f"than 2 (1 + momentum) = {bound:.3g}"
        )


class GrowingPenalty(Observer):
    """Adds lambda (1 - m) w to the gradients: (lambda / 2) sum of w^2 over removed weights (3).

    All layers share one lambda. Removed weights also get the gradient of the loss, and ordinary
    weight decay acts on all weights. `trace` has the lambda of each step.
    """

    edits = True

    def __init__(self, mask: Mask, penalty: Penalty) -> None:
        self.mask, self.penalty, self.values = mask, penalty, strengths(penalty).tolist()
        self.removed: Tensor | None = None
        self.trace: list[float] = []

    def before_step(self, run: Run) -> None:
        """Add the penalty's gradient to the flat gradient, in place."""
        if self.removed is None:
            self.removed = 1 - run.net.flatten(self.mask)
        now = self.values[min(run.iteration, len(self.values) - 1)]
        self.trace.append(now)
        run.net.grads.addcmul_(self.removed, run.net.weights, value=now)


# ---------------------------------------------------------------- transformation (steps 3-8)


def transform(
    net: Net,
    data: DataSet,
    mask: Mask,
    recipe: Recipe,
    penalty: Penalty | None,
    seed: Seed,
    observers: Sequence[Observer] = (),
) -> None:
    """Train the whole dense net while the penalty shrinks what `mask` removes; in place.

    Without a penalty this is plain dense training: the control that removes abruptly. Nothing is
    set to zero here; see `remove`.
    """
    growing = [] if penalty is None else [GrowingPenalty(mask, penalty)]
    train(net, data.train, data, recipe, seed=seed, observers=[*growing, *observers])


def remove(net: Net, mask: Mask) -> None:
    """Set the removed weights to exactly 0 and leave everything else unchanged (step 8)."""
    with torch.no_grad():
        net.weights.mul_(net.flatten(mask))


def transform_iteratively(
    press: Callable[[int, Mask], State],
    dense: Mask,
    sparsity: float,
    cycles: int,
    generator: torch.Generator,
    leak: bool = False,
) -> Iterator[Mask]:
    """RST-Iter (2.3): grow the random mask over `cycles`; each restarts the penalty at lambda = 0.

    `press(cycle, mask)` continues from the current weights and returns them; nothing is set to zero
    in between. The mask is kept from cycle to cycle. With `leak` it is recomputed as the smallest
    weights of each layer, as in the authors' code, which replaces some of the weights in it.
    """
    mask = dense
    for cycle, target in enumerate(cycle_sparsities(sparsity, cycles)):
        mask = random_mask(mask, kept_counts(dense, target), generator)
        weights = press(cycle, mask)
        yield mask
        if leak:
            mask = magnitude_mask(weights, dense, target)


def weight_ratio(state: Mapping[str, Tensor], mask: Mask) -> float:
    """Return mean ``|w|`` of removed weights over mean ``|w|`` of kept ones, all layers together.

    Raises InputError if all kept weights are 0.
    """
    size = torch.cat([state[name].detach().abs().flatten() for name in mask])
    keep = mask.flat()
    kept = size[keep].mean()
    if not kept:
        raise InputError("all kept weights are 0: a learning rate or a penalty is too high")
    return float(size[~keep].mean() / kept)


@dataclass
class Watch(Observer):
    """Observes the transformation every `every` steps: accuracy with and without removed weights.

    `looks` has one entry per observation: iteration (steps made), dense and masked accuracy on
    `images` in percent, the ratio of `weight_ratio`, and the share of kept weights that have their
    initial sign. The net is left unchanged.
    """

    mask: Mask
    images: Images
    data: DataSet
    every: int
    edits = True
    looks: list[dict[str, float]] = field(default_factory=list)
    start: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batches = Batches(self.images, self.data)

    def before_step(self, run: Run) -> None:
        """Observe before the first step."""
        if run.iteration == 0:
            self.start = self.start or run.net.state()
            self.look(run.net, 0)

    def after_step(self, run: Run) -> None:
        """Observe after every `every`-th step, and after the last."""
        made = run.iteration + 1
        if made % self.every == 0 or made == run.total:
            self.look(run.net, made)

    def look(self, net: Net, iteration: int) -> None:
        """Append one observation."""
        with torch.no_grad():
            state = net.state()
            whole = evaluate(net, self.images, self.batches).accuracy
            remove(net, self.mask)
            alone = evaluate(net, self.images, self.batches).accuracy
            net.rewind(state)
        self.looks.append(
            {
                "iteration": iteration,
                "dense_mode": 100 * whole,
                "masked_mode": 100 * alone,
                "ratio": weight_ratio(state, self.mask),
                "same_sign": same_sign(state, self.start, self.mask),
            }
        )


def same_sign(state: Mapping[str, Tensor], start: Mapping[str, Tensor], mask: Mask) -> float:
    """Return the share of the kept weights whose sign is that of `start`."""
    keep = mask.flat()
    now, then = (
        torch.cat([s[n].detach().flatten() for n in mask])[keep].sign() for s in (state, start)
    )
    return float((now == then).float().mean())
