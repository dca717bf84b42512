"""The probe: speeds, and the rule by which a study is made to fit into a time."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from ticketlab.pipeline import params, probe, studies
from ticketlab.pipeline.probe import Speed, fitted, shortened, with_seeds
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT
from ticketlab.study.forecast import Job

RECIPE = {"lr": 0.1, "length": "20ep", "milestones": ["10ep", "75%"], "warmup": "1ep"}
BLOCK: dict[str, Any] = {
    "a": {"seeds": [0, 1, 2], "recipe": RECIPE, "rewind": "1ep", "transfer": {"seeds": 3}},
    "b": {"seeds": [0, 1, 2], "beds": [{"recipe": RECIPE, "seeds": [5, 6, 7]}]},
}


def minutes(block: Mapping[str, Any]) -> float:
    """A made-up cost in seconds: each epoch of a seed takes a minute in one paper, half in b."""
    epochs = [block["a"]["recipe"]["length"], block["b"]["beds"][0]["recipe"]["length"]]
    one, other = (float(text.removesuffix("ep")) for text in epochs)
    return 60 * (len(block["a"]["seeds"]) * one + len(block["b"]["seeds"]) * other / 2)


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("given", "share", "seeds", "takes"),
    [
        (120, 1.0, 3, 90),  # as it is: 3 seeds of 20 and 10
        (90, 1.0, 3, 90),
        (89, 0.95, 3, 85.5),
        (45, 0.5, 3, 45),
        (23, 0.25, 3, 22.5),  # 5 epochs
        (20, 0.3, 2, 18),  # of 2 seeds .35 takes 21
        (15.5, 0.25, 2, 15),
        (10, 0.25, 2, 15),  # nothing fits
    ],
)
def test_first_trainings_become_shorter_then_there_are_fewer_seeds(
    given: float, share: float, seeds: int, takes: float
) -> None:
    fit = fitted(BLOCK, minutes, 60 * given)
    assert (fit.share, fit.seeds, fit.seconds) == (share, seeds, 60 * takes)
    assert minutes(fit.block) == fit.seconds
    message = probe.summary("mine", fit, minutes(BLOCK), 60 * given)
    expected = "fits into" if given >= 90 else "but the limit is" if takes <= given else "too many"
    assert expected in message
    assert ("remove papers" in message) == (takes > given)


def test_a_study_that_fits_is_left_as_it_is() -> None:
    assert fitted(BLOCK, minutes, 1e9).block == BLOCK
    assert not list(probe.changes(BLOCK, fitted(BLOCK, minutes, 1e9).block))


def test_a_study_of_one_seed_keeps_it() -> None:
    one = with_seeds(BLOCK, 1)
    fit = fitted(one, minutes, 60.0)
    assert fit.seeds == 1 and fit.block["a"]["seeds"] == [0] and fit.share == 0.25


def test_lengths_and_what_is_within_them_shrink_together() -> None:
    half = shortened(BLOCK, 0.5)
    assert half["a"]["recipe"] == RECIPE | {
        "length": "10ep", "milestones": ["5ep", "75%"], "warmup": "0.5ep"
    }  # fmt: skip
    assert half["a"]["rewind"] == "1ep" and half["a"]["seeds"] == [0, 1, 2]
    assert half["b"]["beds"][0]["recipe"] == half["a"]["recipe"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"length": "20ep"}, {"length": "5ep"}),
        ({"length": "10ep"}, {"length": "4ep"}),  # the floor
        ({"length": "2ep"}, {"length": "2ep"}),  # was shorter
        ({"length": "10ep", "milestones": ["5ep"]}, {"length": "4ep", "milestones": ["2ep"]}),
        ({"length": "4500it", "warmup": "100it"}, {"length": "1125it", "warmup": "25it"}),
        ({"ramp": 2500, "every": 1}, {"ramp": 625, "every": 1}),
        ({"least_iterations": 0}, {"least_iterations": 0}),
        ({"round_length": "1ep", "rounds": 3}, {"round_length": "1ep", "rounds": 3}),
    ],
)
def test_a_quarter_of_a_length(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert shortened(before, 0.25) == after


def test_seeds_are_lists_of_them_wherever_they_are() -> None:
    two = with_seeds(BLOCK, 2)
    assert two["a"]["seeds"] == [0, 1] and two["b"]["beds"][0]["seeds"] == [5, 6]
    assert two["a"]["transfer"] == {"seeds": 3}  # a number of the first ones


def test_changes_are_what_study_new_takes(tmp_path: Path) -> None:
    """Of the real study: its form that fits is written, valid, and the same."""
    (tmp_path / "studies").mkdir()
    source = ROOT / "studies" / "cifar10.yaml"
    (tmp_path / "studies" / "cifar10.yaml").write_text(source.read_text())
    file = tmp_path / "params.yaml"
    file.write_text("workers: 1\nruns: {}\n")
    before = studies.plain("cifar10", file)
    after = shortened(with_seeds(before, 2), 0.4)
    wanted = list(probe.changes(before, after))
    assert "prac.recipe.length=6ep" in wanted and "dlth.seeds=[0, 1]" in wanted
    studies.new("mine", "cifar10", wanted, path=file)
    assert studies.plain("mine", file) == after


@pytest.mark.parametrize("share", probe.SHARES[::5])
def test_every_form_of_the_study_is_valid(share: float) -> None:
    block = shortened(studies.plain("cifar10"), share)
    assert set(params.validated(block, "probe")) == set(PAPERS) & set(block)


# ---------------------------------------------------------------- speeds


def fixed(passes: float, speed: float) -> Job:
    return Job("conv3", passes, lambda seconds: speed, 1.0, 1)


def test_seconds_are_passes_over_measured_speeds(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers = {"colt": tiny.colt()}
    jobs = [fixed(600.0, 10.0), fixed(60.0, 2.0)]
    changed = replace(PAPERS["colt"], jobs=lambda values: jobs, beside=2.0)
    monkeypatch.setitem(PAPERS, "colt", changed)
    said: list[str] = []
    speeds = probe.measured(papers, 0.1, said.append)
    assert [speed.rate for speed in speeds] == [5.0, 1.0] and "conv3 5 images/s" in said[0]
    assert probe.seconds_of(papers, speeds) == 120 + 60
    rows = probe.table(papers, speeds)
    assert rows.minutes.tolist() == ["2.0", "1.0"] and rows["per seed"].tolist() == ["1.0", "0.5"]


def test_the_nets_of_a_study_are_measured_and_make_it_fit(tiny_root: Path) -> None:
    recipe = tiny.COLT["recipe"] | {"length": "8ep"}
    block = {"colt": tiny.colt(recipe=recipe).model_dump(mode="json")}
    speeds = probe.measured(params.validated(block, "probe"), 0.02, lambda line: None)
    cost = probe.cost_with(speeds)
    whole = cost(block)
    assert whole == pytest.approx(sum(speed.seconds for speed in speeds))
    fit = fitted(block, cost, 0.6 * whole)
    assert fit.block["colt"]["recipe"]["length"] == "4ep"
    assert fit.seconds == pytest.approx(whole / 2)


def test_units_too_long_for_a_piece_are_named(tiny_root: Path) -> None:
    papers = {"colt": tiny.colt()}
    assert not list(probe.slow_units(papers, [Speed("colt", "conv3", 1.0, 1e6)]))
    lines = list(
        probe.slow_units(papers, [Speed("colt", "conv3", 1.0, 1e6), Speed("colt", "x", 1.0, 1.0)])
    )
    assert lines and all(
        "colt: search/" in line and "too long for a piece" in line for line in lines
    )
