"""SynFlow in one go: the masks of the plain way, ties included."""

import pytest
import torch
from conftest import Message
from torch import nn

from ticketlab import models
from ticketlab.models import ModelSpec
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.masks import Mask, ones

X, Y = torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64)


def pruned(model: nn.Module, mask: Mask, density: float, rounds: int) -> Mask:
    """By the fast way, which `prune_model` takes."""
    return saliency.prune_model(model, mask, "synflow", density, X, Y, rounds=rounds)


def plain(model: nn.Module, mask: Mask, density: float, rounds: int) -> Mask:
    """By the slow one."""
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    probe = saliency.probe_model(model, X, Y)
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
