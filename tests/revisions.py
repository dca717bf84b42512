"""Snapshots, curves and verdicts of two revisions, made by hand: for tests of what differs."""

import pandas as pd

from ticketlab.reader.snapshots import Curve, Snapshot
from ticketlab.study.claims import Claim, Verdict, Word
from ticketlab.study.stats import Evidence


def snapshot(**facts: object) -> Snapshot:
    """A snapshot with nothing in it but `facts`."""
    empty = {"name": "a", "revision": "0", "params": {}, "metrics": {}, "claims": {}, "curves": {}}
    return Snapshot(**{**empty, **facts})  # type: ignore[arg-type]


def curve(values: dict[int, list[float]], places: list[float], arm: str = "imp") -> Curve:
    """A table of one arm: y of each seed at `places`."""
    rows = [
        (arm, seed, x, y) for seed, ys in values.items() for x, y in zip(places, ys, strict=True)
    ]
    return Curve("x", "y", pd.DataFrame(rows, columns=["arm", "seed", "x", "y"]))


def claim(metric: str = "differences.prac_minus_imp.mean", **facts: object) -> Claim:
    """A headline claim of PrAC on a metric."""
    given = {
        "id": "prac-X", "paper": "prac", "tier": "headline", "statement": "It holds.",
        "source": "here", "metric": metric, "at_least": 0.0, "reference": "dense",
        "studies": ("desk",), **facts,
    }  # fmt: skip
    return Claim.model_validate(given)


def verdict(
    found: Evidence | None, word: Word = "reproduced", about: Claim | None = None
) -> Verdict:
    """A verdict on a claim, with this evidence."""
    return Verdict(about or claim(), word, found)
