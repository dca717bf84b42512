"""A campaign of faults from outside: kills, a full disk, a read-only cache, two runs, damage.

    python tests/campaign_of_faults.py [--kills 20] [--seed 0] [--only kills] [--table FILE]

Run by hand, not by pytest. A small study (real trainings on the embedded images, from data to
page) first runs undisturbed with `ticketlab repro`. Then each fault meets the same study from
nothing, and its cause is removed. The same command must then complete with the same bytes, leave no
half-written file, and train no unit again that was stored before the fault.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

import conftest  # noqa: F401  # isort: split
from clone import Tree, running_in, untrained, wait_for

COMMAND = ("ticketlab", "repro")
RUNS, PARTIAL = "results/desk/runs/colt", "results/desk/runs/.colt.partial"
STUDY: dict[str, Any] = {"seeds": [0, 1, 2], "recipe": {"length": "1ep"}}
"""Changes to the small study of `clone.py`."""
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

    def __init__(self, root: Path) -> None:
        self.clone = untrained(root / "clone")
        self.clone.set(desk=STUDY, workers=2)
        self.clone.commit()
        started = time.monotonic()
        done = self.run()
        self.seconds = time.monotonic() - started
        if done.code != 0 or self.remains():
            raise SystemExit(f"the undisturbed run fails:\n{done.err}\n{self.remains()}")
        self.whole = self.state()
        self.units = len(self.stored())

    # --- runs

    def start(self, command: tuple[str, ...] = COMMAND, **env: str) -> "subprocess.Popen[str]":
        """Start a run with its output in files, in a session of its own."""
        log = self.clone.path(".dvc/tmp/run.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as out, log.with_suffix(".err").open("w") as err:
            return subprocess.Popen(
                command, cwd=self.clone.root, env=self.clone.env | env, text=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def ended(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait for the end of a run and of everything that it has started."""
        code = process.wait()
        wait_for(lambda: not running_in(self.clone))
        log = self.clone.path(".dvc/tmp/run.log")
        return Ended(code, log.read_text(), log.with_suffix(".err").read_text())

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
        """Remove everything that was made, also from DVC's cache."""
        self.clone.run("git clean -q -fdx -e .venv -e .dvc/tmp/run.* && git checkout -q .")
        for name in (".dvc/cache", ".dvc/tmp", "results"):
            shutil.rmtree(self.clone.path(name), ignore_errors=True)

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
    text = campaign.clone.path(".dvc/tmp/run.log").read_text()
    begun = re.findall(r"^Running stage '(\w+)", text, re.M)
    return begun[-1] if begun else "before the first stage"


# ---------------------------------------------------------------- the campaign


def main() -> None:
    """Run the campaign; exit with code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        print(f"undisturbed: {campaign.units} units, {campaign.seconds:.0f} s", flush=True)
        found = kills(campaign, asked.kills, asked.seed)
    print(found)
    sys.exit(not all(row.holds for row in found.runs))


if __name__ == "__main__":
    main()
