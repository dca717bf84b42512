"""The swap: the effect of other weights on a mask, and of another mask on the weights."""

from typing import Any

import pandas as pd

from ticketlab import plugins
from ticketlab.papers.compare.params import WEIGHTS, CompareParams
from ticketlab.papers.compare.rows import ACCURACY, Results, by_net, whole
from ticketlab.study.stats import BySeed, Interval, by_seed, interval, minus
from ticketlab.study.tables import rows_of


def swap_table(results: Results, params: CompareParams) -> pd.DataFrame:
    """Return one row per mask, weights and seed at the highest level: net, mask, weights, accuracy.

    Cells that the searches have already trained are taken from them.
    """
    columns = ["net", "mask", "weights", "seed", ACCURACY]
    if not params.swap_masks:
        return pd.DataFrame(columns=columns)
    swapped = rows_of(results, "swapped").rename(columns={"arm": "mask"})
    top = {bed.name: bed.levels[-1] for bed in params.beds}
    own = whole(results).rename(columns={"arm": "mask"})
    own = own[(own.level == own.net.map(top)) & own["mask"].isin([*params.swap_masks, "rst"])]
    rst = own[own["mask"] == "rst"].assign(mask="random")
    parts = [swapped, own[own["mask"] != "rst"]]
    if "random" in params.swap_masks:
        parts += [rst, rst.assign(weights="rst-other")]
    table = pd.concat(parts)[columns]
    shown = {"searched", "searched again", *params.swap_weights}
    seeds = params.seeds[: params.swap_seeds]
    return table[table.weights.isin(shown) & table.seed.isin(seeds)].reset_index(drop=True)


def swap_effect(
    swaps: pd.DataFrame, params: CompareParams, one: tuple[str, str], two: tuple[str, str]
) -> dict[str, Any]:
    """Return the accuracy of (mask, weights) `one` minus `two`, by net; null if not trained."""
    parts: dict[str, BySeed] = {}
    for bed in params.beds:
        found = [
            by_seed(
                swaps[
                    (swaps.net == bed.name) & (swaps["mask"] == mask) & (swaps.weights == weights)
                ],
                ACCURACY,
            )
            for mask, weights in (one, two)
        ]
        if not all(found):
            return {"mean": None}
        parts[bed.name] = minus(*found)
    return by_net(parts)


def swap_matrix(swaps: pd.DataFrame, net: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mean accuracy by mask (rows) and weights (columns), and as text with intervals."""
    own = swaps[swaps.net == net]
    cells = {
        key: interval(group[ACCURACY].tolist()) for key, group in own.groupby(["mask", "weights"])
    }
    masks, weights = list(dict.fromkeys(own["mask"])), set(own.weights)
    columns = [one for one in WEIGHTS if one in weights]
    mean = pd.DataFrame({w: {m: cells[m, w].mean for m in masks} for w in columns})
    text = pd.DataFrame({w: {m: _short(cells[m, w]) for m in masks} for w in columns})
    return mean, text


def _short(found: Interval) -> str:
    half = "" if found.high is None else f"\n± {found.high - found.mean:.1f}"
    return f"{found.mean:.1f}{half}"


def swap_metrics(swaps: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return the effect of other weights on a mask, and of another mask on the weights."""
    effects: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}
    for mask in params.swap_masks:
        for weights in params.swap_weights:
            name = f"{plugins.slug(mask)}_on_{weights}_minus_init"
            effects[name] = (mask, weights), (mask, "init")
    effects["imp_on_rst_minus_init"] = ("imp", "rst"), ("imp", "init")
    effects["imp_weights_matter"] = ("imp", "init"), ("imp", "reinit")
    for other in ("imp-shuffled", "random"):
        for weights in ("init", "reinit", "rst"):
            name = f"{other.replace('imp-', '')}_on_{weights}"
            effects[f"imp_minus_{name}"] = ("imp", weights), (other, weights)
    return {
        name.replace("-", "_"): swap_effect(swaps, params, one, two)
        for name, (one, two) in effects.items()
        if one != two
    }
