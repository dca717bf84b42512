"""The verdicts of a study, judged when they are read, and where each is shown."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, finished
from conftest import Message, passed

from ticketlab.cli import read as commands
from ticketlab.pipeline.params import PAPERS
from ticketlab.spec import ROOT
from ticketlab.study import verdicts
from ticketlab.study.claims import Claim, judge_all, load_claims
from ticketlab.study.claims import of_study as claims_of
from ticketlab.study.rules import q_values
from ticketlab.study.stats import as_reference, interval
from ticketlab.study.verdicts import (
    code_cells,
    of_study,
    shown_in,
    studies,
    table,
)

EVERY = load_claims()
CLAIMS = {paper: [claim for claim in EVERY if claim.paper == paper] for paper in PAPERS}


def cell(number: int, source: str, shows: bool = True) -> dict[str, Any]:
    """A code cell as a notebook file has it."""
    return {"cell_type": "code", "id": f"cell-{number}", "source": source.splitlines(True),
            "outputs": [{}] if shows else []}  # fmt: skip


def made(
    folder: Path,
    paper: str = "colt",
    values: tuple[float, ...] = (1.0, 2.0, 3.0),
    learned: bool = True,
) -> Path:
    """A study whose metrics decide every claim on a paper but the second, which was not run."""
    dense = as_reference({0: 80.0, 1: 81.0} if learned else {0: 10.0, 1: 10.0}, 10.0)
    names = {one.reference for one in CLAIMS[paper]}
    metrics: dict[str, Any] = {"references": {key: {"the dense net": dense} for key in names}}
    metrics["controls"] = passed(CLAIMS[paper])
    for number, one in enumerate(CLAIMS[paper]):
        *keys, last = one.metric.split(".")
        place = metrics
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = None if number == 1 else asdict(interval(values))
    pages = folder / paper
    (pages / "figures").mkdir(parents=True)
    (pages / "figures" / "accuracy.png").touch()
    (pages / "metrics.json").write_text(json.dumps(metrics))
    cells = [cell(1, 'figures.save(x, pages, "accuracy")'), cell(2, "differences_table(numbers)")]
    (pages / f"{paper}.ipynb").write_text(json.dumps({"cells": cells}))
    return folder


# --- the verdicts of a study


def test_a_study_has_every_claim_on_its_papers_with_evidence(tmp_path: Path) -> None:
    found = of_study(made(tmp_path))["colt"]
    assert [one.claim for one in found] == CLAIMS["colt"]
    first, second = found[:2]
    assert first.evidence == interval([1.0, 2.0, 3.0]) and first.word == "reproduced"
    assert second.word == "not run" and second.evidence is None


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((600.0, 601.0, 602.0), "reproduced"),
        ((-602.0, -601.0, -600.0), "not reproduced"),
        ((-600.0, 0.0, 600.0), "undecided"),
        ((600.0,), "undecided"),  # one seed decides nothing
    ],
)
def test_the_metrics_decide_the_verdict(
    values: tuple[float, ...], word: str, tmp_path: Path
) -> None:
    study = made(tmp_path / "a", "plant_n_seek", values)
    words = [one.word for one in of_study(study)["plant_n_seek"]]
    assert words.pop(1) == "not run" and set(words) == {word}
    nothing = made(tmp_path / "b", "plant_n_seek", values, learned=False)
    words = [one.word for one in of_study(nothing)["plant_n_seek"]]
    assert words.pop(1) == "not run" and set(words) == {"not testable here"}


def test_q_is_over_all_papers_of_a_study(tmp_path: Path) -> None:
    study = made(made(tmp_path), "prac", (600.0, 601.0, 602.0))
    every = [one for verdicts in of_study(study).values() for one in verdicts]
    assert [one.q for one in every] == q_values([one.p for one in every])
    alone = of_study(study, ["colt"])["colt"]
    assert alone[0].p == every[0].p and alone[0].q != every[0].q


def test_papers_that_a_study_lacks_are_left_out(tmp_path: Path) -> None:
    study = made(made(tmp_path), "prac")
    (study / "other").mkdir()
    (study / "other" / "metrics.json").write_text("{}")  # of no paper, so without claims
    assert list(of_study(study)) == ["colt", "prac"]
    assert set(table(study).index) == {"colt", "prac"}
    assert set(table(study, ["prac"]).index) == {"prac"}


def test_a_study_without_results_is_one_line(tmp_path: Path, one_line: Message) -> None:
    for action in (of_study, table):
        message = one_line(lambda action=action: action(tmp_path / "desk"))  # type: ignore[misc]
        assert str(tmp_path / "desk") in message and "dvc repro" in message


def test_a_claim_on_an_unknown_metric_is_one_line(tmp_path: Path, one_line: Message) -> None:
    study = made(tmp_path)
    (study / "colt" / "metrics.json").write_text("{}")
    first = CLAIMS["colt"][0]
    message = one_line(lambda: of_study(study))
    missing = "is not in the metrics; if an older version wrote them, run its notebook again"
    assert message == f"claim {first.id}: metric {first.metric!r} {missing}"


def test_a_claim_leads_to_the_cell_with_its_table_else_to_its_figure() -> None:
    cells = [
        cell(3, 'draw(pages, "pace")', shows=False),
        cell(4, 'figures.save(\n    draw(x),\n    pages,\n    "pace",\n)'),
        cell(5, 'report.column(numbers["sets"])'),
    ]
    shows = [c for c in cells if c["outputs"]]
    claim = CLAIMS["colt"][0]

    def place(**changes: str | None) -> str | None:
        values = claim.model_dump() | {"figure": None, "table": None} | changes
        return shown_in(Claim.model_validate(values), shows)

    assert place(figure="pace") == "cell-4" and place(table='column(numbers["sets"]') == "cell-5"
    assert place(figure="pace", table='column(numbers["sets"]') == "cell-5"
    assert place(figure="pace", table="gone") == "cell-4"
    assert place(figure="pac") is None and place() is None


PAGES = [
    path
    for path in sorted(ROOT.glob("results/*/*/*.ipynb"))
    if path.stem == path.parent.name and path.parent.parent.name != verdicts.SMOKE
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_every_claim_leads_to_a_cell_with_an_output_and_to_its_figure(page: Path) -> None:
    folder, cells = page.parent, code_cells(page)
    claims = [one for one in claims_of(CLAIMS[page.stem], folder.parent.name) if one.studies]
    shown = {one.id: shown_in(one, cells) for one in claims}
    assert [name for name, place in shown.items() if place is None] == []
    code = ["".join(c["source"]) for c in cells]
    for one in claims:
        assert one.table is None or any(one.table in text for text in code), one.id
        assert one.figure is None or list(folder.glob(f"figures/{one.figure}.*")), one.id


# --- one truth


@pytest.mark.slow
def test_other_numbers_are_other_verdicts_wherever_they_are_shown(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One paper is run again with other parameters, by one target: nothing shows what was before.

    Verdicts once lived in a file of their own, which that target did not make again.
    """
    clone: Clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("again") / "clone")
    # Two seeds of a tiny study pass no control.
    clone.edit("claims/colt.yaml", lambda text: re.sub(r"(?m)^  needs: .*\n", "", text))
    clone.commit()
    before = words(clone)
    assert "not testable here" in before.values()  # one epoch of 240 images teaches nothing
    clone.set(desk={"recipe": {"length": "8ep", "lr": 0.01}})
    clone.run("dvc repro -q read@desk-colt")
    after = words(clone)
    assert after["colt-H1"] != "not testable here"
    flipped = {name for name in before if before[name] != after[name]}
    claimed = clone.run("ticketlab claims desk").stdout
    clone.run("ticketlab compare HEAD workspace && ticketlab report")
    page, table = (clone.path(p).read_text() for p in ("compare.html", "site/claims.html"))
    assert f"Verdicts that flipped ({len(flipped)})" in page
    rows = re.findall(r'<tr id="(colt-[\w-]+)" data-study="desk".*?data-verdict="([^"]+)"', table)
    assert dict(rows) == after
    assert len(flipped) > 5 and all(after[name] in claimed for name in flipped)
    assert not clone.path("results/desk/claims.json").exists()


def words(clone: Clone) -> dict[str, str]:
    """The verdicts in a clone's metrics, by its claims."""
    metrics = json.loads(clone.path("results/desk/colt/metrics.json").read_text())
    assert "claims" not in metrics
    claims = load_claims("colt", clone.path("claims"))
    return {one.claim.id: one.word for one in judge_all(claims, metrics, "desk")}


# --- the table of a study


def test_a_studys_table_is_judged_from_its_metrics(tmp_path: Path) -> None:
    found = table(made(tmp_path))
    claims = CLAIMS["colt"]
    assert found.claim.tolist() == [one.id for one in claims]
    assert found.statement.tolist() == [one.statement for one in claims]
    assert found.verdict.iloc[1] == "not run" and found.ours.iloc[1] == "-"
    assert found.ours.iloc[2] == str(interval([1.0, 2.0, 3.0]))
    assert found["holds if"].iloc[0] == claims[0].holds_if
    assert set(found.shown) == {"colt/figures/accuracy.png", "colt/colt.ipynb"}


def test_all_studies_with_results_are_taken_the_chosen_ones_first(tmp_path: Path) -> None:
    for study, paper in (("desk", "colt"), ("mini", "colt"), ("mini", "prac"), ("smoke", "colt")):
        made(tmp_path / study, paper)
    assert verdicts.SMOKE == "smoke"
    assert list(studies(["mini", "absent"], tmp_path)) == ["mini", "desk"]
    assert studies([], tmp_path) == {name: tmp_path / name for name in ("desk", "mini")}


def test_the_terminal_says_why_nothing_is_testable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    commands.show_claims("desk", table(made(tmp_path / "desk", learned=False)))
    message = capsys.readouterr().out
    why = "not testable here: the dense net is not above chance, 10.00 [10.00, 10.00] (n = 2)"
    assert message.count(why) == len(claims_of(CLAIMS["colt"], "desk")) - 1
