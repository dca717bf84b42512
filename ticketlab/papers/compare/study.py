"""The comparison: which units there are, and the one way in which all tickets are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ticketlab import plugins
from ticketlab.data.sets import Batches, DataSpec, load
from ticketlab.many.train_many import Job, Trained, train_many
from ticketlab.papers.colt.algorithm import chance_rate, rounds_to
from ticketlab.papers.compare.methods import Bench, Cost, Found, Ledger, one_shot, press, search
from ticketlab.papers.compare.params import (
    WEIGHTS,
    Bed,
    CompareParams,
    Weights,
    check,
    methods_of,
    name_of,
    ticket_name,
)
from ticketlab.pruning.masks import Mask, State
from ticketlab.study import runner
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.tickets.ticket import Ticket, make_ticket, network
from ticketlab.training.loop import Net, Recipe, Step, evaluate


def phases(params: CompareParams) -> Phases:
    """The units of the study; each phase follows from the results of those before it."""
    check(params)
    found = yield method_units(params)
    return found | (yield follow_up_units(params, found))


# ---------------------------------------------------------------- units


def method_units(params: CompareParams) -> list[Unit]:
    """The dense net and every method that stands on its own."""
    units = []
    for place, bed in enumerate(params.beds):
        for seed in params.seeds:
            units.append(_unit(params, place, seed, train_dense, "dense", 1))
            for method in methods_of(params):
                if method != "imp-matched":
                    cost = len(bed.levels) + searched(params, bed, method)
                    units.append(
                        _unit(params, place, seed, train_method, method, cost, method=method)
                    )
    return units


def follow_up_units(params: CompareParams, found: Mapping[str, Result]) -> list[Unit]:
    """What needs finished searches: IMP at COLT's pace, controls of equal cost, the swap."""
    units = []
    for place, bed in enumerate(params.beds):
        for seed in params.seeds:
            schedule = found[name_of(bed, "colt", seed)].record["left"]
            cost = len(bed.levels) + len(schedule)
            units.append(
                _unit(
                    params,
                    place,
                    seed,
                    train_method,
                    "imp-matched",
                    cost,
                    method="imp-matched",
                    schedule=schedule,
                )
            )
            units += long_units(params, place, seed, found)
            units += swap_units(params, place, seed, found)
    return units


def long_units(
    params: CompareParams, place: int, seed: int, found: Mapping[str, Result]
) -> list[Unit]:
    """A method's mask trained for as many images as another method saw, at the highest level."""
    bed, units = params.beds[place], []
    for control in params.long:
        (row,) = (
            r
            for r in found[name_of(bed, control.budget, seed)].record["rows"]
            if r["level"] == bed.levels[-1]
        )
        mask = _last_mask(found, bed, control.mask, seed)
        cost = row["images"] / one_training(params, bed)
        units.append(
            _unit(
                params,
                place,
                seed,
                train_long,
                f"long-{plugins.slug(control.mask)}-{control.budget}",
                cost,
                arm=control.name,
                mask=mask,
                images=row["images"],
            )
        )
    return units


def swap_units(
    params: CompareParams, place: int, seed: int, found: Mapping[str, Result]
) -> list[Unit]:
    """Masks under other weights than their own; what a search has trained already is left out."""
    bed, units = params.beds[place], []
    masks = {method: _last_mask(found, bed, method, seed) for method in params.swap_masks}
    for weights in WEIGHTS:
        chosen = {m: mask for m, mask in masks.items() if not is_own(params, m, weights)}
        if chosen:
            cost = len(chosen) * (2 if weights == "rst" else 1)
            units.append(
                _unit(
                    params,
                    place,
                    seed,
                    train_swapped,
                    f"swap-{weights}",
                    cost,
                    weights=weights,
                    chosen=chosen,
                )
            )
    return units


def is_own(params: CompareParams, method: str, weights: str) -> bool:
    """Whether a method's own tickets have these weights (RST's are the random mask's)."""
    if weights in ("rst", "rst-other"):
        return method == "random"
    return weights == own_weights(params, method)


def own_weights(params: CompareParams, method: str) -> str:
    """The weights that a method's tickets start from."""
    searched_from_later = method in ("imp", "imp-matched", "colt", "prac") and params.rewind.value
    return "rst" if method == "rst" else "searched" if searched_from_later else "init"


def _last_mask(found: Mapping[str, Result], bed: Bed, method: str, seed: int) -> Mask:
    return found[name_of(bed, method, seed)].tickets[ticket_name(bed.levels[-1])].mask


def _unit(
    params: CompareParams, place: int, seed: int, work: Any, what: str, cost: float, **more: Any
) -> Unit:
    bed = params.beds[place]
    which = more.get("method", more.get("weights", ""))
    used = ("probe",) if plugins.is_plugin(which) else USED.get(which, ())
    arguments = {"params": shared(params, bed, used), "place": 0, "seed": seed, **more}
    return Unit(name_of(bed, what, seed), work, arguments, cost * one_training(params, bed))


PRESSED = ("transform", "penalty")
USED: Mapping[str, tuple[str, ...]] = {
    "snip": ("probe",),
    "grasp": ("probe",),
    "synflow": ("synflow_rounds",),
    "imp": ("rate", "max_rounds"),
    "colt": ("rate", "max_rounds", "partitions"),
    "prac": ("rate", "max_rounds", "shorten", "threshold", "stop", "least_iterations"),
    "rst": PRESSED,
    "rst-other": PRESSED,
    "rewound": ("swap_rewind",),
}
"""Parameters that decide a method's units, or those of a column of the swap, besides the shared."""


def shared(params: CompareParams, bed: Bed, used: Sequence[str]) -> CompareParams:
    """One bed with what all units take, and of what only some units take, what is `used`.

    A unit must not be trained again for the sake of another seed, bed, method or control.
    """
    own = {"rate", "partitions", "max_rounds", "shorten", "threshold", "probe", "synflow_rounds"}
    beds = {"penalty", "stop", "least_iterations"}
    alone = {name: Bed.model_fields[name].default for name in beds - set(used)}
    alone |= {} if "transform" in used else {"transform": bed.recipe}
    blank = {
        name: CompareParams.model_fields[name].default
        for name in {*own, "swap_rewind", "criteria", "long", "swap_masks"} - set(used)
    }
    return params.model_copy(
        update=blank | {"seeds": (0,), "beds": (bed.model_copy(update=alone),)}
    )


# ---------------------------------------------------------------- planned work


def one_training(params: CompareParams, bed: Bed) -> int:
    """Images seen by one training."""
    return _passes(bed.recipe, params.data)


@cache
def _passes(recipe: Recipe, data: DataSpec) -> int:
    return recipe.passes(len(load(data).train))


def searched(params: CompareParams, bed: Bed, method: str) -> float:
    """About how many trainings of the net a method's search takes."""
    top = bed.levels[-1]
    rounds = rounds_to(top, params.rate)
    fast = rounds_to(top, (params.rate + chance_rate(params.rate, params.partitions)) / 2)
    pressed = _passes(bed.transform, params.data) / one_training(params, bed)
    return {
        "imp": rounds,
        "prac": 0.6 * rounds,
        "colt": fast,
        "imp-matched": fast,
        "rst": pressed * len(bed.levels),
    }.get(method, 0.0)


def expected_passes(params: CompareParams) -> float:
    """Image passes that the study will take, about."""
    total = runner.expected_passes(method_units(params))
    for bed in params.beds:
        trainings = searched(params, bed, "imp-matched") + len(bed.levels)
        trainings += sum(1 + searched(params, bed, control.budget) for control in params.long)
        cells = [w for m in params.swap_masks for w in WEIGHTS if not is_own(params, m, w)]
        trainings += len(cells) + cells.count("rst")
        total += trainings * one_training(params, bed) * len(params.seeds)
    return total


# ---------------------------------------------------------------- one final training


@dataclass(frozen=True)
class Start:
    """A ticket about to be trained: its weights, its mask, and another recipe than the net's."""

    state: State
    mask: Mask
    recipe: Recipe | None = None


def finish(bench: Bench, starts: Sequence[Start]) -> list[tuple[dict[str, Any], Cost]]:
    """Train tickets, all on the same batches; for each its scores in percent, and the cost.

    `selected_accuracy` is that of the epoch that is best on validation; test images select nothing.
    """
    data, net = bench.data, bench.net()
    jobs = [
        Job(
            net.model,
            data.train,
            data,
            start.recipe or bench.bed.recipe,
            bench.order(),
            start.mask,
            start.state,
            data.validation,
        )
        for start in starts
    ]
    trained = train_many(jobs, bench.params.runtime, tell=lambda line: None)
    return [score(bench, net, job, done) for job, done in zip(jobs, trained, strict=True)]


def score(bench: Bench, net: Net, job: Job, done: Trained) -> tuple[dict[str, Any], Cost]:
    """A trained ticket's scores on `net`, the path that trained it, and what that cost."""
    test, best = Batches(bench.data.test, bench.data), done.best
    if best is None:
        raise RuntimeError("a job with validation images has a best epoch")
    accuracies = {}
    for name, state in (("selected_accuracy", best.state), ("last_accuracy", done.state)):
        net.rewind(state)
        accuracies[name] = 100 * evaluate(net, bench.data.test, test).accuracy
    ledger, mask = Ledger(bench), job.mask
    ledger.train(bench.iterations(job.recipe), job.recipe.passes(len(bench.data.train)), mask)
    facts = {"validation_accuracy": 100 * best.accuracy, "path": done.path}
    return accuracies | facts, ledger.spent


def describe(
    bench: Bench, arm: str, level: float, weights: str, mask: Mask, rounds: int = 0
) -> dict[str, Any]:
    """What tells a row apart, and what its mask is like."""
    return {
        "net": bench.bed.name,
        "arm": arm,
        "seed": bench.seed,
        "level": level,
        "weights": weights,
        "rounds": rounds,
        "alive": mask.alive,
        "sparsity": mask.sparsity,
        "collapsed": mask.collapsed(),
        "layers": mask.densities(),
    }


def priced(row: dict[str, Any], spent: Cost, last: Cost) -> dict[str, Any]:
    """The row with what its search cost, and what search and final training cost together."""
    return (
        row
        | {f"search_{name}": value for name, value in asdict(spent).items()}
        | asdict(spent + last)
    )


def ticket(bench: Bench, arm: str, level: float, mask: Mask, weights: State, rounds: int) -> Ticket:
    """A level's ticket with the weights it starts from."""
    origin: dict[str, Any] = {
        "paper": "compare",
        "net": bench.bed.name,
        "arm": arm,
        "seed": bench.seed,
        "level": level,
        "round": rounds,
    }
    return make_ticket(mask, weights, **origin, **network(bench.bed.model, bench.data))


# ---------------------------------------------------------------- what units do


def train_dense(params: CompareParams, place: int, seed: int) -> Result:
    """The net with all its weights: what every ticket is measured against."""
    bench = Bench(params, place, seed)
    bench.label("dense", bench.dense)
    ((scores, last),) = finish(bench, [Start(bench.net().state(), bench.dense)])
    row = describe(bench, "dense", 0.0, "init", bench.dense)
    return Result({"rows": [priced(row | scores, Cost(), last)]})


def train_method(
    params: CompareParams, place: int, seed: int, method: str, schedule: tuple[int, ...] = ()
) -> Result:
    """A method's tickets at all levels, each trained as every ticket is."""
    bench, rows, tickets = Bench(params, place, seed), [], {}
    found, left = search(bench, method, schedule)
    weights = own_weights(params, method)
    net = bench.net()
    theta = bench.theta(net) if weights == "searched" else net.state()
    begun = [start_of(bench, method, find, theta) for find in found]
    bench.label(method, found[-1].mask)
    starts = [Start(state, find.mask) for find, (state, _) in zip(found, begun, strict=True)]
    for find, (state, spent), (scores, last) in zip(
        found, begun, finish(bench, starts), strict=True
    ):
        row = describe(bench, method, find.level, weights, find.mask, find.rounds)
        rows.append(priced(row | scores, spent, last))
        made = ticket(bench, method, find.level, find.mask, state, find.rounds)
        tickets[ticket_name(find.level)] = made
    return Result({"rows": rows, "left": left, "data_sha256": bench.data.sha256}, tickets)


def start_of(bench: Bench, method: str, found: Found, theta: State) -> tuple[State, Cost]:
    """The weights of a ticket and what it has cost to get them with the mask."""
    if method != "rst":
        return theta, found.cost
    ledger = Ledger(bench, found.cost)
    return press(bench, found.mask, ledger), ledger.spent


def train_long(
    params: CompareParams, place: int, seed: int, arm: str, mask: Mask, images: int
) -> Result:
    """A mask on the initial weights, in one training of the same shape on so many images."""
    bench = Bench(params, place, seed)
    recipe, total = bench.bed.recipe, len(bench.data.train)
    per_epoch = recipe.iterations(total)[0]
    longer = recipe.model_copy(update={"length": Step(round(images / total * per_epoch), "it")})
    mask = mask.to(bench.device)
    bench.label(arm, mask)
    ((scores, last),) = finish(bench, [Start(bench.net().state(), mask, longer)])
    row = describe(bench, arm, bench.bed.levels[-1], "init", mask)
    return Result({"rows": [priced(row | scores, Cost(), last)]})


def train_swapped(
    params: CompareParams, place: int, seed: int, weights: Weights, chosen: dict[str, Mask]
) -> Result:
    """Masks of several methods on weights that are not their own, trained as every ticket is."""
    bench, level = Bench(params, place, seed), params.beds[place].levels[-1]
    shared = None if weights == "rst" else swapped_in(bench, weights)
    starts = {}
    for method, mask in chosen.items():
        mask = mask.to(bench.device)
        state = press(bench, mask, Ledger(bench)) if shared is None else shared
        starts[method] = Start(state, mask)
    bench.label(f"masks on {weights}", starts[next(iter(starts))].mask)
    rows = [
        describe(bench, method, level, weights, start.mask) | scores
        for (method, start), (scores, _) in zip(
            starts.items(), finish(bench, list(starts.values())), strict=True
        )
    ]
    return Result({"swapped": rows})


def swapped_in(bench: Bench, weights: Weights) -> State:
    """The weights of a column of the swap."""
    if weights == "rst-other":
        return press(bench, one_shot(bench, "random")[-1].mask, Ledger(bench))
    if weights == "rewound":
        return bench.later(bench.params.swap_rewind)
    return bench.net(stream="reinit" if weights == "reinit" else "init").state()
