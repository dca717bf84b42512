"""How long the rest of a run takes: right within 30 % after its first quarter, on any machine."""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest

from ticketlab.pipeline import eta, outlook, params, timings
from ticketlab.pipeline.eta import Course, Part, Stage
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT
from ticketlab.study.runner import Unit

RECORDED = ROOT / "tests" / "pipeline" / "recorded"
"""With the timings.csv of a desk study on two cores, at commit f7ec797."""
Happening = tuple[float, Any]
"""Seconds since the start, and a line of DVC or an event."""
Slower = Callable[[str, str], float]
"""By how much a paper's unit is slower here than where the timings were recorded."""


def follow(course: Course, happenings: Sequence[Happening], upto: float) -> None:
    """Let the course follow all that happens until a time."""
    for at, what in happenings:
        if at > upto:
            return
        if isinstance(what, str):
            course.read(what, at)
        else:
            course.take(what, at)


def errors(
    stages: Callable[[], list[Stage]], happenings: Sequence[Happening], end: float
) -> Iterator[tuple[float, float]]:
    """At each hundredth of the run from the first quarter on: by how much the ETA is off."""
    for hundredth in range(25, 91):
        course, now = Course(stages(), 0.0), end * hundredth / 100
        follow(course, happenings, now)
        yield hundredth / 100, course.left(now) / (end - now) - 1


# --- a desk study on other machines


@cache
def desk() -> dict[str, tuple[list[list[Unit]], dict[str, float]]]:
    """Units by phase of each paper, and their seconds as they were recorded once.

    A unit that was not recorded takes as long per image pass as those of its paper.
    """
    found = {}
    for run in params.load_runs():
        values = params.load_paper(run.study, run.paper)
        phases = PAPERS[run.paper].planned(values)
        arms = timings.known(RECORDED, run.paper)
        units = [unit for phase in phases for unit in phase]
        timed = timings.predicted(units, arms)
        pace = sum(timed.values()) / sum(unit.passes for unit in units if unit.name in timed)
        found[run.paper] = phases, {u.name: timed.get(u.name, pace * u.passes) for u in units}
    return found


def expected() -> list[Stage]:
    """The stages of the desk study, none of whose units is stored."""
    trainings = [
        Stage(
            f"train@desk-{paper}",
            sum(outlook.makespan(phase, seconds, 2) for phase in phases),
            {u.name: eta.Unit(seconds[u.name], u.passes) for phase in phases for u in phase},
        )
        for paper, (phases, seconds) in desk().items()
    ]
    data = [Stage(f"data@desk-{paper}") for paper in desk()]
    pages = [Stage(f"read@desk-{paper}", outlook.PAGE) for paper in desk()]
    return [Stage("code"), *data, *trainings, *pages]


def lived(slower: Slower, start: float, page: float) -> tuple[list[Happening], float]:
    """What happens in a desk study on another machine, two units at once, and its end."""
    now, found, chance = 3.0, list[Happening](), random.Random(0)
    for stage in expected():
        found.append((now, f"Running stage '{stage.name}':"))
        kind, _, paper = stage.name.replace("desk-", "").partition("@")
        now += start
        for phase in desk()[paper][0] if kind == "train" else []:
            free = [now, now]
            for unit in sorted(phase, key=lambda unit: -unit.passes):
                begun = heapq.heappop(free)
                spent = desk()[paper][1][unit.name] * slower(paper, unit.name)
                spent *= chance.uniform(0.85, 1.15)
                found += work(stage.name, unit, begun, spent)
                heapq.heappush(free, begun + spent)
            now = max(free)
        if kind == "read":
            cell = {"stage": stage.name, "cells": 60}
            found += [(now + page * i / 60, cell | {"cell": i + 1}) for i in range(60)]
            now += page
        now += 1
    return sorted(found, key=lambda one: one[0]), now


def work(stage: str, unit: Unit, begun: float, spent: float) -> Iterator[Happening]:
    """Ten epochs of a unit and its end."""
    for epoch in range(1, 11):
        at = begun + 0.999 * spent * epoch / 10
        yield at, {"stage": stage, "unit": unit.name, "epoch": epoch, "passes": unit.passes / 10}
    yield begun + spent, {"stage": stage, "unit": unit.name, "seconds": spent}


def convolutions(factor: float) -> Slower:
    """A machine on which convolutional nets alone are slower by a factor."""

    def slower(paper: str, unit: str) -> float:
        return factor if paper in ("colt", "dlth") or "conv" in unit else 1.0

    return slower


MACHINES: dict[str, tuple[Slower, float, float]] = {
    "the same": (lambda paper, unit: 1.0, 6, 30),
    "three times slower": (lambda paper, unit: 3.0, 12, 70),
    "more than twice as fast": (lambda paper, unit: 0.4, 3, 14),
    "slower convolutions": (convolutions(1.4), 6, 30),
    "faster convolutions": (convolutions(0.7), 6, 30),
    "busy after the first paper": (lambda paper, unit: 1.0 if paper == "colt" else 1.3, 6, 35),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_eta_of_a_desk_study_is_right_within_30_percent_after_a_quarter(name: str) -> None:
    happenings, end = lived(*MACHINES[name])
    off = dict(errors(expected, happenings, end))
    assert max(map(abs, off.values())) < 0.3, off


def test_without_timings_the_eta_learns_from_passes() -> None:
    """Each paper's speed measured by a probe, 15 % off; nets within a paper differ tenfold."""
    wrong = dict(zip(desk(), (1.0, 0.85, 1.15, 0.9, 1.1), strict=True))

    def probed() -> list[Stage]:
        stages = expected()
        for stage in stages:
            passes = sum(unit.passes for unit in stage.units.values())
            pace = sum(unit.seconds for unit in stage.units.values()) / (passes or 1)
            off = wrong.get(stage.name.partition("-")[2], 1.0)
            stage.work *= off
            for unit in stage.units.values():
                unit.seconds = off * pace * unit.passes
        return stages

    happenings, end = lived(*MACHINES["the same"])
    off = dict(errors(probed, happenings, end))
    assert max(map(abs, off.values())) < 1 / 3, off


# --- one stage


def training(**seconds: float) -> Stage:
    """A stage of training whose units have 100 passes each."""
    units = {name: eta.Unit(spent, 100.0) for name, spent in seconds.items()}
    return Stage("train@desk-colt", sum(seconds.values()), units)


def test_units_weigh_by_their_seconds_and_not_by_their_passes() -> None:
    course = Course([stage := training(slow=90, fast=10)], 0.0)
    course.read("Running stage 'train@desk-colt':", 0.0)
    course.take({"stage": stage.name, "unit": "fast", "passes": 100}, 1.0)
    course.take({"stage": stage.name, "unit": "fast", "seconds": 9.0}, 10.0)
    assert stage.training(10.0) == Part(100, 10, 9) and stage.trained == 1
    course.take({"stage": stage.name, "unit": "slow", "passes": 50, "epoch": 1}, 60.0)
    assert stage.training(60.0) == pytest.approx((100, 55, 59))
    assert list(stage.running) == ["slow"]


def test_a_unit_is_not_done_before_its_end_is_reported() -> None:
    unit = eta.Unit(10.0, 100.0, made=250.0)
    assert unit.share == 0.99
    unit.ended = True
    assert unit.share == 1.0
    assert eta.Unit(10.0, 0.0).share == 0.0


def test_units_that_turn_out_to_be_stored_are_no_work() -> None:
    stage = training(a=30, b=10)
    stage.take({"stored": "a", "copied": True, "passes": 100}, 1.0)
    assert (stage.work, list(stage.units), stage.stored) == (10, ["b"], {"a"})
    stage.take({"stored": "unexpected", "copied": False, "passes": 100}, 1.0)
    assert stage.work == 10 and stage.stored == {"a", "unexpected"}
    stage.take({"unit": "a", "passes": 10}, 2.0)  # and is trained after all
    assert "a" in stage.units and stage.stored == {"unexpected"}


def test_units_that_were_wrongly_expected_are_dropped_at_the_end() -> None:
    course = Course([stage := training(a=30, never=10)], 0.0)
    course.take({"stage": stage.name, "unit": "a", "seconds": 20.0}, 20.0)
    course.end(21.0)
    assert list(stage.units) == ["a"] and course.share(21.0) == 1


def test_skipped_stages_are_no_work_and_begun_ones_end_when_the_next_begins() -> None:
    course = Course([Stage("code"), Stage("data@a"), Stage("read@a", 30.0)], 0.0)
    before = course.left(0.0)
    assert course.read("Running stage 'code':", 1.0)
    assert course.read("Stage 'data@a' didn't change, skipping", 5.0)
    assert not course.read("parameters: valid, studies: desk", 5.0)
    assert [stage.state for stage in course.stages.values()] == ["done", "up to date", "waiting"]
    assert course.left(5.0) < before - 2 * eta.START + 1
    assert course.read("Stage 'read@a' is cached - skipping run, checking out outputs", 6.0)
    assert course.left(6.0) == 0


def test_an_event_that_comes_before_the_line_of_dvc_begins_its_stage() -> None:
    course = Course([Stage("code"), Stage("read@a", 30.0, state="up to date")], 0.0)
    course.read("Running stage 'code':", 0.0)
    course.take({"stage": "read@a", "cell": 3, "cells": 6}, 4.0)
    assert course.current is course.stages["read@a"] and course.current.state == "running"
    course.read("Running stage 'read@a':", 5.0)
    assert course.current.started == 4.0
    now = 4.0 + eta.START + 20  # half of its cells, in two thirds of its time
    assert course.current.others(now).done == pytest.approx(eta.START + 30 * (1 / 2 + 2 / 3) / 2)
    assert course.current.others(now, pace=2.0).done < course.current.others(now).done


def test_a_stage_that_nobody_expected_is_followed() -> None:
    course = Course([], 0.0)
    course.read("Running stage 'read@new':", 0.0)
    assert course.left(0.0) == eta.START and course.left(eta.START) == 0


def test_two_workers_end_when_the_last_unit_does() -> None:
    units = [Unit(name, print, {}, passes) for name, passes in (("a", 1), ("b", 5), ("c", 3))]
    seconds = {"a": 4.0, "b": 10.0, "c": 3.0}
    assert outlook.makespan(units, seconds, 1) == 17
    assert outlook.makespan(units, seconds, 2) == 10
    assert outlook.makespan(units, seconds, 9) == 10
    assert outlook.makespan([], seconds, 2) == 0
