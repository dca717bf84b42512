"""The k highest of millions of scores without sorting them: exact, float32 or float64.

`masks.top_k` with numpy's partition on the CPU, which is vectorised: several times faster there,
most of all in float64. Elsewhere it is `masks.top_k`.
"""

import numpy as np
import torch
from torch import Tensor

from ticketlab import masks
from ticketlab.spec import InputError


def kth_largest(scores: Tensor, k: int) -> float:
    """The k-th largest (k from 1) of scores (n,), without NaN."""
    place = len(scores) - k
    if scores.device.type == "cpu":
        return float(np.partition(scores.numpy(), place)[place])
    return float(scores.sort().values[place])  # kthvalue is slow on CUDA


def top_k(scores: Tensor, k: int) -> Tensor:
    """Bool (n,): the k highest of scores (n,), ties by lower index; equal to `masks.top_k`.

    Raises InputError for NaN and for a k outside 0..n.
    """
    n = len(scores)
    if not 0 <= k <= n:
        raise InputError(f"k: {k} is not between 0 and the {n} scores")
    if scores.device.type != "cpu" or k in (0, n) or not scores.is_floating_point():
        return masks.top_k(scores, k)
    values = scores.detach().numpy()
    if np.isnan(values.max()):
        raise InputError("scores: NaN found, allowed are numbers and infinities")
    threshold = np.partition(values, n - k)[n - k]
    keep = values >= threshold
    if extra := int(np.count_nonzero(keep)) - k:
        ties = np.flatnonzero(values == threshold)
        keep[ties[len(ties) - extra :]] = False
    return torch.from_numpy(keep)
