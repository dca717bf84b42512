"""What the DLTH study says: tables, differences paired by seed and mask, own rates, metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.params import POWERS, Case, RstParams, draw_seed
from ticketlab.study import images, regime, tables
from ticketlab.study.controls import control
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Interval,
    above_chance,
    as_metric,
    by_seed,
    minus,
    over_levels,
)
from ticketlab.study.tables import LABELS, Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""What tables, differences and claims of this study are about."""
CHOSEN_BY = "last_validation"
"""What chooses an arm's own learning rate: accuracy on validation images, at the same moment."""
ONE_MASK = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", *POWERS, "reinit", "signs")
"""The arms that share the seed's random mask."""
EQUAL_BUDGET = ("scratch-long", "warm-up", "abrupt")
"""The controls that see as many images as RST."""
TRAINED = 80.0
"""What the dense net must get right of its training images, in percent, to count as trained."""
BEDS = ("main", "boundary", "tiny_imagenet")
"""The cases with numbers of their own in metrics.json, the first under the name 'main'."""

Pairs = tuple[tuple[str, str], ...]
"""Arms whose difference is asked for, the first minus the second."""
HEADLINE: Pairs = (
    ("rst", "lth"),
    ("rst", "scratch"),
    ("rst", "scratch-long"),
    ("lth", "scratch"),
)
BASELINES: Pairs = (
    ("rst", "dense"),
    ("rst", "lth-iter"),
    ("rst", "early-bird"),
    ("rst", "l1"),
    ("lth-iter", "scratch"),
    ("rst-iter", "rst"),
)
BUDGET: Pairs = (
    ("rst", "scratch-long"),
    ("rst", "warm-up"),
    ("rst", "abrupt"),
    ("rst", "rst-jump"),
    ("rst", "rst-square"),
    ("rst", "rst-cube"),
    ("rst-iter", "scratch-long"),
)
DAMAGE: Pairs = (
    ("rst", "shuffled"),
    ("rst", "reinit"),
    ("rst", "signs"),
    ("reinit", "scratch-long"),
)
SWAPS: Pairs = (
    ("rst-magnitude", "rst"),
    ("rst-antimagnitude", "rst"),
    ("rst-erk", "rst"),
    ("rst-erk", "scratch-erk"),
    ("rst-lth-mask", "rst"),
)
PAIRS: Pairs = tuple(dict.fromkeys((*HEADLINE, *BASELINES, *BUDGET, *DAMAGE, *SWAPS)))
"""All differences in metrics.json, in points; null where an arm did not run."""


# ---------------------------------------------------------------- tables


def all_rows(results: Results) -> pd.DataFrame:
    """One row a finetuned net, further draws included: what it is, costs, accuracies in percent."""
    return rows_of(results, "rows").drop(columns="layers")


def arms_table(results: Results) -> pd.DataFrame:
    """One row an arm, seed and level; mask and weights belong to the same seed."""
    frame = all_rows(results)
    return frame[frame.mask_seed == frame.seed].reset_index(drop=True)


def draws_table(results: Results, params: RstParams) -> pd.DataFrame:
    """RST at the first extra level: masks on one initialisation, initialisations under one mask.

    Of the first case that draws any. Columns case, varied ("mask" or "init"), draw, last_accuracy.
    The first draw belongs to both.
    """
    columns, first = ["case", "varied", "draw", ACCURACY], params.seeds[0]
    drawing = [case for case in params.cases if case.draws > 1]
    if not drawing:
        return pd.DataFrame(columns=columns)
    frame, case = all_rows(results), drawing[0]
    rst = (frame.arm == "rst") & (frame.case == case.name)
    frame = frame[rst & (frame.level == case.extra_levels[0])]
    others = [first, *(draw_seed(draw) for draw in range(1, case.draws))]
    rows = []
    for varied, fixed in (("mask_seed", "seed"), ("seed", "mask_seed")):
        chosen = frame[(frame[fixed] == first) & frame[varied].isin(others)].sort_values(varied)
        name = {"mask_seed": "mask", "seed": "init"}[varied]
        rows += [(case.name, name, i, value) for i, value in enumerate(chosen[ACCURACY])]
    return pd.DataFrame(rows, columns=columns)


def looks_table(results: Results) -> pd.DataFrame:
    """One row a look into a transformation: iteration, both modes' accuracy (%), ratio, lambda."""
    frame = rows_of(results, "looks")
    return frame[frame.mask_seed == frame.seed].reset_index(drop=True)


# ---------------------------------------------------------------- paired differences


def values_of(rows: pd.DataFrame, arm: str, level: float) -> BySeed:
    """One arm's test accuracy by seed at a level; the dense net stands at every level."""
    found = rows[(rows.arm == arm) & ((rows.level == level) | (arm == "dense"))]
    return by_seed(found, ACCURACY)


def difference(rows: pd.DataFrame, arm: str, other: str, level: float) -> BySeed:
    """Test accuracy of `arm` minus `other` by seed, in points; empty if one did not run there."""
    return minus(values_of(rows, arm, level), values_of(rows, other, level))


def differences(rows: pd.DataFrame, levels: Sequence[float]) -> dict[str, Any]:
    """All of PAIRS at all levels, for the rows of one case."""
    return {
        name(arm, other): over_levels(
            {level: difference(rows, arm, other, level) for level in levels}
        )
        for arm, other in PAIRS
    }


def name(arm: str, other: str) -> str:
    """A difference's key in metrics.json."""
    return f"{arm}_minus_{other}".replace("-", "_")


def judged(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """All of PAIRS at the case's highest level."""
    return {
        name(arm, other): as_metric(difference(rows, arm, other, case.judged))
        for arm, other in PAIRS
    }


def gap_growth(rows: pd.DataFrame, levels: Sequence[float]) -> dict[str, Any] | None:
    """RST minus Scratch at the highest level, minus the same at the lowest."""
    if len(levels) < 2:
        return None
    high, low = (difference(rows, "rst", "scratch", level) for level in (max(levels), min(levels)))
    return as_metric(minus(high, low))


# ---------------------------------------------------------------- learning rates


def at_rates(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """The rows of a case's dense net and `rate_arms` at its highest level, at all of its rates."""
    names = [case.name, *(each.name for each in case.rated)]
    arms = rows.arm.isin(case.rate_arms) & (rows.level == case.judged)
    return rows[rows.case.isin(names) & (arms | (rows.arm == "dense"))]


def at_own_rates(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Of each arm and seed the row at its own rate: the best on validation, of equals the lowest.

    Empty where a case has no rates. Test images have no part in the choice.
    """
    found = at_rates(rows, case).sort_values("lr") if case.rates else rows[:0]
    return found.loc[found.groupby(["arm", "seed"])[CHOSEN_BY].idxmax()]


def by_rate(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Test accuracy of each arm of `at_rates` at each rate, and at its own one."""
    every, own = at_rates(rows, case), at_own_rates(rows, case)
    found: dict[str, Any] = {}
    for arm in own.arm.unique():
        each = {f"{lr:g}": every[every.lr == lr] for lr in case.rates} | {"own": own}
        found[str(arm)] = {
            f"lr_{rate}".replace(".", "_"): as_metric(by_seed(part[part.arm == arm], ACCURACY))
            for rate, part in each.items()
        }
    return found


# ---------------------------------------------------------------- checks of the method (C4, C5)


def method_checks(rows: pd.DataFrame, looks: pd.DataFrame, case: Case) -> dict[str, Any]:
    """What removal does and what went before it, by seed, at the highest level of one case."""
    there = rows[rows.level == case.judged]
    seen = looks[(looks.arm == "rst") & (looks.case == case.name) & (looks.level == case.judged)]
    return {
        "removal_gain": as_metric(removal_gain(there[there.arm == "rst"])),
        "gap_closed": as_metric(gap_closed(seen)),
        "kept_over_removed": as_metric(
            {seed: 1 / ratio for seed, ratio in _noted(there, "rst", "ratio_at_removal").items()}
        ),
    }


def _noted(rows: pd.DataFrame, arm: str, column: str) -> BySeed:
    return by_seed(rows[rows.arm == arm], column) if column in rows else {}


def removal_gain(rows: pd.DataFrame) -> BySeed:
    """Validation accuracy after the removal minus before, by seed; rows of one arm and level."""
    if rows.empty:
        return {}
    return minus(by_seed(rows, "after_removal"), by_seed(rows, "before_removal"))


def gap_closed(looks: pd.DataFrame) -> BySeed:
    """Points by which dense mode led masked mode at most, less its lead at the end, by seed."""
    lead = looks.assign(lead=looks.dense_mode - looks.masked_mode).sort_values("iteration")
    groups = lead.groupby("seed").lead
    return {int(str(seed)): float(x) for seed, x in (groups.max() - groups.last()).items()}


# ---------------------------------------------------------------- masks against initialisations


def deviation_ratio(masks: Sequence[float], inits: Sequence[float]) -> Interval | None:
    """Spread over initialisations against spread over masks, as ln(s_init / s_mask) (C11).

    Above 0 the mask matters less than the initialisation. The 95 % bounds are those of the ratio of
    two variances (F distribution); with few draws they are wide. None below 2 draws.
    """
    if min(len(masks), len(inits)) < 2:
        return None
    value = np.log(np.std(inits, ddof=1) / np.std(masks, ddof=1))
    n, m = len(inits) - 1, len(masks) - 1
    down, up = (np.log(stats.f.ppf(0.975, *pair)) / 2 for pair in ((n, m), (m, n)))
    return Interval(float(value), float(value - down), float(value + up), len(masks))


# ---------------------------------------------------------------- metrics


def metrics(results: Results, params: RstParams) -> dict[str, Any]:
    """All numbers of the study for metrics.json; a case or arm that did not run is null."""
    rows, looks, main = arms_table(results), looks_table(results), params.cases[0]
    own, draws = rows[rows.case == main.name], draws_table(results, params)
    spread = [draws[draws.varied == v][ACCURACY].tolist() for v in ("mask", "init")]
    ratio = deviation_ratio(*spread)
    cases = dict.fromkeys(BEDS) | beds(params)
    return {
        "references": references(rows, params),
        "controls": {bed: case and positive_controls(rows, case) for bed, case in cases.items()},
        "accuracy": {case.name: accuracies(rows, case) for case in params.cases},
        "differences": differences(own, main.levels),
        "common_rate": {
            bed: case and judged(rows[rows.case == case.name], case) for bed, case in cases.items()
        },
        "own_rate": {
            bed: case and judged(at_own_rates(rows, case), case) for bed, case in cases.items()
        },
        "rates": {bed: case and by_rate(rows, case) for bed, case in cases.items()},
        "gap_growth": gap_growth(own, main.levels),
        "method": method_checks(own, looks, main),
        "draws": {
            "inits_over_masks": ratio and asdict(ratio),
            "over_masks": as_metric(spread[0]),
            "over_inits": as_metric(spread[1]),
        },
        "budget": budget(own),
    }


def beds(params: RstParams) -> dict[str, Case]:
    """The cases by their names in metrics.json."""
    return {"main": params.cases[0]} | {case.name: case for case in params.others}


def references(rows: pd.DataFrame, params: RstParams) -> dict[str, Any]:
    """The dense net of each case, which must have learned something, beside chance there."""
    found: dict[str, Any] = dict.fromkeys(BEDS)
    for bed, case in beds(params).items():
        own = rows[rows.case == case.name]
        labels = load(case.data).test.y
        arm = f"the dense net of {case.name}"
        found[bed] = {arm: above_chance(values_of(own, "dense", 0.0), labels)}
    return found


def positive_controls(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """What must hold on a case before claims are judged there, all at its highest level but one."""
    own, at_own = rows[rows.case == case.name], at_own_rates(rows, case)
    high, low = case.judged, min(case.levels)
    light = difference(own, "dense", "lth", low) if low < high else {}
    lost = removal_gain(own[(own.arm == "abrupt") & (own.level == high)])
    return {
        "trained": control(
            "the dense net learns its training images (accuracy in %)",
            by_seed(own[own.arm == "dense"], "train_accuracy"),
            at_least=TRAINED,
        ),
        "pruning_does_not_help": control(
            f"light pruning does not help (dense minus LTH at {low:.0%})", light, at_least=-1.0
        ),
        "lth_beats_scratch": control(
            "LTH beats a random mask on the initial weights",
            difference(own, "lth", "scratch", high),
            above=0.0,
        ),
        "lth_beats_scratch_own_rate": control(
            "so it does at own learning rates",
            difference(at_own, "lth", "scratch", high),
            above=0.0,
        ),
        "imp_beats_random": control(
            "LTH-Iter beats a random mask on the initial weights",
            difference(own, "lth-iter", "scratch", high),
            above=0.0,
        ),
        "abrupt_removal_costs": control(
            "removal without the penalty costs 20 points",
            {seed: -gain for seed, gain in lost.items()},
            at_least=20.0,
        ),
    }


def accuracies(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Interval of each arm's test accuracy at each level where it ran."""
    own, found = rows[rows.case == case.name], {}
    for arm in own.arm.unique():
        levels = own[own.arm == arm].level.unique()
        found[str(arm)] = {
            f"at_{100 * level:g}": as_metric(values_of(own, arm, level)) for level in sorted(levels)
        }
    return found


def budget(rows: pd.DataFrame) -> dict[str, float]:
    """Images that each arm saw in all, its search included, over those of Scratch."""
    seen = rows.groupby("arm").images.mean()
    return {str(arm): float(count / seen["scratch"]) for arm, count in seen.items()}


# ---------------------------------------------------------------- tables for the page


def pairs_table(numbers: Mapping[str, Any], bed: str, pairs: Pairs) -> pd.DataFrame:
    """Differences at a bed's highest sparsity, at one common rate and at own rates.

    One row per pair that the study has, in points; no column for rates that none ran at.
    """
    columns = {"one common rate": "common_rate", "own rates": "own_rate"}
    found = {title: numbers[key][bed] or {} for title, key in columns.items()}
    rows = {
        f"{arm} - {other}": {
            c: tables.text(part.get(name(arm, other))) for c, part in found.items()
        }
        for arm, other in pairs
        if any(part.get(name(arm, other)) for part in found.values())
    }
    table = pd.DataFrame(rows, index=list(columns)).T.rename_axis("points, paired by seed")
    return table.loc[:, (table != tables.NONE).any()]


def rates_table(numbers: Mapping[str, Any], bed: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of each arm at each rate and at its own; in how many seeds a rate was chosen.

    `rows` are those of `at_own_rates`.
    """
    table = tables.intervals_table(numbers["rates"][bed] or {}, LABELS[ACCURACY])
    table.columns = [c.removeprefix("lr_").replace("_", ".") for c in table.columns]
    chosen = {
        arm: ", ".join(f"{lr:g} in {n}" for lr, n in own.lr.value_counts().sort_index().items())
        for arm, own in rows.groupby("arm")
    }
    return table.rename(columns={"own": "own rate"}).assign(chosen=pd.Series(chosen))


def spread_table(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """RST's accuracy over masks and over initial weights, and ln of the ratio of deviations."""
    return tables.intervals_column(numbers["draws"], "mean [95 % interval] (n)")


def images_table(results: Results, params: RstParams) -> pd.DataFrame:
    """HEADLINE's differences over test images instead of seeds, on the main case.

    Empty where seeds have different test images.
    """
    case, one_test = params.cases[0], params.data.test is None or params.data.split_seed is not None
    labels = load(params.data, seed=params.seeds[0]).test.y
    tag, known = f"{100 * case.judged:g}", images.hits(results, labels) if one_test else {}
    rows = {}
    for pair in HEADLINE:
        keys = [
            (f"{case.name}/pretrained", f"lth-{tag}")
            if arm == "lth"
            else (f"{case.name}/{arm}-{tag}", "ticket")
            for arm in pair
        ]
        if all(key in known for key in keys):
            rows[" - ".join(pair)] = images.over_images(*(known[key] for key in keys)).text()
    return pd.Series(rows, dtype=object).to_frame("points, 95 % over test images")


def accuracy_table(numbers: Mapping[str, Any], case: str) -> pd.DataFrame:
    """Test accuracy of every arm at every level: mean, 95 % interval, n."""
    arms = numbers["accuracy"][case]
    table = tables.intervals_table(arms, LABELS[ACCURACY])
    levels = {at for by in arms.values() for at in by}
    return table[[tables.heading(at) for at in sorted(levels, key=_level)]]


def _level(at: str) -> float:
    return float(at.removeprefix("at_"))


def curve_table(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> pd.DataFrame:
    """Accuracy (%) along finetuning, a column a run: at the start, its range early on, the end."""
    columns = {}
    for label, looks in runs.items():
        curve = [look["masked_mode"] for look in looks]
        early = curve[1 : 1 + max(1, len(curve) // 2)]
        columns[label] = {
            "before the first step": curve[0],
            "lowest in the first half": min(early),
            "highest in the first half": max(early),
            "at the end": curve[-1],
        }
    return pd.DataFrame(columns).round(1)


def cost_table(rows: pd.DataFrame, case: str) -> pd.DataFrame:
    """What each arm cost in all, over Scratch: images, dense and sparse FLOPs; mean over rows."""
    own = rows[rows.case == case]
    mean = own.groupby("arm", sort=False)[["images", "dense_flops", "sparse_flops"]].mean()
    scratch = mean.to_dict("index")["scratch"]
    return pd.DataFrame(
        {
            "images / Scratch": mean["images"] / scratch["images"],
            "dense FLOPs / Scratch": mean["dense_flops"] / scratch["dense_flops"],
            "sparse FLOPs / Scratch's dense ones": mean["sparse_flops"] / scratch["dense_flops"],
        }
    ).sort_values("images / Scratch")


def this_study(params: RstParams, data: DataSet) -> dict[str, str]:
    """What the fidelity card leaves to the study's parameters, of its main case."""
    case, count = params.cases[0], len(data.train)
    penalty, levels = case.penalty, ", ".join(f"{100 * level:g} %" for level in case.levels)
    return {
        "net": regime.net(case.model, case.prunable, data),
        "images": regime.images(case.data, data),
        "finetuning": regime.schedule(case.finetune, count),
        "transformation": regime.schedule(case.transform, count),
        "penalty": f"lambda to {penalty.ceiling:g} over {penalty.ramp:,} iterations",
        "borrowing window": _window(case, count),
        "learning rates": ", ".join(f"{lr:g}" for lr in case.rates)
        or f"{case.finetune.lr:g} alone",
        "sparsity of each masked layer": levels,
        "other cases": ", ".join(f"{c.name} ({c.model.name})" for c in params.others) or "none",
        "seeds": regime.seeds(params.seeds),
    }


def _window(case: Case, count: int) -> str:
    """The borrowing window in iterations and epochs of `count` images."""
    window = algorithm.borrowing_window(case.penalty, case.transform)
    per_epoch, _ = case.transform.iterations(count)
    return f"{window:,.0f} iterations, {window / per_epoch:.2g} epochs"
