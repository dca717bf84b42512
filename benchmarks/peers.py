"""The peers' loops, rewritten to do the same work per image, step and mask as the originals.

Each loop does one epoch and returns its images. Progress bars, logs, plots and checkpoints of the
originals are left out, which favours the peers.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ticketlab.data.sets import Images
from ticketlab.pruning.masks import Mask

# ---------------------------------------------------------------- loading


class PilImages(Dataset[tuple[Any, int]]):
    """Like torchvision's sets: a PIL image and a chain of transforms per image and epoch."""

    def __init__(self, images: Images, pad: int) -> None:
        from torchvision import transforms  # slow to import, and only needed here

        self.pixels = images.x.permute(0, 2, 3, 1).numpy()
        self.labels = images.y.tolist()
        size, channels = images.x.shape[2:], images.x.shape[1]
        changes = [transforms.RandomCrop(size, padding=pad), transforms.RandomHorizontalFlip()]
        ready = [transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.25,) * channels)]
        self.transform = transforms.Compose([*(changes if pad else []), *ready])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = self.pixels[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), self.labels[index]


def pil_loader(images: Images, batch: int, pad: int = 0, workers: int = 0) -> DataLoader[Any]:
    """A shuffling DataLoader over PIL images, crop and flip where `pad`."""
    return DataLoader(PilImages(images, pad), batch, shuffle=True, num_workers=workers)


def tensor_loader(images: Images, batch: int) -> DataLoader[Any]:
    """TensorDataset and DataLoader: float images in memory, collated one by one."""
    x = (images.x.float() / 255 - 0.5) / 0.25
    return DataLoader(TensorDataset(x, images.y), batch, shuffle=True)


def masked_copies(images: Images, batch: int, pad: int) -> Iterable[tuple[Tensor, Tensor]]:
    """As airbench: crop the whole epoch at once, one masked copy per shift, then flip."""
    x = functional.pad(images.x.float() / 255, (pad,) * 4, mode="reflect")
    height, width = images.x.shape[2:]
    shifts = torch.randint(-pad, pad + 1, (len(x), 2), device=x.device)
    rows = x.new_empty(len(x), x.shape[1], height, x.shape[3])
    for shift in range(-pad, pad + 1):
        chosen = shifts[:, 0] == shift
        rows[chosen] = x[chosen, :, pad + shift : pad + shift + height]
    out = x.new_empty(len(x), x.shape[1], height, width)
    for shift in range(-pad, pad + 1):
        chosen = shifts[:, 1] == shift
        out[chosen] = rows[chosen, :, :, pad + shift : pad + shift + width]
    flip = (torch.rand(len(out), device=x.device) < 0.5).view(-1, 1, 1, 1)
    out = torch.where(flip, out.flip(-1), out)
    order = torch.randperm(len(out), device=x.device)
    for index in order.split(batch):
        yield (out[index] - 0.5) / 0.25, images.y[index]


def drain(loader: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Load an epoch and do nothing with it."""
    return float(sum(len(y) for _, y in loader))


# ---------------------------------------------------------------- one epoch, by masking style


def before_forward(model: nn.Module, loader: Iterable[Any], mask: Mask) -> float:
    """open_lth: every weight times its mask before each forward pass."""

    def masked() -> None:
        for name, parameter in model.named_parameters():
            if name in mask:
                parameter.data *= mask[name]

    return _epoch(model, loader, before=masked)


def pruned_modules(model: nn.Module, loader: Iterable[Any], mask: Mask) -> float:
    """PrAC: torch.nn.utils.prune multiplies in a hook at each forward pass."""
    model = deepcopy(model)
    for name, keep in mask.items():
        owner, _, kind = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(owner), kind, keep)
    return _epoch(model, loader)


def gradient_where(model: nn.Module, loader: Iterable[Any], mask: Mask) -> float:
    """COLT: gradients of weights that are (about) zero are replaced by zero after each backward."""
    with torch.no_grad():
        for name, keep in mask.items():
            model.get_parameter(name).mul_(keep)

    def frozen() -> None:
        for name, parameter in model.named_parameters():
            if "weight" in name and parameter.grad is not None:
                there = parameter.data.abs() >= 1e-6
                parameter.grad.data = torch.where(there, parameter.grad.data, 0.0)

    return _epoch(model, loader, between=frozen)


def module_walk(model: nn.Module, loader: Iterable[Any], mask: Mask) -> float:
    """DLTH: all modules are walked after each step, and masked weights multiplied."""

    def masked() -> None:
        for name, module in model.named_modules():
            if f"{name}.weight" in mask:
                module.weight.data.mul_(mask[f"{name}.weight"])

    return _epoch(model, loader, after=masked)


Style = Callable[[nn.Module, Iterable[Any], Mask], float]

STYLES: dict[str, Style] = {
    "mask before forward": before_forward,
    "nn.utils.prune": pruned_modules,
    "gradient where": gradient_where,
    "module walk": module_walk,
}


def _nothing() -> None:
    pass


def _epoch(
    model: nn.Module,
    loader: Iterable[Any],
    before: Callable[[], None] = _nothing,
    between: Callable[[], None] = _nothing,
    after: Callable[[], None] = _nothing,
) -> float:
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    model.train()
    count = 0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        before()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        between()
        optimizer.step()
        after()
        count += len(y)
    return float(count)


# ---------------------------------------------------------------- many nets by torch.func


class Ensemble:
    """torch.func's ensembling: vmap over stacked parameters, one fused SGD, masks after it."""

    def __init__(self, nets: Sequence[nn.Module], masks: Sequence[Mask]) -> None:
        self.parameters, self.buffers = stack_module_state(list(nets))
        base = deepcopy(nets[0]).to("meta")

        def loss(parameters: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(functional_call(base, (parameters, buffers), (x,)), y)

        self.gradients = vmap(grad(loss), in_dims=(0, 0, 0, 0))
        self.keep = {n: torch.stack([m[n] for m in masks]).float() for n in masks[0]}
        leaves = list(self.parameters.values())
        self.optimizer = torch.optim.SGD(leaves, 0.01, momentum=0.9, fused=True)

    def step(self, x: Tensor, y: Tensor) -> float:
        """One step of all nets on x (K, B, ...), y (K, B); the images seen."""
        slopes = self.gradients(self.parameters, self.buffers, x, y)
        for name, parameter in self.parameters.items():
            parameter.grad = slopes[name].detach()
        self.optimizer.step()
        with torch.no_grad():
            for name, keep in self.keep.items():
                self.parameters[name].mul_(keep)
        return float(y.numel())


# ---------------------------------------------------------------- Plant 'n' Seek's small nets


class MaskedLinear(nn.Linear):
    """A layer that multiplies weights and biases by masks in every forward pass."""

    def __init__(self, inputs: int, outputs: int, density: float) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("weight_mask", (torch.rand(outputs, inputs) < density).float())
        self.register_buffer("bias_mask", torch.ones(outputs))

    weight_mask: Tensor
    bias_mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.weight_mask, self.bias * self.bias_mask)


class Subnet(torch.autograd.Function):
    """Edge-popup's choice by sorting all scores; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, density: float) -> Tensor:
        """1 for the share of highest scores, 0 for the others."""
        chosen = scores.clone()
        _, order = scores.flatten().sort()
        removed = int((1 - density) * scores.numel())
        flat = chosen.flatten()
        flat[order[:removed]] = 0
        flat[order[removed:]] = 1
        return chosen

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """Pass the gradient on unchanged."""
        return slopes[0], None


class PoppedLinear(nn.Linear):
    """A frozen layer whose scores choose weights and biases in every forward pass."""

    def __init__(self, inputs: int, outputs: int, density: float) -> None:
        super().__init__(inputs, outputs)
        self.density = density
        self.weight_scores = nn.Parameter(torch.rand(outputs, inputs))
        self.bias_scores = nn.Parameter(torch.rand(outputs))
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = Subnet.apply(self.weight_scores.abs(), self.density)
        bias: Any = Subnet.apply(self.bias_scores.abs(), self.density)
        return functional.linear(x, self.weight * weight, self.bias * bias)


def small_net(kind: type[nn.Module], shape: Sequence[int], density: float) -> nn.Sequential:
    """A ReLU MLP of such layers."""
    pairs = list(pairwise(shape))
    layers = [[kind(a, b, density), nn.ReLU()] for a, b in pairs]
    return nn.Sequential(*[layer for pair in layers for layer in pair][:-1])


def planted_epoch(nets: Sequence[nn.Module], x: Tensor, y: Tensor, popup: bool) -> float:
    """Net after net, batches of 32 from a DataLoader, Adam or SGD, the loss read at each step."""
    count = 0
    for net in nets:
        leaves = [p for p in net.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer = torch.optim.Adam(leaves, 1e-3)
        if popup:
            optimizer = torch.optim.SGD(leaves, 0.1, momentum=0.9, weight_decay=5e-4)
        total = 0.0
        for xs, ys in DataLoader(TensorDataset(x, y), 32, shuffle=True):
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(xs), ys)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(xs)
            count += len(xs)
    return float(count)


# ---------------------------------------------------------------- scores as their authors take them


def grasp(model: nn.Module, mask: Mask, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """First the gradient, then a second forward pass whose gradient is differentiated again.

    Batch-norm as in evaluation, as ours, so that scores can be compared.
    """
    training = model.training
    model.eval()
    weights = [model.get_parameter(name) for name in mask]
    first = torch.autograd.grad(functional.cross_entropy(model(x) / 200, y), weights)
    loss = functional.cross_entropy(model(x) / 200, y)
    second = torch.autograd.grad(loss, weights, create_graph=True)
    flow = torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
    curved = torch.autograd.grad(flow, weights)
    model.train(training)
    pairs = zip(mask, weights, curved, strict=True)
    return {name: (weight * slope).detach() for name, weight, slope in pairs}


def synflow(
    model: nn.Module, mask: Mask, density: float, rounds: int, shape: Sequence[int]
) -> Mask:
    """Signs away and back, masks multiplied, all scores joined and a kthvalue, in every round.

    float64, as ours, so that masks can be compared. The originals also load a batch of images in
    each round to read its shape; that is left out.
    """
    model = deepcopy(model).double().eval()
    keep = {name: layer.double() for name, layer in mask.items()}
    for turn in range(1, rounds + 1):
        scores = _flow_scores(model, keep, shape)
        flat = torch.cat([score.flatten() for score in scores.values()])
        removed = int((1 - density ** (turn / rounds)) * flat.numel())
        if removed:
            threshold = torch.kthvalue(flat, removed).values
            zero, one = flat.new_tensor(0.0), flat.new_tensor(1.0)
            keep = {n: torch.where(score <= threshold, zero, one) for n, score in scores.items()}
    return Mask({name: layer.bool() for name, layer in keep.items()})


def _flow_scores(
    model: nn.Module, keep: dict[str, Tensor], shape: Sequence[int]
) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        signs = {name: parameter.sign() for name, parameter in parameters.items()}
        for parameter in parameters.values():
            parameter.abs_()
    masked = {n: p * keep[n] if n in keep else p for n, p in parameters.items()}
    model.zero_grad()
    functional_call(model, masked, (torch.ones(1, *shape, dtype=torch.float64),)).sum().backward()
    scores = {}
    with torch.no_grad():
        for name in keep:
            slope = parameters[name].grad
            assert slope is not None
            scores[name] = (slope * parameters[name]).abs()
        for name, parameter in parameters.items():
            parameter.mul_(signs[name])
    return scores
