"""Several copies of a ticket in one mother: exact alone, disjoint, and the first as published."""

from itertools import combinations

import pytest
import torch
from conftest import Message

from ticketlab.many.stacks import apply, forward, network, widths
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm import Mode
from ticketlab.papers.seekers.algorithm.crowd import Crowd, free_neurons, joined, part, plant_crowd
from ticketlab.pruning.masks import State


def drawn(copy: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 + copy)


def hand_made() -> State:
    """1 -> 2 -> 1, computes |x| + 0.5: two neurons, max(0, x) and max(0, -x)."""
    double = torch.float64
    first = (torch.tensor([[1.0, -1.0]], dtype=double), torch.zeros(2, dtype=double))
    second = (torch.tensor([[1.0], [1.0]], dtype=double), torch.tensor([0.5], dtype=double))
    return network([first, second])


def crowd(target: State, width: int, mode: Mode, copies: int) -> Crowd:
    shape = [widths(target)[0], *[width] * (len(widths(target)) - 2), widths(target)[-1]]
    host = algorithm.mother(shape, torch.Generator().manual_seed(5))
    return plant_crowd(target, host, mode, drawn, copies)


@pytest.mark.parametrize("mode", ["paper", "norm", "authors"])
def test_every_copy_of_a_hand_made_net_is_exact_alone(mode: Mode) -> None:
    found = crowd(hand_made(), 8, mode, 4)
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)[:, None]
    for one in found.tickets:
        assert torch.allclose(one.outputs(x), x.abs() + 0.5, atol=1e-12)
        assert one.mask.alive == 5
    both = apply(found.masks[0], found.weights)
    for name, keep in found.masks[1].items():
        both[name] = torch.where(keep, found.weights[name], both[name])
    sum_of_two = forward(both, x) / found.tickets[0].factors  # they add up, but for the bias
    assert torch.allclose(sum_of_two, 2 * x.abs() + 0.5, atol=1e-12)


@pytest.mark.parametrize(("task", "copies"), [("circle", 4), ("relu", 8), ("helix", 3)])
def test_copies_share_only_output_biases_and_compute_their_target(task: str, copies: int) -> None:
    target = algorithm.target(task, 5)
    found = crowd(target, 100, "paper", copies)
    x, _ = algorithm.sample(task, 200, 0.0, torch.Generator().manual_seed(1))
    wanted = forward(target, x)
    for one in found.tickets:
        assert torch.allclose(one.outputs(x), wanted, rtol=1e-9, atol=1e-9)
        assert algorithm.nonzeros(one.ticket()).alive == algorithm.nonzeros(target).alive
    for one, other in combinations(found.tickets, 2):
        assert [n for n in one.mask if (one.mask[n] & other.mask[n]).any()] in ([], ["bias4"])
        hidden = list(zip(one.places, other.places, strict=True))[1:-1]
        assert all(not set(a.tolist()) & set(b.tolist()) for a, b in hidden)


def test_one_copy_is_plant_n_seeks_planting_bit_for_bit_and_more_do_not_move_it() -> None:
    target = algorithm.target("circle", 5)
    host = algorithm.mother((2, 100, 100, 100, 4), torch.Generator().manual_seed(5))
    single = algorithm.plant(target, host, "paper", drawn(0))
    one, four = (plant_crowd(target, host, "paper", drawn, k) for k in (1, 4))
    for name, weight in single.weights.items():
        assert torch.equal(one.weights[name], weight)
        kept = single.mask[name]
        assert torch.equal(four.weights[name][kept], weight[kept])
    assert one.masks[0] == four.masks[0] == single.mask


def test_planting_more_copies_changes_only_what_it_plants() -> None:
    target = algorithm.target("relu", 5)
    found = crowd(target, 20, "paper", 3)
    host = found.tickets[0].mother
    planted = {n: torch.stack([mask[n] for mask in found.masks]).any(0) for n in host}
    for name in ("weight1", "weight2", "weight3", "weight4"):
        assert torch.equal(found.weights[name][~planted[name]], host[name][~planted[name]])
        assert int(planted[name].sum()) == 3


def test_a_copy_hides_as_well_as_its_rescaling_allows() -> None:
    """Factors are spread over the layers: no output weight is scaled by the whole ratio."""
    target = algorithm.target("relu", 5)
    host = algorithm.mother((1, 100, 100, 100, 1), torch.Generator().manual_seed(2))
    found = plant_crowd(target, host, "paper", drawn, 8)
    rest = part(host, free_neurons(widths(host), [found.tickets[0].places]))
    alone = algorithm.plant(target, rest, "paper", drawn(1))
    ratio = float(found.tickets[0].factors / alone.factors)
    second = found.tickets[1]
    own = [w[second.mask[n]] for n, w in found.weights.items() if n.startswith("weight")]
    before = [w[alone.mask[n]] for n, w in alone.weights.items() if n.startswith("weight")]
    for new, old in zip(own, before, strict=True):
        assert float(new / old) == pytest.approx(ratio**0.25)


def test_a_part_of_a_net_goes_back_where_it_was() -> None:
    net = algorithm.mother((2, 6, 5, 1), torch.Generator().manual_seed(0))
    kept = [torch.arange(2), torch.tensor([4, 1]), torch.tensor([0, 3, 2]), torch.arange(1)]
    own = part(net, kept)
    assert widths(own) == (2, 2, 3, 1) and own["weight2"][0, 1] == net["weight2"][4, 3]
    assert all(torch.equal(joined(net, own, kept)[n], w) for n, w in net.items())
    changed = joined(net, {n: w + 1 for n, w in own.items()}, kept)
    assert int((changed["weight2"] != net["weight2"]).sum()) == 6
    assert free_neurons((2, 6, 5, 1), [kept])[1].tolist() == [0, 2, 3, 5]


def test_too_many_copies_are_named(one_line: Message) -> None:
    said = one_line(lambda: crowd(algorithm.target("circle", 5), 100, "paper", 6))
    assert said == "copies: 6 need 120 neurons of layer 3, which has 100; allowed: 1 to 5"
    assert "copies: 0" in one_line(lambda: crowd(hand_made(), 8, "paper", 0))
