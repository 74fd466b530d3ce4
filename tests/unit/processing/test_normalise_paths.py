"""Every way through the normalisation gives the same line integrals."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import MINIMUM_TRANSMISSION, Normaliser

ROWS, COLUMNS = 9, 37
COUNTS = {"u1": 255, "u2": 65535, "u4": 2**24, "f4": 65535, "i4": 65535, "f8": 65535, ">u2": 65535}


def setup(top: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    dark = rng.uniform(0, 0.02, (ROWS, COLUMNS)) * top
    flat = dark + rng.uniform(0.4, 0.9, (ROWS, COLUMNS)) * top
    frames = rng.integers(0, int(top), (5, ROWS, COLUMNS), endpoint=True)
    return frames, dark.astype(np.float32), flat.astype(np.float32)


def expected(frames, dark, flat):
    light = (frames.astype(np.float64) - dark) / (flat.astype(np.float64) - dark)
    return -np.log(np.maximum(light, MINIMUM_TRANSMISSION))


@pytest.mark.parametrize("dtype", sorted(COUNTS))
def test_counts_of_every_kind_give_the_logarithm(dtype):
    frames, dark, flat = setup(COUNTS[dtype])
    frames = frames.astype(dtype)
    found = Normaliser(dark, flat, bad=np.zeros((ROWS, COLUMNS)))(frames)
    # Besides the logarithm, transmissions are rounded to float32 and lose digits near the dark.
    light = np.maximum(np.exp(-expected(frames, dark, flat)), 1e-3)
    assert np.abs(found - expected(frames, dark, flat)).max() < (1e-6 / light).max()
    np.testing.assert_allclose(found, expected(frames, dark, flat), rtol=2e-5, atol=1e-6)


def test_the_logarithm_is_that_of_numpy_within_3e_7():
    transmission = np.geomspace(MINIMUM_TRANSMISSION, 8, 200_001, dtype=np.float32)
    frames = transmission.reshape(1, 1, -1)
    shape = frames.shape[1:]
    found = Normaliser(np.zeros(shape), np.ones(shape), bad=np.zeros(shape))(frames)
    exact = -np.log(frames.astype(np.float64))
    assert (np.abs(found - exact) / np.maximum(np.abs(exact), 1)).max() < 3e-7
    near_one = np.abs(exact) < 0.5
    assert np.abs(found - exact)[near_one].max() < 3e-7
    assert found[0, 0, np.argmin(np.abs(transmission - 1))] == pytest.approx(
        exact[0, 0, np.argmin(np.abs(transmission - 1))], abs=1e-9
    )


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_pixel_depends_neither_on_its_place_nor_on_its_neighbours(dtype):
    """Vector and remainder of a loop, aligned or not, whole or in place: the same bits."""
    rng = np.random.default_rng(1)
    frames = rng.integers(1, 255, (1, 1, 203)).astype(dtype)
    flat = rng.uniform(150, 300, (1, 203)).astype(np.float32)
    whole = Normaliser(np.zeros_like(flat), flat, bad=np.zeros_like(flat))(frames)
    for start in range(0, 200, 7):
        part = slice(start, start + 3)
        own = Normaliser(np.zeros((1, 3)), flat[:, part], bad=np.zeros((1, 3)))
        np.testing.assert_array_equal(own(frames[:, :, part]), whole[:, :, part])
    lines = frames.astype(np.float32)
    made = Normaliser(np.zeros_like(flat), flat, bad=np.zeros_like(flat))
    assert made(lines, lines) is lines
    np.testing.assert_array_equal(lines, whole)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_array_functions_are_the_twin_of_the_compiled_code(several, dtype):
    frames, dark, flat = setup(60000)
    bad = np.zeros((ROWS, COLUMNS), bool)
    bad[2, 3] = bad[5] = True
    flats = np.stack([flat, 1.1 * flat]) if several else flat
    made = Normaliser(dark, flats, bad=bad, flat_positions=[0, 5] if several else None)
    positions = np.arange(5) if several else None
    frames = frames.astype(dtype)
    twin = np.empty(frames.shape, np.float32)
    made._on_arrays(np, frames, twin, made._between(positions, 5))
    made._repair(twin)
    np.testing.assert_allclose(made(frames, positions=positions), twin, rtol=3e-7, atol=3e-7)


def test_array_functions_refuse_what_is_not_finite():
    made = Normaliser(np.zeros((2, 2)), np.ones((2, 2)))
    frames = np.ones((2, 2, 2), np.float32)
    frames[1, 0, 0] = np.inf
    with pytest.raises(InputError, match="projection 1 of the chunk"):
        made._on_arrays(np, frames, np.empty_like(frames), made._between(None, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("place", [(0, 0), (3, 17), (8, 36)])
def test_one_count_that_is_not_finite_is_found(value, dtype, place):
    frames, dark, flat = setup(1000)
    frames = frames.astype(dtype)
    frames[3][place] = value
    with pytest.raises(InputError, match="projection 3 of the chunk holds NaN or infinite"):
        Normaliser(dark, flat)(frames)


def test_lent_and_strided_frames_are_normalised():
    frames, dark, flat = setup(60000)
    made = Normaliser(dark, flat)
    expected_lines = made(frames.astype("u2"))
    wide = np.zeros((5, ROWS, 2 * COLUMNS), "u2")
    wide[:, :, ::2] = frames
    wide.flags.writeable = False
    np.testing.assert_array_equal(made(wide[:, :, ::2]), expected_lines)
    out = np.zeros((5, ROWS, 2 * COLUMNS), np.float32)
    made(frames.astype("u2"), out[:, :, 1::2])
    np.testing.assert_array_equal(out[:, :, 1::2], expected_lines)
    assert not out[:, :, ::2].any()


def test_a_beam_that_decays_is_followed_by_interpolated_flats():
    """The beam falls linearly to 80 %; flats were taken before, in the middle and after."""
    lines = np.random.default_rng(2).uniform(0, 2, (11, ROWS, COLUMNS))
    _, dark, flat = setup(40000)
    beam = 1 - 0.02 * np.arange(11)
    gain = flat - dark
    frames = dark + gain * beam[:, None, None] * np.exp(-lines)
    flats = np.stack([dark + gain * level for level in (1.0, 0.9, 0.8)])
    made = Normaliser(dark, flats, flat_positions=[0, 5, 10])
    np.testing.assert_allclose(made(frames, positions=np.arange(11)), lines, atol=2e-5)
    pieces = [made(frames[a:b], positions=np.arange(a, b)) for a, b in ((0, 4), (4, 11))]
    np.testing.assert_array_equal(made(frames, positions=np.arange(11)), np.concatenate(pieces))
    average = Normaliser(dark, flats.mean(axis=0))(frames)
    assert np.abs(average - lines).max() > 0.1


def test_outside_the_flats_the_nearest_one_holds():
    _, dark, flat = setup(40000)
    made = Normaliser(dark, np.stack([flat, 2 * flat - dark]), flat_positions=[3.0, 4.0])
    frames = np.stack([flat, 2 * flat - dark])
    np.testing.assert_allclose(made(frames, positions=[-50, 70]), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("positions", "asked", "message"),
    [
        (None, [0], "average them, or say by flat_positions"),
        ([0, 0], [0], "rising"),
        ([1, 0], [0], "rising"),
        ([0, np.nan], [0], "rising"),
        ([0], [0], r"flat_positions are \[0.0\] for 2 flats"),
        ([0, 1], None, "give the positions of the projections"),
        ([0, 1], [0, 1], r"positions have shape \(2,\) for 1 projections"),
        ([0, 1], [np.nan], "one finite number"),
    ],
)
def test_positions_that_do_not_fit_are_refused(positions, asked, message):
    flats = np.full((2, 3, 3), 100.0)
    with pytest.raises(InputError, match=message):
        Normaliser(np.zeros((3, 3)), flats, flat_positions=positions)(
            np.ones((1, 3, 3)), positions=asked
        )
