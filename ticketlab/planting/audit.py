"""How well a ticket is hidden, and how much of it a method found."""

import pandas as pd
import torch
from scipy.stats import rankdata

from ticketlab.masks import Mask, check_same_layers
from ticketlab.planting.hide import Planted, deviations
from ticketlab.stacked import widths
from ticketlab.training import State

LOUD, SILENT = 6.0, 1e-3
"""Multiples of the layer's standard deviation that no random weight reaches or stays below."""


def in_deviations(weights: State) -> State:
    """|w| / sigma of every entry, by the initialisation's standard deviations."""
    scales = [scale for pair in deviations(widths(weights)) for scale in pair]
    pairs = zip(weights.items(), scales, strict=True)
    return {name: tensor.abs() / scale for (name, tensor), scale in pairs}


def audit(planted: Planted) -> pd.DataFrame:
    """One row a parameter tensor: how the planted entries stand out from their surroundings.

    auroc: of |w|/sigma for planted against other entries (0.5: invisible). zeros: entries that are
    exactly zero, which no random weight is.
    """
    rows = []
    for name, scaled in in_deviations(planted.weights).items():
        inside = planted.mask[name]
        own = scaled[inside]
        rows.append({
            "tensor": name, "planted": int(inside.sum()),
            "largest": float(own.max()) if len(own) else None,
            "loud": int((own > LOUD).sum()), "silent": int((own < SILENT).sum()),
            "zeros": int((planted.weights[name] == 0).sum()),
            "auroc": auroc(scaled, inside),
        })  # fmt: skip
    return pd.DataFrame(rows)


def auroc(scores: torch.Tensor, inside: torch.Tensor) -> float | None:
    """Chance that an entry inside scores higher than one outside; None if either is empty."""
    marked = inside.flatten().numpy()
    hits = int(marked.sum())
    if not 0 < hits < marked.size:
        return None
    ranks = rankdata(scores.detach().double().flatten().numpy())
    return float((ranks[marked].sum() - hits * (hits + 1) / 2) / (hits * (marked.size - hits)))


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
    return Mask({
        key: value for n, pair in pairs
        for key, value in zip((f"weight{n}", f"bias{n}"), pair, strict=True)
    })  # fmt: skip


def paths_alive(mask: Mask) -> bool:
    """Whether any input still reaches any output."""
    return bool(connected(mask)["weight1"].any())
