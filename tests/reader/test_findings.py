"""Findings in words: every claim has a sentence for every verdict, abstracts are of 3 to 5."""

import json
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ticketlab.pipeline import params
from ticketlab.pipeline.notebook import execute
from ticketlab.reader import findings
from ticketlab.reader.findings import WORDINGS, abstract, clause, misfit, sentence
from ticketlab.spec import ROOT
from ticketlab.study import verdicts
from ticketlab.study.claims import Claim, Verdict, load_claims
from ticketlab.study.rules import Tier, Word
from ticketlab.study.stats import Evidence, Interval, count, interval, share

CELLS = [
    new_code_cell("seeds = [0]", metadata={"tags": ["parameters"]}),
    new_code_cell("from ticketlab.reader import findings\nabstract = findings.placeholder()"),
    new_code_cell("abstract.update(findings.in_words([]))"),
]


def claim(**changes: Any) -> Claim:
    values = {"id": "colt-X", "paper": "colt", "tier": "headline",
              "statement": "The tickets beat random ones.", "source": "s", "metric": "a.b",
              "above": 0.0, "reference": "dense", "studies": ["desk"]}  # fmt: skip
    return Claim.model_validate({k: v for k, v in (values | changes).items() if v is not None})


def verdict(word: Word, found: Evidence | None, **changes: Any) -> Verdict:
    own = {key: changes.pop(key) for key in ("q", "reason") if key in changes}
    return Verdict(claim(**changes), word, found, **own)


TEN = interval([2.0, 3.0] * 5)


def test_every_word_and_tier_has_a_wording() -> None:
    assert set(WORDINGS) == set(get_args(Word))
    for frames in WORDINGS.values():
        assert set(frames) == set(get_args(Tier)) and len(set(frames.values())) == len(frames)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            verdict("reproduced", TEN, q=0.0312),
            "As claimed, the tickets beat random ones: "
            "the difference is 2.50 points [2.12, 2.88] (10 seeds, q = .032).",
        ),
        (
            verdict("not reproduced", interval([-3.0, -3.1, -3.2]), q=0.0712, tier="paper"),
            "The published statement that the tickets beat random ones was not reproduced: "
            "the difference is -3.10 points [-3.35, -2.85] "
            "(3 of 10 planned seeds, q = .072, above 0.05).",
        ),
        (
            verdict("no difference", interval([-0.1, 0.1] * 5), tier="control"),
            "Our control does not show that the tickets beat random ones; any difference is within "
            "1 point: the difference is 0.00 points [-0.08, 0.08] (10 seeds).",
        ),
        (
            verdict("no difference", interval([-0.4, -0.2] * 5), tier="control"),
            "Our control does not show that the tickets beat random ones; the difference has the "
            "opposite sign and is within 1 point: the difference is -0.30 points [-0.38, -0.22] "
            "(10 seeds).",
        ),
        (
            verdict("undecided", interval([-1.0, 2.0] * 5), tier="finding", q=0.4),
            "We could not decide whether the tickets beat random ones: the difference is "
            "0.50 points [-0.63, 1.63] (10 seeds); about 81 seeds would decide it.",
        ),
        (
            verdict("not testable here", TEN, reason="dense is not above chance"),
            "The headline claim that the tickets beat random ones cannot be tested here: "
            "dense is not above chance.",
        ),
        (
            verdict("not run", None, tier="control"),
            "Our control of whether the tickets beat random ones was not run in this study.",
        ),
        (
            verdict("reproduced", interval([21.0, 22.0] * 5), at_least=20.0, above=None),
            "As claimed, the tickets beat random ones: "
            "we measured 21.50 points [21.12, 21.88] (10 seeds).",
        ),
        (
            verdict("reproduced", interval([2.0, 3.0] * 6), number="COLT minus IMP is {} points"),
            "As claimed, the tickets beat random ones: COLT minus IMP is 2.50 points [2.17, 2.83] "
            "(12 seeds, extended from 10 planned ones).",
        ),
        (
            verdict("reproduced", share([True] * 19 + [False]), unit="seeds", above=50.0),
            "As claimed, the tickets beat random ones: "
            "this holds in 19 of 20 seeds [75, 100] %.",
        ),
        (
            verdict("reproduced", count([1.0] * 10), unit="rounds", at_least=1.0, above=None),
            "As claimed, the tickets beat random ones: "
            "we measured 1 round in every seed (10 seeds).",
        ),
        (
            verdict("undecided", count([0.0, 2.0]), unit="rounds", at_least=1.0, above=None),
            "The headline claim that the tickets beat random ones is undecided: "
            "we measured 1 round on average, from 0 to 2 (2 of 10 planned seeds); "
            "seeds lie on both sides of the bound.",
        ),
        (
            verdict("undecided", interval([2.0])),
            "The headline claim that the tickets beat random ones is undecided: the difference is "
            "2.00 points (1 of 10 planned seeds); a single seed decides nothing.",
        ),
        (
            verdict("reproduced", TEN, number="they hold {} % of the data", unit="other"),
            "As claimed, the tickets beat random ones: "
            "they hold 2.50 % of the data [2.12, 2.88] (10 seeds).",
        ),
    ],
)  # fmt: skip
def test_a_sentence_says_claim_number_unit_interval_and_seeds(found: Verdict, says: str) -> None:
    assert sentence(found) == says


def test_a_mean_over_levels_shows_between_which_means_it_lies() -> None:
    one = replace(verdict("reproduced", TEN), parts=(2.9, 0.25, 4.004))
    assert sentence(one).endswith(
        "is 2.50 points [2.12, 2.88], ranging from 0.25 to 4.00 (10 seeds)."
    )
    assert findings.RANGES in str(findings.in_words([one]).data)
    assert findings.RANGES not in str(findings.in_words([verdict("reproduced", TEN)]).data)
    for parts in ((), (2.5,), (2.501, 2.499)):  # no mean, a single level, levels that are equal
        assert "ranging" not in sentence(replace(one, parts=parts))


def test_a_statement_that_begins_with_a_participle_stands_between_commas() -> None:
    statement = "Moved to other data, the tickets last."
    says = {"not run": "that, moved to", "undecided": "that, moved to",
            "reproduced": "As claimed, moved to"}  # fmt: skip
    for word, text in says.items():
        assert text in sentence(verdict(word, TEN, statement=statement))  # type: ignore[arg-type]


PAGE = (ROOT / "docs" / "explanation" / "verdicts.md").read_text()

EXAMPLES = {
    "not reproduced": verdict(
        "not reproduced", Interval(-3.95, -5.65, -2.25, 10), q=0.0019, at_least=-1.0, above=None,
        statement="COLT tickets are on a par with IMP tickets (within 1 point).",
        number="COLT minus IMP is {} points",
    ),
    "reproduced": verdict(
        "reproduced", Interval(86.1, 85.2, 87.0, 10), q=0.0001, at_least=80.0, above=None,
        statement="Over all rounds the search saves at least 80 % of IMP's iterations.",
        number="it saves {} %", unit="cost",
    ),
    "no difference": verdict(
        "no difference", Interval(0.1, -0.21, 0.41, 10), q=0.0038, tier="paper",
        statement="PrAC's sets are better than random sets of the same sizes.",
    ),
    "undecided": verdict(
        "undecided", Interval(0.4, -0.1, 0.9, 10), tier="control",
        statement="RST beats Scratch that sees as many images.",
        number="RST minus Scratch is {} points",
    ),
    "not testable here": verdict(
        "not testable here", Interval(0.4, -0.1, 0.9, 10), tier="finding",
        reason="IMP does not beat random pruning on this bed",
        statement="More segments make worse tickets.",
    ),
    "not run": verdict(
        "not run", None, tier="paper", statement="On ImageNet, COLT tickets are as good as IMP's."
    ),
}  # fmt: skip
"""One of each word, as docs/explanation/verdicts.md shows them."""


@pytest.mark.parametrize("word", get_args(Word))
def test_the_examples_of_the_page_are_what_the_code_says(word: Word) -> None:
    assert f"- {sentence(EXAMPLES[word])}\n" in PAGE


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    assert findings.wordings() in PAGE, "put what findings.wordings() returns there"


def test_names_keep_their_capital_and_a_clause_takes_the_place_of_the_statement() -> None:
    starts = {"Another net": "another net", "PrAC's sets": "PrAC's sets", "IMP": "IMP",
              "Circle is": "Circle is", "A COLT ticket": "a COLT ticket"}  # fmt: skip
    for text, says in starts.items():
        assert clause(claim(statement=f"{text}.")) == says
    assert clause(claim(clause="the sets are small")) == "the sets are small"


@pytest.mark.parametrize(
    "statement",
    [
        "the tickets beat random ones.",
        "The tickets beat random ones",
        "The tickets win. Random ones lose.",
        "The cause: random ones lose.",
        "One shot, Circle - the tickets win.",
        "Nor do the tickets win.",
        "There the tickets win.",
        "The tickets (all of them) win (by 1 point).",
        "The tickets win (by 1 point.",
    ],
)
def test_a_statement_that_fits_into_no_sentence_is_refused(statement: str) -> None:
    assert misfit(claim()) is None
    assert misfit(claim(statement=statement)) is not None
    assert misfit(claim(statement=statement, clause="the tickets win (by 1 point)")) is None


def test_an_abstract_has_headlines_then_controls_then_costs() -> None:
    def one(id: str, **changes: Any) -> Verdict:
        return verdict("not run", None, id=id, **changes)

    cost = one("cost", unit="cost", at_least=50.0, above=None)
    control = one("control", tier="control", abstract=True)
    found = [cost, control, one("left out", tier="paper"), one("headline")]
    assert [v.claim.id for v in verdicts.chosen(found)] == ["headline", "control", "cost"]
    assert abstract(found).count("tested") == 2 and abstract(found).count("was not run") == 1


EVERY = load_claims()
PAPERS = sorted({claim.paper for claim in EVERY})


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_has_a_sentence_for_every_verdict(paper: str) -> None:
    """Its statement, or its clause, fits after 'that' and 'whether'."""
    claims = [claim for claim in EVERY if claim.paper == paper]
    assert {claim.id: why for claim in claims if (why := misfit(claim))} == {}
    assert [one.id for one in claims if "minus {}" in (one.number or "")] == [], "has a sign itself"
    found = {"seeds": share([True] * 19 + [False]), "rounds": count([2.0, 3.0]),
             "epochs": count([2.0, 3.0])}  # fmt: skip
    for claim in claims:
        for word in get_args(Word):
            one = Verdict(claim, word, found.get(claim.unit, TEN), reason="this is why", q=0.01)
            text = sentence(one)
            assert re.fullmatch(r"[A-Z].*[^ .]\.( It was not run in this study\.)?", text), text
            assert not re.search(r"[{}]|  | [,;:]| \.(?!\d)|None", text), text


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(("study", "least"), [("desk", 3), ("desk_long", 1)])
def test_an_abstract_has_three_to_five_sentences(paper: str, study: str, least: int) -> None:
    """Of a study's ablations it may have fewer."""
    claims = [one for one in EVERY if one.paper == paper and study in one.studies]
    told = verdicts.chosen([Verdict(claim, "not run", None) for claim in claims])
    assert min(least, len(claims)) <= len(told) <= 5, "headlines, and claims with abstract: true"


def test_a_studys_page_has_a_summary_and_each_papers_abstract_with_q(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {"colt": [verdict("reproduced", TEN, q=0.01)], "prac": [verdict("not run", None)]}
    monkeypatch.setattr(findings.verdicts, "of_study", lambda study: some)
    monkeypatch.setattr(findings.verdicts, "table", lambda study: pd.DataFrame())
    monkeypatch.setattr(findings.verdicts, "survivors", lambda table: "1 of 2 stays")
    (tmp_path / "colt").mkdir()
    cells = [{"source": ["# COLT: tickets\n", "\n", "text"]}]
    (tmp_path / "colt" / "colt.ipynb").write_text(json.dumps({"cells": cells}))
    text = findings.page(tmp_path)
    assert "\n**All papers.** 2 claims: 1 reproduced, 1 not run. 1 of 2 stays.\n" in text
    assert "\n## [COLT: tickets](colt/colt.ipynb)\n\nAs claimed, " in text and "q = .010)" in text
    assert "\n## [prac](prac/prac.ipynb)\n\nThe headline claim that " in text


def test_the_pages_of_the_results_are_current(committed: Path) -> None:
    results = committed / "results"
    for study in verdicts.studies([], results):
        told = (results / study / findings.FILE).read_text()
        assert findings.page(results / study) == told, "run: ticketlab claims --write"


def test_every_page_has_an_abstract(committed: Path) -> None:
    """A study of ablations alone names the claims that stand for it, too."""
    results = committed / "results"
    for study in verdicts.studies([], results):
        for paper, some in verdicts.of_study(results / study).items():
            assert findings.abstract(some), f"{study}/{paper}: no claim has `abstract: true`"


def test_a_claim_was_run_in_the_studies_that_it_names(committed: Path) -> None:
    results = committed / "results"
    for study in verdicts.studies([], results):
        found = [one for some in verdicts.of_study(results / study).values() for one in some]
        assert [v.claim.id for v in found if v.word == "not run" and v.claim.studies] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_begins_with_its_abstract(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert cells[1].source == code[0] and code[0].endswith("abstract = findings.placeholder()")
    judged = next(i for i, text in enumerate(code) if "styled(verdicts)" in text)
    assert code[judged + 1] == "abstract.update(findings.in_words(verdicts))"


def test_the_abstract_is_where_it_was_announced(tmp_path: Path) -> None:
    """The cell at the top shows what the last one says; that one shows nothing."""
    source = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=CELLS), source)
    execute(source, tmp_path / "b.ipynb", {"seeds": [1]})
    page = nbformat.read(tmp_path / "b.ipynb", as_version=4)
    top, last = (page.cells[i].outputs for i in (-2, -1))
    assert len(top) == 1 and last == []
    assert re.match(r"\*\*What was found\.\*\*", top[0].data["text/markdown"])
    assert findings.LEGEND in top[0].data["text/markdown"]


@pytest.mark.parametrize(
    "page",
    sorted(ROOT.glob("results/*/*/*.ipynb")),
    ids=lambda p: f"{p.parent.parent.name}-{p.stem}",
)
def test_every_figure_of_a_page_is_shown_on_it(page: Path) -> None:
    """A figure that is saved inside a block is written, but shown only if the cell displays it."""
    shown = sum(
        "image/png" in output.get("data", {})
        for cell in nbformat.read(page, as_version=4).cells
        for output in cell.get("outputs", ())
    )
    assert shown == len(list(page.parent.glob("figures/*.png")))


def test_no_claim_waits_for_a_control_that_its_study_does_not_run(committed: Path) -> None:
    folders = verdicts.studies(params.chosen_studies(), committed / "results")
    every = {name: verdicts.of_study(folder) for name, folder in folders.items()}
    missing = [
        (name, one.claim.id)
        for name, found in every.items()
        for one in chain.from_iterable(found.values())
        if re.fullmatch(r"control \S+ was not run", one.reason or "")
    ]
    assert len(every) >= 2 and missing == []
