"""A net's zeros are its mask at the end of every training, whoever trains: faults are planted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import CPU, small_net
from torch import Tensor

from ticketlab import models
from ticketlab.data.sets import DataSet
from ticketlab.many import dense_lanes, stacks
from ticketlab.many.train_many import Job, train_many
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm import edge_popup as popup
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, PopupFit, edge_popup
from ticketlab.papers.plant_n_seek.conv import edge_popup as conv_popup
from ticketlab.pruning.masks import Mask, State, keep_top, ones
from ticketlab.pruning.patterns import DENSE, WrongMask, collected, confirm
from ticketlab.study import runner
from ticketlab.study.bench import Bench
from ticketlab.study.results import load_result
from ticketlab.study.runner import UnitFailed
from ticketlab.tickets import compaction
from ticketlab.training import sparse
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe

RECIPE = Recipe(lr=0.05, batch=40, length="1ep")


def random_mask(model: torch.nn.Module, density: float = 0.5, seed: int = 0) -> Mask:
    dense = ones(model, models.prunable(model, "conv_linear"))
    random = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
    return keep_top(scores, round(density * dense.total))


# --- the comparison itself


def layer(seed: int = 0) -> tuple[Tensor, Mask]:
    """30,000 weights, none of them 0, and a mask of half of them."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(100, 300, generator=random)
    return weight, Mask({"w": torch.rand(100, 300, generator=random) < 0.5})


def check(weight: Tensor, mask: Mask, moving: Tensor) -> None:
    confirm({"w": weight}, mask, {"w": moving})


def test_the_masked_net_passes_and_two_swapped_weights_do_not() -> None:
    weight, mask = layer()
    masked = weight * mask["w"]
    check(masked, mask, weight)
    kept, gone = (places.nonzero()[7].tolist() for places in (mask["w"], ~mask["w"]))
    masked[tuple(gone)], masked[tuple(kept)] = masked[tuple(kept)], 0.0
    with pytest.raises(WrongMask, match="in w 1 removed weights are not 0, and 1 kept ones are"):
        check(masked, mask, weight)


def test_nan_is_not_zero() -> None:
    weight, mask = layer()
    masked = weight * mask["w"]
    masked[~mask["w"]] = float("nan")
    with pytest.raises(WrongMask):
        check(masked, mask, weight)


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (1, True), (2, False), (9000, False)])
def test_one_kept_weight_may_be_zero_by_chance(lost: int, passes: bool) -> None:
    weight, mask = layer()
    masked = weight * mask["w"]
    for row, column in mask["w"].nonzero()[:lost].tolist():
        masked[row, column] = 0.0
    if passes:
        check(masked, mask, weight)
    else:
        with pytest.raises(WrongMask, match=f"0 removed .* not 0, and {lost} kept"):
            check(masked, mask, weight)


def test_chance_is_the_nets_not_each_layers() -> None:
    weight, mask = layer()
    layers = {"a": mask["w"], "b": mask["w"]}
    masked = weight * mask["w"]
    masked[tuple(mask["w"].nonzero()[0].tolist())] = 0.0
    with pytest.raises(WrongMask, match=r"in a 0 removed .* not 0, and 1 kept"):
        confirm(dict.fromkeys(layers, masked), Mask(layers), dict.fromkeys(layers, weight))


def test_a_kept_weight_that_nothing_moves_may_stay_zero() -> None:
    """As a bias that starts at 0 in a unit without input."""
    weight, mask = layer()
    start = weight * (torch.arange(300) > 150)
    check(start * mask["w"], mask, start)


def test_patterns_are_collected_by_digest_inside_the_block_alone() -> None:
    weight, mask = layer()
    check(weight * mask["w"], mask, weight)
    with collected() as found:
        assert found == {}
        check(weight * mask["w"], mask, weight)
        confirm({"w": weight}, None, {})
        with collected() as inner:
            pass
    check(weight, DENSE, weight)
    assert inner == {}
    assert list(found) == [mask.digest(), DENSE.digest()] and found[mask.digest()] == mask


# --- faults in every way of training: the mask is right, but reaches other weights


def transposed(flat: Tensor) -> Tensor:
    """As many zeros at other places: what fault 1.1 did to a stem of shape (O, 3, 3, 3)."""
    return flat.roll(1)


def without_two(keep: Tensor) -> Tensor:
    """The first two kept weights are gone too: the least that must not pass."""
    flat = keep.clone().flatten()
    flat[flat.nonzero()[:2, 0]] = 0
    return flat.view(keep.shape)


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "other weights": transposed,
    "none": torch.ones_like,
    "more": lambda keep: keep * (torch.arange(keep.numel()).view(keep.shape) % 3 > 0),
    "two more": lambda keep: without_two(keep),
    "fewer": lambda keep: (keep + (torch.arange(keep.numel()).view(keep.shape) % 50 == 0)).clamp(
        max=1
    ),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    return FAULTS[request.param]


@pytest.mark.parametrize("rewound", [False, True])
def test_the_loop(
    digits: DataSet, fault: Callable[[Tensor], Tensor], rewound: bool, monkeypatch: Any
) -> None:
    """With the fault in `flatten`, which rewinding uses as well as training."""
    flatten = Net.flatten
    net = small_net()
    mask, start = random_mask(net.model), net.state()
    with collected() as found:
        train(net, digits.train, digits, RECIPE, seed=(0,), mask=mask)
    assert list(found) == [mask.digest()]
    monkeypatch.setattr(Net, "flatten", lambda self, mask: fault(flatten(self, mask)))
    net.rewind(start, mask if rewound else None)
    with pytest.raises(WrongMask, match="removed weights are not 0"), collected() as found:
        train(net, digits.train, digits, RECIPE, seed=(0,), mask=mask)
    assert found == {}


def job(digits: DataSet, density: float) -> Job:
    model = models.build(models.ModelSpec(name="lenet_300_100"), digits.shape, 10, 0)
    mask = random_mask(model, density)
    return Job(model, digits.train, digits, RECIPE, (0,), mask, None, digits.validation)


@pytest.mark.parametrize("path", ["sparse", "stacked"])
def test_lanes(
    digits: DataSet, path: str, fault: Callable[[Tensor], Tensor], monkeypatch: Any
) -> None:
    """With the fault in how a lane reads its job's mask."""
    jobs = [job(digits, density) for density in (0.1, 0.5)]
    with collected() as found:
        train_many(jobs, CPU, path, tell=lambda line: None)  # type: ignore[arg-type]
    assert set(found) == {each.mask.digest() for each in jobs if each.mask}
    keeps, pattern = dense_lanes.keeps, sparse.Pattern
    monkeypatch.setattr(
        dense_lanes,
        "keeps",
        lambda job, name: (
            fault(keeps(job, name).float()).bool() if name.endswith("weight") else keeps(job, name)
        ),
    )
    monkeypatch.setattr(
        sparse, "Pattern", lambda keep, shared: pattern(fault(keep.float()).bool(), shared)
    )
    with pytest.raises(WrongMask):
        train_many(jobs, CPU, path, tell=lambda line: None)  # type: ignore[arg-type]


def test_a_compacted_net_that_is_expanded_wrongly(digits: DataSet, monkeypatch: Any) -> None:
    net = small_net()
    mask = Mask({n: k.clone() for n, k in random_mask(net.model).items()})
    mask["body.conv2.weight"][:, :2] = False  # two channels of the first convolution are dead
    given = Job(net.model, digits.train, digits, RECIPE, (0,), mask)
    (done,) = train_many([given], CPU, "compacted", tell=lambda line: None)
    assert done.path == "compacted"
    expand = compaction.Compacted.expand

    def wrong(self: Any, small: State, *more: Any) -> State:
        small["body.conv3.weight"] = small["body.conv3.weight"].roll(1)
        return expand(self, small, *more)

    monkeypatch.setattr(compaction.Compacted, "expand", wrong)
    with pytest.raises(WrongMask, match=r"body\.conv3\.weight"):
        train_many([given], CPU, "compacted", tell=lambda line: None)


def small_nets() -> tuple[State, Mask, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    net = stacks.cast(planting.mother((2, 12, 8, 4), random), torch.float32)
    mask = Mask({n: torch.rand(w.shape, generator=random) < 0.6 for n, w in net.items()})
    x, y = planting.sample("circle", 64, 0.0, torch.Generator().manual_seed(5))
    return net, mask, x.float(), y


def test_stacks(fault: Callable[[Tensor], Tensor], monkeypatch: Any) -> None:
    net, mask, x, y = small_nets()
    fit = stacks.Fit(batch=32, epochs=2)
    with collected() as found:
        stacks.train([net] * 2, [mask] * 2, x, y, "classification", fit, (0,))
    assert list(found) == [mask.digest()]
    joined = stacks.Stack._joined

    def wrong(self: stacks.Stack, nets: Any) -> Tensor:
        flat = joined(self, nets)
        return fault(flat.float()).bool() if flat.dtype == torch.bool else flat

    monkeypatch.setattr(stacks.Stack, "_joined", wrong)
    with pytest.raises(WrongMask):
        stacks.train([net] * 2, [mask] * 2, x, y, "classification", fit, (0,))


def test_edge_popup_of_small_nets(monkeypatch: Any) -> None:
    """The masks that are handed on are those of other nets of the stack."""
    net, _, x, y = small_nets()
    goals, fit = [Goal(0.5), Goal(0.2)], PopupFit(epochs=1)
    with collected() as found:
        done = edge_popup([net] * 2, goals, x, y, "classification", fit, (0,))
    assert list(found) == [mask.digest() for mask in done.masks]
    masks = popup._masks
    monkeypatch.setattr(popup, "_masks", lambda stack, keep: masks(stack, keep)[::-1])
    with pytest.raises(WrongMask):
        edge_popup([net] * 2, goals, x, y, "classification", fit, (0,))


def test_edge_popup_of_any_net(digits: DataSet, monkeypatch: Any) -> None:
    """The net shows the mask of the step before."""
    net = small_net("conv2")
    everything, start = ones(net.model, net.names), net.state()
    with collected() as found:
        mask = conv_popup.pop(net, everything, Goal(0.5), digits.train, digits, RECIPE, (0,))
    assert mask.digest() in found
    monkeypatch.setattr(conv_popup.Popup, "after_step", lambda self, run: None)
    net.rewind(start)
    with pytest.raises(WrongMask):
        conv_popup.pop(net, everything, Goal(0.5), digits.train, digits, RECIPE, (0,))


# --- units


def test_every_ticket_of_a_search_was_trained_or_pruned_from_what_was(
    tiny_root: Path, tmp_path: Path
) -> None:
    params = tiny.colt(seeds=[3], max_rounds=2)
    todo = colt_study.search_units(params, params.points[0])
    found = runner.run(todo, tmp_path)
    for unit in todo:
        stored = json.loads((tmp_path / f"{unit.name}.json").read_text())
        digests = [ticket.mask.digest() for ticket in found[unit.name].tickets.values()]
        parents = [t.metadata["trained_mask_sha256"] for t in found[unit.name].tickets.values()]
        if "/imp/" in unit.name:  # each level is trained, the last one too
            assert digests == parents and stored["trained_mask_sha256"] == sorted(digests)
        else:  # round 1 is pruned from the dense net, and the last round's ticket is not trained
            dense = Bench(params, 3).dense.digest()
            assert parents == [dense, *digests[:-1]]
            assert stored["trained_mask_sha256"] == sorted(parents)


def test_a_unit_whose_mask_reaches_other_weights_stores_nothing(
    tiny_root: Path, tmp_path: Path
) -> None:
    params = tiny.colt(seeds=[3], max_rounds=2)
    todo = [
        runner.Unit(unit.name, faulty_search, dict(unit.arguments))
        for unit in colt_study.search_units(params, params.points[0])
        if "/imp/" not in unit.name
    ]
    with pytest.raises(UnitFailed, match=r"unit search/.*: WrongMask: the trained net has other"):
        runner.run(todo, tmp_path)
    assert not any(load_result(tmp_path, unit.name) for unit in todo)
    assert not list(tmp_path.rglob("*.safetensors"))


def faulty_search(**arguments: Any) -> Any:
    """A search in a process whose `flatten` has the fault."""
    flatten = Net.flatten
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Net, "flatten", lambda self, mask: transposed(flatten(self, mask)))
        return colt_study.search_colt(**arguments)
