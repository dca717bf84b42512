"""Subsets of the training data: per-sample scores, ways to select by them, and index files.

Every score is high for samples that are hard to learn. Indices are positions in the study's
training split. Index files instead use positions in the data set's official training images, so
that other studies can read them.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu
from ticketlab.data.sets import DataSet
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.spec import InputError
from ticketlab.training.observers import Observer, Run

FORMAT = 1
"""Version of the index file format."""

NEVER = 200_000
"""Forgetting count of a sample that was never classified correctly (the authors' infinity)."""
OUTSIDE = -1
"""Forgetting count of a sample that was not trained on."""


# ---------------------------------------------------------------- observations per sample


class Correctness(Observer):
    """Records one bit per sample and epoch: whether the pass before the update was correct.

    `record` is int8 (images, epochs run): 1 correct, 0 wrong, -1 not trained on. It stays on the
    device, and nothing is read per sample. `subset` (n,) maps the run's images to positions in all
    `images`; an epoch that ends early keeps the previous epoch's bits.
    """

    def __init__(self, subset: Tensor, images: int) -> None:
        self.subset, self.images = subset, images
        self._bits = torch.empty(0)
        self._epochs = 0

    def before_step(self, run: Run) -> None:
        """Write the bits of this batch."""
        if run.iteration == 0:
            epochs = -(-run.total // run.per_epoch)
            shape = (epochs, self.images)
            self._bits = torch.full(shape, -1, dtype=torch.int8, device=run.labels.device)
        if run.iteration % run.per_epoch == 0 and run.epoch:
            self._bits[run.epoch] = self._bits[run.epoch - 1]
        self._bits[run.epoch].index_copy_(0, self.subset[run.index], run.correct.to(torch.int8))
        self._epochs = run.epoch + 1

    @property
    def record(self) -> Tensor:
        """The bits of the epochs that were run."""
        return self._bits[: self._epochs].T


def forgetting_events(record: Tensor) -> Tensor:
    """Count how often each sample went from correct to wrong in a `Correctness` record, int64 (N,).

    NEVER for a sample that was never correct, OUTSIDE for one that was not trained on
    (Toneva et al. 2019, with PrAC's convention for the two special cases).
    """
    events = ((record[:, :-1] == 1) & (record[:, 1:] == 0)).sum(1)
    events[(record != 1).all(1)] = NEVER
    events[(record == -1).all(1)] = OUTSIDE
    return events


DUAL_EPOCHS = 30
"""Number of first epochs that DUAL uses (its authors: 30 of 200) ..."""
DUAL_WINDOW = 10
"""... and the length of its windows."""


class Difficulty(Observer):
    """Difficulty of each sample in training passes: AUM and, from early epochs, EL2N and DUAL."""

    def __init__(self, images: int, el2n_epochs: int) -> None:
        self.images, self.el2n_epochs = images, el2n_epochs
        self._sums = torch.empty(0)
        self._probabilities = torch.empty(0)
        self._epochs = 0

    def before_step(self, run: Run) -> None:
        """Add this batch's margins and, in early epochs, its error norms and probabilities."""
        if run.iteration == 0:
            self._sums = torch.zeros(4, self.images, device=run.labels.device)
            shape = (min(DUAL_EPOCHS, -(-run.total // run.per_epoch)), self.images)
            self._probabilities = torch.zeros(shape, device=run.labels.device)
        self._sums[:2, run.index] += torch.stack([_margin(run), torch.ones_like(run.labels)])
        if run.epoch < self.el2n_epochs:
            self._sums[2:, run.index] += torch.stack(
                [_error_norm(run), torch.ones_like(run.labels)]
            )
        if run.epoch < len(self._probabilities):
            self._probabilities[run.epoch, run.index] = _probability(run)
            self._epochs = run.epoch + 1

    def scores(self) -> dict[str, Tensor]:
        """Return scores (N,) by name: "aum" (negated, so that high is hard), "el2n" and "dual"."""
        mean = self._sums[::2] / self._sums[1::2].clamp(min=1)
        uncertain = dual(self._probabilities[: self._epochs], DUAL_WINDOW)
        return {"aum": -mean[0], "el2n": mean[1], "dual": uncertain}


def dual(probabilities: Tensor, window: int) -> Tensor:
    """Return DUAL's score (N,) from the label's `probabilities` (T, N) per epoch (Cho et al. 2025).

    In each window of epochs, uncertainty (the standard deviation) times difficulty (1 - the mean);
    then the mean over windows. High is hard. Fewer epochs than `window` form one window; a single
    epoch has no deviation, so all samples score 0.
    """
    width = min(window, len(probabilities))
    if width < 2:
        return torch.zeros_like(probabilities[0])
    windows = probabilities.unfold(0, width, 1)
    found: Tensor = ((1 - windows.mean(2)) * windows.std(2)).mean(0)
    return found


def _probability(run: Run) -> Tensor:
    """Return the softmax probability of the label (B,)."""
    return run.logits.float().softmax(1).gather(1, run.labels[:, None])[:, 0]


def _margin(run: Run) -> Tensor:
    """Return the logit of the label minus the best other one (B,).

    Its mean over epochs is AUM (Pleiss et al. 2020, section 3).
    """
    own = run.logits.float().gather(1, run.labels[:, None])[:, 0]
    others = run.logits.float().scatter(1, run.labels[:, None], -torch.inf)
    return own - others.amax(1)


def _error_norm(run: Run) -> Tensor:
    """Return ``||softmax(f(x)) - onehot(y)||_2`` (B,), EL2N of one net (Paul et al. 2021, 2.3)."""
    target = functional.one_hot(run.labels, run.logits.shape[1])
    error: Tensor = (run.logits.float().softmax(1) - target).norm(dim=1)
    return error


# ---------------------------------------------------------------- selections


def hardest(scores: Tensor, count: int) -> Tensor:
    """Return the sorted indices (count,) of the highest `scores` (N,); ties to the lower index."""
    _check_count(count, len(scores))
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values


def random_draw(images: int, count: int, seed: tuple[object, ...]) -> Tensor:
    """Draw `count` of `images` indices, sorted, with every set equally likely."""
    _check_count(count, images)
    random = gpu.generator("cpu", "subset", *seed)
    return torch.randperm(images, generator=random)[:count].sort().values


def coverage(
    scores: Tensor, count: int, cut: float, strata: int, seed: tuple[object, ...]
) -> Tensor:
    """Coverage-centric selection (Zheng et al. 2023, algorithm 1): `count` indices, sorted.

    Drops the hardest fraction `cut`, divides the range of the remaining `scores` (N,) into equal
    strata, and draws as evenly from all strata as their sizes allow, smallest stratum first.
    """
    kept = len(scores) - int(cut * len(scores))
    _check_count(count, kept)
    easy = torch.sort(scores, stable=True).indices[:kept].cpu()
    values = scores.cpu()[easy].double()
    width = (values.max() - values.min()).clamp(min=1e-12) / strata
    stratum = ((values - values.min()) / width).long().clamp(max=strata - 1)
    groups = [easy[stratum == i] for i in range(strata)]
    chosen, left = [], count
    for place, group in enumerate(sorted(groups, key=len)):
        share = min(len(group), left // (strata - place))
        chosen.append(group[random_draw(len(group), share, (*seed, place))])
        left -= share
    return torch.cat(chosen).sort().values.to(scores.device)


def _check_count(count: int, available: int) -> None:
    if not 0 <= count <= available:
        raise InputError(f"subset: {count} samples asked for, allowed: 0 to {available}")


def flip_labels(
    labels: Tensor, share: float, classes: int, seed: tuple[object, ...]
) -> tuple[Tensor, Tensor]:
    """Return labels (N,) with round(share x N) changed to another class, and which (n,)."""
    count = round(share * len(labels))
    chosen = random_draw(len(labels), count, ("flip", *seed)).to(labels.device)
    random = gpu.generator("cpu", "flip to", *seed)
    steps = torch.randint(1, classes, (count,), generator=random).to(labels.device)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + steps) % classes
    return noisy, chosen


# ---------------------------------------------------------------- index files


def pack_index(index: Tensor, images: int) -> str:
    """Return indices as text: one bit per sample of `images`, in base64 (fits a JSON record)."""
    bits = np.zeros(images, dtype=bool)
    bits[index.cpu().numpy()] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_index(text: str, images: int) -> Tensor:
    """Return the sorted indices that `pack_index` packed."""
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(packed, count=images).astype(bool)).nonzero().flatten()


@dataclass(frozen=True)
class IndexFile:
    """Sets of training samples, one per round, and their origin.

    `sets` are positions in the training split of the data set that they are used with.
    """

    sets: Sequence[Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_index(path: Path, file: IndexFile, data: DataSet) -> None:
    """Write sets as official positions, with the data set's name and hash."""
    official = {
        f"set.{number:03d}": data.train_index.cpu()[index.cpu()].sort().values.to(torch.int32)
        for number, index in enumerate(file.sets)
    }
    header = {
        "format": FORMAT,
        "data": data.name,
        "data_sha256": data.sha256,
        "digest": _digest(official),
        "facts": dict(file.facts),
    }
    write_safetensors(path, official, header)


def load_index(path: Path, data: DataSet) -> IndexFile:
    """Read sets for use with `data`.

    InputError in one line for a damaged file, another format or data set, or a sample outside the
    training split (so that no validation image can enter).
    """
    official, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: format {header.get('format')!r}, allowed is {FORMAT}")
    if header["data_sha256"] != data.sha256:
        raise InputError(
            f"{path}: made from {header['data']} with SHA-256 {header['data_sha256'][:12]}, "
            f"allowed is {data.name} with {data.sha256[:12]}"
        )
    if header["digest"] != _digest(official):
        raise InputError(f"{path}: the sets do not match their SHA-256, the file was changed")
    place = {int(image): i for i, image in enumerate(data.train_index.tolist())}
    sets = []
    for name in sorted(official):
        images = official[name].tolist()
        if foreign := [image for image in images if image not in place]:
            raise InputError(f"{path}: {name}: image {foreign[0]} is not in the training split")
        sets.append(torch.tensor(sorted(place[i] for i in images), dtype=torch.int64))
    return IndexFile(sets, header["facts"])


def _digest(sets: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(sets):
        sha.update(name.encode() + sets[name].numpy().tobytes())
    return sha.hexdigest()
