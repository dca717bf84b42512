"""Compaction: remove channels and neurons that have no path to the output, and expand again.

All outgoing weights of such units are removed, so they get no gradient, and every other weight
trains as in the whole net. Not bitwise equal: summation order differs. Units without inputs stay,
because their biases still train.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ticketlab import models
from ticketlab.models import Shape
from ticketlab.pruning.masks import Mask, State, check_fits
from ticketlab.spec import InputError
from ticketlab.training.recipe import Recipe, learning_rate, make_optimizer

Rows = Mapping[str, Tensor]
"""The indices of each layer's outputs that stay, in order, by the layer's name."""


@dataclass(frozen=True)
class Stage:
    """The name of a layer of weights, and of the batch-norm on its outputs if there is one."""

    layer: str
    norm: str | None = None


@dataclass(frozen=True)
class Compacted:
    """The smaller net with its mask; `places` maps its tensors to positions in the whole net's.

    `flops` are those of one image's forward pass, before and after.
    """

    model: nn.Module
    mask: Mask
    places: Mapping[str, tuple[Tensor | None, Tensor | None]]
    flops: tuple[int, int]

    @property
    def gain(self) -> float:
        """Factor by which the FLOPs shrink."""
        return self.flops[0] / self.flops[1]

    def shrink(self, state: Mapping[str, Tensor]) -> State:
        """Return the smaller net's part of a whole net's tensors."""
        return {name: _part(tensor, self._place(name)).clone() for name, tensor in state.items()}

    def expand(
        self,
        small: State,
        start: State,
        mask: Mask,
        recipe: Recipe,
        images: int,
        until: int | None = None,
    ) -> State:
        """Return the whole net's state after the smaller net was trained from `start` to `small`.

        Removed parameters take the optimiser's steps with their true gradient, 0. Only the
        batch-norm statistics of removed channels, which nothing reads, stay as at the start.
        """
        whole = {name: tensor.clone() for name, tensor in start.items()}
        for name, keep in mask.items():
            whole[name] *= keep.to(whole[name].device)
        _idle(whole, self._left_out(start), recipe, images, until)
        for name, tensor in small.items():
            _put(whole[name], self._place(name), tensor)
        return whole

    def _place(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        return self.places.get(name, (None, None))

    def _left_out(self, start: State) -> dict[str, Tensor]:
        """Return the entries that the smaller net lacks: bool by parameter."""
        found = {}
        for name in dict(self.model.named_parameters()):
            if name in self.places:
                left = torch.ones_like(start[name], dtype=torch.bool)
                _put(left, self._place(name), torch.tensor(False))
                found[name] = left
        return found


def compact(
    model: nn.Module, mask: Mask, shape: Shape, least: float = 1.2, multiple: int = 1
) -> Compacted | None:
    """Return the model without units that have no path to the output.

    Returns None if this saves less than a factor `least` of the FLOPs on images of `shape`. Plain
    nets shrink everywhere, residual ones inside their blocks. Widths are rounded up to a
    `multiple`. Raises InputError for a mask that does not fit and for grouped convolutions.
    """
    check_fits(mask, model)
    small = copy.deepcopy(model)
    rows: Rows = {}
    columns: Rows = {}
    for chain in _chains(model):
        kept, used = _survivors(model, mask, chain, multiple)
        rows, columns = {**rows, **kept}, {**columns, **used}
    places = _places(model, rows, columns)
    for name, tensor in model.state_dict().items():
        if name in places:
            _set(small, name, _part(tensor, places[name]))
    flops = models.flops(model, shape), models.flops(small, shape)
    if flops[0] < least * flops[1]:
        return None
    kept_mask = {n: _part(k, places.get(n, (None, None))).clone() for n, k in mask.items()}
    return Compacted(small, Mask(kept_mask), places, flops)


# ---------------------------------------------------------------- which layer feeds which

PASSING = (nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
"""Modules that treat each channel separately."""


def _chains(model: nn.Module) -> list[list[Stage]]:
    """Return runs of layers that each feed only the next; the last of a run keeps its outputs."""
    blocks = [name for name, m in model.named_modules() if type(m).__name__.endswith("BasicBlock")]
    if blocks:
        return [[Stage(f"{b}.conv1", f"{b}.bn1"), Stage(f"{b}.conv2")] for b in blocks]
    if not (isinstance(model, models.Net) and isinstance(model.body, nn.Sequential)):
        raise InputError(f"compact: {type(model).__name__} is not a net of this bench")
    return [list(_stages(model.body, model.head))]


def _stages(body: nn.Sequential, head: nn.Linear) -> Iterator[Stage]:
    waiting: Stage | None = None
    for name, module in [*body.named_children(), ("", head)]:
        path = f"body.{name}" if name else "head"
        if isinstance(module, nn.BatchNorm2d) and waiting:
            waiting = Stage(waiting.layer, path)
        elif isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1
        ):
            if waiting:
                yield waiting
            waiting = Stage(path)
        elif not isinstance(module, PASSING):
            raise InputError(f"compact: {path} is a {type(module).__name__}, which cannot shrink")
    assert waiting is not None
    yield waiting


def _survivors(
    model: nn.Module, mask: Mask, chain: list[Stage], multiple: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the outputs that stay of each layer and its norm, and the next layer's inputs."""
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    alive = torch.ones(len(model.get_parameter(f"{chain[-1].layer}.weight")), dtype=torch.bool)
    for stage, after in zip(reversed(chain[:-1]), reversed(chain), strict=False):
        name = f"{after.layer}.weight"
        whole = torch.ones(model.get_parameter(name).shape, dtype=torch.bool)
        keep = mask[name].cpu() if name in mask else whole
        outputs = len(model.get_parameter(f"{stage.layer}.weight"))
        # a Linear behind a Flatten has several adjacent inputs per channel
        paths = keep[alive].flatten(2) if keep.dim() == 4 else keep[alive].unsqueeze(2)
        alive = _rounded(paths.any(2).any(0).view(outputs, -1).any(1), multiple)
        columns[after.layer] = alive.repeat_interleave(keep.shape[1] // outputs).nonzero()[:, 0]
        for owner in (stage.layer, stage.norm):
            if owner is not None:
                rows[owner] = alive.nonzero()[:, 0]
    return rows, columns


def _rounded(alive: Tensor, multiple: int) -> Tensor:
    """Keep at least one channel; fill up to a multiple with the first dead ones."""
    wanted = min(len(alive), max(1, -(-int(alive.sum()) // multiple)) * multiple)
    dead = (~alive).nonzero()[: wanted - int(alive.sum()), 0]
    return alive.index_fill(0, dead, True)


# ---------------------------------------------------------------- whole tensors and their parts


def _places(
    model: nn.Module, rows: Rows, columns: Rows
) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    places = {}
    for name, tensor in model.state_dict().items():
        owner, _, kind = name.rpartition(".")
        place = (rows.get(owner), columns.get(owner) if kind == "weight" else None)
        if tensor.dim() and place != (None, None):
            places[name] = place
    return places


def _part(tensor: Tensor, place: tuple[Tensor | None, Tensor | None]) -> Tensor:
    for dim, kept in enumerate(place):
        if kept is not None:
            tensor = tensor.index_select(dim, kept.to(tensor.device))
    return tensor


def _put(whole: Tensor, place: tuple[Tensor | None, Tensor | None], part: Tensor) -> None:
    """Write `part` to its place in `whole`."""
    rows, columns = (None if kept is None else kept.to(whole.device) for kept in place)
    if columns is None:
        whole[... if rows is None else rows] = part
    elif rows is None:
        whole[:, columns] = part
    else:
        whole[rows[:, None], columns] = part


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer, and set the new width in its module."""
    path, _, kind = name.rpartition(".")
    module = model.get_submodule(path)
    if kind in dict(module.named_parameters(recurse=False)):
        setattr(module, kind, nn.Parameter(tensor.detach().clone()))
    else:
        setattr(module, kind, tensor.clone())
    if kind == "weight":
        widths = ("num_features",) if tensor.dim() == 1 else _WIDTHS[tensor.dim()]
        for width, count in zip(widths, tensor.shape, strict=False):
            setattr(module, width, count)


_WIDTHS = {2: ("out_features", "in_features"), 4: ("out_channels", "in_channels")}


def _idle(
    whole: State, left_out: Mapping[str, Tensor], recipe: Recipe, images: int, until: int | None
) -> None:
    """Apply the training's steps with gradient 0, in place: only weight decay has an effect."""
    if not recipe.weight_decay or not left_out:
        return
    flat = torch.cat([whole[name][left] for name, left in left_out.items()])
    stepper = make_optimizer(recipe, flat, torch.zeros_like(flat))
    per_epoch, total = recipe.iterations(images)
    for iteration in range(total if until is None else until):
        stepper.lr = learning_rate(recipe, iteration, per_epoch, total)
        stepper.step()
    parts = flat.split([int(left.sum()) for left in left_out.values()])
    for (name, left), part in zip(left_out.items(), parts, strict=True):
        whole[name][left] = part
