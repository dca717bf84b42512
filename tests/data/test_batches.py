"""Crops cut as windows (CPU) are the very images that the gather gives, from the same draws."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from ticketlab import gpu
from ticketlab.data.sets import Augment, Batches, DataSet, Images


@pytest.mark.parametrize(("crop", "flip", "rotate"), list(product((0, 3), (False, True), (0, 20))))
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_equal_bit_for_bit(
    digits: DataSet, channels: int, crop: int, flip: bool, rotate: int
) -> None:
    x = digits.train.x.repeat(1, channels, 1, 1) + torch.arange(channels).view(-1, 1, 1).byte()
    images = Images(x, digits.train.y)
    augment = Augment(crop=crop, flip=flip, rotate=rotate)
    stats = {"mean": torch.rand(channels), "std": torch.rand(channels) + 0.1}
    data = replace(digits, train=images, augment=augment, **stats)
    plain, windows = Batches(images, data, augment), Batches(images, data, augment)
    assert (windows._windows is not None) == bool(crop or flip)
    plain._windows = None
    index = torch.randperm(len(images))[:50]
    for seed in range(3):
        theirs = plain(index, gpu.generator("cpu", seed))
        assert torch.equal(windows(index, gpu.generator("cpu", seed)), theirs)
        again = gpu.generator("cpu", seed)
        windows(index, again)
        used = gpu.generator("cpu", seed)
        plain(index, used)
        assert torch.equal(again.get_state(), used.get_state())
    assert torch.equal(windows(index), plain(index))
    assert torch.equal(windows(index), plain(index))  # nothing was changed in place
