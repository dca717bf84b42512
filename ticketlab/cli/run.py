"""Run studies: check, prepare, train, execute a notebook, or all of these; and `pinned`."""

import os
import shutil
import time
from typing import Annotated

import typer

from ticketlab import instruction_set, progress
from ticketlab.cli.stage import alone, cells_of, staged_pages, stored_units, watched_study
from ticketlab.cli.terminal import PaperName, PaperOrAll, StudyName, one_line_errors
from ticketlab.data import sets
from ticketlab.data.prepared import read_prepared
from ticketlab.files import replace_folder, write_json
from ticketlab.pipeline import code, params
from ticketlab.pipeline import repro as reproduction
from ticketlab.pipeline import timings as seconds
from ticketlab.pipeline.notebook import execute
from ticketlab.spec import ROOT, InputError
from ticketlab.study import results, runner, verdicts
from ticketlab.study.store import EMPTY

app = typer.Typer()
Fresh = Annotated[
    bool, typer.Option(help="reuse nothing and train every unit", envvar="TICKETLAB_FRESH")
]


@app.command()
def check() -> None:
    """Validate all parameters; the first mistake is reported in one line, with exit code 2.

    Also writes the fingerprints of the code behind each run of params.yaml to results/code.
    """
    with one_line_errors():
        studies = params.load_all()
        runs = params.load_runs()
        code.write({run.name: (run.paper, studies[run.study][run.paper]) for run in runs})
        print(f"parameters: valid, studies: {', '.join(studies)}")


@app.command()
def prepare(
    study: StudyName,
    paper: PaperOrAll = "",
) -> None:
    """Prepare the data sets of a study and record their hashes in results/STUDY/data."""
    with one_line_errors():
        papers = {paper: params.load_paper(study, paper)} if paper else params.load_study(study)
        for name, values in papers.items():
            hashes = {
                one: read_prepared(sets.prepare(one), one)[1].sha256
                for one in params.data_names(values)
            }
            write_json(ROOT / "results" / study / "data" / f"{name}.json", hashes)
            print(f"data@{study}-{name}: prepared {', '.join(hashes) or 'nothing'}")


@app.command()
def train(
    study: StudyName,
    paper: PaperName,
    fresh: Fresh = False,
) -> None:
    """Train the units of a paper in a study, except those that are stored under the same key.

    Stored units are taken from results/ and from DVC's cache. An interrupted run continues where
    it stopped. To check reproducibility, use --fresh.
    """
    with one_line_errors():
        progress.end_with_repro()
        values = params.load_paper(study, paper)
        final = results.runs_folder(study, paper)
        partial = final.with_name(f".{paper}.partial")
        with alone(study, paper):
            if results.made_elsewhere(final) and not fresh:
                watched_study("train", study, paper, values, final, EMPTY)
                print(f"train@{study}-{paper}: units were made on another machine, none is trained")
                return
            if fresh:
                shutil.rmtree(partial, ignore_errors=True)
            store = EMPTY if fresh else stored_units()
            watched_study("train", study, paper, values, partial, store)
            replace_folder(partial, final)


@app.command()
def run(study: StudyName, paper: PaperName) -> None:
    """Execute a paper's notebook with the parameters of a study.

    Trains only units that are not stored yet. Units that were trained with other code or
    parameters are not replaced: `ticketlab train` and `dvc repro` do that.
    """
    stage = f"read@{study}-{paper}"
    with one_line_errors():
        progress.end_with_repro()
        values = params.load_paper(study, paper)
        pages = results.pages_folder(study, paper)
        with alone(study, paper):
            folder = results.runs_folder(study, paper)
            try:
                watched_study("read", study, paper, values, folder, stored_units())
            except runner.StaleUnits as error:
                renew = f"`ticketlab train {study} {paper}` renews them"
                raise InputError(f"{folder.relative_to(ROOT)}: {error}; {renew}") from None
            except InputError as error:
                if not str(error).startswith(f"{folder}{os.sep}"):
                    raise
                renew = f"`ticketlab train {study} {paper}` makes this unit anew"
                raise InputError(f"{error}; {renew}") from None
            with staged_pages(pages) as staging:
                target = staging / f"{paper}.ipynb"
                inputs = params.notebook_parameters(study, values)
                started = time.monotonic()
                execute(ROOT / "notebooks" / f"{paper}.ipynb", target, inputs, cells_of(stage))
                verdicts.write_summary(paper, staging)
                timed = folder.parent / f"{paper}.timings.json"
                seconds.note_page(timed, time.monotonic() - started)
        print(f"{stage}: {(pages / f'{paper}.ipynb').relative_to(ROOT)}")


@app.command()
def repro(
    stages: Annotated[list[str] | None, typer.Argument(help="default: all stages")] = None,
    force: Annotated[bool, typer.Option(help="also run stages that are up to date")] = False,
    fresh: Fresh = False,
) -> None:
    """Run `dvc repro` with one display of all stages: progress and the estimated time left.

    Prints plain lines if the output is no terminal. Exits with the code of `dvc repro`. An
    interrupted run continues where it stopped.
    """
    with one_line_errors():
        check()
        if fresh:
            os.environ["TICKETLAB_FRESH"] = "1"  # read by the stages
        code = reproduction.repro(stages or [], force, EMPTY if fresh else stored_units())
    raise typer.Exit(code)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def pinned(
    command: Annotated[list[str], typer.Argument(help="a program and its arguments")],
) -> None:
    """Run another program pinned to the instruction set of the results: `pinned jupyter lab`.

    Every `ticketlab` command pins itself. Use this for other programs that make results, such as
    JupyterLab or a Dask worker. With TICKETLAB_NATIVE=1, nothing is pinned.
    """
    with one_line_errors():
        if shutil.which(command[0]) is None:
            raise InputError(f"command: {command[0]!r} is not on PATH")
        instruction_set.run(command)
