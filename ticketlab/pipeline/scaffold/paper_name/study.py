"""The study: which units there are, and which follow from the results of others."""

from collections.abc import Mapping
from typing import Any

from ticketlab import gpu
from ticketlab.data.sets import load
from ticketlab.pipeline.scaffold.paper_name import algorithm
from ticketlab.pipeline.scaffold.paper_name.params import Params, check
from ticketlab.pipeline.scaffold.paper_name.units import score, search
from ticketlab.study.bench import Setting
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit


def phases(params: Params) -> Phases:
    """The units of the study; tickets are trained when the searches have found them."""
    check(params)
    searches = yield search_units(params)
    return searches | (yield score_units(params, searches))


def one_training(params: Params) -> int:
    """Images seen by one training."""
    return params.recipe.passes(len(load(params.data).train))


def search_units(params: Params) -> list[Unit]:
    """The dense nets and what is left of them."""
    units, passes = [], one_training(params)
    for seed in params.seeds:
        arguments = {"setting": Setting.of(params), "seed": seed, "sparsity": params.sparsity}
        units.append(Unit(f"search/seed-{seed}", search, arguments, passes))
    return units


def score_units(params: Params, searches: Mapping[str, Result]) -> list[Unit]:
    """Each seed's ticket, and a random mask that keeps as many weights."""
    units, passes = [], one_training(params)
    for seed in params.seeds:
        found = searches[f"search/seed-{seed}"].tickets["ticket"].mask.to("cpu")
        random = algorithm.at_random(found, gpu.generator("cpu", seed, "random mask"))
        for arm, mask in {"magnitude": found, "random": random}.items():
            arguments: dict[str, Any] = {"setting": Setting.of(params), "seed": seed}
            arguments |= {"arm": arm, "mask": mask}
            units.append(Unit(f"score/{arm}/seed-{seed}", score, arguments, passes))
    return units
