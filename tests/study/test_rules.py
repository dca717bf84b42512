"""The rules of verdicts: margins, planned seeds, counts, resolution, power, p and q, by hand and by
simulation."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Message
from scipy import stats as exact

from ticketlab.papers.compare import report as compare_report
from ticketlab.pipeline import planning
from ticketlab.pipeline.params import load_study
from ticketlab.spec import ROOT
from ticketlab.study import rules
from ticketlab.study.claims import Claim, Verdict, as_q, judge, load_claims, verdict_table, with_q
from ticketlab.study.results import SEEDS, seeds_table, study_seeds, write_metrics
from ticketlab.study.rules import COLOURS, MARGINS, PLANNED, decide, effect_seen, power
from ticketlab.study.stats import (
    Count,
    Interval,
    as_count,
    as_evidence,
    as_metric,
    as_percent,
    as_reference,
    as_share,
    count,
    interval,
    minus,
    share,
)
from ticketlab.study.verdicts import counts, survivors


def claim(**changes: Any) -> Claim:
    values = {"id": "x", "paper": "colt", "tier": "headline", "statement": "It holds.",
              "source": "abstract", "metric": "a", "above": 0.0, "reference": "dense",
              "studies": ["desk"]}  # fmt: skip
    return Claim.model_validate(values | changes)


def metrics(a: Any, images: int | None = None) -> dict[str, Any]:
    dense = as_reference({0: 79.0, 1: 81.0}, 10.0, images)
    return {"a": a, "references": {"dense": {"the dense net": dense}}}


# --- words


def test_there_are_six_words_and_their_colours_can_be_read_on_white() -> None:
    assert list(COLOURS) == ["reproduced", "not reproduced", "no difference", "undecided",
                             "not testable here", "not run"]  # fmt: skip
    assert len(set(COLOURS.values())) == 6
    assert all(contrast(colour) >= 4.5 for colour in COLOURS.values())


def contrast(colour: str) -> float:
    """With white, as WCAG 2 has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 1.05 / (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)


def test_the_style_sheet_has_a_colour_for_each_word() -> None:
    style = (ROOT / "ticketlab/reader/templates/compare.css").read_text()
    for word in COLOURS:
        assert re.search(rf"\.{word.replace(' ', '-')} {{ color: var\(--\w+\); }}", style), word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.9, "reproduced"),  # within the margin, too, but reproduced goes first
        (-0.4, 0.9, "no difference"),
        (-1.0, 1.0, "no difference"),
        (-0.9, -0.1, "no difference"),
        (-1.01, 0.5, "undecided"),
        (-0.5, 1.01, "undecided"),
        (-3.0, -1.5, "not reproduced"),
        (-1.5, -0.1, "not reproduced"),
    ],
)
def test_no_difference_is_an_interval_within_the_margin(low: float, high: float, word: str) -> None:
    found = Interval((low + high) / 2, low, high, 10)
    assert decide(found, 0.0, strictly=True, margin=1.0) == word
    without = "undecided" if high > 0 else "not reproduced"
    assert decide(found, 0.0, strictly=True) == ("reproduced" if low > 0 else without)


def test_only_what_beats_or_differs_can_show_no_difference() -> None:
    inside = metrics(asdict(Interval(0.1, -0.3, 0.5, 10)))
    assert judge(claim(), inside).word == "no difference"
    for other in ({"above": 0.2}, {"above": None, "at_least": 0.0}, {"unit": "other"}):
        assert judge(claim(**other), inside).word == "undecided"
    assert judge(claim(unit="other", margin=0.6), inside).word == "no difference"


# --- margins


def test_margins_are_one_point_one_round_and_five_percent_of_cost() -> None:
    assert MARGINS == {"points": 1.0, "rounds": 1.0, "cost": 5.0}
    assert claim().no_difference == 1.0 and claim(unit="cost").no_difference == 5.0
    assert claim(margin=2.0).no_difference == 2.0 and claim(above=3.0).no_difference is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"margin": 0.5}, "margin_from: needed, a margin of 0.5 is below the rule's 1 (points)"),
        ({"above": None, "at_least": -0.3}, "margin_from: needed, a margin of 0.3 is below"),
        ({"margin": 4.0, "unit": "cost"}, "margin_from: needed, a margin of 4 is below"),
        ({"margin": 2.0, "above": 1.0}, "margin: 2 given, only claims with `above: 0`"),
        ({"margin": 2.0, "above": None, "at_least": 0.0}, "margin: 2 given, only claims"),
        ({"margin": -1.0}, "margin"),
    ],
)
def test_a_smaller_margin_says_whose_it_is(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=re.escape(key)):
        claim(**changes)
    if key.startswith("margin_from"):
        claim(**changes, margin_from="the paper's own words")


def test_tiers_are_assigned_and_a_paper_promises_two_to_four_things() -> None:
    every = load_claims()
    for paper in {one.paper for one in every} - {"compare", "geometry", "seekers"}:
        assert 2 <= sum(one.tier == "headline" for one in every if one.paper == paper) <= 4, paper
    ours = {one.tier for one in every if one.paper == "compare"}
    assert ours == {"control", "finding"}  # what a paper promises is judged in its own file
    others = {one.tier for one in every if one.paper == "geometry"}
    assert others == {"paper", "control"}  # statements of later work, here on all methods
    newer = {one.tier for one in every if one.paper == "seekers"}
    assert newer == {"finding", "control"}  # no paper promises anything about planted tickets
    controls = [one for one in every if re.search("control|sanity check", one.source)]
    assert {one.id for one in controls if one.tier != "control"} == set()


# --- counts, shares, resolution


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([2, 2, 2], "reproduced"),
        ([1, 2, 1], "reproduced"),
        ([0, 2, 3, 3, 3, 3, 3, 3], "undecided"),  # t would say reproduced: 2.5 [1.6, 3.4]
        ([0, 0, 0], "not reproduced"),
        ([3], "undecided"),
    ],
)
def test_counts_are_decided_where_all_seeds_agree(values: list[float], word: str) -> None:
    one = claim(above=None, at_least=1.0, unit="rounds")
    found = judge(one, metrics(as_count(dict(enumerate(values)))))
    assert found.word == word and found.p is None
    if word == "undecided" and len(values) > 1:
        assert found.reason == "seeds on both sides of the bound, 8 of 10 planned seeds"


def test_a_count_goes_into_metrics_and_comes_back(one_line: Message) -> None:
    stored = json.loads(json.dumps(as_count({0: 4.0, 1: 5.0, 2: 4.0})))
    assert stored == {"mean": pytest.approx(13 / 3), "least": 4.0, "most": 5.0, "n": 3}
    assert as_evidence(stored) == count([4, 5, 4]) == Count(13 / 3, 4.0, 5.0, 3)
    assert str(as_evidence(stored)) == "4.33, all from 4 to 5 (n = 3)"
    assert as_count({}) is None and "1 or more" in one_line(lambda: count([]))


def test_claims_on_rounds_and_epochs_read_counts() -> None:
    """The reports make counts of what the claims call rounds and epochs."""
    for one in load_claims():
        if one.unit in ("rounds", "epochs"):
            assert re.search(r"^rounds\.|stop_off$", one.metric), one.id
    bed = SimpleNamespace(name="a", levels=[0.9])
    params: Any = SimpleNamespace(beds=[bed])
    rounds = {"imp": [12, 13], "colt": [9, 11]}
    rows = [
        {"net": "a", "level": 0.9, "arm": arm, "seed": seed, "rounds": n}
        for arm, each in rounds.items()
        for seed, n in enumerate(each)
    ]
    fewer = compare_report.fewer_rounds(pd.DataFrame(rows), params)
    assert fewer["mean"] == {"mean": 2.5, "least": 2.0, "most": 3.0, "n": 2}


def test_equal_accuracies_are_as_wide_as_a_test_image() -> None:
    same = as_metric({0: 0.0, 1: 0.0, 2: 0.0})
    at_least = claim(above=None, at_least=0.0)
    assert judge(at_least, metrics(same)).word == "reproduced"
    found = judge(at_least, metrics(same, images=500))
    assert found.word == "undecided" and found.evidence == Interval(0.0, -0.2, 0.2, 3)
    assert judge(claim(), metrics(same, images=500)).word == "no difference"
    other = judge(claim(above=None, at_least=0.0, unit="other"), metrics(same, images=500))
    assert other.word == "reproduced"  # not an accuracy
    wide = metrics(as_metric({0: 0.0, 1: 0.02}), images=50)
    assert judge(claim(), wide).evidence == interval([0.0, 0.02])


def test_ten_of_ten_is_no_ninety_percent_and_twenty_are_planned() -> None:
    assert round(share([True] * 10).low) == 69
    assert claim(above=50.0, unit="seeds").planned == 20
    assert {tier: claim(tier=tier).planned for tier in PLANNED} == {
        "headline": 10, "paper": 10, "control": 10, "finding": 5}  # fmt: skip


# --- how many seeds


def test_power_is_that_of_statsmodels_tables() -> None:
    """One paired sd takes 10 seeds, 1.5 sd hardly fail with 10; 3 seeds see neither."""
    assert [round(power(n, d), 2) for n in (10, 3) for d in (1.0, 1.5)] == [0.8, 0.99, 0.18, 0.32]
    assert [round(effect_seen(n), 2) for n in (2, 3, 5, 10, 20)] == [11.55, 3.26, 1.68, 1.0, 0.66]


def draws(effect: float, n: int, times: int, seed: int = 0) -> np.ndarray:
    """Paired differences of sd 1 (times, n) around an effect."""
    return np.random.default_rng(seed).normal(effect, 1.0, (times, n))


@pytest.mark.parametrize("n, effect", [(10, 1.0), (10, 1.5), (3, 1.0), (3, 1.5)])
def test_the_rule_decides_as_often_as_its_power_says(n: int, effect: float) -> None:
    words = [decide(interval(row), 0.0, strictly=True) for row in draws(effect, n, 2000)]  # type: ignore[arg-type]
    assert np.mean([word == "reproduced" for word in words]) == pytest.approx(
        power(n, effect), abs=0.035
    )


def test_looking_until_it_is_decided_errs_more_often() -> None:
    """With no effect at all: 5 % at the planned 10 seeds; 13.7 % for who looks after 3, 5, 7 and 10
    and stops at the first decision, 16.8 % for who looks after each from the third on."""
    values = draws(0.0, 10, 20_000)
    wrong = {n: exact.ttest_1samp(values[:, :n], 0.0, axis=1).pvalue < 0.05 for n in range(3, 11)}
    assert wrong[10].mean() == pytest.approx(0.05, abs=0.006)
    some = np.any([wrong[n] for n in (3, 5, 7, 10)], axis=0)
    assert some.mean() == pytest.approx(0.137, abs=0.01)
    assert np.any(list(wrong.values()), axis=0).mean() == pytest.approx(0.168, abs=0.01)


def test_permuted_labels_beat_in_at_most_five_percent() -> None:
    """The A/A control: accuracies of one arm under two labels, through the code of every claim."""
    random, beats = np.random.default_rng(1), []
    for _ in range(1500):
        pair = random.normal(80.0, 0.6, (10, 2)) + random.normal(0.0, 2.0, (10, 1))
        a, b = (dict(enumerate(column)) for column in random.permuted(pair, axis=1).T)
        beats.append(judge(claim(), metrics(as_metric(minus(a, b)))).word == "reproduced")
    assert np.mean(beats) <= 0.05


def test_an_undecided_verdict_says_how_many_seeds_it_needs() -> None:
    def reason(low: float, high: float, n: int = 10, **changes: Any) -> str | None:
        return judge(
            claim(**changes), metrics(asdict(Interval((low + high) / 2, low, high, n)))
        ).reason

    assert reason(-0.5, 3.5) == "about 30 seeds needed"  # 1.5 at an sd of 2.8
    assert reason(-0.5, 3.5, n=3) == "about 5 seeds needed, 3 of 10 planned seeds"
    assert reason(-1.5, 1.5) == "about 37 seeds needed"  # to lie within 1 point of zero
    assert reason(-1.5, 1.5, unit="other") == "more than 100 seeds needed"
    assert reason(0.5, 3.5, n=3) == "3 of 10 planned seeds" and reason(0.5, 3.5) is None
    for n in (30, 29):  # by the table of noncentral t itself
        enough = exact.nct.sf(exact.t.ppf(0.975, n - 1), n - 1, 1.5 / 2.7958 * n**0.5) >= 0.8
        assert enough == (n == 30)
    most = judge(claim(above=50.0, unit="seeds"), metrics(as_share({s: s < 14 for s in range(20)})))
    assert most.message == "undecided: about 49 seeds needed"


def test_seeds_for_a_share_are_those_of_the_binomial_test() -> None:
    for n in (10, 20, 49):
        wins = [k for k in range(n + 1) if share([True] * k + [False] * (n - k)).low > 50]
        chance = sum(exact.binom.pmf(k, n, 0.7) for k in wins)
        assert rules.share_power(n, 0.7, 0.5) == pytest.approx(chance)


def test_the_plan_says_what_the_seeds_can_decide() -> None:
    found = planning.attainable("desk", load_study("desk"))
    every = [one for one in load_claims() if "desk" in one.studies]
    assert found.claims.sum() == len(every)
    assert set(found.planned[found.numbers == "shares"]) == {20}
    assert set(found.planned[(found.tier == "finding") & (found.numbers == "means")]) == {5}
    n = int(found.seeds[0])
    assert found["decides in 80 %"][0] == f"effects of {effect_seen(n):.2f} paired sd"


# --- p and q


def test_p_is_that_of_the_tests_and_of_the_interval() -> None:
    values = [0.3, 1.2, -0.4, 0.9, 0.7]
    assert rules.p_value(interval(values), 0.1) == pytest.approx(
        exact.ttest_1samp(values, 0.1).pvalue
    )
    for bound in (0.5, 0.6):
        assert rules.p_value(share([True] * 9 + [False]), 100 * bound) == pytest.approx(
            exact.binomtest(9, 10, bound).pvalue
        )
    near = as_evidence(as_percent({0: 99.0, 1: 100.0, 2: 98.0}))  # its upper bound ends at 100
    assert near is not None and near.high == 100.0
    assert rules.p_value(near, 95.0) == pytest.approx(
        exact.ttest_1samp([99.0, 100.0, 98.0], 95.0).pvalue
    )
    assert rules.p_value(interval([1.0]), 0.0) is None and rules.p_value(count([1, 2]), 0.0) is None
    assert rules.p_value(interval([1.0, 1.0]), 0.0) == 0 and rules.p_value(
        interval([1.0, 1.0]), 1.0
    ) == 1  # fmt: skip


def test_a_verdict_by_t_has_a_p_below_five_percent_and_an_undecided_one_above() -> None:
    for row in draws(1.0, 5, 300):
        for one in (claim(), claim(above=None, at_least=-1.0)):
            verdict = judge(one, metrics(as_metric(dict(enumerate(row)))))
            assert verdict.p is not None
            assert (verdict.p < 0.05) == (verdict.word != "undecided")


def test_q_is_benjamini_and_hochbergs_over_the_tested_claims() -> None:
    p = [0.01, None, 0.04, 0.03, 0.2, None]
    assert rules.q_values(p) == pytest.approx([0.04, None, 0.16 / 3, 0.16 / 3, 0.2, None])
    assert rules.q_values([None]) == [None] and rules.q_values([]) == []


def test_a_study_counts_what_survives_many_claims() -> None:
    sure, just = {0: 1.0, 1: 1.1, 2: 1.2}, {0: 0.2, 1: 0.25, 2: 0.35}
    verdicts = [judge(claim(id="sure"), metrics(as_metric(sure)))]
    verdicts += [judge(claim(id="just"), metrics(as_metric(just)))]
    lost = as_metric({0: -3.0, 1: 3.0, 2: 0.1})
    verdicts += [judge(claim(id=f"lost-{i}"), metrics(lost)) for i in range(6)]
    verdicts += [judge(claim(id="rounds", unit="rounds"), metrics(as_count({0: 1, 1: 2})))]
    verdicts += [judge(claim(id="gone"), metrics(None))]
    words = {one.claim.id: one.word for one in verdicts}
    assert words["sure"] == words["just"] == words["rounds"] == "reproduced"
    found = verdict_table(with_q(verdicts)).assign(paper="colt").set_index("paper")
    assert survivors(found) == (
        "3 of 10 claims are decided: 1 by exact counts and 2 by a test, of which 1 have q <= 0.05"
    )
    assert counts(found, "tier").loc["headline", "undecided"] == 6
    assert with_q(verdicts)[-1].q is None and with_q(verdicts)[0].q == pytest.approx(
        8 * (verdicts[0].p or 0)
    )


def test_q_is_never_rounded_to_what_is_allowed() -> None:
    assert [as_q(q) for q in (None, float("nan"), 0.0501, 0.05, 0.0004, 1.0)] == [
        "", "", ".051", ".050", "< .001", "1.000"]  # fmt: skip
    assert Verdict(claim(), "not run", None).p is None


# --- numbers by seed


def test_every_interval_leaves_its_numbers_by_seed(tmp_path: Path, one_line: Message) -> None:
    numbers = {
        "differences": {"a_minus_b": {"at_90": as_metric({7: 1.0, 3: 2.0}), "mean": None}},
        "found": as_share({3: True, 7: False}),
        "rounds": as_count({3: 4, 7: 5}),
        "kept": as_percent({3: 99.0}),
        "draws": as_metric([1.0, 2.0]),  # by no seed
        "total": 3,
    }
    assert "dvc repro" in one_line(lambda: study_seeds(tmp_path / "desk"))
    write_metrics(numbers, tmp_path / "desk" / "colt" / "metrics.json")
    text = (tmp_path / "desk" / "colt" / SEEDS).read_text()
    assert text == (
        "metric,seed,value\ndifferences.a_minus_b.at_90,3,2\ndifferences.a_minus_b.at_90,7,1\n"
        "found,3,1\nfound,7,0\nkept,3,99\nrounds,3,4\nrounds,7,5\n"
    )
    found = study_seeds(tmp_path / "desk")
    assert list(found) == ["paper", "metric", "seed", "value"] and set(found.paper) == {"colt"}
    stored = json.loads((tmp_path / "desk" / "colt" / "metrics.json").read_text())
    assert set(stored["found"]) == {"share", "low", "high", "k", "n"}  # as before


def test_the_numbers_by_seed_are_those_of_the_intervals() -> None:
    found = seeds_table({"a": as_metric({0: 1.0, 1: 3.0, 2: 5.0})})
    assert interval(found.value.tolist()) == interval([1.0, 3.0, 5.0])
