"""What a run will do, told before it runs: stages, trainings, minutes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Message, tiny_params

from ticketlab import params, planning
from ticketlab.planning import Job, Plan, check_data, jobs, known_units, plan, summary, table
from ticketlab.studies import STUDIES


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


@pytest.mark.parametrize("paper", STUDIES)
def test_the_jobs_of_a_paper_are_all_its_passes(embedded: None, paper: str) -> None:
    values = params.load_paper("desk", paper)
    expected = STUDIES[paper].expected_passes(values)
    found = jobs(values)
    assert sum(job.passes for job in found) == pytest.approx(expected)
    assert all(job.ticket > 1000 and job.training > 0 for job in found)
    units, _ = known_units(values)
    assert units > 5


def test_a_probe_trains_the_studys_own_net(digits: object) -> None:
    (job,) = jobs(tiny_params())
    assert job.net == "conv3" and job.training == 200
    assert 100 < job.speed(0.05) < 1e6


def test_seconds_follow_from_speed_and_workers(
    digits: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Job("a", 1000.0, fixed(10.0), 100.0, 5000), Job("b", 90.0, fixed(1.0), 30.0, 100)]
    monkeypatch.setattr(planning, "jobs", lambda values: found)
    runtime = {"device": "cpu", "workers": 2}
    made = plan("desk", "colt", tiny_params(runtime=runtime), 3.0)
    assert made.seconds == pytest.approx((100 + 90) / 2)
    assert made.trainings == pytest.approx(13) and made.bytes == 10 * 5000 + 3 * 100
    rows = table([made]).iloc[0]
    assert (rows.paper, rows.minutes, rows.trainings) == ("colt", "1.6", 13)


def test_the_summary_adds_up_and_says_what_it_stands_on(tmp_path: Path) -> None:
    one = Plan("colt", "desk", 3, True, 10.0, 1e6, 90.0, 2, 5e6, "cpu")
    told = summary([one, one], tmp_path)
    assert "about 3 minutes on cpu with 2 at once" in told and "at most 10 MB" in told
    assert "3-second probe" in told


def test_data_that_would_have_to_be_fetched_are_named(embedded: None, one_line: Message) -> None:
    values = tiny_params(data=TINY.model_copy(update={"name": "cifar10"}).model_dump())
    told = one_line(lambda: check_data(values))
    assert "cifar10" in told and "ticketlab prepare" in told
    check_data(tiny_params(data={"name": "mnist_5k"}, transfer={"data": {"name": "mnist_5k"}}))
