"""results/STUDY/machine.json: on which machine each paper's results were made.

Processors, devices and interpreters are named there and nowhere else, and nothing compares the
file. `ticketlab verify` reads it to say by which rule two sets of results are compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ticketlab import gpu, instruction_set
from ticketlab.files import read_json, write_json
from ticketlab.spec import ROOT

FILE = "machine.json"
LOCKS = ROOT / ".dvc" / "tmp" / "running"
"""The folder of all locks: none is left among results."""

Machine = Mapping[str, Any]


def describe(runtime: gpu.Runtime) -> dict[str, Any]:
    """This machine, and the device that `runtime` chooses on it, by product name."""
    device = gpu.choose_device(runtime.device)
    return instruction_set.describe() | {"device": gpu.describe(device), "kind": device.type}


def note(study: Path, paper: str, runtime: gpu.Runtime) -> None:
    """Write down that the paper's units were trained on this machine; others' entries stay."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCKS / f"{study.name}.{FILE}.lock"):  # two papers may end at the same time
        known = read_json(study / FILE) if (study / FILE).exists() else {}
        write_json(study / FILE, {**known, paper: describe(runtime)})


def named(made: Machine) -> str:
    """The device in words; of a CPU the model and how many cores there are."""
    if made["kind"] != "cpu":
        return str(made["device"])
    return f"{made['processor']}, {made['cores']} cores"


# ---------------------------------------------------------------- by which rule to compare


def parsed(text: str | bytes | None) -> dict[str, Machine]:
    """The entries of a machine.json by paper; none for a revision without the file."""
    return dict(json.loads(text)) if text else {}


def rule(then: Mapping[str, Machine], now: Mapping[str, Machine]) -> tuple[bool, str]:
    """Whether the same bytes are to be expected, and the rule in words.

    They are where both were made on CPUs of one vendor, pinned to one instruction set; everything
    else is compared by intervals and verdicts.
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
            return False, f"{other}: {paper} was made with {a}, which promises no bytes"
    return True, f"byte for byte: both were made with {_kind(then[papers[0]])}"


def _kind(machine: Machine) -> str:
    """What decides the bytes besides versions: '{vendor}, avx2' on a CPU, else the product."""
    if machine["kind"] != "cpu":
        return str(machine["device"])
    return f"{machine['vendor']} processors, instruction set {machine['instruction_set']}"
