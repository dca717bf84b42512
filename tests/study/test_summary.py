"""summary.json: the few numbers of a paper that `dvc exp show` and `dvc metrics diff` compare."""

import json
from pathlib import Path

import pytest
import yaml

from ticketlab.files import read_json, write_json
from ticketlab.spec import ROOT
from ticketlab.study.claims import Claim, Verdict, load_claims
from ticketlab.study.stats import interval, share
from ticketlab.study.verdicts import SUMMARY, chosen, summary, summary_name, write_summary

PAPERS = sorted(path.stem for path in (ROOT / "claims").glob("*.yaml"))


def claim(metric: str, unit: str = "points", tier: str = "headline") -> Claim:
    """A claim on a metric."""
    return Claim(
        id=f"x-{metric}", paper="x", tier=tier, statement="It holds.", source="here", unit=unit,
        metric=metric, at_least=0.0, reference="dense", studies=("desk",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "unit", "name"),
    [
        ("differences.prac_minus_imp.mean", "points", "prac_minus_imp_points"),
        ("saving.prac", "cost", "saving_prac_percent"),
        ("rounds.imp_minus_colt", "rounds", "rounds_imp_minus_colt"),
        ("strong.none_found", "seeds", "strong_none_found_percent_of_seeds"),
        ("sets.left_out", "other", "sets_left_out"),
    ],
)
def test_a_number_is_named_by_its_metric_and_unit(metric: str, unit: str, name: str) -> None:
    assert summary_name(claim(metric, unit)) == name


def test_a_summary_counts_verdicts_and_has_the_numbers_of_the_abstract() -> None:
    found = [
        Verdict(claim("gain"), "reproduced", interval([1.0, 2.0, 3.00004])),
        Verdict(claim("seen", "seeds"), "no difference", share([True, True, False, True])),
        Verdict(claim("lost"), "not run", None),
        Verdict(claim("beside", tier="control"), "undecided", interval([1.0, -1.0])),
    ]
    assert summary(found) == {
        "claims_decided": 2, "claims_reproduced": 1,
        "gain_points": 2.0, "seen_percent_of_seeds": 75.0, "lost_points": None,
    }  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_has_a_handful_of_numbers_each_with_a_name_of_its_own(paper: str) -> None:
    claims = load_claims(paper)
    for study in {study for one in claims for study in one.studies}:
        found = chosen([Verdict(one, "not run", None) for one in claims if study in one.studies])
        names = [summary_name(one.claim) for one in found]
        assert len(names) <= 8 and len(set(names)) == len(names), study
        assert names or study not in ("desk", "cifar10_small"), study


def test_the_file_is_written_from_the_metrics_beside_it(tmp_path: Path) -> None:
    metrics = read_json(ROOT / "results" / "desk" / "prac" / "metrics.json")
    write_json(tmp_path / "metrics.json", metrics)
    write_summary("prac", tmp_path)
    written = json.loads((tmp_path / SUMMARY).read_text())
    assert list(written) == ["prac"]
    assert written["prac"]["saving_prac_percent"] == pytest.approx(
        metrics["saving"]["prac"]["mean"], rel=1e-3
    )


def test_dvc_compares_summaries_and_nothing_longer() -> None:
    """A metrics.json has hundreds of numbers, too many for `dvc exp show`."""
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["read"]["do"]
    (declared,) = (Path(path).name for entry in stage["metrics"] for path in entry)
    kept = [Path(path).name for entry in stage["outs"] for path in entry]
    assert declared == SUMMARY and "metrics.json" in kept
