"""A project of the shape of ours whose training takes no time: for tests of what DVC does with it.

Its one stage copies ready tickets and writes a table and metrics, by the same places as the real
pipeline. It has the package's own `__init__` and `spec`, so it shows in which folder a stage works.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from clone import own_environment

from ticketlab.pruning.masks import Mask
from ticketlab.spec import ROOT
from ticketlab.tickets.ticket import make_ticket, save_ticket

RATES = (0.25, 0.35, 0.4)
SEEDS = (0, 1, 2)

PARAMS = """\
studies: [desk]
desk:
  colt:
    rate: 0.4
    seeds: [0, 1, 2]
"""

PIPELINE = """\
stages:
  colt:
    matrix:
      study: ${studies}
    cmd: python work.py ${item.study}
    deps: [work.py]
    params:
      - ${item.study}.colt.rate
      - ${item.study}.colt.seeds
    outs:
      - results/${item.study}/runs/colt
      - results/${item.study}/colt/metrics.json: {cache: false}
      - results/${item.study}/colt/seeds.csv: {cache: false}
      - results/${item.study}/colt/figures: {cache: false}
    metrics:
      - results/${item.study}/colt/summary.json: {cache: false}
    plots:
      - results/${item.study}/colt/scores.csv:
          {cache: false, template: bands, x: sparsity, y: last_accuracy}
"""

CLAIMS = """\
- {id: colt-H1, tier: headline, statement: It holds., source: here, metric: difference,
   unit: other, at_least: -0.4, reference: dense, studies: [desk]}
- {id: colt-S9, tier: control, statement: It is not measured., source: here, metric: not_measured,
   above: 0.0, reference: dense, studies: [desk]}
"""

# Accuracy falls with the rate, a little differently for each seed; the claim holds up to 0.35.
WORK = """\
import json, shutil, sys
from ruamel.yaml import YAML
from ticketlab.spec import ROOT

study = sys.argv[1]
p = YAML(typ="safe").load(ROOT / "params.yaml")[study]["colt"]
here = ROOT / "results" / study
shutil.copytree(ROOT / "stock" / str(p["rate"]), here / "runs" / "colt")
(here / "colt").mkdir(parents=True, exist_ok=True)
rows = ["arm,seed,round,sparsity,last_accuracy"]
for seed in p["seeds"]:
    for round in range(4):
        lost = 0.1 * seed + (1 + 0.01 * seed) * 10 * p["rate"] * round
        rows.append(f"colt,{seed},{round},{round / 4},{90 - lost:.6g}")
        rows.append(f"imp,{seed},{round},{round / 4},{90 - seed - round:.6g}")
(here / "colt" / "scores.csv").write_text("\\n".join(rows) + "\\n")
interval = {"mean": -p["rate"], "low": -p["rate"] - 0.05, "high": -p["rate"] + 0.05, "n": 3}
one_seed = {"mean": p["rate"], "low": None, "high": None, "n": 1}
dense = {"mean": 90.0, "low": 89.0, "high": 91.0, "n": 3}
metrics = {
    "difference": interval, "lone": one_seed, "not_measured": None, "rounds": 3,
    "references": {"dense": {"the dense net": {"score": dense, "chance": 10.0}}},
    "provenance": {"torch": "2", "device": "cpu"},
}
(here / "colt" / "metrics.json").write_text(json.dumps(metrics))
summary = {"claims_reproduced": int(p["rate"] < 0.36), "difference": -p["rate"]}
(here / "colt" / "summary.json").write_text(json.dumps({"colt": summary}))
rows = [f"difference,{seed},{-p['rate'] + 0.02 * (seed - 1):.6g}" for seed in p["seeds"]]
(here / "colt" / "seeds.csv").write_text("\\n".join(["metric,seed,value", *rows]) + "\\n")
(here / "colt" / "figures").mkdir()
(here / "colt" / "figures" / "accuracy.png").write_bytes(f"a picture of {p['rate']}".encode())
"""


class Project:
    """A folder under git and DVC, and how to run commands in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str) -> str:
        """What a shell command prints; nothing of the user's git or DVC has a say."""
        env = own_environment(self.root, Path(sys.executable).parent)
        done = subprocess.run(
            command, shell=True, cwd=self.root, env=env, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def make(root: Path) -> Project:
    """The project after its first `dvc repro`, committed."""
    for name in ("__init__.py", "spec.py"):
        (root / "ticketlab").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "ticketlab" / name, root / "ticketlab" / name)
    ignored = "/results/*/runs/\n__pycache__\n"
    texts = {"params.yaml": PARAMS, "dvc.yaml": PIPELINE, "work.py": WORK,
             "claims/colt.yaml": CLAIMS, ".gitignore": ignored}  # fmt: skip
    (root / "claims").mkdir()
    for name, text in texts.items():
        (root / name).write_text(text)
    for rate in RATES:
        for seed in SEEDS:
            path = root / "stock" / str(rate) / "search" / "colt" / f"seed-{seed}"
            save_ticket(make_ticket(mask(rate, seed)), path / "round-01.safetensors")
    project = Project(root)
    project.run("git init -q -b main && dvc init -q")
    shutil.copytree(ROOT / ".dvc" / "plots", root / ".dvc" / "plots")
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    project.run("git add -A && git commit -qm start && dvc repro -q")
    project.run("git add -A && git commit -qm results")
    return project


def mask(rate: float, seed: int) -> Mask:
    """1,000 weights of which the `rate` with the lowest of a seed's random scores are removed."""
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(seed))
    return Mask({"weight": scores >= rate})
