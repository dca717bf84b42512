"""Many small ReLU nets of one shape trained at once, with one product per layer for all of them.

A net is a State {"weight1", "bias1", "weight2", ...}; weights are (inputs, outputs), so the same
`forward` serves one net, and K nets with a leading axis. The backward pass is hand-written, because
with autograd the launch overhead of such small products dominates. Inside a stack samples are the
last axis, which makes products with few outputs, and sums over them, several times faster.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu, progress
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State, check_same_layers
from ticketlab.spec import Spec
from ticketlab.training.loop import check_finite, no_denormals
from ticketlab.training.mlp import relu_backward
from ticketlab.training.optimizers import Adam
from ticketlab.training.recipe import batch_slice, epoch_steps

Kind = Literal["regression", "classification"]
Head = Literal["linear", "softmax"]
"""What the loss is computed on: outputs, or their softmax (Plant 'n' Seek's edge-popup code)."""


# ---------------------------------------------------------------- one net as a mapping of tensors


def network(layers: Sequence[tuple[Tensor, Tensor]]) -> State:
    """Make a net from its layers: weights (inputs, outputs) and biases (outputs,) in order."""
    state: State = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        state |= {f"weight{number}": weight, f"bias{number}": bias}
    return state


def layers(state: State) -> list[tuple[Tensor, Tensor]]:
    """Return the (weight, bias) pairs of a net, first layer first."""
    return [(state[f"weight{n}"], state[f"bias{n}"]) for n in range(1, len(state) // 2 + 1)]


def widths(state: State) -> tuple[int, ...]:
    """Return the number of neurons per layer, inputs and outputs included."""
    pairs = layers(state)
    return (pairs[0][0].shape[-2], *(weight.shape[-1] for weight, _ in pairs))


def forward(state: State, x: Tensor) -> Tensor:
    """Return outputs (..., B, outputs) for inputs (B, inputs); ReLU on all layers but the last."""
    *hidden, (weight, bias) = layers(state)
    for w, b in hidden:
        x = functional.relu(x @ w + b.unsqueeze(-2))
    return x @ weight + bias.unsqueeze(-2)


def apply(mask: Mask, state: State) -> State:
    """Return the net with its removed weights set to zero."""
    return {name: tensor * mask[name] for name, tensor in state.items()}


def cast(state: State, dtype: torch.dtype, device: torch.device | str = "cpu") -> State:
    """Return the net in another precision, or on another device."""
    return {name: tensor.to(device, dtype) for name, tensor in state.items()}


# ---------------------------------------------------------------- a stack of nets


class Stack:
    """K nets of one shape as flat buffers: `weights`, `grads` and `keep` (0 or 1), each (K P,).

    The block of each layer is contiguous and viewed as (K, inputs, outputs) or (K, outputs, 1), so
    that optimiser and masks are single operations. Removed weights are 0 from the start.
    """

    def __init__(self, nets: Sequence[State], masks: Sequence[Mask]) -> None:
        for net, mask in zip(nets, masks, strict=True):
            check_same_layers(mask, net)
        self.names, self.count = tuple(nets[0]), len(nets)
        self.keep = self._joined(masks).float()  # multiplying by bools takes ten times as long
        self.weights = self._joined(nets).float() * self.keep
        self.grads = torch.zeros_like(self.weights)
        self.shapes = [nets[0][name].shape for name in self.names]
        self._weight_views = self.views(self.weights)
        self._grad_views = self.views(self.grads)
        self._by_batch: dict[int, list[Tensor]] = {}

    def _joined(self, nets: Sequence[State] | Sequence[Mask]) -> Tensor:
        blocks = [torch.stack([net[name] for net in nets]).flatten() for name in self.names]
        return torch.cat(blocks)

    def blocks(self, flat: Tensor) -> list[Tensor]:
        """Return the parameters of a flat buffer, each (K, n)."""
        parts = flat.split([self.count * shape.numel() for shape in self.shapes])
        return [part.view(self.count, -1) for part in parts]

    def views(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (weights (K, inputs, outputs), biases (K, outputs, 1)) views, one per layer."""
        blocks = self.blocks(flat)
        shaped = [
            block.view(self.count, *(shape if len(shape) == 2 else (*shape, 1)))
            for block, shape in zip(blocks, self.shapes, strict=True)
        ]
        return list(zip(shaped[::2], shaped[1::2], strict=True))

    def states(self) -> list[State]:
        """Return the nets one by one."""
        pairs = list(zip(self.names, self.blocks(self.weights), self.shapes, strict=True))
        return [
            {name: block[k].view(shape).clone() for name, block, shape in pairs}
            for k in range(self.count)
        ]

    def outputs(self, x: Tensor) -> Tensor:
        """Return outputs (K, B, outputs) for inputs (B, inputs); overwritten by the next pass."""
        return self._pass(x)[-1].transpose(1, 2)

    def _pass(self, x: Tensor) -> list[Tensor]:
        """Return inputs, hidden activations and outputs, each (K, neurons, B)."""
        values, buffers = [x.T.expand(self.count, *x.T.shape)], self._buffers(len(x))
        for (weight, bias), value in zip(self._weight_views, buffers, strict=True):
            torch.baddbmm(bias, weight.transpose(1, 2), values[-1], out=value)
            values.append(value if value is buffers[-1] else value.relu_())
        return values

    def _buffers(self, batch: int) -> list[Tensor]:
        """Return buffers (K, neurons, B), one per layer; a negative batch is the backward pass's.

        They are reused, since fresh memory at each step would cost page faults.
        """
        if batch not in self._by_batch:
            shapes = [(*bias.shape[:2], abs(batch)) for _, bias in self._weight_views]
            self._by_batch[batch] = [self.weights.new_empty(shape) for shape in shapes]
        return self._by_batch[batch]

    def backward(self, x: Tensor, wanted: Tensor, kind: Kind, head: Head = "linear") -> None:
        """Fill `grads` with the gradient of each net's own mean loss on one batch of `targets`."""
        values, buffers = self._pass(x), self._buffers(-len(x))
        delta = loss_gradient(values[-1], wanted, kind, head)
        for number in reversed(range(len(self._weight_views))):
            weight_grad, bias_grad = self._grad_views[number]
            torch.bmm(values[number], delta.transpose(1, 2), out=weight_grad)
            torch.sum(delta, 2, keepdim=True, out=bias_grad)
            if number:
                back = torch.bmm(self._weight_views[number][0], delta, out=buffers[number - 1])
                delta = relu_backward(back, values[number], 0, grad_input=back)


def targets(y: Tensor, kind: Kind, outputs: int) -> Tensor:
    """Return the targets of the outputs, float32 (N, outputs): `y`, or its classes one-hot."""
    return functional.one_hot(y, outputs).float() if kind == "classification" else y


def loss_gradient(outputs: Tensor, wanted: Tensor, kind: Kind, head: Head) -> Tensor:
    """Return d(mean loss)/d(outputs) (K, outputs, B) for targets (B, outputs).

    Cross-entropy for classes, squared error otherwise.
    """
    seen = outputs.softmax(1) if head == "softmax" else outputs
    if kind == "classification":
        gradient = seen.softmax(1).sub_(wanted.T).div_(wanted.shape[0])
    else:
        gradient = (seen - wanted.T).mul_(2 / wanted.numel())
    if head == "softmax":
        gradient = seen * (gradient - (gradient * seen).sum(1, keepdim=True))
    return gradient


# ---------------------------------------------------------------- a stack of surviving weights


class _Block:
    """A layer of K nets as one block-diagonal matrix (K outputs, K inputs + 1) of its survivors.

    The last column holds the biases and multiplies a row of ones below the activations. With
    `shared` it is (K outputs, inputs + 1), without blocks: the first layer, since all nets share
    their inputs.
    """

    def __init__(self, keep: Tensor, shared: bool) -> None:
        nets, above, outputs = keep.shape  # inputs, then the bias
        inputs = above - 1
        net, target, source = keep.transpose(1, 2).nonzero(as_tuple=True)
        self.places = (net * above + source) * outputs + target
        self.rows, bias = net * outputs + target, source == inputs
        last = inputs if shared else nets * inputs
        self.columns = torch.where(bias, last, source if shared else net * inputs + source)
        self.shape = (nets * outputs, last + 1)
        self.order = self.columns.argsort(stable=True)[: len(bias) - int(bias.sum())]

    def matrix(self, values: Tensor) -> Tensor:
        """Return weights and biases as a matrix that shares the tensor `values` (n,)."""
        return _csr(self.rows, self.columns, values, self.shape)

    def turned(self) -> Tensor:
        """Return the transposed weights, (K inputs, K outputs); fill their values by `order`."""
        values = torch.zeros(len(self.order))
        shape = (self.shape[1] - 1, self.shape[0])
        return _csr(self.columns[self.order], self.rows[self.order], values, shape)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Build a CSR matrix of sorted positions; hides torch's beta warning on CSR tensors."""
    starts = torch.searchsorted(rows, torch.arange(shape[0] + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            starts.int(), columns.int(), values, shape, check_invariants=False
        )


class SparseStack:
    """K nets of one shape as their surviving weights: `weights` and `grads`, each (n,), on a CPU.

    Products with removed weights are never formed, so nothing is masked.
    """

    keep: Tensor | None = None

    def __init__(self, nets: Sequence[State], masks: Sequence[Mask]) -> None:
        for net, mask in zip(nets, masks, strict=True):
            check_same_layers(mask, net)
        self.count = len(nets)
        kept, whole = _by_layer(masks), _by_layer(nets)
        self.blocks = [_Block(keep, shared=not number) for number, keep in enumerate(kept)]
        parts = zip(self.blocks, whole, strict=True)
        self.weights = torch.cat([layer.flatten()[block.places] for block, layer in parts]).float()
        self.grads = torch.zeros_like(self.weights)
        self.shapes = [layer.shape for layer in whole]
        self.values = self._values(self.weights)
        self.matrices, self.slopes = self._matrices(self.weights), self._matrices(self.grads)
        self.turned = [block.turned() for block in self.blocks]
        self._by_batch: dict[int, list[Tensor]] = {}

    def _values(self, flat: Tensor) -> list[Tensor]:
        """Return the survivors of each layer in a flat buffer."""
        return list(flat.split([len(block.places) for block in self.blocks]))

    def _matrices(self, flat: Tensor) -> list[Tensor]:
        pairs = zip(self.blocks, self._values(flat), strict=True)
        return [block.matrix(values) for block, values in pairs]

    def states(self) -> list[State]:
        """Return the nets one by one."""
        whole = []
        for block, values, shape in zip(self.blocks, self.values, self.shapes, strict=True):
            layer = torch.zeros(shape.numel())
            layer[block.places] = values
            whole.append(layer.view(shape))
        return [
            network([(layer[k, :-1].clone(), layer[k, -1].clone()) for layer in whole])
            for k in range(self.count)
        ]

    def _buffers(self, batch: int) -> list[Tensor]:
        """Return buffers (K neurons + 1, B), inputs first, each with a row of ones for the biases.

        A negative batch is the backward pass's.
        """
        if batch not in self._by_batch:
            heights = [block.shape[1] for block in self.blocks] + [self.blocks[-1].shape[0] + 1]
            self._by_batch[batch] = [torch.ones(height, abs(batch)) for height in heights]
        return self._by_batch[batch]

    def _pass(self, x: Tensor) -> list[Tensor]:
        """Return inputs, hidden activations and outputs, with their rows of ones."""
        values = self._buffers(len(x))
        values[0][:-1].copy_(x.T)
        for matrix, below, value in zip(self.matrices, values, values[1:], strict=False):
            torch.addmm(value[:-1], matrix, below, beta=0, out=value[:-1])
            if value is not values[-1]:
                value.relu_()
        return values

    def _by_net(self, outputs: Tensor) -> Tensor:
        return outputs.view(self.count, -1, outputs.shape[1])

    def outputs(self, x: Tensor) -> Tensor:
        """Return outputs (K, B, outputs) for inputs (B, inputs); overwritten by the next pass."""
        return self._by_net(self._pass(x)[-1][:-1]).transpose(1, 2)

    def backward(self, x: Tensor, wanted: Tensor, kind: Kind, head: Head = "linear") -> None:
        """Fill `grads` as `Stack.backward` does."""
        values, buffers = self._pass(x), self._buffers(-len(x))
        delta = loss_gradient(self._by_net(values[-1][:-1]), wanted, kind, head).flatten(0, 1)
        for number in reversed(range(len(self.blocks))):
            slopes = self.slopes[number]
            torch.sparse.sampled_addmm(slopes, delta, values[number].t(), beta=0, out=slopes)
            if number:
                turned, back = self.turned[number], buffers[number][:-1]
                order = self.blocks[number].order
                torch.index_select(self.values[number], 0, order, out=turned.values())
                torch.addmm(back, turned, delta, beta=0, out=back)
                delta = relu_backward(back, values[number][:-1], 0, grad_input=back)


def _by_layer(nets: Sequence[State] | Sequence[Mask]) -> list[Tensor]:
    """Return the layers of K nets or masks, each (K, inputs + 1, outputs), biases last."""
    return [
        torch.stack([torch.cat([net[f"weight{n}"], net[f"bias{n}"][None]]) for net in nets])
        for n in range(1, len(nets[0]) // 2 + 1)
    ]


# ---------------------------------------------------------------- training


class Fit(Spec):
    """How long and how fast to train: Adam at a constant rate, as in the paper (section 4)."""

    lr: float = Field(default=0.001, gt=0)
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)


def batches(
    x: Tensor, y: Tensor, batch: int, order: tuple[object, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch, in the order fixed by `order` and cut by `batch_slice`."""
    places = torch.randperm(len(x), generator=gpu.generator("cpu", "order", *order)).to(x.device)
    x, y = x[places], y[places]
    for step in range(epoch_steps(len(x), batch)):
        part = batch_slice(step, len(x), batch)
        yield x[part], y[part]


def train(
    nets: Sequence[State],
    masks: Sequence[Mask],
    x: Tensor,
    y: Tensor,
    kind: Kind,
    fit: Fit,
    seed: tuple[object, ...],
) -> list[State]:
    """Train every net under its mask on the same batches; return the trained nets in order.

    The arguments determine which nets share a stack, and so the last bits of the weights: products
    over a different number of nets may round differently.
    """
    trained: dict[int, State] = {}
    wanted = targets(y, kind, widths(nets[0])[-1])
    for kind_of_stack, places in together(masks, x.device):
        stack = kind_of_stack([nets[p] for p in places], [masks[p] for p in places])
        trained |= zip(places, _train_stack(stack, x, wanted, kind, fit, seed), strict=True)
    done = [trained[place] for place in range(len(nets))]
    for weights, mask, net in zip(done, masks, nets, strict=True):
        patterns.confirm(weights, mask, net)
    return done


SPARSE_BELOW = 0.35
"""Density up to which sparse products are faster than dense ones."""


def together(
    masks: Sequence[Mask], device: torch.device
) -> Iterator[tuple[type[Stack] | type[SparseStack], list[int]]]:
    """Yield how each stack computes, and the indices of its nets."""
    bound = SPARSE_BELOW if gpu.prefers_written_products(device) else 0.0
    sparse = [mask.density <= bound for mask in masks]
    size = gpu.stack_size(device, masks[0].total)
    for kind, wanted in ((Stack, False), (SparseStack, True)):
        places = [place for place, few in enumerate(sparse) if few is wanted]
        for start in range(0, len(places), size):
            yield kind, places[start : start + size]


def _train_stack(
    stack: Stack | SparseStack,
    x: Tensor,
    wanted: Tensor,
    kind: Kind,
    fit: Fit,
    seed: tuple[object, ...],
) -> list[State]:
    adam = Adam(stack.weights, stack.grads, fit.lr)
    with no_denormals():
        for epoch in range(fit.epochs):
            for xs, ys in batches(x, wanted, fit.batch, (*seed, epoch)):
                stack.backward(xs, ys, kind)
                if stack.keep is not None:
                    stack.grads.mul_(stack.keep)
                adam.step()
            check_finite(fit.lr, epoch + 1, [stack.weights])
            progress.tell(epoch=epoch + 1, passes=len(x) * stack.count)
    return stack.states()
