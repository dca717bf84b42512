"""The benchmark runs from end to end at tiny sizes; nothing here asserts a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import Message

from benchmarks import __main__ as command
from benchmarks import cases, measure, peers, pinned, profile, reasons, report
from ticketlab import instruction_set
from ticketlab.data import sets
from ticketlab.spec import InputError
from ticketlab.study import runner
from ticketlab.training import evaluation, loop


@pytest.mark.slow
def test_every_case_runs_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = command.bench("cpu", cases.TINY, tmp_path)
    own = tmp_path / report.machine_name(record["machine"])
    assert {path.name for path in tmp_path.iterdir()} == {own.name, "cpu.md"}
    made = {path.name for path in own.iterdir()}
    assert made == {"cpu.json", "cpu.csv", "cpu.md", "cpu-goals.png", "cpu-scaling.png"}
    assert json.loads((own / "cpu.json").read_text())["machine"]["threads"] == 1
    page = (own / "cpu.md").read_text()
    for case in record["cases"]:
        rows = [row for row in record["rows"] if row["case"] == case["name"]]
        assert f"### {case['title']}" in page and case["title"] in capsys.readouterr().out + page
        assert any(row["ours"] for row in rows) and rows[0]["ratio"] == 1
        assert all(row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in rows)
        facts = case["facts"]
        assert facts.get("mask bits that differ", 0) == 0 and facts.get("masks equal", True)
        assert facts.get("largest difference of scores", 0) < 1e-6  # of up to 0.04
    assert len(record["goals"]) >= 15 and all(row["rate"] > 0 for row in record["scaling"])
    pinned_ones = [
        (row["case"], row["variant"]) for row in record["rows"] if "pinned" in row.values()
    ]
    if "avx2" in (instruction_set.current(), instruction_set.current(instruction_set.pinned())):
        ours = [(row["case"], row["variant"]) for row in record["rows"] if row["ours"]]
        assert set(pinned_ones) == set(ours)
    for goal in record["goals"]:
        shares = goal.get("reason", {}).get("shares", {})  # where torch takes most of the time
        assert goal["met"] or ("reason" in goal and 0 <= sum(shares.values()) <= 1)
    assert len({row["axis"] for row in record["scaling"]}) == 5


def test_cases_go_by_their_names() -> None:
    made = {name: make() for name, (make, _) in cases.cases(cases.TINY).items()}
    assert [case.name for case in made.values()] == list(made)


def test_peers_mask_alike_and_load_every_image() -> None:
    data = cases.synthetic(30, (1, 14, 14))
    model = cases.net("conv2", data.shape, wide=False)
    mask = cases.random_mask(model, 0.3)
    for style in peers.STYLES.values():
        torch.manual_seed(0)
        assert style(model, peers.pil_loader(data.train, 10), mask) == 30
    with torch.no_grad():
        kept = [model.get_parameter(n)[~keep].abs().max() for n, keep in mask.items()]
    assert max(kept) == 0
    assert peers.drain(peers.masked_copies(data.train, 7, 2)) == 30
    assert peers.drain(peers.pil_loader(data.train, 7, 2)) == 30


def test_an_ensemble_by_vmap_steps_as_each_net_alone() -> None:
    nets = [cases.net("lenet_300_100", (1, 4, 4), seed) for seed in range(2)]
    masks = [cases.random_mask(net, 0.5, seed) for seed, net in enumerate(nets)]
    x, y = torch.randn(2, 6, 1, 4, 4), torch.randint(0, 10, (2, 6))
    group = peers.Ensemble(nets, masks)
    assert group.step(x, y) == 12
    for place, net in enumerate(nets):
        torch.optim.SGD(net.parameters(), 0.01).zero_grad()
        torch.nn.functional.cross_entropy(net(x[place]), y[place]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            stepped = (parameter - 0.01 * parameter.grad).detach()
            if name in masks[place]:
                stepped = stepped * masks[place][name]
            assert torch.allclose(group.parameters[name][place], stepped, atol=1e-6)


def a_case(limit: str = "") -> measure.Case:
    """Two peers, and ours, which does the most in the same time."""
    amounts = {"slow": 1.0, "fast": 4.0, "ours": 8.0}
    variants = [
        measure.Variant(name, lambda n=name: amounts[n] * _spin(), name == "ours")  # type: ignore[misc]
        for name in amounts
    ]
    goals = [measure.Goal("ours", ("slow", "fast"), 1e9, limit=limit)]
    return measure.Case("c", "A case", "images/s", "slow", variants, goals)


def test_ratios_are_of_rounds_and_goals_of_the_best_peer() -> None:
    case = a_case()
    rows = measure.interleaved(case, 2, torch.device("cpu"))
    assert [row["variant"] for row in rows] == ["slow", "fast", "ours"] and rows[0]["rounds"] == 2
    (verdict,) = measure.judged(case, rows)
    assert verdict["over"] in ("slow", "fast") and not verdict["met"]
    assert verdict["instructions"] == "native" and "limit" not in verdict
    assert "| x | |" in report._rates(rows) and "Every goal is met" in report._missed([])


def test_ours_runs_pinned_too_and_peers_stay_native() -> None:
    asked = []

    def other(*question: str) -> tuple[float, float]:
        asked.append(question)
        return 12.0, 1e-9

    case = a_case(limit="fast")
    rows = measure.interleaved(case, 3, torch.device("cpu"), other)
    assert asked == 4 * [("time", "c", "ours")]
    assert [row["instructions"] for row in rows] == ["native"] * 3 + ["pinned"]
    assert rows[-1]["rate"] == pytest.approx(12e9) and rows[-1]["ratio"] > rows[-2]["ratio"]
    native, pinned = measure.judged(case, rows)
    assert (native["met"], pinned["met"]) == (False, pinned["ratio"] >= 1e9)
    assert pinned["limit"] == {"variant": "fast", "ratio": 1.0}


def test_a_reason_is_what_was_measured() -> None:
    a = torch.randn(500, 500)

    def run() -> float:
        (a @ a).abs()
        return 1.0

    run()
    found = reasons.reason(run, torch.float32)
    assert next(iter(found["shares"])) == "mm" and 0.5 < sum(found["shares"].values()) <= 1
    assert reasons.dense_flops(run) == 2 * 500**3
    assert found["gflops"] > 0 and found["square"] > 0 and found["products"] == "float32"
    sparse = a.relu().to_sparse()
    assert "gflops" not in reasons.reason(lambda: float((sparse @ a).sum()), torch.float32)
    assert list(reasons.reason(run, None)) == ["shares"]


def a_record(processor: str, ratio: float, met: bool, **more: object) -> report.Record:
    machine = {"device": "cpu", "processor": processor, "vector": "AVX512", "bf16": True}
    goal = {"case": "c", "variant": "ours", "over": "fast", "instructions": "native", "goal": 2.0}
    row = {"case": "c", "variant": "ours", "instructions": "native", "ours": True, "unit": "1/s"}
    row |= {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "rate": 1.0}
    case = {"name": "c", "title": "A case", "facts": {}, "load": 1.5}
    return {
        "name": "cpu", "note": "A note.", "machine": machine, "rows": [row], "cases": [case],
        "goals": [goal | {"ratio": ratio, "met": met} | more], "scaling": [],
    }  # fmt: skip


def test_machines_stand_side_by_side(tmp_path: Path) -> None:
    report.write(a_record("Some (R) CPU", 3.0, True), tmp_path)
    measured = {"shares": {"mm": 0.5}, "gflops": 20.0, "square": 80.0, "products": "float32"}
    limit = {"variant": "a read", "ratio": 1.75}
    missed = a_record("Other CPU", 1.5, False, reason=measured, limit=limit)
    report.write(missed, tmp_path)
    whole = (tmp_path / "cpu.md").read_text()
    assert "| other-cpu-avx512-bf16, native | some-r-cpu-avx512-bf16, native |" in whole
    assert "| c | ours | fast | 2 | **1.50** | 3.00 |" in whole
    assert (
        "[other-cpu-avx512-bf16](other-cpu-avx512-bf16/cpu.md): goals met 0 of 1 native; load"
        in whole
    )
    page = (tmp_path / "other-cpu-avx512-bf16" / "cpu.md").read_text()
    assert (
        "short by 25%. Its products run at 20 GFLOP/s, a square float32 product at 80. a read "
        "alone is 1.75x. Time in torch's operations: mm 50%." in page
    )
    assert "Load average during the cases 1.5 to 1.5" in page
    assert report._missed(a_record("", 1.5, False)["goals"]).endswith("short by 25%.")


def test_a_case_is_measured_anew_in_its_machines_record(tmp_path: Path) -> None:
    first = a_record("Some CPU", 3.0, True)
    first["cases"].append({"name": "d", "title": "Another", "facts": {}, "load": 2.0})
    first["rows"].append(first["rows"][0] | {"case": "d"})
    report.write(first, tmp_path)
    left = report.without(report.stored(first, tmp_path), "c")
    assert [case["name"] for case in left["cases"]] == ["d"]
    assert [row["case"] for row in left["rows"]] == ["d"] and left["goals"] == []
    again = {**first, **left, "cases": [*left["cases"], first["cases"][0]]}
    assert [case["name"] for case in report.ordered(again, ["c", "d"])["cases"]] == ["c", "d"]


@pytest.mark.parametrize("only", [["threshold"], ["nope"]])
def test_what_cannot_be_measured_anew_is_one_line(
    only: list[str], tmp_path: Path, one_line: Message
) -> None:
    message = one_line(lambda: command.bench("cpu", cases.TINY, tmp_path, only))
    assert message.startswith("case: 'nope'" if only == ["nope"] else f"{tmp_path}")


@pytest.mark.slow
def test_the_pinned_process_times_what_it_is_asked() -> None:
    with pinned.process(cases.TINY) as ask:
        if ask is None:
            pytest.skip("this processor has nothing to pin")
        amount, seconds = ask("time", "threshold", "selection.kth_largest")
        assert amount == cases.TINY.scores and seconds > 0
        found = ask("reason", "ensembling-mlp-2", "stacked")
        assert found["products"] == "float32" and found["gflops"] > 0 < found["square"]


def _spin() -> float:
    return float(sum(range(20_000)) > 0)


def test_bad_commands_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKETLAB_DEVICE", raising=False)
    commands = [[], ["tpu"]] if torch.cuda.is_available() else [[], ["tpu"], ["gpu"]]
    for arguments in commands:
        assert command.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


# --- where the time of a study goes


def test_time_is_charged_to_what_spends_it_itself() -> None:
    now = [0.0]
    shares = profile.Shares(lambda: now[0])

    def inner() -> None:
        now[0] += 2

    def outer() -> None:
        now[0] += 1
        shares.wrapped("inner", inner)()
        now[0] += 4

    shares.wrapped("outer", outer)()
    with shares.spent_on("outer"):
        now[0] += 8
    assert dict(shares.seconds) == {profile.REST: 0, "outer": 13, "inner": 2}


def test_a_profile_covers_a_study_and_leaves_no_trace(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "load_study", lambda study: {"colt": tiny.colt(seeds=[0])})
    before = loop.train, evaluation.predict, sets.Batches.__call__, runner._perform
    target = profile.write("mini", ["colt"], tmp_path)
    assert before == (loop.train, evaluation.predict, sets.Batches.__call__, runner._perform)
    (found,) = json.loads((tmp_path / "profile-mini.json").read_text())["papers"]
    seconds, units = found["seconds"], found["units"]
    for kind in ("forward and backward", "optimiser", "evaluation", "gather and augmentation"):
        assert seconds[kind] > 0, kind
    assert sum(seconds.values()) >= sum(units.values()) > 0.2 * sum(seconds.values())
    page = target.read_text()
    assert "| forward and backward |" in page and "search/imp-matched/seed-0" in units


def test_a_worker_waits_for_the_longest_unit() -> None:
    assert profile.idle_share({"a": 4.0, "b": 1.0, "c": 1.0}, 2) == pytest.approx(0.25)
    assert profile.idle_share({"a": 1.0, "b": 1.0}, 2) == 0
    assert profile.idle_share({}, 2) == 0


def made(processor: str, commit: str, seconds: float) -> dict[str, Any]:
    paper = {"paper": "colt", "seeds": 2, "seconds": {"optimiser": 2 * seconds}, "load": 1.0}
    return {"machine": {"processor": processor}, "commit": commit, "papers": [paper]}


def test_a_profile_beside_that_of_another_commit() -> None:
    text = profile.change(made("A", "abc1234", 30.0), made("A", "def5678", 12.0))
    assert "| | before (abc1234) | after (def5678) | times faster |" in text
    assert "| colt | 30 | 12 | 2.50 |" in text
    with pytest.raises(InputError, match="made on 'B', allowed is 'A'"):
        profile.change(made("B", "abc1234", 30.0), made("A", "def5678", 12.0))


def test_profiles_are_of_papers_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["profile", "desk", "nope"]) == 1
    assert capsys.readouterr().err.startswith("error: paper: 'nope' is unknown, allowed: ")
