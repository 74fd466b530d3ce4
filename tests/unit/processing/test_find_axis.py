"""The rotation axis from two opposite projections of a known object about a known axis."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import find_axis
from apsber_bluesky.simulation import make_phantom


def pair(size, offset_px, roll_deg, phantom="soil", noise=0.005):
    """Two opposite projections about an axis of known column and lean."""
    random = np.random.default_rng(0)
    centre, margin = (size - 1) / 2 + offset_px, size // 8
    cosine, sine = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    pivot = np.array([(size + 2 * margin - 1) / 2, centre])
    upright = np.array([[cosine, sine], [-sine, cosine]])
    images = []
    for angle in (20.0, 200.0):
        image = make_phantom(phantom).project(
            angle, rows=size + 2 * margin, columns=size, centre_px=centre
        )
        image = ndimage.affine_transform(image, upright, pivot - upright @ pivot)
        image = image[margin : margin + size]
        images.append(image + noise * random.standard_normal(image.shape).astype(np.float32))
    return centre, images


@pytest.mark.parametrize(
    ("size", "offset_px", "roll_deg"),
    [(128, 0.0, 0.0), (128, 3.25, 1.0), (128, -7.4, -2.5), (500, 12.5, 0.3)],
)
def test_column_and_lean_are_found_to_hundredths(size, offset_px, roll_deg):
    centre, (first, opposite) = pair(size, offset_px, roll_deg)
    found = find_axis(first, opposite)
    assert found.column_px == pytest.approx(centre, abs=0.03)
    assert found.roll_deg == pytest.approx(roll_deg, abs=0.03)
    assert found.match > 0.99
    assert 0 < found.column_error_px < 0.05


def test_an_axis_far_from_the_middle_is_found():
    centre, (first, opposite) = pair(256, 50.0, 2.0, phantom="shepp_logan")
    found = find_axis(first, opposite)
    assert found.column_px == pytest.approx(centre, abs=0.1)
    assert found.roll_deg == pytest.approx(2.0, abs=0.1)


def test_equal_input_gives_equal_bits():
    _, (first, opposite) = pair(96, 2.0, 0.5)
    assert find_axis(first, opposite) == find_axis(first, opposite)


def test_pictures_that_are_no_opposites_are_refused():
    _, (first, _) = pair(96, 2.0, 0.0)
    noise = np.random.default_rng(1).standard_normal(first.shape).astype(np.float32)
    with pytest.raises(InputError, match="match about no axis"):
        find_axis(first, noise)


@pytest.mark.parametrize(
    ("first", "opposite", "words"),
    [
        (np.zeros((8, 8), np.float32), np.zeros((8, 9), np.float32), "shapes"),
        (np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32), "shows nothing"),
        (np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32), "4 x 4"),
    ],
)
def test_pictures_without_anything_to_see_are_refused(first, opposite, words):
    with pytest.raises(InputError, match=words):
        find_axis(first, opposite)
