"""Intervals, verdicts at their boundaries, the claims."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Message, passed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ticketlab.pipeline.params import PAPERS, read_studies
from ticketlab.study.claims import (
    COLUMNS,
    Claim,
    Verdict,
    judge,
    judged,
    load_claims,
    load_redirects,
    of_study,
    parts_of,
    styled,
    verdict_table,
)
from ticketlab.study.rules import COLOURS, decide
from ticketlab.study.stats import (
    Interval,
    as_evidence,
    as_interval,
    as_metric,
    as_percent,
    as_reference,
    as_share,
    beside,
    by_seed,
    chance_accuracy,
    decimals,
    interval,
    minus,
    over_levels,
    over_seeds,
    percent_saved,
    share,
)

NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


LEARNED = {"references": {"dense": {"the dense net": as_reference({0: 79.0, 1: 81.0}, 10.0)}}}
"""Metrics of a bed that has learned something."""


def claim(metric: str = "a.b", at_least: float | None = 0.0, **changes: object) -> Claim:
    values = {"id": "colt-X", "paper": "colt", "tier": "finding",
              "statement": "It holds.", "source": "abstract",
              "metric": metric, "at_least": at_least, "reference": "dense",
              "studies": ["desk"]}  # fmt: skip
    return Claim.model_validate(values | changes)


# --- intervals


@pytest.mark.parametrize(
    ("value", "few", "said"),
    [(-0.935, 2, "-0.94"), (-0.9349999, 2, "-0.94"), (-0.9344, 2, "-0.93"), (0.125, 2, "0.13"),
     (12.34499, 2, "12.35"), (1234567.0, 0, "1234567"), (2.5, 0, "3"),
     (-0.001, 2, "0.00"), (0.0, 2, "0.00"), (89.74, 2, "89.74")],
)  # fmt: skip
def test_a_number_is_rounded_once_and_zero_has_no_sign(value: float, few: int, said: str) -> None:
    assert decimals(value, few) == said


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=10))
def test_a_page_shows_the_number_that_metrics_json_has(values: list[float]) -> None:
    """Rounded from all its digits, and from the 6 of metrics.json."""
    raw = interval(values)
    stored = Interval(*(float(f"{x:.6g}") for x in (raw.mean, raw.low, raw.high)), raw.n)  # type: ignore[arg-type]
    assert str(stored) == str(raw)


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
    message = one_line(lambda: interval(values))
    assert str(values) in message and "allowed are 1 or more finite numbers" in message


def test_differences_are_paired_by_seed_and_only_common_seeds_count() -> None:
    a, b = {2: 13.0, 0: 10.0, 1: 21.0, 7: 99.0}, {1: 20.0, 0: 8.0, 2: 10.0, 9: -5.0}
    assert over_seeds(minus(a, b)) == interval([2.0, 1.0, 3.0])
    assert over_seeds(minus(b, a)).mean == -2.0
    # Seeds differ by far more than arms: unpaired, nothing would be seen.
    assert (over_seeds(minus(a, b)).low or 0) > -1 and over_seeds(
        minus({0: 1.0}, {0: 3.0})
    ) == Interval(-2.0, None, None, 1)


def test_arms_without_a_common_seed_have_no_difference(one_line: Message) -> None:
    assert "1 or more" in one_line(lambda: over_seeds(minus({0: 1.0}, {1: 2.0})))


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
    assert percent_saved({0: 8, 1: 10}, {0: 20, 1: 10, 2: 5}) == {0: 60.0, 1: 0.0}


def test_a_table_gives_one_value_a_seed(one_line: Message) -> None:
    frame = pd.DataFrame({"seed": [3, 1], "x": [0.5, 0.25]})
    assert by_seed(frame, "x") == {3: 0.5, 1: 0.25}
    twice = pd.DataFrame({"seed": [3, 3], "x": [0.5, 0.5]})
    assert one_line(lambda: by_seed(twice, "x")) == "x: several rows for one seed, allowed is one"


def test_percentages_within_seeds_end_at_0_and_100() -> None:
    found, low = as_percent({0: 100.0, 1: 75.0, 2: 100.0}), as_percent({0: 0.0, 1: 5.0})
    assert found is not None and low is not None
    assert found | {"high": 0} == as_metric([100.0, 75.0, 100.0]) | {"high": 0}  # type: ignore[operator]
    assert (found["high"], low["low"]) == (100.0, 0.0)
    assert as_percent({}) is None and as_percent({0: 7.0}) == as_metric([7.0])


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-1.0, 5.0, "reproduced"),  # exactly at the bound is at least the bound
        (-0.999, 5.0, "reproduced"),
        (-1.001, 5.0, "undecided"),
        (-9.0, -1.0, "undecided"),  # the high end meets the bound
        (-9.0, -1.001, "not reproduced"),
        (-1.0, -1.0, "reproduced"),
        (None, None, "undecided"),
    ],
)
def test_the_whole_interval_decides(low: float | None, high: float | None, word: str) -> None:
    assert decide(Interval(0.0, low, high, 3), -1.0) == word


@pytest.mark.parametrize("value", [-1e9, 1e9])
def test_one_seed_decides_nothing(value: float) -> None:
    metrics = LEARNED | {"a": {"b": asdict(interval([value]))}}
    reason = "a single seed decides nothing, 1 of 5 planned seeds"
    assert judge(claim(), metrics) == Verdict(claim(), "undecided", interval([value]), reason)


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS, NUMBERS)
def test_a_stricter_bound_never_makes_a_better_verdict(
    values: list[float], one: float, two: float
) -> None:
    order = ["not reproduced", "undecided", "reproduced"]
    loose, strict = sorted((one, two))
    found = interval(values)
    assert order.index(decide(found, strict)) <= order.index(decide(found, loose))


MISSING = "is not in the metrics; if an older version wrote them, run its notebook again"


def test_a_null_metric_was_not_run_and_a_missing_one_is_refused(one_line: Message) -> None:
    for metrics in ({"a": {"b": None}}, {"a": None}, LEARNED | {"a": None}):
        assert judge(claim(), metrics) == Verdict(claim(), "not run", None)
    for metrics in ({}, {"a": {}}, {"a": {"c": None}}, {"a": 3.0}, {"a.b": None}):
        message = one_line(lambda metrics=metrics: judge(claim(), metrics))  # type: ignore[misc]
        assert message == f"claim colt-X: metric 'a.b' {MISSING}"


def test_what_beats_does_so_in_the_whole_interval() -> None:
    beats = claim(at_least=None, above=0.0)
    for values, word in (([0.0, 0.0, 0.0], "no difference"), ([1.0, 1.1, 1.2], "reproduced"),
                         ([1e-15, 1e-15], "no difference"), ([-1.0, 1.0], "undecided"),
                         ([-1.0, -1.1], "not reproduced")):  # fmt: skip
        assert judge(beats, LEARNED | {"a": {"b": as_metric(values)}}).word == word
    assert judge(claim(), LEARNED | {"a": {"b": as_metric([0.0, 0.0])}}).word == "reproduced"
    assert (beats.holds_if, claim().holds_if) == ("> 0", ">= 0")


def test_a_page_shows_every_verdict_in_its_colour_and_the_same_each_time() -> None:
    found = interval([1.0, 2.0, 3.0])
    verdicts = [
        Verdict(claim(id=f"c-{i}"), word, found, "why: so" if word.startswith("not t") else None)  # type: ignore[arg-type]
        for i, word in enumerate(COLOURS)
    ]
    table = verdict_table(verdicts)
    assert table.columns.tolist() == [*COLUMNS, "reason"]
    assert table.verdict.tolist() == list(COLOURS) and set(table.ours) == {str(found)}
    page = styled(verdicts).to_html()
    assert page == styled(verdicts).to_html() and "not testable here: why: so" in page
    assert all(f"color: {colour}" in page for colour in COLOURS.values())
    assert verdict_table([Verdict(claim(), "not run", None)]).ours.tolist() == ["-"]


def test_bounds_are_shown_as_given_and_no_number_seems_to_meet_one() -> None:
    """0.98 against 1 was once printed as 1.0 against 1.0."""
    bounds = {0.98: ">= 0.98", 1.0: ">= 1", -0.3: ">= -0.3", 0.999999: ">= 0.999999"}
    assert {bound: claim(at_least=bound, unit="other").holds_if for bound in bounds} == bounds
    assert beside(Interval(0.98, 0.98, 0.98, 3), 1.0) == "0.98 [0.98, 0.98] (n = 3)"
    assert beside(Interval(1.2, 0.996, 1.404, 3), 1.0) == "1.200 [0.996, 1.404] (n = 3)"
    assert beside(Interval(0.1, 0.0004, 0.1996, 3), 0.0) == "0.1000 [0.0004, 0.1996] (n = 3)"
    assert beside(Interval(1.0, 1.0, 1.0, 3), 1.0) == "1.00 [1.00, 1.00] (n = 3)"
    assert beside(share([True] * 3), 29.2) == "3 of 3, 100.00 % [29.24, 100.00]"


# --- a run that learned nothing proves nothing


def bed(*scores: float, chance: float = 10.0) -> dict[str, object]:
    """Metrics whose every claim would be reproduced, and a dense net with these scores."""
    dense = as_reference(dict(enumerate(scores)), chance)
    return {
        "a": {"b": as_metric([1.0, 1.0, 1.0])},
        "references": {"dense": {"the dense net": dense}},
    }


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ((80.0, 81.0, 82.0), "reproduced"),
        ((10.0, 10.0, 10.0), "not testable here"),  # lr = 100: every net answers one class
        ((10.0 + 1e-9,) * 3, "not testable here"),  # what floats add is not learning
        ((9.0, 11.0, 13.0), "not testable here"),  # its interval reaches chance
        ((5.0, 5.1, 5.2), "not testable here"),
        ((80.0,), "undecided"),  # one seed decides nothing, whatever it says
    ],
)
def test_a_claim_needs_a_reference_above_chance(scores: tuple[float, ...], word: str) -> None:
    found = judge(claim(), bed(*scores))
    assert found.word == word and found.evidence == interval([1.0] * 3)


def test_the_reason_has_the_arm_its_interval_and_chance() -> None:
    found = judge(claim(), bed(10.0, 10.0, 10.0))
    interval_shown = "10.00 [10.00, 10.00] (n = 3)"
    assert found.reason == f"the dense net is not above chance, {interval_shown}, chance is 10"
    assert found.message == f"not testable here: {found.reason}"
    close = judge(claim(), bed(9.999, 10.001, 10.003)).reason or ""
    assert "10.001 [9.996, 10.006]" in close  # 10.00 would hide that it is not at chance
    assert judge(claim(), bed(80.0)).reason == "a single seed of the dense net"


def test_every_arm_of_a_reference_must_have_learned_and_one_must_have_run() -> None:
    good, bad = (as_reference({0: x, 1: x + 0.5}, 10.0) for x in (80.0, 9.0))
    whole = {"a": {"b": as_metric([1.0, 1.0])}}

    def word(arms: object) -> str:
        return judge(claim(), whole | {"references": {"dense": arms}}).word

    assert word({"x": good}) == word({"x": good, "y": None}) == "reproduced"
    assert word({"x": good, "y": bad}) == "not testable here"
    assert word({"x": None}) == word(None) == "not testable here"


def test_a_reference_that_is_not_in_the_metrics_is_one_line(one_line: Message) -> None:
    for metrics in ({}, {"references": {}}):
        message = one_line(lambda m=metrics: judge(claim(), m | {"a": {"b": as_metric([1.0])}}))  # type: ignore[misc]
        assert message == f"claim colt-X: reference 'dense' {MISSING}"


def test_chance_is_the_best_constant_answer() -> None:
    assert chance_accuracy([0, 1, 2, 3] * 5) == 25.0
    assert chance_accuracy(np.array([0, 1, 1, 1])) == 75.0


def test_verdicts_are_judged_from_the_file_as_written(tmp_path: Path) -> None:
    numbers: dict[str, object] = dict(LEARNED)
    for one in load_claims("colt"):
        *keys, last = one.metric.split(".")
        place: dict[str, object] = numbers
        for key in keys:
            place = place.setdefault(key, {})  # type: ignore[assignment]
        place[last] = as_metric([one.bound - 3, one.bound - 3])
    numbers["controls"] = passed(load_claims("colt"))
    numbers["references"] = dict.fromkeys(
        (one.reference for one in load_claims("colt")), LEARNED["references"]["dense"]
    )
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    found = judged("colt", tmp_path / "metrics.json")
    assert [v.claim.id for v in found] == [one.id for one in load_claims("colt")]
    assert {v.word for v in found} == {"not reproduced"}


# --- shares of seeds


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_share_is_clopper_pearsons_and_stays_within_0_and_100(
    n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n))
    found = share([True] * k + [False] * (n - k))
    low = 100 * stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = 100 * stats.beta.ppf(0.975, k + 1, n - k) if k < n else 100.0
    assert (found.low, found.high) == pytest.approx((low, high))
    assert 0 <= found.low <= found.share <= found.high <= 100 and found.low < found.high
    assert (found.k, found.n, found.mean) == (k, n, found.share)


def test_a_share_by_hand() -> None:
    """4 of 6 was once 66.67 [12.47, 120.86] %, and 3 of 3 had no width at all."""
    assert str(share([True, True, False])) == "2 of 3, 67 % [9, 99]"
    assert str(share([True] * 4 + [False] * 2)) == "4 of 6, 67 % [22, 96]"
    assert str(share([True] * 3)) == "3 of 3, 100 % [29, 100]"
    assert str(share([False] * 3)) == "0 of 3, 0 % [0, 71]"


def test_flags_have_no_t_interval_and_numbers_no_share(one_line: Message) -> None:
    flags = [True, False, True]
    for wrong in (flags, [np.bool_(True)], [1.0, True]):
        message = one_line(lambda wrong=wrong: interval(wrong))  # type: ignore[misc]
        assert "a share of seeds has its own interval" in message
    for numbers in ([], [1.0, 0.0], [100, 0], [1, 0]):
        message = one_line(lambda numbers=numbers: share(numbers))  # type: ignore[misc]
        assert "true and false" in message


def test_a_share_goes_into_metrics_comes_back_and_decides() -> None:
    assert as_share({}) is None
    stored = json.loads(json.dumps(as_share({3: True, 1: True, 2: False})))
    assert stored.keys() == {"share", "low", "high", "k", "n"}
    assert as_evidence(stored) == share([True, True, False])
    most = claim(at_least=None, above=50.0)
    for k, n, word in ((6, 6, "reproduced"), (4, 6, "undecided"), (0, 6, "not reproduced"),
                       (3, 3, "not testable here")):  # fmt: skip
        flags = {seed: seed < k for seed in range(n)}
        assert judge(most, LEARNED | {"a": {"b": as_share(flags)}}).word == word


# --- claims/PAPER.yaml


def test_every_claim_of_ours_is_of_a_known_paper_and_study_and_has_its_own_id() -> None:
    every = load_claims()
    assert every and len({one.id for one in every}) == len(every)
    assert {one.paper for one in every} <= set(PAPERS)
    studies = set(read_studies())
    assert all(set(one.studies) <= studies for one in every)
    nowhere = [one.id for one in every if not one.studies]
    assert nowhere == [one.id for one in every if one.metric.startswith("elsewhere.")]
    colt = load_claims("colt")
    assert colt == [one for one in every if one.paper == "colt"]
    assert {"colt-H1", "colt-H2", "colt-H3", "colt-H4"} <= {one.id for one in colt}
    assert load_claims("nobody") == []


def test_no_difference_says_so_where_all_of_it_is_below_zero() -> None:
    for values, reason in (
        ([-0.4, -0.2] * 5, "below zero, within the margin of 1"),
        ([-0.4, 0.4] * 5, None),
    ):
        metrics = LEARNED | {"a": {"b": as_metric(dict(enumerate(values)))}}
        found = judge(claim(at_least=None, above=0.0), metrics)
        assert (found.word, found.reason) == ("no difference", reason)
        assert found.is_opposite == (reason is not None)


def test_a_study_judges_the_claims_that_name_it_and_one_of_your_own_judges_all() -> None:
    one, two = (claim(id=f"colt-{n}", studies=[n]) for n in ("desk", "desk_long"))
    nowhere = claim(id="colt-3", studies=[])
    every = [one, two, nowhere]
    assert of_study(every, "desk") == [one, nowhere]
    assert of_study(every, "desk_long") == [two, nowhere]
    assert of_study(every, "mine") == every


def test_no_claim_is_judged_in_desk_and_again_in_desk_long() -> None:
    assert not [c.id for c in load_claims() if {"desk", "desk_long"} <= set(c.studies)]


BEATS = re.compile(r"\b(beats?|better|worse|differs?|improves|easier|larger|smaller|less)\b")


def test_a_claim_that_is_no_more_says_what_became_of_it() -> None:
    """Every id that ever was is one of ours or leads to one, in one step, or says why it ended."""
    ours = {claim.id for claim in load_claims()}
    gone = {one.old: one for one in load_redirects()}
    before = (Path(__file__).parent / "claims_before.txt").read_text().split()
    assert len(gone) == len(load_redirects()) and not ours & set(gone)
    assert set(before) <= ours | set(gone)
    for one in gone.values():
        assert one.new is None or one.new in ours, one.old
        assert one.reason.strip(), one.old


def test_seeds_beyond_the_planned_ones_are_said_to_be_an_extension() -> None:
    """Whoever adds seeds after a look has another error rate than the page says."""
    for n, extended in ((10, False), (11, True)):
        metrics = LEARNED | {"a": {"b": as_metric({seed: 5.0 + seed / n for seed in range(n)})}}
        verdict = judge(claim(), metrics)
        assert ("extended" in (verdict.reason or "")) == extended
    flags = {seed: True for seed in range(20)}
    share_of_20 = judge(claim(unit="seeds", at_least=50.0), LEARNED | {"a": {"b": as_share(flags)}})
    assert share_of_20.reason is None


def test_what_says_beats_or_differs_needs_the_whole_interval_above_its_bound() -> None:
    """A word of comparison with a bound of 0 and no margin must not be met by a difference of 0."""
    weak = {one.id for one in load_claims() if one.at_least == 0 and BEATS.search(one.statement)}
    assert weak == set()


def test_a_threshold_of_ours_is_not_said_to_be_the_papers() -> None:
    """The paper shows curves and names no threshold; what beats or leaves no path needs none."""
    none = {"pns-C3-collapse", "pns-C7-best"}
    for one in load_claims("plant_n_seek"):
        if one.above != 0 and one.id not in none:
            assert re.search("threshold is ours|what counts as found is ours", one.source), one.id


GOOD = (
    "- {id: a, tier: paper, statement: s, source: t, metric: m, at_least: 1, reference: dense, "
    "studies: [desk]}\n"
)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("metric: m, ", ""), "1.metric: "),
        (("tier: paper, ", ""), "1.tier: "),
        (("tier: paper", "tier: main"), "1.tier: "),
        (("metric: m", "metric: m, unit: metres"), "1.unit: "),
        (("at_least: 1", "at_least: one"), "1.at_least: "),
        (("at_least: 1, ", ""), "1: "),
        (("at_least: 1", "at_least: 1, above: 1"), "1: "),
        (("reference: dense, ", ""), "1.reference: "),
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
    path = tmp_path / "colt.yaml"
    path.write_text(GOOD)
    assert [one.at_least for one in load_claims(folder=tmp_path)] == [1.0]
    path.write_text(GOOD + GOOD.replace(*change))
    message = one_line(lambda: load_claims(folder=tmp_path))
    assert message.startswith(f"{tmp_path.name}/colt.yaml: {place}")


@pytest.mark.parametrize("text", ["3\n", "", "id: a\n"])
def test_claims_that_are_no_list_are_refused(text: str, tmp_path: Path, one_line: Message) -> None:
    (tmp_path / "colt.yaml").write_text(text)
    message = one_line(lambda: load_claims(folder=tmp_path))
    assert message.startswith(f"{tmp_path.name}/colt.yaml: ")


def test_the_file_says_whose_claims_they_are(tmp_path: Path, one_line: Message) -> None:
    (tmp_path / "colt.yaml").write_text(GOOD)
    (tmp_path / "mine.yaml").write_text(GOOD.replace("id: a", "id: b"))
    assert [(one.id, one.paper) for one in load_claims(folder=tmp_path)] == [
        ("a", "colt"),
        ("b", "mine"),
    ]
    assert [one.id for one in load_claims("mine", tmp_path)] == ["b"]
    (tmp_path / "mine.yaml").write_text(GOOD.replace("id: a", "id: b, paper: colt"))
    message = one_line(lambda: load_claims("mine", tmp_path))
    assert message.endswith(
        "mine.yaml: b: paper 'colt' given, allowed is 'mine', the name of the file"
    )


@pytest.mark.parametrize(
    "n, bound, possible",
    [(3, 50.0, False), (5, 50.0, False), (6, 50.0, True), (6, 60.0, False), (8, 60.0, True),
     (20, 99.0, False)],
)  # fmt: skip
def test_a_share_of_too_few_seeds_is_not_testable(n: int, bound: float, possible: bool) -> None:
    one = claim("found", at_least=None, above=bound, unit="seeds")
    reference = {"dense": {"score": asdict(interval([80.0, 81.0, 82.0])), "chance": 10.0}}
    for flag in (True, False):
        metrics = {
            "found": as_share(dict.fromkeys(range(n), flag)),
            "references": {"dense": reference},
        }
        verdict = judge(one, metrics)
        if possible:
            assert verdict.word == ("reproduced" if flag else "not reproduced")
        else:
            assert verdict.word == "not testable here"
            assert verdict.reason == f"{n} seeds cannot decide a share of {bound:g} %"


def test_numbers_that_round_to_the_bound_are_shown_as_it() -> None:
    assert beside(interval([1, 1, 1.0000000000000002]), 1.0) == "1.00 [1.00, 1.00] (n = 3)"


def test_a_mean_knows_the_means_that_it_averages_over() -> None:
    """Levels, or levels of networks; what was not measured and means of means are left out."""
    level = {at: as_metric({0: mean, 1: mean}) for at, mean in (("at_90", -1.0), ("at_95", -3.0))}
    nets = {"lenet": level | {"mean": as_metric({0: -2.0, 1: -2.0})}, "convnet": None}
    metrics = {"a": level | {"mean": as_metric({0: -2.0, 1: -2.0}), "at_99": None}, "b": nets}
    assert parts_of(claim(metric="a.mean"), metrics) == (-1.0, -3.0)
    assert parts_of(claim(metric="b.mean"), metrics) == (-1.0, -3.0)
    assert parts_of(claim(metric="a.at_90"), metrics) == ()
