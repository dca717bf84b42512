"""confirmations.yaml: only fresh runs are recorded, and the file is always whole."""

import getpass
import socket
from pathlib import Path

import pytest
from conftest import CPU, Message

from ticketlab.files import read_json, write_json, yaml_text
from ticketlab.pipeline import confirmations, machine, timings
from ticketlab.pipeline.confirmations import (
    Confirmation,
    Place,
    Stage,
    append,
    check_fresh,
    entry,
    machines,
    read,
    sentence,
)
from ticketlab.pipeline.params import Run
from ticketlab.pipeline.verify import Finding
from ticketlab.spec import ROOT
from ticketlab.study.results import ELSEWHERE

RUN = Run(study="desk", paper="colt", file="params.yaml", key="desk.colt")
UNITS = ("search/imp/seed-0", "score/colt/seed-0")
FINDINGS = [Finding(f"{kind}@desk-colt", "identical", True) for kind in ("data", "train", "read")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in which COLT was trained here, every unit afresh."""
    study = tmp_path / "results" / "desk"
    for unit in UNITS:
        write_json(study / "runs" / "colt" / f"{unit}.json", {})
    timed = {"workers": 2, "reused": 0, "page": 30.0, "seconds": dict.fromkeys(UNITS, 45.0)}
    write_json(study / "runs" / "colt.timings.json", timed)
    machine.note(study, "colt", CPU)
    return tmp_path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "LOCKS", tmp_path / "locks")
    return tmp_path / "confirmations.yaml"


def recorded(processor: str = "EPYC", **changes: object) -> Confirmation:
    facts = {
        "study": "desk", "revision": "abc", "date": "2026-01-02", "processor": processor,
        "cores": 2, "device": "cpu", "instruction_set": "avx2", "versions": {"torch": "2.15.0"},
        "outcome": "byte for byte",
        "stages": {"train@desk-colt": Stage(outcome="identical", minutes=3.0)},
    }  # fmt: skip
    return Confirmation.model_validate(facts | changes)


# --- what is recorded


def test_an_entry_has_machine_versions_minutes_and_outcomes(root: Path) -> None:
    check_fresh(root, [RUN])
    found = entry(root, "desk", [RUN], FINDINGS, True, "abc")
    here = machine.describe(CPU)
    assert (found.processor, found.cores) == (here["processor"], here["cores"])
    assert found.instruction_set == here["instruction_set"] and found.device == "cpu"
    assert {"python", "torch", "torchvision", "numpy", "ticketlab"} == set(found.versions)
    minutes = {name: stage.minutes for name, stage in found.stages.items()}
    assert minutes == {"data@desk-colt": 0.0, "train@desk-colt": 1.5, "read@desk-colt": 0.5}
    assert found.outcome == "byte for byte" and found.revision == "abc"
    text = yaml_text(found.model_dump(mode="json"))
    assert socket.gethostname() not in text and getpass.getuser() not in text.split()


@pytest.mark.parametrize(
    ("words", "exact", "outcome"),
    [
        (("identical", "within"), False, "within intervals"),
        (("identical", "within"), True, "not reproduced"),
        (("identical", "different"), False, "not reproduced"),
    ],
)
def test_an_outcome_follows_the_rule(
    root: Path, words: tuple[str, str], exact: bool, outcome: str
) -> None:
    names = ("train@desk-colt", "read@desk-colt")
    findings = [
        Finding(name, word, True)  # type: ignore[arg-type]
        for name, word in zip(names, words, strict=True)
    ]
    found = entry(root, "desk", [RUN], findings, exact, "abc")
    assert found.outcome == outcome and found.stages[names[1]].outcome == words[1]


def test_reused_units_are_refused(root: Path, one_line: Message) -> None:
    timed = root / "results" / "desk" / "runs" / "colt.timings.json"
    fresh = read_json(timed)
    write_json(timed, fresh | {"reused": 1})
    message = one_line(lambda: check_fresh(root, [RUN]))
    assert message.startswith("record: desk-colt: 1 of its units were reused; `ticketlab repro --f")
    write_json(timed, fresh | {"seconds": {UNITS[0]: 45.0}})
    assert "1 of its units were not trained here, such as score" in one_line(
        lambda: check_fresh(root, [RUN])
    )
    timed.unlink()
    assert "not recorded that its units were trained here" in one_line(
        lambda: check_fresh(root, [RUN])
    )


def test_records_that_replaced_the_trained_ones_are_refused(root: Path, one_line: Message) -> None:
    runs = root / "results" / "desk" / "runs"
    timings.note_records(runs / "colt.timings.json", runs / "colt")
    check_fresh(root, [RUN])
    write_json(runs / "colt" / f"{UNITS[0]}.json", {"record": "of another run"})
    assert "not those that were trained here" in one_line(lambda: check_fresh(root, [RUN]))


def test_what_was_made_elsewhere_is_refused(root: Path, one_line: Message) -> None:
    study = root / "results" / "desk"
    machines_file = read_json(study / machine.FILE)
    other = machines_file["colt"] | {"processor": "another"}
    write_json(study / machine.FILE, {"colt": other})
    assert "its processor is 'another'" in one_line(lambda: check_fresh(root, [RUN]))
    write_json(study / "runs" / "colt" / ELSEWHERE, {"kind": "cuda"})
    assert "made on another machine" in one_line(lambda: check_fresh(root, [RUN]))


def test_a_stage_that_is_out_of_date_is_refused(root: Path, one_line: Message) -> None:
    stale = [*FINDINGS[:2], Finding("read@desk-colt", "identical", False)]
    assert "read@desk-colt is out of date" in one_line(
        lambda: entry(root, "desk", [RUN], stale, True, "abc")
    )


# --- the file


def test_entries_are_appended_in_canonical_form(path: Path) -> None:
    assert read(path) == ()
    for processor in ("EPYC", "Xeon"):
        append(recorded(processor), path)
    found = read(path)
    assert [one.processor for one in found] == ["EPYC", "Xeon"]
    assert path.read_text() == yaml_text([one.model_dump(mode="json") for one in found])


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_append_leaves_the_file_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    append(recorded(), path)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise end

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, ValueError)):
        patch.setattr(Path, "replace", fail)
        append(recorded("Xeon"), path)
    assert path.read_bytes() == before
    append(recorded("Xeon"), path)
    assert len(read(path)) == 2


def test_an_entry_of_another_form_is_one_line(path: Path, one_line: Message) -> None:
    good = recorded().model_dump(mode="json")
    for content, said in [
        ([good | {"host": "mine"}], "host"),
        ([good | {"outcome": "perfect"}], "outcome"),
        ([good, {k: v for k, v in good.items() if k != "cores"}], "cores"),
        ({"a": 1}, "allowed is a list"),
    ]:
        path.write_text(yaml_text(content))
        message = one_line(lambda: read(path))
        assert path.name in message and said in message
    path.write_text("# mine\n" + yaml_text([good]))
    assert "--record" in one_line(lambda: read(path))
    with pytest.raises(ValueError, match="--record"):
        append(recorded(), path)


def test_the_committed_file_is_valid() -> None:
    assert all(one.study for one in read(ROOT / confirmations.FILE.name))


# --- for pages


def test_machines_are_counted_once_each() -> None:
    gpu = {"device": "a GPU", "instruction_set": "native", "outcome": "within intervals"}
    found = [recorded(), recorded(outcome="not reproduced"), recorded("Xeon"),
             recorded("Xeon", **gpu), recorded("Core", study="cifar10")]  # fmt: skip
    assert machines(found, "desk") == {
        Place("EPYC", "avx2"): "not reproduced",
        Place("Xeon", "avx2"): "byte for byte",
        Place("a GPU", "native"): "within intervals",
    }
    assert sentence(found, "cifar10") == "Re-run on 1 machine: Core, avx2 (byte for byte)."
    assert sentence(found, "desk").startswith("Re-run on 3 machines: EPYC, avx2 (not reproduced); ")
    assert sentence(found, "paper") == ""
