"""Work of one unit: gates in a mother, or all searches of one kind in a mother with k tickets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ticketlab import progress
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm import gauge
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, edge_popup
from ticketlab.papers.plant_n_seek.params import Case, Density, PlantParams
from ticketlab.papers.plant_n_seek.units import (
    Arm,
    PlantBench,
    describe,
    multishot_masks,
    singleshot_masks,
    ticket_line,
    train,
)
from ticketlab.papers.seekers.algorithm.crowd import Crowd, plant_crowd
from ticketlab.papers.seekers.algorithm.gates import GateFit, bernoulli_gates
from ticketlab.papers.seekers.params import GateMother, Regime
from ticketlab.pruning.masks import State
from ticketlab.study.bench import order
from ticketlab.study.results import Result
from ticketlab.study.stats import chance_accuracy

POPUP_ORDER = "popup"
"""The stage that names the data order of all searches without training of weights."""

# ---------------------------------------------------------------- a mother with k tickets


@dataclass(frozen=True)
class CrowdBench(PlantBench):
    """A seed's bench whose mother has `copies` tickets: none, or one and more.

    With one it is Plant 'n' Seek's bench; the ticket that it calls `planted` is the first one.
    """

    copies: int = 1

    @cached_property
    def crowd(self) -> Crowd:
        """The mother with its tickets; with one where there is to be none, as a yardstick."""
        target = algorithm.target(self.case.task, self.case.depth)
        host = algorithm.mother(self.shape, self.random("mother"))
        return plant_crowd(target, host, self.params.mode, self.generator_of, max(1, self.copies))

    def generator_of(self, copy: int) -> torch.Generator:
        """Return the generator of a copy's planting; the first one's is Plant 'n' Seek's."""
        return self.random("plant", copy) if copy else self.random("plant")

    @cached_property
    def planted(self) -> algorithm.Planted:
        """The first ticket, in the mother with all of them."""
        return self.crowd.tickets[0]

    def beginning(self) -> State:
        """Return the initial weights, float32."""
        return self.start("planted" if self.copies else "unplanted")

    def multiples(self, multiples: Sequence[int]) -> list[float]:
        """Return the densities of this many tickets."""
        return [number * self.density("gt") for number in multiples]


# ---------------------------------------------------------------- gates


def gate(
    params: PlantParams,
    gates: GateFit,
    case: Case,
    seed: int,
    mother: GateMother,
    densities: Sequence[Density],
) -> Result:
    """Search by gates for one seed and mother, density by density, on edge-popup's batches.

    `soft` are the scores of the net under its deterministic gates, before they are cut to a mask.
    """
    bench = PlantBench(params, case, seed)
    progress.label(task=case.name, seed=seed, regime="gates")
    wanted = [bench.density(one) for one in densities]
    rows = gated(bench, bench.start(mother), gates, [str(one) for one in densities], wanted)
    head = case.model_dump() | {"seed": seed, "mother": mother, "regime": "gates"}
    record = {"head": head, "ticket": ticket_line(bench), "constant": constant(bench)}
    return Result(record | {"rows": rows})


def gated(
    bench: PlantBench, start: State, fit: GateFit, names: Sequence[str], densities: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row per density: the mask by gates, its strong scores, and the gates before it."""
    net = stacks.cast(start, torch.float32, bench.device)
    (x, y), seed = bench.train, order(bench.seed, POPUP_ORDER)
    rows = []
    for name, density in zip(names, densities, strict=True):
        found = bernoulli_gates(net, density, x, y, bench.task.kind, fit, seed)
        soft = stacks.cast(found.soft, torch.float32)
        uncut = describe(bench, Arm("soft", name, density, bench.dense()), soft)
        rows.append(
            describe(bench, Arm("gates", name, density, found.mask), start)
            | {"soft": uncut["strong"], "open": found.open, "expected": found.expected}
        )
    return rows


def popped(
    bench: PlantBench, start: State, names: Sequence[str], densities: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row per density: the mask by annealed edge-popup, and its strong scores."""
    goals = [Goal(density, annealed=True) for density in densities]
    nets = [stacks.cast(start, torch.float32, bench.device)] * len(goals)
    (x, y), seed = bench.train, order(bench.seed, POPUP_ORDER)
    found = edge_popup(nets, goals, x, y, bench.task.kind, bench.params.popup, seed)
    cells = zip(names, densities, found.masks, strict=True)
    return [describe(bench, Arm("annealed", n, d, mask.to("cpu")), start) for n, d, mask in cells]


def constant(bench: PlantBench) -> float:
    """Return the best constant prediction's test score: accuracy in 0..1, or squared error."""
    y = bench.test[1]
    if bench.task.kind == "classification":
        return chance_accuracy(y) / 100
    return float(y.var(dim=0, correction=0).mean())


# ---------------------------------------------------------------- crowds


def seek_weak(
    params: PlantParams,
    case: Case,
    seed: int,
    copies: int,
    regime: Regime,
    methods: Sequence[str],
    multiples: Sequence[int],
) -> Result:
    """Prune a mother with k tickets by all methods, to the density of 1 and more tickets; train."""
    bench = CrowdBench(params, case, seed, copies)
    progress.label(task=case.name, seed=seed, regime=regime)
    start = bench.beginning()
    pairs = list(zip(multiples, bench.multiples(multiples), strict=True))
    arms = [
        Arm(method, str(number), density, bench.dense())
        for method in methods
        for number, density in pairs
    ]
    arms = (singleshot_masks if regime == "singleshot" else multishot_masks)(bench, arms, start)
    trained = train(bench, [start] * len(arms), [arm.mask for arm in arms], params.fit)
    rows = [
        describe(bench, arm, start) | recalls(bench, arm) | {"weak": test_score(bench, weights)}
        for arm, weights in zip(arms, trained, strict=True)
    ]
    return Result(crowd_record(bench, regime) | {"rows": rows})


def seek_strong(
    params: PlantParams,
    gates: GateFit,
    case: Case,
    seed: int,
    copies: int,
    multiples: Sequence[int],
) -> Result:
    """Search a mother with k tickets by annealed edge-popup and by gates, without any training."""
    bench = CrowdBench(params, case, seed, copies)
    progress.label(task=case.name, seed=seed, regime="untrained")
    start, names = bench.beginning(), [str(number) for number in multiples]
    densities = bench.multiples(multiples)
    rows = popped(bench, start, names, densities)
    rows += gated(bench, start, gates, names, densities)
    return Result(crowd_record(bench, "untrained") | {"rows": rows})


def crowd_record(bench: CrowdBench, regime: str) -> dict[str, Any]:
    """Return what the record of a crowd has besides its rows.

    `alone` are the strong scores of each copy under its own mask, in the weights with all of them.
    """
    head = bench.case.model_dump() | {"seed": bench.seed, "copies": bench.copies, "regime": regime}
    weights = stacks.cast(bench.crowd.weights, torch.float32)
    alone = [
        describe(bench, Arm("oracle", "1", bench.density("gt"), mask), weights)["strong"]
        for mask in bench.crowd.masks
    ]
    return {"head": head, "ticket": ticket_line(bench), "constant": constant(bench), "alone": alone}


def recalls(bench: CrowdBench, arm: Arm) -> dict[str, float]:
    """Return the largest share of any one copy that a mask keeps."""
    shares = [algorithm.found(arm.mask, mask)["recall"] for mask in bench.crowd.masks]
    return {"best_recall": max(shares)}


def test_score(bench: PlantBench, weights: State) -> float:
    """Return a trained net's test score: accuracy in 0..1, or squared error."""
    x, y = bench.test
    return gauge.score(stacks.forward(weights, x), y, bench.task.kind)
