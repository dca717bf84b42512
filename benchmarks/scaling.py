"""Growth of cost: images per CPU second and peak memory against one quantity at a time."""

import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.cases import Scale, jobs, random_mask, synthetic, trained
from benchmarks.measure import peak_memory
from ticketlab import models
from ticketlab.many import lanes
from ticketlab.many.dense_lanes import DenseLanes
from ticketlab.many.train_many import Job, survivors
from ticketlab.models import ModelSpec

MNIST = (1, 28, 28)


def rows(scale: Scale) -> Iterator[dict[str, Any]]:
    """Yield one row per point: what was varied, how it was trained, images/s and bytes."""
    yield from against_tickets(scale)
    yield from against_density(scale)
    yield from against_width(scale)
    yield from against_images(scale)
    yield from against_workers(scale)


def _row(axis: str, at: float, path: str, tickets: list[Job], scale: Scale) -> dict[str, Any]:
    """Return the fastest of the runs, so that a busy moment does not count."""
    runs = [peak_memory(lambda: _train(tickets, path)) for _ in range(scale.tries)]
    rate = max(amount / max(seconds, 1e-9) for amount, seconds, _ in runs)
    peaks = [peak for _, _, peak in runs if peak is not None]
    return {
        "axis": axis,
        "at": at,
        "path": path,
        "rate": rate,
        "unit": "images/s",
        "peak_bytes": max(peaks) if peaks else None,
    }


def _train(tickets: list[Job], path: str) -> float:
    """All tickets at once, in one stack or one block-diagonal matrix however many."""
    if path == "plain":
        return trained(tickets, "plain")
    together: lanes.Lanes
    together = DenseLanes(tickets) if path == "stacked" else survivors(tickets, shared=False)
    lanes.train(together, tickets, path)
    return float(sum(len(job.images) for job in tickets))


def against_tickets(scale: Scale) -> Iterator[dict[str, Any]]:
    """LeNets at once: stacked, and sparse at 95 % sparsity."""
    data = synthetic(scale.images // 3, MNIST)
    for count in (1, 2, 4, 8, 16, 32) if scale.wide else (1, 2):
        tickets = jobs("lenet_300_100", data, count, 0.05, 60)
        for path in ("stacked", "sparse"):
            yield _row("tickets at once", count, path, tickets, scale)


def against_density(scale: Scale) -> Iterator[dict[str, Any]]:
    """The share of weights kept, which affects sparse but not stacked training."""
    data = synthetic(scale.images // 3, MNIST)
    for density in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4) if scale.wide else (0.05, 0.2):
        tickets = jobs("lenet_300_100", data, scale.nets, density, 60)
        for path in ("stacked", "sparse"):
            yield _row("density", density, path, tickets, scale)


def against_width(scale: Scale) -> Iterator[dict[str, Any]]:
    """The width of an MLP with three hidden layers, four tickets, 5 % of the weights."""
    data = synthetic(scale.images // 3, MNIST)
    for width in (25, 50, 100, 200, 400, 800) if scale.wide else (10, 20):
        tickets: list[Job] = []
        for (one,) in (jobs("lenet_300_100", data, 1, 1.0, 60) for _ in range(4)):
            spec = ModelSpec(name="mlp", width=width, depth=3)
            model = models.build(spec, MNIST, 10, len(tickets))
            mask = random_mask(model, 0.05, len(tickets))
            seed = ("bench", len(tickets))
            tickets.append(Job(model, one.images, data, one.recipe, seed, mask))
        for path in ("plain", "stacked", "sparse"):
            yield _row("width of an MLP", width, path, tickets, scale)


def against_images(scale: Scale) -> Iterator[dict[str, Any]]:
    """Images in the data set, resident: eight sparse LeNets, one epoch."""
    for count in (500, 2000, 8000, 32_000) if scale.wide else (60, 120):
        data = synthetic(count, MNIST)
        tickets = jobs("lenet_300_100", data, 4, 0.05, 60)
        for path in ("plain", "sparse"):
            yield _row("images in the set", count, path, tickets, scale)


def against_workers(scale: Scale) -> Iterator[dict[str, Any]]:
    """Processes at once, each with its own tickets; wall time, which includes the load of others.

    Memory is the sum of what each needs beyond its start.
    """
    data = synthetic(scale.images, MNIST)
    tickets = jobs("lenet_300_100", data, scale.nets, 0.05, 60)
    processes = multiprocessing.get_context("fork")
    for count in (1, 2, 4) if scale.wide else (1,):
        runs = [_at_once(processes, count, tickets) for _ in range(scale.tries)]
        peaks = [sum(filter(None, own)) for _, own in runs if None not in own]
        yield {
            "axis": "workers (wall time)",
            "at": count,
            "path": "sparse",
            "unit": "images/s",
            "rate": 2 * count * len(tickets) * scale.images / min(took for took, _ in runs),
            "peak_bytes": max(peaks) if peaks else None,
        }


def _at_once(processes: Any, count: int, tickets: list[Job]) -> tuple[float, list[int | None]]:
    """Return the wall seconds of `count` processes, and the peak bytes of each."""
    peaks = processes.SimpleQueue()
    workers = [processes.Process(target=_work, args=(tickets, peaks)) for _ in range(count)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise RuntimeError(f"workers ended with {failed}")
    return took, [peaks.get() for _ in workers]


def _work(tickets: list[Job], peaks: Any) -> None:
    torch.set_num_threads(1)
    _, _, peak = peak_memory(lambda: trained(tickets, "sparse") + trained(tickets, "sparse"))
    peaks.put(peak)
