"""Many tickets trained by one call: each path gives what the plain loop gives, and says so."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import CPU, Message, equal

from ticketlab import models
from ticketlab.data.sets import Augment, DataSet
from ticketlab.gpu import Runtime
from ticketlab.many import train_many as engine
from ticketlab.many.train_many import Job, Path, Trained, train_many
from ticketlab.pruning.masks import Mask, keep_top, ones
from ticketlab.training import mlp
from ticketlab.training.evaluation import evaluate
from ticketlab.training.loop import train
from ticketlab.training.recipe import Recipe, Step

SGD = Recipe(
    lr=0.05, momentum=0.9, weight_decay=1e-3, batch=30, length=Step(4, "ep"),
    milestones=(Step(2, "ep"),), warmup=Step(3, "it"),
)  # fmt: skip
ADAM = Recipe(optimizer="adam", lr=1e-3, batch=30, length=Step(3, "ep"), schedule="cosine")
NESTEROV = SGD.model_copy(update={"nesterov": True, "schedule": "constant"})
TOLERANCE = 2e-5
"""On weights of order 0.1 to 1 after 20 to 30 steps in float32, sums being ordered otherwise."""

MakeJob = Callable[..., Job]


@pytest.fixture
def job(digits: DataSet) -> MakeJob:
    """A LeNet-300-100 with a random mask of a density, on 200 images."""

    def make(net: int = 0, density: float = 0.05, **changes: object) -> Job:
        name = changes.pop("name", "lenet_300_100")
        model = models.build(models.ModelSpec(name=str(name)), digits.shape, 10, net)
        random = torch.Generator().manual_seed(net)
        dense = ones(model, models.prunable(model, "conv_linear"))
        scores = {n: torch.rand(keep.shape, generator=random) for n, keep in dense.items()}
        mask = keep_top(scores, round(density * dense.total))
        made = Job(model, digits.train, digits, SGD, ("order", net), mask, None, digits.validation)
        return replace(made, **changes)  # type: ignore[arg-type]

    return make


def many(jobs: list[Job], path: Path | str = "auto", runtime: Runtime = CPU) -> list[Trained]:
    return train_many(jobs, runtime, path, tell=lambda line: None)  # type: ignore[arg-type]


def distance(a: Trained, b: Trained) -> float:
    assert list(a.state) == list(b.state)
    return max(float((a.state[name] - b.state[name]).abs().max()) for name in a.state)


# ---------------------------------------------------------------- equality with the plain loop


@pytest.mark.parametrize("recipe", [SGD, ADAM, NESTEROV], ids=["sgd", "adam", "nesterov"])
@pytest.mark.parametrize("path", ["sparse", "stacked"])
@pytest.mark.parametrize("shared", [True, False], ids=["one-order", "own-orders"])
def test_a_path_gives_what_the_plain_loop_gives(
    job: MakeJob, path: Path, recipe: Recipe, shared: bool
) -> None:
    jobs = [job(s, recipe=recipe, seed=("order", 0 if shared else s)) for s in range(3)]
    if shared:
        jobs[0] = replace(jobs[0], state=jobs[1].start())  # a mask on other weights
    for ours, plain, one in zip(many(jobs, path), many(jobs, "plain"), jobs, strict=True):
        assert (ours.path, plain.path) == (path, "plain")
        assert distance(ours, plain) < TOLERANCE
        assert one.mask is not None
        assert all(not ours.state[name][~keep].any() for name, keep in one.mask.items())
        assert [e.iteration for e in ours.history] == [e.iteration for e in plain.history]
        for mine, theirs in zip(ours.history, plain.history, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, abs=1e-4)
            assert mine.accuracy == pytest.approx(theirs.accuracy, abs=1e-6)
        assert ours.best is not None and plain.best is not None
        assert ours.best.epoch == plain.best.epoch
        assert ours.best.accuracy == pytest.approx(plain.best.accuracy)


@pytest.mark.parametrize("path", ["sparse", "stacked"])
@pytest.mark.parametrize("shared", [True, False], ids=["one-order", "own-orders"])
def test_a_last_batch_of_one_image_joins_the_one_before_it_on_every_path(
    job: MakeJob, path: Path, shared: bool, digits: DataSet
) -> None:
    few = digits.train.select(torch.arange(61))  # batches of 30 and 31
    jobs = [job(s, images=few, seed=("order", 0 if shared else s)) for s in range(2)]
    for ours, plain in zip(many(jobs, path), many(jobs, "plain"), strict=True):
        assert distance(ours, plain) < TOLERANCE
        assert [e.iteration for e in ours.history] == [2, 4, 6, 8]


@pytest.mark.parametrize("path", ["sparse", "stacked"])
def test_augmented_batches_are_the_same_too(job: MakeJob, digits: DataSet, path: Path) -> None:
    data = replace(digits, augment=Augment(crop=1, flip=True, rotate=10))
    jobs = [job(s, data=data) for s in range(2)]
    for ours, plain in zip(many(jobs, path), many(jobs, "plain"), strict=True):
        assert distance(ours, plain) < TOLERANCE


def test_the_plain_path_is_the_loop_bit_for_bit(job: MakeJob, digits: DataSet) -> None:
    from ticketlab.training.net import Net
    from ticketlab.training.observers import KeepBest

    one = job(3)
    net = Net(models.build(models.ModelSpec(name="lenet_300_100"), digits.shape, 10, 3), CPU)
    net.rewind(one.start(), one.mask)
    best = KeepBest(digits.validation, digits)
    history = train(
        net,
        digits.train,
        digits,
        SGD,
        seed=("order", 3),
        mask=one.mask,
        observers=[best],
        path="plain",
    )
    (ours,) = many([one], "plain")
    assert equal(ours.state, net.state()) and ours.history == history
    assert ours.best is not None and equal(ours.best.state, best.state)


@pytest.mark.parametrize("path", ["sparse", "stacked"])
def test_company_changes_nothing_and_again_is_the_same(job: MakeJob, path: Path) -> None:
    jobs = [job(s) for s in range(3)]
    together, again = many(jobs, path), many(jobs, path)
    assert all(equal(a.state, b.state) for a, b in zip(together, again, strict=True))
    alone = many(jobs[2:], path)[0]
    assert distance(together[2], alone) < TOLERANCE


def test_a_collapsed_layer_and_a_dense_head_train_as_in_the_plain_loop(job: MakeJob) -> None:
    empty, headless = job(0), job(1)
    assert empty.mask is not None and headless.mask is not None
    gone = dict(empty.mask) | {"body.fc2.weight": torch.zeros(100, 300, dtype=torch.bool)}
    jobs = [
        replace(empty, mask=Mask(gone)),
        replace(headless, mask=Mask({n: k for n, k in headless.mask.items() if "fc" in n})),
    ]
    for ours, plain in zip(many(jobs, "sparse"), many(jobs, "plain"), strict=True):
        assert distance(ours, plain) < TOLERANCE


def test_the_best_state_scores_what_it_says(job: MakeJob, digits: DataSet) -> None:
    from ticketlab.data.sets import Batches
    from ticketlab.training.net import Net

    one = job(1)
    (ours,) = many([one], "sparse")
    assert ours.best is not None
    net = Net(models.build(models.ModelSpec(name="lenet_300_100"), digits.shape, 10, 0), CPU)
    net.rewind(ours.best.state)
    score = evaluate(net, digits.validation, Batches(digits.validation, digits))
    assert score.accuracy == pytest.approx(ours.best.accuracy)


# ---------------------------------------------------------------- the choice


def test_the_choice_follows_model_and_density_and_is_told(job: MakeJob) -> None:
    short = SGD.model_copy(update={"length": Step(2, "it")})
    jobs = [job(0, 0.05, recipe=short), job(1, 0.5, recipe=short), job(2, recipe=short, mask=None),
            job(0, 0.5, name="conv2", recipe=short)]  # fmt: skip
    message: list[str] = []
    trained = train_many(jobs, CPU, tell=message.append)
    assert [one.path for one in trained] == ["sparse", "stacked", "stacked", "plain"]
    assert message == ["train_many on cpu: 1 sparse, 2 stacked, 1 plain"]
    bf16 = CPU.model_copy(update={"precision": "bf16"})
    assert engine.choose(jobs[0], bf16) == "plain"
    assert engine.choose(jobs[0], CPU) == "sparse"


def test_jobs_of_many_kinds_come_back_in_order(
    job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SPARSE_CHUNK", 2)
    jobs = [job(s, 0.05 if s % 2 else 0.5, validation=None) for s in range(6)]
    for ours, one in zip(many(jobs), jobs, strict=True):
        assert ours.best is None
        assert distance(ours, many([one], "plain")[0]) < TOLERANCE


def test_the_model_given_is_left_as_it_was(job: MakeJob) -> None:
    for path in engine.PATHS:
        one = job(0)
        before = {n: t.clone() for n, t in one.model.state_dict().items()}
        many([one], path)
        assert equal(before, dict(one.model.state_dict()))


# ---------------------------------------------------------------- bad input


def test_bad_jobs_are_one_line(job: MakeJob, one_line: Message, digits: DataSet) -> None:
    good = job(0)
    none = digits.train.select(torch.empty(0, dtype=torch.int64))
    wrong = Mask({"body.fc9.weight": torch.ones(2, 2, dtype=torch.bool)})
    start = good.start()
    cases: list[tuple[Job, str]] = [
        (replace(good, images=none), "job.images"),
        (replace(good, validation=none), "job.validation"),
        (replace(good, mask=wrong), "fc9"),
        (replace(good, state={"a": torch.zeros(1)}), "job.state"),
        (replace(good, state={n: t for n, t in start.items() if "head" not in n}), "head.bias"),
        (replace(good, recipe=SGD.model_copy(update={"length": Step(50, "%")})), "recipe.length"),
    ]
    for bad, word in cases:
        assert word in one_line(lambda bad=bad: many([bad]))  # type: ignore[misc]


def test_a_path_that_is_not_possible_is_one_line(job: MakeJob, one_line: Message) -> None:
    biased = job(0)
    assert biased.mask is not None
    biases = dict(biased.mask) | {"body.fc1.bias": torch.rand(300) < 0.5}
    cases = [
        (job(0), "fast", CPU, "auto, sparse, stacked, plain, compacted"),
        (job(0, name="conv2"), "stacked", CPU, "plain ReLU MLP"),
        (job(0, mask=None), "sparse", CPU, "no mask"),
        (replace(biased, mask=Mask(biases)), "sparse", CPU, "biases"),
        (job(0), "sparse", Runtime(device="cpu", precision="bf16"), "bf16"),
    ]
    for bad, path, runtime, word in cases:
        assert word in one_line(lambda b=bad, p=path, r=runtime: many([b], p, r))  # type: ignore[misc]
    masked = replace(biased, mask=Mask(biases))
    assert engine.choose(masked, CPU) == "stacked"
    ours, plain = many([masked])[0], many([masked], "plain")[0]
    assert distance(ours, plain) < TOLERANCE


def test_nothing_to_train_is_nothing() -> None:
    assert many([]) == []
    assert mlp.linears(torch.nn.Linear(2, 2)) == ()
