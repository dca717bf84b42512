"""Numbers of the lines between the papers' own stored tickets, on the papers' own beds."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from ticketlab.papers.colt.params import MATCHED
from ticketlab.papers.geometry.params import BEFORE, TWICE, GeometryParams, OwnBed
from ticketlab.papers.geometry.report import MATCHING
from ticketlab.study.stats import BySeed, across, as_metric, as_percent, by_seed

KINDS = {"to_dense": "dense", "to_imp": "imp", "to_imp_matched": MATCHED, "to_lth": "lth",
         "twice": TWICE, "before": BEFORE}  # fmt: skip
"""Keys of metrics.json by the other end of a line."""
METHODS = ("imp", "imp_matched", "lth", "colt", "prac", "rst", "random")
"""Keys of metrics.json of the arms that the papers' own beds have; null for those of no bed."""


def beds_of(params: GeometryParams) -> tuple[OwnBed, ...]:
    """Return the papers' own beds with lines between the papers' own tickets."""
    return tuple(bed for bed in params.own_beds if bed.stored is not None)


def arms_on(rows: pd.DataFrame, bed: OwnBed) -> list[str]:
    """Return the arms that have lines on a bed, in the order in which they are listed."""
    return list(dict.fromkeys(rows[rows.net == bed.name].arm))


def nearest_base(rows: pd.DataFrame, bed: OwnBed) -> str:
    """Return the arm to whose tickets a bed's other arms are nearest in sparsity: IMP's or LTH's.

    On COLT's bed it is IMP at COLT's pace, whose tickets have exactly as many weights.
    """
    others = set(rows[rows.net == bed.name].other)
    return next(base for base in (MATCHED, "imp", "lth") if base in others)


def at_colts_pace(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the sparsity of COLT's tickets and of IMP's at COLT's pace: a row per seed and level.

    Empty without COLT's bed.
    """
    arms = ["colt", MATCHED]
    if rows.empty:
        return pd.DataFrame(columns=arms)
    own = rows[(rows.other == TWICE) & rows.arm.isin(arms)]
    return own.pivot(index=["net", "seed", "level"], columns="arm", values="sparsity")


def mean_barrier(rows: pd.DataFrame, bed: OwnBed, arm: str, other: str) -> BySeed:
    """Return a barrier's mean over the bed's levels in points, by seed; empty without such lines.

    The lines to the stored round before begin at the second level.
    """
    own = rows[(rows.net == bed.name) & (rows.arm == arm) & (rows.other == other)]
    levels = [own[own.level == level] for level in bed.levels]
    return across(by_seed(one, "barrier") for one in levels if not one.empty)


def metrics(rows: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return by arm and kind of line `lines.connected` minus the mean barrier, in points, by bed.

    `every` has, over all arms, the percent of tickets that are `stable` (barrier to themselves on
    another order within `lines.connected`) exactly if they match the dense net (within MATCHING of
    it), of those that do not match, and of matching ones those that are stable. Means are over the
    beds that have the arm, or a matching ticket.
    """
    beds, found = beds_of(params), dict[str, Any]()
    for arm in dict.fromkeys(arm for bed in beds for arm in arms_on(rows, bed)):
        kinds = {
            kind: {bed.name: _spare(rows, params, bed, arm, other) for bed in beds}
            for kind, other in KINDS.items()
        }
        found[arm.replace("-", "_")] = {
            kind: _by_bed(by, as_metric) for kind, by in kinds.items() if any(by.values())
        }
    judged = judged_tickets(rows, params)
    every = {"stable": "agrees", "unmatched_tickets": "unmatched"}
    matching = judged[judged.matches]
    return dict.fromkeys(METHODS) | found | {"every": {
        key: _by_bed({bed.name: percent(judged, bed, column) for bed in beds}, as_percent)
        for key, column in every.items()
    } | {"stable_where_matching": _by_bed(
        {bed.name: percent(matching, bed, "stable") for bed in beds}, as_percent,
    )}}  # fmt: skip


def _spare(rows: pd.DataFrame, params: GeometryParams, bed: OwnBed, arm: str, other: str) -> BySeed:
    barriers = mean_barrier(rows, bed, arm, other)
    return {seed: params.lines.connected - value for seed, value in barriers.items()}


def _by_bed(by: Mapping[str, BySeed], how: Callable[[BySeed], Any]) -> dict[str, Any]:
    """Return a number's interval by bed, and that of each seed's mean over the beds with it."""
    present = [one for one in by.values() if one]
    return {bed: how(one) for bed, one in by.items()} | {"mean": how(across(present))}


def judged_tickets(rows: pd.DataFrame, params: GeometryParams) -> pd.DataFrame:
    """Return a row per ticket: `matches`, `unmatched`, `stable`, `agrees` (see `metrics`)."""
    own = rows[rows.other == TWICE].copy()
    own["matches"] = own.gain >= -MATCHING
    own["unmatched"] = ~own.matches
    own["stable"] = own.barrier <= params.lines.connected
    own["agrees"] = own.matches == own.stable
    return own


def percent(judged: pd.DataFrame, bed: OwnBed, column: str) -> BySeed:
    """Return the percent of a bed's tickets for which a column is true, by seed."""
    own = judged[judged.net == bed.name]
    return {int(str(s)): 100 * float(v) for s, v in own.groupby("seed")[column].mean().items()}
