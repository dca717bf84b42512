"""Addresses of tickets, STUDY/PAPER/ARM/seed-N@LEVEL, and which stored ticket one names."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ticketlab.spec import InputError

TOLERANCE = 1.25
"""A ticket is at a LEVEL if its density is within this factor of the one asked for: one round at
rate 0.2. So 95 takes sparsities from 93.75 to 96 %, and 80 those from 75 to 84 %."""
FORM = "STUDY/PAPER/ARM/seed-N@LEVEL, e.g. desk/colt/imp/seed-100@95"
_ADDRESS = re.compile(r"([^/@]+)/([^/@]+)/([^@]+)/(seed-\d+)@([^/@]+)")
_PERCENT = re.compile(r"\d+(\.\d+)?%?")


@dataclass(frozen=True)
class Address:
    """A ticket's address, taken apart."""

    study: str
    paper: str
    arm: str
    """The folder of the arm below results/STUDY/runs/PAPER, or the last parts of its path."""
    seed: str
    """'seed-100'"""
    level: str
    """A sparsity in percent, or the name of the ticket's file, such as 'round-03'."""

    def __str__(self) -> str:
        return f"{self.study}/{self.paper}/{self.arm}/{self.seed}@{self.level}"

    @property
    def sparsity(self) -> float | None:
        """The sparsity that `level` asks for, between 0 and 1; None if it is a name."""
        return float(self.level.rstrip("%")) / 100 if _PERCENT.fullmatch(self.level) else None


def parse(text: str) -> Address:
    """Take an address apart; InputError if it does not have the FORM."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise InputError(
            f"address: {text!r}, allowed is {FORM}; "
            "LEVEL is a sparsity in percent or a ticket's name, such as round-03"
        )
    return Address(*found.groups())


# ---------------------------------------------------------------- which ticket an address names


def one_of(key: str, wanted: str, known: Collection[str]) -> str:
    """Return `wanted`; InputError with near matches, or else with what there is, if unknown."""
    if wanted in known:
        return wanted
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    here = sorted(known)
    rest = f" and {len(here) - 8} more" if len(here) > 8 else ""
    there = (
        f"do you mean {' or '.join(near)}?" if near else f"{', '.join(here[:8]) or 'none'}{rest}"
    )
    raise InputError(f"{key}: no ticket has {wanted!r}; {'' if near else 'there are: '}{there}")


def units_of(address: Address, units: Iterable[str]) -> list[str]:
    """The units that arm and seed name: 'search/imp/seed-100' for 'imp', and 'score/imp/seed-100'.

    The shortest paths that end in ARM win, so 'imp' is not 'late/search/imp'. InputError if there
    is no such arm or seed.
    """
    seeds: dict[str, set[str]] = {}
    for unit in units:
        arm, _, seed = unit.rpartition("/")
        seeds.setdefault(arm, set()).add(seed)
    ends = [arm for arm in seeds if f"/{arm}".endswith(f"/{address.arm}")]
    if not ends:
        known = {end for arm in seeds for end in (arm, arm.rpartition("/")[2])}
        one_of("arm", address.arm, known)
    shortest = min(arm.count("/") for arm in ends)
    chosen = [arm for arm in ends if arm.count("/") == shortest]
    one_of("seed", address.seed, {seed for arm in chosen for seed in seeds[arm]})
    return [f"{arm}/{address.seed}" for arm in sorted(chosen) if address.seed in seeds[arm]]


def at_level(address: Address, tickets: Mapping[str, float]) -> str | None:
    """The name of a unit's ticket at the level, of all its tickets with their sparsities.

    The nearest sparsity within TOLERANCE; None if there is none.
    """
    wanted = address.sparsity
    if wanted is None:
        return address.level if address.level in tickets else None
    near = {name: sparsity for name, sparsity in tickets.items() if _is_near(sparsity, wanted)}
    return min(near, key=lambda name: abs(near[name] - wanted), default=None)


def _is_near(sparsity: float, wanted: float) -> bool:
    here, there = 1 - sparsity, 1 - wanted
    return here <= there * TOLERANCE and there <= here * TOLERANCE


def no_level(address: Address, units: Mapping[str, Mapping[str, float]]) -> InputError:
    """The error for a level that no unit has, with what there is."""
    found = {name: sparsity for tickets in units.values() for name, sparsity in tickets.items()}
    there = [f"{name} ({100 * sparsity:.4g} %)" for name, sparsity in sorted(found.items())]
    close = "" if address.sparsity is None else f" within a factor {TOLERANCE} of its density"
    return InputError(
        f"level: {address.study}/{address.paper}/{address.arm}/{address.seed} has no ticket at "
        f"{address.level!r}{close}; there are: {', '.join(there)}"
    )
