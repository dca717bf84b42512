"""The table of machines: where results were made, with which versions, and how long it took."""

from collections.abc import Sequence
from pathlib import Path

from ticketlab.pipeline import confirmations, machine, timings
from ticketlab.spec import InputError
from ticketlab.study.verdicts import markdown


def table(studies: Sequence[Path]) -> str:
    """A row per study and paper: device, instruction set, versions, minutes of work."""
    rows = [["study", "paper", "device", "instruction set", "system", "versions", "work"]]
    for study in studies:
        for paper, made in machine.read(study).items():
            versions = [
                f"{name} {made[name]}" for name in ("python", "torch", "numpy") if name in made
            ]
            device, known = machine.named(made), [made["instruction_set"], made.get("system", "-")]
            rows.append(
                [study.name, paper, device, *known, ", ".join(versions), work(study, paper)]
            )
    return markdown(rows) if len(rows) > 1 else "Nothing is recorded."


def confirmed(studies: Sequence[Path], root: Path) -> str:
    """A sentence per study that was run afresh elsewhere: on which machines, and what came out."""
    found = confirmations.read(root / confirmations.FILE.name)
    said = {study.name: confirmations.sentence(found, study.name) for study in studies}
    return "".join(f"`{name}`: {text}\n\n" for name, text in said.items() if text)


def work(study: Path, paper: str) -> str:
    """Minutes of all units, as measured: those of the published table, or of the last run here."""
    import pandas as pd

    published = study / "timings.csv"
    try:
        table = pd.read_csv(published) if published.exists() else timings.table(study)
    except InputError:
        return "-"
    rows = table[(table.paper == paper) & (table.arm != timings.PAGE)]
    if rows.empty:
        return "-"
    return f"{rows['sum'].sum() / 60:.1f} min, {rows.workers.max()} at once"
