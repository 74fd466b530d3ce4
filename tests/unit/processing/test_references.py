from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import average_reference, bad_pixels


def test_the_average_is_the_mean_in_float32():
    frames = np.array([[[1, 65535]], [[2, 65535]], [[4, 65534]]], dtype=np.uint16)
    mean = average_reference(frames, what="darks")
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, [[7 / 3, 65534 + 2 / 3]], rtol=1e-7)


def test_many_bright_frames_do_not_lose_precision():
    frames = np.full((5000, 1, 2), 60001, dtype=np.uint16)
    assert (average_reference(frames, what="flats") == 60001).all()


@pytest.mark.parametrize(
    ("frames", "what", "message"),
    [
        (np.zeros((0, 4, 4)), "darks", r"darks have shape \(0, 4, 4\)"),
        (np.zeros((4, 4)), "flats", r"flats have shape \(4, 4\)"),
        (np.full((2, 3, 3), np.nan), "darks", "darks hold NaN or infinite counts in 9 of 9"),
        (np.array([[[np.inf, 1]], [[-np.inf, 1]]]), "flats", "flats hold NaN .* in 1 of 2"),
        (np.zeros((3, 2, 2), dtype=np.uint16), "flats", "all 3 flats are zero"),
    ],
)
def test_unusable_references_are_refused_by_name(frames, what, message):
    with pytest.raises(InputError, match=message):
        average_reference(frames, what=what)


def test_darks_may_be_zero():
    assert not average_reference(np.zeros((2, 3, 3), dtype=np.uint16), what="darks").any()


def test_dead_hot_and_weak_pixels_are_found_and_stripes_are_not():
    rng = np.random.default_rng(3)
    dark = rng.normal(100, 3, (40, 60))
    flat = 100 + 30000 * rng.normal(1, 0.02, (1, 60)) * np.linspace(0.6, 1, 40)[:, None]
    flat[:, 30] *= 0.8
    planted = np.zeros((40, 60), dtype=bool)
    planted[[3, 17, 39, 0], [5, 59, 0, 0]] = True
    flat[3, 5] = dark[3, 5]
    flat[17, 59] = dark[17, 59] - 2
    dark[39, 0] = flat[39, 0] = 65535
    flat[0, 0] = 100 + 3000
    np.testing.assert_array_equal(bad_pixels(dark, flat), planted)


def test_a_dead_module_wider_than_the_neighbourhood_is_found():
    rng = np.random.default_rng(4)
    dark = rng.normal(100, 1, (32, 64))
    flat = dark + 20000
    flat[:, 20:40] = rng.normal(101, 1, (32, 20))
    bad = bad_pixels(dark, flat)
    assert bad[:, 20:40].all()
    assert not bad[:, :20].any()
    assert not bad[:, 40:].any()


@pytest.mark.parametrize(
    ("dark", "flat", "message"),
    [
        (np.full((3, 4), 9.0), np.full((3, 4), 9.0), "nowhere brighter"),
        (np.zeros((3, 4)), np.ones((4, 3)), "of one camera"),
        (np.zeros((3, 4)), np.full((3, 4), np.nan), "mean flat holds NaN"),
        (np.zeros(4), np.ones(4), r"mean dark has shape \(4,\)"),
    ],
)
def test_references_that_do_not_fit_are_refused(dark, flat, message):
    with pytest.raises(InputError, match=message):
        bad_pixels(dark, flat)
