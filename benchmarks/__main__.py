"""`python -m benchmarks cpu` (or gpu): measure, and write benchmarks/results.

`python -m benchmarks profile STUDY [PAPER ...] [--before FILE]`: where a study's CPU time goes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases, profile, report, scaling
from benchmarks.measure import Case, cpu_seconds, interleaved, judged, machine
from ticketlab import gpu
from ticketlab.gpu import Runtime
from ticketlab.spec import ROOT, InputError

RESULTS = ROOT / "benchmarks" / "results"
NOTES = {
    "cpu": "One thread, process CPU time (workers' included), variants interleaved in one process. "
    "The machine may be shared with others: CPU time leaves out waiting, not their use of caches "
    "and memory, and loops that live in Python (PIL, DataLoader) suffer more from that than matrix "
    "products do, which flatters ratios to them. Images are random. Peers are our own "
    "transcriptions of their loops, without progress bars, logs and checkpoints. Made by "
    "`make bench`.",
    "gpu": "Device events, variants interleaved in one process. Images are random. Made by "
    "`make bench-gpu`.",
}


def bench(kind: str, scale: cases.Scale, folder: Path) -> dict[str, Any]:
    """Run all cases of a kind and write the record; InputError if there is no such device.

    An interrupted run writes the cases that it has finished.
    """
    device = gpu.start(Runtime(device="cuda" if kind == "gpu" else "cpu", deterministic=False))
    record: dict[str, Any] = {"name": kind, "note": NOTES[kind], "machine": machine(device)}
    record |= {"rows": [], "goals": [], "cases": [], "scaling": []}
    try:
        for case, rounds in _cases(kind, scale):
            _measure(case, rounds, device, record)
        if kind == "cpu":
            record["scaling"] += scaling.rows(scale)
    finally:
        if record["rows"]:
            report.write(record, folder)
    return record


def _measure(case: Case, rounds: int, device: torch.device, record: dict[str, Any]) -> None:
    """Add a case's rows and verdicts to the record, and tell the person who waits."""
    started = cpu_seconds()
    rows = interleaved(case, rounds, device)
    goals = judged(case, rows)
    record["rows"] += rows
    record["goals"] += goals
    record["cases"].append({"name": case.name, "title": case.title, "facts": case.facts})
    print(f"{case.title}: {cpu_seconds() - started:.0f} s", flush=True)
    for goal in goals:
        print(f"  {goal['ratio']:.2f}x (goal {goal['goal']:g}x) {goal['variant']}", flush=True)


def _cases(kind: str, scale: cases.Scale) -> Iterator[tuple[Case, int]]:
    if kind == "cpu":
        return cases.cases(scale)
    from benchmarks import gpu_cases

    return gpu_cases.cases(scale)


def main(arguments: list[str]) -> int:
    """The command; 1 and one line for bad input."""
    try:
        if arguments[:1] == ["profile"] and len(arguments) > 1:
            study, *papers = arguments[1:]
            before = Path(papers.pop()) if papers[-2:-1] == ["--before"] else None
            papers = papers[:-1] if before else papers
            target = profile.write(study, papers, RESULTS, before)
            print(f"written: {target.relative_to(ROOT)}")
            return 0
        if arguments not in (["cpu"], ["gpu"]):
            allowed = "allowed is 'cpu', 'gpu' or 'profile STUDY'"
            raise InputError(f"benchmarks: {' '.join(arguments)!r}, {allowed}")
        torch.manual_seed(0)
        bench(arguments[0], cases.FULL, RESULTS)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {(RESULTS / arguments[0]).relative_to(ROOT)}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
