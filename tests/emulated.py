"""An emulated CUDA device: it computes on the CPU, and refuses what a real one would refuse.

Inside `emulated()` a tensor is on the device if its memory is marked so; the mark lives on the
memory itself, so that views, parameters and gradients have it too. Every call of torch goes through
a `TorchFunctionMode`. Refused are operands on two devices (but for a CPU tensor of one number, as
CUDA has it), a generator of the other device, numpy arrays of device memory, and inside a captured
pass whatever moves data to or from the host. Counted are the places of the package, "file:line",
that read from the device or copy to it. What a backward pass does inside is not looked at, nor
are the kernels: their speed, their rounding, and which of them are deterministic.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ticketlab import gpu
from ticketlab.spec import ROOT

CUDA, HOST = torch.device("cuda", 0), torch.device("cpu")

# ---------------------------------------------------------------- where memory is


def memory(tensor: Tensor) -> Any:
    """The memory of a tensor; None for a sparse one, which has several."""
    return tensor.untyped_storage() if tensor.layout == torch.strided else None


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor is on the emulated device."""
    return getattr(memory(tensor), "on_emulated_device", False)


def put_there(tensor: Tensor, given: Iterable[Tensor] = ()) -> Tensor:
    """Mark what was computed as on the device; a copy if its memory is that of a CPU tensor."""
    own = memory(tensor)
    if own is None:
        raise NotImplementedError("a sparse tensor on the emulated device")
    if any(memory(other)._cdata == own._cdata for other in given):
        tensor = tensor.clone()
        own = memory(tensor)
    own.on_emulated_device = True
    return tensor


class DeviceGenerator(torch.Generator):
    """`torch.Generator` that takes the emulated device too; it draws what a CPU's would draw."""

    there: bool

    def __new__(cls, device: torch.device | str = "cpu") -> "DeviceGenerator":
        """A generator on the CPU or on the device."""
        made = super().__new__(cls, "cpu")
        made.there = torch.device(device).type == "cuda"
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it draws."""
        return CUDA if self.there else HOST


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A result with every tensor changed; only what is new is replaced."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [each_tensor(part, change) for part in value]
    if isinstance(value, tuple):
        parts = [each_tensor(part, change) for part in value]
        return type(value)(parts) if not hasattr(value, "_fields") else type(value)(*parts)
    return value


# ---------------------------------------------------------------- what torch's functions do

ANSWERS: dict[Any, Any] = {
    Tensor.device.__get__: CUDA,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
    Tensor.get_device: 0,
}
READS = {
    *(Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.__contains__, Tensor.__format__, Tensor.is_nonzero),
    *(Tensor.equal, torch.equal, Tensor.allclose, torch.allclose, torch.is_nonzero),
    # The host has to learn how large the result is.
    *(Tensor.nonzero, torch.nonzero, Tensor.unique, torch.unique, Tensor.bincount),
    *(torch.bincount, Tensor.masked_select, torch.masked_select, torch.argwhere, Tensor.argwhere),
}
UPLOADS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
TO_NUMPY = {Tensor.numpy, Tensor.__array__}
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
INDEXED = {Tensor.__getitem__, Tensor.__setitem__}
ANY_DEVICES = {
    *(Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type),
    *INDEXED,
}
NO_NUMBERS = {
    *(torch.cat, torch.stack, torch.gather, Tensor.gather, torch.index_select),
    *(Tensor.index_select, Tensor.scatter_, Tensor.scatter_add_, Tensor.matmul, torch.matmul),
}
"""These do not take a CPU tensor of one number either."""


def called_from() -> str:
    """The line of the package that called torch, "ticketlab/file.py:line"; empty if none did."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(f"{ROOT}/ticketlab/"):
            return f"{name.removeprefix(f'{ROOT}/')}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Device(TorchFunctionMode):
    """The emulated device: every call of torch while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        """How often each line read from the device, or waited for it."""
        self.uploads: Counter[str] = Counter()
        """How often each line copied from the host."""
        self.capturing = False
        self.captured = 0
        """Passes that were captured or replayed."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of torch, after the checks."""
        kwargs = dict(kwargs or {})
        if func.__name__ == "__deepcopy__":  # of what it is given, only the first is its operand
            given = list(tensors_of(args[0]))
        else:
            given = list(tensors_of((args, kwargs)))
        there = [tensor for tensor in given if is_there(tensor)]
        if there and func in ANSWERS:
            return ANSWERS[func]
        if func in MOVES:
            return self._move(func, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = HOST
        on_device = bool(there) if wanted is None else torch.device(wanted).type == "cuda"
        here = [tensor for tensor in given if not is_there(tensor)]
        self._check_operands(func, args, there, here)
        _check_generator(args, kwargs, on_device)
        self._count(func, args, there, on_device)
        result = func(*args, **kwargs)
        return each_tensor(result, partial(put_there, given=here)) if on_device else result

    # ------------------------------------------------ host and device

    def read(self) -> None:
        """The host reads from the device, which a captured pass must not."""
        self._outside_of_capture("a host read")
        self.reads[called_from()] += 1

    def upload(self) -> None:
        """The host copies to the device, which a captured pass must not."""
        self._outside_of_capture("a copy from the host")
        self.uploads[called_from()] += 1

    def _outside_of_capture(self, what: str) -> None:
        if self.capturing:
            raise RuntimeError(f"emulated device: {what} while a graph is captured")

    def _move(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """`to`, `cpu` and `cuda`: a copy where the device changes."""
        tensor, *words = args
        words += [kwargs.pop("device", None)]
        kwargs.pop("non_blocking", None)
        types = [value.dtype if isinstance(value, Tensor) else value for value in words]
        moved = Tensor.to(tensor, HOST, *(t for t in types if isinstance(t, torch.dtype)), **kwargs)
        old = CUDA if is_there(tensor) else HOST
        new = {Tensor.cpu: HOST, Tensor.cuda: CUDA}.get(func) or _named(words) or old
        if new == old:
            return put_there(moved) if new == CUDA else moved
        (self.upload if new == CUDA else self.read)()
        if moved.layout == torch.strided and memory(moved)._cdata == memory(tensor)._cdata:
            moved = moved.clone()
        return put_there(moved) if new == CUDA else moved

    # ------------------------------------------------ checks

    def _check_operands(
        self, func: Any, args: tuple[Any, ...], there: list[Tensor], here: list[Tensor]
    ) -> None:
        if there and func in TO_NUMPY:
            raise TypeError("emulated device: its tensors have no numpy array, use Tensor.cpu()")
        if func in INDEXED:
            _check_index(*args)
        if not there or func in ANY_DEVICES:
            return
        wide = [t for t in here if t.dim() > 0 or func in NO_NUMBERS or is_changed(t, func, args)]
        if wide:
            shapes = [tuple(t.shape) for t in there], [tuple(t.shape) for t in wide]
            raise RuntimeError(
                f"emulated device: {func.__name__} of tensors on cuda:0 {shapes[0]} and on the "
                f"cpu {shapes[1]}"
            )

    def _count(
        self, func: Any, args: tuple[Any, ...], there: list[Tensor], on_device: bool
    ) -> None:
        """Count what moves between host and device."""
        if there and func in READS:
            self.read()
        elif on_device and func in UPLOADS:
            self.upload()
        elif func is Tensor.copy_ and is_there(args[0]) != is_there(args[1]):
            (self.upload if is_there(args[0]) else self.read)()
        elif func in INDEXED:
            self._count_index(*args)

    def _count_index(self, tensor: Tensor, index: Any, value: Any = None) -> None:
        """A mask as an index makes the host wait; an index or a value may be on the host."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if is_there(tensor):
            if any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts):
                self.read()
            on_host = any(isinstance(part, Tensor) and not is_there(part) for part in parts)
            if on_host or any(isinstance(part, list) for part in parts):
                self.upload()
        if any(isinstance(part, Tensor) and part.dim() == 0 for part in parts):
            return
        if isinstance(value, Tensor) and is_there(value) != is_there(tensor) and value.dim() > 0:
            (self.upload if is_there(tensor) else self.read)()


def _named(words: Iterable[Any]) -> torch.device | None:
    """The device that arguments of `to` name, or that a tensor among them is on; None for none."""
    for word in words:
        if isinstance(word, Tensor):
            return CUDA if is_there(word) else HOST
        if isinstance(word, str | torch.device):
            return CUDA if torch.device(word).type == "cuda" else HOST
    return None


def is_changed(tensor: Tensor, func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the function writes into this tensor, its first operand."""
    name = func.__name__
    in_place = name.endswith("_") and not name.endswith("__")
    return bool(args) and args[0] is tensor and (in_place or name in IN_PLACE)


IN_PLACE = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "and", "or", "xor")}


def _check_index(tensor: Tensor, index: Any, value: Any = None) -> None:
    """An index is on the CPU or with the tensor; so is what is written to single places."""
    places = list(tensors_of(index))
    if not is_there(tensor) and any(map(is_there, places)):
        raise RuntimeError("emulated device: an index on cuda:0 into a tensor on the cpu")
    if not (places and isinstance(value, Tensor)) or is_there(value) == is_there(tensor):
        return
    if value.dim() > 0 or is_there(value):
        raise RuntimeError("emulated device: values of another device written to single places")


def _check_generator(args: tuple[Any, ...], kwargs: Mapping[str, Any], on_device: bool) -> None:
    """A generator draws on its own device."""
    for value in [*args, *kwargs.values()]:
        if isinstance(value, DeviceGenerator) and value.there != on_device:
            place = CUDA if on_device else HOST
            raise RuntimeError(f"emulated device: a {value.device} generator draws on {place}")


# ---------------------------------------------------------------- streams, graphs, the whole


class _Stream:
    """A stream, an event, or a graph, none of which has anything to do."""

    def __init__(self, **_: object) -> None:
        self.redo: Callable[[], None] = lambda: None

    def wait_stream(self, _: object) -> None:
        """Everything runs at once."""

    def record(self) -> None:
        """Nothing is timed."""

    def synchronize(self) -> None:
        """Everything has run."""

    def elapsed_time(self, _: object) -> float:
        """Milliseconds; some."""
        return 1.0

    def replay(self) -> None:
        """Run the captured pass again, on what is in its inputs now."""
        self.redo()


@contextmanager
def _captured(device: Device) -> Iterator[None]:
    """A pass that is captured."""
    device.captured += 1
    device.capturing = True
    try:
        yield
    finally:
        device.capturing = False


def _graphs(patch: pytest.MonkeyPatch, device: Device) -> None:
    """Graphs that check a pass while it is captured, and run it again for a replay."""
    make = gpu.GraphedPass.__init__

    def redo(graphed: gpu.GraphedPass) -> None:
        with _captured(device):
            found = graphed.run(graphed.x, graphed.y)
        for fixed, new in zip(graphed.outputs, found, strict=True):
            fixed.copy_(new)

    def init(graphed: gpu.GraphedPass, *arguments: Any) -> None:
        make(graphed, *arguments)
        graphed.graph.redo = partial(redo, graphed)

    patch.setattr(gpu.GraphedPass, "__init__", init)
    patch.setattr(torch.cuda, "CUDAGraph", _Stream)
    patch.setattr(torch.cuda, "graph", lambda graph: _captured(device))


@contextmanager
def emulated() -> Iterator[Device]:
    """The device, where `gpu.choose_device` finds it, while the block runs."""
    device = Device()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TICKETLAB_DEVICE", raising=False)
        patch.setattr(torch, "Generator", DeviceGenerator)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_name", lambda _=None: "emulated")
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _=None: 1)
        patch.setattr(torch.cuda, "Stream", _Stream)
        patch.setattr(torch.cuda, "Event", _Stream)
        patch.setattr(torch.cuda, "current_stream", _Stream)
        patch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        _graphs(patch, device)
        with device:
            yield device
