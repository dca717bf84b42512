"""Units on a Dask cluster: same bytes as here, also when a worker is lost on the way."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import wait_for
from conftest import Message, tiny_params, use_data
from test_fleet import contents, refusing, units

from ticketlab import fleet
from ticketlab.colt_study import search_units

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster(tiny_folder: Path) -> Iterator[Any]:
    """A scheduler and two workers of one thread, as processes of this machine."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use_data(patch, tiny_folder)
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as local:
            yield local


def lose_a_worker(folder: Path, pid: int) -> None:
    """End a worker's process as soon as a first unit is stored."""
    wait_for(lambda: list(folder.rglob("*.json")))
    os.kill(pid, signal.SIGKILL)


def processes(address: str) -> set[int]:
    """The process ids of the workers."""
    with distributed.Client(address) as client:
        return set(client.run(os.getpid).values())


def test_a_cluster_that_loses_a_worker_stores_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    """COLT's searches of two seeds; the killed worker's unit is taken up by another."""
    todo = search_units(tiny_params(max_rounds=2))
    before = processes(cluster.scheduler_address)
    victim = min(before)
    arguments = (tmp_path / "cluster", victim)
    killer = threading.Thread(target=lose_a_worker, args=arguments, daemon=True)
    killer.start()
    address = f"dask:{cluster.scheduler_address}"
    found = fleet.run(todo, tmp_path / "cluster", workers=address)
    killer.join()
    assert list(found) == [unit.name for unit in todo]
    fleet.run(todo, tmp_path / "here", workers=1)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")
    assert victim not in processes(cluster.scheduler_address)
    assert fleet.at_once(address) >= 1


def test_what_a_unit_raises_on_a_worker_arrives_here(
    cluster: Any, tmp_path: Path, one_line: Message
) -> None:
    address = f"dask:{cluster.scheduler_address}"
    todo = units(tmp_path, refusing, seeds=(4,))
    assert one_line(lambda: fleet.run(todo, tmp_path, address)) == "rate: 4 is wrong, allowed: 0.5"


def test_a_cluster_that_cannot_be_used_is_one_line(one_line: Message) -> None:
    told = one_line(lambda: fleet.at_once("dask:nowhere"))
    assert told.startswith("runtime.workers: no scheduler at 'dask:nowhere' (")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",  # otherwise it looks for a network
        dashboard_address=":0",
    ) as local:
        told = one_line(lambda: fleet.at_once(f"dask:{local.scheduler_address}"))
    assert "allowed are workers of one thread" in told
