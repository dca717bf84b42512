"""Permutations of hidden units that bring one trained net onto another of the same architecture.

Units of a hidden layer have no order: moving them, with everything that belongs to them, leaves the
function of the net unchanged. Ainsworth et al. 2023, "Git Re-Basin" (arXiv 2209.04836), match units
by weights or by activations; Adnan et al. 2025 (arXiv 2505.05143) move lottery-ticket masks along.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ticketlab import gpu
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError
from ticketlab.training.net import Net, check_state

Permutation = Mapping[str, Tensor]
"""By hidden layer, int64 (units,): entry i is the unit that moves to place i."""

CHAIN = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d,
         nn.Flatten)  # fmt: skip
"""The parts of a net whose units can be moved one layer at a time."""
SWEEPS = 100
"""Most rounds over all layers in which weights are matched."""


@dataclass(frozen=True)
class Hidden:
    """A hidden layer of a chain: names of its modules, and of the layer that reads its outputs."""

    name: str
    norm: str | None
    active: str
    """The ReLU after it."""
    reader: str

    @property
    def own(self) -> list[str]:
        """Tensors of a state that have one entry (or row) per unit, if they are there."""
        tensors = [f"{self.name}.weight", f"{self.name}.bias"]
        parts = ("weight", "bias", "running_mean", "running_var")
        return tensors + [f"{self.norm}.{part}" for part in parts if self.norm]


def hidden_layers(model: nn.Module) -> list[Hidden]:
    """Return the hidden layers of a plain net, in order; InputError for a net with shortcuts."""
    found: list[Hidden] = []
    layer, norm, active = "", None, ""
    for name, module in _chain(model):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if layer:
                found.append(Hidden(layer, norm, active, name))
            layer, norm, active = name, None, ""
        elif isinstance(module, nn.BatchNorm2d):
            norm = name
        elif isinstance(module, nn.ReLU):
            active = name
    return found


def _chain(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of body and head in the order in which images pass them."""
    body, head = getattr(model, "body", None), getattr(model, "head", None)
    parts = dict(body.named_children()) if isinstance(body, nn.Sequential) else {}
    odd = [type(part).__name__ for part in parts.values() if not isinstance(part, CHAIN)]
    if not parts or odd or not isinstance(head, nn.Linear):
        what = f"it has {odd[0]}" if odd else "its body is no chain"
        raise InputError(
            f"model: {type(model).__name__} cannot be permuted layer by layer, {what}; "
            "allowed are nets without shortcuts"
        )
    yield from ((f"body.{name}", part) for name, part in parts.items())
    yield "head", head


# ---------------------------------------------------------------- moving units


def permuted(state: State, permutation: Permutation, model: nn.Module) -> State:
    """Return the state of the same function with its hidden units moved, batch-norm included.

    InputError for a permutation that lacks a hidden layer, or has another number of its units.
    """
    moved, units = dict(state), identity(model)
    for layer in hidden_layers(model):
        order = permutation.get(layer.name, torch.empty(0))
        if not torch.equal(order.sort().values.cpu(), units[layer.name]):
            raise InputError(
                f"permutation: {layer.name!r} has {len(order)} units, allowed are the "
                f"{len(units[layer.name])} of the net, each once"
            )
        for name in layer.own:
            if name in moved:
                moved[name] = moved[name].index_select(0, order.to(moved[name].device))
        reader = f"{layer.reader}.weight"
        if reader in moved:
            moved[reader] = _inputs_moved(moved[reader], order)
    return moved


def _inputs_moved(weight: Tensor, order: Tensor) -> Tensor:
    """Move the inputs of a layer; behind a flattened map each unit has a block of inputs."""
    block = weight.shape[1] // len(order)
    order = order.to(weight.device)
    inside = torch.arange(block, device=weight.device)
    return weight.index_select(1, (block * order[:, None] + inside).flatten())


def permuted_mask(mask: Mask, permutation: Permutation, model: nn.Module) -> Mask:
    """Return the mask moved along with its weights; its layers keep their order and densities."""
    return Mask(permuted(dict(mask), permutation, model))


def identity(model: nn.Module) -> dict[str, Tensor]:
    """Return the permutation that moves nothing."""
    weights = dict(model.named_parameters())
    names = [layer.name for layer in hidden_layers(model)]
    return {name: torch.arange(len(weights[f"{name}.weight"])) for name in names}


# ---------------------------------------------------------------- matching


def match_weights(a: State, b: State, model: nn.Module) -> Permutation:
    """Match the units of `a` to those of `b` by their weights (Git Re-Basin, algorithm 1).

    One layer at a time, given all others, the inner product of the permuted `a` with `b` is made as
    large as possible, until no layer changes any more. The result does not depend on chance.
    """
    check_state("state", a, b)
    a, b = ({name: tensor.double().cpu() for name, tensor in state.items()} for state in (a, b))
    found, layers = identity(model), hidden_layers(model)
    for _ in range(SWEEPS):
        changed = [_improved(a, b, layer, found, model) for layer in layers]
        if not any(changed):
            break
    return found


def _improved(
    a: State, b: State, layer: Hidden, found: dict[str, Tensor], model: nn.Module
) -> bool:
    """Match one layer given the others, and return whether that brought `a` closer to `b`."""
    current = found[layer.name]
    free = permuted(a, found | {layer.name: torch.arange(len(current))}, model)
    similar = _inner_products(free, b, layer)
    best = _assigned(similar, layer)
    rows = torch.arange(len(best))
    gain = similar[rows, best].sum() - similar[rows, current].sum()
    if gain <= 1e-12 * similar.abs().sum():
        return False
    found[layer.name] = best
    return True


def _inner_products(a: State, b: State, layer: Hidden) -> Tensor:
    """Return the inner products (units of b, units of a) of all that belongs to two units."""
    learned = [name for name in layer.own if name in a and "running" not in name]
    pairs = [(a[name].flatten(1) if a[name].dim() > 1 else a[name][:, None],
              b[name].flatten(1) if b[name].dim() > 1 else b[name][:, None])
             for name in learned]  # fmt: skip
    reader, units = f"{layer.reader}.weight", len(a[learned[0]])
    pairs.append((_by_input(a[reader], units), _by_input(b[reader], units)))
    return torch.stack([theirs @ own.T for own, theirs in pairs]).sum(0)


def _by_input(weight: Tensor, units: int) -> Tensor:
    """Return a reader's weights as one row for each unit that it reads, (units, rest)."""
    outputs = len(weight)
    return weight.reshape(outputs, units, -1).transpose(0, 1).reshape(units, -1)


def match_activations(
    net: Net, a: State, b: State, images: Images, data: DataSet, batch: int = 250
) -> Permutation:
    """Match the units of `a` to those of `b` by the correlation of their activations on `images`.

    Activations are outputs of each layer's ReLU, over all images and positions, in evaluation mode.
    A unit that never changes correlates with none. `net` only lends its architecture.
    """
    layers = hidden_layers(net.model)
    models = [_loaded(net.model, state) for state in (a, b)]
    sums = [_Moments() for _ in layers]
    batches = Batches(images, data)
    for places in torch.arange(len(images), device=net.device).split(batch):
        x = gpu.layout(batches(places), net.runtime)
        own, theirs = (_activations(model, layers, x) for model in models)
        for moments, one, other in zip(sums, own, theirs, strict=True):
            moments.add(one, other)
    return {
        layer.name: _assigned(moments.correlations(), layer)
        for layer, moments in zip(layers, sums, strict=True)
    }


def _loaded(model: nn.Module, state: State) -> nn.Module:
    """Return a copy of the model with this state, in evaluation mode."""
    check_state("state", state, model.state_dict())
    own = copy.deepcopy(model)
    own.load_state_dict(state)
    return own.eval()


def _activations(model: nn.Module, layers: Sequence[Hidden], x: Tensor) -> list[Tensor]:
    """Return each hidden layer's activations as (images and positions, units), float64."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        module = model.get_submodule(name)
        return module.register_forward_hook(lambda _, __, output: kept.update({name: output}))

    hooks = [keep(layer.active) for layer in layers]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [kept[layer.active].double().movedim(1, -1).flatten(0, -2) for layer in layers]


class _Moments:
    """Sums of two layers' activations and of their products, batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, own: Tensor, theirs: Tensor) -> None:
        """Add activations (n, units) of both nets on the same images."""
        new = [own.sum(0), theirs.sum(0), own.square().sum(0), theirs.square().sum(0),
               theirs.T @ own]  # fmt: skip
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)] if self.sums else new
        self.count += len(own)

    def correlations(self) -> Tensor:
        """Return correlations (units of theirs, units of own); 0 for a unit without variance.

        Those of activations that are not finite are NaN.
        """
        own, theirs, own2, theirs2, product = (total / self.count for total in self.sums)
        covariance = product - theirs[:, None] * own[None]
        spread = [(square - mean.square()).clamp(min=0) for square, mean in
                  ((theirs2, theirs), (own2, own))]  # fmt: skip
        scale = (spread[0][:, None] * spread[1][None]).sqrt()
        tiny = 1e-12 * float(scale.max())
        return torch.where(scale <= tiny, 0.0, covariance / scale.clamp(min=tiny or 1.0))


def _assigned(similar: Tensor, layer: Hidden) -> Tensor:
    """Return for each row its column in the assignment of highest total similarity, (units,).

    InputError if a similarity is not finite, as for a net that has diverged.
    """
    if bad := int((~similar.isfinite()).sum()):
        raise InputError(
            f"layer {layer.name!r}: {bad} of {similar.numel()} similarities are not finite, so its "
            "units cannot be matched; allowed are nets with finite weights and activations"
        )
    _, columns = linear_sum_assignment(similar.cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, dtype=torch.int64)
