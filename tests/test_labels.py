"""Names and looks: every arm of the results has a label; colours hold on both pages and for all."""

import csv
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import Message
from matplotlib.markers import MarkerStyle

from ticketlab import labels
from ticketlab.spec import ROOT

PAGES = {"white": "#ffffff", "dark": "#14181e"}
COLUMNS = ["arm", "other", "mask", "weights", "layer", "tensor", "method", "net", "case", "place"]
COLUMNS += ["task", "mother", "regime", "carried", "varied", "between"]
"""Columns of tables whose values figures and tables show."""
VISIONS = {  # Machado, Oliveira and Fernandes (2009), severity 1, linear RGB
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    """Linear RGB (3,) of '#rrggbb'."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    """Contrast of two colours by WCAG 2, 1 to 21."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, two))
    return (high + 0.05) / (low + 0.05)


def cielab(colour: str, vision: str) -> np.ndarray:
    """CIELAB (3,) of a colour as it is seen."""
    seen = np.clip(VISIONS[vision] @ linear(colour), 0, 1)
    t = (TO_XYZ @ seen) / TO_XYZ.sum(axis=1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, two: str) -> float:
    """CIE76 difference of two colours in the vision in which they are nearest."""
    return min(
        float(np.linalg.norm(cielab(one, vision) - cielab(two, vision))) for vision in VISIONS
    )


# --- looks


def test_the_measures_agree_with_known_values() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert apart("#000000", "#ffffff") == pytest.approx(100, abs=0.1)
    assert apart("#009e73", "#949494") < 15  # a green that deuteranopes take for grey


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_has_contrast_on_the_page(page: str) -> None:
    every = [*(m.color for m in labels.read().methods.values()), *labels.read().spare]
    assert [c for c in every if contrast(c, PAGES[page]) < 3] == []


MAIN = ("imp", "colt", "prac", "rst", "random")
BENCH = (*MAIN, "magnitude", "snip", "grasp", "synflow", "edge-popup")
DLTH = ("rst", "imp", "random", "magnitude", "early-bird")


def test_methods_drawn_together_differ_for_all_eyes() -> None:
    """The four papers' most; of the many on one bench, markers help."""
    for arms, least in ((MAIN, 30), (BENCH, 17), (DLTH, 20)):
        near = [
            (a, b, round(apart(labels.colour(a), labels.colour(b)), 1))
            for a, b in combinations(arms, 2)
            if apart(labels.colour(a), labels.colour(b)) < least
        ]
        assert near == []


def test_methods_have_markers_of_their_own() -> None:
    markers = [method.marker for method in labels.read().methods.values()]
    assert len(set(markers)) == len(markers)
    assert all(MarkerStyle(marker) for marker in markers)


def test_variants_have_their_methods_colour_and_a_hollow_marker() -> None:
    for arm in ("imp-matched", "imp-matched-shuffled", "imp-half", "short-imp"):
        assert labels.colour(arm) == labels.colour("imp")
        assert labels.look(arm)["fillstyle"] == "none"
    assert labels.look("colt-class-2of2") == labels.look("colt")
    assert labels.colour("colt-class-2of5-layerwise") == labels.colour("colt")
    assert labels.look("colt-class-5of5")["fillstyle"] == "none"
    assert labels.look("lth-iter")["fillstyle"] == "full"


def test_an_arm_of_ones_own_keeps_its_name_and_has_a_look() -> None:
    assert labels.label("my_rules:large") == "my_rules:large"
    assert not labels.known("my_rules:large")
    assert labels.look("my_rules:large") == labels.look("my_rules:large")
    assert labels.colour("my_rules:large") in labels.read().spare


# --- names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("imp", "IMP"),
        ("colt-class-2of2", "COLT"),
        ("colt-class-5of5", "COLT, 5 copies"),
        ("colt-class-2of5", "COLT, 2 of 5 votes"),
        ("colt-random-2of2-reinit", "COLT on random images, fresh weights"),
        ("imp-matched-shuffled", "IMP at COLT's pace, shuffled mask"),
        ("colt_minus_imp_matched", "COLT minus IMP at COLT's pace"),
        ("random, long as rst", "random mask, as long as RST"),
        ("random-long-as-rst", "random mask, as long as RST"),
        ("body.conv2.weight", "convolution 2"),
        ("at_97.5", "at 97.5 % sparsity"),
        ("seed-100", "seed 100"),
        ("by-snip", "pruned by SNIP"),
        ("nobody-shuffled", "nobody-shuffled"),
        ("colt_minus_nobody", "colt_minus_nobody"),
    ],
)
def test_names_are_read_by_entry_family_or_difference(name: str, said: str) -> None:
    assert labels.label(name) == said


def test_no_name_stands_in_two_sections() -> None:
    every = labels.read()
    sections = (every.methods, every.arms, every.short, every.metrics, every.layers, every.units)
    names = [name for section in sections for name in section]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert {arm.of for arm in every.arms.values()} <= set(every.methods)


def test_a_wrong_entry_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Message
) -> None:
    text = labels.FILE.read_text().replace('color: "#4266ba"', "color: blue")
    (tmp_path / "labels.yaml").write_text(text)
    monkeypatch.setattr(labels, "FILE", tmp_path / "labels.yaml")
    labels.read.cache_clear()
    try:
        assert one_line(labels.read).startswith("labels.yaml: methods.imp.color:")
    finally:
        labels.read.cache_clear()


def shown_names() -> Iterator[tuple[str, str]]:
    """Every name that the committed results show, and where."""
    for path in sorted((ROOT / "results").glob("*/*/tables/*.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                for column in COLUMNS:
                    if row.get(column):
                        yield row[column], f"{path.parent.parent.name}/{path.name}: {column}"
    for path in sorted((ROOT / "results").glob("*/*/metrics.json")):
        metrics = json.loads(path.read_text())
        for key in ("differences", "accuracy", "rounds"):
            for name in metrics.get(key) or ():
                yield name, f"{path.parent.name}/metrics.json: {key}"


def test_every_name_in_the_results_has_a_label() -> None:
    found = dict(shown_names())
    assert len(found) > 100
    assert {name: where for name, where in found.items() if not labels.known(name)} == {}
