"""Statements of exactness: false ones end a notebook's run, and all notebooks' are in one list."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import planted
import pytest
import quick
import tiny
import torch
from conftest import small_net

from ticketlab.data.sets import DataSet, load
from ticketlab.files import write_json
from ticketlab.models import ModelSpec, prunable
from ticketlab.pipeline.params import read_studies
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pruning.masks import Mask, ones
from ticketlab.spec import ROOT
from ticketlab.study import exactness, regime
from ticketlab.study.claims import load_claims
from ticketlab.study.exactness import NotExact, exactly
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import make_ticket
from ticketlab.training.recipe import Recipe, Step

# --- in the notebooks


@pytest.mark.parametrize("paper", PAPERS)
def test_the_list_has_every_statement_of_a_notebook(paper: str) -> None:
    cells = [cell.source for cell in planted.read(paper).cells if cell.cell_type == "code"]
    said = [words for source in cells for words in planted.statements(source)]
    assert said == list(planted.STATEMENTS[paper])


@pytest.mark.parametrize("paper", planted.EARLY)
def test_two_swapped_weights_end_a_notebooks_run(paper: str, tmp_path: Path) -> None:
    """Executed as `jupyter execute` does it, on the notebook's own small parameters."""
    for name in ("claims", "params.yaml", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    nbformat.write(planted.ending(paper), tmp_path / "page.ipynb")
    env = {
        "PATH": f"{quick.folder()}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PATH": str(quick.folder()),
        "TICKETLAB_ROOT": str(tmp_path),
        "TICKETLAB_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["jupyter-execute", "page.ipynb"], cwd=tmp_path, env=os.environ | env, check=False,
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"NotExact: does not hold: {planted.EARLY[paper]}" in done.stderr
    assert not (tmp_path / "went-on").exists()


@pytest.mark.parametrize("paper", PAPERS)
def test_prose_is_true_for_every_study(paper: str) -> None:
    """It names no study (`paper` is also a way of planting), and its own claims."""
    texts = [cell.source for cell in planted.read(paper).cells if cell.cell_type == "markdown"]
    studies = set(read_studies()) - {"paper"}
    assert [name for name in studies for text in texts if f"`{name}`" in text] == []
    (prefix,) = re.findall(r"Claims\s+`(\w+)-\*`", texts[0])
    assert {claim.id.partition("-")[0] for claim in load_claims(paper)} == {prefix}


# --- the checks themselves


def test_a_true_statement_is_said_and_a_false_one_raises(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exactly("one is one", True)
    exactly("numpy's too", np.bool_(True))
    assert capsys.readouterr().out == "checked: one is one\nchecked: numpy's too\n"
    with pytest.raises(NotExact, match="does not hold: one is two"):
        exactly("one is two", False)


@pytest.mark.parametrize("value", [1, "no", [False], torch.tensor(True), pd.Series([True]), None])
def test_what_is_true_for_other_reasons_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="bool"):
        exactly("anything", value)


@pytest.fixture
def ticket() -> Any:
    """A mask, a state under it, and the names of both."""
    net = small_net()
    dense = ones(net.model, prunable(net.model, "conv"))
    mask = Mask({n: torch.arange(k.numel()).view(k.shape) % 3 == 0 for n, k in dense.items()})
    return mask, make_ticket(mask, net.state()).weights


def test_each_comparison_of_states_sees_its_own_swap(ticket: Any) -> None:
    mask, state = ticket
    tools: dict[str, Any] = {}
    exec(planted.TOOLS, tools)
    whole = {
        "kept": lambda other: exactness.same_kept(other, state, mask),
        "gone": lambda other: exactness.zero_outside(other, mask),
        "other": lambda other: exactness.same_others(other, state, mask),
    }
    assert all(holds(state) for holds in whole.values()) and exactness.same_bits(state, state)
    for swapped, failing in (("kept", {"kept"}), ("gone", {"kept", "gone"}), ("other", {"other"})):
        spoiled = tools[f"swap_{swapped}"](state, mask)
        assert not exactness.same_bits(spoiled, state)
        assert {name for name, holds in whole.items() if not holds(spoiled)} == failing


def test_nested_masks_and_the_tickets_of_a_study(ticket: Any) -> None:
    mask, state = ticket
    name = next(iter(mask))
    fewer = Mask({**mask, name: torch.zeros_like(mask[name])})
    assert exactness.nested([mask, fewer]) and not exactness.nested([fewer, mask])
    found = {"search/a": Result({}, {"round-01": make_ticket(mask, state, arm="a", seed=1),
                                     "round-02": make_ticket(fewer)})}  # fmt: skip
    table = exactness.tickets_table(found)
    assert table.alive.tolist() == [mask.alive, fewer.alive]
    assert table.arm[0] == "a" and table.init_sha256.notna().tolist() == [True, False]
    assert table.mask_sha256.tolist() == [mask.digest(), fewer.digest()]
    assert exactness.all_nested(found) and exactness.all_zero_outside(found)
    assert not exactness.all_nested({}) and not exactness.all_zero_outside({})  # nothing holds


def test_tickets_name_the_zeros_that_their_units_trained(ticket: Any, tmp_path: Path) -> None:
    mask, _ = ticket
    name = next(iter(mask))
    fewer = Mask({**mask, name: torch.zeros_like(mask[name])})
    pruned = make_ticket(fewer, pruned_from=mask)
    found = {"search/a": Result({"rows": [{"mask_sha256": mask.digest(), "sparsity": 0.5}]},
                                {"round-01": make_ticket(mask), "round-02": pruned})}  # fmt: skip
    for patterns, holds in (([mask], True), ([mask, fewer], True), ([fewer], False), ([], False)):
        stored = {"trained_mask_sha256": [pattern.digest() for pattern in patterns]}
        write_json(tmp_path / "search" / "a.json", stored)
        assert exactness.all_trained(found, tmp_path) is holds
    assert exactness.all_pruned_in_turn(found)  # the second was pruned from the first
    lone = {"search/a": Result({}, {"round-01": make_ticket(mask), "round-02": make_ticket(fewer)})}
    assert exactness.all_pruned_in_turn(lone)  # each under its own
    third = dict(found["search/a"].tickets) | {"round-03": make_ticket(fewer, pruned_from=mask)}
    assert not exactness.all_pruned_in_turn({"search/a": Result({}, third)})
    assert not exactness.all_trained({}, tmp_path) and not exactness.all_pruned_in_turn({})


def test_tables_agree_row_by_row() -> None:
    a = pd.DataFrame({"seed": [0, 0, 1], "round": [1, 2, 1], "alive": [5, 3, 5]})
    more = pd.concat([a, pd.DataFrame({"seed": [1], "round": [2], "alive": [3]})])
    by = ["seed", "round"]
    assert exactness.same_by(a, more, by, "alive") and not exactness.same_by(more, a, by, "alive")
    near = more.assign(alive=more.alive + 1)
    assert not exactness.same_by(a, near, by, "alive")
    assert exactness.same_by(a, near, by, "alive", near=1)
    assert exactness.one_value(more, ["round"], "alive")
    assert not exactness.one_value(more, ["seed"], "alive")


# --- what the fidelity cards say of a study


def test_a_study_in_words_follows_its_parameters(digits: DataSet) -> None:
    narrow = regime.net(ModelSpec(name="conv3", width=16, conv_bias=False), "conv", digits)
    assert "width 16 where the published net has 64" in narrow and "6.3% of its weights" in narrow
    full = regime.net(ModelSpec(name="lenet_300_100"), "hidden", digits)
    assert full == "lenet_300_100: 88,800 weights can be pruned"
    said = regime.images(tiny.DIGITS, load(tiny.DIGITS))
    assert said.startswith("digits_tiny: 200 for train, 50 for validation, 100 for test; 14 x 14")
    recipe = Recipe.model_validate({"lr": 0.01, "batch": 40, "length": "2ep", "optimizer": "adam"})
    assert regime.schedule(recipe, 200) == (
        "2 epochs, 10 iterations of 40 images; adam, learning rate 0.01"
    )
    assert regime.rewinding(Step(0, "it")) == "initial weights"
    assert regime.card("desk", {"net": full}).data == (
        f"| in this study | `desk` |\n|---|---|\n| net | {full} |"
    )


# --- rows that are not there


def test_checks_of_rows_say_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.DataFrame({"seed": [0, 0], "mask": ["a", "a"]})
    none = rows.head(0)
    assert exactness.one_value(rows, ["seed"], "mask") is True
    assert exactness.all_rows(rows["mask"] == "a") is True
    assert exactness.all_rows(rows["mask"] == "b") is False
    for found in (
        exactness.one_value(none, ["seed"], "mask"),
        exactness.same_by(none, rows, ["seed"], "mask"),
        exactness.all_rows(none["mask"] == "a"),
    ):
        assert found == exactness.NOTHING
        exactly("masks are equal", found)
        assert capsys.readouterr().out == "nothing to check: masks are equal\n"
    assert exactness.same_by(rows, none, ["seed"], "mask") is False
    with pytest.raises(TypeError, match="str given"):
        exactly("masks are equal", "yes")  # type: ignore[arg-type]


UNCHECKED = {
    "desk/colt": [
        "all arms of a seed but reinit start from the same weights at the later point",
        "the later point has other weights than the first",
    ],
    "desk/prac": [
        "a carried sequence starts from all data",
        "a carried last set is trained on in all rounds",
    ],
    "desk/dlth": [
        "RST under LTH's mask has LTH's mask",
        "a seed's first draw of both kinds is one net",
    ],
}
"""What a study has nothing of."""
PAGES = [path.parent.relative_to(ROOT / "results").as_posix()
         for path in sorted(ROOT.glob("results/desk*/*/metrics.json"))]  # fmt: skip


@pytest.mark.parametrize("place", PAGES)
def test_the_committed_pages_check_what_they_state(place: str, committed: Path) -> None:
    paper = place.partition("/")[2]
    page = nbformat.read(committed / "results" / place / f"{paper}.ipynb", as_version=4)
    texts = [out.text for cell in page.cells for out in cell.get("outputs", []) if "text" in out]
    lines = [line for text in texts for line in text.splitlines()]
    skipped = UNCHECKED.get(place, [])
    said = [words for words in planted.STATEMENTS[paper] if words not in skipped]
    assert [line for line in lines if line.startswith("checked: ")] == [
        f"checked: {x}" for x in said
    ]
    assert [x for x in lines if x.startswith(exactness.NOTHING)] == [
        f"{exactness.NOTHING}: {words}" for words in skipped
    ]
