"""The numbers that docs/explanation/cifar10.md states are those of the results and of table A3."""

import json
from pathlib import Path

import pandas as pd
import torch

from ticketlab import models
from ticketlab.papers.colt.algorithm import chance_rate, rounds_to
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.prac.params import PracParams
from ticketlab.pipeline.params import load_paper
from ticketlab.pruning.masks import chance_jaccard
from ticketlab.study.controls import all_of

ROUNDS = "results/cifar10_small/prac/tables/rounds.csv"
A3 = {48.80: (3935, 19542, 19838, 92.48), 67.23: (4723, 16091, 16712, 86.85),
      83.22: (4602, 13909, 14880, 78.90), 91.41: (5098, 14365, 15247, 82.70)}  # fmt: skip
"""Of PrAC's table A3, by sparsity in percent: samples of CEP, of CET and of the set, percent of CEP
that is in CET; of 45,000 images."""
COLT_ROWS = ("pruned per copy, and by IMP", "weights that COLT removes",
             "agreement J of the copies, and by chance",
             "COLT's rounds to 95 % sparsity, and IMP's")  # fmt: skip


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of the page's tables by the first one of their row."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_the_sets_of_prac_are_those_of_the_results_and_of_the_paper(committed: Path) -> None:
    shown = rows_of((committed / "docs/explanation/cifar10.md").read_text())
    rounds = pd.read_csv(committed / ROUNDS)
    mean = rounds[rounds.arm == "prac"].groupby("round").mean(numeric_only=True)
    size = int(mean.samples[1])  # the first round trains on all images
    ours = {
        "sparsity here": [f"{100 * one:.0f} %" for one in mean.trained_sparsity],
        "set here": [f"{100 * one / size:.0f}" for one in mean.set_samples],
        "CEP here": [f"{100 * one / size:.0f}" for one in mean.cep],
        "share of CEP that is in CET, here": ["-", *(f"{100 * o:.0f}" for o in mean.overlap[1:])],
    }
    assert {name: shown[name] for name in ours} == ours
    nearest = [min(A3, key=lambda a, b=100 * one: abs(a - b)) for one in mean.trained_sparsity[1:]]
    assert sorted(set(nearest)) == nearest
    cep, _, sets, overlap = zip(*(A3[one] for one in nearest), strict=True)
    theirs = {
        "set in the paper (table A3), at the nearest sparsity": [100 * n / 45_000 for n in sets],
        "CEP in the paper": [100 * number / 45_000 for number in cep],
        "share of CEP that is in CET, in the paper": overlap,
    }
    rounded = {name: ["-", *(f"{n:.0f}" for n in numbers)] for name, numbers in theirs.items()}
    assert {name: shown[name] for name in theirs} == rounded


def test_the_union_in_table_a3_fits_its_parts() -> None:
    for cep, cet, both, overlap in A3.values():
        assert abs(cep * (1 - overlap / 100) + cet - both) < 2


def test_every_control_passed_as_the_page_says(committed: Path) -> None:
    page = (committed / "docs/explanation/cifar10.md").read_text()
    assert "Every positive control passed" in page
    tables = sorted(committed.glob("results/cifar10_small/*/metrics.json"))
    papers = [path.parent.name for path in tables]
    assert papers == ["colt", "dlth", "prac"]
    failed = [
        (path.parent.name, one.name)
        for path in tables
        for one in all_of(json.loads(path.read_text()))
        if not one.passed
    ]
    assert tables and failed == []


def test_colt_s_rounds_are_those_of_the_results_and_follow_from_the_rates(committed: Path) -> None:
    shown = rows_of((committed / "docs/explanation/cifar10.md").read_text())
    here = load_paper("cifar10_small", "colt")
    assert isinstance(here, ColtParams)
    found = json.loads((committed / "results/cifar10_small/colt/metrics.json").read_text())[
        "rounds"
    ]
    copy, imp = 0.15, 0.2  # the released code
    by_chance, agreement = chance_rate(copy, 2), chance_jaccard(here.rate, here.rate)
    assert {name: cells for name, cells in shown.items() if name in COLT_ROWS} == {
        COLT_ROWS[0]: [
            f"{100 * here.rate:.0f} and {100 * here.imp_rate:.0f} %",
            "15 and 20 %",
        ],
        COLT_ROWS[1]: [f"{100 * found['rate']['mean']:.1f} %", f"{100 * by_chance:.2f} %"],
        COLT_ROWS[2]: [
            f"{found['agreement']['mean']:.2f} and {agreement:.2f}",
            f"{chance_jaccard(copy, copy):.2f}",
        ],
        COLT_ROWS[3]: [
            f"{found['colt-class-2of2']['most']:g} and {found['imp']['least']:g}",
            f"{rounds_to(0.95, by_chance)} and {rounds_to(0.95, imp)}",
        ],
    }


def test_what_the_page_explains_is_in_the_results(committed: Path) -> None:
    page = " ".join((committed / "docs/explanation/cifar10.md").read_text().split())
    results = committed / "results/cifar10_small"
    params = load_paper("cifar10_small", "prac")
    assert isinstance(params, PracParams)
    whole = params.recipe.iterations(params.data.train)[1]  # type: ignore[operator]
    rounds = pd.read_csv(results / "prac/tables/rounds.csv")
    first, *later = 100 * rounds[rounds.arm == "prac"].groupby("round").iterations.mean() / whole
    assert f"first round takes {first:.0f} % of a full training" in page
    assert f"take {min(later):.0f} to {max(later):.0f} % of a full training" in page
    own = json.loads((results / "dlth/metrics.json").read_text())["own_rate"]["main"]
    lth = own["rst_minus_lth"]
    said = f"{-lth['mean']:.2f} points [{-lth['high']:.2f}, {-lth['low']:.2f}]"
    assert f"LTH is better than RST by {said}" in page
    colt = json.loads((results / "colt/metrics.json").read_text())
    assert f"| dense test accuracy | about {colt['accuracy']['dense']['mean']:.0f} % |" in page
    imp = pd.read_csv(results / "colt/tables/rounds.csv").query("arm == 'imp'")
    (all_of_them,), (fifth,) = (set(imp[imp["round"] == at].alive) for at in (0, 5))
    assert f"ends at {100 * (1 - fifth / all_of_them):.2f} %" in page
    assert f"{fifth - int(all_of_them * 0.05)} weights above the target" in page


def test_the_network_has_batch_norm_as_the_page_says(committed: Path) -> None:
    page = (committed / "docs/explanation/cifar10.md").read_text()
    params = load_paper("cifar10_small", "colt")
    assert isinstance(params, ColtParams)
    model = models.build(params.model, (3, 16, 16), 10, 0)
    assert any(isinstance(one, torch.nn.BatchNorm2d) for one in model.modules())
    assert "| network | Conv-3, width 32, with batch norm |" in page
