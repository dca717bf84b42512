"""Iterative magnitude pruning: counts, nesting, rewinding, schedules, and its end."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import tiny
import torch
from conftest import equal, small_net
from hypothesis import given
from hypothesis import strategies as st

from ticketlab.data.sets import DataSet
from ticketlab.papers.colt.units import search_imp
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.bench import Bench
from ticketlab.tickets import imp
from ticketlab.tickets.imp import Level, constant_rate, find_tickets, rewind_state, same_schedule
from ticketlab.training.loop import train
from ticketlab.training.observers import Snapshot
from ticketlab.training.recipe import Recipe, Step

DENSE = Mask({"a": torch.ones(10, 10, dtype=torch.bool), "b": torch.ones(50, dtype=torch.bool)})


def learn_nothing(mask: Mask) -> State:
    """Weights that grow with their index: pruning goes from the front to the back."""
    return {"a": torch.arange(100.0).view(10, 10), "b": -torch.arange(100.0, 150.0)}


def ladder(
    train_masked: Callable[[Mask], State] = learn_nothing,
    rate: float = 0.2,
    target: float = 0.9,
    max_rounds: int = 50,
) -> list[Level]:
    keep = constant_rate(rate)
    search = find_tickets(train_masked, DENSE, keep=keep, target=target, max_rounds=max_rounds)
    return list(search)


def test_each_round_removes_its_share_of_the_smallest_weights_over_all_layers() -> None:
    levels = ladder()
    assert [level.index for level in levels] == list(range(len(levels)))
    alive = [level.mask.alive for level in levels]
    assert alive[:4] == [150, 120, 96, 77]  # 96 x 0.2 = 19.2 is 19 weights
    assert all(a - b == round(0.2 * a) for a, b in pairwise(alive))
    for level in levels:
        assert level.mask.flat().nonzero().flatten().tolist() == list(
            range(150 - level.mask.alive, 150)
        )


@given(st.floats(0.01, 0.95), st.floats(0.05, 0.98))
def test_masks_are_nested_and_the_search_ends_at_the_target(rate: float, target: float) -> None:
    random = torch.Generator().manual_seed(0)

    def learn(mask: Mask) -> State:
        return {name: torch.randn(keep.shape, generator=random) for name, keep in mask.items()}

    levels = ladder(learn, rate, target, max_rounds=60)
    for before, later in pairwise(levels):
        assert before.mask.contains(later.mask)
        assert later.mask.alive == before.mask.alive - round(rate * before.mask.alive)
    assert all(level.mask.sparsity < target for level in levels[:-1])
    reached, last = levels[-1].mask.sparsity >= target, levels[-1].mask.alive
    assert reached or len(levels) == 61 or last - round(rate * last) < 1


def test_a_level_holds_the_weights_that_were_trained_under_its_mask() -> None:
    seen = []

    def learn(mask: Mask) -> State:
        seen.append(mask)
        return {name: torch.full(keep.shape, float(len(seen))) for name, keep in mask.items()}

    for number, level in enumerate(ladder(learn)):
        assert level.mask is seen[number] and level.weights["a"][0, 0] == number + 1


@pytest.mark.parametrize(
    ("limits", "levels"),
    [
        ({"max_rounds": 3}, 4),
        ({"max_rounds": 0}, 1),
        ({"rate": 0.99, "target": 0.9999}, 3),  # 150, 2 and, rounded, none: that ends it
        ({"rate": 0.001, "max_rounds": 6}, 7),  # rounds to nothing removed
    ],
)
def test_a_search_that_cannot_reach_its_target_ends(limits: dict, levels: int) -> None:
    found = ladder(**limits)
    assert found[-1].mask.alive > 0 and found[-1].mask.sparsity < limits.get("target", 0.9)
    assert len(found) == levels - (limits.get("rate") == 0.99)


def test_another_methods_numbers_can_be_followed() -> None:
    numbers = [101, 55, 54, 3]
    keep, max_rounds, target = same_schedule(numbers)
    found = list(
        find_tickets(learn_nothing, DENSE, keep=keep, target=target, max_rounds=max_rounds)
    )
    assert [level.mask.alive for level in found] == [150, *numbers]


# --- on real training


def test_rewinding_starts_every_level_from_theta_0(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state before each training: survivors equal theta_0 bitwise, removed weights are 0."""
    starts: list[tuple[State, Mask]] = []

    def watched(net: object, images: object, *rest: object, mask: Mask, **more: object) -> object:
        starts.append((net.state(), mask))  # type: ignore[attr-defined]
        return train(net, images, *rest, mask=mask, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("ticketlab.study.cost.train", watched)
    params = tiny.colt()
    result = search_imp(params, 0, "imp")
    theta = Bench(params, 0).net().state()
    assert len(starts) == len(result.record["rounds"]) == 4
    for state, mask in starts:
        for name, tensor in state.items():
            kept = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor[kept], theta[name][kept]) and not tensor[~kept].any()
    assert [mask.alive for _, mask in starts] == [t["alive"] for t in result.record["rounds"]]


def test_a_rewind_point_lies_on_the_dense_trajectory_and_leaves_the_net_alone(
    digits: DataSet,
) -> None:
    recipe = Recipe(lr=0.05, batch=40, length="2ep", schedule="cosine")
    net, at = small_net(), Step(7, "it")
    start = net.state()
    later = rewind_state(net, digits.train, digits, recipe, at, (0,))
    assert equal(net.state(), start) and not equal(later, start)
    snapshot = Snapshot(at)
    train(net, digits.train, digits, recipe, seed=(0,), observers=[snapshot])
    assert snapshot.state is not None and equal(later, snapshot.state)
    assert later["body.bn1.num_batches_tracked"] == 7
    net.rewind(start)
    assert equal(rewind_state(net, digits.train, digits, recipe, Step(0, "it"), (0,)), start)


def test_the_rewind_point_reaches_the_tickets(tiny_root: object) -> None:
    params = tiny.colt(rewind="3it")
    bench = Bench(params, 0)
    net = bench.net()
    later = imp.rewind_state(
        net, bench.data.train, bench.data, params.recipe, params.rewind, bench.order()
    )
    result = search_imp(params, 0, "imp")
    compared = [ticket for ticket in result.tickets.values() if ticket.weights is not None]
    assert len(compared) == 3  # dense and nearest to the two levels; the others are a mask alone
    for ticket in compared:
        assert ticket.weights is not None
        for name, tensor in ticket.weights.items():
            kept = ticket.mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor[kept], later[name][kept]) and not tensor[~kept].any()
    assert not equal(later, net.state())
