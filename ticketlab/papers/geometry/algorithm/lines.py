"""Error along the straight line between two trained nets: linear mode connectivity.

Frankle et al. 2020 (arXiv 1912.05671); Paul et al. 2023 (arXiv 2210.03044) draw such lines between
successive rounds of IMP.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from ticketlab import gpu
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning.masks import State
from ticketlab.spec import InputError
from ticketlab.training.evaluation import predict
from ticketlab.training.net import Net, check_state


@dataclass(frozen=True)
class Line:
    """Errors in percent of the images at `shares` of the way (0..1, ascending, ends included)."""

    shares: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """Percentage points of the highest rise above the line that joins the two end errors.

        At least 0. Frankle et al. subtract the mean of the ends instead, which counts half of the
        ends' difference as a barrier even if the error changes evenly from one to the other; for
        equal end errors both are the same.
        """
        ends = (self.shares[0], self.shares[-1]), (self.errors[0], self.errors[-1])
        return float(np.subtract(self.errors, np.interp(self.shares, *ends)).max())


def between(a: State, b: State, share: float) -> State:
    """Return (1 - share) a + share b, on the device of `a`; 0 gives `a` and 1 gives `b`, bitwise.

    Integers (batch-norm's count of batches) are those of `a` before the end. InputError for a share
    outside 0..1 and for states of different nets.
    """
    check_state("state", b, a)
    if not 0 <= share <= 1:
        raise InputError(f"share: {share}, allowed: 0 to 1")
    return {name: _between(start, b[name].to(start.device), share) for name, start in a.items()}


def _between(a: Tensor, b: Tensor, share: float) -> Tensor:
    if share == 1:
        return b
    return torch.lerp(a, b, share) if share and a.is_floating_point() else a


def restate(net: Net, images: Images, data: DataSet, batch: int = 500) -> None:
    """Estimate the mean and variance of every batch-norm anew on `images`; weights stay.

    They are means over equal batches of `batch` to twice as many images (all images in one batch if
    there are fewer), so that each image has the same weight; the remainder of the division into
    batches, at most N / batch - 1 images, is left out. As in training, each batch is normalised by
    its own statistics (Izmailov et al. 2018, arXiv 1803.05407). Without batch-norm nothing is done.
    InputError for no images or a batch below 1.
    """
    _check_at_least(1, statistics=len(images), batch=batch)
    count = max(1, len(images) // batch)
    size = len(images) // count
    batches = Batches(images, data)
    with _mode_kept(net.model), gpu.autocast(net.device, net.runtime):
        places = torch.arange(count * size, device=net.device).split(size)
        update_bn((gpu.layout(batches(place), net.runtime) for place in places), net.model)


@contextmanager
def _mode_kept(model: nn.Module) -> Iterator[None]:
    """Restore the mode and batch-norm's momenta, which `update_bn` leaves changed by an error."""
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    training = model.training
    try:
        yield
    finally:
        model.train(training)
        for module, momentum in momenta.items():
            module.momentum = momentum


def line(
    net: Net,
    a: State,
    b: State,
    images: Images,
    data: DataSet,
    statistics: Images,
    points: int = 11,
) -> Line:
    """Return the errors on `images` at `points` equally spaced points from `a` to `b`.

    At every point, ends included, batch-norm is estimated anew on `statistics`. Leaves the net at
    `b`, bitwise. InputError for fewer than 3 points, no images, or states of other nets.
    """
    _check_at_least(3, points=points)
    _check_at_least(1, images=len(images), statistics=len(statistics))
    a, b = gpu.moved(a, net.device), gpu.moved(b, net.device)
    batches, wrong = Batches(images, data), []
    shares = np.linspace(0, 1, points).tolist()
    for share in shares:
        net.rewind(between(a, b, share))
        restate(net, statistics, data)
        wrong.append((predict(net, images, batches).argmax(1) != images.y).count_nonzero())
    net.rewind(b)
    errors = [100 * count / len(images) for count in torch.stack(wrong).tolist()]
    return Line(tuple(shares), tuple(errors))


def _check_at_least(least: int, **values: int) -> None:
    for key, value in values.items():
        if value < least:
            raise InputError(f"{key}: {value}, allowed: at least {least}")
