"""Parameters of the COLT study and their validation."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from ticketlab import models
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.papers.colt import algorithm
from ticketlab.spec import InputError, Spec
from ticketlab.study.bench import Setting
from ticketlab.training.recipe import Fraction, Seeds, Step, StepField

MATCHED = "imp-matched"
"""IMP that prunes exactly as many weights per round as COLT does."""
HALF = "imp-half"
"""IMP with half of COLT's rounds: it visits every second one of COLT's sparsities."""

LATE = "late/"
"""Prefix of the names of all units of the late rewinding point."""

Further = Literal["random", "half"]
"""Searches beside COLT's, IMP's and IMP's at COLT's pace: COLT on segments of random images, and
IMP with half of COLT's rounds."""
Control = Literal["shuffled", "reinit", "magnitude", "random"]
"""Changes to tickets before they are retrained. shuffled: the kept weights of each layer move to
random positions; reinit: the same mask on new initial weights; and two masks of the ticket's size
that need no search: the largest rewound weights, or random ones."""
SEARCHED: tuple[Control, ...] = ("shuffled", "reinit")
"""Controls that need the ticket found by a search; the others only need its size."""


def arm_name(source: str, control: Control | None = None) -> str:
    """Return the name of a search's tickets or of a control, e.g. 'imp-matched-shuffled'."""
    if control is None:
        return source
    return f"{source}-{control}" if control in SEARCHED else control


class Variant(Spec):
    """One kind of overlap: how the data is split, into how many parts, and how many must agree."""

    split: algorithm.Split = "class"
    partitions: int = Field(default=2, ge=1)
    votes: int = Field(default=0, ge=0)
    """Copies that must keep a weight; 0 means all (COLT), 1 is the union."""
    layerwise: bool = False
    """Whether a copy prunes `rate` of each layer instead of all layers together (the paper)."""
    seeds: int = Field(default=0, ge=0)
    """Number of the study's seeds that run it (the first ones); 0 means all."""

    @property
    def needed(self) -> int:
        """Copies that must keep a weight."""
        return self.votes or self.partitions

    @property
    def name(self) -> str:
        """The arm's name in tables, e.g. 'colt-class-2of2'."""
        scope = "-layerwise" if self.layerwise else ""
        return f"colt-{self.split}-{self.needed}of{self.partitions}{scope}"


class Transfer(Spec):
    """Reuse of tickets on another data set."""

    data: DataSpec
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.8, 0.95)
    seeds: int = Field(default=1, ge=0)
    """Number of the study's seeds that transfer (the first ones); 0 means no transfer."""


class Late(Spec):
    """A second rewinding point, after some steps of dense training; not in the paper."""

    rewind: StepField
    imp_seeds: int = Field(default=0, ge=0)
    """Number of seeds that also run IMP at its own rate from this point; 0 means all."""


@dataclass(frozen=True)
class Point:
    """A rewinding point of the study, and the arms that start from it."""

    late: bool
    """Whether it is the second point, which the paper does not have."""
    rewind: Step
    variants: tuple[Variant, ...]
    imp_seeds: tuple[int, ...]
    """The seeds that run IMP at its own rate."""

    @property
    def prefix(self) -> str:
        """Prefix of its units' names."""
        return LATE if self.late else ""


class ColtSetting(Setting):
    """Parameters that decide a unit: a net on a data set, and how its tickets are searched."""

    rate: Fraction = 0.2
    """Fraction of the remaining weights that each copy prunes per round."""
    imp_rate: Fraction = 0.2
    target: Fraction = 0.95
    """Sparsity of the prunable weights at which the search ends."""
    max_rounds: int = Field(default=30, ge=1)
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (
        0.5,
        0.8,
        0.9,
        0.95,
    )
    """Sparsities at which tickets are retrained and compared (the nearest round of each arm)."""
    prune_from: Literal["last", "validation"] = "last"
    """Which weights are pruned: after the last epoch, or after the best on validation."""
    authors_metric: bool = False
    """Also record the best test accuracy over epochs, as the authors report (selects on test)."""


class ColtParams(ColtSetting):
    """All parameters of the COLT study."""

    seeds: Seeds
    partitions: int = Field(default=2, ge=1)
    further: Annotated[tuple[Further, ...], Field(strict=False)] = get_args(Further)
    ablations: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    late: Late | None = None
    transfer: Transfer
    resized: Transfer | None = None
    """Reuse on images of another size, for nets whose weights fit any size."""

    @property
    def main(self) -> tuple[Variant, Variant]:
        """The paper's class split, and the same with randomly distributed images.

        The study runs the second one only if it is in `further`.
        """
        return (
            Variant(split="class", partitions=self.partitions),
            Variant(split="random", partitions=self.partitions),
        )

    @property
    def searched(self) -> tuple[Variant, ...]:
        """Those of `main` that the study runs."""
        return self.main if "random" in self.further else self.main[:1]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every kind of overlap that the study runs."""
        return (*self.searched, *self.ablations)

    @property
    def points(self) -> tuple[Point, ...]:
        """The paper's rewinding point with all variants, and the late one with the main ones."""
        own = Point(False, self.rewind, self.variants, self.seeds)
        if self.late is None:
            return (own,)
        few = self.seeds[: self.late.imp_seeds or len(self.seeds)]
        return own, Point(True, self.late.rewind, self.searched, few)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """Return the seeds that run a variant."""
        return self.seeds[: variant.seeds or len(self.seeds)]


def check(params: ColtParams) -> None:
    """Reject parameters that do not fit each other or the data; InputError names the key."""
    models.check(params.model)
    data = load(params.data)
    models.check(params.model, data.shape)
    check_head(params, data)
    check_target("transfer.data", load(params.transfer.data), params, data)
    if params.resized is not None:
        check_target("resized.data", load(params.resized.data), params, data)
    if params.prune_from == "validation" and not len(data.validation):
        raise InputError("prune_from: 'validation' needs data.validation above 0")
    params.recipe.check(len(data.train), params.rewind)
    check_late(params, data)
    names = [check_variant(variant, data.classes).name for variant in params.variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"ablations: {twice[0]} is there twice, allowed is once")


def check_late(params: ColtParams, data: DataSet) -> None:
    """Check that the second rewinding point is after the first, and within the training."""
    if params.late is None:
        return
    per_epoch, total = params.recipe.iterations(len(data.train))
    first, second = (s.iterations(per_epoch, total) for s in (params.rewind, params.late.rewind))
    if not first < second <= total:
        allowed = f"after rewind ('{params.rewind}') and within the run of {total} iterations"
        raise InputError(f"late.rewind: '{params.late.rewind}', allowed is {allowed}")


def check_target(key: str, target: DataSet, params: ColtParams, data: DataSet) -> None:
    """Check that tickets can move to images of another size, for which weights must fit.

    They do if the net pools globally before its output layer, as the paper's convolutional nets do;
    a net that flattens has separate weights for each position of an image.
    """
    if target.shape == data.shape:
        return
    models.check(params.model, target.shape)
    here, there = (
        {name: tensor.shape for name, tensor in built.named_parameters()}
        for built in (models.build(params.model, d.shape, data.classes, 0) for d in (data, target))
    )
    if other := [name for name, shape in here.items() if there[name] != shape]:
        raise InputError(
            f"{key}: images of shape {target.shape}, for which {other[0]} of {params.model.name} "
            f"has another shape; allowed is {data.shape}, as in data, or, with as many channels, "
            "a net that pools globally"
        )


def check_head(params: ColtParams, data: DataSet) -> None:
    """Check that the output layer is not pruned: copies that see fewer classes have their own.

    The paper never prunes Linear layers, batch-norm and biases (2.2): `prunable: conv`.
    """
    model = models.build(params.model, data.shape, data.classes, 0)
    if f"{models.head(model)}.weight" in models.prunable(model, params.prunable):
        where = f"prunable: {params.prunable!r} prunes the output layer, which is each copy's own"
        raise InputError(f"{where}; allowed: conv, hidden, inner")


def check_variant(variant: Variant, classes: int) -> Variant:
    """Return the variant if it can split that many classes and reach its votes."""
    if variant.split in algorithm.BY_CLASS:
        algorithm.class_blocks(classes, variant.partitions)
    if variant.needed > variant.partitions:
        allowed = f"allowed: 0 to {variant.partitions} (partitions)"
        raise InputError(f"votes: {variant.votes}, {allowed}")
    return variant
