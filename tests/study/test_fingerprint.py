"""Fingerprints: what changes the key of a unit and what does not, on a copy of the package."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.compare import study as compare_study
from ticketlab.pruning import saliency
from ticketlab.spec import ROOT
from ticketlab.study import fingerprint as code
from ticketlab.study.fingerprint import (
    Symbol,
    fingerprint,
    reach,
    source_fingerprint,
    source_of,
    strings_in,
)

COLT = Symbol("ticketlab.papers.colt.study", "phases")
Edit = Callable[[str], str]


def forget() -> None:
    """As in a new process."""
    for made in vars(code).values():
        if hasattr(made, "cache_clear"):
            made.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which fingerprints are taken of."""
    copy = tmp_path / "ticketlab"
    shutil.copytree(ROOT / "ticketlab", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    forget()
    yield copy
    forget()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, (path, old)
    path.write_text(text.replace(old, new, 1))
    forget()


def now() -> str:
    """COLT's training with a conv3."""
    return fingerprint(colt_study.phases, strings=["conv3", "adam"])


NEW = "def unused() -> int:\n    return 1\n\n\n"
SAME = {
    "a docstring": ("training/loop.py", '"""', '"""Changed. '),
    "a comment": ("training/loop.py", "\n\n\n", "\n\n\n# a comment\n"),
    "an import": ("training/loop.py", "import torch\n", "import math\nimport torch\n"),
    "figures": ("papers/colt/figures.py", "figsize=", "dpi=99, figsize="),
    "a report": ("papers/colt/report.py", "import", "import json\nimport"),
    "another paper": ("papers/prac/algorithm.py", "return ", "1 + 1\n    return "),
    "the progress display": ("progress.py", "0.3", "0.4"),
    "the command line": ("cli/__init__.py", "no_args_is_help=True", "no_args_is_help=False"),
    "another architecture": ("models/registry.py", '{\n    "len', '{\n    "new": lenet,\n    "len'),
    "an architecture that it does not use": ("models/plain.py", "def lenet(", f"{NEW}def lenet("),
    "another criterion": ("pruning/criteria.py", "def uniform(", f"{NEW}def uniform("),
}
OTHER = {
    "the loop": ("training/passes.py", "loss.backward()", "(2 * loss).backward()"),
    "a default": ("training/optimizers.py", "bool | None = None", "bool | None = True"),
    "the masks": ("pruning/masks.py", "torch.equal(self[n], other[n])", "True"),
    "its architecture": ("models/plain.py", "def conv3(", "def conv3(more: int, "),
    "its initialisation": ("models/inits.py", "reset_parameters", "reset_weights"),
    "a default parameter": ("papers/colt/params.py", "0.2", "0.25"),
    "which weights are pruned": ("models/layers.py", "return ", "return 1 and "),
    "what a module does when imported": ("gpu.py", "class Runtime", "print()\n\nclass Runtime"),
}


@pytest.mark.parametrize("what", SAME)
def test_what_decides_no_result_keeps_a_fingerprint(package: Path, what: str) -> None:
    before = now()
    file, old, new = SAME[what]
    edit(package / file, old, new)
    assert now() == before


@pytest.mark.parametrize("what", OTHER)
def test_what_may_decide_a_result_changes_a_fingerprint(package: Path, what: str) -> None:
    before = now()
    file, old, new = OTHER[what]
    edit(package / file, old, new)
    assert now() != before


def test_a_module_that_moves_keeps_all_fingerprints(package: Path) -> None:
    before = now(), fingerprint(compare_study.phases)
    (package / "pruning" / "masks.py").rename(package / "pruning" / "keeping.py")
    for path in package.rglob("*.py"):
        text = path.read_text()
        text = text.replace("pruning.masks import", "pruning.keeping import")
        text = text.replace(
            "from ticketlab.pruning import masks", "from ticketlab.pruning import keeping as masks"
        )
        path.write_text(text.replace("import masks, saliency", "import keeping as masks, saliency"))
    forget()
    assert (now(), fingerprint(compare_study.phases)) == before


def test_a_function_of_the_same_name_elsewhere_is_another_one(package: Path) -> None:
    for name, text in {"one": "return 1", "two": "return 2"}.items():
        (package / f"{name}.py").write_text(f"def f() -> int:\n    {text}\n")
    found = []
    for name in ("one", "two"):
        (package / "caller.py").write_text(
            f"from ticketlab.one import f as g\nfrom ticketlab.two import f as h\n"
            f"from ticketlab.{name} import f\n\n\ndef call() -> int:\n    return f() + g() + h()\n"
        )
        forget()
        found.append(code._fingerprint((Symbol("ticketlab.caller", "call"),), frozenset()))
    assert found[0] != found[1]


def test_a_registry_counts_only_for_the_names_that_are_used(package: Path) -> None:
    def of(name: str) -> str:
        return fingerprint(saliency.prune_model, strings=[name])

    before = {name: of(name) for name in ("snip", "grasp")}
    edit(package / "pruning" / "saliency.py", "curved[name]", "2 * curved[name]")  # in GraSP
    assert of("snip") == before["snip"] and of("grasp") != before["grasp"]


def test_a_plugin_is_followed_through_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "my_criteria.py"
    module.write_text(
        "FACTOR = 2\n\n\ndef mine(x):\n    return x * FACTOR\n\n\ndef other(x):\n    return 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for old, new in (("", ""), ("return 1", "return 3"), ("FACTOR = 2", "FACTOR = 5")):
        module.write_text(module.read_text().replace(old, new))
        forget()
        found.append(fingerprint(saliency.prune_model, strings=["my_criteria:mine"]))
    assert found[0] == found[1] != found[2]
    assert source_of("my_criteria") == module and source_of("numpy") is None
    forget()


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_package_that_is_installed_beside_the_environment_is_not_followed(
    is_installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip install --target` does: units made there have the keys that they have here."""
    (tmp_path / "beside_us.py").write_text("def mine(x):\n    return x\n")
    if is_installed:
        info = tmp_path / "beside_us-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beside-us\nVersion: 1.0\n")
        (info / "RECORD").write_text("beside_us.py,,\nbeside_us-1.0.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    assert (source_of("beside_us") is None) is is_installed
    forget()


def test_what_is_reached_from_a_study_is_what_decides_it() -> None:
    reached = {symbol.module for symbol in reach([COLT], ["conv3"])}
    assert reached >= {
        f"ticketlab.{name}"
        for name in (
            "papers.colt.study", "papers.colt.units", "papers.colt.algorithm", "training.loop",
            "training.optimizers", "tickets.imp", "tickets.ticket", "pruning.masks", "data.sets",
            "data.prepared", "models.registry", "models.plain", "models.inits", "gpu", "spec",
        )
    }  # fmt: skip
    assert not any(
        part in module for module in reached for part in ("figures", "report", "pipeline", "reader")
    )


def test_a_page_counts_what_its_cells_use_and_the_text_of_what_it_shows(package: Path) -> None:
    page = "from ticketlab.papers.colt import {0}\n{1}"
    used = page.format("figures", "figures.pace()")
    shown = page.format(
        "algorithm", "from x import show_source\nshow_source(algorithm.find_tickets)"
    )
    before = source_fingerprint(used), source_fingerprint(shown)
    edit(package / "papers/colt/algorithm.py", '"""', '"""Changed. ')
    assert (source_fingerprint(used), source_fingerprint(shown)) == before
    edit(package / "papers/colt/figures.py", "def pace(", "def pace(more: int, ")
    assert source_fingerprint(used) != before[0]
    text = (package / "papers/colt/algorithm.py").read_text()
    at = text.index('"""', text.index("def find_tickets("))
    (package / "papers/colt/algorithm.py").write_text(text[: at + 3] + "Changed. " + text[at + 3 :])
    forget()
    assert source_fingerprint(shown) != before[1]


def test_strings_are_found_at_any_depth() -> None:
    assert set(strings_in({"a": ["b", {"c": ("d", 1, None)}]})) == {"a", "b", "c", "d"}
