"""Pruning scores: magnitudes and random draws, one for each prunable weight."""

import pytest
import torch

from ticketlab import gpu
from ticketlab.pruning.criteria import magnitude, uniform
from ticketlab.pruning.masks import Mask, prune

SHAPES = {"z": (3, 2, 3, 3), "a": (5, 4)}
MASK = Mask({name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()})


def weights() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    every = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    return every | {"bias": torch.randn(3, generator=random)}


def test_magnitude_is_the_absolute_value_of_prunable_weights_alone() -> None:
    given = weights()
    scores = magnitude(given, MASK)
    assert list(scores) == ["z", "a"]  # the mask's layers in the mask's order, no bias
    for name, score in scores.items():
        assert torch.equal(score, torch.where(given[name] < 0, -given[name], given[name]))


def test_magnitude_does_not_see_the_sign() -> None:
    given = weights()
    mirrored = {name: -tensor for name, tensor in given.items()}
    for name, score in magnitude(mirrored, MASK).items():
        assert torch.equal(score, magnitude(given, MASK)[name])


def test_magnitude_prunes_the_smallest_of_all_layers() -> None:
    given = weights()
    mask = prune(magnitude(given, MASK), MASK, 0.3)
    flat = torch.cat([given[name].flatten() for name in MASK]).abs()
    assert flat[~mask.flat()].max() < flat[mask.flat()].min()


def test_scores_are_no_part_of_a_gradient_and_no_view_of_the_weights() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    scores = magnitude({"w": parameter}, Mask({"w": torch.tensor([True, True])}))
    assert not scores["w"].requires_grad
    scores["w"].zero_()
    assert parameter.tolist() == [1.0, -2.0]


def test_masked_weights_are_scored_too() -> None:
    """A criterion knows the weights, the mask only names the layers."""
    mask = Mask({"w": torch.tensor([True, False])})
    assert magnitude({"w": torch.tensor([-1.0, 3.0])}, mask)["w"].tolist() == [1.0, 3.0]


def test_a_layer_that_is_missing_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="a"):
        magnitude({"z": torch.zeros(3, 2, 3, 3)}, MASK)


def test_random_scores_have_the_masks_shapes_and_follow_the_generator() -> None:
    def draw(seed: int) -> dict[str, torch.Tensor]:
        return uniform(MASK, gpu.generator("cpu", seed))

    one, same, other = draw(0), draw(0), draw(1)
    assert {name: tuple(score.shape) for name, score in one.items()} == SHAPES
    assert all(torch.equal(one[name], same[name]) for name in MASK)
    assert not any(torch.equal(one[name], other[name]) for name in MASK)


def test_random_scores_are_uniform_and_independent_between_layers() -> None:
    large = Mask({name: torch.ones(50_000, dtype=torch.bool) for name in "ab"})
    scores = uniform(large, gpu.generator("cpu", 0))
    for score in scores.values():
        assert score.min() >= 0 and score.max() < 1
        counts = torch.histc(score, bins=10, min=0, max=1)
        assert (counts / 5000 - 1).abs().max() < 0.1
    both = torch.stack(list(scores.values()))
    assert torch.corrcoef(both)[0, 1].abs() < 0.02


def test_random_pruning_takes_the_same_share_of_every_layer_in_expectation() -> None:
    large = Mask({"a": torch.ones(60_000, dtype=torch.bool), "b": torch.ones(20_000).bool()})
    mask = prune(uniform(large, gpu.generator("cpu", 0)), large, 0.9)
    assert mask.alive == 8_000
    assert all(density == pytest.approx(0.1, abs=0.01) for density in mask.densities().values())


def test_random_scores_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    uniform(MASK, gpu.generator("cpu", 5))
    assert torch.equal(torch.rand(3), expected)
