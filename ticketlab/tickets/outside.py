"""Masks that other projects saved, and tickets in the forms that other projects read.

Nothing here runs code from a file: PyTorch files are read with `weights_only`, so that a pickled
network is refused and only tensors come in.

Read are a state_dict of a network pruned by `torch.nn.utils.prune` (NAME_orig and NAME_mask), a
mapping of names to 0/1 tensors (open_lth's mask.pth, and any plain dict of masks), and a state_dict
whose removed weights are zero. A ticket can be written as the first and the last of these.
"""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ticketlab.files import write_atomically
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError

Form = Literal["prune", "masks", "state_dict"]
"""How a mask is saved: by torch.nn.utils.prune, as a mapping of masks, or as zeros of weights."""

FORMS: dict[Form, str] = {
    "prune": "a state_dict pruned by torch.nn.utils.prune",
    "masks": "a mapping of masks",
    "state_dict": "a state_dict with weights of 0",
}
"""The forms in words."""

ORIG, MASK = "_orig", "_mask"
"""Suffixes of a parameter that torch.nn.utils.prune prunes, and of its mask."""
INSIDE = ("state_dict", "model_state_dict", "model", "net", "mask", "masks")
"""Keys under which training scripts save a state_dict or a mask beside other things."""
PARALLEL = "module."
"""Prefix of all names in a network saved from DataParallel."""
EXPORT = "save it anew with torch.save(model.state_dict(), PATH)"


@dataclass(frozen=True)
class Outside:
    """A mask from another project, and the weights of its file: those under the mask, or None."""

    mask: Mask
    weights: State | None
    form: Form


# ---------------------------------------------------------------- reading


def read(path: Path) -> Outside:
    """Read a mask from a PyTorch or safetensors file, on the CPU.

    InputError for a missing file, for one that holds Python objects besides tensors (nothing of it
    is run), and for one in which no mask can be found.
    """
    return parse(tensors_in(path), str(path))


def tensors_in(path: Path) -> State:
    """Return the tensors of a file by name; InputError as `read`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    try:
        with warnings.catch_warnings():  # of old pickle protocols, which it then reads or refuses
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds Python objects, allowed are tensors; {EXPORT}") from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable PyTorch file ({why})") from None
    return _named(content, str(path))


def _named(content: Any, where: str) -> State:
    """Return the tensors of what a file holds, which may be one level down."""
    if isinstance(content, Mapping):
        found = {k: t for k, t in content.items() if isinstance(k, str) and isinstance(t, Tensor)}
        if found and len(found) == len(content):
            return found
        for key in INSIDE:
            if isinstance(content.get(key), Mapping):
                return _named(content[key], f"{where}, {key!r}")
    keys = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else ""
    what = f"a mapping with the keys {keys}" if keys else f"a {type(content).__name__}"
    raise InputError(f"{where}: holds {what}, allowed is a mapping of names to tensors; {EXPORT}")


def parse(tensors: Mapping[str, Tensor], where: str = "mask") -> Outside:
    """Find the mask among named tensors; InputError if there is none.

    In a plain state_dict only tensors with zeros are masked, and only those of two dimensions and
    more: the zeros of biases and of batch-norm statistics are values like others.
    """
    named = without_prefix(tensors)
    if any(name.endswith(ORIG) for name in named):
        return _pruned(named, where)
    if all(_is_binary(tensor) for tensor in named.values()):
        return Outside(_checked({n: t.bool() for n, t in named.items()}, where), None, "masks")
    zeros = {n: t != 0 for n, t in named.items() if t.dim() > 1 and bool((t == 0).any())}
    if not zeros:
        raise InputError(f"{where}: no weight is 0 and none is named *{ORIG}, so it has no mask")
    weights = {n: t.detach().clone() for n, t in named.items()}
    return Outside(_checked(zeros, where), weights, "state_dict")


def without_prefix(tensors: Mapping[str, Tensor]) -> State:
    """Return the tensors by their names outside of DataParallel."""
    if all(name.startswith(PARALLEL) for name in tensors):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _is_binary(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or bool(((tensor == 0) | (tensor == 1)).all())


def _pruned(named: State, where: str) -> Outside:
    bases = [name.removesuffix(ORIG) for name in named if name.endswith(ORIG)]
    masks: dict[str, Tensor] = {}
    for base in bases:
        keep = named.get(base + MASK)
        if keep is None or keep.shape != named[base + ORIG].shape:
            raise InputError(f"{where}: {base + ORIG!r} has no {base + MASK!r} of its shape")
        if not _is_binary(keep):
            raise InputError(f"{where}: {base + MASK!r} is not a mask, allowed are 0 and 1")
        masks[base] = keep.bool()
    used = {base + MASK for base in bases}
    weights = {
        name.removesuffix(ORIG): t.detach().clone() for name, t in named.items() if name not in used
    }
    kept = _checked(masks, where)
    applied = {n: t * kept[n] if n in kept else t for n, t in weights.items()}
    return Outside(kept, applied, "prune")


def _checked(masks: dict[str, Tensor], where: str) -> Mask:
    mask = Mask(masks)
    if not mask.total:
        raise InputError(f"{where}: no tensors, so it has no mask")
    if not mask.alive:
        raise InputError(f"{where}: the mask removes all {mask.total} weights")
    return mask


def fitted(mask: Mask, model: nn.Module) -> Mask:
    """Return the mask in the order of the network's parameters.

    InputError for a layer that the network lacks, or has in another shape; it names the layer and
    what the network has.
    """
    own = dict(model.named_parameters())
    for name, keep in mask.items():
        if name not in own:
            weights = ", ".join(n for n, p in own.items() if p.dim() > 1)
            raise InputError(f"mask: layer {name!r} is not in the network, which has {weights}")
        if keep.shape != own[name].shape:
            have = tuple(own[name].shape)
            raise InputError(f"mask: layer {name!r} has shape {tuple(keep.shape)}, not {have}")
    return Mask({name: mask[name] for name in own if name in mask})


# ---------------------------------------------------------------- writing


def as_form(mask: Mask, weights: State | None, form: Form) -> State:
    """Return a ticket's tensors as other projects name them; `read` gives the ticket back.

    "prune" has the names of `torch.nn.utils.prune`, so a network pruned by `custom_from_mask` loads
    them. InputError where a form needs weights and there are none.
    """
    if form == "masks":
        return {name: keep.to(torch.int32) for name, keep in mask.items()}
    if weights is None:
        raise InputError(f"form: {form!r} needs weights and only a mask was stored; allowed: masks")
    applied = {n: w * mask[n] if n in mask else w.clone() for n, w in weights.items()}
    if form == "state_dict":
        return applied
    found: State = {}
    for name, tensor in applied.items():
        if name in mask:
            found |= {name + ORIG: tensor, name + MASK: mask[name].to(tensor.dtype)}
        else:
            found[name] = tensor
    return found


def write(path: Path, mask: Mask, weights: State | None, form: Form) -> None:
    """Write a ticket for other projects: safetensors by its suffix, else a PyTorch file."""
    tensors = {name: t.contiguous() for name, t in as_form(mask, weights, form).items()}
    if path.suffix == ".safetensors":
        write_atomically(path, save(tensors, metadata={"format": "pt"}))
        return
    buffer = BytesIO()
    torch.save(tensors, buffer)
    write_atomically(path, buffer.getvalue())
