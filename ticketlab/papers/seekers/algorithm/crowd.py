"""The same ticket planted several times in one mother, on disjoint hidden neurons.

The first ticket is planted exactly as Plant 'n' Seek plants one. Each further one is planted by the
same rule in what is left: the mother without the hidden neurons that are taken. Inputs and outputs
are shared, and so are the output biases, which can have one value only. A ticket computes its
target up to its output factors, so all copies get the factors of the first (`sharing_outputs`).
Then each copy alone, under its own mask, computes the target times the same factors. Together they
do not: k copies under one mask add up, but for the biases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketlab.many.stacks import layers, network, widths
from ticketlab.papers.plant_n_seek.algorithm import Mode, Planted, plant
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError


@dataclass(frozen=True)
class Crowd:
    """A mother with several copies of a ticket: under each of their masks alone it is the ticket.

    `weights` has all copies; `tickets[i]` is the i-th one with these weights.
    """

    weights: State
    tickets: tuple[Planted, ...]

    @property
    def masks(self) -> list[Mask]:
        """The mask of each copy."""
        return [one.mask for one in self.tickets]


def plant_crowd(
    target: State, host: State, mode: Mode, random: Callable[[int], torch.Generator], copies: int
) -> Crowd:
    """Plant `copies` tickets; `random(i)` is the generator of copy i, from 0.

    InputError if the host has too few neurons in a hidden layer.
    """
    check_room(widths(target), widths(host), copies)
    first = plant(target, host, mode, random(0))
    weights, masks, places = first.weights, [first.mask], [first.places]
    for number in range(1, copies):
        free = free_neurons(widths(host), places)
        within = plant(target, part(weights, free), mode, random(number))
        placed = tuple(rows[own] for rows, own in zip(free, within.places, strict=True))
        weights = joined(weights, sharing_outputs(within, first), free)
        masks.append(Mask(joined({n: torch.zeros_like(k) for n, k in first.mask.items()},
                                 dict(within.mask), free)))  # fmt: skip
        places.append(placed)
    pairs = zip(masks, places, strict=True)
    tickets = [Planted(target, host, weights, mask, first.factors, at) for mask, at in pairs]
    return Crowd(weights, tuple(tickets))


def check_room(target: Sequence[int], host: Sequence[int], copies: int) -> None:
    """InputError unless every hidden layer has enough neurons for so many copies."""
    if copies < 1:
        raise InputError(f"copies: {copies}, allowed are 1 and more")
    for layer, (needed, have) in enumerate(zip(target[1:-1], host[1:-1], strict=False), start=1):
        if copies * needed > have:
            raise InputError(
                f"copies: {copies} need {copies * needed} neurons of layer {layer}, which has "
                f"{have}; allowed: 1 to {have // needed}"
            )


def free_neurons(shape: Sequence[int], places: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the indices, layer by layer, of hidden neurons that no copy has; inputs and outputs
    are free for all."""
    found = []
    for layer, width in enumerate(shape):
        free = torch.ones(width, dtype=torch.bool)
        if 0 < layer < len(shape) - 1:
            free[torch.cat([own[layer] for own in places])] = False
        found.append(free.nonzero().flatten())
    return found


def part(state: State, kept: Sequence[Tensor]) -> State:
    """Return the net of some neurons alone; `kept` has their indices, layer by layer."""
    return network(
        [
            (weight[before][:, after], bias[after])
            for (weight, bias), before, after in zip(layers(state), kept, kept[1:], strict=False)
        ]
    )


def joined(state: State, own: State, kept: Sequence[Tensor]) -> State:
    """Return the net with the net of some of its neurons put in: the opposite of `part`."""
    built = []
    pairs = zip(layers(state), layers(own), kept, kept[1:], strict=False)
    for (weight, bias), (new_weight, new_bias), before, after in pairs:
        weight, bias = weight.clone(), bias.clone()
        weight[before[:, None], after[None]] = new_weight
        bias[after] = new_bias
        built.append((weight, bias))
    return network(built)


def sharing_outputs(copy: Planted, first: Planted) -> State:
    """Return a further copy's weights so that it has the output biases and factors of the first.

    Layer l of n is multiplied by the n-th root of the mean ratio of the factors, biases of hidden
    layers by its l-th power, since ReLU passes positive factors on. So no layer sticks out. Entries
    that are not planted stay.
    """
    *hidden, (weight, _) = layers(copy.weights)
    *inner, (planted, _) = layers(dict(copy.mask))
    _, bias = layers(first.weights)[-1]
    ratio = first.factors / copy.factors
    step = float(ratio.log().mean().exp()) ** (1 / (len(hidden) + 1))
    built = []
    for number, ((w, b), (in_w, in_b)) in enumerate(zip(hidden, inner, strict=True), start=1):
        built.append((torch.where(in_w, w * step, w), torch.where(in_b, b * step**number, b)))
    outputs = torch.where(planted, weight * (ratio / step ** len(hidden)), weight)
    return network([*built, (outputs, bias)])
