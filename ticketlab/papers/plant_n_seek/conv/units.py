"""One seed of Plant 'n' Seek's convolutional part: a ticket, its mother, and searches for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, InstanceOf
from torch import Tensor, nn

from ticketlab import gpu, models, progress
from ticketlab.data.sets import Batches, DataSet, load
from ticketlab.models import ModelSpec
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm import gauge
from ticketlab.papers.plant_n_seek.algorithm.edge_popup import Goal
from ticketlab.papers.plant_n_seek.conv import planting as conv_planting
from ticketlab.papers.plant_n_seek.conv.edge_popup import pop
from ticketlab.papers.plant_n_seek.conv.planting import PlantedChain
from ticketlab.papers.plant_n_seek.params import (
    ConvParams,
    ConvSetting,
    Density,
    Gain,
    Method,
    way,
)
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.masks import Mask, State, shuffle_layerwise
from ticketlab.pruning.saliency import Rule, named_criterion
from ticketlab.spec import InputError, Spec
from ticketlab.study.bench import order
from ticketlab.study.results import Result
from ticketlab.tickets.ticket import Ticket, make_ticket, network, state_digest
from ticketlab.training.evaluation import evaluate, predict
from ticketlab.training.loop import train
from ticketlab.training.net import Net
from ticketlab.training.observers import Track
from ticketlab.training.recipe import Recipe, Step

SMALLEST = torch.finfo(torch.float64).tiny

Mother = Literal["planted", "unplanted"]
Regime = Literal["singleshot", "multishot"]


class Known(Spec):
    """A trained ticket as an argument of later units, whose keys only contain its digest."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    digest: str
    ticket: InstanceOf[Ticket] = Field(exclude=True, repr=False)


def known(ticket: Ticket) -> Known:
    """Return the ticket with a digest of its weights and its mask."""
    kept = {f"mask.{name}": keep for name, keep in ticket.mask.items()}
    return Known(digest=state_digest({**(ticket.weights or {}), **kept}), ticket=ticket)


# ---------------------------------------------------------------- starting point of a seed


@dataclass(frozen=True)
class ConvBench:
    """Data, ticket and mother of one seed, shared by every arm of the seed."""

    setting: ConvSetting
    seed: int
    found: Known | None = None

    @property
    def conv(self) -> ConvParams:
        """The parameters of this part."""
        return self.setting.conv

    @cached_property
    def device(self) -> torch.device:
        """The device of everything but the planting."""
        return gpu.start(self.setting.runtime)

    @cached_property
    def data(self) -> DataSet:
        """The images, resident on the device."""
        return load(self.conv.data, self.device, seed=self.seed)

    def model(self, spec: ModelSpec) -> nn.Module:
        """Return the architecture; the caller replaces its weights."""
        return models.build(spec, self.data.shape, self.data.classes, 0)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The weights of the chain in order, each with its own bias; the same for both nets."""
        return models.prunable(self.model(self.conv.ticket_model), "conv_linear")

    def drawn(self, spec: ModelSpec, *stream: object) -> State:
        """Draw initial weights, He-scaled with non-zero biases; float64, on the CPU."""
        like = dict(self.model(spec).named_parameters())
        drawn = conv_planting.chain_mother(like, self.names, self.random(*stream))
        return dict(gpu.perturbed(drawn, self.setting.runtime, self.seed))

    def random(self, *stream: object) -> torch.Generator:
        """Return a generator of this seed."""
        return gpu.generator("cpu", "conv", *stream, self.seed)

    def net(self, spec: ModelSpec, state: State) -> Net:
        """Return the architecture on the device with these weights."""
        net = Net(self.model(spec), self.setting.runtime)
        net.rewind(state)
        return net

    @cached_property
    def mother(self) -> State:
        """The mother's initial weights."""
        return self.drawn(self.conv.model, "mother")

    @cached_property
    def ticket(self) -> State:
        """The trained ticket in its own net, float64, removed entries exactly zero."""
        if self.found is None or self.found.ticket.weights is None:
            raise InputError("ticket: none given, a trained one is needed")
        return {name: w.double() for name, w in self.found.ticket.weights.items()}

    @property
    def ticket_mask(self) -> Mask:
        """The mask of the ticket in its own net, including kept weights that happen to be 0."""
        if self.found is None:
            raise InputError("ticket: none given, a trained one is needed")
        return self.found.ticket.mask

    @cached_property
    def planted(self) -> PlantedChain:
        """The mother with the ticket planted in it."""
        names = self.names
        return conv_planting.plant_chain(self.ticket, self.mother, names, self.random("plant"))

    def start(self, mother: Mother) -> State:
        """Return the weights from which every search starts."""
        return self.planted.weights if mother == "planted" else self.mother

    def density(self, wanted: Density) -> float:
        """Return a density as a number."""
        return self.planted.mask.density if wanted == "gt" else wanted

    @cached_property
    def probe(self) -> tuple[Tensor, Tensor]:
        """The batch for criteria: images (n, C, H, W) as the net gets them, and labels."""
        images = self.data.train
        order = torch.randperm(len(images), generator=self.random("probe"))
        index = order[: self.conv.probe].to(self.device)
        return Batches(images, self.data)(index), images.y[index]


def all_of(net: Net) -> Mask:
    """Return the mask of every weight and bias of a net."""
    return masks.ones(net.model, net.names)


# ---------------------------------------------------------------- pruning and training


def fit(
    bench: ConvBench,
    net: Net,
    start: State,
    mask: Mask | None,
    recipe: Recipe,
    stage: str = "train",
) -> State:
    """Train the net from `start` under a mask on the seed's data; return the trained weights."""
    net.rewind(start, mask)
    train(net, bench.data.train, bench.data, recipe, seed=order(bench.seed, stage), mask=mask)
    return net.state()


def prune(
    bench: ConvBench,
    net: Net,
    method: str,
    weights: State,
    mask: Mask,
    density: float,
    random: torch.Generator,
) -> Mask:
    """Return the mask at `density` by one of the study's methods, scored on `weights`."""
    how = way(method)
    rounds = bench.setting.score_rounds if how.many else 1
    rule = Rule(layerwise=how.local, as_released=bench.setting.as_released)
    probe = saliency.probe_model(net.model, *bench.probe, random)
    on_device = {name: tensor.to(net.device, torch.float32) for name, tensor in weights.items()}
    criterion = named_criterion(how.criterion)
    return saliency.prune_to(criterion, probe, on_device, mask, density, rounds, rule)


def seek_mask(
    bench: ConvBench, net: Net, start: State, method: str, density: float, regime: Regime
) -> tuple[Mask, int | None]:
    """Search for a mask from `start`; also return the round after which no path was left, if any.

    Random scores are drawn separately for each method, density and round, so that they do not
    depend on what else is searched for.
    """
    dense, collapsed = all_of(net), None

    def random(turn: int) -> torch.Generator:
        where = ("conv", "random-scores", method, density, turn, bench.seed)
        return gpu.generator(net.device, *where)

    if regime == "singleshot":
        return prune(bench, net, method, start, dense, density, random(1)), None
    conv, mask = bench.conv, dense
    recipe = conv.recipe.model_copy(update={"length": conv.round_length})
    for turn in range(1, conv.rounds + 1):
        progress.label(task="conv", seed=bench.seed, method=method, round=turn)
        trained = fit(bench, net, start, mask, recipe, f"round-{turn}")
        if bench.setting.as_released:  # removed weights are ranked again, by their initial values
            trained = {
                n: torch.where(mask[n], w, start[n].to(w)) if n in mask else w
                for n, w in trained.items()
            }
        share = density ** (turn / conv.rounds)
        mask = prune(bench, net, method, trained, mask, share, random(turn))
        collapsed = collapsed or (None if reaches(mask, bench.names) else turn)
    return mask, collapsed


def reaches(mask: Mask, names: Sequence[str]) -> bool:
    """Return whether a path from the images to any output is left."""
    return bool(conv_planting.chain_connected(mask, names)[names[0]].any())


def accuracy(bench: ConvBench, net: Net) -> float:
    """Return the net's current accuracy on the test images, in 0..1."""
    return evaluate(net, bench.data.test, Batches(bench.data.test, bench.data)).accuracy


def strong(bench: ConvBench, net: Net) -> dict[str, float]:
    """Return test accuracies without training: raw, and with output scales fitted on training
    images."""
    few = bench.data.train.select(
        torch.arange(min(gauge.FITTED_ON, len(bench.data.train)), device=net.device)
    )
    pairs = [
        (predict(net, images, Batches(images, bench.data)).cpu(), images.y.cpu())
        for images in (few, bench.data.test)
    ]
    return gauge.strong_scores(pairs[0], pairs[1], "classification")


def describe(bench: ConvBench, mask: Mask, label: str) -> dict[str, Any]:
    """Return the mask's entries kept and connected, density by tensor, and share planted."""
    mask, names = mask.to("cpu"), bench.names
    live = conv_planting.chain_connected(mask, names)
    return {
        "label": label,
        "density": bench.density("gt") if label == "gt" else float(label),
        "kept": mask.alive,
        "effective": live.alive,
        "alive": bool(live[names[0]].any()),
        "layers": mask.densities(),
        **planting.found(mask, bench.planted.mask),
    }


# ---------------------------------------------------------------- units


def train_ticket(setting: ConvSetting, seed: int) -> Result:
    """Find a ticket in its own net over many rounds, and train it; it is planted later."""
    bench = ConvBench(setting, seed)
    conv = bench.conv
    start = bench.drawn(conv.ticket_model, "ticket")
    net = bench.net(conv.ticket_model, start)
    mask, collapsed = seek_mask(
        bench, net, start, conv.ticket_method, conv.ticket_density, "multishot"
    )
    trained = fit(bench, net, start, mask, conv.recipe)
    record = {
        "seed": seed,
        "score": accuracy(bench, net),
        "kept": mask.alive,
        "density": mask.density,
        "collapsed": collapsed,
    }
    origin: dict[str, Any] = {"paper": "plant_n_seek", "arm": "conv-ticket", "seed": seed}
    ticket = make_ticket(mask, trained, **origin, **network(conv.ticket_model, bench.data))
    return Result(record, {"ticket": ticket})


def plant(setting: ConvSetting, seed: int, found: Known) -> Result:
    """Plant the seed's ticket and verify it; nothing is trained.

    `error` is the largest difference to the ticket's own outputs on test images, relative to the
    largest output, in float64; 0 if a dead ticket is still dead once planted. `visible` measures
    how planted weights differ from the others of each tensor.
    """
    bench = ConvBench(setting, seed, found)
    planted, spec = bench.planted, bench.conv.model
    images = bench.data.test.select(torch.arange(min(100, len(bench.data.test))).to(bench.device))
    x = Batches(images, bench.data)(torch.arange(len(images), device=bench.device)).double()
    own, wide = (
        saliency.probe_model(bench.model(each).double(), x.cpu(), images.y.cpu())
        for each in (bench.conv.ticket_model, spec)
    )
    with torch.no_grad():
        wanted = own.forward(bench.ticket, own.x)
        ours = wide.forward(planted.ticket(), wide.x) / planted.factor
    net = bench.net(spec, planted.ticket())
    record = {
        "seed": seed,
        "error": float((ours - wanted).abs().max() / wanted.abs().max().clamp(min=SMALLEST)),
        "factor": planted.factor,
        "density": planted.mask.density,
        "kept": planted.mask.alive,
        "ticket": accuracy(bench, bench.net(bench.conv.ticket_model, bench.ticket)),
        "strong": strong(bench, net),
        "visible": visible(bench),
        "data": bench.data.sha256,
    }
    return Result(record)


def visible(bench: ConvBench) -> list[dict[str, Any]]:
    """Compare planted with other entries of each tensor, in standard deviations of the mother."""
    planted, names = bench.planted, bench.names
    scales = conv_planting.chain_deviations(planted.weights, names)
    sizes = conv_planting.chain_in_deviations(planted.weights, scales)
    return [
        {
            "tensor": name,
            "largest": float(size[planted.mask[name]].max()) if planted.mask[name].any() else None,
            "auroc": planting.auroc(size, planted.mask[name]),
        }
        for name, size in sizes.items()
    ]


def seek(
    setting: ConvSetting,
    seed: int,
    found: Known,
    mother: Mother,
    regime: Regime,
    method: Method,
    densities: Sequence[Density],
) -> Result:
    """Run one method at all densities: strong score, training, weak score."""
    bench = ConvBench(setting, seed, found)
    start, rows = bench.start(mother), []
    net = bench.net(bench.conv.model, start)
    for wanted in densities:
        progress.label(task="conv", seed=seed, mother=mother, method=method, density=wanted)
        density = bench.density(wanted)
        mask, collapsed = seek_mask(bench, net, start, method, density, regime)
        rows.append(
            train_and_score(bench, net, start, mask, method, str(wanted)) | {"collapsed": collapsed}
        )
    return Result({"head": {"seed": seed, "mother": mother, "regime": regime}, "rows": rows})


def train_and_score(
    bench: ConvBench, net: Net, start: State, mask: Mask, method: str, label: str
) -> dict[str, Any]:
    """Return one row: the masked net before and after training."""
    net.rewind(start, mask)
    row = {"method": method, "strong": strong(bench, net)} | describe(bench, mask, label)
    fit(bench, net, start, mask, bench.conv.recipe)
    return row | {"weak": accuracy(bench, net)}


def pop_all(
    setting: ConvSetting,
    seed: int,
    found: Known,
    mother: Mother,
    variant: Literal["plain", "annealed"],
    gain: Gain,
    densities: Sequence[Density],
) -> Result:
    """Run edge-popup at all densities; `curve` is the raw accuracy after each epoch."""
    bench = ConvBench(setting, seed, found)
    conv, start, rows = bench.conv, bench.start(mother), []
    names = bench.names
    for wanted in densities:
        progress.label(task="conv", seed=seed, mother=mother, popup=variant, density=wanted)
        net, goal = bench.net(conv.model, start), Goal(bench.density(wanted), variant == "annealed")
        watch = Track(bench.data.test, bench.data)
        at = [goal.at(level, conv.levels) for level in range(1, conv.levels + 1)]
        mask = pop(
            net,
            all_of(net),
            goal,
            bench.data.train,
            bench.data,
            conv.popup_recipe,
            order(seed, "popup"),
            levels=conv.levels,
            joint=conv.joint,
            observers=[watch],
            gains=[conv_planting.even_gains(names, d) for d in at] if gain == "even" else (),
        )
        net.rewind(start, mask)
        row = {"method": variant, "strong": strong(bench, net)} | describe(bench, mask, str(wanted))
        rows.append(row | {"curve": [score.accuracy for score in watch.scores]})
    regime = "popup" if gain == "none" else "popup_even"
    return Result({"head": {"seed": seed, "mother": mother, "regime": regime}, "rows": rows})


def control(setting: ConvSetting, seed: int, found: Known, arm: str) -> Result:
    """Train one of `CONTROLS`."""
    bench = ConvBench(setting, seed, found)
    progress.label(task="conv", seed=seed, control=arm)
    head = {"seed": seed, "mother": "planted", "regime": "controls"}
    if arm in OWN_NET:
        return Result({"head": head, "rows": [own_net_row(bench, arm)]})
    start, mask = bench.planted.weights, bench.planted.mask
    if arm == "oracle_shuffled":
        mask = shuffle_layerwise(mask, bench.random("shuffle"))
    if arm == "oracle_reinit":
        start = bench.drawn(bench.conv.model, "fresh")
    net = bench.net(bench.conv.model, start)
    mask = all_of(net) if arm == "dense" else mask.to(net.device)
    label = "1" if arm == "dense" else "gt"
    return Result({"head": head, "rows": [train_and_score(bench, net, start, mask, arm, label)]})


def own_net_row(bench: ConvBench, arm: str) -> dict[str, Any]:
    """Return a row for the ticket's own net.

    Either the ticket trained further at its own scale, or the dense net from its initial weights.
    """
    spec, dense = bench.conv.ticket_model, arm == "narrow_dense"
    start = bench.drawn(spec, "ticket") if dense else bench.ticket
    net = bench.net(spec, start)
    mask = all_of(net) if dense else bench.ticket_mask.to(net.device)
    fit(bench, net, start, mask, bench.conv.recipe)
    total = bench.planted.mask.total
    row = {"method": arm, "label": "gt", "density": mask.alive / total, "kept": mask.alive}
    return row | {"weak": accuracy(bench, net)}


CONTROLS = (
    "dense",
    "oracle",
    "oracle_shuffled",
    "oracle_reinit",
    "ticket_trained",
    "narrow_dense",
)
"""The mother; the planted ticket unchanged, shuffled within layers, and on new weights; the ticket
at its own scale (in its own net); and that net, dense."""
OWN_NET = ("ticket_trained", "narrow_dense")
"""Controls in the ticket's own net; the others are in the mother."""


# ---------------------------------------------------------------- validation and work


def check(setting: ConvSetting) -> None:
    """Reject parameters that fail only when the nets are built, before anything is trained."""
    conv, bench = setting.conv, ConvBench(setting, 0)
    own, mother = (bench.model(spec) for spec in (conv.ticket_model, conv.model))
    ticket, weights = (dict(model.named_parameters()) for model in (own, mother))
    for model, spec in ((own, conv.ticket_model), (mother, conv.model)):
        names = models.prunable(model, "conv_linear")
        conv_planting.check_chain(dict(model.named_parameters()), names, spec.name)
    if set(ticket) != set(weights):
        raise InputError(
            f"conv.ticket_model: {conv.ticket_model.name!r} is not the mother's {conv.model.name!r}"
        )
    conv_planting.check_room(ticket, weights, models.prunable(mother, "conv_linear"))
    images = len(bench.data.train)
    for place, recipe in _recipes(conv).items():
        try:
            recipe.check(images, Step(0, "it"))
        except InputError as error:
            raise InputError(f"conv.{place}: {error}") from None
    if conv.popup_recipe.optimizer != "sgd":
        raise InputError(
            f"conv.popup_recipe.optimizer: {conv.popup_recipe.optimizer!r}, allowed is 'sgd'"
        )
    if conv.probe > images:
        raise InputError(f"conv.probe: {conv.probe}, allowed: 1 to {images} (training images)")
    total = sum(tensor.numel() for tensor in weights.values())
    own_total = sum(tensor.numel() for tensor in ticket.values())
    for key, chosen, among in (
        ("densities", conv.densities, total),
        ("popup_densities", conv.popup_densities, total),
        ("ticket_density", (conv.ticket_density,), own_total),
    ):
        for wanted in chosen:
            try:
                saliency.kept_at(among, 1.0 if wanted == "gt" else wanted)
            except InputError as error:
                raise InputError(f"conv.{key}: {error}") from None


def _recipes(conv: ConvParams) -> Mapping[str, Recipe]:
    rounds = conv.recipe.model_copy(update={"length": conv.round_length})
    return {"recipe": conv.recipe, "round_length": rounds, "popup_recipe": conv.popup_recipe}


def passes(setting: ConvSetting, regime: str, arms: int) -> float:
    """Return the images seen by `arms` arms of a regime."""
    conv = setting.conv
    images = conv.data.train or len(load(conv.data).train)
    each = {place: recipe.passes(images) for place, recipe in _recipes(conv).items()}
    final = each["recipe"]
    if regime == "multishot":
        final += conv.rounds * each["round_length"]
    return float(arms * (conv.levels * each["popup_recipe"] if regime == "popup" else final))
