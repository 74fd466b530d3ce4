"""A Jungfrau's sensor and chips: charge in, ADC values out, each pixel and storage cell its own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

GainMode = Literal["dynamic", "forceswitchg1", "forceswitchg2", "fixg1", "fixg2", "fixg0"]
Setting = Literal["gain0", "highgain0"]
GAIN_MODES: Final[tuple[GainMode, ...]] = get_args(GainMode)
SETTINGS: Final[tuple[Setting, ...]] = get_args(Setting)

#: Storage cells of chip 1.0.
NUM_CELLS: Final = 16

_ADC_MAXIMUM: Final = 0x3FFF
_BITS_OF_STAGE: Final = (0, 1, 3)
# Means over the pixels, and how much they differ: ADC without charge [ADU], gain [ADU/keV].
_PEDESTAL_ADU: Final = ((2500.0, 150.0), (14600.0, 120.0), (14700.0, 120.0))
_GAIN: Final = ((41.0, 1.2), (-1.45, 0.05), (-0.105, 0.004))
_NOISE_ADU: Final = (10.0, 4.0, 4.0)
_CELL_ADU: Final = 60.0
_HIGH_GAIN: Final = 2.5
# Charge that the sensor leaks in all pixels, as energy, and its spread.
_LEAKAGE_KEV_S: Final = (20.0, 4.0)
# Pedestals wander with the temperature; a step of this length is far below a wobble of it.
_DRIFT_ADU: Final = 4.0
_DRIFT_PERIOD_S: Final = 7200.0
_DRIFT_STEP_S: Final = 60.0
# A stage that is fixed rather than switched to rests elsewhere.
_FIXED_ADU: Final = -250.0

_FIXED_STAGE: Final[dict[str, int]] = {
    "forceswitchg1": 1, "forceswitchg2": 2, "fixg1": 1, "fixg2": 2, "fixg0": 0,
}  # fmt: skip


class JungfrauSensor:
    """Pixels that switch their gain as charge arrives; a function of the seed.

    The signs and sizes are those of Mozzanica et al., "Characterization results of the JUNGFRAU
    full scale readout ASIC", J. Instrum. 11 (2016) C02047, and Redford et al., "First full
    dynamic range calibration of the JUNGFRAU photon detector", J. Instrum. 13 (2018) C01027.

    Parameters
    ----------
    rows, columns : int
        Size [pixel].
    seed : int
        Of everything that differs between pixels.

    Attributes
    ----------
    gain : ndarray of float64, shape (3, rows, columns)
        Gain of G0, G1 and G2 [ADU/keV]; that of G1 and G2 is negative.
    """

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self.rows, self.columns = rows, columns
        self._seed = seed
        random = np.random.default_rng((seed, 0x1F))
        shape = (rows, columns)
        self._base = np.stack([random.normal(*level, shape) for level in _PEDESTAL_ADU])
        self.gain = np.stack([random.normal(*level, shape) for level in _GAIN])
        self._leakage = np.maximum(random.normal(*_LEAKAGE_KEV_S, shape), 0.0)
        self._wander = random.normal(0.0, _DRIFT_ADU, shape)
        self._cell = lru_cache(NUM_CELLS)(self._offset_of_cell)
        self._levels = lru_cache(NUM_CELLS)(self._pedestal)

    def _offset_of_cell(self, cell: int) -> NDArray[np.float64]:
        random = np.random.default_rng((self._seed, 0x2F, cell))
        return random.normal(0.0, _CELL_ADU, (3, self.rows, self.columns))

    def gains(self, setting: Setting = "gain0") -> NDArray[np.float64]:
        """Gain of G0, G1 and G2 [ADU/keV] with a setting of the preamplifier."""
        gain = self.gain.copy()
        if setting == "highgain0":
            gain[0] *= _HIGH_GAIN
        return gain

    def pedestal(
        self,
        cell: int,
        *,
        exposure_s: float = 0.0,
        time_s: float = 0.0,
        setting: Setting = "gain0",
    ) -> NDArray[np.float64]:
        """Mean ADC without light of G0, and of G1 and G2 when switched to [ADU].

        Parameters
        ----------
        cell : int
            Storage cell.
        exposure_s : float
            Exposure time [s]; the sensor leaks charge all the while.
        time_s : float
            Time since power-on [s], for the drift.
        setting : {"gain0", "highgain0"}
            Setting of the preamplifier.

        Returns
        -------
        ndarray of float64, shape (3, rows, columns)
            The pedestals.
        """
        return self._levels(cell, exposure_s, time_s // _DRIFT_STEP_S, setting)

    def _pedestal(
        self, cell: int, exposure_s: float, step: float, setting: Setting
    ) -> NDArray[np.float64]:
        drift = self._wander * np.sin(2 * np.pi * step * _DRIFT_STEP_S / _DRIFT_PERIOD_S)
        leaked = self.gains(setting) * (self._leakage * exposure_s)
        levels: NDArray[np.float64] = self._base + self._cell(cell) + drift + leaked
        levels.setflags(write=False)
        return levels

    def expose(
        self,
        energy_keV: NDArray[Any],
        random: np.random.Generator,
        *,
        mode: GainMode = "dynamic",
        setting: Setting = "gain0",
        cell: int = NUM_CELLS - 1,
        exposure_s: float = 0.0,
        time_s: float = 0.0,
    ) -> NDArray[np.uint16]:
        """Read out one image.

        Parameters
        ----------
        energy_keV : ndarray, shape (rows, columns)
            Energy that each pixel absorbed [keV].
        random : numpy.random.Generator
            Of the noise.
        mode : str
            Gain mode, one of `GAIN_MODES`.
        setting, cell, exposure_s, time_s
            As for `pedestal`.

        Returns
        -------
        ndarray of uint16, shape (rows, columns)
            14 bits of ADC below 2 bits of gain.
        """
        levels = self.pedestal(cell, exposure_s=exposure_s, time_s=time_s, setting=setting)
        if mode.startswith("fix"):
            levels = levels + _FIXED_ADU
        gain = self.gains(setting)
        noise = random.standard_normal(energy_keV.shape)
        forced = _FIXED_STAGE.get(mode)
        stages = range(3) if forced is None else (forced,)
        raw = np.zeros(energy_keV.shape, dtype=np.uint16)
        left = np.ones(energy_keV.shape, dtype=np.bool_)
        for stage in stages:
            adc = np.rint(levels[stage] + gain[stage] * energy_keV + _NOISE_ADU[stage] * noise)
            last = stage == stages[-1]
            full = adc > _ADC_MAXIMUM if stage == 0 else adc < 0
            taken = left if last else left & ~full
            value = np.clip(adc, 0, _ADC_MAXIMUM).astype(np.uint16) | _BITS_OF_STAGE[stage] << 14
            raw[taken] = value[taken]
            left = left & ~taken
        return raw
