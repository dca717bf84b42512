"""The training loop of all papers; papers extend it by observers (`training/observers.py`)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from ticketlab import gpu, progress
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask
from ticketlab.spec import InputError
from ticketlab.training import passes
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, Observer, Run
from ticketlab.training.optimizers import Adam, Sgd
from ticketlab.training.recipe import Recipe, Step, batch_slice, learning_rate, make_optimizer

# ---------------------------------------------------------------- divergence


class Diverged(InputError):
    """A training produced infinities or NaN, which makes all later results meaningless."""


def check_finite(
    lr: float, epoch: int, tensors: Iterable[Tensor], sums: Tensor | None = None
) -> list[float]:
    """Raise Diverged unless all values of an epoch (counted from 1) are finite; return `sums` (n,).

    Every way of training calls this once per epoch, before anything else uses the weights. It is
    the only read of the device per epoch.
    """
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors]).all()[None].float()
    fine, *numbers = torch.cat([finite] if sums is None else [finite, sums]).tolist()
    if not (fine and all(map(isfinite, numbers))):
        raise Diverged(
            f"lr: {lr:g} makes the training diverge, the loss or a weight is not finite in epoch "
            f"{epoch}; lower it"
        )
    return numbers


@contextmanager
def no_denormals() -> Iterator[None]:
    """Flush denormals to zero inside the block; moments of dead units would slow steps tenfold."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


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
    path: passes.Path | Literal["auto"] = "auto",
) -> list[Epoch]:
    """Train `net` in place on `images`; removed weights are exactly 0 before and after each step.

    `seed` fixes the data order and the augmentation, so that arms that share it see the same
    batches. `until` ends the run early without changing its schedule; `path` forces how passes are
    computed. Returns the averages of every epoch. Raises InputError for an empty set, a length of 0
    steps, an end beyond the run or an impossible path, Diverged at the end of an epoch in which the
    loss or a weight becomes infinite or NaN, and WrongMask if the zeros of the trained net are not
    those of the mask.
    """
    run = _begin(net, images, recipe)
    if mask is not None:
        net.weights.mul_(net.flatten(mask))
    run.path, step = passes.make(net, mask, observers, path, data.shape)
    optimizer = make_optimizer(recipe, step.weights, step.grads)
    batches, order = Batches(images, data, data.augment), torch.empty(0)
    random = gpu.generator(net.device, "order", *seed)
    meter = Meter(net.device)
    end = _end(run, until)
    _check_lone_images(net, batches, images, recipe)
    net.model.train()
    with no_denormals():
        while run.iteration < end:
            place = run.iteration % run.per_epoch
            if place == 0:
                order = torch.randperm(len(images), generator=random, device=net.device)
            run.index = order[batch_slice(place, len(images), recipe.batch)]
            x, run.labels = gpu.layout(batches(run.index, random), net.runtime), images.y[run.index]
            run.loss, run.logits = step.descend(x, run.labels)
            run.correct = run.logits.argmax(1) == run.labels
            meter.add(run.loss, run.correct)
            _update(run, step, optimizer, observers)
            run.iteration += 1
            last_of_epoch = run.iteration % run.per_epoch == 0 or run.iteration == end
            if last_of_epoch and _end_epoch(run, meter, observers):
                break
    step.end()
    net.model.eval()
    named = dict(net.model.named_parameters())
    grads = {name: p.grad for name, p in named.items() if p.grad is not None}
    patterns.confirm(named, mask, grads)
    return run.history


def _update(
    run: Run, step: passes.Pass, optimizer: Adam | Sgd, observers: Sequence[Observer]
) -> None:
    """Take one step of optimiser and mask, calling the observers before and after it."""
    for observer in observers:
        observer.before_step(run)
    optimizer.lr = learning_rate(run.recipe, run.iteration, run.per_epoch, run.total)
    optimizer.step()
    if step.keep is not None:
        step.weights.mul_(step.keep)
    step.show()
    with _diverged_first(run):
        for observer in observers:
            observer.after_step(run)


def _begin(net: Net, images: Images, recipe: Recipe) -> Run:
    if not len(images):
        raise InputError("train: 0 images given, at least 1 is needed")
    recipe.check(len(images), Step(0, "it"))
    per_epoch, total = recipe.iterations(len(images))
    return Run(net, recipe, per_epoch, total)


def _check_lone_images(net: Net, batches: Batches, images: Images, recipe: Recipe) -> None:
    """Raise InputError if every batch has one image, on which batch-norm cannot train."""
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
    """Return the iteration at which to end."""
    end = run.total if until is None else until.iterations(run.per_epoch, run.total)
    if not 1 <= end <= run.total:
        raise InputError(f"step: '{until}' is outside the run of {run.total} iterations")
    return end


def _end_epoch(run: Run, meter: "Meter", observers: Sequence[Observer]) -> bool:
    """Record the epoch and call every observer; return whether one of them ends the training."""
    epoch = (run.iteration - 1) // run.per_epoch
    sums, passed = meter.take()
    loss, hits = check_finite(run.recipe.lr, epoch + 1, _numbers(run.net), sums)
    accuracy = hits / passed
    run.history.append(Epoch(epoch, run.iteration, loss / passed, accuracy, run.path))
    progress.tell(epoch=run.epoch, accuracy=accuracy, passes=passed)
    run.net.model.eval()
    stops = [observer.after_epoch(run) for observer in observers]
    run.net.model.train()
    return any(stops)


def _numbers(net: Net) -> Iterator[Tensor]:
    """Yield all weights, then the batch-norm statistics."""
    yield net.weights
    yield from net.model.buffers()


@contextmanager
def _diverged_first(run: Run) -> Iterator[None]:
    """Report divergence if an observer fails because of it."""
    try:
        yield
    except InputError:
        check_finite(run.recipe.lr, run.epoch + 1, _numbers(run.net))
        raise


class Meter:
    """Sums loss and hits on the device; the host reads them once per epoch."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def add(self, loss: Tensor, correct: Tensor) -> None:
        """Add one batch: mean loss (), and whether each image was classified correctly (B,)."""
        self.loss.add_(loss, alpha=len(correct))
        self.hits.add_(correct.sum())
        self.count += len(correct)

    def take(self) -> tuple[Tensor, int]:
        """Return summed loss and hits (2,), still on the device, and the images since last time."""
        sums, count = torch.stack([self.loss, self.hits.to(self.loss)]), self.count
        self.loss.zero_()
        self.hits.zero_()
        self.count = 0
        return sums, count
