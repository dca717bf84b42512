"""`Bench`: what all arms of a seed start from, so that they differ in nothing else.

Data set, initial weights, prunable weights, rewinding point and data order follow from a `Setting`
and a seed, by one rule for all papers.
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
    """One net on one data set, and how it is trained; papers add what else decides their units."""

    data: DataSpec
    model: ModelSpec
    prunable: Prunable = "conv"
    recipe: Recipe
    rewind: StepField = Step(0, "it")
    """The point of dense training that searches rewind to."""
    runtime: Runtime = Runtime()

    @classmethod
    def of(cls, params: Spec, *used: str, **changes: Any) -> Self:
        """The setting that a study's parameters describe, as the arguments of a unit.

        Of what a paper adds to `Setting` only the fields in `used` are taken, the others have their
        defaults: a unit is not trained again for the sake of parameters that do not decide it.
        """
        names = {*Setting.model_fields, *used} & set(type(params).model_fields)
        return cls(**{name: getattr(params, name) for name in names} | changes)


def order(seed: int, stage: str = "train") -> tuple[object, ...]:
    """What fixes the data order and augmentation of a training: equal for all arms of a seed.

    A training that is to see another order names its `stage`: a copy of COLT, RST's transformation.
    """
    return (seed, stage)


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and data order of one seed in one setting."""

    setting: Setting
    seed: int

    @cached_property
    def device(self) -> torch.device:
        """The device everything of this seed lives on."""
        return gpu.start(self.setting.runtime)

    @cached_property
    def data(self) -> DataSet:
        """The data set as this seed splits it, resident on the device."""
        return load(self.setting.data, self.device, seed=self.seed)

    def model(self, stream: str = "init", classes: int | None = None) -> torch.nn.Module:
        """The architecture at its initial weights, on the CPU; another stream is another draw.

        All head widths share the weights of the body; the head depends on the width.
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
        """`model` on the device."""
        return Net(self.model(stream, classes), self.setting.runtime)

    @cached_property
    def dense(self) -> Mask:
        """All prunable weights kept, on the device."""
        net = self.net()
        mask = ones(net.model, models.prunable(net.model, self.setting.prunable))
        if not len(mask):
            name = self.setting.model.name
            raise InputError(f"prunable: {self.setting.prunable!r} names no weight of {name!r}")
        return mask

    def theta(self, net: Net) -> State:
        """The rewinding point of a net at initial weights: those, or the ones `rewind` later.

        Batch-norm state included. A narrower head stays as it is, for the steps are made with the
        full one, from the net's own weights.
        """
        start = net.state()
        if self.setting.rewind.value == 0:
            return start
        full = self.net()
        full.rewind(_grafted(full.state(), start))
        return _grafted(start, self.later(self.setting.rewind, full))

    def later(self, at: Step, net: Net | None = None) -> State:
        """The weights after the first steps of dense training; the net is left as it was."""
        data, recipe = self.data, self.setting.recipe
        return imp.rewind_state(net or self.net(), data.train, data, recipe, at, self.order())

    def order(self, stage: str = "train") -> tuple[object, ...]:
        """The data order of a training of this seed; see `order`."""
        return order(self.seed, stage)

    def iterations(self, recipe: Recipe | None = None) -> int:
        """Optimiser steps of a recipe on all training images."""
        return (recipe or self.setting.recipe).iterations(len(self.data.train))[1]

    def label(self, arm: str, mask: Mask, **more: object) -> None:
        """Name what is being trained, for the person who waits."""
        self.label_at(arm, mask.sparsity, **more)

    def label_at(self, arm: str, sparsity: float, **more: object) -> None:
        """`label` before there is a mask."""
        progress.label(arm=arm, seed=self.seed, sparsity=f"{sparsity:.0%}", **more)

    def ticket(
        self,
        mask: Mask,
        weights: State | None = None,
        pruned_from: Mask | None = None,
        outcome: Outcome | None = None,
        **origin: Any,
    ) -> Ticket:
        """A ticket of this seed; `weights` are those it is rewound to, `outcome` what it became.

        It was trained under its own mask, or else `pruned_from` the one of the training before.
        """
        facts = network(self.setting.model, self.data)
        return make_ticket(mask, weights, pruned_from, outcome, seed=self.seed, **facts | origin)


def _grafted(onto: State, graft: State) -> State:
    """`onto` with the tensors of `graft`, but for a head of another width."""
    return {n: graft[n] if graft[n].shape == own.shape else own for n, own in onto.items()}
