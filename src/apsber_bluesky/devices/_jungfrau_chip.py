"""What is set of a Jungfrau's chips before a series; no record reads it back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from apsber_bluesky.core import InputError

#: How pixels choose their gain; ``fixg0`` is left out, for it can damage the detector.
JungfrauGainMode = Literal["dynamic", "forceswitchg1", "forceswitchg2", "fixg1", "fixg2"]
JungfrauSetting = Literal["gain0", "highgain0"]

#: Storage cells of a chip.
NUM_CELLS: Final = 16

_GAIN_MODES: Final = get_args(JungfrauGainMode)
_SETTINGS: Final = get_args(JungfrauSetting)


@dataclass(frozen=True, slots=True)
class JungfrauChip:
    """Gain and storage cells of a series.

    Attributes
    ----------
    gain_mode : str
        How pixels choose their gain.
    setting : str
        Setting of the preamplifier.
    extra_storage_cells : int
        Storage cells that an exposure fills beside its first one, 0 to 15.
    storage_cell_start : int
        The first one, 0 to 15.
    storage_cell_delay_s : float
        Time between the exposures of two cells [s].
    """

    gain_mode: str = "dynamic"
    setting: str = "gain0"
    extra_storage_cells: int = 0
    storage_cell_start: int = NUM_CELLS - 1
    storage_cell_delay_s: float = 0.0

    @property
    def images_per_exposure(self) -> int:
        """Images that each trigger or period gives: one for each storage cell."""
        return self.extra_storage_cells + 1

    @property
    def storage_cells(self) -> tuple[int, ...]:
        """Storage cells of the images of an exposure, in the order in which they come."""
        first = self.storage_cell_start
        return tuple((first + number) % NUM_CELLS for number in range(self.images_per_exposure))

    def exposure_s(self, each_s: float) -> float:
        """How long all cells take, when each is exposed for a time [s]."""
        between = self.images_per_exposure - 1
        return self.images_per_exposure * each_s + between * self.storage_cell_delay_s

    def check(self, name: str) -> None:
        """Refuse what a Jungfrau does not have, or what could damage it.

        Parameters
        ----------
        name : str
            Name of the detector, for the message.

        Raises
        ------
        InputError
            If so; it names the value.
        """
        if self.gain_mode == "fixg0":
            raise InputError(f"{name}: gain mode fixg0 can damage the detector")
        if self.gain_mode not in _GAIN_MODES:
            raise InputError(
                f"{name} has no gain mode {self.gain_mode!r}; give one of {', '.join(_GAIN_MODES)}"
            )
        if self.setting not in _SETTINGS:
            raise InputError(
                f"{name} has no setting {self.setting!r}; give one of {', '.join(_SETTINGS)}"
            )
        for what in ("extra_storage_cells", "storage_cell_start"):
            value = getattr(self, what)
            if type(value) is bool or not isinstance(value, int) or not 0 <= value < NUM_CELLS:
                raise InputError(f"{name}: {what} is {value!r}; give 0 to {NUM_CELLS - 1}")
        delay_s = self.storage_cell_delay_s
        if not (math.isfinite(delay_s) and delay_s >= 0):
            raise InputError(f"{name}: storage_cell_delay_s is {delay_s!r}; give 0 or more seconds")
