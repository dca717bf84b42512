"""How far a classifier's probabilities can be trusted: likelihood, Brier score, calibration.

All take logits (N, classes) and labels int64 (N,), and compute in float64 on the CPU. InputError
for no images, shapes that do not fit, or a label that is no class.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ticketlab.spec import InputError

BINS = 15
"""Of confidence, as in Guo et al. 2017 (arXiv 1706.04599)."""


def measures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return all measures; worst_class_accuracy and accuracy in percent."""
    hits, _ = _hits(*_checked(logits, labels))
    return {
        "nll": nll(logits, labels),
        "brier": brier(logits, labels),
        "calibration_error": calibration_error(logits, labels),
        "worst_class_accuracy": worst_class(logits, labels),
        "accuracy": 100 * float(hits.mean()),
    }


def nll(logits: Tensor, labels: Tensor) -> float:
    """Return the mean negative log likelihood of the labels, in nats."""
    return float(functional.cross_entropy(*_checked(logits, labels)))


def brier(logits: Tensor, labels: Tensor) -> float:
    """Return the Brier score, 0 to 2: squared errors of the probabilities, summed over classes."""
    logits, labels = _checked(logits, labels)
    truth = functional.one_hot(labels, logits.shape[1])
    return float((logits.softmax(1) - truth).square().sum(1).mean())


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error in percentage points (Guo et al. 2017).

    That is the mean over images of the distance of accuracy and mean confidence within their bin of
    confidence; the bins are equally wide and include their upper bound. InputError for bins < 1.
    """
    if bins < 1:
        raise InputError(f"bins: {bins}, allowed: at least 1")
    hits, confidence = _hits(*_checked(logits, labels))
    bounds = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    place = functional.one_hot(torch.bucketize(confidence, bounds), bins).double()
    return 100 * float(((hits - confidence) @ place).abs().sum()) / len(hits)


def worst_class(logits: Tensor, labels: Tensor) -> float:
    """Return the lowest accuracy of a class, in percent; classes without images do not count."""
    logits, labels = _checked(logits, labels)
    hits, _ = _hits(logits, labels)
    own = functional.one_hot(labels, logits.shape[1]).double()
    counts = own.sum(0)
    return 100 * float((hits @ own / counts)[counts > 0].min())


def _hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 where the likeliest class is the label, else 0, and its probability: (N,) each."""
    confidence, predicted = logits.softmax(1).max(1)
    return (predicted == labels).double(), confidence


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits, labels = logits.detach().cpu().double(), labels.cpu()
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not logits.numel():
        have = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise InputError(f"logits and labels: shapes {have}, allowed: (N, classes) and (N,), N > 0")
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        have = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"labels: {have}, allowed: 0 to {logits.shape[1] - 1}")
    return logits, labels
