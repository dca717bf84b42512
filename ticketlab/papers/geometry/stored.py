"""The papers' own stored units on their own beds: how to find them, and the tickets in them.

Each paper's own functions make these units, so their keys are those of the paper's own study and
what it has trained is reused. Left out is what keeps no trained outcome (the rounds between the
stored ones, PrAC with CET only, IMP in PrAC's iterations), and what is a variant of an arm here:
COLT on random images, with more copies, per layer or rewound late, IMP in half of COLT's rounds,
PrAC's sizes with random samples, DLTH's further arms and learning rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from typing import Any, Protocol

from ticketlab.data.sets import load
from ticketlab.papers.colt import study as colt
from ticketlab.papers.colt.params import MATCHED, ColtParams, Transfer
from ticketlab.papers.colt.params import check as check_colt
from ticketlab.papers.dlth import study as dlth
from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.geometry.params import (
    BEFORE,
    STORED,
    ColtStored,
    DlthStored,
    GeometryParams,
    GeometrySetting,
    OwnBed,
    PracStored,
)
from ticketlab.papers.prac import study as prac
from ticketlab.papers.prac.params import PracParams, PracSetting
from ticketlab.papers.prac.retraining import random_ladder, score_tickets
from ticketlab.spec import InputError, Spec
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit
from ticketlab.tickets.ticket import Ticket, round_name

Found = Mapping[str, Result]
Way = tuple[str, str, str]
"""A line: the ticket it starts from, what its other end is called, and the ticket there."""


class Stored(Protocol):
    """A paper's own units on its bed, by the names that they have in the paper's own study."""

    @property
    def params(self) -> Spec:
        """The paper's own parameters."""

    @property
    def bases(self) -> tuple[str, ...]:
        """The arms to whose tickets lines are drawn."""

    @property
    def ladders(self) -> tuple[str, ...]:
        """The arms whose successive tickets come from one search."""

    def check(self) -> None:
        """Reject parameters as the paper's own study does."""

    def searches(self) -> list[Unit]:
        """Return the units that depend on no other."""

    def scorings(self, found: Found) -> list[Unit]:
        """Return the units that follow from the results of the searches."""

    def setting(self, bed: OwnBed) -> GeometrySetting:
        """Return the paper's own training on the bed."""

    def trained(self, found: Found, seed: int) -> dict[str, list[Ticket]]:
        """Return the tickets of each arm of a seed, the dense net's first."""


def of(params: GeometryParams, bed: OwnBed) -> Stored | None:
    """Return how a bed's own units are found, or None if the study leaves them out."""
    match bed.stored:
        case ColtStored():
            return Colt.at(params, bed)
        case PracStored():
            return Prac.at(params, bed)
        case DlthStored():
            return Dlth.at(params, bed)
    return None


# ---------------------------------------------------------------- COLT


@dataclass(frozen=True)
class Colt:
    """COLT's search, IMP, IMP at COLT's pace, and random masks of COLT's sparsities."""

    params: ColtParams
    bases = ("imp", MATCHED)
    ladders = ("imp", MATCHED, "colt")

    @classmethod
    def at(cls, params: GeometryParams, bed: OwnBed) -> "Colt":
        """Return COLT's own units on the bed."""
        assert isinstance(bed.stored, ColtStored)
        own_split = bed.stored.validation
        update = {} if own_split is None else {"validation": own_split}
        data = bed.data.model_copy(update=update)
        own = {
            **_shared(params, bed), "data": data, "imp_rate": bed.rate, "further": (),
            "max_rounds": bed.max_rounds, "levels": bed.levels,
            "transfer": Transfer(data=data, seeds=0),
        }  # fmt: skip
        return cls(ColtParams(**own | _fields(bed.stored, "paper", "validation")))

    @property
    def main(self) -> str:
        """The arm of COLT's class split."""
        return self.params.main[0].name

    def check(self) -> None:
        """Reject parameters as COLT's study does."""
        check_colt(self.params)

    def searches(self) -> list[Unit]:
        """Return COLT's and IMP's searches."""
        return colt.search_units(self.params, self.params.points[0])

    def scorings(self, found: Found) -> list[Unit]:
        """Return IMP at COLT's pace, and the trainings of COLT's tickets and of random masks."""
        wanted = (f"search/{MATCHED}/", f"score/{self.main}/", "score/random/")
        units = colt.follow_up_units(self.params, self.params.points[0], found)
        return [unit for unit in units if unit.name.startswith(wanted)]

    def setting(self, bed: OwnBed) -> GeometrySetting:
        """Return COLT's own training on the bed."""
        return GeometrySetting.of(self.params, name=bed.name, levels=bed.levels)

    def trained(self, found: Found, seed: int) -> dict[str, list[Ticket]]:
        """Return the tickets of each arm of a seed."""
        units = {"imp": "search/imp", MATCHED: f"search/{MATCHED}", "colt": f"score/{self.main}",
                 "random": "score/random"}  # fmt: skip
        return _of_seed(found, seed, units)


# ---------------------------------------------------------------- PrAC


@dataclass(frozen=True)
class Prac:
    """PrAC's search, IMP, and random pruning."""

    params: PracParams
    bases = ("imp",)
    ladders = ("imp", "prac")

    @classmethod
    def at(cls, params: GeometryParams, bed: OwnBed) -> "Prac":
        """Return PrAC's own units on the bed."""
        assert isinstance(bed.stored, PracStored)
        own = _shared(params, bed) | _fields(bed.stored, "paper")
        return cls(PracParams(**own, ablation_levels=bed.stored.levels, ablation_seeds=0))

    def check(self) -> None:
        """Reject parameters as PrAC's study does."""
        prac.check(self.params)

    def searches(self) -> list[Unit]:
        """Return PrAC's and IMP's searches."""
        wanted = ("search/main/imp/", "search/main/prac/")
        return [u for u in prac.first_searches(self.params) if u.name.startswith(wanted)]

    def scorings(self, found: Found) -> list[Unit]:
        """Return the trainings of PrAC's tickets and of random pruning."""
        names = [round_name(level) for level in self.params.levels]
        units = []
        for seed in self.params.seeds:
            dense = found[f"search/main/imp/seed-{seed}"].tickets[round_name(0)]
            searched = found[f"search/main/prac/seed-{seed}"].tickets
            ladder = random_ladder(dense.mask, self.params.rate, self.params.rounds, seed)
            masks = {
                "prac": {name: searched[name].mask for name in names},
                "random-pruning": {name: ladder[name] for name in names},
            }
            for arm, chosen in masks.items():
                arguments = {
                    "setting": PracSetting.of(self.params, "noise"), "seed": seed, "arm": arm,
                    "chosen": chosen, "dense": dense, "outcomes": True,
                }  # fmt: skip
                passes = prac.training_passes(self.params) * len(chosen)
                name = f"score/main/{arm}/seed-{seed}"
                units.append(Unit(name, score_tickets, arguments, passes))
        return units

    def setting(self, bed: OwnBed) -> GeometrySetting:
        """Return PrAC's own training on the bed."""
        return GeometrySetting.of(self.params, name=bed.name, levels=bed.levels)

    def trained(self, found: Found, seed: int) -> dict[str, list[Ticket]]:
        """Return the tickets of each arm of a seed."""
        units = {"imp": "search/main/imp", "prac": "score/main/prac",
                 "random": "score/main/random-pruning"}  # fmt: skip
        return _of_seed(found, seed, units)


# ---------------------------------------------------------------- DLTH


@dataclass(frozen=True)
class Dlth:
    """RST, one-shot magnitude pruning (LTH), and Scratch, which trains RST's random mask."""

    params: RstParams
    bases = ("lth",)
    ladders = ()

    @classmethod
    def at(cls, params: GeometryParams, bed: OwnBed) -> "Dlth":
        """Return DLTH's own units on the bed."""
        assert isinstance(bed.stored, DlthStored)
        own = _shared(params, bed) | _fields(bed.stored, "paper")
        fine = {"finetune": own.pop("recipe"), "levels": bed.levels}
        del own["rewind"], own["rate"]
        return cls(RstParams(**own, **fine, arms=("scratch", "rst", "lth")))

    def check(self) -> None:
        """Reject parameters as DLTH's study does."""
        dlth.check(self.params)

    def searches(self) -> list[Unit]:
        """Return the units of the dense net, LTH, RST and Scratch."""
        return dlth.first_units(self.params)

    def scorings(self, found: Found) -> list[Unit]:
        """Return none: each arm trains its tickets itself."""
        return []

    def setting(self, bed: OwnBed) -> GeometrySetting:
        """Return DLTH's finetuning on the bed."""
        recipe = self.params.finetune
        return GeometrySetting.of(self.params, name=bed.name, levels=bed.levels, recipe=recipe)

    def trained(self, found: Found, seed: int) -> dict[str, list[Ticket]]:
        """Return the tickets of each arm of a seed."""
        whole = found[f"main/pretrained/seed-{seed}"]
        tags = [f"{100 * level:g}" for level in self.params.levels]
        arms = {
            arm: [found[f"main/{own}-{tag}/seed-{seed}"].tickets["ticket"] for tag in tags]
            for arm, own in {"rst": "rst", "random": "scratch"}.items()
        }
        return {"dense": [whole.tickets["dense"]],
                "lth": [whole.tickets[f"lth-{tag}"] for tag in tags]} | arms  # fmt: skip


# ---------------------------------------------------------------- what all three share


def _shared(params: GeometryParams, bed: OwnBed) -> dict[str, Any]:
    """Return the parameters that a bed and the study name in the words of every paper."""
    names = ("data", "model", "prunable", "recipe", "rewind", "rate")
    own = {name: getattr(bed, name) for name in names}
    return own | {"seeds": params.seeds, "runtime": params.runtime}


def _fields(spec: Spec, *without: str) -> dict[str, Any]:
    return {n: getattr(spec, n) for n in type(spec).model_fields if n not in without}


def _of_seed(found: Found, seed: int, units: Mapping[str, str]) -> dict[str, list[Ticket]]:
    """Return the tickets of a seed that keep their trained outcome by arm, the dense net's first.

    `units` gives each arm's unit without its seed; IMP's first ticket is the dense net's.
    """
    every = {arm: found[f"{unit}/seed-{seed}"].tickets for arm, unit in units.items()}
    kept = {
        arm: [one for one in tickets.values() if one.outcome and one.mask.sparsity]
        for arm, tickets in every.items()
    }
    return {"dense": [every["imp"][round_name(0)]]} | kept


def prefix(bed: OwnBed) -> str:
    """Return the beginning of the names that a bed's own units have in this study."""
    return f"{STORED}{bed.name}/"


def renamed(bed: OwnBed, units: Sequence[Unit]) -> list[Unit]:
    """Return units of the paper's own study under their names in this one; keys stay."""
    return [replace(unit, name=prefix(bed) + unit.name) for unit in units]


def own_names(bed: OwnBed, results: Found) -> dict[str, Result]:
    """Return the results of a bed's own units by the names that the paper's own study gives."""
    own = prefix(bed)
    return {n.removeprefix(own): one for n, one in results.items() if n.startswith(own)}


# ---------------------------------------------------------------- tickets and lines


def chosen(bed: OwnBed, trained: Mapping[str, Sequence[Ticket]]) -> dict[str, Ticket]:
    """Return the tickets to examine by ARM/LEVEL, the dense net as dense/0.

    Of each arm and level it is the ticket nearest in remaining weights (by ratio). InputError for
    an arm without trained tickets.
    """
    found: dict[str, Ticket] = {}
    for arm, tickets in trained.items():
        if not tickets:
            raise InputError(f"own_beds.{bed.name}: no stored ticket of {arm} keeps its outcome")
        for level in bed.levels if arm != "dense" else ():
            found[f"{arm}/{level:g}"] = min(tickets, key=lambda one: _distance(one, level))
    return {"dense/0": trained["dense"][0]} | found


def _distance(ticket: Ticket, level: float) -> float:
    return abs(log((1 - ticket.mask.sparsity) / (1 - level)))


def ways(stored: Stored, bed: OwnBed, tickets: Mapping[str, Ticket]) -> list[Way]:
    """Return the lines to draw between tickets: to the dense net, to the bases, and back a round.

    A base has lines to the bases before it only.
    """
    found: list[Way] = []
    for name in tickets:
        arm, _, level = name.partition("/")
        if arm == "dense":
            continue
        bases = stored.bases[: stored.bases.index(arm)] if arm in stored.bases else stored.bases
        found.append((name, "dense", "dense/0"))
        found += [(name, base, f"{base}/{level}") for base in bases]
    for arm in stored.ladders:
        for before, after in pairwise(bed.levels):
            found.append((f"{arm}/{after:g}", BEFORE, f"{arm}/{before:g}"))
    return found


def passes(bed: OwnBed, tickets: Mapping[str, Ticket]) -> int:
    """Return the images that one more training of every ticket but the dense net sees."""
    return (len(tickets) - 1) * bed.recipe.passes(len(load(bed.data).train))
