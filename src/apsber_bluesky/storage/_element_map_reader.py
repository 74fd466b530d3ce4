"""Read the element maps of a run back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError


@dataclass(frozen=True, slots=True)
class ElementMapImages:
    """What ``maps.h5`` shows.

    Attributes
    ----------
    counts : dict of str to ndarray, shape (rows, columns)
        Counts in the lines of each element; NaN where a frame is missing.
    fast_mm, slow_mm : ndarray
        Where the columns and rows are [mm].
    energy_eV, spectrum, fit : ndarray, shape (bins,)
        Sum of all spectra and what was fitted to it [counts].
    """

    counts: dict[str, NDArray[np.float64]]
    fast_mm: NDArray[np.float64]
    slow_mm: NDArray[np.float64]
    energy_eV: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    fit: NDArray[np.float64]


def read_element_maps(path: Path) -> ElementMapImages:
    """Read the maps of all elements; they are small.

    Raises
    ------
    DataFileError
        If the file is missing, damaged or of another layout.
    """
    try:
        with h5py.File(path, "r") as file:
            maps, spectrum = file["entry/maps"], file["entry/data"]
            elements = [str(name) for name in maps.attrs["elements"]]
            first = maps[elements[0]]
            return ElementMapImages(
                counts={name: maps[name]["data"][...] for name in elements},
                fast_mm=first["fast"][...],
                slow_mm=first["slow"][...],
                energy_eV=spectrum["energy"][...],
                spectrum=spectrum["data"][...],
                fit=spectrum["fit"][...],
            )
    except (OSError, KeyError, IndexError) as error:
        raise DataFileError(f"cannot read the element maps in {path}: {error}") from error
