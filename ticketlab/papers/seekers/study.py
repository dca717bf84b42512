"""Units of the study of newer seekers; none depends on another one's result."""

from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.units import PlantBench, pop
from ticketlab.papers.seekers import units
from ticketlab.papers.seekers.algorithm.crowd import check_room
from ticketlab.papers.seekers.params import (
    Crowds,
    GateMother,
    SeekersParams,
    check_budget,
    check_crowds,
)
from ticketlab.pruning import saliency
from ticketlab.study.runner import Phases, Unit


def check(params: SeekersParams) -> SeekersParams:
    """Reject parameters that fail only when tickets are planted, before anything runs."""
    check_budget(params)
    check_crowds(params)
    for task in params.tasks:
        bench = PlantBench(params.planting(), params.case(task), params.seeds[0])
        check_room(stacks.widths(algorithm.target(task, params.depth)), bench.shape, 1)
        for wanted in params.densities:
            saliency.kept_at(bench.dense().total, bench.density(wanted))
    for crowds in params.crowds:
        bench = PlantBench(params.planting(), params.case(crowds.task), params.seeds[0])
        target = algorithm.target(crowds.task, params.depth)
        check_room(stacks.widths(target), bench.shape, crowds.most)
        saliency.kept_at(bench.dense().total, crowds.most * bench.density("gt"))
    return params


def phases(params: SeekersParams) -> Phases:
    """Yield all units at once."""
    return (yield planned(params)[0])


def planned(params: SeekersParams) -> list[list[Unit]]:
    """Return the units of the study, in one phase."""
    check(params)
    found: list[Unit] = []
    for seed in params.seeds:
        for task in params.tasks:
            found += single_units(params, task, "planted", seed)
        for task in params.bare:
            found += single_units(params, task, "unplanted", seed)
        for crowds in params.crowds:
            found += crowd_units(params, crowds, seed)
    return [found]


def single_units(params: SeekersParams, task: str, mother: GateMother, seed: int) -> list[Unit]:
    """Return edge-popup and gates in one mother with one ticket or none, at equal budget."""
    case = params.case(task)
    common = {"params": params.planting(), "case": case, "seed": seed, "mother": mother,
              "densities": params.densities}  # fmt: skip
    place = f"{case.name}/{mother}/seed-{seed}"
    steps = params.train * len(params.densities)
    popup = {"head": "linear", "variant": "annealed"}
    return [
        Unit(f"popup/{place}", pop, common | popup, 3.0 * steps * params.popup.epochs),
        Unit(f"gates/{place}", units.gate, common | {"gates": params.gates},
             5.0 * steps * params.gates.epochs),
    ]  # fmt: skip


def crowd_units(params: SeekersParams, crowds: Crowds, seed: int) -> list[Unit]:
    """Return the searches in the mothers of one task, by how many tickets they have."""
    case, multiples = params.case(crowds.task), tuple(sorted({1, crowds.most}))
    nets = len(params.methods) * len(multiples)
    epochs = {"singleshot": nets * params.fit.epochs}
    rounds = (nets * (params.rounds - 1) + 1) * params.round_epochs
    epochs["multishot"] = epochs["singleshot"] + rounds
    found = []
    for copies in crowds.copies:
        common = {"params": params.planting(), "case": case, "seed": seed, "copies": copies,
                  "multiples": multiples}  # fmt: skip
        place = f"{case.name}/{copies}-tickets/seed-{seed}"
        for regime in ("singleshot", "multishot") if params.methods else ():
            if regime == "singleshot" or copies in crowds.searched:
                more = {"regime": regime, "methods": params.methods}
                passes = float(params.train * epochs[regime])
                found.append(Unit(f"{regime}/{place}", units.seek_weak, common | more, passes))
        if copies in crowds.searched:
            passes = 8.0 * params.train * len(multiples) * params.popup.epochs
            arguments = common | {"gates": params.gates}
            found.append(Unit(f"untrained/{place}", units.seek_strong, arguments, passes))
    return found
