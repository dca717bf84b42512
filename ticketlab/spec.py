"""What every room shares: the project's folder, validated parameters, one error for bad input."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

ROOT = Path(os.environ.get("TICKETLAB_ROOT", Path(__file__).resolve().parents[1]))


class InputError(ValueError):
    """Bad input from a person: one line that names the key, the value and what is allowed."""


class Spec(BaseModel):
    """A small immutable record of parameters.

    Unknown keys, wrong types, infinities and nan are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
