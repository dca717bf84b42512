"""Work of one unit of the DLTH study: one net in one arm, or in several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ticketlab import gpu
from ticketlab.data.sets import Batches
from ticketlab.papers.dlth import algorithm, controls
from ticketlab.papers.dlth.algorithm import Penalty
from ticketlab.papers.dlth.controls import EarlyBird
from ticketlab.papers.dlth.params import PRETRAINED, WATCHED, Cell, penalty_of
from ticketlab.pruning.masks import Mask, State
from ticketlab.pruning.patterns import DENSE
from ticketlab.study.bench import Bench
from ticketlab.study.cost import Account, Cost
from ticketlab.study.results import Result
from ticketlab.study.retrain import Retrained, retrain
from ticketlab.tickets.ticket import Outcome, Ticket, state_digest
from ticketlab.training.evaluation import evaluate
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer
from ticketlab.training.recipe import Recipe, Step

# ---------------------------------------------------------------- masks, tickets, lengths


def draw_mask(
    bench: Bench, net: Net, level: float, arm: str = "rst", mask_seed: int | None = None
) -> Mask:
    """Draw the mask of an arm, before any training; random masks only depend on `mask_seed`."""
    dense, state = bench.dense, net.state()
    seed = bench.seed if mask_seed is None else mask_seed
    random = gpu.generator("cpu", "mask", level, seed)
    if arm == "rst-magnitude":
        return algorithm.magnitude_mask(state, dense, level)
    if arm == "rst-antimagnitude":
        return algorithm.magnitude_mask(state, dense, level, largest=False)
    if arm.endswith("erk"):
        return algorithm.random_mask(dense, algorithm.erk_counts(dense, level), random)
    return algorithm.random_mask(dense, algorithm.kept_counts(dense, level), random)


def ticket(
    bench: Bench,
    cell: Cell,
    arm: str,
    level: float,
    mask: Mask,
    weights: State,
    start: State,
    pruned_from: Mask | None = None,
    outcome: Outcome | None = None,
) -> Ticket:
    """Make a ticket at the weights to finetune; `start` are the seed's initial weights.

    It was finetuned under its own mask or, if given, under the mask it was `pruned_from`.
    """
    origin: dict[str, Any] = {"arm": arm, "case": cell.name, "level": level}
    origin["init_sha256"] = state_digest(start)
    return bench.ticket(mask, weights, pruned_from, outcome, paper="dlth", **origin)


def with_length(recipe: Recipe, length: Step) -> Recipe:
    """Return the same recipe with another length."""
    return recipe.model_copy(update={"length": length})


def longer(bench: Bench, transform: Recipe) -> Recipe:
    """Return the finetuning recipe, extended by the images that the transformation sees."""
    fine = bench.setting.recipe
    more = round(bench.iterations(transform) * transform.batch / fine.batch)
    return with_length(fine, Step(bench.iterations(fine) + more, "it"))


# ---------------------------------------------------------------- one net of one arm


@dataclass
class Work:
    """Training state of one arm, with its accumulated cost."""

    cell: Cell
    arm: str
    level: float
    net: Net
    account: Account
    facts: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    """The trained net's outcome, once it is finished."""

    @classmethod
    def begin(cls, cell: Cell, seed: int, arm: str, level: float) -> "Work":
        """Start at the seed's initial weights."""
        bench = Bench(cell, seed)
        return cls(cell, arm, level, bench.net(), Account(bench))

    @property
    def bench(self) -> Bench:
        """The common starting point of all arms of the seed."""
        return self.account.bench

    def at(self, arm: str, level: float) -> "Work":
        """Continue as another arm or level, on the same net."""
        account = Account(self.bench, self.account.trained, self.account.looked)
        return Work(self.cell, arm, level, self.net, account, dict(self.facts))

    def train(
        self,
        recipe: Recipe,
        stage: str = "train",
        mask: Mask | None = None,
        penalty: tuple[Mask, Penalty] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Train in place; the data order depends on the seed and the stage, not on the arm."""
        self.label(stage)
        growing = [algorithm.GrowingPenalty(*penalty)] if penalty else []
        watching = [*growing, *observers]
        images = self.bench.data.train
        self.account.train(self.net, images, recipe, stage=stage, mask=mask, observers=watching)

    def label(self, stage: str) -> None:
        """Set the progress display's label for the training that follows."""
        self.bench.label_at(f"{self.arm} {stage}", self.level)

    def accuracy(self) -> float:
        """Return validation accuracy in percent."""
        held_out = self.bench.data.validation
        return 100 * evaluate(self.net, held_out, Batches(held_out, self.bench.data)).accuracy

    def remove(self, mask: Mask) -> None:
        """Set the removed weights to 0, and record the accuracy lost by this."""
        self.facts["ratio_at_removal"] = algorithm.weight_ratio(self.net.state(), mask)
        self.facts["before_removal"] = self.accuracy()
        algorithm.remove(self.net, mask)
        self.facts["after_removal"] = self.accuracy()

    def finish(self, mask: Mask, recipe: Recipe | None = None) -> dict[str, Any]:
        """Finetune under the mask and return the arm's row."""
        algorithm.remove(self.net, mask)
        digest, before = mask.digest(), self.accuracy()
        self.label("finetune")
        done = retrain(self.account, self.net, self.net.state(), mask, recipe=recipe)
        self.outcome = done.outcome
        left = torch.stack([(done.last[n].bool() & ~keep).any() for n, keep in mask.items()])
        return self.row(mask, done) | {
            "before_finetune": before,
            "intact": not left.any() and mask.digest() == digest,
        }

    def row(self, mask: Mask, done: Retrained) -> dict[str, Any]:
        """Return a row: its key columns, cost, facts recorded on the way, and scores.

        `last_validation` is validation accuracy after the last epoch, by which a rate is chosen.
        """
        facts = self.account.spent.row() | self.facts | done.scores
        last = {"last_validation": self.accuracy(), "mask_sha256": mask.digest()}
        return self.head(mask) | facts | last

    def head(self, mask: Mask) -> dict[str, Any]:
        """Return a row's key columns: arm, seed, level, and the sparsities actually reached.

        `exact` is whether every layer has lost exactly ceil(s n) weights (not so under ERK).
        """
        named = self.net.model.named_parameters()
        every = sum(p.numel() for n, p in named if n.endswith("weight") and p.dim() > 1)
        return {
            "case": self.cell.name,
            "arm": self.arm,
            "seed": self.bench.seed,
            "mask_seed": self.facts.get("mask_seed", self.bench.seed),
            "level": self.level,
            "lr": self.bench.setting.recipe.lr,
            "sparsity": mask.sparsity,
            "overall_sparsity": (mask.total - mask.alive) / every,
            "exact": mask.counts() == algorithm.kept_counts(mask, self.level),
            "layers": mask.densities(),
        }


# ---------------------------------------------------------------- units


def train_plain(cell: Cell, seed: int, arm: str, level: float) -> Result:
    """A random mask on the initial weights: Scratch, its equal-budget form, masked warm-up."""
    work = Work.begin(cell, seed, arm, level)
    start, mask = work.net.state(), draw_mask(work.bench, work.net, level, arm)
    if arm == "warm-up":
        work.train(cell.pressed, "transform", mask)
    recipe = longer(work.bench, cell.pressed) if arm == "scratch-long" else None
    begun = work.net.state()
    row = work.finish(mask, recipe)
    made = ticket(work.bench, cell, arm, level, mask, begun, start, outcome=work.outcome)
    return Result({"rows": [row]}, {"ticket": made})


def train_abruptly(cell: Cell, seed: int, levels: Sequence[float]) -> Result:
    """The transformation without a penalty, then removal, once for all levels of the arm."""
    first = Work.begin(cell, seed, "abrupt", levels[0])
    masks = {level: draw_mask(first.bench, first.net, level) for level in levels}
    first.train(cell.pressed, "transform")
    state, rows = first.net.state(), []
    for level, mask in masks.items():
        work = first.at("abrupt", level)
        work.net.rewind(state)
        work.remove(mask)
        rows.append(work.finish(mask))
    return Result({"rows": rows})


def train_pressed(
    cell: Cell,
    seed: int,
    arm: str,
    level: float,
    mask_seed: int,
    mask: Mask | None = None,
    damaged: Sequence[str] = (),
) -> Result:
    """RST under the arm's mask, and the damaged versions of its ticket.

    Damage undoes training, so damaged tickets are finetuned for as many images as RST trains in
    all. A given `mask` is that of the trained dense net, whose cost is charged to the arm.
    """
    work = Work.begin(cell, seed, arm, level)
    bench, start = work.bench, work.net.state()
    if mask is None:
        mask = draw_mask(bench, work.net, level, arm, mask_seed)
    else:
        images, mask = len(bench.data.train), mask.to(bench.device)
        work.account.charge(work.net, bench.iterations(), cell.recipe.passes(images))
    work.facts = {"mask_seed": mask_seed}
    looks = press(work, mask)
    work.remove(mask)
    weights = work.net.state()
    main = work.at(arm, level)
    rows = [main.finish(mask)]
    for damage in damaged:
        state, places = damage_ticket(bench, damage, weights, mask)
        work.net.rewind(state)
        hurt = work.at(damage, level)
        hurt.facts = {}
        rows.append(hurt.finish(places, longer(bench, cell.pressed)))
    here = {"case": cell.name, "arm": arm, "seed": seed, "mask_seed": mask_seed, "level": level}
    record = {"rows": rows, "looks": [here | look for look in looks]}
    made = ticket(bench, cell, arm, level, mask, weights, start, outcome=main.outcome)
    return Result(record, {"ticket": made})


def press(work: Work, mask: Mask) -> list[dict[str, float]]:
    """Transform the net of an RST arm; return the observations, if watched, with their lambda."""
    cell, data, penalty = work.cell, work.bench.data, penalty_of(work.cell, work.arm)
    every = max(1, work.bench.iterations(cell.pressed) // cell.looks)
    watch = algorithm.Watch(mask, data.validation, data, every)
    further = work.facts.get("mask_seed", work.bench.seed) != work.bench.seed  # a draw for C11
    watched = [watch] if work.arm in WATCHED and not further else []
    work.train(cell.pressed, "transform", penalty=(mask, penalty), observers=watched)
    trace = [0.0, *algorithm.strengths(penalty).tolist()]
    return [
        look | {"lambda": trace[min(int(look["iteration"]), len(trace) - 1)]}
        for look in watch.looks
    ]


def damage_ticket(bench: Bench, damage: str, weights: State, mask: Mask) -> tuple[State, Mask]:
    """Return a transformed ticket shuffled within layers, drawn again, or reduced to signs.

    Each seed has one permutation per layer for all levels, as it has one initialisation.
    """
    if damage == "shuffled":
        return controls.shuffled(weights, mask, gpu.generator("cpu", bench.seed, "shuffle"))
    if damage == "reinit":
        return controls.reinitialised(weights, bench.net("reinit").state(), mask), mask
    return controls.only_signs(weights, mask), mask


def train_iteratively(cell: Cell, seed: int, level: float) -> Result:
    """RST-Iter: the mask grows over cycles, each of which restarts the penalty; then finetuning."""
    work, how = Work.begin(cell, seed, "rst-iter", level), cell.iterative
    recipe = with_length(cell.pressed, how.length)
    penalty = cell.penalty.model_copy(update={"ramp": how.ramp, "every": how.every})

    def press_cycle(cycle: int, mask: Mask) -> State:
        work.train(recipe, f"cycle-{cycle}", penalty=(mask, penalty))
        return work.net.state()

    dense, random = work.bench.dense, gpu.generator("cpu", "grow", level, seed)
    masks = list(
        algorithm.transform_iteratively(press_cycle, dense, level, how.cycles, random, how.leak)
    )
    work.remove(masks[-1])
    return Result({"rows": [work.finish(masks[-1])]})


def train_pretrained(cell: Cell, seed: int, arms: Sequence[tuple[float, Sequence[str]]]) -> Result:
    """The dense net, and at all levels the arms that start from its training."""
    work = Work.begin(cell, seed, "dense", 0.0)
    bench, start, dense = work.bench, work.net.state(), work.bench.dense
    birds = early_birds(work, [level for level, each in arms if "early-bird" in each])
    work.label("finetune")
    done = retrain(work.account, work.net, start, None, observers=list(birds.values()))
    rows = [work.row(dense, done) | {"intact": True}]
    whole = ticket(bench, cell, "dense", 0.0, dense, start, start, DENSE, done.outcome)
    tickets = {"dense": whole}
    for level, each in arms:
        mask = algorithm.magnitude_mask(done.last, dense, level)
        facts = (bench, cell, "lth", level, mask, start, start)
        tickets[f"lth-{100 * level:g}"] = ticket(*facts, DENSE)
        for arm in filter(PRETRAINED.__contains__, each):
            own = work.at(arm, level)
            rows.append(_pretrained_row(own, mask, start, done.last, birds.get(level)))
            if arm == "lth":
                tickets[f"lth-{100 * level:g}"] = ticket(*facts, outcome=own.outcome)
    return Result({"rows": rows}, tickets)


def early_birds(work: Work, levels: Sequence[float]) -> dict[float, EarlyBird]:
    """Return an observer for each level of the arm."""
    how, dense = work.cell.early_bird, work.bench.dense
    every = how.every.iterations(*work.cell.recipe.iterations(len(work.bench.data.train)))
    return {level: EarlyBird(dense, level, every, how.threshold, how.queue) for level in levels}


def _pretrained_row(
    work: Work, mask: Mask, start: State, trained: State, bird: EarlyBird | None
) -> dict[str, Any]:
    """Return a row of an arm after dense training; `mask` keeps its largest weights per layer."""
    work.account.looked = Cost()  # no arm selects an epoch of the dense training
    if work.arm == "l1":
        work.net.rewind(trained)
        work.remove(mask)
        return work.finish(mask)
    if work.arm == "early-bird" and bird is not None:
        return _early_bird_row(work, bird)
    if work.arm == "lth-iter":
        mask = _iterated(work, start)
    work.net.rewind(start)
    return work.finish(mask)


def _early_bird_row(work: Work, bird: EarlyBird) -> dict[str, Any]:
    """Return a row for the mask and weights of an early epoch, with the cost up to this epoch."""
    work.account = Account(work.bench)
    seen = work.cell.recipe.passes(len(work.bench.data.train), bird.iteration)
    work.account.charge(work.net, bird.iteration, seen)
    work.facts = {"settled": bird.settled, "drawn_at": bird.iteration}
    work.net.rewind(bird.state)
    return work.finish(bird.ticket)


def _iterated(work: Work, start: State) -> Mask:
    """Return the mask of LTH-Iter; its cost starts from zero, as it does not use the dense run."""
    how, work.account = work.cell.lth_iter, Account(work.bench)
    recipe = with_length(work.cell.recipe, how.length)

    def train_masked(mask: Mask) -> State:
        work.net.rewind(start)
        work.train(recipe, mask=mask)
        return work.net.state()

    return controls.iterative_magnitude(train_masked, work.bench.dense, work.level, how.cycles)


def watch_finetuning(
    bench: Bench, net: Net, mask: Mask, recipe: Recipe, looks: int
) -> list[dict[str, float]]:
    """Finetune the net in place from its current weights, with about `looks` observations."""
    data, every = bench.data, max(1, bench.iterations(recipe) // looks)
    algorithm.remove(net, mask)
    watch = algorithm.Watch(mask, data.validation, data, every)
    Account(bench).train(net, data.train, recipe, mask=mask, observers=[watch])
    return watch.looks
