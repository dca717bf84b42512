"""What one unit of the COLT study does: a search, or the retraining of its tickets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any

import torch

from ticketlab import gpu, models, progress
from ticketlab.data.sets import Batches, DataSet, load
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import ColtParams, Variant
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import (
    Mask,
    State,
    chance_jaccard,
    jaccard,
    ones,
    prune,
    shuffle_layerwise,
)
from ticketlab.spec import InputError
from ticketlab.study.results import Result
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Ticket, make_ticket, network
from ticketlab.training.loop import KeepBest, Net, Track, evaluate, train

# ---------------------------------------------------------------- what one seed starts from


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and recipe of one seed; every arm of the seed starts from it."""

    params: ColtParams
    seed: int

    @cached_property
    def device(self) -> torch.device:
        """The device everything of this seed lives on."""
        return gpu.start(self.params.runtime)

    @cached_property
    def data(self) -> DataSet:
        """The study's data set, resident on the device."""
        return load(self.params.data, self.device)

    @property
    def passes(self) -> int:
        """Images seen by one training on all data."""
        return self.params.recipe.passes(len(self.data.train))

    def model(self, classes: int | None = None, stream: str = "init") -> torch.nn.Module:
        """theta_0: the same convolutions for every head width; the head depends on the width."""
        seed = gpu.derive_seed(self.seed, stream)
        full = models.build(self.params.model, self.data.shape, self.data.classes, seed)
        if classes in (None, self.data.classes):
            return full
        return models.with_head(full, classes, gpu.derive_seed(self.seed, stream, "head"))

    def net(self, classes: int | None = None, stream: str = "init") -> Net:
        """`model` on the device, at the state that arms rewind to."""
        return Net(self.model(classes, stream), self.params.runtime)

    def dense_mask(self, net: Net) -> Mask:
        """All convolution weights; linear layers, batch-norm and biases are never pruned (2.2)."""
        mask = ones(net.model, models.prunable(net.model, "conv"))
        if not len(mask):
            raise InputError(f"model.name: {self.params.model.name!r} has no convolution to prune")
        return mask

    def theta(self, net: Net) -> State:
        """The rewinding point of a net at initial weights: those, or the ones `rewind` steps later.

        The steps are on all data and start from the net's own weights, whatever draw they are; only
        a copy's narrower head stays as it is, for they are made with the full one.
        """
        p, start = self.params, net.state()
        if p.rewind.value == 0:
            return start
        full = self.net()
        full.rewind(_grafted(full.state(), start))
        later = imp.rewind_state(full, self.data.train, self.data, p.recipe, p.rewind, self.order())
        return _grafted(start, later)

    @property
    def rewind_passes(self) -> int:
        """Images seen on the way to the rewinding point."""
        p = self.params
        return imp.rewind_cost(p.recipe, len(self.data.train), p.rewind)[1]

    def order(self, copy: int = 0) -> tuple[object, ...]:
        """What fixes the data order of a copy; copy 0 is also the order of IMP and retraining."""
        return (self.seed, copy)

    def ticket(
        self,
        arm: str,
        index: int,
        mask: Mask,
        weights: State | None = None,
        pruned_from: Mask | None = None,
    ) -> Ticket:
        """A round's ticket; `weights` (with the full head) are those it is rewound to.

        It was trained under its own mask, or else `pruned_from` the one of the training before.
        """
        facts = network(self.params.model, self.data)
        origin: dict[str, Any] = {"paper": "colt", "arm": arm, "seed": self.seed, "round": index}
        return make_ticket(mask, weights, pruned_from, **origin, **facts)


def _grafted(onto: State, graft: State) -> State:
    """`onto` with the tensors of `graft`, but for a head of another width."""
    return {n: graft[n] if graft[n].shape == own.shape else own for n, own in onto.items()}


# ---------------------------------------------------------------- one training


@dataclass(frozen=True)
class Trained:
    """The state a training hands on, and its scores on held-out and test images."""

    state: State
    scores: dict[str, float]


def train_and_score(
    net: Net, data: DataSet, params: ColtParams, order: tuple[object, ...], mask: Mask | None
) -> Trained:
    """Train on all of `data.train`; the weights handed on follow `prune_from`.

    Scores are in percent: test accuracy after the last epoch, test accuracy of the epoch that is
    best on validation, and (only where asked for) the best test accuracy over all epochs.
    """
    best = [KeepBest(data.validation, data)] if len(data.validation) else []
    watch = [Track(data.test, data)] if params.authors_metric else []
    observers, recipe = [*best, *watch], params.recipe
    history = train(net, data.train, data, recipe, seed=order, mask=mask, observers=observers)
    last, test = net.state(), Batches(data.test, data)
    scores = {"last_accuracy": 100 * evaluate(net, data.test, test).accuracy}
    chosen = last
    for kept in best:
        scores["validation_accuracy"] = 100 * kept.accuracy
        scores["selected_accuracy"] = scores["last_accuracy"]
        if kept.epoch < history[-1].epoch:  # else the last epoch is the best one
            net.rewind(kept.state)
            scores["selected_accuracy"] = 100 * evaluate(net, data.test, test).accuracy
        chosen = kept.state
    for tracked in watch:
        scores["best_test_accuracy"] = 100 * max(score.accuracy for score in tracked.scores)
    return Trained(last if params.prune_from == "last" else chosen, scores)


# ---------------------------------------------------------------- searches (units)


def describe_mask(mask: Mask, model: torch.nn.Module) -> dict[str, Any]:
    """Sparsity of the prunable weights (primary) and of all weights, and densities by layer."""
    every = sum(p.numel() for n, p in model.named_parameters() if n.endswith("weight"))
    return {
        "alive": mask.alive,
        "sparsity": mask.sparsity,
        "overall_sparsity": (mask.total - mask.alive) / every,
        "layers": mask.densities(),
        "collapsed": mask.collapsed(),
    }


def search_colt(params: ColtParams, seed: int, variant: Variant) -> Result:
    """COLT's rounds for one seed: a mask and its statistics for each."""
    bench = Bench(params, seed)
    net, train_copy = copies(bench, variant)
    start, dense = net.state(), bench.dense_mask(net)
    at_init = prune(magnitude(start, dense), dense, params.rate)
    rounds, tickets = [], {}
    search = algorithm.find_tickets(
        train_copy,
        dense,
        copies=variant.partitions,
        rate=params.rate,
        votes=variant.needed,
        target=params.target,
        max_rounds=params.max_rounds,
    )
    for turn in search:
        rounds.append(
            describe_round(turn, variant, params, bench) | describe_mask(turn.mask, net.model)
        )
        if turn.index == 1:
            rounds[0]["init_agreement"] = jaccard(_gone(at_init), _gone(turn.own[0]))
        tickets[f"round-{turn.index:02d}"] = bench.ticket(
            variant.name, turn.index, turn.mask, pruned_from=turn.before
        )
    return Result({"arm": variant.name, "seed": seed, "rounds": rounds}, tickets)


def segments(bench: Bench, variant: Variant, labels: torch.Tensor) -> list[torch.Tensor]:
    """Which images of a split with these labels (N,) each copy gets, as indices (n_i,)."""
    split = (bench.data.classes, variant.split, variant.partitions, bench.seed)
    return algorithm.segment_indices(labels, *split)


def copies(bench: Bench, variant: Variant) -> tuple[Net, Callable[[int, Mask], State]]:
    """The shared net of all copies, and the function that trains copy i under a mask."""
    p, data = bench.params, bench.data
    by_class = variant.split in ("class", "interleaved")
    parts = [data.train.select(index) for index in segments(bench, variant, data.train.y)]
    held_out = [data.validation] * len(parts)
    if by_class:
        blocks = algorithm.class_blocks(
            data.classes, variant.partitions, variant.split == "interleaved"
        )
        parts = [algorithm.relabel(part, block) for part, block in zip(parts, blocks, strict=True)]
        chosen = segments(bench, variant, data.validation.y)
        pairs = zip(chosen, blocks, strict=True)
        held_out = [algorithm.relabel(data.validation.select(i), block) for i, block in pairs]
    net = bench.net(data.classes // variant.partitions if by_class else None)
    start = bench.theta(net)

    def train_copy(copy: int, mask: Mask) -> State:
        net.rewind(start, mask)
        best = [KeepBest(held_out[copy], data)] if p.prune_from == "validation" else []
        seed = bench.order(copy)
        progress.label(
            arm=variant.name, seed=bench.seed, sparsity=f"{mask.sparsity:.0%}", copy=copy
        )
        train(net, parts[copy], data, p.recipe, seed=seed, mask=mask, observers=best)
        return best[0].state if best else net.state()

    return net, train_copy


def describe_round(
    turn: algorithm.Round, variant: Variant, params: ColtParams, bench: Bench
) -> dict[str, Any]:
    """How much the copies agreed, against chance, and what the round cost."""
    agreement = algorithm.pruned_agreement(turn)
    by_chance = chance_jaccard(params.rate, params.rate)
    parts = segments(bench, variant, bench.data.train.y)
    passes = sum(params.recipe.passes(len(part)) for part in parts)
    return {
        "round": turn.index,
        "rate": algorithm.effective_rate(turn.before, turn.mask),
        "chance_rate": algorithm.chance_rate(params.rate, variant.partitions, variant.needed),
        "agreement": agreement,
        "chance_agreement": by_chance if variant.partitions == 2 else None,
        "passes": bench.rewind_passes + passes * turn.index,
    }


def _gone(mask: Mask) -> Mask:
    return Mask({name: ~keep for name, keep in mask.items()})


def search_imp(
    params: ColtParams, seed: int, arm: str, schedule: list[int] | None = None
) -> Result:
    """IMP's levels for one seed, each scored; with `schedule` it prunes at COLT's own pace."""
    bench = Bench(params, seed)
    net = bench.net()
    theta = bench.theta(net)
    scores: list[dict[str, float]] = []

    def train_masked(mask: Mask) -> State:
        progress.label(arm=arm, seed=seed, sparsity=f"{mask.sparsity:.0%}")
        net.rewind(theta, mask)
        trained = train_and_score(net, bench.data, params, bench.order(), mask)
        scores.append(trained.scores)
        return trained.state

    own = imp.constant_rate(params.imp_rate), params.max_rounds, params.target
    keep, limit, target = own if schedule is None else imp.same_schedule(schedule)
    rounds, tickets = [], {}
    for level in imp.find_tickets(
        train_masked, bench.dense_mask(net), keep=keep, target=target, max_rounds=limit
    ):
        passes = bench.rewind_passes + bench.passes * level.index
        cost = {"round": level.index, "passes": passes}
        rounds.append(cost | describe_mask(level.mask, net.model) | scores[level.index])
        tickets[f"round-{level.index:02d}"] = bench.ticket(arm, level.index, level.mask)
    found = Result({"arm": arm, "seed": seed, "rounds": rounds}, tickets)
    # Tickets that are compared keep their rewound weights; the others are a mask alone.
    for name, mask in chosen_tickets(found, params.levels).items():
        index = int(name.removeprefix("round-"))
        tickets[name] = bench.ticket(arm, index, mask, theta)
    return found


# ---------------------------------------------------------------- retraining tickets (units)


def score_tickets(params: ColtParams, seed: int, arm: str, chosen: dict[str, Mask]) -> Result:
    """Retrain tickets on all data with the full head; `chosen` maps rounds to masks.

    Arms other than a search are controls of COLT's masks: "shuffled" moves each layer's kept
    weights to random places, "reinit" keeps the mask and draws new initial weights, which are
    trained to a rewinding point of their own. `rewind_passes` are the images seen for this.
    """
    bench = Bench(params, seed)
    net = bench.net(stream="reinit" if arm == "reinit" else "init")
    theta = bench.theta(net)
    rounds, tickets = [], {}
    for name, mask in chosen.items():
        index = int(name.removeprefix("round-"))
        if arm == "shuffled":
            mask = shuffle_layerwise(mask, gpu.generator("cpu", seed, "shuffle", index))
        progress.label(arm=arm, seed=seed, sparsity=f"{mask.sparsity:.0%}")
        net.rewind(theta, mask)
        trained = train_and_score(net, bench.data, params, bench.order(), mask)
        rounds.append({"round": index} | describe_mask(mask, net.model) | trained.scores)
        tickets[name] = bench.ticket(arm, index, mask, theta)
    record = {"arm": arm, "seed": seed, "rewind_passes": bench.rewind_passes}
    return Result(record | {"rounds": rounds}, tickets)


def transfer_tickets(
    params: ColtParams, seed: int, arm: str, with_weights: bool, chosen: dict[str, Mask]
) -> Result:
    """Train tickets on the transfer data set: mask and rewound weights travel, or the mask alone.

    The mask alone meets new initial weights. The head is new for the target, and the same for all
    tickets of the seed.
    """
    bench = Bench(params, seed)
    target = load(params.transfer.data, bench.device)
    source = bench.model(stream="init" if with_weights else "transfer-init")
    if with_weights:
        source.load_state_dict(bench.theta(bench.net()))
    head_seed = gpu.derive_seed(seed, "transfer-head")
    net = Net(models.with_head(source, target.classes, head_seed), params.runtime)
    theta = net.state()
    rounds = []
    for name, mask in chosen.items():
        progress.label(arm=f"transfer {arm}", seed=seed, sparsity=f"{mask.sparsity:.0%}")
        net.rewind(theta, mask)
        trained = train_and_score(net, target, params, bench.order(), mask)
        index = int(name.removeprefix("round-"))
        rounds.append({"round": index} | describe_mask(mask, net.model) | trained.scores)
    kind = "mask and weights" if with_weights else "mask only"
    return Result({"arm": arm, "seed": seed, "carried": kind, "rounds": rounds})


def chosen_tickets(found: Result, levels: tuple[float, ...]) -> dict[str, Mask]:
    """For each level the search's round nearest in remaining weights (as a ratio), once each."""
    rounds = [
        (f"round-{t['round']:02d}", t["sparsity"]) for t in found.record["rounds"] if t["round"]
    ]
    if not rounds:
        arm, seed = found.record["arm"], found.record["seed"]
        raise InputError(f"rate: the search of {arm}, seed {seed}, left no weight; lower it")
    names = {
        min(rounds, key=lambda pair: abs(log((1 - pair[1]) / (1 - level))))[0] for level in levels
    }
    return {name: found.tickets[name].mask for name in sorted(names)}
