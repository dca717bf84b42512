"""Agreement between the methods' masks, compared with what layer densities alone explain."""

from itertools import combinations
from typing import Any

import pandas as pd

from ticketlab.papers.compare.params import MASKS, CompareParams, name_of, ticket_name
from ticketlab.papers.compare.rows import Results, by_net
from ticketlab.pruning.masks import Mask, jaccard
from ticketlab.study.stats import BySeed, by_seed, minus

TRAINED = ("imp", "imp-again", "imp-matched", "colt", "prac")
"""The methods whose masks come from rounds of training."""


def expected_jaccard(a: Mask, b: Mask) -> float:
    """Return the IoU of two masks with random positions: ``|a| |b| / n`` in common per layer."""
    both = sum(int(a[n].sum()) * int(b[n].sum()) / a[n].numel() for n in a)
    return both / (a.alive + b.alive - both)


def overlap_table(results: Results, params: CompareParams) -> pd.DataFrame:
    """Return the IoU of masks at the highest level, one row per pair, with its expected value.

    The expected value follows from layer densities alone. Two methods are compared at the same seed
    (`between` "methods"), a method with itself at two seeds, so from two initialisations
    (`between` "seeds").
    """
    rows = []
    for bed in params.beds:
        masks = {
            (method, seed): results[name_of(bed, method, seed)]
            .tickets[ticket_name(bed.levels[-1])]
            .mask
            for method in (*MASKS, *params.criteria)
            for seed in params.seeds
        }
        for one, two in combinations(masks, 2):
            same_method, same_seed = one[0] == two[0], one[1] == two[1]
            if same_method or same_seed:
                a, b = masks[one], masks[two]
                rows.append(
                    (
                        bed.name,
                        "seeds" if same_method else "methods",
                        one[0],
                        two[0],
                        one[1],
                        jaccard(a, b),
                        expected_jaccard(a, b),
                    )
                )
    columns = ["net", "between", "arm", "other", "seed", "iou", "chance"]
    return pd.DataFrame(rows, columns=columns)


def overlap_matrix(overlaps: pd.DataFrame, net: str, value: str) -> pd.DataFrame:
    """Return the mean of `value` per pair of methods; the diagonal compares a method's seeds."""
    means = overlaps[overlaps.net == net].groupby(["arm", "other"])[value].mean()
    own = [name for name in overlaps.other.unique() if name not in MASKS]
    names = [*MASKS, *own]
    whole = means.unstack().reindex(index=names, columns=names)
    return whole.combine_first(whole.T).loc[names, names]


def overlap_metrics(overlaps: pd.DataFrame, params: CompareParams) -> dict[str, Any]:
    """Return IoU minus chance given the layer densities, in points, for pairs of trained masks.

    `again_minus_colt` is by how much IMP agrees more with its second run than with COLT.
    """
    beyond: dict[tuple[str, str], dict[str, BySeed]] = {}
    for one, two in combinations(TRAINED, 2):
        pair = overlaps[(overlaps.arm == one) & (overlaps.other == two)]
        pair = pair.assign(beyond=100 * (pair.iou - pair.chance))
        parts = {bed.name: by_seed(pair[pair.net == bed.name], "beyond") for bed in params.beds}
        beyond[one, two] = parts
    found = {f"{a}_and_{b}".replace("-", "_"): by_net(own) for (a, b), own in beyond.items()}
    again, colt = beyond["imp", "imp-again"], beyond["imp", "colt"]
    found["again_minus_colt"] = by_net({net: minus(again[net], colt[net]) for net in again})
    return found
