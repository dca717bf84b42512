"""List stored tickets, and show one."""

from pathlib import Path
from typing import Annotated

import typer

from ticketlab.cli.terminal import one_line_errors
from ticketlab.reader import inventory, loading, sources
from ticketlab.spec import ROOT

app = typer.Typer()


@app.command()
def tickets(
    study: Annotated[str, typer.Argument(help="default: all studies with stored tickets")] = "",
    paper: Annotated[str, typer.Option(help="only tickets of this paper")] = "",
    arm: Annotated[str, typer.Option(help="only arms whose names contain this")] = "",
    seed: Annotated[int | None, typer.Option(help="only tickets of this seed")] = None,
    export: Annotated[
        Path | None, typer.Option(help="write the tickets, with hashes, into a .zip or .tar")
    ] = None,
) -> None:
    """List the stored tickets: their keys, and their paths for `ticketlab show`.

    Read an exported archive with `ticketlab.load(ADDRESS, FILE)` or `ticketlab show ADDRESS --from
    FILE`.
    """
    with one_line_errors():
        found = inventory.tickets(study, paper, arm, seed)
        if export is None:
            print(found.to_string(index=False))
            return
        places = [inventory.place_in_results(path) for path in found.path]
        sources.export(sources.Project(ROOT), places, export)
        print(f"{export}: {len(places)} tickets, each with its SHA-256 in {sources.MANIFEST}")


@app.command()
def show(
    ticket: Annotated[
        str, typer.Argument(help="a path listed by `ticketlab tickets`, or an address")
    ],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="archive or project in which to look up the address"),
    ] = None,
) -> None:
    """Verify a ticket's hashes; show its origin and what each layer keeps.

    For an address such as desk/colt/imp/seed-100@95, print the ticket's card in Markdown.
    """
    with one_line_errors():
        if "@" in ticket and not Path(ticket).exists():
            print(loading.load(ticket, source).card(), end="")
        else:
            print(inventory.describe(path if (path := Path(ticket)).exists() else ROOT / path))
