"""Findings in words: a sentence per claim from its verdict and number, and abstracts of them.

A sentence is one of WORDINGS, chosen by the verdict's word and the claim's tier. It contains the
claim's statement (or `clause`), which must fit after "that" and "whether"; `misfit` checks this. An
abstract has the headlines and the claims with `abstract: true`, in this order: headlines, then the
controls that qualify them, then costs. So the claims determine the abstract's sentences before any
number is known.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ticketlab.files import read_json
from ticketlab.study import rules, verdicts
from ticketlab.study.claims import Claim, Verdict, as_q
from ticketlab.study.rules import COLOURS, DECIDED, FALSE_SHARE, Tier, Unit, Word
from ticketlab.study.stats import Count, Evidence, Share, decimals, digits

if TYPE_CHECKING:
    from IPython.display import DisplayHandle, Markdown

FILE = "findings.md"
"""In results/STUDY, written by `ticketlab claims --write`."""

WORDINGS: dict[Word, dict[Tier, str]] = {
    "reproduced": {
        "headline": "As claimed, {clause}: {number}.",
        "paper": "As published, {clause}: {number}.",
        "control": "In our control, {clause}: {number}.",
        "finding": "We found that {clause}: {number}.",
    },
    "not reproduced": {
        "headline": "The headline claim that {clause} was not reproduced: {number}.",
        "paper": "The published statement that {clause} was not reproduced: {number}.",
        "control": "Our control rules out that {clause}: {number}.",
        "finding": "Our measurements rule out that {clause}: {number}.",
    },
    "no difference": {
        "headline": "The headline claim is that {clause}, but {difference}: {number}.",
        "paper": "The published statement is that {clause}, but {difference}: {number}.",
        "control": "Our control does not show that {clause}; {difference}: {number}.",
        "finding": "We did not find that {clause}; {difference}: {number}.",
    },
    "undecided": {
        "headline": "The headline claim that {clause} is undecided: {number}; {missing}.",
        "paper": "The published statement that {clause} is undecided: {number}; {missing}.",
        "control": "Our control leaves open whether {clause}: {number}; {missing}.",
        "finding": "We could not decide whether {clause}: {number}; {missing}.",
    },
    "not testable here": {
        "headline": "The headline claim that {clause} cannot be tested here: {missing}.",
        "paper": "The published statement that {clause} cannot be tested here: {missing}.",
        "control": "Our control cannot tell here whether {clause}: {missing}.",
        "finding": "We cannot test here whether {clause}: {missing}.",
    },
    "not run": {
        "headline": "The headline claim that {clause} was not tested: this study leaves it out.",
        "paper": "The published statement that {clause} was not tested: this study leaves it out.",
        "control": "Our control of whether {clause} was not run in this study.",
        "finding": "We did not test in this study whether {clause}.",
    },
}

NUMBERS: dict[Unit, str] = {
    "points": "we measured {} points",
    "rounds": "we measured {} rounds",
    "epochs": "we measured {} epochs",
    "cost": "we measured {} %",
    "seeds": "this holds in {} seeds",
    "other": "we measured {}",
}
"""The phrase for a claim's number, unless the claim has its own."""
DIFFERENCE = "the difference is {} points"
"""The phrase for a number in points that is compared with zero or a margin."""

LEGEND = (
    "Each sentence is computed from a claim's verdict. In brackets: the 95 % interval over seeds. "
    "A difference is what is named first minus what is named second."
)
RANGES = "'Ranging from' has the lowest and the highest mean at a single sparsity or network."
"""What the legend says, too, where a sentence has such a range."""

NAMES = frozenset({"Adam", "Bernoulli", "Circle", "Fashion", "Helix", "Scratch"})
"""Words that keep their capital in a sentence, besides those with a second one (PrAC, GraSP)."""

PARTICIPLES = "moved|rewound|scored|trained"
"""Statements that begin with one of these follow a comma: 'that, moved to other data, it ...'."""

PAPERS = {
    "colt": "COLT",
    "prac": "PrAC",
    "plant_n_seek": "Plant 'n' Seek",
    "dlth": "DLTH",
    "compare": "All on one bench",
    "geometry": "Why tickets work",
    "seekers": "Newer seekers",
}
"""Papers as a reader knows them, in the order of all lists; another goes by its folder's name."""


def in_order(papers: Iterable[str]) -> list[str]:
    """Return papers in the order of PAPERS, others after them."""
    return sorted(papers, key=lambda paper: [*PAPERS, paper].index(paper))


def short(paper: str) -> str:
    """Return a paper's short name, that of its folder if it has no other."""
    return PAPERS.get(paper, paper)


# ---------------------------------------------------------------- a sentence


def sentence(verdict: Verdict) -> str:
    """Return the verdict as a sentence, with number, interval, seeds and, if known, q."""
    frame, claim = WORDINGS[verdict.word][verdict.claim.tier], verdict.claim
    text = frame.format(
        clause=clause(claim),
        number=number(verdict),
        missing=missing(verdict),
        difference=_difference(verdict),
    )
    return re.sub(rf"\b(that|[Ww]hether) ({PARTICIPLES})\b", r"\1, \2", text)


def clause(claim: Claim) -> str:
    """Return the claim as it follows 'that': no period, no capital unless it starts with a name."""
    text = claim.clause or claim.statement.removesuffix(".")
    first = re.match(r"[A-Za-z]*", text)
    word = first[0] if first else ""
    is_name = word in NAMES or any(letter.isupper() for letter in word[1:])
    return text if is_name else text[:1].lower() + text[1:]


def number(verdict: Verdict) -> str:
    """Return 'the difference is 0.52 points [0.11, 0.93] (10 seeds, q = .031)'; '' if none."""
    found = verdict.evidence
    return "" if found is None else f"{measured(verdict, found)}{_sure(verdict, found)}"


def measured(verdict: Verdict, found: Evidence) -> str:
    """Return 'the difference is 0.52 points [0.11, 0.93]', with the range of its parts if any."""
    few = digits(found, verdict.claim.bound)
    text = phrase(verdict.claim).format(_value(found, few))
    if isinstance(found, Count) and found.mean == 1:
        text = re.sub(r"\b1 (round|epoch)s\b", r"1 \1", text)
    return f"{text}{_spread(found, few)}{_ranging(verdict, few)}"


def phrase(claim: Claim) -> str:
    """Return the words for the claim's number, with {} where it stands."""
    if claim.number:
        return claim.number
    return DIFFERENCE if claim.unit == "points" and claim.bound <= 0 else NUMBERS[claim.unit]


def _value(found: Evidence, few: int) -> str:
    if isinstance(found, Share):
        return f"{found.k} of {found.n}"
    return f"{found.mean:.3g}" if isinstance(found, Count) else decimals(found.mean, few)


def _spread(found: Evidence, few: int) -> str:
    """Return the spread behind the number: an interval, or the range of counts."""
    if found.n < 2 or found.low is None or found.high is None:
        return ""
    if not isinstance(found, Count):
        unit = " %" if isinstance(found, Share) else ""
        return f" [{decimals(found.low, few)}, {decimals(found.high, few)}]{unit}"
    if found.least == found.most:
        return " in every seed"
    return f" on average, from {found.least:g} to {found.most:g}"


def _ranging(verdict: Verdict, few: int) -> str:
    """Return ', ranging from -0.94 to -0.01', the means that the number averages over; or ''."""
    least, most = (decimals(end(verdict.parts, default=0.0), few) for end in (min, max))
    return "" if least == most else f", ranging from {least} to {most}"


def _sure(verdict: Verdict, found: Evidence) -> str:
    """Return ' (10 seeds, q = .031)': the number of seeds, and q of a decided verdict if known."""
    parts, claim = [], verdict.claim
    if found.n < claim.planned:
        parts.append(f"{found.n} of {claim.planned} planned seeds")
    elif found.n > (most := rules.most_planned(claim.unit)):
        parts.append(f"{found.n} seeds, extended from {most} planned ones")
    elif not isinstance(found, Share):  # which names them itself
        parts.append(f"{found.n} seeds")
    if verdict.q is not None and verdict.word in DECIDED:
        q = as_q(verdict.q)
        above = f", above {FALSE_SHARE:g}" if verdict.q > FALSE_SHARE else ""
        parts.append((f"q {q}" if q.startswith("<") else f"q = {q}") + above)
    return f" ({', '.join(parts)})" if parts else ""


def _difference(verdict: Verdict) -> str:
    """Return 'any difference is within 1 point', or that it has the opposite sign."""
    what = "the difference has the opposite sign and" if verdict.is_opposite else "any difference"
    return f"{what} is within {_margin(verdict.claim)}"


def _margin(claim: Claim) -> str:
    """Return what counts as no difference: '1 point', or 'the margin' where there is no number."""
    return "the margin" if claim.no_difference is None else _amount(claim.no_difference, claim.unit)


def _amount(value: float, unit: Unit) -> str:
    """Format '1 point', '5 %', '0.5 points'."""
    if unit == "cost":
        return f"{value:g} %"
    if unit in ("seeds", "other"):
        return f"{value:g}"
    return f"{value:g} {unit.removesuffix('s') if value == 1 else unit}"


def missing(verdict: Verdict) -> str:
    """Return why a claim is undecided or cannot be tested, as a clause; '' for other words."""
    found = verdict.evidence
    if verdict.word != "undecided" or found is None:
        return verdict.reason or ""
    if found.n < 2:
        return "a single seed decides nothing"
    if isinstance(found, Count):
        return "seeds lie on both sides of the bound"
    needed = rules.seeds_needed(found, verdict.claim.bound, verdict.claim.no_difference)
    if needed is None:
        return f"more than {rules.MOST} seeds would be needed"
    return f"about {needed} seeds would decide it"


def wordings() -> str:
    """Return the table of all wordings as Markdown."""
    rows = [
        [f"*{word}*", tier, frame.replace("{", "*").replace("}", "*")]
        for word, frames in WORDINGS.items()
        for tier, frame in frames.items()
    ]
    return verdicts.markdown([["word", "tier", "sentence"], *rows])


# ---------------------------------------------------------------- form of statements

_STARTS = (
    "Against that", "And", "Before that", "But", "It", "Nor", "Of them", "So", "That", "The cause",
    "Then", "There", "These", "They", "This", "Those",
)  # fmt: skip
"""Beginnings of statements that depend on the one before."""
_FITS = {
    r"[A-Z].*\.": "must start with a capital and end with a period",
    r"(?!.*\. )(?!.*[:;?!]).*": "must be one sentence without a colon or semicolon",
    r"(?!.* [-–] ).*": "must have no dash between words",
    r"[^()]*(\([^()]*\)[^()]*)?": "may have one pair of parentheses",
    rf"(?!({'|'.join(_STARTS)})\b).*": "must not need the statement before it",
}


def misfit(claim: Claim) -> str | None:
    """Return why the claim does not fit the sentences above; None if it does."""
    own = claim.clause
    text = claim.statement if own is None else f"{own[:1].upper()}{own[1:]}."
    return next((why for rule, why in _FITS.items() if not re.fullmatch(rule, text)), None)


# ---------------------------------------------------------------- abstracts


def abstract(found: Sequence[Verdict]) -> str:
    """Return the abstract of a paper from its verdicts."""
    return " ".join(map(sentence, verdicts.chosen(found)))


def legend(text: str) -> str:
    """Return what explains the numbers in these sentences."""
    return f"{LEGEND} {RANGES}" if "ranging from" in text else LEGEND


def counted(found: Sequence[Verdict]) -> str:
    """Summarise as '32 claims: 14 reproduced, 5 not reproduced'."""
    return f"{len(found)} claims: {by_word(found)}"


def by_word(found: Sequence[Verdict]) -> str:
    """Count verdicts as '14 reproduced, 5 not reproduced'."""
    words = [one.word for one in found]
    return ", ".join(f"{words.count(word)} {word}" for word in COLOURS if word in words)


def placeholder() -> "DisplayHandle":
    """Reserve the place of a notebook's abstract until its verdicts are known (`in_words`)."""
    from IPython.display import DisplayHandle, Markdown

    handle = DisplayHandle("abstract")
    handle.display(Markdown("*The abstract appears here once all cells have run.*"))
    return handle


def in_words(found: Sequence[Verdict]) -> "Markdown":
    """Return the abstract for a paper's page; no q, which concerns a whole study."""
    from IPython.display import Markdown

    text = abstract(found)
    return Markdown(f"**What was found.** {text}\n\n*{legend(text)} {counted(found)}.*")


# ---------------------------------------------------------------- the page of a study


def page(study: Path) -> str:
    """Return all papers of the study in the folder `study` as Markdown, with q over all of them.

    InputError if none has metrics.
    """
    found = verdicts.of_study(study)
    every = [verdict for paper in found.values() for verdict in paper]
    sentences = " ".join(map(abstract, found.values()))
    parts = [
        f"# What `{study.name}` found\n",
        f"{legend(sentences)} q is corrected for all claims of the study that were tested: of all "
        f"decided verdicts with q up to {FALSE_SHARE:g}, at most {100 * FALSE_SHARE:g} % are "
        f"expected to be wrong. `ticketlab claims --write` renews this page.\n",
        f"**All papers.** {counted(every)}. {verdicts.survivors(verdicts.table(study))}.\n",
    ]
    for paper in in_order(found):
        some = found[paper]
        about = ", ".join(one.claim.id for one in verdicts.chosen(some))
        parts.append(f"## [{title(study / paper / f'{paper}.ipynb')}]({paper}/{paper}.ipynb)\n")
        parts.append(f"{abstract(some)}\n\n*{counted(some)}. The sentences are about {about}.*\n")
    return "\n".join(parts)


def title(notebook: Path) -> str:
    """Return the heading of a paper's page, or its name if there is no page yet."""
    if not notebook.exists():
        return notebook.stem
    return "".join(read_json(notebook)["cells"][0]["source"]).partition("\n")[0].lstrip("# ")
