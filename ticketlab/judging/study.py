"""The arms of a judgement as units, all at the given mask's sparsity."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ticketlab import gpu, models
from ticketlab.data.sets import load
from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams, check
from ticketlab.judging.units import rounds, search, train_arm, train_long
from ticketlab.pruning.criteria import uniform
from ticketlab.pruning.masks import Mask, keep_top, ones, shuffle_layerwise
from ticketlab.spec import InputError
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.tickets.ticket import Ticket
from ticketlab.training.recipe import Step

AT_ONCE = Step(0, "it")


def phases(params: JudgeParams, given: Given) -> Phases:
    """Yield the units: all arms, then the random masks that are trained for as long as IMP."""
    check_given(params, given)
    found = yield [unit for seed in params.seeds for unit in arms(params, given, seed)]
    return found | (yield [long_unit(params, given, seed, found) for seed in params.seeds])


def check_given(params: JudgeParams, given: Given) -> None:
    """Reject parameters that do not fit the data, or late rewinding where all weights are given."""
    check(params)
    if given.start == "all" and params.rewind.value:
        raise InputError(
            f"rewind: '{params.rewind}', allowed is '0it' with a file that has all weights: "
            "these are the starting point of every arm"
        )


def arms(params: JudgeParams, given: Given, seed: int) -> Iterator[Unit]:
    """Yield the units of one seed that need no other's result.

    All arms start from the file's weights if it has all of them. If it has only those that the
    mask keeps, no other arm could use them, so these start from the seed's own draw.
    """
    dense, start = dense_mask(params, given), shared_start(params, given)
    own = start if given.weights is None else given.ticket
    at_once = {"rewind": AT_ONCE}
    masks: dict[str, tuple[Mask, Ticket | None, dict[str, Any]]] = {
        "dense": (dense, start, at_once),
        "given": (given.mask, own, at_once if given.weights is not None else {}),
        "random": (random_mask(dense, given.mask.alive, seed), start, {}),
        "shuffled": (shuffled_mask(given.mask, seed), start, {}),
    }
    if given.weights is not None:
        masks["reinit"] = given.mask, None, {}
    for arm, (mask, weights, changes) in masks.items():
        arguments = {"arm": arm, "mask": mask, "start": weights}
        yield _unit(
            arm, seed, train_arm, params.setting(**changes), one_training(params), arguments
        )
    kept = given.mask.alive
    images = one_training(params) * (1 + len(rounds(dense.total, kept, params.rate)))
    search_of: dict[str, Any] = {"dense": dense, "kept": kept, "start": start}
    yield _unit("imp", seed, search, params.setting("rate"), images, search_of)


def long_unit(params: JudgeParams, given: Given, seed: int, found: Mapping[str, Result]) -> Unit:
    """Return the control of equal cost: the random mask, trained on as many images as IMP."""
    (row,) = found[f"imp/seed-{seed}"].record["rows"]
    mask = random_mask(dense_mask(params, given), given.mask.alive, seed)
    arguments = {"mask": mask, "images": row["images"], "start": shared_start(params, given)}
    return _unit("random-long", seed, train_long, params.setting(), row["images"], arguments)


def _unit(
    arm: str,
    seed: int,
    work: Callable[..., Result],
    setting: Any,
    passes: float,
    arguments: Mapping[str, Any],
) -> Unit:
    given = {name: value for name, value in arguments.items() if value is not None}
    return Unit(f"{arm}/seed-{seed}", work, {"setting": setting, "seed": seed, **given}, passes)


# ---------------------------------------------------------------- masks and weights of the arms


def dense_mask(params: JudgeParams, given: Given) -> Mask:
    """Return the mask that keeps every weight of the layers which the given mask names."""
    data = load(params.data)
    return ones(models.build(params.model, data.shape, data.classes, 0), list(given.mask))


def shared_start(params: JudgeParams, given: Given) -> Ticket | None:
    """Return the weights from which all arms start; None for each seed's own draw."""
    return Ticket(dense_mask(params, given), given.weights) if given.start == "all" else None


def random_mask(dense: Mask, kept: int, seed: int) -> Mask:
    """Return a mask of `kept` weights at uniformly random places, across all layers."""
    return keep_top(uniform(dense, gpu.generator("cpu", seed, "judge", "random")), kept)


def shuffled_mask(mask: Mask, seed: int) -> Mask:
    """Return the mask with as many weights in each layer, at random places."""
    return shuffle_layerwise(mask, gpu.generator("cpu", seed, "judge", "shuffled"))


# ---------------------------------------------------------------- planned work


def one_training(params: JudgeParams) -> int:
    """Return the images seen by one training."""
    return params.recipe.passes(len(load(params.data).train))


def planned_passes(params: JudgeParams, given: Given) -> float:
    """Return the images of all trainings: IMP's are seen twice, by it and by the equal budget."""
    first = [unit for seed in params.seeds for unit in arms(params, given, seed)]
    return sum(unit.passes * (2 if unit.work is search else 1) for unit in first)
