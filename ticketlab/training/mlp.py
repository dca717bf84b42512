"""A plain ReLU MLP without autograd: its layers, its loss and a hand-written gradient.

For small layers, autograd's recording and replaying costs as much as the products themselves. The
gradient is therefore written out, into buffers that every step reuses.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ticketlab import gpu, models
from ticketlab.gpu import Runtime
from ticketlab.training.net import Net

relu_backward = torch.ops.aten.threshold_backward.grad_input
"""In place and without a bool tensor: takes a tenth of the time of `delta *= activation > 0`."""


# ---------------------------------------------------------------- supported nets


def linears(model: nn.Module) -> tuple[str, ...]:
    """Return the names of an MLP's Linear layers, first to last; empty for any other model."""
    if not (isinstance(model, models.Net) and isinstance(model.body, nn.Sequential)):
        return ()
    leaves = [(f"body.{name}", layer) for name, layer in model.body.named_children()]
    leaves.append(("head", model.head))
    kinds = [type(layer) for _, layer in leaves]
    hidden = (len(kinds) - 2) // 2
    if kinds != [nn.Flatten, *[nn.Linear, nn.ReLU] * hidden, nn.Linear]:
        return ()
    return tuple(name for name, layer in leaves if isinstance(layer, nn.Linear))


def kept(model: nn.Module, mask: Mapping[str, Tensor] | None, name: str) -> Tensor:
    """Return what a mask keeps of a parameter, bool in its shape; all if it has no entry."""
    if mask is not None and name in mask:
        return mask[name]
    return torch.ones_like(model.get_parameter(name), dtype=torch.bool)


def density(model: nn.Module, mask: Mapping[str, Tensor] | None) -> float:
    """Return the share of an MLP's weights that survive; matrices without an entry are dense."""
    layers = [kept(model, mask, f"{name}.weight") for name in linears(model)]
    return sum(int(keep.sum()) for keep in layers) / sum(keep.numel() for keep in layers)


def not_written(model: nn.Module, runtime: Runtime) -> str:
    """Return why a model's gradient cannot be written out, or ''."""
    if not linears(model):
        return "the model is not a plain ReLU MLP"
    if runtime.precision == "bf16" or runtime.compile:
        return "this path has neither bf16 nor compile"
    return ""


def not_sparse(model: nn.Module, mask: Mapping[str, Tensor] | None, runtime: Runtime) -> str:
    """Return why a model cannot compute on its surviving weights only, or ''."""
    if why := not_written(model, runtime):
        return why
    if not gpu.prefers_written_products(gpu.choose_device(runtime.device)):
        return "sparse products are for the CPU"
    if mask is None:
        return "the job has no mask"
    if any(name.endswith(".bias") for name in mask):
        return "the mask removes biases"
    return ""


# ---------------------------------------------------------------- loss and gradient


def loss_and_slope(logits: Tensor, y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return mean cross-entropy (K,) and its gradient; the classes of the logits are in `dim`.

    The gradient has the shape of the logits: (K, C, B) for dim 1, (K, B, C) for dim 2.
    """
    places = y.expand(len(logits), y.shape[-1]).unsqueeze(dim)
    slope = torch.log_softmax(logits, dim)
    losses = slope.gather(dim, places).squeeze(dim).mean(1).neg_()
    minus = logits.new_full((), -1.0).expand(places.shape)
    return losses, slope.exp_().scatter_add_(dim, places, minus).div_(y.shape[-1])


class WrittenMlp:
    """One MLP on the buffers of its `Net`; fills `net.grads` as autograd would."""

    def __init__(self, net: Net) -> None:
        named = dict(net.model.named_parameters())
        pairs = [(named[f"{n}.weight"], named[f"{n}.bias"]) for n in linears(net.model)]
        self.layers = [(weight.data, bias.data) for weight, bias in pairs]
        self.slopes = [(weight.grad, bias.grad) for weight, bias in pairs]
        self._by_batch: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def _buffers(self, batch: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return buffers (B, neurons), one per layer, for the forward and the backward pass."""
        if batch not in self._by_batch:
            forward, back = (
                [weight.new_empty(batch, len(weight)) for weight, _ in self.layers]
                for _ in range(2)
            )
            self._by_batch[batch] = forward, back
        return self._by_batch[batch]

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the gradients; return loss () and logits (B, C), overwritten by the next pass."""
        forward, back = self._buffers(len(x))
        values = [x]
        for (weight, bias), z in zip(self.layers, forward, strict=True):
            torch.addmm(bias, values[-1], weight.t(), out=z)
            values.append(z if z is forward[-1] else z.relu_())
        losses, slope = loss_and_slope(values[-1].unsqueeze(0), y, 2)
        delta = slope[0]
        for number in reversed(range(len(self.layers))):
            weight_slope, bias_slope = self.slopes[number]
            torch.mm(delta.t(), values[number], out=weight_slope)
            torch.sum(delta, 0, out=bias_slope)
            if number:
                torch.mm(delta, self.layers[number][0], out=back[number - 1])
                delta = relu_backward(
                    back[number - 1], values[number], 0, grad_input=back[number - 1]
                )
        return losses[0], values[-1]
