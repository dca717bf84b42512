"""Around a re-run, as readers do it: `ticketlab plan` before, `ticketlab verify` after."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import Clone, Terminal, finished
from conftest import passed

from ticketlab.pipeline import confirmations
from ticketlab.study.claims import load_claims
from ticketlab.study.stats import as_metric

PAGES = "results/desk/colt"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clone, Terminal]]:
    """A clone with committed results to change, and `ticketlab` in it."""
    clone = finished(tmp_path_factory).copy(tmp_path_factory.mktemp("rerun") / "clone")
    terminal = Terminal(clone)
    yield clone, terminal
    terminal.close()


@pytest.fixture
def restored(place: tuple[Clone, Terminal]) -> Iterator[tuple[Clone, Terminal]]:
    """The same, put back afterwards."""
    yield place
    place[0].run("git checkout -q .")


def words(out: str) -> dict[str, str]:
    """What is said of each stage."""
    rows = [line.split() for line in out.splitlines() if "@" in line.split(" ")[0]]
    return {row[0]: row[1] for row in rows}


def rewrite(path: Path, change: Any) -> None:
    """Change a metrics file in place."""
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


def test_an_untouched_clone_is_identical(place: tuple[Clone, Terminal]) -> None:
    done = place[1]("verify")
    assert done.code == 0, done
    assert words(done.out) == dict.fromkeys(
        ("data@desk-colt", "train@desk-colt", "read@desk-colt"), "identical"
    )
    assert "out of date" not in done.out and "byte for byte: 3 stages" in done.out
    assert "desk: compared byte for byte: both were made with" in done.out


def test_a_run_that_trained_everything_is_recorded(place: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = place
    path = clone.path("confirmations.yaml")
    path.unlink(missing_ok=True)  # those of this project
    timed = clone.path("results/desk/runs/colt.timings.json")
    before = timed.read_text()
    try:
        done = ticketlab("verify", "--record")
        assert done.code == 0 and "desk: byte for byte" in done.out, done
        (found,) = confirmations.read(path)
        assert found.study == "desk" and found.stages["train@desk-colt"].minutes > 0
        assert set(found.stages) == {f"{kind}@desk-colt" for kind in ("data", "train", "read")}
        timed.write_text(before.replace('"reused": 0', '"reused": 2'))
        done = ticketlab("verify", "--record")
        assert done.code == 2 and "2 of its units were reused" in done.err
        assert confirmations.read(path) == (found,)
    finally:
        timed.write_text(before)
        path.unlink(missing_ok=True)


def elsewhere(clone: Clone) -> None:
    """As if this machine had another processor than the one that made the committed results."""

    def move(machines: Any) -> None:
        for made in machines.values():
            made |= {"vendor": "another", "processor": "another one"}

    rewrite(clone.path("results/desk/machine.json"), move)


def test_numbers_within_their_intervals_are_reproduced_on_another_machine(
    restored: tuple[Clone, Terminal],
) -> None:
    clone, ticketlab = restored

    def nudge(metrics: Any) -> None:
        for key, by in (("mean", 0.01), ("low", -5), ("high", 5)):
            metrics["accuracy"]["dense"][key] += by
        metrics["provenance"]["torch"] = "another"

    rewrite(clone.path(f"{PAGES}/metrics.json"), nudge)
    done = ticketlab("verify", "desk")
    assert done.code == 1 and words(done.out)["read@desk-colt"] == "within"
    assert "not reproduced byte for byte, as it should be here: 2 identical, 1 within" in done.out
    elsewhere(clone)
    done = ticketlab("verify", "desk")
    assert done.code == 0 and words(done.out)["read@desk-colt"] == "within"
    assert "compared by intervals and verdicts" in done.out and "another one" in done.out
    assert "reproduced: 2 identical, 1 within" in done.out
    assert "2 metrics moved" in done.out and "accuracy.dense" in done.out
    assert "out of date" in done.out  # as DVC sees it: somebody changed an output
    assert "provenance" not in done.out


def test_numbers_that_are_apart_are_named_and_end_with_1(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored

    def spoil(metrics: Any) -> None:
        for key in ("mean", "low", "high"):
            metrics["accuracy"]["dense"][key] += 500
        del metrics["transfer"]

    rewrite(clone.path(f"{PAGES}/metrics.json"), spoil)
    done = ticketlab("verify")
    assert done.code == 1 and words(done.out)["read@desk-colt"] == "different"
    assert "3 of 3 changed metrics apart" in done.out
    assert "verdicts: cannot be compared (claim colt-H4" in done.out  # its number is gone
    assert "accuracy.dense: " in done.out and "transfer: not here" in done.out
    assert "not reproduced: 1 different, 2 identical" in done.out


OLD_STAGE = """  data@desk:
    cmd: ticketlab prepare desk
    outs:
    - path: results/desk/data.json
      hash: md5
      md5: ea1eb8c0d6d19ed030272acfd82c2d0a
      size: 176
"""


def test_stages_of_an_older_pipeline_are_passed_over(restored: tuple[Clone, Terminal]) -> None:
    """dvc.lock keeps what dvc.yaml no longer has; nothing of it is in a fresh clone."""
    clone, ticketlab = restored
    clone.edit("dvc.lock", lambda text: text + OLD_STAGE)
    clone.commit()
    try:
        done = ticketlab("verify")
        assert done.code == 0 and "data@desk " not in done.out, done
    finally:
        clone.run("git reset -q --hard HEAD~1")


@pytest.mark.parametrize("folder", ["tables", "figures", "curves"])
def test_a_file_that_one_side_lacks_is_a_difference(
    restored: tuple[Clone, Terminal], folder: str
) -> None:
    """Though all metrics are equal, and whatever machine made them."""
    clone, ticketlab = restored
    elsewhere(clone)
    gone = min(clone.path(f"{PAGES}/{folder}").iterdir())
    gone.unlink()
    done = ticketlab("verify")
    assert done.code == 1 and words(done.out)["read@desk-colt"] == "different"
    assert f"not here: {PAGES}/{folder}/{gone.name}\n" in done.out
    clone.run("git checkout -q .")
    elsewhere(clone)
    more = clone.path(f"{PAGES}/{folder}/more.csv")
    more.write_text("a\n1\n")
    done = ticketlab("verify")
    more.unlink()
    assert done.code == 1 and words(done.out)["read@desk-colt"] == "different"
    assert f"not committed: {PAGES}/{folder}/more.csv\n" in done.out


def test_a_verdict_that_turns_into_its_opposite_is_a_difference(
    restored: tuple[Clone, Terminal],
) -> None:
    """Judged from the metrics on both sides: the numbers overlap, but one bed learned nothing."""
    clone, ticketlab = restored

    def place(metrics: Any, low: float) -> None:
        metrics["differences"]["colt_minus_imp"]["mean"] = as_metric([1.0, 1.0])
        (dense,) = metrics["references"]["dense"].values()
        dense["score"] = {"mean": 20.0, "low": low, "high": 40 - low, "n": 2}
        dense["chance"] = 10.0
        metrics["controls"] = passed(load_claims("colt"))

    rewrite(clone.path(f"{PAGES}/metrics.json"), lambda metrics: place(metrics, 10.5))
    clone.run("git commit -qam 'H2 is reproduced'")
    rewrite(clone.path(f"{PAGES}/metrics.json"), lambda metrics: place(metrics, 9.5))
    done = ticketlab("verify")
    clone.run("git checkout -q . && git reset -q --hard HEAD~1")
    assert done.code == 1, done
    assert "colt-H2.verdict: reproduced -> not testable here" in done.out


def test_other_records_are_as_good_as_the_numbers_made_of_them(
    restored: tuple[Clone, Terminal],
) -> None:
    clone, ticketlab = restored
    record = next(iter(sorted(clone.path("results/desk/runs/colt").rglob("*.json"))))
    whole = record.read_bytes()
    record.unlink()  # DVC may have linked it to its cache
    record.write_bytes(whole + b"\n")
    page = clone.path(f"{PAGES}/colt.ipynb")
    page.write_text(page.read_text() + "\n")
    elsewhere(clone)
    done = ticketlab("verify")
    record.write_bytes(whole)
    assert done.code == 0, done
    assert words(done.out)["train@desk-colt"] == words(done.out)["read@desk-colt"] == "within"
    assert "all numbers equal, other bytes: results/desk/colt/colt.ipynb" in done.out


def test_a_stage_that_is_no_more_is_not_missed(restored: tuple[Clone, Terminal]) -> None:
    """DVC keeps the entries of stages that dvc.yaml has lost in dvc.lock."""
    clone, ticketlab = restored
    gone = "\n".join([
        "  claims@desk:", "    cmd: ticketlab claims desk", "    outs:",
        "    - path: results/desk/claims.json", "      hash: md5", f"      md5: {'a' * 32}",
        "      size: 1", "",
    ])  # fmt: skip
    clone.edit("dvc.lock", lambda text: text.replace("stages:\n", f"stages:\n{gone}"))
    clone.run("git commit -qam 'A stage of before'")
    done = ticketlab("verify")
    clone.run("git reset -q --hard HEAD~1")
    assert done.code == 0 and "claims@desk" not in done.out, done


def test_other_data_are_a_difference(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored
    clone.edit("results/desk/data/colt.json", lambda text: text.replace('": "', '": "0'))
    done = ticketlab("verify")
    assert done.code == 1 and words(done.out)["data@desk-colt"] == "different"
    assert "results/desk/data/colt.json" in done.out


def test_what_cannot_be_compared_is_one_line(restored: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = restored
    clone.path(f"{PAGES}/metrics.json").unlink()
    cases = {
        ("verify",): [f"{PAGES}/metrics.json", "dvc repro"],
        ("verify", "midi"): ["'midi'", "desk"],
        ("verify", "--rev", "nowhere"): ["'nowhere'", "revision"],
    }
    for arguments, named in cases.items():
        done = ticketlab(*arguments)
        assert done.code == 2 and done.err.count("\n") == 1, done
        assert all(word in done.err for word in named), done.err


# --- plans


def states(out: str) -> dict[str, str]:
    """The state of each stage in the printed table."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return {row[0]: row[1] for row in rows if row and "@" in row[0]}


def test_a_plan_follows_what_has_changed(place: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = place
    idle = ticketlab("plan")
    assert idle.code == 0 and "nothing to train" in idle.out, idle
    assert set(states(idle.out).values()) == {"up to date"}
    clone.edit("claims/colt.yaml", lambda text: text.replace("at_least: -1.0", "at_least: -2.0", 1))
    pages = ticketlab("plan")
    assert "nothing to train" in pages.out
    assert states(pages.out)["read@desk-colt"] == "runs"
    clone.edit("params.yaml", lambda text: text.replace("rate: 0.4", "rate: 0.35", 1))
    full = ticketlab("plan", "desk")
    assert full.code == 0 and "about 0 minutes on cpu" in full.out, full
    found = states(full.out)
    assert (found["data@desk-colt"], found["train@desk-colt"]) == ("up to date", "runs")
    assert clone.changes().split() == ["M", "claims/colt.yaml", "M", "params.yaml"]
    clone.run("git checkout -q .")


def test_a_study_that_is_not_listed_is_planned_whole(place: tuple[Clone, Terminal]) -> None:
    clone, ticketlab = place
    clone.set(runs={})
    done = ticketlab("plan", "desk")
    clone.run("git checkout -q .")
    assert done.code == 0 and "make study STUDY=desk" in done.out.replace("\n", " "), done
    assert "image passes" in done.out


def test_an_unknown_study_is_one_line(place: tuple[Clone, Terminal]) -> None:
    done = place[1]("plan", "dsk")
    assert done.code == 2 and done.err.count("\n") == 1 and "'dsk'" in done.err
