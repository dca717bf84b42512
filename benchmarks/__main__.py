"""`python -m benchmarks cpu` (or gpu): measure, and write benchmarks/results.

`python -m benchmarks cpu CASE ...` measures only these again, in the record of this machine.

`python -m benchmarks profile STUDY [PAPER ...] [--before FILE]`: where a study's CPU time goes.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from benchmarks import cases, pinned, profile, report, scaling
from benchmarks.measure import (
    PINNED,
    Case,
    Elsewhere,
    cpu_seconds,
    interleaved,
    judged,
    machine,
)
from benchmarks.reasons import reason
from ticketlab import gpu, instruction_set
from ticketlab.gpu import Runtime
from ticketlab.spec import ROOT, InputError

RESULTS = ROOT / "benchmarks" / "results"
NOTES = {
    "cpu": "One thread, process CPU time (workers' included), variants interleaved. Peers run "
    "natively, with all instructions that the processor has; ours run natively and pinned to AVX2, "
    "as results are made, in a second process that takes its turns in the same rounds. "
    "The machine may be shared with others: CPU time leaves out waiting, not their use of caches "
    "and memory, and loops that live in Python (PIL, DataLoader) suffer more from that than matrix "
    "products do, which flatters ratios to them. Images are random. Peers are our own "
    "transcriptions of their loops, without progress bars, logs and checkpoints. Made by "
    "`make bench`.",
    "gpu": "Device events, variants interleaved in one process. Images are random. Made by "
    "`make bench-gpu`.",
}


def bench(kind: str, scale: cases.Scale, folder: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run the cases of a kind, all or only these, and write the record.

    An interrupted run writes the cases that it has finished. Raises InputError if there is no such
    device or case, or no record in which to replace a case.
    """
    device = gpu.start(Runtime(device="cuda" if kind == "gpu" else "cpu", deterministic=False))
    known = _cases(kind, scale)
    if unknown := sorted(set(only) - set(known)):
        raise InputError(f"case: {unknown[0]!r} is unknown, allowed: {', '.join(known)}")
    record: dict[str, Any] = {"name": kind, "note": NOTES[kind], "machine": machine(device)}
    record |= {"rows": [], "goals": [], "cases": [], "scaling": []}
    if only:
        record |= report.stored(record, folder)
    try:
        with pinned.process(scale) if kind == "cpu" else nullcontext() as other:
            for name in only or known:
                make, rounds = known[name]
                _measure(make(), rounds, device, record, other)
        if kind == "cpu" and not only:
            record["scaling"] += scaling.rows(scale)
    finally:
        if record["rows"]:
            report.write(report.ordered(record, list(known)), folder)
    return record


def _measure(
    case: Case, rounds: int, device: torch.device, record: dict[str, Any], other: Elsewhere | None
) -> None:
    """Add a case's rows and verdicts to the record, and print them."""
    started = cpu_seconds()
    rows = interleaved(case, rounds, device, other)
    goals = judged(case, rows)
    for goal in goals:
        if not goal["met"] and device.type == "cpu":
            goal["reason"] = _reason(case, goal, other)
    record |= report.without(record, case.name)
    record["rows"] += rows
    record["goals"] += goals
    record["cases"].append(
        {"name": case.name, "title": case.title, "facts": case.facts, "load": os.getloadavg()[0]}
    )
    print(f"{case.title}: {cpu_seconds() - started:.0f} s", flush=True)
    for goal in goals:
        print(
            f"  {goal['ratio']:.2f}x (goal {goal['goal']:g}x) {goal['variant']}, "
            f"{goal['instructions']}",
            flush=True,
        )


def _reason(case: Case, goal: dict[str, Any], other: Elsewhere | None) -> Any:
    """Measure why a goal is missed; empty if it is met."""
    if goal["instructions"] == PINNED and other:
        return other("reason", case.name, goal["variant"])
    (run,) = (variant.run for variant in case.variants if variant.name == goal["variant"])
    products = next(own.products for own in case.goals if own.variant == goal["variant"])
    return reason(run, products)


def _cases(kind: str, scale: cases.Scale) -> cases.Cases:
    if kind == "cpu":
        return cases.cases(scale)
    from benchmarks import gpu_cases

    return gpu_cases.cases(scale)


def main(arguments: list[str]) -> int:
    """Run the command; bad input gives one line and exit code 1."""
    try:
        if arguments[:1] == ["profile"] and len(arguments) > 1:
            study, *papers = arguments[1:]
            before = Path(papers.pop()) if papers[-2:-1] == ["--before"] else None
            papers = papers[:-1] if before else papers
            target = profile.write(study, papers, RESULTS, before)
            print(f"written: {target.relative_to(ROOT)}")
            return 0
        if arguments[:1] not in (["cpu"], ["gpu"]):
            allowed = "allowed is 'cpu', 'gpu' or 'profile STUDY'"
            raise InputError(f"benchmarks: {' '.join(arguments)!r}, {allowed}")
        if instruction_set.current() != "native":
            raise InputError("benchmarks: this process is pinned, allowed is a native one")
        torch.manual_seed(0)
        bench(arguments[0], cases.FULL, RESULTS, arguments[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {(RESULTS / arguments[0]).relative_to(ROOT)}.md and the machine's own page")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
