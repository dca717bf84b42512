"""ticketlab: four lottery-ticket papers on one bench."""

import os
from pathlib import Path

# `dvc queue start` and `dvc exp run --temp` run a stage in a copy of the project: with that copy's
# code, on that copy's parameters and results, wherever this package is installed.
if "DVC_STAGE" in os.environ and (Path.cwd() / "ticketlab" / "spec.py").exists():
    __path__ = [str(Path.cwd() / "ticketlab")]
