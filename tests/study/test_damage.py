"""A damaged unit is never reused: another copy is, or it is trained again, to the same bytes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Message
from small_units import cache_of, contents, runs, units

from ticketlab.study.runner import run
from ticketlab.study.store import Store, check_records, remove_damaged

TICKET, RECORD = "unit-1/round-01.safetensors", "unit-1.json"


def flip(path: Path) -> None:
    """Change the first bit of the last byte, which belongs to the mask."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 128
    path.write_bytes(content)


def renumber(path: Path) -> None:
    """Change a number of a record, which stays valid."""
    content = json.loads(path.read_text())
    content["record"]["process"] = 7
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit of a ticket": (TICKET, flip),
    "an empty ticket": (TICKET, lambda path: path.write_bytes(b"")),
    "a ticket is gone": (TICKET, lambda path: path.unlink()),
    "half a record": (RECORD, lambda path: path.write_text(path.read_text()[:30])),
    "an empty record": (RECORD, lambda path: path.write_bytes(b"")),
    "a record without a key": (RECORD, lambda path: path.write_text('{"record": {}}')),
    "a record that is a list": (RECORD, lambda path: path.write_text("[]")),
    "no text": (RECORD, lambda path: path.write_bytes(b"\xff\xfe\x00")),
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of three units; their log is elsewhere, and empty."""
    run(units(tmp_path), tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "whole")
    (tmp_path / "log").unlink()
    return tmp_path / "made"


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_unit_is_trained_again_and_the_others_are_kept(
    made: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage = DAMAGE[case]
    damage(made / name)
    remove_damaged(made)
    printed = capsys.readouterr().err
    assert printed.startswith("warning: ") and printed.count("\n") == 1, printed
    assert str(made / name) in printed and "unit-1 is not reused" in printed
    run(units(made.parent), made)
    assert runs(made.parent) == [1]
    assert contents(made) == contents(made.parent / "whole")
    remove_damaged(made)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_copy_of_a_store_is_passed_over(made: Path, case: str) -> None:
    name, damage = DAMAGE[case]
    damage(made / name)
    run(units(made.parent), made.parent / "now", store=Store((made,)))
    assert runs(made.parent) == [1]
    assert contents(made.parent / "now") == contents(made.parent / "whole")


@pytest.mark.parametrize("damage", [(TICKET, flip), (RECORD, renumber)])
def test_the_copy_in_the_cache_replaces_a_damaged_one(
    made: Path, damage: tuple[str, Callable[[Path], None]]
) -> None:
    """Also where the damaged record is a valid one."""
    cache_of(made, made.parent / "cache")
    damage[1](made / damage[0])
    store = Store((made,), made.parent / "cache")
    run(units(made.parent), made.parent / "now", store=store)
    assert runs(made.parent) == []
    assert contents(made.parent / "now") == contents(made.parent / "whole")


@pytest.mark.parametrize("damage", [(TICKET, flip), (RECORD, renumber)])
def test_damage_in_the_cache_is_passed_over(
    made: Path, damage: tuple[str, Callable[[Path], None]], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = made.parent / "cache"
    cache_of(made, cache)
    before = (made / damage[0]).read_bytes()
    (path,) = (one for one in cache.rglob("*") if one.is_file() and one.read_bytes() == before)
    damage[1](path)
    store = Store((made,), cache)
    run(units(made.parent), made.parent / "now", store=store)
    assert runs(made.parent) == []  # the folder has it
    assert contents(made.parent / "now") == contents(made.parent / "whole")
    assert f"warning: {path}: damaged, its content" in capsys.readouterr().err
    run(units(made.parent), made.parent / "again", store=Store(cache=cache))
    assert runs(made.parent) == [1]
    assert contents(made.parent / "again") == contents(made.parent / "whole")


@pytest.mark.parametrize(
    "content, problem",
    [
        ('[{"relpath": "a.js', "not readable JSON"),
        ("[1]", "damaged"),
        ('[{"md5": "0"}]', "damaged"),
    ],
)
def test_a_damaged_listing_of_the_cache_is_named_and_passed_over(
    made: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    cache_of(made, made.parent / "cache")
    (listing,) = (made.parent / "cache").rglob("*.dir")
    listing.write_text(content)
    store = Store(cache=made.parent / "cache")
    run(units(made.parent), made.parent / "now", store=store)
    assert runs(made.parent) == [0, 1, 2]
    assert f"warning: {listing}: {problem}" in capsys.readouterr().err


def test_where_nothing_may_be_trained_a_damaged_record_is_refused(
    made: Path, one_line: Message
) -> None:
    check_records(made)
    (made / RECORD).write_text('{"record": {}}')
    assert one_line(lambda: check_records(made)).startswith(f"{made / RECORD}: damaged, ")
