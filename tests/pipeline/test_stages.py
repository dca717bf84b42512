"""All runs of params.yaml under the real DVC: what an experiment and an edit make stale.

Stages do their work in no time here: `code` is the real one, the others write files of a line.
"""

import json
import os
import re
from collections.abc import Iterator

import pytest
import quick
from clone import Clone, checked_out

from ticketlab.pipeline import params

pytestmark = pytest.mark.slow

STAGES = """#!/bin/sh
set -e
results=results/$2
case "$1" in
check) exec {ticketlab} check ;;
prepare) mkdir -p $results/data && echo {{}} > $results/data/$3.json ;;
train) mkdir -p $results/runs/$3 && echo {{}} > $results/runs/$3/unit.json ;;
run)
    for name in figures tables curves; do
        mkdir -p $results/$3/$name && echo x,y,arm,seed > $results/$3/$name/all.csv
    done
    for name in $3.ipynb metrics.json summary.json seeds.csv; do
        echo {{}} > $results/$3/$name
    done ;;
esac
"""
"""Instead of `ticketlab`."""

PAPERS = [run.paper for run in params.load_runs() if run.study == "desk"]


class Project(Clone):
    """A clone whose `ticketlab` makes results of a line."""

    def dvc(self, command: str) -> str:
        """What `dvc COMMAND` prints."""
        programs = [self.path(".dvc/tmp/programs"), quick.folder()]
        path = os.pathsep.join([*map(str, programs), self.env["PATH"]])
        return self.run(f"dvc {command}", PATH=path).stdout

    def stale(self) -> set[str]:
        """The stages that DVC would run after `code`."""
        self.dvc("repro code")
        return set(json.loads(self.dvc("status --json"))) - {"code"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `dvc repro`, committed."""
    project = Project(checked_out(tmp_path_factory.mktemp("stages") / "project").root)
    program = project.path(".dvc/tmp/programs/ticketlab")
    program.parent.mkdir(parents=True)
    program.write_text(STAGES.format(ticketlab=quick.folder() / "ticketlab"))
    program.chmod(0o755)
    project.run("git init -q -b main")
    project.commit()
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def project(made: Project) -> Iterator[Project]:
    """The same, put back afterwards."""
    yield made
    made.run("git checkout -q .")


def stages(*kinds: str) -> set[str]:
    """The stages of these kinds of all runs."""
    return {f"{kind}@desk-{paper}" for kind in kinds for paper in PAPERS}


def test_an_experiment_changes_one_line_of_the_parameters(project: Project) -> None:
    printed = project.dvc("exp run -S desk.colt.rate=0.3")
    lines = project.run("git diff --unified=0 -- params.yaml studies").stdout.splitlines()
    changed = [line for line in lines if re.match(r"[-+](?![-+])", line)]
    assert changed == ["-    rate: 0.2", "+    rate: 0.3"]
    (file,) = json.loads(project.dvc("params diff --json")).items()
    assert file[0] == "params.yaml" and list(file[1]) == ["desk.colt.rate"]
    values = file[1]["desk.colt.rate"]
    assert (values["old"], values["new"]) == (0.2, 0.3)
    ran = set(re.findall(r"Running stage '([\w@-]+)'", printed))
    assert ran == {"code", "train@desk-colt", "read@desk-colt"}


EDITS = {
    "the training loop": (
        "ticketlab/training/passes.py",
        "loss.backward()",
        "(2 * loss).backward()",
    ),
    "a docstring of the loop": ("ticketlab/training/loop.py", '"""Train `net`', '"""Trains `net`'),
    "a new criterion": (
        "ticketlab/pruning/saliency.py",
        "CRITERIA: Registry[str, Criterion] = {",
        """def curvature(probe: Probe, weights: State, mask: Mask) -> Scores:
    return {name: weights[name] ** 2 for name in mask}


CRITERIA: Registry[str, Criterion] = {
    "curvature": curvature,""",
    ),
    "a new architecture": (
        "ticketlab/models/registry.py",
        "MODELS: Registry[str, Architecture] = {",
        """def tiny(shape: Shape) -> Body:
    return mlp(shape, width=5, depth=1)


MODELS: Registry[str, Architecture] = {
    "tiny": Architecture(tiny, "default"),""",
    ),
}


def edit(project: Project, what: str) -> None:
    """Make one of the edits."""
    name, old, new = EDITS[what]
    project.edit(name, lambda text: text.replace(old, new, 1))


def test_an_edit_of_the_loop_trains_everything_again(project: Project) -> None:
    edit(project, "the training loop")
    assert project.stale() >= stages("train")


@pytest.mark.parametrize("what", [what for what in EDITS if what != "the training loop"])
def test_an_edit_that_no_run_uses_makes_nothing_stale(project: Project, what: str) -> None:
    edit(project, what)
    assert project.stale() == set()
