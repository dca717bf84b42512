"""Data sets by name, as uint8 tensors resident on the device: splits and augmented batches."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Generator, Tensor

from ticketlab.data import sources
from ticketlab.data.prepared import Header, prepare, prepared_path, read_prepared
from ticketlab.data.sources import DataNotFound
from ticketlab.spec import InputError, Spec

__all__ = [
    "Augment",
    "Batches",
    "DataNotFound",
    "DataSet",
    "DataSpec",
    "Images",
    "batch",
    "epoch_order",
    "load",
    "prepare",
    "prepared_path",
    "rotate",
]

FLOAT_BUDGET = 256 * 2**20  # up to this many bytes, clean images stay normalised as float32


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _file_name(name: str) -> str:
    if not re.fullmatch(sources.NAME, name):
        raise ValueError("allowed is a name of letters, digits, '_', '.' and '-', as of its file")
    return name


DataName = Annotated[str, AfterValidator(_file_name)]
Channels = Annotated[tuple[float, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)]
Positive = Annotated[float, Field(gt=0)]
Scales = Annotated[tuple[Positive, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=3)]


class Augment(Spec):
    """Random changes to training images, in this order: crop from a padded image, flip, rotate."""

    crop: int = Field(default=0, ge=0)  # zero padding in pixels on each side, 0 = off
    flip: bool = False  # left-right, with probability 1/2
    rotate: float = Field(default=0.0, ge=0, le=180)  # uniform in +-rotate degrees, 0 = off

    @property
    def active(self) -> bool:
        """Whether any augmentation is on."""
        return self.flip or self.crop > 0 or self.rotate > 0


class DataSpec(Spec):
    """Which images to use: a data set's name, its splits, augmentation and normalisation.

    Training and validation are disjoint draws from the official training set, each class in
    proportion to its size (equal numbers if the set is balanced). Training keeps at least one image
    per class. The indices depend only on the data set, the sizes and the seed of the split: all
    arms of a seed share them.
    """

    name: DataName
    train: int | None = Field(default=None, ge=1)  # None: everything outside validation
    validation: int = Field(default=1000, ge=0)
    test: int | None = Field(default=None, ge=1)  # None: the whole official test set
    pool: int = Field(default=1, ge=1, le=64)  # average-pool factor, applied once
    split_seed: int | None = Field(default=None, ge=0, lt=2**32)  # None: the seed of the run
    augment: Augment = Augment()
    mean: Channels | None = None  # per channel on the 0..1 scale; None: of the training split
    std: Scales | None = None


@dataclass(frozen=True, eq=False)
class Images:
    """Resident images x uint8 (N,C,H,W) with labels y int64 (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def select(self, index: Tensor) -> "Images":
        """Copy the images at `index` int64 (n,)."""
        return Images(self.x.index_select(0, index), self.y.index_select(0, index))

    def to(self, device: str | torch.device) -> "Images":
        """Return the same images on `device`."""
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class DataSet:
    """Three splits and their normalisation; mean and std float32 (C,) on the 0..1 scale.

    The `*_index` int64 tensors are positions in the prepared file's training (train, validation)
    and test arrays; `sha256` is the digest of that file's arrays.
    """

    name: str
    classes: int
    train: Images
    validation: Images
    test: Images
    mean: Tensor
    std: Tensor
    augment: Augment
    sha256: str
    train_index: Tensor
    validation_index: Tensor
    test_index: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width

    def to(self, device: str | torch.device) -> "DataSet":
        """Return the same data set with every tensor on `device`."""
        fields = vars(self).items()
        return replace(self, **{k: v.to(device) for k, v in fields if hasattr(v, "to")})


# --- loading and splitting -----------------------------------------------------------------------


def load(
    spec: DataSpec, device: str | torch.device = "cpu", root: Path | None = None, seed: int = 0
) -> DataSet:
    """Load the data set of `spec` onto `device`; prepare it first if its file is missing.

    `seed` is the seed of the run. It draws the split unless `split_seed` is set; the sizes do not
    depend on it, nor do the test images if all are used.

    Raises `DataNotFound`, or `InputError` naming the key for a damaged file, too many images, or a
    pool factor or number of channels that does not fit. Treat the tensors as read-only: all units
    of a process share them.
    """
    path = prepared_path(spec.name, root)
    if not path.exists():
        prepare(spec.name, root)
    if spec.split_seed is None:
        spec = spec.model_copy(update={"split_seed": seed})
    return _loaded(path, spec, torch.device(device), *_state(path))


def _state(path: Path) -> tuple[int, int]:
    """Return a fingerprint of the file's state (size and time), to notice changes."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=2)
def _arrays(path: Path, name: str, *_: int) -> tuple[Mapping[str, Tensor], Header]:
    """Return the arrays of a file, cached by its state: reading and checking CIFAR-10 is slow."""
    return read_prepared(path, name)


@lru_cache(maxsize=3)
def _loaded(path: Path, spec: DataSpec, device: torch.device, *state: int) -> DataSet:
    """Do the work of `load`, cached by the state of the file; `spec` has the seed of its split."""
    arrays, header = _arrays(path, spec.name, *state)
    train, validation, test = _split(arrays["y_train"], arrays["y_test"], spec)
    official_train = Images(arrays["x_train"], arrays["y_train"])
    official_test = Images(arrays["x_test"], arrays["y_test"])
    images = _pooled(official_train.select(train), spec.pool)
    mean, std = _statistics(images.x, spec)
    return DataSet(
        name=spec.name,
        classes=header.classes,
        train=images,
        validation=_pooled(official_train.select(validation), spec.pool),
        test=_pooled(official_test.select(test), spec.pool),
        mean=mean,
        std=std,
        augment=spec.augment,
        sha256=header.sha256,
        train_index=train,
        validation_index=validation,
        test_index=test,
    ).to(device)


def _split(y_train: Tensor, y_test: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor, Tensor]:
    """Return train, validation and test indices; validation is drawn first, whatever `train` is."""
    counts = torch.bincount(y_train).tolist()
    _check_sizes(counts, len(y_test), spec)
    seed = spec.split_seed or 0
    order = _shuffled(len(y_train), seed)
    shares = _shares(counts, spec.validation, most=[count - 1 for count in counts])
    validation, train = _drawn(order, y_train, shares)
    if spec.train is not None:
        left = [count - share for count, share in zip(counts, shares, strict=True)]
        train, _ = _drawn(train, y_train, _shares(counts, spec.train, least=1, most=left))
    if spec.test is None:
        return train, validation, torch.arange(len(y_test))
    order = _shuffled(len(y_test), seed)
    shares = _shares(torch.bincount(y_test).tolist(), spec.test)
    return train, validation, _drawn(order, y_test, shares)[0]


def _shuffled(n: int, seed: int) -> Tensor:
    # RandomState: the only stream that numpy promises never to change
    return torch.from_numpy(np.random.RandomState(seed).permutation(n).astype(np.int64))


def _check_sizes(counts: list[int], n_test: int, spec: DataSpec) -> None:
    """Raise InputError for a size that the set, or its smallest class, does not allow."""
    n_train, classes, name = sum(counts), len(counts), spec.name
    left = n_train - spec.validation
    has = f"{name} has {n_train} training images"
    asked = {
        "validation": (spec.validation, n_train - classes, f"{has}, one of each class to train on"),
        "train": (spec.train, left, f"{has}, {spec.validation} to validate on"),
        "test": (spec.test, n_test, f"{name} has {n_test} test images"),
    }
    for key, (value, most, why) in asked.items():
        if value is not None and value > most:
            raise InputError(f"data.{key}: {value} > {most} allowed: {why}")
    if spec.train is not None and spec.train < classes:
        raise InputError(
            f"data.train: {spec.train} < {classes} allowed: {name} has {classes} classes, "
            "one image of each to train on"
        )


def _drawn(order: Tensor, labels: Tensor, shares: list[int]) -> tuple[Tensor, Tensor]:
    """Split `order` into the first `shares[c]` entries of each class c, and the rest."""
    own = labels[order]
    take = torch.zeros(len(order), dtype=torch.bool)
    for label, share in enumerate(shares):
        take[(own == label).nonzero()[:share, 0]] = True
    return order[take], order[~take]


def _shares(counts: list[int], n: int, least: int = 0, most: list[int] | None = None) -> list[int]:
    """Distribute n over classes in proportion to their `counts`, equally if the counts are equal.

    Every class gets at least `least` and at most `most` (default: all it has); a remainder goes to
    the first of equal classes. A larger n never takes an image from a class (Webster's method: the
    k-th image of a class has rank (k - 1/2) / count, and the n lowest ranks are taken).
    """
    most = counts if most is None else most
    labels = np.repeat(np.arange(len(counts)), most)
    places = np.concatenate([np.arange(top) for top in most])
    ranks = np.where(places < least, 0.0, (places + 0.5) / np.repeat(counts, most))
    taken = labels[np.argsort(ranks, kind="stable")[:n]]
    counted: list[int] = np.bincount(taken, minlength=len(counts)).tolist()
    return counted


def _pooled(images: Images, factor: int) -> Images:
    """Average factor x factor pixels, rounding halves up, as uint8; exact integer arithmetic."""
    height, width = images.x.shape[2:]
    if factor == 1:
        return images
    if height % factor or width % factor:
        raise InputError(f"data.pool: {factor} does not divide the images' {height} x {width}")
    total = torch.zeros(images.x[:, :, ::factor, ::factor].shape, dtype=torch.int32)
    for i in range(factor):
        for j in range(factor):
            total += images.x[:, :, i::factor, j::factor]
    return Images(((2 * total + factor**2) // (2 * factor**2)).to(torch.uint8), images.y)


def _statistics(x: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Return mean and std (C,) on the 0..1 scale: as given, or computed from x uint8 (N,C,H,W)."""
    channels = x.shape[1]
    for key, given in (("mean", spec.mean), ("std", spec.std)):
        if given is not None and len(given) != channels:
            raise InputError(f"data.{key}: {len(given)} values for {channels} channel(s)")
    moments = [_mean_std(x[:, c]) for c in range(channels)]
    mean = spec.mean or tuple(m for m, _ in moments)
    std = spec.std or tuple(s for _, s in moments)
    if min(std) == 0:
        raise InputError(f"data.std: a channel of {spec.name} has no contrast, so it must be given")
    return torch.tensor(mean), torch.tensor(std)


def _mean_std(x: Tensor) -> tuple[float, float]:
    """Return mean and std of uint8 x / 255, from integer sums: the same on every machine."""
    counts = torch.bincount(x.flatten(), minlength=256).tolist()
    total = sum(n * level for level, n in enumerate(counts))
    squares = sum(n * level * level for level, n in enumerate(counts))
    n = x.numel()
    return total / (255 * n), math.sqrt(n * squares - total * total) / (255 * n)


# --- batches -------------------------------------------------------------------------------------


class Batches:
    """One split, prepared once, then cheap batches: float32 (B,C,H,W), normalised.

    Clean batches (no augmentation) are one index_select. Augmented batches are cropped from
    zero-padded uint8 images, flipped, then optionally rotated: the whole batch at once, on the
    device, without a transfer to the host. On a CPU a crop copies a window of the image or of its
    mirror image (which doubles the memory of the set); elsewhere crop and flip are one gather. Both
    give the same bits. Padding is black, as if added to the raw image.
    """

    def __init__(self, images: Images, data: DataSet, augment: Augment | None = None) -> None:
        self.augment = augment if augment is not None and augment.active else Augment()
        self.shape = tuple(images.x.shape[1:])
        self._shift = (255 * data.mean).view(-1, 1, 1).to(images.x.device)
        self._scale = (1 / (255 * data.std)).view(-1, 1, 1).to(images.x.device)
        pad = self.augment.crop
        self._store = F.pad(images.x, (pad, pad, pad, pad)) if pad else images.x
        self._ready = not self.augment.active and 4 * images.x.numel() <= FLOAT_BUDGET
        if self._ready:
            self._store = self._normalised(self._store)
        self._windows = None
        if images.x.device.type == "cpu" and (pad or self.augment.flip):
            self._windows = _windows(self._store, self.shape, self.augment.flip)
        self._rows, self._columns = (
            torch.arange(n, device=images.x.device) for n in self.shape[1:]
        )

    def __call__(self, index: Tensor, generator: Generator | None = None) -> Tensor:
        """Batch the images at `index` int64 (B,); augmented iff a generator is given.

        The generator must be on the images' device. It draws flips, crop offsets and angles, in
        this order, and only those that `augment` uses.
        """
        if self._ready:
            return self._store.index_select(0, index)
        if generator is None or not self.augment.active:
            return self._normalised(self._inner().index_select(0, index))
        if self._windows is not None:
            x = self._cut(self._windows, index, generator)
        else:
            x = self._cropped(self._store.index_select(0, index), generator)
        if self.augment.rotate:
            draw = torch.rand(len(index), generator=generator, device=x.device)
            x = rotate(x.float(), (2 * draw - 1) * self.augment.rotate)
        return self._normalised(x)

    def _inner(self) -> Tensor:
        (_, height, width), pad = self.shape, self.augment.crop
        return self._store[:, :, pad : pad + height, pad : pad + width]

    def _normalised(self, x: Tensor) -> Tensor:
        # two separate roundings: the same bits for the whole set at once and for one batch
        return x.sub(self._shift).mul_(self._scale)

    def _cut(self, windows: np.ndarray, index: Tensor, generator: Generator) -> Tensor:
        """Crop and flip the images at `index`, each by its own draw: uint8 (B,C,H,W)."""
        n, pad = len(index), self.augment.crop
        flip = top = left = torch.zeros(n, dtype=torch.int64)
        if self.augment.flip:
            flip = torch.randint(2, (n, 1), generator=generator)[:, 0]
        if pad:
            top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)[..., 0]
        left = torch.where(flip.bool(), 2 * pad - left, left)  # as seen in the mirror
        cut = windows[flip.numpy(), index.numpy(), top.numpy(), left.numpy()]
        return torch.from_numpy(cut)

    def _cropped(self, x: Tensor, generator: Generator) -> Tensor:
        """Crop and flip padded x uint8 (B,C,H+2p,W+2p), each image by its own draw."""
        n, pad, device = len(x), self.augment.crop, x.device
        rows, columns = self._rows.expand(n, -1), self._columns.expand(n, -1)
        if self.augment.flip:
            flip = torch.randint(2, (n, 1), generator=generator, device=device).bool()
            columns = torch.where(flip, self.shape[2] - 1 - columns, columns)
        if pad:
            top, left = torch.randint(
                2 * pad + 1, (2, n, 1), generator=generator, device=device
            ).unbind()
            rows, columns = rows + top, columns + left
        pixel = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).view(n, 1, -1)
        picked = x.flatten(2).gather(2, pixel.expand(-1, x.shape[1], -1))
        return picked.view(n, *self.shape)


def _windows(store: Tensor, shape: tuple[int, ...], flip: bool) -> np.ndarray:
    """Return every window of padded images (N,C,H+2p,W+2p), and of their mirror images if `flip`.

    The result is a view (mirrored, N, top, left, C, H, W); only the mirror images are copied.
    """
    both = torch.stack([store, store.flip(3)] if flip else [store]).numpy()
    view = np.lib.stride_tricks.sliding_window_view(both, shape[1:], axis=(3, 4))
    return view.transpose(0, 1, 3, 4, 2, 5, 6)


def batch(
    images: Images, index: Tensor, data: DataSet, generator: Generator | None = None
) -> Tensor:
    """Return one batch float32 (B,C,H,W) without preparing the whole split; see `Batches`.

    Augmented with `data.augment` iff a generator is given.
    """
    few = images.select(index)
    everything = torch.arange(len(few), device=index.device)
    return Batches(few, data, data.augment if generator else None)(everything, generator)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image of x float (B,C,H,W) counter-clockwise by degrees (B,) about its centre.

    Bilinear, black outside (COLT's code uses PIL's nearest pixel). No matrix product is involved,
    so TF32 does not affect it and deterministic mode allows it.
    """
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees).view(-1, 1, 1)
    cos, sin = angle.cos(), angle.sin()
    down = (torch.arange(height, device=x.device) - (height - 1) / 2).view(1, -1, 1)
    right = (torch.arange(width, device=x.device) - (width - 1) / 2).view(1, 1, -1)
    from_x = (cos * right - sin * down) * (2 / width)
    from_y = (sin * right + cos * down) * (2 / height)
    grid = torch.stack((from_x, from_y), dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def epoch_order(n: int, generator: Generator) -> Tensor:
    """Draw one epoch's order of images: a permutation int64 (n,) on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)
