"""SynFlow's whole schedule in one go: the masks of `saliency.prune_to`, bit for bit, in less time.

The net is made positive once, removed weights are zeroed in place, the k-th score is found without
a sort, and once most weights are gone only the scores of survivors are looked at.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ticketlab.pruning.masks import Mask, check_fits, top_k
from ticketlab.spec import InputError

FEW = 0.3
"""Below this share of survivors it pays to gather their scores."""


class _Positive:
    """|weights| of a model in float64, the masked ones as leaves on one flat buffer `weights` (n,);
    batch-norm as in evaluation."""

    def __init__(self, model: nn.Module, mask: Mask, shape: tuple[int, ...]) -> None:
        self.model = model
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        self.state = {name: p.double().abs() for name, p in parameters.items() if name not in mask}
        for name, buffer in model.named_buffers():
            self.state[name] = buffer.double() if buffer.is_floating_point() else buffer
        self.sizes = [layer.numel() for layer in mask.values()]
        self.weights = torch.cat([parameters[name].flatten() for name in mask]).double().abs_()
        self.weights.mul_(mask.flat())
        self.scores = torch.empty_like(self.weights)
        parts = zip(mask.items(), self.weights.split(self.sizes), strict=True)
        for name, part in ((n, part.view(layer.shape)) for (n, layer), part in parts):
            self.state[name] = part.detach().requires_grad_()
        self.leaves = [self.state[name] for name in mask]
        self.ones = torch.ones(1, *shape, dtype=torch.float64, device=self.weights.device)

    def slopes(self) -> list[Tensor]:
        """dR/d|w| of every masked entry, flat by layer."""
        total = functional_call(self.model, self.state, (self.ones,)).sum()
        found = torch.autograd.grad(total, self.leaves, materialize_grads=True)
        return [slope.flatten() for slope in found]

    def score_all(self) -> Tensor:
        """|w| dR/d|w| of every masked entry, (n,); overwritten by the next call."""
        blocks = zip(
            self.slopes(),
            self.weights.split(self.sizes),
            self.scores.split(self.sizes),
            strict=True,
        )
        for slope, weight, score in blocks:
            torch.mul(slope, weight, out=score)
        return self.scores

    def score_some(self, places: Tensor) -> Tensor:
        """The same of the entries at `places` int64 (m,), in ascending order."""
        ends = torch.tensor(self.sizes, device=places.device).cumsum(0)
        counts = torch.searchsorted(places, ends).diff(prepend=places.new_zeros(1)).tolist()
        starts = (ends - torch.tensor(self.sizes, device=places.device)).tolist()
        blocks = zip(self.slopes(), places.split(counts), starts, strict=True)
        slopes = torch.cat([slope[part - start] for slope, part, start in blocks])
        return slopes.mul_(self.weights[places])


def synflow(model: nn.Module, mask: Mask, counts: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """What SynFlow keeps of `mask` after a round for each of `counts` (Tanaka et al. 2020, alg. 1).

    `counts` are the entries to keep, falling; `shape` is that of an input without the batch. Raises
    InputError for a mask that does not fit and for scores that float64 cannot hold.
    """
    check_fits(mask, model)
    training = model.training
    model.eval()
    try:
        keep = _pruned(_Positive(model, mask, shape), mask, counts)
    finally:
        model.train(training)
    parts = keep.split([layer.numel() for layer in mask.values()])
    return Mask(
        {n: part.view(layer.shape) for (n, layer), part in zip(mask.items(), parts, strict=True)}
    )


def _pruned(net: _Positive, mask: Mask, counts: Sequence[int]) -> Tensor:
    """Flat bool (n,) of what the last round keeps."""
    total, alive = mask.total, mask.flat()
    places: Tensor | None = None if mask.alive == total else alive.nonzero()[:, 0]
    count = mask.alive
    for wanted in counts:
        wanted = min(wanted, count)
        scores = net.score_all() if places is None else net.score_some(places)
        if not bool(scores.sum().isfinite()):
            raise InputError("criterion 'synflow': scores beyond float64, the net is too deep")
        if places is None and int(torch.count_nonzero(scores)) < wanted:
            places = alive.nonzero()[:, 0]  # survivors without a path tie with removed entries
            scores = scores[places]
        chosen = top_k(scores, wanted)
        if places is None:
            alive = chosen
            net.weights.mul_(alive)
        else:
            net.weights[places[~chosen]] = 0.0
            places = places[chosen]
        if places is None and wanted < FEW * total:
            places = alive.nonzero()[:, 0]
        count = wanted
    return alive if places is None else torch.zeros_like(alive).index_fill_(0, places, True)
