"""RST: masks, the growing penalty, the transformation and what is left after removal."""

from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ticketlab import gpu
from ticketlab.data.sets import Augment, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.papers.dlth import algorithm, controls
from ticketlab.papers.dlth.algorithm import Penalty
from ticketlab.pruning.masks import Mask, State, ones
from ticketlab.spec import InputError
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Run
from ticketlab.training.recipe import Recipe

CPU = Runtime(device="cpu")
LAYERS = ["0.weight", "2.weight"]
RECIPE = Recipe.model_validate(
    {"lr": 0.02, "batch": 32, "length": "120it", "schedule": "constant", "weight_decay": 5e-4}
)
PENALTY = Penalty(ceiling=20.0, ramp=60, every=1)


def random(*parts: object) -> torch.Generator:
    return gpu.generator("cpu", *parts)


def blobs(n: int = 320) -> DataSet:
    """Four Gaussian blobs in 6 dimensions, as 1 x 2 x 3 images."""
    g = random("blobs")
    y = torch.arange(n) % 4
    centres = 255 * torch.rand(4, 6, generator=g)
    x = (centres[y] + 25 * torch.randn(n, 6, generator=g)).clamp(0, 255).to(torch.uint8)
    images = Images(x.view(n, 1, 2, 3), y)
    flat: dict[str, Any] = dict.fromkeys(("train_index", "validation_index", "test_index"), y)
    half, one = torch.tensor([0.5]), torch.tensor([0.3])
    return DataSet("blobs", 4, images, images, images, half, one, Augment(), "", **flat)


class Flat(nn.Sequential):
    """A 6-24-24-4 ReLU net on flattened images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def tiny(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Flat(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
    return Net(model, CPU)


def tiny_mask(net: Net, sparsity: float = 0.7) -> Mask:
    dense = ones(net.model, LAYERS)
    return algorithm.random_mask(dense, algorithm.kept_counts(dense, sparsity), random("mask"))


# ------------------------------------------------------------------ masks (C1)


@given(weights=st.integers(1, 5000), sparsity=st.floats(0, 0.999))
def test_a_layer_loses_ceil_s_n_weights_but_never_all(weights: int, sparsity: float) -> None:
    removed = algorithm.removed_count(weights, sparsity)
    assert removed == min(ceil(round(sparsity * weights, 9)), weights - 1)
    assert 1 <= weights - removed <= weights


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_a_sparsity_outside_0_1_is_refused(sparsity: float) -> None:
    with pytest.raises(InputError, match=r"sparsity: .* is outside \[0, 1\)"):
        algorithm.removed_count(10, sparsity)


def test_a_decimal_product_that_is_whole_is_not_rounded_up() -> None:
    assert algorithm.removed_count(100, 0.07) == 7  # 0.07 * 100 is 7.000000000000001 in binary


@given(sparsity=st.floats(0, 0.99), seed=st.integers(0, 10))
@settings(max_examples=20, deadline=None)
def test_random_masks_have_their_counts_and_repeat_by_seed(sparsity: float, seed: int) -> None:
    dense = Mask({"a": torch.ones(8, 5, dtype=torch.bool), "b": torch.ones(7, dtype=torch.bool)})
    keep = algorithm.kept_counts(dense, sparsity)
    mask = algorithm.random_mask(dense, keep, random(seed))
    assert {n: int(m.sum()) for n, m in mask.items()} == keep
    assert mask == algorithm.random_mask(dense, keep, random(seed))


def test_a_random_mask_ignores_magnitude_and_a_magnitude_mask_does_not() -> None:
    dense = Mask({"w": torch.ones(300, 300, dtype=torch.bool)})
    weights = {"w": torch.randn(300, 300, generator=random("w"))}
    mask = algorithm.random_mask(dense, algorithm.kept_counts(dense, 0.9), random("m"))
    assert 0.97 < algorithm.weight_ratio(weights, mask) < 1.03  # C1
    large = algorithm.magnitude_mask(weights, dense, 0.9)
    small = algorithm.magnitude_mask(weights, dense, 0.9, largest=False)
    assert large.alive == small.alive == mask.alive
    assert algorithm.weight_ratio(weights, large) < 0.5 < 5 < algorithm.weight_ratio(weights, small)
    dead = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with pytest.raises(InputError, match="all kept weights are 0: a learning rate or a penalty"):
        algorithm.weight_ratio(dead, mask)


@given(sparsity=st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_erk_meets_the_total_and_favours_small_layers(sparsity: float) -> None:
    shapes = {"a": (8, 8, 3, 3), "b": (32, 32, 3, 3)}
    dense = Mask({n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()})
    keep = algorithm.erk_counts(dense, sparsity)
    density = {n: keep[n] / dense[n].numel() for n in keep}
    assert abs(sum(keep.values()) - (1 - sparsity) * dense.total) <= len(keep)
    assert density["b"] <= density["a"] <= 1


def test_cycles_remove_the_same_share_of_what_is_left() -> None:
    targets = algorithm.cycle_sparsities(0.9, 5)
    assert [round(t, 3) for t in targets] == [0.369, 0.602, 0.749, 0.842, 0.9]


# ------------------------------------------------------------------ lambda (C2)


def test_float32_passes_the_ceiling_at_the_10000th_update_float64_one_later() -> None:
    assert len(algorithm.ramp_values(10_000, np.float32)) == 10_000
    assert algorithm.ramp_values(10_000)[-1] == pytest.approx(1.00005, abs=1e-5)
    assert len(algorithm.ramp_values(10_000, np.float64)) == 10_001


def test_the_authors_ramp_ends_at_iteration_49995() -> None:
    trace = algorithm.strengths(Penalty())
    assert len(trace) - 1 == 49_995 and trace[-2] < 1 < trace[-1]
    assert trace[0] == pytest.approx(1e-4) and (trace[:5] == trace[0]).all()
    assert algorithm.strength(Penalty(), 89_995) == trace[-1]


@pytest.mark.parametrize("power", [1, 2, 3])
def test_lambda_is_a_power_of_the_linear_ramp(power: int) -> None:
    penalty = Penalty(ceiling=10.0, ramp=200, every=2, power=power)
    trace, at = algorithm.strengths(penalty), 101
    expected = 10 * ((at // 2 + 1) / 100) ** power
    assert trace[at] == pytest.approx(expected, rel=1e-4)
    assert (np.diff(trace) >= 0).all() and trace[-1] == pytest.approx(10, rel=0.05)


def test_without_growth_the_whole_penalty_is_there_from_the_first_step() -> None:
    penalty = Penalty(ceiling=7.0, ramp=50, every=1, power=0)
    assert set(algorithm.strengths(penalty).tolist()) == {7.0}
    recipe = Recipe(lr=0.02, momentum=0.9)
    assert algorithm.decay_time(penalty, recipe) == pytest.approx(7 / (0.2 * 7))


def test_the_decay_time_of_the_authors_schedules() -> None:
    recipe = Recipe(lr=0.001, momentum=0.9)
    windows = [algorithm.decay_time(Penalty(power=p), recipe) for p in (1, 2, 3)]
    assert windows == pytest.approx([8367, 17380, 24323], rel=1e-3)


def test_bad_penalties_are_one_line() -> None:
    with pytest.raises(InputError, match=r"penalty.ramp: 200 .* at most the run's 100"):
        algorithm.check_penalty(Penalty(ramp=200), RECIPE, 100)
    with pytest.raises(InputError, match=r"lr x lambda = 4.* less than 2 \(1 \+ momentum\) = 3.8"):
        algorithm.check_penalty(Penalty(ceiling=200, ramp=100, every=1), RECIPE, 100)
    with pytest.raises(ValueError, match="greater than 0"):
        Penalty(ceiling=0.0)


def test_the_edited_gradient_is_that_of_the_penalised_loss() -> None:
    net, x, y = tiny(), torch.randn(16, 6, generator=random("x")), torch.arange(16) % 4
    mask, penalty = tiny_mask(net), Penalty(ceiling=3.0, ramp=1, every=1)
    functional.cross_entropy(net.model(x), y).backward()
    plain = net.grads.clone()
    observer = algorithm.GrowingPenalty(mask, penalty)
    observer.before_step(Run(net, RECIPE, 1, 1, iteration=5))
    edited, now = net.grads.clone(), observer.trace[0]

    parameters = dict(net.model.named_parameters())
    extra = sum((parameters[n][~keep] ** 2).sum() for n, keep in mask.items())
    loss = functional.cross_entropy(net.model(x), y) + now / 2 * extra
    grads = torch.autograd.grad(loss, list(parameters.values()))
    assert torch.allclose(edited, torch.cat([g.flatten() for g in grads]), atol=1e-6)
    kept = net.flatten(mask).bool()
    assert now >= 3.0 and torch.equal(edited[kept], plain[kept])  # zero on kept weights (C2)


# ------------------------------------------------------------------ transformation (C1, C3, C4)


def pressed(penalty: Penalty | None = PENALTY) -> tuple[Net, Mask, algorithm.Watch, list[Any]]:
    """A transformed tiny net, its mask, its looks, and the masks' digests on the way."""
    net, data = tiny(), blobs()
    mask = tiny_mask(net)
    digests = [mask.digest()]
    watch = algorithm.Watch(mask, data.train, data, every=20)
    algorithm.transform(net, data, mask, RECIPE, penalty, ("tiny",), [watch])
    return net, mask, watch, [*digests, mask.digest()]


def test_removed_weights_shrink_and_removing_them_costs_nothing() -> None:
    net, mask, watch, digests = pressed()
    first, last = watch.looks[0], watch.looks[-1]
    assert [look["iteration"] for look in watch.looks] == [0, 20, 40, 60, 80, 100, 120]
    assert 0.7 < first["ratio"] < 1.4 and last["ratio"] < 0.02  # C3
    assert last["masked_mode"] >= last["dense_mode"] - 1 > 60  # C4
    train(net, blobs().train, blobs(), RECIPE, seed=("finetune",), mask=mask)
    state = net.state()
    assert all(not state[n][~keep].any() for n, keep in mask.items())
    assert {*digests, mask.digest()} == {digests[0]}  # C1
    assert {n: int(m.sum()) for n, m in mask.items()} == algorithm.kept_counts(
        ones(net.model, LAYERS), 0.7
    )


def test_without_a_penalty_removed_weights_stay_and_removal_hurts() -> None:
    _, _, watch, _ = pressed(None)
    last = watch.looks[-1]
    assert last["ratio"] > 0.5 and last["masked_mode"] < last["dense_mode"] - 10


def test_looking_changes_nothing() -> None:
    net, data = tiny(), blobs()
    mask = tiny_mask(net)
    algorithm.transform(net, data, mask, RECIPE, PENALTY, ("tiny",))
    assert torch.equal(net.weights, pressed()[0].weights)


def test_remove_zeroes_the_removed_and_nothing_else() -> None:
    net = tiny()
    before, mask = net.state(), tiny_mask(net)
    algorithm.remove(net, mask)
    after = net.state()
    for name, weights in before.items():
        keep = mask[name] if name in mask else torch.ones_like(weights, dtype=torch.bool)
        assert torch.equal(after[name], weights * keep)


def test_lambda_restarts_in_every_cycle_and_masks_are_nested() -> None:
    net, seen = tiny(), []
    dense, start = ones(net.model, LAYERS), net.state()

    def press(cycle: int, mask: Mask) -> State:
        seen.append((cycle, mask.digest()))
        return start

    masks = list(algorithm.transform_iteratively(press, dense, 0.9, 3, random("grow")))
    assert seen == [(i, mask.digest()) for i, mask in enumerate(masks)]
    assert all(a.contains(b) for a, b in pairwise(masks))
    assert {n: int(m.sum()) for n, m in masks[-1].items()} == algorithm.kept_counts(dense, 0.9)


def test_the_leak_swaps_small_kept_weights_into_the_mask() -> None:
    net = tiny()
    dense, start = ones(net.model, LAYERS), net.state()
    run = [
        list(algorithm.transform_iteratively(lambda *_: start, dense, 0.9, 3, random("grow"), leak))
        for leak in (False, True)
    ]
    assert run[0][0] == run[1][0] and run[0][1] != run[1][1]
    assert not run[1][0].contains(run[1][1])  # a weight came back
    assert run[0][2].alive == run[1][2].alive


# ------------------------------------------------------------------ controls


def test_shuffling_moves_weights_with_their_mask() -> None:
    net = tiny()
    state, mask = net.state(), tiny_mask(net)
    moved, places = controls.shuffled(state, mask, random("shuffle"))
    for name, keep in mask.items():
        assert not torch.equal(places[name], keep)
        kept, then = moved[name][places[name]].sort().values, state[name][keep].sort().values
        assert torch.equal(kept, then)
    assert torch.equal(moved["4.weight"], state["4.weight"])


def test_reinitialising_and_signs_touch_the_maskable_weights_only() -> None:
    state, fresh, mask = tiny().state(), tiny(1).state(), tiny_mask(tiny())
    again, signs = (
        controls.reinitialised(state, fresh, mask),
        controls.only_signs(state, mask),
    )
    for name, weights in state.items():
        expected = fresh[name] if name in mask else weights
        assert torch.equal(again[name], expected)
        assert torch.equal(signs[name].sign(), weights.sign())
        assert len(signs[name].abs().unique()) == 1 or name not in mask


def test_iterative_magnitude_keeps_the_largest_of_each_layer() -> None:
    net, trained = tiny(), []
    dense, state = ones(net.model, LAYERS), net.state()

    def train_masked(mask: Mask) -> State:
        trained.append(mask.sparsity)
        return state

    found = controls.iterative_magnitude(train_masked, dense, 0.9, 3)
    assert found == algorithm.magnitude_mask(state, dense, 0.9)
    assert trained == sorted(trained) and trained[0] == 0 and len(trained) == 3


def test_an_early_bird_waits_until_the_mask_has_settled() -> None:
    net, data = tiny(), blobs()
    dense = ones(net.model, LAYERS)
    bird = controls.EarlyBird(dense, 0.7, every=10, threshold=0.1, queue=3)
    train(net, data.train, data, RECIPE, seed=("bird",), observers=[bird])
    assert bird.distances[0] == 1.0 and bird.iteration % 10 == 0
    assert bird.settled and bird.distances[-1] < 0.1 <= min(bird.distances[2:-1])
    assert bird.iteration == 10 * len(bird.distances) < 120
    assert bird.ticket == algorithm.magnitude_mask(bird.state, dense, 0.7)
    never = controls.EarlyBird(dense, 0.7, every=10, threshold=0.0)
    train(net, data.train, data, RECIPE, seed=("bird",), observers=[never])
    assert not never.settled and never.iteration == 120
    with pytest.raises(InputError, match="early_bird"):
        controls.EarlyBird(dense, 0.7, every=0)
