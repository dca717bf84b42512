"""SGD and Adam over one flat buffer, through torch's functional interface.

The classes of `torch.optim` compute bitwise the same, but import the compiler on first use, which
costs seconds in every process.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd


@dataclass
class Sgd:
    """SGD with momentum on `weights` (n,) from `grads` (n,); `lr` may change between steps.

    `fused` uses one kernel per step, the default where torch has it; it rounds differently.
    """

    weights: Tensor
    grads: Tensor
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    fused: bool | None = None
    moments: list[Tensor | None] = field(default_factory=lambda: [None])

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights in place."""
        fused = has_fused(self.weights.device) if self.fused is None else self.fused
        sgd(
            [self.weights],
            [self.grads],
            self.moments,
            fused=fused,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            dampening=0.0,
            maximize=False,
        )


class Adam:
    """Adam (betas 0.9 and 0.999, epsilon 1e-8) with L2 decay in the gradient; see `Sgd`."""

    def __init__(
        self, weights: Tensor, grads: Tensor, lr: float, weight_decay: float = 0.0
    ) -> None:
        self.weights, self.grads, self.lr, self.weight_decay = weights, grads, lr, weight_decay
        self.fused = has_fused(weights.device)
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = torch.zeros((), device=weights.device if self.fused else "cpu")

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights in place."""
        adam(
            [self.weights],
            [self.grads],
            [self.first],
            [self.second],
            [],
            [self.steps],
            fused=self.fused,
            lr=self.lr,
            weight_decay=self.weight_decay,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def has_fused(device: torch.device) -> bool:
    """Return whether torch's fused optimisers run on this device."""
    return device.type in ("cpu", "cuda")
