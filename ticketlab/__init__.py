"""ticketlab: four lottery-ticket papers on one bench."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("ticketlab")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0"

# `dvc queue start` and `dvc exp run --temp` run a stage in a copy of the project: with that copy's
# code, on that copy's parameters and results, wherever this package is installed.
if "DVC_STAGE" in os.environ and (Path.cwd() / "ticketlab" / "spec.py").exists():
    __path__ = [str(Path.cwd() / "ticketlab")]
