"""One revision of the project as data: parameters, metrics, curves and tickets, read through DVC.

A revision is a git commit, branch or tag, the name of a DVC experiment, or `workspace`. Everything
comes from DVC's Python API, so nothing is checked out and the working tree does not change.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.spec import ROOT, InputError
from ticketlab.study.claims import Claim, Verdict, claims_in, judge_all
from ticketlab.tickets.ticket import Ticket, load_ticket

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Curve:
    """A table that dvc.yaml declares as a plot: long format, columns `x` and `y`, by seed."""

    x: str
    y: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Tickets:
    """The tickets of one revision by place: 'desk/colt/search/imp/seed-0/round-03'."""

    digests: Mapping[str, str | None] = field(default_factory=dict)
    """DVC's hash of each file, if DVC has one: equal hashes mean equal tickets."""
    read: Callable[[str], Ticket] = dict().__getitem__  # type: ignore[assignment]
    missing: tuple[str, ...] = ()
    """Folders whose tickets are not in the DVC cache: 'desk/colt'."""


@dataclass(frozen=True)
class Snapshot:
    """The data of one revision."""

    name: str
    revision: str
    """The commit, or `workspace`."""
    params: Mapping[str, Any]
    """Leaves by dotted key."""
    metrics: Mapping[str, Mapping[str, Any]]
    """metrics.json by paper: 'desk/colt'."""
    claims: Mapping[str, Mapping[str, Verdict]]
    """Verdicts by paper and claim id, judged from the metrics by the revision's own claims."""
    curves: Mapping[str, Curve]
    """Curves by table: 'desk/colt/scores'."""
    unjudged: tuple[str, ...] = ()
    """Why claims have no verdict: claims of an older form, metrics that lack a number."""
    tickets: Tickets = field(default_factory=Tickets)


@contextmanager
def opened(name: str, root: Path = ROOT) -> Iterator[Snapshot]:
    """Open the snapshot of a revision; its tickets can be read while it is open.

    InputError for a revision that does not exist, or that has no readable pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError

    try:
        repo = Repo(str(root), rev=None if name == WORKSPACE else name)
        found = _read(repo, name)
    except RevError:
        allowed = f"a git revision, an experiment of `dvc exp list`, or {WORKSPACE}"
        raise InputError(f"revision: {name!r} is unknown, allowed: {allowed}") from None
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"revision: {name!r} cannot be read ({reason})") from None
    with closing(repo):
        yield found


def _read(repo: Any, name: str) -> Snapshot:
    values = {**_by_file(repo.params.show()).get("params.yaml", {})}
    values.pop("runs", None)
    metrics = _metrics(repo)
    claims, unjudged = _judged(repo, metrics)
    return Snapshot(
        name=name,
        revision=WORKSPACE if name == WORKSPACE else repo.get_rev(),
        params=flat(values),
        metrics=metrics,
        claims=claims,
        unjudged=unjudged,
        curves=_curves(repo),
        tickets=_tickets(repo),
    )


def _by_file(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Turn DVC's {revision: {data: {file: {data: content}}}} into {file: content}."""
    (files,) = [entry.get("data", {}) for entry in shown.values()] or [{}]
    return {Path(path).as_posix().lstrip("/"): file.get("data", {}) for path, file in files.items()}


def _metrics(repo: Any) -> dict[str, Any]:
    """Return every metrics.json as written, by paper; DVC's own view omits nulls."""
    found = {}
    for out in repo.index.outs:
        path = repo.fs.relpath(out.fs_path, repo.root_dir).replace("\\", "/")
        if out.metric and path.endswith("/metrics.json") and repo.dvcfs.exists(path):
            with repo.dvcfs.open(path) as file:
                found[_place(path)] = json.load(file)
    return found


def _judged(
    repo: Any, metrics: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Verdict]], tuple[str, ...]]:
    """Return the verdicts by paper and claim id, and the reasons why some are missing."""
    found: dict[str, dict[str, Verdict]] = {}
    reasons = []
    for place, numbers in metrics.items():
        try:
            claims = _claims(repo, place.rpartition("/")[2])
            found[place] = {v.claim.id: v for v in judge_all(claims, numbers)}
        except InputError as error:
            reasons.append(f"{place}: {error}")
    return found, tuple(reasons)


def _claims(repo: Any, paper: str) -> list[Claim]:
    """Return the claims of the revision's claims/PAPER.yaml; empty if it has no such file."""
    name = f"claims/{paper}.yaml"
    if not repo.dvcfs.exists(name):
        return []
    with repo.dvcfs.open(name) as file:
        return claims_in(file.read(), paper, name)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; lists are leaves."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree} if prefix else {}
    found: dict[str, Any] = {}
    for key, inner in tree.items():
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _place(path: str) -> str:
    """Map 'results/desk/colt/scores.csv' to 'desk/colt/scores', metrics.json to its folder."""
    inner = Path(path).relative_to("results")
    return (inner.parent if inner.name == "metrics.json" else inner.with_suffix("")).as_posix()


def _curves(repo: Any) -> dict[str, Curve]:
    """Return the curves of dvc.yaml's plots that exist in this revision."""
    found = {}
    for out in repo.index.outs:
        place = repo.fs.relpath(out.fs_path, repo.root_dir).replace("\\", "/")
        axes = out.plot if isinstance(out.plot, dict) else {}
        if {"x", "y"} <= set(axes) and repo.dvcfs.exists(place):
            for path in sorted(repo.dvcfs.find(place)):
                with repo.dvcfs.open(path) as file:
                    found[_place(path.lstrip("/"))] = Curve(axes["x"], axes["y"], pd.read_csv(file))
    return found


# ---------------------------------------------------------------- tickets


def _tickets(repo: Any) -> Tickets:
    digests: dict[str, str | None] = {}
    missing, paths = [], {}
    for out in repo.index.outs:
        folder = repo.fs.relpath(out.fs_path, repo.root_dir).replace("\\", "/")
        if "/runs/" not in folder:
            continue
        place = folder.removeprefix("results/").replace("/runs/", "/", 1)
        files = _files(repo, folder)
        if not files:
            missing.append(place)
        for path, info in files.items():
            ticket = place + path.removeprefix(folder).removesuffix(".safetensors")
            digests[ticket] = info
            paths[ticket] = path
    fs = repo.dvcfs
    return Tickets(digests, lambda ticket: _fetch(fs, paths[ticket]), tuple(missing))


def _files(repo: Any, folder: str) -> dict[str, str | None]:
    """Return ticket files below a folder with DVC's hashes; empty if its listing is not cached."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        listed = sorted(repo.dvcfs.find(folder))
    except (OSError, DvcException, DataIndexDirError):
        return {}
    tickets = [path for path in listed if path.endswith(".safetensors") and "/." not in path]
    return {path.lstrip("/"): _digest(repo.dvcfs.info(path)) for path in tickets}


def _digest(info: Mapping[str, Any]) -> str | None:
    """Return the hash of a committed file; None in the workspace, where DVC's may be outdated."""
    recorded = info.get("dvc_info") or {}
    return None if info.get("fs_info") else recorded.get("md5")


def _fetch(fs: Any, path: str) -> Ticket:
    """Return one ticket, from the cache or the workspace; InputError if it is in neither."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        try:
            fs.get_file(path, file.name)
        except OSError:
            raise InputError(f"{path}: not in the DVC cache, see `dvc pull`") from None
        return load_ticket(Path(file.name))
