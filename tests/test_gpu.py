"""The GPU helper: device, seeds, determinism, layout, timing, memory, captured passes."""

import ctypes
import os
import resource
import subprocess
import sys
import time

import pytest
import torch
from conftest import Message, small_net
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import DataSet
from ticketlab.gpu import Runtime
from ticketlab.training.loop import train
from ticketlab.training.recipe import Recipe

HERE = torch.device("cpu")


# --- device and processes


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No override from outside; pretend accelerators with `has`."""
    monkeypatch.delenv("TICKETLAB_DEVICE", raising=False)
    has(monkeypatch)
    return monkeypatch


def has(machine: pytest.MonkeyPatch, cuda: bool = False, mps: bool = False) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: cuda)
    machine.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_device_there_is(
    machine: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str
) -> None:
    has(machine, cuda, mps)
    assert gpu.choose_device() == torch.device(chosen)
    assert gpu.choose_device("cpu") == HERE


def test_the_environment_overrides_the_parameter(machine: pytest.MonkeyPatch) -> None:
    has(machine, cuda=True)
    machine.setenv("TICKETLAB_DEVICE", "cpu")
    assert gpu.choose_device("cuda") == HERE
    assert gpu.start(Runtime(device="cuda")) == HERE


@pytest.mark.parametrize("name", ["tpu", "", "cuda:1"])
def test_an_unknown_device_is_refused(
    machine: pytest.MonkeyPatch, one_line: Message, name: str
) -> None:
    message = one_line(lambda: gpu.choose_device(name))
    assert (
        "runtime.device" in message and repr(name) in message and "auto, cuda, mps, cpu" in message
    )
    machine.setenv("TICKETLAB_DEVICE", name)
    assert one_line(gpu.choose_device) == message


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_this_machine_lacks_is_refused(
    machine: pytest.MonkeyPatch, one_line: Message, name: str
) -> None:
    message = one_line(lambda: gpu.choose_device(name))
    assert "runtime.device" in message and repr(name) in message and "auto or cpu" in message


def test_workers_are_as_asked_else_one_a_core_or_one_on_an_accelerator(
    machine: pytest.MonkeyPatch,
) -> None:
    machine.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert gpu.worker_count(Runtime()) == 3
    assert gpu.worker_count(Runtime(), 7) == 7
    has(machine, cuda=True)
    assert gpu.worker_count(Runtime()) == 1
    assert gpu.worker_count(Runtime(), 2) == 2
    assert gpu.worker_count(Runtime(), "dask:tcp://a:1") == "dask:tcp://a:1"
    machine.delattr(os, "sched_getaffinity")
    machine.setattr(os, "cpu_count", lambda: None)
    assert gpu.worker_count(Runtime(device="cpu")) == 1


def test_start_makes_a_cpu_process_deterministic_with_one_thread(
    machine: pytest.MonkeyPatch,
) -> None:
    machine.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.set_num_threads(2)
    assert gpu.start(Runtime()) == HERE
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    gpu.start(Runtime(deterministic=False))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_tf32_is_used_only_where_asked_for(machine: pytest.MonkeyPatch, precision: str) -> None:
    gpu.start(Runtime(precision=precision))
    flags = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    gpu.start(Runtime())
    assert flags == ((precision == "tf32"),) * 2
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)
def test_a_process_keeps_the_memory_that_a_step_frees(machine: pytest.MonkeyPatch) -> None:
    gpu.start(Runtime())

    def page_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(2**22) for _ in range(8)]  # 16 MiB each
        del kept
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(page_faults() for _ in range(5)) < 1000, "128 MiB are 32768 pages"


# --- seeds


def test_derived_seeds_are_the_same_in_every_process_and_version() -> None:
    # Pinned: another value here means that all published results change.
    assert gpu.derive_seed(0, "order", 1) == 8788366324558629891
    code = "from ticketlab import gpu; print(gpu.derive_seed(0, 'order', 1))"
    other = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, check=True)
    assert int(done.stdout) == 8788366324558629891


def test_derived_seeds_depend_on_every_part_and_its_place() -> None:
    parts: list[tuple[object, ...]] = [
        (), (0,), (1,), ("0",), (0, "a"), ("a", 0), (0, "b"), (1, "a"), (0, "a", 0),
        ("0a",), (0, "a", ""), ((0, "a"),), (0, 1), (0.0, 1), (10,), (False, 1),
    ]  # fmt: skip
    seeds = {gpu.derive_seed(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_equal_parts_draw_alike_and_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draws = [torch.rand(8, generator=gpu.generator("cpu", *p)) for p in ((1, 2), (1, 2), (2, 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.get_rng_state())


# --- precision and layout


def test_autocast_is_on_only_for_bf16() -> None:
    a = torch.ones(4, 4)
    for precision, dtype in [("float32", torch.float32), ("bf16", torch.bfloat16)]:
        with gpu.autocast(HERE, Runtime(precision=precision)):
            assert (a @ a).dtype == dtype


def test_layout_changes_images_only_and_never_their_values() -> None:
    images, rows = torch.rand(2, 3, 4, 5), torch.rand(2, 3)
    asked = gpu.layout(images, Runtime(channels_last=True))
    assert asked.is_contiguous(memory_format=torch.channels_last) and torch.equal(asked, images)
    assert gpu.layout(images, Runtime()) is images
    assert gpu.layout(rows, Runtime(channels_last=True)) is rows


# --- time and memory


def test_a_stopwatch_measures_its_block() -> None:
    clock = gpu.Stopwatch(HERE)
    assert clock.seconds == 0
    started = time.perf_counter()
    with clock:
        time.sleep(0.05)
    assert 0.05 <= clock.seconds <= time.perf_counter() - started


def test_peak_memory_counts_bytes_and_never_falls() -> None:
    before = gpu.peak_memory(HERE)
    assert before > 20 * 2**20  # torch alone is more: a value in KiB would be far less
    big = torch.ones(before // 4 + 2**24)  # as many bytes as the peak, and more
    assert gpu.peak_memory(HERE) >= before + 2**25
    del big
    assert gpu.peak_memory(HERE) >= before + 2**25


def test_out_of_memory_becomes_one_line_that_names_the_parameter(one_line: Message) -> None:
    def allocate() -> None:
        with gpu.memory_advice("recipe.batch", 512):
            raise torch.OutOfMemoryError("tried to allocate 80 GiB\nprocess 1 has 79 GiB")

    message = one_line(allocate)
    assert (
        message.startswith("recipe.batch: 512 ") and "lower it" in message and "80 GiB" in message
    )


def test_memory_advice_lets_other_errors_through() -> None:
    with pytest.raises(KeyError), gpu.memory_advice("recipe.batch", 512):
        raise KeyError("other")


# --- captured passes


def test_passes_are_captured_on_cuda_unless_the_model_is_compiled_or_it_is_switched_off() -> None:
    cuda, asked, off = torch.device("cuda"), Runtime(cuda_graphs=True), Runtime(cuda_graphs=False)
    assert gpu.uses_graphs(cuda, Runtime()) and gpu.uses_graphs(cuda, asked)
    assert not gpu.uses_graphs(cuda, off) and not gpu.uses_graphs(cuda, Runtime(compile=True))
    assert not gpu.uses_graphs(HERE, asked) and not gpu.uses_graphs(HERE, Runtime())


PASS = torch.tensor(2.0), torch.tensor([3.0, -4.0])
NAN = torch.tensor(float("nan"))


@pytest.mark.parametrize(
    ("loss", "grads", "same"),
    [
        (2.0, [3.0, -4.0], True),
        (2.02, [3.01, -3.98], True),  # rounding
        (2.1, [3.0, -4.0], False),
        (2.0, [3.0, -3.0], False),
        (2.0, [0.0, 0.0], False),
        (float("nan"), [3.0, -4.0], False),
        (2.0, [3.0, float("nan")], False),
    ],
)
def test_passes_are_the_same_up_to_rounding(loss: float, grads: list[float], same: bool) -> None:
    assert gpu.same_pass((torch.tensor(loss), torch.tensor(grads)), PASS) is same


def test_a_pass_that_is_not_finite_is_left_to_the_loop() -> None:
    assert gpu.same_pass((NAN, PASS[1]), (NAN, PASS[1]))
    assert gpu.same_pass(PASS, (PASS[0], NAN.expand(2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_with_captured_passes_equals_eager_training(
    digits: DataSet, precision: str
) -> None:
    recipe = Recipe(optimizer="sgd", lr=0.05, batch=64, length="3ep")  # 200 images: a short batch
    states = []
    for graphs in (False, True):
        runtime = Runtime(device="cuda", precision=precision, cuda_graphs=graphs)
        net = small_net(runtime=runtime)
        there = digits.to(net.device)
        train(net, there.train, there, recipe, seed=(0,))
        states.append(net.state())
    tolerance = 1e-4 if precision == "float32" else 2e-2
    for name, eager in states[0].items():
        assert torch.allclose(eager.float(), states[1][name].float(), atol=tolerance), name
    counters = [state["body.bn1.num_batches_tracked"] for state in states]
    assert counters[0] == counters[1] == 12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_a_captured_pass_replays_its_shape_and_runs_any_other() -> None:
    weight = torch.randn(4, 3, device="cuda", requires_grad=True)
    weight.grad = torch.zeros_like(weight)

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert weight.grad is not None
        weight.grad.zero_()
        logits = x @ weight.T
        loss = torch.nn.functional.cross_entropy(logits, y)
        loss.backward()
        return loss.detach(), logits.detach()

    x, y = torch.rand(8, 3, device="cuda"), torch.arange(8).cuda() % 4
    graphed = gpu.GraphedPass(run, x, y, weight.grad.flatten())
    for n in (8, 5, 8):
        x, y = torch.rand(n, 3, device="cuda"), torch.randint(4, (n,), device="cuda")
        loss, logits = (t.clone() for t in graphed(x, y))
        gradient = weight.grad.clone()
        expected = run(x, y)
        assert torch.allclose(loss, expected[0]) and torch.allclose(logits, expected[1])
        assert torch.allclose(gradient, weight.grad)
