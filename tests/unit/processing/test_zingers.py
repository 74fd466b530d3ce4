from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import remove_zingers
from apsber_bluesky.processing.preprocessing._zingers import _replace_on_arrays


def scene(shape=(3, 40, 51), seed=0):
    rng = np.random.default_rng(seed)
    lines = np.broadcast_to(np.linspace(0, 2, shape[2]), shape) + rng.normal(0, 0.02, shape)
    hit = rng.random(shape) < 2e-3
    hit[0, 0, 0] = hit[1, -1, -1] = hit[-1, 0, 7] = True
    return lines.astype(np.float32), hit


def test_exactly_the_pixels_that_were_hit_are_replaced_and_counted():
    lines, hit = scene()
    seen = np.where(hit, lines - np.float32(1.5), lines)
    assert remove_zingers(seen) == hit.sum()
    np.testing.assert_array_equal(seen[~hit], lines[~hit])
    np.testing.assert_allclose(seen[hit], lines[hit], atol=0.15)


@pytest.mark.parametrize("shape", [(2, 17, 33), (1, 1, 40), (1, 40, 1), (1, 1, 1), (2, 2, 2)])
def test_the_compiled_median_is_that_of_scipy_and_of_the_array_functions(shape):
    lines = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    median = np.stack([ndimage.median_filter(image, 3, mode="nearest") for image in lines])
    expected = np.where(median - lines > np.float32(0.5), median, lines)
    arrays, compiled = lines.copy(), lines.copy()
    counts = sum(_replace_on_arrays(np, image, 0.5) for image in arrays)
    assert remove_zingers(compiled, 0.5) == counts == np.count_nonzero(expected != lines)
    np.testing.assert_array_equal(compiled, expected)
    np.testing.assert_array_equal(arrays, expected)


def test_a_part_of_a_larger_array_is_cleaned_in_its_place():
    lines, hit = scene((2, 20, 30))
    seen = np.where(hit, lines - np.float32(1.5), lines)
    wide = np.zeros((2, 20, 60), np.float32)
    wide[:, :, ::2] = seen
    assert remove_zingers(wide[:, :, ::2]) == remove_zingers(seen)
    np.testing.assert_array_equal(wide[:, :, ::2], seen)
    assert not wide[:, :, 1::2].any()


def test_no_projections_hold_no_zingers():
    assert remove_zingers(np.zeros((0, 4, 4), np.float32)) == 0


@pytest.mark.parametrize(
    ("lines", "threshold", "message"),
    [
        (np.zeros((2, 4, 4)), 0.3, r"float64 \(2, 4, 4\)"),
        (np.zeros((4, 4), np.float32), 0.3, r"float32 \(4, 4\)"),
        (np.zeros((1, 4, 4), np.float32), 0.0, "threshold is 0.0"),
        (np.zeros((1, 4, 4), np.float32), np.nan, "threshold is nan"),
    ],
)
def test_what_cannot_be_cleaned_is_refused(lines, threshold, message):
    with pytest.raises(InputError, match=message):
        remove_zingers(lines, threshold)
