"""A campaign of faults from outside: kills, a full disk, a read-only cache, two runs, damage.

    python tests/campaign_of_faults.py [--kills 20] [--epochs 4] [--seed 0] [--only PART]
                                       [--table FILE]

Run by hand, not by pytest. Full and read-only disks are mounted, which needs root. A small study
(real trainings on the embedded images, from data to page) first runs undisturbed with `ticketlab
repro`. Then each fault meets the same study, and its cause is removed. The same command must then
complete with the same bytes, leave no half-written file, and train no unit again that was stored
before the fault. With `--only train`, `ticketlab train` alone is killed, which takes a part of the
time, so that more kills meet a half-trained study.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

import conftest  # noqa: F401  # isort: split
from clone import Tree, mounted, running_in, untrained, wait_for

REPRO, TRAIN = ("ticketlab", "repro"), ("ticketlab", "train", "desk", "colt")
RUNS, PARTIAL = "results/desk/runs/colt", "results/desk/runs/.colt.partial"
SEEDS = [0, 1, 2]
"""The seeds of the small study of `clone.py`."""
IN_A_ROW = 4
"""A run that was killed this often in a row completes before the next kill."""
TIMED = re.compile(r"timings\.(csv|json)$")
"""Files that hold seconds, which differ from run to run."""
HALF = re.compile(r"\.(partial|retired|staging|running|failed|events|tmp)\b|/tmp[a-z0-9_]{8}$")


class Row(NamedTuple):
    """What one fault did, and what the same command made of it afterwards."""

    fault: str
    code: int | None
    """Exit code of the disturbed run; None if it was killed."""
    said: str
    """The last error line of the disturbed run."""
    kept: int
    """Units that were stored when the disturbed run ended."""
    again: int
    """Units among these that were trained again."""
    same: bool
    """Whether the next run completed with the bytes of the undisturbed one."""
    remains: tuple[str, ...]
    """Half-written files after that."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost."""
        return self.same and not self.again and not self.remains


class Ended(NamedTuple):
    """A run that has ended by itself."""

    code: int
    out: str
    err: str


class Campaign:
    """A clone with a small study, and what an undisturbed run makes of it."""

    def __init__(self, root: Path, epochs: int, command: tuple[str, ...] = REPRO) -> None:
        self.command = command
        self.clone = untrained(root / "clone")
        self.log = root / "run.log"
        study = {"seeds": SEEDS, "recipe": {"length": f"{epochs}ep"}}
        self.clone.set(desk=study, workers=2)
        self.clone.commit()
        self.empty()
        started = time.monotonic()
        done = self.run()
        self.seconds = time.monotonic() - started
        if done.code != 0 or self.remains():
            raise SystemExit(f"the undisturbed run fails:\n{done.err}\n{self.remains()}")
        self.whole = self.state()
        self.units = len(self.stored())

    # --- runs

    def start(self, most: int | None = None, **env: str) -> "subprocess.Popen[str]":
        """Start a run with its output in files, in a session of its own.

        `most` limits the bytes of a file.
        """
        log = self.log

        def limit() -> None:
            if most is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        with log.open("w") as out, log.with_suffix(".err").open("w") as err:
            return subprocess.Popen(
                self.command, cwd=self.clone.root, env=self.clone.env | env, text=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                preexec_fn=limit,
            )  # fmt: skip

    def ended(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait for the end of a run and of everything that it has started."""
        code = process.wait()
        wait_for(lambda: not running_in(self.clone))
        return Ended(code, self.log.read_text(), self.log.with_suffix(".err").read_text())

    def run(self) -> Ended:
        """Run the study to its end."""
        return self.ended(self.start())

    def kill(self, process: "subprocess.Popen[str]") -> None:
        """Send SIGKILL to every process of a run."""
        while found := running_in(self.clone):
            for number in found:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        process.wait()

    # --- what is there

    def empty(self) -> None:
        """Remove everything that was made, also from DVC's cache; training has its data."""
        self.clone.run("git clean -q -fdx -e .venv && git checkout -q .")
        for name in (".dvc/cache", ".dvc/tmp", "results"):
            shutil.rmtree(self.clone.path(name), ignore_errors=True)
        if self.command == TRAIN:
            self.clone.run("ticketlab prepare desk")

    def state(self) -> Tree:
        """Digests of all results and of dvc.lock, without files of seconds."""
        found = {f"results/{name}": sha for name, sha in self.clone.tree("results").items()}
        lock = self.clone.path("dvc.lock")
        found["dvc.lock"] = md5(lock.read_bytes()).hexdigest() if lock.exists() else ""
        return {name: sha for name, sha in found.items() if not TIMED.search(name)}

    def stored(self) -> dict[str, int]:
        """When each unit's record was written, in a finished or an interrupted run."""
        folders = (self.clone.path(RUNS), self.clone.path(PARTIAL))
        return {
            path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
            for folder in folders
            for path in folder.rglob("*.json")
            if not path.name.startswith(".")
        }

    def remains(self) -> tuple[str, ...]:
        """Half-written files among results and in DVC's folders, and cached files of other bytes
        than their name says."""
        names = [*(f"results/{name}" for name in self.clone.tree("results"))]
        inside = [path for path in self.clone.path(".dvc").rglob("*") if path.is_file()]
        names += [path.relative_to(self.clone.root).as_posix() for path in inside]
        found = [name for name in names if HALF.search(name)]
        cache = self.clone.path(".dvc/cache/files/md5")
        for path in cache.glob("*/*"):
            whole = f"{path.parent.name}{path.stem}"
            if path.is_file() and md5(path.read_bytes()).hexdigest() != whole:
                found.append(path.relative_to(self.clone.root).as_posix())
        return tuple(found)

    def continued(self, fault: str, code: int | None, said: str) -> Row:
        """Run the same command once more after a fault, and compare."""
        before, where = self.stored(), self.clone.path(RUNS).exists()
        done = self.run()
        return self.row(fault, code, said, before, where, done)

    def row(
        self, fault: str, code: int | None, said: str, before: dict[str, int], whole: bool,
        done: Ended,
    ) -> Row:  # fmt: skip
        """Compare what a run has made with the undisturbed one.

        `before` are the units that were stored before it. Where a `whole` study was stored, its
        units were copied rather than kept in place.
        """
        now = self.stored()
        again = sum(now.get(name) != written for name, written in before.items())
        copied = sum(map(int, re.findall(r"(\d+) of \d+ units are reused", done.out)))
        again = max(0, again - copied) if whole else again
        same = done.code == 0 and self.state() == self.whole
        return Row(fault, code, said, len(before), again, same, self.remains())


# ---------------------------------------------------------------- kills


class Kills(NamedTuple):
    """What became of a series of kills."""

    where: list[str]
    """Where each kill met the run: the stage, and units stored by then."""
    seconds: list[float]
    runs: list[Row]
    """One row for each time the study was completed."""


def kills(campaign: Campaign, count: int, seed: int) -> Kills:
    """Kill runs at random moments, `count` times in all.

    The moments are drawn between 0 and the seconds of the latest undisturbed run: other work on the
    machine changes these. Every run continues the one before. After at most IN_A_ROW kills it
    completes, is compared, and all begins from nothing.
    """
    draw, found = random.Random(seed), Kills([], [], [])
    campaign.empty()
    row = 0
    while True:
        before, whole = campaign.stored(), campaign.clone.path(RUNS).exists()
        last = row == IN_A_ROW or len(found.where) == count
        moment = float("inf") if last else draw.uniform(0, campaign.seconds)
        started, process = time.monotonic(), campaign.start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(None if last else moment)
        if process.poll() is None:
            campaign.kill(process)
            row += 1
            found.where.append(f"{stage(campaign)}, {len(campaign.stored())} units stored")
            found.seconds.append(moment)
            print(f"kill {len(found.where)} after {moment:.1f} s: {found.where[-1]}", flush=True)
            lost = before.keys() - campaign.stored().keys()
            if lost:
                raise SystemExit(f"lost: {', '.join(sorted(lost))}")
            continue
        done = campaign.ended(process)
        if row == 0:
            campaign.seconds = time.monotonic() - started
        fault = f"{row} kills in a row"
        found.runs.append(campaign.row(fault, None, "", before, whole, done))
        print(found.runs[-1], flush=True)
        if not found.runs[-1].same:
            print(done.err, flush=True)
        if len(found.where) == count:
            return found
        campaign.empty()
        row = 0


def stage(campaign: Campaign) -> str:
    """The stage that a killed run was in, by what it has printed."""
    if campaign.command == TRAIN:
        return "train"
    text = campaign.log.read_text()
    begun = re.findall(r"^Running stage '(\w+)", text, re.M)
    return begun[-1] if begun else "before the first stage"


# ---------------------------------------------------------------- other faults


def disturbed(campaign: Campaign, fault: str, **options: Any) -> tuple[str, int, str]:
    """Run the study to its end under a fault; its exit code, and its last error line."""
    done = campaign.ended(campaign.start(**options))
    said = [line for line in done.err.splitlines() if line.startswith(("error: ", "warning: "))]
    if "Traceback" in done.err:
        said.append("a traceback")
    root = str(campaign.clone.root)
    return fault, done.code, (said[-1] if said else "").replace(root, ".").replace("|", "/")


def full(campaign: Campaign, name: str, size: str) -> Row:
    """The disk of a folder is full, then it has room."""
    campaign.empty()
    with mounted(campaign.clone.path(name), f"size={size}") as change:
        fault = disturbed(campaign, f"full disk: `{name}` has room for {size}B")
        change("size=1g")
        return campaign.continued(*fault)


def read_only(campaign: Campaign, name: str) -> Row:
    """A folder is read-only, then it is not."""
    campaign.empty()
    with mounted(campaign.clone.path(name), "size=1g") as change:
        change("ro")
        fault = disturbed(campaign, f"read-only: `{name}`")
        change("rw")
        return campaign.continued(*fault)


def limited(campaign: Campaign) -> Row:
    """No file may be larger than 30 kB, then any may."""
    campaign.empty()
    return campaign.continued(*disturbed(campaign, "no file may exceed 30 kB", most=30_000))


def twice(campaign: Campaign) -> Row:
    """Two runs begin at the same time."""
    campaign.empty()
    first = campaign.start()
    second = subprocess.run(
        campaign.command, cwd=campaign.clone.root, env=campaign.clone.env, text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    done = campaign.ended(first)
    texts = {second.returncode: second.stderr, done.code: done.err}
    code = max(texts)
    said = [line for line in texts[code].splitlines() if "error: " in line.lower()]
    line = (said[-1] if said else "").replace(str(campaign.clone.root), ".").replace("|", "/")
    ended = f"two runs at the same time, ended with {done.code} and {second.returncode}"
    return campaign.continued(ended, code, line)


def damaged(campaign: Campaign, pattern: str, what: str, damage: Callable[[bytes], bytes]) -> Row:
    """A stored file is damaged; the study is whole before, and the run mends it."""
    if campaign.state() != campaign.whole:
        campaign.empty()
        campaign.run()
    path = sorted(campaign.clone.path(RUNS).glob(pattern))[0]
    content = path.read_bytes()
    path.unlink()  # DVC may have linked it to its cache
    path.write_bytes(damage(content))
    if path.read_bytes() == content:
        raise SystemExit(f"{what}: nothing was damaged")
    fault = disturbed(campaign, what)
    return campaign.continued(*fault)


def half_done(campaign: Campaign) -> Row:
    """A run is killed while it trains, and the last bytes of a record and of a ticket are lost."""
    campaign.empty()
    process = campaign.start()
    wait_for(lambda: len(campaign.stored()) > 5, 600)
    campaign.kill(process)
    for suffix in ("json", "safetensors"):
        path = sorted(campaign.clone.path(PARTIAL).rglob(f"*.{suffix}"))[-1]
        path.write_bytes(path.read_bytes()[:-20])
    fault = disturbed(campaign, "killed, and a record and a ticket of it cut off")
    return campaign.continued(*fault)


def lost_worker(campaign: Campaign) -> Row:
    """One of two workers of a Dask cluster is killed while it trains."""
    campaign.empty()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{free.getsockname()[1]}"
    scheduler = ["dask", "scheduler", "--host", "127.0.0.1", "--port", at.partition(":")[2]]
    worker = ["ticketlab", "pinned", "dask", "worker", at, "--nthreads", "1", "--no-nanny"]
    outside, env = campaign.clone.root.parent, campaign.clone.env
    processes = [
        subprocess.Popen(command, cwd=outside, env=env, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
        for command in (scheduler, worker, worker)
    ]  # fmt: skip
    try:
        process = campaign.start(TICKETLAB_WORKERS=f"dask:tcp://{at}")
        wait_for(lambda: len(campaign.stored()) > 5, 600)
        processes[-1].kill()
        done = campaign.ended(process)
    finally:
        for one in processes:
            one.kill()
            one.wait()
    said = [line for line in done.err.splitlines() if line.startswith("warning: workers")]
    same = done.code == 0 and campaign.state() == campaign.whole
    fault = f"a lost Dask worker; the run itself has {'the same' if same else 'OTHER'} bytes"
    return campaign.continued(fault, done.code, said[-1] if said else "")


def flipped(content: bytes) -> bytes:
    """The content with another bit in its last byte."""
    return content[:-1] + bytes([content[-1] ^ 128])


def half(content: bytes) -> bytes:
    """The first half of the content."""
    return content[: len(content) // 2]


def renumbered(content: bytes) -> bytes:
    """A record of another seed, which is still valid."""
    return content.replace(b'"seed": 0', b'"seed": 7')


RECORDS = "score/*/*.json"
FAULTS: dict[str, Callable[[Campaign], Row]] = {
    "ticket": lambda c: damaged(c, "search/*/*/*.safetensors", "a bit of a stored ticket", flipped),
    "number": lambda c: damaged(c, RECORDS, "a number of a stored record", renumbered),
    "record": lambda c: damaged(c, RECORDS, "half of a stored record", half),
    "half-done": half_done,
    "twice": twice,
    "full-results": lambda c: full(c, "results", "300k"),
    "full-cache": lambda c: full(c, ".dvc/cache", "200k"),
    "full-database": lambda c: full(c, ".dvc/tmp/site", "40k"),
    "file-size": limited,
    "read-only-cache": lambda c: read_only(c, ".dvc/cache"),
    "read-only-results": lambda c: read_only(c, "results"),
    "worker": lost_worker,
}
"""Every fault but kills."""
PARTS = ("kills", "others", "train", *FAULTS)
"""What `--only` takes."""


# ---------------------------------------------------------------- the campaign


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| fault | exit code | what is said | stored, trained again | same bytes, no remains |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        code = "-" if row.code is None else str(row.code)
        ends = "yes" if row.holds else f"**no** {' '.join(row.remains)}"
        lines.append(
            f"| {row.fault} | {code} | {row.said or '-'} | {row.kept}, {row.again} | {ends} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the campaign; exit with code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        command = TRAIN if asked.only == "train" else REPRO
        campaign = Campaign(Path(folder), asked.epochs, command)
        print(f"undisturbed: {campaign.units} units, {campaign.seconds:.0f} s", flush=True)
        if asked.only in (None, "kills", "train"):
            found = kills(campaign, asked.kills, asked.seed)
            rows += found.runs
            print(f"{len(found.where)} kills after {min(found.seconds):.0f} to "
                  f"{max(found.seconds):.0f} s")  # fmt: skip
        for name, fault in FAULTS.items():
            if asked.only in (None, "others", name):
                rows.append(fault(campaign))
                print(rows[-1], flush=True)
    text = table(rows)
    print(text)
    if asked.table:
        asked.table.write_text(text)
    sys.exit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
