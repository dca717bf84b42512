"""The parameters of the Plant 'n' Seek study: grids of cells, how to prune and how to train."""

from itertools import product
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from ticketlab import plugins
from ticketlab.data.sets import DataSpec
from ticketlab.gpu import Runtime
from ticketlab.many.stacks import Fit, Head
from ticketlab.models import ModelSpec
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import PopupFit
from ticketlab.pruning import saliency
from ticketlab.spec import Registry, Spec
from ticketlab.training.recipe import Fraction, Recipe, Seeds, Step, StepField

Density = float | Literal["gt"]
Noise = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Mother = Literal["planted", "unplanted", "unbiased"]
"""`unplanted` hides nothing; `unbiased` hides nothing but has output biases of exactly zero, the
one trace of planting that edge-popup cannot get rid of where it is missing."""


class Way(NamedTuple):
    """How a method prunes: by which criterion; each tensor to its own share; with many scorings."""

    criterion: str
    local: bool = False
    many: bool = False


METHODS: Registry[str, Way] = {
    "random": Way("random"),
    "magnitude": Way("magnitude"),
    "snip": Way("snip"),
    "grasp": Way("grasp"),
    "grasp_local": Way("grasp", local=True),
    "synflow": Way("synflow"),
    "synflow_rounds": Way("synflow", many=True),
}
"""The built-in methods."""


def way(method: str) -> Way:
    """How a method prunes; one that is not built in is a criterion of one's own."""
    return METHODS.get(method, Way(method))


def _checked_method(name: str) -> str:
    plugins.choose(name, METHODS, saliency.TAKES)
    return name


Method = Annotated[str, AfterValidator(_checked_method)]
"""One of METHODS, or a criterion of one's own as `my_module:function`."""
Variant = Literal["plain", "annealed", "plain_joint", "annealed_joint"]
"""`joint` ranks weights and biases of a layer together; else each tensor keeps its own share."""
Gain = Literal["none", "even"]
"""`even` multiplies the frozen weights so that signals stay as large as without a mask."""


class Grid(Spec):
    """A block of the experiment: everything in it is combined with everything else in it."""

    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    depths: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (5,)
    widths: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (100,)
    noise: Annotated[tuple[Noise, ...], Field(strict=False, min_length=1)] = (0.01,)
    mothers: Annotated[tuple[Mother, ...], Field(strict=False, min_length=1)] = ("planted",)
    densities: Annotated[tuple[Density, ...], Field(strict=False)] = ("gt", 0.01, 0.1, 0.5)
    singleshot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    multishot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    popup: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    heads: Annotated[tuple[Head, ...], Field(strict=False)] = ("linear",)
    controls: bool = False
    """Also train the dense net, the planted ticket and its controls."""
    trained: bool = True
    """False: masks are scored as they are, without the training after the search."""
    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    """Seeds of this grid's own; None is the study's."""

    @model_validator(mode="after")
    def _controls_are_trained(self) -> "Grid":
        if self.controls and not self.trained:
            raise ValueError("controls: true given, allowed is false where `trained` is false")
        return self


class ConvParams(Spec):
    """The convolutional part: a ticket is trained in a net of its own, planted, and sought."""

    seeds: Seeds | None = None
    """None is the study's."""
    data: DataSpec
    model: ModelSpec
    """The mother: a chain of biased layers without batch-norm (vgg16, conv2, conv4, conv6)."""
    ticket_model: ModelSpec
    """The net that the ticket is found and trained in: the same architecture, no wider."""
    ticket_method: Method = "synflow"
    ticket_density: Fraction
    """Weights and biases kept of the ticket's own net."""
    recipe: Recipe
    rounds: int = Field(default=5, ge=1)
    round_length: StepField = Step(2, "ep")
    """Multishot: trainings, each followed by a pruning to density^(r/rounds) and a reset."""
    probe: int = Field(default=100, ge=1)
    """Training images that SNIP and GraSP score on, as one batch."""
    mothers: Annotated[
        tuple[Literal["planted", "unplanted"], ...], Field(strict=False, min_length=1)
    ] = ("planted", "unplanted")
    densities: Annotated[tuple[Density, ...], Field(strict=False, min_length=1)] = ("gt", 0.1, 0.5)
    """"gt" is the ticket's own: planted weights and biases over all of the mother's."""
    singleshot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    multishot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    popup: Annotated[tuple[Literal["plain", "annealed"], ...], Field(strict=False)] = ()
    gains: Annotated[tuple[Gain, ...], Field(strict=False, min_length=1)] = ("none",)
    popup_densities: Annotated[tuple[Density, ...], Field(strict=False, min_length=1)] = ("gt", 0.5)
    popup_recipe: Recipe
    levels: int = Field(default=5, ge=1)
    """Edge-popup runs its recipe so many times, annealed at density^(k/levels)."""
    joint: bool = True
    """Edge-popup ranks weights and biases of a layer together, as released for VGG-16."""
    controls: bool = True
    """Also train the dense net, the planted ticket and its controls."""


class ConvSetting(Spec):
    """What a unit of the convolutional part sees of the study's parameters."""

    conv: ConvParams
    score_rounds: int
    as_released: bool
    runtime: Runtime


class PlantParams(Spec):
    """All parameters of the Plant 'n' Seek study."""

    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    mode: algorithm.Mode = "paper"
    train: int = Field(default=9000, ge=100)
    test: int = Field(default=1000, ge=1)
    probe: int = Field(default=40, ge=1)
    """Samples that SNIP and GraSP score on, as one batch."""
    fit: Fit
    rounds: int = Field(default=10, ge=1)
    """Multishot: trainings, each followed by a pruning to density^(r/rounds) and a reset."""
    round_epochs: int = Field(default=5, ge=1)
    score_rounds: int = Field(default=100, ge=1)
    """Scorings of `synflow_rounds`."""
    as_released: bool = False
    """Ties at the threshold all go and removed weights can return, as in the authors' code."""
    popup: PopupFit
    audits: Annotated[Seeds, Field(min_length=2)]
    """Seeds of the planting audit's mothers, which trains nothing: what is visible in one is judged
    by the others."""
    grids: Annotated[tuple[Grid, ...], Field(strict=False, min_length=1)]
    conv: ConvParams | None = None
    """The convolutional part; None leaves it out."""
    runtime: Runtime = Runtime()


class Case(Spec):
    """One cell of a grid: what is learned, by which mother, with how much noise."""

    task: str
    depth: int
    width: int
    noise: float

    @property
    def name(self) -> str:
        """The cell's part of a unit's name, e.g. 'circle-d5-w100-n0.01'."""
        return f"{self.task}-d{self.depth}-w{self.width}-n{self.noise:g}"


def cases(grid: Grid) -> list[Case]:
    """Every cell of a grid."""
    cells = product(grid.tasks, grid.depths, grid.widths, grid.noise)
    return [Case(task=t, depth=d, width=w, noise=n) for t, d, w, n in cells]
