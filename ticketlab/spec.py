"""What every module shares: the project's folder, validated parameters, one error for bad input."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

PROJECT = ("params.yaml", "dvc.yaml")
"""The files that make a folder a project."""


def find_project() -> Path:
    """The folder whose parameters and results are used.

    TICKETLAB_ROOT names it; else it is the checkout that this package lies in; for an installed
    package it is the working directory or the nearest folder above that has `PROJECT`. Where there
    is none it is the working directory, and what needs a project says so.
    """
    if named := os.environ.get("TICKETLAB_ROOT"):
        return Path(named)
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[1], here, *here.parents):
        if all((folder / name).is_file() for name in PROJECT):
            return folder
    return here


ROOT = find_project()


Registry = dict
"""What is looked up by name, such as criteria and models: a unit's key takes only the entries that
it names (`study.fingerprint`), so that a further entry makes no result stale."""


class InputError(ValueError):
    """Bad input from a person: one line that names the key, the value and what is allowed."""


class Spec(BaseModel):
    """A small immutable record of parameters.

    Unknown keys, wrong types, infinities and nan are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
"""What studies, nets and beds may be called: they become folders, DVC's stages, and keys."""
NAME_RULE = "a letter, then letters, digits, '_' or '-', 64 in all at most"


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"allowed is {NAME_RULE}")
    return name


Name = Annotated[str, AfterValidator(_checked_name)]
