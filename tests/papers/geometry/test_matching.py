"""Permutations of hidden units: moved nets compute the same, matching finds what was moved."""

import pytest
import tiny
import torch
from conftest import Message
from torch import Tensor, nn

from ticketlab import gpu, models
from ticketlab.data.sets import Batches, DataSet, load
from ticketlab.models import ModelSpec
from ticketlab.papers.geometry.algorithm import matching
from ticketlab.papers.geometry.algorithm.matching import (
    hidden_layers,
    identity,
    match_activations,
    match_weights,
    permuted,
    permuted_mask,
)
from ticketlab.pruning.masks import Mask, State
from ticketlab.training.evaluation import predict
from ticketlab.training.net import Net

pytestmark = pytest.mark.usefixtures("tiny_root")

NETS = {
    "mlp": ModelSpec(name="mlp", width=12, depth=2),
    "conv with linear layers": ModelSpec(name="conv2", width=3),
    "batch-norm": ModelSpec(name="conv3", width=4, conv_bias=False),
    "strided": ModelSpec(name="conv3_strided", width=4),
}
RUNTIME = gpu.Runtime(device="cpu")


@pytest.fixture
def data(tiny_root: object) -> DataSet:
    return load(tiny.DIGITS, torch.device("cpu"), seed=0)


@pytest.fixture(params=NETS)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return NETS[request.param]


@pytest.fixture
def net(spec: ModelSpec, data: DataSet) -> Net:
    return Net(models.build(spec, data.shape, data.classes, 0), RUNTIME)


@pytest.fixture
def twin(spec: ModelSpec, data: DataSet) -> Net:
    """The same net from another initialisation."""
    return Net(models.build(spec, data.shape, data.classes, 9), RUNTIME)


def worn(net: Net, seed: int = 0) -> State:
    """The net's state with biases and batch-norm that differ from unit to unit."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in net.state().items():
        if not tensor.is_floating_point():
            found[name] = tensor
        elif name.endswith("running_var"):
            found[name] = 0.5 + torch.rand(tensor.shape, generator=random)
        elif tensor.dim() == 1:
            found[name] = tensor + 0.3 * torch.randn(tensor.shape, generator=random)
        else:
            found[name] = tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=random)
    return found


def drawn(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {n: torch.randperm(len(p), generator=random) for n, p in identity(model).items()}


def logits(net: Net, state: State, data: DataSet) -> Tensor:
    net.rewind(state)
    return predict(net, data.test, Batches(data.test, data))


def distance(a: State, b: State) -> float:
    return sum(float((a[n].double() - b[n].double()).square().sum()) for n in a)


def test_a_moved_net_computes_the_same(net: Net, data: DataSet) -> None:
    state, permutation = worn(net), drawn(net.model)
    moved = permuted(state, permutation, net.model)
    assert any(not torch.equal(moved[n], state[n]) for n in state)
    torch.testing.assert_close(logits(net, moved, data), logits(net, state, data), atol=1e-4,
                               rtol=1e-4)  # fmt: skip
    back = {name: order.argsort() for name, order in permutation.items()}
    again = permuted(moved, back, net.model)
    assert all(torch.equal(again[n], state[n]) for n in state)


def changed(state: State, share: float, seed: int = 2) -> State:
    """The state with noise of a share of each weight tensor's deviation."""
    random = torch.Generator().manual_seed(seed)
    return {
        n: t + share * t.std() * torch.randn(t.shape, generator=random) if t.dim() > 1 else t
        for n, t in state.items()
    }


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_weights_find_a_permutation_again(net: Net, noise: float) -> None:
    state, permutation = worn(net), drawn(net.model)
    goal = changed(permuted(state, permutation, net.model), noise)
    found = match_weights(state, goal, net.model)
    assert all(torch.equal(found[name], order) for name, order in permutation.items())
    again = match_weights(state, goal, net.model)
    assert all(torch.equal(again[name], order) for name, order in found.items())


def test_units_of_equal_inputs_are_matched_by_their_outputs(data: DataSet) -> None:
    net = Net(models.build(NETS["mlp"], data.shape, data.classes, 0), RUNTIME)
    state = dict(worn(net))
    for name in ("body.fc1.weight", "body.fc1.bias"):
        state[name] = state[name][:1].expand_as(state[name]).clone()
    permutation = drawn(net.model)
    found = match_weights(state, permuted(state, permutation, net.model), net.model)
    assert torch.equal(found["body.fc1"], permutation["body.fc1"])


def test_activations_find_every_unit_that_fires(net: Net, data: DataSet) -> None:
    """Units that never fire are alike, so that any of their places is right."""
    state, permutation = worn(net), drawn(net.model)
    found = match_activations(net, state, permuted(state, permutation, net.model), data.train, data)
    again = match_activations(net, state, permuted(state, permutation, net.model), data.train, data)
    for layer, order in permutation.items():
        assert torch.equal(again[layer], found[layer])
        assert sorted(found[layer].tolist()) == list(range(len(order)))
    for layer, (own, goal) in zip(
        hidden_layers(net.model),
        firing(net, [permuted(state, p, net.model) for p in (found, permutation)], data),
        strict=True,
    ):
        torch.testing.assert_close(own, goal, msg=layer.name)


def firing(net: Net, states: list[State], data: DataSet) -> list[tuple[Tensor, Tensor]]:
    """Two nets' activations, (images and positions, units) of each hidden layer."""
    x = Batches(data.train, data)(torch.arange(50))
    layers = hidden_layers(net.model)
    own, goal = (
        matching._activations(matching._loaded(net.model, one), layers, x) for one in states
    )
    return list(zip(own, goal, strict=True))


def test_matching_brings_unrelated_nets_together(net: Net, twin: Net) -> None:
    own, other = worn(net), worn(twin, 5)
    learned = [n for n in own if own[n].is_floating_point() and "running" not in n]
    found = permuted(own, match_weights(own, other, net.model), net.model)
    before, after = (
        distance({n: s[n] for n in learned}, {n: other[n] for n in learned}) for s in (own, found)
    )
    assert after < before


def test_a_mask_moves_with_its_weights(net: Net) -> None:
    state, permutation = worn(net), drawn(net.model)
    random = torch.Generator().manual_seed(3)
    names = models.prunable(net.model, "hidden")
    mask = Mask({n: torch.rand(state[n].shape, generator=random) < 0.3 for n in names})
    moved = permuted_mask(mask, permutation, net.model)
    assert list(moved) == list(mask) and moved.densities() == mask.densities()
    pruned = permuted({n: state[n] * mask[n] for n in mask}, permutation, net.model)
    whole = permuted(state, permutation, net.model)
    assert all(torch.equal(pruned[n], whole[n] * moved[n]) for n in mask)


def test_silent_units_still_have_a_place(data: DataSet) -> None:
    net = Net(models.build(NETS["batch-norm"], data.shape, data.classes, 0), RUNTIME)
    state = worn(net)
    dead = dict(state)
    for name in ("body.bn1.weight", "body.bn1.bias"):
        dead[name] = torch.where(torch.arange(4) < 3, -state[name].abs() - 1, state[name])
        dead[name] = torch.where(torch.arange(4) < 3, torch.zeros(4), state[name])
    found = match_activations(net, dead, state, data.train, data)
    assert sorted(found["body.conv1"].tolist()) == [0, 1, 2, 3]
    zero = {n: torch.zeros_like(t) for n, t in state.items()}
    every = match_activations(net, zero, zero, data.train, data)
    assert all(torch.equal(order, torch.arange(len(order))) for order in every.values())


def test_nets_that_diverged_cannot_be_matched(net: Net, data: DataSet, one_line: Message) -> None:
    """Not a number correlates with nothing, which would look like units that never fire."""
    state, layer = worn(net), hidden_layers(net.model)[0]
    broken = dict(state)
    broken[f"{layer.name}.weight"] = state[f"{layer.name}.weight"].clone()
    broken[f"{layer.name}.weight"].view(-1)[0] = float("nan")
    for attempt in (
        lambda: match_weights(broken, state, net.model),
        lambda: match_activations(net, state, broken, data.test, data),
    ):
        message = one_line(attempt)
        assert f"layer {layer.name!r}" in message and "not finite" in message


def test_a_permutation_has_every_unit_of_every_layer(net: Net, one_line: Message) -> None:
    state, whole = worn(net), identity(net.model)
    name = next(iter(whole))
    for bad in (
        {key: order for key, order in whole.items() if key != name},
        whole | {name: whole[name][:-1]},
        whole | {name: torch.zeros_like(whole[name])},
    ):
        assert f"permutation: {name!r}" in one_line(lambda bad=bad: permuted(state, bad, net.model))


def test_the_net_stays_as_it_was(net: Net, data: DataSet) -> None:
    before = net.state()
    net.model.train()
    match_activations(net, worn(net), worn(net, 4), data.train, data)
    assert net.model.training and all(torch.equal(before[n], t) for n, t in net.state().items())


def test_layers_are_read_in_their_order(data: DataSet) -> None:
    model = models.build(NETS["batch-norm"], data.shape, data.classes, 0)
    found = [(one.name, one.norm, one.active, one.reader) for one in hidden_layers(model)]
    assert found[0] == ("body.conv1", "body.bn1", "body.relu1", "body.conv2")
    assert found[-1] == ("body.conv3", "body.bn3", "body.relu3", "head")


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v2"])
def test_nets_with_shortcuts_are_named(name: str, one_line: Message) -> None:
    model = models.build(ModelSpec(name=name), (1, 32, 32), 10, 0)
    message = one_line(lambda: matching.hidden_layers(model))
    assert message.startswith("model: ") and "without shortcuts" in message
