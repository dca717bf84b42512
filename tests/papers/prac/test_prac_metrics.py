"""PrAC's metrics and controls on tables made by hand, where the right numbers are known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch

from ticketlab.data.sets import load
from ticketlab.papers.prac import figures, metrics, report
from ticketlab.papers.prac.controls import controls
from ticketlab.papers.prac.params import PracParams
from ticketlab.pipeline.params import load_paper
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.controls import all_of

Accuracies = Mapping[tuple[str, int], tuple[float, ...]]

TESTED: Accuracies = {
    ("imp", 0): (80.0, 80.0, 82.0),
    ("imp", 1): (81.5, 82.5, 84.0),
    ("imp", 2): (80.0, 79.0, 81.0),
    ("imp", 3): (78.0, 77.0, 79.0),
    ("prac", 2): (80.5, 79.0, 81.0),
    ("prac", 3): (76.0, 75.5, 77.0),
    ("random", 2): (80.0, 79.5, 81.0),
    ("random", 3): (76.5, 75.0, 77.0),
    ("random-pruning", 2): (78.0, 76.0, 79.0),
    ("random-pruning", 3): (70.0, 71.0, 71.0),
    ("imp-shuffled", 2): (80.0, 79.0, 81.5),
    ("imp-shuffled", 3): (78.0, 77.5, 78.0),
}
"""Test accuracy after the last epoch by arm and round, a number for each seed."""


def scores(tested: Accuracies = TESTED, place: str = "main") -> pd.DataFrame:
    """A table of tickets; the epoch that validation chose says something else."""
    rows = [
        {"place": place, "arm": arm, "seed": seed, "round": level, "sparsity": 1 - 0.5**level,
         "last_accuracy": value, "selected_accuracy": 50.0 + seed, "train_accuracy": 90.0 + seed}
        for (arm, level), values in tested.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def rounds(stopped: Mapping[int, str], place: str = "main") -> pd.DataFrame:
    """PrAC's rounds by seed: `s` for one that the mask ended."""
    rows = [
        {"place": place, "arm": "prac", "seed": seed, "round": number, "stopped": end == "s"}
        for seed, ends in stopped.items() for number, end in enumerate(ends, start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


ENDS = {0: "ss.", 1: "s.s", 2: "sss"}


def params(**changes: Any) -> PracParams:
    return tiny.prac(**{"seeds": [0, 1, 2], "others": []} | changes)


def test_differences_are_of_the_last_epoch_and_paired_by_seed() -> None:
    found = metrics.differences(scores(), params())["prac_minus_imp"]
    assert found["first_level"].by_seed == {0: 0.5, 1: 0.0, 2: 0.0}
    assert found["last_level"].by_seed == {0: -2.0, 1: -1.5, 2: -2.0}
    assert found["mean"].by_seed == {0: -0.75, 1: -0.75, 2: -1.0}


def test_random_sets_that_do_as_well_show_no_difference() -> None:
    """The claim that PrAC's sets are better can end in these words, and in none by its bound."""
    (claim,) = (one for one in load_claims("prac") if one.id == "prac-S7-random")
    bare = claim.model_copy(update={"needs": ()})

    def word(*random: float) -> str:
        tested = {**TESTED, ("random", 2): random, ("random", 3): random}
        tested |= {("prac", 2): (80.0, 80.0, 80.0), ("prac", 3): (80.0, 80.0, 80.0)}
        found = metrics.differences(scores(tested), params())
        dense = {"score": {"mean": 80.0, "low": 79.0, "high": 81.0, "n": 3}, "chance": 10.0}
        arms = {"the dense net": dense | {"images": 1000}}
        return judge(bare, {"references": {"dense": arms}, "differences": found}).word

    assert word(80.1, 79.9, 80.1) == "no difference"
    assert word(77.9, 78.0, 78.1) == "reproduced"
    assert word(82.0, 82.1, 81.9) == "not reproduced"
    assert word(85.0, 75.0, 80.0) == "undecided"


def test_controls_are_what_they_say() -> None:
    found = controls(rounds(ENDS), scores(), params())
    assert set(found) == {"main", "others"} and set(found["others"].values()) == {None}
    by_seed = {name: entry["number"].by_seed for name, entry in found["main"].items()}
    assert by_seed["trained"] == {0: 90.0, 1: 91.0, 2: 92.0}
    assert by_seed["pruning_does_not_help"] == {0: -1.5, 1: -2.5, 2: -2.0}
    assert by_seed["imp_beats_random"] == {0: 5.0, 1: 4.5, 2: 5.0}
    assert by_seed["imp_beats_shuffled"] == {0: 0.0, 1: -0.25, 2: 0.25}
    assert by_seed["early_stop_fires"] == pytest.approx({0: 200 / 3, 1: 200 / 3, 2: 100.0})
    passed = {one.name: one.passed for one in all_of({"controls": found})}
    assert passed == {
        "trained": True, "pruning_does_not_help": False, "imp_beats_random": True,
        "imp_beats_shuffled": False, "early_stop_fires": False,  # its interval is wide
    }  # fmt: skip


def test_the_other_nets_pass_or_fail_together() -> None:
    both = [tiny.prac_other(name=name, levels=[2]) for name in ("one", "two")]
    tested = {key: values for key, values in TESTED.items() if "shuffled" not in key[0]}
    more = {**tested, ("random-pruning", 2): (79.0, 78.0, 80.0)}
    table = pd.concat([scores(), scores(tested, "one"), scores(more, "two")])
    turns = pd.concat([rounds(ENDS, place) for place in ("main", "one", "two")])
    found = controls(turns, table, params(others=both))["others"]
    assert found["imp_beats_random"]["number"].by_seed == {0: 1.5, 1: 2.0, 2: 1.5}
    assert found["imp_beats_shuffled"] is None


def saved(**arms: tuple[float, ...]) -> pd.DataFrame:
    """The last round of the searches of some arms, by what they saved in each seed."""
    return pd.DataFrame(
        {"place": "main", "arm": arm.replace("_", "-"), "seed": seed, "round": 3, "saving": value}
        for arm, values in arms.items() for seed, value in enumerate(values)
    )  # fmt: skip


def test_savings_are_against_the_lowest_epsilon_and_early_stopping() -> None:
    turns = saved(prac=(80.0, 82.0, 84.0), imp=(0.0, 0.0, 0.0), imp_early_stop=(40.0, 38.0))
    lower = saved(prac_eps_1=(70.0, 71.0)).replace({"prac-eps-1": "prac-eps-0.03"})
    higher = saved(prac_eps_1=(90.0, 91.0)).replace({"prac-eps-1": "prac-eps-0.06"})
    chosen = params(epsilons=[0.06, 0.03], levels=[2, 3])
    found = metrics.savings(pd.concat([turns, lower, higher]), scores(), chosen)
    assert found["prac_minus_lowest_epsilon"].by_seed == {0: 10.0, 1: 11.0}
    assert found["prac_minus_imp_early_stop"].by_seed == {0: 40.0, 1: 44.0}
    assert found["prac_low_rate"] is None and found["prac"].by_seed == {0: 80.0, 1: 82.0, 2: 84.0}
    assert found["matched_level"] == 2 and found["where_matched"] is None  # no such row here


def test_the_decomposition_is_a_mean_over_the_levels_of_the_ablations() -> None:
    tested = {**TESTED, ("prac-linear", 2): (79.0,), ("prac-linear", 3): (75.0,)}
    turns = saved(imp=(0.0, 0.0, 0.0), prac=(80.0, 82.0, 84.0), prac_linear=(60.0,))
    chosen = params(ablation_levels=[2, 3], shorten="iterations")
    found = metrics.decomposition(turns, scores(tested), chosen)
    assert found["early_stop"]["accuracy"].by_seed == {0: 1.25}
    assert found["early_stop"]["saving"].by_seed == {0: 20.0}
    assert found["data"]["accuracy"].by_seed == {0: -2.0}
    assert found["schedule"] == {"saving": None, "accuracy": None}


def test_the_rarest_class_is_of_the_last_set() -> None:
    def part(number: int, *shares: float) -> list[dict[str, float]]:
        row = {"seed": 0, "round": number}
        return [{**row, "class": kind, "share": share} for kind, share in enumerate(shares)]

    table = pd.DataFrame(part(1, 50.0, 49.0, 1.0) + part(2, 40.0, 50.0, 10.0))
    assert metrics._balance(table) == {0: 20.0}


def test_what_16_rounds_leave_out_is_not_what_the_last_round_leaves_out() -> None:
    table = pd.DataFrame(
        {"place": "main", "seed": seed, "round": number, "share": 30.0 + number + seed,
         "overlap": None if number == 1 else 60.0}
        for seed in (0, 1) for number in range(1, 21)
    )  # fmt: skip
    classes = pd.DataFrame({"seed": [0, 0], "round": [1, 1], "class": [0, 1], "share": [50.0, 50]})
    found = metrics.set_metrics(table, classes, params(rounds=20))
    assert found["left_out"].by_seed == {0: 54.0, 1: 53.0}
    fewer = metrics.set_metrics(table[table["round"] <= 15], classes, params(rounds=15))
    assert fewer["left_out"] is None and fewer["first_share"] == found["first_share"]
    assert found["last_share"].by_seed == {0: 50.0, 1: 51.0}
    assert found["rebound"].by_seed == {0: 19.0, 1: 19.0}
    assert found["overlap"].by_seed == found["overlap_in_round_2"].by_seed == {0: 60.0, 1: 60.0}


def test_only_studies_with_the_published_rounds_claim_what_is_left_out_after_them() -> None:
    (claim,) = (one for one in load_claims("prac") if one.metric == "sets.left_out")
    for study in claim.studies:
        assert load_paper(study, "prac").rounds >= metrics.PUBLISHED_ROUNDS  # type: ignore[attr-defined]


def test_messages_name_the_lowest_level_and_the_control_at_equal_cost() -> None:
    more = {("prac", 2): (80.5, 79.0, 81.0), ("random-pruning", 2): (80.4, 79.2, 80.9)}
    short = {("short-imp", 2): (80.0, 79.5, 81.0), ("short-imp", 3): (77.0, 76.5, 78.0)}
    table = scores({**TESTED, **more, **short})
    said = str(figures.accuracy(table, [2, 3]).get_label())
    assert "At 75.0 % sparsity PrAC's tickets are not clearly different from random" in said
    assert "At 87.5 % sparsity PrAC's tickets beat random pruning: " in said
    said = str(figures.against_imp(table, [2, 3]).get_label())
    assert "; random samples -0.83 [" in said and said.endswith("IMP at 75.0 % sparsity 0.17.")
    assert "; IMP, PrAC's iterations -0.33 [" in said


def test_two_seeds_on_one_split_have_the_same_images(tiny_root: Path) -> None:
    """What two dense nets are asked for is only comparable sample by sample if this holds."""
    setting = params().setting()
    apart, same = ([load(s.data, seed=seed).train_index for seed in (0, 1000)]
                   for s in (setting, report.on_split_of(setting, 0)))  # fmt: skip
    assert not torch.equal(*apart) and torch.equal(*same) and torch.equal(same[0], apart[0])
    fixed = report.on_split_of(setting, 3)
    assert report.on_split_of(fixed, 0) == fixed


def test_lengths_of_rounds_are_in_percent_of_a_full_training() -> None:
    took = {("imp", 1): (400, 400), ("prac", 1): (200, 300), ("prac", 2): (40, 80),
            ("prac", 3): (20, 20)}  # fmt: skip
    table = pd.DataFrame(
        {"place": "main", "arm": arm, "seed": seed, "round": number, "iterations": value}
        for (arm, number), values in took.items() for seed, value in enumerate(values)
    )  # fmt: skip
    found = report.round_lengths(table, params(least_iterations=12)).iloc[:, 0].tolist()
    assert found[0].startswith("3, each prunes 50 %") and found[2:] == [
        "3.0",
        "62.5",
        "5.0 to 15.0",
    ]
