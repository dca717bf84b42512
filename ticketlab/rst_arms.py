"""What the arms of the DLTH study share: parameters, the start of a seed, a net and its account."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ticketlab import gpu, models, progress, rst
from ticketlab.data import Batches, DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.masks import Mask, ones
from ticketlab.rst import Penalty
from ticketlab.spec import Name, Spec
from ticketlab.tickets import Ticket, make_ticket, network, state_digest
from ticketlab.training import (
    Fraction,
    Net,
    Observer,
    Recipe,
    Seeds,
    State,
    Step,
    StepField,
    evaluate,
    train,
)

# ---------------------------------------------------------------- parameters

Pretrained = Literal["lth", "lth-iter", "l1", "early-bird"]
Plain = Literal["scratch", "scratch-long", "warm-up", "scratch-erk"]
Pressed = Literal[
    "rst", "rst-magnitude", "rst-antimagnitude", "rst-erk", "rst-lth-mask",
    "rst-jump", "rst-square", "rst-cube",
]  # fmt: skip
Damaged = Literal["shuffled", "reinit", "signs"]
Arm = Literal[Pretrained, Plain, Pressed, Damaged, "abrupt", "rst-iter"]

PLAIN = ("scratch", "scratch-long", "warm-up", "scratch-erk")
POWERS = {"rst-jump": 0, "rst-square": 2, "rst-cube": 3}
"""Arms whose penalty grows in another way than the case's."""
PRESSED = ("rst", "rst-magnitude", "rst-antimagnitude", "rst-erk", *POWERS)
WATCHED = ("rst", *POWERS)
"""Arms that are looked into on the way."""
PRETRAINED = ("lth", "lth-iter", "l1", "early-bird")
DAMAGED = ("shuffled", "reinit", "signs")

Arms = Annotated[tuple[Arm, ...], Field(strict=False)]


def _with_both_sides(arms: tuple[str, ...]) -> tuple[str, ...]:
    if missing := [name for name in ("scratch", "rst") if name not in arms]:
        raise ValueError(f"allowed are arms with {missing[0]!r}, which others are compared with")
    return arms


MainArms = Annotated[Arms, AfterValidator(_with_both_sides)]


class Iteration(Spec):
    """RST-Iter: `cycles` transformations of `length` each, its penalty ramping from 0 in each."""

    cycles: int = Field(default=5, ge=1)
    length: StepField = Step(20_000, "it")
    ramp: int = Field(default=10_000, ge=1)
    every: int = Field(default=1, ge=1)
    leak: bool = False
    """Find the mask again by magnitude between cycles, as the authors' code does (dossier 4.3)."""


class LthIter(Spec):
    """LTH-Iter: `cycles` trainings of `length`, each followed by layer-wise magnitude pruning."""

    cycles: int = Field(default=5, ge=1)
    length: StepField = Step(200, "ep")


class Early(Spec):
    """When early-bird masks are compared, and when they count as settled."""

    every: StepField = Step(1, "ep")
    threshold: float = Field(default=0.1, gt=0, lt=1)
    queue: int = Field(default=5, ge=2)


class Case(Spec):
    """One net on one data set at some sparsities."""

    name: Name = "main"
    data: DataSpec
    model: models.ModelSpec
    prunable: Literal["inner", "hidden", "conv_linear"] = "inner"
    """Layers that are masked: the paper leaves the first and the output layer dense (inner)."""
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
    """Sparsity of each masked layer."""
    finetune: Recipe
    """Also how every baseline is trained; milestones in % so that longer runs keep the shape."""
    transform: Recipe
    penalty: Penalty = Penalty()
    iterative: Iteration = Iteration()
    lth_iter: LthIter = LthIter()
    early_bird: Early = Early()
    arms: MainArms = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", "lth")
    """Arms at every level; dense always runs."""
    extra_arms: Arms = ()
    extra_levels: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()
    """Where the extra arms run; "shuffled", "reinit" and "signs" damage the RST ticket there."""
    draws: int = Field(default=0, ge=0)
    """Masks on one initialisation, and initialisations under one mask (C11); 0 leaves it out."""
    looks: int = Field(default=8, ge=1)
    """Looks into each transformation."""

    def arms_at(self, level: float) -> tuple[str, ...]:
        """The arms of one level."""
        more = self.extra_arms if level in self.extra_levels else ()
        return (*self.arms, *(arm for arm in more if arm not in self.arms))

    def levels_of(self, arm: str) -> tuple[float, ...]:
        """The levels of one arm."""
        return tuple(level for level in self.levels if arm in self.arms_at(level))


class RstParams(Case):
    """Everything that the DLTH study can be told: the main case, and others beside it."""

    seeds: Seeds
    others: Annotated[tuple[Case, ...], Field(strict=False)] = ()
    runtime: Runtime = Runtime()

    @property
    def cases(self) -> tuple[Case, ...]:
        """The main case first."""
        return (self, *self.others)


FURTHER = 1_000_000
"""Beyond the seeds of any study, whichever they are."""


def draw_seed(draw: int) -> int:
    """The seed of the further draw 1, 2, ... of a mask or an initialisation (C11): the same
    whatever the study's own seeds are."""
    return FURTHER + draw


# ---------------------------------------------------------------- what one seed starts from


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and random masks of one seed in one case."""

    params: RstParams
    place: int
    seed: int

    @cached_property
    def case(self) -> Case:
        """The case at `place`."""
        return self.params.cases[self.place]

    @cached_property
    def data(self) -> DataSet:
        """The case's data set, resident on the device."""
        return load(self.case.data, gpu.start(self.params.runtime))

    def net(self, stream: str = "init") -> Net:
        """The net at its initial weights; another stream is another draw of them."""
        seed = gpu.derive_seed(self.seed, stream)
        model = models.build(self.case.model, self.data.shape, self.data.classes, seed)
        return Net(model, self.params.runtime)

    def dense_mask(self, net: Net) -> Mask:
        """Every maskable weight kept, on the CPU, where all masks live."""
        return ones(net.model, models.prunable(net.model, self.case.prunable)).to("cpu")

    def mask(self, net: Net, level: float, arm: str = "rst", mask_seed: int | None = None) -> Mask:
        """The mask of an arm, fixed before any training; random ones depend on `mask_seed` only."""
        dense, state = self.dense_mask(net), net.state()
        seed = self.seed if mask_seed is None else mask_seed
        random = gpu.generator("cpu", "mask", level, seed)
        if arm == "rst-magnitude":
            return rst.magnitude_mask(state, dense, level)
        if arm == "rst-antimagnitude":
            return rst.magnitude_mask(state, dense, level, largest=False)
        if arm.endswith("erk"):
            return rst.random_mask(dense, rst.erk_counts(dense, level), random)
        return rst.random_mask(dense, rst.kept_counts(dense, level), random)

    def ticket(
        self, arm: str, level: float, mask: Mask, weights: State, start: State,
        pruned_from: Mask | None = None,
    ) -> Ticket:  # fmt: skip
        """A ticket at the weights that are finetuned; `start` are the seed's initial ones.

        It was finetuned under its own mask, or else `pruned_from` the one of the training before.
        """
        facts = network(self.case.model, self.data) | {"init_sha256": state_digest(start)}
        return make_ticket(mask, weights, pruned_from, paper="dlth", arm=arm, seed=self.seed,
                           case=self.case.name, level=level, **facts)  # fmt: skip

    def iterations(self, recipe: Recipe) -> int:
        """Optimiser steps of a recipe on the training images."""
        return recipe.iterations(len(self.data.train))[1]

    def longer(self) -> Recipe:
        """The finetuning recipe, stretched by the images that the transformation sees."""
        fine, press = self.case.finetune, self.case.transform
        more = round(self.iterations(press) * press.batch / fine.batch)
        return with_length(fine, Step(self.iterations(fine) + more, "it"))


def with_length(recipe: Recipe, length: Step) -> Recipe:
    """The same recipe over another length."""
    return recipe.model_copy(update={"length": length})


# ---------------------------------------------------------------- one net of one arm


@dataclass
class Work:
    """A net on its way through an arm, with the account of what it has cost so far."""

    bench: Bench
    arm: str
    level: float
    net: Net
    images: int = 0
    dense_flops: float = 0.0
    sparse_flops: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, bench: Bench, arm: str, level: float, stream: str = "init") -> "Work":
        """At the seed's initial weights."""
        return cls(bench, arm, level, bench.net(stream))

    def at(self, arm: str, level: float) -> "Work":
        """Another arm or level that goes on from here, on the same net."""
        return Work(self.bench, arm, level, self.net, self.images,
                    self.dense_flops, self.sparse_flops, dict(self.facts))  # fmt: skip

    def train(
        self,
        recipe: Recipe,
        stage: str,
        mask: Mask | None = None,
        penalty: tuple[Mask, Penalty] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Train in place; the data order depends on the seed and the stage, not on the arm."""
        b, where = self.bench, f"{self.level:.0%}"
        progress.label(arm=f"{self.arm} {stage}", seed=b.seed, sparsity=where)
        growing = [rst.GrowingPenalty(*penalty)] if penalty else []
        train(self.net, b.data.train, b.data, recipe, seed=(b.seed, stage), mask=mask,
              observers=[*growing, *observers])  # fmt: skip
        for each in growing:
            self.facts["lambda_error"] = rst.trace_error(each.trace, each.penalty)
        self.charge(recipe.passes(len(b.data.train)), mask)

    def charge(self, images: int, mask: Mask | None) -> None:
        """Add passes to the account; a training step counts as three forward passes."""
        model, shape = self.net.model, self.bench.data.shape
        self.images += images
        self.dense_flops += 3.0 * images * models.flops(model, shape)
        sparse = models.flops(model, shape, mask.densities() if mask else None)
        self.sparse_flops += 3.0 * images * sparse

    def accuracy(self) -> float:
        """Validation accuracy in percent."""
        held_out = self.bench.data.validation
        return 100 * evaluate(self.net, held_out, Batches(held_out, self.bench.data)).accuracy

    def remove(self, mask: Mask) -> None:
        """Delete the removed weights, and note what that costs."""
        self.facts["ratio_at_removal"] = rst.weight_ratio(self.net.state(), mask)
        self.facts["before_removal"] = self.accuracy()
        rst.remove(self.net, mask)
        self.facts["after_removal"] = self.accuracy()

    def finish(self, mask: Mask, recipe: Recipe | None = None) -> dict[str, Any]:
        """Finetune under the mask and return the arm's row; accuracies in percent, last step."""
        rst.remove(self.net, mask)
        digest, before = mask.digest(), self.accuracy()
        self.train(recipe or self.bench.case.finetune, "finetune", mask)
        data, state = self.bench.data, self.net.state()
        test = evaluate(self.net, data.test, Batches(data.test, data))
        gone = all(not state[n].cpu()[~keep].any() for n, keep in mask.items())
        account = {"images": self.images, "dense_flops": self.dense_flops,
                   "sparse_flops": self.sparse_flops}  # fmt: skip
        return self.head(mask) | account | self.facts | {
            "before_finetune": before, "test_accuracy": 100 * test.accuracy,
            "test_loss": test.loss, "validation_accuracy": self.accuracy(),
            "mask_sha256": digest, "intact": gone and mask.digest() == digest,
        }  # fmt: skip

    def head(self, mask: Mask) -> dict[str, Any]:
        """What tells the row apart: arm, seed, level, and the sparsities really reached.

        `exact` says whether every layer has lost exactly ceil(s n) weights (not so under ERK).
        """
        named = self.net.model.named_parameters()
        every = sum(p.numel() for n, p in named if n.endswith("weight") and p.dim() > 1)
        kept = {name: int(keep.sum()) for name, keep in mask.items()}
        return {"case": self.bench.case.name, "arm": self.arm, "seed": self.bench.seed,
                "mask_seed": self.facts.get("mask_seed", self.bench.seed), "level": self.level,
                "sparsity": mask.sparsity, "overall_sparsity": (mask.total - mask.alive) / every,
                "exact": kept == rst.kept_counts(mask, self.level),
                "layers": mask.densities()}  # fmt: skip
