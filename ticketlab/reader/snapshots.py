"""One revision of the project as data: parameters, metrics, curves and tickets, read through DVC.

A revision is a git commit, branch or tag, the name of a DVC experiment, or `workspace`. Everything
comes from DVC's Python API, so nothing is checked out and the working tree does not change.
"""

import json
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from ticketlab.spec import ROOT, InputError
from ticketlab.study.claims import Claim, Verdict, claims_in, judge_all
from ticketlab.study.results import SEEDS
from ticketlab.study.stats import BySeed, by_seed
from ticketlab.tickets.ticket import Ticket, load_ticket

WORKSPACE = "workspace"


@dataclass(frozen=True)
class Curve:
    """A table that dvc.yaml declares as a plot: long format, columns `x` and `y`, by seed."""

    x: str
    y: str
    table: pd.DataFrame

    @property
    def is_sparsity(self) -> bool:
        """Whether x is the share of removed weights."""
        return self.x in ("sparsity", "level")

    @property
    def is_log(self) -> bool:
        """Whether x belongs on a log axis of density."""
        return self.is_sparsity or self.x == "density"


@dataclass(frozen=True)
class Figure:
    """A picture that a paper's page shows."""

    png: bytes
    alt: str
    """What the page says of it; empty if the page does not have it."""


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
    seeds: Mapping[str, Mapping[str, BySeed]] = field(default_factory=dict)
    """Numbers by seed of each metric, by paper."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By paper and name: 'desk/colt/accuracy'."""
    about: str = ""
    """The day and the subject of the commit."""
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
    metrics = _metrics(repo)
    claims, unjudged = _judged(repo, metrics)
    return Snapshot(
        name=name,
        revision=WORKSPACE if name == WORKSPACE else repo.get_rev(),
        about="" if name == WORKSPACE else _about(repo),
        params=_params(repo),
        metrics=metrics,
        claims=claims,
        unjudged=unjudged,
        curves=_curves(repo),
        seeds=_seeds(repo),
        figures=_figures(repo),
        tickets=_tickets(repo),
    )


def _about(repo: Any) -> str:
    """'26 Nov 2026: Another rate' of the commit; experiments have no subject of their own."""
    commit = repo.scm.resolve_commit(repo.get_rev())
    day = datetime.fromtimestamp(commit.commit_time, UTC).strftime("%-d %b %Y")
    return f"{day}: {commit.message.strip().partition(chr(10))[0]}"


def _params(repo: Any) -> dict[str, Any]:
    """Leaves by dotted key, those of studies/NAME.yaml under the study's name."""
    found: dict[str, Any] = {}
    for name, values in _by_file(repo.params.show()).items():
        study = "" if name == "params.yaml" else Path(name).stem
        found |= flat({key: value for key, value in values.items() if key != "runs"}, study)
    return found


def _by_file(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Turn DVC's {revision: {data: {file: {data: content}}}} into {file: content}."""
    (files,) = [entry.get("data", {}) for entry in shown.values()] or [{}]
    return {Path(path).as_posix().lstrip("/"): file.get("data", {}) for path, file in files.items()}


def _metrics(repo: Any) -> dict[str, Any]:
    """Return every metrics.json as written, by paper; DVC's own view omits nulls."""
    found = {}
    for path in _paths(repo, "/metrics.json"):
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
            judged = judge_all(claims, numbers, place.partition("/")[0])
            found[place] = {verdict.claim.id: verdict for verdict in judged}
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
    """Return the leaves of nested mappings by dotted key; lists of anything else are leaves.

    Entries of a list of mappings are called by their names or numbers, so that a change deep
    in a list is one short leaf.
    """
    if isinstance(tree, list) and tree and all(isinstance(item, Mapping) for item in tree):
        names = [str(item.get("name", number)) for number, item in enumerate(tree)]
        unique = len(set(names)) == len(names)
        tree = dict(zip(names if unique else map(str, range(len(tree))), tree, strict=True))
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
                    found[_place(path.lstrip("/"))] = _curve(path, axes, pd.read_csv(file))
    return found


def _curve(path: str, axes: Mapping[str, str], table: pd.DataFrame) -> Curve:
    """The curve with the names that its file has: last_accuracy_over_sparsity.csv."""
    y, over, x = Path(path).stem.partition("_over_")
    if not over:
        return Curve(axes["x"], axes["y"], table)
    return Curve(x, y, table.rename(columns={axes["x"]: x, axes["y"]: y}))


def _paths(repo: Any, ending: str) -> Iterator[str]:
    """The files of all outputs in results/STUDY/PAPER whose path ends so; records are not read."""
    for out in repo.index.outs:
        place = repo.fs.relpath(out.fs_path, repo.root_dir).replace("\\", "/")
        parts = place.split("/")
        if len(parts) == 4 and parts[2] != "runs" and repo.dvcfs.exists(place):
            names = sorted(repo.dvcfs.find(place))
            yield from (name.lstrip("/") for name in names if name.endswith(ending))


def _seeds(repo: Any) -> dict[str, dict[str, BySeed]]:
    """The numbers by seed of each paper's metrics."""
    found = {}
    for path in _paths(repo, f"/{SEEDS}"):
        with repo.dvcfs.open(path) as file:
            groups = pd.read_csv(file).groupby("metric", sort=False)
        place = _place(path).rpartition("/")[0]
        found[place] = {str(metric): by_seed(rows, "value") for metric, rows in groups}
    return found


def _figures(repo: Any) -> dict[str, Figure]:
    """The pictures of all papers, with the words that their pages have for them."""
    words: dict[str, str] = {}
    for path in _paths(repo, ".ipynb"):
        with repo.dvcfs.open(path) as file:
            words |= _alts(json.load(file))
    found = {}
    for path in _paths(repo, ".png"):
        with repo.dvcfs.open(path, "rb") as file:
            png = file.read()
        name = _place(path).replace("/figures/", "/")
        found[name] = Figure(png, words.get(sha256(png).hexdigest(), ""))
    return found


def _alts(page: Mapping[str, Any]) -> dict[str, str]:
    """The alt text of each picture in an executed notebook, by the hash of the picture."""
    outputs = [output for cell in page["cells"] for output in cell.get("outputs", ())]
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    return {
        sha256(b64decode("".join(one["data"]["image/png"]))).hexdigest(): alt
        for one in pictures
        if (alt := one.get("metadata", {}).get("image/png", {}).get("alt"))
    }


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
