"""Units of the PrAC study that retrain tickets, and masks that no search has found."""

from ticketlab import gpu
from ticketlab.papers.prac.bench import PracBench, rewound, rewound_ticket
from ticketlab.papers.prac.params import PracSetting
from ticketlab.pruning.criteria import uniform
from ticketlab.pruning.masks import Mask, prune
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Start, retrain_many
from ticketlab.tickets.ticket import Ticket, round_name, round_of


def score_tickets(
    setting: PracSetting,
    seed: int,
    arm: str,
    chosen: dict[str, Mask],
    dense: Ticket | None = None,
    reinit: bool = False,
    outcomes: bool = False,
) -> Result:
    """Retrain tickets from the rewind point on all data with the full schedule (2.2).

    `chosen` maps rounds to masks. `dense` is the unpruned ticket of the seed, at the rewind point;
    without it, the net is trained to this point first, which is counted (`rewinding`). `reinit`
    keeps the masks and draws new initial weights, which then have their own rewind point. With
    `outcomes` the tickets keep their outcome.
    """
    bench = PracBench(setting, seed)
    net, rewinding = bench.net("reinit" if reinit else "init"), Account(bench)
    theta = None if reinit else rewound(dense, bench.device)
    if theta is None:
        theta = bench.theta(net)
        rewinding.reach_rewind_point()
    masks = {name: mask.to(bench.device) for name, mask in chosen.items()}
    bench.label_at(arm, max(mask.sparsity for mask in masks.values()))
    trained = retrain_many(bench, [Start(theta, mask) for mask in masks.values()])
    scores, tickets = [], {}
    for (name, mask), done in zip(masks.items(), trained, strict=True):
        head = {"round": round_of(name), "sparsity": mask.sparsity}
        scores.append(head | done.scores | done.spent.row())
        kept = done.outcome if outcomes else None
        tickets[name] = rewound_ticket(bench, arm, name, mask, theta, kept)
    record = {"arm": arm, "seed": seed, "rewinding": rewinding.spent.row(), "scores": scores}
    return Result(record, tickets)


def random_ladder(mask: Mask, rate: float, rounds: int, seed: int) -> dict[str, Mask]:
    """Return random masks at the sparsities of a search: nested, by round name."""
    random = gpu.generator("cpu", seed, "random pruning")
    found = {}
    for index in range(1, rounds + 1):
        mask = prune(uniform(mask, random), mask, rate)
        found[round_name(index)] = mask
    return found
