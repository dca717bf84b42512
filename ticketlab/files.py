"""Read and write files: atomically, equal content as equal bytes, errors in one line."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ticketlab.spec import InputError

LONGEST = 60
"""Maximum number of characters of a wrong value that a message shows."""


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]
) -> None:
    """Write tensors and a JSON header atomically; equal content gives equal bytes."""
    # safetensors writes several metadata keys in random order, so the header is a single key.
    text = json.dumps(header, sort_keys=True)
    whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    write_atomically(path, save(whole, metadata={"ticketlab": text}))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and header; InputError in one line for a missing, damaged or foreign file."""
    with _opened(path) as (file, header):
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


def read_safetensors_header(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return tensor names and header, without reading a tensor; errors as `read_safetensors`."""
    with _opened(path) as (file, header):
        return list(file.keys()), header


def is_foreign(path: Path) -> bool:
    """Whether an existing file is another project's: no safetensors, or without our header."""
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return "ticketlab" not in (file.metadata() or {})
    except SafetensorError:
        return False  # damaged, which reading it says


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a safetensors file and parse its header; any problem raises InputError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["ticketlab"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable ticketlab file ({reason})") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see either the old content or the new, never a mixture."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def write_json(path: Path, content: object) -> None:
    """Write sorted, indented JSON atomically; NaN raises an error, because JSON cannot hold it."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Return parsed JSON; InputError in one line for a missing or damaged file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: not readable JSON ({error})") from error


def read_yaml(path: Path) -> Any:
    """Return YAML 1.2 parsed as DVC does; InputError in one line if missing or invalid."""
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def parse_yaml(text: str | bytes, place: str) -> Any:
    """Return parsed YAML; for invalid text, InputError in one line that starts with `place`.

    The constructors of YAML tags raise many types of exception ('!!int many' raises ValueError,
    '!!bool many' KeyError, deep nesting RecursionError), so all of them are caught.
    """
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())
    except RecursionError as error:
        reason = f"nested too deep: {error}"
    except Exception as error:
        reason = _wrong_scalar(text) or " ".join(f"{type(error).__name__} {error}".split())
    raise InputError(f"{place}: not valid YAML ({reason})")


def compose_yaml(text: str, place: str) -> Node:
    """Return the nodes of a YAML text; their marks give each node's position in the text."""
    try:
        node: Node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise InputError(f"{place}: not valid YAML ({' '.join(str(error).split())})") from None
    return node


def yaml_text(content: object) -> str:
    """Return content as YAML in the format in which DVC writes parameters."""
    yaml, stream = YAML(), StringIO()
    yaml.default_flow_style = False
    yaml.dump(content, stream)
    return stream.getvalue()


def _wrong_scalar(text: str | bytes) -> str:
    """Return key, value and tag of the first scalar that does not match its tag, or ''."""
    with suppress(Exception):
        yaml = YAML(typ="safe", pure=True)
        for key, node in _scalars(yaml.compose(text)):
            try:
                YAML(typ="safe", pure=True).constructor.construct_object(node, deep=True)
            except Exception as error:
                tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
                value = repr(node.value[:LONGEST])
                return f"{key}: {value} is no {tag}: {error}".removeprefix(": ")
    return ""


def _scalars(node: Node, place: str = "") -> Iterator[tuple[str, Node]]:
    """Yield every scalar below a node, with its dotted key."""
    if isinstance(node, ScalarNode):
        yield place, node
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield from _scalars(key, place)
            yield from _scalars(value, f"{place}.{key.value}".lstrip("."))
    else:
        for number, value in enumerate(node.value):
            yield from _scalars(value, f"{place}.{number}".lstrip("."))


def replace_folder(new: Path, old: Path) -> None:
    """Replace the folder `old` by `new`; if the process is killed meanwhile, neither is lost."""
    if not new.is_dir():
        raise InputError(f"{new}: no such folder")
    try:
        retired = old.with_name(f".{old.name}.retired")
        shutil.rmtree(retired, ignore_errors=True)
        if old.exists():
            old.rename(retired)
        new.rename(old)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{old}: cannot be replaced ({error.strerror})") from error
