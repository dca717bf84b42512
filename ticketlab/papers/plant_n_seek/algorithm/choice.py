"""What edge-popup keeps: of each tensor, or layer, its share of highest |score|, at every step.

The selection is exact, ties go to the lower index, and nothing is read from the device: the key of
an entry has |score| in its upper half and its place in the lower one, so that no two are equal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ticketlab.pruning.saliency import popup_kept
from ticketlab.pruning.selection import kth_in_rows


class Choice:
    """Chooses among flat scores: those of several tensors, each with the entries of K nets.

    `ranks` (n,) of each tensor decide its ties, the lowest first; they are on the device. `groups`
    are the tensors that are ranked together, by place, in the order of their ties. What is in no
    group is always chosen. Of a tensor the K nets come one after another.
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
        """For each group where its lowest chosen key is in order, int64 (K, 1), a net's density
        each."""
        removed = [[n - popup_kept(n, density) for density in densities] for n in self.counts]
        return list(torch.tensor(removed, device=self.device)[..., None])

    def __call__(self, scores: Tensor, thresholds: Sequence[Tensor]) -> Tensor:
        """1 where chosen, else 0, float32 as the scores (n,); overwritten by the next call."""
        torch.abs(scores, out=self.sizes)
        for keys, chosen, places in zip(self._keys, self._chosen, thresholds, strict=True):
            lowest = kth_in_rows(keys[0] if len(keys) == 1 else torch.cat(keys, 1), places)
            for own, ours in zip(keys, chosen, strict=True):
                torch.ge(own, lowest, out=ours)
        return self.chosen
