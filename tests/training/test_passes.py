"""The ways to compute a step: each gives what autograd gives, to every observer too."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import CPU, Message

from ticketlab import models
from ticketlab.data.sets import Augment, DataSet
from ticketlab.papers.prac.algorithm import MaskWatch
from ticketlab.papers.prac.subsets import Correctness
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.training import passes
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, KeepBest, Observer, Run, Snapshot
from ticketlab.training.passes import Path
from ticketlab.training.recipe import Recipe, Step

SGD = Recipe(
    lr=0.05, momentum=0.9, weight_decay=1e-3, batch=30, length=Step(4, "ep"),
    milestones=(Step(2, "ep"),), warmup=Step(3, "it"),
)  # fmt: skip
ADAM = Recipe(optimizer="adam", lr=1e-3, batch=30, length=Step(3, "ep"), schedule="cosine")
TOLERANCE = 2e-5
"""On weights of order 0.1 to 1 after 20 to 30 steps in float32, sums being ordered otherwise."""


def lenet(digits: DataSet, name: str = "lenet_300_100") -> Net:
    return Net(models.build(models.ModelSpec(name=name), digits.shape, 10, 3), CPU)


def random_mask(net: Net, density: float) -> Mask:
    random = torch.Generator().manual_seed(5)
    dense = ones(net.model, models.prunable(net.model, "hidden"))
    scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
    return keep_top(scores, round(density * dense.total))


class Seen(Observer):
    """What a run shows at each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: list[torch.Tensor] = []

    def before_step(self, run: Run) -> None:
        self.losses.append(float(run.loss))
        assert run.logits.shape == (len(run.labels), 10)
        assert torch.equal(run.correct, run.logits.argmax(1) == run.labels)

    def after_step(self, run: Run) -> None:
        self.weights.append(run.net.weights.clone())


def trained(
    digits: DataSet, path: Path, mask: Mask | None, recipe: Recipe, *more: Observer
) -> tuple[Net, list[Epoch], Seen]:
    net, seen = lenet(digits), Seen()
    observers = [seen, *more]
    history = train(
        net, digits.train, digits, recipe, seed=("order", 1), mask=mask, observers=observers,
        path=path,
    )  # fmt: skip
    return net, history, seen


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize(("path", "density"), [("written", 1), ("written", 0.4), ("sparse", 0.1)])
def test_each_step_is_that_of_autograd(
    digits: DataSet, path: Path, density: float, recipe: Recipe
) -> None:
    mask = random_mask(lenet(digits), density) if density < 1 else None
    net, history, seen = trained(digits, path, mask, recipe)
    plain, expected, wanted = trained(digits, "plain", mask, recipe)
    assert [epoch.path for epoch in history] == [path] * len(history)
    assert [epoch.path for epoch in expected] == ["plain"] * len(expected)
    assert seen.losses == pytest.approx(wanted.losses, abs=1e-4)
    for ours, theirs in zip(seen.weights, wanted.weights, strict=True):
        off = (ours - theirs).abs() > TOLERANCE
        assert off.float().mean() <= (1e-3 if recipe is ADAM else 0)  # it divides tiny gradients
        assert torch.equal(ours == 0, theirs == 0) or mask is None
    kept = 1.0 if mask is None else net.flatten(mask)
    assert torch.allclose(net.grads * kept, plain.grads * kept, atol=1e-3)
    for ours_, theirs_ in zip(history, expected, strict=True):
        assert ours_.accuracy == pytest.approx(theirs_.accuracy, abs=1e-6)
        assert ours_.iteration == theirs_.iteration


@pytest.mark.parametrize("path", ["written", "sparse"])
def test_observers_see_what_they_see_in_the_plain_loop(digits: DataSet, path: Path) -> None:
    mask = random_mask(lenet(digits), 0.1)
    found = []
    for each in (path, "plain"):
        bits = Correctness(torch.arange(200), 200)
        best = KeepBest(digits.validation, digits)
        watch, point = MaskWatch(mask, 0.2, None), Snapshot(Step(1, "ep"))
        trained(digits, each, mask, SGD, bits, best, watch, point)  # type: ignore[arg-type]
        assert point.state is not None
        found.append((bits.record, best, watch.distances, point.state))
    (bits, best, distances, point), (bits_, best_, distances_, point_) = found
    assert torch.equal(bits, bits_) and best.epoch == best_.epoch
    assert distances == pytest.approx(distances_, abs=2 / mask.alive)
    for ours, theirs in ((point, point_), (best.state, best_.state)):
        assert all(torch.allclose(ours[n], theirs[n], atol=TOLERANCE) for n in theirs)


def test_a_stop_in_the_middle_of_an_epoch_and_a_short_batch(digits: DataSet) -> None:
    mask = random_mask(lenet(digits), 0.1)
    nets = []
    for path in ("sparse", "plain"):
        net = lenet(digits)
        train(
            net, digits.train.select(torch.arange(65)), digits, SGD, seed=(0,), mask=mask,
            until=Step(5, "it"), path=path,  # type: ignore[arg-type]
        )  # fmt: skip
        nets.append(net)
    assert torch.allclose(nets[0].weights, nets[1].weights, atol=TOLERANCE)


def test_augmented_batches_take_the_same_draws(digits: DataSet) -> None:
    data = replace(digits, augment=Augment(crop=1, flip=True))
    mask = random_mask(lenet(digits), 0.1)
    ours, _, _ = trained(data, "sparse", mask, SGD)
    theirs, _, _ = trained(data, "plain", mask, SGD)
    assert torch.allclose(ours.weights, theirs.weights, atol=TOLERANCE)


# ---------------------------------------------------------------- the choice


def test_the_choice(digits: DataSet) -> None:
    net = lenet(digits)
    low, high = random_mask(net, 0.1), random_mask(net, 0.5)
    assert passes.choose(net.model, low, CPU, digits.shape) == "sparse"
    assert passes.choose(net.model, high, CPU, digits.shape) == "written"
    assert passes.choose(net.model, None, CPU, digits.shape) == "written"
    assert passes.choose(net.model, low, CPU, digits.shape, edited=True) == "written"
    bf16 = CPU.model_copy(update={"precision": "bf16"})
    assert passes.choose(net.model, low, bf16, digits.shape) == "plain"
    assert passes.choose(lenet(digits, "conv2").model, None, CPU, digits.shape) == "plain"
    _, history, _ = trained(digits, "auto", low, SGD)  # type: ignore[arg-type]
    assert {epoch.path for epoch in history} == {"sparse"}


def test_a_path_that_cannot_be_is_one_line(digits: DataSet, one_line: Message) -> None:
    net = lenet(digits)
    conv = lenet(digits, "conv2")
    cases: list[tuple[Net, Mask | None, str, str]] = [
        (net, None, "fast", "auto, plain, written, sparse"),
        (net, None, "sparse", "no mask"),
        (conv, None, "written", "plain ReLU MLP"),
    ]
    for each, mask, path, word in cases:
        call: Callable[[], object] = lambda n=each, m=mask, p=path: train(  # noqa: E731
            n, digits.train, digits, SGD, seed=(0,), mask=m, path=p
        )
        assert word in one_line(call)


@pytest.mark.parametrize("hook", ["before_step", "after_step"])
def test_an_observer_that_edits_without_saying_so_ends_the_run(digits: DataSet, hook: str) -> None:
    class Edits(Observer):
        pass

    def edit(self: Observer, run: Run) -> None:
        run.net.grads.mul_(2) if hook == "before_step" else run.net.weights.mul_(0.9)

    setattr(Edits, hook, edit)
    mask = random_mask(lenet(digits), 0.1)
    with pytest.raises(RuntimeError, match=r"Observer\.edits"):
        trained(digits, "auto", mask, SGD, Edits())  # type: ignore[arg-type]
    Edits.edits = True
    ours, history, _ = trained(digits, "auto", mask, SGD, Edits())  # type: ignore[arg-type]
    theirs, _, _ = trained(digits, "plain", mask, SGD, Edits())
    assert history[0].path == "written"
    assert torch.allclose(ours.weights, theirs.weights, atol=TOLERANCE)
