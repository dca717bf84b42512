"""Initialisations: how a network's weights are drawn."""

from collections.abc import Callable

import torch
from torch import nn

from ticketlab.gpu import derive_seed
from ticketlab.spec import Registry

Layer = nn.Conv2d | nn.Linear


def _zero_bias(layer: Layer) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _default(layer: Layer) -> None:
    """PyTorch's default (COLT): uniform in +-1/sqrt(fan_in), biases too."""


def _kaiming_normal(layer: Layer) -> None:
    """N(0, 2 / fan_in), biases PyTorch's default (PrAC's CIFAR ResNets, DLTH)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _xavier_normal(layer: Layer) -> None:
    """Gaussian Glorot, biases 0 (LTH, figure 2)."""
    nn.init.xavier_normal_(layer.weight)
    _zero_bias(layer)


def _kaiming_fan_out(layer: Layer) -> None:
    """Convs N(0, 2 / fan_out), biases 0; Linear by default (torchvision's and PrAC's ResNet)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        _zero_bias(layer)


def _vgg(layer: Layer) -> None:
    """`kaiming_fan_out`, but Linear N(0, 0.01^2) with biases 0 (torchvision's and PrAC's VGG)."""
    _kaiming_fan_out(layer)
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        _zero_bias(layer)


INITS: Registry[str, Callable[[Layer], None]] = {
    "default": _default,
    "kaiming_normal": _kaiming_normal,
    "xavier_normal": _xavier_normal,
    "kaiming_fan_out": _kaiming_fan_out,
    "vgg": _vgg,
}


def begin(seed: int, part: str) -> None:
    """Seed torch's CPU generator by seed and part, so that the draws that follow are repeatable."""
    # Only the CPU generator: torch.manual_seed would also seed the accelerator's.
    torch.default_generator.manual_seed(derive_seed("model", part, seed))


def draw(module: nn.Module, init: str, seed: int, part: str) -> None:
    """Draw all weights of a CPU module again; equal seed and part give equal weights."""
    begin(seed, part)
    for layer in module.modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
        if isinstance(layer, Layer):
            INITS[init](layer)
