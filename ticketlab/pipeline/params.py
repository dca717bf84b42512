"""params.yaml as a typed, validated view: every mistake is one line, before anything runs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ticketlab.data.sets import DataSpec
from ticketlab.files import read_yaml
from ticketlab.pipeline import registry
from ticketlab.spec import NAME, NAME_RULE, ROOT, InputError, Spec

SpecT = TypeVar("SpecT", bound=BaseModel)

PAPERS: dict[str, type[Spec]] = {name: paper.params for name, paper in registry.PAPERS.items()}
"""The papers of a study block and the parameters of each."""

LONGEST = 200
"""Characters of a wrong value that a message shows."""

SMOKE = "smoke"
"""The study of a notebook that is run by itself; git and `make clean` drop its results."""


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
    return _chosen(read_blocks(path), path)


def _chosen(blocks: Mapping[str, Any], path: Path) -> list[str]:
    chosen = blocks.get("studies")
    if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
        raise InputError(
            f"{path.name}: studies: {_short(chosen)} is not valid, allowed is a list of names"
        )
    return chosen


def load_study(study: str, path: Path = ROOT / "params.yaml") -> dict[str, Spec]:
    """All papers' validated parameters in one study; a mistake in any other is refused, too."""
    studies = load_all(path)
    if study not in studies:
        raise InputError(f"study: {study!r} is not in {path.name}, allowed: {', '.join(studies)}")
    return studies[study]


def load_all(path: Path = ROOT / "params.yaml") -> dict[str, dict[str, Spec]]:
    """The whole file: every study's validated parameters by paper."""
    blocks = read_blocks(path)
    studies = {}
    for name, block in blocks.items():
        if name != "studies":
            check_name(name, path.name)
            studies[name] = _papers(block, f"{path.name}: {name}")
    chosen = _chosen(blocks, path)
    for name in chosen:
        if name not in studies or chosen.count(name) > 1:
            reason = "is there twice" if name in studies else "is no block"
            allowed = f"allowed, once each: {', '.join(studies)}"
            raise InputError(f"{path.name}: studies: {name!r} {reason}, {allowed}")
    return studies


def check_name(name: object, place: str) -> None:
    """InputError unless a study may be called so: names become folders, DVC stages and keys."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == SMOKE:
        allowed = f"{NAME_RULE} (not {SMOKE!r})"
        raise InputError(f"{place}: {name!r} cannot name a study, allowed: {allowed}")


def _papers(block: object, place: str) -> dict[str, Spec]:
    """The validated parameters of one block."""
    allowed = ", ".join(PAPERS)
    if not isinstance(block, Mapping) or not block:
        raise InputError(f"{place}: {_short(block)} is not valid, allowed is a block of {allowed}")
    if unknown := [paper for paper in block if paper not in PAPERS]:
        raise InputError(f"{place}: {unknown[0]!r} unknown, allowed: {allowed}")
    return {
        paper: validate(PAPERS[paper], values, f"{place}.{paper}")
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
        _check_whole_numbers(values, place)
        return spec.model_validate(values)
    except RecursionError:
        raise InputError(f"{place}: holds itself, allowed are aliases to other places") from None
    except ValidationError as error:
        first, *rest = error.errors()
        more = f" (and {len(rest)} more)" if rest else ""
        raise InputError(f"{place}{_explain(first, spec)}{more}") from None


def _check_whole_numbers(values: object, place: str) -> None:
    """InputError for an integer that no tensor could hold; Python prints none of 5,000 digits."""
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
    """A value as Python writes it, cut where it is endless."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _on_one_line(key: object) -> str:
    return str(key) if str(key).isprintable() else repr(key)


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


def study_data(papers: Mapping[str, Spec]) -> list[str]:
    """The data sets that the papers of a study name."""
    return sorted({name for spec in papers.values() for name in data_names(spec)})


def data_names(params: Spec) -> list[str]:
    """The data sets that a paper's parameters name, found by their `DataSpec` records."""
    found: list[str] = []
    for name in type(params).model_fields:
        value = getattr(params, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, DataSpec):
                found.append(part.name)
            elif isinstance(part, Spec):
                found += data_names(part)
    return sorted(set(found))
