"""The geometry study: rounds that end at exact levels, lines, transplants, a tiny study."""

from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data

from ticketlab.files import write_json
from ticketlab.papers.compare.algorithm import BedBench
from ticketlab.papers.compare.params import name_of
from ticketlab.papers.compare.units import train_method
from ticketlab.papers.geometry import figures, metrics, report, study, units
from ticketlab.papers.geometry.algorithm.rewinding import finetuning
from ticketlab.papers.geometry.algorithm.transplants import with_signs
from ticketlab.papers.geometry.forecast import planned
from ticketlab.papers.geometry.params import (
    ARM,
    ARMS,
    LADDERS,
    OWN,
    TWICE,
    GeometryParams,
    check,
)
from ticketlab.pruning.masks import Mask
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result
from ticketlab.study.retrain import Start, retrain_many
from ticketlab.study.runner import run_study
from ticketlab.training.recipe import Recipe, Step

pytestmark = pytest.mark.usefixtures("tiny_root")

BEDS = tiny.geometry_values()["beds"]
Study = tuple[GeometryParams, dict[str, Result], Path]


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study, run once for all tests of this file."""
    params = tiny.geometry()
    with (
        pytest.MonkeyPatch.context() as patch,
        shared_folder(tmp_path_factory, "geometry") as folder,
    ):
        use_data(patch, tiny_folder)
        return params, run_study(study.phases(params), folder), folder


# --- rewinding


def test_rewound_weights_are_imp(tiny_root: Path) -> None:
    """The common loop of the three rewindings finds IMP's tickets, masks and scores alike."""
    setting = tiny.geometry_setting()
    own = units.search_rewound(setting, 0, "weights")
    imp = train_method(setting, 0, "imp")
    assert {n: t.mask.digest() for n, t in own.tickets.items()} == {
        n: t.mask.digest() for n, t in imp.tickets.items()
    }
    columns = ["level", "alive", "rounds", "last_accuracy", "search_images", "images"]
    rows = [[{c: row[c] for c in columns} for row in found] for found in
            (own.record["rewound"], imp.record["rows"])]  # fmt: skip
    assert rows[0] == rows[1]


def test_other_rewindings_cost_the_same_and_go_on_from_trained_weights(done: Study) -> None:
    params, results, _ = done
    bed, seed = params.beds[0], params.seeds[0]
    imp = results[name_of(bed, "imp", seed)]
    for kind in ("rates", "finetune"):
        own = results[name_of(bed, f"rewound-{kind}", seed)]
        for mine, theirs in zip(own.record["rewound"], imp.record["rows"], strict=True):
            assert mine["images"] == theirs["images"] and mine["alive"] == theirs["alive"]
        top = f"level-{100 * bed.levels[-1]:g}"
        assert own.tickets[top].mask.digest() != imp.tickets[top].mask.digest()
        weights, start = own.tickets[top].weights, BedBench(params.setting(bed), seed).net().state()
        assert weights is not None
        assert any(
            not torch.equal(weights[n], start[n] * keep)
            for n, keep in own.tickets[top].mask.items()
        )


def test_finetuning_keeps_the_length_and_the_last_rate() -> None:
    recipe = Recipe.model_validate(
        {"lr": 0.1, "batch": 50, "length": "4ep", "milestones": ["50%", "75%"], "warmup": "1ep"}
    )
    own = finetuning(recipe, 200)
    assert own.iterations(200) == recipe.iterations(200)
    assert own.lr == pytest.approx(0.001) and own.schedule == "constant"


def test_papers_own_beds_have_their_own_data_and_rate(done: Study, one_line: Message) -> None:
    """Units of a paper's own bed do not depend on the study's data, rate or rewinding point."""
    params, results, _ = done
    own = params.own_beds[0]
    for kind in ARM:
        unit = results[f"{OWN}{own.name}/rewound-{kind}/seed-0"]
        assert [row["level"] for row in unit.record["rewound"]] == list(own.levels)
        assert [row["rounds"] for row in unit.record["rewound"]] == [2, 3]  # half left per round
    elsewhere = params.model_copy(update={
        "rate": 0.3, "rewind": Step(1, "ep"), "data": params.data.model_copy(update={"train": 150}),
    })  # fmt: skip
    keys = [[unit.key for unit in study.rewindings(one, own, 0)] for one in (params, elsewhere)]
    assert keys[0] == keys[1] and len(set(keys[0])) == 5
    twice = params.model_copy(update={"own_beds": (own, own)})
    assert "'colt' is there twice" in one_line(lambda: check(twice))
    flat = own.model_copy(update={"levels": (0.8, 0.6)})
    assert "own_beds.colt.levels" in one_line(
        lambda: check(params.model_copy(update={"own_beds": (flat,)}))
    )


def test_rewinding_on_own_beds_is_paired_by_seed_and_bed(done: Study) -> None:
    params, results, _ = done
    tickets = report.tables(results)["own"]
    assert [bed.title for bed in params.own_beds] == ["COLT's bed", "PrAC's bed", "DLTH's bed"]
    numbers = report.rewinding(tickets, params.own_beds[:1])["rates_minus_weights"]
    at = tickets[tickets.net == "colt"].set_index(["arm", "level", "seed"]).last_accuracy
    by_hand = [
        sum(at[ARM["rates"], level, seed] - at["imp", level, seed] for level in (0.6, 0.8)) / 2
        for seed in params.seeds
    ]
    assert numbers["mean"]["mean"] == pytest.approx(sum(by_hand) / len(by_hand))


def test_too_few_rounds_are_named(tiny_root: Path, one_line: Message) -> None:
    setting = tiny.geometry_setting(max_rounds=1)
    assert "max_rounds: 1" in one_line(lambda: units.search_rewound(setting, 0, "rates"))
    assert "max_rounds" in one_line(lambda: units.climb(setting, 0, "imp"))


# --- ladders and lines


def test_a_ladder_has_the_rounds_of_its_search(tiny_root: Path) -> None:
    """Each mask lies within the one before; the last has exactly the highest level."""
    bench = BedBench(tiny.geometry_setting(), 0)
    for arm in LADDERS:
        masks = units.round_masks(bench, arm)
        assert masks[0] == bench.dense and masks[-1].alive == bench.kept(0.85)
        for before, after in pairwise(masks):
            assert after.alive < before.alive
            assert all(not bool((after[name] & ~before[name]).any()) for name in after)


def test_a_ladder_reports_the_line_to_the_round_before(done: Study) -> None:
    params, results, _ = done
    bed = params.beds[0]
    rows = results[name_of(bed, "ladder-imp", 0)].record["rounds"]
    assert rows[0]["barrier"] is None and all(row["barrier"] >= 0 for row in rows[1:])
    assert [row["round"] for row in rows] == list(range(len(rows)))
    top = results[name_of(bed, "imp", 0)].record["rows"][-1]
    assert rows[-1]["alive"] == top["alive"]
    assert rows[-1]["last_accuracy"] == top["last_accuracy"]  # the same ticket, the same training


def test_lines_end_at_the_stored_outcomes(done: Study) -> None:
    """The error at both ends of a line is that of the nets it names."""
    params, results, _ = done
    bed = params.beds[0]
    bench = BedBench(params.setting(bed), 0)
    setting = params.setting(bed, "lines")
    examiner = units.Examiner(bench, setting)
    rows = results[name_of(bed, "lines", 0)].record["lines"]
    colt = next(r for r in rows if r["arm"] == "colt" and r["other"] == "imp" and r["level"] == 0.7)
    own, imp = (
        results[name_of(bed, arm, 0)].tickets["level-70"].outcome for arm in ("colt", "imp")
    )
    assert own is not None and imp is not None
    assert colt["errors"] == list(examiner.line(own.state, imp.state).errors)
    others = {(r["arm"], r["other"]) for r in rows}
    assert others == {
        *((arm, "dense") for arm in ARMS),
        *((arm, "imp") for arm in ARMS if arm != "imp"),
        *((arm, TWICE) for arm in ("dense", *ARMS)),
    }


def test_an_outcome_that_is_not_the_unit_s_own_is_refused(done: Study, one_line: Message) -> None:
    """A ticket's own hash in a unit's key leaves out its outcome, so the unit checks it."""
    params, results, _ = done
    bed = params.beds[0]
    unit = next(u for u in study.examinations(params, bed, 0, results) if "lines" in u.name)
    changed = dict(unit.arguments)
    changed["trained"] = dict(changed["trained"], dense="0" * 64)
    assert "'dense'" in one_line(lambda: unit.work(**changed))
    other = study.examinations(params, bed, 0, results | {
        name_of(bed, "dense", 0): results[name_of(bed, "dense", 1)]})  # fmt: skip
    assert next(u for u in other if u.name == unit.name).key != unit.key


# --- transplants


def test_signs_move_without_magnitudes() -> None:
    fresh = {"a": torch.tensor([[0.5, -2.0], [3.0, -4.0]]), "bias": torch.tensor([-1.0])}
    trained = {"a": torch.tensor([[-1.0, 1.0], [0.0, -0.1]]), "bias": torch.tensor([7.0])}
    mask = Mask({"a": torch.tensor([[True, True], [True, False]])})
    moved = with_signs(fresh, trained, mask)
    assert moved["a"].tolist() == [[-0.5, 2.0], [3.0, -4.0]] and moved["bias"].tolist() == [-1.0]


def test_parts_of_a_ticket_keep_its_weights_per_layer(done: Study) -> None:
    params, results, _ = done
    bed = params.beds[0]
    for arm in ARMS:
        ticket = results[name_of(bed, arm, 0)].tickets["level-70"]
        rows = results[name_of(bed, f"transplant-{arm}", 0)].record["transplanted"]
        assert {row["weights"] for row in rows} == set(report.MOVED)
        assert all(row["layers"] == ticket.mask.densities() for row in rows)


def test_matched_nets_of_one_initialisation_need_no_permutation(done: Study) -> None:
    params, results, _ = done
    bed = params.beds[0]
    bench = BedBench(params.setting(bed, "matching", "lines"), 0)
    dense = results[name_of(bed, "dense", 0)].tickets["dense"].outcome
    assert dense is not None
    moved = units.matched(bench, dense.state, dense.state)
    mask = results[name_of(bed, "imp", 0)].tickets["level-70"].mask
    assert units.matching.permuted_mask(mask, moved, bench.net().model) == mask


# --- the study


def test_the_tiny_study_has_every_number(done: Study, tmp_path: Path) -> None:
    params, results, _ = done
    numbers = metrics.metrics(results, params)
    write_json(tmp_path / "metrics.json", numbers)
    for claim in load_claims("geometry"):
        verdict = judge(claim, numbers)
        assert verdict.word != "not run", claim.id


def test_agreement_counts_rounds_where_both_hold_or_neither() -> None:
    params = tiny.geometry()
    rounds = pd.DataFrame(
        [
            ("convnet", "imp", 0, 0, 0.0, 90.0, None),
            ("convnet", "imp", 0, 1, 0.5, 89.5, 1.0),  # matches, connected
            ("convnet", "imp", 0, 2, 0.7, 80.0, 9.0),  # neither
            ("convnet", "imp", 0, 3, 0.8, 89.0, 9.0),  # matches only
            ("convnet", "imp", 0, 4, 0.85, 88.9, 2.0),  # connected only
        ],
        columns=["net", "arm", "seed", "round", "level", "last_accuracy", "barrier"],
    )
    judged = report.judged_rounds(rounds, params)
    assert judged.matches.tolist() == [True, False, True, False]
    assert judged.connected.tolist() == [True, False, False, True]
    found = report.agreement(judged, params, ["imp"])["mean"]
    assert found is not None and found["mean"] == 50.0
    spare = report.round_metrics(judged.assign(arm="colt"), params)["colt"]["spare"]["mean"]
    assert spare["mean"] == pytest.approx(2.0 - 9.0)  # up to the second compared level


def test_figures_draw_the_tiny_study(done: Study) -> None:
    params, results, _ = done
    every, numbers = report.tables(results), metrics.metrics(results, params)
    drawn = [
        figures.rounds(every["rounds"], params, numbers),
        figures.lines(every["lines"], params, numbers),
        figures.barriers(every["lines"], params, numbers),
        figures.rewinding(every["tickets"], params.beds, numbers["rewinding"]),
        figures.rewinding(every["own"], params.own_beds, numbers["own"]["rewinding"]),
        figures.extreme(every["tickets"], params, numbers),
        figures.transplants(every, params, numbers),
        figures.reliability(numbers),
    ]
    for figure in drawn:
        assert figure.get_label() and figure.axes
        plt.close(figure)


def test_the_plan_is_what_runs(done: Study) -> None:
    params, results, _ = done
    assert {unit.name for units in planned(params) for unit in units} == set(results)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"compared": 4}, "compared: 4"),
        ({"lines": {"images": 101}}, "lines.images: 101"),
        ({"lines": {"images": 9, "statistics": 201}}, "lines.statistics: 201"),
        ({"partitions": 3}, "partitions"),
        ({"beds": BEDS * 2}, "'convnet' is there twice"),
        ({"beds": [BEDS[0] | {"prunable": "conv_linear"}]}, "prunable"),
        ({"beds": [BEDS[0] | {"levels": [0.7, 0.5, 0.8]}]}, "levels"),
        ({"data": tiny.DIGITS.model_dump() | {"validation": 0}}, "data.validation"),
    ],
)
def test_bad_parameters_are_named(
    changes: dict[str, object], key: str, tiny_root: Path, one_line: Message
) -> None:
    assert key in one_line(lambda: check(tiny.geometry(**changes)))


def test_a_ticket_without_an_outcome_is_named(tiny_root: Path, one_line: Message) -> None:
    bench = BedBench(tiny.geometry_setting(), 0)
    (done,) = retrain_many(bench, [Start(bench.net().state(), bench.dense)])
    ticket = bench.ticket(bench.dense, done.last)
    assert "no trained outcome" in one_line(lambda: units.digests({"x": ticket}))
