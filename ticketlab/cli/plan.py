"""Before a run: what it will do, how long it takes here, and how much of a study fits."""

import shlex
from typing import Annotated

import typer

from ticketlab.cli.stage import stored_units
from ticketlab.cli.terminal import StudyName, StudyNames, one_line_errors, show_table
from ticketlab.pipeline import params, planning, probe, repository, studies
from ticketlab.spec import ROOT

app = typer.Typer()


@app.command()
def plan(
    studies: StudyNames = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="units at a time, on processors or devices like this one"),
    ] = None,
) -> None:
    """Show what `dvc repro` will run, how long it takes here, and what the study can decide.

    Measures the speed of this machine, which takes some seconds. `--workers 8` says how long eight
    such processors would take, for instance those of a Dask cluster.
    """
    with one_line_errors(), repository.opened(ROOT) as repo:
        chosen = {name: params.load_study(name) for name in studies or params.chosen_studies()}
        stages = {name: planning.states(repo, name) for name in chosen}
        work = [
            (study, paper)
            for study, papers in chosen.items()
            for paper in planning.to_train(stages[study], study, papers)
        ]
        for study in chosen:
            show_table(f"stages of {study}", stages[study])
            show_table(f"claims of {study}", planning.attainable(study, chosen[study]))
        each = planning.PROBE_SECONDS / max(1, len(work))
        store = stored_units()
        plans = [
            planning.plan(study, paper, chosen[study][paper], store, each, workers)
            for study, paper in work
        ]
        if plans:
            show_table("to train", planning.table(plans))
            print(planning.summary(plans, ROOT))
        else:
            print("nothing to train")


@app.command("probe")
def probe_study(
    study: StudyName,
    minutes: Annotated[float, typer.Option(help="available time in minutes")] = 25.0,
    save: Annotated[
        str, typer.Option(help="also write a study of this name that fits into the time")
    ] = "",
) -> None:
    """Measure how long a study takes on this device, and report which epochs and seeds fit.

    To fit, first all trainings are shortened, then seeds are removed.
    """
    with one_line_errors():
        block = studies.plain(study)
        papers = params.load_study(study)
        for values in papers.values():
            planning.check_data(values)
        speeds = probe.measured(papers)
        show_table(f"{study} on this device", probe.table(papers, speeds))
        cost = probe.cost_with(speeds)
        fit = probe.fitted(block, cost, 60 * minutes)
        print(probe.summary(study, fit, cost(block), 60 * minutes))
        for line in probe.slow_units(papers, speeds):
            print(line)
        wanted = list(probe.changes(block, fit.block))
        if save:
            studies.new(save, study, wanted)
            print(f"studies/{save}.yaml: written, and in runs")
        elif wanted:
            command = ["ticketlab", "study", "new", "NAME", "--from", study, *wanted]
            print(f"to make that study: {shlex.join(command)}")
