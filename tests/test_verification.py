"""Whether a re-run reproduced the committed results: identical, within the intervals, different."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, Terminal, finished

from ticketlab.claims import interval
from ticketlab.pipeline import blob_hash, lock_stages
from ticketlab.verification import Finding, compare, summary

PAGES = "results/desk/colt"


def told(*values: float) -> dict[str, Any]:
    """An interval as metrics.json has it."""
    return asdict(interval(values))


def sizes(old: Any, new: Any) -> dict[str, float]:
    """How far every metric moved, by name."""
    return {shift.metric: shift.size for shift in compare(old, new)}


# --- numbers


def test_equal_metrics_have_not_moved() -> None:
    metrics = {"a": {"b": told(1.0, 2.0, 3.0)}, "c": None, "d": 3, "e": "word"}
    assert sizes(metrics, json.loads(json.dumps(metrics))) == {}


def test_intervals_that_overlap_are_within_and_others_apart() -> None:
    old = told(1.0, 2.0, 3.0)  # 2 with half-width 2.48
    assert sizes({"a": old}, {"a": told(2.0, 3.0, 4.0)})["a"] == pytest.approx(1 / 4.968, abs=1e-3)
    assert sizes({"a": old}, {"a": told(7.0, 8.0, 9.0)})["a"] > 1  # 8 with 2.48: a gap of 1
    assert sizes({"a": old}, {"a": told(5.9, 6.9, 7.9)})["a"] < 1
    touching = {"mean": 0.0, "low": -1.0, "high": 1.0, "n": 3}
    other = {"mean": 2.0, "low": 1.0, "high": 3.0, "n": 3}
    assert sizes({"a": touching}, {"a": other}) == {"a": 1.0}  # they share a point


def test_an_interval_without_width_must_be_met() -> None:
    exact = told(8.0, 8.0, 8.0)
    assert sizes({"a": exact}, {"a": told(9.0, 9.0, 9.0)}) == {"a": math.inf}
    assert sizes({"a": exact}, {"a": told(7.0, 8.0, 10.0)})["a"] < 1


def test_a_single_seed_has_no_interval_and_decides_nothing() -> None:
    assert sizes({"a": told(1.0)}, {"a": told(50.0)}) == {"a": 0.0}
    assert sizes({"a": told(1.0)}, {"a": told(1.0, 2.0)}) == {"a": math.inf}  # other seeds


@pytest.mark.parametrize(
    ("old", "new"),
    [(3, 4), (0.5, 0.5000001), (None, 3), (told(1.0, 2.0), None), (True, False), ([1], [2])],
)
def test_plain_numbers_must_be_equal(old: Any, new: Any) -> None:
    assert sizes({"a": {"b": old}}, {"a": {"b": new}}) == {"a.b": math.inf}


def test_a_metric_that_only_one_side_has_is_a_difference() -> None:
    found = {s.metric: s.text for s in compare({"a": 1, "b": 2}, {"b": 2, "c": {"d": 1}})}
    assert found == {"a": "not here", "c": "not committed"}


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("reproduced", "inconclusive", 0.0),
        ("inconclusive", "not reproduced", 0.0),
        ("reproduced", "not reproduced", math.inf),
        ("not run at this scale", "reproduced", math.inf),
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
    assert summary([b, Finding("c@x", "different", False)]).startswith("not reproduced: ")


def test_hashes_are_gits_and_an_empty_lock_has_no_stages() -> None:
    assert blob_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert lock_stages("") == {}


# --- stages


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clone, Terminal]]:
    """A clone with committed results to change, and `ticketlab` in it."""
    clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("verify") / "clone")
    terminal = Terminal(clone)
    yield clone, terminal
    terminal.close()


@pytest.fixture
def restored(place: tuple[Clone, Terminal]) -> Iterator[tuple[Clone, Terminal]]:
    """The same, put back afterwards."""
    yield place
    place[0].run("git checkout -q .")


def words(out: str) -> dict[str, str]:
    """The word on each stage."""
    rows = [line.split() for line in out.splitlines() if "@" in line.split(" ")[0]]
    return {row[0]: row[1] for row in rows}


def rewrite(path: Path, change: Any) -> None:
    """Change a metrics file in place."""
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


def test_an_untouched_clone_is_identical(place: tuple[Clone, Terminal]) -> None:
    done = place[1]("verify")
    assert done.code == 0, done
    assert words(done.out) == dict.fromkeys(
        ("data@desk", "colt_train@desk", "colt@desk", "claims@desk"), "identical"
    )
    assert "out of date" not in done.out and "byte for byte: 4 stages" in done.out


def test_numbers_within_their_intervals_are_reproduced(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored

    def nudge(metrics: Any) -> None:
        for key, by in (("mean", 0.01), ("low", -5), ("high", 5)):
            metrics["accuracy"]["dense"][key] += by
        metrics["provenance"]["torch"] = "another"

    rewrite(clone.path(f"{PAGES}/metrics.json"), nudge)
    done = ticketlab("verify", "desk")
    assert done.code == 0 and words(done.out)["colt@desk"] == "within"
    assert "2 metrics moved" in done.out and "accuracy.dense" in done.out
    assert "out of date" in done.out  # as DVC sees it: somebody changed an output
    assert "torch" not in done.out


def test_numbers_that_are_apart_are_named_and_end_with_1(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored

    def spoil(metrics: Any) -> None:
        for key in ("mean", "low", "high"):
            metrics["accuracy"]["dense"][key] += 500
        del metrics["transfer"]

    rewrite(clone.path(f"{PAGES}/metrics.json"), spoil)
    done = ticketlab("verify")
    assert done.code == 1 and words(done.out)["colt@desk"] == "different"
    assert "2 of 2 changed metrics apart" in done.out
    assert "accuracy.dense: " in done.out and "transfer: not here" in done.out
    assert "not reproduced: 1 different, 3 identical" in done.out


def test_other_records_are_as_good_as_the_numbers_made_of_them(
    restored: tuple[Clone, Terminal],
) -> None:
    clone, ticketlab = restored
    record = next(iter(sorted(clone.path("results/desk/runs/colt").rglob("*.json"))))
    whole = record.read_bytes()
    record.unlink()  # DVC may have linked it to its cache
    record.write_bytes(whole + b"\n")
    page = clone.path(f"{PAGES}/colt.ipynb")
    page.write_text(page.read_text() + "\n")
    done = ticketlab("verify")
    record.write_bytes(whole)
    assert done.code == 0, done
    assert words(done.out)["colt_train@desk"] == words(done.out)["colt@desk"] == "within"
    assert "all numbers equal, other bytes: results/desk/colt/colt.ipynb" in done.out


def test_other_data_are_a_difference(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored
    clone.edit("results/desk/data.json", lambda text: text.replace('": "', '": "0'))
    done = ticketlab("verify")
    assert done.code == 1 and words(done.out)["data@desk"] == "different"
    assert "results/desk/data.json" in done.out


def test_what_cannot_be_compared_is_one_line(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored
    clone.path(f"{PAGES}/scores.csv").unlink()
    cases = {
        ("verify",): [f"{PAGES}/scores.csv", "dvc repro"],
        ("verify", "midi"): ["'midi'", "desk"],
        ("verify", "--rev", "nowhere"): ["'nowhere'", "revision"],
    }
    for arguments, named in cases.items():
        done = ticketlab(*arguments)
        assert done.code == 2 and done.err.count("\n") == 1, done
        assert all(word in done.err for word in named), done.err
