"""The Plant 'n' Seek study end to end, small: units, tables, metrics, figures, and its refusals."""

from math import log10
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, equal
from matplotlib.text import Text

from ticketlab.many import stacks
from ticketlab.papers.plant_n_seek import algorithm, report, study, success
from ticketlab.papers.plant_n_seek import controls as plant_controls
from ticketlab.papers.plant_n_seek import figures as draw
from ticketlab.papers.plant_n_seek import figures_by_hand as by_hand
from ticketlab.papers.plant_n_seek import figures_inside as inside
from ticketlab.papers.plant_n_seek import figures_of_popup as of_popup
from ticketlab.papers.plant_n_seek import metrics as plant_metrics
from ticketlab.papers.plant_n_seek import units as plant_units
from ticketlab.papers.plant_n_seek.metrics import metrics
from ticketlab.papers.plant_n_seek.params import PlantParams, cases
from ticketlab.papers.plant_n_seek.units import PlantBench, multishot_masks, singleshot_masks
from ticketlab.pipeline import params
from ticketlab.study import rules
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.controls import all_of
from ticketlab.study.plots import ALT, use_style
from ticketlab.study.results import Result, load_result
from ticketlab.study.runner import run_study
from ticketlab.study.stats import as_metric, as_share


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
    assert report.kept_as_asked(scores).all() and "grasp_local" in set(scores.method)
    more = scores.assign(kept=scores.kept + (scores.method == "grasp_local"))
    assert not report.kept_as_asked(more).all()
    assert report.asked("grasp", [3, 3], 0.5) == 3 and report.asked("grasp_local", [3, 3], 0.5) == 4
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
    claims = load_claims("plant_n_seek")
    verdicts = {claim.id: judge(claim, numbers) for claim in claims}
    missing = [name for name, verdict in verdicts.items() if verdict.evidence is None]
    assert "pns-C11" in missing and "pns-C5-shallow" in missing
    assert not {"pns-C1-circle", "pns-C1-relu", "pns-S2", "pns-S5", "pns-S6"} & set(missing)
    popup = numbers["popup"]
    assert popup["relu_gt_found_planted"]["n"] == popup["relu_gt_found_joint_unbiased"]["n"] == 3
    assert popup["relu_gt_found_joint_unplanted"] is None
    assert set(numbers["conv"].values()) == {None}
    assert numbers["visible"]["circle_norm"]["n"] == 2
    assert popup["relu_released_none_found"]["k"] == popup["relu_released_none_found"]["n"] == 3
    assert popup["relu_gt_found_released"]["share"] == 0


def test_parameters_decide_no_share(results: dict[str, Result]) -> None:
    """What some seeds do and others do not must be able to come out either way."""
    shares = [claim for claim in load_claims("plant_n_seek") if claim.unit == "seeds"]
    assert len(shares) > 15
    for claim in shares:
        assert rules.is_decidable(claim.planned, claim.bound, claim.above is not None), claim.id
    assert not rules.is_decidable(5, 50.0, strictly=True)  # what five seeds would do to them


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


def test_a_ticket_is_found_within_ten_points_or_a_decade() -> None:
    circle = pruned(weak_margin=[0.0, -10.0, -10.1], seed=[0, 1, 2])
    assert list(report.is_found(circle)) == [True, True, False]
    relu = pruned(task="relu", weak_margin=[-0.9, -1.0, -1.1], scalar_margin=-2.0, seed=[0, 1, 2])
    assert list(report.is_found(relu)) == [True, True, False]
    assert not report.is_found(relu, "scalar_margin").any()


def test_every_and_no_method_are_counted_in_seeds_that_have_all_arms() -> None:
    """Seed 0 finds with both, seed 1 with one, seed 2 with none; seed 3 lacks an arm."""
    rows = pruned(seed=[0, 0, 1, 1, 2, 2, 3], method=["snip", "random"] * 3 + ["snip"],
                  weak_margin=[-1.0, -2.0, -1.0, -50.0, -60.0, -50.0, -1.0])  # fmt: skip
    assert plant_metrics.all_found(rows) == as_share({0: True, 1: False, 2: False})
    assert plant_metrics.none_found(rows) == as_share({0: False, 1: False, 2: True})
    assert plant_metrics.all_found(rows[:0]) is None


def test_means_stand_on_the_seeds_planned_for_means() -> None:
    """Twenty seeds for shares are no reason to call a mean extended."""
    later = {seed: 100.0 if seed >= 110 else 1.0 for seed in range(119, 99, -1)}
    found = plant_metrics.over_seeds(later)
    assert found is not None and (found["n"], found["mean"]) == (10, 1.0)
    assert plant_metrics.apart(later, dict.fromkeys(later, 1.0)) == as_metric([0.0] * 10)


def test_one_shot_is_counted_by_task_and_density() -> None:
    methods = ["random", "magnitude", "snip", "grasp", "synflow"]
    circle = pruned(method=methods, weak_margin=[-1.0, -2.0, -3.0, -4.0, -50.0])
    found = plant_metrics.singleshot_metrics(circle)
    assert found["circle_moderate_all_found"] == as_share({0: False})  # SynFlow has not
    assert found["circle_sparse_none_found"] is found["relu_moderate_all_found"] is None
    assert found["magnitude_minus_special"] == as_metric([-2.0 + 57.0 / 3])
    sparse = pruned(method=methods, label="0.01", density=0.01, weak_margin=-80.0)
    found = plant_metrics.singleshot_metrics(sparse)
    assert found["circle_sparse_none_found"] == as_share({0: True})
    one = sparse.assign(weak_margin=[-80.0, -80.0, -9.0, -80.0, -80.0])
    found = plant_metrics.singleshot_metrics(one)
    assert found["circle_sparse_none_found"] == as_share({0: False})  # SNIP has
    often = pruned(method=["synflow_rounds"], label="0.01", density=0.01, weak_margin=-4.0)
    found = plant_metrics.singleshot_metrics(pd.concat([sparse, often]))
    assert found["synflow_rounds_found_at_001"] == as_share({0: True})
    assert found["circle_sparse_none_found"] == as_share({0: True})  # is no method of the paper's
    helix = pruned(task="helix", method=methods, weak_margin=[-0.1, -3.0, -3.0, -3.0, -3.0])
    assert plant_metrics.singleshot_metrics(helix)["helix_none_found"] == as_share({0: False})
    dead = pruned(method=["random", "magnitude", "synflow", "snip"], label="gt",
                  alive=[False, False, False, True])  # fmt: skip
    assert plant_metrics.singleshot_metrics(dead)["circle_gt_dead"] == as_share({0: True})


def test_many_rounds_are_paired_with_one_shot_and_with_each_other() -> None:
    both = pruned(regime=["singleshot", "multishot"], label="0.01", density=0.01,
                  method="magnitude", weak_margin=[-60.0, -10.0])  # fmt: skip
    found = plant_metrics.multishot_metrics(both)
    assert found["circle_gain_at_001"] == as_metric([50.0])
    assert found["grasp_deficit"] is found["grasp_local_deficit"] is None
    local = pruned(regime="multishot", method=["snip", "grasp_local", "grasp"],
                   weak_margin=[-5.0, -30.0, -7.0])  # fmt: skip
    found = plant_metrics.multishot_metrics(local)
    assert found["grasp_local_deficit"] == as_metric([25.0])
    assert found["grasp_deficit"] == as_metric([2.0])
    gt = pruned(regime="multishot", label="gt", density=0.005, seed=[0, 0, 0, 1, 1, 1],
                method=["synflow", "snip", "magnitude"] * 2,
                weak_margin=[-3.0, -4.0, -40.0, -12.0, -11.0, -40.0])  # fmt: skip
    found = plant_metrics.multishot_metrics(gt)
    assert found["synflow_gt_found"] == found["synflow_best_at_gt"] == as_share({0: True, 1: False})


def test_wide_mothers_are_compared_where_both_widths_have_the_arm() -> None:
    wide = pruned(depth=6, width=[100, 100, 1000, 1000], label=["0.1", "0.5", "0.1", "0.9"],
                  per_output_margin=[-40.0, 0.0, -44.0, -44.0])  # fmt: skip
    assert plant_metrics.wide_gap(wide) == as_metric([4.0])
    assert plant_metrics.wide_gap(wide[:1]) is None


def test_edge_popup_is_judged_untrained_and_by_head() -> None:
    half = pruned(regime="popup_linear", method=["plain", "annealed"], label="0.5", density=0.5,
                  raw_margin=[-9.0, -1.0])  # fmt: skip
    tenth = half.assign(label="0.1", density=0.1, raw_margin=[-50.0, -35.0])
    found = plant_metrics.popup_metrics(pd.concat([half, tenth]))
    assert found["circle_margin_at_05"] == as_metric([-9.0])
    assert found["circle_shortfall_at_01"] == as_metric([50.0])
    assert found["annealing_gain_at_01"] == as_metric([15.0])
    assert found["relu_none_found"] is None
    relu = pruned(task="relu", regime=["popup_linear", "popup_softmax"], method="plain",
                  label="0.5", density=0.5, scalar_margin=[-0.2, -3.0])  # fmt: skip
    found = plant_metrics.popup_metrics(relu)
    assert found["relu_none_found"] == as_share({0: False})
    assert found["relu_released_none_found"] == as_share({0: True})
    helix = relu.assign(task="helix", per_output_margin=-2.5)
    assert plant_metrics.popup_metrics(helix)["helix_shortfall"] == as_metric([2.5])


def test_no_strong_ticket_means_of_no_method_at_no_density() -> None:
    rows = pruned(regime=["singleshot", "multishot"], method="snip", per_output_margin=-60.0)
    assert plant_metrics.strong_metrics(rows)["circle_none_found"] == as_share({0: True})
    lucky = rows.assign(per_output_margin=[-60.0, -3.0])
    assert plant_metrics.strong_metrics(lucky)["circle_none_found"] == as_share({0: False})
    random = lucky.assign(method=["snip", "random"])  # many rounds of it ran in some seeds only
    assert plant_metrics.strong_metrics(random)["circle_none_found"] == as_share({0: True})


def test_success_rates_are_exact_and_of_searches_in_planted_mothers() -> None:
    rows = pruned(seed=[*range(20), 0, 0], weak_margin=[-1.0] * 19 + [-40.0, 0.0, 0.0],
                  mother=["planted"] * 20 + ["unplanted", "planted"],
                  method=["snip"] * 21 + ["oracle"], width=24)  # fmt: skip
    every = success.success_shares(rows, tiny.plant_n_seek())
    shares = every[every.regime == "singleshot"].reset_index()
    assert len(shares) == 1 and (shares.k[0], shares.n[0]) == (19, 20)
    bounds = (shares.low[0], shares.high[0])
    assert bounds == pytest.approx((75.13, 99.87), abs=0.01)  # Clopper and Pearson's for 19 of 20
    table = success.success_table(shares)
    assert table.loc[("Circle", "one shot", "SNIP"), "density 0.1"] == "19 of 20 [75, 100] %"
    board = success.leaderboard(
        pd.concat([rows, rows.assign(label="gt", density=0.005)]), tiny.plant_n_seek()
    )
    assert board.density.tolist() == [0.005]
    few = rows.assign(weak_margin=[-1.0] * 10 + [-40.0] * 12)  # in half of the seeds is not in most
    assert success.leaderboard(few, tiny.plant_n_seek()).density.isna().all()


def test_untrained_masks_are_counted_by_the_fitted_score_of_their_task() -> None:
    """On Circle one scale per output is fitted, on ReLU one; no other scores count."""
    rows = pd.concat([
        pruned(seed=[0, 1], per_output_margin=[-9.0, -11.0], weak_margin=-50.0),
        pruned(task="relu", method="plain", regime="popup_linear", scalar_margin=[-0.5, -0.9],
               per_output_margin=-3.0, weak_margin=None, seed=[0, 1]),
        pruned(regime="popup_softmax", method="plain", weak_margin=[None]),
        pruned(regime="multishot", per_output_margin=[0.0]),
    ]).assign(width=24)  # fmt: skip
    shares = success.success_shares(rows, tiny.plant_n_seek())
    strong = shares[shares.regime == success.STRONG]
    assert list(zip(strong.task, strong.method, strong.k, strong.n, strict=True)) == [
        ("circle", "snip", 1, 2), ("relu", "plain", 2, 2)]  # fmt: skip


def searched(method: str, task: str, found: int, regime: str = "multishot") -> dict[str, object]:
    """A row of `success_shares`: the ticket's density, `found` of 20 seeds."""
    return {"task": task, "regime": regime, "method": method, "label": "gt", "density": 0.005,
            "k": found, "n": 20, "mean": 5.0 * found, "low": 2.0, "high": 98.0}  # fmt: skip


def test_the_message_names_what_finds_a_ticket_at_its_density() -> None:
    rows = [searched("synflow", "circle", 20), searched("snip", "circle", 5),
            searched("snip", "helix", 10), searched("snip", "relu", 0)]  # fmt: skip
    assert success.at_the_tickets_density(pd.DataFrame(rows)) == (
        "Of the searches for weak tickets at the density of the planted one, SynFlow (many rounds) "
        "finds Circle's in 20 of 20 seeds [2, 98] %; none that was run finds Helix's or ReLU's in "
        "most seeds."
    )
    none = success.at_the_tickets_density(pd.DataFrame(rows[1:2]))
    assert none.endswith("planted one, none that was run finds Circle's in most seeds.")
    strong = pd.DataFrame([searched("plain", "circle", 20, success.STRONG)])
    assert success.at_the_tickets_density(strong).endswith("nothing was searched.")


def test_empty_cells_of_the_success_figure_were_not_run() -> None:
    rows = pd.DataFrame([searched("snip", "circle", 5), searched("synflow", "relu", 20)])
    figure = draw.success(rows, tiny.plant_n_seek())
    shown = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert shown == [["5/20", "[2, 98]"], ["20/20", "[2, 98]"]]
    cells = [np.ma.count(ax.collections[0].get_array()) for ax in figure.axes]
    assert cells == [1, 1]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["SNIP", "SynFlow"]
    draw.plt.close(figure)


# ---------------------------------------------------------------- positive controls


def good_bed(seeds: int = 20) -> pd.DataFrame:
    """Rows of Circle on which every control passes."""
    parts = [
        pruned(seed=seed, method=["dense", "oracle", "oracle_unit", "magnitude", "snip", "random"],
               label=["1", "gt", "gt", "0.5", "0.5", "gt"], weak=95.0,
               density=[1.0, 0.005, 0.005, 0.5, 0.5, 0.005],
               weak_margin=[-3.0, -8.0, -8.0, -4.0, -5.0, -83.0],
               per_output_margin=[-60.0, -2.0, -2.0, -60.0, -60.0, -80.0])
        for seed in range(seeds)
    ]  # fmt: skip
    many = [
        pruned(seed=seed, regime="multishot", method="synflow", label=["gt", "0.01"],
               density=[0.005, 0.01], weak_margin=[-6.0, -3.0])
        for seed in range(seeds)
    ]  # fmt: skip
    return pd.concat([*parts, *many], ignore_index=True)


def passed(rows: pd.DataFrame) -> set[str]:
    entries = plant_controls.bed_controls(rows, "circle", tiny.plant_n_seek())
    return {one.name for one in all_of({"controls": {"circle": entries}}) if one.passed}


ALL_CONTROLS = {
    "trained", "ample_density", "random_fails", "ticket_is_strong", "ticket_trains",
    "ticket_trains_at_its_scale", "sparse_net_trains",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "where", "column", "value"),
    [
        ("trained", "dense", "weak", 46.0),
        ("ample_density", "snip", "weak_margin", -50.0),
        ("random_fails", "random", "weak_margin", -2.0),
        ("ticket_is_strong", "oracle", "per_output_margin", -30.0),
        ("ticket_trains", "oracle", "weak_margin", -17.0),
        ("ticket_trains_at_its_scale", "oracle_unit", "weak_margin", -17.0),
        ("sparse_net_trains", "synflow", "weak_margin", -40.0),
    ],
)
def test_each_control_sees_its_fault(name: str, where: str, column: str, value: float) -> None:
    rows = good_bed()
    assert passed(rows) == ALL_CONTROLS
    half = (rows.method == where) & (rows.seed < 10)
    rows.loc[half, column] = value  # in half of the seeds is not in most
    assert passed(rows) == ALL_CONTROLS - {name}


def test_controls_that_did_not_run_are_none_and_their_claims_not_testable(
    results: dict[str, Result],
) -> None:
    nothing = plant_controls.bed_controls(good_bed()[:0], "relu", tiny.plant_n_seek())
    assert nothing == dict.fromkeys(ALL_CONTROLS)
    numbers = metrics(results, tiny.plant_n_seek())
    every = {need for claim in load_claims("plant_n_seek") for need in claim.needs}
    known = {f"{bed}.{name}" for bed, found in numbers["controls"].items() for name in found}
    assert every <= known
    assert set(numbers["controls"]["conv"].values()) == {None}
    bed = numbers["controls"]["relu"]
    assert bed["trained"]["number"]["n"] == 2 and bed["ticket_is_strong"]["number"]["share"] == 100
    assert bed["sparse_net_trains"] is None


def test_a_margin_is_zero_at_the_ticket_and_negative_below() -> None:
    assert report.margin(0.9, 0.98, "circle") == pytest.approx(-8)
    assert report.margin(1e-3, 1e-4, "relu") == pytest.approx(-1)
    assert report.margin(1e-4, 1e-4, "helix") == 0


RAW = {"circle", "relu", "helix", "singleshot", "multishot", "snip", "grasp", "synflow", "gt"}
"""Names of the code, which figures show as labels."""


def test_tables_and_figures_can_be_made(results: dict[str, Result]) -> None:
    use_style()
    p = tiny.plant_n_seek()
    scores, learning = report.scores_table(results), report.curves_table(results)
    layers = report.layers_table(results, p)
    figures = [
        draw.found(scores, p),
        inside.collapse(layers, scores, p),
        draw.overlap(scores, p),
        of_popup.popup(learning, p),
        draw.cost(success.leaderboard(scores, p)),
        draw.success(success.success_shares(scores, p), p),
    ]
    one = bench()
    figures += [by_hand.ticket(one.planted), by_hand.hidden({"paper": one.planted})]
    figures += [inside.visible(report.audit_table(results))]
    for figure in figures:
        figure.canvas.draw()
        assert 0 < len(figure.get_label()) <= ALT and "_" not in figure.get_label()
        named = [text.get_text() for text in figure.findobj(Text)]
        assert [name for name in named if "_" in name or name in RAW] == []
        draw.plt.close(figure)
    assert set(report.controls_table(scores, p).columns) == {"Circle", "ReLU"}
    assert report.overlap_table(scores, p).unplanted.notna().any()
    audits = report.audit_table(results)
    assert set(audits["mode"]) == {"authors", "norm", "paper"}
    assert report.visibility_table(audits).shape[0] == 6
    assert report.rank_table(report.audit_table(results, "ranks")).notna().any().any()
    board = success.leaderboard(scores, p)
    assert set(board.steps) == {4, 12}
    assert set(learning.epoch) == {1, 2}
    table = report.targets_table((3, 5), 100, 2000)
    assert table.loc[("ReLU", 3), "density"] == pytest.approx(report.PRINTED["relu"])


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
