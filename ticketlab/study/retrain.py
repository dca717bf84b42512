"""One way to train a ticket and to score it, for all papers.

`last_accuracy` is test accuracy in percent after the last epoch; `selected_accuracy` that of the
epoch that was best on validation images (the first of several), whose accuracy on these is
`validation_accuracy`. `train_accuracy` is that of the last epoch's batches while it trained. Test
images select nothing.
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
    """The state after the last epoch, the one that was best on validation, and their scores."""

    last: State
    selected: State
    scores: Scores
    history: list[Epoch]
    logits: Tensor
    """Of the last state, float32 (N, classes), on the test images."""
    spent: Cost = field(default_factory=Cost)
    """What the training cost with its looks at validation images; of `retrain_many` alone."""

    @property
    def outcome(self) -> Outcome:
        """What a ticket keeps of it."""
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

    The data order is that of all tickets of the seed; `path` in the scores says how the steps were
    computed (`passes.Path`). The net is left at its last state. Without
    validation images nothing is selected, and the scores say nothing of a selected epoch.
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
    """Accuracy in percent and loss of both states on the test images, and the logits of the last.

    The net is left at one of them.
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
    """A ticket about to be trained: its weights, its mask, and another recipe than the bench's."""

    state: State
    mask: Mask
    recipe: Recipe | None = None


def retrain_many(bench: Bench, starts: Sequence[Start]) -> list[Retrained]:
    """Train tickets, all on the same batches; for each what `retrain` returns, and what it cost.

    `path` says how it was trained (`many.train_many`). Needs validation images.
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
    """Which paths `train_many` takes stands in the records."""


def epochs(recipe: Recipe, images: int) -> int:
    """Epochs of a recipe, a part of one counted: after each the net is validated."""
    per_epoch, total = recipe.iterations(images)
    return -(-total // per_epoch)


# ---------------------------------------------------------------- units that papers share


def train_dense(setting: Setting, seed: int) -> Result:
    """The net with all its weights, from its initial ones: what tickets are measured against."""
    bench = Bench(setting, seed)
    bench.label("dense", bench.dense)
    start = bench.net().state()
    (done,) = retrain_many(bench, [Start(start, bench.dense)])
    record = {"seed": seed, "data_sha256": bench.data.sha256, "alive": bench.dense.total}
    layers = {"layers": bench.dense.densities()}
    dense = bench.ticket(bench.dense, start, outcome=done.outcome, arm="dense")
    record |= layers | {"scores": done.scores, "cost": done.spent.row()}
    return Result(record, {"dense": dense})
