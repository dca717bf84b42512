"""Compares the verdicts of two runs of a study, such as on two machines, claim by claim.

The share of claims with the same word is shown next to the share that the rules predict for two
independent runs with the first run's effects and spread over seeds. Two runs with the same seeds
that only differ by rounding should agree at least as often.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.special import stdtrit

from ticketlab.reader import snapshots
from ticketlab.spec import ROOT, InputError
from ticketlab.study import rules, verdicts
from ticketlab.study.claims import Claim, Verdict
from ticketlab.study.rules import DECIDED, Word
from ticketlab.study.stats import Evidence, Interval, Share, share
from ticketlab.study.verdicts import markdown

DRAWS = 1000
"""Simulated pairs of runs per claim."""

Verdicts = Mapping[str, Verdict]
"""Verdicts by claim id."""

Change = Literal["opposite", "decided otherwise", "decided in A only", "decided in B only",
                 "other", ""]  # fmt: skip
CHANGES: tuple[Change, ...] = get_args(Change)

# ---------------------------------------------------------------- two runs


@dataclass(frozen=True)
class Pair:
    """One claim in two runs."""

    a: Verdict
    b: Verdict
    same: np.ndarray | None
    """Whether each simulated pair has the same word, (DRAWS,); None if it cannot be simulated."""

    @property
    def change(self) -> Change:
        """How the word changed from A to B; empty if it did not."""
        one, two = self.a.word, self.b.word
        if one == two:
            return ""
        if {one, two} == {"reproduced", "not reproduced"}:
            return "opposite"
        if one in DECIDED and two in DECIDED:
            return "decided otherwise"
        if one in DECIDED or two in DECIDED:
            return "decided in A only" if one in DECIDED else "decided in B only"
        return "other"


def pairs(a: Verdicts, b: Verdicts) -> list[Pair]:
    """Return every claim that both runs judged, in A's order; InputError if there is none."""
    both = [name for name in a if name in b and "not run" not in (a[name].word, b[name].word)]
    if not both:
        raise InputError("A and B: no claim was run in both")
    return [Pair(a[name], b[name], drawn(a[name])) for name in both]


def read(name: str, study: str, root: Path = ROOT) -> Verdicts:
    """Return the verdicts of a run: of a folder with a study's results, or of a revision's `study`.

    InputError for anything else, and for a revision without verdicts on the study.
    """
    if (folder := root / name).is_dir():
        return by_id(verdicts.of_study(folder))
    with snapshots.opened(name, root) as snapshot:
        places = {p: c for p, c in snapshot.claims.items() if p.partition("/")[0] == study}
    if not places:
        why = "; ".join(snapshot.unjudged) or "it has no results of it"
        raise InputError(f"{name}: no verdicts on the study {study!r} ({why})")
    return {one: verdict for claims in places.values() for one, verdict in claims.items()}


def by_id(found: Mapping[str, Sequence[Verdict]]) -> Verdicts:
    """Return the verdicts of all papers by claim id."""
    return {one.claim.id: one for some in found.values() for one in some}


# ---------------------------------------------------------------- what the rules predict


def drawn(verdict: Verdict) -> np.ndarray | None:
    """Simulate whether two independent runs with this claim's effect have the same word, (DRAWS,).

    Means over seeds are drawn from a normal distribution with the measured mean and deviation,
    shares from a binomial one. None for counts, single seeds and untestable claims.
    """
    found = verdict.evidence
    if verdict.word == "not testable here" or found is None or found.n < 2:
        return None
    generator = np.random.default_rng(zlib.crc32(verdict.claim.id.encode()))
    if isinstance(found, Share):
        words = _share_words(found, verdict.claim, generator)
    elif isinstance(found, Interval):
        words = [_word(one, verdict.claim) for one in _intervals(found, generator)]
    else:
        return None
    return np.array([one == two for one, two in zip(words[::2], words[1::2], strict=True)])


def _word(found: Evidence, claim: Claim) -> Word:
    return rules.decide(found, claim.bound, claim.above is not None, claim.no_difference)


def _intervals(found: Interval, generator: np.random.Generator) -> Iterator[Interval]:
    """Yield 2 DRAWS intervals of `n` seeds from a normal distribution like the measured one."""
    n, error = found.n, rules.standard_error(found)
    means = generator.normal(found.mean, error, 2 * DRAWS)
    errors = error * np.sqrt(generator.chisquare(n - 1, 2 * DRAWS) / (n - 1))
    reach = errors * stdtrit(n - 1, (1 + rules.CONFIDENCE) / 2)
    for mean, half in zip(means.tolist(), reach.tolist(), strict=True):
        yield Interval(mean, mean - half, mean + half, n)


def _share_words(found: Share, claim: Claim, generator: np.random.Generator) -> list[Word]:
    """Return the words of 2 DRAWS shares of `n` seeds."""
    possible = [share([i < k for i in range(found.n)]) for k in range(found.n + 1)]
    words = [_word(one, claim) for one in possible]
    return [words[k] for k in generator.binomial(found.n, found.k / found.n, 2 * DRAWS)]


# ---------------------------------------------------------------- the page


def page(a: str, b: str, found: list[Pair]) -> str:
    """Return the comparison of the runs called `a` and `b` as Markdown."""
    head = f"# Verdicts of two runs\n\nA is `{a}`, B is `{b}`."
    return f"{head} {opposites(found)}\n\n{stayed(found)}\n\n{table(found)}"


def table(found: list[Pair]) -> str:
    """Return a row per claim, those whose verdict changed first."""
    rows = [["claim", "A", "verdict A", "B", "verdict B", "change", "predicted to stay (%)"]]
    for one in sorted(found, key=lambda one: CHANGES.index(one.change)):
        stays = "" if one.same is None else f"{100 * one.same.mean():.0f}"
        sides = [one.a.ours, one.a.word, one.b.ours, one.b.word]
        rows.append([one.a.claim.id, *sides, one.change, stays])
    return markdown(rows)


def opposites(found: list[Pair]) -> str:
    """State whether a decided verdict turned into its opposite."""
    turned = [one.a.claim.id for one in found if one.change == "opposite"]
    decided = sum(one.a.word in DECIDED for one in found)
    which = f": {', '.join(turned)}" if turned else ""
    return f"Of the {decided} claims that A decides, B decides {len(turned)} the other way{which}."


def stayed(found: list[Pair]) -> str:
    """State how many words are the same, and how many the rules predict."""
    tested = [one for one in found if one.same is not None]
    text = f"{_same(found)} of the claims that both runs have get the same word"
    if not tested:
        return f"{text}."
    chances = np.array([one.same.mean() for one in tested if one.same is not None])
    expected, spread = chances.sum(), sqrt(float((chances * (1 - chances)).sum()))
    low, high = max(0.0, expected - 1.96 * spread), min(len(tested), expected + 1.96 * spread)
    return (
        f"{text}; {_same(tested)} of those that rest on a mean or a share of seeds. For two runs "
        f"with different seeds and the effects of A the rules predict {expected:.0f} of "
        f"{len(tested)} ({100 * expected / len(tested):.0f} %); {low:.0f} to {high:.0f} in 95 % of "
        f"cases, if claims are independent of each other."
    )


def _same(found: list[Pair]) -> str:
    """Format '101 of 124 (81 %)'."""
    same = sum(one.change == "" for one in found)
    return f"{same} of {len(found)} ({100 * same / len(found):.0f} %)"
