"""Train a study in pieces on other machines, and assemble it here."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ticketlab.cli.stage import alone
from ticketlab.cli.terminal import PaperOrAll, StudyName, one_line_errors
from ticketlab.pipeline import machine, params, pieces
from ticketlab.spec import ROOT

app = typer.Typer()


@app.command()
def piece(
    study: StudyName,
    paper: PaperOrAll = "",
    out: Annotated[Path, typer.Option(help="folder for units and tickets")] = Path("pieces"),
    minutes: Annotated[float, typer.Option(help="maximum duration in minutes")] = 8.5,
) -> None:
    """Train part of a study, e.g. on a machine with a GPU: as many units as fit into some minutes.

    Call it again to continue. Copy the folder to any machine, where `ticketlab assemble` makes the
    study from it. Needs no git, DVC, Jupyter or network.
    """
    end = time.monotonic() + 60 * minutes
    with one_line_errors():
        block = params.load_study(study)
        if paper:
            params.load_paper(study, paper)
        for name in [paper] if paper else block:
            made = pieces.train_piece(study, block, name, out, end)
            print(f"{name}: {len(made.seconds)} units trained, {pieces.state_of(made)}", flush=True)


@app.command()
def assemble(
    study: StudyName,
    folders: Annotated[list[Path], typer.Argument(help="folders written by `ticketlab piece`")],
) -> None:
    """Assemble a study from pieces in results/STUDY, from which `dvc repro` makes the pages.

    Nothing is trained. A study that does not exist here is taken from the folder.
    """
    with one_line_errors():
        pieces.take_study(study, folders[0])
        for paper, values in params.load_study(study).items():
            given = [folder for folder in folders if paper in machine.read(folder)]
            if given:
                with alone(study, paper):
                    count, entry = pieces.assemble(study, paper, values, given)
                machine.record(ROOT / "results" / study, paper, entry)
                print(f"{study}-{paper}: {count} units, made with {machine.named(entry)}")
        print(f"params.yaml: runs has {study}: dvc repro $(ticketlab study stages {study})")
