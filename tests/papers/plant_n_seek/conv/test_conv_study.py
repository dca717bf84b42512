"""The convolutional part of Plant 'n' Seek end to end, small: units, tables, metrics, refusals."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data
from matplotlib.pyplot import close
from matplotlib.text import Text
from pytest import approx

from ticketlab.data.sets import load, prepare
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek.conv import figures, planting, report
from ticketlab.papers.plant_n_seek.conv import units as conv_units
from ticketlab.papers.plant_n_seek.conv.units import ConvBench, known
from ticketlab.papers.plant_n_seek.metrics import metrics
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pruning.masks import Mask
from ticketlab.study.plots import use_style
from ticketlab.study.results import Result
from ticketlab.study.runner import run_study

pytestmark = pytest.mark.usefixtures("tiny_root")  # reports count the test images' classes


@pytest.fixture(scope="module")
def rooted(tiny_folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        prepare(tiny.DIGITS.name)
        yield tiny_folder


@pytest.fixture(scope="module")
def results(rooted: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    with shared_folder(tmp_path_factory, "conv") as folder:
        return dict(run_study(plant_study.phases(tiny.conv()), folder))


def bench(results: dict[str, Result]) -> ConvBench:
    ticket = results["conv/ticket/seed-0"].tickets["ticket"]
    return ConvBench(plant_study.conv_setting(tiny.conv()), 0, known(ticket))


def test_units_are_those_that_were_planned(results: dict[str, Result]) -> None:
    names = [name for name in results if name.startswith("conv/")]
    per_seed = 2 + 2 * (1 + 2 + 2) + len(conv_units.CONTROLS)
    assert len(names) == 2 * per_seed
    units = plant_study.units_on_tickets(tiny.conv(), results)
    assert {unit.name for unit in units} | {"conv/ticket/seed-0", "conv/ticket/seed-1"} == set(
        names
    )
    planned = plant_study.planned(tiny.conv())
    assert {unit.name for phase in planned for unit in phase} == set(results)
    assert (
        PAPERS["plant_n_seek"].expected_passes(tiny.conv()) > 2 * sum(u.passes for u in units) / 2.1
    )


def test_a_plan_prices_each_net_at_its_own_speed(rooted: Path) -> None:
    """The passes of the part are those of its nets, whose speeds are probed, edge-popup's too."""
    values = tiny.conv()
    grid, narrow, mother, popup = PAPERS["plant_n_seek"].jobs(values)
    assert [job.net for job in (narrow, mother, popup)] == ["conv2"] * 3
    assert grid.net == "planted net, 5 layers of 8"
    assert narrow.ticket < mother.ticket  # half as wide
    # Two seeds. Own net: 2 rounds of 1 epoch and 2 epochs for the ticket, and two controls of 2.
    # The mother: two methods at two densities in rounds, one in one shot, four controls.
    images = len(load(values.conv.data).train) if values.conv else 0
    assert narrow.passes == 2 * images * (2 + 2 + 2 * 2)
    assert mother.passes == 2 * images * (2 * 2 * (2 * (2 + 2) + 2) + 4 * 2)
    assert popup.passes == 2 * images * (2 * 2 * 3 * 2)
    total = sum(job.passes for job in PAPERS["plant_n_seek"].jobs(values))
    assert total == PAPERS["plant_n_seek"].expected_passes(values)
    assert all(job.speed(0.02) > 100 for job in (narrow, mother, popup))


def test_a_unit_depends_on_its_arguments_and_the_tickets_weights(
    results: dict[str, Result],
) -> None:
    units = plant_study.units_on_tickets(tiny.conv(), results)
    unit = next(unit for unit in units if "popup-even" in unit.name)
    assert unit.work(**unit.arguments).record == results[unit.name].record
    fewer = tiny.conv(singleshot=[], controls=False, popup_densities=["gt", 0.1, 0.5])
    keys = {u.name: u.key for u in plant_study.units_on_tickets(fewer, results)}
    assert keys[unit.name] == unit.key
    ticket = results["conv/ticket/seed-0"].tickets["ticket"]
    assert ticket.weights is not None
    other = type(ticket)(ticket.mask, {n: 2 * w for n, w in ticket.weights.items()})
    assert known(other).digest != known(ticket).digest
    assert known(ticket).model_dump(mode="json") == {"digest": known(ticket).digest}
    narrower = {name: keep & (keep.cumsum(-1) > 1) for name, keep in ticket.mask.items()}
    assert known(type(ticket)(Mask(narrower), ticket.weights)).digest != known(ticket).digest


def test_a_kept_weight_that_is_zero_by_chance_is_trained_on(results: dict[str, Result]) -> None:
    ticket = results["conv/ticket/seed-0"].tickets["ticket"]
    name, keep = next(iter(ticket.mask.items()))
    place = tuple(keep.nonzero()[0].tolist())
    weights = {n: w.clone() for n, w in (ticket.weights or {}).items()}
    weights[name][place] = 0
    setting = plant_study.conv_setting(tiny.conv())
    changed = ConvBench(setting, 0, known(type(ticket)(ticket.mask, weights)))
    assert conv_units.own_net_row(changed, "ticket_trained")["kept"] == ticket.mask.alive


def test_the_ticket_is_planted_exactly(results: dict[str, Result]) -> None:
    table = report.planting_table(results)
    assert (table.error < 1e-6).all() and (table.factor > 0).all()
    assert table.planted.tolist() == approx(table.ticket.tolist(), abs=1.1)  # one image of 100
    ticket = results["conv/ticket/seed-0"].tickets["ticket"]
    assert table.kept[0] == sum(int((w != 0).sum()) for w in (ticket.weights or {}).values())
    one = bench(results)
    start = one.start("planted")
    same = {
        n: torch.equal(start[n][~keep], one.mother[n][~keep])
        for n, keep in one.planted.mask.items()
    }
    assert all(same.values())


def test_masks_are_exact_and_tables_complete(results: dict[str, Result]) -> None:
    table = report.conv_table(results)
    total = bench(results).planted.mask.total
    pruned = table[table.regime.isin(["singleshot", "multishot"])]
    assert (pruned.kept == total - ((1 - pruned.density) * total).astype(int)).all()
    assert (table.effective.dropna() <= table.kept[table.effective.notna()]).all()
    oracle = table[table.method == "oracle"]
    assert (oracle.recall == 1).all()
    assert oracle.raw_margin.abs().max() < 1.1
    popped = table[table.regime.isin(report.STRONG)]
    assert popped.weak.isna().all() and popped.per_output.between(0, 100).all()
    curves = report.curves_of_popup(results)
    assert set(curves.epoch) == {1, 2} and set(curves.regime) == set(report.STRONG)


def test_metrics_answer_c11(results: dict[str, Result]) -> None:
    numbers = metrics(results, tiny.conv())["conv"]
    assert set(numbers) == set(report.NAMES)
    assert [name for name, found in numbers.items() if found is None] == []
    assert {found["n"] for found in numbers.values()} == {2}
    assert set(report.conv_metrics({}).values()) == {None}


def test_the_reference_is_the_trained_ticket_beside_a_constant_answer(
    results: dict[str, Result],
) -> None:
    (found,) = metrics(results, tiny.conv())["references"]["conv"].values()
    labels = load(tiny.conv().conv.data).test.y  # type: ignore[union-attr]
    assert found["chance"] == 100 * int(labels.bincount().max()) / len(labels)
    assert found["score"] == metrics(results, tiny.conv())["conv"]["ticket_score"]
    assert report.conv_references({}, tiny.conv()) == {"conv": None}


def test_figures_and_tables_name_what_they_show(results: dict[str, Result]) -> None:
    use_style()
    table, curves = report.conv_table(results), report.curves_of_popup(results)
    for figure in (figures.found(table), figures.popup(curves, table)):
        figure.canvas.draw()
        assert figure.get_label()
        assert [t.get_text() for t in figure.findobj(Text) if "_" in t.get_text()] == []
        close(figure)
    shown = report.seekers(table)
    assert ("one shot", "magnitude") in {key[:2] for key in shown.index}
    assert {"the ticket's density", "density 0.1", "density 0.5"} <= set(shown.columns)
    assert set(report.exactness(results).index) == {0, 1}
    assert report.status(tiny.conv().conv).startswith("conv2")


def test_without_this_part_nothing_is_run() -> None:
    without = tiny.conv().model_copy(update={"conv": None})
    assert plant_study.units_on_tickets(without, {}) == []
    assert report.conv_table({}).empty and set(report.conv_metrics({}).values()) == {None}


def test_even_gains_change_a_net_by_one_positive_factor(results: dict[str, Result]) -> None:
    one = bench(results)
    spec = one.conv.model
    names = one.names
    gains = planting.even_gains(names, 0.1)
    start = one.start("unplanted")
    plain, grown = (
        one.net(spec, {n: (w * gains[n] if grow else w).float() for n, w in start.items()})
        for grow in (False, True)
    )
    x = one.probe[0]
    with torch.no_grad():
        a, b = plain.forward(x), grown.forward(x)
    factor = 0.1 ** (-len(names) / 2)
    assert torch.allclose(b, factor * a, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_bad_parameters_are_refused_in_one_line(rooted: Path, one_line: Message) -> None:
    def refused(**change: object) -> str:
        return one_line(lambda: plant_study.check(tiny.conv(**change)))

    assert "mother" in refused(ticket_model={"name": "conv2", "width": 8})
    assert "is not the mother's" in refused(model={"name": "conv4", "width": 4})
    batch_norm = {"name": "resnet8", "width": 4}
    assert "cannot be planted" in refused(model=batch_norm, ticket_model=batch_norm)
    assert "conv.popup_recipe.optimizer" in refused(popup_recipe={"optimizer": "adam"})
    assert "conv.recipe" in refused(recipe=tiny.CONV["recipe"] | {"length": "10%"})
    assert "conv.round_length" in refused(round_length="0it")
    assert "conv.probe: 500" in refused(probe=500)
    assert "conv.densities: density: 0 keeps less than one" in refused(densities=["gt", 0.0])
    assert "conv.popup_densities: density: 2 keeps" in refused(popup_densities=[2.0])
    assert "ticket_density" in one_line(lambda: tiny.conv(ticket_density=1.5))
    assert "unknown key" in one_line(lambda: tiny.conv(width=3))
    assert "magnitud" in one_line(lambda: tiny.conv(singleshot=["magnitud"]))
    assert "'half'" in one_line(lambda: tiny.conv(densities=["half"]))
    fast = tiny.conv(recipe=tiny.CONV["recipe"] | {"optimizer": "sgd", "lr": 1e12})
    wild = plant_study.conv_setting(fast)
    assert "diverge" in one_line(lambda: conv_units.train_ticket(wild, 0))
