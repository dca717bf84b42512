"""README's lines on what was found: which claims, in which words, between which marks."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import Message, passed

from ticketlab.pipeline.params import PAPERS
from ticketlab.reader import findings, front
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict, load_claims
from ticketlab.study.stats import as_count, as_metric, as_reference, as_share, interval

PAGE = "# Title\n\ntext\n<!-- findings: by hand -->\n- old\n<!-- /findings -->\nrest\n"
EVERY = load_claims()
FRONT = {paper: [c for c in EVERY if c.paper == paper and c.front] for paper in PAPERS}


def made(study: Path, paper: str, number: Any, learned: bool = True) -> Path:
    """A study in which every claim of a paper has the number of its unit, or was not run."""
    claims = [claim for claim in EVERY if claim.paper == paper]
    dense = as_reference({0: 80.0, 1: 81.0} if learned else {0: 10.0, 1: 10.0}, 10.0)
    metrics: dict[str, Any] = {"controls": passed(claims)}
    metrics["references"] = {one.reference: {"the dense net": dense} for one in claims}
    for one in claims:
        *keys, last = one.metric.split(".")
        place = metrics
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = number.get(one.unit, number["points"])
    (study / paper).mkdir(parents=True)
    (study / paper / "metrics.json").write_text(json.dumps(metrics))
    return study


NUMBERS = {
    "points": as_metric({0: -4.0, 1: -4.1, 2: -4.2}),
    "rounds": as_count({0: 6, 1: 6, 2: 6}),
    "seeds": as_share(dict.fromkeys(range(20), True)),
    "cost": as_metric({0: 90.0, 1: 90.2, 2: 90.4}),
}


def test_a_line_has_claim_verdict_and_number(tmp_path: Path) -> None:
    text = front.block("desk", made(tmp_path / "desk", "colt", NUMBERS))
    assert text.startswith("- **[COLT](results/desk/colt/colt.ipynb)**. As accurate as IMP at ")
    page = "results/desk/colt/colt.ipynb"
    imp = "COLT minus IMP is -4.10 points [-4.35, -3.85]"
    assert f": [*not reproduced*]({page}) ({imp}); fewer rounds" in text
    assert f": [*reproduced*]({page}) (it takes 6 rounds fewer than IMP in every seed); " in text
    assert "\n`desk` has 18 claims: " in text
    assert " By tier: 4 headline claims (1 reproduced, " in text
    assert "ranging" not in text  # these metrics have no levels


def test_shares_are_counted_and_costs_are_percent(tmp_path: Path) -> None:
    made(tmp_path / "desk", "plant_n_seek", NUMBERS)
    text = front.block("desk", made(tmp_path / "desk", "prac", NUMBERS))
    assert "(20 of 20 seeds [83, 100] %)" in text
    assert "(it saves 90.20 % [89.70, 90.70])" in text


def test_a_mean_has_the_range_of_its_levels(tmp_path: Path) -> None:
    path = made(tmp_path / "desk", "colt", NUMBERS) / "colt" / "metrics.json"
    metrics = json.loads(path.read_text())
    ends = {f"at_{k}": as_metric({0: m, 1: m}) for k, m in ((80, -3.1), (95, -5.0), (90, -4.2))}
    metrics["differences"]["colt_minus_imp"] |= ends
    path.write_text(json.dumps(metrics))
    text = front.block("desk", path.parent.parent)
    assert "is -4.10 points [-4.35, -3.85], ranging from -5.00 to -3.10); fewer rounds" in text
    assert text.count("ranging") == 1


def test_the_tiers_add_up(tmp_path: Path) -> None:
    found = verdicts.of_study(made(tmp_path / "desk", "colt", NUMBERS))["colt"]
    numbers = [int(part.split()[0]) for part in front.by_tier(found)[9:].split("; ")]
    assert sum(numbers) == len(found) and set(chain(*front.TIERS.values())) == {
        one.claim.tier for one in found
    }


def test_a_line_says_why_nothing_is_testable(tmp_path: Path) -> None:
    text = front.block("desk", made(tmp_path / "desk", "colt", NUMBERS, learned=False))
    why = "(the dense net is not above chance, 10.00 [10.00, 10.00] (n = 2), chance is 10)"
    assert text.count(why) == len(FRONT["colt"])


def test_what_was_not_run_has_no_number(tmp_path: Path) -> None:
    text = front.block("desk", made(tmp_path / "desk", "colt", {"points": None}))
    assert text.count("[*not run*](results/desk/colt/colt.ipynb)") == len(FRONT["colt"])
    assert "points" not in text


def test_findings_go_between_their_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    studies = {name: made(tmp_path / name, "colt", NUMBERS) for name in ("mini", "desk")}
    made(tmp_path / "mini", "prac", NUMBERS)
    page = front.pages(lambda _: PAGE, studies)[front.README]
    head, rest = PAGE.split("- old\n")
    assert page.startswith(f"{head}- **[COLT](results/mini/") and page.endswith(rest)
    again = front.pages(lambda _: page, studies)
    assert again == {front.README: page}  # putting it in twice is putting it in once
    starts = [line[:8] for line in page.splitlines() if line.startswith("- ")]
    assert starts == ["- **[COL", "- **[PrA", "- **[COL"]
    assert page.count("By tier: ") == 1  # of the first study


def test_a_page_without_marks_or_studies_without_metrics_are_one_line(
    tmp_path: Path, one_line: Message
) -> None:
    studies = {"desk": made(tmp_path / "desk", "colt", NUMBERS)}
    said = one_line(lambda: front.pages(lambda _: "# no marks\n", studies))
    assert said.startswith("README.md: no ") and "marks" in said
    assert "dvc repro" in one_line(lambda: front.pages(lambda _: PAGE, {}))


def test_a_study_with_a_page_of_its_own_has_one_line_in_readme(tmp_path: Path) -> None:
    studies = {name: made(tmp_path / name, "colt", NUMBERS) for name in ("desk", "cifar10_small")}
    texts = front.pages(lambda _: PAGE, studies)
    assert set(texts) == {front.README, *front.PAGES.values()}
    readme, page = texts.values()
    assert "\n[`cifar10_small`](docs/explanation/cifar10.md) has 8 claims: 2 reproduced, " in readme
    assert readme.count("- **[COLT]") == 1 and "results/cifar10_small" not in readme
    assert "- **COLT**. As accurate as IMP at equal sparsity: *not reproduced* (COLT " in page
    assert "By tier: " in page and "](" not in page


def test_a_small_difference_of_the_opposite_sign_is_named() -> None:
    beats = next(one for one in EVERY if one.id == "prac-S7-random")
    for values, said in (([-0.4, -0.2] * 5, "no difference, slightly worse"),
                         ([-0.4, 0.4] * 5, "no difference")):  # fmt: skip
        assert front.said(Verdict(beats, "no difference", interval(values))) == said


@pytest.mark.parametrize("paper", sorted(findings.PAPERS))
def test_the_claims_of_a_line_are_fixed_before_their_numbers(paper: str) -> None:
    """Headlines and what the abstract has; two to four of them in any study."""
    for study in {study for one in FRONT[paper] for study in one.studies}:
        assert 2 <= sum(study in one.studies for one in FRONT[paper]) <= 4, study
    assert all(one.tier == "headline" or one.abstract for one in FRONT[paper])
    assert [one.front for one in FRONT[paper] if str(one.front).endswith(".")] == []


def test_every_paper_with_headlines_has_one_in_its_line() -> None:
    tiers = {paper: {one.tier for one in EVERY if one.paper == paper} for paper in PAPERS}
    lines = {paper: {one.tier for one in FRONT[paper]} for paper in PAPERS}
    assert [p for p in PAPERS if "headline" in tiers[p] and "headline" not in lines[p]] == []
