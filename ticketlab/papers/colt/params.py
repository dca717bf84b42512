"""The parameters of the COLT study, and what is refused before anything runs."""

from typing import Annotated, Literal

from pydantic import Field

from ticketlab import models
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.papers.colt import algorithm
from ticketlab.spec import InputError, Spec
from ticketlab.study.bench import Setting
from ticketlab.training.recipe import Fraction, Seeds


class Variant(Spec):
    """One way to overlap: how the data is split, into how many, and how many must agree."""

    split: algorithm.Split = "class"
    partitions: int = Field(default=2, ge=1)
    votes: int = Field(default=0, ge=0)
    """Copies that must keep a weight; 0 means all (COLT), 1 is the union."""
    seeds: int = Field(default=0, ge=0)
    """How many of the study's seeds run it (the first ones); 0 means all."""

    @property
    def needed(self) -> int:
        """Copies that must keep a weight."""
        return self.votes or self.partitions

    @property
    def name(self) -> str:
        """The arm's name in tables, e.g. 'colt-class-2of2'."""
        return f"colt-{self.split}-{self.needed}of{self.partitions}"


class Transfer(Spec):
    """Reuse of tickets on another data set."""

    data: DataSpec
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.8, 0.95)
    seeds: int = Field(default=1, ge=0)
    """How many of the study's seeds transfer (the first ones); 0 means no transfer."""


class ColtSetting(Setting):
    """What decides a unit of the study: a net on a data set, and how its tickets are searched."""

    rate: Fraction = 0.2
    """Fraction of the remaining weights that each copy prunes a round."""
    imp_rate: Fraction = 0.2
    target: Fraction = 0.95
    """The search ends at this sparsity of the prunable weights."""
    max_rounds: int = Field(default=30, ge=1)
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (
        0.5,
        0.8,
        0.9,
        0.95,
    )
    """Sparsities at which tickets are retrained and compared (the nearest round of each arm)."""
    prune_from: Literal["last", "validation"] = "last"
    """Which weights are pruned: of the last epoch, or of the best on validation."""
    authors_metric: bool = False
    """Also record the best test accuracy over epochs, as the authors report (selects on test)."""


class ColtParams(ColtSetting):
    """All parameters of the COLT study."""

    seeds: Seeds
    partitions: int = Field(default=2, ge=1)
    ablations: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    transfer: Transfer

    @property
    def main(self) -> tuple[Variant, Variant]:
        """The paper's class split, and the same with randomly dealt images."""
        return (
            Variant(split="class", partitions=self.partitions),
            Variant(split="random", partitions=self.partitions),
        )

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every way to overlap that the study runs."""
        return (*self.main, *self.ablations)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """The seeds that run a variant."""
        return self.seeds[: variant.seeds or len(self.seeds)]


def check(params: ColtParams) -> None:
    """Refuse what only shows across parameters and data; InputError names the key."""
    models.check(params.model)
    data, target = load(params.data), load(params.transfer.data)
    models.check(params.model, data.shape)
    check_head(params, data)
    if target.shape != data.shape:
        allowed = f"allowed is {data.shape}, as in data"
        raise InputError(f"transfer.data: images of shape {target.shape}, {allowed}")
    if params.prune_from == "validation" and not len(data.validation):
        raise InputError("prune_from: 'validation' needs data.validation above 0")
    params.recipe.check(len(data.train), params.rewind)
    names = [check_variant(variant, data.classes).name for variant in params.variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"ablations: {twice[0]} is there twice, allowed is once")


def check_head(params: ColtParams, data: DataSet) -> None:
    """The output layer is never pruned: copies that see some of the classes have one of their own.

    Linear layers, batch-norm and biases are never pruned in the paper (2.2): `prunable: conv`.
    """
    model = models.build(params.model, data.shape, data.classes, 0)
    if f"{models.head(model)}.weight" in models.prunable(model, params.prunable):
        where = f"prunable: {params.prunable!r} prunes the output layer, which is each copy's own"
        raise InputError(f"{where}; allowed: conv, hidden, inner")


def check_variant(variant: Variant, classes: int) -> Variant:
    """The variant, if it can split that many classes and its votes can be had."""
    if variant.split in algorithm.BY_CLASS:
        algorithm.class_blocks(classes, variant.partitions)
    if variant.needed > variant.partitions:
        allowed = f"allowed: 0 to {variant.partitions} (partitions)"
        raise InputError(f"votes: {variant.votes}, {allowed}")
    return variant
