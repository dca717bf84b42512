"""Units of the PrAC study that search: all rounds of one arm and seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ticketlab import gpu
from ticketlab.data.sets import Batches
from ticketlab.papers.prac import algorithm, subsets
from ticketlab.papers.prac.algorithm import CriticalSet, MaskWatch, Outcome
from ticketlab.papers.prac.bench import PracBench, rewound, rewound_ticket
from ticketlab.papers.prac.params import SELECTIONS, Plan, PracSetting
from ticketlab.papers.prac.subsets import NEVER, Correctness, Difficulty, forgetting_events
from ticketlab.pruning import saliency
from ticketlab.pruning.criteria import magnitude
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError
from ticketlab.study.cost import Account
from ticketlab.study.results import Result
from ticketlab.study.retrain import Scores, retrain
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Outcome as Trained
from ticketlab.tickets.ticket import Ticket, round_name
from ticketlab.training.observers import Epoch, KeepBest, Observer, Snapshot
from ticketlab.training.recipe import Recipe, Step

# ---------------------------------------------------------------- one round


class Searcher:
    """Trains the rounds of one arm and chooses their sets.

    `theta` is the rewind point, if another arm of the seed has found it. Otherwise the first round
    passes through it if it trains on all samples; if not, the arm trains to this point first, at
    its own cost.
    """

    def __init__(
        self,
        setting: PracSetting,
        seed: int,
        arm: str,
        plan: Plan,
        spent: list[int] | None = None,
        theta: State | None = None,
        stage: str = "train",
    ) -> None:
        self.setting, self.arm, self.plan, self.spent = setting, arm, plan, spent
        self.bench = PracBench(setting, seed, stage)
        self.net = self.bench.net()
        self.start = self.net.state()
        self.theta = theta if setting.rewind.value else self.start
        self.dense: Tensor | None = None
        self.scores: dict[str, Tensor] = {}
        self.record = torch.empty(0)

    @property
    def chooses(self) -> bool:
        """Whether the arm finds its own sets, from the best epoch on validation images."""
        return self.plan.subset not in ("all", "given")

    def schedule(self, index: int, samples: int) -> tuple[Recipe, Step | None]:
        """Return a round's recipe on a number of samples, and where another arm's round ended."""
        s, budget = self.setting, self.spent[index] if self.spent else None
        until = None if budget is None else Step(budget, "it")
        if self.plan.shorten == "fitted":
            assert budget is not None
            return algorithm.of_length(s.recipe, self.bench.per_epoch, budget), None
        images, rule = len(self.bench.data.train), self.plan.shorten
        return algorithm.shortened(s.recipe, images, samples, rule, s.least_iterations), until

    def train_round(self, index: int, mask: Mask, images: Tensor) -> Outcome:
        """Rewind, train on the set, and find the next critical set (section 2.1 of the dossier).

        The net is left at the epoch from which that set was found, or else at the last.
        """
        s, data, account = self.setting, self.bench.data, Account(self.bench)
        self.bench.label(self.arm, mask)
        passed = self.reach_rewind_point(index, len(images), account)
        rewinding = account.spent.iterations
        self.net.rewind(self.begin(index), mask)
        recipe, until = self.schedule(index, len(images))
        bits = Correctness(images, len(data.train))
        best = [KeepBest(data.validation, data)] if self.chooses else []
        stop, seen = s.stop if self.plan.stop else None, list[int]()
        score = self.scoring(index, seen)
        watch = MaskWatch(mask, s.rate, stop, self._earliest(index), score)
        hard = [Difficulty(len(data.train), s.el2n_epochs)] if self._scores_wanted(index) else []
        observers: list[Observer] = [bits, *best, watch, *hard, *passed]
        part = data.train.select(images)
        history = account.train(self.net, part, recipe, mask=mask, observers=observers, until=until)
        if hard:
            self.scores = hard[0].scores()
        self.note_rewind_point(passed)
        weights, self.record = self.net.state(), bits.record
        scores = score(dict(self.net.model.named_parameters()), mask)
        account.charge(self.net, 0, sum(seen), mask)  # a criterion takes gradients
        for kept in best:
            self.net.rewind(kept.state)
        found = self.found(index, mask, account)
        facts = round_facts(history, recipe, len(images), watch, rewinding)
        return Outcome(weights, found, facts | account.spent.row(), scores)

    def scoring(self, index: int, seen: list[int]) -> algorithm.Scoring:
        """Return a round's pruning scores: magnitude, or a criterion on fixed training images.

        `seen` collects the number of images that the criterion has used.
        """
        bench, plan = self.bench, self.plan
        if plan.criterion == "magnitude":
            return magnitude
        draw = subsets.random_draw(len(bench.data.train), plan.probe, ("probe", bench.seed))
        chosen = draw.to(bench.device)
        x, y = Batches(bench.data.train, bench.data)(chosen), bench.data.train.y[chosen]
        random = gpu.generator(bench.device, "prac", "criterion", bench.seed, index)
        return saliency.scoring(plan.criterion, self.net.model, x, y, random, seen)

    def begin(self, index: int) -> State:
        """Return the weights from which a round starts; round 0 uses the initial ones."""
        begin = self.theta if index else self.start
        assert begin is not None  # set in round 0, or before
        return begin

    def reach_rewind_point(self, index: int, samples: int, account: Account) -> list[Snapshot]:
        """Return an observer for the rewind point, or train there first and charge the cost."""
        if self.theta is not None:
            return []
        if index == 0 and samples == len(self.bench.data.train):
            return [Snapshot(Step(self.bench.rewind_steps, "it"))]
        self.theta = self.bench.theta(self.net)
        account.reach_rewind_point()
        return []

    def note_rewind_point(self, passed: Sequence[Snapshot]) -> None:
        """Store the rewind point that a round has passed through."""
        for snapshot in passed:
            self.theta = snapshot.state

    def found(self, index: int, mask: Mask, account: Account) -> CriticalSet:
        """Return the critical set of the round's best validated net; empty if sets are given."""
        if not self.chooses:
            none = torch.empty(0, dtype=torch.int64, device=self.bench.device)
            return CriticalSet(none, none, none)
        predicted = account.predict(self.net, self.bench.data.train, mask).argmax(1)
        found = algorithm.critical_set(self.record, self.setting.threshold, self.dense, predicted)
        if index == 0:
            self.dense = predicted
        return found

    def choose(self, index: int, outcome: Outcome) -> Tensor:
        """Return the next round's samples."""
        if self.plan.subset == "given":
            raise InputError("subset: 'given' chooses nothing")
        return outcome.found.choose(self.plan.subset, len(self.bench.data.train))

    def _scores_wanted(self, index: int) -> bool:
        return index == 0 and self.plan.subset == "critical"

    def _earliest(self, index: int) -> int:
        """A dense round must reach the rewind point, and every round its minimum length."""
        s = self.setting
        rewind = s.rewind.iterations(self.bench.per_epoch) if index == 0 else 0
        return max(rewind, s.least_iterations)


def round_facts(
    history: list[Epoch], recipe: Recipe, samples: int, watch: MaskWatch, rewinding: int
) -> dict[str, Any]:
    """Return a round's facts besides its cost: planned length, why it ended, mask distances.

    `rewinding` is the number of iterations to the rewind point before the round; the cost includes
    them, `epochs` and `limit` do not.
    """
    (per_epoch, limit), spent = recipe.iterations(samples), history[-1].iteration
    first_drop = min((m.iterations(per_epoch, limit) for m in recipe.milestones), default=limit)
    return {
        "samples": samples,
        "limit": limit,
        "epochs": len(history),
        "path": history[-1].path,
        "rewind_iterations": rewinding,
        "stopped": watch.stopped,
        "armed": watch.stop is not None and algorithm.is_armed(watch.distances, watch.stop),
        "before_decay": spent <= first_drop,
        "first_drop": first_drop / per_epoch,
        "distances": watch.distances,
        "train_accuracy": [100 * epoch.accuracy for epoch in history],
    }


# ---------------------------------------------------------------- searches (units)


def search(
    setting: PracSetting,
    seed: int,
    arm: str,
    plan: Plan,
    given: list[str] | None = None,
    spent: list[int] | None = None,
    start: Mask | None = None,
    dense: Ticket | None = None,
) -> Result:
    """Run one arm's rounds; return masks as tickets and, per round, its cost and its set.

    `given` are packed sets to train on, one per round; `spent` the iterations after which rounds
    end; `start` is the mask after a round 0 that another arm has already trained, and `dense` the
    unpruned ticket of the seed, at the rewind point of that round.
    """
    searcher = Searcher(setting, seed, arm, plan, spent, rewound(dense, gpu.start(setting.runtime)))
    bench = searcher.bench
    images = len(bench.data.train)
    sets = [subsets.unpack_index(text, images).to(bench.device) for text in given or ()]
    first = 0 if start is None else 1
    mask = bench.dense if start is None else start.to(bench.device)

    def choose(index: int, outcome: Outcome) -> Tensor:
        return sets[min(index + 1, len(sets) - 1)] if sets else searcher.choose(index, outcome)

    rounds, tickets = [], {}
    for turn in algorithm.find_tickets(
        searcher.train_round,
        choose,
        mask,
        sets[first] if sets else bench.everything(),
        rate=setting.rate,
        rounds=range(first, setting.rounds),
    ):
        rounds.append(describe_round(turn, searcher))
        found = turn.index + 1
        tickets[round_name(found)] = bench.ticket(
            turn.mask, pruned_from=turn.before, paper="prac", arm=arm, round=found
        )
    record = {"arm": arm, "seed": seed, "data_sha256": bench.data.sha256, "rounds": rounds}
    if searcher.scores:
        record["selections"] = selections(searcher.scores, rounds, setting, seed)
    return Result(record, tickets)


def describe_round(turn: algorithm.Round, searcher: Searcher) -> dict[str, Any]:
    """Return one row: sparsity, cost, and the next set, as packed bits with its composition."""
    bench, found = searcher.bench, turn.outcome.found
    images = len(bench.data.train)
    chosen, labels = turn.chosen, bench.clean.train.y
    row = {
        "round": turn.index + 1,
        "sparsity": turn.mask.sparsity,
        "trained_sparsity": turn.before.sparsity,
        "set": subsets.pack_index(chosen, images),
        "set_samples": len(chosen),
        "kept_set": turn.kept_set,
        "classes": torch.bincount(labels[chosen], minlength=bench.clean.classes).tolist(),
    }
    if searcher.chooses:
        row |= composition(turn, found, bench)
        row["forgetting"] = forgetting_histogram(searcher.record)
    return row | turn.outcome.facts


def composition(turn: algorithm.Round, found: CriticalSet, bench: PracBench) -> dict[str, Any]:
    """Count the samples of each kind, those that came back, and those with a flipped label."""
    flipped = torch.isin(bench.flipped, found.union)
    return {
        "cet": len(found.cet),
        "cep": len(found.cep),
        "never": len(found.never),
        "union": len(found.union),
        "overlap": found.overlap,
        "returned": int((~torch.isin(found.union, turn.images)).sum()),
        "cet_outside": int((~torch.isin(found.cet, turn.images)).sum()),
        "flipped": int(flipped.sum()),
        "flipped_never": int(torch.isin(bench.flipped, found.never).sum()),
    }


def forgetting_histogram(record: Tensor, highest: int = 8) -> list[int]:
    """Count samples with 0, 1, ... `highest` or more forgetting events, then never-learned ones."""
    events = forgetting_events(record)
    learned = events[(events >= 0) & (events < NEVER)].clamp(max=highest)
    counts = torch.bincount(learned, minlength=highest + 1).tolist()
    return [*counts, int((events == NEVER).sum())]


def selections(
    scores: Mapping[str, Tensor], rounds: list[dict[str, Any]], setting: PracSetting, seed: int
) -> dict[str, list[str]]:
    """Return packed sets as large as this search's own, chosen differently; entry k is for round k.

    From the dense round's scores: the hardest by EL2N, AUM or DUAL, or coverage over AUM. And two
    random draws: a new one each round ("random"), and one that only shrinks or grows ("fixed").
    """
    images = len(scores["aum"])
    found: dict[str, list[str]] = {name: [] for name in SELECTIONS}
    fixed = torch.randperm(images, generator=gpu.generator("cpu", "fixed", seed))
    for number, count in enumerate([images, *(row["set_samples"] for row in rounds)]):
        cut = min(setting.ccs_cut, 1 - count / images)
        chosen = {name: subsets.hardest(scores[name], count) for name in ("el2n", "aum", "dual")}
        chosen |= {
            "ccs": subsets.coverage(scores["aum"], count, cut, 50, (seed, number)),
            "random": subsets.random_draw(images, count, (seed, number)),
            "fixed": fixed[:count],
        }
        for name, index in chosen.items():
            found[name].append(subsets.pack_index(index, images))
    return found


def search_imp(
    setting: PracSetting,
    seed: int,
    arm: str = "imp",
    judged: Sequence[int] = (),
    stage: str = "train",
    dense: Ticket | None = None,
) -> Result:
    """IMP on all data with the full schedule; its trainings are those of its own tickets.

    Round k is the training that made ticket k, as in any search; `scores` has each ticket's own
    training. Validation passes only serve the scores and are not charged to a round. Tickets of the
    rounds in `judged` keep their outcome. Another `stage` is another data order, from the rewind
    point of `dense`, an unpruned ticket.
    """
    plan = Plan(subset="all", shorten="none", stop=False)
    theta = rewound(dense, gpu.start(setting.runtime))
    searcher = Searcher(setting, seed, arm, plan, theta=theta, stage=stage)
    bench, images = searcher.bench, len(searcher.bench.data.train)
    trainings: list[dict[str, Any]] = []
    scores: list[Scores] = []
    outcomes: list[Trained] = []

    def train_masked(mask: Mask) -> State:
        index, account = len(trainings), Account(bench)
        bench.label(arm, mask)
        passed = searcher.reach_rewind_point(index, images, account)
        watch, begin = MaskWatch(mask, setting.rate, None), searcher.begin(index)
        done = retrain(account, searcher.net, begin, mask, observers=[watch, *passed])
        searcher.note_rewind_point(passed)
        facts = round_facts(done.history, setting.recipe, images, watch, 0)
        trainings.append(facts | account.trained.row())
        scores.append(done.scores)
        outcomes.append(done.outcome)
        return done.last

    before, rounds, tickets = 0.0, [], {}
    for level in imp.find_tickets(
        train_masked,
        bench.dense,
        keep=imp.constant_rate(setting.rate),
        target=1.0,
        max_rounds=setting.rounds,
    ):
        scores[level.index] |= {"round": level.index, "sparsity": level.mask.sparsity}
        if level.index:
            sparsity = {"sparsity": level.mask.sparsity, "trained_sparsity": before}
            rounds.append({"round": level.index} | sparsity | trainings[level.index - 1])
        before = level.mask.sparsity
        name = round_name(level.index)
        kept = outcomes[level.index] if level.index in judged else None
        tickets[name] = rewound_ticket(bench, arm, name, level.mask, searcher.theta, kept)
    return Result({"arm": arm, "seed": seed, "rounds": rounds, "scores": scores}, tickets)
