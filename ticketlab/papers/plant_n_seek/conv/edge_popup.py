"""Edge-popup on any of our models, as an observer of the training loop.

The weights are frozen; scores learn which of them to keep, by the formulas of
`algorithm.edge_popup` and the selection of `algorithm.choice`. A layer's weights and biases are
ranked together, as in the released code of Plant 'n' Seek for VGG-16 (`joint`), or separately, as
in its code for small nets.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import DataSet, Images
from ticketlab.papers.plant_n_seek.algorithm.choice import Choice
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, first_bounds
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask, State, check_fits
from ticketlab.pruning.saliency import popup_gradient
from ticketlab.spec import InputError
from ticketlab.training.loop import check_finite, train
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run
from ticketlab.training.optimizers import Sgd
from ticketlab.training.recipe import Recipe, learning_rate


def layers(names: Sequence[str], joint: bool) -> list[list[str]]:
    """Return tensors that are ranked together: a layer's if `joint`, else each one alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0] if joint else name, []).append(name)
    return list(found.values())


def net_scores(weights: State, names: Sequence[str], joint: bool, random: torch.Generator) -> State:
    """Return initial scores of the named tensors, uniform within `first_bounds`, from the CPU."""
    scores = {}
    for name in names:
        weight = weights.get(name.rpartition(".")[0] + ".weight", weights[name])
        bound = first_bounds(weight[0].numel(), joint)[weights[name].dim() == 1]
        drawn = torch.rand(weights[name].shape, generator=random)
        scores[name] = (bound * (2 * drawn - 1)).to(weights[name].device)
    return scores


def flat(net: Net, state: State) -> Tensor:
    """Return tensors of a net in the layout of its `weights` (n,); 0 where there is none."""
    values, places = torch.zeros_like(net.weights), net.places()
    for name, tensor in state.items():
        values[places[name]] = tensor.to(values)
    return values


def choice(net: Net, names: Sequence[str], joint: bool) -> Choice:
    """Return the selection among the named tensors of a net, on scores laid out as `weights`."""
    ranks = [place.flatten().argsort() for place in net.places().values()]
    groups = [[net.names.index(name) for name in group] for group in layers(names, joint)]
    return Choice(ranks, groups)


class Popup(Observer):
    """Trains `scores` (n,) at one density; the net always computes with the selected weights.

    `frozen` (n,) are the weights to select from. Both are laid out as the net's `weights`, and
    `names` are the tensors that `choose` selects among. The recipe's SGD acts on the scores.
    """

    edits = True

    def __init__(
        self,
        net: Net,
        names: Sequence[str],
        choose: Choice,
        frozen: Tensor,
        scores: Tensor,
        density: float,
        recipe: Recipe,
    ) -> None:
        if recipe.optimizer != "sgd":
            raise InputError(f"popup.recipe.optimizer: {recipe.optimizer!r}, allowed is 'sgd'")
        self.net, self.names, self.choose = net, names, choose
        self.frozen, self.scores, self.share = frozen, scores, choose.thresholds([density])
        self.stepper = Sgd(
            scores, scores, recipe.lr, recipe.momentum, recipe.nesterov, recipe.weight_decay
        )
        self.show()

    def mask(self) -> Mask:
        """Return the mask that the scores select now."""
        chosen, places = self.choose(self.scores, self.share).bool(), self.net.places()
        return Mask({name: chosen[places[name]] for name in self.names})

    def show(self) -> None:
        """Write the selected weights into the net."""
        torch.mul(self.frozen, self.choose(self.scores, self.share), out=self.net.weights)

    def before_step(self, run: Run) -> None:
        """Update the scores; clear the gradients of the weights themselves."""
        self.stepper.grads = popup_gradient(run.net.grads, self.frozen, self.scores)
        self.stepper.lr = learning_rate(run.recipe, run.iteration, run.per_epoch, run.total)
        self.stepper.step()
        run.net.grads.zero_()

    def after_step(self, run: Run) -> None:
        """Reapply the selected weights, undoing the loop's optimiser update."""
        self.show()

    def after_epoch(self, run: Run) -> bool:
        """Raise Diverged for infinite or NaN scores."""
        check_finite(run.recipe.lr, run.history[-1].epoch + 1, [self.scores])
        return False


def pop(
    net: Net,
    names: Mask,
    goal: Goal,
    images: Images,
    data: DataSet,
    recipe: Recipe,
    seed: tuple[object, ...],
    *,
    levels: int = 1,
    joint: bool = True,
    gains: Sequence[Mapping[str, float]] = (),
    observers: Sequence[Observer] = (),
) -> Mask:
    """Run edge-popup among the entries that `names` marks, from the net's weights; return the mask.

    The recipe is run `levels` times, each time at `goal.at(level, levels)`. `gains` (one mapping
    per level) multiplies tensors during the search. Raises Diverged for infinite or NaN scores.
    """
    check_fits(names, net.model)
    start = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    random = gpu.generator("cpu", "popup", *seed)
    scores = flat(net, net_scores(start, list(names), joint, random))
    choose = choice(net, list(names), joint)
    for level in range(1, levels + 1):
        gain = gains[level - 1] if gains else {}
        frozen = {name: w * gain.get(name, 1.0) for name, w in start.items()}
        density = goal.at(level, levels)
        popup = Popup(net, list(names), choose, flat(net, frozen), scores, density, recipe)
        order = (*seed, level)
        train(net, images, data, recipe, seed=order, observers=[popup, *observers])
    mask = popup.mask()
    patterns.confirm(dict(net.model.named_parameters()), mask, frozen)
    return mask
