"""Controls differ from what they control by what their name says, and by nothing else.

COLT's, PrAC's and the comparison's are seen in `test_laws`; here are the damaged tickets of DLTH
and the controls of Plant 'n' Seek, as they reach their trainings.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import equal, use_data

from ticketlab.many import stacks
from ticketlab.papers.dlth import units as dlth_units
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek import units as plant_units
from ticketlab.papers.plant_n_seek.conv import units as conv_units
from ticketlab.papers.plant_n_seek.params import cases
from ticketlab.pruning import masks
from ticketlab.pruning.masks import Mask, State
from ticketlab.study import cost
from ticketlab.study.bench import Bench
from ticketlab.training import loop
from ticketlab.training.net import Net
from ticketlab.training.recipe import Step

Seen = dict[str, Any]
"""What reached a training: its start, mask, order and recipe."""


def counts(mask: Mask) -> dict[str, int]:
    """Weights kept in each layer."""
    return {name: int(keep.sum()) for name, keep in mask.items()}


def movable(mask: Mask) -> list[str]:
    """The layers in which a shuffle can move something: neither full nor empty."""
    return [name for name, keep in mask.items() if 0 < int(keep.sum()) < keep.numel()]


def others(state: State, mask: Mask) -> State:
    """All that the mask does not name."""
    return {name: tensor for name, tensor in state.items() if name not in mask}


def test_a_shuffle_moves_every_layer_that_is_neither_full_nor_empty() -> None:
    few = torch.arange(40) % 5 == 0
    layers = {"few": few, "full": few | True, "empty": few & False}
    mask = Mask({name: keep.view(8, 5) for name, keep in layers.items()})
    for seed in range(20):
        moved = masks.shuffle_layerwise(mask, torch.Generator().manual_seed(seed))
        assert counts(moved) == counts(mask)
        assert [name for name in mask if not torch.equal(moved[name], mask[name])] == ["few"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What reaches the training loop of DLTH and of the convolutional part, in order."""
    seen: list[Seen] = []

    def spy(net: Net, images: Any, data: Any, recipe: Any, **more: Any) -> Any:
        start = {name: tensor.cpu() for name, tensor in net.state().items()}
        seen.append({"start": start, "mask": more.get("mask"), "order": more["seed"],
                     "recipe": recipe, "images": images})  # fmt: skip
        return loop.train(net, images, data, recipe, **more)

    for module in (cost, conv_units):
        monkeypatch.setattr(module, "train", spy)
    return seen


def test_damaged_tickets_of_dlth(tiny_root: Path, trained: list[Seen]) -> None:
    cell, damages = tiny.dlth_cell(), ("shuffled", "reinit", "signs")
    found = dlth_units.train_pressed(cell, 0, "rst", 0.8, 0, damaged=damages)
    _, ticket, *damaged = trained
    names = [row["arm"] for row in found.record["rows"]]
    assert names == ["rst", "shuffled", "reinit", "signs"] and len(damaged) == 3
    mask, start = ticket["mask"], ticket["start"]
    assert len(movable(mask)) == len(mask)
    for each in damaged:
        for key in ("order", "images"):
            assert each[key] == ticket[key], key
        recipe = ticket["recipe"].model_copy(update={"length": Step(4 + 5, "it")})
        assert each["recipe"] == recipe  # as many steps as transformation and finetuning
        assert equal(others(each["start"], mask), others(start, mask))
    shuffled, redrawn, signs = damaged
    assert counts(shuffled["mask"]) == counts(mask) and redrawn["mask"] == signs["mask"] == mask
    fresh = Bench(cell, 0).net("reinit").state()
    for name, keep in mask.items():
        assert not torch.equal(shuffled["mask"][name], keep)
        kept, moved = start[name][keep], shuffled["start"][name][shuffled["mask"][name]]
        assert torch.equal(kept.sort().values, moved.sort().values)  # each weight with its place
        assert torch.equal(redrawn["start"][name], fresh[name] * keep)
        assert (redrawn["start"][name] != start[name])[keep].all()
        flat = signs["start"][name][keep]
        assert torch.equal(flat.sign(), kept.sign()) and len(flat.abs().unique()) == 1


def test_controls_of_planting(monkeypatch: pytest.MonkeyPatch) -> None:
    params = tiny.plant_n_seek(seeds=[0])
    seen: list[tuple[list[State], list[Mask], str]] = []
    final = plant_units.train

    def spy(bench: Any, starts: Any, each: Any, fit: Any, stage: str = "train") -> Any:
        seen.append((list(starts), list(each), stage))
        return final(bench, starts, each, fit, stage)

    monkeypatch.setattr(plant_units, "train", spy)
    case = cases(params.grids[0])[0]
    found = plant_units.prune_and_train(
        plant_study.shared(params), case, 0, "planted", "singleshot", (), ("gt",), True
    )
    (starts, chosen, order), (_, _, narrow_order) = seen
    names = [row["method"] for row in found.record["rows"]]
    assert names[-1] == "narrow_dense" and order == narrow_order
    arms = dict(zip(names, zip(starts, chosen, strict=True), strict=False))
    start, mask = arms["oracle"]
    bench = plant_units.PlantBench(plant_study.shared(params), case, 0)
    planted, host = bench.planted, planting.mother(bench.shape, bench.random("mother"))
    assert mask == planted.mask and equal(start, stacks.cast(planted.weights, torch.float32))
    dense = arms["dense"]
    assert equal(dense[0], start) and dense[1].density == 1
    moved = arms["oracle_shuffled"]
    assert equal(moved[0], start) and counts(moved[1]) == counts(mask)
    assert all(not torch.equal(moved[1][name], mask[name]) for name in movable(mask))
    fresh = arms["oracle_reinit"]
    assert fresh[1] == mask and fresh[0].keys() == start.keys()
    for name, keep in mask.items():
        assert (fresh[0][name] != start[name])[keep].all()
        assert (fresh[0][name] != host[name]).all()
    unit = arms["oracle_unit"]
    assert unit[1] == mask and not equal(unit[0], start)
    for name, keep in mask.items():  # the same ticket up to a factor of each neuron
        assert torch.equal(unit[0][name].sign()[keep], start[name].sign()[keep])


def test_controls_of_the_convolutional_part(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, trained: list[Seen]
) -> None:
    use_data(monkeypatch, tiny_folder)
    params = tiny.conv()
    setting = plant_study.conv_setting(params)
    found = conv_units.known(conv_units.train_ticket(setting, 0).tickets["ticket"])
    bench = conv_units.ConvBench(setting, 0, found)
    arms: dict[str, Seen] = {}
    for arm in conv_units.CONTROLS:
        trained.clear()
        conv_units.control(setting, 0, found, arm)
        (arms[arm],) = trained
    ticket = arms["oracle"]
    mask, start = ticket["mask"].to("cpu"), ticket["start"]
    assert mask == bench.planted.mask
    for arm, each in arms.items():
        assert (each["order"], each["recipe"]) == (ticket["order"], ticket["recipe"]), arm
        assert torch.equal(each["images"].x, ticket["images"].x), arm

    def masked(state: State, under: Mask) -> State:
        return {name: tensor.float() * under[name] for name, tensor in state.items()}

    assert equal(start, masked(bench.planted.weights, mask))
    dense = arms["dense"]
    assert dense["mask"].density == 1 and equal(
        dense["start"], masked(bench.planted.weights, dense["mask"])
    )
    moved = arms["oracle_shuffled"]
    places = moved["mask"].to("cpu")
    assert counts(places) == counts(mask)
    assert any(not torch.equal(places[name], mask[name]) for name in movable(mask))
    assert equal(moved["start"], masked(bench.planted.weights, places))
    fresh = arms["oracle_reinit"]
    assert fresh["mask"].to("cpu") == mask
    assert all((fresh["start"][n] != start[n])[keep].all() for n, keep in mask.items())
    assert any((fresh["start"][n] != masked(bench.mother, mask)[n]).any() for n in mask)
    own, narrow = arms["ticket_trained"], arms["narrow_dense"]
    assert equal(own["start"], masked(bench.ticket, own["mask"].to("cpu")))
    assert counts(own["mask"]) == {n: int((w != 0).sum()) for n, w in bench.ticket.items()}
    assert narrow["mask"].density == 1 and not equal(narrow["start"], own["start"])
