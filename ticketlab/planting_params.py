"""What the Plant 'n' Seek study can be told: grids of cells, how to prune and how to train."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from ticketlab import planting
from ticketlab.gpu import Runtime
from ticketlab.popup import PopupFit
from ticketlab.spec import Spec
from ticketlab.stacked import Fit, Head

Density = float | Literal["gt"]
Mother = Literal["planted", "unplanted", "unbiased"]
"""`unplanted` hides nothing; `unbiased` hides nothing but has output biases of exactly zero, the
one trace of planting that edge-popup cannot get rid of where it is missing."""
Method = Literal["random", "magnitude", "snip", "grasp", "grasp_local", "synflow", "synflow_rounds"]
"""`synflow_rounds` scores many times; `grasp_local` gives each tensor its own share."""
Variant = Literal["plain", "annealed"]


class Grid(Spec):
    """A block of the experiment: everything in it is combined with everything else in it."""

    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    depths: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = (5,)
    widths: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = (100,)
    noise: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] = (0.01,)
    mothers: Annotated[tuple[Mother, ...], Field(strict=False, min_length=1)] = ("planted",)
    densities: Annotated[tuple[Density, ...], Field(strict=False)] = ("gt", 0.01, 0.1, 0.5)
    singleshot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    multishot: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    popup: Annotated[tuple[Variant, ...], Field(strict=False)] = ()
    heads: Annotated[tuple[Head, ...], Field(strict=False)] = ("linear",)
    controls: bool = False
    """Also train the dense net, the planted ticket and its controls."""
    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None
    """Seeds of this grid's own; None is the study's."""


class PlantParams(Spec):
    """Everything that the Plant 'n' Seek study can be told."""

    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    mode: planting.Mode = "paper"
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
    audits: int = Field(default=20, ge=1)
    """Seeds of the planting audit, which trains nothing."""
    grids: Annotated[tuple[Grid, ...], Field(strict=False, min_length=1)]
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
