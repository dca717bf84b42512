"""No draw depends on what else is run: an arm is the same alone, in company, and in any order.

Each maker below makes things of one grid by the project's own units; whatever else of the grid it
is asked for, and in whatever order, a thing must come out the same, to the last bit.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
from conftest import small_net

from ticketlab.data.sets import DataSet
from ticketlab.many.lanes import Feeds, Job
from ticketlab.papers.colt import units as colt_units
from ticketlab.papers.colt.params import Control
from ticketlab.papers.colt.study import transfer_units
from ticketlab.papers.compare import units as compare_units
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.dlth import units as dlth_units
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek import units as plant_units
from ticketlab.papers.plant_n_seek.conv import units as conv_units
from ticketlab.papers.plant_n_seek.params import Case
from ticketlab.papers.prac import retraining as prac_retraining
from ticketlab.papers.prac import units as prac_units
from ticketlab.papers.seekers import units as seekers_units
from ticketlab.papers.seekers.algorithm.gates import GateFit
from ticketlab.pruning.criteria import uniform
from ticketlab.pruning.masks import Mask, ones, prune, shuffle_each
from ticketlab.spec import ROOT
from ticketlab.study.bench import Bench
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import make_ticket
from ticketlab.training.recipe import Recipe, Step

Made = Mapping[Any, object]
Maker = Callable[[Sequence[Any]], Made]
"""Makes the items that it is given, in their order: what each of them has become."""

CIRCLE = Case(task="circle", depth=5, width=24, noise=0.01)
DENSITIES: tuple[Any, ...] = ("gt", 0.01, 0.1, 0.5)
CHOSEN = ("random", "magnitude", "snip", "synflow_rounds")


def rows_by(result: Result, *columns: str) -> Made:
    """A unit's rows by what tells them apart, with the digests of its masks."""
    record = result.record
    found = next(record[key] for key in ("rows", "scores", "rounds") if key in record)
    rows = {tuple(row[column] for column in columns): row for row in found}
    tickets = {name: ticket.mask.digest() for name, ticket in result.tickets.items()}
    return rows | tickets


def dense_mask() -> Mask:
    """Two layers of the tiny convnet."""
    return ones(small_net().model, ["body.conv1.weight", "body.conv2.weight"])


def masks_of(count: int) -> dict[str, Mask]:
    """Random masks of the tiny convnet, by round."""
    dense, random = dense_mask(), torch.Generator().manual_seed(0)
    shares = [0.3 + 0.1 * turn for turn in range(count)]
    return {
        f"round-{turn:02d}": prune(uniform(dense, random), dense, share)
        for turn, share in enumerate(shares, start=1)
    }


# ---------------------------------------------------------------- Plant 'n' Seek


def by_density(regime: str) -> Maker:
    """Every method at the densities, and the controls."""

    def make(items: Sequence[Any]) -> Made:
        found = plant_units.prune_and_train(
            tiny.plant_n_seek(), CIRCLE, 0, "planted", regime, CHOSEN, items, True
        )
        return rows_by(found, "method", "label")

    return make


def by_method(regime: str) -> Maker:
    """The methods, at all densities."""

    def make(items: Sequence[Any]) -> Made:
        found = plant_units.prune_and_train(
            tiny.plant_n_seek(), CIRCLE, 0, "planted", regime, items, DENSITIES
        )
        return rows_by(found, "method", "label")

    return make


def popped(items: Sequence[Any]) -> Made:
    """Edge-popup at the densities, which learn as one stack."""
    found = plant_units.pop(tiny.plant_n_seek(), CIRCLE, 0, "planted", "linear", "annealed", items)
    return rows_by(found, "label")


GATES = GateFit(lr=0.2, batch=20, epochs=3)


def gated(items: Sequence[Any]) -> Made:
    """Bernoulli gates at the densities."""
    found = seekers_units.gate(tiny.plant_n_seek(), GATES, CIRCLE, 0, "planted", items)
    return rows_by(found, "label")


def gated_crowd(items: Sequence[Any]) -> Made:
    """Edge-popup and gates in a crowd's mother, to the densities of one ticket and more."""
    found = seekers_units.seek_strong(tiny.plant_n_seek(), GATES, CIRCLE, 0, 1, items)
    return rows_by(found, "method", "label")


def crowd_pruned(regime: Any) -> Maker:
    """The methods in a crowd's mother, to the densities of one ticket and of two."""

    def make(items: Sequence[Any]) -> Made:
        found = seekers_units.seek_weak(tiny.plant_n_seek(), CIRCLE, 0, 1, regime, items, (1, 2))
        return rows_by(found, "method", "label")

    return make


@cache
def conv_known() -> tuple[Any, Any]:
    """What the units of the convolutional part start from, trained once for this file."""
    setting = plant_study.conv_setting(tiny.conv())
    ticket = conv_units.train_ticket(setting, 0).tickets["ticket"]
    return setting, conv_units.known(ticket)


def conv_by_density(regime: Any) -> Maker:
    """Random pruning of the convolutional mother at the densities, on one net."""

    def make(items: Sequence[Any]) -> Made:
        setting, found = conv_known()
        return rows_by(
            conv_units.seek(setting, 0, found, "planted", regime, "random", items), "label"
        )

    return make


def conv_popped(items: Sequence[Any]) -> Made:
    """Edge-popup on the convolutional mother."""
    setting, found = conv_known()
    done = conv_units.pop_all(setting, 0, found, "planted", "annealed", "none", items)
    return rows_by(done, "label")


# ---------------------------------------------------------------- COLT, PrAC


def colt_scored(control: Control) -> Maker:
    """A control of COLT's tickets, retrained one after another on one net."""

    def make(items: Sequence[Any]) -> Made:
        chosen = {name: masks_of(3)[name] for name in items}
        return rows_by(colt_units.score_tickets(tiny.colt(), 0, "colt", chosen, control), "round")

    return make


def colt_carried(items: Sequence[Any]) -> Made:
    """The masks that COLT's transfer trains, by arm and round, for the levels."""
    params = tiny.colt()
    transfer = params.transfer.model_copy(update={"levels": tuple(items), "seeds": 1})
    masks = masks_of(3)
    record = {"rounds": [{"round": int(n[-2:]), "sparsity": m.sparsity} for n, m in masks.items()]}
    tickets = {
        name: make_ticket(mask) for name, mask in ({"round-00": dense_mask()} | masks).items()
    }
    searches = {
        f"search/{arm}/seed-0": Result({"arm": arm, "seed": 0} | record, tickets)
        for arm in ("imp", params.main[0].name)
    }
    units = transfer_units(params, transfer, "transfer", searches)
    return {
        (unit.name, name): mask.digest()
        for unit in units
        for name, mask in unit.arguments["chosen"].items()
    }


def prac_scored(items: Sequence[Any]) -> Made:
    """PrAC's tickets retrained one after another on one net."""
    net = {"name": "conv3", "width": 4, "conv_bias": False}
    setting = tiny.prac(model=net, prunable="conv").setting()
    chosen = {name: masks_of(3)[name] for name in items}
    return rows_by(prac_retraining.score_tickets(setting, 0, "prac", chosen), "round")


# ---------------------------------------------------------------- DLTH


def rst_masks(items: Sequence[Any]) -> Made:
    """Masks by arm and level."""
    bench = Bench(tiny.dlth_cell(), 0)
    net = bench.net()
    return {
        (arm, level): dlth_units.draw_mask(bench, net, level, arm).digest() for arm, level in items
    }


def rst_pretrained(items: Sequence[Any]) -> Made:
    """What starts from training the dense net, by arm and level, all on one net."""
    arms = [(level, list(items)) for level in tiny.dlth().levels]
    return rows_by(dlth_units.train_pretrained(tiny.dlth_cell(), 0, arms), "arm", "level")


def rst_abrupt(items: Sequence[Any]) -> Made:
    """Transformation without a penalty, by level."""
    return rows_by(dlth_units.train_abruptly(tiny.dlth_cell(), 0, list(items)), "arm", "level")


def rst_damaged(items: Sequence[Any]) -> Made:
    """RST's ticket and its damaged forms, trained one after another on one net."""
    cell = tiny.dlth_cell()
    done = dlth_units.train_pressed(cell, 0, "rst", 0.8, 0, damaged=list(items))
    return rows_by(done, "arm", "level")


def rst_further(items: Sequence[Any]) -> Made:
    """The further draws of a mask and of an initialisation (C11), in a study of these seeds."""
    units = dlth_study.first_units(tiny.dlth(seeds=[0, *items]))
    return {
        unit.name: (unit.arguments["seed"], unit.arguments["mask_seed"])
        for unit in units
        if "draw-" in unit.name
    } | dict.fromkeys(items)


# ---------------------------------------------------------------- the comparison


def compare_by_level(method: str) -> Maker:
    """A method's tickets at the levels, with what they cost, and trained together."""

    def make(items: Sequence[Any]) -> Made:
        setting = tiny.compare_setting(levels=sorted(items))
        return rows_by(compare_units.train_method(setting, 0, method), "level")

    return make


def compare_by_net(items: Sequence[Any]) -> Made:
    """Random tickets of the nets, wherever a net stands among them."""
    bed = tiny.COMPARE["beds"][0]
    beds = [
        bed | {"name": f"width-{width}", "model": bed["model"] | {"width": width}}
        for width in items
    ]
    params = tiny.compare(beds=beds)
    return {
        width: rows_by(compare_units.train_method(params.setting(bed), 0, "random"), "level")
        for width, bed in zip(items, params.beds, strict=True)
    }


MAKERS: dict[str, tuple[Maker, tuple[Any, ...]]] = {
    "planting singleshot, densities": (by_density("singleshot"), DENSITIES),
    "planting multishot, densities": (by_density("multishot"), DENSITIES),
    "planting singleshot, methods": (by_method("singleshot"), CHOSEN),
    "planting multishot, methods": (by_method("multishot"), CHOSEN),
    "planting edge-popup": (popped, ("gt", 0.1, 0.5)),
    "gates": (gated, ("gt", 0.1, 0.5)),
    "gates, crowds": (gated_crowd, (1, 2, 3)),
    "crowds singleshot": (crowd_pruned("singleshot"), CHOSEN),
    "crowds multishot": (crowd_pruned("multishot"), CHOSEN),
    "conv singleshot": (conv_by_density("singleshot"), ("gt", 0.1, 0.5)),
    "conv multishot": (conv_by_density("multishot"), ("gt", 0.1, 0.5)),
    "conv edge-popup": (conv_popped, ("gt", 0.1, 0.5)),
    "colt shuffled": (colt_scored("shuffled"), tuple(masks_of(3))),
    "colt reinit": (colt_scored("reinit"), tuple(masks_of(3))),
    "colt magnitude": (colt_scored("magnitude"), tuple(masks_of(3))),
    "colt random": (colt_scored("random"), tuple(masks_of(3))),
    "colt transfer": (colt_carried, (0.4, 0.5, 0.6)),
    "prac tickets": (prac_scored, tuple(masks_of(3))),
    "rst masks": (
        rst_masks,
        tuple(product(("rst", "rst-erk", "scratch-erk", "warm-up"), (0.5, 0.8))),
    ),
    "rst pretrained": (rst_pretrained, ("lth", "l1", "lth-iter", "early-bird")),
    "rst abrupt": (rst_abrupt, (0.5, 0.8, 0.9)),
    "rst damaged": (rst_damaged, ("shuffled", "reinit", "signs")),
    "rst further draws": (rst_further, (1, 2, 7)),
    "compare random": (compare_by_level("random"), (0.5, 0.7, 0.85)),
    "compare grasp": (compare_by_level("grasp"), (0.5, 0.7, 0.85)),
    "compare imp": (compare_by_level("imp"), (0.5, 0.7, 0.85)),
    "compare nets": (compare_by_net, (2, 3, 4)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_is_the_same_alone_in_company_and_in_any_order(
    name: str, tiny_root: Path
) -> None:
    make, items = MAKERS[name]
    together = make(items)
    assert len(together) >= len(items)
    for company in (items[::-1], *((item,) for item in items)):
        found = make(company)
        assert len(found) >= len(company)
        different = [key for key in found if found[key] != together[key]]
        assert not different, (company, different)


# ---------------------------------------------------------------- what is drawn round by round


def test_pracs_sets_and_random_masks_of_a_round_do_not_depend_on_how_many_rounds_follow() -> None:
    """Random masks nest, so that a round's depends on those before it, and on no other."""
    dense = dense_mask()
    long, short = (prac_retraining.random_ladder(dense, 0.5, rounds, 0) for rounds in (5, 2))
    assert {name: long[name] for name in short} == short
    assert all(not bool((long[b].flat() & ~long[a].flat()).any()) for a, b in pairwise(long))
    mixed = shuffle_each(long, 0, "shuffle", "prac")
    assert shuffle_each(short, 0, "shuffle", "prac") == {name: mixed[name] for name in short}
    assert all(mask.densities() == long[name].densities() for name, mask in mixed.items())
    assert mixed != shuffle_each(long, 0, "shuffle", "imp") and mixed != long
    random, setting = torch.Generator().manual_seed(0), tiny.prac().setting()
    scores = {name: torch.rand(200, generator=random) for name in ("el2n", "aum", "dual")}
    rounds = [{"set_samples": count} for count in (90, 60, 70)]
    whole, part = (prac_units.selections(scores, rows, setting, 0) for rows in (rounds, rounds[:1]))
    assert {name: sets[:2] for name, sets in whole.items()} == part
    assert len(set(whole["random"])) == 4


def test_an_audit_of_more_mothers_changes_only_what_the_classifier_has_seen() -> None:
    """The AUROC of a seed is by a classifier that knows the *other* seeds: it may change."""
    params, seeds = tiny.plant_n_seek(), (0, 1, 2)
    three, two = (
        plant_units.audit_planting(params, CIRCLE, few).record for few in (seeds, seeds[:2])
    )

    def without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "auroc"} for row in rows if row["seed"] < 2]

    assert without(three["rows"]) == without(two["rows"])
    assert [row for row in three["ranks"] if row["seed"] < 2] == two["ranks"]


# ---------------------------------------------------------------- what is drawn must differ


def inside(few: Mask, many: Mask) -> float:
    """The share of `few` that `many` keeps too."""
    return int((few.flat() & many.flat()).sum()) / few.alive


def test_random_masks_of_two_densities_and_rounds_are_independent_draws(tiny_root: Path) -> None:
    """At 0.1 and 0.5 they share half; were the scores the same, all. Rounds draw anew."""
    bench = plant_units.PlantBench(tiny.plant_n_seek(), CIRCLE, 0)
    arms = plant_units.arms_of(bench, ["random"], [0.1, 0.5])
    start = bench.start("planted")
    once = [arm.mask for arm in plant_units.singleshot_masks(bench, arms, start)]
    again = [arm.mask for arm in plant_units.multishot_masks(bench, arms, start)]
    conv = conv_units.ConvBench(conv_known()[0], 0, conv_known()[1])
    net, mother = conv.net(conv.conv.model, conv.mother), conv.mother
    found, more = (
        [conv_units.seek_mask(conv, net, mother, "random", d, regime)[0] for d in (0.1, 0.5)]
        for regime in get_args(conv_units.Regime)
    )
    for single, multi in ((once, again), (found, more)):
        assert 0.35 < inside(*single) < 0.65 and 0.35 < inside(*multi) < 0.65
        assert inside(single[0], multi[0]) < 0.6  # they share the first of two rounds only


# ---------------------------------------------------------------- batches


def batches_of(jobs: Sequence[Job]) -> list[list[torch.Tensor]]:
    """For each job the images and labels of two batches in each of two epochs."""
    feeds = Feeds(jobs)
    seen: list[list[torch.Tensor]] = [[] for _ in jobs]
    for place in (0, 1, 0, 1):
        for part, axes in zip(feeds(place), (2, 1), strict=True):
            lanes = part.expand(len(jobs), *part.shape[-axes:])
            for lane, values in zip(seen, lanes, strict=True):
                lane.append(values.clone())
    return seen


@pytest.mark.parametrize("turned", [False, True])
def test_a_lane_sees_the_same_batches_alone_and_beside_others(
    turned: bool, digits: DataSet
) -> None:
    data = replace(digits, augment=digits.augment.model_copy(update={"flip": turned, "crop": 2}))
    model, recipe = small_net("lenet_300_100").model, Recipe(batch=40, length=Step(1, "ep"))
    jobs = [Job(model, data.train, data, recipe, seed) for seed in ((0,), (1,), (0, 1))]
    alone = [batches_of([job])[0] for job in jobs]
    assert not torch.equal(alone[0][0], alone[1][0])
    for order in ((0, 1, 2), (2, 0, 1), (1, 0), (0, 0)):
        for place, seen in zip(order, batches_of([jobs[n] for n in order]), strict=True):
            assert all(map(torch.equal, seen, alone[place]))


# ---------------------------------------------------------------- where draws come from

DRAWING = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like",
           "normal", "bernoulli", "multinomial"}  # fmt: skip
IN_PLACE = {"uniform_", "normal_", "bernoulli_", "exponential_", "random_", "kaiming_normal_",
            "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "manual_seed"}  # fmt: skip
SEEDED_INSIDE = {"models/inits.py", "gpu.py", "papers/plant_n_seek/report.py"}
"""`draw` seeds torch's own generator for each part of a net; `gpu.generator` is what makes all
others; the report's is of the points of one figure."""


def draws_without_a_generator(tree: ast.Module, inside: bool) -> list[int]:
    """Lines that draw from a generator that nobody passed."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, given = node.func.attr, {keyword.arg for keyword in node.keywords}
        of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
        if of_torch and name in DRAWING and "generator" not in given:
            found.append(node.lineno)
        if name in IN_PLACE and "generator" not in given and not inside:
            found.append(node.lineno)
    return found


def test_every_draw_is_from_a_generator_that_was_made_for_it() -> None:
    package = ROOT / "ticketlab"
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert draws_without_a_generator(tree, name in SEEDED_INSIDE) == [], name
    for line in ("torch.rand(3)", "torch.randperm(len(x))", "x.uniform_()", "torch.manual_seed(0)"):
        assert draws_without_a_generator(ast.parse(line), inside=False) == [1]
    line = "x.uniform_(generator=random)"
    assert draws_without_a_generator(ast.parse(line), inside=False) == []
