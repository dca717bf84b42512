"""Planting a trained ticket of a convolutional chain (VGG, Conv-6) into a wider net of its kind.

ReLU, max-pooling and average-pooling pass on a positive factor of a channel, so every filter can be
planted at its own positive scale and at any position. The released code drops the sign of its
factors, which flips channels before ReLU: about half of them are lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from ticketlab.papers.plant_n_seek.algorithm.planting import check_factors
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError

# ---------------------------------------------------------------- the mother

BIAS = 0.06
"""Std of the mother's biases over the product of the weights' stds so far (section 4.4)."""


def bias_of(weight: str) -> str:
    """Return the name of the bias that belongs to a weight."""
    return weight.removesuffix("weight") + "bias"


def chain_deviations(like: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Return each tensor's std: He for weights, `BIAS` times their product so far for biases."""
    found, product = {}, 1.0
    for name in names:
        found[name] = sqrt(2 / like[name][0].numel())
        product *= found[name]
        found[bias_of(name)] = BIAS * product
    return found


def chain_mother(
    like: Mapping[str, Tensor], names: Sequence[str], random: torch.Generator
) -> State:
    """Draw a chain of these shapes, He-scaled with non-zero biases, float64."""
    return {
        name: scale * torch.randn(like[name].shape, generator=random, dtype=torch.float64)
        for name, scale in chain_deviations(like, names).items()
    }


def check_chain(state: Mapping[str, Tensor], names: Sequence[str], model: str) -> None:
    """Raise InputError for a net with batch-norm, shortcuts, or weights without a bias."""
    wanted = {part for name in names for part in (name, bias_of(name))}
    if wanted != set(state) or any(
        state[after].shape[1] % state[before].shape[0] for before, after in pairwise(names)
    ):
        allowed = "allowed are chains of biased layers without batch-norm such as vgg16 or conv6"
        raise InputError(f"model.name: {model!r} cannot be planted, {allowed}")


def even_gains(names: Sequence[str], density: float) -> dict[str, float]:
    """Return factors that keep signals as large under a random mask of `density` as without it.

    1 / sqrt(density) per weight; a bias gets the product over all layers so far, so that the net
    computes the same up to one positive factor.
    """
    gains = {}
    for depth, name in enumerate(names, start=1):
        gains[name], gains[bias_of(name)] = density**-0.5, density ** (-depth / 2)
    return gains


# ---------------------------------------------------------------- planting


@dataclass(frozen=True)
class PlantedChain:
    """A ticket in its mother: `weights` under `mask` compute `factor` times the ticket's outputs.

    `places` gives, layer by layer, the mother's channel for each channel of the ticket.
    """

    weights: State
    mask: Mask
    factor: float
    places: tuple[Tensor, ...]

    def ticket(self) -> State:
        """Return the planted ticket, with all other weights removed."""
        return {n: w * self.mask[n] if n in self.mask else w for n, w in self.weights.items()}


def plant_chain(
    ticket: State, mother: State, names: Sequence[str], random: torch.Generator
) -> PlantedChain:
    """Plant a masked chain net into `mother`; `names` are its weights (out, in, ...) in order.

    A filter goes to a random free channel, scaled to the norm of the entries that it replaces; all
    outputs share one factor and keep their order. Between convolutions and linear layers each
    channel becomes one input per pixel. Biases are named like their weights. Zeros of the ticket
    are not planted. InputError for a mother that is too narrow or of another shape.
    """
    weights, masks = {name: tensor.clone() for name, tensor in mother.items()}, {}
    sources = torch.arange(ticket[names[0]].shape[1])
    scale = torch.ones(len(sources), dtype=ticket[names[0]].dtype)
    places = [sources]
    check_room(ticket, mother, names)
    for name in names:
        bias = bias_of(name)
        pixels = _pixels(ticket[name], len(sources))
        sources = (pixels * sources[:, None] + torch.arange(pixels)).flatten()
        scale = scale.repeat_interleave(pixels)
        own = (weights[name], weights[bias])
        wanted = (ticket[name] / _over_inputs(scale, ticket[name]), ticket[bias])
        chosen = _channels(len(own[1]), len(wanted[1]), name == names[-1], random)
        scale = check_factors(_factors(wanted, own, chosen, sources, name == names[-1]))
        masks[name], masks[bias] = _place(wanted, own, chosen, sources, scale)
        sources = chosen
        places.append(chosen)
    return PlantedChain(weights, Mask(masks), float(scale[0]), tuple(places))


Layer = tuple[Tensor, Tensor]


def _pixels(weight: Tensor, channels: int) -> int:
    """Return the inputs per channel of a weight: one, or its pixels if images are flattened."""
    return max(1, weight.shape[1] // channels) if weight.dim() == 2 else 1


def check_room(
    ticket: Mapping[str, Tensor], mother: Mapping[str, Tensor], names: Sequence[str]
) -> None:
    """Raise InputError unless both are chains of one kind and the mother is wide enough."""
    inputs, own_inputs = (state[names[0]].shape[1] for state in (ticket, mother))
    for name in names:
        wanted, own = ticket[name].shape, mother[name].shape
        pixels = _pixels(ticket[name], inputs)
        if (wanted[1], own[1]) != (pixels * inputs, pixels * own_inputs):
            raise InputError(f"{name}: {wanted[1]} inputs for {inputs} channels, not a chain")
        if wanted[2:] != own[2:] or wanted[0] > own[0] or wanted[1] > own[1]:
            shapes = f"{tuple(own)}, the ticket needs {tuple(wanted)} or wider"
            raise InputError(f"mother: {name} has shape {shapes}")
        inputs, own_inputs = wanted[0], own[0]


def _over_inputs(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (weight.dim() - 2))


def _channels(have: int, need: int, outputs: bool, random: torch.Generator) -> Tensor:
    """Choose positions for a layer's channels: any free ones, but outputs keep their order."""
    return torch.arange(need) if outputs else torch.randperm(have, generator=random)[:need]


def _factors(wanted: Layer, own: Layer, chosen: Tensor, sources: Tensor, outputs: bool) -> Tensor:
    """Return each channel's factor, which preserves the norm of the replaced entries."""
    need = torch.cat([wanted[0].flatten(1), wanted[1][:, None]], 1)
    here = own[0][chosen][:, sources].flatten(1)
    have = torch.cat([here, own[1][chosen][:, None]], 1) * (need != 0)
    squares = torch.stack([have.square().sum(1), need.square().sum(1)])
    if outputs:
        squares = squares.sum(1, keepdim=True).expand(-1, len(need))
    ratio = (squares[0] / squares[1]).sqrt()
    return torch.where(squares[1] > 0, ratio, 1.0)  # 1 for a channel without any weight


def _place(
    wanted: Layer, own: Layer, chosen: Tensor, sources: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Overwrite the layer in place; return the mask (weights, biases) of the planted entries."""
    weight, bias = own
    scaled = wanted[0] * scale.view(-1, *[1] * (weight.dim() - 1))
    rows, columns = chosen[:, None], sources[None]
    weight[rows, columns] = torch.where(scaled != 0, scaled, weight[rows, columns])
    bias[chosen] = torch.where(wanted[1] != 0, scale * wanted[1], bias[chosen])
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[rows, columns] = wanted[0] != 0
    kept_bias = torch.zeros_like(bias, dtype=torch.bool)
    kept_bias[chosen] = wanted[1] != 0
    return kept, kept_bias


# ---------------------------------------------------------------- connected entries of a chain


def chain_connected(mask: Mask, names: Sequence[str]) -> Mask:
    """Return the entries on a path of channels from the images to an output.

    A bias counts if its channel has a path to an output. Image borders are ignored.
    """
    links = [mask[name].flatten(2).any(2) if mask[name].dim() > 2 else mask[name] for name in names]
    fed = [torch.ones_like(links[0][0])]
    for link in links:
        fed.append((link & _spread(fed[-1], link.shape[1])).any(1))
    seen, live = torch.ones_like(fed[-1]), dict(mask)
    for name, link, source in zip(names[::-1], links[::-1], fed[-2::-1], strict=True):
        shape = (1, -1, *[1] * (mask[name].dim() - 2))
        inputs = _spread(source, link.shape[1]).view(shape)
        live[name] = mask[name] & inputs & seen.view(-1, *[1] * (mask[name].dim() - 1))
        live[bias_of(name)] = mask[bias_of(name)] & seen
        seen = (link & seen[:, None]).any(0).view(len(source), -1).any(1)
    return Mask(live)


def _spread(channels: Tensor, inputs: int) -> Tensor:
    return channels.repeat_interleave(inputs // len(channels))


def chain_in_deviations(weights: State, deviations: Mapping[str, float]) -> State:
    """Return ``|w| / sigma`` of every entry."""
    return {name: weights[name].abs() / scale for name, scale in deviations.items()}
