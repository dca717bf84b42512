"""Corrupted images: the same bytes every time, known values, and more change by severity."""

import numpy as np
import pytest
import torch
from conftest import Message
from emulated import emulated
from scipy import ndimage

from ticketlab import gpu
from ticketlab.data.sets import DataSet, Images
from ticketlab.papers.geometry.algorithm.corruption import KINDS, STRENGTHS, corrupted

SEVERITIES = (1, 2, 3)


def constant(level: int, channels: int = 1, count: int = 20) -> Images:
    x = torch.full((count, channels, 16, 16), level, dtype=torch.uint8)
    return Images(x, torch.arange(count))


def colourful(count: int = 30) -> Images:
    """Smooth random colour images (3, 32, 32)."""
    random = gpu.generator("cpu", "colourful")
    rough = torch.rand(count, 3, 8, 8, generator=random)
    smooth = torch.nn.functional.interpolate(rough, size=(32, 32), mode="bilinear")
    return Images((255 * smooth).to(torch.uint8), torch.arange(count) % 3)


def change(images: Images, other: Images) -> float:
    """Mean squared difference, on the 0..255 scale."""
    return float((images.x.double() - other.x.double()).square().mean())


@pytest.fixture(params=["grey", "colour"])
def images(request: pytest.FixtureRequest, digits: DataSet) -> Images:
    return digits.test if request.param == "grey" else colourful()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_same_bytes_every_time(images: Images, kind: str, severity: int) -> None:
    before, state = images.x.clone(), torch.get_rng_state()
    found, again = (corrupted(images, kind, severity, 7) for _ in range(2))
    assert torch.equal(found.x, again.x) and not torch.equal(found.x, images.x)
    assert found.x.dtype == torch.uint8 and found.x.shape == images.x.shape
    assert found.y is images.y and torch.equal(images.x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_severity_changes_more(images: Images, kind: str) -> None:
    changes = [change(images, corrupted(images, kind, severity, 0)) for severity in SEVERITIES]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_only_noise_depends_on_the_seed(images: Images) -> None:
    same = {
        kind: torch.equal(corrupted(images, kind, 2, 0).x, corrupted(images, kind, 2, 1).x)
        for kind in KINDS
    }
    assert same == {"noise": False, "blur": True, "contrast": True}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_its_deviation_and_no_mean(severity: int) -> None:
    """On 60,000 mid-grey pixels, which it rarely takes to 0 or 255."""
    clean = constant(128, channels=3, count=80)
    found = corrupted(clean, "noise", severity, 0).x.double() - 128
    deviation = 255 * STRENGTHS["noise"][severity - 1]
    assert float(found.std()) == pytest.approx(deviation, rel=0.04)
    assert float(found.mean()) == pytest.approx(0, abs=0.02 * deviation)


def test_noise_differs_between_images_channels_and_pixels() -> None:
    found = corrupted(constant(128, channels=3), "noise", 2, 0).x.double()
    each = found.flatten(2).transpose(0, 1).flatten(1)  # (3, images x pixels)
    assert torch.corrcoef(each).triu(1).abs().max() < 0.05
    assert torch.corrcoef(found.flatten(1)).triu(1).abs().max() < 0.2
    assert found.std(0).min() > 10


def test_noise_is_cut_off_at_black_and_white_not_wrapped() -> None:
    for level in (0, 255):
        found = corrupted(constant(level), "noise", 3, 0).x.double()
        assert 0.4 < float((found == level).double().mean()) < 0.6  # one side is cut off
        assert abs(float(found.median()) - level) < 5


def test_noise_is_rounded_to_the_nearest_level() -> None:
    clean = constant(128)
    random = gpu.generator("cpu", "corruption", "noise", 5)
    draws = torch.randn(clean.x.shape, generator=random).double()
    wanted = (128 + 255 * STRENGTHS["noise"][0] * draws).round().clamp(0, 255)
    assert (corrupted(clean, "noise", 1, 5).x - wanted).abs().max() == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_scipys_gaussian(images: Images, severity: int) -> None:
    sigma = STRENGTHS["blur"][severity - 1]
    reach = int(np.ceil(3 * sigma))
    clean = images.x.double().numpy()
    wanted = ndimage.gaussian_filter(clean, sigma, mode="mirror", radius=reach, axes=(2, 3))
    found = corrupted(images, "blur", severity, 0).x.double().numpy()
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", ["blur", "contrast"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_and_contrast_leave_a_grey_image_as_it_is(kind: str, severity: int) -> None:
    for channels in (1, 3):
        clean = Images(
            torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 8, 8),
            torch.zeros(256),
        )
        assert torch.equal(corrupted(clean, kind, severity, 0).x, clean.x)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_pulls_each_image_to_its_own_mean(severity: int) -> None:
    """Half of the first image is 0 and half 200, of the second 40 and 60."""
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    x[0, :, 4:], x[1, :, :4], x[1, :, 4:] = 200, 40, 60
    found = corrupted(Images(x, torch.arange(2)), "contrast", severity, 0).x
    factor = STRENGTHS["contrast"][severity - 1]
    assert found[0, 0, 0, 0] == round(100 - 100 * factor)
    assert found[0, 0, 7, 0] == round(100 + 100 * factor)
    assert abs(float(found[1, 0, 0, 0]) - (50 - 10 * factor)) <= 0.5
    assert abs(float(found[1, 0, 7, 0]) - (50 + 10 * factor)) <= 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_device_gets_the_cpus_bytes(digits: DataSet, kind: str) -> None:
    want = corrupted(digits.test, kind, 2, 3).x
    with emulated():
        there = digits.test.to("cuda")
        found = corrupted(there, kind, 2, 3)
        assert found.x.device.type == "cuda" and found.y is there.y
        assert torch.equal(found.x.cpu(), want)


@pytest.mark.parametrize(
    ("kind", "severity", "told"),
    [
        ("fog", 1, "kind: 'fog' is unknown, allowed: noise, blur, contrast"),
        ("noise", 0, "severity: 0, allowed: 1 to 3"),
        ("blur", 4, "severity: 4, allowed: 1 to 3"),
        ("contrast", -1, "severity: -1, allowed: 1 to 3"),
    ],
)
def test_unknown_corruptions_are_refused_in_one_line(
    kind: str, severity: int, told: str, one_line: Message
) -> None:
    assert one_line(lambda: corrupted(constant(9), kind, severity, 0)) == told


def test_images_that_do_not_fit_are_refused_in_one_line(one_line: Message) -> None:
    two = constant(9, channels=2)
    assert one_line(lambda: corrupted(two, "noise", 1, 0)) == "images: 2 channels, allowed: 1 or 3"
    small = Images(constant(9).x[:, :, :3, :8], constant(9).y)
    told = one_line(lambda: corrupted(small, "blur", 3, 0))
    assert told == "images: 3 x 8 pixels, a blur of 1.0 needs more than 3"
