"""Environments of processes that are started beside the tests."""

import os

from ticketlab import instruction_set
from ticketlab.instruction_set import PINNED, UNSET

OTHERWISE = {
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "AVX512_ICL",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "OPENBLAS_CORETYPE": "Prescott",
}
"""What a user may have set."""


def free(**more: str) -> dict[str, str]:
    """The environment of the tests without the pin."""
    pin = (*UNSET, *instruction_set.EVERYWHERE, PINNED)
    return {k: v for k, v in os.environ.items() if k not in pin} | more
