"""Tables of Plant 'n' Seek's convolutional part, and the numbers behind claim C11."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pandas as pd

from ticketlab import labels, plugins
from ticketlab.data.sets import load
from ticketlab.papers.plant_n_seek.params import ConvParams, PlantParams
from ticketlab.papers.plant_n_seek.report import column
from ticketlab.study import tables
from ticketlab.study.controls import control
from ticketlab.study.plots import summarise
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    above_chance,
    as_metric,
    as_percent,
    by_seed,
    each_seed,
    minus,
)

Results = Mapping[str, Result]
Numbers = dict[str, Any]

STRONG = ("popup", "popup_even")
"""Regimes that train no weight: edge-popup on the unchanged weights, and with even signals."""
COLUMNS = [
    "seed",
    "mother",
    "regime",
    "method",
    "label",
    "density",
    "kept",
    "effective",
    "alive",
    "precision",
    "recall",
    "collapsed",
    "weak",
    "weak_margin",
    "raw",
    "raw_margin",
    "per_output",
    "per_output_margin",
    "ticket",
]


def conv_table(results: Results) -> pd.DataFrame:
    """Return one row per pruned net, in percent: strong and weak accuracy, overlap, ticket's own.

    `weak` is after training; `raw` and `per_output` before it, unscaled and with one fitted scale
    per output. A `margin` is a score minus the ticket's. Empty for a study without this part.
    """
    own = planting_table(results).set_index("seed") if _plantings(results) else pd.DataFrame()
    rows = []
    for name, result in results.items():
        if not name.startswith("conv/") or "rows" not in result.record:
            continue
        head = result.record["head"]
        ticket = own.ticket[head["seed"]]
        rows += [head | _scored(row, ticket) for row in result.record["rows"]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _scored(row: Mapping[str, Any], ticket: float) -> dict[str, Any]:
    """Return a row in percent, with its margins."""
    plain = {k: v for k, v in row.items() if k not in ("strong", "layers", "curve", "weak")}
    scores = {"weak": row.get("weak")} | {
        key: row.get("strong", {}).get(key) for key in ("raw", "per_output")
    }
    for name, score in scores.items():
        plain[name] = None if score is None else 100 * score
        plain[f"{name}_margin"] = None if score is None else 100 * score - ticket
    return plain | {"ticket": ticket}


def _plantings(results: Results) -> list[Result]:
    return [result for name, result in results.items() if name.startswith("conv/plant/")]


def planting_table(results: Results) -> pd.DataFrame:
    """Return one row per seed: the ticket, and how exactly and how visibly it is planted."""
    rows = []
    for result in _plantings(results):
        record = result.record
        areas = [row["auroc"] for row in record["visible"] if row["auroc"] is not None]
        sizes = [row["largest"] for row in record["visible"] if row["largest"] is not None]
        rows.append(
            {
                "seed": record["seed"],
                "ticket": 100 * record["ticket"],
                "planted": 100 * record["strong"]["raw"],
                "kept": record["kept"],
                "density": record["density"],
                "error": record["error"],
                "factor": record["factor"],
                "auroc": fmean(areas),
                "largest": max(sizes),
            }
        )
    return pd.DataFrame(rows)


def curves_of_popup(results: Results) -> pd.DataFrame:
    """Return one row per epoch of edge-popup: raw accuracy in percent."""
    rows = []
    for name, result in results.items():
        if not name.startswith("conv/popup"):
            continue
        for row in result.record["rows"]:
            named = result.record["head"] | {key: row[key] for key in ("method", "label")}
            curve = enumerate(row["curve"], start=1)
            rows += [named | {"epoch": epoch, "score": 100 * score} for epoch, score in curve]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- numbers

NAMES = (
    "popup_shortfall",
    "popup_peak",
    "popup_even_shortfall",
    "weak_margin",
    "magnitude_minus_synflow",
    "strong_shortfall",
    "oracle_margin",
    "synflow_minus_oracle",
    "popup_missed",
    "unplanted_minus_planted",
    "ticket_score",
    "ticket_density",
    "auroc",
)


def conv_metrics(results: Results) -> Numbers:
    """Return the intervals over seeds that decide C11 and its controls; None without this part.

    Plug-in criteria do not count: the claim is about the paper's methods.
    """
    table = conv_table(results)
    if table.empty:
        return dict.fromkeys(NAMES)
    table = table[~table.method.map(plugins.is_plugin).astype(bool)]
    planted = table[table.mother == "planted"]
    plantings = planting_table(results).set_index("seed")
    own = {
        "ticket_score": as_metric(plantings.ticket.to_dict()),
        "ticket_density": as_metric((100 * plantings.density).to_dict()),
        "auroc": as_metric(plantings.auroc.to_dict()),
    }
    return _popup_numbers(planted) | _weak_numbers(planted) | _control_numbers(table) | own


def conv_references(results: Results, params: PlantParams) -> Numbers:
    """Return the reference that must have learned: the ticket before it is planted."""
    if params.conv is None or not _plantings(results):
        return {"conv": None}
    trained = by_seed(planting_table(results), "ticket")
    classes = load(params.conv.data).test.y
    return {"conv": {"the ticket before planting": above_chance(trained, classes)}}


TRAINED_ACCURACY = 60.0
"""Percent of test images that a trained ticket must classify correctly before it is planted."""
WORKS, FAILS = 10.0, 10.0
"""Points from the ticket's accuracy within which a search succeeds, and below which it fails."""


def conv_controls(results: Results) -> Numbers:
    """Return the positive controls of this part; None for those that did not run."""
    table = conv_table(results)
    table = table[table.mother == "planted"]
    popped = table[(table.regime == "popup") & (table.label == "0.5")]
    random = table[(table.method == "random") & (table.regime == "singleshot")]
    own = planting_table(results)
    return {
        "trained": control(
            "the ticket is trained before it is planted (% right)",
            {} if own.empty else by_seed(own, "ticket"),
            at_least=TRAINED_ACCURACY,
        ),
        "popup_works_at_half": control(
            "edge-popup at density 0.5 comes near the ticket (points)",
            each_seed(popped, "raw_margin"),
            at_least=-WORKS,
        ),
        "random_fails": control(
            "random pruning at the ticket's density stays below it (points)",
            {s: -v for s, v in each_seed(random[random.label == "gt"], "weak_margin").items()},
            at_least=FAILS,
        ),
    }


def _popup_numbers(rows: pd.DataFrame) -> Numbers:
    raw, even = (rows[rows.regime == regime] for regime in STRONG)
    at_gt = raw[raw.label == "gt"]
    half, tenth = (each_seed(raw[raw.label == label], "raw") for label in ("0.5", "0.1"))
    recall = each_seed(at_gt, "recall")
    return {
        "popup_shortfall": _shortfall(at_gt),
        "popup_peak": as_metric(minus(half, tenth)),
        "popup_even_shortfall": _shortfall(even[even.label == "gt"]),
        "popup_missed": as_percent({seed: 100 * (1 - share) for seed, share in recall.items()}),
    }


def _weak_numbers(rows: pd.DataFrame) -> Numbers:
    pruned = rows[rows.regime.isin(["singleshot", "multishot"])]
    many = pruned[pruned.regime == "multishot"]
    many_at_gt, many = many[many.label == "gt"], many[many.label != "gt"]
    synflow, magnitude = (
        each_seed(many[many.method == method], "weak") for method in ("synflow", "magnitude")
    )
    return {
        "weak_margin": as_metric(each_seed(many_at_gt, "weak_margin")),
        "magnitude_minus_synflow": as_metric(minus(magnitude, synflow)),
        "strong_shortfall": _shortfall(pruned),
    }


def _control_numbers(table: pd.DataFrame) -> Numbers:
    rows = table[table.mother == "planted"]
    oracle = each_seed(rows[rows.method == "oracle"], "weak")
    gt = rows[(rows.label == "gt") & rows.regime.isin(["singleshot", "multishot"])]
    bare, own = (table[table.mother == mother] for mother in ("unplanted", "planted"))
    margin = each_seed(rows[rows.method == "oracle"], "weak_margin")
    synflow = each_seed(gt[gt.method == "synflow"], "weak")
    return {
        "oracle_margin": as_metric(margin),
        "synflow_minus_oracle": as_metric(minus(synflow, oracle)),
        "unplanted_minus_planted": as_metric(minus(_weak(bare), _weak(own))),
    }


def _weak(rows: pd.DataFrame) -> BySeed:
    return each_seed(rows[rows.regime.isin(["singleshot", "multishot"])], "weak")


def _shortfall(rows: pd.DataFrame) -> Numbers | None:
    """Return how far below the ticket each seed's arms are on average."""
    margins = each_seed(rows, "per_output_margin")
    return as_metric({seed: -value for seed, value in margins.items()})


# ---------------------------------------------------------------- tables for the page


def status(conv: ConvParams) -> str:
    """Name the nets and the data of this part."""
    nets = f"{conv.ticket_model.name} of width {conv.ticket_model.width}"
    return f"{nets} in width {conv.model.width}, {conv.data.name}"


def exactness(results: Results) -> pd.DataFrame:
    """Format by seed: accuracy of the ticket and the planted one, error, factor, visibility."""
    names = {
        "ticket": "ticket's accuracy (%)",
        "planted": "planted (%)",
        "kept": "weights and biases",
        "density": "density in the mother",
        "error": "largest relative error",
        "factor": "output factor",
        "auroc": "AUROC of |w|/sigma",
        "largest": "largest |w|/sigma",
    }
    return planting_table(results).set_index("seed").rename(columns=names).map("{:.4g}".format)


def seekers(table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy in percent, mean and interval: trained masks, and edge-popup untrained."""
    strong = table.regime.isin(STRONG)
    rows = table.assign(score=table.weak.where(~strong, table.per_output))
    found = summarise(rows, ["regime", "method", "mother", "label"], "score")
    found["text"] = found.apply(tables.summary_text, axis=1)
    found["label"] = found.label.map(column)
    shown = found.pivot(index=["regime", "method", "mother"], columns="label", values="text")
    shown = shown.rename(index=labels.label).rename_axis(["search", "method", "mother"])
    return shown.rename_axis(columns=None).fillna("")
