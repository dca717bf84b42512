"""Forecast of a geometry study before it runs: image passes, and nets."""

from functools import partial
from typing import Any

import torch

from ticketlab.papers.colt import forecast as colt
from ticketlab.papers.compare.params import ticket_name
from ticketlab.papers.compare.units import train_method
from ticketlab.papers.dlth import forecast as dlth
from ticketlab.papers.geometry.params import STORED, GeometryParams
from ticketlab.papers.geometry.study import phases
from ticketlab.papers.prac import forecast as prac
from ticketlab.study.forecast import Job, image_job, planned_units, predicted_ticket, total_passes
from ticketlab.study.results import Result
from ticketlab.study.retrain import train_dense
from ticketlab.study.runner import Unit
from ticketlab.tickets.ticket import Outcome, Ticket


def jobs(params: GeometryParams) -> list[Job]:
    """Return one job per bed."""
    found = []
    for bed in params.beds:
        passes = _passes(params, beds=(bed,), own_beds=())
        found.append(image_job(params.runtime, bed.model, params.data, bed.recipe, passes))
    for own in params.own_beds:
        passes = _passes(params, beds=(), own_beds=(own,))
        found.append(image_job(params.runtime, own.model, own.data, own.recipe, passes))
    return found


def _passes(params: GeometryParams, **only: Any) -> float:
    return total_passes(planned(params.model_copy(update=only)))


def planned(params: GeometryParams) -> list[list[Unit]]:
    """Return the expected units of the study, by phase."""
    return planned_units(phases(params), partial(predicted, params))


def predicted(params: GeometryParams, unit: Unit) -> Result:
    """Return approximate tickets with an empty outcome; no unit is planned from other details."""
    for own in params.own_beds:
        if own.stored is not None and unit.name.startswith(f"{STORED}{own.name}/"):
            return predicted_stored(own.stored.paper, unit)
    if unit.work is train_dense:
        return Result({}, {"dense": _trained(0.0)})
    if unit.work is not train_method:
        return Result({})
    levels = unit.arguments["setting"].levels
    return Result({}, {ticket_name(level): _trained(level) for level in levels})


def predicted_stored(paper: str, unit: Unit) -> Result:
    """Return a paper's own unit as the paper's forecast does, its tickets with an empty outcome."""
    own = {"colt": colt.predicted, "prac": prac.predicted, "dlth": dlth.predicted}
    found, arguments = own[paper](unit), unit.arguments
    levels = {name: one.mask.sparsity for name, one in found.tickets.items()}
    levels |= {name: mask.sparsity for name, mask in arguments.get("chosen", {}).items()}
    levels |= {"ticket": arguments["level"]} if "level" in arguments else {}
    levels |= {"dense": 0.0} if "arms" in arguments else {}
    return Result(found.record, {name: _trained(level) for name, level in levels.items()})


def _trained(sparsity: float) -> Ticket:
    nothing = Outcome({"weight": torch.zeros(1)}, torch.zeros(1, 1))
    return Ticket(predicted_ticket(sparsity).mask, outcome=nothing)
