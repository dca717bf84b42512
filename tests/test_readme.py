"""README and docs say what is: commands run, links and files exist, findings are the results'."""

import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.error import URLError

import pytest
import typer
from clone import Clone, Done, Terminal, finished, wait_for
from dvc.cli import DvcParserError, parse_args
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ticketlab.cli import app
from ticketlab.files import read_json
from ticketlab.pipeline import params
from ticketlab.reader import addresses, front
from ticketlab.spec import ROOT
from ticketlab.study import controls, verdicts

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:make|dvc|ticketlab|python -m ticketlab) ")
PLACEHOLDER = re.compile(r"\b(NAME|STUDY|PAPER|TICKET|HOST|ADDRESS|A B)\b(?!=)")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def lines_of(block: str) -> list[str]:
    """Its command lines, continued ones as one, without comments."""
    lines = re.sub(r"\s*\\\n\s*", " ", block).splitlines()
    bare = [re.split(r"\s{2,}#", line)[0].strip() for line in lines]
    return [line for line in bare if line and line[0] != "#"]


def commands(text: str) -> list[str]:
    """What a page has its reader run, in its order."""
    return [line for block in blocks(text, "sh") for line in lines_of(block)]


def mentioned(text: str) -> list[str]:
    """All other commands of a page: in blocks of text, and within sentences."""
    found = [line for block in blocks(text, "text") for line in lines_of(block)]
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    found += re.findall(r"`([^`\n]+)`", prose)
    return [line for line in found if COMMAND.match(line)]


WITH_COMMANDS = [name for name, text in TEXTS.items() if commands(text)]
WITH_PYTHON = {name: blocks(text, "python") for name, text in TEXTS.items()}


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with results, in which a page's commands are run from top to bottom."""
    return finished(tmp_path_factory).copy(tmp_path_factory.mktemp("page") / "clone")


Command = Callable[[str], Done]


@pytest.fixture
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
    """The site of the committed results: tests/reader/test_site_in_a_browser.py builds it."""
    assert "ticketlab report" in clone.run(f"{command} --dry-run").stdout


INSTEAD: dict[str, Callable[[Clone, str], None]] = {
    "make repro": repeats,
    "make test": checks_out,
    "TICKETLAB_FRESH=1 dvc repro --force": lambda clone, _: runs_elsewhere(
        clone, "dvc repro --force"
    ),
    "dvc exp run --queue -n sweep -S 'desk.colt.rate=0.25,0.35'": runs_elsewhere,
    "dvc exp run --run-all": runs_elsewhere,
    "ticketlab compare sweep-1 sweep-2": compares_a_sweep_elsewhere,
    "make report": reports,
    "make study STUDY=cifar10": with_another_study,
    "make study STUDY=desk_long": with_another_study,
}


def test_the_page_has_the_two_commands_first() -> None:
    assert lines_of(blocks(TEXTS["README.md"], "sh")[0]) == ["make repro", "make test"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if "tutorial" in n or n == "README.md" else ())
        for n in WITH_COMMANDS
    ],
)
def test_every_command_of_a_page_runs(name: str, clone: Clone, ticketlab: Command) -> None:
    """In the order of the page: each stands on what the ones before it did.

    Then, but for an experiment that was applied and for what is named on purpose (a remote), the
    clone is as it was.
    """
    text = TEXTS[name]
    for command in commands(text):
        if command in INSTEAD:
            INSTEAD[command](clone, command)
        elif not PLACEHOLDER.search(command):
            message = ticketlab(command) if command.startswith("ticketlab ") else clone.run(command)
            for start, check in EXPECTED.items():
                if command.startswith(start):
                    check(clone, message.stdout)
    assert ("M .dvc/config" in clone.changes()) == ("dvc remote add" in text)
    clone.run("git checkout . && dvc checkout")
    assert clone.changes() == ""
    assert clone.run("dvc status").stdout.split() == ["code:", "always", "changed"]


def has_compared(clone: Clone, expected: str) -> None:
    """The page of two revisions, tickets included."""
    assert re.search(r"[12] parameters differ", expected)
    page = clone.path("compare.html").read_text()
    assert "<code>rate</code>" in page
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=.?http", page)


def has_applied(clone: Clone, expected: str) -> None:
    """The experiment's parameter and numbers are those of the workspace."""
    assert "rate: 0.3" in clone.path("params.yaml").read_text()
    assert "metrics.json" in clone.changes()


def has_removed(clone: Clone, expected: str) -> None:
    """The experiment is forgotten."""
    assert "larger-steps" not in clone.run("dvc exp list").stdout


def says(*words: str) -> Callable[[Clone, str], None]:
    """What a command's output must have."""

    def check(clone: Clone, expected: str) -> None:
        assert [word for word in words if word not in expected] == [], expected

    return check


EXPECTED: dict[str, Callable[[Clone, str], None]] = {
    "dvc exp show --only-changed": says(
        "[larger-steps]", "desk.colt.rate", "colt.colt_minus_imp_points", "0.3"
    ),
    "dvc params diff": says("desk.colt.rate", "0.3"),
    "dvc metrics diff": says("colt.colt_minus_imp_points"),
    "ticketlab compare HEAD": has_compared,
    "dvc exp apply": has_applied,
    "dvc exp remove": has_removed,
    "ticketlab verify": says("reproduced byte for byte"),
    "dvc pull": says("up to date"),
}
"""What must come of commands that start so, beyond that they end well."""


# --- commands that a page mentions: they exist, and their options do


@cache
def targets() -> set[str]:
    """What `make` can make."""
    return set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def parse_ticketlab(words: list[str]) -> None:
    """Raises typer's error for a command or an option that does not exist."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    while isinstance(command, TyperGroup):
        if not words:
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    if words:  # a bare name in a sentence is no call
        command.make_context(str(command.name), list(words))


def parse_dvc(words: list[str]) -> None:
    """Raises DVC's error for a command or an option that does not exist."""
    try:
        parse_args(words)
    except SystemExit as end:  # of --help
        assert not end.code, words


def parse(command: str) -> None:
    """Check one command line; programs that are not the project's are left alone."""
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command))
    if words[:3] == ["python", "-m", "ticketlab"]:
        words = words[2:]
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= targets(), command
    elif words[0] == "ticketlab":
        parse_ticketlab(words[1:])
    elif words[0] == "dvc":
        parse_dvc(words[1:])


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_that_is_named_exists(name: str) -> None:
    for line in commands(TEXTS[name]) + mentioned(TEXTS[name]):
        for command in line.split(" && "):
            parse(command)


@pytest.mark.parametrize(
    "command",
    ["make coffee", "ticketlab brew", "ticketlab plan --hot", "dvc exp brew", "dvc repro --hot",
     "python -m ticketlab study brew"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises((AssertionError, TyperException, DvcParserError)):
        parse(command)


def test_make_lab_serves_the_notebooks(clone: Clone) -> None:
    """JupyterLab comes up and lists the notebooks; it is ended by its own process group."""
    assert "jupyter lab notebooks" in clone.run("make --dry-run lab").stdout
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


@pytest.mark.parametrize("command", ["jupyter lab", "dask worker"])
def test_what_is_started_pinned_is_found(command: str, clone: Clone) -> None:
    """The program starts; that it is pinned is tested elsewhere."""
    message = clone.run(f".venv/bin/ticketlab pinned {command} --version").stdout
    assert re.search(r"\d+\.\d+", message)


RUNNER = """
import sys
for path in sys.argv[1:]:
    print("block", path)
    exec(compile(open(path).read(), path, "exec"), {"__name__": "__main__"})
"""


def test_the_python_of_all_pages_runs(clone: Clone, tmp_path: Path) -> None:
    """Every block on its own names, and prints; one process, as importing torch takes seconds."""
    texts = [block for found in WITH_PYTHON.values() for block in found]
    paths = [tmp_path / f"{number}.py" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER)
    message = clone.run(f"python -W error {runner} {shlex.join(map(str, paths))}").stdout
    outputs = message.split("block ")[1:]
    assert len(outputs) == len(paths) >= 6
    assert [text for text in outputs if len(text.splitlines()) < 3] == []


# --- length, links, files, words


def test_readme_is_read_in_three_minutes() -> None:
    assert len(TEXTS["README.md"]) < 12_000


WIDEST = {"README.md": 60}
"""Characters of a code line; on other pages 80, which a window of 1280 pixels shows."""


@pytest.mark.parametrize("name", TEXTS)
def test_no_code_line_is_cut(name: str) -> None:
    most = WIDEST.get(name, 80)
    lines = [
        line
        for language in ("sh", "text", "python", "yaml")
        for block in blocks(TEXTS[name], language)
        for line in block.splitlines()
    ]
    assert [line for line in lines if len(line) > most] == []


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    heads = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_pictures_exist(name: str) -> None:
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        place = (folder / path).resolve() if path else ROOT / name
        assert "://" in target or place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place.read_text()), target


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "README.md"])
def test_pages_of_the_site_link_only_to_one_another(name: str) -> None:
    """Files of the project are named in code instead: the site does not have them."""
    folder = (ROOT / name).parent
    found = re.findall(r"\]\(([^)#]+)", TEXTS[name])
    outside = [one for one in found if not (folder / one).resolve().is_relative_to(DOCS)]
    assert outside == []


def test_every_page_of_the_docs_is_in_an_index() -> None:
    for folder in ("how-to", "explanation"):
        pages = {path.stem for path in (DOCS / folder).glob("*.md")} - {"index"}
        index = TEXTS[f"docs/{folder}/index.md"]
        listed = re.findall(r"(?m)^(\w+)$", index.partition(":hidden:")[2])
        assert set(listed) == pages == set(re.findall(r"\]\((\w+)\.md\)", index))


@pytest.mark.parametrize("name", TEXTS)
def test_named_files_exist(name: str) -> None:
    """Paths in backticks, where they name one file."""
    top = "ticketlab|notebooks|results|data|tests|docs|claims|studies|examples|benchmarks"
    named = re.findall(rf"`((?:{top})/[\w./-]+)`", TEXTS[name])
    made = ("data/raw", "data/prepared", "studies/mine.yaml", "results/desk/runs")
    missing = [
        one
        for one in named
        if not one.startswith(made) and not PLACEHOLDER.search(one) and not (ROOT / one).exists()
    ]
    assert missing == []


def terms() -> list[str]:
    """What the glossary defines."""
    (block,) = re.findall(r"(?s)```\{glossary\}\n(.*?)```", TEXTS["docs/glossary.md"])
    return [line for line in block.splitlines() if re.match(r"\w", line)]


def test_every_term_of_the_glossary_is_used() -> None:
    pages = [*PAGES, *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("claims/*.yaml")]
    texts = [path.read_text().lower() for path in pages if path.name != "glossary.md"]
    text = re.sub(r"\s+", " ", " ".join(texts))
    found = terms()
    assert len(found) == len({term.lower() for term in found}) >= 30
    assert [term for term in found if not re.search(rf"\b{re.escape(term.lower())}", text)] == []


@pytest.mark.parametrize("name", TEXTS)
def test_addresses_of_tickets_are_addresses(name: str) -> None:
    for found in re.findall(r"[\w/.-]+/seed-\d+@[\w-]+", TEXTS[name]):
        address = addresses.parse(found)
        assert address.paper in params.PAPERS and address.sparsity


# --- what the pages say of results


def test_the_findings_are_those_of_the_results(committed: Path) -> None:
    found = verdicts.studies(params.chosen_studies(), committed / "results")
    for path, text in front.pages(lambda path: (committed / path).read_text(), found).items():
        assert (committed / path).read_text() == text, f"{path}: run: ticketlab claims --write"


def test_the_examples_of_a_verdict_are_those_of_the_results(committed: Path) -> None:
    text = " ".join(TEXTS["docs/explanation/verdicts.md"].split())
    found = verdicts.of_study(committed / "results/desk")
    every = {one.claim.id: one for some in found.values() for one in some}
    for claim in ("dlth-C9-warm", "colt-S4", "compare-21"):
        shown = every[claim].ours.partition(" (n")[0]
        mean, _, spread = shown.partition(" ")
        assert mean in text and spread in text, (claim, shown)
        assert every[claim].word in text
    assert every["dlth-C9-warm"].message in text


def test_the_page_of_the_beds_names_every_control_that_did_not_pass(committed: Path) -> None:
    section = TEXTS["docs/explanation/beds.md"].partition("## What cannot be judged here")[2]
    rows = [line for line in section.splitlines() if re.match(r"\| (both|`desk)", line)]
    said = {
        (name, bed)
        for row in rows
        for name in re.findall(r"`(\w+)`", row.split("|")[3])
        for bed in re.findall(r"`(\w+)`", row.split("|")[2])
    }
    metrics = (committed / "results").glob("desk*/*/metrics.json")
    found = [one for path in metrics for one in controls.all_of(read_json(path))]
    assert said == {(one.name, one.bed) for one in found if not one.passed}
