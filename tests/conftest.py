"""A small real data set and small nets for all tests; nothing is written into the repository."""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from ticketlab import instruction_set

instruction_set.pin_this_process()  # before any library is imported that would read its variables

import numpy as np
import pytest
import tiny
import torch
from filelock import FileLock
from hypothesis import settings
from joblib.externals.loky import get_reusable_executor, reusable_executor

from ticketlab import files, models
from ticketlab.data.sets import DataSet, load
from ticketlab.gpu import Runtime
from ticketlab.pipeline import params
from ticketlab.pruning.masks import State
from ticketlab.spec import ROOT, InputError
from ticketlab.study import claims
from ticketlab.study.claims import Claim
from ticketlab.study.controls import control
from ticketlab.training.net import Net

settings.register_profile("tests", deadline=None)  # a busy machine is not a failure
settings.load_profile("tests")

CPU = Runtime(device="cpu")

Message = Callable[[Callable[[], object]], str]


@pytest.fixture(scope="session", autouse=True)
def read_yaml_once() -> Iterator[None]:
    """params.yaml and the claims take a third of a second each to parse, and most tests ask."""
    known: dict[tuple[Path, int, int], Any] = {}

    def read(path: Path) -> Any:
        if not path.exists():
            return files.read_yaml(path)
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size)
        if key not in known:
            known[key] = files.read_yaml(path)
        return deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        for module in (params, claims):
            patch.setattr(module, "read_yaml", read)
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with digits_tiny.npz: 40 + 20 real images a class of the embedded MNIST."""
    root = tmp_path_factory.mktemp("data")
    np.savez_compressed(root / "digits_tiny.npz", **tiny.some_images(slice(40), slice(20)))
    return root


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results and pages as git has them: a run on another machine may end in other digits."""
    root = tmp_path_factory.mktemp("committed")
    names = "git ls-files -z results docs README.md PUBLISHED.md dvc.lock"
    command = f"{names} | git checkout-index -z --stdin --force --prefix={root}/"
    done = subprocess.run(command, shell=True, cwd=ROOT, check=False)
    if done.returncode != 0 or not (root / "README.md").exists():
        pytest.skip("not a git checkout")
    return root


def has_run(paper: str, root: Path = ROOT) -> bool:
    """Whether the results of a paper have been made: a new one has none before `dvc repro`."""
    return f"\n  read@desk-{paper}:\n" in (root / "dvc.lock").read_text()


def skip_unless_run(paper: str, root: Path = ROOT) -> None:
    """Leave a test of a paper's results out as long as it has none."""
    if not has_run(paper, root):
        pytest.skip(f"no results yet, run: dvc repro read@desk-{paper}")


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder of all test processes: one of them fills it, the others wait, and use what is there.

    For what is never changed, as the units of a study, which are not run again where they are.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with FileLock(root / f"{name}.lock"):
        (root / name).mkdir(exist_ok=True)
        yield root / name


def passed(found_in: Iterable[Claim]) -> dict[str, Any]:
    """Controls for metrics.json, all passed: those that the claims need."""
    entry = control("it holds", {0: 1.0, 1: 2.0, 2: 1.5}, at_least=-9.0)
    found: dict[str, Any] = {}
    for need in {need for claim in found_in for need in claim.needs}:
        bed, _, name = need.partition(".")
        found.setdefault("main" if bed == "*" else bed, {})[name] = entry
    return found


def use_data(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Point data root and prepared folder at `folder`, and leave the choice of a device open."""
    if os.environ.get("TICKETLAB_DATA") != str(folder):
        end_workers()  # they keep the environment that they were started with
    patch.setenv("TICKETLAB_DATA", str(folder))
    patch.setenv("TICKETLAB_PREPARED", str(folder / "prepared"))
    patch.delenv("TICKETLAB_DEVICE", raising=False)


@pytest.fixture
def tiny_root(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `tiny_folder`, with data root and prepared folder pointing at it."""
    use_data(monkeypatch, tiny_folder)
    return tiny_folder


@pytest.fixture
def digits(tiny_root: Path) -> DataSet:
    """200 training, 50 validation and 100 test images of 14 x 14 pixels, 10 classes."""
    return load(tiny.DIGITS)


@pytest.fixture
def one_line() -> Message:
    """Runs an action that must refuse its input, and returns the refusal, which is one line."""

    def message(action: Callable[[], object]) -> str:
        with pytest.raises(InputError) as caught:
            action()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


@pytest.fixture(autouse=True)
def torch_as_found() -> Iterator[None]:
    """Undo what `gpu.start` sets for the whole process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    threads, filled = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    yield
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def no_workers_left() -> Iterator[None]:
    """Worker processes of one test serve the next; the last one ends them."""
    yield
    end_workers()


def end_workers() -> None:
    """End the worker processes that are waiting for work, if there are any."""
    if reusable_executor._executor is not None:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def small_net(name: str = "conv3", runtime: Runtime = CPU, seed: int = 0, **options: object) -> Net:
    """A narrow net for the tiny images: conv3 has 1,476 prunable weights and batch-norm."""
    defaults = {"conv3": {"width": 4, "conv_bias": False}, "conv2": {"width": 4}}
    spec = models.ModelSpec(name=name, **{**defaults.get(name, {}), **options})
    return Net(models.build(spec, (1, 14, 14), 10, seed), runtime)


def equal(a: State, b: State) -> bool:
    """Whether two states are the same bit for bit."""
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
