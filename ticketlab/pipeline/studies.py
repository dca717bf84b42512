"""Studies as files: make one from another, and choose which ones `dvc repro` runs.

Only this module writes params.yaml: it adds and removes lines of `runs`, and adds the block of a
new paper, in the format that DVC itself writes. All other text of the file is left unchanged.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ticketlab.files import compose_yaml, parse_yaml, write_atomically, yaml_text
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

    `papers` are those to copy; none means all that the source has. `changes` are KEY=VALUE with
    dotted keys and YAML values, such as prac.data.name=my_digits. Everything is validated before
    anything is written.
    """
    params.check_name(name, "study new")
    known = params.read_studies(path)
    if name in known:
        raise InputError(f"study new: {name!r} exists already, allowed is a new name")
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
    write_atomically(file, yaml_text(block).encode())
    return add(name, path)


def add(name: str, path: Path = FILE) -> list[Run]:
    """Add the runs of a study to params.yaml; return those that were added."""
    papers = params.load_study(name, path)
    known = {run.name for run in params.load_runs(path)}
    wanted = [run for paper in papers if (run := run_of(name, paper, path)).name not in known]
    if wanted:
        after = params.read_blocks(path)["runs"] | {run.name: run.model_dump() for run in wanted}
        _rewrite(path, lambda text: with_runs(text, wanted), after)
    return wanted


def remove(name: str, path: Path = FILE) -> list[Run]:
    """Remove the runs of a study from params.yaml; its results and its file stay."""
    before = params.read_blocks(path).get("runs")
    runs = dict(zip(before or (), params.load_runs(path), strict=True))
    gone = {key: run for key, run in runs.items() if run.study == name}
    if not gone:
        chosen = ", ".join(params.chosen_studies(path))
        raise InputError(f"study: {name!r} is not in runs, allowed: {chosen or 'none'}")
    after = {key: run.model_dump() for key, run in runs.items() if key not in gone}
    _rewrite(path, lambda text: without_runs(text, gone), after)
    return list(gone.values())


def with_paper(run: Run, block: Mapping[str, Any], path: Path = FILE) -> bytes:
    """Return params.yaml with a new paper's run, and its parameters at the end of the study."""
    before, entry = params.read_blocks(path), {run.paper: block}
    after = {"runs": before["runs"] | {run.name: run.model_dump()}}
    after |= {run.study: before[run.study] | entry}

    def changed(text: str) -> str:
        return _with_entries(with_runs(text, [run]), run.study, yaml_text(entry))

    return _checked(path, changed, after).encode()


def stages(name: str, path: Path = FILE) -> list[str]:
    """Return the targets for `dvc repro`: the last stage of each run of a study."""
    return [f"{STAGE}@{run.name}" for run in params.load_runs(path) if run.study == name]


def shown(runs: Sequence[Run]) -> str:
    """Return the lines of params.yaml that name the runs."""
    return yaml_text({run.name: run.model_dump() for run in runs}).rstrip("\n")


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
        found[last] = parse_yaml(text, f"study new: {key}: {text!r}")
    except InputError as error:
        raise InputError(f"{error}, allowed is a value such as 0.3, [1, 2] or sgd") from None


def plain(name: str, path: Path = FILE) -> dict[str, Any]:
    """Return a study as in its file, in plain mappings and lists."""
    found: dict[str, Any] = _plain(params.read_studies(path)[name][0])
    return found


def _plain(tree: Any) -> Any:
    """Return a copy in plain mappings and lists."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(inner) for key, inner in tree.items()}
    return [_plain(inner) for inner in tree] if isinstance(tree, list) else tree


# ---------------------------------------------------------------- the text of params.yaml

_COMMENT = re.compile(r"(?:\r?\n[ \t]*)*\r?\n[ \t]+#[^\r\n]*")
"""Line breaks and an indented comment."""
_LAST_VALUE = re.compile(r".*^[ \t]*[^\s#][^\r\n]*", re.MULTILINE | re.DOTALL)
"""All up to the end of the last line that holds more than a comment."""
_DOCUMENT_END = re.compile(r"^(\.\.\.|---)", re.MULTILINE)


@dataclass(frozen=True)
class _Entries:
    """The character positions of a key such as `runs` and its entries in a text."""

    colon: int
    """The end of `runs:`."""
    end: int
    """The end of its value, if that is `{}`."""
    entries: Mapping[str, tuple[int, int]]
    """The lines of each entry, from the line break before its name to its last value."""
    indent: int


def _rewrite(path: Path, changed: Callable[[str], str], expected: Mapping[str, Any]) -> None:
    """Write the changed text if only `runs` changes its content as expected; else InputError."""
    write_atomically(path, _checked(path, changed, {"runs": expected}).encode())


def _checked(path: Path, changed: Callable[[str], str], expected: Mapping[str, Any]) -> str:
    """Return the changed text if its content differs only as `expected`; else InputError."""
    text = path.read_bytes().decode()
    try:
        new = changed(text)
        is_right = parse_yaml(new, path.name) == parse_yaml(text, path.name) | expected
    except InputError:
        is_right = False
    if not is_right:
        keys = " and ".join(expected)
        allowed = "allowed are lines for each entry, as `ticketlab study add` writes them"
        raise InputError(f"{path.name}: {keys}: edit these lines yourself, {allowed}")
    return new


def with_runs(text: str, runs: Sequence[Run]) -> str:
    """Return the text with runs after the existing ones and comments indented like them.

    So runs that are removed and added again are below their comment again.
    """
    return _with_entries(text, "runs", shown(runs))


def _with_entries(text: str, key: str, entries: str) -> str:
    """Return the text with the lines of further entries of a key, placed as in `with_runs`."""
    found = _places(text, key)
    if found.entries:
        place = max(end for _, end in found.entries.values())
    else:
        text = text[: found.colon] + text[found.end :]
        place = _line_end(text, found.colon)
    while comment := _COMMENT.match(text, place):
        place = comment.end()
    line_break = "\r\n" if "\r\n" in text else "\n"
    lines = (f"{line_break}{' ' * found.indent}{line}" for line in entries.splitlines())
    return text[:place] + "".join(lines) + text[place:]


def without_runs(text: str, runs: Collection[str]) -> str:
    """Return the text without the lines of runs; `{}` if none is left."""
    found = _places(text)
    for start, end in sorted((found.entries[name] for name in runs), reverse=True):
        text = text[:start] + text[end:]
    if len(runs) < len(found.entries):
        return text
    return f"{text[: found.colon]} {{}}{text[found.colon :]}"


def _places(text: str, name: str = "runs") -> _Entries:
    """Find the lines of `runs`, or of a study; InputError if its entries are in braces."""
    keys = compose_yaml(text, name).value
    number = next(number for number, (key, _) in enumerate(keys) if key.value == name)
    key, value = keys[number]
    if value.value and value.flow_style:
        raise InputError(f"{name}: in braces")
    end = keys[number + 1][0].start_mark.index if number + 1 < len(keys) else len(text)
    if last := _DOCUMENT_END.search(text, key.end_mark.index, end):
        end = last.start()
    marks = {entry.value: entry.start_mark for entry, _ in value.value}
    starts = [len(text[: mark.index - mark.column].removesuffix("\n").removesuffix("\r"))
              for mark in marks.values()]  # fmt: skip
    ends = [_content_end(text, start, stop) for start, stop in pairwise([*starts, end])]
    return _Entries(
        colon=text.index(":", key.end_mark.index) + 1,
        end=value.end_mark.index,
        entries=dict(zip(marks, zip(starts, ends, strict=True), strict=True)),
        indent=next((mark.column for mark in marks.values()), 2),
    )


def _content_end(text: str, start: int, stop: int) -> int:
    """Return the end of the last line between two positions that holds more than a comment."""
    found = _LAST_VALUE.match(text, start, stop)
    return found.end() if found else stop


def _line_end(text: str, place: int) -> int:
    """Return the end of the line at a position, before its line break."""
    found = re.compile(r"[^\r\n]*").match(text, place)
    return found.end() if found else place
