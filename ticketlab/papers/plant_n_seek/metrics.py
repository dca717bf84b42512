"""Numbers over seeds that decide the claims on Plant 'n' Seek.

Searches have two outcomes, near the ticket or far from it, so successes are counted: in how many
seeds a ticket is found (`report.is_found`) by each of some methods, or by none. Means are over the
seeds planned for means, the first ones. A `margin` is the score relative to the ticket's (0 is the
ticket, negative is worse), `shortfall` its negative. A metric is None if the study has no such arm.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from ticketlab import plugins
from ticketlab.papers.plant_n_seek.controls import SCORED, controls, references
from ticketlab.papers.plant_n_seek.conv.report import conv_metrics
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.report import (
    ONE_SHOT,
    SPARSE,
    TRAINED,
    Results,
    arms,
    audit_table,
    built_in,
    is_found,
    of_main,
    scores_table,
)
from ticketlab.study import rules
from ticketlab.study.stats import (
    BySeed,
    as_metric,
    as_percent,
    as_share,
    each_seed,
    interval,
    minus,
)

SPECIAL = ("snip", "grasp", "synflow")
MODERATE = 0.1
"""From this density on the paper calls a ticket moderate; up to SPARSE it is sparse."""

Found = dict[str, Any] | None


def metrics(results: Results, params: PlantParams) -> dict[str, Any]:
    """Return all numbers of the study for metrics.json, including those that decide claims."""
    tested = scores_table(results)
    every = built_in(tested)
    main = of_main(every, params)
    audits = audit_table(results)
    planted = main[main.mother == "planted"]
    return {
        "references": references(main, results, params),
        "controls": controls(every, main, results, params),
        "singleshot": singleshot_metrics(planted[planted.regime == "singleshot"]),
        "multishot": multishot_metrics(planted),
        "depth": depth_metrics(every, main),
        "noise": noise_metrics(every),
        "strong": strong_metrics(planted),
        "popup": popup_metrics(main),
        "planting": planting_metrics(main),
        "audit": audit_metrics(audits),
        "visible": visible_metrics(audits),
        "conv": conv_metrics(results),
        "scores": score_intervals(tested),
    }


# ---------------------------------------------------------------- summaries


def planned(values: Mapping[int, float]) -> BySeed:
    """Return the values of the seeds planned for means: the first ones, the same for all arms."""
    return dict(sorted(values.items())[: rules.most_planned("points")])


def over_seeds(values: Mapping[int, float], factor: float = 1.0) -> Found:
    """Return the interval of factor times the values; None for no values."""
    return as_metric({seed: factor * value for seed, value in planned(values).items()})


def apart(a: Mapping[int, float], b: Mapping[int, float]) -> Found:
    """Return the interval of a - b over the seeds that both have; None for no seeds."""
    return over_seeds(minus(a, b))


def shortfall(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """Return how far below the ticket each seed's arms are on average."""
    return over_seeds(each_seed(rows, column), -1.0)


def share(rows: pd.DataFrame, holds: Callable[[pd.DataFrame], pd.Series]) -> Found:
    """Return the share of seeds for which something holds in all rows; seeds need all rows."""
    if rows.empty:
        return None
    by_seed = holds(rows).astype(bool).groupby(rows.seed)
    whole = by_seed.size() == by_seed.size().max()
    return as_share({int(str(s)): bool(flag) for s, flag in by_seed.all()[whole].items()})


def all_found(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """Return the share of seeds in which each of the rows has found a ticket."""
    return share(rows, lambda r: is_found(r, column))


def none_found(rows: pd.DataFrame, column: str = "weak_margin") -> Found:
    """Return the share of seeds in which none of the rows has found a ticket."""
    return share(rows, lambda r: ~is_found(r, column))


def _weak(rows: pd.DataFrame) -> BySeed:
    return each_seed(rows, "weak_margin")


# ---------------------------------------------------------------- numbers behind the claims


def singleshot_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C1 to C4: one scoring at initialisation, then training."""
    one = arms(rows, method=ONE_SHOT)
    moderate, sparse = one[one.density >= MODERATE], one[one.density <= SPARSE]
    tasks, circle = ("circle", "relu"), arms(moderate, task="circle")
    return {
        **{f"{task}_moderate_all_found": all_found(arms(moderate, task=task)) for task in tasks},
        **{f"{task}_sparse_none_found": none_found(arms(sparse, task=task)) for task in tasks},
        "helix_none_found": none_found(arms(one, task="helix")),
        "circle_gt_dead": share(
            arms(one, task="circle", label="gt", method=("random", "magnitude", "synflow")),
            lambda r: ~r.alive.astype(bool),
        ),
        "synflow_rounds_found_at_001": all_found(
            arms(rows, task="circle", method="synflow_rounds", label="0.01")
        ),
        "magnitude_minus_special": apart(
            _weak(arms(circle, method="magnitude")), _weak(arms(circle, method=SPECIAL))
        ),
    }


def multishot_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C7, C8 and C10: ten rounds of training, scoring, pruning and resetting."""
    many, once = arms(rows, regime="multishot"), arms(rows, regime="singleshot")
    circle, gt = arms(many, task="circle"), arms(many, task="circle", label="gt")
    at: dict[str, object] = {"task": "circle", "label": "0.01", "method": TRAINED}
    few = circle[circle.density <= MODERATE]
    usual = _weak(arms(few, method=TRAINED))
    sparse = arms(many[many.density <= SPARSE], method=TRAINED)
    return {
        "circle_gain_at_001": apart(_weak(arms(many, **at)), _weak(arms(once, **at))),
        "synflow_gt_found": all_found(arms(gt, method="synflow")),
        "synflow_best_at_gt": best_of(arms(gt, method=TRAINED), "synflow"),
        "helix_all_found_at_01": all_found(arms(many, task="helix", label="0.1", method=TRAINED)),
        "grasp_deficit": apart(usual, _weak(arms(few, method="grasp"))),
        "grasp_local_deficit": apart(usual, _weak(arms(few, method="grasp_local"))),
        "helix_sparse_none_found": none_found(arms(sparse, task="helix")),
        "relu_sparse_none_found": none_found(arms(sparse, task="relu")),
    }


def best_of(rows: pd.DataFrame, method: str) -> Found:
    """Return the share of seeds in which a method beats each of the others after training."""
    others = rows[rows.method != method]
    own = rows[rows.method == method].set_index("seed").weak_margin
    return share(others, lambda r: r.weak_margin < r.seed.map(own))


def depth_metrics(every: pd.DataFrame, main: pd.DataFrame) -> dict[str, Found]:
    """C5: shallow, deep and wide mothers, Circle, singleshot."""
    same = {"task": "circle", "regime": "singleshot", "mother": "planted", "method": ONE_SHOT}
    rows = arms(every, **same)
    usual = set(main.depth)
    shallow = rows[(rows.depth == 3) & (rows.density < 0.2)]
    deep = rows[(rows.depth == 10) & (rows.label == "0.1")]
    plain = arms(rows[rows.depth.isin(usual)], label="0.1")
    return {
        "shallow_none_found": none_found(shallow),
        "deep_minus_main": apart(_weak(deep), _weak(plain)),
        "usual_minus_wide": wide_gap(rows[(rows.depth == 6) & rows.noise.isin(set(main.noise))]),
    }


def wide_gap(rows: pd.DataFrame) -> Found:
    """Return accuracy of untrained masks in mothers 100 wide minus those 1000 wide, in points."""
    wide, usual = (rows[rows.width == width] for width in (1000, 100))
    common = arms(usual, label=tuple(wide.label), method=tuple(wide.method))
    return apart(*(each_seed(r, "per_output_margin") for r in (common, wide)))


def noise_metrics(every: pd.DataFrame) -> dict[str, Found]:
    """C6: how much further below its ticket a pruned net is with the most noise than without."""
    rows = arms(every, task="circle", regime="singleshot", mother="planted", depth=6, label="0.1")
    rows = arms(rows, method=("magnitude", "synflow"))
    most, none = rows[rows.noise == rows.noise.max()], rows[rows.noise == 0]
    return {"margin_most_minus_none": apart(_weak(most), _weak(none)) if len(most) else None}


def strong_metrics(rows: pd.DataFrame) -> dict[str, Found]:
    """C9, first half: masks of the weak-ticket methods without any training, scales fitted."""
    once = arms(rows, regime="singleshot", method=(*ONE_SHOT, "synflow_rounds"))
    pruned = pd.concat([once, arms(rows, regime="multishot", method=TRAINED)])
    return {
        f"{task}_none_found": none_found(arms(pruned, task=task), f"{score}_margin")
        for task, score in SCORED.items()
    }


def popup_metrics(main: pd.DataFrame) -> dict[str, Found]:
    """C9, second half: edge-popup, plain and annealed, with the linear and the released head."""
    joint = arms(main, method="annealed_joint", regime="popup_linear", task="relu", label="gt")
    main = arms(main, method=("plain", "annealed"))
    linear = arms(main, regime="popup_linear", mother="planted")
    released = arms(main, regime="popup_softmax", mother="planted")
    circle, plain = arms(linear, task="circle"), arms(linear, method="plain")
    moderate = plain[plain.density >= MODERATE]
    annealed = {"task": "relu", "method": "annealed", "label": "gt"}
    tenth = {
        variant: each_seed(arms(circle, label="0.1", method=variant), "raw_margin")
        for variant in ("annealed", "plain")
    }
    half = each_seed(arms(plain, task="circle", label="0.5"), "raw_margin")
    mothers = {m: arms(main, mother=m) for m in ("planted", "unplanted", "unbiased")}
    return {
        "circle_margin_at_05": over_seeds(half),
        "circle_shortfall_at_01": over_seeds(tenth["plain"], -1.0),
        "annealing_gain_at_01": apart(tenth["annealed"], tenth["plain"]),
        "relu_none_found": none_found(arms(moderate, task="relu"), "scalar_margin"),
        "relu_released_none_found": none_found(arms(released, task="relu"), "scalar_margin"),
        "helix_shortfall": shortfall(arms(moderate, task="helix"), "per_output_margin"),
        **{
            f"relu_gt_found_{mother}": all_found(
                arms(rows, regime="popup_linear", **annealed), "scalar_margin"
            )
            for mother, rows in mothers.items()
        },
        "relu_gt_found_released": all_found(arms(released, **annealed), "scalar_margin"),
        **{
            f"relu_gt_found_joint_{mother}": all_found(arms(joint, mother=mother), "scalar_margin")
            for mother in mothers
        },
    }


def planting_metrics(main: pd.DataFrame) -> dict[str, Found]:
    """Controls that the paper lacks: nothing planted, and the planted ticket trained."""
    many = arms(main, regime="multishot", method=TRAINED, task="circle")
    dense_enough = many[(many.density >= 0.01) & (many.label != "gt")]
    planted, other = (arms(dense_enough, mother=m) for m in ("planted", "unplanted"))
    gt = arms(many, label="gt")
    oracle = {task: arms(main, task=task, method="oracle") for task in ("circle", "helix")}
    recall = {
        mother: {s: 100 * r for s, r in each_seed(arms(gt, mother=mother), "recall").items()}
        for mother in ("planted", "unplanted")
    }
    missed = {seed: 100 - kept for seed, kept in planned(recall["planted"]).items()}
    synflow = arms(gt, mother="planted", method="synflow")
    return {
        "unplanted_minus_planted": apart(_weak(other), _weak(planted)),
        "oracle_margin_circle": over_seeds(_weak(oracle["circle"])),
        "oracle_margin_helix": over_seeds(_weak(oracle["helix"])),
        "synflow_minus_oracle": apart(_weak(synflow), _weak(oracle["circle"])),
        "missed_share": as_percent(missed),
        "recall_planted_minus_unplanted": apart(recall["planted"], recall["unplanted"]),
    }


def audit_metrics(audits: pd.DataFrame) -> dict[str, Found]:
    """Results of the released planting and the released GraSP, on Circle."""
    if audits.empty:
        names = ("released_factors_cost", "grasp_lost", "loud_seeds", "released_minus_norm_auroc")
        return dict.fromkeys(names)
    rows = arms(audits, task="circle", mode="authors")
    known = rows.assign(cost=100 * (rows.score - rows.raw), lost=50 - 100 * rows.grasp_kept)
    return {
        "released_factors_cost": over_seeds(each_seed(known, "cost")),
        "grasp_lost": over_seeds(each_seed(known, "lost")),
        "loud_seeds": share(rows, lambda r: r.loud > 0),
        "released_minus_norm_auroc": apart(
            each_seed(rows, "auroc"), each_seed(arms(audits, task="circle", mode="norm"), "auroc")
        ),
    }


def visible_metrics(audits: pd.DataFrame) -> dict[str, Found]:
    """Return by task and mode how well a classifier detects planted entries (AUROC; 0.5: not)."""
    if audits.empty:
        return {}
    return {
        f"{task}_{mode}": over_seeds(each_seed(rows, "auroc"))
        for (task, mode), rows in audits.groupby(["task", "mode"], sort=True)
    }


# ---------------------------------------------------------------- all scores


def score_intervals(every: pd.DataFrame) -> dict[str, Any]:
    """Return weak scores (edge-popup: strong) by cell, regime, mother, method and density.

    A cell's name contains its width only if that is not the study's usual one.
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
