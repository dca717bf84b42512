"""The DLTH study: a tiny one from end to end, pairing, costs, what is refused, the report."""

import re
from collections.abc import Mapping
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data

from ticketlab.data.sets import Batches, load
from ticketlab.papers.dlth import algorithm, figures_by_hand, metrics, report, units
from ticketlab.papers.dlth import figures as dlth_figures
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.dlth.forecast import expected_passes
from ticketlab.papers.dlth.params import Case, Cell, RstParams, draw_seed
from ticketlab.pipeline import params as files
from ticketlab.pruning.masks import jaccard
from ticketlab.study import cost, images
from ticketlab.study.bench import Bench
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.controls import all_of
from ticketlab.study.results import Result
from ticketlab.study.runner import run_study
from ticketlab.study.stats import Interval, as_metric, minus
from ticketlab.training.evaluation import evaluate
from ticketlab.training.observers import Snapshot
from ticketlab.training.recipe import FURTHER, Step

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes

MAIN_ARMS, EXTRA_ARMS = tiny.DLTH["arms"], tiny.DLTH["extra_arms"]
OTHER = tiny.DLTH["others"][0]
ONE_SIDE: dict[str, Any] = {"extra_arms": [], "extra_levels": [], "rates": [], "draws": 0}
Study = tuple[RstParams, dict[str, Result], Path]


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study, run once for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        with shared_folder(tmp_path_factory, "rst") as folder:
            return tiny.dlth(), run_study(dlth_study.phases(tiny.dlth()), folder), folder


def row_of(rows: pd.DataFrame, arm: str, seed: int = 0, level: float = 0.8) -> pd.Series:
    found = rows[(rows.case == "main") & (rows.arm == arm) & (rows.seed == seed)]
    (place,) = found.index[(found.level == level) | (arm == "dense")]
    return found.loc[place]


# --- the study


def test_every_arm_runs_at_its_levels_for_every_seed(done: Study) -> None:
    rows = metrics.arms_table(done[1])
    main = rows[rows.case == "main"]
    levels = {arm: [0.5, 0.8] for arm in MAIN_ARMS} | {arm: [0.8] for arm in EXTRA_ARMS}
    for arm, expected in (levels | {"dense": [0.0]}).items():
        for seed in (0, 1):
            found = main[(main.arm == arm) & (main.seed == seed)]
            assert sorted(found.level) == expected, arm
    assert set(rows[rows.case == "boundary"].arm) == {"dense", "scratch", "rst", "lth"}
    assert rows.last_accuracy.between(0, 100).all() and rows.intact.all()


def test_arms_with_a_random_mask_share_it_and_erk_and_magnitude_do_not(done: Study) -> None:
    rows = metrics.arms_table(done[1])
    digest = {arm: row_of(rows, arm).mask_sha256 for arm in (*MAIN_ARMS, *EXTRA_ARMS)}
    same = ("scratch", "scratch-long", "warm-up", "abrupt", "rst-jump", "rst-square", "rst-cube",
            "reinit", "signs")  # fmt: skip
    assert {digest[arm] for arm in same} == {digest["rst"]}
    assert digest["rst-erk"] == digest["scratch-erk"] and digest["rst-lth-mask"] == digest["lth"]
    different = ("rst", "rst-erk", "rst-magnitude", "rst-antimagnitude", "lth", "shuffled")
    assert len({digest[arm] for arm in different}) == len(different)
    assert row_of(rows, "rst", seed=1).mask_sha256 != digest["rst"]
    exact = {arm: row_of(rows, arm).exact for arm in digest}
    assert [arm for arm, is_exact in exact.items() if not is_exact] == ["rst-erk", "scratch-erk"]


def test_controls_see_as_many_images_as_rst_and_searches_are_counted(done: Study) -> None:
    rows = metrics.arms_table(done[1])
    images = {arm: row_of(rows, arm).images for arm in ("dense", *MAIN_ARMS, *EXTRA_ARMS)}
    assert images["scratch"] == images["dense"] == images["scratch-erk"] == 4 * 50
    for arm in ("rst", "scratch-long", "warm-up", "abrupt"):
        assert images[arm] == (4 + 5) * 50, arm
    for arm in ("shuffled", "reinit", "signs"):  # the ticket, then as much again as RST in all
        assert images[arm] == 5 * 50 + (4 + 5) * 50, arm
    assert images["rst-lth-mask"] == (4 + 4 + 5) * 50  # the mask is that of a trained dense net
    assert images["rst-iter"] == (4 + 2 * 2) * 50 and images["lth"] == images["l1"] == 2 * 4 * 50
    assert images["lth-iter"] == (4 + 2 * 3) * 50
    bird = row_of(rows, "early-bird")
    assert bird.images == (4 + bird.drawn_at) * 50
    sparse, dense = row_of(rows, "scratch"), row_of(rows, "dense")
    assert sparse.sparse_flops < sparse.dense_flops == dense.dense_flops == dense.sparse_flops


def test_a_magnitude_mask_keeps_the_largest_initial_weights(tiny_root: Path, done: Study) -> None:
    start = Bench(tiny.dlth_cell(), 0).net().state()
    masks = {a: done[1][f"main/{a}-80/seed-0"].tickets["ticket"].mask for a in EXTRA_ARMS[:2]}
    ratios = {arm: algorithm.weight_ratio(start, mask) for arm, mask in masks.items()}
    assert ratios["rst-magnitude"] < 0.6 < 1.5 < ratios["rst-antimagnitude"]


def test_the_swap_carries_lths_mask_and_a_further_draw_only_one_half(done: Study) -> None:
    _, results, _ = done
    swap = results["main/rst-lth-mask-80/seed-0"].tickets["ticket"].mask
    assert swap == results["main/pretrained/seed-0"].tickets["lth-80"].mask
    first = results["main/rst-80/seed-0"].tickets["ticket"]
    mask = results["main/draw-mask-1/seed-0"].tickets["ticket"]
    init = results[f"main/draw-init-1/seed-{draw_seed(0, 1)}"].tickets["ticket"]
    assert init.mask == first.mask and jaccard(mask.mask, first.mask) < 0.5
    draws = metrics.draws_table(results, done[0])
    assert set(draws.case) == {"main"}
    assert (draws.groupby(["seed", "varied"]).draw.nunique() == 3).all() and len(draws) == 12
    firsts = draws[draws.draw == 0].groupby("seed").last_accuracy.unique()
    own = {s: row_of(metrics.arms_table(results), "rst", s).last_accuracy for s in (0, 1)}
    assert firsts.map(list).to_dict() == {seed: [value] for seed, value in own.items()}


def test_a_stored_ticket_has_exact_zeros_where_its_mask_removes(done: Study) -> None:
    ticket = done[1]["main/rst-80/seed-0"].tickets["ticket"]
    assert ticket.weights is not None
    assert all(not ticket.weights[n][~keep].any() for n, keep in ticket.mask.items())


def test_a_finished_study_is_not_run_again_and_a_unit_repeats_bit_for_bit(
    done: Study, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, results, folder = done
    unit = next(u for u in dlth_study.first_units(params) if u.name == "main/rst-80/seed-1")
    assert unit.work(**unit.arguments).record == results[unit.name].record
    monkeypatch.setattr(cost, "train", None)  # whoever trains now fails
    again = run_study(dlth_study.phases(params), folder)
    assert {name: r.record for name, r in again.items()} == {
        name: r.record for name, r in results.items()
    }


def test_expected_passes_are_those_of_the_rows(done: Study, tiny_root: Path) -> None:
    """Exact but for early-bird, whose draw is not known before, and shared first stages."""
    rows = metrics.all_rows(done[1])
    assert 0.5 < expected_passes(done[0]) / rows.images.sum() < 1.1


def test_looks_follow_lambda_and_start_with_all_signs(done: Study) -> None:
    looks = metrics.looks_table(done[1])
    first = looks[looks.iteration == 0]
    assert (first.same_sign == 1).all() and (first["lambda"] == 0).all()
    ends = looks[(looks.iteration == 5) & (looks.case == "main")]
    by_arm = ends.groupby("arm")["lambda"].unique().map(list).to_dict()  # u ends at 1 + 1/4
    expected = {"rst": 1.25, "rst-jump": 1.0, "rst-square": 1.25**2, "rst-cube": 1.25**3}
    assert by_arm == {arm: [10 * factor] for arm, factor in expected.items()}
    jump = looks[(looks.arm == "rst-jump") & (looks.iteration > 0)]
    assert (jump["lambda"] == 10).all()
    assert set(looks.arm) == {"rst", "rst-jump", "rst-square", "rst-cube"}


@pytest.mark.parametrize("damage", ["shuffled", "reinit", "signs"])
def test_damage_leaves_biases_and_batch_norm(damage: str, done: Study, tiny_root: Path) -> None:
    bench, ticket = Bench(tiny.dlth_cell(), 0), done[1]["main/rst-80/seed-0"].tickets["ticket"]
    assert ticket.weights is not None
    state, places = units.damage_ticket(bench, damage, ticket.weights, ticket.mask)
    for name, tensor in ticket.weights.items():
        assert torch.equal(state[name], tensor) == (name not in ticket.mask), name
    assert (places == ticket.mask) == (damage != "shuffled")


def test_a_light_level_may_have_lth_alone(tiny_root: Path, tmp_path: Path) -> None:
    """Scratch and RST run at the highest level, with the keys that they have without the other."""
    extra = {"extra_arms": ["scratch", "rst"], "extra_levels": [0.8]}
    params = tiny.dlth(levels=[0.5, 0.8], arms=["lth"], rates=[], others=[], draws=0, **extra)
    both = tiny.dlth(levels=[0.8], arms=["lth"], rates=[], others=[], draws=0, **extra)
    some, usual = ({u.name: u.key for u in dlth_study.first_units(one)} for one in (params, both))
    assert set(some) == set(usual) and [n for n in some if some[n] != usual[n]] == [
        name for name in some if "/pretrained/" in name
    ]
    results = run_study(dlth_study.phases(params), tmp_path)
    rows, looks = metrics.arms_table(results), metrics.looks_table(results)
    assert set(rows[rows.level == 0.5].arm) == {"lth"}
    numbers = metrics.metrics(results, params)
    assert numbers["controls"]["main"]["pruning_does_not_help"]["number"]["n"] == len(params.seeds)
    for figure in (dlth_figures.gains(rows, params.cases),
                   dlth_figures.extrusion(looks, params, numbers["method"])):  # fmt: skip
        assert len(figure.axes) == 1


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"penalty": {"ceiling": 10.0, "ramp": 9, "every": 1}}, "penalty.ramp: 9 iterations"),
        ({"penalty": {"ceiling": 400.0, "ramp": 4, "every": 1}}, "lr x lambda = .* unstable"),
        ({"iterative": {"cycles": 2, "length": "2it", "ramp": 3}}, "penalty.ramp: 3 iterations"),
        ({"extra_levels": [0.6]}, "extra_levels: 0.6 is not one of levels"),
        ({"extra_levels": []}, "extra_levels: empty"),
        ({"others": [OTHER | {"name": "main"}]}, "are not all different"),
        ({"name": "x", "others": [OTHER | {"name": "main"}]}, "a case is called 'main'"),
        ({"data": tiny.DIGITS.model_dump() | {"validation": 0}}, "data.validation is 0"),
        ({"finetune": {"batch": 50, "length": "0it"}}, "recipe.length: '0it' is 0"),
        ({"finetune": {"batch": 50, "milestones": ["2it"]}}, "milestones: '2it', allowed are"),
        (
            ONE_SIDE | {"arms": ["rst", "lth"]},
            "arms: rst, lth, allowed are arms with 'scratch' at ",
        ),
        (
            ONE_SIDE | {"arms": ["scratch"]},
            "arms: scratch, allowed are arms with 'rst' at level 0.8",
        ),
        ({"rates": [0.05, 0.2]}, "rates: 0.1, the rate of finetune, is not among them"),
        (
            {"rate_arms": ["scratch", "rst", "rst-erk"], "levels": [0.8, 0.9]},
            "rate_arms: 'rst-erk' d",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_one_line(
    tiny_root: Path, tmp_path: Path, one_line: Message, changes: dict[str, Any], expected: str
) -> None:
    message = one_line(lambda: run_study(dlth_study.phases(tiny.dlth(**changes)), tmp_path))
    assert re.search(expected, message), message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"penalty": {"ceiling": 0.0}}, "dlth.penalty.ceiling: 0.0 is not valid"),
        ({"penalty": {"power": 4}}, "dlth.penalty.power: 4 is not valid"),
        ({"levels": [1.0]}, "dlth.levels.0: 1.0 is not valid"),
        ({"levels": [-0.1]}, "dlth.levels.0: -0.1 is not valid"),
        ({"levels": [0.0, 0.9]}, "dlth.levels.0: 0.0 is not valid, allowed is greater than 0"),
        ({"extra_levels": [0.0]}, "dlth.extra_levels.0: 0.0 is not valid"),
        (
            {"rate_arms": ["rst", "lth"]},
            "dlth.rate_arms: ['rst', 'lth'] is not valid, allowed are arms with 'scratch'",
        ),
        ({"others": [OTHER | {"arms": ["rst"]}]}, "dlth.others.0.arms: ['rst'] is not valid"),
        ({"arms": ["rst", "magic"]}, "dlth.arms.1: 'magic' is not valid"),
        ({"penalty": {"ramps": 3}}, "dlth.penalty.ramps: unknown key"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(
    one_line: Message, changes: dict[str, Any], expected: str
) -> None:
    values = deepcopy(tiny.DLTH) | changes
    assert one_line(lambda: files.validate(RstParams, values, "dlth")).startswith(expected)


def test_a_unit_that_transforms_needs_its_recipe(one_line: Message) -> None:
    for setting in (tiny.dlth_cell(), tiny.compare_setting()):
        assert setting.pressed == setting.transform
        without = setting.model_copy(update={"transform": None})
        assert one_line(lambda without=without: without.pressed).startswith("transform: none")  # type: ignore[misc]


def test_further_draws_have_seeds_that_no_study_may_have(one_line: Message) -> None:
    drawn = [draw_seed(seed, draw) for seed in (0, 1, FURTHER - 1) for draw in (1, 99)]
    assert len(set(drawn)) == 6 and min(drawn) > FURTHER
    values = deepcopy(tiny.DLTH) | {"seeds": [0, FURTHER]}
    message = one_line(lambda: files.validate(RstParams, values, "dlth"))
    assert message == "dlth.seeds.1: 1000000 is not valid, allowed is less than 1000000"


# --- params.yaml


@pytest.mark.parametrize("study", ["desk", "cifar10", "paper"])
def test_every_block_starts(study: str, tiny_root: Path, one_line: Message) -> None:
    """A cut-down form of each case of each block: tiny images, few steps, the block's net."""
    params = files.load_paper(study, "dlth")
    assert isinstance(params, RstParams)
    for place in range(len(params.cases)):
        cut = cut_down(params, place)
        if cut.model.name.endswith("imagenet"):  # too large for the tiny images
            continue
        cell = cut.cell(cut.runtime, *Cell.model_fields)
        found = units.train_pressed(cell, 0, "rst", max(cut.levels), mask_seed=0)
        assert found.record["rows"][0]["exact"] and found.record["rows"][0]["intact"]


def cut_down(params: RstParams, place: int) -> RstParams:
    case = params.cases[place]
    values = {name: getattr(case, name) for name in Case.model_fields}
    for stage in ("finetune", "transform"):
        values[stage] = values[stage].model_copy(update={"length": Step(2, "it"), "batch": 20})
    values["penalty"] = case.penalty.model_copy(update={"ramp": 2, "every": 1})
    changes = {"data": tiny.DIGITS, "extra_arms": (), "extra_levels": (), "draws": 0, "looks": 1}
    return RstParams(**values | changes, seeds=(0,), others=(), runtime=tiny.dlth().runtime)


def test_data_of_further_cases_are_prepared_too() -> None:
    assert files.data_names(files.load_paper("paper", "dlth")) == [
        "cifar10",
        "cifar100",
        "tiny_imagenet",
    ]


# --- the report


def test_every_claim_finds_its_number(done: Study) -> None:
    numbers = metrics.metrics(done[1], done[0])
    verdicts = {claim.id: judge(claim, numbers).word for claim in load_claims("dlth")}
    missing = [name for name, word in verdicts.items() if word == "not run"]
    assert missing == ["dlth-H6"]
    assert numbers["budget"]["rst"] == 9 / 4


def test_references_are_the_dense_nets_beside_a_constant_answer(done: Study) -> None:
    params, results, _ = done
    found = metrics.metrics(results, params)["references"]
    rows = metrics.arms_table(results)
    for case, key in zip(params.cases, ("main", "boundary"), strict=True):
        labels = load(case.data).test.y
        (reference,) = found[key].values()
        own = rows[(rows.case == case.name) & (rows.arm == "dense")]
        assert reference["score"] == as_metric(own.last_accuracy)
        assert reference["images"] == len(labels)
        assert reference["chance"] == 100 * int(labels.bincount().max()) / len(labels)
    assert found["tiny_imagenet"] is None


def test_a_study_of_few_arms_leaves_the_rest_null(tiny_root: Path, tmp_path: Path) -> None:
    few = tiny.dlth(seeds=[0], arms=["scratch", "rst"], extra_arms=[], extra_levels=[], draws=0,
               levels=[0.8], rates=[], others=[])  # fmt: skip
    numbers = metrics.metrics(run_study(dlth_study.phases(few), tmp_path), few)
    assert numbers["gap_growth"] is None and numbers["draws"]["inits_over_masks"] is None
    controls = numbers["controls"]["main"]
    assert [name for name, one in controls.items() if one is not None] == ["trained"]
    assert numbers["controls"]["boundary"] is numbers["own_rate"]["boundary"] is None
    assert set(numbers["own_rate"]["main"].values()) == {None}
    words = [judge(claim, numbers).word for claim in load_claims("dlth")]
    assert set(words) == {"not run", "undecided"}


def test_every_arm_may_be_an_extra_arm(tiny_root: Path, tmp_path: Path) -> None:
    few = tiny.dlth(
        seeds=[0],
        arms=["scratch", "rst"],
        extra_arms=["abrupt", "early-bird"],
        rates=[],
        draws=0,
        others=[],
    )
    rows = metrics.arms_table(run_study(dlth_study.phases(few), tmp_path))
    for arm in ("abrupt", "early-bird"):
        assert rows[rows.arm == arm].level.tolist() == list(few.extra_levels), arm
    assert set(few.extra_levels) < set(few.levels)


def arms(**by_arm: list[float]) -> pd.DataFrame:
    """A table of arms at one level, one value a seed."""
    rows = [
        {"arm": arm, "seed": seed, "level": 0.0 if arm == "dense" else 0.9, "last_accuracy": value}
        for arm, values in by_arm.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_and_absent_arms_are_null() -> None:
    rows = arms(rst=[80.0, 82.0, 84.0], scratch=[79.0, 80.0, 81.0], dense=[90.0, 90.0])
    assert metrics.difference(rows, "rst", "scratch", 0.9) == {0: 1.0, 1: 2.0, 2: 3.0}
    assert metrics.difference(rows, "rst", "dense", 0.9) == {0: -10.0, 1: -8.0}
    found = metrics.differences(rows, (0.9,))
    assert found["rst_minus_scratch"]["mean"]["mean"] == 2.0
    assert found["rst_minus_lth"] == {"at_90": None, "mean": None}


def rated(**by_rate: tuple[float, float]) -> pd.DataFrame:
    """A table of RST's seed 0 at rates lr_0_05 and so on: validation and test accuracy."""
    rows = [
        {"case": name(rate), "arm": "rst", "seed": 0, "level": 0.8, "lr": rate,
         "last_validation": validation, "last_accuracy": test}
        for key, (validation, test) in by_rate.items()
        for rate in [float(key.removeprefix("lr_").replace("_", "."))]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def name(rate: float) -> str:
    """The case that runs at a rate in the tiny study."""
    return "main" if rate == 0.1 else f"main-lr-{rate:g}".replace(".", "_")


def test_an_arms_own_rate_is_best_on_validation_whatever_the_test_images_say() -> None:
    case = tiny.dlth().cases[0]
    rows = rated(lr_0_05=(70.0, 60.0), lr_0_1=(69.0, 80.0))  # the best on test is the other one
    assert metrics.at_own_rates(rows, case).lr.tolist() == [0.05]
    assert metrics.at_own_rates(
        rated(lr_0_05=(70.0, 60.0), lr_0_1=(71.0, 50.0)), case
    ).lr.tolist() == [0.1]
    assert metrics.at_own_rates(
        rated(lr_0_1=(70.0, 1.0), lr_0_05=(70.0, 2.0)), case
    ).lr.tolist() == [0.05]
    without = tiny.dlth(rates=[]).cases[0]
    assert metrics.at_own_rates(rows, without).empty


def test_rates_are_chosen_by_seed_and_arm_and_stay_paired(done: Study) -> None:
    params, results, _ = done
    case, rows = params.cases[0], metrics.arms_table(results)
    assert [each.name for each in case.rated] == ["main-lr-0_05"]
    own = metrics.at_own_rates(rows, case)
    arms = {"dense", *case.rate_arms}
    assert sorted(zip(own.arm, own.seed, strict=True)) == sorted(product(arms, (0, 1)))
    for _, row in own.iterrows():
        other = rows[(rows.arm == row.arm) & (rows.seed == row.seed) & rows.case.isin(
            ("main", "main-lr-0_05")) & rows.level.isin((row.level,))]  # fmt: skip
        assert len(other) == 2 and row.last_validation == other.last_validation.max()
    pairs = metrics.judged(own, case)
    by_arm = {
        arm: dict(zip(*(own[own.arm == arm][k] for k in ("seed", "last_accuracy")), strict=True))
        for arm in arms
    }
    assert pairs["rst_minus_lth"] == as_metric(minus(by_arm["rst"], by_arm["lth"]))
    found = metrics.by_rate(rows, case)
    assert set(found) == arms and set(found["rst"]) == {"lr_0_05", "lr_0_1", "lr_own"}
    assert found["rst"]["lr_own"] == as_metric(by_arm["rst"])


def test_a_rated_case_differs_from_its_case_in_the_rate_alone(done: Study) -> None:
    rows = metrics.arms_table(done[1])
    one, other = (rows[(rows.case == c) & (rows.level == 0.8)].set_index(["arm", "seed"])
                  for c in ("main", "main-lr-0_05"))  # fmt: skip
    arms = [key for key in other.index if key[0] not in ("dense", "lth")]
    assert (one.loc[arms].mask_sha256 == other.loc[arms].mask_sha256).all()
    assert (one.loc[arms].images == other.loc[arms].images).all()
    assert (one.loc[arms].lr == 0.1).all() and (other.loc[arms].lr == 0.05).all()


def test_what_chooses_a_rate_is_the_net_after_its_last_epoch(tiny_root: Path) -> None:
    cell = tiny.dlth_cell(finetune={"batch": 50, "length": "3ep", "lr": 0.5}, rates=[])
    best_is_another = False
    for seed in range(4):
        found = units.train_plain(cell, seed, "scratch", 0.8)
        outcome, (row,) = found.tickets["ticket"].outcome, found.record["rows"]
        bench = Bench(cell, seed)
        net, held_out = bench.net(), bench.data.validation
        assert outcome is not None and row["lr"] == 0.5
        net.rewind(outcome.state)
        score = evaluate(net, held_out, Batches(held_out, bench.data))
        assert row["last_validation"] == 100 * score.accuracy
        best_is_another |= row["validation_accuracy"] > row["last_validation"]
    assert best_is_another, "or this test could not tell the two apart"


def bed(**by_arm: list[float]) -> pd.DataFrame:
    """`arms` as rows of the tiny study's main case: LTH at both levels, the others at the high."""
    rows = arms(**by_arm).assign(case="main", lr=0.1, last_validation=50.0)
    rows["train_accuracy"] = rows.last_accuracy + 5
    rows["before_removal"], rows["after_removal"] = 70.0, rows.last_accuracy
    rows.loc[rows.arm != "dense", "level"] = 0.8
    light = rows[rows.arm == "lth"].assign(level=0.5, last_accuracy=lambda f: f.last_accuracy + 8)
    return pd.concat([rows, light], ignore_index=True)


def test_positive_controls_are_what_their_numbers_say() -> None:
    rows = bed(dense=[84.0, 85.0], scratch=[70.0, 72.0], lth=[75.0, 76.0], abrupt=[20.0, 10.0])
    entries = metrics.positive_controls(rows, tiny.dlth(rates=[]).cases[0])
    found = all_of({"controls": {"main": entries}})
    numbers = {one.name: (one.evidence.mean, one.bound, one.strictly) for one in found}
    assert numbers == {
        "trained": (89.5, 80.0, False),
        "pruning_does_not_help": (1.0, -1.0, False),
        "lth_beats_scratch": (4.5, 0.0, True),
        "abrupt_removal_costs": (55.0, 20.0, False),
    }
    assert entries["imp_beats_random"] is entries["lth_beats_scratch_own_rate"] is None


def test_tables_of_pairs_have_what_ran_at_either_rate(done: Study) -> None:
    numbers = metrics.metrics(done[1], done[0])
    table = report.pairs_table(numbers, "main", metrics.HEADLINE)
    assert list(table.columns) == ["one common rate", "own rates"]
    assert list(table.index) == [
        "RST minus LTH, one shot",
        "RST minus random mask",
        "RST minus random mask, long",
        "LTH, one shot minus random mask",
    ]
    own = numbers["own_rate"]["main"]["rst_minus_lth"]
    assert table.loc["RST minus LTH, one shot", "own rates"] == str(Interval(**own))
    damaged = report.pairs_table(numbers, "main", metrics.DAMAGE)
    assert list(damaged.columns) == ["one common rate"] and len(damaged) == 4
    assert report.pairs_table(numbers, "tiny_imagenet", metrics.HEADLINE).empty
    chosen = metrics.at_own_rates(metrics.arms_table(done[1]), done[0].cases[0])
    rates = report.rates_table(numbers, "main", chosen)
    assert list(rates.columns) == ["rate 0.05", "rate 0.1", "own rate", "chosen"]
    counted = chosen[chosen.arm == "rst"].lr.value_counts().sort_index()
    assert rates.loc["RST", "chosen"] == ", ".join(f"{lr:g} in {n}" for lr, n in counted.items())


def test_the_page_says_what_decides_and_how_the_control_stands_elsewhere() -> None:
    case = tiny.dlth().cases[0].model_copy(update={"levels": (0.9, 0.98)})
    high, low = as_metric({0: -1.0, 1: 1.0, 2: 0.0}), as_metric({0: 1.0, 1: 1.2, 2: 1.1})
    by_level = {"at_98": high, "at_90": low, "mean": None}
    numbers = {"differences": dict.fromkeys(report.SHOWN_BY_LEVEL, by_level)}
    first, at_98, at_90, last = report.at_other_levels(numbers, case).split(". ")
    assert "decided at 98 % sparsity alone" in first
    assert at_98.startswith("At 98 % sparsity LTH minus Scratch is 0.00 points [-2.48")
    assert at_98.endswith("does not pass there")
    assert at_90.startswith("At 90 % sparsity LTH minus Scratch is 1.10 points [0.85")
    assert at_90.endswith("would pass there") and last == "The other levels decide nothing."


def test_claims_that_name_a_sparsity_are_decided_there_in_every_study() -> None:
    """A study with another highest level would make them false."""
    checked = set()
    for one in load_claims("dlth"):
        if said := re.match(r"At (\d+) % sparsity ", one.statement):
            part, bed = one.metric.split(".")[:2]
            for study in one.studies:
                params = files.load_paper(study, "dlth")
                assert isinstance(params, RstParams)
                beds = metrics.beds(params)
                if case := beds.get(bed if part != "method" else "main"):
                    assert f"{100 * case.judged:g}" == said[1], (one.id, study)
                    checked.add(one.id)
    assert {"dlth-H1", "dlth-H2-own", "dlth-H6", "dlth-C9-long", "dlth-C7-boundary"} <= checked


def test_the_headline_pairs_keep_their_tickets_outcomes(done: Study) -> None:
    """LTH's tickets have another name and lie with the dense net."""
    params, results, _ = done
    kept = images.hits(results, load(params.data).test.y)
    pairs = report.image_pairs(params.cases[0])
    assert list(pairs)[:2] == ["RST minus LTH, one shot", "RST minus random mask"]
    assert {key for pair in pairs.values() for key in pair} <= set(kept)
    assert list(images.pairs_table(kept, pairs).index) == list(pairs)
    assert report.images_table(results, params).empty  # each seed has test images of its own


def test_the_gap_grows_from_the_lowest_level_to_the_highest() -> None:
    low = arms(rst=[80.0, 81.0], scratch=[79.0, 80.0]).assign(level=0.5)
    rows = pd.concat([low, arms(rst=[70.0, 71.0], scratch=[66.0, 69.0])])
    growth = metrics.gap_growth(rows, (0.5, 0.9))
    assert growth is not None and (growth["mean"], growth["n"]) == (2.0, 2)
    assert metrics.gap_growth(rows, (0.5,)) is None


def test_deviations_are_by_seed_and_a_seed_without_any_has_no_ratio() -> None:
    scores = {(0, "mask"): (1.0, 2.0, 3.0), (0, "init"): (2.0, 4.0, 6.0),
              (1, "mask"): (5.0, 5.0, 5.0), (1, "init"): (5.0, 6.0, 7.0)}  # fmt: skip
    rows = [{"seed": s, "varied": v, "draw": i, "last_accuracy": x}
            for (s, v), values in scores.items() for i, x in enumerate(values)]  # fmt: skip
    found = metrics.deviations(pd.DataFrame(rows))
    assert found["over_masks"] == {0: 1.0, 1: 0.0} and found["over_inits"] == {0: 2.0, 1: 1.0}
    assert found["inits_over_masks"] == {0: pytest.approx(np.log(2))}


def test_the_closed_gap_is_the_widest_lead_less_the_last() -> None:
    looks = pd.DataFrame({
        "seed": 0, "level": 0.9, "iteration": [20, 0, 10],
        "dense_mode": [60.0, 10.0, 50.0], "masked_mode": [61.0, 10.0, 30.0],
    })  # fmt: skip
    assert metrics.gap_closed(looks) == {0: 21.0}


def test_what_removal_gains_is_after_less_before() -> None:
    rows = pd.DataFrame(
        {"seed": [4, 5], "before_removal": [70.0, 60.0], "after_removal": [71.5, 40.0]}
    )
    assert metrics.removal_gain(rows) == {4: 1.5, 5: -20.0}
    assert metrics.removal_gain(rows[:0]) == {}


# --- by hand and figures


def test_the_hand_made_part_of_the_notebook_draws(done: Study, tiny_root: Path) -> None:
    bench, case = Bench(tiny.dlth_cell(), 0), done[0].cases[0]
    net = bench.net()
    start, mask = net.state(), units.draw_mask(bench, net, 0.8)
    snapshot = Snapshot(Step(100, "%"))
    watch = algorithm.Watch(mask, bench.data.validation, bench.data, 2)
    observers = [watch, snapshot]
    algorithm.transform(net, bench.data, mask, case.transform, case.penalty, (0,), observers)
    early = units.watch_finetuning(bench, net, mask, case.finetune, looks=2)
    assert [look["iteration"] for look in early] == [0, 2, 4]
    assert all(look["dense_mode"] == look["masked_mode"] for look in early)
    assert snapshot.state is not None
    drawn = [
        figures_by_hand.timeline(watch.looks, early, case.penalty, 3.0),
        figures_by_hand.histograms({"start": start, "end": snapshot.state}, mask),
        figures_by_hand.jump({"RST": early}, [2]),
    ]
    assert all(figure.get_label() for figure in drawn)
    assert list(report.curve_table({"RST": early}).columns) == ["RST"]


def test_figures_of_all_arms_draw(done: Study) -> None:
    params, results, _ = done
    rows, looks = metrics.arms_table(results), metrics.looks_table(results)
    own, numbers = rows[rows.case == "main"], metrics.metrics(results, params)
    figures = [
        dlth_figures.accuracy(own, params.cases[0]),
        dlth_figures.fairness(rows, params.cases[0]),
        dlth_figures.gains(rows, params.cases),
        dlth_figures.extrusion(looks, params.cases[0], numbers["method"]),
        dlth_figures.schedules(own, looks, params),
        dlth_figures.draws(metrics.draws_table(results, params), numbers["draws"]),
    ]
    assert [len(figure.axes) for figure in figures] == [2, 2, 3, 2, 3, 2]
    assert all(figure.get_label() for figure in figures)
    tables: Mapping[str, pd.DataFrame] = {
        case.name: report.accuracy_table(numbers, case.name) for case in params.cases
    }
    assert list(tables["main"]) == ["at 0 %", "at 50 %", "at 80 %"]
    assert report.cost_table(rows, "main").loc["RST", "images / Scratch"] == 9 / 4


def test_an_early_bird_drawn_at_the_end_is_not_early(tiny_root: Path) -> None:
    """Its mask and weights are then those of L1, and the two arms one."""
    case = tiny.dlth().cases[0]
    end = case.finetune.iterations(len(load(case.data).train))[1]
    drawn = pd.DataFrame({"arm": "early-bird", "level": case.judged, "seed": [1, 2]})
    found = metrics.early_birds(drawn.assign(drawn_at=[end, end - 1]), case)
    assert found == {1: False, 2: True}
    assert metrics.early_birds(drawn.assign(arm="l1", drawn_at=end), case) == {}
