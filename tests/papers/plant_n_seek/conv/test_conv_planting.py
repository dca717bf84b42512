"""A convolutional ticket, planted: exact up to one positive factor, in shuffled channels."""

from collections.abc import Callable

import pytest
import torch
from conftest import Message
from torch import Tensor
from torch.func import functional_call

from ticketlab import models
from ticketlab.papers.plant_n_seek.algorithm import planting
from ticketlab.papers.plant_n_seek.conv.planting import (
    PlantedChain,
    bias_of,
    chain_connected,
    chain_deviations,
    chain_mother,
    check_chain,
    plant_chain,
)
from ticketlab.pruning import masks, saliency
from ticketlab.pruning.masks import Mask, State

SHAPE = (1, 16, 16)


def chain(
    width: int, seed: int, name: str = "vgg16"
) -> tuple[State, tuple[str, ...], Callable[[State, Tensor], Tensor]]:
    """A chain without batch-norm in float64: its state, its weights' names, its function."""
    spec = models.ModelSpec(name=name, width=width, init="kaiming_normal")
    model = models.build(spec, SHAPE, 10, seed).double()
    state = {name: tensor.detach() for name, tensor in model.named_parameters()}
    names = models.prunable(model, "conv_linear")
    return state, names, lambda weights, x: functional_call(model, dict(weights), (x,))


def sparse(state: State, names: tuple[str, ...], density: float = 0.3) -> State:
    """The net with its smallest weights removed layer by layer, and some biases."""
    kept = {}
    for name in names:
        keep = saliency.kept_at(state[name].numel(), density)
        kept |= masks.keep_top({name: state[name].abs()}, keep)
    return {n: w * kept[n] if n in kept else w * (w > -0.05) for n, w in state.items()}


def planted(seed: int = 0) -> tuple[PlantedChain, State, tuple[str, ...]]:
    small, names, _ = chain(2, 1)
    mother, _, _ = chain(5, 2)
    ticket = sparse(small, names)
    return plant_chain(ticket, mother, names, torch.Generator().manual_seed(seed)), ticket, names


def test_the_planted_ticket_is_the_ticket_up_to_one_positive_factor() -> None:
    found, ticket, _ = planted()
    x = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted, ours = chain(2, 1)[2](ticket, x), chain(5, 2)[2](found.ticket(), x)
    assert found.factor > 0 and float(wanted.std(0).max()) > 0
    assert float((ours / found.factor - wanted).abs().max() / wanted.abs().max()) < 1e-6
    assert found.mask.alive == sum(int((tensor != 0).sum()) for tensor in ticket.values())


def test_channels_move_and_the_rest_of_the_mother_stays() -> None:
    found, _, _ = planted()
    mother = chain(5, 2)[0]
    for name, weight in found.weights.items():
        assert torch.equal(weight[~found.mask[name]], mother[name][~found.mask[name]])
    hidden = [places.tolist() for places in found.places[1:-1]]
    assert any(places != sorted(places) for places in hidden)
    assert found.places[-1].tolist() == list(range(10))
    other = planted(1)[0]
    assert [p.tolist() for p in other.places[1:-1]] != hidden


def test_planted_filters_are_as_large_as_what_they_replace() -> None:
    found, _, names = planted()
    mother = chain(5, 2)[0]
    name = names[3]
    inside = found.mask[name]
    assert float(found.weights[name][inside].abs().max()) < 6 * float(mother[name].std())


def test_a_negative_factor_is_refused_for_relu_would_lose_the_channel(one_line: Message) -> None:
    _, ticket, names = planted()
    x = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = names[:2]
    turned = dict(ticket) | {first: -ticket[first], second: -ticket[second]}
    bias = first.removesuffix("weight") + "bias"
    turned[bias] = -ticket[bias]
    function = chain(2, 1)[2]
    assert not torch.allclose(function(turned, x), function(ticket, x))
    assert "positive" in one_line(lambda: planting.check_factors(torch.tensor([0.5, -0.5])))


@pytest.mark.parametrize("width", [1])
def test_a_narrow_mother_is_one_line(width: int, one_line: Message) -> None:
    _, ticket, names = planted()
    narrow = chain(width, 0)[0]
    refusal = one_line(lambda: plant_chain(ticket, narrow, names, torch.Generator()))
    assert "mother" in refusal and names[0] in refusal
    reverse = tuple(reversed(names))
    assert "not a chain" in one_line(
        lambda: plant_chain(ticket, chain(5, 2)[0], reverse, torch.Generator())
    )


@pytest.mark.parametrize("name", ["conv2", "conv6", "vgg16"])
def test_chains_may_flatten_their_images(name: str) -> None:
    """Conv-6 has linear layers after its images: each channel is several inputs of the first."""
    small, names, function = chain(2, 1, name)
    mother, _, wide = chain(5, 2, name)
    ticket = sparse(small, names, 0.5)
    found = plant_chain(ticket, mother, names, torch.Generator().manual_seed(0))
    x = torch.randn(10, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted, ours = function(ticket, x), wide(found.ticket(), x) / found.factor
    assert float(wanted.std(0).max()) > 0 and found.factor > 0
    assert float((ours - wanted).abs().max() / wanted.abs().max()) < 1e-6
    assert found.mask.alive == sum(int((tensor != 0).sum()) for tensor in ticket.values())


def test_the_mother_is_he_scaled_with_biases_that_shrink() -> None:
    like, names, _ = chain(8, 0)
    scales = chain_deviations(like, names)
    drawn = chain_mother(like, names, torch.Generator().manual_seed(0))
    assert list(drawn) == [part for name in names for part in (name, bias_of(name))]
    for name in names[3:]:
        assert float(drawn[name].std()) == pytest.approx(scales[name], rel=0.15)
    assert scales[bias_of(names[0])] == pytest.approx(0.06 * (2 / 9) ** 0.5)
    biases = [scales[bias_of(name)] for name in names]
    assert biases == sorted(biases, reverse=True)


def test_entries_off_every_path_are_not_connected() -> None:
    state, names, _ = chain(2, 0, "conv2")
    full = Mask({name: torch.ones_like(w, dtype=torch.bool) for name, w in state.items()})
    assert chain_connected(full, names) == full
    second, third = names[1], names[2]
    layers = {name: keep.clone() for name, keep in full.items()}
    layers[second][0] = False  # nothing comes into this channel
    live = chain_connected(Mask(layers), names)
    pixels = layers[third].shape[1] // 2
    assert not bool(live[third][:, :pixels].any()) and bool(live[third][:, pixels:].all())
    assert bool(live[bias_of(second)].all())  # an output still sees its bias
    layers = {name: keep.clone() for name, keep in full.items()}
    layers[third][:, pixels:] = False  # no output sees the other
    live = chain_connected(Mask(layers), names)
    assert not bool(live[second][1].any()) and not bool(live[bias_of(second)][1])
    layers[second][:] = False
    assert not bool(chain_connected(Mask(layers), names)[names[0]].any())


def test_what_is_no_chain_is_refused(one_line: Message) -> None:
    for name in ("vgg16_bn", "resnet8", "conv3"):
        model = models.build(models.ModelSpec(name=name), SHAPE, 10, 0)
        state, names = dict(model.named_parameters()), models.prunable(model, "conv_linear")
        refusal = one_line(lambda s=state, n=names, m=name: check_chain(s, n, m))
        assert repr(name) in refusal and "vgg16" in refusal
    for name in ("vgg16", "conv2", "conv4", "conv6"):
        model = models.build(models.ModelSpec(name=name, width=2), SHAPE, 10, 0)
        names = models.prunable(model, "conv_linear")
        check_chain(dict(model.named_parameters()), names, name)
