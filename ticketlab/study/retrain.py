"""One way to train a ticket and to score it, for all papers.

`last_accuracy` is test accuracy in percent after the last epoch; `selected_accuracy` that of the
epoch that was best on validation images (the first of several), whose accuracy on these is
`validation_accuracy`. Test images select nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ticketlab.data.sets import Batches
from ticketlab.many.train_many import Job, train_many
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.bench import Bench, Setting
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.training.evaluation import evaluate
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
    last, path = net.state(), {"path": history[-1].path}
    if best is None:
        return Retrained(last, last, scores_of(net, account.bench, {"last": last}) | path, history)
    same = best.epoch == history[-1].epoch
    states = {"last": last} | ({} if same else {"selected": best.state})
    scores = scores_of(net, account.bench, states)
    if same:
        scores |= {f"selected_{what}": scores[f"last_{what}"] for what in ("accuracy", "loss")}
    net.rewind(last)
    scores |= {"validation_accuracy": 100 * best.accuracy} | path
    return Retrained(last, best.state, scores, history)


def scores_of(net: Net, bench: Bench, states: dict[str, State]) -> Scores:
    """Accuracy in percent and loss on the test images of states by name; the net keeps the last."""
    scores: Scores = {}
    test = bench.data.test
    for name, state in states.items():
        net.rewind(state)
        score = evaluate(net, test, Batches(test, bench.data))
        scores |= {f"{name}_accuracy": 100 * score.accuracy, f"{name}_loss": score.loss}
    return scores


# ---------------------------------------------------------------- several tickets at once


@dataclass(frozen=True)
class Start:
    """A ticket about to be trained: its weights, its mask, and another recipe than the bench's."""

    state: State
    mask: Mask
    recipe: Recipe | None = None


def retrain_many(bench: Bench, starts: Sequence[Start]) -> list[tuple[Scores, Cost]]:
    """Train tickets, all on the same batches; for each its scores, and what that cost.

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
        scores = scores_of(net, bench, {"selected": done.best.state, "last": done.state})
        scores |= {"validation_accuracy": 100 * done.best.accuracy, "path": done.path}
        found.append((scores, account.spent))
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
    ((scores, spent),) = retrain_many(bench, [Start(bench.net().state(), bench.dense)])
    record = {"seed": seed, "data_sha256": bench.data.sha256, "alive": bench.dense.total}
    layers = {"layers": bench.dense.densities()}
    return Result(record | layers | {"scores": scores, "cost": spent.row()})
