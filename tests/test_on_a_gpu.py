"""What only a real CUDA device can show; skipped without one. The first thing to run on a new one:

    python -m pytest -n 0 tests/test_on_a_gpu.py

Captured passes against eager ones, every unit of a tiny study of each paper, and a piece that is
carried to a machine without a GPU. `test_emulated_device` has the rules that need no device.
"""

import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import small_net

from ticketlab import gpu
from ticketlab.data.sets import Augment, DataSet
from ticketlab.gpu import Runtime
from ticketlab.many.train_many import Job, train_many
from ticketlab.pipeline import machine, pieces
from ticketlab.pipeline.registry import PAPERS
from ticketlab.study import forecast, results
from ticketlab.study.runner import run_study
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run
from ticketlab.training.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),  # what CUDA warns of depends on card and driver
]

RECIPE = Recipe(optimizer="sgd", lr=0.05, batch=25, length="4ep")  # 8 steps an epoch
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}


class Losses(Observer):
    """The loss of each step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def after_step(self, run: Run) -> None:
        """Read it, which waits for the device."""
        self.found.append(float(run.loss))


def losses(data: DataSet, runtime: Runtime, recipe: Recipe = RECIPE, **net: Any) -> list[float]:
    """Of a training of a small convnet with batch-norm."""
    watch, made = Losses(), small_net(runtime=runtime, **net)
    train(made, data.train, data, recipe, seed=(0,), observers=[watch])
    return watch.found


@pytest.fixture
def there(digits: DataSet) -> DataSet:
    """The tiny data set on the device."""
    return digits.to("cuda")


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_first_losses_are_those_of_eager_steps(
    there: DataSet, precision: str, channels_last: bool
) -> None:
    values = {"device": "cuda", "precision": precision, "channels_last": channels_last}
    graphed, eager = (
        losses(there, Runtime(**values, cuda_graphs=graphs)) for graphs in ("auto", False)
    )
    assert len(graphed) == 32 > gpu.CHECKED
    assert graphed[:20] == pytest.approx(eager[:20], rel=TOLERANCE[precision])
    assert graphed[-1] < graphed[0]  # it learns


def test_a_short_last_batch_and_augmentation_go_beside_the_graph(there: DataSet) -> None:
    recipe = RECIPE.model_copy(update={"batch": 64})  # 200 images: 3 batches and 8 images
    moving = Augment(crop=1, flip=True, rotate=10.0)
    data = DataSet(**{**vars(there), "augment": moving})
    graphed, eager = (
        losses(data, Runtime(device="cuda", cuda_graphs=graphs), recipe) for graphs in (True, False)
    )
    assert len(graphed) == 16 and graphed == pytest.approx(eager, rel=1e-2)


def test_captured_stacks_are_as_eager_ones(there: DataSet) -> None:
    def states(graphs: bool) -> list[dict[str, torch.Tensor]]:
        jobs = [
            Job(small_net("lenet_300_100", seed=s).model, there.train, there, RECIPE, (s,))
            for s in (0, 1)
        ]
        runtime = Runtime(device="cuda", cuda_graphs=graphs)
        return [done.state for done in train_many(jobs, runtime, "stacked", tell=lambda _: None)]

    for graphed, eager in zip(states(True), states(False), strict=True):
        for name, tensor in eager.items():
            assert torch.allclose(graphed[name], tensor, atol=1e-3), name


def test_graphs_of_many_trainings_leave_no_memory_behind(there: DataSet) -> None:
    runtime = Runtime(device="cuda")
    losses(there, runtime)
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for seed in range(1, 6):
        losses(there, runtime, seed=seed)
    assert torch.cuda.memory_reserved() <= before + 2**26


@pytest.mark.parametrize("graphs", ["auto", False])
def test_a_speed_is_measured(there: DataSet, graphs: Any) -> None:
    net = Net(small_net().model, Runtime(device="cuda", cuda_graphs=graphs))
    recipe = Recipe(lr=0.01, batch=25, length="400ep")
    started = time.monotonic()
    speed = forecast.image_speed(net, there, recipe, 2.0)
    print(f"\ngraphs {graphs}: {speed:,.0f} images/s in {time.monotonic() - started:.1f} s")
    assert speed > 1000


# ---------------------------------------------------------------- all papers


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", tiny.STUDIES)
def test_every_unit_of_a_tiny_study_runs(
    name: str, precision: str, tiny_root: Path, tmp_path: Path
) -> None:
    paper, make = tiny.STUDIES[name]
    runtime = {"device": "cuda", "precision": precision, "channels_last": precision == "bf16"}
    found = run_study(PAPERS[paper].phases(make(seeds=[0], runtime=runtime)), tmp_path)
    assert found and any(result.tickets for result in found.values())


def test_a_piece_is_carried_to_a_machine_without_a_gpu(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    params, out = tiny.colt(seeds=[0], runtime={"device": "auto"}), tmp_path / "out"
    end = time.monotonic() + 300
    assert not pieces.train_piece("mine", {"colt": params}, "colt", out, end).left
    entry = pieces.machines(out)["colt"]
    assert (entry["kind"], entry["device"]) == ("cuda", torch.cuda.get_device_name())
    monkeypatch.setenv("TICKETLAB_DEVICE", "cpu")
    assert results.made_here(params.runtime)["kind"] == "cpu"
    count, made = pieces.assemble("mine", "colt", params, [out])
    folder = results.runs_folder("mine", "colt")
    monkeypatch.setattr(pieces.runner, "_perform", lambda *_: pytest.fail("trained here"))
    assert len(run_study(PAPERS["colt"].phases(params), folder)) == count
    assert machine.named(made) == torch.cuda.get_device_name()
