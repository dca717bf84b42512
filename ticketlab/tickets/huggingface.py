"""A ticket as a folder in the form of the Hugging Face Hub, and back again, bit for bit.

`model.safetensors` has the weights by name, 0 where removed, and a bool tensor `NAME_mask` beside
each prunable one; `config.json` has the network and the origin; `README.md` is the card. Nothing
here uses a network, and no code of a folder is run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ticketlab.files import read_json, write_atomically, write_json
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError
from ticketlab.tickets.outside import MASK
from ticketlab.tickets.ticket import Ticket, state_digest

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TYPE = "ticketlab"
"""The `model_type` in config.json by which a folder of ours is known."""
UNKNOWN = "unknown"
"""The licence of weights of which nothing is known, in the Hub's words."""


# ---------------------------------------------------------------- writing


def write(folder: Path, ticket: Ticket, name: str, licence: str = UNKNOWN) -> None:
    """Write the ticket into a folder, whose other files stay; the weights are written last.

    `name` is the card's title, `licence` one of the Hub's identifiers. InputError for a ticket
    without weights.
    """
    tensors, weights = named(ticket), ticket.weights or {}
    config = {
        "model_type": TYPE,
        "architectures": [ticket.metadata.get("model", {}).get("name", "unknown")],
        "weights": list(weights),
        "masked": list(ticket.mask),
        "sparsity": ticket.mask.sparsity,
        "sha256": state_digest(tensors),
        "metadata": dict(ticket.metadata),
    }
    write_json(folder / CONFIG, config)
    write_atomically(folder / CARD, card(ticket, name, licence).encode())
    write_atomically(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))


def named(ticket: Ticket) -> State:
    """Return the tensors of model.safetensors: weights, 0 where removed, and masks."""
    if ticket.weights is None:
        raise InputError("ticket: only a mask was stored, and this form needs weights, too")
    tensors: State = {}
    for name, weight in ticket.weights.items():
        keep = ticket.mask.get(name)
        tensors[name] = (weight if keep is None else weight * keep).contiguous()
    return tensors | {name + MASK: keep.contiguous() for name, keep in ticket.mask.items()}


def card(ticket: Ticket, name: str, licence: str) -> str:
    """Return the card: the Hub's header in YAML, what the ticket is, how to load it, its origin."""
    mask, facts = ticket.mask, ticket.metadata
    header = {
        "license": licence,
        "library_name": "ticketlab",
        "tags": ["ticketlab", "lottery-ticket-hypothesis", "pruning", "sparse"],
    }
    rows = [
        f"| {key} | {_cell(value)} |" for key, value in sorted(facts.items()) if value is not None
    ]
    return "\n".join([
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in header.items()),
        "---",
        "",
        f"# {name}",
        "",
        f"A lottery ticket: it keeps {mask.alive:,} of {mask.total:,} prunable weights "
        f"({100 * mask.sparsity:.4g} % removed) at the values from which its training starts. "
        f"Removed weights are 0, and `NAME{MASK}` says which they are.",
        "",
        "## Load it",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "from ticketlab.tickets import huggingface",
        "",
        'ticket = huggingface.read(Path("FOLDER"))',
        "network = ticket.model()  # with removed weights at 0",
        "```",
        "",
        "Without ticketlab, `safetensors.torch.load_file` gives weights and masks by name.",
        "",
        "## Origin",
        "",
        "| what | value |",
        "| --- | --- |",
        *rows,
        f"| SHA-256 of the mask | {mask.digest()} |",
        "",
    ])  # fmt: skip


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.replace("|", r"\|").replace("\n", " ")


# ---------------------------------------------------------------- reading


def is_folder(path: Path) -> bool:
    """Whether this is a folder with a config.json."""
    return (path / CONFIG).is_file()


def read(folder: Path) -> Ticket:
    """Read a ticket that `write` wrote.

    InputError for a folder of another kind, and for one whose tensors do not match the hash.
    """
    config = read_json(folder / CONFIG)
    if not isinstance(config, Mapping) or config.get("model_type") != TYPE:
        found = config.get("model_type") if isinstance(config, Mapping) else type(config).__name__
        raise InputError(f"{folder / CONFIG}: model_type is {found!r}, allowed is {TYPE!r}")
    tensors = _tensors(folder / WEIGHTS)
    if state_digest(tensors) != config.get("sha256"):
        raise InputError(f"{folder}: the tensors do not match their SHA-256, a file was changed")
    try:
        mask = Mask({name: tensors[name + MASK] for name in config["masked"]})
        weights = {name: tensors[name] for name in config["weights"]}
        return Ticket(mask, weights, dict(config["metadata"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / CONFIG}: not as it was written ({error!r})") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable safetensors file ({reason})") from None
