"""Selection without sorting and SynFlow in one go: equal to the plain ways, ties included."""

import pytest
import torch
from conftest import Message
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from ticketlab import flow, masks, models, saliency, selection
from ticketlab.masks import Mask, ones
from ticketlab.models import ModelSpec


@given(
    values=some.lists(some.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, float("inf")]), min_size=1),
    share=some.floats(0, 1),
    dtype=some.sampled_from([torch.float32, torch.float64]),
)
def test_top_k_is_that_of_masks(values: list[float], share: float, dtype: torch.dtype) -> None:
    scores = torch.tensor(values, dtype=dtype)
    k = round(share * len(values))
    assert torch.equal(selection.top_k(scores, k), masks.top_k(scores, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "sorted", "sparse"])
def test_large_selections_are_exact(kind: str, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(200_001, generator=random, dtype=torch.float64)
    scores = {
        "normal": scores,
        "ties": (4 * scores).round(),
        "equal": torch.ones_like(scores),
        "sorted": scores.sort().values,
        "sparse": scores.clamp(min=2.0) - 2.0,
    }[kind].to(dtype)
    for k in (1, 2, 1000, 100_000, 199_999, 200_001):
        assert torch.equal(selection.top_k(scores, k), masks.top_k(scores, k)), k
        assert selection.kth_largest(scores, k) == scores.kthvalue(len(scores) - k + 1).values


def test_selection_refuses_in_one_line(one_line: Message) -> None:
    assert "NaN" in one_line(lambda: selection.top_k(torch.tensor([1.0, float("nan")]), 1))
    assert "k: 3" in one_line(lambda: selection.top_k(torch.tensor([1.0, 2.0]), 3))
    infinities = torch.tensor([float("inf"), float("-inf")])  # their sum is NaN, they are not
    assert selection.top_k(infinities, 1).tolist() == [True, False]


def plain(model: nn.Module, mask: Mask, density: float, rounds: int) -> Mask:
    x, y = torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64)
    return saliency.prune_model(model, mask, "synflow", density, x, y, rounds=rounds)


@pytest.mark.parametrize("name", ["lenet_300_100", "conv3", "vgg16_bn", "resnet8"])
@pytest.mark.parametrize(("density", "rounds"), [(0.5, 3), (0.02, 8)])
def test_masks_are_equal_bit_for_bit(name: str, density: float, rounds: int) -> None:
    width = {} if "lenet" in name else {"width": 8}
    model = models.build(ModelSpec(name=name, **width), (1, 16, 16), 10, 3)  # type: ignore[arg-type]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    dense = ones(model, models.prunable(model, "conv_linear"))
    ours = flow.synflow(model, dense, density, rounds, (1, 16, 16))
    assert ours == plain(model, dense, density, rounds)
    half = masks.keep_top({n: torch.rand(k.shape) for n, k in dense.items()}, dense.total // 2)
    assert flow.synflow(model, half, density, rounds, (1, 16, 16)) == plain(
        model, half, density, rounds
    )
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_dead_net_ties_at_zero_as_in_the_plain_way() -> None:
    model = models.build(ModelSpec(name="conv3", width=4), (1, 16, 16), 10, 0)
    dense = ones(model, models.prunable(model, "conv_linear"))
    with torch.no_grad():
        model.get_parameter("body.conv2.weight")[1:].zero_()
    assert flow.synflow(model, dense, 0.6, 4, (1, 16, 16)) == plain(model, dense, 0.6, 4)
    with torch.no_grad():
        model.get_parameter("head.weight").zero_()
    assert flow.synflow(model, dense, 0.3, 2, (1, 16, 16)) == plain(model, dense, 0.3, 2)


def test_a_density_of_nothing_is_one_line(one_line: Message) -> None:
    model = models.build(ModelSpec(name="conv3", width=4), (1, 16, 16), 10, 0)
    dense = ones(model, models.prunable(model, "conv"))
    assert "density" in one_line(lambda: flow.synflow(model, dense, 0.0, 2, (1, 16, 16)))
