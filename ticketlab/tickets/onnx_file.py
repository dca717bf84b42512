"""A ticket as an ONNX network whose pruned weights are sparse tensors, and back again.

A sparse tensor has the kept weights alone, with their places: a file is as much smaller as the
ticket is, and a kept weight that is 0 by itself is distinct from a removed one. Programs that run
ONNX see the removed weights as exactly 0. Read again, kept weights and all others are the same bit
for bit. Needs the packages of the extra `onnx`.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ticketlab.files import write_atomically
from ticketlab.pruning.masks import Mask, State
from ticketlab.spec import InputError
from ticketlab.tickets.ticket import Ticket

KEY = "ticketlab"
"""The entry of the file's metadata with the ticket's own, and what the graph does not have."""
NEEDS = "pip install 'ticketlab[onnx]'"


@contextmanager
def _packages() -> Iterator[Any]:
    """Yield the package onnx; InputError if it, or what PyTorch exports with, is missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"onnx: the package {error.name} is missing: {NEEDS}") from None
    with warnings.catch_warnings():  # of the exporter, about its own future
        warnings.simplefilter("ignore")
        yield onnx


# ---------------------------------------------------------------- writing


def write(path: Path, ticket: Ticket) -> None:
    """Write the network at the ticket's weights, for any number of images.

    InputError for a ticket without weights or architecture, and if a package is missing.
    """
    network = ticket.model().eval()
    with _packages() as onnx:
        proto = _exported(network, tuple(ticket.metadata["shape"]))
        inside = {one.name for one in proto.graph.initializer}
        state = network.state_dict()
        rest = {name: int(t) for name, t in state.items() if name not in inside and not t.dim()}
        if lost := set(state) - inside - set(rest):
            raise InputError(f"onnx: the export has no weights {min(lost)!r} of this network")
        for name, keep in ticket.mask.items():
            _make_sparse(onnx, proto.graph, name, keep)
        facts = {"metadata": dict(ticket.metadata), "names": list(state), "rest": rest}
        text = json.dumps(facts, sort_keys=True)
        onnx.helper.set_model_props(proto, {KEY: text})
        onnx.checker.check_model(proto)
        write_atomically(path, proto.SerializeToString(deterministic=True))


def _exported(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """Return the network as a graph that has every weight under its own name."""
    images = torch.zeros(2, *shape)
    sizes = ({0: torch.export.Dim("images")},)
    program = torch.onnx.export(
        network, (images,), dynamo=True, optimize=False, verbose=False,
        dynamic_shapes=sizes, input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("metadata_props")  # the source lines of this machine
        part.ClearField("doc_string")
    return proto


def _make_sparse(onnx: Any, graph: Any, name: str, keep: Tensor) -> None:
    """Replace a weight of the graph by a sparse tensor with the weights that `keep` keeps."""
    place = next(i for i, one in enumerate(graph.initializer) if one.name == name)
    dense = onnx.numpy_helper.to_array(graph.initializer[place])
    places = np.flatnonzero(keep.numpy())
    values = onnx.numpy_helper.from_array(dense.reshape(-1)[places].copy(), name)
    indices = onnx.numpy_helper.from_array(places.astype(np.int64))
    sparse = onnx.helper.make_sparse_tensor(values, indices, list(dense.shape))
    del graph.initializer[place]
    graph.sparse_initializer.append(sparse)


# ---------------------------------------------------------------- reading


def read(path: Path) -> Ticket:
    """Read a ticket that `write` wrote; InputError for another file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with _packages() as onnx:
        try:
            proto = onnx.load_from_string(path.read_bytes())
            facts = json.loads({one.key: one.value for one in proto.metadata_props}[KEY])
        except Exception as error:  # a parser of other people's files raises many types
            why = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path}: not a readable ONNX file of ticketlab ({why})") from None
        weights: State = {
            one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy())
            for one in proto.graph.initializer
        }
        masks: dict[str, Tensor] = {}
        for one in proto.graph.sparse_initializer:
            name = one.values.name
            masks[name], weights[name] = _dense(onnx, one)
    weights |= {name: torch.tensor(value) for name, value in facts["rest"].items()}
    own = {name: weights[name] for name in facts["names"]}
    return Ticket(
        Mask({name: masks[name] for name in own if name in masks}), own, facts["metadata"]
    )


def _dense(onnx: Any, sparse: Any) -> tuple[Tensor, Tensor]:
    """Return which places a sparse tensor keeps, and its values with 0 elsewhere."""
    places = torch.from_numpy(onnx.numpy_helper.to_array(sparse.indices).copy())
    values = torch.from_numpy(onnx.numpy_helper.to_array(sparse.values).copy())
    count = int(np.prod(sparse.dims))
    keep, weight = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=values.dtype)
    keep[places], weight[places] = True, values
    return keep.view(*sparse.dims), weight.view(*sparse.dims)
