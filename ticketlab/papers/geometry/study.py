"""Units of the geometry study, and how they depend on each other."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ticketlab.data.sets import load
from ticketlab.papers.colt.algorithm import rounds_to
from ticketlab.papers.compare.params import Bed, name_of, ticket_name
from ticketlab.papers.compare.study import USED
from ticketlab.papers.compare.units import train_method
from ticketlab.papers.geometry import own, stored, units
from ticketlab.papers.geometry.params import (
    ARM,
    ARMS,
    LADDERS,
    OTHERS,
    OWN,
    GeometryParams,
    OwnBed,
    check,
)
from ticketlab.spec import InputError
from ticketlab.study.bench import Setting
from ticketlab.study.results import Result
from ticketlab.study.retrain import train_dense
from ticketlab.study.runner import Phases, Unit
from ticketlab.tickets.ticket import Ticket
from ticketlab.training.recipe import Step


def phases(params: GeometryParams) -> Phases:
    """Yield the units of the study: tickets are found and trained first, then examined.

    Among them are the papers' own units on their own beds, which their own studies have trained.
    """
    check(params)
    check_stored(params)
    pairs = [(bed, seed) for bed in params.beds for seed in params.seeds]
    kept = [(bed, each) for bed in params.own_beds if (each := stored.of(params, bed))]
    found = yield [
        *(unit for bed, seed in pairs for unit in searches(params, bed, seed)),
        *(unit for bed in params.own_beds for seed in params.seeds
          for unit in rewindings(params, bed, seed)),
        *(unit for bed, each in kept for unit in stored.renamed(bed, each.searches())),
    ]  # fmt: skip
    found |= yield [
        *(unit for bed, seed in pairs for unit in examinations(params, bed, seed, found)),
        *(unit for bed, each in kept
          for unit in stored.renamed(bed, each.scorings(stored.own_names(bed, found)))),
    ]  # fmt: skip
    if not kept:
        return found
    return found | (
        yield [joining(params, bed, seed, found) for bed, _ in kept for seed in params.seeds]
    )


def check_stored(params: GeometryParams) -> None:
    """Reject parameters of the papers' own units as their own studies do; InputError names both."""
    for bed in params.own_beds:
        try:
            if each := stored.of(params, bed):
                each.check()
        except InputError as error:
            raise InputError(f"own_beds.{bed.name}.stored: {error}") from None


# ---------------------------------------------------------------- units


def searches(params: GeometryParams, bed: Bed, seed: int) -> list[Unit]:
    """Return the dense net, every arm's tickets, other rewindings, and the rounds' ladders."""
    dense = Setting.of(params.setting(bed), rewind=Step(0, "it"))
    rounds, unit = rounds_to(bed.levels[-1], params.rate), partial(_unit, params, bed, seed)
    found = [
        Unit(name_of(bed, "dense", seed), train_dense, {"setting": dense, "seed": seed},
             one_training(params, bed)),
    ]  # fmt: skip
    for arm in ARMS:
        cost = len(bed.levels) + (rounds if arm in LADDERS else 1)
        found.append(unit(arm, train_method, cost, USED.get(arm, ()), method=arm))
    for kind in OTHERS:
        more = ("rate", "max_rounds")
        found.append(unit(f"rewound-{kind}", units.search_rewound, 2 * rounds, more, kind=kind))
    for arm in LADDERS:
        used = (*USED[arm], "lines")
        found.append(unit(f"ladder-{arm}", units.climb, 2 * rounds, used, arm=arm))
    return found


def rewindings(params: GeometryParams, bed: OwnBed, seed: int) -> list[Unit]:
    """Return the three rewindings on a paper's own bed, its dense net and random masks."""
    images = bed.recipe.passes(len(load(bed.data).train))
    rounds = rounds_to(bed.levels[-1], bed.rate) + len(bed.levels)
    dense = Setting.of(params.own_setting(bed), rewind=Step(0, "it"))

    def unit(what: str, work: Callable[..., Result], trainings: float, **more: Any) -> Unit:
        name = f"{OWN}{bed.name}/{what}/seed-{seed}"
        return Unit(name, work, {"seed": seed, **more}, trainings * images)

    plain, searched = params.own_setting(bed), params.own_setting(bed, "rate", "max_rounds")
    return [
        unit("dense", train_dense, 1, setting=dense),
        unit("random", train_method, len(bed.levels), setting=plain, method="random"),
        *(unit(f"rewound-{kind}", units.search_rewound, rounds, setting=searched, kind=kind)
          for kind in ARM),
    ]  # fmt: skip


def examinations(
    params: GeometryParams, bed: Bed, seed: int, results: Mapping[str, Result]
) -> list[Unit]:
    """Return the units that read trained tickets: lines, transplants, reliability."""
    unit = partial(_unit, params, bed, seed)
    dense = results[name_of(bed, "dense", seed)].tickets["dense"]
    arms = {
        f"{arm}/{level:g}": results[name_of(bed, arm, seed)].tickets[ticket_name(level)]
        for level in params.judged(bed)
        for arm in ARMS
    }
    trained = units.digests({"dense": dense} | arms)
    ends: dict[str, Any] = {"tickets": arms, "dense": dense, "trained": trained}
    found = [unit("lines", units.measure_lines, len(arms) + 1, ("lines",), **ends)]
    top = params.judged(bed)[-1]
    for arm in ARMS:
        ticket = arms[f"{arm}/{top:g}"]
        both = {"ticket": ticket, "dense": dense}
        more = {"arm": arm, "level": top, **both, "trained": units.digests(both)}
        used = ("swap_rewind", "matching", "lines")
        found.append(unit(f"transplant-{arm}", units.transplant, 6, used, **more))
    every: dict[str, Ticket] = {"dense/0": dense} | arms
    judged = {"severity": params.severity, "tickets": every, "trained": units.digests(every)}
    return [*found, unit("reliability", units.judge, 1, ("lines",), **judged)]


def joining(params: GeometryParams, bed: OwnBed, seed: int, results: Mapping[str, Result]) -> Unit:
    """Return the unit of the lines between a paper's own tickets of a seed."""
    each = stored.of(params, bed)
    assert each is not None
    tickets = stored.chosen(bed, each.trained(stored.own_names(bed, results), seed))
    arguments = {
        "setting": each.setting(bed).model_copy(update={"lines": params.lines}), "seed": seed,
        "tickets": tickets, "ways": stored.ways(each, bed, tickets),
        "trained": units.digests(tickets),
    }  # fmt: skip
    name = f"{OWN}{bed.name}/lines/seed-{seed}"
    return Unit(name, own.join_stored, arguments, stored.passes(bed, tickets))


def _unit(
    params: GeometryParams,
    bed: Bed,
    seed: int,
    what: str,
    work: Callable[..., Result],
    trainings: float,
    used: tuple[str, ...],
    **more: Any,
) -> Unit:
    arguments = {"setting": params.setting(bed, *used), "seed": seed, **more}
    passes = trainings * one_training(params, bed)
    return Unit(name_of(bed, what, seed), work, arguments, passes)


# ---------------------------------------------------------------- planned work


def one_training(params: GeometryParams, bed: Bed) -> int:
    """Return the images seen by one training."""
    return bed.recipe.passes(len(load(params.data).train))
