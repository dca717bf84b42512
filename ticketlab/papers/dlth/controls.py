"""Controls for RST: other tickets, and damage to a transformed ticket."""

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ticketlab.papers.dlth.algorithm import cycle_sparsities, kept_counts, magnitude_mask
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State, hamming, keep_top_layerwise
from ticketlab.spec import InputError
from ticketlab.training.observers import Observer, Run

# ---------------------------------------------------------------- other tickets


def iterative_magnitude(
    train_masked: Callable[[Mask], State], dense: Mask, sparsity: float, cycles: int
) -> Mask:
    """LTH-Iter (2.5): train, keep the largest of each layer, rewind; sparsities as in RST-Iter.

    `train_masked` rewinds to the initial weights, trains under the mask and returns the weights.
    """
    mask = dense
    for target in cycle_sparsities(sparsity, cycles):
        scores = magnitude(train_masked(mask), mask)
        mask = keep_top_layerwise(scores, kept_counts(dense, target), within=mask)
    return mask


def changed(a: Mask, b: Mask) -> float:
    """Return the share of kept weights in which two masks of equal size differ."""
    return hamming(a, b) / (a.alive + b.alive)


class EarlyBird(Observer):
    """Draws a ticket as soon as the magnitude mask of dense training has settled (You et al. 2020).

    A mask is taken every `every` steps; it has settled when it differs by less than `threshold`
    from each of the `queue - 1` masks before it. The original compares channels by their batch-norm
    scale and divides by the number of all channels; for single weights at high sparsity that
    distance is small for any two masks, so here it is the share of *kept* weights that changed.
    Until it settles, `ticket` is the latest mask and `settled` is False.
    """

    def __init__(
        self, dense: Mask, sparsity: float, every: int, threshold: float = 0.1, queue: int = 5
    ) -> None:
        if every < 1 or queue < 2:
            raise InputError(f"early_bird: every {every}, queue {queue}; allowed: from 1, from 2")
        self.dense, self.sparsity, self.every, self.threshold = dense, sparsity, every, threshold
        self.before: deque[Mask] = deque(maxlen=queue - 1)
        self.settled, self.iteration = False, 0
        self.ticket, self.state = dense, State()
        self.distances: list[float] = []

    def after_step(self, run: Run) -> None:
        """Take a mask and compare it, until one has settled."""
        if self.settled or (run.iteration + 1) % self.every:
            return
        self.state, self.iteration = run.net.state(), run.iteration + 1
        self.ticket = magnitude_mask(self.state, self.dense, self.sparsity)
        away = [changed(self.ticket, other) for other in self.before]
        self.distances.append(max(away, default=1.0))
        self.settled = len(away) == self.before.maxlen and max(away) < self.threshold
        self.before.append(self.ticket)


# ---------------------------------------------------------------- damage to a transformed ticket


def shuffled(state: State, mask: Mask, generator: torch.Generator) -> tuple[State, Mask]:
    """Move kept weights to random positions in their layer; mask and weights move together.

    Moving only the mask would select positions that the penalty has emptied.
    """
    moved, layers = dict(state), {}
    for name, keep in mask.items():
        order = torch.randperm(keep.numel(), generator=generator).to(keep.device)
        layers[name] = keep.flatten()[order].view(keep.shape)
        weights = state[name]
        moved[name] = weights.flatten()[order.to(weights.device)].view(weights.shape)
    return moved, Mask(layers)


def reinitialised(state: State, fresh: Mapping[str, Tensor], mask: Mask) -> State:
    """Replace the maskable weights by `fresh` ones, another draw of the initialisation."""
    return {n: fresh[n].to(w).clone() if n in mask else w for n, w in state.items()}


def only_signs(state: State, mask: Mask) -> State:
    """Replace each kept weight by its sign times the mean ``|w|`` of its layer's kept weights."""
    return {n: _signs(w, mask[n].to(w.device)) if n in mask else w for n, w in state.items()}


def _signs(weights: Tensor, keep: Tensor) -> Tensor:
    return weights.sign() * weights[keep].abs().mean()
