"""Read results: verdicts, numbers, the site; compare revisions, runs and machines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ticketlab.cli.terminal import StudyName, StudyNames, one_line_errors, print_or_write
from ticketlab.files import write_atomically
from ticketlab.pipeline import confirmations, params, repository
from ticketlab.pipeline import timings as seconds
from ticketlab.pipeline import verify as verification
from ticketlab.reader import findings, front, published
from ticketlab.release import check
from ticketlab.spec import ROOT
from ticketlab.study import results, verdicts
from ticketlab.study.claims import CLAIMS, COLUMNS, colour, with_reasons

app = typer.Typer()
RevisionName = Annotated[
    str, typer.Argument(help="a git revision, a DVC experiment, or `workspace`")
]


@app.command()
def claims(
    study: Annotated[str, typer.Argument(help="default: all in `runs` of params.yaml")] = "",
    write: Annotated[
        bool, typer.Option(help="update README.md, PUBLISHED.md and findings.md")
    ] = False,
) -> None:
    """Show the verdicts of a study, computed from its metrics, and the paths of its pages."""
    with one_line_errors():
        chosen = params.chosen_studies()
        for name in [study] if study else chosen:
            show_claims(name, verdicts.table(ROOT / "results" / name))
        if write:
            write_pages(verdicts.studies(chosen))


@app.command()
def timings(
    study: StudyName,
    write: Annotated[bool, typer.Option(help="write results/STUDY/timings.csv")] = False,
) -> None:
    """Print as CSV how many seconds each arm of a study took on this machine."""
    with one_line_errors():
        folder = ROOT / "results" / study
        print_or_write(seconds.table(folder), folder / seconds.FILE, write)


@app.command()
def seeds(
    study: StudyName,
    write: Annotated[bool, typer.Option(help="write results/STUDY/seeds.csv")] = False,
) -> None:
    """Print as CSV all numbers of a study per seed: paper, metric, seed, value."""
    with one_line_errors():
        folder = ROOT / "results" / study
        print_or_write(results.study_seeds(folder), folder / results.SEEDS, write)


@app.command()
def verify(
    studies: StudyNames = None,
    rev: Annotated[str, typer.Option(help="the revision to compare with")] = "HEAD",
    record: Annotated[
        bool,
        typer.Option(help="add the outcome to confirmations.yaml; refused if units were reused"),
    ] = False,
    release: Annotated[
        Path | None, typer.Option(help="check this release instead; needs no git and no project")
    ] = None,
) -> None:
    """Compare the results here with committed ones; runs nothing.

    A stage is identical (all bytes), within (numbers agree within their intervals) or different.
    Exits with code 1 unless every stage is identical or, where bytes may differ, within. With
    --release, every difference between an archive and what it says of itself is a line.
    """
    if release is not None:
        raise typer.Exit(verify_release(release))
    with one_line_errors(), repository.opened(ROOT) as repo:
        chosen = studies or params.chosen_studies()
        runs = [run for run in params.load_runs() if run.study in chosen]
        if record:
            confirmations.check_fresh(ROOT, runs)
        found = {study: verification.verify(repo, ROOT, [study], rev) for study in chosen}
        rules = {study: verification.rule(ROOT, study, rev) for study in chosen}
        for study, (_, words) in rules.items():
            print(f"{study}: compared {words}")
            for paper, count in seconds.reused(ROOT / "results" / study).items():
                print(f"{study}-{paper}: {count} units were reused, so they were not checked")
        bytes_expected = all(expected for expected, _ in rules.values())
        every = [finding for findings in found.values() for finding in findings]
        print(verification.report(every, bytes_expected))
        commit = repository.Committed(ROOT, rev).commit
        for study in chosen if record else ():
            own = [run for run in runs if run.study == study]
            new = confirmations.entry(ROOT, study, own, found[study], rules[study][0], commit)
            confirmations.append(new)
            print(f"{confirmations.FILE.name}: {study}: {new.outcome}, {new.processor}")
    raise typer.Exit(int(not verification.is_reproduced(every, bytes_expected)))


def verify_release(path: Path) -> int:
    """Print what is wrong with a release, or what was checked; returns the exit code."""
    with one_line_errors():
        found = check.verify(path)
        print(*found.problems, sep="\n", end="\n" if found.problems else "")
        counts = f"{found.files:,} files, {found.tickets:,} tickets, {found.verdicts:,} verdicts"
        state = f"{len(found.problems)} problems" if found.problems else "as released"
        print(f"{path}: {counts}: {state}")
    return int(bool(found.problems))


@app.command()
def compare(
    a: RevisionName,
    b: RevisionName,
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("compare.html"),
) -> None:
    """Compare two revisions in one HTML page: parameters, claims, metrics, curves and masks."""
    from ticketlab.reader import diff_page  # imported here, since only this command needs it

    with one_line_errors():
        summary = diff_page.write(a, b, out)
        print(f"{a} and {b}: {summary}; read {out}")


@app.command()
def robustness(
    a: Annotated[str, typer.Argument(help="a folder of results/, or a git revision")],
    b: Annotated[str, typer.Argument(help="another run, named in the same way")],
    study: Annotated[str, typer.Option(help="the study, if a revision is given")] = "desk",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("robustness.md"),
    keep: Annotated[
        str | None,
        typer.Option(help="store B as the rerun NAME of A, for the site; A and B must be folders"),
    ] = None,
) -> None:
    """Compare the verdicts of two runs, e.g. on two machines, with what the rules predict."""
    from ticketlab.reader import reruns, robustness  # imported here, since only this needs them

    with one_line_errors():
        if keep is not None:  # B may lack papers, and show the committed numbers for them
            found = reruns.keep(ROOT / b, ROOT / a, keep).pairs(CLAIMS)
        else:
            found = robustness.pairs(robustness.read(a, study), robustness.read(b, study))
        write_atomically(out, robustness.page(a, b, found).encode())
        print(f"{robustness.opposites(found)}\n{robustness.stayed(found)}\nread {out}")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="the folder of the site")] = ROOT / "site",
) -> None:
    """Build the documentation site: findings, claims, executed notebooks, guides, API reference."""
    from ticketlab.reader import site  # imported here, since only this command needs it

    with one_line_errors():
        pages = site.build(out)
        print(f"report: {len(pages)} pages, read {out / 'index.html'}")


def write_pages(found: Mapping[str, Path]) -> None:
    """Renew what README.md, guides, PUBLISHED.md and findings.md say of these studies' verdicts.

    All of it is computed before anything is written.
    """
    numbers = published.PAGE
    pages = {folder / findings.FILE: findings.page(folder) for folder in found.values()}
    texts = front.pages(lambda path: (ROOT / path).read_text(), found)
    pages |= {ROOT / path: text for path, text in texts.items()}
    pages[numbers] = published.with_parts(numbers.read_text(), published.parts(list(found)))
    for path, text in pages.items():
        write_atomically(path, text.encode())


def show_claims(study: str, found: pd.DataFrame) -> None:
    """Show the verdicts as a table, and the pages behind them."""
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
