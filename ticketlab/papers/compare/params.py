"""Parameters of the comparison of all papers and their validation."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from ticketlab import models, plugins
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.papers.colt import algorithm as colt
from ticketlab.papers.dlth import algorithm as rst
from ticketlab.papers.dlth.algorithm import Penalty, RstSetting
from ticketlab.papers.prac.algorithm import Shorten, Stop
from ticketlab.pruning import saliency
from ticketlab.spec import InputError, Name, Spec
from ticketlab.study.bench import Prunable
from ticketlab.training.recipe import Fraction, Recipe, Seeds, Step, StepField

Iterative = Literal["imp", "colt", "prac"]
Weights = Literal["init", "rewound", "reinit", "rst", "rst-other"]

ONE_SHOT: tuple[str, ...] = ("random", "magnitude", "snip", "grasp", "synflow")
"""One-shot masks of the initial net (Plant 'n' Seek's criteria)."""
ITERATIVE: tuple[str, ...] = get_args(Iterative)
"""Masks from rounds of training."""
METHODS = (*ONE_SHOT, "imp", "imp-again", "imp-matched", "colt", "prac", "rst")
"""All methods. "imp-again" is IMP from the same weights with another order of the same images;
"imp-matched" is IMP at COLT's pruning rate; "rst" transforms the random mask."""
MASKS = tuple(method for method in METHODS if method != "rst")
"""The methods that have a mask of their own."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
"""Weights in the swap: initial ones, those of later in training, another draw, those that RST
transforms for this mask, and those that RST transforms for the random mask."""


def _checked(name: str, *builtin: str) -> str:
    plugins.choose(name, dict.fromkeys(builtin), saliency.TAKES)
    return name


Criterion = Annotated[str, AfterValidator(_checked)]
"""A plug-in criterion, as `my_module:function`."""
OneShot = Annotated[str, AfterValidator(lambda name: _checked(name, *ONE_SHOT))]
"""One of ONE_SHOT, or a plug-in criterion."""
Swapped = Annotated[
    str, AfterValidator(lambda name: _checked(name, *ONE_SHOT, *ITERATIVE, "imp-shuffled"))
]
"""A mask in the swap: of a method that needs no other method's result, or "imp-shuffled", which
keeps as many weights per layer as IMP's mask, at random positions."""


class Long(Spec):
    """A control: a method's mask, trained once on as many images as another method used in all."""

    mask: OneShot = "random"
    budget: Literal[Iterative, "imp-matched", "rst"] = "imp"

    @property
    def name(self) -> str:
        """The arm's name in tables, e.g. 'random, long as imp'."""
        return f"{self.mask}, long as {self.budget}"


class Searches(Spec):
    """Settings of the searches, the same on every bed."""

    rate: Fraction = 0.2
    """Fraction of the remaining weights that IMP, PrAC and each COLT copy prune per round."""
    partitions: int = Field(default=2, ge=2)
    """Class segments of COLT."""
    max_rounds: int = Field(default=40, ge=1)
    shorten: Shorten = "iterations"
    """How PrAC's smaller sets shorten the schedule."""
    threshold: int = Field(default=0, ge=0)
    """E_F of PrAC: critical samples were forgotten more often than this."""
    probe: int = Field(default=100, ge=1)
    """Training images that SNIP and GraSP score on."""
    synflow_rounds: int = Field(default=100, ge=1)
    swap_rewind: StepField = Step(1, "ep")
    """The point of dense training that gives the swap its "rewound" weights."""


class Pruned(Spec):
    """What is pruned on a bed and how far, and the settings that differ between beds."""

    name: Name
    prunable: Prunable = "hidden"
    """Weights that every method prunes; COLT needs a rule that excludes the output layer."""
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
    """Sparsities of the prunable weights, ascending; every ticket has exactly one of them."""
    stop: Stop = Stop()
    """When a round of PrAC may end early."""
    least_iterations: int = Field(default=0, ge=0)
    """Minimum length of a round of PrAC, planned or ended early."""


class BedSetting(Pruned, Searches, RstSetting):
    """Parameters that decide a unit: a net on a data set, and how its tickets are found."""


class Bed(Pruned):
    """One net and its training: the same for every method, arm and seed."""

    model: models.ModelSpec
    recipe: Recipe
    """Recipe of every search and final training; milestones in % so that longer runs keep shape."""
    transform: Recipe
    """RST's training of the dense net under the growing penalty."""
    penalty: Penalty = Penalty()


class CompareParams(Searches):
    """All parameters of the comparison."""

    seeds: Seeds
    data: DataSpec
    rewind: StepField = Step(0, "it")
    """The point of dense training to which IMP, COLT and PrAC rewind."""
    criteria: Annotated[tuple[Criterion, ...], Field(strict=False)] = ()
    """One-shot masks by plug-in criteria, in addition to those of ONE_SHOT."""
    long: Annotated[tuple[Long, ...], Field(strict=False)] = ()
    """Controls of equal cost, at the highest level."""
    swap_masks: Annotated[tuple[Swapped, ...], Field(strict=False)] = ()
    """Masks that are trained on other weights, at the highest level; empty: no swap."""
    swap_weights: Annotated[tuple[Weights, ...], Field(strict=False)] = WEIGHTS
    """The weights from which they are trained."""
    swap_seeds: int | None = Field(default=None, ge=1)
    """Number of seeds (the first ones) that run the swap; None: all."""
    beds: Annotated[tuple[Bed, ...], Field(strict=False, min_length=1)]
    runtime: Runtime = Runtime()

    @property
    def light(self) -> float:
        """The sparsity after IMP's first round: the level at which pruning should not help yet."""
        return self.rate

    def setting(self, bed: Bed, *used: str) -> BedSetting:
        """Return a bed as a unit's argument, with the optional parameters in `used`."""
        names = {"name", "model", "prunable", "levels", "recipe", *used} & set(Bed.model_fields)
        own = {name: getattr(bed, name) for name in names}
        return BedSetting.of(self, *(set(used) - names), **own)


def one_shot_of(params: CompareParams) -> tuple[str, ...]:
    """Return the study's one-shot methods: the built-in ones and plug-in criteria."""
    return (*ONE_SHOT, *params.criteria)


def methods_of(params: CompareParams) -> tuple[str, ...]:
    """Return all methods of the study."""
    return (*METHODS, *params.criteria)


# ---------------------------------------------------------------- names of units and tickets


def name_of(bed: Bed, what: str, seed: int) -> str:
    """Return the name of a unit; `what` is a method or another training."""
    return f"{bed.name}/{plugins.slug(what)}/seed-{seed}"


def ticket_name(level: float) -> str:
    """Return the name of a level's ticket, e.g. 'level-95' or 'level-97.5'."""
    return f"level-{100 * level:g}"


def own_weights(method: str, rewind: Step) -> str:
    """Name the weights from which a method's tickets start, given the searches' rewind point."""
    if method == "rst":
        return "rst"
    if not rewind.value or method not in (*ITERATIVE, "imp-again", "imp-matched"):
        return "init"
    return "searched again" if method == "imp-again" else "searched"


# ---------------------------------------------------------------- validation


def check(params: CompareParams) -> None:
    """Reject parameters that do not fit each other or the data; InputError names the key."""
    data = load(params.data)
    names = [bed.name for bed in params.beds]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"beds: {twice[0]!r} is there twice, allowed is once")
    if not len(data.validation):
        raise InputError("data.validation: 0, models are selected on it, at least 1 is needed")
    if params.probe > len(data.train):
        raise InputError(f"probe: {params.probe} images, allowed: 1 to {len(data.train)}")
    colt.class_blocks(data.classes, params.partitions)
    check_criteria(params)
    for bed in params.beds:
        check_bed(bed, params, data)


def check_criteria(params: CompareParams) -> None:
    """Reject a criterion that occurs twice, and masks of a criterion that is not in the study."""
    own = params.criteria
    if twice := sorted({name for name in own if own.count(name) > 1}):
        raise InputError(f"criteria: {twice[0]!r} is there twice, allowed is once")
    used = {"long": [control.mask for control in params.long], "swap_masks": params.swap_masks}
    for key, masks in used.items():
        if missing := [name for name in masks if plugins.is_plugin(name) and name not in own]:
            raise InputError(f"{key}: {missing[0]!r} is not one of criteria, list it there, too")


def check_bed(bed: Bed, params: CompareParams, data: DataSet) -> None:
    """Reject a net, a schedule or levels that do not fit."""
    where, images = f"beds.{bed.name}", len(data.train)
    models.check(bed.model, data.shape)
    if list(bed.levels) != sorted(set(bed.levels)):
        raise InputError(f"{where}.levels: {list(bed.levels)}, allowed are ascending sparsities")
    model = models.build(bed.model, data.shape, data.classes, 0)
    names = models.prunable(model, bed.prunable)
    if f"{models.head(model)}.weight" in names:
        rule = f"{where}.prunable: {bed.prunable!r} prunes the output layer, whose shape is COLT's"
        raise InputError(f"{rule} own; allowed: conv, hidden, inner")
    if not names:
        raise InputError(f"{where}.prunable: {bed.prunable!r} names no weight of {bed.model.name}")
    for step in (params.rewind, params.swap_rewind):
        bed.recipe.check(images, step)
    bed.transform.check(images, Step(0, "it"))
    rst.check_penalty(bed.penalty, bed.transform, bed.transform.iterations(images)[1])
