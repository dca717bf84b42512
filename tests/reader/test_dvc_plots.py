"""`dvc plots`: the templates of dvc.yaml, and DVC's page, which must work offline."""

import gc
import json
import re
from collections.abc import Iterator

import pytest
import small_project
import yaml
from scipy.stats import t as student
from small_project import Project

from ticketlab.reader import charts
from ticketlab.spec import ROOT

# DVC's git library leaves packs open, and says so when they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The small project with an experiment."""
    made = small_project.make(tmp_path_factory.mktemp("plots") / "project")
    made.run("dvc exp run -q -n slower -S desk.colt.rate=0.25")
    yield made
    gc.collect()


def test_the_templates_of_dvc_yaml_exist_with_students_intervals() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    plots = [axes for stage in stages for plot in stage.get("plots", []) for axes in plot.values()]
    for name in {axes["template"] for axes in plots}:
        text = (ROOT / ".dvc" / "plots" / f"{name}.json").read_text()
        anchors = ("DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL")
        assert all(f"<DVC_METRIC_{anchor}>" in text for anchor in anchors), name
        json.loads(text)
        (listed,) = re.findall(r"\[(12\.706[^\]]*)\]", text)
        found = [float(t) for t in listed.split(",")]
        assert found == pytest.approx([student.ppf(0.975, n) for n in range(1, 10)], abs=1e-3)


def test_dvc_renders_the_template_for_two_revisions(project: Project) -> None:
    message = project.run(
        "dvc plots diff HEAD slower --show-vega --targets results/desk/colt/scores.csv"
    )
    spec = json.loads(message)
    assert {row["rev"] for row in spec["data"]["values"]} == {"HEAD", "slower"}
    assert "<DVC_METRIC" not in message


def test_the_page_of_dvc_plots_asks_nobody_outside(project: Project) -> None:
    """DVC's own page loads Vega from a server of scripts."""
    project.run("dvc plots diff HEAD slower")
    text = (project.root / "dvc_plots" / "index.html").read_text()
    assert charts.bundle() in text
    text = text.replace(charts.bundle(), "")
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[^>]*>", text) == []
    assert text.count("vegaEmbed('#") == 1
    assert "{plot_divs}" not in text and '"rev": "slower"' in text


def test_the_committed_page_is_the_one_of_the_pinned_bundle() -> None:
    """`python -m ticketlab.reader.charts` writes it."""
    assert (ROOT / ".dvc" / "plots" / "page.html").read_text() == charts.dvc_page()
    config = (ROOT / ".dvc" / "config").read_text()
    assert "html_template = plots/page.html" in config
