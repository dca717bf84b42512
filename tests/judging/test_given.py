"""A mask from a file is matched to the network by name and shape, with the weights of its file."""

import pickle
from pathlib import Path

import pytest
import torch
from conftest import Message
from torch import nn
from torch.nn.utils import prune

from ticketlab import models
from ticketlab.judging import given
from ticketlab.pruning.masks import Mask, State
from ticketlab.tickets import outside
from ticketlab.tickets.ticket import make_ticket, save_ticket


def net(seed: int = 0) -> nn.Module:
    spec = models.ModelSpec(name="conv3", width=4, conv_bias=False)
    return models.build(spec, (1, 14, 14), 10, seed)


def some_mask(density: float = 0.3) -> Mask:
    """A mask of all convolutions."""
    random, model = torch.Generator().manual_seed(1), net()
    shapes = {n: model.get_parameter(n).shape for n in models.prunable(model, "conv")}
    return Mask({n: torch.rand(s, generator=random) < density for n, s in shapes.items()})


def saved(tmp_path: Path, tensors: object) -> str:
    torch.save(tensors, tmp_path / "mask.pt")
    return str(tmp_path / "mask.pt")


# --- what comes with a mask


def test_a_mapping_of_masks_has_no_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, outside.as_form(some_mask(), None, "masks"))
    found = given.load(path, net())
    assert found.mask == some_mask() and found.weights is None and found.start == "none"
    assert list(found.sha256) == ["mask.pt"] and found.name == "mask.pt"


def test_weights_under_the_mask_and_all_weights_are_told_apart(tmp_path: Path) -> None:
    """PyTorch's NAME_orig has the values of removed weights, too; a plain state_dict has not."""
    model, mask = net(3), some_mask()
    for name, keep in mask.items():
        prune.custom_from_mask(model.get_submodule(name.removesuffix(".weight")), "weight", keep)
    whole = given.load(saved(tmp_path, model.state_dict()), net())
    assert whole.start == "all" and whole.weights is not None
    assert all(torch.equal(whole.weights[n], t) for n, t in net(3).state_dict().items())
    kept = given.load(saved(tmp_path, outside.as_form(mask, whole.weights, "state_dict")), net())
    assert kept.start == "kept" and kept.mask == whole.mask == mask


def test_a_second_file_gives_a_mask_its_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, outside.as_form(some_mask(), None, "masks"))
    torch.save({"state_dict": net(5).state_dict()}, tmp_path / "init.pt")
    found = given.load(path, net(), weights=tmp_path / "init.pt")
    assert found.start == "all" and list(found.sha256) == ["mask.pt", "init.pt"]
    assert found.weights is not None
    assert all(torch.equal(found.weights[n], t) for n, t in net(5).state_dict().items())


def test_a_ticket_of_ours_is_read_from_its_file(tmp_path: Path) -> None:
    ticket = make_ticket(some_mask(), dict(net(2).state_dict()))
    save_ticket(ticket, tmp_path / "ticket.safetensors")
    found = given.load(str(tmp_path / "ticket.safetensors"), net())
    assert found.mask == some_mask() and found.start == "kept"


def test_state_of_batch_norm_may_be_missing() -> None:
    weights = dict(net(4).named_parameters())
    found = given.fitted_weights({n: p.detach() for n, p in weights.items()}, net(), {})
    assert found.keys() == net().state_dict().keys()
    assert all(torch.equal(found[name], p) for name, p in weights.items())


# --- names


def without_body(state: State) -> State:
    return {name.removeprefix("body."): tensor for name, tensor in state.items()}


def test_names_match_without_our_prefix_and_by_the_parameters(tmp_path: Path) -> None:
    masks = without_body(outside.as_form(some_mask(), None, "masks"))
    assert given.load(saved(tmp_path, masks), net()).mask == some_mask()
    first = next(iter(masks))
    theirs = {"stem.weight" if name == first else name: t for name, t in masks.items()}
    found = given.load(saved(tmp_path, theirs), net(), {"stem.weight": first})
    assert found.mask == some_mask()


def test_a_mask_of_ones_of_a_bias_is_left_out() -> None:
    more = Mask({**some_mask(), "head.bias": torch.ones(10, dtype=torch.bool)})
    assert given.fitted_mask(more, net(), {}) == some_mask()


# --- refusals


def bits(*shape: int) -> torch.Tensor:
    keep = torch.ones(shape, dtype=torch.bool)
    keep.view(-1)[0] = False
    return keep


FIRST = next(iter(some_mask()))


@pytest.mark.parametrize(
    ("mask", "names", "why"),
    [
        ({"stem.weight": bits(4, 1, 3, 3)}, {}, "layer 'stem.weight' is not in the network"),
        ({FIRST: bits(4, 2, 3, 3)}, {}, f"'{FIRST}' has shape (4, 2, 3, 3), not (4, 1, 3, 3)"),
        ({"head.bias": bits(10)}, {}, "'head.bias' is no weight of a convolution or a linear"),
        ({FIRST: torch.ones(4, 1, 3, 3, dtype=torch.bool)}, {}, "removes none of 36 weights"),
        ({FIRST: bits(4, 1, 3, 3), "a": bits(4, 1, 3, 3)}, {"a": FIRST}, "two layers of the file"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_line(
    mask: State, names: dict[str, str], why: str, one_line: Message
) -> None:
    assert why in one_line(lambda: given.fitted_mask(Mask(mask), net(), names))


def test_weights_under_another_name_say_what_names_may_map(one_line: Message) -> None:
    state = {n.replace("head.bias", "fc.bias"): t for n, t in net().state_dict().items()}
    assert "`names` may map 'fc.bias' to it" in one_line(
        lambda: given.fitted_weights(state, net(), {})
    )
    assert given.fitted_weights(state, net(), {"fc.bias": "head.bias"}).keys() >= {"head.bias"}


def changed(name: str, value: torch.Tensor | None) -> State:
    state = dict(net().state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("head.bias", None, "'head.bias' is missing, needed are all"),
        ("head.bias", torch.zeros(3), "'head.bias' has shape (3,), not (10,)"),
        ("head.bias", torch.full((10,), torch.inf), "'head.bias' has values that are not finite"),
        ("tail.bias", torch.zeros(3), "'tail.bias' is not in the network; it has body."),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    name: str, value: torch.Tensor | None, why: str, one_line: Message
) -> None:
    message = one_line(lambda: given.fitted_weights(changed(name, value), net(), {}))
    assert message.startswith("weights: ") and why in message


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("role", ["mask", "weights"])
def test_no_code_of_a_file_is_run(tmp_path: Path, role: str, one_line: Message) -> None:
    evil, ran = tmp_path / "evil.pt", tmp_path / "ran"
    if role == "mask":
        evil.write_bytes(pickle.dumps(Payload(ran)))
        message = one_line(lambda: given.load(str(evil), net()))
    else:
        torch.save(Payload(ran), evil)
        path = saved(tmp_path, outside.as_form(some_mask(), None, "masks"))
        message = one_line(lambda: given.load(path, net(), weights=evil))
    assert "torch.save(model.state_dict(), PATH)" in message and not ran.exists()
