"""The verdicts of a study in one file, results/STUDY/claims.json, and the tables made of it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.claims import COLOURS, Claim, Verdict, as_interval, judge, load_claims
from ticketlab.files import read_json, write_json
from ticketlab.spec import ROOT, InputError

FILE = "claims.json"
RESULTS = ROOT / "results"

# ---------------------------------------------------------------- the file of a study


def collect(study: Path, papers: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Every claim on the papers that have metrics in the folder `study`, by paper and id.

    Of all of them, or of those named.

    Each with its verdict, the evidence and bound behind it, the paper's own value, the studies that
    can check it, and the figure and cell of the executed notebook that show it.
    """
    found, every = {}, load_claims()
    for path in sorted(study.glob("*/metrics.json")):
        folder, metrics = path.parent, read_json(path)
        if papers is not None and folder.name not in papers:
            continue
        if claims := [claim for claim in every if claim.paper == folder.name]:
            cells = code_cells(folder / f"{folder.name}.ipynb")
            found[folder.name] = {c.id: entry(judge(c, metrics), folder, cells) for c in claims}
    if not found:
        raise InputError(f"study: no metrics in {study}, run `dvc repro` first")
    return found


def write(study: Path) -> Path:
    """Put the verdicts of a study into its claims.json, a metric for `dvc metrics diff`."""
    write_json(study / FILE, collect(study))
    return study / FILE


def entry(verdict: Verdict, folder: Path, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A verdict as claims.json has it; `folder` holds the paper's pages, `cells` are its code."""
    claim = verdict.claim
    figure = next(iter(sorted(folder.glob(f"figures/{claim.figure}.*"))), None)
    return {
        "verdict": verdict.word,
        "evidence": verdict.evidence and asdict(verdict.evidence),
        "at_least": claim.at_least,
        "paper_value": claim.paper_value,
        "studies": list(claim.studies),
        "figure": figure and figure.relative_to(folder).as_posix(),
        "cell": shown_in(claim, cells),
    }


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

COLUMNS = ("claim", "statement", "holds if", "ours", "verdict")


def table(study: Path) -> pd.DataFrame:
    """The verdicts of a study from its claims.json, as `as_table` has them."""
    if not (study / FILE).exists():
        how = f"`dvc repro` or `ticketlab claims {study.name} --collect`"
        raise InputError(f"study: no verdicts in {study}, run {how} first")
    return as_table(read_json(study / FILE), study)


def as_table(recorded: Mapping[str, Mapping[str, Any]], study: Path) -> pd.DataFrame:
    """Collected verdicts with COLUMNS and `shown`, a path below `study`; the index is the paper."""
    rows, papers = [], []
    for claim in load_claims():
        if claim.paper not in recorded:
            continue
        if claim.id not in recorded[claim.paper]:
            again = f"run `ticketlab claims {study.name} --collect`"
            raise InputError(f"claim {claim.id}: not in {study / FILE}, {again}")
        found = recorded[claim.paper][claim.id]
        ours, bound = as_interval(found["evidence"]), f">= {found['at_least']:g}"
        shown = f"{claim.paper}/{found['figure'] or claim.paper + '.ipynb'}"
        rows.append((claim.id, claim.statement, bound, str(ours or "-"), found["verdict"], shown))
        papers.append(claim.paper)
    return pd.DataFrame(
        rows, index=pd.Index(papers, name="paper"), columns=[*COLUMNS, "shown"]
    ).sort_index(kind="stable")


def counts(found: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each paper got which verdict: one row a paper, one column a verdict."""
    return pd.DataFrame(
        {word: (found.verdict == word).groupby(level="paper").sum() for word in COLOURS}
    )


def tables(first: Sequence[str], results: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """The verdicts of every study that has some: those of `first`, then the others by name."""
    have = sorted(path.parent.name for path in results.glob(f"*/{FILE}"))
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
        raise InputError(f"page: no study has a {FILE}, run `dvc repro` first")
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
    words = {
        study: {
            row.claim: f"[**{row.verdict}**](results/{study}/{row.shown})"
            for row in rows.itertuples()
        }
        for study, rows in has.items()
    }
    rows = [["claim", "statement", "holds if", f"ours ({main})", *has]]
    for row in has[main][list(COLUMNS[:4])].values.tolist():
        rows.append([*row, *(words[study].get(row[0], "-") for study in has)])
    return rows


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first row is its heading."""
    cells = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in cells]
    return "".join(f"| {line} |\n" for line in lines)
