"""Notebooks as the study runs them: executed with typed parameters, normalised, checked, read.

papermill and all of Jupyter are imported where they are used: the command line imports this module,
on machines that only train, too, and a notebook's own kernel should not wait for them.
"""

import ast
import copy
import inspect
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

from ticketlab.files import write_atomically
from ticketlab.spec import ROOT, InputError

if TYPE_CHECKING:
    from IPython.display import Markdown
    from nbformat import NotebookNode

CELL_LINES = 14  # lines of code in one cell
DEF_LINES = 5  # lines of a function that a notebook may define
IF = "if-"  # starts the tag of a cell that is left out where the parameter named after it is None

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
_ROOT = re.compile(rf"(?:{re.escape(str(ROOT))}|{re.escape(str(ROOT.resolve()))})(?![\w-]|\.\w)")
_ABSOLUTE = re.compile(
    r"(?<![\w.:/~*-])/(?:home|root|Users|work|tmp|mnt|media|opt|usr|var|srv|data|content|kaggle)/"
    r"|\b[A-Za-z]:\\\w"
)
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_LANGUAGE = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}


class NotebookFailed(RuntimeError):
    """A cell failed: the message has its number and traceback; `partial` is the notebook so far."""

    def __init__(self, message: str, partial: Path) -> None:
        super().__init__(message)
        self.partial = partial


Started = Callable[[int, int], None]
"""Is called with the number of each cell before it runs, from 1, and how many there are."""


def execute(
    source: Path, target: Path, parameters: dict[str, Any], started: Started = lambda *_: None
) -> None:
    """Run the notebook `source` with `parameters` and put the normalised result at `target`.

    Cells tagged `if-NAME` are left out where the parameter NAME is None, since the study lacks that
    part. `target` changes only when every cell ran. What cells write to stderr goes to this
    process's stderr as it comes (progress, warnings) and never into the page.
    Raises InputError before running (no such notebook, parameters that its parameters cell does
    not have or that are not plain values) and NotebookFailed when a cell fails.
    """
    notebook = _read_source(source)
    values = {name: _plain(source, name, value) for name, value in parameters.items()}
    notebook.cells = [cell for cell in notebook.cells if not _left_out(cell, values)]
    _check_names(source, notebook, values)
    running = target.with_name(f".{target.stem}.running.ipynb")
    failed = target.with_suffix(".failed.ipynb")
    write_atomically(running, b"")  # a folder that takes no files should fail now, not in an hour
    try:
        _run(source, notebook, values, running, failed, started)
        _keep(running, target)
    finally:
        running.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)


def _left_out(cell: dict[str, Any], values: dict[str, Any]) -> bool:
    """Return whether a cell belongs to a part that these parameters leave out."""
    return any(name in values and values[name] is None for name in _parts(cell))


def _parts(cell: dict[str, Any]) -> list[str]:
    """Return the parameters that a cell needs, NAME of its tags `if-NAME`."""
    return [tag.removeprefix(IF) for tag in tags(cell) if tag.startswith(IF)]


def _run(
    source: Path,
    notebook: "NotebookNode",
    values: dict[str, Any],
    running: Path,
    failed: Path,
    started: Started,
) -> None:
    """Execute into `running`; on a failing cell or a dead kernel keep the page as `failed`."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        _papermill(notebook, values, running, started)
    except PapermillExecutionError as error:
        where, trace = f"In [{error.exec_count}]", _ANSI.sub("", "\n".join(error.traceback))
    except DeadKernelError:
        where = f"In [{_started(_read(running))}]"
        trace = "the kernel died (killed from outside, or out of memory)"
    else:
        return
    _keep(running, failed)
    raise NotebookFailed(f"{source.name} failed in cell {where}\n{trace}", failed)


def _keep(running: Path, target: Path) -> None:
    """Put the normal form of what ran at `target`."""
    import nbformat

    write_atomically(target, (nbformat.writes(normalise(_read(running))) + "\n").encode())


def _papermill(
    notebook: "NotebookNode", values: dict[str, Any], running: Path, started: Started
) -> None:
    """One papermill run in ROOT, saved after every cell into `running`."""
    import papermill
    from papermill.translators import papermill_translators

    papermill_translators.register("python3", _injected())
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are raised, not logged
    count = len(notebook.cells) + 1  # papermill adds one with the parameters
    with tempfile.TemporaryDirectory(prefix="ticketlab-ipython-") as ipython:
        papermill.execute_notebook(
            notebook,
            str(running.resolve()).replace("{", "{{").replace("}", "}}"),  # it is a template
            parameters=values,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_this_python(),
            extra_arguments=[f"--ipython-dir={ipython}"],  # no start-up files of the user
            progress_bar=False,
            stderr_file=sys.stderr,
            on_cell_start=lambda cell, cell_index: started(cell_index + 1, count),
            cwd=ROOT,
        )


def _this_python() -> type:
    """A kernel in this very interpreter, whatever `python3` kernelspec the user has installed."""
    import zmq
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class ThisPython(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _native_only(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

        @default("transport_encryption")
        def _private(self) -> str:
            return "auto" if zmq.has("curve") else "disabled"  # others on the machine cannot listen

        def start_kernel(self, *args: Any, **options: Any) -> Any:
            """Start with a fixed hash seed, so that a printed set keeps its order in each run."""
            env = {**os.environ, "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
            env.pop("PYTEST_CURRENT_TEST", None)  # ipykernel captures less under pytest
            return super().start_kernel(*args, env=env, **options)

    return ThisPython


def _injected() -> type:
    """Papermill's Python translator, but one wrapped assignment a line, with or without black."""
    from papermill.translators import PythonTranslator

    class Injected(PythonTranslator):  # type: ignore[misc]
        @classmethod
        def codify(cls, parameters: dict[str, Any], comment: str = "Parameters") -> str:
            return "\n".join([f"# {comment}", *map(assignment, parameters, parameters.values())])

    return Injected


def assignment(name: str, value: Any) -> str:
    """`name = value` in Python, long values wrapped under their first bracket."""
    head = f"{name} = "
    lines = pformat(value, width=88 - len(head), sort_dicts=False).splitlines()
    return head + f"\n{' ' * len(head)}".join(lines)


def parameter_names(notebook: dict[str, Any]) -> list[str]:
    """What the cell tagged `parameters` assigns, in order. InputError unless there is exactly one
    such cell and it holds plain Python."""
    cells = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise InputError(f"{len(cells)} cells are tagged 'parameters', there must be exactly one")
    try:
        body = ast.parse(_text(cells[0])).body
    except SyntaxError as error:
        raise InputError(f"the cell tagged 'parameters' is not plain Python: {error.msg}") from None
    assigned = [node for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
    names = [name for node in assigned for name in ast.walk(node) if isinstance(name, ast.Name)]
    return [name.id for name in names if isinstance(name.ctx, ast.Store)]


def _check_names(source: Path, notebook: "NotebookNode", names: Iterable[str]) -> None:
    """Papermill only warns of a parameter that the notebook does not have."""
    try:
        known = parameter_names(notebook)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    for name in names:
        if name not in known:
            allowed = ", ".join(known) or "nothing"
            raise InputError(f"{source}: unknown parameter {name!r}, allowed: {allowed}")


def _plain(source: Path, name: str, value: Any) -> Any:
    """A parameter as plain dicts, lists, strings, numbers, booleans and None (no tuples)."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        shown = " ".join(repr(value).split())
        allowed = "finite numbers, strings, booleans, None, and lists or dicts of them"
        raise InputError(f"{source}: parameter {name} is {shown}, allowed: {allowed}") from None


def normalise(nb: "NotebookNode") -> "NotebookNode":
    """A copy without anything that differs between two equal runs: no timing, no random ids, no
    absolute paths or addresses, no stderr, no interpreter version; tags and outputs stay."""
    nb = copy.deepcopy(nb)
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata.update(kernelspec=dict(_KERNEL), language_info=dict(_LANGUAGE))
    for key in ("papermill", "widgets"):
        nb.metadata.pop(key, None)
    for number, cell in enumerate(nb.cells):
        cell.id = f"cell-{number}"
        cell.source = _portable(cell.source)
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):  # papermill gives every cell a list
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _portable(_joined_streams(cell.outputs))
    return nb


def _joined_streams(outputs: list["NotebookNode"]) -> list["NotebookNode"]:
    """Printed text as one output: where a kernel cuts it into messages is a matter of timing."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _portable(value: Any) -> Any:
    """Strings at any depth with ROOT as `.` and object addresses blanked; images are left alone."""
    if isinstance(value, str):
        return _ADDRESS.sub("at 0x0", _ROOT.sub(".", value))
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            value[key] = value[key] if key.startswith("image/") else _portable(value[key])
    return value


def show_source(*functions: Callable[..., Any] | type) -> "Markdown":
    """The source of core functions (or classes), highlighted, each under its file's name."""
    from IPython.display import Markdown

    return Markdown("\n\n".join(_fenced(function) for function in functions))


def _fenced(function: Callable[..., Any] | type) -> str:
    """One source under its file relative to the package's folder, the same on every machine."""
    file = Path(inspect.getfile(inspect.unwrap(function))).resolve()
    package = Path(__file__).resolve().parents[1]
    name = file.relative_to(package.parent).as_posix() if package in file.parents else file.name
    code = inspect.getsource(function).rstrip()
    fence = max(["``", *re.findall("`{3,}", code)], key=len) + "`"
    return f"`{name}`\n\n{fence}python\n{code}\n{fence}"


def code_of(path: Path) -> str:
    """The code cells of a stored notebook as one program, without IPython's own lines."""
    cells = [cell.source for cell in _read_source(path).cells if cell.cell_type == "code"]
    return _plain_python("\n".join(cells))


def _plain_python(code: str) -> str:
    """Code with IPython's magics and shell lines as `pass`."""
    return re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", code)


def check_clean(path: Path) -> list[str]:
    """What keeps `path` from being a stored notebook of this project; empty when it is clean."""
    try:
        nb = json.loads(path.read_text(encoding="utf-8"))
        cells = list(nb["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"not a notebook: {error}"]
    problems = list(_page_problems(nb))
    for number, cell in enumerate(cells):
        problems += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
    return problems


def _page_problems(nb: dict[str, Any]) -> Iterator[str]:
    metadata, cells = nb.get("metadata", {}), nb["cells"]
    if (nb.get("nbformat"), nb.get("nbformat_minor", 0) >= 5) != (4, True):
        yield "nbformat must be 4.5 or later, with cell ids"
    if (kernel := metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"kernelspec is {kernel!r}, must be 'python3'"
    if "version" in metadata.get("language_info", {}):
        yield "language_info.version is stored, it changes with every interpreter"
    ids = [cell.get("id") for cell in cells]
    if len(set(ids)) != len(ids):
        yield "two cells have the same id"
    try:
        known = parameter_names(nb)
    except InputError as error:
        yield str(error)
    else:
        for name in sorted({name for cell in cells for name in _parts(cell)} - set(known)):
            yield f"tag {IF}{name}: {name!r} is no parameter"


def _cell_problems(cell: dict[str, Any]) -> Iterator[str]:
    text = _text(cell)
    if not cell.get("id"):
        yield "has no id"
    if found := _ABSOLUTE.search(text):
        yield f"has an absolute path ({found.group()}...)"
    if cell.get("cell_type") == "code":
        if cell.get("outputs"):
            yield "has outputs"
        if cell.get("execution_count") is not None:
            yield "has an execution count"
        yield from _code_problems(text, is_parameters="parameters" in tags(cell))


def _code_problems(text: str, is_parameters: bool) -> Iterator[str]:
    """Cells stay short and define no logic; parameters and imports may be as long as they must."""
    code = _plain_python(text)
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        yield f"does not parse: {error.msg}"
        return
    lines = [line for line in code.splitlines() if line.strip() and line.strip()[0] != "#"]
    is_free = is_parameters or all(isinstance(n, ast.Import | ast.ImportFrom) for n in tree.body)
    if len(lines) > CELL_LINES and not is_free:
        yield f"has {len(lines)} lines of code, at most {CELL_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > DEF_LINES:
                yield f"defines {node.name} in {length} lines, at most {DEF_LINES}: move it"


def _read_source(source: Path) -> "NotebookNode":
    """A stored notebook, or InputError when there is none or it cannot be read."""
    try:
        return _read(source)
    except FileNotFoundError:
        raise InputError(f"no notebook at {source}") from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{source} cannot be read as a notebook: {reason}") from None


def _read(path: Path) -> "NotebookNode":
    import nbformat

    notebook: NotebookNode = nbformat.read(path, as_version=4)
    return notebook


def tags(cell: dict[str, Any]) -> list[str]:
    """The tags of a cell."""
    found: list[str] = cell.get("metadata", {}).get("tags", [])
    return found


def _text(cell: dict[str, Any]) -> str:
    """A cell's source, which a notebook file stores as one string or as a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _started(nb: "NotebookNode") -> int:
    """How many code cells papermill has started: the number of the last one."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    return sum(cell.metadata.papermill.get("start_time") is not None for cell in cells)
