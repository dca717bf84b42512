"""Positive controls: when one passes, and what its failing does to the claims that need it."""

import json

import pytest
from conftest import Message

from ticketlab.spec import InputError
from ticketlab.study import controls
from ticketlab.study.claims import Claim, judge
from ticketlab.study.controls import control
from ticketlab.study.stats import as_count, as_metric, as_reference

METRICS = {
    "references": {"dense": {"the dense net": as_reference({0: 79.0, 1: 81.0}, 10.0)}},
    "a": {"b": as_metric({0: 5.0, 1: 5.2, 2: 4.8})},
}


def claim(*needs: str) -> Claim:
    return Claim(
        id="colt-X", paper="colt", tier="finding", statement="It holds.", source="abstract",
        metric="a.b", at_least=0.0, reference="dense", needs=needs, studies=("desk",),
    )  # fmt: skip


def bed(**entries: controls.Entry | None) -> dict[str, object]:
    """Metrics, as they come back from a file, with the controls of one bed."""
    return json.loads(json.dumps(METRICS | {"controls": {"main": entries}}))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("values", "passes"),
    [((4.0, 5.0, 6.0), True), ((0.1, 5.0, 6.0), False), ((-4.0, -5.0, -6.0), False)],
)
def test_a_control_passes_with_its_whole_interval(values: tuple[float, ...], passes: bool) -> None:
    metrics = bed(wins=control("IMP beats random", dict(enumerate(values)), above=0.0))
    (found,) = controls.all_of(metrics)
    assert found.passed == passes
    word = judge(claim("main.wins"), metrics).word
    assert word == ("reproduced" if passes else "not testable here")
    assert judge(claim(), metrics).word == "reproduced"  # it does not need the control


def test_the_verdict_names_the_control_its_number_and_its_bound() -> None:
    metrics = bed(trained=control("it learns", {0: 70.0, 1: 72.0}, at_least=80.0))
    reason = judge(claim("main.trained"), metrics).reason
    assert (
        reason == 'the positive control "it learns" (bed main) did not pass: '
        "71.00 [58.29, 83.71] (n = 2), needed >= 80"
    )


def test_flags_are_a_share_and_counts_a_range() -> None:
    metrics = bed(
        fires=control("early stop fires", dict.fromkeys(range(20), True), above=50.0),
        rounds=control("three rounds", as_count({0: 3, 1: 4}) or {}, at_least=3.0),
    )
    fires, rounds = controls.all_of(metrics)
    assert fires.ours == "20 of 20, 100 % [83, 100]" and fires.passed
    assert rounds.ours == "3.50, all from 3 to 4 (n = 2)" and rounds.passed


def test_a_control_that_was_not_run_leaves_its_claims_untestable() -> None:
    metrics = bed(wins=control("IMP beats random", {}, above=0.0))
    verdict = judge(claim("main.wins"), metrics)
    assert verdict.message == "not testable here: control main.wins was not run"
    assert list(controls.all_of(metrics)) == []


def test_a_control_of_every_bed_passes_if_it_does_on_each() -> None:
    """As the comparison needs it: the names of its beds are the study's."""
    passed = control("IMP beats random", {0: 9.0, 1: 8.0}, above=0.0)
    failed = control("IMP beats random", {0: 9.0, 1: -8.0}, above=0.0)
    for second, word in ((passed, "reproduced"), (failed, "not testable here")):
        metrics = bed(wins=passed)
        metrics["controls"] = {**metrics["controls"], "convnet": {"wins": second}}
        assert judge(claim("*.wins"), metrics).word == word
    assert "(bed convnet) did not pass" in (judge(claim("*.wins"), metrics).reason or "")


def test_a_single_seed_passes_no_control() -> None:
    metrics = bed(wins=control("IMP beats random", {0: 9.0}, above=0.0))
    assert judge(claim("main.wins"), metrics).word == "not testable here"


@pytest.mark.parametrize("need", ["main.other", "elsewhere.wins", "wins", "*.other"])
def test_a_control_that_does_not_exist_is_one_line(need: str, one_line: Message) -> None:
    metrics = bed(wins=control("IMP beats random", {0: 9.0, 1: 8.0}, above=0.0))
    said = one_line(lambda: judge(claim(need), metrics))
    named = need.replace("*", "main")
    assert said.startswith(f"claim colt-X: control {named!r} is not in the metrics")


def test_a_control_has_one_bound() -> None:
    for bounds in ({}, {"at_least": 1.0, "above": 0.0}):
        with pytest.raises(InputError, match="one of them is needed"):
            control("it learns", {0: 1.0}, **bounds)


def test_the_table_has_a_row_per_control() -> None:
    metrics = bed(
        trained=control("the dense net learns", {0: 90.0, 1: 91.0}, at_least=80.0),
        wins=control("IMP beats random", {0: 9.0, 1: -8.0}, above=0.0),
    )
    table = controls.table(metrics)
    assert table.columns.tolist() == list(controls.COLUMNS)
    assert table.passed.tolist() == ["yes", "no"] and table.needed.tolist() == [">= 80", "> 0"]
    assert "IMP beats random" in controls.styled(metrics).to_html()


def test_a_group_of_beds_has_controls_of_its_own(one_line: Message) -> None:
    """``*`` means the beds outside any group, so that a group's failing does not concern them."""
    passed = control("IMP beats random", {0: 9.0, 1: 8.0}, above=0.0)
    failed = control("IMP beats random", {0: 9.0, 1: -8.0}, above=0.0)
    metrics = bed(wins=passed)
    beds = {"own/colt": {"wins": passed}, "own/prac": {"wins": failed}, "other/x": {"wins": failed}}
    metrics["controls"] = {**metrics["controls"], **beds}
    assert judge(claim("*.wins"), metrics).word == "reproduced"
    assert "(bed own/prac) did not pass" in (judge(claim("own/*.wins"), metrics).reason or "")
    del metrics["controls"]["own/prac"]
    assert judge(claim("own/*.wins"), metrics).word == "reproduced"
    assert "'none/*.wins'" in one_line(lambda: judge(claim("none/*.wins"), metrics))
