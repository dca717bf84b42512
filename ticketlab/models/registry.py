"""Architectures by name, and how a network is built from one.

Every network is a `body`, which maps images (B, C, H, W) to features (B, F), followed by a `head`,
one Linear layer. Body and head are drawn from separate seeds, so that the same seed gives the same
body for any number of classes (COLT puts different heads on one initial body).
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ticketlab import plugins
from ticketlab.models.inits import begin, draw
from ticketlab.models.layers import head
from ticketlab.models.plain import Body, Shape, conv3, conv3_strided, conv_fc, lenet, mlp, vgg16
from ticketlab.models.residual import mobilenet_v2, resnet, resnet18
from ticketlab.spec import InputError, Registry, Spec

Init = Literal["default", "kaiming_normal", "xavier_normal", "kaiming_fan_out", "vgg"]


def _checked_name(name: str) -> str:
    architecture(name)
    return name


class ModelSpec(Spec):
    """An architecture by name. Options left at None are as in the paper that uses it.

    name: one of MODELS, or a plug-in `my_module:function` (see `architecture`); width: base width,
    from which all others follow; depth: hidden layers of an `mlp`; conv_bias: whether convolutions
    have biases; init: how weights are drawn (`INITS`).
    Setting an option that the architecture does not have is an error.
    """

    name: Annotated[str, AfterValidator(_checked_name)]
    width: int | None = Field(default=None, gt=0)
    depth: int | None = Field(default=None, gt=0)
    conv_bias: bool | None = None
    init: Init | None = None


@dataclass(frozen=True)
class Architecture:
    """Body function, initialisation, smallest image, and the options with their defaults."""

    body: Callable[..., Body]
    init: str
    smallest: int = 1
    options: Mapping[str, int | bool] = field(default_factory=dict)


MODELS: Registry[str, Architecture] = {
    "lenet_300_100": Architecture(lenet, "xavier_normal"),
    "mlp": Architecture(mlp, "kaiming_normal", options={"width": 100, "depth": 3}),
    "conv2": Architecture(partial(conv_fc, stages=1), "xavier_normal", 2, {"width": 64}),
    "conv4": Architecture(partial(conv_fc, stages=2), "xavier_normal", 4, {"width": 64}),
    "conv6": Architecture(partial(conv_fc, stages=3), "xavier_normal", 8, {"width": 64}),
    "conv3": Architecture(conv3, "default", 8, {"width": 64, "conv_bias": True}),
    "conv3_strided": Architecture(
        conv3_strided, "kaiming_normal", options={"width": 8, "conv_bias": False}
    ),
    "resnet8": Architecture(partial(resnet, blocks=1), "kaiming_normal", 1, {"width": 16}),
    "resnet20": Architecture(partial(resnet, blocks=3), "kaiming_normal", 1, {"width": 16}),
    "resnet56": Architecture(partial(resnet, blocks=9), "kaiming_normal", 1, {"width": 16}),
    "resnet18": Architecture(partial(resnet18, imagenet=False), "default"),
    "resnet18_imagenet": Architecture(partial(resnet18, imagenet=True), "kaiming_fan_out"),
    "vgg16": Architecture(partial(vgg16, norm=False), "kaiming_normal", 16, {"width": 64}),
    "vgg16_bn": Architecture(partial(vgg16, norm=True), "vgg", 16, {"width": 64}),
    "mobilenet_v2": Architecture(mobilenet_v2, "default"),
}


TAKES = ("shape",)
"""Positional arguments of a plug-in; options follow by keyword."""
OPTIONS = ("width", "depth", "conv_bias")


def architecture(name: str) -> Architecture:
    """Return the architecture of this name: one of MODELS, or a plug-in `my_module:function`.

    A plug-in is called like the built-in bodies: with the shape (C, H, W) of an image, and by
    keyword those of OPTIONS that it declares, each with a default. It returns the body, a module
    from images (B, C, H, W) to features (B, F), and F. Convolutions and Linear layers are then
    drawn as `init` specifies. Raises InputError with the problem and what is allowed.
    """
    found = plugins.choose(name, MODELS, TAKES)
    if isinstance(found, Architecture):
        return found
    given = inspect.signature(found).parameters
    options = {option: given[option].default for option in OPTIONS if option in given}
    for option, default in options.items():
        if not isinstance(default, int):
            wrong = f"the default of its {option} is {default!r}"
            raise InputError(f"{wrong}, allowed is a whole number or a bool")
    return Architecture(found, "default", options=options)


def check(spec: ModelSpec, shape: Shape | None = None) -> None:
    """Raise InputError unless the name, its options and (if given) the image size fit."""
    try:
        chosen = architecture(spec.name)
    except InputError as error:
        raise InputError(f"model.name = {spec.name!r}: {error}") from None
    for option in OPTIONS:
        value = getattr(spec, option)
        if value is not None and option not in chosen.options:
            allowed = ", ".join(name for name, a in MODELS.items() if option in a.options)
            raise InputError(
                f"model.{option} = {value!r}: {spec.name} does not have it; only {allowed} do"
            )
    if shape is not None and min(shape[1:]) < chosen.smallest:
        size = chosen.smallest
        raise InputError(
            f"model.name = {spec.name!r}: images of {shape[1]}x{shape[2]} are too small for its "
            f"pools; at least {size}x{size} pixels are needed"
        )
    if shape is not None and plugins.is_plugin(spec.name):
        _check_body(spec, chosen, shape)


def _options(spec: ModelSpec, chosen: Architecture) -> dict[str, Any]:
    """Return the options with which the body is built."""
    given = {o: v for o in chosen.options if (v := getattr(spec, o)) is not None}
    return {**chosen.options, **given}


def _check_body(spec: ModelSpec, chosen: Architecture, shape: Shape) -> None:
    """Raise InputError unless a plug-in builds a body for images of this shape."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            body, features = chosen.body(shape, **_options(spec, chosen))
            made = tuple(body.eval()(torch.zeros(2, *shape)).shape)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"model.name = {spec.name!r}: images of {shape} fail: {reason}") from error
    if made != (2, features):
        raise InputError(
            f"model.name = {spec.name!r}: two images become {made}, allowed is what it says: "
            f"{(2, features)}"
        )


class Net(nn.Module):
    """A body and a linear head; keeps its `init`, so that a new head is drawn the same way."""

    def __init__(self, body: nn.Module, head: nn.Linear, init: str) -> None:
        super().__init__()
        self.body, self.head, self.init = body, head, init

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def build(spec: ModelSpec, shape: Shape, classes: int, seed: int) -> Net:
    """Build a network for images of `shape` (C, H, W): on the CPU, float32, in training mode.

    Equal seeds give equal weights, and an equal body for any number of classes; torch's global
    random state is left untouched. Raises InputError if name, options or image size do not fit.
    """
    check(spec, shape)
    if classes < 1:
        raise InputError(f"classes = {classes}: must be at least 1")
    chosen = architecture(spec.name)
    init = spec.init or chosen.init
    with torch.random.fork_rng(devices=[]):
        begin(seed, "parts")  # for weights that a plug-in draws itself
        body, features = chosen.body(shape, **_options(spec, chosen))
        net = Net(body, nn.Linear(features, classes), init)
        draw(net.body, init, seed, "body")
        draw(net.head, init, seed, "head")
    return net


def with_head(model: nn.Module, classes: int, seed: int) -> nn.Module:
    """Return a deep copy with a new output layer for `classes`; all else is bitwise equal.

    The new head is the one that `build` draws from this seed (COLT 2.2, step 10).
    """
    name = head(model)
    copied = copy.deepcopy(model)
    old = copied.get_submodule(name)
    assert isinstance(old, nn.Linear)
    with torch.random.fork_rng(devices=[]):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        draw(new, getattr(model, "init", "default"), seed, "head")
    copied.set_submodule(name, new.to(old.weight).train(model.training))
    return copied
