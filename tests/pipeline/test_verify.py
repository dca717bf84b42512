"""Whether a re-run reproduced the committed results: identical, within the intervals, different."""

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from ticketlab.pipeline.repository import blob_hash, lock_stages
from ticketlab.pipeline.verify import Finding, compare, summary
from ticketlab.study.stats import interval, share


def evidence(*values: float) -> dict[str, Any]:
    """An interval as metrics.json has it."""
    return asdict(interval(values))


def sizes(old: Any, new: Any) -> dict[str, float]:
    """How far every metric moved, by name."""
    return {shift.metric: shift.size for shift in compare(old, new)}


# --- numbers


def test_equal_metrics_have_not_moved() -> None:
    metrics = {"a": {"b": evidence(1.0, 2.0, 3.0)}, "c": None, "d": 3, "e": "word"}
    assert sizes(metrics, json.loads(json.dumps(metrics))) == {}


def test_intervals_that_overlap_are_within_and_others_apart() -> None:
    old = evidence(1.0, 2.0, 3.0)  # 2 with half-width 2.48
    assert sizes({"a": old}, {"a": evidence(2.0, 3.0, 4.0)})["a"] == pytest.approx(
        1 / 4.968, abs=1e-3
    )
    assert sizes({"a": old}, {"a": evidence(7.0, 8.0, 9.0)})["a"] > 1  # 8 with 2.48: a gap of 1
    assert sizes({"a": old}, {"a": evidence(5.9, 6.9, 7.9)})["a"] < 1
    touching = {"mean": 0.0, "low": -1.0, "high": 1.0, "n": 3}
    other = {"mean": 2.0, "low": 1.0, "high": 3.0, "n": 3}
    assert sizes({"a": touching}, {"a": other}) == {"a": 1.0}  # they share a point


def test_an_interval_without_width_must_be_met() -> None:
    exact = evidence(8.0, 8.0, 8.0)
    assert sizes({"a": exact}, {"a": evidence(9.0, 9.0, 9.0)}) == {"a": math.inf}
    assert sizes({"a": exact}, {"a": evidence(7.0, 8.0, 10.0)})["a"] < 1


def test_shares_of_seeds_are_within_where_their_exact_intervals_meet() -> None:
    def flags(k: int, n: int = 20) -> dict[str, Any]:
        return asdict(share([seed < k for seed in range(n)]))

    assert sizes({"a": flags(12)}, {"a": flags(15)})["a"] < 1
    assert sizes({"a": flags(2)}, {"a": flags(19)})["a"] > 1
    assert sizes({"a": flags(2)}, {"a": flags(2, 10)}) == {"a": math.inf}  # other seeds
    assert sizes({"a": flags(2)}, {"a": evidence(1.0, 2.0)}) == {"a": math.inf}


def test_a_single_seed_has_no_interval_and_decides_nothing() -> None:
    assert sizes({"a": evidence(1.0)}, {"a": evidence(50.0)}) == {"a": 0.0}
    assert sizes({"a": evidence(1.0)}, {"a": evidence(1.0, 2.0)}) == {"a": math.inf}  # other seeds


@pytest.mark.parametrize(
    ("old", "new"),
    [(3, 4), (0.5, 0.5000001), (None, 3), (evidence(1.0, 2.0), None), (True, False), ([1], [2])],
)
def test_plain_numbers_must_be_equal(old: Any, new: Any) -> None:
    assert sizes({"a": {"b": old}}, {"a": {"b": new}}) == {"a.b": math.inf}


def test_a_metric_that_only_one_side_has_is_a_difference() -> None:
    found = {s.metric: s.text for s in compare({"a": 1, "b": 2}, {"b": 2, "c": {"d": 1}})}
    assert found == {"a": "not here", "c": "not committed"}


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("reproduced", "undecided", 0.0),
        ("undecided", "not reproduced", 0.0),
        ("reproduced", "not reproduced", math.inf),
        ("not run", "reproduced", math.inf),
        ("reproduced", "not testable here", math.inf),
    ],
)
def test_only_opposite_verdicts_are_a_difference(old: str, new: str, size: float) -> None:
    assert sizes({"x": {"verdict": old}}, {"x": {"verdict": new}}) == {"x.verdict": size}


def test_versions_and_other_words_decide_nothing() -> None:
    assert sizes({"provenance": {"torch": "2.1"}}, {"provenance": {"torch": "2.2"}}) == {
        "provenance.torch": 0.0
    }


def test_the_summary_counts_what_is_not_identical() -> None:
    a, b = Finding("a@x", "identical", True), Finding("b@x", "within", True)
    assert summary([a, a]) == "reproduced byte for byte: 2 stages"
    assert summary([a, b]) == "reproduced: 1 identical, 1 within"
    assert summary([a, b], bytes_expected=True) == (
        "not reproduced byte for byte, as it should be here: 1 identical, 1 within"
    )
    assert summary([a, a], bytes_expected=True) == summary([a, a])
    assert summary([b, Finding("c@x", "different", False)]).startswith("not reproduced: ")


def test_hashes_are_gits_and_an_empty_lock_has_no_stages() -> None:
    assert blob_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert lock_stages("") == {}
