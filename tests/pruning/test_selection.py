"""Exact selection of the highest scores: against a stable sort, for all types, ties and sizes."""

import numpy as np
import pytest
import torch
from conftest import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ticketlab.pruning import selection
from ticketlab.pruning.masks import keep_top
from ticketlab.pruning.selection import _ordered_keys, kth_key, kth_largest, select, top_k

INF = float("inf")
FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, INF, -INF, 1e-45, -1e-45, 3.4e38, 1.0000001])
ANY = st.floats(width=32, allow_nan=False)
SCORES = st.one_of(st.lists(FEW, max_size=60), st.lists(ANY, max_size=60))

steady = settings(deadline=None, max_examples=60)  # no deadline: a busy machine is no failure


def brute_force(scores: Tensor, k: int) -> list[int]:
    """The k best by a stable sort: highest first, of equal ones the lower index first."""
    values = scores.double().tolist()
    return sorted(sorted(range(len(values)), key=lambda i: -values[i])[:k])


def kept(keep: Tensor) -> list[int]:
    return keep.flatten().nonzero().flatten().tolist()


@steady
@given(SCORES, st.data())
def test_exactly_the_k_best_are_kept_and_ties_go_to_the_lower_index(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    found = top_k(scores, k)
    assert found.dtype == torch.bool and found.shape == scores.shape
    assert kept(found) == brute_force(scores, k)
    if 0 < k < len(values):  # what other devices than the CPU do
        keys = _ordered_keys(scores)
        threshold = kth_key([keys], k, [torch.ones_like(keys, dtype=torch.bool)])
        assert int((keys > threshold).sum()) < k <= int((keys >= threshold).sum())
        assert torch.equal(keys >= threshold, scores >= kth_largest([scores], k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@steady
@given(st.integers(0, 300), st.integers(0, 2**31))
def test_every_float_type_is_selected_exactly(dtype: torch.dtype, k: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(300, generator=random, dtype=torch.float64).to(dtype)
    assert kept(top_k(scores, k)) == brute_force(scores, k)


def test_float64_scores_are_not_rounded_before_they_are_compared() -> None:
    values = [1.0, 1.0 + 1e-12, 1.0 - 1e-12, 1e-300, 0.0, -1e-300]
    scores = torch.tensor(values, dtype=torch.float64)
    assert [kept(top_k(scores, k)) for k in range(1, 6)] == [
        [1], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]
    ]  # fmt: skip


def test_negative_zero_equals_zero() -> None:
    scores = torch.tensor([-0.0, 0.0, -0.0, 0.0])
    assert kept(top_k(scores, 1)) == [0] and kept(top_k(scores, 3)) == [0, 1, 2]
    assert kept(top_k(torch.tensor([-1e-45, -0.0, 1e-45, 0.0]), 2)) == [1, 2]


@pytest.mark.parametrize("value", [0.0, -3.5, INF, -INF])
@pytest.mark.parametrize("k", [0, 1, 70_000, 199_999, 200_000])
def test_scores_that_are_all_equal_keep_the_first_k(value: float, k: int) -> None:
    assert kept(top_k(torch.full((200_000,), value), k)) == list(range(k))


@pytest.mark.parametrize("spread", [1e-8, 1.0, 1e8])
def test_a_million_scores_agree_with_a_stable_sort(spread: float) -> None:
    random = torch.Generator().manual_seed(0)
    scores = (torch.randn(1_000_003, generator=random) * spread).round(decimals=3)
    order = torch.sort(scores, descending=True, stable=True).indices
    for k in (1, 250_000, 999_999):
        expected = torch.zeros_like(scores, dtype=torch.bool)
        expected[order[:k]] = True
        assert torch.equal(top_k(scores, k), expected)


def test_scores_that_are_views_are_read_in_their_own_order() -> None:
    scores = torch.arange(12.0).view(3, 4).t()  # not contiguous: rows 0 4 8, 1 5 9, ...
    mask = keep_top({"w": scores}, 3)
    assert mask["w"].shape == (4, 3) and kept(mask["w"]) == [5, 8, 11]
    strided = torch.arange(10.0)[::2]
    assert kept(top_k(strided, 2)) == [3, 4]


@steady
@given(SCORES, st.data())
def test_fewer_kept_weights_are_a_subset_of_more(values: list[float], data: st.DataObject) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    more = data.draw(st.integers(0, len(values)))
    fewer = data.draw(st.integers(0, more))
    assert not (top_k(scores, fewer) & ~top_k(scores, more)).any()


def test_nan_is_refused(one_line: Message) -> None:
    for k in (0, 1, 2):
        message = one_line(lambda k=k: top_k(torch.tensor([1.0, float("nan")]), k))  # type: ignore[misc]
        assert message == "scores: NaN found, allowed are numbers and infinities"


def test_selection_leaves_the_scores_as_they_were() -> None:
    scores = torch.tensor([-0.0, 2.0, -1.0])
    before = scores.view(torch.int32).clone()
    top_k(scores, 2)
    assert torch.equal(scores.view(torch.int32), before)


# --- several parts, and only some entries


@steady
@given(st.lists(SCORES, min_size=1, max_size=4), st.integers(0, 2**31), st.data())
def test_parts_are_selected_from_as_one_vector(
    values: list[list[float]], seed: int, data: st.DataObject
) -> None:
    random = torch.Generator().manual_seed(seed)
    parts = [torch.tensor(part, dtype=torch.float32).view(1, -1) for part in values]
    among = [torch.rand(part.shape, generator=random) < 0.7 for part in parts]
    flat, inside = (torch.cat(each, 1)[0] for each in (parts, among))
    candidates = kept(inside)
    k = data.draw(st.integers(0, len(candidates)))
    found = select(parts, k, among)
    assert [part.shape for part in found] == [part.shape for part in parts]
    best = [candidates[place] for place in brute_force(flat[inside], k)]
    assert kept(torch.cat(found, 1)[0]) == best


def test_parts_of_two_types_are_compared_in_the_wider_one() -> None:
    parts = [torch.tensor([1.0, 1.0 + 2**-20]), torch.tensor([1.0 + 2**-30], dtype=torch.float64)]
    among = [torch.ones_like(part, dtype=torch.bool) for part in parts]
    assert [part.tolist() for part in select(parts, 2, among)] == [[False, True], [True]]


def test_nan_that_cannot_be_chosen_does_not_matter(one_line: Message) -> None:
    scores, inside = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True])
    assert kept(select([scores], 1, [inside])[0]) == [2]
    assert one_line(lambda: select([scores], 1, [~inside])).startswith("scores: NaN found")


# --- many scores, of which a sample brackets the k-th

MANY = 5 * selection.CHUNK + 1


@pytest.mark.parametrize("k", [1, 2, 700, MANY // 3, MANY // 2, MANY - 3, MANY])
@pytest.mark.parametrize("decimals", [1, 7])
def test_a_bracketed_value_is_the_sorted_one(k: int, decimals: int) -> None:
    random = torch.Generator().manual_seed(k)
    scores = torch.randn(MANY, generator=random).round(decimals=decimals)
    parts = list(scores.split([1000, 0, MANY - 1000]))
    assert kth_largest(parts, k) == float(scores.sort(descending=True).values[k - 1])
    among = torch.rand(MANY, generator=random) < 0.3
    left = scores[among].sort(descending=True).values
    rank = min(k, len(left))
    marks = list(among.split([1000, 0, MANY - 1000]))
    assert kth_largest(parts, rank, marks) == float(left[rank - 1])


def test_a_sample_that_is_not_fair_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.rand(MANY, generator=torch.Generator().manual_seed(0))
    scores[:: selection.EVERY] += 10
    k = MANY // 2
    low, high = selection._bracket([scores.numpy()], None, k)
    expected = float(scores.sort(descending=True).values[k - 1])
    assert not low <= expected <= high
    assert kth_largest([scores], k) == expected


def test_a_fair_sample_leaves_little_to_partition() -> None:
    scores = torch.rand(MANY, generator=torch.Generator().manual_seed(0)).numpy()
    above, inside = selection._between([scores], None, *selection._bracket([scores], None, 10_000))
    assert above < 10_000 <= above + len(inside) and len(inside) < MANY // 50
    assert np.array_equal(np.sort(scores)[::-1][above : above + len(inside)], np.sort(inside)[::-1])


def test_whole_numbers_beyond_float32_are_told_apart() -> None:
    assert top_k(torch.tensor([2**24, 2**24 + 1]), 1).tolist() == [False, True]
