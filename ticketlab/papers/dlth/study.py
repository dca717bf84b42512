"""The DLTH study: its arms as units, paired by seed and by mask, and the order they run in."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from ticketlab import gpu, models
from ticketlab.data.sets import Batches, DataSpec, load
from ticketlab.papers.dlth import algorithm, controls
from ticketlab.papers.dlth.controls import EarlyBird
from ticketlab.papers.dlth.params import (
    DAMAGED,
    PLAIN,
    POWERS,
    PRESSED,
    PRETRAINED,
    WATCHED,
    Case,
    RstParams,
    draw_seed,
)
from ticketlab.papers.dlth.units import Bench, Work, with_length
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.patterns import DENSE
from ticketlab.spec import InputError
from ticketlab.study import runner
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.training.loop import Net, Recipe, Step, evaluate, train

# ---------------------------------------------------------------- units


def train_plain(params: RstParams, place: int, seed: int, arm: str, level: float) -> Result:
    """A random mask on the initial weights: Scratch, its equal-budget form, masked warm-up."""
    bench = Bench(params, place, seed)
    work = Work.begin(bench, arm, level)
    mask = bench.mask(work.net, level, arm)
    if arm == "warm-up":
        work.train(bench.case.transform, "transform", mask)
    row = work.finish(mask, bench.longer() if arm == "scratch-long" else None)
    return Result({"rows": [row]})


def train_abruptly(params: RstParams, place: int, seed: int) -> Result:
    """The transformation without a penalty, then removal: once for all levels of the arm."""
    bench = Bench(params, place, seed)
    levels = bench.case.levels_of("abrupt")
    first = Work.begin(bench, "abrupt", levels[0])
    masks = {level: bench.mask(first.net, level) for level in levels}
    first.train(bench.case.transform, "transform")
    state, rows = first.net.state(), []
    for level, mask in masks.items():
        work = first.at("abrupt", level)
        work.net.rewind(state)
        work.remove(mask)
        rows.append(work.finish(mask))
    return Result({"rows": rows})


def train_pressed(
    params: RstParams,
    place: int,
    seed: int,
    arm: str,
    level: float,
    mask_seed: int,
    mask: Mask | None = None,
) -> Result:
    """RST under the arm's mask, and the damaged forms of its ticket.

    A given `mask` is that of the trained dense net, which the arm pays for.
    """
    bench = Bench(params, place, seed)
    work = Work.begin(bench, arm, level)
    start = work.net.state()
    if mask is not None:
        work.charge(bench.case.finetune.passes(len(bench.data.train)), None)
    mask = mask or bench.mask(work.net, level, arm, mask_seed)
    work.facts = {"mask_seed": mask_seed, "init_ratio": algorithm.weight_ratio(start, mask)}
    looks = press(work, mask)
    work.remove(mask)
    ticket = work.net.state()
    wanted = [a for a in bench.case.arms_at(level) if a in DAMAGED]
    damaged = wanted if arm == "rst" and mask_seed == seed else []
    rows = [work.at(arm, level).finish(mask)]
    for damage in damaged:
        state, places = damage_ticket(bench, damage, ticket, mask)
        work.net.rewind(state)
        hurt = work.at(damage, level)
        hurt.facts = {}
        rows.append(hurt.finish(places))
    here = {"case": bench.case.name, "arm": arm, "seed": seed, "mask_seed": mask_seed}
    record = {"rows": rows, "looks": [here | {"level": level} | look for look in looks]}
    return Result(record, {"ticket": bench.ticket(arm, level, mask, ticket, start)})


def press(work: Work, mask: Mask) -> list[dict[str, float]]:
    """The transformation of an RST arm; its looks (if watched), with lambda of the step before."""
    case, data, penalty = work.bench.case, work.bench.data, penalty_of(work.bench.case, work.arm)
    every = max(1, work.bench.iterations(case.transform) // case.looks)
    watch = algorithm.Watch(mask, data.validation, data, every)
    further = work.facts.get("mask_seed", work.bench.seed) != work.bench.seed  # a draw for C11
    watched = [watch] if work.arm in WATCHED and not further else []
    work.train(case.transform, "transform", penalty=(mask, penalty), observers=watched)
    trace = [0.0, *algorithm.strengths(penalty).tolist()]
    return [
        look | {"lambda": trace[min(int(look["iteration"]), len(trace) - 1)]}
        for look in watch.looks
    ]


def penalty_of(case: Case, arm: str) -> algorithm.Penalty:
    """The case's penalty, under the arm's own schedule where it has one."""
    return case.penalty.model_copy(update={"power": POWERS.get(arm, case.penalty.power)})


def damage_ticket(bench: Bench, damage: str, ticket: State, mask: Mask) -> tuple[State, Mask]:
    """A transformed ticket shuffled within layers, drawn anew, or reduced to signs.

    A seed has one permutation of each layer, for all levels, as it has one initialisation.
    """
    if damage == "shuffled":
        return controls.shuffled(ticket, mask, gpu.generator("cpu", bench.seed, "shuffle"))
    if damage == "reinit":
        return controls.reinitialised(ticket, bench.net("reinit").state(), mask), mask
    return controls.only_signs(ticket, mask), mask


def train_iteratively(params: RstParams, place: int, seed: int, level: float) -> Result:
    """RST-Iter: the mask grows over cycles, the penalty restarts in each, then finetuning."""
    bench = Bench(params, place, seed)
    work, how = Work.begin(bench, "rst-iter", level), bench.case.iterative
    recipe = with_length(bench.case.transform, how.length)
    penalty = bench.case.penalty.model_copy(update={"ramp": how.ramp, "every": how.every})

    def press_cycle(cycle: int, mask: Mask) -> State:
        work.train(recipe, f"cycle-{cycle}", penalty=(mask, penalty))
        return work.net.state()

    dense, random = bench.dense_mask(work.net), gpu.generator("cpu", "grow", level, seed)
    masks = list(
        algorithm.transform_iteratively(press_cycle, dense, level, how.cycles, random, how.leak)
    )
    work.remove(masks[-1])
    return Result({"rows": [work.finish(masks[-1])]})


def train_pretrained(params: RstParams, place: int, seed: int) -> Result:
    """The dense net, and at all levels the arms that start from training it."""
    bench = Bench(params, place, seed)
    work = Work.begin(bench, "dense", 0.0)
    start, dense = work.net.state(), bench.dense_mask(work.net)
    birds = early_birds(bench, dense)
    work.train(bench.case.finetune, "finetune", observers=list(birds.values()))
    trained = work.net.state()
    rows, tickets = [_dense_row(work, dense)], {}
    for level in bench.case.levels:
        mask = algorithm.magnitude_mask(trained, dense, level)
        tickets[f"lth-{100 * level:g}"] = bench.ticket("lth", level, mask, start, start, DENSE)
        for arm in bench.case.arms_at(level):
            if arm in PRETRAINED:
                rows.append(_pretrained_row(work.at(arm, level), mask, start, trained, birds))
    return Result({"rows": rows}, tickets)


def early_birds(bench: Bench, dense: Mask) -> dict[float, EarlyBird]:
    """An observer for each level of the arm."""
    how = bench.case.early_bird
    every = how.every.iterations(*bench.case.finetune.iterations(len(bench.data.train)))
    return {
        level: EarlyBird(dense, level, every, how.threshold, how.queue)
        for level in bench.case.levels_of("early-bird")
    }


def _dense_row(work: Work, dense: Mask) -> dict[str, Any]:
    data = work.bench.data
    test = evaluate(work.net, data.test, Batches(data.test, data))
    return work.head(dense) | {
        "images": work.images,
        "dense_flops": work.dense_flops,
        "sparse_flops": work.sparse_flops,
        "last_accuracy": 100 * test.accuracy,
        "last_loss": test.loss,
        "validation_accuracy": work.accuracy(),
        "mask_sha256": dense.digest(),
        "intact": True,
    }


def _pretrained_row(
    work: Work, mask: Mask, start: State, trained: State, birds: Mapping[float, EarlyBird]
) -> dict[str, Any]:
    """One arm after dense training: `mask` is the layer-wise magnitude mask of `trained`."""
    if work.arm == "l1":
        work.net.rewind(trained)
        work.remove(mask)
        return work.finish(mask)
    if work.arm == "early-bird":
        bird = birds[work.level]
        work.images, work.dense_flops, work.sparse_flops = 0, 0.0, 0.0
        drawn = with_length(work.bench.case.finetune, Step(bird.iteration, "it"))
        work.charge(drawn.passes(len(work.bench.data.train)), None)
        work.facts = {"settled": bird.settled, "drawn_at": bird.iteration}
        work.net.rewind(bird.state)
        return work.finish(bird.ticket)
    if work.arm == "lth-iter":
        mask = _iterated(work, start)
    work.net.rewind(start)
    return work.finish(mask)


def _iterated(work: Work, start: State) -> Mask:
    """The mask of LTH-Iter, its cost charged from zero: it does not use the dense run."""
    how, bench = work.bench.case.lth_iter, work.bench
    recipe = with_length(bench.case.finetune, how.length)
    work.images, work.dense_flops, work.sparse_flops = 0, 0.0, 0.0

    def train_masked(mask: Mask) -> State:
        work.net.rewind(start)
        work.train(recipe, "lth-iter", mask)
        return work.net.state()

    dense = bench.dense_mask(work.net)
    return controls.iterative_magnitude(train_masked, dense, work.level, how.cycles)


def watch_finetuning(
    bench: Bench, net: Net, mask: Mask, recipe: Recipe, looks: int
) -> list[dict[str, float]]:
    """Finetune the net in place from where it stands, with about `looks` looks on the way."""
    data, every = bench.data, max(1, bench.iterations(recipe) // looks)
    algorithm.remove(net, mask)
    watch, order = algorithm.Watch(mask, data.validation, data, every), (bench.seed, "finetune")
    train(net, data.train, data, recipe, seed=order, mask=mask, observers=[watch])
    return watch.looks


# ---------------------------------------------------------------- the whole study


def check(params: RstParams) -> RstParams:
    """Refuse what can only be seen across parameters and data, before anything runs."""
    names = [case.name for case in params.cases]
    if len(set(names)) < len(names):
        raise InputError(f"others: the names {', '.join(names)} are not all different")
    for place, case in enumerate(params.cases):
        _check_case(Bench(params, place, params.seeds[0]), case)
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
    if (case.draws or case.extra_arms) and not case.extra_levels:
        raise InputError("extra_levels: empty, extra_arms and draws need at least one")
    algorithm.check_penalty(case.penalty, case.transform, bench.iterations(case.transform))
    if "rst-iter" in (*case.arms, *case.extra_arms):
        again = case.penalty.model_copy(
            update={"ramp": case.iterative.ramp, "every": case.iterative.every}
        )
        recipe = with_length(case.transform, case.iterative.length)
        algorithm.check_penalty(again, recipe, bench.iterations(recipe))
    if not len(bench.dense_mask(bench.net())):
        raise InputError(f"prunable: {case.prunable!r} leaves {case.model.name} nothing to mask")


def phases(params: RstParams) -> Phases:
    """The units of the study; each phase follows from the results of those before it."""
    check(params)
    first = yield first_units(params)
    return first | (yield swap_units(params, first))


def expected_passes(params: RstParams) -> float:
    """Image passes the study will take; early-bird and masks to come counted in full."""
    units = first_units(params)
    swaps = sum(
        _transformed(c) * len(params.seeds)
        for c in params.cases
        for level in c.levels
        if "rst-lth-mask" in c.arms_at(level)
    )
    return runner.expected_passes(units) + swaps


def first_units(params: RstParams) -> list[Unit]:
    """Everything but the swap test, the decisive arms first."""
    units: list[Unit] = []
    for place, case in enumerate(params.cases):
        for seed in params.seeds:
            units += _units_of(params, place, case, seed)
        units += _draw_units(params, place, case)
    return units


def _units_of(params: RstParams, place: int, case: Case, seed: int) -> list[Unit]:
    make = partial(_unit, params, place, case, seed=seed)
    one, full = _finetuned(case), _transformed(case)
    trainings = 1 + sum(
        {"lth-iter": 1 + _lth_cost(case)}.get(arm, 1)
        for level in case.levels
        for arm in case.arms_at(level)
        if arm in PRETRAINED
    )
    units = [make(train_pretrained, "pretrained", one * trainings)]
    if abrupt := case.levels_of("abrupt"):
        units.append(make(train_abruptly, "abrupt", full + one * (len(abrupt) - 1)))
    for level in case.levels:
        arms, tag = case.arms_at(level), f"{100 * level:g}"
        damage = one * sum(arm in DAMAGED for arm in arms)
        for arm in arms:
            here: dict[str, Any] = {"level": level, "arm": arm}
            if arm in PLAIN:
                passes = one if arm.startswith("scratch") and arm != "scratch-long" else full
                units.append(make(train_plain, f"{arm}-{tag}", passes, **here))
            if arm in PRESSED:
                extra = damage if arm == "rst" else 0.0
                units.append(
                    make(train_pressed, f"{arm}-{tag}", full + extra, mask_seed=seed, **here)
                )
            if arm == "rst-iter":
                units.append(make(train_iteratively, f"{arm}-{tag}", full, level=level))
    return units


def _draw_units(params: RstParams, place: int, case: Case) -> list[Unit]:
    """C11: more masks on the first seed's initialisation, more initialisations under its mask."""
    first, units = params.seeds[0], []
    for draw in range(1, case.draws):
        other = draw_seed(draw)
        for name, seed, mask_seed in (("mask", first, other), ("init", other, first)):
            units.append(
                _unit(
                    params,
                    place,
                    case,
                    train_pressed,
                    f"draw-{name}-{draw}",
                    _transformed(case),
                    seed=seed,
                    mask_seed=mask_seed,
                    level=case.extra_levels[0],
                    arm="rst",
                )
            )
    return units


def swap_units(params: RstParams, first: Mapping[str, Result]) -> list[Unit]:
    """LTH's mask inside RST, once the dense nets have been trained."""
    units = []
    for place, case in enumerate(params.cases):
        for seed in params.seeds:
            dense = first[f"{case.name}/pretrained/seed-{seed}"]
            for level in case.levels:
                if "rst-lth-mask" not in case.arms_at(level):
                    continue
                tag = f"{100 * level:g}"
                units.append(
                    _unit(
                        params,
                        place,
                        case,
                        train_pressed,
                        f"rst-lth-mask-{tag}",
                        _transformed(case),
                        seed=seed,
                        mask_seed=seed,
                        arm="rst-lth-mask",
                        level=level,
                        mask=dense.tickets[f"lth-{tag}"].mask,
                    )
                )
    return units


def _unit(
    params: RstParams,
    place: int,
    case: Case,
    work: Callable[..., Result],
    name: str,
    passes: float,
    *,
    seed: int,
    **more: Any,
) -> Unit:
    own = RstParams(**shared(case, work, seed, **more), seeds=(0,), runtime=params.runtime)
    arguments = {"params": own, "place": 0, "seed": seed, **more}
    return Unit(f"{case.name}/{name}/seed-{seed}", work, arguments, passes)


def shared(
    case: Case,
    work: Callable[..., Result],
    seed: int,
    arm: str = "",
    level: float | None = None,
    mask_seed: int | None = None,
    mask: Mask | None = None,
) -> dict[str, Any]:
    """The fields of a case as a unit takes them: what does not decide it is blank.

    A unit must not be trained again for the sake of another arm, level or draw.
    """
    fields = Case.model_fields
    names = ("penalty", "iterative", "lth_iter", "early_bird", "looks", "extra_arms")
    blank = {name: fields[name].default for name in names} | {"extra_levels": (), "draws": 0}
    blank |= {"transform": case.finetune, "arms": ("scratch", "rst")}
    if level is not None:
        blank["levels"] = (level,)
    used: tuple[str, ...] = ()
    if work is train_pretrained:
        used = ("lth_iter", "early_bird", "extra_levels")
        chosen = tuple(arm for arm in case.arms if arm in PRETRAINED)
        blank |= {"arms": (*blank["arms"], *chosen)}
        blank["extra_arms"] = tuple(arm for arm in case.extra_arms if arm in PRETRAINED)
    elif work is train_abruptly:
        used = ("transform",)
        blank |= {"levels": case.levels_of("abrupt"), "arms": (*blank["arms"], "abrupt")}
    elif work is train_iteratively:
        used = ("transform", "penalty", "iterative")
    elif work is train_pressed:
        used = ("transform", "penalty", "looks")
        damaged = [each for each in case.arms_at(level or 0.0) if each in DAMAGED]
        blank["arms"] = (*blank["arms"], *(damaged if arm == "rst" and mask_seed == seed else ()))
    elif arm in ("warm-up", "scratch-long"):
        used = ("transform",)
    kept = {name: getattr(case, name) for name in fields if name in used or name not in blank}
    return blank | kept


@cache
def _train_images(data: DataSpec) -> int:
    return len(load(data).train)


def _finetuned(case: Case) -> float:
    return case.finetune.passes(_train_images(case.data))


def _transformed(case: Case) -> float:
    return _finetuned(case) + case.transform.passes(_train_images(case.data))


def _lth_cost(case: Case) -> float:
    """LTH-Iter's search, in finetunings."""
    recipe = with_length(case.finetune, case.lth_iter.length)
    search = case.lth_iter.cycles * recipe.passes(_train_images(case.data))
    return search / _finetuned(case)
