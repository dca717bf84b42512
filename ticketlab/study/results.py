"""Results of a study: records and tickets of its units, tables, metrics, provenance."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab import __version__, gpu, instruction_set
from ticketlab.files import read_json, write_atomically, write_json
from ticketlab.pruning.masks import Mask
from ticketlab.pruning.patterns import Patterns, WrongMask, check_trained
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study.fingerprint import fingerprint, strings_in
from ticketlab.study.stats import Measured
from ticketlab.tickets.ticket import Ticket, load_ticket, save_ticket, state_digest

NUMERICAL = ("torch", "torchvision", "numpy")
"""Packages whose version can change a number."""

Made = Mapping[str, str]
"""What decides a unit besides its code and arguments: the `kind` of device, the `instruction_set`,
and the version of each package in NUMERICAL."""
SEEDS = "seeds.csv"
"""Next to a paper's metrics.json: the underlying numbers by seed."""
ELSEWHERE = ".made_elsewhere.json"
"""Next to units that were trained on another machine: the device kind, instruction set and versions
with which all of them were made."""


# ---------------------------------------------------------------- units of a study


@dataclass(frozen=True)
class Result:
    """Return value of a unit of work: a JSON record and named tickets."""

    record: dict[str, Any]
    tickets: Mapping[str, Ticket] = field(default_factory=dict)


def save_result(folder: Path, name: str, key: str, result: Result, trained: Patterns) -> None:
    """Store a finished unit: tickets first, then the record that marks it as complete.

    `trained` are the zero patterns of the nets that the unit has trained; their digests are stored
    too. Raises WrongMask, and stores nothing, if a ticket has another mask than its net.
    """
    for ticket_name, ticket in result.tickets.items():
        try:
            check_ticket(ticket, trained)
        except WrongMask as error:
            raise WrongMask(f"ticket {ticket_name!r}: {error}") from None
    for ticket_name, ticket in result.tickets.items():
        save_ticket(ticket, folder / name / f"{ticket_name}.safetensors")
    content = {
        "key": key,
        "instruction_set": instruction_set.current(),
        "record": result.record,
        "tickets": sorted(result.tickets),
        "trained_mask_sha256": sorted(trained),
    }
    write_json(folder / f"{name}.json", content)


def check_ticket(ticket: Ticket, trained: Patterns) -> None:
    """Raise WrongMask for a ticket whose net or weights have other zeros than its mask."""
    pattern = ticket.metadata.get("trained_mask_sha256", ticket.mask.digest())
    check_trained(ticket.mask, pattern, trained)
    for name, keep in ticket.mask.items():
        if ticket.weights is not None and bool(ticket.weights[name][~keep].any()):
            raise WrongMask(f"its weights {name} are not 0 where its mask removes them")


def with_origin(result: Result, unit: str, folder: Path, arguments: Mapping[str, Any]) -> Result:
    """Return the result with study, paper, unit, parameters and versions in its tickets' metadata.

    A ticket can then be traced without the folder that it came from.
    """
    parameters = {k: _jsonable(v) for k, v in arguments.items() if isinstance(v, Spec)}
    origin = {**_place_of(folder), "unit": unit, "parameters": parameters}
    origin |= {"versions": {"ticketlab": __version__, **_versions()}}
    tickets = {
        name: replace(ticket, metadata={**ticket.metadata, **origin})
        for name, ticket in result.tickets.items()
    }
    return Result(result.record, tickets)


def placed(result: Result, folder: Path) -> Result:
    """Return the result with a folder's study and paper in its tickets' metadata."""
    tickets = {
        name: replace(ticket, metadata={**ticket.metadata, **_place_of(folder)})
        for name, ticket in result.tickets.items()
    }
    return Result(result.record, tickets)


def _place_of(folder: Path) -> dict[str, str | None]:
    """Return the study and paper of a runs folder, or of its staging folder; None elsewhere."""
    root = ROOT / "results"
    if not folder.is_relative_to(root):
        return {"study": None}
    study, _, name, *_ = folder.relative_to(root).parts
    return {"study": study, "paper": name.strip(".").removesuffix(".partial")}


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a unit's JSON file; InputError for a damaged one."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, allowed is a unit's record")
    return content


def load_result(folder: Path, name: str, key: str | None = None) -> Result | None:
    """Return a stored unit, or None if there is none that was made with this `key`."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    content = read_record(path)
    if key is not None and content["key"] != key:
        return None
    paths = {ticket: folder / name / f"{ticket}.safetensors" for ticket in content["tickets"]}
    return Result(content["record"], {ticket: load_ticket(p) for ticket, p in paths.items()})


def forget_others(folder: Path, keep: Iterable[str]) -> None:
    """Remove every file that belongs to no unit in `keep`: other parameters, remains of a kill."""
    needed = {folder / ELSEWHERE}
    for name in keep:
        record = folder / f"{name}.json"
        tickets = read_record(record)["tickets"]
        needed |= {record} | {folder / name / f"{ticket}.safetensors" for ticket in tickets}
    for path in sorted(folder.rglob("*"), reverse=True):  # contents before their folder
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in needed:
            path.unlink()


def unit_key(
    work: Callable[..., Result], arguments: Mapping[str, Any], made: Made | None = None
) -> str:
    """Return a hash of what decides a unit.

    It covers the code of its function (see `fingerprint`), its arguments, and what it was `made`
    with: the instruction set, the kind of device and the versions of packages, by default those of
    this machine.
    """
    parameters = {name: _jsonable(value) for name, value in arguments.items()}
    code = fingerprint(work, save_result, with_origin, strings=strings_in(parameters))
    made = made or made_here(_runtime_of(arguments))
    kind = made["kind"] if _runtime_of(arguments) else "cpu"
    versions = {name: made[name] for name in NUMERICAL}
    decides = [code, parameters, made["instruction_set"], kind, versions]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def made_here(runtime: gpu.Runtime | None) -> dict[str, str]:
    """Return what a unit with this runtime is made with on this machine."""
    kind = "cpu" if runtime is None else gpu.choose_device(runtime.device).type
    return {"kind": kind, "instruction_set": instruction_set.current(), **_versions()}


def made_elsewhere(folder: Path) -> Made | None:
    """Return what a folder's units were made with on another machine; None if made here."""
    path = folder / ELSEWHERE
    return read_json(path) if path.exists() else None


def _jsonable(value: object) -> Any:
    if isinstance(value, Mask):
        return value.digest()
    if isinstance(value, Ticket):  # its content, not its origin
        return [value.mask.digest(), state_digest(value.weights or {})]
    if isinstance(value, Spec):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of a unit's key")


def _runtime_of(arguments: Mapping[str, Any]) -> gpu.Runtime | None:
    """Return the runtime among a unit's arguments, or inside one of them."""
    found = [value.runtime for value in arguments.values() if hasattr(value, "runtime")]
    found += [value for value in arguments.values() if isinstance(value, gpu.Runtime)]
    return found[0] if found else None


def _versions() -> dict[str, str]:
    return {name: version(name) for name in NUMERICAL}


# ---------------------------------------------------------------- folders and tables


def runs_folder(study: str, paper: str) -> Path:
    """Return the folder of the records and tickets of a study's units (DVC cache)."""
    return ROOT / "results" / study / "runs" / paper


def pages_folder(study: str, paper: str) -> Path:
    """Return the folder to which a notebook writes metrics, tables and figures (git).

    `ticketlab run` sets TICKETLAB_PAGES to a staging folder, so that a failed run does not touch
    the last good pages.
    """
    staged = os.environ.get("TICKETLAB_PAGES")
    return Path(staged) if staged else ROOT / "results" / study / paper


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a long-format CSV with numbers to 6 digits; equal content gives equal bytes."""
    text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_atomically(path, text.encode())


def write_curve(
    frame: pd.DataFrame, pages: Path, x: str, y: str, by: Sequence[str] = ("arm",)
) -> None:
    """Write one curve per arm and seed for `dvc plots` to curves/Y_over_X.csv.

    Columns are arm, seed, x and y. The columns `by` together form the arm's name; rows without a
    number are left out.
    """
    arm = frame[list(by)].astype(str).agg(", ".join, axis=1)
    seed = frame.get("seed", 0)
    curve = pd.DataFrame({"arm": arm, "seed": seed, "x": frame[x], "y": frame[y]})
    write_table(curve.dropna(), pages / "curves" / f"{y}_over_{x}.csv")


def write_metrics(metrics: Mapping[str, Any], path: Path) -> None:
    """Write nested numbers as JSON, floats to 6 digits, for `dvc metrics show` and `diff`.

    Also writes seeds.csv, with the numbers by seed behind every interval, share and count.
    """
    write_json(path, _rounded(metrics))
    write_table(seeds_table(metrics), path.with_name(SEEDS))


def seeds_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per metric and seed: its dotted path in metrics.json, the seed, the number.

    Flags are 0 and 1. Numbers that are not by seed (draws of a mask, plain numbers) have no row.
    """
    rows = [
        (name, seed, float(value))
        for name, found in _measured(metrics, ())
        for seed, value in sorted(found.by_seed.items())
    ]
    table = pd.DataFrame(rows, columns=["metric", "seed", "value"])
    return table.sort_values(["metric", "seed"], kind="stable")


def _measured(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Measured]]:
    if isinstance(tree, Measured):
        yield ".".join(path), tree
    elif isinstance(tree, Mapping):
        for key, inner in tree.items():
            yield from _measured(inner, (*path, str(key)))


def study_seeds(study: Path) -> pd.DataFrame:
    """Return all numbers by seed of results/STUDY: columns paper, metric, seed, value."""
    paths = sorted(study.glob(f"*/{SEEDS}"))
    if not paths:
        raise InputError(f"study: no {SEEDS} in {study}, run `dvc repro` first")
    tables = [pd.read_csv(path).assign(paper=path.parent.name) for path in paths]
    return pd.concat(tables)[["paper", "metric", "seed", "value"]]


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def provenance(
    phases: Callable[..., Any], params: Spec, data_sha256: str, folder: Path
) -> dict[str, str]:
    """Return what a number depends on besides parameters and seeds: versions, code, data, device.

    `phases` is the paper's study, `folder` has its units. Machine names appear only in
    results/STUDY/machine.json.
    """
    code = fingerprint(phases, strings=strings_in(params.model_dump(mode="json")))
    made = made_elsewhere(folder) or made_here(_runtime_of({"params": params}))
    kind = {"device": made["kind"], "instruction_set": made["instruction_set"]}
    return {name: made[name] for name in NUMERICAL} | kind | {"code": code, "data": data_sha256}
