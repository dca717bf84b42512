"""Reruns of a study that should reach the same verdicts, such as on another instruction set.

`ticketlab robustness A B --keep NAME` keeps B's numbers in results/STUDY/reruns/NAME: per paper a
metrics.json, its entry in machine.json, and in rerun.json the parameters that were changed. The
site compares every rerun with the study, claim by claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketlab.files import read_json, write_json
from ticketlab.pipeline import machine, params
from ticketlab.reader import robustness
from ticketlab.reader.robustness import Pair
from ticketlab.reader.snapshots import flat
from ticketlab.spec import InputError, Spec
from ticketlab.study import verdicts

FOLDER = "reruns"
FILE = "rerun.json"
METRICS = "metrics.json"


class Changed(Spec):
    """A parameter that has another value in the rerun; None where a side does not have it."""

    key: str
    study: str | None
    rerun: str | None


class Changes(Spec):
    """An entry of rerun.json: what was changed for one paper."""

    changed: list[Changed]


@dataclass(frozen=True)
class Made:
    """How a rerun made one paper's results."""

    machine: Mapping[str, Any]
    """Its entry in machine.json."""
    changed: Sequence[Changed]


@dataclass(frozen=True)
class Rerun:
    """The kept numbers of a rerun."""

    study: Path
    """The folder of the study's own results."""
    name: str
    papers: Mapping[str, Made]

    @property
    def folder(self) -> Path:
        """The folder of its own results."""
        return self.study / FOLDER / self.name

    def pairs(self, claims: Path) -> list[Pair]:
        """Every claim that both judged; `claims` is the folder of the claims.

        q is computed over the same claims on both sides.
        """
        both = (self.study, self.folder)
        a, b = (
            robustness.by_id(verdicts.of_study(one, self.papers, claims, self.study.name))
            for one in both
        )
        return robustness.pairs(a, b)

    @property
    def differs(self) -> str:
        """What was different in the rerun, in words: once for all papers if it is the same."""
        own = machine.read(self.study)
        papers: dict[str, list[str]] = {}
        for paper, made in self.papers.items():
            papers.setdefault(_differs(own.get(paper, {}), made), []).append(paper)
        if len(papers) == 1:
            return next(iter(papers))
        return "; ".join(f"{what} ({', '.join(some)})" for what, some in papers.items())


def _differs(own: Mapping[str, Any], made: Made) -> str:
    there = made.machine
    keys = [key for key in machine.DECIDES if there.get(key) != own.get(key)]
    parts = [
        f"{key.replace('_', ' ')} {there.get(key)} instead of {own.get(key)}" for key in keys
    ] + [f"`{one.key}` {one.rerun} instead of {one.study}" for one in made.changed]
    return ", ".join(parts) or "nothing"


# ---------------------------------------------------------------- keep and read


def keep(source: Path, study: Path, name: str) -> Rerun:
    """Keep the numbers of the results folder `source` as rerun `name` of the study's folder.

    `source` is a folder results/STUDY of another clone, whose params.yaml says what was changed.
    Only papers that were trained there are kept; those of an earlier `keep` stay, so a rerun may be
    made paper by paper. InputError if `source` is the study's own folder, if nothing was trained
    there, or if its machine.json lacks a paper.
    """
    params.check_name(name, "keep")
    source, study = source.resolve(), study.resolve()
    if source == study:
        raise InputError(f"keep: {source} is the study itself, allowed is a folder of another run")
    trained = {path.name.split(".")[0] for path in (source / "runs").glob("*.timings.json")}
    files = {path.parent.name: path for path in sorted(source.glob(f"*/{METRICS}"))}
    metrics = {paper: read_json(path) for paper, path in files.items() if paper in trained}
    made = {paper: _made(source, study, paper) for paper in metrics}
    if not made:
        raise InputError(f"keep: no paper was trained in {source}, run `ticketlab repro` there")
    folder = study / FOLDER / name
    known = _papers(folder) if (folder / FILE).exists() else {}
    for paper, numbers in metrics.items():
        write_json(folder / paper / METRICS, numbers)
    every = dict(sorted((known | made).items()))
    write_json(folder / machine.FILE, {paper: one.machine for paper, one in every.items()})
    entries = {paper: Changes(changed=list(one.changed)) for paper, one in every.items()}
    write_json(folder / FILE, {paper: one.model_dump() for paper, one in entries.items()})
    return Rerun(study, name, every)


def _made(source: Path, study: Path, paper: str) -> Made:
    on = machine.read(source).get(paper)
    if on is None:
        raise InputError(f"keep: {source / machine.FILE} has no entry {paper!r}")
    values = [
        flat(params.load_paper(one.name, paper, one.parent.parent / "params.yaml").model_dump())
        for one in (study, source)
    ]
    a, b = ({key: str(value) for key, value in one.items()} for one in values)
    keys = [key for key in sorted(a | b) if a.get(key) != b.get(key)]
    changed = [Changed(key=key, study=a.get(key), rerun=b.get(key)) for key in keys]
    return Made(machine=dict(on), changed=changed)


def read(study: Path) -> list[Rerun]:
    """Return the reruns that were kept of a study, by name."""
    files = sorted((study / FOLDER).glob(f"*/{FILE}"))
    return [Rerun(study, file.parent.name, _papers(file.parent)) for file in files]


def _papers(folder: Path) -> dict[str, Made]:
    made = machine.read(folder)
    found = read_json(folder / FILE)
    if missing := sorted(set(found) - set(made)):
        raise InputError(f"{folder / machine.FILE}: has no entry {missing[0]!r}")
    entries = {
        paper: params.validate(Changes, one, f"{folder / FILE}: {paper}")
        for paper, one in found.items()
    }
    return {paper: Made(made[paper], one.changed) for paper, one in entries.items()}


# ---------------------------------------------------------------- the page


def page(reruns: list[Rerun], claims: Path) -> str:
    """Compare every rerun with its study, as Markdown."""
    return "\n\n".join(_section(one, one.pairs(claims)) for one in reruns)


def _section(rerun: Rerun, found: list[Pair]) -> str:
    a, b = rerun.study.name, rerun.name
    return "\n\n".join(
        [
            f"## {b}",
            f"A is the study `{a}`, B is this rerun of {', '.join(rerun.papers)}. What was "
            f"different in B: {rerun.differs}.",
            robustness.opposites(found),
            robustness.stayed(found),
            robustness.table(found),
        ]
    )
