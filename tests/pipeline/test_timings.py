"""Timings: seconds by unit are kept over partial runs, and summed by arm."""

from pathlib import Path

import pytest
from conftest import Message

from ticketlab.files import read_json
from ticketlab.pipeline import timings
from ticketlab.study.runner import Unit


def test_units_that_did_not_run_now_keep_their_seconds(tmp_path: Path) -> None:
    path = tmp_path / "colt.timings.json"
    timings.note(path, {"a": 1.0, "b": 2.0}, ["a", "b"], 1)
    timings.note(path, {"b": 3.0, "c": 4.0}, ["a", "b", "c"], 2)
    assert read_json(path)["seconds"] == {"a": 1.0, "b": 3.0, "c": 4.0}
    timings.note(path, {}, ["c", "unknown"], 2)  # others are of other parameters now
    content = read_json(path)
    assert content["seconds"] == {"c": 4.0} and content["workers"] == 2


def test_an_arm_is_a_row_with_mean_and_sum_over_its_seeds(tmp_path: Path) -> None:
    seconds = {"search/imp/seed-0": 1.0, "search/imp/seed-1": 2.0, "score/imp/seed-0": 5.0}
    passes = {"search/imp/seed-0": 150.0, "search/imp/seed-1": 250.0}
    timings.note(tmp_path / "runs" / "colt.timings.json", seconds, seconds, 1, passes=passes)
    timings.note(tmp_path / "runs" / "dlth.timings.json", {"x": 7.0}, ["x"], 2)
    rows = timings.table(tmp_path).values.tolist()
    assert rows == [
        ["colt", "score/imp", 1, 1, 5.0, 5.0, 0.0],
        ["colt", "search/imp", 1, 2, 1.5, 3.0, 200.0],
        ["dlth", "x", 2, 1, 7.0, 7.0, 0.0],
    ]


def test_a_unit_is_predicted_from_its_arm_and_its_passes(tmp_path: Path) -> None:
    """As it was published, until the paper has been trained here."""
    text = "paper,arm,workers,count,mean,sum,passes\ncolt,imp,2,3,10,30,100\ndlth,x,2,1,1,1,0\n"
    (tmp_path / "timings.csv").write_text(text)
    units = [Unit(f"{arm}/seed-7", print, {}, 50.0) for arm in ("imp", "unknown")]
    assert timings.known(tmp_path, "prac") == {}
    assert timings.predicted(units, timings.known(tmp_path, "colt")) == {"imp/seed-7": 5.0}
    still = Unit("x/seed-0", print, {}, 0.0)  # trains nothing
    assert timings.predicted([still], timings.known(tmp_path, "dlth")) == {"x/seed-0": 1.0}
    path = tmp_path / "runs" / "colt.timings.json"
    timings.note(path, {"imp/seed-0": 4.0}, ["imp/seed-0"], 2, passes={"imp/seed-0": 200.0})
    assert timings.predicted(units, timings.known(tmp_path, "colt")) == {"imp/seed-7": 1.0}
    assert timings.known(tmp_path / "elsewhere", "colt") == {}


def test_the_page_of_a_paper_has_a_row_of_its_own(tmp_path: Path) -> None:
    """Which the next training leaves alone."""
    path = tmp_path / "runs" / "colt.timings.json"
    timings.note_page(path, 12.5)
    timings.note(path, {"a": 1.0}, ["a"], 2)
    timings.note_page(path, 15.0)
    rows = timings.table(tmp_path).values.tolist()
    assert ["colt", "page", 1, 1, 15.0, 15.0, 0.0] in rows and len(rows) == 2
    assert timings.known(tmp_path, "colt")["page"].seconds == 15.0


def test_no_timings_are_one_line(tmp_path: Path, one_line: Message) -> None:
    assert "run `dvc repro` first" in one_line(lambda: timings.table(tmp_path))


@pytest.mark.parametrize("unit", ["imp/seed-3", "seed-3/imp"])
def test_an_arm_is_a_unit_without_its_seed(unit: str) -> None:
    assert timings.arm_of(unit) == "imp"


def test_what_was_reused_is_said_by_paper(tmp_path: Path) -> None:
    timings.note(tmp_path / "runs" / "colt.timings.json", {"a": 1.0}, ["a", "b"], 2, reused=1)
    timings.note(tmp_path / "runs" / "prac.timings.json", {"a": 1.0}, ["a"], 2)
    assert timings.reused(tmp_path) == {"colt": 1}
