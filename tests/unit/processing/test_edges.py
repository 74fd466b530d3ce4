"""Rows that end inside the object, and what their continuation does to a slice."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import extend_edges, reconstruct
from apsber_bluesky.processing._filters import ramp_filter

COLUMNS, COUNT, MU = 128, 200, 0.01
ANGLES = np.arange(COUNT) * 180 / COUNT
CENTRE = (COLUMNS - 1) / 2


def disc(radius: float, x: float = 0.0, rows: int = 1) -> np.ndarray:
    """Projections of a disc, in halves of the view."""
    half = COLUMNS / 2
    away = np.arange(COLUMNS)[None] - CENTRE - x * half * np.cos(np.deg2rad(ANGLES))[:, None]
    lines = 2 * MU * np.sqrt(np.maximum((radius * half) ** 2 - away**2, 0))
    return np.repeat(lines[:, None], rows, axis=1).astype(np.float32)


def ring(image: np.ndarray, first: float, last: float) -> float:
    """Mean attenuation between two radii, as a part of the true one."""
    y, x = np.mgrid[:COLUMNS, :COLUMNS] - COLUMNS // 2
    away = np.hypot(x, y) / (COLUMNS / 2)
    return float(image[(away >= first) & (away < last)].mean() / MU)


@pytest.mark.parametrize("engine", ["gridding", "finufft"])
@pytest.mark.parametrize(("radius", "x"), [(1.1, 0.0), (1.5, 0.0), (1.5, 0.3), (2.5, 0.2)])
def test_a_disc_wider_than_the_view_is_flat_and_has_its_value(engine, radius, x):
    lines = disc(radius, x)
    cupped = reconstruct(lines, ANGLES, CENTRE, engine=engine)[0]
    extend_edges(lines)
    image = reconstruct(lines, ANGLES, CENTRE, engine=engine)[0]
    assert ring(image, 0, 0.3) == pytest.approx(1, abs=0.03)
    assert ring(image, 0.8, 0.9) == pytest.approx(ring(image, 0, 0.3), abs=0.02)
    # That is what it is for.
    assert ring(cupped, 0.8, 0.9) > ring(cupped, 0, 0.3) + 0.05


def test_noise_of_the_edges_does_not_spoil_the_slice():
    lines = disc(1.5)
    lines += np.random.default_rng(0).normal(0, 0.05, lines.shape).astype(np.float32)
    extend_edges(lines)
    image = reconstruct(lines, ANGLES, CENTRE)[0]
    assert ring(image, 0, 0.3) == pytest.approx(1, abs=0.03)
    assert ring(image, 0.8, 0.9) == pytest.approx(1, abs=0.03)


def test_an_object_within_the_view_stays_as_it_is():
    lines = disc(0.8)
    before = lines.copy()
    extend_edges(lines)
    np.testing.assert_array_equal(lines, before)


def test_inside_the_view_it_filters_as_the_longer_row_would():
    # Through a disc of exactly a radius that is tabulated, so that nothing is interpolated.
    radius = 1 + np.geomspace(0.02, 2.0, 14)[10]
    wide = 4 * COLUMNS
    away = np.arange(wide) - wide // 2 + COLUMNS // 2 - CENTRE
    long = np.sqrt(np.maximum(1 - (away / CENTRE) ** 2 / radius**2, 0)).astype(np.float32)
    inside = slice(wide // 2 - COLUMNS // 2, wide // 2 + COLUMNS // 2)
    row = long[inside].copy()
    short = row[None, None].copy()
    extend_edges(short)

    def filtered(values):
        spectrum = np.fft.fft(values, 2 * wide) * ramp_filter(2 * wide, "ramp")
        return np.fft.ifft(spectrum).real[: len(values)]

    expected = filtered(long)[inside]
    # The edge value is the mean of four columns, which is not quite that of the last one.
    assert np.abs(filtered(short[0, 0]) - expected)[4:-4].max() < 0.01 * expected.max()
    assert np.abs(filtered(row) - expected)[4:-4].max() > 0.5 * expected.max()


def test_a_row_does_not_depend_on_those_beside_it():
    lines = np.random.default_rng(1).uniform(0, 2, (5, 9, 70)).astype(np.float32)
    whole, part, column_major = lines.copy(), lines[1:3, 4:5].copy(), np.asfortranarray(lines)
    for each in (whole, part, column_major):
        extend_edges(each)
    np.testing.assert_array_equal(whole[1:3, 4:5], part)
    np.testing.assert_array_equal(whole, column_major)


@pytest.mark.parametrize("columns", [2, 3, 4, 5, 17])
def test_narrow_and_odd_rows_stay_finite(columns):
    lines = np.random.default_rng(2).uniform(-1, 2, (3, 2, columns)).astype(np.float32)
    extend_edges(lines)
    assert np.isfinite(lines).all()


def test_nothing_is_extended_without_a_word():
    empty = np.zeros((0, 3, 8), np.float32)
    extend_edges(empty)
    assert empty.shape == (0, 3, 8)


@pytest.mark.parametrize("lines", [np.zeros((3, 8), np.float32), np.zeros((1, 3, 8))])
def test_other_arrays_are_refused(lines):
    with pytest.raises(InputError, match="give float32"):
        extend_edges(lines)
