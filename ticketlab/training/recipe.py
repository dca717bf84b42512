"""Training recipes: points and lengths in training, optimiser, schedule and batches."""

import re
from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from torch import Tensor

from ticketlab.spec import InputError, Spec
from ticketlab.training.optimizers import Adam, Sgd


@dataclass(frozen=True)
class Step:
    """A point or length in training: '3ep' (epochs), '500it' (iterations) or '40%' (of the run)."""

    value: float
    unit: Literal["ep", "it", "%"]

    @classmethod
    def parse(cls, text: "str | Step") -> "Step":
        """Parse its text; ValueError for anything else, including a bare number."""
        if isinstance(text, Step):
            return text
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|it|%)", text) if isinstance(text, str) else None
        whole = match is not None and (match[2] != "it" or "." not in match[1])
        if match is None or not whole or not isfinite(float(match[1])):
            raise ValueError("allowed is a step such as '3ep', '500it' or '40%'")
        return cls(float(match[1]), match[2])  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def iterations(self, per_epoch: int, total: int | None = None) -> int:
        """Return the number of optimiser steps, rounded; a share needs the `total` of the run."""
        if self.unit == "%":
            if total is None:
                raise InputError(f"step: '{self}' is a share, allowed here are 'ep' and 'it'")
            return round(self.value / 100 * total)
        return round(self.value * per_epoch) if self.unit == "ep" else int(self.value)


StepField = Annotated[Step, BeforeValidator(Step.parse), PlainSerializer(str)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


FURTHER = 1_000_000
"""First seed for the random draws that a paper makes besides the seeds of its study."""


def _all_different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("allowed are seeds that differ")
    return seeds


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=FURTHER)], ...],
    Field(strict=False, min_length=1),
    AfterValidator(_all_different),
]


class Recipe(Spec):
    """How a net is trained: optimiser, schedule, batch, length."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    nesterov: bool = False
    batch: int = Field(default=128, ge=1)
    length: StepField = Step(5, "ep")
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: Annotated[tuple[StepField, ...], Field(strict=False)] = ()
    decay: float = Field(default=0.1, gt=0, le=1)
    """Factor on the learning rate at each milestone."""
    warmup: StepField = Step(0, "it")
    """Linear warm-up from exactly 0 at the first iteration to `lr`."""

    def iterations(self, images: int) -> tuple[int, int]:
        """Return iterations per epoch (see `batch_slice`) and in all, for a set of `images`."""
        per_epoch = epoch_steps(images, self.batch)
        return per_epoch, self.length.iterations(per_epoch)

    def passes(self, images: int, steps: int | None = None) -> int:
        """Return the images seen by one training on `images`, or by its first `steps`."""
        per_epoch, total = self.iterations(images)
        epochs, rest = divmod(total if steps is None else steps, per_epoch)
        return epochs * images + min(rest * self.batch, images)

    def check(self, images: int, rewind: Step) -> None:
        """Raise InputError if the run has no step, or ends before the rewind point."""
        if self.length.unit == "%":
            allowed = "allowed is a length in 'ep' or 'it'"
            raise InputError(f"recipe.length: '{self.length}' is a share, {allowed}")
        per_epoch, total = self.iterations(images)
        if total < 1:
            raise InputError(
                f"recipe.length: '{self.length}' is 0 iterations, at least 1 is needed"
            )
        if rewind.iterations(per_epoch, total) > total:
            raise InputError(f"rewind: '{rewind}' is beyond the run of {total} iterations")


def epoch_steps(images: int, batch: int) -> int:
    """Return the number of batches per epoch; all training and cost accounts use this rule."""
    whole, rest = divmod(images, batch)
    return max(1, whole + (rest > 1))


def batch_slice(place: int, images: int, batch: int) -> slice:
    """Return the slice of an epoch's image order that forms a batch, counted from 0.

    The last batch may be short, but a single image joins the batch before it: batch-norm has no
    variance over one value, and training sets chosen during a run can have any size.
    """
    last = place + 1 == epoch_steps(images, batch)
    return slice(place * batch, images if last else (place + 1) * batch)


def make_optimizer(recipe: Recipe, weights: Tensor, grads: Tensor) -> Adam | Sgd:
    """Return a new optimiser over flat buffers (n,); the loop sets its learning rate each step."""
    if recipe.optimizer == "adam":
        return Adam(weights, grads, recipe.lr, recipe.weight_decay)
    return Sgd(weights, grads, recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay)


def learning_rate(recipe: Recipe, iteration: int, per_epoch: int, total: int) -> float:
    """Return the learning rate of an iteration (counted from 0) in a run of `total` iterations."""
    warmup = recipe.warmup.iterations(per_epoch, total)
    if iteration < warmup:
        return recipe.lr * iteration / warmup
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + cos(pi * (iteration - warmup) / max(1, total - warmup))) / 2
    if recipe.schedule == "constant":
        return recipe.lr
    passed = sum(iteration >= m.iterations(per_epoch, total) for m in recipe.milestones)
    return recipe.lr * recipe.decay**passed
