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
        self.groups, self.nets, self.device = groups, nets, ranks[0].device
        self.lengths = [nets * len(rank) for rank in ranks]
        self.counts = [sum(len(ranks[place]) for place in group) for group in groups]
        self.keys = torch.zeros(sum(self.lengths), dtype=torch.int64, device=self.device)
        self.sizes = self.keys.view(torch.float32).view(-1, 2)[:, 1]  # the upper halves
        self.chosen = torch.ones(len(self.keys), device=self.device)
        self._key_rows, self._chosen_rows = self._rows(self.keys), self._rows(self.chosen)
        for group, left in zip(groups, self.counts, strict=True):
            for place in group:
                self._key_rows[place][:] = left - ranks[place]
                left -= len(ranks[place])

    def _rows(self, flat: Tensor) -> list[Tensor]:
        """The tensors of a flat buffer, each (K, n)."""
        return [part.view(self.nets, -1) for part in flat.split(self.lengths)]

    def thresholds(self, densities: Sequence[float]) -> Tensor:
        """Where the lowest chosen key of each group and net is in order, int64 (groups, K, 1)."""
        removed = [[n - popup_kept(n, density) for density in densities] for n in self.counts]
        return torch.tensor(removed, device=self.device)[..., None]

    def __call__(self, scores: Tensor, thresholds: Tensor) -> Tensor:
        """1 where chosen, else 0, float32 as the scores (n,); overwritten by the next call."""
        torch.abs(scores, out=self.sizes)
        for group, places in zip(self.groups, thresholds, strict=True):
            rows = [self._key_rows[place] for place in group]
            lowest = kth_in_rows(rows[0] if len(rows) == 1 else torch.cat(rows, 1), places)
            for place in group:
                torch.ge(self._key_rows[place], lowest, out=self._chosen_rows[place])
        return self.chosen
