"""Tables and differences of the geometry study: barriers, gains, numbers in words, the card."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pandas as pd

from ticketlab.data.sets import DataSet, load
from ticketlab.labels import label
from ticketlab.papers.compare.params import Bed
from ticketlab.papers.compare.rows import whole
from ticketlab.papers.geometry.algorithm import corruption
from ticketlab.papers.geometry.params import (
    ARM,
    ARMS,
    LADDERS,
    OTHERS,
    OWN,
    STORED,
    TWICE,
    GeometryParams,
    OwnBed,
)
from ticketlab.study import regime
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    across,
    as_metric,
    as_percent,
    by_seed,
    minus,
    percent_saved,
)
from ticketlab.study.tables import Accuracy, intervals_table, rows_of

Results = Mapping[str, Result]
Tables = Mapping[str, pd.DataFrame]

BedT = TypeVar("BedT", bound=Bed | OwnBed)

ACCURACY: Accuracy = "last_accuracy"
MATCHING = 1.0
"""Points below the dense net within which a ticket matches it."""
MOVED = ("permuted mask", "mask and signs", "mask", "shuffled mask")
"""What is moved of a ticket (`units.transplant`)."""

# ---------------------------------------------------------------- tables


def tables(results: Results) -> dict[str, pd.DataFrame]:
    """Return the rows of all units: tickets, those on the papers' own beds, rounds, lines, ...

    Of the papers' own stored units only the lines between their tickets are read.
    """
    results = {n: one for n, one in results.items() if not n.startswith(STORED)}
    own = {n.removeprefix(OWN): one for n, one in results.items() if n.startswith(OWN)}
    return {
        "tickets": _tickets({n: one for n, one in results.items() if not n.startswith(OWN)}),
        "own": _tickets(own) if own else pd.DataFrame(),
        "rounds": rows_of(results, "rounds"),
        "lines": rows_of(results, "lines"),
        "own_lines": rows_of(results, "own_lines"),
        "transplanted": rows_of(results, "transplanted"),
        "reliability": rows_of(results, "reliability"),
    }


def _tickets(results: Results) -> pd.DataFrame:
    """Return a row per trained ticket, the dense nets first."""
    trained = {n: one for n, one in results.items() if "rows" in one.record or "/dense/" in n}
    return pd.concat([whole(trained), rows_of(results, "rewound")], ignore_index=True)


def accuracy(tickets: pd.DataFrame, net: str, arm: str, level: float) -> BySeed:
    """Return test accuracy of an arm at a level, by seed."""
    chosen = tickets[(tickets.net == net) & (tickets.arm == arm) & (tickets.level == level)]
    return by_seed(chosen, ACCURACY)


def over_nets(
    params: GeometryParams, each: Callable[[Bed], BySeed], how: Callable[..., Any] = as_metric
) -> dict[str, Any]:
    """Return the interval of a number by net, and of each seed's mean over the nets."""
    return over_beds(params.beds, each, how)


def over_beds(
    beds: Sequence[BedT], each: Callable[[BedT], BySeed], how: Callable[..., Any] = as_metric
) -> dict[str, Any]:
    """Return the interval of a number by bed, and of each seed's mean over the beds."""
    parts = {bed.name: each(bed) for bed in beds}
    return {net: how(by) for net, by in parts.items()} | {"mean": how(across(parts.values()))}


def over_levels(levels: Iterable[float], each: Callable[[float], BySeed]) -> BySeed:
    """Return each seed's mean of a number over levels."""
    return across(each(level) for level in levels)


# ---------------------------------------------------------------- successive rounds


def judged_rounds(rounds: pd.DataFrame, params: GeometryParams) -> pd.DataFrame:
    """Return a row per round but the dense one: `gain` over the dense net in points, `matches`
    (within MATCHING of it), `connected` (barrier to the round before within `lines.connected`).
    """
    key = ["net", "arm", "seed"]
    dense = rounds[rounds["round"] == 0].set_index(key)[ACCURACY]
    later = rounds[rounds["round"] > 0].copy()
    base = dense.loc[list(later[key].itertuples(index=False, name=None))].to_numpy()
    later["gain"] = later[ACCURACY] - base
    later["matches"] = later.gain >= -MATCHING
    later["connected"] = later.barrier <= params.lines.connected
    later["agrees"] = later.matches == later.connected
    return later


def agreement(judged: pd.DataFrame, params: GeometryParams, arms: Sequence[str]) -> dict[str, Any]:
    """Return the percent of rounds in which (connected) agrees with (matches), by net."""
    return over_nets(params, lambda bed: share_of_rounds(judged, bed, arms, "agrees"), as_percent)


def share_of_rounds(judged: pd.DataFrame, bed: Bed, arms: Sequence[str], column: str) -> BySeed:
    """Return the percent of the arms' rounds on a net for which a column is true, by seed."""
    own = judged[(judged.net == bed.name) & judged.arm.isin(arms)]
    return {int(str(s)): 100 * float(v) for s, v in own.groupby("seed")[column].mean().items()}


def round_metrics(judged: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return agreement, and what is left to the bound at the highest barrier, by method.

    `spare` is `lines.connected` minus the highest barrier up to the last compared level: above 0,
    all those rounds are connected.
    """
    found: dict[str, Any] = {}
    for arm in LADDERS:
        found[arm] = {
            "agreement": agreement(judged, params, [arm]),
            "spare": over_nets(params, partial(_spare, judged=judged, params=params, arm=arm)),
        }
    unmatched = over_nets(
        params, lambda bed: share_of_rounds(judged.assign(no=~judged.matches), bed, LADDERS, "no"),
        as_percent,
    )  # fmt: skip
    return found | {"all": {"agreement": agreement(judged, params, LADDERS),
                            "unmatched": unmatched}}  # fmt: skip


def _spare(bed: Bed, judged: pd.DataFrame, params: GeometryParams, arm: str) -> BySeed:
    top = params.judged(bed)[-1]
    own = judged[(judged.net == bed.name) & (judged.arm == arm) & (judged.level <= top)]
    highest = own.groupby("seed").barrier.max()
    return {int(str(s)): params.lines.connected - float(v) for s, v in highest.items()}


# ---------------------------------------------------------------- lines between arms


def barrier(lines: pd.DataFrame, bed: Bed, arm: str, other: str, level: float) -> BySeed:
    """Return the barrier between an arm and the other end of a line, in points, by seed."""
    chosen = lines[
        (lines.net == bed.name) & (lines.arm == arm) & (lines.other == other)
        & (lines.level == level)
    ]  # fmt: skip
    return by_seed(chosen, "barrier")


def line_metrics(lines: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return `spare` of every kind of line, mean over the compared levels (see `round_metrics`)."""
    kinds = {"to_dense": ("dense", ARMS), "to_imp": ("imp", ARMS[1:]), "twice": (TWICE, ARMS)}
    found: dict[str, Any] = {}
    for kind, (other, arms) in kinds.items():
        found[kind] = {
            arm: over_nets(
                params, partial(_spared, lines=lines, params=params, arm=arm, other=other)
            )
            for arm in arms
        }
    found["twice"]["dense"] = over_nets(
        params,
        lambda bed: _below(params, barrier(lines, bed, "dense", TWICE, 0.0)),
    )
    return found


def _spared(bed: Bed, lines: pd.DataFrame, params: GeometryParams, arm: str, other: str) -> BySeed:
    return _below(params, mean_barrier(bed, lines, params, arm, other))


def mean_barrier(
    bed: Bed, lines: pd.DataFrame, params: GeometryParams, arm: str, other: str
) -> BySeed:
    """Return a barrier's mean over the compared levels, by seed."""
    return over_levels(params.judged(bed), lambda level: barrier(lines, bed, arm, other, level))


def _below(params: GeometryParams, found: BySeed) -> BySeed:
    return {seed: params.lines.connected - value for seed, value in found.items()}


# ---------------------------------------------------------------- rewinding


def rewinding(tickets: pd.DataFrame, beds: Sequence[Bed | OwnBed]) -> dict[str, Any]:
    """Return each rewinding minus IMP's own, in points, at equal cost: mean over all levels."""

    def gain(bed: Bed | OwnBed, arm: str, lowest: int) -> BySeed:
        return over_levels(
            bed.levels[lowest:],
            lambda level: minus(
                accuracy(tickets, bed.name, arm, level), accuracy(tickets, bed.name, "imp", level)
            ),
        )

    found: dict[str, Any] = {}
    for kind in OTHERS:
        whole = over_beds(beds, partial(gain, arm=ARM[kind], lowest=0))
        top = over_beds(beds, partial(gain, arm=ARM[kind], lowest=-1))
        found[f"{kind}_minus_weights"] = whole | {"top": top["mean"]}
    return found


# ---------------------------------------------------------------- transplants


def moved(transplanted: pd.DataFrame, bed: Bed, arm: str, what: str) -> BySeed:
    """Return test accuracy of a part of an arm's ticket on another initialisation, by seed."""
    chosen = transplanted[
        (transplanted.net == bed.name) & (transplanted.arm == arm)
        & (transplanted.weights == what)
    ]  # fmt: skip
    return by_seed(chosen, ACCURACY)


def transplants(tables: Tables, params: GeometryParams, arm: str) -> dict[str, Any]:
    """Return differences between a ticket and its parts, in points.

    `permuted_minus_half`: above 0, the permutation regains more than half of what the mask loses on
    fresh weights.
    """

    def own(bed: Bed) -> BySeed:
        return accuracy(tables["tickets"], bed.name, arm, params.judged(bed)[-1])

    def part(bed: Bed, what: str) -> BySeed:
        return moved(tables["transplanted"], bed, arm, what)

    def half(bed: Bed) -> BySeed:
        return across([own(bed), part(bed, "mask")])

    pairs: dict[str, Callable[[Bed], BySeed]] = {
        "ticket_minus_fresh": lambda bed: minus(own(bed), part(bed, "mask")),
        "ticket_minus_shuffled": lambda bed: minus(own(bed), part(bed, "shuffled mask")),
        "permuted_minus_fresh": lambda bed: minus(part(bed, "permuted mask"), part(bed, "mask")),
        "permuted_minus_half": lambda bed: minus(part(bed, "permuted mask"), half(bed)),
        "signs_minus_fresh": lambda bed: minus(part(bed, "mask and signs"), part(bed, "mask")),
        "signs_minus_ticket": lambda bed: minus(part(bed, "mask and signs"), own(bed)),
    }
    return {name: over_nets(params, each) for name, each in pairs.items()}


# ---------------------------------------------------------------- extreme sparsity


def extreme(tickets: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return each arm minus IMP at the highest level, and the images that its search saves."""
    found: dict[str, Any] = {}
    for arm in (*ARMS[1:], ARM["rates"]):
        name = "rates" if arm == ARM["rates"] else arm

        def gain(bed: Bed, arm: str = arm) -> BySeed:
            own, imp = (accuracy(tickets, bed.name, one, bed.levels[-1]) for one in (arm, "imp"))
            return minus(own, imp)

        def saved(bed: Bed, arm: str = arm) -> BySeed:
            own, imp = (_images(tickets, bed, one) for one in (arm, "imp"))
            return percent_saved(own, imp)

        found[name] = {"minus_imp": over_nets(params, gain), "saved": over_nets(params, saved)}
    return found


def _images(tickets: pd.DataFrame, bed: Bed, arm: str) -> BySeed:
    top = tickets[(tickets.net == bed.name) & (tickets.level == bed.levels[-1])]
    return by_seed(top[top.arm == arm], "images")


# ---------------------------------------------------------------- reliability


def reliability(rows: pd.DataFrame, params: GeometryParams) -> dict[str, Any]:
    """Return each arm against the dense net, mean over the compared levels; above 0 is better.

    `nll` in nats and `brier` are the dense net's minus the arm's; `calibration` is the dense net's
    calibration error minus the arm's, in points; `worst_class` and `corrupted` (mean over the
    corruptions) are the arm's accuracy minus the dense net's, in points; `beyond_clean` is
    `corrupted` less the same difference on the clean images.
    """
    return {arm: _against_dense(_with_means(rows), params, arm) for arm in ARMS}


def _with_means(rows: pd.DataFrame) -> pd.DataFrame:
    harder = rows[[f"{kind}_accuracy" for kind in corruption.KINDS]].mean(axis=1)
    return rows.assign(corrupted=harder, beyond=harder - rows.clean_accuracy)


def _against_dense(rows: pd.DataFrame, params: GeometryParams, arm: str) -> dict[str, Any]:
    columns = {"nll": ("nll", -1), "brier": ("brier", -1), "calibration": ("calibration_error", -1),
               "worst_class": ("worst_class_accuracy", 1), "corrupted": ("corrupted", 1),
               "beyond_clean": ("beyond", 1)}  # fmt: skip

    def each(bed: Bed, column: str, sign: int) -> BySeed:
        own = rows[(rows.net == bed.name) & (rows.arm == arm)]
        dense = by_seed(rows[(rows.net == bed.name) & (rows.arm == "dense")], column)
        mean = over_levels(
            params.judged(bed), lambda level: by_seed(own[own.level == level], column)
        )
        return {seed: sign * value for seed, value in minus(mean, dense).items()}

    return {
        name: over_nets(params, partial(each, column=column, sign=sign))
        for name, (column, sign) in columns.items()
    }


# ---------------------------------------------------------------- for the page

SHOWN = {
    "agreement": "connected exactly where matching (% of rounds)",
    "spare": "threshold minus highest barrier (points)",
    "unmatched": "rounds that do not match (%)",
    "to_dense": "threshold minus barrier to the dense net",
    "to_imp": "threshold minus barrier to IMP",
    "to_imp_matched": "threshold minus barrier to IMP at COLT's pace",
    "to_lth": "threshold minus barrier to LTH",
    "twice": "threshold minus barrier to itself on another order",
    "before": "threshold minus barrier to the stored round before",
    "stable": "stable exactly where matching (% of tickets)",
    "stable_where_matching": "stable tickets among those that match (%)",
    "unmatched_tickets": "tickets that do not match (%)",
    "rates_minus_weights": "learning-rate rewinding minus IMP",
    "finetune_minus_weights": "finetuning minus IMP",
    "ticket_minus_fresh": "ticket minus mask",
    "ticket_minus_shuffled": "ticket minus shuffled mask",
    "permuted_minus_fresh": "permuted mask minus mask",
    "permuted_minus_half": "permuted mask minus the mean of ticket and mask",
    "signs_minus_fresh": "mask and signs minus mask",
    "signs_minus_ticket": "mask and signs minus ticket",
    "minus_imp": "accuracy minus IMP's (points)",
    "saved": "images saved (% of IMP's)",
    "nll": "negative log likelihood (nats)",
    "brier": "Brier score",
    "calibration": "calibration error (points)",
    "worst_class": "worst class (points)",
    "corrupted": "corrupted images (points)",
    "beyond_clean": "corrupted images beyond clean ones (points)",
}
"""Keys of metrics.json in words."""


def in_words(numbers: Mapping[str, Any], title: str, of: str = "nets") -> pd.DataFrame:
    """Return a table of numbers by net: a row per key of an arm, or per arm and key, in words.

    Arms that are null have no row; `of` is what the last column's mean is over.
    """
    rows: dict[str, Any] = {}
    for name, inner in numbers.items():
        if name in SHOWN:
            rows[SHOWN[name]] = inner
        elif inner is not None:
            arm = {"rates": ARM["rates"], "all": "all searches", "every": "all arms"}.get(
                name
            ) or label(name)
            rows |= {f"{arm}: {SHOWN[key]}": one for key, one in inner.items()}
    names = {"mean": f"mean over {of}", "top": "highest sparsity"}
    return intervals_table(rows, title).rename(columns=lambda name: names.get(name) or label(name))


def this_study(params: GeometryParams, data: DataSet) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
    lines = params.lines
    facts = {
        "images": regime.images(params.data, data),
        "pruned per round": f"{params.rate:.3g} by IMP, PrAC and each of COLT's "
        f"{params.partitions} copies",
        "rewinding to": regime.rewinding(params.rewind),
        "transplanted masks start": regime.rewinding(params.swap_rewind),
        "a line": f"{lines.points} points, errors on {lines.images:,} test images, batch-norm "
        f"statistics from {lines.statistics:,} training images",
        "connected": f"barrier of at most {lines.connected:g} points",
        "units are matched by": params.matching,
        "severity of the corruptions": f"{params.severity} of 3",
        "seeds": regime.seeds(params.seeds),
    }
    for bed in params.beds:
        levels = ", ".join(f"{100 * level:g} %" for level in bed.levels)
        facts[f"{bed.name}: net"] = regime.net(bed.model, bed.prunable, data)
        facts[f"{bed.name}: sparsity"] = f"{levels}; compared at the first {params.compared}"
        facts[f"{bed.name}: every training"] = regime.schedule(bed.recipe, len(data.train))
    if any(own.stored for own in params.own_beds):
        facts["the papers' own tickets"] = (
            "stored by their own studies; of each arm the one nearest to a level of its bed"
        )
    for own in params.own_beds:
        there, levels = load(own.data), ", ".join(f"{100 * level:g} %" for level in own.levels)
        facts[own.title] = (
            f"{regime.net(own.model, own.prunable, there)}; {regime.images(own.data, there)}; "
            f"{regime.schedule(own.recipe, len(there.train))}; {own.rate:.3g} pruned per round, "
            f"rewinding to {regime.rewinding(own.rewind)}; sparsity {levels}"
        )
    return facts
