"""The figures of Plant 'n' Seek's tickets made by hand: each draws one question and says it."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm
from ticketlab.papers.plant_n_seek.algorithm.tasks import helix_curve, ring_logits
from ticketlab.study.plots import GREY, PALETTE, legend, panels, says

PLANTED = labels.colour("planted")
SIGNS = np.array([PALETTE[1], PALETTE[0]])
"""Colours of negative and positive weights."""
OTHERS = "#9a9a9a"
"""Weights and neurons of the mother that are not planted."""


def ticket(planted: algorithm.Planted, neurons: int = 40) -> Figure:
    """The planted ticket in its mother: edge width ``|w|``, colour the sign, dots are neurons.

    Draws up to `neurons` in each layer; those outside the ticket are evenly spread.
    """
    figure, (ax,) = panels(1, 10, 4.5)
    heights = [_heights(places, width, neurons) for places, width in _shape(planted)]
    for layer, (own, others) in enumerate(heights):
        ax.plot([layer] * len(others), others, "o", color="0.8", ms=3)
        ax.plot([layer] * len(own), list(own.values()), "o", color="0.25", ms=5, zorder=3)
    for layer, (weight, _) in enumerate(stacks.layers(planted.ticket())):
        _edges(ax, layer, weight.numpy(), heights[layer][0], heights[layer + 1][0])
    names = ["inputs", *[f"hidden {n}" for n in range(1, len(heights) - 1)], "outputs"]
    ax.set_xticks(range(len(heights)), names)
    ax.set(yticks=[], title="The planted ticket (dark) among its mother's neurons (light)")
    ax.grid(visible=False)
    for sign, color in zip(("negative", "positive"), SIGNS, strict=True):
        ax.plot([], [], color=color, label=f"{sign} weight")
    legend(figure)
    mask = planted.mask
    return says(
        figure,
        f"The ticket is tiny: {mask.alive:,} of the mother's {mask.total:,} weights and biases "
        f"({100 * mask.density:.2g} %).",
    )


def _shape(planted: algorithm.Planted) -> list[tuple[list[int], int]]:
    widths = stacks.widths(planted.mother)
    return [(p.tolist(), n) for p, n in zip(planted.places, widths, strict=True)]


def _heights(places: list[int], width: int, neurons: int) -> tuple[dict[int, float], list[float]]:
    """Return heights in the mother's order: of the ticket's neurons (by place), and of others."""
    free = [n for n in range(width) if n not in places]
    spread = np.linspace(0, len(free) - 1, max(0, min(len(free), neurons - len(places))))
    others = [free[int(place)] for place in spread]
    order = sorted([*places, *others])
    at = dict(zip(order, np.linspace(1, 0, len(order) + 2)[1:-1], strict=True))
    return {n: at[n] for n in sorted(places)}, [at[n] for n in others]


def _edges(
    ax: Axes, layer: int, weight: np.ndarray, left: dict[int, float], right: dict[int, float]
) -> None:
    rows, columns = weight.nonzero()
    values = weight[rows, columns]
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    ends = [[(layer, left[r]), (layer + 1, right[c])] for r, c in pairs]
    width = 0.3 + 2.7 * np.abs(values) / np.abs(values).max()
    ax.add_collection(LineCollection(ends, colors=SIGNS[(values > 0).astype(int)], lw=width))


def computed(circle: algorithm.Planted, helix: algorithm.Planted) -> Figure:
    """Draw what two planted tickets compute: Circle's decision map and the Helix curve."""
    figure = plt.figure(figsize=(10, 4.5), layout="constrained")
    right = _decision_map(figure.add_subplot(1, 2, 1), circle)
    ax: Any = figure.add_subplot(1, 2, 2, projection="3d")
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    curve, found = helix_curve(x), helix.outputs(x)
    ax.plot(*curve.numpy().T, color=OTHERS, lw=4, label="target curve")
    ax.plot(*found.numpy().T, color=PLANTED, lw=1.2, label="planted ticket")
    ax.set_title("Helix: curve of the planted ticket")
    legend(figure, "below")
    error = float((found - curve).pow(2).mean())
    return says(
        figure,
        "What the planted tickets compute without training: Circle's ring is right at "
        f"{right:.1f} % of the points, and Helix's curve has a mean squared error of {error:.1e}.",
    )


def _decision_map(ax: Axes, planted: algorithm.Planted) -> float:
    """Draw the class at each point of a grid; return the percent of points with the right one."""
    line = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    chosen = planted.outputs(grid).argmax(1)
    classes = chosen.reshape(201, 201).T.numpy()
    image = ListedColormap(PALETTE[:4])
    ax.imshow(classes, extent=(-1, 1, -1, 1), origin="lower", cmap=image, alpha=0.75)
    angle = np.linspace(0, 2 * np.pi, 200)
    for number, radius in enumerate(algorithm.ring_radii()):
        name = "" if number else "borders of the target's rings"
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), "k--", lw=0.8, label=name)
    ax.set(title="Circle: classes of the planted ticket", xlabel="x1", ylabel="x2")
    ax.grid(visible=False)
    return 100 * float((chosen == ring_logits(grid).argmax(1)).double().mean())


def one_neuron(
    biases: np.ndarray, weights: np.ndarray, wanted: np.ndarray, place: int, factor: float
) -> Figure:
    """Draw a layer with one input: its neurons as points, the target's direction, the best one."""
    figure, (ax,) = panels(1, 7.5, 4.4)
    ax.plot(biases, weights, "o", color=OTHERS, ms=4, label="random neurons of the mother")
    reach = 1.1 * max(np.abs(biases).max(), np.abs(weights).max())
    line = np.array([-reach, reach]) / np.abs(wanted).max()
    ax.plot(line * wanted[0], line * wanted[1], "--", color=GREY, lw=1, label="target's direction")
    ax.plot(biases[place], weights[place], "o", color=PALETTE[0], ms=9, label="best aligned neuron")
    planted = factor * wanted
    ax.plot(*planted, "*", color=PLANTED, ms=13, label="planted in its place")
    ax.set(xlabel="bias", ylabel="weight", title="Which neuron can play the target's part?")
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    legend(figure)
    own = np.array([biases[place], weights[place]])
    cosine = float(own @ wanted / np.linalg.norm(own) / np.linalg.norm(wanted))
    return says(
        figure,
        f"One of {len(biases)} random neurons points almost exactly in the target's direction "
        f"(cosine {cosine:.4f}), so planting hardly moves it.",
    )


def hidden(planted: Mapping[str, algorithm.Planted]) -> Figure:
    """Draw ``|w|`` in standard deviations of the initialisation, by planting mode.

    Planted entries and all others have a histogram each.
    """
    figure, axes = panels(len(planted), 3.7, 3.4, sharex=True, sharey=True)
    bins, largest = np.logspace(-4, 3, 43), {}
    for ax, (mode, one) in zip(axes, planted.items(), strict=True):
        scaled = torch.cat([v.flatten() for v in algorithm.in_deviations(one.weights).values()])
        inside = one.mask.flat()
        for chosen, color, name in ((~inside, OTHERS, "others"), (inside, PLANTED, "planted")):
            values = scaled[chosen].numpy()
            weights = np.full(len(values), 100 / len(values))
            ax.hist(
                values, bins=bins.tolist(), weights=weights, color=color, alpha=0.65, label=name
            )
        ax.axvline(algorithm.LOUD, color=GREY, ls="--", lw=1, label=f"{algorithm.LOUD:g} sigma")
        ax.set(xscale="log", title=f"planted {labels.label(mode)}", xlabel="|w| / sigma")
        largest[mode] = float(scaled[inside].abs().max())
    axes[0].set_ylabel("% of entries")
    legend(figure)
    each = ", ".join(f"{size:.3g} {labels.label(mode)}" for mode, size in largest.items())
    return says(figure, f"How far the largest planted entry stands out, in sigma: {each}.")
