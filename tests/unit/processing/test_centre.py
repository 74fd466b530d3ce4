from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import find_centre

HALF = np.arange(180.0)
FULL = np.arange(180) * 2.0


def rows_of(phantom, angles, columns, centre, *, rows=8, noise=0.0, seed=0):
    sinogram = phantom.sinogram(angles, columns, centre)
    stack = np.stack([sinogram * (1 + 0.02 * k) for k in range(rows)], axis=1)
    return stack + noise * np.random.default_rng(seed).standard_normal(stack.shape)


@pytest.mark.parametrize("centre", [127.5, 130.75, 110.2, 60.3, 201.9])
@pytest.mark.parametrize("angles", [HALF, FULL, -HALF, np.arange(181.0), HALF + 37.3])
def test_the_axis_of_a_noisy_phantom_is_found(shepp_logan, angles, centre):
    phantom = shepp_logan(0.9 * min(centre, 255 - centre))
    found = find_centre(rows_of(phantom, angles, 256, centre, noise=0.02), angles)
    assert found.centre_px == pytest.approx(centre, abs=0.05)
    assert found.uncertainty_px < 0.05


@pytest.mark.parametrize(
    ("angles", "columns"),
    [
        (np.arange(37) * 180 / 37, 201),
        (np.arange(12) * 15.0, 32),
        (np.arange(181) * 360 / 181, 128),
        (np.arange(1500) * 0.12, 200),
        (np.arange(170) + 0.0, 256),
        (np.arange(144) * 111.246 % 180, 160),
        (np.sort(np.random.default_rng(0).uniform(0, 180, 160)), 160),
    ],
    ids=["sparse", "tiny", "odd-full-turn", "many", "170-degrees", "golden", "random"],
)
def test_the_axis_is_found_at_any_sampling(shepp_logan, angles, columns):
    centre = (columns - 1) / 2 + 0.04 * columns
    phantom = shepp_logan(0.4 * columns)
    found = find_centre(rows_of(phantom, angles, columns, centre, noise=0.005), angles)
    assert found.centre_px == pytest.approx(centre, abs=0.1)


@pytest.mark.parametrize(("x0", "y0", "radius"), [(0, 0, 60), (50, 30, 6), (-80, 0, 20)])
def test_objects_that_do_not_fill_the_field_are_enough(disc, x0, y0, radius):
    sinogram = rows_of(disc(radius, 0.05, x0, y0), HALF, 256, 131.4, noise=0.02)
    assert find_centre(sinogram, HALF).centre_px == pytest.approx(131.4, abs=0.05)


@pytest.mark.parametrize(("radius", "centre"), [(150, 131.4), (180, 131.4), (180, 110), (220, 110)])
def test_an_object_larger_than_the_field_is_still_centred(shepp_logan, radius, centre):
    sinogram = rows_of(shepp_logan(radius), HALF, 256, centre, noise=0.02)
    found = find_centre(sinogram, HALF)
    assert found.centre_px == pytest.approx(centre, abs=1)
    if abs(found.centre_px - centre) > 0.3:
        assert found.method == "opposite projections"
        assert found.uncertainty_px >= 1


def test_a_drifting_beam_does_not_move_the_axis(shepp_logan):
    sinogram = rows_of(shepp_logan(90), HALF, 256, 110.2, noise=0.01)
    drift = 0.3 * np.random.default_rng(1).standard_normal((180, 1, 1))
    assert find_centre(sinogram + drift, HALF).centre_px == pytest.approx(110.2, abs=0.05)


def test_one_row_may_be_given_flat_and_in_any_order(shepp_logan):
    sinogram = rows_of(shepp_logan(100), HALF, 256, 124.0, rows=1)
    order = np.random.default_rng(2).permutation(180)
    straight = find_centre(sinogram, HALF)
    shuffled = find_centre(sinogram[order, 0], HALF[order])
    assert shuffled.centre_px == pytest.approx(straight.centre_px, abs=1e-9)


def test_the_uncertainty_is_the_scatter(shepp_logan):
    phantom = shepp_logan(50)
    found = [
        find_centre(rows_of(phantom, HALF, 128, 66.6, noise=0.05, rows=2, seed=seed), HALF)
        for seed in range(24)
    ]
    scatter = np.std([estimate.centre_px for estimate in found])
    claimed = np.mean([estimate.uncertainty_px for estimate in found])
    assert 0.5 < claimed / scatter < 2


@pytest.mark.parametrize(
    ("sinogram", "angles", "message"),
    [
        (np.ones((1, 2, 64)), [0.0], "1 projections over 0 degrees .* by hand"),
        (np.ones((90, 2, 64)), np.arange(90.0), "90 projections over 90 degrees"),
        (np.ones((180, 2, 64)), HALF, "are empty"),
        (np.ones((180, 2, 64)), HALF[:-1], "180 projections, but 179 angles"),
        (np.ones((180, 2, 8)), HALF, "at least 16 columns"),
        (np.full((180, 2, 64), np.nan), HALF, "projection 0 holds NaN"),
        (np.ones((180, 2, 64)), np.where(HALF == 7, np.nan, HALF), "angle 7 is nan"),
        (np.eye(16), np.arange(16) * 180.0, "only 1 directions"),
    ],
)
def test_what_determines_no_axis_is_refused(sinogram, angles, message):
    with pytest.raises(InputError, match=message):
        find_centre(sinogram, angles)


def test_pure_noise_has_no_axis():
    noise = np.random.default_rng(0).standard_normal((180, 8, 128))
    with pytest.raises(InputError, match="no rotation centre above their noise"):
        find_centre(noise, HALF)
