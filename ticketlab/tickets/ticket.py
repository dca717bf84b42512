"""A ticket: a mask, its starting weights and its trained outcome, as one verified file."""

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
    """A trained net: its weights after the last epoch, and its logits on the test images."""

    state: State
    logits: Tensor
    """Float32 (N, classes), in the order of the data set's test images."""

    def named(self) -> State:
        """Return all tensors in one mapping, which `from_named` reverses."""
        return {f"trained.{name}": t for name, t in self.state.items()} | {"logits": self.logits}

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor]) -> "Outcome | None":
        """Return the outcome among the tensors of a file, or None if there is none."""
        found = {n.removeprefix("trained."): t for n, t in tensors.items() if n[:8] == "trained."}
        return cls(found, tensors["logits"]) if "logits" in tensors else None


@dataclass(frozen=True)
class Ticket:
    """A mask, its starting weights, its trained outcome (if kept) and its origin."""

    mask: Mask
    weights: State | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None

    def model(self) -> nn.Module:
        """Build the network at the ticket's weights, on the CPU and ready to train under `mask`.

        Raises InputError for a ticket stored as a mask only, or without its architecture.
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
    """Make a ticket on the CPU: removed weights are zero, `origin` becomes its metadata.

    `trained_mask_sha256` is the digest of the mask under which the net was trained: the ticket's
    own, or `pruned_from`. A unit that trained no such net cannot store the ticket. `init_sha256` is
    the hash of `weights` before masking, unless `origin` has it: tickets of one seed that were
    rewound to the same weights share it.
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
    """Return the name of a round's ticket, e.g. 'round-03'."""
    return f"round-{index:02d}"


def round_of(name: str) -> int:
    """Return the round of a ticket named by `round_name`."""
    return int(name.removeprefix("round-"))


def network(spec: models.ModelSpec, data: DataSet) -> dict[str, Any]:
    """Return what `Ticket.model` needs to build the network, and the data's hash, for `origin`."""
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
    # Pairs, because the order of layers is part of a mask but the header sorts its keys.
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
    """Return the SHA-256 over everything a ticket holds."""
    parts = [ticket.mask.digest(), state_digest(ticket.weights or {}), dict(ticket.metadata)]
    if ticket.outcome is not None:
        parts.append(state_digest(ticket.outcome.named()))
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def state_digest(state: State) -> str:
    """Return the SHA-256 over names, shapes and bytes of a state."""
    sha = hashlib.sha256()
    host = gpu.moved(state, "cpu")
    for name in sorted(host):
        array = host[name].detach().contiguous().numpy()
        sha.update(f"{name}{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
