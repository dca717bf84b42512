"""Masks: exact selection for any scores, set algebra against numpy, packing, one-line refusals."""

from collections.abc import Callable
from math import ceil

import numpy as np
import pytest
import torch
from conftest import Message, small_net
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ticketlab.pruning import masks
from ticketlab.pruning.masks import (
    Mask,
    keep_top,
    keep_top_layerwise,
    prune,
)

INF = float("inf")
BITS = st.lists(st.booleans(), min_size=1, max_size=40)

steady = settings(deadline=None, max_examples=60)  # no deadline: a busy machine is no failure


def kept(keep: Tensor) -> list[int]:
    return keep.flatten().nonzero().flatten().tolist()


def bits(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def random_mask(seed: int, density: float = 0.5) -> Mask:
    """Layers whose order is not the alphabet's, one of them with four dimensions."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"z": (3, 2, 3, 3), "a": (7,), "m": (4, 5)}
    return Mask({n: torch.rand(s, generator=random) < density for n, s in shapes.items()})


# --- global and layer-wise pruning


@steady
@given(st.integers(0, 2**31), st.floats(0, 1), st.data())
def test_global_pruning_keeps_the_best_candidates_of_all_layers_together(
    seed: int, density: float, data: st.DataObject
) -> None:
    within = random_mask(seed, density)
    random = torch.Generator().manual_seed(seed + 1)
    scores = {n: torch.randn(m.shape, generator=random).round() for n, m in within.items()}
    keep = data.draw(st.integers(0, within.alive))
    found = keep_top(scores, keep, within)
    flat = torch.cat([scores[name].flatten() for name in within]).double()
    candidates = [i for i, inside in enumerate(within.flat().tolist()) if inside]
    best = sorted(candidates, key=lambda i: -flat[i])[:keep]  # stable: ties by layer, then index
    assert kept(found.flat()) == sorted(best)
    assert within.contains(found) and found.alive == keep
    assert {n: k.shape for n, k in found.items()} == {n: k.shape for n, k in within.items()}


def test_a_removed_weight_stays_removed_whatever_its_score() -> None:
    within = Mask({"w": bits(0, 1, 1, 0)})
    assert kept(keep_top({"w": torch.tensor([INF, -1.0, -INF, 9.0])}, 1, within)["w"]) == [1]
    assert kept(keep_top({"w": torch.tensor([INF, -1.0, -INF, 9.0])}, 2, within)["w"]) == [1, 2]


def test_global_ties_go_to_the_earlier_layer_in_the_masks_order() -> None:
    scores = {"b": torch.ones(3), "a": torch.ones(3)}
    assert keep_top(scores, 4)["b"].all() and kept(keep_top(scores, 4)["a"]) == [0]
    within = Mask({"a": bits(1, 1, 1), "b": bits(1, 1, 1)})
    assert keep_top(scores, 4, within)["a"].all()


def test_global_pruning_may_empty_a_layer_and_layerwise_may_not() -> None:
    scores = {"low": torch.rand(10), "high": 5 + torch.rand(10)}
    dense = Mask({name: torch.ones(10, dtype=torch.bool) for name in scores})
    globally, by_layer = prune(scores, dense, 0.5), prune(scores, dense, 0.5, layerwise=True)
    assert globally.densities() == {"low": 0.0, "high": 1.0} and globally.collapsed() == ["low"]
    assert by_layer.densities() == {"low": 0.5, "high": 0.5} and by_layer.collapsed() == []


@steady
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_layerwise_pruning_takes_the_same_share_of_each_layer(seed: int, rate: float) -> None:
    mask = random_mask(seed)
    random = torch.Generator().manual_seed(seed)
    scores = {n: torch.randn(m.shape, generator=random) for n, m in mask.items()}
    found = prune(scores, mask, rate, layerwise=True)
    for name, keep in mask.items():
        left = int(keep.sum()) - round(rate * int(keep.sum()))
        alone = keep_top({name: scores[name]}, left, Mask({name: keep}))
        assert torch.equal(found[name], alone[name])


def test_layerwise_counts_are_each_layers_own() -> None:
    scores = {"a": torch.tensor([1.0, 3.0, 2.0]), "b": torch.tensor([9.0, 8.0])}
    found = keep_top_layerwise(scores, {"a": 2, "b": 0})
    assert kept(found["a"]) == [1, 2] and kept(found["b"]) == []


@steady
@given(st.integers(0, 2**31), st.lists(st.floats(0, 0.9), max_size=6), st.booleans())
def test_repeated_pruning_is_nested_and_its_counts_add_up(
    seed: int, rates: list[float], layerwise: bool
) -> None:
    random, mask = torch.Generator().manual_seed(seed), random_mask(seed, 1.0)
    for rate in rates:
        scores = {n: torch.randn(m.shape, generator=random) for n, m in mask.items()}
        after = prune(scores, mask, rate, layerwise)
        assert mask.contains(after)
        if not layerwise:
            assert after.alive == mask.alive - round(rate * mask.alive)
        mask = after


@pytest.mark.parametrize(
    ("alive", "rate", "left"),
    [(100, 0.2, 80), (96, 0.2, 77), (1476, 0.4, 886), (7, 0.0, 7), (7, 1.0, 0), (0, 0.5, 0)],
)
def test_pruning_removes_the_rounded_share(alive: int, rate: float, left: int) -> None:
    assert masks.after_pruning(alive, rate) == left


def test_a_count_that_cannot_be_kept_is_refused(one_line: Message) -> None:
    scores, within = {"w": torch.rand(4)}, Mask({"w": bits(1, 0, 1, 0)})
    for keep, inside in ((-1, None), (5, None), (3, within)):
        left = 4 if inside is None else 2
        message = one_line(lambda keep=keep, inside=inside: keep_top(scores, keep, inside))  # type: ignore[misc]
        assert message == f"keep: {keep} is not between 0 and the {left} weights left"


# --- algebra and distances against numpy


@steady
@given(BITS, st.randoms(use_true_random=False))
def test_algebra_and_distances_equal_set_arithmetic(first: list[bool], random: object) -> None:
    second = [random.random() < 0.5 for _ in first]  # type: ignore[attr-defined]
    cut = len(first) // 2
    a, b = (Mask({"x": bits(*v[:cut]), "y": bits(*v[cut:])}) for v in (first, second))
    one = {i for i, keep in enumerate(first) if keep}
    two = {i for i, keep in enumerate(second) if keep}
    assert set(kept((a & b).flat())) == one & two
    assert set(kept((a | b).flat())) == one | two
    assert masks.hamming(a, b) == len(one ^ two) == masks.hamming(b, a)
    either, smaller = len(one | two), min(len(one), len(two))
    assert masks.jaccard(a, b) == (len(one & two) / either if either else 1.0)
    assert masks.overlap(a, b) == (len(one & two) / smaller if smaller else 1.0)
    assert a.contains(b) == (two <= one) and (a | b).contains(a) and a.contains(a & b)
    assert masks.jaccard(a, a) == masks.overlap(a, a) == 1.0 and masks.hamming(a, a) == 0
    assert (a.alive, a.total, a.density) == (len(one), len(first), len(one) / len(first))
    assert a.sparsity == pytest.approx(1 - a.density)


@steady
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_votes_run_from_union_to_intersection(seed: int, copies: int) -> None:
    several = [random_mask(seed + i) for i in range(copies)]
    counts = sum(mask.flat().int() for mask in several)
    assert isinstance(counts, Tensor)
    for votes in range(1, copies + 1):
        assert torch.equal(masks.at_least(several, votes).flat(), counts >= votes)
    assert masks.at_least(several, 1) == masks.union(several)
    assert masks.at_least(several, copies) == masks.intersection(several)


def test_votes_that_cannot_be_had_are_refused(one_line: Message) -> None:
    several = [random_mask(0), random_mask(1)]
    for votes in (0, 3, -1):
        message = one_line(lambda votes=votes: masks.at_least(several, votes))  # type: ignore[misc]
        assert message == f"votes: {votes} is not between 1 and the 2 masks"


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.2, 0.8), (0.05, 0.1), (1.0, 0.3)])
def test_chance_jaccard_is_what_random_masks_have(a: float, b: float) -> None:
    random = torch.Generator().manual_seed(0)
    one, two = (Mask({"w": torch.rand(400_000, generator=random) < d}) for d in (a, b))
    assert masks.jaccard(one, two) == pytest.approx(masks.chance_jaccard(a, b), abs=0.005)
    assert masks.chance_jaccard(0.0, 0.0) == 1.0 and masks.chance_jaccard(0.0, 0.3) == 0.0


# --- shuffling


@steady
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_a_shuffle_keeps_each_layers_count_and_shape(seed: int, density: float) -> None:
    mask = random_mask(seed, density)
    moved = masks.shuffle_layerwise(mask, torch.Generator().manual_seed(seed))
    assert list(moved) == list(mask) and moved.densities() == mask.densities()
    assert all(moved[name].shape == mask[name].shape for name in mask)


def test_a_shuffle_moves_weights_and_follows_its_generator() -> None:
    mask = Mask({"a": torch.arange(1000) < 200, "b": torch.arange(1000) < 200})

    def shuffled(seed: int) -> Mask:
        return masks.shuffle_layerwise(mask, torch.Generator().manual_seed(seed))

    assert shuffled(0) == shuffled(0) != shuffled(1)
    assert not torch.equal(shuffled(0)["a"], shuffled(0)["b"])  # each layer has its own draw
    assert masks.jaccard(mask, shuffled(0)) == pytest.approx(
        masks.chance_jaccard(0.2, 0.2), abs=0.05
    )


def test_a_shuffle_reaches_every_place_equally_often() -> None:
    mask, random = Mask({"w": bits(1, 0, 0, 0)}), torch.Generator().manual_seed(0)
    hits = sum(masks.shuffle_layerwise(mask, random)["w"].int() for _ in range(2000))
    assert isinstance(hits, Tensor) and (hits - 500).abs().max() < 100


# --- what a mask says of itself


def test_a_table_has_one_row_a_layer() -> None:
    mask = Mask({"b": bits(1, 0, 1, 1).view(2, 2), "a": bits(0, 0)})
    table = mask.table()
    assert table.columns.tolist() == ["layer", "weights", "kept", "density"]
    assert table.values.tolist() == [["b", 4, 3, 0.75], ["a", 2, 0, 0.0]]
    assert mask.densities() == {"b": 0.75, "a": 0.0} and mask.collapsed() == ["a"]
    assert repr(mask) == "Mask(2 layers, 3 of 6 weights kept)"


def test_masks_are_equal_when_names_order_shapes_and_bits_are() -> None:
    mask = Mask({"a": bits(1, 0), "b": bits(1, 1)})
    assert mask == Mask({"a": bits(1, 0), "b": bits(1, 1)}) and mask == mask.to("cpu")
    others = [
        {"a": bits(1, 1), "b": bits(1, 1)},
        {"a": bits(1, 0)},
        {"a": bits(1, 0), "c": bits(1, 1)},
        {"b": bits(1, 1), "a": bits(1, 0)},
        {"a": bits(1, 0).view(1, 2), "b": bits(1, 1)},
    ]
    assert all(mask != Mask(other) for other in others) and mask != "mask"
    digests = {Mask(other).digest() for other in others} | {mask.digest()}
    assert len(digests) == 6 and mask.digest() == Mask(dict(mask)).digest()


@steady
@given(BITS, st.data())
def test_a_digest_sees_every_bit(values: list[bool], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    other = [*values[:place], not values[place], *values[place + 1 :]]
    assert Mask({"w": bits(*values)}).digest() != Mask({"w": bits(*other)}).digest()


def test_a_digest_does_not_depend_on_the_memory_layout() -> None:
    keep = torch.arange(24).view(2, 3, 2, 2) % 5 == 0
    channels_last = keep.contiguous(memory_format=torch.channels_last)
    assert channels_last.stride() != keep.stride()
    assert Mask({"w": channels_last}).digest() == Mask({"w": keep}).digest()


def test_the_mask_a_model_starts_with_keeps_everything() -> None:
    model = small_net().model
    names = [name for name, _ in model.named_parameters() if "conv" in name]
    mask = masks.ones(model, names)
    assert list(mask) == names and mask.density == 1.0 and mask.sparsity == 0.0
    masks.check_fits(mask, model)


def test_operations_leave_their_masks_as_they_were() -> None:
    a, b = random_mask(0), random_mask(1)
    before = a.digest(), b.digest()
    scores = {name: torch.rand(keep.shape) for name, keep in a.items()}
    _ = a & b, a | b, prune(scores, a, 0.5), masks.at_least([a, b], 1)
    masks.shuffle_layerwise(a, torch.Generator())
    assert (a.digest(), b.digest()) == before


# --- refusals


def test_a_mask_is_made_of_bools(one_line: Message) -> None:
    message = one_line(lambda: Mask({"good": bits(1), "w": torch.ones(2)}))
    assert message == "mask layer 'w': dtype torch.float32, allowed is torch.bool"


@pytest.mark.parametrize(
    "action",
    [
        lambda a, b: a & b,
        lambda a, b: a | b,
        lambda a, b: a.contains(b),
        lambda a, b: masks.at_least([a, b], 1),
        masks.jaccard,
        masks.overlap,
        masks.hamming,
    ],
)
def test_masks_of_other_layers_are_refused_by_the_layers_name(
    action: Callable[[Mask, Mask], object], one_line: Message
) -> None:
    mask = Mask({"a": bits(1, 0), "b": bits(1, 1, 1)})
    fewer, longer = Mask({"a": bits(1, 0)}), Mask({"a": bits(1, 0), "b": bits(1, 1)})
    for pair in ((mask, fewer), (fewer, mask)):
        message = one_line(lambda pair=pair: action(*pair))  # type: ignore[misc]
        assert message == "mask layer 'b': only one of the two masks has it"
    message = one_line(lambda: action(mask, longer))
    assert message == "mask layer 'b': shape (3,), the weight has (2,)"


def test_a_mask_that_does_not_fit_a_model_is_refused_by_the_layers_name(one_line: Message) -> None:
    model = small_net().model
    name = "body.conv1.weight"
    shape = tuple(dict(model.named_parameters())[name].shape)
    good = torch.ones(shape, dtype=torch.bool)
    message = one_line(
        lambda: masks.check_fits(Mask({name: good, "body.conv9.weight": good}), model)
    )
    assert message.startswith("mask layer 'body.conv9.weight': no such weight") and name in message
    message = one_line(lambda: masks.check_fits(Mask({name: good[1:]}), model))
    assert (
        message
        == f"mask layer '{name}': shape {(shape[0] - 1, *shape[1:])}, the weight has {shape}"
    )


def test_scores_that_do_not_fit_the_mask_are_refused_by_the_layers_name(one_line: Message) -> None:
    within = Mask({"a": bits(1, 0)})
    assert "'a'" in one_line(lambda: keep_top({"b": torch.rand(2)}, 1, within))
    assert "'a'" in one_line(lambda: keep_top({"a": torch.rand(3)}, 1, within))


# --- packing


@steady
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_packing_and_unpacking_gives_the_mask_back(seed: int, density: float) -> None:
    mask = random_mask(seed, density)
    packed, shapes = masks.pack(mask)
    assert masks.unpack(packed, shapes) == mask
    assert masks.unpack(packed, shapes).digest() == mask.digest()


@steady
@given(BITS)
def test_a_layer_takes_an_eighth_of_a_byte_a_weight(values: list[bool]) -> None:
    packed, shapes = masks.pack(Mask({"w": bits(*values)}))
    assert packed["mask.w"].dtype == torch.uint8 and shapes == {"w": [len(values)]}
    assert packed["mask.w"].tolist() == np.packbits(values).tolist()
    assert packed["mask.w"].numel() == ceil(len(values) / 8)


@steady
@given(st.lists(st.integers(1, 4), max_size=4), st.integers(0, 2**31))
def test_any_shape_survives_packing(shape: list[int], seed: int) -> None:
    assume(np.prod(shape) < 200)
    random = torch.Generator().manual_seed(seed)
    mask = Mask({"w": torch.rand(shape, generator=random) < 0.5})
    assert masks.unpack(*masks.pack(mask)) == mask


def test_masks_are_compared_by_name_whatever_the_order_of_their_layers() -> None:
    x, y = torch.tensor([True, False]), torch.tensor([False, False])
    a, b = Mask({"x": x, "y": y}), Mask({"y": y, "x": x})
    assert (masks.jaccard(a, b), masks.overlap(a, b), masks.hamming(a, b)) == (1.0, 1.0, 0)
    assert a.contains(b) and b.contains(a)
