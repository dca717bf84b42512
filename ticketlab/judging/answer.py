"""The answer to "is this a winning ticket?", by a rule that was fixed before any mask was judged.

Two claims decide: the mask is on a par with the dense net, and it beats a random mask of equal
sparsity. Without the second, every mask of that sparsity would win, and this one would be nothing
special. If one is refuted, it is not a winning ticket. Otherwise, if one cannot be judged, nor can
the question; if one is undecided, so is the answer. The other claims qualify it: they say whether
the places of the mask, its weights and its price matter.
"""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams
from ticketlab.judging.report import HEAD_START
from ticketlab.reader import findings
from ticketlab.study.claims import Claim, Verdict, claims_in, judge_all, with_q
from ticketlab.study.rules import Word

Answer = Literal["a winning ticket", "not a winning ticket", "undecided", "not testable here"]

FILE = "claims.yaml"
DECIDING = ("judge-dense", "judge-random")
"""The claims that decide; the others qualify the answer."""
REFUTED: tuple[Word, ...] = ("not reproduced", "no difference")
UNTESTED: tuple[Word, ...] = ("not testable here", "not run")

SENTENCES: dict[Answer, str] = {
    "a winning ticket": "{what} is a winning ticket.",
    "not a winning ticket": "{what} is not a winning ticket.",
    "undecided": "Whether {what} is a winning ticket is undecided.",
    "not testable here": "Whether {what} is a winning ticket cannot be tested here.",
}


@cache
def claims() -> tuple[Claim, ...]:
    """Return what a judgement decides, from claims.yaml beside this file."""
    text = (resources.files("ticketlab.judging") / FILE).read_text(encoding="utf-8")
    return tuple(claims_in(text, "judge", FILE))


def verdicts(metrics: dict[str, Any]) -> list[Verdict]:
    """Return the verdict on each claim, with q over those of this judgement."""
    return with_q(judge_all(claims(), metrics, "judge"))


def answer(found: Sequence[Verdict]) -> Answer:
    """Return the answer by the rule above."""
    words = [one.word for one in deciding(found)]
    if any(word in REFUTED for word in words):
        return "not a winning ticket"
    if any(word in UNTESTED for word in words):
        return "not testable here"
    return "undecided" if "undecided" in words else "a winning ticket"


def deciding(found: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts that decide."""
    return [one for one in found if one.claim.id in DECIDING]


def sentence(found: Sequence[Verdict], given: Given, params: JudgeParams) -> str:
    """Return the answer as one sentence: what is judged, at which sparsity, on what."""
    removed = f"{100 * given.mask.sparsity:.4g} % sparsity"
    what = f"{given.name} ({removed}, {params.model.name} on {params.data.name})"
    return SENTENCES[answer(found)].format(what=what)


def reasons(found: Sequence[Verdict]) -> list[str]:
    """Return the deciding verdicts as sentences, then the judged ones that qualify the answer."""
    qualify = [one for one in found if one.claim.id not in DECIDING]
    others = [one for one in qualify if one.word not in UNTESTED]
    return [findings.sentence(one) for one in (*deciding(found), *others)]


def notes(given: Given, metrics: dict[str, Any]) -> list[str]:
    """Return what a reader must know about the weights of the mask and the number of seeds."""
    said = {
        "none": "The file has no weights. The mask was trained on the initial weights of each "
        "seed, on which it was not found: what is judged is a mask alone, not a ticket.",
        "kept": "The file has only the weights that the mask keeps. The other arms cannot start "
        "from these, so they start from the initial weights of each seed.",
        "all": "The file has all weights of the dense network, and all arms start from them, "
        "except for the fresh weights.",
    }  # fmt: skip
    found = [said[given.start]]
    planned = max(claim.planned for claim in claims())
    if (seeds := metrics["accuracy"]["given"]["n"]) < planned:
        found.append(f"Verdicts are planned for {planned} seeds; here are {seeds}.")
    own, imp = (metrics["start"][arm]["mean"] for arm in ("given", "imp"))
    if own > metrics["chance"] + HEAD_START:
        found.append(
            f"Before its first step the given mask classifies {own:.1f} % of the validation images "
            f"correctly and IMP's ticket {imp:.1f} %, where chance is {metrics['chance']:.1f} %. "
            "The weights of the file are not initial ones: they were trained. --weights names a "
            "file of initial weights, and `rewind` the step from which the other arms start."
        )
    return found
