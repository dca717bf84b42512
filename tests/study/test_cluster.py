"""Units on a Dask cluster: same bytes as here, also when a worker is lost on the way."""

import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import typer
from clone import wait_for
from conftest import Message, use_data
from small_units import contents, dying, refusing, runs, together, units

from ticketlab import progress
from ticketlab.cli import workers as watching
from ticketlab.cli.terminal import one_line_errors
from ticketlab.papers.colt.study import search_units
from ticketlab.pipeline.display import line
from ticketlab.pipeline.eta import Course, Stage
from ticketlab.spec import ROOT
from ticketlab.study import runner
from ticketlab.study.runner import UnitFailed

distributed = pytest.importorskip("distributed")


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers, each a process of this machine."""

    address: str
    folder: Path
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """One more process of the cluster."""
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def worker(self, threads: int) -> "subprocess.Popen[bytes]":
        """A worker that nobody starts again when it is lost."""
        options = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard")
        return self.start("worker", self.address, "--host", "127.0.0.1", *options)

    def workers(self) -> dict[int, int]:
        """Threads of each worker by its process id."""
        with distributed.Client(self.address, timeout="30s") as client:
            found = client.run(lambda dask_worker: (os.getpid(), dask_worker.state.nthreads))
            return dict(found.values())


@contextmanager
def started(tiny_folder: Path, folder: Path, workers: int) -> Iterator[Cluster]:
    """A scheduler and its workers of one thread."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        use_data(patch, tiny_folder)
        # Where units of tests are, and the checkout that is tested.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        local = Cluster(f"tcp://127.0.0.1:{port}", folder)
        options = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
        for start in (
            lambda: local.start("scheduler", *options),
            *[lambda: local.worker(1)] * workers,
        ):
            process = start()
            local.processes.append(process)
            running.callback(process.wait)
            running.callback(process.kill)
        wait_for(lambda: len(local.workers()) == workers)
        yield local


@pytest.fixture(scope="module")
def cluster(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers of one thread."""
    with started(tiny_folder, tmp_path_factory.mktemp("cluster"), 2) as local:
        yield local


def lose_a_worker(folder: Path, pid: int) -> None:
    """End a worker's process as soon as a first unit is stored."""
    wait_for(lambda: list(folder.rglob("*.json")))
    os.kill(pid, signal.SIGKILL)


def test_the_progress_of_all_workers_is_shown(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `ticketlab repro`, which names the units of both, and by a stage alone."""
    todo, address = units(tmp_path, together, seeds=(0, 1)), f"dask:{cluster.address}"
    forwarded, log = tmp_path / "repro.events", io.StringIO()
    course = Course([Stage("train@desk-colt")], time.monotonic())
    shown: list[str] = []

    def follow(watch: progress.Watch) -> None:
        tail = progress.Tail(forwarded)
        while len(course.stages["train@desk-colt"].running) < 2:
            for event in tail.read():
                course.take(event, time.monotonic())
            time.sleep(0.01)
        shown.extend([line(course, time.monotonic()), watch.line()])
        tail.close()

    forwarded.touch()
    monkeypatch.setenv(progress.REPRO, str(forwarded))
    with progress.Watch(tmp_path / "events", "train@desk-colt", 200.0, log) as watch:
        looking = threading.Thread(target=follow, args=(watch,), daemon=True)
        looking.start()
        runner.run(todo, tmp_path / "runs", workers=address)
        looking.join(30)
    whole, alone = shown
    assert "unit-0 (arm arm 0)" in whole and "unit-1 (arm arm 1)" in whole, whole
    assert "· 2 units at once ·" in alone, alone
    assert set(watch.seconds) == {"unit-0", "unit-1"} and not watch.running


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_stores_the_same_bytes(
    cluster: Cluster, tmp_path: Path
) -> None:
    """COLT's searches of two seeds; the killed worker's unit is taken up by another."""
    params = tiny.colt(max_rounds=2)
    todo = search_units(params, params.points[0])
    victim = min(cluster.workers())
    arguments = (tmp_path / "cluster", victim)
    killer = threading.Thread(target=lose_a_worker, args=arguments, daemon=True)
    killer.start()
    address = f"dask:{cluster.address}"
    found = runner.run(todo, tmp_path / "cluster", workers=address)
    killer.join()
    assert list(found) == [unit.name for unit in todo]
    runner.run(todo, tmp_path / "here", workers=1)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")
    assert victim not in cluster.workers()
    assert runner.at_once(address) >= 1


def test_lost_workers_are_reported_and_the_run_waits_for_others(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.1)
    address, before = f"dask:{cluster.address}", len(cluster.workers())
    with watching.watched(address):
        for count in (before + 1, before):
            if count > before:
                other = cluster.worker(1)
            else:
                other.kill()
                other.wait()
            wait_for(lambda n=count: len(cluster.workers()) == n)
            said = wait_for(lambda: capsys.readouterr().err)
            assert said.startswith("warning: " * (count == before) + f"workers: '{address}' has ")
            assert f"has {count} worker" in said and said.count("\n") == 1
    assert "waits for new ones: start some with `ticketlab pinned" in watching.change("a", 1, 0)


@pytest.mark.slow
def test_a_unit_that_ends_its_workers_is_one_line(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As when they run out of memory: the scheduler gives up after a number of workers."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with started(tiny_folder, tmp_path, 1) as local:
        todo = units(tmp_path, dying, seeds=(9,))
        with pytest.raises(typer.Exit), one_line_errors():
            runner.run(todo, tmp_path / "runs", f"dask:{local.address}")
    printed = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert len(printed) == 1 and "error: unit unit-9 failed: KilledWorker: " in printed[0]
    assert printed[0].endswith("what has been trained is kept")


@pytest.mark.slow
def test_a_lost_scheduler_is_one_line(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(tiny_folder, tmp_path, 1) as local:
        address = f"dask:{local.address}"
        todo = units(tmp_path, together, seeds=(0,))

        def lose() -> None:
            wait_for((tmp_path / "log.at-0").exists)
            local.processes[0].kill()

        threading.Thread(target=lose, daemon=True).start()
        with pytest.raises(typer.Exit), one_line_errors(), watching.watched(address):
            runner.run(todo, tmp_path / "runs", address)
    printed = capfd.readouterr().err.strip()
    assert "\n" not in printed and "scheduler-connection-lost" in printed, printed
    assert printed.startswith("error: unit unit-0 failed: FutureCancelledError: ")


def test_what_a_unit_raises_on_a_worker_arrives_here(
    cluster: Cluster, tmp_path: Path, one_line: Message
) -> None:
    address = f"dask:{cluster.address}"
    todo = units(tmp_path, refusing, seeds=(4,))
    message = one_line(lambda: runner.run(todo, tmp_path, address))
    assert message == "unit unit-4, seed 4: rate: 4 is wrong, allowed: 0.5"


def test_a_unit_that_a_worker_cannot_read_fails_by_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version of the package there; the next run goes on as if nothing was."""
    (tmp_path / "only_here.py").write_text("def work(log, seed): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    work, address = importlib.import_module("only_here").work, f"dask:{cluster.address}"
    with pytest.raises(UnitFailed, match=r"unit unit-[012] failed: .*different environments"):
        runner.run(units(tmp_path, work), tmp_path / "runs", address)
    assert list(runner.run(units(tmp_path), tmp_path / "runs", address)) == [
        "unit-0",
        "unit-1",
        "unit-2",
    ]
    assert sorted(runs(tmp_path)) == [0, 1, 2]


def test_workers_that_do_not_share_the_folder_are_an_error_that_names_the_units(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message
) -> None:
    """A relative folder is another one for each process: the workers store into theirs."""
    monkeypatch.chdir(tmp_path)
    folder, address = Path(f"runs-of-{tmp_path.name}"), f"dask:{cluster.address}"
    message = one_line(lambda: runner.run(units(tmp_path), folder, address))
    assert message.startswith(f"workers: '{address}' has run unit-0, unit-1, unit-2, but")
    assert str(folder) in message and "share" in message
    assert sorted(runs(tmp_path)) == [0, 1, 2] and not folder.exists()
    assert (cluster.folder / folder / "unit-0.json").exists()  # they have run, there


def test_a_cluster_that_cannot_be_used_is_one_line(cluster: Cluster, one_line: Message) -> None:
    message = one_line(lambda: runner.at_once("dask:nowhere"))
    assert message.startswith("workers: no scheduler at 'dask:nowhere' (")
    other = cluster.worker(2)
    try:
        wait_for(lambda: 2 in cluster.workers().values())
        message = one_line(lambda: runner.at_once(f"dask:{cluster.address}"))
    finally:
        other.kill()
        other.wait()
    assert "has some with 2, allowed are workers of one thread" in message
