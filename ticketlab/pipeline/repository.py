"""DVC's and git's view of the pipeline: its stages, which are out of date, committed results."""

import hashlib
import logging
import sqlite3
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketlab.files import parse_yaml
from ticketlab.spec import InputError

if TYPE_CHECKING:
    from dvc.repo import Repo

Entry = Mapping[str, Any]
"""A stage of dvc.lock: cmd, deps and outs with path and md5, params."""

# ---------------------------------------------------------------- the workspace


@contextmanager
def opened(root: Path) -> Iterator["Repo"]:
    """Open the project in `root` with DVC, quietly.

    DVC's errors, and those of its database, become one line.
    """
    from dvc.dirs import site_cache_dir
    from dvc.exceptions import DvcException  # imported here: importing DVC takes a second
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo:
            yield repo
    except DvcException as error:
        raise InputError(f"dvc: {' '.join(str(error).split())}") from error
    except sqlite3.Error as error:
        raise InputError(f"dvc: its database in {site_cache_dir()}: {error}") from error


CODE = "code"
"""The stage with which every run starts, so it does not make a study out of date."""


def out_of_date(repo: "Repo") -> dict[str, list[str]]:
    """Return the stages whose inputs or outputs differ from dvc.lock: {stage: [what differs]}."""
    found: dict[str, list[str]] = {}
    for stage, changes in repo.status().items():
        if stage.rpartition(":")[2] == CODE:  # outside the project's folder a path precedes it
            continue
        named = found.setdefault(stage, [])
        for change in changes:
            named += _changed(change) if isinstance(change, Mapping) else [str(change)]
    return found


def _changed(change: Mapping[str, Any]) -> list[str]:
    """`{'changed deps': {'params.yaml': {'a.b': 'modified'}}}` -> ['a.b']."""
    names: list[str] = []
    for what in change.values():
        for name, state in what.items() if isinstance(what, Mapping) else ():
            names += list(state) if isinstance(state, Mapping) else [name]
    return names


def cache_folder(root: Path) -> Path:
    """Return DVC's cache folder, wherever the project's configuration puts it."""
    with opened(root) as repo:
        return cache_of(repo)


def cache_of(repo: "Repo") -> Path:
    """Return the cache folder of a project that is open."""
    return Path(repo.cache.local.path).parents[1]


def stages_of(repo: "Repo", study: str) -> list[str]:
    """Return the stages of a study in the order of dvc.yaml; empty if it is not in params.yaml."""
    place = Path(repo.root_dir) / "results" / study
    return [
        stage.addressing
        for stage in repo.index.stages
        if any(Path(out.fs_path).is_relative_to(place) for out in stage.outs)
    ]


def readers(repo: "Repo", names: Collection[str]) -> set[str]:
    """Return all stages that depend on the stages `names`, directly or indirectly."""
    graph = repo.index.graph
    return _reached(graph, graph.predecessors, names) - set(names)


def needed(repo: "Repo", names: Collection[str]) -> set[str]:
    """Return the stages `names` (none: the whole pipeline) and all on which they depend, directly
    or indirectly."""
    graph = repo.index.graph
    return _reached(graph, graph.successors, names or {stage.addressing for stage in graph})


def _reached(graph: Any, following: Callable[[Any], Any], names: Collection[str]) -> set[str]:
    """Return the names of stages reachable from `names`, themselves included."""
    waiting = [stage for stage in graph if stage.addressing in names]
    found = {stage.addressing for stage in waiting}
    while waiting:
        for stage in following(waiting.pop()):
            if stage.addressing not in found:
                found.add(stage.addressing)
                waiting.append(stage)
    return found


def tree_hash(repo: "Repo", path: Path) -> str:
    """Return the hash that DVC gives a file or folder in its current state."""
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.build import build

    store = repo.cache.local
    _, _, made = build(store, str(path), LocalFileSystem(), "md5", dry_run=True)
    return str(made.hash_info.value)


# ---------------------------------------------------------------- a revision


class Committed:
    """The content of a git revision: dvc.lock, and files."""

    def __init__(self, root: Path, rev: str = "HEAD") -> None:
        self.root, self.rev = root, rev
        if self._git("rev-parse", "--git-dir") is None:
            raise InputError(f"{root}: no git repository, so no committed results to compare with")
        commit = self._git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
        if commit is None:
            raise InputError(f"rev: {rev!r} is no revision of this repository")
        self.commit = commit.decode().strip()

    def _git(self, *arguments: str) -> bytes | None:
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments], capture_output=True, check=False
        )
        return done.stdout if done.returncode == 0 else None

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if the revision lacks it."""
        return self._git("show", f"{self.rev}:./{path}")

    @cached_property
    def date(self) -> str:
        """The commit's date: '2026-11-27'."""
        return (self._git("show", "-s", "--format=%cs", self.commit) or b"").decode().strip()

    @cached_property
    def modes(self) -> dict[str, int]:
        """The mode of every file, by path."""
        listing = self._git("ls-tree", "-r", "-z", self.rev) or b""
        lines = [line.partition("\t") for line in listing.decode().split("\0") if line]
        return {path: int(head.split()[0], 8) for head, _, path in lines}

    def changes(self) -> list[str]:
        """The tracked files of the workspace that differ from HEAD."""
        listing = self._git("diff", "HEAD", "--name-only", "--relative", "-z") or b""
        return [name for name in listing.decode().split("\0") if name]

    @cached_property
    def lock(self) -> dict[str, Entry]:
        """The stages of dvc.lock."""
        text = self.read("dvc.lock")
        if text is None:
            raise InputError(f"dvc.lock: {self.rev} has none, so no results to compare with")
        return lock_stages(text.decode())

    @cached_property
    def blobs(self) -> dict[str, str]:
        """The hash of every file below results/, by path."""
        listing = self._git("ls-tree", "-r", "-z", self.rev, "--", "results") or b""
        lines = [line.partition("\t") for line in listing.decode().split("\0") if line]
        return {path: head.split()[2] for head, _, path in lines}

    def blobs_in(self, path: str) -> dict[str, str]:
        """Return the hashes of a file, or of all files in a folder, by path."""
        return {p: sha for p, sha in self.blobs.items() if p == path or p.startswith(f"{path}/")}


def lock_stages(text: str) -> dict[str, Entry]:
    """Return the stages of a dvc.lock's text."""
    content = parse_yaml(text, "dvc.lock") or {}
    stages = content.get("stages") if isinstance(content, dict) else None
    return dict(stages) if isinstance(stages, dict) else {}


def blob_hash(content: bytes) -> str:
    """Return git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
