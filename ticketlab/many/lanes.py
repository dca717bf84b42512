"""Several MLPs of one shape trained side by side by one recipe: the jobs, lanes and the loop.

Each net sees the same batches, steps and schedule as in `training.train`; only the arithmetic is
shared. A `Lanes` computes K nets: `dense_lanes` by batched products, `training.sparse` by sparse
ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ticketlab import gpu, progress
from ticketlab.data.sets import Batches, DataSet, Images, epoch_order
from ticketlab.pruning.masks import Mask, State, check_fits
from ticketlab.spec import InputError
from ticketlab.training.loop import check_finite, no_denormals
from ticketlab.training.mlp import kept
from ticketlab.training.net import check_state
from ticketlab.training.observers import Epoch
from ticketlab.training.recipe import Recipe, Step, batch_slice, learning_rate, make_optimizer

# ---------------------------------------------------------------- jobs


@dataclass(frozen=True, eq=False)
class Job:
    """One ticket to train: model, starting weights, mask, data and seed.

    `model` gives the architecture, and the weights unless there is a `state`; it is never changed.
    `seed` fixes data order and augmentation as in `training.train`: equal seeds, equal batches.
    With `validation`, the state of the best epoch on these images is kept too.
    """

    model: nn.Module
    images: Images
    data: DataSet
    recipe: Recipe
    seed: tuple[object, ...]
    mask: Mask | None = None
    state: State | None = None
    validation: Images | None = None

    @property
    def device(self) -> torch.device:
        """The device of the data, on which the job is trained."""
        return self.images.y.device

    def start(self) -> State:
        """Return the starting weights, not yet masked."""
        given = self.model.state_dict() if self.state is None else self.state
        return {name: tensor.to(self.device) for name, tensor in given.items()}

    def check(self) -> None:
        """Raise InputError in one line for a mask, a state or a recipe that does not fit."""
        if self.mask is not None:
            check_fits(self.mask, self.model)
        check_state("job.state", self.start(), self.model.state_dict())
        for key, images in (("images", self.images), ("validation", self.validation)):
            if images is not None and not len(images):
                raise InputError(f"job.{key}: 0 images given, at least 1 is needed")
        self.recipe.check(len(self.images), Step(0, "it"))


@dataclass(frozen=True)
class Best:
    """The epoch of highest accuracy on a job's validation images; the first of equals."""

    state: State
    accuracy: float
    epoch: int


@dataclass(frozen=True)
class Trained:
    """The result of a job: its last weights, the averages per epoch, and the `path` that ran."""

    state: State
    history: list[Epoch]
    path: str
    best: Best | None = None


def keeps(job: Job, name: str) -> Tensor:
    """Return what the job's mask keeps of a parameter: bool, on the job's device."""
    return kept(job.model, job.mask, name).to(job.device)


# ---------------------------------------------------------------- K nets that compute together


class Lanes(Protocol):
    """K nets as flat buffers: `weights`, `grads`, and `keep` (0 or 1) if weights are dense."""

    weights: Tensor
    grads: Tensor

    @property
    def keep(self) -> Tensor | None:
        """Factor 0 or 1 per weight; None if removed weights do not exist."""

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `grads`; return losses (K,) and logits (K, B, C).

        x (B, F) and y (B,), or x (K, B, F) and y (K, B).
        """

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (K, B, C), overwritten by the next pass."""

    def state(self, lane: int) -> State:
        """Return weights and biases of one net by parameter name, removed weights as 0."""


# ---------------------------------------------------------------- batches


class Feed:
    """The batches of one data order, exactly those that `training.train` draws."""

    def __init__(self, job: Job, batches: Batches) -> None:
        self.images, self.batch, self.batches = job.images, job.recipe.batch, batches
        self.random = gpu.generator(job.device, "order", *job.seed)
        self.order = torch.empty(0)

    def shuffle(self) -> Tensor:
        """Draw the order of the next epoch, int64 (N,)."""
        self.order = epoch_order(len(self.images), self.random)
        return self.order

    def __call__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return a batch by its place in the epoch: x (B, F) and labels (B,)."""
        index = self.order[batch_slice(place, len(self.images), self.batch)]
        return self.batches(index, self.random).flatten(1), self.images.y[index]


class Feeds:
    """One batch for all lanes if they share data and seed, else one per lane."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        prepared: dict[object, Batches] = {}
        feeds: dict[object, Feed] = {}
        self.order: list[Feed] = []
        for job in jobs:
            source = (id(job.images), id(job.data))
            if source not in prepared:
                prepared[source] = Batches(job.images, job.data, job.data.augment)
            key = (*source, job.seed)
            feeds.setdefault(key, Feed(job, prepared[source]))
            self.order.append(feeds[key])
        self.unique = list(feeds.values())
        active = any(batches.augment.active for batches in prepared.values())
        self.one_source = len(prepared) == 1 and not active
        self.orders = torch.empty(0)

    def __call__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return x (B, F) and y (B,) if shared, else (K, B, F) and (K, B)."""
        if place == 0:
            for feed in self.unique:
                feed.shuffle()
            if self.one_source:
                self.orders = torch.stack([feed.order for feed in self.order])
        if len(self.unique) == 1:
            return self.unique[0](place)
        if self.one_source:  # clean images: gather those of all lanes at once
            return self._at_once(self.order[0], place)
        drawn = {id(feed): feed(place) for feed in self.unique}
        pairs = [drawn[id(feed)] for feed in self.order]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def _at_once(self, feed: Feed, place: int) -> tuple[Tensor, Tensor]:
        index = self.orders[:, batch_slice(place, len(feed.images), feed.batch)].flatten()
        x, y = feed.batches(index), feed.images.y.index_select(0, index)
        return x.view(len(self.order), -1, x[0].numel()), y.view(len(self.order), -1)


# ---------------------------------------------------------------- validation


class Judge:
    """Keeps each lane's best epoch on its validation images, as `training.KeepBest` does."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.sets = [job.validation for job in jobs]
        unique = {id(part): (part, job.data) for job, part in zip(jobs, self.sets, strict=True)}
        self.batches = {k: Batches(p, d) for k, (p, d) in unique.items() if p is not None}
        self.best: list[Best | None] = [None] * len(jobs)

    def __call__(self, lanes: Lanes, epoch: int) -> None:
        """Score all lanes; copy the state of each that improved."""
        if not self.batches:
            return
        for lane, accuracy in enumerate(self._accuracies(lanes)):
            best = self.best[lane]
            if best is None or accuracy > best.accuracy:
                self.best[lane] = Best(lanes.state(lane), accuracy, epoch)

    def _accuracies(self, lanes: Lanes, batch: int = 500) -> list[float]:
        shared = len(self.batches) == 1
        parts = [part for part in self.sets[: 1 if shared else None] if part is not None]
        hits = torch.zeros(len(self.sets), device=parts[0].y.device)
        for index in torch.arange(len(parts[0]), device=parts[0].y.device).split(batch):
            x = [self.batches[id(part)](index).flatten(1) for part in parts]
            y = torch.stack([part.y[index] for part in parts])
            logits = lanes.logits(x[0] if shared else torch.stack(x))
            hits += (logits.argmax(2) == y).sum(1)
        return (hits / len(parts[0])).tolist()


# ---------------------------------------------------------------- the loop


def train(lanes: Lanes, jobs: Sequence[Job], path: str, graphed: bool = False) -> list[Trained]:
    """Train all lanes from start to end; return one `Trained` per job, in order.

    All jobs share one recipe and number of images. `graphed` replays the pass as a CUDA graph.
    """
    recipe, images = jobs[0].recipe, len(jobs[0].images)
    per_epoch, total = recipe.iterations(images)
    feeds, judge = Feeds(jobs), Judge(jobs)
    stepper = make_optimizer(recipe, lanes.weights, lanes.grads)
    meter = Meters(len(jobs), lanes.weights.device)
    histories: list[list[Epoch]] = [[] for _ in jobs]
    descend: gpu.Pass | None = None
    with no_denormals():
        for iteration in range(total):
            x, y = feeds(iteration % per_epoch)
            if descend is None:
                run = lanes.descend
                descend = gpu.GraphedPass(run, x, y, lanes.grads) if graphed else run
            meter.add(*descend(x, y), y)
            stepper.lr = learning_rate(recipe, iteration, per_epoch, total)
            stepper.step()
            if lanes.keep is not None:
                lanes.weights.mul_(lanes.keep)
            if (iteration + 1) % per_epoch == 0 or iteration + 1 == total:
                epoch = iteration // per_epoch
                sums = check_finite(recipe.lr, epoch + 1, [lanes.weights], meter.take())
                meter.note(sums, histories, epoch, iteration + 1, path)
                judge(lanes, epoch)
    return [
        Trained(lanes.state(lane), histories[lane], path, judge.best[lane])
        for lane in range(len(jobs))
    ]


class Meters:
    """Sums loss and hits of every lane on the device; the host reads them once per epoch."""

    def __init__(self, lanes: int, device: torch.device) -> None:
        self.loss, self.hits = (torch.zeros(lanes, device=device) for _ in range(2))
        self.count = 0

    def add(self, losses: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add one batch: mean losses (K,), logits (K, B, C), labels (B,) or (K, B)."""
        self.loss.add_(losses, alpha=y.shape[-1])
        self.hits.add_((logits.argmax(2) == y).sum(1))
        self.count += y.shape[-1]

    def take(self) -> Tensor:
        """Return summed losses, then hits (2 K,), still on the device; reset both."""
        sums = torch.cat([self.loss, self.hits])
        self.loss.zero_()
        self.hits.zero_()
        return sums

    def note(
        self,
        sums: Sequence[float],
        histories: Sequence[list[Epoch]],
        epoch: int,
        iteration: int,
        path: str,
    ) -> None:
        """Append the averages of an epoch's sums to each lane's history."""
        pairs = zip(sums[: len(histories)], sums[len(histories) :], histories, strict=True)
        for loss, hits, history in pairs:
            mean, accuracy = loss / self.count, hits / self.count
            history.append(Epoch(epoch, iteration, mean, accuracy, path))
        accuracy = sum(history[-1].accuracy for history in histories) / len(histories)
        progress.tell(epoch=epoch + 1, accuracy=accuracy, passes=self.count * len(histories))
        self.count = 0
