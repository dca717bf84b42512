"""Units of the COLT study, and how they depend on each other."""

from collections.abc import Callable, Mapping
from typing import Any

from ticketlab.data.sets import load
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import (
    HALF,
    MATCHED,
    SEARCHED,
    ColtParams,
    ColtSetting,
    Control,
    Point,
    Transfer,
    Variant,
    arm_name,
    check,
)
from ticketlab.papers.colt.units import (
    chosen_tickets,
    score_tickets,
    search_colt,
    search_imp,
    transfer_tickets,
)
from ticketlab.pruning.masks import shuffle_each
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit

CARRIED = ("weights", "mask")
"""What is transferred of a ticket: its mask and weights, or only the mask."""


def phases(params: ColtParams) -> Phases:
    """Yield the units of the study; each phase follows from the results of those before it."""
    check(params)
    points = params.points
    results = yield [unit for point in points for unit in search_units(params, point)]
    for follow_up in (follow_up_units, matched_control_units):
        units = [unit for point in points for unit in follow_up(params, point, results)]
        results = results | (yield units)
    return results


def one_training(params: ColtParams) -> int:
    """Return the images seen by one training on all data."""
    return params.recipe.passes(len(load(params.data).train))


def predicted_rate(params: ColtSetting, variant: Variant) -> float:
    """Estimate what COLT prunes per round, between one copy's rate and that of random copies."""
    chance = algorithm.chance_rate(params.rate, variant.partitions, variant.needed)
    return (params.rate + chance) / 2


def predicted_rounds(params: ColtSetting, rate: float) -> int:
    """Return the rounds needed to reach the target at a constant rate."""
    return min(params.max_rounds, algorithm.rounds_to(params.target, rate))


# ---------------------------------------------------------------- the units of a rewinding point


def search_units(params: ColtParams, point: Point) -> list[Unit]:
    """Return the searches that depend on no other: IMP, COLT, and its variants."""
    one, units = one_training(params), []
    for seed in point.imp_seeds:
        rounds = algorithm.rounds_to(params.target, params.imp_rate)
        own = setting_of(params, point, "imp_rate", "target", "max_rounds", "levels")
        arguments: dict[str, Any] = {"setting": own, "seed": seed, "arm": "imp"}
        name = f"{point.prefix}search/imp/seed-{seed}"
        units.append(Unit(name, search_imp, arguments, one * (rounds + 1)))
    for variant in point.variants:
        cost = one * predicted_rounds(params, predicted_rate(params, variant))
        for seed in params.seeds_of(variant):
            arguments = {
                "setting": setting_of(params, point, "rate", "target", "max_rounds"),
                "seed": seed,
                "variant": variant.model_copy(update={"seeds": 0}),
            }
            name = f"{point.prefix}search/{variant.name}/seed-{seed}"
            units.append(Unit(name, search_colt, arguments, cost))
    return units


def follow_up_units(params: ColtParams, point: Point, results: Mapping[str, Result]) -> list[Unit]:
    """Return units that need COLT's searches: matched IMP, retraining, controls, transfer."""
    units = []
    for seed in params.seeds:
        found = results[f"{point.prefix}search/{params.main[0].name}/seed-{seed}"]
        schedule = [turn["alive"] for turn in found.record["rounds"]]
        paces = {MATCHED: schedule}
        if not point.late and "half" in params.further:
            paces[HALF] = algorithm.every_second(schedule)
        for arm, own in paces.items():
            more: dict[str, Any] = {"arm": arm, "schedule": own}
            cost = one_training(params) * (len(own) + 1)
            units.append(_unit(params, point, search_imp, f"search/{arm}", seed, cost, **more))
    for variant in point.variants:
        for seed in params.seeds_of(variant):
            for control in controls_of(params, point, variant):
                units.append(_scoring(params, point, variant.name, seed, results, control))
    if not point.late:
        units += moving_units(params, results)
    return units


def matched_control_units(
    params: ColtParams, point: Point, results: Mapping[str, Result]
) -> list[Unit]:
    """Return the controls of matched IMP's tickets, which are scored in their own search."""
    return [
        _scoring(params, point, MATCHED, seed, results, control)
        for seed in params.seeds
        for control in SEARCHED
    ]


def controls_of(params: ColtParams, point: Point, variant: Variant) -> tuple[Control | None, ...]:
    """Return how the tickets of a variant are retrained: unchanged (None), and each control.

    At a late rewinding point the rewound weights have been trained, so a mask of the largest
    rewound weights is a control there.
    """
    if variant not in params.main:
        return (None,)
    if variant == params.main[1]:
        return (None, *SEARCHED)
    late = point.rewind.value > 0
    return (None, *SEARCHED, "random", *(("magnitude",) if late else ()))


# ---------------------------------------------------------------- tickets on other data


def moving_units(params: ColtParams, results: Mapping[str, Result]) -> list[Unit]:
    """Return transfers to another data set, and to images of another size if configured."""
    units = transfer_units(params, params.transfer, "transfer", results)
    if params.resized is not None:
        units += transfer_units(params, params.resized, "resized", results)
    return units


def transfer_units(
    params: ColtParams, transfer: Transfer, what: str, results: Mapping[str, Result]
) -> list[Unit]:
    """Transfer COLT's and IMP's tickets, both shuffled, and the dense net to another data set."""
    units, point = [], params.points[0]
    one = params.recipe.passes(len(load(transfer.data).train))
    for seed in params.seeds[: transfer.seeds]:
        main, levels = params.main[0].name, transfer.levels
        found = chosen_tickets(results[f"search/{main}/seed-{seed}"], levels)
        ladder = results[f"search/imp/seed-{seed}"]
        sources = {main: found, "imp": chosen_tickets(ladder, levels)}
        carried = [(arm, chosen, kind) for arm, chosen in sources.items() for kind in CARRIED]
        for arm, chosen in sources.items():
            shuffled = shuffle_each(chosen, seed, "moved", arm)
            carried.append((arm_name(arm, "shuffled"), shuffled, "weights"))
        carried.append(("dense", {"round-00": ladder.tickets["round-00"].mask}, "weights"))
        for arm, chosen, kind in carried:
            more: dict[str, Any] = {"arm": arm, "target": transfer.data, "chosen": chosen}
            more["with_weights"] = kind == "weights"
            name = f"{what}/{arm}" + (f"-{kind}" if arm != "dense" else "")
            cost = one * len(chosen)
            units.append(_unit(params, point, transfer_tickets, name, seed, cost, **more))
    return units


# ---------------------------------------------------------------- one unit


def _unit(
    params: ColtParams,
    point: Point,
    work: Callable[..., Result],
    name: str,
    seed: int,
    passes: float,
    **more: Any,
) -> Unit:
    used = ("levels",) if work is search_imp else ()
    arguments = {"setting": setting_of(params, point, *used), "seed": seed, **more}
    name = f"{point.prefix}{name}/seed-{seed}"
    return Unit(name, work, arguments, passes)


def setting_of(params: ColtParams, point: Point, *used: str) -> ColtSetting:
    """Return the parameters that every unit depends on, and those in `used`."""
    own = ("prune_from", "authors_metric", *used)
    return ColtSetting.of(params, *own, rewind=point.rewind)


def _scoring(
    params: ColtParams,
    point: Point,
    source: str,
    seed: int,
    results: Mapping[str, Result],
    control: Control | None,
) -> Unit:
    """Return the unit that retrains a search's tickets, or a control of them."""
    found = results[f"{point.prefix}search/{source}/seed-{seed}"]
    chosen, arm = chosen_tickets(found, params.levels), arm_name(source, control)
    more: dict[str, Any] = {"source": source, "chosen": chosen, "control": control}
    cost = one_training(params) * len(chosen)
    return _unit(params, point, score_tickets, f"score/{arm}", seed, cost, **more)
