"""The mask that is judged: read from a file or an address, and matched to the network's layers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor, nn

from ticketlab import models
from ticketlab.pruning.masks import Mask, State
from ticketlab.reader import anything
from ticketlab.spec import InputError
from ticketlab.tickets import outside
from ticketlab.tickets.ticket import Ticket

Start = Literal["none", "kept", "all"]
"""The weights that come with a mask: none, those that it keeps, or all of the dense network's."""

BODY = "body."
"""Prefix of all names but the output layer's in our networks: `model` of a plug-in has none."""
COUNTER = "num_batches_tracked"
"""A counter of batch-norm without effect on training."""

T = TypeVar("T")


@dataclass(frozen=True)
class Given:
    """A mask that fits the network, with its starting weights, if any, and its origin."""

    name: str
    """The file's name, or the address."""
    mask: Mask
    weights: State | None
    form: str
    """How it was stored, in words."""
    sha256: Mapping[str, str]
    """Hashes of the files, by their name."""

    @property
    def start(self) -> Start:
        """Which weights it has. All, if a weight that the mask removes is not 0."""
        if self.weights is None:
            return "none"
        removed = (self.weights[name][~keep] for name, keep in self.mask.items())
        return "all" if any(bool(weights.any()) for weights in removed) else "kept"

    @property
    def ticket(self) -> Ticket:
        """The mask and its weights, as the argument of a unit."""
        return Ticket(self.mask, self.weights)


def load(
    source: str,
    model: nn.Module,
    names: Mapping[str, str] | None = None,
    weights: Path | None = None,
    archive: Path | None = None,
) -> Given:
    """Read a mask from a file or an address (in `archive`), with the weights of its file.

    `weights` is a file with a state_dict that replaces those. `names` maps names of the files to
    the network's; a name also matches without the network's prefix `body.`. InputError, in one
    line, for a file that cannot be read, and for layers or weights that do not fit the network.
    """
    ticket, form = anything.read(source, archive)
    files = [one for one in (Path(source), weights) if one is not None and one.is_file()]
    state = ticket.weights
    if weights is not None:
        state = anything.unmasked(outside.tensors_in(weights))
    return Given(
        source if anything.is_address(source) else Path(source).name,
        fitted_mask(ticket.mask, model, names or {}),
        None if state is None else fitted_weights(state, model, names or {}),
        form,
        {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files},
    )


# ---------------------------------------------------------------- matching


def renamed(
    found: Mapping[str, T], own: Mapping[str, object], names: Mapping[str, str]
) -> dict[str, T]:
    """Return what was found under the network's `own` names where they match, else unchanged."""
    ours: dict[str, T] = {}
    for name, value in found.items():
        known = names.get(name, name)
        to = f"{BODY}{known}" if known not in own and f"{BODY}{known}" in own else known
        if to in ours:
            raise InputError(f"names: two layers of the file become {to!r}, allowed is one")
        ours[to] = value
    return ours


def fitted_mask(mask: Mask, model: nn.Module, names: Mapping[str, str]) -> Mask:
    """Return the mask by the network's names, in its order; only weights of layers can be masked.

    A mask that removes nothing of a bias or of batch-norm is left out.
    """
    own, allowed = dict(model.named_parameters()), models.prunable(model, "conv_linear")
    found = renamed(mask, own, names)
    kept = {n: keep for n, keep in found.items() if n in allowed or not _is_vector_of_ones(keep)}
    try:
        fitting = outside.fitted(Mask(kept), model)
    except InputError as error:
        raise InputError(f"{error}; `names` in the parameters maps names to it") from None
    if other := [name for name in fitting if name not in allowed]:
        raise InputError(
            f"mask: {other[0]!r} is no weight of a convolution or a linear layer, "
            f"allowed: {', '.join(allowed)}"
        )
    if fitting.alive in (0, fitting.total):
        what = "all" if not fitting.alive else "none"
        raise InputError(f"mask: it removes {what} of {fitting.total} weights, allowed are some")
    return fitting


def _is_vector_of_ones(keep: Tensor) -> bool:
    return keep.dim() < 2 and bool(keep.all())


def fitted_weights(weights: State, model: nn.Module, names: Mapping[str, str]) -> State:
    """Return the weights as a whole state of the network; state of batch-norm may be missing."""
    own, parameters = model.state_dict(), dict(model.named_parameters())
    found = {n: t for n, t in renamed(weights, own, names).items() if not n.endswith(COUNTER)}
    if missing := [name for name in parameters if name not in found]:
        other = [name for name in found if name not in own]
        way = f"`names` may map {other[0]!r} to it" if other else "--weights names a whole file"
        raise InputError(
            f"weights: {missing[0]!r} is missing, needed are all {len(parameters)} parameters of "
            f"the network; {way}"
        )
    for name, tensor in found.items():
        if name not in own:
            raise InputError(f"weights: {name!r} is not in the network; it has {_some(own)}")
        if tensor.shape != own[name].shape:
            have, want = tuple(tensor.shape), tuple(own[name].shape)
            raise InputError(f"weights: {name!r} has shape {have}, not {want}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"weights: {name!r} has values that are not finite")
    return {name: found[name].to(t.dtype) if name in found else t for name, t in own.items()}


def _some(own: Mapping[str, object]) -> str:
    return ", ".join(list(own)[:4]) + (", ..." if len(own) > 4 else "")
