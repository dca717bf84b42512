"""Magnitude pruning in rounds that start from rewound weights, from trained ones, or finetune.

Renda, Frankle and Carbin 2020 (arXiv 2003.02389): learning-rate rewinding trains the surviving
weights on with the whole schedule, finetuning trains them on at the last learning rate. Each round
takes as many steps as one of IMP, so that all three cost the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ticketlab.papers.compare.algorithm import BedBench, Found
from ticketlab.papers.geometry.params import Rewinding
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State, after_pruning, keep_top
from ticketlab.spec import InputError
from ticketlab.study.cost import Account
from ticketlab.study.retrain import Start
from ticketlab.training.recipe import Recipe, learning_rate


@dataclass(frozen=True)
class Ticket:
    """A mask at exactly one level, and the training that follows its pruning."""

    found: Found
    start: Start


def find_tickets(bench: BedBench, account: Account, kind: Rewinding) -> Iterator[Ticket]:
    """Train, prune and go on as `kind` says until the last level; yield a ticket for each level.

    The round that passes a level prunes just to it for that level's ticket, as in the comparison.
    InputError if the rounds do not suffice.
    """
    s, net = bench.setting, bench.net()
    theta, mask = bench.theta(net), bench.dense
    account.reach_rewind_point()
    start = Start(theta, mask, s.recipe)
    for index in range(1, s.max_rounds + 1):
        bench.label(f"imp ({kind})", mask)
        state = _trained(bench, account, start)
        scores, left = magnitude(state, mask), after_pruning(mask.alive, s.rate)
        for level in s.levels:
            if left <= (keep := bench.kept(level)) < mask.alive:
                kept = keep_top(scores, keep, within=mask)
                found = Found(level, kept, index, account.spent)
                yield Ticket(found, following(bench, kind, theta, state, kept))
        mask = keep_top(scores, left, within=mask)
        if left <= bench.kept(max(s.levels)):
            return
        start = following(bench, kind, theta, state, mask)
    raise InputError(
        f"max_rounds: {s.max_rounds} rounds of IMP reached {mask.sparsity:g} of "
        f"{max(s.levels):g} sparsity ({s.name}); allow more rounds or a higher rate"
    )


def _trained(bench: BedBench, account: Account, start: Start) -> State:
    net, recipe = bench.net(), start.recipe or bench.setting.recipe
    net.rewind(start.state, start.mask)
    account.train(net, bench.data.train, recipe, mask=start.mask)
    return net.state()


def following(bench: BedBench, kind: Rewinding, theta: State, trained: State, mask: Mask) -> Start:
    """Return the training that follows a pruning to `mask`."""
    if kind == "weights":
        return Start(theta, mask, bench.setting.recipe)
    recipe = bench.setting.recipe
    if kind == "finetune":
        recipe = finetuning(recipe, len(bench.data.train))
    return Start(trained, mask, recipe)


def finetuning(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe of the same length at the learning rate with which `recipe` ends."""
    per_epoch, total = recipe.iterations(images)
    last = learning_rate(recipe, total - 1, per_epoch, total)
    constant = {"lr": last, "schedule": "constant", "milestones": (), "warmup": "0it"}
    return Recipe.model_validate(recipe.model_dump() | constant)
