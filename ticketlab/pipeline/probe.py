"""How long a study takes on this device, and which epochs and seeds fit into a given time.

Each net is trained for a few seconds; a paper's expected image passes divided by that speed are its
seconds. `fitted` documents the rule by which a study is shortened.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from ticketlab.pipeline import params
from ticketlab.pipeline.pieces import LONGEST, MARGIN
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import Spec
from ticketlab.study.forecast import Job
from ticketlab.training.recipe import Step

Block = Mapping[str, Any]
"""The parameters of a study by paper, as in its file."""

SECONDS = 4.0
"""Seconds of measurement per net."""
SHARES = [share / 20 for share in range(5, 21)]
"""Shares of all lengths to try, from a quarter to the whole."""
SHORTEST = 4.0
"""Minimum number of epochs of a shortened training, unless it had fewer."""
FEWEST = 2
"""Number of seeds that an interval needs."""

# ---------------------------------------------------------------- speed


@dataclass(frozen=True)
class Speed:
    """One net of a paper: image passes of the whole study, and its passes per second."""

    paper: str
    net: str
    passes: float
    rate: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole study, one training at a time."""
        return self.passes / self.rate


def measured(
    papers: Mapping[str, Spec], seconds: float = SECONDS, tell: Callable[[str], None] = print
) -> list[Speed]:
    """Measure each net of each paper, training it for about `seconds`."""
    found = []
    for paper, values in papers.items():
        for job in PAPERS[paper].jobs(values):
            found.append(Speed(paper, job.net, job.passes, _rate(job, paper, seconds)))
            tell(f"{paper}: {job.net} {found[-1].rate:,.0f} images/s")
    return found


def _rate(job: Job, paper: str, seconds: float) -> float:
    """Measure passes per second, including the paper's work besides training."""
    return job.speed(seconds) / PAPERS[paper].beside


def seconds_of(papers: Mapping[str, Spec], speeds: Sequence[Speed]) -> float:
    """Return the seconds of a study whose nets have these speeds, in the order of its jobs."""
    passes = [job.passes for name, values in papers.items() for job in PAPERS[name].jobs(values)]
    return sum(work / speed.rate for work, speed in zip(passes, speeds, strict=True))


def table(papers: Mapping[str, Spec], speeds: Sequence[Speed]) -> pd.DataFrame:
    """Return one row per net: speed, image passes, minutes, and minutes per seed."""
    rows = []
    for one in speeds:
        minutes, seeds = one.seconds / 60, len(papers[one.paper].seeds)  # type: ignore[attr-defined]
        rows.append((one.paper, one.net, f"{one.rate:,.0f}", f"{one.passes / 1e6:.1f} M",
                     f"{minutes:.1f}", f"{minutes / seeds:.1f}"))  # fmt: skip
    columns = ["paper", "net", "images/s", "image passes", "minutes", "per seed"]
    return pd.DataFrame(rows, columns=columns)


# ---------------------------------------------------------------- what fits


@dataclass(frozen=True)
class Fit:
    """A version of a study: the share of its lengths, its seeds, and its seconds."""

    block: dict[str, Any]
    share: float
    seeds: int
    seconds: float


def fitted(block: Block, cost: Callable[[Block], float], seconds: float) -> Fit:
    """Return the longest version of a study that costs at most `seconds`, by this rule.

    First all trainings are shortened: every length of every paper is multiplied by one share, the
    largest of SHARES that fits (see `shortened`). If even the smallest does not fit, one seed is
    removed and the share chosen again, down to FEWEST seeds. If nothing fits, the smallest version
    is returned, which costs more than `seconds`.
    """
    most = max(len(paper["seeds"]) for paper in block.values())
    for seeds in range(most, min(FEWEST, most) - 1, -1):
        few = with_seeds(block, seeds)
        fitting = bisect_right(SHARES, seconds, key=lambda share: cost(shortened(few, share)))
        if fitting or seeds <= FEWEST:
            share = SHARES[max(0, fitting - 1)]
            found = shortened(few, share)
            return Fit(found, share, seeds, cost(found))
    raise AssertionError("a study has a seed")


def with_seeds(tree: Any, most: int) -> Any:
    """Keep the first `most` seeds of every list of seeds."""
    if isinstance(tree, Mapping):
        return {
            key: inner[:most] if key == "seeds" and isinstance(inner, list)
            else with_seeds(inner, most)
            for key, inner in tree.items()
        }  # fmt: skip
    return [with_seeds(inner, most) for inner in tree] if isinstance(tree, list) else tree


INSIDE = ("milestones", "warmup")
"""Points within a training, which scale with its `length`, except those in %."""
LENGTHS = ("length", "round_length")
COUNTS = ("ramp", "least_iterations", "el2n_epochs")
"""Parameters that are numbers of iterations or epochs but have no unit in their text."""


def shortened(tree: Any, share: float) -> Any:
    """Return parameters with all lengths scaled by a share.

    Epochs stay whole and at least SHORTEST, or as few as they were. Points within a training keep
    their relative position; iterations and ramps are scaled by the share.
    """
    if isinstance(tree, list):
        return [shortened(inner, share) for inner in tree]
    if not isinstance(tree, Mapping):
        return tree
    new = {key: _shorter(key, inner, share) for key, inner in tree.items()}
    if "length" in tree:
        before, after = Step.parse(tree["length"]), Step.parse(new["length"])
        new |= {key: _moved(tree[key], after.value / before.value) for key in INSIDE if key in tree}
    return new


def _shorter(key: str, value: Any, share: float) -> Any:
    if key in LENGTHS:
        step = Step.parse(value)
        if step.unit == "it":
            return str(Step(max(1, round(step.value * share)), "it"))
        least = min(step.value, SHORTEST)
        return str(Step(max(least, round(step.value * share)), step.unit))
    if key in COUNTS:
        return max(min(1, value), round(value * share))
    return shortened(value, share)


def _moved(points: Any, ratio: float) -> Any:
    """Scale the milestones or warm-up of a training whose length has changed by a ratio."""
    if isinstance(points, list):
        return [_moved(point, ratio) for point in points]
    step = Step.parse(points)
    if step.unit == "%":
        return points
    value = round(step.value * ratio) if step.unit == "it" else round(step.value * ratio, 2)
    return str(Step(value, step.unit))


# ---------------------------------------------------------------- output


def changes(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yield KEY=VALUE for each parameter that differs, as `ticketlab study new` takes them."""
    if before == after:
        return
    if isinstance(before, Mapping):
        for key in before:
            yield from changes(before[key], after[key], f"{place}.{key}" if place else key)
    else:
        yield f"{place}={after if isinstance(after, str) else json.dumps(after)}"


def slow_units(papers: Mapping[str, Spec], speeds: Sequence[Speed]) -> Iterator[str]:
    """Yield a line for each unit that is too long for a piece."""
    for paper, values in papers.items():
        slowest = min(speed.rate for speed in speeds if speed.paper == paper)
        for unit in chain.from_iterable(PAPERS[paper].planned(values)):
            if MARGIN * unit.passes / slowest > LONGEST:
                minutes = unit.passes / slowest / 60
                yield f"{paper}: {unit.name} takes {minutes:.1f} minutes, too long for a piece"


def summary(study: str, fit: Fit, seconds: float, given: float) -> str:
    """Summarise how long a study takes and which version fits."""
    takes = f"{study}: {seconds / 60:.1f} minutes here"
    if seconds <= given:
        return f"{takes}, which fits into {given / 60:g}"
    form = f"{fit.share:.0%} of its lengths and {fit.seeds} seeds it takes {fit.seconds / 60:.1f}"
    if fit.seconds <= given:
        return f"{takes}, but the limit is {given / 60:g}; with {form}"
    over = (fit.seconds - given) / 60
    return f"{takes}; even with {form}, {over:.1f} minutes too many: remove papers"


def cost_with(speeds: Sequence[Speed]) -> Callable[[Block], float]:
    """Return a function for the seconds of a study's parameters on nets of these speeds."""
    return lambda block: seconds_of(params.validated(dict(block), "probe"), speeds)
