"""Numbers of the DLTH study: differences by seed, own rates, controls, metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ticketlab.data.sets import load
from ticketlab.papers.dlth.params import POWERS, Case, RstParams, draw_seed
from ticketlab.study.controls import TRAINED, control
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    as_metric,
    by_seed,
    each_seed,
    minus,
    over_levels,
)
from ticketlab.study.tables import Accuracy, rows_of

Results = Mapping[str, Result]

ACCURACY: Accuracy = "last_accuracy"
"""The accuracy used in this study's tables, differences and claims."""
CHOSEN_BY = "last_validation"
"""Selects an arm's own learning rate: accuracy on validation images, after the same epoch."""
ONE_MASK = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", *POWERS, "reinit", "signs")
"""The arms that share the seed's random mask."""
EQUAL_BUDGET = ("scratch-long", "warm-up", "abrupt")
"""The controls that train on as many images as RST."""
BEDS = ("main", "boundary", "tiny_imagenet")
"""Cases with their own numbers in metrics.json; the first one's name there is 'main'."""

Pairs = tuple[tuple[str, str], ...]
"""Pairs of arms whose difference a claim uses, the first minus the second."""
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
"""All differences in metrics.json, in points; null if an arm did not run."""


# ---------------------------------------------------------------- tables


def all_rows(results: Results) -> pd.DataFrame:
    """Return one row per finetuned net, including further draws: keys, costs, accuracies in %."""
    return rows_of(results, "rows").drop(columns="layers")


def arms_table(results: Results) -> pd.DataFrame:
    """Return one row per arm, seed and level; mask and weights belong to the same seed."""
    frame = all_rows(results)
    return frame[frame.mask_seed == frame.seed].reset_index(drop=True)


def draws_table(results: Results, params: RstParams) -> pd.DataFrame:
    """Return RST at the first extra level, over further draws of the mask or initialisation.

    From the first case that has draws. Columns case, seed, varied ("mask" or "init"), draw,
    last_accuracy. The first draw belongs to both.
    """
    drawing, rows = [case for case in params.cases if case.draws > 1], []
    for case in drawing[:1]:
        frame = all_rows(results)
        frame = frame[(frame.arm == "rst") & (frame.case == case.name)]
        frame = frame[frame.level == case.extra_levels[0]].set_index(["seed", "mask_seed"])
        for seed in params.seeds:
            others = [seed, *(draw_seed(seed, draw) for draw in range(1, case.draws))]
            for draw, other in enumerate(others):
                for varied, key in (("mask", (seed, other)), ("init", (other, seed))):
                    rows.append((case.name, seed, varied, draw, frame.loc[key, ACCURACY]))
    return pd.DataFrame(rows, columns=["case", "seed", "varied", "draw", ACCURACY])


def looks_table(results: Results) -> pd.DataFrame:
    """Return one row per observation of a transformation: iteration, accuracies, ratio, lambda."""
    frame = rows_of(results, "looks")
    return frame[frame.mask_seed == frame.seed].reset_index(drop=True)


# ---------------------------------------------------------------- paired differences


def values_of(rows: pd.DataFrame, arm: str, level: float) -> BySeed:
    """Return one arm's test accuracy by seed at a level; the dense net counts for every level."""
    found = rows[(rows.arm == arm) & ((rows.level == level) | (arm == "dense"))]
    return by_seed(found, ACCURACY)


def difference(rows: pd.DataFrame, arm: str, other: str, level: float) -> BySeed:
    """Return test accuracy of `arm` minus `other` by seed, in points; empty if one did not run."""
    return minus(values_of(rows, arm, level), values_of(rows, other, level))


def differences(rows: pd.DataFrame, levels: Sequence[float]) -> dict[str, Any]:
    """Return all of PAIRS at all levels, for the rows of one case."""
    return {
        name(arm, other): over_levels(
            {level: difference(rows, arm, other, level) for level in levels}
        )
        for arm, other in PAIRS
    }


def name(arm: str, other: str) -> str:
    """Return a difference's key in metrics.json."""
    return f"{arm}_minus_{other}".replace("-", "_")


def judged(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Return all of PAIRS at the case's highest level."""
    return {
        name(arm, other): as_metric(difference(rows, arm, other, case.judged))
        for arm, other in PAIRS
    }


def gap_growth(rows: pd.DataFrame, levels: Sequence[float]) -> dict[str, Any] | None:
    """Return RST minus Scratch at the highest level, minus the same at the lowest."""
    if len(levels) < 2:
        return None
    high, low = (difference(rows, "rst", "scratch", level) for level in (max(levels), min(levels)))
    return as_metric(minus(high, low))


# ---------------------------------------------------------------- learning rates


def at_rates(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Return rows of a case's dense net and `rate_arms` at its highest level, at all its rates."""
    names = [case.name, *(each.name for each in case.rated)]
    arms = rows.arm.isin(case.rate_arms) & (rows.level == case.judged)
    return rows[rows.case.isin(names) & (arms | (rows.arm == "dense"))]


def at_own_rates(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Return for each arm and seed the row at its own rate: the best on validation, lowest if tied.

    Empty if a case has no rates. Test images are not used for the choice.
    """
    found = at_rates(rows, case).sort_values("lr") if case.rates else rows[:0]
    return found.loc[found.groupby(["arm", "seed"])[CHOSEN_BY].idxmax()]


def by_rate(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Return test accuracy of each arm of `at_rates` at each rate, and at its own rate."""
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
    """Return the effects of removal and of the penalty before it, by seed, at the highest level."""
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
    """Return validation accuracy after the removal minus before, by seed, for one arm and level."""
    if rows.empty:
        return {}
    return minus(by_seed(rows, "after_removal"), by_seed(rows, "before_removal"))


def gap_closed(looks: pd.DataFrame) -> BySeed:
    """Return by how many points dense mode's lead over masked mode fell from its peak, by seed."""
    lead = looks.assign(lead=looks.dense_mode - looks.masked_mode).sort_values("iteration")
    groups = lead.groupby("seed").lead
    return {int(str(seed)): float(x) for seed, x in (groups.max() - groups.last()).items()}


# ---------------------------------------------------------------- masks and initialisations


def deviations(draws: pd.DataFrame) -> dict[str, BySeed]:
    """Return the standard deviation over masks and over initialisations by seed (C11).

    Also ln of the second over the first, which is above 0 if the mask matters less than the
    initialisation. A seed whose draws all have equal accuracy has no ratio.
    """
    found = {
        varied: each_seed(draws[draws.varied == varied], ACCURACY, "std")
        for varied in ("mask", "init")
    }
    spread = {s: (found["init"][s], found["mask"][s]) for s in found["mask"]}
    ratio = {s: float(np.log(init / mask)) for s, (init, mask) in spread.items() if init and mask}
    return {"over_masks": found["mask"], "over_inits": found["init"], "inits_over_masks": ratio}


# ---------------------------------------------------------------- metrics


def metrics(results: Results, params: RstParams) -> dict[str, Any]:
    """Return all numbers of the study for metrics.json; null for cases and arms not run."""
    rows, looks, main = arms_table(results), looks_table(results), params.cases[0]
    own, drawn = rows[rows.case == main.name], deviations(draws_table(results, params))
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
        "draws": {what: as_metric(values) for what, values in drawn.items()},
        "budget": budget(own),
    }


def beds(params: RstParams) -> dict[str, Case]:
    """Return the cases by their names in metrics.json."""
    return {"main": params.cases[0]} | {case.name: case for case in params.others}


def references(rows: pd.DataFrame, params: RstParams) -> dict[str, Any]:
    """Return each case's dense net, which must have learned, with chance on its test images."""
    found: dict[str, Any] = dict.fromkeys(BEDS)
    for bed, case in beds(params).items():
        own = rows[rows.case == case.name]
        labels = load(case.data).test.y
        arm = f"the dense net of {case.name}"
        found[bed] = {arm: above_chance(values_of(own, "dense", 0.0), labels)}
    return found


def positive_controls(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Return the positive controls of a case, all at its highest level but one."""
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
            f"light pruning does not help (dense minus LTH at {100 * low:g} % sparsity)",
            light,
            at_least=-1.0,
        ),
        "lth_beats_scratch": control(
            f"LTH beats a random mask on the initial weights at {100 * high:g} % sparsity",
            difference(own, "lth", "scratch", high),
            above=0.0,
        ),
        "lth_beats_scratch_own_rate": control(
            f"LTH beats a random mask at {100 * high:g} % sparsity, each at its own learning rate",
            difference(at_own, "lth", "scratch", high),
            above=0.0,
        ),
        "imp_beats_random": control(
            f"LTH-Iter beats a random mask on the initial weights at {100 * high:g} % sparsity",
            difference(own, "lth-iter", "scratch", high),
            above=0.0,
        ),
        "early_bird_is_early": control(
            "in most seeds the early-bird mask settles before dense training ends",
            early_birds(own, case),
            above=50.0,
        ),
        "abrupt_removal_costs": control(
            "removal without the penalty costs at least 20 points of accuracy",
            {seed: -gain for seed, gain in lost.items()},
            at_least=20.0,
        ),
    }


def early_birds(rows: pd.DataFrame, case: Case) -> dict[int, bool]:
    """Return by seed whether the mask was drawn before the end; at the end it is that of L1."""
    drawn = rows[(rows.arm == "early-bird") & (rows.level == case.judged)]
    if drawn.empty:
        return {}
    end = case.finetune.iterations(len(load(case.data).train))[1]
    return {seed: at < end for seed, at in by_seed(drawn, "drawn_at").items()}


def accuracies(rows: pd.DataFrame, case: Case) -> dict[str, Any]:
    """Return the interval of each arm's test accuracy at each level where it ran."""
    own, found = rows[rows.case == case.name], {}
    for arm in own.arm.unique():
        levels = own[own.arm == arm].level.unique()
        found[str(arm)] = {
            f"at_{100 * level:g}": as_metric(values_of(own, arm, level)) for level in sorted(levels)
        }
    return found


def budget(rows: pd.DataFrame) -> dict[str, float]:
    """Return the images that each arm used in all, its search included, relative to Scratch."""
    seen = rows.groupby("arm").images.mean()
    return {str(arm): float(count / seen["scratch"]) for arm, count in seen.items()}
