"""The mother network, and planting a target so that the mother computes it up to scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from ticketlab.many.stacks import apply, forward, layers, network, widths
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError

Mode = Literal["authors", "paper", "norm"]
"""How a neuron's position and scale are chosen: released code, the paper's text, or by norm."""

POOR_MATCH = 0.2
"""Below this cosine a matched scale would be conspicuous, so the norm decides (mode `paper`)."""


# ---------------------------------------------------------------- the mother


def deviations(shape: Sequence[int]) -> list[tuple[float, float]]:
    """Return each layer's std of weights and biases: He, and the product of He so far."""
    he = [sqrt(2 / fan_in) for fan_in in shape[:-1]]
    return [(he[layer], prod(he[: layer + 1])) for layer in range(len(he))]


def mother(shape: Sequence[int], random: torch.Generator) -> State:
    """Draw a He-scaled net with non-zero biases (section 4), float64; `shape` is its widths."""
    built = []
    for (fan_in, fan_out), (weight, bias) in zip(pairwise(shape), deviations(shape), strict=True):
        w = torch.randn(fan_in, fan_out, generator=random, dtype=torch.float64) * weight
        b = torch.randn(fan_out, generator=random, dtype=torch.float64) * bias
        built.append((w, b))
    return network(built)


# ---------------------------------------------------------------- planting


@dataclass(frozen=True)
class Planted:
    """A ticket in its mother: `weights` under `mask` computes `target`, output i times factors[i].

    `places` gives, layer by layer, the mother's neuron for each target neuron.
    """

    target: State
    mother: State
    weights: State
    mask: Mask
    factors: Tensor
    places: tuple[Tensor, ...]

    def ticket(self) -> State:
        """Return the planted ticket, with all other weights removed."""
        return apply(self.mask, self.weights)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the ticket's outputs, divided by the known output factors."""
        return forward(self.ticket(), x) / self.factors


Match = Callable[[Tensor, Tensor, Tensor, set[int]], tuple[int, float]]
"""Wanted entries (bias first, s + 1), the neurons' current entries (s + 1, n), each neuron's weight
from the layer's first source (n,), used neurons -> index, factor."""


def plant(target: State, host: State, mode: Mode, random: torch.Generator) -> Planted:
    """Plant `target` into `host` neuron by neuron (Algorithm 1); both float64 and of equal depth.

    Each planted neuron computes its factor times the target neuron; the factors are positive, so
    ReLU passes them on. InputError if the host is narrower than the target.
    """
    _check_room(widths(target), widths(host))
    match = {"authors": _match_l1, "paper": match_cosine, "norm": _match_norm}[mode](random)
    built, masks = [], []
    places = [torch.arange(widths(target)[0])]
    factors = torch.ones(widths(target)[0], dtype=torch.float64)
    pairs = list(zip(layers(target), layers(host), strict=True))
    for number, (wanted, own) in enumerate(pairs, start=1):
        if number == len(pairs) and mode != "authors":
            placed = _output_layer(wanted, own, places[-1], factors, hide_zeros=mode == "norm")
        else:
            placed = _hidden_layer(wanted, own, places[-1], factors, match, mode == "norm")
        if number == len(pairs):
            placed = _in_target_order(placed)
        built.append(placed.layer)
        masks.append(_planted_entries(wanted, own, places[-1], placed.places))
        places.append(placed.places)
        factors = check_factors(placed.factors)
    kept = network(masks)
    return Planted(target, host, network(built), Mask(kept), factors, tuple(places))


def _check_room(target: Sequence[int], host: Sequence[int]) -> None:
    if len(target) != len(host) or target[0] != host[0] or target[-1] != host[-1]:
        raise InputError(f"mother: layers {tuple(host)} do not fit the target's {tuple(target)}")
    for layer, (needed, have) in enumerate(zip(target, host, strict=True)):
        if needed > have:
            raise InputError(f"width: {have} in layer {layer}, the target needs {needed} or more")


@dataclass(frozen=True)
class _Placed:
    """One layer of the host after planting: positions and factors of its target neurons."""

    layer: tuple[Tensor, Tensor]
    places: Tensor
    factors: Tensor


Layer = tuple[Tensor, Tensor]


def _wanted(layer: Layer, neuron: int, sources: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entries that compute target neuron `neuron` from the planted sources.

    Entries are the bias, then the non-zero weights; also returns the host rows of those weights.
    """
    weight, bias = layer
    inputs = weight[:, neuron].nonzero().flatten()
    entries = torch.cat([bias[neuron : neuron + 1], weight[inputs, neuron] / scale[inputs]])
    return entries, sources[inputs]


def _hidden_layer(
    wanted: Layer, own: Layer, sources: Tensor, scale: Tensor, match: Match, hide_zeros: bool
) -> _Placed:
    """Plant every neuron of a layer, each at its own position with its own factor.

    Neurons are planted in order, so each is matched against a layer that contains the earlier ones.
    """
    weight, bias = own[0].clone(), own[1].clone()
    used: set[int] = set()
    places, factors = [], []
    for neuron in range(wanted[0].shape[1]):
        entries, rows = _wanted(wanted, neuron, sources, scale)
        have = torch.cat([bias[None], weight[rows]])
        place, factor = match(entries, have, weight[sources[0]], used)
        used.add(place)
        weight[rows, place] = factor * entries[1:]
        if entries[0] != 0 or not hide_zeros:
            bias[place] = factor * entries[0]
        places.append(place)
        factors.append(factor)
    return _Placed((weight, bias), torch.tensor(places), torch.tensor(factors, dtype=torch.float64))


def _output_layer(
    wanted: Layer, own: Layer, sources: Tensor, scale: Tensor, hide_zeros: bool
) -> _Placed:
    """Plant all outputs in their order under one factor, which keeps the norm of the entries."""
    weight, bias = own[0].clone(), own[1].clone()
    outputs = wanted[0].shape[1]
    found = [_wanted(wanted, neuron, sources, scale) for neuron in range(outputs)]
    replaced = [
        torch.cat([bias[n : n + 1], weight[rows, n]])[entries != 0]
        for n, (entries, rows) in enumerate(found)
    ]
    entries = torch.cat([entries[entries != 0] for entries, _ in found])
    factor = float(torch.cat(replaced).norm() / entries.norm())
    for neuron, (values, rows) in enumerate(found):
        weight[rows, neuron] = factor * values[1:]
        if values[0] != 0 or not hide_zeros:
            bias[neuron] = factor * values[0]
    factors = torch.full((outputs,), factor, dtype=torch.float64)
    return _Placed((weight, bias), torch.arange(outputs), factors)


def _in_target_order(placed: _Placed) -> _Placed:
    """Return the output layer with its columns in the target's order."""
    weight, bias = placed.layer
    order = placed.places
    return _Placed((weight[:, order], bias[order]), torch.arange(len(order)), placed.factors)


def _planted_entries(wanted: Layer, own: Layer, sources: Tensor, places: Tensor) -> Layer:
    """Return bool (weights, biases) of the host layer: where the target's non-zeros are."""
    weight = torch.zeros(own[0].shape, dtype=torch.bool)
    bias = torch.zeros(own[1].shape, dtype=torch.bool)
    weight[sources[:, None], places[None]] = wanted[0] != 0
    bias[places] = wanted[1] != 0
    return weight, bias


# ---------------------------------------------------------------- matching of neurons


def match_cosine(random: torch.Generator) -> Match:
    """Choose the best aligned unused neuron, scaled by its own projection (section 3.2).

    Neurons with one input all tie; ties are broken randomly. A poor match keeps the norm instead.
    """
    by_norm = _match_norm(random)

    def match(entries: Tensor, own: Tensor, first: Tensor, used: set[int]) -> tuple[int, float]:
        asked = entries != 0
        wanted, own = entries[asked], own[asked]
        cosine = (wanted @ own) / (wanted.norm() * own.norm(dim=0))
        cosine[list(used)] = -2.0
        best = float(cosine.max())
        if best <= 0:
            return by_norm(wanted, own, first, used)
        place = _one_of((cosine >= best - 1e-12).nonzero().flatten(), random)
        if best < POOR_MATCH:
            return place, float(own[:, place].norm() / wanted.norm())
        return place, float(own[:, place].square().sum() / (wanted @ own[:, place]))

    return match


def _match_norm(random: torch.Generator) -> Match:
    """Choose any unused neuron and keep the norm of what is replaced: the least visible mode."""

    def match(entries: Tensor, own: Tensor, first: Tensor, used: set[int]) -> tuple[int, float]:
        asked = entries != 0
        free = torch.tensor([n for n in range(own.shape[1]) if n not in used])
        place = _one_of(free, random)
        return place, float(own[asked, place].norm() / entries[asked].norm())

    return match


def _match_l1(_: torch.Generator) -> Match:
    """As released: least L1 distance to the projection among neurons with all signs equal.

    The bias is always part of the comparison, and so are neurons that are already planted. Without
    a match (certain for many inputs) neuron i goes to index i; if that index, or the match, is
    used, it goes to the lowest free one. Index 0 counts as used as long as there is another. If no
    match is used, the factor is ``|weight from the layer's first source / first weight wanted|``,
    the ratio of two unrelated numbers, hence the widely varying scales.
    """

    def match(entries: Tensor, own: Tensor, first: Tensor, used: set[int]) -> tuple[int, float]:
        factors = (entries @ own) / entries.square().sum()
        signed = entries.sign()[:, None] == own.sign()
        fits = (signed | (entries == 0)[:, None]).all(0) & (factors > 0)
        distance = (own - factors * entries[:, None]).abs().sum(0)
        place, count = len(used), own.shape[1]
        if fits.any():
            place = int(torch.where(fits, distance, torch.inf).argmin())
            if place not in used | {0}:
                return place, float(factors[place])
        if place in used | {0}:
            place = next((n for n in range(1, count) if n not in used), 0)
        return place, float((first[place] / entries[1]).abs())

    return match


def _one_of(candidates: Tensor, random: torch.Generator) -> int:
    return int(candidates[torch.randint(len(candidates), (1,), generator=random)])


def check_factors(factors: Tensor) -> Tensor:
    """Return the factors; InputError unless all are positive, as ReLU requires."""
    if not bool((factors > 0).all()):
        raise InputError(f"factors: {float(factors.min()):g} found, allowed are positive numbers")
    return factors


def without_factor(planted: Planted) -> State:
    """Return the planted weights with the output factors divided out of the last layer."""
    *hidden, (weight, bias) = layers(planted.weights)
    return network([*hidden, (weight / planted.factors, bias / planted.factors)])
