"""What one unit of the study does: a dense training that is pruned, or the training of a ticket."""

from ticketlab.pipeline.scaffold.paper_name import algorithm
from ticketlab.pruning.masks import Mask
from ticketlab.study.bench import Bench, Setting
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Retrained, retrain


def search(setting: Setting, seed: int, sparsity: float) -> Result:
    """Train the dense net, score it, prune it once; the ticket is rewound."""
    bench = Bench(setting, seed)
    net, account, dense = bench.net(), Account(bench), bench.dense
    bench.label("dense", dense)
    theta = bench.theta(net)
    trained = retrain(account, net, net.state(), dense)
    mask = algorithm.one_shot(trained.last, dense, sparsity)
    ticket = bench.ticket(mask, theta, pruned_from=dense, arm="magnitude")
    return Result({"rows": [_row("dense", dense, trained, account)]}, {"ticket": ticket})


def score(setting: Setting, seed: int, arm: str, mask: Mask) -> Result:
    """Train a ticket from the rewinding point, and score it."""
    bench = Bench(setting, seed)
    net, account, mask = bench.net(), Account(bench), mask.to(bench.device)
    bench.label(arm, mask)
    account.reach_rewind_point()
    theta = bench.theta(net)
    trained = retrain(account, net, theta, mask)
    row = _row(arm, mask, trained, account)
    return Result({"rows": [row]}, {"ticket": bench.ticket(mask, theta, arm=arm)})


def _row(arm: str, mask: Mask, trained: Retrained, account: Account) -> dict[str, object]:
    """What a trained net was, what it scored, and what it cost."""
    facts = {"arm": arm, "seed": account.bench.seed, "sparsity": mask.sparsity, "alive": mask.alive}
    return facts | trained.scores | account.spent.row()
