"""The PrAC study: its arms, paired by seed, and the units of each arm."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ticketlab import models
from ticketlab.data.sets import DataSpec, load
from ticketlab.papers.prac import algorithm, subsets
from ticketlab.papers.prac.params import (
    AGAIN,
    FOLLOWERS,
    KEPT,
    LADDERS,
    PARTS,
    SHORT_IMP,
    Other,
    Plan,
    PracParams,
    PracSetting,
    plans,
    pruned_by,
    varied,
    with_epsilon,
    with_threshold,
)
from ticketlab.papers.prac.retraining import random_ladder, score_tickets
from ticketlab.papers.prac.units import search, search_imp
from ticketlab.pruning.masks import Mask, shuffle_each
from ticketlab.spec import ROOT, InputError
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.tickets.ticket import Ticket, round_name

Found = Mapping[str, Result]

# ---------------------------------------------------------------- checks


def check(params: PracParams) -> PracParams:
    """Reject parameters that do not fit each other or the data, before anything runs."""
    data = load(params.data)
    if not len(data.validation):
        raise InputError("data.validation: 0, allowed is 1 or more (PrAC keeps the best epoch)")
    models.check(params.model, data.shape)
    check_setting(params, "", len(data.train), params.levels)
    check_criteria(params, len(data.train))
    check_variants(params, len(data.train))
    if params.again_rounds > params.rounds:
        allowed = f"0 to {params.rounds} (rounds)"
        raise InputError(f"again_rounds: {params.again_rounds}, allowed: {allowed}")
    names = [other.name for other in params.others]
    for number, other in enumerate(params.others):
        place = f"others.{number}."
        if other.name in ("main", "noise") or names.count(other.name) > 1:
            raise InputError(f"{place}name: {other.name!r} is taken, allowed is a name of its own")
        if other.index_file is None and other.rounds > params.rounds:
            allowed = f"1 to {params.rounds} (sets that the main net finds)"
            raise InputError(f"{place}rounds: {other.rounds}, allowed: {allowed}")
        models.check(other.model, data.shape)
        check_setting(params.other(other), place, len(data.train), other.levels)
        for seed in _few(params, other.seeds) if other.index_file is not None else ():
            count = len(read_sets(params, other, seed))
            if count < other.rounds:
                raise InputError(
                    f"{place}index_file: {count} sets, {other.rounds} rounds are asked for"
                )
    return params


def check_variants(params: PracParams, images: int) -> None:
    """Check that each learning rate occurs once, and that its rewind point is in the run."""
    names = [variant.name for variant in params.variants]
    for number, variant in enumerate(params.variants):
        if names.count(variant.name) > 1:
            raise InputError(f"variants.{number}.name: {variant.name!r} is there twice")
        try:
            params.variant(variant).recipe.check(images, variant.rewind)
        except InputError as error:
            raise InputError(f"variants.{number}.{error}") from None


def check_criteria(params: PracParams, images: int) -> None:
    """Check that each criterion occurs once, and scores on no more images than there are."""
    if twice := sorted({name for name in params.criteria if params.criteria.count(name) > 1}):
        raise InputError(f"criteria: {twice[0]!r} is there twice, allowed is once")
    if params.criteria and params.probe > images:
        raise InputError(f"probe: {params.probe} images, allowed: 1 to {images}")


def check_setting(setting: PracSetting, place: str, images: int, levels: tuple[int, ...]) -> None:
    """Check that levels are rounds, the rewind point is in the run, and schedules can shorten."""
    check_levels(f"{place}levels", levels, setting.rounds)
    try:
        setting.recipe.check(images, setting.rewind)
    except InputError as error:
        raise InputError(f"{place}{error}") from None
    # Whatever `shorten` is, because one arm of the decomposition always scales epochs.
    algorithm.shortened(setting.recipe, images, max(1, images // 2), "epochs")


def check_levels(key: str, levels: tuple[int, ...], rounds: int) -> None:
    """Check that levels are rounds for which all arms have tickets of their own.

    The first ticket comes from dense training on all data, which the arms that follow PrAC share.
    """
    first = min(2, rounds)
    for level in levels:
        if not first <= level <= rounds:
            raise InputError(f"{key}: {level}, allowed: {first} to {rounds} (rounds)")


# ---------------------------------------------------------------- the whole study


def phases(params: PracParams) -> Phases:
    """Yield the units of the study; each phase follows from the results of those before it."""
    check(params)
    found = yield first_searches(params)
    found |= yield second_searches(params, found)
    return found | (yield scorings(params, found))


def training_passes(setting: PracSetting) -> float:
    """Return the image passes of one training on all data."""
    return float(setting.recipe.passes(_images(setting.data)))


@cache
def _images(data: DataSpec) -> int:
    return len(load(data).train)


def _unit(
    place: str,
    arm: str,
    seed: int,
    work: Callable[..., Result],
    trainings: float,
    setting: PracSetting,
    **more: Any,
) -> Unit:
    own = PracSetting.of(setting, "noise", *used_by(work, more.get("plan")))
    arguments = {"setting": own, "seed": seed, "arm": arm, **more}
    name = f"{place}/{arm}/seed-{seed}"
    return Unit(name, work, arguments, training_passes(setting) * trainings)


def used_by(work: Callable[..., Result], plan: Plan | None) -> tuple[str, ...]:
    """Return the parameters that decide a unit, besides those that decide every unit."""
    if work is score_tickets:
        return ()
    if plan is None:
        return "rate", "rounds"
    stop = ("stop",) if plan.stop else ()
    chosen = ("threshold", "el2n_epochs", "ccs_cut") if plan.subset == "critical" else ()
    critical = ("threshold",) if plan.subset in ("cet", "cep") else chosen
    return "rate", "rounds", "least_iterations", *stop, *critical


def _few(params: PracParams, count: int) -> tuple[int, ...]:
    return params.seeds[:count]


# ---------------------------------------------------------------- first: independent searches


def first_searches(params: PracParams) -> list[Unit]:
    """IMP, PrAC and its parts, for the main net, the other nets, and flipped labels."""
    main, units = params.setting(), []
    for seed in params.seeds:
        units.append(_imp("main", main, seed, (0, *params.levels)))
        units += [_search("main", main, seed, arm) for arm in LADDERS]
    for seed in _few(params, params.ablation_seeds):
        units += [_search("main", main, seed, arm) for arm in PARTS]
        units += [_prac(arm, setting, seed) for arm, setting in changed(params).items()]
        units += [_prac(varied(v), params.variant(v), seed) for v in params.variants]
    for other in params.others:
        for seed in _few(params, other.seeds):
            units += _pair(other.name, params.other(other), seed)
    if params.label_noise:
        for seed in _few(params, params.noise_seeds):
            units += _pair("noise", params.noisy(), seed)
    return units


def changed(params: PracParams) -> dict[str, PracSetting]:
    """Return PrAC's settings with other values of E_F and epsilon, by arm."""
    thresholds = {with_threshold(v): params.setting(threshold=v) for v in params.thresholds}
    stops = {v: params.stop.model_copy(update={"epsilon": v}) for v in params.epsilons}
    return thresholds | {with_epsilon(v): params.setting(stop=stop) for v, stop in stops.items()}


def _pair(place: str, setting: PracSetting, seed: int) -> list[Unit]:
    """Return the units of IMP and PrAC."""
    return [_imp(place, setting, seed), _search(place, setting, seed, "prac")]


def _imp(place: str, setting: PracSetting, seed: int, judged: tuple[int, ...] = ()) -> Unit:
    """Return the unit of IMP; its tickets of the rounds in `judged` keep their outcome."""
    more = {"judged": judged} if judged else {}
    trainings = setting.rounds + 1
    return _unit(f"search/{place}", "imp", seed, search_imp, trainings, setting, **more)


def _search(place: str, setting: PracSetting, seed: int, arm: str) -> Unit:
    share = {"imp-early-stop": 0.6, "prac-linear": 0.4, "prac-quadratic": 0.25}.get(arm, 0.15)
    plan = plans(setting)[arm]
    return _unit(f"search/{place}", arm, seed, search, share * setting.rounds, setting, plan=plan)


def _prac(arm: str, setting: PracSetting, seed: int) -> Unit:
    """Return the unit of PrAC in another setting."""
    return _unit("search/main", arm, seed, search, 1, setting, plan=plans(setting)["prac"])


# ---------------------------------------------------------------- second: searches based on PrAC's


def second_searches(params: PracParams, found: Found) -> list[Unit]:
    """Return the searches that need PrAC's result.

    Sets of the same sizes with other samples, other criteria, IMP with PrAC's iterations or with
    another data order, and sets carried to other nets.
    """
    units = []
    for seed in params.seeds:
        units.append(_like_prac("main", params.setting(), seed, "random", found))
        units.append(_short_imp("main", params.setting(), seed, found))
    for seed in _few(params, params.ablation_seeds):
        units += [_like_prac("main", params.setting(), seed, s, found) for s in params.scores]
        units += [_criterion(params, seed, name, found) for name in params.criteria]
        units += [_again(params, seed, found)] if params.again_rounds else []
    for other in params.others:
        for seed in _few(params, other.seeds):
            units.append(_like_prac(other.name, params.other(other), seed, "random", found))
            units += _carried(params, other, seed, found)
    if params.label_noise:
        for seed in _few(params, params.noise_seeds):
            units.append(_like_prac("noise", params.noisy(), seed, "random", found))
    return units


def _like_prac(place: str, setting: PracSetting, seed: int, arm: str, found: Found) -> Unit:
    """Use PrAC's sizes, schedules and ends of rounds, but other samples; shares its dense round."""
    leader = found[f"search/{place}/prac/seed-{seed}"]
    more: dict[str, Any] = {
        "plan": Plan(subset="given", shorten=setting.shorten, stop=False),
        "given": leader.record["selections"][arm],
        "spent": spent(leader),
    }
    if setting.rounds > 1:
        more["dense"] = _dense(place, seed, found)
        more["start"] = leader.tickets["round-01"].mask
    return _unit(f"search/{place}", arm, seed, search, 1, setting, **more)


def _criterion(params: PracParams, seed: int, name: str, found: Found) -> Unit:
    """Use random sets of PrAC's sizes and its iterations; a criterion prunes each round."""
    leader, setting = found[f"search/main/prac/seed-{seed}"], params.setting()
    plan = Plan(
        subset="given", shorten=setting.shorten, stop=False, criterion=name, probe=params.probe
    )
    return _unit(
        "search/main",
        pruned_by(name),
        seed,
        search,
        1,
        setting,
        plan=plan,
        given=leader.record["selections"]["random"],
        spent=spent(leader),
        dense=_dense("main", seed, found),
    )


def _again(params: PracParams, seed: int, found: Found) -> Unit:
    """Return IMP with another data order, from the rewind point that all arms of the seed share."""
    setting, dense = params.setting(rounds=params.again_rounds), _dense("main", seed, found)
    more = {"stage": "again", "dense": dense}
    return _unit("search/main", AGAIN, seed, search_imp, setting.rounds + 1, setting, **more)


def _short_imp(place: str, setting: PracSetting, seed: int, found: Found) -> Unit:
    leader = found[f"search/{place}/prac/seed-{seed}"]
    more = {"plan": SHORT_IMP, "spent": spent(leader)}
    return _unit(f"search/{place}", "short-imp", seed, search, 1, setting, **more)


def _carried(params: PracParams, other: Other, seed: int, found: Found) -> list[Unit]:
    """Return both readings of transfer: the main net's sequence of sets, or its last set only.

    The sequence starts from all data, as its source did; the last set is used from the first round.
    """
    sets, setting = carried_sets(params, other, seed, found), params.other(other)
    images = len(load(params.data).train)
    everything = subsets.pack_index(subsets.random_draw(images, images, ()), images)
    given = {
        "transfer-sequence": [everything, *sets[: other.rounds]],
        "transfer-final": [sets[-1]] * other.rounds,
    }
    plan = Plan(subset="given", shorten=setting.shorten, stop=True)
    return [
        _unit(f"search/{other.name}", arm, seed, search, 1.5, setting, plan=plan, given=texts)
        for arm, texts in given.items()
    ]


def carried_sets(params: PracParams, other: Other, seed: int, found: Found) -> list[str]:
    """Return the packed sets to carry over, one per round: of a file, or of the main net's PrAC."""
    if other.index_file is None:
        rounds = found[f"search/main/prac/seed-{seed}"].record["rounds"]
        return [row["set"] for row in rounds]
    return read_sets(params, other, seed)


def read_sets(params: PracParams, other: Other, seed: int) -> list[str]:
    """Return a net's sets from its index file, packed for the split of a seed; none without one."""
    if other.index_file is None:
        return []
    data = load(params.data, seed=seed)
    sets = subsets.load_index(ROOT / other.index_file, data).sets
    return [subsets.pack_index(index, len(data.train)) for index in sets]


def spent(found: Result) -> list[int]:
    """Return the iterations of each round of a search."""
    return [row["iterations"] for row in found.record["rounds"]]


# ---------------------------------------------------------------- third: retraining of tickets


def scorings(params: PracParams, found: Found) -> list[Unit]:
    """Retrain the tickets of every search except IMP, which scores its own, and of all controls."""
    units, main = [], params.setting()
    for seed in params.seeds:
        for arm in (*LADDERS, *FOLLOWERS):
            units.append(_score("main", main, seed, arm, found, params.levels))
        units += _controls(main, params.levels, seed, found)
    extra = (*PARTS, *changed(params), *params.scores, *map(pruned_by, params.criteria))
    for seed in _few(params, params.ablation_seeds):
        units += [_score("main", main, seed, a, found, params.ablation_levels) for a in extra]
    for other in params.others:
        for seed in _few(params, other.seeds):
            for arm in ("prac", "random", "transfer-sequence", "transfer-final"):
                setting = params.other(other)
                units.append(_score(other.name, setting, seed, arm, found, other.levels))
            units.append(_random(other.name, params.other(other), other.levels, seed, found))
    if params.label_noise:
        for seed in _few(params, params.noise_seeds):
            for arm in ("prac", "random"):
                setting = params.noisy()
                units.append(_score("noise", setting, seed, arm, found, (params.noise_rounds,)))
    return units


def _dense(place: str, seed: int, found: Found) -> Ticket:
    """Return IMP's unpruned ticket, at the rewind point that the arms of the seed share."""
    return found[f"search/{place}/imp/seed-{seed}"].tickets["round-00"]


def _score(
    place: str, setting: PracSetting, seed: int, arm: str, found: Found, levels: tuple[int, ...]
) -> Unit:
    """Return the unit that retrains the tickets of a search."""
    chosen = _at(found[f"search/{place}/{arm}/seed-{seed}"], levels)
    return _retrained(place, arm, setting, seed, chosen, _dense(place, seed, found))


def _random(
    place: str, setting: PracSetting, levels: tuple[int, ...], seed: int, found: Found
) -> Unit:
    """Return the unit of random pruning at the sparsities of the levels."""
    dense = _dense(place, seed, found)
    ladder = random_ladder(dense.mask, setting.rate, setting.rounds, seed)
    chosen = {name: ladder[name] for name in _names(levels)}
    return _retrained(place, "random-pruning", setting, seed, chosen, dense)


def _controls(setting: PracSetting, levels: tuple[int, ...], seed: int, found: Found) -> list[Unit]:
    """Random pruning, IMP's and PrAC's masks shuffled, and PrAC's on new initial weights."""
    dense = _dense("main", seed, found)
    masks = {a: _at(found[f"search/main/{a}/seed-{seed}"], levels) for a in ("imp", "prac")}
    mixed = {
        f"{arm}-shuffled": shuffle_each(chosen, seed, "shuffle", arm)
        for arm, chosen in masks.items()
    }
    return [
        _random("main", setting, levels, seed, found),
        *(_retrained("main", arm, setting, seed, masks, dense) for arm, masks in mixed.items()),
        _retrained("main", "reinit", setting, seed, masks["prac"], None),
    ]


def _retrained(
    place: str,
    arm: str,
    setting: PracSetting,
    seed: int,
    chosen: dict[str, Mask],
    dense: Ticket | None,
) -> Unit:
    """Retrain these masks at the rewind point in `dense`, or on new initial weights."""
    more: dict[str, Any] = {"chosen": chosen}
    more |= {"reinit": True} if dense is None else {"dense": dense}
    more |= {"outcomes": True} if place == "main" and arm in KEPT else {}
    return _unit(f"score/{place}", arm, seed, score_tickets, len(chosen), setting, **more)


def _names(levels: tuple[int, ...]) -> list[str]:
    return [round_name(level) for level in sorted(set(levels))]


def _at(found: Result, levels: tuple[int, ...]) -> dict[str, Mask]:
    return {name: found.tickets[name].mask for name in _names(levels)}
