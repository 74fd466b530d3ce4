from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import find_centre, refine_centre

HALF = np.arange(180.0)
FULL = np.arange(360.0)


def rows_of(phantom, angles, columns, centre, *, rows=4, noise=0.0):
    sinogram = phantom.sinogram(angles, columns, centre)
    stack = np.repeat(sinogram[:, None], rows, axis=1)
    random = np.random.default_rng(0)
    return (stack + noise * random.standard_normal(stack.shape)).astype(np.float32)


@pytest.mark.parametrize("offset", [-2.6, -0.3, 0.0, 1.7])
@pytest.mark.parametrize(
    "angles", [HALF, FULL, FULL[::-1] / 2 + 37, np.arange(300) * 111.246 % 180]
)
def test_a_rough_centre_is_refined(shepp_logan, angles, offset):
    centre = 134.87
    lines = rows_of(shepp_logan(110), angles, 256, centre, noise=0.01)
    found = refine_centre(lines, angles, centre + offset)
    assert found.centre_px == pytest.approx(centre, abs=0.12)
    assert found.method == "least negative attenuation"
    assert found.uncertainty_px < 0.5


@pytest.mark.parametrize("columns", [400, 401])
def test_wide_rows_are_binned_and_the_centre_is_in_columns_of_the_detector(shepp_logan, columns):
    centre = 203.4
    lines = rows_of(shepp_logan(170), HALF, columns, centre, rows=5)
    found = refine_centre(lines, HALF, centre + 1.2)
    assert found.centre_px == pytest.approx(centre, abs=0.12)


def test_an_object_larger_than_the_field_is_centred_better_than_by_correlation(shepp_logan):
    centre = 131.4
    lines = rows_of(shepp_logan(150), HALF, 256, centre, noise=0.02)
    rough = find_centre(lines, HALF)
    found = refine_centre(lines, HALF, rough.centre_px)
    assert abs(found.centre_px - centre) < max(abs(rough.centre_px - centre), 0.15)


def test_one_row_may_be_given_flat(shepp_logan):
    lines = rows_of(shepp_logan(60), HALF, 128, 65.2, rows=1)
    flat, stacked = refine_centre(lines[:, 0], HALF, 64.0), refine_centre(lines, HALF, 64.0)
    assert flat == stacked


def test_a_centre_at_the_edge_of_the_range_is_not_believed(shepp_logan):
    lines = rows_of(shepp_logan(90), HALF, 256, 134.0)
    found = refine_centre(lines, HALF, 126.0, reach_px=2.0)
    assert found.centre_px == 126.0
    assert found.uncertainty_px == 2.0
    assert "undecided" in found.method


def test_an_empty_scan_decides_nothing():
    found = refine_centre(np.zeros((90, 1, 64), np.float32), np.arange(90) * 2.0, 31.0)
    assert found.centre_px == 31.0
    assert "undecided" in found.method


@pytest.mark.parametrize(
    ("shape", "centre", "reach", "message"),
    [
        ((180, 1, 64), 3.0, 4.0, "centre 3.0 with a reach of 4.0"),
        ((180, 1, 64), 61.0, 4.0, "leaves the frame of 64 columns"),
        ((180, 1, 64), np.nan, 4.0, "centre nan"),
        ((180, 1, 64), 31.0, 0.0, "reach of 0.0"),
        ((179, 1, 64), 31.0, 4.0, "for 180 angles"),
    ],
)
def test_a_range_that_does_not_fit_is_refused(shape, centre, reach, message):
    with pytest.raises(InputError, match=message):
        refine_centre(np.ones(shape, np.float32), HALF, centre, reach_px=reach)
