"""The figures of the DLTH notebook: each takes tables, draws one question and says the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.figures_by_hand import KEPT, REMOVED
from ticketlab.papers.dlth.metrics import ACCURACY, at_own_rates, at_rates, difference, values_of
from ticketlab.papers.dlth.params import Case, RstParams
from ticketlab.study.plots import (
    by_arm,
    error_bars,
    legend,
    look,
    message,
    panels,
    says,
    summarise,
    trade,
)
from ticketlab.study.stats import (
    BySeed,
    Interval,
    as_interval,
    by_seed,
    over_seeds,
    percent_saved,
)
from ticketlab.study.tables import LABELS

ARMS = (
    "rst",
    "rst-iter",
    "warm-up",
    "abrupt",
    "scratch-long",
    "scratch",
    "lth",
    "lth-iter",
    "l1",
    "early-bird",
)
"""The arms that are methods or controls of their budget, in the order of the rows."""
SCHEDULES = {
    "warm-up": None,
    "rst-jump": 0,
    "rst": 1,
    "rst-square": 2,
    "rst-cube": 3,
    "abrupt": None,
}
"""Arms by how soon the removed weights are pressed: power of the growth, none for the extremes."""


def sparse(level: float) -> str:
    """A level as panels and columns call it: '98 % sparsity'."""
    return f"{100 * level:g} % sparsity"


# ---------------------------------------------------------------- the arms


def accuracy(rows: pd.DataFrame, case: Case) -> Figure:
    """Test accuracy of each arm at the highest sparsity, arms as rows; dashed: the dense net.

    Left at the common learning rate, right at each seed's own one where a case has rates. `rows`
    are those of all cases.
    """
    here, own = rows[rows.case == case.name], at_own_rates(rows, case)
    parts = {"one common learning rate": here, "own learning rates": own}
    shown = [arm for arm in ARMS if values_of(here, arm, case.judged)]
    drawn = {title: part for title, part in parts.items() if len(part)}
    figure, axes = panels(len(drawn), 4.2, 0.3 * len(shown) + 1.3, sharey=True, sharex=True)
    for ax, (title, part) in zip(axes, drawn.items(), strict=True):
        dense = over_seeds(values_of(part, "dense", case.judged))
        by_arm(ax, {arm: values_of(part, arm, case.judged) for arm in shown}, line=dense.mean)
        ax.set_title(title)
    figure.supxlabel(f"{LABELS[ACCURACY]}, {sparse(case.judged)}; dashed: dense net", fontsize=9)
    here_said = f"At {sparse(case.judged)} and one common learning rate"
    said = [_against(here, "lth", case.judged, here_said)]
    if len(own):
        said.append(_against(own, "lth", case.judged, "At own learning rates"))
    return says(figure, " ".join(said))


def _against(rows: pd.DataFrame, other: str, level: float, where: str) -> str:
    """RST against another arm in a sentence."""
    name = labels.label(other)
    by = difference(rows, "rst", other, level) if len(rows) else {}
    return message(
        over_seeds(by) if by else None,
        f"{where} RST is better than {name}",
        f"{where} RST and {name} do not clearly differ",
        f"{where} RST is worse than {name}",
    )


def rates(rows: pd.DataFrame, cases: Sequence[Case]) -> Figure:
    """Test accuracy against the learning rate of finetuning, a panel per case with several."""
    some = [case for case in cases if case.rates]
    figure, axes = panels(len(some), 4.4, 3.8)
    for ax, case in zip(axes, some, strict=True):
        every = at_rates(rows, case)
        for i, (arm, style) in enumerate(look(("dense", *case.rate_arms)).items()):
            values = summarise(every[every.arm == arm], ["lr"], ACCURACY)
            places = values.lr * 1.03 ** (i - len(case.rate_arms) / 2)  # side by side
            ax.plot(places, values["mean"], color=style["color"], lw=0.8, alpha=0.6)
            error_bars(ax, places, values, style, label=labels.label(arm), size=6)
        ax.set(xscale="log", xlabel="learning rate of finetuning")
        ax.set_title(f"{labels.label(case.name)}, {sparse(case.judged)}")
        ax.set_xticks(case.rates, [f"{lr:g}" for lr in case.rates])
        ax.minorticks_off()
    axes[0].set(ylabel=LABELS[ACCURACY])
    legend(figure)
    means = at_rates(rows, some[0]).groupby(["arm", "lr"])[ACCURACY].mean()
    best = {str(arm): means[arm].idxmax() for arm in ("rst", "lth", "scratch")}
    said = "; ".join(f"{labels.label(arm)}: {rate:g}" for arm, rate in best.items())
    where = f"{labels.label(some[0].name)}, {sparse(some[0].judged)}"
    return says(figure, f"The learning rate with the highest mean test accuracy ({where}): {said}.")


def fairness(rows: pd.DataFrame, case: Case) -> Figure:
    """Accuracy lost against images saved, both against LTH, a panel per level.

    The grey line joins Scratch and Scratch-long, the same recipe given more images: what the
    budget alone buys.
    """
    levels = case.levels_of("scratch-long") or (case.judged,)
    figure, axes = panels(len(levels), 6.2, 4.2, sharey=True)
    for ax, level in zip(axes, levels, strict=True):
        own = rows[(rows.case == case.name) & (rows.level == level)]
        points = {
            arm: (_images_saved(own, arm), difference(own, arm, "lth", level))
            for arm in dict.fromkeys(("scratch", "scratch-long", *ARMS))
            if arm != "lth" and (own.arm == arm).any()
        }
        _budget(ax, points)
        trade(ax, points, "lth", cost="images")
        ax.set_title(sparse(level))
    legend(figure)
    by = difference(rows[rows.case == case.name], "rst", "scratch-long", levels[-1])
    where = f"At {sparse(levels[-1])}"
    said = message(
        over_seeds(by) if by else None,
        f"{where} RST is better than the same random mask trained on as many images",
        f"{where} RST does not clearly differ from the same random mask trained on as many images",
        f"{where} RST is worse than the same random mask trained on as many images",
    )
    return says(figure, said)


def _images_saved(rows: pd.DataFrame, arm: str) -> BySeed:
    """Images that an arm saves, in percent of all that LTH saw, by seed."""
    own, lth = (by_seed(rows[rows.arm == name], "images") for name in (arm, "lth"))
    return percent_saved(own, lth)


def _budget(ax: Axes, points: Mapping[str, tuple[BySeed, BySeed]]) -> None:
    """The line from Scratch to Scratch-long, where both ran."""
    ends = [points[arm] for arm in ("scratch", "scratch-long") if arm in points]
    if len(ends) == 2:
        x, y = ([over_seeds(end[side]).mean for end in ends] for side in (0, 1))
        ax.plot(x, y, color="0.8", lw=5, zorder=0, label="random mask, more images")


def gains(rows: pd.DataFrame, cases: Sequence[Case]) -> Figure:
    """Difference of every arm to Scratch, paired by seed, a panel per case and level."""
    shown = [(case, level) for case in cases for level in case.levels_of("scratch")]
    rows = rows[rows.case.isin([case.name for case in cases])]
    names = [arm for arm in rows.arm.unique() if arm not in ("scratch", "dense")]
    names = sorted(names, key=lambda arm: ARMS.index(arm) if arm in ARMS else len(ARMS))
    figure, axes = panels(len(shown), 3.0, 0.27 * len(names) + 1.2, sharey=True)
    for ax, (case, level) in zip(axes, shown, strict=True):
        own = rows[rows.case == case.name]
        by_arm(ax, {arm: difference(own, arm, "scratch", level) for arm in names})
        ax.set_title(f"{labels.label(case.name)},\n{sparse(level)}")
    figure.supxlabel(
        f"points over the {labels.label('scratch')}, paired by seed, last step", fontsize=9
    )
    main = cases[0]
    return says(
        figure,
        _against(rows[rows.case == main.name], "scratch", main.judged, f"At {sparse(main.judged)}"),
    )


def extrusion(looks: pd.DataFrame, case: Case, found: Mapping[str, Any]) -> Figure:
    """Accuracy with and without the removed weights during RST's transformation, mean and band.

    `found` are the checks of the method in metrics.json.
    """
    levels = case.levels_of("rst")
    figure, axes = panels(len(levels), 4.6, 3.8, sharey=True)
    own = looks[(looks.case == case.name) & (looks.arm == "rst")]
    modes = {
        "dense_mode": ("all weights", REMOVED),
        "masked_mode": ("without the removed weights", KEPT),
    }
    for ax, level in zip(axes, levels, strict=True):
        for mode, (label, color) in modes.items():
            values = summarise(own[own.level == level], ["iteration"], mode)
            ax.plot(values.iteration, values["mean"], "-o", ms=4, color=color, label=label)
            ax.fill_between(
                values.iteration, values.low, values.high, color=color, alpha=0.15, lw=0
            )
        ax.set(xlabel="iteration of the transformation", title=sparse(level))
        ax.set_ylim(0, 100)
    axes[0].set(ylabel="validation accuracy (%)")
    legend(figure, "below")
    return says(
        figure,
        message(
            as_interval(found["removal_gain"]),
            f"At {sparse(case.judged)} the removal after the transformation gains accuracy",
            f"At {sparse(case.judged)} the removal does not clearly change accuracy",
            f"At {sparse(case.judged)} the removal after the transformation costs accuracy",
        ),
    )


# ---------------------------------------------------------------- schedules, draws


def schedules(rows: pd.DataFrame, looks: pd.DataFrame, params: RstParams) -> Figure:
    """The schedules that ran: lambda with its decay time, ``|w|`` ratio, accuracy as rows.

    Beside RST's stand the control without removed weights and the one that never removes them.
    """
    level, case = params.extra_levels[0], params.cases[0]
    ran = {arm: power for arm, power in SCHEDULES.items() if values_of(rows, arm, level)}
    figure, axes = panels(3, 4.1, 3.4)
    seen = looks[(looks.case == case.name) & (looks.level == level)]
    for arm, power in ran.items():
        if power is not None:
            penalty = case.penalty.model_copy(update={"power": power})
            window = algorithm.decay_time(penalty, case.transform)
            _growth(axes, arm, penalty, window, seen[seen.arm == arm])
    axes[0].set(xlabel="iteration", ylabel="lambda", title="Penalty (dotted: decay time)")
    axes[1].set(xlabel="iteration", title="Mean |w|, removed / kept")
    by_arm(axes[2], {arm: values_of(rows, arm, level) for arm in ran}, line=None)
    axes[2].yaxis.tick_right()
    axes[2].set(title=f"Test accuracy (%), {sparse(level)}")
    legend(figure, "below")
    by = difference(rows, "rst", "rst-jump", level)
    return says(
        figure,
        message(
            over_seeds(by) if by else None,
            f"At {sparse(level)} a growing penalty is better than the full one from the start",
            f"At {sparse(level)} a growing penalty does not clearly differ from the full one",
            f"At {sparse(level)} a growing penalty is worse than the full one from the start",
        ),
    )


def _growth(
    axes: Sequence[Axes], arm: str, penalty: algorithm.Penalty, window: float, looks: pd.DataFrame
) -> None:
    """One schedule: lambda and the end of its window, and the ratio of the weights."""
    color, marker = labels.colour(arm), labels.marker(arm)
    dash = labels.look(arm)["linestyle"]
    trace = [algorithm.strength(penalty, step) for step in range(int(looks.iteration.max()))]
    axes[0].plot(trace, color=color, ls=dash, label=labels.label(arm))
    axes[0].axvline(window, color=color, ls=":", lw=1)
    ratio = looks.groupby("iteration").ratio.mean()
    axes[1].semilogy(ratio.index, ratio.tolist(), ls=dash, marker=marker, ms=4, color=color)


def draws(table: pd.DataFrame, found: Mapping[str, Any]) -> Figure:
    """RST's accuracy by seed over masks on its initialisation, and over initialisations under its
    mask; the net that belongs to both is drawn once, between them.

    Beside them the deviations of both. `found` are their numbers in metrics.json.
    """
    figure, (ax, spread) = plt.subplots(
        1, 2, figsize=(11, 3.6), width_ratios=[3, 1], layout="constrained"
    )
    seeds = sorted(table.seed.unique())
    kinds = {"mask": ("other masks", "scratch", "o"), "init": ("other initial weights", "rst", "D")}
    for side, (varied, (label, arm, marker)) in enumerate(kinds.items()):
        rows = table[(table.varied == varied) & (table.draw > 0)]
        at = rows.seed.map(seeds.index) + 0.4 * side - 0.2
        ax.plot(
            at, rows[ACCURACY], marker, color=labels.colour(arm), ms=4.5, alpha=0.7, label=label
        )
    shared = table[(table.varied == "mask") & (table.draw == 0)]
    ax.plot(
        shared.seed.map(seeds.index), shared[ACCURACY], "_", color="0.2", ms=11, mew=2,
        label="the seed's own mask and weights",
    )  # fmt: skip
    ax.set_xticks(range(len(seeds)), [str(seed) for seed in seeds])
    bed = labels.label(str(table.case.iloc[0]))
    ax.set(xlabel="seed", ylabel=LABELS[ACCURACY])
    ax.set_title(f"RST under other masks and initial weights, {bed}")
    ax.grid(False, axis="x")
    _deviations(spread, {key: as_interval(found[key]) for key in ("over_masks", "over_inits")})
    legend(figure, "below")
    ratio = f"ln of the ratio of their standard deviations, weights over masks ({bed})"
    return says(
        figure,
        message(
            as_interval(found["inits_over_masks"]),
            f"Accuracy varies more over initial weights than over masks; {ratio}",
            f"Accuracy does not clearly vary more over masks or over initial weights; {ratio}",
            f"Accuracy varies more over masks than over initial weights; {ratio}",
            "",
        ),
    )


def _deviations(ax: Axes, found: Mapping[str, Interval | None]) -> None:
    """Standard deviations over masks and over initial weights, with their intervals."""
    for place, (key, arm, marker) in enumerate(
        (("over_masks", "scratch", "o"), ("over_inits", "rst", "D"))
    ):
        if (one := found[key]) is not None:
            error_bars(ax, place, one, {"color": labels.colour(arm), "marker": marker}, size=6)
    ax.set_xticks([0, 1], ["masks", "initial\nweights"])
    ax.set_xlim(-0.6, 1.6)
    ax.set_ylim(0, None)
    ax.set(title="Standard deviation", ylabel="points")
