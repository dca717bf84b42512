"""Data sets: sources, prepared files, splits and batches."""

import gzip
import hashlib
import importlib.util
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from ticketlab.data import prepared, sets, sources
from ticketlab.data.sets import (
    Augment,
    Batches,
    DataNotFound,
    DataSet,
    DataSpec,
    Images,
    load,
    prepare,
)
from ticketlab.papers.prac.units import PracBench
from ticketlab.spec import ROOT, InputError
from ticketlab.study.bench import Bench

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Data root and prepared folder of this test; nothing is written into the repository."""
    raw, ready = tmp_path / "raw", tmp_path / "prepared"
    raw.mkdir()
    monkeypatch.setenv("TICKETLAB_DATA", str(raw))
    monkeypatch.setenv("TICKETLAB_PREPARED", str(ready))
    return SimpleNamespace(raw=raw, prepared=ready)


def arrays(per_class: int = 12, classes: int = 3, shape: tuple[int, ...] = (6, 6)) -> Arrays:
    random = np.random.RandomState(0)
    y = np.arange(per_class * classes) % classes
    x = random.randint(0, 256, (len(y), *shape)).astype(np.uint8)
    return {
        "x_train": x,
        "y_train": y,
        "x_test": x[::-1][: 4 * classes],
        "y_test": y[: 4 * classes],
    }


def save(folder: Path, name: str = "toy", **changes: Any) -> Path:
    path = folder / f"{name}.npz"
    content = arrays() | changes
    np.savez_compressed(path, **{key: a for key, a in content.items() if a is not None})
    return path


def message(action: Callable[[], object], kind: type[InputError] = InputError) -> str:
    """The error's message, which must be one line."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "data" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the embedded sets and their scripts ---------------------------------------------------------


def write_idx(folder: Path, content: Arrays) -> None:
    for key, (name, _) in make_script("make_fashion_mnist_22k").FILES.items():
        array = content[key].astype(np.uint8)
        head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / name).write_bytes(gzip.compress(head + array.tobytes()))


def test_fashion_script_takes_the_first_of_each_class_and_the_whole_test_set(
    tmp_path: Path,
) -> None:
    script, official = make_script("make_fashion_mnist_22k"), arrays()
    write_idx(tmp_path, official)
    made = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in made:
        script.make(tmp_path, path, per_class=5)
    assert made[0].read_bytes() == made[1].read_bytes()
    with np.load(made[0]) as file:
        assert np.array_equal(file["x_train"], official["x_train"][: 5 * 3])
        assert np.array_equal(file["y_train"], official["y_train"][: 5 * 3])
        assert np.array_equal(file["x_test"], official["x_test"])
    with pytest.raises(ValueError, match="fewer than 13"):
        script.make(tmp_path, made[0], per_class=13)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\1"))
    with pytest.raises(ValueError, match="not an IDX file"):
        script.make(tmp_path, made[0])


def test_fashion_script_gives_the_same_file_through_torchvision(
    tmp_path: Path, folders: SimpleNamespace
) -> None:
    script = make_script("make_fashion_mnist_22k")
    write_idx(tmp_path, arrays())
    script.make(tmp_path, tmp_path / "idx.npz", per_class=5)
    save(folders.raw, "fashion_mnist")  # what torchvision would have read
    script.make(None, tmp_path / "other.npz", per_class=5)
    assert (tmp_path / "idx.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_cifar10_script_gives_one_order_to_the_same_images(
    tmp_path: Path, folders: SimpleNamespace
) -> None:
    """Splits are drawn by position, so a file in another order would give other splits."""
    script, official = make_script("make_cifar10"), arrays(shape=(8, 8, 3))
    official["x_train"][1], official["y_train"][1] = official["x_train"][0], 2  # equal images
    made = []
    for seed in (0, 1):
        shuffled = {}
        for half in ("train", "test"):
            places = np.random.default_rng(seed).permutation(len(official[f"y_{half}"]))
            shuffled |= {f"{axis}_{half}": official[f"{axis}_{half}"][places] for axis in "xy"}
        np.savez(folders.raw / "cifar10.npz", **shuffled)
        script.make(sources.read("cifar10"), tmp_path / f"{seed}.npz")
        made.append((tmp_path / f"{seed}.npz").read_bytes())
    assert made[0] == made[1]
    raw, kept = sources.read_npz(tmp_path / "0.npz"), sources.read_npz(folders.raw / "cifar10.npz")
    pairs = [
        sorted((image.tobytes(), int(label)) for image, label in zip(x, y, strict=True))
        for x, y in ((raw.x_train, raw.y_train), (kept.x_train, kept.y_train))
    ]
    assert pairs[0] == pairs[1]  # each image keeps its label


def test_mnist_script_holds_out_the_last_of_each_class(tmp_path: Path) -> None:
    script = make_script("make_mnist_5k")
    content = arrays(shape=(28, 28))
    table = np.concatenate([content["x_train"].reshape(36, -1), content["y_train"][:, None]], 1)
    np.savetxt(tmp_path / "digits.csv.gz", table, delimiter=",", fmt="%d")
    made = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in made:
        script.make(tmp_path / "digits.csv.gz", path, test_per_class=2)
    assert made[0].read_bytes() == made[1].read_bytes()
    raw = sources.read_npz(made[0])
    assert np.array_equal(raw.x_train[:, 0], content["x_train"][:30])
    assert np.array_equal(raw.x_test[:, 0], content["x_train"][30:])
    np.savetxt(tmp_path / "odd.csv", table + 0.5, delimiter=",")
    with pytest.raises(ValueError, match="not whole numbers"):
        script.make(tmp_path / "odd.csv", made[0])


@pytest.mark.parametrize(
    ("name", "train", "test"), [("fashion_mnist_22k", 1200, 1000), ("mnist_5k", 400, 100)]
)
def test_embedded_sets_are_what_their_readme_says(name: str, train: int, test: int) -> None:
    raw = sources.read(name)
    assert np.bincount(raw.y_train).tolist() == [train] * 10
    assert np.bincount(raw.y_test).tolist() == [test] * 10
    listed = re.findall(rf"\| {name} (\w+) \| `(\w+)` \|", (ROOT / "data/README.md").read_text())
    assert sorted(key for key, _ in listed) == sorted(sources.KEYS)
    with np.load(ROOT / "data" / f"{name}.npz") as file:
        for key, digest in listed:
            assert prepared.hashlib.sha256(file[key].tobytes()).hexdigest() == digest


# --- where images come from ----------------------------------------------------------------------


def test_embedded_set_cannot_be_replaced_from_the_data_root(folders: SimpleNamespace) -> None:
    save(folders.raw, "mnist_5k")
    assert sources.read("mnist_5k").x_train.shape == (4000, 1, 28, 28)


@pytest.mark.parametrize("name", ["cifar10", "tiny_imagenet", "mine"])
def test_npz_in_the_data_root_is_enough_for_every_name(name: str, folders: SimpleNamespace) -> None:
    save(folders.raw, name)
    sources.check_name(name)
    assert sources.read(name).x_train.shape == (36, 1, 6, 6)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 3), (3, 6, 7), (1, 6, 7)])
def test_npz_layouts_become_nchw(shape: tuple[int, ...], folders: SimpleNamespace) -> None:
    content = arrays(shape=shape)
    raw = sources.read_npz(save(folders.raw, **content))
    assert raw.x_train.flags.c_contiguous and raw.x_train.dtype == np.uint8
    assert raw.y_train.dtype == np.int64 and raw.classes == 3
    assert raw.x_train.shape == (36, 3 if 3 in shape else 1, 6, 7)
    given = content["x_train"]
    back = raw.x_train.transpose(0, 2, 3, 1) if shape[-1] in (1, 3) else raw.x_train
    assert np.array_equal(back.reshape(given.shape), given)


BAD_ARRAYS: list[tuple[dict[str, Any], str]] = [
    ({"y_test": None}, "has no y_test: needed are x_train, y_train, x_test, y_test"),
    ({"x_train": np.zeros((36, 6, 6), np.float32)}, "x_train is float32, needed is uint8"),
    ({"x_train": np.zeros((36, 36), np.uint8)}, "x_train has shape (36, 36), needed is"),
    ({"x_train": np.zeros((36, 3, 6, 3), np.uint8)}, "x_train has shape (36, 3, 6, 3), needed"),
    ({"x_train": np.zeros((36, 4, 6, 4), np.uint8)}, "x_train has shape (36, 4, 6, 4), needed"),
    ({"x_train": np.zeros((35, 6, 6), np.uint8)}, "x_train is (35, 6, 6) and y_train (36,)"),
    ({"x_test": np.zeros((12, 5, 6), np.uint8)}, "training images are (1, 6, 6) and test images"),
    ({"y_train": np.zeros(36)}, "y_train is float64 (36,), needed are integers of shape (N,)"),
    ({"y_train": np.zeros((36, 1), int)}, "y_train is int64 (36, 1), needed are integers"),
    ({"y_train": np.arange(36) % 3 + 1}, "3 labels from 1 to 3, needed is every label 0..C-1"),
    ({"y_train": np.arange(36) % 3 * 2}, "3 labels from 0 to 4, needed is every label 0..C-1"),
    ({"y_test": np.arange(12) % 4}, "y_test has label 3, y_train only 0..2"),
    ({"x_test": np.zeros((0, 6, 6), np.uint8), "y_test": np.zeros(0, int)}, "at least one"),
    ({"x_train": np.array([None] * 36)}, "cannot be read as npz"),
]


@pytest.mark.parametrize(("changes", "words"), BAD_ARRAYS, ids=[words for _, words in BAD_ARRAYS])
def test_wrong_npz_is_one_line_with_file_and_problem(
    changes: dict[str, Any], words: str, folders: SimpleNamespace
) -> None:
    path = save(folders.raw, **changes)
    text = message(lambda: sources.read("toy"))
    assert text.startswith(str(path)) and words in text


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "npy", "folder"])
def test_damaged_npz_is_one_line_with_the_file(damage: str, folders: SimpleNamespace) -> None:
    path = save(folders.raw)
    content = path.read_bytes()
    if damage in ("npy", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        wrong = {"cut": content[:middle], "flip": flipped, "empty": b"", "text": b"x_train"}
        path.write_bytes(wrong[damage])
    assert message(lambda: prepare("toy")).startswith(str(path))
    assert not folders.prepared.exists()


@pytest.mark.parametrize("name", ["imagenet", "../mnist_5k", "", ".hidden"])
def test_unknown_name_lists_the_known_ones_and_where_it_looked(
    name: str, folders: SimpleNamespace
) -> None:
    for action in (sources.check_name, sources.read, prepare):
        text = message(lambda act=action: act(name), DataNotFound)  # type: ignore[misc]
        assert repr(name) in text and "fashion_mnist_22k" in text and str(folders.raw) in text


def test_embedded_set_that_was_deleted_says_where_it_looked(
    folders: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    text = message(lambda: sources.read("mnist_5k"), DataNotFound)
    assert str(tmp_path / "data/mnist_5k.npz") in text and str(folders.raw) in text
    save(folders.raw, "mnist_5k")
    assert sources.read("mnist_5k").classes == 3


class FakeVision:
    """Stands in for a data set class of torchvision."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        assert download and Path(root).is_dir()
        half, content = "train" if train else "test", arrays(shape=(6, 6, 3))
        self.data = content[f"x_{half}"]
        self.targets = content[f"y_{half}"].tolist()


def offline(*_: object, **__: object) -> None:
    raise RuntimeError("Error downloading it:\n<urlopen error Name or service not known>")


def test_torchvision_is_read_and_npz_comes_before_it(
    folders: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    folders.raw.rmdir()  # made when something is downloaded
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeVision)
    raw = sources.read("cifar10")
    assert raw.x_train.shape == (36, 3, 6, 6) and raw.classes == 3
    assert np.array_equal(raw.x_train.transpose(0, 2, 3, 1), arrays(shape=(6, 6, 3))["x_train"])
    save(folders.raw, "cifar10")
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    assert sources.read("cifar10").x_train.shape == (36, 1, 6, 6)


def test_torchvision_reads_official_idx_files(folders: SimpleNamespace) -> None:
    folder = folders.raw / "MNIST" / "raw"
    folder.mkdir(parents=True)
    write_idx(folder, arrays())
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(sources.read("mnist").x_train[:, 0], arrays()["x_train"])


def as_a_set(raw: sources.Raw, half: str) -> str:
    """SHA-256 over the sorted hashes of images (CHW) with their labels: whatever their order."""
    pairs = zip(getattr(raw, f"x_{half}"), getattr(raw, f"y_{half}"), strict=True)
    each = sorted(hashlib.sha256(x.tobytes() + bytes([int(y)])).digest() for x, y in pairs)
    return hashlib.sha256(b"".join(each)).hexdigest()


def write_cifar10(folder: Path, content: Arrays) -> None:
    """The official layout: five training pickles and one for testing, rows of RGB planes."""
    folder.mkdir()
    parts = dict.fromkeys([f"data_batch_{i}" for i in range(1, 6)], "train") | {
        "test_batch": "test"
    }
    for number, (name, half) in enumerate(parts.items()):
        own = slice(number, None, 5) if half == "train" else slice(None)
        x, y = content[f"x_{half}"][own], content[f"y_{half}"][own]
        rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": y.tolist()}))
    names = [str(i) for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def test_both_routes_to_cifar10_prepare_the_same_images_and_labels(
    folders: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to their order, which is that of the files: the official one, or that of the npz."""
    from torchvision.datasets import cifar

    content = arrays(per_class=5, classes=10, shape=(32, 32, 3))
    content["y_train"] = content["y_train"][::-1]  # each image with a label of its own
    write_cifar10(folders.raw / "cifar-10-batches-py", content)
    # torchvision refuses files that are not the official ones.
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5: Path(path).exists())
    official = sources.read("cifar10")
    order = np.random.RandomState(1).permutation(len(content["y_train"]))
    save(
        folders.raw,
        "cifar10",
        **content | {key: content[key][order] for key in ("x_train", "y_train")},
    )
    shuffled = sources.read("cifar10")
    assert not np.array_equal(official.x_train, shuffled.x_train)
    for half in sources.HALVES:
        assert as_a_set(official, half) == as_a_set(shuffled, half)
    shuffled.y_train[[0, 1]] += 1
    assert as_a_set(official, "train") != as_a_set(shuffled, "train")


CIFAR10 = {
    "train": "fc36ff26702a9efdf08d3de274034c378032d3423bf7dd6c1022bebe6a7b810a",
    "test": "11be7cf3ed0bf1df2a473c0d4d3db6eafcac4518b49a5b4224077d754106b38d",
}
OURS = ROOT / "data" / "raw"


@pytest.mark.skipif(
    not any(path.exists() for path in (OURS / "cifar10.npz", OURS / "cifar-10-batches-py")),
    reason="CIFAR-10 is not in data/raw",
)
def test_the_cifar10_of_this_machine_is_the_official_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a check of the route: the constants are those of the lossless npz of the images."""
    monkeypatch.setenv("TICKETLAB_DATA", str(OURS))
    raw = sources.read("cifar10")
    assert {half: as_a_set(raw, half) for half in sources.HALVES} == CIFAR10


@pytest.mark.parametrize(("name", "class_and_folder"), sources.TORCHVISION.items())
def test_no_network_says_where_it_looked(
    name: str,
    class_and_folder: tuple[str, str],
    folders: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets, class_and_folder[0], offline)
    text = message(lambda: load(DataSpec(name=name)), DataNotFound)
    for words in (f"{name}.npz", "x_train", str(folders.raw / class_and_folder[1]), "not known"):
        assert words in text
    assert sources.socket.getdefaulttimeout() is None


# --- Tiny-ImageNet -------------------------------------------------------------------------------


def write_tiny(root: Path, side: int = 64) -> Path:
    folder = root / sources.TINY_FOLDER
    for level, name in ((200, "n02"), (100, "n01")):
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        Image.new("L", (side, side), level).save(images / f"{name}_0.JPEG")
        Image.new("RGB", (side, side), (level, 0, 0)).save(images / f"{name}_1.JPEG")
    (folder / "val/images").mkdir(parents=True)
    for i, level in enumerate((50, 60)):
        Image.new("RGB", (side, side), (0, level, 0)).save(folder / f"val/images/val_{i}.JPEG")
    notes = "val_1.JPEG\tn02\t0\t0\t9\t9\nval_0.JPEG\tn01\t0\t0\t9\t9\n"
    (folder / "val/val_annotations.txt").write_text(notes)
    return folder


def test_tiny_imagenet_is_read_from_its_official_folders(folders: SimpleNamespace) -> None:
    write_tiny(folders.raw)
    raw = sources.read("tiny_imagenet")
    assert raw.x_train.shape == (4, 3, 64, 64) and raw.x_test.shape == (2, 3, 64, 64)
    assert raw.y_train.tolist() == [0, 0, 1, 1] and raw.y_test.tolist() == [1, 0]
    levels = raw.x_train.mean((2, 3)).round()  # JPEG is lossy, so only nearly
    assert np.abs(levels - [[100] * 3, [100, 0, 0], [200] * 3, [200, 0, 0]]).max() <= 3
    assert np.abs(raw.x_test.mean((2, 3))[:, 1] - [60, 50]).max() <= 3


def test_tiny_imagenet_errors_name_the_file(folders: SimpleNamespace) -> None:
    text = message(lambda: sources.read("tiny_imagenet"), DataNotFound)
    assert str(folders.raw / sources.TINY_FOLDER) in text and "tiny_imagenet.npz" in text
    folder = write_tiny(folders.raw)
    notes = folder / "val/val_annotations.txt"
    good = notes.read_text()
    notes.write_text(good + "val_2.JPEG\tn99\n")
    assert "line 3 names class 'n99'" in message(lambda: sources.read("tiny_imagenet"))
    notes.write_text(good + "val_2.JPEG\tn01\n")
    assert "val_2.JPEG cannot be read" in message(lambda: sources.read("tiny_imagenet"))
    (folder / "val/images/val_2.JPEG").write_bytes(b"no image")
    assert "val_2.JPEG cannot be read" in message(lambda: sources.read("tiny_imagenet"))
    Image.new("RGB", (32, 64)).save(folder / "val/images/val_2.JPEG")
    assert "needed is (64, 64, 3)" in message(lambda: sources.read("tiny_imagenet"))


# --- prepared files ------------------------------------------------------------------------------


def test_preparing_twice_gives_the_same_bytes(folders: SimpleNamespace, tmp_path: Path) -> None:
    save(folders.raw)
    path = prepare("toy")
    first = path.read_bytes()
    assert path == folders.prepared / "toy.safetensors" == prepare("toy")
    assert path.read_bytes() == first == prepare("toy", tmp_path / "new/folder").read_bytes()
    assert os.listdir(folders.prepared) == [path.name]  # no temporary file stays


def test_default_prepared_folder_is_in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETLAB_PREPARED")
    monkeypatch.delenv("TICKETLAB_DATA")
    assert sets.prepared_path("toy") == ROOT / "data/prepared/toy.safetensors"
    assert sources.data_root() == ROOT / "data/raw"


def test_load_prepares_once_and_then_needs_no_source(folders: SimpleNamespace) -> None:
    path, spec = save(folders.raw), DataSpec(name="toy", validation=6)
    first = load(spec)
    path.unlink()
    again = load(spec)
    assert again.sha256 == first.sha256 and len(first.sha256) == 64
    assert torch.equal(again.train.x, first.train.x)


def test_hash_follows_the_content(folders: SimpleNamespace) -> None:
    spec = DataSpec(name="toy", validation=6)
    save(folders.raw)
    first = load(spec).sha256
    save(folders.raw, y_test=np.arange(12) % 2)
    prepare("toy")
    assert load(spec).sha256 != first


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "renamed", "header"])
def test_damaged_prepared_file_says_how_to_make_it_anew(
    damage: str, folders: SimpleNamespace
) -> None:
    save(folders.raw)
    path = prepare("toy")
    content = bytearray(path.read_bytes())
    if damage == "renamed":
        save(folders.raw, "other")
        content = bytearray(prepare("other").read_bytes())
    elif damage == "header":
        content = content.replace(b"classes", b"klasses")
    elif damage == "flip":
        content[-1] ^= 255
    else:
        content = content[: len(content) // 2 if damage == "cut" else 0]
    path.write_bytes(content)
    text = message(lambda: load(DataSpec(name="toy", validation=6)))
    assert text.startswith(str(path)) and "delete it" in text and "ticketlab prepare" in text
    prepare("toy")
    assert load(DataSpec(name="toy", validation=6)).classes == 3


def test_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, folders: SimpleNamespace
) -> None:
    save(folders.raw)
    (tmp_path / "file").write_text("not a folder")
    text = message(lambda: prepare("toy", tmp_path / "file"))
    assert str(tmp_path / "file") in text and "cannot be written" in text


def test_read_only_folder_is_one_line(
    folders: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folders.raw)
    folders.prepared.mkdir(mode=0o500)
    if os.access(folders.prepared, os.W_OK):  # root may write everywhere

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "write_bytes", refuse)
    text = message(lambda: prepare("toy"))
    assert "toy.safetensors" in text and "cannot be written (Permission denied)" in text
    assert not list(folders.prepared.iterdir())


# --- splits --------------------------------------------------------------------------------------


@pytest.fixture
def toy(folders: SimpleNamespace) -> Callable[..., DataSet]:
    """Load the toy set: 36 training images of 3 classes, 12 test images."""
    save(folders.raw)
    return lambda **settings: load(DataSpec(**{"name": "toy", "validation": 6} | settings))


def counts(images: Images) -> list[int]:
    return torch.bincount(images.y, minlength=3).tolist()


def test_splits_are_balanced_disjoint_and_point_into_the_official_sets(
    toy: Callable[..., DataSet],
) -> None:
    data, official = toy(train=15, validation=6, test=9), arrays()
    assert [counts(s) for s in (data.train, data.validation, data.test)] == [
        [5] * 3,
        [2] * 3,
        [3] * 3,
    ]
    assert not set(data.train_index.tolist()) & set(data.validation_index.tolist())
    for images, index, half in (
        (data.train, data.train_index, "train"),
        (data.validation, data.validation_index, "train"),
        (data.test, data.test_index, "test"),
    ):
        assert len(index.unique()) == len(index) == len(images)
        assert np.array_equal(images.x[:, 0].numpy(), official[f"x_{half}"][index])
        assert np.array_equal(images.y.numpy(), official[f"y_{half}"][index])
        assert images.x.dtype == torch.uint8 and images.y.dtype == torch.int64
    assert data.shape == (1, 6, 6) and data.classes == 3 and data.name == "toy"


def test_by_default_every_official_image_is_in_one_split(toy: Callable[..., DataSet]) -> None:
    data = toy()
    used = torch.cat([data.train_index, data.validation_index]).sort().values
    assert torch.equal(used, torch.arange(36)) and len(data.validation) == 6
    assert torch.equal(data.test_index, torch.arange(12))
    assert len(toy(validation=0).train) == 36 and len(toy(validation=0).validation) == 0


def test_validation_and_nested_train_depend_on_the_split_seed_alone(
    toy: Callable[..., DataSet],
) -> None:
    small, large, other = toy(train=6), toy(train=24, test=6), toy(train=6, split_seed=1)
    assert torch.equal(small.validation_index, large.validation_index)
    assert set(small.train_index.tolist()) < set(large.train_index.tolist())
    assert not torch.equal(small.validation_index, other.validation_index)
    torch.manual_seed(5)
    assert torch.equal(small.train_index, toy(train=6).train_index)


def test_a_run_draws_its_split_unless_the_parameters_do(tiny_root: Path) -> None:
    """By its seed; test images that are all used are the same for every seed."""
    whole = tiny.DIGITS.model_copy(update={"test": None})
    zero, one = load(whole), load(whole, seed=1)
    assert not torch.equal(zero.train_index, one.train_index)
    assert not torch.equal(zero.validation_index, one.validation_index)
    assert torch.equal(zero.test.x, one.test.x)
    assert not set(one.train_index.tolist()) & set(one.validation_index.tolist())
    chosen = whole.model_copy(update={"split_seed": 1})
    assert torch.equal(load(chosen, seed=5).train_index, one.train_index)
    for seed in (0, 1):
        bench = Bench(tiny.colt(data=whole.model_dump()), seed)
        assert torch.equal(bench.data.train_index, load(whole, seed=seed).train_index)
    assert PracBench(tiny.prac(data=whole.model_dump()).setting(), 1).data.train_index.equal(
        one.train_index
    )


def test_split_is_the_same_on_every_machine(toy: Callable[..., DataSet]) -> None:
    """Literal indices: a change of numpy's or our own drawing would show here."""
    assert toy(train=6).validation_index.tolist() == VALIDATION_INDEX


VALIDATION_INDEX = [31, 20, 16, 30, 15, 2]


def test_uneven_sizes_are_as_equal_as_they_can_be(toy: Callable[..., DataSet]) -> None:
    data = toy(train=11, validation=7, test=2)
    assert [counts(s) for s in (data.train, data.validation, data.test)] == [
        [4, 4, 3],
        [3, 2, 2],
        [1, 1, 0],
    ]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 2), st.data())
def test_shares_sum_up_keep_to_their_limits_and_to_the_proportion(
    counts: list[int], least: int, draw: st.DataObject
) -> None:
    most = [draw.draw(st.integers(min(least, count), count)) for count in counts]
    lowest = [min(least, top) for top in most]
    n = draw.draw(st.integers(sum(lowest), sum(most)))
    shares = sets._shares(counts, n, least, most)
    assert sum(shares) == n
    limits = list(zip(lowest, shares, most, strict=True))
    assert all(low <= share <= top for low, share, top in limits)
    free = [c for c, (low, share, top) in enumerate(limits) if low < share < top]
    for a in free:  # one image more of a or less of b would be farther from the proportion
        assert all((shares[a] - 0.5) / counts[a] <= (shares[b] + 0.5) / counts[b] for b in free)
    if n < sum(most):
        more = sets._shares(counts, n + 1, least, most)
        assert all(m >= s for m, s in zip(more, shares, strict=True))  # larger sets hold smaller


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3), st.data())
def test_equal_classes_get_equal_shares_the_first_ones_what_is_left(
    classes: int, each: int, short: int, draw: st.DataObject
) -> None:
    most = [each - (c < short) for c in range(classes)]
    n = draw.draw(st.integers(0, sum(most)))
    shares = sets._shares([each] * classes, n, most=most)
    unfilled = [share for share, top in zip(shares, most, strict=True) if share < top]
    assert sum(shares) == n and (not unfilled or max(shares) <= min(unfilled) + 1)
    assert unfilled == sorted(unfilled, reverse=True)


# Digests of the indices of balanced sets: they decide every published number.
BALANCED = {"fashion_mnist_22k": (12000, 10000, 10), "mnist_5k": (4000, 1000, 10),
            "cifar10": (50000, 10000, 10), "cifar100": (50000, 10000, 100),
            "tiny_imagenet": (100000, 10000, 200)}  # fmt: skip
GOLDEN = [
    ("cifar10", 5000, 1000, 5000, 0, "ce299c1163d73d3e"),
    ("cifar10", None, 0, None, 0, "a0087ab79e53f3b0"),
    ("cifar10", None, 5000, None, 0, "a366a58591a4bf64"),
    ("cifar100", None, 5000, None, 0, "6468ebbcc4b66e9d"),
    ("fashion_mnist_22k", 11000, 1000, 5000, 0, "ebf5f19b4f4e4ad6"),
    ("fashion_mnist_22k", 3000, 1000, 5000, 0, "32a1f3da4f1de562"),
    ("fashion_mnist_22k", 5000, 1000, 5000, 0, "318bfc9e4dddca19"),
    ("fashion_mnist_22k", 5500, 1000, 5000, 0, "998772858f7e5aff"),
    ("mnist_5k", 2000, 500, None, 0, "54562a3229f09a87"),
    ("tiny_imagenet", None, 10000, None, 0, "74415019710b642d"),
    ("cifar10", 4997, 1003, 777, 3, "0f2ecf7607055899"),
    ("cifar10", None, 5003, None, 1, "7e23469f7074b125"),
    ("cifar10", 44997, 5003, 10, 1, "cf085099067cfc79"),
    ("mnist_5k", 3333, 667, 7, 0, "10ad743099770eb0"),
    ("cifar100", 150, 37, 11, 2, "bbd2b7bf76e876ce"),
]


@pytest.mark.parametrize(("name", "train", "validation", "test", "seed", "digest"), GOLDEN)
def test_draws_from_balanced_sets_are_what_they_were(
    name: str, train: int | None, validation: int, test: int | None, seed: int, digest: str
) -> None:
    """Labels in a random order, sizes of the shipped studies and odd ones."""
    *sizes, classes = BALANCED[name]
    y_train, y_test = (
        torch.from_numpy(np.random.RandomState(1).permutation(np.arange(n) % classes))
        for n in sizes
    )
    spec = DataSpec(name=name, train=train, validation=validation, test=test, split_seed=seed)
    assert digest_of(sets._split(y_train, y_test, spec)) == digest


def digest_of(parts: tuple[torch.Tensor, ...]) -> str:
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:16]


def test_the_draws_of_the_desk_study_are_what_they_were() -> None:
    """From the embedded images themselves."""
    golden = {
        ("fashion_mnist_22k", 5000, 1000, 5000): "a197ba230b23e8b6",
        ("fashion_mnist_22k", 5500, 1000, 5000): "cfaf7eb5fac320a3",
        ("fashion_mnist_22k", 11000, 1000, 5000): "8d377a338b754f01",
        ("mnist_5k", 2000, 500, None): "ea2aa394ce1e4ea0",
    }
    found = {}
    for name, train, validation, test in golden:
        raw = sources.read(name)
        labels = torch.from_numpy(raw.y_train), torch.from_numpy(raw.y_test)
        spec = DataSpec(name=name, train=train, validation=validation, test=test)
        found[name, train, validation, test] = digest_of(sets._split(*labels, spec))
    assert found == golden


# --- sets whose classes are not equally large

LONG_TAIL = [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]


@pytest.fixture
def tail(folders: SimpleNamespace) -> Callable[..., DataSet]:
    """Load a set of 1,242 images in ten classes of 500 to 5; each class has 4 test images."""
    y = np.random.RandomState(0).permutation(np.repeat(np.arange(10), LONG_TAIL))
    x = np.random.RandomState(1).randint(0, 256, (len(y), 8, 8)).astype(np.uint8)
    save(folders.raw, "tail", x_train=x, y_train=y, x_test=x[:40], y_test=np.arange(40) % 10)
    return lambda **settings: load(DataSpec(**{"name": "tail", "validation": 300} | settings))


def per_class(images: Images) -> list[int]:
    return torch.bincount(images.y, minlength=10).tolist()


def test_a_long_tail_keeps_its_classes_and_their_proportion(tail: Callable[..., DataSet]) -> None:
    data = tail()
    assert per_class(data.validation) == [121, 73, 43, 26, 16, 9, 6, 3, 2, 1]
    assert per_class(data.train) == [379, 227, 137, 82, 49, 30, 17, 11, 6, 4]
    few = tail(train=100)
    assert per_class(few.train) == [40, 24, 14, 9, 5, 3, 2, 1, 1, 1]
    assert set(few.train_index.tolist()) < set(tail(train=101).train_index.tolist())
    assert torch.equal(few.validation_index, data.validation_index)


@pytest.mark.parametrize(
    ("settings", "least"),
    [({"validation": 1232}, 1), ({"validation": 1200}, 1), ({"validation": 0, "train": 10}, 1)],
)
def test_no_draw_takes_the_last_training_image_of_a_class(
    settings: dict[str, int], least: int, tail: Callable[..., DataSet]
) -> None:
    assert min(per_class(tail(**settings).train)) == least


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.data())
def test_training_has_every_class_whatever_is_asked_for(
    sizes: list[int], draw: st.DataObject
) -> None:
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    validation = draw.draw(st.integers(0, len(y) - len(sizes)))
    train = draw.draw(st.none() | st.integers(len(sizes), len(y) - validation))
    spec = DataSpec(name="any", validation=validation, train=train, test=1)
    index, held_out, _ = sets._split(y, y, spec)
    assert len(y[index].unique()) == len(sizes) and len(held_out) == validation
    assert len(index) == (len(y) - validation if train is None else train)
    assert not set(index.tolist()) & set(held_out.tolist())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"train": 31},
            "data.train: 31 > 30 allowed: toy has 36 training images, 6 to validate on",
        ),
        (
            {"validation": 34},
            "data.validation: 34 > 33 allowed: toy has 36 training images, one of each class to",
        ),
        (
            {"train": 2},
            "data.train: 2 < 3 allowed: toy has 3 classes, one image of each to train on",
        ),
        ({"test": 13}, "data.test: 13 > 12 allowed: toy has 12 test images"),
        ({"pool": 4}, "data.pool: 4 does not divide the images' 6 x 6"),
        ({"mean": [0.5] * 3}, "data.mean: 3 values for 1 channel(s)"),
        ({"std": [0.5, 0.5]}, "data.std: 2 values for 1 channel(s)"),
    ],
)
def test_what_does_not_fit_names_key_value_and_limit(
    settings: dict[str, Any], words: str, toy: Callable[..., DataSet]
) -> None:
    assert message(lambda: toy(**settings)).startswith(words)


@pytest.mark.parametrize(
    "settings",
    [
        *({"train": 0}, {"train": "5"}, {"train": True}, {"validation": -1}, {"test": 0}),
        *({"pool": 0}, {"split_seed": -1}, {"split_seed": 2**32}, {"std": [0.0]}, {"mean": []}),
        *({"augment": {"crop": -1}}, {"augment": {"rotate": 181.0}}, {"augment": {"zoom": 1}}),
        *({"size": 3}, {"augment": {"flip": 1}}),
    ],
)
def test_wrong_parameters_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataSpec.model_validate({"name": "toy"} | settings)


def test_parameters_survive_a_trip_through_json() -> None:
    spec = DataSpec.model_validate(
        {"name": "toy", "mean": [0.5], "std": [1], "augment": {"crop": 2, "rotate": 15}}
    )
    assert spec.mean == (0.5,) and spec.augment.rotate == 15.0
    assert DataSpec.model_validate_json(spec.model_dump_json()) == spec


# --- pixels and statistics -----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3])
def test_pool_is_the_rounded_mean(factor: int, toy: Callable[..., DataSet]) -> None:
    pooled, whole = toy(pool=factor), toy()
    expected = torch.nn.functional.avg_pool2d(whole.test.x.double(), factor)
    assert pooled.shape == (1, 6 // factor, 6 // factor)
    assert torch.equal(pooled.test.x, (expected + 0.5).floor().to(torch.uint8))


def test_statistics_are_those_of_the_training_split(folders: SimpleNamespace) -> None:
    content = arrays(shape=(6, 6, 3))
    content["x_train"][..., 1] //= 4
    save(folders.raw, **content)
    data = load(DataSpec(name="toy", train=12, validation=6))
    pixels = data.train.x.double() / 255
    assert torch.allclose(data.mean.double(), pixels.mean((0, 2, 3)))
    assert torch.allclose(data.std.double(), pixels.std((0, 2, 3), correction=0))
    given = load(DataSpec(name="toy", validation=6, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)))
    assert torch.equal(given.mean, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(given.std, torch.tensor([1.0, 2.0, 3.0]))


def test_blank_images_need_a_given_std(folders: SimpleNamespace) -> None:
    save(folders.raw, x_train=np.zeros((36, 6, 6), np.uint8))
    text = message(lambda: load(DataSpec(name="toy", validation=6)))
    assert text.startswith("data.std: a channel of toy has no contrast")
    assert load(DataSpec(name="toy", validation=6, std=(1.0,))).mean.item() == 0


# --- batches -------------------------------------------------------------------------------------


@pytest.fixture
def colour(folders: SimpleNamespace) -> DataSet:
    """36 RGB images of 6 x 8 pixels, all of them training images."""
    save(folders.raw, **arrays(shape=(6, 8, 3)))
    return load(DataSpec(name="toy", validation=0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normalised(pixels: torch.Tensor, data: DataSet) -> torch.Tensor:
    return (pixels.double() / 255 - data.mean[:, None, None]) / data.std[:, None, None]


def test_clean_batches_are_normalised_images(colour: DataSet) -> None:
    everything = Batches(colour.train, colour)(torch.arange(36))
    assert everything.dtype == torch.float32 and everything.shape == (36, 3, 6, 8)
    assert torch.allclose(everything.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(everything.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    index = torch.tensor([5, 5, 0])
    expected = normalised(colour.train.x[index], colour)
    assert torch.allclose(everything[index].double(), expected, atol=1e-5)


def test_every_way_to_a_clean_batch_gives_the_same_bits(
    colour: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = torch.randperm(36, generator=seeded())[:10]
    kept = Batches(colour.train, colour)(index)
    padded = Batches(colour.train, colour, Augment(crop=2, flip=True, rotate=9))
    assert torch.equal(padded(index), kept)
    assert torch.equal(sets.batch(colour.train, index, colour), kept)
    monkeypatch.setattr(sets, "FLOAT_BUDGET", 0)
    assert torch.equal(Batches(colour.train, colour)(index), kept)


@pytest.mark.parametrize("augment", [None, Augment()])
def test_without_augmentation_a_generator_is_left_alone(
    augment: Augment | None, colour: DataSet
) -> None:
    random = seeded()
    before = random.get_state()
    batches, index = Batches(colour.train, colour, augment), torch.arange(9)
    assert torch.equal(batches(index, random), batches(index))
    assert torch.equal(random.get_state(), before)


def naive(image: torch.Tensor, pad: int, top: int, left: int, flip: bool) -> torch.Tensor:
    """Crop and flip of one uint8 image (C,H,W), the slow and obvious way."""
    channels, height, width = image.shape
    canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=torch.uint8)
    canvas[:, pad : pad + height, pad : pad + width] = image
    crop = canvas[:, top : top + height, left : left + width]
    return crop.flip(-1) if flip else crop


@pytest.mark.parametrize(("pad", "flip"), [(2, False), (0, True), (1, True), (7, True)])
def test_crop_and_flip_equal_the_naive_ones(pad: int, flip: bool, colour: DataSet) -> None:
    index = torch.randperm(36, generator=seeded())
    augment = Augment(crop=pad, flip=flip)
    made = Batches(colour.train, colour, augment)(index, seeded(3))
    random, flips, offsets = seeded(3), torch.zeros(36, 1), torch.zeros(2, 36, 1).long()
    if flip:
        flips = torch.randint(2, (36, 1), generator=random)
    if pad:
        offsets = torch.randint(2 * pad + 1, (2, 36, 1), generator=random)
    draws = zip(index, *offsets[..., 0].tolist(), flips[:, 0].tolist(), strict=True)
    images = [naive(colour.train.x[i], pad, top, left, bool(f)) for i, top, left, f in draws]
    few = Batches(Images(torch.stack(images), colour.train.y), colour)
    assert torch.equal(made, few(torch.arange(36)))


def test_draws_cover_every_offset_and_both_directions(colour: DataSet) -> None:
    image = torch.arange(1, 49, dtype=torch.uint8).view(1, 1, 6, 8).expand(1, 3, 6, 8)
    one = Images(image.contiguous(), torch.zeros(1, dtype=torch.int64))
    batches = Batches(one, colour, Augment(crop=1, flip=True))
    made = batches(torch.zeros(1000, dtype=torch.int64), seeded())
    assert len(made.unique(dim=0)) == 3 * 3 * 2


def test_padding_is_black_before_normalisation(colour: DataSet) -> None:
    white = Images(torch.full_like(colour.train.x, 255), colour.train.y)
    made = Batches(white, colour, Augment(crop=3))(torch.arange(36), seeded())
    black = normalised(torch.zeros(3, 6, 8), colour).amax((1, 2)).float()
    assert torch.allclose(made.amin((0, 2, 3)), black)


def test_augmentation_is_a_function_of_the_generator_seed(colour: DataSet) -> None:
    augment, index = Augment(crop=2, flip=True, rotate=15.0), torch.arange(36)
    batches = Batches(colour.train, colour, augment)
    first = batches(index, seeded(1))
    torch.manual_seed(9)
    assert torch.equal(batches(index, seeded(1)), first)
    assert not torch.equal(batches(index, seeded(2)), first)
    whole = DataSet(**vars(colour) | {"augment": augment})
    assert torch.equal(sets.batch(colour.train, index, whole, seeded(1)), first)


def test_rotation_by_zero_is_the_identity_and_right_angles_are_exact(colour: DataSet) -> None:
    x = colour.train.x[:, :, :, :6].float()
    assert torch.allclose(sets.rotate(x, torch.zeros(36)), x, atol=1e-2)
    turned = sets.rotate(x, torch.tensor([90.0, 180.0, -90.0] * 12))
    for i, quarters in enumerate((1, 2, -1)):
        assert torch.allclose(turned[i], x[i].rot90(quarters, (1, 2)), atol=1e-2)
    wide = colour.train.x.float()
    assert torch.allclose(sets.rotate(wide, torch.full((36,), 180.0)), wide.flip(2, 3), atol=1e-2)


def test_rotation_stays_within_its_bounds_and_leaves_black_corners(colour: DataSet) -> None:
    white = Images(torch.full_like(colour.train.x, 255), colour.train.y)
    index = torch.arange(36)
    assert torch.allclose(
        Batches(white, colour, Augment(rotate=1e-6))(index, seeded()),
        Batches(white, colour)(index),
        atol=1e-3,
    )
    made = Batches(white, colour, Augment(rotate=45.0))(index, seeded())
    black, full = (normalised(torch.full((3, 6, 8), v), colour).float() for v in (0, 255))
    assert ((made >= black - 1e-4) & (made <= full + 1e-4)).all()
    assert (made[:, :, 0, 0] < full[:, 0, 0] - 0.1).any()
    assert torch.allclose(made[:, :, 3, 4], full[:, 0, 0].expand(36, 3), atol=1e-4)


def test_rotation_agrees_with_pillow(colour: DataSet) -> None:
    ramp = torch.arange(0, 256, 8).expand(1, 1, 32, 32).float()
    ours = sets.rotate(ramp, torch.tensor([15.0]))[0, 0, 8:24, 8:24]
    picture = Image.fromarray(ramp[0, 0].to(torch.uint8).numpy())
    theirs = np.asarray(picture.rotate(15, Image.Resampling.BILINEAR))[8:24, 8:24]
    assert np.abs(ours.numpy() - theirs).max() <= 1.0


def test_epoch_order_is_a_permutation_of_its_seed() -> None:
    order = sets.epoch_order(50, seeded())
    assert torch.equal(order.sort().values, torch.arange(50)) and order.dtype == torch.int64
    assert torch.equal(order, sets.epoch_order(50, seeded()))
    assert not torch.equal(order, sets.epoch_order(50, seeded(1)))


def test_selecting_and_moving_keep_images_and_labels_together(colour: DataSet) -> None:
    index = torch.tensor([7, 2])
    few = colour.train.select(index)
    assert len(few) == 2 and torch.equal(few.x, colour.train.x[index])
    assert torch.equal(few.y, colour.train.y[index])
    moved = colour.to("meta")
    for tensor in (moved.train.x, moved.test.y, moved.mean, moved.train_index):
        assert tensor.device.type == "meta"
    assert moved.sha256 == colour.sha256 and moved.shape == colour.shape


# --- one set for all units of a process


def test_a_set_is_read_once_until_its_file_changes(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETLAB_PREPARED", str(tmp_path))
    read: list[str] = []
    real = sets.read_prepared
    monkeypatch.setattr(
        sets, "read_prepared", lambda path, name: read.append(name) or real(path, name)
    )
    sets._loaded.cache_clear()
    sets._arrays.cache_clear()
    first = load(tiny.DIGITS)
    assert load(tiny.DIGITS) is first
    assert load(tiny.DIGITS.model_copy(update={"split_seed": 3})) is not first
    assert read == ["digits_tiny"]  # another split is of the same arrays
    path = prepared.prepared_path("digits_tiny")
    path.unlink()
    assert load(tiny.DIGITS) is not first and len(read) == 2
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="damaged"):
        load(tiny.DIGITS)
