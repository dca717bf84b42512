"""The plotting style: bands are t intervals, arms keep their looks, files keep their bytes."""

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import Message
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.study import plots
from ticketlab.study.plots import curves, density_axis, look, save, summarise, use_style
from ticketlab.study.stats import Interval, interval


@pytest.fixture(autouse=True)
def own_style() -> Iterator[None]:
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.fixture
def ax() -> Axes:
    return plt.subplots()[1]


def runs() -> pd.DataFrame:
    """Two arms: imp has three seeds in two rounds, colt one seed in three rounds."""
    imp = [
        ("imp", seed, turn, 10.0 * turn + seed, 90.0 - turn - seed**2)
        for seed in (2, 0, 1)
        for turn in (1, 0)
    ]
    colt = [("colt", 0, turn, 8.0 * turn, 80.0 + turn) for turn in (2, 0, 1)]
    return pd.DataFrame([*imp, *colt], columns=["arm", "seed", "round", "x", "y"])


def drawing() -> Figure:
    figure, ax = plt.subplots()
    curves(ax, runs(), "x", "y", look(["imp", "colt"]), "round")
    ax.legend()
    return figure


# --- summaries


def test_a_summary_is_the_interval_of_each_group() -> None:
    found = summarise(runs(), ["arm", "round"], "y")
    assert found.columns.tolist() == ["arm", "round", "mean", "low", "high", "n"]
    assert found[["arm", "round"]].values.tolist() == [
        ["colt", 0], ["colt", 1], ["colt", 2], ["imp", 0], ["imp", 1]
    ]  # fmt: skip
    expected = interval([89.0, 88.0, 85.0])
    row = found[(found.arm == "imp") & (found["round"] == 1)].iloc[0]
    assert (row["mean"], row.low, row.high, row.n) == (
        expected.mean,
        expected.low,
        expected.high,
        3,
    )


def test_a_single_seed_has_a_mean_and_no_bounds() -> None:
    found = summarise(runs(), ["arm", "round"], "y")
    one = found[found.arm == "colt"]
    assert one["mean"].tolist() == [80.0, 81.0, 82.0] and one.n.tolist() == [1, 1, 1]
    assert one.low.isna().all() and one.high.isna().all()


def test_a_missing_number_is_not_averaged_over(one_line: Message) -> None:
    frame = runs().assign(y=np.nan)
    assert "finite" in one_line(lambda: summarise(frame, ["arm"], "y"))


# --- looks


def test_arms_have_the_looks_of_the_labels_file() -> None:
    assert look(["imp", "mine:rule"]) == {
        "imp": labels.look("imp"),
        "mine:rule": labels.look("mine:rule"),
    }


# --- curves


def test_a_line_is_the_mean_over_seeds(ax: Axes) -> None:
    curves(ax, runs(), "x", "y", look(["imp", "colt", "absent"]), "round")
    lines = {
        line.get_label(): line for line in ax.lines if not str(line.get_label()).startswith("_")
    }
    assert list(lines) == ["IMP", "COLT"]
    imp, colt = lines.values()
    assert np.asarray(imp.get_xdata()) == pytest.approx(
        [1.0, 11.0]
    )  # the mean of the seeds' places
    assert np.asarray(imp.get_ydata()) == pytest.approx([90 - 5 / 3, 89 - 5 / 3])
    assert np.asarray(colt.get_xdata()) == pytest.approx([0.0, 8.0, 16.0])
    assert np.asarray(colt.get_ydata()) == pytest.approx([80.0, 81.0, 82.0])


def test_the_band_is_the_interval_and_every_seed_is_a_dot(ax: Axes) -> None:
    looks = look(["imp", "colt"])
    curves(ax, runs(), "x", "y", looks, "round")
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]  # none for one seed
    corners = band.get_paths()[0].vertices
    for at, values in ((1.0, [90.0, 89.0, 86.0]), (11.0, [89.0, 88.0, 85.0])):
        found = interval(values)
        heights = corners[np.isclose(corners[:, 0], at), 1]
        assert (heights.min(), heights.max()) == pytest.approx((found.low, found.high))
    (dots,) = [line for line in ax.lines if line.get_marker() == "."]
    rows = runs()[runs().arm == "imp"]
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == sorted(
        zip(rows.x, rows.y, strict=True)
    )
    assert to_hex(dots.get_color()) == looks["imp"]["color"]


def test_the_order_of_the_rows_does_not_matter(ax: Axes) -> None:
    other = plt.subplots()[1]
    curves(ax, runs(), "x", "y", look(["imp", "colt"]), "round")
    curves(other, runs().sample(frac=1, random_state=0), "x", "y", look(["imp", "colt"]), "round")
    for one, two in zip(ax.lines[::2], other.lines[::2], strict=True):
        assert np.asarray(one.get_ydata()) == pytest.approx(np.asarray(two.get_ydata()))
        assert np.asarray(one.get_xdata()) == pytest.approx(np.asarray(two.get_xdata()))


# --- the axis of sparsity


def test_density_is_read_as_sparsity_with_dense_at_the_left(ax: Axes) -> None:
    ax.plot([1, 0.5, 0.05], [1, 2, 3])
    density_axis(ax, 0.05)
    ax.figure.canvas.draw()
    left, right = ax.get_xlim()
    assert ax.get_xscale() == "log" and left > right
    ticks = [float(tick) for tick in ax.get_xticks()]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert dict(zip(ticks, labels, strict=True)) == {
        1.0: "0 %", 0.5: "50 %", 0.2: "80 %", 0.1: "90 %", 0.05: "95 %"
    }  # fmt: skip
    assert len(ax.get_xticks(minor=True)) == 0


@pytest.mark.parametrize(
    ("lowest", "last"), [(1.0, 1.0), (0.3, 0.5), (0.009, 0.01), (0.004, 0.005)]
)
def test_ticks_end_where_the_data_does(ax: Axes, lowest: float, last: float) -> None:
    density_axis(ax, lowest)
    assert min(ax.get_xticks()) == last


# --- files


def test_the_same_drawing_gives_the_same_bytes_and_is_closed(tmp_path: Path) -> None:
    open_before = plt.get_fignums()
    for name in ("one", "two"):
        shown = save(drawing(), tmp_path, name)
        assert shown.data == (tmp_path / "figures" / f"{name}.png").read_bytes()
    one, two = (tmp_path / "figures" / f"{name}.png" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes() and one.read_bytes().startswith(b"\x89PNG")
    assert b"Software" not in one.read_bytes() and b"matplotlib" not in one.read_bytes().lower()
    assert plt.get_fignums() == open_before
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"one.png", "two.png"}


def test_a_figure_that_cannot_be_written_is_one_line(tmp_path: Path, one_line: Message) -> None:
    (tmp_path / "figures").write_text("a file where a folder should be")
    message = one_line(lambda: save(drawing(), tmp_path, "accuracy"))
    assert message.startswith(f"{tmp_path / 'figures' / 'accuracy.png'}: cannot be written (")


def test_the_style_is_set_whatever_was_set_before() -> None:
    plt.rcParams.update({"figure.figsize": (1, 1), "savefig.dpi": 10, "lines.linewidth": 9})
    use_style()
    assert plt.rcParams["figure.figsize"] == [8.0, 4.5]
    assert (plt.rcParams["savefig.dpi"], plt.rcParams["lines.linewidth"]) == (120, 1.6)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [to_hex(colour) for colour in colours] == list(plots.PALETTE)


# --- words for those who cannot see it


def test_a_saved_figure_is_shown_with_its_alt_text(tmp_path: Path) -> None:
    """And as large as it was drawn, whatever its resolution."""
    figure = drawing()
    figure.axes[0].set(title="Pace", xlabel="images seen\n(millions)", ylabel="accuracy (%)")
    use_style()
    shown = save(figure, tmp_path, "pace")
    data, metadata = shown._repr_mimebundle_()
    assert b64decode(data["image/png"]) == (tmp_path / "figures" / "pace.png").read_bytes()
    message = "Pace: accuracy (%) against images seen (millions)"
    assert metadata["image/png"]["alt"] == message
    inches = metadata["image/png"]["width"] / 96
    assert 0.7 < inches / figure.get_size_inches()[0] < 1.1


def test_alt_texts_name_each_kind_of_panel_once() -> None:
    figure, axes = plt.subplots(1, 3)
    figure.suptitle("Digits")
    for ax in axes[:2]:
        ax.set_title("forgotten")
    assert plots.alt_text(figure) == "Digits; 3 panels; forgotten"
    assert plots.alt_text(plt.figure()) == "Figure without labels"


def test_the_message_of_a_figure_is_its_alt_text_and_stands_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = plots.says(drawing(), "COLT loses to IMP.")
    use_style()
    _, metadata = save(figure, tmp_path, "pace")._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "COLT loses to IMP."
    assert "Markdown" in capsys.readouterr().out


def test_a_message_is_short(one_line: Message) -> None:
    assert "allowed: 1 to 250" in one_line(lambda: plots.says(plt.figure(), "x" * 251))
    assert "0 characters" in one_line(lambda: plots.says(plt.figure(), ""))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Interval(1.0, 0.5, 1.5, 3), "better: 1.00 points [0.50, 1.50] (n = 3)."),
        (Interval(-1.0, -1.5, -0.5, 3), "worse: -1.00 points [-1.50, -0.50] (n = 3)."),
        (Interval(1.0, -0.5, 2.5, 3), "alike: 1.00 points [-0.50, 2.50] (n = 3)."),
        (Interval(1.0, None, None, 1), "alike: 1.00 points (n = 1)."),
        (None, "This study does not measure the difference."),
    ],
)
def test_a_message_says_what_the_interval_shows(found: Interval | None, said: str) -> None:
    assert plots.message(found, "better", "alike", "worse") == said


# --- arms as rows


def test_arms_are_rows_with_their_labels_means_and_seeds(ax: Axes) -> None:
    by_seed = {0: 1.0, 1: 3.0}
    plots.by_arm(ax, {"imp": by_seed, "colt": Interval(-1.0, -2.0, 0.0, 3), "prac": {}})
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["IMP", "COLT", "PrAC"]
    drawn = {tuple(np.asarray(line.get_xdata(), float)) for line in ax.lines}
    assert {(1.0, 3.0), (2.0,), (-1.0,), (0.0, 0.0)} <= drawn
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first arm is at the top


def test_a_trade_has_the_reference_at_the_origin(ax: Axes) -> None:
    found = {"colt": ({0: 20.0, 1: 30.0}, {0: -1.0, 1: -3.0}), "prac": ({}, {})}
    plots.trade(ax, found, "imp", cost="images")
    means = {tuple(np.ravel((line.get_xdata(), line.get_ydata()))) for line in ax.lines}
    assert {(0.0, 0.0), (25.0, -2.0)} <= means
    assert ax.get_xlabel() == "images saved (% of IMP)"
    assert ax.get_legend_handles_labels()[1] == ["IMP (reference)", "COLT"]


def test_an_axis_ends_where_its_quantity_does(ax: Axes) -> None:
    ax.plot([0, 1], [50, 104])
    plots.within(ax)
    assert ax.get_ylim()[1] == 100 and ax.get_ylim()[0] > 40


def test_a_legend_below_takes_the_label_of_the_shared_axis_as_its_title() -> None:
    figure, axes = plots.panels(2, 3, 3)
    axes[0].plot([0, 1], label="IMP")
    figure.supxlabel("accuracy (%)")
    plots.legend(figure, "below")
    (found,) = figure.legends
    assert found.get_title().get_text() == "accuracy (%)"
    assert not figure.get_supxlabel()


def test_a_legend_stands_outside_and_names_each_label_once() -> None:
    figure, axes = plots.panels(2, 3, 3)
    for ax in axes:
        ax.plot([0, 1], label="IMP")
    plots.legend(figure)
    (found,) = figure.legends
    assert [text.get_text() for text in found.get_texts()] == ["IMP"]
