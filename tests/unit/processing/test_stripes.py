from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError, SimulationSettings
from apsber_bluesky.processing import (
    reconstruct,
    remove_stripes_by_sorting,
    remove_stripes_by_wavelet,
)
from apsber_bluesky.processing.preprocessing._stripes import _groups, _sort_on_arrays
from apsber_bluesky.processing.preprocessing._wavelets import decompose, recompose, wavelet_filters

METHODS = [remove_stripes_by_sorting, remove_stripes_by_wavelet]
COLUMNS, CENTRE = 256, 129.5
ANGLES = np.arange(360) * 0.5


def column_gains(seed: int = 0) -> np.ndarray:
    """Stripes of the strength that the simulated detector has by default."""
    strength = SimulationSettings().stripe_strength
    gains = 1 + strength * np.random.default_rng(seed).standard_normal(COLUMNS)
    return -np.log(gains).astype(np.float32)


@pytest.fixture(scope="module")
def field():
    y, x = np.mgrid[:COLUMNS, :COLUMNS] - COLUMNS // 2
    return x * x + y * y < (0.4 * COLUMNS) ** 2


@pytest.fixture
def clean(shepp_logan):
    lines = shepp_logan(0.45 * COLUMNS, 2 / COLUMNS).sinogram(ANGLES, COLUMNS, CENTRE)
    return lines[:, None]


def slice_of(lines, field):
    return reconstruct(lines, ANGLES, CENTRE)[0][field]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@pytest.mark.parametrize("method", METHODS)
def test_rings_become_weaker_and_a_clean_slice_hardly_changes(method, clean, field):
    truth = slice_of(clean, field)
    striped = clean + column_gains()
    rings = rms(slice_of(striped, field) - truth)
    method(striped)
    left = rms(slice_of(striped, field) - truth)
    untouched = clean.copy()
    method(untouched)
    change = rms(slice_of(untouched, field) - truth)
    assert rings > 0.05 * truth.max()
    assert left < rings / 2
    assert change < 0.04 * truth.max()


@pytest.mark.parametrize("method", METHODS)
def test_stripes_on_a_smooth_sinogram_vanish(method, disc):
    lines = disc(100, 0.005, 20, 10).sinogram(ANGLES, COLUMNS, CENTRE)[:, None]
    inside = slice(60, 200)
    striped = lines + column_gains(1)
    before = rms((striped - lines)[:, :, inside])
    method(striped)
    assert rms((striped - lines)[:, :, inside]) < before / 2


def test_sorting_removes_a_stripe_that_depends_on_brightness(clean):
    striped = clean.copy()
    striped[:, 0, 128] *= np.float32(1.1)
    before = rms((striped - clean)[:, 0, 128])
    remove_stripes_by_sorting(striped)
    assert rms((striped - clean)[:, 0, 128]) < before / 3


def test_sorting_is_that_of_the_published_algorithm_up_to_its_groups(clean):
    """Each rank smoothed on its own by sorting, as Vo, Atwood and Drakopoulos describe it."""
    from scipy import ndimage

    striped = clean + column_gains(2)
    order = np.argsort(striped[:, 0], axis=0)
    ranked = np.take_along_axis(striped[:, 0], order, axis=0)
    smooth = ndimage.median_filter(ranked, (1, 15), mode="nearest")
    published = np.empty_like(smooth)
    np.put_along_axis(published, order, smooth, axis=0)
    rest = published - clean[:, 0]
    remove_stripes_by_sorting(striped)
    assert rms(striped[:, 0] - clean[:, 0]) < 1.05 * rms(rest)
    assert rms(striped[:, 0] - published) < rms(rest)


@pytest.mark.parametrize(
    ("shape", "size"), [((50, 2, 40), 5), ((3, 1, 7), 3), ((1, 1, 5), 21), ((400, 1, 33), 15)]
)
def test_compiled_sorting_is_that_of_the_array_functions(shape, size):
    # On few levels, since the radix sort tells ranks apart to 1/65536 of the range.
    lines = np.random.default_rng(3).integers(-100, 400, shape).astype(np.float32) / 100
    arrays, compiled = lines.copy(), lines.copy()
    _sort_on_arrays(np, arrays, size, _groups(shape[0]))
    remove_stripes_by_sorting(compiled, size=size)
    np.testing.assert_allclose(compiled, arrays, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_each_row_is_corrected_on_its_own(method):
    lines = np.random.default_rng(4).normal(1, 0.1, (60, 5, 48)).astype(np.float32)
    whole, alone = lines.copy(), lines[:, 3:4].copy()
    method(whole)
    method(alone)
    np.testing.assert_array_equal(whole[:, 3:4], alone)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 2, 3), (0, 2, 8), (7, 1, 100), (100, 1, 7)])
def test_sinograms_of_any_size_stay_finite(method, shape):
    lines = np.random.default_rng(5).normal(1, 0.1, shape).astype(np.float32)
    method(lines)
    assert np.isfinite(lines).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_sinogram_stays_as_it_is(method):
    lines = np.full((64, 1, 64), 0.7, np.float32)
    method(lines)
    np.testing.assert_allclose(lines, 0.7, atol=1e-5)


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_wavelets_are_orthonormal_and_blind_to_polynomials(moments):
    low, high = (taps.astype(np.float64) for taps in wavelet_filters(moments))
    for shift in range(moments):
        expected = 1.0 if shift == 0 else 0.0
        moved = slice(2 * shift, None), slice(None, len(low) - 2 * shift)
        assert low[moved[0]] @ low[moved[1]] == pytest.approx(expected, abs=1e-6)
        assert high[moved[0]] @ high[moved[1]] == pytest.approx(expected, abs=1e-6)
        assert low[moved[0]] @ high[moved[1]] == pytest.approx(0, abs=1e-6)
    places = np.arange(len(high)) / len(high)
    for power in range(moments):
        assert high @ places**power == pytest.approx(0, abs=1e-5)


def test_bands_are_put_together_as_they_were_taken_apart():
    rng = np.random.default_rng(6)
    filters = wavelet_filters()
    slow, across = (rng.standard_normal((16, 24)).astype(np.float32) for _ in range(2))
    again = decompose(np, recompose(np, slow, across, filters), filters)
    np.testing.assert_allclose(again[0], slow, atol=1e-5)
    np.testing.assert_allclose(again[1], across, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (remove_stripes_by_sorting, {"size": 4}, "size is 4; give an odd"),
        (remove_stripes_by_sorting, {"size": 1}, "size is 1"),
        (remove_stripes_by_wavelet, {"sigma": 0.0}, "sigma is 0.0"),
        (remove_stripes_by_wavelet, {"levels": 0}, "levels is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        method(np.zeros((4, 1, 8), np.float32), **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lines", [np.zeros((4, 8), np.float32), np.zeros((4, 1, 8))])
def test_what_is_no_stack_of_line_integrals_is_refused(method, lines):
    with pytest.raises(InputError, match="give float32"):
        method(lines)
