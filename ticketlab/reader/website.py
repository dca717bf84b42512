"""`ticketlab report`: the results as a static site, made from the executed notebooks.

It loads nothing from anywhere: one style sheet, figures inside the pages, no scripts. The index has
the verdicts first; each links to the cell of the notebook that shows its numbers.
"""

import base64
import copy
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ticketlab.files import read_json, replace_folder, write_atomically
from ticketlab.pipeline import machine, timings
from ticketlab.pipeline.notebook import tags
from ticketlab.pipeline.params import chosen_studies
from ticketlab.reader.html import templates
from ticketlab.spec import ROOT, InputError
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict, as_q, judge_all, load_claims, with_q
from ticketlab.study.rules import COLOURS

if TYPE_CHECKING:
    from nbformat import NotebookNode

STYLES = {"light": "friendly", "dark": "github-dark"}
"""Pygments styles for code."""

FOLDED = {
    "parameters": "parameters of a short run",
    "injected-parameters": "parameters of this run",
}

BROAD = 860  # pixels, more than one panel side by side


@dataclass(frozen=True)
class Row:
    """A verdict and the cell that shows its number."""

    verdict: Verdict
    cell: str


@dataclass(frozen=True)
class Page:
    """One executed notebook and what the index says about it."""

    name: str
    title: str
    notebook: "NotebookNode"
    rows: Sequence[Row]
    origin: Mapping[str, str]
    work: str

    def count(self, word: str) -> int:
        """How many claims got this verdict."""
        return sum(row.verdict.word == word for row in self.rows)


@dataclass(frozen=True)
class StudyPages:
    """The pages of one study."""

    name: str
    pages: Sequence[Page]


def build(target: Path, root: Path = ROOT) -> list[Path]:
    """Write the site into the folder `target`, in place of what is there; returns its pages.

    InputError when no study has pages, or a claim's number is not in the metrics.
    """
    studies = [study for folder in _folders(root) if (study := read_study(folder, root)).pages]
    if not studies:
        raise InputError(f"report: no executed notebooks in {root / 'results'}, run `dvc repro`")
    if target.exists() and not (target / "style.css").exists() and any(target.iterdir()):
        raise InputError(f"report: {target} holds other files, allowed is an empty or new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as folder:
        new = Path(folder) / "site"
        write_atomically(new / "style.css", style().encode())
        write_atomically(new / "index.html", index(studies, origin(root)).encode())
        for study in studies:
            for page in study.pages:
                html = article(page, study)
                write_atomically(new / study.name / f"{page.name}.html", html.encode())
        replace_folder(new, target)
    return sorted(target.rglob("*.html"))


def _folders(root: Path) -> list[Path]:
    """Folders of studies with pages: those that `dvc repro` runs, then the others by name."""
    found = (path.parent.parent for path in sorted((root / "results").glob("*/*/*.ipynb")))
    known = {folder.name: folder for folder in found if folder.name != verdicts.SMOKE}
    chosen = chosen_studies(root / "params.yaml") if (root / "params.yaml").exists() else []
    first = [name for name in chosen if name in known]
    return [known[name] for name in dict.fromkeys([*first, *known])]


# ---------------------------------------------------------------- reading


def read_study(folder: Path, root: Path = ROOT) -> StudyPages:
    """The pages of results/STUDY with their verdicts."""
    names = [
        path.stem for path in sorted(folder.glob("*/*.ipynb")) if path.stem == path.parent.name
    ]
    metrics = {name: _metrics(folder, name) for name in names}
    claims = {name: load_claims(name, root / "claims") for name in names}
    found = with_q([one for name in names for one in judge_all(claims[name], metrics[name])])
    return StudyPages(folder.name, [_page(folder, name, found, metrics[name]) for name in names])


def _metrics(folder: Path, name: str) -> Mapping[str, Any]:
    facts = folder / name / "metrics.json"
    return read_json(facts) if facts.exists() else {}


def _page(folder: Path, name: str, found: Sequence[Verdict], metrics: Mapping[str, Any]) -> Page:
    import nbformat

    page = folder / name / f"{name}.ipynb"
    notebook = nbformat.read(page, as_version=4)
    cells, table = verdicts.code_cells(page), verdict_cell(notebook)
    rows = [
        Row(one, verdicts.shown_in(one.claim, cells) or table)
        for one in found
        if one.claim.paper == name
    ]
    work = _work(folder, name)
    origin = metrics.get("provenance", {})
    return Page(name, _title(notebook), notebook, rows, origin, work)


def verdict_cell(notebook: "NotebookNode") -> str:
    """The id of the cell that shows the table of verdicts, else of the last cell."""
    shown = [c.id for c in notebook.cells if c.cell_type == "code" and "styled(" in c.source]
    return str((shown or [notebook.cells[-1].id])[-1])


def _title(notebook: "NotebookNode") -> str:
    """The first heading, without the paper's name before the colon."""
    titles = [title for _, title in headings(notebook, level=1)]
    return titles[0].partition(": ")[2] or titles[0] if titles else ""


def headings(notebook: "NotebookNode", level: int) -> Iterator[tuple[str, str]]:
    """Cell id and plain text of each Markdown heading of a level."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for title in re.findall(rf"^{'#' * level} (.+)$", cell.source, re.MULTILINE):
                yield cell.id, re.sub(r"[*`]", "", title).strip()


def _work(folder: Path, name: str) -> str:
    """Minutes of all units, as measured: those of the published table, or of the last run here."""
    import pandas as pd

    published = folder / "timings.csv"
    try:
        table = pd.read_csv(published) if published.exists() else timings.table(folder)
    except InputError:
        return "–"
    rows = table[(table.paper == name) & (table.arm != timings.PAGE)]
    if rows.empty:
        return "–"
    minutes, workers = rows["sum"].sum() / 60, rows.workers.max()
    made = machine.read(folder).get(name)
    where = f", {machine.named(made)}" if made else ""
    return f"{minutes:.1f} min, {workers} at once{where}"


def origin(root: Path) -> dict[str, Any]:
    """The commit, its date, and whether files differ from it; nothing outside a git checkout."""
    commit = _git(root, "log", "-1", "--format=%h %cs").split()
    if len(commit) != 2:
        return {"commit": None}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit[0], "date": commit[1], "changed": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


# ---------------------------------------------------------------- writing


def index(studies: Sequence[StudyPages], built_from: Mapping[str, Any]) -> str:
    """The first page."""
    origins = [page.origin for study in studies for page in study.pages]
    keys = list(dict.fromkeys(key for found in origins for key in found))
    facts = {"studies": studies, "origin": built_from, "words": list(COLOURS), "keys": keys}
    return templates(q=as_q).get_template("index.html.j2").render(facts)


def article(page: Page, study: StudyPages) -> str:
    """An executed notebook as HTML: its cells' ids are anchors, its figures have alt texts."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="notebook",
        exclude_anchor_links=True,
        extra_template_basedirs=[str(Path(__file__).parent / "templates")],
    )
    site = {
        "page": page.name,
        "pages": [other.name for other in study.pages],
        "study": study.name,
        "title": f"{page.name} ({study.name})",
        "contents": list(headings(page.notebook, level=2)),
    }
    html, _ = exporter.from_notebook_node(_dressed(page.notebook), {"site": site})
    return str(html)


def _dressed(notebook: "NotebookNode") -> "NotebookNode":
    """A copy whose figures have alt texts and whose long preliminaries are folded."""
    notebook, under = copy.deepcopy(notebook), ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            under = next((t for level in (2, 1) for _, t in headings(_only(cell), level)), under)
            continue
        if fold := _fold(cell):
            cell.metadata["folded"] = fold
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                shown = output.metadata.setdefault("image/png", {})
                shown.setdefault("alt", f"Figure: {under}")
                shown["shape"] = _shape(output.data["image/png"], shown)
    return notebook


def _shape(png: str, shown: Mapping[str, Any]) -> str:
    """The attributes of an image's size, given or its own; broad ones scroll on a phone."""
    width, height = struct.unpack(">II", base64.b64decode(png[:64])[16:24])
    width, height = shown.get("width", width), shown.get("height", height)
    broad = ' class="broad"' if width > BROAD else ""
    return f'width="{width}" height="{height}"{broad}'


def _only(cell: Any) -> Any:
    return SimpleNamespace(cells=[cell])


def _fold(cell: "NotebookNode") -> str | None:
    """What a folded cell is called; None for one that is shown."""
    for tag in tags(cell):
        if tag in FOLDED:
            return FOLDED[tag]
    return "imports" if re.match(r"(import|from) ", cell.source) else None


def style() -> str:
    """The style sheet, with the colours of code for light and dark."""
    from pygments.formatters import HtmlFormatter

    base = (Path(__file__).parent / "templates" / "style.css").read_text()
    light, dark = (
        HtmlFormatter(style=name).get_style_defs(".highlight") for name in STYLES.values()
    )
    plain = ".highlight, .highlight pre { background: var(--card) !important; }"
    return f"{base}{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{plain}\n"
