from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import MINIMUM_TRANSMISSION, Normaliser, normalise

DARK = np.full((6, 8), 100.0, dtype=np.float32)
FLAT = np.full((6, 8), 40100.0, dtype=np.float32) + np.arange(8, dtype=np.float32) * 50


def counts(lines: np.ndarray, dtype: str = "<f4") -> np.ndarray:
    return (DARK + (FLAT - DARK) * np.exp(-lines)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("<f4", 2e-6), ("<u2", 2e-4), ("<i4", 2e-4)])
def test_beer_lambert_is_inverted(dtype, tolerance):
    lines = np.random.default_rng(0).uniform(0, 2, (5, 6, 8))
    result = normalise(counts(lines, dtype), DARK, FLAT)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, lines, atol=tolerance)


def test_projections_may_be_normalised_in_place():
    lines = np.random.default_rng(1).uniform(0, 2, (3, 6, 8))
    frames = counts(lines)
    expected = normalise(frames, DARK, FLAT)
    result = normalise(frames, DARK, FLAT, out=frames)
    assert result is frames
    np.testing.assert_array_equal(frames, expected)


def test_the_result_does_not_depend_on_chunks():
    frames = counts(np.random.default_rng(2).uniform(0, 3, (7, 6, 8)), "<u2")
    prepared = Normaliser(DARK, FLAT)
    whole = prepared(frames)
    pieces = [prepared(frames[:1]), prepared(frames[1:5]), prepared(frames[5:])]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))


def test_counts_at_or_below_the_dark_end_at_the_minimum_transmission():
    frames = np.zeros((1, 6, 8), dtype=np.uint16)
    frames[0, 1, 1] = 100
    result = normalise(frames, DARK, FLAT)
    np.testing.assert_allclose(result, -np.log(MINIMUM_TRANSMISSION), rtol=1e-6)


def test_dead_pixels_take_the_line_between_their_neighbours():
    ramp = np.broadcast_to(np.linspace(0, 0.7, 8), (2, 6, 8))
    flat = FLAT.copy()
    frames = counts(ramp)
    for row, column in ((0, 3), (0, 4), (2, 0), (3, 7)):
        flat[row, column] = frames[:, row, column] = 100
    result = normalise(frames, DARK, flat)
    np.testing.assert_allclose(result[:, 0], ramp[:, 0], atol=2e-6)
    np.testing.assert_allclose(result[:, 2, 0], 0.1, atol=2e-6)
    np.testing.assert_allclose(result[:, 3, 7], 0.6, atol=2e-6)


def test_a_dead_row_repeats_its_neighbour():
    lines = np.random.default_rng(5).uniform(0, 2, (2, 6, 8))
    flat, frames = FLAT.copy(), counts(lines)
    flat[4:] = frames[:, 4:] = 100
    result = normalise(frames, DARK, flat)
    np.testing.assert_array_equal(result[:, 4], result[:, 3])
    np.testing.assert_array_equal(result[:, 5], result[:, 3])


def test_a_mask_given_by_hand_is_used():
    frames = counts(np.zeros((1, 6, 8)))
    frames[0, 2, 2] = 5
    bad = np.zeros((6, 8), dtype=bool)
    bad[2, 2] = True
    np.testing.assert_allclose(normalise(frames, DARK, FLAT, bad=bad), 0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 65535), min_size=48, max_size=48),
    st.lists(st.integers(0, 65535), min_size=48, max_size=48),
    st.lists(st.integers(0, 300), min_size=48, max_size=48),
)
def test_any_counts_give_finite_line_integrals(frame, flat, dark):
    images = [np.array(v, dtype=np.uint16).reshape(6, 8) for v in (frame, flat, dark)]
    try:
        result = normalise(images[0][None], images[2], images[1])
    except InputError as error:
        assert "nowhere brighter" in str(error)  # noqa: PT017
        return
    assert np.isfinite(result).all()
    assert result.max() <= -np.log(MINIMUM_TRANSMISSION) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((2, 6, 9)), {}, r"shape \(2, 6, 9\)"),
        (np.zeros((6, 8)), {}, r"shape \(6, 8\)"),
        (np.full((2, 6, 8), np.nan), {}, "projection 0 of the chunk holds NaN"),
        (np.ones((2, 6, 8)), {"out": np.zeros((2, 6, 8))}, "out is float64"),
        (np.ones((2, 6, 8)), {"bad": np.ones((6, 8))}, "every pixel is marked"),
        (np.ones((2, 6, 8)), {"bad": np.zeros((6, 7))}, "bad pixels have shape"),
        (np.ones((2, 6, 8)), {"minimum_transmission": 0.0}, "minimum_transmission is 0.0"),
    ],
)
def test_input_that_does_not_fit_is_refused(frames, options, message):
    with pytest.raises(InputError, match=message):
        normalise(frames, DARK, FLAT, **options)
