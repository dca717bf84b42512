"""Parameters of the Plant 'n' Seek study: grids of cells, and how to prune and train."""

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
"""`unplanted` has no ticket; `unbiased` has no ticket but output biases of exactly zero, the one
visible trace of planting without which edge-popup cannot remove output biases."""


class Way(NamedTuple):
    """How a method prunes: its criterion, one share per tensor or not, one round or many."""

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
    """Return how a method prunes; one that is not built in is a plug-in criterion."""
    return METHODS.get(method, Way(method))


def _checked_method(name: str) -> str:
    plugins.choose(name, METHODS, saliency.TAKES)
    return name


Method = Annotated[str, AfterValidator(_checked_method)]
"""One of METHODS, or a plug-in criterion as `my_module:function`."""
Variant = Literal["plain", "annealed", "plain_joint", "annealed_joint"]
"""`joint` ranks a layer's weights and biases together; otherwise each tensor keeps its share."""
Gain = Literal["none", "even"]
"""`even` multiplies the frozen weights so that signals stay as large as without a mask."""


class Grid(Spec):
    """A block of the experiment: all combinations of its values are run."""

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
    """False: masks are scored without the training after the search."""
    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    """Seeds of this grid; None means the study's."""

    @model_validator(mode="after")
    def _controls_are_trained(self) -> "Grid":
        if self.controls and not self.trained:
            raise ValueError("controls: true given, allowed is false where `trained` is false")
        return self


class ConvParams(Spec):
    """The convolutional part: a ticket is trained in its own net, planted, and searched for."""

    seeds: Seeds | None = None
    """None means the study's."""
    data: DataSpec
    model: ModelSpec
    """The mother: a chain of biased layers without batch-norm (vgg16, conv2, conv4, conv6)."""
    ticket_model: ModelSpec
    """The net in which the ticket is found and trained: the same architecture, no wider."""
    ticket_method: Method = "synflow"
    ticket_density: Fraction
    """Fraction of weights and biases that the ticket keeps of its own net."""
    recipe: Recipe
    rounds: int = Field(default=5, ge=1)
    round_length: StepField = Step(2, "ep")
    """Multishot: trainings, each followed by pruning to density^(r/rounds) and a reset."""
    probe: int = Field(default=100, ge=1)
    """Number of training images on which SNIP and GraSP score, as one batch."""
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
    """Edge-popup runs its recipe this many times, annealed at density^(k/levels)."""
    joint: bool = True
    """Whether edge-popup ranks a layer's weights and biases together, as released for VGG-16."""
    controls: bool = True
    """Also train the dense net, the planted ticket and its controls."""


class ConvSetting(Spec):
    """The study's parameters on which a unit of the convolutional part depends."""

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
    """Number of samples on which SNIP and GraSP score, as one batch."""
    fit: Fit
    rounds: int = Field(default=10, ge=1)
    """Multishot: trainings, each followed by pruning to density^(r/rounds) and a reset."""
    round_epochs: int = Field(default=5, ge=1)
    score_rounds: int = Field(default=100, ge=1)
    """Scoring rounds of `synflow_rounds`."""
    as_released: bool = False
    """As in the authors' code, remove all ties at the threshold; removed weights can return."""
    popup: PopupFit
    audits: Annotated[Seeds, Field(min_length=2)]
    """Seeds of the mothers in the planting audit, which trains nothing: what is visible in each is
    judged by a classifier that has seen the others."""
    grids: Annotated[tuple[Grid, ...], Field(strict=False, min_length=1)]
    conv: ConvParams | None = None
    """The convolutional part; None omits it."""
    runtime: Runtime = Runtime()


class Case(Spec):
    """One cell of a grid: the task, the mother's size, and the noise."""

    task: str
    depth: int
    width: int
    noise: float

    @property
    def name(self) -> str:
        """The cell's part of a unit's name, e.g. 'circle-d5-w100-n0.01'."""
        return f"{self.task}-d{self.depth}-w{self.width}-n{self.noise:g}"


def cases(grid: Grid) -> list[Case]:
    """Return every cell of a grid."""
    cells = product(grid.tasks, grid.depths, grid.widths, grid.noise)
    return [Case(task=t, depth=d, width=w, noise=n) for t, d, w, n in cells]
