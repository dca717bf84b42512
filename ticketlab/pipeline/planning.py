"""Before a run: the stages that run, their training, its duration, and what it can decide.

Minutes are estimates: each paper's nets are trained briefly on this device, and the expected image
passes of its study are divided by that speed and by the number of parallel workers.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from ticketlab import gpu
from ticketlab.data.prepared import prepared_path
from ticketlab.data.sources import EMBEDDED, data_root
from ticketlab.pipeline import params
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pipeline.repository import out_of_date, readers, stages_of
from ticketlab.spec import InputError, Spec
from ticketlab.study import results, rules, runner
from ticketlab.study.claims import Claim, load_claims, of_study
from ticketlab.study.forecast import Job
from ticketlab.study.store import Store

if TYPE_CHECKING:
    from dvc.repo import Repo

PROBE_SECONDS = 3.0
"""Seconds of measurement, for all papers of a plan together."""

# ---------------------------------------------------------------- which stages run

State = Literal["runs", "may run", "up to date", "not in runs"]


def states(repo: "Repo", study: str) -> pd.DataFrame:
    """Return one row per stage: its state and why. Stages that depend on one that runs may run."""
    stale, listed = out_of_date(repo), stages_of(repo, study)
    following = readers(repo, stale.keys())
    rows: list[tuple[str, State, str]] = []
    for name in listed:
        if name in stale:
            rows.append((name, "runs", ", ".join(stale[name][:3])))
        elif name in following:
            rows.append((name, "may run", "depends on a stage that runs"))
        else:
            rows.append((name, "up to date", ""))
    if not listed:
        rows.append((f"*@{study}-*", "not in runs", f"`make study STUDY={study}` runs it"))
    return pd.DataFrame(rows, columns=["stage", "state", "why"])


def to_train(found: pd.DataFrame, study: str, papers: Iterable[str]) -> list[str]:
    """Return the papers whose training runs or may run."""
    idle = set(found.stage[found.state == "up to date"])
    return [paper for paper in papers if f"train@{study}-{paper}" not in idle]


def check_data(values: Spec) -> None:
    """Raise InputError for a data set that must first be fetched."""
    for name in params.data_names(values):
        near = prepared_path(name).exists() or (data_root() / f"{name}.npz").exists()
        if name not in EMBEDDED and not near:
            raise InputError(f"data: {name} is not here, run `ticketlab prepare STUDY` first")


def process_seconds(jobs: Sequence[Job], beside: float, probe: float) -> float:
    """Return the seconds of one process for all jobs of a paper, from a measurement of about
    `probe` seconds."""
    return sum(job.passes / job.speed(probe / len(jobs)) for job in jobs) * beside


# ---------------------------------------------------------------- work to do


@dataclass(frozen=True)
class Plan:
    """The plan for one paper of a study."""

    paper: str
    study: str
    reused: int
    """Stored units that will be reused."""
    units: int
    """Units to train, as far as known; more may depend on their results."""
    trainings: float
    passes: float
    work: float
    """Seconds of all trainings, one after another."""
    seconds: float
    """Seconds until they are done, `workers` at a time."""
    workers: int
    bytes: float
    device: str


def plan(
    study: str, paper: str, values: Spec, store: Store, seconds: float, workers: int | None = None
) -> Plan:
    """Return the work of a paper's study, measuring its speed for about `seconds`.

    `workers` is the number of units at a time, each on a processor or device like this one; default
    is what the study would use here. More of them than units do not help.
    """
    check_data(values)
    known = PAPERS[paper]
    runtime: gpu.Runtime = values.runtime  # type: ignore[attr-defined]
    if workers is None:
        workers = runner.at_once(gpu.worker_count(runtime, params.load_workers()))
    made = results.made_elsewhere(results.runs_folder(study, paper))
    survey = runner.survey(known.phases(values), store, made)
    expected = known.expected_passes(values)
    stored = sum(unit.passes for unit in survey.reused)
    left = max(0.0, 1 - stored / expected) if survey.missing else 0.0
    jobs = known.jobs(values) if left else []
    work = left * process_seconds(jobs, known.beside, seconds)
    longest = max((unit.passes for unit in survey.missing), default=0) / expected
    return Plan(
        paper=paper,
        study=study,
        reused=len(survey.reused),
        units=len(survey.missing),
        trainings=left * sum(job.passes / job.training for job in jobs),
        passes=left * expected,
        work=work,
        seconds=work * max(1 / workers, longest / left if left else 0.0),
        workers=workers,
        bytes=left * sum(job.passes / job.training * job.ticket for job in jobs),
        device=gpu.describe(gpu.choose_device(runtime.device)),
    )


# ---------------------------------------------------------------- what it can decide


def attainable(study: str, papers: Mapping[str, Spec]) -> pd.DataFrame:
    """Return one row per paper, tier and kind of number: seeds planned, seeds here, and power.

    An ablation may run fewer seeds than the study.
    """
    rows = []
    for paper, values in papers.items():
        n = len(values.seeds)  # type: ignore[attr-defined]
        groups: dict[tuple[rules.Tier, str], list[Claim]] = {}
        for claim in of_study(load_claims(paper), study):
            if claim.studies:
                groups.setdefault((claim.tier, _kind(claim)), []).append(claim)
        for tier in rules.PLANNED:
            for (own, kind), claims in groups.items():
                if own == tier:
                    row = (paper, tier, kind, len(claims), claims[0].planned, n)
                    rows.append((*row, _decides(n, kind, claims)))
    columns = ["paper", "tier", "numbers", "claims", "planned", "seeds", "decides in 80 %"]
    return pd.DataFrame(rows, columns=columns)


def _kind(claim: Claim) -> str:
    """Return how a claim's number is compared."""
    if claim.unit == "seeds":
        return "shares"
    return "counts" if claim.unit in ("rounds", "epochs") else "means"


def _decides(n: int, kind: str, claims: Sequence[Claim]) -> str:
    """Describe the effect that `n` seeds detect; for shares, claims that they cannot decide."""
    if n < 2:
        return "nothing (one seed)"
    if kind == "counts":
        return "only if all seeds agree"
    if kind == "means":
        return f"effects of {rules.effect_seen(n):.2f} paired sd"
    undecidable = [
        one.id for one in claims if not rules.is_decidable(n, one.bound, one.above is not None)
    ]
    return f"not {', '.join(undecidable)}" if undecidable else "clear majorities"


# ---------------------------------------------------------------- output


def table(plans: Sequence[Plan]) -> pd.DataFrame:
    """Return one row per paper: units, trainings, image passes in millions, minutes, megabytes."""
    rows = [
        (
            one.paper,
            one.reused,
            f"{one.units}{' or more' if one.units else ''}",
            round(one.trainings),
            f"{one.passes / 1e6:.1f} M",
            f"{one.seconds / 60:.1f}",
            f"{one.bytes / 1e6:.0f} MB",
        )
        for one in plans
    ]
    columns = [
        "paper",
        "reused",
        "to train",
        "trainings",
        "image passes",
        "minutes",
        "tickets at most",
    ]
    return pd.DataFrame(rows, columns=columns)


def summary(plans: Sequence[Plan], root: Path) -> str:
    """Summarise the plan in one paragraph, with the basis of the estimate."""
    minutes, size = sum(one.seconds for one in plans) / 60, sum(one.bytes for one in plans)
    hours = sum(one.work for one in plans) / 3600
    workers = " or ".join(sorted({str(one.workers) for one in plans}))
    devices = " or ".join(sorted({one.device for one in plans}))
    return (
        f"training: about {minutes:.0f} minutes on {devices}, {workers} at a time, {hours:.1f} "
        f"hours of work in all (image passes divided by a speed measured for {PROBE_SECONDS:g} "
        "seconds; notebooks not counted)\n"
        f"disk: at most {size / 1e6:.0f} MB for tickets and as much in DVC's cache; "
        f"{shutil.disk_usage(root).free / 1e9:.0f} GB are free"
    )
