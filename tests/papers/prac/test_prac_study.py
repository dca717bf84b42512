"""The PrAC study: what is refused, what arms share, ledger, tables, metrics, figures, scales."""

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest
import tiny
import torch
from conftest import Message, equal, shared_folder, use_data
from torch import Tensor

from ticketlab.data.sets import DataSpec, load
from ticketlab.many import lanes
from ticketlab.many import train_many as many
from ticketlab.papers.prac import (
    algorithm,
    figures,
    figures_by_hand,
    figures_of_sets,
    metrics,
    report,
    retraining,
    subsets,
)
from ticketlab.papers.prac import study as prac_study
from ticketlab.papers.prac import units as prac_units
from ticketlab.papers.prac.bench import PracBench
from ticketlab.papers.prac.forecast import expected_passes
from ticketlab.papers.prac.params import LADDERS, PracParams, plans
from ticketlab.pipeline.params import load_study, read_studies, validate
from ticketlab.pruning.masks import after_pruning, jaccard
from ticketlab.study import cost, images, runner
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result, write_table
from ticketlab.study.runner import run_study
from ticketlab.study.stats import as_reference
from ticketlab.tickets import imp
from ticketlab.training import loop
from ticketlab.training.observers import Observer, Run

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes

Results = dict[str, Result]
IMAGES = 200


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny study, run once: its parameters, results and folder."""
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        with shared_folder(tmp_path_factory, "prac") as folder:
            results = run_study(prac_study.phases(tiny.prac()), folder)
        yield tiny.prac(), results, folder


def rows(results: Results, arm: str, seed: int = 0, place: str = "main") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = results[f"search/{place}/{arm}/seed-{seed}"].record["rounds"]
    return found


def unpacked(row: dict[str, Any]) -> set[int]:
    return set(subsets.unpack_index(row["set"], IMAGES).tolist())


# Bad input


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"threshold": -1}, "prac.threshold: -1 is not valid"),
        ({"stop": {"epsilon": 0.0}}, "prac.stop.epsilon: 0.0 is not valid"),
        ({"stop": {"epsilon": -0.1}}, "prac.stop.epsilon: -0.1 is not valid"),
        ({"rate": 0.0}, "prac.rate: 0.0 is not valid"),
        ({"rate": 1.0}, "prac.rate: 1.0 is not valid"),
        ({"levels": []}, "prac.levels: [] is not valid"),
        ({"scores": ["entropy"]}, "prac.scores.0: 'entropy' is not valid"),
        ({"others": [tiny.prac_other(name="a/b")]}, "prac.others.0.name: 'a/b' is not valid"),
        ({"levels": [4], "ablation_levels": [4]}, "levels: 4, allowed: 2 to 3 (rounds)"),
        ({"levels": [1, 2], "ablation_levels": [2]}, "levels: 1, allowed: 2 to 3 (rounds)"),
        ({"ablation_levels": [4]}, "prac.ablation_levels: [4] is not valid, allowed are some of"),
        (
            {"levels": [3], "ablation_levels": [2, 3]},
            "[2, 3] is not valid, allowed are some of lev",
        ),
        ({"rewind": "5ep"}, "rewind: '5ep' is beyond the run of 40 iterations"),
        (
            {"data": {**tiny.DIGITS.model_dump(), "validation": 0}},
            "data.validation: 0, allowed is 1",
        ),
        ({"model": {"name": "lenet"}}, "model.name: 'lenet' is not valid"),
        (
            {"others": [tiny.prac_other(levels=[3])]},
            "others.0.levels: 3, allowed: 2 to 2 (rounds)",
        ),
        ({"others": [tiny.prac_other(name="main")]}, "others.0.name: 'main' is taken"),
        ({"others": [tiny.prac_other(), tiny.prac_other()]}, "others.0.name: 'convnet' is taken"),
        ({"others": [tiny.prac_other(rounds=4)]}, "others.0.rounds: 4, allowed: 1 to 3 (sets"),
    ],
)
def test_bad_parameters_are_one_line(
    tiny_root: Path, one_line: Message, changes: dict[str, object], expected: str
) -> None:
    assert expected in one_line(lambda: prac_study.check(tiny.prac(**changes)))


def test_a_schedule_in_iterations_cannot_be_scaled_in_epochs(
    tiny_root: Path, one_line: Message
) -> None:
    recipe = {"batch": 20, "length": "40it"}
    assert "counts iterations" in one_line(lambda: prac_study.check(tiny.prac(recipe=recipe)))


def test_sets_of_another_data_set_or_too_few_are_refused(
    tiny_root: Path, tmp_path: Path, one_line: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prac_study, "ROOT", tmp_path)
    foreign = load(DataSpec(name="mnist_5k", train=100, validation=10, test=10))
    sets = [torch.arange(20), torch.arange(30)]
    subsets.save_index(tmp_path / "a", subsets.IndexFile(sets), foreign)
    carried = tiny.prac(others=[tiny.prac_other(index_file="a")])
    assert "made from mnist_5k" in one_line(lambda: prac_study.check(carried))
    own = load(tiny.DIGITS)
    subsets.save_index(tmp_path / "b", subsets.IndexFile(sets), own)
    assert prac_study.check(tiny.prac(others=[tiny.prac_other(index_file="b")]))
    few = tiny.prac(others=[tiny.prac_other(index_file="b", rounds=3)])
    assert "2 sets, 3 rounds are asked for" in one_line(lambda: prac_study.check(few))


# What the arms share


def test_every_search_has_a_mask_of_the_same_sparsity_each_round(done: Any) -> None:
    _, results, _ = done
    for (place, arm, _), result in report.searches(results):
        masks = [ticket.mask for _, ticket in sorted(result.tickets.items())]
        for before, after in pairwise(masks):
            assert before.contains(after) and after.alive == after_pruning(before.alive, 0.5)
        rounds = 2 if arm == "imp-again" else {"main": 3, "noise": 2, "convnet": 2}[place]
        first = 0 if arm in ("imp", "imp-again") else 2 if rounds > len(masks) else 1
        assert sorted(result.tickets)[-1] == f"round-{rounds:02d}"
        assert len(masks) == rounds - first + 1


def test_arms_of_a_seed_start_alike(done: Any) -> None:
    """The dense round is the same net on the same batches; only where it ends may differ."""
    _, results, _ = done
    one = "round-01"
    imp, linear = (results[f"search/main/{a}/seed-0"].tickets for a in ("imp", "prac-linear"))
    assert imp[one].mask == linear[one].mask
    early = (*LADDERS, "cep-only", "imp-early-stop")
    stopped = [results[f"search/main/{a}/seed-0"].tickets[one].mask for a in early]
    assert all(mask == stopped[0] for mask in stopped)
    assert imp[one].mask != results["search/main/imp/seed-1"].tickets[one].mask


def test_retrained_tickets_are_rewound_to_one_point(done: Any) -> None:
    _, results, _ = done
    theta = results["search/main/imp/seed-0"].tickets["round-00"].weights
    for arm in ("prac", "random", "random-pruning", "short-imp"):
        ticket = results[f"score/main/{arm}/seed-0"].tickets["round-03"]
        for name, kept in ticket.mask.items():
            assert torch.equal(ticket.weights[name][kept], theta[name][kept])
            assert not ticket.weights[name][~kept].any()
    fresh = results["score/main/reinit/seed-0"].tickets["round-03"]
    assert fresh.mask == results["score/main/prac/seed-0"].tickets["round-03"].mask
    name = next(iter(fresh.mask))
    assert not torch.equal(fresh.weights[name], theta[name] * fresh.mask[name])


def test_imps_last_ticket_scores_as_a_retraining_of_its_mask(done: Any) -> None:
    """IMP's own trainings are those of its tickets: nothing is retrained for it."""
    p, results, _ = done
    imp = results["search/main/imp/seed-0"]
    chosen = {"round-03": imp.tickets["round-03"].mask}
    again = retraining.score_tickets(p.setting(), 0, "imp", chosen)
    one, other = again.record["scores"][0], imp.record["scores"][3]
    assert one["selected_accuracy"] == other["selected_accuracy"]
    assert one["last_accuracy"] == other["last_accuracy"]


def test_followers_have_pracs_sizes_and_iterations(done: Any) -> None:
    _, results, _ = done
    leader = rows(results, "prac")
    for arm in ("random", "el2n", "aum", "dual", "ccs", "fixed"):
        own = rows(results, arm)
        for key in ("iterations", "samples", "set_samples"):
            assert [row[key] for row in own] == [row[key] for row in leader[1:]]
        assert all(not row["stopped"] for row in own)
        assert unpacked(own[0]) != unpacked(leader[1])
    fixed = rows(results, "fixed")
    small, large = sorted((unpacked(row) for row in fixed), key=len)
    assert small <= large
    short = rows(results, "short-imp")
    assert [r["iterations"] for r in short] == [r["iterations"] for r in leader]
    assert all(row["samples"] == IMAGES for row in short)


def test_both_readings_of_transfer(done: Any) -> None:
    _, results, _ = done
    source = rows(results, "prac")
    sequence = rows(results, "transfer-sequence", place="convnet")
    final = rows(results, "transfer-final", place="convnet")
    assert [row["samples"] for row in sequence] == [IMAGES, source[0]["set_samples"]]
    assert [row["samples"] for row in final] == [source[-1]["set_samples"]] * 2


# Sets


def test_sets_are_of_the_training_split_and_cet_only_shrinks(done: Any) -> None:
    """S4: CET is in the round's set, CEP need not be, no validation image is ever in a set."""
    _, results, _ = done
    data = load(tiny.DIGITS)
    official = [set(data.train_index.tolist()), set(data.validation_index.tolist())]
    assert not official[0] & official[1]
    for place, arm in (("main", "prac"), ("main", "cet-only"), ("convnet", "prac")):
        before = set(range(IMAGES))
        for row in rows(results, arm, place=place):
            now = unpacked(row)
            assert row["cet_outside"] == 0 and now <= set(range(IMAGES))
            assert len(now) == row["set_samples"] == sum(row["classes"])
            assert now <= before if arm == "cet-only" else row["union"] == len(now)
            assert row["samples"] == len(before) and sum(row["forgetting"]) == row["samples"]
            before = now


def test_exported_sets_come_back_and_name_their_source(
    tiny_root: Path, tmp_path: Path, done: Any
) -> None:
    p, results, _ = done
    data = load(tiny.DIGITS)
    paths = report.export_sets(results, p, tmp_path)
    assert [path.name for path in paths] == ["seed-0.safetensors", "seed-1.safetensors"]
    back = subsets.load_index(paths[0], data)
    expected = [unpacked(row) for row in rows(results, "prac")]
    assert [set(index.tolist()) for index in back.sets] == expected
    assert back.facts["model"] == "lenet_300_100" and back.facts["seed"] == 0


def test_a_round_that_finds_nothing_trains_on_its_own_set_again(tiny_root: Path) -> None:
    """The authors' code would take every image here, validation included."""
    setting = tiny.prac(threshold=subsets.NEVER).setting(rounds=2)
    found = prac_units.search(setting, 0, "cet-only", plans(setting)["cet-only"])
    assert [row["kept_set"] for row in found.record["rounds"]] == [True, True]
    assert [row["samples"] for row in found.record["rounds"]] == [IMAGES, IMAGES]


def test_a_stop_comes_neither_before_the_rewind_point_nor_below_the_floor(tiny_root: Path) -> None:
    eager = {"epsilon": 1.0, "window": 1, "arm_after": 0}
    late = tiny.prac(stop=eager, rewind="3ep", least_iterations=0).setting(rounds=1)
    first = prac_units.search(late, 0, "prac", plans(late)["prac"]).record["rounds"][0]
    assert first["stopped"] and first["epochs"] == 3
    least = tiny.prac(stop=eager, least_iterations=25).setting(rounds=2)
    turns = prac_units.search(least, 0, "prac", plans(least)["prac"]).record["rounds"]
    assert all(turn["iterations"] >= 25 for turn in turns)


def test_a_mask_that_never_moves_by_epsilon_arms_only_if_told(tiny_root: Path) -> None:
    ends = {}
    for arm_after in (None, 1):
        stop = {"epsilon": 1.0, "window": 1, "arm_after": arm_after}
        setting = tiny.prac(stop=stop).setting(rounds=1)
        turn = prac_units.search(setting, 0, "prac", plans(setting)["prac"]).record["rounds"][0]
        ends[arm_after] = (turn["armed"], turn["stopped"], turn["epochs"])
    assert ends == {None: (False, False, 4), 1: (True, True, 3)}


def test_flipped_labels_are_only_those_of_training(tiny_root: Path, done: Any) -> None:
    p, results, _ = done
    bench = PracBench(p.noisy(), 0)
    changed = (bench.data.train.y != bench.clean.train.y).nonzero().flatten()
    assert torch.equal(changed.sort().values, bench.flipped.sort().values) and len(changed) == 20
    assert torch.equal(bench.data.test.y, bench.clean.test.y)
    assert torch.equal(bench.data.validation.y, bench.clean.validation.y)
    for row in rows(results, "prac", place="noise"):
        assert row["flipped_never"] <= row["flipped"] <= 20
    assert all(row["flipped"] == 0 for row in rows(results, "prac"))


def test_the_same_search_twice_is_the_same(tiny_root: Path, done: Any) -> None:
    p, results, _ = done
    again = prac_units.search(p.setting(), 0, "prac", plans(p.setting())["prac"])
    first = results["search/main/prac/seed-0"]
    assert json.loads(json.dumps(again.record)) == first.record
    assert all(again.tickets[n].mask == first.tickets[n].mask for n in first.tickets)
    assert (
        run_study(prac_study.phases(p), done[2]).keys() == results.keys()
    )  # nothing is left to run


def test_the_rewind_point_is_the_dense_run_after_an_epoch(tiny_root: Path, done: Any) -> None:
    p, results, _ = done
    bench = PracBench(p.other(p.others[0]), 0)
    net = bench.net()
    theta = bench.theta(net)
    assert theta["body.bn1.num_batches_tracked"] == 10
    stored = results["search/convnet/imp/seed-0"].tickets["round-00"].weights
    assert equal(theta, {name: stored[name] for name in theta})


# Ledger, tables, metrics, figures


@pytest.fixture(scope="module")
def counted(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study of one seed: what the loop did in each unit, and what the units' records say."""
    one = tiny.prac(seeds=[0], thresholds=[], criteria=[], noise_rounds=1)
    done: dict[str, dict[str, int]] = {}
    now = dict.fromkeys(("iterations", "images"), 0)

    class Count(Observer):
        def before_step(self, run: Run) -> None:
            now["iterations"] += 1
            now["images"] += len(run.index)

    def train(*arguments: Any, observers: Any = (), **more: Any) -> Any:
        return loop.train(*arguments, observers=[*observers, Count()], **more)

    add = lanes.Meters.add

    def counted_add(meter: Any, losses: Tensor, logits: Tensor, y: Tensor) -> None:
        now["iterations"] += len(losses)
        now["images"] += len(losses) * y.shape[-1]
        add(meter, losses, logits, y)

    perform = runner._perform

    def counted(unit: runner.Unit, *more: Any) -> None:
        now.update(dict.fromkeys(now, 0))
        perform(unit, *more)
        done[unit.name] = dict(now)

    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        for module in (cost, imp):
            patch.setattr(module, "train", train)
        patch.setattr(many, "loop", SimpleNamespace(train=train))
        patch.setattr(lanes.Meters, "add", counted_add)
        patch.setattr(runner, "_perform", counted)
        results = run_study(prac_study.phases(one), tmp_path_factory.mktemp("counted"))
        yield one, done, results


def test_the_ledger_is_what_was_trained_and_looked_at(counted: Any) -> None:
    """Steps and images in them, for every unit; IMP's last training is its last ticket's own."""
    one, done, results = counted
    assert done.keys() == results.keys() and len(done) > 30
    for name, result in results.items():
        kind, place, arm, _seed = name.split("/")
        paid = paying_rows(result)
        if kind == "search" and arm in ("imp", "imp-again"):
            paid.append(result.record["rounds"][0])
        message = {key: sum(row[key] for row in paid) for key in ("iterations", "images")}
        assert message == done[name], (name, place, one.rounds)


def paying_rows(result: Result) -> list[dict[str, Any]]:
    """The rows of a unit that have a cost of their own: rounds, or the rewind point and tickets."""
    record = result.record
    if "rounds" in record:
        return list(record["rounds"])
    return [record["rewinding"], *record["scores"]]


def test_only_arms_that_do_not_pass_the_rewind_point_pay_for_it(counted: Any) -> None:
    """A carried set in round 0 (1.6), and a draw of its own; nobody else trains to it again."""
    _, _, results = counted
    for name, result in results.items():
        kind, _place, arm, _seed = name.split("/")
        if kind == "search":
            paid = [row["rewind_iterations"] for row in result.record["rounds"]]
            assert paid == [10 * (arm == "transfer-final")] + [0] * (len(paid) - 1), name
        else:
            assert result.record["rewinding"]["iterations"] == 10 * (arm == "reinit"), name
    table = report.rounds_table(results)
    final = table[(table.place == "convnet") & (table.arm == "transfer-final")]
    trained = [r["iterations"] for r in rows(results, "transfer-final", place="convnet")]
    assert final.saving.iloc[-1] == pytest.approx(100 * (1 - sum(trained) / 40))


def test_the_ledger_follows_the_papers_formula(done: Any) -> None:
    p, results, _ = done
    table = report.rounds_table(results)
    assert set(table.place) == {"main", "convnet", "noise"}
    for (place, arm, seed), own in table.groupby(["place", "arm", "seed"]):
        rounds = 3 if place == "main" and arm != "imp-again" else 2
        assert own["round"].tolist() == list(range(1, rounds + 1)), (place, arm, seed)
        full = 40 if place != "convnet" else 20
        saved = 100 * algorithm.saving(own.iterations.tolist(), full)
        assert own.saving.iloc[-1] == pytest.approx(saved)
        assert own.sparsity.tolist() == pytest.approx([1 - 0.5**k for k in own["round"]], abs=1e-3)
    imp = table[(table.arm == "imp") & (table.place == "main")]
    assert imp.saving.abs().max() == 0 and p.rounds == imp["round"].max()


def test_the_steps_of_the_decomposition_add_up_to_the_saving(done: Any) -> None:
    p, results, _ = done
    numbers = metrics.metrics(results, p)
    steps, saved = numbers["decomposition"], numbers["saving"]
    rounds = report.rounds_table(results)
    own = rounds[(rounds.place == "main") & (rounds.seed == 0) & (rounds["round"] == 3)]
    by = own.set_index("arm").saving
    assert steps["data"]["saving"]["mean"] == pytest.approx(by["prac-linear"])  # one seed
    total = steps["data"]["saving"]["mean"] + steps["early_stop"]["saving"]["mean"]
    assert total == pytest.approx(by["prac"])
    assert steps["schedule_alone"]["saving"]["mean"] == pytest.approx(saved["prac"]["mean"])


def test_metrics_are_plain_numbers_with_every_metric_that_claims_name(done: Any) -> None:
    p, results, _ = done
    numbers = metrics.metrics(results, p)
    assert json.loads(json.dumps(numbers)) == numbers
    verdicts = {v.claim.id: v.word for v in (judge(c, numbers) for c in load_claims("prac"))}
    # CIFAR-100, criteria, and 16 rounds
    for name in ("S8", "S8-saving", "S15-grasp", "S15-synflow", "S2-left-out"):
        assert verdicts.pop(f"prac-{name}") == "not run"
    assert "not run" not in verdicts.values()
    differences = numbers["differences"]["prac_minus_imp"]
    levels = [differences["first_level"]["mean"], differences["last_level"]["mean"]]
    assert differences["mean"]["mean"] == pytest.approx(sum(levels) / 2)
    assert differences["mean"]["n"] == 2
    cost = numbers["cost"]
    assert cost["imp"]["training"]["mean"] == 3 and cost["imp"]["saving_in_all"]["mean"] == 0
    assert cost["prac"]["saving_in_all"]["mean"] < numbers["saving"]["prac"]["mean"]


def test_a_harder_task_fills_its_numbers(done: Any) -> None:
    p, results, _ = done
    data = p.data.model_copy(update={"name": "cifar100"})
    rounds, scores = report.rounds_table(results), report.scores_table(results)
    found = metrics.savings(rounds, scores, p.model_copy(update={"data": data}))
    less, saved = found["short_of_80_on_a_hard_task"], found["prac"]
    assert less["mean"] == pytest.approx(80 - saved["mean"])


def test_references_are_the_dense_nets_beside_a_constant_answer(done: Any) -> None:
    p, results, _ = done
    found, labels = metrics.metrics(results, p)["references"], load(p.data).test.y
    chance = 100 * int(labels.bincount().max()) / len(labels)
    scores = report.scores_table(results)
    for place, arm in (("main", "the dense net"), ("convnet", "the dense net convnet")):
        own = report.at(scores, "imp", 0, place)
        assert found["others"][arm] == as_reference(own, chance, len(labels))
    assert found["dense"] == {"the dense net": found["others"]["the dense net"]}


@pytest.mark.parametrize("few", [0, 1])
def test_a_study_without_extras_has_metrics_too(tiny_root: Path, tmp_path: Path, few: int) -> None:
    """Also where a round is a single epoch, between whose masks there is no distance."""
    short = {"lr": 0.1, "batch": 20, "length": "1ep", "milestones": ["50%"]}
    bare = tiny.prac(seeds=[0], rounds=2, levels=[2], ablation_levels=[2], thresholds=[], scores=[],
                  label_noise=0.0, others=[], recipe=short, rewind="2it",
                  ablation_seeds=few)  # fmt: skip
    results = run_study(prac_study.phases(bare), tmp_path)
    numbers = metrics.metrics(results, bare)
    assert numbers["mask_distance"]["before_drop"] is None
    assert numbers["noise"] is None and numbers["transfer"]["final_minus_native"] is None
    assert numbers["thresholds"] == {"set_share": None, "accuracy": None}
    words = {judge(claim, numbers).word for claim in load_claims("prac")}
    assert words == {"undecided", "not run"}  # one seed decides nothing
    assert (numbers["saving"]["prac_linear"] is None) == (few == 0)


def test_tables_are_long_and_written(tmp_path: Path, done: Any) -> None:
    _, results, _ = done
    sets = report.sets_table(results)
    assert (sets.share - sets[["only_cet", "both", "only_cep"]].sum(axis=1)).abs().max() < 1e-9
    classes = report.classes_table(results)
    assert classes.groupby(["seed", "round"]).share.sum().round(6).eq(100).all()
    events = report.forgetting_table(results)
    assert events.groupby(["seed", "round"]).share.sum().round(6).eq(100).all()
    overlaps = report.overlaps_table(results, 3)
    a, b = (
        results[f"search/main/{arm}/seed-0"].tickets["round-03"].mask for arm in ("prac", "imp")
    )
    mine = overlaps[(overlaps.arm == "prac") & (overlaps.seed == 0)]
    assert mine.iou.item() == jaccard(a, b) and mine.chance.item() == pytest.approx(
        1 / 15, abs=1e-3
    )
    write_table(report.rounds_table(results), tmp_path / "rounds.csv")
    head = (tmp_path / "rounds.csv").read_text().splitlines()[0]
    assert "saving" in head and not {"set", "distances", "classes"} & set(head.split(","))


# seaborn's heatmap still sets a colour map in the old way
@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")
def test_every_figure_draws(done: Any) -> None:
    p, results, _ = done
    scores, rounds = report.scores_table(results), report.rounds_table(results)
    numbers = metrics.metrics(results, p)
    data, some = load(tiny.DIGITS).train, torch.arange(15)
    ask: list[Callable[[], object]] = [
        partial(figures.saved_and_lost, scores, rounds, p.levels),
        partial(figures.accuracy, scores, p.levels),
        partial(figures.against_imp, scores, p.levels),
        partial(figures.cost, rounds),
        partial(figures.overlap, report.overlaps_table(results, p.again_rounds or p.rounds)),
        partial(figures_of_sets.composition, report.sets_table(results)),
        partial(figures_of_sets.class_balance, report.classes_table(results)),
        partial(figures_of_sets.forgetting_by_round, report.forgetting_table(results)),
        partial(figures.distances, report.distances_table(results), p, numbers["mask_distance"]),
        partial(figures.decomposition, numbers["decomposition"]),
        partial(figures.transfer, numbers["transfer"], p),
        partial(figures.ablations, scores, p),
        partial(figures_by_hand.one_distance, [0.2, 0.1], 0.05, [1.0, 2.0]),
        partial(figures_by_hand.forgetting, torch.tensor([0, 1, -1, subsets.NEVER])),
        partial(figures_by_hand.in_and_out, data, some),
        partial(figures_by_hand.forgotten_by_pruning, data, some[:3], data.y, data.y),
        partial(figures_by_hand.forgotten_by_pruning, data, some[:0], data.y, data.y),
    ]
    for draw in ask:
        figure = draw()
        figure.canvas.draw()  # type: ignore[attr-defined]
        assert figure.get_label(), draw  # type: ignore[attr-defined]
        plt.close(figure)  # type: ignore[arg-type]


def test_tables_have_labels_and_random_samples_are_no_random_masks(done: Any) -> None:
    p, results, _ = done
    numbers, scores = metrics.metrics(results, p), report.scores_table(results)
    table = report.levels_table(numbers["differences"], scores, p.levels)
    assert {"PrAC minus IMP", "PrAC minus random samples"} <= set(table.index)
    assert list(table.columns)[-1] == f"mean of {len(p.levels)} levels"
    assert all(column.endswith("sparse") for column in table.columns[:-1])
    every = [report.column(numbers[k], "") for k in ("saving", "sets", "mask_distance", "overlap")]
    every += [report.steps_table(numbers["decomposition"]), report.table(numbers["cost"], "")]
    every += [
        report.thresholds_table(numbers["thresholds"]),
        report.nets_table(numbers["transfer"], p),
    ]
    every += [report.amortised_table(numbers["amortised"]), table]
    every += [report.ablations_table(numbers["ablations"], scores, p)]
    shown = {str(name) for one in every for name in (*one.index, *one.columns)}
    assert [name for name in shown if re.search("[a-z]_[a-z]", name)] == []


def test_headline_pairs_keep_their_tickets_outcomes(done: Any) -> None:
    p, results, _ = done
    kept = images.hits(results, load(p.data).test.y)
    pairs = report.image_pairs(report.scores_table(results), p.levels)
    assert {name for name, _ in pairs} == {"PrAC minus IMP", "PrAC minus random samples"}
    assert {key for pair in pairs.values() for key in pair} <= set(kept)
    assert list(images.pairs_table(kept, pairs).index) == list(pairs)
    assert report.images_table(results, p).empty  # each seed has test images of its own


def test_the_expected_passes_are_of_the_right_size(done: Any) -> None:
    p, results, _ = done
    seen = sum(row["images"] for result in results.values() for row in paying_rows(result))
    assert 0.5 < expected_passes(p) / seen < 2


# The scales


STUDIES = [name for name, (papers, _) in read_studies().items() if "prac" in papers]


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_starts_and_its_sets_can_be_carried(study: str, tiny_root: Path) -> None:
    """A cut-down version of each study: its net and rules, on few images for few steps."""
    block = load_study(study)["prac"]
    values = block.model_dump(mode="json")
    recipe = {**values["recipe"], "length": "1ep", "milestones": []}
    few = {"name": "digits_tiny", "train": 20, "validation": 10, "test": 10}
    small = {"data": few, "recipe": recipe, "rounds": 1, "levels": [1], "ablation_levels": [1],
             "least_iterations": 0, "others": [], "rewind": "0it", "again_rounds": 0, "probe": 20,
             "runtime": {"device": "cpu"}}  # fmt: skip
    cut = validate(PracParams, values | small, study)
    prac_study.check(cut)
    found = prac_units.search(cut.setting(), 0, "prac", plans(cut.setting())["prac"])
    assert len(found.record["rounds"]) == 1
    for item in block.others:  # type: ignore[attr-defined]
        assert item.rounds <= block.rounds  # type: ignore[attr-defined]


def test_new_initial_weights_get_no_rewind_point_of_the_old_ones(done: Any) -> None:
    params, results, _ = done
    units = {unit.name: unit for unit in prac_study.scorings(params, results)}
    unit = units["score/main/reinit/seed-0"]
    dense = results["search/main/imp/seed-0"].tickets["round-00"]
    offered = unit.work(**{**unit.arguments, "dense": dense})
    assert offered.record == results[unit.name].record
