"""Device-specific code: device choice, precision, seeds, determinism, timing and memory.

The only module that depends on the type of accelerator; all others are device-agnostic.
"""

import ctypes
import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PlainValidator
from torch import Tensor, nn

from ticketlab.spec import InputError, Spec

DEVICES = ("auto", "cuda", "mps", "cpu")
CLUSTER = "dask:"
MOST_WORKERS = 256


def _check_workers(value: object) -> int | str:
    """Validate a number of processes or the address of a Dask scheduler."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS:
        return value
    if isinstance(value, str) and len(value) > len(CLUSTER) and value.startswith(CLUSTER):
        return value
    raise ValueError(f"allowed is 0 to {MOST_WORKERS}, or '{CLUSTER}' and a scheduler's address")


Workers = Annotated[int | str, PlainValidator(_check_workers)]
"""Units of work to run at the same time; 0 means one per core on a CPU and one on a GPU.
"dask:tcp://HOST:PORT" sends them to the workers of that Dask scheduler, which must see the same
project folder."""


class Runtime(Spec):
    """How a study runs. Published numbers use `float32`; the other options trade it for speed."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Replay captured CUDA graphs; "auto" means on CUDA, unless `compile` is set."""
    deterministic: bool = True
    perturb: float = Field(default=0.0, ge=0, lt=1)
    """Relative noise on initial weights: 1e-7 imitates the rounding of another machine."""


# ---------------------------------------------------------------- device and processes


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to use; the environment variable TICKETLAB_DEVICE overrides `name`.

    Raises InputError for an unknown name or a device that this machine lacks.
    """
    name = os.environ.get("TICKETLAB_DEVICE", name)
    if name not in DEVICES:
        raise InputError(f"runtime.device: {name!r} is not one of {', '.join(DEVICES)}")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        raise InputError(f"runtime.device: {name!r} is not available here; use auto or cpu")
    return torch.device(name)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def start(runtime: Runtime) -> torch.device:
    """Prepare this process for `runtime` and return its device. May be called more than once.

    On CPU a process gets one thread: two one-thread processes are about twice as fast as one
    with two threads, and results depend on the number of threads.
    """
    device = choose_device(runtime.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        _keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = runtime.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = runtime.precision == "tf32"
    torch.backends.cudnn.benchmark = not runtime.deterministic
    if runtime.deterministic:
        # cuBLAS reads this when it creates its handle; deterministic mode fails without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Some CUDA kernels (max-pool's backward) have no deterministic form: they only warn.
    strictness = "warn" if device.type == "cuda" else "error"
    torch.set_deterministic_debug_mode(strictness if runtime.deterministic else "default")
    if runtime.compile:  # the compiler has its own switch; importing it takes 3 s
        torch.use_deterministic_algorithms(runtime.deterministic, warn_only=strictness == "warn")
    # Filling every new tensor only guards against reads of uninitialised memory; it costs 5 %.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


# glibc's mallopt (malloc.h): the parameters, and their new values in bytes
_TRIM, _TRIM_ABOVE = -1, 256 << 20
_MAP, _MAP_ABOVE = -3, 32 << 20  # the maximum that mallopt accepts


def _keep_freed_memory() -> None:
    """Let glibc keep up to 256 MiB that one training step frees, for the next step.

    By default glibc returns large activations to the system, which clears every page again: about
    a tenth of a training step of small convnets. Other C libraries have no such option.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_TRIM, _TRIM_ABOVE)
        mallopt(_MAP, _MAP_ABOVE)


def worker_count(runtime: Runtime, asked: int | str = 0) -> int | str:
    """Return how many processes to run at once: `asked`, or one per core on a CPU, one on a GPU.

    The address of a scheduler is returned unchanged.
    """
    if asked:
        return asked
    if choose_device(runtime.device).type != "cpu":
        return 1
    usable = getattr(os, "sched_getaffinity", None)
    return max(1, len(usable(0)) if usable else os.cpu_count() or 1)


def probe_steps(device: torch.device) -> int:
    """Return how many optimiser steps a speed measurement takes.

    On CUDA as many as a short training run, so that capturing the graph and checking its first
    replays have the same share of the time as in a real run.
    """
    return 2000 if device.type == "cuda" else 20


def describe(device: torch.device) -> str:
    """Describe the device, e.g. 'cpu' or the accelerator's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Return the tensors on `device`, with one transfer per dtype; those already there stay."""
    device, found = torch.device(device), dict(tensors)
    away = [name for name, tensor in tensors.items() if not _is_on(device, tensor)]
    for dtype in {tensors[name].dtype for name in away}:
        names = [name for name in away if tensors[name].dtype == dtype]
        flat = torch.cat([tensors[name].detach().flatten() for name in names]).to(device)
        parts = flat.split([tensors[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            found[name] = part.view(tensors[name].shape)
    return found


def _is_on(device: torch.device, tensor: Tensor) -> bool:
    here = tensor.device
    return here.type == device.type and device.index in (None, here.index)


# ---------------------------------------------------------------- seeds


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part, e.g. `derive_seed(0, "order", epoch)`."""
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """Return a new random generator on `device`, seeded from `parts`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


def perturbed(
    weights: Mapping[str, torch.Tensor], runtime: Runtime, seed: int
) -> Mapping[str, torch.Tensor]:
    """Multiply each initial weight (on the CPU) by 1 + `runtime.perturb` x a standard normal draw.

    A tensor's draws depend on its name, its shape and the seed. Integers are left unchanged.
    """
    if not runtime.perturb:
        return weights
    found = dict(weights)
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            random = generator("cpu", "perturb", name, seed)
            noise = torch.randn(tensor.shape, generator=random, dtype=torch.float64)
            found[name] = (tensor.double() * (1 + runtime.perturb * noise)).to(tensor.dtype)
    return found


# ---------------------------------------------------------------- precision and layout


def autocast(device: torch.device, runtime: Runtime) -> AbstractContextManager[Any]:
    """Run in bf16 if the runtime asks for it; weights, optimiser and loss stay float32."""
    # The cast cache would keep tensors between steps, which a captured graph must not use.
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=runtime.precision == "bf16",
        cache_enabled=not uses_graphs(device, runtime),
    )


def layout(x: Tensor, runtime: Runtime) -> Tensor:
    """Return images in the runtime's memory order (NHWC if `channels_last` is set)."""
    if runtime.channels_last and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def compiled(model: nn.Module, runtime: Runtime) -> nn.Module:
    """Return the model, compiled by torch.compile if asked for (only long runs profit)."""
    return torch.compile(model) if runtime.compile else model  # type: ignore[return-value]


Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


CHECKED = 20
"""Replays of each graph that are checked against the eager pass."""
LOSS_OFF, GRADS_OFF = 0.02, 0.1
"""Tolerances for rounding in bf16; a graph that read the wrong batch differs by more."""


class WrongGraph(RuntimeError):
    """A captured pass gives other results than the eager pass."""


class GraphedPass:
    """One forward and backward pass as a captured CUDA graph, replayed without launch overhead.

    Only the captured shape is replayed; other shapes (the last short batch) run eagerly. `run` must
    not read the device from the host. It fills `grads` and updates the `buffers` (batch-norm
    statistics), which are restored after the capture. Raises WrongGraph if one of the first replays
    differs from the eager pass on the same weights and batch.
    """

    def __init__(
        self, run: Pass, x: Tensor, y: Tensor, grads: Tensor, buffers: Sequence[Tensor] = ()
    ) -> None:
        self.run, self.grads, self.buffers = run, grads, buffers
        self.x, self.y, self.unchecked = x.clone(), y.clone(), CHECKED
        before = [tensor.clone() for tensor in buffers]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # lets cuDNN and autograd allocate outside the graph
                run(self.x, self.y)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = run(self.x, self.y)
        self._restore(before)

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and logits of a batch; gradients are left in the caller's buffers."""
        if x.shape != self.x.shape:
            return self.run(x, y)
        if self.unchecked:
            return self._checked(x, y)
        return self._replay(x, y)

    def _replay(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        return self.outputs

    def _checked(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Replay the graph and compare it with an eager pass, whose effects are undone."""
        before = [tensor.clone() for tensor in self.buffers]
        loss, grads = self.run(x, y)[0].clone(), self.grads.clone()
        self._restore(before)
        outputs = self._replay(x, y)
        if not same_pass((outputs[0], self.grads), (loss, grads)):
            raise WrongGraph(
                f"captured pass {CHECKED - self.unchecked + 1}: loss and gradient are not those of "
                "the eager pass on the same batch; train with runtime.cuda_graphs: false"
            )
        self.unchecked -= 1
        return outputs

    def _restore(self, before: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.buffers, before, strict=True):
            tensor.copy_(value)


def same_pass(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    """Return whether two passes have equal loss (any shape) and gradient (n,), up to rounding.

    Non-finite values count as equal: the training loop reports them. Reads the device once.
    """
    (loss, grads), (eager, eager_grads) = a, b
    near = (loss - eager).abs() <= LOSS_OFF * (1 + eager.abs())
    along = (grads - eager_grads).norm() <= GRADS_OFF * eager_grads.norm()
    finite = eager.isfinite().all() & eager_grads.isfinite().all()
    return bool((near.all() & along) | ~finite)


def uses_graphs(device: torch.device, runtime: Runtime) -> bool:
    """Return whether steps are captured: only on CUDA, and by default only without `compile`."""
    wanted = not runtime.compile if runtime.cuda_graphs == "auto" else runtime.cuda_graphs
    return wanted and device.type == "cuda"


def prefers_written_products(device: torch.device) -> bool:
    """Return whether written-out and sparse products are the fastest for small MLPs: on a CPU."""
    return device.type == "cpu"


def shares_memory(device: torch.device) -> bool:
    """Return whether the host, and so numpy, can read the device's tensors in place."""
    return device.type == "cpu"


STACK_BYTES = 2**32
"""Memory for the weights, gradients, mask and moments of one stack, at 20 bytes per weight."""


def stack_size(device: torch.device, parameters: int) -> int:
    """Return how many nets of `parameters` weights train together in one stack.

    On a CPU 16, since more do not fit its cache; elsewhere, where kernel launches dominate, as many
    as fit into STACK_BYTES.
    """
    return 16 if device.type == "cpu" else max(1, STACK_BYTES // (20 * parameters))


# ---------------------------------------------------------------- time and memory


class Stopwatch:
    """Seconds spent between enter and exit, measured by device events on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        if self.device.type == "cuda":
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self._events[0].record()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        if self.device.type == "cuda":
            self._events[1].record()
            self._events[1].synchronize()
            self.seconds = self._events[0].elapsed_time(self._events[1]) / 1000


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes so far: of the device on CUDA, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def memory_advice(key: str, value: object) -> Iterator[None]:
    """Turn an out-of-memory error into one line that names the parameter to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{key}: {value} does not fit into memory; lower it ({first})") from error
