"""Work of one unit of the COLT study: a search, or the retraining of its tickets."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

import torch

from ticketlab import gpu, models
from ticketlab.data.sets import DataSpec
from ticketlab.papers.colt import algorithm
from ticketlab.papers.colt.params import ColtSetting, Control, Variant, arm_name
from ticketlab.pruning.criteria import magnitude, uniform
from ticketlab.pruning.masks import (
    Mask,
    State,
    chance_jaccard,
    jaccard,
    keep_top,
    prune,
    shuffle_layerwise,
)
from ticketlab.spec import InputError
from ticketlab.study.bench import Bench
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Retrained, retrain
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Outcome, Ticket, round_name, round_of
from ticketlab.training.net import Net
from ticketlab.training.observers import KeepBest, Track

# ---------------------------------------------------------------- one training


def train_and_score(
    account: Account, setting: ColtSetting, net: Net, start: State, mask: Mask
) -> Retrained:
    """Retrain a ticket on all data.

    Returns the scores of `retrain` and, if configured, the best test accuracy over all epochs.
    """
    data = account.bench.data
    watch = [Track(data.test, data)] if setting.authors_metric else []
    done = retrain(account, net, start, mask, observers=watch)
    best = [100 * max(score.accuracy for score in tracked.scores) for tracked in watch]
    return replace(done, scores=done.scores | ({"best_test_accuracy": best[0]} if best else {}))


def ticket(
    bench: Bench,
    arm: str,
    index: int,
    mask: Mask,
    weights: State | None = None,
    outcome: Outcome | None = None,
) -> Ticket:
    """Make the ticket of a round that was trained under its mask, with its rewound weights."""
    return bench.ticket(mask, weights, outcome=outcome, paper="colt", arm=arm, round=index)


def describe_mask(mask: Mask, model: torch.nn.Module) -> dict[str, Any]:
    """Return sparsity of the prunable weights and of all weights, and densities by layer."""
    every = sum(p.numel() for n, p in model.named_parameters() if n.endswith("weight"))
    return {
        "alive": mask.alive,
        "sparsity": mask.sparsity,
        "overall_sparsity": (mask.total - mask.alive) / every,
        "layers": mask.densities(),
        "collapsed": mask.collapsed(),
    }


# ---------------------------------------------------------------- searches (units)


def search_colt(setting: ColtSetting, seed: int, variant: Variant) -> Result:
    """Run COLT's rounds for one seed; return each mask, its statistics and its search cost."""
    bench = Bench(setting, seed)
    account = Account(bench)
    net, train_copy = copies(account, setting, variant)
    at_init = prune(magnitude(net.state(), bench.dense), bench.dense, setting.rate)
    rounds, tickets = [], {}
    search = algorithm.find_tickets(
        train_copy,
        bench.dense,
        copies=variant.partitions,
        rate=setting.rate,
        votes=variant.needed,
        target=setting.target,
        max_rounds=setting.max_rounds,
        layerwise=variant.layerwise,
    )
    for turn in search:
        spent = account.spent.row("search_")
        mask = describe_mask(turn.mask, net.model)
        rounds.append(describe_round(turn, variant, setting.rate) | spent | mask)
        if turn.index == 1:
            rounds[0]["init_agreement"] = jaccard(_gone(at_init), _gone(turn.own[0]))
        origin: dict[str, Any] = {"paper": "colt", "arm": variant.name, "round": turn.index}
        found = bench.ticket(turn.mask, pruned_from=turn.before, **origin)
        tickets[round_name(turn.index)] = found
    return Result({"arm": variant.name, "seed": seed, "rounds": rounds}, tickets)


def copies(
    account: Account, setting: ColtSetting, variant: Variant
) -> tuple[Net, Callable[[int, Mask], State]]:
    """Return the net that all copies share, and the function that trains copy i under a mask."""
    bench = account.bench
    data, by_class = bench.data, variant.split in algorithm.BY_CLASS
    how = (data.classes, variant.split, variant.partitions, bench.seed)
    parts = algorithm.segments(data.train, *how)
    whole = [data.validation] * len(parts)
    held_out = algorithm.segments(data.validation, *how) if by_class else whole
    net = bench.net(classes=data.classes // variant.partitions if by_class else None)
    start = bench.theta(net)
    account.reach_rewind_point()

    def train_copy(copy: int, mask: Mask) -> State:
        bench.label(variant.name, mask, copy=copy)
        net.rewind(start, mask)
        best = [KeepBest(held_out[copy], data)] if setting.prune_from == "validation" else []
        account.train(
            net,
            parts[copy],
            setting.recipe,
            stage=algorithm.stage_of(copy),
            mask=mask,
            observers=best,
        )
        return best[0].state if best else net.state()

    return net, train_copy


def describe_round(turn: algorithm.Round, variant: Variant, rate: float) -> dict[str, Any]:
    """Return how much the copies agreed, and how much independent copies would."""
    return {
        "round": turn.index,
        "rate": algorithm.effective_rate(turn.before, turn.mask),
        "chance_rate": algorithm.chance_rate(rate, variant.partitions, variant.needed),
        "agreement": algorithm.pruned_agreement(turn),
        "chance_agreement": chance_jaccard(rate, rate) if variant.partitions == 2 else None,
    }


def _gone(mask: Mask) -> Mask:
    return Mask({name: ~keep for name, keep in mask.items()})


def search_imp(
    setting: ColtSetting, seed: int, arm: str, schedule: list[int] | None = None
) -> Result:
    """Run and score IMP's levels for one seed; with `schedule` it prunes as fast as COLT."""
    bench = Bench(setting, seed)
    account, net = Account(bench), bench.net()
    theta = bench.theta(net)
    account.reach_rewind_point()
    rounds: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []

    def train_masked(mask: Mask) -> State:
        bench.label(arm, mask)
        own = Account(bench)
        done = train_and_score(own, setting, net, theta, mask)
        rounds.append(account.spent.row("search_") | done.scores)
        outcomes.append(done.outcome)
        account.trained += own.trained
        if setting.prune_from == "validation":  # otherwise validation only serves the scores
            account.looked += own.looked
        return done.last if setting.prune_from == "last" else done.selected

    own = imp.constant_rate(setting.imp_rate), setting.max_rounds, setting.target
    keep, limit, target = own if schedule is None else imp.same_schedule(schedule)
    tickets = {}
    for level in imp.find_tickets(
        train_masked, bench.dense, keep=keep, target=target, max_rounds=limit
    ):
        rounds[level.index] |= {"round": level.index} | describe_mask(level.mask, net.model)
        tickets[round_name(level.index)] = ticket(bench, arm, level.index, level.mask)
    found = Result({"arm": arm, "seed": seed, "rounds": rounds}, tickets)
    # Tickets that are compared keep their weights, before and after; the others only their mask.
    compared = {round_name(0): tickets[round_name(0)].mask, **chosen_tickets(found, setting.levels)}
    for name, mask in compared.items():
        index = round_of(name)
        tickets[name] = ticket(bench, arm, index, mask, theta, outcomes[index])
    return found


# ---------------------------------------------------------------- retraining tickets (units)


def controlled(mask: Mask, theta: State, control: Control | None, random: torch.Generator) -> Mask:
    """Return the mask of a control of a ticket, on the CPU; without a control, the ticket's own.

    `theta` are the rewound weights.
    """
    mask = mask.to("cpu")
    everything = Mask({name: keep | True for name, keep in mask.items()})
    if control == "shuffled":
        return shuffle_layerwise(mask, random)
    if control == "magnitude":
        return keep_top(magnitude(gpu.moved(theta, "cpu"), everything), mask.alive)
    if control == "random":
        return keep_top(uniform(everything, random), mask.alive)
    return mask


def score_tickets(
    setting: ColtSetting,
    seed: int,
    source: str,
    chosen: dict[str, Mask],
    control: Control | None = None,
) -> Result:
    """Retrain a search's tickets, or a control of them, on all data with the full head.

    `chosen` maps rounds of the arm `source` to masks. Newly drawn weights are first trained to a
    rewinding point of their own. `rewind_images` counts the images seen to reach that point.
    """
    bench, arm = Bench(setting, seed), arm_name(source, control)
    net = bench.net("reinit" if control == "reinit" else "init")
    theta, rewinding = bench.theta(net), Account(bench)
    rewinding.reach_rewind_point()
    rounds, tickets = [], {}
    for name, found in chosen.items():
        index = round_of(name)
        random = gpu.generator("cpu", seed, arm, index)
        mask = controlled(found, theta, control, random).to(bench.device)
        bench.label(arm, mask)
        done = train_and_score(Account(bench), setting, net, theta, mask)
        rounds.append({"round": index} | describe_mask(mask, net.model) | done.scores)
        kept = done.outcome if control in (None, "random") else None
        tickets[name] = ticket(bench, arm, index, mask, theta, kept)
    record = {"arm": arm, "seed": seed, "source": source, "control": control}
    record |= {"rewind_images": rewinding.spent.images}
    return Result(record | {"rounds": rounds}, tickets)


def transfer_tickets(
    setting: ColtSetting,
    seed: int,
    arm: str,
    target: DataSpec,
    with_weights: bool,
    chosen: dict[str, Mask],
) -> Result:
    """Train tickets on the transfer data set, with their rewound weights or with the mask only.

    A mask alone is applied to new initial weights. The head is new, and the same for all tickets of
    the seed. Tickets with weights that are no control keep their outcome on the target.
    """
    bench = Bench(setting, seed)
    elsewhere = Bench(setting.model_copy(update={"data": target}), seed)
    source = bench.model("init" if with_weights else "transfer-init")
    if with_weights:
        source.load_state_dict(bench.theta(bench.net()))
    head_seed = gpu.derive_seed(seed, "transfer-head")
    net = Net(models.with_head(source, elsewhere.data.classes, head_seed), setting.runtime)
    theta, rounds, tickets = net.state(), [], {}
    for name, stored in chosen.items():
        mask = stored.to(bench.device)
        bench.label(f"transfer {arm}", mask)
        done = train_and_score(Account(elsewhere), setting, net, theta, mask)
        rounds.append({"round": round_of(name)} | describe_mask(mask, net.model) | done.scores)
        if with_weights and not arm.endswith("-shuffled"):
            tickets[name] = ticket(elsewhere, arm, round_of(name), mask, theta, done.outcome)
    kind = "mask and weights" if with_weights else "mask only"
    return Result({"arm": arm, "seed": seed, "carried": kind, "rounds": rounds}, tickets)


def chosen_tickets(found: Result, levels: tuple[float, ...]) -> dict[str, Mask]:
    """Return for each level the search's round nearest in remaining weights (by ratio), once."""
    rounds = [(round_name(t["round"]), t["sparsity"]) for t in found.record["rounds"] if t["round"]]
    if not rounds:
        arm, seed = found.record["arm"], found.record["seed"]
        raise InputError(f"rate: the search of {arm}, seed {seed}, left no weight; lower it")
    names = {
        min(rounds, key=lambda pair: abs(log((1 - pair[1]) / (1 - level))))[0] for level in levels
    }
    return {name: found.tickets[name].mask for name in sorted(names)}
