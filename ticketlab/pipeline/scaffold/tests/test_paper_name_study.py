"""The study of paper_name: masks by hand, then a study of seconds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ticketlab import gpu
from ticketlab.files import read_yaml
from ticketlab.pipeline.scaffold.paper_name import algorithm, report, study
from ticketlab.pipeline.scaffold.paper_name.params import Params
from ticketlab.pruning.masks import Mask
from ticketlab.study.claims import Verdict, judged, load_claims
from ticketlab.study.results import Result, write_metrics
from ticketlab.study.runner import run_study

TINY = Path(__file__).with_name("tiny.yaml")


def tiny(**changes: Any) -> Params:
    """The study of seconds, with changes of fields."""
    return Params.model_validate(read_yaml(TINY) | changes)


@pytest.fixture
def results(tiny_root: Path, tmp_path: Path) -> dict[str, Result]:
    """The units of the study of seconds."""
    return run_study(study.phases(tiny()), tmp_path / "runs")


def verdicts(results: dict[str, Result], params: Params, folder: Path) -> list[Verdict]:
    """What the claims say of these results."""
    write_metrics(report.metrics(results, params), folder / "metrics.json")
    return judged("paper_name", folder / "metrics.json")


def test_one_shot_keeps_the_largest_of_all_layers_together() -> None:
    """And the random mask keeps as many, by its generator alone."""
    weights = {"a": torch.tensor([0.1, -3.0]), "b": torch.tensor([[2.0], [-0.2]])}
    dense = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})
    mask = algorithm.one_shot(weights, dense, 0.5)
    assert mask.flat().tolist() == [False, True, True, False]
    draws = [algorithm.at_random(mask, gpu.generator("cpu", seed)) for seed in range(20)]
    assert {one.alive for one in draws} == {2} and len({one.digest() for one in draws}) > 1
    assert draws[0] == algorithm.at_random(mask, gpu.generator("cpu", 0))


def test_the_arms_of_a_seed_share_start_and_sparsity(results: dict[str, Result]) -> None:
    """Only the places of the kept weights differ."""
    for seed in tiny().seeds:
        names = [f"score/{arm}/seed-{seed}" for arm in ("magnitude", "random")]
        one, other = (results[name].tickets["ticket"] for name in names)
        assert one.metadata["init_sha256"] == other.metadata["init_sha256"]
        assert one.mask.alive == other.mask.alive and one.mask != other.mask
        assert one.mask == results[f"search/seed-{seed}"].tickets["ticket"].mask
        assert one.mask.sparsity == pytest.approx(0.8, abs=0.01)


def test_the_claim_is_judged_by_an_interval_over_seeds(
    results: dict[str, Result], tmp_path: Path
) -> None:
    """Every claim has a verdict, and every number its seeds."""
    found = verdicts(results, tiny(), tmp_path)
    assert [one.claim for one in found] == load_claims("paper_name")
    assert all(one.evidence is not None and one.evidence.n == 2 for one in found)


def test_a_run_that_learned_nothing_decides_nothing(tiny_root: Path, tmp_path: Path) -> None:
    """Where the dense net is not above chance, its tickets prove nothing."""
    params = tiny(recipe=read_yaml(TINY)["recipe"] | {"lr": 1e-9})
    results = run_study(study.phases(params), tmp_path / "runs")
    found = verdicts(results, params, tmp_path)
    assert {one.word for one in found} == {"not testable here"}


def test_one_more_seed_trains_no_other_seed_again(tiny_root: Path) -> None:
    """The keys of what is stored stay."""
    two, three = (
        {unit.name: unit.key for unit in next(study.phases(tiny(seeds=seeds)))}
        for seeds in ([0, 1], [0, 1, 2])
    )
    assert two.items() < three.items()
