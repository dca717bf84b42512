"""Lines between the papers' own stored tickets (a unit): each is trained once more, all are joined.

Nothing else is trained: the ends of all other lines are the stored outcomes.
"""

from collections.abc import Mapping, Sequence

from ticketlab.papers.compare.algorithm import BedBench
from ticketlab.papers.geometry.params import TWICE, GeometrySetting
from ticketlab.papers.geometry.units import Examiner, check_outcomes
from ticketlab.pruning.masks import State
from ticketlab.spec import InputError
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Start, retrain, retrain_many
from ticketlab.tickets.ticket import Outcome, Ticket
from ticketlab.training.evaluation import score_of

DENSE = "dense/0"
"""The dense net among the tickets."""


def join_stored(
    setting: GeometrySetting,
    seed: int,
    tickets: dict[str, Ticket],
    ways: Sequence[Sequence[str]],
    trained: dict[str, str],
) -> Result:
    """Draw lines between trained tickets, and from each to itself on another order of the images.

    `tickets` are named ARM/LEVEL, among them the dense net, dense/0; `ways` are (name, what the
    other end is called, name of the other end), `trained` has the hashes of all outcomes. Rows have
    the barrier in points and the errors in percent; of the ticket that the line starts from, its
    sparsity, its accuracy on all test images in percent, and `gain`: this minus the dense net's, in
    points. InputError for a ticket without weights, or with another outcome than `trained` names.
    """
    check_outcomes(tickets, trained)
    bench, again = BedBench(setting, seed), BedBench(setting, seed, again=True)
    examiner, ends = Examiner(bench, setting), outcomes(tickets)
    y = bench.data.test.y.cpu()
    accuracy = {name: 100 * score_of(one.logits, y).accuracy for name, one in ends.items()}
    pruned = {name: one for name, one in tickets.items() if name != DENSE}
    second = train_again(again, pruned)
    lines = [(name, other, ends[end].state) for name, other, end in ways]
    lines += [(name, TWICE, second[name]) for name in pruned]
    rows = []
    for name, other, end in lines:
        arm, _, level = name.partition("/")
        found = examiner.line(ends[name].state, end)
        gain = {"last_accuracy": accuracy[name], "gain": accuracy[name] - accuracy[DENSE]}
        sparsity = tickets[name].mask.sparsity
        rows.append(examiner.row(arm, other, float(level), found, sparsity=sparsity, **gain))
    return Result({"own_lines": rows})


def outcomes(tickets: Mapping[str, Ticket]) -> dict[str, Outcome]:
    """Return the trained outcome of each ticket that keeps one."""
    return {name: one.outcome for name, one in tickets.items() if one.outcome is not None}


def train_again(bench: BedBench, tickets: Mapping[str, Ticket]) -> dict[str, State]:
    """Train tickets from their stored weights on the bench's order; return their last states.

    Without validation images, on which `retrain_many` selects, one ticket is trained at a time.
    InputError for a ticket without weights.
    """
    starts = {}
    for name, one in tickets.items():
        if one.weights is None:
            raise InputError(f"ticket {name!r}: it has no weights to train from")
        starts[name] = Start(one.weights, one.mask.to(bench.device))
    bench.label("lines", max((start.mask for start in starts.values()), key=lambda m: m.sparsity))
    if len(bench.data.validation):
        done = retrain_many(bench, list(starts.values()))
    else:
        net = bench.net()
        done = [retrain(Account(bench), net, one.state, one.mask) for one in starts.values()]
    return {name: one.last for name, one in zip(starts, done, strict=True)}
