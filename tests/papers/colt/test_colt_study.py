"""COLT's study on tiny images: units, pairing by seed, forecasts, tables, metrics, figures."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import CPU, Message, equal, use_data
from matplotlib.figure import Figure

from ticketlab import progress
from ticketlab.data.sets import load
from ticketlab.papers.colt import algorithm, figures, report
from ticketlab.papers.colt import units as colt_units
from ticketlab.papers.colt.forecast import expected_passes
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.report import (
    accuracies,
    difference,
    interpolated,
    layers_table,
    metrics,
    nearest,
    prediction_table,
    rounds_table,
    rounds_to_target,
    scores_table,
    transfer_differences,
    transfer_table,
)
from ticketlab.papers.colt.study import follow_up_units, phases, search_units
from ticketlab.papers.colt.units import chosen_tickets
from ticketlab.pipeline.params import load_paper, read_studies
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, ones, prune
from ticketlab.study import cost, runner
from ticketlab.study.bench import Bench
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result
from ticketlab.study.runner import run_study
from ticketlab.study.stats import as_metric, as_reference, count, interval, percent_saved
from ticketlab.tickets.ticket import Ticket, make_ticket
from ticketlab.training.recipe import Step

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes

MAIN, RANDOM, FIVE = "colt-class-2of2", "colt-random-2of2", "colt-class-5of5"
PARAMS = tiny.colt(
    ablations=[{"split": "class", "partitions": 5, "seeds": 1}],
    transfer={"data": tiny.DIGITS.model_dump(), "levels": [0.7], "seeds": 1},
)


@dataclass(frozen=True)
class Done:
    """A study that was run, and the images seen by each labelled arm and seed."""

    folder: Path
    results: dict[str, Result]
    passes: dict[tuple[str, int], int]


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patched:
        use_data(patched, tiny_folder)
        progress.listen_to(folder / "events")
        results = run_study(phases(PARAMS), folder / "runs")
        progress.listen_to(None)
    passes: dict[tuple[str, int], int] = defaultdict(int)
    for line in (folder / "events").read_text().splitlines():
        event = json.loads(line)
        if "passes" in event:
            passes[event["arm"], event["seed"]] += event["passes"]
    yield Done(folder / "runs", results, dict(passes))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(cost, "train", refuse)


def alive(result: Result) -> list[int]:
    return [turn["alive"] for turn in result.record["rounds"]]


# --- units


def test_a_unit_for_every_arm_and_seed(done: Done) -> None:
    arms = ["search/imp", f"search/{MAIN}", f"search/{RANDOM}", "search/imp-matched",
            "score/shuffled", "score/reinit", f"score/{MAIN}", f"score/{RANDOM}"]  # fmt: skip
    moved = [
        f"transfer/{arm}-{kind}"
        for arm in (MAIN, "imp", "shuffled")
        for kind in ("weights", "mask")
    ]
    once = [f"search/{FIVE}", f"score/{FIVE}", "transfer/dense", *moved]
    expected = {f"{arm}/seed-{seed}" for arm in arms for seed in (0, 1)}
    assert set(done.results) == expected | {f"{arm}/seed-0" for arm in once}
    stored = {
        path.relative_to(done.folder).with_suffix("").as_posix()
        for path in done.folder.rglob("*.json")
    }
    assert stored == set(done.results)


def test_units_have_their_own_names_and_keys(done: Done, tiny_root: Path) -> None:
    units = search_units(PARAMS) + follow_up_units(PARAMS, done.results)
    assert [unit.name for unit in units] == list(done.results)
    assert len({unit.key for unit in units}) == len(units)
    other = search_units(PARAMS.model_copy(update={"rate": 0.3, "imp_rate": 0.3}))
    assert not {unit.key for unit in other} & {unit.key for unit in units}


def test_searches_come_first_and_need_no_other_unit(tiny_root: Path) -> None:
    names = [unit.name for unit in search_units(PARAMS)]
    assert names and all(name.startswith("search/") for name in names)
    assert not any("matched" in name for name in names)


def test_a_record_says_whose_it_is(done: Done) -> None:
    for name, result in done.results.items():
        _, arm, seed = name.split("/")
        assert arm.removesuffix("-weights").removesuffix("-mask") == result.record["arm"]
        assert seed == f"seed-{result.record['seed']}"
        assert result.record["rounds"]
        for ticket in result.tickets.values():
            assert ticket.metadata["sparsity"] == ticket.mask.sparsity


def test_a_finished_study_is_not_run_again(done: Done, tiny_root: Path, no_training: None) -> None:
    again = run_study(phases(PARAMS), done.folder)
    assert {name: result.record for name, result in again.items()} == {
        name: result.record for name, result in done.results.items()
    }


def test_a_lost_unit_alone_is_run_again_and_comes_out_the_same(done: Done, tiny_root: Path) -> None:
    path = done.folder / "score" / "shuffled" / "seed-1.json"
    content, stamps = path.read_bytes(), {p: p.stat().st_mtime_ns for p in others(path, done)}
    path.unlink()
    run_study(phases(PARAMS), done.folder)
    assert path.read_bytes() == content
    assert {p: p.stat().st_mtime_ns for p in others(path, done)} == stamps


def others(path: Path, done: Done) -> list[Path]:
    own = path.with_suffix("")
    return sorted(p for p in done.folder.rglob("*.*") if p != path and own not in p.parents)


def test_nothing_runs_with_parameters_that_do_not_fit(
    tmp_path: Path, tiny_root: Path, one_line: Message, no_training: None
) -> None:
    assert "partitions: 3" in one_line(
        lambda: run_study(phases(tiny.colt(partitions=3)), tmp_path / "runs")
    )
    assert not (tmp_path / "runs").exists()


# --- what depends on what


def test_matched_imp_follows_colts_numbers_of_weights(done: Done) -> None:
    for seed in (0, 1):
        theirs = alive(done.results[f"search/{MAIN}/seed-{seed}"])
        assert alive(done.results[f"search/imp-matched/seed-{seed}"])[1:] == theirs


def test_scored_tickets_are_those_of_the_search_nearest_to_the_levels(done: Done) -> None:
    for arm in (MAIN, RANDOM):
        search, score = (done.results[f"{kind}/{arm}/seed-1"] for kind in ("search", "score"))
        assert set(score.tickets) == set(chosen_tickets(search, PARAMS.levels))
        for name, ticket in score.tickets.items():
            assert ticket.mask == search.tickets[name].mask


def test_controls_are_of_colts_masks(done: Done) -> None:
    """Shuffled: the same numbers in each layer at other places; reinit: the very same mask."""
    for seed in (0, 1):
        own = done.results[f"score/{MAIN}/seed-{seed}"].tickets
        shuffled = done.results[f"score/shuffled/seed-{seed}"].tickets
        reinit = done.results[f"score/reinit/seed-{seed}"].tickets
        assert set(own) == set(shuffled) == set(reinit)
        for name, ticket in own.items():
            assert shuffled[name].mask.densities() == ticket.mask.densities()
            assert shuffled[name].mask != ticket.mask and reinit[name].mask == ticket.mask


def test_transferred_tickets_come_from_their_search(done: Done, tiny_root: Path) -> None:
    units = {u.name: u.arguments for u in follow_up_units(PARAMS, done.results)}
    for kind in ("weights", "mask"):
        for arm in (MAIN, "imp"):
            chosen = units[f"transfer/{arm}-{kind}/seed-0"]["chosen"]
            search = done.results[f"search/{arm}/seed-0"]
            assert chosen and all(search.tickets[name].mask == m for name, m in chosen.items())
        own = units[f"transfer/{MAIN}-{kind}/seed-0"]["chosen"]
        moved = units[f"transfer/shuffled-{kind}/seed-0"]["chosen"]
        assert {n: m.densities() for n, m in moved.items()} == {
            n: m.densities() for n, m in own.items()
        }
        assert all(moved[name] != own[name] for name in own)
        assert moved == units["transfer/shuffled-weights/seed-0"]["chosen"]
    assert all(m.density == 1 for m in units["transfer/dense/seed-0"]["chosen"].values())


# --- pairing by seed


def test_arms_of_a_seed_start_from_the_same_weights(done: Done, tiny_root: Path) -> None:
    """Every stored ticket holds theta_0 where it keeps a weight; only `reinit` has its own."""
    for seed in (0, 1):
        theta = Bench(PARAMS, seed).net().state()
        compared = 0
        for name, result in done.results.items():
            for ticket in result.tickets.values() if name.endswith(f"seed-{seed}") else ():
                if ticket.weights is not None:
                    weights = make_ticket(ticket.mask, theta).weights
                    assert weights is not None
                    same = equal(by_name(ticket.weights), by_name(weights))
                    assert same is not name.startswith("score/reinit"), name
                    compared += 1
        assert compared >= 10


def by_name(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(sorted(state.items()))


def test_seeds_differ(done: Done, tiny_root: Path) -> None:
    states = [Bench(PARAMS, seed).net().state() for seed in (0, 1)]
    assert not equal(*states)
    for arm in ("imp", MAIN, RANDOM):
        one, two = (done.results[f"search/{arm}/seed-{seed}"] for seed in (0, 1))
        assert one.tickets["round-01"].mask != two.tickets["round-01"].mask


def test_the_dense_level_of_both_imp_arms_is_one_training(done: Done) -> None:
    """Same weights, same order of the data: the scores are equal to the last digit."""
    for seed in (0, 1):
        first = [
            done.results[f"search/{arm}/seed-{seed}"].record["rounds"][0]
            for arm in ("imp", "imp-matched")
        ]
        assert first[0]["last_accuracy"] == first[1]["last_accuracy"]
        assert first[0]["sparsity"] == 0


# --- choosing tickets


def searched(*sparsities: float, start: int = 1) -> Result:
    """A search whose rounds reached these sparsities of 1,000 weights."""
    rounds, tickets = [], {}
    for index, sparsity in enumerate(sparsities, start):
        mask = Mask({"w": torch.arange(1000) >= round(1000 * sparsity)})
        rounds.append({"round": index, "sparsity": mask.sparsity})
        tickets[f"round-{index:02d}"] = Ticket(mask)
    return Result({"arm": "imp", "seed": 0, "rounds": rounds}, tickets)


def test_a_ticket_is_chosen_for_each_level_by_the_ratio_of_remaining_weights() -> None:
    found = searched(0.5, 0.87, 0.925, 0.98)
    assert list(chosen_tickets(found, (0.9,))) == ["round-02"]  # 0.13 / 0.1 < 0.1 / 0.075
    assert list(chosen_tickets(found, (0.9, 0.5, 0.45, 0.99))) == [
        "round-01",
        "round-02",
        "round-04",
    ]
    assert chosen_tickets(found, (0.5,))["round-01"] == found.tickets["round-01"].mask


def test_the_dense_net_is_never_chosen() -> None:
    assert list(chosen_tickets(searched(0.0, 0.4, start=0), (0.01,))) == ["round-01"]


def test_a_search_without_a_round_is_refused(one_line: Message) -> None:
    message = one_line(lambda: chosen_tickets(searched(), (0.5,)))
    assert message == "rate: the search of imp, seed 0, left no weight; lower it"


# --- forecasts


def test_the_forecast_is_near_what_was_seen(done: Done, tiny_root: Path) -> None:
    seen = sum(done.passes.values())
    assert 0.6 < expected_passes(PARAMS) / seen < 1.7


def test_the_cost_of_what_follows_a_search_is_known_exactly(done: Done, tiny_root: Path) -> None:
    units = {unit.name: unit for unit in follow_up_units(PARAMS, done.results)}
    for arm in ("search/imp-matched", "score/shuffled", "score/reinit"):
        for seed in (0, 1):
            name = arm.split("/")[1]
            assert units[f"{arm}/seed-{seed}"].passes == done.passes[name, seed]
    moved = sum(u.passes for name, u in units.items() if "transfer/imp" in name)
    assert moved == done.passes["transfer imp", 0]


def test_the_forecast_grows_with_seeds_arms_transfer_and_length(tiny_root: Path) -> None:
    base = expected_passes(tiny.colt())
    more: list[dict[str, Any]] = [
        {"seeds": [0, 1, 2]},
        {"ablations": [{"partitions": 5}]},
        {"transfer": {"data": tiny.DIGITS.model_dump(), "levels": [0.7], "seeds": 1}},
        {"recipe": {"batch": 40, "length": "2ep"}},
        {"target": 0.9},
    ]
    assert all(expected_passes(tiny.colt(**change)) > base for change in more)


def test_a_searchs_forecast_counts_its_rounds(tiny_root: Path) -> None:
    units = {unit.name: unit.passes for unit in search_units(PARAMS)}
    # 200 images: 0.6, 0.36, 0.216 < 0.3, three rounds and the dense level.
    assert units["search/imp/seed-0"] == 4 * 200
    assert units[f"search/{FIVE}/seed-0"] <= units[f"search/{MAIN}/seed-0"] <= 3 * 200
    assert runner.expected_passes(search_units(PARAMS)) == sum(units.values())


# --- tables of the run


def test_rounds_are_one_row_each(done: Done) -> None:
    table = rounds_table(done.results)
    searches = {n: r for n, r in done.results.items() if n.startswith("search/")}
    assert len(table) == sum(len(result.record["rounds"]) for result in searches.values())
    assert not table.duplicated(["arm", "seed", "round"]).any()
    row = table[(table.arm == MAIN) & (table.seed == 1) & (table["round"] == 2)].iloc[0]
    turn = done.results[f"search/{MAIN}/seed-1"].record["rounds"][1]
    assert all(
        row[key] == turn[key] for key in ("sparsity", "alive", "rate", "agreement", "search_images")
    )
    assert {"layers", "collapsed"}.isdisjoint(table.columns)


def test_rounds_tell_what_a_search_did(done: Done) -> None:
    table = rounds_table(done.results)
    for (arm, seed), rows in table.groupby(["arm", "seed"]):
        masks = [
            t.mask for _, t in sorted(done.results[f"search/{arm}/seed-{seed}"].tickets.items())
        ]
        assert rows.alive.tolist() == [mask.alive for mask in masks]
        assert rows.search_images.tolist() == (200 * rows["round"]).tolist()
        if arm.startswith("colt"):
            before = [masks[0].total, *(mask.alive for mask in masks)]
            removed = [1 - after / old for old, after in pairwise(before)]
            assert rows["rate"].tolist() == pytest.approx(removed)
            assert rows["rate"].between(0.39, 5 * 0.4).all() and rows.agreement.between(0, 1).all()
    assert (table[table.arm == FIVE].chance_rate - (1 - 0.6**5)).abs().max() < 1e-9


def test_scores_are_charged_with_the_search_that_found_them(done: Done) -> None:
    scores, rounds = scores_table(done.results, PARAMS), rounds_table(done.results)
    cost = rounds.set_index(["arm", "seed", "round"]).search_images
    for row in scores.itertuples():
        source = MAIN if row.arm in ("shuffled", "reinit") else row.arm
        assert row.search_images == cost[source, row.seed, row.round]
    assert set(scores.arm) == {"imp", "imp-matched", MAIN, RANDOM, FIVE, "shuffled", "reinit"}
    assert scores.last_accuracy.between(0, 100).all()
    assert scores[scores.sparsity == 0].arm.isin(["imp", "imp-matched"]).all()


def test_transfers_are_one_row_a_ticket(done: Done) -> None:
    table = transfer_table(done.results)
    assert set(table.arm) == {MAIN, "imp", "shuffled", "dense"} and set(table.seed) == {0}
    for arm in (MAIN, "imp", "shuffled"):
        kinds = table[table.arm == arm].carried.tolist()
        assert sorted(kinds) == ["mask and weights", "mask only"]
    assert table[table.arm == "dense"].sparsity.tolist() == [0.0]


def test_layers_are_one_row_each(done: Done) -> None:
    table = layers_table(done.results)
    result = done.results[f"search/{RANDOM}/seed-0"]
    last = max(result.tickets)
    mask = result.tickets[last].mask
    rows = table[(table.arm == RANDOM) & (table.seed == 0) & (table["round"] == int(last[-2:]))]
    assert dict(zip(rows.layer, rows.density, strict=True)) == pytest.approx(mask.densities())
    assert (rows.sparsity == mask.sparsity).all()
    assert len(table) == len(mask) * len(rounds_table(done.results))


def test_rounds_are_predicted_from_the_first(done: Done) -> None:
    rounds = rounds_table(done.results)
    table = prediction_table(rounds, PARAMS)
    assert table[["arm", "seed"]].values.tolist() == [
        [a, s] for a in (MAIN, RANDOM) for s in (0, 1)
    ]
    for _, row in table.iterrows():
        assert row["u predicted"] == pytest.approx(2 * 0.4 / (1 + row["J in round 1"]))
        assert row["rounds predicted"] == algorithm.rounds_to(0.7, row["u predicted"])
        search = done.results[f"search/{row['arm']}/seed-{row['seed']}"].record["rounds"]
        reached = [turn["round"] for turn in search if turn["sparsity"] >= 0.7]
        assert row["rounds taken"] == min(reached)


# --- differences, on made-up numbers


def made_up() -> pd.DataFrame:
    """IMP loses 10 points with every halving, COLT 12; seed 1 is 5 points better throughout."""
    rows = []
    for seed, bonus in ((0, 0.0), (1, 5.0)):
        rows += [("imp", seed, i, 1 - 0.5**i, 90 + bonus - 10 * i) for i in range(5)]
        rows += [(MAIN, seed, i, 1 - 0.35**i, 88 + bonus - 12 * i) for i in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "sparsity", "last_accuracy"])


def test_the_nearest_ticket_is_nearest_in_remaining_weights_as_a_ratio() -> None:
    frame = pd.DataFrame({"arm": ["a"] * 4 + ["b"], "seed": [0, 0, 1, 1, 0],
                          "sparsity": [0.87, 0.925, 0.5, 0.99, 0.9]})  # fmt: skip
    found = nearest(frame, "a", 0.9)
    assert found[["seed", "sparsity"]].values.tolist() == [[0, 0.87], [1, 0.5]]


def test_another_arm_is_read_at_the_same_sparsity_in_log_density() -> None:
    at = {0: 0.75, 1: 1 - 0.5**2.5}
    found = interpolated(made_up().sample(frac=1, random_state=0), "imp", at, "last_accuracy")
    assert found == pytest.approx({0: 70.0, 1: 70.0})  # 90 - 2 x 10; 95 - 2.5 x 10


def test_a_difference_is_paired_by_seed_at_equal_sparsity() -> None:
    halvings = 2 * np.log(0.35) / np.log(0.5)
    expected = (88 - 24) - (90 - 10 * halvings)
    found = difference(made_up(), MAIN, "imp", 0.88)
    assert found == pytest.approx({0: expected, 1: expected})
    assert difference(made_up(), "imp", MAIN, 0.65)[0] != pytest.approx(-found[0])
    assert difference(made_up(), MAIN, "dense", 0.88) == pytest.approx({0: -26.0, 1: -26.0})
    assert difference(made_up(), "imp", "imp", 0.9) == pytest.approx({0: 0.0, 1: 0.0})


def test_rounds_to_the_target_are_of_the_seeds_that_reach_it() -> None:
    frame = made_up()
    frame = frame[(frame.seed == 0) | (frame["round"] < 3)]
    assert rounds_to_target(frame, "imp", 0.75) == {0: 2, 1: 2}
    assert rounds_to_target(frame, "imp", 0.76) == {0: 3}
    assert rounds_to_target(frame, "imp", 0.99) == rounds_to_target(frame, "none", 0.5) == {}


def test_accuracies_are_of_the_nearest_tickets() -> None:
    found = accuracies(made_up(), tiny.colt(levels=[0.5, 0.88]))
    assert found["dense"] == asdict(interval([90.0, 95.0]))
    assert found["imp"] == {
        "at_50": asdict(interval([80.0, 85.0])),
        "at_88": asdict(interval([60.0, 65.0])),
    }
    assert found[MAIN]["at_88"] == asdict(interval([64.0, 69.0]))


def test_transfer_compares_whole_tickets_and_averages_over_levels() -> None:
    rows = [
        (arm, "mask and weights", seed, value + seed + step)
        for arm, value in ((MAIN, 70.0), ("imp", 72.0), ("dense", 75.0), ("shuffled", 60.0))
        for seed in (0, 1, 2)
        for step in (0, 4)
    ]
    rows += [("imp", "mask only", 0, 0.0)]
    frame = pd.DataFrame(rows, columns=["arm", "carried", "seed", "last_accuracy"])
    found = transfer_differences(frame, PARAMS)
    means = {name: value["mean"] for name, value in found.items()}
    assert means == pytest.approx(
        {"colt_minus_imp": -2, "colt_minus_dense": -5, "colt_minus_shuffled": 10}
    )
    assert all(value["n"] == 3 for value in found.values())
    nothing = transfer_differences(pd.DataFrame(), PARAMS)
    assert set(nothing) == set(found) and not any(nothing.values())


# --- metrics


def test_metrics_hold_every_claims_number_and_are_json(done: Done) -> None:
    found = metrics(done.results, PARAMS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for one in load_claims("colt"):
        verdict = judge(one, found)
        if one.id in ("colt-H5", "colt-H7", "colt-S3"):  # no such data, target, or accuracy
            continue
        assert verdict.evidence is not None and verdict.evidence.n in (1, 2), one.id
    assert found["collapsed_layers"].keys() == {"imp", "imp-matched", MAIN, RANDOM, FIVE}


def test_references_are_the_dense_nets_beside_a_constant_answer(done: Done) -> None:
    found = metrics(done.results, PARAMS)["references"]
    labels = load(tiny.DIGITS).test.y
    chance = 100 * int(labels.bincount().max()) / len(labels)
    scores = scores_table(done.results, PARAMS)
    dense = scores[(scores.arm == "imp") & (scores["round"] == 0)].last_accuracy
    by = dict(enumerate(dense))
    assert found["dense"] == {"the dense net": as_reference(by, chance, len(labels))}
    moved = transfer_table(done.results)
    there = moved[(moved.arm == "dense") & (moved.carried == "mask and weights")].last_accuracy
    assert found["transfer"]["the dense net, moved"]["score"] == as_metric(there)
    bare = {n: r for n, r in done.results.items() if not n.startswith("transfer/")}
    assert metrics(bare, PARAMS)["references"]["transfer"] is None


def test_metrics_agree_with_the_tables(done: Done) -> None:
    found, scores = metrics(done.results, PARAMS), scores_table(done.results, PARAMS)
    pairs = {
        "colt_minus_imp": (MAIN, "imp"),
        "colt_random_minus_colt": (RANDOM, MAIN),
        "colt_minus_reinit": (MAIN, "reinit"),
        "colt_minus_dense": (MAIN, "dense"),
    }
    for name, (arm, other) in pairs.items():
        at_50 = difference(scores, arm, other, 0.5)
        assert found["differences"][name]["at_50"] == asdict(interval(list(at_50.values())))
    rounds = rounds_table(done.results)
    imp, mine = (rounds_to_target(rounds, arm, 0.7) for arm in ("imp", MAIN))
    saved = count([imp[seed] - mine[seed] for seed in (0, 1)])
    assert found["rounds"]["imp_minus_colt"] == asdict(saved)
    five = rounds_to_target(rounds, FIVE, 0.7)
    assert found["rounds"]["colt_minus_more_partitions"] == asdict(count([mine[0] - five[0]]))


def test_a_study_without_transfer_or_ablations_says_so_with_null(done: Done) -> None:
    bare = tiny.colt()
    results = {
        name: r
        for name, r in done.results.items()
        if FIVE not in name and not name.startswith("transfer/")
    }
    found = metrics(results, bare)
    verdicts = {one.id: judge(one, found).word for one in load_claims("colt")}
    assert verdicts["colt-H4"] == verdicts["colt-S7"] == "not run"
    assert verdicts["colt-H2"] != "not run"
    assert found["rounds"]["colt_minus_more_partitions"] is None
    assert verdicts["colt-S7-accuracy"] == verdicts["colt-H5"] == "not run"


def test_saved_rounds_are_a_share_of_imps_and_a_reached_sparsity_needs_the_target() -> None:
    assert percent_saved({0: 8, 1: 10}, {0: 20, 1: 10, 2: 5}) == {0: 60.0, 1: 0.0}
    frame = made_up().assign(rate=0.2, agreement=0.5)
    few = report.round_metrics(frame, tiny.colt(target=0.95))
    assert few["sparsity_reached"] is None and few["percent_saved"] is None  # IMP stops at 93.75 %
    many = report.round_metrics(frame, tiny.colt(target=0.99))
    assert many["sparsity_reached"] == asdict(interval([100 * (1 - 0.35**3)] * 2))


def test_the_dense_accuracy_is_kept_up_to_the_last_level_within_a_point() -> None:
    frame = made_up()
    own = 100 * (1 - 0.35**2)
    none = report.kept_up_to(frame, MAIN, [0.65, 0.88])
    assert none == ({0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0})
    params = tiny.colt(levels=[0.65, 0.88])
    assert report.kept_metrics(frame, params)["colt_minus_imp"] is None  # nothing to compare
    frame.loc[(frame.arm == "imp") & (frame.seed == 1), "last_accuracy"] = 95.0
    found = report.kept_metrics(frame, params)
    assert found["colt_minus_imp"]["mean"] == pytest.approx(-own) and found["imp"]["n"] == 2
    frame.loc[frame.arm == MAIN, "last_accuracy"] = 94.0  # better than seed 0's dense net
    kept = report.kept_up_to(frame, MAIN, [0.65, 0.88])
    assert kept[0] == pytest.approx({0: own, 1: own}) and kept[1] == pytest.approx({0: 0, 1: own})


def test_collapsed_layers_are_counted_by_arm() -> None:
    base = {"sparsity": 0.5, "layers": {}}
    results = {
        "search/imp/seed-0": Result({"arm": "imp", "rounds": [base | {"collapsed": []}] * 3}),
        "search/x/seed-0": Result({"arm": "x", "rounds": [base | {"collapsed": ["a", "b"]}]}),
        "search/x/seed-1": Result({"arm": "x", "rounds": [base | {"collapsed": ["a"]}]}),
    }
    assert report._collapsed(results) == {"imp": 0, "x": 2}


def test_tables_for_the_page_show_every_pair_and_every_variant(done: Done) -> None:
    numbers = metrics(done.results, PARAMS)
    scores, rounds = scores_table(done.results, PARAMS), rounds_table(done.results)
    table = report.differences_table(numbers, scores, PARAMS)
    assert set(table.index) == set(numbers["differences"])
    assert table.columns.tolist() == ["at 50 %", "at 70 %", "mean"]
    assert table["mean"].map(lambda text: text.endswith("(n = 2)")).all()
    real = nearest(scores, MAIN, 0.7).sparsity
    low, high = (f"{100 * value:.1f}" for value in (real.min(), real.max()))
    said = f"{low} %" if low == high else f"{low} to {high} %"
    assert (
        table.loc["colt_minus_imp", "at 70 %"].endswith(f"(n = 2) at {said}") and "70" not in said
    )
    family = report.family_table(scores, rounds, PARAMS)
    assert family.index.tolist() == [MAIN, RANDOM, FIVE] and family.n.tolist() == [2, 2, 1]
    last = done.results[f"score/{FIVE}/seed-0"].record["rounds"][-1]
    assert family.loc[FIVE, "last ticket, test accuracy (%), last epoch"] == last["last_accuracy"]
    assert family.loc[FIVE, "rounds"] == len(done.results[f"search/{FIVE}/seed-0"].record["rounds"])


# --- figures


@pytest.fixture
def close() -> Iterator[None]:
    yield
    plt.close("all")


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes if ax.get_legend()
            for text in ax.get_legend().get_texts()]  # fmt: skip


Draw = Callable[[pd.DataFrame, pd.DataFrame, ColtParams], Figure]


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("draw", "arms"),
    [
        (
            lambda s, _, p: figures.accuracy(s, p),
            ["imp", "imp-matched", MAIN, RANDOM, "shuffled", "reinit"],
        ),
        (lambda _, r, p: figures.pace(r, p), ["imp", MAIN, RANDOM]),
        (lambda s, _, p: figures.cost(s, p), ["imp", "imp-matched", MAIN, RANDOM]),
        (lambda _, r, p: figures.agreement(r, p), [MAIN, RANDOM]),
    ],
)
def test_a_figure_shows_its_arms_with_the_number_of_seeds(
    draw: Draw, arms: list[str], seeds: int, done: Done, close: None
) -> None:
    results = {n: r for n, r in done.results.items() if r.record["seed"] < seeds}
    figure = draw(scores_table(results, PARAMS), rounds_table(results), PARAMS)
    figure.canvas.draw()
    shown = legend(figure)
    assert [text for text in arms if f"{text} (n = {seeds})" not in shown] == []
    assert not any(FIVE in text for text in shown)
    for ax in figure.axes:
        assert ax.get_title() and ax.get_xlabel()


def test_arms_keep_their_colour_from_figure_to_figure() -> None:
    every = figures.looks(PARAMS)
    assert list(every) == ["imp", "imp-matched", MAIN, RANDOM, "shuffled", "reinit"]
    few = figures.looks(PARAMS, ("random", "imp"))
    assert few == {RANDOM: every[RANDOM], "imp": every["imp"]}


def test_the_chance_line_of_the_rate_is_where_the_formula_says(done: Done, close: None) -> None:
    figure = figures.agreement(rounds_table(done.results), PARAMS)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "chance"]
    assert line.get_ydata()[0] == pytest.approx(1 - 0.6**2)


def test_layers_and_transfer_are_drawn(done: Done, close: None) -> None:
    rounds, table = rounds_table(done.results), layers_table(done.results)
    figure = figures.layers(table, rounds, PARAMS)
    figure.canvas.draw()
    arms = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert arms[0] == f"{MAIN}\n{report.sparsities(rounds, MAIN, 0.7)}"
    names = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert names == set(done.results[f"search/{MAIN}/seed-0"].tickets["round-01"].mask)
    figure = figures.transfer(transfer_table(done.results), PARAMS)
    figure.canvas.draw()
    places = {label.get_text() for label in figure.axes[0].get_xticklabels()}
    sparsity = transfer_table(done.results).set_index("arm").sparsity
    assert places == {
        f"{arm}\n{100 * sparsity[arm].max():.1f} %" for arm in (MAIN, "imp", "shuffled")
    }
    assert {"mask and weights", "mask only", "dense on the target"} <= set(legend(figure))


def test_one_round_shows_the_fate_of_every_weight(digits: object, close: None) -> None:
    model = Bench(PARAMS, 0).model()
    dense = ones(model, ["body.conv1.weight"])
    state = {name: p.detach() for name, p in model.named_parameters()}
    other = {name: tensor.flip(0) for name, tensor in state.items()}
    scores = [magnitude(weights, dense) for weights in (state, other)]
    own = [prune(score, dense, 0.4) for score in scores]
    figure = figures.one_round(scores, own)
    figure.canvas.draw()
    ax = figure.axes[0]
    points = np.asarray(ax.collections[0].get_offsets())
    assert len(points) == dense.total
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    limits = {float(line.get_xdata()[0]) for line in lines if len(set(line.get_xdata())) == 1}
    first, kept = scores[0]["body.conv1.weight"], own[0]["body.conv1.weight"]
    assert limits == {float(first[~kept].max())} and float(first[kept].min()) > min(limits)
    assert len(legend(figure)) == 4


# --- every study


STUDIES = [name for name, (papers, _) in read_studies().items() if "colt" in papers]


@pytest.mark.parametrize("study", STUDIES)
def test_a_cut_of_every_study_runs(study: str, tiny_root: Path) -> None:
    """The study's net, recipe and rates, on tiny images for two steps and one round."""
    whole = load_paper(study, "colt")
    assert isinstance(whole, ColtParams)
    two_steps = {"length": Step(2, "it"), "batch": 20, "warmup": Step(0, "it")}
    few = tiny.DIGITS.model_copy(update={"train": 40, "validation": 20, "test": 20})
    changes = {"data": few, "recipe": whole.recipe.model_copy(update=two_steps), "max_rounds": 1,
               "rewind": Step(0, "it"), "ablations": (), "runtime": CPU}  # fmt: skip
    cut = whole.model_copy(update=changes)
    found = colt_units.search_colt(cut, 0, cut.main[0])
    (turn,) = found.record["rounds"]
    assert cut.rate <= turn["rate"] <= 2 * cut.rate
    assert found.tickets["round-01"].mask.sparsity == turn["sparsity"]


# --- classes of very different sizes


def test_a_long_tail_trains_in_every_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation once took the classes of up to 39 images whole, and a segment had none left."""
    sizes = [500, 300, 180, 108, 65, 39, 23, 14, 8, 5]
    y = np.random.RandomState(0).permutation(np.repeat(np.arange(10), sizes))
    x = np.random.RandomState(1).randint(0, 256, (len(y), 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "tail.npz", x_train=x, y_train=y, x_test=x[:50], y_test=np.arange(50) % 10)
    use_data(monkeypatch, tmp_path)
    data = {"name": "tail", "validation": 300}
    params = tiny.colt(
        data=data, transfer={"data": data, "levels": [0.5], "seeds": 0},
        seeds=[0], partitions=5, max_rounds=1, levels=[0.3],
    )  # fmt: skip
    found = run_study(phases(params), tmp_path / "runs")
    assert f"search/{FIVE}/seed-0" in found
