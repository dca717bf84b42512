"""Pruning scores that use the loss or the wiring: SNIP, GraSP, SynFlow, edge-popup.

A criterion is a function (probe, weights, mask) -> scores; high scores are kept. `magnitude` and
`uniform` of `criteria` are available as criteria too. `prune_to` turns the scores into a mask with
exactly k entries. Formulas follow the papers. All entries that the mask names, biases included,
are ranked together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ticketlab import plugins
from ticketlab.pruning import criteria
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask, State, check_fits, keep_top, keep_top_layerwise
from ticketlab.pruning.synflow import synflow as synflow_at_once
from ticketlab.spec import InputError, Registry

# ---------------------------------------------------------------- what a criterion can use


@dataclass(frozen=True)
class Probe:
    """A net as a function of its weights, one batch to score it on, and a random generator."""

    forward: Callable[[State, Tensor], Tensor]
    x: Tensor
    y: Tensor
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    random: torch.Generator | None = None


def probe_model(
    model: nn.Module, x: Tensor, y: Tensor, random: torch.Generator | None = None
) -> Probe:
    """Build a probe of any of our models on a batch of its inputs; batch-norm in eval mode."""

    def forward(weights: State, inputs: Tensor) -> Tensor:
        training, dtype = model.training, next(iter(weights.values())).dtype
        buffers = {
            name: buffer.to(dtype) if buffer.is_floating_point() else buffer
            for name, buffer in model.named_buffers()
        }
        model.eval()
        try:
            logits: Tensor = functional_call(model, {**buffers, **weights}, (inputs,))
            return logits
        finally:
            model.train(training)

    return Probe(forward, x, y, random=random)


Criterion = Callable[[Probe, State, Mask], Scores]
"""One score per entry that the mask names; high scores are kept."""


# ---------------------------------------------------------------- the criteria


def random(probe: Probe, weights: State, mask: Mask) -> Scores:
    """Return uniform scores in [0, 1): random pruning."""
    if probe.random is None:
        raise InputError("random: the probe has no generator, pass one as `random`")
    return criteria.uniform(mask, probe.random)


def magnitude(probe: Probe, weights: State, mask: Mask) -> Scores:
    """Return ``|w|``: magnitude pruning (Han et al. 2015)."""
    return criteria.magnitude(weights, mask)


def snip(probe: Probe, weights: State, mask: Mask) -> Scores:
    """Return ``|w dL/dw|`` at the masked weights (Lee et al. 2019, equation 4)."""
    masked = _leaves(weights, mask)
    slopes = _slopes(probe.loss(probe.forward(masked, probe.x), probe.y), masked, mask)
    return {name: (weights[name] * slopes[name]).abs().detach() for name in mask}


TEMPERATURE = 200.0
"""GraSP divides the outputs by this temperature before the loss, as its authors' code does."""


def grasp(probe: Probe, weights: State, mask: Mask) -> Scores:
    """Return w (H g) with gradient g = dL/dw and Hessian H (Wang et al. 2020, equation 8).

    The paper scores -w (H g) and removes the largest, which selects the same weights. Removed
    entries score exactly 0.
    """
    masked = _leaves(weights, mask)
    loss = probe.loss(probe.forward(masked, probe.x) / TEMPERATURE, probe.y)
    slopes = _slopes(loss, masked, mask, again=True)
    flow = sum((slopes[n].detach() * mask[n] * slopes[n]).sum() for n in mask)
    curved = _slopes(flow, masked, mask)  # type: ignore[arg-type]
    return {name: (masked[name] * curved[name]).detach() for name in mask}


def synflow(probe: Probe, weights: State, mask: Mask) -> Scores:
    """Return ``|w| dR/d|w|``, where R sums the outputs of the net of ``|w|`` on an input of ones.

    Tanaka et al. 2020, equation 3. Uses no data; float64, because the products of a deep net
    exceed the range of float32.
    """
    absolute = {name: tensor.double().abs() for name, tensor in weights.items()}
    masked = _leaves(absolute, mask)
    total = probe.forward(masked, torch.ones_like(probe.x[:1], dtype=torch.float64)).sum()
    slopes = _slopes(total, masked, mask)
    return {name: (masked[name] * slopes[name]).detach() for name in mask}


CRITERIA: Registry[str, Criterion] = {
    "random": random,
    "magnitude": magnitude,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
}


TAKES = ("probe", "weights", "mask")
"""The signature of a criterion."""


def named_criterion(name: str) -> Criterion:
    """Return the built-in criterion of this name, or the plug-in `my_module:function`.

    Raises InputError with the problem and what is allowed.
    """
    return plugins.choose(name, CRITERIA, TAKES)


def _checked_name(name: str) -> str:
    named_criterion(name)
    return name


CriterionName = Annotated[str, AfterValidator(_checked_name)]
"""A parameter that names a criterion: a built-in one or a plug-in."""


def counted(probe: Probe, seen: list[int]) -> Probe:
    """Return a probe that appends the number of images of each forward pass to `seen`."""

    def forward(weights: State, inputs: Tensor) -> Tensor:
        seen.append(len(inputs))
        return probe.forward(weights, inputs)

    return replace(probe, forward=forward)


def _leaves(weights: State, mask: Mask) -> State:
    """Return the masked weights as leaves of a new autograd graph."""
    return {
        name: (tensor.detach() * mask[name] if name in mask else tensor.detach()).requires_grad_(
            name in mask
        )
        for name, tensor in weights.items()
    }


def _slopes(value: Tensor, at: State, mask: Mask, again: bool = False) -> State:
    """Return d(value)/d(each masked weight); zero where the value does not depend on it."""
    found = torch.autograd.grad(
        value, [at[name] for name in mask], create_graph=again, materialize_grads=True
    )
    return dict(zip(mask, found, strict=True))


# ---------------------------------------------------------------- from scores to a mask


def kept_at(total: int, density: float) -> int:
    """Return total - int((1 - density) total): how many entries are kept at a density."""
    keep = total - int((1 - density) * total)
    if not 0 < density <= 1 or keep < 1:
        raise InputError(f"density: {density:g} keeps less than one of {total} weights")
    return keep


def checked(scores: Mapping[str, Tensor], mask: Mask, name: str) -> Scores:
    """Return the scores, or raise InputError naming the criterion and the problem."""
    for layer, keep in mask.items():
        if layer not in scores:
            raise InputError(f"criterion {name!r}: no scores for {layer!r}")
        have = scores[layer]
        if have.shape != keep.shape:
            shapes = f"{tuple(have.shape)}, the weight has {tuple(keep.shape)}"
            raise InputError(f"criterion {name!r}: scores of {layer!r} have shape {shapes}")
        if bool(have.isnan().any()):
            raise InputError(f"criterion {name!r}: NaN among the scores of {layer!r}")
    return {layer: scores[layer] for layer in mask}


@dataclass(frozen=True)
class Rule:
    """How scores become a mask: exactly k entries, none of them revived, unless `as_released`.

    `as_released` follows the authors' code: it ranks removed entries again and keeps those that
    score strictly above the k-th smallest, so all ties at the threshold are removed and removed
    weights can return. `layerwise` uses one threshold per tensor instead of one for all.
    """

    layerwise: bool = False
    as_released: bool = False

    def select(self, scores: Scores, mask: Mask, density: float) -> Mask:
        """Return the mask that keeps `density` of all entries that `mask` names."""
        keep = kept_at(mask.total, density)
        if self.as_released:
            return _strictly_above(scores, mask, density, self.layerwise)
        if not self.layerwise:
            return keep_top(scores, min(keep, mask.alive), within=mask)
        counts = {
            name: min(kept_at(entries.numel(), density), int(entries.sum()))
            for name, entries in mask.items()
        }
        return keep_top_layerwise(scores, counts, within=mask)


def _strictly_above(scores: Scores, mask: Mask, density: float, layerwise: bool) -> Mask:
    groups = [[name] for name in mask] if layerwise else [list(mask)]
    layers: dict[str, Tensor] = {}
    for names in groups:
        flat = torch.cat([scores[name].flatten() for name in names])
        removed = int((1 - density) * flat.numel())
        threshold = flat.kthvalue(removed).values if removed else flat.min() - 1
        layers |= {name: scores[name] > threshold for name in names}
    return Mask(layers)


EXACT = Rule()


def prune_to(
    criterion: Criterion,
    probe: Probe,
    weights: State,
    mask: Mask,
    density: float,
    rounds: int = 1,
    rule: Rule = EXACT,
) -> Mask:
    """Score and prune down to `density` of all entries, in `rounds` steps of `schedule`.

    Raises InputError for a density below one weight and for scores of a wrong shape or NaN.
    """
    name = getattr(criterion, "__name__", "criterion")
    for share in schedule(density, rounds):
        mask = rule.select(checked(criterion(probe, weights, mask), mask, name), mask, share)
    return mask


def schedule(density: float, rounds: int) -> list[float]:
    """Return the density after each round e of n: density^(e/n) (SynFlow's schedule)."""
    return [density ** (turn / rounds) for turn in range(1, rounds + 1)]


# ---------------------------------------------------------------- one call for any model


def score(
    model: nn.Module,
    mask: Mask,
    criterion: str | Criterion,
    x: Tensor,
    y: Tensor,
    random: torch.Generator | None = None,
) -> Scores:
    """Return the scores at the model's current weights of what `mask` names; high means keep.

    `criterion` is a name in CRITERIA, a plug-in's name, or a function; x (n, ...) and y (n,) are a
    batch of the model's inputs and labels; only "random" needs `random`. Everything is on the
    model's device, except for the mask, which is moved there.
    Raises InputError for a mask that does not fit, an unknown name, a wrong shape, or NaN.
    """
    mask = _fitted(mask, model)
    chosen = _named(criterion)
    scores = chosen(probe_model(model, x, y, random), _weights(model), mask)
    return checked(scores, mask, getattr(chosen, "__name__", "criterion"))


def prune_model(
    model: nn.Module,
    mask: Mask,
    criterion: str | Criterion,
    density: float,
    x: Tensor,
    y: Tensor,
    random: torch.Generator | None = None,
    rounds: int = 1,
    rule: Rule = EXACT,
    seen: list[int] | None = None,
) -> Mask:
    """Apply `prune_to` to a model and a batch, keeping exactly k entries; arguments as `score`.

    SynFlow runs as `synflow_at_once`, which gives the same masks in less time. For any other
    criterion, `seen` collects the number of images of each forward pass.
    """
    mask = _fitted(mask, model)
    chosen = _named(criterion)
    if chosen is synflow and rule == EXACT:
        counts = [kept_at(mask.total, share) for share in schedule(density, rounds)]
        return synflow_at_once(model, mask, counts, tuple(x.shape[1:]))
    probe = counted(probe_model(model, x, y, random), [] if seen is None else seen)
    return prune_to(chosen, probe, _weights(model), mask, density, rounds, rule)


def scoring(
    criterion: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    random: torch.Generator,
    seen: list[int],
) -> Callable[[State, Mask], Scores]:
    """Return a named criterion as a function of the weights, for a model in training.

    Batch-norm statistics are the model's at the time of the call. x (n, ...), y (n,) and `random`
    as in `score`; `seen` collects the number of images of each forward pass. The function raises
    InputError for scores of a wrong shape or NaN.
    """
    chosen = _named(criterion)
    probe = counted(probe_model(model, x, y, random), seen)

    def scored(weights: State, mask: Mask) -> Scores:
        fixed = {name: tensor.detach() for name, tensor in weights.items()}
        mask = _fitted(mask, model)
        with torch.enable_grad():
            return checked(chosen(probe, fixed, mask), mask, criterion)

    return scored


def _named(criterion: str | Criterion) -> Criterion:
    if not isinstance(criterion, str):
        return criterion
    try:
        return named_criterion(criterion)
    except InputError as error:
        raise InputError(f"criterion: {criterion!r} is not valid, {error}") from None


def _fitted(mask: Mask, model: nn.Module) -> Mask:
    """Return the mask on the model's device; InputError unless it fits."""
    check_fits(mask, model)
    return mask.to(next(model.parameters()).device)


def _weights(model: nn.Module) -> State:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# ---------------------------------------------------------------- edge-popup


def popup_gradient(slope: Tensor, weight: Tensor, score: Tensor) -> Tensor:
    """Return dL/ds = dL/dw_eff w sign(s), straight through the selection by ``|s|``.

    Ramanujan et al. 2020.
    """
    return slope * weight * score.sign()


def popup_kept(count: int, density: float) -> int:
    """Return how many of `count` entries are kept: count - int((1 - density) count), at least 1."""
    return count - int((1 - density) * count)


def popup_mask(scores: Tensor, keep: int) -> Tensor:
    """Return bool (n,): the `keep` entries of highest ``|s|``, ties by lower index.

    Finds the k-th value instead of sorting, because this runs for every tensor at every step.
    """
    size = scores.abs()
    threshold = size.kthvalue(len(size) - keep + 1).values
    chosen = size >= threshold
    if int(chosen.sum()) > keep:
        ties = size == threshold
        missing = keep - int((size > threshold).sum())
        chosen &= ~ties | (ties.cumsum(0) <= missing)
    return chosen
