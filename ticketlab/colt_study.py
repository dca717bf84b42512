"""The COLT study: its parameters, its arms paired by seed, and the tables they fill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import log
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from ticketlab import colt, fleet, gpu, imp, models, progress
from ticketlab.criteria import magnitude
from ticketlab.data import Batches, DataSet, DataSpec, load
from ticketlab.fleet import Unit
from ticketlab.gpu import Runtime
from ticketlab.masks import Mask, chance_jaccard, jaccard, ones, prune, shuffle_layerwise
from ticketlab.results import Result
from ticketlab.spec import InputError, Spec
from ticketlab.tickets import Ticket, state_digest
from ticketlab.training import (
    Fraction,
    KeepBest,
    Net,
    Recipe,
    State,
    Step,
    StepField,
    Track,
    evaluate,
    train,
)

# ---------------------------------------------------------------- parameters


class Variant(Spec):
    """One way to overlap: how the data is split, into how many, and how many must agree."""

    split: colt.Split = "class"
    partitions: int = Field(default=2, ge=1)
    votes: int = Field(default=0, ge=0)
    """Copies that must keep a weight; 0 means all (COLT), 1 is the union."""

    @property
    def needed(self) -> int:
        """Copies that must keep a weight."""
        return self.votes or self.partitions

    @property
    def name(self) -> str:
        """The arm's name in tables, e.g. 'colt-class-2of2'."""
        return f"colt-{self.split}-{self.needed}of{self.partitions}"


class Transfer(Spec):
    """Re-use of tickets on another data set."""

    data: DataSpec
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.8, 0.95)
    seeds: int = Field(default=1, ge=1)
    """How many of the study's seeds transfer (the first ones)."""


class ColtParams(Spec):
    """Everything that the COLT study can be told."""

    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    data: DataSpec
    model: models.ModelSpec
    recipe: Recipe
    partitions: int = Field(default=2, ge=1)
    rate: Fraction = 0.2
    """Fraction of the remaining weights that each copy prunes a round."""
    imp_rate: Fraction = 0.2
    target: Fraction = 0.95
    """The search ends at this sparsity of the prunable weights."""
    max_rounds: int = Field(default=30, ge=1)
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (
        0.5,
        0.8,
        0.9,
        0.95,
    )
    """Sparsities at which tickets are retrained and compared (the nearest round of each arm)."""
    rewind: StepField = Step(0, "it")
    prune_from: Annotated[str, Field(pattern="^(last|validation)$")] = "last"
    """Which weights are pruned: of the last epoch, or of the best on validation."""
    authors_metric: bool = False
    """Also record the best test accuracy over epochs, as the authors report (selects on test)."""
    ablations: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    ablation_seeds: int = Field(default=1, ge=1)
    transfer: Transfer | None = None
    runtime: Runtime = Runtime()

    @property
    def main(self) -> tuple[Variant, Variant]:
        """The paper's class split, and the same with randomly dealt images."""
        return (
            Variant(split="class", partitions=self.partitions),
            Variant(split="random", partitions=self.partitions),
        )


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
        """The rewinding point: initial weights, or those after `rewind` steps on all data."""
        p = self.params
        if p.rewind.value == 0:
            return net.state()
        full = self.net()
        later = imp.rewind_state(full, self.data.train, self.data, p.recipe, p.rewind, self.order())
        own_head = net.state()
        return {n: later[n] if later[n].shape == own.shape else own for n, own in own_head.items()}

    def order(self, copy: int = 0) -> tuple[object, ...]:
        """What fixes the data order of a copy; copy 0 is also the order of IMP and retraining."""
        return (self.seed, copy)


def training_passes(params: ColtParams) -> float:
    """Expected image passes of one training on all data."""
    images = params.data.train or 10_000
    per_epoch = -(-images // params.recipe.batch)
    return images * params.recipe.length.iterations(per_epoch) / per_epoch


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
    best = KeepBest(data.validation, data)
    watch = [Track(data.test, data)] if params.authors_metric else []
    recipe, observers = params.recipe, [best, *watch]
    history = train(net, data.train, data, recipe, seed=order, mask=mask, observers=observers)
    last, test = net.state(), Batches(data.test, data)
    scores = {"test_accuracy": 100 * evaluate(net, data.test, test).accuracy}
    scores["validation_accuracy"] = 100 * best.accuracy
    scores["selected_accuracy"] = scores["test_accuracy"]
    if best.epoch < history[-1].epoch:  # else the last epoch is the best one
        net.rewind(best.state)
        scores["selected_accuracy"] = 100 * evaluate(net, data.test, test).accuracy
    if watch:
        scores["best_test_accuracy"] = 100 * max(s.accuracy for s in watch[0].scores)
    return Trained(last if params.prune_from == "last" else best.state, scores)


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
    search = colt.find_tickets(
        train_copy, dense, copies=variant.partitions, rate=params.rate, votes=variant.needed,
        target=params.target, max_rounds=params.max_rounds,
    )  # fmt: skip
    for turn in search:
        rounds.append(
            describe_round(turn, variant, params, bench) | describe_mask(turn.mask, net.model)
        )
        if turn.index == 1:
            rounds[0]["init_agreement"] = jaccard(_gone(at_init), _gone(turn.own[0]))
        tickets[f"round-{turn.index:02d}"] = _ticket(turn.mask, variant.name, seed, turn.index)
    return Result({"arm": variant.name, "seed": seed, "rounds": rounds}, tickets)


def copies(bench: Bench, variant: Variant) -> tuple[Net, Callable[[int, Mask], State]]:
    """The shared net of all copies, and the function that trains copy i under a mask."""
    p, data = bench.params, bench.data
    by_class = variant.split in ("class", "interleaved")
    split = (data.classes, variant.split, variant.partitions, bench.seed)
    parts = [data.train.select(i) for i in colt.segment_indices(data.train.y, *split)]
    held_out = [data.validation] * len(parts)
    if by_class:
        blocks = colt.class_blocks(data.classes, variant.partitions, variant.split == "interleaved")
        parts = [colt.relabel(part, block) for part, block in zip(parts, blocks, strict=True)]
        chosen = colt.segment_indices(data.validation.y, *split)
        pairs = zip(chosen, blocks, strict=True)
        held_out = [colt.relabel(data.validation.select(i), block) for i, block in pairs]
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
    turn: colt.Round, variant: Variant, params: ColtParams, bench: Bench
) -> dict[str, Any]:
    """How much the copies agreed, against chance, and what the round cost."""
    agreement = colt.pruned_agreement(turn)
    passes = training_passes(params) * (variant.partitions if variant.split == "same" else 1)
    return {
        "round": turn.index,
        "rate": colt.effective_rate(turn.before, turn.mask),
        "chance_rate": colt.chance_rate(params.rate, variant.partitions, variant.needed),
        "agreement": agreement,
        "chance_agreement": chance_jaccard(params.rate, params.rate)
        if variant.partitions == 2
        else None,
        "passes": passes * turn.index,
    }


def _gone(mask: Mask) -> Mask:
    return Mask({name: ~keep for name, keep in mask.items()})


def _ticket(mask: Mask, arm: str, seed: int, index: int, weights: State | None = None) -> Ticket:
    facts: dict[str, Any] = {"paper": "colt", "arm": arm, "seed": seed, "round": index}
    if weights is not None:
        facts["init_sha256"] = state_digest(weights)
    return Ticket(mask, weights, facts | {"sparsity": mask.sparsity})


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

    keep = imp.same_schedule(schedule) if schedule else imp.constant_rate(params.imp_rate)
    limit = len(schedule) if schedule else params.max_rounds
    target = 1.0 if schedule else params.target
    rounds, tickets = [], {}
    for level in imp.find_tickets(
        train_masked, bench.dense_mask(net), keep=keep, target=target, max_rounds=limit
    ):
        cost = {"round": level.index, "passes": training_passes(params) * level.index}
        rounds.append(cost | describe_mask(level.mask, net.model) | scores[level.index])
        weights = masked(theta, level.mask)
        tickets[f"round-{level.index:02d}"] = _ticket(level.mask, arm, seed, level.index, weights)
    return Result({"arm": arm, "seed": seed, "rounds": rounds}, tickets)


def masked(state: State, mask: Mask) -> State:
    """The state on the CPU with its removed weights set to zero."""
    return {
        name: (tensor * mask[name] if name in mask else tensor).cpu()
        for name, tensor in state.items()
    }


# ---------------------------------------------------------------- retraining tickets (units)


def score_tickets(params: ColtParams, seed: int, arm: str, chosen: dict[str, Mask]) -> Result:
    """Retrain tickets on all data with the full head; `chosen` maps rounds to masks.

    Arms other than a search are controls of COLT's masks: "shuffled" moves each layer's kept
    weights to random places, "reinit" keeps the mask and draws new initial weights.
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
        tickets[name] = _ticket(mask, arm, seed, index, masked(theta, mask))
    return Result({"arm": arm, "seed": seed, "rounds": rounds}, tickets)


def transfer_tickets(
    params: ColtParams, seed: int, arm: str, with_weights: bool, chosen: dict[str, Mask]
) -> Result:
    """Train tickets on the transfer data set: mask and weights travel, or the mask alone.

    The head is new for the target, and the same for all tickets of the seed.
    """
    assert params.transfer is not None
    bench = Bench(params, seed)
    target = load(params.transfer.data, bench.device)
    if target.shape != bench.data.shape:
        allowed = f"allowed is {bench.data.shape}, as in data"
        raise InputError(f"transfer.data: images of shape {target.shape}, {allowed}")
    source = bench.model(stream="init" if with_weights else "transfer-init")
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


# ---------------------------------------------------------------- the whole study


def check(params: ColtParams) -> ColtParams:
    """Refuse what can only be seen across parameters and data, before anything runs."""
    classes = load(params.data).classes
    for variant in (*params.main, *params.ablations):
        if variant.split in ("class", "interleaved"):
            colt.class_blocks(classes, variant.partitions)
        if variant.needed > variant.partitions:
            raise InputError(
                f"votes: {variant.votes}, allowed: 0 to {variant.partitions} (partitions)"
            )
    params.recipe.length.iterations(1)
    return params


def study(params: ColtParams, folder: Path) -> dict[str, Result]:
    """Every arm of the study by unit name; finished units found in `folder` are not run again."""
    check(params)
    run = partial(fleet.run, folder=folder, workers=gpu.worker_count(params.runtime))
    searches = run(search_units(params))
    return searches | run(follow_up_units(params, searches))


def expected_passes(params: ColtParams) -> float:
    """Image passes the study will take, with the rounds of the searches foretold."""
    searches = search_units(params)
    rounds = colt.rounds_to(params.target, params.rate)
    per_seed = rounds / 1.6 + len(params.levels) * 2
    scored = len(params.levels) * sum(len(seeds) for _, seeds in _variants(params))
    moved = params.transfer.seeds * (6 * len(params.transfer.levels) + 1) if params.transfer else 0
    trainings = per_seed * len(params.seeds) + scored + moved
    return fleet.expected_passes(searches) + trainings * training_passes(params)


def _variants(params: ColtParams) -> list[tuple[Variant, tuple[int, ...]]]:
    few = params.seeds[: params.ablation_seeds]
    return [(v, params.seeds) for v in params.main] + [(v, few) for v in params.ablations]


def search_units(params: ColtParams) -> list[Unit]:
    """The searches that stand on their own: IMP, COLT, and its variants."""
    one, units = training_passes(params), []
    for seed in params.seeds:
        rounds = colt.rounds_to(params.target, params.imp_rate)
        arguments: dict[str, Any] = {"params": params, "seed": seed, "arm": "imp"}
        units.append(Unit(f"search/imp/seed-{seed}", search_imp, arguments, one * (rounds + 1)))
    for variant, seeds in _variants(params):
        rate = (params.rate + colt.chance_rate(params.rate, variant.partitions, variant.needed)) / 2
        cost = one * min(params.max_rounds, colt.rounds_to(params.target, rate))
        for seed in seeds:
            arguments = {"params": params, "seed": seed, "variant": variant}
            units.append(Unit(f"search/{variant.name}/seed-{seed}", search_colt, arguments, cost))
    return units


def follow_up_units(params: ColtParams, searches: Mapping[str, Result]) -> list[Unit]:
    """What needs a finished search: matched IMP, retrained tickets, controls, transfer."""
    main = params.main[0].name
    units = []
    for seed in params.seeds:
        found = searches[f"search/{main}/seed-{seed}"]
        schedule = [turn["alive"] for turn in found.record["rounds"]]
        units.append(_unit(params, search_imp, "search/imp-matched", seed, len(schedule) + 1,
                           arm="imp-matched", schedule=schedule))  # fmt: skip
        for control in ("shuffled", "reinit"):
            units.append(_scoring(params, control, seed, found))
    for variant, seeds in _variants(params):
        for seed in seeds:
            found = searches[f"search/{variant.name}/seed-{seed}"]
            units.append(_scoring(params, variant.name, seed, found))
    return units + transfer_units(params, searches)


def transfer_units(params: ColtParams, searches: Mapping[str, Result]) -> list[Unit]:
    """COLT's and IMP's tickets, a shuffled control and the dense net, on the other data set."""
    if params.transfer is None:
        return []
    units = []
    for seed in params.seeds[: params.transfer.seeds]:
        main, levels = params.main[0].name, params.transfer.levels
        found = chosen_tickets(searches[f"search/{main}/seed-{seed}"], levels)
        ladder = searches[f"search/imp/seed-{seed}"]
        random = gpu.generator("cpu", seed, "shuffle", "transfer")
        shuffled = {name: shuffle_layerwise(mask, random) for name, mask in found.items()}
        sources = {main: found, "imp": chosen_tickets(ladder, levels), "shuffled": shuffled}
        dense = {"round-00": ladder.tickets["round-00"].mask}
        for arm, chosen in sources.items():
            for carried in (True, False):
                name = f"transfer/{arm}-{'weights' if carried else 'mask'}"
                units.append(_unit(params, transfer_tickets, name, seed, len(chosen),
                                   arm=arm, with_weights=carried, chosen=chosen))  # fmt: skip
        units.append(_unit(params, transfer_tickets, "transfer/dense", seed, 1,
                           arm="dense", with_weights=True, chosen=dense))  # fmt: skip
    return units


def _unit(
    params: ColtParams,
    work: Callable[..., Result],
    name: str,
    seed: int,
    trainings: int,
    **more: Any,
) -> Unit:
    arguments = {"params": params, "seed": seed, **more}
    return Unit(f"{name}/seed-{seed}", work, arguments, training_passes(params) * trainings)


def _scoring(params: ColtParams, arm: str, seed: int, found: Result) -> Unit:
    chosen = chosen_tickets(found, params.levels)
    return _unit(params, score_tickets, f"score/{arm}", seed, len(chosen), arm=arm, chosen=chosen)


def chosen_tickets(found: Result, levels: tuple[float, ...]) -> dict[str, Mask]:
    """For each level the search's round nearest in remaining weights (as a ratio), once each."""
    rounds = [
        (f"round-{t['round']:02d}", t["sparsity"]) for t in found.record["rounds"] if t["round"]
    ]
    names = {
        min(rounds, key=lambda pair: abs(log((1 - pair[1]) / (1 - level))))[0] for level in levels
    }
    return {name: found.tickets[name].mask for name in sorted(names)}
