"""Hard-concrete gates: formulas by hand and against autograd, density held, an easy case found."""

from math import exp, log

import pytest
import torch
from torch import Tensor

from ticketlab.many.stacks import Stack, apply, forward, network
from ticketlab.papers.seekers.algorithm import gates
from ticketlab.papers.seekers.algorithm.gates import GateFit, bernoulli_gates
from ticketlab.pruning.masks import Mask, State
from ticketlab.training.loop import Diverged


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize("start", [-3.0, 0.0, 1.5])
def test_a_gate_is_open_as_often_as_the_formula_says(start: float) -> None:
    """Equation 12, and that noise u opens it exactly beyond a threshold that can be solved for."""
    chance = float(gates.open_chance(torch.tensor(start)))
    assert chance == pytest.approx(sigmoid(start - 2 / 3 * log(0.1 / 1.1)), rel=1e-6)
    threshold = 1 - chance
    noise = torch.tensor([threshold - 1e-4, threshold + 1e-4])
    _, wide = gates.stretched(torch.tensor(start), noise)
    assert (wide > 0).tolist() == [False, True]


def test_the_deterministic_gate_is_the_stretched_sigmoid() -> None:
    _, wide = gates.stretched(torch.tensor([0.0, log(3.0), -50.0, 50.0]))
    assert wide.tolist() == pytest.approx([0.5, 0.75 * 1.2 - 0.1, -0.1, 1.1], abs=1e-6)


def test_the_gradient_is_autograd_s_and_zero_where_the_gate_is_clipped() -> None:
    noise = torch.rand(500, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    logits = torch.linspace(-4, 4, 500, requires_grad=True)
    s, wide = gates.stretched(logits, noise)
    (wanted,) = torch.autograd.grad(wide.clamp(0, 1).sum(), logits)
    found = gates.gate_gradient(s.detach(), wide.detach())
    assert torch.allclose(found, wanted, atol=1e-6)
    clipped = (wide < 0) | (wide > 1)
    assert 0 < int(clipped.sum()) < 500 and not found[clipped].any()


def test_the_shift_brings_the_mean_chance_to_what_is_wanted() -> None:
    logits = torch.randn(2, 400, generator=torch.Generator().manual_seed(1)) * 3
    for one, wanted in zip(logits, (0.02, 0.6), strict=True):
        for _ in range(30):
            one += gates.shift_to(gates.open_chance(one), wanted)
        assert float(gates.open_chance(one).mean()) == pytest.approx(wanted, rel=1e-3)
    far = gates.shift_to(torch.full((4,), 1e-9), 0.9)
    assert float(far) == 1.0  # never further than 1 in a step


def test_the_density_falls_to_its_goal_and_stays() -> None:
    fit = GateFit(epochs=10, annealed=0.5)
    found = [gates.wanted_density(0.01, epoch, fit) for epoch in (1, 5, 6, 10)]
    assert found == pytest.approx([0.01**0.2, 0.01, 0.01, 0.01])


def by_hand() -> tuple[State, Tensor, Tensor, Mask]:
    """Frozen weights with one path that computes max(0, x), and eight that disturb it."""
    random = torch.Generator().manual_seed(3)
    first, second = torch.randn(1, 9, generator=random), torch.randn(9, 1, generator=random)
    first[0, 4], second[4, 0] = 1.0, 1.0
    net = network([(first, torch.zeros(9)), (second, torch.zeros(1))])
    x = 2 * torch.rand(400, 1, generator=random) - 1
    ticket = Mask({name: torch.zeros_like(w, dtype=torch.bool) for name, w in net.items()})
    ticket["weight1"][0, 4] = ticket["weight2"][4, 0] = True
    return net, x, x.relu(), ticket


def test_gates_find_a_path_that_is_there() -> None:
    net, x, y, ticket = by_hand()
    assert torch.equal(forward(apply(ticket, net), x), y)
    fit = GateFit(lr=0.1, batch=20, epochs=30)
    for density in (0.35, 0.7):
        found = bernoulli_gates(net, density, x, y, "regression", fit, (0, "test"))
        total = sum(w.numel() for w in net.values())
        kept = sum(w.numel() - int((1 - density) * w.numel()) for w in net.values())
        assert found.mask.alive == kept and found.mask.total == total
        assert found.expected[-1] == pytest.approx(density, abs=0.02)
        for state in (apply(found.mask, net), found.soft):
            assert float((forward(state, x) - y).square().mean()) < 0.1 * float(y.var())
        again = bernoulli_gates(net, density, x, y, "regression", fit, (0, "test"))
        assert again.mask == found.mask
        assert all(torch.equal(again.soft[name], w) for name, w in found.soft.items())
        other = bernoulli_gates(net, density, x, y, "regression", fit, (1, "test"))
        assert other.expected != found.expected


def test_the_searches_of_a_seed_share_first_gates_and_noise() -> None:
    """At a rate of almost 0 gates stay where they began, but for the shift to their density."""
    net, x, y, _ = by_hand()
    fit = GateFit(lr=1e-12, batch=20, epochs=10)
    low, high = (bernoulli_gates(net, d, x, y, "regression", fit, (0, "test")) for d in (0.3, 0.7))
    assert all(bool((high.mask[name] | ~keep).all()) for name, keep in low.mask.items())


def test_weights_stay_frozen_and_a_buffer_becomes_its_state() -> None:
    net, x, y, _ = by_hand()
    before = {name: w.clone() for name, w in net.items()}
    bernoulli_gates(net, 0.5, x, y, "regression", GateFit(batch=20, epochs=1), (0, "test"))
    assert all(torch.equal(net[name], w) for name, w in before.items())
    whole = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in net.items()})
    stack = Stack([net], [whole])
    back = gates.shaped(stack, stack.weights)
    assert all(torch.equal(back[name], w) for name, w in net.items())


def test_a_rate_that_diverges_is_named() -> None:
    net, x, y, _ = by_hand()
    huge = {name: w * 1e30 for name, w in net.items()}
    fit = GateFit(lr=0.1, batch=20, epochs=1)
    with pytest.raises(Diverged, match=r"lr: 0\.1"):
        bernoulli_gates(huge, 0.5, x, y, "regression", fit, (0, "test"))
