"""Work of one unit of the geometry study: tickets found and trained, or trained ones examined."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ticketlab import gpu
from ticketlab.data.sets import Batches, Images
from ticketlab.papers.compare.algorithm import TURNS, BedBench
from ticketlab.papers.compare.params import ticket_name
from ticketlab.papers.compare.units import describe, priced
from ticketlab.papers.geometry.algorithm import matching, rewinding
from ticketlab.papers.geometry.algorithm.corruption import KINDS, corrupted
from ticketlab.papers.geometry.algorithm.lines import Line, line
from ticketlab.papers.geometry.algorithm.reliability import measures
from ticketlab.papers.geometry.algorithm.transplants import with_signs
from ticketlab.papers.geometry.params import ARM, TWICE, GeometrySetting, Rewinding
from ticketlab.pruning.masks import Mask, State, keep_top, shuffle_layerwise
from ticketlab.spec import InputError
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Start, retrain_many
from ticketlab.tickets.ticket import Outcome, Ticket, state_digest
from ticketlab.training.evaluation import evaluate
from ticketlab.training.net import Net

# ---------------------------------------------------------------- trained tickets as arguments


def digests(tickets: Mapping[str, Ticket]) -> dict[str, str]:
    """Return the hash of each ticket's outcome, for unit keys: a ticket's own key lacks it."""
    return {name: state_digest(_outcome(name, one).named()) for name, one in tickets.items()}


def check_outcomes(tickets: Mapping[str, Ticket], expected: Mapping[str, str]) -> None:
    """Raise InputError unless each ticket has the trained outcome that the unit's key names."""
    for name, found in digests(tickets).items():
        if found != expected[name]:
            raise InputError(
                f"ticket {name!r}: its outcome is {found[:8]}, not {expected[name][:8]}"
            )


def _outcome(name: str, ticket: Ticket) -> Outcome:
    if ticket.outcome is None:
        raise InputError(f"ticket {name!r}: it keeps no trained outcome, so there is no line to it")
    return ticket.outcome


# ---------------------------------------------------------------- lines


@dataclass
class Examiner:
    """A bench, and the images on which its lines are measured."""

    bench: BedBench
    setting: GeometrySetting

    def __post_init__(self) -> None:
        data, lines = self.bench.data, self.setting.lines
        self.net: Net = self.bench.net()
        self.test = _first(data.test, lines.images)
        self.statistics = _first(data.train, lines.statistics)

    def line(self, a: State, b: State) -> Line:
        """Return the errors along the line from `a` to `b`."""
        points = self.setting.lines.points
        return line(self.net, a, b, self.test, self.bench.data, self.statistics, points)

    def row(self, arm: str, other: str, level: float, found: Line, **more: Any) -> dict[str, Any]:
        """Return a line as a row: its ends, its barrier in points, its errors in percent."""
        place = {"net": self.bench.setting.name, "seed": self.bench.seed, "arm": arm}
        return place | {"other": other, "level": level} | more | {
            "barrier": found.barrier, "errors": list(found.errors),
        }  # fmt: skip


def _first(images: Images, count: int) -> Images:
    return images.select(torch.arange(count, device=images.y.device))


# ---------------------------------------------------------------- tickets and ladders (units)


def search_rewound(setting: GeometrySetting, seed: int, kind: Rewinding) -> Result:
    """Find tickets by magnitude pruning with a kind of rewinding, and train each as it goes on."""
    bench = BedBench(setting, seed)
    account, rows, tickets = Account(bench), [], {}
    for one in rewinding.find_tickets(bench, account, kind):
        (done,) = retrain_many(bench, [one.start])
        found, mask = one.found, one.found.mask
        weights = "init" if kind == "weights" and not setting.rewind.value else kind
        row = describe(bench, ARM[kind], found.level, weights, mask, found.rounds)
        rows.append(priced(row, done, found.cost))
        tickets[ticket_name(found.level)] = bench.ticket(
            mask, one.start.state, outcome=done.outcome, paper="geometry", net=setting.name,
            arm=ARM[kind], level=found.level, round=found.rounds,
        )  # fmt: skip
    return Result({"rewound": rows, "data_sha256": bench.data.sha256}, tickets)


def climb(setting: GeometrySetting, seed: int, arm: str) -> Result:
    """Train the ticket of every round of a search, and draw the line between successive ones.

    Round 0 is the dense net; the last ticket has exactly the highest level. All are trained from
    the rewound weights on the same order of all images.
    """
    bench = BedBench(setting, seed)
    examiner, masks = Examiner(bench, setting), round_masks(bench, arm)
    theta = bench.theta(bench.net())
    bench.label(f"rounds of {arm}", masks[-1])
    trained = retrain_many(bench, [Start(theta, mask) for mask in masks])
    rows: list[dict[str, Any]] = []
    for index, (mask, done) in enumerate(zip(masks, trained, strict=True)):
        place = {"round": index, "alive": mask.alive}
        if index == 0:
            first: dict[str, Any] = {"net": setting.name, "seed": seed, "arm": arm, "other": None}
            row = first | {"level": 0.0} | place | {"barrier": None, "errors": []}
        else:
            found = examiner.line(trained[index - 1].last, done.last)
            row = examiner.row(arm, "the round before", mask.sparsity, found, **place)
        rows.append(row | {"last_accuracy": done.scores["last_accuracy"]})
    return Result({"rounds": rows})


def round_masks(bench: BedBench, arm: str) -> list[Mask]:
    """Return the mask of every round of a search, from the dense one to exactly the last level."""
    masks, account = [], Account(bench)
    last = bench.kept(max(bench.setting.levels))
    for turn in TURNS[arm](bench, account):
        masks.append(turn.before)
        if turn.left <= last:
            return [*masks, keep_top(turn.scores, last, within=turn.before)]
    raise InputError(
        f"max_rounds: {arm} reached only {masks[-1].sparsity:g} of {max(bench.setting.levels):g} "
        f"sparsity ({bench.setting.name}, seed {bench.seed}); allow more rounds or another rate"
    )


# ---------------------------------------------------------------- trained tickets examined (units)


def measure_lines(
    setting: GeometrySetting,
    seed: int,
    tickets: dict[str, Ticket],
    dense: Ticket,
    trained: dict[str, str],
) -> Result:
    """Draw lines from each arm's trained ticket: to the dense net, to IMP's ticket, to itself.

    `tickets` are named ARM/LEVEL, `trained` has the hashes of all outcomes. The line to itself ends
    at the same ticket trained on another order of the images: its barrier is the instability to the
    noise of SGD (Frankle et al. 2020).
    """
    check_outcomes(tickets | {"dense": dense}, trained)
    bench, again = BedBench(setting, seed), BedBench(setting, seed, again=True)
    examiner = Examiner(bench, setting)
    every = {"dense/0": dense} | tickets
    starts = [Start(_weights(name, one), one.mask.to(bench.device)) for name, one in every.items()]
    again.label("lines", starts[-1].mask)
    second = dict(zip(every, retrain_many(again, starts), strict=True))
    rows = []
    for name, one in every.items():
        arm, _, level = name.partition("/")
        own = _outcome(name, one).state
        ends = {TWICE: second[name].last}
        if arm != "dense":
            ends["dense"] = _outcome("dense", dense).state
        if arm not in ("dense", "imp"):
            imp = f"imp/{level}"
            ends["imp"] = _outcome(imp, tickets[imp]).state
        rows += [
            examiner.row(arm, other, float(level), examiner.line(own, end))
            for other, end in ends.items()
        ]
    return Result({"lines": rows})


def _weights(name: str, ticket: Ticket) -> State:
    if ticket.weights is None:
        raise InputError(f"ticket {name!r}: it has no weights to train from")
    return ticket.weights


def transplant(
    setting: GeometrySetting,
    seed: int,
    arm: str,
    level: float,
    ticket: Ticket,
    dense: Ticket,
    trained: dict[str, str],
) -> Result:
    """Train what is left of a ticket on another initialisation.

    mask: its mask on weights of another draw, `swap_rewind` steps into their dense training;
    permuted mask: the same, moved by the permutation that matches both dense nets; mask and signs:
    its mask, and the signs of the trained ticket on those weights; shuffled mask: its mask shuffled
    within layers, on the weights that searches rewind to. (Adnan et al. 2025, Oh et al. 2025.)
    """
    check_outcomes({"ticket": ticket, "dense": dense}, trained)
    bench = BedBench(setting, seed)
    mask, other = ticket.mask.to(bench.device), bench.net("reinit")
    fresh = bench.later(setting.swap_rewind, other)
    (theirs,) = retrain_many(bench, [Start(other.state(), bench.dense)])
    moved = matched(bench, _outcome("dense", dense).state, theirs.last)
    random = gpu.generator("cpu", seed, "transplant", arm, setting.name)
    signed = with_signs(fresh, _outcome("ticket", ticket).state, mask)
    starts = {
        "mask": Start(fresh, mask),
        "permuted mask": Start(fresh, matching.permuted_mask(mask, moved, other.model)),
        "mask and signs": Start(signed, mask),
        "shuffled mask": Start(bench.theta(bench.net()), shuffle_layerwise(ticket.mask, random)),
    }
    starts = {name: Start(one.state, one.mask.to(bench.device)) for name, one in starts.items()}
    bench.label(f"parts of {arm}'s ticket", mask)
    rows = [
        describe(bench, arm, level, name, start.mask) | done.scores
        for (name, start), done in zip(
            starts.items(), retrain_many(bench, list(starts.values())), strict=True
        )
    ]
    return Result({"transplanted": rows})


def matched(bench: BedBench, a: State, b: State) -> matching.Permutation:
    """Return the permutation of hidden units that brings the trained dense net `a` onto `b`."""
    setting, net = bench.setting, bench.net()
    assert isinstance(setting, GeometrySetting)
    a, b = (gpu.moved(state, bench.device) for state in (a, b))
    if setting.matching == "weights":
        return matching.match_weights(a, b, net.model)
    images = _first(bench.data.train, setting.lines.statistics)
    return matching.match_activations(net, a, b, images, bench.data)


def judge(
    setting: GeometrySetting,
    seed: int,
    severity: int,
    tickets: dict[str, Ticket],
    trained: dict[str, str],
) -> Result:
    """Score trained tickets beyond accuracy: calibration, worst class, corrupted test images."""
    check_outcomes(tickets, trained)
    bench = BedBench(setting, seed)
    examiner, data = Examiner(bench, setting), bench.data
    clean = examiner.test
    harder = {kind: corrupted(clean, kind, severity, gpu.derive_seed(seed, kind)) for kind in KINDS}
    rows = []
    for name, one in tickets.items():
        arm, _, level = name.partition("/")
        outcome = _outcome(name, one)
        examiner.net.rewind(outcome.state)
        scores = {
            f"{what}_accuracy": 100 * evaluate(examiner.net, images, Batches(images, data)).accuracy
            for what, images in {"clean": clean, **harder}.items()
        }
        row = {"net": setting.name, "seed": seed, "arm": arm, "level": float(level)}
        rows.append(row | measures(outcome.logits, data.test.y.cpu()) | scores)
    return Result({"reliability": rows})
