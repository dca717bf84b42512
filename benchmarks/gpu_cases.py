"""The cases on a GPU: epochs with graphs and stacks compared with plain steps."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases as cpu_cases
from benchmarks import peers
from benchmarks.measure import Case, Goal, Variant
from ticketlab import gpu
from ticketlab.data.sets import Augment, Images
from ticketlab.gpu import Runtime
from ticketlab.many import stacks
from ticketlab.many.stacks import Fit
from ticketlab.many.train_many import Job
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.pruning.masks import Mask
from ticketlab.training.recipe import Step

EAGER = Runtime(device="auto", cuda_graphs=False, deterministic=False)
HALF = EAGER.model_copy(update={"precision": "bf16", "channels_last": True})
GRAPHED = HALF.model_copy(update={"cuda_graphs": True})
CIFAR = (3, 32, 32)
EPOCH = 50_000
EPOCHS = 3
"""Epochs per measurement: more of them reduce the weight of a graph's capture and checks."""


def cases(scale: cpu_cases.Scale) -> cpu_cases.Cases:
    """Every case on an accelerator."""
    seconds = {"resnet20": 0.25, "resnet18": 0.75, "vgg16_bn": 0.45}
    makers = {name: partial(convnet, scale, name, own) for name, own in seconds.items()}
    makers |= {"lenet": partial(lenet, scale), "planted": partial(planted, scale)}
    return {name: (make, scale.few_rounds) for name, make in makers.items()}


def convnet(scale: cpu_cases.Scale, name: str, seconds: float) -> Case:
    """Epochs of 50,000 images: float32, bf16 + channels_last, graphed; airbench-style loading."""
    count = EPOCH if scale.wide else scale.images
    data = cpu_cases.synthetic(count, CIFAR, Augment(crop=4, flip=True))
    data = data.to(gpu.choose_device())
    wide = scale.wide or name == "resnet18"
    (one,) = cpu_cases.jobs(name, data, 1, 0.1, 128, wide)
    longer = one.recipe.model_copy(update={"length": Step(EPOCHS if scale.wide else 1, "ep")})
    one = replace(one, recipe=longer)

    def peer() -> float:
        return peers.before_forward(one.model.to(data.mean.device), _loaded(data.train), _on(one))

    found = [
        Variant("masked copies (airbench's manner), same net, float32", peer),
        Variant("plain loop", partial(cpu_cases.trained, [one], "plain", EAGER), True),
        Variant("bf16 + channels_last", partial(cpu_cases.trained, [one], "plain", HALF), True),
        Variant("and graphed", partial(cpu_cases.trained, [one], "plain", GRAPHED), True),
    ]
    facts = {"wanted seconds per epoch": seconds, "images": count}
    return Case(name, f"{name}, batch 128", "images/s", found[0].name, found, (), facts)


def _on(job: Job) -> Mask:
    assert job.mask is not None
    return job.mask.to(job.device)


def _loaded(images: Images) -> Iterable[tuple[Tensor, Tensor]]:
    return peers.masked_copies(images, 128, 4)


def lenet(scale: cpu_cases.Scale) -> Case:
    """Sixteen LeNets: one at a time, stacked, stacked and graphed."""
    data = cpu_cases.synthetic(10 * scale.images, cpu_cases.MNIST).to(gpu.choose_device())
    tickets = cpu_cases.jobs("lenet_300_100", data, 8, 0.5, 60)
    graphed = EAGER.model_copy(update={"cuda_graphs": True})
    run: Any = cpu_cases.trained
    found = [
        Variant("plain loop, one at a time", partial(run, tickets[:1], "plain", EAGER), True),
        Variant("stacked", partial(run, tickets, "stacked", EAGER), True),
        Variant("stacked and graphed", partial(run, tickets, "stacked", graphed), True),
    ]
    goals = [Goal("stacked and graphed", (found[0].name,), 20)]
    return Case("lenet", "LeNet-300-100, batch 60", "images/s", found[0].name, found, goals)


def planted(scale: cpu_cases.Scale) -> Case:
    """128 small MLPs of Plant 'n' Seek: net after net, and stacked."""
    device = gpu.choose_device()
    x, y = planting.sample("circle", scale.planted_images, 0.0, torch.Generator().manual_seed(0))
    x, y = x.float().to(device), y.to(device)
    shape, count = cpu_cases.SHAPE, 128 if scale.wide else 2
    nets = [peers.small_net(peers.MaskedLinear, shape, 0.5).to(device) for _ in range(2)]
    random = torch.Generator().manual_seed(0)
    states = [stacks.cast(planting.mother(shape, random), torch.float32) for _ in range(count)]
    found = [Mask({n: torch.rand(w.shape) < 0.5 for n, w in s.items()}).to(device) for s in states]
    states = [stacks.cast(state, torch.float32, device) for state in states]

    def ours() -> float:
        stacks.train(states, found, x, y, "classification", Fit(epochs=1), (0,))
        return float(count * len(x))

    variants = [
        Variant("net after net", lambda: peers.planted_epoch(nets, x, y, False)),
        Variant("stacked", ours, True),
    ]
    goals = [Goal("stacked", ("net after net",), 100)]
    title = f"{count} MLPs {'-'.join(map(str, shape))}"
    return Case("planted", title, "images/s", "net after net", variants, goals)
