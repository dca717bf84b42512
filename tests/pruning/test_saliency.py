"""Pruning scores against finite differences, the rule that turns them into masks, edge-popup."""

import pytest
import torch
from conftest import Message, small_net
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu, models
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm import edge_popup as popup
from ticketlab.papers.plant_n_seek.algorithm.choice import Choice
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import (
    Goal,
    PopupFit,
    edge_popup,
)
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.saliency import CRITERIA, Probe, Rule, prune_to


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny() -> tuple[Probe, State, Mask]:
    """A 2-3-2 net in float64 with a few removed entries, and a batch of 5."""
    net = planting.mother((2, 3, 2), seeded(3))
    drawn = seeded(4)
    mask = Mask({n: torch.rand(w.shape, generator=drawn) < 0.7 for n, w in net.items()})
    x = torch.randn(5, 2, generator=seeded(5), dtype=torch.float64)
    probe = Probe(stacks.forward, x, torch.tensor([0, 1, 1, 0, 1]), random=seeded(6))
    return probe, net, mask


def loss_at(probe: Probe, weights: State, temperature: float = 1.0) -> Tensor:
    return functional.cross_entropy(probe.forward(weights, probe.x) / temperature, probe.y)


def moved(weights: State, name: str, place: tuple[int, ...], step: float) -> State:
    changed = weights[name].clone()
    changed[place] += step
    return weights | {name: changed}


def slope(probe: Probe, weights: State, name: str, place: tuple[int, ...], t: float = 1.0) -> float:
    up, down = (loss_at(probe, moved(weights, name, place, s), t) for s in (1e-6, -1e-6))
    return float(up - down) / 2e-6


def places(weights: State) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (name, tuple(place))
        for name, tensor in weights.items()
        for place in torch.ones_like(tensor).nonzero().tolist()
    ]


# U4: the scores


def test_snip_is_the_size_of_weight_times_finite_difference() -> None:
    probe, net, mask = tiny()
    scores, masked = saliency.snip(probe, net, mask), stacks.apply(mask, net)
    for name, place in places(net):
        wanted = abs(float(net[name][place]) * slope(probe, masked, name, place))
        assert float(scores[name][place]) == pytest.approx(wanted, rel=1e-4, abs=1e-8)


def test_grasp_is_weight_times_the_change_of_half_the_squared_gradient() -> None:
    probe, net, mask = tiny()
    scores, masked = saliency.grasp(probe, net, mask), stacks.apply(mask, net)

    def flow(weights: State) -> float:
        leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
        loss_at(probe, leaves, saliency.TEMPERATURE).backward()  # type: ignore[no-untyped-call]
        grads = [(leaf.grad * mask[n]).square().sum() for n, leaf in leaves.items()]  # type: ignore[operator]
        return float(torch.stack(grads).sum()) / 2

    for name, place in places(net):
        up, down = (flow(moved(masked, name, place, step)) for step in (1e-5, -1e-5))
        wanted = float(masked[name][place]) * (up - down) / 2e-5
        assert float(scores[name][place]) == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    removed = torch.cat([scores[n][~keep] for n, keep in mask.items()])
    assert len(removed) and not removed.any()


def test_synflow_conserves_its_flow_through_the_layers() -> None:
    net = planting.mother((2, 30, 20, 10, 3), seeded())
    bare = {n: torch.zeros_like(w) if n.startswith("bias") else w for n, w in net.items()}
    dense = Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()})
    probe = Probe(stacks.forward, torch.zeros(1, 2), torch.zeros(1))
    scores = saliency.synflow(probe, bare, dense)
    sums = [float(scores[n].sum()) for n in scores if n.startswith("weight")]
    total = stacks.forward({n: w.abs() for n, w in bare.items()}, torch.ones(1, 2).double()).sum()
    assert sums == pytest.approx([float(total)] * 4)


def test_scores_see_masked_weights_only_and_change_nothing() -> None:
    probe, net, mask = tiny()
    before = {name: tensor.clone() for name, tensor in net.items()}
    changed = {n: torch.where(mask[n], w, w + 1) for n, w in net.items()}
    for name in ("snip", "grasp", "synflow"):
        ours, theirs = (CRITERIA[name](probe, w, mask) for w in (net, changed))
        kept = [(ours[n][mask[n]], theirs[n][mask[n]]) for n in mask]
        assert all(torch.equal(a, b) for a, b in kept), name
    assert all(torch.equal(net[name], before[name]) for name in net)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_criterion_prunes_any_model_of_the_bench(name: str) -> None:
    net = small_net()
    names = models.prunable(net.model, "conv")
    dense = masks.ones(net.model, names)
    x = torch.randn(8, 1, 14, 14, generator=seeded())
    probe = saliency.probe_model(net.model, x, torch.arange(8) % 10, seeded())
    weights = net.state() | dict(net.model.named_parameters())
    state = {n: weights[n].detach() for n, _ in net.model.named_parameters()}
    training = net.model.training
    mask = prune_to(CRITERIA[name], probe, state, dense, 0.1, rounds=3)
    assert mask.alive == saliency.kept_at(dense.total, 0.1)
    assert net.model.training == training


# U5: the rule


def ranked(values: dict[str, list[float]]) -> saliency.Criterion:
    def fixed(probe: Probe, weights: State, mask: Mask) -> Scores:
        return {name: torch.tensor(row) for name, row in values.items()}

    return fixed


@pytest.mark.parametrize("density", [0.01, 0.1, 0.33, 0.5, 0.999, 1.0])
def test_a_mask_has_exactly_k_entries_even_when_all_scores_tie(density: float) -> None:
    probe, _, _ = tiny()
    dense = Mask({"a": torch.ones(40, dtype=torch.bool), "b": torch.ones(63, dtype=torch.bool)})
    mask = prune_to(ranked({"a": [0.0] * 40, "b": [0.0] * 63}), probe, {}, dense, density)
    assert mask.alive == 103 - int((1 - density) * 103)
    assert bool(mask["a"][: mask.alive].all())  # ties by index


def test_rounds_follow_an_exponential_schedule_and_never_revive() -> None:
    probe, net, _ = tiny()
    dense = Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()})
    seen: list[Mask] = []

    def watched(probe: Probe, weights: State, mask: Mask) -> Scores:
        seen.append(mask)
        return saliency.random(probe, weights, mask)

    last = prune_to(watched, probe, net, dense, 0.25, rounds=4)
    kept = [17 - int((1 - 0.25 ** (turn / 4)) * 17) for turn in range(5)]
    assert [mask.alive for mask in (*seen, last)] == kept
    assert all(a.contains(b) for a, b in zip(seen, [*seen[1:], last], strict=True))


def test_as_released_ties_all_go_and_removed_entries_return() -> None:
    probe, _, _ = tiny()
    mask = Mask({"a": torch.tensor([True, True, False, True])})
    rule = Rule(as_released=True)
    tied = prune_to(ranked({"a": [0.0, 0.0, 0.0, 1.0]}), probe, {}, mask, 0.5, rule=rule)
    assert tied["a"].tolist() == [False, False, False, True]
    back = prune_to(ranked({"a": [1.0, 2.0, 9.0, 3.0]}), probe, {}, mask, 0.5, rule=rule)
    assert back["a"].tolist() == [False, False, True, True]


def test_layerwise_gives_each_tensor_its_own_share() -> None:
    probe, _, _ = tiny()
    dense = Mask({"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(20, dtype=torch.bool)})
    scores = ranked({"a": [100.0 + i for i in range(10)], "b": [float(i) for i in range(20)]})
    mask = prune_to(scores, probe, {}, dense, 0.5, rule=Rule(layerwise=True))
    assert (int(mask["a"].sum()), int(mask["b"].sum())) == (5, 10)


def test_bad_criteria_and_densities_are_one_line(one_line: Message) -> None:
    probe, net, _ = tiny()
    dense = Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()})
    for density in (0.0, -0.1, 1.5):
        refusal = one_line(lambda d=density: prune_to(saliency.magnitude, probe, net, dense, d))
        assert "density" in refusal
    assert "no generator" in one_line(
        lambda: saliency.random(Probe(stacks.forward, probe.x, probe.y), net, dense)
    )

    def flat(probe: Probe, weights: State, mask: Mask) -> Scores:
        return {name: tensor.flatten() for name, tensor in weights.items()}

    def broken(probe: Probe, weights: State, mask: Mask) -> Scores:
        return {name: tensor * float("nan") for name, tensor in weights.items()}

    def few(probe: Probe, weights: State, mask: Mask) -> Scores:
        return {}

    for criterion, words in ((flat, "shape"), (broken, "NaN"), (few, "no scores")):
        refusal = one_line(lambda c=criterion: prune_to(c, probe, net, dense, 0.5))
        assert words in refusal and repr(criterion.__name__) in refusal


# In one call, on any model of the bench

MODELS = {
    "lenet_300_100": {}, "mlp": {"width": 20}, "conv2": {"width": 4}, "conv3": {"width": 4},
    "resnet8": {"width": 4}, "vgg16": {"width": 2}, "vgg16_bn": {"width": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_criterion_works_on_any_model_in_one_call(name: str) -> None:
    spec = models.ModelSpec.model_validate({"name": name} | MODELS[name])
    model = models.build(spec, (1, 16, 16), 10, 0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    dense = masks.ones(model, models.prunable(model, "conv_linear"))
    x, y = torch.randn(12, 1, 16, 16, generator=seeded()), torch.arange(12) % 10
    for criterion in CRITERIA:
        half = saliency.prune_model(model, dense, criterion, 0.5, x, y, seeded())
        assert half.alive == saliency.kept_at(dense.total, 0.5), criterion
        scores = saliency.score(model, half, criterion, x, y, seeded())
        assert all(scores[n].shape == keep.shape for n, keep in dense.items())
        assert all(bool(scores[n].isfinite().all()) for n in dense), criterion
        fewer = saliency.prune_model(model, half, criterion, 0.1, x, y, seeded(), rounds=3)
        assert half.contains(fewer) and fewer.alive == saliency.kept_at(dense.total, 0.1)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_call_is_the_same_as_its_parts_and_refuses_in_one_line(one_line: Message) -> None:
    model = small_net().model
    dense = masks.ones(model, models.prunable(model, "conv"))
    x, y = torch.randn(8, 1, 14, 14, generator=seeded()), torch.arange(8) % 10
    probe = saliency.probe_model(model, x, y)
    weights = {n: p.detach() for n, p in model.named_parameters()}
    assert saliency.prune_model(model, dense, "snip", 0.2, x, y) == prune_to(
        saliency.snip, probe, weights, dense, 0.2
    )
    assert saliency.prune_model(model, dense, saliency.snip, 0.2, x, y).density == pytest.approx(
        0.2, abs=1e-3
    )
    assert "'magnitud'" in one_line(lambda: saliency.score(model, dense, "magnitud", x, y))
    assert "no generator" in one_line(lambda: saliency.score(model, dense, "random", x, y))
    other = Mask({"nowhere": torch.ones(3, dtype=torch.bool)})
    assert "nowhere" in one_line(lambda: saliency.score(model, other, "magnitude", x, y))

    def broken(probe: Probe, weights: State, mask: Mask) -> Scores:
        return {name: weights[name] * float("nan") for name in mask}

    for call in (
        lambda: saliency.score(model, dense, broken, x, y),
        lambda: saliency.prune_model(model, dense, broken, 0.5, x, y),
    ):
        assert "NaN" in one_line(call)


# U7: edge-popup


def test_popup_gradient_is_autograds_straight_through() -> None:
    weight, score = (torch.randn(6, generator=seeded(s), dtype=torch.float64) for s in (0, 1))
    inside = saliency.popup_mask(score, 3).double()
    leaf = score.clone().requires_grad_()
    through = inside + leaf.abs() - leaf.abs().detach()  # the choice forward, |s| backward
    ((weight * through).sin().sum()).backward()  # type: ignore[no-untyped-call]
    slope_of_effective = (weight * inside).cos()
    assert torch.allclose(
        saliency.popup_gradient(slope_of_effective, weight, score),
        leaf.grad,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("there", [True, False], ids=["on the host", "on a device"])
@pytest.mark.parametrize("groups", [[[0], [1], [2]], [[0, 1], [2]], [[1], [2, 0]]], ids=str)
def test_a_choice_is_that_of_each_row_by_itself(
    groups: list[list[int]], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties among them: few values, a tensor of one value, a net without scores."""
    monkeypatch.setattr(gpu, "shares_memory", lambda _: there)
    random, counts, densities = seeded(), (7, 1500, 40), [0.5, 0.3, 1.0, 1e-9]
    blocks = [torch.randint(-2, 3, (4, n), generator=random) / 2 for n in counts]
    blocks[1][1], blocks[2][:], blocks[0][3] = torch.randn(1500, generator=random), -1.0, 0.0
    choose = Choice([torch.arange(n) for n in counts], groups, nets=4)
    flat = torch.cat([block.flatten() for block in blocks])
    chosen = choose(flat, choose.thresholds(densities)).split([4 * n for n in counts])
    assert set(torch.cat(chosen).tolist()) == {0.0, 1.0}
    for group in groups:
        for net, density in enumerate(densities):
            row = torch.cat([blocks[place][net] for place in group])
            ours = torch.cat([chosen[place].view(4, -1)[net] for place in group]) == 1
            keep = saliency.popup_kept(len(row), density)
            assert torch.equal(ours, saliency.popup_mask(row, keep)) and int(ours.sum()) == keep
    assert saliency.popup_kept(100, 1e-9) == 1


def test_ties_go_by_rank_and_what_is_in_no_group_is_kept() -> None:
    ranks = [torch.tensor([3, 0, 2, 1]), torch.arange(2)]
    choose = Choice(ranks, [[0]])
    assert choose(torch.ones(6), choose.thresholds([0.5])).tolist() == [0, 1, 0, 1, 1, 1]


def test_edge_popup_freezes_weights_and_lowers_the_loss() -> None:
    net = stacks.cast(planting.mother((1, 30, 30, 1), seeded()), torch.float32)
    x, y = (t.float() for t in planting.sample("relu", 600, 0.0, seeded(1)))
    fit = PopupFit(batch=20, epochs=3)
    goals = [Goal(0.5), Goal(0.2, annealed=True)]
    found = edge_popup([net, net], goals, x, y, "regression", fit, (0,))
    kept = [saliency.popup_kept(n.numel(), 0.5) for n in net.values()]
    assert [int(keep.sum()) for keep in found.masks[0].values()] == kept
    falling = [turn[1].alive for turn in found.epochs]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == 3
    errors = [
        float((stacks.forward(stacks.apply(mask, net), x) - y).square().mean())
        for mask in (found.epochs[0][0], found.masks[0])
    ]
    assert errors[1] < float(y.var()) and errors[1] <= errors[0]
    again = edge_popup([net, net], goals, x, y, "regression", fit, (0,))
    assert [m.digest() for m in again.masks] == [m.digest() for m in found.masks]


def test_the_softmax_head_of_one_output_teaches_nothing() -> None:
    net = stacks.cast(planting.mother((1, 20, 1), seeded()), torch.float32)
    x, y = (t.float() for t in planting.sample("relu", 100, 0.0, seeded(1)))
    stack = stacks.Stack([net], [Mask({n: torch.ones_like(w).bool() for n, w in net.items()})])
    stack.backward(x, y, "regression", "softmax")
    assert float(stack.grads.abs().max()) < 1e-7
    stack.backward(x, y, "regression", "linear")
    assert float(stack.grads.abs().max()) > 1e-3


def test_first_scores_are_uniform_by_fan_in_with_zero_biases() -> None:
    net = planting.mother((4, 50, 3), seeded())
    stack = stacks.Stack([net, net], [planting.nonzeros(net)] * 2)
    blocks = stack.blocks(popup.first_scores(stack, gpu.generator("cpu", 0)))
    assert float(blocks[0].abs().max()) <= 0.5 and float(blocks[0].abs().max()) > 0.45
    assert not blocks[1].any() and torch.equal(blocks[0][0], blocks[0][1])


def test_joint_ranking_gives_a_layer_one_share_and_may_leave_no_bias() -> None:
    net = stacks.cast(planting.mother((4, 50, 3), seeded()), torch.float32)
    stack = stacks.Stack([net, net], [planting.nonzeros(net)] * 2)
    scores = popup.first_scores(stack, gpu.generator("cpu", 0), joint=True)
    bounds = [float(block.abs().max()) for block in stack.blocks(scores)]
    assert bounds[1] > (6 / 4) ** 0.5 * 0.9 and bounds[3] <= (6 / 50) ** 0.5
    choose = popup.choice(stack, joint=True)
    kept = stack.blocks(choose(scores, choose.thresholds([0.5, 0.1])))
    for weight, bias in zip(kept[::2], kept[1::2], strict=True):
        count = weight.shape[1] + bias.shape[1]
        for row, density in enumerate((0.5, 0.1)):
            have = int(weight[row].sum() + bias[row].sum())
            assert have == saliency.popup_kept(count, density)
    apart = stack.blocks(scores.clone())
    for bias in apart[1::2]:
        bias.zero_()
    bare = torch.cat([block.flatten() for block in apart])
    none = stack.blocks(choose(bare, choose.thresholds([0.5] * 2)))
    assert not any(bool(bias.any()) for bias in none[1::2])
    x, y = (t.float() for t in planting.sample("relu", 100, 0.0, seeded(1)))
    small = stacks.cast(planting.mother((1, 20, 1), seeded()), torch.float32)
    fit = PopupFit(batch=50, epochs=2)
    found = edge_popup([small], [Goal(0.3)], x, y, "regression", fit, (0,), joint=True)
    layer = [int(found.masks[0][n].sum()) for n in ("weight1", "bias1")]
    assert sum(layer) == saliency.popup_kept(40, 0.3)
