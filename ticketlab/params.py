"""params.yaml as a typed, validated view: every mistake is one line, before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ticketlab.data import DataSpec
from ticketlab.files import read_yaml
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.studies import STUDIES

SpecT = TypeVar("SpecT", bound=BaseModel)

PAPERS: dict[str, type[Spec]] = {name: study.params for name, study in STUDIES.items()}
"""The papers of a study block and the parameters of each."""


def load_paper(study: str, paper: str, path: Path = ROOT / "params.yaml") -> Spec:
    """One paper's validated parameters in one study."""
    if paper not in PAPERS:
        raise InputError(f"paper: {paper!r} is unknown, allowed: {', '.join(PAPERS)}")
    papers = load_study(study, path)
    if paper not in papers:
        raise InputError(f"{path.name}: {study}.{paper}: missing, allowed: {', '.join(papers)}")
    return papers[paper]


def chosen_studies(path: Path = ROOT / "params.yaml") -> list[str]:
    """The blocks that `dvc repro` runs."""
    chosen = read_blocks(path).get("studies")
    if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
        raise InputError(
            f"{path.name}: studies: {chosen!r} is not valid, allowed is a list of names"
        )
    return chosen


def load_study(study: str, path: Path = ROOT / "params.yaml") -> dict[str, Spec]:
    """All papers' validated parameters in one study."""
    blocks = read_blocks(path)
    names = [name for name in blocks if name != "studies"]
    if study not in names:
        raise InputError(f"study: {study!r} is not in {path.name}, allowed: {', '.join(names)}")
    block = blocks[study]
    if not isinstance(block, Mapping) or (unknown := set(block) - set(PAPERS)):
        wrong = min(unknown, key=str) if isinstance(block, Mapping) else block
        raise InputError(f"{path.name}: {study}: {wrong!r} unknown, allowed: {', '.join(PAPERS)}")
    return {
        paper: validate(PAPERS[paper], values, f"{path.name}: {study}.{paper}")
        for paper, values in block.items()
    }


def read_blocks(path: Path) -> dict[str, Any]:
    """The blocks of params.yaml as plain Python."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, allowed is a mapping")
    return content


def validate(spec: type[SpecT], values: object, place: str) -> SpecT:
    """`values` as `spec`; InputError names the first bad key, its value and what is allowed."""
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        first, *rest = error.errors()
        more = f" (and {len(rest)} more)" if rest else ""
        raise InputError(f"{place}{_explain(first, spec)}{more}") from None


def _explain(error: Mapping[str, Any], spec: type[BaseModel]) -> str:
    key = "".join(f".{part}" for part in error["loc"])
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(spec, error["loc"][:-1]))
        return f"{key}: unknown key, allowed: {allowed}"
    if error["type"] == "missing":
        return f"{key}: missing, this key is needed"
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "allowed is")
    return f"{key}: {error['input']!r} is not valid, {reason}"


def _fields_at(spec: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys of the record at `place` inside `spec`."""
    found: Any = spec
    for part in place:
        if isinstance(part, int):
            continue
        found = _record_in(found.model_fields[part].annotation)
    return list(found.model_fields)


def _record_in(annotation: Any) -> Any:
    """The first parameter record within an annotation such as `Transfer | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_record_in(part) for part in getattr(annotation, "__args__", ()))
    return next((record for record in inner if record is not None), None)


def collect(spec: type[SpecT], namespace: Mapping[str, Any]) -> SpecT:
    """The parameters cell of a notebook as `spec`: `collect(ColtParams, globals())`."""
    values = {name: namespace[name] for name in spec.model_fields if name in namespace}
    return validate(spec, values, "parameters")


def notebook_parameters(study: str, params: Spec) -> dict[str, Any]:
    """What papermill injects: plain Python values, one variable a field.

    Without the number of workers: pages are the same for any.
    """
    return {"study": study} | params.model_dump(mode="json", exclude={"runtime": {"workers"}})


def data_names(params: Spec) -> list[str]:
    """The data sets that a paper's parameters name, found by their `DataSpec` records."""
    found: list[str] = []
    for name in type(params).model_fields:
        value = getattr(params, name)
        if isinstance(value, DataSpec):
            found.append(value.name)
        elif isinstance(value, Spec):
            found += data_names(value)
    return sorted(set(found))
