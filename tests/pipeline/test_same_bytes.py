"""A tiny study of each paper has the same bytes from whatever environment its process is pinned."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from environments import OTHERWISE, free

from ticketlab.instruction_set import current, pinned
from ticketlab.spec import ROOT

SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import tiny
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.prac import study as prac_study
from ticketlab.study.runner import run_study

more = json.loads(sys.argv[2])
papers = {
    "colt": (colt_study, tiny.colt(**more)),
    "prac": (prac_study, tiny.prac(**more)),
    "dlth": (dlth_study, tiny.dlth(**more)),
    "plant_n_seek": (plant_study, tiny.plant_n_seek(**more)),
    "plant_n_seek_conv": (plant_study, tiny.conv(**more)),
    "compare": (compare_study, tiny.compare(**more)),
}
found = {}
for paper, (study, params) in papers.items():
    folder = Path(sys.argv[1]) / paper
    run_study(study.phases(params), folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    found[paper] = {}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".json":  # the key names the instruction set
            stored = json.loads(content)
            content = json.dumps([stored["record"], stored["tickets"]], sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        found[paper][path.relative_to(folder).as_posix()] = digest
print(json.dumps(found))
"""

PAPERS = ("colt", "prac", "dlth", "plant_n_seek", "plant_n_seek_conv", "compare")


def digests(
    environment: dict[str, str], folder: Path, **changes: object
) -> dict[str, dict[str, str]]:
    """The SHA-256 of every record and ticket of the tiny studies, run in a process of their own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(changes)],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.skipif(current(pinned()) == "native", reason="nothing to pin here")
def test_a_pinned_study_has_the_same_bytes_whatever_the_environment_was(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {k: v for k, v in os.environ.items() if k.startswith("TICKETLAB_DATA")}
    data |= {"TICKETLAB_PREPARED": str(tiny_root / "prepared")}
    clean = {"PATH": os.defpath, "HOME": str(tmp_path)} | data
    one = digests(pinned(clean), tmp_path / "clean")
    other = digests(pinned(free(**OTHERWISE, OMP_NUM_THREADS="2", **data)), tmp_path / "other")
    assert set(one) == set(PAPERS) and all(one.values())
    for paper in PAPERS:
        assert one[paper] == other[paper], paper
    native = digests(free(TICKETLAB_NATIVE="1", **data), tmp_path / "native")
    differ = {p: sum(one[p][f] != native[p].get(f) for f in one[p]) for p in PAPERS}
    # Not required: a processor may have nothing beyond AVX2.
    with capsys.disabled():
        print(f"files that differ natively, of {[len(one[p]) for p in PAPERS]}: {differ}")


@pytest.mark.slow
def test_a_seed_has_the_same_bytes_alone_and_in_company(tiny_root: Path, tmp_path: Path) -> None:
    """No stack, chunk or cache that a unit shares with other units decides its bits."""
    data = {"TICKETLAB_PREPARED": str(tiny_root / "prepared")}
    together = digests(pinned(free(**data)), tmp_path / "together", seeds=[0, 1])
    alone = digests(pinned(free(**data)), tmp_path / "alone", seeds=[1])
    for paper in PAPERS:
        both = {n for n in alone[paper] if re.search(r"seed-1\b", n)} & together[paper].keys()
        assert len(both) > 2, paper
        assert {n: alone[paper][n] for n in both} == {n: together[paper][n] for n in both}, paper
