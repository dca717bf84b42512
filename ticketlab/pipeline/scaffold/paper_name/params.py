"""The parameters of the study, and what is refused before anything runs."""

from ticketlab import models
from ticketlab.data.sets import load
from ticketlab.study.bench import Setting
from ticketlab.training.recipe import Fraction, Seeds


class Params(Setting):
    """A net on a data set (`Setting`), and how much of it is pruned."""

    seeds: Seeds
    sparsity: Fraction = 0.9
    """Fraction of the prunable weights that is removed."""


def check(params: Params) -> None:
    """Refuse what only shows across parameters and data; InputError names the key."""
    data = load(params.data)
    models.check(params.model, data.shape)
    params.recipe.check(len(data.train), params.rewind)
