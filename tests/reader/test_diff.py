"""`ticketlab compare`: what differs between two revisions, as data and as a page."""

import gc
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_project
from conftest import Message
from revisions import claim, snapshot, verdict
from scipy.stats import ttest_ind, ttest_rel
from small_project import Project

from ticketlab.pruning.masks import Mask, chance_jaccard, jaccard
from ticketlab.reader import diff, diff_page, snapshots
from ticketlab.reader.diff import Change, ClaimChange
from ticketlab.reader.snapshots import Figure, Snapshot, Tickets
from ticketlab.study.claims import Verdict, Word, load_claims
from ticketlab.study.stats import Count, Evidence, Interval, as_share, interval, share
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
    known = load_claims("colt")[0]

    def judged(**words: Word) -> Snapshot:
        verdicts = {
            name: Verdict(known, word, Interval(1.0, None, None, 1)) for name, word in words.items()
        }
        return snapshot(claims={"desk/colt": verdicts})

    found = diff.claims(
        judged(h1="reproduced", h2="undecided", h3="undecided"),
        judged(h1="undecided", h3="undecided"),
    )
    words = [(c.claim, c.a and c.a.word, c.b and c.b.word, c.flipped) for c in found]
    assert words == [
        ("h1", "reproduced", "undecided", True),
        ("h2", "undecided", None, False),
        ("h3", "undecided", "undecided", False),
    ]
    assert [c.claim for c in found if c.one_sided] == ["h2"]


def test_the_page_says_why_a_claim_is_not_testable() -> None:
    known, found = load_claims("colt")[0], Interval(1.0, 0.5, 1.5, 3)
    why = Verdict(known, "not testable here", found, "the dense net is not above chance")
    good = Verdict(known, "reproduced", found)
    a, b = (snapshot(claims={"desk/colt": {"colt-H1": one}}) for one in (good, why))
    text = diff_page.render(diff_page.gather(a, b))
    assert "Verdicts that flipped (1)" in text
    assert text.count("the dense net is not above chance") == 2  # among the flips, and among all
    assert 'class="verdict not-testable-here">not testable here<' in text


def change(
    a: Evidence, b: Evidence, seeds_a: dict[int, float], seeds_b: dict[int, float]
) -> ClaimChange:
    """What becomes of a claim with this evidence and these numbers by seed in both revisions."""
    metric, sides = claim().metric, ((a, seeds_a), (b, seeds_b))
    one, two = (
        snapshot(
            claims={"desk/prac": {"prac-X": verdict(found)}}, seeds={"desk/prac": {metric: by_seed}}
        )
        for found, by_seed in sides
    )
    (found,) = diff.claims(one, two)
    return found


def changed(a: dict[int, float], b: dict[int, float]) -> ClaimChange:
    """The same of numbers by seed, whose intervals are the evidence."""
    return change(interval(list(a.values())), interval(list(b.values())), a, b)


def test_numbers_of_the_same_seeds_are_paired() -> None:
    a, b = {0: 1.0, 1: 2.0, 2: 9.0}, {0: 1.5, 1: 2.4, 2: 9.6, 3: 100.0}
    shift = changed(a, b).shift
    assert shift and shift.paired and shift.is_clear and not shift.exact
    low, high = ttest_rel([1.5, 2.4, 9.6], [1.0, 2.0, 9.0]).confidence_interval(0.95)
    assert (shift.difference.low, shift.difference.high) == pytest.approx((low, high))
    assert shift.difference.n == 3


def test_numbers_of_other_seeds_are_compared_as_independent_means() -> None:
    a, b = {0: 1.0, 1: 2.0, 2: 4.0}, {10: 3.0, 11: 3.2, 12: 3.1, 13: 3.6}
    shift = changed(a, b).shift
    assert shift and not shift.paired
    test = ttest_ind(list(b.values()), list(a.values()), equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert (shift.difference.low, shift.difference.high) == pytest.approx((low, high))


def test_an_exact_shift_is_clear_and_said_to_be_exact() -> None:
    shift = changed({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.4, 1: 0.5, 2: 0.6}).shift
    assert shift and shift.exact and shift.is_clear


def test_shares_of_seeds_and_single_seeds_get_no_interval() -> None:
    assert change(share([True, False]), share([True, True]), {}, {}).shift is None
    one = Interval(1.0, None, None, 1)
    shift = change(one, Interval(2.0, None, None, 1), {}, {}).shift
    assert shift and shift.difference == one and not shift.is_clear


def test_counts_are_compared_exactly() -> None:
    a, b = {0: 6.0, 1: 6.0}, {0: 5.0, 1: 4.0}
    shift = change(Count(6, 6, 6, 2), Count(4.5, 4, 5, 2), a, b).shift
    assert shift and shift.difference == Count(-1.5, -2, -1, 2) and shift.is_clear


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


def test_figures_with_other_bytes_are_paired() -> None:
    def pictures(**by_name: str) -> Snapshot:
        found = {f"desk/colt/{name}": Figure(png.encode(), "") for name, png in by_name.items()}
        return snapshot(figures=found)

    found = diff.figures(pictures(same="x", cost="a", gone="g"), pictures(same="x", cost="b"))
    shown = [(one.name, one.a and one.a.png, one.b and one.b.png) for one in found["desk/colt"]]
    assert shown == [("cost", b"a", b"b"), ("gone", b"g", None)]


# --- what a snapshot reads


def test_a_list_of_mappings_has_leaves_by_name() -> None:
    """A change deep in a list of nets is one short leaf, not two long lists."""
    tree = {"nets": [{"name": "a", "lr": 0.1}, {"name": "b", "lr": 0.2}], "levels": [0.9, 0.95]}
    assert snapshots.flat(tree) == {
        "nets.a.name": "a", "nets.a.lr": 0.1, "nets.b.name": "b", "nets.b.lr": 0.2,
        "levels": [0.9, 0.95],
    }  # fmt: skip
    twice = {"nets": [{"name": "a", "lr": 0.1}, {"name": "a", "lr": 0.2}]}
    assert snapshots.flat(twice)["nets.1.lr"] == 0.2


def test_a_pictures_words_are_those_of_the_page() -> None:
    data = {"image/png": b64encode(b"picture").decode()}
    output = {"data": data, "metadata": {"image/png": {"alt": "COLT is lower"}}}
    page = {"cells": [{"cell_type": "code", "outputs": [output, {"text": "x"}]}, {"source": ""}]}
    assert list(snapshots._alts(page).values()) == ["COLT is lower"]


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


def test_tickets_with_equal_files_are_not_read() -> None:
    """A study has thousands; `read` refuses here."""
    equal = Tickets({"search/seed-0/round-01": "md5"})
    (found,), refused = diff.overlaps(equal, equal)
    assert (found.ticket, found.n, found.iou, refused) == ("search/round-01", 1, 1.0, [])


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


@pytest.mark.slow
def test_a_sweep_runs_on_copies_and_leaves_the_workspace_alone(project: Project) -> None:
    assert project.run("git status --short") == ""
    rates = {}
    for name in ("workspace", "sweep-1", "sweep-2"):
        with snapshots.opened(name, project.root) as found:
            metrics = found.metrics["desk/colt"]
            rates[name] = (found.params["desk.colt.rate"], -metrics["difference"]["mean"])
    assert rates == {"workspace": (0.4, 0.4), "sweep-1": (0.25, 0.25), "sweep-2": (0.35, 0.35)}


OUTSIDE = re.compile(r"""(?:src|href|action)=(?!["']?(?:data:|#))|@import|url\(""")
"""What a page would load, or lead to."""


def without_script(text: str) -> str:
    """The page without its bundled script, which has addresses of schemas."""
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_the_page_has_what_differs_and_loads_nothing(project: Project, tmp_path: Path) -> None:
    text = page(project, "HEAD", "sweep-1", tmp_path)
    assert "Parameters that differ (1)" in text and "<code>rate</code>" in text
    assert "Verdicts that flipped (1)" in text and "-0.40 [-0.45, -0.35] (n = 3)" in text
    assert "1 of 2 arms moved: COLT is higher by" in text
    assert re.search(r"<b>IMP</b></td><td[^>]*>0</td>.*identical", text)
    expected = [jaccard(small_project.mask(0.4, s), small_project.mask(0.25, s)) for s in range(3)]
    assert "desk/colt/search/colt/round-01" in text and f"{np.mean(expected):.3f}" in text
    pictures = [b64encode(f"a picture of {rate}".encode()).decode() for rate in (0.4, 0.25)]
    assert all(f"data:image/png;base64,{picture}" in text for picture in pictures)
    assert OUTSIDE.search(without_script(text)) is None
    assert text.count("vegaEmbed=") == 1, "the script is there once"


def test_flips_come_first_then_sentences_with_what_is_paired(
    project: Project, tmp_path: Path
) -> None:
    text = without_script(page(project, "HEAD", "sweep-1", tmp_path))
    order = [text.index(f'id="{part}"') for part in ("short", "flips", "desk-colt", "how")]
    assert order == sorted(order)
    sentence = (
        "We measured -0.25, up from -0.40 by exactly 0.15 in each of 3 seeds; "
        "the verdict goes from undecided to reproduced."
    )
    assert text.count(sentence) == 3  # in short, among the flips, and in the paper


def test_experiments_of_a_sweep_are_compared_by_their_names(
    project: Project, tmp_path: Path
) -> None:
    text = page(project, "sweep-1", "sweep-2", tmp_path)
    assert re.search(r'data-of="sweep-1">0.25<.*data-of="sweep-2">0.35<', text)


def test_the_workspace_equals_the_commit_it_is_at(project: Project, tmp_path: Path) -> None:
    text = page(project, "workspace", "HEAD", tmp_path)
    assert "No verdict flipped." in text and "Unchanged: COLT (desk)." in text
    assert "<script" not in text and "<table" not in text


def test_dvc_compares_the_summary_in_columns_that_fit(project: Project) -> None:
    command = "dvc exp show --only-changed --drop '.*/[^:]*$|State|Executor' --csv"
    head = project.run(command).splitlines()[0].split(",")
    wanted = ["colt.claims_reproduced", "colt.difference", "desk.colt.rate"]
    assert [name for name in head if "." in name] == wanted
    moved = project.run("dvc metrics diff HEAD sweep-1").splitlines()[1:]
    assert [line.split()[1] for line in moved] == ["colt.claims_reproduced", "colt.difference"]


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
    assert "No verdict flipped." in text
    for here in (project, clone):
        here.run(f"dvc remote add --default team {tmp_path / 'team-cache'}")
    project.run("dvc push -q")
    clone.run("dvc pull -q")
    text = page(clone, "HEAD", "workspace", tmp_path)
    assert "not in the DVC cache" not in text and "Unchanged: COLT (desk)." in text


def test_a_damaged_cache_file_is_named_not_fatal(project: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, symlinks=True)
    for path in (copy.root / ".dvc" / "cache" / "files").rglob("*"):
        if path.is_file() and not path.name.endswith(".dir"):
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:100])
    text = page(copy, "HEAD", "sweep-1", tmp_path)
    assert "Masks not compared" in text and "Verdicts that flipped (1)" in text


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
    assert "No verdict flipped." in text
    assert '<b class="b">colt-H1</b>, <b class="b">colt-S9</b>.' in text
    text = page(copy, "workspace", "HEAD~1", tmp_path)
    message = "Not judged in workspace: desk/colt: claim colt-H1: metric &#39;gone&#39; is not in"
    assert message in text
