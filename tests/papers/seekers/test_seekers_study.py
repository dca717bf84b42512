"""The study of newer seekers: benches with k tickets, equal budgets, numbers, a tiny study."""

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import Message, shared_folder

from ticketlab.files import read_yaml, write_json
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.plant_n_seek.units import PlantBench, pop
from ticketlab.papers.seekers import figures, report, study
from ticketlab.papers.seekers.params import SeekersParams
from ticketlab.papers.seekers.units import CrowdBench
from ticketlab.spec import ROOT
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result
from ticketlab.study.runner import run_study

Study = tuple[SeekersParams, dict[str, Result]]


def tiny(**changes: Any) -> SeekersParams:
    values: dict[str, Any] = read_yaml(ROOT / "tests/papers/seekers/tiny.yaml")
    return SeekersParams.model_validate(values | changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study, run once for all tests of this file."""
    params = tiny()
    with shared_folder(tmp_path_factory, "seekers") as folder:
        return params, run_study(study.phases(params), folder)


# --- benches


def test_a_bench_with_one_ticket_is_plant_n_seeks_and_with_none_it_is_not_planted() -> None:
    params = tiny()
    case = params.case("circle")
    plain = PlantBench(params.planting(), case, 0)
    none, one, three = (CrowdBench(params.planting(), case, 0, copies) for copies in (0, 1, 3))
    for mother, bench in (("planted", one), ("unplanted", none)):
        wanted, found = plain.start(mother), bench.beginning()  # type: ignore[arg-type]
        assert all(torch.equal(found[name], w) for name, w in wanted.items())
    assert none.planted.mask == one.planted.mask == plain.planted.mask
    assert len(three.crowd.masks) == 3 and three.planted.mask == plain.planted.mask
    assert three.multiples([1, 3]) == [plain.density("gt"), 3 * plain.density("gt")]


def test_edge_popup_is_the_unit_of_plant_n_seek_itself() -> None:
    """So a study of both trains it once: the arguments are equal, and with them the keys."""
    desk = read_yaml(ROOT / "params.yaml")["desk"]["plant_n_seek"]
    long = read_yaml(ROOT / "studies/desk_long.yaml")["seekers"]
    theirs = plant_study.shared(PlantParams.model_validate(desk))
    ours = SeekersParams.model_validate(long)
    assert ours.planting().model_dump() == theirs.model_dump()
    (popup, gates) = study.single_units(ours, "circle", "planted", 100)
    assert popup.work is pop and gates.arguments["params"] == popup.arguments["params"]
    same = [u for u in plant_study.units(PlantParams.model_validate(desk)) if u.key == popup.key]
    assert [u.name for u in same] == ["popup/circle-d5-w100-n0.01/linear/planted-annealed/seed-100"]


# --- the study


def test_gates_and_edge_popup_keep_equally_many_at_every_density(done: Study) -> None:
    scores = report.scores_table(done[1])
    same = report.same_counts(scores)
    assert same.all() and len(same) == 2 * (3 * 4 + 2 * 2)  # seeds x (3 densities x mothers + ...)
    moved = scores.assign(kept=scores.kept + (scores.method == "gates"))
    assert not report.same_counts(moved).any()


def test_the_rows_say_how_many_tickets_there_were_and_what_was_found(done: Study) -> None:
    _, results = done
    scores = report.scores_table(results)
    crowds = scores[scores.part == "crowd"]
    assert set(crowds[crowds.task == "circle"].copies) == {1, 2}
    assert set(crowds[crowds.regime == "multishot"].task) == {"circle"}
    assert set(crowds.label) == {"1", "2"}
    near = scores.margin >= scores.task.map(lambda task: -10.0 if task == "circle" else -1.0)
    assert (scores.found == near).all()
    bare = scores[(scores.part == "single") & (scores.copies == 0)]
    assert set(bare.task) == {"circle"} and len(bare) == 2 * 2 * 3
    alone = report.alone_table(results)
    assert len(alone[alone["copies"] == 2]) == 2 * 2 * (3 + 1) and alone.found.all()
    spread = alone.groupby(["task", "seed"]).margin
    assert (spread.max() - spread.min() < 1e-3).all()  # each copy is the one ticket


def test_the_tiny_study_has_every_number(done: Study, tmp_path: Path) -> None:
    params, results = done
    numbers = report.metrics(results, params)
    write_json(tmp_path / "metrics.json", numbers)
    for claim in load_claims("seekers"):
        assert judge(claim, numbers).word != "not run", claim.id


def table(rows: list[tuple[int, int, str, float]]) -> pd.DataFrame:
    """Rows of a crowd: seed, copies, regime, margin in points."""
    frame = pd.DataFrame(rows, columns=["seed", "copies", "regime", "margin"])
    frame = frame.assign(part="crowd", task="circle", method="snip", best_recall=0.25)
    return frame.assign(found=frame.margin >= -10)


def test_gains_are_the_most_tickets_minus_one_of_the_same_seed() -> None:
    rows = [(0, 1, "singleshot", -30.0), (0, 1, "singleshot", -8.0), (0, 4, "singleshot", -5.0),
            (0, 4, "singleshot", -9.0), (1, 1, "singleshot", -20.0), (1, 1, "singleshot", -40.0),
            (1, 4, "singleshot", -20.0), (1, 4, "singleshot", -4.0)]  # fmt: skip
    crowds = tiny(width=100, crowds=[{"task": "circle", "copies": [1, 4]}]).crowds[0]
    found = report.crowd_metrics(table(rows), crowds)
    assert found["singleshot"]["gain"].by_seed == {0: 12.0, 1: 18.0}
    assert found["singleshot"]["found_gain"].by_seed == {0: 50.0, 1: 50.0}
    assert found["singleshot"]["found_one"].by_seed == {0: 50.0, 1: 0.0}
    assert found["singleshot"]["best_recall"]["mean"] == 25.0
    assert found["singleshot"]["one_minus_none"] is None and found["multishot"]["gain"] is None


def test_gates_are_compared_with_edge_popup_and_with_no_ticket() -> None:
    rows = [("gates", 1, -4.0, -3.0), ("annealed", 1, -9.0, None), ("gates", 0, -6.0, -6.0)]
    frame = pd.DataFrame(rows, columns=["method", "copies", "margin", "soft_margin"])
    both = pd.concat([frame.assign(seed=seed, margin=frame.margin - seed) for seed in (0, 1)])
    both = both.assign(part="single", task="circle", label="0.5")
    found = report.gate_metrics(both, tiny(densities=[0.5]), "circle")
    assert found["minus_popup"]["at_05"].by_seed == {0: 5.0, 1: 5.0}
    assert found["shortfall"]["at_05"].by_seed == {0: 4.0, 1: 5.0}
    assert found["unplanted_minus_planted"]["mean"].by_seed == {0: -2.0, 1: -2.0}
    assert found["mask_minus_soft"]["at_05"].by_seed == {0: -1.0, 1: -2.0}


def test_figures_draw_the_tiny_study(done: Study) -> None:
    params, results = done
    scores = report.scores_table(results)
    numbers = report.metrics(results, params)
    for draw in (figures.gates, figures.soft, figures.crowd, figures.gains):
        figure = draw(scores, params, numbers)
        assert figure.get_label() and figure.axes
        plt.close(figure)


def test_the_figure_of_crowds_has_an_interval_for_every_mean_and_says_n(done: Study) -> None:
    params, results = done
    scores = report.scores_table(results)
    figure = figures.crowd(scores, params, report.metrics(results, params))
    own = scores[scores.part == "crowd"]
    means = len(own.groupby(["task", "regime", "method", "copies"]))
    assert sum(len(ax.containers) for ax in figure.axes) == means == 2 * (2 + 2 + 2) + 2 * 3
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "means over seeds with 95 % intervals (n = 2)"
    plt.close(figure)


def test_figures_say_the_numbers_of_the_page(done: Study) -> None:
    params, results = done
    scores, numbers = report.scores_table(results), report.metrics(results, params)
    shown = {"mean": -3.5, "low": -4.0, "high": -2.5, "n": 10}
    numbers["gates"]["circle"]["minus_popup"]["at_01"] = shown
    numbers["gates"]["circle"]["mask_minus_soft"]["at_01"] = shown
    numbers["crowd"]["circle"]["multishot"]["found_gain"] = shown
    numbers["crowd"]["circle"]["untrained"]["gain"] = shown
    for draw in (figures.gates, figures.soft, figures.crowd, figures.gains):
        figure = draw(scores, params, numbers)
        assert re.search(r": -3\.50? .*\(n = 10\)\.$", figure.get_label())
        plt.close(figure)


def test_the_card_names_targets_without_crowds() -> None:
    facts = report.this_study(tiny())
    assert facts["searched with at most one ticket"] == "Helix"
    assert "searched with at most one ticket" not in report.this_study(tiny(tasks=["circle"]))


def test_the_plan_is_what_runs(done: Study) -> None:
    params, results = done
    assert {unit.name for units in study.planned(params) for unit in units} == set(results)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"gates": {"batch": 50, "epochs": 3}}, "gates.epochs: 3, allowed is 2"),
        ({"gates": {"batch": 40, "epochs": 2}}, "gates.batch: 40, allowed is 50"),
        ({"width": 20}, "copies: 1 need 30 neurons of layer 2"),
        ({"crowds": [{"task": "circle", "copies": [4]}]}, "copies: 4 need 80"),
        ({"crowds": [{"task": "relu", "copies": [0]}]}, "crowds.copies: [0]"),
        ({"crowds": [{"task": "relu", "copies": [1], "searched": [2]}]}, "crowds.searched: 2"),
        ({"crowds": [{"task": "relu", "copies": [1]}] * 2}, "'relu' is there twice"),
        ({"densities": [0.0]}, "density: 0"),
    ],
)
def test_bad_parameters_are_named(changes: dict[str, object], key: str, one_line: Message) -> None:
    assert key in one_line(lambda: study.check(tiny(**changes)))
