"""The figures of the PrAC notebook's one round by hand: each draws one question and says it."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ticketlab import labels
from ticketlab.data.sets import Images
from ticketlab.papers.prac.subsets import NEVER
from ticketlab.study.plots import GREY, legend, panels, says


def forgetting(events: Tensor) -> Figure:
    """Samples by number of forgetting events (N,), the never-learned ones last; CET coloured."""
    counts = torch.bincount(events[(events >= 0) & (events < NEVER)].clamp(max=6)).tolist()
    never = int((events == NEVER).sum())
    names = [*(str(i) for i in range(min(len(counts), 6))), *["6 or\nmore"] * (len(counts) > 6)]
    figure, (ax,) = panels(1, 6.5, 3.4)
    colours = ["0.7", *[labels.colour("prac")] * len(names)]
    bars = ax.bar([*names, "never\nlearned"], [*counts, never], color=colours)
    ax.bar_label(bars, fmt="{:.0f}", fontsize=8)
    ax.set(title="How often was each sample forgotten?", xlabel="forgetting events")
    ax.set_ylabel("samples (green: CET at E_F = 0)")
    ax.grid(False, axis="x")
    critical = sum(counts[1:]) + never
    part = _part(critical, len(events))
    return says(figure, f"{part} are forgotten at least once or never learned: CET at E_F = 0.")


def in_and_out(images: Images, inside: Tensor, shown: int = 12) -> Figure:
    """Two rows of training images: in the set and left out, evenly spread, labels above."""
    everything = torch.arange(len(images), device=inside.device)
    outside = everything[~torch.isin(everything, inside)]
    rows = {"in the set": inside, "left out": outside}
    figure, axes = plt.subplots(2, shown, figsize=(shown * 0.8, 2.3))
    for line, (title, index) in zip(axes, rows.items(), strict=True):
        picked = spread(index, shown)
        _pictures(line, images, picked, [str(int(y)) for y in images.y[picked]])
        line[0].set_ylabel(title, fontsize=9)
    figure.suptitle("Training images in CET and out of it (above each: its class)", fontsize=10)
    part = _part(len(inside), len(images))
    return says(
        figure, f"{part} are in CET; the rows show some that are in it, and some that are not."
    )


def forgotten_by_pruning(
    images: Images, index: Tensor, dense: Tensor, sparse: Tensor, shown: int = 12
) -> Figure:
    """Images on which two nets differ, with label and both predictions (N,) each."""
    picked = spread(index, shown)
    rows = zip(
        images.y[picked].tolist(), dense[picked].tolist(), sparse[picked].tolist(), strict=True
    )
    figure, axes = plt.subplots(1, shown, figsize=(shown * 0.85, 1.5), squeeze=False)
    _pictures(axes[0], images, picked, [f"is {y}\n{a} → {b}" for y, a, b in rows])
    figure.suptitle("Class, and predictions dense → sparse", fontsize=10, y=1.02)
    part = _part(len(index), len(images))
    return says(figure, f"Dense and pruned network disagree on {part}: CEP.")


def _part(some: int, every: int) -> str:
    return f"{some:,} of {every:,} training images ({100 * some / every:.0f} %)"


def spread(index: Tensor, count: int) -> Tensor:
    """Up to `count` of the indices, evenly spread."""
    places = torch.linspace(0, len(index) - 1, min(count, len(index))).long()
    return index[places.to(index.device)]


def _pictures(axes: Sequence[Axes], images: Images, index: Tensor, titles: Sequence[str]) -> None:
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    for ax, picture, title in zip(axes, images.x[index].cpu(), titles, strict=False):
        ax.imshow(picture.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r")
        ax.set_title(title, fontsize=8, fontweight="normal")


def one_distance(distances: Sequence[float], epsilon: float, drops: Sequence[float]) -> Figure:
    """Mask distance of one round's epochs, with epsilon and where the learning rate falls."""
    figure, (ax,) = panels(1, 7, 3.4)
    epochs = range(2, len(distances) + 2)
    label = "distance to the mask\nof the epoch before"
    ax.plot(epochs, distances, "o-", ms=4, color=labels.colour("prac"), label=label)
    ax.axhline(epsilon, color="#b4553a", ls="--", label=f"epsilon = {epsilon:g}")
    for drop in drops:
        ax.axvline(drop + 0.5, color=GREY, ls=":", label="learning rate falls")
    ax.set(xlabel="epoch", ylabel="mask distance", title="When does the mask settle?")
    ax.set_ylim(0, None)
    legend(figure)
    below = len(_last_below(distances, epsilon))
    return says(
        figure,
        f"The mask distance goes from {distances[0]:.3f} to {distances[-1]:.3f}; the last "
        f"{below} of {len(distances)} stay below epsilon = {epsilon:g}.",
    )


def _last_below(distances: Sequence[float], epsilon: float) -> Sequence[float]:
    """The longest end of the list that is below epsilon."""
    above = [place for place, distance in enumerate(distances) if distance >= epsilon]
    return distances[above[-1] + 1 :] if above else distances
