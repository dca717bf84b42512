"""What README and guides say was found: one line per paper, computed from a study's verdicts.

A line has the claims with `front` in claims/PAPER.yaml. They were chosen, when results were known,
among the headlines and the claims of the paper's abstract, which were fixed before.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ticketlab.reader import findings
from ticketlab.spec import InputError
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict
from ticketlab.study.rules import Tier

MARKS = ("<!-- findings:", "<!-- /findings -->")

README = "README.md"
PAGES = {"cifar10_small": "docs/explanation/cifar10.md"}
"""The pages with the findings of some studies; README has those of all others."""

TIERS: dict[str, tuple[Tier, ...]] = {
    "headline claims": ("headline",),
    "other statements of the papers": ("paper",),
    "claims of ours": ("control", "finding"),
}

DIFFERENCE, SHARE = (
    words.partition("{}")[0] for words in (findings.DIFFERENCE, findings.NUMBERS["seeds"])
)
"""Beginnings that a line goes without."""


def pages(read: Callable[[str], str], studies: Mapping[str, Path]) -> dict[str, str]:
    """Return README, and the pages of studies that have one, with their findings between the marks.

    `read` returns the text of a page by its path in the project, `studies` has the folder of each
    study. README names the studies with a page of their own in one line each. InputError for a page
    without marks, or if there are no studies.
    """
    if not studies:
        raise InputError("page: no study has metrics, run `dvc repro` first")
    here = [name for name in studies if name not in PAGES]
    blocks = [block(name, studies[name], tiers=name == here[0]) for name in here]
    found = {PAGES[name]: block(name, studies[name], linked=False)
             for name in studies if name in PAGES}  # fmt: skip
    links = [f"[`{name}`]({PAGES[name]}) has {summary(studies[name])}.\n"
             for name in studies if name in PAGES]  # fmt: skip
    every = {README: "\n".join([*blocks, *links])} | found
    return {path: with_findings(read(path), text, path) for path, text in every.items()}


def with_findings(page: str, text: str, name: str) -> str:
    """Return a page with `text` between its marks; InputError names a page without marks."""
    if not all(mark in page for mark in MARKS):
        raise InputError(f"{name}: no {' ... '.join(MARKS)}, the findings need their marks")
    start = page.index("\n", page.index(MARKS[0])) + 1
    return page[:start] + text + page[page.index(MARKS[1]) :]


def block(study: str, folder: Path, *, tiers: bool = True, linked: bool = True) -> str:
    """The findings of one study as Markdown: a line per paper, then how many claims are decided.

    With `tiers` also how the claims of each tier came out. With `linked` its pages and figures are
    linked; pages of the site cannot link to files of the project.
    """
    found, table = verdicts.of_study(folder), verdicts.table(folder)
    shown = dict(zip(table.claim, table.shown, strict=True))
    links = {claim: f"results/{study}/{path}" for claim, path in shown.items()} if linked else {}
    papers = findings.in_order(found)
    names = {paper: findings.short(paper) for paper in papers}
    at = {
        one: f"[{name}](results/{study}/{one}/{one}.ipynb)" if linked else name
        for one, name in names.items()
    }
    lines = [
        f"- **{at[paper]}**. {line(found[paper], links)}."
        for paper in papers
        if chosen(found[paper])
    ]
    others = [
        f"{at[paper]} ({len(found[paper])} claims)" for paper in papers if not chosen(found[paper])
    ]
    if others:
        lines.append(f"- **Ablations and other settings**: {', '.join(others)}.")
    every = [verdict for some in found.values() for verdict in some]
    said = f"`{study}` has {findings.counted(every)}. {verdicts.survivors(table)}."
    if tiers:
        said += f" {by_tier(every)}."
    return "\n".join([*lines, "", said, ""])


def summary(folder: Path) -> str:
    """How many claims a study has, and how they came out: '18 claims: 3 reproduced, ...'."""
    return findings.counted([one for some in verdicts.of_study(folder).values() for one in some])


def by_tier(found: Sequence[Verdict]) -> str:
    """How the verdicts of each tier came out: 'By tier: headline 3 (2 reproduced, ...); ...'."""
    tiers = {name: [v for v in found if v.claim.tier in some] for name, some in TIERS.items()}
    parts = [f"{len(v)} {name} ({findings.by_word(v)})" for name, v in tiers.items() if v]
    return f"By tier: {'; '.join(parts)}"


def chosen(found: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that stand in a paper's line."""
    return [verdict for verdict in found if verdict.claim.front]


def line(found: Sequence[Verdict], links: Mapping[str, str]) -> str:
    """What came of a paper: each chosen claim in a few words, its verdict and its number.

    `links` has the figure or page behind each claim by its id, for those that are linked.
    """
    text = "; ".join(
        f"{one.claim.front}: {_linked(f'*{said(one)}*', links.get(one.claim.id))}{_number(one)}"
        for one in chosen(found)
    )
    return text[:1].upper() + text[1:]


def _linked(text: str, target: str | None) -> str:
    return text if target is None else f"[{text}]({target})"


def said(verdict: Verdict) -> str:
    """The verdict's word; a small difference of the opposite sign says so."""
    if not verdict.is_opposite:
        return verdict.word
    sign = "slightly worse" if verdict.claim.unit == "points" else "of the opposite sign"
    return f"{verdict.word}, {sign}"


def _number(verdict: Verdict) -> str:
    """' (COLT minus IMP is -4.43 points [-4.69, -4.17])', or why there is no number."""
    if verdict.word == "not run" or verdict.evidence is None:
        return ""
    if verdict.word == "not testable here":
        return f" ({verdict.reason})"
    text = findings.measured(verdict, verdict.evidence)
    return f" ({text.removeprefix(DIFFERENCE).removeprefix(SHARE)})"
