"""One ticket by its address: `ticketlab.load("desk/colt/imp/seed-100@95")`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ticketlab.pruning.masks import Mask, State
from ticketlab.reader import addresses
from ticketlab.reader.addresses import Address
from ticketlab.reader.inventory import facts_of
from ticketlab.reader.sources import Facts, Source, source_of
from ticketlab.spec import ROOT, InputError
from ticketlab.tickets.ticket import Outcome, Ticket, load_ticket


@dataclass(frozen=True)
class LoadedTicket:
    """A ticket whose hashes were verified, with where it comes from."""

    address: str
    """In full: 'desk/colt/search/imp/seed-100@round-13'."""
    ticket: Ticket
    facts: Facts
    sha256: str
    """Of its file."""

    def __repr__(self) -> str:
        return f"<ticket {self.address}: {100 * self.mask.sparsity:.4g} % removed, {self.holds}>"

    @property
    def mask(self) -> Mask:
        """Which prunable weights it keeps: bool by name of the weight, True is kept."""
        return self.ticket.mask

    @property
    def state(self) -> State | None:
        """The initial or rewound weights, 0 where removed; None if only the mask was stored."""
        return self.ticket.weights

    @property
    def outcome(self) -> Outcome | None:
        """The trained weights and the logits on the test images; None if they were not stored."""
        return self.ticket.outcome

    @property
    def holds(self) -> str:
        """'mask', 'mask and weights', or 'mask, weights and outcome'."""
        return self.facts.holds

    def network(self, trained: bool = False) -> nn.Module:
        """The network on the CPU with the mask applied: removed weights are 0.

        At the initial or rewound weights, or at the trained ones. To train it further, set the
        removed weights to 0 again after each step. InputError if such weights were not stored.
        """
        model = self.ticket.model()
        if trained:
            model.load_state_dict(self._trained().state)
        return model

    def state_dict(self, trained: bool = False) -> State:
        """A copy of the weights that `network` has, without building it."""
        state = self._trained().state if trained else self.state
        if state is None:
            raise InputError(f"{self.address}: only its mask was stored, use .mask")
        return {name: tensor.clone() for name, tensor in state.items()}

    def _trained(self) -> Outcome:
        if self.outcome is None:
            raise InputError(f"{self.address}: its trained weights were not stored")
        return self.outcome

    def card(self) -> str:
        """Where the ticket comes from, as Markdown: study, arm, data, recipe, hashes, scores."""
        facts = facts_of(self.ticket.metadata)
        kept = f"{self.mask.alive:,} of {self.mask.total:,} prunable weights"
        return "\n\n".join([
            f"# {self.address}",
            f"A ticket that keeps {kept} ({100 * self.mask.sparsity:.4g} % removed); "
            f"stored are its {self.holds}.",
            _table("Origin", _origin(facts) | {"instruction set": self.facts.instruction_set}),
            _table("Scores", {key: f"{value:.6g}" for key, value in self.facts.scores.items()}),
            _table("Recipe and parameters", _parameters(facts)),
            _table("SHA-256", _hashes(facts) | {
                "mask": self.mask.digest(), "file": self.sha256, "unit's key": self.facts.key
            }),
        ]) + "\n"  # fmt: skip


def load(address: str, source: str | Path | None = None) -> LoadedTicket:
    """The stored ticket that an address names, its hashes verified.

    `address` is STUDY/PAPER/ARM/seed-N@LEVEL: ARM is the arm's folder or the end of its path,
    LEVEL a sparsity in percent (the nearest ticket within `addresses.TOLERANCE`) or a ticket's name
    such as 'round-03'. `source` is a project's folder, by default this project's, or a release
    archive. Where two units hold the same mask, the one that holds more is taken. InputError, in
    one line with near matches, if there is no such ticket, if there are several, or if its file
    was changed.
    """
    wanted, kept = addresses.parse(address), source_of(Path(source or ROOT))
    paper = _paper(wanted, kept)
    units: dict[str, dict[str, Facts]] = {}
    places = kept.places(paper)
    if not places:
        raise InputError(f"tickets: the units of {paper} keep none, only records")
    for unit in addresses.units_of(wanted, {_unit(place) for place in places}):
        inside = [place for place in places if _unit(place) == unit]
        units[unit] = {place.rpartition("/")[2]: kept.facts(place) for place in inside}
    sparsities = {u: {name: f.sparsity for name, f in names.items()} for u, names in units.items()}
    found = {u: addresses.at_level(wanted, names) for u, names in sparsities.items()}
    read = [_read(kept, paper, u, n, units[u][n]) for u, n in found.items() if n is not None]
    if not read:
        raise addresses.no_level(wanted, sparsities)
    if any(one.mask != read[0].mask for one in read):
        several = " and ".join(one.address for one in read)
        raise InputError(f"address: {address} names several tickets: {several}; take one of these")
    return max(read, key=lambda one: len(one.holds))


def _paper(wanted: Address, source: Source) -> str:
    """'desk/colt', InputError if the source has no such study or paper."""
    if not (known := source.papers()):
        raise InputError("tickets: none here; run in a project's folder, or pass source=FILE")
    addresses.one_of("study", wanted.study, {paper.split("/")[0] for paper in known})
    here = {paper.split("/")[1] for paper in known if paper.startswith(f"{wanted.study}/")}
    return f"{wanted.study}/{addresses.one_of('paper', wanted.paper, here)}"


def _unit(place: str) -> str:
    """'desk/colt/search/imp/seed-100/round-13' -> 'search/imp/seed-100'."""
    return place.split("/", 2)[2].rpartition("/")[0]


def _read(source: Source, paper: str, unit: str, name: str, facts: Facts) -> LoadedTicket:
    with source.opened(f"{paper}/{unit}/{name}") as path:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return LoadedTicket(f"{paper}/{unit}@{name}", load_ticket(path), facts, sha256)


# ---------------------------------------------------------------- the parts of a card


def _origin(facts: Mapping[str, str]) -> dict[str, str]:
    """All that is neither a hash nor a parameter, and the data set."""
    data = [text for key, text in facts.items() if key.endswith(".data.name")]
    return {"data": ", ".join(dict.fromkeys(data))} | {
        key: text
        for key, text in sorted(facts.items())
        if not key.startswith("parameters.") and not key.endswith("sha256")
    }


def _parameters(facts: Mapping[str, str]) -> dict[str, str]:
    """The arguments of its unit by dotted key."""
    given = {key: text for key, text in sorted(facts.items()) if key.startswith("parameters.")}
    return {key.removeprefix("parameters."): text for key, text in given.items()}


def _hashes(facts: Mapping[str, str]) -> dict[str, str]:
    """The hashes of its data and weights."""
    return {key.removesuffix("_sha256"): text for key, text in facts.items() if "sha256" in key}


def _table(title: str, rows: Mapping[str, Any]) -> str:
    """A heading and a table with two columns; a line instead where there is nothing."""
    lines = [f"| {key} | {_cell(text)} |" for key, text in rows.items() if text != ""]
    if not lines:
        return f"## {title}\n\nNot stored with this ticket."
    return "\n".join([f"## {title}", "", "| what | value |", "| --- | --- |", *lines])


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
