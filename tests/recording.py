"""Records what reaches the trainings and evaluations of a study: images, order, mask, weights.

The functions by which nets are trained and looked at are replaced wherever a module of the package
has them, so nothing here depends on how a study is built. Images are recognised by their bytes and
named by their split and their official index; a study runs in this process, with one worker.
"""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor

from ticketlab import progress
from ticketlab.data import sets
from ticketlab.data.sets import DataSet, Images
from ticketlab.many import lanes, stacks
from ticketlab.papers.geometry.algorithm import corruption
from ticketlab.papers.plant_n_seek import algorithm as planting
from ticketlab.papers.plant_n_seek.algorithm import edge_popup as popup
from ticketlab.papers.plant_n_seek.conv import edge_popup as conv_popup
from ticketlab.papers.seekers.algorithm import gates
from ticketlab.pruning import saliency
from ticketlab.pruning.masks import Mask, State
from ticketlab.study import results
from ticketlab.study.runner import run_study
from ticketlab.training import evaluation, loop, observers
from ticketlab.training.evaluation import Score
from ticketlab.training.net import Net
from ticketlab.training.observers import Observer, Run


class Place(NamedTuple):
    """An image: its data set, its split there, and its index among the official images."""

    data: str
    split: str
    index: int


Places = tuple[Place, ...]


def digest(tensor: Tensor) -> str:
    """A short hash of a tensor's shape, type and bytes."""
    array = tensor.detach().cpu().contiguous().numpy()
    text = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(text + array.tobytes(), digest_size=8).hexdigest()


# ---------------------------------------------------------------- what is recorded


@dataclass(frozen=True)
class Batch:
    """One batch as the net got it: its images, and a hash of the tensor (augmentation included)."""

    places: Places
    digest: str


@dataclass(eq=False)
class Event:
    """Anything recorded: the unit that did it, and what it said it was working on."""

    unit: str = ""
    label: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of the unit, from its name."""
        return int(self.unit.rpartition("seed-")[2])


@dataclass(eq=False)
class Look(Event):
    """Images a net computed outputs of without a step: `evaluate`, `predict`, or a bare batch.

    `by` is the observer that asked, empty outside of a training; `kind` is the function.
    """

    kind: str = ""
    by: str = ""
    places: Places = ()
    labels: tuple[int, ...] = ()
    state: State = field(default_factory=dict)
    score: Score | None = None
    classes: tuple[int, ...] = ()
    """The predicted classes, of `predict`."""

    @property
    def splits(self) -> set[str]:
        """The splits of the images."""
        return {place.split for place in self.places}


@dataclass(eq=False)
class Training(Event):
    """One net that was trained: what it was given, every batch it saw, and what became of it."""

    path: str = "plain"
    order: tuple[object, ...] = ()
    places: Places = ()
    labels: tuple[int, ...] = ()
    recipe: Any = None
    mask: Mask | None = None
    start: State = field(default_factory=dict)
    end: State = field(default_factory=dict)
    best: State = field(default_factory=dict)
    """The state of the best epoch on held-out images, where one was kept."""
    batches: list[Batch] = field(default_factory=list)
    steps: int = 0
    ends: list[int] = field(default_factory=list)
    """Steps made at the end of each epoch."""
    states: list[State] = field(default_factory=list)
    """The state at the end of each epoch."""
    looks: list[Look] = field(default_factory=list)
    observers: list[Observer] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Steps after which the zeros of the net were not those of its mask."""
    model: Any = None
    images: int = 0
    """Images in all batches."""
    edits: list[tuple[State, State]] = field(default_factory=list)
    """What observers added to the gradients, and the weights they were of, step by step."""
    on_the_way: list[State] = field(default_factory=list)
    """The state after each step, of nets of which nothing is removed."""
    hits: dict[Place, list[bool]] = field(default_factory=dict)
    """For each image, whether its class was right, pass by pass."""

    @property
    def splits(self) -> set[str]:
        """The splits of the images that were trained on."""
        return {place.split for batch in self.batches for place in batch.places}

    def observer(self, name: str) -> Any:
        """The observer of a class, by its name."""
        (found,) = (o for o in self.observers if type(o).__name__ == name)
        return found


@dataclass(eq=False)
class Pruning(Event):
    """A mask from scores: on which weights and images, from which mask, to which density."""

    criterion: str = ""
    weights: State = field(default_factory=dict)
    places: Places = ()
    before: Mask | None = None
    density: float = 1.0
    rounds: int = 1
    mask: Mask | None = None


@dataclass(eq=False)
class Popping(Event):
    """Edge-popup or gates on one net: its frozen weights, its goal and its last mask."""

    weights: State = field(default_factory=dict)
    goal: Any = None
    mask: Mask | None = None
    end: State = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)


# ---------------------------------------------------------------- the zeros of a net


def zeros_differ(
    state: Mapping[str, Tensor], mask: Mask, start: Mapping[str, Tensor] | None = None
) -> str:
    """Where the zeros of a state's masked tensors are not those of the mask; empty if nowhere.

    An entry that is kept may be zero if it already was at the `start`.
    """
    found = []
    for name, keep in mask.items():
        there, keep = state[name].detach().cpu() != 0, keep.cpu()
        wanted = keep if start is None else keep & (start[name].cpu() != 0)
        wrong = int(((there & ~keep) | (wanted & ~there)).sum())
        if wrong:
            found.append(f"{name}: {wrong} of {keep.numel()}")
    return ", ".join(found)


class First(Observer):
    """Comes before all other observers and remembers the gradients of the loss."""

    grads: Tensor

    def before_step(self, run: Run) -> None:
        """Remember them."""
        self.grads = run.net.grads.clone()


class Witness(Observer):
    """Sees the labels of every batch, what was done to gradients, and the zeros of every step."""

    def __init__(self, training: Training, first: First) -> None:
        self.training, self.first = training, first

    def before_step(self, run: Run) -> None:
        """The labels must be those of the images that the batch was made of."""
        given = dict(zip(self.training.places, self.training.labels, strict=True))
        wanted = [given[place] for place in self.training.batches[-1].places]
        if run.labels.tolist() != wanted:
            self.training.strange.append(f"step {run.iteration}: labels of other images")
        right = (run.logits.argmax(1) == run.labels).tolist()
        for place, hit in zip(self.training.batches[-1].places, right, strict=True):
            self.training.hits.setdefault(place, []).append(hit)

        if not bool((run.net.grads == self.first.grads).all()):
            now = copied({n: p.grad for n, p in run.net.model.named_parameters()})  # type: ignore[misc]
            edited = run.net.grads.clone()
            run.net.grads.copy_(self.first.grads)
            loss = copied({n: p.grad for n, p in run.net.model.named_parameters()})  # type: ignore[misc]
            run.net.grads.copy_(edited)
            state = copied(dict(run.net.model.named_parameters()))
            self.training.edits.append(({n: now[n] - loss[n] for n in now}, state))

    def after_step(self, run: Run) -> None:
        """The zeros must be the mask's."""
        training = self.training
        training.steps += 1
        if training.mask is None or training.mask.density == 1:
            training.on_the_way.append(run.net.state())
        if training.mask is not None:
            named = dict(run.net.model.named_parameters())
            if wrong := zeros_differ(named, training.mask):
                training.strange.append(f"step {run.iteration}: {wrong}")

    def after_epoch(self, run: Run) -> bool:
        """Note how many steps there were, and the state; never ends anything."""
        self.training.ends.append(self.training.steps)
        self.training.states.append(run.net.state())
        return False


# ---------------------------------------------------------------- the recorder


def copied(state: Mapping[str, Tensor]) -> State:
    """A copy that later steps cannot change."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def content(data: DataSet) -> str:
    """A digest of all tensors of a data set."""
    splits = (data.train, data.validation, data.test)
    tensors = [tensor for split in splits for tensor in (split.x, split.y)]
    return " ".join(map(digest, [*tensors, data.mean, data.std]))


class Tape:
    """All events of one run of a study in order, and what its units returned."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.results: dict[str, results.Result] = {}
        self.truth: dict[Place, int] = {}
        """The label of each image in its data set."""
        self.shared: dict[int, tuple[DataSet, str]] = {}
        """The data sets that units share, and what was in them when they were first loaded."""
        self.params: Any = None
        self._known: dict[bytes, Place] = {}
        self._sets: dict[int, tuple[Tensor, Places]] = {}
        self._open: list[Event] = []
        self._label: dict[str, Any] = {}

    def of(self, kind: type[Any], unit: str = "") -> list[Any]:
        """The events of a kind in the units whose name begins with `unit`, in order."""
        return [e for e in self.events if type(e) is kind and e.unit.startswith(unit)]

    def trainings(self, unit: str = "") -> list[Training]:
        """The trainings of the units whose name begins with `unit`."""
        return self.of(Training, unit)

    # ------------------------------------------------ images

    def learn(self, found: DataSet) -> None:
        """Know the images of a data set from now on."""
        if id(found) in self.shared:
            return
        self.shared[id(found)] = (found, content(found))
        for split in ("train", "validation", "test"):
            images, index = getattr(found, split), getattr(found, f"{split}_index")
            places = [Place(found.name, split, place) for place in index.tolist()]
            for row, place in zip(images.x, places, strict=True):
                self._know(row.numpy().tobytes(), place)
            self.truth |= dict(zip(places, images.y.tolist(), strict=True))

    def learn_samples(self, task: str, x: Tensor) -> None:
        """Know generated samples (N, inputs) from now on; how many they are tells their split."""
        splits = {getattr(self.params, part): part for part in ("train", "test", "probe")}
        for index, row in enumerate(x.float()):
            place = Place(f"{task}-{digest(x)}", splits[len(x)], index)
            self._know(row.numpy().tobytes(), place)

    def _know(self, key: bytes, place: Place) -> None:
        if self._known.setdefault(key, place) != place:
            raise AssertionError(f"one image in two places: {self._known[key]} and {place}")

    def places(self, x: Tensor) -> Places:
        """Where the images of x (N, ...) are from."""
        if id(x) not in self._sets:
            found = tuple(self._known[row.contiguous().cpu().numpy().tobytes()] for row in x)
            self._sets[id(x)] = (x, found)  # with x itself, so that no other gets its id
        return self._sets[id(x)][1]

    # ------------------------------------------------ events

    def add(self, event: Event) -> None:
        """Append what is not part of something that is going on."""
        event.label = dict(self._label)
        self.events.append(event)

    @contextmanager
    def during(self, event: Event) -> Iterator[None]:
        """Batches drawn inside belong to this event."""
        event.label = dict(self._label)
        self._open.append(event)
        try:
            yield
        finally:
            self._open.pop()

    def training_now(self) -> Training | None:
        """The innermost training that is going on."""
        return next((e for e in reversed(self._open) if isinstance(e, Training)), None)

    def looked(self, look: Look) -> None:
        """File a look under the training it happened in, or as an event of its own."""
        inside = self.training_now()
        if inside is None:
            self.add(look)
        else:
            look.label = dict(self._label)
            inside.looks.append(look)

    def drawn(self, places: Places, x: Tensor, training: bool) -> None:
        """A batch was made."""
        now = self._open[-1] if self._open else None
        if isinstance(now, Look):
            now.places += places
        elif isinstance(now, Training) and training:
            now.batches.append(Batch(places, digest(x)))
            now.images += len(places)
        else:
            self.looked(Look(kind="batch", by=asked_by(), places=places))


def asked_by() -> str:
    """The class of the observer (or of the lanes' judge) in whose method this happens."""
    frame = sys._getframe(1)
    while frame is not None:
        who = frame.f_locals.get("self")
        if isinstance(who, Observer | lanes.Judge):
            return type(who).__name__
        frame = frame.f_back  # type: ignore[assignment]
    return ""


# ---------------------------------------------------------------- what is replaced


def replace_everywhere(patch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Put `new` wherever a module of the package has `old`, under whatever name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ticketlab"):
            for attribute, value in list(vars(module).items()):
                if value is old:
                    patch.setattr(module, attribute, new)


def wrapper(tape: Tape, act: Callable[..., Any], old: Callable[..., Any]) -> Callable[..., Any]:
    """`act(tape, call, arguments)` in place of a function; `call` runs the function itself."""
    signature = inspect.signature(old)

    @functools.wraps(old)
    def new(*args: Any, **more: Any) -> Any:
        bound = signature.bind(*args, **more)
        bound.apply_defaults()
        return act(tape, lambda: old(*bound.args, **bound.kwargs), bound.arguments)

    return new


def _train(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    net: Net = a["net"]
    mask = None if a["mask"] is None else Mask({n: k.cpu().clone() for n, k in a["mask"].items()})
    found = Training(
        order=tuple(a["seed"]), places=tape.places(a["images"].x),
        labels=tuple(a["images"].y.tolist()), recipe=a["recipe"], mask=mask, start=net.state(),
        observers=list(a["observers"]), model=net.model,
    )  # fmt: skip
    first = First()
    a["observers"] = [first, *a["observers"], Witness(found, first)]
    tape.events.append(found)
    with tape.during(found):
        history = call()
    found.end = net.state()
    for observer in found.observers:
        if isinstance(observer, observers.KeepBest):
            found.best = copied(observer.state)
    if mask is not None and (wrong := zeros_differ(found.end, mask)):
        found.strange.append(f"at the end: {wrong}")
    return history


def _look(kind: str, tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    if tape._open and isinstance(tape._open[-1], Look):
        return call()
    images: Images = a["images"]
    look = Look(kind=kind, by=asked_by(), labels=tuple(images.y.tolist()), state=a["net"].state())
    with tape.during(look):
        found = call()
    if look.places != tape.places(images.x):
        raise AssertionError(f"{kind}: the batches are of other images than the labels")
    look.score = evaluation.score_of(found, images.y) if isinstance(found, Tensor) else found
    look.classes = tuple(found.argmax(1).tolist()) if isinstance(found, Tensor) else ()
    tape.looked(look)
    return found


def _lanes(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    jobs: Sequence[lanes.Job] = a["jobs"]
    seen = Training()
    with tape.during(seen):
        done = call()
    for job, trained in zip(jobs, done, strict=True):
        mask = None if job.mask is None else Mask({n: k.cpu() for n, k in job.mask.items()})
        found = Training(
            path=a["path"], order=tuple(job.seed), places=tape.places(job.images.x),
            labels=tuple(job.images.y.tolist()), recipe=job.recipe, mask=mask,
            start=copied(job.start()), end=copied(trained.state),
            best=copied(trained.best.state) if trained.best else {}, batches=seen.batches,
            steps=len(seen.batches), images=seen.images, looks=seen.looks, model=job.model,
        )  # fmt: skip
        if mask is not None and (wrong := zeros_differ(found.end, mask)):
            found.strange.append(f"at the end: {wrong}")
        tape.add(found)
    return done


def _stack(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    seen, places = Training(), tape.places(a["x"])
    with tape.during(seen):
        done = call()
    together = [places for _, places in stacks.together(a["masks"], a["x"].device)]
    steps = len(seen.batches) // len(together)
    first = {net: steps * number for number, nets in enumerate(together) for net in nets}
    for number, (net, mask, end) in enumerate(zip(a["nets"], a["masks"], done, strict=True)):
        batches = seen.batches[first[number] : first[number] + steps]
        found = Training(
            path="stack", order=tuple(a["seed"]), places=places, recipe=a["fit"],
            labels=tuple(a["y"].flatten().tolist()), mask=Mask(dict(mask)), start=copied(net),
            end=copied(end), batches=batches, steps=steps,
            images=sum(len(batch.places) for batch in batches),
        )  # fmt: skip
        if wrong := zeros_differ(found.end, found.mask or Mask({}), found.start):
            found.strange.append(f"at the end: {wrong}")
        tape.add(found)
    return done


def _stack_batches(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    for x, y in call():
        now = tape._open[-1]
        if not isinstance(now, Training | Popping):
            raise AssertionError("a batch for a stack that nothing trains")
        now.batches.append(Batch(tape.places(x), digest(x)))
        yield x, y


def _forward(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    outputs = call()
    if not tape._open:  # an evaluation, not a step
        x, state = a["x"], a["state"]
        places = () if bool((x == 1).all()) else tape.places(x.float())  # SynFlow sees ones
        tape.looked(Look(kind="forward", places=places, state=copied(state)))
    return outputs


def _prune(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    if tape._open and isinstance(tape._open[-1], Pruning):
        return call()
    name = getattr(a["criterion"], "__name__", "criterion")
    x = a["probe"].x
    found = Pruning(
        criterion=name, weights=copied(a["weights"]), before=a["mask"], density=a["density"],
        rounds=a["rounds"], places=tape.places(x) if x.dim() == 2 else (),
    )  # fmt: skip
    return _pruned(tape, call, found)


def _pruned(tape: Tape, call: Callable[[], Any], found: Pruning) -> Any:
    """The mask of the pruning itself, which is recorded with it."""
    with tape.during(found):
        found.mask = call()
    tape.add(found)
    return found.mask


def _prune_model(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    chosen = a["criterion"]
    found = Pruning(
        criterion=chosen if isinstance(chosen, str) else chosen.__name__,
        weights=copied(dict(a["model"].named_parameters())),
        before=a["mask"],
        density=a["density"],
        rounds=a["rounds"],
    )
    return _pruned(tape, call, found)


def _edge_popup(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    seen = Popping()
    with tape.during(seen):
        done = call()
    for net, goal, mask in zip(a["nets"], a["goals"], done.masks, strict=True):
        tape.add(Popping(weights=copied(net), goal=goal, mask=mask, batches=seen.batches))
    return done


def _gates(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    found = Popping(weights=copied(a["net"]), goal=a["density"])
    with tape.during(found):
        done = call()
    found.mask = done.mask
    tape.add(found)
    return done


def _pop(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    start = a["net"].state()
    mask = call()
    tape.add(Popping(weights=start, goal=a["goal"], mask=mask, end=a["net"].state()))
    return mask


def _load(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    found = call()
    tape.learn(found)
    return found


def _corrupt(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    found = call()  # corrupted images are still those that they were
    tape._sets[id(found.x)] = (found.x, tape.places(a["images"].x))
    return found


def _sample(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    x, y = call()
    tape.learn_samples(a["name"], x)
    return x, y


def _label(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    tape._label = dict(a["fields"])
    return call()


def _save(tape: Tape, call: Callable[[], Any], a: dict[str, Any]) -> Any:
    for event in reversed(tape.events):
        if event.unit:
            break
        event.unit = a["name"]
        for look in getattr(event, "looks", ()):
            look.unit = a["name"]
    tape.results[a["name"]] = a["result"]
    return call()


WRAPPED: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (loop.train, _train), (evaluation.evaluate, functools.partial(_look, "evaluate")),
    (evaluation.predict, functools.partial(_look, "predict")), (lanes.train, _lanes),
    (stacks.train, _stack), (stacks.batches, _stack_batches), (stacks.forward, _forward),
    (saliency.prune_to, _prune), (saliency.prune_model, _prune_model),
    (popup.edge_popup, _edge_popup), (gates.bernoulli_gates, _gates),
    (conv_popup.pop, _pop), (sets.load, _load),
    (planting.sample, _sample), (corruption.corrupted, _corrupt),
    (progress.label, _label), (results.save_result, _save),
)  # fmt: skip


@contextmanager
def recording() -> Iterator[Tape]:
    """A tape that records while the block runs."""
    tape = Tape()
    make, draw = sets.Batches.__init__, sets.Batches.__call__

    def make_and_know(self: Any, images: Images, *rest: Any, **more: Any) -> None:
        make(self, images, *rest, **more)
        self.places = tape.places(images.x)

    def draw_and_tell(self: Any, index: Tensor, generator: Any = None) -> Tensor:
        x = draw(self, index, generator)
        places = tuple(self.places[i] for i in index.tolist())
        tape.drawn(places, x, generator is not None)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets.Batches, "__init__", make_and_know)
        patch.setattr(sets.Batches, "__call__", draw_and_tell)
        for old, act in WRAPPED:
            replace_everywhere(patch, old, wrapper(tape, act, old))
        yield tape


def record(study: Callable[[Any, Path], Any], params: Any, folder: Path) -> Tape:
    """Run a study with everything recorded."""
    with recording() as tape:
        tape.params = params
        run_study(study(params), folder)
    return tape
