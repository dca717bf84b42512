"""Work of one unit of a judgement: one arm of one seed, trained as every other arm is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ticketlab import gpu
from ticketlab.data.sets import Batches
from ticketlab.judging.params import JudgeSetting
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State, after_pruning, keep_top
from ticketlab.spec import InputError
from ticketlab.study.bench import Bench
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.study.retrain import Start, retrain_many
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Ticket
from ticketlab.training.evaluation import evaluate
from ticketlab.training.recipe import Recipe, Step


@dataclass(frozen=True)
class JudgeBench(Bench):
    """The common starting point of a seed, at given initial weights if there are any."""

    setting: JudgeSetting
    start: Ticket | None = None

    def model(self, stream: str = "init", classes: int | None = None) -> torch.nn.Module:
        """Return the model at the given weights, else at this seed's own draw; on the CPU."""
        model = super().model(stream, classes)
        if self.start is not None and self.start.weights is not None:
            given = gpu.perturbed(self.start.weights, self.setting.runtime, self.seed)
            model.load_state_dict(given)
        return model


# ---------------------------------------------------------------- units


def train_arm(
    setting: JudgeSetting, seed: int, arm: str, mask: Mask, start: Ticket | None = None
) -> Result:
    """Train a mask from the weights of `start`, or from the seed's own, at the rewinding point."""
    bench = JudgeBench(setting, seed, start)
    account = Account(bench)
    account.reach_rewind_point()
    theta = bench.theta(bench.net())
    return Result(_trained(bench, arm, mask, theta, account.spent))


def search(
    setting: JudgeSetting, seed: int, dense: Mask, kept: int, start: Ticket | None = None
) -> Result:
    """Find a ticket of exactly `kept` weights by IMP within `dense`, and train it."""
    bench = JudgeBench(setting, seed, start)
    net, account = bench.net(), Account(bench)
    theta = bench.theta(net)
    account.reach_rewind_point()

    def train_masked(mask: Mask) -> State:
        bench.label("imp", mask)
        net.rewind(theta, mask)
        account.train(net, bench.data.train, setting.recipe, mask=mask)
        return net.state()

    left = rounds(dense.total, kept, setting.rate)
    keep, _, target = imp.same_schedule(left)
    levels = imp.find_tickets(
        train_masked, dense.to(bench.device), keep=keep, target=target, max_rounds=len(left) - 1
    )
    *_, last = levels
    mask = keep_top(magnitude(last.weights, last.mask), kept, within=last.mask)
    record = _trained(bench, "imp", mask, theta, account.spent)
    ticket = bench.ticket(mask, theta, arm="imp", round=len(left))
    return Result(record, {"ticket": ticket})


def train_long(
    setting: JudgeSetting, seed: int, mask: Mask, images: int, start: Ticket | None = None
) -> Result:
    """Train a mask once, with the schedule stretched to as many `images` as IMP used in all."""
    bench = JudgeBench(setting, seed, start)
    recipe = stretched(setting.recipe, images, len(bench.data.train))
    theta = bench.theta(bench.net())
    return Result(_trained(bench, "random-long", mask, theta, Cost(), recipe))


# ---------------------------------------------------------------- parts of units


def rounds(total: int, kept: int, rate: float) -> list[int]:
    """Return the weights left after each round of IMP; the last round prunes to exactly `kept`."""
    if not 0 < kept < total:
        raise InputError(f"mask: it keeps {kept} of {total} weights, allowed: 1 to {total - 1}")
    left, alive = [], total
    while alive > kept:
        alive = max(kept, min(after_pruning(alive, rate), alive - 1))
        left.append(alive)
    return left


def stretched(recipe: Recipe, images: int, total: int) -> Recipe:
    """Return the recipe with a length of about `images` on a training set of `total`."""
    per_epoch = recipe.iterations(total)[0]
    return recipe.model_copy(update={"length": Step(round(images / total * per_epoch), "it")})


def _trained(
    bench: JudgeBench,
    arm: str,
    mask: Mask,
    theta: State,
    spent: Cost,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Train a mask from `theta`; return the record with scores, and costs after `spent`."""
    mask = mask.to(bench.device)
    bench.label(arm, mask)
    before = untrained_accuracy(bench, theta, mask)
    (done,) = retrain_many(bench, [Start(theta, mask, recipe)])
    facts = {"arm": arm, "seed": bench.seed, "alive": mask.alive, "sparsity": mask.sparsity}
    facts |= {"mask_sha256": mask.digest(), "start_accuracy": before}
    costs = spent.row("search_") | (spent + done.spent).row()
    rows: Sequence[dict[str, Any]] = [facts | done.scores | costs]
    return {"rows": rows, "data_sha256": bench.data.sha256}


def untrained_accuracy(bench: JudgeBench, theta: State, mask: Mask) -> float:
    """Return the accuracy in percent on validation images before the first step."""
    net, images = bench.net(), bench.data.validation
    net.rewind(theta, mask)
    return 100 * evaluate(net, images, Batches(images, bench.data)).accuracy
