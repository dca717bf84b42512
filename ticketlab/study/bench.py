"""`Bench`: the common starting point of all arms of a seed, so that they differ in nothing else.

Data set, initial weights, prunable weights, rewinding point and data order follow from a `Setting`
and a seed, in the same way for all papers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch

from ticketlab import gpu, models, progress
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.models import ModelSpec
from ticketlab.pruning.masks import Mask, State, ones
from ticketlab.spec import InputError, Spec
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Outcome, Ticket, make_ticket, network
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe, Step, StepField

Prunable = Literal["conv", "conv_linear", "hidden", "inner"]


class Setting(Spec):
    """One net on one data set and its training; papers add the fields that decide their units."""

    data: DataSpec
    model: ModelSpec
    prunable: Prunable = "conv"
    recipe: Recipe
    rewind: StepField = Step(0, "it")
    """The point of dense training to which searches rewind."""
    runtime: Runtime = Runtime()

    @classmethod
    def of(cls, params: Spec, *used: str, **changes: Any) -> Self:
        """Return the setting that a study's parameters describe, as the arguments of a unit.

        Of a paper's additional fields, only those in `used` are taken; the others keep their
        defaults, so that a unit is not trained again when parameters change that do not decide it.
        """
        names = {*Setting.model_fields, *used} & set(type(params).model_fields)
        return cls(**{name: getattr(params, name) for name in names} | changes)


def order(seed: int, stage: str = "train") -> tuple[object, ...]:
    """Return the seed parts of a training's data order and augmentation, equal for all arms.

    A training that should see another order names its `stage`: a copy of COLT, RST's
    transformation.
    """
    return (seed, stage)


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and data order of one seed in one setting."""

    setting: Setting
    seed: int

    @cached_property
    def device(self) -> torch.device:
        """The device on which all tensors of this seed lie."""
        return gpu.start(self.setting.runtime)

    @cached_property
    def data(self) -> DataSet:
        """The data set with this seed's split, resident on the device."""
        return load(self.setting.data, self.device, seed=self.seed)

    def model(self, stream: str = "init", classes: int | None = None) -> torch.nn.Module:
        """Return the model at its initial weights, on the CPU; another stream is another draw.

        Models with any number of classes share the weights of the body, but not those of the head.
        """
        seed = gpu.derive_seed(self.seed, stream)
        shape, full = self.data.shape, self.data.classes
        model: torch.nn.Module = models.build(self.setting.model, shape, full, seed)
        if classes is not None and classes != full:
            model = models.with_head(model, classes, gpu.derive_seed(self.seed, stream, "head"))
        drawn = model.state_dict()
        model.load_state_dict(gpu.perturbed(drawn, self.setting.runtime, self.seed))
        return model

    def net(self, stream: str = "init", classes: int | None = None) -> Net:
        """Return `model` on the device."""
        return Net(self.model(stream, classes), self.setting.runtime)

    @cached_property
    def dense(self) -> Mask:
        """The mask that keeps all prunable weights, on the device."""
        net = self.net()
        mask = ones(net.model, models.prunable(net.model, self.setting.prunable))
        if not len(mask):
            name = self.setting.model.name
            raise InputError(f"prunable: {self.setting.prunable!r} names no weight of {name!r}")
        return mask

    def theta(self, net: Net) -> State:
        """Return the rewinding point of a net: its initial weights, or those `rewind` steps later.

        Includes batch-norm state. A head narrower than the full one keeps its initial weights,
        because these steps are trained with the full head, from the net's own weights.
        """
        start = net.state()
        if self.setting.rewind.value == 0:
            return start
        full = self.net()
        full.rewind(_grafted(full.state(), start))
        return _grafted(start, self.later(self.setting.rewind, full))

    def later(self, at: Step, net: Net | None = None) -> State:
        """Return the weights after the first steps of dense training; `net` is left unchanged."""
        data, recipe = self.data, self.setting.recipe
        return imp.rewind_state(net or self.net(), data.train, data, recipe, at, self.order())

    def order(self, stage: str = "train") -> tuple[object, ...]:
        """Return the seed parts of a training's data order; see the function `order`."""
        return order(self.seed, stage)

    def iterations(self, recipe: Recipe | None = None) -> int:
        """Return the optimiser steps of a recipe on all training images."""
        return (recipe or self.setting.recipe).iterations(len(self.data.train))[1]

    def label(self, arm: str, mask: Mask, **more: object) -> None:
        """Set the progress display's label for the training that follows."""
        self.label_at(arm, mask.sparsity, **more)

    def label_at(self, arm: str, sparsity: float, **more: object) -> None:
        """Set the label by a sparsity, when there is no mask yet; see `label`."""
        progress.label(arm=arm, seed=self.seed, sparsity=f"{sparsity:.0%}", **more)

    def ticket(
        self,
        mask: Mask,
        weights: State | None = None,
        pruned_from: Mask | None = None,
        outcome: Outcome | None = None,
        **origin: Any,
    ) -> Ticket:
        """Return a ticket of this seed, with the `weights` it is rewound to and its `outcome`.

        Its net was trained under its own mask or, if given, under the mask it was `pruned_from`.
        """
        facts = network(self.setting.model, self.data)
        return make_ticket(mask, weights, pruned_from, outcome, seed=self.seed, **facts | origin)


def _grafted(onto: State, graft: State) -> State:
    """Return `onto` with the tensors of `graft`, except for a head of another width."""
    return {n: graft[n] if graft[n].shape == own.shape else own for n, own in onto.items()}
