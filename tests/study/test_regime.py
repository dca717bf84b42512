"""What a study's parameters are called in words."""

import pytest

from ticketlab.study.regime import in_words, rewinding
from ticketlab.training.recipe import Step


@pytest.mark.parametrize(
    ("step", "words"),
    [("1ep", "1 epoch"), ("2ep", "2 epochs"), ("500it", "500 iterations"), ("40%", "40 %")],
)
def test_a_step_is_spelled_out(step: str, words: str) -> None:
    assert in_words(Step.parse(step)) == words


def test_rewinding_to_the_start_is_named_as_such() -> None:
    assert rewinding(Step.parse("0ep")) == "initial weights"
    assert rewinding(Step.parse("1ep")) == "the weights after 1 epoch of dense training"
