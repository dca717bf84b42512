"""`ticketlab new-paper NAME`: creates a new paper that runs and passes its test from the start.

The templates are the files of `scaffold`, in which the paper is called `paper_name`. A new paper
consists of these files, a block of parameters and a run; it is found by its folder.
"""

import keyword
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ticketlab.files import read_yaml, write_atomically
from ticketlab.pipeline import params, studies
from ticketlab.pipeline.params import PAPERS
from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.spec import ROOT, InputError

SCAFFOLD = Path(__file__).with_name("scaffold")
PLACEHOLDER = "paper_name"
MODULE = f"ticketlab.pipeline.scaffold.{PLACEHOLDER}"
"""The module from which the templates import each other."""

PLACES = {
    PLACEHOLDER: "ticketlab/papers/{name}",
    "notebooks": "notebooks",
    "claims": "claims",
    "tests": "tests/papers/{name}",
}
"""The folders of templates, and where each goes in a project."""

STUDY = "desk"
LONGEST = 30
"""Maximum length of a name, so that no line of the templates becomes too long."""
NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}")
RESERVED = ("data", "runs", "code")
"""Folders of results that belong to no paper."""


def new_paper(name: str, root: Path = ROOT) -> list[Path]:
    """Create a paper in the project at `root`; return the files written, relative to it.

    Raises InputError, and writes nothing, for an invalid name, for a file that already exists, and
    for invalid parameters. params.yaml is written last.
    """
    check_name(name)
    files, settings = contents(name), root / params.FILE.name
    check_free(files, root)
    if STUDY not in params.load_all(settings):
        raise InputError(f"{settings.name}: {STUDY}: missing, {STUDY}.{name} is to be a part of it")
    run = params.run_of(STUDY, name, settings)
    whole = studies.with_paper(run, block(name), settings)
    with taken_back() as written:
        for path, content in files.items():
            write_new(root / path, content, written)
        write_atomically(settings, whole)
    return [*files, Path(settings.name)]


def next_steps(name: str) -> str:
    """Return the instructions printed after a paper was created."""
    return f"""next, run it and add its verdict to README.md:
  pytest tests/papers/{name}
  dvc repro read@{STUDY}-{name}
  ticketlab claims --write
then commit, and replace the example by the paper's own method, claims and text"""


# ---------------------------------------------------------------- validation


def check_name(name: str) -> None:
    """Raise InputError unless a paper can have this name: it becomes a module, folders and keys."""
    rule = f"a lower-case letter, then letters, digits or '_', {LONGEST} in all at most"
    taken = [*PAPERS, *RESERVED, PLACEHOLDER]
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in taken:
        allowed = f"allowed: {rule}; no keyword of Python, and none of {', '.join(taken)}"
        raise InputError(f"new-paper: NAME: {name!r} cannot name a paper, {allowed}")


def check_free(files: Mapping[Path, bytes], root: Path) -> None:
    """Raise InputError if a file exists, or if pytest would confuse a test with another one."""
    papers = root / PLACES[PLACEHOLDER].rpartition("/")[0]
    if not papers.is_dir():
        raise InputError(
            f"new-paper: {papers}: no such folder, allowed is a checkout of the project"
        )
    for path in files:
        if (root / path).exists():
            raise InputError(f"new-paper: {path}: exists already, allowed is another name")
        for other in (root / "tests").rglob(path.name) if path.name.startswith("test_") else ():
            place = other.relative_to(root)
            raise InputError(f"new-paper: {path}: {place} has the same name, allowed is another")


# ---------------------------------------------------------------- files


def contents(name: str) -> dict[Path, bytes]:
    """Return the files of a paper by their place in a project."""
    found = {}
    for folder, place in PLACES.items():
        for path in sorted((SCAFFOLD / folder).iterdir()):
            if path.is_file():
                target = Path(place.format(name=name), path.name.replace(PLACEHOLDER, name))
                found[target] = renamed(path.read_text(encoding="utf-8"), name).encode()
    return found


def renamed(text: str, name: str) -> str:
    """Return a template as a file of the paper."""
    return text.replace(MODULE, f"ticketlab.papers.{name}").replace(PLACEHOLDER, name)


def block(name: str) -> dict[str, Any]:
    """Return the paper's parameters in the study, with every key spelled out."""
    values = read_yaml(SCAFFOLD / f"{STUDY}.yaml")
    return params.validate(Params, values, f"{STUDY}.{name}").model_dump(mode="json")


def write_new(path: Path, content: bytes, written: list[Path]) -> None:
    """Write a file; append it, and folders created for it, to `written`."""
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir()
        written.append(folder)
    written.append(path)
    write_atomically(path, content)


@contextmanager
def taken_back() -> Iterator[list[Path]]:
    """Yield a list of files and folders that are removed again if the block raises."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in reversed(written):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise
