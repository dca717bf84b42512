"""Masks from other projects: forms, refusals, nothing of a file is run; and tickets handed out."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from typer.testing import CliRunner, Result

from ticketlab import models
from ticketlab.cli import app
from ticketlab.pruning.masks import Mask
from ticketlab.tickets.outside import FORMS, Form, as_form, fitted, parse, read, write


class Payload:
    """An object that makes a folder when it is unpickled: a file that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def net(seed: int = 0) -> nn.Module:
    return models.build(models.ModelSpec(name="conv3", width=4), (1, 14, 14), 10, seed)


def pruned() -> nn.Module:
    """A network pruned by PyTorch's own functions: two convolutions, one of them with its bias."""
    model = net()
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for number, conv in enumerate(convs[:2]):
        torch.manual_seed(number)
        prune.random_unstructured(conv, "weight", amount=0.6)
    return model


def named(model: nn.Module) -> dict[str, torch.Tensor]:
    """Each pruned weight's name in the plain network, with its mask."""
    state = model.state_dict()
    return {
        name.removesuffix("_mask"): keep.bool()
        for name, keep in state.items()
        if name.endswith("_mask")
    }


# --- reading


def test_a_network_pruned_by_pytorch_gives_its_masks_and_weights(tmp_path: Path) -> None:
    model = pruned()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    found = read(tmp_path / "a.pt")
    assert found.form == "prune" and found.mask == Mask(named(model))
    assert found.weights is not None and set(found.weights) == set(net().state_dict())
    for module in model.modules():  # what PyTorch itself makes permanent
        if isinstance(module, nn.Conv2d) and prune.is_pruned(module):
            prune.remove(module, "weight")
    assert all(torch.equal(found.weights[n], t) for n, t in model.state_dict().items())
    assert fitted(found.mask, net()) == found.mask


@pytest.mark.parametrize("kind", [torch.int32, torch.float32, torch.bool, torch.uint8])
def test_a_mapping_of_masks_is_read_as_open_lth_saves_it(tmp_path: Path, kind: Any) -> None:
    keep = {"fc.weight": torch.tensor([[1, 0], [0, 1]]), "conv.weight": torch.ones(2, 1, 3, 3)}
    torch.save({n: t.to(kind) for n, t in keep.items()}, tmp_path / "mask.pth")
    found = read(tmp_path / "mask.pth")
    assert found.form == "masks" and found.weights is None
    assert found.mask == Mask({n: t.bool() for n, t in keep.items()})


def test_zeros_of_a_plain_state_dict_are_its_mask(tmp_path: Path) -> None:
    state = net().state_dict()
    first = next(name for name, t in state.items() if t.dim() == 4)
    state[first] = torch.where(state[first] > 0, state[first], 0.0)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.tar")
    found = read(tmp_path / "checkpoint.tar")
    assert found.form == "state_dict" and list(found.mask) == [first]  # biases of 0 are no mask
    assert torch.equal(found.mask[first], state[first] != 0)


def test_names_of_a_parallel_network_and_other_buffers_are_understood() -> None:
    state = {f"module.{name}": t for name, t in pruned().state_dict().items()}
    state["module.attention_mask"] = torch.ones(3)
    found = parse(state)
    assert found.mask == Mask(named(pruned()))
    assert found.weights is not None and "attention_mask" in found.weights


# --- refusals


@pytest.mark.parametrize("what", ["object", "network", "list"])
def test_no_code_of_a_file_is_run(tmp_path: Path, one_line: Message, what: str) -> None:
    path, made = tmp_path / "evil.pt", tmp_path / "made"
    torch.save({"object": Payload(made), "network": net(), "list": [1, 2]}[what], path)
    message = one_line(lambda: read(path))
    assert str(path) in message and "torch.save(model.state_dict(), PATH)" in message
    assert not made.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, one_line: Message) -> None:
    path, made = tmp_path / "evil.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps(Payload(made)))
    assert "allowed are tensors" in one_line(lambda: read(path))
    assert not made.exists()


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"a.weight": torch.randn(2, 2) + 9}, "no weight is 0"),
        ({"a.weight": torch.zeros(2, 2)}, "removes all 4 weights"),
        ({"a_orig": torch.ones(2)}, "'a_orig' has no 'a_mask' of its shape"),
        ({"a_orig": torch.ones(2), "a_mask": torch.ones(3)}, "has no 'a_mask' of its shape"),
        ({"a_orig": torch.ones(2), "a_mask": torch.tensor([0.5, 1])}, "allowed are 0 and 1"),
        ({}, "no tensors"),
    ],
)
def test_a_file_without_a_mask_is_one_line(
    tensors: dict[str, torch.Tensor], why: str, one_line: Message
) -> None:
    assert why in one_line(lambda: parse(tensors, "mask.pt"))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_damaged_or_missing_file_is_one_line(
    tmp_path: Path, one_line: Message, name: str
) -> None:
    path = tmp_path / name
    assert "no such file" in one_line(lambda: read(path))
    for content in (b"", b"PK\x03\x04 not a zip", b"\x10"):
        path.write_bytes(content)
        assert str(path) in one_line(lambda: read(path))


def test_a_mask_that_does_not_fit_the_network_names_layer_and_shape(one_line: Message) -> None:
    name = next(n for n, p in net().named_parameters() if p.dim() == 4)
    message = one_line(
        lambda: fitted(Mask({"conv9.weight": torch.ones(1, dtype=torch.bool)}), net())
    )
    assert "'conv9.weight'" in message and name in message
    wrong = Mask({name: torch.ones(2, 2, dtype=torch.bool)})
    assert "shape (2, 2), not (" in one_line(lambda: fitted(wrong, net()))


# --- writing


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["prune", "masks"]),
    st.sampled_from([".pt", ".safetensors"]),
)
def test_a_ticket_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, form: Form, suffix: str
) -> None:
    random = torch.Generator().manual_seed(seed)
    state = net(seed).state_dict()
    keep = {n: torch.rand(t.shape, generator=random) < 0.3 for n, t in state.items() if t.dim() > 1}
    mask, path = Mask(keep), tmp_path_factory.mktemp("out") / f"ticket{suffix}"
    weights = {n: t * keep[n] if n in keep else t for n, t in state.items()}
    write(path, mask, weights, form)
    found = read(path)
    assert found.mask == mask and found.form == form
    if form == "prune":
        assert found.weights is not None
        assert all(torch.equal(found.weights[n], t) for n, t in weights.items())


def test_pytorchs_own_pruning_takes_what_is_written() -> None:
    """The network that it gives computes as the ticket does."""
    state = net().state_dict()
    keep = {n: t > 0 for n, t in state.items() if t.dim() == 4}
    model = net(seed=5)
    for name in keep:
        module = model.get_submodule(name.removesuffix(".weight"))
        prune.identity(module, "weight")
    model.load_state_dict(as_form(Mask(keep), state, "prune"))
    plain = net(seed=5)
    plain.load_state_dict(as_form(Mask(keep), state, "state_dict"))
    x = torch.randn(2, 1, 14, 14)
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_a_form_that_needs_weights_says_so(one_line: Message) -> None:
    mask = Mask({"a": torch.tensor([True, False])})
    assert "allowed: masks" in one_line(lambda: as_form(mask, None, "prune"))


# --- on the command line


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_file_of_another_project_is_shown_and_converted(tmp_path: Path) -> None:
    model, source = pruned(), tmp_path / "theirs.pt"
    torch.save(model.state_dict(), source)
    for form in FORMS:
        target = tmp_path / f"{form}.safetensors"
        assert run("convert", source, target, "--form", form).exit_code == 0
        assert read(target).mask == Mask(named(model))
        assert FORMS[form] in run("show", target).output
    unknown = run("convert", source, tmp_path / "x.pt", "--form", "onnx")
    assert unknown.exit_code == 2 and "'prune'" in unknown.output
    assert not (tmp_path / "x.pt").exists()


def test_a_file_without_a_mask_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.pt", tmp_path / "out.pt"
    torch.save(net(), source)
    for words in (("show", source), ("convert", source, target)):
        found = run(*words)
        assert found.exit_code == 2 and found.stderr.count("\n") == 1
        assert "allowed are tensors" in found.stderr
    assert not target.exists()
