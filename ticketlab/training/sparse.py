"""K sparse MLPs trained on their surviving weights only: one block-diagonal CSR matrix per layer.

The forward pass, the gradient of the activations and that of the weights (at surviving positions
only) cost as much as the survivors do. Activations are (K neurons, B).
"""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ticketlab.pruning.masks import State
from ticketlab.training.mlp import loss_and_slope, relu_backward


def _csr(crow: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Build a CSR matrix that shares these tensors; hides torch's beta warning on CSR tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        return torch.sparse_csr_tensor(crow, columns, values, shape, check_invariants=False)


def _starts(rows: Tensor, count: int) -> Tensor:
    """Return where each of `count` rows starts, (count + 1,), for sorted row numbers."""
    counts = torch.bincount(rows, minlength=count)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


class Entries:
    """The positions of a sparse matrix's entries: `rows` and `columns` (n,), row by row."""

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        self.rows, self.columns, self.shape = rows, columns, shape

    def matrix(self, values: Tensor | None = None) -> Tensor:
        """Return the matrix, sharing the tensor `values` (n,) or with zeros."""
        if values is None:
            values = torch.zeros(len(self.rows), device=self.rows.device)
        return _csr(_starts(self.rows, self.shape[0]), self.columns, values, self.shape)

    def transposed(self) -> tuple[Tensor, Tensor]:
        """Return an order of the values (n,) and the transposed matrix to fill in this order."""
        order = torch.argsort(self.columns, stable=True)
        turned = Entries(self.columns[order], self.rows[order], self.shape[::-1])
        return order, turned.matrix()


class Pattern(Entries):
    """The surviving weights of one layer in K nets, as a matrix (K outputs, K inputs).

    With `shared` it is (K outputs, inputs), without blocks: a first layer whose nets all see the
    same batch. `places` (n,) are the survivors' positions in the concatenated K weight matrices.
    """

    def __init__(self, keep: Tensor, shared: bool) -> None:
        nets, outputs, inputs = keep.shape
        self.places = keep.flatten().nonzero().flatten()
        self.full = keep.shape
        rows, columns = self.places // inputs, self.places % inputs
        if not shared:
            columns = columns + rows // outputs * inputs
        super().__init__(rows, columns, (nets * outputs, inputs if shared else nets * inputs))


class _Layer:
    """One layer of all nets: views of weights, biases and gradients, and matrices on them."""

    def __init__(self, pattern: Pattern, weights: Tensor, grads: Tensor, first: bool) -> None:
        count = len(pattern.places)
        self.values, self.bias = weights[:count], weights[count:].unsqueeze(1)
        self.matrix = pattern.matrix(self.values)
        self.slopes, self.bias_slope = pattern.matrix(grads[:count]), grads[count:]
        self.first = first
        if not first:
            self.order, self.turned = pattern.transposed()

    def forward(self, a: Tensor, z: Tensor) -> None:
        """Write W a + b into z (K outputs, B)."""
        z.copy_(self.bias.expand_as(z))
        torch.addmm(z, self.matrix, a, out=z)

    def backward(self, a: Tensor, delta: Tensor, back: Tensor) -> Tensor:
        """Write the gradients of weights and biases into their buffers, the inputs' into `back`."""
        torch.sparse.sampled_addmm(self.slopes, delta, a.t(), beta=0.0, out=self.slopes)
        torch.sum(delta, 1, out=self.bias_slope)
        if self.first:
            return delta
        torch.index_select(self.values, 0, self.order, out=self.turned.values())
        torch.addmm(back, self.turned, delta, beta=0.0, out=back)
        slopes: Tensor = relu_backward(back, a, 0, grad_input=back)
        return slopes


class SparseMlps:
    """K nets of one shape as flat buffers of their survivors: `weights` and `grads`, each (n,).

    `names` are the layers, first to last; biases are dense. With `shared` all nets see one batch.
    Each layer's survivors come first in the buffers, net by net, then its biases.
    """

    keep: Tensor | None = None
    """None: removed weights do not exist, so nothing is masked."""

    def __init__(
        self,
        names: Sequence[str],
        starts: Sequence[State],
        masks: Sequence[Mapping[str, Tensor] | None],
        shared: bool,
    ) -> None:
        self.names, self.count, self.shared = tuple(names), len(starts), shared
        self.patterns, parts = [], []
        for number, name in enumerate(self.names):
            weights = torch.stack([start[f"{name}.weight"] for start in starts])
            biases = torch.stack([start[f"{name}.bias"] for start in starts])
            keep = torch.ones_like(weights, dtype=torch.bool)
            for place, mask in enumerate(masks):
                if mask is not None and f"{name}.weight" in mask:
                    keep[place] = mask[f"{name}.weight"]
            pattern = Pattern(keep, shared and number == 0)
            parts += [weights.flatten()[pattern.places], biases.flatten()]
            self.patterns.append(pattern)
        self.weights = torch.cat([part.float() for part in parts])
        self.grads = torch.zeros_like(self.weights)
        self.layers = self._layers()
        self._by_batch: dict[int, list[Tensor]] = {}

    def _layers(self) -> list[_Layer]:
        lengths = [len(pattern.places) + pattern.shape[0] for pattern in self.patterns]
        views = zip(
            self.patterns, self.weights.split(lengths), self.grads.split(lengths), strict=True
        )
        return [_Layer(p, w, g, number == 0) for number, (p, w, g) in enumerate(views)]

    def _activation_buffers(self, batch: int) -> list[Tensor]:
        """Return buffers (K neurons, B), inputs first; a negative batch names the backward pass's.

        They are reused, since fresh memory at each step would cost page faults.
        """
        if batch not in self._by_batch:
            neurons = [self.patterns[0].shape[1], *[p.shape[0] for p in self.patterns]]
            self._by_batch[batch] = [self.weights.new_zeros(n, abs(batch)) for n in neurons]
        return self._by_batch[batch]

    def _pass(self, x: Tensor) -> list[Tensor]:
        """Return inputs, hidden activations and logits, each (K neurons, B)."""
        values = self._activation_buffers(x.shape[-2])
        if self.shared:
            values[0].copy_(x.T)
        else:
            self._by_net(values[0]).copy_(x.expand(self.count, *x.shape[-2:]).transpose(1, 2))
        for layer, a, z in zip(self.layers, values[:-1], values[1:], strict=True):
            layer.forward(a, z)
            if layer is not self.layers[-1]:
                z.relu_()
        return values

    def _by_net(self, flat: Tensor) -> Tensor:
        return flat.view(self.count, -1, flat.shape[1])

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (K, B, C) for x (B, F) or, unless `shared`, (K, B, F)."""
        return self._by_net(self._pass(x)[-1]).transpose(1, 2)

    def descend(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `grads`; return losses (K,) and logits (K, B, C)."""
        values = self._pass(x)
        logits = self._by_net(values[-1])
        losses, slope = loss_and_slope(logits, y, 1)
        delta, buffers = slope.flatten(0, 1), self._activation_buffers(-x.shape[-2])
        for number, layer in reversed(list(enumerate(self.layers))):
            delta = layer.backward(values[number], delta, buffers[number])
        return losses, logits.transpose(1, 2)

    def state(self, lane: int) -> State:
        """Return one net as its model's state, removed weights as 0."""
        state: State = {}
        for name, pattern, layer in zip(self.names, self.patterns, self.layers, strict=True):
            whole = self.weights.new_zeros(pattern.full.numel())
            whole[pattern.places] = layer.values
            state[f"{name}.weight"] = whole.view(pattern.full)[lane].clone()
            state[f"{name}.bias"] = layer.bias.view(self.count, -1)[lane].clone()
        return state
