"""A judgement from a file to its page: arms, equal conditions, resumption, refusals."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from conftest import Message
from emulated import emulated
from hypothesis import given as drawn
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from ticketlab import models
from ticketlab.cli import app
from ticketlab.data.sets import Batches
from ticketlab.files import read_json, yaml_text
from ticketlab.judging import report, run, study, units
from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams
from ticketlab.pipeline.params import validate
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.spec import ROOT
from ticketlab.study import controls
from ticketlab.study.cost import Account
from ticketlab.study.results import load_result
from ticketlab.study.runner import run_study
from ticketlab.tickets import outside
from ticketlab.training.evaluation import evaluate
from ticketlab.training.recipe import Recipe

VALUES: dict[str, Any] = {
    "model": {"name": "conv3", "width": 4, "conv_bias": False},
    "data": tiny.DIGITS.model_dump(),
    "recipe": {"optimizer": "adam", "lr": 0.01, "batch": 40, "length": "2ep"},
    "seeds": 2,
    "rate": 0.5,
    "trained": 0.0,
    "runtime": {"device": "cpu"},
}


def params(**changes: object) -> JudgeParams:
    return validate(JudgeParams, VALUES | changes, "tiny: ")


def net(seed: int = 0) -> torch.nn.Module:
    return models.build(params().model, (1, 14, 14), 10, seed)


def mask_of(weights: dict[str, torch.Tensor], density: float = 0.2) -> Mask:
    """The largest weights of all convolutions."""
    dense = ones(net(), models.prunable(net(), "conv"))
    return keep_top({n: weights[n].abs() for n in dense}, round(density * dense.total))


def ticket(start: str = "all") -> Given:
    weights = dict(net(7).state_dict())
    mask = mask_of(weights)
    kept = {n: t * mask[n] if n in mask else t for n, t in weights.items()}
    chosen = {"none": None, "kept": kept, "all": weights}[start]
    return Given("mask.pt", mask, chosen, "a state_dict", {})


def work(unit: Any) -> Any:
    return unit.work(**unit.arguments).record["rows"][0]


# --- arms


def test_every_arm_has_the_same_sparsity_recipe_and_images(tiny_root: Path) -> None:
    chosen, given = params(seeds=[3]), ticket()
    found = {unit.arguments.get("arm", "imp"): work(unit) for unit in study.arms(chosen, given, 3)}
    assert set(found) == {"dense", "given", "imp", "random", "shuffled", "reinit"}
    sparse = {arm: row["alive"] for arm, row in found.items() if arm != "dense"}
    assert set(sparse.values()) == {given.mask.alive}
    one = chosen.recipe.passes(200)
    assert {row["images"] - row["search_images"] for row in found.values()} == {one}
    left = units.rounds(given.mask.total, given.mask.alive, 0.5)
    assert found["imp"]["search_images"] == len(left) * one
    assert all(row["search_images"] == 0 for arm, row in found.items() if arm != "imp")
    assert found["given"]["mask_sha256"] == found["reinit"]["mask_sha256"] == given.mask.digest()
    others = {row["mask_sha256"] for row in found.values()}
    assert len(others) == 5  # dense, given and reinit, imp, random, shuffled


@pytest.mark.parametrize("start", ["none", "kept", "all"])
def test_arms_start_from_the_weights_that_the_file_has(tiny_root: Path, start: str) -> None:
    given = ticket(start)
    found = {u.arguments.get("arm", "imp"): u.arguments for u in study.arms(params(), given, 0)}
    states = {arm: one.get("start") for arm, one in found.items()}
    assert ("reinit" in states) == (start != "none")
    assert states.pop("reinit", None) is None
    own = states.pop("given")
    assert (own is None) == (start == "none")
    if own is not None:
        assert own.weights is given.weights
    assert {state is not None for state in states.values()} == {start == "all"}


def test_the_given_mask_is_trained_from_its_own_weights(tiny_root: Path) -> None:
    given = ticket("kept")
    bench = units.JudgeBench(params().setting(), 0, given.ticket)
    assert given.weights is not None
    state = bench.theta(bench.net())
    assert all(torch.equal(state[name], given.weights[name]) for name in state)
    fresh = units.JudgeBench(params().setting(), 0)
    assert not torch.equal(fresh.net().state()["head.weight"], state["head.weight"])


def test_imp_starts_each_round_and_its_ticket_from_the_same_weights(tiny_root: Path) -> None:
    """Round by round, as the search should do it."""
    chosen, given = params(), ticket("kept")
    dense = study.dense_mask(chosen, given)
    setting, kept = chosen.setting("rate"), given.mask.alive
    found = units.search(setting, 3, dense, kept)
    bench = units.JudgeBench(setting, 3)
    account, trained, mask = Account(bench), bench.net(), dense
    theta = bench.theta(trained)
    for alive in units.rounds(dense.total, kept, chosen.rate):
        trained.rewind(theta, mask)
        account.train(trained, bench.data.train, setting.recipe, mask=mask)
        mask = keep_top(magnitude(trained.state(), mask), alive, within=mask)
    ours = found.tickets["ticket"]
    assert ours.mask == mask and ours.weights is not None
    assert all(torch.equal(ours.weights[name], theta[name] * mask[name]) for name in mask)
    (row,) = found.record["rows"]
    assert row["start_accuracy"] == units.untrained_accuracy(bench, theta, mask)


def test_the_start_is_measured_on_validation_images(tiny_root: Path) -> None:
    bench = units.JudgeBench(params().setting(), 0)
    theta, mask = bench.theta(bench.net()), ones(net(), list(ticket().mask))
    shares = {}
    for name in ("train", "validation", "test"):
        images = getattr(bench.data, name)
        shares[name] = 100 * evaluate(bench.net(), images, Batches(images, bench.data)).accuracy
    assert units.untrained_accuracy(bench, theta, mask) == shares.pop("validation")
    assert units.untrained_accuracy(bench, theta, mask) not in shares.values()


@pytest.mark.parametrize("start", ["none", "kept"])
def test_only_arms_without_own_weights_are_rewound(tiny_root: Path, start: str) -> None:
    """The dense net starts at its initial weights, a given ticket at those of its file."""
    work = study.arms(params(rewind="5it"), ticket(start), 0)
    found = {one.arguments.get("arm", "imp"): str(one.arguments["setting"].rewind) for one in work}
    at_once = {"dense"} | ({"given"} if start == "kept" else set())
    assert {arm for arm, rewind in found.items() if rewind == "0it"} == at_once
    assert {found[arm] for arm in found.keys() - at_once} == {"5it"}


def test_shuffling_keeps_the_layers_and_random_masks_the_total() -> None:
    mask = ticket().mask
    shuffled = study.shuffled_mask(mask, 0)
    assert shuffled.counts() == mask.counts() and shuffled != mask
    dense = ones(net(), list(mask))
    random = study.random_mask(dense, mask.alive, 0)
    assert random.alive == mask.alive and random.counts() != mask.counts()
    assert (
        study.random_mask(dense, mask.alive, 1) != random == study.random_mask(dense, mask.alive, 0)
    )


@drawn(st.integers(2, 5000), st.data(), st.floats(0.01, 0.95))
def test_rounds_end_at_exactly_the_masks_size(total: int, data: st.DataObject, rate: float) -> None:
    kept = data.draw(st.integers(1, total - 1))
    left = units.rounds(total, kept, rate)
    assert left[-1] == kept and left == sorted(set(left), reverse=True) and left[0] < total
    steps = zip([total, *left[:-2]], left[:-1], strict=False)
    assert all(after == min(before - round(rate * before), before - 1) for before, after in steps)


def test_the_longer_training_sees_about_as_many_images_as_imp() -> None:
    recipe = Recipe(batch=40, length="2ep")  # type: ignore[arg-type]
    longer = units.stretched(recipe, 1700, 200)
    assert abs(longer.passes(200) - 1700) <= 40


def test_trained_weights_are_a_head_start_and_cannot_be_judged() -> None:
    rows = [
        {"arm": arm, "seed": seed, "last_accuracy": 80.0, "train_accuracy": 99.0}
        | {"start_accuracy": start + seed}
        for arm, start in {"dense": 10, "imp": 12, "random": 10, "given": 40}.items()
        for seed in range(3)
    ]
    for given, passes in ((40, False), (20, True)):
        frame = pd.DataFrame(rows)
        frame.loc[frame.arm == "given", "start_accuracy"] = given
        metrics = {"controls": {"bed": report.controls(frame, params())}}
        found = {one.name: one.passed for one in controls.all_of(metrics)}
        assert found["no_head_start"] == passes


# --- end to end


@pytest.fixture
def folder(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters and two masks of one size."""
    monkeypatch.setenv("TICKETLAB_WORKERS", "1")
    (tmp_path / "judge.yaml").write_text(yaml_text(VALUES))
    given = ticket()
    torch.save(outside.as_form(given.mask, None, "masks"), tmp_path / "mask.pt")
    torch.save(given.weights, tmp_path / "init.pt")
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["judge", *map(str, words)])


def judged(folder: Path, *more: object) -> Result:
    at = folder / "out"
    return call(folder / "mask.pt", "--params", folder / "judge.yaml", "--out", at, *more)


def times(folder: Path) -> dict[str, int]:
    """When each unit of the judgement was written, by its arm."""
    paths = (folder / "out/units").rglob("*.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def test_one_command_writes_a_page_and_a_second_one_trains_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(folder, "--weights", folder / "init.pt")
    assert found.exit_code == 0, found.output
    out = folder / "out"
    verdict, metrics = read_json(out / "verdict.json"), read_json(out / "metrics.json")
    assert verdict["sentence"] in found.output and "all weights of the dense" in found.output
    assert len(verdict["claims"]) == 6
    arms = {"dense", "given", "imp", "random", "shuffled", "reinit", "random_long"}
    assert set(metrics["accuracy"]) == arms and None not in metrics["accuracy"].values()
    assert {one["n"] for one in metrics["differences"].values()} == {2}
    assert metrics["cost"]["random_long"]["mean"] == pytest.approx(metrics["cost"]["imp"]["mean"])
    page = (out / "judge.html").read_text()
    assert re.search(r'<p id="answer"[^>]*><strong>', page) and verdict["answer"]
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    imp = load_result(out / "units", "imp/seed-0")
    assert imp is not None and imp.tickets["ticket"].mask.alive == ticket().mask.alive
    names = {"judge.html", "machine.json", "params.json", "provenance.json", "seeds.csv"}
    assert names <= {path.name for path in out.iterdir()}

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("a unit was trained again")

    monkeypatch.setattr("ticketlab.study.runner._perform", fails)
    again = judged(folder, "--weights", folder / "init.pt")
    assert again.exit_code == 0 and (out / "judge.html").read_text() == page


def test_an_interrupted_judgement_continues_and_another_mask_keeps_what_it_can(
    folder: Path,
) -> None:
    assert judged(folder, "--seeds", "1").exit_code == 0
    before = times(folder)
    given = ticket()
    other = Mask({n: keep.flip(-1) for n, keep in given.mask.items()})
    torch.save(outside.as_form(other, None, "masks"), folder / "mask.pt")
    (folder / "out/units/random/seed-0.json").unlink()  # as if it had been stopped there
    assert judged(folder, "--seeds", "1").exit_code == 0
    changed = {arm for arm, written in times(folder).items() if written != before[arm]}
    assert changed == {"given", "shuffled", "random"}  # dense, IMP and the long training stay


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "a MASK and --out FOLDER are needed"),
        (("none.pt", "--out", "{}/o"), "none.pt: no such file"),
        (("{}/mask.pt", "--out", "{}/o", "--params", "{}/no.yaml"), "no.yaml: no such file"),
        (("{}/mask.pt", "--out", "{}/o", "--model", "resnet9"), "model.name: 'resnet9'"),
        (("{}/mask.pt", "--out", "{}/o", "--data", "no_set"), "data.name: 'no_set' is not known"),
        (("{}/mask.pt", "--out", "{}/o", "--seeds", "0"), "seeds: 0 is not valid"),
        (("{}/init.pt", "--out", "{}/o", "--params", "{}/judge.yaml"), "so it has no mask"),
        (("{}/mask.pt", "--out", "{}/o", "--model", "lenet_300_100"), "is not in the network"),
        (("{}/mask.pt", "--params", "{}/judge.yaml", "--out", f"{ROOT}/results/x"), "in results/"),
        (("{}/mask.pt", "--params", "{}/judge.yaml", "--out", "{}/mask.pt"), "is no folder"),
    ],
)
def test_bad_input_is_one_line(folder: Path, words: tuple[str, ...], why: str) -> None:
    found = call(*(word.replace("{}", str(folder)) for word in words))
    assert found.exit_code == 2 and found.stderr.count("\n") == 1, found.output
    assert why in found.stderr and not (folder / "o").exists()


def test_late_rewinding_and_given_weights_exclude_each_other(
    tiny_root: Path, one_line: Message
) -> None:
    late = params(rewind="5it")
    assert "allowed is '0it'" in one_line(lambda: study.check_given(late, ticket("all")))
    study.check_given(late, ticket("kept"))
    bare = params(data=tiny.DIGITS.model_dump() | {"validation": 0})
    assert "data.validation: 0" in one_line(lambda: study.check_given(bare, ticket("none")))


def test_the_example_is_valid_and_replaces_no_file(tmp_path: Path) -> None:
    assert call("--example", tmp_path / "judge.yaml").exit_code == 0
    again = call("--example", tmp_path / "judge.yaml")
    assert again.exit_code == 2 and "exists already" in again.stderr
    assert run.parameters(tmp_path / "judge.yaml") == run.parameters()
    assert run.parameters().seeds == tuple(range(10))
    assert set(JudgeParams.model_fields) == set(run.parameters().model_fields_set)


@pytest.mark.slow
def test_all_units_run_on_a_device(tiny_root: Path, tmp_path: Path) -> None:
    """On an emulated one, which refuses tensors of two places; from weights of a file."""
    chosen = params(seeds=1, runtime={"device": "cuda", "cuda_graphs": False})
    with emulated() as device:
        found = run_study(study.phases(chosen, ticket()), tmp_path)
    assert len(found) == 7 and device.reads


# --- a good mask and a bad one


@pytest.mark.slow
def test_imps_own_ticket_wins_where_a_random_mask_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real images, from weights that IMP's ticket was found on, at 4 seeds."""
    monkeypatch.setenv("TICKETLAB_WORKERS", "1")
    images = {"name": "fashion_mnist_22k", "train": 1500, "validation": 200, "pool": 2}
    recipe = {"lr": 0.1, "batch": 32, "length": "4ep", "milestones": ["50%", "75%"]}
    changes = {"data": images, "recipe": recipe, "trained": 70.0, "rate": 0.4, "seeds": 4}
    chosen = params(**changes, model={"name": "lenet_300_100"})
    model = models.build(chosen.model, (1, 14, 14), 10, 11)
    dense = ones(model, models.prunable(model, "hidden"))
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    bad = Given("bad", study.random_mask(dense, dense.total // 50, 99), weights, "", {})
    lost = run.judge(chosen, bad, tmp_path / "bad")
    assert lost["answer"] == "not a winning ticket"
    start = study.shared_start(chosen, bad)
    found = units.search(chosen.setting("rate"), 50, dense, bad.mask.alive, start)
    good = Given("good", found.tickets["ticket"].mask, weights, "", {})
    won = run.judge(chosen, good, tmp_path / "good")
    assert won["answer"] == "a winning ticket", won
