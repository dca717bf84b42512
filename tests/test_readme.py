"""README says what is: its commands run, its links exist, its table is the results'."""

import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from clone import Clone, Done, Terminal, finished, wait_for

from ticketlab.pipeline import params
from ticketlab.reader import website
from ticketlab.spec import ROOT
from ticketlab.study import verdicts

PAGE = (ROOT / "README.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`((?:make|dvc|ticketlab|git) [^`]+)`", PAGE)


def commands() -> list[str]:
    """Every command line of the page without its comment, then those within sentences, once."""
    lines = [line for block in SHELL for line in block.splitlines()]
    bare = [line.partition("  #")[0].strip() for line in lines]
    shown = [line for line in bare if line and line[0] != "#"]
    return shown + [line for line in dict.fromkeys(INLINE) if line not in shown]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with results, in which the commands are run from top to bottom."""
    return finished(tmp_path_factory).copy(tmp_path_factory.mktemp("readme") / "clone")


Command = Callable[[str], Done]


@pytest.fixture(scope="module")
def ticketlab(clone: Clone) -> Iterator[Command]:
    """Runs `ticketlab ...` in the clone, all in one process: importing torch takes seconds."""
    terminal = Terminal(clone)

    def run(command: str) -> Done:
        done = terminal(*shlex.split(command)[1:])
        assert done.code == 0, (command, done)
        return Done(command, done.code, done.out, done.err)

    yield run
    terminal.close()


# --- commands that are not run as they stand, and what is run in their place


def checks_out(clone: Clone, command: str) -> None:
    """The recursion of the suite: what make would do, without doing it."""
    message = clone.run(command.replace("make", "make --dry-run", 1)).stdout
    assert "ruff check" in message and "mypy" in message and "pytest" in message


def repeats(clone: Clone, command: str) -> None:
    """Nothing is left to run, and the verdicts are shown; with the programs that start sooner."""
    message = clone.run(f"{command} IN_VENV=").stdout
    assert message.count("didn't change, skipping") == 3 and "COLT" in message


def serves_the_notebooks(clone: Clone, command: str) -> None:
    """JupyterLab comes up and lists the notebooks; it is ended by its own process group."""
    message = clone.run(command.replace("make", "make --dry-run", 1)).stdout
    assert "jupyter lab notebooks" in message
    arguments = (
        "jupyter lab notebooks --no-browser --allow-root --port 0 --IdentityProvider.token=t"
    )
    log = clone.path(".dvc/tmp/lab.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            shlex.split(arguments), cwd=clone.root, env=clone.env, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        pattern = r"http://(?:localhost|127\.0\.0\.1):(\d+)/"
        port = wait_for(lambda: re.search(pattern, log.read_text()))[1]
        url = f"http://127.0.0.1:{port}/api/contents?token=t"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"colt.ipynb" in wait_for(lambda: reply(opener, url))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def reply(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """What a server answers; nothing while it does not listen yet."""
    try:
        with opener.open(url, timeout=30) as answer:
            return bytes(answer.read())
    except URLError:
        return b""


def with_another_study(clone: Clone, command: str) -> None:
    """What make would do; tests/pipeline/test_pipeline.py runs it on a study of seconds."""
    study = command.partition("STUDY=")[2]
    plan = clone.run(command.replace("make", "make --dry-run", 1)).stdout
    assert f'ticketlab study add "{study}" && ticketlab repro' in plan


def runs_elsewhere(clone: Clone, command: str) -> None:
    """Another test runs it, and looks at what it leaves."""
    tests = [ROOT / "tests" / name for name in ("pipeline/test_pipeline.py", "reader/test_diff.py")]
    assert any(command in path.read_text() for path in tests), command


def compares_a_sweep_elsewhere(clone: Clone, command: str) -> None:
    """In a project whose training takes no time."""
    assert 'page(project, "sweep-1", "sweep-2"' in (ROOT / "tests/reader/test_diff.py").read_text()


def reports(clone: Clone, command: str) -> None:
    """What `ticketlab report` does, in this process: importing torch takes seconds."""
    assert "ticketlab report" in clone.run(f"{command} --dry-run").stdout
    pages = website.build(clone.path("site"), clone.root)
    assert [page.name for page in pages] == ["colt.html", "index.html"]


def measures(clone: Clone, command: str) -> None:
    """Minutes of measurements: tests/test_benchmarks.py runs small ones."""
    assert "python -m benchmarks cpu" in clone.run(f"{command} --dry-run").stdout


def starts_pinned(clone: Clone, command: str) -> None:
    """The program is found and started; that it is pinned is tested elsewhere."""
    message = clone.run(f".venv/bin/{command.removesuffix(' ...')} --version").stdout
    assert re.search(r"\d+\.\d+\.\d+", message)


INSTEAD: dict[str, Callable[[Clone, str], None]] = {
    "make repro": repeats,
    "make test": checks_out,
    "dvc repro --force": runs_elsewhere,
    "dvc exp run --queue -n sweep -S 'desk.colt.rate=0.25,0.35'": runs_elsewhere,
    "dvc exp run --run-all": runs_elsewhere,
    "ticketlab compare sweep-1 sweep-2": compares_a_sweep_elsewhere,
    "ticketlab pinned jupyter lab": starts_pinned,
    "ticketlab pinned dask worker ...": starts_pinned,
    "make lab": serves_the_notebooks,
    "make report": reports,
    "make bench": measures,
    "make study STUDY=cifar10": with_another_study,
    "make study STUDY=cifar100": with_another_study,
    "make study STUDY=paper": with_another_study,
}
PLACEHOLDER = re.compile(r"\b(NAME|STUDY|PAPER|TICKET)\b(?!=)")


def test_the_page_has_the_two_commands_first() -> None:
    assert [line.split("  ")[0].strip() for line in SHELL[0].splitlines()] == [
        "make repro",
        "make test",
    ]


def test_every_command_of_the_page_runs(clone: Clone, ticketlab: Command) -> None:
    """In the order of the page: each stands on what the ones before it did.

    After all of them only what commands write on purpose has changed (the remote of the section on
    sharing, the table of claims); the experiment that was applied and dropped on the way is gone.
    """
    for command in commands():
        if command in INSTEAD:
            INSTEAD[command](clone, command)
        elif not PLACEHOLDER.search(command):
            message = ticketlab(command) if command.startswith("ticketlab ") else clone.run(command)
            checks = [check for start, check in EXPECTED.items() if command.startswith(start)]
            for check in checks:
                check(clone, message.stdout)
    assert "M .dvc/config" in clone.changes()
    clone.run("git checkout . && dvc checkout")
    clone.path("results/desk/findings.md").unlink()  # of `ticketlab claims --write`
    assert clone.changes() == ""
    assert clone.run("dvc status").stdout.split() == ["code:", "always", "changed"]
    assert "faster" not in clone.run("dvc exp list").stdout


def has_compared(clone: Clone, expected: str) -> None:
    """The page of two revisions, tickets included."""
    assert "1 parameters differ" in expected
    page = clone.path("compare.html").read_text()
    assert "desk.colt.rate" in page and "search/imp/round-01" in page
    assert "http" not in page


def has_applied(clone: Clone, expected: str) -> None:
    """The experiment's parameter and numbers are those of the workspace."""
    assert "rate: 0.3" in clone.path("params.yaml").read_text()
    assert "metrics.json" in clone.changes()


def says(*words: str) -> Callable[[Clone, str], None]:
    """What a command's output must have."""

    def check(clone: Clone, expected: str) -> None:
        assert [word for word in words if word not in expected] == [], expected

    return check


EXPECTED: dict[str, Callable[[Clone, str], None]] = {
    "dvc exp show --only-changed": says(
        "[faster]", "desk.colt.rate", "colt_minus_imp.mean.mean", "0.3"
    ),
    "dvc params diff": says("desk.colt.rate", "0.3"),
    "dvc metrics diff": says("accuracy"),
    "ticketlab compare HEAD faster": has_compared,
    "dvc exp apply faster": has_applied,
    "ticketlab verify": says("reproduced byte for byte"),
    "dvc pull": says("up to date"),
}
"""What must come of commands that start so, beyond that they end well."""


RUNNER = """
import sys
for path in sys.argv[1:]:
    print("block", path)
    exec(compile(open(path).read(), path, "exec"), {"__name__": "__main__"})
"""


def test_the_python_of_the_page_runs(clone: Clone, tmp_path: Path) -> None:
    """Every block on its own names, and prints; one process, as importing torch takes seconds."""
    paths = [tmp_path / f"{number}.py" for number in range(len(PYTHON))]
    for path, text in zip(paths, PYTHON, strict=True):
        path.write_text(text)
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER)
    message = clone.run(f"python -W error {runner} {shlex.join(map(str, paths))}").stdout
    blocks = message.split("block ")[1:]
    assert len(blocks) == len(paths) >= 3
    assert [text for text in blocks if len(text.splitlines()) < 3] == []


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(targets) > 5
    missing = [name for name in targets if "://" not in name and not (ROOT / name).exists()]
    assert missing == []


def test_named_files_exist() -> None:
    """Paths in backticks, where they name one file."""
    pattern = r"`((?:ticketlab|notebooks|results|data|tests)/[\w./-]+)`"
    named = [name for name in re.findall(pattern, PAGE) if not PLACEHOLDER.search(name)]
    made = ("data/raw", "data/prepared")
    missing = [n for n in named if not n.startswith(made) and not (ROOT / n).exists()]
    assert missing == []


def test_the_table_of_claims_is_that_of_the_results(committed: Path) -> None:
    page = (committed / "README.md").read_text()
    found = verdicts.tables(params.chosen_studies(), committed / "results")
    assert verdicts.with_table(page, found) == page, "run: ticketlab claims --write"
