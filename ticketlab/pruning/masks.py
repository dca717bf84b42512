"""`Mask`: which prunable weights a ticket keeps, and how a mask is made from scores."""

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
    """Named boolean tensors, one a prunable weight: True is kept, False is removed.

    Weights that are not named are not prunable and always kept. Immutable by convention:
    every operation returns a new mask.
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
        """Where its tensors lie, all in one place; the CPU for a mask of no layers."""
        return next((keep.device for keep in self.values()), torch.device("cpu"))

    @property
    def total(self) -> int:
        """Prunable weights, kept or not."""
        return sum(keep.numel() for keep in self.values())

    @property
    def alive(self) -> int:
        """Weights kept."""
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
        """All layers as one bool vector (total,), in layer order."""
        return torch.cat([keep.flatten() for keep in self.values()])

    def to(self, device: torch.device | str) -> "Mask":
        """The same mask on another device, moved in one copy."""
        return Mask(gpu.moved(self, device))

    def contains(self, other: "Mask") -> bool:
        """Whether every weight that `other` keeps is kept here too (nesting)."""
        mine, theirs = _aligned(self, other)
        return not bool((theirs & ~mine).any())

    def digest(self) -> str:
        """SHA-256 over names, shapes and bits."""
        sha = hashlib.sha256()
        for name, keep in self.to("cpu").items():
            sha.update(f"{name}{tuple(keep.shape)}".encode())
            sha.update(_pack(keep).tobytes())
        return sha.hexdigest()

    def counts(self) -> dict[str, int]:
        """Weights kept in each layer; one read of the device."""
        kept = (
            torch.stack([keep.count_nonzero() for keep in self.values()]).tolist() if self else []
        )
        return dict(zip(self, kept, strict=True))

    def collapsed(self) -> list[str]:
        """Layers without a single weight left: no signal passes them (layer collapse)."""
        return [name for name, kept in self.counts().items() if not kept]

    def densities(self) -> dict[str, float]:
        """Fraction kept in each layer."""
        return {name: kept / self[name].numel() for name, kept in self.counts().items()}

    def table(self) -> pd.DataFrame:
        """One row per layer: weights, kept, density."""
        rows = [(name, self[name].numel(), kept) for name, kept in self.counts().items()]
        frame = pd.DataFrame(rows, columns=["layer", "weights", "kept"])
        return frame.assign(density=frame.kept / frame.weights)


# ---------------------------------------------------------------- making masks


def ones(model: nn.Module, names: Sequence[str]) -> Mask:
    """The dense mask: every weight of the parameters `names` kept."""
    parameters = dict(model.named_parameters())
    return Mask({name: torch.ones_like(parameters[name], dtype=torch.bool) for name in names})


def keep_top(scores: Mapping[str, Tensor], keep: int, within: Mask | None = None) -> Mask:
    """Keep the `keep` weights of highest score over all layers together (global pruning).

    Exactly `keep` remain for any scores: ties go to the earlier layer, then the lower index.
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
    """As `keep_top`, with a count of its own for each layer."""
    layers: dict[str, Tensor] = {}
    for name, score in scores.items():
        inner = None if within is None else Mask({name: within[name]})
        layers.update(keep_top({name: score}, keep[name], inner))
    return Mask(layers)


def after_pruning(alive: int, rate: float) -> int:
    """Weights left when the fraction `rate` of `alive` is removed: alive - round(rate x alive)."""
    return alive - round(rate * alive)


def prune(scores: Mapping[str, Tensor], mask: Mask, rate: float, layerwise: bool = False) -> Mask:
    """Remove the fraction `rate` of the weights still in `mask`, lowest scores first."""
    if not layerwise:
        return keep_top(scores, after_pruning(mask.alive, rate), within=mask)
    keep = {name: after_pruning(kept, rate) for name, kept in mask.counts().items()}
    return keep_top_layerwise({name: scores[name] for name in mask}, keep, within=mask)


def at_least(masks: Sequence[Mask], votes: int) -> Mask:
    """Keep a weight that at least `votes` of the masks keep (all: AND; 1: OR)."""
    if not 1 <= votes <= len(masks):
        raise InputError(f"votes: {votes} is not between 1 and the {len(masks)} masks")
    for other in masks[1:]:
        check_same_layers(masks[0], other)
    counts = {n: torch.stack([m[n] for m in masks]).sum(0) for n in masks[0]}
    return Mask({name: count >= votes for name, count in counts.items()})


def union(masks: Sequence[Mask]) -> Mask:
    """OR of all masks."""
    return reduce(Mask.__or__, masks)


def intersection(masks: Sequence[Mask]) -> Mask:
    """AND of all masks."""
    return reduce(Mask.__and__, masks)


def shuffle_layerwise(mask: Mask, generator: torch.Generator) -> Mask:
    """The same number kept in each layer, at random places (the control of Frankle et al. 2021)."""
    layers = {}
    for name, keep in mask.items():
        order = torch.randperm(keep.numel(), generator=generator, device=generator.device)
        layers[name] = keep.flatten()[order.to(keep.device)].view(keep.shape)
    return Mask(layers)


def shuffle_each(masks: Mapping[str, Mask], seed: int, *purpose: str) -> dict[str, Mask]:
    """Each mask shuffled layerwise, by its name and with draws of its own."""
    draws = {name: gpu.generator("cpu", seed, *purpose, name) for name in masks}
    return {name: shuffle_layerwise(mask, draws[name]) for name, mask in masks.items()}


# ---------------------------------------------------------------- comparing masks


def jaccard(a: Mask, b: Mask) -> float:
    """Intersection over union of the kept weights, |a and b| / |a or b| (1 for two empty masks)."""
    one, two = _aligned(a, b)
    union = int((one | two).count_nonzero())
    return int((one & two).count_nonzero()) / union if union else 1.0


def overlap(a: Mask, b: Mask) -> float:
    """Share of the smaller mask that the other keeps too, |a and b| / min(|a|, |b|)."""
    one, two = _aligned(a, b)
    smaller = min(int(one.count_nonzero()), int(two.count_nonzero()))
    return int((one & two).count_nonzero()) / smaller if smaller else 1.0


def hamming(a: Mask, b: Mask) -> int:
    """Number of weights on which the masks differ."""
    one, two = _aligned(a, b)
    return int((one ^ two).count_nonzero())


def _aligned(a: Mask, b: Mask) -> tuple[Tensor, Tensor]:
    """Both masks as bool vectors (total,) in the layer order of `a`."""
    check_same_layers(a, b)
    return a.flat(), torch.cat([b[name].flatten() for name in a])


def chance_jaccard(a: float, b: float) -> float:
    """Expected IoU of two independent random masks with densities a and b (large n)."""
    return a * b / (a + b - a * b) if a or b else 1.0


# ---------------------------------------------------------------- validation


def check_same_layers(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """Raise InputError unless both have the same layers of the same shapes."""
    if differing := sorted(set(a) ^ set(b)):
        raise InputError(f"mask layer {differing[0]!r}: only one of the two masks has it")
    check_shapes(a, b)


def check_shapes(mask: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raise InputError, naming the layer, unless every layer of `mask` fits `other`."""
    for name, keep in mask.items():
        if name not in other:
            raise InputError(f"mask layer {name!r}: no such weight; known: {', '.join(other)}")
        if keep.shape != other[name].shape:
            have, want = tuple(keep.shape), tuple(other[name].shape)
            raise InputError(f"mask layer {name!r}: shape {have}, the weight has {want}")


def check_fits(mask: Mask, model: nn.Module) -> None:
    """Raise InputError, naming the layer, unless the mask fits the model's parameters."""
    check_shapes(mask, dict(model.named_parameters()))


# ---------------------------------------------------------------- packing


def _pack(keep: Tensor) -> np.ndarray:
    return np.packbits(keep.flatten().numpy())


def pack(mask: Mask) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """The bits of each layer, eight per byte, and the shapes needed to unpack them."""
    host = mask.to("cpu")
    bits = {f"mask.{name}": torch.from_numpy(_pack(keep)) for name, keep in host.items()}
    return bits, {name: list(keep.shape) for name, keep in host.items()}


def unpack(bits: Mapping[str, Tensor], shapes: Mapping[str, list[int]]) -> Mask:
    """The mask that `pack` packed."""
    layers = {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        flat = np.unpackbits(bits[f"mask.{name}"].numpy(), count=count)
        layers[name] = torch.from_numpy(flat.astype(bool)).view(shape)
    return Mask(layers)
