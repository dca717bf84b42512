"""ticketlab: four lottery-ticket papers, reproduced with the same data, nets and training loop."""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

try:
    __version__ = version("ticketlab")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0"

# `dvc queue start` and `dvc exp run --temp` run a stage in a copy of the project. That stage must
# use the copy's code, parameters and results, wherever this package is installed.
if "DVC_STAGE" in os.environ and (Path.cwd() / "ticketlab" / "spec.py").exists():
    __path__ = [str(Path.cwd() / "ticketlab")]


def __getattr__(name: str) -> Any:
    """`ticketlab.load`, imported when it is first asked for: importing ticketlab loads no torch."""
    if name == "load":
        return import_module("ticketlab.reader.loading").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
