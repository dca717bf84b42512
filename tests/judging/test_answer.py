"""The answer follows from the verdicts by a rule; sentences and notes say what it rests on."""

from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch

from ticketlab.judging import answer
from ticketlab.judging.given import Given
from ticketlab.judging.run import parameters
from ticketlab.pruning.masks import Mask
from ticketlab.study.claims import Verdict
from ticketlab.study.controls import control
from ticketlab.study.rules import Word
from ticketlab.study.stats import as_metric, as_reference

WORDS: tuple[Word, ...] = get_args(Word)


def verdicts(words: Mapping[str, Word], others: Word = "reproduced") -> list[Verdict]:
    return [Verdict(claim, words.get(claim.id, others), None) for claim in answer.claims()]


@pytest.mark.parametrize(
    ("dense", "random", "expected"),
    [
        ("reproduced", "reproduced", "a winning ticket"),
        ("not reproduced", "reproduced", "not a winning ticket"),
        ("reproduced", "not reproduced", "not a winning ticket"),
        ("reproduced", "no difference", "not a winning ticket"),
        ("not reproduced", "not testable here", "not a winning ticket"),
        ("reproduced", "not testable here", "not testable here"),
        ("undecided", "not testable here", "not testable here"),
        ("not run", "reproduced", "not testable here"),
        ("undecided", "reproduced", "undecided"),
        ("undecided", "not reproduced", "not a winning ticket"),
    ],
)
def test_two_claims_decide(dense: Word, random: Word, expected: str) -> None:
    words: dict[str, Word] = {"judge-dense": dense, "judge-random": random}
    assert {answer.answer(verdicts(words, other)) for other in WORDS} == {expected}


def test_only_two_claims_that_hold_make_a_winning_ticket() -> None:
    won = [
        (one, two)
        for one in WORDS
        for two in WORDS
        if answer.answer(verdicts({"judge-dense": one, "judge-random": two})) == "a winning ticket"
    ]
    assert won == [("reproduced", "reproduced")]


# --- from numbers


def around(mean: float, seeds: int = 10) -> dict[int, float]:
    return {seed: mean + 0.02 * (-1) ** seed for seed in range(seeds)}


def metrics(
    dense: float, random: float, seeds: int = 10, start: float = 10.0, beats: float = 3.0
) -> dict[str, Any]:
    """Numbers of a judgement with these differences of the given mask to dense and random."""
    others = ("imp", "shuffled", "reinit", "random_long")
    values = {"dense": dense, "random": random} | dict.fromkeys(others, 1.0)
    found = {f"given_minus_{a}": as_metric(around(v, seeds)) for a, v in values.items()}
    return {
        "references": {"dense": {"the dense net": as_reference(around(80, seeds), 10.0, 1000)}},
        "controls": {
            "bed": {
                "trained": control("It learns.", around(99, seeds), at_least=80),
                "imp_beats_random": control("IMP wins.", around(beats, seeds), above=0),
                "no_head_start": control("No.", around(10 - start, seeds), at_least=-20),
            }
        },
        "chance": 10.0,
        "accuracy": {"given": as_metric(around(80, seeds))},
        "start": {"given": as_metric(around(start, seeds)), "imp": as_metric(around(10, seeds))},
        "differences": found,
    }


GIVEN = Given("m.pt", Mask({"a": torch.tensor([True, False])}), None, "a mapping of masks", {})


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (metrics(-0.5, 3.0), "a winning ticket"),
        (metrics(-1.5, 3.0), "not a winning ticket"),
        (metrics(-0.5, 0.0), "not a winning ticket"),
        (metrics(-1.0, 3.0), "undecided"),
        (metrics(-0.5, 3.0, beats=-1.0), "not testable here"),
        (metrics(-0.5, 3.0, start=70.0), "not testable here"),
        (metrics(-0.5, 3.0, seeds=1), "undecided"),
    ],
)
def test_the_answer_from_numbers(numbers: dict[str, Any], expected: str) -> None:
    found = answer.verdicts(numbers)
    assert answer.answer(found) == expected
    text = answer.sentence(found, GIVEN, parameters())
    assert text.startswith(("m.pt (50 % sparsity", "Whether m.pt (50 % sparsity"))
    assert text.count(".") == 2 and answer.SENTENCES[answer.answer(found)][-12:] == text[-12:]


def test_reasons_begin_with_what_decides_and_leave_out_what_was_not_judged() -> None:
    numbers = metrics(-0.5, 3.0)
    numbers["differences"]["given_minus_reinit"] = None
    said = answer.reasons(answer.verdicts(numbers))
    assert "the dense net" in said[0] and "random mask of equal sparsity" in said[1]
    assert len(said) == 5 and not any("fresh weights" in one for one in said)


def test_notes_say_what_the_weights_are_and_how_many_seeds_were_planned() -> None:
    alone = answer.notes(GIVEN, metrics(0.0, 1.0))
    assert len(alone) == 1 and "a mask alone, not a ticket" in alone[0]
    few = answer.notes(GIVEN, metrics(0.0, 1.0, seeds=3))
    assert few[1] == "Verdicts are planned for 10 seeds; here are 3."
    weights = {"a": torch.tensor([1.0, 0.0])}
    ticket = Given("m.pt", GIVEN.mask, weights, "a state_dict", {})
    trained = answer.notes(ticket, metrics(0.0, 1.0, start=70.0))
    assert (
        "only the weights that the mask keeps" in trained[0] and "they were trained" in trained[1]
    )
