from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import create_engine
from apsber_bluesky.processing.accelerators import _tomocupy_engine as adapter

# TomocuPy itself needs a device; these are the parts that do not.


@pytest.fixture(scope="module")
def disc_image():
    """The test disc, reconstructed by another engine about the middle of TomocuPy's grid."""
    angles = np.arange(180.0)
    sinogram = adapter.disc_sinogram(angles, 128, 64.0)
    engine = create_engine("finufft", rows=1, columns=128, angles_deg=angles)
    engine.accumulate(sinogram[:, None], 0)
    return engine.finish(slice(None), 64.0)[0]


def test_the_test_disc_is_one_and_stands_upright(disc_image):
    scale, upside_down = adapter.scale_of_disc(disc_image)
    assert scale == pytest.approx(1, rel=2e-3)
    assert not upside_down


@pytest.mark.parametrize("factor", [0.01, 37.0])
def test_an_unknown_scale_and_direction_are_found(disc_image, factor):
    scale, upside_down = adapter.scale_of_disc(np.roll(disc_image[::-1] * factor, 1, axis=0))
    assert scale * factor == pytest.approx(1, rel=2e-3)
    assert upside_down


def test_a_disc_at_a_wrong_place_is_refused(disc_image):
    with pytest.raises(InputError, match="its conventions have changed"):
        adapter.scale_of_disc(disc_image.T)
    with pytest.raises(InputError, match="its conventions have changed"):
        adapter.scale_of_disc(np.zeros((128, 128), dtype=np.float32))


def test_the_phase_moves_the_axis_to_the_middle():
    row = np.zeros(256)
    row[100] = 1
    moved = np.fft.irfft(np.fft.rfft(row) * adapter.phase(256, 64, 20.0))
    assert np.argmax(moved) == 100 + 32 - 20


def test_a_slab_is_filled_up_to_sixteen_and_weighted():
    sinograms = np.random.default_rng(0).random((3, 5, 8), dtype=np.float32)
    weights = np.arange(5.0)
    slab = adapter.slab_of(sinograms, weights)
    assert slab.shape == (16, 5, 8)
    assert slab.dtype == np.float32
    np.testing.assert_allclose(slab[:3], sinograms * weights[None, :, None], rtol=1e-6)
    assert not slab[3:].any()


def test_an_odd_number_of_columns_is_refused():
    with pytest.raises(InputError, match="even number of columns, not 65"):
        adapter.TomocupyEngine(4, 65, [0.0, 90.0], "ramp", 1)
