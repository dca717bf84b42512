"""`train_many`: trains several independent tickets, each by the fastest path.

A path changes the order of the arithmetic, never the batches, steps or masks; the result names the
path that ran. Convnets are trained one after another: on a CPU core several at once gain nothing
(vmap and grouped convolutions are slower), and `runner` starts one process per core.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch

from ticketlab import gpu
from ticketlab.data.sets import DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.many.dense_lanes import DenseLanes, chunk
from ticketlab.many.lanes import Best, Job, Trained, train
from ticketlab.pruning import patterns
from ticketlab.spec import InputError
from ticketlab.tickets.compaction import compact
from ticketlab.training import loop, mlp, passes
from ticketlab.training.mlp import linears
from ticketlab.training.net import Net
from ticketlab.training.observers import KeepBest
from ticketlab.training.passes import SPARSE_BELOW
from ticketlab.training.sparse import SparseMlps

__all__ = ["PATHS", "Job", "Path", "Trained", "choose", "train_many"]

Path = Literal["sparse", "stacked", "plain", "compacted"]
"""sparse: products of surviving weights only, MLPs block-diagonal, convnets one after another;
stacked: MLPs as batched products; plain: `training.train` on all weights, one job after another;
compacted: plain, on the net without its dead channels if that saves FLOPs (only on request)."""

PATHS: tuple[Path, ...] = get_args(Path)

SPARSE_CHUNK = 8
"""Nets in one block-diagonal matrix."""


def train_many(
    jobs: Sequence[Job],
    runtime: Runtime | None = None,
    path: Path | Literal["auto"] = "auto",
    tell: Callable[[str], None] = print,
) -> list[Trained]:
    """Train every job from start to end; return results in the jobs' order, each with its `path`.

    Data and weights are moved to the runtime's device. `path` forces a choice; `tell` is called
    with one line on each choice. Raises InputError in one line for a job that does not fit.
    """
    runtime = runtime or Runtime()
    if path not in ("auto", *PATHS):
        raise InputError(f"path: {path!r} is unknown, allowed: auto, {', '.join(PATHS)}")
    for job in jobs:
        job.check()
    device = gpu.start(runtime)
    jobs = _moved(jobs, device)
    chosen = [
        choose(job, runtime) if path == "auto" else _forced(job, runtime, path) for job in jobs
    ]
    counts = {name: chosen.count(name) for name in PATHS if name in chosen}
    tell(f"train_many on {device.type}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    trained: dict[int, Trained] = {}
    for places in _chunks(jobs, chosen):
        part = [jobs[place] for place in places]
        trained |= zip(places, _train(part, runtime, chosen[places[0]]), strict=True)
    for place, job in enumerate(jobs):
        _confirm(job, trained[place])
    return [trained[place] for place in range(len(jobs))]


def _confirm(job: Job, done: Trained) -> None:
    """Raise WrongMask unless the zeros are the mask's, at the end and at the best epoch."""
    start = job.start()
    patterns.confirm(done.state, job.mask, start)
    if done.best is not None:
        patterns.confirm(done.best.state, job.mask, start)


# ---------------------------------------------------------------- choice of path


def choose(job: Job, runtime: Runtime) -> Path:
    """Return the fastest path for a job; see `Path` and `passes.SPARSE_BELOW`."""
    if _obstacle(job, runtime, "stacked"):
        alone = passes.choose(job.model, job.mask, runtime, job.data.shape)
        return "sparse" if alone == "sparse" else "plain"
    if _obstacle(job, runtime, "sparse") or mlp.density(job.model, job.mask) > SPARSE_BELOW:
        return "stacked"
    return "sparse"


def _obstacle(job: Job, runtime: Runtime, path: Path) -> str:
    """Return why a job cannot take a path, or ''."""
    if path == "stacked":
        return mlp.not_written(job.model, runtime)
    return passes.not_sparse(job.model, job.mask, runtime) if path == "sparse" else ""


def _forced(job: Job, runtime: Runtime, path: Path) -> Path:
    if why := _obstacle(job, runtime, path):
        raise InputError(f"path: {path!r} is not possible: {why}")
    return path


# ---------------------------------------------------------------- grouping


def _moved(jobs: Sequence[Job], device: torch.device) -> list[Job]:
    """Return the jobs with their data on `device`; data shared between jobs stays shared."""
    there: dict[int, Any] = {}

    def move(part: Any) -> Any:
        if part is None or _at(part).type == device.type:
            return part
        return there.setdefault(id(part), part.to(device))

    return [
        replace(job, images=move(job.images), data=move(job.data), validation=move(job.validation))
        for job in jobs
    ]


def _at(part: DataSet | Images) -> torch.device:
    return part.y.device if isinstance(part, Images) else part.mean.device


def _chunks(jobs: Sequence[Job], chosen: Sequence[Path]) -> Iterator[list[int]]:
    """Yield groups of jobs to train together: same path, shape, recipe and amount of data."""
    groups: dict[object, list[int]] = {}
    for place, (job, path) in enumerate(zip(jobs, chosen, strict=True)):
        alone = path in ("plain", "compacted") or not linears(job.model)
        groups.setdefault(place if alone else _kind(job, path), []).append(place)
    for places in groups.values():
        first = places[0]
        parameters = sum(p.numel() for p in jobs[first].model.parameters())
        size = SPARSE_CHUNK if chosen[first] == "sparse" else chunk(parameters)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _kind(job: Job, path: Path) -> object:
    shapes = tuple(tuple(job.model.get_parameter(f"{n}.weight").shape) for n in linears(job.model))
    held_out = None if job.validation is None else len(job.validation)
    recipe = job.recipe.model_dump_json()
    return path, shapes, recipe, len(job.images), tuple(job.images.x.shape[1:]), held_out


def _one_batch(jobs: Sequence[Job]) -> bool:
    """Return whether all jobs see the same images in the same order."""
    sources = {(id(job.images), id(job.data), job.seed, id(job.validation)) for job in jobs}
    return len(sources) == 1


# ---------------------------------------------------------------- training


def _train(jobs: Sequence[Job], runtime: Runtime, path: Path) -> list[Trained]:
    if path == "compacted":
        return [_compacted(job, runtime) for job in jobs]
    if path == "plain" or (path == "sparse" and not linears(jobs[0].model)):
        return [_alone(job, runtime, path) for job in jobs]
    if path == "sparse":
        return train(survivors(jobs, _one_batch(jobs)), jobs, path)
    graphed = gpu.uses_graphs(gpu.choose_device(runtime.device), runtime)
    return train(DenseLanes(jobs), jobs, path, graphed)


def survivors(jobs: Sequence[Job], shared: bool) -> SparseMlps:
    """Return the jobs' nets on their surviving weights; `shared` if all see the same batches."""
    starts, masks = [job.start() for job in jobs], [job.mask for job in jobs]
    return SparseMlps(linears(jobs[0].model), starts, masks, shared)


def _alone(job: Job, runtime: Runtime, path: Literal["plain", "sparse"]) -> Trained:
    """Train one job by `training.train`, on a copy of the model."""
    net = Net(copy.deepcopy(job.model), runtime)
    net.rewind(job.start(), job.mask)
    best = None if job.validation is None else KeepBest(job.validation, job.data)
    history = loop.train(
        net,
        job.images,
        job.data,
        job.recipe,
        seed=job.seed,
        mask=job.mask,
        observers=[best] if best else [],
        path=path,
    )
    kept = Best(best.state, best.accuracy, best.epoch) if best else None
    return Trained(net.state(), history, path, kept)


def _compacted(job: Job, runtime: Runtime) -> Trained:
    """Train the smaller net by the plain loop; the path is "plain" if nothing is saved."""
    small = None if job.mask is None else compact(job.model, job.mask, job.data.shape)
    if small is None or job.mask is None:
        return _alone(job, runtime, "plain")
    start, images = job.start(), len(job.images)
    less = replace(job, model=small.model, mask=small.mask, state=small.shrink(start))
    done = _alone(less, runtime, "plain")
    state = small.expand(done.state, start, job.mask, job.recipe, images)
    best = done.best
    if best is not None:
        until = done.history[best.epoch].iteration
        whole = small.expand(best.state, start, job.mask, job.recipe, images, until)
        best = Best(whole, best.accuracy, best.epoch)
    return Trained(state, done.history, "compacted", best)
