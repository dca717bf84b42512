"""The recipes of docs/how-to/sharing.md: tickets from a remote and from a release."""

import re
import shutil
from pathlib import Path

import pytest
import small_project
from conftest import Message
from releasable import complete
from small_project import Project

from ticketlab.reader.diff_page import write
from ticketlab.reader.loading import load
from ticketlab.release import archive
from ticketlab.spec import ROOT

PAGE = (ROOT / "docs" / "how-to" / "sharing.md").read_text()
ADDRESS = "desk/colt/colt/seed-0@round-01"
NAMED = "ticketlab-0.1.0.zip"


def recipe(heading: str, language: str) -> list[str]:
    """The code blocks of a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", section)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return complete(small_project.make(tmp_path_factory.mktemp("trained") / "project"))


@pytest.fixture
def team(trained: Project, tmp_path: Path) -> Project:
    """The project of whoever has trained: its cache, its history, and a repository for all."""
    shutil.copytree(trained.root, tmp_path / "first", symlinks=True)
    project = Project(tmp_path / "first")
    project.run(f"git init -q --bare -b main {tmp_path / 'hub.git'}")
    project.run(f"git remote add origin {tmp_path / 'hub.git'} && git push -q origin main")
    return project


def cloned(team: Project, place: Path) -> Project:
    """What a colleague has at first, made in an empty folder."""
    place.mkdir()
    clone = Project(place)
    clone.run(f"git clone -q {team.root.parent / 'hub.git'} .")
    return clone


def has_everything(clone: Project, team: Project, page: Path) -> None:
    """The tickets of the team, nothing to run, and nothing missing in a comparison."""
    assert load(ADDRESS, clone.root).sha256 == load(ADDRESS, team.root).sha256
    assert clone.run("dvc status").strip() == "Data and pipelines are up to date."
    assert clone.run("git status --short") == ""
    assert "didn't change, skipping" in clone.run("dvc repro")
    write("HEAD", "workspace", page, clone.root)
    assert "not in the DVC cache" not in page.read_text()


def test_a_colleague_gets_the_tickets_from_a_remote(
    team: Project, tmp_path: Path, one_line: Message
) -> None:
    give, take = recipe("Tickets", "sh")
    team.run(give)
    team.run("git commit -qam 'a shared place' && git push -q origin main")
    clone = cloned(team, tmp_path / "second")
    assert "`dvc pull results/desk/runs/colt`" in one_line(lambda: load(ADDRESS, clone.root))
    clone.run(take)
    has_everything(clone, team, tmp_path / "page.html")


@pytest.mark.skipif(shutil.which("unzip") is None, reason="the recipe calls unzip")
def test_a_colleague_gets_the_tickets_from_a_release(team: Project, tmp_path: Path) -> None:
    (site := tmp_path / "site").mkdir()
    (site / "index.html").write_text("<title>site</title>")
    clone = cloned(team, tmp_path / "second")
    released = clone.root / NAMED
    archive.write(team.root, [], released, site)
    assert load(ADDRESS, released).sha256 == load(ADDRESS, team.root).sha256
    (unpack,) = recipe("Tickets from a release", "text")
    assert NAMED in unpack
    clone.run(unpack)
    released.unlink()
    has_everything(clone, team, tmp_path / "page.html")
    shutil.rmtree(clone.root / "results" / "desk" / "runs")
    clone.run("dvc checkout")  # from the cache, in which they are now
    has_everything(clone, team, tmp_path / "page.html")
