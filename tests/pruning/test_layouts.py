"""The mask is the mask for every channel count, stem and storage order of convolutions.

A weight of shape (O, 3, 3, 3), (O, 5, 5, 5) or (O, 1, 1, 1) keeps its shape when its axes are
permuted, so that a wrong order shows in values alone: the masks here have no symmetry.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import equal
from torch import Tensor, nn

from ticketlab import models
from ticketlab.data.sets import Batches, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.many.train_many import Job, train_many
from ticketlab.papers.dlth.algorithm import GrowingPenalty, Penalty, remove
from ticketlab.pruning.masks import Mask
from ticketlab.tickets.ticket import load_ticket, make_ticket, network, save_ticket
from ticketlab.training.evaluation import predict
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import KeepBest, Observer, Run, Snapshot
from ticketlab.training.recipe import Recipe, Step

RECIPE = Recipe(lr=0.05, weight_decay=1e-3, batch=64, length=Step(4, "it"))


@dataclass(frozen=True)
class Case:
    """A net on images of so many channels, its first convolution of so many pixels a side."""

    channels: int
    stem: int
    channels_last: bool
    data: DataSet

    @property
    def runtime(self) -> Runtime:
        return Runtime(device="cpu", channels_last=self.channels_last)

    def model(self) -> nn.Module:
        """Convolutions with batch-norm, a second one of the stem's shape, a square linear layer."""
        torch.manual_seed(3)
        padding = self.stem // 2
        return nn.Sequential(
            nn.Conv2d(self.channels, 5, self.stem, padding=padding), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, self.channels, self.stem, padding=padding), nn.ReLU(),
            nn.Conv2d(self.channels, 6, self.stem, padding=padding), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10),
        )  # fmt: skip

    def net(self) -> Net:
        return Net(self.model(), self.runtime)


@pytest.fixture(params=[1, 3, 5], ids=lambda n: f"{n}-channels")
def channels(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[1, 3, 5], ids=lambda n: f"stem-{n}x{n}")
def stem(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[False, True], ids=["contiguous", "channels_last"])
def case(digits: DataSet, channels: int, stem: int, request: pytest.FixtureRequest) -> Case:
    return Case(channels, stem, bool(request.param), coloured(digits, channels))


def coloured(data: DataSet, channels: int) -> DataSet:
    """The digits with channels that differ: each is the image rolled by another step."""

    def seen(images: Images) -> Images:
        rolled = [images.x.roll(shift, 3) for shift in range(channels)]
        return Images(torch.cat(rolled, 1), images.y)

    parts = {part: seen(getattr(data, part)) for part in ("train", "validation", "test")}
    return replace(data, mean=data.mean.repeat(channels), std=data.std.repeat(channels), **parts)


def lopsided(model: nn.Module) -> Mask:
    """Two of every seven entries of each weight removed, in the model's own order: no symmetry."""
    return Mask({
        name: ((torch.arange(p.numel()) ** 2 + torch.arange(p.numel()) // 5) % 7 > 1).view(p.shape)
        for name, p in model.named_parameters() if p.dim() > 1
    })  # fmt: skip


def parameters(net: Net) -> dict[str, Tensor]:
    """What the model computes with, by its own names and in its own shapes."""
    return {name: p.detach().clone() for name, p in net.model.named_parameters()}


def check_zeros(weights: dict[str, Tensor], mask: Mask, where: object) -> None:
    for name, keep in mask.items():
        assert torch.equal(weights[name] != 0, keep), (name, where)


class EveryStep(Observer):
    """Compares the model's own zeros with the mask before and after every step."""

    def __init__(self, mask: Mask) -> None:
        self.mask, self.looks = mask, 0

    def before_step(self, run: Run) -> None:
        check_zeros(parameters(run.net), self.mask, run.iteration)
        self.looks += 1

    def after_step(self, run: Run) -> None:
        self.before_step(run)


def fit(net: Net, data: DataSet, mask: Mask | None, *observers: Observer) -> None:
    train(net, data.train, data, RECIPE, seed=(0,), mask=mask, observers=observers)


def test_the_masks_of_these_tests_see_every_permutation() -> None:
    for side in (3, 5):
        mask = lopsided(nn.Conv2d(side, 8, side))["weight"]
        orders = ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 3, 2), (0, 3, 2, 1))
        for order in orders:
            assert mask.permute(order).shape == mask.shape
            assert not torch.equal(mask.permute(order), mask)


def test_removed_weights_are_zero_and_kept_ones_move(case: Case) -> None:
    net = case.net()
    mask, start, look = lopsided(net.model), parameters(net), EveryStep(lopsided(net.model))
    fit(net, case.data, mask, look)
    end = parameters(net)
    assert look.looks == 2 * 4
    check_zeros(end, mask, "at the end")
    for name, keep in mask.items():
        assert (end[name][keep] != start[name][keep]).float().mean() > 0.5, name


def test_survivors_equal_theta_bitwise_after_rewinding(case: Case) -> None:
    net = case.net()
    mask, theta = lopsided(net.model), net.state()
    assert equal(theta, dict(case.model().state_dict()))  # the net is the model that was given
    fit(net, case.data, mask)
    net.rewind(theta, mask)
    for name, tensor in net.model.state_dict().items():
        keep = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, theta[name] * keep), name


def test_a_state_and_a_rewound_net_are_the_models_own(case: Case) -> None:
    """Also the states of observers; and the outputs are those of a plain module."""
    net = case.net()
    best = KeepBest(case.data.validation, case.data)
    snapshot = Snapshot(Step(2, "it"))
    fit(net, case.data, lopsided(net.model), best, snapshot)
    assert snapshot.state is not None
    for state in (net.state(), best.state, snapshot.state):
        other = case.net()
        other.rewind(state)
        assert equal(state, other.state())
        assert equal(state, {n: t.contiguous() for n, t in other.model.state_dict().items()})
        plain = case.model()
        plain.load_state_dict(state)
        assert torch.allclose(logits(other, case.data), outputs(plain, case.data), atol=1e-5)


def logits(net: Net, data: DataSet) -> Tensor:
    return predict(net, data.test, Batches(data.test, data))


def outputs(model: nn.Module, data: DataSet) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(Batches(data.test, data)(torch.arange(len(data.test))))
    return found


def test_a_stored_ticket_is_the_net_that_was_scored(case: Case, tmp_path: Path) -> None:
    net = case.net()
    mask, theta = lopsided(net.model), net.state()
    net.rewind(theta, mask)
    scored = logits(net, case.data)
    save_ticket(make_ticket(mask, theta), tmp_path / "t.safetensors")
    back = load_ticket(tmp_path / "t.safetensors")
    assert back.mask == mask and back.weights is not None
    again = case.net()
    again.rewind(back.weights, back.mask)
    assert torch.equal(logits(again, case.data), scored)
    plain = case.model()
    plain.load_state_dict(back.weights)
    assert torch.allclose(outputs(plain, case.data), scored, atol=1e-5)


@pytest.mark.parametrize("name", ["conv3", "conv3_strided", "resnet8", "conv2"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_model_of_a_ticket_agrees_with_the_scored_net(
    digits: DataSet, name: str, channels_last: bool, tmp_path: Path
) -> None:
    data = coloured(digits, 3)
    spec = models.ModelSpec(name=name, width=4)
    model = models.build(spec, data.shape, data.classes, 0)
    net = Net(model, Runtime(device="cpu", channels_last=channels_last))
    mask, theta = lopsided(net.model), net.state()
    net.rewind(theta, mask)
    save_ticket(make_ticket(mask, theta, **network(spec, data)), tmp_path / "t.safetensors")
    found = load_ticket(tmp_path / "t.safetensors").model()
    assert torch.allclose(outputs(found, data), logits(net, data), atol=1e-5)
    check_zeros(parameters(net), mask, "as scored")


def test_weights_and_gradients_are_stored_as_the_runtime_asks(case: Case) -> None:
    net = case.net()
    fit(net, case.data, None)
    order = (0, 2, 3, 1) if case.channels_last else (0, 1, 2, 3)
    for parameter in net.model.parameters():
        for tensor in (parameter, parameter.grad):
            assert tensor is not None
            stored = tensor.permute(order) if tensor.dim() == 4 else tensor
            assert stored.is_contiguous() and stored.stride()[-1] == 1


# --- everything else that goes through the flat buffers


def test_a_penalty_presses_what_the_mask_removes_and_nothing_else(case: Case) -> None:
    """Its part of the gradient is lambda w on removed weights, in the model's own places."""
    net = case.net()
    mask = lopsided(net.model)
    pressing = GrowingPenalty(mask, Penalty(ramp=1, every=1, power=0))

    class Compare(Observer):
        looks = 0

        def before_step(self, run: Run) -> None:
            before = {n: p.grad.clone() for n, p in run.net.model.named_parameters()}
            pressing.before_step(run)
            self.looks += 1
            for name, p in run.net.model.named_parameters():
                keep = mask.get(name, torch.ones_like(p, dtype=torch.bool))
                added = p.grad - before[name]
                assert not added[keep].any(), name
                wanted = before[name] + p.detach() * pressing.trace[-1]
                assert torch.equal(p.grad[~keep], wanted[~keep]), name

    look = Compare()
    fit(net, case.data, None, look)
    assert look.looks == 4
    remove(net, mask)
    check_zeros(parameters(net), mask, "after removal")


def test_every_path_of_train_many_trains_under_the_mask(case: Case) -> None:
    model = case.model()
    job = Job(model, case.data.train, case.data, RECIPE, (0,), lopsided(model),
              validation=case.data.validation)  # fmt: skip
    (done,) = train_many([job], case.runtime, tell=lambda line: None)
    assert job.mask is not None and done.best is not None
    for state in (done.state, done.best.state):
        check_zeros({n: state[n] for n in job.mask}, job.mask, done.path)
    net = case.net()
    fit(net, case.data, job.mask)
    assert equal(done.state, net.state())
