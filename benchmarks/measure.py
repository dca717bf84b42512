"""How things are timed: variants interleaved in one process, median and spread over rounds."""

import ctypes
import gc
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
"""Does the work once, and returns how much it was (images, scores, iterations)."""


@dataclass(frozen=True)
class Variant:
    """One way to do a case's work."""

    name: str
    run: Run
    ours: bool = False


@dataclass(frozen=True)
class Goal:
    """`variant` is to be at least so many times faster than the fastest of `over`.

    `why` says what binds where the goal is missed.
    """

    variant: str
    over: tuple[str, ...]
    at_least: float
    why: str = ""


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


def interleaved(case: Case, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """One row a variant: rate and ratio to the base, median and range over the rounds.

    Variants take turns within a round, so that a busy moment hits them all; one round more comes
    first and does not count.
    """
    rates: dict[str, list[float]] = {variant.name: [] for variant in case.variants}
    for turn in range(rounds + 1):
        for variant in case.variants:
            amount, seconds = timed(variant.run, device)
            if turn:
                rates[variant.name].append(amount / max(seconds, 1e-9))
    return [_row(case, variant, rates) for variant in case.variants]


def _row(case: Case, variant: Variant, rates: dict[str, list[float]]) -> dict[str, Any]:
    own = rates[variant.name]
    ratios = [mine / base for mine, base in zip(own, rates[case.base], strict=True)]
    return {
        "case": case.name,
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "variant": variant.name,
        "ours": variant.ours,
        "rate": statistics.median(own),
        "rate_low": min(own),
        "rate_high": max(own),
        "unit": case.unit,
        "rounds": len(own),
    }


def judged(case: Case, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The case's goals with what was measured."""
    rates = {row["variant"]: row["rate"] for row in rows}
    verdicts = []
    for goal in case.goals:
        peer = max(goal.over, key=lambda name: rates[name])
        ratio = rates[goal.variant] / rates[peer]
        verdicts.append(
            {
                "case": case.name,
                "variant": goal.variant,
                "over": peer,
                "ratio": ratio,
                "goal": goal.at_least,
                "met": ratio >= goal.at_least,
                "why": goal.why,
            }
        )
    return verdicts


# ---------------------------------------------------------------- memory


def peak_memory(run: Run) -> tuple[float, float, int | None]:
    """Work, CPU seconds, and bytes of memory beyond those at the start (None where unknown)."""
    before = _memory_from_now()
    started = cpu_seconds()
    amount = run()
    seconds = cpu_seconds() - started
    peak = _status("VmHWM")
    return amount, seconds, None if before is None or peak is None else max(0, peak - before)


def _memory_from_now() -> int | None:
    """Start the kernel's high-water mark anew; resident bytes now. None elsewhere than on Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be used again unseen
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
    """What the numbers depend on."""
    packages = ("torch", "torchvision", "numpy", "pillow", "ticketlab")
    return {
        "device": gpu.describe(device),
        "processor": _processor(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "bf16": has_bf16(),
        "threads": torch.get_num_threads(),
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
