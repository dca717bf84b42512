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
from hypothesis import given
from hypothesis import strategies as st

from ticketlab.files import parse_yaml
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


RUNS = {
    "desk-colt": "{study: desk, paper: colt, file: params.yaml, key: desk.colt}",
    "desk-prac": """  # of prac
    study: desk  # which
    # and whose
    paper: 'prac'
    file: params.yaml
    key: >-
      desk.prac""",
    "desk-dlth": """
    paper: dlth
    study: desk

    file: params.yaml
    key: desk.dlth  # its parameters""",
}
"""Lines of runs as a person may write them."""
BETWEEN = ["", "\n", "# to the left\n", "  # like runs: {}\n", "\n  # one\n\n# two: '\n"]


@given(
    texts=st.lists(st.sampled_from(BETWEEN), min_size=6, max_size=6),
    names=st.permutations(sorted(RUNS)),
    line_break=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    open_end=st.booleans(),
)
def test_all_other_text_stays_when_runs_come_and_go(
    texts: list[str], names: list[str], line_break: str, last: bool, open_end: bool
) -> None:
    """Whatever stands before, between and after the runs, and wherever `runs` stands."""
    added = [params.Run(study="mine", paper="prac", file="studies/mine.yaml", key="prac")]
    entries = {name: f"  {name}: {RUNS[name]}\n" for name in names}

    def text(kept: list[str]) -> str:
        colon = "runs:" if kept else "runs: {}"
        lines = "".join(
            (entries[name] if name in kept else "") + after
            for name, after in zip(names, texts[:3], strict=True)
        )
        runs = f"{texts[3]}{colon}  # what runs\n{texts[4]}{lines}"
        whole = f"a: 1\n{runs}" if last else f"{runs}{texts[5]}desk: {{}}  # other: runs\n"
        return (whole.rstrip() if open_end else whole).replace("\n", line_break)

    for kept in (names, names[:2], names[:1], names[2:], []):
        before = text(kept)
        more = studies.with_runs(before, added)
        assert list(parse_yaml(more, "runs")["runs"]) == [*kept, "mine-prac"]
        assert studies.without_runs(more, ["mine-prac"]) == before
        gone = [name for name in names if name not in kept]
        if not open_end:  # there, the last line that is left ends the text
            assert studies.without_runs(text(names), gone) == before


@pytest.mark.parametrize("comment", ["", "  # mine, on the cluster\n", "\n  # mine\n  # all\n"])
@pytest.mark.parametrize("after", ["", "\n", "\n# Real images.\n", "# Real: images\n\n"])
def test_taken_out_and_put_back_leaves_the_same_bytes(file: Path, comment: str, after: str) -> None:
    head, runs, rest = file.read_text().partition("runs:\n")
    entries, _, rest = rest.partition("\n\n# Real")
    text = f"{head}{runs}{comment}{entries}\n{after}desk:{rest.partition(chr(10) + 'desk:')[2]}"
    file.write_text(text)
    studies.remove("desk", file)
    assert params.load_runs(file) == [] and comment in file.read_text()
    studies.add("desk", file)
    assert file.read_text() == text
    studies.add("cifar10", file)
    several = file.read_text()
    studies.remove("cifar10", file)
    assert file.read_text() == text
    studies.add("cifar10", file)
    assert file.read_text() == several


ODD_RUNS = {
    "in braces": "runs: {desk-colt: {study: desk, paper: colt, file: params.yaml, key: desk.colt}}",
    "an anchor that others use": """runs:
  desk-colt: &run {study: desk, paper: colt, file: params.yaml, key: desk.colt}
other: *run""",
}


@pytest.mark.parametrize("how", ODD_RUNS)
def test_runs_that_a_person_has_to_edit_are_one_line(
    file: Path, how: str, one_line: Message
) -> None:
    desk = file.read_text().partition("\ndesk:")[2]
    file.write_text(f"{ODD_RUNS[how]}\ndesk:{desk}")
    before = file.read_bytes()
    assert "params.yaml: runs: " in one_line(lambda: studies.remove("desk", file))
    assert file.read_bytes() == before


BAD = {
    "a name that is taken": (("desk", "desk", []), "'desk'"),
    "a name that cannot be": (("my study", "desk", []), "'my study'"),
    "no such source": (("mine", "dsk", []), "'dsk'"),
    "no such key": (("mine", "desk", ["colt.rte=0.3"]), "'colt.rte=0.3'"),
    "no value": (("mine", "desk", ["colt.rate"]), "'colt.rate'"),
    "a value that its tag does not allow": (
        ("mine", "desk", ["colt.max_rounds=!!int many"]),
        "colt.max_rounds: '!!int many': not valid YAML ('many' is no !!int",
    ),
    "a value that is no YAML": (("mine", "desk", ["colt.levels=[1"]), "allowed is a value such as"),
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
    before = len(params.load_runs(file))
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
    assert len(runs) == before + sum(len(params.load_study(name, file)) for name in SHIPPED)
    assert stages == {"code"} | {
        f"{kind}@{run}" for kind in ("data", "train", "read") for run in runs
    }
    done = subprocess.run(
        ["dvc", "repro", "--dry", "--force"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ticketlab train") == len(runs)
