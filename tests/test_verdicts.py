"""claims.json of a study, where each claim is shown, and the table of the README."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, finished
from conftest import Message

from ticketlab import verdicts
from ticketlab.claims import COLOURS, Claim, interval, load_claims
from ticketlab.files import read_json
from ticketlab.params import PAPERS
from ticketlab.spec import ROOT
from ticketlab.verdicts import (
    MARKS,
    code_cells,
    collect,
    shown_in,
    table,
    tables,
    with_table,
    write,
)

PAGE = "# Title\n\ntext\n<!-- claims: desk -->\nold | table\n<!-- /claims -->\nrest | of | page\n"
EVERY = load_claims()
CLAIMS = {paper: [claim for claim in EVERY if claim.paper == paper] for paper in PAPERS}
COMMITTED = sorted(path.parent for path in (ROOT / "results").glob("*/claims.json"))


def cell(number: int, source: str, shows: bool = True) -> dict[str, Any]:
    """A code cell as a notebook file has it."""
    return {"cell_type": "code", "id": f"cell-{number}", "source": source.splitlines(True),
            "outputs": [{}] if shows else []}  # fmt: skip


def made(folder: Path, paper: str = "colt", values: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Path:
    """A study whose metrics decide every claim on a paper but the second, which was not run."""
    metrics: dict[str, Any] = {}
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


# --- the file of a study


def test_a_study_has_every_claim_on_its_papers_with_evidence(tmp_path: Path) -> None:
    found = collect(made(tmp_path))["colt"]
    assert list(found) == [one.id for one in CLAIMS["colt"]]
    first, second = list(found.values())[:2]
    assert first["evidence"] == asdict(interval([1.0, 2.0, 3.0]))
    assert first["verdict"] == "reproduced" and first["at_least"] == -1.0
    assert first["figure"] == "figures/accuracy.png" and first["studies"]
    assert second["verdict"] == "not run at this scale" and second["evidence"] is None


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((600.0, 601.0, 602.0), "reproduced"),
        ((-602.0, -601.0, -600.0), "not reproduced"),
        ((-600.0, 0.0, 600.0), "inconclusive"),
        ((600.0,), "inconclusive"),  # one seed decides nothing
    ],
)
def test_the_metrics_decide_the_verdict(
    values: tuple[float, ...], word: str, tmp_path: Path
) -> None:
    found = collect(made(tmp_path, "plant_n_seek", values))["plant_n_seek"]
    words = [entry["verdict"] for entry in found.values()]
    assert words.pop(1) == "not run at this scale" and set(words) == {word}


def test_papers_that_a_study_lacks_are_left_out(tmp_path: Path) -> None:
    study = made(made(tmp_path), "prac")
    (study / "other").mkdir()
    (study / "other" / "metrics.json").write_text("{}")  # of no paper, so without claims
    assert list(collect(study)) == ["colt", "prac"]
    assert set(table(write(study).parent).index) == {"colt", "prac"}


def test_a_study_without_results_is_one_line(tmp_path: Path, one_line: Message) -> None:
    for action in (collect, table):
        told = one_line(lambda action=action: action(tmp_path / "desk"))  # type: ignore[misc]
        assert str(tmp_path / "desk") in told and "dvc repro" in told


def test_a_claim_on_an_unknown_metric_is_one_line(tmp_path: Path, one_line: Message) -> None:
    study = made(tmp_path)
    (study / "colt" / "metrics.json").write_text("{}")
    first = CLAIMS["colt"][0]
    told = one_line(lambda: collect(study))
    missing = "is not in the metrics; if an older version wrote them, run its notebook again"
    assert told == f"claim {first.id}: metric {first.metric!r} {missing}"


def test_a_claim_that_a_study_has_no_verdict_on_is_one_line(
    tmp_path: Path, one_line: Message
) -> None:
    path = write(made(tmp_path / "mini"))
    content = read_json(path)
    del content["colt"]["colt-H3"]
    path.write_text(json.dumps(content))
    told = one_line(lambda: table(path.parent))
    assert "colt-H3" in told and "ticketlab claims mini --collect" in told


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


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_leads_to_a_cell_with_an_output_and_to_its_figure(paper: str) -> None:
    folder = ROOT / "results" / "desk" / paper
    cells = code_cells(folder / f"{paper}.ipynb")
    shown = {one.id: shown_in(one, cells) for one in CLAIMS[paper]}
    assert [name for name, place in shown.items() if place is None] == []
    code = ["".join(c["source"]) for c in cells]
    for one in CLAIMS[paper]:
        assert one.table is None or any(one.table in text for text in code), one.id
        assert one.figure is None or list(folder.glob(f"figures/{one.figure}.*")), one.id


def test_verdicts_are_those_of_the_pages() -> None:
    """Both are computed; the file from the metrics as written, the page before rounding."""
    for study in COMMITTED:
        for paper, entries in read_json(study / "claims.json").items():
            page = read_json(study / paper / "metrics.json")["claims"]
            words = {name: found["verdict"] for name, found in page.items() if name in entries}
            assert words == {name: entries[name]["verdict"] for name in words}, (study, paper)


def test_dvc_shows_a_verdict_that_flips(tmp_path_factory: pytest.TempPathFactory) -> None:
    """And a study without all papers is collected by the same command."""
    clone: Clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("flip") / "clone")
    found = read_json(clone.path("results/desk/claims.json"))
    assert list(found) == ["colt"]
    before = found["colt"]["colt-H2"]["verdict"]
    bound = "-500.0" if before != "reproduced" else "500.0"
    clone.edit("claims.yaml", lambda text: text.replace("at_least: -1.0", f"at_least: {bound}"))
    told = clone.run("ticketlab claims desk --collect && dvc metrics diff --json").stdout
    assert told.startswith("claims@desk: results/desk/claims.json\n")
    changed = json.loads(told.partition("\n")[2])["results/desk/claims.json"]
    after = read_json(clone.path("results/desk/claims.json"))["colt"]["colt-H2"]["verdict"]
    assert changed["colt.colt-H2.verdict"] == {"old": before, "new": after}
    assert before != after


# --- the table of a study


def test_a_studys_table_is_read_from_its_file(tmp_path: Path) -> None:
    found = table(write(made(tmp_path)).parent)
    claims = CLAIMS["colt"]
    assert found.claim.tolist() == [one.id for one in claims]
    assert found.statement.tolist() == [one.statement for one in claims]
    assert found.verdict.iloc[1] == "not run at this scale" and found.ours.iloc[1] == "-"
    assert found.ours.iloc[2] == str(interval([1.0, 2.0, 3.0]))
    assert found["holds if"].iloc[0] == f">= {claims[0].at_least:g}"
    assert set(found.shown) == {"colt/figures/accuracy.png", "colt/colt.ipynb"}


def results(folder: Path) -> Path:
    """Results of two studies; the second has other numbers and a paper more."""
    write(made(folder / "desk"))
    write(made(made(folder / "mini", values=(90.0, 91.0, 92.0)), "prac"))
    return folder


def test_all_studies_with_results_are_taken_the_chosen_ones_first(tmp_path: Path) -> None:
    found = tables(["mini", "absent"], results(tmp_path))
    assert list(found) == ["mini", "desk"]
    assert list(tables([], tmp_path)) == ["desk", "mini"]


def rows_of(page: str) -> list[list[str]]:
    """The cells of all table rows between the marks."""
    inside = page[page.index(MARKS[0]) : page.index(MARKS[1])]
    lines = [line for line in inside.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_goes_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    found = tables(["desk"], results(tmp_path))
    page = with_table(PAGE, found)
    head, rest = PAGE.split("old | table\n")
    assert page.startswith(head) and page.endswith(rest) and "old | table" not in page
    assert with_table(page, found) == page  # putting it in twice is putting it in once
    rows = rows_of(page)
    assert rows[0] == ["paper", "study", *COLOURS]
    assert [row[:2] for row in rows[2:5]] == [["colt", "desk"], ["colt", "mini"], ["prac", "mini"]]
    assert sum(map(int, rows[2][2:])) == len(CLAIMS["colt"])


def test_each_study_has_its_column_of_verdicts(tmp_path: Path) -> None:
    found = tables(["desk"], results(tmp_path))
    rows = rows_of(with_table(PAGE, found))
    start = rows.index(["claim", "statement", "holds if", "ours (desk)", "desk", "mini"]) + 2
    for row, one in zip(rows[start:], CLAIMS["colt"], strict=False):
        ours, theirs = (each[each.claim == one.id].iloc[0] for each in found.values())
        assert row[:4] == [one.id, one.statement, ours["holds if"], ours.ours]
        assert row[4] == f"[**{ours.verdict}**](results/desk/{ours.shown})"
        assert row[5].startswith(f"[**{theirs.verdict}**](results/mini/colt/")
    assert ["claim", "statement", "holds if", "ours (mini)", "mini"] in rows  # desk has no prac


def test_a_page_without_marks_or_studies_without_verdicts_are_one_line(
    tmp_path: Path, one_line: Message
) -> None:
    found = tables(["desk"], results(tmp_path))
    assert "marks" in one_line(lambda: with_table("# no marks\n", found))
    assert "dvc repro" in one_line(lambda: with_table(PAGE, tables([], tmp_path / "none")))


def test_the_readmes_table_has_a_row_for_every_claim() -> None:
    named = {row[0] for row in rows_of((ROOT / "README.md").read_text())}
    assert {one.id for claims in CLAIMS.values() for one in claims} <= named


def test_the_committed_files_are_those_of_the_metrics() -> None:
    assert COMMITTED, "run: ticketlab claims STUDY --collect"
    for study in COMMITTED:
        assert read_json(study / verdicts.FILE) == collect(study), study.name
