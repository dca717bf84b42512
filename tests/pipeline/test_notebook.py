"""Executing, normalising and checking notebooks: equal runs, equal bytes, nothing half-written."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ticketlab.pipeline import notebook
from ticketlab.pipeline.notebook import NotebookFailed, check_clean, execute, normalise, show_source
from ticketlab.spec import ROOT, InputError

KERNEL = {"name": "python3", "display_name": "Python 3"}


def page(*cells: str, parameters: str | None = "rounds = 1\ncolt = {}\nseeds = [0]") -> Any:
    """A notebook: a heading, a parameters cell (None: none), then code cells."""
    nb = new_notebook(cells=[new_markdown_cell("# Heading")], metadata={"kernelspec": KERNEL})
    if parameters is not None:
        nb.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nb.cells += [new_code_cell(cell) for cell in cells]
    return nb


def stored(folder: Path, *cells: str, **options: Any) -> Path:
    path = folder / "source.ipynb"
    nbformat.write(page(*cells, **options), path)
    return path


def outputs(path: Path) -> str:
    """All printed text and plain results of an executed notebook, in order."""
    cells = json.loads(path.read_text())["cells"]
    found = [out for cell in cells for out in cell.get("outputs", [])]
    return "".join("".join(out.get("text") or out["data"]["text/plain"]) for out in found)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


NOISY = (
    "import os, sys, time\nfrom pathlib import Path\nfrom ticketlab.spec import ROOT",
    "for step in range(3):\n    print('step', step)\n    time.sleep(0.3)",
    "print(time.time(), os.getpid(), file=sys.stderr)\nos.write(2, b'raw')\nprint('after')",
    "print(ROOT / 'data', Path.cwd() == ROOT)\nprint({'a', 'b', 'c', 'd', 'e'})\nobject()",
    "from IPython.display import Markdown\nMarkdown(f'in {ROOT}')",
    "print(sys.executable)\nprint(repr((rounds, colt, seeds)))",
)
VALUES: dict[str, Any] = {
    "rounds": 3,
    "colt": {
        "rate": 1e-05,
        "flip": False,
        "limit": None,
        "note": 'it\'s "quoted"\nand é \\ {braces}',
        "arms": [["dense", {"width": 16}], ["colt", {"width": 16, "deep": {"on": True}}]],
    },
    "seeds": [0, 1, 2**40],
}


def test_two_equal_runs_write_equal_bytes_whatever_surrounds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = stored(tmp_path, *NOISY)
    first, second = tmp_path / "one" / "page.ipynb", tmp_path / "two {x}" / "page.ipynb"
    execute(source, first, VALUES)
    assert "raw" in capfd.readouterr().err  # stderr reaches the person who waits

    kernels = tmp_path / "jupyter" / "kernels" / "python3"  # another project's kernel of that name
    kernels.mkdir(parents=True)
    spec = {"argv": ["/nonexistent/python"], "display_name": "X", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.chdir(tmp_path)
    execute(source, Path("two {x}") / "page.ipynb", VALUES)

    assert first.read_bytes() == second.read_bytes()
    assert files(first.parent) == files(second.parent) == {"page.ipynb"}
    text = outputs(first)
    assert "step 0\nstep 1\nstep 2\n" in text and "after" in text and "raw" not in text
    assert "./data True" in text
    assert str(ROOT) not in first.read_text()
    assert repr((VALUES["rounds"], VALUES["colt"], VALUES["seeds"])) in text
    interpreter = Path(sys.executable)
    shown = f"./{interpreter.relative_to(ROOT)}" if ROOT in interpreter.parents else interpreter
    assert f"{shown}\n" in text
    assert _unstable(first) == []


def _unstable(path: Path) -> list[str]:
    """Words that only a run's timing or machinery would have left in the file."""
    words = ["papermill", "duration", "start_time", "iopub", "0x7", "ipykernel", "3.1"]
    return [word for word in words if word in path.read_text()]


def test_a_failing_cell_keeps_the_last_good_result(tmp_path: Path) -> None:
    failing = stored(
        tmp_path, "print('fine')", "def f(x):\n    return 1 / x\nf(rounds - 2)", "print('never')"
    )
    target = tmp_path / "out" / "page.ipynb"
    target.parent.mkdir()
    target.write_text("last good result")
    with pytest.raises(NotebookFailed) as error:
        execute(failing, target, {"rounds": 2})
    message = str(error.value)
    assert "source.ipynb failed in cell In [4]" in message
    assert "ZeroDivisionError: division by zero" in message and "return 1 / x" in message
    assert "\x1b" not in message
    assert target.read_text() == "last good result"
    assert error.value.partial == target.parent / "page.failed.ipynb"
    partial = error.value.partial.read_text()
    assert "fine" in partial and "ZeroDivisionError" in partial and 'papermill":' not in partial
    assert files(target.parent) == {"page.ipynb", "page.failed.ipynb"}

    execute(failing, target, {"rounds": 3})
    assert files(target.parent) == {"page.ipynb"} and "never" in outputs(target)


def test_a_dead_kernel_is_a_failed_notebook(tmp_path: Path) -> None:
    source = stored(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookFailed, match=r"cell In \[3\].*\nthe kernel died"):
        execute(source, tmp_path / "page.ipynb", {"rounds": 2})
    assert files(tmp_path) == {"source.ipynb", "page.failed.ipynb"}


def test_a_kill_leaves_only_a_hidden_file_that_the_next_run_cleans(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    wait = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    source, target = stored(tmp_path, wait), tmp_path / "out" / "page.ipynb"
    code = (
        "import sys\nfrom ticketlab.pipeline.notebook import *\n"
        "execute(*map(Path, sys.argv[1:]), {})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(target)], cwd=ROOT)
    _wait_for(lambda: pid.exists() and pid.read_text() != "")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert files(target.parent) == {".page.running.ipynb"}
    _wait_for(lambda: not _alive(int(pid.read_text())))  # the kernel does not outlive the run

    execute(stored(tmp_path, "print('back')"), target, {})
    assert files(target.parent) == {"page.ipynb"}


def _wait_for(condition: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # an orphan that nobody reaps is dead, too
    return not status.exists() or status.read_text().rsplit(")")[-1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("parameters", "values", "message"),
    [
        (None, {"rounds": 1}, "source.ipynb: 0 cells are tagged 'parameters'"),
        ("a, b = 1, c\nseeds: list = [0]", {"c": 1}, "'c', allowed: a, b, seeds"),
        ("%matplotlib inline", {}, "is not plain Python"),
        ("rounds = 1", {"rounds": float("nan")}, "parameter rounds is nan, allowed: finite"),
        ("rounds = 1", {"rounds": {"a": Path("x")}}, "parameter rounds is {'a': PosixPath"),
    ],
)
def test_bad_parameters_are_one_clear_line_before_anything_runs(
    tmp_path: Path, parameters: str | None, values: dict[str, Any], message: str
) -> None:
    source = stored(tmp_path, "x = 1", parameters=parameters)
    with pytest.raises(InputError) as error:
        execute(source, tmp_path / "out" / "page.ipynb", values)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert files(tmp_path) == {"source.ipynb"}


@pytest.mark.parametrize(
    ("conv", "shown"), [(None, "first last"), ({"width": 2}, "first part last")]
)
def test_cells_of_a_part_that_the_study_lacks_are_left_out(
    tmp_path: Path, conv: Any, shown: str
) -> None:
    nb = page("print('first', end=' ')", "print('part', end=' ')", "print('last')",
              parameters="conv = {}")  # fmt: skip
    nb.cells[3].metadata["tags"] = ["if-conv"]
    nb.cells.insert(3, new_markdown_cell("## The part", metadata={"tags": ["if-conv"]}))
    nbformat.write(nb, tmp_path / "source.ipynb")
    target = tmp_path / "page.ipynb"
    execute(tmp_path / "source.ipynb", target, {"conv": conv})
    assert outputs(target).split() == shown.split()
    assert ("The part" in target.read_text()) == (conv is not None)


def test_a_missing_or_broken_notebook_and_a_blocked_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no notebook at .*nowhere.ipynb"):
        execute(tmp_path / "nowhere.ipynb", tmp_path / "page.ipynb", {})
    (tmp_path / "broken.ipynb").write_text('{"cells": [')
    with pytest.raises(InputError, match=r"broken.ipynb cannot be read as a notebook"):
        execute(tmp_path / "broken.ipynb", tmp_path / "page.ipynb", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written"):
        execute(stored(tmp_path, "x = 1"), tmp_path / "file" / "page.ipynb", {})


def test_an_injected_value_reads_back_as_it_was() -> None:
    for name, value in VALUES.items():
        space: dict[str, Any] = {}
        code = notebook.assignment(name, value)
        exec(code, space)
        assert space[name] == value
        assert max(map(len, code.splitlines())) <= 100


def test_normal_form_keeps_tags_and_results_and_is_its_own_normal_form() -> None:
    nb = page(f"print({str(ROOT)!r})")
    nb.metadata.update(papermill={"duration": 1.0}, widgets={}, title="kept")
    nb.metadata.language_info = {"name": "python", "version": "3.11.7"}
    cell = nb.cells[-1]
    cell.metadata.update(papermill={"duration": 1.0}, execution={"iopub": 1}, tags=["hide"])
    cell.outputs = [
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stderr", text="took 3.2 s"),
        new_output("stream", name="stdout", text=f"b {ROOT}/x {ROOT}2 {ROOT}."),
        new_output("display_data", {"text/plain": "<X at 0x7f00deadbeef>", "image/png": str(ROOT)}),
        new_output("stream", name="stdout", text="c"),
    ]
    before = nbformat.writes(nb)
    normal = normalise(nb)
    assert nbformat.writes(nb) == before  # the argument is left alone
    nbformat.validate(normal)
    done = normal.cells[-1]
    assert [out.output_type for out in done.outputs] == ["stream", "display_data", "stream"]
    assert done.outputs[0].text == f"ab ./x {ROOT}2 .."
    assert done.outputs[1].data == {"text/plain": "<X at 0x0>", "image/png": str(ROOT)}
    assert done.metadata == {"tags": ["hide"]} and done.source == "print('.')"
    assert [cell.id for cell in normal.cells] == ["cell-0", "cell-1", "cell-2"]
    assert set(normal.metadata) == {"kernelspec", "language_info", "title"}
    assert "version" not in normal.metadata.language_info
    assert nbformat.writes(normalise(normal)) == nbformat.writes(normal)


def test_a_stored_notebook_of_ours_is_clean(tmp_path: Path) -> None:
    long_parameters = "\n".join(f"p{n} = {n}" for n in range(40))
    cells = ["%matplotlib inline\nx = 1", "\n".join(["# words"] * 30), "def f(x):\n    return x"]
    assert check_clean(stored(tmp_path, *cells, parameters=long_parameters)) == []


DIRT: dict[str, Callable[[Any, Any], Any]] = {  # what a change of a page or its last cell is called
    "has outputs": lambda nb, cell: cell.update(outputs=[new_output("stream", text="x")]),
    "execution count": lambda nb, cell: cell.update(execution_count=3),
    "kernelspec is 'julia'": lambda nb, cell: nb.metadata.kernelspec.update(name="julia"),
    "kernelspec is None": lambda nb, cell: nb.metadata.pop("kernelspec"),
    "language_info.version": lambda nb, cell: nb.metadata.update(language_info={"version": "3"}),
    "has no id": lambda nb, cell: cell.pop("id"),
    "nbformat must be 4.5": lambda nb, cell: nb.update(nbformat_minor=4),
    "same id": lambda nb, cell: cell.update(id=nb.cells[0].id),
    "0 cells are tagged": lambda nb, cell: nb.cells[1].metadata.pop("tags"),
    "2 cells are tagged": lambda nb, cell: cell.metadata.update(tags=["parameters"]),
    "not plain Python": lambda nb, cell: nb.cells[1].update(source="!ls"),
    "has 15 lines of code": lambda nb, cell: cell.update(source="x = 1\n" * 15),
    "defines f in 6 lines": lambda nb, cell: cell.update(source="def f():\n" + "    x = 1\n" * 5),
    "defines A in 6 lines": lambda nb, cell: cell.update(source="class A:\n" + "    x = 1\n" * 5),
    "tag if-part: 'part' is no parameter": lambda nb, cell: cell.metadata.update(tags=["if-part"]),
    "does not parse": lambda nb, cell: cell.update(source="x = = 1"),
    "absolute path (/home/": lambda nb, cell: cell.update(source="open('/home/me/x.npz')"),
    "absolute path (C:": lambda nb, cell: nb.cells[0].update(source=r"see C:\data\x"),
}


@pytest.mark.parametrize("problem", DIRT)
def test_each_problem_of_a_stored_notebook_is_named(tmp_path: Path, problem: str) -> None:
    nb = page("x = 1")
    DIRT[problem](nb, nb.cells[-1])
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps(nb))
    found = check_clean(path)
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}'])
def test_something_else_is_not_a_notebook(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.ipynb"
    path.write_text(text)
    assert check_clean(path) != []


def test_source_is_shown_under_its_file_name() -> None:
    shown = show_source(notebook.assignment, NotebookFailed).data
    assert shown is not None and shown.startswith(
        "`ticketlab/pipeline/notebook.py`\n\n```python\ndef assign"
    )
    assert "class NotebookFailed(RuntimeError):" in shown and shown.count("\n```python\n") == 2
    assert str(ROOT) not in shown and shown == show_source(notebook.assignment, NotebookFailed).data


def test_a_fence_in_the_source_does_not_end_the_page() -> None:
    def documented() -> str:
        return "```"

    shown = show_source(documented).data
    assert shown is not None and shown.startswith("`test_notebook.py`\n\n````python\n")


# --- what a study leaves out

HEADED = {"len(over_images)"}
"""Conditions of displays that have their heading with them: without them nothing is announced."""


def sections(path: Path) -> list[list[ast.stmt]]:
    """The statements of each section of a notebook."""
    found: list[list[ast.stmt]] = [[]]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            found.append([])
        elif cell.cell_type == "code":
            found[-1] += ast.parse(cell.source).body
    return found


def calls(nodes: Iterable[ast.AST], name: str) -> bool:
    """Whether a function or method of this name is called in any of the nodes."""
    every = [node for top in nodes for node in ast.walk(top) if isinstance(node, ast.Call)]
    return any(ast.unparse(one.func).rpartition(".")[2] == name for one in every)


def silent_and_said(section: Iterable[ast.stmt]) -> tuple[set[str], set[str]]:
    """The conditions without which nothing is displayed, and those for which a note is instead."""
    silent, said = set[str](), set[str]()
    for node in section:
        one = node.value if isinstance(node, ast.Expr) else node
        if isinstance(one, ast.IfExp):
            without = [one.orelse]
            is_silent = ast.unparse(one.orelse) == "None"
        elif isinstance(one, ast.If):
            without = list(one.orelse)
            is_silent = (
                not without and calls(one.body, "display") and not calls(one.body, "left_out")
            )
        else:
            continue
        if is_silent:
            silent.add(ast.unparse(one.test))
        elif calls(without, "left_out"):
            said.add(ast.unparse(one.test))
        elif isinstance(one.test, ast.UnaryOp) and isinstance(one, ast.If):
            said |= {ast.unparse(one.test.operand)} if calls(one.body, "left_out") else set()
    return silent, said


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_section_says_what_the_study_leaves_out_of_it(path: Path) -> None:
    for section in sections(path):
        silent, said = silent_and_said(section)
        assert silent - HEADED <= said, path.stem


@pytest.mark.parametrize(
    "cells, unsaid",
    [
        ("x if p.a else None", {"p.a"}),
        ("if p.a:\n    display(x)", {"p.a"}),
        ("if p.a:\n    display(x)\nelse:\n    display(regime.left_out('a', 'a'))", set()),
        ("if not p.a:\n    display(regime.left_out('a', 'a'))\nx if p.a else None", set()),
        ("if not p.b:\n    display(regime.left_out('b', 'b'))\nx if p.a else None", {"p.a"}),
        ("display(x if p.a else regime.left_out('a', 'a'))\nif p.a:\n    y = 1", set()),
    ],
)
def test_a_section_that_is_silent_is_found(cells: str, unsaid: set[str]) -> None:
    silent, said = silent_and_said(ast.parse(cells).body)
    assert silent - said == unsaid
