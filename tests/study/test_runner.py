"""Units in parallel processes: same results, nothing twice, nothing half-done, no orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from conftest import Message
from small_units import (
    contents,
    counted,
    dying,
    failing,
    reading,
    refusing,
    runs,
    stopped,
    swapping,
    telling,
    ticket,
    units,
)

from ticketlab import progress
from ticketlab.papers.colt.study import search_units
from ticketlab.study import results, runner
from ticketlab.study.results import Result, load_result
from ticketlab.study.runner import StaleUnits, Unit, UnitFailed
from ticketlab.study.store import Store

HERE = Path(__file__).parent


# --- the same whatever the number of workers


def test_results_are_bitwise_equal_with_one_and_two_workers(
    tiny_root: Path, tmp_path: Path
) -> None:
    """Real searches; every stored byte, records and tickets, is the same."""
    params = tiny.colt(seeds=[3], max_rounds=2)
    todo = search_units(params, params.points[0])
    assert [unit.name.split("/")[1] for unit in todo] == [
        "imp",
        "colt-class-2of2",
        "colt-random-2of2",
    ]
    found = [runner.run(todo, tmp_path / str(n), workers=n) for n in (1, 2)]
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(contents(tmp_path / "1")) == 3 + (3 + 2 + 2)
    assert [list(results) for results in found] == [[unit.name for unit in todo]] * 2
    for unit in todo:
        one, two = found[0][unit.name], found[1][unit.name]
        assert one.record == two.record and list(one.tickets) == list(two.tickets)
        assert all(one.tickets[n].mask == two.tickets[n].mask for n in one.tickets)


def test_a_worker_reads_a_data_set_once_for_all_its_units(tiny_root: Path, tmp_path: Path) -> None:
    found: list[Result] = []
    for phase in range(3):  # the processes outlive a phase of the study
        todo = [Unit(f"{phase}-{seed}", reading, {"seed": 4 * phase + seed}) for seed in range(4)]
        found += runner.run(todo, tmp_path, workers=2).values()
    read = sum(result.record["read"] for result in found)
    processes = {result.record["process"] for result in found}
    assert len(found) == 12 and read <= len(processes) <= 2 and os.getpid() not in processes


def test_workers_send_their_events_to_the_listener(tmp_path: Path) -> None:
    for workers in (1, 2):
        events = tmp_path / f"{workers}.events"
        progress.listen_to(events)
        runner.run(units(tmp_path, telling), tmp_path / str(workers), workers)
        assert progress.listener() == events
        progress.listen_to(None)
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        by_arm = sorted((e for e in lines if "arm" in e), key=lambda event: event["arm"])
        work = {"passes": 100, "accuracy": 0.5}
        assert by_arm == [{"unit": f"unit-{i}", "arm": f"arm {i}", **work} for i in range(3)]
        ends = {e["unit"]: e["seconds"] for e in lines if "seconds" in e}
        assert set(ends) == {f"unit-{i}" for i in range(3)} and min(ends.values()) >= 0
        assert len(lines) == 6


# --- nothing twice


def test_a_finished_unit_is_not_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    first = runner.run(units(tmp_path), folder)
    assert runs(tmp_path) == [0, 1, 2]
    again = runner.run(units(tmp_path, seeds=(2, 0, 1, 4)), folder)
    assert runs(tmp_path) == [0, 1, 2, 4]  # only the new one
    assert list(again) == ["unit-2", "unit-0", "unit-1", "unit-4"]
    for name, result in first.items():
        assert again[name].record == result.record
        assert again[name].tickets["round-01"].mask == result.tickets["round-01"].mask
    assert first["unit-1"].tickets["round-01"].mask == ticket(1).mask


def test_units_that_are_stored_are_reported(tmp_path: Path) -> None:
    """In the folder itself, or copied there from a store."""
    todo = units(tmp_path, counted)
    runner.run(todo[:2], tmp_path / "earlier")
    runner.run(todo[:1], tmp_path / "runs")
    progress.listen_to(tmp_path / "events")
    runner.run(todo, tmp_path / "runs", store=Store((tmp_path / "earlier",)))
    progress.listen_to(None)
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [event for event in events if "stored" in event] == [
        {"stored": "unit-0", "copied": False, "passes": todo[0].passes},
        {"stored": "unit-1", "copied": True, "passes": todo[1].passes},
    ]
    assert [event["unit"] for event in events if "seconds" in event] == ["unit-2"]


def test_units_of_other_arguments_are_left_alone_where_none_may_be_replaced(tmp_path: Path) -> None:
    """What is new would be trained, but not beside units that are out of date."""
    folder = tmp_path / "runs"
    runner.run([Unit("a", counted, {"log": str(tmp_path / "log"), "seed": 1})], folder)
    before = contents(folder)
    changed = [Unit(name, counted, {"log": str(tmp_path / "log"), "seed": 2}) for name in "ba"]
    with pytest.raises(StaleUnits, match=r"^1 units \('a', ...\) were trained with other code"):
        runner.run(changed, folder, renew=False)
    assert contents(folder) == before and runs(tmp_path) == [1]
    assert set(runner.run(changed[:1], folder, renew=False)) == {"b"}
    assert set(runner.run(changed, folder)) == {"a", "b"}


def test_a_changed_argument_runs_that_unit_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    runner.run(units(tmp_path), folder)
    changed = units(tmp_path)
    changed[1] = Unit("unit-1", counted, {"log": str(tmp_path / "log"), "seed": 7})
    found = runner.run(changed, folder)
    assert runs(tmp_path) == [0, 1, 2, 7] and found["unit-1"].record["seed"] == 7


def key(**arguments: object) -> str:
    return Unit("name", counted, arguments).key


def test_a_key_changes_with_parameters_masks_and_function_alone() -> None:
    params, mask = tiny.colt(), ticket(0).mask
    assert key(params=params) == key(params=tiny.colt())
    others = [
        tiny.colt(rate=0.41),
        tiny.colt(recipe={"optimizer": "adam", "lr": 0.01, "batch": 40, "length": "5it"}),
        tiny.colt(runtime={"device": "cpu", "precision": "bf16"}),
        tiny.colt(data=params.data.model_dump() | {"split_seed": 1}),
    ]
    keys = {key(params=params), *(key(params=other) for other in others)}
    keys |= {key(params=params, seed=seed) for seed in (0, 1)}
    keys |= {key(params=params, chosen={"round-01": m}) for m in (mask, ticket(1).mask)}
    keys.add(Unit("name", failing, {"params": params}).key)
    assert len(keys) == 1 + 4 + 2 + 2 + 1
    assert Unit("other", counted, {"params": params}, passes=9.0).key == key(params=params)


def test_a_key_cannot_be_made_of_what_has_no_content() -> None:
    with pytest.raises(TypeError, match="object cannot be part"):
        _ = key(thing=object())


# --- nothing half-done


def test_an_interrupted_unit_does_not_count_as_finished(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    todo = units(tmp_path)
    todo[1] = Unit("unit-1", stopped, todo[1].arguments)
    with pytest.raises(KeyboardInterrupt):
        runner.run(todo, folder)
    assert set(contents(folder)) == {"unit-0.json", "unit-0/round-01.safetensors"}
    found = runner.run(units(tmp_path), folder)
    assert runs(tmp_path) == [0, 1, 1, 2] and len(found) == 3


def test_an_interruption_while_saving_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    folder, (unit, *_) = tmp_path / "runs", units(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run([unit], folder)
    assert set(contents(folder)) == {"unit-0/round-01.safetensors"}
    assert load_result(folder, unit.name) is None
    runner.run([unit], folder)
    assert runs(tmp_path) == [0, 0] and load_result(folder, unit.name, unit.key) is not None


def no_number() -> Result:
    """A unit of work whose record cannot be stored."""
    return Result({"accuracy": float("nan")})


def test_a_record_that_cannot_be_stored_names_its_unit(tmp_path: Path) -> None:
    with pytest.raises(UnitFailed, match=r"unit arm/odd failed: ValueError: .*nan"):
        runner.run([Unit("arm/odd", no_number, {})], tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_unit_is_named_and_the_results_of_others_are_kept(
    tmp_path: Path, workers: int
) -> None:
    folder = tmp_path / "runs"
    broken = Unit("arm/unit-9", failing, {"log": str(tmp_path / "log"), "seed": 9})
    todo = [*units(tmp_path, seeds=(0, 1)), broken, *units(tmp_path, seeds=(5,))]
    with pytest.raises(UnitFailed, match="unit arm/unit-9 failed: ZeroDivisionError: seed") as info:
        runner.run(todo, folder, workers)
    assert isinstance(info.value.__cause__, Exception)
    kept = {path.name for path in folder.glob("*.json")}
    assert kept >= {"unit-0.json", "unit-1.json"} and not (folder / "arm").exists()
    done = runs(tmp_path)
    runner.run(units(tmp_path, seeds=(0, 1)), folder)
    assert runs(tmp_path) == done  # they are not run again


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_everything_else_is_stored(tmp_path: Path) -> None:
    folder, log = tmp_path / "runs", str(tmp_path / "log")
    todo = units(tmp_path, seeds=(0, 1, 2, 3))
    once, always = (
        Unit(f"arm/seed-{seed}", dying, {"log": log, "seed": seed}, passes=2.5) for seed in (7, 9)
    )
    with pytest.raises(UnitFailed, match=r"unit arm/seed-9 failed: .* out of memory"):
        runner.run([*todo, once, always], folder, workers=2)
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    assert kept == {*(f"unit-{i}.json" for i in range(4)), "arm/seed-7.json"}
    assert sorted(runs(tmp_path)) == [0, 1, 2, 3, 7]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_found_by_a_unit_is_one_line_that_names_it(
    tmp_path: Path, one_line: Message, workers: int
) -> None:
    todo = units(tmp_path, refusing, seeds=(4, 4))
    assert one_line(lambda: runner.run(todo[:workers], tmp_path, workers)) == (
        "unit unit-4, seed 4: rate: 4 is wrong, allowed: 0.5"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_ticket_with_another_mask_than_its_net_is_refused_by_name(
    tmp_path: Path, workers: int
) -> None:
    todo = units(tmp_path, swapping, seeds=(4, 5))
    with pytest.raises(
        UnitFailed, match=r"unit unit-[45] failed: WrongMask: ticket 'round-02': its mask"
    ):
        runner.run(todo[:workers], tmp_path / "runs", workers)
    assert not [path for path in contents(tmp_path / "runs") if not path.endswith(".running")]


def test_a_unit_records_the_patterns_of_its_own_trainings_only(tmp_path: Path) -> None:
    runner.run(units(tmp_path, seeds=(0, 1)), tmp_path / "runs")
    for seed in (0, 1):
        stored = json.loads((tmp_path / "runs" / f"unit-{seed}.json").read_text())
        assert stored["trained_mask_sha256"] == [ticket(seed).mask.digest()]


def test_planned_work_is_the_sum_over_units(tmp_path: Path) -> None:
    assert runner.expected_passes(units(tmp_path, seeds=(0, 1, 2, 5))) == 8


# --- nobody left behind

ENDLESS = """
import sys
from pathlib import Path
from ticketlab.study import runner
from endless import work

folder = Path(sys.argv[1])
units = [runner.Unit(f"unit-{i}", work, {"seed": i, "folder": str(folder)}) for i in (0, 1)]
runner.run(units, folder / "runs", workers=2)
"""
WORK = """
import time
from pathlib import Path

def work(seed, folder):
    (Path(folder) / f"started-{seed}").touch()
    time.sleep(60)
"""


def group(leader: int) -> list[str]:
    """The living processes of a process group."""
    listing = ["ps", "-A", "-o", "pgid=,stat=,pid="]
    done = subprocess.run(listing, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [pid for pgid, state, pid in rows if pgid == str(leader) and state[0] != "Z"]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("have_started", [True, False])
def test_workers_end_soon_after_their_parent_was_killed(tmp_path: Path, have_started: bool) -> None:
    """Even those that were still starting then, and never had that parent."""
    (tmp_path / "endless.py").write_text(WORK)
    path = os.pathsep.join([str(tmp_path), str(HERE.parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        both = [tmp_path / f"started-{i}" for i in (0, 1)]
        if have_started:
            assert wait_until(lambda: all(path.exists() for path in both), 60)
        assert wait_until(lambda: len(group(parent.pid)) >= 4, 60)  # its tracker and two workers
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        seconds = 4 if have_started else 20  # they end when they have imported torch
        assert wait_until(lambda: group(parent.pid) == [], seconds), group(parent.pid)
    finally:
        for pid in group(parent.pid):
            os.kill(int(pid), signal.SIGKILL)
    assert not list((tmp_path / "runs").rglob("*.json"))
