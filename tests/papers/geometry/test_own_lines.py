"""Lines between the papers' own stored tickets: units, tickets, lines, numbers."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import tiny
import torch
from conftest import Message, shared_folder, use_data

from ticketlab.papers.compare.algorithm import BedBench
from ticketlab.papers.geometry import figures, own, own_lines, report, stored, study, units
from ticketlab.papers.geometry.forecast import planned, predicted_stored
from ticketlab.papers.geometry.metrics import own_numbers
from ticketlab.papers.geometry.params import BEFORE, OWN, STORED, TWICE, GeometryParams, OwnBed
from ticketlab.pipeline.params import load_paper, validate
from ticketlab.pipeline.registry import PAPERS
from ticketlab.pruning.masks import Mask
from ticketlab.study.claims import judge, load_claims
from ticketlab.study.results import Result
from ticketlab.study.runner import Unit, run_study
from ticketlab.tickets.ticket import Outcome, Ticket

pytestmark = pytest.mark.usefixtures("tiny_root")

Study = tuple[GeometryParams, dict[str, Result]]
OF_OWN_BEDS = ("colt", "prac", "dlth")


def own_beds_alone() -> GeometryParams:
    """The tiny study without the comparison's beds; COLT's own has no validation images, as desk's.

    The tiny study itself splits all beds alike, so that an image has one place (test_laws.py).
    """
    values = tiny.geometry_values()
    values["own_beds"][0]["stored"]["validation"] = 0
    return GeometryParams.model_validate(values).model_copy(update={"beds": ()})


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The tiny study without the comparison's beds, run once for all tests of this file."""
    params = own_beds_alone()
    with (
        pytest.MonkeyPatch.context() as patch,
        shared_folder(tmp_path_factory, "own-lines") as folder,
    ):
        use_data(patch, tiny_folder)
        return params, run_study(study.phases(params), folder)


def bed_of(params: GeometryParams, name: str) -> OwnBed:
    """A paper's own bed."""
    return next(bed for bed in params.own_beds if bed.name == name)


def joined(done: Study, paper: str, seed: int = 0) -> Unit:
    """The unit of a paper's lines of a seed."""
    params, results = done
    return study.joining(params, bed_of(params, paper), seed, results)


# --- the papers' own units


@pytest.mark.parametrize(
    "home, paper", [("desk", one) for one in OF_OWN_BEDS] + [("desk_long", "prac")]
)
def test_the_units_are_those_of_the_papers_own_study(home: str, paper: str) -> None:
    """The same functions and arguments, so the same keys: nothing is trained twice.

    DLTH's in desk_long have more arms in each unit; those of desk, without them, are read.
    """
    params, theirs = load_paper("desk_long", "geometry"), load_paper(home, paper)
    assert isinstance(params, GeometryParams)
    each = stored.of(params, bed_of(params, paper))
    assert each is not None and each.params.seeds == theirs.seeds  # type: ignore[attr-defined]
    searches = each.searches()
    found = {unit.name: predicted_stored(paper, unit) for unit in searches}
    mine = [*searches, *each.scorings(found)]
    known = {
        unit.name: unit
        for phase in PAPERS[paper].planned(theirs)
        for unit in phase
        if unit.arguments["seed"] == theirs.seeds[0]  # type: ignore[attr-defined]
    }
    mine = [unit for unit in mine if unit.name in known]
    assert len(mine) == {"colt": 5, "prac": 4, "dlth": 5}[paper]
    for unit in mine:
        own, other = dict(unit.arguments), dict(known[unit.name].arguments)
        assert own.pop("setting", None) == other.pop("setting", None), unit.name
        assert own.keys() == other.keys() and unit.work is known[unit.name].work, unit.name
        placeholders = {"chosen", "dense", "schedule"}
        assert all(own[n] == other[n] for n in own.keys() - placeholders), unit.name


def test_units_of_the_tiny_study_have_the_keys_of_the_papers_own(done: Study) -> None:
    """With the real masks and tickets of the searches, every unit is one of the paper's study."""
    params, results = done
    for bed in params.own_beds:
        each = stored.of(params, bed)
        assert each is not None
        mine = [*each.searches(), *each.scorings(stored.own_names(bed, results))]
        theirs, keys = PAPERS[bed.name].phases(each.params), dict[str, str]()
        phase = next(theirs)
        try:
            while True:
                keys |= {unit.name: unit.key for unit in phase}
                phase = theirs.send({
                    unit.name: results.get(stored.prefix(bed) + unit.name)
                    or predicted_stored(bed.name, unit)  # an arm that is not read here
                    for unit in phase
                })  # fmt: skip
        except StopIteration:
            assert {unit.name: unit.key for unit in mine} == {u.name: keys[u.name] for u in mine}


def test_stored_units_do_not_enter_the_other_tables(done: Study) -> None:
    _, results = done
    every = report.tables({n: one for n, one in results.items() if n.startswith((OWN, STORED))})
    assert set(every["own"].arm) == {
        "dense",
        "random",
        "imp",
        "learning-rate rewinding",
        "finetuning",
    }
    assert every["rounds"].empty and every["lines"].empty
    assert set(every["own_lines"].net) == set(OF_OWN_BEDS)


def test_a_bed_without_stored_units_has_no_lines() -> None:
    params = tiny.geometry()
    bare = tuple(bed.model_copy(update={"stored": None}) for bed in params.own_beds)
    names = [
        u.name for phase in planned(params.model_copy(update={"own_beds": bare})) for u in phase
    ]
    assert not [n for n in names if n.startswith(STORED) or "own/colt/lines" in n]


def test_without_stored_units_the_numbers_of_lines_are_null(done: Study) -> None:
    """Their claims are then "not run", and not judged on a number that metrics.json lacks."""
    params, results = done
    bare = tuple(bed.model_copy(update={"stored": None}) for bed in params.own_beds)
    found = {
        "own": own_numbers(report.tables(results), params.model_copy(update={"own_beds": bare}))
    }
    assert found["own"]["lines"] is None and found["own"]["rewinding"] is not None
    of_lines = [one for one in load_claims("geometry") if one.metric.startswith("own.lines")]
    judged = [judge(one, found) for one in of_lines]
    assert of_lines and {verdict.word for verdict in judged} == {"not run"}


# --- tickets


def ticket(sparsity: float, outcome: bool = True) -> Ticket:
    """A ticket of 1,000 weights."""
    trained = Outcome({"w": torch.zeros(1)}, torch.zeros(1, 1)) if outcome else None
    return Ticket(Mask({"w": torch.arange(1000) >= round(1000 * sparsity)}), outcome=trained)


def test_the_nearest_ticket_by_remaining_weights_is_taken(one_line: Message) -> None:
    """0.86 is nearer to 0.8 than to 0.9 by difference, but not by ratio of what remains."""
    bed = bed_of(tiny.geometry(), "colt").model_copy(update={"levels": (0.8, 0.9)})
    trained = {"dense": [ticket(0.0)], "imp": [ticket(0.75), ticket(0.86), ticket(0.94)]}
    found = stored.chosen(bed, trained)
    assert {n: one.mask.sparsity for n, one in found.items()} == {
        "dense/0": 0.0, "imp/0.8": 0.75, "imp/0.9": 0.86,
    }  # fmt: skip
    message = one_line(lambda: stored.chosen(bed, trained | {"prac": []}))
    assert "own_beds.colt: no stored ticket of prac" in message


def test_tickets_without_an_outcome_and_the_dense_one_are_left_out(done: Study) -> None:
    params, results = done
    found = stored.of(params, bed_of(params, "prac"))
    assert found is not None
    arms = found.trained(stored.own_names(bed_of(params, "prac"), results), 0)
    assert {arm: len(tickets) for arm, tickets in arms.items()} == {
        "dense": 1, "imp": 1, "prac": 1, "random": 1,
    }  # fmt: skip
    assert all(one.outcome is not None for tickets in arms.values() for one in tickets)
    assert len(results["stored/prac/search/main/imp/seed-0"].tickets) == 3


def test_lines_go_to_the_dense_net_to_imp_and_back_a_round(done: Study) -> None:
    by_hand = {
        ("imp/0.6", "dense", "dense/0"), ("imp-matched/0.6", "dense", "dense/0"),
        ("colt/0.6", "dense", "dense/0"), ("random/0.6", "dense", "dense/0"),
        ("imp-matched/0.6", "imp", "imp/0.6"), ("colt/0.6", "imp", "imp/0.6"),
        ("random/0.6", "imp", "imp/0.6"), ("colt/0.6", "imp-matched", "imp-matched/0.6"),
        ("random/0.6", "imp-matched", "imp-matched/0.6"),
    }  # fmt: skip
    higher = {(a.replace("0.6", "0.8"), b, c.replace("0.6", "0.8")) for a, b, c in by_hand}
    back = {(f"{arm}/0.8", BEFORE, f"{arm}/0.6") for arm in ("imp", "imp-matched", "colt")}
    ways = joined(done, "colt").arguments["ways"]
    assert set(ways) == by_hand | higher | back and len(ways) == len(set(ways))
    assert {(a.partition("/")[0], b) for a, b, _ in joined(done, "dlth").arguments["ways"]} == {
        ("lth", "dense"), ("rst", "dense"), ("random", "dense"), ("rst", "lth"), ("random", "lth"),
    }  # fmt: skip


# --- lines


@pytest.mark.parametrize("paper", OF_OWN_BEDS)
def test_a_stored_ticket_trained_on_its_own_order_is_its_outcome(done: Study, paper: str) -> None:
    """Bench, weights and mask are those of the paper's own study; another order, another net."""
    unit = joined(done, paper)
    tickets = {name: one for name, one in unit.arguments["tickets"].items() if name != own.DENSE}
    for again in (False, True):
        trained = own.train_again(BedBench(unit.arguments["setting"], 0, again=again), tickets)
        for name, one in tickets.items():
            assert one.outcome is not None
            pairs = [(trained[name][n], x) for n, x in one.outcome.state.items()]
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs) is not again, name


@pytest.mark.parametrize("paper", OF_OWN_BEDS)
def test_lines_begin_at_the_ticket_s_outcome_and_end_at_the_other_s(
    done: Study, paper: str
) -> None:
    """Neither at the untrained weights, nor the other way round."""
    _, results = done
    arguments = joined(done, paper).arguments
    setting, tickets = arguments["setting"], arguments["tickets"]
    examiner = units.Examiner(BedBench(setting, 0), setting)
    rows = {(f"{row['arm']}/{row['level']:g}", row["other"]): row
            for row in results[f"{OWN}{paper}/lines/seed-0"].record["own_lines"]}  # fmt: skip
    turned, untrained = 0, 0
    for name, other, end in arguments["ways"]:
        ends = [tickets[one].outcome.state for one in (name, end)]
        assert rows[name, other]["errors"] == list(examiner.line(*ends).errors), (name, other)
        turned += rows[name, other]["errors"] != list(examiner.line(*ends[::-1]).errors)
        weights = [tickets[one].weights for one in (name, end)]
        untrained += rows[name, other]["errors"] != list(examiner.line(*weights).errors)
    assert turned and untrained  # so the comparison above would show either fault
    second = own.train_again(BedBench(setting, 0, again=True),
                             {n: one for n, one in tickets.items() if n != own.DENSE})  # fmt: skip
    for name, state in second.items():
        line = examiner.line(tickets[name].outcome.state, state)
        assert rows[name, TWICE]["errors"] == list(line.errors)
    assert len(rows) == len(arguments["ways"]) + len(second)


def test_gain_is_the_ticket_s_accuracy_minus_the_dense_net_s(done: Study) -> None:
    """The scores are those that the papers' own units have recorded of the same nets."""
    _, results = done
    rows = results[f"{OWN}dlth/lines/seed-0"].record["own_lines"]
    scores = {row["arm"]: row["last_accuracy"] for row in
              results["stored/dlth/main/pretrained/seed-0"].record["rows"]}  # fmt: skip
    for row in rows:
        if row["arm"] == "lth":
            assert row["last_accuracy"] == pytest.approx(scores["lth"])
            assert row["gain"] == pytest.approx(scores["lth"] - scores["dense"])


def test_another_outcome_than_the_key_names_is_refused(done: Study, one_line: Message) -> None:
    arguments = dict(joined(done, "dlth").arguments)
    arguments["trained"] = arguments["trained"] | {"dense/0": "0" * 64}
    assert "'dense/0'" in one_line(lambda: own.join_stored(**arguments))
    bench = BedBench(arguments["setting"], 0)
    assert "'a/1': it has no weights" in one_line(
        lambda: own.train_again(bench, {"a/1": ticket(0.5)})
    )


# --- numbers


def lines_by_hand() -> pd.DataFrame:
    """One bed of two levels, two seeds."""
    rows = [
        # barrier to itself on another order, gain over the dense net
        ("imp", TWICE, 0.6, 0, 1.0, 0.5),  # stable, matches
        ("imp", TWICE, 0.8, 0, 4.0, -5.0),  # neither
        ("imp", TWICE, 0.6, 1, 2.0, -1.0),  # stable, matches: both at their thresholds
        ("imp", TWICE, 0.8, 1, 1.0, -5.0),  # stable only
        ("imp", "dense", 0.6, 0, 0.0, 0.5),
        ("imp", "dense", 0.8, 0, 6.0, -5.0),
        ("imp", "dense", 0.6, 1, 0.0, -1.0),
        ("imp", "dense", 0.8, 1, 2.0, -5.0),
        ("imp", BEFORE, 0.8, 0, 3.0, -5.0),
        ("imp", BEFORE, 0.8, 1, 3.0, -5.0),
    ]
    columns = ["arm", "other", "level", "seed", "barrier", "gain"]
    return pd.DataFrame(rows, columns=columns).assign(net="colt", sparsity=0.5)


def test_numbers_by_hand() -> None:
    params = tiny.geometry()
    found = own_lines.metrics(lines_by_hand(), params)
    assert [name for name, one in found.items() if one] == ["imp", "every"]
    assert set(found) == {*own_lines.METHODS, "every"}
    assert set(found["imp"]) == {"to_dense", "twice", "before"}  # nothing else was drawn
    assert found["imp"]["twice"]["mean"].by_seed == {0: 2 - 2.5, 1: 2 - 1.5}
    assert found["imp"]["to_dense"]["colt"].by_seed == {0: -1.0, 1: 1.0}
    assert found["imp"]["before"]["mean"].by_seed == {0: -1.0, 1: -1.0}
    assert found["imp"]["before"]["prac"] is None and found["imp"]["before"]["mean"]["n"] == 2
    assert found["every"]["stable"]["mean"].by_seed == {0: 100.0, 1: 50.0}
    assert found["every"]["stable_where_matching"]["mean"].by_seed == {0: 100.0, 1: 100.0}
    none = own_lines.metrics(lines_by_hand().assign(gain=-5.0), params)["every"]
    assert none["stable_where_matching"]["mean"] is None
    assert found["every"]["unmatched_tickets"]["colt"].by_seed == {0: 50.0, 1: 50.0}


def test_the_tiny_study_has_numbers_figures_and_a_table(done: Study) -> None:
    params, results = done
    rows = report.tables(results)["own_lines"]
    numbers = {"own": {"lines": own_lines.metrics(rows, params)}}
    lines = numbers["own"]["lines"]
    assert set(lines) == {"imp", "imp_matched", "colt", "random", "prac", "lth", "rst", "every"}
    assert {bed for bed, one in lines["random"]["twice"].items() if one} == {*OF_OWN_BEDS, "mean"}
    assert {bed for bed, one in lines["imp"]["twice"].items() if one} == {"colt", "prac", "mean"}
    for figure in (figures.own_barriers(rows, params, numbers),
                   figures.own_stability(rows, params, numbers)):  # fmt: skip
        assert figure.get_label() and figure.axes
        plt.close(figure)
    for bed in OF_OWN_BEDS:  # a study may have the own bed of one paper alone
        one = params.model_copy(update={"own_beds": [b for b in params.own_beds if b.name == bed]})
        some = rows[rows.net == bed]
        numbers = {"own": {"lines": own_lines.metrics(some, one)}}
        figure = figures.own_barriers(some, one, numbers)
        assert f"{one.own_beds[0].title}, " in str(figure.get_label())
        plt.close(figure)
        assert len(report.in_words(numbers["own"]["lines"], "points", of="beds")) > 3
    table = report.in_words(lines, "points or percent", of="beds")
    assert list(table.columns) == ["COLT", "PrAC", "DLTH", "mean over beds"]
    assert "RST: threshold minus barrier to LTH" in table.index
    pace = own_lines.at_colts_pace(rows)
    assert len(pace) == 4 and all(pace["colt"] == pace["imp-matched"])
    assert own_lines.at_colts_pace(pd.DataFrame()).empty


# --- parameters


@pytest.mark.parametrize(
    ("paper", "changes", "key"),
    [
        ("colt", {"partitions": 3}, "own_beds.colt.stored: partitions"),
        ("colt", {"prune_from": "validation"}, "own_beds.colt.stored: prune_from"),
        ("prac", {"levels": (9,)}, "own_beds.prac.stored: levels: 9, allowed"),
        ("prac", {"levels": (1,)}, "own_beds.prac.stored: levels: 1, allowed"),
    ],
)
def test_bad_parameters_of_own_units_are_named(
    paper: str, changes: dict[str, object], key: str, one_line: Message
) -> None:
    params = own_beds_alone()
    bed = bed_of(params, paper)
    assert bed.stored is not None
    other = bed.model_copy(update={"stored": bed.stored.model_copy(update=changes)})
    changed = params.model_copy(update={"own_beds": (other,)})
    assert key in one_line(lambda: study.check_stored(changed))


@pytest.mark.parametrize(
    ("of", "key"),
    [
        ({"paper": "seekers"}, "own_beds.0.stored"),
        ({"paper": "colt", "rounds": 3}, "own_beds.0.stored"),
        ({"paper": "prac", "levels": []}, "own_beds.0.stored"),
    ],
)
def test_unknown_papers_and_keys_are_named(
    of: dict[str, object], key: str, one_line: Message
) -> None:
    values = tiny.geometry_values()
    values["own_beds"][0]["stored"] = of
    message = one_line(lambda: validate(GeometryParams, values, "geometry"))
    assert key in message and ("seekers" not in of.values() or "'colt'" in message), message
