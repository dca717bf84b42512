"""Work of one unit of the comparison: a method's tickets, found and trained on one bench."""

from typing import Any

from ticketlab.papers.compare.algorithm import BedBench, Found, one_shot, press, search
from ticketlab.papers.compare.params import BedSetting, Weights, own_weights, ticket_name
from ticketlab.pruning.masks import Mask, State
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.study.retrain import Retrained, Start, retrain_many
from ticketlab.tickets.ticket import Ticket
from ticketlab.training.recipe import Step

KEPT = ("imp", "colt", "prac", "rst", "random")
"""The methods whose tickets keep their outcome."""

# ---------------------------------------------------------------- rows and tickets


def describe(
    bench: BedBench, arm: str, level: float, weights: str, mask: Mask, rounds: int = 0
) -> dict[str, Any]:
    """Return a row's key columns and the properties of its mask."""
    return {
        "net": bench.setting.name,
        "arm": arm,
        "seed": bench.seed,
        "level": level,
        "weights": weights,
        "rounds": rounds,
        "alive": mask.alive,
        "sparsity": mask.sparsity,
        "collapsed": mask.collapsed(),
        "layers": mask.densities(),
    }


def priced(row: dict[str, Any], done: Retrained, spent: Cost) -> dict[str, Any]:
    """Return the row with its scores, its search cost, and the cost of search and training."""
    return row | done.scores | spent.row("search_") | (spent + done.spent).row()


def ticket(bench: BedBench, arm: str, found: Found, weights: State, done: Retrained) -> Ticket:
    """Return a level's ticket with its starting weights, and its outcome for arms in KEEPING."""
    origin: dict[str, Any] = {"paper": "compare", "net": bench.setting.name, "arm": arm}
    origin |= {"level": found.level, "round": found.rounds}
    return bench.ticket(
        found.mask, weights, outcome=done.outcome if arm in KEPT else None, **origin
    )


# ---------------------------------------------------------------- units


def train_method(
    setting: BedSetting, seed: int, method: str, schedule: tuple[int, ...] = ()
) -> Result:
    """Find a method's tickets at all levels, and train each as every ticket is trained."""
    bench, rows, tickets = BedBench(setting, seed, again=method == "imp-again"), [], {}
    found, left = search(bench, method, schedule)
    weights = own_weights(method, setting.rewind)
    net = bench.net()
    theta = bench.theta(net) if weights.startswith("searched") else net.state()
    begun = [start_of(bench, method, find, theta) for find in found]
    bench.label(method, found[-1].mask)
    starts = [Start(state, find.mask) for find, (state, _) in zip(found, begun, strict=True)]
    for find, (state, spent), done in zip(found, begun, retrain_many(bench, starts), strict=True):
        row = describe(bench, method, find.level, weights, find.mask, find.rounds)
        rows.append(priced(row, done, spent))
        tickets[ticket_name(find.level)] = ticket(bench, method, find, state, done)
    return Result({"rows": rows, "left": left, "data_sha256": bench.data.sha256}, tickets)


def start_of(bench: BedBench, method: str, found: Found, theta: State) -> tuple[State, Cost]:
    """Return a ticket's starting weights, and the cost of finding them and the mask."""
    if method != "rst":
        return theta, found.cost
    account = Account(bench, found.cost)
    return press(bench, found.mask, account), account.spent


def train_long(setting: BedSetting, seed: int, arm: str, mask: Mask, images: int) -> Result:
    """Train a mask once from the initial weights, with the schedule stretched to `images`."""
    bench = BedBench(setting, seed)
    recipe, total = setting.recipe, len(bench.data.train)
    per_epoch = recipe.iterations(total)[0]
    longer = recipe.model_copy(update={"length": Step(round(images / total * per_epoch), "it")})
    mask = mask.to(bench.device)
    bench.label(arm, mask)
    (done,) = retrain_many(bench, [Start(bench.net().state(), mask, longer)])
    row = describe(bench, arm, setting.levels[-1], "init", mask)
    return Result({"rows": [priced(row, done, Cost())]})


def train_swapped(
    setting: BedSetting, seed: int, weights: Weights, chosen: dict[str, Mask]
) -> Result:
    """Train masks of several methods on weights that are not their own, as all tickets are."""
    bench, level = BedBench(setting, seed), setting.levels[-1]
    shared = None if weights == "rst" else swapped_in(bench, weights)
    starts = {}
    for method, mask in chosen.items():
        mask = mask.to(bench.device)
        state = press(bench, mask, Account(bench)) if shared is None else shared
        starts[method] = Start(state, mask)
    bench.label(f"masks on {weights}", starts[next(iter(starts))].mask)
    rows = [
        describe(bench, method, level, weights, start.mask) | done.scores
        for (method, start), done in zip(
            starts.items(), retrain_many(bench, list(starts.values())), strict=True
        )
    ]
    return Result({"swapped": rows})


def swapped_in(bench: BedBench, weights: Weights) -> State:
    """Return the weights of a column of the swap."""
    if weights == "rst-other":
        return press(bench, one_shot(bench, "random")[-1].mask, Account(bench))
    if weights == "rewound":
        return bench.later(bench.setting.swap_rewind)
    return bench.net("reinit" if weights == "reinit" else "init").state()
