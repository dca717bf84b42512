"""`ticketlab`: what the stages of dvc.yaml call (prepare, train, run), and what readers ask for."""

import os
import shlex
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ticketlab import gpu, instruction_set, progress
from ticketlab.data import sets
from ticketlab.data.prepared import read_prepared
from ticketlab.files import replace_folder, write_atomically, write_json
from ticketlab.pipeline import (
    code,
    machine,
    new_paper,
    params,
    pieces,
    planning,
    probe,
    repository,
    studies,
)
from ticketlab.pipeline import repro as reproduction
from ticketlab.pipeline import timings as seconds
from ticketlab.pipeline import verify as verification
from ticketlab.pipeline.notebook import NotebookFailed, Started, execute
from ticketlab.pipeline.registry import PAPERS
from ticketlab.reader import findings, inventory, published
from ticketlab.spec import ROOT, InputError, Spec
from ticketlab.study import results, runner, verdicts
from ticketlab.study.claims import COLUMNS, colour, with_reasons
from ticketlab.study.runner import UnitFailed
from ticketlab.study.store import EMPTY, Store

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

StudyName = Annotated[str, typer.Argument(help="a study of params.yaml or studies/, e.g. desk")]
StudyNames = Annotated[
    list[str] | None, typer.Argument(help="default: all that params.yaml runs", metavar="STUDY...")
]
PaperName = Annotated[str, typer.Argument(help=f"one of {', '.join(params.PAPERS)}")]

RevisionName = Annotated[str, typer.Argument(help="git revision, DVC experiment or workspace")]


@app.command()
def check() -> None:
    """Validate all parameters; the first mistake is one line, and the exit code 2.

    results/code then has the fingerprints of the code behind each run of params.yaml.
    """
    with one_line_errors():
        studies = params.load_all()
        runs = params.load_runs()
        code.write({run.name: (run.paper, studies[run.study][run.paper]) for run in runs})
        print(f"parameters: valid, studies: {', '.join(studies)}")


@app.command()
def prepare(
    study: StudyName,
    paper: Annotated[str, typer.Argument(help="default: all papers of the study")] = "",
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
    fresh: Annotated[
        bool, typer.Option(help="reuse nothing, train every unit", envvar="TICKETLAB_FRESH")
    ] = False,
) -> None:
    """Train the units of a paper's study, but for those that are stored with the same key.

    They are looked for in results/*/runs and in DVC's cache; an interrupted run is taken up where
    it ended. A check of reproducibility needs --fresh.
    """
    with one_line_errors():
        progress.end_with_repro()
        values = params.load_paper(study, paper)
        final = results.runs_folder(study, paper)
        partial = final.with_name(f".{paper}.partial")
        with alone(study, paper):
            if results.made_elsewhere(final) and not fresh:
                watched_study("train", study, paper, values, final, EMPTY)
                print(f"train@{study}-{paper}: its units were made elsewhere, none is trained here")
                return
            if fresh:
                shutil.rmtree(partial, ignore_errors=True)
            store = EMPTY if fresh else stored_units()
            watched_study("train", study, paper, values, partial, store)
            replace_folder(partial, final)


@app.command()
def run(study: StudyName, paper: PaperName) -> None:
    """Execute a paper's notebook with a study's parameters; trains only what is not stored yet.

    Units that were trained with other code or parameters are left alone: `ticketlab train` renews
    them, and so does `dvc repro`.
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
            with staged_pages(pages) as staging:
                target = staging / f"{paper}.ipynb"
                inputs = params.notebook_parameters(study, values)
                started = time.monotonic()
                execute(ROOT / "notebooks" / f"{paper}.ipynb", target, inputs, cells_of(stage))
                timed = folder.parent / f"{paper}.timings.json"
                seconds.note_page(timed, time.monotonic() - started)
        print(f"{stage}: {(pages / f'{paper}.ipynb').relative_to(ROOT)}")


@app.command()
def repro(
    stages: Annotated[list[str] | None, typer.Argument(help="default: all")] = None,
    force: Annotated[bool, typer.Option(help="run what is up to date, too")] = False,
    fresh: Annotated[
        bool, typer.Option(help="reuse nothing, train every unit", envvar="TICKETLAB_FRESH")
    ] = False,
) -> None:
    """Run `dvc repro` with one display of all stages: how far it is, how long the rest takes.

    In a log, plain lines. It ends with the exit code of `dvc repro`; an interrupted run is taken up
    where it ended.
    """
    with one_line_errors():
        check()
        if fresh:
            os.environ["TICKETLAB_FRESH"] = "1"  # for the stages
        code = reproduction.repro(stages or [], force, EMPTY if fresh else stored_units())
    raise typer.Exit(code)


@app.command("probe")
def probe_study(
    study: StudyName,
    minutes: Annotated[float, typer.Option(help="the time that the study is to fit into")] = 25.0,
    save: Annotated[str, typer.Option(help="also write a study of this name that fits")] = "",
) -> None:
    """Measure what a study takes on this device, and say which epochs and seeds fit.

    First all trainings become shorter, then there are fewer seeds: `probe.fitted` has the rule.
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


@app.command()
def piece(
    study: StudyName,
    paper: Annotated[str, typer.Argument(help="default: all papers of the study")] = "",
    out: Annotated[Path, typer.Option(help="the folder for units and tickets")] = Path("pieces"),
    minutes: Annotated[float, typer.Option(help="how long, at most")] = 8.5,
) -> None:
    """Train a piece of a study on a machine with a GPU: units that end within some minutes.

    The next call goes on. The folder can be carried: `ticketlab assemble` makes the study of it,
    on any machine. Needs no git, DVC, Jupyter or network.
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
    folders: Annotated[list[Path], typer.Argument(help="folders of `ticketlab piece`")],
) -> None:
    """Put the pieces of a study together: results/STUDY has them, `dvc repro` makes its pages.

    Nothing is trained. A study that is not known here is taken from the folder.
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


@app.command()
def claims(
    study: Annotated[str, typer.Argument(help="default: all that params.yaml runs")] = "",
    write: Annotated[
        bool, typer.Option(help="renew README.md, PUBLISHED.md and findings.md")
    ] = False,
) -> None:
    """Show the verdicts of a study, judged now from its metrics, and where to read on."""
    with one_line_errors():
        chosen = params.chosen_studies()
        for name in [study] if study else chosen:
            show_claims(name, verdicts.table(ROOT / "results" / name))
        if write:
            readme, found = ROOT / "README.md", verdicts.tables(chosen)
            pages = {name: findings.page(ROOT / "results" / name) for name in found}
            parts = published.parts(list(found))  # first what takes time: then no edit is lost
            write_atomically(readme, verdicts.with_table(readme.read_text(), found).encode())
            numbers = published.with_parts(published.PAGE.read_text(), parts)
            write_atomically(published.PAGE, numbers.encode())
            for name, text in pages.items():
                write_atomically(ROOT / "results" / name / findings.FILE, text.encode())


@app.command()
def timings(
    study: StudyName,
    write: Annotated[bool, typer.Option(help="write results/STUDY/timings.csv")] = False,
) -> None:
    """Show the seconds that each arm of a study took on this machine."""
    with one_line_errors():
        folder = ROOT / "results" / study
        found = seconds.table(folder)
        show_table(f"seconds of the units of {study}", found)
        if write:
            results.write_table(found, folder / "timings.csv")


@app.command()
def seeds(
    study: StudyName,
    write: Annotated[bool, typer.Option(help="write results/STUDY/seeds.csv")] = False,
) -> None:
    """Print all numbers by seed of a study as CSV: paper, metric, seed, value."""
    with one_line_errors():
        folder = ROOT / "results" / study
        found = results.study_seeds(folder)
        if write:
            results.write_table(found, folder / results.SEEDS)
        else:
            print(found.to_csv(index=False), end="")


@app.command()
def tickets(
    study: Annotated[str, typer.Argument(help="default: all that have tickets here")] = "",
    paper: Annotated[str, typer.Option(help="only this paper's")] = "",
    arm: Annotated[str, typer.Option(help="only arms with this in their name")] = "",
    seed: Annotated[int | None, typer.Option(help="only this seed's")] = None,
) -> None:
    """List the stored tickets: what each is, and its path for `ticketlab show`."""
    with one_line_errors():
        print(inventory.tickets(study, paper, arm, seed).to_string(index=False))


@app.command()
def show(ticket: Annotated[Path, typer.Argument(help="a path of `ticketlab tickets`")]) -> None:
    """Verify a ticket's hashes and show where it comes from and what each layer keeps."""
    with one_line_errors():
        print(inventory.describe(ticket if ticket.exists() else ROOT / ticket))


@app.command()
def verify(
    studies: StudyNames = None,
    rev: Annotated[str, typer.Option(help="the revision to compare with")] = "HEAD",
) -> None:
    """Compare the results here with the committed ones; runs nothing, ends with 1 if they differ.

    A stage is identical (all bytes), within (numbers agree within their intervals) or different.
    """
    with one_line_errors(), repository.opened(ROOT) as repo:
        chosen = studies or params.chosen_studies()
        found = verification.verify(repo, ROOT, chosen, rev)
        rules = [verification.rule(ROOT, study, rev) for study in chosen]
        for study, (_, words) in zip(chosen, rules, strict=True):
            print(f"{study}: compared {words}")
            for paper, count in seconds.reused(ROOT / "results" / study).items():
                print(f"{study}-{paper}: {count} units were reused, so this is no check of them")
        bytes_expected = all(expected for expected, _ in rules)
        print(verification.report(found, bytes_expected))
    raise typer.Exit(int(not verification.is_reproduced(found, bytes_expected)))


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def pinned(
    command: Annotated[list[str], typer.Argument(help="a program and its arguments")],
) -> None:
    """Run another program pinned to the instruction set of results: `pinned jupyter lab`.

    Every `ticketlab` command pins itself; this is for programs that make results otherwise, such
    as JupyterLab or a Dask worker. TICKETLAB_NATIVE=1 leaves everything unpinned.
    """
    with one_line_errors():
        if shutil.which(command[0]) is None:
            raise InputError(f"command: {command[0]!r} is not on PATH")
        instruction_set.run(command)


study_app = typer.Typer(help="Studies: make one, and choose which ones `dvc repro` runs.")
app.add_typer(study_app, name="study", no_args_is_help=True)
KnownStudy = Annotated[str, typer.Argument(help="a study of params.yaml or studies/")]


@study_app.command("new")
def new_study(
    name: Annotated[str, typer.Argument(help="its name, studies/NAME.yaml")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...")] = None,
    source: Annotated[str, typer.Option("--from", help="the study to copy")] = "desk",
    paper: Annotated[list[str] | None, typer.Option(help="take over only these papers")] = None,
) -> None:
    """Make a study: `study new mine --from cifar10 prac.data.name=my_digits`; adds it to runs."""
    with one_line_errors():
        added = studies.new(name, source, changes or [], paper or [])
        print(f"studies/{name}.yaml: written; params.yaml: runs:\n{studies.shown(added)}")


@study_app.command("add")
def add_study(study: KnownStudy) -> None:
    """Have `dvc repro` run a study: adds its lines to runs in params.yaml, and prints them."""
    with one_line_errors():
        added = studies.add(study)
        print(f"params.yaml: runs:\n{studies.shown(added)}" if added else f"{study}: is in runs")


@study_app.command("remove")
def remove_study(study: KnownStudy) -> None:
    """Take a study out of runs in params.yaml; its file, results and lock entries stay."""
    with one_line_errors():
        gone = studies.remove(study)
        print(f"params.yaml: taken out of runs: {', '.join(run.name for run in gone)}")


@study_app.command("stages")
def study_stages(study: KnownStudy) -> None:
    """Print the stages to ask `dvc repro` for."""
    with one_line_errors():
        params.load_study(study)
        print(*studies.stages(study))


@app.command("new-paper")
def lay_out_paper(
    name: Annotated[str, typer.Argument(help="a lower-case Python name, e.g. early_bird")],
) -> None:
    """Lay out a further paper: its folder, notebook, claims, parameters and test, ready to run.

    It is one-shot magnitude pruning against a random mask until you make it the paper's method.
    """
    with one_line_errors():
        written = new_paper.new_paper(name)
        print("written:", *written, sep="\n  ")
        print(new_paper.next_steps(name))


@app.command()
def plan(studies: StudyNames = None) -> None:
    """Say what `dvc repro` will run, about how long that takes here, and what it can decide.

    Runs a short probe.
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
            planning.plan(study, paper, chosen[study][paper], store, each) for study, paper in work
        ]
        if plans:
            show_table("to train", planning.table(plans))
            print(planning.summary(plans, ROOT))
        else:
            print("nothing to train")


@app.command()
def compare(
    a: RevisionName,
    b: RevisionName,
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("compare.html"),
) -> None:
    """Compare two revisions in one HTML page: parameters, claims, metrics, curves, masks."""
    from ticketlab.reader import diff_page  # draws and renders: no other command waits for it

    with one_line_errors():
        summary = diff_page.write(a, b, out)
        print(f"{a} and {b}: {summary}; read {out}")


@app.command()
def robustness(
    a: Annotated[str, typer.Argument(help="a folder of results/, or a git revision")],
    b: Annotated[str, typer.Argument(help="the same, of another run")],
    study: Annotated[str, typer.Option(help="the study to take of a revision")] = "desk",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("robustness.md"),
) -> None:
    """Compare the verdicts of two runs, as of two machines, with what the rules predict."""
    from ticketlab.reader import robustness  # opens DVC: no other command waits for it

    with one_line_errors():
        found = robustness.pairs(robustness.read(a, study), robustness.read(b, study))
        write_atomically(out, robustness.page(a, b, found).encode())
        print(f"{robustness.opposites(found)}\n{robustness.stayed(found)}\nread {out}")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="the folder of the site")] = ROOT / "site",
) -> None:
    """Build the static site from the executed notebooks: verdicts first, then the papers."""
    from ticketlab.reader import website  # renders: no other command waits for it

    with one_line_errors():
        pages = website.build(out)
        print(f"report: {len(pages)} pages, read {out / 'index.html'}")


def show_table(title: str, frame: pd.DataFrame) -> None:
    """A table on the terminal."""
    table = Table(*frame.columns, title=title)
    for row in frame.astype(str).itertuples(index=False):
        table.add_row(*row)
    Console().print(table)


def show_claims(study: str, found: pd.DataFrame) -> None:
    """The verdicts as a table, and the pages behind them."""
    table = Table(title=f"claims at the scale of {study}")
    for column in COLUMNS:
        table.add_column(column)
    for _, rows in with_reasons(found).groupby(level="paper"):
        table.add_section()
        for *row, verdict in rows[list(COLUMNS)].itertuples(index=False, name=None):
            table.add_row(*map(escape, row), Text(verdict, style=colour(verdict)))
    console = Console()
    console.print(table)
    print(f"{study}: {verdicts.survivors(found)}")
    for page in sorted((ROOT / "results" / study).glob("*/*.ipynb")):
        console.print(f"read {page.relative_to(ROOT)}", highlight=False, soft_wrap=True)


def stored_units() -> Store:
    """What runs here have stored, in results and in DVC's cache."""
    folders = (ROOT / "results").glob("*/runs/*/")
    return Store(tuple(sorted(folders)), repository.cache_folder(ROOT))


def cells_of(stage: str) -> Started:
    """What reports the cells of a stage's page to `ticketlab repro`."""
    return lambda cell, cells: progress.report(stage, cell=cell, cells=cells)


def watched_study(
    kind: Literal["train", "read"], study: str, paper: str, values: Spec, folder: Path, store: Store
) -> None:
    """Run a paper's units into `folder`, showing progress; what is stored is not run again.

    Only training replaces units of other code or parameters: reading raises StaleUnits.
    """
    chosen = PAPERS[paper]
    runtime: gpu.Runtime = values.runtime  # type: ignore[attr-defined]
    workers = gpu.worker_count(runtime, params.load_workers())
    events = folder.with_name(f".{paper}.events")
    stage, expected = f"{kind}@{study}-{paper}", chosen.expected_passes(values)
    with progress.Watch(events, stage, expected) as watch:
        done = runner.run_study(chosen.phases(values), folder, workers, store, kind == "train")
    results.forget_others(folder, done)
    timed = folder.parent / f"{paper}.timings.json"
    if watch.seconds or watch.reused:
        seconds.note(timed, watch.seconds, done, workers, watch.reused, watch.planned)
    if watch.seconds:  # something was trained here
        machine.note(ROOT / "results" / study, paper, runtime)
    if watch.reused:
        print(f"train@{study}-{paper}: {watch.reused} of {len(done)} units are reused")


@contextmanager
def alone(study: str, paper: str) -> Iterator[None]:
    """No other process trains or runs this paper of the study; InputError names one that does.

    The operating system takes the lock back when its process ends, however it ends.
    """
    lock, holder = (machine.LOCKS / f"{study}.{paper}.{kind}" for kind in ("lock", "holder"))
    machine.LOCKS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock).acquire(timeout=0))
        except Timeout:
            by = holder.read_text() if holder.exists() else "another process"
            raise InputError(f"{study}/{paper} is being trained by {by}: wait for it") from None
        write_atomically(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        held.callback(holder.unlink, missing_ok=True)
        yield


@contextmanager
def staged_pages(pages: Path) -> Iterator[Path]:
    """A folder to write pages into; they replace the last good ones only if all went well."""
    staging = pages.with_name(f".{pages.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    os.environ["TICKETLAB_PAGES"] = str(staging)
    try:
        yield staging
    except NotebookFailed as error:
        kept = pages.parent / error.partial.name
        error.partial.replace(kept)
        print(f"the partly executed notebook is {kept.relative_to(ROOT)}", file=sys.stderr)
        raise
    else:
        (pages.parent / f"{pages.name}.failed.ipynb").unlink(missing_ok=True)
        replace_folder(staging, pages)
    finally:
        os.environ.pop("TICKETLAB_PAGES", None)
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input ends in one line and exit code 2; a failed unit or notebook in its traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(2) from None
    except NotebookFailed as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    except UnitFailed as error:
        traceback.print_exception(error)
        raise typer.Exit(1) from None
