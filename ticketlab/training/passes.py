"""How a training step computes loss and gradients: by autograd or by hand-written products.

A path changes the order of the arithmetic, never the batches, steps or masks; the record of each
epoch names the path that ran.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ticketlab import gpu
from ticketlab.gpu import Runtime
from ticketlab.models import Shape
from ticketlab.pruning.masks import Mask
from ticketlab.spec import InputError
from ticketlab.training import convs, mlp
from ticketlab.training.convs import SparseConvnet
from ticketlab.training.mlp import WrittenMlp
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer
from ticketlab.training.sparse import SparseMlps

Path = Literal["plain", "written", "sparse"]
"""plain: autograd, for any model, captured as a CUDA graph if the runtime asks for it; written: the
hand-written products of a ReLU MLP; sparse: products of surviving weights only, for MLPs and
convnets."""

PATHS: tuple[Path, ...] = get_args(Path)

SPARSE_BELOW = 0.25
"""Density of an MLP's weight matrices up to which sparse products are faster than dense ones."""
MANY_PRODUCTS = 1_000_000
"""Weight products per image above which a convnet's activations no longer fit a core's cache."""
SPARSE_CONVS_BELOW, SPARSE_LARGE_CONVS_BELOW = 0.45, 0.2
"""As `SPARSE_BELOW`, for a convnet's share of products: up to and above MANY_PRODUCTS."""
MOST_ENTRIES = 4_000_000
"""Maximum number of surviving products to lay out, at 50 bytes each."""


class Pass(Protocol):
    """Computes loss and gradients of one batch, on the buffers that an optimiser updates."""

    weights: Tensor
    """The trained weights, flat (n,)."""
    grads: Tensor
    """Their gradients, flat (n,)."""
    keep: Tensor | None
    """Factor 0 or 1 per weight, applied after each step; None if no weight is removed."""

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `grads`; return mean loss () and logits (B, C), valid until the next call."""

    def show(self) -> None:
        """Copy the pass's weights into the net; called after each step."""

    def end(self) -> None:
        """Copy the pass's gradients into the net; called after the last step."""


def choose(
    model: nn.Module,
    mask: Mapping[str, Tensor] | None,
    runtime: Runtime,
    shape: Shape,
    edited: bool = False,
) -> Path:
    """Return the fastest path for images of `shape`; `edited`: observers change the net."""
    if not gpu.prefers_written_products(gpu.choose_device(runtime.device)):
        return "plain"
    if not (edited or not_sparse(model, mask, runtime)) and _is_sparse(model, mask, shape):
        return "sparse"
    return "plain" if mlp.not_written(model, runtime) else "written"


def not_sparse(model: nn.Module, mask: Mapping[str, Tensor] | None, runtime: Runtime) -> str:
    """Return why a model cannot compute on its surviving weights only, or ''."""
    if mlp.linears(model):
        return mlp.not_sparse(model, mask, runtime)
    return convs.not_sparse(model, mask, runtime)


def _is_sparse(model: nn.Module, mask: Mapping[str, Tensor] | None, shape: Shape) -> bool:
    """Return whether sparse products are faster than dense ones."""
    if mlp.linears(model):
        return mlp.density(model, mask) <= SPARSE_BELOW
    left, whole = convs.products(model, mask or {}, shape)
    below = SPARSE_CONVS_BELOW if whole < MANY_PRODUCTS else SPARSE_LARGE_CONVS_BELOW
    return left <= min(MOST_ENTRIES, below * whole)


def make(
    net: Net,
    mask: Mask | None,
    observers: Iterable[Observer],
    path: Path | Literal["auto"],
    shape: Shape,
) -> tuple[Path, Pass]:
    """Return a training's pass and the name of its path; InputError for an impossible one."""
    edited = any(observer.edits for observer in observers)
    if path == "auto":
        path = choose(net.model, mask, net.runtime, shape, edited)
    else:
        check(net, mask, path)
    keep = None if mask is None else net.flatten(mask)
    if path == "sparse" and mask is not None:
        is_mlp = bool(mlp.linears(net.model))
        return path, SparsePass(net, mask) if is_mlp else SparseConvPass(net, keep, mask)
    return path, WrittenPass(net, keep) if path == "written" else PlainPass(net, keep)


def check(net: Net, mask: Mask | None, path: Path) -> None:
    """Raise InputError in one line if a path is impossible."""
    if path not in PATHS:
        raise InputError(f"path: {path!r} is unknown, allowed: auto, {', '.join(PATHS)}")
    why = ""
    if path == "written":
        why = mlp.not_written(net.model, net.runtime)
    elif path == "sparse":
        why = not_sparse(net.model, mask, net.runtime)
    if why:
        raise InputError(f"path: {path!r} is not possible: {why}")


class PlainPass:
    """Autograd, for any model."""

    def __init__(self, net: Net, keep: Tensor | None) -> None:
        self.net, self.weights, self.grads, self.keep = net, net.weights, net.grads, keep
        self._run: gpu.Pass | None = None

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pass`; captures a CUDA graph at the first batch if asked for."""
        self._run = self._run or self._captured(x, y)
        return self._run(x, y)

    def _captured(self, x: Tensor, y: Tensor) -> gpu.Pass:
        if not gpu.uses_graphs(self.net.device, self.net.runtime):
            return self._eager
        return gpu.GraphedPass(self._eager, x, y, self.grads, list(self.net.model.buffers()))

    def _eager(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.grads.zero_()
        with gpu.autocast(self.net.device, self.net.runtime):
            logits = self.net.forward(x)
        loss = functional.cross_entropy(logits.float(), y)
        loss.backward()
        return loss.detach(), logits.detach()

    def show(self) -> None:
        """Do nothing: the buffers are the net's own."""

    def end(self) -> None:
        """Do nothing: the buffers are the net's own."""


class WrittenPass(PlainPass):
    """The hand-written gradient of an MLP."""

    def __init__(self, net: Net, keep: Tensor | None) -> None:
        super().__init__(net, keep)
        self._mlp = WrittenMlp(net)

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pass`."""
        return self._mlp.descend(x.flatten(1), y)


class SparseConvPass(PlainPass):
    """The hand-written gradient of a convnet's surviving weights; other gradients stay 0."""

    def __init__(self, net: Net, keep: Tensor | None, mask: Mask) -> None:
        super().__init__(net, keep)
        self._convnet = SparseConvnet(net, mask)

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pass`."""
        return self._convnet.descend(x, y)


class SparsePass:
    """An MLP on its surviving weights; removed weights do not exist, so nothing is masked.

    The net's own weights are updated from the survivors after each step, its gradients only after
    the last one. An observer that changes them in between must set `Observer.edits`; otherwise its
    changes would be lost.
    """

    keep: Tensor | None = None

    def __init__(self, net: Net, mask: Mask) -> None:
        names = mlp.linears(net.model)
        self.net, self._mlps = net, SparseMlps(names, [net.state()], [mask], shared=True)
        self.weights, self.grads = self._mlps.weights, self._mlps.grads
        places = net.places()
        self._places = torch.cat(
            [
                part
                for name, pattern in zip(names, self._mlps.patterns, strict=True)
                for part in (
                    places[f"{name}.weight"].flatten()[pattern.places],
                    places[f"{name}.bias"],
                )
            ]
        )
        self._unseen = self._versions()

    def _versions(self) -> tuple[int, int]:
        return self.net.weights._version, self.net.grads._version

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Pass`; RuntimeError if the net's own buffers were changed since the last step."""
        if self._versions() != self._unseen:
            raise RuntimeError("an observer that edits a net has to say so: Observer.edits")
        losses, logits = self._mlps.descend(x.flatten(1), y)
        return losses[0], logits[0]

    def show(self) -> None:
        """See `Pass`."""
        if self._versions() != self._unseen:
            raise RuntimeError("an observer that edits a net has to say so: Observer.edits")
        self.net.weights.index_copy_(0, self._places, self.weights)
        self._unseen = self._versions()

    def end(self) -> None:
        """See `Pass`."""
        self.net.grads.zero_().index_copy_(0, self._places, self.grads)
