"""A ticket as a folder in the Hub's form: bit for bit back, with a card; refusals in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Message, equal
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from ticketlab import models
from ticketlab.cli import app
from ticketlab.pruning.masks import Mask, State
from ticketlab.reader import anything
from ticketlab.tickets import huggingface, outside
from ticketlab.tickets.ticket import Ticket, make_ticket, save_ticket

SPEC = models.ModelSpec(name="conv3", width=4, conv_bias=False)


def ticket() -> Ticket:
    """A ticket of which one kept weight is 0 by itself."""
    model = models.build(SPEC, (1, 14, 14), 10, 3)
    weights = dict(model.state_dict())
    names = models.prunable(model, "conv")
    mask = Mask({name: weights[name] > 0.1 for name in names})
    weights[names[0]].view(-1)[int(mask[names[0]].flatten().nonzero()[0])] = 0.0
    facts: dict[str, Any] = {"model": SPEC.model_dump(mode="json"), "shape": [1, 14, 14]}
    return make_ticket(mask, weights, classes=10, arm="imp | own", **facts)


def bits(weights: State) -> dict[str, bytes]:
    """The bytes of each weight, in which 0 and -0 differ."""
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def same(a: Ticket, b: Ticket) -> bool:
    assert a.weights is not None and b.weights is not None
    return a.mask == b.mask and bits(a.weights) == bits(b.weights)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_ticket_comes_back_bit_for_bit_with_its_origin(tmp_path: Path) -> None:
    huggingface.write(tmp_path, ticket(), "a/b@95", "mit")
    found = huggingface.read(tmp_path)
    assert same(found, ticket()) and found.metadata == ticket().metadata
    assert found.weights is not None and equal(dict(found.model().state_dict()), found.weights)
    first = next(iter(found.mask))
    assert bool((found.mask[first] & (found.weights[first] == 0)).any())  # not a removed weight


def test_two_writes_give_the_same_bytes_and_other_files_stay(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        (folder / ".gitattributes").write_text("theirs")
        huggingface.write(folder, ticket(), "t")
    names = {huggingface.WEIGHTS, huggingface.CONFIG, huggingface.CARD, ".gitattributes"}
    assert {path.name for path in folders[0].iterdir()} == names
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_other_programs_read_the_weights_and_the_card(tmp_path: Path) -> None:
    huggingface.write(tmp_path, ticket(), "a/b@95", "mit")
    tensors = load_file(tmp_path / huggingface.WEIGHTS)
    for name, keep in ticket().mask.items():
        assert torch.equal(tensors[f"{name}_mask"], keep) and not tensors[name][~keep].any()
    text = (tmp_path / huggingface.CARD).read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "mit", "library_name": "ticketlab",
        "tags": ["ticketlab", "lottery-ticket-hypothesis", "pruning", "sparse"],
    }  # fmt: skip
    assert "# a/b@95" in body and r"imp \| own" in body and ticket().mask.digest() in body


def test_the_cards_code_loads_the_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface.write(tmp_path / "FOLDER", ticket(), "t")
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "FOLDER" / huggingface.CARD).read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert same(names["ticket"], ticket()) and isinstance(names["network"], torch.nn.Module)


def config(folder: Path, **changes: object) -> None:
    path = folder / huggingface.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_not_ours_or_was_changed_is_one_line(tmp_path: Path, one_line: Message) -> None:
    read = lambda: huggingface.read(tmp_path)  # noqa: E731
    assert "config.json: no such file" in one_line(read)
    huggingface.write(tmp_path, ticket(), "t")
    config(tmp_path, sha256="0")
    assert "do not match their SHA-256" in one_line(read)
    huggingface.write(tmp_path, ticket(), "t")
    config(tmp_path, masked=["none.weight"])
    assert "config.json: not as it was written" in one_line(read)
    config(tmp_path, model_type="bert")
    assert "model_type is 'bert', allowed is 'ticketlab'" in one_line(read)
    huggingface.write(tmp_path, ticket(), "t")
    (tmp_path / huggingface.WEIGHTS).write_bytes(b"cut")
    assert "not a readable safetensors file" in one_line(read)
    (tmp_path / huggingface.WEIGHTS).unlink()
    assert "model.safetensors: no such file" in one_line(read)
    bare = Ticket(ticket().mask)
    assert "needs weights" in one_line(lambda: huggingface.write(tmp_path, bare, "t"))


def test_convert_writes_a_folder_and_reads_it_again(tmp_path: Path) -> None:
    source, folder, back = tmp_path / "t.safetensors", tmp_path / "hub", tmp_path / "back.pt"
    save_ticket(ticket(), source)
    there = run("convert", source, f"{folder}/")
    assert there.exit_code == 0 and "Hugging Face" in there.output
    assert same(anything.read(str(folder))[0], ticket())
    assert "the tensors match their SHA-256" in run("show", folder).output
    assert run("convert", folder, back).exit_code == 0
    found = outside.read(back)
    assert found.weights is not None and same(Ticket(found.mask, found.weights), ticket())
    assert 'license: "unknown"' in (folder / huggingface.CARD).read_text()
