"""Intervals, verdicts at their boundaries, claims.yaml."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ticketlab.claims import (
    COLOURS,
    Claim,
    Interval,
    Verdict,
    as_interval,
    as_metric,
    as_metrics,
    by_seed,
    decide,
    interval,
    judge,
    load_claims,
    minus,
    over_levels,
    paired,
    styled,
    verdict_table,
)
from ticketlab.params import PAPERS, read_yaml
from ticketlab.spec import ROOT

NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def claim(metric: str = "a.b", at_least: float = 0.0, **changes: object) -> Claim:
    values = {"id": "colt-X", "paper": "colt", "statement": "It holds.", "source": "abstract",
              "metric": metric, "at_least": at_least, "studies": ["desk"]}  # fmt: skip
    return Claim.model_validate(values | changes)


# --- intervals


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=8), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_is_students_t(values: list[float], confidence: float) -> None:
    found = interval(values, confidence)
    scale = float(stats.sem(values))
    assert found.n == len(values) and found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.low is not None and found.high is not None
    if scale > 1e-9:
        low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), scale)
        assert (found.low, found.high) == pytest.approx((low, high))
    else:
        assert (found.low, found.high) == pytest.approx((found.mean, found.mean))


def test_an_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / 3**0.5  # t(0.975, 2) times 1 / sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_one_value_has_no_bounds() -> None:
    assert interval([7.5]) == Interval(7.5, None, None, 1)
    assert str(interval([7.5])) == "7.50 (n = 1)"
    assert str(interval([1.0, 2.0, 3.0])) == "2.00 [-0.48, 4.48] (n = 3)"


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_that_have_no_mean_are_refused(values: list[float], one_line: Message) -> None:
    told = one_line(lambda: interval(values))
    assert str(values) in told and "allowed are 1 or more finite numbers" in told


def test_differences_are_paired_by_seed_and_only_common_seeds_count() -> None:
    a, b = {2: 13.0, 0: 10.0, 1: 21.0, 7: 99.0}, {1: 20.0, 0: 8.0, 2: 10.0, 9: -5.0}
    assert paired(a, b) == interval([2.0, 1.0, 3.0])
    assert paired(b, a).mean == -2.0
    # Seeds differ by far more than arms: unpaired, nothing would be seen.
    assert (paired(a, b).low or 0) > -1 and paired({0: 1.0}, {0: 3.0}) == Interval(
        -2.0, None, None, 1
    )


def test_arms_without_a_common_seed_have_no_difference(one_line: Message) -> None:
    assert "1 or more" in one_line(lambda: paired({0: 1.0}, {1: 2.0}))


def test_metrics_over_levels_are_intervals_over_seeds() -> None:
    found = over_levels({0.65: {0: -14.0, 1: -12.0}, 0.88: {1: -24.0, 0: -26.0}, 0.9: {}})
    assert list(found) == ["at_65", "at_88", "at_90", "mean"]
    assert found["at_65"] == asdict(interval([-14.0, -12.0])) and found["at_90"] is None
    assert found["mean"] == asdict(interval([-20.0, -18.0]))  # n is seeds, not seeds x levels
    assert over_levels({0.9: {}}) == {"at_90": None, "mean": None}


def test_an_interval_goes_into_metrics_and_comes_back() -> None:
    assert as_metric([]) is None and as_metric({}) is None and as_interval(None) is None
    assert as_interval(as_metric({3: 1.0, 1: 2.0})) == interval([1.0, 2.0])
    assert minus({1: 5.0, 2: 1.0}, {2: 3.0, 9: 0.0}) == {2: -2.0}


def test_a_table_gives_one_value_a_seed(one_line: Message) -> None:
    frame = pd.DataFrame({"seed": [3, 1], "x": [0.5, 0.25]})
    assert by_seed(frame, "x") == {3: 0.5, 1: 0.25}
    twice = pd.DataFrame({"seed": [3, 3], "x": [0.5, 0.5]})
    assert one_line(lambda: by_seed(twice, "x")) == "x: several rows for one seed, allowed is one"


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-1.0, 5.0, "reproduced"),  # exactly at the bound is at least the bound
        (-0.999, 5.0, "reproduced"),
        (-1.001, 5.0, "inconclusive"),
        (-9.0, -1.0, "inconclusive"),  # the high end meets the bound
        (-9.0, -1.001, "not reproduced"),
        (-1.0, -1.0, "reproduced"),
        (None, None, "inconclusive"),
    ],
)
def test_the_whole_interval_decides(low: float | None, high: float | None, word: str) -> None:
    assert decide(Interval(0.0, low, high, 3), at_least=-1.0) == word


@pytest.mark.parametrize("value", [-1e9, 1e9])
def test_one_seed_decides_nothing(value: float) -> None:
    metrics = {"a": {"b": asdict(interval([value]))}}
    assert judge(claim(), metrics) == Verdict(claim(), "inconclusive", interval([value]))


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS, NUMBERS)
def test_a_stricter_bound_never_makes_a_better_verdict(
    values: list[float], one: float, two: float
) -> None:
    order = ["not reproduced", "inconclusive", "reproduced"]
    loose, strict = sorted((one, two))
    found = interval(values)
    assert order.index(decide(found, strict)) <= order.index(decide(found, loose))


MISSING = "is not in the metrics; if an older version wrote them, run its notebook again"


def test_a_null_metric_was_not_run_and_a_missing_one_is_refused(one_line: Message) -> None:
    for metrics in ({"a": {"b": None}}, {"a": None}):
        assert judge(claim(), metrics) == Verdict(claim(), "not run at this scale", None)
    for metrics in ({}, {"a": {}}, {"a": {"c": None}}, {"a": 3.0}, {"a.b": None}):
        told = one_line(lambda metrics=metrics: judge(claim(), metrics))  # type: ignore[misc]
        assert told == f"claim colt-X: metric 'a.b' {MISSING}"


def test_verdicts_survive_metrics_json() -> None:
    metrics = {"a": {"b": asdict(interval([1.0, 2.0, 3.0]))}, "none": None}
    verdicts = [judge(claim(at_least=-1.0), metrics), judge(claim("none", id="colt-Y"), metrics)]
    stored = json.loads(json.dumps(as_metrics(verdicts)))
    assert list(stored) == ["colt-X", "colt-Y"]
    assert Interval(**stored["colt-X"]["evidence"]) == interval([1.0, 2.0, 3.0])
    assert [found["verdict"] for found in stored.values()] == [
        "reproduced",
        "not run at this scale",
    ]
    assert stored["colt-Y"]["evidence"] is None


def test_a_page_shows_every_verdict_in_its_colour_and_the_same_each_time() -> None:
    found = interval([1.0, 2.0, 3.0])
    verdicts = [Verdict(claim(id=f"c-{i}"), word, found) for i, word in enumerate(COLOURS)]  # type: ignore[arg-type]
    table = verdict_table(verdicts)
    assert table.columns.tolist() == ["claim", "statement", "holds if at least", "ours", "verdict"]
    assert table.verdict.tolist() == list(COLOURS) and set(table.ours) == {str(found)}
    page = styled(verdicts).to_html()
    assert page == styled(verdicts).to_html()
    assert all(f"color: {colour}" in page for colour in COLOURS.values())
    assert verdict_table([Verdict(claim(), "not run at this scale", None)]).ours.tolist() == ["-"]


# --- claims.yaml


def test_every_claim_of_ours_is_of_a_known_paper_and_study_and_has_its_own_id() -> None:
    every = load_claims()
    assert every and len({one.id for one in every}) == len(every)
    assert {one.paper for one in every} <= set(PAPERS)
    studies = set(read_yaml(ROOT / "params.yaml")) - {"studies"}
    assert all(set(one.studies) <= studies for one in every)
    nowhere = [one.id for one in every if not one.studies]
    assert nowhere == [one.id for one in every if one.metric.startswith("elsewhere.")]
    colt = load_claims("colt")
    assert colt == [one for one in every if one.paper == "colt"]
    assert {"colt-H1", "colt-H2", "colt-H3", "colt-H4"} <= {one.id for one in colt}
    assert load_claims("nobody") == []


GOOD = "- {id: a, paper: colt, statement: s, source: t, metric: m, at_least: 1, studies: [desk]}\n"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("metric: m, ", ""), "1.metric: "),
        (("at_least: 1", "at_least: one"), "1.at_least: "),
        (("at_least: 1", "at_least: '1'"), "1.at_least: "),
        (("at_least: 1", "at_least: true"), "1.at_least: "),
        (("[desk]", "desk"), "1.studies: "),
        (("id: a", "id: 3"), "1.id: "),
        (("id: a", "id: a, verdict: reproduced"), "1.verdict: "),
    ],
)
def test_a_bad_claim_is_refused_by_place_and_key(
    change: tuple[str, str], place: str, tmp_path: Path, one_line: Message
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(GOOD)
    assert [one.at_least for one in load_claims(path=path)] == [1.0]
    path.write_text(GOOD + GOOD.replace(*change))
    assert one_line(lambda: load_claims(path=path)).startswith(f"claims.yaml: {place}")


@pytest.mark.parametrize("text", ["3\n", "", "id: a\n"])
def test_claims_that_are_no_list_are_refused(text: str, tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    assert one_line(lambda: load_claims(path=path)).startswith("claims.yaml: ")
