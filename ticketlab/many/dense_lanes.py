"""K MLPs as batched products with a hand-written backward pass, on `stacks.Stack`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ticketlab.many.lanes import Job, keeps
from ticketlab.many.stacks import Stack
from ticketlab.pruning.masks import Mask, State
from ticketlab.training.mlp import linears, loss_and_slope, relu_backward

SMALL = 100_000


def chunk(parameters: int) -> int:
    """Return how many nets to train together: small nets gain from fewer launches, large do not."""
    return 8 if parameters > SMALL else 32


class DenseLanes(Stack):
    """A stack of a model's nets, on one shared batch or one each; removed weights stay 0."""

    keep: Tensor

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.layers = linears(jobs[0].model)
        nets = [self._turned(job.start()) for job in jobs]
        masks = [
            Mask(self._turned({name: keeps(job, name) for name in self._parameters()}))
            for job in jobs
        ]
        super().__init__(nets, masks)

    def _parameters(self) -> list[str]:
        return [f"{layer}.{kind}" for layer in self.layers for kind in ("weight", "bias")]

    def _turned(self, state: State) -> State:
        """Return a model's state in the stack's form: numbered weights (inputs, outputs)."""
        pairs = [(state[f"{layer}.weight"], state[f"{layer}.bias"]) for layer in self.layers]
        turned = [(f"weight{n}", weight.T) for n, (weight, _) in enumerate(pairs, start=1)]
        biases = [(f"bias{n}", bias) for n, (_, bias) in enumerate(pairs, start=1)]
        return dict(item for both in zip(turned, biases, strict=True) for item in both)

    def state(self, lane: int) -> State:
        """Return one net as its model's state."""
        tensors = [
            block[lane].view(shape)
            for block, shape in zip(self.blocks(self.weights), self.shapes, strict=True)
        ]
        return {
            name: (tensor.T if tensor.dim() == 2 else tensor).clone(
                memory_format=torch.contiguous_format
            )
            for name, tensor in zip(self._parameters(), tensors, strict=True)
        }

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (K, B, C); overwritten by the next pass."""
        return self._pass(x)[-1]

    def _pass(self, x: Tensor) -> list[Tensor]:
        """Return inputs, activations and logits (K, B, neurons) for x (B, F) or (K, B, F)."""
        values, buffers = (
            [x.expand(self.count, *x.shape[-2:])],
            self._activation_buffers(x.shape[-2]),
        )
        for (weight, bias), value in zip(self._weight_views, buffers, strict=True):
            torch.baddbmm(bias.mT, values[-1], weight, out=value)
            values.append(value if value is buffers[-1] else value.relu_())
        return values

    def _activation_buffers(self, batch: int) -> list[Tensor]:
        """Return a buffer (K, B, neurons) per layer; a negative batch is the backward pass's."""
        if batch not in self._by_batch:
            shapes = [(self.count, abs(batch), bias.shape[1]) for _, bias in self._weight_views]
            self._by_batch[batch] = [self.weights.new_empty(shape) for shape in shapes]
        return self._by_batch[batch]

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `grads`, also for removed weights; return losses (K,) and logits (K, B, C)."""
        values = self._pass(x)
        losses, delta = loss_and_slope(values[-1], y, 2)
        for number in reversed(range(len(self._weight_views))):
            weight_grad, bias_grad = self._grad_views[number]
            torch.bmm(values[number].transpose(1, 2), delta, out=weight_grad)
            torch.sum(delta, 1, keepdim=True, out=bias_grad.mT)
            if number:
                back = self._activation_buffers(-x.shape[-2])[number - 1]
                torch.bmm(delta, self._weight_views[number][0].transpose(1, 2), out=back)
                delta = relu_backward(back, values[number], 0, grad_input=back)
        return losses, values[-1]
