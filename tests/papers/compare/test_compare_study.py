"""The comparison: equal sparsity for all, exact overlaps, costs that add up, a tiny study."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data
from hypothesis import given
from hypothesis import strategies as st

from ticketlab import models
from ticketlab.data.sets import load
from ticketlab.files import write_json
from ticketlab.papers.compare import algorithm, figures, report, same_arm, study, units
from ticketlab.papers.compare.algorithm import BedBench, Found, Turn, agreed, at_levels
from ticketlab.papers.compare.forecast import expected_passes, planned
from ticketlab.papers.compare.overlap import expected_jaccard, overlap_matrix, overlap_table
from ticketlab.papers.compare.params import METHODS, WEIGHTS, BedSetting, CompareParams, check
from ticketlab.papers.compare.rows import best_of, board, difference, layers_table
from ticketlab.papers.compare.swap import swap_metrics, swap_table
from ticketlab.pruning import masks
from ticketlab.pruning.masks import Mask
from ticketlab.study import plots, retrain, tables
from ticketlab.study.bench import Setting
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.controls import control
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.study.retrain import train_dense
from ticketlab.study.runner import Unit, run, run_study
from ticketlab.study.stats import as_reference
from ticketlab.study.store import Store
from ticketlab.study.verdicts import counts
from ticketlab.training.recipe import Step

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes

Study = tuple[CompareParams, dict[str, Result], Path]


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study, run once for all tests of this file."""
    params = tiny.compare()
    with (
        pytest.MonkeyPatch.context() as patch,
        shared_folder(tmp_path_factory, "compare") as folder,
    ):
        use_data(patch, tiny_folder)
        return params, run_study(study.phases(params), folder), folder


@pytest.fixture
def bench(tiny_root: Path) -> BedBench:
    return BedBench(tiny.compare_setting(), 0)


def test_a_unit_takes_its_levels_from_a_list_too() -> None:
    values = tiny.compare_setting().model_dump(mode="json")
    assert BedSetting.model_validate(values) == tiny.compare_setting()


# --- from rounds to exact levels


@given(st.integers(0, 10_000), st.integers(2, 3), st.floats(0.05, 0.7))
def test_a_threshold_on_the_worst_rank_is_the_overlap_of_the_copies(
    seed: int, copies: int, rate: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    shapes = {"a": (7, 5), "b": (30,)}
    draw = {n: torch.rand(s, generator=random) < 0.8 for n, s in shapes.items()}
    within = Mask(draw)
    own = [
        {n: torch.randint(0, 9, s, generator=random).float() for n, s in shapes.items()}
        for _ in range(copies)
    ]  # few values: ties everywhere
    common = masks.intersection([masks.prune(scores, within, rate) for scores in own])
    worst = agreed(own, within)
    assert masks.keep_top(worst, common.alive, within=within) == common
    for keep in range(common.alive, within.alive + 1):
        assert masks.keep_top(worst, keep, within=within).contains(common)


def turns(bench: BedBench, *left: int) -> list[Turn]:
    """Rounds that leave so many weights, all scored by position."""
    scores = {n: torch.arange(k.numel()).view(k.shape).float() for n, k in bench.dense.items()}
    found, before = [], bench.dense
    for index, count in enumerate(left, start=1):
        found.append(Turn(index, before, count, scores))
        before = masks.keep_top(scores, count, within=before)
    return found


def test_every_level_is_reached_exactly_by_the_round_that_passes_it(bench: BedBench) -> None:
    account, spent = Account(bench), []
    net = bench.net()

    def rounds() -> Any:
        for turn in turns(bench, 900, 300, 100, 10):
            account.charge(net, 1, 50)
            spent.append(turn.index)
            yield turn

    found = at_levels(rounds(), bench, account, "imp")
    assert [find.mask.alive for find in found] == [bench.kept(level) for level in (0.7, 0.85)]
    assert [find.rounds for find in found] == [2, 3]  # 443 lies in 300..899, 221 in 100..299
    assert [find.cost.images for find in found] == [100, 150]
    assert spent == [1, 2, 3]  # nothing is trained beyond the last level
    assert found[0].mask.contains(found[1].mask)


def test_a_round_that_passes_several_levels_gives_them_all(bench: BedBench) -> None:
    found = at_levels(iter(turns(bench, 50)), bench, Account(bench), "imp")
    assert [find.rounds for find in found] == [1, 1]


def test_a_search_that_ends_too_early_is_one_line(bench: BedBench, one_line: Message) -> None:
    message = one_line(lambda: at_levels(iter(turns(bench, 900)), bench, Account(bench), "colt"))
    assert "colt" in message and "max_rounds" in message and "convnet" in message


# --- costs


def test_flops_of_a_mask_are_those_of_the_model(bench: BedBench) -> None:
    mask = algorithm.one_shot(bench, "snip")[-1].mask
    net, shape, account = bench.net(), bench.data.shape, Account(bench)
    model = net.model
    dense, sparse = account.flops(net, mask)
    assert dense == models.flops(model, shape)
    assert sparse == pytest.approx(models.flops(model, shape, mask.densities()), abs=1)
    assert account.flops(net, bench.dense) == account.flops(net) == (dense, dense)


def test_costs_add_up() -> None:
    total = Cost(1, 2, 3, 4.0, 5.0) + Cost(10, 20, 30, 40.0, 50.0)
    assert total == Cost(11, 22, 33, 44.0, 55.0)


def test_criteria_charge_their_gradients() -> None:
    assert algorithm.charged("random", 20, 1) == (0, 0)
    assert algorithm.charged("snip", 20, 1) == (1, 20)
    assert algorithm.charged("grasp", 20, 1) == (2, 40)
    assert algorithm.charged("synflow", 20, 100) == (100, 100)


# --- the study


def test_every_method_has_every_level_at_exactly_the_same_sparsity(done: Study) -> None:
    rows = board(done[1])
    for level, alive in ((0.7, 443), (0.85, 221)):
        own = rows[(rows.level == level) & rows.arm.isin(METHODS)]
        assert sorted(own.arm) == sorted(METHODS * 2)
        assert set(own.alive) == {alive}
    tickets = [t for result in done[1].values() for t in result.tickets.values()]
    assert len(tickets) == (len(METHODS) * 2 + 2) * 2  # and the dense net, and IMP's first round
    assert {ticket.mask.alive for ticket in tickets} == {1476, 590, 443, 221}


def test_methods_share_their_initial_weights_but_rst_has_its_own(done: Study) -> None:
    for seed in (0, 1):
        hashes = {
            method: done[1][f"convnet/{method}/seed-{seed}"].tickets["level-85"].metadata
            for method in METHODS
        }
        first = hashes["random"]["init_sha256"]
        assert [m for m in METHODS if hashes[m]["init_sha256"] != first] == ["rst"]


def test_rst_has_the_random_mask_and_random_masks_are_nested(done: Study) -> None:
    random, rst = (done[1][f"convnet/{m}/seed-0"].tickets for m in ("random", "rst"))
    assert all(random[name].mask == rst[name].mask for name in ("level-70", "level-85"))
    assert random["level-70"].mask.contains(random["level-85"].mask)


def test_imp_matched_prunes_as_many_weights_a_round_as_colt(done: Study) -> None:
    colt, imp = (done[1][f"convnet/{m}/seed-0"].record for m in ("colt", "imp-matched"))
    assert imp["left"] == colt["left"]
    rounds = {
        m: [row["rounds"] for row in record["rows"]] for m, record in (("colt", colt), ("imp", imp))
    }
    assert rounds["colt"] == rounds["imp"]
    images = [[row["search_images"] for row in record["rows"]] for record in (colt, imp)]
    assert images[0] == images[1]  # the segments together are the data set


def test_costs_count_search_and_final_training(done: Study) -> None:
    rows = board(done[1]).set_index(["arm", "seed", "level"])
    assert rows.loc[("dense", 0, 0.0), "images"] == 200
    imp = rows.loc[("imp", 0, 0.85)]
    assert (imp.search_images, imp.images, imp.search_iterations) == (600, 800, 12)
    assert imp.sparse_flops < imp.dense_flops
    assert rows.loc[("rst", 0, 0.85), "search_images"] == 150
    assert rows.loc[("snip", 0, 0.85), "search_images"] == 20
    prac = rows.loc[("prac", 0, 0.85)]
    assert prac.search_images <= imp.search_images and prac.search_forward_images > 0
    long = rows.loc[("random, long as imp", 0, 0.85)]
    assert abs(long.images - imp.images) < 50


def test_the_swap_reuses_what_the_searches_trained(done: Study) -> None:
    swaps = swap_table(done[1], done[0])
    cells = swaps.groupby(["mask", "weights"]).seed.count()
    assert len(cells) == 3 * len(WEIGHTS) and set(cells) == {2}
    rows = board(done[1])
    own = swaps[(swaps["mask"] == "imp") & (swaps.weights == "init")].set_index("seed")
    imp = rows[(rows.arm == "imp") & (rows.level == 0.85)].set_index("seed")
    assert (own.last_accuracy == imp.last_accuracy).all()
    rst = rows[(rows.arm == "rst") & (rows.level == 0.85)].set_index("seed").last_accuracy
    for weights in ("rst", "rst-other"):
        cell = swaps[(swaps["mask"] == "random") & (swaps.weights == weights)]
        assert (cell.set_index("seed").last_accuracy == rst).all()


def test_a_finished_study_is_not_run_again_and_a_unit_repeats_bit_for_bit(
    done: Study, tiny_root: Path
) -> None:
    params, results, folder = done
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    again = run_study(study.phases(params), folder)
    assert list(again) == list(results)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    unit = next(u for u in study.method_units(params) if u.name == "convnet/prac/seed-1")
    repeated = unit.work(**unit.arguments)
    stored = results["convnet/prac/seed-1"]
    assert repeated.record == stored.record
    assert all(repeated.tickets[n].mask == stored.tickets[n].mask for n in stored.tickets)


def test_a_later_rewind_point_moves_the_searches_and_is_charged(tiny_root: Path) -> None:
    setting = tiny.compare_setting().model_copy(update={"rewind": Step(2, "it")})
    found = units.train_method(setting, 0, "colt")
    assert {row["weights"] for row in found.record["rows"]} == {"searched"}
    per_round = 200
    assert {row["search_images"] % per_round for row in found.record["rows"]} == {100}


def test_planned_work_is_about_what_is_done(done: Study, tiny_root: Path) -> None:
    rows = board(done[1])
    planned = expected_passes(done[0])
    assert 0.5 < planned / (rows.images.sum() + 2 * 10 * 200) < 2


def test_the_dense_net_of_another_paper_is_not_trained_again(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any paper may train `train_dense` units; equal ones have equal keys, whatever their names."""
    params = tiny.compare()
    bed = params.beds[0]
    setting = Setting.of(params, model=bed.model, prunable=bed.prunable, recipe=bed.recipe)
    elsewhere = Unit("dense/seed-1", train_dense, {"setting": setting, "seed": 1}, 1.0)
    (trained,) = run([elsewhere], tmp_path / "other").values()
    units = [u for u in study.method_units(params) if u.name == "convnet/dense/seed-1"]
    monkeypatch.setattr(retrain, "train_many", None)  # whoever trains now fails
    (taken,) = run(units, tmp_path / "compare", store=Store((tmp_path / "other",))).values()
    assert taken.record == trained.record


def test_imps_second_run_is_another_run_from_the_same_weights(done: Study) -> None:
    """With IMP's own order it would find the same tickets, and every difference would be 0."""
    for seed in (0, 1):
        one, two = (done[1][f"convnet/{arm}/seed-{seed}"].tickets for arm in ("imp", "imp-again"))
        for level in ("level-70", "level-85"):
            assert one[level].mask != two[level].mask
            facts = [one[level].metadata[key] for key in ("init_sha256", "data_sha256")]
            assert facts == [two[level].metadata[key] for key in ("init_sha256", "data_sha256")]


def test_imp_alone_is_scored_after_its_first_round_too(done: Study) -> None:
    rows = board(done[1])
    light = rows[rows.level == done[0].light]
    assert set(light.arm) == {"imp"} and set(light.rounds) == {1} and set(light.alive) == {590}
    row = done[1]["convnet/imp/seed-0"].record["rows"][0]
    assert row["search_images"] == 200  # one training, the dense one


def test_only_the_first_seeds_have_the_swap(tiny_root: Path) -> None:
    params = tiny.compare(seeds=[0, 1, 2], swap_seeds=2, swap_weights=["init", "reinit"])
    units = [unit for phase in planned(params) for unit in phase if "/swap-" in unit.name]
    assert {unit.name for unit in units} == {
        f"convnet/swap-{weights}/seed-{seed}" for weights in ("init", "reinit") for seed in (0, 1)
    }
    chosen = {unit.name: list(unit.arguments["chosen"]) for unit in units}
    assert chosen["convnet/swap-init/seed-0"] == ["imp-shuffled"]  # the others are scored anyway
    assert chosen["convnet/swap-reinit/seed-1"] == ["imp", "imp-shuffled", "random"]


# --- one method as two arms


def test_relabelled_arms_win_as_often_as_can_be_counted_by_hand() -> None:
    """Of equal differences all signs must agree, or in 10 seeds all but one: t is 4.0, then 2.25,
    and 2.26 is needed."""
    assert same_arm.wins([1.0] * 10, 0.01) == pytest.approx(100 * (1 + 10) / 2**10)
    assert same_arm.wins([1.0] * 5, 0.01) == pytest.approx(100 / 2**5)
    assert same_arm.wins([1.0] * 4, 0.01) > 5  # too few seeds for an A/A control
    assert same_arm.wins([0.0] * 10, 0.01) == 0


def test_names_that_are_exchanged_at_random_win_in_at_most_5_percent() -> None:
    random = np.random.default_rng(0)
    won = [same_arm.wins(random.normal(shift, 0.5, 10).tolist(), 0.01) for shift in (0, 0, 0, 1)]
    assert all(1 < one <= 5 for one in won)  # even where the arms do differ: the names are chance


def test_of_many_seeds_some_relabellings_are_drawn() -> None:
    values = np.random.default_rng(1).normal(0, 0.5, 20).tolist()
    assert 0 < same_arm.wins(values, 0.01) <= 5
    assert same_arm.wins(values, 0.01) == same_arm.wins(values, 0.01)


def scored(*values: tuple[str, float, Sequence[float]]) -> pd.DataFrame:
    """Rows of a board from (arm, level, accuracy of each seed)."""
    facts = [
        {"net": "convnet", "arm": arm, "level": level, "seed": seed, "last_accuracy": accuracy,
         "train_accuracy": accuracy + 5}
        for arm, level, accuracies in values
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return pd.DataFrame(facts)


def test_the_table_of_one_method_as_two_arms_is_by_hand() -> None:
    rows = scored(("imp", 0.7, [80.0] * 6), ("imp-again", 0.7, [79.0, 81.0] * 3),
                  ("imp", 0.85, [80.0] * 6), ("imp-again", 0.85, [70.0] * 6))  # fmt: skip
    table = same_arm.table(rows, tiny.compare(), 0.01)
    assert table["IMP beats IMP again"].tolist() == ["undecided", "reproduced"]
    assert table["paired sd"].tolist() == ["1.10", "0.00"]
    assert table["IMP - IMP again"].tolist()[1].startswith("10.00 [10.00, 10.00]")


# --- positive controls


def test_positive_controls_of_a_net_are_by_hand() -> None:
    rows = scored(("dense", 0.0, [80.0, 81.0]), ("imp", 0.6, [81.5, 80.5]),
                  ("imp", 0.7, [80.0, 80.0]), ("imp", 0.85, [78.0, 78.0]),
                  ("random", 0.7, [75.0, 76.0]), ("random", 0.85, [70.0, 71.0]))  # fmt: skip
    swaps = pd.DataFrame(
        [("convnet", mask, "init", seed, value)
         for mask, values in (("imp", (78.0, 78.0)), ("imp-shuffled", (72.0, 73.0)))
         for seed, value in enumerate(values)],
        columns=["net", "mask", "weights", "seed", "last_accuracy"],
    )  # fmt: skip
    found = report.controls(rows, swaps, tiny.compare())["convnet"]
    assert {name: one["number"].by_seed for name, one in found.items()} == {
        "trained": {0: 85.0, 1: 86.0},
        "pruning_does_not_help": {0: -1.5, 1: 0.5},
        "imp_beats_random": {0: 6.5, 1: 5.5},
        "imp_beats_shuffled": {0: 6.0, 1: 5.0},
    }
    assert {name: (one["bound"], one["strictly"]) for name, one in found.items()} == {
        "trained": (80.0, False),
        "pruning_does_not_help": (-1.0, False),
        "imp_beats_random": (0.0, True),
        "imp_beats_shuffled": (0.0, True),
    }


def test_what_was_not_trained_controls_nothing() -> None:
    rows = scored(("dense", 0.0, [80.0, 81.0]), ("imp", 0.6, [81.5, 80.5]))
    swaps = swap_table({}, tiny.compare(swap_masks=[]))
    found = report.controls(rows, swaps, tiny.compare())["convnet"]
    missing = [name for name, one in found.items() if one is None]
    assert missing == ["imp_beats_random", "imp_beats_shuffled"]


# --- the report


def test_differences_are_paired_and_means_are_over_levels_and_nets(done: Study) -> None:
    params, results, _ = done
    rows = board(results)
    found = difference(rows, params, "imp", "random")
    by = rows.set_index(["arm", "level", "seed"]).last_accuracy
    each = [np.mean([by["imp", lv, s] - by["random", lv, s] for lv in (0.7, 0.85)]) for s in (0, 1)]
    assert found["mean"]["mean"] == pytest.approx(np.mean(each))
    assert found["mean"] == found["convnet"]["mean"] and found["mean"]["n"] == 2


def test_the_best_at_initialisation_is_chosen_on_validation() -> None:
    columns = ["net", "arm", "level", "seed", "validation_accuracy", "last_accuracy"]
    rows = pd.DataFrame([("n", "snip", 0.9, 0, 80.0, 70.0), ("n", "grasp", 0.9, 0, 79.0, 90.0),
                         ("n", "snip", 0.9, 1, 60.0, 61.0), ("n", "grasp", 0.9, 1, 65.0, 64.0)],
                        columns=columns)  # fmt: skip
    assert best_of(rows, "n", ("snip", "grasp"), 0.9) == {0: 70.0, 1: 64.0}


def test_chance_overlap_is_that_of_shuffled_masks() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (
        Mask({"x": torch.rand(3000, generator=random) < d, "y": torch.rand(90, 40) < 0.5})
        for d in (0.1, 0.3)
    )
    shuffled = [
        masks.jaccard(masks.shuffle_layerwise(a, torch.Generator().manual_seed(s)), b)
        for s in range(20)
    ]
    assert expected_jaccard(a, b) == pytest.approx(np.mean(shuffled), abs=0.01)


def test_overlaps_compare_methods_at_a_seed_and_a_method_with_itself(done: Study) -> None:
    table = overlap_table(done[1], done[0])
    assert set(table.between) == {"methods", "seeds"}
    assert (table[table.between == "seeds"].arm == table[table.between == "seeds"].other).all()
    assert table.iou.between(0, 1).all()
    matrix = overlap_matrix(table, "convnet", "iou")
    assert matrix.notna().all().all() and (matrix == matrix.T).all().all()


def test_every_claim_has_its_metric_and_the_pages_can_be_made(done: Study) -> None:
    params, results, _ = done
    numbers = report.metrics(results, params)
    verdicts = [judge(claim, numbers) for claim in load_claims("compare")]
    unmeasured = {v.claim.id for v in verdicts if v.word == "not run"}
    assert unmeasured == {"compare-10", "compare-14"}  # no such control in the tiny study
    rows, layers = board(results), layers_table(results)
    drawn = [figures.accuracy(rows, params), figures.cost(rows, params),
             figures.gains(rows, params), figures.layers(layers, params),
             figures.overlap(overlap_table(results, params), params),
             figures.swap(swap_table(results, params), params)]  # fmt: skip
    assert all(figure.axes for figure in drawn)
    assert all(20 < len(str(figure.get_label())) <= plots.ALT for figure in drawn)
    plt.close("all")
    best = report.leaderboard(rows, "convnet", 0.85)
    assert len(best) == len(METHODS) + 3 and "dense" in best.index
    table = tables.differences_table(numbers["differences"], "imp_minus_random")
    assert table.shape == (1, 2)


def test_references_are_the_dense_nets_beside_a_constant_answer(done: Study) -> None:
    params, results, _ = done
    found = report.metrics(results, params)["references"]["dense"]
    labels, rows = load(params.data).test.y, board(results)
    dense = dict(enumerate(rows[rows.arm == "dense"].last_accuracy))
    chance = 100 * int(labels.bincount().max()) / len(labels)
    assert found == {"the dense convnet": as_reference(dense, chance, len(labels))}


def test_without_a_swap_its_table_is_empty_and_its_metrics_null(tiny_root: Path) -> None:
    params = tiny.compare(swap_masks=[])
    swaps = swap_table({}, params)
    assert swaps.empty
    found = swap_metrics(swaps, params)
    assert found["imp_weights_matter"] == found["imp_on_rst_minus_init"] == {"mean": None}
    assert tables.differences_table(found).empty


def test_the_papers_verdicts_leave_the_comparison_itself_out(tmp_path: Path) -> None:
    assert report.paper_verdicts(tmp_path).empty
    claim = load_claims("colt")[0]
    metrics: dict[str, Any] = {}
    for one in load_claims("colt"):
        *path, last = one.metric.split(".")
        inner = metrics
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = {"mean": one.bound, "low": None, "high": None, "n": 1}
    metrics["references"] = dict.fromkeys(one.reference for one in load_claims("colt"))
    for name in metrics["references"]:
        metrics["references"][name] = {"the dense net": as_reference({0: 80.0, 1: 81.0}, 10.0)}
    metrics["controls"] = passed = {}
    for need in {need for one in load_claims("colt") for need in one.needs}:
        bed, _, name = need.partition(".")
        passed.setdefault(bed, {})[name] = control("it holds", {0: 1.0, 1: 1.0}, at_least=0.0)
    for paper, numbers in (("colt", metrics), ("compare", {})):
        write_json(tmp_path / paper / "metrics.json", numbers)
        write_json(tmp_path / paper / f"{paper}.ipynb", {"cells": []})
    found = report.paper_verdicts(tmp_path)
    assert set(found.index) == {"colt"} and claim.id in set(found.claim)
    assert counts(found).loc["colt", "undecided"] == len(found)
    page = report.coloured(found).to_html()
    assert page == report.coloured(found).to_html() and "undecided" in page


# --- bad input


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (lambda: tiny.compare(partitions=3), ["partitions: 3", "1, 2, 5"]),
        (lambda: tiny.compare(probe=201), ["probe: 201", "1 to 200"]),
        (
            lambda: tiny.compare(data=tiny.DIGITS.model_dump() | {"validation": 0}),
            ["data.validation: 0"],
        ),
        (lambda: tiny.compare(beds=[tiny.COMPARE["beds"][0]] * 2), ["beds: 'convnet'", "twice"]),
        (lambda: tiny.compare(rewind="99it"), ["rewind: '99it'", "4 iterations"]),
        (
            lambda: tiny.compare_bed(prunable="conv_linear"),
            ["beds.convnet.prunable", "output layer"],
        ),
        (lambda: tiny.compare_bed(levels=[0.9, 0.8]), ["beds.convnet.levels", "ascending"]),
        (lambda: tiny.compare_bed(penalty={"ceiling": 10.0, "ramp": 9, "every": 1}), ["ramp: 9"]),
        (
            lambda: tiny.compare_bed(model={"name": "lenet_300_100"}, prunable="conv"),
            ["names no weight"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    params: Any, words: list[str], tiny_root: Path, one_line: Message
) -> None:
    message = one_line(lambda: check(params()))
    assert all(word in message for word in words), message


def test_what_fits_is_not_refused(tiny_root: Path) -> None:
    check(tiny.compare())
    assert Found(0.9, Mask({}), 1, Cost()).cost.images == 0
