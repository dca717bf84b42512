"""Progress: nothing is written unless somebody listens, and the watcher sees who does what."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketlab import progress
from ticketlab.progress import Watch, listener
from ticketlab.study import runner
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    progress.listen_to(None)
    progress.label()
    yield
    progress.listen_to(None)
    progress.label()


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and tells when a line with `wanted` was shown."""

    def __init__(self, wanted: str = "", tty: bool = True) -> None:
        super().__init__()
        self.wanted, self.tty, self.shown = wanted, tty, threading.Event()

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        if self.wanted and re.search(self.wanted, text):
            self.shown.set()
        return super().write(text)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def watching(path: Path, expected: float = 100) -> Watch:
    """A watch on a terminal; its interval is long, so that a test reads when it wants to."""
    watch = Watch(path, "colt@desk", expected, Terminal(tty=False))
    assert watch.interval > 10
    return watch


# --- telling


def test_nothing_is_written_when_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    progress.label(arm="imp", seed=0)
    progress.tell(epoch=1, passes=10)
    assert listener() is None and list(tmp_path.iterdir()) == []


def test_events_carry_the_latest_label(tmp_path: Path) -> None:
    path = tmp_path / "events"
    progress.listen_to(path)
    assert listener() == path
    progress.tell(epoch=0)
    progress.label(arm="imp", seed=0, sparsity="20%")
    progress.tell(epoch=1, passes=5)
    progress.label(arm="colt")
    progress.tell(epoch=2)
    progress.listen_to(None)
    progress.tell(epoch=3)
    assert lines(path) == [
        {"epoch": 0},
        {"arm": "imp", "seed": 0, "sparsity": "20%", "epoch": 1, "passes": 5},
        {"arm": "colt", "epoch": 2},
    ]


def test_events_of_many_workers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events"
    progress.listen_to(path)

    def work(number: int) -> None:
        for turn in range(100):
            progress.tell(worker=number, turn=turn, text="x" * 50)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {(event["worker"], event["turn"]) for event in lines(path)}
    assert found == {(number, turn) for number in range(4) for turn in range(100)}


def report_one() -> Result:
    progress.label(arm="imp", seed=3)
    progress.tell(epoch=1, passes=7)
    return Result({})


def test_units_report_to_the_listener_of_the_run_and_their_results_hold_none(
    tmp_path: Path,
) -> None:
    unit = Unit("unit", report_one, {})
    silent = runner.run([unit], tmp_path / "silent")
    progress.listen_to(tmp_path / "events")
    message = runner.run([unit], tmp_path / "expected")
    event, end = lines(tmp_path / "events")
    assert event == {"unit": "unit", "arm": "imp", "seed": 3, "epoch": 1, "passes": 7}
    assert set(end) == {"unit", "seconds", "planned"} and end["unit"] == "unit"
    assert silent["unit"].record == message["unit"].record == {}
    one, two = (tmp_path / name / "unit.json" for name in ("silent", "expected"))
    assert one.read_bytes() == two.read_bytes()


# --- watching


def test_a_watch_shows_arm_seed_epoch_accuracy_share_and_time_left(tmp_path: Path) -> None:
    watch = watching(tmp_path / "deep" / "events", expected=200)
    with watch:
        assert listener() == watch.path
        progress.label(arm="imp", seed=2, sparsity="36%")
        progress.tell(epoch=4, accuracy=0.8765, passes=30)
        progress.tell(epoch=5, accuracy=0.912, passes=70)
        watch._read()
        watch.started -= 60
        line = watch.line()
    assert "\n" not in line and line.startswith("colt@desk:  50% · ")
    for words in ("arm imp", "seed 2", "sparsity 36%", "epoch 5", "accuracy 91.2 %", "1 min 0"):
        assert words in line
    assert "passes" not in line and line.endswith(" left")


def test_shares_add_up_over_workers_and_never_pass_99(tmp_path: Path) -> None:
    watch = watching(tmp_path / "events", expected=100)
    with watch:
        for seed, share in ((0, " 40%"), (1, " 80%"), (0, " 99%"), (1, " 99%")):
            progress.label(seed=seed)
            progress.tell(passes=40)
            watch._read()
            assert watch.line().startswith(f"colt@desk: {share} · seed {seed}")


def test_the_time_left_follows_the_share_done(tmp_path: Path) -> None:
    watch = watching(tmp_path / "events", expected=100)
    with watch:
        assert "left" not in watch.line() and "  0%" in watch.line()
        progress.tell(passes=25)
        watch._read()
        watch.started -= 30 + 0.1
        assert re.search(r"about 1 min (30|31) s left", watch.line())
        progress.tell(passes=50)
        watch._read()
        assert re.search(r"about (10|11) s left", watch.line())


def test_work_of_unknown_length_has_no_time_left(tmp_path: Path) -> None:
    watch = watching(tmp_path / "events", expected=0)
    with watch:
        progress.tell(passes=25)
        watch._read()
        assert "  0%" in watch.line() and "left" not in watch.line()


def test_events_reach_a_terminal_while_the_work_goes_on(tmp_path: Path) -> None:
    terminal = Terminal("arm imp.*accuracy 50.0 %")
    with Watch(tmp_path / "events", "colt@desk", 10, terminal):
        progress.label(arm="imp")
        progress.tell(accuracy=0.5, passes=1)
        assert terminal.shown.wait(20)
    text = terminal.getvalue()
    assert text.startswith("\r\x1b[2K") and text.count("\n") == 1  # one line, drawn over itself
    assert re.search(r"colt@desk: done after 0\.\d min\n$", text)


def test_a_log_file_gets_whole_lines_without_control_characters(tmp_path: Path) -> None:
    log = Terminal("arm imp", tty=False)
    watch = Watch(tmp_path / "events", "colt@desk", 10, log)
    watch.interval = 0.05
    with watch:
        progress.label(arm="imp")
        progress.tell(passes=1)
        assert log.shown.wait(20)
    assert "\x1b" not in log.getvalue() and "\r" not in log.getvalue()
    assert all(line.startswith("colt@desk: ") for line in log.getvalue().splitlines())
    assert log.getvalue().endswith(" min\n")


def test_a_watch_leaves_no_file_no_listener_and_no_thread(tmp_path: Path) -> None:
    threads, watch = threading.active_count(), watching(tmp_path / "events")
    with watch:
        assert threading.active_count() == threads + 1
        progress.tell(passes=1)
    assert list(tmp_path.iterdir()) == [] and listener() is None
    assert threading.active_count() == threads


def test_a_watch_ends_with_its_block_and_lets_the_error_through(tmp_path: Path) -> None:
    watch = watching(tmp_path / "events")
    with pytest.raises(KeyboardInterrupt), watch:
        raise KeyboardInterrupt
    assert isinstance(watch.stream, Terminal)
    assert watch.stream.getvalue().startswith("colt@desk: stopped after ")
    assert listener() is None


def test_seconds_of_units_that_ended_before_a_kill_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for unit in ("a", "b"):
        with pytest.raises(KeyboardInterrupt), watching(path):
            progress.tell(unit=unit, seconds=2.5)
            progress.tell(passes=30)
            raise KeyboardInterrupt
    with watching(path) as last:
        progress.tell(unit="b", seconds=3.0)
    assert last.seconds == {"a": 2.5, "b": 3.0} and last.passes == 0
    assert not path.exists()


def test_the_end_of_a_unit_is_not_what_a_worker_does(tmp_path: Path) -> None:
    with watching(tmp_path / "events") as watch:
        progress.tell(arm="imp", accuracy=0.5)
        progress.tell(unit="search/imp/seed-0", seconds=2.0)
        watch._read()
        assert watch.latest == {"arm": "imp", "accuracy": 0.5}


def test_stored_units_are_no_work_and_copied_ones_are_counted_as_reused(tmp_path: Path) -> None:
    with watching(tmp_path / "events", expected=100) as watch:
        progress.tell(stored="a", copied=True, passes=30)
        progress.tell(stored="b", copied=False, passes=20)
        progress.tell(passes=25)
        watch._read()
        assert (watch.reused, watch.expected) == (1, 50) and " 50%" in watch.line()


def test_events_of_a_unit_carry_its_name(tmp_path: Path) -> None:
    progress.listen_to(tmp_path / "events")
    progress.label(arm="left over")
    progress.begin("search/imp/seed-0")
    progress.tell(epoch=1)
    progress.label(arm="imp")
    progress.tell(epoch=2)
    assert progress.labelled() == {"arm": "imp"}
    progress.begin()
    progress.tell(epoch=3)
    assert lines(tmp_path / "events") == [
        {"unit": "search/imp/seed-0", "epoch": 1},
        {"unit": "search/imp/seed-0", "arm": "imp", "epoch": 2},
        {"epoch": 3},
    ]


# --- a part of a whole `ticketlab repro`


def test_a_watch_hands_events_on_to_the_display_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And shows nothing itself."""
    whole = tmp_path / "whole"
    monkeypatch.setenv(progress.REPRO, str(whole))
    with Watch(tmp_path / "events", "train@desk-colt", 10, log := Terminal(tty=False)):
        progress.tell(arm="imp", passes=1)
        progress.tell(unit="imp/seed-0", seconds=2.0)
    progress.report("read@desk-colt", cell=1, cells=9)
    assert log.getvalue() == "" and not (tmp_path / "events").exists()
    assert lines(whole) == [
        {"stage": "train@desk-colt", "arm": "imp", "passes": 1},
        {"stage": "train@desk-colt", "unit": "imp/seed-0", "seconds": 2.0},
        {"stage": "read@desk-colt", "cell": 1, "cells": 9},
    ]


def test_a_stage_ends_soon_after_its_repro_was_killed() -> None:
    repro = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = "from ticketlab import progress; import time\n"
    code += "progress.end_with_repro(); print(1, flush=True); time.sleep(60)"
    env = os.environ | {progress.REPRO_PROCESS: str(repro.pid)}
    stage = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    try:
        assert stage.stdout is not None and stage.stdout.readline() == b"1\n"
        assert stage.poll() is None
        repro.kill()
        repro.wait()
        assert stage.wait(20) == -signal.SIGTERM
    finally:
        repro.kill()
        stage.kill()
        stage.communicate()


def test_what_an_earlier_run_left_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text('{"passes": 90}\nhalf a li')
    watch = watching(path)
    with watch:
        progress.tell(passes=10)
        watch._read()
        assert watch.passes == 10


def test_a_line_that_is_still_being_written_is_not_shown(tmp_path: Path) -> None:
    watch = watching(tmp_path / "events")
    with watch:
        progress.tell(arm="imp", passes=1)
        with watch.path.open("a") as file:
            file.write('{"arm": "colt", "pas')
        watch._read()
        assert watch.latest == {"arm": "imp", "passes": 1} and watch.passes == 1


def test_a_line_written_in_two_parts_is_one_event(tmp_path: Path) -> None:
    with Watch(tmp_path / "events", "colt@desk", 10, io.StringIO()) as watch:
        with (tmp_path / "events").open("a") as file:
            for part in (
                '{"arm": "a", "pas',
                'ses": 3}\n',
                '{"arm": "ki',
                "lled\n",
                '{"passes": 4}\n',
            ):
                file.write(part)
                file.flush()
                watch._read()
        assert watch.passes == 7
