"""Edge-popup on any model of the bench: an observer of the one training loop.

The weights stay as they are; scores learn which of them to keep. Formulas and selection are those
of `popup` and `saliency`. A layer's weights and biases are ranked together as the released code of
Plant 'n' Seek does for VGG-16 (`joint`), or apart as it does for its small nets.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import DataSet, Images
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, first_bounds, popup_masks
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
    """What is ranked together: a layer's tensors if `joint`, else each tensor by itself."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0] if joint else name, []).append(name)
    return list(found.values())


def net_scores(weights: State, names: Sequence[str], joint: bool, random: torch.Generator) -> State:
    """First scores of the named tensors, uniform within `first_bounds`; drawn on the CPU."""
    scores = {}
    for name in names:
        weight = weights.get(name.rpartition(".")[0] + ".weight", weights[name])
        bound = first_bounds(weight[0].numel(), joint)[weights[name].dim() == 1]
        drawn = torch.rand(weights[name].shape, generator=random)
        scores[name] = (bound * (2 * drawn - 1)).to(weights[name].device)
    return scores


def choose(scores: State, density: float, joint: bool) -> Mask:
    """The share of highest |score| of every layer (or tensor)."""
    kept: dict[str, Tensor] = {}
    for names in layers(list(scores), joint):
        row = torch.cat([scores[name].flatten() for name in names])
        parts = popup_masks(row[None], [density])[0].split([scores[n].numel() for n in names])
        kept |= {n: part.view_as(scores[n]) for n, part in zip(names, parts, strict=True)}
    return Mask({name: kept[name] for name in scores})


class Popup(Observer):
    """Learns `scores` at one density; the net computes with the chosen weights at every step.

    `frozen` are the weights to choose from, all of the model's; what has no score is always kept.
    The recipe's SGD acts on the scores.
    """

    edits = True

    def __init__(
        self, net: Net, frozen: State, scores: State, density: float, recipe: Recipe, joint: bool
    ) -> None:
        if recipe.optimizer != "sgd":
            raise InputError(f"popup.recipe.optimizer: {recipe.optimizer!r}, allowed is 'sgd'")
        self.net, self.frozen, self.scores = net, frozen, scores
        self.density, self.joint = density, joint
        self.steppers = {
            name: Sgd(
                score,
                torch.zeros_like(score),
                recipe.lr,
                recipe.momentum,
                recipe.nesterov,
                recipe.weight_decay,
                fused=False,
            )
            for name, score in scores.items()
        }
        self.show()

    def mask(self) -> Mask:
        """What the scores choose now."""
        return choose(self.scores, self.density, self.joint)

    def show(self) -> None:
        """Put the chosen weights into the net."""
        kept = self.mask()
        with torch.no_grad():
            for name, parameter in self.net.model.named_parameters():
                weight = self.frozen[name]
                parameter.copy_(weight * kept[name] if name in kept else weight)

    def before_step(self, run: Run) -> None:
        """A step of the scores; the weights themselves get no gradient."""
        slopes = {name: p.grad for name, p in run.net.model.named_parameters()}
        lr = learning_rate(run.recipe, run.iteration, run.per_epoch, run.total)
        for name, stepper in self.steppers.items():
            slope, score = slopes[name], stepper.weights
            stepper.grads = popup_gradient(slope, self.frozen[name], score)  # type: ignore[arg-type]
            stepper.lr = lr
            stepper.step()
        run.net.grads.zero_()

    def after_step(self, run: Run) -> None:
        """The weights as chosen, whatever the loop's own optimiser did to them."""
        self.show()

    def after_epoch(self, run: Run) -> bool:
        """Scores that are no numbers end the search as such weights would."""
        check_finite(run.recipe.lr, run.history[-1].epoch + 1, self.scores.values())
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
    """Edge-popup among the entries that `names` names, from the net's weights; its last mask.

    The recipe is run `levels` times, each time at `goal.at(level, levels)`. `gains` (one mapping a
    level) multiplies tensors during the search. Diverged for scores that are no numbers.
    """
    check_fits(names, net.model)
    start = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    scores = net_scores(start, list(names), joint, gpu.generator("cpu", "popup", *seed))
    for level in range(1, levels + 1):
        gain = gains[level - 1] if gains else {}
        frozen = {name: w * gain.get(name, 1.0) for name, w in start.items()}
        popup = Popup(net, frozen, scores, goal.at(level, levels), recipe, joint)
        order = (*seed, level)
        train(net, images, data, recipe, seed=order, observers=[popup, *observers])
    mask = popup.mask()
    patterns.confirm(dict(net.model.named_parameters()), mask, popup.frozen)
    return mask
