"""Make data/fashion_mnist_22k.npz: 1,200 training images of each class and the whole test set.

    python data/make_fashion_mnist_22k.py [FOLDER]

FOLDER holds the four official IDX files (Debian's package dataset-fashion-mnist puts them into
/usr/share/datasets/fashion-mnist). Without it, torchvision downloads them into the data root.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).with_name("fashion_mnist_22k.npz")
PER_CLASS = 1200
FILES = {  # key: (official file, number of dimensions)
    "x_train": ("train-images-idx3-ubyte.gz", 3),
    "y_train": ("train-labels-idx1-ubyte.gz", 1),
    "x_test": ("t10k-images-idx3-ubyte.gz", 3),
    "y_test": ("t10k-labels-idx1-ubyte.gz", 1),
}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes: 0, 0, type 8, dimensions, big-endian sizes, values."""
    content = gzip.decompress(path.read_bytes())
    if content[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path} is not an IDX file of bytes with {dimensions} dimension(s)")
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def first_of_each_class(labels: NDArray[np.uint8], per_class: int) -> NDArray[np.int64]:
    """Positions of the first `per_class` images of each class, ascending (the official order)."""
    positions = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    if min(map(len, positions)) < per_class:
        raise ValueError(f"a class has fewer than {per_class} images")
    return np.sort(np.concatenate(positions))


def make(folder: Path | None, target: Path = TARGET, per_class: int = PER_CLASS) -> None:
    """Write `target`; the same images give the same bytes (with the same zlib)."""
    if folder is None:
        from ticketlab.data import sources  # only here: with a folder, numpy is enough

        raw = sources.read("fashion_mnist")
        arrays = {key: getattr(raw, key) for key in FILES}
        arrays = {key: a[:, 0] if a.ndim == 4 else a.astype(np.uint8) for key, a in arrays.items()}
    else:
        arrays = {key: read_idx(folder / name, n) for key, (name, n) in FILES.items()}
    chosen = first_of_each_class(arrays["y_train"], per_class)
    arrays |= {key: arrays[key][chosen] for key in ("x_train", "y_train")}
    np.savez_compressed(target, **{key: arrays[key] for key in FILES})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of the official IDX files")
    make(parser.parse_args().folder)
    print(f"wrote {TARGET}")
