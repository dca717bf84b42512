"""The units of the PrAC study: one search or one retraining of one arm and seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ticketlab import gpu, models, progress
from ticketlab.data.sets import Batches, DataSet, Images, load
from ticketlab.papers.prac import algorithm, subsets
from ticketlab.papers.prac.algorithm import CriticalSet, MaskWatch, Outcome
from ticketlab.papers.prac.params import Plan, Setting
from ticketlab.papers.prac.subsets import NEVER, Correctness, Difficulty, forgetting_events
from ticketlab.pruning import saliency
from ticketlab.pruning.criteria import magnitude, uniform
from ticketlab.pruning.masks import Mask, State, ones, prune
from ticketlab.spec import InputError
from ticketlab.study.results import Result
from ticketlab.tickets import imp
from ticketlab.tickets.ticket import Ticket, make_ticket, network
from ticketlab.training.loop import (
    Epoch,
    KeepBest,
    Net,
    Recipe,
    Snapshot,
    Step,
    evaluate,
    predict,
    train,
)

# ---------------------------------------------------------------- what one seed starts from


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and data order of one seed; every arm of the seed starts from it."""

    setting: Setting
    seed: int

    @cached_property
    def device(self) -> torch.device:
        """The device everything of this seed lives on."""
        return gpu.start(self.setting.runtime)

    @cached_property
    def clean(self) -> DataSet:
        """The data set with its own labels."""
        return load(self.setting.data, self.device)

    @cached_property
    def _flipped(self) -> tuple[Tensor, Tensor]:
        seed = ("noise", self.setting.data.split_seed)
        return subsets.flip_labels(self.clean.train.y, self.setting.noise, self.clean.classes, seed)

    @cached_property
    def data(self) -> DataSet:
        """The data set as training sees it, with flipped labels where the setting asks for them."""
        return replace(self.clean, train=Images(self.clean.train.x, self._flipped[0]))

    @property
    def flipped(self) -> Tensor:
        """Indices of the training samples with a flipped label."""
        return self._flipped[1]

    def net(self, stream: str = "init") -> Net:
        """The net at initialisation; `stream` names the draw."""
        seed = gpu.derive_seed(self.seed, stream)
        spec = self.setting.model
        model = models.build(spec, self.clean.shape, self.clean.classes, seed)
        return Net(model, self.setting.runtime)

    def dense_mask(self, net: Net) -> Mask:
        """All prunable weights."""
        mask = ones(net.model, models.prunable(net.model, self.setting.prunable))
        if not len(mask):
            raise InputError(f"prunable: {self.setting.prunable!r} names no weight of this model")
        return mask

    def theta(self, net: Net) -> State:
        """The rewind point: after `rewind` of the dense round, batch-norm state included (2.0)."""
        s = self.setting
        return imp.rewind_state(net, self.data.train, self.data, s.recipe, s.rewind, self.order())

    @property
    def rewind_cost(self) -> tuple[int, int]:
        """Iterations of training to the rewind point, and the images in them."""
        return imp.rewind_cost(self.setting.recipe, len(self.data.train), self.setting.rewind)

    def order(self) -> tuple[object, ...]:
        """What fixes the data order and the augmentation: equal for all arms of a seed."""
        return ("prac", self.seed)

    def ticket(
        self,
        arm: str,
        index: int,
        mask: Mask,
        weights: State | None = None,
        pruned_from: Mask | None = None,
    ) -> Ticket:
        """A round's ticket; `weights` are those it is rewound to.

        It was trained under its own mask, or else `pruned_from` the one of the training before.
        """
        facts = network(self.setting.model, self.clean)
        origin: dict[str, Any] = {"paper": "prac", "arm": arm, "seed": self.seed, "round": index}
        return make_ticket(mask, weights, pruned_from, **origin, **facts)

    @property
    def per_epoch(self) -> int:
        """Iterations of an epoch on all training samples."""
        return self.setting.recipe.iterations(len(self.data.train))[0]


# ---------------------------------------------------------------- one round


class Searcher:
    """Trains the rounds of one arm and chooses their sets.

    `theta` is the rewind point where another arm of the seed has found it. Else the first round
    passes through it if it trains on all samples; if not, the arm trains to it and pays for that.
    """

    def __init__(
        self,
        bench: Bench,
        arm: str,
        plan: Plan,
        spent: list[int] | None = None,
        theta: State | None = None,
    ) -> None:
        self.bench, self.arm, self.plan, self.spent = bench, arm, plan, spent
        self.net = bench.net()
        self.start = self.net.state()
        self.theta = theta if bench.setting.rewind.value else self.start
        self.batches = Batches(bench.data.train, bench.data)
        self.dense: Tensor | None = None
        self.scores: dict[str, Tensor] = {}
        self.record = torch.empty(0)

    def schedule(self, index: int, samples: int) -> tuple[Recipe, Step | None]:
        """The recipe of a round on so many samples, and where another arm's round had ended."""
        s, budget = self.bench.setting, self.spent[index] if self.spent else None
        until = None if budget is None else Step(budget, "it")
        if self.plan.shorten == "fitted":
            assert budget is not None
            return algorithm.of_length(s.recipe, self.bench.per_epoch, budget), None
        images, rule = len(self.bench.data.train), self.plan.shorten
        return algorithm.shortened(s.recipe, images, samples, rule, s.least_iterations), until

    def train_round(self, index: int, mask: Mask, images: Tensor) -> Outcome:
        """Rewind, train on the set, and find the next critical set (section 2.1 of the dossier)."""
        s, data = self.bench.setting, self.bench.data
        progress.label(arm=self.arm, seed=self.bench.seed, sparsity=f"{mask.sparsity:.0%}")
        passed, price = self._reach_rewind_point(index, len(images))
        begin = self.theta if index else self.start
        assert begin is not None  # reached above, or in round 0
        self.net.rewind(begin, mask)
        recipe, until = self.schedule(index, len(images))
        bits, best = Correctness(images, len(data.train)), KeepBest(data.validation, data)
        stop, seen = s.stop if self.plan.stop else None, list[int]()
        score = self.scoring(index, seen)
        watch = MaskWatch(mask, s.rate, stop, self._earliest(index), score)
        hard = [Difficulty(len(data.train), s.el2n_epochs)] if self._scores_wanted(index) else []
        part = data.train.select(images)
        history = train(
            self.net,
            part,
            data,
            recipe,
            seed=self.bench.order(),
            mask=mask,
            observers=[bits, best, watch, *hard, *passed],
            until=until,
        )
        if hard:
            self.scores = hard[0].scores()
        if passed:
            self.theta = passed[0].state
        weights, self.record = self.net.state(), bits.record
        scores = score(dict(self.net.model.named_parameters()), mask)
        self.net.rewind(best.state)
        facts = round_facts(history, recipe, len(images), watch, best, price)
        facts |= {"scored_images": sum(seen)} if seen else {}
        found = self.found(index, facts)
        return Outcome(weights, found, facts, scores)

    def scoring(self, index: int, seen: list[int]) -> algorithm.Scoring:
        """What prunes a round: magnitude, or a criterion on a fixed draw of training images.

        `seen` gets how many images the criterion has looked at.
        """
        bench, plan = self.bench, self.plan
        if plan.criterion == "magnitude":
            return magnitude
        draw = subsets.random_draw(len(bench.data.train), plan.probe, ("probe", bench.seed))
        chosen = draw.to(bench.device)
        x, y = self.batches(chosen), bench.data.train.y[chosen]
        random = gpu.generator(bench.device, "prac", "criterion", bench.seed, index)
        return saliency.scoring(plan.criterion, self.net.model, x, y, random, seen)

    def _reach_rewind_point(
        self, index: int, samples: int
    ) -> tuple[list[Snapshot], tuple[int, int]]:
        """What takes the rewind point on the way, or the iterations and images it takes before."""
        if self.theta is not None:
            return [], (0, 0)
        if index == 0 and samples == len(self.bench.data.train):
            return [Snapshot(Step(self.bench.rewind_cost[0], "it"))], (0, 0)
        self.theta = self.bench.theta(self.net)
        return [], self.bench.rewind_cost

    def found(self, index: int, facts: dict[str, Any]) -> CriticalSet:
        """The round's critical set, from its best-on-validation net; none where sets are given."""
        if self.plan.subset in ("all", "given"):
            none = torch.empty(0, dtype=torch.int64, device=self.bench.device)
            return CriticalSet(none, none, none)
        predicted = predict(self.net, self.bench.data.train, self.batches).argmax(1)
        facts["forward_images"] += len(predicted)
        found = algorithm.critical_set(
            self.record, self.bench.setting.threshold, self.dense, predicted
        )
        if index == 0:
            self.dense = predicted
        return found

    def choose(self, index: int, outcome: Outcome) -> Tensor:
        """The next round's samples."""
        if self.plan.subset == "given":
            raise InputError("subset: 'given' chooses nothing")
        return outcome.found.choose(self.plan.subset, len(self.bench.data.train))

    def _scores_wanted(self, index: int) -> bool:
        return index == 0 and self.plan.subset == "critical"

    def _earliest(self, index: int) -> int:
        """A dense round must reach the rewind point, and every round its least length."""
        s = self.bench.setting
        rewind = s.rewind.iterations(self.bench.per_epoch) if index == 0 else 0
        return max(rewind, s.least_iterations)


def round_facts(
    history: list[Epoch],
    recipe: Recipe,
    samples: int,
    watch: MaskWatch,
    best: KeepBest,
    price: tuple[int, int],
) -> dict[str, Any]:
    """The ledger of a round: planned and spent iterations, why it ended, images seen.

    `price` is what the rewind point cost before the round (iterations, images); `iterations` and
    `train_images` include it, `epochs` and `limit` do not.
    """
    (per_epoch, limit), spent = recipe.iterations(samples), history[-1].iteration
    first_drop = min((m.iterations(per_epoch, limit) for m in recipe.milestones), default=limit)
    whole, rest = divmod(spent, per_epoch)
    return {
        "samples": samples,
        "limit": limit,
        "epochs": len(history),
        "iterations": spent + price[0],
        "rewind_iterations": price[0],
        "stopped": watch.stopped,
        "armed": watch.stop is not None and algorithm.is_armed(watch.distances, watch.stop),
        "before_decay": spent <= first_drop,
        "first_drop": first_drop / per_epoch,
        "distances": watch.distances,
        "train_accuracy": [100 * epoch.accuracy for epoch in history],
        "validation_accuracy": 100 * best.accuracy,
        "train_images": whole * samples + min(samples, rest * recipe.batch) + price[1],
        "forward_images": len(history) * len(best.images),
        "test_images": 0,
    }


# ---------------------------------------------------------------- searches (units)


def search(
    setting: Setting,
    seed: int,
    arm: str,
    plan: Plan,
    given: list[str] | None = None,
    spent: list[int] | None = None,
    start: Mask | None = None,
    dense: Ticket | None = None,
) -> Result:
    """One arm's rounds: masks as tickets, and a ledger, a set and its composition for each.

    `given` are the packed sets to train on, a round each; `spent` the iterations after which rounds
    end; `start` a mask after a round 0 that was the same in another arm and is not trained again,
    and `dense` the unpruned ticket of the seed, at the rewind point that this round passed.
    """
    bench = Bench(setting, seed)
    searcher = Searcher(bench, arm, plan, spent, rewound(dense))
    images = len(bench.data.train)
    sets = [subsets.unpack_index(text, images).to(bench.device) for text in given or ()]
    first = 0 if start is None else 1
    mask = bench.dense_mask(searcher.net) if start is None else start.to(bench.device)

    def choose(index: int, outcome: Outcome) -> Tensor:
        return sets[min(index + 1, len(sets) - 1)] if sets else searcher.choose(index, outcome)

    everything = torch.arange(images, device=bench.device)
    rounds, tickets = [], {}
    for turn in algorithm.find_tickets(
        searcher.train_round,
        choose,
        mask,
        sets[first] if sets else everything,
        rate=setting.rate,
        rounds=range(first, setting.rounds),
    ):
        rounds.append(describe_round(turn, bench, searcher))
        tickets[f"round-{turn.index + 1:02d}"] = bench.ticket(
            arm, turn.index + 1, turn.mask, pruned_from=turn.before
        )
    record = {"arm": arm, "seed": seed, "data_sha256": bench.data.sha256, "rounds": rounds}
    if searcher.scores:
        record["selections"] = selections(searcher.scores, rounds, setting, seed)
    return Result(record, tickets)


def rewound(dense: Ticket | None) -> State | None:
    """The rewind point that an unpruned ticket holds."""
    return None if dense is None else dense.weights


def describe_round(turn: algorithm.Round, bench: Bench, searcher: Searcher) -> dict[str, Any]:
    """One row: sparsity, ledger, the set that follows with its composition, as packed bits."""
    images, found = len(bench.data.train), turn.outcome.found
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
    if searcher.plan.subset not in ("all", "given"):
        row |= composition(turn, found, bench)
        row["forgetting"] = forgetting_histogram(searcher.record)
    return row | turn.outcome.facts


def composition(turn: algorithm.Round, found: CriticalSet, bench: Bench) -> dict[str, Any]:
    """How many samples of each kind, how many came back, how many have a flipped label."""
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
    """Samples of the set with 0, 1, ... `highest` or more forgetting events, then never-learned."""
    events = forgetting_events(record)
    learned = events[(events >= 0) & (events < NEVER)].clamp(max=highest)
    counts = torch.bincount(learned, minlength=highest + 1).tolist()
    return [*counts, int((events == NEVER).sum())]


def selections(
    scores: Mapping[str, Tensor], rounds: list[dict[str, Any]], setting: Setting, seed: int
) -> dict[str, list[str]]:
    """Packed sets as large as this search's own, chosen otherwise; entry k is for round k.

    From the dense round's scores: the hardest by EL2N or margin, or coverage over margins; and two
    random draws, one anew each round ("random") and one that only shrinks or grows ("fixed").
    """
    images = len(scores["margin"])
    found: dict[str, list[str]] = {
        name: [] for name in ("el2n", "margin", "ccs", "random", "fixed")
    }
    fixed = torch.randperm(images, generator=gpu.generator("cpu", "fixed", seed))
    for number, count in enumerate([images, *(row["set_samples"] for row in rounds)]):
        cut = min(setting.ccs_cut, 1 - count / images)
        chosen = {
            "el2n": subsets.hardest(scores["el2n"], count),
            "margin": subsets.hardest(scores["margin"], count),
            "ccs": subsets.coverage(scores["margin"], count, cut, 50, (seed, number)),
            "random": subsets.random_draw(images, count, (seed, number)),
            "fixed": fixed[:count],
        }
        for name, index in chosen.items():
            found[name].append(subsets.pack_index(index, images))
    return found


def search_imp(setting: Setting, seed: int, arm: str = "imp") -> Result:
    """IMP on all data with the full schedule; its trainings are those of its own tickets."""
    bench = Bench(setting, seed)
    searcher = Searcher(bench, arm, Plan(subset="all", shorten="none", stop=False))
    everything = torch.arange(len(bench.data.train), device=bench.device)
    rounds: list[dict[str, Any]] = []

    def train_masked(mask: Mask) -> State:
        outcome = searcher.train_round(len(rounds), mask, everything)
        # `train_round` leaves the net at its best epoch on validation.
        scores = test_scores(searcher.net, bench, outcome.weights, outcome.facts)
        rounds.append(outcome.facts | scores | {"test_images": 2 * len(bench.data.test)})
        return outcome.weights

    tickets = {}
    for level in imp.find_tickets(
        train_masked,
        bench.dense_mask(searcher.net),
        keep=imp.constant_rate(setting.rate),
        target=1.0,
        max_rounds=setting.rounds,
    ):
        rounds[level.index] |= {"round": level.index, "sparsity": level.mask.sparsity}
        found = bench.ticket(arm, level.index, level.mask, searcher.theta)
        tickets[f"round-{level.index:02d}"] = found
    return Result({"arm": arm, "seed": seed, "rounds": rounds}, tickets)


# ---------------------------------------------------------------- retraining tickets (units)


def score_tickets(
    setting: Setting,
    seed: int,
    arm: str,
    chosen: dict[str, Mask],
    dense: Ticket | None = None,
    reinit: bool = False,
) -> Result:
    """Retrain tickets from the rewind point on all data with the full schedule (2.2).

    `chosen` maps rounds to masks. `dense` is the unpruned ticket of the seed, at the rewind point;
    without it, the point is trained to again, and counted. `reinit` keeps the masks and draws new
    initial weights, which then have a rewind point of their own.
    """
    bench = Bench(setting, seed)
    net = bench.net("reinit" if reinit else "init")
    theta, price = None if reinit else rewound(dense), (0, 0)
    if theta is None:
        theta, price = bench.theta(net), bench.rewind_cost
    rounds, tickets = [], {}
    for name, stored in chosen.items():
        mask = stored.to(bench.device)
        progress.label(arm=arm, seed=seed, sparsity=f"{mask.sparsity:.0%}")
        net.rewind(theta, mask)
        best = KeepBest(bench.data.validation, bench.data)
        history = train(
            net,
            bench.data.train,
            bench.data,
            setting.recipe,
            seed=bench.order(),
            mask=mask,
            observers=[best],
        )
        last, index = net.state(), int(name.removeprefix("round-"))
        net.rewind(best.state)
        scores = test_scores(net, bench, last, {"validation_accuracy": 100 * best.accuracy})
        ledger = {
            "iterations": history[-1].iteration,
            "train_images": setting.recipe.passes(len(bench.data.train)),
            "forward_images": len(history) * len(bench.data.validation),
            "test_images": 2 * len(bench.data.test),
        }
        rounds.append({"round": index, "sparsity": mask.sparsity} | scores | ledger)
        tickets[name] = bench.ticket(arm, index, mask, theta)
    record = {"arm": arm, "seed": seed, "rewind_iterations": price[0], "rewind_images": price[1]}
    return Result(record | {"rounds": rounds}, tickets)


def test_scores(net: Net, bench: Bench, last: State, facts: Mapping[str, Any]) -> dict[str, float]:
    """Test accuracy in percent at the best epoch on validation (the net now) and at the last."""
    batches = Batches(bench.data.test, bench.data)
    selected = evaluate(net, bench.data.test, batches).accuracy
    net.rewind(last)
    final = evaluate(net, bench.data.test, batches).accuracy
    return {
        "selected_accuracy": 100 * selected,
        "last_accuracy": 100 * final,
        "validation_accuracy": facts["validation_accuracy"],
    }


def random_ladder(mask: Mask, rate: float, rounds: int, seed: int) -> dict[str, Mask]:
    """Random pruning at the sparsities of a search: nested masks by round name."""
    random = gpu.generator("cpu", seed, "random pruning")
    found = {}
    for index in range(1, rounds + 1):
        mask = prune(uniform(mask, random), mask, rate)
        found[f"round-{index:02d}"] = mask
    return found
