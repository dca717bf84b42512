"""What the arms of the DLTH study share: the start of a seed, a net and its account."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ticketlab import gpu, models, progress
from ticketlab.data.sets import Batches, DataSet, load
from ticketlab.papers.dlth import algorithm
from ticketlab.papers.dlth.algorithm import Penalty
from ticketlab.papers.dlth.params import Case, RstParams
from ticketlab.pruning.masks import Mask, State, ones
from ticketlab.tickets.ticket import Ticket, make_ticket, network, state_digest
from ticketlab.training.loop import (
    Net,
    Observer,
    Recipe,
    Step,
    evaluate,
    train,
)

# ---------------------------------------------------------------- what one seed starts from


@dataclass(frozen=True)
class Bench:
    """Data, initial weights and random masks of one seed in one case."""

    params: RstParams
    place: int
    seed: int

    @cached_property
    def case(self) -> Case:
        """The case at `place`."""
        return self.params.cases[self.place]

    @cached_property
    def data(self) -> DataSet:
        """The case's data set, resident on the device."""
        return load(self.case.data, gpu.start(self.params.runtime))

    def net(self, stream: str = "init") -> Net:
        """The net at its initial weights; another stream is another draw of them."""
        seed = gpu.derive_seed(self.seed, stream)
        model = models.build(self.case.model, self.data.shape, self.data.classes, seed)
        return Net(model, self.params.runtime)

    def dense_mask(self, net: Net) -> Mask:
        """Every maskable weight kept, on the CPU, where all masks live."""
        return ones(net.model, models.prunable(net.model, self.case.prunable)).to("cpu")

    def mask(self, net: Net, level: float, arm: str = "rst", mask_seed: int | None = None) -> Mask:
        """The mask of an arm, fixed before any training; random ones depend on `mask_seed` only."""
        dense, state = self.dense_mask(net), net.state()
        seed = self.seed if mask_seed is None else mask_seed
        random = gpu.generator("cpu", "mask", level, seed)
        if arm == "rst-magnitude":
            return algorithm.magnitude_mask(state, dense, level)
        if arm == "rst-antimagnitude":
            return algorithm.magnitude_mask(state, dense, level, largest=False)
        if arm.endswith("erk"):
            return algorithm.random_mask(dense, algorithm.erk_counts(dense, level), random)
        return algorithm.random_mask(dense, algorithm.kept_counts(dense, level), random)

    def ticket(
        self,
        arm: str,
        level: float,
        mask: Mask,
        weights: State,
        start: State,
        pruned_from: Mask | None = None,
    ) -> Ticket:
        """A ticket at the weights that are finetuned; `start` are the seed's initial ones.

        It was finetuned under its own mask, or else `pruned_from` the one of the training before.
        """
        facts = network(self.case.model, self.data) | {"init_sha256": state_digest(start)}
        return make_ticket(
            mask,
            weights,
            pruned_from,
            paper="dlth",
            arm=arm,
            seed=self.seed,
            case=self.case.name,
            level=level,
            **facts,
        )

    def iterations(self, recipe: Recipe) -> int:
        """Optimiser steps of a recipe on the training images."""
        return recipe.iterations(len(self.data.train))[1]

    def longer(self) -> Recipe:
        """The finetuning recipe, stretched by the images that the transformation sees."""
        fine, press = self.case.finetune, self.case.transform
        more = round(self.iterations(press) * press.batch / fine.batch)
        return with_length(fine, Step(self.iterations(fine) + more, "it"))


def with_length(recipe: Recipe, length: Step) -> Recipe:
    """The same recipe over another length."""
    return recipe.model_copy(update={"length": length})


# ---------------------------------------------------------------- one net of one arm


@dataclass
class Work:
    """A net on its way through an arm, with the account of what it has cost so far."""

    bench: Bench
    arm: str
    level: float
    net: Net
    images: int = 0
    dense_flops: float = 0.0
    sparse_flops: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, bench: Bench, arm: str, level: float, stream: str = "init") -> "Work":
        """At the seed's initial weights."""
        return cls(bench, arm, level, bench.net(stream))

    def at(self, arm: str, level: float) -> "Work":
        """Another arm or level that goes on from here, on the same net."""
        return Work(
            self.bench,
            arm,
            level,
            self.net,
            self.images,
            self.dense_flops,
            self.sparse_flops,
            dict(self.facts),
        )

    def train(
        self,
        recipe: Recipe,
        stage: str,
        mask: Mask | None = None,
        penalty: tuple[Mask, Penalty] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Train in place; the data order depends on the seed and the stage, not on the arm."""
        b, where = self.bench, f"{self.level:.0%}"
        progress.label(arm=f"{self.arm} {stage}", seed=b.seed, sparsity=where)
        growing = [algorithm.GrowingPenalty(*penalty)] if penalty else []
        train(
            self.net,
            b.data.train,
            b.data,
            recipe,
            seed=(b.seed, stage),
            mask=mask,
            observers=[*growing, *observers],
        )
        for each in growing:
            self.facts["lambda_error"] = algorithm.trace_error(each.trace, each.penalty)
        self.charge(recipe.passes(len(b.data.train)), mask)

    def charge(self, images: int, mask: Mask | None) -> None:
        """Add passes to the account; a training step counts as three forward passes."""
        model, shape = self.net.model, self.bench.data.shape
        self.images += images
        self.dense_flops += 3.0 * images * models.flops(model, shape)
        sparse = models.flops(model, shape, mask.densities() if mask else None)
        self.sparse_flops += 3.0 * images * sparse

    def accuracy(self) -> float:
        """Validation accuracy in percent."""
        held_out = self.bench.data.validation
        return 100 * evaluate(self.net, held_out, Batches(held_out, self.bench.data)).accuracy

    def remove(self, mask: Mask) -> None:
        """Delete the removed weights, and note what that costs."""
        self.facts["ratio_at_removal"] = algorithm.weight_ratio(self.net.state(), mask)
        self.facts["before_removal"] = self.accuracy()
        algorithm.remove(self.net, mask)
        self.facts["after_removal"] = self.accuracy()

    def finish(self, mask: Mask, recipe: Recipe | None = None) -> dict[str, Any]:
        """Finetune under the mask and return the arm's row; accuracies in percent, last step."""
        algorithm.remove(self.net, mask)
        digest, before = mask.digest(), self.accuracy()
        self.train(recipe or self.bench.case.finetune, "finetune", mask)
        data, state = self.bench.data, self.net.state()
        test = evaluate(self.net, data.test, Batches(data.test, data))
        gone = all(not state[n].cpu()[~keep].any() for n, keep in mask.items())
        account = {
            "images": self.images,
            "dense_flops": self.dense_flops,
            "sparse_flops": self.sparse_flops,
        }
        return (
            self.head(mask)
            | account
            | self.facts
            | {
                "before_finetune": before,
                "last_accuracy": 100 * test.accuracy,
                "last_loss": test.loss,
                "validation_accuracy": self.accuracy(),
                "mask_sha256": digest,
                "intact": gone and mask.digest() == digest,
            }
        )

    def head(self, mask: Mask) -> dict[str, Any]:
        """What tells the row apart: arm, seed, level, and the sparsities really reached.

        `exact` says whether every layer has lost exactly ceil(s n) weights (not so under ERK).
        """
        named = self.net.model.named_parameters()
        every = sum(p.numel() for n, p in named if n.endswith("weight") and p.dim() > 1)
        kept = {name: int(keep.sum()) for name, keep in mask.items()}
        return {
            "case": self.bench.case.name,
            "arm": self.arm,
            "seed": self.bench.seed,
            "mask_seed": self.facts.get("mask_seed", self.bench.seed),
            "level": self.level,
            "sparsity": mask.sparsity,
            "overall_sparsity": (mask.total - mask.alive) / every,
            "exact": kept == algorithm.kept_counts(mask, self.level),
            "layers": mask.densities(),
        }
