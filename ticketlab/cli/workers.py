"""Watches the workers of a Dask cluster while a study trains on them.

Dask gives the units of a lost worker to another one. If none is left, it waits for new ones and
says nothing.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ticketlab.gpu import CLUSTER

INTERVAL = 5.0
"""Seconds between two looks at the scheduler."""


@contextmanager
def watched(workers: int | str) -> Iterator[None]:
    """Within the block, report on stderr when a cluster's workers are lost or come back.

    Does nothing for a number of processes on this machine. Dask's own log of a lost scheduler, with
    tracebacks, is turned off: the run ends with an error that says the same.
    """
    if isinstance(workers, int):
        yield
        return
    for name in ("distributed.client", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(workers, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(address: str, ended: threading.Event) -> None:
    """Look at the workers until the block has ended; the run itself reports a lost scheduler."""
    with suppress(ImportError, OSError, ValueError):
        from distributed import Client

        place = address.removeprefix(CLUSTER)
        with Client(place, timeout="10s", set_as_default=False) as client:
            before = len(client.nthreads())
            while not ended.wait(INTERVAL):
                now = len(client.nthreads())
                if now != before:
                    print(change(address, before, now), file=sys.stderr, flush=True)
                before = now


def change(address: str, before: int, now: int) -> str:
    """Describe a change of the number of workers in one line."""
    if now == 0:
        return (
            f"warning: workers: {address!r} has lost all its workers and waits for new ones: start "
            "some with `ticketlab pinned dask worker`, or stop this run; finished units are kept"
        )
    counted = f"workers: {address!r} has {now} worker{'s' * (now > 1)} now, after {before}"
    return f"warning: {counted}; others train the lost one's unit" if now < before else counted
