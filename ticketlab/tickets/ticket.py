"""A ticket: a mask, the weights it starts from and what became of it, as one verified file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ticketlab import gpu, models
from ticketlab.data.sets import DataSet
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.pruning.masks import Mask, State, pack, unpack
from ticketlab.spec import InputError


@dataclass(frozen=True)
class Outcome:
    """What became of a net: its weights after the last epoch, and its logits on test images."""

    state: State
    logits: Tensor
    """Float32 (N, classes), in the order of the data set's test images."""

    def named(self) -> State:
        """All tensors under one name each, as `from_named` takes them apart."""
        return {f"trained.{name}": t for name, t in self.state.items()} | {"logits": self.logits}

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> "Outcome | None":
        """The outcome among the tensors of a file, None if there is none."""
        found = {n.removeprefix("trained."): t for n, t in tensors.items() if n[:8] == "trained."}
        return cls(found, tensors["logits"]) if "logits" in tensors else None


@dataclass(frozen=True)
class Ticket:
    """A mask, the weights it starts from and what became of it (if kept), and its origin."""

    mask: Mask
    weights: State | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None

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
    mask: Mask,
    weights: State | None = None,
    pruned_from: Mask | None = None,
    outcome: Outcome | None = None,
    **origin: Any,
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
    if outcome is not None:
        outcome = Outcome(gpu.moved(outcome.state, "cpu"), outcome.logits.cpu())
    if weights is None:
        return Ticket(mask, None, origin, outcome)
    host = gpu.moved(weights, "cpu")
    kept = {name: w * mask[name] if name in mask else w for name, w in host.items()}
    return Ticket(mask, kept, {"init_sha256": state_digest(host)} | origin, outcome)


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
    """Write a ticket as safetensors: packed mask, rewound weights, outcome, hashes, metadata."""
    bits, shapes = pack(ticket.mask)
    after = ticket.outcome.named() if ticket.outcome else {}
    weights = {f"weight.{name}": tensor for name, tensor in (ticket.weights or {}).items()}
    # As pairs: the order of the layers is part of a mask, and the header's keys are sorted.
    header = {
        "shapes": list(shapes.items()),
        "metadata": dict(ticket.metadata),
        "sha256": _digest(ticket),
    }
    write_safetensors(path, bits | weights | after, header)


def load_ticket(path: Path) -> Ticket:
    """Read a ticket; InputError if it is damaged or does not match its hashes."""
    tensors, header = read_safetensors(path)
    try:
        mask = unpack(tensors, dict(header["shapes"]))
        metadata, expected = header["metadata"], header["sha256"]
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a readable ticket ({error!r})") from error
    weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
    ticket = Ticket(mask, weights or None, metadata, Outcome.from_named(tensors))
    if _digest(ticket) != expected:
        raise InputError(f"{path}: the ticket does not match its SHA-256, the file was changed")
    return ticket


def _digest(ticket: Ticket) -> str:
    """SHA-256 over all that a ticket holds."""
    parts = [ticket.mask.digest(), state_digest(ticket.weights or {}), dict(ticket.metadata)]
    if ticket.outcome is not None:
        parts.append(state_digest(ticket.outcome.named()))
    text = json.dumps(parts, sort_keys=True)
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
