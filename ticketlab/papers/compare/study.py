"""Units of the comparison, and how they depend on each other."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ticketlab import gpu, plugins
from ticketlab.data.sets import DataSpec, load
from ticketlab.papers.colt.algorithm import chance_rate, rounds_to
from ticketlab.papers.compare.params import (
    Bed,
    CompareParams,
    check,
    methods_of,
    name_of,
    own_weights,
    ticket_name,
)
from ticketlab.papers.compare.units import train_long, train_method, train_swapped
from ticketlab.pruning.masks import Mask, shuffle_layerwise
from ticketlab.study.bench import Setting
from ticketlab.study.results import Result
from ticketlab.study.retrain import train_dense
from ticketlab.study.runner import Phases, Unit
from ticketlab.training.recipe import Recipe, Step


def phases(params: CompareParams) -> Phases:
    """Yield the units of the study; each phase follows from the results of those before it."""
    check(params)
    found = yield method_units(params)
    return found | (yield follow_up_units(params, found))


# ---------------------------------------------------------------- units


def method_units(params: CompareParams) -> list[Unit]:
    """Return the dense net and every method that needs no other method's result."""
    units = []
    for place, bed in enumerate(params.beds):
        for seed in params.seeds:
            units.append(_dense_unit(params, bed, seed))
            for method in methods_of(params):
                if method != "imp-matched":
                    cost = len(levels_of(params, bed, method)) + searched(params, bed, method)
                    units.append(
                        _unit(params, place, seed, train_method, method, cost, method=method)
                    )
    return units


def follow_up_units(params: CompareParams, found: Mapping[str, Result]) -> list[Unit]:
    """Return units that need finished searches: matched IMP, equal-cost controls, the swap."""
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
            if seed in params.seeds[: params.swap_seeds]:
                units += swap_units(params, place, seed, found)
    return units


def long_units(
    params: CompareParams, place: int, seed: int, found: Mapping[str, Result]
) -> list[Unit]:
    """A method's mask trained on as many images as another method used, at the highest level."""
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
    """Masks on other weights than their own, except those that a search has already trained."""
    bed, units = params.beds[place], []
    masks = {method: _last_mask(found, bed, method, seed) for method in params.swap_masks}
    for weights in params.swap_weights:
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
    """Return whether a method's own tickets have these weights (RST's are the random mask's)."""
    if method == "imp-shuffled":
        return False
    if weights in ("rst", "rst-other"):
        return method == "random"
    return weights == own_weights(method, params.rewind)


def levels_of(params: CompareParams, bed: Bed, method: str) -> tuple[float, ...]:
    """Return the sparsities of a method's tickets; IMP also scores its first round, a control."""
    return tuple(sorted({params.light, *bed.levels})) if method == "imp" else bed.levels


def _last_mask(found: Mapping[str, Result], bed: Bed, method: str, seed: int) -> Mask:
    if method == "imp-shuffled":
        random = gpu.generator("cpu", seed, "shuffle", bed.name)
        return shuffle_layerwise(_last_mask(found, bed, "imp", seed), random)
    return found[name_of(bed, method, seed)].tickets[ticket_name(bed.levels[-1])].mask


def _unit(
    params: CompareParams, place: int, seed: int, work: Any, what: str, cost: float, **more: Any
) -> Unit:
    bed = params.beds[place]
    which = more.get("method", more.get("weights", ""))
    used = ("probe",) if plugins.is_plugin(which) else USED.get(which, ())
    levels = levels_of(params, bed, which)
    setting = params.setting(bed, *used).model_copy(update={"levels": levels})
    arguments = {"setting": setting, "seed": seed, **more}
    return Unit(name_of(bed, what, seed), work, arguments, cost * one_training(params, bed))


def _dense_unit(params: CompareParams, bed: Bed, seed: int) -> Unit:
    """Return the dense net's unit, which all papers with this setting share."""
    setting = Setting.of(params.setting(bed), rewind=Step(0, "it"))
    arguments = {"setting": setting, "seed": seed}
    return Unit(name_of(bed, "dense", seed), train_dense, arguments, one_training(params, bed))


SEARCHED = ("rate", "max_rounds")
PRESSED = ("transform", "penalty")
USED: Mapping[str, tuple[str, ...]] = {
    "snip": ("probe",),
    "grasp": ("probe",),
    "synflow": ("synflow_rounds",),
    "imp": SEARCHED,
    "imp-again": SEARCHED,
    "colt": ("rate", "max_rounds", "partitions"),
    "prac": ("rate", "max_rounds", "shorten", "threshold", "stop", "least_iterations"),
    "rst": PRESSED,
    "rst-other": PRESSED,
    "rewound": ("swap_rewind",),
}
"""Additional parameters that decide a method's units, or those of a column of the swap."""


# ---------------------------------------------------------------- planned work


def one_training(params: CompareParams, bed: Bed) -> int:
    """Return the images seen by one training."""
    return _passes(bed.recipe, params.data)


@cache
def _passes(recipe: Recipe, data: DataSpec) -> int:
    return recipe.passes(len(load(data).train))


def searched(params: CompareParams, bed: Bed, method: str) -> float:
    """Return the approximate cost of a method's search, in trainings of the net."""
    top = bed.levels[-1]
    rounds = rounds_to(top, params.rate)
    fast = rounds_to(top, (params.rate + chance_rate(params.rate, params.partitions)) / 2)
    pressed = _passes(bed.transform, params.data) / one_training(params, bed)
    return {
        "imp": rounds,
        "imp-again": rounds,
        "prac": 0.6 * rounds,
        "colt": fast,
        "imp-matched": fast,
        "rst": pressed * len(bed.levels),
    }.get(method, 0.0)
