"""The Plant 'n' Seek study end to end, small: units, tables, metrics, figures, and its refusals."""

from math import log10
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, equal

from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm, report, study
from ticketlab.papers.plant_n_seek import figures as draw
from ticketlab.papers.plant_n_seek import metrics as plant_metrics
from ticketlab.papers.plant_n_seek import units as plant_units
from ticketlab.papers.plant_n_seek.metrics import metrics
from ticketlab.papers.plant_n_seek.params import PlantParams, cases
from ticketlab.papers.plant_n_seek.units import PlantBench, multishot_masks, singleshot_masks
from ticketlab.pipeline import params
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.plots import use_style
from ticketlab.study.results import Result, load_result
from ticketlab.study.runner import run_study
from ticketlab.study.stats import as_metric


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Result]:
    return dict(run_study(study.phases(tiny.plant_n_seek()), folder))


def bench(seed: int = 0, **changes: object) -> PlantBench:
    return PlantBench(tiny.plant_n_seek(**changes), cases(tiny.plant_n_seek().grids[0])[0], seed)


def test_every_unit_is_run_once_and_kept(results: dict[str, Result], folder: Path) -> None:
    units = study.units(tiny.plant_n_seek())
    assert list(results) == [unit.name for unit in units]
    again = run_study(study.phases(tiny.plant_n_seek()), folder)
    assert {n: r.record for n, r in again.items()} == {n: r.record for n, r in results.items()}
    for unit in units:
        stored = load_result(folder, unit.name, unit.key)
        assert stored is not None and set(stored.tickets) == set(results[unit.name].tickets)


def test_a_unit_depends_on_nothing_but_its_arguments(results: dict[str, Result]) -> None:
    chosen = [
        u for u in study.units(tiny.plant_n_seek()) if "circle" in u.name and "seed-1" in u.name
    ]
    assert len(chosen) == 4
    unit = chosen[-1]
    assert unit.work(**unit.arguments).record == results[unit.name].record
    fewer = study.units(tiny.plant_n_seek(seeds=[1]))
    assert {u.key for u in fewer if u.name == unit.name} == {unit.key}


@pytest.mark.slow
def test_a_seeds_units_are_the_same_bytes_without_the_others_in_new_processes(
    results: dict[str, Result], folder: Path, tmp_path: Path
) -> None:
    """Here the units of two seeds ran one after another; there those of one, the longest first."""
    there = run_study(study.phases(tiny.plant_n_seek(seeds=[1])), tmp_path, workers=2)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert 2 * len(there) > len(results) > len(there) < len(files)
    for path in files:
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_masks_have_their_density_and_the_scores_are_paired(results: dict[str, Result]) -> None:
    scores = report.scores_table(results)
    exact = scores[scores.method.isin(["random", "magnitude", "snip", "synflow_rounds"])]
    total = exact.task.map({"circle": 24 * 2 + 24 * 24 * 2 + 24 * 4 + 76, "relu": 24 * 50 + 73})
    assert (exact.kept == total - ((1 - exact.density) * total).astype(int)).all()
    assert (scores.effective.dropna() <= scores.kept[scores.effective.notna()]).all()
    assert scores.groupby(["task", "seed"]).ticket.nunique().eq(1).all()
    assert not scores.duplicated([*report.CELL, "seed"]).any()
    oracle = scores[scores.method == "oracle"]
    assert (oracle.recall == 1).all() and (oracle.scalar_margin.abs() < 5).all()
    circle = scores[scores.task == "circle"]
    assert circle.weak.dropna().between(0, 100).all()


def test_masks_that_are_not_trained_are_those_that_would_be(results: dict[str, Result]) -> None:
    grid = {k: v for k, v in tiny.PLANT_N_SEEK["grids"][0].items() if k != "controls"}
    bare = study.units(tiny.plant_n_seek(seeds=[1], grids=[grid | {"trained": False}]))
    for unit in bare:
        found, whole = unit.work(**unit.arguments), results[unit.name]
        assert not found.tickets and all("weak" not in row for row in found.record["rows"])
        rows = {(row["method"], row["label"]): row for row in whole.record["rows"]}
        assert found.record["rows"]
        for row in found.record["rows"]:
            trained = rows[row["method"], row["label"]]
            assert row == {k: v for k, v in trained.items() if k != "weak"}
        assert unit.passes < next(
            u.passes for u in study.units(tiny.plant_n_seek()) if u.name == unit.name
        )


def test_arms_of_a_seed_share_mother_and_data() -> None:
    one, other = bench(), bench()
    assert equal(one.start("unplanted"), other.start("unplanted"))
    planted, bare = one.start("planted"), one.start("unplanted")
    marked = one.planted.mask
    outside = [(planted[n] == bare[n]) | marked[n] | (planted[n] == 0) for n in planted]
    assert all(bool(same.all()) for same in outside)
    unbiased = one.start("unbiased")
    assert not unbiased["bias4"].any() and bare["bias4"].all()
    assert torch.equal(unbiased["weight4"], bare["weight4"])
    assert not torch.equal(one.data("train")[0][:100], one.data("test")[0])
    assert one.digest() == other.digest() != bench(1).digest()


def test_multishot_resets_prunes_in_rounds_and_never_revives() -> None:
    one = bench(rounds=3)
    arms = plant_units.arms_of(one, ["magnitude", "synflow"], [0.2])
    seen = []
    for rounds in (1, 2, 3):
        shorter = bench(rounds=3)
        part = [plant_units.Arm(a.method, a.label, 0.2 ** (rounds / 3), a.mask) for a in arms]
        p = shorter.params.model_copy(update={"rounds": rounds})
        found = multishot_masks(PlantBench(p, one.case, 0), part, one.start("planted"))
        seen.append([arm.mask for arm in found])
    for place in range(2):
        first, second, third = (masks[place] for masks in seen)
        assert first.contains(second) and second.contains(third)
    single = singleshot_masks(one, arms, one.start("planted"))
    assert single[0].mask.alive == seen[-1][0].alive


def test_the_released_rule_lets_masks_lose_more_than_asked() -> None:
    one = bench(as_released=True)
    arm = plant_units.arms_of(one, ["grasp"], [0.5])
    kept = singleshot_masks(one, arm, one.start("planted"))[0].mask.density
    assert kept <= 0.5
    masks = multishot_masks(one, arm, one.start("planted"))[0].mask
    assert masks.density <= 0.5


def test_a_deaf_net_is_remembered_as_collapsed() -> None:
    one = bench()
    arm = plant_units.arms_of(one, ["magnitude"], ["gt"])[0]
    dead = algorithm.nonzeros({n: torch.zeros_like(w) for n, w in one.planted.mother.items()})
    gone = plant_units.replaced(arm, dead, 2)
    assert gone.collapsed == 2 and plant_units.replaced(gone, dead, 3).collapsed == 2
    assert plant_units.replaced(arm, one.dense(), 1).collapsed is None


def test_metrics_answer_every_claim(results: dict[str, Result]) -> None:
    numbers = metrics(results, tiny.plant_n_seek())
    verdicts = {
        v.claim.id: v for v in map(lambda c: judge(c, numbers), load_claims("plant_n_seek"))
    }
    missing = [name for name, verdict in verdicts.items() if verdict.evidence is None]
    assert "pns-C11" in missing and "pns-C5-shallow" in missing
    assert verdicts["pns-S6"].evidence is not None and verdicts["pns-S5"].evidence is not None
    assert verdicts["pns-S5"].evidence.n == 3
    released = numbers["popup"]["relu_released_shortfall"]
    assert numbers["popup"]["relu_gt_found_joint_unbiased"]["n"] == 3
    assert numbers["popup"]["relu_gt_found_joint_unplanted"] is None
    assert set(numbers["conv"].values()) == {None}
    assert numbers["visible"]["circle_norm"]["n"] == 2
    assert released["mean"] > 1 and numbers["popup"]["relu_gt_found_released"]["share"] == 0


def test_references_are_trained_dense_nets_beside_a_constant_prediction(
    results: dict[str, Result],
) -> None:
    found, scores = (
        metrics(results, tiny.plant_n_seek())["references"],
        report.scores_table(results),
    )
    dense = scores[(scores.method == "dense") & (scores.mother == "planted")]
    circle = found["circle"]["the dense net on circle"]
    assert circle["score"] == as_metric(dense[dense.task == "circle"].weak)
    tests = {task: [bench_of(task, seed).test[1] for seed in (0, 1)] for task in ("circle", "relu")}
    most = [int(y.bincount().max()) for y in tests["circle"]]
    assert circle["chance"] == pytest.approx(max(most))  # of 100 test samples
    spread = [float(((y - y.mean()) ** 2).mean()) for y in tests["relu"]]
    errors = dense[dense.task == "relu"].sort_values("seed").weak
    below = [log10(s / e) for s, e in zip(spread, errors, strict=True)]
    relu = found["relu"]["the dense net on relu"]
    assert relu["chance"] == 0 and relu["score"]["mean"] == pytest.approx(sum(below) / 2)
    assert list(found["popup_relu"]) == ["the dense net on relu", "edge-popup on relu"]
    assert found["helix"] == {"the dense net on helix": None}


def bench_of(task: str, seed: int) -> PlantBench:
    """The bench of the main cell for a task."""
    return PlantBench(
        tiny.plant_n_seek(),
        report.main_case(tiny.plant_n_seek()).model_copy(update={"task": task}),
        seed,
    )


def pruned(**columns: object) -> pd.DataFrame:
    """Rows of pruned nets: equal values for all, lists for a row each."""
    usual = {"task": "circle", "seed": 0, "regime": "singleshot", "mother": "planted", "depth": 5,
             "width": 100, "noise": 0.01, "density": 0.1, "label": "0.1", "method": "snip",
             "alive": True, "weak": 90.0, "weak_margin": -8.0, "raw_margin": -8.0,
             "scalar_margin": 0.0, "per_output_margin": -8.0}  # fmt: skip
    return pd.DataFrame(usual | columns)


def mean(found: plant_metrics.Found) -> float:
    assert found is not None
    return float(found["mean"])


def test_accuracies_and_errors_are_held_against_fixed_bounds() -> None:
    circle = pruned(method=["random", "snip", "grasp", "magnitude"], weak=[85.0, 87.0, 20.0, 99.0])
    found = plant_metrics.singleshot_metrics(circle)
    assert found["circle_above_thresholds"] == as_metric([-1.0])  # SNIP; GraSP has no threshold
    dense = circle.assign(label="0.5", density=0.5)
    assert plant_metrics.singleshot_metrics(dense)["circle_above_thresholds"] == as_metric([-8])
    gt = plant_metrics.singleshot_metrics(circle.assign(label="gt", density=0.005))
    assert gt["circle_gt_below_20"] == as_metric([-79.0]) and gt["relu_gt_shortfall"] is None
    helix = pruned(task="helix", label="0.5", method=["random", "grasp"], weak=[2e-4, 1.0])
    found = plant_metrics.singleshot_metrics(helix)
    assert mean(found["helix_below_0002_at_05"]) == pytest.approx(1)
    assert mean(found["helix_grasp_above_01"]) == pytest.approx(1)


def test_gains_widths_and_local_grasp_are_paired_by_seed() -> None:
    both = pruned(regime=["singleshot", "multishot"], label="0.01", density=0.01,
                  method="magnitude", weak_margin=[-60.0, -10.0])  # fmt: skip
    found = plant_metrics.multishot_metrics(both)
    assert found["magnitude_gain_at_001"] == as_metric([50.0]) and not found["snip_gain_at_001"]
    assert found["grasp_local_deficit"] is None
    local = pruned(regime="multishot", method=["snip", "grasp_local"], weak_margin=[-5.0, -30.0])
    assert plant_metrics.multishot_metrics(local)["grasp_local_deficit"] == as_metric([25.0])
    wide = pruned(depth=6, width=[100, 1000, 1000], label=["0.1", "0.1", "0.9"],
                  per_output_margin=[-40.0, -44.0, 0.0])  # fmt: skip
    assert plant_metrics.wide_likeness(wide) == as_metric([-4.0])
    assert plant_metrics.wide_likeness(wide[:1]) is None


def test_sparse_and_linear_edge_popup_have_their_bounds() -> None:
    circle = pruned(regime="popup_linear", method=["plain", "annealed"], density=0.005, label="gt",
                    raw=[17.0, 39.0], scalar=0.0)  # fmt: skip
    found = plant_metrics.popup_metrics(circle)
    assert found["circle_sparse_below_half"] == as_metric([11.0])
    assert found["relu_linear_below_0001_at_05"] is None
    relu = circle.assign(task="relu", label="0.5", density=0.5, scalar=1e-4)
    found = plant_metrics.popup_metrics(relu)
    assert mean(found["relu_linear_below_0001_at_05"]) == pytest.approx(1)
    assert found["circle_sparse_below_half"] is None


def test_a_margin_is_zero_at_the_ticket_and_negative_below() -> None:
    assert report.margin(0.9, 0.98, "circle") == pytest.approx(-8)
    assert report.margin(1e-3, 1e-4, "relu") == pytest.approx(-1)
    assert report.margin(1e-4, 1e-4, "helix") == 0


def test_tables_and_figures_can_be_made(results: dict[str, Result]) -> None:
    use_style()
    p = tiny.plant_n_seek()
    scores, learning = report.scores_table(results), report.curves_table(results)
    layers = report.layers_table(results, p)
    figures = [
        draw.found(scores, p),
        draw.collapse(layers, scores, p),
        draw.overlap(scores, p),
        draw.popup(learning, p),
        draw.cost(report.leaderboard(scores, p)),
    ]
    one = bench()
    figures += [draw.ticket(one.planted), draw.hidden({"paper": one.planted})]
    figures += [draw.visible(report.audit_table(results))]
    for figure in figures:
        figure.canvas.draw()
        draw.plt.close(figure)
    assert set(report.controls_table(scores, p).columns) == {"circle", "relu"}
    assert report.overlap_table(scores, p).unplanted.notna().any()
    audits = report.audit_table(results)
    assert set(audits["mode"]) == {"authors", "norm", "paper"}
    assert report.visibility_table(audits).shape[0] == 6
    assert report.rank_table(report.audit_table(results, "ranks")).notna().any().any()
    board = report.leaderboard(scores, p)
    assert set(board.steps) == {4, 12}
    assert set(learning.epoch) == {1, 2}
    table = report.targets_table((3, 5), 100, 2000)
    assert table.loc[("relu", 3), "density"] == pytest.approx(report.PRINTED["relu"])


def test_bad_parameters_are_refused_in_one_line(one_line: Message) -> None:
    def refused(**change: object) -> str:
        grids = [tiny.PLANT_N_SEEK["grids"][0] | change]
        return one_line(lambda: study.check(tiny.plant_n_seek(grids=grids)))

    assert "cube" in refused(tasks=["cube"])
    assert "2 neuron layers" in refused(depths=[2])
    assert "20" in refused(widths=[19])
    assert "density" in refused(densities=[0.0])
    assert "'half'" in refused(densities=["half"])
    assert "magnitud" in refused(singleshot=["magnitud"])
    assert "unknown key" in refused(methods=["random"])
    assert "controls" in refused(trained=False)
    twice = one_line(
        lambda: study.units(
            tiny.plant_n_seek(grids=[tiny.PLANT_N_SEEK["grids"][0], tiny.PLANT_N_SEEK["grids"][0]])
        )
    )
    assert "in two grids" in twice
    assert "train" in one_line(lambda: tiny.plant_n_seek(train=3))
    assert "audits" in one_line(lambda: tiny.plant_n_seek(audits=[7]))


@pytest.mark.parametrize("block", ["desk", "cifar10", "paper"])
def test_a_cut_of_every_block_of_the_study_starts(block: str) -> None:
    whole = params.load_paper(block, "plant_n_seek")
    assert isinstance(whole, PlantParams)
    study.check(whole.model_copy(update={"conv": None}))  # its images are not here
    units = study.units(whole)
    small = {"train": 100, "test": 50, "rounds": 1, "round_epochs": 1, "score_rounds": 2}
    kinds = {"singleshot": 0, "multishot": 0, "popup": 0}
    for unit in units:
        kind = unit.name.split("/")[0]
        if kind not in kinds or "w1000" in unit.name or kinds[kind]:
            continue
        kinds[kind] += 1
        p = unit.arguments["params"]
        fit = p.fit.model_copy(update={"epochs": 1, "batch": 50})
        popup = p.popup.model_copy(update={"epochs": 1, "batch": 50})
        cut = p.model_copy(update=small | {"fit": fit, "popup": popup})
        record = unit.work(**dict(unit.arguments) | {"params": cut}).record
        assert record["rows"] and stacks.layers(
            PlantBench(cut, unit.arguments["case"], 0).start("planted")
        )
    asked = {unit.name.split("/")[0] for unit in units} & kinds.keys()
    assert {kind for kind, count in kinds.items() if count} == asked >= {"singleshot"}
