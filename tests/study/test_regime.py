"""What a study's parameters are called in words."""

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from ticketlab.pipeline.params import load_paper
from ticketlab.study.regime import in_words, rewinding
from ticketlab.study.verdicts import code_cells
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


LEFT_OUT = re.compile(r"\*This study leaves out [^`]+ \(`([^`]+)`\); `([^`]+)` runs this\.\*")


def noted(page: Path) -> list[tuple[str, str]]:
    """Parameter and study of every note in an executed notebook about what is left out."""
    outputs = [one["data"] for cell in code_cells(page) for one in cell["outputs"] if "data" in one]
    texts = ["".join(data.get("text/markdown", "")) for data in outputs]
    return [pair for text in texts for pair in LEFT_OUT.findall(text)]


def values(study: str, paper: str, key: str) -> set[str]:
    """A parameter of a study's paper by its dotted key; DLTH's in each of its cases that has it."""
    params: Any = load_paper(study, paper)
    names = key.split(".")
    those = [one for one in getattr(params, "cases", [params]) if hasattr(one, names[0])]
    return {repr(reduce(getattr, names, one)) for one in those}


def test_what_a_page_leaves_out_another_study_runs(committed: Path) -> None:
    pages = sorted(committed.glob("results/*/*/*.ipynb"))
    found = [(page, *pair) for page in pages for pair in noted(page)]
    assert len(found) > 20
    for page, key, other in found:
        study, paper = page.parts[-3:-1]
        assert values(other, paper, key) - values(study, paper, key) - {"None"}, (page, key)
