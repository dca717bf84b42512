"""SynFlow's whole schedule in one call: bitwise the masks of `saliency.prune_to`, in less time.

The net is made positive once, and removed weights are zeroed in place. Scores need float64: among
millions of scores, float32 always leaves some ties. Once fewer weights are left, a round is first
scored in float32. If the last kept score is well above the next one, float64 would select the same
weights; only otherwise is the round scored again in float64.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from ticketlab.pruning.masks import Mask, check_fits
from ticketlab.pruning.selection import kth_largest, select
from ticketlab.spec import InputError

ERROR = 2e-6
"""Upper bound on the relative error of a float32 score; checked whenever both are computed."""

MANY = 200_000
"""With more weights left than this, the last kept score and the next are often too close."""

SMALL = 1e-30
"""Below this, terms of a float32 score may have underflowed."""


class _Positive:
    """A model of absolute weights in one precision, batch-norm in eval mode.

    What `mask` names lies in one flat buffer `weights` (n,), in the mask's order.
    """

    def __init__(
        self, model: nn.Module, mask: Mask, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self.model = deepcopy(model).to(dtype).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False).abs_()
        leaves = [self.model.get_parameter(name) for name in mask]
        self.weights = torch.cat([leaf.flatten() for leaf in leaves])
        self.products = torch.empty_like(self.weights)
        self.sizes = [leaf.numel() for leaf in leaves]
        parts = self.weights.split(self.sizes), self.products.split(self.sizes)
        for leaf, weight, product in zip(leaves, *parts, strict=True):
            leaf.data = weight.view(leaf.shape)
            leaf.requires_grad_()
            leaf.register_post_accumulate_grad_hook(partial(_multiply, weight, product))
        self.ones = self.weights.new_ones(1, *shape)
        self.remove_all_but(mask.flat())

    def scores(self) -> Tensor:
        """Return ``|w| dR/d|w|`` of every masked entry (n,); the next call overwrites it."""
        self.products.zero_()
        self.model(self.ones).sum().backward()
        return self.products

    def remove_all_but(self, keep: Tensor) -> None:
        """Zero the weights outside `keep` bool (n,)."""
        parts = self.weights.split(self.sizes), keep.split(self.sizes)
        for weight, own in zip(*parts, strict=True):
            weight.mul_(own)


def _multiply(weight: Tensor, product: Tensor, leaf: Tensor) -> None:
    """Turn a layer's gradient into its scores as soon as it is ready, to free its memory."""
    assert leaf.grad is not None
    torch.mul(leaf.grad.flatten(), weight, out=product)
    leaf.grad = None


class _Rounds:
    """Successive rounds on the same weights: in float32 where that decides, else in float64."""

    def __init__(self, model: nn.Module, mask: Mask, shape: tuple[int, ...]) -> None:
        self.keep, self.alive = mask.flat(), mask.alive
        self.exact = _Positive(model, mask, shape, torch.float64)
        self.quick: _Positive | None = None
        self.make_quick = partial(_Positive, model, mask, shape, torch.float32)
        self.trusted: bool | None = None if self.keep.device.type == "cpu" else False
        """Whether float32 agreed with float64 so far; None before the first comparison."""

    def prune(self, count: int) -> None:
        """Keep the `count` highest scores of the weights that are left."""
        count = min(count, self.alive)
        rough = None if self.trusted is False or self.alive > MANY else self._rough()
        kept = None
        if rough is not None and self.trusted:
            kept = _clear_cut(rough, count, self.keep)
        if kept is None:
            scores = self.exact.scores()
            if not bool(scores.sum().isfinite()):
                raise InputError("criterion 'synflow': scores beyond float64, the net is too deep")
            (kept,) = select([scores], count, [self.keep])
            self.trusted = self.trusted if rough is None else _agree(rough, scores)
        self.keep, self.alive = kept, count
        for net in filter(None, (self.exact, self.quick)):
            net.remove_all_but(kept)

    def _rough(self) -> Tensor:
        if self.quick is None:
            self.quick = self.make_quick()
            self.quick.remove_all_but(self.keep)
        return self.quick.scores()


def _agree(rough: Tensor, scores: Tensor) -> bool:
    """Return whether the float32 scores are within `ERROR` of the float64 scores."""
    return bool(((rough - scores).abs_() <= ERROR * scores.abs()).all())


def _clear_cut(rough: Tensor, count: int, keep: Tensor) -> Tensor | None:
    """Return the `count` highest float32 scores, or None if rounding could change the choice."""
    if not count or not bool(rough.sum().isfinite()):
        return None
    threshold = kth_largest([rough], count, [keep])
    kept = (rough >= threshold * (1 - 2 * ERROR)).logical_and_(keep)
    return kept if threshold > SMALL and int(kept.count_nonzero()) == count else None


def synflow(model: nn.Module, mask: Mask, counts: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """Return what SynFlow keeps of `mask` after one round per entry of `counts`.

    Tanaka et al. 2020, algorithm 1. `counts` are the entries to keep, decreasing; `shape` is the
    shape of one input. Raises InputError for a mask that does not fit and for scores outside the
    range of float64.
    """
    check_fits(mask, model)
    rounds = _Rounds(model, mask.to(next(model.parameters()).device), shape)
    for count in counts:
        rounds.prune(count)
    parts = rounds.keep.split([layer.numel() for layer in mask.values()])
    layers = zip(mask.items(), parts, strict=True)
    return Mask({name: part.view(layer.shape) for (name, layer), part in layers})
