"""PrAC: tickets from a pruning-aware critical set (Zhang et al., ICML 2021, arXiv 2106.03225).

The search for a ticket trains on few samples: those that are hard to memorise (CET) and those that
pruning makes the net forget (CEP). Mask and set change together from round to round. Sections and
algorithm numbers refer to the paper; where its code differs, the docstring says which one this is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ticketlab.papers.prac.subsets import NEVER, forgetting_events
from ticketlab.pruning.criteria import Scores, magnitude
from ticketlab.pruning.masks import Mask, State, hamming, prune
from ticketlab.spec import InputError, Spec
from ticketlab.training.observers import Observer, Run
from ticketlab.training.recipe import Recipe, Step, epoch_steps

Subset = Literal["critical", "cet", "cep", "all"]
Shorten = Literal["epochs", "iterations", "none"]


# ---------------------------------------------------------------- the critical set (section 3.2)


def hard_to_memorise(events: Tensor, threshold: int = 0) -> Tensor:
    """CET: indices of the samples with more than `threshold` (E_F) forgetting events.

    Never-learned samples count as infinitely forgotten. Samples that were not trained on stay out,
    so CET can only shrink from round to round.
    """
    return (events > threshold).nonzero().flatten()


def easy_to_forget(dense: Tensor, sparse: Tensor) -> Tensor:
    """CEP: indices of the samples that two nets put into different classes; labels play no part.

    `dense` and `sparse` are predicted classes (N,) of all training samples, without augmentation.
    The only way back for a sample that was left out.
    """
    return (dense != sparse).nonzero().flatten()


@dataclass(frozen=True)
class CriticalSet:
    """What a round found: CET, CEP, the never-learned part of CET, all as ascending indices."""

    cet: Tensor
    cep: Tensor
    never: Tensor

    @property
    def union(self) -> Tensor:
        """PrAC = CET u CEP."""
        both: Tensor = torch.cat([self.cet, self.cep]).unique()
        return both

    @property
    def overlap(self) -> float | None:
        """|CEP n CET| / |CEP| (table A3); None without CEP."""
        if not len(self.cep):
            return None
        return int(torch.isin(self.cep, self.cet).sum()) / len(self.cep)

    def choose(self, kind: Subset, images: int) -> Tensor:
        """The next round's set: the union, one half of it, or all of `images` samples."""
        everything = torch.arange(images, device=self.cet.device)
        return {"critical": self.union, "cet": self.cet, "cep": self.cep, "all": everything}[kind]


def critical_set(
    record: Tensor, threshold: int, dense: Tensor | None, sparse: Tensor
) -> CriticalSet:
    """CET from the round's correctness record (N, E), CEP from predictions; none while dense."""
    events = forgetting_events(record)
    none = torch.empty(0, dtype=torch.int64, device=record.device)
    cep = none if dense is None else easy_to_forget(dense, sparse)
    never = (events == NEVER).nonzero().flatten()
    return CriticalSet(hard_to_memorise(events, threshold), cep, never)


# ---------------------------------------------------------------- early stopping (section 3.3)


class Stop(Spec):
    """When a round may end early: the mask that pruning now would give has stopped moving."""

    epsilon: float = Field(default=0.08, gt=0)
    """Bound on the mask distance; 0.07 in the paper's appendix, 0.08 in its code."""
    window: int = Field(default=5, ge=1)
    """Distances in a row that must lie below epsilon."""
    arm_after: int | None = Field(default=None, ge=0)
    """Arms after so many distances if none exceeded epsilon; None waits for one (the paper)."""


def mask_distance(a: Mask, b: Mask, alive: int) -> float:
    """Positions at which two would-be masks differ, over the `alive` remaining weights.

    A swapped weight counts twice, so the highest value is twice the pruning rate.
    """
    return hamming(a, b) / alive


def is_armed(distances: Sequence[float], stop: Stop) -> bool:
    """Whether a distance has exceeded epsilon, in warm-up too, or enough of them have been seen."""
    waited = stop.arm_after is not None and len(distances) - stop.window >= stop.arm_after
    return waited or any(distance > stop.epsilon for distance in distances)


def is_settled(distances: Sequence[float], stop: Stop, warmup: int = 0) -> bool:
    """Whether a round with these mask distances, one an epoch, may end: armed and all quiet.

    The authors' queue of `window` that starts full of ones. Any distance may arm it; it is filled
    once armed, with what comes after the first `warmup` distances. At the earliest, the mask
    settles after 1 + 1 + window epochs.
    """
    recent = distances[warmup:][-stop.window :]
    quiet = len(recent) == stop.window and max(recent) < stop.epsilon
    return quiet and is_armed(distances, stop)


Scoring = Callable[[State, Mask], Scores]
"""What a round is pruned by: a score for each weight, high means keep."""


class MaskWatch(Observer):
    """Prunes on paper after each epoch, records the mask distance, and may end the round.

    `stop` None only records; `score` is what the weights are pruned by. A round never ends before
    `earliest` iterations (the rewind point, the least length of a round). Distances of epochs that
    begin within warm-up, or as it ends, may arm the stop and are not counted as quiet.
    """

    def __init__(
        self,
        mask: Mask,
        rate: float,
        stop: Stop | None,
        earliest: int = 0,
        score: Scoring = magnitude,
    ) -> None:
        self.mask, self.rate, self.stop, self.earliest = mask, rate, stop, earliest
        self.score = score
        self.distances: list[float] = []
        self.stopped = False
        self._warmup = 0
        self._before: Mask | None = None

    def after_epoch(self, run: Run) -> bool:
        """Add the distance to the would-be mask of the epoch before; True once settled."""
        weights: State = dict(run.net.model.named_parameters())
        now = prune(self.score(weights, self.mask), self.mask, self.rate)
        if self._before is not None:
            self.distances.append(mask_distance(self._before, now, self.mask.alive))
            warmup = run.recipe.warmup.iterations(run.per_epoch, run.total)
            # Epochs are counted from 0: the authors count those with a number above the warm-up's.
            self._warmup += run.history[-1].epoch * run.per_epoch <= warmup
        self._before = now
        if self.stop is None or run.iteration < self.earliest:
            return False
        self.stopped = is_settled(self.distances, self.stop, self._warmup)
        return self.stopped


# ---------------------------------------------------------------- shorter schedules (section 3.3)


def shortened(recipe: Recipe, images: int, subset: int, rule: Shorten, least: int = 0) -> Recipe:
    """The recipe for training on `subset` of `images` samples.

    "epochs" scales the number of epochs, as the code does: the epochs are shorter too, so the cost
    falls with the square of the set. "iterations" scales iterations, as the paper's formula does.
    "none" keeps all epochs; they are shorter, too, so it costs about what "iterations" does. Never
    less than one epoch and `least` iterations, milestones stretched in proportion.
    """
    if not 0 < subset <= images:
        raise InputError(f"subset: {subset} samples, allowed: 1 to {images}")
    share, full = subset / images, epoch_steps(images, recipe.batch)
    per_epoch = epoch_steps(subset, recipe.batch)
    scale = {
        "epochs": lambda step, low: _scaled_epochs(step, share, low),
        "iterations": lambda step, low: _scaled_iterations(step, share, full, low),
        "none": lambda step, low: step,
    }[rule]
    short = _map_steps(recipe, scale)
    total = short.length.iterations(per_epoch)
    enough = max(total, per_epoch, least)
    return short if total == enough else of_length(short, per_epoch, enough)


def of_length(recipe: Recipe, per_epoch: int, iterations: int) -> Recipe:
    """The same schedule in so many iterations: milestones and warm-up keep their share of it."""
    ratio = iterations / recipe.length.iterations(per_epoch)
    resized = _map_steps(recipe, lambda step, low: _scaled_iterations(step, ratio, per_epoch, low))
    return resized.model_copy(update={"length": Step(iterations, "it")})


def _map_steps(recipe: Recipe, scale: Callable[[Step, int], Step]) -> Recipe:
    """The recipe with its length (at least 1), milestones (at least 1) and warm-up scaled."""
    steps = {
        "length": scale(recipe.length, 1),
        "milestones": tuple(scale(step, 1) for step in recipe.milestones),
        "warmup": scale(recipe.warmup, 0),
    }
    return recipe.model_copy(update=steps)


def _scaled_epochs(step: Step, share: float, low: int) -> Step:
    """Whole epochs, rounded down as in the code: 182 epochs on 29,703 of 45,000 are 120."""
    if step.unit == "%" or not step.value:
        return step
    if step.unit == "it":
        raise InputError(f"recipe: '{step}' counts iterations, rule 'epochs' allows 'ep' and '%'")
    return Step(max(low, floor(step.value * share)), "ep")


def _scaled_iterations(step: Step, ratio: float, per_epoch: int, low: int) -> Step:
    if step.unit == "%":
        return step
    return Step(max(low, floor(step.iterations(per_epoch) * ratio)), "it")


# ---------------------------------------------------------------- the loop (algorithm 1)


@dataclass(frozen=True)
class Outcome:
    """A trained round: the `weights` it ended with, the set it `found`, and what it cost.

    `scores` are what its weights are pruned by; None prunes by magnitude, as the paper does.
    """

    weights: State
    found: CriticalSet
    facts: dict[str, Any] = field(default_factory=dict)
    scores: Scores | None = None


@dataclass(frozen=True)
class Round:
    """Round `index` trained under `before` on the samples `images`, and left `mask` and `chosen`.

    `kept_set` tells that the round found nothing to train on, and its own set was used again.
    """

    index: int
    before: Mask
    images: Tensor
    outcome: Outcome
    mask: Mask
    chosen: Tensor
    kept_set: bool


def find_tickets(
    train_round: Callable[[int, Mask, Tensor], Outcome],
    choose: Callable[[int, Outcome], Tensor],
    mask: Mask,
    images: Tensor,
    *,
    rate: float,
    rounds: range,
) -> Iterator[Round]:
    """Train on the set, prune the smallest weights globally, rewind, choose the next set, repeat.

    `train_round(k, mask, images)` rewinds (round 0 starts from initialisation) and trains;
    `choose(k, outcome)` picks the next round's samples. Each round is yielded with both its mask
    and its set, so the last ones are not lost.
    """
    for index in rounds:
        outcome = train_round(index, mask, images)
        pruned = prune(outcome.scores or magnitude(outcome.weights, mask), mask, rate)
        chosen = choose(index, outcome)
        empty = not len(chosen)
        following = images if empty else chosen
        yield Round(index, mask, images, outcome, pruned, following, empty)
        mask, images = pruned, following


# ---------------------------------------------------------------- costs (section 4.1)


def round_iterations(images: int, epochs: int, batch: int) -> int:
    """Iterations of `epochs` epochs on `images` samples."""
    return epochs * epoch_steps(images, batch)


def saving(spent: Sequence[int], full: int) -> float:
    """1 - (iterations spent in the rounds) / (rounds x iterations of a full round).

    The paper's formula: it leaves out the retraining of tickets and every forward-only pass.
    """
    return 1 - sum(spent) / (len(spent) * full)
