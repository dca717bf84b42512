"""`ticketlab release`: gather what a release has, check it, and pack it; equal bytes each time."""

import stat
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ticketlab import __version__
from ticketlab.pipeline.repository import Committed
from ticketlab.reader import sources
from ticketlab.release import check, contents, crate
from ticketlab.release.contents import Digest, Loose, Release
from ticketlab.spec import InputError

CITATION = "CITATION.cff"
REQUIRED = (CITATION, "LICENSE", "README.md", "constraints.txt", "dvc.lock", "params.yaml")
"""Files of git without which nothing is released."""
EXECUTABLE = 0o755
MODE = 0o644


def write(
    root: Path, studies: Sequence[str], path: Path, site: Path, with_tickets: bool = True
) -> Release:
    """Write a release of the studies (none: all with results) in the project at `root`.

    `site` is the folder of a built site. The file appears when it is whole. InputError, in one
    line, for a working tree with changes, for files that are not those of dvc.lock, for findings
    that are not those of the metrics, and for tickets that are not here.
    """
    if path.suffix != ".zip":
        raise InputError(f"release: {path.name!r}, allowed is a name that ends in .zip")
    committed = check_clean(root)
    release = Release(
        ticketlab=__version__, commit=committed.commit, date=committed.date,
        studies=_chosen(committed, studies), tickets=with_tickets,
    )  # fmt: skip
    files = _of_git(committed, release.studies) | _of_site(site)
    entries: dict[str, sources.Entry] = {}
    for place in _papers(files, release.studies) if with_tickets else ():
        units, tickets = _of_store(root, place)
        files |= units
        entries |= tickets
    files = _computed(files, release, entries)
    loose = Loose(files)
    digests = {name: contents.digest(loose.read(name)) for name in sorted(files)}
    if found := [*check.locked(loose, digests), *check.judged(loose)]:
        renew = "`dvc repro`, `ticketlab claims --write`, then commit"
        raise InputError(f"release: {found[0]}; {renew}")
    pack(_finished(files, release, digests), path, committed.modes)
    return release


def check_clean(root: Path) -> Committed:
    """The revision of the workspace; InputError for tracked files that differ from it."""
    committed = Committed(root)
    if changed := committed.changes():
        raise InputError(f"release: {changed[0]} is not committed, commit or restore it first")
    return committed


def _chosen(committed: Committed, studies: Sequence[str]) -> list[str]:
    """The studies of the release; InputError for one without results."""
    parts = [name.split("/") for name in committed.modes if name.startswith("results/")]
    have = sorted({part[1] for part in parts if len(part) == 4 and part[3] == "metrics.json"})
    unknown = [study for study in studies if study not in have]
    if unknown or not have:
        raise InputError(
            f"study: {unknown[0] if unknown else 'none'!r} has no committed results, "
            f"these have: {', '.join(have) or 'none'}"
        )
    return [study for study in have if study in studies] if studies else have


# ---------------------------------------------------------------- what a release has


def _of_git(committed: Committed, studies: Sequence[str]) -> dict[str, Path | bytes]:
    """The committed files without the results of other studies."""
    others = tuple(
        f"results/{name.split('/')[1]}/"
        for name in committed.modes
        if name.startswith("results/") and name.split("/")[1] not in (*studies, "code")
    )
    files = [name for name in committed.modes if not name.startswith(others)]
    if missing := [name for name in REQUIRED if name not in files]:
        raise InputError(f"release: {missing[0]} is missing, a release needs it in git")
    return {name: committed.root / name for name in files}


def _of_site(site: Path) -> dict[str, Path | bytes]:
    """The built site, below site/."""
    if not (site / "index.html").exists():
        raise InputError(f"site: no index.html in {site}, `make report` builds the site")
    pages = (path for path in site.rglob("*") if path.is_file())
    return {f"site/{path.relative_to(site).as_posix()}": path for path in pages}


def _papers(files: Mapping[str, Path | bytes], studies: Sequence[str]) -> list[str]:
    """'desk/colt' for every paper of the studies that has metrics."""
    parts = [name.split("/") for name in files if name.endswith("/metrics.json")]
    return sorted(f"{part[1]}/{part[2]}" for part in parts if len(part) == 4 and part[1] in studies)


def _of_store(root: Path, paper: str) -> tuple[dict[str, Path], dict[str, sources.Entry]]:
    """The stored units of a paper ('desk/colt') by name, and its tickets by place, verified."""
    project = sources.Project(root)
    places = project.places(paper)
    study, name = paper.split("/")
    units = {
        f"results/{study}/runs/{name}/{one}": path for one, path in project.files(paper).items()
    }
    return units, {place: sources.verified(project, place)[1] for place in places}


def _computed(
    files: Mapping[str, Path | bytes], release: Release, entries: Mapping[str, sources.Entry]
) -> dict[str, Path | bytes]:
    """The files with the release's facts, its verdicts and the manifest of its tickets."""
    loose = Loose(files)
    lines = [
        row
        for study in release.studies
        for row in contents.rows(study, contents.judged(loose, study))
    ]
    return {
        **files,
        contents.FACTS: (release.model_dump_json(indent=1) + "\n").encode(),
        contents.VERDICTS: contents.table(lines),
        sources.MANIFEST: sources.manifest_of(entries, "project"),
    }


def _finished(
    files: Mapping[str, Path | bytes], release: Release, digests: Mapping[str, Digest]
) -> dict[str, Path | bytes]:
    """The files with the RO-Crate metadata and the checksums."""
    sizes = {name: found.size for name, found in digests.items()}
    sums = {name: found.sha256 for name, found in digests.items()}
    # The checksums name the metadata, so its size of them is known before: one line per file.
    described = {**sizes, contents.SUMS: _length([*sums, crate.NAME])}
    made = crate.metadata(release, described, Loose(files).read(CITATION))
    sums[crate.NAME] = contents.digest(made).sha256
    lines = [f"{sums[name]}  {name}\n" for name in sorted(sums)]
    return {**files, crate.NAME: made, contents.SUMS: "".join(lines).encode()}


def _length(names: Sequence[str]) -> int:
    """The size of a file of checksums."""
    return sum(64 + 2 + len(name.encode()) + 1 for name in names)


# ---------------------------------------------------------------- the archive


def pack(files: Mapping[str, Path | bytes], path: Path, modes: Mapping[str, int]) -> None:
    """Write a .zip of the files in the order of their names, without times; `modes` are git's."""
    partial, loose = path.with_name(f".{path.name}.partial"), Loose(files)
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                mode = EXECUTABLE if modes.get(name) == 0o100755 else MODE
                entry.external_attr = (stat.S_IFREG | mode) << 16
                archive.writestr(entry, loose.read(name))
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
