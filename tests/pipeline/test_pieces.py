"""Pieces: units that fit into minutes, a folder that can be carried, and the study made of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import CPU, Message
from emulated import emulated
from small_units import counted, runs

from ticketlab import gpu
from ticketlab.files import read_json, write_json, yaml_text
from ticketlab.papers.colt import study as colt_study
from ticketlab.pipeline import machine, pieces, planning
from ticketlab.pipeline.pieces import Piece
from ticketlab.spec import ROOT
from ticketlab.study import results
from ticketlab.study.forecast import Job
from ticketlab.study.results import ELSEWHERE, Result, made_here
from ticketlab.study.runner import Unit, run_study
from ticketlab.study.store import Store
from ticketlab.tickets.ticket import load_ticket

# ---------------------------------------------------------------- units that fit


class Clock:
    """A clock that only units move: a unit of seed s takes s seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    real = pieces.runner.run

    def run(units: list[Unit], folder: Path) -> Any:
        found.now += sum(unit.passes for unit in units)
        return real(units, folder)

    monkeypatch.setattr(pieces.runner, "run", run)
    return found


def phases_of(folder: Path, *seeds: tuple[int, ...]) -> Callable[[], Any]:
    """A study with a phase for each tuple of seeds."""

    def phases() -> Generator[list[Unit], dict[str, Result], dict[str, Result]]:
        found: dict[str, Result] = {}
        for phase in seeds:
            log = str(folder / "log")
            units = [Unit(f"unit-{s}", counted, {"log": log, "seed": s}, float(s)) for s in phase]
            found |= yield units
        return found

    return phases


def exact(unit: Unit) -> float:
    return unit.passes


def test_a_piece_trains_what_fits_and_the_next_goes_on(tmp_path: Path, clock: Clock) -> None:
    study = phases_of(tmp_path, (4, 7, 2), (1,))

    def piece(seconds: float) -> Piece:
        return pieces.train(study, tmp_path / "runs", clock.now + seconds, exact, clock=clock)

    first = piece(7)  # 7 does not fit behind 4, 2 does
    assert runs(tmp_path) == [4, 2] and first.seconds == {"unit-4": 4, "unit-2": 2}
    assert [unit.name for unit in first.left] == ["unit-7"]
    said = pieces.state_of(first)
    assert "1 or more units are left" in said and "about 7 s" in said and "run this again" in said
    assert piece(6).seconds == {} and runs(tmp_path) == [4, 2]
    last = piece(8)
    assert runs(tmp_path) == [4, 2, 7, 1] and last.left == ()
    assert pieces.state_of(last) == "complete" == pieces.state_of(piece(0))


def test_no_unit_is_started_that_is_forecast_to_end_too_late(tmp_path: Path, clock: Clock) -> None:
    study = phases_of(tmp_path, (3, 2))
    made = pieces.train(
        study, tmp_path / "runs", clock.now + 5, lambda unit: 2 * unit.passes, clock=clock
    )
    assert runs(tmp_path) == [2] and [unit.name for unit in made.left] == ["unit-3"]


def test_a_unit_that_fits_into_no_piece_is_named_before_its_phase(
    tmp_path: Path, clock: Clock, one_line: Message
) -> None:
    study = phases_of(tmp_path, (1, 481, 500))
    message = one_line(lambda: pieces.train(study, tmp_path, 1e9, exact, clock=clock))
    assert "unit unit-500" in message and "8.3 minutes" in message and "8:" in message
    assert runs(tmp_path) == []


def test_of_equal_units_one_is_trained(tmp_path: Path, clock: Clock) -> None:
    def phases() -> Generator[list[Unit], dict[str, Result], dict[str, Result]]:
        arguments = {"log": str(tmp_path / "log"), "seed": 1}
        return (yield [Unit(name, counted, arguments) for name in ("a", "twin")])

    assert not pieces.train(phases, tmp_path / "runs", 1e9, exact, clock=clock).left
    assert runs(tmp_path) == [1]


# ---------------------------------------------------------------- forecasts


def test_a_forecast_stands_on_the_arms_other_seeds_else_on_the_speed_of_its_net() -> None:
    units = {unit.name: unit for unit in next(colt_units())}
    unit = units["search/imp/seed-1"]
    asked: list[int] = []

    def speeds() -> dict[str, float]:
        asked.append(1)
        return {"conv3": 100.0, "resnet20": 50.0}

    measured: dict[str, float] = {}
    forecast = pieces.forecast_of(measured, speeds)
    assert forecast(unit) == pytest.approx(pieces.MARGIN * unit.passes / 100)
    assert forecast(replace(unit, arguments={})) == 2 * forecast(unit)  # as the slowest
    assert forecast(replace(unit, passes=0.0)) == pieces.MARGIN * pieces.WITHOUT_TRAINING
    asked.clear()
    measured |= {"search/imp/seed-0": 5.0, "search/imp/seed-2": 7.0, "score/imp/seed-0": 99.0}
    assert forecast(unit) == pieces.MARGIN * 7 and not asked


def colt_units() -> Any:
    return colt_study.phases(tiny.colt())


@pytest.fixture(autouse=True)
def data(tiny_root: Path) -> None:
    """All studies here are of the tiny images."""


def test_of_two_jobs_of_a_net_the_slower_one_counts_with_what_is_done_beside() -> None:
    jobs = [Job(net, 1.0, lambda _, v=v: v, 1.0, 1) for net, v in (("a", 9.0), ("b", 4), ("a", 6))]
    assert pieces.speeds(jobs, 2.0, 1.0) == {"a": 3.0, "b": 2.0}


# ---------------------------------------------------------------- a folder, here and there

PARAMS = tiny.colt(seeds=[0])
THERE = made_here(CPU) | {"kind": "cuda", "torch": "2.11.0", "instruction_set": "native"}
GPU = machine.describe(CPU) | THERE | {"device": "a GPU"}


def on_a_gpu(patch: pytest.MonkeyPatch, device: str = "a GPU", **made: str) -> None:
    """Units are made, and said to be made, on another machine."""
    patch.setattr(results, "made_here", lambda runtime: THERE | made)
    patch.setattr(results, "_versions", lambda: {n: THERE[n] for n in results.NUMERICAL})
    patch.setattr(machine, "describe", lambda runtime: GPU | made | {"device": device})


def trained(folder: Path, minutes: float = 60.0) -> Piece:
    end = pieces.time.monotonic() + 60 * minutes
    return pieces.train_piece("mine", {"colt": PARAMS}, "colt", folder, end, lambda line: None)


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder of pieces that has come from a machine with a GPU."""
    from conftest import use_data

    folder = tmp_path_factory.mktemp("carried") / "pieces"
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        on_a_gpu(patch)
        patch.setattr(pieces, "speeds", lambda *_: {"conv3": 1e4})
        assert not trained(folder).left
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without results, here."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return tmp_path


def test_a_folder_has_the_form_of_results_and_the_parameters(carried: Path) -> None:
    assert machine.read(carried) == {"colt": GPU}
    name, block = pieces.study_in(carried)
    assert name == "mine" and block["colt"] == PARAMS.model_dump(mode="json")
    seconds = pieces.measured(carried, "colt")
    records = {path for path in (carried / "runs" / "colt").rglob("*.json")}
    assert len(seconds) == len(records) > 5 and all(s > 0 for s in seconds.values())


def test_a_carried_folder_becomes_the_study_and_nothing_is_trained(
    carried: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, entry = pieces.assemble("mine", "colt", PARAMS, [carried])
    final = project / "results" / "mine" / "runs" / "colt"
    assert entry == GPU and read_json(final / ELSEWHERE) == THERE
    monkeypatch.setattr(pieces.runner, "_perform", lambda *_: pytest.fail("trained here"))
    found = run_study(colt_study.phases(PARAMS), final)
    assert len(found) == count == len(pieces.measured(carried, "colt"))
    origin = load_ticket(next(final.rglob("*.safetensors"))).metadata
    assert (origin["study"], origin["paper"]) == ("mine", "colt")
    assert origin["versions"]["torch"] == "2.11.0"  # as it was made
    assert (project / "results" / "mine" / "runs" / "colt.timings.json").exists()


def test_units_of_two_folders_make_one_study(
    carried: Path, project: Path, tmp_path: Path, one_line: Message
) -> None:
    halves = [tmp_path / "one", tmp_path / "two"]
    for number, half in enumerate(halves):
        for path in sorted((carried / "runs" / "colt").rglob("*.json"))[number::2]:
            unit = path.relative_to(carried).with_suffix("")
            for file in (path, *path.with_suffix("").glob("*")):
                target = half / file.relative_to(carried)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            assert (half / unit.with_suffix(".json")).exists()
        for name in (machine.FILE, pieces.PARAMETERS):
            (half / name).write_bytes((carried / name).read_bytes())
    message = one_line(lambda: pieces.assemble("mine", "colt", PARAMS, halves[:1]))
    assert "are missing" in message and "ticketlab piece" in message
    assert not (project / "results").exists()
    write_json(halves[1] / machine.FILE, {"colt": GPU | {"device": "another GPU"}})
    count, entry = pieces.assemble("mine", "colt", PARAMS, halves)
    assert count == len(pieces.measured(carried, "colt"))
    assert entry["device"] == "a GPU and another GPU"
    write_json(halves[1] / machine.FILE, {"colt": GPU | {"torch": "2.12.0"}})
    message = one_line(lambda: pieces.assemble("mine", "colt", PARAMS, halves))
    assert "torch 2.11.0" in message and "torch 2.12.0" in message and "one kind" in message


def test_other_parameters_are_named(carried: Path, project: Path, one_line: Message) -> None:
    other = PARAMS.model_copy(update={"rate": 0.3})
    message = one_line(lambda: pieces.assemble("mine", "colt", other, [carried]))
    assert "study.yaml: colt.rate" in message
    nothing = [project / "nothing"]
    message = one_line(lambda: pieces.assemble("mine", "colt", PARAMS, nothing))
    assert "nothing: no pieces here" in message


def test_a_folder_is_gone_on_with_on_machines_of_its_kind_only(
    carried: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message
) -> None:
    folder = tmp_path / "pieces"
    for name in (machine.FILE, pieces.PARAMETERS):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes((carried / name).read_bytes())
    assert "kind cuda" in one_line(lambda: trained(folder)) and "kind cpu" in one_line(
        lambda: trained(folder)
    )
    on_a_gpu(monkeypatch, device="another GPU")
    pieces.begin(folder, "mine", {"colt": PARAMS}, "colt")
    assert machine.read(folder)["colt"]["device"] == "a GPU and another GPU"
    other = {"colt": PARAMS.model_copy(update={"rate": 0.3})}
    message = one_line(lambda: pieces.begin(folder, "mine", other, "colt"))
    assert str(folder) in message and "other parameters" in message


def test_units_of_a_cuda_device_are_read_without_one(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an emulated device, with captured passes and the parameters' own `device: auto`."""
    monkeypatch.setattr(pieces, "speeds", lambda *_: {"conv3": 1e5})
    params, end = tiny.colt(seeds=[0], runtime={"device": "auto"}), pieces.time.monotonic() + 600
    with emulated() as device:
        pieces.train_piece("mine", {"colt": params}, "colt", tmp_path / "out", end, lambda _: None)
    assert device.captured > 100
    count, entry = pieces.assemble("mine", "colt", params, [tmp_path / "out"])
    assert (entry["kind"], machine.named(entry)) == ("cuda", "emulated")
    monkeypatch.setattr(pieces.runner, "_perform", lambda *_: pytest.fail("trained here"))
    folder = project / "results" / "mine" / "runs" / "colt"
    assert len(run_study(colt_study.phases(params), folder)) == count
    planned = planning.plan("mine", "colt", params, Store((folder,)), 0.1)
    assert (planned.reused, planned.units, planned.seconds) == (count, 0, 0)


# ---------------------------------------------------------------- the commands

BLOCKED = """
import sys
class Blocked:
    names = {"papermill", "dvc", "dvc_data", "IPython", "jupyter_client", "jupyter_core", "zmq",
             "nbformat", "nbclient", "nbconvert", "ipykernel", "traitlets", "tornado", "git",
             "distributed", "psutil"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not on a machine that only trains")
sys.meta_path.insert(0, Blocked())
from ticketlab.cli import app
app(prog_name="ticketlab")
"""


@pytest.mark.slow
def test_the_commands_on_both_machines(tmp_path: Path, tiny_folder: Path) -> None:
    """One has neither Jupyter nor DVC and is not pinned, the other does not know the study."""
    block = {"colt": PARAMS.model_copy(update={"runtime": gpu.Runtime()})}
    plain = {name: values.model_dump(mode="json") for name, values in block.items()}
    machines = {name: tmp_path / name for name in ("there", "here")}
    for root in machines.values():
        (root / "studies").mkdir(parents=True)
        (root / "params.yaml").write_text("workers: 1\nruns: {}\n")
        (root / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (machines["there"] / "studies" / "mine.yaml").write_text(yaml_text(plain))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TICKETLAB")}
    clean |= {"TICKETLAB_DATA": str(tiny_folder), "TICKETLAB_PREPARED": str(tmp_path / "prepared")}

    def run(name: str, *command: str, **more: str) -> str:
        root = machines[name]
        env = clean | {"TICKETLAB_ROOT": str(root), "PYTHONPATH": str(ROOT)} | more
        done = subprocess.run(
            [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    piece = ("-c", BLOCKED, "piece", "mine", "--out", "out")
    unpinned = {"TICKETLAB_NATIVE": "1", "PYTHONWARNINGS": "ignore"}
    assert "colt: 0 units trained" in run("there", *piece, "--minutes", "0", **unpinned)
    assert "complete" in run("there", *piece, **unpinned)
    (machines["there"] / "out").rename(machines["here"] / "out")
    said = run("here", "-m", "ticketlab", "assemble", "mine", "out")
    assert "mine-colt: 14 units" in said and "study stages mine" in said
    final = machines["here"] / "results" / "mine" / "runs" / "colt"
    before = {path: path.read_bytes() for path in final.rglob("*") if path.is_file()}
    assert "none is trained" in run("here", "-m", "ticketlab", "train", "mine", "colt")
    assert before == {path: path.read_bytes() for path in final.rglob("*") if path.is_file()}
    entry = json.loads((final.parents[1] / machine.FILE).read_text())["colt"]
    assert entry["instruction_set"] == "native"
