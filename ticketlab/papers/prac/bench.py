"""The common starting point of a seed's arms in the PrAC study, and tickets at its rewind point."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import DataSet, Images, load
from ticketlab.papers.prac import subsets
from ticketlab.papers.prac.params import PracSetting
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.bench import Bench
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Outcome, Ticket, round_of


@dataclass(frozen=True)
class PracBench(Bench):
    """The bench of a seed, optionally with flipped training labels.

    Its data order may be another than that of all arms (`stage`).
    """

    setting: PracSetting
    stage: str = "train"

    def order(self, stage: str = "train") -> tuple[object, ...]:
        """Return the data order of a training of this seed; see `bench.order`."""
        return super().order(self.stage if stage == "train" else stage)

    @cached_property
    def clean(self) -> DataSet:
        """The data set with its true labels."""
        return load(self.setting.data, self.device, seed=self.seed)

    @cached_property
    def _flipped(self) -> tuple[Tensor, Tensor]:
        seed = ("noise", self.seed)
        return subsets.flip_labels(self.clean.train.y, self.setting.noise, self.clean.classes, seed)

    @cached_property
    def data(self) -> DataSet:
        """The data set used for training, with flipped labels if the setting asks for them."""
        return replace(self.clean, train=Images(self.clean.train.x, self._flipped[0]))

    @property
    def flipped(self) -> Tensor:
        """Indices of the training samples with a flipped label."""
        return self._flipped[1]

    @property
    def rewind_steps(self) -> int:
        """Optimiser steps to the rewind point."""
        recipe, rewind = self.setting.recipe, self.setting.rewind
        return imp.rewind_cost(recipe, len(self.data.train), rewind)[0]

    @property
    def per_epoch(self) -> int:
        """Iterations per epoch on all training samples."""
        return self.setting.recipe.iterations(len(self.data.train))[0]

    def everything(self) -> Tensor:
        """Return the indices of all training samples."""
        return torch.arange(len(self.data.train), device=self.device)


def rewound(dense: Ticket | None, device: torch.device) -> State | None:
    """Return the rewind point stored in an unpruned ticket."""
    return None if dense is None or dense.weights is None else gpu.moved(dense.weights, device)


def rewound_ticket(
    bench: Bench,
    arm: str,
    name: str,
    mask: Mask,
    weights: State | None,
    outcome: Outcome | None = None,
) -> Ticket:
    """Make the ticket of a round, called round-NN, that was trained under its mask."""
    origin: dict[str, Any] = {"paper": "prac", "arm": arm, "round": round_of(name)}
    return bench.ticket(mask, weights, outcome=outcome, **origin)
