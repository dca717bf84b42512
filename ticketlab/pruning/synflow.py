"""SynFlow's whole schedule in one go: the masks of `saliency.prune_to`, bit for bit, in less time.

The net is made positive once, and removed weights are zeroed in place. Scores are float64: among
millions there are always some that float32 cannot tell apart. Once fewer weights are left, float32
is asked first; where it puts the last kept score well above the next, float64 cannot choose
otherwise, and is asked only where that is not so.
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
"""Relative error of a float32 score, at most; checked whenever a round is scored in float64 too."""

MANY = 200_000
"""Among more weights than these, the last kept score and the next are often closer than that."""

SMALL = 1e-30
"""Below this, terms of a score may have left float32."""


class _Positive:
    """A model of |weights| in one precision, batch-norm as in evaluation; what `mask` names is on
    one flat buffer `weights` (n,) in its order."""

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
        """|w| dR/d|w| of every masked entry (n,); overwritten by the next call."""
        self.products.zero_()
        self.model(self.ones).sum().backward()
        return self.products

    def remove_all_but(self, keep: Tensor) -> None:
        """Zero the weights outside `keep` bool (n,)."""
        parts = self.weights.split(self.sizes), keep.split(self.sizes)
        for weight, own in zip(*parts, strict=True):
            weight.mul_(own)


def _multiply(weight: Tensor, product: Tensor, leaf: Tensor) -> None:
    """The scores of a layer as soon as its gradient is there, which is freed for the next one."""
    assert leaf.grad is not None
    torch.mul(leaf.grad.flatten(), weight, out=product)
    leaf.grad = None


class _Rounds:
    """Round after round on the same weights: in float32 where that decides, else in float64."""

    def __init__(self, model: nn.Module, mask: Mask, shape: tuple[int, ...]) -> None:
        self.keep, self.alive = mask.flat(), mask.alive
        self.exact = _Positive(model, mask, shape, torch.float64)
        self.quick: _Positive | None = None
        self.make_quick = partial(_Positive, model, mask, shape, torch.float32)
        self.trusted: bool | None = None if self.keep.device.type == "cpu" else False
        """Whether float32 has agreed with float64; None before they are compared."""

    def prune(self, count: int) -> None:
        """Keep the `count` highest scores of what is left."""
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
    """Whether float32 is as near to float64 as `ERROR` says."""
    return bool(((rough - scores).abs_() <= ERROR * scores.abs()).all())


def _clear_cut(rough: Tensor, count: int, keep: Tensor) -> Tensor | None:
    """The `count` highest of the float32 scores, if the next is further off than rounding goes."""
    if not count or not bool(rough.sum().isfinite()):
        return None
    threshold = kth_largest([rough], count, [keep])
    kept = (rough >= threshold * (1 - 2 * ERROR)).logical_and_(keep)
    return kept if threshold > SMALL and int(kept.count_nonzero()) == count else None


def synflow(model: nn.Module, mask: Mask, counts: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """What SynFlow keeps of `mask` after a round for each of `counts` (Tanaka et al. 2020, alg. 1).

    `counts` are the entries to keep, falling; `shape` is that of an input without the batch. Raises
    InputError for a mask that does not fit and for scores that float64 cannot hold.
    """
    check_fits(mask, model)
    rounds = _Rounds(model, mask.to(next(model.parameters()).device), shape)
    for count in counts:
        rounds.prune(count)
    parts = rounds.keep.split([layer.numel() for layer in mask.values()])
    layers = zip(mask.items(), parts, strict=True)
    return Mask({name: part.view(layer.shape) for (name, layer), part in layers})
