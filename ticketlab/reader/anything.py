"""Any ticket or mask that a user names: an address, a file or folder of ours, another's file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ticketlab.files import is_foreign
from ticketlab.pruning.masks import State
from ticketlab.reader import loading
from ticketlab.tickets import huggingface, onnx_file, outside
from ticketlab.tickets.ticket import Ticket, load_ticket


def read(source: str, archive: Path | None = None) -> tuple[Ticket, str]:
    """Return what an address (in `archive`) or a path has, and its form in words.

    Weights are those of the file, also below the mask. InputError, in one line, for what cannot be
    read or has no mask; no code of a file is run.
    """
    path = Path(source)
    if is_address(source):
        return loading.load(source, archive).ticket, "a stored ticket"
    if huggingface.is_folder(path):
        return huggingface.read(path), "a folder in Hugging Face's form"
    if path.suffix == ".onnx":
        return onnx_file.read(path), "an ONNX file of ticketlab"
    if path.exists() and not is_foreign(path):
        return load_ticket(path), "a ticket of ticketlab"
    tensors = outside.tensors_in(path)
    found = outside.parse(tensors, str(path))
    weights = unmasked(tensors) if found.form == "prune" else found.weights
    return Ticket(found.mask, weights), outside.FORMS[found.form]


def is_address(source: str) -> bool:
    """Return whether a source is an address, and no path that exists."""
    return "@" in source and not Path(source).exists()


def unmasked(tensors: Mapping[str, Tensor]) -> State:
    """Return the weights of a state_dict under their plain names, as they are below its masks."""
    named = outside.without_prefix(tensors)
    pruned = {name.removesuffix(outside.ORIG) for name in named if name.endswith(outside.ORIG)}
    masks = {name + outside.MASK for name in pruned}
    return {n.removesuffix(outside.ORIG): t for n, t in named.items() if n not in masks}
