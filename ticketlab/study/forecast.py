"""Forecast of a study's duration: what it will train, and each net's speed on this device."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ticketlab import gpu, models
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.models import ModelSpec
from ticketlab.pruning.masks import Mask
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit
from ticketlab.tickets.ticket import Ticket
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step


@dataclass(frozen=True)
class Job:
    """The part of a study's work that uses one net: its image passes, and its training speed."""

    net: str
    passes: float
    speed: Callable[[float], float]
    """Returns image passes per second of one process, measured for the given seconds."""
    training: float
    """Image passes of the net in the study."""
    ticket: int
    """Bytes of one ticket."""


def image_job(
    runtime: Runtime,
    model: ModelSpec,
    images: DataSpec,
    recipe: Recipe,
    passes: float,
    speed: Callable[[Net, DataSet, Recipe, float], float] | None = None,
) -> Job:
    """Make a job of a net on images; `speed` measures it for some seconds, as `image_speed`."""
    data = load(images, gpu.start(runtime))
    net = models.build(model, data.shape, data.classes, 0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())

    def measure(seconds: float) -> float:
        return (speed or image_speed)(Net(net, runtime), data, recipe, seconds)

    return Job(model.name, passes, measure, recipe.passes(len(data.train)), size)


def image_speed(net: Net, data: DataSet, recipe: Recipe, seconds: float) -> float:
    """Measure image passes per second of training a net for about `seconds`, after a warm-up."""

    def chunk(steps: int) -> int:
        train(net, data.train, data, recipe, seed=("plan",), until=Step(steps, "it"))
        return steps * min(recipe.batch, len(data.train))

    most = min(gpu.probe_steps(net.device), recipe.iterations(len(data.train))[1])
    return measured_speed(chunk, net.device, seconds, most)


def measured_speed(
    chunk: Callable[[int], int], device: torch.device, seconds: float, most: int
) -> float:
    """Measure passes per second of repeated chunks of up to `most` steps; the first is a warm-up.

    Chunks grow from one step, so that a net with steps of a second is not measured for minutes.
    """
    chunk(1)
    done, spent, steps = 0, 0.0, 1
    while spent < seconds or not done:
        with gpu.Stopwatch(device) as watch:
            count = chunk(steps)
        if steps < most and watch.seconds < seconds / 4:
            steps = min(most, 4 * steps)  # short chunks mostly measure their own start-up
        else:
            done, spent = done + count, spent + watch.seconds
    return done / spent


# ---------------------------------------------------------------- placeholders for missing results


def planned_units(phases: Phases, predicted: Callable[[Unit], Result]) -> list[list[Unit]]:
    """Return all units of a study by phase, planning later phases from predicted results."""
    planned = [next(phases)]
    while True:
        try:
            planned.append(phases.send({unit.name: predicted(unit) for unit in planned[-1]}))
        except StopIteration:
            return planned


def total_passes(planned: Iterable[Iterable[Unit]]) -> float:
    """Return the image passes that all units of a study are expected to take."""
    return sum(unit.passes for units in planned for unit in units)


def predicted_ticket(sparsity: float) -> Ticket:
    """Return a placeholder for a ticket of about this sparsity: one layer of 10,000 weights."""
    removed = min(round(10_000 * sparsity), 9_999)
    return Ticket(Mask({"weight": torch.arange(10_000) >= removed}))


def predicted_search(rate: float, rounds: int) -> Result:
    """Return a placeholder for a search at a constant rate: its rounds and tickets, with dense."""
    tickets = {f"round-{k:02d}": predicted_ticket(1 - (1 - rate) ** k) for k in range(rounds + 1)}
    found = [
        {"round": k, "alive": ticket.mask.alive, "sparsity": ticket.mask.sparsity}
        for k, ticket in enumerate(tickets.values())
        if k
    ]
    return Result({"arm": "", "seed": 0, "rounds": found}, tickets)
