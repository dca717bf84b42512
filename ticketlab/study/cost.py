"""Cost of a search or a training, by the same rules for all papers.

A training step on an image costs as much as three forward passes. Counted is every image that a
method uses to train or to choose: in steps, in evaluations on validation images, in passes that
choose samples. Passes that only measure (test accuracy, curves of a figure) are free.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd
from torch import Tensor

from ticketlab import models
from ticketlab.data.sets import Batches, Images
from ticketlab.pruning.masks import Mask
from ticketlab.study.bench import Bench
from ticketlab.tickets import imp
from ticketlab.training.evaluation import predict
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, Observer
from ticketlab.training.recipe import Recipe, Step

STEP = 3.0
"""Forward passes that equal one training step on an image in cost."""


@dataclass(frozen=True)
class Cost:
    """Optimiser steps, the images in them, images in forward passes only, and total FLOPs.

    `dense_flops` ignores the mask (as a GPU does); `sparse_flops` counts surviving weights only. In
    records, columns with the prefix `search_` are the cost of finding a ticket; without a prefix
    they are the total cost of what the row describes.
    """

    iterations: int = 0
    images: int = 0
    forward_images: int = 0
    dense_flops: float = 0.0
    sparse_flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})

    def row(self, prefix: str = "") -> dict[str, float]:
        """Return its numbers as columns of a record."""
        return {prefix + name: value for name, value in asdict(self).items()}


def in_steps(images: "pd.Series[float]", forward_images: "pd.Series[float]") -> "pd.Series[float]":
    """Convert images of steps and of forward passes into one number, in images of steps."""
    return images + forward_images / STEP


@dataclass
class Account:
    """Trains and evaluates on a bench, and adds up the cost."""

    bench: Bench
    trained: Cost = field(default_factory=Cost)
    """Cost of training."""
    looked: Cost = field(default_factory=Cost)
    """Cost of passes without training."""

    @property
    def spent(self) -> Cost:
        """Total cost so far."""
        return self.trained + self.looked

    def train(
        self,
        net: Net,
        images: Images,
        recipe: Recipe,
        *,
        stage: str = "train",
        mask: Mask | None = None,
        observers: Sequence[Observer] = (),
        until: Step | None = None,
    ) -> list[Epoch]:
        """Run `loop.train` on the data order of `stage`; count its steps and observers' passes."""
        before = sum(observer.looked_at for observer in observers)
        history = train(
            net,
            images,
            self.bench.data,
            recipe,
            seed=self.bench.order(stage),
            mask=mask,
            observers=observers,
            until=until,
        )
        steps = history[-1].iteration
        self.charge(net, steps, recipe.passes(len(images), steps), mask)
        self.look(net, sum(observer.looked_at for observer in observers) - before, mask)
        return history

    def predict(self, net: Net, images: Images, mask: Mask | None = None) -> Tensor:
        """Return logits (N, classes) on images, and count the pass."""
        self.look(net, len(images), mask)
        return predict(net, images, Batches(images, self.bench.data))

    def reach_rewind_point(self) -> None:
        """Count the dense steps to the rewinding point, for searches whose rounds exclude them."""
        setting, count = self.bench.setting, len(self.bench.data.train)
        steps, images = imp.rewind_cost(setting.recipe, count, setting.rewind)
        if steps:
            self.charge(self.bench.net(), steps, images)

    def charge(self, net: Net, iterations: int, images: int, mask: Mask | None = None) -> None:
        """Count optimiser steps on a number of images, under a mask."""
        dense, sparse = self.flops(net, mask)
        self.trained += Cost(iterations, images, 0, STEP * images * dense, STEP * images * sparse)

    def look(self, net: Net, images: int, mask: Mask | None = None) -> None:
        """Count forward passes without training on a number of images."""
        dense, sparse = self.flops(net, mask)
        self.looked += Cost(0, 0, images, images * dense, images * sparse)

    def flops(self, net: Net, mask: Mask | None = None) -> tuple[float, float]:
        """Return the FLOPs of one image's forward pass: dense, and of surviving weights."""
        model, shape = net.model, self.bench.data.shape
        dense = float(models.flops(model, shape))
        if mask is None:
            return dense, dense
        return dense, float(models.flops(model, shape, mask.densities()))
