"""What a fluorescence map is: the description that travels from the plan to the element maps."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from apsber_bluesky.core._errors import InputError

#: The file with the maps, in the folder of the run.
ELEMENT_MAPS_NAME = "maps.h5"


class FluorescenceMap(BaseModel):
    """A raster of pixels (start-document key ``fluorescence``).

    Frame ``i`` of the stream ``primary`` belongs to row ``i // columns``. Within a row, frames
    follow the columns; in odd rows backwards if `snake` is true.

    Attributes
    ----------
    rows, columns : int
        Pixels along the slow and the fast axis.
    fast_axis, slow_axis : str
        Names of the axes.
    fast_start_mm, slow_start_mm : float
        Position of the middle of pixel (0, 0) [mm].
    fast_step_mm, slow_step_mm : float
        Distance between pixels [mm]; may be negative, not 0.
    snake : bool
        Whether odd rows are taken backwards.
    mode : str
        ``fly``: the fast axis moves on during exposures; or ``step``.
    exposure_s : float
        Exposure time of a pixel [s].
    photon_energy_keV : float or None
        Energy of the exciting photons [keV].
    detector : str
        Name of the detector.
    event_width_s : list of float
        Dead time of an event in each element of the detector [s]; 0 for corrected spectra.
    bin_width_eV : float
        Nominal width of a bin of the spectra [eV].
    elements : list of str or None
        Elements that maps are wanted of; None finds them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PositiveInt
    columns: PositiveInt
    fast_axis: str
    slow_axis: str
    fast_start_mm: FiniteFloat
    fast_step_mm: FiniteFloat
    slow_start_mm: FiniteFloat
    slow_step_mm: FiniteFloat
    snake: bool = True
    mode: str = "fly"
    exposure_s: PositiveFloat
    photon_energy_keV: PositiveFloat | None = None
    detector: str
    event_width_s: list[NonNegativeFloat]
    bin_width_eV: PositiveFloat = 10.0
    elements: list[str] | None = None

    @model_validator(mode="after")
    def _steps_lead_somewhere(self) -> Self:
        for name in ("fast_step_mm", "slow_step_mm"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must not be 0")
        return self

    @classmethod
    def check(cls, values: dict[str, Any]) -> Self:
        """Make one out of plain values.

        Raises
        ------
        InputError
            If they describe no map; the message names each wrong value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg']}"
                if e["loc"]
                else str(e["msg"]).removeprefix("Value error, ")
                for e in error.errors()
            )
            raise InputError(f"this is no fluorescence map: {problems}") from None

    @property
    def num_frames(self) -> int:
        """Pixels of the whole map."""
        return self.rows * self.columns

    @property
    def fast_mm(self) -> NDArray[np.float64]:
        """Position of each column, shape ``(columns,)`` [mm]."""
        columns = np.arange(self.columns, dtype=np.float64)
        positions: NDArray[np.float64] = self.fast_start_mm + self.fast_step_mm * columns
        return positions

    @property
    def slow_mm(self) -> NDArray[np.float64]:
        """Position of each row, shape ``(rows,)`` [mm]."""
        rows = np.arange(self.rows, dtype=np.float64)
        positions: NDArray[np.float64] = self.slow_start_mm + self.slow_step_mm * rows
        return positions

    def is_backwards(self, row: int) -> bool:
        """Whether a row is taken from its last column to its first."""
        return self.snake and row % 2 == 1

    @property
    def pixel_of_frame(self) -> NDArray[np.int64]:
        """Number of the pixel, row by row, of each frame, shape ``(rows * columns,)``."""
        pixels = np.arange(self.num_frames, dtype=np.int64).reshape(self.rows, self.columns)
        if self.snake:
            pixels[1::2] = pixels[1::2, ::-1].copy()
        return pixels.reshape(-1)
