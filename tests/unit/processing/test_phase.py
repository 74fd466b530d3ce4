from __future__ import annotations

import math

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import PaganinFilter

# A polymer at 20 keV, where edges show one fringe each.
ENERGY_KEV, PIXEL_UM, DISTANCE_M = 20.0, 1.0, 0.1
DELTA, BETA = 5e-7, 2.5e-10
WAVELENGTH_M = 1.239841984332e-9 / ENERGY_KEV
MU = 4 * math.pi * BETA / WAVELENGTH_M
SIZE, FINE = 128, 4
OPTICS = {
    "energy_keV": ENERGY_KEV,
    "distance_m": DISTANCE_M,
    "pixel_size_um": PIXEL_UM,
    "delta_over_beta": DELTA / BETA,
}


def thickness_um(size: int, fine: int) -> np.ndarray:
    """A ball of 60 um and a smaller one, in a fine grid with the detector's pixels around it."""
    y, x = (np.mgrid[: size * fine, : size * fine] + 0.5) / fine - size / 2
    balls = ((0.0, 0.0, 30.0), (38.0, -20.0, 12.0))
    return sum(2 * np.sqrt(np.maximum(r**2 - (x - u) ** 2 - (y - v) ** 2, 0)) for u, v, r in balls)


def image(distance_m: float) -> np.ndarray:
    """Intensity on the detector by exact Fresnel propagation of the wave behind the object."""
    thickness = thickness_um(SIZE, FINE) * 1e-6
    wave = np.exp(-(MU / 2 + 2j * np.pi / WAVELENGTH_M * DELTA) * thickness)
    frequency = np.fft.fftfreq(SIZE * FINE, PIXEL_UM * 1e-6 / FINE)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    free_space = np.exp(-1j * np.pi * WAVELENGTH_M * distance_m * squared)
    intensity = np.abs(np.fft.ifft2(np.fft.fft2(wave) * free_space)) ** 2
    return intensity.reshape(SIZE, FINE, SIZE, FINE).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def lines() -> np.ndarray:
    return -np.log(image(DISTANCE_M))[None].astype(np.float32)


@pytest.fixture(scope="module")
def truth_um() -> np.ndarray:
    return thickness_um(SIZE, FINE).reshape(SIZE, FINE, SIZE, FINE).mean(axis=(1, 3))


def error_um(lines, truth_um) -> float:
    return float(np.sqrt(np.mean((lines[0] / MU * 1e6 - truth_um) ** 2)))


def test_the_thickness_of_a_known_object_is_found(lines, truth_um):
    found = lines.copy()
    PaganinFilter(SIZE, SIZE, **OPTICS)(found)
    assert error_um(found, truth_um) < 1.0
    # Without the filter edges are far brighter than the object is thick.
    assert error_um(lines, truth_um) > 20.0
    ball = truth_um > 45
    assert (found[0] / MU * 1e6)[ball].mean() == pytest.approx(truth_um[ball].mean(), rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"distance_m": 0.2}, {"energy_keV": 10.0}, {"pixel_size_um": 2.0}]
)
def test_each_number_of_the_setup_counts(lines, truth_um, wrong):
    right, other = lines.copy(), lines.copy()
    PaganinFilter(SIZE, SIZE, **OPTICS)(right)
    PaganinFilter(SIZE, SIZE, **OPTICS | wrong)(other)
    assert error_um(other, truth_um) > 2 * error_um(right, truth_um)


def test_a_plain_projection_stays_as_it_is():
    lines = np.full((2, 20, 30), 0.7, np.float32)
    PaganinFilter(20, 30, **OPTICS)(lines)
    np.testing.assert_allclose(lines, 0.7, atol=1e-5)


def test_noise_becomes_weaker_and_the_mean_stays():
    noisy = np.random.default_rng(0).normal(1, 0.1, (1, 100, 120)).astype(np.float32)
    calm = noisy.copy()
    made = PaganinFilter(100, 120, **OPTICS)
    made(calm)
    assert made.reach_px > 1
    assert calm.std() < noisy.std() / 3
    assert np.exp(-calm).mean() == pytest.approx(np.exp(-noisy).mean(), rel=0.01)


def test_the_filter_reaches_no_further_than_its_halo():
    made = PaganinFilter(60, 200, **OPTICS | {"distance_m": 0.002})
    assert made.halo < 100
    base = np.full((1, 60, 200), 0.5, np.float32)
    dotted = base.copy()
    dotted[0, 30, 20] = 2.0
    for lines in (base, dotted):
        made(lines)
    change = np.abs(dotted - base)[0]
    assert change[:, 20 + made.halo :].max() < 1e-4 * change.max()


@pytest.mark.parametrize("distance_m", [0.00005, 0.0002, 0.001])
def test_a_part_of_the_rows_with_its_halo_gives_what_the_whole_gives(distance_m):
    setup = OPTICS | {"distance_m": distance_m}
    whole = np.random.default_rng(2).uniform(0.2, 1.5, (2, 200, 40)).astype(np.float32)
    original, made = whole.copy(), PaganinFilter(200, 40, **setup)
    made(whole)
    for first, last in ((0, 20), (90, 110), (180, 200)):
        start, stop = max(first - made.halo, 0), min(last + made.halo, 200)
        assert stop - start < 200
        part = original[:, start:stop].copy()
        PaganinFilter(stop - start, 40, **setup)(part)
        inside = part[:, first - start : last - start]
        np.testing.assert_allclose(inside, whole[:, first:last], atol=1.5e-6)


def test_projections_do_not_depend_on_their_chunk():
    lines = np.random.default_rng(1).uniform(0, 1, (3, 17, 23)).astype(np.float32)
    made = PaganinFilter(17, 23, **OPTICS)
    whole, alone = lines.copy(), lines[1:2].copy()
    made(whole)
    made(alone)
    np.testing.assert_array_equal(whole[1:2], alone)


@pytest.mark.parametrize("name", sorted(OPTICS))
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_numbers_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        PaganinFilter(8, 8, **OPTICS | {name: value})


@pytest.mark.parametrize("lines", [np.zeros((1, 8, 9), np.float32), np.zeros((1, 8, 8))])
def test_projections_that_do_not_fit_are_refused(lines):
    with pytest.raises(InputError, match="this filter takes"):
        PaganinFilter(8, 8, **OPTICS)(lines)
