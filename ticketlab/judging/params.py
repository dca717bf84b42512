"""Parameters of a judgement: network, data, recipe, seeds, and the search that it is held against.

They decide how every arm is trained. The mask itself is no parameter: it comes from a file.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ticketlab import models
from ticketlab.data.sets import DataSet, DataSpec, load
from ticketlab.gpu import Runtime
from ticketlab.models import ModelSpec
from ticketlab.spec import InputError, Spec
from ticketlab.study.bench import Setting
from ticketlab.study.controls import TRAINED
from ticketlab.training.recipe import Fraction, Recipe, Seeds, Step, StepField


class JudgeSetting(Setting):
    """Parameters that decide a unit. What may be pruned follows from the mask, not `prunable`."""

    rate: Fraction = 0.2
    """Fraction of the remaining weights that IMP prunes per round; used by IMP alone."""


def _listed(value: Any) -> Any:
    """Return the seeds 0 to n - 1 for a number n."""
    return tuple(range(value)) if type(value) is int and value > 0 else value


class JudgeParams(Spec):
    """All parameters of a judgement; `ticketlab judge --example FILE` writes them with comments."""

    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    seeds: Annotated[Seeds, BeforeValidator(_listed)]
    """A number of seeds, or a list of them."""
    rewind: StepField = Step(0, "it")
    """The point of dense training to which IMP rewinds, and from which other masks start."""
    rate: Fraction = 0.2
    trained: float = Field(default=TRAINED, ge=0, le=100)
    """Percent of training images that the trained dense net must classify correctly."""
    names: dict[str, str] = Field(default_factory=dict)
    """The network's name for a name of the file, for layers that are called differently."""
    runtime: Runtime = Runtime()

    def setting(self, *used: str, **changes: Any) -> JudgeSetting:
        """Return the arguments of a unit; of `rate`, only if it is in `used`."""
        return JudgeSetting.of(self, *used, **changes)


def check(params: JudgeParams) -> DataSet:
    """Return the data; InputError names the key of a parameter that does not fit it."""
    data = load(params.data)
    if not len(data.validation):
        raise InputError("data.validation: 0, starting accuracies are measured on it, allowed: > 0")
    models.check(params.model, data.shape)
    params.recipe.check(len(data.train), params.rewind)
    return data
