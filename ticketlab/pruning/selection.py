"""Exact selection of the k highest scores without a sort; ties go to the lower index."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.spec import InputError


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return bool (n,): the k highest of `scores` (n,), ties by lower index, without a sort.

    Raises InputError for NaN and for a k outside 0..n.
    """
    if not 0 <= k <= len(scores):
        raise InputError(f"k: {k} is not between 0 and the {len(scores)} scores")
    return select([scores], k, [torch.ones_like(scores, dtype=torch.bool)])[0]


def select(parts: Sequence[Tensor], k: int, among: Sequence[Tensor]) -> list[Tensor]:
    """Select the k highest scores of all `parts` together, as bool tensors of their shapes.

    `among` (bool, same shapes) marks at least k candidates. Ties go to the earlier part, then to
    the lower index. Raises InputError for NaN. On a GPU the host reads a single number.
    """
    values, inside = _comparable(parts), [own.flatten() for own in among]
    _refuse_nan(values, inside)
    if not k:
        return [torch.zeros_like(own) for own in among]
    threshold: Tensor | float
    if on_host := all(part.device.type == "cpu" for part in values):
        threshold = kth_largest(values, k, inside)
    else:
        values = [_ordered_keys(part) for part in values]
        threshold = kth_key(values, k, inside)
    keep = [(part >= threshold).logical_and_(own) for part, own in zip(values, inside, strict=True)]
    extra = torch.stack([own.count_nonzero() for own in keep]).sum() - k
    for own, part in zip(reversed(keep), reversed(values), strict=True):
        if on_host and not extra:
            break  # on a GPU, looking would make the host wait
        tied = own & (part == threshold)
        own &= ~tied | (tied.cumsum(0, dtype=torch.int32) <= tied.count_nonzero() - extra)
        extra = (extra - tied.count_nonzero()).clamp(min=0)
    return [own.view(part.shape) for own, part in zip(keep, parts, strict=True)]


def _comparable(parts: Sequence[Tensor]) -> list[Tensor]:
    """Return the scores as vectors of one type; bfloat16, which numpy lacks, becomes float32."""
    dtype = reduce(torch.promote_types, (part.dtype for part in parts))
    dtype = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    return [part.detach().to(dtype).flatten() for part in parts]


def _refuse_nan(values: Sequence[Tensor], inside: Sequence[Tensor]) -> None:
    lowest = [part.min() for part in values if part.numel()]  # NaN if any entry is NaN
    if not lowest or not bool(torch.stack(lowest).isnan().any()):
        return
    if any(bool((part.isnan() & own).any()) for part, own in zip(values, inside, strict=True)):
        raise InputError("scores: NaN found, allowed are numbers and infinities")


CHUNK, EVERY = 65_536, 127
"""Scores that fit a core's cache together with temporaries; and the stride of the sample."""

Vectors = Sequence[np.ndarray]


def kth_largest(parts: Sequence[Tensor], k: int, among: Sequence[Tensor] | None = None) -> float:
    """Return the k-th largest (k from 1) of the CPU tensors `parts` (n_i,) where `among` is True.

    A sample of large inputs brackets the result, so that few scores are copied and partitioned.
    """
    arrays = [part.numpy() for part in parts]
    marks = None if among is None else [own.numpy() for own in among]
    if sum(map(len, arrays)) > 4 * CHUNK:
        above, inside = _between(arrays, marks, *_bracket(arrays, marks, k))
        if above < k <= above + len(inside):  # otherwise the sample was not representative
            return _kth(inside, k - above)
    return _kth(_marked(arrays, marks), k)


def _kth(values: np.ndarray, k: int) -> float:
    place = len(values) - k
    value: float = np.partition(values, place)[place].item()  # an int for integer scores
    return value


def _marked(arrays: Vectors, marks: Vectors | None) -> np.ndarray:
    if marks is not None:
        arrays = [array[own] for array, own in zip(arrays, marks, strict=True)]
    return np.concatenate(arrays)


def _bracket(arrays: Vectors, marks: Vectors | None, k: int) -> tuple[float, float]:
    """Return two sampled scores between which the k-th largest nearly always lies."""
    sampled = None if marks is None else [own[::EVERY] for own in marks]
    sample = _marked([array[::EVERY] for array in arrays], sampled)
    count = sum(map(np.count_nonzero, marks) if marks is not None else map(len, arrays))
    share = k / count
    place, error = len(sample) * (1 - share), 3 * (len(sample) * share * (1 - share)) ** 0.5
    first, last = int(place - error) - 1, int(place + error) + 1
    kept = [at for at in (first, last) if 0 <= at < len(sample)]
    found = np.partition(sample, kept) if kept else sample
    low = found[first] if first in kept else -np.inf
    return low, found[last] if last in kept else np.inf


def _between(
    arrays: Vectors, marks: Vectors | None, low: float, high: float
) -> tuple[int, np.ndarray]:
    """Return how many marked scores exceed `high`, and the marked scores from `low` to `high`."""
    above, inside = 0, []
    for place, array in enumerate(arrays):
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK]
            fits, over = part >= low, part > high
            if marks is not None:
                fits &= marks[place][start : start + CHUNK]
                over &= fits
            above += int(np.count_nonzero(over))
            inside.append(part[np.flatnonzero(fits ^ over)])
    return above, np.concatenate(inside)


def kth_key(keys: Sequence[Tensor], k: int, among: Sequence[Tensor]) -> Tensor:
    """Return the k-th largest (k from 1) of the integer `keys` (n_i,) where `among` is True.

    Works on any device: determines the value bit by bit from the top by counting, without a sort
    and without a read by the host.
    """
    lowest, bits = torch.iinfo(keys[0].dtype).min, torch.iinfo(keys[0].dtype).bits
    flat = torch.cat(
        [part.masked_fill(~own, lowest) for part, own in zip(keys, among, strict=True)]
    )
    zero = flat.new_zeros(())
    found = torch.where((flat >= zero).count_nonzero() >= k, zero, zero + lowest)
    for bit in reversed(range(bits - 1)):
        higher = found + (1 << bit)
        found = torch.where((flat >= higher).count_nonzero() >= k, higher, found)
    return found


def _ordered_keys(scores: Tensor) -> Tensor:
    """Map scores to integers in the same order; int32 for float32, else int64 (-0.0 equals 0.0)."""
    if not scores.is_floating_point():
        return scores.long()
    kind = torch.int32 if scores.dtype == torch.float32 else torch.int64
    bits = (scores + 0.0).view(kind)
    return bits ^ ((bits >> (torch.iinfo(kind).bits - 1)) & torch.iinfo(kind).max)


def kth_in_rows(rows: Tensor, places: Tensor) -> Tensor:
    """Return the value at each position (K, 1), counted from 0, of the sorted int64 rows (K, n).

    The host reads nothing from a GPU.
    """
    if not gpu.shares_memory(rows.device):
        return rows.sort(dim=1).values.gather(1, places)
    ordered = rows.numpy().copy()
    found = np.empty((rows.shape[0], 1), np.int64)
    for number, place in enumerate(places.flatten().tolist()):
        ordered[number].partition(place)
        found[number] = ordered[number, place]
    return torch.from_numpy(found)
