"""How each method finds its tickets, all on one bench: same data, weights, order and sparsity."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ticketlab import gpu, models, plugins, progress
from ticketlab.data.sets import Batches, DataSet, Images, load
from ticketlab.papers.colt import algorithm as colt
from ticketlab.papers.compare.params import ONE_SHOT, Bed, CompareParams
from ticketlab.papers.dlth import algorithm as rst
from ticketlab.papers.prac import algorithm as prac
from ticketlab.papers.prac import subsets as critical_sets
from ticketlab.papers.prac.algorithm import MaskWatch, Outcome
from ticketlab.papers.prac.subsets import Correctness
from ticketlab.pruning import saliency
from ticketlab.pruning.criteria import Scores, magnitude
from ticketlab.pruning.masks import Mask, State, after_pruning, keep_top, ones
from ticketlab.spec import InputError, Registry
from ticketlab.tickets import imp
from ticketlab.training.loop import KeepBest, Net, Recipe, Step, predict, train

# ---------------------------------------------------------------- what a search costs


@dataclass(frozen=True)
class Cost:
    """What was spent: optimiser steps, images in them, images only looked at, FLOPs.

    A training step counts as three forward passes. `dense_flops` pretends that no weight was
    removed (what a GPU does); `sparse_flops` counts the weights that were there.
    """

    iterations: int = 0
    images: int = 0
    looked_at: int = 0
    dense_flops: float = 0.0
    sparse_flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        mine, theirs = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class Ledger:
    """Adds up the cost of one search."""

    bench: "Bench"
    spent: Cost = field(default_factory=Cost)

    def train(
        self, iterations: int, images: int, mask: Mask | None = None, classes: int | None = None
    ) -> None:
        """So many optimiser steps on so many images, under a mask; `classes` is another head."""
        flops = self.bench.flops(mask, classes)
        self.spent += Cost(iterations, images, 0, 3 * images * flops[0], 3 * images * flops[1])

    def rewind(self) -> None:
        """The steps of dense training up to the rewind point, where they are nobody's round."""
        recipe, images = self.bench.bed.recipe, len(self.bench.data.train)
        self.train(*imp.rewind_cost(recipe, images, self.bench.params.rewind))

    def look(self, images: int, mask: Mask | None = None) -> None:
        """A forward pass alone."""
        flops = self.bench.flops(mask)
        self.spent += Cost(0, 0, images, images * flops[0], images * flops[1])


# ---------------------------------------------------------------- what one seed starts from


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and data order of one net and seed; every method starts from it."""

    params: CompareParams
    place: int
    seed: int

    @property
    def bed(self) -> Bed:
        """The net at `place` and how it is trained."""
        return self.params.beds[self.place]

    @cached_property
    def device(self) -> torch.device:
        """The device everything of this seed lives on."""
        return gpu.start(self.params.runtime)

    @cached_property
    def data(self) -> DataSet:
        """The study's data set, resident on the device."""
        return load(self.params.data, self.device)

    def net(self, classes: int | None = None, stream: str = "init") -> Net:
        """The net at its initial weights; `stream` is a draw, `classes` another head."""
        seed = gpu.derive_seed(self.seed, stream)
        model: torch.nn.Module = models.build(
            self.bed.model, self.data.shape, self.data.classes, seed
        )
        if classes is not None:
            model = models.with_head(model, classes, gpu.derive_seed(self.seed, stream, "head"))
        return Net(model, self.params.runtime)

    @cached_property
    def dense(self) -> Mask:
        """Every prunable weight kept."""
        net = self.net()
        return ones(net.model, models.prunable(net.model, self.bed.prunable))

    def kept(self, level: float) -> int:
        """Weights that a ticket of this sparsity has, whatever the method."""
        return after_pruning(self.dense.total, level)

    def theta(self, net: Net) -> State:
        """The point that IMP, COLT and PrAC rewind to; a copy's own head stays as it is."""
        start = net.state()
        if self.params.rewind.value == 0:
            return start
        later = self.later(self.params.rewind)
        return {n: later[n] if later[n].shape == own.shape else own for n, own in start.items()}

    def later(self, step: Step) -> State:
        """The weights after the first steps of dense training."""
        data, recipe = self.data, self.bed.recipe
        return imp.rewind_state(self.net(), data.train, data, recipe, step, self.order())

    def order(self, stage: str = "train") -> tuple[object, ...]:
        """What fixes the data order: equal for all methods of a seed."""
        return ("compare", self.seed, stage)

    def iterations(self, recipe: Recipe) -> int:
        """Optimiser steps of a recipe on all training images."""
        return recipe.iterations(len(self.data.train))[1]

    def flops(self, mask: Mask | None = None, classes: int | None = None) -> tuple[float, float]:
        """FLOPs of an image's forward pass: dense, and of the weights that are there."""
        dense, layers = self._prices
        if classes is not None:
            dense = models.flops(self.net(classes).model, self.data.shape)
        gone = {} if mask is None else {n: 1 - share for n, share in mask.densities().items()}
        return dense, dense - sum(share * layers[name] for name, share in gone.items())

    @cached_property
    def _prices(self) -> tuple[int, dict[str, int]]:
        """FLOPs of the dense net, and of each layer that can be pruned."""
        model, shape = self.net().model, self.data.shape
        dense = models.flops(model, shape)
        return dense, {name: dense - models.flops(model, shape, {name: 0.0}) for name in self.dense}

    def label(self, arm: str, mask: Mask) -> None:
        """Name what is being trained, for the person who waits."""
        progress.label(
            arm=f"{self.bed.name} {arm}", seed=self.seed, sparsity=f"{mask.sparsity:.0%}"
        )


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
    """A ticket's mask at exactly a level, the round that gave it, and what it had cost by then."""

    level: float
    mask: Mask
    rounds: int
    cost: Cost


def at_levels(turns: Iterator[Turn], bench: Bench, ledger: Ledger, method: str) -> list[Found]:
    """The tickets at exactly the levels: the round that passes a level prunes just up to it.

    The search goes on with its own round afterwards, and ends with the last level. So a level costs
    what the method spent until it got there, and all methods have equal sparsity.
    """
    wanted, found = {level: bench.kept(level) for level in bench.bed.levels}, []
    for turn in turns:
        for level, keep in wanted.items():
            if turn.left <= keep < turn.before.alive:
                mask = keep_top(turn.scores, keep, within=turn.before)
                found.append(Found(level, mask, turn.index, ledger.spent))
        if turn.left <= min(wanted.values()):
            return found
    reached = max((find.level for find in found), default=0)
    raise InputError(
        f"max_rounds: {method} reached only {reached:g} of {max(wanted):g} sparsity "
        f"({bench.bed.name}, seed {bench.seed}); allow more rounds or another rate"
    )


# ---------------------------------------------------------------- IMP


def imp_turns(bench: Bench, ledger: Ledger, schedule: Sequence[int] = ()) -> Iterator[Turn]:
    """Iterative magnitude pruning, at its own rate or with a given number of weights a round."""
    p, net = bench.params, bench.net()
    theta, recipe = bench.theta(net), bench.bed.recipe
    ledger.rewind()
    keep, limit = imp.constant_rate(p.rate), p.max_rounds
    if schedule:
        keep, limit, _ = imp.same_schedule(list(schedule))

    def train_masked(mask: Mask) -> State:
        bench.label("imp at colt's pace" if schedule else "imp", mask)
        net.rewind(theta, mask)
        train(net, bench.data.train, bench.data, recipe, seed=bench.order(), mask=mask)
        ledger.train(bench.iterations(recipe), recipe.passes(len(bench.data.train)), mask)
        return net.state()

    search = imp.find_tickets(train_masked, bench.dense, keep=keep, target=1.0, max_rounds=limit)
    for level in search:
        if level.index < limit:
            left = keep(level.index, level.mask.alive)
            yield Turn(level.index + 1, level.mask, left, magnitude(level.weights, level.mask))


# ---------------------------------------------------------------- COLT


def colt_turns(bench: Bench, ledger: Ledger) -> Iterator[Turn]:
    """COLT on class segments: one copy each, a weight stays if all copies keep it."""
    p, train_copy = bench.params, colt_copies(bench, ledger)
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
        target=max(bench.bed.levels),
        max_rounds=p.max_rounds,
    )
    for turn in search:
        own = [magnitude(learned[copy], turn.before) for copy in range(p.partitions)]
        yield Turn(turn.index, turn.before, turn.mask.alive, agreed(own, turn.before))


def colt_copies(bench: Bench, ledger: Ledger) -> Callable[[int, Mask], State]:
    """What trains copy i on its own classes; all copies share a net and its initial weights."""
    data, parts = bench.data, bench.params.partitions
    blocks = colt.class_blocks(data.classes, parts)
    chosen = colt.segment_indices(data.train.y, data.classes, "class", parts, bench.seed)
    segments = [
        colt.relabel(data.train.select(index), block)
        for index, block in zip(chosen, blocks, strict=True)
    ]
    net, recipe = bench.net(data.classes // parts), bench.bed.recipe
    theta = bench.theta(net)
    ledger.rewind()

    def train_copy(copy: int, mask: Mask) -> State:
        bench.label(f"colt copy {copy}", mask)
        net.rewind(theta, mask)
        segment = segments[copy]
        train(net, segment, data, recipe, seed=(*bench.order(), copy), mask=mask)
        steps, images = recipe.iterations(len(segment))[1], recipe.passes(len(segment))
        ledger.train(steps, images, mask, data.classes // parts)
        return net.state()

    return train_copy


def agreed(own: Sequence[Scores], within: Mask) -> Scores:
    """Each weight's worst rank over the copies: the best k are those that every copy keeps.

    If each copy keeps its m highest ranks, the weights that all keep are those whose worst rank is
    among the m highest; so a threshold on this score is COLT's overlap at some rate, for any k.
    """
    flat = torch.stack([_ranks(scores, within) for scores in own]).amin(0)
    parts = flat.split([keep.numel() for keep in within.values()])
    pairs = zip(within.items(), parts, strict=True)
    return {name: part.view(keep.shape) for (name, keep), part in pairs}


def _ranks(scores: Scores, within: Mask) -> Tensor:
    """Place (total,) of each weight inside the mask, high is best; ties go to the lower index."""
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
    """Trains the rounds of PrAC on its critical sets and finds the next ones."""

    def __init__(self, bench: Bench, ledger: Ledger) -> None:
        self.bench, self.ledger, self.net = bench, ledger, bench.net()
        self.start, self.theta = self.net.state(), bench.theta(self.net)
        self.batches = Batches(bench.data.train, bench.data)
        self.dense: Tensor | None = None

    def train_round(self, index: int, mask: Mask, images: Tensor) -> Outcome:
        """Rewind, train on the set until the mask settles, and find the next critical set."""
        b, bed, data = self.bench, self.bench.bed, self.bench.data
        b.label("prac", mask)
        self.net.rewind(self.theta if index else self.start, mask)
        everything = len(data.train)
        recipe = prac.shortened(
            bed.recipe, everything, len(images), b.params.shorten, bed.least_iterations
        )
        part, bits = data.train.select(images), Correctness(images, everything)
        best = KeepBest(data.validation, data)
        watch = MaskWatch(mask, b.params.rate, bed.stop, self._earliest(index))
        history = train(
            self.net, part, data, recipe, seed=b.order(), mask=mask, observers=[bits, best, watch]
        )
        weights = self.net.state()
        self._charge(history[-1].iteration, len(history), part, recipe, mask)
        self.net.rewind(best.state)
        predicted = predict(self.net, data.train, self.batches).argmax(1)
        found = prac.critical_set(bits.record, b.params.threshold, self.dense, predicted)
        self.dense = predicted if self.dense is None else self.dense
        facts = {"samples": len(images), "stopped": watch.stopped}
        return Outcome(weights, found, facts)

    def _earliest(self, index: int) -> int:
        """The dense round must reach the rewind point, and every round its least length."""
        per_epoch, total = self.bench.bed.recipe.iterations(len(self.bench.data.train))
        rewind = 0 if index else self.bench.params.rewind.iterations(per_epoch, total)
        return max(rewind, self.bench.bed.least_iterations)

    def _charge(self, spent: int, epochs: int, part: Images, recipe: Recipe, mask: Mask) -> None:
        """Training on the set; scoring on validation each epoch; one look at all training data."""
        whole, rest = divmod(spent, recipe.iterations(len(part))[0])
        images = whole * len(part) + min(len(part), rest * recipe.batch)
        self.ledger.train(spent, images, mask)
        data = self.bench.data
        self.ledger.look(epochs * len(data.validation) + len(data.train), mask)


def prac_turns(bench: Bench, ledger: Ledger) -> Iterator[Turn]:
    """PrAC: each round trains on the samples that the rounds before found critical."""
    p, search = bench.params, PracSearch(bench, ledger)
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


# ---------------------------------------------------------------- one look at the initial net


def one_shot(bench: Bench, method: str) -> list[Found]:
    """Score the initial weights once (SynFlow: in rounds), and keep the best at each level.

    Random scores are the same at each level, so that a seed's random masks nest as those of every
    search do. All nets of a study draw them from one seed, as they do the probe and the data order:
    no statistic joins nets. A criterion of one's own is charged a gradient for each forward pass.
    """
    model, found, (x, y) = bench.net().model, [], probe(bench)
    rounds = bench.params.synflow_rounds if method == "synflow" else 1
    for level in bench.bed.levels:
        ledger = Ledger(bench)
        random = gpu.generator(bench.device, "mask", method, bench.seed)
        density = (bench.kept(level) - 0.5) / bench.dense.total  # rounds to exactly that many
        seen: list[int] = []
        mask = saliency.prune_model(
            model, bench.dense, method, density, x, y, random, rounds, seen=seen
        )
        own = (len(seen), sum(seen)) if plugins.is_plugin(method) else None
        ledger.train(*(own or charged(method, len(y), rounds)))
        found.append(Found(level, mask, rounds, ledger.spent))
    return found


def probe(bench: Bench) -> tuple[Tensor, Tensor]:
    """The batch that criteria see: a fixed draw of training images (n, C, H, W), and labels."""
    data = bench.data
    chosen = critical_sets.random_draw(
        len(data.train), bench.params.probe, ("probe", bench.seed)
    ).to(bench.device)
    return Batches(data.train, data)(chosen), data.train.y[chosen]


def charged(method: str, probe: int, rounds: int) -> tuple[int, int]:
    """Gradients that a criterion takes, and the images in them; GraSP's second goes through one."""
    gradients = {"snip": 1, "grasp": 2, "synflow": rounds}.get(method, 0)
    return gradients, gradients * (1 if method == "synflow" else probe)


# ---------------------------------------------------------------- RST


def press(bench: Bench, mask: Mask, ledger: Ledger) -> State:
    """RST: train the dense net while the penalty empties what the mask removes; nothing is cut."""
    net, recipe = bench.net(), bench.bed.transform
    bench.label("rst", mask)
    rst.transform(net, bench.data, mask, recipe, bench.bed.penalty, bench.order("transform"))
    ledger.train(bench.iterations(recipe), recipe.passes(len(bench.data.train)))
    return net.state()


# ---------------------------------------------------------------- every method by its name

TURNS: Registry[str, Callable[[Bench, Ledger], Iterator[Turn]]] = {
    "imp": imp_turns,
    "colt": colt_turns,
    "prac": prac_turns,
}


def search(
    bench: Bench, method: str, schedule: Sequence[int] = ()
) -> tuple[list[Found], list[int]]:
    """A method's masks at all levels, and the weights left after each of its rounds.

    RST's masks are the random ones: what it looks for is weights.
    """
    if method in ONE_SHOT or plugins.is_plugin(method) or method == "rst":
        return one_shot(bench, "random" if method == "rst" else method), []
    ledger, left = Ledger(bench), []

    def noted(turns: Iterator[Turn]) -> Iterator[Turn]:
        for turn in turns:
            left.append(turn.left)
            yield turn

    turns = imp_turns(bench, ledger, schedule) if schedule else TURNS[method](bench, ledger)
    return at_levels(noted(turns), bench, ledger, method), left
