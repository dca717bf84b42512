"""Lines between the papers' own stored tickets: the units, the tickets, the lines and the numbers."""

from pathlib import Path

import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data

from ticketlab.papers.compare.algorithm import BedBench
from ticketlab.papers.geometry import own, stored, study, units
from ticketlab.papers.geometry.params import BEFORE, OWN, STORED, TWICE, GeometryParams
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit, run_study

pytestmark = pytest.mark.usefixtures("tiny_root")

Study = tuple[GeometryParams, dict[str, Result]]


def only_own(params: GeometryParams) -> GeometryParams:
    """The study without the comparison's beds."""
    return params.model_copy(update={"beds": ()})


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study of the papers' own beds alone, run once for all tests of this file."""
    params = only_own(tiny.geometry())
    with (
        pytest.MonkeyPatch.context() as patch,
        shared_folder(tmp_path_factory, "own-lines") as folder,
    ):
        use_data(patch, tiny_folder)
        return params, run_study(study.phases(params), folder)


def joined(done: Study, paper: str, seed: int = 0) -> Unit:
    """The unit of a paper's lines of a seed."""
    params, results = done
    (bed,) = (bed for bed in params.own_beds if bed.name == paper)
    return study.joining(params, bed, seed, results)


# --- what is trained


@pytest.mark.parametrize("paper", ["colt", "prac", "dlth"])
def test_a_stored_ticket_trained_on_its_own_order_is_its_outcome(done: Study, paper: str) -> None:
    """Bench, weights and mask are those of the paper's own study; another order is another net."""
    unit = joined(done, paper)
    tickets = {name: one for name, one in unit.arguments["tickets"].items() if name != own.DENSE}
    for again in (False, True):
        trained = own.train_again(BedBench(unit.arguments["setting"], 0, again=again), tickets)
        for name, one in tickets.items():
            assert one.outcome is not None
            pairs = [(trained[name][n], x) for n, x in one.outcome.state.items()]
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs) is not again, name
