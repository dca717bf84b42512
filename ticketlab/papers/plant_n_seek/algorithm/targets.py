"""The three hand-built sparse networks that solve the tasks, for any depth of at least 3.

`depth` counts layers of neurons, inputs and outputs included, as in the paper's experiments; a net
has depth - 1 weight matrices. All in float64.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, cos, pi, sin, sqrt

import torch
from torch import Tensor

from ticketlab.many.stacks import network
from ticketlab.papers.plant_n_seek.algorithm.tasks import (
    BOUNDS,
    GAINS,
    helix_curve,
    logit_offsets,
    task_named,
)
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError

Layer = tuple[Tensor, Tensor]
Axis = tuple[Tensor, float, float, int, float | None]
"""Source weights (n, 1), lowest and highest knot, number of knots, last sign."""
ROUND_OFF = 1e-9
"""Weights below this are round-off (in Helix's linear coordinate) and become exact zeros."""


def target(task: str, depth: int) -> State:
    """Return the hand-built net of a task; InputError for an unknown task or a depth below 3."""
    task_named(task)
    if depth < 3:
        raise InputError(f"depth: {depth} neuron layers, allowed are 3 or more")
    built = {"relu": _relu, "circle": _circle, "helix": _helix}[task](depth)
    return network([(_clean(weight), _clean(bias)) for weight, bias in built])


def nonzeros(net: State) -> Mask:
    """Return the mask of a hand-built net: its non-zero weights and biases."""
    return Mask({name: tensor != 0 for name, tensor in net.items()})


def ground_truth_density(net: State, mother: Sequence[int]) -> float:
    """Return non-zero weights over the weights of a mother of these widths, without biases."""
    kept = sum(int((tensor != 0).sum()) for tensor in net.values() if tensor.dim() == 2)
    return kept / sum(a * b for a, b in pairwise(mother))


def _clean(values: Tensor) -> Tensor:
    return torch.where(values.abs() < ROUND_OFF, 0.0, values)


def _vector(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def _matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


# ---------------------------------------------------------------- functions of one variable


def knots(low: float, high: float, count: int, last: float | None = None) -> tuple[Tensor, Tensor]:
    """Return equidistant knots and their signs +1, -1, +1, ...; `last` overrides the last sign."""
    signs = torch.ones(count, dtype=torch.float64)
    signs[1::2] = -1
    if last is not None:
        signs[-1] = last
    return torch.linspace(low, high, count, dtype=torch.float64), signs


def piecewise(
    f: Callable[[Tensor], Tensor], places: Tensor, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return outer weights (N,) and bias of f ~ sum_j a_j relu(p_j (x - s_j)) + b on the knots.

    Exact at the knots. The first weight also cancels the slope of the units that open to the left;
    the paper's a_1 = m_1 only holds for positive signs.
    """
    step = places[1] - places[0]
    values = f(torch.cat([places, places[-1:] + step]))
    slopes = values.diff() / step
    outer = torch.cat([slopes[:1], slopes.diff()])
    outer[0] += outer[1:][signs[1:] < 0].sum()
    bias = values[0] - (outer * (signs * (places[0] - places)).relu()).sum()
    return outer, bias


# ---------------------------------------------------------------- ReLU and Helix


def _relu(depth: int) -> list[Layer]:
    return [(_matrix([[1.0]]), _zeros(1))] * (depth - 1)


def _helix(depth: int) -> list[Layer]:
    """Shift the input to [0, 2], then 30 shared knots, three outputs and identity layers."""
    shift = 0.0 if depth == 3 else 1.0
    places, signs = knots(-1 + shift, 1 + shift, 30)
    fitted = [
        piecewise(lambda t, i=i: helix_curve(t[:, None] - shift)[:, i], places, signs)  # type: ignore[misc]
        for i in range(3)
    ]
    outer = torch.stack([weights for weights, _ in fitted], 1)
    bias = torch.stack([offset for _, offset in fitted])
    lift = 1.0 if depth >= 5 else 0.0  # keeps values positive through the identity layers
    built = [(_matrix([[1.0]]), _vector(1.0))] if depth >= 4 else []
    built += [(signs[None], -signs * places), (outer, bias + lift)]
    identity = torch.eye(3, dtype=torch.float64)
    built += [(identity, _zeros(3)) for _ in range(depth - 4)]
    built[-1] = (built[-1][0], built[-1][1] - lift)
    return built


# ---------------------------------------------------------------- Circle


def _circle(depth: int) -> list[Layer]:
    """Squared radius by piecewise squares along two axes, then four logits linear in it."""
    if depth == 3:
        return _squares([_axis([1, 0], -1.0), _axis([0, 1], -1.0)])
    halves = (_matrix([[1, -1, 0, 0], [0, 0, 1, -1]]), _zeros(4))
    if depth == 4:
        return [halves, *_squares([_axis([1, 1, 0, 0], 0.0), _axis([0, 0, 1, 1], 0.0)])]
    moduli = (_matrix([[1, 0], [1, 0], [0, 1], [0, 1]]), _zeros(2))
    if depth == 5:
        axes = [_axis([1, 0], 0.0, last=1.0), _axis([0, 1], 0.0, last=1.0)]
        return [halves, moduli, *_squares(axes)]
    return [halves, moduli, *_mirrors(depth - 5)]


def _axis(
    source: Sequence[float],
    low: float,
    high: float = 1.0,
    count: int = 10,
    last: float | None = None,
) -> Axis:
    return _vector(*source)[:, None], low, high, count, last


def _mirrors(count: int) -> list[Layer]:
    """Fold the plane `count` times, at angles pi/4, pi/8, ...; then square along the last mirror.

    Each layer has one unit along the mirror and two for the two sides across it. Folding keeps the
    radius, so fewer and fewer knots are needed across.
    """
    built, basis, angle = [], torch.eye(2, dtype=torch.float64), pi / 4
    for _ in range(count):
        along, across = _vector(cos(angle), sin(angle)), _vector(sin(angle), -cos(angle))
        units = torch.stack([along @ basis, across @ basis, -across @ basis], 1)
        built.append((units, _zeros(3)))
        basis = torch.stack([along, across, across], 1)
        angle /= 2
    reach = abs(sin(2 * angle)) * sqrt(BOUNDS[-1]) + 0.01
    main = min(ceil(sqrt(2) / (reach + sqrt(2)) * 20), 17)
    side = max(20 - main, 3)
    axes = [
        _axis([1, 0, 0], 0.0, sqrt(2), main, last=1.0),
        _axis([0, 1, 1], 0.0, reach, side, last=1.0),
    ]
    return [*built, *_squares(axes)]


def _squares(axes: Sequence[Axis]) -> list[Layer]:
    """Return hidden knots for the square of each axis, and the output layer that sums them."""
    weights, biases, outer, offset = [], [], [], _zeros(1)
    for source, low, high, count, last in axes:
        places, signs = knots(low, high, count, last)
        fitted, bias = piecewise(torch.square, places, signs)
        weights.append(source * signs)
        biases.append(-signs * places)
        outer.append(fitted)
        offset = offset + bias
    gains = torch.tensor(GAINS, dtype=torch.float64)
    logits = (torch.cat(outer)[:, None] * gains, logit_offsets() + gains * offset)
    return [(torch.cat(weights, 1), torch.cat(biases)), logits]
