"""Shared by every module: the project folder, validated parameters, the error for bad input."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

PROJECT = ("params.yaml", "dvc.yaml")
"""A folder with these files is a project."""


def find_project() -> Path:
    """Return the folder whose parameters and results are used.

    TICKETLAB_ROOT names it. Without it, a checkout uses its own folder, and an installed package
    the working directory or the nearest folder above that has the files in `PROJECT`. If there is
    none, the working directory is returned, and whatever needs a project reports the error.
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
"""Tables looked up by name, such as criteria and models. A unit's key includes only the entries
that it names (`study.fingerprint`), so that adding an entry makes no result stale."""


class InputError(ValueError):
    """Bad input: one line that names the key, the value and what is allowed."""


class Spec(BaseModel):
    """A small immutable record of parameters.

    Unknown keys, wrong types, infinities and NaN raise an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
"""Allowed names of studies, nets and beds, which become folders, DVC stages and keys."""
NAME_RULE = "a letter, then letters, digits, '_' or '-', 64 in all at most"


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"allowed is {NAME_RULE}")
    return name


Name = Annotated[str, AfterValidator(_checked_name)]
