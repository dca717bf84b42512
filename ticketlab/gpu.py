"""The shared GPU helper: device, precision, seeds, determinism, speed and memory.

The only file that knows which accelerator runs; every other module is device-agnostic.
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
    """A number of processes, or a Dask scheduler."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS:
        return value
    if isinstance(value, str) and len(value) > len(CLUSTER) and value.startswith(CLUSTER):
        return value
    raise ValueError(f"allowed is 0 to {MOST_WORKERS}, or '{CLUSTER}' and a scheduler's address")


Workers = Annotated[int | str, PlainValidator(_check_workers)]
"""Units of work at the same time; 0 means one per core on CPU and one on a GPU.
"dask:tcp://HOST:PORT" hands them to the workers of that Dask scheduler, which share the project's
folder."""


class Runtime(Spec):
    """How a study runs. `float32` is the reference of published numbers, the rest buys speed."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Replay captured steps; "auto" is on a CUDA device, but not with `compile`."""
    deterministic: bool = True
    perturb: float = Field(default=0.0, ge=0, lt=1)
    """Relative noise on initial weights: 1e-7 stands for another machine's rounding."""


# ---------------------------------------------------------------- device and processes


def choose_device(name: str = "auto") -> torch.device:
    """The device to use; the environment variable TICKETLAB_DEVICE overrides `name`.

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
    """Prepare this process for `runtime` and return its device. Safe to repeat.

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
        # cuBLAS reads this when its handle is made; without it deterministic mode refuses to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Some CUDA kernels (max-pool's backward) have no deterministic form: they warn, and run.
    strictness = "warn" if device.type == "cuda" else "error"
    torch.set_deterministic_debug_mode(strictness if runtime.deterministic else "default")
    if runtime.compile:  # the compiler has a switch of its own; importing it takes 3 s
        torch.use_deterministic_algorithms(runtime.deterministic, warn_only=strictness == "warn")
    # Filling every new tensor guards against reading uninitialised memory only; it costs 5 %.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


# glibc's mallopt (malloc.h): the parameters, and their new values in bytes
_TRIM, _TRIM_ABOVE = -1, 256 << 20
_MAP, _MAP_ABOVE = -3, 32 << 20  # the largest that it takes


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees for the next step, up to 256 MiB.

    By default it gives large activations back to the system, which then clears every page anew:
    about a tenth of a training step of small convnets. Other C libraries have no such switch.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_TRIM, _TRIM_ABOVE)
        mallopt(_MAP, _MAP_ABOVE)


def worker_count(runtime: Runtime, asked: int | str = 0) -> int | str:
    """Processes to run at once: as asked, else one per core on CPU and one on an accelerator.

    A scheduler's address stays as it is.
    """
    if asked:
        return asked
    if choose_device(runtime.device).type != "cpu":
        return 1
    usable = getattr(os, "sched_getaffinity", None)
    return max(1, len(usable(0)) if usable else os.cpu_count() or 1)


def probe_steps(device: torch.device) -> int:
    """Optimiser steps of a measurement of speed: on CUDA as many as a short training has, so that
    capturing its graph and checking the first replays weigh what they weigh there."""
    return 2000 if device.type == "cuda" else 20


def describe(device: torch.device) -> str:
    """The device in words, e.g. 'cpu' or the accelerator's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Tensors by name on `device`, with one copy for all of a dtype; those that are there stay."""
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
    """A 63-bit seed that depends on every part, e.g. `derive_seed(0, "order", epoch)`."""
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """A random generator of its own on `device`, seeded from `parts`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


def perturbed(
    weights: Mapping[str, torch.Tensor], runtime: Runtime, seed: int
) -> Mapping[str, torch.Tensor]:
    """Initial weights on the CPU, each times 1 + `runtime.perturb` x its own standard normal draw.

    A tensor's draws depend on its name, its shape and the seed. Whole numbers stay as they are.
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
    """bf16 where the runtime asks for it; weights, optimiser and loss stay float32."""
    # The cast cache holds tensors across steps, which a captured graph must not.
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=runtime.precision == "bf16",
        cache_enabled=not uses_graphs(device, runtime),
    )


def layout(x: Tensor, runtime: Runtime) -> Tensor:
    """Images in the memory order the runtime asks for (NHWC when channels_last)."""
    if runtime.channels_last and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def compiled(model: nn.Module, runtime: Runtime) -> nn.Module:
    """The model through torch.compile where asked for (pays only on long runs)."""
    return torch.compile(model) if runtime.compile else model  # type: ignore[return-value]


Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


CHECKED = 20
"""Replays of each graph that are compared with the eager pass."""
LOSS_OFF, GRADS_OFF = 0.02, 0.1
"""Differences that rounding in bf16 explains; a graph that saw another batch is further off."""


class WrongGraph(RuntimeError):
    """A captured pass does not give what the eager pass gives."""


class GraphedPass:
    """One forward and backward pass as a captured graph, replayed without launch overhead.

    Only the shape it was captured with is replayed; any other (the last short batch) runs eagerly.
    `run` must be free of host reads. It fills `grads` and moves the `buffers` (batch-norm
    statistics), which are as they were after the capture. WrongGraph if one of the first replays
    is not as the eager pass on the same weights and batch.
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
        """Loss and logits of this batch; gradients are left in the caller's buffers."""
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
        """A replay beside the eager pass, which leaves no trace."""
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
    """Whether two passes have the same loss (any shape) and gradient (n,), up to rounding.

    One that is not finite is for the training loop to report. One read of the device.
    """
    (loss, grads), (eager, eager_grads) = a, b
    near = (loss - eager).abs() <= LOSS_OFF * (1 + eager.abs())
    along = (grads - eager_grads).norm() <= GRADS_OFF * eager_grads.norm()
    finite = eager.isfinite().all() & eager_grads.isfinite().all()
    return bool((near.all() & along) | ~finite)


def uses_graphs(device: torch.device, runtime: Runtime) -> bool:
    """Whether steps are captured: only on CUDA; by default there, unless the model is compiled."""
    wanted = not runtime.compile if runtime.cuda_graphs == "auto" else runtime.cuda_graphs
    return wanted and device.type == "cuda"


def prefers_written_products(device: torch.device) -> bool:
    """Whether a small MLP is fastest by written and by sparse products: on a CPU."""
    return device.type == "cpu"


def shares_memory(device: torch.device) -> bool:
    """Whether the host, and so numpy, sees the memory of the device's tensors."""
    return device.type == "cpu"


STACK_BYTES = 2**32
"""Memory for the weights, gradients, mask and moments (20 bytes per weight) of one stack."""


def stack_size(device: torch.device, parameters: int) -> int:
    """Nets of so many parameters that train together: on a CPU 16, more do not stay in its cache;
    elsewhere, where launches are what costs, as many as fit into STACK_BYTES."""
    return 16 if device.type == "cpu" else max(1, STACK_BYTES // (20 * parameters))


# ---------------------------------------------------------------- time and memory


class Stopwatch:
    """Seconds of the work between enter and exit, by device events on CUDA."""

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
    """Bytes at the highest point so far: of the device on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def memory_advice(key: str, value: object) -> Iterator[None]:
    """Turn out-of-memory into one line that names the parameter to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{key}: {value} does not fit into memory; lower it ({first})") from error
