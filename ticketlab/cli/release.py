"""Make a release of results."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ticketlab import __version__
from ticketlab.cli.terminal import one_line_errors
from ticketlab.release import archive
from ticketlab.spec import ROOT

app = typer.Typer()
NAME = Path(f"ticketlab-{__version__}.zip")


@app.command()
def release(
    studies: Annotated[
        list[str] | None, typer.Argument(help="default: all with results", metavar="STUDY...")
    ] = None,
    out: Annotated[Path, typer.Option(help="the archive to write, a .zip")] = NAME,
    tickets: Annotated[bool, typer.Option(help="include the stored units and tickets")] = True,
    site: Annotated[
        Path | None, typer.Option(help="a site built at this commit; default: build it")
    ] = None,
) -> None:
    """Write a release for a repository of record: code, results, tickets, site and metadata.

    Refuses changes that are not committed, files that are not those of dvc.lock and findings that
    are not those of the metrics. `ticketlab verify --release FILE` checks the archive.
    """
    from ticketlab.reader import site as pages  # imported here, since only this command needs it

    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        built = site or Path(folder) / "site"
        archive.check_clean(ROOT)
        if site is None:
            pages.build(built)
        made = archive.write(ROOT, studies or [], out, built, tickets)
        size = out.stat().st_size / 1e6
        print(f"{out}: {', '.join(made.studies)} at {made.commit[:12]}, {size:,.1f} MB")
