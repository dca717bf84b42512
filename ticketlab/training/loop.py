"""One training loop for every paper; what a paper adds are observers (`training/observers.py`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu, progress
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask
from ticketlab.spec import InputError
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, Observer, Run
from ticketlab.training.recipe import Recipe, Step, batch_slice, learning_rate, make_optimizer

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
    return gpu.GraphedPass(run, x, y, net.grads, list(net.model.buffers()))


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
