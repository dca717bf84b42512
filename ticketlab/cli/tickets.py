"""List the stored tickets, and show one."""

from pathlib import Path
from typing import Annotated

import typer

from ticketlab.cli.terminal import one_line_errors
from ticketlab.reader import anything, inventory, loading, sources
from ticketlab.spec import ROOT
from ticketlab.tickets import huggingface, onnx_file, outside

app = typer.Typer()
LICENCE = "mit"
"""Licence of the tickets in results, as of the project."""


@app.command()
def tickets(
    study: Annotated[str, typer.Argument(help="default: all that have tickets here")] = "",
    paper: Annotated[str, typer.Option(help="only this paper's")] = "",
    arm: Annotated[str, typer.Option(help="only arms with this in their name")] = "",
    seed: Annotated[int | None, typer.Option(help="only this seed's")] = None,
    export: Annotated[
        Path | None, typer.Option(help="write them into a .zip or .tar with their hashes")
    ] = None,
) -> None:
    """List the stored tickets: their keys, and their paths for `ticketlab show`.

    An exported archive is read by `ticketlab.load(ADDRESS, FILE)` and `ticketlab show ADDRESS`.
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
    ticket: Annotated[str, typer.Argument(help="a path of `ticketlab tickets`, or an address")],
    source: Annotated[
        Path | None, typer.Option("--from", help="the archive or project of an address")
    ] = None,
) -> None:
    """Verify a ticket's hashes and show its origin and what each layer keeps.

    An address such as desk/colt/imp/seed-100@95 gives its card, in Markdown. Of a file from another
    project (see `ticketlab convert`) it shows the mask.
    """
    with one_line_errors():
        if anything.is_address(ticket):
            print(loading.load(ticket, source).card(), end="")
        else:
            print(inventory.describe(path if (path := Path(ticket)).exists() else ROOT / path))


@app.command()
def convert(
    ticket: Annotated[str, typer.Argument(help="an address, or a file of masks or weights")],
    target: Annotated[
        str, typer.Argument(help="FILE.pt, FILE.safetensors, FILE.onnx or FOLDER/; it is replaced")
    ],
    form: Annotated[
        outside.Form, typer.Option(help="names as torch.nn.utils.prune has them, 0/1 masks, zeros")
    ] = "prune",
    source: Annotated[
        Path | None, typer.Option("--from", help="the archive or project of an address")
    ] = None,
) -> None:
    """Write a ticket in a form that other projects read, from an address or a file of theirs.

    Files may hold a state_dict pruned by torch.nn.utils.prune, a mapping of 0/1 masks (open_lth's
    mask.pth) or a state_dict with zeros. No code of a file is run. A FOLDER/ is written in the form
    of the Hugging Face Hub, and can be read again; FILE.onnx has the network with sparse weights.
    """
    with one_line_errors():
        found, _ = anything.read(ticket, source)
        path, name = Path(target), ticket if anything.is_address(ticket) else Path(ticket).name
        said: str = form
        if target.endswith("/") or path.is_dir():
            licence = LICENCE if anything.is_address(ticket) else huggingface.UNKNOWN
            huggingface.write(path, found, name, licence)
            said = "Hugging Face's form"
        elif path.suffix == ".onnx":
            onnx_file.write(path, found)
            said = "ONNX"
        else:
            outside.write(path, found.mask, found.weights, form)
        mask = found.mask
        print(f"{target}: {said}, {mask.alive:,} of {mask.total:,} prunable weights kept")
