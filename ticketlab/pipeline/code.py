"""results/code: one fingerprint per run and side, on which the stages of dvc.yaml depend.

`RUN.data` changes with the data sets that a run names and the code that prepares them, `RUN.train`
with the code behind its units, `RUN.read` with the code behind its page and its labels.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from ticketlab import labels
from ticketlab.data import sets
from ticketlab.files import write_atomically
from ticketlab.pipeline.notebook import code_of, execute
from ticketlab.pipeline.params import data_names
from ticketlab.pipeline.registry import PAPERS
from ticketlab.spec import ROOT, Spec
from ticketlab.study.fingerprint import fingerprint, source_fingerprint, strings_in
from ticketlab.study.verdicts import write_summary

FOLDER = ROOT / "results" / "code"


def fingerprints(paper: str, values: Spec) -> dict[str, str]:
    """Return a run's three files by side; edits that change no result leave them unchanged."""
    strings = set(strings_in(values.model_dump(mode="json")))
    names = data_names(values)
    names_and_colours = sha256(labels.FILE.read_bytes()).hexdigest()
    page = source_fingerprint(code_of(ROOT / "notebooks" / f"{paper}.ipynb"), strings)
    return {
        "data": f"{fingerprint(sets.prepare, strings=names)} {' '.join(names)}\n",
        "train": f"{fingerprint(PAPERS[paper].phases, strings=strings)}\n",
        "read": f"{page} {fingerprint(execute)} {fingerprint(write_summary)} {names_and_colours}\n",
    }


def write(runs: Mapping[str, tuple[str, Spec]], folder: Path = FOLDER) -> None:
    """Write the files of all runs, each a paper and its parameters; remove files of other runs.

    A file is only written if its content changes.
    """
    files = {
        folder / f"{run}.{side}": text
        for run, (paper, values) in runs.items()
        for side, text in fingerprints(paper, values).items()
    }
    for path in set(folder.glob("*")) - set(files):
        path.unlink()
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text.encode())
