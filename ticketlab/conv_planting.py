"""Planting a trained ticket of a convolutional chain (VGG) into a wider net of the same kind.

ReLU, max-pooling and average-pooling pass a positive factor of a channel on, so every filter may be
planted at its own positive scale and at any place. The released code drops the sign of its factors,
which turns channels upside down before ReLU: about half of them are lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketlab.masks import Mask
from ticketlab.planting.hide import check_factors
from ticketlab.spec import InputError
from ticketlab.training import State


@dataclass(frozen=True)
class PlantedChain:
    """A ticket in its mother: `weights` under `mask` compute `factor` times the ticket's outputs.

    `places` gives, layer by layer, the mother's channel that plays each of the ticket's.
    """

    weights: State
    mask: Mask
    factor: float
    places: tuple[Tensor, ...]

    def ticket(self) -> State:
        """The planted ticket: everything else removed."""
        return {n: w * self.mask[n] if n in self.mask else w for n, w in self.weights.items()}


def plant_chain(
    ticket: State, mother: State, names: Sequence[str], random: torch.Generator
) -> PlantedChain:
    """Plant a masked chain net into `mother`; `names` are its weights (out, in, ...) in order.

    A filter goes to a random free channel, scaled to the norm of the entries that it replaces; all
    outputs share one factor and keep their order. Biases are named as their weights are. Zeros of
    the ticket are not planted. InputError for a mother that is too narrow or of another shape.
    """
    weights, masks = {name: tensor.clone() for name, tensor in mother.items()}, {}
    sources = torch.arange(ticket[names[0]].shape[1])
    scale = torch.ones(len(sources), dtype=ticket[names[0]].dtype)
    places = [sources]
    for name in names:
        bias = name.removesuffix("weight") + "bias"
        _check_room(name, ticket[name], mother[name], len(sources))
        own = (weights[name], weights[bias])
        wanted = (ticket[name] / _over_inputs(scale, ticket[name]), ticket[bias])
        chosen = _channels(len(own[1]), len(wanted[1]), name == names[-1], random)
        scale = check_factors(_factors(wanted, own, chosen, sources, name == names[-1]))
        masks[name], masks[bias] = _place(wanted, own, chosen, sources, scale)
        sources = chosen
        places.append(chosen)
    return PlantedChain(weights, Mask(masks), float(scale[0]), tuple(places))


Layer = tuple[Tensor, Tensor]


def _check_room(name: str, wanted: Tensor, own: Tensor, inputs: int) -> None:
    if wanted.shape[1] != inputs:
        raise InputError(f"{name}: {wanted.shape[1]} inputs for {inputs} channels, not a chain")
    if wanted.shape[2:] != own.shape[2:] or any(
        need > have for need, have in zip(wanted.shape[:2], own.shape[:2], strict=True)
    ):
        shapes = f"{tuple(own.shape)}, the ticket needs {tuple(wanted.shape)} or wider"
        raise InputError(f"mother: {name} has shape {shapes}")


def _over_inputs(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (weight.dim() - 2))


def _channels(have: int, need: int, outputs: bool, random: torch.Generator) -> Tensor:
    """Places for a layer's channels: any free ones, but outputs keep their order."""
    return torch.arange(need) if outputs else torch.randperm(have, generator=random)[:need]


def _factors(wanted: Layer, own: Layer, chosen: Tensor, sources: Tensor, outputs: bool) -> Tensor:
    """What each channel is multiplied by, so that the norm of the replaced entries stays."""
    need = torch.cat([wanted[0].flatten(1), wanted[1][:, None]], 1)
    here = own[0][chosen][:, sources].flatten(1)
    have = torch.cat([here, own[1][chosen][:, None]], 1) * (need != 0)
    squares = torch.stack([have.square().sum(1), need.square().sum(1)])
    if outputs:
        squares = squares.sum(1, keepdim=True).expand(-1, len(need))
    ratio = (squares[0] / squares[1]).sqrt()
    return torch.where(squares[1] > 0, ratio, 1.0)  # a channel without any weight


def _place(
    wanted: Layer, own: Layer, chosen: Tensor, sources: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Overwrite the layer in place; the mask (weights, biases) of the planted entries."""
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
