"""The prepared file of a data set: its official images as one verified safetensors file."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from ticketlab.data import sources
from ticketlab.data.sources import KEYS
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.spec import ROOT, InputError, Spec


class Header(Spec):
    """The header of a prepared file; sha256 is the digest of its four arrays."""

    name: str
    classes: int
    sha256: str


def prepared_path(name: str, root: Path | None = None) -> Path:
    """Return the path of NAME.safetensors: in `root`, else TICKETLAB_PREPARED or data/prepared."""
    folder = root or Path(os.environ.get("TICKETLAB_PREPARED") or ROOT / "data" / "prepared")
    return folder / f"{name}.safetensors"


def prepare(name: str, root: Path | None = None) -> Path:
    """Read data set `name` from its source and write its prepared file; returns the path.

    Equal images give equal bytes, and the file is written atomically. Raises `DataNotFound`, or
    `InputError` for a damaged source or a folder that cannot be written.
    """
    raw, path = sources.read(name), prepared_path(name, root)
    arrays = {key: torch.from_numpy(getattr(raw, key)) for key in KEYS}
    header = Header(name=name, classes=raw.classes, sha256=_digest(arrays))
    write_safetensors(path, arrays, header.model_dump())
    return path


def read_prepared(path: Path, name: str) -> tuple[dict[str, Tensor], Header]:
    """Read the four arrays (x uint8 NCHW, y int64) and the header, and check their SHA-256.

    Raises `InputError`, with the command that prepares a damaged file again.
    """
    try:
        arrays, stored = read_safetensors(path)
        header = Header.model_validate(stored)
        intact = header.name == name and header.sha256 == _digest(arrays)
    except (ValueError, KeyError) as error:  # InputError and pydantic's errors are ValueErrors
        raise _damaged(path, " ".join(str(error).split())) from error
    if not intact:
        raise _damaged(path, "its content does not match its name and SHA-256")
    return arrays, header


def _digest(arrays: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in KEYS:
        array = arrays[key].numpy()
        digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged ({reason}): delete it, or make it anew with `ticketlab prepare STUDY`"
    )
