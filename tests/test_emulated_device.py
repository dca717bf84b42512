"""Every unit of every paper on an emulated CUDA device, and the emulator's own positive controls.

`emulated` says what the device refuses and counts. The studies are those of `tiny`; they and their
trainings run as on a GPU: one worker, masks by radix, batches cut on the device, passes captured.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import equal, small_net
from emulated import CUDA, HOST, Device, emulated, is_there
from recording import replace_everywhere
from torch import Tensor, nn

from ticketlab import gpu, models
from ticketlab.data.sets import Augment, Batches, DataSet
from ticketlab.files import read_yaml
from ticketlab.gpu import Runtime
from ticketlab.many import stacks
from ticketlab.many.train_many import Job, train_many
from ticketlab.papers.dlth import algorithm as dlth
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm import edge_popup
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal, PopupFit
from ticketlab.papers.plant_n_seek.conv.edge_popup import pop
from ticketlab.pipeline import registry
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.runner import UnitFailed, run_study
from ticketlab.tickets.ticket import make_ticket
from ticketlab.training import loop
from ticketlab.training.net import Net
from ticketlab.training.recipe import Recipe

ON_DEVICE = Runtime(device="cuda", cuda_graphs=False)
GRAPHED = Runtime(device="cuda")


@pytest.fixture
def device() -> Iterator[Device]:
    """The emulated device, entered."""
    with emulated() as found:
        yield found


@pytest.fixture
def there(device: Device, digits: DataSet) -> DataSet:
    """The tiny data set on the device."""
    return digits.to(CUDA)


# ---------------------------------------------------------------- the emulator itself


def test_a_tensor_says_where_it_is_and_hands_it_on(device: Device) -> None:
    a = torch.arange(6.0, device="cuda").view(2, 3)
    weight = nn.Parameter(a)
    (weight.T * 2).sum().backward()
    clones = (a.cpu().to("cuda"), copy.deepcopy(weight), torch.zeros_like(a), a.new_ones(2))
    for tensor in (a, a[0], a + 1, weight, weight.grad, *clones, *a.unbind(), a.max(1).values):
        assert tensor is not None and tensor.device == CUDA and tensor.is_cuda
    for tensor in (a.cpu(), a.to("cpu"), torch.ones(2), torch.zeros_like(a, device="cpu")):
        assert tensor.device == HOST and not tensor.is_cuda


def test_a_move_is_a_copy(device: Device) -> None:
    first = torch.zeros(3)
    second = first.to("cuda")
    third = second.cpu()
    second += 1
    assert first.tolist() == third.tolist() == [0, 0, 0] and second.tolist() == [1, 1, 1]
    assert second.to("cuda") is second and first.to("cpu") is first


def test_a_model_moves_in_place_with_its_buffers(device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = list(model.parameters())
    model.to(torch.device("cuda"))
    assert all(old is new for old, new in zip(before, model.parameters(), strict=True))
    assert all(map(is_there, [*model.parameters(), *model.buffers()]))
    assert all(map(is_there, [*copy.deepcopy(model).parameters()]))


MIXES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "product": lambda a, b: a * b,
    "the other way round": lambda a, b: b * a,
    "in place": lambda a, b: a.mul_(b),
    "in place on the cpu": lambda a, b: b.__iadd__(a),
    "a number on the cpu is written to": lambda a, b: b[0].add_(a[0]),
    "matrix product": lambda a, b: a @ b,
    "torch.cat": lambda a, b: torch.cat([a, b]),
    "torch.stack of numbers": lambda a, b: torch.stack([a[0], b[0]]),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "out": lambda a, b: torch.add(a, a, out=b),
    "torch.equal": lambda a, b: torch.equal(a, b),
    "index_select": lambda a, b: a.index_select(0, b.long()),
    "an index of the device": lambda a, b: b[a.long()],
    "values of the cpu at places": lambda a, b: a.__setitem__(a > 0, b),
    "loss": lambda a, b: nn.functional.mse_loss(a, b),
    "numpy": lambda a, _: np.asarray(a),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_two_devices_in_one_function_are_refused(
    device: Device, mix: Callable[[Tensor, Tensor], object]
) -> None:
    a, b = torch.ones(3, device="cuda"), torch.ones(3)
    mix(a, a.clone()) if mix is not MIXES["numpy"] else None
    with pytest.raises((RuntimeError, TypeError), match="emulated device"):
        mix(a, b)


def test_what_cuda_allows_of_two_devices_is_allowed(device: Device) -> None:
    a, b = torch.arange(3.0, device="cuda"), torch.arange(3)
    assert (a * torch.tensor(2.0)).tolist() == [0, 2, 4]  # a CPU tensor of one number
    assert a[b].tolist() == [0, 1, 2] and a[b].is_cuda  # an index on the CPU
    a.copy_(b * 3)
    a[0] = torch.tensor(5)
    assert a.tolist() == [5, 3, 6]


def test_a_generator_draws_on_its_own_device_only(device: Device, there: DataSet) -> None:
    ours, cpus = gpu.generator("cuda", 1), gpu.generator("cpu", 1)
    assert ours.device == CUDA and cpus.device == HOST
    drawn = torch.rand(4, generator=ours, device="cuda")
    assert torch.equal(drawn.cpu(), torch.rand(4, generator=cpus))
    augmented = Batches(there.train, there, Augment(crop=1, flip=True))
    index = torch.arange(3, device="cuda")
    assert augmented(index, ours).is_cuda
    wrong: list[Callable[[], object]] = [
        lambda: torch.rand(4, generator=cpus, device="cuda"),
        lambda: torch.randperm(4, generator=ours),
        lambda: torch.ones(3, device="cuda").uniform_(generator=cpus),
        lambda: torch.ones(3).normal_(generator=ours),
        lambda: nn.init.kaiming_normal_(torch.ones(3, 3, device="cuda"), generator=cpus),
        lambda: augmented(index, cpus),
    ]
    for draw in wrong:
        with pytest.raises(RuntimeError, match=r"emulated device: a .* generator draws on"):
            draw()


HOST_COPIES: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "bool": lambda x: bool(x.isfinite().all()),
    "float": lambda x: float(x.sum()),
    "a mask as index": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "torch.equal": lambda x: torch.equal(x, x),
    "copy to the host": lambda x: torch.zeros(2, 3).copy_(x),
    "torch.tensor": lambda x: torch.tensor(1.0, device=x.device),
    "new_tensor": lambda x: x.new_tensor(-1.0),
    "to the device": lambda _: torch.ones(2).to("cuda"),
    "an index from the host": lambda x: x[torch.tensor([0])],
}


@pytest.mark.parametrize("copies", HOST_COPIES.values(), ids=HOST_COPIES.keys())
def test_a_host_copy_counts_and_is_refused_in_a_captured_pass(
    device: Device, copies: Callable[[Tensor], object]
) -> None:
    x, y = torch.ones(2, 3, device="cuda"), torch.zeros(2, device="cuda")
    before = device.reads.total() + device.uploads.total()
    copies(x)
    assert device.reads.total() + device.uploads.total() == before + 1

    def run(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        copies(x)
        return x.sum(), y

    with pytest.raises(RuntimeError, match=r"emulated device: .* while a graph is captured"):
        gpu.GraphedPass(run, x, y, torch.zeros(1, device="cuda"))
    assert not device.capturing


def test_a_captured_pass_is_replayed_into_its_fixed_outputs(device: Device) -> None:
    x = torch.ones(2, 3, device="cuda")
    graphed = gpu.GraphedPass(lambda x, y: (x.sum(), x + y), x, x, torch.zeros(1, device="cuda"))
    first = graphed(x, x)
    second = graphed(2 * x, x)
    assert first[1] is second[1] and float(first[0]) == 12 and device.captured == 3


def wrong_input(graphed: gpu.GraphedPass) -> None:
    """A replay on the batch that it was captured with."""
    x = graphed.x.clone()
    real = graphed.graph.replay
    graphed.graph.replay = lambda: (graphed.x.copy_(x), real())


def no_zeroing(graphed: gpu.GraphedPass) -> None:
    """A replay that adds to the gradient of the pass before."""
    real = graphed.graph.replay

    def replay() -> None:
        before = graphed.grads.clone()
        real()
        graphed.grads.add_(before)

    graphed.graph.replay = replay


def stale_output(graphed: gpu.GraphedPass) -> None:
    """A replay whose loss stays as it was when it was captured."""
    loss = graphed.outputs[0].clone() * 1.5
    real = graphed.graph.replay
    graphed.graph.replay = lambda: (real(), graphed.outputs[0].copy_(loss))


@pytest.mark.parametrize("fault", [wrong_input, no_zeroing, stale_output])
def test_a_graph_that_gives_something_else_ends_the_training(
    fault: Callable[[gpu.GraphedPass], None],
    device: Device,
    there: DataSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = gpu.GraphedPass.__init__

    def planted(graphed: gpu.GraphedPass, *arguments: Any) -> None:
        make(graphed, *arguments)
        fault(graphed)

    monkeypatch.setattr(gpu.GraphedPass, "__init__", planted)
    with pytest.raises(gpu.WrongGraph, match=r"captured pass \d+: .*cuda_graphs: false"):
        by_loop(there, 40, GRAPHED)


def test_the_first_twenty_replays_are_checked_and_the_others_are_not(
    device: Device, there: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    real = gpu.same_pass
    monkeypatch.setattr(gpu, "same_pass", lambda *both: asked.append(real(*both)) or asked[-1])
    by_loop(there, 10, GRAPHED)  # 40 steps
    assert asked == [True] * gpu.CHECKED


# ---------------------------------------------------------------- faults planted into the package


CRITERIA = ("random", "magnitude", "snip", "grasp", "synflow")
SHAPES = {"b": (7, 5), "a": (40,), "c": (3, 2, 3, 3)}


def test_a_cpu_mask_goes_to_the_models_device(there: DataSet) -> None:
    net = small_net(runtime=ON_DEVICE)
    mask = masks.ones(net.model, models.prunable(net.model, "conv_linear"))
    x, y = Batches(there.train, there)(torch.arange(20, device=CUDA)), there.train.y[:20]
    for criterion in CRITERIA:
        first, second = (
            saliency.prune_model(
                net.model, given, criterion, 0.5, x, y, gpu.generator("cuda", 1), rounds=2
            )
            for given in (mask, mask.to("cpu"))
        )
        assert is_there(first.flat()) and first == second
        scores = saliency.score(net.model, mask.to("cpu"), criterion, x, y, gpu.generator("cuda"))
        assert masks.keep_top(scores, 9, within=mask.to("cpu")).alive == 9


def test_a_selection_on_the_device_is_the_cpus_and_reads_two_numbers(device: Device) -> None:
    drawn = torch.Generator()
    scores = {n: torch.randn(s, generator=drawn).round(decimals=1) for n, s in SHAPES.items()}
    within = Mask({n: torch.rand(s, generator=drawn) < 0.6 for n, s in SHAPES.items()})
    there = {name: score.to(CUDA) for name, score in scores.items()}
    for count in (0, 1, within.alive // 3, within.alive):
        device.reads.clear()
        found = masks.keep_top(there, count, within.to(CUDA))
        assert device.reads.total() <= 2
        assert found.to("cpu") == masks.keep_top(scores, count, within)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "says"),
    [
        (Mask, "to", lambda mask, _: mask, "its tensors have no numpy array"),
        (gpu, "generator", lambda _, *p: torch.Generator().manual_seed(0), "generator draws on"),
    ],
    ids=["masks stay where they are", "all generators on the cpu"],
)
def test_a_fault_in_the_package_ends_a_study(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, wrong: Any, says: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(tiny.RUNTIME, "device", "cuda")
    monkeypatch.setattr(owner, name, wrong)
    with emulated(), pytest.raises(UnitFailed, match=f"emulated device: .*{says}"):
        run_study(registry.PAPERS["compare"].phases(tiny.compare()), tmp_path)


# ---------------------------------------------------------------- ways of training

RECIPE = Recipe(lr=0.05, momentum=0.9, batch=40, length="2ep")


def mlp_job(data: DataSet, recipe: Recipe = RECIPE, seed: int = 0) -> Job:
    """A small MLP with a random mask on all training images."""
    spec = models.ModelSpec(name="mlp", width=16, depth=2)
    model = models.build(spec, data.shape, 10, seed)
    mask = half_mask(model, seed)
    return Job(model, data.train, data, recipe, (seed,), mask, None, data.validation)


def half_mask(model: nn.Module, seed: int = 0) -> Mask:
    """A random mask that keeps half of the weights of a model on the CPU."""
    dense = masks.ones(model, models.prunable(model, "conv_linear"))
    random = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
    return masks.keep_top(scores, dense.total // 2)


def by_loop(data: DataSet, batch: int, runtime: Runtime = ON_DEVICE) -> State:
    """A convnet trained by the one loop."""
    net = small_net(runtime=runtime)
    recipe = RECIPE.model_copy(update={"batch": batch})
    loop.train(net, data.train, data, recipe, seed=(0,))
    return net.state()


def by_lanes(data: DataSet, batch: int, runtime: Runtime = ON_DEVICE) -> list[State]:
    """Two MLPs trained side by side."""
    recipe = RECIPE.model_copy(update={"batch": batch})
    jobs = [mlp_job(data, recipe, seed) for seed in (0, 1)]
    return [done.state for done in train_many(jobs, runtime, "stacked", tell=lambda _: None)]


def small_nets() -> tuple[list[State], Tensor, Tensor]:
    """Two small nets and 200 samples, on the device."""
    x, y = planting.sample("circle", 200, 0.0, torch.Generator().manual_seed(5))
    shape = (x.shape[1], 8, 4)
    hosts = [planting.mother(shape, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    return [stacks.cast(net, torch.float32, CUDA) for net in hosts], x.float().to(CUDA), y.to(CUDA)


def by_stack(_: DataSet, batch: int) -> list[State]:
    """Two nets of Plant 'n' Seek."""
    nets, x, y = small_nets()
    dense = [
        Mask({n: torch.ones_like(w, dtype=torch.bool) for n, w in net.items()}) for net in nets
    ]
    fit = stacks.Fit(batch=batch, epochs=2)
    return stacks.train(nets, dense, x, y, "classification", fit, (0,))


def by_popup(_: DataSet, batch: int) -> list[Mask]:
    """Edge-popup on two nets of Plant 'n' Seek."""
    nets, x, y = small_nets()
    fit = PopupFit(batch=batch, epochs=2)
    goals = [Goal(0.5), Goal(0.3, annealed=True)]
    return edge_popup.edge_popup(nets, goals, x, y, "classification", fit, (0,)).masks


def by_conv_popup(data: DataSet, batch: int) -> Mask:
    """Edge-popup on a convnet."""
    net = small_net("conv2", ON_DEVICE)
    named = masks.ones(net.model, models.prunable(net.model, "conv_linear"))
    recipe = RECIPE.model_copy(update={"batch": batch})
    return pop(net, named, Goal(0.4), data.train, data, recipe, (0,))


@pytest.mark.parametrize(
    "way",
    [by_loop, by_stack, by_lanes, by_popup, by_conv_popup],
)
def test_how_often_the_host_reads_or_copies_does_not_depend_on_the_steps(
    device: Device, there: DataSet, way: Callable[[DataSet, int], object]
) -> None:
    seen = []
    for batch in (40, 10):  # 10 steps, then 40
        device.reads.clear()
        device.uploads.clear()
        way(there, batch)
        seen.append((device.reads.copy(), device.uploads.copy()))
    assert seen[0] == seen[1]


def test_the_loop_on_the_device_gives_the_cpus_bits_and_reads_once_per_epoch(
    digits: DataSet,
) -> None:
    expected = by_loop(digits, 64, Runtime(device="cpu"))  # 200 images: a short batch
    with emulated() as device:
        found = by_loop(digits.to(CUDA), 64)
        assert equal({name: tensor.cpu() for name, tensor in found.items()}, expected)
    own = [count for line, count in device.reads.items() if "training/loop.py" in line]
    assert own == [2]  # one line, two epochs


def test_captured_steps_of_the_loop_give_the_same_bits(device: Device, there: DataSet) -> None:
    expected = by_loop(there, 64)
    assert device.captured == 0
    assert equal(by_loop(there, 64, GRAPHED), expected)
    assert device.captured == 1 + 2 * 3  # once for the capture, then each whole batch


def test_captured_steps_of_lanes_give_the_same_bits(device: Device, there: DataSet) -> None:
    expected = by_lanes(there, 40)
    found = by_lanes(there, 40, GRAPHED)
    assert all(equal(one, other) for one, other in zip(found, expected, strict=True))


# ---------------------------------------------------------------- what is moved, in one copy each


def test_a_net_its_state_and_its_mask_are_moved_in_one_copy_each(device: Device) -> None:
    host = small_net()
    mask, state = half_mask(host.model), host.state()
    net = small_net(runtime=ON_DEVICE)
    buffers = len(list(net.model.buffers()))
    assert device.uploads.total() == 1 + buffers
    device.uploads.clear()
    net.rewind(state, mask)
    assert device.uploads.total() == 2 + 1  # float32 and batch-norm's count of batches; the mask
    expected = {name: w * mask[name] if name in mask else w for name, w in state.items()}
    device.reads.clear()
    assert equal(make_ticket(mask.to(CUDA), net.state()).weights or {}, expected)
    assert device.reads.total() == 1 + 2  # the mask, and again the two dtypes


def test_a_dlth_mask_is_drawn_by_the_cpus_generator_whatever_the_device(device: Device) -> None:
    model = small_net().model
    dense = masks.ones(model, models.prunable(model, "conv_linear"))
    keep = dlth.kept_counts(dense, 0.5)
    here, there = (
        dlth.random_mask(dense.to(place), keep, gpu.generator("cpu", 1)) for place in (HOST, CUDA)
    )
    assert there.device == CUDA and there.to("cpu") == here


# ---------------------------------------------------------------- all units of all papers


def further(path: Path) -> Any:
    """The tiny study that a paper lays out in a file of its own."""
    params = registry.PAPERS[path.parent.name].params
    values = read_yaml(path) | {"runtime": tiny.RUNTIME}
    if "data" in params.model_fields:  # others generate their samples
        values |= {"data": tiny.DIGITS.model_dump()}
    return params.model_validate(values)


STUDIES = dict(tiny.STUDIES)
"""Those of our papers, and of further ones."""
for path in sorted(Path(__file__).parent.glob("papers/*/tiny.yaml")):  # further papers
    STUDIES[path.parent.name] = (path.parent.name, partial(further, path))

READS_PER_EPOCH = {"conv": 2}
"""Of the loop, where it is not the one for averages and divergence: edge-popup has its scores."""


def watch_loop(patch: pytest.MonkeyPatch, device: Device) -> list[tuple[int, int]]:
    """The epochs of each training by the one loop, and how often the loop itself read.

    No training copies anything from the host: images, masks and penalties are on the device.
    """
    seen: list[tuple[int, int]] = []
    train = loop.train

    def own(reads: Counter[str]) -> int:
        return sum(n for line, n in reads.items() if line.startswith("ticketlab/training/loop.py"))

    def watched(net: Net, *rest: Any, **more: Any) -> Any:
        before, copied = own(device.reads), device.uploads.copy()
        history = train(net, *rest, **more)
        assert device.uploads == copied
        assert is_there(net.weights) and is_there(net.grads)
        seen.append((len(history), own(device.reads) - before))
        return history

    replace_everywhere(patch, train, watched)
    return seen


def run_tiny(name: str, folder: Path, patch: pytest.MonkeyPatch, **runtime: object) -> Device:
    """A tiny study on the device; what of it the device counted."""
    for field, value in {"device": "cuda", **runtime}.items():
        patch.setitem(tiny.RUNTIME, field, value)
    paper, params = STUDIES[name]
    most = READS_PER_EPOCH.get(name, 1)
    with emulated() as device:
        seen = watch_loop(patch, device)
        results = run_study(registry.PAPERS[paper].phases(params()), folder)
    assert results
    assert all(epochs <= reads <= most * epochs for epochs, reads in seen)
    return device


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_all_units_run_on_the_device(
    name: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = run_tiny(name, tmp_path, monkeypatch, cuda_graphs=False)
    assert device.reads and device.captured == 0


@pytest.mark.slow
def test_all_units_of_a_study_run_with_captured_passes(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_tiny("colt", tmp_path, monkeypatch).captured > 100
