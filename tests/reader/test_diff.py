"""`ticketlab compare`: what differs between two revisions, as data and as a page."""

import gc
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import small_project
from conftest import Message
from scipy.stats import t as student
from scipy.stats import ttest_rel
from small_project import Project

from ticketlab.pruning.masks import Mask, chance_jaccard, jaccard
from ticketlab.reader import diff, diff_page, panels, snapshots
from ticketlab.reader.diff import Change, Difference
from ticketlab.reader.snapshots import Curve, Snapshot, Tickets
from ticketlab.spec import ROOT
from ticketlab.study.claims import Verdict, Word, load_claims
from ticketlab.study.stats import Interval, as_share, share
from ticketlab.tickets.ticket import make_ticket

# DVC's git library leaves packs open, and says so when they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def packs_collected_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect them while these warnings are ignored, not in somebody else's test."""
    yield
    if "project" in request.fixturenames:
        gc.collect()


def snapshot(**facts: object) -> Snapshot:
    """A snapshot with nothing in it but `facts`."""
    empty = {"name": "a", "revision": "0", "params": {}, "metrics": {}, "claims": {}, "curves": {}}
    return Snapshot(**{**empty, **facts})


def curve(values: dict[int, list[float]], places: list[float], arm: str = "imp") -> Curve:
    """A table of one arm: y of each seed at `places`."""
    rows = [
        (arm, seed, x, y) for seed, ys in values.items() for x, y in zip(places, ys, strict=True)
    ]
    return Curve("x", "y", pd.DataFrame(rows, columns=["arm", "seed", "x", "y"]))


# --- parameters, claims, metrics


def test_a_parameter_differs_by_value_or_type_or_by_being_there() -> None:
    a = snapshot(params={"same": [1, 2], "rate": 0.4, "flag": 1, "gone": None})
    b = snapshot(params={"same": [1, 2], "rate": 0.3, "flag": True, "new": "x"})
    assert diff.changed_params(a, b) == [
        Change("flag", "1", "True"),
        Change("gone", "None", None),
        Change("new", None, "x"),
        Change("rate", "0.4", "0.3"),
    ]


def test_claims_of_either_side_are_listed_and_flips_are_told() -> None:
    claim = load_claims("colt")[0]

    def judged(**words: Word) -> Snapshot:
        known = {
            name: Verdict(claim, word, Interval(1.0, None, None, 1)) for name, word in words.items()
        }
        return snapshot(claims={"desk/colt": known})

    found = diff.claims(
        judged(h1="reproduced", h2="undecided", h3="undecided"),
        judged(h1="undecided", h3="undecided"),
    )
    words = [(c.claim, c.a and c.a.word, c.b and c.b.word, c.flipped) for c in found]
    assert words == [
        ("h1", "reproduced", "undecided", True),
        ("h2", "undecided", None, True),
        ("h3", "undecided", "undecided", False),
    ]


def test_the_page_says_why_a_claim_is_not_testable() -> None:
    claim, found = load_claims("colt")[0], Interval(1.0, 0.5, 1.5, 3)
    why = Verdict(claim, "not testable here", found, "the dense net is not above chance")
    good = Verdict(claim, "reproduced", found)
    a, b = (snapshot(claims={"desk/colt": {"colt-H1": verdict}}) for verdict in (good, why))
    text = diff_page.render(diff_page.gather(a, b))
    assert "Claims that flipped (1 of 1)" in text
    assert text.count("the dense net is not above chance") == 2  # among the flips, and among all
    assert 'class="not-testable-here">not testable here<' in text


def test_metrics_are_intervals_shares_or_plain_values_and_not_origins() -> None:
    tree = {"x": {"y": {"mean": 1.0, "low": 0.0, "high": 2.0, "n": 3}}, "rounds": 4,
            "z": as_share({0: True, 1: False}), "provenance": {"torch": "2"}}  # fmt: skip
    other = {"rounds": 5, "provenance": {"torch": "3"}}
    a, b = snapshot(metrics={"desk/colt": tree}), snapshot(metrics={"desk/colt": other})
    rows = {row.key: (row.a, row.b) for row in diff.metrics(a, b)["desk/colt"]}
    assert rows == {
        "x.y": (Interval(1.0, 0.0, 2.0, 3), None),
        "rounds": (4, 5),
        "z": (share([True, False]), None),
    }
    assert diff.origins(a, b) == [Change("desk/colt: torch", "2", "3")]


# --- curves


def test_the_paired_difference_is_that_of_a_paired_t_test() -> None:
    random = np.random.default_rng(0)
    a = {seed: random.normal(80, 3, 4).tolist() for seed in range(6)}
    b = {seed: [y + random.normal(1, 0.5) for y in ys] for seed, ys in a.items()}
    places = [0.0, 1.0, 2.0, 3.0]
    (found,) = diff.paired_curves(curve(a, places), curve(b, places))
    # The mean of a piecewise linear curve: trapezoids, up to the grid of 50 places.
    means = [[np.trapezoid(v[s], places) / 3 for s in a] for v in (a, b)]
    expected = ttest_rel(means[1], means[0])
    assert found.difference.mean == pytest.approx(np.subtract(*means[::-1]).mean(), abs=0.02)
    assert found.p == pytest.approx(expected.pvalue, rel=0.2) and found.word == "differs"
    low, high = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=0.05)


def test_curves_are_compared_where_both_are_and_seed_by_seed() -> None:
    a = curve({0: [0.0, 10.0], 1: [0.0, 10.0]}, [0.0, 1.0])
    b = curve({1: [15.0, 25.0], 2: [0.0, 0.0]}, [0.5, 1.5])
    (found,) = diff.paired_curves(a, b)
    assert found.by_seed == {1: pytest.approx(10.0)}  # 15 to 20 against 5 to 10
    assert found.p is None and found.word == "one seed"
    assert diff.paired_curves(a, curve({0: [1.0, 1.0]}, [2.0, 3.0])) == []
    (same,) = diff.paired_curves(a, a)
    assert same.word == "identical" and same.p is None


def test_the_word_comes_from_the_interval() -> None:
    """All seeds moved by the same amount: once "within noise", -16.70 [-16.70, -16.70] (n = 3)."""
    a = curve({seed: [80.0 + seed, 85.0 + seed] for seed in range(3)}, [0.0, 1.0])

    def moved(*by: float) -> Difference:
        other = {seed: [80.0 + seed + d, 85.0 + seed + d] for seed, d in enumerate(by)}
        (found,) = diff.paired_curves(a, curve(other, [0.0, 1.0]))
        return found

    same = moved(-16.7, -16.7, -16.7)
    assert str(same.difference) == "-16.70 [-16.70, -16.70] (n = 3)" and same.word == "differs"
    assert moved(1.0, 1.1, 1.2).word == moved(-1.0, -1.1, -1.2).word == "differs"
    assert moved(-1.0, 0.1, 1.2).word == moved(1.0, 0.0, 0.0).word == "within noise"
    assert moved(0.0, 0.0, 0.0).word == "identical"


def test_a_split_column_makes_curves_of_its_own() -> None:
    table = pd.DataFrame({"arm": "rst", "case": ["main", "wide"], "seed": 0, "x": 1, "y": [1, 2]})
    assert list(diff.arms(Curve("x", "y", table))) == ["rst · main", "rst · wide"]
    assert diff.arms(Curve("x", "z", table)) == {}


def test_densities_are_averaged_on_a_log_scale() -> None:
    assert diff.spread(0.01, 1.0)[0] == pytest.approx(0.01)
    assert np.median(diff.spread(0.01, 1.0)) == pytest.approx(0.1, rel=0.1)
    assert np.median(diff.spread(0.0, 1.0)) == pytest.approx(0.5)


def test_holm_corrects_known_values() -> None:
    assert diff.holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert diff.holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_panel_is_well_formed_and_has_both_sides_with_bands() -> None:
    frames = diff.arms(curve({0: [1.0, 2.0], 1: [2.0, 2.5]}, [0.0, 1.0], arm="<imp> & co"))
    (drawing,) = panels.panels(frames, frames, "x", "y").values()
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"] == "<imp> & co: y against x in both revisions"
    tags = [part.tag for part in root.iter()]
    assert tags.count("circle") == tags.count("rect") == 4
    strokes = [p.get("stroke-dasharray") for p in root.iter("path") if p.get("fill") == "none"]
    assert strokes == [None, "6 3"]


def test_a_single_seed_has_a_line_without_a_band() -> None:
    rows = diff.arms(curve({0: [1.0, 2.0]}, [0.0, 1.0]))["imp"]
    line, lower, upper = panels.mean_curve(rows)
    assert line[0] == (0.0, 1.0) and line[-1] == (1.0, 2.0) and lower == upper == []


# --- masks


def test_masks_are_averaged_over_seeds_beside_chance(one_line: Message) -> None:
    def tickets(rate: float) -> Tickets:
        made = {f"desk/colt/search/seed-{s}/round-01": small_project.mask(rate, s) for s in (0, 1)}
        return Tickets(dict.fromkeys(made), lambda name: make_ticket(made[name]))

    a, b = tickets(0.3), tickets(0.6)
    (found,), refused = diff.overlaps(a, b)
    pairs = [(small_project.mask(0.3, s), small_project.mask(0.6, s)) for s in (0, 1)]
    assert (found.ticket, found.n, refused) == ("desk/colt/search/round-01", 2, [])
    assert found.iou == pytest.approx(np.mean([jaccard(x, y) for x, y in pairs]))
    chances = [chance_jaccard(x.density, y.density) for x, y in pairs]
    assert found.chance == pytest.approx(np.mean(chances))


def test_tickets_of_other_nets_are_named_not_compared() -> None:
    import torch

    small = make_ticket(Mask({"weight": torch.ones(3, dtype=torch.bool)}))
    large = make_ticket(Mask({"weight": torch.ones(4, dtype=torch.bool)}))
    a, b = (Tickets({"t": None}, lambda _, ticket=ticket: ticket) for ticket in (small, large))
    rows, (refused,) = diff.overlaps(a, b)
    assert rows == [] and refused.startswith("t: mask layer 'weight'")


# --- a project under git and DVC


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with a sweep of two experiments that was queued and run."""
    made = small_project.make(tmp_path_factory.mktemp("compare") / "project")
    made.run("dvc exp run --queue -n sweep -S 'desk.colt.rate=0.25,0.35'")
    made.run("dvc exp run --run-all")
    return made


def page(project: Project, a: str, b: str, folder: Path) -> str:
    """The comparison of two revisions."""
    diff_page.write(a, b, folder / "page.html", project.root)
    return (folder / "page.html").read_text()


def test_a_sweep_runs_on_copies_and_leaves_the_workspace_alone(project: Project) -> None:
    assert project.run("git status --short") == ""
    rates = {}
    for name in ("workspace", "sweep-1", "sweep-2"):
        with snapshots.opened(name, project.root) as found:
            metrics = found.metrics["desk/colt"]
            rates[name] = (found.params["desk.colt.rate"], -metrics["difference"]["mean"])
    assert rates == {"workspace": (0.4, 0.4), "sweep-1": (0.25, 0.25), "sweep-2": (0.35, 0.35)}


def test_the_page_has_what_differs_and_loads_nothing(project: Project, tmp_path: Path) -> None:
    text = page(project, "HEAD", "sweep-1", tmp_path)
    assert "Parameters that differ (1)" in text and "desk.colt.rate" in text
    assert "Claims that flipped (1 of 2)" in text and "-0.40 [-0.45, -0.35] (n = 3)" in text
    assert re.search(r"<b>imp</b></td><td[^>]*>0</td>.*identical", text)
    assert re.search(r"<b>colt</b></td>.*differs", text)
    expected = [jaccard(small_project.mask(0.4, s), small_project.mask(0.25, s)) for s in range(3)]
    assert "desk/colt/search/colt/round-01" in text and f"{np.mean(expected):.3f}" in text
    assert text.count("<svg") == 2
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", text)


def test_experiments_of_a_sweep_are_compared_by_their_names(
    project: Project, tmp_path: Path
) -> None:
    text = page(project, "sweep-1", "sweep-2", tmp_path)
    assert re.search(r'data-of="sweep-1">0.25<.*data-of="sweep-2">0.35<', text)


def test_the_workspace_equals_the_commit_it_is_at(project: Project, tmp_path: Path) -> None:
    text = page(project, "workspace", "HEAD", tmp_path)
    assert "Parameters that differ (0)" in text and "Claims that flipped (0 of 2)" in text
    assert "The curves, which are the same" in text and "1.000" in text


def test_an_unknown_revision_is_one_line(
    project: Project, tmp_path: Path, one_line: Message
) -> None:
    message = one_line(lambda: diff_page.write("HEAD", "nope", tmp_path / "x", project.root))
    assert "'nope' is unknown" in message and "workspace" in message
    assert not (tmp_path / "x").exists()


def test_tickets_come_from_the_cache_or_a_remote_or_are_said_to_be_missing(
    project: Project, tmp_path: Path
) -> None:
    """What a colleague sees: a clone without the cache, then `dvc pull` from a folder."""
    clone = Project(tmp_path / "clone")
    project.run(f"git clone -q . {clone.root}")
    text = page(clone, "HEAD", "workspace", tmp_path)
    assert text.count("not in the DVC cache (desk/colt)") == 2
    assert "Claims that flipped (0 of 2)" in text and text.count("<svg") == 2
    for here in (project, clone):
        here.run(f"dvc remote add --default team {tmp_path / 'team-cache'}")
    project.run("dvc push -q")
    clone.run("dvc pull -q")
    text = page(clone, "HEAD", "workspace", tmp_path)
    assert "not in the DVC cache" not in text and "desk/colt/search/colt/round-01" in text


def test_a_damaged_cache_file_is_named_not_fatal(project: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, symlinks=True)
    for path in (copy.root / ".dvc" / "cache" / "files").rglob("*"):
        if path.is_file() and not path.name.endswith(".dir"):
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:100])
    text = page(copy, "HEAD", "sweep-1", tmp_path)
    assert "Not compared" in text and "Claims that flipped (1 of 2)" in text


def test_a_revision_with_rules_of_an_older_form_is_said_to_have_no_verdicts(
    project: Project, tmp_path: Path
) -> None:
    copy = Project(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, symlinks=True)
    claims = copy.root / "claims" / "colt.yaml"
    whole = claims.read_text()
    claims.write_text(whole.replace(" reference: dense,", ""))
    copy.run("git commit -qam 'older rules'")
    claims.write_text(whole.replace("metric: difference", "metric: gone"))
    text = page(copy, "HEAD", "HEAD~1", tmp_path)
    assert "Not judged in HEAD: desk/colt: claims/colt.yaml: 0.reference: Field required" in text
    assert "Claims that flipped (2 of 2)" in text
    text = page(copy, "workspace", "HEAD~1", tmp_path)
    message = "Not judged in workspace: desk/colt: claim colt-H1: metric &#39;gone&#39; is not in"
    assert message in text


# --- DVC's own plots


def test_the_templates_of_dvc_yaml_exist_with_students_intervals() -> None:
    import yaml

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
        "dvc plots diff HEAD sweep-1 --show-vega --targets results/desk/colt/scores.csv"
    )
    spec = json.loads(message)
    assert {row["rev"] for row in spec["data"]["values"]} == {"HEAD", "sweep-1"}
    assert "<DVC_METRIC" not in message
