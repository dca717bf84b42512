"""Timings: seconds by unit are kept over partial runs, and summed by arm."""

from pathlib import Path

import pytest
from conftest import Message

from ticketlab.files import read_json
from ticketlab.study import timings


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
    timings.note(tmp_path / "runs" / "colt.timings.json", seconds, seconds, 1)
    timings.note(tmp_path / "runs" / "dlth.timings.json", {"x": 7.0}, ["x"], 2)
    rows = timings.table(tmp_path).values.tolist()
    assert rows == [
        ["colt", "score/imp", 1, 1, 5.0, 5.0],
        ["colt", "search/imp", 1, 2, 1.5, 3.0],
        ["dlth", "x", 2, 1, 7.0, 7.0],
    ]


def test_no_timings_are_one_line(tmp_path: Path, one_line: Message) -> None:
    assert "run `dvc repro` first" in one_line(lambda: timings.table(tmp_path))


@pytest.mark.parametrize("unit", ["imp/seed-3", "seed-3/imp"])
def test_an_arm_is_a_unit_without_its_seed(unit: str) -> None:
    assert timings._arm(unit) == "imp"


def test_what_was_reused_is_said_by_paper(tmp_path: Path) -> None:
    timings.note(tmp_path / "runs" / "colt.timings.json", {"a": 1.0}, ["a", "b"], 2, reused=1)
    timings.note(tmp_path / "runs" / "prac.timings.json", {"a": 1.0}, ["a"], 2)
    assert timings.reused(tmp_path) == {"colt": 1}
