"""Tables of the DLTH study, and the facts of its fidelity card."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ticketlab import labels
from ticketlab.data.sets import DataSet, load
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.metrics import ACCURACY, HEADLINE, Pairs, Results, name
from ticketlab.papers.dlth.params import Case, RstParams
from ticketlab.study import images, regime, tables
from ticketlab.study.plots import number
from ticketlab.study.stats import as_interval
from ticketlab.study.tables import LABELS


def pairs_table(numbers: Mapping[str, Any], bed: str, pairs: Pairs) -> pd.DataFrame:
    """Return differences at a bed's highest sparsity, at one common rate and at own rates.

    One row per pair that the study has, in points; omits rates at which nothing ran.
    """
    columns = {"one common rate": "common_rate", "own rates": "own_rate"}
    found = {title: numbers[key][bed] or {} for title, key in columns.items()}
    rows = {
        labels.label(name(arm, other)): {
            c: tables.text(part.get(name(arm, other))) for c, part in found.items()
        }
        for arm, other in pairs
        if any(part.get(name(arm, other)) for part in found.values())
    }
    table = pd.DataFrame(rows, index=list(columns)).T.rename_axis("points, paired by seed")
    return table.loc[:, (table != tables.NONE).any()]


def at_other_levels(numbers: Mapping[str, Any], case: Case) -> str:
    """Say where the main claims are decided, and how LTH and RST stand at the other levels.

    The control that LTH beats Scratch decides at the highest sparsity alone; elsewhere it is shown
    for comparison.
    """
    found = numbers["differences"]
    said = [
        f"**What decides.** The main claims are decided at {100 * case.judged:g} % sparsity "
        "alone; all numbers here are at one common learning rate."
    ]
    for level in sorted(case.levels, reverse=True):
        at = f"at_{100 * level:g}"
        shown = {words: as_interval(found[key][at]) for key, words in SHOWN_BY_LEVEL.items()}
        lead = shown[LEAD]
        if lead is None or lead.low is None:
            continue
        verbs = (
            ("does not pass", "passes") if level == case.judged else ("would fail", "would pass")
        )
        parts = [f"{words} is {number(one)}" for words, one in shown.items() if one]
        control = f"the control that LTH beats Scratch {verbs[lead.low > 0]} there"
        said.append(f"At {100 * level:g} % sparsity {', '.join(parts)}: {control}.")
    if len(case.levels) > 1:
        said.append("The other levels decide nothing.")
    return " ".join(said)


LEAD = "LTH minus Scratch"
SHOWN_BY_LEVEL = {
    "lth_minus_scratch": LEAD,
    "rst_minus_lth": "RST minus LTH",
    "rst_minus_scratch": "RST minus Scratch",
}
"""Differences that `at_other_levels` names, by key in metrics.json."""


def rates_table(numbers: Mapping[str, Any], bed: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracy of each arm at each rate and its own, and how often each was chosen.

    `rows` are those of `at_own_rates`.
    """
    names = {"lr_own": "own rate"}
    by_arm = {
        arm: {names.get(key, _rate(key)): one for key, one in by.items()}
        for arm, by in (numbers["rates"][bed] or {}).items()
    }
    table = tables.labelled(tables.intervals_table(by_arm, LABELS[ACCURACY]))
    chosen = {
        labels.label(str(arm)): ", ".join(
            f"{lr:g} in {n}" for lr, n in own.lr.value_counts().sort_index().items()
        )
        for arm, own in rows.groupby("arm")
    }
    return table.assign(chosen=pd.Series(chosen))


def _rate(key: str) -> str:
    """'lr_0_05' of metrics.json as a column: 'rate 0.05'."""
    return f"rate {key.removeprefix('lr_').replace('_', '.')}"


def spread_table(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """Return deviations of RST's accuracy over masks and initialisations, and ln of their ratio."""
    return tables.labelled(
        tables.intervals_column(numbers["draws"], "standard deviation in points, mean over seeds")
    )


def images_table(results: Results, params: RstParams) -> pd.DataFrame:
    """Return HEADLINE's differences over test images instead of seeds, for the main case.

    Empty if seeds have different test images.
    """
    if not images.shared_by_seeds(params.data):
        return pd.DataFrame()
    known = images.hits(results, load(params.data, seed=params.seeds[0]).test.y)
    return images.pairs_table(known, image_pairs(params.cases[0]))


def image_pairs(case: Case) -> dict[str, list[images.Key]]:
    """Return the two tickets of each of HEADLINE's pairs at the case's highest sparsity."""
    return {labels.label(name(*pair)): [_ticket_of(case, arm) for arm in pair] for pair in HEADLINE}


def _ticket_of(case: Case, arm: str) -> images.Key:
    """Return unit and name of an arm's ticket at the highest sparsity: LTH's unit is dense."""
    level = f"{100 * case.judged:g}"
    if arm == "lth":
        return f"{case.name}/pretrained", f"lth-{level}"
    return f"{case.name}/{arm}-{level}", "ticket"


def accuracy_table(numbers: Mapping[str, Any], case: str) -> pd.DataFrame:
    """Return test accuracy of every arm at every level: mean, 95 % interval, n."""
    arms = numbers["accuracy"][case]
    table = tables.intervals_table(arms, LABELS[ACCURACY])
    levels = {at for by in arms.values() for at in by}
    return tables.labelled(table[[tables.heading(at) for at in sorted(levels, key=_level)]])


def _level(at: str) -> float:
    return float(at.removeprefix("at_"))


def looks_in_words(looks: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Return the first, middle and last observation of a transformation, one row each."""
    some = pd.DataFrame(looks).iloc[[0, len(looks) // 2, -1]]
    return tables.labelled(some.set_index("iteration").round(3))


def curve_table(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> pd.DataFrame:
    """Return accuracy (%) during finetuning, one column per run: start, early range, end."""
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
    """Return each arm's total cost relative to Scratch: images, dense and sparse FLOPs (means)."""
    own = rows[rows.case == case]
    mean = own.groupby("arm", sort=False)[["images", "dense_flops", "sparse_flops"]].mean()
    scratch = mean.to_dict("index")["scratch"]
    return (
        pd.DataFrame(
            {
                "images / Scratch": mean["images"] / scratch["images"],
                "dense FLOPs / Scratch": mean["dense_flops"] / scratch["dense_flops"],
                "sparse FLOPs / Scratch's dense ones": mean["sparse_flops"]
                / scratch["dense_flops"],
            }
        )
        .sort_values("images / Scratch")
        .rename(index=labels.label)
    )


def this_study(params: RstParams, data: DataSet) -> dict[str, str]:
    """Return the facts of the fidelity card that come from the study's main case."""
    case, count = params.cases[0], len(data.train)
    penalty, levels = case.penalty, ", ".join(f"{100 * level:g} %" for level in case.levels)
    return {
        "net": regime.net(case.model, case.prunable, data),
        "images": regime.images(case.data, data),
        "finetuning": regime.schedule(case.finetune, count),
        "transformation": regime.schedule(case.transform, count),
        "penalty": f"lambda to {penalty.ceiling:g} over {penalty.ramp:,} iterations",
        "decay time of a removed weight": _window(case, count),
        "learning rates": ", ".join(f"{lr:g}" for lr in case.rates)
        or f"{case.finetune.lr:g} alone",
        "sparsity of each masked layer": levels,
        "other cases": ", ".join(f"{c.name} ({c.model.name})" for c in params.others) or "none",
        "seeds": regime.seeds(params.seeds),
    }


def _window(case: Case, count: int) -> str:
    """Format the decay time of a removed weight in iterations and epochs of `count` images."""
    window = algorithm.decay_time(case.penalty, case.transform)
    per_epoch, _ = case.transform.iterations(count)
    return f"{window:,.0f} iterations, {window / per_epoch:.2g} epochs"
