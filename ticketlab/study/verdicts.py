"""A study's verdicts, judged from its metrics whenever they are shown, and their tables."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.files import read_json, write_json
from ticketlab.spec import ROOT, InputError
from ticketlab.study.claims import (
    CLAIMS,
    Claim,
    Verdict,
    judge_all,
    judged,
    load_claims,
    verdict_table,
    with_q,
)
from ticketlab.study.rules import COLOURS, COSTS, DECIDED, FALSE_SHARE, Unit

RESULTS = ROOT / "results"
SMOKE = "smoke"
"""The study of a notebook run outside a study; git and `make clean` discard its results."""

# ---------------------------------------------------------------- the verdicts of a study


def of_study(
    study: Path,
    papers: Collection[str] | None = None,
    claims: Path = CLAIMS,
    name: str | None = None,
) -> dict[str, list[Verdict]]:
    """Return the verdicts on each paper (all, or those named) with metrics in the folder `study`.

    `claims` is the folder of the claims. `name` is the study's if the folder has another one. q is
    computed over all verdicts. InputError if there are none.
    """
    found: dict[str, list[Verdict]] = {}
    every = load_claims(folder=claims)
    for path in sorted(study.glob("*/metrics.json")):
        paper = path.parent.name
        own = [claim for claim in every if claim.paper == paper]
        if own and (papers is None or paper in papers):
            found[paper] = judge_all(own, read_json(path), name or study.name)
    if not found:
        raise InputError(f"study: no metrics in {study}, run `dvc repro` first")
    corrected = iter(with_q([verdict for verdicts in found.values() for verdict in verdicts]))
    return {paper: [next(corrected) for _ in verdicts] for paper, verdicts in found.items()}


def chosen(found: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that stand for a paper, about five: headlines first, then what they cost."""
    some = [one for one in found if one.claim.tier == "headline" or one.claim.abstract]
    return sorted(some, key=lambda one: (one.claim.unit in COSTS, one.claim.tier != "headline"))


def code_cells(page: Path) -> list[Mapping[str, Any]]:
    """Return the code cells with outputs of an executed notebook; none for one run in Jupyter."""
    cells = read_json(page)["cells"] if page.exists() else []
    return [cell for cell in cells if cell["cell_type"] == "code" and cell["outputs"]]


def shown_in(claim: Claim, cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the id of the cell with a claim's number in a table, else with its figure."""
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


# ---------------------------------------------------------------- the summary of a paper

SUMMARY = "summary.json"
"""Beside a paper's metrics.json: the few numbers that `dvc metrics diff` compares."""

UNITS: dict[Unit, str] = {"cost": "percent", "seeds": "percent_of_seeds", "other": ""}
"""What ends a number's name; other units are named as they are."""

OMITTED = frozenset({"differences", "main", "mean"})
"""Parts of a metric's path that say nothing in a list of five numbers."""


def write_summary(paper: str, folder: Path) -> None:
    """Write the summary of a paper beside its metrics.json in `folder`, under the paper's name.

    The name tells the columns of `dvc exp show` apart. InputError for claims that the metrics
    cannot decide.
    """
    write_json(folder / SUMMARY, {paper: summary(judged(paper, folder / "metrics.json"))})


def summary(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Return the numbers of one paper by name; null for what was not measured."""
    words = [one.word for one in verdicts]
    counts: dict[str, float | None] = {
        "claims_decided": sum(word in DECIDED for word in words),
        "claims_reproduced": words.count("reproduced"),
    }
    numbers = {summary_name(one.claim): _mean(one) for one in chosen(verdicts)}
    return counts | numbers


def summary_name(claim: Claim) -> str:
    """Return 'prac_minus_imp_points' of the metric differences.prac_minus_imp.mean, in points."""
    parts = [part for part in claim.metric.split(".") if part not in OMITTED]
    unit = UNITS.get(claim.unit, claim.unit)
    return "_".join([*parts, unit] if unit and unit not in parts else parts)


def _mean(verdict: Verdict) -> float | None:
    """Return the mean with 4 digits; shares are in percent."""
    found = verdict.evidence
    return None if found is None else float(f"{found.mean:.4g}")


# ---------------------------------------------------------------- the table of a study


def table(study: Path, papers: Collection[str] | None = None) -> pd.DataFrame:
    """Return the verdicts of a study as `verdict_table`, with the paper as index.

    The column `shown` has the figure behind each, or the paper's page, as a path below `study`.
    """
    parts = []
    for paper, verdicts in of_study(study, papers).items():
        shown = [f"{paper}/{_figure(v.claim, study / paper) or f'{paper}.ipynb'}" for v in verdicts]
        index = pd.Index([paper] * len(verdicts), name="paper")
        parts.append(verdict_table(verdicts).assign(shown=shown).set_index(index))
    return pd.concat(parts)


def _figure(claim: Claim, folder: Path) -> str | None:
    """Return the file of the claim's figure below the folder of the paper's pages."""
    found = sorted(folder.glob(f"figures/{claim.figure}.*"))
    return found[0].relative_to(folder).as_posix() if found else None


def counts(found: pd.DataFrame, by: str = "paper") -> pd.DataFrame:
    """Return how many claims of each paper (or `by` tier) got which verdict, as columns."""
    rows = found.reset_index()
    return pd.DataFrame({word: (rows.verdict == word).groupby(rows[by]).sum() for word in COLOURS})


def survivors(found: pd.DataFrame) -> str:
    """State how many decided verdicts of a study remain after correction for all its tests."""
    decided = found[found.verdict.isin(DECIDED)]
    tested = decided.q.dropna()
    kept, counted = int((tested <= FALSE_SHARE).sum()), len(decided) - len(tested)
    return (
        f"{len(decided)} of {len(found)} claims are decided: {counted} by exact counts and "
        f"{len(tested)} by a test, of which {kept} have q <= {FALSE_SHARE:g}"
    )


def studies(first: Sequence[str], results: Path = RESULTS) -> dict[str, Path]:
    """Return the folder of every study that has metrics: those of `first`, then the others."""
    have = sorted({path.parent.parent.name for path in results.glob("*/*/metrics.json")} - {SMOKE})
    order = [name for name in first if name in have]
    return {name: results / name for name in dict.fromkeys([*order, *have])}


# ---------------------------------------------------------------- Markdown


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Format a Markdown table; the first row is its heading."""
    cells = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in cells]
    return "".join(f"| {line} |\n" for line in lines)
