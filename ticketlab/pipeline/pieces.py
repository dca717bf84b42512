"""A study in pieces of minutes, on a machine with a GPU; put together on one without.

A folder of pieces has the form of results/STUDY: units in runs/PAPER, with their seconds beside
them, and the device in machine.json. It also has the parameters, study.yaml. A unit is the smallest
piece: one that was cut off is trained again. Nothing here needs git, DVC, Jupyter or a network.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ticketlab import gpu
from ticketlab.files import (
    read_json,
    read_yaml,
    replace_folder,
    write_atomically,
    write_json,
    yaml_text,
)
from ticketlab.pipeline import machine, params, studies, timings
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import InputError, Spec
from ticketlab.study import results, runner
from ticketlab.study.forecast import Job
from ticketlab.study.results import ELSEWHERE, NUMERICAL, Made
from ticketlab.study.runner import Phases, Unit
from ticketlab.study.store import Store

LONGEST = 8 * 60.0
"""Seconds that one unit may be forecast to take."""
MARGIN = 1.2
"""What a forecast is multiplied by: a piece that ends early loses less than one that is cut off."""
WITHOUT_TRAINING = 10.0
"""Forecast of a unit without image passes, in seconds."""
PROBE_SECONDS = 4.0
"""For each net of a paper, once for each piece."""
PARAMETERS = "study.yaml"

Forecast = Callable[[Unit], float]
"""Seconds that a unit takes."""


@dataclass(frozen=True)
class Piece:
    """What a piece has done: units by name, their seconds, and what is known to be left."""

    seconds: Mapping[str, float]
    left: tuple[Unit, ...]
    """None if the paper is complete; else further units may follow from these."""
    shortest: float = 0.0
    """Seconds that the shortest of them is forecast to take."""


# ---------------------------------------------------------------- training


def train(
    phases: Callable[[], Phases],
    folder: Path,
    end: float,
    forecast: Forecast,
    done: Callable[[Unit, float], None] = lambda unit, seconds: None,
    clock: Callable[[], float] = time.monotonic,
) -> Piece:
    """Train the units of a study that `folder` lacks, each only if it is forecast to end in time.

    `end` is a time of the `clock`; `done` gets each unit and its seconds. InputError for a unit
    that is forecast to take longer than LONGEST, before any of its phase is trained.
    """
    seconds: dict[str, float] = {}
    while left := runner.survey(phases(), Store((folder,))).missing:
        check_lengths(left, forecast)
        waiting = list(left)
        while fitting := [unit for unit in waiting if clock() + forecast(unit) <= end]:
            unit, started = fitting[0], clock()
            runner.run([unit], folder)
            seconds[unit.name] = clock() - started
            done(unit, seconds[unit.name])
            waiting.remove(unit)
        if waiting:
            return Piece(seconds, tuple(waiting), min(map(forecast, waiting)))
    return Piece(seconds, ())


def check_lengths(units: Iterable[Unit], forecast: Forecast) -> None:
    """InputError if a unit does not fit into a piece."""
    slow = [(forecast(unit), unit.name) for unit in units if forecast(unit) > LONGEST]
    if slow:
        longest, name = max(slow)
        raise InputError(
            f"unit {name}: forecast to take {longest / 60:.1f} minutes, allowed are "
            f"{LONGEST / 60:g}: it is the smallest piece; fewer epochs or rounds make it shorter"
        )


def forecast_of(
    measured: Mapping[str, float], speeds: Callable[[], Mapping[str, float]]
) -> Forecast:
    """Seconds of a unit: those of its arm's other seeds where measured, else passes over speed.

    `measured` are seconds of units by name, as they are when it is called. `speeds` are image
    passes per second by net; a unit of another net is taken to be as slow as the slowest.
    """

    def forecast(unit: Unit) -> float:
        arm = timings.arm_of(unit.name)
        if known := [spent for name, spent in measured.items() if timings.arm_of(name) == arm]:
            return MARGIN * max(known)
        speed = speeds().get(net_of(unit), min(speeds().values()))
        return MARGIN * (unit.passes / speed or WITHOUT_TRAINING)

    return forecast


def net_of(unit: Unit) -> str:
    """The model that a unit trains, as a `Job` names it; empty where its arguments name none."""
    models = (getattr(value, "model", None) for value in unit.arguments.values())
    return next((model.name for model in models if model is not None), "")


def speeds(jobs: Sequence[Job], beside: float, seconds: float) -> dict[str, float]:
    """Image passes per second by net, each measured for about `seconds`; of two the slower one.

    `beside` is what a paper does besides training (see `Paper`).
    """
    found: dict[str, float] = {}
    for job in jobs:
        speed = job.speed(seconds) / beside
        found[job.net] = min(speed, found.get(job.net, speed))
    return found


def train_piece(
    study: str,
    block: Mapping[str, Spec],
    paper: str,
    folder: Path,
    end: float,
    tell: Callable[[str], None] = print,
) -> Piece:
    """Train units of a paper into a folder of pieces until `end` (see `time.monotonic`)."""
    begin(folder, study, block, paper)
    known, spent, chosen = PAPERS[paper], measured(folder, paper), block[paper]
    probed = cache(lambda: speeds(known.jobs(chosen), known.beside, PROBE_SECONDS))

    def done(unit: Unit, seconds: float) -> None:
        spent[unit.name] = round(seconds, 3)
        note(folder, paper, spent)
        left = max(0.0, end - time.monotonic())
        tell(f"{paper}: {unit.name} in {seconds:.1f} s, {left:.0f} s left")

    units = runs_of(folder, paper)
    return train(lambda: known.phases(chosen), units, end, forecast_of(spent, probed), done)


def state_of(piece: Piece) -> str:
    """In words, what a paper still lacks."""
    if not piece.left:
        return "complete"
    return (
        f"{len(piece.left)} units and what follows from them are left, the shortest takes about "
        f"{piece.shortest:.0f} s: run this again"
    )


# ---------------------------------------------------------------- a folder of pieces


def runs_of(folder: Path, paper: str) -> Path:
    """Where a folder of pieces has the units of a paper."""
    return folder / "runs" / paper


def measured(folder: Path, paper: str) -> dict[str, float]:
    """Seconds of the units of a paper in a folder of pieces, by name."""
    path = folder / "runs" / f"{paper}.timings.json"
    return dict(read_json(path)["seconds"]) if path.exists() else {}


def note(folder: Path, paper: str, seconds: Mapping[str, float]) -> None:
    """Write down the seconds of all units of a paper."""
    timings.note(folder / "runs" / f"{paper}.timings.json", seconds, seconds, 1)


def begin(folder: Path, study: str, block: Mapping[str, Spec], paper: str) -> None:
    """Make the folder for pieces of this study on this machine, or go on with it.

    InputError if it has another study, or units of the paper that were made with something else.
    """
    parameters = folder / PARAMETERS
    content = yaml_text({"study": study, **_plain(block)})
    if not parameters.exists():
        write_atomically(parameters, content.encode())
    elif parameters.read_text() != content:
        raise InputError(f"--out: {folder} has pieces of another study, or of other parameters")
    runtime: gpu.Runtime = block[paper].runtime  # type: ignore[attr-defined]
    here, entries = results.made_here(runtime), machine.read(folder)
    if paper in entries and (there := made_of(entries[paper])) != here:
        raise InputError(f"--out: {folder} has units of {paper} of {_words(there)}, "
                         f"allowed is {_words(here)}, as here")  # fmt: skip
    described = machine.describe(runtime)
    devices = sorted({described["device"], *_devices(entries.get(paper))})
    machine.record(folder, paper, described | {"device": " and ".join(devices)})


def _plain(block: Mapping[str, Spec]) -> dict[str, Any]:
    return {paper: values.model_dump(mode="json") for paper, values in block.items()}


def _devices(entry: machine.Machine | None) -> list[str]:
    return str(entry["device"]).split(" and ") if entry else []


def made_of(entry: machine.Machine) -> Made:
    """With what the units of an entry of machine.json were made."""
    return {key: entry[key] for key in ("kind", "instruction_set", *NUMERICAL)}


def _words(made: Made) -> str:
    return ", ".join(f"{key} {value}" for key, value in made.items())


# ---------------------------------------------------------------- putting together


def study_in(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name of the study that a folder has pieces of, and its parameters by paper."""
    path = folder / PARAMETERS
    if not path.exists():
        raise InputError(f"{folder}: no pieces here, allowed is a folder of `ticketlab piece`")
    content = read_yaml(path)
    return str(content.pop("study")), content


def take_study(study: str, folder: Path) -> None:
    """Have the study in params.yaml's runs; one that is not known here is written from a folder."""
    if study not in params.read_studies():
        block = study_in(folder)[1]
        params.check_name(study, "assemble")
        params.validated(block, str(folder / PARAMETERS))
        write_atomically(
            params.FILE.parent / "studies" / f"{study}.yaml", yaml_text(block).encode()
        )
    studies.add(study)


def check_parameters(folder: Path, study: str, paper: str, values: Spec) -> None:
    """InputError unless the folder has pieces of just these parameters."""
    place = folder / PARAMETERS
    there = params.validated({paper: study_in(folder)[1].get(paper)}, str(place))[paper]
    if other := [key for key, own in values if own != getattr(there, key)]:
        raise InputError(
            f"{place}: {paper}.{other[0]} is not that of {study} here: give it the same value, or "
            "assemble the pieces as a study of another name"
        )


def assemble(
    study: str, paper: str, values: Spec, folders: Sequence[Path]
) -> tuple[int, machine.Machine]:
    """Put a paper's units of all folders into results/STUDY, declared to be made elsewhere.

    Returns their number and their machine. InputError if one is missing.
    """
    for folder in folders:
        check_parameters(folder, study, paper, values)
    entries = [entry for one in folders if (entry := machine.read(one).get(paper))]
    kinds = sorted({_words(made_of(entry)) for entry in entries})
    if len(kinds) != 1:
        of = " and of ".join(kinds) or "none"
        raise InputError(f"{paper}: units of {of}, allowed is one kind of machine per paper")
    made, store = made_of(entries[0]), Store(tuple(runs_of(one, paper) for one in folders))
    found = runner.survey(PAPERS[paper].phases(values), store, made)
    if found.missing:
        raise InputError(
            f"{paper}: {len(found.missing)} units ({found.missing[0].name!r}, ...) are missing, "
            "and those that follow from them; `ticketlab piece` goes on where it ended"
        )
    final = results.runs_folder(study, paper)
    partial = final.with_name(f".{paper}.partial")
    for unit in found.reused:
        stored = store.get(unit.key_of(made))
        assert stored is not None
        stored.bring_to(partial, unit.name)
    write_json(partial / ELSEWHERE, made)
    results.forget_others(partial, [unit.name for unit in found.reused])
    replace_folder(partial, final)
    seconds = {name: s for one in folders for name, s in measured(one, paper).items()}
    timings.note(final.with_name(f"{paper}.timings.json"), seconds, seconds, 1)
    devices = sorted({device for entry in entries for device in _devices(entry)})
    return len(found.reused), {**entries[0], "device": " and ".join(devices)}
