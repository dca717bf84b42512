"""COLT's core: segments, overlap, rounds, and the dossier's checkable statements T1 to T7."""

import json
from collections.abc import Callable
from itertools import pairwise, permutations, product
from math import comb
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import Message, equal
from hypothesis import given
from hypothesis import strategies as st

from ticketlab import progress
from ticketlab.data.sets import DataSet, Images
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.algorithm import (
    Round,
    chance_rate,
    class_blocks,
    effective_rate,
    find_tickets,
    predicted_rate,
    pruned_agreement,
    relabel,
    rounds_to,
    segment_indices,
    segments,
)
from ticketlab.papers.colt.params import Control, Variant
from ticketlab.papers.colt.units import (
    chosen_tickets,
    copies,
    score_tickets,
    search_colt,
    search_imp,
)
from ticketlab.pruning import criteria, masks
from ticketlab.pruning.masks import Mask, State, at_least, prune
from ticketlab.study import cost
from ticketlab.study.bench import Bench
from ticketlab.study.cost import Account
from ticketlab.tickets import imp
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, Observer, Run
from ticketlab.training.recipe import Recipe

DENSE = Mask({"a": torch.ones(20, 10, dtype=torch.bool), "b": torch.ones(300, dtype=torch.bool)})
LABELS = torch.arange(60) % 12


def random_learner(seed: int = 0, common: float = 0.0) -> Callable[[int, Mask], State]:
    """Copies whose weights share the part `common` and are random otherwise."""
    random = torch.Generator().manual_seed(seed)
    shared = {n: torch.randn(keep.shape, generator=random) for n, keep in DENSE.items()}

    def learn(copy: int, mask: Mask) -> State:
        own = {n: torch.randn(keep.shape, generator=random) for n, keep in DENSE.items()}
        return {n: common * shared[n] + (1 - common) * own[n] for n in own}

    return learn


def search(
    learn: Callable[[int, Mask], State],
    copies: int = 2,
    rate: float = 0.2,
    votes: int | None = None,
    target: float = 0.9,
    max_rounds: int = 40,
) -> list[Round]:
    rounds = find_tickets(
        learn, DENSE, copies=copies, rate=rate, votes=votes or copies, target=target,
        max_rounds=max_rounds,
    )  # fmt: skip
    return list(rounds)


# --- segments


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("classes", "partitions"), [(10, 1), (10, 2), (10, 5), (12, 3), (100, 2)])
def test_blocks_are_disjoint_cover_all_classes_and_are_equally_wide(
    classes: int, partitions: int, interleaved: bool
) -> None:
    blocks = class_blocks(classes, partitions, interleaved)
    assert sorted(c for block in blocks for c in block) == list(range(classes))
    assert {len(block) for block in blocks} == {classes // partitions}
    assert all(block == sorted(block) for block in blocks)


def test_blocks_are_contiguous_as_in_the_paper_or_every_pth_class() -> None:
    assert class_blocks(6, 2) == [[0, 1, 2], [3, 4, 5]]
    assert class_blocks(6, 2, interleaved=True) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(("classes", "partitions"), [(10, 3), (10, 10), (10, 11), (10, 0), (7, 2)])
def test_partitions_that_do_not_split_the_classes_are_refused(
    one_line: Message, classes: int, partitions: int
) -> None:
    message = one_line(lambda: class_blocks(classes, partitions))
    allowed = {10: "1, 2, 5", 7: "1"}[classes]
    assert f"partitions: {partitions} " in message and message.endswith(f"allowed: {allowed}")


@pytest.mark.parametrize("split", ["class", "interleaved", "random"])
@pytest.mark.parametrize("partitions", [1, 2, 3, 6])
def test_segments_are_disjoint_and_cover_everything(
    split: algorithm.Split, partitions: int
) -> None:
    parts = segment_indices(LABELS, 12, split, partitions, seed=0)
    assert len(parts) == partitions
    assert torch.cat(parts).sort().values.tolist() == list(range(60))
    assert all(torch.equal(part, part.sort().values) for part in parts)
    if split == "random":
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:  # class-pure
        blocks = class_blocks(12, partitions, split == "interleaved")
        assert [sorted(set(LABELS[p].tolist())) for p in parts] == blocks


@pytest.mark.parametrize("split", ["class", "interleaved", "random", "same"])
def test_copies_of_a_class_split_number_their_classes_from_0(split: algorithm.Split) -> None:
    places = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1)
    parts = segments(Images(places, LABELS), 12, split, 3, seed=0)
    index = segment_indices(LABELS, 12, split, 3, seed=0)
    assert [part.x.flatten().tolist() for part in parts] == [one.tolist() for one in index]
    own = {"class": [[0, 1, 2, 3]] * 3, "interleaved": [[0, 1, 2, 3]] * 3}
    whole = [sorted(set(LABELS[one].tolist())) for one in index]
    assert [sorted(set(part.y.tolist())) for part in parts] == own.get(split, whole)


def test_random_segments_follow_the_seed_and_class_segments_do_not() -> None:
    def draw(split: algorithm.Split, seed: int) -> list[list[int]]:
        return [part.tolist() for part in segment_indices(LABELS, 12, split, 2, seed)]

    assert draw("random", 0) == draw("random", 0) != draw("random", 1)
    assert draw("class", 0) == draw("class", 1)
    labels = [set(LABELS[torch.tensor(part)].tolist()) for part in draw("random", 0)]
    assert len(labels[0] & labels[1]) > 6  # not class-pure


def test_random_segments_may_be_of_uneven_size_but_not_empty(one_line: Message) -> None:
    assert [len(p) for p in segment_indices(LABELS, 12, "random", 7, 0)] == [9] * 4 + [8] * 3
    for wrong in (0, 61):
        message = one_line(lambda wrong=wrong: segment_indices(LABELS, 12, "random", wrong, 0))  # type: ignore[misc]
        assert f"partitions: {wrong}" in message and "1 to 60" in message


def test_the_same_segment_goes_to_every_copy() -> None:
    parts = segment_indices(LABELS, 12, "same", 3, 0)
    assert [part.tolist() for part in parts] == [list(range(60))] * 3


def test_relabelling_numbers_a_block_from_0_in_its_order() -> None:
    images = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([9, 3, 3, 7]))
    assert relabel(images, [3, 7, 9]).y.tolist() == [2, 0, 0, 1]
    assert relabel(images, [9, 7, 3]).y.tolist() == [0, 2, 2, 1]
    assert images.y.tolist() == [9, 3, 3, 7] and relabel(images, [3, 7, 9]).x is images.x


# --- rounds on made-up weights


def test_a_round_is_the_overlap_of_each_copys_own_pruning() -> None:
    """T2: M_t is the AND of the copies' masks, whatever their order; each prunes r x alive."""
    learned: list[State] = []

    def learn(copy: int, mask: Mask) -> State:
        learned.append(random_learner(len(learned))(copy, mask))
        return learned[-1]

    for turn in search(learn, copies=3):
        weights = learned[3 * (turn.index - 1) : 3 * turn.index]
        for own, mine in zip(turn.own, weights, strict=True):
            assert own == prune(criteria.magnitude(mine, turn.before), turn.before, 0.2)
            assert turn.before.alive - own.alive == round(0.2 * turn.before.alive)
        for order in permutations(turn.own):
            assert turn.mask == masks.intersection(order)


def test_masks_are_nested_and_rounds_follow_each_other() -> None:
    """T1, and the end: only the last round is at the target."""
    rounds = search(random_learner())
    assert [turn.index for turn in rounds] == list(range(1, len(rounds) + 1))
    before = DENSE
    for turn in rounds:
        assert turn.before == before and turn.before.contains(turn.mask)
        before = turn.mask
    assert rounds[-1].mask.sparsity >= 0.9
    assert all(turn.mask.sparsity < 0.9 for turn in rounds[:-1])


@given(st.integers(1, 5), st.floats(0.05, 0.6), st.floats(0, 1), st.integers(0, 99))
def test_a_round_removes_between_r_and_p_times_r(
    copies: int, rate: float, common: float, seed: int
) -> None:
    """T3, and u = 2r / (1 + J) for two copies: exact for the rate that rounding leaves."""
    for turn in search(random_learner(seed, common), copies, rate, target=0.7, max_rounds=5):
        removed = turn.before.alive - turn.own[0].alive
        assert removed == round(rate * turn.before.alive)
        u, exact = effective_rate(turn.before, turn.mask), removed / turn.before.alive
        assert exact - 1e-12 <= u <= min(1, copies * exact) + 1e-12
        agreement = pruned_agreement(turn)
        assert 0 <= agreement <= 1
        if copies == 2:
            assert u == pytest.approx(predicted_rate(exact, agreement))
            assert abs(u - predicted_rate(rate, agreement)) <= 1 / turn.before.alive + 1e-12
        if copies == 1:
            assert agreement == 1 and u == pytest.approx(exact)


def test_agreement_is_over_the_newly_pruned_weights_only() -> None:
    def mask(kept: str) -> Mask:
        return Mask({"w": torch.tensor([c == "1" for c in kept])})

    before = mask("00111111")
    turn = Round(1, before, (mask("00001111"), mask("00010111")), mask("00000111"))
    # copy 0 removed places 2, 3, copy 1 removed 2, 4: both 2, either 2, 3, 4
    assert pruned_agreement(turn) == pytest.approx(1 / 3)
    assert effective_rate(turn.before, turn.mask) == pytest.approx(3 / 6)
    assert predicted_rate(2 / 6, 1 / 3) == pytest.approx(3 / 6)
    untouched = Round(1, before, (before, before), before)
    assert pruned_agreement(untouched) == 0 and effective_rate(before, before) == 0


def test_identical_copies_prune_at_imps_pace_and_independent_ones_at_chance() -> None:
    same = search(random_learner(common=1.0), rate=0.2)
    assert [t.mask.alive for t in same[:3]] == [400, 320, 256]
    assert len(same) == rounds_to(0.9, 0.2) == 11
    independent = search(random_learner(common=0.0), rate=0.2)
    rates = [effective_rate(t.before, t.mask) for t in independent[:4]]
    assert sum(rates) / 4 == pytest.approx(chance_rate(0.2, 2), abs=0.03)
    assert len(independent) < len(same)


@pytest.mark.parametrize("copies", [2, 5])
def test_the_family_is_nested_from_and_to_union(copies: int) -> None:
    """Masks of k votes contain those of k + 1; k = P is AND (COLT), k = 1 is OR."""
    by_votes = [search(random_learner(1), copies, 0.5, k)[0] for k in range(1, copies + 1)]
    for fewer, more in pairwise(by_votes):
        assert fewer.own == more.own
        assert fewer.mask.contains(more.mask) and fewer.mask.alive > more.mask.alive
    assert by_votes[0].mask == masks.union(by_votes[0].own)
    assert by_votes[-1].mask == masks.intersection(by_votes[0].own)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_rounds": 3}, 3),
        ({"max_rounds": 0}, 0),
        ({"rate": 0.999}, 0),  # two copies keep no weight in common
        ({"rate": 0.0005}, 0),  # rounds to no weight: nothing would ever change
    ],
)
def test_a_search_that_cannot_reach_its_target_ends(limits: dict, expected: int) -> None:
    rounds = search(random_learner(), **limits)
    assert len(rounds) == expected
    assert all(turn.mask.alive and turn.mask.sparsity < 0.9 for turn in rounds)


def test_a_union_that_removes_nothing_ends() -> None:
    """One copy keeps the first half, the other the second: together they keep all."""

    def learn(copy: int, mask: Mask) -> State:
        flat = torch.arange(500.0) if copy else torch.arange(500.0).flip(0)
        return {"a": flat[:200].view(20, 10), "b": flat[200:]}

    assert search(learn, votes=1, rate=0.5) == []
    assert len(search(learn, votes=1, rate=0.6, max_rounds=1)) == 1


# --- how many rounds


@pytest.mark.parametrize("partitions", [1, 2, 3, 5])
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.2, 0.9])
def test_the_chance_rate_equals_its_closed_forms(rate: float, partitions: int) -> None:
    assert chance_rate(rate, partitions) == pytest.approx(1 - (1 - rate) ** partitions)
    assert chance_rate(rate, partitions, votes=1) == pytest.approx(rate**partitions)
    by_votes = [chance_rate(rate, partitions, k) for k in range(1, partitions + 1)]
    assert by_votes == sorted(by_votes)
    for votes, found in enumerate(by_votes, start=1):
        kept = [
            comb(partitions, k) * (1 - rate) ** k * rate ** (partitions - k)
            for k in range(votes, partitions + 1)
        ]
        assert found == pytest.approx(1 - sum(kept))


@pytest.mark.parametrize(("partitions", "votes"), [(2, 2), (5, 5), (5, 3), (5, 1)])
def test_the_chance_rate_equals_a_simulation(partitions: int, votes: int) -> None:
    random = torch.Generator().manual_seed(0)
    kept = torch.rand(partitions, 200_000, generator=random) >= 0.3
    removed = (kept.sum(0) < votes).double().mean()
    assert float(removed) == pytest.approx(chance_rate(0.3, partitions, votes), abs=0.005)


def test_two_copies_at_chance_agree_as_the_formula_says() -> None:
    """u = 1 - (1 - r)^2 and J = r / (2 - r) are two faces of one fact."""
    for rate in (0.15, 0.2, 0.4):
        agreement = masks.chance_jaccard(rate, rate)
        assert agreement == pytest.approx(rate / (2 - rate))
        assert predicted_rate(rate, agreement) == pytest.approx(chance_rate(rate, 2))


TABLE = {  # section 2.4 of the dossier: rounds to each sparsity, by u
    0.15: (15, 19, 25, 29, 29),
    0.20: (11, 14, 18, 21, 22),
    0.2275: (9, 12, 16, 18, 19),
    0.25: (9, 11, 14, 17, 17),
    0.2775: (8, 10, 13, 15, 15),
    0.33: (6, 8, 10, 12, 12),
    0.36: (6, 7, 9, 11, 11),
}


@pytest.mark.parametrize("rate", TABLE)
def test_rounds_follow_the_dossiers_table(rate: float) -> None:
    targets = (0.90, 0.95, 0.98, 0.99, 0.991)
    assert tuple(rounds_to(target, rate) for target in targets) == TABLE[rate]


def test_a_target_met_exactly_needs_no_further_round() -> None:
    assert rounds_to(1 - 0.8**7, 0.2) == 7
    assert rounds_to(1 - 0.8**7 + 1e-6, 0.2) == 8
    assert rounds_to(0.5, 0.5) == 1


# --- on real training


def masks_of(result: object) -> dict[str, Mask]:
    return {name: ticket.mask for name, ticket in result.tickets.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("prune_from", ["last", "validation"])
def test_one_partition_is_imp_bit_for_bit(tiny_root: Path, prune_from: str) -> None:
    """T6: the same masks in all rounds at equal rate and seed."""
    for seed in (0, 1):
        length = {"optimizer": "adam", "lr": 0.01, "batch": 40, "length": "3ep"}
        params = tiny.colt(prune_from=prune_from, recipe=length)
        one = search_colt(params, seed, Variant(partitions=1))
        ladder = search_imp(params, seed, "imp")
        colts, imps = masks_of(one), masks_of(ladder)
        assert imps.pop("round-00").density == 1
        assert len(colts) == 3 and colts == imps
        assert [t["agreement"] for t in one.record["rounds"]] == [1.0] * 3


def test_imp_matched_has_exactly_colts_numbers_of_weights(tiny_root: Path) -> None:
    params = tiny.colt()
    found = search_colt(params, 0, params.main[0])
    schedule = [turn["alive"] for turn in found.record["rounds"]]
    matched = search_imp(params, 0, "imp-matched", schedule=schedule)
    alive = [turn["alive"] for turn in matched.record["rounds"]]
    assert alive == [1476, *schedule] and len(schedule) >= 2
    assert masks_of(matched)["round-01"] != masks_of(found)["round-01"]  # but other weights


def test_the_same_seed_gives_the_same_masks(tiny_root: Path) -> None:
    """T7."""
    params = tiny.colt()
    digests = [
        [mask.digest() for mask in masks_of(search_colt(params, seed, variant)).values()]
        for seed, variant in product((0, 0, 1), params.main)
    ]
    assert digests[0:2] == digests[2:4]
    assert digests[0] != digests[1] and digests[0][0] != digests[4][0]


@pytest.mark.parametrize(
    "variant",
    [
        Variant(partitions=2),
        Variant(partitions=5),
        Variant(split="interleaved"),
        Variant(split="random", partitions=3),
        Variant(split="same"),
    ],
    ids=lambda variant: variant.name,
)
def test_every_copy_starts_every_round_from_theta_0_and_sees_its_segment(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    """T1, T4, T5: only convolutions are masked, survivors and head equal theta_0, E x N images."""
    seen: list[tuple[State, Mask, Images]] = []

    def watched(net: object, images: Images, *rest: object, mask: Mask, **more: object) -> object:
        seen.append((net.state(), mask, images))  # type: ignore[attr-defined]
        return train(net, images, *rest, mask=mask, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cost, "train", watched)
    params = tiny.colt(max_rounds=2)
    result = search_colt(params, 0, variant)
    theta, copies = seen[0][0], variant.partitions
    assert len(seen) == copies * len(result.record["rounds"]) == 2 * copies
    for state, mask, _ in seen:
        assert list(mask) == [f"body.conv{i}.weight" for i in (1, 2, 3)]
        for name, tensor in state.items():
            kept = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor[kept], theta[name][kept]) and not tensor[~kept].any()
    assert len({mask.digest() for _, mask, _ in seen}) == 2  # one mask a round, on all copies
    assert [t["search_images"] for t in result.record["rounds"]] == [
        sum(len(images) for _, _, images in seen[: copies * n]) for n in (1, 2)
    ]
    by_class = variant.split in ("class", "interleaved")
    width = 10 // copies if by_class else 10
    for _, _, images in seen:
        assert sorted(set(images.y.tolist())) == list(range(width))
        assert len(images) == (200 if variant.split == "same" else pytest.approx(200 / copies, 1))
    assert theta["head.weight"].shape == (width, 16)


def test_copies_share_the_body_of_imps_net_and_differ_by_data_order(
    tiny_root: Path, tmp_path: Path
) -> None:
    params = tiny.colt()
    bench = Bench(params, 0)
    full = bench.net().state()
    events = tmp_path / "events"
    progress.listen_to(events)
    learned = {}
    for variant in (params.main[0], Variant(split="same")):
        net, train_copy = copies(Account(bench), params, variant)
        start, dense = net.state(), bench.dense
        for name, tensor in start.items():
            assert name.startswith("head") or torch.equal(tensor, full[name])
        learned[variant.name] = [train_copy(copy, dense) for copy in (0, 1)]
        assert not equal(*learned[variant.name])
        assert equal(train_copy(0, dense), learned[variant.name][0])
    progress.listen_to(None)
    passes = [json.loads(line)["passes"] for line in events.read_text().splitlines()]
    assert passes == [100] * 3 + [200] * 3


def test_a_head_is_shared_between_copies_and_new_for_every_seed(tiny_root: Path) -> None:
    params = tiny.colt()
    heads = [Bench(params, s).net(classes=5).state()["head.weight"] for s in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    full = Bench(params, 0).net().state()["head.weight"]
    assert full.shape[0] == 10 and not torch.equal(full[:5], heads[0])


def test_the_family_is_nested_on_real_copies(digits: DataSet) -> None:
    params = tiny.colt(max_rounds=1)
    bench = Bench(params, 0)
    _, train_copy = copies(Account(bench), params, Variant(partitions=5))
    dense = bench.dense
    rounds = find_tickets(train_copy, dense, copies=5, rate=0.4, votes=5, target=0.99, max_rounds=1)
    own = next(rounds).own
    family = [at_least(own, votes) for votes in range(1, 6)]
    for fewer, more in pairwise(family):
        assert fewer.contains(more) and fewer.alive > more.alive


def test_copies_may_rewind_to_a_later_step(tiny_root: Path) -> None:
    """The body is the dense run's at that step; a copy's own narrower head is theta_0's."""
    params = tiny.colt(rewind="2it")
    bench = Bench(params, 0)
    later = bench.theta(bench.net())
    assert later["body.bn1.num_batches_tracked"] == 2
    net = bench.net(classes=5)
    head = net.state()["head.weight"]
    start = bench.theta(net)
    assert torch.equal(start["head.weight"], head)
    assert all(torch.equal(start[n], later[n]) for n in start if n.startswith("body"))
    assert not torch.equal(later["body.conv1.weight"], net.state()["body.conv1.weight"])
    one = search_colt(params, 0, Variant(partitions=1))
    ladder = masks_of(search_imp(params, 0, "imp"))
    ladder.pop("round-00")
    assert masks_of(one) == ladder  # T6 holds there too


@pytest.mark.parametrize("rewind", ["0it", "2it"])
def test_the_reinitialised_control_differs_from_the_ticket_by_its_draw_alone(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, rewind: str
) -> None:
    """1.14: also where tickets are rewound to a later step, to which the new draw is trained."""
    params = tiny.colt(rewind=rewind)
    masks = chosen_tickets(search_colt(params, 0, params.main[0]), params.levels)
    starts: dict[Control | None, list[tuple[State, Mask, object, Recipe]]] = {
        None: [],
        "reinit": [],
    }
    found = {}

    def spy(net: Net, images: Images, data: DataSet, recipe: Recipe, **more: Any) -> list[Epoch]:
        starts[control].append((net.state(), more["mask"], more["seed"], recipe))
        return train(net, images, data, recipe, **more)

    monkeypatch.setattr(cost, "train", spy)
    for control in starts:
        found[control] = score_tickets(params, 0, params.main[0].name, masks, control)
    for own, other in zip(*starts.values(), strict=True):
        assert own[1:] == other[1:]  # mask, order, recipe
        assert all((own[0][n] != other[0][n])[keep].all() for n, keep in own[1].items())
        assert all(
            not state[n][~keep].any() for state, *_ in (own, other) for n, keep in own[1].items()
        )
        steps = {int(state["body.bn1.num_batches_tracked"]) for state, *_ in (own, other)}
        assert steps == {int(params.rewind.value)}
    message = [[turn["last_accuracy"] for turn in each.record["rounds"]] for each in found.values()]
    assert message[0] != message[1]
    paid = 40 * int(params.rewind.value)
    assert [each.record["rewind_images"] for each in found.values()] == [paid] * 2


@pytest.mark.parametrize(
    "variant", [Variant(), Variant(split="same"), Variant(split="random", partitions=3)]
)
def test_passes_are_counted_where_the_length_is_in_iterations(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    """Each copy takes all of the steps then, whatever its segment holds."""
    recipe = {"optimizer": "adam", "lr": 0.01, "batch": 20, "length": "7it"}
    params = tiny.colt(recipe=recipe, rewind="3it", max_rounds=2)
    seen: list[int] = []

    class Count(Observer):
        def before_step(self, run: Run) -> None:
            seen.append(len(run.index))

    def counted(*arguments: Any, observers: Any = (), **more: Any) -> Any:
        return train(*arguments, observers=[*observers, Count()], **more)

    for module in (cost, imp):
        monkeypatch.setattr(module, "train", counted)
    rounds = search_colt(params, 0, variant).record["rounds"]
    assert rounds[-1]["search_images"] == sum(seen)
    seen.clear()
    ladder = search_imp(params, 0, "imp").record["rounds"]
    scored = params.recipe.passes(200)  # the last ticket's own training
    assert ladder[-1]["search_images"] + scored == sum(seen)
