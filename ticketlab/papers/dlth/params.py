"""Parameters of the DLTH study: cases, their arms, and the settings of each arm's training."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ticketlab import models
from ticketlab.data.sets import DataSpec
from ticketlab.gpu import Runtime
from ticketlab.papers.dlth.algorithm import Penalty, RstSetting
from ticketlab.spec import Name, Spec
from ticketlab.study.bench import Prunable
from ticketlab.training.recipe import FURTHER, Fraction, Recipe, Seeds, Step, StepField

Pretrained = Literal["lth", "lth-iter", "l1", "early-bird"]
Plain = Literal["scratch", "scratch-long", "warm-up", "scratch-erk"]
Pressed = Literal[
    "rst",
    "rst-magnitude",
    "rst-antimagnitude",
    "rst-erk",
    "rst-lth-mask",
    "rst-jump",
    "rst-square",
    "rst-cube",
]
Damaged = Literal["shuffled", "reinit", "signs"]
Arm = Literal[Pretrained, Plain, Pressed, Damaged, "abrupt", "rst-iter"]

PLAIN = ("scratch", "scratch-long", "warm-up", "scratch-erk")
POWERS = {"rst-jump": 0, "rst-square": 2, "rst-cube": 3}
"""Arms whose penalty has another schedule than the case's."""
PRESSED = ("rst", "rst-magnitude", "rst-antimagnitude", "rst-erk", *POWERS)
WATCHED = ("rst", *POWERS)
"""Arms whose transformation is observed (`algorithm.Watch`)."""
PRETRAINED = ("lth", "lth-iter", "l1", "early-bird")
DAMAGED = ("shuffled", "reinit", "signs")

Arms = Annotated[tuple[Arm, ...], Field(strict=False)]


def _with_both_sides(arms: tuple[str, ...]) -> tuple[str, ...]:
    if missing := [name for name in ("scratch", "rst") if name not in arms]:
        raise ValueError(f"allowed are arms with {missing[0]!r}, which others are compared with")
    return arms


MainArms = Annotated[Arms, AfterValidator(_with_both_sides)]
Rates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)]


class Iteration(Spec):
    """RST-Iter: `cycles` transformations of `length` each, its penalty ramping from 0 in each."""

    cycles: int = Field(default=5, ge=1)
    length: StepField = Step(20_000, "it")
    ramp: int = Field(default=10_000, ge=1)
    every: int = Field(default=1, ge=1)
    leak: bool = False
    """Recompute the mask by magnitude between cycles, as the authors' code does (dossier 4.3)."""


class LthIter(Spec):
    """LTH-Iter: `cycles` trainings of `length`, each followed by layer-wise magnitude pruning."""

    cycles: int = Field(default=5, ge=1)
    length: StepField = Step(200, "ep")


class Early(Spec):
    """When early-bird masks are compared, and when they count as settled."""

    every: StepField = Step(1, "ep")
    threshold: float = Field(default=0.1, gt=0, lt=1)
    queue: int = Field(default=5, ge=2)


class Ways(Spec):
    """Settings of a case's arms."""

    name: Name = "main"
    iterative: Iteration = Iteration()
    lth_iter: LthIter = LthIter()
    early_bird: Early = Early()
    looks: int = Field(default=8, ge=1)
    """Observations per transformation."""


class Cell(Ways, RstSetting):
    """Parameters that decide a unit: a net on a data set, and its finetuning and transformation."""

    prunable: Prunable = "inner"


class Case(Ways):
    """One net on one data set at some sparsities."""

    data: DataSpec
    model: models.ModelSpec
    prunable: Literal["inner", "hidden", "conv_linear"] = "inner"
    """Layers that are masked: the paper leaves the first and the output layer dense (inner)."""
    levels: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
    """Sparsity of each masked layer."""
    finetune: Recipe
    """Also trains all baselines; milestones in % so that longer runs keep the same shape."""
    transform: Recipe
    penalty: Penalty = Penalty()
    arms: MainArms = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", "lth")
    """Arms at every level; dense always runs."""
    extra_arms: Arms = ()
    extra_levels: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()
    """Level of the extra arms; "shuffled", "reinit" and "signs" damage the RST ticket there."""
    draws: int = Field(default=0, ge=0, le=100)
    """Per seed, further masks on its initialisation and initialisations under its mask (C11); 0
    means none."""
    rates: Rates = ()
    """Learning rates of finetuning, including that of `finetune`. At the highest level `rate_arms`
    run at all of them; the best on validation images is a seed's own rate of an arm."""
    rate_arms: MainArms = ("scratch", "scratch-long", "rst", "lth")

    @property
    def judged(self) -> float:
        """The level that claims are about: the highest."""
        return max(self.levels)

    @property
    def rated(self) -> "tuple[Case, ...]":
        """The case at each further rate: only its arms and the rate of finetuning differ."""
        return tuple(self._at(lr) for lr in self.rates if lr != self.finetune.lr)

    def _at(self, lr: float) -> "Case":
        own = {name: getattr(self, name) for name in Case.model_fields}
        fewer: dict[str, Any] = {"levels": (self.judged,), "arms": self.rate_arms, "rates": ()}
        fewer |= {"extra_arms": (), "extra_levels": (), "draws": 0, "looks": 1}
        named = {"name": f"{self.name}-lr-{lr:g}".replace(".", "_")}
        fine = {"finetune": self.finetune.model_copy(update={"lr": lr})}
        return Case(**own | fewer | named | fine)

    def cell(self, runtime: Runtime, *used: str) -> Cell:
        """Return the case as a unit's argument, with the optional parameters in `used`."""
        return Cell.of(self, "name", *used, recipe=self.finetune, runtime=runtime)

    def arms_at(self, level: float) -> tuple[str, ...]:
        """Return the arms of one level."""
        more = self.extra_arms if level in self.extra_levels else ()
        return (*self.arms, *(arm for arm in more if arm not in self.arms))

    def levels_of(self, arm: str) -> tuple[float, ...]:
        """Return the levels of one arm."""
        return tuple(level for level in self.levels if arm in self.arms_at(level))


class RstParams(Case):
    """All parameters of the DLTH study: the main case and the other cases."""

    seeds: Seeds
    arms: Arms = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", "lth")
    """As in every case, but Scratch and RST may be extra arms, if they run at the highest level."""
    others: Annotated[tuple[Case, ...], Field(strict=False)] = ()
    runtime: Runtime = Runtime()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All cases, the main case first."""
        return (self, *self.others)

    @property
    def all_cases(self) -> tuple[Case, ...]:
        """Everything that is trained: the cases, and each case at its further rates."""
        return tuple(each for case in self.cases for each in (case, *case.rated))


def penalty_of(case: Case | Cell, arm: str) -> Penalty:
    """Return the case's penalty, with the arm's own schedule if it has one."""
    return case.penalty.model_copy(update={"power": POWERS.get(arm, case.penalty.power)})


def draw_seed(seed: int, draw: int) -> int:
    """Return the seed of further draw 1, 2, ... of a seed's mask or initialisation (C11).

    It does not depend on the study's other seeds.
    """
    return FURTHER + 100 * seed + draw
