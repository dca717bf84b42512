"""The stored tickets in results/STUDY/runs: a table of all, and the provenance of one."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.files import is_foreign, read_safetensors_header
from ticketlab.pruning.masks import Mask
from ticketlab.spec import ROOT, InputError
from ticketlab.tickets import huggingface, onnx_file, outside
from ticketlab.tickets.ticket import Ticket, load_ticket

RESULTS = ROOT / "results"
COLUMNS = ("study", "paper", "arm", "seed", "at", "sparsity", "holds", "path")


def tickets(
    study: str = "",
    paper: str = "",
    arm: str = "",
    seed: int | None = None,
    results: Path = RESULTS,
) -> pd.DataFrame:
    """Return every stored ticket with COLUMNS, read from file headers; empty filters select all.

    `arm` selects by a part of its name. InputError if nothing is left, listing what there is.
    """
    paths = sorted(results.glob(f"{study or '*'}/runs/*/**/*.safetensors"))
    paths = [path for path in paths if not _hidden(path.relative_to(results))]
    if not paths:
        where = f"{results.name}/{study or 'STUDY'}/runs"
        raise InputError(f"tickets: none in {where}, run `dvc repro` or `dvc pull` first")
    found = pd.DataFrame([_row(path, results) for path in paths], columns=list(COLUMNS))
    for column, wanted in (("paper", paper), ("seed", seed)):
        if wanted not in ("", None):
            found = _chosen(found, column, found[column] == wanted, wanted)
    return _chosen(found, "arm", found.arm.str.contains(arm, regex=False), arm)


def _chosen(found: pd.DataFrame, column: str, rows: Any, wanted: object) -> pd.DataFrame:
    if not rows.any():
        have = ", ".join(map(str, sorted(found[column].unique())))
        raise InputError(f"{column}: no ticket has {wanted!r}, there are: {have}")
    chosen: pd.DataFrame = found[rows].reset_index(drop=True)
    return chosen


def _hidden(path: Path) -> bool:
    """Return whether a file belongs to a run that has not ended."""
    return any(part.startswith(".") for part in path.parts)


def _row(path: Path, results: Path) -> tuple[object, ...]:
    header, holds = read_header(path)
    study, _, paper, *unit = path.relative_to(results).parts
    facts = header["metadata"]
    return (
        study,
        paper,
        arm_of(facts, unit),
        facts.get("seed", "-"),
        place_of(facts, path.stem),
        round(facts.get("sparsity", float("nan")), 4),
        holds,
        path.relative_to(results.parent).as_posix(),
    )


def place_in_results(path: str) -> str:
    """Return 'desk/colt/search/imp/seed-0/round-03' of 'results/desk/runs/colt/search/...'."""
    _, study, _, *rest = Path(path).with_suffix("").parts
    return "/".join([study, *rest])


def read_header(path: Path) -> tuple[dict[str, Any], str]:
    """Return a ticket's header, and what it holds in words; its hashes are not checked."""
    tensors, header = read_safetensors_header(path)
    if not isinstance(header, dict) or not isinstance(header.get("metadata"), dict):
        raise InputError(f"{path}: not a readable ticket (no metadata)")
    return header, _held({name.partition(".")[0] for name in tensors})


def _held(parts: Collection[str]) -> str:
    if {"weight", "logits"} <= set(parts):
        return "mask, weights and outcome"
    return "mask and weights" if "weight" in parts else "mask"


def arm_of(facts: Mapping[str, Any], unit: list[str]) -> str:
    """Return the recorded arm; for Plant 'n' Seek including mother and method."""
    named = [facts[key] for key in ("task", "mother", "regime", "arm") if key in facts]
    return "/".join(map(str, named or unit[:-2]))


def place_of(facts: Mapping[str, Any], stem: str) -> str:
    """Return a ticket's place within its arm: a round, a level, or the file's own name for it."""
    for key in ("round", "level"):
        if key in facts:
            return f"{key} {facts[key]:g}"
    return stem.rpartition("-")[2]


# ---------------------------------------------------------------- one ticket


def describe(path: Path) -> str:
    """Describe a ticket's origin and what it keeps, verifying its hashes; InputError on failure.

    Of another project's file it describes the mask.
    """
    if huggingface.is_folder(path):
        return _described(huggingface.read(path), f"{path}: the tensors match their SHA-256")
    if path.suffix == ".onnx":
        return _described(onnx_file.read(path), f"{path}: an ONNX file of ticketlab")
    if path.exists() and is_foreign(path):
        found = outside.read(path)
        head = f"{path}: {outside.FORMS[found.form]}; no origin and no hash in it"
        return "\n".join([head, "", layer_table(found.mask).to_string(index=False)])
    return _described(load_ticket(path), f"{path}: the file matches its SHA-256")


def _described(ticket: Ticket, head: str) -> str:
    parts = {"weight": ticket.weights, "logits": ticket.outcome}
    holds = _held([name for name, part in parts.items() if part is not None])
    facts = facts_of(ticket.metadata) | {"holds": holds}
    width = max(map(len, facts))
    order = sorted(facts, key=lambda key: (key.startswith("parameters."), key))
    lines = [f"{key.ljust(width)}  {facts[key]}" for key in order]
    return "\n".join([head, "", *lines, "", layer_table(ticket.mask).to_string(index=False)])


def layer_table(mask: Mask) -> pd.DataFrame:
    """Return one row per layer, and one for all of them: shape, weights, kept, density."""
    frame = mask.table().rename(columns={"weights": "total"})
    frame.insert(1, "shape", [" x ".join(map(str, keep.shape)) for keep in mask.values()])
    whole = ("all prunable", "", mask.total, mask.alive, mask.density)
    frame = pd.concat([frame, pd.DataFrame([whole], columns=frame.columns)], ignore_index=True)
    return frame.round({"density": 4})


def facts_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as dotted keys and short texts, lists as JSON."""
    found: dict[str, str] = {}
    for key, value in metadata.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{key}.{inner}": text for inner, text in facts_of(value).items()}
        else:
            found[key] = value if isinstance(value, str) else json.dumps(value)
    return found
