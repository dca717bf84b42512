"""Faults of the disk: one line with the cause and what to do, whoever meets them, and no loss."""

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clone import Clone, finished, mounted

from ticketlab import progress, storage
from ticketlab.cli.terminal import one_line_errors
from ticketlab.pipeline import repro
from ticketlab.pipeline.display import Display
from ticketlab.pipeline.eta import Course
from ticketlab.pipeline.notebook import NotebookFailed, execute
from ticketlab.spec import InputError
from ticketlab.study.fingerprint import PACKAGE

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")

# Programs that meet real faults, and end with a traceback.
DISK = "open('/dev/full', 'w', buffering=1).write('text\\n')"
SQLITE = """
import sqlite3
with sqlite3.connect(PATH) as base:
    base.execute('PRAGMA max_page_count = 2')
    base.execute('CREATE TABLE one (two)')
    base.executemany('INSERT INTO one VALUES (?)', [('x' * 999,)] * 99)
"""
CHAINED = f"try:\n    {DISK}\nfinally:\n    raise ValueError('another\\nin two lines')"


def ran(program: str, folder: Path, text: str = ":") -> tuple[int, storage.Faults, str]:
    """Exit code, faults and shown lines of a Python program under `ticketlab repro`'s eyes."""
    log, faults = io.StringIO(), storage.Faults()
    course = Course([], time.monotonic())
    program = program.replace("PATH", repr(str(folder / "base")))
    display = Display(course, log)
    shown: list[str] = []
    display.print = lambda line, stream: shown.append(line)  # type: ignore[method-assign]
    command = ["sh", "-c", f'{text}; exec "$0" -c "$1"', sys.executable, program]
    code = repro.run(command, folder / "events", course, display, faults)
    return code, faults, "\n".join(shown)


@needs_full
@pytest.mark.parametrize(
    ("program", "line"),
    [
        (DISK, "OSError: [Errno 28] No space left on device; free some space there, then run"),
        (SQLITE, "sqlite3.OperationalError: database or disk is full; free some space there, "),
    ],
)
def test_the_traceback_of_a_full_disk_becomes_its_cause(
    tmp_path: Path, program: str, line: str
) -> None:
    code, faults, shown = ran(program, tmp_path)
    assert code == 1 and shown == ""
    assert faults.line().startswith(line) and faults.line().endswith("trained is kept")


@needs_full
def test_other_tracebacks_are_shown_whole(tmp_path: Path) -> None:
    code, faults, shown = ran(CHAINED, tmp_path, "echo before >&2")
    assert code == 1 and len(faults.causes) == 1
    assert shown.startswith("before\n") and shown.endswith("ValueError: another\nin two lines")
    assert "Traceback (most recent call last):\n  File" in shown
    code, faults, shown = ran("import sys; sys.exit(3)", tmp_path, "echo Traceback: line 1 >&2")
    assert (code, faults.causes, shown) == (3, [], "Traceback: line 1")


def test_a_traceback_that_is_cut_off_is_shown(tmp_path: Path) -> None:
    text = "echo 'Traceback (most recent call last):' >&2; echo '  File' >&2; exit 4"
    code, faults, shown = ran("", tmp_path, text)
    assert (code, faults.causes) == (4, [])
    assert shown == "Traceback (most recent call last):\n  File"


def test_files_that_dvc_could_not_copy_make_one_line_and_an_exit_code(tmp_path: Path) -> None:
    """DVC prints a line for each of them, and ends with 0."""
    lines = "".join(
        f"echo \"ERROR: failed to transfer '{i}' - [Errno 28] No space left on device: 'a'\" >&2; "
        for i in range(3)
    )
    code, faults, shown = ran("", tmp_path, f"{lines} echo 'ERROR: another' >&2")
    assert (code, shown) == (2, "ERROR: another")
    assert "failed to transfer '0'" in faults.line() and "(and 2 more like it)" in faults.line()
    assert "\n" not in faults.line()


def test_half_written_copies_are_removed_by_their_names(tmp_path: Path) -> None:
    for name in (".a.tmp", ".b.tmp"):
        (tmp_path / name).touch()
    line = "ERROR: failed to transfer 'a' - [Errno 28] No space left on device: 'a' -> '{}'"
    faults = storage.Faults()
    assert faults.read(line.format(tmp_path / ".a.tmp")) == []
    assert faults.read(line.format(tmp_path / ".gone.tmp")) == []
    faults.remove_copies()
    assert [path.name for path in tmp_path.iterdir()] == [".b.tmp"]  # another process may write it


def test_another_run_at_work_is_one_line(tmp_path: Path) -> None:
    """As DVC says it, in four lines; or in one, as an error of its library."""
    said = (
        "ERROR: failed to reproduce 'code': '/work/results/code' is busy, it is being blocked by:\n"
        "  (PID 11880): /work/.venv/bin/dvc repro --force\n\n"
        "If there are no processes with such PIDs, you can manually remove '/work/.dvc/tmp/rwlock' "
        "and try again.\n"
    )
    (tmp_path / "said").write_text(said)
    code, faults, shown = ran("import sys; sys.exit(255)", tmp_path, f"cat {tmp_path}/said >&2")
    assert (code, shown) == (255, "")
    assert faults.line() == (
        "failed to reproduce 'code': '/work/results/code' is in use by (PID 11880): "
        "/work/.venv/bin/dvc repro --force: wait for it, then run the same command again: what has "
        "been trained is kept"
    )
    line = storage.explained(f"dvc: {' '.join(said.split())}")
    assert "rwlock" not in line and "(PID 11880): /work/.venv/bin/dvc repro --force: wait" in line


# --- in one process


def reported(action: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command prints for an error."""
    with pytest.raises(BaseException) as caught, one_line_errors():
        action()
    assert type(caught.value).__name__ == "Exit"
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("error: "), printed
    return printed


def fail(error: Exception) -> None:
    raise error


@needs_full
def test_commands_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def print_all() -> None:
        with FULL.open("w") as file:
            file.write("text")

    assert "error: No space left on device; free some" in reported(print_all, capsys)
    message = f"{tmp_path}: cannot be written ({os.strerror(errno.EROFS)})"
    line = reported(lambda: fail(InputError(message)), capsys)
    assert line.startswith(f"error: {message}; make it writable, then run the same command")
    assert reported(lambda: fail(InputError("rate: 3")), capsys) == "error: rate: 3\n"
    base = tmp_path / "base"
    line = reported(lambda: exec(SQLITE, {"PATH": str(base)}), capsys)
    assert line.startswith("error: database: database or disk is full; free")


@needs_full
def test_an_event_that_cannot_be_written_names_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress.listen_to(FULL)
    try:
        line = reported(lambda: progress.tell(passes=1), capsys)
    finally:
        progress.listen_to(None)
    assert line.startswith("error: /dev/full: cannot be written (No space left on device); free")


@needs_full
@pytest.mark.slow
def test_a_cell_that_meets_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nbformat

    book = nbformat.v4.new_notebook()
    cells = [nbformat.v4.new_code_cell(text) for text in ("", DISK)]
    cells[0].metadata.tags = ["parameters"]
    book.cells = cells
    nbformat.write(book, tmp_path / "book.ipynb")

    def page() -> None:
        try:
            execute(tmp_path / "book.ipynb", tmp_path / "page.ipynb", {})
        except NotebookFailed:
            capsys.readouterr()  # warnings of Jupyter
            raise

    line = reported(page, capsys)
    assert line.startswith("error: book.ipynb failed in cell In [1]: OSError: [Errno 28] No space")


@pytest.mark.slow
def test_compiled_modules_that_were_cut_off_are_made_again(tmp_path: Path) -> None:
    """Python leaves them where no file may grow, and cannot import them later."""
    package = tmp_path / "ticketlab"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    env = os.environ | {"PYTHONPATH": str(tmp_path), "TICKETLAB_ROOT": str(tmp_path)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "ticketlab", "--help"]

    def run(most: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )  # fmt: skip

    assert run(9_000).returncode == 0
    assert [path for path in package.rglob("*.pyc") if path.stat().st_size == 9_000]
    done = run(resource.RLIM_INFINITY)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert not [path for path in package.rglob("*.pyc") if path.stat().st_size == 9_000]


# --- with the real DVC


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with finished results and an empty cache."""
    clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("storage") / "clone")
    clone.run("rm -rf .dvc/cache")
    return clone


@pytest.mark.slow
def test_a_full_cache_ends_in_one_line_and_the_next_run_completes_it(clone: Clone) -> None:
    target, before = "train@desk-colt", clone.tree("results/desk/runs/colt")
    lock = clone.path("dvc.lock").read_text()
    with mounted(clone.path(".dvc/cache"), "size=200k") as change:
        done = clone.run(f"ticketlab repro --force {target}", check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert done.stderr.count("No space left on device") == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: failed to transfer ") and "; free some space" in last
        assert not list(clone.path(".dvc/cache").rglob(".*.tmp"))
        change("size=100m")
        done = clone.run(f"ticketlab repro {target}")
        assert "  desk-colt  0 units trained, " in done.stderr
        clone.run("rm -rf results/desk/runs/colt && dvc checkout -q " + target)
        assert clone.tree("results/desk/runs/colt") == before
        assert clone.path("dvc.lock").read_text() == lock


@pytest.mark.slow
def test_a_read_only_cache_is_one_line_before_anything_is_trained(clone: Clone) -> None:
    with mounted(clone.path(".dvc/cache"), "size=100m") as change:
        change("ro")
        done = clone.run("ticketlab repro --force train@desk-colt", check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: {clone.path('.dvc/cache')}: cannot be written (Read")
        assert "; make it writable, then run the same command again" in done.stderr
        change("rw")
        clone.run("ticketlab repro train@desk-colt")


@pytest.mark.slow
def test_a_full_disk_under_dvcs_database_is_one_line(clone: Clone) -> None:
    site = clone.path(".dvc/tmp/site")
    clone.run(f"rm -rf {site}")
    with mounted(site, "size=40k"):
        done = clone.run("ticketlab repro", check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: dvc: its database in {site}")
    assert "database or disk is full; free some space" in done.stderr
