"""params.yaml and studies/ as a typed, validated view: each mistake is one line before any run.

params.yaml has `workers`, `runs` and the blocks of studies (`desk`); each file of `studies/` is one
study. A study has a block per paper. `runs` lists what `dvc repro` runs, each a study and a paper.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from ticketlab.data.sets import DataSpec
from ticketlab.files import read_yaml
from ticketlab.gpu import Workers
from ticketlab.pipeline import registry
from ticketlab.spec import NAME, NAME_RULE, ROOT, InputError, Spec
from ticketlab.study.verdicts import SMOKE

SpecT = TypeVar("SpecT", bound=BaseModel)

PAPERS: dict[str, type[Spec]] = {name: paper.params for name, paper in registry.PAPERS.items()}
"""The papers of a study and the parameters of each."""

FILE = ROOT / "params.yaml"
SETTINGS = ("workers", "runs")
"""The keys of params.yaml that are not studies."""

LONGEST = 200
"""Maximum number of characters of a wrong value that a message shows."""


class Run(Spec):
    """One paper of one study that `dvc repro` runs, and where DVC finds its parameters."""

    study: str
    paper: str
    file: str
    key: str

    @property
    def name(self) -> str:
        """Its name in DVC's stages, as in `dvc repro train@desk-colt`."""
        return f"{self.study}-{self.paper}"


def load_paper(study: str, paper: str, path: Path = FILE) -> Spec:
    """Return one paper's validated parameters in one study."""
    if paper not in PAPERS:
        raise InputError(f"paper: {paper!r} is unknown, allowed: {', '.join(PAPERS)}")
    papers = load_study(study, path)
    if paper not in papers:
        raise InputError(f"{study}.{paper}: missing, allowed: {', '.join(papers)}")
    return papers[paper]


def load_study(study: str, path: Path = FILE) -> dict[str, Spec]:
    """Return all papers' validated parameters in one study; checks all other studies too."""
    studies = load_all(path)
    if study not in studies:
        raise InputError(f"study: {study!r} is unknown, allowed: {', '.join(studies)}")
    return studies[study]


def chosen_studies(path: Path = FILE) -> list[str]:
    """Return the studies that `dvc repro` runs."""
    return list(dict.fromkeys(run.study for run in load_runs(path)))


def load_all(path: Path = FILE) -> dict[str, dict[str, Spec]]:
    """Return every study's validated parameters by paper; checks `workers` and `runs` too."""
    studies = {name: validated(block, place) for name, (block, place) in read_studies(path).items()}
    load_workers(path)
    for run in load_runs(path):
        _check_run(run, studies, path)
    return studies


def read_studies(path: Path = FILE) -> dict[str, tuple[Any, str]]:
    """Return the studies as plain Python, with the place that messages name for each."""
    blocks = read_blocks(path)
    found = {
        name: (block, f"{path.name}: {name}")
        for name, block in blocks.items()
        if name not in SETTINGS
    }
    for name in found:
        check_name(name, path.name)
    for file in sorted((path.parent / "studies").glob("*.yaml")):
        check_name(file.stem, f"studies/{file.name}")
        if file.stem in found:
            raise InputError(f"studies/{file.name}: {path.name} has a study {file.stem!r}, too")
        found[file.stem] = (read_blocks(file), f"studies/{file.name}")
    return found


def run_of(study: str, paper: str, path: Path = FILE) -> Run:
    """Return the run of a paper of a study, with the place of its parameters."""
    if study in read_blocks(path):
        return Run(study=study, paper=paper, file=path.name, key=f"{study}.{paper}")
    return Run(study=study, paper=paper, file=f"studies/{study}.yaml", key=paper)


def load_runs(path: Path = FILE) -> list[Run]:
    """Return what `dvc repro` runs, in order."""
    runs = read_blocks(path).get("runs")
    if not isinstance(runs, Mapping):
        allowed = "allowed is a mapping, see `ticketlab study add`"
        raise InputError(f"{path.name}: runs: {_short(runs)} is not valid, {allowed}")
    return [validate(Run, run, f"{path.name}: runs.{name}") for name, run in runs.items()]


def _check_run(run: Run, studies: Mapping[str, Mapping[str, Spec]], path: Path) -> None:
    """Raise InputError unless the run's study and paper exist and its name, file and key fit."""
    names = [name for name, one in read_blocks(path)["runs"].items() if Run(**one) == run]
    place = f"{path.name}: runs.{names[0]}"
    if run.study not in studies:
        raise InputError(f"{place}.study: {run.study!r} is unknown, allowed: {', '.join(studies)}")
    if run.paper not in studies[run.study]:
        allowed = ", ".join(studies[run.study])
        raise InputError(f"{place}.paper: {run.study} has no {run.paper!r}, allowed: {allowed}")
    wanted = run_of(run.study, run.paper, path)
    if names != [wanted.name]:
        raise InputError(f"{place}: this name is not valid, allowed is {wanted.name}, once")
    for key in ("file", "key"):
        given, right = getattr(run, key), getattr(wanted, key)
        if given != right:
            raise InputError(f"{place}.{key}: {given!r} is not valid, allowed is {right!r}")


def load_workers(path: Path = FILE) -> int | str:
    """Return the units to run at the same time: TICKETLAB_WORKERS, or `workers` in the file."""
    text = os.environ.get("TICKETLAB_WORKERS")
    if text is None:
        value, place = read_blocks(path).get("workers", 0), f"{path.name}: workers"
    else:
        value, place = int(text) if text.isdecimal() else text, "TICKETLAB_WORKERS"
    try:
        found: int | str = TypeAdapter(Workers).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: {_short(value)} is not valid, {reason}") from None
    return found


def check_name(name: object, place: str) -> None:
    """Raise InputError unless a study can have this name, which is used in folders and keys."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == SMOKE:
        allowed = f"{NAME_RULE} (not {SMOKE!r})"
        raise InputError(f"{place}: {name!r} cannot name a study, allowed: {allowed}")


def validated(block: object, place: str) -> dict[str, Spec]:
    """Return the validated parameters of one block."""
    allowed = ", ".join(PAPERS)
    if not isinstance(block, Mapping) or not block:
        raise InputError(f"{place}: {_short(block)} is not valid, allowed is a block of {allowed}")
    if unknown := [paper for paper in block if paper not in PAPERS]:
        raise InputError(f"{place}: {unknown[0]!r} unknown, allowed: {allowed}")
    joint = "." if ": " in place else ": "  # a block of params.yaml, or a file of its own
    return {
        paper: validate(PAPERS[paper], values, f"{place}{joint}{paper}")
        for paper, values in block.items()
    }


def read_blocks(path: Path) -> dict[str, Any]:
    """Return a file of parameters as plain Python."""
    if path == FILE and not path.exists():
        raise InputError(
            f"{path}: not found here or in a folder above; change to a project's folder, or set "
            "TICKETLAB_ROOT to it"
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, allowed is a mapping")
    return content


def validate(spec: type[SpecT], values: object, place: str) -> SpecT:
    """Return `values` as `spec`; InputError names the first bad key, its value, what is allowed."""
    try:
        _check_whole_numbers(values, place)
        return spec.model_validate(values)
    except RecursionError:
        raise InputError(f"{place}: holds itself, allowed are aliases to other places") from None
    except ValidationError as error:
        first, *rest = error.errors()
        more = f" (and {len(rest)} more)" if rest else ""
        raise InputError(f"{place}{_explain(first, spec)}{more}") from None


def _check_whole_numbers(values: object, place: str) -> None:
    """Raise InputError for an integer of more than 63 bits, which no tensor can hold."""
    if isinstance(values, Mapping | list | tuple):
        keys = values if isinstance(values, Mapping) else range(len(values))
        for key in keys:
            _check_whole_numbers(values[key], f"{place}.{_on_one_line(key)}")
    elif isinstance(values, int) and values.bit_length() > 63:
        raise InputError(f"{place}: a number of {values.bit_length()} bits, allowed are at most 63")


def _explain(error: Mapping[str, Any], spec: type[BaseModel]) -> str:
    key = "".join(f".{_on_one_line(part)}" for part in error["loc"])
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(spec, error["loc"][:-1]))
        return f"{key}: unknown key, allowed: {allowed}"
    if error["type"] == "missing":
        return f"{key}: missing, this key is needed"
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "allowed is")
    return f"{key}: {_short(error['input'])} is not valid, {reason}"


def _short(value: object) -> str:
    """Format a value as Python does, cut if it is too long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _on_one_line(key: object) -> str:
    return str(key) if str(key).isprintable() else repr(key)


def _fields_at(spec: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the record at `place` inside `spec`.

    Below a key that accepts several kinds of record, a place names the kind.
    """
    found: list[type[BaseModel]] = [spec]
    for part in place:
        if isinstance(part, int):
            continue
        inner = [
            record
            for one in found
            if part in one.model_fields
            for record in _records_in(one.model_fields[part].annotation)
        ]
        found = inner or [one for one in found if _is_kind(one, part)]
    return list(found[0].model_fields)


def _is_kind(record: type[BaseModel], kind: str) -> bool:
    return any(kind in get_args(field.annotation) for field in record.model_fields.values())


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the parameter records within an annotation such as `Transfer | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in _records_in(part)]


def collect(spec: type[SpecT], namespace: Mapping[str, Any]) -> SpecT:
    """Return a notebook's parameters cell as `spec`: `collect(ColtParams, globals())`."""
    values = {name: namespace[name] for name in spec.model_fields if name in namespace}
    return validate(spec, values, "parameters")


def notebook_parameters(study: str, params: Spec) -> dict[str, Any]:
    """Return the variables that papermill injects: plain Python values, one per field."""
    return {"study": study} | params.model_dump(mode="json")


def study_data(papers: Mapping[str, Spec]) -> list[str]:
    """Return the data sets that the papers of a study name."""
    return sorted({name for spec in papers.values() for name in data_names(spec)})


def data_names(params: Spec) -> list[str]:
    """Return the data sets that a paper's parameters name, found by their `DataSpec` records."""
    found: list[str] = []
    for name in type(params).model_fields:
        value = getattr(params, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, DataSpec):
                found.append(part.name)
            elif isinstance(part, Spec):
                found += data_names(part)
    return sorted(set(found))
