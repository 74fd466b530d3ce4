"""Raw Jungfrau pixels to energy, against the definition pixel by pixel."""

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.jungfrau._energy import (
    JungfrauConverter,
    jungfrau_energy,
    pedestal_from_frames,
)

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


def test_an_out_that_is_not_contiguous_is_refused_for_it_would_stay_empty():
    pedestal, gain = maps(np.random.default_rng(5))
    out = np.empty((SHAPE[0], 2 * SHAPE[1]), dtype=np.float32)[:, ::2]
    with pytest.raises(InputError, match="out is not contiguous"):
        jungfrau_energy(np.zeros(SHAPE, "u2"), pedestal, gain, out)


def test_blocks_of_rows_make_no_difference():
    shape = (300, 1024)
    rng = np.random.default_rng(7)
    pedestal, gain = maps(rng, shape)
    raw = rng.integers(0, 2**16, (2, *shape), dtype=np.uint16)
    energy = jungfrau_energy(raw, pedestal, gain)
    for place in [(0, 63, 5), (0, 64, 5), (1, 127, 1023), (1, 128, 0), (1, 299, 7)]:
        one = (slice(None), slice(place[1], place[1] + 1), slice(place[2], place[2] + 1))
        expected = by_definition(raw[one][place[0]], pedestal[one], gain[one])
        np.testing.assert_array_equal(energy[place], expected[0, 0])
    rows = np.concatenate(
        [jungfrau_energy(raw[:, n : n + 1], pedestal[:, n : n + 1], gain[:, n : n + 1])
         for n in range(shape[0])],
        axis=1,
    )  # fmt: skip
    np.testing.assert_array_equal(energy, rows)


def test_where_every_energy_is_known_the_converter_gives_those_of_the_definition():
    rng = np.random.default_rng(8)
    pedestal, gain = maps(rng)
    raw = rng.integers(0, 2**16, (4, *SHAPE), dtype=np.uint16)
    raw[(raw >> 14) == 2] = 3000
    converter = JungfrauConverter(pedestal, gain)
    np.testing.assert_array_equal(converter(raw), by_definition(raw, pedestal, gain))
    assert (converter.frames, converter.dead_pixels) == (4, 0)
    assert (converter.invalid_pixels, converter.uncalibrated_pixels) == (0, 0)


def test_pixels_of_unknown_energy_are_interpolated_in_their_row_and_counted():
    pedestal = np.zeros((3, 4, 6), dtype=np.float32)
    gain = np.ones((3, 4, 6), dtype=np.float32)
    gain[1, 1, 3] = np.nan
    raw = np.tile(np.arange(0, 60, 10, dtype=np.uint16), (2, 4, 1))
    raw[0, 0, 2] = 2 << 14 | 5
    raw[1, 1, 3] = 1 << 14 | 5
    raw[1, 2, :] = 2 << 14
    raw[1, 3, 0] = 2 << 14
    converter = JungfrauConverter(pedestal, gain)
    energy = converter(raw)
    expected = np.tile(np.arange(0, 60, 10, dtype=np.float32), (2, 4, 1))
    # A row without a good pixel is dark; at an edge the nearest good pixel is repeated.
    expected[1, 2] = 0
    expected[1, 3, 0] = 10
    np.testing.assert_array_equal(energy, expected)
    assert (converter.invalid_pixels, converter.uncalibrated_pixels) == (8, 1)


@pytest.mark.parametrize("stage", ["pedestal", "gain"])
def test_a_pixel_that_was_never_calibrated_is_dead_in_all_frames_and_lends_nothing(stage):
    pedestal = np.zeros((3, 1, 5), dtype=np.float32)
    gain = np.ones((3, 1, 5), dtype=np.float32)
    {"pedestal": pedestal, "gain": gain}[stage][0, 0, 3] = np.nan
    raw = np.array([[[0, 10, 2 << 14, 9999, 40]], [[1, 2, 3, 1 << 14 | 7, 5]]], dtype=np.uint16)
    converter = JungfrauConverter(pedestal, gain)
    energy = converter(raw)
    np.testing.assert_array_equal(energy, [[[0, 10, 20, 0, 40]], [[1, 2, 3, 0, 5]]])
    assert converter.dead_pixels == 1
    assert converter.uncalibrated_pixels == 0


def test_frames_of_another_detector_are_refused_by_the_converter():
    converter = JungfrauConverter(*maps(np.random.default_rng(9)))
    with pytest.raises(InputError, match="pedestal"):
        converter(np.zeros((1, 8, 8), dtype=np.uint16))
    with pytest.raises(InputError, match="raw frames are int16"):
        converter(np.zeros((1, *SHAPE), dtype=np.int16))


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
