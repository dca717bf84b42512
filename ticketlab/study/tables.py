"""Tables shared by reports and notebooks: rows of records, intervals as text, column names."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from ticketlab.labels import label
from ticketlab.study.results import Result
from ticketlab.study.stats import Evidence, Interval, as_evidence, is_evidence

Accuracy = Literal["last_accuracy", "selected_accuracy"]
"""Test accuracy in percent: after the last epoch, or after the best epoch on validation."""

LABELS: dict[Accuracy, str] = {
    "last_accuracy": "test accuracy (%), last epoch",
    "selected_accuracy": "test accuracy (%), epoch chosen on validation",
}
"""Names of the accuracies in tables and figures."""
NONE = "-"
"""Shown where a study has no number."""

# ---------------------------------------------------------------- rows of records


def rows_of(
    results: Mapping[str, Result], key: str, *prefixes: str, head: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the rows that records have under `key`, preceded by the columns under `head`, if any.

    Uses all units, or those whose name starts with one of the prefixes.
    """
    rows = []
    for name, result in results.items():
        if name.startswith(prefixes or ""):
            first = {key: result.record[key] for key in head if key in result.record}
            rows += [first | row for row in result.record.get(key, ())]
    return pd.DataFrame(rows)


def layers_table(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return one row per layer of each row's ticket: `columns`, layer, density.

    The frame's column `layers` maps layer names to densities.
    """
    pairs = frame[columns].assign(layers=frame.layers.map(lambda layers: list(layers.items())))
    pairs = pairs.explode("layers").reset_index(drop=True)
    named = pd.DataFrame(pairs.pop("layers").tolist(), columns=["layer", "density"])
    return pairs.join(named)


# ---------------------------------------------------------------- intervals as text


def text(found: Evidence | Mapping[str, Any] | float | None) -> str:
    """Format a number of metrics.json: 'mean [low, high] (n = 3)', share, count or plain number."""
    if found is None:
        return NONE
    if isinstance(found, Mapping):
        return str(as_evidence(found))
    return f"{found:g}" if isinstance(found, int | float) else str(found)


def summary_text(row: "pd.Series[Any]") -> str:
    """Format a row of `plots.summarise`: 'mean [low, high] (n = 3)'."""
    low, high = (None if row.n < 2 else float(row[side]) for side in ("low", "high"))
    return str(Interval(float(row["mean"]), low, high, int(row.n)))


def intervals_column(numbers: Mapping[Any, Any], title: str) -> pd.DataFrame:
    """Format numbers of metrics.json, one row each; several keys together name a row."""
    return pd.Series({name: text(value) for name, value in numbers.items()}).to_frame(title)


def intervals_table(numbers: Mapping[str, Any], title: str) -> pd.DataFrame:
    """Format nested numbers: one row per key, one column per key below it; `title` names both.

    Numbers that are not nested have no row.
    """
    rows = {
        name: {heading(key): text(value) for key, value in inner.items()}
        for name, inner in numbers.items()
        if isinstance(inner, Mapping)
    }
    return pd.DataFrame(rows).T.fillna(NONE).rename_axis(title)


def differences_table(found: Mapping[str, Any], prefix: str = "") -> pd.DataFrame:
    """Format the paired differences whose names start with `prefix`, if any arm has them.

    One row each, one column per level or net, and one for their mean.
    """
    measured = {
        name: {key: part if _is_one(part) else part["mean"] for key, part in parts.items()}
        for name, parts in found.items()
        if name.startswith(prefix) and parts["mean"]
    }
    return intervals_table(measured, "points, paired by seed")


def _is_one(part: Any) -> bool:
    """Return whether this is a single number of metrics.json rather than one per level."""
    return part is None or is_evidence(part)


NAMED = ("arm", "other", "net", "layer", "mask", "weights", "ours", "theirs", "ticket")
"""Columns whose values are machine names."""


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for a page: labels for machine names in its index, columns and names."""
    shown = table.rename(index=_label, columns=_label)
    for column in [name for name in NAMED if name in table]:
        shown[_label(column)] = table[column].map(_label).tolist()
    return shown


def _label(name: Any) -> Any:
    return label(name) if isinstance(name, str) else name


def heading(key: str) -> str:
    """Turn a key of metrics.json into a column name: 'at_90' becomes 'at 90 %'."""
    level = key.removeprefix("at_")
    return f"at {level} %" if level != key else key
