"""Numbers of another run kept beside a study's, and what its page says of both."""

import json
from pathlib import Path

import pytest
from conftest import Message

from ticketlab.cli import read as commands
from ticketlab.files import read_json, read_yaml, write_json, yaml_text
from ticketlab.reader import reruns
from ticketlab.reader.site.pages import rerun_page
from ticketlab.spec import ROOT
from ticketlab.study.stats import Interval

DESK = ROOT / "results" / "desk"
CLAIMS = ROOT / "claims"


def run(folder: Path, perturb: float = 0.0, isa: str = "avx2", paper: str = "colt") -> Path:
    """A project with the desk parameters and one paper's committed numbers; its study's folder."""
    found = read_yaml(ROOT / "params.yaml")
    found["desk"][paper]["runtime"]["perturb"] = perturb
    study = folder / "results" / "desk"
    (study / paper).mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml_text(found))
    numbers = read_json(DESK / paper / "metrics.json")
    write_json(study / paper / "metrics.json", numbers)
    made = read_json(DESK / "machine.json")[paper]
    write_json(study / "runs" / f"{paper}.timings.json", {"seconds": {}})
    known = study / "machine.json"
    others = read_json(known) if known.exists() else {}
    write_json(known, others | {paper: made | {"instruction_set": isa}})
    return study


def test_what_was_kept_says_how_it_was_made(tmp_path: Path) -> None:
    study, other = run(tmp_path / "a"), run(tmp_path / "b", perturb=1e-7, isa="native")
    kept = reruns.keep(other, study, "elsewhere")
    assert reruns.read(study) == [kept]
    assert kept.differs == (
        "instruction set native instead of avx2, `runtime.perturb` 1e-07 instead of 0.0"
    )
    assert all(one.change == "" for one in kept.pairs(CLAIMS))
    page = rerun_page([study], CLAIMS)
    assert "## elsewhere" in page and kept.differs in page and "colt-H1" in page


def test_a_rerun_is_made_paper_by_paper(tmp_path: Path) -> None:
    """What differs is said per paper where it is not the same."""
    study = run(tmp_path / "a")
    run(tmp_path / "a", paper="prac")
    reruns.keep(run(tmp_path / "b", perturb=1e-7), study, "one")
    kept = reruns.keep(run(tmp_path / "c", isa="native", paper="prac"), study, "one")
    assert list(kept.papers) == ["colt", "prac"]
    assert kept.differs == (
        "`runtime.perturb` 1e-07 instead of 0.0 (colt); "
        "instruction set native instead of avx2 (prac)"
    )
    assert {one.a.claim.paper for one in kept.pairs(CLAIMS)} == {"colt", "prac"}


def test_numbers_that_came_with_the_clone_are_not_kept(tmp_path: Path) -> None:
    """A clone has the committed numbers of all papers, also of those that were not run there."""
    study, other = run(tmp_path / "a"), run(tmp_path / "b", isa="native")
    run(tmp_path / "b", paper="prac")
    (other / "runs" / "prac.timings.json").unlink()
    assert list(reruns.keep(other, study, "x").papers) == ["colt"]
    assert not (study / "reruns" / "x" / "prac").exists()


def test_a_verdict_that_turned_comes_first(tmp_path: Path) -> None:
    study, other = run(tmp_path / "a"), run(tmp_path / "b")
    path = other / "colt" / "metrics.json"
    before = reruns.keep(other, study, "x").pairs(CLAIMS)
    turned = next(
        one for one in before if one.a.word == "reproduced" and isinstance(one.a.evidence, Interval)
    )
    keys = turned.a.claim.metric.split(".")
    numbers = read_json(path)
    place = numbers
    for key in keys:
        place = place[key]
    for side in ("mean", "low", "high"):
        place[side] -= 1e3
    write_json(path, numbers)
    page = reruns.page([reruns.keep(other, study, "x")], CLAIMS)
    first = next(line for line in page.splitlines() if line.startswith("| colt-"))
    assert turned.a.claim.id in first and "opposite" in first


def test_what_cannot_be_kept(tmp_path: Path, one_line: Message) -> None:
    study, other = run(tmp_path / "a"), run(tmp_path / "b")
    assert "study itself" in one_line(lambda: reruns.keep(study, study, "x"))
    assert "no paper was trained" in one_line(lambda: reruns.keep(tmp_path, study, "x"))
    assert "keep" in one_line(lambda: reruns.keep(other, study, "../x"))
    (other / "machine.json").unlink()
    assert "no entry 'colt'" in one_line(lambda: reruns.keep(other, study, "x"))
    assert not (study / reruns.FOLDER).exists()
    reruns.keep(run(tmp_path / "b"), study, "x")
    path = study / reruns.FOLDER / "x" / reruns.FILE
    path.write_text(json.dumps({"colt": {}}))
    assert "changed" in one_line(lambda: reruns.read(study))
    path.write_text(json.dumps({"dlth": {"changed": []}}))
    assert "no entry 'dlth'" in one_line(lambda: reruns.read(study))


def test_the_command_keeps_what_it_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, other = run(tmp_path / "a"), run(tmp_path / "b", isa="native")
    commands.robustness(str(study), str(other), out=tmp_path / "page.md", keep="native")
    assert [one.name for one in reruns.read(study)] == ["native"]
    assert "B decides 0 the other way" in capsys.readouterr().out


@pytest.mark.parametrize("rerun", reruns.read(DESK), ids=lambda one: one.name)
def test_no_decided_verdict_of_the_desk_study_turned(rerun: reruns.Rerun) -> None:
    turned = [one.a.claim.id for one in rerun.pairs(CLAIMS) if one.change == "opposite"]
    assert not turned
