"""A ticket: a mask and the weights it starts from, as one verified file that knows its origin."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ticketlab import gpu, models
from ticketlab.data.sets import DataSet
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.pruning.masks import Mask, State, pack, unpack
from ticketlab.spec import InputError


@dataclass(frozen=True)
class Ticket:
    """A mask, the weights it starts from (if kept), and where it comes from."""

    mask: Mask
    weights: State | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> nn.Module:
        """The network at the ticket's weights, on the CPU and ready to train under `mask`.

        InputError for a ticket that was stored as a mask alone, or without its architecture.
        """
        facts = self.metadata
        if self.weights is None or "model" not in facts:
            what = "no weights" if self.weights is None else "no model in its metadata"
            raise InputError(
                f"ticket: it has {what}, so there is no network to build; use its mask"
            )
        spec = models.ModelSpec.model_validate(facts["model"])
        model = models.build(spec, tuple(facts["shape"]), facts["classes"], seed=0)
        model.load_state_dict(self.weights)
        return model


def make_ticket(
    mask: Mask, weights: State | None = None, pruned_from: Mask | None = None, **origin: Any
) -> Ticket:
    """A ticket on the CPU: removed weights are zero, `origin` becomes its metadata.

    `trained_mask_sha256` is the digest of the mask under which its net was trained: its own, or the
    one it was `pruned_from`. A unit that has trained no such net does not store the ticket.
    `init_sha256` is the hash of `weights` before masking, unless `origin` has it: tickets of one
    seed that were rewound to the same weights share it.
    """
    mask = mask.to("cpu")
    trained = mask if pruned_from is None else pruned_from
    origin |= {"sparsity": mask.sparsity, "trained_mask_sha256": trained.digest()}
    if weights is None:
        return Ticket(mask, None, origin)
    host = gpu.moved(weights, "cpu")
    kept = {name: w * mask[name] if name in mask else w for name, w in host.items()}
    return Ticket(mask, kept, {"init_sha256": state_digest(host)} | origin)


def round_name(index: int) -> str:
    """The name of a round's ticket, e.g. 'round-03'."""
    return f"round-{index:02d}"


def round_of(name: str) -> int:
    """The round of a ticket that `round_name` has named."""
    return int(name.removeprefix("round-"))


def network(spec: models.ModelSpec, data: DataSet) -> dict[str, Any]:
    """What `Ticket.model` needs to build the network, and the hash of the data; for `origin`."""
    return {
        "model": spec.model_dump(mode="json"),
        "shape": list(data.shape),
        "classes": data.classes,
        "data_sha256": data.sha256,
    }


def save_ticket(ticket: Ticket, path: Path) -> None:
    """Write a ticket as safetensors: bit-packed mask, rewound weights, hashes, metadata."""
    bits, shapes = pack(ticket.mask)
    weights = {f"weight.{name}": tensor for name, tensor in (ticket.weights or {}).items()}
    # As pairs: the order of the layers is part of a mask, and the header's keys are sorted.
    header = {
        "shapes": list(shapes.items()),
        "metadata": dict(ticket.metadata),
        "sha256": _digest(ticket.mask, ticket.weights or {}, ticket.metadata),
    }
    write_safetensors(path, bits | weights, header)


def load_ticket(path: Path) -> Ticket:
    """Read a ticket; InputError if it is damaged or does not match its hashes."""
    tensors, header = read_safetensors(path)
    try:
        mask = unpack(tensors, dict(header["shapes"]))
        metadata, expected = header["metadata"], header["sha256"]
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable ticket ({error!r})") from error
    weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
    if _digest(mask, weights, metadata) != expected:
        raise InputError(f"{path}: the ticket does not match its SHA-256, the file was changed")
    return Ticket(mask, weights or None, metadata)


def _digest(mask: Mask, weights: State, metadata: Mapping[str, Any]) -> str:
    """SHA-256 over all that a ticket holds."""
    text = json.dumps([mask.digest(), state_digest(weights), metadata], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def state_digest(state: State) -> str:
    """SHA-256 over names, shapes and bytes of a state."""
    sha = hashlib.sha256()
    host = gpu.moved(state, "cpu")
    for name in sorted(host):
        array = host[name].detach().contiguous().numpy()
        sha.update(f"{name}{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
