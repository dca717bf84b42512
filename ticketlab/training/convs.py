"""Convnets trained on their surviving weights only, without autograd, by sparse products.

Activations are (C, H, W, B), so that the images of a batch are contiguous. A convolution becomes a
sparse matrix with one entry per surviving weight and position at which it is applied. Its product
with the activations, and both products of its gradient, cost as much as the survivors do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ticketlab import gpu, models
from ticketlab.gpu import Runtime
from ticketlab.models import Shape
from ticketlab.models.residual import BasicBlock
from ticketlab.training.mlp import kept, loss_and_slope, relu_backward
from ticketlab.training.net import Net
from ticketlab.training.sparse import Entries

aten = torch.ops.aten


class Layer(Protocol):
    """A part of a net, with a hand-written gradient of its last pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Return its output from activations (C, H, W, B), or (F, B) after a Flatten."""

    def backward(self, slope: Tensor) -> Tensor:
        """Return the gradient of its input from that of its output; fill the weights' gradients."""


def _slope_of(parameter: Tensor) -> Tensor:
    """Return the buffer that collects the gradient of a net's parameter."""
    assert parameter.grad is not None
    return parameter.grad


# ---------------------------------------------------------------- the layers


class Conv:
    """A convolution as a sparse matrix, laid out at the first batch, when the map size is known.

    `keep` (O, C, k, k) marks the surviving weights, `places` gives each weight's index in
    `net.weights`. The `first` layer of a net skips the gradient of its input.
    """

    def __init__(
        self, layer: nn.Conv2d, net: Net, keep: Tensor, places: Tensor, first: bool
    ) -> None:
        self.layer, self.net, self.keep, self.first = layer, net, keep, first
        self.survivors, self.inputs = places[keep], (0, 0, 0)

    def _lay_out(self, inputs: Shape) -> None:
        entries, copied, self.outputs = unrolled(self.layer, self.keep, inputs)
        self.inputs, self.places = inputs, self.survivors[copied]
        self.matrix, self.slopes = entries.matrix(), entries.matrix()
        self.order, self.turned = entries.transposed()

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        channels, height, width, batch = x.shape
        if self.inputs != (channels, height, width):
            self._lay_out((channels, height, width))
        torch.index_select(self.net.weights, 0, self.places, out=self.matrix.values())
        self.x = x.flatten(0, 2)
        out = x.new_empty(self.matrix.shape[0], batch)
        out = torch.addmm(out, self.matrix, self.x, beta=0.0, out=out).view(*self.outputs, batch)
        bias = self.layer.bias
        return out if bias is None else out.add_(bias.view(-1, 1, 1, 1))

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        if self.layer.bias is not None:
            _slope_of(self.layer.bias).add_(slope.flatten(1).sum(1))
        rows = slope.flatten(0, 2)
        torch.sparse.sampled_addmm(self.slopes, rows, self.x.t(), beta=0.0, out=self.slopes)
        self.net.grads.index_add_(0, self.places, self.slopes.values())
        if self.first:
            return slope
        torch.index_select(self.matrix.values(), 0, self.order, out=self.turned.values())
        back = torch.empty_like(self.x)
        back = torch.addmm(back, self.turned, rows, beta=0.0, out=back)
        return back.view(*self.inputs, -1)


def unrolled(layer: nn.Conv2d, keep: Tensor, inputs: Shape) -> tuple[Entries, Tensor, Shape]:
    """Lay out a convolution of maps (C, H, W) as a matrix (O H' W', C H W).

    Also returns, for each entry, the index of the survivor (in the order of `keep`) that it is a
    copy of, int64 (n,), and the shape (O, H', W') of the output.
    """
    assert not isinstance(layer.padding, str)
    (channels, height, width), (down, across), (above, beside) = inputs, layer.stride, layer.padding
    tall = (height + 2 * above - layer.kernel_size[0]) // down + 1
    wide = (width + 2 * beside - layer.kernel_size[1]) // across + 1
    output, channel, i, j = keep.nonzero().t().unsqueeze(2)
    place = torch.arange(tall * wide, device=keep.device)
    y, x = place // wide * down + i - above, place % wide * across + j - beside
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    rows = (output * tall * wide + place)[inside]
    columns = ((channel * height + y) * width + x)[inside]
    shape = (len(keep) * tall * wide, channels * height * width)
    order = torch.argsort(rows * shape[1] + columns)
    entries = Entries(rows[order], columns[order], shape)
    return entries, inside.nonzero()[order, 0], (len(keep), tall, wide)


class Norm:
    """Batch-norm in training mode, per channel over positions and images."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.layer, self.momentum = layer, float(layer.momentum or 0)
        self.running_mean, self.running_variance, self.batches = layer.buffers()

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`; moves the running statistics."""
        self.x, count = x.flatten(1), x[0].numel()
        self.mean = self.x.mean(1)
        out = self.x - self.mean.unsqueeze(1)
        variance = torch.linalg.vector_norm(out, dim=1).square_().div_(count)
        self.inverse = (variance + self.layer.eps).rsqrt_()
        out.mul_((self.layer.weight * self.inverse).unsqueeze(1))
        out.add_(self.layer.bias.unsqueeze(1))
        self._note(variance.mul_(count / (count - 1)))
        return out.view(x.shape)

    def _note(self, variance: Tensor) -> None:
        self.running_mean.lerp_(self.mean, self.momentum)
        self.running_variance.lerp_(variance, self.momentum)
        self.batches.add_(1)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        layer = self.layer
        back: Tensor
        back, weight, bias = aten.native_batch_norm_backward(
            slope.flatten(1).unsqueeze(0), self.x.unsqueeze(0), layer.weight, None, None,
            self.mean, self.inverse, True, layer.eps, [True, True, True],
        )  # fmt: skip
        _slope_of(layer.weight).add_(weight)
        _slope_of(layer.bias).add_(bias)
        return back.view(slope.shape)


class Relu:
    """ReLU in place, forward and backward: no other layer reads its input or output again."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        self.out = x.relu_()
        return self.out

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        back: Tensor = relu_backward(slope, self.out, 0, grad_input=slope)
        return back


class MaxPool:
    """Max-pooling; of several equal maxima the first gets the gradient, as in PyTorch."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        self.window = [layer.kernel_size] * 2, [layer.stride] * 2

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        self.x = x.permute(0, 3, 1, 2)  # as images of B channels, in channels-last order
        out: Tensor
        out, self.chosen = aten.max_pool2d_with_indices(self.x, *self.window)
        return out.permute(0, 2, 3, 1)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        back: Tensor = aten.max_pool2d_with_indices_backward(
            slope.permute(0, 3, 1, 2), self.x, *self.window, [0, 0], [1, 1], False, self.chosen
        )
        return back.permute(0, 2, 3, 1)


class Mean:
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        self.shape = x.shape
        return x.mean((1, 2), keepdim=True)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        return (slope / (self.shape[1] * self.shape[2])).expand(self.shape).contiguous()


class Flatten:
    """Reshapes (C, H, W, B) to (F, B)."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        self.shape = x.shape
        return x.flatten(0, 2)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        return slope.view(self.shape)


class Linear:
    """A dense fully connected layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        self.x = x
        return torch.addmm(self.bias.unsqueeze(1), self.weight, x)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        _slope_of(self.weight).addmm_(slope, self.x.t())
        _slope_of(self.bias).add_(slope.sum(1))
        return self.weight.t() @ slope


class Chain:
    """Layers in sequence."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        for layer in reversed(self.layers):
            slope = layer.backward(slope)
        return slope


class Residual:
    """A CIFAR ResNet block: two convolutions in parallel with a parameter-free shortcut."""

    def __init__(self, block: BasicBlock, chain: Chain) -> None:
        self.chain, self.relu, self.stride = chain, Relu(), block.stride
        self.left = block.extra // 2

    def _shown(self, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs that the shortcut reads and the outputs to which it adds them."""
        return x[:, :: self.stride, :: self.stride], out[self.left : self.left + len(x)]

    def forward(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        out = self.chain.forward(x)
        seen, beside = self._shown(x, out)
        beside.add_(seen)
        return self.relu.forward(out)

    def backward(self, slope: Tensor) -> Tensor:
        """See `Layer`."""
        slope = self.relu.backward(slope)
        back = self.chain.backward(slope)
        seen, beside = self._shown(back, slope)
        seen.add_(beside)
        return back


# ---------------------------------------------------------------- which nets, and their layers


class SparseConvnet:
    """A convnet on its own buffers: fills `net.grads`; gradients of removed weights stay 0."""

    def __init__(self, net: Net, mask: Mapping[str, Tensor]) -> None:
        self.net, self._mask, self._places = net, mask, net.places()
        self._names = {module: name for name, module in net.model.named_modules()}
        self._first = next(m for m in net.model.modules() if isinstance(m, nn.Conv2d))
        self.layers = self._chain([net.model])

    def _chain(self, modules: Iterable[nn.Module]) -> Chain:
        return Chain([self._layer(module) for module in modules])

    def _layer(self, module: nn.Module) -> Layer:
        if isinstance(module, BasicBlock):
            return Residual(module, self._chain(module.chain()))
        if isinstance(module, models.Net | nn.Sequential):
            return self._chain(module.children())
        if isinstance(module, nn.Conv2d):
            name = f"{self._names[module]}.weight"
            keep = kept(self.net.model, self._mask, name)
            return Conv(module, self.net, keep, self._places[name], module is self._first)
        return SIMPLE[type(module)](module)

    @torch.no_grad()
    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the gradients and return loss () and logits (B, C) of images (B, C, H, W)."""
        self.net.grads.zero_()
        logits = self.layers.forward(x.permute(1, 2, 3, 0).contiguous())
        losses, slope = loss_and_slope(logits.unsqueeze(0), y, 1)
        self.layers.backward(slope[0])
        return losses[0], logits.t()


SIMPLE: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.BatchNorm2d: Norm,
    nn.ReLU: lambda _: Relu(),
    nn.MaxPool2d: MaxPool,
    nn.AdaptiveAvgPool2d: lambda _: Mean(),
    nn.Flatten: lambda _: Flatten(),
    nn.Linear: Linear,
}


def not_sparse(model: nn.Module, mask: Mapping[str, Tensor] | None, runtime: Runtime) -> str:
    """Return why a convnet cannot compute on its surviving weights only, or ''."""
    if runtime.precision == "bf16" or runtime.compile:
        return "this path has neither bf16 nor compile"
    if not gpu.prefers_written_products(gpu.choose_device(runtime.device)):
        return "sparse products are for the CPU"
    if mask is None:
        return "the job has no mask"
    if not (isinstance(model, models.Net) and any(isinstance(m, nn.Conv2d) for m in leaves(model))):
        return "the model is not a convnet of this bench"
    strange = [module for module in leaves(model) if not is_written(module)]
    return f"{type(strange[0]).__name__} is not written out" if strange else ""


def leaves(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a net in order, without the shortcuts of blocks."""
    inner = isinstance(module, models.Net | nn.Sequential | BasicBlock)
    return [leaf for child in module.children() for leaf in leaves(child)] if inner else [module]


def is_written(layer: nn.Module) -> bool:
    """Return whether this module implements the layer with its settings."""
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return plain and not isinstance(layer.padding, str)
    if isinstance(layer, nn.BatchNorm2d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    if isinstance(layer, nn.MaxPool2d):
        square = isinstance(layer.kernel_size, int) and isinstance(layer.stride, int)
        return square and (layer.padding, layer.dilation, layer.ceil_mode) == (0, 1, False)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1))
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in SIMPLE and getattr(layer, "bias", True) is not None


def products(model: nn.Module, mask: Mapping[str, Tensor], shape: Shape) -> tuple[int, int]:
    """Return the weight-input products of one image's forward pass: of survivors, and of all."""
    weights = [name for name in mask if name.endswith("weight")]
    densities = {name: float(mask[name].float().mean()) for name in weights}
    flops = models.flops(model, shape, densities), models.flops(model, shape)
    return flops[0] // 2, flops[1] // 2
