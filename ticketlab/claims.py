"""What the papers claim and whether our numbers bear it out: intervals, differences, verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from pydantic import Field, TypeAdapter, ValidationError
from scipy.special import stdtrit

from ticketlab.files import read_yaml
from ticketlab.spec import ROOT, InputError, Spec

EntryT = TypeVar("EntryT", bound=Spec)
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


def is_interval(found: object) -> bool:
    """Whether this part of a metrics.json is an interval."""
    return isinstance(found, Mapping) and set(found) == {"mean", "low", "high", "n"}


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
    figure: str | None = None
    """The figure that shows it: its name in results/STUDY/PAPER/figures, without the ending."""
    table: str | None = None
    """Code of the notebook's cell that shows the number in a table."""
    studies: Annotated[tuple[str, ...], Field(strict=False)]


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict with its evidence."""

    claim: Claim
    word: Word
    evidence: Interval | None


def load_claims(paper: str | None = None, path: Path = ROOT / "claims.yaml") -> list[Claim]:
    """The claims of claims.yaml, all or one paper's; InputError names a bad entry."""
    return [claim for claim in read_entries(path, Claim) if paper in (None, claim.paper)]


def read_entries(path: Path, kind: type[EntryT]) -> list[EntryT]:
    """The entries of a YAML file that is a list of `kind`; InputError names a bad one."""
    entries = read_yaml(path)
    if not isinstance(entries, list):
        raise InputError(f"{path.name}: {type(entries).__name__} found, allowed is a list")
    try:
        return TypeAdapter(list[kind]).validate_python(entries)  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path.name}: {place}: {first['msg']}") from None


def judge(claim: Claim, metrics: Mapping[str, Any]) -> Verdict:
    """Reproduced if the whole interval clears the bound, not if none of it does.

    A metric that is null was not measured in this study; one that does not exist is an InputError.
    """
    name = f"claim {claim.id}: metric {claim.metric!r}"
    evidence = measured(metrics, claim.metric.split("."), name)
    if evidence is None:
        return Verdict(claim, "not run at this scale", None)
    return Verdict(claim, decide(evidence, claim.at_least), evidence)


def measured(metrics: Mapping[str, Any], keys: Sequence[str], name: str) -> Interval | None:
    """The interval at a path in the metrics; None where it, or what holds it, was not measured."""
    found: Any = metrics
    for key in keys:
        if found is None:
            return None
        if not isinstance(found, Mapping) or key not in found:
            raise InputError(
                f"{name} is not in the metrics; if an older version wrote them, run its notebook "
                "again"
            )
        found = found[key]
    if found is not None and not is_interval(found):
        raise InputError(f"{name} is not an interval")
    return as_interval(found)


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
