"""Corrupted images: families of Hendrycks & Dietterich 2019 (arXiv 1903.12261) on small images."""

from math import ceil

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import Images
from ticketlab.spec import InputError

KINDS = ("noise", "blur", "contrast")
STRENGTHS = {
    "noise": (0.08, 0.16, 0.24),  # standard deviation per pixel and channel, on the 0..1 scale
    "blur": (0.5, 0.7, 1.0),  # standard deviation of the Gaussian, in pixels
    "contrast": (0.75, 0.6, 0.4),  # factor of the distance from the image's mean grey
}
"""Of severities 1 (mild), 2 and 3 (strong), on images of 14 x 14 to 32 x 32 pixels."""


def corrupted(images: Images, kind: str, severity: int, seed: int) -> Images:
    """Return the images with one corruption, x uint8 (N,1,H,W) or (N,3,H,W); labels are shared.

    The resident images are corrupted, after pooling. The same arguments give the same bytes on
    every call and for every device, since the CPU computes them. The seed draws the noise, whose
    pattern all severities share. InputError for an unknown kind or severity, another number of
    channels, or images too small for the blur.
    """
    if kind not in KINDS:
        raise InputError(f"kind: {kind!r} is unknown, allowed: {', '.join(KINDS)}")
    strengths = STRENGTHS[kind]
    if severity not in range(1, len(strengths) + 1):
        raise InputError(f"severity: {severity}, allowed: 1 to {len(strengths)}")
    if images.x.shape[1] not in (1, 3):
        raise InputError(f"images: {images.x.shape[1]} channels, allowed: 1 or 3")
    clean, strength = images.x.cpu().float() / 255, strengths[severity - 1]
    if kind == "noise":
        changed = _noisy(clean, strength, seed)
    else:
        changed = _blurred(clean, strength) if kind == "blur" else _faded(clean, strength)
    return Images(_bytes(changed).to(images.x.device), images.y)


def _noisy(x: Tensor, deviation: float, seed: int) -> Tensor:
    random = gpu.generator("cpu", "corruption", "noise", seed)
    return x + deviation * torch.randn(x.shape, generator=random)


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur with a kernel that reaches 3 sigma; outside, the image is reflected."""
    from torchvision.transforms.v2 import functional  # here because its import is slow

    reach = ceil(3 * sigma)
    if min(x.shape[2:]) <= reach:
        size = "{} x {}".format(*x.shape[2:])
        raise InputError(f"images: {size} pixels, a blur of {sigma} needs more than {reach}")
    blurred: Tensor = functional.gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred


def _faded(x: Tensor, factor: float) -> Tensor:
    """Pull all pixels towards the image's mean grey (Hendrycks: towards each channel's mean)."""
    from torchvision.transforms.v2 import functional  # here because its import is slow

    faded: Tensor = functional.adjust_contrast(x, factor)
    return faded


def _bytes(x: Tensor) -> Tensor:
    """Return x float on the 0..1 scale as uint8, rounded and clamped."""
    return (255 * x).round().clamp(0, 255).to(torch.uint8)
