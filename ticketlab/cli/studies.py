"""Make a study, add a paper, and choose the studies that `dvc repro` runs."""

from typing import Annotated

import typer

from ticketlab.cli.terminal import one_line_errors
from ticketlab.pipeline import new_paper, params, studies

app = typer.Typer()
study_app = typer.Typer(help="Studies: make one, and choose which ones `dvc repro` runs.")
KnownStudy = Annotated[str, typer.Argument(help="a study of params.yaml or studies/")]


@app.command("new-paper")
def lay_out_paper(
    name: Annotated[str, typer.Argument(help="a lower-case Python name, e.g. early_bird")],
) -> None:
    """Create the files of a new paper: folder, notebook, claims, parameters and test, ready to run.

    The example compares one-shot magnitude pruning with a random mask; replace it with your method.
    """
    with one_line_errors():
        written = new_paper.new_paper(name)
        print("written:", *written, sep="\n  ")
        print(new_paper.next_steps(name))


@study_app.command("new")
def new_study(
    name: Annotated[str, typer.Argument(help="name of the new study, in studies/NAME.yaml")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...")] = None,
    source: Annotated[str, typer.Option("--from", help="the study to copy")] = "desk",
    paper: Annotated[list[str] | None, typer.Option(help="copy only these papers")] = None,
) -> None:
    """Make a study and add it to `runs`: `study new mine --from desk prac.data.name=my_digits`."""
    with one_line_errors():
        added = studies.new(name, source, changes or [], paper or [])
        print(f"studies/{name}.yaml: written; params.yaml: runs:\n{studies.shown(added)}")


@study_app.command("add")
def add_study(study: KnownStudy) -> None:
    """Add a study to `runs` in params.yaml, so that `dvc repro` runs it, and print the lines."""
    with one_line_errors():
        added = studies.add(study)
        print(f"params.yaml: runs:\n{studies.shown(added)}" if added else f"{study}: is in runs")


@study_app.command("remove")
def remove_study(study: KnownStudy) -> None:
    """Remove a study from `runs` in params.yaml; its file, results and lock entries stay."""
    with one_line_errors():
        gone = studies.remove(study)
        print(f"params.yaml: removed from runs: {', '.join(run.name for run in gone)}")


@study_app.command("stages")
def study_stages(study: KnownStudy) -> None:
    """Print the names of a study's stages, as arguments for `dvc repro`."""
    with one_line_errors():
        params.load_study(study)
        print(*studies.stages(study))
