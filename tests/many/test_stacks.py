"""Many nets trained at once: the same numbers as one at a time, with the right gradient."""

import pytest
import torch
from conftest import Message, equal
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu
from ticketlab.many import stacks
from ticketlab.many.stacks import Fit, Head, Kind, SparseStack, Stack
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.pruning.masks import Mask, State

SHAPE = (2, 12, 8, 4)


def net(seed: int) -> State:
    random = torch.Generator().manual_seed(seed)
    return stacks.cast(planting.mother(SHAPE, random), torch.float32)


def random_mask(seed: int, density: float = 0.6) -> Mask:
    random = torch.Generator().manual_seed(seed)
    return Mask({n: torch.rand(w.shape, generator=random) < density for n, w in net(0).items()})


def data(count: int = 200, kind: Kind = "classification") -> tuple[Tensor, Tensor]:
    x, y = planting.sample("circle", count, 0.0, torch.Generator().manual_seed(5))
    wide = functional.one_hot(y, 4).float() + 0.1 * x[:, :1].float()
    return x.float(), y if kind == "classification" else wide


def loss(outputs: Tensor, y: Tensor, kind: Kind, head: Head) -> Tensor:
    seen = outputs.softmax(-1) if head == "softmax" else outputs
    if kind == "classification":
        return functional.cross_entropy(seen, y)
    return functional.mse_loss(seen, y)


def cut(mask: Mask) -> Mask:
    """The mask without the second layer's weights, the first's biases and one of its neurons."""
    parts = {name: keep.clone() for name, keep in mask.items()}
    parts["weight1"][:, 3], parts["weight2"][3] = False, False
    for name in ("bias1", "weight2"):
        parts[name][:] = False
    return Mask(parts)


MASKS = {
    "random": [random_mask(0), random_mask(1)],
    "few": [random_mask(0, 0.1), random_mask(1, 0.2)],
    "one with a layer missing": [cut(random_mask(0)), random_mask(1, 0.1)],
    "a layer missing in all": [cut(random_mask(0)), cut(random_mask(1))],
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("head", ["linear", "softmax"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("way", [Stack, SparseStack])
def test_the_written_gradient_is_autograds(
    way: type[Stack] | type[SparseStack], kind: Kind, head: Head, masks: list[Mask]
) -> None:
    x, y = data(30, kind)
    stack = way([net(0), net(1)], masks)
    assert all(
        equal(state, stacks.apply(mask, net(place)))
        for place, (mask, state) in enumerate(zip(masks, stack.states(), strict=True))
    )
    stack.backward(x, stacks.targets(y, kind, 4), kind, head)
    before = stack.states()
    if stack.keep is not None:
        stack.grads.mul_(stack.keep)
    stack.weights.copy_(stack.grads)
    for state, slopes, mask in zip(before, stack.states(), masks, strict=True):
        leaves = {name: tensor.requires_grad_() for name, tensor in state.items()}
        loss(stacks.forward(leaves, x), y, kind, head).backward()  # type: ignore[no-untyped-call]
        for name, leaf in leaves.items():
            assert leaf.grad is not None
            assert torch.allclose(slopes[name], leaf.grad * mask[name], atol=1e-6), name


@pytest.mark.parametrize("way", [Stack, SparseStack])
def test_a_stack_computes_what_each_net_computes(way: type[Stack] | type[SparseStack]) -> None:
    x, _ = data(7)
    masks = [random_mask(3), random_mask(4)]
    outputs = way([net(0), net(1)], masks).outputs(x)
    for place, mask in enumerate(masks):
        alone = stacks.forward(stacks.apply(mask, net(place)), x)
        assert torch.allclose(outputs[place], alone, atol=1e-6)


@pytest.mark.parametrize("way", [Stack, SparseStack])
def test_a_mask_of_other_layers_is_refused(
    way: type[Stack] | type[SparseStack], one_line: Message
) -> None:
    short = Mask({name: keep for name, keep in random_mask(0).items() if name != "bias2"})
    assert "'bias2'" in one_line(lambda: way([net(0)], [short]))


def test_few_survivors_are_stacked_apart_and_stacks_are_no_larger_than_the_device_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = [random_mask(0), *[random_mask(s, 0.1) for s in range(3)], random_mask(1)]
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert list(stacks.together(masks, cpu)) == [(Stack, [0, 4]), (SparseStack, [1, 2, 3])]
    assert list(stacks.together(masks, other)) == [(Stack, [0, 1, 2, 3, 4])]
    monkeypatch.setattr(gpu, "STACK_BYTES", 20 * masks[0].total * 3 + 1)
    assert [places for _, places in stacks.together(masks, other)] == [[0, 1, 2], [3, 4]]
    monkeypatch.setattr(gpu, "stack_size", lambda *_: 2)
    places = [places for _, places in stacks.together(masks, cpu)]
    assert places == [[0, 4], [1, 2], [3]]


@pytest.mark.parametrize("density", [0.6, 0.2])
def test_trained_together_is_trained_one_at_a_time(
    density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data(160)
    nets, masks = [net(s) for s in range(3)], [random_mask(s, density) for s in range(3)]
    fit = Fit(lr=0.003, batch=32, epochs=3)
    together = stacks.train(nets, masks, x, y, "classification", fit, (0,))
    ways = [(1, 0.35), (2, 0.35), (3, 0.0), (3, 1.0)]  # nets in a stack, bound of sparse products
    for size, bound in ways:
        monkeypatch.setattr(gpu, "stack_size", lambda *_, size=size: size)
        monkeypatch.setattr(stacks, "SPARSE_BELOW", bound)
        apart = stacks.train(nets, masks, x, y, "classification", fit, (0,))
        for one, other in zip(together, apart, strict=True):
            assert all(torch.allclose(one[n], other[n], atol=1e-5) for n in one)


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_training_is_that_of_torch_adam(bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both by whole products and by those of survivors."""
    monkeypatch.setattr(stacks, "SPARSE_BELOW", bound)
    x, y = data(96)
    fit, mask = Fit(lr=0.01, batch=32, epochs=2), random_mask(1, 1.1)
    ours = stacks.train([net(0)], [mask], x, y, "classification", fit, (7,))[0]
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in net(0).items()}
    adam = torch.optim.Adam(leaves.values(), 0.01)
    for epoch in range(2):
        for xs, ys in stacks.batches(x, y, 32, (7, epoch)):
            adam.zero_grad()
            functional.cross_entropy(stacks.forward(leaves, xs), ys).backward()  # type: ignore[no-untyped-call]
            adam.step()
    assert all(
        torch.allclose(ours[name], leaf.detach(), atol=1e-4) for name, leaf in leaves.items()
    )


def test_removed_weights_stay_zero_and_training_learns() -> None:
    x, y = data(400)
    mask, fit = random_mask(2, 0.8), Fit(lr=0.01, batch=20, epochs=8)
    trained = stacks.train([net(0)], [mask], x, y, "classification", fit, (0,))[0]
    assert all(not trained[name][~keep].any() for name, keep in mask.items())
    start = stacks.apply(mask, net(0))
    before, after = (
        float(functional.cross_entropy(stacks.forward(w, x), y)) for w in (start, trained)
    )
    assert after < 0.7 * before
    again = stacks.train([net(0)], [mask], x, y, "classification", fit, (0,))[0]
    assert equal(trained, again)


@pytest.mark.parametrize(("images", "sizes"), [(50, [16, 16, 16, 2]), (49, [16, 16, 17])])
def test_the_order_of_batches_follows_its_seed_and_covers_everything(
    images: int, sizes: list[int]
) -> None:
    x, y = data(images)
    first, again, other = (list(stacks.batches(x, y, 16, seed)) for seed in [(0,), (0,), (1,)])
    assert [len(xs) for xs, _ in first] == [len(ys) for _, ys in first] == sizes
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    assert sorted(torch.cat([xs for xs, _ in first])[:, 0].tolist()) == sorted(x[:, 0].tolist())
