"""An executed notebook as a page: plumbing folded, anchors that stay, figures with captions.

An anchor is made of a claim's id, a figure's name or a heading's words. Numbers of cells change
when a cell is inserted, so nothing links to them.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbformat.v4 import new_markdown_cell

from ticketlab.pipeline.notebook import tags
from ticketlab.reader.html import slug
from ticketlab.study.rules import COLOURS

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDED = {
    "parameters": "Parameters of a short run",
    "injected-parameters": "Parameters of this run",
}
"""By a cell's tag, what its folded code is called."""
READ = re.compile(r"algorithm|by hand", re.IGNORECASE)
"""Headings of sections whose code is there to be read, not only to be run."""
SAVED = re.compile(r'plots\.save\(.*pages,\s*"(\w+)"', re.DOTALL)
LONG_SOURCE = 40  # lines of a function that is shown
LONG_TABLE = 25  # rows


@dataclass(frozen=True)
class Place:
    """Where a page comes from, and what leads to it."""

    study: str
    paper: str
    revision: str
    """What the captions of figures say."""
    claims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By the id of a cell, the claims whose numbers it shows."""

    def figure(self, name: str) -> str:
        """The anchor of a figure."""
        return anchor(self.study, self.paper, name)


def anchor(study: str, paper: str, figure: str) -> str:
    """The anchor of a figure, as Sphinx writes it."""
    return f"{study}-{paper}-{figure}".lower().replace("_", "-")


def page(notebook: "NotebookNode", place: Place) -> "NotebookNode":
    """A copy of an executed notebook that MyST-NB shows as a page of the site."""
    made, under = copy.deepcopy(notebook), ""
    cells: list[Any] = []
    for number, cell in enumerate(made.cells, 1):
        if cell.cell_type == "markdown":
            under = next(reversed(list(headings(cell))), under)
        elif cell.cell_type == "code":
            if shown := place.claims.get(cell.id):
                cells.append(_anchors(shown, f"{cell.id}-claims"))
            _fold(cell, is_read=bool(READ.search(under)))
            for part in _parts(cell):
                _dress(part, place, f"notebooks/{place.paper}.ipynb, cell {number}", under)
                cells.append(part)
        if cell.cell_type != "code":
            cells.append(cell)
    made.cells = cells

    return made


def headings(cell: Any) -> Iterator[str]:
    """The plain text of each heading of a Markdown cell."""
    for found in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE):
        yield re.sub(r"[*`]", "", found).strip()


def figure_of(source: str) -> str | None:
    """The name of the figure that a cell draws."""
    found = SAVED.search(source)
    return found[1] if found else None


def _parts(cell: Any) -> list[Any]:
    """A cell per output if one is a figure: all outputs of a cell would get its caption."""
    if len(cell.outputs) < 2 or not any("image/png" in o.get("data", {}) for o in cell.outputs):
        return [cell]
    parts = [copy.deepcopy(cell) for _ in cell.outputs]
    for number, (part, output) in enumerate(zip(parts, cell.outputs, strict=True)):
        part.outputs = [output]
        if number:
            part.id, part.metadata = f"{cell.id}-{number}", {"tags": ["remove-input"]}
    return parts


def _anchors(claims: Sequence[str], name: str) -> Any:
    spans = "".join(f'<span class="anchor" id="{claim}"></span>' for claim in claims)
    cell = new_markdown_cell(f"<div>{spans}</div>")
    cell.id = name
    return cell


# ---------------------------------------------------------------- what is folded


def _fold(cell: Any, is_read: bool) -> None:
    """Fold what a reader can do without; say in a few words what it is."""
    label = _label(cell, is_read)
    if label is None:
        return
    if label:
        _hide(cell, "input", label)
    else:
        cell.metadata.setdefault("tags", []).append("remove-input")


def _hide(cell: Any, what: str, label: str) -> None:
    _options(cell).update(code_prompt_show=label, code_prompt_hide=label)
    cell.metadata.setdefault("tags", []).append(f"hide-{what}")


def _label(cell: Any, is_read: bool) -> str | None:
    """What folded code is called; empty to leave it out, None to show it."""
    for tag in tags(cell):
        if tag in FOLDED:
            return FOLDED[tag]
    code = re.sub(r"^#.*\n", "", cell.source, flags=re.MULTILINE).strip()
    if re.search(r"placeholder\(|appears? here", code) or code.startswith("show_source("):
        return ""
    if re.match(r"(import|from) ", code):
        return "Imports"
    if not cell.outputs:
        return "Code without output"
    return None if is_read else "Code"


def _options(cell: Any) -> dict[str, Any]:
    """MyST-NB's options of one cell."""
    found: dict[str, Any] = cell.metadata.setdefault("mystnb", {})
    return found


# ---------------------------------------------------------------- outputs


def _dress(cell: Any, place: Place, where: str, under: str) -> None:
    """Figures get captions and alt texts, tables a place to scroll in, long outputs a fold."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            _caption(cell, output, place, where, under)
        if "text/html" in data:
            data["text/html"] = table(data["text/html"])
        if data.get("text/markdown", "").count("\n") > LONG_SOURCE:
            _hide(cell, "output", "Source of " + cell.source.partition("(")[2].rstrip(")"))


def _caption(cell: Any, output: Any, place: Place, where: str, under: str) -> None:
    shown = output.metadata.get("image/png", {})
    image = {"alt": shown.get("alt", f"Figure: {under}")}
    caption = f"{where} · {place.revision}"
    name = figure_of(cell.source)
    figure = {"caption": caption} | ({"name": place.figure(name)} if name else {})
    _options(cell).update(image=image, figure=figure)


def table(text: str) -> str:
    """A table of a notebook for the site: it scrolls by itself, and its colours suit both modes."""
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.DOTALL)
    text = text.replace(' border="1"', "").replace(' style="text-align: right;"', "")
    text = re.sub(r"<th\b([^>]*)>\s*(?:&nbsp;)?\s*</th>", r"<td\1></td>", text)
    for word, colour in COLOURS.items():
        text = text.replace(f"color: {colour}", f"color: var(--{slug(word)})")
    text = f'<div class="wide" tabindex="0" role="group" aria-label="table">{text}</div>'
    rows = text.count("<tr") - 1
    if rows <= LONG_TABLE:
        return text
    return f'<details class="long"><summary>Table of {rows} rows</summary>{text}</details>'
