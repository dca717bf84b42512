"""The architectures: counts from the dossiers, determinism, heads, prunable rules, errors."""

import copy
from functools import cache
from typing import get_args

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import Tensor, nn

from ticketlab.models import (
    INITS,
    MODELS,
    RULES,
    ModelSpec,
    build,
    check,
    flops,
    head,
    prunable,
    with_head,
)
from ticketlab.models.registry import Init
from ticketlab.models.residual import BasicBlock
from ticketlab.spec import InputError

RGB, FASHION, DESK, TINY = (3, 32, 32), (1, 28, 28), (1, 14, 14), (3, 64, 64)

# Every architecture on a small image, narrow where that is possible.
SMALL: dict[str, tuple[dict, tuple[int, int, int]]] = {
    "lenet_300_100": ({}, (1, 7, 5)),
    "mlp": ({"width": 8, "depth": 2}, (2, 1, 1)),
    "conv2": ({"width": 4}, (3, 9, 8)),
    "conv4": ({"width": 4}, (3, 8, 8)),
    "conv6": ({"width": 4}, (3, 8, 8)),
    "conv3": ({"width": 4}, DESK),
    "conv3_strided": ({}, DESK),
    "resnet8": ({"width": 8}, (1, 7, 7)),
    "resnet20": ({"width": 4}, (3, 8, 8)),
    "resnet56": ({"width": 4}, (3, 8, 8)),
    "resnet18": ({}, (3, 8, 8)),
    "resnet18_imagenet": ({}, (3, 32, 32)),
    "vgg16": ({"width": 4}, (3, 16, 16)),
    "vgg16_bn": ({"width": 4}, (3, 28, 28)),
    "mobilenet_v2": ({}, (3, 8, 8)),
}


def small(name: str, classes: int = 3, seed: int = 0, **options: object) -> nn.Module:
    defaults, shape = SMALL[name]
    return build(ModelSpec(name=name, **{**defaults, **options}), shape, classes, seed)


def outline(shape: tuple[int, int, int], classes: int, **spec: object) -> nn.Module:
    """A network of full size without storage, for tests that only count."""
    with torch.device("meta"):
        return build(ModelSpec(**spec), shape, classes, seed=0)


@cache
def shared(name: str) -> nn.Module:
    """One `small` network for the tests that only look at it."""
    return small(name).eval()


def images(name: str, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *SMALL[name][1], generator=generator)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks have the same names, shapes and bits."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def count(model: nn.Module, names: tuple[str, ...]) -> int:
    return sum(model.get_parameter(name).numel() for name in names)


def test_every_architecture_is_tried() -> None:
    assert SMALL.keys() == MODELS.keys()


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "rule", "expected"),
    [
        # LTH figure 2 (sizes) and PrAC 5.2, recipe A
        ({"name": "lenet_300_100"}, FASHION, 10, "conv_linear", 266_200),
        ({"name": "lenet_300_100"}, FASHION, 10, "hidden", 265_200),
        ({"name": "conv2"}, RGB, 10, "conv", 38_592),
        ({"name": "conv2"}, RGB, 10, "conv_linear", 4_300_992),
        ({"name": "conv4"}, RGB, 10, "conv", 259_776),
        ({"name": "conv4"}, RGB, 10, "conv_linear", 2_425_024),
        ({"name": "conv6"}, RGB, 10, "conv", 1_144_512),
        ({"name": "conv6"}, RGB, 10, "conv_linear", 2_261_184),
        # COLT section 3 and 5.2
        ({"name": "conv3"}, RGB, 10, "conv", 370_368),
        ({"name": "conv3", "width": 16, "conv_bias": False}, DESK, 5, "conv", 23_184),
        ({"name": "conv3", "width": 32, "conv_bias": False}, DESK, 5, "conv", 92_448),
        ({"name": "resnet18"}, RGB, 10, "conv", 11_159_232),
        ({"name": "mobilenet_v2"}, RGB, 10, "conv", 2_190_016),
        # PrAC 2.0 and 5.2, recipe B
        ({"name": "resnet20"}, RGB, 10, "conv", 267_696),
        ({"name": "resnet56"}, RGB, 10, "conv", 848_304),
        ({"name": "vgg16_bn"}, RGB, 10, "conv", 14_710_464),
        ({"name": "resnet18_imagenet"}, TINY, 200, "conv", 11_166_912),
        ({"name": "conv3_strided"}, FASHION, 10, "conv", 5_960),
        ({"name": "conv3_strided", "width": 16}, FASHION, 10, "conv", 23_440),
        # DLTH 2.2
        ({"name": "resnet56"}, RGB, 10, "inner", 847_872),
        ({"name": "resnet56"}, RGB, 10, "conv_linear", 848_944),
        ({"name": "resnet56"}, RGB, 100, "conv_linear", 854_704),
        # Plant 'n' Seek 2.9, and 2.3: width-100 mothers without their 404 or 401 biases
        ({"name": "vgg16"}, RGB, 10, "conv_linear", 14_715_584),
        ({"name": "mlp", "width": 100, "depth": 3}, (2, 1, 1), 4, "conv_linear", 20_904 - 304),
        ({"name": "mlp", "width": 100, "depth": 3}, (1, 1, 1), 1, "conv_linear", 20_501 - 301),
    ],
)
def test_prunable_weights_are_the_papers(
    spec: dict, shape: tuple[int, int, int], classes: int, rule: str, expected: int
) -> None:
    net = outline(shape, classes, **spec)
    assert count(net, prunable(net, rule)) == expected


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("conv3", {5: 372_096, 10: 373_376, 50: 383_616, 100: 396_416}),
        ("resnet18", {5: 11_166_592, 10: 11_169_152, 100: 11_215_232, 200: 11_266_432}),
        ("mobilenet_v2", {5: 2_213_504, 10: 2_219_904, 50: 2_271_104, 100: 2_335_104}),
    ],
)
def test_colt_counted_totals(name: str, counts: dict[int, int]) -> None:
    counted = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    for classes, expected in counts.items():
        net = outline(RGB, classes, name=name)
        total = sum(m.weight.numel() for m in net.modules() if isinstance(m, counted))
        assert total == expected


def test_vgg16_biases_as_plant_n_seek() -> None:
    net = outline(RGB, 10, name="vgg16")
    assert sum(p.numel() for name, p in net.named_parameters() if name.endswith("bias")) == 4_234


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(
    ("name", "shape", "classes", "mflops"),
    [
        ("lenet_300_100", FASHION, 10, 1.13),
        ("conv2", RGB, 10, 259),
        ("conv4", RGB, 10, 586),
        ("conv6", RGB, 10, 920),
        ("resnet20", RGB, 10, 244),
        ("resnet18", RGB, 10, 3329),
        ("resnet18_imagenet", TINY, 200, 870),
        ("vgg16_bn", RGB, 10, 1876),
    ],
)
def test_flops_are_those_counted_by_dispatch(
    name: str, shape: tuple[int, int, int], classes: int, mflops: float
) -> None:
    """Measured before: forward and backward, which needs no gradient of the images.

    (That ResNet-20 had 1x1 shortcuts, 0.7 % more.)
    """
    net = outline(shape, classes, name=name)
    everything = prunable(net, "conv_linear")
    first = flops(net, shape, {weight: 0.0 for weight in everything[1:]})
    assert (3 * flops(net, shape) - first) / 1e6 == pytest.approx(mflops, rel=0.01)


def test_flops_follow_density_layer_by_layer() -> None:
    net = small("lenet_300_100")
    shape = SMALL["lenet_300_100"][1]
    assert flops(net, shape) == 2 * (35 * 300 + 300 * 100 + 100 * 3)
    sparse = {"body.fc1.weight": 0.1, "body.fc2.weight": 0.0}
    assert flops(net, shape, sparse) == 2 * (35 * 30 + 100 * 3)


def test_flops_leave_the_network_alone() -> None:
    net, before = small("conv3"), small("conv3")
    flops(net, DESK)
    assert same(net, before)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_flops_refuse_an_unknown_weight() -> None:
    with pytest.raises(InputError, match=r"body\.conv9\.weight"):
        flops(small("conv3"), DESK, {"body.conv9.weight": 0.5})


# ---------------------------------------------------------------- forward and backward


@pytest.mark.parametrize("name", MODELS)
def test_a_step_reaches_every_weight(name: str) -> None:
    net, x = small(name), images(name)
    before = x.clone()
    out = net(x)
    assert out.shape == (2, 3)
    nn.functional.cross_entropy(out, torch.tensor([0, 2])).backward()
    assert torch.equal(x, before)
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_gives_the_same_logits(name: str) -> None:
    net, x = shared(name), images(name)
    with torch.no_grad():
        expected = net(x)
        out = copy.deepcopy(net).to(memory_format=torch.channels_last)(
            x.to(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-4)


def test_residual_blocks_keep_channels_last() -> None:
    net = build(ModelSpec(name="resnet8"), RGB, 10, seed=0)
    net = net.to(memory_format=torch.channels_last)
    kept = []
    for block in net.modules():
        if isinstance(block, BasicBlock):
            block.register_forward_hook(
                lambda _, __, out: kept.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    net(torch.randn(2, *RGB).to(memory_format=torch.channels_last))
    assert kept == [True] * 3


def test_the_gradient_of_a_shortcut_keeps_channels_last() -> None:
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    out = BasicBlock(4, 8, stride=2).shortcut(x)
    (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
    assert grad.is_contiguous(memory_format=torch.channels_last)


def test_no_graph_breaks() -> None:
    net, x = shared("resnet8"), images("resnet8")
    torch.compiler.reset()
    with torch.no_grad():
        assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))


@pytest.mark.parametrize("name", MODELS)
def test_deepcopy_is_an_equal_and_separate_network(name: str) -> None:
    net = shared(name)
    copied = copy.deepcopy(net)
    assert same(net, copied)
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert not same(net, copied)


def test_batch_norm_hooks_see_their_own_output() -> None:
    """Networks overwrite no activation that an observer may have kept."""
    net, seen = small("resnet18"), []
    net.get_submodule("body.bn1").register_forward_hook(lambda _, __, out: seen.append(out))
    net(images("resnet18"))
    assert (seen[0] < 0).any()


# ---------------------------------------------------------------- the very same networks


def test_resnet18_imagenet_is_torchvisions() -> None:
    net = build(ModelSpec(name="resnet18_imagenet"), (3, 32, 32), 7, seed=0).eval()
    peer = torchvision.models.resnet18(weights=None, num_classes=7).eval()
    names = {f"body.{k}".replace("body.fc", "head"): v for k, v in peer.state_dict().items()}
    net.load_state_dict(names)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net(x), peer(x))


def test_vgg16_bn_is_torchvisions_without_the_last_pool() -> None:
    net = build(ModelSpec(name="vgg16_bn"), RGB, 10, seed=0).eval()
    plan = torchvision.models.vgg.cfgs["D"][:-1]
    peer = torchvision.models.vgg.make_layers(plan, batch_norm=True).eval()
    weights = zip(peer.state_dict(), net.body.state_dict().values(), strict=True)
    peer.load_state_dict(dict(weights))
    x = torch.randn(2, *RGB)
    torch.testing.assert_close(net(x), net.head(peer(x).mean(dim=(2, 3))))


@pytest.mark.parametrize(("channels", "width"), [(4, 8), (3, 6), (5, 10)])
def test_option_a_shortcut_subsamples_and_pads(channels: int, width: int) -> None:
    block, x = BasicBlock(channels, width, stride=2), torch.randn(2, channels, 7, 5)
    out = block.shortcut(x)
    left = (width - channels) // 2
    assert out.shape == (2, width, 4, 3) == block.conv1(x).shape
    assert torch.equal(out[:, left : left + channels], x[:, :, ::2, ::2])
    assert out.count_nonzero() == x[:, :, ::2, ::2].count_nonzero()


def test_colt_stem_pads_a_pointwise_convolution() -> None:
    net = shared("mobilenet_v2")
    assert net.get_submodule("body.stem")(torch.randn(2, *RGB)).shape == (2, 32, 34, 34)


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("name", MODELS)
def test_seed_alone_decides_and_classes_only_the_head(name: str) -> None:
    state = torch.get_rng_state()
    first = small(name, classes=8)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    second, other = small(name, classes=8), small(name, seed=1)
    assert same(first, second)
    assert same(first.body, shared(name).body)  # which has 3 classes
    assert not any(
        torch.equal(first.get_parameter(k), other.get_parameter(k))
        for k in prunable(first, "hidden")
    )


@pytest.mark.parametrize("name", ["conv3", "resnet8", "vgg16_bn", "lenet_300_100"])
@pytest.mark.parametrize("init", [None, *INITS])
def test_with_head_is_what_build_would_draw(name: str, init: str | None) -> None:
    net = small(name, classes=5, seed=3, init=init)
    assert same(with_head(net, 10, seed=3), small(name, classes=10, seed=3, init=init))


def test_with_head_changes_nothing_else() -> None:
    net = small("resnet8").eval()
    net(images("resnet8"))
    before, state = copy.deepcopy(net), torch.get_rng_state()
    wider = with_head(net, 9, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(net, before)
    assert same(wider.body, net.body)
    assert not wider.head.training
    assert wider(images("resnet8")).shape == (2, 9)
    assert same(wider, with_head(net, 9, seed=7))
    assert not same(wider, with_head(net, 9, seed=8))
    assert not torch.equal(wider.head.weight[:3], net.head.weight)


def test_with_head_keeps_precision_and_any_network() -> None:
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False)).double()
    new = with_head(plain, 5, seed=0)
    assert new[2].weight.dtype == torch.float64
    assert new[2].bias is None
    assert new(torch.randn(3, 4, dtype=torch.float64)).shape == (3, 5)


def deviation(layer: nn.Module) -> float:
    return float(layer.weight.detach().std())


@pytest.mark.parametrize(
    ("init", "conv_std", "fc_std"),
    [
        # body.conv4 is 64 -> 64 channels of 3x3; body.fc1 has 4 * 4 * 64 inputs, 256 outputs
        ("default", (1 / 3 / 576) ** 0.5, (1 / 3 / 1024) ** 0.5),
        ("kaiming_normal", (2 / 576) ** 0.5, (2 / 1024) ** 0.5),
        ("xavier_normal", (2 / 1152) ** 0.5, (2 / 1280) ** 0.5),
        ("kaiming_fan_out", (2 / 576) ** 0.5, (1 / 3 / 1024) ** 0.5),
        ("vgg", (2 / 576) ** 0.5, 0.01),
    ],
)
def test_inits_have_their_deviation(init: str, conv_std: float, fc_std: float) -> None:
    net = build(ModelSpec(name="conv4", width=32, init=init), (3, 16, 16), 10, seed=0)
    assert deviation(net.get_submodule("body.conv4")) == pytest.approx(conv_std, rel=0.02)
    assert deviation(net.get_submodule("body.fc1")) == pytest.approx(fc_std, rel=0.02)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert all(b.any() for b in biases) == (init in ("default", "kaiming_normal"))


def test_fan_out_differs_from_fan_in_where_widths_do() -> None:
    net = build(ModelSpec(name="vgg16_bn", width=32), RGB, 10, seed=0)
    conv = net.get_submodule("body.conv8")
    assert (conv.in_channels, conv.out_channels) == (128, 256)
    assert deviation(conv) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert deviation(net.head) == pytest.approx(0.01, rel=0.05)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("lenet_300_100", "xavier_normal"),
        ("conv6", "xavier_normal"),
        ("conv3", "default"),
        ("resnet18", "default"),
        ("mobilenet_v2", "default"),
        ("resnet20", "kaiming_normal"),
        ("resnet56", "kaiming_normal"),
        ("resnet18_imagenet", "kaiming_fan_out"),
        ("vgg16_bn", "vgg"),
    ],
)
def test_each_paper_draws_in_its_own_way(name: str, init: str) -> None:
    assert shared(name).init == init


@pytest.mark.parametrize("name", ["conv3", "resnet8", "vgg16_bn", "resnet18"])
def test_batch_norm_starts_fresh(name: str) -> None:
    for layer in shared(name).modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.running_var == 1).all()
            assert not (layer.bias.any() or layer.running_mean.any())


def test_inits_named_in_the_spec_exist() -> None:
    assert set(get_args(Init)) == set(INITS) >= {a.init for a in MODELS.values()}


# ---------------------------------------------------------------- options


def test_conv_bias_is_an_option_of_conv3() -> None:
    assert small("conv3").get_submodule("body.conv1").bias is not None
    assert small("conv3", conv_bias=False).get_submodule("body.conv1").bias is None
    assert small("conv3_strided").get_submodule("body.conv1").bias is None
    assert small("conv3_strided", conv_bias=True).get_submodule("body.conv1").bias is not None


def test_mlp_has_depth_hidden_layers() -> None:
    net = small("mlp", depth=4)
    widths = [m.out_features for m in net.modules() if isinstance(m, nn.Linear)]
    assert widths == [8, 8, 8, 8, 3]


# ---------------------------------------------------------------- prunable weights


@pytest.mark.parametrize("name", MODELS)
def test_rules_nest_and_keep_model_order(name: str) -> None:
    net = shared(name)
    names = [k for k, _ in net.named_parameters()]
    by_rule = {rule: prunable(net, rule) for rule in RULES}
    for chosen in by_rule.values():
        assert list(chosen) == [k for k in names if k in chosen]
        assert all(net.get_parameter(k).dim() in (2, 4) for k in chosen)
    assert by_rule["hidden"] == by_rule["conv_linear"][:-1]
    assert by_rule["inner"] == by_rule["hidden"][1:]
    assert set(by_rule["conv"]) == {k for k in names if net.get_parameter(k).dim() == 4}


@pytest.mark.parametrize("name", MODELS)
def test_head_is_the_output_layer(name: str) -> None:
    net = shared(name)
    assert head(net) == "head"
    assert net.get_submodule(head(net)).out_features == 3
    assert prunable(net, "conv_linear")[-1] == "head.weight"


def test_inner_has_shortcuts_but_neither_stem_nor_head() -> None:
    names = prunable(shared("resnet18"), "inner")
    assert "body.layer2.0.downsample.0.weight" in names
    assert not {"body.conv1.weight", "head.weight"} & set(names)


# ---------------------------------------------------------------- bad input


def test_unknown_model_names_the_key_the_value_and_the_allowed() -> None:
    with pytest.raises(InputError) as error:
        build(ModelSpec.model_construct(name="resnet19"), RGB, 10, seed=0)
    message = str(error.value)
    assert "model.name" in message and "resnet19" in message and "\n" not in message
    assert all(name in message for name in MODELS)
    with pytest.raises(ValidationError, match=f"allowed: {', '.join(MODELS)}, or"):
        ModelSpec(name="resnet19")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"name": "resnet18", "width": 32}, "model.width = 32"),
        ({"name": "conv3", "depth": 3}, "model.depth = 3"),
        ({"name": "resnet20", "conv_bias": False}, "model.conv_bias = False"),
    ],
)
def test_an_option_the_model_lacks_is_refused(options: dict, key: str) -> None:
    with pytest.raises(InputError, match=f"^{key}: .*only .* do$"):
        check(ModelSpec(**options))


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": True}, {"depth": 1.5}, {"init": "he"}, {"wide": 2}]
)
def test_wrong_types_and_ranges_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(name="mlp", **options)


@pytest.mark.parametrize(("name", "size"), [("conv2", 2), ("conv4", 4), ("conv6", 8), ("conv3", 8)])
def test_images_too_small_for_the_pools(name: str, size: int) -> None:
    with pytest.raises(InputError, match=f"{name}.*{size - 1}x32 .*at least {size}x{size}"):
        build(ModelSpec(name=name), (3, size - 1, 32), 10, seed=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_image_fits(name: str) -> None:
    size = MODELS[name].smallest
    net = build(ModelSpec(name=name, **SMALL[name][0]), (1, size, size), 2, seed=0).eval()
    assert net(torch.randn(2, 1, size, size)).shape == (2, 2)


def test_no_classes_is_refused() -> None:
    with pytest.raises(InputError, match="classes = 0"):
        build(ModelSpec(name="conv3"), RGB, 0, seed=0)


def test_unknown_rule_names_the_allowed() -> None:
    with pytest.raises(InputError, match=r"prunable = 'convs': .*conv, conv_linear, hidden, inner"):
        prunable(shared("conv3"), "convs")


def test_a_network_without_linear_has_no_head() -> None:
    with pytest.raises(InputError, match="has no Linear layer"):
        head(nn.Conv2d(1, 2, 3))
