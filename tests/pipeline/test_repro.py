"""`ticketlab repro`: what DVC and its stages print and end with goes through, and nothing is left.

DVC is a script here: `sleep` stands for a stage.
"""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clone import Clone, finished, running_in, wait_for, with_a_mistake

from ticketlab.pipeline import repro
from ticketlab.pipeline.display import Display
from ticketlab.pipeline.eta import Course, Stage

FAILING = """
echo "Stage 'data@desk-colt' didn't change, skipping"
echo "Running stage 'train@desk-colt':"
echo "Traceback: line 1" >&2; echo "ValueError: in two lines" >&2
exit 7
"""
EVENTS = """
echo "Running stage 'train@desk-colt':"
cat >> $TICKETLAB_REPRO <<END
{"stage": "train@desk-colt", "unit": "imp/seed-0", "seconds": 1}
{"stage": "train@desk-colt", "unit": "imp/seed-1", "seconds": 1}
{"stage": "train@desk-colt", "stored": "imp/seed-2", "copied": true, "passes": 5}
END
"""


def course() -> Course:
    return Course([Stage("data@desk-colt"), Stage("train@desk-colt", 10.0)], time.monotonic())


def ran(script: str, folder: Path, course: Course) -> tuple[int, str]:
    """The exit code of a run of `script`, and what the display printed."""
    log = io.StringIO()
    return repro.run(["sh", "-c", script], folder / "events", course, Display(course, log)), (
        log.getvalue()
    )


def test_a_failing_stage_is_shown_in_full_and_its_exit_code_passed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    followed = course()
    code, _ = ran(FAILING, tmp_path, followed)
    out, err = capfd.readouterr()
    assert code == 7
    assert err == "Traceback: line 1\nValueError: in two lines\n"
    assert out.splitlines() == [
        "Stage 'data@desk-colt' didn't change, skipping",
        "Running stage 'train@desk-colt':",
    ]
    states = [stage.state for stage in followed.stages.values()]
    assert states == ["up to date", "stopped"] and list(tmp_path.iterdir()) == []


def test_what_stages_report_is_followed_to_the_end(tmp_path: Path) -> None:
    followed = course()
    code, log = ran(EVENTS, tmp_path, followed)
    train = followed.stages["train@desk-colt"]
    assert code == 0 and train.state == "done"
    assert train.trained == 2 and train.stored == {"imp/seed-2"}
    assert "\x1b" not in log and "\r" not in log


def test_a_command_that_a_signal_killed_ends_as_in_a_shell(tmp_path: Path) -> None:
    assert ran("kill -9 $$", tmp_path, course())[0] == 128 + 9


def test_event_files_of_killed_runs_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "LOCKS", tmp_path)
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f"{repro.OWN}{number}.events" for number in (ended.pid, os.getpid())]
    for name in (*names, "repro-elsewhere-1.events", "desk.colt.lock"):
        (tmp_path / name).touch()
    repro.forget_killed()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {names[1], "repro-elsewhere-1.events", "desk.colt.lock"}


SHOWN = """
import sys, time
from pathlib import Path
from ticketlab.pipeline import repro
from ticketlab.pipeline.display import Display
from ticketlab.pipeline.eta import Course, Stage
course = Course([Stage("train@desk-colt", 9.0)], time.monotonic())
script = "echo started; trap 'echo cleaning up; exit 3' INT; sleep 98765 & echo $!; wait"
sys.exit(repro.run(["sh", "-c", script], Path(sys.argv[1]), course, Display(course)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_and_shows_their_last_words(
    tmp_path: Path, number: signal.Signals
) -> None:
    """What Ctrl-C sends reaches stages, which clean up; `make` sees 128 + the signal's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHOWN, str(tmp_path / "events")], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        sleeper = int(process.stdout.readline())
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert ("cleaning up" in out) == (number == signal.SIGINT)
    assert "Traceback" not in err and not (tmp_path / "events").exists()
    wait_for(lambda: is_gone(sleeper), seconds=10)


def is_gone(process: int) -> bool:
    """Whether a process has ended, even if nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# --- with the real DVC


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with finished results, to change."""
    return finished(tmp_path_factory).copy(tmp_path_factory.mktemp("repro") / "clone")


def test_a_second_repro_finds_everything_up_to_date(clone: Clone) -> None:
    done = clone.run("ticketlab repro")
    assert done.stderr.startswith("repro: all stages are up to date\n")
    assert done.stderr.endswith("  desk-colt  data, train, read up to date\n"), done.stderr
    assert done.stdout.count("didn't change, skipping") == 3 and "\x1b" not in done.stderr
    assert clone.changes() == ""


@pytest.mark.slow
def test_one_more_seed_is_trained_and_the_others_are_reused(clone: Clone) -> None:
    clone.set(desk={"seeds": [0, 1, 2]})
    done = clone.run("ticketlab repro train@desk-colt")
    found = re.search(
        r"desk-colt  (\d+) units trained, (\d+) reused; train ran; data up", done.stderr
    )
    assert found is not None, done.stderr
    trained, reused = map(int, found.groups())
    names = [path.stem for path in clone.path("results/desk/runs/colt").rglob("*.json")]
    assert trained == names.count("seed-2") and trained + reused == len(names)
    clone.run("git checkout -q . && dvc checkout -q")


def test_the_error_of_a_cell_and_of_dvc_are_shown(clone: Clone) -> None:
    path = clone.path("notebooks/colt.ipynb")
    good = with_a_mistake(path)
    done = clone.run("ticketlab repro", check=False)
    path.write_text(good)
    assert done.returncode == 255  # that of `dvc repro`
    assert "NameError: name 'missing_name' is not defined" in done.stderr
    assert "ERROR: failed to reproduce 'read@desk-colt'" in done.stderr
    assert "repro: stopped (exit code 255) after " in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "  desk-colt  read stopped; data, train up to date"
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killing_repro_ends_its_stages_and_their_workers(
    clone: Clone, number: signal.Signals
) -> None:
    """Even if it has no time to end them; what was stored is there for the next run."""
    clone.set(desk={"recipe": {"length": "300ep"}}, workers=2)  # long enough
    events = clone.path("results/desk/runs/.colt.events")
    process = subprocess.Popen(
        ["ticketlab", "repro"], cwd=clone.root, env=clone.env, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: events.exists() and "epoch" in events.read_text())
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
    wait_for(lambda: not running_in(clone), seconds=30)
    events.unlink(missing_ok=True)
    clone.run("git checkout -q .")
