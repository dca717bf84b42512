"""Edge-popup on any model of the bench: what it chooses, freezes and learns."""

from collections.abc import Mapping

import pytest
import torch
from conftest import Message, small_net

from ticketlab import models
from ticketlab.data.sets import Batches, DataSet
from ticketlab.gpu import Runtime
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal
from ticketlab.papers.plant_n_seek.conv import edge_popup
from ticketlab.papers.plant_n_seek.conv.edge_popup import (
    Popup,
    choice,
    flat,
    layers,
    net_scores,
    pop,
)
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.masks import State
from ticketlab.training.evaluation import evaluate
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run, Track
from ticketlab.training.recipe import Recipe

SGD = Recipe.model_validate(
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch": 50, "length": "2ep",
     "schedule": "cosine"}
)  # fmt: skip


def weights_of(net: Net) -> State:
    return {name: p.detach().clone() for name, p in net.model.named_parameters()}


def popup_of(
    net: Net, frozen: State, scores: State, density: float, recipe: Recipe, joint: bool
) -> Popup:
    """Edge-popup from given scores."""
    names, choose = list(scores), choice(net, list(scores), joint)
    return Popup(net, names, choose, flat(net, frozen), flat(net, scores), density, recipe)


def everything(net: Net) -> masks.Mask:
    return masks.ones(net.model, net.names)


def test_a_layers_weights_and_biases_are_ranked_together_or_apart() -> None:
    names = ["a.weight", "a.bias", "b.c.weight"]
    assert layers(names, joint=True) == [["a.weight", "a.bias"], ["b.c.weight"]]
    assert layers(names, joint=False) == [[name] for name in names]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_the_choice_is_each_layers_or_tensors_own_whatever_the_order_in_memory(
    joint: bool, channels_last: bool
) -> None:
    """Batch-norm has no scores: it is kept as it is. Ties, the rule here, go to the lower index."""
    net = small_net("resnet8", Runtime(channels_last=channels_last), width=2)
    names = list(models.prunable(net.model, "conv_linear"))
    random = torch.Generator().manual_seed(0)
    scores = {
        name: torch.randint(-2, 3, parameter.shape, generator=random).float()
        for name, parameter in net.model.named_parameters()
        if name in names
    }
    frozen = weights_of(net)
    found = popup_of(net, frozen, scores, 0.3, SGD, joint).mask()
    assert list(found) == names
    for group in layers(names, joint):
        row = torch.cat([scores[name].flatten() for name in group])
        kept = torch.cat([found[name].flatten() for name in group])
        assert torch.equal(kept, saliency.popup_mask(row, saliency.popup_kept(len(row), 0.3)))
    for name, parameter in net.model.named_parameters():
        assert torch.equal(parameter, frozen[name] * found.get(name, 1)), name


def test_first_scores_are_uniform_by_fan_in() -> None:
    net = small_net("conv2")
    weights, random = weights_of(net), torch.Generator().manual_seed(0)
    scores = net_scores(weights, list(weights), joint=True, random=random)
    fan_in = weights["body.fc1.weight"].shape[1]
    for name, bound in (("weight", fan_in**-0.5), ("bias", (6 / fan_in) ** 0.5)):
        largest = float(scores[f"body.fc1.{name}"].abs().max())
        assert 0.9 * bound < largest <= bound
    apart = net_scores(weights, list(weights), joint=False, random=random)
    assert not bool(apart["body.fc1.bias"].any())


class Watch(Observer):
    """Compares the net with its frozen weights and the scores' choice after each step."""

    def __init__(self, start: State, names: Mapping[str, object]) -> None:
        self.start, self.names, self.steps = start, set(names), 0

    def after_step(self, run: Run) -> None:
        for name, parameter in run.net.model.named_parameters():
            kept = parameter != 0
            assert torch.equal(parameter[kept], self.start[name][kept])
            assert name in self.names or torch.equal(parameter, self.start[name])
        self.steps += 1


@pytest.mark.parametrize("name", ["conv2", "conv3", "resnet8"])
def test_weights_stay_frozen_whatever_the_model(digits: DataSet, name: str) -> None:
    """Also with batch-norm, whose scales and shifts have no scores and stay as they are."""
    net = small_net(name, **({"width": 2} if name == "resnet8" else {}))
    named = masks.ones(net.model, models.prunable(net.model, "conv_linear"))
    start = weights_of(net)
    watch = Watch(start, named)
    mask = pop(net, named, Goal(0.4), digits.train, digits, SGD, (0,), observers=[watch])
    assert watch.steps == 8
    for key, keep in mask.items():
        assert int(keep.sum()) == saliency.popup_kept(keep.numel(), 0.4)
        assert torch.equal(dict(net.model.named_parameters())[key], start[key] * keep)


def test_scores_take_the_step_that_the_formula_says(digits: DataSet) -> None:
    net = small_net("conv2")
    frozen = weights_of(net)
    random = torch.Generator().manual_seed(1)
    scores = net_scores(frozen, list(frozen), joint=True, random=random)
    plain = SGD.model_copy(update={"momentum": 0.0, "weight_decay": 0.0})
    popup = popup_of(net, frozen, scores, 0.5, plain, joint=True)
    x = Batches(digits.train, digits)(torch.arange(50))
    net.grads.zero_()
    torch.nn.functional.cross_entropy(net.forward(x), digits.train.y[:50]).backward()  # type: ignore[no-untyped-call]
    slopes = {name: p.grad.clone() for name, p in net.model.named_parameters()}  # type: ignore[union-attr]
    popup.before_step(Run(net, plain, 4, 8))
    for name, places in net.places().items():
        step = saliency.popup_gradient(slopes[name], frozen[name], scores[name])
        assert torch.allclose(popup.scores[places], scores[name] - 0.1 * step, atol=1e-7)
    assert not bool(net.grads.any())


def test_edge_popup_learns_and_anneals(digits: DataSet) -> None:
    net = small_net("conv2")
    start, watch = weights_of(net), Track(digits.test, digits)
    test = Batches(digits.test, digits)
    before = evaluate(net, digits.test, test).accuracy
    recipe = SGD.model_copy(update={"batch": 20, "lr": 0.5})
    goal = Goal(0.5, annealed=True)
    mask = pop(
        net, everything(net), goal, digits.train, digits, recipe, (0,), levels=3, observers=[watch]
    )
    assert len(watch.scores) == 6 and watch.scores[-1].accuracy > max(0.3, before + 0.1)
    kept = {name: mask[name] for name in ("body.fc1.weight", "body.fc1.bias")}
    total = sum(keep.numel() for keep in kept.values())
    assert sum(int(keep.sum()) for keep in kept.values()) == saliency.popup_kept(total, 0.5)
    net.rewind(start)
    again = pop(net, everything(net), goal, digits.train, digits, recipe, (0,), levels=3)
    assert again.digest() == mask.digest()


def test_refusals_are_one_line(digits: DataSet, one_line: Message) -> None:
    net = small_net("conv2")
    adam = SGD.model_copy(update={"optimizer": "adam"})
    named = everything(net)
    assert "'adam'" in one_line(
        lambda: pop(net, named, Goal(0.5), digits.train, digits, adam, (0,))
    )
    other = masks.Mask({"nowhere": torch.ones(2, dtype=torch.bool)})
    assert "nowhere" in one_line(
        lambda: pop(net, other, Goal(0.5), digits.train, digits, SGD, (0,))
    )
    wild = SGD.model_copy(update={"lr": 1e30, "momentum": 0.0})
    assert "diverge" in one_line(
        lambda: edge_popup.pop(net, named, Goal(0.5), digits.train, digits, wild, (0,))
    )
