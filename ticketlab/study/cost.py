"""What a search or a training costs, by one price list for all papers.

A training step on an image costs as much as three forward passes. What counts is every image by
which a method trains or chooses: in steps, in looks at validation images, in passes that choose
samples. Looks that only measure (test accuracy, curves of a figure) cost a method nothing.
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
"""Forward passes that a training step on an image costs."""


@dataclass(frozen=True)
class Cost:
    """Optimiser steps, images in them, images of forward passes alone, and FLOPs of all.

    `dense_flops` pretends that no weight was removed (what a GPU does); `sparse_flops` counts the
    weights that were there. In records, columns with the prefix `search_` are what was spent until
    a ticket was found; without a prefix they are the cost of all that the row is about.
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
        """Its numbers as columns of a record."""
        return {prefix + name: value for name, value in asdict(self).items()}


def in_steps(images: "pd.Series[float]", forward_images: "pd.Series[float]") -> "pd.Series[float]":
    """Images of steps and of forward passes alone, together in images of steps."""
    return images + forward_images / STEP


@dataclass
class Account:
    """Trains and looks on a bench, and adds up what that costs."""

    bench: Bench
    trained: Cost = field(default_factory=Cost)
    """What training has cost."""
    looked: Cost = field(default_factory=Cost)
    """What passes that only look have cost."""

    @property
    def spent(self) -> Cost:
        """All that has been spent so far."""
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
        """`loop.train` on the data order of `stage`, its steps and its observers' looks counted."""
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
        """Logits (N, classes) on images, the look counted."""
        self.look(net, len(images), mask)
        return predict(net, images, Batches(images, self.bench.data))

    def reach_rewind_point(self) -> None:
        """The steps of dense training up to the rewinding point, where no round passes it."""
        setting, count = self.bench.setting, len(self.bench.data.train)
        steps, images = imp.rewind_cost(setting.recipe, count, setting.rewind)
        if steps:
            self.charge(self.bench.net(), steps, images)

    def charge(self, net: Net, iterations: int, images: int, mask: Mask | None = None) -> None:
        """So many optimiser steps on so many images, under a mask."""
        dense, sparse = self.flops(net, mask)
        self.trained += Cost(iterations, images, 0, STEP * images * dense, STEP * images * sparse)

    def look(self, net: Net, images: int, mask: Mask | None = None) -> None:
        """Forward passes alone."""
        dense, sparse = self.flops(net, mask)
        self.looked += Cost(0, 0, images, images * dense, images * sparse)

    def flops(self, net: Net, mask: Mask | None = None) -> tuple[float, float]:
        """FLOPs of an image's forward pass: dense, and of the weights that are there."""
        model, shape = net.model, self.bench.data.shape
        dense = float(models.flops(model, shape))
        if mask is None:
            return dense, dense
        return dense, float(models.flops(model, shape, mask.densities()))
