"""results/STUDY/machine.json: the machine on which each paper's results were made.

Processors, devices and interpreters are named only there, and the file is not compared.
`ticketlab verify` reads it to choose the rule by which two sets of results are compared.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from ticketlab import gpu, instruction_set
from ticketlab.files import read_json, write_json
from ticketlab.spec import ROOT, InputError
from ticketlab.study.results import NUMERICAL

FILE = "machine.json"
LOCKS = ROOT / ".dvc" / "tmp" / "running"
"""The folder of all locks, so that none is left among results."""

Machine = Mapping[str, Any]


def describe(runtime: gpu.Runtime) -> dict[str, Any]:
    """Describe this machine, and the device that `runtime` chooses on it, by product name."""
    device = gpu.choose_device(runtime.device)
    versions = {name: version(name) for name in NUMERICAL}
    here = {"device": gpu.describe(device), "kind": device.type}
    return instruction_set.describe() | versions | here


def note(study: Path, paper: str, runtime: gpu.Runtime) -> None:
    """Record that the paper's units were trained on this machine; other entries stay."""
    record(study, paper, describe(runtime))


def record(study: Path, paper: str, entry: Machine) -> None:
    """Record on which machine the paper's units were trained."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCKS / f"{study.name}.{FILE}.lock"):  # two papers may end at the same time
        # Other entries are left unchanged, including those of earlier versions of this file.
        known = read_json(study / FILE) if (study / FILE).exists() else {}
        write_json(study / FILE, {**known, paper: entry})


def read(folder: Path) -> dict[str, Machine]:
    """Return a folder's machine.json by paper; empty without the file, see `parsed`."""
    path = folder / FILE
    return parsed(path.read_text() if path.exists() else None, str(path))


def named(made: Machine) -> str:
    """Name the device; for a CPU, the model and the number of cores."""
    if made["kind"] != "cpu":
        return str(made["device"])
    return f"{made['processor']}, {made['cores']} cores"


# ---------------------------------------------------------------- rule of comparison


DECIDES = ("kind", "device", "vendor", "processor", "instruction_set", *NUMERICAL)
"""Required keys of an entry."""
NO_BYTES = {"cuda": " (on CUDA the backward pass of max-pooling has no deterministic kernel)"}
"""Reasons why a kind of device cannot guarantee equal bytes."""


def parsed(text: str | bytes | None, name: str = FILE) -> dict[str, Machine]:
    """Return the entries of a machine.json by paper; empty for a revision without the file.

    Raises InputError for a damaged one.
    """
    try:
        found = json.loads(text or "{}")
        entries: dict[str, Machine] = {paper: dict(entry) for paper, entry in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: not readable ({' '.join(str(error).split())})") from None
    for paper, entry in entries.items():
        if lacking := [key for key in DECIDES if key not in entry]:
            raise InputError(f"{name}: {paper}: {lacking[0]} is missing")
    return entries


def rule(then: Mapping[str, Machine], now: Mapping[str, Machine]) -> tuple[bool, str]:
    """Return whether equal bytes are expected, and the rule in words.

    They are if both were made by the same versions on CPUs of one kind, pinned to one instruction
    set; everything else is compared by intervals and verdicts.
    """
    other = "by intervals and verdicts, not by bytes"
    papers = sorted(set(then) & set(now))
    if not papers:
        return False, f"{other}: it is not recorded where these or the committed results were made"
    for paper in papers:
        a, b = _kind(then[paper]), _kind(now[paper])
        if a != b:
            return False, f"{other}: {paper} was made with {a}, here it is made with {b}"
        if (then[paper]["kind"], then[paper]["instruction_set"]) != ("cpu", "avx2"):
            why = NO_BYTES.get(now[paper]["kind"], "")
            return False, f"{other}: {paper} was made with {a}, which promises no bytes{why}"
    return True, f"byte for byte: both were made with {_kind(then[papers[0]])}"


def _kind(machine: Machine) -> str:
    """Describe what decides the bytes. AMD's processors were observed to agree with each other; on
    others MKL chooses kernels by the model."""
    if machine["kind"] != "cpu":
        return str(machine["device"])
    amd = machine["vendor"] == "AuthenticAMD"
    name = "AMD processors" if amd else machine["processor"]
    versions = ", ".join(f"{package} {machine[package]}" for package in NUMERICAL)
    return f"{name}, instruction set {machine['instruction_set']}, {versions}"
