"""A model on its device, with weights and gradients in flat buffers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ticketlab import gpu
from ticketlab.gpu import Runtime
from ticketlab.pruning.masks import Mask, State, check_fits
from ticketlab.spec import InputError


class Net:
    """A model on its device, with its parameters and gradients in one flat buffer each.

    Parameters are views into `weights` (n,) and their gradients views into `grads` (n,), so that
    optimiser, mask and rewinding are single operations. With channels_last the convolution weights
    are stored OHWI and viewed as OIHW.
    """

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = gpu.start(runtime)
        named = dict(model.named_parameters())
        self.names = tuple(named)
        self._shapes = tuple(p.shape for p in named.values())
        self.weights = self._gathered([p.detach() for p in named.values()]).to(self.device)
        self.grads = torch.zeros_like(self.weights)
        for parameter, weight, grad in zip(
            named.values(), self._views(self.weights), self._views(self.grads), strict=True
        ):
            parameter.data, parameter.grad = weight, grad
        self.model = model.to(self.device)  # moves the rest: batch-norm's buffers
        self.forward = gpu.compiled(self.model, runtime)

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Return views of a flat buffer (n,), one per parameter, in the parameters' shapes.

        The storage order is defined only here: weights, gradients and masks are written and read
        through these views.
        """
        views = []
        parts = flat.split([shape.numel() for shape in self._shapes])
        for part, shape in zip(parts, self._shapes, strict=True):
            if self.runtime.channels_last and len(shape) == 4:
                outputs, inputs, height, width = shape
                views.append(part.view(outputs, height, width, inputs).permute(0, 3, 1, 2))
            else:
                views.append(part.view(shape))
        return views

    def places(self) -> dict[str, Tensor]:
        """Return each parameter entry's index in `weights`, int64 in the parameter's shape."""
        every = torch.arange(len(self.weights), device=self.device)
        return dict(zip(self.names, self._views(every), strict=True))

    def _gathered(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one flat buffer (n,) with the values of tensors shaped like the parameters."""
        flat = tensors[0].new_empty(sum(shape.numel() for shape in self._shapes))
        for view, tensor in zip(self._views(flat), tensors, strict=True):
            view.copy_(tensor)
        return flat

    def state(self) -> State:
        """Return a copy of all weights, biases and batch-norm state, in the model's own layout."""
        return {
            n: t.detach().clone(memory_format=torch.contiguous_format)
            for n, t in self.model.state_dict().items()
        }

    def rewind(self, state: State, mask: Mask | None = None) -> None:
        """Restore `state` bitwise, batch-norm state included; then zero the removed weights.

        Raises InputError for the state of another net.
        """
        mine = self.model.state_dict()
        check_state("state", state, mine)
        here = gpu.moved(state, self.device)
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(here[name])
        if mask is not None:
            self.weights.mul_(self.flatten(mask))

    def flatten(self, mask: Mask) -> Tensor:
        """Return the mask over `weights` as float32 (n,): 0 for removed weights, else 1."""
        check_fits(mask, self.model)
        mask = mask.to(self.device)
        keep = torch.ones_like(self.weights, dtype=torch.float32)
        for name, view in zip(self.names, self._views(keep), strict=True):
            if name in mask:
                view.copy_(mask[name])
        return keep


def check_state(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise InputError unless a state has the names and shapes of `own`."""
    if differing := sorted(state.keys() ^ own.keys()):
        name, whose = differing[0], "only the state" if differing[0] in state else "only the net"
        raise InputError(
            f"{key}: {name!r} is in {whose}; allowed are the {len(own)} names of the net, "
            f"the state has {len(state)}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            have, want = tuple(tensor.shape), tuple(own[name].shape)
            raise InputError(f"{key}: {name!r} has shape {have}, the net has {want}")
