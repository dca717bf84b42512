"""What a run will do, before it runs: stages, trainings, minutes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import sleep

import pytest
import tiny
import torch

from ticketlab.data.sets import DataSet, load
from ticketlab.papers.prac import forecast as prac_forecast
from ticketlab.papers.prac import study as prac_study
from ticketlab.papers.prac.params import PracParams
from ticketlab.pipeline import params
from ticketlab.pipeline.planning import (
    Plan,
    plan,
    summary,
    table,
)
from ticketlab.pipeline.registry import PAPERS
from ticketlab.study import forecast, runner
from ticketlab.study.forecast import Job
from ticketlab.study.store import EMPTY, Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the embedded data are prepared, once."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def embedded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded data, prepared elsewhere than in the repository."""
    monkeypatch.setenv("TICKETLAB_PREPARED", str(folder))
    monkeypatch.setenv("TICKETLAB_DATA", str(tmp_path))
    monkeypatch.setenv("TICKETLAB_DEVICE", "cpu")


def fixed(speed: float) -> Callable[[float], float]:
    """A probe that measures nothing."""
    return lambda seconds: speed


@pytest.mark.parametrize("paper", PAPERS)
def test_the_jobs_of_a_paper_are_all_its_passes(embedded: None, paper: str) -> None:
    study = next(name for name, (papers, _) in params.read_studies().items() if paper in papers)
    values = params.load_paper(study, paper)
    expected = PAPERS[paper].expected_passes(values)
    found = PAPERS[paper].jobs(values)
    assert sum(job.passes for job in found) == pytest.approx(expected)
    assert all(job.ticket > 1000 and job.training > 0 for job in found)
    units = runner.survey(PAPERS[paper].phases(values), EMPTY).missing
    assert len(units) >= len(values.seeds)  # type: ignore[attr-defined]


def test_a_probe_trains_the_studys_own_net(digits: object) -> None:
    (job,) = PAPERS["colt"].jobs(tiny.colt())
    assert job.net == "conv3" and job.training == 200
    assert 100 < job.speed(0.05) < 1e6


def test_a_probe_of_a_slow_net_is_short_and_of_a_fast_one_of_whole_chunks() -> None:
    made: list[int] = []

    def slow(steps: int) -> int:
        made.append(steps)
        sleep(0.03 * steps)
        return 100 * steps

    assert 500 < forecast.measured_speed(slow, torch.device("cpu"), 0.02, 20) <= 3400
    assert made == [1, 1]
    made.clear()

    def fast(steps: int) -> int:
        made.append(steps)
        sleep(0.005 + 0.0001 * steps)  # a start, and steps
        return steps

    assert 1000 < forecast.measured_speed(fast, torch.device("cpu"), 0.4, 20) <= 20 / 7e-3
    assert made[:4] == [1, 1, 4, 16] and set(made[4:]) == {20}


def test_pracs_passes_are_those_of_the_images_that_there_are(digits: DataSet) -> None:
    """Also where `train` is null, and all that are left are used."""
    recipe = {"lr": 0.1, "batch": 20, "length": "4ep"}
    images = tiny.DIGITS.model_dump() | {"train": None}
    values = {"seeds": [0], "data": images, "model": {"name": "lenet_300_100"},
              "prunable": "hidden", "recipe": recipe, "rounds": 3, "levels": [2],
              "ablation_levels": [2]}  # fmt: skip
    whole = PracParams.model_validate(values)
    count = len(load(whole.data).train)
    assert count != 200 and prac_study.training_passes(whole) == 4 * count
    few = PracParams.model_validate(values | {"data": tiny.DIGITS.model_dump()})
    ratio = prac_forecast.expected_passes(whole) / prac_forecast.expected_passes(few)
    assert ratio == pytest.approx(count / 200)


def test_seconds_follow_from_speed_workers_and_what_is_stored(
    digits: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = [Job("a", 1000.0, fixed(10.0), 100.0, 5000), Job("b", 90.0, fixed(1.0), 30.0, 100)]
    monkeypatch.setitem(PAPERS, "colt", replace(PAPERS["colt"], jobs=lambda values: found))
    values = tiny.colt(runtime={"device": "cpu"})
    made = plan("desk", "colt", values, EMPTY, 3.0)
    assert made.seconds == pytest.approx((100 + 90) / 2)
    assert made.trainings == pytest.approx(13) and made.bytes == 10 * 5000 + 3 * 100
    row = table([made]).iloc[0]
    assert (row.paper, row.minutes, row.trainings, row.reused) == ("colt", "1.6", 13, 0)
    assert row["to train"] == f"{made.units} or more"

    searches = next(PAPERS["colt"].phases(values))
    runner.run(searches, tmp_path)
    later = plan("desk", "colt", values, Store((tmp_path,)), 3.0)
    share = sum(unit.passes for unit in searches) / PAPERS["colt"].expected_passes(values)
    assert later.reused == len(searches) and later.units > 0
    assert later.seconds == pytest.approx((1 - share) * made.seconds)
    runner.run_study(PAPERS["colt"].phases(values), tmp_path)
    done = plan("desk", "colt", values, Store((tmp_path,)), 3.0)
    assert (done.units, done.seconds, done.passes) == (0, 0, 0) and done.reused > later.reused


def test_more_workers_take_less_time_until_the_longest_unit_is_what_takes_it(
    digits: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Job("a", 900.0, fixed(10.0), 100.0, 5000)]
    monkeypatch.setitem(PAPERS, "colt", replace(PAPERS["colt"], jobs=lambda values: found))
    values = tiny.colt(runtime={"device": "cpu"})
    one, two, many = (plan("desk", "colt", values, EMPTY, 3.0, n) for n in (1, 2, 1000))
    assert one.seconds == one.work == pytest.approx(90) and two.seconds == pytest.approx(45)
    longest = max(unit.passes for unit in next(PAPERS["colt"].phases(values)))
    assert many.seconds == pytest.approx(90 * longest / PAPERS["colt"].expected_passes(values))
    assert many.work == one.work and many.workers == 1000


def test_the_summary_adds_up_and_says_what_it_stands_on(tmp_path: Path) -> None:
    one = Plan("colt", "desk", 0, 3, 10.0, 1e6, 1800.0, 900.0, 2, 5e6, "cpu")
    text = summary([one, one], tmp_path)
    assert "about 30 minutes on cpu, 2 at a time, 1.0 hours of work in all" in text
    assert "at most 10 MB" in text
    assert "a speed measured for 3 seconds" in text
