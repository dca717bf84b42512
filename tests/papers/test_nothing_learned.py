"""A run that learned nothing proves nothing: every paper at rates that learn nothing, and what its
claims then say. Each study is a tiny one, judged through its own report from the metrics.json that
a page would write."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tiny

from ticketlab.papers.colt import metrics as colt_metrics
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.compare import report as compare_report
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.dlth import metrics as dlth_metrics
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.geometry import metrics as geometry_metrics
from ticketlab.papers.geometry import study as geometry_study
from ticketlab.papers.plant_n_seek import metrics as plant_metrics
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.prac import metrics as prac_metrics
from ticketlab.papers.prac import study as prac_study
from ticketlab.spec import Spec
from ticketlab.study.claims import Verdict, judged, load_claims
from ticketlab.study.results import write_metrics
from ticketlab.study.runner import run_study
from ticketlab.training.loop import Diverged

SEEDS = [0, 1, 2]
DECIDED = {"reproduced", "not reproduced"}
Numbers = Mapping[str, Any]


def colt(lr: float) -> Any:
    recipe = {"optimizer": "sgd", "lr": lr, "batch": 40, "length": "2ep"}
    transfer = {"data": tiny.DIGITS.model_dump(), "levels": [0.7], "seeds": 3}
    return tiny.colt(seeds=SEEDS, recipe=recipe, transfer=transfer)


def prac(lr: float) -> Any:
    recipe = {"lr": lr, "batch": 20, "length": "4ep", "milestones": ["2ep", "3ep"]}
    short = {"lr": lr, "batch": 20, "length": "2ep"}
    return tiny.prac(
        seeds=SEEDS,
        recipe=recipe,
        others=[tiny.prac_other(recipe=short, seeds=3)],
        scores=["el2n"],
        label_noise=0.0,
    )


def dlth(lr: float) -> Any:
    values = deepcopy(tiny.DLTH)
    for case in (values, *values["others"]):
        case |= {"finetune": case["finetune"] | {"lr": lr}, "rates": []}
    return tiny.dlth(**values | {"seeds": SEEDS})


def plant_n_seek(lr: float) -> Any:
    recipe, popup = tiny.CONV["recipe"] | {"lr": lr}, tiny.CONV["popup_recipe"] | {"lr": lr}
    conv = tiny.CONV | {"recipe": recipe, "popup_recipe": popup}
    fit = {"lr": lr, "batch": 50, "epochs": 1}
    return tiny.plant_n_seek(
        seeds=SEEDS, fit=fit, popup={"lr": lr, "batch": 50, "epochs": 2}, audits=SEEDS, conv=conv
    )


def compare(lr: float) -> Any:
    recipe = {"lr": lr, "batch": 50, "length": "1ep"}
    bed = deepcopy(tiny.COMPARE["beds"][0]) | {"recipe": recipe}
    return tiny.compare(seeds=SEEDS, beds=[bed])


def geometry(lr: float) -> Any:
    recipe = {"lr": lr, "batch": 50, "length": "1ep"}
    bed = tiny.geometry_values()["beds"][0] | {"recipe": recipe}
    return tiny.geometry(seeds=SEEDS, beds=[bed])


STUDIES: dict[str, tuple[Callable[[float], Spec], Callable[..., Any], Callable[..., Numbers]]] = {
    "colt": (colt, colt_study.phases, colt_metrics.metrics),
    "prac": (prac, prac_study.phases, prac_metrics.metrics),
    "dlth": (dlth, dlth_study.phases, dlth_metrics.metrics),
    "plant_n_seek": (plant_n_seek, plant_study.phases, plant_metrics.metrics),
    "compare": (compare, compare_study.phases, compare_report.metrics),
    "geometry": (geometry, geometry_study.phases, geometry_metrics.metrics),
}


def verdicts(paper: str, lr: float, folder: Path) -> list[Verdict]:
    """What a study at this learning rate says of every claim on its paper."""
    params, study, metrics = STUDIES[paper]
    chosen = params(lr)
    results = run_study(study(chosen), folder / "runs")
    write_metrics(metrics(results, chosen), folder / "metrics.json")
    return judged(paper, folder / "metrics.json")


def cases(rates: Mapping[str, float]) -> list[Any]:
    """The papers at these rates; the comparison alone is fast."""
    marks: dict[str, Any] = {"compare": ()}
    return [
        pytest.param(paper, lr, marks=marks.get(paper, pytest.mark.slow))
        for paper, lr in rates.items()
    ]


DIVERGING = dict.fromkeys(STUDIES, 1e30)
"""A rate at which the first step leaves the finite numbers, or the second."""
HIGH = {"colt": 10.0, "dlth": 10.0, "plant_n_seek": 100.0, "compare": 10.0,
        "geometry": 10.0}  # fmt: skip
"""Rates that learn nothing; PrAC's tiny net either learns or diverges."""


@pytest.mark.parametrize("paper, lr", cases(DIVERGING))
def test_a_run_that_diverges_ends_and_names_its_rate(
    paper: str, lr: float, tiny_root: Path, tmp_path: Path
) -> None:
    message = r"unit \S+, seed 0, .*lr: 1e\+30 makes the training diverge"
    with pytest.raises(Diverged, match=message):
        verdicts(paper, lr, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def highest_finite(paper: str, lr: float, folder: Path) -> list[Verdict]:
    """The verdicts at the rate, or at a third or a tenth of it: rounding decides what diverges."""
    for number, rate in enumerate((lr, lr / 3, lr / 10)):
        with suppress(Diverged):
            return verdicts(paper, rate, folder / str(number))
    raise AssertionError(f"{paper} diverges from {lr / 10:g} to {lr:g}")


@pytest.mark.parametrize("paper, lr", [*cases(HIGH), *cases(dict.fromkeys(STUDIES, 1e-9))])
def test_a_run_that_learned_nothing_decides_nothing(
    paper: str, lr: float, tiny_root: Path, tmp_path: Path
) -> None:
    found = highest_finite(paper, lr, tmp_path)
    assert [v.claim.id for v in found] == [claim.id for claim in load_claims(paper)]
    assert {v.claim.id: v.message for v in found if v.word in DECIDED} == {}
    untestable = [v for v in found if v.word == "not testable here"]
    assert len(untestable) >= 10
    assert all("is not above chance" in (v.reason or "") for v in untestable)
