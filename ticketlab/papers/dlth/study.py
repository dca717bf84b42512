"""The DLTH study: its arms as units, paired by seed and by mask, and their order."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

from ticketlab import models
from ticketlab.data.sets import DataSpec, load
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.params import (
    DAMAGED,
    PLAIN,
    PRESSED,
    PRETRAINED,
    Case,
    RstParams,
    draw_seed,
)
from ticketlab.papers.dlth.units import (
    train_abruptly,
    train_iteratively,
    train_plain,
    train_pressed,
    train_pretrained,
    with_length,
)
from ticketlab.spec import InputError
from ticketlab.study.bench import Bench
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.training.recipe import Step

# ---------------------------------------------------------------- the whole study


def check(params: RstParams) -> RstParams:
    """Reject parameters that do not fit each other or the data, before anything runs."""
    names = [case.name for case in params.all_cases]
    if len(set(names)) < len(names):
        raise InputError(f"others: the names {', '.join(names)} are not all different")
    if "main" in names[1:]:
        raise InputError(
            "others: a case is called 'main', allowed is any other name: metrics.json has the "
            "first case under that one"
        )
    for case in params.all_cases:
        _check_case(Bench(case.cell(params.runtime, "transform"), params.seeds[0]), case)
    return params


def _check_case(bench: Bench, case: Case) -> None:
    models.check(case.model)
    models.check(case.model, bench.data.shape)
    if not len(bench.data.validation):
        raise InputError(f"{case.name}: data.validation is 0, allowed is 1 or more")
    for recipe in (case.finetune, case.transform):
        recipe.check(len(bench.data.train), Step(0, "it"))
    for milestone in case.finetune.milestones:
        if milestone.unit != "%":
            raise InputError(f"finetune.milestones: '{milestone}', allowed are shares as '50%'")
    if strange := set(case.extra_levels) - set(case.levels):
        raise InputError(f"extra_levels: {min(strange)} is not one of levels {case.levels}")
    if case.rates and case.finetune.lr not in case.rates:
        rate = f"{case.finetune.lr:g}, the rate of finetune, is not among them"
        raise InputError(f"rates: {rate}, allowed are lists with it")
    for arm in ("scratch", "rst"):
        if arm not in case.arms_at(case.judged):
            raise InputError(
                f"{case.name}: arms: {', '.join(case.arms)}, allowed are arms with {arm!r} at "
                f"level {case.judged:g}, which others are compared with"
            )
    absent = set(case.rate_arms) - set(case.arms_at(case.judged))
    if case.rates and absent:
        raise InputError(f"rate_arms: {min(absent)!r} does not run at level {case.judged:g}")
    if (case.draws or case.extra_arms) and not case.extra_levels:
        raise InputError("extra_levels: empty, extra_arms and draws need at least one")
    algorithm.check_penalty(case.penalty, case.transform, bench.iterations(case.transform))
    if "rst-iter" in (*case.arms, *case.extra_arms):
        again = case.penalty.model_copy(
            update={"ramp": case.iterative.ramp, "every": case.iterative.every}
        )
        recipe = with_length(case.transform, case.iterative.length)
        algorithm.check_penalty(again, recipe, bench.iterations(recipe))
    _ = bench.dense  # raises InputError if `prunable` names no weight


def phases(params: RstParams) -> Phases:
    """Yield the units of the study; each phase follows from the results of those before it."""
    check(params)
    first = yield first_units(params)
    return first | (yield swap_units(params, first))


def first_units(params: RstParams) -> list[Unit]:
    """Return all units except the swap test, the decisive arms first."""
    units: list[Unit] = []
    for case in params.all_cases:
        for seed in params.seeds:
            units += _units_of(params, case, seed) + _draw_units(params, case, seed)
    return units


def _units_of(params: RstParams, case: Case, seed: int) -> list[Unit]:
    units = [_pretrained_unit(params, case, seed)]
    one, full = _finetuned(case), _transformed(case)
    make = partial(_unit, params, case, seed)
    if abrupt := case.levels_of("abrupt"):
        passes = full + one * (len(abrupt) - 1)
        units.append(make(train_abruptly, "abrupt", passes, ("transform",), levels=abrupt))
    for level in case.levels:
        arms, tag = case.arms_at(level), f"{100 * level:g}"
        for arm in arms:
            name, here = f"{arm}-{tag}", {"level": level, "arm": arm}
            if arm in PLAIN:
                longer = arm in ("warm-up", "scratch-long")
                passes, used = (full, ("transform",)) if longer else (one, ())
                units.append(make(train_plain, name, passes, used, **here))
            if arm in PRESSED:
                damaged = [a for a in arms if a in DAMAGED] if arm == "rst" else []
                passes = full * (1 + len(damaged))
                more = {"mask_seed": seed, "damaged": damaged}
                units.append(make(train_pressed, name, passes, PRESSING, **here, **more))
            if arm == "rst-iter":
                units.append(make(train_iteratively, name, full, ITERATING, level=level))
    return units


ITERATING = ("transform", "penalty", "iterative")
PRESSING = ("transform", "penalty", "looks")
"""Parameters of a case that decide the units of RST's arms, besides those of all units."""


def _pretrained_unit(params: RstParams, case: Case, seed: int) -> Unit:
    """Return the unit of the dense net and the arms that start from it."""
    arms = [(lv, [a for a in case.arms_at(lv) if a in PRETRAINED]) for lv in case.levels]
    names = [arm for _, each in arms for arm in each]
    trainings = 1 + len(names) + names.count("lth-iter") * _lth_cost(case)
    used = (
        *(("lth_iter",) if "lth-iter" in names else ()),
        *(("early_bird",) if "early-bird" in names else ()),
    )
    passes = _finetuned(case) * trainings
    return _unit(params, case, seed, train_pretrained, "pretrained", passes, used, arms=arms)


def _draw_units(params: RstParams, case: Case, seed: int) -> list[Unit]:
    """C11: further masks on the seed's initialisation, and initialisations under its mask."""
    units = []
    for draw in range(1, case.draws):
        other = draw_seed(seed, draw)
        for name, own, mask_seed in (("mask", seed, other), ("init", other, seed)):
            more = {"arm": "rst", "level": case.extra_levels[0], "mask_seed": mask_seed}
            name, passes = f"draw-{name}-{draw}", _transformed(case)
            units.append(_unit(params, case, own, train_pressed, name, passes, PRESSING, **more))
    return units


def swap_units(params: RstParams, first: Mapping[str, Result]) -> list[Unit]:
    """Return RST under LTH's mask, once the dense nets have been trained."""
    units = []
    for case, seed in product(params.cases, params.seeds):
        dense = first[f"{case.name}/pretrained/seed-{seed}"]
        for level in case.levels_of("rst-lth-mask"):
            tag = f"{100 * level:g}"
            more = {"arm": "rst-lth-mask", "level": level, "mask_seed": seed}
            mask, name = dense.tickets[f"lth-{tag}"].mask, f"rst-lth-mask-{tag}"
            units.append(
                _unit(
                    params,
                    case,
                    seed,
                    train_pressed,
                    name,
                    _transformed(case),
                    PRESSING,
                    mask=mask,
                    **more,
                )
            )
    return units


def _unit(
    params: RstParams,
    case: Case,
    seed: int,
    work: Callable[..., Result],
    name: str,
    passes: float,
    used: Sequence[str],
    **more: Any,
) -> Unit:
    arguments = {"cell": case.cell(params.runtime, *used), "seed": seed, **more}
    return Unit(f"{case.name}/{name}/seed-{seed}", work, arguments, passes)


@cache
def _train_images(data: DataSpec) -> int:
    return len(load(data).train)


def _finetuned(case: Case) -> float:
    return case.finetune.passes(_train_images(case.data))


def _transformed(case: Case) -> float:
    return _finetuned(case) + case.transform.passes(_train_images(case.data))


def _lth_cost(case: Case) -> float:
    """Return the cost of LTH-Iter's search, in finetunings."""
    recipe = with_length(case.finetune, case.lth_iter.length)
    search = case.lth_iter.cycles * recipe.passes(_train_images(case.data))
    return search / _finetuned(case)
