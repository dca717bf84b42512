"""Parameters of the geometry study and their validation."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from ticketlab import models
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.labels import label
from ticketlab.papers.colt import algorithm as colt
from ticketlab.papers.compare.params import Bed, BedSetting, Searches
from ticketlab.papers.dlth import algorithm as rst
from ticketlab.papers.prac.algorithm import Stop
from ticketlab.spec import InputError, Name, Spec
from ticketlab.study.bench import Prunable
from ticketlab.training.recipe import Fraction, Recipe, Seeds, Step, StepField

Rewinding = Literal["weights", "rates", "finetune"]
"""What each round of magnitude pruning starts from: the rewound weights with the whole schedule;
the trained weights with the whole schedule (learning-rate rewinding); the trained weights at the
last learning rate for as long (finetuning)."""
Matching = Literal["activations", "weights"]

ARMS = ("imp", "colt", "prac", "rst", "random")
"""The methods whose tickets are examined; RST has the random mask and weights of its own."""
LADDERS = ("imp", "colt", "prac")
"""The methods with rounds."""
OTHERS: tuple[Rewinding, ...] = ("rates", "finetune")
"""Those that are not IMP's own."""

ARM: dict[Rewinding, str] = {
    "weights": "imp", "rates": "learning-rate rewinding", "finetune": "finetuning",
}  # fmt: skip
"""The arms of the three rewindings."""
OWN = "own/"
"""Prefix of what belongs to the papers' own beds: names of units, beds of controls."""
STORED = "stored/"
"""Prefix of what belongs to the papers' own stored units: names of units, beds of controls."""
TWICE = "the same ticket on another order of the images"
"""The other end of a line that measures stability to the noise of SGD."""
BEFORE = "the stored round before"
"""The other end of a line between successive stored tickets of a search."""


class Lines(Spec):
    """How error is measured along the straight line between two trained nets."""

    points: int = Field(default=11, ge=3)
    """Evaluations on the line, ends included."""
    images: int = Field(default=2000, ge=1)
    """Test images on which they count errors: the first ones."""
    statistics: int = Field(default=1000, ge=1)
    """Training images on which batch-norm statistics are estimated anew at every point."""
    connected: float = Field(default=2.0, gt=0)
    """Points of error: nets with a barrier of at most this are linearly connected."""


class GeometrySetting(BedSetting):
    """Parameters that decide a unit: a bed, how tickets are found, and how they are examined."""

    lines: Lines = Lines()
    matching: Matching = "activations"


class ColtStored(Spec):
    """What decides COLT's own units beside its bed: IMP prunes at the bed's rate, too."""

    paper: Literal["colt"]
    validation: int | None = Field(default=None, ge=0)
    """Validation images of COLT's study, if not as many as the rewindings use on its bed (null)."""
    partitions: int = Field(default=2, ge=1)
    target: Fraction = 0.95
    """Sparsity of the prunable weights at which the searches end."""
    prune_from: Literal["last", "validation"] = "last"
    authors_metric: bool = False


class PracStored(Spec):
    """What decides PrAC's own units beside its bed (see `PracSetting`)."""

    paper: Literal["prac"]
    rounds: int = Field(default=16, ge=1)
    levels: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    """Rounds whose tickets are stored with their outcome."""
    threshold: int = Field(default=0, ge=0)
    stop: Stop = Stop()
    shorten: Literal["epochs", "iterations"] = "epochs"
    least_iterations: int = Field(default=0, ge=0)
    el2n_epochs: int = Field(default=4, ge=1)
    ccs_cut: float = Field(default=0.1, ge=0, lt=1)


class DlthStored(Spec):
    """What decides DLTH's own units beside its bed, whose recipe finetunes (see `Case`)."""

    paper: Literal["dlth"]
    transform: Recipe
    penalty: rst.Penalty = rst.Penalty()
    looks: int = Field(default=8, ge=1)


OwnUnits = Annotated[ColtStored | PracStored | DlthStored, Field(discriminator="paper")]


class OwnBed(Spec):
    """A paper's own bed: the three rewindings on it, and lines between the paper's own tickets."""

    name: Name
    """The paper."""
    data: DataSpec
    model: models.ModelSpec
    prunable: Prunable = "conv"
    recipe: Recipe
    rewind: StepField = Step(0, "it")
    rate: Fraction = 0.2
    """Fraction of the remaining weights that each round prunes."""
    max_rounds: int = Field(default=30, ge=1)
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
    """Sparsities of the prunable weights, ascending: every rewinding's ticket has exactly one of
    them. Of the paper's own tickets, each arm's nearest one is examined."""
    stored: OwnUnits | None = None
    """How the paper's own study finds its tickets here; null leaves out lines between them."""

    @property
    def title(self) -> str:
        """Return the bed in words, e.g. "PrAC's bed"."""
        return f"{label(self.name)}'s bed"


class GeometryParams(Searches):
    """All parameters of the geometry study."""

    seeds: Seeds
    data: DataSpec
    rewind: StepField = Step(0, "it")
    """The point of dense training to which IMP, COLT and PrAC rewind."""
    swap_rewind: StepField = Step(1, "ep")
    """The point of dense training of another initialisation from which transplanted masks start."""
    beds: Annotated[tuple[Bed, ...], Field(strict=False, min_length=1)]
    own_beds: Annotated[tuple[OwnBed, ...], Field(strict=False)] = ()
    """The papers' own beds, for rewinding and for lines between the papers' own tickets."""
    compared: int = Field(default=2, ge=1)
    """How many of a bed's levels, the lowest first, are examined by lines, transplants and scores;
    the others are its extreme sparsities."""
    lines: Lines = Lines()
    matching: Matching = "activations"
    """What hidden units are matched by when a mask is permuted to another initialisation."""
    severity: int = Field(default=2, ge=1, le=3)
    """Of the corruptions of the test images."""
    runtime: Runtime = Runtime()

    def setting(self, bed: Bed, *used: str) -> GeometrySetting:
        """Return a bed as a unit's argument, with the optional parameters in `used`."""
        names = {"name", "model", "prunable", "levels", "recipe", *used} & set(Bed.model_fields)
        own = {name: getattr(bed, name) for name in names}
        return GeometrySetting.of(self, *(set(used) - names), **own)

    def own_setting(self, bed: OwnBed, *used: str) -> GeometrySetting:
        """Return a paper's own bed as a unit's argument, with the optional parameters in `used`."""
        return GeometrySetting.of(bed, "name", "levels", *used, runtime=self.runtime)

    def judged(self, bed: Bed) -> tuple[float, ...]:
        """Return the levels that are examined; the last of them is that of the transplants."""
        return bed.levels[: self.compared]


def check(params: GeometryParams) -> None:
    """Reject parameters that do not fit each other or the data; InputError names the key."""
    data = load(params.data)
    names = [*(bed.name for bed in params.beds), *(own.name for own in params.own_beds)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"beds and own_beds: {twice[0]!r} is there twice, allowed is once")
    if not len(data.validation):
        raise InputError("data.validation: 0, PrAC selects on it, at least 1 is needed")
    for key, have, what in (("images", len(data.test), "test"),
                            ("statistics", len(data.train), "training")):  # fmt: skip
        wanted = getattr(params.lines, key)
        if wanted > have:
            raise InputError(f"lines.{key}: {wanted}, allowed: 1 to the {have} {what} images")
    colt.class_blocks(data.classes, params.partitions)
    for bed in params.beds:
        check_bed(bed, params, data)
    for own in params.own_beds:
        there = load(own.data)
        if not len(there.validation):
            where = f"own_beds.{own.name}.data.validation"
            raise InputError(f"{where}: 0, epochs are selected on it, at least 1 is needed")
        check_net(f"own_beds.{own.name}", own, there)
        own.recipe.check(len(there.train), own.rewind)


def check_net(where: str, bed: Bed | OwnBed, data: DataSet) -> tuple[nn.Module, tuple[str, ...]]:
    """Reject a net or levels that do not fit; return the net and its prunable weights' names."""
    models.check(bed.model, data.shape)
    if list(bed.levels) != sorted(set(bed.levels)):
        raise InputError(f"{where}.levels: {list(bed.levels)}, allowed are ascending sparsities")
    net = models.build(bed.model, data.shape, data.classes, 0)
    names = models.prunable(net, bed.prunable)
    if not names:
        raise InputError(f"{where}.prunable: {bed.prunable!r} names no weight of {bed.model.name}")
    return net, names


def check_bed(bed: Bed, params: GeometryParams, data: DataSet) -> None:
    """Reject a net, a schedule or levels that do not fit."""
    where, images = f"beds.{bed.name}", len(data.train)
    net, names = check_net(where, bed, data)
    if params.compared > len(bed.levels):
        raise InputError(
            f"compared: {params.compared}, allowed: 1 to the {len(bed.levels)} levels of {where}"
        )
    if f"{models.head(net)}.weight" in names:
        rule = f"{where}.prunable: {bed.prunable!r} prunes the output layer, whose shape is COLT's"
        raise InputError(f"{rule} own; allowed: conv, hidden, inner")
    for step in (params.rewind, params.swap_rewind):
        bed.recipe.check(images, step)
    bed.transform.check(images, Step(0, "it"))
    rst.check_penalty(bed.penalty, bed.transform, bed.transform.iterations(images)[1])
