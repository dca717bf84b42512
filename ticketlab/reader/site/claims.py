"""The page of all claims: one table over studies and papers, each row a permanent address.

A row leads to the cell and the figure that show its number and to the function that computes them.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ticketlab.files import read_json
from ticketlab.reader.html import templates
from ticketlab.reader.site.notebooks import anchor
from ticketlab.spec import ROOT, InputError
from ticketlab.study import verdicts
from ticketlab.study.claims import Claim, Verdict, as_q, load_redirects
from ticketlab.study.rules import COLOURS, Tier

Cells = Sequence[Mapping[str, Any]]
SHOWS = ("ticketlab.study.plots", "save")
"""What a cell calls to show a figure, whatever draws it."""
PAPERS = "ticketlab.papers."


@dataclass(frozen=True)
class Row:
    """A verdict of a study, and where its evidence is."""

    study: str
    verdict: Verdict
    id: str
    """The anchor of the row: the claim's id, for a further study with its name."""
    cell: str | None
    """The id of the cell that shows the number; none for a claim that was not run."""
    source: tuple[str, str, int] | None
    """Module, function and line of what makes that table or figure."""

    @property
    def links(self) -> dict[str, str]:
        """What the row leads to, as addresses in the site."""
        claim = self.verdict.claim
        page = f"results/{self.study}/{claim.paper}.html"
        found = {"cell": f"{page}#{claim.id if self.cell else ''}".rstrip("#")}
        if self.cell and claim.figure:
            found["figure"] = f"{page}#{anchor(self.study, claim.paper, claim.figure)}"
        if self.source:
            module, function, line = self.source
            place = f"{module.rpartition('.')[2]}.{function}, line {line}"
            found[place] = f"_modules/{module.replace('.', '/')}.html#{function}"
        return found


def rows(study: Path, root: Path = ROOT) -> list[Row]:
    """A row per claim of each paper that has a page in the folder `study`.

    InputError for a claim whose figure or table no cell of the page shows, unless it was not run.
    """
    found: list[Row] = []
    for paper, some in verdicts.of_study(study, claims=root / "claims").items():
        page = study / paper / f"{paper}.ipynb"
        if page.exists():
            cells = verdicts.code_cells(page)
            found += [_row(study.name, one, cells, page, root) for one in some]
    return found


def _row(study: str, verdict: Verdict, cells: Cells, page: Path, root: Path) -> Row:
    claim = verdict.claim
    cell = None if verdict.word == "not run" else _cell(claim, cells, page)
    source = function_of(cells, cell, page, root) if cell else None
    return Row(study, verdict, claim.id, cell, source)


def _cell(claim: Claim, cells: Cells, page: Path) -> str:
    """The cell that shows a claim's number; its figure must be on the page, too."""
    for kind, wanted in (("figure", claim.figure), ("table", claim.table)):
        only = claim.model_copy(update={"figure": None, "table": None, kind: wanted})
        if wanted and verdicts.shown_in(only, cells) is None:
            raise InputError(f"claim {claim.id}: {kind} {wanted!r} is shown by no cell of {page}")
    cell = verdicts.shown_in(claim, cells)
    if cell is None:
        raise InputError(f"claim {claim.id}: it names no figure and no table of {page}")
    return cell


def permanent(found: Sequence[Row]) -> list[Row]:
    """The rows of all studies with their anchors: the first study of a claim has its bare id."""
    seen: set[str] = set()
    made = []
    for row in found:
        is_first = row.id not in seen
        seen.add(row.id)
        made.append(row if is_first else replace(row, id=f"{row.study}-{row.id}"))
    return made


# ---------------------------------------------------------------- the code behind a number


def function_of(cells: Cells, cell: str, page: Path, root: Path) -> tuple[str, str, int] | None:
    """Module, name and line of the first function that a cell calls for what it shows.

    A paper's own functions come before shared ones, which only write what those compute.
    """
    source = next("".join(one["source"]) for one in cells if one["id"] == cell)
    called = list(_calls(source, dict(_imports(page))))
    own = [one for one in called if one[0].startswith(PAPERS)]
    for module, name in [*own, *called]:
        if line := _line(root, module, name):
            return module, name, line
    return None


def _calls(source: str, imported: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Module and name of each function that a cell calls in a module of ours, outer ones first."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            of, name = call.func.value, call.func.attr
            module = imported.get(of.id) if isinstance(of, ast.Name) else None
            if module and (module, name) != SHOWS:
                yield module, name


def _imports(page: Path) -> Iterator[tuple[str, str]]:
    """The modules of ours that a notebook imports, by the name that its cells use."""
    for cell in read_json(page)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "import " in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ticketlab"):
                    for name in node.names:
                        yield name.asname or name.name, f"{node.module}.{name.name}"


def _line(root: Path, module: str, function: str) -> int | None:
    """The line of a function's definition; None for what is not one of a module of the project."""
    path = root / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    lines = (n.lineno for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    return next(lines, None)


# ---------------------------------------------------------------- the page


def table(found: Sequence[Row], folder: Path) -> str:
    """The table in HTML, then the claims that went into others; `folder` has the claims."""
    choices = {
        "study": list(dict.fromkeys(row.study for row in found)),
        "paper": list(dict.fromkeys(row.verdict.claim.paper for row in found)),
        "tier": get_args(Tier),
        "verdict": list(COLOURS),
    }
    known = {row.id for row in found}
    moved = [one for one in load_redirects(folder) if one.old not in known]
    template = templates(q=as_q).get_template("claims.html.j2")
    return template.render(rows=found, choices=choices, moved=moved, known=known)
