"""How well a planted ticket is hidden, and how much of it a method found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ticketlab.many.stacks import widths
from ticketlab.papers.plant_n_seek.algorithm.planting import Planted, deviations
from ticketlab.pruning.masks import Mask, State, check_same_layers
from ticketlab.spec import InputError

LOUD, SILENT = 6.0, 1e-3
"""Multiples of a layer's standard deviation that no random weight exceeds or falls below."""


def in_deviations(weights: State) -> State:
    """Return ``|w| / sigma`` of every entry, by the initialisation's standard deviations."""
    scales = [scale for pair in deviations(widths(weights)) for scale in pair]
    pairs = zip(weights.items(), scales, strict=True)
    return {name: tensor.abs() / scale for (name, tensor), scale in pairs}


def audit(planted: Planted) -> pd.DataFrame:
    """Return one row per parameter tensor: how the planted entries differ from the others.

    auroc: of ``|w| / sigma`` for planted against other entries (0.5: invisible). zeros: number of
    entries that are exactly zero, which random weights never are.
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
    """Return the probability that an entry inside outranks one outside; None if either is empty."""
    marked = inside.flatten().numpy()
    hits = int(marked.sum())
    if not 0 < hits < marked.size:
        return None
    ranks = pd.Series(scores.detach().double().flatten().numpy()).rank().to_numpy()
    return float((ranks[marked].sum() - hits * (hits + 1) / 2) / (hits * (marked.size - hits)))


CELLS = np.logspace(-3, 2, 31)
"""Bounds of the bins of ``|w| / sigma`` that `detectability` uses."""


def looks(planted: Planted) -> np.ndarray:
    """Return the visible features of each entry as int (n,).

    These are the bin of its size, and whether its neuron's bias is exactly zero, which random
    biases never are.
    """
    parts = []
    for name, size in in_deviations(planted.weights).items():
        number = name.removeprefix("weight").removeprefix("bias")
        silent = (planted.weights[f"bias{number}"] == 0).expand_as(size)
        cell = np.digitize(size.numpy(), CELLS)
        parts.append((cell + (len(CELLS) + 1) * silent.numpy()).ravel())
    return np.concatenate(parts)


def detectability(planted: Sequence[Planted]) -> list[float]:
    """Return how well a simple classifier detects planted entries, as an AUROC per mother.

    It scores an entry by how often entries with the same features (`looks`) are planted in the
    *other* mothers; 0.5 is chance, 1 is perfect. InputError for fewer than two mothers.
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
    """Return precision (planted share of the mask) and recall (share of the ticket kept)."""
    check_same_layers(mask, planted)
    both = int((mask.flat() & planted.flat()).sum())
    return {"precision": both / max(1, mask.alive), "recall": both / max(1, planted.alive)}


def connected(mask: Mask) -> Mask:
    """Return the entries on a path from input to output; biases only need a path to an output."""
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
    """Return whether a path from any input to any output is left."""
    return bool(connected(mask)["weight1"].any())
