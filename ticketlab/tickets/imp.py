"""Iterative magnitude pruning (IMP) with rewinding: the lottery-ticket baseline of every paper.

Frankle & Carbin 2019 (rewinding to initialisation) and Frankle et al. 2020 (to a later step).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ticketlab.data.sets import DataSet, Images
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State, after_pruning, keep_top
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step


@dataclass(frozen=True)
class Level:
    """One trained ticket: `index` is the number of prunings, `weights` are those after training."""

    index: int
    mask: Mask
    weights: State


def find_tickets(
    train_masked: Callable[[Mask], State],
    mask: Mask,
    *,
    keep: Callable[[int, int], int],
    target: float,
    max_rounds: int,
) -> Iterator[Level]:
    """Train, prune the smallest weights globally, rewind, repeat; yield each trained level.

    `train_masked` rewinds, trains under a mask and returns the final weights. `keep(round, alive)`
    returns how many weights remain after a round's pruning (rounds counted from 0). Level 0 is
    dense. Ends when `target` sparsity or `max_rounds` prunings are reached.
    """
    for index in range(max_rounds + 1):
        weights = train_masked(mask)
        yield Level(index, mask, weights)
        if mask.sparsity >= target or index == max_rounds:
            return
        left = keep(index, mask.alive)
        if left < 1:
            return
        mask = keep_top(magnitude(weights, mask), left, within=mask)


def constant_rate(rate: float) -> Callable[[int, int], int]:
    """Return a `keep` rule that removes the fraction `rate` of the remaining weights per round."""
    return lambda _, alive: after_pruning(alive, rate)


def same_schedule(alive: list[int]) -> tuple[Callable[[int, int], int], int, float]:
    """Return `keep`, `max_rounds` and `target` that follow another method's counts per round."""
    return lambda index, _: alive[index], len(alive), 1.0


def rewind_state(
    net: Net, images: Images, data: DataSet, recipe: Recipe, at: Step, seed: tuple[object, ...]
) -> State:
    """Return the state to rewind to: the net's current one for 0 steps, else that after `at` steps.

    It is trained with the recipe's own schedule, so it lies on the dense run's trajectory. The net
    itself is left unchanged.
    """
    start = net.state()
    if at.value == 0:
        return start
    train(net, images, data, recipe, seed=seed, until=at)
    later = net.state()
    net.rewind(start)
    return later


def rewind_cost(recipe: Recipe, images: int, at: Step) -> tuple[int, int]:
    """Return the optimiser steps of `rewind_state` on a set of `images`, and the images in them."""
    steps = at.iterations(*recipe.iterations(images))
    return steps, recipe.passes(images, steps)
