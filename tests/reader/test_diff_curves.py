"""How far curves moved between two revisions: paired by seed, on the axis as drawn."""

import numpy as np
import pandas as pd
import pytest
from revisions import curve
from scipy.stats import ttest_rel

from ticketlab.reader import diff_curves
from ticketlab.reader.diff_curves import Difference
from ticketlab.reader.snapshots import Curve
from ticketlab.study.stats import interval


def test_the_paired_difference_is_that_of_a_paired_t_test() -> None:
    random = np.random.default_rng(0)
    a = {seed: random.normal(80, 3, 4).tolist() for seed in range(6)}
    b = {seed: [y + random.normal(1, 0.5) for y in ys] for seed, ys in a.items()}
    places = [0.0, 1.0, 2.0, 3.0]
    (found,) = diff_curves.paired_curves(curve(a, places), curve(b, places))
    # The mean of a piecewise linear curve: trapezoids, up to the grid of 50 places.
    means = [[np.trapezoid(v[s], places) / 3 for s in a] for v in (a, b)]
    expected = ttest_rel(means[1], means[0])
    assert found.difference.mean == pytest.approx(np.subtract(*means[::-1]).mean(), abs=0.02)
    assert found.p == pytest.approx(expected.pvalue, rel=0.2) and found.word == "higher"
    low, high = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=0.05)


def test_curves_are_compared_where_both_are_and_seed_by_seed() -> None:
    a = curve({0: [0.0, 10.0], 1: [0.0, 10.0]}, [0.0, 1.0])
    b = curve({1: [15.0, 25.0], 2: [0.0, 0.0]}, [0.5, 1.5])
    (found,) = diff_curves.paired_curves(a, b)
    assert found.by_seed == {1: pytest.approx(10.0)}  # 15 to 20 against 5 to 10
    assert found.p is None and found.word == "one seed"
    assert diff_curves.paired_curves(a, curve({0: [1.0, 1.0]}, [2.0, 3.0])) == []
    (same,) = diff_curves.paired_curves(a, a)
    assert same.word == "identical" and same.p is None


def test_the_word_comes_from_the_interval() -> None:
    """All seeds moved by the same amount: once "within noise", -16.70 [-16.70, -16.70] (n = 3)."""
    a = curve({seed: [80.0 + seed, 85.0 + seed] for seed in range(3)}, [0.0, 1.0])

    def moved(*by: float) -> Difference:
        other = {seed: [80.0 + seed + d, 85.0 + seed + d] for seed, d in enumerate(by)}
        (found,) = diff_curves.paired_curves(a, curve(other, [0.0, 1.0]))
        return found

    same = moved(-16.7, -16.7, -16.7)
    assert str(same.difference) == "-16.70 [-16.70, -16.70] (n = 3)" and same.word == "lower"
    assert moved(1.0, 1.1, 1.2).word == "higher" and moved(-1.0, -1.1, -1.2).word == "lower"
    assert moved(-1.0, 0.1, 1.2).word == moved(1.0, 0.0, 0.0).word == "no clear difference"
    assert moved(0.0, 0.0, 0.0).word == "identical"


def test_a_split_column_makes_curves_of_its_own() -> None:
    table = pd.DataFrame({"arm": "rst", "case": ["main", "wide"], "seed": 0, "x": 1, "y": [1, 2]})
    assert list(diff_curves.arms(Curve("x", "y", table))) == ["rst · main", "rst · wide"]
    assert diff_curves.arms(Curve("x", "z", table)) == {}


def test_sparsities_are_averaged_on_a_log_axis_of_density() -> None:
    """A difference at 99 % weighs as much as one at 0 %: on a linear axis it had a tenth."""
    places = [0.0, 0.9, 0.99, 1.0]
    a, b = (
        curve({0: [80.0, 80.0, last, 0.0], 1: [80.0, 80.0, last, 0.0]}, places)
        for last in (80.0, 82.0)
    )
    a, b = (Curve("sparsity", "y", one.table.rename(columns={"x": "sparsity"})) for one in (a, b))
    assert sorted(diff_curves.arms(a)["imp"].x.unique()) == pytest.approx([0.01, 0.1, 1.0])
    (found,) = diff_curves.paired_curves(a, b)
    assert found.difference.mean == pytest.approx(0.5, rel=0.05)  # 0 for one decade, then up to 2
    assert np.median(diff_curves.spread(0.01, 1.0, log=True)) == pytest.approx(0.1, rel=0.1)
    assert np.median(diff_curves.spread(0.0, 1.0, log=False)) == pytest.approx(0.5)


@pytest.mark.parametrize("x", ["sparsity", "level", "density"])
def test_weights_that_are_left_are_on_the_log_axis(x: str) -> None:
    table = pd.DataFrame({"arm": "imp", "seed": 0, x: [0.25, 0.5], "y": [1.0, 2.0]})
    assert Curve(x, "y", table).is_log
    density = [0.25, 0.5] if x == "density" else [0.75, 0.5]
    assert sorted(diff_curves.arms(Curve(x, "y", table))["imp"].x) == sorted(density)


def test_holm_corrects_known_values() -> None:
    assert diff_curves.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert diff_curves.holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_mean_curve_has_the_range_that_all_seeds_share() -> None:
    rows = curve({0: [1.0, 2.0, 3.0]}, [0.0, 1.0, 2.0]).table
    late = curve({1: [3.0, 4.0]}, [0.5, 1.5]).table
    found = diff_curves.mean_curve(pd.concat([rows, late]), log=False)
    assert found.x.tolist() == [0.5, 1.0, 1.5] and found["mean"].tolist() == [2.25, 2.75, 3.25]
    assert found.n.tolist() == [2.0, 2.0, 2.0]
    expected = interval([2.0, 3.5])
    assert (found.low[1], found.high[1]) == pytest.approx((expected.low, expected.high))


def test_a_single_seed_has_a_line_without_a_band() -> None:
    found = diff_curves.mean_curve(curve({0: [1.0, 2.0]}, [0.0, 1.0]).table, log=False)
    assert found["mean"].tolist() == [1.0, 2.0] and found[["low", "high"]].isna().all(axis=None)


def test_seeds_that_share_no_range_have_no_line() -> None:
    apart = pd.concat([curve({0: [1.0]}, [0.0]).table, curve({1: [1.0]}, [1.0]).table])
    assert diff_curves.mean_curve(apart, log=False).empty
