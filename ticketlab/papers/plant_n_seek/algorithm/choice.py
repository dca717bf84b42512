"""Selection by edge-popup: the highest ``|score|`` of each tensor or layer, at every step.

The selection is exact, ties go to the lower index, and the host reads nothing from the device. An
entry's key has ``|score|`` in its upper half and its index in the lower half, so keys are unique.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ticketlab.pruning.saliency import popup_kept
from ticketlab.pruning.selection import kth_in_rows


class Choice:
    """Selects among flat scores of several tensors, each with the entries of K nets.

    `ranks` (n,) of each tensor, on the device, decide its ties, the lowest first. `groups` lists
    tensors that are ranked together, by index, in the order of their ties. Tensors in no group are
    always selected. In each tensor the K nets are contiguous.
    """

    def __init__(
        self, ranks: Sequence[Tensor], groups: Sequence[Sequence[int]], nets: int = 1
    ) -> None:
        self.device = ranks[0].device
        self.counts = [sum(len(ranks[place]) for place in group) for group in groups]
        lengths = [nets * len(rank) for rank in ranks]
        keys = torch.zeros(sum(lengths), dtype=torch.int64, device=self.device)
        self.sizes = keys.view(torch.float32).view(-1, 2)[:, 1]  # the upper halves
        self.chosen = torch.ones(len(keys), device=self.device)

        def grouped(flat: Tensor) -> list[list[Tensor]]:
            rows = [part.view(nets, -1) for part in flat.split(lengths)]
            return [[rows[place] for place in group] for group in groups]

        self._keys, self._chosen = grouped(keys), grouped(self.chosen)
        for group, rows, left in zip(groups, self._keys, self.counts, strict=True):
            for place, row in zip(group, rows, strict=True):
                row[:] = left - ranks[place]
                left -= len(ranks[place])

    def thresholds(self, densities: Sequence[float]) -> list[Tensor]:
        """Return the sorted index of each group's lowest selected key, int64 (K, 1)."""
        removed = [[n - popup_kept(n, density) for density in densities] for n in self.counts]
        return list(torch.tensor(removed, device=self.device)[..., None])

    def __call__(self, scores: Tensor, thresholds: Sequence[Tensor]) -> Tensor:
        """Return 1 where selected, else 0, float32 (n,); overwritten by the next call."""
        torch.abs(scores, out=self.sizes)
        for keys, chosen, places in zip(self._keys, self._chosen, thresholds, strict=True):
            lowest = kth_in_rows(keys[0] if len(keys) == 1 else torch.cat(keys, 1), places)
            for own, ours in zip(keys, chosen, strict=True):
                torch.ge(own, lowest, out=ours)
        return self.chosen
