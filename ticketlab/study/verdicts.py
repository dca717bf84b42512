"""The verdicts of a study, judged from its metrics whenever they are shown, and their tables."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.files import read_json
from ticketlab.spec import ROOT, InputError
from ticketlab.study.claims import (
    COLOURS,
    COLUMNS,
    Claim,
    Verdict,
    judge_all,
    load_claims,
    verdict_table,
)

RESULTS = ROOT / "results"
SMOKE = "smoke"
"""The study of a notebook that is run by itself; git and `make clean` drop its results."""

# ---------------------------------------------------------------- the verdicts of a study


def of_study(study: Path, papers: Collection[str] | None = None) -> dict[str, list[Verdict]]:
    """The verdicts on each paper that has metrics in the folder `study`; of those named, or all.

    InputError if there are none.
    """
    found: dict[str, list[Verdict]] = {}
    every = load_claims()
    for path in sorted(study.glob("*/metrics.json")):
        paper = path.parent.name
        claims = [claim for claim in every if claim.paper == paper]
        if claims and (papers is None or paper in papers):
            found[paper] = judge_all(claims, read_json(path))
    if not found:
        raise InputError(f"study: no metrics in {study}, run `dvc repro` first")
    return found


def code_cells(page: Path) -> list[Mapping[str, Any]]:
    """The code cells of an executed notebook that show something; none for one run in Jupyter."""
    cells = read_json(page)["cells"] if page.exists() else []
    return [cell for cell in cells if cell["cell_type"] == "code" and cell["outputs"]]


def shown_in(claim: Claim, cells: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the cell that shows a claim's number as a table, else of that with its figure."""
    tests = []
    if claim.table:
        tests.append(re.compile(re.escape(claim.table)))
    if claim.figure:
        tests.append(re.compile(rf'pages,\s*"{re.escape(claim.figure)}"'))
    for test in tests:
        for cell in cells:
            if test.search("".join(cell["source"])):
                return str(cell["id"])
    return None


# ---------------------------------------------------------------- the table of a study


def table(study: Path, papers: Collection[str] | None = None) -> pd.DataFrame:
    """The verdicts of a study as `verdict_table` has them, the index is the paper.

    And `shown`: the figure behind each, or the paper's page, as a path below `study`.
    """
    parts = []
    for paper, verdicts in of_study(study, papers).items():
        shown = [f"{paper}/{_figure(v.claim, study / paper) or f'{paper}.ipynb'}" for v in verdicts]
        index = pd.Index([paper] * len(verdicts), name="paper")
        parts.append(verdict_table(verdicts).assign(shown=shown).set_index(index))
    return pd.concat(parts)


def _figure(claim: Claim, folder: Path) -> str | None:
    """The file of the claim's figure below the folder of the paper's pages."""
    found = sorted(folder.glob(f"figures/{claim.figure}.*"))
    return found[0].relative_to(folder).as_posix() if found else None


def counts(found: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each paper got which verdict: one row a paper, one column a verdict."""
    return pd.DataFrame(
        {word: (found.verdict == word).groupby(level="paper").sum() for word in COLOURS}
    )


def tables(first: Sequence[str], results: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """The verdicts of every study that has some: those of `first`, then the others by name."""
    have = sorted({path.parent.parent.name for path in results.glob("*/*/metrics.json")} - {SMOKE})
    order = [name for name in first if name in have]
    return {name: table(results / name) for name in dict.fromkeys([*order, *have])}


# ---------------------------------------------------------------- Markdown

MARKS = ("<!-- claims:", "<!-- /claims -->")


def with_table(page: str, found: Mapping[str, pd.DataFrame]) -> str:
    """The page with the verdicts of all studies between its claims marks, in Markdown.

    First how many of each paper and study, then each paper with the first study's evidence.
    """
    if not all(mark in page for mark in MARKS):
        raise InputError(f"page: no {' ... '.join(MARKS)}, the table needs its marks")
    if not found:
        raise InputError("page: no study has metrics, run `dvc repro` first")
    start = page.index("\n", page.index(MARKS[0])) + 1
    parts = [_counts(found)]
    for paper in sorted({paper for each in found.values() for paper in each.index}):
        rows = _paper(paper, {n: each[each.index == paper] for n, each in found.items()})
        head = f"<summary>{paper}: all {len(rows) - 1} claims with their evidence</summary>"
        parts.append(f"<details>{head}\n\n{markdown(rows)}\n</details>\n")
    return page[:start] + "\n".join(parts) + page[page.index(MARKS[1]) :]


def _counts(found: Mapping[str, pd.DataFrame]) -> str:
    numbers = [counts(each).assign(study=study) for study, each in found.items()]
    whole = pd.concat(numbers).reset_index().sort_values("paper", kind="stable")
    columns = ["paper", "study", *COLOURS]
    return markdown([columns, *whole[columns].values.tolist()])


def _paper(paper: str, found: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    """The rows of one paper: a claim with the evidence of the first study that has the paper."""
    has = {study: rows for study, rows in found.items() if len(rows)}
    main = next(iter(has))
    words = {}
    for study, rows in has.items():
        parts = rows[["claim", "verdict", "reason", "shown"]].values.tolist()
        words[study] = {
            claim: f"[**{word}**](results/{study}/{shown})" + (f": {reason}" if reason else "")
            for claim, word, reason, shown in parts
        }
    found_rows = [["claim", "statement", "holds if", f"ours ({main})", *has]]
    for row in has[main][list(COLUMNS[:4])].values.tolist():
        found_rows.append([*row, *(words[study].get(row[0], "-") for study in has)])
    return found_rows


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first row is its heading."""
    cells = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in cells]
    return "".join(f"| {line} |\n" for line in lines)
