"""What the papers claim and whether our numbers bear it out: intervals, differences, verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from pydantic import Field, TypeAdapter, ValidationError
from scipy.special import stdtrit

from ticketlab.files import read_json, read_yaml
from ticketlab.spec import ROOT, InputError, Spec

Word = Literal["reproduced", "not reproduced", "inconclusive", "not run at this scale"]

COLOURS: dict[str, str] = {
    "reproduced": "#1a7f37",
    "not reproduced": "#c4320a",
    "inconclusive": "#8a6d00",
    "not run at this scale": "#767676",
}


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds with its 95 % Student t interval; no bounds when n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.2f} (n = {self.n})"
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}] (n = {self.n})"


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of `values` (n,); right for the 3 to 7 seeds we have."""
    data = np.asarray(values, dtype=float)
    if not len(data) or not np.isfinite(data).all():
        raise InputError(f"interval: {list(values)} given, allowed are 1 or more finite numbers")
    mean, n = float(data.mean()), len(data)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * data.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Interval:
    """Interval of a - b over the seeds that both have: the arms share initialisation and data."""
    return interval(list(minus(a, b).values()))


def by_seed(frame: pd.DataFrame, column: str) -> dict[int, float]:
    """The column of a table that has one row a seed, as {seed: value}."""
    if frame.seed.duplicated().any():
        raise InputError(f"{column}: several rows for one seed, allowed is one")
    return dict(zip(frame.seed.tolist(), frame[column].tolist(), strict=True))


def minus(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """a - b by seed, for the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in sorted(a) if seed in b}


# ---------------------------------------------------------------- intervals in metrics.json


def as_metric(values: Mapping[Any, float] | Iterable[float]) -> dict[str, Any] | None:
    """The interval of some values (or of those by seed) as metrics.json has it; null for none."""
    listed = list(values.values() if isinstance(values, Mapping) else values)
    return asdict(interval(listed)) if listed else None


def as_interval(found: Mapping[str, Any] | None) -> Interval | None:
    """An interval of metrics.json as an object."""
    return None if found is None else Interval(**found)


def over_levels(by_level: Mapping[float, Mapping[int, float]]) -> dict[str, Any]:
    """Metrics at each sparsity, `at_90`, and of each seed's mean over them; null where none ran."""
    measured = [values for values in by_level.values() if values]
    seeds = sorted(set.intersection(*map(set, measured))) if measured else []
    mean = [float(np.mean([values[seed] for values in measured])) for seed in seeds]
    found = {f"at_{100 * level:g}": as_metric(values) for level, values in by_level.items()}
    return found | {"mean": as_metric(mean)}


# ---------------------------------------------------------------- claims and verdicts


class Claim(Spec):
    """One statement of a paper and the difference of ours that decides it (claims.yaml)."""

    id: str
    paper: str
    statement: str
    source: str
    paper_value: str | None = None
    metric: str
    """Dotted path of an interval in the paper's metrics.json."""
    at_least: float
    """The claim holds if the metric is at least this (a non-inferiority margin is negative)."""
    studies: Annotated[tuple[str, ...], Field(strict=False)]


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict with its evidence."""

    claim: Claim
    word: Word
    evidence: Interval | None


def load_claims(paper: str | None = None, path: Path = ROOT / "claims.yaml") -> list[Claim]:
    """The claims of claims.yaml, all or one paper's; InputError names a bad entry."""
    entries = read_yaml(path)
    if not isinstance(entries, list):
        raise InputError(f"{path.name}: {type(entries).__name__} found, allowed is a list")
    try:
        claims = TypeAdapter(list[Claim]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path.name}: {place}: {first['msg']}") from None
    return [claim for claim in claims if paper in (None, claim.paper)]


def judge(claim: Claim, metrics: Mapping[str, Any]) -> Verdict:
    """Reproduced if the whole interval clears the bound, not if none of it does.

    A metric that is null was not measured in this study; one that does not exist is an InputError.
    """
    found: Any = metrics
    for key in claim.metric.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise InputError(f"claim {claim.id}: metric {claim.metric!r} is not in the metrics")
        found = found[key]
    if found is None:
        return Verdict(claim, "not run at this scale", None)
    if not isinstance(found, Mapping) or set(found) != {"mean", "low", "high", "n"}:
        raise InputError(f"claim {claim.id}: metric {claim.metric!r} is not an interval")
    evidence = Interval(**found)
    return Verdict(claim, decide(evidence, claim.at_least), evidence)


def decide(evidence: Interval, at_least: float) -> Word:
    """The verdict on 'mean >= at_least'; a single seed decides nothing."""
    if evidence.low is None or evidence.high is None:
        return "inconclusive"
    if evidence.low >= at_least:
        return "reproduced"
    return "not reproduced" if evidence.high < at_least else "inconclusive"


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row a claim: id, statement, bound, evidence, verdict."""
    rows = [
        (v.claim.id, v.claim.statement, v.claim.at_least, str(v.evidence or "-"), v.word)
        for v in verdicts
    ]
    return pd.DataFrame(
        rows, columns=["claim", "statement", "holds if at least", "ours", "verdict"]
    )


def styled(verdicts: Sequence[Verdict]) -> Styler:
    """The verdict table for a page, verdicts in colour; the same bytes on each run."""
    table = Styler(verdict_table(verdicts), uuid="verdicts").hide(axis="index").format(precision=1)
    table = table.set_table_styles([{"selector": "td, th", "props": "text-align: left"}])
    return table.map(lambda word: f"font-weight: bold; color: {COLOURS[word]}", subset=["verdict"])


def as_metrics(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Verdicts by claim id, for metrics.json."""
    return {
        v.claim.id: {"verdict": v.word, "evidence": v.evidence and asdict(v.evidence)}
        for v in verdicts
    }


# ---------------------------------------------------------------- the table of a study

MARKS = ("<!-- claims:", "<!-- /claims -->")
COLUMNS = ("claim", "statement", "holds if", "ours", "verdict")


def read_verdicts(study: Path, of: Sequence[str] | None = None) -> pd.DataFrame:
    """The verdicts in the metrics of a study's papers, with COLUMNS; the index is the paper.

    Of all papers that have metrics there, or of those named.
    """
    rows, papers = [], []
    for path in sorted(study.glob("*/metrics.json")):
        if of is not None and path.parent.name not in of:
            continue
        recorded = read_json(path)["claims"]
        for claim in load_claims(path.parent.name):
            if claim.id not in recorded:
                raise InputError(f"claim {claim.id}: not in {path}, run `dvc repro` first")
            found = recorded[claim.id]
            evidence = Interval(**found["evidence"]) if found["evidence"] else "-"
            bound = f">= {claim.at_least:g}"
            rows.append((claim.id, claim.statement, bound, str(evidence), found["verdict"]))
            papers.append(claim.paper)
    if not rows:
        raise InputError(f"study: no results in {study}, run `dvc repro` first")
    return pd.DataFrame(rows, index=pd.Index(papers, name="paper"), columns=list(COLUMNS))


def counts(found: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each paper got which verdict: one row a paper, one column a verdict."""
    return pd.DataFrame(
        {word: (found.verdict == word).groupby(level="paper").sum() for word in COLOURS}
    )


def with_table(page: str, found: pd.DataFrame) -> str:
    """The page with the verdicts between its claims marks, in Markdown: counts, then each paper."""
    if not all(mark in page for mark in MARKS):
        raise InputError(f"page: no {' ... '.join(MARKS)}, the table needs its marks")
    start = page.index("\n", page.index(MARKS[0])) + 1
    parts = [_markdown(["paper", *COLOURS], counts(found).reset_index().values.tolist())]
    for paper, rows in found.groupby(level="paper"):
        body = [[*row[:-1], f"**{row[-1]}**"] for row in rows.values.tolist()]
        head = f"<summary>{paper}: all {len(rows)} claims with their evidence</summary>"
        parts.append(f"<details>{head}\n\n{_markdown(COLUMNS, body)}\n</details>\n")
    return page[:start] + "\n".join(parts) + page[page.index(MARKS[1]) :]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in cells]
    return "".join(f"| {line} |\n" for line in lines)
