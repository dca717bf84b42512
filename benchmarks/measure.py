"""Timing: variants interleaved in one process, median and spread over rounds."""

import ctypes
import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ticketlab import gpu

Run = Callable[[], float]
"""Does the work once, and returns its amount (images, scores, iterations)."""


@dataclass(frozen=True)
class Variant:
    """One way to do a case's work."""

    name: str
    run: Run
    ours: bool = False


@dataclass(frozen=True)
class Goal:
    """`variant` should be at least `goal` times faster than the fastest of `over`.

    Where it is missed, `products` is the type of the products whose rate is then measured, and
    `limit` a variant that does only what cannot be left out.
    """

    variant: str
    over: tuple[str, ...]
    at_least: float
    products: torch.dtype | None = None
    limit: str = ""


@dataclass(frozen=True)
class Case:
    """Variants of the same work; ratios are to `base`. `facts` go into the record."""

    name: str
    title: str
    unit: str
    base: str
    variants: Sequence[Variant]
    goals: Sequence[Goal] = ()
    facts: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------- clocks


def cpu_seconds() -> float:
    """CPU time of this process and of its workers that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(run: Run, device: torch.device) -> tuple[float, float]:
    """Amount of work and seconds: CPU time, or time between device events on an accelerator."""
    if device.type == "cpu":
        started = cpu_seconds()
        amount = run()
        return amount, cpu_seconds() - started
    with gpu.Stopwatch(device) as watch:
        amount = run()
    return amount, watch.seconds


# ---------------------------------------------------------------- rounds


NATIVE, PINNED = "native", "pinned"
"""Instruction sets: all that the processor has, and AVX2 alone, as results are made."""

Elsewhere = Callable[[str, str, str], Any]
"""Requests a measurement from another process ("time" or "reason", case, variant)."""


def interleaved(
    case: Case, rounds: int, device: torch.device, pinned: Elsewhere | None = None
) -> list[dict[str, Any]]:
    """One row per variant: rate and ratio to the base, median and range over the rounds.

    Variants take turns within a round, so that a busy moment hits them all; one round more comes
    first and does not count. Ours run in the process `pinned` too.
    """
    runs = [(variant, NATIVE) for variant in case.variants]
    runs += [(variant, PINNED) for variant in case.variants if variant.ours and pinned]
    rates: Rates = {(variant.name, own): [] for variant, own in runs}
    for turn in range(rounds + 1):
        for variant, own in runs:
            if own == PINNED and pinned:
                amount, seconds = pinned("time", case.name, variant.name)
            else:
                amount, seconds = timed(variant.run, device)
            if turn:
                rates[variant.name, own].append(amount / max(seconds, 1e-9))
    return [_row(case, variant, own, rates) for variant, own in runs]


Rates = dict[tuple[str, str], list[float]]
"""The rate of each round, by variant and instruction set."""


def _row(case: Case, variant: Variant, instructions: str, rates: Rates) -> dict[str, Any]:
    own = rates[variant.name, instructions]
    base = rates.get((case.base, instructions), rates[case.base, NATIVE])
    ratios = [mine / other for mine, other in zip(own, base, strict=True)]
    return {
        "case": case.name,
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "variant": variant.name,
        "instructions": instructions,
        "ours": variant.ours,
        "rate": statistics.median(own),
        "rate_low": min(own),
        "rate_high": max(own),
        "unit": case.unit,
        "rounds": len(own),
    }


def judged(case: Case, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the case's goals with measurements per instruction set; peers are native."""
    rates = {(row["variant"], row["instructions"]): row["rate"] for row in rows}
    return [
        _verdict(case, goal, own, rates)
        for own in (NATIVE, PINNED)
        for goal in case.goals
        if (goal.variant, own) in rates
    ]


def _verdict(
    case: Case, goal: Goal, instructions: str, rates: dict[tuple[str, str], float]
) -> dict[str, Any]:
    over = {name: rates.get((name, instructions), rates[name, NATIVE]) for name in goal.over}
    peer = max(over, key=lambda name: over[name])
    ratio = rates[goal.variant, instructions] / over[peer]
    found = {
        "case": case.name,
        "variant": goal.variant,
        "over": peer,
        "instructions": instructions,
        "ratio": ratio,
        "goal": goal.at_least,
        "met": ratio >= goal.at_least,
    }
    if not goal.limit:
        return found
    return found | {
        "limit": {"variant": goal.limit, "ratio": rates[goal.limit, NATIVE] / over[peer]}
    }


# ---------------------------------------------------------------- memory


def peak_memory(run: Run) -> tuple[float, float, int | None]:
    """Return work, CPU seconds, and peak bytes beyond those at the start (None if unknown)."""
    before = _memory_from_now()
    started = cpu_seconds()
    amount = run()
    seconds = cpu_seconds() - started
    peak = _status("VmHWM")
    return amount, seconds, None if before is None or peak is None else max(0, peak - before)


def _memory_from_now() -> int | None:
    """Reset the kernel's high-water mark; return resident bytes now. None except on Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise reused memory would go unnoticed
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(values[0]) if values else None


# ---------------------------------------------------------------- the machine


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and versions on which the numbers depend."""
    packages = ("torch", "torchvision", "numpy", "pillow", "ticketlab")
    return {
        "device": gpu.describe(device),
        "processor": _processor(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "bf16": has_bf16(),
        "threads": torch.get_num_threads(),
        "load at the start": os.getloadavg()[0],
        "system": platform.system(),
        "python": platform.python_version(),
        "clock": "process CPU time" if device.type == "cpu" else "device events",
    } | {name: version(name) for name in packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def has_bf16() -> bool:
    """Whether the processor has instructions for bf16 products."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
