"""How each method finds its tickets, with the same data, weights, data order and sparsity."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketlab import gpu, plugins
from ticketlab.data.sets import Batches
from ticketlab.papers.colt import algorithm as colt
from ticketlab.papers.compare.params import ONE_SHOT, BedSetting
from ticketlab.papers.dlth import algorithm as rst
from ticketlab.papers.prac import algorithm as prac
from ticketlab.papers.prac import subsets as critical_sets
from ticketlab.papers.prac.algorithm import MaskWatch, Outcome
from ticketlab.papers.prac.subsets import Correctness
from ticketlab.pruning import saliency
from ticketlab.pruning.criteria import Scores, magnitude
from ticketlab.pruning.masks import Mask, State, after_pruning, keep_top
from ticketlab.spec import InputError, Registry
from ticketlab.study.bench import Bench
from ticketlab.study.cost import Account, Cost
from ticketlab.tickets import imp
from ticketlab.training.observers import KeepBest

# ---------------------------------------------------------------- starting point of a seed


@dataclass(frozen=True)
class BedBench(Bench):
    """The common starting point of all methods of a seed, with exact sparsities."""

    setting: BedSetting
    again: bool = False
    """Whether all trainings see the images in another order than those of the other arms."""

    def order(self, stage: str = "train") -> tuple[object, ...]:
        """Return the data order of a training of this seed."""
        return super().order(f"{stage}, again" if self.again else stage)

    def kept(self, level: float) -> int:
        """Return the number of weights in a ticket of this sparsity, for any method."""
        return after_pruning(self.dense.total, level)

    def label(self, arm: str, mask: Mask, **more: object) -> None:
        """Set the progress display's label for the training that follows."""
        again = " again" if self.again else ""
        super().label(f"{self.setting.name} {arm}{again}", mask, **more)


# ---------------------------------------------------------------- from rounds to exact levels


@dataclass(frozen=True)
class Turn:
    """A round of any iterative method: it scored the weights of `before` and kept `left`."""

    index: int
    before: Mask
    left: int
    scores: Scores


@dataclass(frozen=True)
class Found:
    """A ticket's mask at exactly one level, its round, and the search cost so far."""

    level: float
    mask: Mask
    rounds: int
    cost: Cost


def at_levels(turns: Iterator[Turn], bench: BedBench, account: Account, method: str) -> list[Found]:
    """Return tickets at exactly the levels: the round that passes a level also prunes just to it.

    The search then continues with its own round, and ends at the last level. So a level costs what
    the method spent to reach it, and all methods have equal sparsity.
    """
    wanted, found = {level: bench.kept(level) for level in bench.setting.levels}, []
    for turn in turns:
        for level, keep in wanted.items():
            if turn.left <= keep < turn.before.alive:
                mask = keep_top(turn.scores, keep, within=turn.before)
                found.append(Found(level, mask, turn.index, account.spent))
        if turn.left <= min(wanted.values()):
            return found
    reached = max((find.level for find in found), default=0)
    raise InputError(
        f"max_rounds: {method} reached only {reached:g} of {max(wanted):g} sparsity "
        f"({bench.setting.name}, seed {bench.seed}); allow more rounds or another rate"
    )


# ---------------------------------------------------------------- IMP


def imp_turns(bench: BedBench, account: Account, schedule: Sequence[int] = ()) -> Iterator[Turn]:
    """Iterative magnitude pruning, at its own rate or with a given number of weights per round."""
    p, net = bench.setting, bench.net()
    theta = bench.theta(net)
    account.reach_rewind_point()
    keep, limit = imp.constant_rate(p.rate), p.max_rounds
    if schedule:
        keep, limit, _ = imp.same_schedule(list(schedule))

    def train_masked(mask: Mask) -> State:
        bench.label("imp at colt's pace" if schedule else "imp", mask)
        net.rewind(theta, mask)
        account.train(net, bench.data.train, p.recipe, mask=mask)
        return net.state()

    search = imp.find_tickets(train_masked, bench.dense, keep=keep, target=1.0, max_rounds=limit)
    for level in search:
        if level.index < limit:
            left = keep(level.index, level.mask.alive)
            yield Turn(level.index + 1, level.mask, left, magnitude(level.weights, level.mask))


# ---------------------------------------------------------------- COLT


def colt_turns(bench: BedBench, account: Account) -> Iterator[Turn]:
    """COLT on class segments, one copy each; a weight stays if all copies keep it."""
    p, train_copy = bench.setting, colt_copies(bench, account)
    learned: dict[int, State] = {}

    def remember(copy: int, mask: Mask) -> State:
        learned[copy] = train_copy(copy, mask)
        return learned[copy]

    search = colt.find_tickets(
        remember,
        bench.dense,
        copies=p.partitions,
        rate=p.rate,
        votes=p.partitions,
        target=max(p.levels),
        max_rounds=p.max_rounds,
    )
    for turn in search:
        own = [magnitude(learned[copy], turn.before) for copy in range(p.partitions)]
        yield Turn(turn.index, turn.before, turn.mask.alive, agreed(own, turn.before))


def colt_copies(bench: BedBench, account: Account) -> Callable[[int, Mask], State]:
    """Return the function that trains copy i on its classes; copies share a net and its start."""
    data, parts = bench.data, bench.setting.partitions
    segments = colt.segments(data.train, data.classes, "class", parts, bench.seed)
    net = bench.net(classes=data.classes // parts)
    theta = bench.theta(net)
    account.reach_rewind_point()

    def train_copy(copy: int, mask: Mask) -> State:
        bench.label(f"colt copy {copy}", mask)
        net.rewind(theta, mask)
        recipe, stage = bench.setting.recipe, colt.stage_of(copy)
        account.train(net, segments[copy], recipe, stage=stage, mask=mask)
        return net.state()

    return train_copy


def agreed(own: Sequence[Scores], within: Mask) -> Scores:
    """Return each weight's worst rank over the copies: the best k are those that all copies keep.

    If each copy keeps its m highest ranks, the weights that all keep are those whose worst rank is
    among the m highest. So for any k, thresholding this score is COLT's overlap at some rate.
    """
    flat = torch.stack([_ranks(scores, within) for scores in own]).amin(0)
    parts = flat.split([keep.numel() for keep in within.values()])
    pairs = zip(within.items(), parts, strict=True)
    return {name: part.view(keep.shape) for (name, keep), part in pairs}


def _ranks(scores: Scores, within: Mask) -> Tensor:
    """Rank each weight inside the mask, (total,), high is best; ties go to the lower index."""
    inside = within.flat()
    values = torch.cat([scores[name].flatten() for name in within])[inside]
    order = torch.sort(values, descending=True, stable=True).indices
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), 0, -1, device=order.device)
    ranks = torch.zeros(len(inside), dtype=order.dtype, device=order.device)
    ranks[inside] = places
    return ranks


# ---------------------------------------------------------------- PrAC


class PracSearch:
    """Trains the rounds of PrAC on its critical sets and finds the next sets."""

    def __init__(self, bench: BedBench, account: Account) -> None:
        self.bench, self.account, self.net = bench, account, bench.net()
        self.start, self.theta = self.net.state(), bench.theta(self.net)
        self.dense: Tensor | None = None

    def train_round(self, index: int, mask: Mask, images: Tensor) -> Outcome:
        """Rewind, train on the set until the mask settles, and find the next critical set."""
        b, s, data = self.bench, self.bench.setting, self.bench.data
        b.label("prac", mask)
        self.net.rewind(self.theta if index else self.start, mask)
        everything = len(data.train)
        recipe = prac.shortened(s.recipe, everything, len(images), s.shorten, s.least_iterations)
        part, bits = data.train.select(images), Correctness(images, everything)
        best = KeepBest(data.validation, data)
        watch = MaskWatch(mask, s.rate, s.stop, self._earliest(index))
        self.account.train(self.net, part, recipe, mask=mask, observers=[bits, best, watch])
        weights = self.net.state()
        self.net.rewind(best.state)
        predicted = self.account.predict(self.net, data.train, mask).argmax(1)
        found = prac.critical_set(bits.record, s.threshold, self.dense, predicted)
        self.dense = predicted if self.dense is None else self.dense
        return Outcome(weights, found, {"samples": len(images), "stopped": watch.stopped})

    def _earliest(self, index: int) -> int:
        """The dense round must reach the rewind point, and every round its minimum length."""
        s = self.bench.setting
        per_epoch, total = s.recipe.iterations(len(self.bench.data.train))
        return max(0 if index else s.rewind.iterations(per_epoch, total), s.least_iterations)


def prac_turns(bench: BedBench, account: Account) -> Iterator[Turn]:
    """PrAC: each round trains on the samples that earlier rounds found critical."""
    p, search = bench.setting, PracSearch(bench, account)
    everything = torch.arange(len(bench.data.train), device=bench.device)
    rounds = prac.find_tickets(
        search.train_round,
        lambda _, outcome: outcome.found.union,
        bench.dense,
        everything,
        rate=p.rate,
        rounds=range(p.max_rounds),
    )
    for turn in rounds:
        scores = magnitude(turn.outcome.weights, turn.before)
        yield Turn(turn.index + 1, turn.before, turn.mask.alive, scores)


# ---------------------------------------------------------------- one-shot methods


def one_shot(bench: BedBench, method: str) -> list[Found]:
    """Score the initial weights once (SynFlow: in rounds), and keep the best at each level.

    Random scores are the same at each level, so that a seed's random masks are nested as those of
    every search are. All nets of a study draw them from the same seed, like the probe and the data
    order; no statistic combines nets. A plug-in criterion is charged one gradient per forward pass.
    """
    net, found, (x, y) = bench.net(), [], probe(bench)
    rounds = bench.setting.synflow_rounds if method == "synflow" else 1
    for level in bench.setting.levels:
        account = Account(bench)
        random = gpu.generator(bench.device, "mask", method, bench.seed)
        density = (bench.kept(level) - 0.5) / bench.dense.total  # rounds to exactly that many
        seen: list[int] = []
        mask = saliency.prune_model(
            net.model, bench.dense, method, density, x, y, random, rounds, seen=seen
        )
        own = (len(seen), sum(seen)) if plugins.is_plugin(method) else None
        account.charge(net, *(own or charged(method, len(y), rounds)))
        found.append(Found(level, mask, rounds, account.spent))
    return found


def probe(bench: BedBench) -> tuple[Tensor, Tensor]:
    """Return the batch for criteria: a fixed draw of training images (n, C, H, W), and labels."""
    data = bench.data
    chosen = critical_sets.random_draw(
        len(data.train), bench.setting.probe, ("probe", bench.seed)
    ).to(bench.device)
    return Batches(data.train, data)(chosen), data.train.y[chosen]


def charged(method: str, probe: int, rounds: int) -> tuple[int, int]:
    """Return a criterion's number of gradients, and the images in them; GraSP takes two."""
    gradients = {"snip": 1, "grasp": 2, "synflow": rounds}.get(method, 0)
    return gradients, gradients * (1 if method == "synflow" else probe)


# ---------------------------------------------------------------- RST


def press(bench: BedBench, mask: Mask, account: Account) -> State:
    """RST: train the dense net while the penalty shrinks what the mask removes; removes nothing."""
    net, s = bench.net(), bench.setting
    bench.label("rst", mask)
    growing = rst.GrowingPenalty(mask, s.penalty)
    account.train(net, bench.data.train, s.pressed, stage="transform", observers=[growing])
    return net.state()


# ---------------------------------------------------------------- methods by name

TURNS: Registry[str, Callable[[BedBench, Account], Iterator[Turn]]] = {
    "imp": imp_turns,
    "imp-again": imp_turns,
    "colt": colt_turns,
    "prac": prac_turns,
}


def search(
    bench: BedBench, method: str, schedule: Sequence[int] = ()
) -> tuple[list[Found], list[int]]:
    """Return a method's masks at all levels, and the weights left after each of its rounds.

    RST's masks are the random ones: its search is for weights.
    """
    if method in ONE_SHOT or plugins.is_plugin(method) or method == "rst":
        return one_shot(bench, "random" if method == "rst" else method), []
    account, left = Account(bench), []

    def noted(turns: Iterator[Turn]) -> Iterator[Turn]:
        for turn in turns:
            left.append(turn.left)
            yield turn

    turns = imp_turns(bench, account, schedule) if schedule else TURNS[method](bench, account)
    return at_levels(noted(turns), bench, account, method), left
