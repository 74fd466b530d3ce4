"""Slices, bins and a leaning axis: what the engine gets of the recorded frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import FrameGeometry, reconstruct

ROWS, COLUMNS = 41, 60


def smooth_image(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A picture that is known between pixels, too; it varies over about ten of them."""
    blobs = [(12.0, 20.0, 5.0, 1.0), (25.0, 33.0, 4.0, -0.7), (30.0, 15.0, 6.0, 0.5)]
    return sum(
        mu * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
        for y, x, width, mu in blobs
    )


def leaning(tilt_deg: float) -> np.ndarray:
    """What a detector sees that is turned so that the axis leans to higher columns at its top."""
    row, column = np.mgrid[:ROWS, :COLUMNS].astype(float)
    middle_row, middle_column = (ROWS - 1) / 2, (COLUMNS - 1) / 2
    y, x = row - middle_row, column - middle_column
    t = np.deg2rad(tilt_deg)
    # A point of the standing picture is seen where the turned axes put it.
    upright_y = y * np.cos(t) - x * np.sin(t)
    upright_x = x * np.cos(t) + y * np.sin(t)
    return smooth_image(upright_y + middle_row, upright_x + middle_column).astype(np.float32)


@pytest.mark.parametrize("tilt_deg", [0.7, -1.5, 8.0])
def test_a_leaning_axis_is_made_to_stand(tilt_deg):
    geometry = FrameGeometry(ROWS, COLUMNS, 29.5, 6, 36, tilt_deg=tilt_deg)
    rows = geometry.recorded_rows(0, geometry.slices)
    seen = leaning(tilt_deg)[None, rows.start : rows.stop]
    made = geometry.prepare(seen, 0, geometry.slices)[0]
    expected = smooth_image(*np.mgrid[6:36, :COLUMNS].astype(float))
    inner = np.s_[:, 6:-6]
    assert np.abs(made - expected)[inner].max() < 2e-3
    assert np.abs(seen[0, : len(made)] - expected).max() > 0.02


def test_the_tilt_has_the_sign_that_its_option_tells():
    # The axis is a bright line; positive means that its upper end lies at higher columns.
    row, column = np.mgrid[:ROWS, :COLUMNS].astype(float)
    line = 29.5 - np.tan(np.deg2rad(5)) * (row - (ROWS - 1) / 2)
    seen = np.exp(-((column - line) ** 2) / 8).astype(np.float32)[None]
    geometry = FrameGeometry(ROWS, COLUMNS, 29.5, 0, ROWS, tilt_deg=5)
    made = geometry.prepare(seen, 0, ROWS)[0]
    places = (made * np.arange(COLUMNS)).sum(axis=1) / made.sum(axis=1)
    assert np.allclose(places[4:-4], 29.5, atol=0.05)


@pytest.mark.parametrize("changes", [{}, {"tilt_deg": 1.3}, {"bin": 2}, {"bin": 3, "tilt_deg": -2}])
def test_slabs_that_are_made_apart_fit_together_bit_by_bit(changes):
    geometry = FrameGeometry(ROWS, COLUMNS, 29.5, 3, 39, **changes)
    images = np.random.default_rng(5).normal(size=(7, ROWS, COLUMNS)).astype(np.float32)

    def made(first: int, stop: int, chunk: int) -> np.ndarray:
        rows = geometry.recorded_rows(first, stop)
        cut = images[:, rows.start : rows.stop]
        parts = [cut[n : n + chunk] for n in range(0, len(cut), chunk)]
        return np.concatenate([geometry.prepare(part, first, stop) for part in parts])

    whole = made(0, geometry.slices, 7)
    assert whole.shape == (7, geometry.slices, geometry.size)
    cuts = [0, 4, 6, geometry.slices]
    apart = [made(a, b, 2) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(apart, axis=1), whole)


def test_bins_are_means_and_what_fills_none_is_left_out():
    geometry = FrameGeometry(ROWS, COLUMNS + 1, 30, 2, 13, bin=3)
    images = np.random.default_rng(1).normal(size=(2, ROWS, COLUMNS + 1)).astype(np.float32)
    assert (geometry.slices, geometry.size) == (3, 20)
    rows = geometry.recorded_rows(1, 3)
    made = geometry.prepare(images[:, rows.start : rows.stop], 1, 3)
    expected = images[:, 5:11, :60].reshape(2, 2, 3, 20, 3).mean(axis=(2, 4))
    assert np.allclose(made, expected, atol=1e-6)


def test_the_centre_follows_the_bins(disc):
    angles = np.arange(90) * 2.0
    sinogram = disc(30.0, mu=0.01, x0=10.0).sinogram(angles, 128, 61.3)
    geometry = FrameGeometry(2, 128, 61.3, 0, 2, bin=2)
    binned = geometry.prepare(np.repeat(sinogram[:, None], 2, axis=1), 0, 1)
    image = reconstruct(binned, angles, geometry.engine_centre_px, engine="finufft")[0]
    expected = disc(15.0, mu=0.02, x0=5.0).image(64)
    y, x = np.mgrid[-32:32, -32:32]
    inside = (x - 5) ** 2 + y**2 < 12**2
    # A binned pixel is twice as long, so it absorbs twice as much.
    assert abs(image[inside].mean() - 0.02) < 1e-4
    moment = (image * (expected > 0.01) * x).sum() / (image * (expected > 0.01)).sum()
    assert abs(moment - 5) < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"centre_px": -0.1}, "centre -0.1 lies outside the frame of 60 columns"),
        ({"centre_px": 59.5}, "between 0 and 59"),
        ({"first_row": 9, "last_row": 9}, "slices 9:9 are not within the 41 rows"),
        ({"last_row": 42}, "slices 0:42"),
        ({"bin": 0}, "blocks of 0 x 0"),
        ({"bin": 31}, "bin less"),
        ({"tilt_deg": 31.0}, "too large"),
        ({"tilt_deg": float("nan")}, "tilt of nan"),
        ({"centre_px": 2.0, "off_axis": True}, "leaves no overlap"),
    ],
)
def test_what_does_not_fit_the_frame_is_refused(changes, words):
    values = {"centre_px": 29.5, "first_row": 0, "last_row": ROWS, **changes}
    with pytest.raises(InputError, match=words):
        _ = FrameGeometry(ROWS, COLUMNS, **values).size
