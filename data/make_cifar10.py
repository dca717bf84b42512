"""Write cifar10.npz with the images of CIFAR-10 in an order that does not depend on their source.

    python data/make_cifar10.py

Splits of a study are drawn by position, so the same images in another order give other splits.
This reads CIFAR-10 from where `ticketlab prepare` would (cifar10.npz or torchvision's folder in
the data folder, else torchvision's download), sorts both halves by the SHA-256 of each image, and
by label where two images are equal, and writes cifar10.npz to the data folder (TICKETLAB_DATA, else
data/raw). The results of the study cifar10_small are for such a file.
"""

import argparse
import io
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketlab.data.sources import HALVES, Raw, data_root, read
from ticketlab.files import write_atomically

NAME = "cifar10"


def order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of images (N, C, H, W) sorted by SHA-256, then by label."""
    keys = [(sha256(one).digest(), int(y)) for one, y in zip(images, labels, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def make(raw: Raw, target: Path) -> None:
    """Write `target`; the same images give the same bytes, in whatever order they come."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for half in HALVES:
        x, y = getattr(raw, f"x_{half}"), getattr(raw, f"y_{half}")
        places = order(np.ascontiguousarray(x), y)
        arrays |= {f"x_{half}": x[places], f"y_{half}": y[places]}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(target, stream.getvalue())


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    path = data_root() / f"{NAME}.npz"
    make(read(NAME), path)
    print(f"wrote {path}")
