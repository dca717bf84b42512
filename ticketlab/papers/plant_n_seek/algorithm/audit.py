"""How well a ticket is hidden, and how much of it a method found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ticketlab.many.stacks import widths
from ticketlab.papers.plant_n_seek.algorithm.planting import Planted, deviations
from ticketlab.pruning.masks import Mask, State, check_same_layers
from ticketlab.spec import InputError

LOUD, SILENT = 6.0, 1e-3
"""Multiples of the layer's standard deviation that no random weight reaches or stays below."""


def in_deviations(weights: State) -> State:
    """|w| / sigma of every entry, by the initialisation's standard deviations."""
    scales = [scale for pair in deviations(widths(weights)) for scale in pair]
    pairs = zip(weights.items(), scales, strict=True)
    return {name: tensor.abs() / scale for (name, tensor), scale in pairs}


def audit(planted: Planted) -> pd.DataFrame:
    """One row per parameter tensor: how the planted entries stand out from their surroundings.

    auroc: of |w|/sigma for planted against other entries (0.5: invisible). zeros: entries that are
    exactly zero, which no random weight is.
    """
    rows = []
    for name, scaled in in_deviations(planted.weights).items():
        inside = planted.mask[name]
        own = scaled[inside]
        rows.append(
            {
                "tensor": name,
                "planted": int(inside.sum()),
                "largest": float(own.max()) if len(own) else None,
                "loud": int((own > LOUD).sum()),
                "silent": int((own < SILENT).sum()),
                "zeros": int((planted.weights[name] == 0).sum()),
                "auroc": auroc(scaled, inside),
            }
        )
    return pd.DataFrame(rows)


def auroc(scores: torch.Tensor, inside: torch.Tensor) -> float | None:
    """Chance that an entry inside scores higher than one outside; None if either is empty."""
    marked = inside.flatten().numpy()
    hits = int(marked.sum())
    if not 0 < hits < marked.size:
        return None
    ranks = pd.Series(scores.detach().double().flatten().numpy()).rank().to_numpy()
    return float((ranks[marked].sum() - hits * (hits + 1) / 2) / (hits * (marked.size - hits)))


CELLS = np.logspace(-3, 2, 31)
"""Bounds of |w| / sigma between which entries look alike to `detectability`."""


def looks(planted: Planted) -> np.ndarray:
    """What is to be seen of each entry, int (n,): its size's cell, and whether the bias of its
    neuron is exactly zero, which no random bias is."""
    parts = []
    for name, size in in_deviations(planted.weights).items():
        number = name.removeprefix("weight").removeprefix("bias")
        silent = (planted.weights[f"bias{number}"] == 0).expand_as(size)
        cell = np.digitize(size.numpy(), CELLS)
        parts.append((cell + (len(CELLS) + 1) * silent.numpy()).ravel())
    return np.concatenate(parts)


def detectability(planted: Sequence[Planted]) -> list[float]:
    """How well a simple classifier tells planted entries from others, by mother: an AUROC.

    It knows how often an entry that looks the same (`looks`) is planted in the *other* mothers;
    0.5 is blind, 1 sees the ticket. InputError for fewer than two mothers.
    """
    if len(planted) < 2:
        raise InputError(f"audits: {len(planted)} mother given, at least 2 are needed")
    seen = [looks(one) for one in planted]
    truth = [one.mask.flat().numpy() for one in planted]
    kinds = 2 * (len(CELLS) + 1)
    every = np.stack([np.bincount(look, minlength=kinds) for look in seen])
    hits = np.stack([np.bincount(s[t], minlength=kinds) for s, t in zip(seen, truth, strict=True)])
    areas = []
    for place, look in enumerate(seen):
        others = every.sum(0) - every[place]
        share = (hits.sum(0) - hits[place] + 1e-3) / (others + 1)
        area = auroc(torch.from_numpy(share[look]), torch.from_numpy(truth[place]))
        areas.append(0.5 if area is None else area)
    return areas


def found(mask: Mask, planted: Mask) -> dict[str, float]:
    """Precision (share of the mask that is planted) and recall (share of the ticket kept)."""
    check_same_layers(mask, planted)
    both = int((mask.flat() & planted.flat()).sum())
    return {"precision": both / max(1, mask.alive), "recall": both / max(1, planted.alive)}


def connected(mask: Mask) -> Mask:
    """The entries on some path from an input to an output; a bias counts if an output sees it."""
    weights = [mask[name] for name in mask if name.startswith("weight")]
    biases = [mask[name] for name in mask if name.startswith("bias")]
    fed = [torch.ones(weights[0].shape[0], dtype=torch.bool)]
    for keep in weights:
        fed.append((keep & fed[-1][:, None]).any(0))
    seen = torch.ones(weights[-1].shape[1], dtype=torch.bool)
    layers: list[tuple[torch.Tensor, torch.Tensor]] = []
    for keep, bias, source in zip(weights[::-1], biases[::-1], fed[-2::-1], strict=True):
        layers.append((keep & source[:, None] & seen[None], bias & seen))
        seen = (keep & seen[None]).any(1)
    pairs = enumerate(reversed(layers), start=1)
    return Mask(
        {
            key: value
            for n, pair in pairs
            for key, value in zip((f"weight{n}", f"bias{n}"), pair, strict=True)
        }
    )


def paths_alive(mask: Mask) -> bool:
    """Whether any input still reaches any output."""
    return bool(connected(mask)["weight1"].any())
