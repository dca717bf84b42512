"""The program `ticketlab`, also `python -m ticketlab`: pins the instruction set, then starts."""

import os
import shutil
import sys
from pathlib import Path

RESTARTED = "TICKETLAB_RESTARTED"
"""Environment variable of a process that was started again after `forget_compiled`."""


def main() -> None:
    """Run the command line; once more if compiled modules of this package were cut off."""
    try:
        start()
    except (EOFError, ValueError) as error:
        if "marshal data" not in str(error) or RESTARTED in os.environ:
            raise
        forget_compiled()
        os.environ[RESTARTED] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def start() -> None:
    """Run the command line; the instruction set is pinned before torch is imported."""
    from ticketlab import instruction_set

    if instruction_set.is_wanted() and instruction_set.current() == "native":
        environment = instruction_set.pinned()
        if instruction_set.current(environment) == "avx2":
            instruction_set.run([sys.executable, *sys.orig_argv[1:]])
    from ticketlab.cli import app

    app(prog_name="ticketlab")


def forget_compiled() -> None:
    """Remove the compiled modules of this package, which Python writes again.

    Python does not notice when a full disk or a limit on the size of files cuts one off, and each
    later import of it fails.
    """
    for folder in Path(__file__).parent.rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
