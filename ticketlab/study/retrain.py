"""Trains a ticket and scores it, in the same way for all papers.

`last_accuracy` is the test accuracy in percent after the last epoch. `selected_accuracy` is the
test accuracy after the epoch with the best accuracy on validation images (the first of several),
and `validation_accuracy` is that best accuracy. `train_accuracy` is measured on the batches of the
last epoch while it trains. Nothing is selected on test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ticketlab.data.sets import Batches
from ticketlab.many.train_many import Job, train_many
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.bench import Bench, Setting
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import Outcome
from ticketlab.training.evaluation import predict, score_of
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, KeepBest, Observer
from ticketlab.training.recipe import Recipe

Scores = dict[str, Any]


@dataclass(frozen=True)
class Retrained:
    """The states after the last epoch and after the best on validation, with their scores."""

    last: State
    selected: State
    scores: Scores
    history: list[Epoch]
    logits: Tensor
    """Logits of the last state on the test images, float32 (N, classes)."""
    spent: Cost = field(default_factory=Cost)
    """Cost of training and of validation passes; only set by `retrain_many`."""

    @property
    def outcome(self) -> Outcome:
        """Return the part that a ticket stores."""
        return Outcome(self.last, self.logits)


def retrain(
    account: Account,
    net: Net,
    start: State,
    mask: Mask | None,
    *,
    recipe: Recipe | None = None,
    observers: Sequence[Observer] = (),
) -> Retrained:
    """Train a ticket on all training images of the bench from `start`, and score it.

    All tickets of the seed share the data order; `path` in the scores names how the steps were
    computed (`passes.Path`). The net is left at its last state. Without validation images nothing
    is selected, and the scores have no selected epoch.
    """
    data = account.bench.data
    best = KeepBest(data.validation, data) if len(data.validation) else None
    net.rewind(start, mask)
    history = account.train(
        net,
        data.train,
        recipe or account.bench.setting.recipe,
        mask=mask,
        observers=[*observers, *([best] if best else [])],
    )
    last, end = net.state(), history[-1]
    facts = {"train_accuracy": 100 * end.accuracy, "path": end.path}
    if best is None:
        scores, logits = scores_of(net, account.bench, last)
        return Retrained(last, last, scores | facts, history, logits)
    same = best.epoch == end.epoch
    scores, logits = scores_of(net, account.bench, last, None if same else best.state)
    if same:
        scores |= {f"selected_{what}": scores[f"last_{what}"] for what in ("accuracy", "loss")}
    net.rewind(last)
    scores |= {"validation_accuracy": 100 * best.accuracy} | facts
    return Retrained(last, best.state, scores, history, logits)


def scores_of(
    net: Net, bench: Bench, last: State, selected: State | None = None
) -> tuple[Scores, Tensor]:
    """Return accuracy in percent and loss of both states on test images, and logits of the last.

    The net is left at one of the two states.
    """
    scores, logits = _scored(net, bench, "last", last)
    if selected is not None:
        scores |= _scored(net, bench, "selected", selected)[0]
    return scores, logits


def _scored(net: Net, bench: Bench, name: str, state: State) -> tuple[Scores, Tensor]:
    net.rewind(state)
    test = bench.data.test
    logits = predict(net, test, Batches(test, bench.data))
    score = score_of(logits, test.y)
    return {f"{name}_accuracy": 100 * score.accuracy, f"{name}_loss": score.loss}, logits


# ---------------------------------------------------------------- several tickets at once


@dataclass(frozen=True)
class Start:
    """A ticket to train: its weights, its mask, and a recipe if not the bench's."""

    state: State
    mask: Mask
    recipe: Recipe | None = None


def retrain_many(bench: Bench, starts: Sequence[Start]) -> list[Retrained]:
    """Train tickets on the same batches; return for each what `retrain` returns, and its cost.

    `path` names how it was trained (`many.train_many`). Requires validation images.
    """
    data, net = bench.data, bench.net()
    jobs = [
        Job(
            net.model,
            data.train,
            data,
            start.recipe or bench.setting.recipe,
            bench.order(),
            start.mask,
            start.state,
            data.validation,
        )
        for start in starts
    ]
    found = []
    for job, done in zip(jobs, train_many(jobs, bench.setting.runtime, tell=_quiet), strict=True):
        if done.best is None:
            raise RuntimeError("a job with validation images has a best epoch")
        account = Account(bench)
        steps = bench.iterations(job.recipe)
        account.charge(net, steps, job.recipe.passes(len(data.train)), job.mask)
        account.look(net, epochs(job.recipe, len(data.train)) * len(data.validation), job.mask)
        scores, logits = scores_of(net, bench, done.state, done.best.state)
        scores |= {"validation_accuracy": 100 * done.best.accuracy, "path": done.path}
        scores |= {"train_accuracy": 100 * done.history[-1].accuracy}
        best, spent = done.best.state, account.spent
        found.append(Retrained(done.state, best, scores, done.history, logits, spent))
    return found


def _quiet(line: str) -> None:
    """Discard the line: records contain the paths that `train_many` took."""


def epochs(recipe: Recipe, images: int) -> int:
    """Return the epochs of a recipe, counting a partial one: each ends with a validation."""
    per_epoch, total = recipe.iterations(images)
    return -(-total // per_epoch)


# ---------------------------------------------------------------- units that papers share


def train_dense(setting: Setting, seed: int) -> Result:
    """Train the net with all its weights from its initial ones, as a reference for tickets."""
    bench = Bench(setting, seed)
    bench.label("dense", bench.dense)
    start = bench.net().state()
    (done,) = retrain_many(bench, [Start(start, bench.dense)])
    record = {"seed": seed, "data_sha256": bench.data.sha256, "alive": bench.dense.total}
    layers = {"layers": bench.dense.densities()}
    dense = bench.ticket(bench.dense, start, outcome=done.outcome, arm="dense")
    record |= layers | {"scores": done.scores, "cost": done.spent.row()}
    return Result(record, {"dense": dense})
