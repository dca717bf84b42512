"""The container and Binder files: of the form that their tools read, and what they name works."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import free
from packaging.requirements import Requirement

from ticketlab.spec import ROOT

BINDER = ROOT / "binder"
CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())


def test_the_container_has_what_the_specification_asks_for() -> None:
    """The types of its properties in the base schema of devcontainer.json."""
    types = {
        "name": str, "image": str, "hostRequirements": dict, "postCreateCommand": str,
        "remoteEnv": dict, "forwardPorts": list, "portsAttributes": dict, "customizations": dict,
    }  # fmt: skip
    assert {key: type(value) for key, value in CONTAINER.items()} == types
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", CONTAINER["image"])
    assert {type(value) for value in CONTAINER["remoteEnv"].values()} == {str}
    assert set(CONTAINER["portsAttributes"]) == {str(port) for port in CONTAINER["forwardPorts"]}
    need = CONTAINER["hostRequirements"]
    assert isinstance(need["cpus"], int)
    assert all(re.fullmatch(r"\d+[tgmk]b", need[key]) for key in ("memory", "storage"))


def test_the_container_makes_the_environment_that_it_then_uses(tmp_path: Path) -> None:
    """In a folder without `.venv`, as that of a new container."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    plan = subprocess.run(
        [*CONTAINER["postCreateCommand"].split(), "--dry-run"], cwd=tmp_path, check=True,
        capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))},
    ).stdout  # fmt: skip
    assert "-m venv --clear .venv" in plan and "--constraint constraints.txt" in plan
    settings = CONTAINER["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("}/.venv/bin/python")
    assert CONTAINER["remoteEnv"]["PATH"].startswith("${containerWorkspaceFolder}/.venv/bin:")


def oldest() -> str:
    """'3.11'"""
    return re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[0]


def test_both_have_the_oldest_python_that_is_promised() -> None:
    assert (BINDER / "runtime.txt").read_text() == f"python-{oldest()}\n"
    assert f":{oldest()}-" in CONTAINER["image"]


def test_binder_installs_the_package_with_the_pins() -> None:
    lines = (BINDER / "requirements.txt").read_text().splitlines()
    pins, package = (line for line in lines if not line.startswith("#"))
    option, file = pins.split()
    assert option == "-c" and (BINDER / file).resolve() == ROOT / "constraints.txt"
    option, name = package.split()
    found = Requirement(name.replace(".", "ticketlab", 1))
    assert option == "-e" and found.extras == {"study"}


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_a_script_of_binder_is_executable_bash(name: str) -> None:
    assert os.access(BINDER / name, os.X_OK)
    assert (BINDER / name).read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", BINDER / name], check=True)


def programs(folder: Path) -> str:
    """A PATH with `ticketlab` of this package."""
    program = folder / "ticketlab"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ticketlab "$@"\n')
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_binder_starts_what_it_is_asked_to_pinned(tmp_path: Path) -> None:
    code = "from ticketlab import instruction_set; print(instruction_set.current())"
    command = [BINDER / "start", sys.executable, "-c", code]
    env = free(PATH=programs(tmp_path), PYTHONPATH=str(ROOT))
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    plain = subprocess.run(command[1:], env=env, capture_output=True, text=True, check=True)
    assert (plain.stdout, done.stdout.split()[-1]) == ("native\n", "avx2")


def test_binder_prepares_the_images_of_the_notebooks(tmp_path: Path) -> None:
    """In a project with nothing prepared, and with the hashes that are committed."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in ("studies", "claims"):
        (tmp_path / name).symlink_to(ROOT / name)
    ours = shutil.ignore_patterns("raw", "prepared")
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=ours)
    (bin := tmp_path / "bin").mkdir()
    env = free(PATH=programs(bin), PYTHONPATH=str(ROOT), TICKETLAB_ROOT=str(tmp_path))
    subprocess.run([BINDER / "postBuild"], cwd=tmp_path, env=env, check=True, capture_output=True)
    made = sorted((tmp_path / "results" / "desk" / "data").glob("*.json"))
    assert len(made) == 5
    for path in made:
        committed = ROOT / path.relative_to(tmp_path)
        assert path.read_bytes() == committed.read_bytes()
