"""What a person sees of a whole run: one display on a terminal, plain lines in a log."""

import io
import re

import pytest
from rich.console import Console

from ticketlab.pipeline import display, eta
from ticketlab.pipeline.display import Display, line, picture, summary
from ticketlab.pipeline.eta import Course, Stage


class Stream(io.StringIO):
    """Text that is, or is not, a terminal's."""

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


def units(count: int) -> dict[str, eta.Unit]:
    return {f"imp/seed-{i}": eta.Unit(30.0, 100.0) for i in range(count)}


@pytest.fixture
def course() -> Course:
    """Two papers: one trains its second unit, of the other one is stored."""
    stages = [
        Stage("code"),
        Stage("data@desk-colt"),
        Stage("train@desk-colt", 90.0, units(3)),
        Stage("read@desk-colt", 30.0),
        Stage("data@desk-prac", state="up to date"),
        Stage("train@desk-prac", 30.0, units(1), {"imp/seed-7", "imp/seed-8"}),
        Stage("read@desk-prac", 30.0),
    ]
    course = Course(stages, 1000.0)
    for at, text in ((1001, "code"), (1005, "data@desk-colt"), (1010, "train@desk-colt")):
        course.read(f"Running stage '{text}':", at)
    stage, unit = "train@desk-colt", "imp/seed-0"
    course.take({"stage": stage, "unit": unit, "arm": "imp", "passes": 90}, 1040.0)
    course.take({"stage": stage, "unit": unit, "seconds": 30.0}, 1045.0)
    work = {"arm": "imp", "seed": 1, "sparsity": "36%", "epoch": 2, "accuracy": 0.5, "passes": 50}
    course.take({"stage": stage, "unit": "imp/seed-1", **work}, 1060.0)
    return course


def drawn(course: Course, now: float, width: int = 100) -> list[str]:
    """The lines of the picture, as on a terminal."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(picture(course, now))
    return [text.rstrip() for text in console.export_text().splitlines()]


def test_the_picture_has_the_whole_and_a_line_per_paper(course: Course) -> None:
    whole, count, colt, prac = drawn(course, 1060.0, width=80)
    assert re.fullmatch(r"repro [━╸╺ ]+ 29% 1 min 00 s, about \d min \d\d s left", whole)
    assert count == "3 of 6 units (2 reused)"
    assert colt.startswith("desk-colt  running     1 of 3 units trained · imp/seed-1 (arm imp, ")
    assert prac == "desk-prac  waiting     0 of 1 unit trained · 2 units reused"
    _, _, colt, _ = drawn(course, 1060.0, width=200)
    assert colt.endswith(" · imp/seed-1 (arm imp, seed 1, sparsity 36%, epoch 2) · 55 s")


def test_names_and_states_are_whole_on_a_narrow_terminal(course: Course) -> None:
    colt, prac = drawn(course, 1060.0, width=60)[-2:]
    assert colt.startswith("desk-colt  running ") and colt.endswith("…") and len(colt) <= 60
    assert prac.startswith("desk-prac  waiting ")


def test_a_page_shows_its_cells(course: Course) -> None:
    course.read("Running stage 'read@desk-colt':", 1100.0)
    assert "page: starting" in drawn(course, 1101.0)[2]
    course.take({"stage": "read@desk-colt", "cell": 12, "cells": 57}, 1110.0)
    assert "page: cell 12 of 57" in drawn(course, 1110.0)[2]
    assert course.stages["read@desk-colt"].cells == (12, 57)


def test_a_line_of_a_log_says_what_runs(course: Course) -> None:
    text = line(course, 1060.0)
    assert "\n" not in text and text.isprintable()
    assert text.startswith("repro: 29% · 3 of 6 units (2 reused) · 1 min 00 s, about ")
    assert " · desk-colt: 1 of 3 units trained, imp/seed-1 (arm imp, seed 1, " in text


def test_units_beyond_the_named_ones_are_counted(course: Course) -> None:
    for seed in (2, 3, 4):
        event = {"stage": "train@desk-colt", "unit": f"imp/seed-{seed}", "arm": "imp", "passes": 1}
        course.take(event, 1061.0)
    text = line(course, 1062.0)
    assert ", imp/seed-3 (arm imp), imp/seed-4 (arm imp), 2 units more, " in text


def test_a_log_gets_a_line_per_stage_and_half_minute_without_control_characters(
    course: Course,
) -> None:
    log = Stream(tty=False)
    with Display(course, log) as shown:
        for now in range(1060, 1125):
            shown.update(float(now))
        course.read("Running stage 'read@desk-colt':", 1125.0)
        shown.print("what a stage prints", log)
        shown.update(1125.5)
        shown.update(1126.0)
    found = log.getvalue().splitlines()
    assert [text.startswith("repro: ") for text in found] == [True, True, True, False, True]
    assert all(text.isprintable() for text in found) and found[3] == "what a stage prints"
    assert found[-1].endswith(" · train@desk-colt done after 1 min 55 s")
    assert all(text.isprintable() for text in found) and found[3] == "what a stage prints"


def test_a_terminal_has_one_display_below_what_others_print(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, log = Stream(tty=True), Stream(tty=False)
    with Display(course, terminal) as shown:
        assert shown.is_live
        shown.update(1060.0)
        shown.print("a line of a stage", terminal)
        shown.print("a line for a file", log)
        shown.update(1061.0)
    text = terminal.getvalue()
    assert "\x1b[1A" in text and text.count("a line of a stage\n") == 1
    assert log.getvalue() == "a line for a file\n" and "for a file" not in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Stream(tty=True)
    with Display(course, terminal) as shown:
        shown.update(1095.0)
    assert "\x1b" not in terminal.getvalue() and terminal.getvalue().startswith("repro: ")


def test_the_summary_says_what_was_trained_reused_and_skipped(course: Course) -> None:
    course.take({"stage": "train@desk-colt", "unit": "imp/seed-1", "seconds": 9.0}, 1070.0)
    course.read("Running stage 'read@desk-colt':", 1100.0)
    course.read("Stage 'train@desk-prac' didn't change, skipping", 1130.0)
    course.read("Stage 'read@desk-prac' is cached - skipping run, checking out outputs", 1130.0)
    course.end(1130.0)
    assert summary(course, 1130.0, 0).splitlines() == [
        "repro: done after 2 min 10 s",
        "  desk-colt  2 units trained, 0 reused; data, train, read ran; 2 min 05 s",
        "  desk-prac  data, train, read up to date",
    ]


def test_the_summary_of_a_failure_names_the_stage_and_what_did_not_run(course: Course) -> None:
    course.end(1070.0, "stopped")
    assert summary(course, 1070.0, 255).splitlines() == [
        "repro: stopped (exit code 255) after 1 min 10 s",
        "  desk-colt  1 unit trained, 0 reused; data ran; train stopped; read not run; 1 min 05 s",
        "  desk-prac  data up to date; train, read not run",
    ]
    assert display.state({"train": course.stages["train@desk-colt"]}) == "stopped"
