"""A study in pieces of a few minutes on a machine with a GPU, assembled on one without.

A folder of pieces has the form of results/STUDY: units in runs/PAPER, with their seconds next to
them, and the device in machine.json. It also has the parameters, study.yaml. The smallest piece is
a unit: one that was interrupted is trained again. No git, DVC, Jupyter or network is needed.
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
from ticketlab.study.store import Store, remove_damaged

LONGEST = 8 * 60.0
"""Maximum forecast of a unit, in seconds."""
MARGIN = 1.2
"""Factor on forecasts: a piece that ends early loses less than one that is interrupted."""
WITHOUT_TRAINING = 10.0
"""Forecast of a unit without image passes, in seconds."""
PROBE_SECONDS = 4.0
"""Seconds of speed measurement per net of a paper, once per piece."""
PARAMETERS = "study.yaml"

Forecast = Callable[[Unit], float]
"""Returns the forecast seconds of a unit."""


@dataclass(frozen=True)
class Piece:
    """The work of a piece: units by name, their seconds, and the known rest."""

    seconds: Mapping[str, float]
    left: tuple[Unit, ...]
    """None if the paper is complete; otherwise more units may depend on these."""
    shortest: float = 0.0
    """Forecast seconds of the shortest of them."""


# ---------------------------------------------------------------- training


def train(
    phases: Callable[[], Phases],
    folder: Path,
    end: float,
    forecast: Forecast,
    done: Callable[[Unit, float], None] = lambda unit, seconds: None,
    clock: Callable[[], float] = time.monotonic,
) -> Piece:
    """Train the units of a study that `folder` lacks, if they are forecast to end in time.

    `end` is a time of the `clock`; `done` is called with each unit and its seconds. InputError for
    a unit with a forecast beyond LONGEST, before any unit of its phase is trained.
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
    """Raise InputError if a unit does not fit into a piece."""
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
    """Return a forecast of a unit's seconds: its arm's measured ones, or passes divided by speed.

    `measured` are seconds of units by name, read at each call. `speeds` are image passes per second
    by net; a unit of an unknown net is assumed to be as slow as the slowest.
    """

    def forecast(unit: Unit) -> float:
        arm = timings.arm_of(unit.name)
        if known := [spent for name, spent in measured.items() if timings.arm_of(name) == arm]:
            return MARGIN * max(known)
        speed = speeds().get(net_of(unit), min(speeds().values()))
        return MARGIN * (unit.passes / speed or WITHOUT_TRAINING)

    return forecast


def net_of(unit: Unit) -> str:
    """Return the model that a unit trains, as a `Job` names it; '' if its arguments name none."""
    models = (getattr(value, "model", None) for value in unit.arguments.values())
    return next((model.name for model in models if model is not None), "")


def speeds(jobs: Sequence[Job], beside: float, seconds: float) -> dict[str, float]:
    """Measure image passes per second by net, each for about `seconds`; the slower if it has two.

    `beside` is the factor for a paper's work besides training (see `Paper`).
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
    remove_damaged(units)
    return train(lambda: known.phases(chosen), units, end, forecast_of(spent, probed), done)


def state_of(piece: Piece) -> str:
    """Describe what a paper still lacks."""
    if not piece.left:
        return "complete"
    return (
        f"{len(piece.left)} or more units are left, the shortest takes about "
        f"{piece.shortest:.0f} s: run this again"
    )


# ---------------------------------------------------------------- a folder of pieces


def runs_of(folder: Path, paper: str) -> Path:
    """Return the folder of a paper's units inside a folder of pieces."""
    return folder / "runs" / paper


def measured(folder: Path, paper: str) -> dict[str, float]:
    """Return the seconds of a paper's units in a folder of pieces, by name."""
    path = folder / "runs" / f"{paper}.timings.json"
    return dict(read_json(path)["seconds"]) if path.exists() else {}


def note(folder: Path, paper: str, seconds: Mapping[str, float]) -> None:
    """Record the seconds of all units of a paper."""
    timings.note(folder / "runs" / f"{paper}.timings.json", seconds, seconds, 1)


def begin(folder: Path, study: str, block: Mapping[str, Spec], paper: str) -> None:
    """Create the folder for pieces of this study on this machine, or continue with it.

    InputError if it has another study, or units that were made with other software or hardware.
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
    """Return what the units of an entry of machine.json were made with."""
    return {key: entry[key] for key in ("kind", "instruction_set", *NUMERICAL)}


def _words(made: Made) -> str:
    return ", ".join(f"{key} {value}" for key, value in made.items())


# ---------------------------------------------------------------- assembling


def study_in(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the study whose pieces a folder has, and its parameters by paper."""
    path = folder / PARAMETERS
    if not path.exists():
        raise InputError(f"{folder}: no pieces here, allowed is a folder of `ticketlab piece`")
    content = read_yaml(path)
    return str(content.pop("study")), content


def take_study(study: str, folder: Path) -> None:
    """Add the study to params.yaml's runs; an unknown study is written from a folder first."""
    if study not in params.read_studies():
        block = study_in(folder)[1]
        params.check_name(study, "assemble")
        params.validated(block, str(folder / PARAMETERS))
        write_atomically(
            params.FILE.parent / "studies" / f"{study}.yaml", yaml_text(block).encode()
        )
    studies.add(study)


def check_parameters(folder: Path, study: str, paper: str, values: Spec) -> None:
    """Raise InputError unless the folder has pieces of exactly these parameters."""
    place = folder / PARAMETERS
    there = params.validated({paper: study_in(folder)[1].get(paper)}, str(place))[paper]
    if other := [key for key, own in values if own != getattr(there, key)]:
        raise InputError(
            f"{place}: {paper}.{other[0]} differs from {study} here: give it the same value, or "
            "assemble the pieces as a study of another name"
        )


def assemble(
    study: str, paper: str, values: Spec, folders: Sequence[Path]
) -> tuple[int, machine.Machine]:
    """Put a paper's units of all folders into results/STUDY, marked as made elsewhere.

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
            "and those that depend on them; `ticketlab piece` continues where it ended"
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
