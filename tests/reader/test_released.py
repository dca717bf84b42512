"""Released code and what did not reproduce: complete, with what was run and at which revision."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Message

from ticketlab.pipeline.params import PAPERS
from ticketlab.reader import released
from ticketlab.reader.released import Finding, Released, code_rows, load_released, not_reproduced
from ticketlab.spec import ROOT
from ticketlab.study.claims import Redirect, Verdict, load_claims, load_redirects
from ticketlab.study.rules import Word
from ticketlab.study.stats import interval

CLAIMS = [claim for claim in load_claims("colt")][:3]
ORIGIN = {"code": "c" * 64, "data": "d" * 64, "device": "cpu", "instruction_set": "avx2",
          "torch": "2.15.0"}  # fmt: skip
FINDING = Finding(says="It\n  stops.", how="ran", ran="twice", claims=(CLAIMS[0].id, "colt-gone"))
CODE = Released(
    paper="colt", code="A/B", revision="abc1234", use="All was read.", checked="Checked: all.",
    notes={CLAIMS[0].id: "a note"}, findings=(FINDING,),
)  # fmt: skip


def verdicts(*words: Word) -> list[Verdict]:
    found = interval([1.0, 2.0, 3.0])
    return [Verdict(claim, word, found, q=0.01) for claim, word in zip(CLAIMS, words, strict=True)]


def results(root: Path) -> Path:
    for paper in ("colt", "compare"):
        (root / "desk" / paper).mkdir(parents=True)
        content = json.dumps({"provenance": ORIGIN})
        (root / "desk" / paper / "metrics.json").write_text(content)
    return root


def test_every_claim_that_is_not_reproduced_stands_below_what_was_run(tmp_path: Path) -> None:
    some = verdicts("not reproduced", "reproduced", "not reproduced")
    found = {"desk": {"colt": some, "compare": some[1:2]}}
    text = not_reproduced(found, [CODE], results(tmp_path))
    head, _, table = text.partition("\n\n")
    assert head.startswith("**colt**, study `desk`: run by our code (fingerprint `cccccccccccc`)")
    assert "data `dddddddddddd`, cpu, avx2, torch 2.15.0." in head
    assert head.endswith("The authors' code (A/B at `abc1234`): All was read. Checked: all.")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [row[0] for row in rows[2:]] == [CLAIMS[0].id, CLAIMS[2].id] and "compare" not in text
    assert rows[2][1] == CLAIMS[0].statement and rows[2][-2:] == [".010", "a note"]
    assert rows[3][-1] == ""


def test_a_note_may_be_about_one_study(tmp_path: Path) -> None:
    one = {"desk": {"colt": verdicts("not reproduced", "undecided", "undecided")}}
    for study, shown in (("desk", 1), ("desk_long", 0)):
        code = CODE.model_copy(update={"notes": {CLAIMS[0].id: {study: "its note"}}})
        folder = results(tmp_path / study)
        assert not_reproduced(one, [code], folder).count("its note") == shown


def test_code_without_a_name_or_an_entry_and_nothing_to_tell(tmp_path: Path) -> None:
    folder = results(tmp_path)
    one = {"desk": {"colt": verdicts("not reproduced", "undecided", "undecided")}}
    unnamed = CODE.model_copy(update={"code": None})
    assert "(`abc1234`): All" in not_reproduced(one, [unnamed], folder)
    assert "authors" not in not_reproduced(one, [], folder).partition("\n\n")[0]
    none = {"desk": {"colt": verdicts("reproduced", "undecided", "no difference")}}
    assert not_reproduced(none, [CODE], folder).startswith("Nothing")


def test_a_claim_that_was_merged_is_shown_under_its_new_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = [Redirect(old=CLAIMS[0].id, new="colt-new", reason="r", verdict="undecided"),
             Redirect(old="colt-gone", new=None, reason="r", verdict="not run")]  # fmt: skip
    monkeypatch.setattr(released, "load_redirects", lambda: moved)
    assert code_rows({}, [CODE])[1][-1] == "colt-new: not run"


def test_a_finding_has_its_revision_and_our_verdicts_of_each_study() -> None:
    some = verdicts("reproduced", "undecided", "not run")
    other = [replace(one, word="undecided") for one in some]
    heading, row = code_rows({"desk": {"colt": some}, "gpu": {"colt": other}}, [CODE])
    found: dict[str, Any] = dict(zip(heading, row, strict=True))
    assert found["code"] == "A/B at `abc1234`" and found["what was found"] == "It stops."
    ours = f"{CLAIMS[0].id}: *reproduced* (desk), *undecided* (gpu); colt-gone: not run"
    assert found["our claims on it"] == ours


def test_a_bad_entry_is_one_line(tmp_path: Path, one_line: Message) -> None:
    values = CODE.model_dump(mode="json")
    path = tmp_path / "released.yaml"
    path.write_text(json.dumps([values]))
    assert load_released(path) == [CODE]
    path.write_text(json.dumps([{k: v for k, v in values.items() if k != "revision"}]))
    assert "released.yaml: 0.revision" in one_line(lambda: load_released(path))
    values["findings"][0]["how"] = "heard"
    path.write_text(json.dumps([values]))
    assert "released.yaml: 0.findings.0.how" in one_line(lambda: load_released(path))


def test_the_entries_are_of_our_papers_and_claims_and_each_paper_has_one() -> None:
    every = load_released()
    assert sorted(one.paper for one in every) == sorted({"prac", "colt", "dlth", "plant_n_seek"})
    assert {one.paper for one in every} <= set(PAPERS)
    known = {claim.id for claim in load_claims()} | {one.old for one in load_redirects()}
    named = {claim for one in every for finding in one.findings for claim in finding.claims}
    assert named | {claim for one in every for claim in one.notes} <= known
    notes = [note for one in every for note in one.notes.values() if not isinstance(note, str)]
    studies = {path.stem for path in (ROOT / "studies").glob("*.yaml")} | {"desk"}
    assert notes and {study for note in notes for study in note} <= studies
    for one in every:
        assert one.checked.startswith("Checked first: ") and "(tests/" in one.checked
        assert one.findings and all(finding.ran for finding in one.findings)
