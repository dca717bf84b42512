"""Tables that reports share: rows of records, layers, intervals as text."""

import pandas as pd

from ticketlab.study.results import Result
from ticketlab.study.stats import as_metric, as_share
from ticketlab.study.tables import (
    differences_table,
    heading,
    intervals_column,
    intervals_table,
    labelled,
    layers_table,
    rows_of,
    text,
)

ONE = as_metric([1.0, 3.0])


def test_rows_come_from_the_named_units_after_the_head() -> None:
    results = {
        "search/a": Result({"arm": "a", "rows": [{"round": 0}, {"round": 1}]}),
        "score/a": Result({"rows": [{"round": 2}]}),
        "other": Result({}),
    }
    assert rows_of(results, "rows", head=["arm"]).fillna("").values.tolist() == [
        ["a", 0],
        ["a", 1],
        ["", 2],
    ]
    assert rows_of(results, "rows", "score/").to_dict("list") == {"round": [2]}
    assert rows_of(results, "rows", "nothing/").empty


def test_each_layer_of_a_ticket_has_a_row() -> None:
    frame = pd.DataFrame({"arm": ["a", "b"], "layers": [{"x": 0.5, "y": 1.0}, {"x": 0.1}]})
    assert layers_table(frame, ["arm"]).values.tolist() == [
        ["a", "x", 0.5],
        ["a", "y", 1.0],
        ["b", "x", 0.1],
    ]


def test_numbers_of_metrics_as_text() -> None:
    assert text(ONE) == "2.00 [-10.71, 14.71] (n = 2)" and text(None) == "-" and text(2.5) == "2.5"
    assert text(as_share({0: True, 1: True})).startswith("2 of 2, 100 %")
    assert intervals_column({"a": ONE, ("b", "c"): None}, "n").n.tolist() == [text(ONE), "-"]
    table = intervals_table({"a": {"at_90": ONE}, "b": {"mean": None}, "c": 3}, "points")
    assert table.index.tolist() == ["a", "b"] and table.columns.tolist() == ["at 90 %", "mean"]
    assert table.to_numpy().tolist() == [[text(ONE), "-"], ["-", "-"]]
    assert (heading("at_97.5"), heading("mean")) == ("at 97.5 %", "mean")


def test_differences_that_no_arm_has_are_left_out_and_nets_show_their_mean() -> None:
    found = {
        "rst_minus_a": {"net": {"at_90": None, "mean": ONE}, "mean": ONE},
        "rst_minus_b": {"mean": None},
        "a_minus_b": {"at_90": None, "mean": ONE},
    }
    assert differences_table(found).index.tolist() == ["rst_minus_a", "a_minus_b"]
    own = differences_table(found, "rst_minus")
    assert own.to_dict("index") == {"rst_minus_a": {"net": text(ONE), "mean": text(ONE)}}
    assert differences_table({"x": {"mean": None}}).empty


def test_a_table_for_a_page_has_labels_for_machine_names() -> None:
    frame = pd.DataFrame({"arm": ["imp", "mine"], "iou": [1, 2]}, index=["colt_minus_imp", 3])
    shown = labelled(frame)
    assert shown.index.tolist() == ["COLT minus IMP", 3]
    assert shown.columns.tolist() == ["arm", "intersection over union"]
    assert shown.arm.tolist() == ["IMP", "mine"] and frame.arm.tolist() == ["imp", "mine"]
    two = pd.DataFrame({"x": [1]}, index=pd.MultiIndex.from_tuples([("imp", "mask only")]))
    assert labelled(two).index.tolist() == [("IMP", "mask only")]
