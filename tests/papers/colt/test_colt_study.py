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
from ticketlab.labels import label
from ticketlab.papers.colt import algorithm, figures, report
from ticketlab.papers.colt import units as colt_units
from ticketlab.papers.colt.forecast import expected_passes, planned
from ticketlab.papers.colt.metrics import (
    accuracies,
    collapsed,
    metrics,
    round_metrics,
    transfer_metrics,
)
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.colt.report import (
    at_point,
    difference,
    interpolated,
    layers_table,
    moved_differences,
    nearest,
    prediction_table,
    rounds_table,
    rounds_to_target,
    scores_table,
    transfer_table,
)
from ticketlab.papers.colt.study import (
    follow_up_units,
    matched_control_units,
    phases,
    search_units,
    setting_of,
)
from ticketlab.papers.colt.units import chosen_tickets
from ticketlab.pipeline.params import load_paper, read_studies
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, ones, prune
from ticketlab.study import cost, plots, runner
from ticketlab.study.bench import Bench
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result
from ticketlab.study.runner import Phases, Unit, run_study
from ticketlab.study.stats import (
    Count,
    as_metric,
    as_reference,
    count,
    interval,
)
from ticketlab.study.tables import LABELS
from ticketlab.tickets.ticket import Ticket, make_ticket
from ticketlab.training.recipe import Step

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes

MAIN, RANDOM, FIVE = "colt-class-2of2", "colt-random-2of2", "colt-class-5of5"
LAYERWISE = f"{MAIN}-layerwise"
PARAMS = tiny.colt(
    ablations=[
        {"split": "class", "partitions": 5, "seeds": 1},
        {"split": "class", "layerwise": True, "seeds": 1},
    ],
    late={"rewind": "2it", "imp_seeds": 1},
    transfer={"data": tiny.DIGITS.model_dump(), "levels": [0.7], "seeds": 1},
    resized={"data": tiny.DIGITS.model_dump() | {"pool": 1}, "levels": [0.7], "seeds": 1},
)


@dataclass(frozen=True)
class Done:
    """A study that was run, and the images seen by each unit."""

    folder: Path
    every: dict[str, Result]
    passes: dict[str, int]

    @property
    def results(self) -> dict[str, Result]:
        """Those of the paper's rewinding point."""
        return at_point(self.every)

    @property
    def late(self) -> dict[str, Result]:
        """Those of the other one."""
        return at_point(self.every, late=True)


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patched:
        use_data(patched, tiny_folder)
        progress.listen_to(folder / "events")
        results = run_study(phases(PARAMS), folder / "runs")
        progress.listen_to(None)
    passes: dict[str, int] = defaultdict(int)
    for line in (folder / "events").read_text().splitlines():
        event = json.loads(line)
        if "passes" in event:
            passes[event["unit"]] += event["passes"]
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
    """Of both rewinding points; the first seed alone runs what the parameters give to one seed."""
    arms = [f"search/{arm}" for arm in ("imp", "imp-matched", "imp-half", MAIN, RANDOM)]
    arms += [f"score/{arm}" for arm in (MAIN, RANDOM)]
    for arm in (MAIN, RANDOM, "imp-matched"):
        arms += [f"score/{arm}-shuffled", f"score/{arm}-reinit"]
    moved = [f"{arm}-{kind}" for arm in (MAIN, "imp") for kind in ("weights", "mask")]
    moved += [f"{MAIN}-shuffled-weights", "imp-shuffled-weights", "dense"]
    once = [f"{kind}/{arm}" for kind in ("search", "score") for arm in (FIVE, LAYERWISE)]
    once += [f"{what}/{arm}" for what in ("transfer", "resized") for arm in moved]
    expected = {f"{arm}/seed-{seed}" for arm in [*arms, "score/random"] for seed in (0, 1)}
    assert set(done.results) == expected | {f"{arm}/seed-0" for arm in once}
    later = expected - {f"search/imp-half/seed-{seed}" for seed in (0, 1)} - {"search/imp/seed-1"}
    assert set(done.late) == later | {f"score/magnitude/seed-{seed}" for seed in (0, 1)}
    stored = {
        path.relative_to(done.folder).with_suffix("").as_posix()
        for path in done.folder.rglob("*.json")
    }
    assert stored == set(done.every)


def test_units_have_their_own_names_and_keys(done: Done, tiny_root: Path) -> None:
    units = every_unit(done)
    assert [unit.name for unit in units] == list(done.every)
    assert len({unit.key for unit in units}) == len(units)
    changed = PARAMS.model_copy(update={"rate": 0.3, "imp_rate": 0.3})
    other = [unit for point in changed.points for unit in search_units(changed, point)]
    assert not {unit.key for unit in other} & {unit.key for unit in units}


def every_unit(done: Done) -> list[Unit]:
    """The units of the study, from its results."""
    points = PARAMS.points
    units = [unit for point in points for unit in search_units(PARAMS, point)]
    for follow_up in (follow_up_units, matched_control_units):
        units += [unit for point in points for unit in follow_up(PARAMS, point, done.every)]
    return units


def test_a_late_rewinding_point_adds_units_and_changes_none(done: Done, tiny_root: Path) -> None:
    alone = PARAMS.model_copy(update={"late": None})
    (point,) = alone.points
    units = search_units(alone, point) + follow_up_units(alone, point, done.results)
    known = {unit.name: unit.key for unit in every_unit(done)}
    assert units and all(known[unit.name] == unit.key for unit in units)
    with pytest.raises(StopIteration):
        run_all(phases(alone), done)


def run_all(study: Phases, done: Done) -> None:
    """Send a study the results that are there; StopIteration at its end."""
    units = next(study)
    while True:
        units = study.send({unit.name: done.every[unit.name] for unit in units})


def test_searches_come_first_and_need_no_other_unit(tiny_root: Path) -> None:
    own, late = ([u.name for u in search_units(PARAMS, point)] for point in PARAMS.points)
    assert own and all(name.startswith("search/") for name in own)
    assert late and all(name.startswith("late/search/") for name in late)
    assert not any("matched" in name or "half" in name for name in own + late)


def test_a_record_says_whose_it_is(done: Done) -> None:
    for name, result in done.every.items():
        *_, arm, seed = name.split("/")
        assert arm.removesuffix("-weights").removesuffix("-mask") == result.record["arm"]
        assert seed == f"seed-{result.record['seed']}"
        assert result.record["rounds"]
        for ticket in result.tickets.values():
            assert ticket.metadata["sparsity"] == ticket.mask.sparsity


def test_a_finished_study_is_not_run_again(done: Done, tiny_root: Path, no_training: None) -> None:
    again = run_study(phases(PARAMS), done.folder)
    assert {name: result.record for name, result in again.items()} == {
        name: result.record for name, result in done.every.items()
    }


def test_a_lost_unit_alone_is_run_again_and_comes_out_the_same(done: Done, tiny_root: Path) -> None:
    path = done.folder / "score" / f"{MAIN}-shuffled" / "seed-1.json"
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
        half = alive(done.results[f"search/imp-half/seed-{seed}"])[1:]
        assert half == algorithm.every_second(theirs) and half[-1] == theirs[-1]
        late = alive(done.late[f"search/{MAIN}/seed-{seed}"])
        assert alive(done.late[f"search/imp-matched/seed-{seed}"])[1:] == late


def test_scored_tickets_are_those_of_the_search_nearest_to_the_levels(done: Done) -> None:
    for arm in (MAIN, RANDOM):
        search, score = (done.results[f"{kind}/{arm}/seed-1"] for kind in ("search", "score"))
        assert set(score.tickets) == set(chosen_tickets(search, PARAMS.levels))
        for name, ticket in score.tickets.items():
            assert ticket.mask == search.tickets[name].mask


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("arm", [MAIN, RANDOM, "imp-matched"])
def test_controls_are_of_their_arms_masks(done: Done, arm: str, late: bool) -> None:
    """Shuffled: the same numbers in each layer at other places; reinit: the very same mask."""
    results = done.late if late else done.results
    for seed in (0, 1):
        search = results[f"search/{arm}/seed-{seed}"]
        own = chosen_tickets(search, PARAMS.levels)
        shuffled = results[f"score/{arm}-shuffled/seed-{seed}"].tickets
        reinit = results[f"score/{arm}-reinit/seed-{seed}"].tickets
        assert set(own) == set(shuffled) == set(reinit)
        for name, mask in own.items():
            assert shuffled[name].mask.densities() == mask.densities()
            assert shuffled[name].mask != mask and reinit[name].mask == mask


def test_masks_without_a_search_have_the_size_of_colts(done: Done) -> None:
    """The largest of the rewound weights, and as many of all weights at random."""
    for seed in (0, 1):
        for results in (done.results, done.late):
            own = results[f"score/{MAIN}/seed-{seed}"].tickets
            drawn = results[f"score/random/seed-{seed}"].tickets
            assert {n: t.mask.alive for n, t in drawn.items()} == {
                n: t.mask.alive for n, t in own.items()
            }
            shuffled = results[f"score/{MAIN}-shuffled/seed-{seed}"].tickets
            assert all(drawn[n].mask != own[n].mask != shuffled[n].mask for n in own)


def test_the_mask_by_magnitude_keeps_the_largest_of_the_rewound_weights(
    done: Done, tiny_root: Path
) -> None:
    for seed in (0, 1):
        bench = Bench(setting_of(PARAMS, PARAMS.points[1]), seed)
        theta = bench.theta(bench.net())
        sizes = {n: t.mask.alive for n, t in done.late[f"score/{MAIN}/seed-{seed}"].tickets.items()}
        largest = done.late[f"score/magnitude/seed-{seed}"].tickets
        assert {name: ticket.mask.alive for name, ticket in largest.items()} == sizes
        for ticket in largest.values():
            size = torch.cat([theta[name].abs().flatten() for name in ticket.mask])
            kept = ticket.mask.flat()
            assert size[kept].min() >= size[~kept].max()


@pytest.mark.parametrize("what", ["transfer", "resized"])
def test_transferred_tickets_come_from_their_search(done: Done, tiny_root: Path, what: str) -> None:
    own, _ = PARAMS.points
    units = {u.name: u.arguments for u in follow_up_units(PARAMS, own, done.results)}
    for arm in (MAIN, "imp"):
        chosen = units[f"{what}/{arm}-weights/seed-0"]["chosen"]
        assert chosen == units[f"{what}/{arm}-mask/seed-0"]["chosen"]
        search = done.results[f"search/{arm}/seed-0"]
        assert chosen and all(search.tickets[name].mask == m for name, m in chosen.items())
        moved = units[f"{what}/{arm}-shuffled-weights/seed-0"]["chosen"]
        assert {n: m.densities() for n, m in moved.items()} == {
            n: m.densities() for n, m in chosen.items()
        }
        assert all(moved[name] != chosen[name] for name in chosen)
    assert all(m.density == 1 for m in units[f"{what}/dense/seed-0"]["chosen"].values())
    target = PARAMS.transfer if what == "transfer" else PARAMS.resized
    assert target is not None
    assert units[f"{what}/dense/seed-0"]["target"] == target.data


# --- pairing by seed


def test_arms_of_a_seed_start_from_the_same_weights(done: Done, tiny_root: Path) -> None:
    """Every stored ticket holds theta_0 where it keeps a weight; only `reinit` has its own."""
    for seed in (0, 1):
        theta = Bench(PARAMS, seed).net().state()
        compared = 0
        found = {n: r for n, r in done.results.items() if n.startswith(("search/", "score/"))}
        for name, result in found.items():
            for ticket in result.tickets.values() if name.endswith(f"seed-{seed}") else ():
                if ticket.weights is not None:
                    weights = make_ticket(ticket.mask, theta).weights
                    assert weights is not None
                    same = equal(by_name(ticket.weights), by_name(weights))
                    assert same is not ("-reinit/" in name), name
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
            for arm in ("imp", "imp-matched", "imp-half")
        ]
        assert len({(turn["last_accuracy"], turn["train_accuracy"]) for turn in first}) == 1
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
    followed = [unit for unit in every_unit(done) if not unit.name.startswith(("late/", "search"))]
    followed += [unit for unit in every_unit(done) if unit.name.startswith("search/imp-")]
    assert len(followed) > 30
    assert {unit.name: unit.passes for unit in followed} == {
        unit.name: done.passes[unit.name] for unit in followed
    }


def test_the_forecast_grows_with_seeds_arms_transfer_and_length(tiny_root: Path) -> None:
    base = expected_passes(tiny.colt())
    moved = {"data": tiny.DIGITS.model_dump(), "levels": [0.7], "seeds": 1}
    more: list[dict[str, Any]] = [
        {"seeds": [0, 1, 2]},
        {"ablations": [{"partitions": 5}]},
        {"transfer": moved},
        {"resized": moved},
        {"late": {"rewind": "2it"}},
        {"recipe": {"batch": 40, "length": "2ep"}},
        {"target": 0.9},
    ]
    assert all(expected_passes(tiny.colt(**change)) > base for change in more)


def test_a_searchs_forecast_counts_its_rounds(tiny_root: Path) -> None:
    searches = search_units(PARAMS, PARAMS.points[0])
    units = {unit.name: unit.passes for unit in searches}
    # 200 images: 0.6, 0.36, 0.216 < 0.3, three rounds and the dense level.
    assert units["search/imp/seed-0"] == 4 * 200
    assert units[f"search/{FIVE}/seed-0"] <= units[f"search/{MAIN}/seed-0"] <= 3 * 200
    assert runner.expected_passes(searches) == sum(units.values())


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
    """A shuffled ticket costs what the ticket costs, one on a new draw also its rewinding point,
    and a mask without a search that alone."""
    for results, steps in ((done.results, 0), (done.late, 2)):
        scores, rounds = scores_table(results), rounds_table(results)
        cost = rounds.set_index(["arm", "seed", "round"]).search_images
        for row in scores.itertuples():
            source = row.arm.removesuffix("-shuffled").removesuffix("-reinit")
            expected = 40 * steps if row.arm.endswith("-reinit") else 0
            if row.arm in ("random", "magnitude"):
                expected = 40 * steps
            else:
                expected += cost[source, row.seed, row.round]
            assert row.search_images == expected, row
        assert scores.last_accuracy.between(0, 100).all()
        assert scores[scores.sparsity == 0].arm.str.startswith("imp").all()
    arms = {"imp", "imp-matched", "imp-half", MAIN, RANDOM, FIVE, LAYERWISE, "random"}
    arms |= {f"{a}-{c}" for a in (MAIN, RANDOM, "imp-matched") for c in ("shuffled", "reinit")}
    assert set(scores_table(done.results).arm) == arms


@pytest.mark.parametrize("what", ["transfer", "resized"])
def test_transfers_are_one_row_a_ticket(done: Done, what: str) -> None:
    table = transfer_table(done.results, what)
    for arm in (MAIN, "imp"):
        kinds = table[table.arm == arm].carried.tolist()
        assert sorted(kinds) == ["mask and weights", "mask only"]
    single = table[~table.arm.isin([MAIN, "imp"])]
    assert single.arm.tolist() == [f"{MAIN}-shuffled", "imp-shuffled", "dense"]
    assert set(single.carried) == {"mask and weights"} and set(table.seed) == {0}
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


def test_an_arm_begins_at_the_dense_net_and_ends_at_its_last_ticket() -> None:
    """It is read on a line from the dense net to its first ticket, and is flat beyond the last."""
    half = 1 - 0.35**0.5
    found = interpolated(made_up(), MAIN, {0: half, 1: 0.99}, "last_accuracy")
    assert found == pytest.approx({0: (90 + 76) / 2, 1: 93 - 36})
    assert interpolated(made_up(), "none", {0: 0.5}, "last_accuracy") == {}


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


def test_moved_tickets_are_compared_with_their_weights_at_each_level() -> None:
    """Each arm's own ticket nearest to the level; the dense net has one for all levels."""
    at = {0.5: (0.48, 0.0), 0.8: (0.81, 4.0)}
    rows = [
        (arm, carried, seed, sparsity, value + seed - loss)
        for arm, carried, value in (
            (MAIN, "mask and weights", 70.0), ("imp", "mask and weights", 72.0),
            (MAIN, "mask only", 67.0), (f"{MAIN}-shuffled", "mask and weights", 60.0),
        )
        for seed in (0, 1, 2)
        for sparsity, loss in at.values()
    ]  # fmt: skip
    rows += [("dense", "mask and weights", seed, 0.0, 75.0) for seed in (0, 1, 2)]
    columns = ["arm", "carried", "seed", "sparsity", "last_accuracy"]
    frame = pd.DataFrame(rows, columns=columns)
    assert moved_differences(frame, MAIN, "dense", [0.5, 0.8]) == {
        0.5: {0: -5.0, 1: -4.0, 2: -3.0},
        0.8: {0: -9.0, 1: -8.0, 2: -7.0},
    }
    params = PARAMS.model_copy(update={"transfer": PARAMS.transfer.model_copy(
        update={"levels": (0.5, 0.8)})})  # fmt: skip
    found = transfer_metrics(frame, params, "transfer")
    assert found is not None
    means = {name: value["mean"]["mean"] for name, value in found.items()}
    assert means == pytest.approx(
        {"colt_minus_imp": -2, "colt_minus_dense": -6, "colt_minus_shuffled": 10,
         "weights_minus_mask": 3}
    )  # fmt: skip
    assert found["colt_minus_dense"]["at_80"] == asdict(interval([-9.0, -8.0, -7.0]))
    assert transfer_metrics(pd.DataFrame(), params, "transfer") is None


# --- metrics


def test_metrics_hold_every_claims_number_and_are_json(done: Done) -> None:
    found = metrics(done.every, PARAMS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for one in load_claims("colt"):
        verdict = judge(one, found)
        if one.id in ("colt-H5", "colt-H7"):  # no such data, no such target
            continue
        assert verdict.evidence is not None and verdict.evidence.n in (1, 2), one.id
    assert found["collapsed_layers"].keys() == {
        *("imp", "imp-matched", "imp-half", MAIN, RANDOM, FIVE, LAYERWISE)
    }


def test_references_are_the_dense_nets_beside_a_constant_answer(done: Done) -> None:
    found = metrics(done.every, PARAMS)["references"]
    labels = load(tiny.DIGITS).test.y
    chance = 100 * int(labels.bincount().max()) / len(labels)
    for name, results in (("dense", done.results), ("late", done.late)):
        scores = scores_table(results)
        dense = scores[(scores.arm == "imp-matched") & (scores["round"] == 0)].last_accuracy
        by = dict(enumerate(dense))
        assert found[name] == {"the dense net": as_reference(by, chance, len(labels))}
    for what in ("transfer", "resized"):
        moved = transfer_table(done.results, what)
        there = moved[moved.arm == "dense"].last_accuracy
        assert found[what]["the dense net, moved"]["score"] == as_metric(there)
    bare = {n: r for n, r in done.results.items() if not n.startswith(("transfer/", "resized/"))}
    none = metrics(bare, PARAMS)["references"]
    assert none["late"] is none["transfer"] is none["resized"] is None


def test_metrics_agree_with_the_tables(done: Done) -> None:
    found, scores = metrics(done.every, PARAMS), scores_table(done.results)
    pairs = {
        "colt_minus_imp": (MAIN, "imp"),
        "colt_random_minus_colt": (RANDOM, MAIN),
        "colt_minus_reinit": (MAIN, f"{MAIN}-reinit"),
        "colt_random_minus_shuffled": (RANDOM, f"{RANDOM}-shuffled"),
        "imp_matched_minus_random": ("imp-matched", "random"),
        "colt_minus_imp_half": (MAIN, "imp-half"),
        "layerwise_minus_colt": (LAYERWISE, MAIN),
        "more_partitions_minus_colt": (FIVE, MAIN),
        "colt_minus_dense": (MAIN, "dense"),
    }
    for name, (arm, other) in pairs.items():
        at_50 = difference(scores, arm, other, 0.5)
        assert found["differences"][name]["at_50"] == asdict(interval(list(at_50.values())))
    rounds = rounds_table(done.results)
    imp, mine = (rounds_to_target(rounds, arm, 0.7) for arm in ("imp", MAIN))
    saved = count([imp[seed] - mine[seed] for seed in (0, 1)])
    assert found["rounds"]["imp_minus_colt"] == asdict(saved)
    late = scores_table(done.late)
    largest = difference(late, "magnitude", MAIN, 0.7)
    shown = found["late"]["differences"]["magnitude_minus_colt"]["at_70"]
    assert shown == asdict(interval(list(largest.values())))
    assert "colt_minus_imp_half" not in found["late"]["differences"]
    assert found["late"]["differences"]["colt_minus_imp"]["mean"]["n"] == 1  # as imp_seeds says


def test_a_study_of_the_main_arms_alone_says_so_with_null(done: Done) -> None:
    bare = tiny.colt()
    more = (f"search/{FIVE}", f"score/{FIVE}", f"search/{LAYERWISE}", f"score/{LAYERWISE}")
    left = {
        n: r for n, r in done.results.items() if not n.startswith((*more, "transfer/", "resized/"))
    }
    found = metrics(left, bare)
    verdicts = {one.id: judge(one, found).word for one in load_claims("colt")}
    not_run = {one for one, word in verdicts.items() if word == "not run"}
    assert {"colt-H4", "colt-H5", "colt-L1", "colt-S7-accuracy", "colt-S10", "colt-S11"} <= not_run
    assert not not_run & {"colt-H1", "colt-H2", "colt-H3", "colt-S4", "colt-S6"}
    assert found["late"] is found["transfer"] is found["controls"]["late"] is None


def test_a_reached_sparsity_needs_the_target() -> None:
    frame = made_up().assign(rate=0.2, agreement=0.5, chance_rate=0.25)
    assert round_metrics(frame, tiny.colt(target=0.95))["sparsity_reached"] is None
    many = round_metrics(frame, tiny.colt(target=0.99))
    assert many["sparsity_reached"] == asdict(interval([100 * (1 - 0.35**3)] * 2))
    assert many["percent_over_chance"]["mean"] == pytest.approx(-20)  # .2 where chance is .25


def test_rounds_saved_are_of_the_seeds_that_both_have() -> None:
    """IMP reaches 75 % after 2 rounds and COLT after 2; 87 % after 3 and 2; random after 1."""
    frame = made_up().assign(rate=0.2, agreement=0.5, chance_rate=0.25)
    random = frame[(frame.arm == MAIN) & (frame["round"] == 3)].assign(arm=RANDOM)
    frame = pd.concat([frame, random])
    found = round_metrics(frame, tiny.colt(target=0.87))
    assert found["imp_minus_colt"] == asdict(count([1.0, 1.0]))
    assert found["random_minus_colt"] == asdict(count([1.0, 1.0]))
    few = round_metrics(frame[(frame.arm != "imp") | (frame.seed == 1)], tiny.colt(target=0.87))
    assert few["imp_minus_colt"] == asdict(count([1.0]))


def test_collapsed_layers_are_counted_by_arm() -> None:
    base = {"sparsity": 0.5, "layers": {}}
    results = {
        "search/imp/seed-0": Result({"arm": "imp", "rounds": [base | {"collapsed": []}] * 3}),
        "search/x/seed-0": Result({"arm": "x", "rounds": [base | {"collapsed": ["a", "b"]}]}),
        "search/x/seed-1": Result({"arm": "x", "rounds": [base | {"collapsed": ["a"]}]}),
    }
    assert collapsed(results) == {"imp": 0, "x": 2}


def test_tables_for_the_page_show_every_pair_and_every_variant(done: Done) -> None:
    numbers = metrics(done.every, PARAMS)
    scores, rounds = scores_table(done.results), rounds_table(done.results)
    table = report.differences_table(numbers, scores, PARAMS)
    assert set(table.index) == set(numbers["differences"])
    assert table.columns.tolist() == ["nearest to 50 %", "nearest to 70 %", "mean over levels"]
    n = {"layerwise_minus_colt": 1, "more_partitions_minus_colt": 1}
    for name, text in table["mean over levels"].items():
        assert text.endswith(f"(n = {n.get(name, 2)})"), name
    real = nearest(scores, MAIN, 0.7).sparsity
    low, high = (f"{100 * value:.1f}" for value in (real.min(), real.max()))
    said = f"{low} %" if low == high else f"{low} to {high} %"
    shown = table.loc["colt_minus_imp", "nearest to 70 %"]
    assert shown.endswith(f"(n = 2) at {said}") and "70" not in said
    tickets = report.tickets_table(scores, rounds, PARAMS)
    assert tickets.index.tolist() == [
        "imp",
        "imp-matched",
        "imp-half",
        MAIN,
        RANDOM,
        FIVE,
        LAYERWISE,
    ]
    assert tickets.loc[MAIN, "nearest to 70 %"] == said
    ends = rounds[rounds.arm == MAIN].groupby("seed").sparsity.max()
    assert tickets.loc[MAIN, "the search ends at"] == report.span(ends)
    after = report.differences_table(numbers["late"], scores_table(done.late), PARAMS, late=True)
    assert set(after.index) == set(numbers["late"]["differences"])
    pace = report.pace_table(
        {"first": numbers["rounds"], "later": numbers["late"]["rounds"]}, PARAMS
    )
    assert pace.columns.tolist() == ["first", "later"]
    assert pace.loc[f"rounds, {label(MAIN)}", "first"] == str(Count(**numbers["rounds"][MAIN]))
    assert pace.loc[f"rounds, {label(FIVE)}", "later"] == "-"
    family = report.family_table(scores, rounds, PARAMS)
    assert family.index.tolist() == [MAIN, RANDOM, FIVE, LAYERWISE]
    assert family.n.tolist() == [2, 2, 1, 1]
    last = done.results[f"score/{FIVE}/seed-0"].record["rounds"][-1]
    assert (
        family.loc[FIVE, f"last ticket retrained, {LABELS[report.ACCURACY]}"]
        == last["last_accuracy"]
    )
    assert family.loc[FIVE, "last ticket retrained, sparsity"] == last["sparsity"]
    assert family.loc[FIVE, "rounds"] == len(done.results[f"search/{FIVE}/seed-0"].record["rounds"])


# --- figures


def test_a_study_without_the_further_searches_plans_counts_and_draws_the_others(
    done: Done, tiny_root: Path
) -> None:
    few = tiny.colt(further=[])
    names = {unit.name for units in planned(few) for unit in units}
    assert not any(RANDOM in name or "imp-half" in name for name in names)
    assert f"search/{MAIN}/seed-0" in names and "search/imp-matched/seed-0" in names
    keys = {u.name: u.key for units in planned(tiny.colt()) for u in units if "search/" in u.name}
    for unit in (u for units in planned(few) for u in units if u.name in keys):
        if "matched" not in unit.name:  # its schedule is only predicted here
            assert unit.key == keys[unit.name], unit.name  # what runs is not trained anew
    left = {name: r for name, r in done.results.items() if name in names}
    found = metrics(left, few)
    verdicts = {one.id: judge(one, found).word for one in load_claims("colt")}
    assert {"colt-S9", "colt-S9-rounds", "colt-H3-half"} <= {
        one for one, word in verdicts.items() if word == "not run"
    }
    assert "not run" not in {verdicts[one] for one in ("colt-H1", "colt-H2", "colt-H3", "colt-S6")}
    scores, rounds = scores_table(left), rounds_table(left)
    drawn = [
        figures.accuracy({"it": scores}, few),
        figures.points({"it": found}, {"it": scores}, 0.7, few),
        figures.pace(rounds, few),
        figures.cost(scores, few),
        figures.agreement(rounds, few),
        figures.layers(layers_table(left), rounds, few),
    ]
    for figure in drawn:
        figure.canvas.draw()
        assert label(RANDOM) not in legend(figure) and len(str(figure.get_label())) > 40
        plt.close(figure)


@pytest.fixture
def close() -> Iterator[None]:
    yield
    plt.close("all")


def legend(figure: Figure) -> list[str]:
    every = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [text.get_text() for one in every if one for text in one.get_texts()]


Draw = Callable[[dict[str, Result]], Figure]


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(
    ("draw", "arms"),
    [
        (
            lambda own: figures.accuracy({"the first": scores_table(own)}, PARAMS),
            ["imp", "imp-matched", "imp-half", MAIN, RANDOM, "random"],
        ),
        (lambda own: figures.pace(rounds_table(own), PARAMS), ["imp", "imp-half", MAIN, RANDOM]),
        (
            lambda own: figures.cost(scores_table(own), PARAMS),
            ["imp-matched", "imp-half", MAIN, RANDOM, "random"],
        ),
        (lambda own: figures.agreement(rounds_table(own), PARAMS), [MAIN, RANDOM]),
    ],
)
def test_a_figure_has_the_labels_of_its_arms_and_a_message(
    draw: Draw, arms: list[str], seeds: int, done: Done, close: None
) -> None:
    figure = draw({n: r for n, r in done.results.items() if r.record["seed"] < seeds})
    figure.canvas.draw()
    shown = legend(figure)
    assert [arm for arm in arms if label(arm) not in shown] == []
    assert label(FIVE) not in shown
    assert 40 < len(str(figure.get_label())) <= plots.ALT
    for ax in figure.axes:
        assert ax.get_title() and ax.get_xlabel()


def test_both_rewinding_points_have_a_panel_each(done: Done, close: None) -> None:
    words = {"initial weights": done.results, "later ones": done.late}
    curves = figures.accuracy({w: scores_table(r) for w, r in words.items()}, PARAMS)
    numbers = {w: metrics(done.every, PARAMS) for w in words}
    numbers["later ones"] = numbers["later ones"]["late"]
    tickets = {w: scores_table(r) for w, r in words.items()}
    dots = figures.points(numbers, tickets, 0.7, PARAMS)
    for figure in (curves, dots):
        figure.canvas.draw()
        first, second = figure.axes
        assert "initial weights" in first.get_title() and "later ones" in second.get_title()
    names = [ax.get_legend_handles_labels()[1] for ax in curves.axes]
    assert label("imp-half") in names[0] and label("imp-half") not in names[1]
    assert label("magnitude") in names[1] and label("magnitude") not in names[0]


def test_each_arm_has_a_row_with_its_interval_above_its_controls(done: Done, close: None) -> None:
    numbers = metrics(done.every, PARAMS)
    figure = figures.points({"it": numbers}, {"it": scores_table(done.results)}, 0.7, PARAMS)
    figure.canvas.draw()
    (ax,) = figure.axes
    rows = [tick.get_text() for tick in ax.get_yticklabels()]
    for arm in ("imp-matched", MAIN, RANDOM):
        place = rows.index(label(arm))
        assert rows[place + 1 : place + 3] == [label(f"{arm}-shuffled"), label(f"{arm}-reinit")]
    drawn = {
        (float(line.get_xdata()[0]), int(line.get_ydata()[0]))
        for line in ax.lines
        if line.get_linestyle() == "None" and len(line.get_xdata()) == 1
    }
    for arm in ("imp", "imp-half", MAIN, f"{RANDOM}-reinit", "random"):
        mean = numbers["accuracy"][arm]["at_70"]["mean"]
        assert (mean, rows.index(label(arm))) in drawn, arm
    assert label("magnitude") not in rows  # of the other point: what was not run has no row


def test_the_trade_has_images_saved_and_points_lost_at_equal_sparsity(close: None) -> None:
    rows = [
        (arm, seed, turn, sparsity, images, accuracy - seed)
        for seed in (0, 1)
        for arm, turn, sparsity, images, accuracy in (
            ("imp", 0, 0.0, 0, 90.0),
            ("imp", 1, 0.7, 1000, 85.0),
            (MAIN, 1, 0.7, 600, 82.0),
        )
    ]
    columns = ["arm", "seed", "round", "sparsity", "search_images", report.ACCURACY]
    figure = figures.cost(pd.DataFrame(rows, columns=columns), PARAMS)
    drawn = [np.ravel((line.get_xdata(), line.get_ydata())) for line in figure.axes[-1].lines]
    assert any(len(xy) == 2 and xy == pytest.approx((40.0, -3.0)) for xy in drawn)
    assert "saves 40 % of the images" in figure.get_label() and "-3.00 points" in figure.get_label()


def test_the_message_of_the_pace_has_both_counts_and_what_a_seed_saves() -> None:
    say = figures.fewer_rounds
    text = "To at least 95 % sparsity COLT takes 8 rounds instead of IMP's 14 "
    assert say({0: 8, 1: 8}, {0: 14, 1: 14, 2: 9}, 0.95) == f"{text}(6 fewer in every seed, n = 2)."
    assert say({0: 8, 1: 8}, {0: 13, 1: 15}, 0.95) == f"{text}(5 to 7 fewer, n = 2)."
    assert say({0: 8}, {}, 0.95) == "No seed has both COLT and IMP at 95 % sparsity."


def test_the_chance_line_of_the_rate_is_where_the_formula_says(done: Done, close: None) -> None:
    figure = figures.agreement(rounds_table(done.results), PARAMS)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "chance"]
    assert line.get_ydata()[0] == pytest.approx(1 - 0.6**2)


def test_layers_and_transfer_are_drawn(done: Done, close: None) -> None:
    rounds, table = rounds_table(done.results), layers_table(done.results)
    figure = figures.layers(table, rounds, PARAMS)
    figure.canvas.draw()
    arms = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert arms[0] == f"{label(MAIN)}\n{report.sparsities(rounds, MAIN, 0.7)}"
    names = {tick.get_text() for tick in figure.axes[0].get_yticklabels()}
    mask = done.results[f"search/{MAIN}/seed-0"].tickets["round-01"].mask
    assert names == {label(layer) for layer in mask}
    figure = figures.transfer(transfer_table(done.results), PARAMS.transfer)
    figure.canvas.draw()
    rows = {tick.get_text() for tick in figure.axes[0].get_yticklabels()}
    arms = (MAIN, "imp", f"{MAIN}-shuffled", "imp-shuffled")
    alone = {f"{label(arm)}, mask only" for arm in (MAIN, "imp")}
    assert rows == {label(arm) for arm in arms} | alone


def test_moved_tickets_are_shown_by_arm_level_and_test_image(done: Done) -> None:
    table = transfer_table(done.results)
    shown = report.moved_summary(table, PARAMS.transfer.levels)
    row = table[(table.arm == "imp") & (table.carried == "mask only")].iloc[0]
    said = shown.loc[("imp", "mask only"), "nearest to 70 %"]
    assert said == f"{row.last_accuracy:.2f} (n = 1) at {100 * row.sparsity:.1f} %"
    assert len(shown) == 7 and shown.loc[("dense", "mask and weights")].iloc[-1].endswith(
        "at 0.0 %"
    )
    labels = load(tiny.DIGITS).test.y
    images = report.moved_over_images(done.results, labels, PARAMS)
    whole = table[table.carried == "mask and weights"].set_index("arm").last_accuracy
    difference = whole[MAIN] - whole["imp"]
    assert images.loc["nearest to 70 %", "points over images"].startswith(f"{difference:.2f} [")
    assert images.loc["nearest to 70 %", "McNemar p <= .05"].endswith(" of 1 seeds")


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
