"""Nets without what has no path to the output: the same outputs, the same training, and back."""

from dataclasses import replace

import pytest
import torch
from conftest import CPU, Message
from torch import nn

from ticketlab import models
from ticketlab.data.sets import Batches, DataSet
from ticketlab.many.train_many import Job, train_many
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.tickets.compaction import Compacted, compact
from ticketlab.training.evaluation import predict
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step

NETS = {"lenet_300_100": {}, "conv2": {"width": 8}, "conv3": {"width": 8}, "conv3_strided": {},
        "resnet8": {"width": 8}}  # fmt: skip
DECAY = Recipe(
    lr=0.02, weight_decay=0.01, batch=40, length=Step(3, "ep"), milestones=(Step(2, "ep"),)
)
ADAM = Recipe(optimizer="adam", lr=0.002, weight_decay=0.01, batch=40, length=Step(2, "ep"))


def build(name: str, seed: int = 0) -> nn.Module:
    spec = models.ModelSpec(name=name, **NETS.get(name, {"width": 4}))  # type: ignore[arg-type]
    return models.build(spec, (1, 16, 16) if "vgg" in name else (1, 14, 14), 10, seed)


def clustered(model: nn.Module, share: float = 0.5) -> Mask:
    """A random mask of few weights that spares no outgoing weight of some channels."""
    random = torch.Generator().manual_seed(1)
    dense = ones(model, models.prunable(model, "conv_linear"))
    scores = {}
    for place, (name, keep) in enumerate(dense.items()):
        scores[name] = torch.rand(keep.shape, generator=random)
        if place:  # inputs of all layers but the first
            dead = torch.rand(keep.shape[1], generator=random) < share
            scores[name][:, dead] -= 1.0
    return keep_top(scores, round(0.3 * dense.total))


def small(name: str, least: float = 0.5) -> tuple[nn.Module, Mask, Compacted]:
    model = build(name)
    mask = clustered(model)
    found = compact(model, mask, (1, 16, 16) if "vgg" in name else (1, 14, 14), least)
    assert found is not None
    return model, mask, found


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize("name", [*NETS, "vgg16_bn"])
def test_outputs_stay_and_widths_shrink(name: str) -> None:
    model, mask, found = small(name)
    with torch.no_grad():
        for weight, keep in mask.items():
            model.get_parameter(weight).mul_(keep)
    found.model.load_state_dict(found.shrink(model.state_dict()))
    x = torch.randn(5, 1, *(16, 16) if "vgg" in name else (14, 14))
    assert torch.allclose(outputs(model, x), outputs(found.model, x), atol=1e-5)
    if name != "conv3_strided":  # too narrow to lose a channel for sure
        assert found.gain > 1.05 and found.mask.total < mask.total
    assert found.flops == (
        models.flops(model, tuple(x.shape[1:])),
        models.flops(found.model, tuple(x.shape[1:])),
    )


@pytest.mark.parametrize("recipe", [DECAY, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", list(NETS))
def test_training_is_that_of_the_whole_net(name: str, recipe: Recipe, digits: DataSet) -> None:
    model = build(name)
    mask = clustered(model)
    job = Job(model, digits.train, digits, recipe, (0,), mask, None, digits.validation)
    found = compact(model, mask, digits.shape, 0.5)
    assert found is not None
    (plain,) = train_many([job], CPU, "plain", tell=lambda _: None)
    start = found.shrink(job.start())
    less = replace(job, model=found.model, mask=found.mask, state=start)
    (part,) = train_many([less], CPU, "plain", tell=lambda _: None)
    whole = found.expand(part.state, job.start(), mask, recipe, len(digits.train))
    names = dict(model.named_parameters())
    assert max(float((whole[n] - plain.state[n]).abs().max()) for n in names) < 1e-4
    assert all(not whole[n][~keep].any() for n, keep in mask.items())
    net = Net(build(name), CPU)
    net.rewind(whole)
    ours = predict(net, digits.test, Batches(digits.test, digits))
    net.rewind(plain.state)
    theirs = predict(net, digits.test, Batches(digits.test, digits))
    assert torch.allclose(ours, theirs, atol=1e-2)


def test_the_engine_takes_it_where_asked_and_where_it_pays(digits: DataSet) -> None:
    model = build("conv3")
    mask = clustered(model, 0.6)
    job = Job(model, digits.train, digits, DECAY, (0,), mask, None, digits.validation)
    dense = replace(job, mask=ones(model, list(mask)))
    ours, full = train_many([job, dense], CPU, "compacted", tell=lambda _: None)
    (plain,) = train_many([job], CPU, "plain", tell=lambda _: None)
    assert (ours.path, full.path) == ("compacted", "plain")
    assert ours.best is not None and plain.best is not None
    assert ours.best.epoch == plain.best.epoch
    names = dict(model.named_parameters())
    for mine, theirs in ((ours.state, plain.state), (ours.best.state, plain.best.state)):
        assert max(float((mine[n] - theirs[n]).abs().max()) for n in names) < 1e-4


def test_a_collapsed_net_keeps_a_channel_and_widths_are_rounded_up() -> None:
    model = build("conv3")
    none = Mask({n: torch.zeros_like(k) for n, k in clustered(model).items()})
    found = compact(model, none, (1, 14, 14), multiple=4)
    assert found is not None
    assert found.model.get_submodule("body.conv1").out_channels == 4
    assert compact(model, none, (1, 14, 14)).mask["body.conv1.weight"].shape[0] == 1  # type: ignore[union-attr]


def test_what_does_not_pay_is_none_and_what_cannot_shrink_is_one_line(one_line: Message) -> None:
    model = build("conv3")
    assert compact(model, ones(model, models.prunable(model, "conv")), (1, 14, 14)) is None
    mobile = models.build(models.ModelSpec(name="mobilenet_v2"), (1, 14, 14), 10, 0)
    dense = ones(mobile, models.prunable(mobile, "conv"))
    assert "cannot shrink" in one_line(lambda: compact(mobile, dense, (1, 14, 14)))
    alien = nn.Sequential(nn.Linear(2, 2))
    mask = ones(alien, ["0.weight"])
    assert "not a net of this bench" in one_line(lambda: compact(alien, mask, (1, 1, 2)))
    assert "fc9" in one_line(lambda: compact(model, Mask({"fc9": mask["0.weight"]}), (1, 14, 14)))
