"""List the stored tickets, and show one."""

from pathlib import Path
from typing import Annotated

import typer

from ticketlab.cli.terminal import one_line_errors
from ticketlab.reader import inventory
from ticketlab.spec import ROOT

app = typer.Typer()


@app.command()
def tickets(
    study: Annotated[str, typer.Argument(help="default: all that have tickets here")] = "",
    paper: Annotated[str, typer.Option(help="only this paper's")] = "",
    arm: Annotated[str, typer.Option(help="only arms with this in their name")] = "",
    seed: Annotated[int | None, typer.Option(help="only this seed's")] = None,
) -> None:
    """List the stored tickets: their keys, and their paths for `ticketlab show`."""
    with one_line_errors():
        print(inventory.tickets(study, paper, arm, seed).to_string(index=False))


@app.command()
def show(ticket: Annotated[Path, typer.Argument(help="a path of `ticketlab tickets`")]) -> None:
    """Verify a ticket's hashes and show its origin and what each layer keeps."""
    with one_line_errors():
        print(inventory.describe(ticket if ticket.exists() else ROOT / ticket))
