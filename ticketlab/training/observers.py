"""Observers: they inspect a training, or change it, without a loop of their own."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning.masks import State
from ticketlab.training.evaluation import Score, evaluate
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step


@dataclass
class Epoch:
    """Averages over one epoch of training, from the forward passes before each update."""

    epoch: int
    iteration: int
    loss: float
    accuracy: float
    path: str = "plain"
    """How the passes were computed; see `passes.Path`."""


@dataclass
class Run:
    """The state of a training as observers see it.

    Per step: `index` (B,) into the images, `labels`, `logits`, `loss`, and `correct` (B,), whether
    the highest logit is that of the label.
    """

    net: Net
    recipe: Recipe
    per_epoch: int
    total: int
    path: str = "plain"
    iteration: int = 0
    history: list[Epoch] = field(default_factory=list)
    index: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    correct: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, counted from 0."""
        return self.iteration // self.per_epoch


class Observer:
    """Base class; one that `edits` may change gradients before a step or weights after it."""

    edits: bool = False
    """Whether it changes the net; such a run trains on all weights, removed ones included."""

    looked_at: int = 0
    """Images of the extra forward passes that the observer has made for its choices so far."""

    def before_step(self, run: Run) -> None:
        """Called after the backward pass, with `run.logits` and gradients of the current batch."""

    def after_step(self, run: Run) -> None:
        """Called after update and mask; `run.iteration` is still that of the step just made."""

    def after_epoch(self, run: Run) -> bool:
        """Called when `run.history` has the epoch's averages; return True to end the training."""
        return False


class Snapshot(Observer):
    """Copies the state after `at` steps (the rewind point); `state` is None until then."""

    def __init__(self, at: Step) -> None:
        self.at = at
        self.state: State | None = None

    def after_step(self, run: Run) -> None:
        """Copy the state once the given number of steps has been made."""
        if run.iteration + 1 == self.at.iterations(run.per_epoch, run.total):
            self.state = run.net.state()


class KeepBest(Observer):
    """Keeps the state with the highest accuracy on `images` (held-out, never test data)."""

    def __init__(self, images: Images, data: DataSet) -> None:
        self.batches = Batches(images, data)
        self.images = images
        self.state: State = {}
        self.accuracy, self.epoch = -1.0, -1

    def after_epoch(self, run: Run) -> bool:
        """Score the net; of several equally good epochs the first is kept."""
        score = evaluate(run.net, self.images, self.batches)
        self.looked_at += len(self.images)
        if score.accuracy > self.accuracy:
            self.state, self.accuracy = run.net.state(), score.accuracy
            self.epoch = run.history[-1].epoch
        return False


class Track(Observer):
    """Scores the net on `images` after each epoch, without selecting an epoch."""

    def __init__(self, images: Images, data: DataSet) -> None:
        self.batches = Batches(images, data)
        self.images = images
        self.scores: list[Score] = []

    def after_epoch(self, run: Run) -> bool:
        """Append this epoch's score."""
        self.scores.append(evaluate(run.net, self.images, self.batches))
        return False
