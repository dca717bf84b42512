"""The Plant 'n' Seek study: which units its grids ask for."""

from itertools import product
from pathlib import Path

from ticketlab import fleet, gpu, planting, saliency, stacked
from ticketlab.fleet import Unit
from ticketlab.planting_arms import Bench, audit_planting, pop, prune_and_train
from ticketlab.planting_params import Case, Grid, PlantParams, cases
from ticketlab.results import Result
from ticketlab.spec import InputError


def check(params: PlantParams) -> PlantParams:
    """Refuse what can only be seen by building the targets, before anything runs."""
    for grid in params.grids:
        for case in cases(grid):
            bench = Bench(params, case, params.seeds[0])
            need = max(stacked.widths(planting.target(case.task, case.depth))[1:-1])
            if need > case.width:
                raise InputError(f"widths: {case.width}, the {case.task} ticket needs {need}")
            for wanted in grid.densities:
                saliency.kept_at(bench.dense().total, bench.density(wanted))
    return params


def study(params: PlantParams, folder: Path) -> dict[str, Result]:
    """Every unit of the study by name; finished units found in `folder` are not run again."""
    check(params)
    return fleet.run(units(params), folder, gpu.worker_count(params.runtime))


def expected_passes(params: PlantParams) -> float:
    """Sample passes of the whole study."""
    return fleet.expected_passes(units(params))


def units(params: PlantParams) -> list[Unit]:
    """All units: a regime, mother and seed each; edge-popup by head."""
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
        epochs = params.fit.epochs + params.rounds * params.round_epochs * (regime == "multishot")
        nets = len(methods) * len(grid.densities) + 6 * controls
        arguments = {
            "params": shared(params), "case": case, "seed": seed, "mother": mother,
            "regime": regime, "methods": methods, "densities": grid.densities, "controls": controls,
        }  # fmt: skip
        name = f"{regime}/{case.name}/{mother}/seed-{seed}"
        made.append(Unit(name, prune_and_train, arguments, params.train * nets * epochs))
    return made


def _popup_units(params: PlantParams, grid: Grid, case: Case, seed: int) -> list[Unit]:
    made = []
    for mother, head, variant in product(grid.mothers, grid.heads, grid.popup):
        arguments = {
            "params": shared(params), "case": case, "seed": seed, "mother": mother,
            "head": head, "variant": variant, "densities": grid.densities,
        }  # fmt: skip
        cost = 3.0 * params.train * len(grid.densities) * params.popup.epochs
        name = f"popup/{case.name}/{head}/{mother}-{variant}/seed-{seed}"
        made.append(Unit(name, pop, arguments, cost))
    return made


def _audit_units(params: PlantParams) -> list[Unit]:
    chosen = {case.name: case for grid in params.grids if grid.controls for case in cases(grid)}
    made = []
    for name, case in chosen.items():
        arguments = {"params": shared(params), "case": case, "audits": params.audits}
        made.append(Unit(f"audit/{name}", audit_planting, arguments, 3e4 * params.audits))
    return made


def shared(params: PlantParams) -> PlantParams:
    """The parameters without grids and seeds: a unit must not be redone for another's sake."""
    return params.model_copy(update={"grids": (Grid(tasks=("relu",)),), "seeds": (0,), "audits": 1})
