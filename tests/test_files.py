"""Files: atomic, the same bytes for the same content, and one line for whatever is wrong."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Message
from safetensors import safe_open
from safetensors.torch import save_file

from ticketlab import files
from ticketlab.files import (
    parse_yaml,
    read_json,
    read_safetensors,
    read_safetensors_header,
    read_yaml,
    replace_folder,
    write_atomically,
    write_json,
    write_safetensors,
)

TENSORS = {
    "w": torch.arange(12.0).view(3, 4) - 5.5,
    "b": torch.tensor([], dtype=torch.float32),
    "n": torch.tensor(7),
    "bits": torch.tensor([[True], [False]]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "half": torch.tensor([0.1, -2.0], dtype=torch.bfloat16),
}
HEADER = {"arm": "imp", "layers": {"z": [3, 4], "a": [2]}, "share": 0.1, "none": None, "ü": "é"}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --- atomic writing


def test_bytes_are_written_as_they_are_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    for content in (b"one\r\n\x00", b"", b"\xff" * 100_000):
        write_atomically(path, content)
        assert path.read_bytes() == content and names(path.parent) == {"c.bin"}


class Full:
    """A disk that fails at one of the steps of writing: half of the bytes arrive at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
        self.write, self.reached = Path.write_bytes, False

        def write_half(path: Path, content: bytes) -> int:
            self.reached = True
            self.write(path, content[: len(content) // 2])
            raise error

        def fail(path: Path, target: Path) -> Path:
            self.reached = True
            raise error

        monkeypatch.setattr(Path, step, write_half if step == "write_bytes" else fail)


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
@pytest.mark.parametrize("before", [None, b"the old content"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomically(path, b"the new content"),
        lambda path: write_json(path, {"a": list(range(100))}),
        lambda path: write_safetensors(path, TENSORS, HEADER),
    ],
)
def test_a_failing_write_leaves_the_old_content_and_nothing_else(
    write: Callable[[Path], None], before: bytes | None, step: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message,
) -> None:  # fmt: skip
    path = tmp_path / "result.x"
    if before is not None:
        path.write_bytes(before)
    left = names(tmp_path)
    disk = Full(monkeypatch, step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    message = one_line(lambda: write(path))
    assert disk.reached and message == f"{path}: cannot be written (No space left on device)"
    assert names(tmp_path) == left and (before is None or path.read_bytes() == before)


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_kill_while_writing_never_leaves_a_part_under_the_name(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        Full(patched, step, KeyboardInterrupt())
        write_json(path, {"new": list(range(100))})
    assert read_json(path) == {"old": 1}
    assert all(name == "result.json" or name.startswith(".") for name in names(tmp_path))
    write_json(path, {"new": 2})
    assert read_json(path) == {"new": 2} and names(tmp_path) == {"result.json"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, one_line: Message) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    path = tmp_path / "results" / "desk" / "metrics.json"
    message = one_line(lambda: write_json(path, {}))
    assert message.startswith(f"{path}: cannot be written (") and names(tmp_path) == {"results"}
    target = tmp_path / "folder"
    target.mkdir()
    message = one_line(lambda: write_json(target, {}))
    assert message.startswith(f"{target}: cannot be written (") and target.is_dir()
    assert names(tmp_path) == {"results", "folder"}


def test_a_read_only_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message
) -> None:
    Full(monkeypatch, "write_bytes", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    message = one_line(lambda: write_json(tmp_path / "m.json", {}))
    assert message == f"{tmp_path / 'm.json'}: cannot be written (Permission denied)"


# --- JSON


def test_json_is_sorted_indented_and_comes_back(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None, True], "a": {"ü": "x\ny", "0": -1e-9}}
    write_json(tmp_path / "one.json", content)
    write_json(tmp_path / "two.json", dict(reversed(content.items())))
    text = (tmp_path / "one.json").read_bytes()
    assert read_json(tmp_path / "one.json") == content
    assert text == (tmp_path / "two.json").read_bytes() and text.endswith(b"}\n")
    assert text.index(b'"a"') < text.index(b'"b"') and text.startswith(b'{\n  "a"')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_does_not_have_is_refused_and_nothing_is_written(
    value: object, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "m.json", {"accuracy": value})
    assert names(tmp_path) == set()


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe{}", b"{'a': 1}", b"a\nb\n"])
def test_damaged_json_is_one_line_that_names_the_file(
    content: bytes, tmp_path: Path, one_line: Message
) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    assert one_line(lambda: read_json(path)).startswith(f"{path}: not readable JSON (")


@pytest.mark.parametrize("read", [read_json, read_safetensors, read_safetensors_header])
def test_a_missing_file_is_one_line_that_names_it(
    read: Callable[[Path], object], tmp_path: Path, one_line: Message
) -> None:
    path = tmp_path / "none.x"
    assert one_line(lambda: read(path)) == f"{path}: no such file"


# --- safetensors


def test_tensors_and_header_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, TENSORS, HEADER)
    tensors, header = read_safetensors(path)
    assert header == HEADER and set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape


def test_a_header_is_read_without_any_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, TENSORS, HEADER)

    @contextmanager
    def without_tensors(*given: Any, **more: Any) -> Iterator[SimpleNamespace]:
        with safe_open(*given, **more) as file:
            yield SimpleNamespace(metadata=file.metadata, keys=file.keys)

    monkeypatch.setattr(files, "safe_open", without_tensors)
    names, header = read_safetensors_header(path)
    assert set(names) == set(TENSORS) and header == HEADER
    with pytest.raises(AttributeError, match="get_tensor"):
        read_safetensors(path)


def test_tensors_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    path, whole = tmp_path / "t.safetensors", torch.arange(24.0).view(2, 3, 2, 2)
    given = {"turned": whole.flip(0).transpose(1, 3), "part": whole[1:, ::2], "same": whole[0]}
    write_safetensors(path, given, {})
    assert all(torch.equal(found, given[name]) for name, found in read_safetensors(path)[0].items())


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    write_safetensors(paths[0], TENSORS, HEADER)
    write_safetensors(paths[1], TENSORS, HEADER)
    turned = dict(reversed(TENSORS.items()))
    write_safetensors(paths[2], turned, dict(reversed(HEADER.items())))
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_file_cut_anywhere_is_one_line_that_names_it(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, TENSORS, HEADER)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 17), len(whole) - 1}:
        path.write_bytes(whole[:length])
        message = one_line(lambda: read_safetensors(path))
        assert message.startswith(f"{path}: not a readable ticketlab file (")


def foreign(path: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file({"w": torch.ones(2)}, path)
    elif kind == "metadata":
        save_file({"w": torch.ones(2)}, path, metadata={"format": "pt"})
    elif kind == "header":
        save_file({"w": torch.ones(2)}, path, metadata={"ticketlab": "{not JSON"})
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, w=np.ones(2))
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"Some\nlines of text.\n" * 5)


@pytest.mark.parametrize("kind", ["safetensors", "metadata", "header", "npz", "folder", "text"])
def test_a_foreign_file_is_one_line_that_names_it(
    kind: str, tmp_path: Path, one_line: Message
) -> None:
    path = tmp_path / "t.safetensors"
    foreign(path, kind)
    message = one_line(lambda: read_safetensors(path))
    assert message.startswith(f"{path}: not a readable ticketlab file (") and message.endswith(")")
    assert one_line(lambda: read_safetensors_header(path)) == message


def test_a_header_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_safetensors(tmp_path / "t.safetensors", {}, {"x": {1, 2}})
    assert names(tmp_path) == set()


# --- folders


def filled(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text(f"{folder.name}/{file}")
    return folder


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    new, old = filled(tmp_path / "new", "a", "b"), filled(tmp_path / "old", "b", "c")
    replace_folder(new, old)
    assert names(tmp_path) == {"old", "old/a", "old/b"}
    assert (old / "b").read_text() == "new/b"
    replace_folder(filled(tmp_path / "next", "d"), old)
    assert names(tmp_path) == {"old", "old/d"}


def test_a_folder_may_take_a_place_that_is_free(tmp_path: Path) -> None:
    replace_folder(filled(tmp_path / "new", "a"), tmp_path / "old")
    assert names(tmp_path) == {"old", "old/a"}


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_while_replacing_loses_neither_folder(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before either renaming, all bytes of both are there, and the next try succeeds."""
    new, old = filled(tmp_path / "new", "a"), filled(tmp_path / "old", "c")
    moves, rename = [], Path.rename

    def killed(path: Path, target: Path) -> Path:
        moves.append(path)
        if len(moves) == at:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        replace_folder(new, old)
    texts = {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert texts == {"new/a", "old/c"} and new.is_dir()
    replace_folder(new, old)
    assert names(tmp_path) == {"old", "old/a"}


def test_a_folder_that_is_not_there_replaces_nothing(tmp_path: Path, one_line: Message) -> None:
    message = one_line(lambda: replace_folder(tmp_path / "none", tmp_path / "old"))
    assert message == f"{tmp_path / 'none'}: no such folder"


def test_the_header_is_one_json_text(tmp_path: Path) -> None:
    """Other tools read it too: a single metadata key, so that its place in the file is fixed."""
    path = tmp_path / "t.safetensors"
    write_safetensors(path, {"w": torch.ones(1)}, {"b": 1, "a": 2})
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    assert json.loads(raw[8 : 8 + size])["__metadata__"] == {"ticketlab": '{"a": 2, "b": 1}'}


# --- YAML

NO_YAML = {
    "!!int many": "'many' is no !!int",
    "a: {b: [1, !!bool many]}": "a.b.1: 'many' is no !!bool",
    "a: !!float x": "a: 'x' is no !!float",
    "a: !!timestamp 2001-99-99": "a: '2001-99-99' is no !!timestamp",
    "!!binary 'é'": "base64",
    "a: !!python/object x": "tag",
    "<<: 3": "merging",
    "{[1, {}]: 2}": "unhashable",
    "[": "expected",
}


@pytest.mark.parametrize("text", NO_YAML, ids=range(len(NO_YAML)))
def test_a_text_that_is_no_yaml_is_one_line(text: str, tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    for act in (lambda: parse_yaml(text, str(path)), lambda: read_yaml(path)):
        message = one_line(act)
        assert message.startswith(f"{path}: not valid YAML (") and NO_YAML[text] in message
