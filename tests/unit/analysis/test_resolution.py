from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from apsber_bluesky.analysis import fourier_ring_correlation, resolution
from apsber_bluesky.core import InputError, Verdict


def noise(seed: int, size: int = 128, slices: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((slices, size, size))


def test_equal_halves_correlate_to_the_pixel():
    found = resolution(noise(0), noise(0))
    assert found.value == 2.0
    assert found.note == "limited by the pixel size"


@pytest.mark.parametrize("size", [64, 97, 128])
def test_independent_halves_share_next_to_nothing(size):
    correlation = fourier_ring_correlation(noise(0, size), noise(1, size))
    assert np.abs(correlation.correlation[5:]).mean() < 0.1
    assert resolution(noise(0, size), noise(1, size)).value > size / 8


@pytest.mark.parametrize("cutoff", [0.1, 0.2, 0.35])
def test_a_common_band_ends_where_it_ends(cutoff):
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    band = np.fft.ifft2(np.fft.fft2(noise(0)) * (frequency < cutoff)).real
    found = resolution(band + 0.1 * noise(1), band + 0.1 * noise(2))
    assert 1 / found.value == pytest.approx(cutoff, abs=2.5 / 128)


def test_correlation_follows_the_signal_to_noise_ratio():
    signal = noise(0, slices=8)
    correlation = fourier_ring_correlation(
        signal + 0.5 * noise(1, slices=8), signal + 0.5 * noise(2, slices=8)
    )
    assert correlation.correlation[10:].mean() == pytest.approx(1 / (1 + 0.25), abs=0.02)


def test_the_threshold_falls_to_the_half_bit_limit_with_the_pixels_of_a_ring():
    few, many = (
        fourier_ring_correlation(noise(0, 128, k), noise(1, 128, k)).threshold for k in (1, 25)
    )
    limit = 0.2071 / 1.2071
    assert few[0] > 0.5 > few[-1] > many[-1] > limit
    # The distance from the limit falls with the root of the number of pixels.
    assert (few[-1] - limit) / (many[-1] - limit) == pytest.approx(5, rel=0.2)


def test_more_noise_worsens_it(scan):
    values = []
    for counts in (1e5, 3e3, 3e2, 5e1):
        taken = scan(flat_counts=counts)
        values.append(resolution(taken.half(0), taken.half(1)).value)
    assert values == sorted(values)
    assert values[-1] > 2 * values[0]


def test_fewer_projections_worsen_it(scan):
    values = []
    for count in (360, 90, 24):
        taken = scan(angles=np.arange(count) * 180 / count, flat_counts=1e5)
        values.append(resolution(taken.half(0), taken.half(1)).value)
    assert values == sorted(values)
    assert values[-1] > 2 * values[0]


def test_blur_worsens_it():
    signal = noise(0)
    values = [
        resolution(
            ndimage.gaussian_filter(signal, (0, s, s)) + 0.05 * noise(1),
            ndimage.gaussian_filter(signal, (0, s, s)) + 0.05 * noise(2),
        ).value
        for s in (0.5, 1, 2)
    ]
    assert values == sorted(values)


def test_it_is_also_given_as_a_length():
    assert resolution(noise(0), noise(0), pixel_size_um=0.65).note.startswith("1.3 um")


def test_it_has_a_verdict(scan):
    good, bad = scan(flat_counts=1e5), scan(flat_counts=8)
    assert resolution(good.half(0), good.half(1)).verdict is Verdict.PASS
    assert resolution(bad.half(0), bad.half(1)).verdict is not Verdict.PASS


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (noise(0, 64), noise(0, 65), "they must be equal"),
        (noise(0, 8), noise(0, 8), "at least 16 pixels wide"),
        (noise(0, 64)[:, :, :32], noise(0, 64)[:, :, :32], "first half have shape"),
        (noise(0, 32) * np.nan, noise(0, 32), "hold NaN"),
    ],
)
def test_halves_that_do_not_fit_are_refused(first, second, message):
    with pytest.raises(InputError, match=message):
        fourier_ring_correlation(first, second)
