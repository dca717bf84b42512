"""PrAC's parts: forgetting, the critical set, early stopping, schedules, the loop, the ledger."""

from math import ceil
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from ticketlab.data.sets import Augment, DataSet, Images
from ticketlab.gpu import Runtime
from ticketlab.models import ModelSpec, build, prunable
from ticketlab.papers.prac import algorithm
from ticketlab.papers.prac.subsets import NEVER, OUTSIDE, Correctness, forgetting_events
from ticketlab.pruning.masks import Mask, after_pruning, ones
from ticketlab.spec import InputError
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run
from ticketlab.training.recipe import Recipe, Step

PAPER = Recipe(length="182ep", milestones=("91ep", "136ep"))
SETS = [45_000, 29_703, 24_667, 21_959, 19_816, 18_112, 16_751]  # a run of the authors' code
EPOCHS = [96, 65, 50, 29, 23, 19, 19]


def bits(*rows: str) -> Tensor:
    return torch.tensor([[int(bit) for bit in row] for row in rows], dtype=torch.int8)


def tiny(samples: int = 40) -> tuple[Net, DataSet]:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (samples, 1, 8, 8), generator=random, dtype=torch.uint8)
    images = Images(x, torch.arange(samples) % 4)
    data = DataSet("tiny", 4, images, images, images, torch.tensor([0.5]), torch.tensor([0.3]),
                   Augment(), "0" * 64, *(torch.arange(samples) for _ in range(3)))  # fmt: skip
    net = build(ModelSpec(name="mlp", width=16, depth=2), (1, 8, 8), 4, 0)
    return Net(net, Runtime(device="cpu")), data


# Forgetting


def test_forgetting_events_of_bit_strings() -> None:
    record = bits("0011", "0101", "1101", "0000", "1010", "1111")
    assert forgetting_events(record).tolist() == [0, 1, 1, NEVER, 2, 0]


def test_a_sample_outside_the_set_has_no_count() -> None:
    record = torch.cat([bits("010"), torch.full((1, 3), -1, dtype=torch.int8)])
    assert forgetting_events(record).tolist() == [1, OUTSIDE]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("01", min_size=5, max_size=5), min_size=1, max_size=8))
def test_forgetting_equals_counting_10_in_the_string(rows: list[str]) -> None:
    expected = [row.count("10") if "1" in row else NEVER for row in rows]
    assert forgetting_events(bits(*rows)).tolist() == expected


class ByHand(Observer):
    """What each batch's samples were classified as, by host reads."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], bool] = {}

    def before_step(self, run: Run) -> None:
        hits = run.logits.argmax(1) == run.labels
        for image, hit in zip(run.index.tolist(), hits.tolist(), strict=True):
            self.seen[image, run.epoch] = hit


def test_the_record_has_every_pass_before_the_update_at_its_place() -> None:
    net, data = tiny()
    subset = torch.arange(3, 40, 2)
    watch, by_hand = Correctness(subset, 40), ByHand()
    recipe = Recipe(batch=8, length="4ep", lr=0.05)
    train(net, data.train.select(subset), data, recipe, seed=(0,), observers=[watch, by_hand])
    assert watch.record.shape == (40, 4)
    for (image, epoch), hit in by_hand.seen.items():
        assert watch.record[subset[image], epoch] == hit
    outside = torch.ones(40, dtype=torch.bool).index_fill(0, subset, False)
    assert (watch.record[outside] == -1).all() and (watch.record[subset] >= 0).all()


def test_an_epoch_cut_short_adds_no_forgetting_to_unseen_samples() -> None:
    net, data = tiny()
    watch = Correctness(torch.arange(40), 40)
    recipe = Recipe(batch=8, length="2ep", lr=0.05)
    train(net, data.train, data, recipe, seed=(0,), observers=[watch], until=Step(6, "it"))
    changed = (watch.record[:, 0] != watch.record[:, 1]).sum()
    assert watch.record.shape == (40, 2) and (watch.record >= 0).all() and changed <= 8


# The critical set


def test_cet_has_forgotten_and_never_learned_samples_of_the_set() -> None:
    events = torch.tensor([0, 1, 3, NEVER, OUTSIDE])
    assert algorithm.hard_to_memorise(events).tolist() == [1, 2, 3]
    assert algorithm.hard_to_memorise(events, 2).tolist() == [2, 3]
    assert algorithm.hard_to_memorise(torch.zeros(4, dtype=torch.int64)).tolist() == []


def test_cep_is_where_the_nets_differ_and_the_dense_round_has_none() -> None:
    dense, sparse = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 2, 1])
    found = algorithm.critical_set(bits("01", "01", "10", "11"), 0, dense, sparse)
    assert (found.cep.tolist(), found.cet.tolist()) == ([1, 3], [2])
    assert found.union.tolist() == [1, 2, 3] and found.overlap == 0
    first = algorithm.critical_set(bits("01", "10"), 0, None, sparse[:2])
    assert first.overlap is None and first.union.tolist() == first.cet.tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_relations_of_the_sets(seed: int, threshold: int) -> None:
    random = torch.Generator().manual_seed(seed)
    record = torch.randint(0, 2, (60, 6), generator=random, dtype=torch.int8)
    trained_on = torch.rand(60, generator=random) < 0.6
    record[~trained_on] = -1
    dense, sparse = torch.randint(0, 3, (2, 60), generator=random)
    found = algorithm.critical_set(record, threshold, dense, sparse)
    inside = set(trained_on.nonzero().flatten().tolist())
    cet, cep, union = (set(part.tolist()) for part in (found.cet, found.cep, found.union))
    assert cet <= inside and set(found.never.tolist()) <= cet
    assert union == cet | cep and union <= set(range(60))
    stricter = algorithm.critical_set(record, threshold + 1, dense, sparse)
    assert set(stricter.cet.tolist()) <= cet
    assert found.overlap == (len(cet & cep) / len(cep) if cep else None)
    assert found.choose("all", 60).tolist() == list(range(60))
    assert found.choose("cep", 60).tolist() == sorted(cep)


# Early stopping


def test_mask_distance_of_equal_and_of_disjoint_prunings() -> None:
    keep = torch.ones(100, dtype=torch.bool)
    first, second = keep.clone(), keep.clone()
    first[:20], second[20:40] = False, False
    a, b = Mask({"w": first}), Mask({"w": second})
    assert algorithm.mask_distance(a, a, 100) == 0
    assert algorithm.mask_distance(a, b, 100) == pytest.approx(2 * 0.2)


STOP = algorithm.Stop(epsilon=0.08, window=5)


def end_of_the_authors(
    distances: list[float], epsilon: float, window: int, warmup: int
) -> int | None:
    """The epoch (from 0) that ends a round in the authors' loop, with its variables; None: none.

    `distances[i]` is the mask distance after epoch i + 1; there is none after epoch 0.
    """
    queue, recording = [1.0] * window, False
    for epoch in range(1, len(distances) + 1):
        distance = distances[epoch - 1]
        recording = recording or distance > epsilon
        if epoch > warmup and recording:
            queue = [*queue[1:], distance]
        if max(queue) < epsilon:
            return epoch
    return None


def end_of_ours(distances: list[float], stop: algorithm.Stop, warmup: int) -> int | None:
    """The epoch (from 0) that ends a round, from distances seen one after another."""
    ends = (
        epoch
        for epoch in range(1, len(distances) + 1)
        if algorithm.is_settled(distances[:epoch], stop, min(warmup, epoch))
    )
    return next(ends, None)


@pytest.mark.parametrize("warmup", [0, 3, 15])
def test_rounds_end_where_the_authors_end_them(warmup: int) -> None:
    random = Random(warmup)
    ends = []
    for _ in range(20_000):
        high = random.choice([0.09, 0.15, 0.3])  # few, some and many distances above epsilon
        distances = [random.uniform(0, high) for _ in range(random.randrange(30))]
        quiet = [random.uniform(0, 0.085) for _ in range(random.randrange(15))]
        ends.append(end_of_the_authors(distances + quiet, 0.08, 5, warmup))
        assert end_of_ours(distances + quiet, STOP, warmup) == ends[-1], distances + quiet
    assert 2_000 < ends.count(None) < 18_000 and len(set(ends)) > 20  # both ways, at many epochs


def test_a_distance_in_warm_up_arms_and_is_not_counted() -> None:
    """The example of the fault: armed by the second distance, which lies in warm-up."""
    distances = [0.065, 0.124, 0.029, 0.027, 0.03, 0.02, 0.03, 0.02, 0.02]
    assert end_of_the_authors(distances, 0.08, 5, 3) == end_of_ours(distances, STOP, 3) == 8
    assert end_of_ours(distances, STOP, 0) == 7


def test_the_earliest_stop_and_arming_that_never_happens() -> None:
    quiet = [0.01] * 20
    assert algorithm.is_settled([0.1, *quiet[:5]], STOP) and not algorithm.is_settled(
        [0.1, 0.01], STOP
    )
    assert not algorithm.is_settled(quiet, STOP)
    patient = algorithm.Stop(epsilon=0.08, window=5, arm_after=4)
    assert not algorithm.is_settled(quiet[:8], patient) and algorithm.is_settled(quiet[:9], patient)


def watched(
    stop: algorithm.Stop | None, earliest: int = 0, **recipe: Any
) -> tuple[Run, algorithm.MaskWatch]:
    net, data = tiny()
    mask = ones(net.model, prunable(net.model, "hidden"))
    watch = algorithm.MaskWatch(mask, 0.2, stop, earliest)
    settled = Recipe(**{"batch": 8, "length": "12ep", "lr": 1e-6, **recipe})
    history = train(net, data.train, data, settled, seed=(0,), mask=mask, observers=[watch])
    return Run(net, settled, 5, 60, history=history), watch


def test_a_round_ends_when_its_mask_stands_still_but_not_before_the_floor() -> None:
    eager = algorithm.Stop(epsilon=0.5, window=2, arm_after=0)
    run, watch = watched(eager)
    assert watch.stopped and len(run.history) == 3 and len(watch.distances) == 2
    run, watch = watched(eager, earliest=33)
    assert watch.stopped and len(run.history) == 7
    run, watch = watched(eager, warmup="4ep")  # the first epochs to count are those 5 and 6
    assert watch.stopped and len(run.history) == 7
    run, watch = watched(None)
    assert not watch.stopped and len(watch.distances) == 11 and watch.distances[-1] == 0


def test_a_round_armed_in_warm_up_ends_a_window_after_it() -> None:
    """The net moves in warm-up alone: its rate is practically zero from there on."""
    still = {"warmup": "3ep", "milestones": ("3ep",), "decay": 1e-12}
    run, watch = watched(algorithm.Stop(epsilon=1e-6, window=2), lr=0.5, **still)
    assert min(watch.distances[:2]) > 0 == max(watch.distances[2:])
    assert watch.stopped and len(run.history) == 6  # epochs 4 and 5, counted from 0
    run, watch = watched(algorithm.Stop(epsilon=0.5, window=2), lr=0.5, **still)
    assert not watch.stopped and len(run.history) == 12


# Schedules


def test_the_schedule_of_the_papers_first_reduced_set() -> None:
    short = algorithm.shortened(PAPER, 45_000, 29_703, "epochs")
    assert str(short.length) == "120ep" and [str(m) for m in short.milestones] == ["60ep", "89ep"]
    linear = algorithm.shortened(PAPER, 45_000, 29_703, "iterations")
    assert linear.length == Step(182 * 352 * 29_703 // 45_000, "it")
    assert algorithm.shortened(PAPER, 45_000, 29_703, "none") == PAPER


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.sampled_from(["epochs", "iterations", "none"]), st.integers(0, 300))
def test_a_shortened_schedule_is_never_empty(subset: int, rule: Any, least: int) -> None:
    recipe = Recipe(batch=64, length="16ep", milestones=("8ep", "75%"), warmup="1ep")
    short = algorithm.shortened(recipe, 5000, subset, rule, least)
    per_epoch, full = ceil(subset / 64), 16 * 79
    total = short.length.iterations(per_epoch)
    assert max(per_epoch, least) <= total <= max(full, per_epoch, least)
    assert all(1 <= m.iterations(per_epoch, total) <= total for m in short.milestones)
    if rule == "epochs" and total > max(per_epoch, least):
        assert total <= (subset / 5000) * 16 * per_epoch


def test_a_given_number_of_iterations_keeps_the_shape() -> None:
    recipe = Recipe(length="10ep", milestones=("5ep", "75%"), warmup="1ep")
    short = algorithm.of_length(recipe, 20, 50)
    assert [str(s) for s in (short.length, *short.milestones, short.warmup)] == [
        "50it", "25it", "75%", "5it"]  # fmt: skip


# The loop and the ledger


def fake_search(chosen: list[list[int]]) -> list[algorithm.Round]:
    """A search whose round k finds the set `chosen[k]`; weights are their own index."""
    weights = {"w": torch.arange(100, dtype=torch.float32)}
    none = torch.empty(0, dtype=torch.int64)

    def train_round(index: int, mask: Mask, images: Tensor) -> algorithm.Outcome:
        found = algorithm.CriticalSet(torch.tensor(chosen[index], dtype=torch.int64), none, none)
        return algorithm.Outcome(weights, found)

    mask = Mask({"w": torch.ones(100, dtype=torch.bool)})
    return list(algorithm.find_tickets(
        train_round, lambda _, outcome: outcome.found.union, mask, torch.arange(10), rate=0.2,
        rounds=range(len(chosen)),
    ))  # fmt: skip


def test_masks_and_sets_are_handed_on_and_the_last_ones_are_kept() -> None:
    rounds = fake_search([[1, 2, 3], [2, 3], [5]])
    assert [len(turn.images) for turn in rounds] == [10, 3, 2]
    assert [turn.chosen.tolist() for turn in rounds] == [[1, 2, 3], [2, 3], [5]]
    alive = 100
    for turn in rounds:
        assert turn.before.alive == alive and turn.before.contains(turn.mask)
        alive = after_pruning(alive, 0.2)
        assert turn.mask.alive == alive
    assert not rounds[-1].mask["w"][:48].any()  # the smallest went


def test_a_round_that_finds_nothing_keeps_its_set() -> None:
    rounds = fake_search([[1, 2], [], [4]])
    assert [turn.kept_set for turn in rounds] == [False, True, False]
    assert rounds[2].images.tolist() == [1, 2]


def test_the_saving_formula_gives_the_published_ledger() -> None:
    spent = [algorithm.round_iterations(n, e, 128) for n, e in zip(SETS, EPOCHS, strict=True)]
    full = algorithm.round_iterations(45_000, 182, 128)
    assert (full, 7 * full, sum(spent)) == (64_064, 448_448, 72_327)
    assert round(100 * algorithm.saving(spent, full), 1) == 83.9


def test_eight_rounds_leave_the_papers_remaining_fraction() -> None:
    alive = 10**9
    for _ in range(8):
        alive = after_pruning(alive, 0.2)
    assert alive / 10**9 == pytest.approx(0.16777, abs=5e-6)


# Bad input


def test_bad_numbers_are_refused() -> None:
    for bad in ({"epsilon": 0.0}, {"epsilon": -1.0}, {"window": 0}, {"arm_after": -1}):
        with pytest.raises(ValidationError):
            algorithm.Stop.model_validate(bad)
    with pytest.raises(InputError, match="subset: 0 samples, allowed: 1 to 10"):
        algorithm.shortened(PAPER, 10, 0, "epochs")
    with pytest.raises(InputError, match="counts iterations"):
        algorithm.shortened(Recipe(length="100it"), 10, 5, "epochs")
