"""Units of equal keys are trained once: taken from results, from DVC's cache, from a twin."""

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import use_data
from small_units import cache_of

from ticketlab.papers.colt import study as colt_study
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pruning import patterns
from ticketlab.pruning.masks import Mask
from ticketlab.spec import Spec
from ticketlab.study import runner
from ticketlab.study.results import Result, load_result
from ticketlab.study.runner import Unit, run, run_study, survey
from ticketlab.study.store import Store
from ticketlab.tickets.ticket import Ticket

COUNTED: list[int] = []


def counted(seed: int) -> Result:
    """Trains a net under a mask, and leaves its seed in COUNTED."""
    COUNTED.append(seed)
    keep = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed)) > 0.5
    patterns.confirm({"w": keep * 1.0}, Mask({"w": keep}), {"w": torch.ones(4, 5)})
    return Result({"seed": seed}, {"found": Ticket(Mask({"w": keep}))})


def unit(seed: int, name: str = "") -> Unit:
    return Unit(name or f"unit-{seed}", counted, {"seed": seed}, passes=1.0)


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    COUNTED.clear()


@pytest.mark.parametrize("where", ["results", "cache"])
def test_a_stored_unit_is_taken_with_the_origin_it_has_now(where: str, tmp_path: Path) -> None:
    run([unit(0)], tmp_path / "earlier")
    if where == "cache":
        cache_of(tmp_path / "earlier", tmp_path / "cache")
        store = Store(cache=tmp_path / "cache")
    else:
        store = Store((tmp_path / "earlier",))
    found = run([unit(0, "other/name"), unit(1)], tmp_path / "now", store=store)
    assert COUNTED == [0, 1] and found["other/name"].record == {"seed": 0}
    fresh = run([unit(0, "other/name"), unit(1)], tmp_path / "fresh")
    assert COUNTED == [0, 1, 0, 1]
    for name in ("other/name.json", "other/name/found.safetensors"):
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert fresh["other/name"].tickets["found"].metadata["unit"] == "other/name"


def test_a_stored_unit_that_lacks_a_ticket_or_has_another_key_is_trained(tmp_path: Path) -> None:
    run([unit(0), unit(1)], tmp_path / "earlier")
    (tmp_path / "earlier" / "unit-0" / "found.safetensors").unlink()
    path = tmp_path / "earlier" / "unit-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": "another"}))
    run([unit(0), unit(1)], tmp_path / "now", store=Store((tmp_path / "earlier",)))
    assert COUNTED == [0, 1, 0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_units_of_equal_keys_are_trained_once(workers: int, tmp_path: Path) -> None:
    twins = [unit(5, "arm/a"), unit(5, "arm/b"), unit(6)]
    found = run(twins, tmp_path, workers)
    assert list(found) == ["arm/a", "arm/b", "unit-6"]
    assert found["arm/a"].tickets["found"].mask == found["arm/b"].tickets["found"].mask
    assert ([5, 6] if workers == 1 else []) == COUNTED  # else in other processes
    names = [found[name].tickets["found"].metadata["unit"] for name in ("arm/a", "arm/b")]
    assert names == ["arm/a", "arm/b"]


def test_a_survey_says_what_is_stored_and_what_is_missing(tmp_path: Path) -> None:
    def phases() -> Generator[list[Unit], dict[str, Result], dict[str, Result]]:
        found = yield [unit(0), unit(1)]
        return found | (yield [unit(2), unit(3), unit(3, "twin")])

    store = Store((tmp_path,))
    nothing = survey(phases(), store)
    assert [one.name for one in nothing.missing] == ["unit-0", "unit-1"] and not nothing.reused
    run([unit(0), unit(1), unit(2)], tmp_path)
    some = survey(phases(), Store((tmp_path,)))
    assert [one.name for one in some.reused] == ["unit-0", "unit-1", "unit-2"]
    assert [one.key for one in some.missing] == [unit(3).key]
    run_study(phases(), tmp_path)
    assert not survey(phases(), Store((tmp_path,))).missing


def test_one_more_seed_trains_one_seed(
    tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the seeds that were there keep their bytes."""
    use_data(monkeypatch, tiny_root)
    trained: list[str] = []
    real = runner._perform

    def noted(one: Unit, *rest: object) -> None:
        trained.append(one.name)
        real(one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "_perform", noted)
    one = tiny.colt(seeds=[0])
    run_study(colt_study.phases(one), tmp_path / "one")
    alone = list(trained)
    trained.clear()
    two = tiny.colt(seeds=[0, 1])
    found = run_study(colt_study.phases(two), tmp_path / "two", store=Store((tmp_path / "one",)))
    assert {name for name in trained if "seed-0" in name} == set() and set(alone) <= set(found)
    assert len(trained) == len(found) - len(alone)
    for name in alone:
        first, second = (load_result(tmp_path / which, name) for which in ("one", "two"))
        assert first is not None and second is not None and first.record == second.record


PAPER_OF: dict[Callable[..., Spec], str] = {
    tiny.colt: "colt",
    tiny.prac: "prac",
    tiny.dlth: "dlth",
    tiny.plant_n_seek: "plant_n_seek",
    tiny.compare: "compare",
}
GROWN: dict[str, tuple[Callable[..., Spec], dict[str, Any]]] = {
    "COLT: another seed": (tiny.colt, {"seeds": [0, 1, 2, 3]}),
    "COLT: an ablation": (tiny.colt, {"ablations": [{"split": "class", "partitions": 5}]}),
    "PrAC: another seed": (tiny.prac, {"seeds": [0, 1, 2, 3]}),
    "PrAC: another threshold": (tiny.prac, {"thresholds": [1, 2, 3]}),
    "DLTH: another seed": (tiny.dlth, {"seeds": [0, 1, 2, 3]}),
    "DLTH: more draws": (tiny.dlth, {"draws": 4}),
    "planting: another seed": (tiny.plant_n_seek, {"seeds": [0, 1, 2, 3]}),
    "comparison: another seed": (tiny.compare, {"seeds": [0, 1, 2, 3]}),
    "comparison: no swap": (tiny.compare, {"swap_masks": []}),
}


@pytest.mark.parametrize("what", GROWN)
def test_what_a_study_gains_leaves_the_keys_of_all_other_units(
    what: str, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_data(monkeypatch, tiny_root)
    make, change = GROWN[what]
    paper = PAPERS[PAPER_OF[make]]
    before, after = (
        {one.name: one.key for one in next(paper.phases(params))}
        for params in (make(), make(**change))
    )
    common = before.keys() & after.keys()
    assert common and {name: before[name] for name in common} == {n: after[n] for n in common}
    assert ("seed" in what) <= (len(after) > len(before))


def test_a_parameter_changes_the_units_that_it_decides(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_data(monkeypatch, tiny_root)

    def keys(**changes: object) -> dict[str, str]:
        return {one.name: one.key for one in next(PAPERS["colt"].phases(tiny.colt(**changes)))}

    before, after = keys(), keys(imp_rate=0.3)
    moved = {name for name in before if after[name] != before[name]}
    assert moved == {name for name in before if name.startswith("search/imp/")}
    recipe = tiny.colt().recipe.model_copy(update={"lr": 0.5}).model_dump(mode="json")
    assert not set(keys(recipe=recipe).values()) & set(before.values())
