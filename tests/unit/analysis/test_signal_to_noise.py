from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import contrast_to_noise, signal_to_noise
from apsber_bluesky.core import InputError, Limits, Verdict


def disc_image(contrast: float, noise: float, *, size: int = 160, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.where(np.hypot(x, y) < 0.25 * size, contrast, 0.0)
    return image + noise * np.random.default_rng(seed).standard_normal((2, size, size))


@pytest.mark.parametrize("expected", [4.0, 8.0, 30.0])
def test_contrast_is_over_the_noise_of_the_air(expected):
    found = contrast_to_noise(disc_image(0.01 * expected, 0.01))
    assert found.value == pytest.approx(expected, rel=0.05)
    assert found.unit == "1"


def test_the_air_is_found_below_an_object_of_two_materials(scan):
    slices = scan(flat_counts=1e5).slices()
    y, x = np.mgrid[:128, :128] - 64
    air = slices[:, (np.hypot(x, y) > 54) & (np.hypot(x, y) < 60)]
    contrast_of_inside = 0.4 * 0.02
    found = contrast_to_noise(slices)
    assert found.value == pytest.approx(contrast_of_inside / air.std(), rel=0.35)


def test_more_noise_lowers_it(scan):
    values = [contrast_to_noise(scan(flat_counts=c).slices()).value for c in (1e5, 1e4, 1e3, 1e2)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[2]


def test_outliers_in_the_background_hardly_matter():
    image = disc_image(0.1, 0.01)
    image[:, ::7, 5::31] += 3
    image[:, 80, 80] = 0.1
    assert contrast_to_noise(image).value == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("noise", "verdict"), [(0.01, Verdict.PASS), (0.025, Verdict.WARN), (0.1, Verdict.FAIL)]
)
def test_it_has_a_verdict(noise, verdict):
    assert contrast_to_noise(disc_image(0.1, noise)).verdict is verdict


def test_limits_of_the_profile_replace_the_default_ones():
    found = contrast_to_noise(
        disc_image(0.1, 0.01), limits={"contrast_to_noise": Limits(warn=30, fail=20)}
    )
    assert (found.warn_limit, found.fail_limit) == (30, 20)
    assert found.verdict is Verdict.FAIL


def test_uniform_slices_fail_with_a_reason():
    found = contrast_to_noise(np.full((2, 64, 64), 0.3))
    assert np.isnan(found.value)
    assert found.verdict is Verdict.FAIL
    assert "uniform" in found.note


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        (np.zeros((64, 64)), r"shape \(64, 64\)"),
        (np.zeros((2, 64, 32)), "slices are square"),
        (np.full((1, 16, 16), np.nan), "hold NaN"),
    ],
)
def test_what_are_no_slices_is_refused(slices, message):
    with pytest.raises(InputError, match=message):
        contrast_to_noise(slices)


@pytest.mark.parametrize("expected", [4.0, 20.0])
def test_the_signal_is_over_the_noise_of_the_whole_scan_whatever_the_texture(expected):
    texture = 0.2 * np.random.default_rng(9).standard_normal((2, 160, 160))
    clean = disc_image(1.0, 0.0) * (1 + texture)
    noise = [
        np.sqrt(2) / expected * s
        for s in np.random.default_rng(3).standard_normal((2, 2, 160, 160))
    ]
    first, second = clean + noise[0], clean + noise[1]
    found = signal_to_noise((first + second) / 2, first, second)
    assert found.value == pytest.approx(expected, rel=0.1)


def test_halves_of_another_shape_are_refused():
    image = disc_image(1.0, 0.1)
    with pytest.raises(InputError, match="half scans have shapes"):
        signal_to_noise(image, image[:1], image[:1])
