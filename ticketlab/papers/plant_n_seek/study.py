"""Units of the Plant 'n' Seek study, from its grids."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from ticketlab import plugins
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.conv import units as conv_units
from ticketlab.papers.plant_n_seek.params import Case, ConvSetting, Grid, PlantParams, cases
from ticketlab.papers.plant_n_seek.units import PlantBench, audit_planting, pop, prune_and_train
from ticketlab.pruning import saliency
from ticketlab.spec import InputError
from ticketlab.study import runner
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit


def check(params: PlantParams) -> PlantParams:
    """Reject parameters that fail only when the targets are built, before anything runs."""
    for grid in params.grids:
        for case in cases(grid):
            bench = PlantBench(params, case, params.seeds[0])
            need = max(stacks.widths(algorithm.target(case.task, case.depth))[1:-1])
            if need > case.width:
                raise InputError(f"widths: {case.width}, the {case.task} ticket needs {need}")
            for wanted in grid.densities:
                saliency.kept_at(bench.dense().total, bench.density(wanted))
    if params.conv is not None:
        whole = conv_setting(params).model_copy(update={"conv": params.conv})
        conv_units.check(whole)
    return params


def phases(params: PlantParams) -> Phases:
    """Yield the units of the study; each phase follows from the results of those before it."""
    check(params)
    found = yield [*conv_ticket_units(params), *units(params)]
    return found | (yield units_on_tickets(params, found))


def planned(params: PlantParams) -> list[list[Unit]]:
    """Return the units of the study by phase; those on trained tickets have no ticket yet."""
    on_tickets = [
        Unit(f"conv/{name}/seed-{seed}", work, more, cost)
        for seed in conv_seeds(params)
        for name, work, more, cost in _conv_work(params)
    ]
    return [[*conv_ticket_units(params), *units(params)], on_tickets]


def conv_passes(params: PlantParams) -> dict[str, float]:
    """Return the image passes of the convolutional part by what trains: the ticket's own net, the
    mother, or edge-popup in the mother."""
    found = {
        "ticket": runner.expected_passes(conv_ticket_units(params)),
        "mother": 0.0,
        "popup": 0.0,
    }
    for _, work, more, cost in _conv_work(params):
        own_net = more.get("arm") in conv_units.OWN_NET
        trained = "popup" if work is conv_units.pop_all else "ticket" if own_net else "mother"
        found[trained] += len(conv_seeds(params)) * cost
    return found


def units(params: PlantParams) -> list[Unit]:
    """Return all units of the grids, one per regime, mother and seed; edge-popup per head."""
    made: list[Unit] = []
    for grid in params.grids:
        for case, seed in product(cases(grid), grid.seeds or params.seeds):
            made += _pruning_units(params, grid, case, seed)
            made += _popup_units(params, grid, case, seed)
    made += _audit_units(params)
    names = [unit.name for unit in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"grids: {twice[0]} is in two grids, allowed is one")
    return made


def _pruning_units(params: PlantParams, grid: Grid, case: Case, seed: int) -> list[Unit]:
    made = []
    regimes = {"singleshot": grid.singleshot, "multishot": grid.multishot}
    for mother, (regime, methods) in product(grid.mothers, regimes.items()):
        controls = grid.controls and regime == "singleshot" and mother == "planted"
        if not methods and not controls:
            continue
        nets = len(methods) * len(grid.densities) + 6 * controls
        epochs = nets * params.fit.epochs * grid.trained
        if regime == "multishot":  # all arms share one dense net in its first round
            epochs += (nets * (params.rounds - 1) + 1) * params.round_epochs
        arguments = {
            "params": shared(params),
            "case": case,
            "seed": seed,
            "mother": mother,
            "regime": regime,
            "methods": methods,
            "densities": grid.densities,
            "controls": controls,
            "trained": grid.trained,
        }
        name = f"{regime}/{case.name}/{mother}/seed-{seed}"
        made.append(Unit(name, prune_and_train, arguments, params.train * epochs))
    return made


def _popup_units(params: PlantParams, grid: Grid, case: Case, seed: int) -> list[Unit]:
    made = []
    for mother, head, variant in product(grid.mothers, grid.heads, grid.popup):
        arguments = {
            "params": shared(params),
            "case": case,
            "seed": seed,
            "mother": mother,
            "head": head,
            "variant": variant,
            "densities": grid.densities,
        }
        cost = 3.0 * params.train * len(grid.densities) * params.popup.epochs
        name = f"popup/{case.name}/{head}/{mother}-{variant}/seed-{seed}"
        made.append(Unit(name, pop, arguments, cost))
    return made


def _audit_units(params: PlantParams) -> list[Unit]:
    """Return the audits of the cells of the first grid with controls."""
    grid = next((grid for grid in params.grids if grid.controls), None)
    made = []
    for case in cases(grid) if grid else ():
        arguments = {"params": shared(params), "case": case, "audits": params.audits}
        made.append(Unit(f"audit/{case.name}", audit_planting, arguments, 3e4 * len(params.audits)))
    return made


def shared(params: PlantParams) -> PlantParams:
    """Return the parameters without grids and seeds, so that units do not depend on others."""
    no_grid = (Grid(tasks=("relu",)),)
    return params.model_copy(update={"grids": no_grid, "seeds": (0,), "audits": (), "conv": None})


# ---------------------------------------------------------------- the convolutional part


def conv_seeds(params: PlantParams) -> tuple[int, ...]:
    """Return the seeds of the convolutional part."""
    return () if params.conv is None else params.conv.seeds or params.seeds


def conv_setting(params: PlantParams) -> ConvSetting:
    """Return the parameters for units of the convolutional part, without the list of arms."""
    if params.conv is None:
        raise InputError("conv: None, the study has no convolutional part")
    blank = {
        "seeds": None,
        "mothers": ("planted",),
        "densities": ("gt",),
        "singleshot": (),
        "multishot": (),
        "popup": (),
        "gains": ("none",),
        "popup_densities": ("gt",),
        "controls": False,
    }
    return ConvSetting(
        conv=params.conv.model_copy(update=blank),
        score_rounds=params.score_rounds,
        as_released=params.as_released,
        runtime=params.runtime,
    )


def conv_ticket_units(params: PlantParams) -> list[Unit]:
    """Return the trainings of the tickets that will be planted."""
    if params.conv is None:
        return []
    setting = conv_setting(params)
    cost = conv_units.passes(setting, "multishot", 1)
    return [
        Unit(
            f"conv/ticket/seed-{seed}",
            conv_units.train_ticket,
            {"setting": setting, "seed": seed},
            cost,
        )
        for seed in conv_seeds(params)
    ]


def units_on_tickets(params: PlantParams, tickets: Mapping[str, Result]) -> list[Unit]:
    """Return the units that need a trained ticket: planting, every search, the controls."""
    made = []
    for seed in conv_seeds(params):
        ticket = conv_units.known(tickets[f"conv/ticket/seed-{seed}"].tickets["ticket"])
        common = {"setting": conv_setting(params), "seed": seed, "found": ticket}
        for name, work, more, cost in _conv_work(params):
            made.append(Unit(f"conv/{name}/seed-{seed}", work, common | more, cost))
    return made


def _conv_work(params: PlantParams) -> list[tuple[str, Any, dict[str, Any], float]]:
    """Return name, function, arguments and passes of all work per seed."""
    if params.conv is None:
        return []
    conv, setting = params.conv, conv_setting(params)
    made: list[tuple[str, Any, dict[str, Any], float]] = [("plant", conv_units.plant, {}, 0.0)]
    regimes = {"singleshot": conv.singleshot, "multishot": conv.multishot}
    for mother, (regime, methods) in product(conv.mothers, regimes.items()):
        cost = conv_units.passes(setting, regime, len(conv.densities))
        for method in methods:
            more = {
                "mother": mother,
                "regime": regime,
                "method": method,
                "densities": conv.densities,
            }
            name = f"{regime}/{mother}/{plugins.slug(method)}"
            made.append((name, conv_units.seek, more, cost))
    cost = conv_units.passes(setting, "popup", len(conv.popup_densities))
    for mother, gain, variant in product(conv.mothers, conv.gains, conv.popup):
        more = {
            "mother": mother,
            "variant": variant,
            "gain": gain,
            "densities": conv.popup_densities,
        }
        made.append((f"popup-{gain}/{mother}/{variant}", conv_units.pop_all, more, cost))
    cost = conv_units.passes(setting, "singleshot", 1)
    for arm in conv_units.CONTROLS if conv.controls else ():
        made.append((f"controls/{arm}", conv_units.control, {"arm": arm}, cost))
    return made
