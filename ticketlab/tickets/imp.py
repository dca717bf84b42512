"""Iterative magnitude pruning with rewinding: the lottery-ticket baseline of every paper.

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
    """One trained ticket of the ladder: `index` prunings made, `weights` after training."""

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
    """Train, prune the smallest weights globally, rewind, repeat; yields each trained level.

    `train_masked` rewinds, trains under a mask and returns the final weights. `keep(round, alive)`
    is how many weights are left after the round's pruning (rounds counted from 0). Level 0 is
    dense. Ends once `target` sparsity or `max_rounds` prunings are reached.
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
    """The `keep` rule that removes the fraction `rate` of the remaining weights each round."""
    return lambda _, alive: after_pruning(alive, rate)


def same_schedule(alive: list[int]) -> tuple[Callable[[int, int], int], int, float]:
    """`keep`, `max_rounds` and `target` that follow another method's weights round by round."""
    return lambda index, _: alive[index], len(alive), 1.0


def rewind_state(
    net: Net, images: Images, data: DataSet, recipe: Recipe, at: Step, seed: tuple[object, ...]
) -> State:
    """The state to rewind to: the net's current one for a step of 0, else after `at` steps.

    Trained with the recipe's own schedule, so that it lies on the dense run's trajectory. The net
    itself is left as it was.
    """
    start = net.state()
    if at.value == 0:
        return start
    train(net, images, data, recipe, seed=seed, until=at)
    later = net.state()
    net.rewind(start)
    return later


def rewind_cost(recipe: Recipe, images: int, at: Step) -> tuple[int, int]:
    """Optimiser steps of `rewind_state` on a training set of `images`, and the images in them."""
    steps = at.iterations(*recipe.iterations(images))
    return steps, recipe.passes(images, steps)
