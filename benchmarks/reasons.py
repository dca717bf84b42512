"""Measured bottleneck of a variant: its time by operation, and the rate of its products."""

from math import inf
from typing import Any

import torch
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Run, cpu_seconds

SHOWN = 3
"""Number of operations that a reason names."""


def reason(run: Run, products: torch.dtype | None) -> dict[str, Any]:
    """Shares of the time in torch's operations, the largest first, if that is most of the time; and
    where the products are dense and of one type, their GFLOP/s and those of a square product of the
    type in this process."""
    started = cpu_seconds()
    run()
    seconds, times = cpu_seconds() - started, operation_times(run)
    whole, found = sum(times.values()), dict[str, Any]()
    if whole > seconds / 2:
        found["shares"] = {name: time / whole for name, time in list(times.items())[:SHOWN]}
    if products is None or any("sparse" in name for name in times):
        return found
    found["gflops"] = dense_flops(run) / seconds / 1e9
    return found | {"products": str(products).removeprefix("torch."), "square": gemm(products)}


def operation_times(run: Run) -> dict[str, float]:
    """Seconds in each operation of torch, the largest first.

    The minimum of three runs, because an operation may have waited for the core.
    """
    runs = [_times(run) for _ in range(3)]
    own = {name: min(times.get(name, inf) for times in runs) for name in runs[0]}
    return {name: own[name] for name in sorted(own, key=lambda name: -own[name])}


def _times(run: Run) -> dict[str, float]:
    with profile(use_kineto=False) as seen:
        run()
    averages = seen.key_averages()
    return {e.key.removeprefix("aten::"): e.self_cpu_time_total / 1e6 for e in averages}


def dense_flops(run: Run) -> int:
    """Floating-point operations of the matrix products and convolutions of one run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def gemm(dtype: torch.dtype = torch.float32, n: int = 512) -> float:
    """GFLOP/s of a square product on this core: what dense products cannot exceed."""
    a = torch.randn(n, n).to(dtype)
    a @ a
    started = cpu_seconds()
    for _ in range(5):
        a @ a
    return 5 * 2 * n**3 / (cpu_seconds() - started) / 1e9
