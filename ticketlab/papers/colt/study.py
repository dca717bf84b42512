"""The COLT study: which units there are, and how they depend on each other."""

from collections.abc import Callable, Mapping
from typing import Any

from ticketlab import gpu
from ticketlab.data.sets import load
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import ColtParams, ColtSetting, Variant, check
from ticketlab.papers.colt.units import (
    chosen_tickets,
    score_tickets,
    search_colt,
    search_imp,
    transfer_tickets,
)
from ticketlab.pruning.masks import shuffle_layerwise
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit


def phases(params: ColtParams) -> Phases:
    """The units of the study; each phase follows from the results of those before it."""
    check(params)
    searches = yield search_units(params)
    return searches | (yield follow_up_units(params, searches))


def one_training(params: ColtParams) -> int:
    """Images seen by one training on all data."""
    return params.recipe.passes(len(load(params.data).train))


def predicted_rate(params: ColtSetting, variant: Variant) -> float:
    """About what COLT prunes in a round: between one copy's rate and that of copies by chance."""
    chance = algorithm.chance_rate(params.rate, variant.partitions, variant.needed)
    return (params.rate + chance) / 2


def predicted_rounds(params: ColtSetting, rate: float) -> int:
    """Rounds until the target at a constant rate."""
    return min(params.max_rounds, algorithm.rounds_to(params.target, rate))


def _by_seed(params: ColtParams) -> list[tuple[Variant, tuple[int, ...]]]:
    return [(variant, params.seeds_of(variant)) for variant in params.variants]


def search_units(params: ColtParams) -> list[Unit]:
    """The searches that stand on their own: IMP, COLT, and its variants."""
    one, units = one_training(params), []
    for seed in params.seeds:
        rounds = algorithm.rounds_to(params.target, params.imp_rate)
        own = setting_of(params, "imp_rate", "target", "max_rounds", "levels")
        arguments: dict[str, Any] = {"setting": own, "seed": seed, "arm": "imp"}
        units.append(Unit(f"search/imp/seed-{seed}", search_imp, arguments, one * (rounds + 1)))
    for variant, seeds in _by_seed(params):
        cost = one * predicted_rounds(params, predicted_rate(params, variant))
        for seed in seeds:
            arguments = {
                "setting": setting_of(params, "rate", "target", "max_rounds"),
                "seed": seed,
                "variant": variant.model_copy(update={"seeds": 0}),
            }
            units.append(Unit(f"search/{variant.name}/seed-{seed}", search_colt, arguments, cost))
    return units


def follow_up_units(params: ColtParams, searches: Mapping[str, Result]) -> list[Unit]:
    """What needs a finished search: matched IMP, retrained tickets, controls, transfer."""
    main = params.main[0].name
    units = []
    for seed in params.seeds:
        found = searches[f"search/{main}/seed-{seed}"]
        schedule = [turn["alive"] for turn in found.record["rounds"]]
        units.append(
            _unit(
                params,
                search_imp,
                "search/imp-matched",
                seed,
                len(schedule) + 1,
                arm="imp-matched",
                schedule=schedule,
            )
        )
        for control in ("shuffled", "reinit"):
            units.append(_scoring(params, control, seed, found))
    for variant, seeds in _by_seed(params):
        for seed in seeds:
            found = searches[f"search/{variant.name}/seed-{seed}"]
            units.append(_scoring(params, variant.name, seed, found))
    return units + transfer_units(params, searches)


def transfer_units(params: ColtParams, searches: Mapping[str, Result]) -> list[Unit]:
    """COLT's and IMP's tickets, a shuffled control and the dense net, on the other data set."""
    units = []
    for seed in params.seeds[: params.transfer.seeds]:
        main, levels = params.main[0].name, params.transfer.levels
        found = chosen_tickets(searches[f"search/{main}/seed-{seed}"], levels)
        ladder = searches[f"search/imp/seed-{seed}"]
        shuffled = {
            name: shuffle_layerwise(mask, gpu.generator("cpu", seed, "shuffle", "transfer", name))
            for name, mask in found.items()
        }
        sources = {main: found, "imp": chosen_tickets(ladder, levels), "shuffled": shuffled}
        dense = {"round-00": ladder.tickets["round-00"].mask}
        for arm, chosen in sources.items():
            for carried in (True, False):
                name = f"transfer/{arm}-{'weights' if carried else 'mask'}"
                units.append(
                    _unit(
                        params,
                        transfer_tickets,
                        name,
                        seed,
                        len(chosen),
                        arm=arm,
                        target=params.transfer.data,
                        with_weights=carried,
                        chosen=chosen,
                    )
                )
        units.append(
            _unit(
                params,
                transfer_tickets,
                "transfer/dense",
                seed,
                1,
                arm="dense",
                target=params.transfer.data,
                with_weights=True,
                chosen=dense,
            )
        )
    return units


def _unit(
    params: ColtParams,
    work: Callable[..., Result],
    name: str,
    seed: int,
    trainings: int,
    **more: Any,
) -> Unit:
    used = ("levels",) if work is search_imp else ()
    arguments = {"setting": setting_of(params, *used), "seed": seed, **more}
    return Unit(f"{name}/seed-{seed}", work, arguments, one_training(params) * trainings)


def setting_of(params: ColtParams, *used: str) -> ColtSetting:
    """What every unit takes of the parameters, and of what only some units take, what is `used`."""
    return ColtSetting.of(params, "prune_from", "authors_metric", *used)


def _scoring(params: ColtParams, arm: str, seed: int, found: Result) -> Unit:
    chosen = chosen_tickets(found, params.levels)
    return _unit(params, score_tickets, f"score/{arm}", seed, len(chosen), arm=arm, chosen=chosen)
