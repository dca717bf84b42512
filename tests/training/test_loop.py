"""The training loop: masks, rewinding, recipes, steps, observers, and equality with plain torch."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

import pytest
import torch
from conftest import CPU, Message, equal, small_net
from torch import Tensor
from torch.nn import functional as F

from ticketlab import gpu, models
from ticketlab.data.sets import Augment, Batches, DataSet, Images, batch
from ticketlab.gpu import Runtime
from ticketlab.pruning.criteria import uniform
from ticketlab.pruning.masks import Mask, State, ones, prune
from ticketlab.spec import InputError
from ticketlab.training import observers as training_observers
from ticketlab.training.evaluation import Score, evaluate, predict
from ticketlab.training.loop import Meter, train
from ticketlab.training.net import Net
from ticketlab.training.observers import Epoch, KeepBest, Observer, Run, Snapshot, Track
from ticketlab.training.recipe import Recipe, Step, batch_slice, epoch_steps, learning_rate

NHWC = Runtime(device="cpu", channels_last=True)
SGD = Recipe(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-3, batch=40, length="2ep")
RECIPES = {
    "sgd": SGD,
    "nesterov": SGD.model_copy(update={"nesterov": True}),
    "adam": Recipe(optimizer="adam", lr=0.005, weight_decay=1e-3, batch=40, length="2ep"),
}


def random_mask(net: Net, sparsity: float, rule: str = "conv", seed: int = 0) -> Mask:
    dense = ones(net.model, models.prunable(net.model, rule))
    return prune(uniform(dense, gpu.generator("cpu", seed)), dense, sparsity)


def removed(net: Net, mask: Mask) -> Tensor:
    weights = dict(net.model.named_parameters())
    return torch.cat([weights[name].detach()[~keep] for name, keep in mask.items()])


def after(net: Net, data: DataSet, recipe: Recipe = SGD, seed: int = 0, **options: object) -> State:
    """The state after a training from the net's present one."""
    train(net, data.train, data, recipe, seed=(seed,), **options)  # type: ignore[arg-type]
    return net.state()


class Record(Observer):
    """Everything a test wants to look at afterwards, step by step."""

    def __init__(self) -> None:
        self.indices: list[Tensor] = []
        self.epochs: list[int] = []
        self.losses: list[float] = []
        self.hits: list[int] = []
        self.weights: list[Tensor] = []

    def before_step(self, run: Run) -> None:
        self.indices.append(run.index.clone())
        self.epochs.append(run.epoch)
        self.losses.append(float(run.loss))
        self.hits.append(int((run.logits.argmax(1) == run.labels).sum()))

    def after_step(self, run: Run) -> None:
        self.weights.append(run.net.weights.clone())


# --- masks


class StaysZero(Observer):
    """Counts steps and fails at the first one that moves a removed weight."""

    def __init__(self, mask: Mask) -> None:
        self.mask, self.looks = mask, 0

    def _look(self, run: Run) -> None:
        self.looks += 1
        assert not removed(run.net, self.mask).any(), f"in step {run.iteration}"

    def before_step(self, run: Run) -> None:
        self._look(run)

    def after_step(self, run: Run) -> None:
        self._look(run)


@pytest.mark.parametrize("runtime", [CPU, NHWC], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("name", ["conv3", "conv2"])
def test_removed_weights_are_zero_before_and_after_every_step(
    digits: DataSet, name: str, recipe: Recipe, runtime: Runtime
) -> None:
    net = small_net(name, runtime)
    mask = random_mask(net, 0.8, "conv_linear")
    assert removed(net, mask).all()  # nothing is zero by itself
    start, look = net.state(), StaysZero(mask)
    end = after(net, digits, recipe, mask=mask, observers=[look])
    assert look.looks == 2 * 10
    for layer, keep in mask.items():
        assert not end[layer][~keep].any()
        assert (end[layer][keep] != start[layer][keep]).float().mean() > 0.9  # survivors learn


def test_a_net_without_mask_has_no_zeros_after_training(digits: DataSet) -> None:
    net = small_net()
    mask = random_mask(net, 0.8)
    after(net, digits)
    assert removed(net, mask).all()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_dense_mask_equals_no_mask_bit_for_bit(digits: DataSet, recipe: Recipe) -> None:
    net = small_net()
    start, dense = net.state(), random_mask(net, 0)
    assert dense.density == 1
    states = []
    for mask in (None, dense):
        net.rewind(start)
        states.append(after(net, digits, recipe, mask=mask))
    assert equal(states[0], states[1]) and not equal(start, states[0])


def test_a_mask_that_does_not_fit_is_refused_by_layer_name(
    digits: DataSet, one_line: Message
) -> None:
    net, wide = small_net(), small_net(width=8)
    message = one_line(lambda: after(net, digits, mask=random_mask(wide, 0.5)))
    assert "body.conv1.weight" in message


def test_the_data_order_does_not_depend_on_the_mask(digits: DataSet) -> None:
    orders = []
    for sparsity, seed in [(0.0, 0), (0.9, 0), (0.9, 1)]:
        net, record = small_net(), Record()
        mask = random_mask(net, sparsity)
        after(net, digits, seed=seed, mask=mask, observers=[record])
        orders.append(torch.cat(record.indices))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    epochs = orders[0].view(2, 200)
    assert all(epoch.sort().values.equal(torch.arange(200)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_augmentation_does_not_depend_on_the_mask_either(digits: DataSet) -> None:
    data = replace(digits, augment=Augment(crop=2, rotate=10.0))
    net = small_net()
    start, losses = net.state(), []
    for mask in (None, random_mask(net, 0.0)):
        net.rewind(start)
        record = Record()
        after(net, data, mask=mask, observers=[record])
        losses.append(record.losses)
    plain = Record()
    net.rewind(start)
    after(net, digits, observers=[plain])
    assert losses[0] == losses[1] and plain.losses[0] != losses[0][0]


# --- rewinding and states


@pytest.mark.parametrize("runtime", [CPU, NHWC], ids=["contiguous", "channels_last"])
def test_rewinding_restores_everything_bitwise_and_survivors_equal_theta_0(
    digits: DataSet, runtime: Runtime
) -> None:
    net = small_net(runtime=runtime)
    theta = net.state()
    kinds = {name.rsplit(".", 1)[1] for name in theta}
    assert kinds == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    trained = after(net, digits)
    assert [name for name in theta if torch.equal(theta[name], trained[name])] == []
    net.rewind(theta)
    assert equal(net.state(), theta)
    mask = random_mask(net, 0.7)
    after(net, digits, mask=mask)
    net.rewind(theta, mask)
    for name, tensor in net.state().items():
        kept = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[kept], theta[name][kept]) and not tensor[~kept].any()


def test_a_state_is_a_copy(digits: DataSet) -> None:
    net = small_net()
    state = net.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    after(net, digits)
    assert equal(state, before)
    net.rewind(state)
    for tensor in state.values():
        tensor.zero_()
    assert equal(net.state(), before)


def test_the_state_of_another_net_is_refused(one_line: Message) -> None:
    """Names and shapes: a deeper net's has all names of a shallower one, and more."""
    small, deep = (small_net(name, width=4) for name in ("resnet8", "resnet20"))
    wide, before = small_net("resnet8", width=8), small.state()
    prefixed = {f"module.{name}": tensor for name, tensor in before.items()}
    missing = {name: tensor for name, tensor in before.items() if name != "head.bias"}
    for state, words in (
        (deep.state(), ["only the state", str(len(deep.state()))]),
        (prefixed, ["'body.", "only the net"]),
        (missing, ["'head.bias'", "only the net"]),
        (wide.state(), ["(8, 1, 3, 3)", "(4, 1, 3, 3)"]),
        ({}, ["only the net", "the state has 0"]),
    ):
        message = one_line(lambda state=state: small.rewind(state))  # type: ignore[misc]
        assert message.startswith("state: '") and all(word in message for word in words), message
        assert equal(small.state(), before)  # nothing is half done


def test_a_state_has_the_same_layout_under_channels_last() -> None:
    states = [small_net(runtime=runtime).state() for runtime in (CPU, NHWC)]
    assert equal(states[0], states[1])
    assert all(tensor.is_contiguous() for state in states for tensor in state.values())


def test_convolutions_are_stored_ohwi_under_channels_last(digits: DataSet) -> None:
    for runtime, order in ((CPU, (0, 1, 2, 3)), (NHWC, (0, 2, 3, 1))):
        net = small_net(runtime=runtime)
        after(net, digits, SGD.model_copy(update={"length": Step(3, "it")}))
        start = 0
        for name, parameter in net.model.named_parameters():
            end = start + parameter.numel()
            stored = parameter.permute(order) if parameter.dim() == 4 else parameter
            assert stored.is_contiguous(), name
            assert stored.data_ptr() == net.weights[start:].data_ptr(), name
            assert torch.equal(stored.flatten(), net.weights[start:end])
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()
            assert parameter.grad.data_ptr() == net.grads[start:].data_ptr()
            start = end
        assert start == len(net.weights) == len(net.grads)


# --- against plain torch


def plain_conv3(p: State, x: Tensor) -> Tensor:
    """Conv-3 from `torch.nn.functional` alone; moves the running statistics in `p`."""
    for i in (1, 2, 3):
        x = F.conv2d(x, p[f"body.conv{i}.weight"], padding=1)
        bn = f"body.bn{i}"
        running = p[f"{bn}.running_mean"], p[f"{bn}.running_var"]
        x = F.batch_norm(x, *running, p[f"{bn}.weight"], p[f"{bn}.bias"], training=True)
        x = F.relu(F.max_pool2d(x, 2))
    return F.linear(x.mean((2, 3)), p["head.weight"], p["head.bias"])


def plain_batches(data: DataSet, size: int, seed: int, epochs: int) -> Iterator[tuple[Tensor, ...]]:
    """The bench's batches made the plain way, which fixes what the data order is."""
    random = gpu.generator("cpu", "order", seed)
    for _ in range(epochs):
        for index in torch.randperm(len(data.train), generator=random).split(size):
            yield batch(data.train, index, data), data.train.y[index]


def plain_training(state: State, data: DataSet, recipe: Recipe, mask: Mask | None) -> State:
    """A loop without flat buffers, observers or fused optimisers."""
    names = [name for name in state if name.endswith((".weight", ".bias"))]
    p = {n: t.clone().requires_grad_(n in names) for n, t in state.items()}
    make = {
        "adam": lambda w: torch.optim.Adam(
            w, weight_decay=recipe.weight_decay, foreach=False, fused=False
        ),
        "sgd": lambda w: torch.optim.SGD(
            w,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            foreach=False,
            fused=False,
        ),
    }
    optimizer = make[recipe.optimizer]([p[name] for name in names])
    per_epoch = ceil(len(data.train) / recipe.batch)
    total = 4 * per_epoch
    for step, (x, y) in enumerate(plain_batches(data, recipe.batch, 0, epochs=4)):
        for name, keep in (mask or {}).items():
            p[name].data *= keep
        optimizer.zero_grad()
        F.cross_entropy(plain_conv3(p, x), y).backward()
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step, per_epoch, total)
        optimizer.step()
    for name, keep in (mask or {}).items():
        p[name].data *= keep
    return {name: tensor.detach() for name, tensor in p.items()}


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_loop_equals_a_plain_torch_loop(digits: DataSet, name: str, masked: bool) -> None:
    changes = {"length": Step(4, "ep"), "milestones": (Step(50, "%"),), "warmup": Step(4, "it")}
    recipe = RECIPES[name].model_copy(update=changes)
    net = small_net()
    start, mask = net.state(), random_mask(net, 0.6) if masked else None
    expected = plain_training(start, digits, recipe, mask)
    found = after(net, digits, recipe, mask=mask)
    assert found["body.bn1.num_batches_tracked"] == 20
    for key, tensor in expected.items():
        if "num_batches" not in key:
            assert torch.allclose(found[key], tensor, rtol=0, atol=1e-5), key
            assert not torch.allclose(found[key], start[key], rtol=0, atol=1e-3), key


@pytest.mark.parametrize("name", ["conv3", "resnet8"])
def test_channels_last_equals_contiguous_within_rounding(digits: DataSet, name: str) -> None:
    nets = [small_net(name, runtime, width=4) for runtime in (CPU, NHWC)]
    masks = [random_mask(net, 0.5) for net in nets]
    assert masks[0] == masks[1]
    few = SGD.model_copy(update={"length": Step(3, "it")})  # rounding grows from step to step
    states = [after(n, digits, few, mask=m) for n, m in zip(nets, masks, strict=True)]
    for key, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][key], rtol=1e-4, atol=1e-5), key


def test_bf16_trains_and_stays_close_to_float32(digits: DataSet) -> None:
    states, scores = [], []
    recipe = SGD.model_copy(update={"length": Step(1, "ep")})
    for precision in ("float32", "bf16"):
        net = small_net(runtime=Runtime(device="cpu", precision=precision))
        history = train(net, digits.train, digits, recipe, seed=(0,))
        states.append(net.state())
        scores.append(history[-1].loss)
        assert predict(net, digits.test, Batches(digits.test, digits)).dtype == torch.float32
    assert all(tensor.dtype != torch.bfloat16 for tensor in states[1].values())
    assert scores[0] != scores[1] and scores[1] == pytest.approx(scores[0], rel=0.05)
    for key in ("body.conv1.weight", "head.weight"):
        distance = (states[0][key] - states[1][key]).norm() / states[0][key].norm()
        assert 0 < distance < 0.1


# --- determinism


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits: DataSet) -> None:
    data = replace(digits, augment=Augment(crop=1))
    states = [after(small_net(), data, seed=seed) for seed in (3, 3, 4)]
    assert equal(states[0], states[1]) and not equal(states[0], states[2])


def test_training_neither_reads_nor_moves_the_global_generator(digits: DataSet) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        states.append(after(small_net(), digits))
        assert torch.equal(before, torch.get_rng_state())
    assert equal(states[0], states[1])


# --- steps and schedules


@pytest.mark.parametrize(
    ("text", "step", "iterations"),
    [
        ("3ep", Step(3, "ep"), 30),
        ("0.5ep", Step(0.5, "ep"), 5),
        ("500it", Step(500, "it"), 500),
        ("0it", Step(0, "it"), 0),
        ("40%", Step(40, "%"), 80),
        ("12.5%", Step(12.5, "%"), 25),
    ],
)
def test_a_step_is_read_from_text_and_counted(text: str, step: Step, iterations: int) -> None:
    assert Step.parse(text) == step and Step.parse(step) is step
    assert str(step) == text
    assert step.iterations(per_epoch=10, total=200) == iterations


@pytest.mark.parametrize(
    "text",
    [3, 3.0, True, None, ["3ep"], "", "3", "ep", "-3ep", "+3ep", "1.5it", "3 ep", "3epochs",
     "3EP", "1e2it", ".5ep", "nan%", "3ep\n", "3ep 2it"],
)  # fmt: skip
def test_anything_else_is_refused_as_a_step(text: object) -> None:
    with pytest.raises(ValueError, match="allowed is a step such as '3ep', '500it' or '40%'"):
        Step.parse(text)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed is a step"):
        Recipe.model_validate({"length": text})


def test_a_share_of_nothing_is_refused(one_line: Message) -> None:
    message = one_line(lambda: Step(40, "%").iterations(10))
    assert "'40%'" in message and "'ep' and 'it'" in message


def test_a_recipe_survives_a_round_trip_as_plain_values() -> None:
    recipe = Recipe(length="7ep", milestones=("40%", "3ep"), warmup="100it")
    plain = recipe.model_dump(mode="json")
    assert (plain["length"], plain["milestones"], plain["warmup"]) == (
        "7ep",
        ["40%", "3ep"],
        "100it",
    )
    assert Recipe.model_validate(plain) == recipe


def test_the_learning_rate_follows_colts_recipe() -> None:
    """50 epochs; a ramp from exactly 0 in the first, then x 0.2 at epochs 21, 31 and 46 (2.3)."""
    per_epoch, total = 196, 50 * 196  # 50,000 images in batches of 256
    recipe = Recipe(
        lr=0.1, length="50ep", warmup="1ep", decay=0.2, milestones=("21ep", "31ep", "46ep")
    )
    rates = [learning_rate(recipe, i, per_epoch, total) for i in range(total)]
    assert rates[0] == 0
    assert rates[1:196] == pytest.approx([0.1 * i / 196 for i in range(1, 196)])
    by_epoch = [set(rates[e * per_epoch : (e + 1) * per_epoch]) for e in range(1, 50)]
    assert all(len(values) == 1 for values in by_epoch)
    plan = [0.1] * 20 + [0.02] * 10 + [0.004] * 15 + [0.0008] * 4  # epochs 1..49
    assert [values.pop() for values in by_epoch] == pytest.approx(plan)


def test_milestones_may_be_shares_of_the_run() -> None:
    recipe = Recipe(lr=1.0, decay=0.5, milestones=("40%", "60%", "90%"))
    rates = [learning_rate(recipe, i, 10, 100) for i in range(100)]
    assert rates == [1.0] * 40 + [0.5] * 20 + [0.25] * 30 + [0.125] * 10


def test_a_cosine_falls_from_the_base_rate_to_near_0_after_the_ramp() -> None:
    recipe = Recipe(lr=0.2, schedule="cosine", warmup="10it")
    rates = [learning_rate(recipe, i, 10, 110) for i in range(110)]
    assert rates[0] == 0 and rates[5] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(0.2) and rates[60] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.001 * 0.2
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_constant_schedule_ignores_milestones() -> None:
    recipe = Recipe(lr=0.3, schedule="constant", milestones=("10%",))
    assert {learning_rate(recipe, i, 10, 100) for i in range(100)} == {0.3}


def test_the_loop_uses_the_schedule(digits: DataSet) -> None:
    """The first rate of a ramp is 0, so the first step moves no weight; later ones do."""
    net, record = small_net(), Record()
    start = net.weights.clone()
    recipe = SGD.model_copy(update={"warmup": Step(3, "it"), "length": Step(4, "it")})
    after(net, digits, recipe, observers=[record])
    assert torch.equal(record.weights[0], start) and not torch.equal(record.weights[1], start)


# --- length, until


def test_the_last_batch_of_an_epoch_may_be_short(digits: DataSet) -> None:
    record = Record()
    recipe = SGD.model_copy(update={"batch": 64})
    history = train(small_net(), digits.train, digits, recipe, seed=(0,), observers=[record])
    assert [len(index) for index in record.indices] == [64, 64, 64, 8] * 2
    assert record.epochs == [0] * 4 + [1] * 4
    assert [(e.epoch, e.iteration) for e in history] == [(0, 4), (1, 8)]


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [
        (128, 64, [64, 64]),
        (130, 64, [64, 64, 2]),
        (129, 64, [64, 65]),  # a single image joins the batch before it
        (65, 64, [65]),
        (64, 64, [64]),
        (63, 64, [63]),
        (5, 2, [2, 3]),
        (3, 1, [1, 1, 1]),
        (1, 64, [1]),
    ],
)
def test_batches_cut_an_epoch_and_ledgers_count_them(
    images: int, batch: int, sizes: list[int]
) -> None:
    order = torch.arange(images)
    parts = [order[batch_slice(n, images, batch)] for n in range(epoch_steps(images, batch))]
    assert [len(part) for part in parts] == sizes and torch.cat(parts).equal(order)
    recipe = SGD.model_copy(update={"batch": batch, "length": Step(3, "ep")})
    assert recipe.iterations(images) == (len(sizes), 3 * len(sizes))
    seen = [sum((sizes * 3)[:n]) for n in range(1, 3 * len(sizes) + 1)]
    lengths = [Step(n, "it") for n in range(1, 3 * len(sizes) + 1)]
    assert [recipe.model_copy(update={"length": n}).passes(images) for n in lengths] == seen
    assert [recipe.passes(images, steps) for steps in range(len(seen) + 1)] == [0, *seen]


@pytest.mark.parametrize("images", [65, 129, 66, 130])
def test_a_last_batch_of_one_image_is_no_end_for_batch_norm(digits: DataSet, images: int) -> None:
    """Images of 4 x 4 pixels are 1 x 1 maps at the end of this net."""
    small = Images(digits.train.x[:images, :, 5:9, 5:9].contiguous(), digits.train.y[:images])
    spec = models.ModelSpec(name="conv3_strided", width=4)
    net, record = Net(models.build(spec, (1, 4, 4), 10, 0), CPU), Record()
    recipe = SGD.model_copy(update={"batch": 64})
    history = train(net, small, digits, recipe, seed=(0,), observers=[record])
    steps, total = recipe.iterations(images)
    assert min(len(index) for index in record.indices) > 1
    assert history[-1].iteration == len(record.indices) == total == 2 * steps
    assert sum(len(index) for index in record.indices) == recipe.passes(images) == 2 * images
    assert torch.cat(record.indices[:steps]).sort().values.equal(torch.arange(images))


@pytest.mark.parametrize(("images", "batch"), [(1, 64), (3, 1)])
def test_batches_of_one_image_are_refused_where_batch_norm_cannot_use_them(
    digits: DataSet, one_line: Message, images: int, batch: int
) -> None:
    few = digits.train.select(torch.arange(images))
    recipe = SGD.model_copy(update={"batch": batch, "length": Step(1, "it")})
    spec = models.ModelSpec(name="conv3_strided", width=4)
    tiny = Images(few.x[:, :, 5:9, 5:9].contiguous(), few.y)
    net = Net(models.build(spec, (1, 4, 4), 10, 0), CPU)
    before = net.state()
    message = one_line(lambda: train(net, tiny, digits, recipe, seed=(0,)))
    assert f"recipe.batch: {batch} on {images} image" in message and "2 or more" in message
    assert equal(net.state(), before) and not net.model.training
    for works in (small_net("conv2"), small_net("conv3")):  # none, and batch-norm on larger maps
        start = works.state()
        train(works, few, digits, recipe, seed=(0,))
        assert not equal(works.state(), start)


@pytest.mark.parametrize(("until", "steps"), [("3it", 3), ("1ep", 5), ("70%", 7), ("2ep", 10)])
def test_until_ends_early_on_the_same_trajectory(digits: DataSet, until: str, steps: int) -> None:
    recipe = SGD.model_copy(update={"schedule": "cosine", "warmup": Step(2, "it")})
    snapshot, record = Snapshot(Step.parse(until)), Record()
    full = after(small_net(), digits, recipe, observers=[snapshot])
    net = small_net()
    history = train(
        net, digits.train, digits, recipe, seed=(0,), observers=[record], until=Step.parse(until)
    )
    assert len(record.indices) == history[-1].iteration == steps
    assert snapshot.state is not None and equal(snapshot.state, net.state())
    assert equal(snapshot.state, full) is (steps == 10)


@pytest.mark.parametrize("until", ["0it", "11it", "3ep", "110%"])
def test_an_end_outside_the_run_is_refused(digits: DataSet, one_line: Message, until: str) -> None:
    message = one_line(lambda: after(small_net(), digits, until=Step.parse(until)))
    assert f"'{until}'" in message and "10 iterations" in message


def test_an_empty_set_and_a_length_of_zero_are_refused(digits: DataSet, one_line: Message) -> None:
    nobody = digits.train.select(torch.arange(0))
    message = one_line(lambda: train(small_net(), nobody, digits, SGD, seed=(0,)))
    assert message.startswith("train: 0 images")
    for length in ("0ep", "0it", "0.01ep"):
        short = SGD.model_copy(update={"length": Step.parse(length)})
        message = one_line(lambda short=short: after(small_net(), digits, short))  # type: ignore[misc]
        assert "recipe.length" in message and f"'{length}'" in message and "at least 1" in message


# --- observers


def test_a_snapshot_is_taken_after_exactly_that_many_steps(digits: DataSet) -> None:
    record, snapshots = Record(), [Snapshot(Step.parse(t)) for t in ("1it", "1ep", "80%", "99it")]
    net = small_net()
    after(net, digits, observers=[record, *snapshots])
    names = dict(net.model.named_parameters())
    for snapshot, step in zip(snapshots, (1, 5, 8), strict=False):
        assert snapshot.state is not None
        flat = torch.cat([snapshot.state[name].flatten() for name in names])
        assert torch.equal(flat, record.weights[step - 1])
        assert snapshot.state["body.bn1.num_batches_tracked"] == step
    assert snapshots[3].state is None


def test_keep_best_keeps_the_first_of_equally_good_epochs(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.7, 0.7, 0.6])
    monkeypatch.setattr(training_observers, "evaluate", lambda *_: Score(0.0, next(accuracies), 1))
    best, snapshot = KeepBest(digits.validation, digits), Snapshot(Step(2, "ep"))
    recipe = SGD.model_copy(update={"length": Step(4, "ep")})
    after(small_net(), digits, recipe, observers=[best, snapshot])
    assert (best.epoch, best.accuracy) == (1, 0.7)
    assert snapshot.state is not None and equal(best.state, snapshot.state)


def test_keep_best_and_track_score_their_images_in_eval_mode(digits: DataSet) -> None:
    best, track = KeepBest(digits.validation, digits), Track(digits.test, digits)
    net = small_net()
    with_observers = after(net, digits, observers=[best, track])
    assert equal(with_observers, after(small_net(), digits))  # looking changes nothing
    final = evaluate(net, digits.test, Batches(digits.test, digits))
    assert len(track.scores) == 2 and track.scores[1] == final
    net.rewind(best.state)
    score = evaluate(net, digits.validation, Batches(digits.validation, digits))
    assert score.accuracy == best.accuracy and score.n == 50


def test_an_observer_can_stop_the_training(digits: DataSet) -> None:
    class StopAfter(Observer):
        def after_epoch(self, run: Run) -> bool:
            return run.history[-1].epoch == 1

    recipe = SGD.model_copy(update={"length": Step(5, "ep")})
    record = Record()
    for observers in ([StopAfter(), record], [record, StopAfter()]):
        record.__init__()  # type: ignore[misc]
        net = small_net()
        history = train(net, digits.train, digits, recipe, seed=(0,), observers=observers)
        assert len(history) == 2 and len(record.indices) == 10
        assert not net.model.training


def test_an_observer_may_edit_gradients(digits: DataSet) -> None:
    class Freeze(Observer):
        """No gradient for the first half of the flat buffer."""

        def before_step(self, run: Run) -> None:
            assert run.net.grads.any()
            run.net.grads[: len(run.net.grads) // 2] = 0

    net = small_net()
    start, half = net.weights.clone(), len(net.weights) // 2
    after(net, digits, SGD.model_copy(update={"weight_decay": 0.0}), observers=[Freeze()])
    assert torch.equal(net.weights[:half], start[:half])
    assert (net.weights[half:] != start[half:]).float().mean() > 0.9


def test_an_observer_may_edit_weights_after_the_step(digits: DataSet) -> None:
    class Clamp(Observer):
        def after_step(self, run: Run) -> None:
            run.net.weights.clamp_(-0.01, 0.01)

    net = small_net()
    after(net, digits, observers=[Clamp()])
    assert max(p.abs().max() for p in net.model.parameters()) <= 0.01


# --- averages and evaluation


def test_a_meter_equals_direct_averages() -> None:
    random = torch.Generator().manual_seed(0)
    meter = Meter(torch.device("cpu"))
    for _ in range(2):  # reading starts afresh
        losses, hits = [], []
        for n in (7, 7, 3):
            logits = torch.randn(n, 4, generator=random)
            labels = torch.randint(4, (n,), generator=random)
            meter.add(F.cross_entropy(logits, labels), logits.argmax(1) == labels)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            hits.append(logits.argmax(1) == labels)
        (loss, correct), count = meter.take()
        assert float(loss) / 17 == pytest.approx(float(torch.cat(losses).mean()))
        assert float(correct) == float(torch.cat(hits).sum()) and count == 17


def test_the_history_averages_over_images_not_batches(digits: DataSet) -> None:
    record = Record()
    recipe = SGD.model_copy(update={"batch": 64})
    history = train(small_net(), digits.train, digits, recipe, seed=(0,), observers=[record])
    sizes = [len(index) for index in record.indices]
    for epoch, found in enumerate(history):
        here = slice(4 * epoch, 4 * epoch + 4)
        losses = [n * loss for n, loss in zip(sizes[here], record.losses[here], strict=True)]
        expected = Epoch(epoch, 4 * epoch + 4, sum(losses) / 200, sum(record.hits[here]) / 200)
        assert found.loss == pytest.approx(expected.loss)
        assert found.accuracy == pytest.approx(expected.accuracy)
    assert history[1].loss < history[0].loss  # it learns


def test_evaluation_uses_running_statistics_and_restores_the_mode(digits: DataSet) -> None:
    net = small_net()
    after(net, digits)
    before, batches = net.state(), Batches(digits.test, digits)
    net.model.train()
    score = evaluate(net, digits.test, batches)
    assert net.model.training and equal(before, net.state()) and score.n == 100
    net.model.eval()
    logits = net.model(batch(digits.test, torch.arange(100), digits)).detach()
    assert score.accuracy == pytest.approx(
        float((logits.argmax(1) == digits.test.y).float().mean())
    )
    assert score.loss == pytest.approx(float(F.cross_entropy(logits, digits.test.y)), rel=1e-5)
    few = [predict(net, digits.test, batches, batch=n) for n in (7, 500)]
    assert torch.allclose(few[0], few[1], atol=1e-5) and few[0].shape == (100, 10)
    assert not few[0].requires_grad


def test_training_learns_and_the_score_is_on_the_given_images(digits: DataSet) -> None:
    net = small_net()
    recipe = RECIPES["adam"].model_copy(update={"length": Step(12, "ep")})
    after(net, digits, recipe)
    test = evaluate(net, digits.test, Batches(digits.test, digits))
    assert test.accuracy > 0.6
    wrong = Images(digits.test.x, (digits.test.y + 1) % 10)
    assert evaluate(net, wrong, Batches(wrong, digits)).accuracy < 1 - test.accuracy + 1e-6


def test_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("length", "rewind", "named"),
    [
        ("50%", "0it", "recipe.length: '50%' is a share, allowed is a length in 'ep' or 'it'"),
        ("0.1ep", "0it", "recipe.length: '0.1ep' is 0 iterations, at least 1 is needed"),
        ("2ep", "3ep", "rewind: '3ep' is beyond the run of 6 iterations"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(
    one_line: Message, length: str, rewind: str, named: str
) -> None:
    recipe = Recipe(batch=40, length=length)
    assert one_line(lambda: recipe.check(100, Step.parse(rewind))) == named
