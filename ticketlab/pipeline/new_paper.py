"""`ticketlab new-paper NAME`: a further paper that runs and passes its test as it is laid out.

The templates are the files of `scaffold`, where the paper is called `paper_name`. A further paper
is these files, a block of parameters and a run; whatever lists papers finds it by its folder.
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
"""What the templates import each other from."""

PLACES = {
    PLACEHOLDER: "ticketlab/papers/{name}",
    "notebooks": "notebooks",
    "claims": "claims",
    "tests": "tests/papers/{name}",
}
"""The folders of templates, and where each goes in a project."""

STUDY = "desk"
LONGEST = 30
"""Characters of a name: with more of them, lines of the templates would be too long."""
NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST - 1}}}")
RESERVED = ("data", "runs", "code")
"""Folders of results that are no paper's."""


def new_paper(name: str, root: Path = ROOT) -> list[Path]:
    """Lay out a paper in the project at `root`; the files that were written, below it.

    InputError, and nothing is written, for a name that a paper cannot have, for a file that is
    there already, and for parameters that are not valid. params.yaml is the last to be written.
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
    """What to do with a paper that was just laid out."""
    return f"""next, to see it run and to have its verdict in README.md:
  pytest tests/papers/{name}
  dvc repro read@{STUDY}-{name}
  ticketlab claims --write
then commit, and put the paper's own method, claims and text in the place of the example's"""


# ---------------------------------------------------------------- what is refused


def check_name(name: str) -> None:
    """InputError unless a further paper may be called so: it becomes a module, folders and keys."""
    rule = f"a lower-case letter, then letters, digits or '_', {LONGEST} in all at most"
    taken = [*PAPERS, *RESERVED, PLACEHOLDER]
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in taken:
        allowed = f"allowed: {rule}; no keyword of Python, and none of {', '.join(taken)}"
        raise InputError(f"new-paper: NAME: {name!r} cannot name a paper, {allowed}")


def check_free(files: Mapping[Path, bytes], root: Path) -> None:
    """InputError if a file is there already, or if pytest would take a test for another one."""
    papers = root / PLACES[PLACEHOLDER].rpartition("/")[0]
    if not papers.is_dir():
        raise InputError(
            f"new-paper: {papers}: no such folder, allowed is a checkout of the project"
        )
    for path in files:
        if (root / path).exists():
            raise InputError(f"new-paper: {path}: is there already, allowed is a name of its own")
        for other in (root / "tests").rglob(path.name) if path.name.startswith("test_") else ():
            place = other.relative_to(root)
            raise InputError(f"new-paper: {path}: {place} has its name, allowed is one of its own")


# ---------------------------------------------------------------- what is written


def contents(name: str) -> dict[Path, bytes]:
    """The files of a paper by their place in a project."""
    found = {}
    for folder, place in PLACES.items():
        for path in sorted((SCAFFOLD / folder).iterdir()):
            if path.is_file():
                target = Path(place.format(name=name), path.name.replace(PLACEHOLDER, name))
                found[target] = renamed(path.read_text(encoding="utf-8"), name).encode()
    return found


def renamed(text: str, name: str) -> str:
    """A template as a file of the paper."""
    return text.replace(MODULE, f"ticketlab.papers.{name}").replace(PLACEHOLDER, name)


def block(name: str) -> dict[str, Any]:
    """The paper's parameters in the study, with every key spelled out."""
    values = read_yaml(SCAFFOLD / f"{STUDY}.yaml")
    return params.validate(Params, values, f"{STUDY}.{name}").model_dump(mode="json")


def write_new(path: Path, content: bytes, written: list[Path]) -> None:
    """Write a file; what is new of it and of the folders above goes to the end of `written`."""
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir()
        written.append(folder)
    written.append(path)
    write_atomically(path, content)


@contextmanager
def taken_back() -> Iterator[list[Path]]:
    """A list of files and folders that are removed again if the block does not end well."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in reversed(written):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise
