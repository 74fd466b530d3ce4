"""A full turn with the axis near the edge shows an object of twice the width."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import (
    FrameGeometry,
    OffAxisFrame,
    find_overlap,
    overlap_centre,
    reconstruct,
)

COLUMNS, RADIUS = 120, 80.0


def full_turn(count: int, kind: str = "even") -> np.ndarray:
    if kind == "golden":
        return np.sort(np.mod(np.arange(count) * 222.4922, 360))
    return np.arange(count) * 360 / count


def off_axis_volume(phantom, angles, centre, columns=COLUMNS):
    sinogram = phantom.sinogram(angles, columns, centre)[:, None]
    geometry = FrameGeometry(1, columns, centre, 0, 1, off_axis=True)
    wide = geometry.prepare(sinogram, 0, 1)
    return reconstruct(wide, angles, geometry.engine_centre_px, engine="finufft")[0]


@pytest.mark.parametrize("centre", [107.0, 106.37, 13.25], ids=["right", "between", "left"])
@pytest.mark.parametrize(("count", "kind"), [(720, "even"), (719, "even"), (900, "golden")])
def test_both_sides_are_joined_with_the_right_attenuation(disc, centre, count, kind):
    phantom = disc(RADIUS, mu=0.01, x0=5.0, y0=-8.0)
    image = off_axis_volume(phantom, full_turn(count, kind), centre)
    size = image.shape[0]
    assert size > 1.7 * COLUMNS
    y, x = np.mgrid[:size, :size] - size // 2
    away = np.hypot(x - 5, y + 8)
    inside = away < RADIUS - 4
    assert abs(image[inside].mean() - 0.01) < 1e-5
    # Not the least seam where the two sides meet.
    assert image[inside].std() < 6e-4
    reach = max(centre, COLUMNS - 1 - centre)
    outside = (away > RADIUS + 4) & (np.hypot(x, y) < reach - 2)
    assert np.abs(image[outside]).mean() < 4e-4


def test_it_equals_what_a_frame_of_twice_the_width_would_show(shepp_logan):
    phantom, angles = shepp_logan(90.0), full_turn(720)
    narrow = off_axis_volume(phantom, angles, 107.0)
    size = narrow.shape[0]
    wide_sinogram = phantom.sinogram(angles, size, 107.0)[:, None]
    wide = reconstruct(wide_sinogram, angles, 107.0, engine="finufft")[0]
    assert np.abs(narrow - wide).max() < 1e-3 * wide.max() + 2e-4


@pytest.mark.parametrize("centre", [107.0, 111.63, 9.2, 30.0])
def test_the_overlap_is_found_on_either_side(shepp_logan, centre):
    angles = full_turn(360)
    sinogram = shepp_logan(85.0).sinogram(angles, COLUMNS, centre)
    noisy = sinogram + np.random.default_rng(3).normal(0, 0.005, sinogram.shape)
    found = find_overlap(np.stack([noisy] * 3, axis=1), angles)
    assert abs(found.centre_px - centre) < 0.15
    assert abs(overlap_centre(COLUMNS, found.overlap_px) - found.centre_px) < 1e-9
    assert (found.overlap_px > 0) == (centre > COLUMNS / 2)


def test_weights_of_a_ray_and_its_reverse_add_up_to_two():
    frame = OffAxisFrame.around(COLUMNS, 107.0)
    laid = frame(np.ones((1, 1, COLUMNS), np.float32))[0, 0]
    assert frame.columns == 215
    assert np.allclose(laid + laid[::-1], 2, atol=1e-6)


def test_half_a_turn_is_refused(shepp_logan):
    angles = np.arange(180.0)
    sinogram = shepp_logan(50.0).sinogram(angles, COLUMNS, 100.0)[:, None]
    with pytest.raises(InputError, match="angles over 180 degrees cannot be stitched"):
        find_overlap(sinogram, angles)


def test_noise_shows_no_overlap():
    noise = np.random.default_rng(0).normal(size=(360, 4, COLUMNS))
    with pytest.raises(InputError, match="match at no overlap"):
        find_overlap(noise, full_turn(360))


@pytest.mark.parametrize("overlap", [0, 7, -7.9, 121, -121])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(InputError, match="does not fit frames of 120"):
        overlap_centre(COLUMNS, overlap)
