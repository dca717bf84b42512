"""One training loop for every paper, with observers for what a paper adds."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from torch import Tensor, nn
from torch.nn import functional

from ticketlab import gpu, progress
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State, check_fits
from ticketlab.spec import InputError, Spec
from ticketlab.training.optimizers import Adam, Sgd

# ---------------------------------------------------------------- recipe


@dataclass(frozen=True)
class Step:
    """A point or length in training: '3ep' (epochs), '500it' (iterations) or '40%' (of the run)."""

    value: float
    unit: Literal["ep", "it", "%"]

    @classmethod
    def parse(cls, text: "str | Step") -> "Step":
        """From its text; ValueError for anything else, a bare number included."""
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
        """The number of optimiser steps, rounded; a share needs the `total` of the run."""
        if self.unit == "%":
            if total is None:
                raise InputError(f"step: '{self}' is a share, allowed here are 'ep' and 'it'")
            return round(self.value / 100 * total)
        return round(self.value * per_epoch) if self.unit == "ep" else int(self.value)


StepField = Annotated[Step, BeforeValidator(Step.parse), PlainSerializer(str)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _all_different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("allowed are seeds that differ")
    return seeds


Seeds = Annotated[
    tuple[int, ...], Field(strict=False, min_length=1), AfterValidator(_all_different)
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
    """Linear ramp from exactly 0 at the first iteration to `lr`."""

    def iterations(self, images: int) -> tuple[int, int]:
        """Iterations an epoch (see `batch_slice`) and in all, for a set of `images`."""
        per_epoch = epoch_steps(images, self.batch)
        return per_epoch, self.length.iterations(per_epoch)

    def passes(self, images: int) -> int:
        """Images seen by one training on a set of `images`."""
        per_epoch, total = self.iterations(images)
        epochs, rest = divmod(total, per_epoch)
        return epochs * images + min(rest * self.batch, images)

    def check(self, images: int, rewind: Step) -> None:
        """InputError if the run would have no step, or end before the rewind point."""
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
    """Batches of an epoch; every way of training and every ledger counts by this rule."""
    whole, rest = divmod(images, batch)
    return max(1, whole + (rest > 1))


def batch_slice(place: int, images: int, batch: int) -> slice:
    """Where a batch of an epoch, counted from 0, lies in the order of the images.

    The last one may be short, but a single image joins the batch before it: batch-norm has no
    variance over one value, and sets that are chosen during a run may have any size.
    """
    last = place + 1 == epoch_steps(images, batch)
    return slice(place * batch, images if last else (place + 1) * batch)


def make_optimizer(recipe: Recipe, weights: Tensor, grads: Tensor) -> Adam | Sgd:
    """A fresh optimiser of the recipe over flat buffers (n,); the loop sets its rate each step."""
    if recipe.optimizer == "adam":
        return Adam(weights, grads, recipe.lr, recipe.weight_decay)
    return Sgd(weights, grads, recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay)


def learning_rate(recipe: Recipe, iteration: int, per_epoch: int, total: int) -> float:
    """The learning rate of one iteration (counted from 0) in a run of `total` iterations."""
    warmup = recipe.warmup.iterations(per_epoch, total)
    if iteration < warmup:
        return recipe.lr * iteration / warmup
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + cos(pi * (iteration - warmup) / max(1, total - warmup))) / 2
    if recipe.schedule == "constant":
        return recipe.lr
    passed = sum(iteration >= m.iterations(per_epoch, total) for m in recipe.milestones)
    return recipe.lr * recipe.decay**passed


# ---------------------------------------------------------------- a net ready to train


class Net:
    """A model on its device whose parameters and gradients are each one flat buffer.

    Parameters become views into `weights` (n,) and their gradients views into `grads` (n,), so the
    optimiser, the mask and rewinding are single operations. With channels_last the convolution
    weights are stored OHWI and viewed OIHW.
    """

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = gpu.start(runtime)
        self.model = model.to(self.device)
        named = dict(model.named_parameters())
        self.names = tuple(named)
        self._shapes = tuple(p.shape for p in named.values())
        count = sum(shape.numel() for shape in self._shapes)
        self.weights = next(iter(named.values())).detach().new_empty(count)
        self.grads = torch.zeros_like(self.weights)
        for parameter, weight, grad in zip(
            named.values(), self._views(self.weights), self._views(self.grads), strict=True
        ):
            weight.copy_(parameter.detach())
            parameter.data, parameter.grad = weight, grad
        self.forward = gpu.compiled(self.model, runtime)

    def _views(self, flat: Tensor) -> list[Tensor]:
        """A flat buffer (n,) as the parameters lie in it, each in its own shape.

        The only place that knows the storage order: weights, gradients and masks are written and
        read through these views alone.
        """
        views = []
        parts = flat.split([shape.numel() for shape in self._shapes])
        for part, shape in zip(parts, self._shapes, strict=True):
            if self.runtime.channels_last and len(shape) == 4:
                outputs, inputs, height, width = shape
                views.append(part.view(outputs, height, width, inputs).permute(0, 3, 1, 2))
            else:
                views.append(part.view(shape))
        return views

    def state(self) -> State:
        """A copy of all weights, biases and batch-norm state, in the models' own layout."""
        return {
            n: t.detach().clone(memory_format=torch.contiguous_format)
            for n, t in self.model.state_dict().items()
        }

    def rewind(self, state: State, mask: Mask | None = None) -> None:
        """Restore `state` bitwise, batch-norm state included; then remove what `mask` removes.

        InputError for the state of another net.
        """
        mine = self.model.state_dict()
        check_state("state", state, mine)
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])
        if mask is not None:
            self.weights.mul_(self.flatten(mask))

    def flatten(self, mask: Mask) -> Tensor:
        """The mask over `weights` as float32 (n,): 0 for removed weights, 1 for all others."""
        check_fits(mask, self.model)
        keep = torch.ones_like(self.weights, dtype=torch.float32)
        for name, view in zip(self.names, self._views(keep), strict=True):
            if name in mask:
                view.copy_(mask[name])
        return keep


def check_state(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """InputError unless a state has the names and shapes of a net's own."""
    if differing := sorted(state.keys() ^ own.keys()):
        name, whose = differing[0], "only the state" if differing[0] in state else "only the net"
        raise InputError(
            f"{key}: {name!r} is in {whose}; allowed are the {len(own)} names of the net, "
            f"the state has {len(state)}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            have, want = tuple(tensor.shape), tuple(own[name].shape)
            raise InputError(f"{key}: {name!r} has shape {have}, the net has {want}")


# ---------------------------------------------------------------- divergence


class Diverged(InputError):
    """A training has left the finite numbers, so that nothing after it would mean anything."""


def check_finite(
    lr: float, epoch: int, tensors: Iterable[Tensor], losses: Iterable[float] = ()
) -> None:
    """Raise Diverged unless all are finite in an epoch, counted from 1; one read of the device.

    Every way of training calls it once per epoch, before anything looks at the weights.
    """
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
    if not (all(map(isfinite, losses)) and bool(finite)):
        raise Diverged(
            f"lr: {lr:g} makes the training diverge, the loss or a weight is not finite in epoch "
            f"{epoch}; lower it"
        )


# ---------------------------------------------------------------- observers


@dataclass
class Epoch:
    """Averages over one epoch of training, taken from the passes before each update."""

    epoch: int
    iteration: int
    loss: float
    accuracy: float


@dataclass
class Run:
    """What observers see. Per step: `index` (B,) into the images, `labels`, `logits`, `loss`."""

    net: Net
    recipe: Recipe
    per_epoch: int
    total: int
    iteration: int = 0
    history: list[Epoch] = field(default_factory=list)
    index: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def epoch(self) -> int:
        """The epoch of the current iteration, counted from 0."""
        return self.iteration // self.per_epoch


class Observer:
    """Looks into a run, and may edit gradients before a step or weights after it."""

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


# ---------------------------------------------------------------- the loop


def train(
    net: Net,
    images: Images,
    data: DataSet,
    recipe: Recipe,
    *,
    seed: tuple[object, ...],
    mask: Mask | None = None,
    observers: Sequence[Observer] = (),
    until: Step | None = None,
) -> list[Epoch]:
    """Train `net` in place on `images`; removed weights are exactly 0 before and after each step.

    `seed` fixes the data order and the augmentation, so arms that share it see the same batches.
    `until` ends the run early without changing its schedule. Returns the averages of every epoch.
    Raises InputError for an empty set, a length of 0 steps, or an end beyond the run, Diverged at
    the end of the epoch in which the loss or a weight stops being finite, and WrongMask if the
    model's own zeros at the end are not those of the mask.
    """
    run = _begin(net, images, recipe)
    keep = None if mask is None else net.flatten(mask)
    if keep is not None:
        net.weights.mul_(keep)
    optimizer = make_optimizer(recipe, net.weights, net.grads)
    batches, order = Batches(images, data, data.augment), torch.empty(0)
    random = gpu.generator(net.device, "order", *seed)
    meter, forward_backward = Meter(net.device), None
    end = _end(run, until)
    _check_lone_images(net, batches, images, recipe)
    net.model.train()
    while run.iteration < end:
        place = run.iteration % run.per_epoch
        if place == 0:
            order = torch.randperm(len(images), generator=random, device=net.device)
        run.index = order[batch_slice(place, len(images), recipe.batch)]
        x, run.labels = gpu.layout(batches(run.index, random), net.runtime), images.y[run.index]
        forward_backward = forward_backward or _forward_backward(net, x, run.labels)
        run.loss, run.logits = forward_backward(x, run.labels)
        meter.add(run.loss, run.logits, run.labels)
        for observer in observers:
            observer.before_step(run)
        optimizer.lr = learning_rate(recipe, run.iteration, run.per_epoch, run.total)
        optimizer.step()
        if keep is not None:
            net.weights.mul_(keep)
        with _diverged_first(run):
            for observer in observers:
                observer.after_step(run)
        run.iteration += 1
        last_of_epoch = run.iteration % run.per_epoch == 0 or run.iteration == end
        if last_of_epoch and _end_epoch(run, meter, observers):
            break
    net.model.eval()
    named = dict(net.model.named_parameters())
    grads = {name: p.grad for name, p in named.items() if p.grad is not None}
    patterns.confirm(named, mask, grads)
    return run.history


def _begin(net: Net, images: Images, recipe: Recipe) -> Run:
    if not len(images):
        raise InputError("train: 0 images given, at least 1 is needed")
    recipe.check(len(images), Step(0, "it"))
    per_epoch, total = recipe.iterations(len(images))
    return Run(net, recipe, per_epoch, total)


def _check_lone_images(net: Net, batches: Batches, images: Images, recipe: Recipe) -> None:
    """InputError if batches of one image are all there are, and the net's batch-norm needs more."""
    if 1 not in (len(images), recipe.batch):
        return
    before = net.state()
    net.model.train()
    try:
        with torch.no_grad():
            net.model(
                gpu.layout(
                    batches(torch.zeros(1, dtype=torch.int64, device=net.device)), net.runtime
                )
            )
    except ValueError as error:
        raise InputError(
            f"recipe.batch: {recipe.batch} on {len(images)} images makes batches of one image, "
            "which batch-norm on 1 x 1 maps cannot train on; allowed are 2 or more of both"
        ) from error
    finally:
        net.model.eval()
        net.rewind(before)


def _end(run: Run, until: Step | None) -> int:
    """The iteration to end at."""
    end = run.total if until is None else until.iterations(run.per_epoch, run.total)
    if not 1 <= end <= run.total:
        raise InputError(f"step: '{until}' is outside the run of {run.total} iterations")
    return end


def _end_epoch(run: Run, meter: "Meter", observers: Sequence[Observer]) -> bool:
    """Record the epoch and ask every observer; whether one wants to stop."""
    loss, accuracy, passes = meter.read()
    epoch = (run.iteration - 1) // run.per_epoch
    check_finite(run.recipe.lr, epoch + 1, _numbers(run.net), [loss])
    run.history.append(Epoch(epoch, run.iteration, loss, accuracy))
    progress.tell(epoch=run.epoch, accuracy=accuracy, passes=passes)
    run.net.model.eval()
    stops = [observer.after_epoch(run) for observer in observers]
    run.net.model.train()
    return any(stops)


def _numbers(net: Net) -> Iterator[Tensor]:
    """All weights, then what batch-norm keeps."""
    yield net.weights
    yield from net.model.buffers()


@contextmanager
def _diverged_first(run: Run) -> Iterator[None]:
    """An observer that stumbles over what is no number ends the run as divergence does."""
    try:
        yield
    except InputError:
        check_finite(run.recipe.lr, run.epoch + 1, _numbers(run.net))
        raise


def _forward_backward(net: Net, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Any]:
    """The pass that leaves gradients in `net.grads`; captured as a graph where asked for."""

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        net.grads.zero_()
        with gpu.autocast(net.device, net.runtime):
            logits = net.forward(x)
        loss = functional.cross_entropy(logits.float(), y)
        loss.backward()
        return loss.detach(), logits.detach()

    if not gpu.uses_graphs(net.device, net.runtime):
        return run
    before = net.state()  # capturing runs the pass, which moves batch-norm statistics
    graphed = gpu.GraphedPass(run, x, y)
    net.rewind(before)
    return graphed


class Meter:
    """Sums loss and hits on the device; the host reads them once an epoch."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, device=device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch: mean loss (), logits (B, C), labels (B,)."""
        self.sums[0] += loss * len(labels)
        self.sums[1] += (logits.argmax(1) == labels).sum()
        self.sums[2] += len(labels)

    def read(self) -> tuple[float, float, int]:
        """Mean loss, accuracy and number of images since the last read."""
        loss, hits, count = self.sums.tolist()
        self.sums.zero_()
        return loss / count, hits / count, int(count)


# ---------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy on `n` images, without augmentation, in eval mode."""

    loss: float
    accuracy: float
    n: int


def predict(net: Net, images: Images, batches: Batches, batch: int = 500) -> Tensor:
    """Logits (N, C), float32, in eval mode and without augmentation."""
    training = net.model.training
    net.model.eval()
    logits = []
    with torch.no_grad(), gpu.autocast(net.device, net.runtime):
        for index in torch.arange(len(images), device=net.device).split(batch):
            logits.append(net.forward(gpu.layout(batches(index), net.runtime)).float())
    net.model.train(training)
    return torch.cat(logits)


def evaluate(net: Net, images: Images, batches: Batches) -> Score:
    """Loss and accuracy on `images`."""
    logits = predict(net, images, batches)
    loss = functional.cross_entropy(logits, images.y)
    hits = (logits.argmax(1) == images.y).float().mean()
    mean_loss, accuracy = torch.stack([loss, hits]).tolist()
    return Score(mean_loss, accuracy, len(images))
