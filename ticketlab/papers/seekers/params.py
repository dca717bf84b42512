"""Parameters of the study of newer seekers: gates on planted mothers, and crowds of tickets."""

from typing import Annotated, Literal

from pydantic import Field

from ticketlab.gpu import Runtime
from ticketlab.many.stacks import Fit
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import PopupFit
from ticketlab.papers.plant_n_seek.params import Case, Density, Grid, Method, PlantParams
from ticketlab.papers.seekers.algorithm.gates import GateFit
from ticketlab.spec import InputError, Spec
from ticketlab.training.recipe import Seeds

Task = Literal["circle", "relu", "helix"]
GateMother = Literal["planted", "unplanted"]
Regime = Literal["singleshot", "multishot"]
Tickets = Annotated[int, Field(ge=0)]
"""How many copies a mother has; 0 is the mother without a ticket."""


class Crowds(Spec):
    """Mothers of one task with several copies of its ticket, and who searches in them."""

    task: Task
    copies: Annotated[tuple[Tickets, ...], Field(strict=False, min_length=1)]
    """The mothers in which masks are made in one shot."""
    searched: Annotated[tuple[Tickets, ...], Field(strict=False)] = ()
    """The mothers in which the slower searches run, too: many rounds, edge-popup and gates."""

    @property
    def most(self) -> int:
        """The largest number of copies."""
        return max(self.copies)


class SeekersParams(Spec):
    """All parameters of the study. Names are those of Plant 'n' Seek's parameters."""

    seeds: Seeds
    mode: algorithm.Mode = "paper"
    train: int = Field(default=9000, ge=100)
    test: int = Field(default=2000, ge=1)
    probe: int = Field(default=40, ge=1)
    """Number of samples on which SNIP scores, as one batch."""
    depth: int = Field(default=5, ge=3)
    width: int = Field(default=100, ge=1)
    noise: float = Field(default=0.01, ge=0)
    fit: Fit
    rounds: int = Field(default=10, ge=1)
    round_epochs: int = Field(default=5, ge=1)
    popup: PopupFit
    """Edge-popup, annealed, with a linear head."""
    gates: GateFit
    """Bernoulli gates; with as many epochs and as large batches as edge-popup."""
    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    """Whose mothers with one ticket edge-popup and gates search."""
    bare: Annotated[tuple[Task, ...], Field(strict=False)] = ()
    """Those of them whose mothers are also searched before the ticket is planted."""
    densities: Annotated[tuple[Density, ...], Field(strict=False, min_length=1)]
    crowds: Annotated[tuple[Crowds, ...], Field(strict=False)] = ()
    methods: Annotated[tuple[Method, ...], Field(strict=False)] = ()
    """What prunes crowds by a score, in one shot and in many rounds."""
    runtime: Runtime = Runtime()

    def case(self, task: str) -> Case:
        """Return the cell of Plant 'n' Seek in which a task is searched."""
        return Case(task=task, depth=self.depth, width=self.width, noise=self.noise)

    def planting(self) -> PlantParams:
        """Return the parameters of Plant 'n' Seek's benches, without those of its own study.

        Equal to what its own units get, so that a unit of both studies is trained once.
        """
        found = PlantParams(
            seeds=(0,),
            mode=self.mode,
            train=self.train,
            test=self.test,
            probe=self.probe,
            fit=self.fit,
            rounds=self.rounds,
            round_epochs=self.round_epochs,
            popup=self.popup,
            audits=(0, 1),
            grids=(Grid(tasks=("relu",)),),
            runtime=self.runtime,
        )
        return found.model_copy(update={"audits": ()})


def check_budget(params: SeekersParams) -> None:
    """InputError unless gates and edge-popup see the same batches for as long."""
    for name in ("batch", "epochs"):
        ours, theirs = getattr(params.gates, name), getattr(params.popup, name)
        if ours != theirs:
            raise InputError(f"gates.{name}: {ours}, allowed is {theirs} as in popup.{name}")


def check_crowds(params: SeekersParams) -> None:
    """InputError for a task that is there twice, or a slow search in a mother that is not there."""
    tasks = [crowds.task for crowds in params.crowds]
    if twice := sorted({task for task in tasks if tasks.count(task) > 1}):
        raise InputError(f"crowds: {twice[0]!r} is there twice, allowed is once")
    for crowds in params.crowds:
        if other := sorted(set(crowds.searched) - set(crowds.copies)):
            raise InputError(f"crowds.searched: {other[0]} given, allowed: {list(crowds.copies)}")
        if crowds.most < 1:
            raise InputError(f"crowds.copies: {list(crowds.copies)}, at least one is to be above 0")
