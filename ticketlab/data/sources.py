"""Sources of raw images: npz files, torchvision, and Tiny-ImageNet folders.

Only real images are used: a missing data set is an error that names the file or folder to provide.
"""

import os
import re
import socket
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ticketlab.spec import ROOT, InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")
EMBEDDED = ("fashion_mnist_22k", "mnist_5k")
TORCHVISION = {  # our name: (torchvision's class, the folder it keeps in the data root)
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "mnist": ("MNIST", "MNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}
TINY_FOLDER = "tiny-imagenet-200"
TINY_SIDE = 64
NAME = r"\w[\w.-]*"
"""Allowed names of a data set: the name of its file, without a folder."""
HALVES = ("train", "test")
KNOWN = (*EMBEDDED, *TORCHVISION, "tiny_imagenet")
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer, in case a firewall drops packets


class DataNotFound(InputError):
    """A data set was not found in any possible location; the message lists them."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Official train and test sets, checked: images x uint8 (N,C,H,W), labels y int64 (N,)."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """Number of classes; labels are 0..classes-1 and each occurs in the training set."""
        return int(self.y_train.max()) + 1


def data_root() -> Path:
    """Return the folder of users' data sets and downloads: TICKETLAB_DATA, else data/raw."""
    return Path(os.environ.get("TICKETLAB_DATA") or ROOT / "data" / "raw")


def check_name(name: str) -> None:
    """Raise `DataNotFound` for a name that is neither known nor a NAME.npz; uses no network."""
    if not re.fullmatch(NAME, name) or (name not in KNOWN and _npz(name) is None):
        raise DataNotFound(
            f"data.name: {name!r} is not known ({', '.join(KNOWN)}) "
            f"and there is no {name}.npz with {', '.join(KEYS)} in {data_root()}"
        )


def read(name: str) -> Raw:
    """Read data set `name` from the first source that has it: embedded, NAME.npz, its own reader.

    Raises `DataNotFound` if no source has it and `InputError` if its files are damaged.
    """
    check_name(name)
    file = _npz(name)
    if file is not None:
        return read_npz(file)
    if name in TORCHVISION:
        return _read_torchvision(name)
    if name == "tiny_imagenet":
        return read_tiny_imagenet(data_root() / TINY_FOLDER)
    raise DataNotFound(f"data.name: {name!r} was not found: {_looked(name)}: put one of them there")


def _npz(name: str) -> Path | None:
    """Find the npz file of `name`; the embedded one takes precedence over any other."""
    return next((path for path in _npz_places(name) if path.exists()), None)


def _npz_places(name: str) -> list[Path]:
    embedded = [ROOT / "data" / f"{name}.npz"] if name in EMBEDDED else []
    return [*embedded, data_root() / f"{name}.npz"]


def _looked(name: str) -> str:
    return " and ".join(f"no {path}" for path in _npz_places(name)) + f" (with {', '.join(KEYS)})"


def _reason(error: BaseException) -> str:
    """Put an exception's message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


# --- npz -----------------------------------------------------------------------------------------


def read_npz(path: Path) -> Raw:
    """Read x_train, y_train, x_test, y_test (x uint8 NHW, NHWC or NCHW; y integers) from `path`."""
    try:
        # not np.load, which leaves the file open if the zip is damaged
        with path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            arrays = {} if missing else {key: file[key] for key in KEYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as npz, or is cut ({_reason(error)})") from error
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: needed are {', '.join(KEYS)}")
    return checked(arrays, str(path))


def checked(arrays: dict[str, NDArray[Any]], origin: str) -> Raw:
    """Check the four arrays; an `InputError` names `origin` and the problem."""
    for half in HALVES:
        x, y = arrays[f"x_{half}"], arrays[f"y_{half}"]
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
            raise InputError(
                f"{origin}: y_{half} is {y.dtype} {y.shape}, needed are integers of shape (N,)"
            )
        if x.shape[:1] != y.shape or len(y) == 0:
            raise InputError(
                f"{origin}: x_{half} is {x.shape} and y_{half} {y.shape}, "
                "needed are as many images as labels and at least one"
            )
    x_train, x_test = (_to_nchw(arrays[key], key, origin) for key in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"{origin}: training images are {x_train.shape[1:]} and test images {x_test.shape[1:]}"
        )
    _check_labels(arrays["y_train"], arrays["y_test"], origin)
    y_train, y_test = (arrays[key].astype(np.int64) for key in ("y_train", "y_test"))
    return Raw(x_train, y_train, x_test, y_test)


def _to_nchw(x: NDArray[Any], key: str, origin: str) -> NDArray[np.uint8]:
    """NHW, NHWC or NCHW as contiguous NCHW; the channel axis is the one of length 1 or 3."""
    if x.dtype != np.uint8:
        raise InputError(f"{origin}: {key} is {x.dtype}, needed is uint8 (0..255)")
    if x.ndim == 3:
        return np.ascontiguousarray(x[:, None])
    first, last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, -1))
    if first == last:
        raise InputError(
            f"{origin}: {key} has shape {x.shape}, "
            "needed is (N,H,W), (N,H,W,C) or (N,C,H,W) with C 1 or 3"
        )
    return np.ascontiguousarray(x if first else x.transpose(0, 3, 1, 2))


def _check_labels(train: NDArray[Any], test: NDArray[Any], origin: str) -> None:
    found = np.unique(train)
    if not np.array_equal(found, np.arange(len(found))):
        raise InputError(
            f"{origin}: y_train has {len(found)} labels from {found[0]} to {found[-1]}, "
            "needed is every label 0..C-1"
        )
    strange = np.setdiff1d(test, found)
    if len(strange):
        raise InputError(
            f"{origin}: y_test has label {strange[0]}, y_train only 0..{len(found) - 1}"
        )


# --- torchvision ---------------------------------------------------------------------------------


def _read_torchvision(name: str) -> Raw:
    """Read through torchvision, which downloads missing files into the data root."""
    root, (class_name, folder) = data_root(), TORCHVISION[name]
    try:
        with _patient_download():
            import torchvision  # imported here because it is slow and needed once per data set

            dataset = getattr(torchvision.datasets, class_name)
            root.mkdir(parents=True, exist_ok=True)
            halves = {half: dataset(str(root), half == "train", download=True) for half in HALVES}
    except (OSError, RuntimeError, ImportError, EOFError) as error:
        raise DataNotFound(
            f"data.name: {name!r} was not found: {_looked(name)} and torchvision could not read or "
            f"download {root / folder} ({_reason(error)}): put one of them there"
        ) from error
    arrays = {f"x_{half}": np.asarray(data.data) for half, data in halves.items()}
    arrays |= {f"y_{half}": np.asarray(data.targets) for half, data in halves.items()}
    return checked(arrays, f"torchvision's {class_name} in {root / folder}")


@contextmanager
def _patient_download() -> Iterator[None]:
    """Limit the wait for a silent network; hide warnings about CIFAR's old pickle format."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            yield
    finally:
        socket.setdefaulttimeout(before)


# --- Tiny-ImageNet -------------------------------------------------------------------------------


def read_tiny_imagenet(folder: Path) -> Raw:
    """Read the official layout: train/CLASS/images/, val/images/ and val/val_annotations.txt.

    Labels follow the sorted class ids (WordNet), not the order of a directory listing; the labelled
    validation set serves as the test set, as in the papers. Grey JPEGs become RGB.
    """
    notes = folder / "val" / "val_annotations.txt"
    classes = sorted(path.name for path in folder.glob("train/*") if path.is_dir())
    if not classes or not notes.is_file():
        raise DataNotFound(
            f"data.name: 'tiny_imagenet' was not found: {_looked('tiny_imagenet')} and no "
            f"{folder} with train/CLASS/images and val/val_annotations.txt: unpack the official "
            f"{TINY_FOLDER}.zip there"
        )
    label = {name: i for i, name in enumerate(classes)}
    train = [
        (path, label[name])
        for name in classes
        for path in sorted((folder / "train" / name / "images").glob("*.JPEG"))
    ]
    arrays = _decode(train, "train") | _decode(_annotated(notes, label), "test")
    return checked(arrays, str(folder))


def _annotated(notes: Path, label: dict[str, int]) -> list[tuple[Path, int]]:
    """Return (image, label) pairs in the order of val_annotations.txt (tabs: file, class, box)."""
    pairs = []
    for number, line in enumerate(notes.read_text().splitlines(), start=1):
        file, name = [*line.split("\t"), ""][:2]
        if name not in label:
            raise InputError(f"{notes}: line {number} names class {name!r}, not a folder of train")
        pairs.append((notes.parent / "images" / file, label[name]))
    return pairs


def _decode(pairs: list[tuple[Path, int]], half: str) -> dict[str, NDArray[Any]]:
    x = np.empty((len(pairs), TINY_SIDE, TINY_SIDE, 3), np.uint8)
    open_rgb = _jpeg_reader()
    for i, (path, _) in enumerate(pairs):
        try:
            image = open_rgb(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read as an image ({_reason(error)})") from error
        if image.shape != x.shape[1:]:
            raise InputError(f"{path} is {image.shape}, needed is {x.shape[1:]}")
        x[i] = image
    return {f"x_{half}": x, f"y_{half}": np.array([y for _, y in pairs], np.int64)}


def _jpeg_reader() -> Callable[[Path], NDArray[np.uint8]]:
    from PIL import Image  # imported here because only this data set needs it

    def read_rgb(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    return read_rgb
