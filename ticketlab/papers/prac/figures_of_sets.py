"""The figures of the PrAC notebook about the sets: their size, their classes, what is in them."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.study.plots import error_bars, legend, number, panels, says, summarise
from ticketlab.study.stats import over_seeds

KINDS = {"only_cet": "CET only", "both": "CET and CEP", "only_cep": "CEP only"}
KIND_COLOURS = (labels.colour("prac"), "0.55", labels.colour("selection"))


def composition(sets: pd.DataFrame) -> Figure:
    """Size of PrAC's sets by round, stacked by kind, and the share of CEP that is CET, too."""
    figure, axes = panels(2, 5.2, 3.9)
    own = sets[sets.place == "main"]
    bars = own.groupby("round")[list(KINDS)].mean().rename(columns=KINDS)
    colours = dict(zip(KINDS.values(), KIND_COLOURS, strict=True))
    bars.plot.bar(stacked=True, ax=axes[0], width=0.8, color={**colours}, legend=False)
    points = own.groupby("round").share.agg(["mean", "min", "max"])
    reach = points.rename(columns={"min": "low", "max": "high"})
    error_bars(axes[0], range(len(points)), reach, {"color": "0.2", "marker": " "})
    axes[0].set(title="The set after each round (lines: range of seeds)", xlabel="round")
    axes[0].set_ylabel("% of the training split")
    ticks = range(0, len(points), 1 + len(points) // 8)
    axes[0].set_xticks(ticks, [str(points.index[tick]) for tick in ticks], rotation=0)
    values = summarise(own.dropna(subset="overlap"), ["round"], "overlap")
    axes[1].errorbar(
        values["round"],
        values["mean"],
        yerr=[values["mean"] - values.low, values.high - values["mean"]],
        fmt="o-",
        ms=4,
        color=labels.colour("prac"),
    )
    axes[1].set(title="How much of CEP is also CET?", xlabel="round", ylabel="% of CEP")
    axes[1].set_ylim(0, 100)
    axes[1].set_xticks([int(points.index[tick]) for tick in ticks])
    legend(figure, "below")
    return says(figure, _growth(own))


def _growth(own: pd.DataFrame) -> str:
    """First, smallest and last size of the sets, in words."""
    share = own.pivot(index="seed", columns="round", values="share")
    first, least, last = (
        over_seeds(dict(zip(share.index.tolist(), part.tolist(), strict=True)))
        for part in (share[1], share.min(axis=1), share[share.columns[-1]])
    )
    grown = float((share[share.columns[-1]] - share.min(axis=1)).mean())
    after = "then grow again to" if grown > 1 else "and end at"
    return (
        f"Sets shrink from {number(first, '%')} of the data to {least.mean:.2f} % at the least, "
        f"{after} {number(last, '%')}."
    )


def class_balance(classes: pd.DataFrame) -> Figure:
    """Share of each class in PrAC's sets by round, mean over seeds."""
    heat = classes.pivot_table(index="class", columns="round", values="share", aggfunc="mean")
    few = len(heat) <= 20 and heat.shape[1] <= 25
    figure, (ax,) = panels(1, 8.5, 0.3 * min(len(heat), 20) + 1.6)
    even = 100 / len(heat)
    sns.heatmap(
        heat,
        annot=few,
        fmt=".0f",
        annot_kws={"fontsize": 7},
        cmap="vlag",
        center=even,
        ax=ax,
        cbar_kws={"label": "% of the set"},
    )
    ax.set_title(f"Classes in the set (balanced would be {even:g} % each)")
    last = heat[heat.columns[-1]]
    return says(
        figure,
        f"In the last set classes have {last.min():.1f} to {last.max():.1f} % of the samples, "
        f"class {last.idxmin()} the fewest and class {last.idxmax()} the most (means over "
        f"{classes.seed.nunique()} seeds); balanced would be {even:g} %.",
    )


def forgetting_by_round(table: pd.DataFrame) -> Figure:
    """Samples of each round's set by forgetting events, mean over seeds, in percent of the set."""
    wide = table.pivot_table(index="round", columns="events", values="share", sort=False)
    used = wide.loc[:, wide.max() > 0.5]
    figure, (ax,) = panels(1, 7.5, 3.8)
    colours = sns.color_palette("rocket_r", len(used.columns)).as_hex()
    used.plot.bar(stacked=True, ax=ax, width=0.8, color=list(colours), legend=False)
    ax.set(title="How often does each round forget its samples?", ylabel="% of the round's samples")
    ax.set_ylim(0, 100)
    ax.tick_params(axis="x", rotation=0)
    legend(figure)
    figure.legends[0].set_title("events")
    first, last = (wide["0"].iloc[place] for place in (0, -1))
    return says(
        figure,
        f"Samples that are never forgotten make up {first:.0f} % of the first round's samples and "
        f"{last:.0f} % of the last round's (means over {table.seed.nunique()} seeds).",
    )
