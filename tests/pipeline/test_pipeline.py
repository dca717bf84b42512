"""The pipeline as its users meet it: what re-runs, what stays the same, what survives a failure."""

import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import planted
import pytest
import quick
import yaml
from clone import Clone, Terminal, finished, running_in, wait_for, with_a_mistake
from conftest import use_data
from ruamel.yaml import YAML

from ticketlab.data import sets
from ticketlab.pipeline import params, repository
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PAGES = "results/desk/colt"
RUNS = "results/desk/runs/colt"


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone after its first `dvc repro`; not to be changed."""
    return finished(tmp_path_factory)


@pytest.fixture
def clone(reference: Clone, tmp_path: Path) -> Clone:
    """A copy of `reference`, for a test to change."""
    return reference.copy(tmp_path / "clone")


# --- dvc.yaml


def test_a_run_depends_on_all_its_parameters_and_declares_its_folder(
    reference: Clone,
) -> None:
    for name in ("train", "read"):
        assert PIPELINE[name]["do"]["params"] == [{"${item.file}": ["${item.key}"]}]
    stage, declared = PIPELINE["read"]["do"], set()
    for entry in [*stage["outs"], *stage["metrics"], *stage["plots"]]:
        (name,) = entry
        declared.add(name.rpartition("/")[2].replace("${item.paper}", "colt"))
    made = reference.path(PAGES).iterdir()
    assert {path.name for path in made if not path.name.startswith(".")} == declared


# --- the same again


def test_the_first_run_made_pages_tickets_and_a_lock_file(reference: Clone) -> None:
    assert {"colt.ipynb", "metrics.json", "summary.json", "tables/scores.csv"} <= set(
        reference.tree(PAGES)
    )
    assert any(name.endswith(".safetensors") for name in reference.tree(RUNS))
    tracked = reference.run("git ls-files results dvc.lock").stdout.split()
    assert {"dvc.lock", "results/desk/data/colt.json", f"{PAGES}/colt.ipynb"} <= set(tracked)
    assert not [name for name in tracked if "/runs/" in name or "/." in name]
    assert reference.changes() == ""


def test_a_second_run_changes_nothing(reference: Clone) -> None:
    before = reference.tree()
    printed = reference.run("dvc repro").stdout
    assert ran(printed) == ["code"] and printed.count("didn't change, skipping") == 3
    assert reference.tree() == before and reference.changes() == ""


def ran(printed: str) -> list[str]:
    """The stages that `dvc repro` says it ran."""
    return re.findall(r"Running stage '([\w@-]+)'", printed)


DOCSTRING = ('"""', '"""Changed. ')
TRAIN, READ = "train@desk-colt", "read@desk-colt"
CHANGES = {
    "params.yaml: rate": ("params.yaml", "rate: 0.4", "rate: 0.35", {TRAIN, READ}),
    "params.yaml: workers": ("params.yaml", "workers: 1", "workers: 2", set()),
    "a claim": ("claims/colt.yaml", "at_least: -1.0", "at_least: -2.0", {READ}),
    "the notebook": ("notebooks/colt.ipynb", "# COLT", "# Cyclic", {READ}),
    "a docstring of the loop": ("ticketlab/training/loop.py", *DOCSTRING, set()),
    "a docstring of a figure": ("ticketlab/papers/colt/figures.py", *DOCSTRING, set()),
    "what a round costs": (
        "ticketlab/study/cost.py",
        "STEP * images * dense, STEP",
        "images * dense, STEP",
        {TRAIN, READ},
    ),
    "a figure": (
        "ticketlab/papers/colt/figures.py",
        "removed per round",
        "removed each round",
        {READ},
    ),
    "progress": ("ticketlab/progress.py", *DOCSTRING, set()),
}


@pytest.mark.slow
def test_a_change_makes_stale_what_depends_on_it_and_no_more(clone: Clone) -> None:
    for what, (name, old, new, stale) in CHANGES.items():
        clone.edit(name, lambda text, old=old, new=new: text.replace(old, new, 1))
        clone.run("ticketlab check")
        status = set(json.loads(clone.run("dvc status --json").stdout)) - {"code"}
        assert status == stale, what
        clone.run("git checkout -q .")


@pytest.mark.slow
def test_another_study_runs_beside_the_ones_of_params_yaml(clone: Clone) -> None:
    yaml = YAML()
    content = yaml.load(clone.path("params.yaml"))
    content["mini"] = copy.deepcopy(content["desk"])
    content["mini"]["colt"] |= {"seeds": [3], "ablations": []}
    yaml.dump(content, clone.path("params.yaml"))
    clone.commit()
    before = clone.tree("results/desk")
    done = clone.run("make study STUDY=mini IN_VENV=")  # with the programs that start sooner
    assert "mini-colt:" in done.stdout  # the lines that were added to runs
    assert clone.tree("results/desk") == before
    assert set(clone.tree("results/mini/colt")) == set(clone.tree(PAGES))
    added = ["results/code/mini-colt.data", "results/code/mini-colt.read"]
    added += ["results/code/mini-colt.train", "results/mini/"]
    changed = {line.split()[1] for line in clone.changes().splitlines()}
    assert changed == {"dvc.lock", "params.yaml", *added}
    clone.run("ticketlab study remove mini")
    failed = clone.run("make study STUDY=midi IN_VENV=", check=False)
    assert failed.returncode != 0 and "study: 'midi' is unknown, allowed: desk" in failed.stderr


# --- all of params.yaml is checked by every run


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("params.yaml", "rate: 0.4", "rate: 0.35"),
        ("ticketlab/training/passes.py", "loss.backward()", "(2 * loss).backward()"),
    ],
)
def test_run_leaves_units_of_other_code_or_parameters_alone(
    clone: Clone, name: str, old: str, new: str
) -> None:
    """Trained into the folder, they would be taken for what `dvc.lock` says of it."""
    before = clone.tree("results/desk/runs")
    clone.edit(name, lambda text: text.replace(old, new, 1))
    done = clone.run("ticketlab run desk colt", check=False)
    assert done.returncode != 0 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: results/desk/runs/colt: ")
    assert "`ticketlab train desk colt` renews them" in done.stderr
    assert clone.tree("results/desk/runs") == before


def misspell(clone: Clone) -> None:
    """A key of a study that no stage runs."""
    yaml = YAML()
    content = yaml.load(clone.path("studies/paper.yaml"))
    content["colt"]["recipe"]["wieght_decay"] = 0.5
    yaml.dump(content, clone.path("studies/paper.yaml"))


def test_a_misspelt_key_anywhere_ends_every_run_in_one_line(clone: Clone) -> None:
    before, printed = clone.tree("results"), "error: studies/paper.yaml: colt.recipe.wieght_decay: "
    misspell(clone)
    commands = ("dvc repro", "dvc repro read@desk-colt",
                "ticketlab plan", "ticketlab train desk colt",
                "ticketlab run desk colt")  # fmt: skip
    for command in commands:
        done = clone.run(command, check=False)
        ours = [line for line in done.stderr.splitlines() if not line.startswith("ERROR: ")]
        assert done.returncode != 0 and len(ours) == 1, (command, done.stderr)
        assert ours[0].startswith(f"{printed}unknown key, allowed: optimizer, lr, "), ours
        assert set(ran(done.stdout)) <= {"code"}
    assert clone.tree("results") == before and clone.changes().split() == [
        "M",
        "studies/paper.yaml",
    ]
    clone.run("git checkout -q studies")
    assert ran(clone.run("dvc repro read@desk-colt").stdout) == ["code"]  # nothing has become stale
    assert clone.changes() == ""


def test_an_experiment_cannot_add_a_key_that_nothing_reads(clone: Clone) -> None:
    done = clone.run("dvc exp run -S '+desk.colt.recipe.dropout=0.1'", check=False)
    assert done.returncode != 0 and ran(done.stdout) == ["code"]
    assert "error: params.yaml: desk.colt.recipe.dropout: unknown key, allowed: " in done.stderr
    assert clone.run("dvc exp list").stdout == ""


def test_the_check_calls_no_study_out_of_date(reference: Clone) -> None:
    """DVC says of it that it always runs; for us that is no state of a study."""
    assert json.loads(reference.run("dvc status --json").stdout) == {"code": ["always changed"]}
    with repository.opened(reference.root) as repo:
        assert repository.out_of_date(repo) == {}


# --- without git


@pytest.mark.slow
def test_a_download_without_git_runs_and_says_what_it_cannot(clone: Clone) -> None:
    """As from a zip; once the folder is a git repository, DVC knows it again."""
    shutil.rmtree(clone.path(".git"))
    assert clone.run("dvc repro", check=False).returncode != 0  # DVC refuses
    first, second = (clone.run("make repro IN_VENV=").stdout for _ in range(2))
    assert first.startswith("note: no git here (a zip?)") and "no git" not in second
    for printed in (first, second):
        assert ran(printed) == ["code"] and "COLT" in printed
    assert "nothing to train" in clone.run("ticketlab plan").stdout
    for command in ("ticketlab verify", "ticketlab compare HEAD workspace"):
        done = clone.run(command, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "git repository" in done.stderr
    clone.run("git init -q -b main")
    clone.commit()
    assert "no git" not in clone.run("make repro IN_VENV=").stdout
    assert clone.run("ticketlab verify").returncode == 0
    assert "no_scm" not in clone.path(".dvc/config.local").read_text()


# --- failures


@pytest.mark.slow
def test_after_a_bad_notebook_and_a_kill_a_forced_run_writes_the_same_bytes(clone: Clone) -> None:
    """With other workers than the first run, on what the killed one has left."""
    clone.set(workers=2)
    clone.commit()
    before = {folder: clone.tree(folder) for folder in (PAGES, RUNS)}
    fail_in_a_cell(clone)
    assert clone.tree(PAGES) == before[PAGES]
    partial = clone.path("results/desk/runs/.colt.partial")
    first = kill_in_training(clone, partial)
    made = first.stat().st_mtime_ns
    assert {folder: clone.tree(folder) for folder in (PAGES, RUNS)} == before
    printed = clone.run("dvc repro --force").stdout
    assert ran(printed) == ["code", "data@desk-colt", "train@desk-colt", "read@desk-colt"]
    assert clone.changes() == ""
    assert {folder: clone.tree(folder) for folder in (PAGES, RUNS)} == before
    kept = clone.path(RUNS) / first.relative_to(partial)
    assert kept.stat().st_mtime_ns == made  # not trained twice
    remains = [name for name in clone.tree("results") if "/." in f"/{name}" or "failed" in name]
    assert remains == []


def fail_in_a_cell(clone: Clone) -> None:
    """A notebook with a mistake: its traceback on the terminal, and what ran under a clear name."""
    path, failed = clone.path("notebooks/colt.ipynb"), clone.path("results/desk/colt.failed.ipynb")
    good = with_a_mistake(path)
    done = clone.run("dvc repro read@desk-colt", check=False)
    assert done.returncode != 0
    assert "NameError: name 'missing_name' is not defined" in done.stderr
    assert "results/desk/colt.failed.ipynb" in done.stderr
    part = nbformat.read(failed, as_version=4)
    assert part.cells[-1].outputs[0].ename == "NameError"
    assert sum(bool(cell.get("outputs")) for cell in part.cells) > 1  # what went before is in it
    assert "failed" not in clone.changes()  # never taken for a result by git
    path.write_text(good)


def kill_in_training(clone: Clone, partial: Path) -> Path:
    """Kill a forced run and all its processes once a first unit is stored: its record."""
    process = subprocess.Popen(
        "exec dvc repro --force train@desk-colt", shell=True, cwd=clone.root, env=clone.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        first: Path = wait_for(lambda: next(iter(sorted(partial.rglob("*.json"))), None))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not running_in(clone))  # workers of their own group end by themselves
    return first


@pytest.mark.slow
def test_an_interrupt_ends_the_run_and_its_workers(clone: Clone) -> None:
    clone.set(desk={"recipe": {"length": "300ep"}}, workers=2)  # long enough
    before = clone.tree("results")
    events = clone.path("results/desk/runs/.colt.events")
    process = subprocess.Popen(
        ["ticketlab", "train", "desk", "colt"], cwd=clone.root, env=clone.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    try:
        wait_for(lambda: events.exists() and "epoch" in events.read_text())
        printed = interrupted(process)
    finally:
        process.kill()
    assert process.returncode not in (0, None), printed
    assert "stopped after" in printed and "Traceback" not in printed
    wait_for(lambda: not running_in(clone), seconds=30)
    after = clone.tree("results", hidden=False)
    assert after == before


@pytest.mark.slow
def test_only_one_process_trains_a_paper_of_a_study(clone: Clone) -> None:
    """Others learn which; another paper is free, and so is this one after a kill."""
    clone.set(desk={"recipe": {"length": "300ep"}}, workers=2)  # long enough
    take = 'python -c \'from ticketlab.cli.stage import alone\nwith alone("desk", "{}"): print(1)\''
    events = clone.path("results/desk/runs/.colt.events")
    process = subprocess.Popen(
        ["ticketlab", "train", "desk", "colt"], cwd=clone.root, env=clone.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: events.exists() and "epoch" in events.read_text())
        before = events.read_text()
        for command in ("train", "run"):
            done = clone.run(f"ticketlab {command} desk colt", check=False)
            by = f"process {process.pid} on {socket.gethostname()}"
            assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
            assert f"error: desk/colt is being trained by {by}: " in done.stderr
        assert clone.run(take.format("prac")).stdout == "1\n"
        assert "InputError" in clone.run(take.format("colt"), check=False).stderr
        assert events.read_text().startswith(before)  # nobody has begun it anew
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not running_in(clone))
    assert clone.run(take.format("colt")).stdout == "1\n"


def hear_interrupts() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C; so may these tests have been."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(process: subprocess.Popen[str]) -> str:
    """What a process says that gets Ctrl-C, again if it is still there after a while.

    One that arrives within a callback of Python's own (a weak reference's) is printed and ignored.
    """
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        try:
            return process.communicate(timeout=20)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("the run goes on after three interrupts")


# --- bad input


@pytest.fixture(scope="module")
def broken(reference: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A copy to break, and `ticketlab` in it."""
    clone = reference.copy(tmp_path_factory.mktemp("broken") / "clone")
    terminal = Terminal(clone)
    yield clone, terminal
    terminal.close()


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"speed": 3}, ["desk.colt.speed", "unknown key", "seeds"]),
    "unknown key inside": ({"data": {"size": 3}}, ["desk.colt.data.size", "pool"]),
    "wrong type": ({"seeds": "many"}, ["desk.colt.seeds", "'many'"]),
    "a word for a number": ({"rate": "fast"}, ["desk.colt.rate", "'fast'"]),
    "true for a number": ({"max_rounds": True}, ["desk.colt.max_rounds", "True"]),
    "sparsity 1": ({"target": 1.0}, ["desk.colt.target", "1.0", "less than 1"]),
    "more segments than classes": ({"partitions": 11}, ["partitions", "11", "10"]),
    "unknown data set": ({"data": {"name": "cifar11"}}, ["cifar11", "cifar10"]),
    "unknown model": ({"model": {"name": "lenet"}}, ["lenet", "conv3"]),
    "a bare number for a step": ({"recipe": {"length": 3}}, ["recipe.length", "3", "3ep"]),
    "more images than there are": ({"data": {"train": 99999}}, ["99999", "train"]),
    "a rewind point after the end": ({"rewind": "9ep"}, ["rewind", "9ep"]),
    "the same seed twice": ({"seeds": [1, 1]}, ["seeds", "[1, 1]"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_harms_nothing(broken: Any, case: str) -> None:
    clone, ticketlab = broken
    changes, named = BAD[case]
    before = clone.tree("results")
    clone.set(desk=changes)
    try:
        for command in ("train", "run"):
            done = ticketlab(command, "desk", "colt")
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
            assert all(word in done.err for word in named), done.err
        assert clone.tree("results") == before
    finally:
        clone.run("git checkout -q params.yaml")


def test_a_training_that_diverges_is_one_line_with_unit_seed_and_rate(broken: Any) -> None:
    clone, ticketlab = broken
    before = clone.tree("results", hidden=False)
    clone.set(desk={"recipe": {"optimizer": "sgd", "lr": 1e38}, "seeds": [4]})
    try:
        done = ticketlab("train", "desk", "colt")
        lines = done.err.splitlines()  # progress first, which is not an error
        printed = [line for line in lines if line.startswith("error: ")]
        assert done.code == 2 and lines[-1:] == printed, done.err
        assert "Traceback" not in done.err
        for word in ("unit search/imp/seed-4", "seed 4", "lr: 1e+38", "diverge"):
            assert word in printed[0], done.err
        assert clone.tree("results", hidden=False) == before
    finally:
        clone.run("git checkout -q params.yaml && rm -rf results/desk/runs/.colt.*")


ODD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda text: b"", "holds NoneType"),
    "a list": (lambda text: b"- 1\n", "holds list"),
    "no UTF-8": (lambda text: text + b"# \xff\n", "not valid YAML"),
    "a tab": (lambda text: text.replace(b"  colt:", b"\tcolt:", 1), "not valid YAML"),
    "a block twice": (lambda text: text + b"desk: {}\n", 'duplicate key "desk"'),
    "an alias to nothing": (lambda text: text + b"mine: *theirs\n", "undefined alias 'theirs'"),
    "a block in itself": (lambda text: text + b"mine: &m {colt: *m}\n", "mine.colt"),
    "an empty block": (lambda text: text + b"mine: {}\n", "mine: {} is not valid"),
    "a number for a block": (lambda text: text + b"mine: 3\n", "mine: 3 is not valid"),
    "a year for a name": (lambda text: text + b"2024: {}\n", "2024 cannot name a study"),
    "a dot in a name": (lambda text: text + b"my.study: {}\n", "'my.study' cannot name a study"),
    "an unknown study": (lambda text: text.replace(b"study: desk", b"study: dsk"), "'dsk' is"),
    "a huge number": (lambda text: text.replace(b"rate: 0.4", b"rate: " + b"9" * 400, 1), "bits"),
    "a huger number": (lambda text: text.replace(b"rate: 0.4", b"rate: " + b"9" * 5000), "limit"),
    "a date": (lambda text: text.replace(b"rate: 0.4", b"rate: 2024-01-01", 1), "desk.colt.rate"),
    "infinity": (lambda text: text.replace(b"rate: 0.4", b"rate: .inf", 1), "a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_an_odd_file_of_parameters_is_one_line(broken: Any, case: str) -> None:
    clone, ticketlab = broken
    path, (change, printed) = clone.path("params.yaml"), ODD[case]
    good = path.read_bytes()
    path.write_bytes(change(good))
    try:
        assert path.read_bytes() != good
        for command in ("check", "plan", "prepare desk", "train desk colt"):
            done = ticketlab(*command.split())
            assert (done.code, done.out) == (2, ""), done
            assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
            assert command == "plan" or printed in done.err  # DVC has read it first
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "desk", "colts"), ["paper", "'colts'", "colt"]),
        (("run", "dsk", "colt"), ["study", "'dsk'", "desk"]),
        (("claims", "dsk"), ["study", "dsk"]),
        (("prepare", "dsk"), ["study", "'dsk'", "desk"]),
    ],
)
def test_an_unknown_name_on_the_command_line_is_one_line(
    broken: Any, arguments: tuple[str, ...], named: list[str]
) -> None:
    done = broken[1](*arguments)
    assert done.code == 2 and done.err.count("\n") == 1
    assert all(word in done.err for word in named), done.err


def test_damaged_files_are_named_in_one_line(broken: Any) -> None:
    clone, ticketlab = broken
    before = clone.tree("results")
    ticket = next(iter(sorted(clone.path(RUNS).rglob("*.safetensors"))))
    record = next(iter(sorted(clone.path(RUNS).rglob("*.json"))))
    images = clone.path("data/fashion_mnist_22k.npz")
    prepared = clone.path("data/prepared/fashion_mnist_22k.safetensors")
    for path, command in [(ticket, "run"), (record, "run"), (images, "prepare"), (prepared, "run")]:
        whole = path.read_bytes()
        path.unlink()  # DVC may have linked it to its cache
        path.write_bytes(whole[: len(whole) // 2])
        done = ticketlab(command, "desk", *(["colt"] if command == "run" else []))
        assert done.code == 2 and done.err.count("\n") == 1, (path, done)
        assert path.name in done.err, done.err
        advice = "`ticketlab train desk colt` makes this unit anew"
        assert (advice in done.err) == (path in (ticket, record)), done.err
        path.write_bytes(whole)
    assert clone.tree("results") == before and clone.changes() == ""


def test_training_replaces_damaged_units(broken: Any) -> None:
    """By their copies in DVC's cache: also a record whose damage leaves it valid."""
    clone, ticketlab = broken
    before = clone.tree(RUNS)
    ticket = next(iter(sorted(clone.path(RUNS).rglob("*.safetensors"))))
    record = next(iter(sorted(clone.path(RUNS).rglob("score/**/*.json"))))
    for path, damage in (
        (ticket, lambda content: content[:-1] + bytes([content[-1] ^ 128])),
        (record, lambda content: content.replace(b'"seed": 0', b'"seed": 7')),
        (record, lambda content: content[:100]),
    ):
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(damage(whole))
        assert path.read_bytes() != whole
        done = ticketlab("train", "desk", "colt")
        assert done.code == 0 and "Traceback" not in done.err, done
        assert clone.tree(RUNS) == before


def test_results_that_cannot_be_written_are_one_line(broken: Any, tmp_path: Path) -> None:
    clone, ticketlab = broken
    kept = clone.path("results").rename(tmp_path / "results")
    clone.path("results").write_text("in the way")  # read-only folders do not stop root
    try:
        for command in (("prepare", "desk"), ("train", "desk", "colt")):
            done = ticketlab(*command)
            assert done.code == 2 and done.err.count("\n") == 1, done
            assert "results" in done.err
    finally:
        clone.path("results").unlink()
        kept.rename(clone.path("results"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_results_folder_is_one_line(clone: Clone) -> None:
    folder = clone.path("results/desk")
    folder.chmod(0o500)
    try:
        done = clone.run("ticketlab run desk colt", check=False)
    finally:
        folder.chmod(0o700)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1
    assert clone.changes() == ""


# --- every study, every notebook


@pytest.fixture(scope="module")
def few_of_everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with a few random images under the name of each data set that needs a network."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    shapes = {"cifar10": (10, 32, 3), "cifar100": (100, 32, 3), "tiny_imagenet": (200, 32, 3),
              "mnist": (10, 28, 1), "fashion_mnist": (10, 28, 1)}  # fmt: skip
    for name, (classes, side, channels) in shapes.items():
        count = {"train": 2000, "test": 1000}
        if side == 32:  # cifar10_small takes 20,000 of its data set, and 1,000 to validate on
            count = {"train": 21000 if name == "cifar10" else 12000, "test": 5000}
        arrays = {}
        for part, n in count.items():
            image = random.integers(0, 255, (1, side, side, channels), dtype=np.uint8)
            arrays[f"x_{part}"] = np.broadcast_to(image, (n, side, side, channels))
            arrays[f"y_{part}"] = np.arange(n) % classes
        np.savez(root / f"{name}.npz", **arrays)
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, root)
        yield root


@pytest.mark.parametrize("study", sorted(path.stem for path in (ROOT / "studies").glob("*.yaml")))
def test_a_study_is_ready_to_start(few_of_everything: Path, study: str) -> None:
    """Its parameters fit each other, the data and the models, and its work can be planned."""
    for paper, values in params.load_study(study).items():
        for name in params.data_names(values):
            sets.prepare(name)
        assert next(PAPERS[paper].phases(values))
        assert PAPERS[paper].expected_passes(values) > 0


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_a_notebook_runs_from_its_folder_with_its_defaults(
    paper: str, reference: Clone, tmp_path: Path
) -> None:
    """All of it; and each statement of exactness is false once, under a fault, and then true."""
    clone = reference.copy(tmp_path / "clone")
    nbformat.write(planted.planted(paper), clone.path(f"notebooks/{paper}.ipynb"))
    clone.commit()
    printed = f"{paper}.ipynb --output={tmp_path / paper}.ipynb"
    clone.run(f"jupyter-execute {printed}", cwd="notebooks", JUPYTER_PATH=str(quick.folder()))
    done = nbformat.read(tmp_path / f"{paper}.ipynb", as_version=4)
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    caught = {cell.metadata.statement: planted.refusal(cell) for cell in cells
              if "statement" in cell.metadata}  # fmt: skip
    assert caught == {said: f"does not hold: {said}" for said in planted.STATEMENTS[paper]}
    errors = [out for cell in cells for out in cell.outputs if out.output_type == "stream"]
    assert [out.text for out in errors if out.name == "stderr"] == []
    plain = [cell for cell in cells if "statement" not in cell.metadata]
    assert [found for cell in plain for found in planted.bare_truths(cell)] == []
    assert clone.changes() == ""  # results of a smoke run are nobody's
