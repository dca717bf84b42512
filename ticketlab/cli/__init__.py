"""Reproduce lottery-ticket papers: run studies, show verdicts, compare runs, load tickets.

The stages of dvc.yaml run some of these commands; the others are for readers and contributors.
"""

import typer

from ticketlab.cli import judge, pieces, plan, read, release, run, studies, tickets

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
for part in (run, plan, pieces, read, judge, tickets, studies, release):
    app.add_typer(part.app)
app.add_typer(studies.study_app, name="study", no_args_is_help=True)
