"""Lines between nets: interpolation, batch-norm estimated anew, errors and barriers by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import CPU, Message, equal, small_net
from emulated import emulated
from torch import Tensor, nn

from ticketlab.data.sets import Augment, Batches, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.papers.geometry.algorithm.lines import Line, between, line, restate
from ticketlab.pruning.masks import State
from ticketlab.training.evaluation import evaluate
from ticketlab.training.net import Net


def data_of(pixels: Sequence[Sequence[int]], labels: Sequence[int]) -> DataSet:
    """Images of one row, whose pixels reach the net as they are divided by 255."""
    y = torch.tensor(labels)
    images = Images(torch.tensor(pixels, dtype=torch.uint8)[:, None, None], y)
    flat: dict[str, Any] = dict.fromkeys(("train_index", "validation_index", "test_index"), y)
    zero, one = torch.zeros(1), torch.ones(1)
    return DataSet("hand", 2, images, images, images, zero, one, Augment(), "", **flat)


XOR = data_of([[0, 0], [0, 255], [255, 0], [255, 255]], [0, 1, 1, 0])
RAMP = data_of([[10 * step] for step in range(10)], [0] * 10)


def of(net: Net, *tensors: Sequence[Any]) -> State:
    """A state of a net with these parameters, in its order."""
    own = net.state()
    parts = dict(zip(net.names, tensors, strict=True))
    return {name: torch.tensor(parts[name]) if name in parts else own[name] for name in own}


def xor_net() -> tuple[Net, State, State]:
    """Two hidden units whose sum is |x1 - x2|, and the same units exchanged.

    Class 1 is where the sum is above 0.5. A share s between them it is |1 - 2s| |x1 - x2|, so that
    all images are of class 0 for s from 0.25 to 0.75.
    """
    layers = nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    net = Net(nn.Sequential(*layers), CPU)
    rest = [0.0, 0.0], [[0.0, 0.0], [1.0, 1.0]], [0.5, 0.0]
    one, two = [1.0, -1.0], [-1.0, 1.0]
    return net, of(net, [one, two], *rest), of(net, [two, one], *rest)


class Norm(nn.Sequential):
    """One pixel, normalised over the images; class 1 is where the result is above 1."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 2))


def norm_net() -> tuple[Net, State, State, DataSet]:
    """The same classifier twice, the second with 9 times the weight before its batch-norm.

    Half-way the true standard deviation is 5 times the first, and the mixed one sqrt(41) = 6.4
    times. The images' levels 0, 2, ..., 198 have mean 99 and standard deviation 58.
    """
    levels = torch.arange(0, 200, 2)
    data = data_of(levels[:, None].tolist(), (levels > 99 + 58).long().tolist())
    net, states = Net(Norm(), CPU), []
    rest = [0.0], [1.0], [0.0], [[0.0], [1.0]], [1.0, 0.0]
    for weight in (1.0, 9.0):
        net.rewind(of(net, [[weight]], *rest))
        restate(net, data.train, data)
        states.append(net.state())
    return net, states[0], states[1], data


# ---------------------------------------------------------------- interpolation


def bits(state: State) -> State:
    return {n: t.view(torch.int32) if t.is_floating_point() else t for n, t in state.items()}


def test_the_ends_are_the_nets_themselves_bit_for_bit() -> None:
    a, b = small_net(seed=0).state(), small_net(seed=1).state()
    first, *_, count = (name for name in a if "conv1" in name or "num_batches" in name)
    a[first][0, 0, 0, 0] = b[first][0, 0, 0, 1] = -0.0
    b[count] += 7
    assert equal(bits(between(a, b, 0.0)), bits(a))
    assert equal(bits(between(a, b, 1.0)), bits(b))


def test_between_the_ends_everything_but_counts_is_mixed() -> None:
    a = {"w": torch.tensor([1.0, -2.0]), "count": torch.tensor(3)}
    b = {"w": torch.tensor([5.0, 2.0]), "count": torch.tensor(9)}
    found = between(a, b, 0.25)
    assert found["w"].tolist() == [2.0, -1.0]
    assert found["count"].item() == 3
    assert a["w"].tolist() == [1.0, -2.0] and b["w"].tolist() == [5.0, 2.0]


def test_a_net_and_itself_have_nothing_between_them() -> None:
    state = small_net().state()
    assert all(equal(between(state, state, share / 7), state) for share in range(8))


def test_states_that_cannot_be_mixed_are_refused_in_one_line(one_line: Message) -> None:
    a, other = small_net().state(), small_net(width=5).state()
    assert "has shape" in one_line(lambda: between(a, other, 0.5))
    assert "is in only the net" in one_line(lambda: between(a, {}, 0.5))
    assert one_line(lambda: between(a, a, 1.5)) == "share: 1.5, allowed: 0 to 1"
    assert "share: nan" in one_line(lambda: between(a, a, float("nan")))


# ---------------------------------------------------------------- batch-norm


def norms(net: Net) -> list[nn.BatchNorm2d]:
    return [module for module in net.model.modules() if isinstance(module, nn.BatchNorm2d)]


def inputs(net: Net, x: Tensor) -> list[Tensor]:
    """What reaches each batch-norm in training mode, float64 (channels, values)."""
    seen: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].double()))
        for norm in norms(net)
    ]
    with torch.no_grad():
        net.model.train()(x)
    for hook in hooks:
        hook.remove()
    return [one.transpose(0, 1).flatten(1) for one in seen]


@pytest.mark.parametrize(("batch", "sizes"), [(500, [200]), (90, [100, 100]), (30, [33] * 6)])
def test_statistics_are_those_of_the_images(digits: DataSet, batch: int, sizes: list[int]) -> None:
    """Equal batches: the remainder of 200 images in 6 batches of 33 is left out."""
    net = small_net()
    before = net.state()
    x = Batches(digits.train, digits)(torch.arange(sum(sizes)))
    each = [inputs(net, part) for part in x.split(sizes)]
    net.rewind(before)
    restate(net, digits.train, digits, batch)
    for norm, *parts in zip(norms(net), *each, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        mean = torch.stack([part.mean(1) for part in parts]).mean(0).float()
        variance = torch.stack([part.var(1) for part in parts]).mean(0).float()
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-5)


def test_every_image_counts_the_same(digits: DataSet) -> None:
    """The mean before the first batch-norm is that of all images, in however many batches."""
    net = small_net()
    (first, *_) = inputs(net, Batches(digits.train, digits)(torch.arange(198)))
    for batch in (500, 98, 70, 60, 30):
        restate(net, digits.train.select(torch.arange(198)), digits, batch)
        mean = norms(net)[0].running_mean
        assert mean is not None
        torch.testing.assert_close(mean, first.mean(1).float(), atol=1e-5, rtol=0)


def test_only_the_statistics_change_and_the_same_images_give_the_same(digits: DataSet) -> None:
    net = small_net()
    norms(net)[0].momentum = 0.3
    before, weights = net.state(), net.weights.clone()
    for training in (True, False):
        net.model.train(training)
        restate(net, digits.train, digits)
        assert net.model.training is norms(net)[0].training is training
        assert [norm.momentum for norm in norms(net)] == [0.3, 0.1, 0.1]
    assert torch.equal(net.weights, weights) and not net.grads.any()
    first = net.state()
    changed = {name for name in first if not torch.equal(first[name], before[name])}
    assert {name.split(".")[-1] for name in changed} == {
        "running_mean", "running_var", "num_batches_tracked"
    }  # fmt: skip
    restate(net, digits.train, digits)
    assert equal(net.state(), first)


@pytest.mark.parametrize("training", [True, False])
def test_an_error_leaves_mode_and_momentum_as_they_were(digits: DataSet, training: bool) -> None:
    net = small_net()
    net.model.train(training)

    def fail(*_: object) -> None:
        raise RuntimeError("in the last layer")

    list(net.model.children())[-1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the last layer"):
        restate(net, digits.train, digits)
    assert [norm.momentum for norm in norms(net)] == [0.1] * 3
    assert {module.training for module in net.model.modules()} == {training}


def test_a_net_without_batch_norm_is_not_even_run(digits: DataSet) -> None:
    net = small_net("lenet_300_100")
    before = net.state()

    def fail(*_: object) -> None:
        raise AssertionError("a forward pass")

    net.model.register_forward_pre_hook(fail)
    restate(net, digits.train, digits)
    assert equal(net.state(), before) and net.model.training


def test_no_images_are_refused_in_one_line(digits: DataSet, one_line: Message) -> None:
    net, none = small_net(), digits.train.select(torch.arange(0))
    assert one_line(lambda: restate(net, none, digits)) == "statistics: 0, allowed: at least 1"
    no_batch = one_line(lambda: restate(net, digits.train, digits, 0))
    assert no_batch == "batch: 0, allowed: at least 1"


# ---------------------------------------------------------------- lines and barriers


def test_exchanged_units_have_the_same_errors_and_a_barrier_between() -> None:
    net, a, b = xor_net()
    found = line(net, a, b, XOR.test, XOR, XOR.train)
    assert found.shares == pytest.approx([step / 10 for step in range(11)])
    assert found.shares[0] == 0 and found.shares[-1] == 1
    assert found.errors == (0, 0, 0, 50, 50, 50, 50, 50, 0, 0, 0)
    assert found.barrier == 50


def test_a_net_and_itself_have_no_barrier(digits: DataSet) -> None:
    net = small_net()
    found = line(net, net.state(), net.state(), digits.test, digits, digits.train, 4)
    assert len(set(found.errors)) == 1 and 0 < found.errors[0] <= 100
    assert found.barrier == 0


def test_an_error_that_grows_evenly_is_no_barrier() -> None:
    """The border moves over one image per step; the mean of the ends would give 50 points."""
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), CPU)
    a, b = (of(net, [[0.0], [1.0]], [border / 255, 0.0]) for border in (95, -5))
    found = line(net, a, b, RAMP.test, RAMP, RAMP.train)
    assert found.errors == tuple(range(0, 101, 10))
    assert found.barrier == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("errors", "barrier"),
    [
        ((0, 30, 40, 60, 20), 45),  # above the line's 15; the mean of the ends would give 50
        ((20, 60, 40, 30, 0), 45),
        ((10, 0, 5, 7, 30), 0),  # never above
        ((4, 5, 6, 7, 8), 0),
        ((7.3, 7.3, 7.3, 7.3, 7.3), 0),
        ((10, 10, 10.5, 10, 10), 0.5),
    ],
)
def test_a_barrier_is_the_highest_rise_above_the_line(
    errors: tuple[float, ...], barrier: float
) -> None:
    assert Line((0.0, 0.25, 0.5, 0.75, 1.0), errors).barrier == barrier


def test_between_batch_norm_nets_the_mixed_statistics_would_be_wrong() -> None:
    net, a, b, data = norm_net()
    net.rewind(between(a, b, 0.5))
    assert evaluate(net, data.test, Batches(data.test, data)).accuracy < 0.95
    assert line(net, a, b, data.test, data, data.train, 3).errors == (0, 0, 0)


def test_the_ends_get_new_statistics_too() -> None:
    net, a, b, data = norm_net()
    wrong = {name: t + 1 if name.endswith("running_mean") else t for name, t in a.items()}
    assert line(net, wrong, b, data.test, data, data.train, 3).errors == (0, 0, 0)
    assert line(net, b, wrong, data.test, data, data.train, 3).errors == (0, 0, 0)


def test_statistics_and_errors_are_of_their_own_images() -> None:
    """Statistics of the darker half move the border, and errors are counted on the brighter."""
    net, a, b, data = norm_net()
    half = torch.arange(100) < 50
    dark, bright = (Images(data.test.x[part], data.test.y[part]) for part in (half, ~half))
    assert line(net, a, b, bright, data, dark, 3).errors == (58, 58, 58)  # levels 100 to 156
    assert line(net, a, b, bright, data, data.train, 3).errors == (0, 0, 0)


def test_the_net_is_left_at_the_second_end_and_the_states_as_they_were() -> None:
    net, a, b, data = norm_net()
    wrong = {name: t + 1 if name.endswith("running_mean") else t for name, t in b.items()}
    copies = [{name: t.clone() for name, t in state.items()} for state in (a, wrong)]
    net.model.eval()
    line(net, a, wrong, data.test, data, data.train, 3)
    assert equal(net.state(), copies[1]) and not net.model.training
    assert equal(a, copies[0]) and equal(wrong, copies[1])


def test_bad_lines_are_refused_in_one_line(one_line: Message) -> None:
    net, a, b = xor_net()
    none = XOR.test.select(torch.arange(0))

    def refused(*arguments: Any) -> str:
        return one_line(lambda: line(net, *arguments))

    assert refused(a, b, XOR.test, XOR, XOR.train, 2) == "points: 2, allowed: at least 3"
    assert refused(a, b, none, XOR, XOR.train) == "images: 0, allowed: at least 1"
    assert refused(a, b, XOR.test, XOR, none) == "statistics: 0, allowed: at least 1"
    more = b | {"more": torch.zeros(1)}
    assert "is in only the state" in refused(a, more, XOR.test, XOR, XOR.train)


def test_states_may_lie_on_another_device_than_the_net(digits: DataSet) -> None:
    a, b = small_net(seed=0).state(), small_net(seed=1).state()
    want = line(small_net(), a, b, digits.test, digits, digits.train, 3)
    with emulated():
        net, there = small_net(runtime=Runtime(device="cuda")), digits.to("cuda")
        net.rewind(b)
        assert line(net, a, net.state(), there.test, there, there.train, 3) == want
        assert line(net, a, b, there.test, there, there.train, 3) == want
        assert equal(between(a, net.state(), 0.5), between(a, b, 0.5))


def test_states_are_copied_to_the_device_once_for_all_points(digits: DataSet) -> None:
    a, b = small_net(seed=0).state(), small_net(seed=1).state()
    with emulated() as device:
        net, there, seen = small_net(runtime=Runtime(device="cuda")), digits.to("cuda"), []
        for points in (3, 9):
            device.uploads.clear()
            line(net, a, b, there.test, there, there.train, points)
            seen.append(device.uploads.total())
    assert seen == [4, 4]  # two states, float32 and batch-norm's counts
