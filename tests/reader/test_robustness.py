"""Two runs claim by claim: what turned into its opposite, and what the rules predict."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Message
from scipy.stats import binom

from ticketlab.cli import read as commands
from ticketlab.reader import robustness
from ticketlab.reader.robustness import Pair, drawn, opposites, page, pairs, stayed
from ticketlab.reader.snapshots import Snapshot
from ticketlab.study import rules
from ticketlab.study.claims import Claim, Verdict, judge
from ticketlab.study.rules import Word
from ticketlab.study.stats import Evidence, Interval, as_reference, count, interval, share


def verdict(found: Evidence | None, word: Word | None = None, **changes: Any) -> Verdict:
    """A claim's verdict on `found` by the rules, or the `word` given."""
    values = {"id": "x", "paper": "colt", "tier": "paper", "statement": "It is so.",
              "source": "s", "metric": "a", "at_least": 0.0, "reference": "dense",
              "studies": ["desk"]}  # fmt: skip
    claim = Claim.model_validate(values | changes)
    if word is None and found is not None:
        word = rules.decide(found, claim.bound)
    return Verdict(claim, word or "not run", found)


def spread(mean: float, n: int = 10) -> Interval:
    """An interval of `n` seeds with a standard error of 1."""
    half = float(rules.stdtrit(n - 1, 0.975))
    return Interval(mean, mean - half, mean + half, n)


@pytest.mark.parametrize(
    ("a", "b", "change"),
    [
        ("reproduced", "reproduced", ""),
        ("undecided", "undecided", ""),
        ("reproduced", "not reproduced", "opposite"),
        ("not reproduced", "reproduced", "opposite"),
        ("no difference", "reproduced", "decided otherwise"),
        ("no difference", "undecided", "decided in A only"),
        ("not testable here", "reproduced", "decided in B only"),
        ("not testable here", "undecided", "other"),
    ],
)
def test_a_change_is_named(a: Word, b: Word, change: str) -> None:
    assert Pair(verdict(spread(1), a), verdict(spread(1), b), None).change == change


def test_only_claims_that_both_ran_are_compared(one_line: Message) -> None:
    some = {"one": verdict(spread(9)), "two": verdict(None), "three": verdict(spread(9))}
    other = {"three": verdict(spread(9)), "two": verdict(spread(9)), "four": verdict(spread(9))}
    assert [one.a for one in pairs(some, other)] == [some["three"]]
    assert "no claim" in one_line(lambda: pairs({"two": some["two"]}, other))


@pytest.mark.parametrize("mean", [0.0, 2.0, 5.0, -30.0])
def test_the_predicted_share_is_that_of_the_power_of_the_test(
    mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undecided twice, decided for twice, or against twice, by the noncentral t distribution."""
    monkeypatch.setattr(robustness, "DRAWS", draws := 20_000)
    same = drawn(verdict(spread(mean)))
    above, below = (rules.power(10, side * mean / np.sqrt(10)) for side in (1, -1))
    expected = above**2 + below**2 + (1 - above - below) ** 2
    assert same is not None and len(same) == draws
    assert abs(same.mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws)


def test_the_prediction_knows_the_margin_and_what_is_strict() -> None:
    tiny, exact = Interval(0.0, -0.02, 0.02, 10), Interval(0.0, 0.0, 0.0, 10)
    beats, ties = ({"at_least": None, "above": 0.0}, {"at_least": 0.0, "above": None})
    for found, changes, same in ((tiny, beats, 0.951), (exact, ties, 1.0), (tiny, ties, 0.905)):
        drawings = drawn(verdict(found, "undecided", **changes))
        assert drawings is not None and abs(drawings.mean() - same) < 0.03
    all_but_one = share([True] * 19 + [False])  # at 20 of 20 the interval ends at the bound
    strict = drawn(verdict(all_but_one, unit="seeds", at_least=None, above=100.0))
    assert strict is not None and bool(strict.all())


def test_the_prediction_for_a_share_is_binomial() -> None:
    found = share([True] * 17 + [False] * 3)
    same = drawn(verdict(found, unit="seeds", at_least=60.0))
    words = [rules.decide(share([True] * k + [False] * (20 - k)), 60.0) for k in range(21)]
    chances = binom.pmf(range(21), 20, 17 / 20)
    each = [sum(p for p, w in zip(chances, words, strict=True) if w == word) for word in set(words)]
    assert same is not None and abs(same.mean() - sum(p**2 for p in each)) < 0.06


def test_the_same_numbers_predict_the_same_and_counts_predict_nothing() -> None:
    one, two = (drawn(verdict(spread(2.0))) for _ in range(2))
    assert one is not None and two is not None and bool((one == two).all())
    assert drawn(verdict(count([3.0, 3.0]), unit="rounds")) is None
    assert drawn(verdict(interval([1.0]))) is None
    assert drawn(verdict(spread(2.0), "not testable here")) is None


def test_runs_of_one_effect_agree_about_as_often_as_predicted() -> None:
    """The rule against the whole way: numbers per seed, intervals, 250 verdicts, twice."""
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 1.5, 250)
    arms = {"dense": as_reference({0: 90.0, 1: 91.0}, 10.0)}

    def run(effect: float, number: int) -> Verdict:
        values = interval((effect + generator.normal(0, 1, 10)).tolist())
        found = {"mean": values.mean, "low": values.low, "high": values.high, "n": 10}
        claim = verdict(values, id=f"c{number}").claim
        return judge(claim, {"a": found, "references": {"dense": arms}})

    a, b = (
        {f"c{i}": run(effect, i) for i, effect in enumerate(effects.tolist())} for _ in range(2)
    )
    found = pairs(a, b)
    predicted = np.mean([one.same.mean() for one in found if one.same is not None])
    observed = np.mean([one.change == "" for one in found])
    assert 0.6 < observed < 0.95 and abs(predicted - observed) < 0.06
    assert not any(one.change == "opposite" for one in found)


def test_the_page_says_what_turned_and_what_stayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = {"x": verdict(spread(30)), "y": verdict(spread(30), id="y"),
         "z": verdict(count([1.0, 1.0]), id="z", unit="rounds")}  # fmt: skip
    b = a | {"x": verdict(spread(-30))}
    found = pairs(a, b)
    text = page("here", "there", found)
    assert "A is `here`, B is `there`. Of the 3 claims that A decides, B decides 1" in text
    assert opposites(found).endswith("1 the other way: x.")
    assert opposites(found[1:]).endswith("0 the other way.")
    assert stayed(found).startswith("2 of 3 (67 %) of the claims that both runs have")
    assert "1 of 2 (50 %) of those" in text and "predict 2 of 2 (100 %); 2 to 2 in" in text
    line = next(row for row in text.splitlines() if row.startswith("| x |"))
    assert "| reproduced |" in line and "| not reproduced | opposite | 100 |" in line
    monkeypatch.setattr(robustness, "read", lambda name, study: {"here": a, "there": b}[name])
    commands.robustness("here", "there", "desk", tmp_path / "made.md")
    assert (tmp_path / "made.md").read_text() == text
    assert opposites(found) in capsys.readouterr().out


def test_a_run_is_a_folder_or_the_study_of_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message
) -> None:
    one, two = verdict(spread(1)), verdict(spread(1), id="y")
    (tmp_path / "desk").mkdir()
    some = {"colt": [one], "prac": [two]}
    monkeypatch.setattr(robustness.verdicts, "of_study", lambda folder: some)
    assert robustness.read("desk", "any", tmp_path) == {"x": one, "y": two}
    claims = {"desk/colt": {"x": one}, "desk/prac": {"y": two}, "desk2/colt": {"x": two}}
    snapshot = Snapshot("v1", "abc", {}, {}, claims, {}, unjudged=("desk/dlth: no number",))
    monkeypatch.setattr(robustness.snapshots, "opened", lambda *_: nullcontext(snapshot))
    assert robustness.read("v1", "desk", tmp_path) == {"x": one, "y": two}
    message = one_line(lambda: robustness.read("v1", "gone", tmp_path))
    assert message == "v1: no verdicts on the study 'gone' (desk/dlth: no number)"
