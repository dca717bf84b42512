"""Studies as files: a new one from another, and which ones `dvc repro` runs.

The only code that writes params.yaml: it adds and removes lines of `runs`, in the form that DVC
itself writes, so that no other line changes.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from ticketlab.files import write_atomically
from ticketlab.pipeline import params
from ticketlab.pipeline.params import FILE, Run, run_of
from ticketlab.spec import InputError

STAGE = "read"
"""The stage whose run makes all of a run."""


def new(
    name: str,
    source: str,
    changes: Sequence[str] = (),
    papers: Sequence[str] = (),
    path: Path = FILE,
) -> list[Run]:
    """Write studies/NAME.yaml, a copy of another study with changes, and add its runs.

    `papers` are those to take over; none means all that the source has.
    `changes` are KEY=VALUE with dotted keys and YAML values, such as prac.data.name=my_digits. All
    is validated before anything is written.
    """
    params.check_name(name, "study new")
    known = params.read_studies(path)
    if name in known:
        raise InputError(f"study new: there is a study {name!r}, allowed is a name of its own")
    if source not in known:
        raise InputError(f"--from: {source!r} is unknown, allowed: {', '.join(known)}")
    block = _plain(known[source][0])
    if missing := [paper for paper in papers if paper not in block]:
        raise InputError(f"--paper: {source} has no {missing[0]!r}, allowed: {', '.join(block)}")
    block = {paper: block[paper] for paper in papers or block}
    for change in changes:
        _apply(block, change)
    file = path.parent / "studies" / f"{name}.yaml"
    params.validated(block, f"studies/{name}.yaml")
    write_atomically(file, _text(block))
    return add(name, path)


def add(name: str, path: Path = FILE) -> list[Run]:
    """Put the runs of a study into params.yaml; those that were added."""
    papers = params.load_study(name, path)
    known = {run.name for run in params.load_runs(path)}
    wanted = [run for paper in papers if (run := run_of(name, paper, path)).name not in known]

    def change(runs: CommentedMap) -> None:
        runs.update({run.name: run.model_dump() for run in wanted})

    if wanted:
        _rewrite(path, change)
    return wanted


def remove(name: str, path: Path = FILE) -> list[Run]:
    """Take the runs of a study out of params.yaml; its results and its file stay."""
    gone = [run for run in params.load_runs(path) if run.study == name]
    if not gone:
        chosen = ", ".join(params.chosen_studies(path))
        raise InputError(f"study: {name!r} is not in runs, allowed: {chosen or 'none'}")

    def change(runs: CommentedMap) -> None:
        for run in gone:
            del runs[run.name]

    _rewrite(path, change)
    return gone


def stages(name: str, path: Path = FILE) -> list[str]:
    """What `dvc repro` is to be asked for: the last stage of each run of a study."""
    return [f"{STAGE}@{run.name}" for run in params.load_runs(path) if run.study == name]


def shown(runs: Sequence[Run]) -> str:
    """The lines of params.yaml that name the runs."""
    return _text({run.name: run.model_dump() for run in runs}).decode().rstrip("\n")


def _apply(block: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *places, last = key.split(".")
    found: Any = block
    for place in places:
        found = found.get(place) if isinstance(found, dict) else None
    if not equals or not isinstance(found, dict) or last not in found:
        allowed = "allowed is a dotted key of the study, '=' and a value"
        raise InputError(f"study new: {change!r} changes nothing, {allowed}")
    try:
        found[last] = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise InputError(f"study new: {change!r}: {text!r} is not YAML") from None


def _plain(tree: Any) -> Any:
    """A copy of plain mappings and lists."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(inner) for key, inner in tree.items()}
    return [_plain(inner) for inner in tree] if isinstance(tree, list) else tree


def _rewrite(path: Path, change: Callable[[CommentedMap], None]) -> None:
    yaml = _yaml()
    content = yaml.load(path.read_text(encoding="utf-8"))
    runs = content["runs"]
    comment = _take_end(runs)
    change(runs)
    _put_end(runs, comment)
    write_atomically(path, _text(content))


def _take_end(runs: CommentedMap) -> Any:
    """The comment after the last run, which the parser hangs at that run's last key."""
    last = runs[next(reversed(runs))] if runs else None
    return None if last is None else last.ca.items.pop(next(reversed(last)), None)


def _put_end(runs: CommentedMap, comment: Any) -> None:
    if not runs or comment is None:
        return
    name = next(reversed(runs))
    if not isinstance(runs[name], CommentedMap):
        runs[name] = CommentedMap(runs[name])
    runs[name].ca.items[next(reversed(runs[name]))] = comment


def _text(content: Any) -> bytes:
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue().encode()


def _yaml() -> YAML:
    """As DVC writes parameters."""
    yaml = YAML()
    yaml.default_flow_style = False
    return yaml
