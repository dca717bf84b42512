"""Tickets: a mask and weights come back bit for bit, and a changed file is refused."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Message, equal
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ticketlab import models
from ticketlab.data.sets import DataSet
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.pruning.masks import Mask, State, ones, prune
from ticketlab.spec import InputError
from ticketlab.tickets.ticket import (
    Outcome,
    Ticket,
    load_ticket,
    make_ticket,
    network,
    round_name,
    round_of,
    save_ticket,
    state_digest,
)

FACTS = {"paper": "colt", "arm": "imp", "seed": 0, "sparsity": 0.1 + 0.2, "parent": None}


def mask(density: float = 0.5, seed: int = 0) -> Mask:
    random = torch.Generator().manual_seed(seed)
    shapes = {"body.conv1.weight": (4, 1, 3, 3), "body.conv2.weight": (5, 7)}
    return Mask({n: torch.rand(s, generator=random) < density for n, s in shapes.items()})


def state() -> State:
    random = torch.Generator().manual_seed(1)
    return {
        "body.conv1.weight": torch.randn(4, 1, 3, 3, generator=random),
        "body.conv1.bias": torch.tensor([0.0, -0.0, float("inf"), 1e-45]),
        "body.bn1.num_batches_tracked": torch.tensor(12),
        "head.weight": torch.randn(3, 2, generator=random).t(),
    }


def test_rounds_have_names_that_sort_and_say_their_number() -> None:
    names = [round_name(index) for index in range(100)]
    assert names == sorted(names) and names[3] == "round-03"
    assert [round_of(name) for name in (*names, round_name(123))] == [*range(100), 123]


def written(folder: Path, ticket: Ticket, name: str = "t.safetensors") -> Path:
    save_ticket(ticket, folder / name)
    return folder / name


def test_an_outcome_comes_back_bit_for_bit_and_is_verified(tmp_path: Path) -> None:
    outcome = Outcome(state(), torch.tensor([[0.5, -0.0], [float("nan"), 1e-45]]))
    path = written(tmp_path, make_ticket(mask(), outcome=outcome))
    back = load_ticket(path).outcome
    assert back is not None and state_digest(back.state) == state_digest(outcome.state)
    assert back.logits.numpy().tobytes() == outcome.logits.numpy().tobytes()
    tensors, header = read_safetensors(path)
    for name in ("logits", "trained.head.weight"):
        write_safetensors(path, tensors | {name: torch.zeros_like(tensors[name])}, header)
        with pytest.raises(InputError, match="SHA-256"):
            load_ticket(path)


def test_mask_weights_and_facts_come_back_bit_for_bit(tmp_path: Path) -> None:
    back = load_ticket(written(tmp_path, Ticket(mask(), state(), FACTS)))
    assert back.mask == mask() and dict(back.metadata) == FACTS
    assert back.weights is not None and equal(
        dict(sorted(back.weights.items())), dict(sorted(state().items()))
    )
    raw = back.weights["body.conv1.bias"].view(torch.int32)
    assert torch.equal(raw, state()["body.conv1.bias"].view(torch.int32))  # -0.0 included
    assert back.weights["body.bn1.num_batches_tracked"].dtype == torch.int64


def test_a_ticket_may_be_a_mask_alone(tmp_path: Path) -> None:
    for given_weights in (None, {}):
        back = load_ticket(written(tmp_path, Ticket(mask(), given_weights)))
        assert back.mask == mask() and back.weights is None and back.metadata == {}


@settings(deadline=None, max_examples=25)
@given(density=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_any_mask_comes_back(
    density: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tickets")
    assert load_ticket(written(folder, Ticket(mask(density, seed)))).mask == mask(density, seed)


def test_the_same_ticket_gives_the_same_bytes(tmp_path: Path) -> None:
    turned = dict(reversed(state().items()))
    tickets = [
        Ticket(mask(), state(), FACTS),
        Ticket(mask(), state(), FACTS),
        Ticket(mask(), turned, dict(reversed(FACTS.items()))),
    ]
    paths = [written(tmp_path, ticket, f"{i}.x") for i, ticket in enumerate(tickets)]
    assert len({path.read_bytes() for path in paths}) == 1
    again = load_ticket(paths[0])
    assert written(tmp_path, again, "again.x").read_bytes() == paths[0].read_bytes()


def test_the_mask_is_stored_with_eight_weights_a_byte(tmp_path: Path) -> None:
    layer = torch.arange(80_000) % 3 == 0
    path = written(tmp_path, Ticket(Mask({"w": layer})))
    assert path.stat().st_size < 80_000 / 8 + 1000
    assert torch.equal(load_ticket(path).mask["w"], layer)


def test_a_flipped_bit_of_mask_or_weights_is_noticed(tmp_path: Path, one_line: Message) -> None:
    path = written(tmp_path, Ticket(mask(), state(), FACTS))
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    padding = {start + offset for offset in padding_bytes(whole)}
    for place in range(start, len(whole)):
        if place not in padding:
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            message = one_line(lambda: load_ticket(path))
            assert message == f"{path}: the ticket does not match its SHA-256, the file was changed"


def padding_bytes(whole: bytes) -> set[int]:
    """Last bytes of packed layers: their unused bits mean nothing."""
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    return {v["data_offsets"][1] - 1 for n, v in header.items() if n.startswith("mask.")}


def test_a_ticket_cut_anywhere_is_one_line_that_names_it(tmp_path: Path, one_line: Message) -> None:
    path = written(tmp_path, Ticket(mask(), state(), FACTS))
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 23), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert one_line(lambda: load_ticket(path)).startswith(f"{path}: not a readable")


@pytest.mark.parametrize("part", ["mask", "weights", "shape", "layer", "added"])
def test_a_ticket_put_together_from_two_is_refused(
    part: str, tmp_path: Path, one_line: Message
) -> None:
    path = written(tmp_path, Ticket(mask(), state(), FACTS))
    tensors, header = read_safetensors(path)
    shapes = header["shapes"]
    if part == "mask":
        tensors["mask.body.conv2.weight"] = tensors["mask.body.conv2.weight"].flip(0)
    elif part == "weights":
        tensors["weight.head.weight"] = -tensors["weight.head.weight"]
    elif part == "shape":
        header["shapes"] = [[n, [7, 5] if n == "body.conv2.weight" else s] for n, s in shapes]
    elif part == "layer":
        header["shapes"] = [[n.replace("conv2.weight", "conv2.bias"), s] for n, s in shapes]
    else:
        tensors["weight.head.bias"] = torch.zeros(2)
    write_safetensors(path, tensors, header)
    message = one_line(lambda: load_ticket(path))
    assert str(path) in message and ("SHA-256" in message or "not a readable ticket" in message)


def test_files_that_are_no_tickets_are_one_line(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, {"x_train": torch.zeros(2)}, {"name": "mnist_5k", "classes": 10})
    assert one_line(lambda: load_ticket(path)).startswith(f"{path}: not a readable ticket")
    save_file({"w": torch.zeros(2)}, path)
    assert one_line(lambda: load_ticket(path)).startswith(f"{path}: not a readable")
    path.unlink()
    assert one_line(lambda: load_ticket(path)) == f"{path}: no such file"


def test_a_digest_of_a_state_sees_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    others: list[State] = [
        {"a": torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.ones(2, dtype=torch.int32)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 1.0000001])},
        {"a": -torch.zeros(2, 3), "b": torch.ones(2)},
        {},
    ]
    assert len({state_digest(s) for s in [base, *others]}) == 8
    assert state_digest(dict(reversed(base.items()))) == state_digest(base)
    turned = {"a": torch.zeros(3, 2).t(), "b": torch.ones(4)[::2].requires_grad_()}
    assert state_digest(turned) == state_digest(base)


def test_layers_come_back_in_their_own_order(tmp_path: Path) -> None:
    mask = Mask({"b": torch.tensor([True, False]), "a": torch.tensor([True])})
    save_ticket(Ticket(mask), tmp_path / "t.safetensors")
    assert list(load_ticket(tmp_path / "t.safetensors").mask) == ["b", "a"]


def test_changed_metadata_is_a_changed_ticket(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "t.safetensors"
    save_ticket(Ticket(Mask({"a": torch.tensor([True])}), metadata={"arm": "colt"}), path)
    path.write_bytes(path.read_bytes().replace(b"colt", b"cult"))
    assert path.name in one_line(lambda: load_ticket(path))


# --- tickets that know where they come from


def made(digits: DataSet, name: str, **origin: object) -> Ticket:
    """A ticket of half a network's prunable weights, at the weights of seed 3."""
    spec = models.ModelSpec(name=name)
    net = models.build(spec, digits.shape, digits.classes, seed=3)
    dense = ones(net, models.prunable(net, "conv_linear"))
    keep = prune({n: net.get_parameter(n).detach().abs() for n in dense}, dense, 0.5)
    return make_ticket(keep, net.state_dict(), **network(spec, digits), **origin)


@pytest.mark.parametrize("name", ["lenet_300_100", "resnet8"])
def test_a_ticket_gives_its_network_back(digits: DataSet, tmp_path: Path, name: str) -> None:
    back = load_ticket(written(tmp_path, made(digits, name, paper="colt", seed=3)))
    model, start = back.model(), models.build(models.ModelSpec(name=name), digits.shape, 10, seed=3)
    kept = model.state_dict()
    for key, tensor in start.state_dict().items():
        wanted = tensor * back.mask[key] if key in back.mask else tensor
        assert torch.equal(kept[key], wanted), key
    assert model(torch.zeros(2, *digits.shape)).shape == (2, digits.classes)
    assert back.metadata["init_sha256"] == state_digest(start.state_dict())
    assert back.metadata["data_sha256"] == digits.sha256
    assert back.metadata["sparsity"] == back.mask.sparsity == pytest.approx(0.5, abs=1e-4)


def test_an_initial_hash_that_is_given_stays(digits: DataSet) -> None:
    assert made(digits, "lenet_300_100", init_sha256="of theta 0").metadata["init_sha256"] == (
        "of theta 0"
    )


def test_what_is_no_network_says_so_in_one_line(one_line: Message) -> None:
    assert "no weights" in one_line(make_ticket(mask(), model={"name": "conv2"}).model)
    assert "no model" in one_line(make_ticket(mask(), state()).model)
