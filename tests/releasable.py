"""A small project that can be released: with citation, licence, environment and findings in git."""

import shutil

from small_project import Project

from ticketlab.reader import findings
from ticketlab.spec import ROOT
from ticketlab.study import verdicts


def complete(project: Project) -> Project:
    """The same project, with all of this committed."""
    for name in ("CITATION.cff", "LICENSE", "README.md", "constraints.txt"):
        shutil.copy(ROOT / name, project.root / name)
    study = project.root / "results" / "desk"
    found = verdicts.of_study(study, claims=project.root / "claims")
    (study / findings.FILE).write_text(f"# Found\n\n{findings.abstract(found['colt'])}\n")
    project.run("git add -A && git commit -qm complete")
    return project
