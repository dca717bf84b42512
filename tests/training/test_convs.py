"""A convnet on its surviving weights: every number of a step is autograd's, and who takes it."""

import copy
from typing import Any

import pytest
import torch
from conftest import CPU, Message
from torch import Tensor, nn
from torch.nn import functional

from ticketlab import models
from ticketlab.data.sets import DataSet
from ticketlab.gpu import Runtime
from ticketlab.many.train_many import Job, train_many
from ticketlab.models import ModelSpec
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.training import passes
from ticketlab.training.convs import SparseConvnet
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step

NETS: dict[str, dict[str, Any]] = {
    "conv2": {"width": 4},
    "conv3": {"width": 4, "conv_bias": True},
    "conv3_strided": {"width": 4},
    "conv4": {"width": 4},
    "resnet8": {"width": 4},
    "vgg16_bn": {"width": 4},
}
NHWC = CPU.model_copy(update={"channels_last": True})
SHAPE = (3, 17, 16)
ROUNDING = 3e-6
"""Relative error (Euclidean norm) of a float32 gradient that is summed as here; 2e-5 by oneDNN."""
SGD = Recipe(
    lr=0.05, momentum=0.9, weight_decay=1e-3, batch=30, length=Step(2, "ep"), warmup=Step(3, "it")
)  # fmt: skip


def build(name: str, shape: tuple[int, int, int] = SHAPE, runtime: Runtime = CPU) -> Net:
    return Net(models.build(ModelSpec(name=name, **NETS[name]), shape, 10, 3), runtime)


def random_mask(net: Net, density: float, rule: str = "conv_linear") -> Mask:
    random = torch.Generator().manual_seed(5)
    dense = ones(net.model, models.prunable(net.model, rule))
    scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
    return keep_top(scores, round(density * dense.total))


def batch(count: int = 12, shape: tuple[int, int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    """Images with an empty half, so that pools see equal maxima, and labels."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(count, *shape, generator=random)
    x[..., : shape[2] // 2] = 0
    return x, torch.randint(10, (count,), generator=random)


def in_double(net: Net, x: Tensor, y: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """The net after a pass by autograd in float64, its loss and its logits."""
    model = copy.deepcopy(net.model).double()
    for parameter in model.parameters():
        parameter.grad = None
    logits = model(x.double())
    loss = functional.cross_entropy(logits, y)
    loss.backward()
    return model, loss.detach(), logits.detach()


# ---------------------------------------------------------------- one step


@pytest.mark.parametrize("runtime", [CPU, NHWC], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", NETS)
def test_a_step_is_autograds_in_double_precision(name: str, runtime: Runtime) -> None:
    net = build(name, runtime=runtime)
    mask = random_mask(net, 0.3)
    net.weights.mul_(net.flatten(mask))
    net.grads.fill_(7)  # of the step before
    x, y = batch()
    model, loss, logits = in_double(net, x, y)
    ours, seen = SparseConvnet(net, mask).descend(x, y)
    assert float(ours) == pytest.approx(float(loss), abs=1e-5)
    assert torch.allclose(seen.double(), logits, atol=1e-4)
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    for key, parameter in net.model.named_parameters():
        wanted, grad = model.get_parameter(key).grad, parameter.grad
        assert wanted is not None and grad is not None
        kept = mask.get(key, torch.ones_like(grad, dtype=torch.bool))
        allowed = ROUNDING * float(wanted.norm() + whole / 10)
        assert float(((grad - wanted) * kept).norm()) <= allowed, key
        if kept.dim() == 4:
            assert not grad[~kept].any(), "a removed weight has no gradient"
    for key, buffer in net.model.named_buffers():
        assert torch.allclose(buffer.double(), model.get_buffer(key).double(), atol=1e-5), key


def test_batches_of_another_size_and_a_layer_without_weights() -> None:
    net = build("conv3_strided")
    mask = random_mask(net, 0.3)
    mask = Mask({**mask, "body.conv2.weight": torch.zeros_like(mask["body.conv2.weight"])})
    net.weights.mul_(net.flatten(mask))
    written = SparseConvnet(net, mask)
    for count in (12, 5, 12):
        x, y = batch(count)
        model, loss, _ = in_double(net, x, y)
        assert float(written.descend(x, y)[0]) == pytest.approx(float(loss), abs=1e-5)
        grad, wanted = (m.get_parameter("body.bn3.bias").grad for m in (net.model, model))
        assert grad is not None and wanted is not None
        assert torch.allclose(grad.double(), wanted, atol=1e-7)


# ---------------------------------------------------------------- whole trainings


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["conv3", "resnet8"])
def test_a_training_is_that_of_the_plain_loop(digits: DataSet, name: str, optimizer: str) -> None:
    changes = {"optimizer": optimizer} | ({"lr": 0.002} if optimizer == "adam" else {})
    recipe = SGD.model_copy(update=changes)
    found = []
    for path in ("auto", "plain"):
        net = build(name, digits.shape, NHWC)
        mask = random_mask(net, 0.2, "conv")
        history = train(
            net, digits.train, digits, recipe, seed=(0,), mask=mask, path=path,  # type: ignore[arg-type]
        )  # fmt: skip
        assert not net.weights[net.flatten(mask) == 0].any()
        found.append((net, history))
    (ours, mine), (plain, theirs) = found
    assert {epoch.path for epoch in mine} == {"sparse"}
    assert {epoch.path for epoch in theirs} == {"plain"}
    assert [e.loss for e in mine] == pytest.approx([e.loss for e in theirs], abs=5e-3)
    assert float((ours.weights - plain.weights).abs().mean()) < 1e-3


def test_train_many_says_that_it_was_sparse(digits: DataSet) -> None:
    net = build("conv3", digits.shape, NHWC)
    jobs = [
        Job(net.model, digits.train, digits, SGD, (0,), random_mask(net, density))
        for density in (0.1, 0.1, 0.8)
    ]
    done = train_many(jobs, NHWC, tell=lambda line: None)
    assert [one.path for one in done] == ["sparse", "sparse", "plain"]
    assert [one.history[0].path for one in done] == ["sparse", "sparse", "plain"]
    alone = build("conv3", digits.shape, NHWC)
    train(alone, digits.train, digits, SGD, seed=(0,), mask=jobs[1].mask)
    assert all(torch.equal(done[1].state[n], t) for n, t in alone.state().items())


# ---------------------------------------------------------------- the choice


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    net = build("conv3")
    low, high = random_mask(net, 0.1), random_mask(net, 0.6)
    assert passes.choose(net.model, low, CPU, SHAPE) == "sparse"
    assert passes.choose(net.model, high, CPU, SHAPE) == "plain"
    assert passes.choose(net.model, None, CPU, SHAPE) == "plain"
    assert passes.choose(net.model, low, CPU, SHAPE, edited=True) == "plain"
    for change in ({"precision": "bf16"}, {"compile": True}):
        assert passes.choose(net.model, low, CPU.model_copy(update=change), SHAPE) == "plain"
    middle = random_mask(net, 0.3)
    assert passes.choose(net.model, middle, CPU, SHAPE) == "sparse"
    assert passes.choose(net.model, middle, CPU, (3, 80, 80)) == "plain", "large maps"
    assert passes.choose(net.model, low, CPU, (3, 80, 80)) == "sparse"
    monkeypatch.setattr(passes, "MOST_ENTRIES", 1000)
    assert passes.choose(net.model, low, CPU, SHAPE) == "plain"


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_other_nets_are_plain(digits: DataSet, one_line: Message, name: str) -> None:
    net = Net(models.build(ModelSpec(name=name), digits.shape, 10, 0), CPU)
    mask = random_mask(net, 0.01, "conv")
    assert passes.choose(net.model, mask, CPU, digits.shape) == "plain"
    message = one_line(
        lambda: train(net, digits.train, digits, SGD, seed=(0,), mask=mask, path="sparse")
    )
    assert "path: 'sparse' is not possible" in message


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.MaxPool2d(3, padding=1),
        nn.MaxPool2d((2, 1)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(2),
        nn.Dropout(),
    ],
    ids=str,
)
def test_a_layer_in_another_form_is_not_written(layer: nn.Module) -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = models.Net(body, nn.Linear(4, 10), "default")
    keep = torch.zeros(4, 1, 3, 3, dtype=torch.bool)
    assert passes.not_sparse(model, Mask({"body.0.weight": keep}), CPU)
    model.body = nn.Sequential(body[0], nn.ReLU(), *body[2:])
    assert not passes.not_sparse(model, Mask({"body.0.weight": keep}), CPU)
