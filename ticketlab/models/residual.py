"""Net bodies with shortcuts: CIFAR ResNets, ResNet-18 and COLT's MobileNetV2."""

import torch.nn.functional as F
from torch import Tensor, nn

from ticketlab.models.plain import Body, Shape, pooled


class BasicBlock(nn.Module):
    """Two 3x3 convs and a parameter-free shortcut (He et al. 2015, option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, width - channels

    def chain(self) -> tuple[nn.Module, ...]:
        """The layers parallel to the shortcut; a ReLU follows the sum of both."""
        return self.conv1, self.bn1, nn.ReLU(), self.conv2, self.bn2

    def shortcut(self, x: Tensor) -> Tensor:
        """Return every `stride`-th pixel, channels zero-padded on both sides: (B, width, H', W').

        The pool averages single pixels. A slice would give the same bits, but its gradient is never
        channels-last, which would cost a tenth of a training step of ResNet-8 on a CPU.
        """
        if self.stride == 1 and self.extra == 0:
            return x
        left = self.extra // 2
        subsampled = F.avg_pool2d(x, 1, self.stride)
        return F.pad(subsampled, (0, 0, 0, 0, left, self.extra - left))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet(shape: Shape, blocks: int, width: int) -> Body:
    """The CIFAR ResNet with 6 * blocks + 2 layers (He et al. 2015, 4.2), used by PrAC and DLTH."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
    }
    channels = width
    for stage in range(3):
        out = width << stage
        first = BasicBlock(channels, out, stride=1 if stage == 0 else 2)
        rest = [BasicBlock(out, out, stride=1) for _ in range(blocks - 1)]
        layers[f"layer{stage + 1}"] = nn.Sequential(first, *rest)
        channels = out
    return pooled(layers), channels


def resnet18(shape: Shape, imagenet: bool) -> Body:
    """torchvision's ResNet-18: with its 7x7/2 stem and max-pool, or with the CIFAR stem.

    PrAC's is torchvision's own, even on 64x64 images; COLT's and the usual CIFAR form has a
    3x3 stride-1 stem and no max-pool.
    """
    import torchvision  # imported here because it is slow and only this function needs it

    net = torchvision.models.resnet18(weights=None, num_classes=1)
    kernel, stride = (7, 2) if imagenet else (3, 1)
    net.conv1 = nn.Conv2d(shape[0], 64, kernel, stride, padding=kernel // 2, bias=False)
    if not imagenet:
        net.maxpool = nn.Identity()
    net.fc = nn.Identity()
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # otherwise a batch-norm hook would see the ReLU's output
    return net, 512


def _pointwise(channels: int, width: int, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 1, padding=padding), nn.BatchNorm2d(width)]


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; added to its input where the shapes agree."""

    def __init__(self, channels: int, width: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = expand * channels
        self.layers = nn.Sequential(
            *_pointwise(channels, inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            *_pointwise(inner, width),
        )
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out + x if self.residual else out


# (expansion, width, blocks, first stride) of each stage
_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)


def mobilenet_v2(shape: Shape) -> Body:
    """COLT's CIFAR form of MobileNetV2: all convs biased, 1x1 stem with padding 1 (32 -> 34 px).

    Widths, counts and strides as in Sandler et al. 2018, table 2, but with only three strides of 2.
    The first block has its 1x1 conv although it does not expand, unlike torchvision's.
    """
    layers: dict[str, nn.Module] = {
        "stem": nn.Sequential(*_pointwise(shape[0], 32, padding=1), nn.ReLU6())
    }
    channels = 32
    for i, (expand, width, count, stride) in enumerate(_MOBILENET, start=1):
        first = _InvertedResidual(channels, width, stride, expand)
        rest = [_InvertedResidual(width, width, 1, expand) for _ in range(count - 1)]
        layers[f"stage{i}"] = nn.Sequential(first, *rest)
        channels = width
    layers["last"] = nn.Sequential(*_pointwise(channels, 1280), nn.ReLU6())
    return pooled(layers), 1280
