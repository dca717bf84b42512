"""Rules the whole project keeps: pinned environment, clean notebooks, parameters, layers, style."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

import ticketlab
from ticketlab.files import read_json
from ticketlab.pipeline.notebook import check_clean, normalise

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ticketlab"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMS = ROOT / "params.yaml"

LONGEST_FUNCTION = 60


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def committed() -> list[Path]:
    """What git has or would take; every file but the obviously foreign without git."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# The environment


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    every = [Requirement(text) for group in groups for text in group]
    return [one for one in every if one.name != project["name"]]  # an extra that includes another


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


CORE = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(name + " is not in the core")

sys.meta_path.insert(0, Absent())
import ticketlab

for folder in ("data", "many", "models", "pruning", "tickets", "training"):
    package = importlib.import_module("ticketlab." + folder)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
for name in ("study.bench", "study.retrain", "study.stats", "reader.loading", "cli.tickets",
             "release.check"):
    importlib.import_module("ticketlab." + name)
ticketlab.load
"""


def test_the_core_imports_without_the_packages_of_studies() -> None:
    """`pip install ticketlab` has no notebooks and no pipeline; `ticketlab[study]` has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    study = {Requirement(text).name for text in project["optional-dependencies"]["study"]}
    assert {"dvc", "papermill", "jupyterlab", "matplotlib", "sphinx"} <= study
    modules = {"vl_convert", "IPython", *(name.replace("-", "_") for name in study)}
    done = subprocess.run([sys.executable, "-c", CORE.replace("{absent}", repr(modules))],
                          cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]


def test_every_constraint_is_an_exact_version_without_an_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines[1:] if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)] == []
    assert len(constraints()) == len(lines) - 1 and "ticketlab" not in constraints()


def test_constraints_pin_every_dependency_within_its_range() -> None:
    pins = constraints()
    assert [r.name for r in requirements() if canonicalize_name(r.name) not in pins] == []
    outside = [r for r in requirements() if pins[canonicalize_name(r.name)] not in r.specifier]
    assert outside == []


def test_pinned_versions_run_on_the_oldest_python_that_is_promised() -> None:
    """Debian 12's 3.11.2, say, when the versions were pinned on a later 3.11."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = f"{project['requires-python'].removeprefix('>=')}.2"
    pins, refused = constraints(), []
    for installed in distributions():
        wanted = SpecifierSet(installed.metadata.get("Requires-Python") or "")
        if pins.get(canonicalize_name(installed.name)) == installed.version and (
            oldest not in wanted
        ):
            refused.append(f"{installed.name} {installed.version}: {wanted}")
    assert refused == []


def test_no_committed_file_names_a_package_index() -> None:
    dot = r"\."
    hosts = [f"pypi{dot}org", f"pythonhosted{dot}org", f"download{dot}pytorch", f"anaconda{dot}org"]
    options = ["index-" + "url", "find-" + "links", "trusted-" + "host"]
    pattern = re.compile("|".join([*hosts, *options]).encode())
    assert [short(path) for path in committed() if pattern.search(path.read_bytes())] == []


# Make, CI, DVC, citation


def test_make_and_ci_offer_what_the_readme_promises() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    offered = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")}
    assert offered >= {"env", "repro", "study", "test", "lint", "typecheck", "format", "lab"}
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK) and "make test" in ci.read_text()


def environment(folder: Path) -> Path:
    """A .venv in the folder that make takes for finished, with our packages; its `bin`."""
    venv = folder / ".venv"
    venv.mkdir()
    for name in ("lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (venv / name).symlink_to(Path(sys.prefix) / name)
    (venv / "bin").mkdir()
    (venv / ".ready").write_text(f"{folder}\n")
    return venv / "bin"


LAYERING = (
    '"""Extra."""\n\nfrom ticketlab.papers.colt import algorithm\n\n__all__ = ["algorithm"]\n'
)
NOTEBOOK = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")])]
)
MISTAKES = {
    "an unused import": ("ticketlab/extra.py", "import os\n", "F401"),
    "another format": ("ticketlab/extra.py", "x  =  1\n", "error: not formatted, run: make format"),
    "data imports papers": ("ticketlab/data/extra.py", LAYERING, "Each folder imports only"),
    "a misspelling": ("extra.md", "All \x74eh weights\n", "extra.md:1"),
    "a stored output": ("notebooks/extra.ipynb", nbformat.writes(NOTEBOOK), "extra.ipynb"),
}
"""What `make lint` finds: a file, its content, and what is said of it."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_lint_finds(mistake: str, tmp_path: Path) -> None:
    name, content, said = MISTAKES[mistake]
    for path in committed():
        if path.relative_to(ROOT).parts[0] not in ("results", "data"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (tmp_path / ".git").mkdir()
    commands = environment(tmp_path)
    for command in Path(sys.executable).parent.iterdir():
        (commands / command.name).symlink_to(command)
    (tmp_path / name).write_text(content)
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "lint"], cwd=tmp_path, env=outside | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and said in done.stdout + done.stderr


def test_make_study_adds_runs_the_stages_and_shows_verdicts(tmp_path: Path) -> None:
    """And an edit of params.yaml that is made meanwhile stays."""
    for name in ("Makefile", "params.yaml", "dvc.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    (tmp_path / ".git").mkdir()
    commands, log = environment(tmp_path), tmp_path / "log"
    (commands / "python").symlink_to(sys.executable)
    (commands / "ticketlab").write_text(
        f'#!/bin/sh\n[ "$1" = repro ] && echo "# mine" >> params.yaml\n'
        f'[ "$1" != study ] && echo "$@" >> {log} && exit\n'
        f'TICKETLAB_ROOT={tmp_path} exec {sys.executable} -m ticketlab "$@"\n'
    )
    (commands / "ticketlab").chmod(0o755)
    make = ["make", "study", "STUDY=cifar100"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines() == [
        "repro read@cifar100-colt read@cifar100-prac read@cifar100-dlth",
        "claims cifar100",
    ]
    text = (tmp_path / "params.yaml").read_text()
    assert (
        text.endswith("# mine\n") and "cifar100-prac:" in text and "cifar100-prac:" in done.stdout
    )


def test_an_interpreter_that_is_missing_or_old_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    for name, message in [("nowhere", "no interpreter"), ("old", "older than Python 3.11")]:
        make = ["make", "-f", str(ROOT / "Makefile"), "env", f"PYTHON={tmp_path / name}"]
        for file in ("pyproject.toml", "constraints.txt"):
            (tmp_path / file).touch()
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(
            make, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False
        )
        errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
        assert done.returncode != 0 and len(errors) == 1 and message in errors[0]
        assert done.stdout.startswith("note: no git here (a zip?)")  # before anything is installed
        assert not (tmp_path / ".venv").exists()


def test_dvc_is_quiet_and_ignores_compiled_files() -> None:
    config = ConfigParser()
    config.read_string((ROOT / ".dvc" / "config").read_text().replace("\n    ", "\n"))
    assert dict(config["core"]) == dict.fromkeys(
        ("analytics", "autostage", "check_update"), "false"
    )
    assert {"__pycache__", "*.pyc"} <= set((ROOT / ".dvcignore").read_text().splitlines())


def test_the_citation_names_us_and_the_four_papers() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["title"].startswith("ticketlab") and cff["license"] == "MIT"
    papers = cff["references"]
    assert len(papers) == 4
    assert all({"title", "authors", "year", "identifiers"} <= set(paper) for paper in papers)


# Parameters


@pytest.mark.skipif(not PARAMS.exists(), reason="params.yaml does not exist yet")
def test_params_read_the_same_under_yaml_1_1_and_1_2() -> None:
    text = PARAMS.read_text()
    new = YAML(typ="safe", pure=True).load(text)
    # As text, since 1 == 1.0 == True: a value that changes its type must not pass.
    assert json.dumps(yaml.safe_load(text)) == json.dumps(new)


@pytest.mark.skipif(not PARAMS.exists(), reason="params.yaml does not exist yet")
def test_no_parameter_has_a_name_that_dvc_ignores() -> None:
    # The run cache drops keys of these names, so a changed value would bring back stale results.
    assert {"size", "nfiles"}.isdisjoint(_keys(yaml.safe_load(PARAMS.read_text())))


def _keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from map(str, tree)
        tree = list(tree.values())
    for branch in tree if isinstance(tree, list) else []:
        yield from _keys(branch)


# Notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=short)
def test_a_stored_notebook_is_clean(path: Path) -> None:
    assert check_clean(path) == []


def test_committed_results_are_in_normal_form() -> None:
    for path in (ROOT / "results").glob("*/*/*.ipynb"):
        text = path.read_text(encoding="utf-8")
        page = nbformat.reads(text, as_version=4)
        assert nbformat.writes(normalise(page)) + "\n" == text, short(path)


# The package


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_a_module_is_documented_typed_and_made_of_small_functions(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    assert [name for name, node in _public(tree) if not ast.get_docstring(node)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    assert [node.name for node in functions if _length(node) > LONGEST_FUNCTION] == []
    assert [node.name for node in functions if not _is_typed(node)] == []


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
PRIVATE = ("_", "forward")  # what a torch module's forward does is said by its class


def _public(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Public functions, classes and methods with their dotted names."""
    for node in tree.body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith(PRIVATE):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{node.name}.")


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_typed(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    named = [argument for argument in every if argument.arg not in ("self", "cls")]
    return node.returns is not None and all(argument.annotation for argument in named)


def test_imports_inside_the_package_are_absolute_and_no_folder_has_to_be_searched() -> None:
    """Which folder may import which is in pyproject.toml (import-linter, `make lint`)."""
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text()))
        levels = [node.level for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not any(levels), short(path)
    for folder in {path.parent for path in MODULES}:
        assert len(list(folder.glob("*.py"))) <= 20, short(folder)


def test_no_test_module_is_imported_by_another() -> None:
    """What tests share is in support modules, such as tests/tiny.py."""
    importing = re.compile(r"^\s*(?:from|import)\s+test_", re.MULTILINE)
    found = [path for path in ROOT.glob("tests/**/*.py") if importing.search(path.read_text())]
    assert [short(path) for path in found] == []


def test_machines_are_named_in_machine_json_alone() -> None:
    """Elsewhere they would make two equal results differ."""
    machines = [read_json(path) for path in (ROOT / "results").glob("*/machine.json")]
    names = {made[key] for file in machines for made in file.values()
             for key in ("processor", "vendor", "device")} - {"cpu"}  # fmt: skip
    for path in committed():
        place = path.relative_to(ROOT)
        if place.parts[0] == "results" and place.name != "machine.json":
            text = path.read_text(errors="replace")
            found = [
                name
                for name in names | {"EPYC", "Xeon", "NVIDIA"}
                if re.search(rf"(?<![\w+/]){re.escape(name)}(?![\w+/])", text)  # no base64
            ]
            assert not found, f"{place} names {found[0]}"


# The forge


def test_the_workflow_runs_what_developers_run() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = flow["jobs"]["ci"]
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    pages = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())
    assert "make report" in [step.get("run") for step in pages["jobs"]["build"]["steps"]]
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"):
        head = path.read_text().split("---")[1]
        assert {"name", "about"} == set(yaml.safe_load(head)), path


def test_the_package_says_its_version_and_that_it_is_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ticketlab.__version__ == project["version"]
    assert (PACKAGE / "py.typed").exists()


IMPORT_ALL = """
import pkgutil, importlib, sys, ticketlab
def import_all():
    for module in pkgutil.walk_packages(ticketlab.__path__, "ticketlab."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
STATE = """
import contextlib, json, logging, os, random, warnings
for name in json.loads(sys.argv[1]):  # what other packages do when they are imported is theirs
    with contextlib.suppress(Exception):
        importlib.import_module(name)
import matplotlib, numpy as np, torch
def state():
    return [dict(os.environ), [str(f) for f in warnings.filters], dict(matplotlib.rcParams),
            torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),
            torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode(),
            torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32,
            np.get_printoptions(), random.getstate(), logging.getLogger().level,
            logging.getLogger("dvc").level, logging.getLogger("papermill").level]
before = state()
import_all()
print([n for n, (a, b) in enumerate(zip(before, state())) if str(a) != str(b)])
"""


@pytest.mark.slow
def test_importing_the_package_changes_nothing_of_the_process() -> None:
    def run(code: str, *arguments: str) -> str:
        command = [sys.executable, "-c", IMPORT_ALL + code, *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    foreign = "names = [n for n in sys.modules if not n.startswith(('ticketlab', '__'))]\n"
    names = run(f"import json\nimport_all()\n{foreign}print(json.dumps(names))")
    assert run(STATE, names) == "[]"


PRINTING = {
    "progress.py", "study/exactness.py", "pipeline/by_hand.py", "pipeline/display.py",
}  # fmt: skip
"""Besides the command line: the displays of progress that it starts, and what writes on pages."""


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_a_library_function_prints_nothing(path: Path) -> None:
    calls = (n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
    names = {one.id for one in calls if isinstance(one, ast.Name)}
    place = path.relative_to(PACKAGE).as_posix()
    assert place in PRINTING or place.startswith("cli/") or not names & {"print", "Console"}


METAPHORS = re.compile(
    r"\b(?:told|foretold|rooms?|houses?|doors?|the floor|stands? still|is owed|the word on"
    r"|nobody's|all in all|otherwise than|on its way|the person who waits"
    r"|(?:presses|pressed) (?:out|to)|stumbles|must not hear)\b",
    re.I,
)
"""Private images and inverted phrases for what has a plain word: message, buffer, limit, none."""

EACH = "arm|class|criterion|epoch|image|job|lane|layer|net|paper|round|sample|seed|step|ticket|unit"
THINGS = "bit|column|dot|drawing|entry|factor|file|line|mask|matrix|number|panel|piece|point|recipe"
THINGS += "|row|set|value"
PER = re.compile(
    rf"\b(?:(?:one|a|an) (?:{THINGS})|one|(?<!at )once)\s+an? (?:{EACH})\b(?! (?:or|of)\b)", re.I
)
"""'One row a ticket' for 'one row per ticket'."""


def texts() -> list[Path]:
    """All that people read in source form: code, notebooks, pages, parameters, claims."""
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "PUBLISHED.md", "data/README.md")
    pages = [ROOT / name for name in (*names, "params.yaml", "dvc.yaml", "pyproject.toml")]
    folders = {"ticketlab": ("*.md", "*.ipynb"), "benchmarks": ("*.py",), "docs": ("*.md", "*.py")}
    folders |= {"claims": ("*.*",), "studies": ("*.yaml",), "examples": ("*.py",)}
    below = [p for name, kinds in folders.items() for k in kinds for p in (ROOT / name).rglob(k)]
    return [*MODULES, *NOTEBOOKS, *pages, *below]


@pytest.mark.parametrize("pattern", [METAPHORS, PER], ids=["metaphors", "per"])
def test_texts_and_code_use_plain_words(pattern: re.Pattern[str]) -> None:
    found = {short(path): pattern.findall(path.read_text()) for path in texts()}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("pattern", "wrong", "right"),
    [
        (PER, "one row a ticket", "one row per ticket"),
        (PER, "Rewinds once\na round.", "Rewinds once per round."),
        (PER, "a line a round and seed", "a line with a layer missing"),
        (PER, "one a net: x (K, B)", "prunes all at once, a ticket remains"),
        (METAPHORS, "Name it for the person who waits.", "Set the label of the display."),
        (METAPHORS, "classified otherwise than by the dense net", "classified differently"),
    ],
)
def test_the_patterns_tell_wrong_words_from_right_ones(
    pattern: re.Pattern[str], wrong: str, right: str
) -> None:
    assert pattern.search(wrong) and not pattern.search(right)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_writes_every_output_of_its_stage(path: Path) -> None:
    """A stage whose output is missing fails only after the whole page has been made."""
    code = path.read_text()
    stage = (ROOT / "dvc.yaml").read_text().partition("read:")[2]
    writers = {"figures": "plots.save(", "tables": "write_table(", "metrics.json": "write_metrics(",
               "curves": "write_curve("}  # fmt: skip
    outputs = set(re.findall(r"\{item\.paper\}/([\w.]+):", stage))
    by_others = {"seeds.csv", "summary.json"}  # with the metrics, and by the stage's command
    assert outputs == {*writers, *by_others}
    assert [output for output, writer in writers.items() if writer not in code] == []


def test_the_study_of_a_notebook_run_by_itself_is_named_once() -> None:
    definition = re.compile(r"(?m)^SMOKE\b.*=")
    found = [short(path) for path in MODULES if definition.search(path.read_text())]
    assert found == ["ticketlab/study/verdicts.py"]


def test_yaml_is_parsed_in_one_place() -> None:
    """So what a person writes cannot end in a parser's or constructor's own error."""
    users = [
        short(path)
        for path in MODULES
        if re.search(r"(?m)^\s*(from|import) (ruamel|yaml)\b", path.read_text())
    ]
    assert users == ["ticketlab/files.py"]


@pytest.mark.slow
def test_an_installed_package_finds_its_project_from_the_working_directory(tmp_path: Path) -> None:
    installed, project = tmp_path / "site", tmp_path / "project"
    shutil.copytree(PACKAGE, installed / "ticketlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project)
    for name in ("studies", "notebooks", "claims"):
        shutil.copytree(ROOT / name, project / name)
    env = {key: value for key, value in os.environ.items() if key != "TICKETLAB_ROOT"}
    env["PYTHONPATH"] = str(installed)

    def check(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "ticketlab", "check"]
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )

    assert check(project / "notebooks").returncode == 0
    assert (project / "results" / "code" / "desk-colt.train").exists()
    outside = check(tmp_path)
    assert outside.returncode == 2 and outside.stderr.count("\n") == 1
    assert "params.yaml: not found here" in outside.stderr


READMES = sorted((PACKAGE / "papers").rglob("README.md"))


@pytest.mark.parametrize("path", READMES, ids=short)
def test_a_papers_readme_names_what_exists(path: Path) -> None:
    """Files by their path in the paper's folder, functions and classes by their names in it."""
    named = re.findall(r"`([^`\n]+)`", path.read_text())
    sources = [file.read_text() for file in path.parent.rglob("*.py")]
    known = set(re.findall(r"(?m)^\s*(?:def|class) (\w+)|^(\w+)(?=[:=, ])", "\n".join(sources)))
    names = {name for pair in known for name in pair} | _keys_of(sources)
    names |= {folder.name for folder in (PACKAGE / "papers").iterdir()}
    for name in named:
        if name.endswith(".py"):
            places = [path.parent, *path.parent.parent.iterdir(), *path.parent.iterdir()]
            assert any((place / name).exists() for place in places if place.is_dir()), name
        elif re.fullmatch(r"[a-z_]\w+", name):
            assert name in names, name


def _keys_of(sources: list[str]) -> set[str]:
    """Fields of parameters, and words in quotes such as the modes of planting."""
    found = re.findall(r"[\"'](\w+)[\"']|(\w+):", "\n".join(sources))
    return {quoted or field for quoted, field in found}
