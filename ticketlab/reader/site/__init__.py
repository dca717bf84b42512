"""`ticketlab report`: the documentation site, built by Sphinx from docs/, results/ and docstrings.

The sources are staged in one folder: docs/ as it is written, the executed notebooks (`notebooks`),
pages that are computed from claims and results (`claims`, `pages`) and the API reference (`api`).
Every fault ends the build: a warning of Sphinx, or a link to nothing (`links`).
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ticketlab.files import replace_folder
from ticketlab.reader.site import links, pages
from ticketlab.spec import ROOT, InputError


def build(target: Path, root: Path = ROOT) -> list[Path]:
    """Write the site into the folder `target`, in place of what is there; returns its pages.

    InputError when no study has pages, for a claim whose figure or table is shown nowhere, for
    whatever Sphinx warns of, and for a link to a page or an anchor that does not exist.
    """
    if target.exists() and not (target / "index.html").exists() and any(target.iterdir()):
        raise InputError(f"report: {target} holds other files, allowed is an empty or new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as folder:
        sources, made = Path(folder) / "sources", Path(folder) / "html"
        pages.stage(sources, root)
        render(sources, made, root)
        links.check(made)
        replace_folder(made, target)
    return sorted(path for path in target.rglob("*.html") if "_static" not in path.parts)


def render(sources: Path, target: Path, root: Path = ROOT) -> None:
    """Have Sphinx make HTML of staged sources; InputError with the first of its warnings."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    # Doctrees are kept beside the pages, not among them.
    done = subprocess.run(
        [*command, "-d", str(target.parent / "doctrees"), str(sources), str(target)],
        cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.replace(f"{sources}/", "") or done.stdout
        faults = re.findall(r"^.*(?:WARNING|ERROR|CRITICAL): .*$", said, re.MULTILINE)
        first = faults[0] if faults else " ".join(said.split())
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"report: Sphinx refuses {first}{more}")
