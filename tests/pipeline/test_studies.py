"""`ticketlab study`: new studies and runs, in files that stay as DVC writes them."""

import shutil
import subprocess
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path

import pytest
import yaml
from conftest import Message
from dvc.utils.hydra import apply_overrides

from ticketlab.pipeline import params, studies
from ticketlab.spec import ROOT

SHIPPED = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of params.yaml, with the studies beside it."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def changed(path: Path, act: Callable[[], object]) -> list[str]:
    """The lines that differ after an act, with + or - before them."""
    before = path.read_text().splitlines()
    act()
    lines = list(unified_diff(before, path.read_text().splitlines(), n=0, lineterm=""))
    return [line for line in lines[2:] if not line.startswith("@@")]


def is_canonical(path: Path) -> bool:
    """Whether DVC would write the file as it is."""
    text = path.read_text()
    key, block = next(iter(yaml.safe_load(text).items()))
    device = f"{key}.runtime.device=auto" if isinstance(block, dict) else f"{key}={block}"
    apply_overrides(path, [device])
    return path.read_text() == text


@pytest.mark.parametrize("name", ["params.yaml", *(f"studies/{name}.yaml" for name in SHIPPED)])
def test_a_file_of_parameters_is_as_dvc_writes_it(file: Path, name: str) -> None:
    assert is_canonical(file.parent / name)
    text = (file.parent / name).read_text()
    assert "&" not in text and "*" not in text.replace("*.yaml", "")


def test_an_override_of_dvc_changes_its_line_alone(file: Path) -> None:
    lines = changed(file, lambda: apply_overrides(file, ["desk.colt.rate=0.3"]))
    assert lines == ["-    rate: 0.2", "+    rate: 0.3"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_study_is_added_to_runs_and_taken_out_again(file: Path, name: str) -> None:
    before = file.read_bytes()
    papers = list(params.load_study(name, file))
    lines = changed(file, lambda: studies.add(name, file))
    assert len(lines) == 5 * len(papers) and all(line.startswith("+  ") for line in lines)
    assert is_canonical(file) and params.chosen_studies(file) == ["desk", name]
    assert studies.stages(name, file) == [f"read@{name}-{paper}" for paper in papers]
    assert changed(file, lambda: studies.add(name, file)) == []
    studies.remove(name, file)
    assert file.read_bytes() == before


def test_a_new_study_is_a_copy_with_changes(file: Path) -> None:
    changes = ["prac.data.name=mnist_5k", "prac.seeds=[7, 8]"]
    added = studies.new("mine", "cifar100", changes, ["prac"], file)
    assert [run.name for run in added] == ["mine-prac"]
    assert is_canonical(file) and is_canonical(file.parent / "studies" / "mine.yaml")
    source, mine = params.load_study("cifar100", file)["prac"], params.load_study("mine", file)
    data = source.data.model_copy(update={"name": "mnist_5k"})  # type: ignore[attr-defined]
    assert mine == {"prac": source.model_copy(update={"data": data, "seeds": (7, 8)})}


BAD = {
    "a name that is taken": (("desk", "desk", []), "'desk'"),
    "a name that cannot be": (("my study", "desk", []), "'my study'"),
    "no such source": (("mine", "dsk", []), "'dsk'"),
    "no such key": (("mine", "desk", ["colt.rte=0.3"]), "'colt.rte=0.3'"),
    "no value": (("mine", "desk", ["colt.rate"]), "'colt.rate'"),
    "a wrong value": (("mine", "desk", ["colt.rate=2"]), "colt.rate: 2 "),
    "no such paper": (("mine", "cifar100", [], ["compare"]), "'compare'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_new_study_is_one_line_and_nothing_is_written(
    what: str, file: Path, one_line: Message
) -> None:
    (arguments, words), before = BAD[what], file.read_bytes()
    assert words in one_line(lambda: studies.new(*arguments, path=file))  # type: ignore[arg-type]
    assert file.read_bytes() == before and not (file.parent / "studies" / "mine.yaml").exists()


def test_a_study_that_is_not_in_runs_cannot_be_taken_out(file: Path, one_line: Message) -> None:
    assert "'cifar10' is not in runs, allowed: desk" in one_line(
        lambda: studies.remove("cifar10", file)
    )


def test_all_shipped_studies_together_are_a_pipeline(file: Path) -> None:
    """By the real DVC, with the real dvc.yaml; nothing is run."""
    for name in SHIPPED:
        studies.add(name, file)
    root = file.parent
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    for name in ("notebooks", "claims"):
        shutil.copytree(ROOT / name, root / name)
    for command in ("git init -q .", "dvc init -q"):
        subprocess.run(command.split(), cwd=root, check=True)
    listed = subprocess.run(
        ["dvc", "stage", "list", "--all"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    stages = {line.split()[0] for line in listed if line}
    runs = {run.name for run in params.load_runs(file)}
    assert len(runs) == 5 + sum(len(params.load_study(name, file)) for name in SHIPPED)
    assert stages == {"code"} | {
        f"{kind}@{run}" for kind in ("data", "train", "read") for run in runs
    }
    done = subprocess.run(
        ["dvc", "repro", "--dry", "--force"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ticketlab train") == len(runs)
