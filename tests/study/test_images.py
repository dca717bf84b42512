"""Differences over test images: by hand, and against what is known of their spread."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ticketlab.data.sets import DataSpec
from ticketlab.pruning.masks import Mask
from ticketlab.study import images
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import Outcome, Ticket


def right(*flags: int) -> images.Hits:
    return np.array(flags, dtype=bool)


def ticket(seed: int, answers: list[int], classes: int = 3) -> Ticket:
    """One whose net gives these answers."""
    logits = torch.nn.functional.one_hot(torch.tensor(answers), classes).float()
    return Ticket(Mask({"w": torch.ones(1).bool()}), None, {"seed": seed}, Outcome({}, logits))


def test_hits_are_read_from_the_logits_of_tickets_that_have_some() -> None:
    bare = Ticket(Mask({"w": torch.ones(1).bool()}), None, {"seed": 1})
    results = {
        "search/imp/seed-1": Result({}, {"round-01": ticket(1, [0, 1, 2]), "round-02": bare}),
        "search/imp/seed-2": Result({}, {"round-01": ticket(2, [0, 0, 0])}),
    }
    found = images.hits(results, [0, 1, 1])
    assert list(found) == [("search/imp", "round-01")]
    assert found["search/imp", "round-01"][1].tolist() == [True, True, False]
    assert found["search/imp", "round-01"][2].tolist() == [True, False, False]


def test_the_mean_is_that_of_the_accuracies_paired_by_seed() -> None:
    ours = {0: right(1, 1, 1, 0), 1: right(1, 1, 0, 0), 7: right(0, 0, 0, 0)}
    theirs = {0: right(1, 0, 0, 0), 1: right(1, 1, 0, 0)}
    found = images.over_images(ours, theirs)
    assert found.mean == 25.0 and found.n == 4
    assert found.low is not None and found.high is not None and found.low < 25 < found.high


def test_equal_nets_have_no_difference() -> None:
    same = {0: right(1, 0, 1)}
    found = images.over_images(same, same)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Of 10,000 images on which the nets differ in 6 %: sd of a difference / sqrt(n)."""
    random = np.random.default_rng(3)
    ours, theirs = random.random(10_000) < 0.85, random.random(10_000) < 0.85
    agree = random.random(10_000) < 0.8
    theirs[agree] = ours[agree]
    found = images.over_images({0: ours}, {0: theirs})
    error = 100 * np.std(ours.astype(float) - theirs) / 100
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(norm.ppf(0.975) * error, rel=0.05)
    assert images.over_images({0: ours}, {0: theirs}) == found


def test_mcnemar_by_hand() -> None:
    ours, theirs = right(*[1] * 8, *[0] * 2, *[1] * 90), right(*[0] * 8, *[1] * 2, *[1] * 90)
    assert images.mcnemar(ours, theirs) == pytest.approx(2 * 56 / 1024)  # 8 of 10 or more extreme
    assert images.mcnemar(ours, ours) == 1.0


def test_named_pairs_may_have_tickets_of_different_names() -> None:
    known = {("a", "ticket"): {0: right(1, 1)}, ("b", "lth-98"): {0: right(1, 0), 1: right(0, 0)}}
    first, second = known
    pairs = {"a minus b": [first, second], "a minus c": [first, ("c", "ticket")]}
    table = images.pairs_table(known, pairs)
    assert table.index.tolist() == ["a minus b"]
    assert table.iloc[0].tolist() == ["50.00 [0.00, 100.00] (n = 2)", "0 of 1 seeds"]


def test_images_are_paired_where_all_seeds_share_them() -> None:
    spec = DataSpec(name="mnist_5k", train=10, validation=10, test=None)
    assert images.shared_by_seeds(spec)
    own = spec.model_copy(update={"test": 10})
    assert not images.shared_by_seeds(own)
    assert images.shared_by_seeds(own.model_copy(update={"split_seed": 1}))


def test_the_table_compares_what_both_units_keep() -> None:
    results = {
        "score/a/seed-0": Result({}, {"round-01": ticket(0, [0, 1, 2])}),
        "score/b/seed-0": Result({}, {"round-01": ticket(0, [0, 1, 1])}),
        "score/b/seed-1": Result({}, {"round-01": ticket(1, [0, 1, 1])}),
        "score/c/seed-0": Result({}, {"round-02": ticket(0, [0, 1, 1])}),
    }
    pairs = [("score/a", "score/b"), ("score/a", "score/c")]
    table = images.table(results, [0, 1, 2], pairs)
    assert table.values.tolist() == [
        ["score/a", "score/b", "round-01", "33.33 [0.00, 100.00] (n = 3)", "0 of 1 seeds"]
    ]
