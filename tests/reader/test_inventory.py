"""The list of tickets, and what one ticket tells of itself."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import Message, small_net

from ticketlab import models
from ticketlab.models import ModelSpec
from ticketlab.pruning import masks, patterns
from ticketlab.pruning.masks import Mask
from ticketlab.reader import inventory
from ticketlab.reader.inventory import describe, facts_of, layer_table, read_header, tickets
from ticketlab.spec import Spec
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit, run
from ticketlab.tickets.ticket import load_ticket, make_ticket

SPEC = ModelSpec(name="conv3", width=4, conv_bias=False)


class Knobs(Spec):
    """Parameters of a unit."""

    rate: float = 0.2


def half_pruned() -> tuple[Mask, dict[str, torch.Tensor]]:
    """A mask that keeps half of a small net's weights, and the weights."""
    net = small_net()
    dense = masks.ones(net.model, models.prunable(net.model, "conv"))
    state = net.state()
    return masks.prune({name: state[name].abs() for name in dense}, dense, 0.5), state


def work(params: Knobs, arm: str, seed: int) -> Result:
    """A unit that leaves a ticket of a round, with weights, and a mask at a level."""
    mask, state = half_pruned()
    zeros = {name: state[name] * keep for name, keep in mask.items()}
    patterns.confirm(zeros, mask, state)  # as every training does at its end
    facts = {"model": SPEC.model_dump(mode="json"), "shape": [1, 14, 14], "classes": 10}
    origin = {"paper": "colt", "arm": arm, "seed": seed}
    return Result({}, {"round-04": make_ticket(mask, state, round=4, **origin, **facts),
                       "at-90": make_ticket(mask, None, level=0.9, **origin)})  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the tickets of two studies and two arms."""
    folder = tmp_path_factory.mktemp("made") / "results"
    for study, arm, seed in [("desk", "imp", 0), ("desk", "colt-2of2", 1), ("mini", "imp", 0)]:
        arguments = {"params": Knobs(), "arm": arm, "seed": seed}
        unit = Unit(f"search/{arm}/seed-{seed}", work, arguments)
        run([unit], folder / study / "runs" / "colt")
    hidden = folder / "desk" / "runs" / ".colt.partial" / "search"
    shutil.copytree(folder / "desk" / "runs" / "colt" / "search" / "imp", hidden / "imp")
    return folder


def test_every_ticket_of_a_finished_run_is_listed(results: Path) -> None:
    found = tickets(results=results)
    assert list(found.columns) == list(inventory.COLUMNS)
    assert found.study.tolist() == ["desk"] * 4 + ["mini"] * 2
    assert set(found.paper) == {"colt"} and set(found["at"]) == {"round 4", "level 0.9"}
    assert set(found.sparsity) == {round(half_pruned()[0].sparsity, 4)}
    with_weights = found.holds == "mask and weights"
    assert with_weights.tolist() == (found["at"] == "round 4").tolist()
    for path in found.path:
        assert load_ticket(results.parent / path).mask == half_pruned()[0]


def test_tickets_are_chosen_by_study_arm_and_seed(results: Path) -> None:
    assert len(tickets("mini", results=results)) == 2
    assert set(tickets(arm="colt", results=results).arm) == {"colt-2of2"}
    assert set(tickets(seed=1, results=results).seed) == {1}
    assert len(tickets("desk", "colt", "imp", 0, results)) == 2


def test_a_choice_without_tickets_says_what_there_is(results: Path, one_line: Message) -> None:
    assert "none in results/midi/runs" in one_line(lambda: tickets("midi", results=results))
    message = one_line(lambda: tickets(arm="snip", results=results))
    assert "'snip'" in message and "colt-2of2, imp" in message
    assert "there are: 0, 1" in one_line(lambda: tickets(seed=7, results=results))
    assert "there are: colt" in one_line(lambda: tickets(paper="prac", results=results))


def test_a_listing_reads_headers_only(results: Path, tmp_path: Path) -> None:
    """Changed weights are for `show` and `load_ticket` to find."""
    source = results.parent / tickets("mini", results=results).path.iloc[1]
    copy = tmp_path / "ticket.safetensors"
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    header, holds = read_header(copy)
    assert (
        holds == "mask and weights" and header["metadata"]["study"] is None
    )  # made outside the project's folder


def test_a_ticket_tells_where_it_comes_from(results: Path) -> None:
    found = tickets("mini", results=results)
    message = describe(results.parent / found.path[found["at"] == "round 4"].iloc[0])
    facts = dict(line.split("  ", 1) for line in message.splitlines() if "  " in line.strip())
    named = {key.strip(): text.strip() for key, text in facts.items()}
    assert "matches its SHA-256" in message.splitlines()[0]
    assert named["arm"] == "imp" and named["parameters.params.rate"] == "0.2"
    assert named["unit"] == "search/imp/seed-0" and named["round"] == "4"
    assert {"versions.torch", "init_sha256", "model.name"} <= set(named)
    assert message.splitlines()[-1].split()[:2] == ["all", "prunable"]


def test_the_layer_table_adds_up() -> None:
    mask = half_pruned()[0]
    table = layer_table(mask)
    assert table.layer.tolist() == [*mask, "all prunable"]
    last = table.iloc[-1]
    assert (
        (last.total, last.kept)
        == (mask.total, mask.alive)
        == (table.total[:-1].sum(), table.kept[:-1].sum())
    )
    shape = "x".join(map(str, next(iter(mask.values())).shape))
    assert table["shape"].iloc[0].replace(" ", "") == shape
    assert table.density.tolist()[:-1] == [round(d, 4) for d in mask.densities().values()]


def test_nested_facts_become_dotted_keys() -> None:
    found = facts_of({"a": {"b": 1, "c": {}}, "shape": [1, 2], "none": None, "word": "x"})
    assert found == {"a.b": "1", "a.c": "{}", "shape": "[1, 2]", "none": "null", "word": "x"}


@pytest.mark.parametrize("damage", ["weights", "metadata", "half", "foreign", "missing"])
def test_a_tampered_ticket_is_one_line(
    damage: str, results: Path, tmp_path: Path, one_line: Message
) -> None:
    found = tickets("mini", results=results)
    content = bytearray((results.parent / found.path.iloc[1]).read_bytes())
    copy = tmp_path / "ticket.safetensors"
    if damage == "weights":
        content[-1] ^= 1
    elif damage == "metadata":
        content = content.replace(b'imp\\"', b'imq\\"')
    elif damage == "half":
        content = content[: len(content) // 2]
    elif damage == "foreign":
        content = bytearray(b"not a ticket at all")
    if damage != "missing":
        copy.write_bytes(content)
    message = one_line(lambda: describe(copy))
    expected = {"weights": "SHA-256", "metadata": "SHA-256", "missing": "no such file"}
    assert str(copy) in message and expected.get(damage, "not a readable") in message
    if damage in ("half", "foreign", "missing"):
        assert str(copy) in one_line(lambda: read_header(copy))
