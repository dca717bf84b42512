"""The figures of the COLT notebook: each takes tables, draws one question, returns the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ticketlab.labels import label
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import (
    HALF,
    MATCHED,
    SEARCHED,
    ColtParams,
    Transfer,
    arm_name,
)
from ticketlab.papers.colt.report import (
    ACCURACY,
    WHOLE,
    dense,
    difference,
    interpolated,
    moved_differences,
    near,
    nearest,
    rounds_to_target,
    span,
    sparsities,
)
from ticketlab.pruning.criteria import Scores
from ticketlab.pruning.masks import Mask
from ticketlab.study import plots
from ticketlab.study.plots import GREY, PALETTE, curves, density_axis, look, message, number, says
from ticketlab.study.stats import (
    BySeed,
    Interval,
    across,
    as_interval,
    by_seed,
    count,
    each_seed,
    minus,
    over_seeds,
    percent_saved,
)
from ticketlab.study.tables import LABELS

CLASS, RANDOM = "class", "random images"
"""COLT's two splits in the lists of arms below; the parameters say how the arms are called."""
SEARCHES = ("imp", MATCHED, HALF, CLASS, RANDOM)
"""Arms with a search of their own."""
SHOWN = (*SEARCHES, "random", "magnitude")


def named(params: ColtParams, arms: Sequence[str] = SHOWN) -> list[str]:
    """Return the names of arms in tables, without further searches that the study does not run."""
    splits = {CLASS: params.main[0].name, RANDOM: params.main[1].name}
    further = {RANDOM: "random", HALF: "half"}
    run = [arm for arm in arms if arm not in further or further[arm] in params.further]
    return [splits.get(arm, arm) for arm in run]


def _mean(parts: Sequence[BySeed]) -> Interval | None:
    """Return the interval of each seed's mean over several numbers; None without any."""
    found = across(part for part in parts if part)
    return over_seeds(found) if found else None


# ---------------------------------------------------------------- one round by hand


def one_round(scores: Sequence[Scores], own: Sequence[Mask], shown: int = 4000) -> Figure:
    """Final magnitudes of the same weights in the first two copies, coloured by their fate.

    Dashed lines are each copy's own threshold. `shown` weights are drawn, evenly spread; those
    below 1e-4 stand there.
    """
    values = [np.concatenate([s[n].flatten().cpu().numpy() for n in own[0]]) for s in scores[:2]]
    kept = [mask.flat().cpu().numpy() for mask in own[:2]]
    words = np.array(
        ["pruned by both", "kept by copy 0 only", "kept by copy 1 only", "kept by both"]
    )
    fate = words[kept[0] + 2 * kept[1]]
    some = np.linspace(0, len(fate) - 1, min(shown, len(fate))).astype(int)
    figure, ax = plt.subplots(figsize=(6.5, 5))
    x, y = (value[some].clip(1e-4) for value in values)
    colours = [GREY, PALETTE[0], PALETTE[1], PALETTE[2]]
    sns.scatterplot(
        x=x, y=y, hue=fate[some], hue_order=words, palette=colours, s=8, linewidth=0, ax=ax
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)
    ax.axvline(values[0][~kept[0]].max(), ls="--", color="0.35", lw=1)
    ax.axhline(values[1][~kept[1]].max(), ls="--", color="0.35", lw=1)
    ax.set(xscale="log", yscale="log", xlim=(8e-5, None), ylim=(8e-5, None))
    ax.set(title="The same weights after round 1", xlabel="|w| in copy 0", ylabel="|w| in copy 1")
    both, each = (100 * part.mean() for part in (kept[0] & kept[1], kept[0]))
    text = "The copies disagree, so the common mask keeps fewer weights than either"
    return says(figure, f"{text}: {both:.0f} % against {each:.0f} % of each copy.")


# ---------------------------------------------------------------- accuracy


def accuracy(points: Mapping[str, pd.DataFrame], params: ColtParams) -> Figure:
    """Draw test accuracy of retrained tickets against sparsity, one panel per rewinding point.

    `points` maps what it is rewound to, in words, to the point's table of scores.
    """
    figure, axes = plots.panels(len(points), 5.4, 5.2, sharey=True)
    for ax, (rewound, scores) in zip(axes, points.items(), strict=True):
        frame = scores.assign(density=1 - scores.sparsity)
        curves(ax, frame, "density", ACCURACY, look(named(params)), "round")
        ax.axhline(dense(scores)[ACCURACY].mean(), color=GREY, lw=1, ls=":", label="dense net")
        density_axis(ax, frame.density.min())
        ax.set(xlabel="sparsity of the convolution weights", title=f"Rewound to {rewound}")
    axes[0].set_ylabel(LABELS[ACCURACY])
    plots.within(axes[0])
    plots.legend(figure, "below")
    found = _mean(_differences(next(iter(points.values())), params, params.main[0].name, MATCHED))
    return says(figure, _compared(found, "those of IMP at its pace"))


def _differences(scores: pd.DataFrame, params: ColtParams, arm: str, other: str) -> list[BySeed]:
    """Return the paired differences of two arms at each level."""
    return [difference(scores, arm, other, level) for level in params.levels]


def _compared(found: Interval | None, other: str) -> str:
    """Say how COLT's tickets compare with others of equal sparsity."""
    return message(
        found,
        f"At equal sparsity COLT's tickets beat {other}, mean over levels",
        f"At equal sparsity COLT's tickets do not differ clearly from {other}, mean over levels",
        f"At equal sparsity COLT's tickets lose to {other}, mean over levels",
    )


def points(
    numbers: Mapping[str, Mapping[str, Any]],
    tickets: Mapping[str, pd.DataFrame],
    level: float,
    params: ColtParams,
) -> Figure:
    """Draw accuracy near one sparsity, one row per arm, controls below what they control.

    One panel per rewinding point; `numbers` maps what it is rewound to, in words, to the point's
    numbers (`metrics`), `tickets` to its table of scores.
    """
    key, rows = f"at_{100 * level:g}", _rows(params)
    figure, axes = plots.panels(len(numbers), 5.8, 5.4, sharey=True)
    found = {
        rewound: {arm: as_interval(own["accuracy"].get(arm, {}).get(key)) for arm in rows}
        for rewound, own in numbers.items()
    }
    shown = [arm for arm in rows if any(own[arm] for own in found.values())]
    for ax, (rewound, own) in zip(axes, found.items(), strict=True):
        whole = as_interval(numbers[rewound]["accuracy"]["dense"])
        line = whole.mean if whole else None
        plots.by_arm(ax, {arm: own[arm] or {} for arm in shown}, line=line)
        scores = tickets[rewound]
        real = pd.concat([nearest(scores, arm, level).sparsity for arm in shown])
        ax.set(xlabel=LABELS[ACCURACY])
        ax.set_title(f"Rewound to {rewound}\n(tickets of {span(real)} sparsity)", fontsize=10)
        plots.within(ax, side="x")
    figure.suptitle(f"Tickets {near(level)} sparsity (dashed: the dense net)")
    first = next(iter(numbers.values()))["differences"]["colt_minus_shuffled"][key]
    real = sparsities(next(iter(tickets.values())), params.main[0].name, level)
    return says(figure, _mask_matters(as_interval(first), real))


def _mask_matters(found: Interval | None, sparsity: str) -> str:
    """Say whether COLT's masks matter beyond their densities per layer, at a sparsity."""
    at = f", {sparsity} sparsity"
    return message(
        found,
        f"Where COLT's weights lie matters: its tickets beat their shuffled masks{at}",
        f"COLT's tickets do not differ clearly from their shuffled masks{at}",
        f"COLT's tickets lose even to their shuffled masks{at}",
    )


def _rows(params: ColtParams) -> list[str]:
    """Return the arms of `points` in their order, controls after what they control."""
    rows: list[str] = []
    for arm in named(params):
        rows.append(arm)
        if arm in (MATCHED, *(variant.name for variant in params.main)):
            rows += [arm_name(arm, how) for how in SEARCHED]
    return rows


# ---------------------------------------------------------------- pace and cost


def pace(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Draw remaining weights against round, and the band from identical to chance-level masks."""
    figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    arms = look(named(params, ("imp", HALF, CLASS, RANDOM)))
    turns = np.arange(rounds["round"].max() + 1)
    fastest = algorithm.chance_rate(params.rate, params.partitions)
    slow, fast = (1 - params.rate) ** turns, (1 - fastest) ** turns
    ax.fill_between(turns, slow, fast, color="0.9", label="identical masks\nto chance overlap")
    begin = dense(rounds)
    frame = pd.concat([rounds[rounds["round"] > 0], *(begin.assign(arm=arm) for arm in arms)])
    frame = frame.assign(density=1 - frame.sparsity)
    curves(ax, frame, "round", "density", arms, "round")
    ax.axhline(1 - params.target, color=GREY, lw=1, ls="--", label="target")
    lowest = 0.6 * min(1 - params.target, frame[frame.arm.isin(arms)].density.min())
    ax.set(yscale="log", ylim=(lowest, 1.1), xlabel="round")
    ax.set_yticks([one for one in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if one > lowest])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{100 * density:g} %"))
    ax.set(ylabel="weights left", title="How fast is it pruned?")
    plots.legend(figure)
    own, imp = (
        rounds_to_target(rounds, arm, params.target) for arm in named(params, (CLASS, "imp"))
    )
    return says(figure, fewer_rounds(own, imp, params.target))


def fewer_rounds(own: BySeed, imp: BySeed, target: float) -> str:
    """Say in how many rounds COLT and IMP reach the target, and how many COLT saves per seed."""
    if not (saved := minus(imp, own)):
        return f"No seed has both COLT and IMP at {100 * target:g} % sparsity."
    both = ([by[seed] for seed in saved] for by in (own, imp))
    took, needed = (f"{count(values).mean:.3g}" for values in both)
    one = count(list(saved.values()))
    spread = f"{one.least:g} to {one.most:g} fewer" if one.least < one.most else ""
    spread = spread or f"{one.least:g} fewer in every seed"
    text = f"To at least {100 * target:g} % sparsity COLT takes {took} rounds instead of IMP's"
    return f"{text} {needed} ({spread}, n = {one.n})."


def cost(scores: pd.DataFrame, params: ColtParams) -> Figure:
    """Draw accuracy lost against the search's images saved, IMP at the origin, a panel per level.

    Both are read at the sparsity of the arm's ticket nearest to the level.
    """
    figure, axes = plots.panels(len(params.levels), 4, 4.4, sharey=True, sharex=True)
    arms = named(params, (CLASS, RANDOM, MATCHED, HALF, "random"))
    for ax, level in zip(axes, params.levels, strict=True):
        found = {arm: _traded(scores, arm, level) for arm in arms if (scores.arm == arm).any()}
        plots.trade(ax, found, "imp", cost="images")
        real = sparsities(scores, params.main[0].name, level)
        ax.set_title(f"{near(level)} sparsity\n(COLT: {real})", fontsize=10)
    for ax in axes[1:]:
        ax.set_ylabel("")
    plots.legend(figure, "below")
    saved, lost = _traded(scores, params.main[0].name, params.levels[-1])
    if not saved or not lost:
        return says(figure, "COLT and IMP have no seed in common here.")
    images, points = (over_seeds(by) for by in (saved, lost))
    text = f"COLT saves {number(images, '% of the images', 0)} of IMP's search"
    real = sparsities(scores, params.main[0].name, params.levels[-1])
    return says(figure, f"{text} at {real} sparsity; accuracy, COLT minus IMP: {number(points)}.")


def _traded(scores: pd.DataFrame, arm: str, level: float) -> tuple[BySeed, BySeed]:
    """Return percent of IMP's images saved and points against IMP, by seed, near a level."""
    own = nearest(scores, arm, level)
    imp = interpolated(scores, "imp", by_seed(own, "sparsity"), "search_images")
    paid = {seed: images for seed, images in imp.items() if images > 0}
    saved = percent_saved(by_seed(own, "search_images"), paid)
    return saved, difference(scores, arm, "imp", level)


def agreement(rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Draw the effective rate u and agreement J of each round, against chance."""
    figure, axes = plots.panels(2, 4.6, 4)
    arms = named(params, (CLASS, RANDOM))
    titles = {"rate": "u: removed per round", "agreement": "J: agreement on what to prune"}
    for ax, (value, title) in zip(axes, titles.items(), strict=True):
        curves(ax, rounds, "round", value, look(arms), "round")
        chance = rounds[rounds.arm.isin(arms)][f"chance_{value}"].dropna()
        if len(chance):
            ax.axhline(chance.iloc[0], color=GREY, ls="--", lw=1, label="chance")
        ax.set(xlabel="round", title=title, ylim=(0, 1.1 * ax.get_ylim()[1]))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.legend(figure, "below")
    own, *others = (each_seed(rounds[rounds.arm == arm], "agreement") for arm in arms)
    if not others:
        agreed = number(over_seeds(own), "", 3)
        return says(figure, f"Copies agree on what to prune, mean J over rounds: {agreed}.")
    (random,) = others
    apart, j = minus(random, own), "J on random images minus J on classes, mean over rounds"
    return says(
        figure,
        message(
            over_seeds(apart) if apart else None,
            f"Copies that see different classes agree less than copies that see random images, {j}",
            f"The split into classes does not clearly change the agreement of the copies, {j}",
            f"Copies that see different classes agree more than copies that see random images, {j}",
            "",
            2,
        ),
    )


# ---------------------------------------------------------------- layers and other data


def layers(table: pd.DataFrame, rounds: pd.DataFrame, params: ColtParams) -> Figure:
    """Draw each layer's density by arm near the highest level, mean over seeds."""
    level = max(params.levels)
    arms = named(params, (CLASS, RANDOM, "imp", MATCHED))
    wanted = pd.concat([nearest(rounds, arm, level)[["arm", "seed", "round"]] for arm in arms])
    picked = table.merge(wanted)
    heat = 100 * picked.groupby(["layer", "arm"], sort=False).density.mean().unstack()[arms]
    colt, imp = heat[arms[0]], heat["imp"]
    first = str((colt / imp.clip(lower=1e-6) - 1).abs().idxmax())
    text = f"COLT and IMP differ most, as a ratio, in {label(first)}: {colt[first]:.1f} % of its"
    heat.index = [label(layer) for layer in heat.index]
    heat.columns = [f"{label(arm)}\n{sparsities(rounds, arm, level)}" for arm in arms]
    figure, ax = plt.subplots(figsize=(9, 0.4 * len(heat) + 1.8), layout="constrained")
    few = len(heat) <= 25
    sns.heatmap(heat, annot=few, fmt=".1f", cmap="viridis", ax=ax, cbar_kws={"label": "% kept"})
    title = f"Density (%) of each layer, tickets {near(level)} sparsity"
    ax.set(title=title, xlabel="method, and the sparsity of its tickets", ylabel="")
    real, theirs = (sparsities(rounds, arm, level) for arm in (arms[0], "imp"))
    kept = f"weights are kept by COLT, {imp[first]:.1f} % by IMP"
    return says(figure, f"{text} {kept} (tickets of {real} and {theirs} sparsity).")


def transfer(table: pd.DataFrame, moving: Transfer) -> Figure:
    """Draw accuracy of moved tickets on their new data, one row per arm, a panel per sparsity.

    Below each ticket stands its mask alone, on fresh weights; dashed is the dense net there.
    """
    figure, axes = plots.panels(len(moving.levels), 5.2, 4.2, sharey=True)
    whole = table[table.arm == "dense"][ACCURACY].mean()
    moved = table[table.arm != "dense"]
    arms = list(dict.fromkeys(moved.arm))
    for ax, level in zip(axes, moving.levels, strict=True):
        found: dict[str, BySeed | Interval] = {}
        for arm in arms:
            for carried, name in ((WHOLE, arm), ("mask only", f"{arm}, mask only")):
                own = moved[(moved.carried == carried) & (moved.arm == arm)]
                if len(own):
                    found[name] = by_seed(nearest(own, arm, level), ACCURACY)
        plots.by_arm(ax, found, line=float(whole))
        real = span(pd.concat([nearest(moved, arm, level).sparsity for arm in arms]))
        ax.set(xlabel=LABELS[ACCURACY])
        ax.set_title(f"{near(level)} sparsity\n(tickets of {real})", fontsize=10)
        plots.within(ax, side="x")
    figure.suptitle(f"Tickets moved to {label(moving.data.name)} (dashed: the dense net there)")
    colt = next(arm for arm in arms if arm.startswith("colt"))
    apart = moved_differences(table, colt, f"{colt}-shuffled", moving.levels)
    where, over = f"On {label(moving.data.name)}", ", mean over levels" if len(apart) > 1 else ""
    return says(
        figure,
        message(
            _mean(list(apart.values())),
            f"{where} COLT's tickets beat their shuffled masks{over}",
            f"{where} COLT's tickets do not differ clearly from their shuffled masks{over}",
            f"{where} COLT's tickets lose to their shuffled masks{over}",
        ),
    )
