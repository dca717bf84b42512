"""What looks into a training, or adds to it, without a loop of its own."""

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
    """Averages over one epoch of training, taken from the passes before each update."""

    epoch: int
    iteration: int
    loss: float
    accuracy: float
    path: str = "plain"
    """How the passes were computed, see `passes.Path`."""


@dataclass
class Run:
    """What observers see. Per step: `index` (B,) into the images, `labels`, `logits`, `loss`.

    `correct` (B,) is whether the highest logit is that of the label.
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
    """Looks into a run; one that `edits` may change gradients before a step or weights after it."""

    edits: bool = False
    """Whether it changes the net: such a run takes place on all of a net's weights."""

    looked_at: int = 0
    """Images of the forward passes by which the observer chooses something, so far."""

    def before_step(self, run: Run) -> None:
        """After the backward pass: `run.logits` and gradients of the current batch are there."""

    def after_step(self, run: Run) -> None:
        """After the update and the mask; `run.iteration` still counts the step just made."""

    def after_epoch(self, run: Run) -> bool:
        """After `run.history` got the epoch's averages; True ends the training here."""
        return False


class Snapshot(Observer):
    """Copies the state after the step `at` (the rewind point); `state` is None until then."""

    def __init__(self, at: Step) -> None:
        self.at = at
        self.state: State | None = None

    def after_step(self, run: Run) -> None:
        """Take the copy once the given number of steps has been made."""
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
        """Score the net; the first of several equally good epochs is kept."""
        score = evaluate(run.net, self.images, self.batches)
        self.looked_at += len(self.images)
        if score.accuracy > self.accuracy:
            self.state, self.accuracy = run.net.state(), score.accuracy
            self.epoch = run.history[-1].epoch
        return False


class Track(Observer):
    """Scores the net on `images` after each epoch and selects nothing."""

    def __init__(self, images: Images, data: DataSet) -> None:
        self.batches = Batches(images, data)
        self.images = images
        self.scores: list[Score] = []

    def after_epoch(self, run: Run) -> bool:
        """Append this epoch's score."""
        self.scores.append(evaluate(run.net, self.images, self.batches))
        return False
