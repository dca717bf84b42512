"""The program `ticketlab`, also `python -m ticketlab`: pins the instruction set, then starts."""

import sys

from ticketlab import instruction_set


def main() -> None:
    """Run the command line; the instruction set is pinned before torch is imported."""
    if instruction_set.is_wanted() and instruction_set.current() == "native":
        environment = instruction_set.pinned()
        if instruction_set.current(environment) == "avx2":
            instruction_set.run([sys.executable, *sys.orig_argv[1:]])
    from ticketlab.cli import app

    app(prog_name="ticketlab")


if __name__ == "__main__":
    main()
