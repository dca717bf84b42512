"""The sources of the site in one folder: what is written by hand, and pages that are computed."""

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ticketlab.files import read_json, write_atomically
from ticketlab.pipeline.params import chosen_studies
from ticketlab.reader import findings, front, reruns
from ticketlab.reader.html import slug
from ticketlab.reader.site import api, claims, machines, notebooks, revisions
from ticketlab.spec import InputError
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict, verdict_table


@dataclass(frozen=True)
class Study:
    """A study with pages: its folder, the verdicts of each paper, its rows of the claims page."""

    folder: Path
    found: Mapping[str, Sequence[Verdict]]
    rows: Sequence[claims.Row]

    @property
    def name(self) -> str:
        """'desk'."""
        return self.folder.name

    @property
    def papers(self) -> list[str]:
        """Those that have a page, in the order of all lists."""
        pages = sorted(self.folder.glob("*/*.ipynb"))
        return findings.in_order(page.stem for page in pages if page.stem == page.parent.name)

    def page(self, paper: str) -> Path:
        """The executed notebook."""
        return self.folder / paper / f"{paper}.ipynb"


def stage(sources: Path, root: Path) -> None:
    """Write all sources of the site into the folder `sources`.

    InputError when no study has pages, and as `claims.rows`.
    """
    shutil.copytree(root / "docs", sources)
    studies = read(root)
    rows = claims.permanent([row for study in studies for row in study.rows])
    for study in studies:
        for paper in study.papers:
            _stage_notebook(sources, study, paper, root)
    folders = [study.folder for study in studies]
    parts = {
        "generated/claims.html": claims.table(rows, root / "claims"),
        "generated/findings.md": front_page(studies[0], sources),
        "generated/results.md": results_page(studies),
        "generated/reruns.md": rerun_page(folders, root / "claims"),
        "generated/machines.md": machines.confirmed(folders, root) + machines.table(folders),
        "results/published.md": published_page(root / "PUBLISHED.md", {row.id for row in rows}),
    }
    for name, text in parts.items():
        write_atomically(sources / name, text.encode())
    api.stage(sources / "api", root)


def read(root: Path) -> list[Study]:
    """The studies with pages: those that `dvc repro` runs, then the others by name."""
    found = (path.parent.parent for path in sorted((root / "results").glob("*/*/*.ipynb")))
    known = {folder.name: folder for folder in found if folder.name != verdicts.SMOKE}
    if not known:
        raise InputError(f"report: no executed notebooks in {root / 'results'}, run `dvc repro`")
    chosen = chosen_studies(root / "params.yaml") if (root / "params.yaml").exists() else []
    order = dict.fromkeys([*(name for name in chosen if name in known), *known])
    return [_study(known[name], root) for name in order]


def _study(folder: Path, root: Path) -> Study:
    found = verdicts.of_study(folder, claims=root / "claims")
    return Study(folder, found, claims.rows(folder, root))


# ---------------------------------------------------------------- notebooks


def _stage_notebook(sources: Path, study: Study, paper: str, root: Path) -> None:
    import nbformat

    shown: defaultdict[str, list[str]] = defaultdict(list)
    for row in study.rows:
        if row.cell and row.verdict.claim.paper == paper:
            shown[row.cell].append(row.verdict.claim.id)
    origin = revisions.of(root, study.folder / paper)
    made = nbformat.read(study.page(paper), as_version=4)
    page = notebooks.page(made, notebooks.Place(study.name, paper, origin, shown))
    target = sources / "results" / study.name / f"{paper}.ipynb"
    write_atomically(target, nbformat.writes(page).encode())


def title(study: Study, paper: str) -> str:
    """The heading of a paper's page."""
    return findings.title(study.page(paper))


def short(paper: str) -> str:
    """The title for navigation."""
    return findings.short(paper)


# ---------------------------------------------------------------- computed pages


def results_page(studies: Sequence[Study]) -> str:
    """What each study found in words, and the way to its pages."""
    parts: list[str] = []
    entries = []
    for study in studies:
        every = [verdict for some in study.found.values() for verdict in some]
        parts += [f"## What `{study.name}` found\n", f"{findings.counted(every)}."]
        parts += [f"{verdicts.survivors(verdict_table(every))}.\n"]
        for paper in study.papers:
            some = study.found.get(paper, [])
            parts += [f"### [{title(study, paper)}]({study.name}/{paper}.ipynb)\n"]
            parts += [f"{findings.abstract(some)}\n", f"*{findings.counted(some)}.*\n"]
            of = "" if study is studies[0] else f" ({study.name})"
            entries.append(f"{short(paper)}{of} <{study.name}/{paper}>")
    pages = ["Published numbers <published>", "Machines <machines>", "Reruns <reruns>"]
    legend = f"*{findings.legend(' '.join(parts))}*\n"
    return "\n".join([legend, *parts, toctree([*entries, *pages])])


def rerun_page(studies: Sequence[Path], claims: Path) -> str:
    """The verdicts of each study beside those of its reruns."""
    found = [one for study in studies for one in reruns.read(study)]
    return reruns.page(found, claims) if found else "No rerun has been kept."


def toctree(entries: Sequence[str]) -> str:
    """A hidden table of contents; an entry is 'title <page>'."""
    return "\n".join(["```{toctree}", ":hidden:", *entries, "```", ""])


def published_page(path: Path, known: set[str]) -> str:
    """PUBLISHED.md as a page: a claim in a table leads to its row, a file's name is only named."""
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", path.read_text())

    def linked(found: re.Match[str]) -> str:
        claim = found[1]
        return f'| <a href="../claims.html#{claim}">{claim}</a> |' if claim in known else found[0]

    return re.sub(r"^\| ([\w-]+) \|", linked, text, flags=re.MULTILINE)


def front_page(study: Study, sources: Path) -> str:
    """The findings of the front page: of each paper the verdicts in words, and its main figure."""
    parts = []
    for paper in study.papers:
        parts += [f"### [{title(study, paper)}](results/{study.name}/{paper}.ipynb)\n"]
        parts += [f"- {_badge(one)} {findings.sentence(one)}" for one in said(study, paper)]
        parts += ["", main_figure(study, paper, sources)]
    return "\n".join(parts)


def said(study: Study, paper: str) -> list[Verdict]:
    """The verdicts that the front page has: README's, else those of the paper's abstract."""
    found = study.found.get(paper, [])
    return front.chosen(found) or verdicts.chosen(found)


def _badge(verdict: Verdict) -> str:
    word, claim = verdict.word, verdict.claim.id
    return f'<a class="verdict {slug(word)}" href="claims.html#{claim}">{word}</a>'


def main_figure(study: Study, paper: str, sources: Path) -> str:
    """The figure of the first claim of the abstract that has one, copied to the staged sources."""
    figures = (one.claim.figure for one in said(study, paper))
    name = next(filter(None, figures), None)
    if name is None:
        return ""
    path = study.folder / paper / "figures" / f"{name}.png"
    if not path.exists():
        raise InputError(f"report: figure {name!r} of {paper} is not in {path.parent}")
    target = notebooks.anchor(study.name, paper, name)
    write_atomically(sources / "generated" / f"{target}.png", path.read_bytes())
    caption = f"[Figure {name} of {short(paper)}](#{target})"
    alt = json.dumps(_alt(study, paper, name), ensure_ascii=False)
    return f"```{{figure}} generated/{target}.png\n:alt: {alt}\n\n{caption}\n```\n"


def _alt(study: Study, paper: str, figure: str) -> str:
    """The alt text that a figure has in its notebook."""
    cells = read_json(study.page(paper))["cells"]
    shown = (one for one in cells if notebooks.figure_of("".join(one["source"])) == figure)
    outputs = (output.get("metadata", {}) for one in shown for output in one["outputs"])
    return next((m["image/png"]["alt"] for m in outputs if "alt" in m.get("image/png", {})), "")
