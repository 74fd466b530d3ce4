"""Raw Jungfrau pixels to energy, against the definition pixel by pixel."""

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._jungfrau_energy import jungfrau_energy, pedestal_from_frames

SHAPE = (16, 24)


def maps(rng, shape=SHAPE):
    pedestal = rng.normal([[[3000]], [[14000]], [[14500]]], 50, (3, *shape)).astype(np.float32)
    gain = rng.normal([[[40]], [[-1.5]], [[-0.1]]], 0.01, (3, *shape)).astype(np.float32)
    return pedestal, gain


def by_definition(raw, pedestal, gain):
    energy = np.empty(raw.shape, dtype=np.float32)
    for place in np.ndindex(raw.shape):
        stage = {0: 0, 1: 1, 3: 2}.get(int(raw[place]) >> 14)
        adc = np.float32(int(raw[place]) & 0x3FFF)
        pixel = (stage, *place[-2:])
        energy[place] = np.nan if stage is None else (adc - pedestal[pixel]) / gain[pixel]
    return energy


@pytest.mark.parametrize("shape", [SHAPE, (3, *SHAPE)], ids=["frame", "stack"])
def test_energy_is_that_of_the_definition_in_every_gain(shape):
    rng = np.random.default_rng(1)
    pedestal, gain = maps(rng)
    raw = rng.integers(0, 2**16, shape, dtype=np.uint16)
    assert set(np.unique(raw >> 14)) == {0, 1, 2, 3}
    energy = jungfrau_energy(raw, pedestal, gain)
    assert energy.dtype == np.float32
    np.testing.assert_array_equal(energy, by_definition(raw, pedestal, gain))


def test_frames_in_the_first_gain_alone_are_not_patched_and_out_is_used():
    rng = np.random.default_rng(2)
    pedestal, gain = maps(rng)
    raw = rng.integers(0, 2**14, SHAPE, dtype=np.uint16)
    out = np.empty(SHAPE, dtype=np.float32)
    assert jungfrau_energy(raw, pedestal, gain, out) is out
    np.testing.assert_array_equal(out, by_definition(raw, pedestal, gain))


def test_photons_of_known_energy_are_found_again():
    rng = np.random.default_rng(3)
    pedestal, gain = maps(rng)
    energy = np.full(SHAPE, 12.4, dtype=np.float32)
    energy[::2] = 900.0
    stage = np.where(energy > 100, 1, 0)
    adc = np.take_along_axis(pedestal + energy * gain, stage[np.newaxis], axis=0)[0]
    raw = (np.rint(adc).astype(np.uint16)) | (stage << 14).astype(np.uint16)
    # Half an ADC unit is a third of a keV in G1.
    np.testing.assert_allclose(jungfrau_energy(raw, pedestal, gain), energy, atol=0.4)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_pixel_without_gain_is_nan_and_never_infinite(stage):
    pedestal, gain = maps(np.random.default_rng(4))
    gain[stage, 5, 6] = 0
    raw = np.full(SHAPE, 1000 | {0: 0, 1: 1, 2: 3}[stage] << 14, dtype=np.uint16)
    energy = jungfrau_energy(raw, pedestal, gain)
    assert np.isnan(energy[5, 6])
    assert np.isfinite(np.delete(energy.ravel(), 5 * SHAPE[1] + 6)).all()


@pytest.mark.parametrize(
    ("raw", "pedestal", "gain", "message"),
    [
        (np.zeros(SHAPE, "i4"), np.ones((3, *SHAPE), "f4"), np.ones((3, *SHAPE), "f4"), "raw"),
        (np.zeros(9, "u2"), np.ones((3, *SHAPE), "f4"), np.ones((3, *SHAPE), "f4"), "raw"),
        (np.zeros(SHAPE, "u2"), np.ones((2, *SHAPE), "f4"), np.ones((3, *SHAPE), "f4"), "pedestal"),
        (np.zeros(SHAPE, "u2"), np.ones((3, *SHAPE), "f4"), np.ones((3, *SHAPE), "f8"), "gain"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(raw, pedestal, gain, message):
    with pytest.raises(InputError, match=message):
        jungfrau_energy(raw, pedestal, gain)


def test_an_out_that_does_not_fit_is_refused():
    pedestal, gain = maps(np.random.default_rng(5))
    with pytest.raises(InputError, match="out is float64"):
        jungfrau_energy(np.zeros(SHAPE, "u2"), pedestal, gain, np.empty(SHAPE))


def test_pedestals_are_means_per_stage_whatever_the_order_of_frames():
    rng = np.random.default_rng(6)
    frames = rng.integers(2900, 3100, (60, *SHAPE), dtype=np.uint16)
    frames[20:40] |= 1 << 14
    frames[40:] |= 3 << 14
    frames[7, 3, 3] = 2 << 14 | 5
    pedestal = pedestal_from_frames([frames[:13], frames[13:]])
    adc = (frames & 0x3FFF).astype(np.float64)
    expected = np.stack([adc[k : k + 20].mean(axis=0) for k in (0, 20, 40)]).astype(np.float32)
    expected[0, 3, 3] = np.float32(np.delete(adc[:20, 3, 3], 7).mean())
    np.testing.assert_array_equal(pedestal, expected)
    np.testing.assert_array_equal(pedestal_from_frames([frames[::-1]]), pedestal)


def test_a_stage_that_was_never_seen_has_no_pedestal():
    pedestal = pedestal_from_frames([np.full((4, *SHAPE), 3000, dtype=np.uint16)])
    assert (pedestal[0] == 3000).all()
    assert np.isnan(pedestal[1:]).all()


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [np.zeros((0, *SHAPE), "u2")],
        [np.zeros(SHAPE, "u2")],
        [np.zeros((1, *SHAPE), "u2"), np.zeros((1, 3, 3), "u2")],
    ],
    ids=["none", "empty", "flat", "other"],
)
def test_dark_frames_that_make_no_pedestal_are_refused(chunks):
    with pytest.raises(InputError, match="dark frames"):
        pedestal_from_frames(chunks)
