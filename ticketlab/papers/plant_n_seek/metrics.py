"""The numbers that decide the claims on Plant 'n' Seek, each with its interval over seeds.

Every metric is worded so that a claim reads "at least": `margin` is score against ticket (0 is the
ticket, negative is worse), `shortfall` the opposite. A metric is None if the study has no such arm.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import log10
from typing import Any

import pandas as pd

from ticketlab import plugins
from ticketlab.papers.plant_n_seek.conv.report import conv_metrics, conv_references
from ticketlab.papers.plant_n_seek.params import Case, PlantParams
from ticketlab.papers.plant_n_seek.report import (
    Results,
    audit_table,
    built_in,
    is_accuracy,
    main_case,
    of_main,
    scores_table,
)
from ticketlab.papers.plant_n_seek.units import PlantBench
from ticketlab.study.stats import (
    as_metric,
    as_percent,
    as_reference,
    as_share,
    chance_accuracy,
    each_seed,
    interval,
    minus,
)

ONE_SHOT = ("random", "magnitude", "snip", "grasp", "synflow")
"""The paper's singleshot methods."""
SPECIAL = ("snip", "grasp", "synflow")
TRAINED = ("magnitude", "snip", "synflow")
"""Multishot methods that the paper finds good."""
MODERATE, SPARSE = 0.1, 0.011
"""From this density on the paper calls a ticket moderate; up to this one it is sparse."""
USUAL = ("random", "magnitude", "synflow")
"""Singleshot methods that leave no path at the ticket's density, and that handle Helix at 0.5."""
TRAINS = {"0.1": 88.0, "0.5": 93.0}
"""Circle: accuracy (%) that one shot should reach at a density, by magnitude, SNIP and SynFlow."""
RANDOM_TRAINS = {"0.1": 80.0, "0.5": 93.0}
"""And by random pruning."""
FOUND = 0.30103
"""Decades: an error within twice the ticket's counts as finding a ticket as good."""

Found = dict[str, Any] | None


def metrics(results: Results, params: PlantParams) -> dict[str, Any]:
    """All numbers of the study for metrics.json: intervals by arm, and what decides the claims."""
    tested = scores_table(results)
    every = built_in(tested)
    main = of_main(every, params)
    audits = audit_table(results)
    return {
        "references": references(main, params) | conv_references(results, params),
        "singleshot": singleshot_metrics(arms(main, regime="singleshot", mother="planted")),
        "multishot": multishot_metrics(main[main.mother == "planted"]),
        "depth": depth_metrics(every, main),
        "noise": noise_metrics(every),
        "strong": strong_metrics(main[main.mother == "planted"]),
        "popup": popup_metrics(main),
        "controls": control_metrics(main),
        "audit": audit_metrics(audits),
        "visible": visible_metrics(audits),
        "conv": conv_metrics(results),
        "scores": score_intervals(tested),
    }


# ---------------------------------------------------------------- has a bed learned anything?

POPPED = {"circle": "raw", "relu": "scalar", "helix": "per_output"}
"""The score of edge-popup that the claims on a task are about."""


def references(main: pd.DataFrame, params: PlantParams) -> dict[str, Any]:
    """What must have learned something, by task: the trained dense net of the main cell.

    For claims on edge-popup also its masks of density 0.5 on the planted mother (linear head),
    where they ran. Chance is a constant prediction.
    """
    found: dict[str, Any] = {}
    dense = arms(main, method="dense", mother="planted", regime="singleshot")
    popped = arms(main, regime="popup_linear", mother="planted", method="plain", label="0.5")
    for task, score in POPPED.items():
        trained = {f"the dense net on {task}": over_constant(dense, task, "weak", params)}
        mask = {f"edge-popup on {task}": over_constant(popped, task, score, params)}
        found |= {task: trained, f"popup_{task}": trained | mask}
    return found


def over_constant(rows: pd.DataFrame, task: str, column: str, params: PlantParams) -> Found:
    """A score on a task as a reference beside that of the best constant prediction.

    Circle: accuracy beside the share of the most frequent class (the highest of all seeds). Else
    the decades by which the error is below that of predicting the mean, where 0 is chance.
    """
    scores = each_seed(arms(rows, task=task), column, "mean")
    if not scores:
        return None
    case = main_case(params).model_copy(update={"task": task})
    chance = {seed: constant_score(params, case, seed) for seed in scores}
    if is_accuracy(task):
        return as_reference(scores, max(chance.values()), params.test)
    below = {seed: log10(chance[seed] / max(error, 1e-12)) for seed, error in scores.items()}
    return as_reference(below, 0.0)


def constant_score(params: PlantParams, case: Case, seed: int) -> float:
    """What the best constant prediction scores on a seed's test set: accuracy (%) or error."""
    outputs = PlantBench(params, case, seed).test[1]
    if is_accuracy(case.task):
        return chance_accuracy(outputs)
    return float(outputs.var(dim=0, correction=0).mean())


# ---------------------------------------------------------------- choosing and summing up


def arms(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows whose columns have these values; a tuple allows any of its values."""
    for column, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        frame = frame[frame[column].isin(allowed)]
    return frame


def over_seeds(values: Mapping[int, float], factor: float = 1.0) -> Found:
    """The interval of factor times the values; None without any."""
    return as_metric({seed: factor * value for seed, value in values.items()})


def apart(a: Mapping[int, float], b: Mapping[int, float]) -> Found:
    """The interval of a - b over the seeds that both have; None without any."""
    return as_metric(minus(a, b))


def worst(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """Margin of the worst arm of each seed."""
    return over_seeds(each_seed(rows, column, "min"))


def best(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """Margin of the best arm of each seed."""
    return over_seeds(each_seed(rows, column, "max"))


def shortfall(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """How far the best arm of each seed stays below the ticket."""
    return over_seeds(each_seed(rows, column, "max"), -1.0)


def below(rows: pd.DataFrame, bound: float, column: str = "weak") -> Found:
    """By how many accuracy points the best arm of each seed stays below `bound` percent."""
    return over_seeds({seed: bound - v for seed, v in each_seed(rows, column, "max").items()})


def decades_below(rows: pd.DataFrame, bound: float, column: str = "weak") -> Found:
    """By how many decades the largest error of each seed stays below `bound`."""
    largest = each_seed(rows, column, "max")
    return over_seeds({seed: log10(bound / max(v, 1e-12)) for seed, v in largest.items()})


def decades_above(rows: pd.DataFrame, bound: float, column: str = "weak") -> Found:
    """By how many decades the smallest error of each seed stays above `bound`."""
    smallest = each_seed(rows, column, "min")
    return over_seeds({seed: log10(max(v, 1e-12) / bound) for seed, v in smallest.items()})


def share(rows: pd.DataFrame, holds: Callable[[pd.DataFrame], pd.Series]) -> Found:
    """The share of seeds for all of whose rows something holds."""
    if rows.empty:
        return None
    flags = holds(rows).groupby(rows.seed).all()
    return as_share({int(str(seed)): bool(flag) for seed, flag in flags.items()})


def _weak(rows: pd.DataFrame, how: str = "mean") -> dict[int, float]:
    return each_seed(rows, "weak_margin", how)


# ---------------------------------------------------------------- the claims' numbers


def singleshot_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C1 to C4 and C12: one scoring at the start, then training."""
    one = arms(rows, method=ONE_SHOT)
    moderate, sparse = one[one.density >= MODERATE], one[one.density <= SPARSE]
    circle = arms(one, task="circle")
    often = arms(rows, task="circle", method="synflow_rounds")
    return {
        "circle_worst_moderate_margin": worst(arms(moderate, task="circle")),
        "relu_worst_moderate_margin": worst(arms(moderate, task="relu")),
        "helix_best_shortfall": shortfall(arms(one, task="helix")),
        "circle_sparse_shortfall": shortfall(arms(sparse, task="circle")),
        "relu_sparse_shortfall": shortfall(arms(sparse, task="relu")),
        "synflow_rounds_sparse_gain": apart(
            _weak(often[often.density <= SPARSE]),
            _weak(arms(sparse, task="circle", method="synflow")),
        ),
        "circle_gt_dead": share(
            arms(circle, label="gt", method=("random", "magnitude", "synflow")),
            lambda r: ~r.alive.astype(bool),
        ),
        "magnitude_minus_special": apart(
            _weak(arms(moderate, task="circle", method="magnitude")),
            _weak(arms(moderate, task="circle", method=SPECIAL)),
        ),
        "drop_at_001": apart(_weak(arms(circle, label="0.1")), _weak(arms(circle, label="0.01"))),
        "circle_above_thresholds": worst(_over_thresholds(circle), "above"),
        "circle_gt_below_20": below(arms(circle, label="gt", method=USUAL), 20.0),
        "relu_gt_shortfall": shortfall(arms(one, task="relu", label="gt")),
        "helix_below_0002_at_05": decades_below(
            arms(one, task="helix", label="0.5", method=USUAL), 0.002
        ),
        "helix_grasp_above_01": decades_above(arms(one, task="helix", method="grasp"), 0.1),
    }


def _over_thresholds(circle: pd.DataFrame) -> pd.DataFrame:
    """The arms that TRAINS is about, with the points that they are `above` it."""
    rows = arms(circle, label=tuple(TRAINS), method=("random", *TRAINED))
    bound = rows.label.map(TRAINS).where(rows.method != "random", rows.label.map(RANDOM_TRAINS))
    return rows.assign(above=rows.weak - bound)


def multishot_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C7, C8 and C10: ten rounds of training, scoring, pruning and resetting."""
    many, once = arms(rows, regime="multishot"), arms(rows, regime="singleshot")
    circle, helix = arms(many, task="circle"), arms(many, task="helix")
    at: dict[str, object] = {"task": "circle", "label": "0.01", "method": TRAINED}
    both = (many, once)
    few = circle[circle.density <= MODERATE]
    grasp = each_seed(arms(few, method=("grasp", "grasp_local")), "weak_margin", "mean")
    sparse = many[many.density <= SPARSE]
    return {
        "circle_gain_at_001": apart(_weak(arms(many, **at)), _weak(arms(once, **at))),
        "synflow_gt_margin": best(arms(circle, method="synflow", label="gt")),
        "synflow_minus_others_at_gt": apart(
            _weak(arms(circle, label="gt", method="synflow")),
            _weak(arms(circle, label="gt", method=("magnitude", "snip", "grasp")), "max"),
        ),
        **{
            f"{method}_gain_at_001": apart(
                *(_weak(arms(r, **at | {"method": method})) for r in both)
            )
            for method in TRAINED
        },
        "helix_margin_at_01": best(arms(helix, label="0.1")),
        "grasp_deficit": apart(_weak(arms(few, method=TRAINED)), grasp),
        "grasp_local_deficit": apart(
            _weak(arms(few, method=TRAINED)), _weak(arms(few, method="grasp_local"))
        ),
        "helix_sparse_shortfall": shortfall(arms(sparse, task="helix")),
        "relu_sparse_shortfall": shortfall(arms(sparse, task="relu")),
    }


def depth_metrics(every: pd.DataFrame, main: pd.DataFrame) -> dict[str, Found]:
    """C5: shallow, deep and wide mothers, Circle, one shot."""
    same = {"task": "circle", "regime": "singleshot", "mother": "planted", "method": ONE_SHOT}
    rows = arms(every, **same)
    usual = set(main.depth)
    shallow = rows[(rows.depth == 3) & (rows.density < 0.2)]
    deep = rows[(rows.depth == 10) & (rows.label == "0.1")]
    plain = arms(rows[rows.depth.isin(usual)], label="0.1")
    return {
        "depth3_shortfall": shortfall(shallow),
        "depth10_minus_main": apart(_weak(deep, "max"), _weak(plain, "max")),
        "wide_likeness": wide_likeness(rows[(rows.depth == 6) & rows.noise.isin(set(main.noise))]),
    }


def wide_likeness(rows: pd.DataFrame) -> Found:
    """Minus the points between untrained masks of mothers 1000 and 100 wide, where both ran."""
    wide, usual = (rows[rows.width == width] for width in (1000, 100))
    common = tuple(set(wide.label) & set(usual.label))
    one, other = (
        each_seed(arms(r, label=common), "per_output_margin", "mean") for r in (wide, usual)
    )
    return over_seeds({seed: -abs(one[seed] - other[seed]) for seed in one if seed in other})


def noise_metrics(every: pd.DataFrame) -> dict[str, Found]:
    """C6: how much more a pruned net loses to its ticket under the most noise than under none."""
    rows = arms(every, task="circle", regime="singleshot", mother="planted", depth=6, label="0.1")
    rows = arms(rows, method=("magnitude", "synflow"))
    most, none = rows[rows.noise == rows.noise.max()], rows[rows.noise == 0]
    return {"margin_most_minus_none": apart(_weak(most), _weak(none)) if len(most) else None}


def strong_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C9, first half: masks of the weak-ticket methods without any training, scales fitted."""
    pruned = arms(rows, regime=("singleshot", "multishot"), method=(*ONE_SHOT, "synflow_rounds"))
    return {
        "circle_shortfall": shortfall(arms(pruned, task="circle"), "per_output_margin"),
        "helix_shortfall": shortfall(arms(pruned, task="helix"), "per_output_margin"),
        "relu_shortfall": shortfall(arms(pruned, task="relu"), "scalar_margin"),
        "circle_oracle_raw_margin": best(
            arms(rows, task="circle", method="oracle", regime="singleshot"), "raw_margin"
        ),
    }


def popup_metrics(main: pd.DataFrame) -> dict[str, Found]:
    """C9, second half: edge-popup, plain and annealed, with the linear and the released head."""
    joint = main[main.method == "annealed_joint"]
    main = arms(main, method=("plain", "annealed"))
    linear = arms(main, regime="popup_linear", mother="planted")
    released = arms(main, regime="popup_softmax", mother="planted")
    circle = arms(linear, task="circle")
    moderate = linear[linear.density >= MODERATE]
    annealed = {"task": "relu", "method": "annealed", "label": "gt"}
    starts = {
        mother: arms(main, regime="popup_linear", mother=mother, **annealed)
        for mother in ("planted", "unplanted", "unbiased")
    }
    return {
        "circle_margin_at_05": best(arms(circle, label="0.5"), "raw_margin"),
        "circle_shortfall_at_01": shortfall(
            arms(circle, label="0.1", method="plain"), "raw_margin"
        ),
        "annealing_gain_at_01": apart(
            each_seed(arms(circle, label="0.1", method="annealed"), "raw_margin", "mean"),
            each_seed(arms(circle, label="0.1", method="plain"), "raw_margin", "mean"),
        ),
        "circle_sparse_below_half": below(circle[circle.density <= SPARSE], 50.0, "raw"),
        "relu_linear_below_0001_at_05": decades_below(
            arms(linear, task="relu", label="0.5", method="plain"), 0.001, "scalar"
        ),
        "relu_linear_shortfall": shortfall(arms(moderate, task="relu"), "scalar_margin"),
        "relu_released_shortfall": shortfall(arms(released, task="relu"), "scalar_margin"),
        "helix_linear_shortfall": shortfall(arms(moderate, task="helix"), "per_output_margin"),
        **{f"relu_gt_found_{mother}": share(rows, _is_found) for mother, rows in starts.items()},
        "relu_gt_found_released": share(arms(released, **annealed), _is_found),
        **{
            f"relu_gt_found_joint_{mother}": share(
                arms(joint, task="relu", label="gt", regime="popup_linear", mother=mother),
                _is_found,
            )
            for mother in starts
        },
    }


def _is_found(rows: pd.DataFrame) -> pd.Series:
    return rows.scalar_margin >= -FOUND


def control_metrics(main: pd.DataFrame) -> dict[str, Found]:
    """The controls that the paper lacks: nothing planted, and the planted ticket trained."""
    many = arms(main, regime="multishot", method=TRAINED, task="circle")
    dense_enough = many[(many.density >= 0.01) & (many.label != "gt")]
    planted, other = (arms(dense_enough, mother=m) for m in ("planted", "unplanted"))
    gt = arms(many, label="gt", method="synflow")
    oracle = {task: arms(main, task=task, method="oracle") for task in ("circle", "helix")}
    recall = {
        mother: each_seed(arms(many, label="gt", mother=mother), "recall", "mean")
        for mother in ("planted", "unplanted")
    }
    return {
        "unplanted_minus_planted": apart(_weak(other), _weak(planted)),
        "oracle_margin_circle": best(oracle["circle"]),
        "oracle_margin_helix": best(oracle["helix"]),
        "synflow_minus_oracle": apart(_weak(arms(gt, mother="planted")), _weak(oracle["circle"])),
        "missed_share": as_percent({s: 100 * (1 - r) for s, r in recall["planted"].items()}),
        "recall_planted_minus_unplanted": over_seeds(
            {
                s: 100 * (r - recall["unplanted"][s])
                for s, r in recall["planted"].items()
                if s in recall["unplanted"]
            }
        ),
    }


def audit_metrics(audits: pd.DataFrame) -> dict[str, Found]:
    """What the released planting and the released GraSP do, on Circle."""
    if audits.empty:
        names = ("released_factors_cost", "grasp_lost", "loud_seeds", "released_minus_norm_auroc")
        return dict.fromkeys(names)
    rows = arms(audits, task="circle", mode="authors")
    known = rows.assign(cost=100 * (rows.score - rows.raw), lost=50 - 100 * rows.grasp_kept)
    return {
        "released_factors_cost": over_seeds(each_seed(known, "cost", "mean")),
        "grasp_lost": over_seeds(each_seed(known, "lost", "mean")),
        "loud_seeds": share(rows, lambda r: r.loud > 0),
        "released_minus_norm_auroc": apart(
            each_seed(rows, "auroc", "mean"),
            each_seed(arms(audits, task="circle", mode="norm"), "auroc", "mean"),
        ),
    }


def visible_metrics(audits: pd.DataFrame) -> dict[str, Found]:
    """By task and planting mode, how well a classifier tells planted entries (AUROC; 0.5: not)."""
    if audits.empty:
        return {}
    return {
        f"{task}_{mode}": over_seeds(each_seed(rows, "auroc", "mean"))
        for (task, mode), rows in audits.groupby(["task", "mode"], sort=True)
    }


# ---------------------------------------------------------------- all scores


def score_intervals(every: pd.DataFrame) -> dict[str, Any]:
    """Weak scores (strong ones of edge-popup) by cell, regime, mother, method and density.

    A cell names its width only where that is not the study's usual one.
    """
    found: dict[str, Any] = {}
    usual = every.width.mode().iloc[0]
    keys = ["task", "depth", "noise", "width", "regime", "mother", "method", "label"]
    for key, rows in every.groupby(keys, sort=True):
        task, depth, noise, width, *rest = key
        column = "weak" if rows.weak.notna().all() else "per_output"
        place, cell = found, f"{task}_d{depth}_n{noise:g}"
        for part in (cell if width == usual else f"{cell}_w{width}", *rest[:-1]):
            place = place.setdefault(plugins.slug(str(part)), {})
        place[f"at_{rest[-1]}"] = asdict(interval(rows[column].tolist()))
    return found
