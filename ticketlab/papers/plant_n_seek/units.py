"""One seed of Plant 'n' Seek: its bench, how arms are pruned and trained, the study's units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu, progress
from ticketlab.many import stacks
from ticketlab.many.stacks import Fit, Head
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm import gauge
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, edge_popup
from ticketlab.papers.plant_n_seek.params import Case, Density, Mother, PlantParams, Variant, way
from ticketlab.pruning import saliency
from ticketlab.pruning.masks import Mask, State, shuffle_layerwise
from ticketlab.pruning.saliency import CRITERIA, Probe, Rule, named_criterion
from ticketlab.study.bench import order
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import Ticket, make_ticket, state_digest

# ---------------------------------------------------------------- starting point of a seed

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PlantBench:
    """Data, mother and planted ticket of one seed, shared by every arm of the seed."""

    params: PlantParams
    case: Case
    seed: int

    @cached_property
    def device(self) -> torch.device:
        """The device of all training; planting and scoring of masks stay on the CPU."""
        return gpu.start(self.params.runtime)

    @property
    def task(self) -> algorithm.Task:
        """The task to learn."""
        return algorithm.task_named(self.case.task)

    @property
    def shape(self) -> tuple[int, ...]:
        """Neurons of the mother by layer."""
        hidden = [self.case.width] * (self.case.depth - 2)
        return (self.task.inputs, *hidden, self.task.outputs)

    def data(self, part: str) -> Pair:
        """Return inputs and outputs, float32; "train", "test" and "probe" are independent draws."""
        count = getattr(self.params, part)
        random = gpu.generator("cpu", "plant-data", self.case.task, part, self.seed)
        x, y = algorithm.sample(self.case.task, count, self.case.noise, random)
        return x.float(), y if y.dtype == torch.int64 else y.float()

    @cached_property
    def train(self) -> Pair:
        """The training set, on the device."""
        x, y = self.data("train")
        return x.to(self.device), y.to(self.device)

    @cached_property
    def test(self) -> Pair:
        """The test set."""
        return self.data("test")

    def digest(self) -> str:
        """Return the SHA-256 of the generated training and test data."""
        pairs = {
            f"{part}.{axis}": values
            for part in ("train", "test")
            for axis, values in zip("xy", self.data(part), strict=True)
        }
        return state_digest(pairs)

    @cached_property
    def planted(self) -> algorithm.Planted:
        """The seed's mother with the ticket planted in it."""
        target = algorithm.target(self.case.task, self.case.depth)
        host = algorithm.mother(self.shape, self.random("mother"))
        return algorithm.plant(target, host, self.params.mode, self.random("plant"))

    def random(self, *parts: object) -> torch.Generator:
        """Return a generator of this seed and cell; noise only changes the data."""
        where = (self.case.task, self.case.depth, self.case.width)
        return gpu.generator("cpu", *parts, *where, self.seed)

    def start(self, mother: Mother) -> State:
        """Return initial weights, float32: the mother, with or without the planted ticket."""
        weights = self.planted.weights if mother == "planted" else self.planted.mother
        last = f"bias{len(weights) // 2}"
        if mother == "unbiased":
            weights = weights | {last: torch.zeros_like(weights[last])}
        drawn = stacks.cast(weights, torch.float32)
        return dict(gpu.perturbed(drawn, self.params.runtime, self.seed))

    @cached_property
    def probe(self) -> Probe:
        """The input of criteria: the net as a function, and one small batch; no randomness."""
        x, y = self.data("probe")
        kind = (
            functional.cross_entropy if self.task.kind == "classification" else functional.mse_loss
        )
        return Probe(stacks.forward, x, y, kind)

    def density(self, wanted: Density) -> float:
        """Return a density as a number: "gt" is the planted weights over all of the mother's."""
        if wanted == "gt":
            return algorithm.ground_truth_density(self.planted.target, self.shape)
        return wanted

    def dense(self) -> Mask:
        """Return the mask of every weight and bias of the mother."""
        return Mask({n: torch.ones_like(k) for n, k in self.planted.mask.items()})


def arms_of(bench: PlantBench, methods: Sequence[str], densities: Sequence[Density]) -> list["Arm"]:
    """Return every method at every density, on the dense mask."""
    dense = bench.dense()
    return [
        Arm(method, str(wanted), bench.density(wanted), dense)
        for method, wanted in product(methods, densities)
    ]


@dataclass(frozen=True)
class Arm:
    """One pruned net: its method, target density, and mask so far."""

    method: str
    label: str
    density: float
    mask: Mask
    start: State | None = None
    """Initial weights, if not those of the mother."""
    collapsed: int | None = None
    """The round after which no path was left from any input to any output."""


# ---------------------------------------------------------------- pruning


def rounds_of(method: str, params: PlantParams) -> int:
    """Return the scoring rounds of one pruning."""
    return params.score_rounds if way(method).many else 1


def prune(bench: PlantBench, arm: Arm, weights: State, density: float, turn: int = 1) -> Mask:
    """Return the arm's mask at `density`, scored on `weights` in round `turn`.

    Random scores are drawn separately for each method, final density and round, so that they do not
    depend on what else is pruned.
    """
    how = way(arm.method)
    rule = Rule(layerwise=how.local, as_released=bench.params.as_released)
    rounds = rounds_of(arm.method, bench.params)
    random = bench.random("random-scores", arm.method, arm.density, turn)
    probe = replace(bench.probe, random=random)
    criterion = named_criterion(how.criterion)
    return saliency.prune_to(criterion, probe, weights, arm.mask, density, rounds, rule)


def singleshot_masks(bench: PlantBench, arms: Sequence[Arm], start: State) -> list[Arm]:
    """Score once at initialisation and prune."""
    return [replaced(arm, prune(bench, arm, start, arm.density)) for arm in arms]


def multishot_masks(bench: PlantBench, arms: Sequence[Arm], start: State) -> list[Arm]:
    """Train, score, prune to density^(r/rounds), reset to the initial weights; `rounds` times.

    Before the first pruning all arms are the same dense net, which is trained once.
    """
    p, arms = bench.params, list(arms)
    fit = p.fit.model_copy(update={"epochs": p.round_epochs})
    for turn in range(1, p.rounds + 1):
        progress.label(task=bench.case.name, seed=bench.seed, round=turn)
        masks = [arm.mask for arm in arms] if turn > 1 else [bench.dense()]
        trained = train(bench, [start] * len(masks), masks, fit, f"round-{turn}")
        trained = trained if turn > 1 else trained * len(arms)
        for place, (arm, weights) in enumerate(zip(arms, trained, strict=True)):
            density = arm.density ** (turn / p.rounds)
            mask = prune(bench, arm, revived(start, weights, arm.mask), density, turn)
            arms[place] = replaced(arm, mask, turn)
    return arms


def revived(start: State, weights: State, mask: Mask) -> State:
    """Return the trained weights, with initial values where removed (for `as_released` only)."""
    return {name: torch.where(mask[name], weights[name], start[name]) for name in weights}


def replaced(arm: Arm, mask: Mask, turn: int = 1) -> Arm:
    """Return the arm with its next mask; records the first round without any path."""
    dead = arm.collapsed or (None if algorithm.paths_alive(mask) else turn)
    return Arm(arm.method, arm.label, arm.density, mask, arm.start, dead)


def train(
    bench: PlantBench,
    starts: Sequence[State],
    masks: Sequence[Mask],
    fit: Fit,
    stage: str = "train",
) -> list[State]:
    """Train nets under their masks on the seed's data; return the trained weights on the CPU."""
    device = bench.device
    nets = [stacks.cast(net, torch.float32, device) for net in starts]
    kept = [mask.to(device) for mask in masks]
    x, y = bench.train
    done = stacks.train(nets, kept, x, y, bench.task.kind, fit, order(bench.seed, stage))
    return [stacks.cast(net, torch.float32) for net in done]


# ---------------------------------------------------------------- controls


def control_arms(bench: PlantBench) -> list[Arm]:
    """Return the control arms.

    The dense net, the planted ticket as planted and with its factor divided out, the ticket's mask
    shuffled within layers, and its mask on a newly drawn mother.
    """
    ticket, density = bench.planted, bench.density("gt")
    fresh = algorithm.mother(bench.shape, bench.random("fresh"))
    shuffled = shuffle_layerwise(ticket.mask, bench.random("shuffle"))
    return [
        Arm("dense", "1", 1.0, bench.dense()),
        Arm("oracle", "gt", density, ticket.mask),
        Arm("oracle_unit", "gt", density, ticket.mask, algorithm.without_factor(ticket)),
        Arm("oracle_shuffled", "gt", density, shuffled),
        Arm("oracle_reinit", "gt", density, ticket.mask, fresh),
    ]


def narrow_row(bench: PlantBench) -> dict[str, Any]:
    """Return a row for the dense net of the target's widths, trained from a He initialisation."""
    target = bench.planted.target
    net = algorithm.mother(stacks.widths(target), bench.random("narrow"))
    mask = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in net.items()})
    weights = train(bench, [net], [mask], bench.params.fit)[0]
    density = mask.total / bench.dense().total
    row = {"method": "narrow_dense", "label": "gt", "density": density, "kept": mask.alive}
    return row | {"weak": _test_score(bench, weights)}


# ---------------------------------------------------------------- units


def prune_and_train(
    params: PlantParams,
    case: Case,
    seed: int,
    mother: Mother,
    regime: str,
    methods: Sequence[str],
    densities: Sequence[Density],
    controls: bool = False,
    trained: bool = True,
) -> Result:
    """Run all methods and densities of one regime for a seed: strong score, training, weak score.

    Without the training there is no weak score, and no ticket, since only trained ones are stored.
    """
    bench = PlantBench(params, case, seed)
    progress.label(task=case.name, seed=seed, regime=regime)
    start = bench.start(mother)
    find = singleshot_masks if regime == "singleshot" else multishot_masks
    arms = find(bench, arms_of(bench, methods, densities), start) if methods else []
    arms += control_arms(bench) if controls else []
    starts = [start if arm.start is None else arm.start for arm in arms]
    rows = [
        describe(bench, arm, stacks.cast(at, torch.float32))
        for arm, at in zip(arms, starts, strict=True)
    ]
    if trained:
        nets = train(bench, starts, [arm.mask for arm in arms], params.fit)
        rows = [
            row | {"weak": _test_score(bench, weights)}
            for row, weights in zip(rows, nets, strict=True)
        ]
    rows += [narrow_row(bench)] if controls else []
    head = case.model_dump() | {"seed": seed, "mother": mother, "regime": regime}
    tickets = _tickets(arms, head) if trained else {}
    return Result({"head": head, "ticket": ticket_line(bench), "rows": rows}, tickets)


def _tickets(arms: Sequence[Arm], head: dict[str, Any]) -> dict[str, Ticket]:
    """Return the masks by method and density."""
    return {
        f"{arm.method}-{arm.label}": make_ticket(
            arm.mask, paper="plant_n_seek", arm=arm.method, **head
        )
        for arm in arms
        if arm.density < 1
    }


def describe(bench: PlantBench, arm: Arm, start: State) -> dict[str, Any]:
    """Return properties of the arm's mask, and its strong scores, which need no training."""
    weights = stacks.apply(arm.mask, start)
    return (
        {"method": arm.method, "label": arm.label, "density": arm.density}
        | describe_mask(bench, arm.mask)
        | {"collapsed": arm.collapsed, "strong": _strong(bench, weights)}
    )


def describe_mask(bench: PlantBench, mask: Mask) -> dict[str, Any]:
    """Return entries kept, those on a path, density by tensor, and the share that is planted."""
    live = algorithm.connected(mask)
    return {
        "kept": mask.alive,
        "effective": live.alive,
        "alive": bool(live["weight1"].any()),
        "layers": mask.densities(),
        **algorithm.found(mask, bench.planted.mask),
    }


def _test_score(bench: PlantBench, weights: State) -> float:
    x, y = bench.test
    return gauge.score(stacks.forward(weights, x), y, bench.task.kind)


def _strong(bench: PlantBench, weights: State, head: Head = "linear") -> dict[str, float]:
    pairs = []
    for part in ("train", "test"):
        x, y = bench.train if part == "train" else bench.test
        outputs = stacks.forward(weights, x[: gauge.FITTED_ON].cpu())
        pairs.append(
            (outputs.softmax(-1) if head == "softmax" else outputs, y[: len(outputs)].cpu())
        )
    return gauge.strong_scores(pairs[0], pairs[1], bench.task.kind)


def ticket_line(bench: PlantBench) -> dict[str, float]:
    """Return the planted ticket's own scores: with known factors divided out, raw, and fitted."""
    x, y = bench.test
    ideal = gauge.score(bench.planted.outputs(x.double()), y, bench.task.kind)
    as_planted = _strong(bench, stacks.cast(bench.planted.ticket(), torch.float32))
    return {"score": ideal} | as_planted


def pop(
    params: PlantParams,
    case: Case,
    seed: int,
    mother: Mother,
    head: Head,
    variant: Variant,
    densities: Sequence[Density],
) -> Result:
    """Run edge-popup for one seed, mother, head and variant: all densities as one stack.

    All edge-popups of a seed start from the same scores and data order, so they are paired.
    """
    bench = PlantBench(params, case, seed)
    progress.label(task=case.name, seed=seed, regime=f"edge-popup {head}")
    start, kind = bench.start(mother), bench.task.kind
    annealed, joint = variant.startswith("annealed"), variant.endswith("joint")
    goals = [Goal(bench.density(wanted), annealed) for wanted in densities]
    nets = [stacks.cast(start, torch.float32, bench.device)] * len(goals)
    x, y = bench.train
    found = edge_popup(nets, goals, x, y, kind, params.popup, order(seed, "popup"), head, joint)
    rows = []
    for place, (wanted, goal) in enumerate(zip(densities, goals, strict=True)):
        masks = [turn[place].to("cpu") for turn in found.epochs]
        curve = [_strong(bench, stacks.apply(mask, start), head) for mask in masks]
        rows.append(
            {"method": variant, "label": str(wanted), "density": goal.density}
            | describe_mask(bench, masks[-1])
            | {"strong": curve[-1], "curve": [turn["per_output"] for turn in curve]}
        )
    record = case.model_dump() | {"seed": seed, "mother": mother, "regime": f"popup_{head}"}
    return Result({"head": record, "ticket": ticket_line(bench), "rows": rows})


def audit_planting(params: PlantParams, case: Case, audits: Sequence[int]) -> Result:
    """Measure how visible and how scorable the ticket is in each planting mode; trains nothing.

    Per mode and seed: entries beyond any random weight, exact zeros, the ticket's own strong
    scores, and how well a classifier that has seen the other seeds detects the ticket's entries.
    For the first seeds also how the criteria rank the planted entries, and how many entries GraSP
    keeps at half density by the released rule.
    """
    rows, ranks = [], []
    for mode in get_args(algorithm.Mode):
        chosen = params.model_copy(update={"mode": mode})
        benches = [PlantBench(chosen, case, seed) for seed in audits]
        areas = algorithm.detectability([bench.planted for bench in benches])
        for bench, area in zip(benches, areas, strict=True):
            named = {"mode": mode, "seed": bench.seed}
            rows.append(named | audit_row(bench) | {"auroc": area})
            if bench.seed in audits[:3]:
                ranks += [named | row for row in rank_rows(bench)]
    return Result({"head": case.model_dump(), "rows": rows, "ranks": ranks})


def audit_row(bench: PlantBench) -> dict[str, Any]:
    """Return a row of one planted mother: the ticket's visibility and its strong scores."""
    table = algorithm.audit(bench.planted)
    factors = bench.planted.factors
    released = Rule(as_released=True)
    start, dense = bench.start("planted"), bench.dense()
    kept = saliency.prune_to(saliency.grasp, bench.probe, start, dense, 0.5, rule=released)
    return {
        "largest": float(table.largest.max()),
        "loud": int(table.loud.sum()),
        "silent": int(table.silent.sum()),
        "zeros": int(table.zeros.sum()),
        "factor_spread": float(factors.max() / factors.min()),
        "grasp_kept": kept.density,
    } | ticket_line(bench)


def rank_rows(bench: PlantBench) -> list[dict[str, Any]]:
    """Return the probability that a planted entry outranks another of its tensor, by criterion."""
    rows = []
    mothers: tuple[Mother, ...] = ("planted", "unplanted")
    for mother, name in product(mothers, ("magnitude", "snip", "grasp", "synflow")):
        scores = CRITERIA[name](bench.probe, bench.start(mother), bench.dense())
        for tensor, marked in bench.planted.mask.items():
            area = algorithm.auroc(scores[tensor], marked)
            rows.append({"mother": mother, "method": name, "tensor": tensor, "auroc": area})
    return rows
