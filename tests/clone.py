"""A small clone of the working tree, for tests that run the pipeline as a newcomer would.

It holds what git has or would take, with few images and a `desk` block of seconds instead of
minutes, its own git history and its own DVC cache; nothing is written into the repository.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import nbformat
import numpy as np
import pytest
import quick
from conftest import shared_folder
from ruamel.yaml import YAML

from ticketlab.instruction_set import PINNED
from ticketlab.spec import ROOT

# Same names and real images, but 200 + 100 of each class.
IMAGES = {"x_train": 200, "x_test": 100}
FEW = {"train": 300, "validation": 100, "test": 200}
DESK: dict[str, Any] = {
    "seeds": [0, 1],
    "data": FEW,
    "model": {"width": 4},
    "recipe": {"length": "1ep"},
    "rate": 0.4,
    "imp_rate": 0.4,
    "target": 0.6,
    "max_rounds": 3,
    "levels": [0.5],
    "ablations": [{"split": "class", "partitions": 5, "votes": 0, "seeds": 1}],
    "transfer": {"data": FEW, "levels": [0.5], "seeds": 1},
}

Done = subprocess.CompletedProcess[str]
Tree = dict[str, str]


def own_environment(root: Path, programs: Path) -> dict[str, str]:
    """Variables for commands in the project at `root`: nothing of the user's git or DVC."""
    foreign = ("TICKETLAB_", "GIT_", "MAKE", "MFLAGS")  # a make that runs the tests says more
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) or k == PINNED}
    names = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    tmp = root / ".dvc" / "tmp"
    return kept | names | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(root),
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "DVC_SITE_CACHE_DIR": str(tmp / "site"), "DVC_GLOBAL_CONFIG_DIR": str(tmp / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(tmp / "system"), "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip


@dataclass(frozen=True)
class Clone:
    """A folder with a checkout of the project, and how to work in it."""

    root: Path

    def path(self, name: str) -> Path:
        """A file or folder of the clone."""
        return self.root / name

    @property
    def env(self) -> dict[str, str]:
        """The activated environment of the clone; nothing of the user's git, DVC or Jupyter."""
        return own_environment(self.root, self.root / ".venv" / "bin") | {
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "TICKETLAB_DEVICE": "cpu",  # the same bytes on each machine that has a GPU, too
            "JUPYTER_DATA_DIR": str(self.root / ".dvc" / "tmp" / "jupyter"),
        }

    def run(self, command: str, check: bool = True, cwd: str = ".", **env: str) -> Done:
        """Run a shell command line in the activated environment of the clone."""
        env = {"PATH": f"{quick.folder()}{os.pathsep}{self.env['PATH']}"} | env
        done = subprocess.run(
            command, shell=True, cwd=self.root / cwd, env=self.env | env, check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def commit(self) -> None:
        """Commit everything that git takes."""
        self.run("git add -A && git commit -q --allow-empty -m 'as tested'")

    def changes(self) -> str:
        """What `git status --short` says."""
        return self.run("git status --short").stdout

    def tree(self, name: str = ".", hidden: bool = True) -> Tree:
        """Digests of all files below a folder, compiled modules and git's own aside."""
        found, base = {}, self.root / name
        for path in sorted(base.rglob("*")):
            parts = path.relative_to(base).parts
            foreign = {"__pycache__", ".git", ".dvc", ".venv"} & set(parts)
            seen = hidden or not any(part.startswith(".") for part in parts)
            if path.is_file() and seen and not foreign:
                found["/".join(parts)] = sha256(path.read_bytes()).hexdigest()
        return found

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Rewrite a text file."""
        path = self.root / name
        text = path.read_text()
        changed = change(text)
        assert changed != text, f"{name} was to change"
        path.write_text(changed)

    def set(self, **blocks: Any) -> None:
        """Set parameters: `set(desk={"data": {"train": 100}})` leaves desk's other keys alone."""
        path, yaml = self.root / "params.yaml", YAML()
        content = yaml.load(path)
        for study, values in blocks.items():
            if study == "desk":
                _merge(content[study]["colt"], values)
            else:
                content[study] = values
        with path.open("w") as file:
            yaml.dump(content, file)

    def only(self, paper: str) -> None:
        """Take the other papers out of what runs, for time's sake."""
        path, yaml = self.root / "params.yaml", YAML()
        content = yaml.load(path)
        content["desk"] = {paper: content["desk"][paper]}
        for name, run in list(content["runs"].items()):
            if run["paper"] != paper:
                del content["runs"][name]
        with path.open("w") as file:
            yaml.dump(content, file)

    def brief(self, paper: str) -> None:
        """Take the round by hand and all figures but one out of a notebook, for time's sake."""
        path = self.root / "notebooks" / f"{paper}.ipynb"
        book = nbformat.read(path, as_version=4)
        heads = [i for i, cell in enumerate(book.cells) if cell.source.startswith("## ")]
        first = next(i for i in heads if book.cells[i].source.startswith("## One round by hand"))
        del book.cells[first + 2 : next(i for i in heads if i > first)]
        drawing = [cell for cell in book.cells if "figures.save(" in cell.source]
        for cell in drawing[1:]:
            cell.source = re.sub(r"(?m)^( *)(display\()?figures\.save\(.*$", r"\1pass", cell.source)
        nbformat.write(book, path)

    def copy(self, to: Path) -> "Clone":
        """The same clone elsewhere, with its results, cache and history."""
        shutil.copytree(self.root, to, symlinks=True)
        other = Clone(to)
        other._activate()
        return other

    def _activate(self) -> None:
        """A `.venv` that is the environment of these tests, and that make takes for finished."""
        venv = self.root / ".venv"
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir()
        for name in ("bin", "lib", "lib64", "pyvenv.cfg"):
            if (Path(sys.prefix) / name).exists():
                (venv / name).symlink_to(Path(sys.prefix) / name)
        (venv / ".ready").write_text(f"{self.root}\n")


def _merge(old: Any, new: Mapping[str, Any]) -> None:
    """Set the leaves of `new` in the nested mapping `old`."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            _merge(old[key], value)
        else:
            old[key] = value


def finished(factory: pytest.TempPathFactory) -> Clone:
    """The clone after its first `dvc repro`, committed; made once and never changed: copy it.

    The processes of pytest-xdist share it. What `dvc repro` printed is in .dvc/tmp/first.log.
    """
    with shared_folder(factory, "finished") as shared:
        clone, made = Clone(shared / "clone"), shared / "made"
        if not made.exists():
            shutil.rmtree(clone.root, ignore_errors=True)
            _make(clone.root)
            made.touch()
    return clone


def checked_out(root: Path) -> Clone:
    """The working tree as git has or would take it, without results; with an environment."""
    clone = Clone(root)
    root.mkdir()
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("results/", "dvc.lock")):
            clone.path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone.path(name))
    clone._activate()
    return clone


def _make(root: Path) -> None:
    clone = untrained(root)
    log = clone.run("dvc repro").stdout
    clone.path(".dvc/tmp/first.log").write_text(log)
    clone.commit()


def untrained(root: Path) -> Clone:
    """The clone before its first `dvc repro`, committed."""
    clone = checked_out(root)
    for name in ("fashion_mnist_22k", "mnist_5k"):
        clone.path(f"data/{name}.npz").write_bytes(fewer(ROOT / "data" / f"{name}.npz"))
    clone.set(desk=DESK, workers=1)
    clone.only("colt")
    clone.brief("colt")
    clone.run("git init -q -b main")
    clone.commit()
    return clone


def fewer(path: Path) -> bytes:
    """An npz with the first images of each class of another."""
    with np.load(path) as file:
        whole = dict(file)
    few = {}
    for images, count in IMAGES.items():
        labels = whole[images.replace("x", "y")]
        places = [np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]
        chosen = np.sort(np.concatenate(places))
        few |= {key: whole[key][chosen] for key in (images, images.replace("x", "y"))}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **few)
    return buffer.getvalue()


# ---------------------------------------------------------------- many commands in one process


@dataclass(frozen=True)
class Answer:
    """What a call of the command line printed and returned."""

    code: int
    out: str
    err: str


class Terminal:
    """`ticketlab` in a clone, in one process for many calls: importing torch takes seconds."""

    def __init__(self, clone: Clone, **env: str) -> None:
        self._process = subprocess.Popen(
            [quick.folder() / "terminal"], cwd=clone.root, env=clone.env | env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> Answer:
        """Run `ticketlab ARGUMENTS`."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(arguments), file=self._process.stdin, flush=True)
        return Answer(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(calls: IO[str], answers: IO[str]) -> None:
    """Answer each line of arguments with exit code, stdout and stderr (progress goes its way)."""
    from typer.testing import CliRunner

    from ticketlab.cli import app

    for line in calls:
        done = CliRunner().invoke(app, json.loads(line))
        unexpected = done.exception if not isinstance(done.exception, SystemExit) else None
        answer = [done.exit_code, done.stdout, done.stderr + (repr(unexpected) * bool(unexpected))]
        print(json.dumps(answer), file=answers, flush=True)


def wait_for(found: Callable[[], Any], seconds: float = 120) -> Any:
    """The first true value of `found`, asked every few milliseconds."""
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, f"nothing after {seconds} s"
        time.sleep(0.01)
    return value


def running_in(clone: Clone) -> list[int]:
    """Processes whose working folder is in the clone."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(clone.root):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own at a folder; yields a function that changes its options.

    It is unmounted even while a process that is just ending still has a file of it open. Skips the
    test where file systems cannot be mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")

    def remount(changed: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{changed}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def with_a_mistake(notebook: Path) -> str:
    """Put a cell that fails into a notebook, after its first cells; the text that it had."""
    good = notebook.read_text()
    book = nbformat.reads(good, as_version=4)
    del book.cells[8:]  # the rest takes longer and does not matter here
    book.cells.append(nbformat.v4.new_code_cell("missing_name", id="cell-99"))
    nbformat.write(book, notebook)
    return good
