"""The page of a judgement: one HTML file that loads nothing, with its figure inside."""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ticketlab import labels
from ticketlab.data.sets import load
from ticketlab.judging import answer, report
from ticketlab.judging.given import Given
from ticketlab.judging.params import JudgeParams
from ticketlab.reader.html import templates
from ticketlab.study import controls, plots
from ticketlab.study.claims import as_q, with_reasons
from ticketlab.study.claims import verdict_table as table_of
from ticketlab.study.stats import minus, over_seeds


def render(
    given: Given,
    params: JudgeParams,
    results: report.Results,
    metrics: Mapping[str, Any],
    origin: Mapping[str, str],
) -> str:
    """Return the page; `origin` is the provenance of its numbers."""
    rows, found = report.rows(results), answer.verdicts(dict(metrics))
    drawn = figure(rows)
    facts: dict[str, Any] = {
        "answer": answer.answer(found),
        "sentence": answer.sentence(found, given, params),
        "reasons": answer.reasons(found),
        "notes": answer.notes(given, dict(metrics)),
        "verdicts": found,
        "controls": list(controls.all_of(metrics)),
        "arms": report.arms_table(rows),
        "layers": report.layers(given),
        "facts": report.facts(given, params, load(params.data)),
        "origin": origin,
        "message": plots.alt_text(drawn),
        "picture": picture(drawn),
    }
    return templates(q=as_q).get_template("judge.html.j2").render(facts)


def figure(rows: pd.DataFrame) -> Figure:
    """Draw the accuracy of every arm, and the given mask minus each other, by seed."""
    plots.use_style()
    columns = {report.shown(arm): report.column(rows, arm) for arm in report.ARMS}
    by_arm = {arm: values for arm, values in columns.items() if values}
    own = by_arm[report.shown("given")]
    drawn, (left, right) = plots.panels(2, 5.5, 3.6)
    plots.by_arm(left, by_arm, line=over_seeds(by_arm["dense"]).mean)
    left.set(xlabel="test accuracy (%)", title="Accuracy of every arm")
    gains = {arm: minus(own, other) for arm, other in by_arm.items() if other is not own}
    plots.by_arm(right, gains)
    right.set(xlabel="points, paired by seed", title="Given mask minus each other")
    means = {arm: over_seeds(values).mean for arm, values in gains.items()}
    said = ", ".join(f"{labels.label(arm)} {mean:+.2f}" for arm, mean in means.items())
    return plots.says(drawn, f"The given mask minus each other, in points: {said}.")


def picture(drawn: Figure) -> Markup:
    """Return a figure as the source of an `img` element."""
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(drawn)
    return Markup(f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}")


def summary(given: Given, params: JudgeParams, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer and the verdicts for verdict.json."""
    found = answer.verdicts(dict(metrics))
    table = with_reasons(table_of(found))
    return {
        "answer": answer.answer(found),
        "sentence": answer.sentence(found, given, params),
        "notes": answer.notes(given, dict(metrics)),
        "claims": table.to_dict(orient="records"),
    }
