"""`Mask`, which prunable weights a ticket keeps, and how masks are made from scores."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ticketlab import gpu
from ticketlab.pruning.selection import select
from ticketlab.spec import InputError

State = dict[str, Tensor]
"""Weights, biases and batch-norm state by name, detached from any model."""


class Mask(Mapping[str, Tensor]):
    """Named boolean tensors, one per prunable parameter: True is kept, False is removed.

    Parameters without an entry are not prunable and always kept. Treat masks as immutable: every
    operation returns a new one.
    """

    def __init__(self, layers: Mapping[str, Tensor]) -> None:
        for name, keep in layers.items():
            if keep.dtype != torch.bool:
                raise InputError(f"mask layer {name!r}: dtype {keep.dtype}, allowed is torch.bool")
        self._layers = dict(layers)

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Mask({len(self)} layers, {self.alive} of {self.total} weights kept)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return list(self) == list(other) and all(torch.equal(self[n], other[n]) for n in self)

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: "Mask") -> "Mask":
        return self._combine(other, torch.logical_and)

    def __or__(self, other: "Mask") -> "Mask":
        return self._combine(other, torch.logical_or)

    def _combine(self, other: "Mask", operation: Callable[[Tensor, Tensor], Tensor]) -> "Mask":
        check_same_layers(self, other)
        return Mask({name: operation(self[name], other[name]) for name in self})

    @property
    def device(self) -> torch.device:
        """The device of its tensors, which all lie on one; the CPU for a mask without layers."""
        return next((keep.device for keep in self.values()), torch.device("cpu"))

    @property
    def total(self) -> int:
        """Number of prunable weights, kept or not."""
        return sum(keep.numel() for keep in self.values())

    @property
    def alive(self) -> int:
        """Number of weights kept."""
        return sum(self.counts().values())

    @property
    def density(self) -> float:
        """Fraction of the prunable weights kept."""
        return self.alive / self.total

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights removed."""
        return 1 - self.density

    def flat(self) -> Tensor:
        """Return all layers as one bool vector (total,), in layer order."""
        return torch.cat([keep.flatten() for keep in self.values()])

    def to(self, device: torch.device | str) -> "Mask":
        """Return the same mask on another device, moved in one transfer."""
        return Mask(gpu.moved(self, device))

    def contains(self, other: "Mask") -> bool:
        """Return whether every weight that `other` keeps is kept here too (nesting)."""
        mine, theirs = _aligned(self, other)
        return not bool((theirs & ~mine).any())

    def digest(self) -> str:
        """Return the SHA-256 over names, shapes and bits."""
        sha = hashlib.sha256()
        for name, keep in self.to("cpu").items():
            sha.update(f"{name}{tuple(keep.shape)}".encode())
            sha.update(_pack(keep).tobytes())
        return sha.hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the weights kept in each layer; reads the device once."""
        kept = (
            torch.stack([keep.count_nonzero() for keep in self.values()]).tolist() if self else []
        )
        return dict(zip(self, kept, strict=True))

    def collapsed(self) -> list[str]:
        """Return the layers with no weight left, which block every signal (layer collapse)."""
        return [name for name, kept in self.counts().items() if not kept]

    def densities(self) -> dict[str, float]:
        """Return the fraction kept in each layer."""
        return {name: kept / self[name].numel() for name, kept in self.counts().items()}

    def table(self) -> pd.DataFrame:
        """Return a table with one row per layer: weights, kept, density."""
        rows = [(name, self[name].numel(), kept) for name, kept in self.counts().items()]
        frame = pd.DataFrame(rows, columns=["layer", "weights", "kept"])
        return frame.assign(density=frame.kept / frame.weights)


# ---------------------------------------------------------------- making masks


def ones(model: nn.Module, names: Sequence[str]) -> Mask:
    """Return the dense mask, which keeps every weight of the parameters `names`."""
    parameters = dict(model.named_parameters())
    return Mask({name: torch.ones_like(parameters[name], dtype=torch.bool) for name in names})


def keep_top(scores: Mapping[str, Tensor], keep: int, within: Mask | None = None) -> Mask:
    """Keep the `keep` weights of highest score across all layers (global pruning).

    Exactly `keep` remain, whatever the scores: ties go to the earlier layer, then the lower index.
    Weights outside `within` stay removed. Raises InputError for NaN or too few candidates.
    """
    everything = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    candidates = Mask(everything) if within is None else within
    check_shapes(candidates, scores)
    left = candidates.alive
    if not 0 <= keep <= left:
        raise InputError(f"keep: {keep} is not between 0 and the {left} weights left")
    parts = [scores[name] for name in candidates]
    inside = [layer.to(scores[name].device) for name, layer in candidates.items()]
    return Mask(dict(zip(candidates, select(parts, keep, inside), strict=True)))


def keep_top_layerwise(
    scores: Mapping[str, Tensor], keep: Mapping[str, int], within: Mask | None = None
) -> Mask:
    """Keep the weights of highest score in each layer, `keep[name]` of them; see `keep_top`."""
    layers: dict[str, Tensor] = {}
    for name, score in scores.items():
        inner = None if within is None else Mask({name: within[name]})
        layers.update(keep_top({name: score}, keep[name], inner))
    return Mask(layers)


def after_pruning(alive: int, rate: float) -> int:
    """Return alive - round(rate x alive): the weights left after removing a fraction `rate`."""
    return alive - round(rate * alive)


def prune(scores: Mapping[str, Tensor], mask: Mask, rate: float, layerwise: bool = False) -> Mask:
    """Remove the fraction `rate` of the weights still in `mask`, lowest scores first."""
    if not layerwise:
        return keep_top(scores, after_pruning(mask.alive, rate), within=mask)
    keep = {name: after_pruning(kept, rate) for name, kept in mask.counts().items()}
    return keep_top_layerwise({name: scores[name] for name in mask}, keep, within=mask)


def at_least(masks: Sequence[Mask], votes: int) -> Mask:
    """Keep a weight that at least `votes` of the masks keep (all masks: AND; 1: OR)."""
    if not 1 <= votes <= len(masks):
        raise InputError(f"votes: {votes} is not between 1 and the {len(masks)} masks")
    for other in masks[1:]:
        check_same_layers(masks[0], other)
    counts = {n: torch.stack([m[n] for m in masks]).sum(0) for n in masks[0]}
    return Mask({name: count >= votes for name, count in counts.items()})


def union(masks: Sequence[Mask]) -> Mask:
    """Return the OR of all masks."""
    return reduce(Mask.__or__, masks)


def intersection(masks: Sequence[Mask]) -> Mask:
    """Return the AND of all masks."""
    return reduce(Mask.__and__, masks)


def shuffle_layerwise(mask: Mask, generator: torch.Generator) -> Mask:
    """Keep as many weights per layer, at random positions (the control of Frankle et al. 2021)."""
    layers = {}
    for name, keep in mask.items():
        order = torch.randperm(keep.numel(), generator=generator, device=generator.device)
        layers[name] = keep.flatten()[order.to(keep.device)].view(keep.shape)
    return Mask(layers)


def shuffle_each(masks: Mapping[str, Mask], seed: int, *purpose: str) -> dict[str, Mask]:
    """Shuffle each mask within its layers, with separate draws for each name."""
    draws = {name: gpu.generator("cpu", seed, *purpose, name) for name in masks}
    return {name: shuffle_layerwise(mask, draws[name]) for name, mask in masks.items()}


# ---------------------------------------------------------------- comparing masks


def jaccard(a: Mask, b: Mask) -> float:
    """Return ``|a and b| / |a or b|``, the intersection over union (1 for two empty masks)."""
    one, two = _aligned(a, b)
    union = int((one | two).count_nonzero())
    return int((one & two).count_nonzero()) / union if union else 1.0


def overlap(a: Mask, b: Mask) -> float:
    """Return ``|a and b| / min(|a|, |b|)``: the share of the smaller mask that both keep."""
    one, two = _aligned(a, b)
    smaller = min(int(one.count_nonzero()), int(two.count_nonzero()))
    return int((one & two).count_nonzero()) / smaller if smaller else 1.0


def hamming(a: Mask, b: Mask) -> int:
    """Return the number of weights on which the masks differ."""
    one, two = _aligned(a, b)
    return int((one ^ two).count_nonzero())


def _aligned(a: Mask, b: Mask) -> tuple[Tensor, Tensor]:
    """Return both masks as bool vectors (total,) in the layer order of `a`."""
    check_same_layers(a, b)
    return a.flat(), torch.cat([b[name].flatten() for name in a])


def chance_jaccard(a: float, b: float) -> float:
    """Return the expected IoU of two independent random masks of densities a and b (large n)."""
    return a * b / (a + b - a * b) if a or b else 1.0


# ---------------------------------------------------------------- validation


def check_same_layers(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """Raise InputError unless both have the same layers, with the same shapes."""
    if differing := sorted(set(a) ^ set(b)):
        raise InputError(f"mask layer {differing[0]!r}: only one of the two masks has it")
    check_shapes(a, b)


def check_shapes(mask: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raise InputError naming the layer unless every layer of `mask` has a match in `other`."""
    for name, keep in mask.items():
        if name not in other:
            raise InputError(f"mask layer {name!r}: no such weight; known: {', '.join(other)}")
        if keep.shape != other[name].shape:
            have, want = tuple(keep.shape), tuple(other[name].shape)
            raise InputError(f"mask layer {name!r}: shape {have}, the weight has {want}")


def check_fits(mask: Mask, model: nn.Module) -> None:
    """Raise InputError naming the layer unless the mask fits the model's parameters."""
    check_shapes(mask, dict(model.named_parameters()))


# ---------------------------------------------------------------- packing


def _pack(keep: Tensor) -> np.ndarray:
    return np.packbits(keep.flatten().numpy())


def pack(mask: Mask) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return the bits of each layer, eight per byte, and the shapes needed to unpack them."""
    host = mask.to("cpu")
    bits = {f"mask.{name}": torch.from_numpy(_pack(keep)) for name, keep in host.items()}
    return bits, {name: list(keep.shape) for name, keep in host.items()}


def unpack(bits: Mapping[str, Tensor], shapes: Mapping[str, list[int]]) -> Mask:
    """Return the mask that `pack` packed."""
    layers = {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        flat = np.unpackbits(bits[f"mask.{name}"].numpy(), count=count)
        layers[name] = torch.from_numpy(flat.astype(bool)).view(shape)
    return Mask(layers)
