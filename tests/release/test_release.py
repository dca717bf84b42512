"""A release has what it says, in equal bytes; every fault that is planted in one is a line."""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
import small_project
from conftest import Message
from releasable import complete
from rocrate.rocrate import ROCrate
from small_project import Project
from typer.testing import CliRunner

from ticketlab.cli import app
from ticketlab.reader.loading import load
from ticketlab.release import archive, check, contents, crate
from ticketlab.spec import ROOT

ADDRESS = "desk/colt/colt/seed-0@round-01"
TICKET = "results/desk/runs/colt/search/colt/seed-0/round-01.safetensors"
SEEDS = "results/desk/colt/seeds.csv"
METRICS = "results/desk/colt/metrics.json"
FINDINGS = "results/desk/findings.md"

Edit = Callable[[bytes], bytes | None]
"""From a file's content to another, or to None: the file is gone."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return complete(small_project.make(tmp_path_factory.mktemp("released") / "project"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "api").mkdir()
    for name in ("index.html", "api/index.html"):
        (folder / name).write_text(f"<title>{name}</title>")
    return folder


@pytest.fixture(scope="module")
def released(project: Project, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "ticketlab-1.zip"
    archive.write(project.root, [], path, site)
    return path


def content_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def resummed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with checksums that agree with them: only what they say can be wrong."""
    others = sorted(name for name in files if name != contents.SUMS)
    lines = [f"{sha256(files[name]).hexdigest()}  {name}\n" for name in others]
    return {**files, contents.SUMS: "".join(lines).encode()}


def repacked(released: Path, path: Path, edits: Mapping[str, Edit], agree: bool = False) -> Path:
    """A release with some files changed, gone or new; `agree`: its checksums agree with them."""
    files = content_of(released)
    for name, edit in edits.items():
        changed = edit(files.pop(name, b""))
        files |= {} if changed is None else {name: changed}
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in (resummed(files) if agree else files).items():
            packed.writestr(name, content)
    return path


def lines(path: Path) -> list[str]:
    return list(map(str, check.verify(path).problems))


def gone(content: bytes) -> None:
    return None


def replace(old: str, new: str) -> Edit:
    def edit(content: bytes) -> bytes:
        assert content.count(old.encode()) >= 1, old
        return content.replace(old.encode(), new.encode(), 1)

    return edit


# --- what a release has


def test_a_release_has_the_project_its_tickets_site_and_metadata(
    project: Project, released: Path
) -> None:
    files = content_of(released)
    tracked = project.run("git ls-files").splitlines()
    runs = {
        f"results/desk/runs/colt/search/colt/seed-{seed}/round-01.safetensors" for seed in range(3)
    }
    made = {contents.FACTS, contents.VERDICTS, contents.SUMS, crate.NAME, "manifest.json"}
    assert set(files) == {*tracked, *runs, *made, "site/index.html", "site/api/index.html"}
    for name in (*tracked, *runs):
        assert files[name] == (project.root / name).read_bytes()
    facts = json.loads(files[contents.FACTS])
    assert facts["commit"] == project.run("git rev-parse HEAD").strip()
    assert (facts["studies"], facts["tickets"]) == (["desk"], True)
    rows = files[contents.VERDICTS].decode().splitlines()
    assert rows[1].startswith("desk,colt,colt-H1,") and rows[2].startswith(
        "desk,colt,colt-S9,not run"
    )


def test_an_untouched_release_has_no_problem(released: Path) -> None:
    found = check.verify(released)
    assert found.problems == [] and (found.tickets, found.verdicts) == (3, 2)


def test_two_releases_have_the_same_bytes(
    project: Project, site: Path, released: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.zip"
    archive.write(project.root, ["desk"], again, site)
    assert again.read_bytes() == released.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.zip"]
    with zipfile.ZipFile(again) as packed:
        assert packed.namelist() == sorted(packed.namelist())
        assert {entry.date_time for entry in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_ticket_of_a_release_is_the_ticket_of_the_project(
    project: Project, released: Path
) -> None:
    one, other = load(ADDRESS, released), load(ADDRESS, project.root)
    assert one.card() == other.card() and one.sha256 == other.sha256


def test_a_release_without_tickets_says_so_and_is_checked_as_such(
    project: Project, site: Path, tmp_path: Path, one_line: Message
) -> None:
    path = tmp_path / "light.zip"
    archive.write(project.root, [], path, site, with_tickets=False)
    assert not any("/runs/" in name for name in content_of(path))
    assert check.verify(path).problems == []
    assert "tickets: none" in one_line(lambda: load(ADDRESS, path))


def test_the_metadata_is_an_ro_crate_that_its_own_package_reads(
    released: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(released) as packed:
        packed.extractall(tmp_path)
    read = ROCrate(tmp_path)
    named = {str(one.id) for one in read.data_entities}
    assert named == set(content_of(released)) - {crate.NAME}
    root = read.root_dataset
    assert root["license"].id == crate.MIT and len(root["citation"]) == 4
    assert root["author"][0]["name"] == "the ticketlab authors"
    assert read.get("LICENSE")["contentSize"] == str((ROOT / "LICENSE").stat().st_size)
    sums = (tmp_path / contents.SUMS).read_text().splitlines()
    for line in sums:
        digest, name = line.split("  ", 1)
        assert sha256((tmp_path / name).read_bytes()).hexdigest() == digest


# --- faults in an archive: a line each, with file, expected and found

PLANTED: dict[str, tuple[dict[str, Edit], bool, list[str]]] = {
    "a changed byte": (
        {"LICENSE": replace("MIT", "MYT")}, False, ["LICENSE: expected SHA-256 "],
    ),
    "a missing file": (
        {"constraints.txt": gone}, False,
        ["constraints.txt: expected SHA-256 ", "constraints.txt: expected a file, ro-crate-"],
    ),
    "an extra file": (
        {"extra.txt": lambda _: b"extra"}, False,
        ["extra.txt: expected no such file, SHA256SUMS does not have it, found a file",
         "extra.txt: expected in ro-crate-metadata.json as a File, found not there"],
    ),
    "no checksums": ({contents.SUMS: gone}, False, ["SHA256SUMS: expected a line of hash"]),
    "damaged checksums": (
        {contents.SUMS: lambda content: content.replace(b"  ", b" ", 1)}, False,
        ["SHA256SUMS: expected a line of hash and name per file, found line 1: "],
    ),
    "an output that is not the lock's": (
        {SEEDS: replace("difference", "differenze")}, True, [f"{SEEDS}: expected MD5 "],
    ),
    "an input that is not the lock's": (
        {"work.py": replace("import json", "import  json")}, True,
        ["work.py: expected MD5 ", "of dvc.lock (colt@desk), found "],
    ),
    "a folder that is not the lock's": (
        {"results/desk/colt/figures/accuracy.png": replace("picture", "pikture")}, True,
        ["results/desk/colt/figures: expected MD5 "],
    ),
    "a ticket that is another one": (
        {TICKET: lambda _: b"x"}, True,
        [f"{TICKET}: expected SHA-256 ", "results/desk/runs/colt: expected MD5 "],
    ),
    "a ticket that is gone": (
        {TICKET: gone}, True, [f"{TICKET}: expected a ticket, manifest.json has it, found no such"],
    ),
    "a ticket without an entry": (
        {f"{TICKET[:-13]}2.safetensors": lambda _: b"x"}, True,
        [f"{TICKET[:-13]}2.safetensors: expected no such file, manifest.json does not have it"],
    ),
    "a damaged manifest": (
        {"manifest.json": lambda _: b"{"}, True,
        ["manifest.json: expected a manifest of tickets, found not readable JSON"],
    ),
    "a lock of other results": (
        {"dvc.lock": lambda content: content.replace(b"md5: ", b"md5: 0")}, True,
        ["results/desk/runs/colt: expected MD5 0"],
    ),
    "a wrong verdict": (
        {contents.VERDICTS: replace("colt-S9,not run", "colt-S9,reproduced")}, True,
        ["verdicts.csv: desk: colt-S9: expected not run, -, found reproduced, -"],
    ),
    "a verdict that is left out": (
        {contents.VERDICTS: lambda content: content.rpartition(b"desk,colt,colt-S9")[0]}, True,
        ["verdicts.csv: desk: colt-S9: expected not run, -, found no such row"],
    ),
    "metrics that say otherwise": (
        {METRICS: replace('"mean": -0.4, "low": -0.45', '"mean": -0.9, "low": -0.95')}, True,
        ["verdicts.csv: desk: colt-H1: expected ", f"{FINDINGS}: colt-H1: expected "],
    ),
    "metrics that decide nothing": (
        {METRICS: lambda _: b"{}"}, True, ["results/desk: expected metrics that decide the claims"],
    ),
    "a finding in other words": (
        {FINDINGS: replace("-0.4", "-0.1")}, True, [f"{FINDINGS}: colt-H1: expected "],
    ),
    "no findings": ({FINDINGS: gone}, True, [f"{FINDINGS}: expected the findings, found no such"]),
    "no facts": (
        {contents.FACTS: gone}, True, ["dvc.lock: expected readable with release.json and"],
    ),
    "damaged metadata": (
        {crate.NAME: lambda content: content[:-3]}, True,
        ["ro-crate-metadata.json: expected RO-Crate metadata, found not readable JSON"],
    ),
    "metadata of another form": (
        {crate.NAME: lambda _: b'{"@graph": []}'}, True,
        ["ro-crate-metadata.json: expected RO-Crate metadata, found KeyError"],
    ),
    "metadata without a licence": (
        {crate.NAME: replace('"license": {', '"licence": {')}, True,
        ["ro-crate-metadata.json: expected license of ./, found none"],
    ),
    "metadata that lists another file": (
        {crate.NAME: lambda content: content.replace(b'"dvc.yaml"', b'"dvc.yml"')}, True,
        ["dvc.yaml: expected in ro-crate-metadata.json as a File, found not there",
         "dvc.yml: expected a file, ro-crate-metadata.json lists it, found no such file"],
    ),
    "metadata that names another size": (
        {crate.NAME: replace('"contentSize": "', '"contentSize": "9')}, True,
        [" bytes by ro-crate-metadata.json, found "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_a_release_is_a_line(fault: str, released: Path, tmp_path: Path) -> None:
    edits, agree, said = PLANTED[fault]
    found = lines(repacked(released, tmp_path / "changed.zip", edits, agree))
    for text in said:
        assert [line for line in found if text in line], found
    assert not any("\n" in line for line in found)
    if not agree:
        assert len(found) <= len(said) + 1


def test_a_repacked_release_without_a_fault_has_no_problem(released: Path, tmp_path: Path) -> None:
    """So what the faults above show is theirs."""
    for agree in (False, True):
        assert lines(repacked(released, tmp_path / "same.zip", {}, agree)) == []


def test_a_flipped_bit_and_a_name_that_occurs_twice_are_lines(
    released: Path, tmp_path: Path
) -> None:
    path = tmp_path / "twice.zip"
    shutil.copy(released, path)
    with zipfile.ZipFile(path, "a") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        packed.writestr("LICENSE", (ROOT / "LICENSE").read_bytes())
    assert lines(path) == ["LICENSE: expected once in the archive, found 2 times"]
    whole = bytearray(released.read_bytes())
    with zipfile.ZipFile(released) as packed:
        entry = packed.getinfo("README.md")
    whole[entry.header_offset + 30 + len("README.md") + entry.compress_size // 2] ^= 1
    path.write_bytes(whole)
    assert [line for line in lines(path) if line.startswith("README.md: expected a readable file")]


def test_what_is_no_archive_is_one_line(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "a.zip"
    assert "no such file" in one_line(lambda: check.verify(path))
    path.write_bytes(b"no archive")
    assert "not a readable archive" in one_line(lambda: check.verify(path))


def test_the_command_needs_neither_git_nor_a_project(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    good = CliRunner().invoke(app, ["verify", "--release", str(released)])
    assert good.exit_code == 0 and "3 tickets, 2 verdicts: as released" in good.output
    bad = repacked(released, tmp_path / "bad.zip", {"LICENSE": gone})
    done = CliRunner().invoke(app, ["verify", "--release", str(bad)])
    assert done.exit_code == 1 and "LICENSE: expected SHA-256" in done.output
    assert "2 problems" in done.output.splitlines()[-1]


# --- what is not released


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    """The project with its cache, to change."""
    shutil.copytree(project.root, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_what_is_not_committed_is_refused(copy: Project, site: Path, one_line: Message) -> None:
    path = copy.root / "out.zip"
    (copy.root / SEEDS).write_text("metric,seed,value\n")
    message = one_line(lambda: archive.write(copy.root, [], path, site))
    assert f"{SEEDS} is not committed" in message
    copy.run("git commit -qam edited")
    message = one_line(lambda: archive.write(copy.root, [], path, site))
    assert f"{SEEDS}: expected MD5 " in message and "`dvc repro`" in message
    assert not list(copy.root.glob("*.zip")) and not list(copy.root.glob(".*partial"))


def test_findings_that_are_not_those_of_the_metrics_are_refused(
    copy: Project, site: Path, one_line: Message
) -> None:
    (copy.root / FINDINGS).write_text("It all works.\n")
    copy.run("git commit -qam praise")
    message = one_line(lambda: archive.write(copy.root, [], copy.root / "out.zip", site))
    assert f"{FINDINGS}: colt-H1: expected" in message and "`ticketlab claims --write`" in message


def test_tickets_that_are_not_here_are_refused_with_what_to_run(
    project: Project, site: Path, tmp_path: Path, one_line: Message
) -> None:
    project.run(f"git clone -q . {tmp_path / 'clone'}")
    message = one_line(lambda: archive.write(tmp_path / "clone", [], tmp_path / "out.zip", site))
    assert "those of desk/colt are not here; `dvc pull results/desk/runs/colt`" in message
    assert "`dvc repro train@desk-colt`" in message and not (tmp_path / "out.zip").exists()


def test_wrong_names_and_missing_parts_are_one_line(
    project: Project, site: Path, tmp_path: Path, one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = project.root, tmp_path / "out.zip"
    assert "ends in .zip" in one_line(lambda: archive.write(root, [], tmp_path / "a.rar", site))
    message = one_line(lambda: archive.write(root, ["dusk"], path, site))
    assert "study: 'dusk' has no committed results, these have: desk" in message
    assert "`make report`" in one_line(lambda: archive.write(root, [], path, tmp_path))
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    assert "ticketlab[release]" in one_line(lambda: archive.write(root, [], path, site))
    assert not path.exists()
