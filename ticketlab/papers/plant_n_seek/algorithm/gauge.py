"""Scores of a network's outputs: raw, and up to positive factors.

A planted ticket computes its target only up to positive factors of its outputs, because ReLU passes
them on. A strong ticket is therefore scored after fitting such factors on training data, one for
all outputs or one per output.
"""

import numpy as np
import torch
from torch import Tensor

from ticketlab.many.stacks import Kind

FITTED_ON = 2000
"""Number of training samples (the first ones) on which a factor is fitted."""


def score(outputs: Tensor, y: Tensor, kind: Kind) -> float:
    """Return accuracy in 0..1, or the mean squared error; outputs (N, outputs)."""
    if kind == "classification":
        return float((outputs.argmax(1) == y).double().mean())
    return float((outputs.double() - y.double()).square().mean())


def one_scale(outputs: Tensor, y: Tensor, kind: Kind) -> Tensor:
    """Return the factor (1,) >= 0 of all outputs with least squared error; 1 for classes."""
    if kind == "classification":
        return torch.ones(1, dtype=torch.float64)
    return _least_squares(outputs.double().reshape(-1, 1), y.double().reshape(-1, 1))


def own_scales(outputs: Tensor, y: Tensor, kind: Kind) -> Tensor:
    """Return one factor >= 0 per output, (outputs,): least squares, or least cross-entropy."""
    outputs = outputs[:FITTED_ON].double()
    if kind == "classification":
        return _least_cross_entropy(outputs, y[:FITTED_ON])
    return _least_squares(outputs, y[:FITTED_ON].double())


def _least_squares(outputs: Tensor, y: Tensor) -> Tensor:
    power = outputs.square().sum(0)
    return torch.where(power > 0, (outputs * y).sum(0) / power, 0.0).clamp(min=0)


def _least_cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """Convex in the factors; the outputs, which can be tiny, are first scaled to unit size."""
    from scipy.optimize import minimize  # imported here: takes half a second, rarely needed
    from scipy.special import logsumexp

    size = outputs.square().mean(0).sqrt().numpy()
    unit = outputs.numpy() / np.where(size > 0, size, 1.0)
    rows, labels = np.arange(len(unit)), y.numpy()

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        logits = unit * factors
        total = logsumexp(logits, axis=1)
        slope = np.exp(logits - total[:, None])
        slope[rows, labels] -= 1
        return float((total - logits[rows, labels]).mean()), (slope * unit).mean(0)

    start = np.ones(unit.shape[1])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return torch.from_numpy(best.x / np.where(size > 0, size, 1.0))


def strong_scores(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], kind: Kind
) -> dict[str, float]:
    """Return test scores: raw, with one fitted factor, with one per output; (outputs, y) pairs."""
    outputs, y = test
    return {
        "raw": score(outputs, y, kind),
        "scalar": score(outputs.double() * one_scale(*train, kind), y, kind),
        "per_output": score(outputs.double() * own_scales(*train, kind), y, kind),
    }
