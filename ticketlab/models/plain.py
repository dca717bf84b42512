"""Net bodies without shortcuts: fully connected and plain convolutional networks."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import nn

Shape = tuple[int, int, int]  # channels, height, width of an image
Body = tuple[nn.Module, int]  # images (B, C, H, W) to features (B, F), and F


def _chain(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _dense(inputs: int, widths: Sequence[int]) -> dict[str, nn.Module]:
    """Linear + ReLU for each width, named fc1, fc_relu1, fc2, ..."""
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(zip([inputs, *widths], widths, strict=False), start=1):
        layers |= {f"fc{i}": nn.Linear(before, after), f"fc_relu{i}": nn.ReLU()}
    return layers


def lenet(shape: Shape) -> Body:
    """LeNet-300-100 on flattened images of any size (LTH, section 2; PrAC's desk recipe A)."""
    inputs = shape[0] * shape[1] * shape[2]
    return _chain({"flatten": nn.Flatten(), **_dense(inputs, (300, 100))}), 100


def mlp(shape: Shape, width: int, depth: int) -> Body:
    """A ReLU MLP with `depth` equal hidden layers (the mother nets of Plant 'n' Seek)."""
    inputs = shape[0] * shape[1] * shape[2]
    return _chain({"flatten": nn.Flatten(), **_dense(inputs, [width] * depth)}), width


def _stages(channels: int, plan: Sequence[tuple[int, int]], norm: bool) -> dict[str, nn.Module]:
    """For each (width, count): `count` 3x3 same-padding convs (BN) ReLU, then 2x2 max-pool."""
    layers: dict[str, nn.Module] = {}
    i = 0
    for stage, (width, count) in enumerate(plan, start=1):
        for _ in range(count):
            i += 1
            layers[f"conv{i}"] = nn.Conv2d(channels, width, 3, padding=1)
            if norm:
                layers[f"bn{i}"] = nn.BatchNorm2d(width)
            layers[f"relu{i}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return layers


def pooled(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    """The layers, then global average pooling: features (B, F)."""
    return _chain({**layers, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})


def conv_fc(shape: Shape, stages: int, width: int) -> Body:
    """Conv-2, Conv-4, Conv-6: VGG-like pairs of convs, then FC 256-256 (LTH, figure 2)."""
    plan = [(width << stage, 2) for stage in range(stages)]
    channels, height, wide = plan[-1][0], shape[1] >> stages, shape[2] >> stages
    fully_connected = _dense(channels * height * wide, (256, 256))
    layers = _stages(shape[0], plan, norm=False)
    return _chain({**layers, "flatten": nn.Flatten(), **fully_connected}), 256


def vgg16(shape: Shape, norm: bool, width: int) -> Body:
    """VGG-16, CIFAR form: 13 biased convs, 4 max-pools, global average pool, one Linear.

    With BN as in PrAC; without as in Plant 'n' Seek 2.9 (whose last 2x2 average pool is global
    on 32x32 images).
    """
    plan = [(width, 2), (2 * width, 2), (4 * width, 3), (8 * width, 3), (8 * width, 3)]
    layers = _stages(shape[0], plan, norm)
    del layers["pool5"]
    return pooled(layers), 8 * width


def conv3(shape: Shape, width: int, conv_bias: bool) -> Body:
    """COLT's Conv-3: three times (3x3 conv, BN, 2x2 max-pool, ReLU), global average pool."""
    layers: dict[str, nn.Module] = {}
    channels = shape[0]
    for i, out in enumerate((width, 2 * width, 4 * width), start=1):
        layers[f"conv{i}"] = nn.Conv2d(channels, out, 3, padding=1, bias=conv_bias)
        layers[f"bn{i}"] = nn.BatchNorm2d(out)
        layers[f"pool{i}"] = nn.MaxPool2d(2)
        layers[f"relu{i}"] = nn.ReLU()
        channels = out
    return pooled(layers), channels


def conv3_strided(shape: Shape, width: int, conv_bias: bool) -> Body:
    """PrAC's desk recipe B: conv 5x5/2, 3x3/2, 3x3 (each with BN, ReLU), global average pool."""
    layers: dict[str, nn.Module] = {}
    channels = shape[0]
    for i, (kernel, stride) in enumerate(((5, 2), (3, 2), (3, 1)), start=1):
        out = width << (i - 1)
        layers[f"conv{i}"] = nn.Conv2d(
            channels, out, kernel, stride, padding=kernel // 2, bias=conv_bias
        )
        layers |= {f"bn{i}": nn.BatchNorm2d(out), f"relu{i}": nn.ReLU()}
        channels = out
    return pooled(layers), channels
