"""From which revision results are, in the words of captions."""

import subprocess
from pathlib import Path

from ticketlab.files import read_json


def of(root: Path, folder: Path) -> str:
    """'revision a1b2c3d of 2026-01-31', the folder's last; without git the hash of the code."""
    commit = _git(root, "log", "-1", "--format=%h of %cs", "--", str(folder)).strip()
    if commit:
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", str(folder))
        return f"revision {commit}{', changed since' if changed else ''}"
    facts = folder / "metrics.json"
    code = read_json(facts).get("provenance", {}).get("code", "") if facts.exists() else ""
    return f"code {code[:12]}" if code else "revision unknown"


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
