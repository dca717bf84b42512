"""Five laws that every study keeps, seen in what really reaches its trainings and evaluations.

1. All arms of a seed see the same batches, unless `ORDERS_OF_THEIR_OWN` declares otherwise.
2. Test images reach nothing that selects, watches or stops.
3. The ledger of a record equals what was trained and looked at, at one price list.
4. The sets, masks and weights that an arm claims to use are those that reach its trainings.
5. The zeros of a trained net are those of its mask, in the model's own layout.

Each paper runs once, tiny, with all its arms; `recording` says what is written down on the way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import use_data
from recording import Look, Place, Popping, Pruning, Tape, Training, content, record, zeros_differ
from torch import Tensor

from ticketlab import gpu, models
from ticketlab.data.sets import Batches
from ticketlab.files import read_yaml
from ticketlab.papers.colt import study as colt_study
from ticketlab.papers.colt.params import ColtParams
from ticketlab.papers.compare import study as compare_study
from ticketlab.papers.compare.params import CompareParams
from ticketlab.papers.dlth import study as dlth_study
from ticketlab.papers.dlth.params import RstParams
from ticketlab.papers.plant_n_seek import report as plant_report
from ticketlab.papers.plant_n_seek import study as plant_study
from ticketlab.papers.plant_n_seek.params import PlantParams
from ticketlab.papers.prac import study as prac_study
from ticketlab.papers.prac.params import PracParams
from ticketlab.papers.prac.subsets import unpack_index
from ticketlab.pipeline import registry
from ticketlab.pruning.masks import Mask, State
from ticketlab.training.evaluation import predict, score_of
from ticketlab.training.net import Net
from ticketlab.training.recipe import learning_rate

# ---------------------------------------------------------------- tiny data, tiny studies


def images(name: str) -> dict[str, Any]:
    """120 training, 40 validation and 60 test images of 3 x 14 x 14 pixels that are augmented.

    In one split for all seeds: a recording knows by an image which part it belongs to.
    """
    return {"name": name, "train": 120, "validation": 40, "test": 60, "pool": 2, "split_seed": 0,
            "augment": {"crop": 1, "flip": True}}  # fmt: skip


RUNTIME = {"device": "cpu", "channels_last": True}
SHAPE = (3, 14, 14)
MLP = {"name": "mlp", "width": 16, "depth": 2}

COLT = tiny.COLT | {
    "data": images("laws"),
    "recipe": {"optimizer": "adam", "lr": 0.01, "batch": 50, "length": "2ep"},
    "imp_rate": 0.3,
    "levels": [0.4, 0.7],
    "ablations": [
        {"split": "class", "partitions": 5, "seeds": 1},
        {"split": "interleaved", "seeds": 1},
        {"split": "random", "votes": 1, "seeds": 1},
        {"split": "same", "seeds": 1},
        {"layerwise": True, "seeds": 1},
    ],
    "late": {"rewind": "3it", "imp_seeds": 1},
    "transfer": {"data": images("others"), "levels": [0.7], "seeds": 1},
    "resized": {"data": images("others") | {"pool": 1}, "levels": [0.7], "seeds": 1},
    "runtime": RUNTIME,
}
LATE = {"rewind": "2it", "prune_from": "validation", "authors_metric": True, "ablations": [],
        "late": None, "resized": None}  # fmt: skip

PRAC = tiny.PRAC | {"data": images("laws"), "model": MLP, "runtime": RUNTIME}

DLTH = tiny.DLTH | {
    "data": images("laws"),
    "finetune": {"batch": 50, "length": "4it", "milestones": ["50%"], "weight_decay": 5e-4},
    "transform": {"lr": 0.02, "batch": 30, "length": "6it", "schedule": "constant"},
    "iterative": {"cycles": 2, "length": "3it", "ramp": 2},
    "lth_iter": {"cycles": 2, "length": "5it"},
    "draws": 2,
    "others": [tiny.DLTH["others"][0] | {"data": images("laws"), "model": MLP}],
    "runtime": RUNTIME,
}

BED = tiny.COMPARE["beds"][0] | {"recipe": {"batch": 50, "length": "2ep"}}
COMPARE = tiny.COMPARE | {
    "data": images("laws"),
    "rewind": "2it",
    "beds": [BED, BED | {"name": "mlp", "model": MLP, "levels": [0.7, 0.95]}],
    "runtime": RUNTIME,
}

FIT = {"lr": 0.01, "batch": 50, "epochs": 2}
PLANT: dict[str, Any] = tiny.PLANT_N_SEEK | {
    "test": 90,
    "probe": 30,
    "fit": FIT,
    "grids": [
        {"tasks": ["circle"], "widths": [24], "densities": ["gt", 0.3], "controls": True,
         "singleshot": ["random", "magnitude", "snip", "grasp", "synflow_rounds"],
         "multishot": ["magnitude", "snip"], "mothers": ["planted", "unplanted"]},
        {"tasks": ["relu"], "widths": [24], "densities": ["gt", 0.5],
         "popup": ["plain", "annealed"], "mothers": ["planted", "unbiased"],
         "heads": ["linear", "softmax"]},
    ],
    "runtime": RUNTIME,
}  # fmt: skip
CONV: dict[str, Any] = {
    "grids": [{"tasks": ["relu"], "widths": [8], "densities": [0.5], "singleshot": ["random"],
               "seeds": [0]}],
    "conv": tiny.CONV | {
        "data": images("laws") | {"validation": 0},
        "singleshot": ["magnitude", "snip"],
        "multishot": ["magnitude"],
        "popup": ["plain", "annealed"],
        "popup_densities": [0.5],
    },
}  # fmt: skip


def with_images(tree: Any) -> Any:
    """Parameters whose data sets, wherever they are, are all of these images."""
    if isinstance(tree, list):
        return [with_images(branch) for branch in tree]
    if not isinstance(tree, dict):
        return tree
    return {k: images("laws") if k == "data" else with_images(v) for k, v in tree.items()}


STUDIES: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "colt": (colt_study.phases, lambda: ColtParams.model_validate(COLT)),
    "colt-late": (colt_study.phases, lambda: ColtParams.model_validate(COLT | LATE)),
    "prac": (prac_study.phases, lambda: PracParams.model_validate(PRAC)),
    "dlth": (dlth_study.phases, lambda: RstParams.model_validate(DLTH)),
    "compare": (compare_study.phases, lambda: CompareParams.model_validate(COMPARE)),
    "plant": (plant_study.phases, lambda: PlantParams.model_validate(PLANT)),
    "conv": (plant_study.phases, lambda: PlantParams.model_validate(PLANT | CONV)),
}
for path in sorted(Path(__file__).parent.glob("*/tiny.yaml")):  # further papers lay out their own
    further = registry.PAPERS[path.parent.name]
    values = with_images(read_yaml(path)) | {"runtime": RUNTIME}
    STUDIES[path.parent.name] = (further.phases, partial(further.params.model_validate, values))
PAPERS = tuple(STUDIES)
GENERATED = ("plant", "seekers")
"""The studies on generated samples, not images."""


def make_images(root: Path, name: str, first: int, test: int) -> None:
    """NAME.npz: 20 training and 8 test images per class of mnist_5k in three colours; `first` is
    where a class's training images begin, `test` where its test images do."""
    few = tiny.some_images(slice(first, first + 20), slice(test, test + 8))
    for part in ("x_train", "x_test"):
        few[part] = np.stack([few[part], few[part][:, ::-1], np.roll(few[part], 3, 2)], 1)
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / f"{name}.npz", **few)


@pytest.fixture(scope="module")
def tape_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tape]:
    """The recorded run of a paper's tiny study; each runs once, when it is asked for.

    With `other_test` the test images are others, and only the first seed runs.
    """

    @cache
    def root(test: int) -> Path:
        folder = tmp_path_factory.mktemp("data")
        make_images(folder, "laws", 0, test)
        make_images(folder, "others", 20, test + 40)
        return folder

    @cache
    def run(paper: str, other_test: bool = False) -> Tape:
        study, params = STUDIES[paper]
        with pytest.MonkeyPatch.context() as patch:
            use_data(patch, root(10 if other_test else 0))
            one: dict[str, Any] = {"seeds": (0,)} if other_test else {}
            if other_test and paper in GENERATED:
                one["test"] = 70
            return record(study, params().model_copy(update=one), tmp_path_factory.mktemp(paper))

    return run


@pytest.fixture
def tape(tape_of: Callable[..., Tape], paper: str) -> Tape:
    """The tape of the test's paper."""
    return tape_of(paper)


def of(*papers: str, slow: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """The papers that a test is about; for the `slow` ones it runs in `make test-slow`."""
    marks = {paper: [pytest.mark.slow] if paper in slow else [] for paper in papers}
    return pytest.mark.parametrize(
        "paper", [pytest.param(paper, marks=marks[paper]) for paper in papers]
    )


# ---------------------------------------------------------------- what the laws compare


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states have the same tensors, bit for bit."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def masked(state: State, mask: Mask | None) -> State:
    """The state without what the mask removes."""
    return {n: w * mask[n] if mask is not None and n in mask else w for n, w in state.items()}


def body(state: State) -> State:
    """All but the output layer."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


def head(state: State) -> State:
    """The output layer."""
    return {name: tensor for name, tensor in state.items() if name.startswith("head.")}


def largest(state: State, within: Mask, keep: int) -> Mask:
    """The `keep` weights of largest size among those in `within`, all layers together."""
    size = torch.cat([(state[n].abs() * within[n]).flatten() for n in within])
    order = torch.argsort(torch.where(within.flat(), size, -1.0), descending=True, stable=True)
    chosen = torch.zeros(len(size), dtype=torch.bool)
    chosen[order[:keep]] = True
    parts = chosen.split([within[n].numel() for n in within])
    return Mask({n: part.view(within[n].shape) for n, part in zip(within, parts, strict=True)})


def left(alive: int, rate: float) -> int:
    """Weights left of `alive` after a round that removes the fraction `rate` of them."""
    return alive - round(rate * alive)


def labels_of(training: Training) -> dict[Place, int]:
    """The label of each image as the training was given it."""
    return dict(zip(training.places, training.labels, strict=True))


def counts(mask: Mask) -> dict[str, int]:
    """Weights kept in each layer."""
    return {name: int(keep.sum()) for name, keep in mask.items()}


def drawn_anew(a: State, b: State, mask: Mask) -> bool:
    """Whether two starts under one mask have no kept weight in common."""
    return all(bool((a[n] != b[n])[keep].all()) for n, keep in mask.items())


def begins_with(one: Training, other: Training) -> bool:
    """Whether the shorter of two trainings saw the first batches of the longer one."""
    few = min(len(one.batches), len(other.batches))
    return [b.digest for b in one.batches[:few]] == [b.digest for b in other.batches[:few]]


def replays(one: Training, prefix: Training) -> bool:
    """Whether a training passes through the end of another: start, batches and rates are its."""
    rates = [
        [
            learning_rate(t.recipe, i, *t.recipe.iterations(len(t.places)))
            for i in range(prefix.steps)
        ]
        for t in (one, prefix)
    ]
    long_enough = one.steps >= prefix.steps and rates[0] == rates[1]
    return long_enough and same(one.start, prefix.start) and begins_with(one, prefix)


# ---------------------------------------------------------------- the price list of law 3

STEP = 3
"""Forward passes that a training step costs: the one price list of all papers."""
COST = ("iterations", "images", "forward_images", "dense_flops", "sparse_flops")
"""What every record of a cost has, here as an array in this order."""


def priced(trainings: Iterable[Training], steps: int | None = None) -> np.ndarray:
    """The cost of trainings, of at most their first `steps` steps."""
    cost = np.zeros(5)
    for training in trainings:
        batches = training.batches[:steps]
        count = sum(len(batch.places) for batch in batches)
        cost += np.array([len(batches), count, 0, *(STEP * count * flops_of(training))])
    return cost


def looked(training: Training, looks: Iterable[Look]) -> np.ndarray:
    """The cost of looks at the net of a training."""
    count = sum(len(look.places) for look in looks)
    return np.array([0, 0, count, *(count * flops_of(training))])


def chosen_by(training: Training) -> np.ndarray:
    """The cost of the looks by which the best epoch of a training was chosen."""
    return looked(training, [look for look in training.looks if look.by in ("KeepBest", "")])


def flops_of(training: Training) -> np.ndarray:
    """FLOPs of an image's forward pass: dense, and of the weights that are there."""
    densities = training.mask.densities() if training.mask else None
    return np.array(
        [models.flops(training.model, SHAPE), models.flops(training.model, SHAPE, densities)]
    )


def paid(row: Mapping[str, Any], prefix: str = "") -> list[float]:
    """A cost as a record has it."""
    return [row[prefix + name] for name in COST]


def expensive(cost: np.ndarray) -> Any:
    """A cost to compare with, up to the rounding of FLOPs."""
    return pytest.approx(cost.tolist(), rel=1e-9)


# ---------------------------------------------------------------- law 1: batches


def own_order(paper: str, training: Training) -> object:
    """What gives a training an order of its own, beside its seed and its images: declared here."""
    declared = ORDERS_OF_THEIR_OWN.get(paper.partition("-")[0])
    return declared(training) if declared else None


def stage_of_planting(training: Training) -> object:
    """Which training of several that follow each other this is: a round, or the last."""
    if training.path == "stack":
        last = training.recipe.epochs == FIT["epochs"]
    elif any(type(o).__name__ == "Popup" for o in training.observers):
        return f"level {training.order[-1]}"
    else:
        last = str(training.recipe.length) == CONV["conv"]["recipe"]["length"]
    return "final" if last else training.label["round"]


AGAIN = "train, again"
"""The order of IMP's second run in the comparison, in its search and its tickets."""

ORDERS_OF_THEIR_OWN: dict[str, Callable[[Training], object]] = {
    # Copies on equal images differ by their order alone; moved tickets may see other sizes of them.
    "colt": lambda t: (t.label.get("copy"), t.unit.startswith("resized/")),
    # A transformation is a pass of its own over the images, and so is each of its cycles.
    "dlth": lambda t: stage if (stage := role(t)[1]) not in ("finetune", "train") else None,
    # Rounds of pruning, and levels of edge-popup.
    "plant": stage_of_planting,
    "conv": stage_of_planting,
    "seekers": lambda t: t.order[-1],
    # So do RST's transformation and its finetuning; IMP's second run is to differ by this alone.
    "compare": lambda t: t.order[-1] if t.order[-1] in ("transform", AGAIN) else None,
    "geometry": lambda t: t.order[-1] if t.order[-1] in ("transform", AGAIN) else None,
    "prac": lambda t: "again" if t.order[-1] == "again" else None,
}


@of(*PAPERS)
def test_arms_of_a_seed_see_the_same_batches(tape: Tape, paper: str) -> None:
    seen: dict[object, Training] = {}
    for training in tape.trainings():
        key = (training.seed, training.places, training.recipe.batch, own_order(paper, training))
        first = seen.setdefault(key, training)
        assert begins_with(first, training), (first.unit, training.unit, training.label)
        assert training.batches, training.unit
    shared = {seed: training for (seed, *_), training in seen.items()}
    assert len({t.batches[0].digest for t in shared.values()}) == len(shared), "seeds differ"


def epoch_of(count: int, batch: int) -> int:
    """Steps of an epoch: the last batch may be short, but one image joins the batch before."""
    return max(1, count // batch + (count % batch > 1))


@of(*PAPERS)
def test_an_epoch_is_every_image_of_the_set_once(tape: Tape) -> None:
    for training in tape.trainings():
        per_epoch = epoch_of(len(training.places), training.recipe.batch)
        for start in range(0, training.steps - per_epoch + 1, per_epoch):
            epoch = [p for b in training.batches[start : start + per_epoch] for p in b.places]
            assert sorted(epoch) == sorted(training.places), training.unit


# ---------------------------------------------------------------- law 2: test images


SHOWS_TEST_ACCURACY = {"colt-late": ("Track",), "conv": ("Track",)}
"""Observers that look at test images, and what they are for: COLT's `authors_metric`, which the
authors report, and the curve of edge-popup; nothing is selected by them (see the last test)."""


@of(*PAPERS)
def test_no_net_is_trained_selected_watched_or_stopped_on_test_images(
    tape: Tape, paper: str
) -> None:
    for training in tape.trainings():
        assert training.splits == {"train"}, training.unit
        for look in training.looks:
            allowed = look.by in SHOWS_TEST_ACCURACY.get(paper, ())
            assert look.splits <= {"train", "validation"} or allowed, (training.unit, look.by)
    for pruning in tape.of(Pruning):
        assert {place.split for place in pruning.places} <= {"train", "probe"}, pruning.unit
    for popping in tape.of(Popping):
        assert {p.split for b in popping.batches for p in b.places} <= {"train"}, popping.unit
    for look in tape.of(Look):
        assert (
            look.kind != "batch" or look.splits <= {"train"} or look.unit.startswith("conv/plant")
        )


def is_first(unit: str) -> bool:
    """Whether a unit is one of the first seed."""
    return unit.endswith("seed-0") and "/draw-" not in unit


def trace(tape: Tape) -> list[object]:
    """Everything that the units of the first seed decide: what was trained how, what was looked
    at, and the tickets. Draws of DLTH are left out: their seeds depend on the study's."""
    seen: list[object] = []
    for event in tape.events:
        if not is_first(event.unit):
            continue
        if isinstance(event, Training):
            seen.append((event.unit, event.recipe.model_dump_json(), event.order, event.steps,
                         [b.digest for b in event.batches], event.mask, event.start, event.end,
                         event.best))  # fmt: skip
        elif isinstance(event, Look):
            seen.append((event.unit, event.kind, sorted(event.splits), event.state))
        elif isinstance(event, Pruning | Popping):
            seen.append((event.unit, event.mask, event.weights))
    for name, result in filter(lambda item: is_first(item[0]), tape.results.items()):
        seen += [(name, key, t.mask, t.weights or {}) for key, t in result.tickets.items()]
    return seen


def equal(a: object, b: object) -> bool:
    """Equality of nested traces."""
    if isinstance(a, dict) and isinstance(b, dict):
        return same(a, b)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@of(*(paper for paper in PAPERS if paper not in GENERATED))
def test_test_images_were_looked_at(tape: Tape) -> None:
    looks = [look for look in tape.of(Look) if look.score is not None]
    assert any(look.splits == {"test"} for look in looks)
    assert all(len(set(look.places)) == 60 for look in looks if look.splits == {"test"})


# ---------------------------------------------------------------- law 4, for every paper


RELABELLED = {
    # a copy's own classes, from 0
    "colt": ("search/colt-class", "search/colt-interleaved", "late/search/colt-class"),
    "prac": ("search/noise", "score/noise"),  # flipped labels
    "compare": ("convnet/colt/", "mlp/colt/"),
    "geometry": ("convnet/colt/", "convnet/ladder-colt/", "stored/colt/search/colt-class"),
}


@of(*PAPERS)
def test_images_have_their_own_labels(tape: Tape, paper: str) -> None:
    other = RELABELLED.get(paper.partition("-")[0], ())
    for event in (*tape.trainings(), *tape.of(Look)):
        looks = event.looks if isinstance(event, Training) else []
        for each in (event, *looks):
            known = set(each.places) <= set(tape.truth)  # generated samples are not
            if each.labels and known and not event.unit.startswith(other):
                assert each.labels == tuple(tape.truth[p] for p in each.places), event.unit


@of(*(paper for paper in PAPERS if paper not in GENERATED))
def test_no_unit_writes_into_the_images_that_all_units_of_a_process_share(tape: Tape) -> None:
    assert tape.shared
    for data, first in tape.shared.values():
        assert content(data) == first, data.name


@of(*PAPERS)
def test_the_net_that_is_kept_is_the_best_on_validation(tape: Tape) -> None:
    for training in tape.trainings():
        scored = [x for x in training.looks if x.by == "KeepBest"]
        assert bool(training.best) == bool(scored) or training.path != "plain"
        if scored:
            assert {split for look in scored for split in look.splits} == {"validation"}
            best = max(scored, key=lambda look: look.score.accuracy if look.score else 0)
            assert same(training.best, best.state) and len(scored) == len(training.ends)


# ---------------------------------------------------------------- law 5: zeros


@of(*PAPERS)
def test_the_zeros_of_a_trained_net_are_those_of_its_mask(tape: Tape) -> None:
    assert any(t.mask is not None and t.mask.sparsity > 0.5 for t in tape.trainings())
    assert {t.unit: t.strange for t in tape.trainings() if t.strange} == {}


# ---------------------------------------------------------------- law 6: outcomes

KEEPING = {
    "colt": {"imp", "imp-matched", "colt-class-2of2", "colt-random-2of2"},
    "prac": {"imp", "prac", "random"},
    "dlth": {"dense", "lth", "rst", "scratch"},
    "compare": {"imp", "colt", "prac", "rst", "random"},
}
"""The arms whose judged tickets keep what became of them, at least."""


def numbers_in(record: Any, key: str) -> Iterator[float]:
    """The values of a key, anywhere in a record."""
    if isinstance(record, dict):
        yield from (value for name, value in record.items() if name == key)
        record = list(record.values())
    if isinstance(record, list):
        for part in record:
            yield from numbers_in(part, key)


@of(*KEEPING)
def test_an_outcome_is_the_trained_net_and_its_logits_on_the_test_images(
    tape: Tape, paper: str
) -> None:
    kept = [t for r in tape.results.values() for t in r.tickets.values() if t.outcome is not None]
    assert KEEPING[paper] <= {ticket.metadata["arm"] for ticket in kept}
    shared = [data for data, _ in tape.shared.values()]
    for unit, result in tape.results.items():
        for name, ticket in result.tickets.items():
            if ticket.outcome is None:
                continue
            ends = [training.end for training in tape.trainings(unit)]
            assert any(same(end, ticket.outcome.state) for end in ends), (unit, name)
            facts = ticket.metadata
            own = [d for d in shared if d.sha256 == facts["data_sha256"]]  # moved tickets: others
            data = next(d for d in own if list(d.shape) == facts["shape"])
            spec = models.ModelSpec.model_validate(facts["model"])
            net = Net(models.build(spec, data.shape, data.classes, 0), gpu.Runtime(**RUNTIME))
            net.rewind(ticket.outcome.state)
            logits = predict(net, data.test, Batches(data.test, data))
            assert torch.equal(logits, ticket.outcome.logits), (unit, name)
            accuracy = 100 * score_of(logits, data.test.y).accuracy
            assert accuracy in set(numbers_in(result.record, "last_accuracy")), (unit, name)


# ---------------------------------------------------------------- COLT: laws 3 and 4

MAIN = "colt-class-2of2"
POINTS = ("", "late/")
"""Where the names of COLT's units begin: at the study's rewinding point, and at the late one."""


def variants(tape: Tape) -> dict[str, Any]:
    """The ways to overlap by the name of their arm."""
    return {variant.name: variant for variant in tape.params.variants}


def colt_units(tape: Tape, *prefixes: str) -> Iterator[tuple[str, str, str, list[Training]]]:
    """Units of both rewinding points: name, point, arm, and their trainings, but for the one that
    leads to the rewinding point."""
    for name in tape.results:
        point = "late/" if name.startswith("late/") else ""
        if name.removeprefix(point).startswith(prefixes):
            arm = name.split("/")[-2]
            yield name, point, arm, [t for t in tape.trainings(name) if t.steps == total(t)]


def total(training: Training) -> int:
    """Iterations that the recipe asks for."""
    steps: int = training.recipe.iterations(len(training.places))[1]
    return steps


def colt_theta(tape: Tape, seed: int, point: str = "") -> State:
    """What a seed rewinds to: the start of matched IMP's dense training."""
    trainings = tape.trainings(f"{point}search/imp-matched/seed-{seed}")
    start: State = trainings[bool(late(tape, point))].start
    return start


def late(tape: Tape, point: str = "") -> int:
    """The iteration that the units of a point rewind to."""
    at = tape.params.late.rewind if point else tape.params.rewind
    return int(at.value)


def pruned_from(tape: Tape, training: Training) -> State:
    """The weights that a study prunes after a training."""
    return training.end if tape.params.prune_from == "last" else training.best


def largest_by_layer(state: State, within: Mask, rate: float) -> Mask:
    """`largest` within each layer: what a copy keeps that prunes layer by layer."""
    parts = [
        largest(state, Mask({n: keep}), left(int(keep.sum()), rate)) for n, keep in within.items()
    ]
    return Mask({name: keep for part in parts for name, keep in part.items()})


@of("colt", "colt-late")
def test_colt_copies_learn_their_segments_and_only_those(tape: Tape) -> None:
    truth = {p: tape.truth[p] for p in tape.trainings("search/imp")[0].places}
    for name, _, arm, trainings in colt_units(tape, "search/colt"):
        variant = variants(tape)[arm]
        copies, everything = variant.partitions, set(truth)
        parts = [set(t.places) for t in trainings]
        assert parts == parts[:copies] * (len(parts) // copies), name
        if variant.split == "same":
            assert all(part == everything for part in parts)
            continue
        assert set.union(*parts) == everything and sum(map(len, parts[:copies])) == len(everything)
        if variant.split == "random":
            assert all({truth[p] for p in part} == set(range(10)) for part in parts[:copies])
            continue
        width = 10 // copies
        for copy, training in enumerate(trainings[:copies]):
            block = list(range(copy * width, (copy + 1) * width))
            if variant.split == "interleaved":
                block = list(range(copy, 10, copies))
            pairs = zip(training.places, training.labels, strict=True)
            assert all(block.index(truth[p]) == label for p, label in pairs), name
            assert training.start["head.weight"].shape[0] == width


@of("colt", "colt-late")
def test_colt_rounds_keep_what_enough_copies_kept_and_rewind_to_theta(tape: Tape) -> None:
    for name, point, arm, trainings in colt_units(tape, "search/colt"):
        variant, rate = variants(tape)[arm], tape.params.rate
        theta, mask = trainings[0].start, trainings[0].mask
        assert mask is not None and mask.density == 1
        assert same(body(theta), body(colt_theta(tape, trainings[0].seed, point)))
        found = tape.results[name]
        rounds = len(found.record["rounds"])
        assert len(trainings) == rounds * variant.partitions
        for index in range(rounds):
            turn = trainings[index * variant.partitions : (index + 1) * variant.partitions]
            assert all(t.mask == mask and same(t.start, masked(theta, mask)) for t in turn), name
            learned, keep = [pruned_from(tape, t) for t in turn], left(mask.alive, rate)
            if variant.layerwise:
                own = [largest_by_layer(weights, mask, rate) for weights in learned]
            else:
                own = [largest(weights, mask, keep) for weights in learned]
            votes = {n: torch.stack([m[n] for m in own]).sum(0) for n in mask}
            mask = Mask({n: count >= variant.needed for n, count in votes.items()})
            assert found.tickets[f"round-{index + 1:02d}"].mask == mask, name


@of("colt", "colt-late")
def test_colt_selects_copies_on_held_out_images_of_their_own_classes(tape: Tape) -> None:
    for name, _, _, trainings in colt_units(tape, "search/colt-class"):
        for training in trainings:
            if tape.params.prune_from == "last":
                assert not training.looks, name
                continue
            held_out = {look.places for look in training.looks}
            (chosen,) = held_out
            assert {place.split for place in chosen} == {"validation"}
            assert 0 < len(chosen) < 40 and max(training.looks[0].labels) < 10 // 2


@of("colt", "colt-late")
def test_imp_prunes_the_smallest_of_what_it_trained_and_rewinds_to_theta(tape: Tape) -> None:
    for name, point, arm, trainings in colt_units(tape, "search/imp"):
        seed, found = trainings[0].seed, tape.results[name]
        theta, mask = colt_theta(tape, seed, point), trainings[0].mask
        rounds = tape.results[f"{point}search/{MAIN}/seed-{seed}"].record["rounds"]
        paces = [turn["alive"] for turn in rounds]
        if arm == "imp-half":
            assert len(trainings) == 1 + (len(paces) + 1) // 2
            paces = [number for i, number in enumerate(paces) if (len(paces) - i) % 2]
        for index, training in enumerate(trainings):
            assert training.mask == mask == found.tickets[f"round-{index:02d}"].mask, name
            assert mask is not None and same(training.start, masked(theta, mask)), name
            if index < len(trainings) - 1:
                keep = left(mask.alive, tape.params.imp_rate)
                keep = keep if arm == "imp" else paces[index]
                mask = largest(pruned_from(tape, training), mask, keep)
        if arm != "imp":
            assert [t.mask.alive for t in trainings[1:] if t.mask] == paces


@of("colt", "colt-late")
def test_theta_is_the_state_after_the_first_steps_on_all_images(tape: Tape) -> None:
    units = 0
    for name in tape.results:
        point = "late/" if name.startswith("late/") else ""
        if name.startswith(("transfer", "resized")) or not late(tape, point):
            continue
        early, *others = tape.trainings(name)
        assert early.steps == late(tape, point) and early.mask is None, name
        assert set(early.places) == set(tape.trainings("search/imp")[0].places)
        units += 1
        for training in others:
            wanted = masked(early.end, training.mask)
            own_head = training.start["head.weight"].shape != wanted["head.weight"].shape
            part = body if own_head else dict
            assert same(part(training.start), part(wanted)), name
    assert units > 20


@of("colt", "colt-late")
def test_colt_tickets_are_retrained_from_theta_and_controls_are_what_they_say(tape: Tape) -> None:
    seen = set()
    for name, point, arm, trainings in colt_units(tape, "score/"):
        seed = trainings[0].seed
        theta = colt_theta(tape, seed, point)
        source, control = arm, None
        for end in ("shuffled", "reinit"):
            if arm.endswith(f"-{end}"):
                source, control = arm.removesuffix(f"-{end}"), end
        if arm in ("random", "magnitude"):
            source, control = MAIN, arm
        seen.add((point, source, control))
        search = tape.results[f"{point}search/{source}/seed-{seed}"]
        for training, row in zip(trainings, tape.results[name].record["rounds"], strict=True):
            ticket, mask = search.tickets[f"round-{row['round']:02d}"].mask, training.mask
            assert mask is not None and mask.alive == ticket.alive
            assert set(training.places) == set(tape.trainings("search/imp")[0].places)
            if control == "shuffled":
                assert counts(mask) == counts(ticket) and mask != ticket, name
            elif control == "random":
                assert counts(mask) != counts(ticket), name
            elif control == "magnitude":
                everything = Mask({n: keep | True for n, keep in ticket.items()})
                assert mask == largest(theta, everything, ticket.alive), name
            else:
                assert mask == ticket, name
            if control == "reinit":
                assert drawn_anew(training.start, theta, mask), name
            else:
                assert same(training.start, masked(theta, mask)), name
    both = {"colt": POINTS, "colt-late": POINTS[:1]}["colt" if tape.params.late else "colt-late"]
    for point in both:
        arms = [(s, c) for s in (MAIN, "colt-random-2of2", "imp-matched")
                for c in ("shuffled", "reinit")]  # fmt: skip
        arms += [(MAIN, "random")] + [(MAIN, "magnitude")] * bool(late(tape, point))
        assert {(point, *arm) for arm in arms} <= seen


@of("colt", "colt-late")
def test_transfer_carries_the_mask_and_its_weights_or_the_mask_alone(tape: Tape) -> None:
    heads = []
    for name, _, arm, trainings in colt_units(tape, "transfer/", "resized/"):
        seed = trainings[0].seed
        theta = colt_theta(tape, seed)
        for training, row in zip(trainings, tape.results[name].record["rounds"], strict=True):
            mask = training.mask
            assert mask is not None and {place.data for place in training.places} == {"others"}
            heads.append(head(training.start))
            source = "imp" if arm.startswith(("imp", "dense")) else MAIN
            found = tape.results[f"search/{source}/seed-{seed}"]
            ticket = found.tickets[f"round-{row['round']:02d}"].mask
            if "-shuffled" in arm:
                assert counts(mask) == counts(ticket) and mask != ticket, name
            else:
                assert mask == ticket, name
            if arm.endswith("-mask"):
                assert drawn_anew(training.start, theta, mask), name
            else:
                assert same(body(training.start), body(masked(theta, mask))), name
    expected = 7 * (2 if tape.params.resized else 1)
    assert len(heads) == expected and all(same(heads[0], each) for each in heads)
    assert not same(heads[0], head(colt_theta(tape, 0)))


@of("colt", "colt-late")
def test_colt_records_what_its_searches_cost(tape: Tape) -> None:
    for name, point, arm, _ in colt_units(tape, "search/"):
        trainings = tape.trainings(name)
        first = int(late(tape, point) > 0)
        per_round = variants(tape)[arm].partitions if arm in variants(tape) else 1
        for row in tape.results[name].record["rounds"]:
            spent = trainings[: first + row["round"] * per_round]
            cost = priced(spent)
            if tape.params.prune_from == "validation":
                cost += sum((chosen_by(t) for t in spent), np.zeros(5))
            assert paid(row, "search_") == expensive(cost), (name, row["round"])


@of("colt", "colt-late")
def test_colt_records_the_accuracies_of_the_nets_that_it_evaluated(tape: Tape) -> None:
    for name, _, _, trainings in colt_units(tape, "search/imp", "score/", "transfer/", "resized/"):
        looks = iter(tape.of(Look, name))
        for training, row in zip(trainings, tape.results[name].record["rounds"], strict=True):
            last = next(looks)
            assert last.score is not None and same(last.state, training.end)
            assert row["last_accuracy"] == 100 * last.score.accuracy
            selected = last if same(training.best, training.end) else next(looks)
            assert selected.score is not None and same(selected.state, training.best)
            assert row["selected_accuracy"] == 100 * selected.score.accuracy
            if tape.params.authors_metric:
                tracked = [x.score for x in training.looks if x.by == "Track"]
                best = max(score.accuracy for score in tracked if score is not None)
                assert row["best_test_accuracy"] == 100 * best
        assert next(looks, None) is None, name


# ---------------------------------------------------------------- PrAC: laws 3 and 4


def rounds_of(tape: Tape, name: str) -> list[Training]:
    """The trainings of a unit's rounds; that up to the rewind point has no mask."""
    return [t for t in tape.trainings(name) if t.mask is not None]


def prac_units(tape: Tape, *prefixes: str) -> Iterator[tuple[str, str, int, list[Training]]]:
    """Units with their net, seed and rounds."""
    for name in tape.results:
        if name.startswith(prefixes):
            _, place, arm, seed = name.split("/")
            yield place, arm, int(seed.removeprefix("seed-")), rounds_of(tape, name)


def prac_setting(tape: Tape, place: str, arm: str = "prac") -> Any:
    """The parameters of a net, and of an arm of it."""
    p = tape.params
    others = {other.name: p.other(other) for other in p.others}
    arms = {f"prac-{variant.name}": p.variant(variant) for variant in p.variants}
    arms["prac-eps-0.1"] = p.setting(stop=p.stop.model_copy(update={"epsilon": 0.1}))
    return arms.get(arm) or {"main": p, "noise": p.noisy(), **others}[place]


def prac_theta(tape: Tape, place: str, seed: int) -> State:
    """What a net rewinds to: where the dense round of IMP was after the first steps."""
    dense = rounds_of(tape, f"search/{place}/imp/seed-{seed}")[0]
    steps = prac_setting(tape, place).rewind.iterations(*dense.recipe.iterations(120))
    return dense.on_the_way[steps - 1]


def everything(tape: Tape, place: str = "main") -> tuple[Place, ...]:
    """All training images in their order."""
    return rounds_of(tape, f"search/{place}/imp/seed-0")[0].places


def unpacked(tape: Tape, text: str) -> set[Place]:
    """The images of a packed set."""
    whole = everything(tape)
    return {whole[i] for i in unpack_index(text, len(whole)).tolist()}


def looks_after(tape: Tape, training: Training) -> list[Look]:
    """What a unit looked at between a training and its next one."""
    found: list[Look] = []
    for event in tape.events[tape.events.index(training) + 1 :]:
        if event.unit != training.unit or isinstance(event, Training):
            return found
        if isinstance(event, Look):
            found.append(event)
    return found


def predicted_after(tape: Tape, training: Training) -> list[Look]:
    """Of that, what went through `predict` or `evaluate`: a criterion scores on a bare batch."""
    return [look for look in looks_after(tape, training) if look.kind != "batch"]


def forgotten(training: Training) -> dict[Place, float]:
    """How often each image of a training went from right to wrong; infinitely if never right."""
    return {
        place: sum(a and not b for a, b in pairwise(hits)) if any(hits) else float("inf")
        for place, hits in training.hits.items()
    }


BY_CRITERIA = ("by-snip",)
CRITICAL = ("prac", "cet-only", "cep-only", "prac-linear", "prac-quadratic", "prac-ef-1",
            "prac-eps-0.1", "prac-low-rate", "prac-warm-up")  # fmt: skip
FOLLOWERS = ("random", "el2n", "aum", "dual", "ccs", "fixed")
VARIANTS = ("prac-low-rate", "prac-warm-up")
IMPS = ("imp", "imp-again")


@of("prac")
def test_prac_trains_on_what_it_forgot_and_on_what_pruning_changed(tape: Tape) -> None:
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        if arm not in CRITICAL:
            continue
        rows = tape.results[f"search/{place}/{arm}/seed-{seed}"].record["rounds"]
        expected, dense = set(everything(tape)), ()
        for index, (training, row) in enumerate(zip(rounds, rows, strict=True)):
            assert set(training.places) == expected, (place, arm, index)
            (look,) = predicted_after(tape, training)
            assert same(look.state, training.best) and look.places == everything(tape)
            dense = dense or look.classes
            threshold = 1 if arm == "prac-ef-1" else tape.params.threshold
            cet = {p for p, events in forgotten(training).items() if events > threshold}
            pairs = zip(look.places, dense, look.classes, strict=True)
            cep = {p for p, before, now in pairs if before != now}
            chosen = {"cet-only": cet, "cep-only": cep}.get(arm, cet | cep)
            expected = chosen or expected
            assert unpacked(tape, row["set"]) == expected, (place, arm, index)
            assert (row["cet"], row["cep"]) == (len(cet), len(cep))


@of("prac")
def test_prac_masks_are_pruned_from_the_last_weights_and_rewound_to_theta(tape: Tape) -> None:
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        name, rate = f"search/{place}/{arm}/seed-{seed}", tape.params.rate
        tickets, theta = tape.results[name].tickets, prac_theta(tape, place, seed)
        dense = rounds_of(tape, f"search/{place}/imp/seed-{seed}")[0]
        theta = dense.start if arm in VARIANTS else theta  # these rewind to the initial weights
        follows = arm in FOLLOWERS
        for index, training in enumerate(rounds, start=int(follows)):
            mask = training.mask
            assert mask is not None and mask.alive == remaining(dense.mask, rate, index)
            start = theta if index else dense.start
            assert same(training.start, masked(start, mask)), (name, index)
            if f"round-{index:02d}" in tickets:
                assert tickets[f"round-{index:02d}"].mask == mask, (name, index)
            after = largest(training.end, mask, left(mask.alive, rate))
            following = tickets.get(f"round-{index + 1:02d}")
            if following and arm in BY_CRITERIA:
                assert mask.contains(following.mask) and following.mask.alive == after.alive
                assert following.mask != after, (name, index)
            elif following:
                assert following.mask == after, (name, index)
        if follows:
            leader = tape.results[f"search/{place}/prac/seed-{seed}"]
            assert rounds[0].mask == leader.tickets["round-01"].mask


def remaining(dense: Mask | None, rate: float, rounds: int) -> int:
    """Weights left after so many rounds."""
    alive = 0 if dense is None else dense.total
    for _ in range(rounds):
        alive = left(alive, rate)
    return alive


@of("prac")
def test_imp_again_differs_from_imp_by_its_data_order_alone(tape: Tape) -> None:
    first, again = (rounds_of(tape, f"search/main/{arm}/seed-0") for arm in IMPS)
    assert len(again) == tape.params.again_rounds + 1
    for one, other in zip(first, again, strict=False):
        assert one.places == other.places and one.recipe == other.recipe
        assert one.batches[0].digest != other.batches[0].digest
    assert same(first[0].start, again[0].start)


@of("prac")
def test_prac_followers_train_on_as_many_images_for_as_long(tape: Tape) -> None:
    whole = everything(tape)
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        if arm not in (*FOLLOWERS, *BY_CRITERIA, "short-imp"):
            continue
        leader = rounds_of(tape, f"search/{place}/prac/seed-{seed}")
        rows = tape.results[f"search/{place}/prac/seed-{seed}"].record["rounds"]
        if arm == "short-imp":
            assert all(set(t.places) == set(whole) for t in rounds)
            assert [t.steps for t in rounds] == [t.steps for t in leader]
            continue
        if arm in BY_CRITERIA:  # from the dense round on, which prunes by the criterion, too
            random = rounds_of(tape, f"search/{place}/random/seed-{seed}")
            assert [t.steps for t in rounds] == [t.steps for t in leader]
            assert [t.places for t in rounds] == [leader[0].places, *(t.places for t in random)]
            continue
        assert [t.steps for t in rounds] == [t.steps for t in leader[1:]], (place, arm)
        sizes = [row["set_samples"] for row in rows[:-1]]
        assert [len(t.places) for t in rounds] == sizes, (place, arm)
        sets = [set(t.places) for t in rounds]
        scores = leader[0].observer("Difficulty").scores()
        if arm in ("el2n", "aum", "dual"):
            order = torch.argsort(scores[arm], descending=True, stable=True).tolist()
            assert sets == [{whole[i] for i in order[:n]} for n in sizes], (place, arm)
        elif arm == "fixed":
            assert sorted(sets, key=len)[0] <= sorted(sets, key=len)[-1]
        elif arm == "ccs":
            hard = torch.argsort(scores["aum"], descending=True, stable=True).tolist()
            for chosen, size in zip(sets, sizes, strict=True):
                cut = int(min(tape.params.ccs_cut, 1 - size / len(whole)) * len(whole))
                assert not chosen & {whole[i] for i in hard[:cut]}
        else:
            assert all(a != set(t.places) for a, t in zip(sets, leader[1:], strict=True))


@of("prac")
def test_carried_sets_are_those_that_the_main_net_found(tape: Tape) -> None:
    rows = tape.results["search/main/prac/seed-0"].record["rounds"]
    found = [unpacked(tape, row["set"]) for row in rows]
    carried = {"sequence": [set(everything(tape)), found[0]], "final": [found[-1]] * 2}
    for arm, wanted in carried.items():
        rounds = rounds_of(tape, f"search/convnet/transfer-{arm}/seed-0")
        assert [set(t.places) for t in rounds] == wanted, arm


@of("prac")
def test_labels_are_flipped_in_training_alone_and_as_many_as_asked_for(tape: Tape) -> None:
    for training in tape.trainings("search/noise") + tape.trainings("score/noise"):
        wrong = [p for p, label in labels_of(training).items() if label != tape.truth[p]]
        whole = len(training.places) == 120
        assert len(wrong) == 12 if whole else len(wrong) <= 12, training.unit
        for look in training.looks:
            if look.kind != "batch":  # nets trained together look at bare batches
                assert look.labels == tuple(tape.truth[p] for p in look.places)
    tested = [x for x in tape.of(Look, "score/noise") if x.splits == {"test"}]
    assert tested and all(x.labels == tuple(tape.truth[p] for p in x.places) for x in tested)


def planned(arm: str, setting: Any, samples: int, spent: int) -> int:
    """Iterations that a round is planned for, by the arm's rule."""
    full = setting.recipe.iterations(120)[1]
    own = epoch_of(samples, setting.recipe.batch)
    if arm in (*IMPS, "imp-early-stop"):
        return full
    if arm == "short-imp":
        return spent
    if arm == "prac-quadratic":
        epochs = max(1, int(setting.recipe.length.value * samples / 120))
        return max(epochs * own, own, setting.least_iterations)
    return max(1, int(full * samples / 120), own, setting.least_iterations)


@of("prac")
def test_prac_schedules_are_as_long_as_their_rules_say(tape: Tape) -> None:
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        setting = prac_setting(tape, place, arm)
        for training in rounds:
            limit = planned(arm, setting, len(training.places), training.steps)
            assert total(training) == limit, (place, arm, seed)
            ends_early = arm in (*FOLLOWERS, "prac", "cet-only", "cep-only", "imp-early-stop",
                                 "prac-ef-1", "prac-eps-0.1", *VARIANTS, *BY_CRITERIA,
                                 "transfer-sequence", "transfer-final")  # fmt: skip
            assert training.steps <= limit if ends_early else training.steps == limit
    for _, _, _, rounds in prac_units(tape, "score/"):
        assert all(t.steps == total(t) for t in rounds)


def after_warm_up(training: Training, epoch: int) -> bool:
    """Whether an epoch, counted from 0, begins after the warm-up has ended."""
    per_epoch, total = training.recipe.iterations(len(training.places))
    return epoch * per_epoch > training.recipe.warmup.iterations(per_epoch, total)


@of("prac")
def test_prac_stops_when_its_mask_has_settled(tape: Tape) -> None:
    stopped = 0
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        setting = prac_setting(tape, place, arm)
        rows = tape.results[f"search/{place}/{arm}/seed-{seed}"].record["rounds"]
        for index, training in enumerate(rounds):
            watch, mask, moved = training.observer("MaskWatch"), training.mask, []
            assert mask is not None
            keep = left(mask.alive, tape.params.rate)
            masks = [largest(state, mask, keep) for state in training.states]
            moved = [int((a.flat() ^ b.flat()).sum()) / mask.alive for a, b in pairwise(masks)]
            moved = watch.distances if arm in BY_CRITERIA else moved
            assert watch.distances == moved, (place, arm, seed)
            if watch.stop is None:
                continue
            epsilon = setting.stop.epsilon  # with a window of 1
            for epoch, steps in enumerate(training.ends):
                seen = moved[:epoch]
                settled = any(d > epsilon for d in seen) and seen[-1] < epsilon
                rewind = setting.rewind.iterations(6)
                least = max(setting.least_iterations, 0 if index else rewind)
                counted = [d for d in range(1, epoch + 1) if after_warm_up(training, d)]
                ended = settled and bool(counted) and steps >= least
                assert ended == (epoch == len(training.ends) - 1) or steps == total(training)
            stopped += watch.stopped
            assert rows[index]["stopped"] == watch.stopped
    assert stopped


@of("prac")
def test_prac_tickets_are_retrained_from_theta_and_controls_are_what_they_say(tape: Tape) -> None:
    for place, arm, seed, rounds in prac_units(tape, "score/"):
        theta, name = prac_theta(tape, place, seed), f"score/{place}/{arm}/seed-{seed}"
        rows = tape.results[name].record["scores"]
        ladder = tape.results[f"search/{place}/imp/seed-{seed}"].tickets
        before: Mask | None = None
        for training, row in zip(rounds, rows, strict=True):
            key, mask = f"round-{row['round']:02d}", training.mask
            assert mask is not None and set(training.places) == set(everything(tape))
            assert mask.alive == ladder[key].mask.alive
            if arm == "random-pruning":
                assert mask != ladder[key].mask and (before is None or before.contains(mask))
                before = mask
            elif arm.endswith("-shuffled"):
                source = arm.removesuffix("-shuffled")
                own = tape.results[f"search/{place}/{source}/seed-{seed}"].tickets[key].mask
                assert mask != own and counts(mask) == counts(own), name
            else:
                source = "prac" if arm == "reinit" else arm
                found = tape.results[f"search/{place}/{source}/seed-{seed}"].tickets
                assert mask == found[key].mask, name
            if arm == "reinit":
                assert drawn_anew(training.start, theta, mask)
            else:
                assert same(masked(training.start, mask), masked(theta, mask)), name


@of("prac")
def test_prac_rounds_cost_what_was_trained_and_looked_at(tape: Tape) -> None:
    for place, arm, seed, rounds in prac_units(tape, "search/"):
        name = f"search/{place}/{arm}/seed-{seed}"
        rows = tape.results[name].record["rounds"]
        early = [t for t in tape.trainings(name) if t.mask is None]  # up to the rewind point
        assert len(rounds) == len(rows) + (arm in IMPS)
        for index, (training, row) in enumerate(zip(rounds, rows, strict=False)):
            cost = priced([*(early if index == 0 else []), training])
            if arm in CRITICAL:
                after = [x for x in predicted_after(tape, training) if x.splits == {"train"}]
                cost += looked(training, [*training.looks, *after])
            if arm in BY_CRITERIA:  # a gradient on the probe after each epoch, and to prune
                count = (len(training.ends) + 1) * tape.params.probe
                cost += np.array([0, count, 0, *(STEP * count * flops_of(training))])
            if arm not in CRITICAL:  # chooses nothing but the epoch at which IMP's ticket is scored
                assert arm in IMPS or not training.looks, name
            assert paid(row) == expensive(cost), (name, index)
            assert row["rewind_iterations"] == (sum(t.steps for t in early) if index == 0 else 0)
            assert row["samples"] == len(training.places)
            assert (row["limit"], row["epochs"]) == (total(training), len(training.ends))


@of("prac")
def test_prac_tickets_cost_what_was_trained_and_looked_at(tape: Tape) -> None:
    for place, arm, seed, tickets in prac_units(tape, "score/"):
        name = f"score/{place}/{arm}/seed-{seed}"
        early = [t for t in tape.trainings(name) if t.mask is None]
        record = tape.results[name].record
        assert paid(record["rewinding"]) == expensive(priced(early)), name
        for training, row in zip(tickets, record["scores"], strict=True):
            chosen = looked(training, validated(tape, training))
            assert paid(row) == expensive(priced([training]) + chosen), name


@of("prac")
def test_prac_records_the_accuracies_of_the_nets_that_it_evaluated(tape: Tape) -> None:
    for place, arm, seed, tickets in prac_units(tape, "score/"):
        unit = f"score/{place}/{arm}/seed-{seed}"
        scored_together(tape, unit, tickets, tape.results[unit].record["scores"])
    for place, arm, seed, tickets in prac_units(tape, "search/main/imp/"):
        rows = tape.results[f"search/{place}/{arm}/seed-{seed}"].record["scores"]
        for training, row in zip(tickets, rows, strict=True):
            scored_as_recorded(tape, training, row)


def validated(tape: Tape, training: Training) -> list[Look]:
    """Looks at all validation images, one after each epoch of a ticket's training.

    Nets that are trained together are looked at together, which no tape shows one by one.
    """
    count = tape.params.data.validation
    epochs = -(-training.steps // epoch_of(len(training.places), training.recipe.batch))
    return [Look(training.unit, {}, places=(Place("laws", "validation", 0),) * count)] * epochs


def scored_together(
    tape: Tape, unit: str, trainings: Sequence[Training], rows: Sequence[Mapping[str, Any]]
) -> None:
    """All trainings of a unit were looked at on test images, each twice: last, then selected."""
    tested = iter([x for x in tape.of(Look, unit) if x.splits == {"test"}])
    for training, row in zip(trainings, rows, strict=True):
        last, selected = next(tested), next(tested)
        assert same(selected.state, training.best) and same(last.state, training.end), unit
        assert selected.score is not None and last.score is not None
        assert row["selected_accuracy"] == 100 * selected.score.accuracy
        assert row["last_accuracy"] == 100 * last.score.accuracy
    assert not list(tested), unit


def scored_as_recorded(tape: Tape, training: Training, row: Mapping[str, Any]) -> None:
    """The last and the selected epoch of a training were looked at, and are what a row says.

    The selected epoch is looked at a second time only if it is not the last one.
    """
    last, *more = (x for x in looks_after(tape, training) if x.splits == {"test"})
    selected = last if same(training.best, training.end) else more.pop(0)
    assert not more and last.score is not None and selected.score is not None
    assert same(selected.state, training.best) and same(last.state, training.end)
    assert row["selected_accuracy"] == 100 * selected.score.accuracy
    assert row["last_accuracy"] == 100 * last.score.accuracy
    at_best = [x for x in training.looks if x.by == "KeepBest" and same(x.state, training.best)]
    assert at_best[0].score is not None and at_best[0].splits == {"validation"}
    assert row["validation_accuracy"] == 100 * at_best[0].score.accuracy


# ---------------------------------------------------------------- DLTH: laws 3 and 4


def role(training: Training) -> tuple[str, str, str]:
    """Arm, stage and sparsity that a training was labelled with."""
    arm, _, stage = str(training.label["arm"]).partition(" ")
    return arm, stage, str(training.label["sparsity"])


def stages(tape: Tape, case: str, seed: int, arm: str, level: float) -> list[Training]:
    """The trainings of an arm at a level of a case, in order, without those it shares."""
    units = [n for n in tape.results if n.startswith(f"{case}/") and n.endswith(f"/seed-{seed}")]
    found = [t for n in units if "/draw-" not in n for t in tape.trainings(n)]
    wanted = (arm, f"{level:.0%}")
    return [t for t in found if (role(t)[0], role(t)[2]) == wanted]


def final(tape: Tape, case: str, seed: int, arm: str, level: float) -> Training:
    """An arm's finetuning, which is its last training."""
    last = stages(tape, case, seed, arm, level)[-1]
    assert role(last)[1] == "finetune" and last.mask is not None
    return last


def dense_of(tape: Tape, case: str, seed: int) -> Training:
    """The training of the dense net; it starts from the seed's initial weights."""
    return stages(tape, case, seed, "dense", 0.0)[0]


def cells(tape: Tape, *arms: str) -> Iterator[tuple[str, int, str, float]]:
    """Case, seed, arm and level wherever one of the arms runs."""
    for case in tape.params.all_cases:
        for seed in tape.params.seeds:
            for level in case.levels:
                for arm in case.arms_at(level):
                    if arm in arms:
                        yield case.name, seed, arm, level


def lost(size: int, sparsity: float) -> int:
    """Weights that a layer of this size loses."""
    return min(-int(-round(sparsity * size, 9) // 1), size - 1)


def at_sparsity(mask: Mask, sparsity: float) -> bool:
    """Whether every layer of a mask has lost its share."""
    return all(int((~keep).sum()) == lost(keep.numel(), sparsity) for keep in mask.values())


def by_layer(state: State, like: Mask, sparsity: float, within: Mask | None = None) -> Mask:
    """The largest weights of each layer."""
    kept = {}
    for name, keep in like.items():
        inside = {} if within is None else {name: within[name]}
        only = Mask({name: inside.get(name, torch.ones_like(keep))})
        kept[name] = largest(state, only, keep.numel() - lost(keep.numel(), sparsity))[name]
    return Mask(kept)


RANDOM_MASK = ("scratch", "scratch-long", "warm-up", "abrupt", "rst", "rst-jump", "rst-square",
               "rst-cube", "reinit", "signs")  # fmt: skip
PRESSED = ("rst", "rst-magnitude", "rst-antimagnitude", "rst-erk", "rst-lth-mask", "rst-jump",
           "rst-square", "rst-cube")  # fmt: skip


@of("dlth")
def test_dlth_arms_with_a_random_mask_share_it(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, *RANDOM_MASK):
        mask = final(tape, case, seed, arm, level).mask
        assert mask == final(tape, case, seed, "scratch", level).mask, (case, seed, arm, level)
        assert mask is not None and at_sparsity(mask, level)
    of_seeds = [final(tape, "main", seed, "scratch", 0.8).mask for seed in (0, 1)]
    assert of_seeds[0] != of_seeds[1]
    for seed in (0, 1):
        a, b = (final(tape, "main", seed, arm, 0.8).mask for arm in ("rst-erk", "scratch-erk"))
        assert a == b != final(tape, "main", seed, "rst", 0.8).mask
        assert a is not None and abs(a.sparsity - 0.8) < 0.01


@of("dlth")
def test_dlth_masks_by_magnitude_are_those_of_the_weights_they_are_said_to_be_of(
    tape: Tape,
) -> None:
    for case, seed, arm, level in cells(
        tape, "lth", "l1", "rst-lth-mask", "rst-magnitude", "rst-antimagnitude"
    ):
        dense, mask = dense_of(tape, case, seed), final(tape, case, seed, arm, level).mask
        assert mask is not None
        state = dense.start if arm.endswith("magnitude") else dense.end
        if arm == "rst-antimagnitude":
            state = {name: 1 / tensor for name, tensor in state.items()}
        assert mask == by_layer(state, mask, level), (case, seed, arm, level)


@of("dlth")
def test_dlth_arms_start_from_the_weights_they_say(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, "scratch", "scratch-long", "scratch-erk", "lth"):
        first, last = dense_of(tape, case, seed), final(tape, case, seed, arm, level)
        assert same(last.start, masked(first.start, last.mask)), (case, seed, arm)
    for case, seed, arm, level in cells(tape, "warm-up"):
        warm, last = stages(tape, case, seed, arm, level)
        assert warm.mask == last.mask and same(last.start, warm.end)
        start = masked(dense_of(tape, case, seed).start, warm.mask)
        assert same(masked(warm.start, warm.mask), start), (case, seed, level)
    for case, seed, _, level in cells(tape, "l1"):
        last = final(tape, case, seed, "l1", level)
        assert same(last.start, masked(dense_of(tape, case, seed).end, last.mask))
    for case, seed, arm, level in cells(tape, "abrupt", *PRESSED):
        last, start = final(tape, case, seed, arm, level), dense_of(tape, case, seed).start
        (press,) = (
            t for x in tape.params.levels for t in stages(tape, case, seed, arm, x)
            if role(t)[1] == "transform" and (arm == "abrupt" or x == level)
        ) if case == "main" else stages(tape, case, seed, arm, level)[:1]  # fmt: skip
        assert press.mask is None and same(press.start, start), (case, seed, arm)
        assert same(last.start, masked(press.end, last.mask)), (case, seed, arm, level)
    for case, seed, _, level in cells(tape, "early-bird"):
        dense, last = dense_of(tape, case, seed), final(tape, case, seed, "early-bird", level)
        (row,) = rows_of(tape, case, seed, "early-bird", level)
        state = dense.on_the_way[row["drawn_at"] - 1]
        assert last.mask == by_layer(state, last.mask or Mask({}), level)
        assert same(last.start, masked(state, last.mask))


def rows_of(tape: Tape, case: str, seed: int, arm: str, level: float) -> list[dict[str, Any]]:
    """An arm's rows at a level."""
    names = [n for n in tape.results if n.startswith(f"{case}/") and n.endswith(f"/seed-{seed}")]
    rows = [row for n in names if "/draw-" not in n for row in tape.results[n].record["rows"]]
    return [row for row in rows if (row["arm"], row["level"]) == (arm, level)]


@of("dlth")
def test_rst_presses_what_its_mask_removes_by_the_lambda_of_each_step(tape: Tape) -> None:
    pressed = set()
    for training in tape.trainings():
        arm, stage, _ = role(training)
        if arm not in (*PRESSED, "rst-iter") or stage == "finetune":
            assert not training.edits, (training.unit, arm)
            continue
        (case,) = (c for c in tape.params.all_cases if c.name == training.unit.split("/")[0])
        ramp = case.iterative.ramp if arm == "rst-iter" else case.penalty.ramp
        power = {"rst-jump": 0, "rst-square": 2, "rst-cube": 3}.get(arm, 1)
        mask, steps = training.observer("GrowingPenalty").mask, len(training.edits)
        assert steps == training.steps
        for step, (edit, weights) in enumerate(training.edits):
            value = case.penalty.ceiling * (min(step + 1, ramp + 1) / ramp) ** power
            for name, added in edit.items():
                gone = ~mask[name] if name in mask else torch.zeros_like(added, dtype=torch.bool)
                wanted = value * gone * weights[name]
                assert torch.allclose(added, wanted, rtol=1e-3, atol=1e-4), (arm, step, name)
        pressed.add(arm)
    assert pressed == {*PRESSED, "rst-iter"}


@of("dlth")
def test_rst_presses_the_weights_that_its_ticket_then_lacks(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, *PRESSED):
        press, last = stages(tape, case, seed, arm, level)
        assert press.observer("GrowingPenalty").mask == last.mask, (case, seed, arm, level)


@of("dlth")
def test_rst_iter_grows_one_random_mask_and_goes_on_from_its_weights(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, "rst-iter"):
        *cycles, last = stages(tape, case, seed, arm, level)
        state, before = dense_of(tape, case, seed).start, None
        for number, cycle in enumerate(cycles, start=1):
            mask = cycle.observer("GrowingPenalty").mask
            assert cycle.mask is None and same(cycle.start, state)
            assert at_sparsity(mask, 1 - (1 - level) ** (number / len(cycles)))
            assert before is None or before.contains(mask)
            before, state = mask, cycle.end
        assert len(cycles) == 2 and last.mask == before
        assert same(last.start, masked(state, last.mask))


@of("dlth")
def test_lth_iter_prunes_what_it_trained_and_rewinds(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, "lth-iter"):
        *cycles, last = stages(tape, case, seed, arm, level)
        start, mask = dense_of(tape, case, seed).start, cycles[0].mask
        assert mask is not None and mask.density == 1 and len(cycles) == 2
        for number, cycle in enumerate(cycles, start=1):
            assert cycle.mask == mask
            assert same(masked(cycle.start, mask), masked(start, mask)), (case, seed, level)
            sparsity = 1 - (1 - level) ** (number / len(cycles))
            mask = by_layer(cycle.end, mask, sparsity, within=mask)
        assert last.mask == mask and same(last.start, masked(start, mask))


@of("dlth")
def test_damaged_tickets_are_damaged_as_they_say_and_in_nothing_else(tape: Tape) -> None:
    for case, seed, arm, level in cells(tape, "shuffled", "reinit", "signs"):
        ticket, hurt = (final(tape, case, seed, a, level) for a in ("rst", arm))
        assert ticket.mask is not None and hurt.mask is not None
        first = dense_of(tape, case, seed).start
        for name, tensor in hurt.start.items():
            if name not in ticket.mask:
                assert torch.equal(tensor, ticket.start[name]), (arm, name)
                continue
            places, moved = ticket.mask[name], hurt.mask[name]
            own, now = ticket.start[name][places], tensor[moved]
            if arm == "shuffled":
                assert not torch.equal(places, moved)
                assert torch.equal(own.sort().values, now.sort().values)
                continue
            assert torch.equal(places, moved)
            if arm == "reinit":
                assert bool((now != own).all()) and bool((now != first[name][moved]).all())
            else:
                assert torch.allclose(now, own.sign() * own.abs().mean())


@of("dlth")
def test_more_draws_change_the_mask_or_the_initial_weights_alone(tape: Tape) -> None:
    for name in tape.results:
        if "/draw-" in name:
            other_mask = "/draw-mask" in name
            row = tape.results[name].record["rows"][0]
            seed = row["seed"] if other_mask else row["mask_seed"]
            press, last = tape.trainings(name)
            scratch = final(tape, "main", seed, "scratch", 0.8)
            assert (last.mask != scratch.mask) == other_mask, name
            assert same(press.start, dense_of(tape, "main", seed).start) == other_mask, name


AS_LONG_AS_RST = ("scratch-long", "shuffled", "reinit", "signs")
"""What trains once, from fresh or damaged weights, for as many images as RST in all."""


@of("dlth")
def test_dlth_trainings_are_as_long_as_they_should_be(tape: Tape) -> None:
    for case in tape.params.all_cases:
        fine, press = case.finetune.iterations(120)[1], case.transform.iterations(120)[1]
        longer = fine + round(press * case.transform.batch / case.finetune.batch)
        for training in tape.trainings(f"{case.name}/"):
            arm, stage, _ = role(training)
            expected = {
                "finetune": longer if arm in AS_LONG_AS_RST else fine,
                "transform": press,
                "train": int(case.lth_iter.length.value),
            }
            cycle = int(case.iterative.length.value)
            assert training.steps == expected.get(stage, cycle), (training.unit, arm, stage)


@of("dlth")
def test_dlth_rows_cost_what_their_arms_trained(tape: Tape) -> None:
    seen = set()
    for name, result in tape.results.items():
        case, _, seed = name.split("/")
        for row in result.record["rows"]:
            arm, level, number = row["arm"], row["level"], int(seed.removeprefix("seed-"))
            if "/draw-" in name:
                own = tape.trainings(name)
            else:
                own = stages(tape, case, number, arm, level)
                first = dense_of(tape, case, number)
                if arm in ("lth", "l1", "rst-lth-mask"):
                    own = [first, *own]
                if arm in ("shuffled", "reinit", "signs"):
                    own = [stages(tape, case, number, "rst", level)[0], *own]
                if arm == "abrupt" and len(own) == 1:
                    own = [stages(tape, case, number, arm, tape.params.levels[0])[0], *own]
            cost = priced(own) + chosen_by(own[-1])
            if arm == "early-bird":
                cost += priced([first], row["drawn_at"])
            assert paid(row) == expensive(cost), (name, arm, level)
            seen.add(arm)
    assert len(seen) == 22


@of("dlth")
def test_dlth_records_the_accuracies_of_the_nets_that_it_evaluated(tape: Tape) -> None:
    for name, result in tape.results.items():
        ends = [t for t in tape.trainings(name) if role(t)[1] == "finetune"]
        for training, row in zip(ends, result.record["rows"], strict=True):
            scored_as_recorded(tape, training, row)


# ---------------------------------------------------------------- the comparison: laws 3 and 4


def beds(tape: Tape) -> Iterator[tuple[Any, int, State]]:
    """Each net with a seed and the initial weights of both."""
    for bed in tape.params.beds:
        for seed in tape.params.seeds:
            yield bed, seed, tape.trainings(f"{bed.name}/dense/seed-{seed}")[0].start


def finals(tape: Tape, unit: str) -> list[Training]:
    """The trainings of a unit's tickets: the last ones, one for each row."""
    return tape.trainings(unit)[-len(ticket_rows(tape, unit)) :]


def ticket_rows(tape: Tape, unit: str) -> list[dict[str, Any]]:
    """The rows of a unit's tickets; a dense net has found nothing."""
    record = tape.results[unit].record
    if "scores" in record:
        nothing = {f"search_{name}": 0 for name in COST}
        return [{"arm": "dense", **record["scores"], **record["cost"], **nothing}]
    rows: list[dict[str, Any]] = record["rows" if "rows" in record else "swapped"]
    return rows


def before_finals(tape: Tape, unit: str) -> list[Training]:
    """The trainings of a unit's search; that up to the rewind point is there once."""
    found: list[Training] = []
    for training in tape.trainings(unit)[: -len(finals(tape, unit))]:
        plain = training.mask is None and not training.observers
        again = [t for t in found if plain and not t.observers and replays(t, training)]
        found += [] if again else [training]
    return found


def kept(mask: Mask, level: float) -> int:
    """Weights that a ticket of this sparsity keeps."""
    return left(mask.total, level)


def theta_of(tape: Tape, bed: str, seed: int, steps: int, method: str) -> State:
    """Where the dense net is after so many steps, in the order that the method's trainings have."""
    (dense,) = tape.trainings(f"{bed}/dense/seed-{seed}")
    again = method == "imp-again"
    if dense.on_the_way and not again:
        return dense.on_the_way[steps - 1]
    unit = f"{bed}/imp-again/seed-{seed}" if again else f"{bed}/imp/seed-{seed}"
    (early,) = (t for t in before_finals(tape, unit) if t.mask is None)
    assert early.steps == steps and same(early.start, dense.start)
    assert begins_with(early, dense) != again
    return early.end


@of("compare")
def test_all_tickets_of_the_comparison_are_trained_alike(tape: Tape) -> None:
    paths = set()
    for bed, seed, _ in beds(tape):
        (dense,) = tape.trainings(f"{bed.name}/dense/seed-{seed}")
        for unit in tape.results:
            if unit.startswith(f"{bed.name}/") and unit.endswith(f"/seed-{seed}"):
                for training in finals(tape, unit):
                    paths.add(training.path)
                    same_order = "/imp-again/" not in unit
                    assert (training.order == dense.order) == same_order, unit
                    assert begins_with(training, dense) == same_order, unit
                    assert training.places == dense.places
                    if "/long-" not in unit:
                        assert training.recipe == bed.recipe and training.steps == dense.steps
    assert paths == {"plain", "stacked", "sparse"}


@of("compare")
def test_masks_from_one_look_are_of_the_initial_weights(tape: Tape) -> None:
    for bed, seed, init in beds(tape):
        for method in ("random", "magnitude", "snip", "grasp", "synflow"):
            unit = f"{bed.name}/{method}/seed-{seed}"
            prunings = tape.of(Pruning, unit)
            prunings = [p for p in prunings if p.before is not None and p.before.density == 1]
            for pruning, training, level in zip(
                prunings[: len(bed.levels)], finals(tape, unit), bed.levels, strict=True
            ):
                assert pruning.criterion == method and pruning.mask == training.mask, unit
                assert all(torch.equal(w, init[n]) for n, w in pruning.weights.items())
                assert training.mask is not None
                assert training.mask.alive == kept(training.mask, level)
                assert same(masked(training.start, training.mask), masked(init, training.mask))
                if method == "magnitude":
                    assert training.mask == largest(
                        init, pruning.before or Mask({}), training.mask.alive
                    )
            probes = {x.places for x in tape.of(Look, unit) if x.kind == "batch"}
            assert len(probes) == 1 and {p.split for p in next(iter(probes))} == {"train"}


@of("compare")
def test_searches_of_the_comparison_prune_what_they_trained(tape: Tape) -> None:
    for bed, seed, _ in beds(tape):
        dense = tape.trainings(f"{bed.name}/dense/seed-{seed}")[0].mask
        assert dense is not None
        for method in ("imp", "imp-again", "imp-matched", "colt", "prac"):
            theta = theta_of(tape, bed.name, seed, int(tape.params.rewind.value), method)
            unit = f"{bed.name}/{method}/seed-{seed}"
            rounds = [t for t in before_finals(tape, unit) if t.mask is not None]
            masks = [t.mask for t in rounds if t.mask is not None]
            tickets = finals(tape, unit)
            levels = [row["level"] for row in ticket_rows(tape, unit)]
            assert levels == [*([tape.params.rate] if method == "imp" else []), *bed.levels]
            copies = tape.params.partitions if method == "colt" else 1
            paces = tape.results[unit].record["left"]
            if method == "imp-matched":
                assert paces == tape.results[f"{bed.name}/colt/seed-{seed}"].record["left"]
            for number in range(len(rounds) // copies):
                turn = rounds[number * copies : (number + 1) * copies]
                mask = masks[number * copies]
                assert all(t.mask == mask for t in turn), unit
                start = rounds[0].start if method == "prac" and number == 0 else theta
                for t in turn:
                    assert same(body(t.start), body(masked(start, mask))), (unit, number)
                keep = left(mask.alive, tape.params.rate)
                after = [largest(t.end, mask, keep) for t in turn]
                common = after[0] & after[-1]
                if method == "imp-matched":
                    common = largest(turn[0].end, mask, paces[number])
                assert common.alive == paces[number], (unit, number)
                if (number + 1) * copies < len(rounds):
                    assert rounds[(number + 1) * copies].mask == common, (unit, number)
                for level, ticket in zip(levels, tickets, strict=True):
                    found = ticket.mask
                    assert found is not None and found.alive == kept(dense, level)
                    if common.alive <= found.alive < mask.alive:
                        assert mask.contains(found) and found.contains(common)
                        if method != "colt":
                            assert found == largest(turn[0].end, mask, found.alive), unit
            for ticket in tickets:
                assert same(masked(ticket.start, ticket.mask), masked(theta, ticket.mask)), unit


@of("compare")
def test_colt_and_prac_of_the_comparison_train_on_their_own_sets(tape: Tape) -> None:
    for bed, seed, init in beds(tape):
        whole = tape.trainings(f"{bed.name}/dense/seed-{seed}")[0].places
        rounds = [
            t
            for t in tape.trainings(f"{bed.name}/colt/seed-{seed}")
            if t.start["head.weight"].shape[0] == 5
        ]
        for number, training in enumerate(rounds):
            low = 5 * (number % 2)
            wanted = {p for p in whole if low <= tape.truth[p] < low + 5}
            assert set(training.places) == wanted
            assert all(y == tape.truth[p] - low for p, y in labels_of(training).items())
        assert len({tuple(t.start["head.bias"].tolist()) for t in rounds}) == 1
        unit, dense, expected = f"{bed.name}/prac/seed-{seed}", (), set(whole)
        for training in before_finals(tape, unit):
            if training.mask is None:
                continue
            assert set(training.places) == expected, unit
            (look,) = looks_after(tape, training)[:1]
            assert same(look.state, training.best) and look.places == whole
            dense = dense or look.classes
            cet = {p for p, events in forgotten(training).items() if events > 0}
            pairs = zip(look.places, dense, look.classes, strict=True)
            expected = cet | {p for p, before, now in pairs if before != now} or expected
        assert same(init, next(t for t in before_finals(tape, unit) if t.mask is not None).start)


@of("compare")
def test_rst_of_the_comparison_presses_the_random_mask(tape: Tape) -> None:
    for bed, seed, init in beds(tape):
        unit = f"{bed.name}/rst/seed-{seed}"
        masks = [t.mask for t in finals(tape, f"{bed.name}/random/seed-{seed}")]
        for press, last, mask in zip(
            before_finals(tape, unit), finals(tape, unit), masks, strict=True
        ):
            assert press.mask is None and same(press.start, init), unit
            assert press.observer("GrowingPenalty").mask == last.mask == mask
            assert same(masked(last.start, mask), masked(press.end, mask))


@of("compare")
def test_long_controls_are_a_mask_on_initial_weights_with_the_others_images(tape: Tape) -> None:
    for bed, seed, init in beds(tape):
        for control in tape.params.long:
            unit = f"{bed.name}/long-{control.mask}-{control.budget}/seed-{seed}"
            (training,) = tape.trainings(unit)
            budget = tape.results[f"{bed.name}/{control.budget}/seed-{seed}"].record["rows"][-1]
            assert abs(training.images - budget["images"]) <= 120, unit
            assert training.mask == finals(tape, f"{bed.name}/{control.mask}/seed-{seed}")[-1].mask
            assert same(masked(training.start, training.mask), masked(init, training.mask))


@of("compare")
def test_the_swap_puts_masks_on_the_weights_of_its_columns(tape: Tape) -> None:
    for bed, seed, init in beds(tape):
        steps = tape.params.swap_rewind.iterations(*bed.recipe.iterations(120))
        (dense,) = tape.trainings(f"{bed.name}/dense/seed-{seed}")
        for weights in ("init", "rewound", "reinit", "rst", "rst-other"):
            unit = f"{bed.name}/swap-{weights}/seed-{seed}"
            if unit not in tape.results:
                continue
            first = before_finals(tape, unit)
            for number, (training, row) in enumerate(
                zip(finals(tape, unit), tape.results[unit].record["swapped"], strict=True)
            ):
                method, shuffled, _ = row["arm"].partition("-shuffled")
                own, mask = finals(tape, f"{bed.name}/{method}/seed-{seed}")[-1].mask, training.mask
                assert mask is not None and own is not None
                assert (mask == own) != bool(shuffled) and counts(mask) == counts(own), unit
                if weights == "reinit":
                    assert drawn_anew(training.start, init, mask)
                    continue
                if weights == "init":
                    wanted = init
                elif weights == "rewound":
                    assert first[0].steps == steps and begins_with(first[0], dense)
                    wanted = first[0].end
                else:
                    press = first[number if weights == "rst" else 0]
                    random = finals(tape, f"{bed.name}/random/seed-{seed}")[-1].mask
                    pressed = press.observer("GrowingPenalty").mask
                    assert pressed == (mask if weights == "rst" else random), unit
                    assert same(press.start, init) and press.mask is None
                    wanted = press.end
                assert same(masked(training.start, mask), masked(wanted, mask)), unit


GRADIENTS = {"snip": 20, "grasp": 40, "synflow": 3}
"""Images in the gradients of a criterion: the probe's, twice for GraSP; SynFlow's one per round."""


@of("compare")
def test_rows_of_the_comparison_cost_what_was_trained_and_looked_at(tape: Tape) -> None:
    for bed, seed, _ in beds(tape):
        for unit in tape.results:
            if not (unit.startswith(f"{bed.name}/") and unit.endswith(f"/seed-{seed}")):
                continue
            for number, row in enumerate(ticket_rows(tape, unit)):
                if "/swap-" in unit:
                    continue
                last = finals(tape, unit)[number]
                search = before_finals(tape, unit)
                if row["arm"] == "rst":
                    search = search[number : number + 1]
                elif row["arm"] in ("imp", "imp-again", "imp-matched", "colt", "prac"):
                    copies = tape.params.partitions if row["arm"] == "colt" else 1
                    early = [t for t in search if t.mask is None]
                    if row["arm"] == "prac":  # its dense round passes through the rewind point
                        assert replays(next(t for t in search if t.mask is not None), early[0])
                        early = []
                    rounds = [t for t in search if t.mask is not None]
                    search = [*early, *rounds[: copies * row["rounds"]]]
                cost = priced(search)
                if row["arm"] == "prac":
                    for t in search:
                        after = [x for x in looks_after(tape, t)[:1] if x.splits == {"train"}]
                        cost += looked(t, [*t.looks, *after])
                if row["arm"] in GRADIENTS:
                    count = GRADIENTS[row["arm"]]
                    each = STEP * count * models.flops(last.model, SHAPE)
                    steps = {"snip": 1, "grasp": 2, "synflow": 3}[row["arm"]]
                    cost += [steps, count, 0, each, each]
                assert paid(row, "search_") == expensive(cost), (unit, number)
                whole = cost + priced([last]) + looked(last, validated(tape, last))
                assert paid(row) == expensive(whole), (unit, number)


@of("compare")
def test_the_comparison_records_the_accuracies_of_the_nets_that_it_evaluated(tape: Tape) -> None:
    for unit in tape.results:
        scored_together(tape, unit, finals(tape, unit), ticket_rows(tape, unit))


# ---------------------------------------------------------------- Plant 'n' Seek: law 4


def circle_units(tape: Tape, regime: str) -> Iterator[tuple[str, list[Training], list[Any]]]:
    """Units of a regime with their last trainings, and the rows of these."""
    for unit, result in tape.results.items():
        if unit.startswith(f"{regime}/circle"):
            lasts = [t for t in tape.trainings(unit) if t.recipe.epochs == FIT["epochs"]]
            yield unit, lasts, list(zip(lasts, result.record["rows"], strict=True))


def rounds_of_arms(tape: Tape, unit: str, arms: int) -> list[Training]:
    """Trainings of a multishot unit before the last ones, arm by arm in each round.

    Before the first pruning all arms are one dense net, which was trained once.
    """
    first, *others = [t for t in tape.trainings(unit) if t.recipe.epochs != FIT["epochs"]]
    assert first.mask is not None and first.mask.density == 1
    return [first] * arms + others


def mother_of(tape: Tape, unit: str) -> State:
    """The weights that every search of a unit's mother and seed starts from."""
    _, case, mother, seed = unit.split("/")
    start: State = tape.of(Pruning, f"singleshot/{case}/{mother}/{seed}")[0].weights
    return start


def oracle(tape: Tape, seed: int) -> Training:
    """The planted ticket, trained."""
    for _, _, pairs in circle_units(tape, "singleshot"):
        for training, row in pairs:
            if row["method"] == "oracle" and training.seed == seed:
                return training
    raise AssertionError("no oracle")


def density_of(tape: Tape, row: Mapping[str, Any], seed: int) -> float:
    """The density that a row's label stands for; the ticket's own is that of its weights."""
    if row["label"] != "gt":
        return float(row["label"])
    weights = [keep for keep in (oracle(tape, seed).mask or Mask({})).values() if keep.dim() == 2]
    return sum(int(keep.sum()) for keep in weights) / sum(keep.numel() for keep in weights)


def at_density(mask: Mask, density: float) -> bool:
    """Whether a mask keeps exactly the entries of a density."""
    return mask.alive == mask.total - int((1 - density) * mask.total)


@of("plant")
def test_singleshot_masks_are_of_the_mothers_own_weights(tape: Tape) -> None:
    for unit, lasts, pairs in circle_units(tape, "singleshot"):
        mother, prunings = mother_of(tape, unit), tape.of(Pruning, unit)
        for pruning, (training, row) in zip(prunings, pairs, strict=False):
            density = density_of(tape, row, training.seed)
            assert pruning.criterion == row["method"].removesuffix("_rounds")
            assert same(pruning.weights, mother) and pruning.before.density == 1
            assert pruning.mask == training.mask and same(training.start, mother), unit
            assert training.mask is not None and at_density(training.mask, density), unit
            if pruning.criterion == "magnitude":
                assert training.mask == largest(mother, pruning.before, training.mask.alive)
        assert len(prunings) == 10 and {t.places for t in lasts} == {lasts[0].places}


@of("plant")
def test_the_steps_of_the_leaderboard_are_those_that_a_net_took(tape: Tape) -> None:
    """Planting's records have no ledger: its page counts by the parameters."""
    for regime, rounds in (("singleshot", 0), ("multishot", tape.params.rounds)):
        for unit, lasts, _ in circle_units(tape, regime):
            trainings = rounds_of_arms(tape, unit, len(lasts)) if rounds else []
            assert len(trainings) == len(lasts) * rounds
            for place, last in enumerate(lasts):
                before = [trainings[turn * len(lasts) + place].steps for turn in range(rounds)]
                assert sum(before) + last.steps == plant_report.steps(tape.params, regime), unit


@of("plant")
def test_multishot_prunes_what_it_trained_and_resets_to_the_mother(tape: Tape) -> None:
    for unit, lasts, pairs in circle_units(tape, "multishot"):
        mother, count = mother_of(tape, unit), len(lasts)
        rounds = rounds_of_arms(tape, unit, count)
        prunings, total_rounds = tape.of(Pruning, unit), tape.params.rounds
        assert len(rounds) == len(prunings) == count * total_rounds
        masks = [None] * count
        for number, (training, pruning) in enumerate(zip(rounds, prunings, strict=True)):
            turn, arm = divmod(number, count)
            density = density_of(tape, pairs[arm][1], training.seed)
            assert same(training.start, mother) and training.mask == pruning.before, unit
            assert masks[arm] in (None, training.mask)
            assert training.mask is not None and pruning.mask is not None
            trained = masked(pruning.weights, training.mask)
            assert same(trained, masked(training.end, training.mask)), unit
            assert at_density(pruning.mask, density ** ((turn + 1) / total_rounds)), unit
            if pruning.criterion == "magnitude":
                assert pruning.mask == largest(training.end, training.mask, pruning.mask.alive)
            masks[arm] = pruning.mask
        assert [t.mask for t in lasts] == masks and all(same(t.start, mother) for t in lasts)


@of("plant")
def test_controls_of_planting_are_what_they_say(tape: Tape) -> None:
    for unit, _, pairs in circle_units(tape, "singleshot"):
        by_name = {row["method"]: training for training, row in pairs}
        if "oracle" not in by_name:
            continue
        ticket, mother = by_name["oracle"], mother_of(tape, unit)
        bare = mother_of(tape, unit.replace("/planted/", "/unplanted/"))
        assert ticket.mask is not None and by_name["dense"].mask is not None
        for name, planted in ticket.mask.items():
            elsewhere = (mother[name] == bare[name]) | (mother[name] == 0)
            assert bool(elsewhere[~planted].all()), name
        assert not same(mother, bare)
        assert by_name["dense"].mask.density == 1
        for name in ("dense", "oracle", "oracle_shuffled"):
            assert same(by_name[name].start, mother), name
        shuffled = by_name["oracle_shuffled"].mask
        assert shuffled is not None and counts(shuffled) == counts(ticket.mask)
        assert shuffled != ticket.mask
        for name in ("oracle_unit", "oracle_reinit"):
            assert by_name[name].mask == ticket.mask
            assert not same(by_name[name].start, mother)
        fresh = by_name["oracle_reinit"].start
        assert drawn_anew(fresh, mother, ticket.mask) and drawn_anew(fresh, bare, ticket.mask)


@of("plant")
def test_edge_popup_chooses_among_the_mothers_weights_at_its_density(tape: Tape) -> None:
    seen = []
    for unit, result in tape.results.items():
        if not unit.startswith("popup/"):
            continue
        poppings, rows = tape.of(Popping, unit), result.record["rows"]
        seen += poppings
        for popping, row in zip(poppings, rows, strict=True):
            alike = [p for p in seen if p.seed == popping.seed]
            assert all(p.batches == alike[0].batches for p in alike), unit
            for name, keep in popping.mask.items():
                size = keep.numel()
                assert int(keep.sum()) == size - int((1 - row["density"]) * size), (unit, name)
        mother = unit.split("/")[3].partition("-")[0]
        starts = [p.weights for p in seen if f"/{mother}-" in p.unit and p.seed == poppings[0].seed]
        assert all(same(starts[0], start) for start in starts)
        other = [p.weights for p in seen if f"/{mother}-" not in p.unit]
        assert not any(same(starts[0], start) for start in other)
        if mother == "unbiased":
            assert not starts[0]["bias4"].any() and starts[0]["bias3"].all()


@of("seekers")
def test_gates_and_edge_popup_see_the_same_batches_of_the_same_mother(tape: Tape) -> None:
    seen: dict[object, list[Popping]] = {}
    for popping in tape.of(Popping):
        data = popping.batches[0].places[0].data  # a task's samples of a seed
        seen.setdefault((popping.seed, data), []).append(popping)
    assert len(seen) == 2 * 3
    for poppings in seen.values():
        assert {p.unit.partition("/")[0] for p in poppings} >= {"popup", "gates"}
        assert all(p.batches == poppings[0].batches for p in poppings)
    for unit in (name for name in tape.results if name.startswith("gates/")):
        own, other = (tape.of(Popping, f"{kind}/{unit.partition('/')[2]}")
                      for kind in ("gates", "popup"))  # fmt: skip
        assert len(own) == len(other) == len(tape.params.densities)
        for gates, popup in zip(own, other, strict=True):
            assert same(gates.weights, popup.weights) and gates.mask.alive == popup.mask.alive


# ---------------------------------------------------------------- its convolutional part: law 4


def conv_units(tape: Tape, prefix: str) -> Iterator[tuple[str, int, list[Training]]]:
    """Units of the convolutional part with their seeds and trainings."""
    for unit in tape.results:
        if unit.startswith(f"conv/{prefix}"):
            yield unit, int(unit.rpartition("seed-")[2]), tape.trainings(unit)


def single(state: State) -> State:
    """A state in float32."""
    return {name: tensor.float() for name, tensor in state.items()}


def conv_mother(tape: Tape, mother: str, seed: int) -> State:
    """The mother that every search of a seed starts from."""
    unit = f"conv/singleshot/{mother}/magnitude/seed-{seed}"
    return single(tape.of(Pruning, unit)[0].weights)


@of("conv")
def test_conv_searches_prune_what_they_say_and_are_reset_to_the_mother(tape: Tape) -> None:
    conv = tape.params.conv
    for regime in ("singleshot", "multishot"):
        for unit, seed, trainings in conv_units(tape, regime):
            mother = conv_mother(tape, unit.split("/")[2], seed)
            gt = tape.trainings(f"conv/controls/oracle/seed-{seed}")[0].mask
            assert gt is not None
            prunings = tape.of(Pruning, unit)
            rounds = conv.rounds if regime == "multishot" else 1
            per_arm = rounds + 1 if regime == "multishot" else 1
            for number, wanted in enumerate(conv.densities):
                density = gt.density if wanted == "gt" else wanted
                own = trainings[number * per_arm : (number + 1) * per_arm]
                for turn in range(rounds):
                    pruning = prunings[number * rounds + turn]
                    assert pruning.mask is not None
                    assert at_density(pruning.mask, density ** ((turn + 1) / rounds)), unit
                    if regime == "singleshot":
                        assert same(single(pruning.weights), mother), unit
                        continue
                    training = own[turn]
                    assert same(training.start, masked(mother, training.mask)), unit
                    assert same(single(pruning.weights), training.end), unit
                    assert pruning.before == training.mask
                assert own[-1].mask == pruning.mask
                assert same(own[-1].start, masked(mother, own[-1].mask)), unit
            probes = {x.places for x in tape.of(Look, unit) if x.kind == "batch"}
            assert all(len(probe) == conv.probe for probe in probes) and len(probes) == 1


@of("conv")
def test_the_planted_ticket_is_the_one_that_was_trained(tape: Tape) -> None:
    for unit, seed, trainings in conv_units(tape, "ticket/"):
        *rounds, last = trainings
        ticket = tape.results[unit].tickets["ticket"]
        assert ticket.mask == last.mask and same(ticket.weights or {}, masked(last.end, last.mask))
        first = rounds[0].start
        assert all(same(t.start, masked(first, t.mask)) for t in trainings), unit
        (again,) = tape.trainings(f"conv/controls/ticket_trained/seed-{seed}")
        assert same(again.start, last.end) and again.mask == last.mask


@of("conv")
def test_conv_controls_are_what_they_say(tape: Tape) -> None:
    for seed in tape.params.seeds:
        by_name = {
            unit.split("/")[2]: trainings[0]
            for unit, own, trainings in conv_units(tape, "controls")
            if own == seed
        }
        mother, bare = (conv_mother(tape, name, seed) for name in ("planted", "unplanted"))
        ticket, shuffled = by_name["oracle"].mask, by_name["oracle_shuffled"].mask
        assert ticket is not None and shuffled is not None and by_name["dense"].mask is not None
        assert by_name["dense"].mask.density == 1
        for name in ("dense", "oracle", "oracle_shuffled"):
            assert same(by_name[name].start, masked(mother, by_name[name].mask)), name
        assert counts(shuffled) == counts(ticket) and shuffled != ticket
        assert by_name["oracle_reinit"].mask == ticket
        fresh = by_name["oracle_reinit"].start
        assert drawn_anew(fresh, mother, ticket) and drawn_anew(fresh, bare, ticket)
        for name, planted in ticket.items():
            assert bool((mother[name] == bare[name])[~planted].all()), name
        own_net = by_name["narrow_dense"]
        assert own_net.mask is not None and own_net.mask.density == 1
        assert not same(own_net.start, by_name["ticket_trained"].start)


@of("conv")
def test_conv_edge_popup_leaves_what_it_chose(tape: Tape) -> None:
    for unit, seed, trainings in conv_units(tape, "popup"):
        mother = conv_mother(tape, unit.split("/")[2], seed)
        (popping,) = tape.of(Popping, unit)
        assert len(trainings) == tape.params.conv.levels
        assert same(single(popping.weights), mother), unit
        assert popping.mask is not None and zeros_differ(popping.end, popping.mask) == ""
        shown = tape.of(Look, unit)[-1].state
        assert same(shown, masked(mother, popping.mask)), unit
        layers: dict[str, list[Tensor]] = {}
        for name, keep in popping.mask.items():
            layers.setdefault(name.rpartition(".")[0], []).append(keep)
        for name, keeps in layers.items():
            size = sum(keep.numel() for keep in keeps)
            chosen = sum(int(keep.sum()) for keep in keeps)
            assert chosen == size - int((1 - 0.5) * size), (unit, name)


# ---------------------------------------------------------------- law 2 again: the second runs


@of(*PAPERS, slow=("dlth", "compare", "conv"))
def test_other_test_images_change_no_choice(
    tape_of: Callable[..., Tape], tape: Tape, paper: str
) -> None:
    ours, theirs = trace(tape), trace(tape_of(paper, other_test=True))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert equal(one, other), one[:2]  # type: ignore[index]
