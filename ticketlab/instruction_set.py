"""Pins the instruction set to AVX2, so that newer processors give the same bytes as older ones.

oneDNN, PyTorch, MKL, OpenBLAS and numpy choose kernels by what the processor supports, and
different kernels round differently. Each library reads an environment variable when it is first
imported, so a process is pinned by starting it with these variables set. The `ticketlab` program
does this for itself and passes its environment on to workers and kernels. Importing this module,
or ticketlab, sets nothing.

Without AVX2, or on another architecture, nothing can be pinned: such processes are "native".
This module imports neither torch nor numpy.
"""

import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

InstructionSet = Literal["avx2", "native"]

NATIVE = "TICKETLAB_NATIVE"
"""Set by users: any value but '' and '0' leaves every process native (faster with bf16)."""
PINNED = "TICKETLAB_PINNED"
"""The variables that a pinned process was started with, as JSON; changing one undoes the pin."""

EVERYWHERE = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
INTEL = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}
"""On processors of other vendors MKL and OpenBLAS always take the same path."""
UNSET = (
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "NPY_ENABLE_CPU_FEATURES",
    "NPY_DISABLE_CPU_FEATURES",
)
"""Variables that would make those libraries choose other kernels."""

_ASK_NUMPY = (
    "import json, numpy._core._multiarray_umath as m; "
    "print(json.dumps([m.__cpu_dispatch__, [k for k, on in m.__cpu_features__.items() if on]]))"
)


def current(environment: Mapping[str, str] = os.environ) -> InstructionSet:
    """Return the instruction set that a process with this environment uses."""
    try:
        pinned = json.loads(environment.get(PINNED, ""))
    except ValueError:
        return "native"
    if not isinstance(pinned, dict) or not pinned.items() >= EVERYWHERE.items():
        return "native"
    other = [name for name in UNSET if name in environment and name not in pinned]
    kept = all(environment.get(name) == value for name, value in pinned.items())
    return "avx2" if kept and not other else "native"


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether results should be pinned; only TICKETLAB_NATIVE turns this off."""
    return environment.get(NATIVE, "0") in ("", "0")


def pinned(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a copy of the environment with the pin, or an unchanged one if none is possible."""
    free = {k: v for k, v in environment.items() if k not in (*UNSET, *EVERYWHERE, PINNED)}
    dispatched, features = _of_numpy()
    if not {"AVX2", "X86_V3"} & set(features):
        return dict(environment)
    beyond = [name for name in dispatched if name == "X86_V4" or name.startswith("AVX512")]
    pin = EVERYWHERE | (INTEL if vendor() == "GenuineIntel" else {})
    pin |= {"NPY_DISABLE_CPU_FEATURES": " ".join(beyond)} if beyond else {}
    return free | pin | {PINNED: json.dumps(pin, sort_keys=True)}


@cache
def _of_numpy() -> tuple[list[str], list[str]]:
    """Return the features numpy can dispatch on, and those this processor has, read from numpy.

    numpy warns about names that it does not know, so the names are read in a separate process.
    """
    free = {k: v for k, v in os.environ.items() if not k.startswith("NPY_")}
    command = [sys.executable, "-c", _ASK_NUMPY]
    done = subprocess.run(command, env=free, capture_output=True, text=True, check=True)
    dispatched, features = json.loads(done.stdout)
    return dispatched, features


def warn_if_native() -> None:
    """Warn before results are made that this process could be pinned but is not."""
    if current() == "native" and current(pinned()) != "native":
        advice = (
            "start this process with `ticketlab pinned COMMAND ...`"
            if is_wanted()
            else f"{NATIVE} asks for that: unset it for the pinned one"
        )
        warnings.warn(
            "instruction set: not pinned, so results may differ in their last digits from pinned "
            f"ones; {advice}",
            stacklevel=2,
        )


def pin_this_process(environment: MutableMapping[str, str] = os.environ) -> None:
    """Pin a process that has not imported any of the libraries yet; RuntimeError if it has."""
    if current(environment) == "avx2" or not is_wanted(environment):
        return
    if early := sorted({"torch", "numpy"} & set(sys.modules)):
        raise RuntimeError(f"instruction set: {early[0]} is imported already, so nothing is pinned")
    new = pinned(environment)
    for name in set(environment) - set(new):
        del environment[name]
    environment.update(new)


def run(command: Sequence[str]) -> NoReturn:
    """Replace this process by `command`, pinned. OSError if there is no such program."""
    environment = pinned() if is_wanted() else dict(os.environ)
    if sys.platform == "win32":  # there, exec returns to the shell before the program ends
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    sys.stdout.flush()
    os.execvpe(command[0], list(command), environment)


# ---------------------------------------------------------------- the machine


@cache
def vendor() -> str:
    """Return the processor's vendor id, e.g. 'GenuineIntel', or else the architecture."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine()
    if sys.platform == "darwin":
        return "GenuineIntel"
    known = _cpuinfo().get("vendor_id") or platform.processor()
    return next((name for name in ("GenuineIntel", "AuthenticAMD") if name in known), known)


def processor() -> str:
    """Return the processor's model name, as far as the system provides one."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """Return the entries of the first processor in /proc/cpuinfo; empty if it is missing."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0].splitlines() if info.exists() else []
    pairs = (line.partition(":") for line in first)
    return {name.strip(): value.strip() for name, _, value in pairs}


def describe() -> dict[str, Any]:
    """Describe machine and interpreter for results/STUDY/machine.json, which is never compared."""
    return {
        "processor": processor(),
        "vendor": vendor(),
        "cores": os.cpu_count(),
        "instruction_set": current(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
