"""A ticket as an ONNX network: sparse weights, the same bits back, the same answers."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Message
from typer.testing import CliRunner

from ticketlab import models
from ticketlab.cli import app
from ticketlab.pruning.masks import keep_top, ones
from ticketlab.reader import anything
from ticketlab.tickets import onnx_file
from ticketlab.tickets.ticket import Ticket, make_ticket, save_ticket


def ticket(name: str = "conv3", width: int | None = 8, density: float = 0.05) -> Ticket:
    spec = models.ModelSpec(name=name, width=width)
    model = models.build(spec, (1, 14, 14), 10, 3)
    weights, dense = dict(model.state_dict()), ones(model, models.prunable(model, "hidden"))
    mask = keep_top({n: weights[n].abs() for n in dense}, round(density * dense.total))
    first = next(iter(mask))
    weights[first].view(-1)[int(mask[first].flatten().nonzero()[0])] = 0.0  # kept, and 0
    facts: dict[str, Any] = {"model": spec.model_dump(mode="json"), "shape": [1, 14, 14]}
    return make_ticket(mask, weights, classes=10, **facts)


@pytest.fixture(scope="session")
def onnx() -> Any:
    pytest.importorskip("onnxscript", reason="needs pip install 'ticketlab[onnx]'")
    return pytest.importorskip("onnx", reason="needs pip install 'ticketlab[onnx]'")


@pytest.mark.parametrize(
    ("name", "width"), [("lenet_300_100", None), ("conv2", 4), ("conv3", 8), ("resnet8", 8)]
)
def test_weights_are_sparse_in_the_file_and_come_back_bit_for_bit(
    tmp_path: Path, onnx: Any, name: str, width: int | None
) -> None:
    own, path = ticket(name, width), tmp_path / "t.onnx"
    onnx_file.write(path, own)
    graph = onnx.load(path).graph
    kept = {one.values.name: int(one.values.dims[0]) for one in graph.sparse_initializer}
    assert kept == own.mask.counts()
    assert not set(kept) & {one.name for one in graph.initializer}
    found = onnx_file.read(path)
    assert found.mask == own.mask and found.metadata == own.metadata
    assert own.weights is not None and found.weights is not None
    assert list(found.weights) == list(own.weights)
    assert all(torch.equal(found.weights[n], t) for n, t in own.weights.items())
    assert all(found.weights[n].dtype == t.dtype for n, t in own.weights.items())
    found.model()  # a whole state of the network


def test_a_file_names_no_folder_of_this_machine_and_is_smaller_than_the_dense_one(
    tmp_path: Path, onnx: Any
) -> None:
    sizes = {}
    for density in (0.05, 0.9):
        path = tmp_path / f"{density}.onnx"
        onnx_file.write(path, ticket("lenet_300_100", None, density))
        sizes[density] = path.stat().st_size
        content = path.read_bytes()
        assert str(Path(onnx_file.__file__).parents[1]).encode() not in content
    assert sizes[0.05] < sizes[0.9] / 5


def test_a_runtime_gives_the_networks_logits(tmp_path: Path, onnx: Any) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
    own, path = ticket("resnet8", 8), tmp_path / "t.onnx"
    onnx_file.write(path, own)
    x = torch.randn(5, 1, 14, 14)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": x.numpy()})
    with torch.no_grad():
        expected = own.model().eval()(x).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_convert_writes_and_reads_onnx(tmp_path: Path, onnx: Any) -> None:
    save_ticket(ticket(), tmp_path / "t.safetensors")
    words = ["convert", str(tmp_path / "t.safetensors"), str(tmp_path / "t.onnx")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "ONNX" in done.output
    assert anything.read(str(tmp_path / "t.onnx"))[0].mask == ticket().mask
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "t.onnx")])
    assert shown.exit_code == 0 and "body.conv1.weight" in shown.output


def test_another_file_is_one_line(tmp_path: Path, onnx: Any, one_line: Message) -> None:
    path = tmp_path / "t.onnx"
    assert "no such file" in one_line(lambda: onnx_file.read(path))
    for content in (b"", b"no protobuf"):
        path.write_bytes(content)
        assert "not a readable ONNX file of ticketlab" in one_line(lambda: onnx_file.read(path))


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = one_line(lambda: onnx_file.write(tmp_path / "t.onnx", ticket()))
    assert "pip install 'ticketlab[onnx]'" in message and not (tmp_path / "t.onnx").exists()


def test_a_ticket_without_a_network_is_one_line(tmp_path: Path, one_line: Message) -> None:
    bare = Ticket(ticket().mask, ticket().weights)
    assert "no model in its metadata" in one_line(
        lambda: onnx_file.write(tmp_path / "t.onnx", bare)
    )
