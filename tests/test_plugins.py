"""Plug-ins: criteria and models of one's own in the papers' studies, refusals, and keys."""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import tiny
import torch
from conftest import Message, equal, use_data
from matplotlib.figure import Figure

from ticketlab import models, plugins
from ticketlab.data.sets import load
from ticketlab.models import ModelSpec
from ticketlab.papers.compare import figures as compare_figures
from ticketlab.papers.compare import report as compare_report
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.compare.overlap import overlap_matrix, overlap_table
from ticketlab.papers.compare.rows import board, layers_table
from ticketlab.papers.compare.swap import swap_table
from ticketlab.papers.plant_n_seek import figures as plant_figures
from ticketlab.papers.plant_n_seek import figures_inside as plant_inside
from ticketlab.papers.plant_n_seek import metrics as plant_metrics
from ticketlab.papers.plant_n_seek import report as plant_report
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek import success as plant_success
from ticketlab.papers.plant_n_seek.conv import figures as conv_figures
from ticketlab.papers.plant_n_seek.conv import report as conv_report
from ticketlab.papers.prac import figures as prac_figures
from ticketlab.papers.prac import forecast as prac_forecast
from ticketlab.papers.prac import metrics as prac_metrics
from ticketlab.papers.prac import report as prac_report
from ticketlab.papers.prac import study as prac_study
from ticketlab.pipeline.params import validate
from ticketlab.pruning import masks, saliency
from ticketlab.spec import ROOT, InputError
from ticketlab.study import fingerprint as code
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit, run_study

OWN = '''
"""Plug-ins of the tests: criteria that are equal to built-in ones, a model, and what is refused."""

from torch import nn

from ticketlab.pruning import saliency

FACTOR = 1.0
text = "no function"


def size(probe, weights, mask):
    return {name: FACTOR * weights[name].abs() for name in mask}


def slopes(probe, weights, mask):
    return saliency.snip(probe, weights, mask)


def two(weights, mask):
    return {}


def layers(shape, width=8):
    flat = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(flat, width), nn.ReLU(), Scale(width)), width


class Scale(nn.Module):
    """Has a parameter that no rule of initialisation knows."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.scale = nn.Parameter(nn.init.normal_(self.linear.weight.new_empty(width)))

    def forward(self, x):
        return self.linear(x) * self.scale


def short(shape, width=8):
    return nn.Flatten(), width


def bare(shape, width=None):
    return nn.Flatten(), width
'''
SIZE, SLOPES, LAYERS = "own_plugins:size", "own_plugins:slopes", "own_plugins:layers"


def forget() -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    for made in vars(code).values():
        if hasattr(made, "cache_clear"):
            made.cache_clear()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The module own_plugins, in a folder of the import path."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "own_plugins.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        forget()
        yield folder
    forget()


@pytest.fixture(scope="module")
def images(tiny_folder: Path) -> Iterator[None]:
    """The tiny images, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tiny_folder)
        yield


pytestmark = pytest.mark.usefixtures("own", "images")
Run = Callable[[Any, Any], dict[str, Result]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The results of a study with these parameters; each is run once."""

    @cache
    def results(study: Any, params: Any) -> dict[str, Result]:
        return run_study(study.phases(params), tmp_path_factory.mktemp("runs"))

    return results


def labels(figure: Figure) -> set[str]:
    """All that a figure's legends and axes name."""
    named = [text for ax in figure.axes for text in ax.get_legend_handles_labels()[1]]
    for ax in figure.axes:
        named += [tick.get_text() for tick in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    plt.close(figure)
    return {name.split(" (")[0] for name in named}


# --- criteria


def prac(*criteria: str) -> Any:
    bare: dict[str, Any] = {"thresholds": [], "scores": [], "label_noise": 0.0, "others": []}
    small = {"seeds": [0], "rounds": 2, "levels": [2], "ablation_levels": [2], "probe": 20}
    return tiny.prac(**bare, **small, criteria=list(criteria))


@pytest.fixture(scope="module")
def by_criteria(own: Path) -> Any:
    """PrAC's parameters with two built-in criteria and two that are equal to them."""
    return prac("magnitude", SIZE, "snip", SLOPES)


def test_rounds_at_pracs_budget_are_pruned_by_a_criterion(by_criteria: Any, run: Run) -> None:
    found = run(prac_study, by_criteria)

    def mask(arm: str, turn: str) -> masks.Mask:
        return found[f"search/main/{arm}/seed-0"].tickets[turn].mask

    for turn in ("round-01", "round-02"):
        same = [mask(arm, turn) for arm in ("by-magnitude", "by-own_plugins_size")]
        assert same[0] == same[1]
        assert turn == "round-01" or same[0] == mask("random", turn)  # which has PrAC's first one
        one, other = (mask(f"by-{name}", turn) for name in ("snip", "own_plugins_slopes"))
        assert one == other and one != same[0]
        assert one.alive == mask("prac", turn).alive


def test_pracs_tables_and_figures_show_it(by_criteria: Any, run: Run) -> None:
    found, arm = run(prac_study, by_criteria), "by-own_plugins_slopes"
    scores, rounds = prac_report.scores_table(found), prac_report.rounds_table(found)
    assert arm in set(scores.arm) and arm in set(rounds.arm)
    assert arm in set(prac_report.overlaps_table(found, 2).arm)
    numbers = prac_metrics.metrics(found, by_criteria)
    cost = numbers["cost"]
    assert cost["by_snip"] == cost["by_own_plugins_slopes"]
    assert cost["by_magnitude"] == cost["by_own_plugins_size"]
    assert numbers["ablations"]["prac_minus_by_own_plugins_slopes"]["mean"]["n"] == 1
    assert {arm, "pruned by SNIP"} <= labels(prac_figures.ablations(scores, by_criteria))


GRID: dict[str, Any] = {
    "tasks": ["circle"], "widths": [24], "densities": ["gt", 0.3], "controls": True,
    "mothers": ["planted", "unplanted"], "singleshot": ["magnitude", SIZE],
    "multishot": ["snip", SLOPES],
}  # fmt: skip


@pytest.fixture(scope="module")
def plant(own: Path) -> Any:
    """Plant 'n' Seek's parameters: they are validated where the plug-ins are."""
    return tiny.plant_n_seek(seeds=[0], grids=[GRID])


def test_plant_n_seeks_grids_take_a_criterion(plant: Any, run: Run) -> None:
    found = run(plant_study, plant)
    scores = plant_report.scores_table(found)
    pairs = {"singleshot": ("magnitude", SIZE), "multishot": ("snip", SLOPES)}
    told = ["mother", "label", "kept", "effective", "recall", "weak", "per_output"]
    for regime, (built_in, mine) in pairs.items():
        of = {name: scores[(scores.regime == regime) & (scores.method == name)] for name in
              (built_in, mine)}  # fmt: skip
        one, other = (of[name][told].reset_index(drop=True) for name in (built_in, mine))
        assert len(one) == 4 and one.equals(other)
        name = f"{regime}/circle-d5-w24-n0.01/planted/seed-0"
        tickets = found[name].tickets
        ours = {ticket: tickets[ticket].mask for ticket in tickets if mine in ticket}
        for ticket, mask in ours.items():
            assert mask == tickets[ticket.replace(mine, built_in)].mask


def test_plant_n_seeks_tables_and_figures_show_it(plant: Any, run: Run) -> None:
    found = run(plant_study, plant)
    scores, layers = plant_report.scores_table(found), plant_report.layers_table(found, plant)
    board = plant_success.leaderboard(scores, plant)
    assert {SIZE, SLOPES} <= set(board.method)
    assert plant_report.kept_as_asked(scores).all()
    assert {SIZE, SLOPES} <= labels(plant_figures.found(scores, plant))
    assert {SIZE, SLOPES} <= labels(plant_inside.collapse(layers, scores, plant))
    assert SLOPES in labels(plant_figures.overlap(scores, plant))
    assert SIZE in labels(plant_figures.cost(board))
    table = plant_report.plot_table(scores, plant)
    assert f"singleshot {SIZE}" in set(table.arm)
    numbers = plant_metrics.metrics(found, plant)
    cell = numbers["scores"]["circle_d5_n0.01"]["singleshot"]["planted"]
    assert cell["own_plugins_size"] == cell["magnitude"]


def test_a_claim_is_about_the_papers_methods_alone(plant: Any, run: Run) -> None:
    found = run(plant_study, plant)
    numbers = plant_metrics.metrics(found, plant)
    fewer = {}
    for name, result in found.items():
        record = dict(result.record)
        if "rows" in record and not name.startswith("audit/"):
            record["rows"] = [r for r in record["rows"] if not plugins.is_plugin(r["method"])]
        fewer[name] = Result(record, result.tickets)
    without = plant_metrics.metrics(fewer, plant)
    same = set(without) - {"scores"}
    assert all(numbers[group] == without[group] for group in same)


@pytest.fixture(scope="module")
def conv(own: Path) -> Any:
    """The convolutional part with two criteria of one's own."""
    methods = {"singleshot": ["magnitude", SIZE], "multishot": ["snip", SLOPES]}
    return tiny.conv(seeds=[0], popup=[], densities=[0.1], mothers=["planted"], **methods)


def test_the_convolutional_part_takes_a_criterion(conv: Any, run: Run) -> None:
    found = run(plant_study, conv)
    for regime, built_in, mine in (("singleshot", "magnitude", "own_plugins_size"),
                                   ("multishot", "snip", "own_plugins_slopes")):  # fmt: skip
        one, other = (found[f"conv/{regime}/planted/{name}/seed-0"] for name in (built_in, mine))
        (row,), (own,) = one.record["rows"], other.record["rows"]
        assert row | {"method": own["method"]} == own
        for name, ticket in one.tickets.items():
            assert ticket.mask == other.tickets[name].mask
    table = conv_report.conv_table(found)
    assert {SIZE, SLOPES} <= set(table.method)
    assert {f"{SIZE}, one shot", f"{SLOPES}, many rounds"} <= labels(conv_figures.found(table))
    assert SIZE in conv_report.seekers(table).index.get_level_values("method")
    built_in = {name: result for name, result in found.items() if "own_plugins" not in name}
    assert conv_report.conv_metrics(found) == conv_report.conv_metrics(built_in)


@pytest.fixture(scope="module")
def compare(own: Path) -> Any:
    """The comparison with a criterion of one's own in every place that takes one."""
    long = [{"mask": SLOPES, "budget": "imp"}]
    return tiny.compare(seeds=[0], criteria=[SLOPES, SIZE], long=long, swap_masks=["imp", SLOPES])


def test_the_comparison_takes_a_criterion(compare: Any, run: Run) -> None:
    found = run(compare_study, compare)
    for built_in, mine in (("snip", "own_plugins_slopes"), ("magnitude", "own_plugins_size")):
        one, other = (found[f"convnet/{name}/seed-0"] for name in (built_in, mine))
        for level in ("level-70", "level-85"):
            assert one.tickets[level].mask == other.tickets[level].mask
        rows = zip(one.record["rows"], other.record["rows"], strict=True)
        assert all(row | {"arm": own["arm"]} == own for row, own in rows)
    assert not any(":" in name for name in found)


def test_the_comparisons_tables_and_figures_show_it(compare: Any, run: Run) -> None:
    found = run(compare_study, compare)
    rows = board(found)
    overlaps = overlap_table(found, compare)
    swaps = swap_table(found, compare)
    assert SLOPES in compare_report.leaderboard(rows, "convnet", 0.85).index
    iou = overlap_matrix(overlaps, "convnet", "iou")
    assert iou.loc[SLOPES, "snip"] == 1.0
    assert SLOPES in set(swaps["mask"])
    numbers = compare_report.metrics(found, compare)
    ours = numbers["differences"]["own_plugins_slopes_minus_random"]
    assert ours == numbers["differences"]["snip_minus_random"]
    assert not [key for key in code.strings_in(numbers) if ":" in key]
    layers = layers_table(found)
    for figure in (
        compare_figures.accuracy(rows, compare), compare_figures.cost(rows, compare),
        compare_figures.gains(rows, compare), compare_figures.overlap(overlaps, compare),
        compare_figures.layers(layers, compare), compare_figures.swap(swaps, compare),
    ):  # fmt: skip
        assert SLOPES in labels(figure)
    cost = labels(compare_figures.cost(rows, compare))
    assert f"{SLOPES}, as long as IMP" in cost and "SNIP, as long as IMP" not in cost


# --- models


def test_a_model_is_built_as_built_in_ones_are(own: Path) -> None:
    spec = ModelSpec(name=LAYERS, width=6, init="kaiming_normal")
    one, again, other = (models.build(spec, (1, 14, 14), 10, seed) for seed in (0, 0, 1))
    assert equal(one.state_dict(), again.state_dict())
    first, second = one.state_dict(), other.state_dict()
    assert all(
        not torch.equal(first[name], second[name]) for name in first if not name.endswith("bias")
    )
    few = models.build(spec, (1, 14, 14), 5, 0)
    assert equal(one.body.state_dict(), few.body.state_dict())
    assert models.prunable(one, "hidden") == ("body.1.weight", "body.3.linear.weight")
    assert models.build(ModelSpec(name=LAYERS), (1, 14, 14), 10, 0).head.in_features == 8


def test_a_model_trains_in_a_study(own: Path, run: Run) -> None:
    model = {"name": LAYERS, "width": 12}
    params = tiny.compare_bed(model=model, prunable="hidden").model_copy(
        update={"seeds": (0,), "long": (), "swap_masks": ()}
    )
    found = run(compare_study, params)
    ticket = found["convnet/imp/seed-0"].tickets["level-85"]
    assert ticket.metadata["model"]["name"] == LAYERS
    assert set(ticket.mask) == {"body.1.weight", "body.3.linear.weight"}
    again = ticket.model().state_dict()
    assert all(torch.equal(again[name], kept) for name, kept in (ticket.weights or {}).items())
    facts = compare_report.this_study(params, load(params.data))
    assert "own_plugins:layers: 2,496 weights" in facts["convnet: net"]


# --- what is refused

BAD = {
    "own_plugins": "allowed: ",
    "own_plugins:": "allowed: ",
    "size:own_plugins:x": "allowed: ",
    "own_plugins.py:size": "there is no module own_plugins.py",
    "own_nowhere:size": f"there is no module own_nowhere on the import path or in {ROOT}",
    "own_plugins:nothing": "own_plugins has no function nothing",
    "own_plugins:text": "own_plugins has no function text",
    "own_plugins:two": "two cannot be called so (too many positional arguments)",
    "own_broken:size": "importing own_broken fails: SyntaxError",
    "own_needy:size": "importing own_needy fails: No module named 'own_missing'",
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_criterion_is_refused_in_one_line(own: Path, name: str, one_line: Message) -> None:
    (own / "own_broken.py").write_text("def size(:\n")
    (own / "own_needy.py").write_text("import own_missing\n")
    importlib.invalidate_caches()
    built_in = "random, magnitude, snip, grasp, "
    grid = {"tasks": ["relu"], "multishot": ["snip", name]}
    places = {
        "grids.0.multishot.1": (lambda: tiny.plant_n_seek(grids=[grid]), built_in),
        "conv.singleshot.0": (lambda: tiny.conv(singleshot=[name]), built_in),
        "conv.ticket_method": (lambda: tiny.conv(ticket_method=name), built_in),
        "criteria.0": (lambda: tiny.prac(criteria=[name]), built_in),
    }
    whole: dict[str, Any] = tiny.COMPARE
    for key, changes, allowed in (
        ("criteria.0", {"criteria": [name]}, ""),
        ("long.0.mask", {"long": [{"mask": name}]}, built_in),
        ("swap_masks.1", {"swap_masks": ["imp", name]}, "synflow, imp, colt, prac, "),
    ):
        values = whole | changes
        made = lambda values=values: validate(tiny.CompareParams, values, "compare")  # noqa: E731
        places[f"compare.{key}"] = (made, allowed)
    for key, (action, allowed) in places.items():
        message = one_line(action)
        assert f"{key}: {name!r} is not valid, {BAD[name]}" in message, message
        assert (
            f"{allowed}" in message
            and "(probe, weights, mask) of your own as my_module:" in message
        )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("conv9", "allowed: lenet_300_100, "),
        ("own_plugins:two", "two cannot be called so"),
        ("own_nowhere:net", "there is no module own_nowhere"),
        ("own_plugins:bare", "the default of its width is None"),
    ],
)
def test_a_wrong_model_is_refused_when_parameters_are_read(
    own: Path, name: str, told: str, one_line: Message
) -> None:
    models_of = {
        "colt.model.name": (tiny.ColtParams, tiny.COLT),
        "prac.model.name": (tiny.PracParams, tiny.PRAC),
        "dlth.model.name": (tiny.RstParams, tiny.DLTH),
    }
    for key, (spec, block) in models_of.items():
        values = block | {"model": {"name": name}}
        message = one_line(lambda s=spec, v=values, k=key: validate(s, v, k.partition(".")[0]))
        assert f"{key}: {name!r} is not valid, {told}" in message


def test_a_model_that_does_not_fit_is_refused_before_anything_trains(
    own: Path, one_line: Message
) -> None:
    params = tiny.compare_bed(model={"name": "own_plugins:short"})
    message = one_line(lambda: next(compare_study.phases(params)))
    assert "two images become (2, 196), allowed is what it says: (2, 8)" in message
    with pytest.raises(InputError, match=r"^model.depth = 2: own_plugins:layers does not have it"):
        models.check(ModelSpec(name=LAYERS, depth=2))


def test_criteria_stand_once_and_where_they_are_used(own: Path, one_line: Message) -> None:
    def refused(study: Any, params: Any) -> str:
        return one_line(lambda: next(study.phases(params)))

    assert "criteria: 'snip' is there twice" in refused(prac_study, prac("snip", "snip"))
    assert "probe: 20" in refused(prac_study, prac("snip").model_copy(update={
        "data": tiny.DIGITS.model_copy(update={"train": 10})}))  # fmt: skip
    twice = tiny.compare(criteria=[SIZE, SIZE])
    assert f"criteria: {SIZE!r} is there twice" in refused(compare_study, twice)
    unlisted = tiny.compare(swap_masks=[SIZE])
    assert f"swap_masks: {SIZE!r} is not one of criteria" in refused(compare_study, unlisted)


def test_scores_of_a_wrong_shape_name_the_criterion(own: Path, one_line: Message) -> None:
    model = models.build(ModelSpec(name="mlp", width=4, depth=2), (1, 4, 4), 3, 0)
    dense = masks.ones(model, models.prunable(model, "hidden"))
    x, y = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    (own / "own_wrong.py").write_text("def f(probe, weights, mask):\n    return {}\n")
    importlib.invalidate_caches()
    message = one_line(lambda: saliency.prune_model(model, dense, "own_wrong:f", 0.5, x, y))
    assert message == "criterion 'f': no scores for 'body.fc1.weight'"
    message = one_line(lambda: saliency.prune_model(model, dense, "own_wrong:g", 0.5, x, y))
    assert message.startswith("criterion: 'own_wrong:g' is not valid, own_wrong has no function g")


# --- keys


def keys(units: list[Unit]) -> dict[str, str]:
    return {unit.name: unit.key for unit in units}


@pytest.fixture
def edited(own: Path) -> Iterator[Callable[[str, str], None]]:
    """Edits own_plugins.py, as before a new process; it is put back in the end."""

    def edit(old: str, new: str) -> None:
        text = (own / "own_plugins.py").read_text()
        assert old in text
        (own / "own_plugins.py").write_text(text.replace(old, new))
        forget()

    yield edit
    (own / "own_plugins.py").write_text(OWN)
    forget()


def test_an_edit_changes_the_keys_of_the_units_that_use_it(
    edited: Callable[[str, str], None], by_criteria: Any, compare: Any
) -> None:
    grids = [GRID | {"singleshot": ["magnitude"], "multishot": [SLOPES]},
             GRID | {"depths": [6], "singleshot": [SIZE], "multishot": []}]  # fmt: skip
    plant = tiny.plant_n_seek(seeds=[0], grids=grids)
    studies = ((plant_study, plant), (compare_study, compare))

    def now() -> list[dict[str, str]]:
        prac = [unit for units in prac_forecast.planned(by_criteria) for unit in units]
        return [keys(prac), *(keys(next(study.phases(params))) for study, params in studies)]

    first = now()
    edited("    return {name: FACTOR", "    # a comment\n    return {name: FACTOR")
    assert now() == first
    edited("FACTOR = 1.0", "FACTOR = 2.0")
    changed = [
        {name for name in before if before[name] != after[name]}
        for before, after in zip(first, now(), strict=True)
    ]
    assert changed[0] == {"search/main/by-own_plugins_size/seed-0"}
    regime = "singleshot/circle-d6-w24-n0.01"
    assert changed[1] == {f"{regime}/planted/seed-0", f"{regime}/unplanted/seed-0"}
    assert changed[2] == {"convnet/own_plugins_size/seed-0"}


def test_an_edit_of_a_model_changes_the_keys_of_all_its_units(
    edited: Callable[[str, str], None],
) -> None:
    params = tiny.compare_bed(model={"name": LAYERS}, prunable="hidden")
    other = tiny.compare()
    first, fixed = keys(compare_study.method_units(params)), keys(compare_study.method_units(other))
    edited("* self.scale", "* self.scale * 2")
    now = keys(compare_study.method_units(params))
    assert all(now[name] != first[name] for name in first)
    assert keys(compare_study.method_units(other)) == fixed


def test_a_built_in_criterion_does_not_depend_on_the_study_s_plugins(compare: Any) -> None:
    plain = keys(compare_study.method_units(tiny.compare(seeds=[0])))
    mine = keys(compare_study.method_units(compare))
    assert {name: mine[name] for name in plain} == plain


def test_packages_folders_and_re_exports_are_followed(own: Path) -> None:
    for name in ("own_package", "own_folder"):  # the second one without __init__.py
        (own / name).mkdir()
        (own / name / "inner.py").write_text("def f(probe, weights, mask):\n    return {}\n")
    (own / "own_package" / "__init__.py").write_text("from own_package.inner import f\n")
    names = ("own_package:f", "own_package.inner:f", "own_folder.inner:f")
    forget()
    found = [code.fingerprint(saliency.prune_model, strings=[name]) for name in names]
    assert all(callable(saliency.named_criterion(name)) for name in names)
    for name in ("own_package", "own_folder"):
        (own / name / "inner.py").write_text("def f(probe, weights, mask):\n    return {1: 2}\n")
    forget()
    after = [code.fingerprint(saliency.prune_model, strings=[name]) for name in names]
    assert all(one != other for one, other in zip(found, after, strict=True))


def test_what_cannot_be_followed_is_refused(own: Path, one_line: Message) -> None:
    (own / "own_star.py").write_text("from own_plugins import *\n")
    forget()
    assert callable(saliency.named_criterion("own_star:size"))
    message = one_line(lambda: code.fingerprint(saliency.prune_model, strings=["own_star:size"]))
    assert message.startswith("own_star:size: its code cannot be followed")


def test_of_an_installed_package_the_version_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def now(name: str) -> str:
        code._fingerprint.cache_clear()
        return code.fingerprint(saliency.prune_model, strings=[name])

    before = now("torch.nn:Linear"), now("own_plugins:size")
    monkeypatch.setattr(code.metadata, "version", lambda name: "0")
    assert now("torch.nn:Linear") != before[0] and now("own_plugins:size") == before[1]
    code._fingerprint.cache_clear()


# --- the example


def test_the_example_is_a_criterion_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    assert callable(saliency.named_criterion("my_plugins:weight_times_slope"))
    model = models.build(ModelSpec(name="my_plugins:two_convs", width=4), (1, 14, 14), 10, 0)
    dense = masks.ones(model, models.prunable(model, "conv"))
    x, y = torch.rand(20, 1, 14, 14), torch.arange(20) % 10
    mask = saliency.prune_model(model, dense, "my_plugins:weight_times_slope", 0.5, x, y)
    assert mask.alive == dense.total - dense.total // 2
    del sys.modules["my_plugins"]
    forget()


def test_the_projects_root_is_on_the_import_path() -> None:
    plugins.see_project()
    assert sys.path[-1] == str(ROOT) or str(ROOT) in sys.path
    assert code.source_of("examples.my_plugins") == ROOT / "examples" / "my_plugins.py"
