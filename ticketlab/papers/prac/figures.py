"""The figures of the PrAC notebook: each takes tables, draws one question and says the answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ticketlab import labels
from ticketlab.papers.prac.params import (
    AGAIN,
    CONTROLS,
    FOLLOWERS,
    LADDERS,
    PARTS,
    PracParams,
    pruned_by,
    with_epsilon,
    with_threshold,
)
from ticketlab.papers.prac.report import (
    STEPS,
    at,
    at_level,
    brief,
    shown,
    sparse,
)
from ticketlab.study.plots import (
    GREY,
    by_arm,
    curves,
    density_axis,
    error_bars,
    legend,
    look,
    message,
    number,
    panels,
    says,
    trade,
)
from ticketlab.study.stats import (
    BySeed,
    Interval,
    across,
    as_interval,
    by_seed,
    minus,
    over_seeds,
)

ARMS = ("imp", *LADDERS, *FOLLOWERS, *CONTROLS)
"""The arms that all seeds have."""
CLOSE = ("prac", "random", "short-imp", "cet-only", "reinit")
"""Of them, those that come near to IMP."""
EARLY = "#b4553a"
"""Epsilon, and what ends rounds early."""

# ---------------------------------------------------------------- accuracy and cost


def saved_and_lost(scores: pd.DataFrame, rounds: pd.DataFrame, levels: Sequence[int]) -> Figure:
    """Accuracy lost against iterations saved, both against IMP, at the first and the last level."""
    chosen = sorted({min(levels), max(levels)})
    figure, axes = panels(len(chosen), 4.2, 3.8, sharey=True)
    arms = ("prac", "random", "short-imp", "cet-only", "imp-early-stop")
    for ax, level in zip(axes, chosen, strict=True):
        main = rounds[(rounds.place == "main") & (rounds["round"] == level)]
        imp = at(scores, "imp", level)
        points = {
            shown(arm): (
                by_seed(main[main.arm == arm], "saving"),
                minus(at(scores, arm, level), imp),
            )
            for arm in arms
        }
        trade(ax, points, "imp")
        ax.set_title(sparse(scores, level))
    axes[-1].set_ylabel("")
    legend(figure, "below")
    last = rounds[(rounds.place == "main") & (rounds["round"] == chosen[-1])]
    saved = over_seeds(by_seed(last[last.arm == "prac"], "saving"))
    lost = (
        f"{labels.label(shown(arm))} {brief(_lead(scores, arm, chosen[-1:]))}" for arm in arms[:3]
    )
    where = sparse(scores, chosen[-1])
    text = f"PrAC saves {number(saved, '%')} of IMP's iterations. Points against IMP, {where}: "
    return says(figure, text + "; ".join(lost) + ".")


def accuracy(scores: pd.DataFrame, levels: Sequence[int]) -> Figure:
    """Test accuracy of the main net's tickets by level, arms as rows; dashed: the dense net."""
    dense = over_seeds(at(scores, "dense", 0))
    figure = _by_level(scores, levels, ARMS, lambda arm, k: at(scores, arm, k), dense.mean)
    figure.supxlabel("test accuracy (%), last epoch; dashed: dense net", fontsize=9)
    said = (
        message(
            over_seeds(minus(at(scores, "prac", k), at(scores, "random-pruning", k))),
            f"{at_level(scores, k)} PrAC's tickets beat random pruning",
            f"{at_level(scores, k)} PrAC's tickets are not clearly different from random pruning",
            f"{at_level(scores, k)} PrAC's tickets are worse than random pruning",
        )
        for k in sorted({min(levels), max(levels)})
    )
    return says(figure, " ".join(said))


def against_imp(scores: pd.DataFrame, levels: Sequence[int]) -> Figure:
    """Accuracy against IMP's ticket of the same seed at each level, in points, arms as rows.

    Random pruning and shuffled masks, which lose most, are left to `accuracy`.
    """
    figure = _by_level(
        scores, levels, CLOSE, lambda arm, k: minus(at(scores, arm, k), at(scores, "imp", k)), 0.0
    )
    figure.supxlabel("points against IMP of the same seed, last epoch", fontsize=9)
    own = message(
        _lead(scores, "prac", levels),
        "PrAC's tickets are better than IMP's on average over levels",
        "PrAC's tickets are not clearly different from IMP's on average over levels",
        "PrAC's tickets are worse than IMP's on average over levels",
    )
    lowest = min(levels)
    least = f"{at_level(scores, lowest).lower()} {_lead(scores, 'prac', [lowest]).mean:.2f}"
    others = (
        f"{labels.label(shown(arm))} {brief(_lead(scores, arm, levels))}"
        for arm in ("random", "short-imp")
    )
    return says(figure, f"{'; '.join([own[:-1], *others])}. PrAC minus IMP {least}.")


def ablations(scores: pd.DataFrame, params: PracParams) -> Figure:
    """Accuracy against PrAC's ticket of the same seed, by how samples or weights were chosen."""
    own = [*map(with_threshold, params.thresholds), *map(with_epsilon, params.epsilons)]
    chosen = ("random", *params.scores)
    arms = ["imp", "short-imp", "cet-only", *PARTS, *own, *chosen, *map(pruned_by, params.criteria)]
    levels = params.ablation_levels

    def ahead(arm: str, level: int) -> BySeed:
        return minus(at(scores, arm, level), at(scores, "prac", level))

    figure = _by_level(scores, levels, arms, ahead, 0.0)
    figure.supxlabel("points against PrAC of the same seed, last epoch", fontsize=9)
    found = {arm: across([ahead(arm, level) for level in levels]) for arm in chosen}
    means = {arm: over_seeds(by) for arm, by in found.items() if by}
    better = [arm for arm, one in means.items() if one.low is not None and one.low > 0]
    best = max(means, key=lambda arm: means[arm].mean)
    return says(
        figure,
        f"{len(better)} of {len(means)} other choices of as many samples give better tickets than "
        f"PrAC's sets; the best is {labels.label(shown(best))}: {number(means[best])}.",
    )


def _by_level(
    scores: pd.DataFrame,
    levels: Sequence[int],
    arms: Sequence[str],
    value: Callable[[str, int], BySeed],
    line: float,
) -> Figure:
    """A panel per level with arms as rows, best at the last level first; only those that ran."""
    chosen = sorted(set(levels))
    found = {arm: [value(arm, level) for level in chosen] for arm in arms}
    ran = {arm: by for arm, by in found.items() if any(by)}
    order = sorted(ran, key=lambda arm: -_mean(next(filter(None, reversed(ran[arm])))))
    figure, axes = panels(
        len(chosen), max(2.6, 7 / len(chosen)), 0.27 * len(order) + 1.1, sharey=True
    )
    for place, (ax, level) in enumerate(zip(axes, chosen, strict=True)):
        by_arm(ax, {shown(arm): ran[arm][place] for arm in order}, line=line)
        ax.set_title(sparse(scores, level))
    return figure


def _lead(scores: pd.DataFrame, arm: str, levels: Sequence[int]) -> Interval:
    """An arm minus IMP in points, by seed, on average over the levels."""
    each = [minus(at(scores, arm, k), at(scores, "imp", k)) for k in sorted(set(levels))]
    return over_seeds(across(each))


def cost(rounds: pd.DataFrame) -> Figure:
    """Cumulative iterations of the main searches against the ticket's sparsity, log scale."""
    figure, (ax,) = panels(1, 8, 4.4)
    frame = rounds[rounds.place == "main"].assign(density=1 - rounds.sparsity)
    arms = ("imp", "imp-early-stop", "cep-only", "prac", "cet-only")
    curves(ax, frame, "density", "total_iterations", look(arms), "round")
    last = frame[(frame["round"] == frame["round"].max()) & frame.arm.isin(arms[1:])]
    means = last.groupby("arm")[["density", "total_iterations", "saving"]].mean()
    for x, y, saving in means.itertuples(index=False):
        ax.annotate(f"-{saving:.0f} %", (x, y), (6, -3), textcoords="offset points", fontsize=8)
    density_axis(ax, frame.density.min())
    ax.set(yscale="log", xlabel="sparsity of the ticket", ylabel="iterations of the search so far")
    ax.set_title("What does it cost to find a ticket?")
    legend(figure)
    saved = {arm: by_seed(last[last.arm == arm], "saving") for arm in arms[1:]}
    text = message(
        over_seeds(saved["prac"]),
        "PrAC's search takes fewer iterations than IMP's; saved",
        "PrAC's search is not clearly shorter than IMP's; saved",
        "PrAC's search takes more iterations than IMP's; saved",
        unit="%",
    )
    alone = over_seeds(saved["imp-early-stop"]) if saved["imp-early-stop"] else None
    return says(
        figure, text + (f" Early stopping alone saves {number(alone, '%')}." if alone else "")
    )


def decomposition(found: Mapping[str, Any]) -> Figure:
    """What each step saves of IMP's iterations, and what it does to accuracy, with intervals."""
    found = {name: found[name] for name in STEPS}
    figure, axes = panels(2, 4.6, 3.0, sharey=True)
    titles = {"saving": "iterations saved (% of IMP's)", "accuracy": "accuracy (points)"}
    for ax, (key, title) in zip(axes, titles.items(), strict=True):
        for place, name in enumerate(found):
            value, arm = as_interval(found[name][key]), "imp" if "alone" in name else "prac"
            if value is not None:
                error_bars(ax, place, value, labels.look(arm), upright=False, size=6.5)
        ax.axvline(0, color=GREY, lw=1, zorder=1)
        ax.set_title(title)
        ax.grid(False, axis="y")
    axes[0].set_yticks(range(len(found)), [labels.label(name) for name in found])
    axes[0].set_ylim(len(found) - 0.4, -0.6)
    steps = {name: as_interval(found[name]["saving"]) for name in found if "alone" not in name}
    known = {name: one for name, one in steps.items() if one is not None}
    most = max(known, key=lambda name: known[name].mean)
    others = (
        f"{labels.label(name)} {number(one, '%')}" for name, one in known.items() if name != most
    )
    text = f"The largest saving is that of {labels.label(most)}, {number(known[most], '%')}; "
    return says(figure, text + ", ".join(others) + ".")


# ---------------------------------------------------------------- other nets, masks


def transfer(found: Mapping[str, Any], params: PracParams) -> Figure:
    """Accuracy on the other nets by where the set comes from, in points against native sets."""
    rows = {
        "sequence_minus_native": "transfer-sequence",
        "final_minus_native": "transfer-final",
        "random_minus_native": "random-sets",
    }
    figure, axes = panels(len(params.others), 6.0, 2.0, sharey=True)
    for ax, other in zip(axes, params.others, strict=True):
        values = {arm: as_interval(found[other.name][key]) for key, arm in rows.items()}
        by_arm(ax, {arm: one for arm, one in values.items() if one is not None})
        ax.set_title(f"{labels.label(other.name)}: tickets from other sets than its own")
        ax.set_xlabel("points against the net's own sets, last epoch")
    said = message(
        as_interval(found["sequence_minus_native"]),
        "Sets carried over from another net serve better than the net's own",
        "Sets carried over from another net are not clearly better or worse than the net's own",
        "Sets carried over from another net serve worse than the net's own",
    )
    chance = as_interval(found[params.others[0].name]["random_minus_native"])
    return says(figure, said + (f" Random samples instead: {number(chance)}." if chance else ""))


SHADES = LinearSegmentedColormap.from_list("rounds", ["#9aa6d6", "#4266ba", "#12204a"])
"""Rounds from the first to the last, all visible on white."""


def distances(table: pd.DataFrame, params: PracParams, found: Mapping[str, Any]) -> Figure:
    """Mask distance by epoch, one line per round and seed: IMP to the end, PrAC as stopped.

    `found` are the numbers of the dense rounds in metrics.json.
    """
    figure, axes = panels(2, 4.9, 3.9, sharey=True)
    ranks = Normalize(1, params.rounds)
    titles = {"imp": "IMP, rounds run to their end", "prac": "PrAC, rounds end early"}
    for ax, (arm, title) in zip(axes, titles.items(), strict=True):
        for _, rows in table[table.arm == arm].groupby(["seed", "round"]):
            colour = SHADES(ranks(int(rows["round"].iloc[0])))
            ax.plot(rows.epoch, rows.distance, color=colour, lw=0.9, alpha=0.8)
        ax.axhline(params.stop.epsilon, color=EARLY, ls="--", lw=1.2, label="epsilon")
        drops = table[(table.arm == arm) & (table["round"] == 1)]["drop"]
        ax.axvline(drops.mean() + 0.5, color=GREY, ls=":", label="learning rate first falls")
        ax.set(title=title, xlabel="epoch (of the set)")
    axes[0].set_ylabel("mask distance")
    bar = plt.cm.ScalarMappable(ranks, SHADES)
    figure.colorbar(bar, ax=axes, label="round", ticks=MaxNLocator(integer=True))
    legend(figure, "below")
    fall, stop = as_interval(found["fall"]), found["stop_after_drop"]
    if fall is None:
        return says(figure, "These rounds do not reach the learning rate's first fall.")
    less = f"decreases by a factor of {number(fall, '')}"
    ends = f"; PrAC's dense round ends {stop['mean']:.1f} epochs after it" if stop else ""
    return says(
        figure,
        f"Within an epoch of the learning rate's first fall IMP's mask distance {less}{ends}.",
    )


def overlap(table: pd.DataFrame) -> Figure:
    """IoU of masks with IMP's of the same seed, arms as rows; dashed: by chance."""
    arms = (AGAIN, "imp-early-stop", "short-imp", "prac", "random", "cet-only")
    found = {arm: _percent(table[table.arm == arm]) for arm in arms}
    ran = sorted((arm for arm in found if found[arm]), key=lambda arm: -_mean(found[arm]))
    figure, (ax,) = panels(1, 7.5, 0.3 * len(ran) + 1.2)
    by_arm(ax, {shown(arm): found[arm] for arm in ran}, line=100 * table.chance.mean())
    ax.set(title="How near is each mask to IMP's?")
    ax.set_xlabel("intersection over union with IMP's mask of the same seed (%); dashed: by chance")
    ax.set_xlim(0, None)
    pair = minus(found["prac"], found[AGAIN])
    if not pair:
        own = number(over_seeds(found["prac"]), "% of the union")
        chance = f"by chance {100 * table.chance.mean():.1f} %"
        return says(figure, f"PrAC's masks share {own} with IMP's; {chance}.")
    said = message(
        over_seeds(pair),
        "PrAC's masks are nearer to IMP's than those of IMP on another data order",
        "PrAC's masks are about as near to IMP's as those of IMP on another data order",
        "PrAC's masks share less with IMP's than those of IMP on another data order",
    )
    return says(figure, said)


def _percent(rows: pd.DataFrame) -> BySeed:
    return {seed: 100 * value for seed, value in by_seed(rows, "iou").items()}


def _mean(found: BySeed) -> float:
    return over_seeds(found).mean
