"""Checks of exact statements in notebooks, next to the text: a false statement ends the run."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ticketlab.files import read_json
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.results import Result

Results = Mapping[str, Result]

ORIGIN = (
    "arm",
    "seed",
    "round",
    "level",
    "net",
    "case",
    "data_sha256",
    "init_sha256",
    "trained_mask_sha256",
)
"""Metadata of a ticket that the tables of tickets show."""


class NotExact(AssertionError):
    """A statement on a page does not hold."""


NOTHING: Literal["nothing to check"] = "nothing to check"
"""Result of a check without any rows: the study has no such arm, so nothing was checked."""

Holds = bool | Literal["nothing to check"]


def exactly(statement: str, holds: Holds | np.bool_) -> None:
    """Print that the statement was checked, or had nothing to check; raise NotExact if it is false.

    TypeError for anything but a truth value, since tables and tensors have their own truth rules.
    """
    if isinstance(holds, str) and holds == NOTHING:
        print(f"{NOTHING}: {statement}")
        return
    if not isinstance(holds, bool | np.bool_):
        raise TypeError(f"exactly: {type(holds).__name__} given for {statement!r}, allowed is bool")
    if not holds:
        raise NotExact(f"does not hold: {statement}")
    print(f"checked: {statement}")


# ---------------------------------------------------------------- weights


def same_bits(a: State, b: State) -> bool:
    """Return whether two states have the same names and bitwise the same values."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def same_kept(a: State, b: State, mask: Mask) -> bool:
    """Return whether the weights that the mask keeps are bitwise the same in both."""
    return all(torch.equal(a[n].cpu()[k], b[n].cpu()[k]) for n, k in mask.to("cpu").items())


def same_values(a: State, in_a: Mask, b: State, in_b: Mask) -> bool:
    """Return whether each layer keeps the same values in both, in any order."""
    pairs = [(a[n].cpu()[in_a[n].cpu()], b[n].cpu()[in_b[n].cpu()]) for n in in_a]
    return all(torch.equal(one.sort()[0], two.sort()[0]) for one, two in pairs)


def zero_outside(state: State, mask: Mask) -> bool:
    """Return whether every weight that the mask removes is zero."""
    return not any(bool(state[n].cpu()[~keep].any()) for n, keep in mask.to("cpu").items())


def same_others(a: State, b: State, mask: Mask) -> bool:
    """Return whether everything unprunable (biases, batch-norm state, head) is the same in both."""
    others = [{n: t for n, t in state.items() if n not in mask} for state in (a, b)]
    return same_bits(*others)


# ---------------------------------------------------------------- tickets of a study


def tickets_table(results: Results) -> pd.DataFrame:
    """Return one row per ticket: unit, name, origin, weights left, mask digest, layer densities."""
    rows = []
    for unit, result in results.items():
        for name, ticket in result.tickets.items():
            origin = {key: ticket.metadata.get(key) for key in ORIGIN}
            mask = {
                "alive": ticket.mask.alive,
                "mask_sha256": ticket.mask.digest(),
                "layers": tuple(ticket.mask.densities().items()),
            }
            rows.append({"unit": unit, "ticket": name, **origin, **mask})
    return pd.DataFrame(rows, columns=["unit", "ticket", *ORIGIN, "alive", "mask_sha256", "layers"])


def all_zero_outside(results: Results) -> bool:
    """Return whether the removed weights of every stored ticket with weights are zero."""
    tickets = [ticket for result in results.values() for ticket in result.tickets.values()]
    found = [zero_outside(t.weights, t.mask) for t in tickets if t.weights is not None]
    return bool(found) and all(found)


def all_trained(results: Results, folder: Path) -> bool:
    """Return whether every ticket, and every record of a sparse net, matches its trained nets.

    `folder` has the stored units, each with the digests of the zero patterns of its trained nets.
    """
    found = []
    for unit, result in results.items():
        known = set(read_json(folder / f"{unit}.json")["trained_mask_sha256"])
        named = {ticket.metadata["trained_mask_sha256"] for ticket in result.tickets.values()}
        rows = result.record.get("rows", ())
        named |= {r["mask_sha256"] for r in rows if r.get("mask_sha256") and r["sparsity"] > 0}
        found.append(named <= known)
    return bool(found) and all(found)


def all_pruned_in_turn(results: Results, prefix: str = "search/") -> bool:
    """Return whether the nets of every search were trained under the masks of its tickets, in turn.

    Each net was trained under its ticket's mask, or under the previous one, from which the ticket
    was pruned.
    """
    found = []
    for name, result in results.items():
        if name.startswith(prefix):
            turns = [result.tickets[ticket] for ticket in sorted(result.tickets)]
            trained = [ticket.metadata["trained_mask_sha256"] for ticket in turns]
            own = [ticket.mask.digest() for ticket in turns]
            found.append(trained == own or trained[1:] == own[:-1])
    return bool(found) and all(found)


def nested(masks: Iterable[Mask]) -> bool:
    """Return whether no mask keeps a weight that an earlier one has removed."""
    return all(before.contains(after) for before, after in pairwise(masks))


def all_nested(results: Results, prefix: str = "search/") -> bool:
    """Return whether the rounds of every unit whose name starts with `prefix` are nested."""
    found = [result.tickets for name, result in results.items() if name.startswith(prefix)]
    return bool(found) and all(nested(t[name].mask for name in sorted(t)) for t in found)


# ---------------------------------------------------------------- tables


def all_rows(true: "pd.Series[bool]") -> Holds:
    """Return whether the condition is true in every row."""
    return bool(true.all()) if len(true) else NOTHING


def one_value(frame: pd.DataFrame, by: list[str], column: str) -> Holds:
    """Return whether each group of rows has one value of `column`."""
    if frame.empty:
        return NOTHING
    return bool(frame.groupby(by)[column].nunique(dropna=False).eq(1).all())


def same_by(
    a: pd.DataFrame, b: pd.DataFrame, by: list[str], column: str, near: float = 0.0
) -> Holds:
    """Return whether every row of `a` has a partner in `b`, equal in `by`, with the same `column`.

    `near` is the allowed difference of numbers.
    """
    if a.empty:
        return NOTHING
    pairs = a[[*by, column]].merge(b[[*by, column]].drop_duplicates(), on=by, how="left")
    one, two = pairs[f"{column}_x"], pairs[f"{column}_y"]
    close = (one == two) if not near else (one - two).abs() <= near
    return len(pairs) == len(a) and bool(close.all())
