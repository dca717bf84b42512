"""The flat optimisers step as torch's own classes, and leave the compiler where it is."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ticketlab.training.optimizers import Adam, Sgd

RATES = (0.1, 0.03, 0.01, 0.2)
Ours = Callable[[Tensor, Tensor], Adam | Sgd]
Theirs = Callable[[Tensor], torch.optim.Optimizer]

CASES: dict[str, tuple[Ours, Theirs]] = {
    "sgd": (lambda w, g: Sgd(w, g, 0.1), lambda w: torch.optim.SGD([w], 0.1, fused=True)),
    "momentum and decay": (
        lambda w, g: Sgd(w, g, 0.1, 0.9, weight_decay=0.01),
        lambda w: torch.optim.SGD([w], 0.1, momentum=0.9, weight_decay=0.01, fused=True),
    ),
    "nesterov": (
        lambda w, g: Sgd(w, g, 0.1, 0.9, nesterov=True),
        lambda w: torch.optim.SGD([w], 0.1, momentum=0.9, nesterov=True, fused=True),
    ),
    "not fused": (
        lambda w, g: Sgd(w, g, 0.1, 0.9, weight_decay=0.01, fused=False),
        lambda w: torch.optim.SGD([w], 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (
        lambda w, g: Adam(w, g, 0.1, 0.01),
        lambda w: torch.optim.Adam([w], 0.1, weight_decay=0.01, fused=True),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_torch_bit_for_bit(name: str) -> None:
    make_ours, make_theirs = CASES[name]
    random = torch.Generator().manual_seed(3)
    start = torch.randn(1001, generator=random)
    ours, theirs = start.clone(), nn.Parameter(start.clone())
    grads = torch.zeros_like(start)
    theirs.grad = grads
    stepper, peer = make_ours(ours, grads), make_theirs(theirs)
    for rate in RATES:
        grads.copy_(torch.randn(1001, generator=random))
        stepper.lr = peer.param_groups[0]["lr"] = rate
        stepper.step()
        peer.step()
        assert torch.equal(ours, theirs.detach())
    assert not torch.equal(ours, start)


def test_training_does_not_import_the_compiler() -> None:
    """It takes seconds, in every process of a study."""
    code = """
import sys, torch
from ticketlab import gpu, models
from ticketlab.training import optimizers
gpu.start(gpu.Runtime(device="cpu"))
net = models.build(models.ModelSpec(name="resnet8", width=4), (1, 8, 8), 10, 0).train()
net(torch.randn(4, 1, 8, 8)).sum().backward()
for kind in (optimizers.Sgd, optimizers.Adam):
    weight = next(net.parameters()).detach()
    kind(weight, torch.ones_like(weight), 0.1).step()
models.flops(net, (1, 8, 8))
print([name for name in ("torch._dynamo", "torch._inductor", "torchvision") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
