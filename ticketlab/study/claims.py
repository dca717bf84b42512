"""Claims of the papers, and the verdicts that follow from our measurements."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ticketlab.files import parse_yaml, read_json, read_yaml
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study import controls, rules
from ticketlab.study.rules import COLOURS, Tier, Unit, Word
from ticketlab.study.stats import (
    MISSING,
    Evidence,
    Interval,
    Reference,
    Share,
    beside,
    means,
    measured,
)

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

CLAIMS = ROOT / "claims"
"""Contains one file per paper."""

EntryT = TypeVar("EntryT", bound=Spec)

# ---------------------------------------------------------------- claims and verdicts


class Claim(Spec):
    """One statement of a paper and our metric that decides it (claims/PAPER.yaml)."""

    id: str
    paper: str
    tier: Tier
    statement: str
    source: str
    paper_value: str | None = None
    metric: str
    """Dotted path of an interval, a share of seeds or a count in the paper's metrics.json."""
    unit: Unit = "points"
    """Unit of the metric."""
    at_least: float | None = None
    """The claim holds if the metric is at least this (a non-inferiority margin is negative)."""
    above: float | None = None
    """Alternatively, the claim holds if the whole interval is above this."""
    margin: float | None = Field(default=None, gt=0)
    """What counts as no difference for a claim with `above: 0`; default: `rules.MARGINS`."""
    margin_from: str | None = None
    """Who states a margin that is smaller than that of `rules.MARGINS`, and where."""
    needs: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Positive controls that must have passed, as BED.NAME of `controls` in metrics.json."""
    reference: str
    """Arms of `references` in metrics.json that must have learned something."""
    figure: str | None = None
    """The figure that shows it: its name in results/STUDY/PAPER/figures, without suffix."""
    table: str | None = None
    """Code of the notebook cell that shows the number in a table."""
    abstract: bool = False
    """Whether the paper's abstract makes the claim (`reader/findings.py`); headlines always do."""
    front: str | None = Field(default=None, max_length=60)
    """The claim in a few words, for README's line on the paper (`reader/front.py`)."""
    clause: str | None = None
    """The clause after 'that' in a sentence, if it differs from the statement."""
    number: str | None = None
    """The number in words, with {} for its value; default: a phrase for the unit."""
    studies: Annotated[tuple[str, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _one_bound(self) -> "Claim":
        if (self.at_least is None) == (self.above is None):
            raise ValueError("at_least and above: one of them is needed")
        return self

    @model_validator(mode="after")
    def _one_place(self) -> "Claim":
        if self.number is not None and self.number.count("{}") != 1:
            raise ValueError(f"number: {self.number!r} given, it needs {{}} once, for the value")
        return self

    @model_validator(mode="after")
    def _margin_by_rule(self) -> "Claim":
        if self.margin is not None and self.above != 0:
            raise ValueError(f"margin: {self.margin:g} given, only claims with `above: 0` have one")
        given = self.margin if self.above == 0 else -min(0.0, self.at_least or 0.0) or None
        rule = rules.MARGINS.get(self.unit)
        if given and rule and given < rule and not self.margin_from:
            raise ValueError(
                f"margin_from: needed, a margin of {given:g} is below the rule's {rule:g} "
                f"({self.unit})"
            )
        return self

    @property
    def bound(self) -> float:
        """The value with which the metric is compared."""
        return self.at_least if self.above is None else self.above  # type: ignore[return-value]

    @property
    def no_difference(self) -> float | None:
        """The margin around zero, if the claim is that something beats or differs; else None."""
        return (self.margin or rules.MARGINS.get(self.unit)) if self.above == 0 else None

    @property
    def planned(self) -> int:
        """Planned number of seeds for its verdict."""
        return rules.planned(self.tier, self.unit)

    @property
    def holds_if(self) -> str:
        """The condition in the claims file: '>= -1' or '> 0'."""
        return f"{'>=' if self.above is None else '>'} {self.bound:.15g}"


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict with its evidence, the reason if there is none, and what it lacks."""

    claim: Claim
    word: Word
    evidence: Evidence | None
    reason: str | None = None
    parts: tuple[float, ...] = ()
    """The means that the evidence averages over, one per level or bed; empty if it is no mean."""
    q: float | None = None
    """Its p, corrected for all tested claims of a study (`with_q`)."""

    @property
    def ours(self) -> str:
        """The evidence, with enough digits to show on which side of the bound it lies."""
        return "-" if self.evidence is None else beside(self.evidence, self.claim.bound)

    @property
    def is_opposite(self) -> bool:
        """Whether a difference below the margin has the sign that contradicts the claim."""
        high = None if self.evidence is None else self.evidence.high
        return self.word == "no difference" and high is not None and high < 0

    @property
    def p(self) -> float | None:
        """p of the test behind the verdict; None for counts, and if nothing was tested.

        For 'no difference' it is the larger p of the tests against the two margins.
        """
        if self.evidence is None or self.word in ("not testable here", "not run"):
            return None
        margin = self.claim.no_difference
        if self.word == "no difference" and margin is not None:
            both = [rules.p_value(self.evidence, side) for side in (-margin, margin)]
            return max((p for p in both if p is not None), default=None)
        return rules.p_value(self.evidence, self.claim.bound)

    @property
    def message(self) -> str:
        """The verdict's word, followed by the reason if there is one."""
        return f"{self.word}: {self.reason}" if self.reason else self.word


def load_claims(paper: str | None = None, folder: Path = CLAIMS) -> list[Claim]:
    """Return one paper's claims, or all, from the folder; InputError names a bad entry."""
    paths = [path for path in sorted(folder.glob("*.yaml")) if paper in (None, path.stem)]
    every = (_of_paper(read_yaml(path), path.stem, f"{folder.name}/{path.name}") for path in paths)
    return [claim for claims in every for claim in claims]


def read_entries(path: Path, kind: type[EntryT]) -> list[EntryT]:
    """Return the entries of a YAML file that is a list of `kind`; InputError names a bad one."""
    return entries_in(read_yaml(path), path.name, kind)


def entries_in(content: object, name: str, kind: type[EntryT]) -> list[EntryT]:
    """Return the entries of a parsed YAML file called `name`; InputError names a bad one."""
    if not isinstance(content, list):
        raise InputError(f"{name}: {type(content).__name__} found, allowed is a list")
    try:
        return TypeAdapter(list[kind]).validate_python(content)  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{name}: {place}: {first['msg']}") from None


def claims_in(text: str | bytes, paper: str, name: str) -> list[Claim]:
    """Return the claims in the text of a PAPER.yaml called `name`; InputError for a bad entry."""
    return _of_paper(parse_yaml(text, name), paper, name)


def _of_paper(content: object, paper: str, name: str) -> list[Claim]:
    """Return the entries of a parsed PAPER.yaml; the file's name gives the paper."""
    if isinstance(content, list):
        content = [{"paper": paper} | e if isinstance(e, dict) else e for e in content]
    found = entries_in(content, name, Claim)
    if others := [claim for claim in found if claim.paper != paper]:
        wrong = f"{name}: {others[0].id}: paper {others[0].paper!r}"
        raise InputError(f"{wrong} given, allowed is {paper!r}, the name of the file")
    return found


class Redirect(Spec):
    """The successor of a claim that was merged or dropped (claims/redirects/PAPER.yaml)."""

    old: str
    new: str | None
    """The claim that replaces it; None for a dropped claim."""
    reason: str
    verdict: Word
    """Its last verdict in the desk study."""


def load_redirects(folder: Path = CLAIMS) -> list[Redirect]:
    """Return all claims that were merged or dropped; InputError names a bad entry."""
    paths = sorted((folder / "redirects").glob("*.yaml"))
    return [one for path in paths for one in read_entries(path, Redirect)]


def of_study(claims: Iterable[Claim], study: str) -> list[Claim]:
    """Return the claims that a study judges: those that name it, and those that name none.

    A study that none of the claims names, such as your own, judges all of them.
    """
    every = list(claims)
    if any(study in claim.studies for claim in every):
        return [claim for claim in every if study in claim.studies or not claim.studies]
    return every


def judged(paper: str, metrics: Path) -> list[Verdict]:
    """Return a study's verdicts on a paper's claims from results/STUDY/PAPER/metrics.json."""
    return judge_all(load_claims(paper), read_json(metrics), metrics.parent.parent.name)


def judge_all(claims: Iterable[Claim], metrics: Mapping[str, Any], study: str) -> list[Verdict]:
    """Return the verdict on each claim that `study` judges (`of_study`), in their order."""
    return [judge(claim, metrics) for claim in of_study(claims, study)]


def judge(claim: Claim, metrics: Mapping[str, Any]) -> Verdict:
    """Return the verdict by the rules (`rules.decide`), with what it lacks.

    A metric that is null was not measured in this study. A claim is not testable if an arm of its
    reference is not above chance (nothing was learned), if a control that it needs has not passed
    (its bed cannot show it), or if with so few seeds only one verdict on a share is possible.
    Raises InputError for a metric, a reference or a control that does not exist.
    """
    name = f"claim {claim.id}: metric {claim.metric!r}"
    evidence = measured(metrics, claim.metric.split("."), name)
    if evidence is None:
        return Verdict(claim, "not run", None)
    arms, strictly = references(claim, metrics), claim.above is not None
    if reason := learned_nothing(arms):
        return Verdict(claim, "not testable here", evidence, reason)
    if alone := [arm for arm, one in arms.items() if one.score.n < 2]:
        return Verdict(claim, "undecided", evidence, f"a single seed of {alone[0]}")
    if reason := controls.failed(metrics, claim.needs, claim.id):
        return Verdict(claim, "not testable here", evidence, reason)
    if isinstance(evidence, Share) and not rules.is_decidable(evidence.n, claim.bound, strictly):
        reason = f"{evidence.n} seeds cannot decide a share of {claim.bound:g} %"
        return Verdict(claim, "not testable here", evidence, reason)
    if claim.unit == "points":
        evidence = rules.widened(evidence, max(one.resolution for one in arms.values()))
    word = rules.decide(evidence, claim.bound, strictly, claim.no_difference)
    found = Verdict(claim, word, evidence, lacks(claim, word, evidence), parts_of(claim, metrics))
    opposite = (
        f"below zero, within the margin of {claim.no_difference:g}" if found.is_opposite else None
    )
    return replace(found, reason="; ".join(filter(None, (opposite, found.reason))) or None)


def parts_of(claim: Claim, metrics: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the means beside a metric called `mean`, one per level or bed; empty for others."""
    *place, last = claim.metric.split(".")
    if last != "mean":
        return ()
    beside = reduce(lambda found, key: found[key], place, metrics)
    return tuple(means({key: part for key, part in beside.items() if key != last}))


def lacks(claim: Claim, word: Word, evidence: Evidence) -> str | None:
    """Return how many seeds would decide it, and how its seeds differ from the planned number."""
    found = []
    if word == "undecided":
        found.append(rules.why_undecided(evidence, claim.bound, claim.no_difference))
    if evidence.n < claim.planned:
        found.append(f"{evidence.n} of {claim.planned} planned seeds")
    if evidence.n > (most := rules.most_planned(claim.unit)):
        found.append(f"extended: {evidence.n} seeds, {most} were planned")
    return ", ".join(found) or None


def with_q(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return a study's verdicts with q: each p corrected for all claims tested in the study."""
    corrected = rules.q_values([one.p for one in verdicts])
    return [replace(one, q=q) for one, q in zip(verdicts, corrected, strict=True)]


def references(claim: Claim, metrics: Mapping[str, Any]) -> dict[str, Reference]:
    """Return the arms, by name, that must have learned something before the claim is judged."""
    every = metrics.get("references")
    if not isinstance(every, Mapping) or claim.reference not in every:
        raise InputError(f"claim {claim.id}: reference {claim.reference!r} {MISSING}")
    arms = {arm: found for arm, found in (every[claim.reference] or {}).items() if found}
    return {
        arm: Reference(Interval(**one["score"]), one["chance"], one.get("images"))
        for arm, one in arms.items()
    }


def learned_nothing(found: Mapping[str, Reference]) -> str | None:
    """Name the first arm not above chance, with its interval; None if all intervals are above."""
    if not found:
        return "its reference arm was not run"
    for arm, one in found.items():
        if one.score.n > 1 and not one.learned:
            shown = beside(one.score, one.chance)
            return f"{arm} is not above chance, {shown}, chance is {one.chance:.4g}"
    return None


# ---------------------------------------------------------------- tables

COLUMNS = ("claim", "tier", "statement", "holds if", "ours", "q", "verdict")


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return a table with one row per claim: COLUMNS, and the verdict's reason if it has one."""
    rows = [
        (c.id, c.tier, c.statement, c.holds_if, v.ours, v.q, v.word, v.reason or "")
        for v in verdicts
        for c in (v.claim,)
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "reason"]).astype({"q": float})


def as_q(q: float | None) -> str:
    """Format q as '.032' or '< .001', '' for None; rounds up, so that .0501 does not show .050."""
    if q is None or np.isnan(q):
        return ""
    return "< .001" if q < 0.001 else f"{np.ceil(1000 * q) / 1000:.3f}".removeprefix("0")


def with_reasons(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text, with each reason after its verdict in one column."""
    if "q" in table:
        table = table.assign(q=table.q.map(as_q))
    messages = table.verdict.where(table.reason == "", table.verdict + ": " + table.reason)
    return table.assign(verdict=messages).drop(columns="reason")


def styled(verdicts: Sequence[Verdict]) -> "Styler":
    """Return the verdict table of a paper's page; no q, which concerns a whole study."""
    return coloured(verdict_table(verdicts).drop(columns="q"), "verdicts")


def coloured(table: pd.DataFrame, name: str) -> "Styler":
    """Return a table of verdicts and reasons for a page, with verdicts in colour."""
    from pandas.io.formats.style import Styler  # needs jinja2

    shown = Styler(with_reasons(table), uuid=name).hide(axis="index")
    shown = shown.set_table_styles([{"selector": "td, th", "props": "text-align: left"}])
    return shown.map(lambda text: f"font-weight: bold; color: {colour(text)}", subset=["verdict"])


def colour(message: str) -> str:
    """Return the colour of a verdict, with or without a reason after it."""
    return COLOURS[message.partition(":")[0]]
