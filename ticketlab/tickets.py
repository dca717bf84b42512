"""A ticket: a mask and the rewound weights it belongs to, as one verified file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.masks import Mask, pack, unpack
from ticketlab.spec import InputError
from ticketlab.training import State


@dataclass(frozen=True)
class Ticket:
    """A mask, the rewound weights it belongs to (if kept), and where it comes from."""

    mask: Mask
    weights: State | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_ticket(ticket: Ticket, path: Path) -> None:
    """Write a ticket as safetensors: bit-packed mask, rewound weights, hashes, metadata."""
    bits, shapes = pack(ticket.mask)
    weights = {f"weight.{name}": tensor for name, tensor in (ticket.weights or {}).items()}
    header = {"shapes": shapes, "mask_sha256": ticket.mask.digest(),
              "weights_sha256": state_digest(ticket.weights or {}),
              "metadata": dict(ticket.metadata)}  # fmt: skip
    write_safetensors(path, bits | weights, header)


def load_ticket(path: Path) -> Ticket:
    """Read a ticket; InputError if it is damaged or does not match its hashes."""
    tensors, header = read_safetensors(path)
    try:
        mask = unpack(tensors, header["shapes"])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not a readable ticket ({error!r})") from error
    weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
    found = (mask.digest(), state_digest(weights))
    if found != (header["mask_sha256"], header["weights_sha256"]):
        raise InputError(f"{path}: the ticket does not match its SHA-256, the file was changed")
    return Ticket(mask, weights or None, header["metadata"])


def state_digest(state: State) -> str:
    """SHA-256 over names, shapes and bytes of a state."""
    sha = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        sha.update(f"{name}{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
