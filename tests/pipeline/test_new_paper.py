"""`ticketlab new-paper`: what is refused, what is written, and that all of it runs as it is."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, finished
from conftest import Message
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from ticketlab.files import read_json, write_atomically
from ticketlab.pipeline import new_paper
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT, InputError
from ticketlab.study.claims import COLOURS, claims_in, judge_all

NAME = "fifth"
FOLDERS = ("ticketlab/papers", "notebooks", "claims", "tests/papers")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with parameters and the folders that a paper is a part of, all empty."""
    root = tmp_path / "project"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "studies", root / "studies")
    return root


Tree = dict[str, bytes | None]


def tree(root: Path) -> Tree:
    """All files with their content, and all folders."""
    found = sorted(root.rglob("*"))
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in found}


# --- what is refused

WRONG = ["colt", "compare", "data", "runs", "code", "Fifth", "5th", "a-b", "a b", "_a", "é", "",
         "class", "paper_name", "a" * 31, "a\n"]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_no_paper_can_have_is_one_line_and_nothing_is_written(
    name: str, project: Path, one_line: Message
) -> None:
    before = tree(project)
    message = one_line(lambda: new_paper.new_paper(name, project))
    assert f"NAME: {name!r}" in message and "allowed: a lower-case letter" in message
    assert ", ".join(PAPERS) in message and tree(project) == before


@pytest.mark.parametrize("path", [str(path) for path in new_paper.contents(NAME)])
def test_no_file_is_overwritten(path: str, project: Path, one_line: Message) -> None:
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("mine")
    before = tree(project)
    message = one_line(lambda: new_paper.new_paper(NAME, project))
    assert path in message and "exists already" in message and tree(project) == before


def test_a_test_has_a_name_of_its_own_among_all_tests(one_line: Message) -> None:
    """Pytest would take one for the other."""
    files = new_paper.contents("conv")
    message = one_line(lambda: new_paper.check_free(files, ROOT))
    assert "tests/papers/plant_n_seek/conv/test_conv_study.py has the same name" in message


def test_parameters_that_are_not_valid_are_refused_first(project: Path, one_line: Message) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("rate: 0.2", "rate: 2", 1))
    before = tree(project)
    assert "desk.colt.rate: 2 " in one_line(lambda: new_paper.new_paper(NAME, project))
    assert tree(project) == before


def test_an_installed_package_has_no_place_for_papers(project: Path, one_line: Message) -> None:
    shutil.rmtree(project / "ticketlab")
    assert "a checkout of the project" in one_line(lambda: new_paper.new_paper(NAME, project))


# --- all or nothing


@pytest.mark.parametrize("error", [InputError("the disk is full"), KeyboardInterrupt()])
@pytest.mark.parametrize("nth", [0, 3, len(new_paper.contents(NAME))])
def test_what_cannot_be_written_whole_is_taken_back(
    nth: int, error: BaseException, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left = tree(project), iter(range(nth))

    def write(path: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise error
        write_atomically(path, content)

    monkeypatch.setattr(new_paper, "write_atomically", write)
    with pytest.raises(type(error)):
        new_paper.new_paper(NAME, project)
    assert tree(project) == before


# --- what is written


def test_the_files_are_there_and_the_parameters_only_gain_lines(project: Path) -> None:
    before = tree(project)
    written = new_paper.new_paper(NAME, project)
    after = tree(project)
    assert {str(path) for path in written} == {
        path for path in after if after[path] is not None and after[path] != before.get(path)
    }
    folder = project / "ticketlab" / "papers" / NAME
    papers = [
        path for path in (ROOT / "ticketlab/papers").iterdir() if (path / "study.py").exists()
    ]
    shared = set.intersection(*({path.name for path in one.glob("*.*")} for one in papers))
    assert {path.name for path in folder.iterdir()} == shared | {"algorithm.py"}
    assert not [path for path in written if "paper_name" in (project / path).read_text()]
    lines = Path(project / "params.yaml").read_text().splitlines()
    old = (ROOT / "params.yaml").read_text().splitlines()
    added = lines.index(f"  desk-{NAME}:")
    block = lines.index(f"  {NAME}:")
    assert lines[:added] + lines[added + 5 : block] == old
    assert set(YAML(typ="safe").load("\n".join(lines[block:]))) == {NAME}


def is_canonical(path: Path) -> bool:
    """Whether DVC would write the file as it is."""
    text = path.read_text()
    apply_overrides(path, [f"desk.{NAME}.runtime.device=auto"])
    return path.read_text() == text


COLT = re.search(r"(?m)^  colt:\n(?:    .*\n)+", (ROOT / "params.yaml").read_text())
AFTER = ["", "# The end.\n", f"\n# Another study.\nmine:\n{COLT and COLT[0]}"]
"""What may stand behind the study that gains a paper."""


@pytest.mark.parametrize("after", AFTER)
def test_parameters_stay_as_dvc_writes_them(after: str, project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(before := path.read_text() + after)
    new_paper.new_paper(NAME, project)
    text = path.read_text()
    assert is_canonical(path) and text.endswith(after)
    gained = rf"(?m)^  (?:desk-)?{NAME}:\n(?:    .*\n)+"
    assert len(re.findall(gained, text)) == 2 and re.sub(gained, "", text) == before


def copy_package(project: Path) -> None:
    """Put the whole package into a project."""
    foreign = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ticketlab", project / "ticketlab", ignore=foreign, dirs_exist_ok=True)


@pytest.mark.parametrize("name", ["a", "z" * new_paper.LONGEST])
def test_short_and_long_names_are_formatted_and_sorted(name: str, project: Path) -> None:
    copy_package(project)
    new_paper.new_paper(name, project)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=project, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_git_and_so_the_wheel_take_every_template() -> None:
    paths = [p for p in new_paper.SCAFFOLD.rglob("*.*") if "__pycache__" not in p.parts]
    command = ["git", "check-ignore", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert len(paths) > 12 and done.stdout == ""


CALL = f"""
import pytest
from ticketlab.pipeline import params
from ticketlab.pipeline.registry import PAPERS
assert "{NAME}" in PAPERS and params.load_paper("desk", "{NAME}").sparsity == 0.9
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/papers/{NAME}"]))
"""


@pytest.mark.slow
def test_the_registry_finds_a_new_paper_and_its_test_passes(project: Path) -> None:
    copy_package(project)
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, project / "tests")
    (project / "data").symlink_to(ROOT / "data")
    (project / "dvc.yaml").touch()
    new_paper.new_paper(NAME, project)
    clone = Clone(project)
    done = subprocess.run(
        [sys.executable, "-c", CALL], cwd=project, env=clone.env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr


# --- in a project, by the real commands


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A project with the results of COLT, in which a paper was laid out and run, smaller."""
    clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("fifth") / "clone")
    told = clone.run(f"ticketlab new-paper {NAME}").stdout
    assert f"dvc repro read@desk-{NAME}" in told and f"notebooks/{NAME}.ipynb" in told
    path, yaml = clone.path("params.yaml"), YAML()
    content: Any = yaml.load(path)
    content["desk"][NAME]["data"] |= {"train": 600, "validation": 100, "test": 500}
    content["desk"][NAME]["recipe"]["length"] = "2ep"
    with path.open("w") as file:
        yaml.dump(content, file)
    clone.run(f"dvc repro read@desk-{NAME}")
    yield clone


@pytest.mark.slow
def test_dvc_runs_a_new_paper_and_its_claim_has_a_verdict(clone: Clone) -> None:
    metrics = read_json(clone.path(f"results/desk/{NAME}/metrics.json"))
    claims = claims_in(clone.path(f"claims/{NAME}.yaml").read_text(), NAME, "its claims")
    (verdict,) = judge_all(claims, metrics, "mine")
    assert verdict.word in COLOURS and verdict.evidence is not None and verdict.evidence.n == 3
    assert f"{NAME}-1" in clone.run("ticketlab claims desk").stdout
    changed = clone.run("git status --short --untracked-files=all").stdout.splitlines()
    others = [line for line in changed if NAME not in line]
    assert others == [" M dvc.lock", " M params.yaml", " M results/desk/machine.json"]
    assert clone.run("dvc status").stdout.split() == ["code:", "always", "changed"]


@pytest.mark.slow
def test_a_new_paper_passes_what_all_papers_must(clone: Clone) -> None:
    """Lint, types, layers, and every test that goes through the papers, slow ones too."""
    clone.run("ruff check ticketlab tests && ruff format --check ticketlab tests")
    clone.run(f"ruff check notebooks/{NAME}.ipynb && ruff format --check notebooks/{NAME}.ipynb")
    clone.run("lint-imports --no-logo && mypy --no-error-summary")
    clone.run("git add -A")
    done = clone.run(f"pytest -q -n 2 -k '{NAME} and not new_paper' tests")
    assert "skipped" not in done.stdout and "passed" in done.stdout
