"""SynFlow in one go: the masks of the plain way in float64, ties included."""

from collections import Counter
from typing import Any

import pytest
import torch
from conftest import Message
from torch import Tensor, nn

from ticketlab import models
from ticketlab.many import stacks
from ticketlab.models import ModelSpec
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.pruning import masks, saliency, synflow
from ticketlab.pruning.masks import Mask, ones

X, Y = torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64)


def pruned(model: nn.Module, mask: Mask, density: float, rounds: int) -> Mask:
    """By the fast way, which `prune_model` takes."""
    return saliency.prune_model(model, mask, "synflow", density, X, Y, rounds=rounds)


def plain(model: nn.Module, mask: Mask, density: float, rounds: int, x: Tensor = X) -> Mask:
    """By the slow one."""
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    probe = saliency.probe_model(model, x, Y)
    return saliency.prune_to(saliency.synflow, probe, weights, mask, density, rounds)


@pytest.mark.parametrize("name", ["lenet_300_100", "conv3", "vgg16_bn", "resnet8"])
@pytest.mark.parametrize(("density", "rounds"), [(0.5, 3), (0.02, 8)])
def test_masks_are_equal_bit_for_bit(name: str, density: float, rounds: int) -> None:
    width = {} if "lenet" in name else {"width": 8}
    model = models.build(ModelSpec(name=name, **width), (1, 16, 16), 10, 3)  # type: ignore[arg-type]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    dense = ones(model, models.prunable(model, "conv_linear"))
    ours = pruned(model, dense, density, rounds)
    assert ours == plain(model, dense, density, rounds)
    half = masks.keep_top({n: torch.rand(k.shape) for n, k in dense.items()}, dense.total // 2)
    assert pruned(model, half, density, rounds) == plain(model, half, density, rounds)
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_dead_net_ties_at_zero_as_in_the_plain_way() -> None:
    model = models.build(ModelSpec(name="conv3", width=4), (1, 16, 16), 10, 0)
    dense = ones(model, models.prunable(model, "conv_linear"))
    with torch.no_grad():
        model.get_parameter("body.conv2.weight")[1:].zero_()
    assert pruned(model, dense, 0.6, 4) == plain(model, dense, 0.6, 4)
    with torch.no_grad():
        model.get_parameter("head.weight").zero_()
    assert pruned(model, dense, 0.3, 2) == plain(model, dense, 0.3, 2)


def test_a_density_of_nothing_is_one_line(one_line: Message) -> None:
    model = models.build(ModelSpec(name="conv3", width=4), (1, 16, 16), 10, 0)
    dense = ones(model, models.prunable(model, "conv"))
    assert "density" in one_line(lambda: pruned(model, dense, 0.0, 2))


# --- float32, where it decides


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Counter[torch.dtype]:
    """How often each precision has scored."""
    seen: Counter[torch.dtype] = Counter()
    scores = synflow._Positive.scores

    def counted(net: Any) -> Tensor:
        seen[net.ones.dtype] += 1
        return scores(net)

    monkeypatch.setattr(synflow._Positive, "scores", counted)
    return seen


def built(name: str, seed: int = 0, width: int | None = 8) -> tuple[nn.Module, Mask]:
    width = None if name == "lenet_300_100" else width
    more = {} if width is None else {"width": width}
    more |= {"depth": 3} if name == "mlp" else {}
    model = models.build(ModelSpec(name=name, **more), (1, 16, 16), 10, seed)  # type: ignore[arg-type]
    return model, ones(model, models.prunable(model, "conv_linear"))


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("name", ["lenet_300_100", "mlp", "vgg16_bn", "resnet20"])
def test_a_hundred_rounds_give_the_masks_of_float64(
    name: str, density: float, scored: Counter[torch.dtype]
) -> None:
    model, dense = built(name, width=6)
    assert pruned(model, dense, density, 100) == plain(model, dense, density, 100)
    if (name, density) == ("vgg16_bn", 0.5):  # on its 1x1 maps 8 of 9 entries of a kernel score 0
        assert scored[torch.float64] == 100
    else:
        assert scored[torch.float32] == 100 > 50 > scored[torch.float64] >= 1


class Mother(nn.Module):
    """A net of Plant 'n' Seek as a module."""

    def __init__(self, state: masks.State) -> None:
        super().__init__()
        for name, tensor in state.items():
            self.register_parameter(name, nn.Parameter(tensor.float()))

    def forward(self, x: Tensor) -> Tensor:
        return stacks.forward(dict(self.named_parameters()), x)


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("task", ["circle", "relu"])
def test_a_planted_net_gets_the_mask_of_float64(
    task: Any, density: float, scored: Counter[torch.dtype]
) -> None:
    """Its biases are masked too."""
    target, random = planting.target(task, 4), torch.Generator().manual_seed(1)
    shape = (target["weight1"].shape[0], 40, 40, target["weight3"].shape[1])
    planted = planting.plant(target, planting.mother(shape, random), "paper", random)
    model, x = Mother(planted.weights), torch.zeros(1, shape[0])
    dense = ones(model, [name for name, _ in model.named_parameters()])
    ours = saliency.prune_model(model, dense, "synflow", density, x, Y, rounds=100)
    assert ours == plain(model, dense, density, 100, x)
    assert scored[torch.float32] == 100 > 50 > scored[torch.float64] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rounds"), [("resnet20", 100), ("vgg16_bn", 100)])
def test_nets_of_the_papers_widths_get_the_masks_of_float64(name: str, rounds: int) -> None:
    x = torch.zeros(1, 3, 32, 32)
    model = models.build(ModelSpec(name=name), (3, 32, 32), 10, 0)  # type: ignore[arg-type]
    dense = ones(model, models.prunable(model, "conv_linear"))
    ours = saliency.prune_model(model, dense, "synflow", 0.01, x, Y, rounds=rounds)
    assert ours == plain(model, dense, 0.01, rounds, x)


class Coarse(nn.Linear):
    """Computes float32 with the errors of a shorter format, and float64 as it is."""

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.weight.bfloat16() if x.dtype == torch.float32 else self.weight
        return nn.functional.linear(x, coarse.to(x))


def test_float32_that_is_further_off_than_it_may_be_decides_nothing(
    scored: Counter[torch.dtype],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Coarse(256, 20, bias=False), Coarse(20, 5, bias=False))
    dense = ones(model, ["1.weight", "2.weight"])
    assert pruned(model, dense, 0.1, 10) == plain(model, dense, 0.1, 10)
    assert scored == {torch.float32: 1, torch.float64: 10}


def test_near_ties_are_left_to_float64(scored: Counter[torch.dtype]) -> None:
    """2,560 scores in a range of 1e-5: those near the threshold differ by a few 1e-9."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10, bias=False))
    model.append(nn.Linear(10, 3, bias=False))
    with torch.no_grad():
        model[1].weight.uniform_(1, 1 + 1e-5)
    dense = ones(model, ["1.weight", "2.weight"])
    assert pruned(model, dense, 0.3, 10) == plain(model, dense, 0.3, 10)
    assert scored[torch.float64] > 7


@pytest.mark.parametrize("power", [-5, 6])
def test_scores_beyond_float32_are_left_to_float64(
    power: int, scored: Counter[torch.dtype]
) -> None:
    model, dense = built("mlp")
    with torch.no_grad():
        for name in dense:
            model.get_parameter(name).mul_(10.0 ** (2 * power))
    assert pruned(model, dense, 0.1, 10) == plain(model, dense, 0.1, 10)
    assert scored[torch.float64] == 10


def test_scores_beyond_float64_are_one_line(one_line: Message) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(10)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e38)
    dense = ones(model, [name for name, _ in model.named_parameters()])
    message = one_line(lambda: synflow.synflow(model, dense, [80], (4,)))
    assert message == "criterion 'synflow': scores beyond float64, the net is too deep"


def test_the_model_is_left_without_gradients_and_hooks() -> None:
    model, dense = built("resnet20", width=2)
    pruned(model, dense, 0.5, 3)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())  # type: ignore[attr-defined]
