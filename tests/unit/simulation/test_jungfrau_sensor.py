"""The simulated Jungfrau's pixels, and the commands that set its chips."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._jungfrau_ioc_commands import ChipSettings, obey
from apsber_bluesky.simulation._jungfrau_ioc_sensor import JungfrauSensor

ROWS, COLUMNS = 24, 32
# Photons of 12.4 keV: each of these fits its stage alone.
KEV = {0: 12.4 * 5, 1: 12.4 * 200, 2: 12.4 * 4000}
BITS = (0, 1, 3)


@pytest.fixture(scope="module")
def sensor() -> JungfrauSensor:
    return JungfrauSensor(ROWS, COLUMNS, seed=3)


def take(sensor: JungfrauSensor, energy: float, frames: int = 1, **settings: object) -> np.ndarray:
    random = np.random.default_rng(5)
    image = np.full((ROWS, COLUMNS), energy)
    return np.stack([sensor.expose(image, random, **settings) for _ in range(frames)])


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_charge_chooses_the_gain_stage_and_the_adc_tells_the_energy(sensor, stage):
    raw = take(sensor, KEV[stage], frames=50, exposure_s=0.01)
    assert set(np.unique(raw >> 14)) == {BITS[stage]}
    pedestal = sensor.pedestal(15, exposure_s=0.01)[stage]
    mean = (raw & 0x3FFF).mean(axis=0)
    energy = (mean - pedestal) / sensor.gain[stage]
    error_keV = 10 / np.sqrt(50) / np.abs(sensor.gain[stage])
    assert np.abs((energy - KEV[stage]) / error_keV).max() < 6


@pytest.mark.parametrize(("mode", "stage"), [("forceswitchg1", 1), ("forceswitchg2", 2)])
def test_forced_in_the_dark_every_pixel_reads_the_pedestal_of_its_stage(sensor, mode, stage):
    raw = take(sensor, 0.0, frames=50, mode=mode, exposure_s=0.01)
    assert set(np.unique(raw >> 14)) == {BITS[stage]}
    mean = (raw & 0x3FFF).mean(axis=0)
    expected = sensor.pedestal(15, exposure_s=0.01)[stage]
    assert np.abs(mean - expected).max() < 6 * 4 / np.sqrt(50)


def test_pixels_and_storage_cells_differ_and_pedestals_drift_and_leak(sensor):
    one, other = sensor.pedestal(15), sensor.pedestal(3)
    assert (one.std(axis=(1, 2)) > 50).all()
    assert (one - other).std() > 30
    later = sensor.pedestal(15, time_s=1800)
    assert 0.5 < np.abs(later - one).mean() < 10
    np.testing.assert_array_equal(sensor.pedestal(15, time_s=59), one)
    leaked = sensor.pedestal(15, exposure_s=0.1) - one
    assert (leaked[0] > 0).mean() > 0.99
    assert (leaked[1:] < 0).mean() > 0.99


def test_too_much_light_reads_as_the_end_of_the_last_stage(sensor):
    assert set(np.unique(take(sensor, 1e7))) == {3 << 14}


def test_high_gain_makes_more_of_the_same_energy_in_g0_alone(sensor):
    usual, high = sensor.gains(), sensor.gains("highgain0")
    assert (high[0] > 2 * usual[0]).all()
    np.testing.assert_array_equal(high[1:], usual[1:])


def test_equal_seeds_give_equal_pixels_and_others_do_not(sensor):
    again, other = JungfrauSensor(ROWS, COLUMNS, seed=3), JungfrauSensor(ROWS, COLUMNS, seed=4)
    np.testing.assert_array_equal(take(again, 40.0), take(sensor, 40.0))
    assert not np.array_equal(other.gain, sensor.gain)


def test_commands_set_the_chips_and_storage_cells_go_round():
    chip = obey(
        ChipSettings(),
        "gainmode forceswitchg1; extrastoragecells 3; storagecell_start 14;"
        " storagecell_delay 10us; nextframenumber 7",
    )
    assert chip == ChipSettings("forceswitchg1", 3, 14, pytest.approx(1e-5), 7)
    assert [chip.cell(number) for number in range(4)] == [14, 15, 0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "gainmode g7",
        "gainmode",
        "extrastoragecells 16",
        "extrastoragecells -1",
        "storagecell_start 16",
        "storagecell_delay 2ms",
        "storagecell_delay fast",
        "nextframenumber 0",
        "powerchip 1",
    ],
)
def test_a_command_that_the_detector_refuses_leaves_all_as_it_was(text):
    name = text.split()[0]
    with pytest.raises(InputError, match=name.split("_")[0][:4]):
        obey(ChipSettings(), f"gainmode fixg1; {text}")
