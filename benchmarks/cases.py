"""The cases on a CPU core: peers' loops and ours on the same synthetic images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.measure import Case, Goal, Variant
from benchmarks.reasons import gemm
from ticketlab import gpu, models
from ticketlab.data.sets import Augment, Batches, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.many import stacks
from ticketlab.many.stacks import Fit
from ticketlab.many.train_many import Job, train_many
from ticketlab.models import ModelSpec
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal as PopupGoal
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import PopupFit, edge_popup
from ticketlab.pruning import saliency, selection
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.tickets.compaction import compact
from ticketlab.training.recipe import Recipe, Step

CPU = Runtime(device="cpu")
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@dataclass(frozen=True)
class Scale:
    """The amount of measurement: `full` for numbers, `tiny` to test that everything runs."""

    rounds: int = 5
    few_rounds: int = 3
    images: int = 2400
    conv_images: int = 192
    conv_batch: int = 24
    nets: int = 8
    planted: int = 32
    planted_images: int = 320
    workers: tuple[int, ...] = (0, 2)
    flow_rounds: tuple[int, int] = (10, 100)
    scores: int = 14_700_000
    wide: bool = True
    """Whether networks have the papers' widths or are narrow."""

    @property
    def tries(self) -> int:
        """Runs per point of the scaling curves, of which the fastest counts."""
        return min(2, self.rounds)


FULL = Scale()
TINY = Scale(1, 1, 120, 8, 4, 2, 2, 64, (0,), (2, 3), 100_000, False)
SCALES = {"full": FULL, "tiny": TINY}


def synthetic(count: int, shape: tuple[int, int, int], augment: Augment | None = None) -> DataSet:
    """Random uint8 images of 10 classes: speed does not depend on their content."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=random)
    images = Images(x, torch.randint(0, 10, (count,), generator=random))
    none = torch.empty(0, dtype=torch.int64)
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25)
    return DataSet(
        "synthetic",
        10,
        images,
        images,
        images,
        mean,
        std,
        augment or Augment(),
        "",
        none,
        none,
        none,
    )


def net(name: str, shape: tuple[int, int, int], seed: int = 0, wide: bool = True) -> nn.Module:
    """Return one of our nets, narrow unless `wide`."""
    width = {} if wide or name == "lenet_300_100" else {"width": 8}
    return models.build(ModelSpec(name=name, **width), shape, 10, seed)  # type: ignore[arg-type]


def random_mask(model: nn.Module, density: float, seed: int = 0) -> Mask:
    """Random survivors among all conv and Linear weights."""
    random = torch.Generator().manual_seed(seed)
    dense = ones(model, models.prunable(model, "conv_linear"))
    scores = {n: torch.rand(k.shape, generator=random) for n, k in dense.items()}
    return keep_top(scores, round(density * dense.total))


def jobs(
    name: str, data: DataSet, count: int, density: float, batch: int, wide: bool = True
) -> list[Job]:
    """Tickets of different nets, masks and orders, one epoch each."""
    recipe = Recipe(
        lr=0.01, weight_decay=1e-4, batch=batch, length=Step(1, "ep"), schedule="constant"
    )
    nets = [net(name, data.shape, seed, wide) for seed in range(count)]
    found = [random_mask(model, density, seed) for seed, model in enumerate(nets)]
    return [
        Job(model, data.train, data, recipe, ("bench", seed), mask)
        for seed, (model, mask) in enumerate(zip(nets, found, strict=True))
    ]


def trained(tickets: list[Job], path: Any, runtime: Runtime = CPU) -> float:
    """Train all tickets by `train_many`; return the images seen."""
    train_many(tickets, runtime, path, tell=lambda line: None)
    return float(sum(job.recipe.passes(len(job.images)) for job in tickets))


# ---------------------------------------------------------------- loading


def augmentation(scale: Scale) -> Case:
    """An epoch of cropped and flipped CIFAR-sized images, only loaded."""
    data = synthetic(scale.images, CIFAR, Augment(crop=4, flip=True))
    images, batch = data.train, min(256, scale.images)

    def resident(batches: Batches) -> float:
        order = torch.randperm(len(images))
        random = gpu.generator("cpu", 0)
        return float(sum(len(batches(index, random)) for index in order.split(batch)))

    found = [
        Variant(_pil(w), lambda w=w: peers.drain(peers.pil_loader(images, batch, 4, w)))  # type: ignore[misc]
        for w in scale.workers
    ]
    found.append(
        Variant(
            "airbench-style masked copies",
            lambda: peers.drain(peers.masked_copies(images, batch, 4)),
        )
    )
    gather, windows = (Batches(images, data, data.augment) for _ in range(2))
    gather._windows = None  # as on other devices than the CPU
    found += [
        Variant("data.Batches, gathered", partial(resident, gather), True),
        Variant("data.Batches", partial(resident, windows), True),
    ]
    pil = tuple(variant.name for variant in found[: len(scale.workers)])
    goals = [
        Goal("data.Batches", pil, 25),
        Goal("data.Batches", ("airbench-style masked copies",), 5),
    ]
    return Case("augmentation", "Crop and flip, 3x32x32", "images/s", pil[0], found, goals)


def _pil(workers: int) -> str:
    return f"PIL + DataLoader, {workers} workers"


# ---------------------------------------------------------------- LeNet


def lenet(scale: Scale) -> Case:
    """LeNet-300-100, batch 60: each peer's masking style, then ours dense and at each sparsity."""
    data = synthetic(scale.images, MNIST)
    (one,) = jobs("lenet_300_100", data, 1, 0.1, 60)
    assert one.mask is not None
    found = []
    for style, loop in peers.STYLES.items():
        run = partial(_peer, loop, one, 0)
        found.append(Variant(f"PIL, {style}", run))
    pil = [variant.name for variant in found]
    for workers in scale.workers[1:]:
        run = partial(_peer, peers.before_forward, one, workers)
        found.append(Variant(f"PIL, mask before forward, {workers} workers", run))
        pil.append(found[-1].name)
    mask = one.mask
    assert mask is not None
    found.append(
        Variant(
            "TensorDataset + DataLoader",
            lambda: peers.before_forward(one.model, peers.tensor_loader(one.images, 60), mask),
        )
    )
    dense = jobs("lenet_300_100", data, scale.nets, 0.5, 60)
    found.append(Variant("plain loop, 1 ticket", partial(trained, dense[:1], "plain"), True))
    found.append(Variant("stacked", partial(trained, dense, "stacked"), True))
    goals = [Goal("stacked", tuple(pil), 5, torch.float32)]
    for sparsity, least in ((90, 9), (95, 12), (98, 18)):
        tickets = jobs("lenet_300_100", data, scale.nets, 1 - sparsity / 100, 60)
        few = partial(trained, tickets[:1], "sparse")
        found.append(Variant(f"sparse {sparsity} %, 1 ticket", few, True))
        found.append(Variant(f"sparse {sparsity} %", partial(trained, tickets, "sparse"), True))
        goals.append(Goal(f"sparse {sparsity} %", ("PIL, mask before forward",), least))
    facts = {"gemm_gflops": gemm(), "tickets": scale.nets}
    return Case("lenet", "LeNet-300-100, batch 60", "images/s", pil[0], found, goals, facts)


def _peer(loop: peers.Style, job: Job, workers: int, pad: int = 0) -> float:
    assert job.mask is not None
    loader = peers.pil_loader(job.images, job.recipe.batch, pad, workers)
    return loop(job.model, loader, job.mask)


def ensembling(scale: Scale, count: int) -> Case:
    """`count` LeNets with their own batches: ours against torch.func's vmap, input included."""
    data = synthetic(scale.images // 2, MNIST)
    tickets = jobs("lenet_300_100", data, count, 0.5, 60)
    found_masks = [job.mask or Mask({}) for job in tickets]

    def peer() -> float:
        group = peers.Ensemble([job.model for job in tickets], found_masks)
        return sum(group.step(x, y) for x, y in _batches(data, count, 60))

    found = [
        Variant("torch.func vmap", peer),
        Variant("stacked", partial(trained, tickets, "stacked"), True),
        Variant("plain loop, one by one", partial(trained, tickets, "plain"), True),
    ]
    goals = [Goal("stacked", ("torch.func vmap",), 1.0, torch.float32)]
    title = f"{count} LeNets at once, batch 60"
    return Case(f"ensembling-lenet-{count}", title, "images/s", found[0].name, found, goals)


def _batches(data: DataSet, count: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of resident batches, one per net: x (K, B, C, H, W), y (K, B)."""
    batches = Batches(data.train, data)
    orders = [torch.randperm(len(data.train)).split(batch) for _ in range(count)]
    for index in zip(*orders, strict=True):
        yield torch.stack([batches(i) for i in index]), data.train.y[torch.stack(index)]


# ---------------------------------------------------------------- planted nets

SHAPE = (2, 100, 100, 100, 4)


def _circle(count: int) -> tuple[Tensor, Tensor]:
    x, y = planting.sample("circle", count, 0.0, torch.Generator().manual_seed(0))
    return x.float(), y


def planted(scale: Scale, popup: bool) -> Case:
    """Many small MLPs of Plant 'n' Seek, batch 32: trained under masks, or by edge-popup."""
    count = scale.planted if not popup else max(2, scale.planted // 4)
    x, y = _circle(scale.planted_images)
    kind: Any = peers.PoppedLinear if popup else peers.MaskedLinear
    nets = [peers.small_net(kind, SHAPE, 0.5) for _ in range(count)]
    random = torch.Generator().manual_seed(0)
    states = [stacks.cast(planting.mother(SHAPE, random), torch.float32) for _ in range(count)]
    found_masks = [Mask({n: torch.rand(w.shape) < 0.5 for n, w in s.items()}) for s in states]

    def ours() -> float:
        if popup:
            goals = [PopupGoal(0.5)] * count
            edge_popup(states, goals, x, y, "classification", PopupFit(epochs=1), (0,))
        else:
            stacks.train(states, found_masks, x, y, "classification", Fit(epochs=1), (0,))
        return float(count * len(x))

    name = "edge-popup" if popup else "planted"
    peer = "layer by layer, sorted scores" if popup else "net after net, masked layers, Adam"
    found = [
        Variant(peer, lambda: peers.planted_epoch(nets, x, y, popup)),
        Variant("stacked", ours, True),
    ]
    goals = [Goal("stacked", (peer,), 5 if popup else 9, torch.float32)]
    title = f"{count} MLPs {'-'.join(map(str, SHAPE))}" + (", edge-popup" if popup else "")
    return Case(name, title, "images/s", peer, found, goals, {"nets": count})


def tiny_ensembling(scale: Scale, count: int) -> Case:
    """Small MLPs with their own batches of 32: ours against vmap."""
    shape = (1, 4, 4)
    data = synthetic(5 * scale.planted_images, shape)
    spec = ModelSpec(name="mlp", width=100, depth=3)
    recipe = Recipe(lr=0.01, batch=32, length=Step(1, "ep"), schedule="constant")
    nets = [models.build(spec, shape, 10, seed) for seed in range(count)]
    found_masks = [random_mask(model, 0.5, seed) for seed, model in enumerate(nets)]
    tickets = [
        Job(model, data.train, data, recipe, (seed,), mask)
        for seed, (model, mask) in enumerate(zip(nets, found_masks, strict=True))
    ]

    def peer() -> float:
        group = peers.Ensemble(nets, found_masks)
        return sum(group.step(x, y) for x, y in _batches(data, count, 32))

    found = [
        Variant("torch.func vmap", peer),
        Variant("stacked", partial(trained, tickets, "stacked"), True),
    ]
    goals = [Goal("stacked", ("torch.func vmap",), 1.0, torch.float32)]
    title = f"{count} MLPs 16-100-100-100-10 at once, batch 32"
    return Case(f"ensembling-mlp-{count}", title, "images/s", found[0].name, found, goals)


# ---------------------------------------------------------------- convnets


def convnet(scale: Scale, name: str) -> Case:
    """ResNet-20 with input against the PIL loop, Conv-2 without: float32 and bf16."""
    small = name == "conv2"
    shape = MNIST if small else CIFAR
    batch = scale.conv_batch
    data = synthetic(scale.conv_images, shape, Augment() if small else Augment(crop=4, flip=True))
    (one,) = jobs(name, data, 1, 0.1, batch, scale.wide)
    last = CPU.model_copy(update={"channels_last": True})
    half = last.model_copy(update={"precision": "bf16"})
    if small:
        peer = Variant(
            "resident, default SGD, mask before forward",
            lambda: peers.before_forward(one.model, _resident(data, batch), one.mask or Mask({})),
        )
    else:
        peer = Variant("PIL, mask before forward", partial(_peer, peers.before_forward, one, 0, 4))
    found = [
        peer,
        Variant("plain loop", partial(trained, [one], "plain"), True),
        Variant("plain loop, channels_last", partial(trained, [one], "plain", last), True),
        Variant("plain loop, channels_last + bf16", partial(trained, [one], "plain", half), True),
    ]
    goals = [Goal(found[3].name, (peer.name,), 1.9 if small else 2.2, torch.bfloat16)]
    if not small:
        goals.insert(0, Goal(found[2].name, (peer.name,), 1.35, torch.float32))
    return Case(name, f"{name}, batch {batch}", "images/s", peer.name, found, goals)


def _resident(data: DataSet, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    batches = Batches(data.train, data)
    for index in torch.randperm(len(data.train)).split(batch):
        yield batches(index), data.train.y[index]


def compaction(scale: Scale) -> Case:
    """Steps of VGG-16 with batch-norm under SynFlow's mask of 1 %: whole, and compacted."""
    data = synthetic(scale.conv_images, CIFAR)
    batch = scale.conv_batch
    (one,) = jobs("vgg16_bn", data, 1, 1.0, batch, scale.wide)
    assert one.mask is not None
    mask = synflow_mask(one.model, one.mask, 0.01 if scale.wide else 0.2, 20, CIFAR)
    small = compact(one.model, mask, CIFAR, least=1.0)
    assert small is not None
    whole = Job(one.model, one.images, data, one.recipe, one.seed, mask)
    less = Job(small.model, one.images, data, one.recipe, one.seed, small.mask)
    found = [
        Variant("whole", partial(trained, [whole], "plain"), True),
        Variant("compacted", partial(trained, [less], "plain"), True),
    ]
    goals = [Goal("compacted", ("whole",), 2.5, torch.float32)]
    facts = {"flops_ratio": small.gain, "density": mask.density}
    title = f"VGG-16-BN at 1 % (SynFlow), batch {batch}"
    return Case("compaction", title, "images/s", "whole", found, goals, facts)


# ---------------------------------------------------------------- scores and thresholds


def synflow_mask(
    model: nn.Module, mask: Mask, density: float, rounds: int, shape: tuple[int, int, int]
) -> Mask:
    """SynFlow's mask by our fast implementation."""
    x, y = torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64)
    return saliency.prune_model(model, mask, "synflow", density, x, y, rounds=rounds)


def synflow(scale: Scale, name: str) -> Case:
    """SynFlow's schedule to 1 %: the authors' way and ours, with equal masks."""
    rounds = scale.flow_rounds[name != "vgg16_bn"]
    model = net(name, CIFAR, 0, scale.wide)
    dense = ones(model, models.prunable(model, "conv_linear"))
    found: dict[str, Mask] = {}
    facts: dict[str, Any] = {"rounds": rounds, "mask bits": dense.total}

    def run(way: str, prune: Any) -> float:
        found[way] = prune(model, dense, 0.01, rounds, CIFAR)
        if len(found) == 2:
            differing = found["peer"].flat() != found["ours"].flat()
            facts["mask bits that differ"] = int(differing.sum())
        return float(rounds)

    variants = [
        Variant("authors' way", partial(run, "peer", peers.synflow)),
        Variant("saliency.prune_model", partial(run, "ours", synflow_mask), True),
    ]
    least = 2.5 if name == "vgg16_bn" else 1.5
    goals = [Goal("saliency.prune_model", ("authors' way",), least)]
    title = f"SynFlow, {name}, {rounds} rounds to 1 %"
    return Case(f"synflow-{name}", title, "rounds/s", variants[0].name, variants, goals, facts)


def grasp(scale: Scale) -> Case:
    """GraSP's scores of ResNet-20 on one batch: the gradient twice, and both from one graph."""
    model, data = net("resnet20", CIFAR, 0, scale.wide), synthetic(2 * scale.conv_batch, CIFAR)
    dense = ones(model, models.prunable(model, "conv_linear"))
    x, y = Batches(data.train, data)(torch.arange(len(data.train))), data.train.y
    found: dict[str, dict[str, Tensor]] = {}
    facts: dict[str, Any] = {}

    def run(way: str, score: Any) -> float:
        found[way] = score()
        if len(found) == 2:
            apart = [(found["peer"][name] - found["ours"][name]).abs().max() for name in dense]
            facts["largest difference of scores"] = float(max(apart))
        return float(len(y))

    peer, ours = (
        partial(peers.grasp, model, dense, x, y),
        partial(saliency.score, model, dense, "grasp", x, y),
    )
    variants = [
        Variant("authors' way", partial(run, "peer", peer)),
        Variant("saliency.score", partial(run, "ours", ours), True),
    ]
    title = f"GraSP, resnet20, one batch of {len(y)}"
    return Case("grasp", title, "images/s", variants[0].name, variants, [], facts)


def threshold(scale: Scale) -> Case:
    """The k-th of as many scores as VGG-16 has; the last variant also gives the mask."""
    scores = torch.rand(scale.scores, generator=torch.Generator().manual_seed(0)).square_()
    keep = scale.scores // 10
    place, array = scale.scores - keep, scores.numpy()
    ways: dict[str, Any] = {
        "np.sort": lambda: np.sort(array)[place],
        "torch.sort": lambda: scores.sort().values[place],
        "torch.topk": lambda: scores.topk(keep).values[-1],
        "torch.kthvalue": lambda: scores.kthvalue(place + 1).values,
        "np.min (one read)": array.min,
        "selection.kth_largest": lambda: selection.kth_largest([scores], keep),
        "selection.top_k (mask)": lambda: selection.top_k(scores, keep),
    }

    def run(way: Any) -> float:
        way()
        return float(scale.scores)

    found = [
        Variant(name, partial(run, way), name.startswith("selection."))
        for name, way in ways.items()
    ]
    goals = [
        Goal("selection.kth_largest", ("np.sort",), 10, limit="np.min (one read)"),
        Goal("selection.kth_largest", ("torch.kthvalue",), 3, limit="np.min (one read)"),
    ]
    expected = scores >= torch.from_numpy(np.sort(array))[place]
    chosen = selection.top_k(scores, keep)
    equal = int(chosen.sum()) == keep and bool((chosen <= expected).all())
    title = f"The k-th of {scale.scores:,} float32 scores"
    return Case("threshold", title, "scores/s", "np.sort", found, goals, {"masks equal": equal})


# ---------------------------------------------------------------- all of them


Cases = dict[str, tuple[Callable[[], Case], int]]
"""By name: how each case is made (only when it runs), and its rounds."""


def cases(scale: Scale) -> Cases:
    """Every case on a CPU core."""
    few, wide = scale.few_rounds, scale.wide
    found: Cases = {
        "augmentation": (partial(augmentation, scale), scale.rounds),
        "lenet": (partial(lenet, scale), scale.rounds),
    }
    for count in (4, 16) if wide else (2,):
        found[f"ensembling-lenet-{count}"] = partial(ensembling, scale, count), scale.rounds
    for count in (32, 128) if wide else (2,):
        found[f"ensembling-mlp-{count}"] = partial(tiny_ensembling, scale, count), scale.rounds
    found |= {
        "planted": (partial(planted, scale, popup=False), scale.rounds),
        "edge-popup": (partial(planted, scale, popup=True), scale.rounds),
        "resnet20": (partial(convnet, scale, "resnet20"), few),
        "conv2": (partial(convnet, scale, "conv2"), few),
        "compaction": (partial(compaction, scale), few),
        "synflow-resnet20": (partial(synflow, scale, "resnet20"), few),
        "synflow-vgg16_bn": (partial(synflow, scale, "vgg16_bn"), min(2, few)),
        "grasp": (partial(grasp, scale), few),
        "threshold": (partial(threshold, scale), scale.rounds),
    }
    return found
