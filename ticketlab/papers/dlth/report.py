"""Tables of the DLTH study, and the facts of its fidelity card."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.metrics import ACCURACY, HEADLINE, Pairs, Results, name
from ticketlab.papers.dlth.params import Case, RstParams
from ticketlab.study import images, regime, tables
from ticketlab.study.tables import LABELS


def pairs_table(numbers: Mapping[str, Any], bed: str, pairs: Pairs) -> pd.DataFrame:
    """Return differences at a bed's highest sparsity, at one common rate and at own rates.

    One row per pair that the study has, in points; omits rates at which nothing ran.
    """
    columns = {"one common rate": "common_rate", "own rates": "own_rate"}
    found = {title: numbers[key][bed] or {} for title, key in columns.items()}
    rows = {
        f"{arm} - {other}": {
            c: tables.text(part.get(name(arm, other))) for c, part in found.items()
        }
        for arm, other in pairs
        if any(part.get(name(arm, other)) for part in found.values())
    }
    table = pd.DataFrame(rows, index=list(columns)).T.rename_axis("points, paired by seed")
    return table.loc[:, (table != tables.NONE).any()]


def rates_table(numbers: Mapping[str, Any], bed: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracy of each arm at each rate and its own, and how often each was chosen.

    `rows` are those of `at_own_rates`.
    """
    table = tables.intervals_table(numbers["rates"][bed] or {}, LABELS[ACCURACY])
    table.columns = [c.removeprefix("lr_").replace("_", ".") for c in table.columns]
    chosen = {
        arm: ", ".join(f"{lr:g} in {n}" for lr, n in own.lr.value_counts().sort_index().items())
        for arm, own in rows.groupby("arm")
    }
    return table.rename(columns={"own": "own rate"}).assign(chosen=pd.Series(chosen))


def spread_table(numbers: Mapping[str, Any]) -> pd.DataFrame:
    """Return deviations of RST's accuracy over masks and initialisations, and ln of their ratio."""
    return tables.intervals_column(numbers["draws"], "deviation, mean over seeds")


def images_table(results: Results, params: RstParams) -> pd.DataFrame:
    """Return HEADLINE's differences over test images instead of seeds, for the main case.

    Empty if seeds have different test images.
    """
    case, one_test = params.cases[0], params.data.test is None or params.data.split_seed is not None
    labels = load(params.data, seed=params.seeds[0]).test.y
    tag, known = f"{100 * case.judged:g}", images.hits(results, labels) if one_test else {}
    rows = {}
    for pair in HEADLINE:
        keys = [
            (f"{case.name}/pretrained", f"lth-{tag}")
            if arm == "lth"
            else (f"{case.name}/{arm}-{tag}", "ticket")
            for arm in pair
        ]
        if all(key in known for key in keys):
            rows[" - ".join(pair)] = images.over_images(*(known[key] for key in keys)).text()
    return pd.Series(rows, dtype=object).to_frame("points, 95 % over test images")


def accuracy_table(numbers: Mapping[str, Any], case: str) -> pd.DataFrame:
    """Return test accuracy of every arm at every level: mean, 95 % interval, n."""
    arms = numbers["accuracy"][case]
    table = tables.intervals_table(arms, LABELS[ACCURACY])
    levels = {at for by in arms.values() for at in by}
    return table[[tables.heading(at) for at in sorted(levels, key=_level)]]


def _level(at: str) -> float:
    return float(at.removeprefix("at_"))


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
    return pd.DataFrame(
        {
            "images / Scratch": mean["images"] / scratch["images"],
            "dense FLOPs / Scratch": mean["dense_flops"] / scratch["dense_flops"],
            "sparse FLOPs / Scratch's dense ones": mean["sparse_flops"] / scratch["dense_flops"],
        }
    ).sort_values("images / Scratch")


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
        "borrowing window": _window(case, count),
        "learning rates": ", ".join(f"{lr:g}" for lr in case.rates)
        or f"{case.finetune.lr:g} alone",
        "sparsity of each masked layer": levels,
        "other cases": ", ".join(f"{c.name} ({c.model.name})" for c in params.others) or "none",
        "seeds": regime.seeds(params.seeds),
    }


def _window(case: Case, count: int) -> str:
    """Format the borrowing window in iterations and epochs of `count` images."""
    window = algorithm.borrowing_window(case.penalty, case.transform)
    per_epoch, _ = case.transform.iterations(count)
    return f"{window:,.0f} iterations, {window / per_epoch:.2g} epochs"
