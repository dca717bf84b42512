"""The site: claims lead to cells, figures and code; anchors stay; a broken link ends the build."""

import base64
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import Message
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ticketlab.pipeline import machine
from ticketlab.reader import site
from ticketlab.reader.html import slug
from ticketlab.reader.site import links, notebooks, pages
from ticketlab.spec import ROOT
from ticketlab.study.rules import COLOURS
from ticketlab.study.stats import as_reference

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478"
        "9c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
    )
).decode()
CLAIMS = """\
- {id: colt-H1, tier: headline, statement: It "holds" & lasts., source: table 1, metric: a.b,
   at_least: -1.0, reference: dense, paper_value: "2 < 3", figure: accuracy, table: "report.table(",
   studies: [desk]}
- {id: colt-H2, tier: paper, statement: It is fast., source: abstract, metric: a.c,
   above: 0.0, reference: dense, figure: never_drawn, studies: [desk]}
"""
REDIRECTS = """\
- {old: colt-H0, new: colt-H1, reason: It asked the same., verdict: undecided}
"""
REPORT = '"""Tables."""\n\n\ndef table(rows: int) -> int:\n    """One row."""\n    return rows\n'
EVIDENCE = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 3}
PANDAS = """\
<style scoped>.a {}</style><table border="1" class="dataframe">
<thead><tr style="text-align: right;"><th></th><th>n</th></tr></thead>
<tbody><tr><th>a</th><td style="color: #1a7f37">1</td></tr></tbody></table>
"""
INDEX = """\
# A project

## What was found

```{include} generated/findings.md
```

```{toctree}
Results <results/index>
claims
*/index
```
"""


def notebook() -> nbformat.NotebookNode:
    """An executed page with one of everything that ours have."""
    png = {"image/png": PIXEL, "text/plain": "<Image>"}
    drawn = new_output("display_data", png, metadata={"image/png": {"alt": 'A "b"', "width": 9}})
    seen = new_output("display_data", {"text/markdown": "*What you see:* a dot"})
    table = new_output("execute_result", {"text/html": PANDAS, "text/plain": "n"})
    said = new_output("stream", text="x < y\n")
    cells = [
        new_markdown_cell("# COLT: overlap\n\n*A paper*, with <b>words</b>."),
        new_code_cell("import torch\nfrom ticketlab import plots, report"),
        new_code_cell("seeds = [0]", metadata={"tags": ["parameters"]}),
        new_markdown_cell("## Is it *as good*? (H1)"),
        new_code_cell('plots.save(report.table(1), pages, "accuracy")', outputs=[seen, drawn]),
        new_code_cell("report.table(1)", outputs=[table, said]),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    language = {"name": "python", "pygments_lexer": "ipython3"}
    return new_notebook(cells=cells, metadata={"language_info": language})


def results(root: Path, study: str, dense: float = 80.0) -> Path:
    """A study with one paper; H2 was not run. The dense net's score is exact."""
    folder = root / "results" / study / "colt"
    folder.mkdir(parents=True)
    nbformat.write(notebook(), folder / "colt.ipynb")
    (folder / "figures").mkdir()
    (folder / "figures" / "accuracy.png").write_bytes(base64.b64decode(PIXEL))
    facts = {
        "a": {"b": EVIDENCE, "c": None},
        "provenance": {"code": "0123456789abcdef"},
        "references": {"dense": {"the dense net": as_reference({0: dense, 1: dense}, 10.0)}},
    }
    (folder / "metrics.json").write_text(json.dumps(facts))
    return root / "results" / study


def project(root: Path) -> Path:
    """A project of two studies, the second of which learned nothing; and its package."""
    for name, text in {
        "claims/colt.yaml": CLAIMS, "claims/redirects/colt.yaml": REDIRECTS,
        "ticketlab/__init__.py": '"""A package."""\n', "ticketlab/report.py": REPORT,
        "PUBLISHED.md": "# Published\n\n| a |\n| - |\n| colt-H1 |\n\n[a file](published.yaml)\n",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    own = ("conf.py", "claims.md", "_static", "results")
    shutil.copytree(ROOT / "docs", root / "docs", ignore=lambda folder, names: (
        set(names) - set(own) if Path(folder) == ROOT / "docs" else set()
    ))  # fmt: skip
    (root / "docs" / "index.md").write_text(INDEX.replace("{toctree}", "{toctree}\n:glob:"))
    results(root, "desk")
    gpu = results(root, "gpu", dense=10.0)
    (gpu / "timings.csv").write_text("paper,arm,workers,count,mean,sum\ncolt,imp,2,3,40,120\n")
    made = dict.fromkeys(machine.DECIDES, "x") | {"kind": "cuda", "device": "a GPU"}
    (gpu / "machine.json").write_text(json.dumps({"colt": made}))
    results(root, "smoke")  # nobody's
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the small project."""
    root = project(tmp_path_factory.mktemp("site"))
    site.build(root / "site", root)
    return root / "site"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project of its own."""
    return project(tmp_path / "project")


def staged(root: Path, name: str) -> str:
    """A staged source of the project."""
    sources = root.parent / f"staged-{len(list(root.parent.iterdir()))}"
    pages.stage(sources, root)
    return (sources / name).read_text()


def page(built: Path, name: str) -> links.Page:
    return links.Page((built / name).read_text())


# What a page has


def test_every_claim_has_a_row_that_leads_to_cell_figure_and_code(built: Path) -> None:
    """That these addresses exist is checked by the build itself."""
    found = page(built, "claims.html")
    assert {"colt-H1", "colt-H2", "gpu-colt-H1", "gpu-colt-H2", "colt-H0"} <= found.anchors
    addresses = [address for _, address in found.links]
    assert "results/desk/colt.html#colt-H1" in addresses
    assert "results/gpu/colt.html#gpu-colt-accuracy" in addresses
    assert "_modules/ticketlab/report.html#table" in addresses
    text = (built / "claims.html").read_text()
    assert "report.table, line 4" in text and "2 &lt; 3" in text
    assert "the dense net is not above chance, 10.00 [10.00, 10.00] (n = 2), chance is 10" in text


def test_a_claim_that_went_into_another_is_still_found(built: Path) -> None:
    text = (built / "claims.html").read_text()
    assert re.search(r'<tr id="colt-H0">.*?<a href="#colt-H1">colt-H1</a>', text, re.DOTALL)


def test_the_front_page_has_the_findings_and_each_papers_figure(built: Path) -> None:
    text = (built / "index.html").read_text()
    assert '<a class="verdict reproduced" href="claims.html#colt-H1">reproduced</a>' in text
    assert "As claimed, it" in text and 'alt="A &quot;b&quot;"' in text


def test_a_figure_has_its_alt_text_and_says_where_it_is_from(built: Path) -> None:
    text = (built / "results" / "desk" / "colt.html").read_text()
    assert 'alt="A &quot;b&quot;"' in text
    assert "notebooks/colt.ipynb, cell 5 · code 0123456789ab" in text


def test_plumbing_is_folded(built: Path) -> None:
    text = (built / "results" / "desk" / "colt.html").read_text()
    labels = re.findall(r'<p class="collapsed admonition-title">([^<]+)', text)
    assert labels == ["Imports", "Parameters of a short run", "Code", "Code"]


def test_tables_have_no_empty_headings_and_colours_for_both_modes(built: Path) -> None:
    text = (built / "results" / "desk" / "colt.html").read_text()
    assert '<div class="wide" tabindex="0"' in text
    assert not re.search(r"<th[^>]*>\s*</th>", text) and "color: var(--reproduced)" in text
    style = (ROOT / "docs" / "_static" / "site.css").read_text()
    light, dark = re.findall(r"^html[^{]*\{(.*?)\}", style, re.MULTILINE | re.DOTALL)[:2]
    for word in map(slug, COLOURS):
        assert f"--{word}:" in light and f"--{word}:" in dark
        assert f".{word} {{ color: var(--{word}); }}" in style


def test_published_numbers_and_machines_are_pages(built: Path) -> None:
    text = (built / "results" / "published.html").read_text()
    assert '<a href="../claims.html#colt-H1">colt-H1</a>' in text and "a file" in text
    assert "2.0 min, 2 at once" in (built / "results" / "machines.html").read_text()


def test_the_table_of_claims_shares_its_id_with_no_heading(built: Path) -> None:
    """Its filters find it by the id."""
    text = (built / "claims.html").read_text()
    assert re.findall(r'<(\w+)[^>]* id="every-claim"', text) == ["table"]
    script = (built / "_static" / "claims.js").read_text()
    assert 'getElementById("every-claim")' in script


# What stays, and what must not be


def test_anchors_stay_when_a_cell_is_inserted(root: Path) -> None:
    before = staged(root, "generated/claims.html")
    path = root / "results" / "desk" / "colt" / "colt.ipynb"
    changed = nbformat.read(path, as_version=4)
    changed.cells.insert(1, new_code_cell("1 + 1"))
    for number, cell in enumerate(changed.cells):
        cell.id = f"cell-{number}"  # as executed notebooks are numbered
    nbformat.write(changed, path)
    assert staged(root, "generated/claims.html") == before
    text = staged(root, "results/desk/colt.ipynb")
    assert "colt-H1" in text and "desk-colt-accuracy" in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("figure: accuracy", "figure: exactness", "figure 'exactness' is shown by no cell"),
        ('table: "report.table("', 'table: "report.chart("', "table 'report.chart(' is shown by"),
        ('figure: accuracy, table: "report.table(",', "", "names no figure and no table"),
        ("metric: a.b", "metric: a.d", "metric 'a.d'"),
    ],
)
def test_a_claim_whose_evidence_is_nowhere_is_one_line(
    root: Path, one_line: Message, old: str, new: str, says: str
) -> None:
    (root / "claims" / "colt.yaml").write_text(CLAIMS.replace(old, new))
    message = one_line(lambda: pages.read(root))
    assert "colt-H1" in message and says in message


def test_a_link_to_no_page_ends_the_build(root: Path, one_line: Message) -> None:
    with (root / "docs" / "claims.md").open("a") as file:
        file.write("\nSee [the rules](nowhere.md).\n")
    message = one_line(lambda: site.build(root / "site", root))
    assert "nowhere.md" in message and "claims.md" in message
    assert not (root / "site").exists()


@pytest.mark.parametrize(
    ("element", "says"),
    [
        ('<a href="claims.html#colt-H9">a</a>', "claims.html#colt-H9: no such anchor"),
        ('<a href="claim.html">a</a>', "claim.html: no such page"),
        ('<img src="https://a.example/b.png" alt="b">', "is loaded from outside"),
        ('<script src="//a.example/b.js"></script>', "is loaded from outside"),
    ],
)
def test_what_a_page_names_must_be_in_the_site(
    built: Path, tmp_path: Path, one_line: Message, element: str, says: str
) -> None:
    changed = tmp_path / "site"
    shutil.copytree(built, changed)
    links.check(changed)
    with (changed / "index.html").open("a") as file:
        file.write(element)
    message = one_line(lambda: links.check(changed))
    assert message.startswith("report: index.html") and says in message


def test_a_second_build_replaces_the_first_and_no_other_folder(
    built: Path, one_line: Message, tmp_path: Path
) -> None:
    root = built.parent
    names = {path.relative_to(built) for path in built.rglob("*.html")}
    (built / "old.html").touch()
    site.build(built, root)
    assert {path.relative_to(built) for path in built.rglob("*.html")} == names
    (tmp_path / "mine.txt").touch()
    assert "holds other files" in one_line(lambda: site.build(tmp_path, root))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_missing_results_are_one_line(one_line: Message, tmp_path: Path) -> None:
    assert "dvc repro" in one_line(lambda: pages.read(tmp_path))


RUNS = """
runs:
  gpu-colt: {study: gpu, paper: colt, file: params.yaml, key: gpu.colt}
"""


def test_the_studies_that_are_run_come_first(root: Path) -> None:
    assert [study.name for study in pages.read(root)] == ["desk", "gpu"]
    (root / "params.yaml").write_text(RUNS)
    assert [study.name for study in pages.read(root)] == ["gpu", "desk"]


# Our own notebooks


def test_every_claim_of_the_committed_results_leads_to_its_evidence() -> None:
    """`claims.rows` refuses a claim without; most lead to the code behind them, too."""
    rows = [row for study in pages.read(ROOT) for row in study.rows]
    assert len(rows) > 100 and all(row.cell or row.verdict.word == "not run" for row in rows)
    assert sum(row.source is not None for row in rows) > 0.8 * len(rows)
    of_papers = [row for row in rows if row.source and row.source[0].startswith("ticketlab.papers")]
    assert len(of_papers) > 0.8 * len(rows)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_write_formulas_in_plain_text(path: Path) -> None:
    """The site has no MathJax, and the forge shows formulas in its own way."""
    texts = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    assert [t for t in texts if re.search(r"\$[^$\n]+\$|\\\(|\\\[|\\begin\{", t)] == []


def test_code_that_is_there_to_be_read_is_shown() -> None:
    cell = new_code_cell("mask = prune(net)", outputs=[new_output("stream", text="a")])
    titles = {"## One round by hand": None, "## The algorithm": None, "## Verdicts": "hide-input"}
    for heading, tag in titles.items():
        cells = [new_markdown_cell(heading), cell]
        made = notebooks.page(new_notebook(cells=cells), notebooks.Place("a", "b", "c"))
        assert made.cells[1].metadata.get("tags", [None]) == [tag]


@pytest.mark.slow
def test_the_reference_shows_neither_the_environment_of_its_builder_nor_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defaults such as `os.environ` as they are written; so two builds have the same bytes."""
    monkeypatch.setenv("SECRET_OF_MINE", "what nobody may read")
    sources = tmp_path / "sources"
    (sources / "_static").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", sources)
    for name in ("site.css", "claims.js"):
        shutil.copy(ROOT / "docs" / "_static" / name, sources / "_static")
    modules = ("ticketlab.instruction_set", "ticketlab.cli.plan")
    parts = [f"{name}\n{'=' * 40}\n\n.. automodule:: {name}\n   :members:\n" for name in modules]
    (sources / "index.rst").write_text("\n".join(parts))
    made = tmp_path / "made"
    site.render(sources, made, ROOT)
    text = re.sub(r"<[^<>]*>", "", (made / "index.html").read_text())
    assert "os.environ" in text and "list[str]" in text
    assert "what nobody may read" not in text
    assert not re.search(r"0x[0-9a-f]{6}", text)
