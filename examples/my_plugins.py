"""A pruning criterion and a model of one's own, as a start for yours.

Copy this file beside params.yaml and name its functions there, for instance

    dvc exp run -S 'desk.compare.criteria=[my_plugins:weight_times_slope]'
    dvc exp run -S 'desk.prac.model.name=my_plugins:two_convs' -S desk.prac.prunable=hidden

Only the units that use a function train again when it, or what it calls, is edited.
"""

from torch import nn

from ticketlab.models import Shape
from ticketlab.pruning import saliency
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.saliency import Probe


def weight_times_slope(probe: Probe, weights: State, mask: Mask) -> Scores:
    """w^2 |dL/dw|: a score for each weight that the mask names, of its shape; high means keep."""
    slopes = saliency.snip(probe, weights, mask)
    return {name: slopes[name] * weights[name].abs() for name in mask}


def two_convs(shape: Shape, width: int = 8) -> tuple[nn.Module, int]:
    """Images (B, C, H, W) to features (B, F), and F; the head and the draw of weights are added.

    `width`, `depth` and `conv_bias` are what `model` in params.yaml may set; each needs a default.
    """
    body = nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body, 2 * width
