"""Published numbers beside ours: the table is current, distances are right, mistakes one line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Message

from ticketlab.files import write_json
from ticketlab.pipeline import params
from ticketlab.reader import published
from ticketlab.reader.published import (
    PAGE,
    Derived,
    InPaper,
    Published,
    known_rows,
    load_published,
    metrics_of,
    our_rows,
    ours,
    parts,
    with_parts,
)
from ticketlab.study import verdicts
from ticketlab.study.stats import as_metric


def entry(**changes: Any) -> Published:
    values = {"id": "x", "paper": "colt", "quantity": "q", "low": 2.0, "high": 4.0,
              "kind": "derived", "source": "s", "metric": "a/b", "reason": "r"}  # fmt: skip
    return Published.model_validate(values | changes)


def test_the_distance_is_zero_inside_and_signed_outside() -> None:
    assert [entry().gap(value) for value in (1.5, 2.0, 3.0, 4.0, 4.5)] == [-0.5, 0, 0, 0, 0.5]
    assert entry().known == "2 to 4" and entry(low=3.0, high=3.0).known == "3"


def test_ours_is_the_interval_or_nothing_and_an_unknown_path_one_line(one_line: Message) -> None:
    made = {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 3}
    metrics = {"colt": {"a": {"b": made}, "c": None}}
    found = ours(entry(), metrics)
    assert found is not None and (found.mean, found.n) == (1.0, 3)
    assert ours(entry(metric="c/d"), metrics) is None  # not measured in this study
    assert ours(entry(paper="prac"), metrics) is None  # not a paper of this study
    message = one_line(lambda: ours(entry(metric="a/d"), metrics))
    assert message.startswith("published x: metric 'a/d' is not in ")


def test_a_bad_entry_is_one_line(tmp_path: Path, one_line: Message) -> None:
    path = tmp_path / "published.yaml"
    values = entry().model_dump()
    path.write_text(json.dumps([values, values | {"low": 5.0}]))
    assert "low: 5 is above high, 4" in one_line(lambda: load_published(path))
    path.write_text(json.dumps([values | {"speed": 3}]))
    assert "published.yaml: 0.speed" in one_line(lambda: load_published(path))
    path.write_text(json.dumps([values | {"kind": "guessed"}]))
    assert "published.yaml: 0.kind" in one_line(lambda: load_published(path))


def test_published_and_derived_numbers_are_apart() -> None:
    """What a source calls a run of others or a rewriting is not published."""
    tables = [known_rows(get_args(kinds))[1:] for kinds in (InPaper, Derived)]
    assert sum(map(len, tables)) == len(load_published()) and all(tables)
    for *_, kind, source in tables[0]:
        assert kind in ("printed", "digitised") and re.match(r"table|figure|section", source)
        assert not re.search(r"run|rewritten|derived|expected", source)


def test_shares_are_those_of_the_images_that_their_sources_name() -> None:
    checked = 0
    for one in load_published():
        if named := re.search(r"([\d,]{6})(?: and ([\d,]{6}))? of 45,000", one.source):
            images = [int(text.replace(",", "")) for text in named.groups() if text]
            shares = [100 * number / 45_000 for number in images]
            if "leaves out" in one.quantity:
                shares = [100 - share for share in shares]
            assert (one.low, one.high) == (round(min(shares), 1), round(max(shares), 1)), one.id
            checked += 1
    assert checked >= 5


def test_each_part_goes_between_its_marks(one_line: Message) -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\nc\n"
    made = with_parts(page, {"x": "one\n", "y": "two\n"})
    assert made == "a\n<!-- x -->\none\n<!-- /x -->\nb\n<!-- y -->\ntwo\n<!-- /y -->\nc\n"
    assert with_parts(made, {"x": "one\n", "y": "two\n"}) == made
    assert "marks" in one_line(lambda: with_parts(page, {"z": "none\n"}))


def test_every_number_has_ours_at_desk() -> None:
    """Paths that no study has would never be noticed; PrAC may match IMP nowhere."""
    metrics = metrics_of("desk")
    found = {one.id: ours(one, metrics) for one in load_published() if one.id != "prac-saving"}
    assert [name for name, value in found.items() if value is None] == []


def test_a_distance_at_another_scale_has_a_reason_of_its_own(committed: Path) -> None:
    """`reason` is about desk's and desk_long's small networks and images."""
    results, missing = committed / "results", []
    for study in set(verdicts.studies(params.chosen_studies(), results)) - {"desk", "desk_long"}:
        metrics = metrics_of(study, results)
        for one in load_published():
            found = ours(one, metrics)
            if found is not None and one.gap(found.mean) and study not in one.reasons:
                missing.append((study, one.id))
    assert missing == []


def test_reasons_name_the_studies_that_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study, mean in (("a", 1.0), ("b", 9.0)):
        write_json(tmp_path / study / "colt" / "metrics.json", {"m": as_metric({0: mean, 1: mean})})
    named = entry(metric="m", reasons={"b": "B's own.", "c": "Not run."})
    monkeypatch.setattr(published, "load_published", lambda: [named])
    assert [row[-1] for row in our_rows(["a"], tmp_path)[1:]] == ["r"]
    assert [row[-1] for row in our_rows(["a", "b"], tmp_path)[1:]] == ["r `b`: B's own."]


def test_the_page_is_that_of_the_results(committed: Path) -> None:
    results = committed / "results"
    studies = list(verdicts.studies(params.chosen_studies(), results))
    page = (committed / PAGE.name).read_text()
    assert with_parts(page, parts(studies, results)) == page, "run: ticketlab claims --write"


def percentages(found: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every interval of metrics whose name says that it is a part of a whole, in percent."""
    if not isinstance(found, dict):
        return
    if {"low", "high", "n"} <= set(found) and re.search(r"share|overlap|flipped|missed", name):
        yield name, found
    for key, inner in found.items():
        yield from percentages(inner, f"{name}.{key}")


def test_no_share_of_the_committed_results_leaves_0_to_100(committed: Path) -> None:
    shares = []
    for path in sorted(committed.glob("results/*/*/metrics.json")):
        numbers = json.loads(path.read_text())
        if path.parent.name == "compare":
            del numbers["overlap"]  # points of IoU beyond chance, which may be negative
        if path.parent.name == "prac":
            del numbers["overlap"]["prac_minus_imp_again"]  # a difference
        shares += list(percentages(numbers))
    assert len(shares) > 5
    for name, found in shares:
        assert found["low"] is None or 0 <= found["low"] <= found["high"] <= 100, name
