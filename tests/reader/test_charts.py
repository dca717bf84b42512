"""The charts of a comparison: what they draw, and that a browser draws them offline."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from revisions import curve, snapshot

from ticketlab.reader import charts, diff_curves, diff_page
from ticketlab.reader.diff_curves import Difference
from ticketlab.study.stats import interval

A = curve({0: [1.0, 2.0], 1: [2.0, 2.5]}, [0.9, 0.1])
FRAMES = diff_curves.arms(A) | diff_curves.arms(curve({0: [3.0]}, [0.5], arm="<b> & co"))
NAMES = charts.Names("sparsity", "last_accuracy", True, ("HEAD", "faster"))


def drawn() -> dict[str, Any]:
    """A chart of two arms, of which one revision has one."""
    chosen = charts.arms(list(FRAMES), [])
    return charts.curves(FRAMES, diff_curves.arms(A), chosen, NAMES, "IMP is higher.")


def rows(chart: dict[str, Any]) -> pd.DataFrame:
    """All rows of the chart's data."""
    return pd.concat(map(pd.DataFrame, chart["datasets"].values()))


def test_a_chart_has_means_bands_and_seeds_of_both_revisions() -> None:
    chart = drawn()
    found = rows(chart)
    assert chart["description"] == "IMP is higher." and chart["width"] == "container"
    means = found[found.get("mean").notna() & (found.arm == "IMP")]
    assert means.groupby("revision").size().to_dict() == {"HEAD": 2, "faster": 2}
    expected = interval([1.0, 2.0])
    first = means[means.x == 0.9].iloc[0]
    assert (first["mean"], first.low, first.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), rel=1e-4
    )
    assert found.seed.notna().sum() == 9
    assert set(found.revision) == {"HEAD", "faster"}


def test_sparsity_is_on_the_notebooks_axis() -> None:
    """Density on a log scale, the dense net at the left, ticks in percent of removed weights."""
    places = [layer["encoding"]["x"] for layer in drawn()["layer"] if "x" in layer["encoding"]]
    assert places and all(x["scale"]["type"] == "log" and x["scale"]["reverse"] for x in places)
    assert all("1 - datum.value" in x["axis"]["labelExpr"] for x in places)
    assert rows(drawn())["at"].max() == pytest.approx(90.0)


def test_each_arm_has_the_colour_of_its_method_and_each_revision_its_dashes() -> None:
    line = next(layer for layer in drawn()["layer"] if layer["mark"]["type"] == "line")
    colours = line["encoding"]["color"]["scale"]
    assert colours["domain"] == ["IMP", "<b> & co"]
    assert colours["range"][0] == charts.colour("imp") == charts.colour("main, imp")
    assert line["encoding"]["strokeDash"]["scale"]["domain"] == ["HEAD", "faster"]


def test_arms_that_moved_farthest_are_shown_first_and_toggles_know_the_others() -> None:
    moved = {"a": 0.0, "b": 3.0, "c": -5.0, "d": 1.0, "e": 2.0}
    found = [Difference(arm, {0: by}, interval([by]), None) for arm, by in moved.items()]
    chosen = charts.arms(list(moved), found)
    assert [arm.name for arm in chosen if arm.shown] == ["b", "c", "d", "e"]
    frames = {arm: FRAMES["imp"] for arm in moved}
    (hidden,) = (
        one for one in charts.curves(frames, frames, chosen, NAMES, "")["params"]
        if one["name"] == "hidden"
    )  # fmt: skip
    assert hidden["value"] == ["a"]


def test_a_label_is_made_of_the_labels_of_its_parts() -> None:
    assert charts.label("prac") == "PrAC" and charts.label("main, rst").endswith(", RST")
    assert charts.label("mine snip") == "mine SNIP"
    assert charts.label("my own") == "my own"


def test_differences_have_a_row_per_arm_with_what_is_said_of_it() -> None:
    by = {"imp": (1.0, 1.1), "prac": (-1.0, 1.0), "random": (2.0,)}
    found = [Difference(a, dict(enumerate(b)), interval(list(b)), None) for a, b in by.items()]
    chart = charts.differences(found, "IMP is higher.")
    table = rows(chart).dropna(subset=["arm"]).drop_duplicates("arm").set_index("arm")
    assert table.says.tolist() == ["higher", "no clear difference", "one seed"]
    assert pd.isna(table.low.iloc[2]) and chart["height"] == 3 * charts.ROW


def test_what_is_embedded_cannot_end_its_element() -> None:
    text = charts.embedded({"x": {"arm": "</script><b>"}})
    assert "<" not in text and json.loads(text)["x"]["arm"] == "</script><b>"
    assert "</script" not in charts.bundle() and "window.vegaEmbed=" in charts.bundle()


TABLE = "desk/prac/last_accuracy_over_round"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_draws_every_chart_without_a_network(tmp_path: Path) -> None:
    a, b = (
        snapshot(name=name, metrics={"desk/prac": {"rounds": len(name)}}, curves={TABLE: one})
        for name, one in (("HEAD", A), ("faster", curve({0: [1.5, 2.5]}, [0.9, 0.1])))
    )
    page = tmp_path / "page.html"
    page.write_text(diff_page.render(diff_page.gather(a, b)))
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'user'}", page.as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert 'data-drawn="yes"' in shown and shown.count("<svg") == 2
