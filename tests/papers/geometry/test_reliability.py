"""Measures of a classifier's probabilities, on probabilities chosen by hand."""

from collections.abc import Callable, Sequence
from math import log

import pytest
import torch
from conftest import Message
from emulated import emulated
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu
from ticketlab.papers.geometry.algorithm.reliability import (
    brier,
    calibration_error,
    measures,
    nll,
    worst_class,
)


def logits_of(*rows: Sequence[float]) -> Tensor:
    """Logits whose softmax is these probabilities, with another offset for every image."""
    offsets = torch.arange(len(rows), dtype=torch.float64)[:, None]
    return torch.tensor(rows, dtype=torch.float64).log() + offsets


def confident(*pairs: tuple[float, bool]) -> tuple[Tensor, Tensor]:
    """Two classes: class 0 with each probability, and whether that is the label."""
    rows = [(sure, 1 - sure) for sure, _ in pairs]
    return logits_of(*rows), torch.tensor([0 if right else 1 for _, right in pairs])


def drawn(seed: int = 0, count: int = 50, classes: int = 4) -> tuple[Tensor, Tensor]:
    random = gpu.generator("cpu", "reliability", seed)
    logits = 3 * torch.randn(count, classes, generator=random)
    return logits, torch.randint(classes, (count,), generator=random)


# ---------------------------------------------------------------- likelihood and Brier score


def test_the_likelihood_is_that_of_the_labels() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.25, 0.25, 0.5])
    assert nll(logits, torch.tensor([0, 1])) == pytest.approx(-(log(0.7) + log(0.25)) / 2)


def test_the_likelihood_is_torchs_cross_entropy_in_float64() -> None:
    logits, labels = drawn()
    assert nll(logits, labels) == float(functional.cross_entropy(logits.double(), labels))
    tiny = torch.tensor([[0.0, 30.0]])  # log(1 + exp(-30)), which float32 rounds to 0
    assert nll(tiny, torch.tensor([1])) == pytest.approx(9.357622968839299e-14, rel=1e-3)


def test_the_brier_score_is_summed_over_classes_and_averaged_over_images() -> None:
    logits = logits_of([0.7, 0.2, 0.1], [0.25, 0.25, 0.5])
    by_hand = (0.3**2 + 0.2**2 + 0.1**2 + 0.25**2 + 0.75**2 + 0.5**2) / 2
    assert brier(logits, torch.tensor([0, 1])) == pytest.approx(by_hand)


def test_the_brier_score_lies_between_0_and_2() -> None:
    sure = torch.tensor([[900.0, 0.0, 0.0]])
    assert brier(sure, torch.tensor([0])) == 0 and brier(sure, torch.tensor([2])) == 2


# ---------------------------------------------------------------- calibration


def test_a_calibrated_classifier_has_no_error() -> None:
    pairs = [(0.75, True)] * 3 + [(0.75, False)] + [(0.625, True)] * 5 + [(0.625, False)] * 3
    assert calibration_error(*confident(*pairs)) == pytest.approx(0, abs=1e-10)


def test_overconfidence_is_its_distance_from_accuracy() -> None:
    pairs = [(0.97, True)] * 5 + [(0.97, False)] * 5
    assert calibration_error(*confident(*pairs)) == pytest.approx(47)
    assert calibration_error(*confident(*[(0.999, False)] * 3)) == pytest.approx(99.9)


def test_bins_count_by_their_images_and_do_not_cancel() -> None:
    """Three unsure but right, one sure but wrong; in a single bin both errors would cancel."""
    pairs = [(0.7, True)] * 3 + [(0.9, False)]
    assert calibration_error(*confident(*pairs)) == pytest.approx(100 * (3 * 0.3 + 0.9) / 4)
    assert calibration_error(*confident(*pairs), bins=1) == pytest.approx(0, abs=1e-10)


def test_within_a_bin_errors_cancel() -> None:
    """15 bins are 1/15 wide: 0.81 and 0.86 share one (0.8 to 0.867), 0.79 and 0.81 do not."""
    together = confident((0.81, True), (0.86, False))
    assert calibration_error(*together) == pytest.approx(100 * abs(0.19 - 0.86) / 2)
    apart = confident((0.79, True), (0.81, False))
    assert calibration_error(*apart) == pytest.approx(100 * (0.21 + 0.81) / 2)


def test_a_bin_includes_its_upper_bound() -> None:
    """A confidence of exactly 1/2 is in the first of two bins, one of exactly 1 in the last."""
    logits = torch.tensor([[0.0, 0.0], [2000.0, 0.0]])
    assert calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx(75)


@given(st.integers(0, 10**6))
def test_one_bin_has_the_distance_of_the_means_and_more_bins_never_less(seed: int) -> None:
    logits, labels = drawn(seed)
    found = measures(logits, labels)
    sure = 100 * float(logits.double().softmax(1).amax(1).mean())
    one = calibration_error(logits, labels, bins=1)
    assert one == pytest.approx(abs(found["accuracy"] - sure), abs=1e-9)
    finer = [calibration_error(logits, labels, bins=bins) for bins in (2, 4, 8, 16)]
    assert all(a <= b + 1e-9 for a, b in zip([one, *finer], finer, strict=False))


# ---------------------------------------------------------------- accuracies and the whole


def test_the_worst_class_is_the_one_that_is_least_often_recognised() -> None:
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 3, 3])
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 3, 3])  # none of class 2; class 1: 2 of 5
    assert worst_class(functional.one_hot(predicted, 4), labels) == 40
    found = measures(functional.one_hot(predicted, 4), labels)
    assert found["worst_class_accuracy"] == 40 and found["accuracy"] == 70


def test_all_measures_are_there_under_their_names() -> None:
    logits, labels = drawn()
    assert measures(logits, labels) == {
        "nll": nll(logits, labels),
        "brier": brier(logits, labels),
        "calibration_error": calibration_error(logits, labels, bins=15),
        "worst_class_accuracy": worst_class(logits, labels),
        "accuracy": pytest.approx(100 * float((logits.argmax(1) == labels).float().mean())),
    }


@given(st.integers(0, 10**6), st.floats(-50, 50))
def test_neither_the_order_of_images_nor_an_offset_of_logits_matters(
    seed: int, offset: float
) -> None:
    logits, labels = drawn(seed)
    order = torch.randperm(50, generator=gpu.generator("cpu", seed))
    other = measures(logits[order].double() + offset, labels[order])
    assert other == pytest.approx(measures(logits, labels), rel=1e-9, abs=1e-9)


def test_logits_may_lie_on_a_device_and_need_a_gradient() -> None:
    logits, labels = drawn()
    want = measures(logits, labels)
    assert measures(logits.clone().requires_grad_(), labels) == want
    with emulated():
        assert measures(logits.to("cuda"), labels.to("cuda")) == want
        assert measures(logits, labels.to("cuda")) == want


@pytest.mark.parametrize("measure", [nll, brier, calibration_error, worst_class, measures])
def test_bad_input_is_refused_in_one_line(
    measure: Callable[[Tensor, Tensor], object], one_line: Message
) -> None:
    logits, labels = drawn(count=3)
    for shape in ((labels, labels), (logits, labels[:2]), (logits[:0], labels[:0])):
        told = one_line(lambda shape=shape: measure(*shape))
        assert told.startswith("logits and labels: shapes")
    for label in (-1, 4):
        labels[1] = label
        told = one_line(lambda: measure(logits, labels))
        assert told.startswith("labels: ") and told.endswith("allowed: 0 to 3")


def test_fewer_than_one_bin_is_refused_in_one_line(one_line: Message) -> None:
    told = one_line(lambda: calibration_error(*drawn(), bins=0))
    assert told == "bins: 0, allowed: at least 1"
