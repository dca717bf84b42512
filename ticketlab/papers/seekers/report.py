"""Tables, differences, controls and metrics of the study of newer seekers.

Masks are compared with the planted ticket's own score on the same test set (`margin`): in accuracy
points for Circle, in decades of mean squared error for ReLU and Helix; 0 is the ticket, negative is
worse. A search has found a ticket if its margin is within 10 points or one decade, as in Plant 'n'
Seek. Masks that are not trained are scored by the scales fitted on training data that Plant 'n'
Seek fits for the task.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ticketlab import labels
from ticketlab.papers.plant_n_seek.controls import SCORED, decades_below
from ticketlab.papers.plant_n_seek.report import arms, is_accuracy, is_found, margin, named
from ticketlab.papers.seekers.params import Crowds, SeekersParams
from ticketlab.study import regime, tables
from ticketlab.study.controls import control
from ticketlab.study.results import Result
from ticketlab.study.stats import (
    BySeed,
    across,
    as_metric,
    as_percent,
    as_reference,
    each_seed,
    minus,
)

Results = Mapping[str, Result]
Numbers = dict[str, Any]

POPUP, GATES = "annealed", "gates"
"""The two searches that train no weight."""
REGIMES = ("singleshot", "multishot", "untrained")
"""How crowds are searched: pruned once, pruned in rounds, and without training weights."""
MISSES = 10.0
"""Least percent of searches that must miss one ticket, so that more tickets can help."""

# ---------------------------------------------------------------- tables


def scores_table(results: Results) -> pd.DataFrame:
    """Return one row per mask: where it was searched, by what, its score, and its margin.

    `score` is in percent (Circle) or a mean squared error: after training for the weak tickets of
    crowds, without it for edge-popup and gates. `copies` is the number of planted tickets, `label`
    the density's name or, in crowds, how many tickets' density it is. `soft_margin` is that of the
    net under its deterministic gates, before they are cut to a mask.
    """
    rows = []
    for name, result in results.items():
        head, ticket = result.record["head"], result.record["ticket"]["score"]
        task, crowded = head["task"], "copies" in head
        copies = head["copies"] if crowded else int(head["mother"] == "planted")
        place = {key: head[key] for key in ("task", "seed")}
        place |= {"part": "crowd" if crowded else "single", "copies": copies,
                  "regime": head["regime"] if crowded else "untrained"}  # fmt: skip
        for row in result.record["rows"]:
            kept = {k: row.get(k) for k in ("method", "label", "density", "kept", "alive", "recall",
                                            "best_recall", "open")}  # fmt: skip
            found = row["weak"] if "weak" in row else row["strong"][SCORED[task]]
            soft = row["soft"][SCORED[task]] if "soft" in row else None
            rows.append(
                {"unit": name}
                | place
                | kept
                | {"score": 100 * found if is_accuracy(task) else found}
                | {"margin": margin(found, ticket, task)}
                | {"soft_margin": None if soft is None else margin(soft, ticket, task)}
            )
    table = pd.DataFrame(rows)
    return table.assign(found=is_found(table, "margin"))


def alone_table(results: Results) -> pd.DataFrame:
    """Return one row per copy of a crowd: its margin without training, under its own mask alone."""
    rows = []
    for result in results.values():
        head = result.record["head"]
        for copy, strong in enumerate(result.record.get("alone", ())):
            task, ticket = head["task"], result.record["ticket"]["score"]
            own = margin(strong[SCORED[task]], ticket, task)
            rows.append({k: head[k] for k in ("task", "seed", "copies")} | {"copy": copy}
                        | {"margin": own})  # fmt: skip
    columns = ["task", "seed", "copies", "copy", "margin"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(found=is_found(table, "margin")) if len(table) else table.assign(found=[])


def constants(results: Results, task: str) -> BySeed:
    """Return the best constant prediction's score on each seed's test set: percent, or error."""
    unit = 100.0 if is_accuracy(task) else 1.0
    return {
        result.record["head"]["seed"]: unit * result.record["constant"]
        for result in results.values()
        if result.record["head"]["task"] == task and "constant" in result.record
    }


def key_of(label: str) -> str:
    """Name a density in metrics.json: 'gt', or 'at_01' for 0.1."""
    return label if label == "gt" else f"at_{label.replace('.', '')}"


def crowds_of(params: SeekersParams, task: str) -> Crowds | None:
    """Return the crowds of a task, if the study has them."""
    return next((one for one in params.crowds if one.task == task), None)


# ---------------------------------------------------------------- gates


def single(scores: pd.DataFrame, task: str, method: str, label: str, copies: int = 1) -> BySeed:
    """Return the margin of a search without training in a mother with one ticket, or none."""
    own = arms(scores, part="single", task=task, method=method, label=label, copies=copies)
    return each_seed(own, "margin")


def gate_metrics(scores: pd.DataFrame, params: SeekersParams, task: str) -> Numbers:
    """Return what gates reach on a task by density: all in points (Circle) or decades.

    `minus_popup` against edge-popup; `shortfall` below the ticket, of gates and of edge-popup;
    `unplanted_minus_planted`; `mask_minus_soft` what cutting the gates to 0 and 1 gains.
    """
    names = [str(density) for density in params.densities]

    def each(method: str, copies: int = 1) -> dict[str, BySeed]:
        return {key_of(n): single(scores, task, method, n, copies) for n in names}

    gates, popup, bare = each(GATES), each(POPUP), each(GATES, 0)
    own = arms(scores, part="single", task=task, method=GATES, copies=1)
    soft = {key_of(n): each_seed(own[own.label == n], "soft_margin") for n in names}
    return {
        "minus_popup": _by_density(gates, popup),
        "shortfall": {name: as_metric(_times(values, -1)) for name, values in gates.items()},
        "popup_shortfall": {name: as_metric(_times(values, -1)) for name, values in popup.items()},
        "unplanted_minus_planted": _by_density(bare, gates),
        "mask_minus_soft": _by_density(gates, soft),
    }


def _by_density(a: Mapping[str, BySeed], b: Mapping[str, BySeed]) -> Numbers:
    """Return the interval of a - b at each density, and of its mean over them."""
    found = {name: minus(a[name], b[name]) for name in a}
    return {name: as_metric(values) for name, values in found.items()} | {
        "mean": as_metric(across(found.values()))
    }


def _times(values: Mapping[int, float], factor: float) -> BySeed:
    return {seed: factor * value for seed, value in values.items()}


# ---------------------------------------------------------------- crowds


def crowd_rows(scores: pd.DataFrame, task: str, regime: str, copies: int) -> pd.DataFrame:
    """Return all masks of a regime in the mothers of a task with so many tickets."""
    return arms(scores, part="crowd", task=task, regime=regime, copies=copies)


def percent_found(rows: pd.DataFrame) -> BySeed:
    """Return the percent of a seed's searches, over methods and densities, that find a ticket."""
    return _times(each_seed(rows.assign(found=rows.found.astype(float)), "found"), 100.0)


def crowd_metrics(scores: pd.DataFrame, crowds: Crowds) -> Numbers:
    """Return by regime what the most tickets change against one, and against none.

    `gain` is the margin with the most tickets minus that with one, mean over methods and densities;
    `found_gain` the same of the percent of searches that find a ticket; `one_minus_none` the margin
    with one ticket minus that with none. `best_recall` is the percent of its best matching copy
    that a mask keeps, in the mother with the most.
    """
    found: Numbers = {}
    for name in REGIMES:
        most, one, none = (
            crowd_rows(scores, crowds.task, name, copies) for copies in (crowds.most, 1, 0)
        )
        best = each_seed(most, "best_recall")
        found[name] = {
            "gain": as_metric(minus(each_seed(most, "margin"), each_seed(one, "margin"))),
            "found_gain": as_metric(minus(percent_found(most), percent_found(one))),
            "one_minus_none": as_metric(minus(each_seed(one, "margin"), each_seed(none, "margin"))),
            "found_one": as_percent(percent_found(one)),
            "found_most": as_percent(percent_found(most)),
            "best_recall": as_percent(_times(best, 100.0)),
        }
    return found


# ---------------------------------------------------------------- metrics


def metrics(results: Results, params: SeekersParams) -> Numbers:
    """Return all numbers of the study for metrics.json: intervals over seeds."""
    scores = scores_table(results)
    return {
        "references": references(scores, results, params),
        "controls": controls(scores, results, params),
        "gates": {task: gate_metrics(scores, params, task) for task in params.tasks},
        "crowd": {crowds.task: crowd_metrics(scores, crowds) for crowds in params.crowds},
    }


def references(scores: pd.DataFrame, results: Results, params: SeekersParams) -> Numbers:
    """Return by task the arms that must have learned: gates and edge-popup at the largest density.

    For crowds, many rounds with one ticket at the largest density, by the last of the methods,
    where they run; else those of the task. Chance is the best constant prediction: its accuracy, or
    0 decades below its error.
    """
    found: Numbers = {}
    for task in params.tasks:
        top = [arms(scores, part="single", task=task, copies=1, method=method,
                    label=str(params.densities[-1])) for method in (GATES, POPUP)]  # fmt: skip
        names = [f"{labels.label(name)} on {labels.label(task)}" for name in (GATES, POPUP)]
        found[task] = {
            name: _reference(rows, task, results, params)
            for name, rows in zip(names, top, strict=True)
        }
    for crowds in params.crowds:
        many = crowd_rows(scores, crowds.task, "multishot", 1)
        own = arms(many, label=str(crowds.most), method=params.methods[-1:])
        name = f"many rounds of {labels.label(params.methods[-1])} on {labels.label(crowds.task)}"
        known = _reference(own, crowds.task, results, params)
        found[f"crowd_{crowds.task}"] = {name: known} if known else found.get(crowds.task)
    return found


def _reference(
    rows: pd.DataFrame, task: str, results: Results, params: SeekersParams
) -> Numbers | None:
    scores, chance = each_seed(rows, "score"), constants(results, task)
    if not scores:
        return None
    if is_accuracy(task):
        return as_reference(scores, max(chance.values()), params.test)
    return as_reference(decades_below(scores, chance), 0.0)


def controls(scores: pd.DataFrame, results: Results, params: SeekersParams) -> Numbers:
    """Return the positive controls: of each task, and of each task's crowds."""
    found: Numbers = {}
    for task in params.tasks:
        top = arms(scores, part="single", task=task, copies=1, label=str(params.densities[-1]))
        found[task] = {
            "ticket_is_strong": _most(
                "the planted ticket passes as a strong one", _ticket_found(results, task)
            ),
            "gates_learn": _most(
                f"gates of density {params.densities[-1]} find a strong ticket",
                _all_found(arms(top, method=GATES)),
            ),
            "popup_learns": _most(
                f"edge-popup's masks of density {params.densities[-1]} are strong tickets",
                _all_found(arms(top, method=POPUP)),
            ),
        }
    alone = alone_table(results)
    for crowds in params.crowds:
        own = alone[alone.task == crowds.task]
        found[f"crowd_{crowds.task}"] = {
            "copies_are_strong": _most(
                "every copy, alone under its own mask, passes as a strong ticket", _all_found(own)
            ),
            **{f"room_{name}": _room(scores, crowds, name) for name in REGIMES},
        }
    return found


def _most(says: str, flags: Mapping[int, bool]) -> Numbers | None:
    return control(f"in most seeds {says}", flags, above=50.0)


def _room(scores: pd.DataFrame, crowds: Crowds, regime: str) -> Numbers | None:
    found = percent_found(crowd_rows(scores, crowds.task, regime, 1))
    says = (
        f"with one ticket, {labels.label(regime)}: at least {MISSES:g} % of the searches find none"
    )
    return control(says, {seed: 100 - value for seed, value in found.items()}, at_least=MISSES)


def _all_found(rows: pd.DataFrame) -> dict[int, bool]:
    """Return by seed whether all of its rows found a ticket."""
    return {int(str(s)): bool(flag) for s, flag in rows.groupby("seed").found.all().items()}


def _ticket_found(results: Results, task: str) -> dict[int, bool]:
    """Return by seed whether the planted ticket, with fitted scales, is as good as itself."""
    heads = [one.record for one in results.values() if one.record["head"]["task"] == task]
    rows = pd.DataFrame(
        {
            "task": task,
            "seed": record["head"]["seed"],
            "margin": margin(record["ticket"][SCORED[task]], record["ticket"]["score"], task),
        }
        for record in heads
    )
    return _all_found(rows.assign(found=is_found(rows, "margin")))


# ---------------------------------------------------------------- exact checks


def same_counts(scores: pd.DataFrame) -> "pd.Series[bool]":
    """Return whether gates keep as many entries as edge-popup in each mother, at each density."""
    rows = scores[scores.method.isin([GATES, POPUP])]
    groups = rows.groupby(["part", "task", "seed", "copies", "label"])
    return groups.kept.nunique().eq(1) & groups.method.nunique().eq(2)


# ---------------------------------------------------------------- for the page

SHOWN = {
    "minus_popup": "gates minus edge-popup",
    "shortfall": "gates below the ticket",
    "popup_shortfall": "edge-popup below the ticket",
    "unplanted_minus_planted": "gates, nothing planted minus planted",
    "mask_minus_soft": "gates cut to 0 and 1 minus gates as they are",
    "gain": "most tickets minus one",
    "found_gain": "% of searches that find a ticket, most minus one",
    "one_minus_none": "one ticket minus none",
    "found_one": "% of searches that find a ticket, one planted",
    "found_most": "% of searches that find a ticket, most planted",
    "best_recall": "% of the best copy that masks keep, most planted",
}
"""Keys of metrics.json in words."""


def in_words(numbers: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Return numbers by task as a table: a row per task and number, a column per density."""
    rows = {
        f"{labels.label(task)}: {SHOWN[key]}": inner
        for task, found in numbers.items()
        for key, inner in found.items()
    }
    return tables.intervals_table(rows, title).rename(columns=_column)


def crowds_in_words(numbers: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Return the numbers of crowds as a table: a row per task and number, a column per regime."""
    rows = {
        f"{labels.label(task)}: {SHOWN[key]}": {name: found[name][key] for name in REGIMES}
        for task, found in numbers.items()
        for key in next(iter(found.values()))
    }
    return named(tables.intervals_table(rows, title))


def _column(name: str) -> str:
    """Name a density's column: 'at 01 %', as `tables.heading` has it, is density 0.1."""
    if name == "mean":
        return "mean over densities"
    digits = name.removeprefix("at ").removesuffix(" %")
    return f"density {digits[0]}.{digits[1:]}" if digits != name else labels.label(name)


def found_table(scores: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Return how many of how many searches found a ticket, by some columns."""
    groups = scores.groupby(list(by)).found
    text = [f"{int(k)} of {n}" for k, n in zip(groups.sum(), groups.count(), strict=True)]
    return groups.sum().to_frame("found").assign(found=text)


def this_study(params: SeekersParams) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's parameters."""
    gates, fit = params.gates, params.fit
    facts = {
        "mothers": f"depth {params.depth}, width {params.width}, planted by the rule "
        f"`{params.mode}`, noise {params.noise:g}",
        "data of a task": f"{params.train:,} samples for training, {params.test:,} for test",
        "edge-popup and gates": f"{gates.epochs} epochs of {gates.batch} samples each",
        "gates": f"Adam, learning rate {gates.lr:g}, first log alpha {gates.first:g}; the density "
        f"falls over the first {gates.annealed:.0%} of the epochs",
        "training": f"{fit.epochs} epochs of {fit.batch} samples, learning rate {fit.lr:g}; many "
        f"rounds: {params.rounds} x {params.round_epochs} epochs",
        "seeds": regime.seeds(params.seeds),
    }
    for crowds in params.crowds:
        many = ", ".join(map(str, crowds.copies))
        slow = ", ".join(map(str, crowds.searched)) or "none"
        facts[f"tickets in a mother, {labels.label(crowds.task)}"] = (
            f"{many}; many rounds, edge-popup and gates in those with {slow}"
        )
    crowded = {crowds.task for crowds in params.crowds}
    if left := [labels.label(task) for task in params.tasks if task not in crowded]:
        facts["searched with at most one ticket"] = ", ".join(left)
    return facts
