"""What the DLTH study says: tables, differences paired by seed and mask, metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.dlth.params import DAMAGED, POWERS, Case, RstParams, draw_seed
from ticketlab.study import regime, tables
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    Interval,
    above_chance,
    as_metric,
    as_share,
    by_seed,
    minus,
    over_levels,
)
from ticketlab.study.tables import LABELS, Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""What tables, differences and claims of this study are about."""
ONE_MASK = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", *POWERS, "reinit", "signs")
"""The arms that share the seed's random mask."""
EQUAL_BUDGET = ("scratch-long", "warm-up", "abrupt")
"""The controls that see as many images as RST."""

# The differences that metrics.json holds for every case, in points; null where an arm did not run.
RIVALS = (
    "dense",
    "scratch",
    "scratch-long",
    "warm-up",
    "abrupt",
    "lth",
    "lth-iter",
    "l1",
    "early-bird",
    "reinit",
    "signs",
    "shuffled",
    "rst-jump",
    "rst-square",
    "rst-cube",
)
PAIRS = (
    *(("rst", rival) for rival in RIVALS),
    ("rst-iter", "rst"),
    ("rst-iter", "scratch-long"),
    ("scratch-long", "rst"),
    ("warm-up", "rst"),
    ("lth", "scratch"),
    ("rst-magnitude", "rst"),
    ("rst-antimagnitude", "rst"),
    ("rst-erk", "rst"),
    ("rst-erk", "scratch-erk"),
    ("rst-lth-mask", "rst"),
    ("rst-lth-mask", "lth"),
    ("scratch", "reinit"),
    ("scratch", "signs"),
)


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

    Columns varied ("mask" or "init"), draw, last_accuracy. The first draw belongs to both.
    """
    columns = ["varied", "draw", ACCURACY]
    if params.draws < 2:
        return pd.DataFrame(columns=columns)
    frame, first = all_rows(results), params.seeds[0]
    rst = (frame.arm == "rst") & (frame.case == params.name)
    frame = frame[rst & (frame.level == params.extra_levels[0])]
    others = [first, *(draw_seed(draw) for draw in range(1, params.draws))]
    rows = []
    for varied, fixed in (("mask_seed", "seed"), ("seed", "mask_seed")):
        chosen = frame[(frame[fixed] == first) & frame[varied].isin(others)].sort_values(varied)
        name = {"mask_seed": "mask", "seed": "init"}[varied]
        rows += [(name, i, value) for i, value in enumerate(chosen[ACCURACY])]
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
        f"{arm}_minus_{other}".replace("-", "_"): over_levels(
            {level: difference(rows, arm, other, level) for level in levels}
        )
        for arm, other in PAIRS
    }


def gap_growth(rows: pd.DataFrame, levels: Sequence[float]) -> dict[str, Any] | None:
    """RST minus Scratch at the highest level, minus the same at the lowest."""
    if len(levels) < 2:
        return None
    high, low = (difference(rows, "rst", "scratch", level) for level in (max(levels), min(levels)))
    return as_metric(minus(high, low))


# ---------------------------------------------------------------- checks of the method (C1-C5)


def method_checks(rows: pd.DataFrame, looks: pd.DataFrame, case: Case) -> dict[str, Any]:
    """C1 to C5 on the random masks of one case, each by seed, at the level that does worst."""
    rst = rows[rows.arm == "rst"]
    gone = rst.after_removal - rst.before_removal
    abrupt = rows[rows.arm == "abrupt"]
    worst = {
        "mask_random": (1 - (rst.init_ratio - 1).abs()).groupby(rst.seed).min(),
        "lambda_as_planned": (1 - rst.lambda_error).groupby(rst.seed).min(),
        "kept_over_removed": (1 / rst.ratio_at_removal).groupby(rst.seed).min(),
        "removal_gain": gone.groupby(rst.seed).min(),
        "gap_closed": gap_closed(looks[(looks.arm == "rst") & (looks.case == case.name)]),
    }
    found: dict[str, Any] = {"mask_exact": as_share(masks_exact(rows))}
    found |= {name: as_metric(values.to_dict()) for name, values in worst.items()}
    loss = pd.Series(dtype=float)
    if len(abrupt):
        loss = (abrupt.before_removal - abrupt.after_removal).groupby(abrupt.seed).min()
    return found | {"abrupt_removal_loss": as_metric(loss.to_dict())}


def masks_exact(rows: pd.DataFrame) -> dict[int, bool]:
    """Whether a seed's random masks are exact, unchanged, and one in all arms, by seed."""
    arms = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", *set(DAMAGED) - {"shuffled"})
    own = rows[rows.arm.isin(arms)]
    one = own.groupby(["seed", "level"]).mask_sha256.nunique().eq(1).groupby("seed").all()
    kept = (own.exact & own.intact).groupby(own.seed).all()
    return {int(str(seed)): bool(holds) for seed, holds in (one & kept).items()}


def gap_closed(looks: pd.DataFrame) -> pd.Series:
    """Points by which dense mode led masked mode at most, less its lead at the end, by seed."""
    lead = looks.assign(lead=looks.dense_mode - looks.masked_mode).sort_values("iteration")
    groups = lead.groupby(["seed", "level"]).lead
    return (groups.max() - groups.last()).groupby("seed").mean()


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
    return {
        "references": references(rows, params),
        "accuracy": {case.name: accuracies(rows, case) for case in params.cases},
        "differences": differences(own, main.levels),
        "gap_growth": gap_growth(own, main.levels),
        "method": method_checks(own, looks, main),
        "draws": {
            "inits_over_masks": ratio and asdict(ratio),
            "over_masks": as_metric(spread[0]),
            "over_inits": as_metric(spread[1]),
        },
        "budget": budget(own),
        **{name: other_case(rows, params, name) for name in ("boundary", "tiny_imagenet")},
    }


def references(rows: pd.DataFrame, params: RstParams) -> dict[str, Any]:
    """The dense net of each case, which must have learned something, beside chance there."""
    found: dict[str, Any] = dict.fromkeys(("dense", "boundary", "tiny_imagenet"))
    for case in params.cases:
        own = rows[rows.case == case.name]
        labels = load(case.data).test.y
        arm = f"the dense net of {case.name}"
        key = "dense" if case.name == params.cases[0].name else case.name
        found[key] = {arm: above_chance(values_of(own, "dense", 0.0), labels)}
    return found


def other_case(rows: pd.DataFrame, params: RstParams, name: str) -> dict[str, Any]:
    """The differences of a case that only some studies have; all null in the others."""
    levels = next((case.levels for case in params.cases if case.name == name), ())
    return differences(rows[rows.case == name], levels)


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
    case, images = params.cases[0], len(data.train)
    penalty, levels = case.penalty, ", ".join(f"{100 * level:g} %" for level in case.levels)
    return {
        "net": regime.net(case.model, case.prunable, data),
        "images": regime.images(case.data, data),
        "finetuning": regime.schedule(case.finetune, images),
        "transformation": regime.schedule(case.transform, images),
        "penalty": f"lambda to {penalty.ceiling:g} over {penalty.ramp:,} iterations",
        "sparsity of each masked layer": levels,
        "other cases": ", ".join(f"{c.name} ({c.model.name})" for c in params.others) or "none",
        "seeds": regime.seeds(params.seeds),
    }
