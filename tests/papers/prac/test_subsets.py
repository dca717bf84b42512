"""Scores, selections and index files of training subsets."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketlab.data.sets import Augment, DataSet, Images
from ticketlab.files import read_safetensors, write_safetensors
from ticketlab.gpu import Runtime
from ticketlab.models import ModelSpec, build
from ticketlab.papers.prac import subsets as sets
from ticketlab.spec import InputError
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run
from ticketlab.training.recipe import Recipe


def tiny(samples: int = 30, **changes: Any) -> DataSet:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (samples, 1, 8, 8), generator=random, dtype=torch.uint8)
    images = Images(x, torch.arange(samples) % 3)
    index = torch.arange(samples) * 2 + 1
    facts = {
        "name": "tiny", "classes": 3, "train": images, "validation": images, "test": images,
        "mean": torch.tensor([0.5]), "std": torch.tensor([0.3]), "augment": Augment(),
        "sha256": "a" * 64, "train_index": index, "validation_index": index + 1,
        "test_index": index,
    }  # fmt: skip
    return DataSet(**(facts | changes))


# Selections


def test_hardest_takes_exactly_the_highest_scores_ties_by_place() -> None:
    scores = torch.tensor([1.0, 5.0, 5.0, 0.0, 5.0])
    assert sets.hardest(scores, 2).tolist() == [1, 2]
    assert sets.hardest(scores, 4).tolist() == [0, 1, 2, 4]
    assert sets.hardest(scores, 0).tolist() == []


def test_a_random_draw_is_fixed_by_its_seed() -> None:
    first, again = (sets.random_draw(100, 30, (0, 1)) for _ in range(2))
    assert torch.equal(first, again) and len(first.unique()) == 30
    assert not torch.equal(first, sets.random_draw(100, 30, (0, 2)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 70), st.integers(1, 20))
def test_coverage_leaves_out_the_hardest_and_has_the_asked_number(
    seed: int, count: int, strata: int
) -> None:
    scores = torch.rand(100, generator=torch.Generator().manual_seed(seed)) ** 3
    chosen = sets.coverage(scores, count, 0.3, strata, (seed,))
    assert len(chosen) == len(chosen.unique()) == count
    assert not torch.isin(chosen, sets.hardest(scores, 30)).any()


def test_coverage_draws_evenly_from_wide_strata() -> None:
    scores = torch.cat([torch.zeros(90), torch.ones(10)])  # 90 easy samples, 10 hard ones
    chosen = sets.coverage(scores, 20, 0.0, 2, (0,))
    assert (chosen >= 90).sum() == 10  # at random it would be 2


def test_flipped_labels_are_another_class_and_as_many_as_asked() -> None:
    labels = torch.arange(200) % 5
    noisy, flipped = sets.flip_labels(labels, 0.1, 5, (0,))
    assert (noisy != labels).nonzero().flatten().tolist() == flipped.tolist() and len(flipped) == 20
    assert noisy.min() >= 0 and noisy.max() <= 4
    assert torch.equal(sets.flip_labels(labels, 0.0, 5, (0,))[0], labels)


def test_too_many_samples_are_one_clear_line() -> None:
    with pytest.raises(InputError, match="subset: 6 samples asked for, allowed: 0 to 5"):
        sets.hardest(torch.zeros(5), 6)
    with pytest.raises(InputError, match="allowed: 0 to 7"):
        sets.coverage(torch.rand(10), 8, 0.3, 2, (0,))


# Scores


class ByHand(Observer):
    """Margins and error norms of each sample, a list each, computed one by one."""

    def __init__(self) -> None:
        self.margins: dict[int, list[float]] = {}
        self.own: dict[int, list[float]] = {}
        self.errors: dict[int, list[float]] = {}

    def before_step(self, run: Run) -> None:
        for image, label, logits in zip(run.index.tolist(), run.labels, run.logits, strict=True):
            others = torch.cat([logits[:label], logits[label + 1 :]])
            self.margins.setdefault(image, []).append(float(logits[label] - others.max()))
            error = logits.softmax(0)
            self.own.setdefault(image, []).append(float(error[label]))
            error[label] -= 1
            self.errors.setdefault(image, []).append(float(error.norm()))


def test_dual_is_uncertainty_times_difficulty_in_windows() -> None:
    """Three samples: learned late, never sure nor unsure, and as unsure as the first but easier."""
    seen = torch.tensor([[0.2, 0.5, 0.6], [0.6, 0.5, 1.0], [1.0, 0.5, 0.6]])
    spread = 0.4 / 2**0.5  # of two values that are .4 apart
    windows = [0.6 * spread, 0.2 * spread], [0.2 * spread, 0.2 * spread]
    first, last = (sum(pair) / 2 for pair in windows)
    assert sets.dual(seen, 2).tolist() == pytest.approx([first, 0.0, last])
    assert sets.dual(seen, 10)[0] == pytest.approx(0.4 * 0.4)  # one window: mean .6, deviation .4
    assert sets.dual(seen[:1], 10).tolist() == [0.0, 0.0, 0.0]


def test_aum_el2n_and_dual_are_of_the_passes_before_updates() -> None:
    data = tiny()
    net = Net(
        build(ModelSpec(name="mlp", width=8, depth=1), (1, 8, 8), 3, 0), Runtime(device="cpu")
    )
    watch, by_hand = sets.Difficulty(30, el2n_epochs=2), ByHand()
    recipe = Recipe(batch=7, length="4ep", lr=0.05)
    train(net, data.train, data, recipe, seed=(0,), observers=[watch, by_hand])
    found = watch.scores()
    for image in range(30):
        margins, errors = by_hand.margins[image], by_hand.errors[image]
        assert found["aum"][image] == pytest.approx(-sum(margins) / 4, abs=1e-5)
        assert found["el2n"][image] == pytest.approx(sum(errors[:2]) / 2, abs=1e-5)
        mean, deviation = fmean(by_hand.own[image]), stdev(by_hand.own[image])
        assert found["dual"][image] == pytest.approx((1 - mean) * deviation, abs=1e-5)


# Index files


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 76)))
def test_indices_survive_packing(chosen: set[int]) -> None:
    index = torch.tensor(sorted(chosen), dtype=torch.int64)
    assert torch.equal(sets.unpack_index(sets.pack_index(index, 77), 77), index)


def saved(folder: Path, data: DataSet) -> Path:
    file = sets.IndexFile([torch.tensor([0, 4, 29]), torch.tensor([2])], {"arm": "prac"})
    sets.save_index(folder / "sets.safetensors", file, data)
    return folder / "sets.safetensors"


def test_an_index_file_comes_back_also_in_another_order_of_the_split(tmp_path: Path) -> None:
    data = tiny()
    path = saved(tmp_path, data)
    found = sets.load_index(path, data)
    assert [index.tolist() for index in found.sets] == [[0, 4, 29], [2]]
    assert found.facts == {"arm": "prac"}
    turned = tiny(train_index=data.train_index.flip(0))
    assert [i.tolist() for i in sets.load_index(path, turned).sets] == [[0, 25, 29], [27]]
    first = path.read_bytes()
    assert saved(tmp_path, data).read_bytes() == first


def test_an_index_file_of_other_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny())
    with pytest.raises(InputError, match=r"made from tiny with SHA-256 a{12}, allowed is other"):
        sets.load_index(path, tiny(sha256="b" * 64, name="other"))


def test_an_image_that_is_held_out_here_is_refused(tmp_path: Path) -> None:
    data = tiny()
    path = saved(tmp_path, data)
    with pytest.raises(InputError, match="image 1 is not in the training split"):
        sets.load_index(path, tiny(train_index=data.train_index + 1))


def test_a_changed_or_foreign_index_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny())
    tensors, header = read_safetensors(path)
    write_safetensors(path, tensors | {"set.000": tensors["set.001"].clone()}, header)
    with pytest.raises(InputError, match="was changed"):
        sets.load_index(path, tiny())
    write_safetensors(path, tensors, header | {"format": 2})
    with pytest.raises(InputError, match="format 2, allowed is 1"):
        sets.load_index(path, tiny())
    with pytest.raises(InputError, match="no such file"):
        sets.load_index(tmp_path / "nowhere", tiny())
