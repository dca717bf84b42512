"""Properties of any network: its output layer, its prunable weights, its cost."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ticketlab.models.inits import Layer
from ticketlab.models.plain import Shape
from ticketlab.spec import InputError


def _layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    for name, module in model.named_modules():
        if isinstance(module, Layer):
            yield name, module


def head(model: nn.Module) -> str:
    """Return the module path of the output layer: the last Linear in model order."""
    names = [name for name, layer in _layers(model) if isinstance(layer, nn.Linear)]
    if not names:
        raise InputError(f"model = {type(model).__name__}: has no Linear layer to be its head")
    return names[-1]


RULES = ("conv", "conv_linear", "hidden", "inner")


def prunable(model: nn.Module, rule: str) -> tuple[str, ...]:
    """Return the names of the prunable weights under a rule, in model order; never BN or biases.

    conv: every Conv2d, including 1x1 shortcuts and the stem (PrAC 2.0, COLT 2.2.4); conv_linear:
    every Conv2d and Linear (LTH, Plant 'n' Seek); hidden: conv_linear without the output layer;
    inner: hidden without the first layer (DLTH 2.2: stem and classifier stay dense).
    """
    if rule not in RULES:
        raise InputError(f"prunable = {rule!r}: must be one of {', '.join(RULES)}")
    layers = list(_layers(model))
    if rule == "conv":
        layers = [(name, layer) for name, layer in layers if isinstance(layer, nn.Conv2d)]
    if rule in ("hidden", "inner"):
        output = head(model)
        layers = [(name, layer) for name, layer in layers if name != output]
    if rule == "inner":
        layers = layers[1:]
    return tuple(f"{name}.weight" for name, _ in layers)


def flops(model: nn.Module, shape: Shape, density: Mapping[str, float] | None = None) -> int:
    """Return the floating-point operations of one image's forward pass, 2 per multiply-add.

    Counts convolutions and Linear layers; biases, BN, pools and activations are not counted. With
    densities (fraction kept, by weight name) only surviving weights count; weights without an
    entry are dense.
    """
    density = density or {}
    layers = dict(_layers(model))
    if unknown := set(density) - {f"{name}.weight" for name in layers}:
        raise InputError(f"density = {min(unknown)!r}: no conv or Linear weight has this name")
    uses = _uses(model, layers, shape)
    weights = {name: layers[name].weight.numel() * n for name, n in uses.items()}
    return round(sum(2 * n * density.get(f"{name}.weight", 1.0) for name, n in weights.items()))


def _uses(model: nn.Module, layers: Mapping[str, Layer], shape: Shape) -> dict[str, int]:
    """Return how often one image's forward pass uses each weight of a layer, by a blank image."""
    uses: dict[str, int] = {}

    def count(name: str, layer: Layer, inputs: Any, output: Tensor) -> None:
        uses[name] = uses.get(name, 0) + output.numel() // layer.weight.shape[0]

    hooks = [layer.register_forward_hook(partial(count, name)) for name, layer in layers.items()]
    training, like = model.training, next(model.parameters())
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return uses
