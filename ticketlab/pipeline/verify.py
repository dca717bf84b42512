"""Did a re-run reproduce the committed results? Nothing runs: what is here is compared with git.

Whether the same bytes are to be expected depends on the two machines (`machine.rule`), and is said.

A stage is `identical` if all its outputs are, byte for byte. It is `within` if its bytes differ and
its numbers agree: every interval overlaps the committed one, every plain number is equal, and no
verdict, judged from both sides' metrics, changed but from or to undecided. Else it is
`different`, and so is one with a table, figure or curve that only one side has. Words such as
versions decide nothing. Records and tickets have no intervals of their own: where their bytes
differ, the stages that read them decide.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ticketlab.files import read_json
from ticketlab.pipeline import machine
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pipeline.repository import (
    Committed,
    Entry,
    blob_hash,
    lock_stages,
    out_of_date,
    tree_hash,
)
from ticketlab.spec import InputError
from ticketlab.study.claims import claims_in, judge_all, load_claims
from ticketlab.study.stats import Evidence, as_evidence, is_evidence

if TYPE_CHECKING:
    from dvc.repo import Repo

Word = Literal["identical", "within", "different"]
METRICS = "metrics.json"
WORST = 3
"""How many metrics a finding names."""

# ---------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Shift:
    """How far a metric moved: in sums of both half-widths, more than 1 is apart."""

    metric: str
    size: float
    text: str


def compare(old: Any, new: Any, name: str = "") -> Iterator[Shift]:
    """Every metric that is not equal, by dotted name; `math.inf` where nothing can overlap."""
    if old == new:
        return
    one, two = _evidence(old), _evidence(new)
    if one and two and type(one) is type(two):
        yield _moved(name, one, two)
    elif one or two:
        yield Shift(name, math.inf, f"{_short(old)} -> {_short(new)}")
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{name}.{key}".lstrip(".")
            if key not in old or key not in new:
                yield Shift(inner, math.inf, "not here" if key in old else "not committed")
            else:
                yield from compare(old[key], new[key], inner)
    elif isinstance(old, str) and isinstance(new, str):
        yield Shift(name, _word_size(name, old, new), f"{old} -> {new}")
    else:
        yield Shift(name, math.inf, f"{_short(old)} -> {_short(new)}")


def _evidence(value: Any) -> Evidence | None:
    """What is an interval, a share of seeds or a count, as an object."""
    return as_evidence(value) if is_evidence(value) else None


def _moved(name: str, old: Evidence, new: Evidence) -> Shift:
    """Two means over seeds; a single seed has no interval, so it can neither agree nor differ."""
    text = f"{old} -> {new}"
    if old.n != new.n:
        return Shift(name, math.inf, text)
    below, above = sorted((old, new), key=lambda one: one.mean)
    if below.high is None or above.low is None:
        return Shift(name, 0.0, text)
    reach, gap = below.high - below.mean + above.mean - above.low, above.mean - below.mean
    if reach > 0:
        return Shift(name, gap / reach, text)
    return Shift(name, math.inf if gap else 0.0, text)


def _word_size(name: str, old: str, new: str) -> float:
    """Return the weight of a changed word: only verdicts count, unless one of them is undecided."""
    if name.rpartition(".")[2] != "verdict":
        return 0.0
    return 0.0 if "undecided" in (old, new) else math.inf


def _short(value: Any) -> str:
    if found := _evidence(value):
        return str(found)
    return json.dumps(value) if not isinstance(value, Mapping) else "..."


# ---------------------------------------------------------------- stages


@dataclass(frozen=True)
class Finding:
    """What became of a stage: its word, whether DVC calls it up to date, and what differs where."""

    stage: str
    word: Word
    current: bool | None
    """None if params.yaml does not run it."""
    notes: tuple[str, ...] = ()


def verify(repo: "Repo", root: Path, studies: Sequence[str], rev: str = "HEAD") -> list[Finding]:
    """A finding for every stage of the studies that `rev` has results of.

    InputError for a revision without them, and for an output that is not here.
    """
    then, now = Committed(root, rev), lock_stages(_text(root / "dvc.lock"))
    stale, listed = out_of_date(repo), {stage.addressing for stage in repo.index.stages}
    kinds = {name.partition("@")[0] for name in listed}
    found: dict[str, Finding] = {}
    for study in studies:
        names = [
            name
            for name, entry in then.lock.items()
            if study in _studies(entry) and _is_run(name, entry, kinds)
        ]
        if not names:
            known = {one for entry in then.lock.values() for one in _studies(entry)}
            have = ", ".join(sorted(known))
            raise InputError(f"study: {rev} has no results of {study!r}, it has: {have or 'none'}")
        for name in names:
            current = name not in stale if name in listed else None
            word, notes = _outputs(repo, root, then, then.lock[name])
            if word != "identical":
                notes += _inputs(then.lock[name], now.get(name, {}))
            found[name] = Finding(name, word, current, tuple(notes))
    return _judged_by_readers(found, then.lock)


def _studies(entry: Entry) -> set[str]:
    """The studies into whose results a stage writes."""
    parts = [Path(out["path"]).parts for out in entry.get("outs", ())]
    return {part[1] for part in parts if len(part) > 2 and part[0] == "results"}


def _is_run(name: str, entry: Entry, kinds: set[str]) -> bool:
    """Whether an entry is of a run as dvc.yaml has them: a lock keeps stages of older pipelines."""
    command = str(entry.get("cmd", "")).split()
    return name.partition("@")[0] in kinds and bool(command) and command[-1] in PAPERS


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _outputs(repo: "Repo", root: Path, then: Committed, entry: Entry) -> tuple[Word, list[str]]:
    """What becomes of one stage from its outputs alone, and what differs."""
    changed, lone = [], []
    for out in entry.get("outs", ()):
        path = root / out["path"]
        if not path.exists():
            raise InputError(f"{out['path']}: not here, run `dvc repro` (or `dvc pull`) first")
        committed = then.blobs_in(out["path"])
        if committed:  # in git
            files = _other_files(root, out["path"], committed)
            changed += files
            lone += [p for p in files if p not in committed or not (root / p).exists()]
        elif tree_hash(repo, path) != out["md5"]:
            changed.append(out["path"])
    metrics = [path for path in changed if Path(path).name == METRICS]
    if not changed:
        return "identical", []
    if not any(Path(out["path"]).name == METRICS for out in entry["outs"]):
        return "different", [f"other bytes: {_few(changed)}"]
    word, notes = _numbers(root, then, metrics, changed)
    return ("different" if lone else word), [*_one_sided(root, lone), *notes]


def _one_sided(root: Path, files: Sequence[str]) -> list[str]:
    """Notes on files that only one side has."""
    here, gone = (
        [path for path in files if (root / path).exists() is there] for there in (True, False)
    )
    sides = {"not here": gone, "not committed": here}
    return [f"{side}: {_few(some)}" for side, some in sides.items() if some]


def _other_files(root: Path, path: str, committed: Mapping[str, str]) -> list[str]:
    """Files of an output that git has otherwise, or only one side has."""
    place = root / path
    files = [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]
    here = {p.relative_to(root).as_posix(): blob_hash(p.read_bytes()) for p in files}
    return sorted(p for p in {*here, *committed} if here.get(p) != committed.get(p))


def _numbers(
    root: Path, then: Committed, metrics: list[str], changed: list[str]
) -> tuple[Word, list[str]]:
    """What becomes of a stage with metrics, the worst of them first."""
    shifts: list[Shift] = []
    for path in metrics:
        old, new = json.loads(then.read(path) or b"{}"), read_json(root / path)
        shifts += [*compare(old, new), *_verdicts(root, then, Path(path).parent, old, new)]
    shifts.sort(key=lambda shift: -shift.size)
    apart = [shift for shift in shifts if shift.size > 1]
    notes = [f"{s.metric}: {s.text}" for s in (apart or shifts)[:WORST] if s.size or apart]
    if apart:
        return "different", [f"{len(apart)} of {len(shifts)} changed metrics apart:", *notes]
    flips = [s for s in shifts if s.metric.endswith(".verdict")]
    notes += [f"{s.metric.split('.')[-2]}: {s.text}" for s in flips]
    if not shifts:
        return "within", [f"all numbers equal, other bytes: {_few(changed)}"]
    farthest = f"{len(shifts)} metrics moved, the farthest by {shifts[0].size:.2f} of the reach:"
    return "within", [farthest, *notes]


def _verdicts(
    root: Path, then: Committed, folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[Shift]:
    """The verdicts in results/STUDY/PAPER that are other ones, each side judged by its own claims.

    One shift that is apart where a side cannot be judged: its metrics or claims lack something.
    """
    study, paper = folder.parts[-2:]
    file = f"claims/{paper}.yaml"
    try:
        known = claims_in(then.read(file) or b"[]", paper, f"{file} of {then.rev}")
        here = judge_all(load_claims(paper, root / "claims"), new, study)
        there = judge_all(known, old, study)
    except InputError as error:
        return [Shift("verdicts", math.inf, f"cannot be compared ({error})")]
    one, two = ({v.claim.id: {"verdict": v.word} for v in some} for some in (there, here))
    return list(compare(one, two))


def _few(paths: Sequence[str]) -> str:
    names = ", ".join(paths[:WORST])
    return names if len(paths) <= WORST else f"{names} and {len(paths) - WORST} more"


def _inputs(then: Entry, now: Entry) -> list[str]:
    """What the stage was made from that the committed results were not."""
    was, here = ({d["path"]: d["md5"] for d in e.get("deps", ())} for e in (then, now))
    names = [p for p in sorted({*was, *here}) if was.get(p) != here.get(p)]
    old, new = (
        {k: v for block in e.get("params", {}).values() for k, v in block.items()}
        for e in (then, now)
    )
    names += [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    return [f"made from other inputs: {_few(names)}"] if names else []


def _judged_by_readers(found: dict[str, Finding], lock: Mapping[str, Entry]) -> list[Finding]:
    """Findings in which records and tickets are as good as the numbers that were made of them."""
    judged = []
    for name, finding in found.items():
        outs = {out["path"] for out in lock[name].get("outs", ())}
        stored = any("/runs/" in path for path in outs)
        words = [
            found[reader].word
            for reader in found
            if outs & {dep["path"] for dep in lock[reader].get("deps", ())}
        ]
        if finding.word == "different" and stored and words and "different" not in words:
            finding = replace(finding, word="within")
        judged.append(finding)
    return judged


def rule(root: Path, study: str, rev: str = "HEAD") -> tuple[bool, str]:
    """Whether the same bytes are to be expected of a study, and the rule in words."""
    folder = f"results/{study}"
    file = f"{folder}/{machine.FILE}"
    then = machine.parsed(Committed(root, rev).read(file), f"{file} of {rev}")
    return machine.rule(then, machine.read(root / folder))


def report(findings: Sequence[Finding], bytes_expected: bool = False) -> str:
    """A line per stage, indented lines on what differs where, and one on the whole."""
    lines = []
    for one in findings:
        state = {True: "up to date", False: "out of date", None: "not in runs"}[one.current]
        lines += [f"{one.stage:28}{one.word:12}{state}", *(f"    {note}" for note in one.notes)]
    return "\n".join([*lines, summary(findings, bytes_expected)])


def is_reproduced(findings: Sequence[Finding], bytes_expected: bool) -> bool:
    """Whether every stage is what the rule asks for: identical, or at least within."""
    allowed = {"identical"} if bytes_expected else {"identical", "within"}
    return {finding.word for finding in findings} <= allowed


def summary(findings: Sequence[Finding], bytes_expected: bool = False) -> str:
    """One line on all stages."""
    words = [finding.word for finding in findings]
    if set(words) == {"identical"}:
        return f"reproduced byte for byte: {len(words)} stages"
    counted = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
    if is_reproduced(findings, bytes_expected):
        return f"reproduced: {counted}"
    bytes_only = "" if "different" in words else " byte for byte, as it should be here"
    return f"not reproduced{bytes_only}: {counted}"
