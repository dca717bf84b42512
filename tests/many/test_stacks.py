"""Many nets trained at once: the same numbers as one at a time, with the right gradient."""

import pytest
import torch
from conftest import equal
from torch import Tensor
from torch.nn import functional

from ticketlab.many import stacks
from ticketlab.many.stacks import Fit, Head, Kind, Stack
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


@pytest.mark.parametrize("head", ["linear", "softmax"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_written_gradient_is_autograds(kind: Kind, head: Head) -> None:
    x, y = data(30, kind)
    stack = Stack([net(0), net(1)], [random_mask(0), random_mask(1)])
    stack.backward(x, y, kind, head)
    for place, state in enumerate(stack.states()):
        leaves = {name: tensor.requires_grad_() for name, tensor in state.items()}
        loss(stacks.forward(leaves, x), y, kind, head).backward()  # type: ignore[no-untyped-call]
        for (name, leaf), block in zip(leaves.items(), stack.blocks(stack.grads), strict=True):
            assert leaf.grad is not None
            ours = block[place].view(leaf.shape)
            assert torch.allclose(ours, leaf.grad, atol=1e-6), name


def test_a_stack_computes_what_each_net_computes() -> None:
    x, _ = data(7)
    masks = [random_mask(3), random_mask(4)]
    outputs = Stack([net(0), net(1)], masks).outputs(x)
    for place, mask in enumerate(masks):
        alone = stacks.forward(stacks.apply(mask, net(place)), x)
        assert torch.allclose(outputs[place], alone, atol=1e-6)


def test_trained_together_is_trained_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(160)
    nets, masks = [net(s) for s in range(3)], [random_mask(s) for s in range(3)]
    fit = Fit(lr=0.003, batch=32, epochs=3)
    together = stacks.train(nets, masks, x, y, "classification", fit, (0,))
    for chunk in (1, 2):
        monkeypatch.setattr(stacks, "CHUNK", chunk)
        apart = stacks.train(nets, masks, x, y, "classification", fit, (0,))
        for one, other in zip(together, apart, strict=True):
            assert all(torch.allclose(one[n], other[n], atol=1e-5) for n in one)


def test_training_is_that_of_torch_adam() -> None:
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
