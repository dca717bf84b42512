"""Parameters of the PrAC study: the main net's setting, other nets, ablations; names of arms."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ticketlab import models, plugins
from ticketlab.papers.prac.algorithm import Stop
from ticketlab.pruning.saliency import CriterionName
from ticketlab.spec import Name, Spec
from ticketlab.study.bench import Prunable, Setting
from ticketlab.training.recipe import Fraction, Recipe, Seeds, Step, StepField

SELECTIONS = ("el2n", "aum", "dual", "ccs", "random", "fixed")
"""Other ways than PrAC's to choose as many samples as it did."""

Rounds = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)]
Positive = Annotated[int, Field(ge=1)]
VariantName = Literal["low-rate", "warm-up"]
Score = Literal["el2n", "aum", "dual", "ccs", "fixed"]

# ---------------------------------------------------------------- parameters of a unit


class PracSetting(Setting):
    """Parameters that decide a unit: a net on a data set, and how its tickets are searched."""

    rewind: StepField = Step(3, "ep")
    rate: Fraction = 0.2
    """Fraction of the remaining weights that each round prunes."""
    rounds: int = Field(default=16, ge=1)
    threshold: int = Field(default=0, ge=0)
    """E_F: CET has the samples with more forgetting events than this."""
    stop: Stop = Stop()
    shorten: Literal["epochs", "iterations"] = "epochs"
    """How a smaller set shortens the schedule: as in the code (cost falls with the square of the
    set), or as in the paper's formula (cost falls in proportion)."""
    least_iterations: int = Field(default=0, ge=0)
    """Minimum length of a round, planned or ended early."""
    el2n_epochs: int = Field(default=4, ge=1)
    ccs_cut: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of hardest samples that coverage-centric selection drops."""
    noise: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the training labels that are flipped; validation and test stay clean."""


class Plan(Spec):
    """How an arm searches: on which samples, how long, and whether a round may end early.

    `subset` "given" trains on sets passed in. `shorten` "fitted" compresses the whole schedule into
    a given number of iterations. `criterion` prunes; it scores on `probe` images.
    """

    subset: Literal["critical", "cet", "cep", "all", "given"]
    shorten: Literal["epochs", "iterations", "none", "fitted"]
    stop: bool
    criterion: CriterionName = "magnitude"
    probe: int = 0


# ---------------------------------------------------------------- parameters of a study


class Other(Spec):
    """Another net on the same data: PrAC's own sets for it, and sets carried over from the main."""

    name: Name
    model: models.ModelSpec
    prunable: Prunable = "conv"
    recipe: Recipe
    rewind: StepField
    rounds: Positive
    levels: Rounds
    stop: Stop
    least_iterations: int = Field(default=0, ge=0)
    seeds: Positive = 1
    """Number of the study's seeds that run it (the first ones)."""
    index_file: str | None = None
    """Index file of sets to carry over, instead of those that the main net finds here."""


class Variant(Spec):
    """PrAC's search with another learning rate or warm-up; its tickets are not retrained."""

    name: VariantName
    lr: float = Field(gt=0)
    warmup: StepField = Step(0, "it")
    rewind: StepField = Step(0, "it")
    """The paper rewinds these to the initial weights."""


class PracParams(PracSetting):
    """All parameters of the PrAC study."""

    seeds: Seeds
    levels: Rounds
    """Rounds whose tickets are retrained and compared; all arms have equal sparsity there."""
    thresholds: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    """Other values of E_F."""
    epsilons: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)] = ()
    """Other bounds on the mask distance that ends a round."""
    variants: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    """Other learning rates, for which the paper only gives the cost of the search."""
    again_rounds: int = Field(default=0, ge=0)
    """Rounds of IMP with another data order from the same rewind point, to see how similar two of
    IMP's own masks are. 0 is none; runs on `ablation_seeds`."""
    scores: Annotated[tuple[Score, ...], Field(strict=False)] = ()
    """Other ways to choose sets as large as PrAC's."""
    criteria: Annotated[tuple[CriterionName, ...], Field(strict=False)] = ()
    """Criteria that prune instead of magnitude, built-in ones or your own: in rounds as long as
    PrAC's, on random sets of its sizes."""
    probe: Positive = 100
    """Training images that these criteria score on."""
    ablation_levels: Rounds
    """Rounds whose tickets are retrained in the ablations: some of `levels`, at which IMP and PrAC
    have tickets for comparison."""
    ablation_seeds: int = Field(default=1, ge=0)
    """Number of the study's seeds that run ablations (the first ones); 0 leaves all of them out."""
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of flipped training labels in a separate experiment; 0 is none."""
    noise_rounds: Positive = 1
    noise_seeds: Positive = 1
    others: Annotated[tuple[Other, ...], Field(strict=False)] = ()

    @field_validator("ablation_levels")
    @classmethod
    def _among_the_levels(cls, chosen: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        levels = info.data.get("levels", chosen)
        if set(chosen) - set(levels):
            raise ValueError(f"allowed are some of levels: {', '.join(map(str, levels))}")
        return chosen

    def setting(self, **changes: Any) -> PracSetting:
        """Return the main net's setting, with changes."""
        return PracSetting.of(self, *PracSetting.model_fields).model_copy(update=changes)

    def noisy(self) -> PracSetting:
        """Return the main net's setting with flipped labels, up to `noise_rounds`."""
        return self.setting(noise=self.label_noise, rounds=self.noise_rounds)

    def other(self, other: Other) -> PracSetting:
        """Return the setting of another net."""
        own = set(Other.model_fields) & set(PracSetting.model_fields)
        return self.setting(**{name: getattr(other, name) for name in own})

    def variant(self, variant: Variant) -> PracSetting:
        """Return the main net's setting at another learning rate."""
        changes = {"lr": variant.lr, "warmup": variant.warmup}
        return self.setting(recipe=self.recipe.model_copy(update=changes), rewind=variant.rewind)


# ---------------------------------------------------------------- arms


def plans(setting: PracSetting) -> dict[str, Plan]:
    """Return the searches that depend on no other arm, by arm."""
    rule = setting.shorten
    return {
        "prac": Plan(subset="critical", shorten=rule, stop=True),
        "cet-only": Plan(subset="cet", shorten=rule, stop=True),
        "cep-only": Plan(subset="cep", shorten=rule, stop=True),
        "imp-early-stop": Plan(subset="all", shorten="none", stop=True),
        "prac-linear": Plan(subset="critical", shorten="iterations", stop=False),
        "prac-quadratic": Plan(subset="critical", shorten="epochs", stop=False),
    }


def pruned_by(criterion: str) -> str:
    """Return the name of the arm whose rounds a criterion prunes."""
    return f"{BY}{plugins.slug(criterion)}"


def with_threshold(value: int) -> str:
    """Return the name of PrAC with another E_F."""
    return f"prac-ef-{value}"


def with_epsilon(value: float) -> str:
    """Return the name of PrAC with another epsilon."""
    return f"prac-eps-{value:g}"


def varied(variant: Variant) -> str:
    """Return the name of PrAC at another learning rate."""
    return f"prac-{variant.name}"


BY = "by-"
SHORT_IMP = Plan(subset="all", shorten="fitted", stop=False)
LADDERS = ("prac", "cet-only")
"""Independent searches that all seeds run, besides IMP."""
PARTS = ("cep-only", "imp-early-stop", "prac-linear", "prac-quadratic")
"""Parts of PrAC: CEP alone, early stopping on all data, and PrAC without early stopping, its
schedules shortened by the paper's formula or as in the code. They run on `ablation_seeds`."""
FOLLOWERS = ("random", "short-imp")
"""Arms that need PrAC's search: its set sizes, its iterations."""
CONTROLS = ("random-pruning", "imp-shuffled", "prac-shuffled", "reinit")
"""Masks without a search of their own, and PrAC's masks on new initial weights."""
AGAIN = "imp-again"
"""IMP with another data order."""
KEPT = ("prac", "random", "random-pruning")
"""Arms whose tickets keep their outcome, besides IMP's (`Ticket.outcome`)."""
