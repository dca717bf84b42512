"""Shared by all commands: arguments, tables on the terminal, and errors in one line."""

import sqlite3
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from ticketlab import storage
from ticketlab.pipeline import params
from ticketlab.pipeline.notebook import NotebookFailed
from ticketlab.spec import InputError
from ticketlab.study import results
from ticketlab.study.runner import UnitFailed

StudyName = Annotated[str, typer.Argument(help="a study of params.yaml or studies/, e.g. desk")]
StudyNames = Annotated[
    list[str] | None,
    typer.Argument(help="default: all in `runs` of params.yaml", metavar="STUDY..."),
]
PaperName = Annotated[str, typer.Argument(help=f"one of {', '.join(params.PAPERS)}")]
PaperOrAll = Annotated[str, typer.Argument(help="default: all papers of the study")]


def show_table(title: str, frame: pd.DataFrame) -> None:
    """Print a table on the terminal."""
    table = Table(*frame.columns, title=title)
    for row in frame.astype(str).itertuples(index=False):
        table.add_row(*row)
    Console().print(table)


def print_or_write(found: pd.DataFrame, path: Path, write: bool) -> None:
    """Print a table as CSV, or write it to its file."""
    if write:
        results.write_table(found, path)
    else:
        print(found.to_csv(index=False), end="")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report bad input or a fault of the disk in one line with exit code 2.

    Failed units or notebooks are reported by traceback, unless the notebook met such a fault or a
    unit the loss of a cluster's workers.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {storage.explained(str(error))}", file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        print(f"error: {storage.explained(f'{named}{error.strerror}')}", file=sys.stderr)
        raise typer.Exit(2) from None
    except sqlite3.Error as error:
        print(f"error: database: {storage.explained(str(error))}", file=sys.stderr)
        raise typer.Exit(2) from None
    except NotebookFailed as error:
        lines = str(error).strip().splitlines()
        is_fault = storage.is_fault(lines[-1])
        line = f"error: {storage.explained(f'{lines[0]}: {lines[-1]}')}"
        print(line if is_fault else error, file=sys.stderr)
        raise typer.Exit(1) from None
    except UnitFailed as error:
        if type(error.__cause__).__module__.startswith("distributed."):  # workers were lost
            print(f"error: {error}; check the workers, {storage.AGAIN}", file=sys.stderr)
            raise typer.Exit(1) from None
        traceback.print_exception(error)
        raise typer.Exit(1) from None
