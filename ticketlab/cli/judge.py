"""Judge a mask from outside: is it a winning ticket?"""

import os
from pathlib import Path
from typing import Annotated

import typer

from ticketlab.cli.terminal import one_line_errors
from ticketlab.pipeline import params
from ticketlab.spec import InputError

app = typer.Typer()


def workers() -> int | str:
    """Return the units to run at once: as in params.yaml, or one per core without a project."""
    known = params.FILE.exists() or "TICKETLAB_WORKERS" in os.environ
    return params.load_workers() if known else 0


@app.command()
def judge(
    mask: Annotated[
        str, typer.Argument(help="a file of masks or weights, or an address of a ticket")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="the folder of the page and the units")] = None,
    parameters: Annotated[
        Path | None, typer.Option("--params", help="a file of parameters; default: the example's")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="a state_dict with the mask's initial weights")
    ] = None,
    model: Annotated[str, typer.Option(help="replaces `model` by this network")] = "",
    data: Annotated[str, typer.Option(help="replaces the name of the data set")] = "",
    seeds: Annotated[int | None, typer.Option(help="replaces `seeds` by this many")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="the archive or project of an address")
    ] = None,
    example: Annotated[
        Path | None, typer.Option(help="write a new file of parameters with comments, and exit")
    ] = None,
) -> None:
    """Is this a winning ticket? Judge a mask against dense, IMP, random, shuffled and fresh arms.

    Trains every arm on your data at the mask's own sparsity, and writes a page with verdicts.
    A second call with the same parameters trains nothing; an interrupted one continues.
    """
    with one_line_errors():
        from ticketlab.judging import run  # needs the packages of studies

        if example is not None:
            run.write_example(example)
            print(f"{example}: written, `ticketlab judge MASK --params {example} --out FOLDER`")
            return
        if not mask or out is None:
            raise InputError("judge: a MASK and --out FOLDER are needed, see --help")
        values = run.parameters(parameters, model, data, seeds)
        given = run.load_mask(values, mask, weights, source)
        found = run.judge(values, given, out, workers())
        print("\n".join([found["sentence"], *found["notes"], f"page: {out / run.PAGE}"]))
