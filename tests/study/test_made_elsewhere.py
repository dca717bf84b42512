"""Units that were made on another machine: read here by that machine's keys, never trained."""

from collections.abc import Generator
from pathlib import Path

import pytest
import tiny
import torch
from conftest import CPU, Message
from small_units import counted, runs

from ticketlab import gpu
from ticketlab.files import write_json
from ticketlab.papers.colt import study
from ticketlab.study import results
from ticketlab.study.results import ELSEWHERE, Result, forget_others, made_here
from ticketlab.study.runner import Unit, run, run_study, survey
from ticketlab.study.store import Store

THERE = made_here(CPU) | {"kind": "cuda", "torch": "2.11.0", "instruction_set": "native"}


def unit(folder: Path, seed: int) -> Unit:
    arguments = {"log": str(folder / "log"), "seed": seed, "runtime": CPU}
    return Unit(f"unit-{seed}", logged, arguments, passes=1.0)


def logged(log: str, seed: int, runtime: gpu.Runtime) -> Result:
    return counted(log, seed)


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with units 0 and 1, made on a machine with a GPU and other versions."""
    with monkeypatch.context() as patch:
        patch.setattr(results, "made_here", lambda runtime: THERE)
        run([unit(tmp_path, 0), unit(tmp_path, 1)], tmp_path / "runs")
    assert runs(tmp_path) == [0, 1]
    return tmp_path / "runs"


def test_they_are_read_where_they_are_declared_and_trained_anew_elsewhere(
    brought: Path, tmp_path: Path
) -> None:
    units = [unit(tmp_path, 0), unit(tmp_path, 1)]
    run(units, tmp_path / "fresh", store=Store((brought,)))
    assert runs(tmp_path) == [0, 1, 0, 1]  # they are no results of this machine
    write_json(brought / ELSEWHERE, THERE)
    assert set(run(units, brought)) == {"unit-0", "unit-1"}
    assert runs(tmp_path) == [0, 1, 0, 1]


@pytest.mark.parametrize("key", THERE)
def test_all_that_they_were_made_with_counts(
    key: str, brought: Path, tmp_path: Path, one_line: Message
) -> None:
    write_json(brought / ELSEWHERE, THERE | {key: "another"})
    message = one_line(lambda: run([unit(tmp_path, 0)], brought))
    assert "1 ('unit-0', ...)" in message and runs(tmp_path) == [0, 1]


def test_none_is_trained_among_them(brought: Path, tmp_path: Path, one_line: Message) -> None:
    write_json(brought / ELSEWHERE, THERE)
    units = [unit(tmp_path, seed) for seed in (0, 1, 2)]
    message = one_line(lambda: run(units, brought))
    assert str(brought) in message and "'unit-2'" in message and "ticketlab piece" in message
    assert runs(tmp_path) == [0, 1]


def test_a_survey_finds_them_by_their_own_keys(brought: Path, tmp_path: Path) -> None:
    def phases() -> Generator[list[Unit], dict[str, Result], dict[str, Result]]:
        found = yield [unit(tmp_path, 0), unit(tmp_path, 1)]
        return found | (yield [unit(tmp_path, 2)])

    here, there = (survey(phases(), Store((brought,)), made) for made in (None, THERE))
    assert [one.name for one in here.missing] == ["unit-0", "unit-1"]
    assert [one.name for one in there.missing] == ["unit-2"]


def test_the_declaration_stays_when_other_files_go(brought: Path) -> None:
    write_json(brought / ELSEWHERE, THERE)
    (brought / "stray.json").write_text("{}")
    forget_others(brought, ["unit-0"])
    left = {path.name for path in brought.iterdir()}
    assert left == {ELSEWHERE, "unit-0", "unit-0.json"}


def test_the_device_counts_only_for_units_that_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there = made_here(None) | {"kind": "cuda"}
    assert Unit("none", counted, {"log": "", "seed": 0}).key_of(there) == results.unit_key(
        counted, {"log": "", "seed": 0}
    )
    monkeypatch.setattr(gpu, "choose_device", lambda name: torch.device("cuda"))
    assert made_here(CPU) == there and made_here(None)["kind"] == "cpu"


@pytest.mark.slow
def test_a_study_of_a_gpu_is_read_on_a_cpu(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later phases depend on earlier results, whose tickets are read here."""
    params = tiny.colt(seeds=[0])
    with monkeypatch.context() as patch:
        patch.setattr(results, "made_here", lambda runtime: THERE)
        made = run_study(study.phases(params), tmp_path)
    write_json(tmp_path / ELSEWHERE, THERE)
    read = run_study(study.phases(params), tmp_path)
    assert {name: one.record for name, one in read.items()} == {
        name: one.record for name, one in made.items()
    }
