"""confirmations.yaml: on which machines a study was run afresh, and whether it was reproduced.

`ticketlab verify --record` appends an entry per study. It names products and versions, no hosts or
users. For a page: `read` gives the entries, `machines` and `sentence` say where a study was re-run.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock

from ticketlab import __version__, instruction_set
from ticketlab.files import parse_yaml, read_json, write_atomically, yaml_text
from ticketlab.pipeline import machine, params
from ticketlab.pipeline import timings as seconds
from ticketlab.pipeline.params import Run
from ticketlab.pipeline.verify import Finding, Word, is_reproduced
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study.results import NUMERICAL, made_elsewhere

FILE = ROOT / "confirmations.yaml"
Outcome = Literal["byte for byte", "within intervals", "not reproduced"]


class Stage(Spec):
    """What became of one stage, and how long it took."""

    outcome: Word
    minutes: float
    """Of all its workers together; 0 for a stage that is not timed, such as `data`."""


class Place(NamedTuple):
    """A kind of machine on which a study was run: what can change its bytes on a CPU."""

    product: str
    """The processor, or the GPU if there is one."""
    instruction_set: str


class Confirmation(Spec):
    """One run of a study from an empty store, compared with committed results."""

    study: str
    revision: str
    """The commit whose results it was compared with."""
    date: str
    """Of the comparison, in UTC: '2026-11-27'."""
    processor: str
    cores: int
    device: str
    """'cpu', or the product name of a GPU."""
    instruction_set: str
    versions: dict[str, str]
    """Of Python, ticketlab, and each package that can change a number."""
    outcome: Outcome
    stages: dict[str, Stage]

    @property
    def place(self) -> Place:
        """Where it was run."""
        product = self.processor if self.device == "cpu" else self.device
        return Place(product, self.instruction_set)


# ---------------------------------------------------------------- for pages


def read(path: Path = FILE) -> tuple[Confirmation, ...]:
    """The entries in their order; none without the file.

    InputError for an entry that does not fit `Confirmation`, or a file that is not as `append`
    writes it.
    """
    if not path.exists():
        return ()
    text = path.read_text()
    found = parse_yaml(text, path.name)
    if not isinstance(found, list):
        raise InputError(f"{path.name}: holds {type(found).__name__}, allowed is a list")
    if yaml_text(found) != text:
        raise InputError(f"{path.name}: not as `ticketlab verify --record` writes it")
    return tuple(
        params.validate(Confirmation, one, f"{path.name}: {index}")
        for index, one in enumerate(found)
    )


def machines(found: Iterable[Confirmation], study: str) -> dict[Place, Outcome]:
    """Every kind of machine on which a study was run, with the outcome of the last run there."""
    return {one.place: one.outcome for one in found if one.study == study}


def sentence(found: Iterable[Confirmation], study: str) -> str:
    """'Re-run on 2 machines: AMD EPYC, avx2 (byte for byte); ...'; empty if it was not re-run."""
    known = machines(found, study)
    each = [f"{place.product}, {place.instruction_set} ({known[place]})" for place in known]
    count = f"{len(each)} machine{'s' if len(each) > 1 else ''}"
    return f"Re-run on {count}: {'; '.join(each)}." if each else ""


# ---------------------------------------------------------------- an entry


def check_fresh(root: Path, runs: Sequence[Run]) -> None:
    """InputError unless all units of these runs were trained on this machine, none reused."""
    for run in runs:
        study = root / "results" / run.study
        reason = _not_fresh(study, run.paper)
        if reason:
            renew = f"`ticketlab repro --fresh --force read@{run.name}` trains all"
            raise InputError(f"record: {run.name}: {reason}; {renew}")


def _not_fresh(study: Path, paper: str) -> str:
    """Why a paper's results are no check of reproducibility; empty if they are one."""
    folder, timed = study / "runs" / paper, study / "runs" / f"{paper}.timings.json"
    if made_elsewhere(folder):
        return "its units were made on another machine"
    if not timed.exists():
        return "it is not recorded that its units were trained here"
    timings = read_json(timed)
    if timings.get("reused", 0):
        return f"{timings['reused']} of its units were reused"
    records = seconds.records(folder)
    if others := set(records) - set(timings["seconds"]):
        return f"{len(others)} of its units were not trained here, such as {min(others)}"
    if timings.get(seconds.RECORDS, seconds.digest(records)) != seconds.digest(records):
        return "its records are not those that were trained here"
    made, here = machine.read(study).get(paper, {}), instruction_set.describe()
    if other := [key for key in ("processor", "instruction_set") if made.get(key) != here[key]]:
        return f"its {other[0]} is {made.get(other[0])!r}, here it is {here[other[0]]!r}"
    return ""


def entry(
    root: Path, study: str, runs: Sequence[Run], findings: Sequence[Finding], exact: bool, rev: str
) -> Confirmation:
    """The entry of a study that `check_fresh` allows; `rev` is the commit it was compared with.

    InputError for a stage that is out of date: it is not what the parameters and code here make.
    """
    if stale := [finding.stage for finding in findings if not finding.current]:
        raise InputError(f"record: {stale[0]} is out of date or not in runs, run `ticketlab repro`")
    made = machine.read(root / "results" / study)[runs[0].paper]
    versions = {name: str(made[name]) for name in ("python", *NUMERICAL)}
    word: Outcome = "not reproduced"
    if is_reproduced(findings, exact):
        identical = all(finding.word == "identical" for finding in findings)
        word = "byte for byte" if identical else "within intervals"
    papers = {run.name: run.paper for run in runs}
    timed = {
        run.paper: root / "results" / study / "runs" / f"{run.paper}.timings.json" for run in runs
    }
    return Confirmation(
        study=study,
        revision=rev,
        date=datetime.now(UTC).date().isoformat(),
        processor=made["processor"],
        cores=made["cores"],
        device=made["device"],
        instruction_set=made["instruction_set"],
        versions=versions | {"ticketlab": __version__},
        outcome=word,
        stages={
            finding.stage: Stage(
                outcome=finding.word, minutes=_minutes(finding.stage, papers, timed)
            )
            for finding in findings
        },
    )


def _minutes(stage: str, papers: dict[str, str], timed: dict[str, Path]) -> float:
    kind, _, name = stage.partition("@")
    timings = read_json(timed[papers[name]])
    taken = {"train": sum(timings["seconds"].values()), "read": timings.get(seconds.PAGE, 0.0)}
    return round(float(taken.get(kind, 0.0)) / 60, 2)


def append(new: Confirmation, path: Path = FILE) -> None:
    """Add an entry at the end of the file, which readers see without or with it, never in part."""
    machine.LOCKS.mkdir(parents=True, exist_ok=True)
    with FileLock(machine.LOCKS / f"{path.name}.lock"):
        known = [one.model_dump(mode="json") for one in (*read(path), new)]
        write_atomically(path, yaml_text(known).encode())
