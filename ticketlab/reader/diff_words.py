"""What changed between two revisions, in sentences that are computed from claims and numbers."""

from collections import Counter
from collections.abc import Sequence

from ticketlab import labels
from ticketlab.reader import findings
from ticketlab.reader.diff import ClaimChange, Shift
from ticketlab.reader.diff_curves import Difference
from ticketlab.study.claims import Claim
from ticketlab.study.stats import Count, Evidence, Share
from ticketlab.study.verdicts import chosen

MINUS = "_minus_"
PLAIN = "differences"
"""Where metrics have differences of arms on the paper's own data."""
MOST = 3
"""Arms, or kinds of flips, that a sentence names."""

# ---------------------------------------------------------------- claims


def headlines(changes: Sequence[ClaimChange]) -> list[str]:
    """Return a sentence for each number of the paper's abstract that is another one."""
    by_claim = {one.claim: one for one in changes}
    verdicts = [verdict for one in changes if (verdict := one.b or one.a)]
    some = [by_claim[verdict.claim.id] for verdict in chosen(verdicts)]
    return [sentence(one) for one in some if one.changed and not one.one_sided]


def sentence(change: ClaimChange) -> str:
    """Return 'The search saves 83.10 %, up from 71.00 by 12.10 [10.20, 14.00] (10 seeds, paired).'

    And what became of the verdict, where it is another one.
    """
    text = _numbers(change)
    return f"{text[:1].upper()}{text[1:]}{_flip(change)}."


def _numbers(change: ClaimChange) -> str:
    a, b = (side.evidence if side else None for side in (change.a, change.b))
    known = change.b or change.a
    assert known is not None
    if a is None and b is None:
        return f"{change.claim} has no number in either revision"
    if b is None:
        return f"{measured(known.claim, a)} before, and nothing was measured now"
    if a is None:
        return f"{measured(known.claim, b)}, and nothing was measured before"
    now = measured(known.claim, b)
    if type(a) is not type(b):
        return f"{now}; before, it was another kind of number, {value(a)}"
    if value(a) == value(b) and not (change.shift and change.shift.is_clear):
        return f"{now}, as before"
    return f"{now}, {_moved(a, b, change.shift)}"


def measured(claim: Claim, found: Evidence | None) -> str:
    """Return 'PrAC minus IMP is -0.31 points': the claim's number in the claim's own words."""
    return "" if found is None else _phrase(claim).format(value(found))


def _phrase(claim: Claim) -> str:
    pairs = [part for part in claim.metric.split(".") if MINUS in part]
    if claim.number or not pairs or claim.unit not in ("points", "rounds"):
        return findings.phrase(claim)
    before = claim.metric.split(".")[0]
    about = "" if before in (*pairs, PLAIN) else f"{labels.label(before).replace('_', ' ')}: "
    return f"{about}{labels.label(pairs[-1]).replace('_', ' ')} is {{}} {claim.unit}"


def value(found: Evidence) -> str:
    """Return the number alone, without its interval: '-0.31', '19 of 20'."""
    return f"{found.k} of {found.n}" if isinstance(found, Share) else f"{found.mean:.2f}"


def _moved(a: Evidence, b: Evidence, shift: Shift | None) -> str:
    """Return 'up from 71.00 by 12.10 [10.20, 14.00] (10 seeds, paired)'."""
    way = "up" if b.mean > a.mean else "down"
    if shift is None:
        return f"{way} from {value(a)}"
    by = amount(shift)
    if shift.is_clear or shift.difference.low is None:
        return f"{way} from {value(a)} by {by}"
    return f"{value(a)} before: no clear difference, {shift.difference.mean:+.2f}{spread(shift)}"


def amount(shift: Shift) -> str:
    """Return the size of a shift without its sign: '12.10 [10.20, 14.00] (10 seeds, paired)'."""
    size = f"{abs(shift.difference.mean):.2f}"
    if shift.exact:
        return f"exactly {size} in each of {shift.difference.n} seeds"
    return size + spread(shift, turned=shift.difference.mean < 0)


def spread(shift: Shift, turned: bool = False) -> str:
    """Return ' [10.20, 14.00] (10 seeds, paired)' of a shift, or of its negative."""
    found, seeds = shift.difference, _seeds(shift)
    if found.low is None or found.high is None or found.n < 2:
        return f" ({seeds})"
    low, high = (-found.high, -found.low) if turned else (found.low, found.high)
    if isinstance(found, Count):
        return f", from {low:g} to {high:g} ({seeds})"
    return f" [{low:.2f}, {high:.2f}] ({seeds})"


def _seeds(shift: Shift) -> str:
    n = shift.difference.n
    if shift.paired:
        return f"{n} seed{'s' * (n != 1)}, paired"
    return "{} and {} seeds, not paired".format(*shift.sides)


def _flip(change: ClaimChange) -> str:
    if not (change.flipped and change.a and change.b):
        return ""
    return f"; the verdict goes from {change.a.word} to {change.b.word}"


def counted(flips: Sequence[ClaimChange]) -> str:
    """Return '2 from undecided to reproduced, 1 from ...' of flipped verdicts."""
    pairs = Counter((one.a.word, one.b.word) for one in flips if one.a and one.b)
    named = [f"{n} from {a} to {b}" for (a, b), n in pairs.most_common(MOST)]
    rest = sum(pairs.values()) - sum(n for _, n in pairs.most_common(MOST))
    return ", ".join([*named, f"{rest} others"] if rest else named)


# ---------------------------------------------------------------- curves


def moved(differences: Sequence[Difference]) -> str:
    """Return '2 of 5 arms moved: IMP is higher by 1.20 [0.80, 1.60] (3 seeds).'; farthest first."""
    if not differences:
        return "No arm has a seed and a range of x in both revisions, so none can be paired."
    clear = [one for one in differences if one.word in ("higher", "lower")]
    if not clear:
        same = sum(one.identical for one in differences)
        return f"No arm clearly moved; {same} of {len(differences)} are identical."
    clear.sort(key=lambda one: -abs(one.difference.mean))
    named = [f"{labels.label(one.arm)} is {one.word} by {by(one)}" for one in clear[:MOST]]
    rest = ", and others less" if len(clear) > MOST else ""
    return f"{len(clear)} of {len(differences)} arms moved: {', '.join(named)}{rest}."


def by(one: Difference) -> str:
    """Return how far an arm moved, without the sign."""
    return amount(Shift(one.difference, paired=True))
