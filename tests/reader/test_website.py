"""The report: pages load nothing from elsewhere, verdicts lead to cells, figures have texts."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from conftest import Message
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ticketlab.pipeline import machine
from ticketlab.reader import website
from ticketlab.spec import ROOT
from ticketlab.study.stats import as_reference

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478"
        "9c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
    )
).decode()
CLAIMS = """\
- {id: colt-H1, tier: headline, statement: It "holds" & lasts., source: table 1, metric: a.b,
   at_least: -1.0, reference: dense, paper_value: "2 < 3", table: "b", studies: [desk]}
- {id: colt-H2, tier: paper, statement: It is fast., source: abstract, metric: a.c,
   above: 0.0, reference: dense, studies: [desk]}
"""
EVIDENCE = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 3}


def notebook() -> nbformat.NotebookNode:
    """An executed page with one of everything that ours have."""
    png, table = {"image/png": PIXEL}, {"text/html": "<table><tr><td>1</td></tr></table>"}
    message = new_output("display_data", png, metadata={"image/png": {"alt": 'A "b"'}})
    untold, said = new_output("execute_result", png), new_output("stream", text="x < y\n")
    cells = [
        new_markdown_cell("# COLT: overlap\n\n*A paper*, with <b>words</b>."),
        new_code_cell("import torch"),
        new_code_cell("seeds = [0]", metadata={"tags": ["parameters"]}),
        new_markdown_cell("## Is it *as good*? (H1)"),
        new_code_cell("a", outputs=[message]),
        new_code_cell("b", outputs=[untold, said]),
        new_markdown_cell("## Verdicts"),
        new_code_cell("styled(verdicts)", outputs=[new_output("execute_result", table)]),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells)


def results(root: Path, study: str, paper: str = "colt", dense: float = 80.0) -> Path:
    """A study with one page and its metrics; H2 was not run. The dense net's score is exact."""
    folder = root / "results" / study / paper
    folder.mkdir(parents=True)
    nbformat.write(notebook(), folder / f"{paper}.ipynb")
    arms = {"the dense net": as_reference({0: dense, 1: dense}, 10.0)}
    origin = {"torch": "2.11", "device": "cpu", "code": "0123456789abcdef"}
    facts = {"a": {"b": EVIDENCE, "c": None}, "provenance": origin}
    facts["references"] = {"dense": arms}
    (folder / "metrics.json").write_text(json.dumps(facts))
    return root / "results" / study


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of two studies; the second learned nothing, and has a page without claims."""
    root = tmp_path_factory.mktemp("site")
    (root / "claims").mkdir()
    (root / "claims" / "colt.yaml").write_text(CLAIMS)
    results(root, "desk")
    other = results(root, "gpu", dense=10.0)
    results(root, "gpu", "compare")
    (other / "compare" / "metrics.json").unlink()
    header, row = "paper,arm,workers,count,mean,sum", "colt,imp,2,3,40,120"
    (other / "timings.csv").write_text(f"{header}\n{row}\n")
    made = dict.fromkeys(machine.DECIDES, "x") | {"kind": "cuda", "device": "a GPU"}
    (other / "machine.json").write_text(json.dumps({"colt": made}))
    results(root, "smoke")  # nobody's
    website.build(root / "site", root)
    return root / "site"


class Tags(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.found.append((tag, dict(attrs)))


def pages(site: Path) -> dict[Path, Tags]:
    """All pages, parsed."""
    return {path: Tags(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_each_study_has_its_pages_and_the_index_comes_first(site: Path) -> None:
    found = [path.relative_to(site).as_posix() for path in pages(site)]
    assert found == ["desk/colt.html", "gpu/colt.html", "gpu/compare.html", "index.html"]
    text = (site / "index.html").read_text()
    places = [text.index(word) for word in ('id="desk"', 'id="gpu"', 'id="provenance"')]
    assert places == sorted(places)


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    """Only links that a reader clicks may lead out; ours do not."""
    for path, tags in pages(site).items():
        for tag, attributes in tags.found:
            assert tag != "script", path
            source = attributes.get("src") or attributes.get("href") or ""
            assert not re.match(r"(https?:)?//", source), (path, source)
    for text in [path.read_text() for path in site.rglob("*.*")]:
        assert not re.search(r"@import|url\((?!data:)", text)


def test_links_lead_to_pages_and_cells_that_exist(site: Path) -> None:
    ids = {
        path: {a["id"] for _, a in tags.found if a.get("id")} for path, tags in pages(site).items()
    }
    for path, tags in pages(site).items():
        for tag, attributes in tags.found:
            if tag in ("a", "link"):
                name, _, anchor = str(attributes["href"]).partition("#")
                target = (path.parent / name).resolve() if name else path
                assert target.exists(), (path, attributes)
                assert not anchor or anchor in ids[target], (path, attributes)


def test_a_verdict_leads_to_the_cell_that_shows_it(site: Path) -> None:
    """To that with its table or figure; without one, to the table of verdicts."""
    text = (site / "index.html").read_text()
    links = re.findall(r'<a class="([\w-]+)" href="([^"]+)">', text)
    assert links == [
        ("reproduced", "desk/colt.html#cell-5"),
        ("not-run", "desk/colt.html#cell-7"),
        ("not-testable-here", "gpu/colt.html#cell-5"),
        ("not-run", "gpu/colt.html#cell-7"),
    ]
    why = "the dense net is not above chance, 10.00 [10.00, 10.00] (n = 2), chance is 10"
    assert text.count(why) == 1 and "&gt;= -1<" in text and "&gt; 0<" in text
    assert "It &#34;holds&#34; &amp; lasts." in text and "2 &lt; 3" in text
    assert "1.00 [0.50, 1.50] (n = 3)" in text


def test_provenance_has_versions_device_and_minutes(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "2.11" in text and "0123456789ab<" in text and "2.0 min, 2 at once, a GPU" in text
    assert "Not built from a git checkout" in text
    assert website.origin(ROOT)["commit"] or not (ROOT / ".git").exists()


def test_figures_have_alt_texts_and_code_is_folded_where_it_tells_nothing(site: Path) -> None:
    path = site / "desk" / "colt.html"
    images = [a["alt"] for tag, a in pages(site)[path].found if tag == "img"]
    assert images == ['A "b"', "Figure: Is it as good? (H1)"]
    assert {a["width"] for tag, a in pages(site)[path].found if tag == "img"} == {"1"}
    text = path.read_text()
    assert re.findall(r"<details><summary>([^<]+)", text) == [
        "imports",
        "parameters of a short run",
    ]
    assert "x &lt; y" in text and "<b>words</b>" in text


def test_the_style_serves_light_and_dark_and_narrow_screens(site: Path) -> None:
    text = (site / "style.css").read_text()
    assert text.count("prefers-color-scheme: dark") >= 2 and "max-width: 40rem" in text
    assert text.count("{") == text.count("}")


def test_a_second_build_replaces_the_first_and_no_other_folder(
    site: Path, one_line: Message, tmp_path: Path
) -> None:
    root = site.parent
    before = {path: path.read_bytes() for path in site.rglob("*.*")}
    (site / "desk" / "old.html").touch()
    website.build(site, root)
    assert {path: path.read_bytes() for path in site.rglob("*.*")} == before
    (tmp_path / "mine.txt").touch()
    assert "holds other files" in one_line(lambda: website.build(tmp_path, root))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_missing_results_are_one_line(one_line: Message, tmp_path: Path) -> None:
    assert "dvc repro" in one_line(lambda: website.build(tmp_path / "site", tmp_path))
    folder = results(tmp_path, "desk")
    more = CLAIMS.replace("colt-H2", "colt-H9").replace("a.c", "a.d")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "colt.yaml").write_text(more)
    assert "colt-H9" in one_line(lambda: website.read_study(folder, tmp_path))


def test_the_verdicts_of_the_committed_results_lead_to_their_cells() -> None:
    study = website.read_study(ROOT / "results" / "desk")
    for page in study.pages:
        ids = {cell.id for cell in page.notebook.cells}
        assert {row.cell for row in page.rows} <= ids, page.name
    text = website.index([study], {"commit": None})
    assert text.count('<td class="verdict">') == sum(len(page.rows) for page in study.pages) > 50


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_write_formulas_in_plain_text(path: Path) -> None:
    """The site has no MathJax, and the forge shows formulas in its own way."""
    texts = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    assert [t for t in texts if re.search(r"\$[^$\n]+\$|\\\(|\\\[|\\begin\{", t)] == []


RUNS = """
runs:
  without-colt: {study: without, paper: colt, file: params.yaml, key: without.colt}
  main-colt: {study: main, paper: colt, file: params.yaml, key: main.colt}
"""


def test_the_studies_that_are_run_come_first(tmp_path: Path) -> None:
    for study in ("alpha", "main", "smoke"):
        (tmp_path / "results" / study / "colt").mkdir(parents=True)
        (tmp_path / "results" / study / "colt" / "colt.ipynb").touch()
    assert [folder.name for folder in website._folders(tmp_path)] == ["alpha", "main"]
    (tmp_path / "params.yaml").write_text(RUNS)
    assert [folder.name for folder in website._folders(tmp_path)] == ["main", "alpha"]
