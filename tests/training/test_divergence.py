"""A loss or weight that is no number ends a unit at once, in one line, in every way of training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from conftest import CPU, equal, small_net

from ticketlab import models
from ticketlab.data.sets import DataSet
from ticketlab.many import stacks
from ticketlab.many.train_many import Job, train_many
from ticketlab.papers.colt.study import search_units
from ticketlab.papers.dlth.controls import EarlyBird
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, PopupFit, edge_popup
from ticketlab.papers.plant_n_seek.conv import edge_popup as conv_popup
from ticketlab.pruning.masks import Mask, State, keep_top, ones
from ticketlab.study import runner
from ticketlab.training.loop import Diverged, train
from ticketlab.training.net import Net
from ticketlab.training.observers import KeepBest, Observer, Run
from ticketlab.training.recipe import Recipe, Step

WILD = Recipe(lr=1e30, momentum=0.0, batch=40, length="9ep", schedule="constant")


def said(action: Callable[[], object], lr: str = "1e+30") -> str:
    """The refusal, which is one line, names the rate, and has the one wording."""
    with pytest.raises(Diverged) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text and f"lr: {lr} makes the training diverge" in text
    return text


class Steps(Observer):
    """Counts the steps made."""

    made = 0

    def after_step(self, run: Run) -> None:
        self.made += 1


@pytest.mark.parametrize("masked", [False, True])
def test_the_loop_ends_with_the_epoch_that_diverges(digits: DataSet, masked: bool) -> None:
    net, steps = small_net("conv2"), Steps()
    mask = ones(net.model, models.prunable(net.model, "conv_linear")) if masked else None
    message = said(
        lambda: train(net, digits.train, digits, WILD, seed=(0,), mask=mask, observers=[steps])
    )
    assert "in epoch 1;" in message and steps.made == 5  # nine epochs were asked for


class Poison(Observer):
    """Puts a value into the last weight, or into a batch-norm statistic, in epoch 2's last step."""

    def __init__(self, value: float, where: str) -> None:
        self.value, self.where = value, where

    def after_step(self, run: Run) -> None:
        if run.iteration == 9:
            tensor = {"weight": run.net.weights, **dict(run.net.model.named_buffers())}[self.where]
            tensor[-1] = self.value


@pytest.mark.parametrize("where", ["weight", "body.bn2.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_weight_or_statistic_is_enough_and_no_observer_sees_it(
    digits: DataSet, value: float, where: str
) -> None:
    """Though the loss of that epoch is finite: it was taken before the last step."""
    net, tame = small_net(), WILD.model_copy(update={"lr": 0.01})
    best = KeepBest(digits.validation, digits)
    message = said(lambda: train(net, digits.train, digits, tame, seed=(0,),
                              observers=[Poison(value, where), best]), "0.01")  # fmt: skip
    assert "in epoch 2;" in message and best.epoch == 0


def test_an_observer_that_stumbles_first_hides_nothing(digits: DataSet) -> None:
    net = small_net("conv2")
    dense = ones(net.model, models.prunable(net.model, "conv_linear"))
    bird = EarlyBird(dense, 0.5, every=2)
    said(lambda: train(net, digits.train, digits, WILD, seed=(0,), observers=[bird]))


def test_a_training_that_stays_finite_is_left_alone(digits: DataSet) -> None:
    """Batch-norm keeps a net finite at rates where it learns nothing: not this rule's business."""
    net = small_net()
    high = WILD.model_copy(update={"lr": 10.0, "length": Step(2, "ep")})
    assert len(train(net, digits.train, digits, high, seed=(0,))) == 2


def job(digits: DataSet, name: str = "lenet_300_100", density: float = 0.05) -> Job:
    model = models.build(models.ModelSpec(name=name), digits.shape, digits.classes, 0)
    dense = ones(model, models.prunable(model, "conv_linear"))
    random = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
    return Job(model, digits.train, digits, WILD, (0,), keep_top(scores, round(
        density * dense.total)), validation=digits.validation)  # fmt: skip


@pytest.mark.parametrize("path", ["sparse", "stacked", "plain", "compacted"])
def test_every_path_of_train_many(digits: DataSet, path: str) -> None:
    jobs = [job(digits), replace(job(digits), recipe=WILD)]
    message = said(lambda: train_many(jobs, CPU, path, tell=lambda line: None))  # type: ignore[arg-type]
    assert "in epoch 1;" in message


def test_a_lane_that_diverges_is_not_hidden_by_the_others(digits: DataSet) -> None:
    """One net of three starts from weights that overflow; the rate is a good one."""
    tame = WILD.model_copy(update={"lr": 0.05, "length": Step(2, "ep")})
    good = replace(job(digits, density=0.5), recipe=tame)
    bad = replace(good, state={n: t * 1e25 for n, t in good.start().items()})
    assert len(train_many([good, good], CPU, tell=lambda line: None)) == 2
    said(lambda: train_many([good, bad, good], CPU, tell=lambda line: None), "0.05")


def small_nets(count: int) -> tuple[list[State], Mask]:
    net = stacks.cast(
        planting.mother((2, 12, 8, 4), torch.Generator().manual_seed(0)), torch.float32
    )
    whole = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in net.items()})
    return [net] * count, whole


def test_stacks_of_small_nets() -> None:
    x, y = planting.sample("circle", 64, 0.0, torch.Generator().manual_seed(5))
    nets, whole = small_nets(2)
    fit = stacks.Fit(lr=1e30, batch=32, epochs=9)
    message = said(
        lambda: stacks.train(nets, [whole] * 2, x.float(), y, "classification", fit, (0,))
    )
    assert "in epoch 1;" in message


def test_edge_popup_on_small_nets() -> None:
    x, y = planting.sample("circle", 64, 0.0, torch.Generator().manual_seed(5))
    fit = PopupFit(lr=1e38, epochs=9)
    said(lambda: edge_popup(small_nets(1)[0], [Goal(0.5)], x.float(), y, "classification", fit,
                            (0,)), "1e+38")  # fmt: skip


def test_edge_popup_on_any_net(digits: DataSet) -> None:
    net = small_net("conv2")
    everything = ones(net.model, net.names)
    wild = WILD.model_copy(update={"weight_decay": 0.1})  # of the scores, which it multiplies
    message = said(
        lambda: conv_popup.pop(net, everything, Goal(0.5), digits.train, digits, wild, (0,))
    )
    assert "in epoch 1;" in message


# --- what reaches the terminal


@pytest.mark.parametrize(("workers", "lr"), [(1, 100.0), (1, 1e38), (2, 1e38)])
def test_a_unit_that_diverges_is_named_with_its_seed_and_place(
    tiny_root: Path, tmp_path: Path, workers: int, lr: float
) -> None:
    recipe = {"optimizer": "sgd", "lr": lr, "batch": 40, "length": "9ep"}
    params = tiny.colt(seeds=[3], recipe=recipe)
    todo = search_units(params, params.points[0])
    message = said(lambda: runner.run(todo[:workers], tmp_path, workers), f"{lr:g}")
    assert message.startswith("unit search/") and "seed-3, seed 3, arm " in message
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.safetensors"))


def test_the_net_of_a_diverged_training_is_not_taken_for_another(digits: DataSet) -> None:
    """A rewound net trains on as if nothing had happened."""
    tame = WILD.model_copy(update={"lr": 0.01, "length": Step(1, "ep")})
    states = []
    for wild in (True, False):
        net: Net = small_net("conv2")
        start = net.state()
        if wild:
            said(lambda net=net: train(net, digits.train, digits, WILD, seed=(0,)))  # type: ignore[misc]
            net.rewind(start)
        train(net, digits.train, digits, tame, seed=(0,))
        states.append(net.state())
    assert equal(states[0], states[1])
