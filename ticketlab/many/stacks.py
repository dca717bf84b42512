"""Many small ReLU nets of one shape trained at once: one batched product a layer.

A net is a State {"weight1", "bias1", "weight2", ...}; weights are (inputs, outputs), so the same
`forward` serves one net and K with a leading axis. The backward pass is written out: with autograd
the launch overhead of such small products dominates.
"""

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
from ticketlab.training.optimizers import Adam
from ticketlab.training.recipe import batch_slice, epoch_steps

Kind = Literal["regression", "classification"]
Head = Literal["linear", "softmax"]
"""What the loss sees: the outputs, or their softmax (the released edge-popup of Plant 'n' Seek)."""

CHUNK = 16
"""Nets trained together: weights, gradients and Adam's moments of 16 stay in a core's cache."""


# ---------------------------------------------------------------- one net as plain data


def network(layers: Sequence[tuple[Tensor, Tensor]]) -> State:
    """A net from its layers: weights (inputs, outputs) and biases (outputs,) in order."""
    state: State = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        state |= {f"weight{number}": weight, f"bias{number}": bias}
    return state


def layers(state: State) -> list[tuple[Tensor, Tensor]]:
    """The (weight, bias) pairs of a net, first layer first."""
    return [(state[f"weight{n}"], state[f"bias{n}"]) for n in range(1, len(state) // 2 + 1)]


def widths(state: State) -> tuple[int, ...]:
    """Neurons of each layer, inputs and outputs included."""
    pairs = layers(state)
    return (pairs[0][0].shape[-2], *(weight.shape[-1] for weight, _ in pairs))


def forward(state: State, x: Tensor) -> Tensor:
    """Outputs (..., B, outputs) for inputs (B, inputs); ReLU after every layer but the last."""
    *hidden, (weight, bias) = layers(state)
    for w, b in hidden:
        x = functional.relu(x @ w + b.unsqueeze(-2))
    return x @ weight + bias.unsqueeze(-2)


def apply(mask: Mask, state: State) -> State:
    """The net with its removed weights set to zero."""
    return {name: tensor * mask[name] for name, tensor in state.items()}


def cast(state: State, dtype: torch.dtype, device: torch.device | str = "cpu") -> State:
    """The net in another precision, or on another device."""
    return {name: tensor.to(device, dtype) for name, tensor in state.items()}


# ---------------------------------------------------------------- a stack of nets

_relu_backward = torch.ops.aten.threshold_backward.grad_input
"""In place and without a bool tensor: a tenth of the time of `delta *= activation > 0`."""


class Stack:
    """K nets of one shape as flat buffers: `weights`, `grads` and `keep` (0 or 1), each (K P,).

    Layer l's block is contiguous and viewed as (K, inputs, outputs) or (K, 1, outputs), so the
    optimiser and the masks are single operations. Weights start masked and stay so.
    """

    def __init__(self, nets: Sequence[State], masks: Sequence[Mask]) -> None:
        for net, mask in zip(nets, masks, strict=True):
            check_same_layers(mask, net)
        self.names, self.count = tuple(nets[0]), len(nets)
        self.keep = self._joined(masks).float()  # a product with bools costs ten times as much
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
        """The parameters of a flat buffer, each (K, n)."""
        parts = flat.split([self.count * shape.numel() for shape in self.shapes])
        return [part.view(self.count, -1) for part in parts]

    def views(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The (weights (K, inputs, outputs), biases (K, 1, outputs)) pairs of a flat buffer."""
        blocks = self.blocks(flat)
        shaped = [
            block.view(self.count, *(shape if len(shape) == 2 else (1, *shape)))
            for block, shape in zip(blocks, self.shapes, strict=True)
        ]
        return list(zip(shaped[::2], shaped[1::2], strict=True))

    def states(self) -> list[State]:
        """The nets one by one."""
        pairs = list(zip(self.names, self.blocks(self.weights), self.shapes, strict=True))
        return [
            {name: block[k].view(shape).clone() for name, block, shape in pairs}
            for k in range(self.count)
        ]

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs (K, B, outputs) for inputs (B, inputs); overwritten by the next pass."""
        return self._pass(x)[-1]

    def _pass(self, x: Tensor) -> list[Tensor]:
        """Inputs, hidden activations and outputs, each (K, B, neurons)."""
        values, buffers = [x.expand(self.count, *x.shape)], self._activation_buffers(len(x))
        for (weight, bias), value in zip(self._weight_views, buffers, strict=True):
            torch.baddbmm(bias, values[-1], weight, out=value)
            values.append(value if value is buffers[-1] else value.relu_())
        return values

    def _activation_buffers(self, batch: int) -> list[Tensor]:
        """Buffers (K, |batch|, neurons), one a layer; a negative batch is the backward pass's.

        They are used again and again: fresh memory at each step would cost page faults.
        """
        if batch not in self._by_batch:
            shapes = [(self.count, abs(batch), bias.shape[-1]) for _, bias in self._weight_views]
            self._by_batch[batch] = [self.weights.new_empty(shape) for shape in shapes]
        return self._by_batch[batch]

    def backward(self, x: Tensor, y: Tensor, kind: Kind, head: Head = "linear") -> None:
        """Fill `grads` with the gradient of each net's own mean loss on one batch."""
        values = self._pass(x)
        delta = loss_gradient(values[-1], y, kind, head)
        for number in reversed(range(len(self._weight_views))):
            weight_grad, bias_grad = self._grad_views[number]
            torch.bmm(values[number].transpose(1, 2), delta, out=weight_grad)
            torch.sum(delta, 1, keepdim=True, out=bias_grad)
            if number:
                back = self._activation_buffers(-len(x))[number - 1]
                torch.bmm(delta, self._weight_views[number][0].transpose(1, 2), out=back)
                delta = _relu_backward(back, values[number], 0, grad_input=back)


def loss_gradient(outputs: Tensor, y: Tensor, kind: Kind, head: Head) -> Tensor:
    """d(mean loss)/d(outputs), shape (K, B, outputs): cross-entropy or mean squared error."""
    seen = outputs.softmax(-1) if head == "softmax" else outputs
    if kind == "classification":
        one_hot = functional.one_hot(y, outputs.shape[-1]).to(outputs)
        gradient = (seen.softmax(-1) - one_hot) / len(y)
    else:
        gradient = 2 * (seen - y) / y.numel()
    if head == "softmax":
        gradient = seen * (gradient - (gradient * seen).sum(-1, keepdim=True))
    return gradient


# ---------------------------------------------------------------- training


class Fit(Spec):
    """How long and how fast to train: Adam at a constant rate, as in the paper (section 4)."""

    lr: float = Field(default=0.001, gt=0)
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)


def batches(
    x: Tensor, y: Tensor, batch: int, order: tuple[object, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in the order that `order` fixes, its batches as `batch_slice` has them."""
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
    """Train every net under its mask on the same batches, in chunks; the trained nets in order."""
    trained: list[State] = []
    for start in range(0, len(nets), CHUNK):
        part = slice(start, start + CHUNK)
        trained += _train_chunk(Stack(nets[part], masks[part]), x, y, kind, fit, seed)
    for done, mask, net in zip(trained, masks, nets, strict=True):
        patterns.confirm(done, mask, net)
    return trained


def _train_chunk(
    stack: Stack, x: Tensor, y: Tensor, kind: Kind, fit: Fit, seed: tuple[object, ...]
) -> list[State]:
    adam = Adam(stack.weights, stack.grads, fit.lr)
    with no_denormals():
        for epoch in range(fit.epochs):
            for xs, ys in batches(x, y, fit.batch, (*seed, epoch)):
                stack.backward(xs, ys, kind)
                stack.grads.mul_(stack.keep)
                adam.step()
            check_finite(fit.lr, epoch + 1, [stack.weights])
            progress.tell(epoch=epoch + 1, passes=len(x) * stack.count)
    return stack.states()
