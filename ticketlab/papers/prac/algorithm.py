"""PrAC: tickets from a pruning-aware critical set (Zhang et al., ICML 2021, arXiv 2106.03225).

The search for a ticket trains on few samples: those that are hard to memorise (CET) and those that
pruning makes the net forget (CEP). Mask and set change together from round to round. Sections and
algorithm numbers refer to the paper; where its code differs, docstrings name which one is followed.
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

    Never-learned samples count as forgotten infinitely often. Samples that were not trained on are
    excluded, so CET can only shrink from round to round.
    """
    return (events > threshold).nonzero().flatten()


def easy_to_forget(dense: Tensor, sparse: Tensor) -> Tensor:
    """CEP: indices of the samples that two nets classify differently; labels are not used.

    `dense` and `sparse` are predicted classes (N,) of all training samples, without augmentation.
    CEP is the only way by which a sample can return to the set.
    """
    return (dense != sparse).nonzero().flatten()


@dataclass(frozen=True)
class CriticalSet:
    """The critical set of a round: CET, CEP, and CET's never-learned part, as sorted indices."""

    cet: Tensor
    cep: Tensor
    never: Tensor

    @property
    def union(self) -> Tensor:
        """Return the critical set, CET u CEP."""
        both: Tensor = torch.cat([self.cet, self.cep]).unique()
        return both

    @property
    def overlap(self) -> float | None:
        """Return ``|CEP n CET| / |CEP|`` (table A3); None if CEP is empty."""
        if not len(self.cep):
            return None
        return int(torch.isin(self.cep, self.cet).sum()) / len(self.cep)

    def choose(self, kind: Subset, images: int) -> Tensor:
        """Return the next round's set: the union, one half of it, or all of `images` samples."""
        everything = torch.arange(images, device=self.cet.device)
        return {"critical": self.union, "cet": self.cet, "cep": self.cep, "all": everything}[kind]


def critical_set(
    record: Tensor, threshold: int, dense: Tensor | None, sparse: Tensor
) -> CriticalSet:
    """Return CET from the correctness record (N, E) and CEP from predictions; no CEP if dense."""
    events = forgetting_events(record)
    none = torch.empty(0, dtype=torch.int64, device=record.device)
    cep = none if dense is None else easy_to_forget(dense, sparse)
    never = (events == NEVER).nonzero().flatten()
    return CriticalSet(hard_to_memorise(events, threshold), cep, never)


# ---------------------------------------------------------------- early stopping (section 3.3)


class Stop(Spec):
    """Early stopping: a round may end once the mask that pruning would give stops changing."""

    epsilon: float = Field(default=0.08, gt=0)
    """Bound on the mask distance; 0.07 in the paper's appendix, 0.08 in its code."""
    window: int = Field(default=5, ge=1)
    """Number of consecutive distances that must lie below epsilon."""
    arm_after: int | None = Field(default=None, ge=0)
    """Arms after this many distances even if none exceeded epsilon; None: never (the paper)."""


def mask_distance(a: Mask, b: Mask, alive: int) -> float:
    """Return the positions at which two prospective masks differ, over the `alive` weights.

    A swapped weight counts twice, so the maximum is twice the pruning rate.
    """
    return hamming(a, b) / alive


def is_armed(distances: Sequence[float], stop: Stop) -> bool:
    """Return whether a distance exceeded epsilon, warm-up included, or `stop` no longer waits."""
    waited = stop.arm_after is not None and len(distances) - stop.window >= stop.arm_after
    return waited or any(distance > stop.epsilon for distance in distances)


def is_settled(distances: Sequence[float], stop: Stop, warmup: int = 0) -> bool:
    """Return whether a round with these mask distances, one per epoch, may end.

    It must be armed, and its last distances must all be below epsilon. As in the authors' code,
    the queue of `window` distances starts full of ones; any distance may arm it. Once armed, it is
    filled with the distances after the first `warmup` ones. The earliest end is after
    1 + 1 + window epochs.
    """
    recent = distances[warmup:][-stop.window :]
    quiet = len(recent) == stop.window and max(recent) < stop.epsilon
    return quiet and is_armed(distances, stop)


Scoring = Callable[[State, Mask], Scores]
"""Pruning scores of a round, one per weight; high scores are kept."""


class MaskWatch(Observer):
    """After each epoch computes the mask that pruning would give; may end the round.

    Records the distance to the previous epoch's mask. With `stop` None it only records; `score`
    gives the pruning scores. A round never ends before `earliest` iterations (the rewind point, the
    minimum length of a round). Distances of epochs that begin within warm-up, or as it ends, may
    arm the stop but do not count as quiet.
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
        """Add the distance to the previous epoch's mask; True once settled."""
        weights: State = dict(run.net.model.named_parameters())
        now = prune(self.score(weights, self.mask), self.mask, self.rate)
        if self._before is not None:
            self.distances.append(mask_distance(self._before, now, self.mask.alive))
            warmup = run.recipe.warmup.iterations(run.per_epoch, run.total)
            # Epochs count from 0; the authors use those numbered above the warm-up's length.
            self._warmup += run.history[-1].epoch * run.per_epoch <= warmup
        self._before = now
        if self.stop is None or run.iteration < self.earliest:
            return False
        self.stopped = is_settled(self.distances, self.stop, self._warmup)
        return self.stopped


# ---------------------------------------------------------------- shorter schedules (section 3.3)


def shortened(recipe: Recipe, images: int, subset: int, rule: Shorten, least: int = 0) -> Recipe:
    """Return the recipe for training on `subset` of `images` samples.

    "epochs" scales the number of epochs, as the code does: epochs are shorter too, so the cost
    falls with the square of the set. "iterations" scales iterations, as the paper's formula does.
    "none" keeps the number of epochs, which are shorter, so it costs about as much as "iterations".
    At least one epoch and `least` iterations remain; milestones are scaled in proportion.
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
    """Return the same schedule in `iterations`: milestones and warm-up keep their share of it."""
    ratio = iterations / recipe.length.iterations(per_epoch)
    resized = _map_steps(recipe, lambda step, low: _scaled_iterations(step, ratio, per_epoch, low))
    return resized.model_copy(update={"length": Step(iterations, "it")})


def _map_steps(recipe: Recipe, scale: Callable[[Step, int], Step]) -> Recipe:
    """Return the recipe with length (at least 1), milestones (at least 1) and warm-up scaled."""
    steps = {
        "length": scale(recipe.length, 1),
        "milestones": tuple(scale(step, 1) for step in recipe.milestones),
        "warmup": scale(recipe.warmup, 0),
    }
    return recipe.model_copy(update=steps)


def _scaled_epochs(step: Step, share: float, low: int) -> Step:
    """Return whole epochs, rounded down as in the code: 182 on 29,703 of 45,000 become 120."""
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
    """A trained round: its final `weights`, the critical set `found`, and its cost.

    `scores` are its pruning scores; None prunes by magnitude, as the paper does.
    """

    weights: State
    found: CriticalSet
    facts: dict[str, Any] = field(default_factory=dict)
    scores: Scores | None = None


@dataclass(frozen=True)
class Round:
    """Round `index`: trained under `before` on the samples `images`; led to `mask` and `chosen`.

    `kept_set` is True if the round found no critical samples, so that its own set was used again.
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
    and its set, so that the last ones are not lost.
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
    """Return the iterations of `epochs` epochs on `images` samples."""
    return epochs * epoch_steps(images, batch)


def saving(spent: Sequence[int], full: int) -> float:
    """Return 1 - (iterations spent in the rounds) / (rounds x iterations of a full round).

    The paper's formula: it omits the retraining of tickets and all forward-only passes.
    """
    return 1 - sum(spent) / (len(spent) * full)
